"""What recurrent layers keep, drop and hide: states, dropout, masked outputs, frozen weights."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import fastgru as fg
from fastgru import reference
from fastgru.recurrent import listed

F64 = {"dtype": "float64", "seed": 3}
CELLS = [fg.GRU, fg.LSTM, fg.SimpleRNN]
each_cell = pytest.mark.parametrize("kind", CELLS)
MASK = np.array([[1, 1, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool)


def both(kind, **options):
    return fg.Bidirectional(kind(5, **options))


def close(got, want, **options):
    for a, b in zip(listed(got), listed(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14, **options)


# ---- states that go on


@each_cell
@pytest.mark.parametrize("training", [False, True])
def test_a_stateful_layer_goes_on_where_the_last_batch_has_ended(kind, training, rng):
    layer = kind(5, stateful=True, return_sequences=True, **F64)
    x = rng.normal(size=(3, 8, 2))

    def run(x, **options):
        return layer.forward(x, **options)[0] if training else layer(x, **options)

    parts = [run(x[:, :3]), run(x[:, 3:4]), run(x[:, 4:])]
    whole = kind(5, return_sequences=True, **F64)
    whole.build(x.shape)
    whole.set_weights(layer.get_weights())
    assert np.concatenate(parts, 1).tobytes() == whole(x).tobytes()
    layer.reset_states()
    assert run(x[:, :3]).tobytes() == parts[0].tobytes()
    states = [rng.normal(size=(3, 5)) for _ in layer.STATES]
    layer.reset_states(states)
    assert run(x).tobytes() == whole(x, initial_state=states).tobytes()
    run(x, initial_state=states)
    again = run(x)
    _, *last = kind(5, return_state=True, **F64).forward(x, initial_state=states)[0]
    assert again.tobytes() == whole(x, initial_state=last).tobytes()


def test_both_directions_go_on_and_take_their_states(rng):
    layer, plain = both(fg.LSTM, stateful=True, **F64), both(fg.LSTM, return_state=True, **F64)
    x = rng.normal(size=(3, 4, 2))
    first, *states = plain(x)
    assert layer(x).tobytes() == first.tobytes()
    second = plain(x, initial_state=states)[0]
    assert layer(x).tobytes() == second.tobytes() != first.tobytes()
    layer.reset_states()
    assert layer(x).tobytes() == first.tobytes()
    layer.reset_states(states)
    assert layer(x).tobytes() == second.tobytes()
    with pytest.raises(ValueError, match="states: expected a list of 4 arrays"):
        layer.reset_states(states[:2])


@each_cell
def test_gradients_end_where_a_batch_begins(kind, rng):
    layer = kind(5, stateful=True, **F64)
    x = rng.normal(size=(3, 4, 2))
    layer.forward(x)
    carried = [state.copy() for state in layer._carried]
    y, backward = layer.forward(x)
    dx = backward(np.ones_like(y))
    other = kind(5, **F64)
    y, backward = other.forward(x, initial_state=carried)
    want, _ = backward(np.ones_like(y))
    assert isinstance(dx, np.ndarray) and dx.tobytes() == want.tobytes()
    assert all(map(np.array_equal, layer.get_gradients(), other.get_gradients()))


def test_another_number_of_rows_is_refused_until_the_states_are_reset(rng):
    for layer in (fg.GRU(5, stateful=True), both(fg.GRU, stateful=True)):
        layer(rng.normal(size=(3, 4, 2)))
        with pytest.raises(ValueError, match=r"x: expected 3 rows.*given 2; call reset_states\(\)"):
            layer(rng.normal(size=(2, 4, 2)))
        layer.reset_states()
        layer(rng.normal(size=(2, 4, 2)))
    with pytest.raises(ValueError, match="states: expected None, as the layer is not stateful"):
        fg.GRU(5).reset_states(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"states: expected shape \(2, 5\), given \(2, 4\)"):
        fg.GRU(5, stateful=True).reset_states(np.zeros((2, 4)))
    for states in (1.0, np.zeros(4)):
        with pytest.raises(ValueError, match=r"states: expected shape \(batch, 5\), given"):
            fg.GRU(5, stateful=True).reset_states(states)
    with pytest.raises(ValueError, match="states: expected a list .*h, c"):
        fg.LSTM(5, stateful=True).reset_states(np.zeros((2, 4)))


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
@pytest.mark.parametrize("make", [lambda **o: fg.LSTM(5, **o), lambda **o: both(fg.GRU, **o)])
def test_a_copy_carries_no_state(make, duplicate, rng):
    layer = make(stateful=True, **F64)
    x = rng.normal(size=(3, 4, 2))
    first = layer(x)
    other = duplicate(layer)
    second = layer(x)
    assert other(x).tobytes() == first.tobytes() != second.tobytes()


def test_a_model_goes_on_over_batches_forgets_on_demand_and_is_saved_without_states(rng, tmp_path):
    def made(stateful):
        layers = [fg.GRU(4, return_sequences=True, stateful=stateful, seed=0), fg.Dropout(0.5)]
        return fg.Sequential([*layers, fg.LSTM(3, stateful=stateful, seed=1), fg.Dense(2, seed=2)])

    model, plain = made(True), made(False)
    x = rng.normal(size=(2, 6, 3)).astype(np.float32)
    first = model.predict(x[:, :2])
    model.save(tmp_path / "m.safetensors")
    assert model.predict(x[:, 2:]).tobytes() == plain.predict(x).tobytes()
    model.reset_states()
    assert model.predict(x[:, :2]).tobytes() == first.tobytes()
    again = fg.load_model(tmp_path / "m.safetensors")
    assert again.predict(x[:, :2]).tobytes() == first.tobytes()


@pytest.mark.parametrize(
    "make", [lambda: fg.LSTM(3, stateful=True), lambda: both(fg.GRU, stateful=True)]
)
def test_a_last_batch_with_fewer_rows_is_refused_before_anything_moves(make, rng):
    model = fg.Sequential([make(), fg.Dense(1)])
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(6, 5, 2)), rng.normal(size=(6, 1))
    first = model.predict(x[:2])
    model.reset_states()
    before = [w.copy() for w in model.get_weights()]
    sizes = "batch_size: expected one that makes batches of one size only"
    with pytest.raises(ValueError, match=f"{sizes} of 6 samples, .* given 4"):
        model.fit(x, y, batch_size=4)
    with pytest.raises(ValueError, match=f"{sizes} of 6 and of 3 samples, .* given 2"):
        model.fit(x, y, batch_size=2, validation_data=(x[:3], y[:3]))
    with pytest.raises(ValueError, match=f"{sizes} of 4 and of 2 samples, .* given 4"):
        model.fit(x, y, batch_size=4, validation_split=0.3)
    for use in (model.evaluate, lambda x, y, size: model.predict(x, size)):
        with pytest.raises(ValueError, match=f"{sizes} of 6 samples, .* given 5"):
            use(x, y, 5)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    assert model.predict(x[:2]).tobytes() == first.tobytes()
    model.reset_states()
    history = model.fit(x, y, batch_size=2, validation_data=(x[:4], y[:4]), epochs=2)
    assert len(history.history["val_loss"]) == 2


# ---- dropout


def drawn(layer, B, I, H):
    """Return what the layer's generator will draw for a batch."""
    random = copy.deepcopy(layer._random)

    def factor(rate, shape):
        return (random.random(shape, np.float32) >= rate) / (1 - rate) if rate else np.ones(shape)

    return factor(layer.dropout, (B, 1, I)), factor(layer.recurrent_dropout, (B, H))


@each_cell
@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5), (0.25, 0.5)])
@pytest.mark.parametrize("options", [{}, {"return_sequences": True, "go_backwards": True}])
def test_dropout_hides_the_same_inputs_and_states_in_all_steps(kind, rates, options, rng):
    options = options | dict(zip(("dropout", "recurrent_dropout"), rates, strict=True))
    layer = kind(5, **options, **F64)
    x, initial = rng.normal(size=(3, 6, 7)), [rng.normal(size=(3, 5)) for _ in layer.STATES]
    plain = kind(5, **options | {"dropout": 0.0, "recurrent_dropout": 0.0}, **F64)
    layer.build(x.shape), plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    assert layer(x, mask=MASK).tobytes() == plain(x, mask=MASK).tobytes()
    seen, drop = drawn(layer, 3, 7, 5)
    assert (seen == 0).any() == (rates[0] > 0) and (drop == 0).any() == (rates[1] > 0)
    y, backward = layer.forward(x, mask=MASK, initial_state=initial)
    dy = rng.normal(size=y.shape)
    dx, dinitial = backward(dy)

    cell, weights = kind.CELL, layer._arrays(layer.params)
    backwards = {"go_backwards": layer.go_backwards, "drop": drop}
    weights = weights if kind is fg.GRU else weights[:3]
    arrays = x * seen, MASK, *initial, *weights
    kept = getattr(reference, f"{cell}_forward")(*arrays, **backwards)
    kept = kept if isinstance(kept, tuple) else (kept,)
    close(y, kept[0] if layer.return_sequences else kept[0][:, -1])
    steps = dy if layer.return_sequences else np.zeros_like(kept[0])
    last = [np.zeros((3, 5)) for _ in layer.STATES]
    if not layer.return_sequences:
        last[0] = dy
    want, *rest = getattr(reference, f"{cell}_backward")(steps, *last, *arrays, *kept, **backwards)
    close(dx, want * seen)
    close(dinitial, rest[: len(initial)])
    close(layer._arrays(layer.grads)[: len(weights)], rest[len(initial) :])


@each_cell
def test_gradients_with_dropout_are_central_differences(kind, rng):
    layer = kind(4, dropout=0.25, recurrent_dropout=0.5, return_sequences=True, **F64)
    x = rng.normal(size=(2, 5, 3))
    layer.build(x.shape)
    state = layer._random.bit_generator.state

    def forward():
        layer._random.bit_generator.state = state
        return layer.forward(x)

    y, backward = forward()
    dy = rng.normal(size=y.shape)
    dx = backward(dy)
    for gradient, array in [(dx, x), *((layer.grads[n], p) for n, p in layer.params.items())]:
        for i in list(np.ndindex(array.shape))[:: max(1, array.size // 9)]:
            kept, values = array[i], []
            for step in (1e-6, -1e-6):
                array[i] = kept + step
                values.append((forward()[0] * dy).sum())
            array[i] = kept
            assert gradient[i] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6, abs=1e-8)


def test_dropout_is_drawn_anew_for_each_batch_and_repeated_by_a_seed(rng):
    x = rng.normal(size=(4, 6, 8)).astype(np.float32)
    layer, twin = (fg.GRU(16, dropout=0.5, recurrent_dropout=0.5, seed=5) for _ in range(2))
    first, second = layer.forward(x)[0], layer.forward(x)[0]
    assert not np.array_equal(first, second)
    assert np.array_equal(twin.forward(x)[0], first) and np.array_equal(twin.forward(x)[0], second)
    assert np.array_equal(layer(x), twin(x)) and np.array_equal(layer(x), fg.GRU(16, seed=5)(x))


# ---- outputs at masked steps


@each_cell
@pytest.mark.parametrize("go_backwards", [False, True])
def test_outputs_at_masked_steps_are_zero_and_their_gradients_are_ignored(kind, go_backwards, rng):
    options = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards}
    layer = kind(5, zero_output_for_mask=True, **options, **F64)
    plain = kind(5, **options, **F64)
    x = rng.normal(size=(3, 6, 2))
    real = (MASK[:, ::-1] if go_backwards else MASK)[..., None]
    y, *last = layer(x, mask=MASK)
    want, *ends = plain(x, mask=MASK)
    assert y.tobytes() == np.where(real, want, 0).tobytes() != want.tobytes()
    assert all(map(np.array_equal, last, ends))
    (again, *_), backward = layer.forward(x, mask=MASK)
    assert again.tobytes() == y.tobytes()
    dy, dlast = rng.normal(size=y.shape), [rng.normal(size=(3, 5)) for _ in last]
    _, plainly = plain.forward(x, mask=MASK)
    assert backward(dy, dlast).tobytes() == plainly(dy * real, dlast).tobytes()
    assert all(map(np.array_equal, layer.get_gradients(), plain.get_gradients()))
    assert np.array_equal(layer(x)[0], plain(x)[0])


def test_the_last_output_alone_is_never_a_zero_of_the_padding(rng):
    x = rng.normal(size=(3, 6, 2))
    layer = fg.GRU(5, zero_output_for_mask=True, **F64)
    assert np.array_equal(layer(x, mask=MASK), fg.GRU(5, **F64)(x, mask=MASK))


def test_both_directions_can_hide_the_padding(rng):
    x = rng.normal(size=(3, 6, 2))
    layer = both(fg.GRU, zero_output_for_mask=True, return_sequences=True, **F64)
    plain = both(fg.GRU, return_sequences=True, **F64)
    want = plain(x, mask=MASK)
    assert np.array_equal(layer(x, mask=MASK), np.where(MASK[..., None], want, 0))


# ---- weights that are not trained


def frozen(**options):
    return [
        lambda: fg.Embedding(9, 4, **options),
        lambda: fg.GRU(4, return_sequences=True, **options),
        lambda: fg.Bidirectional(fg.LSTM(4, return_sequences=True, **options)),
        lambda: fg.Dense(4, **options),
    ]


@pytest.mark.parametrize("i", range(4))
@pytest.mark.parametrize("later", [False, True])
def test_frozen_weights_get_no_gradients_and_hand_them_on(i, later, rng):
    layer, plain = frozen(trainable=later, seed=3)[i](), frozen(seed=3)[i]()
    layer.trainable = False
    assert not layer.trainable and layer.pairs() == []
    x = rng.integers(0, 9, (3, 5)) if i == 0 else rng.normal(size=(3, 5, 2)).astype(np.float32)
    (y, backward), (want, plainly) = layer.forward(x), plain.forward(x)
    dy = rng.normal(size=y.shape).astype(np.float32)
    dx, other = backward(dy), plainly(dy)
    assert np.array_equal(y, want) and (dx is other is None or np.array_equal(dx, other))
    assert not any(g.any() for g in layer.grads.values())
    assert all(g.any() for g in plain.grads.values())


def test_a_model_trains_all_but_its_frozen_layers(rng, capsys, tmp_path):
    layers = [fg.Embedding(9, 4, trainable=False), fg.GRU(3, return_sequences=True)]
    layers += [fg.GRU(3, trainable=False), fg.Dense(1)]
    model = fg.Sequential(layers)
    model.compile(fg.optimizers.SGD(0.1), "mse")
    ids, y = rng.integers(0, 9, (6, 5)), rng.normal(size=(6, 1))
    model.build(ids.shape)
    before = [layer.get_weights() for layer in layers]
    model.fit(ids, y, verbose=0)
    for layer, old in zip(layers, before, strict=True):
        same = list(map(np.array_equal, layer.get_weights(), old))
        assert not any(same) if layer.trainable else all(same), layer.name
    model.summary()
    text = capsys.readouterr().out
    trained = layers[1].count_params() + layers[3].count_params()
    assert f" Trainable params: {trained:,} (" in text
    assert f"Non-trainable params: {model.count_params() - trained:,} (" in text
    model.save(tmp_path / "m.safetensors")
    again = fg.load_model(tmp_path / "m.safetensors")
    assert [layer.trainable for layer in again.layers] == [False, True, False, True]
    again.fit(ids, y, verbose=0), model.fit(ids, y, verbose=0)


def test_below_the_first_layer_that_is_trained_nothing_goes_back(rng, monkeypatch):
    layers = [fg.Dense(4, trainable=False), fg.Dense(3), fg.Dense(1)]
    model = fg.Sequential(layers)
    model.compile("sgd", "mse")
    calls = []
    for layer in layers:

        def spied(x, forward=layer.forward, name=layer.name, **options):
            y, backward = forward(x, **options)

            def note(dy, with_dx=True):
                calls.append((name, with_dx))
                return backward(dy, with_dx=with_dx)

            return y, note

        monkeypatch.setattr(layer, "forward", spied)
    model.train_on_batch(rng.normal(size=(5, 2)), np.ones((5, 1)))
    assert calls == [("dense_2", True), ("dense_1", False)]


# ---- activations that are functions


SQUASH = (lambda x: x / (1 + np.abs(x)), lambda y: (1 - np.abs(y)) ** 2)
TANH = (np.tanh, lambda y: 1 - y * y)
SIGMOID = (lambda x: 1 / (1 + np.exp(-x)), lambda y: y * (1 - y))
KINDS = {
    "gru": (fg.GRU, {}),
    "gru-before": (fg.GRU, {"reset_after": False}),
    "lstm": (fg.LSTM, {}),
    "simple_rnn": (fg.SimpleRNN, {}),
}
each_kind = pytest.mark.parametrize(("kind", "options"), KINDS.values(), ids=KINDS)


@each_kind
@pytest.mark.parametrize("roles", ["both", "one"])
@pytest.mark.parametrize("more", [{}, {"go_backwards": True, "recurrent_dropout": 0.5}])
def test_functions_give_what_their_names_give(kind, options, roles, more, rng):
    functions = {"activation": TANH}
    if kind is not fg.SimpleRNN and roles == "both":
        functions["recurrent_activation"] = SIGMOID
    options = options | more | {"return_sequences": True, "return_state": True}
    slow, fast = kind(5, **options, **functions, **F64), kind(5, **options, **F64)
    x, initial = rng.normal(size=(3, 6, 2)), [rng.normal(size=(3, 5)) for _ in slow.STATES]
    x[~MASK] = np.nan
    results = []
    dy, dlast = rng.normal(size=(3, 6, 5)), [rng.normal(size=(3, 5)) for _ in initial]
    for layer in (slow, fast):
        (y, *last), backward = layer.forward(x, mask=MASK, initial_state=initial)
        dx, dinitial = backward(dy, dlast)
        inferred = layer(x, mask=MASK, initial_state=initial)
        results.append([*inferred, y, *last, dx, *listed(dinitial), *layer.get_gradients()])
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


@each_kind
def test_gradients_with_functions_are_central_differences(kind, options, rng):
    from test_layers import check_gradients

    if kind is not fg.SimpleRNN:
        options = options | {"recurrent_activation": SQUASH}
    layer = kind(4, activation=SQUASH, return_sequences=True, **options, **F64)
    check_gradients(layer, rng.normal(size=(3, 5, 2)), lengths=[5, 0, 3])


@each_kind
def test_names_take_the_kernels_and_functions_do_not(kind, options, rng, monkeypatch):
    from fastgru import custom, kernels

    called = []

    def spied(name, run):
        return lambda *arguments, **options: called.append(name) or run(*arguments, **options)

    for verb in ("forward", "backward"):
        for module, name in ((custom, verb), (kernels, f"{kind.CELL}_{verb}")):
            monkeypatch.setattr(module, name, spied(name, getattr(module, name)))
    x = rng.normal(size=(3, 6, 2))
    for activation, prefix in (("elu", f"{kind.CELL}_"), (SQUASH, "")):
        layer = kind(5, activation=activation, **options, **F64)
        layer(x)
        y, backward = layer.forward(x)
        backward(y)
        assert called == [f"{prefix}forward", f"{prefix}forward", f"{prefix}backward"]
        called.clear()


def test_a_layer_with_functions_trains_in_both_directions_but_is_neither_saved_nor_streamed(
    rng, tmp_path
):
    model = fg.Sequential([fg.Bidirectional(fg.LSTM(4, activation=SQUASH)), fg.Dense(1)])
    model.compile(fg.optimizers.Adam(0.05), "mse")
    x = rng.normal(size=(20, 5, 2))
    losses = model.fit(x, x[:, 0, :1], epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    with pytest.raises(TypeError, match="'activation'.*given function"):
        model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
    layer = fg.GRU(4, activation=SQUASH)
    layer.build((None, None, 2))
    with pytest.raises(TypeError, match="gru: activation: expected names"):
        layer.stream()


def test_functions_that_do_not_fit_are_named():
    x = np.zeros((3, 6, 2))
    with pytest.raises(TypeError, match="activation: expected one of.*A pair of functions"):
        fg.GRU(4, activation=np.tanh)
    with pytest.raises(TypeError, match="recurrent_activation: expected one of"):
        fg.LSTM(4, recurrent_activation=(np.tanh, "tanh"))
    with pytest.raises(ValueError, match=r"keep shape and dtype, \(3, 4\) float32, given \(3,\)"):
        fg.SimpleRNN(4, activation=(lambda x: x.sum(axis=1), lambda y: y))(x)
    with pytest.raises(ValueError, match="float32, given .* float64"):
        fg.SimpleRNN(4, activation=(lambda x: x.astype("float64"), lambda y: y))(x)


# ---- one step of one row


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "kind",
    [fg.GRU, partial(fg.GRU, reset_after=False), fg.LSTM, fg.SimpleRNN],
    ids=["gru", "gru that resets before", "lstm", "simple rnn"],
)
def test_one_step_of_one_row_has_the_bits_of_a_sequence(kind, dtype, rng):
    """It is computed in the memory of a stream."""
    layer = kind(37, dtype=dtype, return_sequences=True)
    x = rng.normal(size=(2, 3, 11)).astype(dtype)
    outputs, *states = layer.infer(x, None, None, None, with_states=True)
    row = None
    for t in range(3):
        y, *row = layer.infer(x[:1, t : t + 1], None, None, row, with_states=True)
        assert y.shape == (1, 1, 37) and np.array_equal(y[0], outputs[:1, t])
    assert all(map(np.array_equal, row, [state[:1] for state in states]))
    assert np.array_equal(layer(x[1:, :1])[0], outputs[1:, 0])  # from zeros again
    # A result is the caller's own, and weights that change are seen.
    first = layer(x[:1, :1])
    kept = first.copy()
    layer(x[1:, :1])
    assert np.array_equal(first, kept)
    layer.set_weights([2 * w for w in layer.get_weights()])
    assert np.array_equal(layer(x[:1, :1])[0], layer(x)[:1, 0])
    layer.params["kernel"][...] *= 2
    assert np.array_equal(layer(x[:1, :1])[0], layer(x)[:1, 0])
    last = kind(5, dtype=dtype, stateful=True)
    steps = [last(x[:1, t : t + 1]) for t in range(3)]
    last.reset_states()
    assert np.array_equal(steps[2], last(x[:1]))


def test_threads_that_step_one_layer_at_the_same_time_have_memory_of_their_own(rng):
    layer = fg.GRU(64)
    x = rng.normal(size=(4, 1, 9)).astype("float32")
    wanted, wrong = layer(x), []

    def work(row):
        for _ in range(300):
            if not np.array_equal(layer(x[row : row + 1]), wanted[row : row + 1]):
                wrong.append(row)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert wrong == []
