"""Steps of training that replay an earlier one have the bits of those that do not."""

import copy
import gc
import math
import pickle
import threading
import weakref
from itertools import product

import numpy as np
import pytest

import fastgru as fg
from fastgru import kernels, step
from fastgru.errors import NonFiniteError
from fastgru.kernels import ACTIVATIONS
from fastgru.regularizers import L2

CELLS = fg.GRU, fg.LSTM, fg.SimpleRNN
B, T, V, CLASSES = 5, 7, 11, 3


@pytest.fixture
def replayed(monkeypatch):
    """How often something was replayed; after two batches of a shape it is."""
    count = [0]
    own = kernels.replay

    def counted(noted):
        count[0] += 1
        own(noted)

    monkeypatch.setattr(kernels, "replay", counted)
    monkeypatch.setattr(step, "REPEATS", 2)
    return count


def compiled(layers, loss="sparse_categorical_crossentropy", **options):
    model = fg.Sequential(layers)
    model.compile(fg.optimizers.Adam(0.01, global_clipnorm=1.0, **options), loss, ["accuracy"])
    return model


def classifier(units=4, **options):
    return compiled(
        [
            fg.Embedding(V, 6, seed=1),
            fg.GRU(units, return_sequences=True, seed=2, **options),
            fg.GRU(units, seed=3),
            fg.Dense(CLASSES, "softmax", seed=4),
        ]
    )


def drawn(rng, steps=12, shape=(B, T)):
    return rng.integers(0, V, (steps, *shape)), rng.integers(0, CLASSES, (steps, shape[0]))


def trained(model, x, y, between=None, **columns):
    """Return what training on each batch gives, and the weights at its end."""
    results = []
    for i in range(len(x)):
        results.append(model.train_on_batch(x[i], y[i], **{k: v[i] for k, v in columns.items()}))
        if between is not None:
            between(model, i)
    return results, [w for layer in model.layers for w in layer.get_weights()]


def frozen(model, layer):
    model.layers[layer].trainable = False
    model.compile("sgd", model.loss, ["accuracy"])


def assert_same(make, x, y, monkeypatch, **options):
    """Compare with a twin that never replays anything."""
    results, weights = trained(make(), x, y, **options)
    monkeypatch.setattr(step, "REPEATS", math.inf)
    wanted, weights_wanted = trained(make(), x, y, **options)
    assert results == wanted
    for got, want in zip(weights, weights_wanted, strict=True):
        np.testing.assert_array_equal(got, want)


# ---- the same bits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_replay_has_the_bits_of_an_ordinary_step(cell, dtype, rng, replayed, monkeypatch):
    for backwards, bias, top in product((False, True), (False, True), ("avg", "max", "relu", "")):
        seeded = {"dtype": dtype, "seed": 1}
        pools = {"avg": fg.GlobalAveragePooling1D, "max": fg.GlobalMaxPooling1D}

        def make(backwards=backwards, bias=bias, top=top, seeded=seeded, pools=pools):
            options = {"go_backwards": backwards, "use_bias": bias, **seeded}
            return compiled(
                [
                    fg.Embedding(V, 6, **seeded),
                    cell(5, return_sequences=True, activation="elu", **options),
                    cell(4, return_sequences=top in pools, **options),
                    *([pools[top](dtype=dtype)] if top in pools else []),
                    *([fg.Dense(6, top, use_bias=bias, **seeded)] if top == "relu" else []),
                    fg.Dense(CLASSES, "softmax", **seeded),
                ]
            )

        before = replayed[0]
        monkeypatch.setattr(step, "REPEATS", 2)
        assert_same(make, *drawn(rng, 8), monkeypatch)
        assert replayed[0] - before == 2 * (8 - 3)


def test_inputs_may_be_vectors_of_any_kind_and_targets_sequences(rng, replayed, monkeypatch):
    def make():
        cells = [fg.GRU(4, reset_after=False, return_sequences=True, seed=1)]
        return compiled([*cells, fg.Dense(2, "gelu", seed=2)], loss="mse")

    x = rng.normal(size=(12, T, B, 3)).swapaxes(1, 2)  # float64, and not contiguous
    assert_same(make, x, rng.normal(size=(12, B, T, 2)), monkeypatch)
    assert_same(make, rng.integers(-2, 3, (12, B, T, 3)), np.ones((12, B, T, 2)), monkeypatch)
    assert replayed[0] == 18


def test_losses_are_other_than_cross_entropies_too(rng, replayed, monkeypatch):
    x, y = drawn(rng)
    for loss in ("mse", "mae", "huber"):
        monkeypatch.setattr(step, "REPEATS", 2)

        def make(loss=loss):
            return compiled([fg.Embedding(V, 3, seed=1), fg.GRU(1, seed=2)], loss)

        assert_same(make, x, y[..., None], monkeypatch, sample_weight=rng.random((12, B)))
    assert replayed[0] == 3 * 18


class Halved(fg.losses.Loss):
    """A loss of a user's, whose gradient is not of the dtype of the model."""

    name = "halved"

    def __call__(self, target, output, sample_weight=None, mask=None):
        error = output.astype(np.float64) - np.asarray(target)
        return float((error**2).mean() / 2), error / error.size

    def check(self, *arguments):
        pass


class Keeping(fg.metrics.Metric):
    """A metric of a user's, which keeps what it is given."""

    name = "keeping"

    def reset(self):
        self.outputs = []

    def update(self, target, output, mask=None):
        self.outputs.append(output)

    def result(self):
        return float(sum(output.sum() for output in self.outputs))


def test_losses_and_metrics_may_be_a_users(rng, replayed, monkeypatch):
    x, y = drawn(rng, 1, (8 * B, T))

    def fitted(repeats):
        monkeypatch.setattr(step, "REPEATS", repeats)
        model = fg.Sequential([fg.Embedding(V, 3, seed=1), fg.GRU(2, seed=2)])
        model.compile("sgd", Halved(), [Keeping()])
        return model.fit(x[0], np.stack([y[0]] * 2, 1), B, 2, shuffle=False, verbose=0).history

    got, want = fitted(2), fitted(math.inf)
    assert got == want
    assert replayed[0] == 2 * (16 - 3)


def test_layers_may_share_weights(rng, replayed, monkeypatch):
    def make():
        shared = fg.GRU(6, return_sequences=True, seed=2)
        last = fg.GRU(CLASSES, seed=4)
        return compiled([fg.Embedding(V, 6, seed=1), shared, shared, last], loss="mse")

    x, y = drawn(rng)
    assert_same(make, x, np.eye(CLASSES)[y], monkeypatch)
    assert replayed[0] == 18


def test_fit_replays_across_epochs_and_beside_other_shapes(rng, replayed, monkeypatch):
    x, y = drawn(rng, 1, (6 * B + 2, T))

    def fitted(repeats, **options):
        monkeypatch.setattr(step, "REPEATS", repeats)
        fg.set_random_seed(5)
        model = classifier()
        history = model.fit(x[0], y[0], batch_size=B, epochs=3, verbose=0, **options)
        return history.history, [w for layer in model.layers for w in layer.get_weights()]

    for options in ({}, {"weight_noise": 0.1}, {"validation_split": 0.3}):
        replayed[0] = 0
        got, want = fitted(2, **options), fitted(math.inf, **options)
        assert got[0] == want[0]
        assert all(map(np.array_equal, got[1], want[1]))
        # In three epochs of full batches, of which the first two go by and the third is recorded.
        assert replayed[0] == 2 * (3 * (4 if "validation_split" in options else 6) - 3)


@pytest.mark.parametrize(
    "between",
    [
        lambda model, i: model.predict(np.zeros((2, 3), int)),
        lambda model, i: model.layers[3].set_weights([np.ones((4, CLASSES)), np.ones(CLASSES)]),
        lambda model, i: model.layers[1].params["bias"].fill(0.1),
        lambda model, i: frozen(model, 0) if i == 6 else None,
        lambda model, i: frozen(model, 2) if i == 6 else None,
        lambda model, i: setattr(model.layers[1], "dropout", 0.5 if i == 6 else 0.0),
        lambda model, i: setattr(model.optimizer, "learning_rate", 0.01 * i),
        lambda model, i: i == 6 and model.compile("sgd", "sparse_categorical_crossentropy"),
        lambda model, i: i == 6 and model.optimizer.set_state(model.optimizer.get_state()),
        lambda model, i: i == 6 and model.train_on_batch(np.ones((2, 3), int), np.ones(2)),
        lambda model, i: model.forward(np.ones((B, T), int))[1](np.ones((B, CLASSES))),
        lambda model, i: setattr(model.layers[3], "activation", "sigmoid" if i > 6 else "softmax"),
        lambda model, i: setattr(model.layers[2], "use_bias", i < 7),
        lambda model, i: i == 6 and setattr(model.layers[1], "note", np.ones(2)),
        lambda model, i: i == 6 and setattr(model.layers[3], "regularizer", lambda name: L2(0.1)),
        lambda model, i: i == 6 and model.layers.insert(1, fg.Activation("tanh")),
    ],
)  # fmt: skip
def test_what_happens_between_batches_counts(between, rng, replayed, monkeypatch):
    assert_same(classifier, *drawn(rng), monkeypatch, between=between)
    assert replayed[0] > 0


def test_another_loss_for_the_same_optimizer_counts(rng, replayed, monkeypatch):
    """The last activation is computed with the one loss, and not with the other."""

    def other_loss(model, i):
        if i == 6:
            model.compile(model.optimizer, "mse", ["accuracy"])

    def make():
        return compiled(
            [fg.GRU(CLASSES, seed=1), fg.Dense(CLASSES, "softmax", seed=2)],
            "categorical_crossentropy",
        )

    x, y = rng.normal(size=(12, B, T, 2)), np.eye(CLASSES)[rng.integers(0, CLASSES, (12, B))]
    assert_same(make, x, y, monkeypatch, between=other_loss)
    assert replayed[0] == 2 * (7 - 3 + 5 - 3)


def test_a_recording_begins_with_packing(rng, replayed, monkeypatch):
    """Weights that something else has packed, just before a batch is recorded, are packed again."""

    def forward(model, i):
        model.forward(np.ones((B, T), int))

    assert_same(classifier, *drawn(rng), monkeypatch, between=forward)
    assert replayed[0] == 18


class Each(fg.callbacks.Callback):
    """Do something after each batch."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def on_train_batch_end(self, batch, logs=None):
        self.act(self.model, batch)


@pytest.mark.parametrize(
    "act",
    [
        lambda model, i: i == 6 and setattr(model.layers[0], "trainable", False),
        lambda model, i: i == 6 and setattr(model.layers[1], "trainable", False),
        lambda model, i: i == 1 and setattr(model.layers[3], "trainable", False),
        lambda model, i: i == 6 and model.layers.insert(1, fg.Activation("tanh")),
        lambda model, i: i == 6 and setattr(model.layers[3], "activation", "sigmoid"),
        lambda model, i: i == 6 and setattr(model.layers[1], "dropout", 0.5),
    ],
)
def test_what_a_callback_changes_counts_from_the_next_batch_on(act, rng, replayed, monkeypatch):
    x, y = drawn(rng, 1, (12 * B, T))

    def fitted(repeats):
        monkeypatch.setattr(step, "REPEATS", repeats)
        model = classifier()
        history = model.fit(x[0], y[0], B, shuffle=False, verbose=0, callbacks=[Each(act)]).history
        return history, [w for layer in model.layers for w in layer.get_weights()]

    got, want = fitted(2), fitted(math.inf)
    assert got[0] == want[0]
    assert all(map(np.array_equal, got[1], want[1]))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (5_000_000, ValueError, "embedding: x: expected integers from 0 to 10, given 0 to 5000000"),
        (-1, ValueError, "embedding: x: expected integers from 0 to 10, given -1 to 10"),
    ],
)
def test_ids_that_change_after_the_check_reach_no_memory(value, error, message, rng, replayed):
    x, y = drawn(rng, 1, (12 * B, T))
    x[0, :, 0], x[0, :, 1] = 0, V - 1

    def act(model, i):
        if i == 8:
            x[0, 9 * B : 10 * B, 2] = value

    with pytest.raises(error, match=message):
        classifier().fit(x[0], y[0], B, shuffle=False, verbose=0, callbacks=[Each(act)])
    assert replayed[0] == 2 * 6 + 1


def test_floats_that_are_no_ids_are_refused_in_time(rng, replayed):
    x, y = drawn(rng, 1, (12 * B, T))
    x = x[0].astype(float)

    def act(model, i):
        x[9 * B] = 1.5

    with pytest.raises(TypeError, match="expected integers, given float64 with fractions"):
        classifier().fit(x, y[0], B, shuffle=False, verbose=0, callbacks=[Each(act)])
    assert replayed[0] == 0


def test_ids_that_come_as_floats_are_tried_once(rng, replayed, monkeypatch):
    made, replay = [], step.Replay
    monkeypatch.setattr(step, "Replay", lambda *args: made.append(args) or replay(*args))
    x, y = drawn(rng)
    trained(classifier(), x.astype(float), y)
    assert len(made) == 1 and replayed == [0]


def test_a_gradient_of_another_shape_is_refused(rng, replayed):
    x, y = drawn(rng)
    model = fg.Sequential([fg.Embedding(V, 3, seed=1), fg.GRU(2, seed=2)])
    model.compile("sgd", Halved())
    targets = np.stack([y] * 2, -1)
    trained(model, x, targets)
    own = Halved.__call__
    model.loss.__class__ = type(
        "Scalar", (Halved,), {"__call__": lambda *a, **k: (own(*a)[0], 1.0)}
    )
    with pytest.raises(ValueError, match=r"gru: dy: expected shape \(5, 2\), given \(\)"):
        model.train_on_batch(x[0], targets[0])


def test_weights_that_another_thread_packs_meanwhile_are_packed_again(rng, replayed, monkeypatch):
    def make():
        model = classifier()
        first = model.layers[0]
        own = first.output_mask

        def output_mask(x, mask):
            if threading.current_thread() is threading.main_thread():
                thread = threading.Thread(target=model.forward, args=(np.ones((1, 2), int),))
                thread.start()
                thread.join()
            return own(x, mask)

        monkeypatch.setattr(first, "output_mask", output_mask)
        return model

    assert_same(make, *drawn(rng), monkeypatch)
    assert replayed[0] == 18


def test_a_recording_that_failed_is_made_again(rng, replayed):
    x, y = drawn(rng)
    model = classifier()
    own, model.loss.fused = model.loss.fused, lambda *a, **k: (math.nan, None)
    trained(model, x[:0], y[:0])
    model.loss.fused = own
    trained(model, x[:2], y[:2])
    model.loss.fused = lambda *a, **k: (math.nan, None)
    with pytest.raises(NonFiniteError):
        model.train_on_batch(x[2], y[2])
    assert not any(gradient.any() for layer in model.layers for gradient in layer.grads.values())
    model.loss.fused = own
    trained(model, x, y)
    assert replayed[0] == 2 * 11


def test_a_model_that_was_pickled_by_an_older_version_trains(rng, replayed):
    state = classifier().__getstate__()
    assert "_last_step" not in state
    model = fg.Sequential.__new__(fg.Sequential)
    vars(model).update(state)
    trained(model, *drawn(rng))
    assert replayed[0] > 0


def test_a_class_whose_forward_was_changed_is_not_replayed(rng, replayed, monkeypatch):
    own = fg.GRU.forward

    def forward(self, x, **options):
        y, backward = own(self, x, **options)
        return 2 * y, lambda dy, with_dx=True: backward(2 * dy, with_dx=with_dx)

    monkeypatch.setattr(fg.GRU, "forward", forward)
    assert_same(classifier, *drawn(rng), monkeypatch)
    assert replayed[0] == 0


# ---- calls


def test_calls_are_made_again_on_the_same_arrays(rng):
    source, x = rng.normal(size=(4, 3)), np.empty((4, 3))
    weights = kernels.pack_dense(rng.normal(size=(3, 2)), np.zeros(2))
    with kernels.recorded() as noted:
        kernels.perform(np.copyto, x, source)
        y = kernels.dense_forward(x, weights)
        z = kernels.dense_forward(x, weights, ACTIVATIONS.index("tanh"))
    kernels.dense_forward(x, weights, out=np.empty((4, 2)))  # not noted any more
    noted.prepare()
    source[...] = rng.normal(size=(4, 3))
    x[...] = y[...] = z[...] = np.nan
    kernels.replay(noted)
    np.testing.assert_array_equal(y, kernels.dense_forward(source, weights))
    np.testing.assert_allclose(z, np.tanh(y), rtol=1e-14)


def test_a_kernel_that_fails_may_succeed_again(rng):
    x, weights = rng.normal(size=(4, 3)), kernels.pack_dense(np.ones((3, 2)), np.zeros(2))
    with kernels.recorded() as noted:
        kernels.dense_forward(x, weights)
    noted.prepare()
    ((_, (_, (share,))),) = noted._runs
    share.kept[0][0] = 1  # where the kernel could not allocate memory
    with pytest.raises(MemoryError, match="a kernel could not allocate its work space"):
        kernels.replay(noted)
    kernels.replay(noted)


def test_work_for_several_threads_is_not_small(rng, threads):
    x, weights = rng.normal(size=(64, 3)), kernels.pack_dense(np.ones((3, 2)), np.zeros(2))
    for least, is_small in ((1, False), (10**9, True)):
        threads.LEAST_FLOPS = least
        with kernels.recorded() as noted:
            kernels.dense_forward(x, weights)
        assert noted.is_small == is_small


def test_calls_of_other_threads_are_not_noted(rng):
    x, weights = rng.normal(size=(4, 3)), kernels.pack_dense(np.ones((3, 2)), np.zeros(2))
    y = np.zeros((4, 2))
    with kernels.recorded() as noted:
        thread = threading.Thread(target=kernels.dense_forward, args=(x, weights, 0, y))
        thread.start()
        thread.join()
    assert y.any()
    noted.prepare()
    y[...] = 0
    kernels.replay(noted)
    assert not y.any()


# ---- where nothing is replayed


def test_a_forward_that_was_changed_is_not_replayed(rng, replayed, monkeypatch):
    def make():
        model = classifier()
        layer = model.layers[1]

        def forward(x, **options):
            y, backward = type(layer).forward(layer, x, **options)
            return 2 * y, lambda dy, with_dx=True: backward(2 * dy, with_dx=with_dx)

        layer.forward = forward
        return model

    assert_same(make, *drawn(rng), monkeypatch)
    assert replayed[0] == 0


class Doubled(fg.GRU):
    """A layer of a user's."""

    def forward(self, x, mask=None, lengths=None, initial_state=None, **options):
        y, backward = super().forward(x, mask, lengths, initial_state, **options)
        return 2 * y, lambda dy, with_dx=True: backward(2 * dy, with_dx=with_dx)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Doubled(4),
        lambda: fg.GRU(4, dropout=0.2, seed=1),
        lambda: fg.GRU(4, recurrent_dropout=0.2, seed=1),
        lambda: fg.GRU(4, stateful=True),
        lambda: fg.GRU(4, return_state=True),
        lambda: fg.GRU(4, activation=(np.tanh, lambda y: 1 - y * y)),
        lambda: fg.GRU(4, dtype="float64"),
        lambda: fg.Bidirectional(fg.GRU(4)),
    ],
)
def test_what_is_more_than_kernels_is_not_replayed(layer, rng, replayed):
    model = compiled([fg.Embedding(V, 6, seed=1), layer(), fg.Dense(CLASSES, "softmax", seed=2)])
    trained(model, *drawn(rng))
    assert replayed[0] == 0


def test_masked_and_empty_batches_are_not_replayed(rng, replayed):
    model, (x, y) = classifier(), drawn(rng)
    trained(compiled([fg.Embedding(V, 6, mask_zero=True), fg.GRU(CLASSES)]), x, y)
    trained(model, x, y, lengths=np.full((12, B), 3))
    trained(model, x[:, :, :0], y)
    assert replayed[0] == 0


def test_large_work_is_not_replayed(rng, replayed, threads):
    trained(classifier(), *drawn(rng))
    assert replayed[0] == 0


def test_shapes_that_change_are_not_replayed(rng, replayed):
    model = classifier()
    for i in range(12):
        trained(model, *drawn(rng, 1, (B, 3 + i % 2)))
    assert replayed[0] == 0


# ---- the model


def test_a_batch_that_fails_leaves_nothing_half_recorded(rng, replayed, monkeypatch):
    x, y = drawn(rng)

    def make():
        model = classifier()
        own, fails = model.loss.fused, {2, 4, 7}

        def fused(*args, **options):
            value, dy = own(*args, **options)
            count[0] += 1
            return (math.nan if count[0] - 1 in fails else value), dy

        count = [0]
        model.loss.fused = fused
        return model

    def run():
        model, results = make(), []
        for i in range(12):
            try:
                results.append(model.train_on_batch(x[i], y[i]))
            except NonFiniteError:
                results.append("not finite")
        return results, [w for layer in model.layers for w in layer.get_weights()]

    got = run()
    assert got[0].count("not finite") == 3
    monkeypatch.setattr(step, "REPEATS", math.inf)
    want = run()
    assert got[0] == want[0]
    assert all(map(np.array_equal, got[1], want[1]))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_trains_on_its_own(duplicate, rng, replayed):
    model, (x, y) = classifier(), drawn(rng)
    trained(model, x[:6], y[:6])
    other = duplicate(model)
    before = trained(model, x[:0], y[:0])[1]
    results = trained(other, x[6:], y[6:])
    assert all(map(np.array_equal, before, trained(model, x[:0], y[:0])[1]))
    assert trained(model, x[6:], y[6:])[0] == results[0]


def test_a_model_that_nobody_holds_is_gone_at_once(rng, replayed):
    model = classifier()
    trained(model, *drawn(rng))
    assert replayed[0] > 0
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_what_is_recorded_takes_the_memory_of_one_step(rng, replayed):
    """A wrong twin: a recording that is not the last one would be kept as well."""

    def recordings():
        return {id(o) for o in gc.get_objects() if type(o).__name__ == "Recording"}

    before = recordings()
    model = classifier()
    for size in (5, 6, 7, 8):
        trained(model, *drawn(rng, 6, (size, T)))
    assert len(recordings() - before) == 2
