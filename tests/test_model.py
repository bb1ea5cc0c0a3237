"""Sequential: it learns, repeats itself, saves itself, and says what is wrong."""

import copy

import numpy as np
import pytest

import fastgru as fg
from fastgru import saving
from fastgru.replay import REPEATS


def task(seed=0, n=96):
    """Return sequences of ids whose label says whether 1 comes before 2."""
    random = np.random.default_rng(seed)
    x = random.integers(3, 9, size=(n, 7))
    places = np.array([random.permutation(7)[:2] for _ in range(n)])
    x[np.arange(n), places[:, 0]] = 1
    x[np.arange(n), places[:, 1]] = 2
    return x, (places[:, 0] < places[:, 1]).astype(int)


def network(**options):
    return fg.Sequential(
        [
            fg.Embedding(9, 6, **options),
            fg.GRU(12, return_sequences=True),
            fg.GRU(8),
            fg.Dense(1, activation="sigmoid"),
        ]
    )


def trained(epochs=3, **fit):
    fg.set_random_seed(1)
    model = network()
    model.compile(fg.optimizers.Adam(0.02), "binary_crossentropy", ["accuracy"])
    history = model.fit(*task(), epochs=epochs, batch_size=16, verbose=0, **fit)
    return model, history


def test_it_learns_what_only_a_sequence_model_can():
    model, history = trained(40)
    assert history.history["loss"][-1] < 0.05
    loss, accuracy = model.evaluate(*task(seed=1))
    assert accuracy > 0.95 and loss < 0.2


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(monkeypatch):
    from fastgru.kernels import threads

    model, history = trained()
    monkeypatch.setattr(threads, "LEAST_FLOPS", 1)
    monkeypatch.setattr(threads, "_num_threads", 2)
    again, other = trained()
    assert history.history == other.history
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))


def test_predictions_do_not_depend_on_the_batch():
    model, _ = trained()
    x, _ = task(n=37)
    want = model.predict(x)
    assert np.array_equal(model.predict(x, batch_size=5), want)
    assert np.array_equal(np.concatenate([model.predict(row[None]) for row in x]), want)
    assert model.predict(x[:0]).shape == (0, 1)
    assert np.array_equal(model.predict_on_batch(x), want)


def test_a_saved_model_goes_on_where_it_was(tmp_path):
    model, _ = trained()
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = fg.load_model(path)
    x, y = task(seed=2)
    assert np.array_equal(again.predict(x), model.predict(x))
    assert again.evaluate(x, y) == model.evaluate(x, y)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    again.fit(x, y, verbose=0)


def deep_list(depth=900):
    """Return lists that JSON can hold, but that `repr` may not manage."""
    value = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c, a: c["layers"][0].update({"class": "os.system"}),
        lambda c, a: c["layers"][0]["config"].update(units=3),
        lambda c, a: c["layers"][1]["config"].update(units=2**40),
        lambda c, a: c["layers"][1].update(input_shape=[None, 3]),
        lambda c, a: c.update(layers=3),
        lambda c, a: c.pop("class"),
        lambda c, a: c["compile"].update(loss="tanh"),
        lambda c, a: a.pop("gru.kernel"),
        lambda c, a: a.update(extra=np.zeros(3, "float32")),
        lambda c, a: a.update({"gru.kernel": a["gru.kernel"].astype("float64")}),
        lambda c, a: c["compile"]["optimizer"].update(learning_rate=10**400),
        lambda c, a: c["compile"]["metrics"].append({"name": "acc", "kind": "ternary"}),
        lambda c, a: c["layers"][0]["config"].update(input_dim=deep_list()),
        lambda c, a: c["optimizer_state"].update(iterations=-1),
        lambda c, a: c["optimizer_state"].update(iterations=10**400),
        lambda c, a: c["optimizer_state"].pop("iterations"),
        lambda c, a: c.update(optimizer_state=[]),
        lambda c, a: c.pop("optimizer_state"),
        lambda c, a: c.pop("compile"),
        lambda c, a: a.pop("optimizer.m.0"),
        lambda c, a: a.update({"optimizer.m.0": a["optimizer.m.0"][1:]}),
        lambda c, a: a.update({n: a[n].T for n in ("optimizer.m.1", "optimizer.v.1")}),
        lambda c, a: a.update({n: a[n].astype(">f8") for n in a if n.startswith("optimizer.")}),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, spoil):
    model, _ = trained(1)
    path = tmp_path / "model.safetensors"
    model.save(path)
    config, arrays = saving.load(path)
    spoil(config, arrays)
    saving.save(path, config, arrays)
    with pytest.raises(fg.FileFormatError, match="does not describe a model") as caught:
        fg.load_model(path)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_masks_flow_from_the_embedding_to_the_last_layer():
    fg.set_random_seed(0)
    model = network(mask_zero=True)
    x, _ = task(n=4)
    padded = np.pad(x, ((0, 0), (3, 2)))
    assert np.array_equal(model.predict(padded), model.predict(x))


def test_the_model_of_the_article_runs_as_it_is_written():
    x, _ = task()
    labels = fg.pad_sequences([[1, 0], [0], [1, 1, 1]] * 32, maxlen=5)
    model = fg.Sequential()
    model.add(fg.Embedding(input_dim=9, output_dim=16, input_length=7))
    model.add(fg.GRU(8, return_sequences=True, return_state=True))
    model.add(fg.GRU(8))
    model.add(fg.Dense(5, activation="tanh"))
    model.compile(optimizer=fg.optimizers.Adam(lr=0.001), loss="mse", metrics=["accuracy"])
    model.fit(x, labels, epochs=1, verbose=0)
    output, states = model.predict(x, return_states=True)
    assert output.shape == (96, 5) and [s.shape for s in states] == [(96, 8)]
    with pytest.raises(ValueError, match="loss: expected one of .*mse.* given 'tanh'"):
        model.compile(loss="tanh")


@pytest.mark.parametrize(
    ("last", "loss", "labels"),
    [
        (fg.Dense(3, "softmax", seed=0), "sparse_categorical_crossentropy", "sparse"),
        (fg.Dense(3, "softmax", seed=0), "categorical_crossentropy", "one-hot"),
        (fg.Dense(3, "sigmoid", seed=0), "binary_crossentropy", "one-hot"),
        (fg.Dense(3, seed=0), "mse", "one-hot"),
        (fg.Dense(3, "softmax", seed=0), "mse", "one-hot"),
    ],
)
def test_every_loss_trains_and_fused_equals_plain(last, loss, labels):
    x = np.random.default_rng(0).normal(size=(60, 4, 2)).astype("float32")
    classes = (x[:, -1, 0] > 0).astype(int) + (x[:, -1, 1] > 0)
    y = classes if labels == "sparse" else np.eye(3)[classes]
    fg.set_random_seed(0)
    model = fg.Sequential([fg.GRU(8), type(last).from_config(last.get_config())])
    model.compile(fg.optimizers.Adam(0.02), loss, ["accuracy"])
    first = model.train_on_batch(x, y)[0]
    plain = model.evaluate(x, y)
    history = model.fit(x, y, epochs=30, batch_size=20, verbose=0)
    assert history.history["loss"][-1] < plain[0] < first
    assert history.history["accuracy"][-1] > 0.8


def test_weights_of_samples_and_classes_mean_what_they_say():
    x, y = task()
    zero = np.where(y == 1, 0.0, 1.0)
    by_sample, a = trained(2, sample_weight=zero)
    by_class, b = trained(2, class_weight={1: 0.0})
    assert a.history == b.history
    assert all(map(np.array_equal, by_sample.get_weights(), by_class.get_weights()))


def test_class_weights_are_for_training_alone():
    x, y = task()
    weights = {1: 5.0}
    _, split = trained(2, validation_split=0.25, class_weight=weights)
    fg.set_random_seed(1)
    other = network()
    other.compile(fg.optimizers.Adam(0.02), "binary_crossentropy", ["accuracy"])
    held = x[72:], y[72:]
    given = other.fit(
        x[:72], y[:72], epochs=2, batch_size=16, verbose=0, class_weight=weights,
        validation_data=held,
    )  # fmt: skip
    assert split.history == given.history
    assert given.history["val_loss"][-1] == pytest.approx(other.evaluate(*held)[0])


def test_validation_is_the_end_of_the_data_and_is_not_trained_on():
    x, y = task()
    model, split = trained(2, validation_split=0.25)
    fg.set_random_seed(1)
    other = network()
    other.compile(fg.optimizers.Adam(0.02), "binary_crossentropy", ["accuracy"])
    given = other.fit(
        x[:72], y[:72], epochs=2, batch_size=16, verbose=0, validation_data=(x[72:], y[72:])
    )
    assert split.history == given.history
    assert set(split.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_progress_is_silent_a_bar_or_lines(capsys):
    trained(2)
    out, err = capsys.readouterr()
    assert out == err == ""
    model, _ = trained(1)
    model.fit(*task(), epochs=2, verbose=2)
    out, err = capsys.readouterr()
    assert out.count("\n") == 2 and "samples/s" in out and "accuracy" in out and err == ""
    model.fit(*task(), epochs=2, verbose="auto")  # not a terminal
    assert capsys.readouterr().out.count("\n") == 2
    model.fit(*task(), epochs=1, verbose=1)
    out, err = capsys.readouterr()
    assert "Epoch 1/1" in err and out.count("\n") == 1 and "samples/s" in out and "accuracy" in out


def test_summary_shows_shapes_and_counts(capsys):
    network(input_length=7).summary()
    text = capsys.readouterr().out
    assert "(None, 7, 12)" in text and "Total params" in text and "gru_1 (GRU)" in text
    fg.Sequential([fg.GRU(3)]).summary()
    assert "not built" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_training_and_changes_nothing():
    model = fg.Sequential([fg.GRU(4, seed=0), fg.Dense(1, seed=0)])
    model.compile("sgd", "mse")
    x = np.ones((8, 3, 2))
    x[5] = np.nan
    model.build(x.shape)
    before = model.get_weights()
    with pytest.raises(fg.NonFiniteError, match="epoch 1, batch 2"):
        model.fit(x, np.zeros(8), batch_size=4, shuffle=False, verbose=0, epochs=2)
    model.set_weights(before)
    with pytest.raises(fg.NonFiniteError, match="epoch 1, batch 1"):
        model.fit(x[4:], np.zeros(4), batch_size=4, verbose=0)
    assert all(map(np.array_equal, before, model.get_weights()))


X, Y = task()
MISTAKES = [
    (lambda m: m.fit(X[:0], Y[:0]), ValueError, "x: expected at least one sample"),
    (lambda m: m.fit(X, Y[:5]), ValueError, "y: expected 96 samples, as many as x, given 5"),
    (lambda m: m.fit(X, Y + 1), ValueError, "y: "),
    (lambda m: m.fit(X, Y, batch_size=0), ValueError, "batch_size: expected a positive"),
    (lambda m: m.fit(X, Y, epochs=-1), ValueError, "epochs: expected a positive"),
    (lambda m: m.fit(X, Y, verbose=7), ValueError, "verbose: expected 0, 1, 2 or 'auto'"),
    (lambda m: m.fit(X, Y, validation_split=1.0), ValueError, "validation_split: expected"),
    (lambda m: m.fit(X, Y, validation_data=X), TypeError, "validation_data: expected a tuple"),
    (lambda m: m.fit(X, Y, sample_weight=[1]), ValueError, r"sample_weight: expected .*\(96,\)"),
    (lambda m: m.fit(X, Y, class_weight=[1]), TypeError, "class_weight: expected a dict"),
    (lambda m: m.fit([[1], 2], [0, 1]), ValueError, "x: .*pad"),
    (lambda m: m.fit([[1, 2], [[1]]], [0, 1]), ValueError, r"x\[1\]: expected shape \(steps,\)"),
    (lambda m: m.fit(X + 9, Y), ValueError, "x: expected integers from 0 to 8"),
    (lambda m: m.fit(X, np.array(["a"] * 96)), TypeError, "y: expected real numbers"),
    (lambda m: m.predict(X, batch_size=None), TypeError, "batch_size: expected a positive"),
    (lambda m: m.set_weights([]), ValueError, "weights: expected 9 arrays, given 0"),
    (lambda m: m.compile(optimizer="adm", loss="mse"), ValueError, "Did you mean 'adam'"),
    (lambda m: m.compile(loss="mse", metrics=["acuracy"]), ValueError, "accuracy"),
    (lambda m: m.compile(loss="mse", metrics="acc"), TypeError, "metrics: expected a list"),
    (lambda m: m.fit(X, Y, initial_epoch=-1), ValueError, "initial_epoch: expected an integer"),
    (lambda m: m.fit(X, Y, class_weight={1: "a"}), TypeError, r"class_weight\[1\]: expected a n"),
    (lambda m: fg.Sequential(fg.GRU(3)), TypeError, "layers: expected a list"),
    (lambda m: fg.Sequential(name=3), TypeError, "name: expected a str, given 3"),
    (lambda m: m.fit(X, X, class_weight={0: 1.0}), ValueError, "class_weight: expected one-hot"),
    (lambda m: m.fit(X, Y, class_weight={"0": 1}), TypeError, "class_weight: .*given '0'"),
    (lambda m: m.fit(X, Y, class_weight={-1: 1}), ValueError, "class_weight: .*>= 0.*given -1"),
    (lambda m: m.fit(X, Y, class_weight={0.5: 1}), ValueError, "class_weight: .*given 0.5"),
    (lambda m: m.fit(X, Y, class_weight={7: 1}), ValueError, "classes from 0 to 1, given 7"),
    (lambda m: m.fit(X, Y / 2, class_weight={0: 1}), ValueError, "integers, as y, given 0.5"),
    (
        lambda m: m.fit(lambda: [(X, Y)], class_weight={2: 1.0}),
        ValueError,
        "batch 1: class_weight: expected classes from 0 to 1, given 2",
    ),
    (lambda m: m.fit(X, Y, shuffle="batch"), TypeError, "shuffle: expected a bool, given 'batch'"),
    (lambda m: m.fit(X, Y, shuffle=None), TypeError, "shuffle: expected a bool, given None"),
    (lambda m: m.predict(X, return_states="yes"), TypeError, "return_states: expected a bool"),
    (lambda m: m.evaluate(X, Y, return_dict=2), TypeError, "return_dict: expected a bool"),
    (lambda m: m.add("gru"), TypeError, "layer: expected a fastgru layer, given 'gru'"),
    (lambda m: m.add(m.layers[1]), ValueError, "gru.*: x: expected shape .*batch, steps, inputs"),
    (lambda m: fg.Sequential().fit(X, Y), ValueError, "empty model"),
    (lambda m: fg.Sequential([fg.GRU(2)]).fit(X, Y), RuntimeError, "call compile"),
    (lambda m: fg.Sequential([fg.GRU(2)]).save("x"), ValueError, "expected a built model"),
    (lambda m: fg.load_model("no-such-file"), FileNotFoundError, "no-such-file"),
    (lambda m: fg.load_model(None), TypeError, "path: expected .* os.PathLike, given None"),
    (lambda m: fg.load_model(5), TypeError, "path: expected a str or an os.PathLike, given 5"),
    (lambda m: m.save(None), TypeError, "path: expected a str or an os.PathLike, given None"),
    (lambda m: fg.warmup(5), ValueError, "dtype: expected 'float32' or 'float64', given 5"),
    (
        lambda m: fg.warmup("int32"),
        ValueError,
        "dtype: expected 'float32' or 'float64', given 'int32'",
    ),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes_are_named_and_nothing_is_half_done(mistake, error, message):
    model, _ = trained(1)
    before = model.get_weights()
    with pytest.raises(error, match=message):
        mistake(model)
    assert all(map(np.array_equal, before, model.get_weights()))


def test_the_command_line_prints_what_it_runs_on(capsys):
    from fastgru.cli import main

    assert main(["info"]) == 0
    assert "compiled kernels" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["nonsense"])


def test_one_dtype_may_be_warmed_up_by_its_name(monkeypatch):
    warmed = []
    for name in ("_use_layers", "_use_training", "_use_decoding"):
        monkeypatch.setattr(f"fastgru.runtime.{name}", lambda x, *rest: warmed.append(x.dtype))
    fg.warmup("float32")
    assert set(warmed) == {np.dtype("float32")}


def test_nothing_is_compiled_after_warmup():
    """Every legal dtype, shape and layout finds its kernels compiled, serial and parallel."""
    import gc

    from numba.core.dispatcher import Dispatcher

    from fastgru.kernels.threads import always_sharing

    def compiled():
        # Not isinstance: it would ask weak proxies, too, whose objects may be gone.
        kernels = [d for d in gc.get_objects() if issubclass(type(d), Dispatcher)]
        ours = [d for d in kernels if d.py_func.__module__.startswith("fastgru")]
        return {f"{d.py_func.__module__}.{d.py_func.__name__}": len(d.overloads) for d in ours}

    fg.warmup()
    before = compiled()
    random = np.random.default_rng(0)
    for sharing in (False, True):
        with always_sharing(sharing):
            for dtype in ("float32", "float64"):
                model = fg.Sequential(
                    [
                        fg.GRU(5, return_sequences=True, reset_after=False, dtype=dtype),
                        fg.Bidirectional(fg.LSTM(5, return_sequences=True, dtype=dtype)),
                        fg.SimpleRNN(9, return_sequences=True, dtype=dtype),
                        *(
                            kind(4, recurrent_dropout=0.5, return_sequences=True, dtype=dtype)
                            for kind in (fg.GRU, fg.LSTM, fg.SimpleRNN)
                        ),
                        fg.GRU(33, activation="elu", go_backwards=True, dtype=dtype),
                        fg.Dropout(0.5, dtype=dtype),
                        fg.LayerNormalization(dtype=dtype),
                        fg.Activation("gelu", dtype=dtype),
                        fg.Dense(3, "softmax", dtype=dtype),
                    ]
                )
                model.compile(fg.optimizers.SGD(0.1, momentum=0.9), "categorical_crossentropy")
                for pooling in (fg.GlobalAveragePooling1D, fg.GlobalMaxPooling1D):
                    cells = fg.GRU, fg.LSTM, fg.SimpleRNN
                    small = fg.Sequential([fg.Embedding(9, 5, dtype=dtype)])
                    for cell in cells:
                        small.add(cell(5, return_sequences=True, dtype=dtype))
                    small.add(fg.GRU(5, return_sequences=True, reset_after=False, dtype=dtype))
                    small.add(pooling(dtype=dtype))
                    small.add(fg.Dense(4, "gelu", dtype=dtype))
                    small.add(fg.Dense(1, "sigmoid", dtype=dtype))
                    small.compile("sgd", "binary_crossentropy")
                    for _ in range(REPEATS + 3):
                        small.train_on_batch(np.ones((2, 3), int), np.ones((2, 1)))
                x = random.normal(size=(9, 4, 6)).astype(">f8")[:, :, ::2]
                x.flags.writeable = False
                scores = random.normal(size=(3, 4, 5)).astype(dtype)
                fg.losses.CTC()([[1], [2, 3], []], scores)
                fg.losses.SparseCategoricalCrossentropy(True, 0.1)(np.ones((3, 4)), scores)
                fg.metrics.Perplexity().update(np.ones((3, 4)), np.exp(scores))
                model.fit(x, np.eye(3)[np.arange(9) % 3], verbose=0, batch_size=4)
                model.predict(np.asfortranarray(x))
                model.layers[0](x, lengths=np.arange(9, dtype=np.uint8) % 5)
                model.layers[0](x[:1, :1])
                one_by_one, backward = model.layers[0].forward(x[:1])
                backward(one_by_one)
                for layer in (
                    fg.Attention("general", query_dim=3, dtype=dtype),
                    fg.Attention("dot", dtype=dtype),
                    fg.Attention(query_dim=3, dtype=dtype),
                ):
                    y, backward = layer.forward(x, lengths=np.arange(9) % 5, query=x[:, ::2])
                    backward(y)
                for layer in (
                    fg.Attention(dtype=dtype),
                    fg.GlobalMaxPooling1D(dtype=dtype),
                    fg.GlobalAveragePooling1D(dtype=dtype),
                ):
                    y, backward = layer.forward(x)
                    backward(y)
    assert compiled() == before


def test_predict_and_evaluate_show_a_bar_when_asked(capsys):
    model, _ = trained(1)
    model.predict(X)
    model.evaluate(X, Y)
    assert capsys.readouterr() == ("", "")
    model.predict(X, verbose=1)
    assert "96" in capsys.readouterr().err
    with pytest.raises(ValueError, match="verbose: expected 0, 1, 2 or 'auto', given 5"):
        model.evaluate(X, Y, verbose=5)


# The first ten losses of `trained`. Loose: what NumPy makes of a seed may change in the last bits.
FIRST_LOSSES = (
    0.693045,
    0.697416,
    0.627342,
    0.632847,
    0.738786,
    0.668905,
    0.903118,
    0.674892,
    0.791484,
    0.662142,
)


def test_the_first_losses_are_what_they_were():
    fg.set_random_seed(1)
    model = network()
    model.compile(fg.optimizers.Adam(0.02), "binary_crossentropy")
    losses = [model.train_on_batch(X[i::10], Y[i::10]) for i in range(10)]
    np.testing.assert_allclose(losses, FIRST_LOSSES, rtol=1e-4)


def test_a_model_goes_through_copies_threads_and_other_processes():
    import copy
    import pickle
    from concurrent.futures import ThreadPoolExecutor

    model, _ = trained(1)
    want = model.predict(X)
    twin = copy.deepcopy(model)
    assert np.array_equal(twin.predict(X), want)
    twin.fit(X, Y, verbose=0)
    assert not np.array_equal(twin.predict(X), want)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), want)
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(y, want) for y in pool.map(model.predict, [X] * 32))
    joblib = pytest.importorskip("joblib")
    for backend in ("loky", "threading"):
        with joblib.Parallel(2, backend=backend) as parallel:
            for y in parallel(joblib.delayed(model.predict)(X) for _ in range(4)):
                assert np.array_equal(y, want)


# ---- nothing half-done


def complete(seed=3):
    """Return a model with all that can change, trained a little: ids in, a class per step out."""
    fg.set_random_seed(seed)
    model = fg.Sequential(
        [
            fg.Embedding(9, 6, mask_zero=True),
            fg.Dropout(0.3),
            fg.GRU(5, return_sequences=True),
            fg.Dense(4, "softmax"),
        ]
    )
    model.compile(fg.optimizers.Adam(0.02), "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(*steps(), verbose=0)
    return model


def steps(seed=0, n=50):
    """Return ids and a class for each step; the last steps of some rows are padding."""
    random = np.random.default_rng(seed)
    x = random.integers(1, 9, size=(n, 7))
    x[np.arange(7) >= random.integers(4, 8, size=(n, 1))] = 0
    return x, x % 4


def everything(model):
    """Return all that training changes, as something that can be compared."""
    from fastgru import random

    generators = [random._parent, *(layer._random for layer in model.layers)]
    arrays = [*model.get_weights(), *model.optimizer.get_state().values()]
    return [
        [np.asarray(array).tolist() for array in arrays],
        [generator.bit_generator.state for generator in generators],
        [layer.built for layer in model.layers],
        [metric.result() for metric in model.metrics],
    ]


def spoilt(array, value, place=(40, 2)):
    array = array.astype(float)
    array[place] = value
    return array


S, C = steps()
LATE = {
    "an id that is too large": ((spoilt(S, 9), C), "embedding: x: expected integers from 0 to 8"),
    "a negative id": ((spoilt(S, -1), C), "embedding: x: expected integers from 0 to 8"),
    "an id with a fraction": ((spoilt(S, 0.5), C), "embedding: x: expected integers"),
    "a class that is too large": ((S, spoilt(C, 4)), "y: expected integers from 0 to 3.* 4"),
    "no class": ((S, spoilt(C, np.nan)), "y: expected integers from 0 to 3.* given nan"),
    "half a class": ((S, spoilt(C, 1.5)), "y: expected integers from 0 to 3.* given 1.5"),
    "too few classes": ((S, C[:, :6]), r"y: expected class numbers of shape \(\d+, 7\)"),
    "a weight of NaN": ((S, C, spoilt(np.ones(50), np.nan, 40)), "sample_weight: .* given nan"),
    "a weight below 0": ((S, C, spoilt(np.ones(50), -2, 40)), "sample_weight: .* given -2"),
}


@pytest.mark.parametrize("at_once", [1, 7 * 16, 2**20])
@pytest.mark.parametrize("name", LATE)
def test_a_mistake_in_a_late_sample_is_refused_before_anything_changes(name, at_once, monkeypatch):
    monkeypatch.setattr("fastgru.batches.CHECKED_AT_ONCE", at_once)
    model = complete()
    before = everything(model)
    (x, y, *weight), message = LATE[name]
    options = {"sample_weight": weight[0]} if weight else {}
    for use in (
        lambda: model.fit(x, y, batch_size=8, shuffle=False, verbose=0, **options),
        lambda: model.fit(x, y, batch_size=8, validation_split=0.3, verbose=0, **options),
        lambda: model.train_on_batch(x, y, **options),
        lambda: model.evaluate(x, y, **options),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            use()
        assert everything(model) == before
    with pytest.raises((ValueError, TypeError), match=f"validation_data: {message}"):
        model.fit(S, C, batch_size=8, verbose=0, validation_data=(x, y, *weight))
    assert everything(model) == before


def test_what_metrics_cannot_take_is_refused_before_anything_changes():
    x, y = task()
    model = network()
    model.compile("adam", "binary_crossentropy", ["sparse_categorical_accuracy", "accuracy"])
    before = everything(model)
    y = y.reshape(-1, 1, 1)  # the loss takes it
    for use in (model.fit, model.train_on_batch, model.evaluate):
        with pytest.raises(ValueError, match="y: expected class numbers of shape"):
            use(x, y)
        assert everything(model) == before


def test_layers_that_are_frozen_after_training_are_refused_until_the_model_is_compiled_again():
    model, _ = trained(1)
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="call compile again, with one, after changing `train"):
        model.fit(*task(), verbose=0)
    model.compile("adam", "binary_crossentropy")
    model.fit(*task(), verbose=0)


def test_a_metric_that_does_not_fit_is_named_with_the_shapes_that_were_given():
    model = fg.Sequential([fg.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy", "precision"])
    message = r"^precision: y: expected shape \(9, 3\), that of the output, given \(9,\)$"
    for use in (model.fit, model.train_on_batch, model.evaluate):
        with pytest.raises(ValueError, match=message):
            use(np.zeros((9, 4)), np.zeros(9))
    assert not model.layers[0].built and model.metrics[0].weight == 0


def test_metrics_of_one_name_are_told_apart_by_numbers(tmp_path):
    x, y = np.random.default_rng(0).random((9, 4)), np.arange(9) % 4
    top = [fg.metrics.TopK(k) for k in (1, 2, 3)]
    model = fg.Sequential([fg.Dense(4, "softmax", seed=0)])
    for _ in range(2):  # a second time changes no name
        model.compile("sgd", "sparse_categorical_crossentropy", top)
        history = model.fit(x, y, validation_data=(x, y), verbose=0).history
    names = ["loss", "top_k", "top_k_1", "top_k_2"]
    assert list(history) == [*names, *(f"val_{name}" for name in names)]
    got = model.evaluate(x, y, return_dict=True)
    assert [got[name] for name in names] == model.evaluate(x, y)
    ranks = (np.argsort(-model.predict(x)) == y[:, None]).argmax(1)
    assert [got[name] for name in names[1:]] == [np.mean(ranks < k) for k in (1, 2, 3)]
    model.save(tmp_path / "model")
    assert fg.load_model(tmp_path / "model").evaluate(x, y, return_dict=True) == got


def test_classes_of_weights_are_those_of_the_labels():
    x, y = np.zeros((9, 4)), np.arange(9) % 3
    model = fg.Sequential([fg.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, class_weight={2: 1.5, np.int64(0): 1.0, np.float64(1): 2.0}, verbose=0)
    with pytest.raises(ValueError, match="class_weight: expected classes from 0 to 2, given 3"):
        model.fit(x, y, class_weight={3: 1.0}, verbose=0)
    numbers = fg.Sequential([fg.Dense(1)])
    numbers.compile("adam", "mse")
    numbers.fit(x, y, class_weight={2: 1.5, 7: 1.0}, verbose=0)  # of any class or none


def test_a_single_class_is_refused_where_a_softmax_would_learn_nothing():
    model = fg.Sequential([fg.Dense(1, "softmax")])
    model.compile("adam", "categorical_crossentropy")
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="y: expected 2 or more classes.*'binary_c"):
            use(np.zeros((9, 4)), np.ones((9, 1)))


def test_wrong_options_of_fit_change_nothing():
    for options in ({"verbose": 3}, {"class_weight": {1: -1.0}}, {"validation_split": 0.999}):
        model = complete()
        before = everything(model)
        with pytest.raises(ValueError, match=next(iter(options))):
            model.fit(S, C[:, :1, None].repeat(7, 1), **options)
        assert everything(model) == before


def test_what_does_not_count_may_hold_anything():
    want, got = complete(), complete()
    weight = np.ones(50)
    weight[[3, 40]] = 0
    wild = np.where((S == 0) | (weight[:, None] == 0), -99.5, C)
    fg.set_random_seed(4)
    a = want.fit(S, C, batch_size=8, sample_weight=weight, verbose=0)
    fg.set_random_seed(4)
    b = got.fit(S, wild, batch_size=8, sample_weight=weight, verbose=0)
    assert a.history["loss"] == b.history["loss"]
    assert all(map(np.array_equal, want.get_weights(), got.get_weights()))
    for bad, weights in ((wild, None), (np.where(S == 0, C, -99), weight)):
        with pytest.raises(ValueError, match="y: expected integers"):
            got.fit(S, bad, sample_weight=weights, verbose=0)


def test_data_larger_than_memory_are_checked_piece_by_piece(tmp_path):
    import tracemalloc

    files = [np.memmap(tmp_path / name, "float32", "w+", shape=(100_000, 64)) for name in "xy"]
    model = fg.Sequential([fg.Dense(64)])
    model.compile("sgd", "mse", ["accuracy"])
    # Kernels that are loaded, those of large batches too, are not what is measured.
    model.fit(*(file[:1000] for file in files), batch_size=1000, verbose=0)
    tracemalloc.start()
    model.fit(*files, batch_size=1000, verbose=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < files[0].nbytes / 4
    files[1][-1, -1] = np.nan
    with pytest.raises(ValueError, match="y: expected finite numbers, given nan"):
        model.fit(*files, verbose=0)


def test_a_layer_that_does_not_fit_is_not_added():
    model = fg.Sequential([fg.Embedding(9, 6), fg.GRU(5)])
    layer = fg.GRU(4)
    with pytest.raises(ValueError, match="Set return_sequences=True on the layer 'gru' below it"):
        model.add(layer)
    assert layer.name == "gru" and not layer.built and len(model.layers) == 2
    model.layers[1].return_sequences = True
    model.add(layer)
    assert layer.name == "gru_1" and layer.built
    built = fg.Dense(2)
    built.build((None, 7))
    with pytest.raises(ValueError, match=r"dense: x: expected shape \(None, 7\), .* \(None, 4\)"):
        model.add(built)
    assert len(model.layers) == 3


@pytest.mark.parametrize(
    "use",
    [
        lambda m, x: m.fit(x, x[:, 0]),
        lambda m, x: m.train_on_batch(x, x[:, 0]),
        lambda m, x: m.evaluate(x, x[:, 0]),
        lambda m, x: m.predict(x),
        lambda m, x: m.predict_on_batch(x),
        lambda m, x: m.build(x.shape),
    ],
)
def test_a_model_is_built_as_a_whole_or_not_at_all(use):
    model = fg.Sequential(
        [fg.GRU(3, return_sequences=True), fg.GRU(5), fg.Dropout(0.1), fg.Dense(4), fg.GRU(2)]
    )
    model.compile("sgd", "mse")
    before = everything(model)
    with pytest.raises(ValueError, match="gru_2: x: .*Set return_sequences=True .* 'gru_1' below"):
        use(model, np.zeros((6, 7, 2)))
    assert everything(model) == before and before[2] == [False] * 5
    assert model.count_params() == 0


def test_the_axis_of_steps_is_only_asked_of_the_layer_that_dropped_it():
    model = fg.Sequential([fg.Dense(3), fg.GRU(2)])
    with pytest.raises(ValueError, match=r"gru: x: .*\(batch, steps, inputs\), given \(None, 3\)$"):
        model.predict(np.zeros((4, 2)))


def test_a_failed_first_fit_builds_nothing():
    model = fg.Sequential([fg.GRU(3), fg.Dense(1)])
    model.compile("sgd", "mse")
    before = everything(model)
    y = np.zeros(50)
    y[40] = np.inf
    with pytest.raises(ValueError, match="y: expected finite numbers, given inf"):
        model.fit(np.zeros((50, 7, 2)), y, batch_size=8)
    assert everything(model) == before and before[2] == [False, False]


F, F_TOO_FEW = np.zeros((8, 5, 3)), np.zeros((4, 5, 2))
RAGGED, RAGGED_TOO_FEW = ([f[: 1 + i % 5] for i, f in enumerate(some)] for some in (F, F_TOO_FEW))
UNLIKE = {
    "arrays": (
        (F, np.zeros(8)), (F_TOO_FEW, np.zeros(4)),
        r"validation_data: first: x: expected shape \(None, 5, 3\), .*given \(None, 5, 2\)",
    ),
    "lists": (
        (RAGGED, np.zeros(8)), (RAGGED_TOO_FEW, np.zeros(4)),
        r"validation_data: first: x: expected shape \(None, \d, 3\), .*given \(None, \d, 2\)",
    ),
    "batches and arrays": (
        (lambda: [(F, np.zeros(8))],), (F_TOO_FEW, np.zeros(4)),
        r"batch 1: first: x: expected shape \(None, 5, 2\), .*given \(None, 5, 3\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("first", [fg.GRU, fg.Dense])
@pytest.mark.parametrize("name", UNLIKE)
def test_validation_data_unlike_the_training_data_are_refused_before_a_first_fit(name, first):
    data, held, message = UNLIKE[name]
    options = {"return_sequences": True} if first is fg.GRU else {}
    model = fg.Sequential([first(4, name="first", **options), fg.GRU(2), fg.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=message):
        model.fit(*data, validation_data=held, verbose=0)
    assert not any(layer.built for layer in model.layers) and not model.optimizer.iterations


def test_validation_streams_unlike_the_others_are_refused_before_a_first_fit():
    model = fg.Sequential([fg.GRU(4, return_sequences=True), fg.Dense(1)])
    model.compile("adam", "mse")
    y = np.zeros((9, 1))
    with pytest.raises(ValueError, match="validation_data: gru: x: expected shape"):
        model.fit_stream(
            np.zeros((9, 3)), y, 4, 2, validation_data=(np.zeros((9, 2)), y), verbose=0
        )
    assert not model.layers[0].built


@pytest.mark.parametrize("first", [lambda: fg.Embedding(9, 4), lambda: fg.Dense(4, "tanh")])
def test_padding_has_no_effect_whatever_it_is(first):
    lengths = np.array([5, 0, 2, 3])
    mask = np.arange(5) < lengths[:, None]
    y = np.random.default_rng(1).normal(size=(4, 1))
    is_embedding = isinstance(first(), fg.Embedding)
    results = []
    for padding in (0, 99, -1) if is_embedding else (0, np.nan, np.inf):
        fg.set_random_seed(3)
        x = np.random.default_rng(0).integers(0, 9, (4, 5)).astype(int if is_embedding else float)
        x[~mask] = padding
        x = x if is_embedding else x[..., None]
        model = fg.Sequential([first(), fg.GRU(3), fg.Dense(1)])
        model.compile("adam", "mse")
        loss = model.evaluate(x, y, lengths=lengths)
        losses = model.fit(x, y, 2, 2, lengths=lengths, verbose=0).history["loss"]
        losses += [loss, model.train_on_batch(x, y, mask=mask)]
        results.append([losses, model.predict(x, mask=mask), *model.get_weights()])
        if padding and is_embedding:
            with pytest.raises(ValueError, match="x: expected integers from 0 to 8"):
                model.fit(x, y, lengths=[5, 0, 3, 3], verbose=0)
    assert all(map(np.array_equal, results[0], results[1]))
    assert all(map(np.array_equal, results[0], results[2]))


@pytest.mark.parametrize("sequences", [False, True])
def test_sequences_of_no_steps_and_batches_of_nothing_but_padding(sequences):
    model = fg.Sequential(
        [fg.Embedding(9, 4, mask_zero=True), fg.GRU(5, return_sequences=sequences), fg.Dense(2)]
    )
    model.compile("adam", "mse", ["accuracy"])
    y = np.ones((6, 2))
    for x in (np.zeros((6, 0), int), np.zeros((6, 3), int)):
        target = np.broadcast_to(y[:, None], (6, x.shape[1], 2)) if sequences else y
        before = model.get_weights()
        losses = model.fit(x, target, batch_size=4, epochs=2, verbose=0).history["loss"]
        assert model.predict(x).shape == target.shape
        changed = not all(map(np.array_equal, before, model.get_weights()))
        assert changed != sequences and (losses == [0, 0]) == sequences
    with pytest.raises(ValueError, match="x: expected at least one sample, given none"):
        model.evaluate(x[:0], target[:0])
    with pytest.raises(ValueError, match="x: expected at least one sample, given none"):
        model.predict([])


# ---- training that cannot go on


def failing(optimizer, row):
    """Return a model, data whose row is huge, and the weights before."""
    model = fg.Sequential([fg.Dense(1, seed=0)])
    model.compile(optimizer, "mse")
    x = np.ones((12, 2))
    x[row] = 1e25
    model.build(x.shape)
    return model, x, model.get_weights()


def test_a_gradient_that_is_not_finite_stops_training_and_changes_nothing():
    model, x, before = failing(fg.optimizers.SGD(0.0), 5)  # a rate of 0: inf * 0 would be NaN
    message = r"a gradient is NaN or infinite; no weight was changed by it \(in epoch 1, batch 2\)"
    with pytest.raises(fg.NonFiniteError, match=message):
        model.fit(x, np.zeros(12), batch_size=4, shuffle=False, verbose=0)
    assert all(map(np.array_equal, before, model.get_weights()))
    assert model.optimizer.iterations == 1
    assert np.isfinite(model.evaluate(x, np.zeros(12)))  # the loss gives no sign
    with pytest.raises(fg.NonFiniteError, match="on this batch"):
        model.train_on_batch(x, np.zeros(12))


def test_an_update_that_is_too_large_stops_training_and_says_what_it_did():
    model, x, before = failing(fg.optimizers.SGD(1e39), slice(0))
    with pytest.raises(
        fg.NonFiniteError, match=r"weights were changed, .* \(in epoch 1, batch 1\)"
    ):
        model.fit(x, np.zeros(12), batch_size=4, verbose=0)
    assert not np.isfinite(model.get_weights()[0]).all()
    assert not np.isfinite(model.predict(x)).any()


def test_an_interrupted_update_leaves_no_stale_weights(monkeypatch):
    model, _ = trained(1)
    before = model.predict(X)
    update = model.optimizer._update

    def interrupted(*arguments):
        update(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.optimizer, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y, verbose=0)
    fresh = network()
    fresh.set_weights(model.get_weights())
    assert np.array_equal(model.predict(X), fresh.predict(X))
    assert not np.array_equal(model.predict(X), before)


# ---- one optimizer, one model


def test_an_optimizer_belongs_to_the_model_that_it_has_trained(tmp_path):
    import copy
    import pickle

    model, _ = trained(1)
    other = network()
    other.compile(model.optimizer, "binary_crossentropy")
    before = everything(other)
    for use in (other.fit, other.train_on_batch):
        with pytest.raises(ValueError, match="params: .*Use a new optimizer for each model"):
            use(X, Y)
        assert everything(other) == before
    model.save(tmp_path / "m")
    twins = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fg.load_model(tmp_path / "m")
    for each in (model, *twins):
        each.fit(X, Y, verbose=0, shuffle=False)
    for twin in twins:
        assert everything(twin)[0] == everything(model)[0]


# ---- files hold all that was chosen


@pytest.mark.parametrize(
    "optimizer",
    [
        fg.optimizers.Adam(0.02, global_clipnorm=1.0),
        fg.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        fg.optimizers.SGD(0.1),
        fg.optimizers.RMSprop(0.02, momentum=0.5, centered=True, weight_decay=0.1),
        fg.optimizers.AdamW(
            fg.schedules.LinearWarmup(0.02, 4, fg.schedules.PolynomialDecay(0.02, 9, 0.0))
        ),
    ],
)
def test_training_goes_on_from_a_file_as_if_it_had_never_stopped(tmp_path, optimizer):
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    models = []
    for _ in range(2):
        fg.set_random_seed(5)
        model = network()
        kind = type(optimizer)
        model.compile(kind.from_config(optimizer.get_config()), "binary_crossentropy", ["acc"])
        models.append(model)
    whole, halves = models
    want = whole.fit(X, Y, epochs=2, **fit)
    halves.fit(X, Y, epochs=1, **fit)
    halves.save(tmp_path / "m")
    again = fg.load_model(tmp_path / "m")
    assert again.optimizer.iterations == 6
    got = again.fit(X, Y, epochs=2, initial_epoch=1, **fit)
    assert got.history["loss"] == want.history["loss"][1:]
    assert everything(again)[0] == everything(whole)[0]


def test_training_goes_on_from_a_file_written_between_two_updates(tmp_path):
    model = network(seed=3)
    optimizer = fg.optimizers.Adam(
        fg.optimizers.CosineDecay(0.05, 9), gradient_accumulation_steps=4, use_ema=True
    )
    model.compile(optimizer, "binary_crossentropy")
    for _ in range(6):
        model.train_on_batch(X[:16], Y[:16])
    model.save(tmp_path / "m")
    again = fg.load_model(tmp_path / "m")
    for _ in range(7):
        assert model.train_on_batch(X[16:32], Y[16:32]) == again.train_on_batch(X[16:32], Y[16:32])
    assert again.optimizer.iterations == 3
    assert everything(again)[0] == everything(model)[0]
    with model.averaged(), again.averaged():
        assert everything(again)[0] == everything(model)[0]


def test_a_file_cannot_hold_a_function_as_the_learning_rate(tmp_path):
    model, _ = trained(1)
    model.compile(fg.optimizers.Adam(lambda step: 0.1), "binary_crossentropy")
    with pytest.raises(TypeError, match="learning_rate.*, given function"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_fit_leaves_the_averages_of_the_weights():
    fit = {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0}
    models = []
    for use_ema in (False, True):
        model = network(seed=3)
        fg.set_random_seed(4)
        model.build((None, 7))
        model.compile(fg.optimizers.Adam(0.05, use_ema=use_ema, ema_momentum=0.8), "mse")
        model.fit(X, Y, **fit)
        models.append(model)
    plain, averaged = models
    got = averaged.optimizer.get_state()
    for i, weight in enumerate(averaged._weights()[0]):
        assert np.array_equal(weight, got[f"average.{i}"])
    assert not np.array_equal(averaged.predict(X), plain.predict(X))
    fresh = network()
    fresh.set_weights(averaged.get_weights())
    assert np.array_equal(averaged.predict(X), fresh.predict(X))  # not from packed weights of old


def test_averages_serve_inside_a_block_and_weights_afterwards():
    model = network(seed=3)
    model.compile(fg.optimizers.SGD(0.5, use_ema=True), "mse")
    model.train_on_batch(X, Y)
    first = model.predict(X)
    for _ in range(3):
        model.train_on_batch(X, Y)
    weights, last = model.get_weights(), model.predict(X)
    with pytest.raises(KeyError), model.averaged():
        inside = model.predict(X)
        raise KeyError
    assert all(map(np.array_equal, model.get_weights(), weights))
    assert np.array_equal(model.predict(X), last)
    # After the first update the average is the weights; it then moves by a hundredth a time.
    assert 0 < np.abs(inside - first).max() < np.abs(last - first).max() / 10


def test_a_large_vocabulary_is_in_memory_once_while_training(monkeypatch):
    B, T, V = 6, 2, 50
    x = np.random.default_rng(0).normal(size=(B, T, 4))
    y = np.random.default_rng(1).integers(0, V, (B, T))
    monkeypatch.setattr("fastgru.model.ACTIVATED_AT_ONCE", 2 * T * V)
    for loss, target in (
        ("sparse_categorical_crossentropy", y),
        ("categorical_crossentropy", np.eye(V)[y]),
    ):
        model = fg.Sequential([fg.Dense(V, "softmax", seed=0)])
        model.compile("sgd", loss, ["accuracy"])
        fused, activated = model.loss.fused, model.layers[-1].activated
        places, sizes = [], []

        def watched(y, logits, fused=fused, places=places, **options):
            value, dy = fused(y, logits, **options)
            places.append(np.shares_memory(logits, dy))
            return value, dy

        def counted(logits, activated=activated, sizes=sizes):
            sizes.append(logits.size)
            return activated(logits)

        monkeypatch.setattr(model.loss, "fused", watched)
        monkeypatch.setattr(model.layers[-1], "activated", counted)
        model.train_on_batch(x, target)
        assert places == [True] and sizes == [2 * T * V] * 3


def test_metrics_see_probabilities_although_the_loss_overwrites_the_logits(monkeypatch):
    """In parts or as a whole, and with a threshold that logits would answer in another way."""
    for at_once in (1, 2**20):
        monkeypatch.setattr("fastgru.model.ACTIVATED_AT_ONCE", at_once)
        model = network(seed=3)
        strict = fg.metrics.Accuracy("binary", 0.499, "strict")
        model.compile(fg.optimizers.SGD(0.0), "binary_crossentropy", ["acc", strict])
        trained, evaluated = model.train_on_batch(X, Y), model.evaluate(X, Y, batch_size=len(X))
        assert trained == pytest.approx(evaluated, rel=1e-6)
        assert trained[1:] == evaluated[1:]


def test_a_file_may_leave_the_state_of_the_optimizer_out(tmp_path):
    model, _ = trained(1)
    model.save(tmp_path / "m", include_optimizer=False)
    assert not [name for name in saving.load(tmp_path / "m")[1] if "optimizer" in name]
    again = fg.load_model(tmp_path / "m")
    assert again.optimizer.iterations == 0
    assert again.optimizer.get_config() == model.optimizer.get_config()
    model.save(tmp_path / "with")
    names = set(saving.load(tmp_path / "with")[1])
    assert {"optimizer.m.0", "optimizer.v.8", "gru_1.recurrent_bias"} <= names


def test_metrics_come_back_with_their_settings(tmp_path):
    model = network()
    strict = fg.metrics.Accuracy("binary", 0.9, "strict")
    model.compile("adam", "binary_crossentropy", ["acc", strict])
    model.save(tmp_path / "m")
    again = fg.load_model(tmp_path / "m")
    assert [m.get_config() for m in again.metrics] == [m.get_config() for m in model.metrics]
    assert again.evaluate(X, Y, return_dict=True) == model.evaluate(X, Y, return_dict=True)


def test_seeds_from_numpy_are_saved_as_numbers(tmp_path):
    for seed in (np.int64(7), np.uint8(7), 7):
        fg.set_random_seed(seed)
        model = fg.Sequential([fg.Embedding(9, 2, seed=seed), fg.GRU(3, seed=seed)])
        model.save(tmp_path / f"{type(seed).__name__}")
        assert type(fg.load_model(tmp_path / f"{type(seed).__name__}").layers[0].seed) is int
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


class Squared(fg.losses.MeanSquaredError):
    pass


class Brisk(fg.optimizers.SGD):
    pass


class Lenient(fg.metrics.Accuracy):
    pass


class Thick(fg.Dense):
    pass


@pytest.mark.parametrize(
    ("layer", "compiled", "name"),
    [
        (Thick(1), {"loss": "mse"}, "Thick"),
        (Thick(1, name="dense"), {"loss": "mse"}, "Thick"),
        (type("Dense", (fg.Dense,), {})(1), {"loss": "mse"}, "Dense"),
        (fg.Dense(1), {"loss": Squared()}, "Squared"),
        (fg.Dense(1), {"loss": "mse", "optimizer": Brisk()}, "Brisk"),
        (fg.Dense(1), {"loss": "mse", "metrics": [Lenient("binary")]}, "Lenient"),
    ],
)
def test_what_load_model_does_not_know_is_refused_before_a_file_is_touched(
    tmp_path, layer, compiled, name
):
    model = fg.Sequential([layer])
    model.compile(**compiled)
    model.fit(np.ones((3, 2)), np.ones(3), verbose=0)  # it is only files that do not know it
    (tmp_path / "m").write_bytes(b"before")
    with pytest.raises(ValueError, match=f"expected instances of fastgru's own .* of '{name}'"):
        model.save(tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == b"before"


# ---- other cells, both directions


def reversal(n=96, T=6, seed=0):
    """Ids, padded with 0, and whether the first of a row is its last: asks for both ends."""
    random = np.random.default_rng(seed)
    x = random.integers(1, 4, (n, T))
    lengths = random.integers(2, T + 1, n)
    x[np.arange(T) >= lengths[:, None]] = 0
    return x, (x[:, 0] == x[np.arange(n), lengths - 1]).astype(int)


def both_ways(cell):
    return fg.Sequential(
        [
            fg.Embedding(4, 6, mask_zero=True),
            fg.Bidirectional(cell(12, return_sequences=True)),
            fg.Bidirectional(cell(8), merge_mode="sum"),
            fg.Dense(2, activation="softmax"),
        ]
    )


@pytest.mark.parametrize("cell", [fg.GRU, fg.LSTM, fg.SimpleRNN])
def test_a_stack_of_both_directions_learns_and_is_saved(cell, tmp_path):
    fg.set_random_seed(2)
    model = both_ways(cell)
    model.compile(fg.optimizers.Adam(0.02), "sparse_categorical_crossentropy", ["accuracy"])
    x, y = reversal()
    history = model.fit(x, y, epochs=60, batch_size=16, verbose=0)
    assert history.history["accuracy"][-1] > 0.95
    padded = np.pad(x, ((0, 0), (0, 3)))
    assert np.array_equal(model.predict(padded), model.predict(x))
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = fg.load_model(path)
    assert np.array_equal(again.predict(x), model.predict(x))
    assert again.evaluate(x, y) == model.evaluate(x, y)
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert (
        model.fit(x, y, epochs=1, verbose=0, shuffle=False).history
        == again.fit(x, y, epochs=1, verbose=0, shuffle=False).history
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c, a: c["config"]["layer"].update({"class": "Bidirectional"}),
        lambda c, a: c["config"]["layer"].update({"class": "os.system"}),
        lambda c, a: c["config"]["layer"]["config"].update(units=2**40),
        lambda c, a: c["config"].update(layer=3),
        lambda c, a: c["config"].pop("layer"),
        lambda c, a: c["config"].update(merge_mode="add"),
        lambda c, a: a.pop("bidirectional.backward_kernel"),
        lambda c, a: a.update(
            {"bidirectional.forward_kernel": a["bidirectional.forward_kernel"].T}
        ),
    ],
)
def test_a_file_with_two_directions_that_does_not_fit_is_refused(tmp_path, spoil):
    model = both_ways(fg.GRU)
    path = tmp_path / "model.safetensors"
    model.save(path)
    config, arrays = saving.load(path)
    spoil(config["layers"][1], arrays)
    saving.save(path, config, arrays)
    with pytest.raises(fg.FileFormatError, match="does not describe a model"):
        fg.load_model(path)


def test_states_of_every_layer_come_out_in_order():
    random = np.random.default_rng(0)
    model = fg.Sequential(
        [
            fg.Bidirectional(fg.GRU(3, return_sequences=True, return_state=True)),
            fg.LSTM(4, return_state=True),
        ]
    )
    x = random.normal(size=(7, 5, 2)).astype("float32")
    output, states = model.predict(x, batch_size=3, return_states=True)
    assert [s.shape for s in states] == [(7, 3), (7, 3), (7, 4), (7, 4)]
    assert np.array_equal(output, states[2])
    y, *first = model.layers[0](x)
    assert all(map(np.array_equal, states, [*first, *model.layers[1](y)[1:]]))


def test_a_last_state_from_both_directions_is_named_where_steps_are_wanted():
    model = fg.Sequential([fg.Bidirectional(fg.GRU(3)), fg.GRU(5)])
    with pytest.raises(ValueError, match="return_sequences=True on the layer 'bidirectional'"):
        model.predict(np.zeros((2, 4, 3)))


# ---- one layer at several places


def with_a_shared_layer(dtype="float64"):
    """Return a compiled model with one layer at two places, and what it is made of."""
    options = {"dtype": dtype, "seed": 3}
    shared = fg.Dense(4, "tanh", **options)
    layers = [shared, fg.GRU(4, return_sequences=True, **options), shared, fg.Dense(2, **options)]
    model = fg.Sequential(layers)
    model.compile(fg.optimizers.Adam(0.01), "mse")
    model.build((None, None, 4))
    return model


def test_the_gradients_of_a_shared_layer_add_up():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3, 5, 4)), random.normal(size=(3, 5, 2))
    model = with_a_shared_layer()
    shared = model.layers[0]
    model.compile(fg.optimizers.SGD(1.0), "mse")
    before = model.get_weights()

    def loss():
        return model.evaluate(x, y)

    want = np.empty((4, 4))
    kernel = shared.params["kernel"]
    for i in np.ndindex(kernel.shape):
        kept = kernel[i]
        kernel[i] = kept + 1e-6
        high = loss()
        kernel[i] = kept - 1e-6
        want[i] = (high - loss()) / 2e-6
        kernel[i] = kept
    model.train_on_batch(x, y)
    np.testing.assert_allclose(before[0] - kernel, want, rtol=1e-5, atol=1e-8)


def test_a_shared_layer_is_counted_and_updated_once(capsys):
    model = with_a_shared_layer()
    shared, gru, _, dense = model.layers
    assert model.count_params() == sum(layer.count_params() for layer in (shared, gru, dense))
    assert len(model.get_weights()) == 2 + 3 + 2
    weights = [w + 1 for w in model.get_weights()]
    model.set_weights(weights)
    assert all(map(np.array_equal, model.get_weights(), weights))
    model.summary()
    lines = capsys.readouterr().out.splitlines()
    counts = [line.split("│")[-2].strip() for line in lines if "│" in line]
    assert counts == ["20", "120", "0 (shared)", "10"]
    assert shared.name == "dense" and dense.name == "dense_1"


@pytest.mark.parametrize("include_optimizer", [True, False])
def test_a_saved_model_keeps_what_it_shares(tmp_path, include_optimizer):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(6, 5, 4)), random.normal(size=(6, 5, 2))
    model = with_a_shared_layer()
    model.fit(x, y, verbose=0, shuffle=False)
    model.save(tmp_path / "m.safetensors", include_optimizer)
    again = fg.load_model(tmp_path / "m.safetensors")
    assert again.layers[0] is again.layers[2] and len(again.layers) == 4
    assert np.array_equal(again.predict(x), model.predict(x))
    if include_optimizer:
        for one in (model, again):
            one.fit(x, y, verbose=0, shuffle=False)
        assert all(map(np.array_equal, model.get_weights(), again.get_weights()))
    other = copy.deepcopy(again)
    assert other.layers[0] is other.layers[2] is not again.layers[0]


def test_a_shared_layer_must_fit_everywhere():
    shared = fg.Dense(5)
    model = fg.Sequential([shared, fg.GRU(3), shared])
    with pytest.raises(ValueError, match=r"dense: x: expected shape \(None, 7, 4\), .*\(None, 3\)"):
        model.build((None, 7, 4))
    assert not shared.built


def test_the_last_layer_may_be_at_another_place_too():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(4, 5, 3)), np.array([0, 1, 2, 0])
    shared = fg.Dense(3, "softmax", **{"dtype": "float64", "seed": 0})
    model = fg.Sequential([shared, fg.GRU(3, dtype="float64", seed=0), shared])
    model.compile("sgd", "sparse_categorical_crossentropy")
    want = model.evaluate(x, y)
    assert abs(model.train_on_batch(x, y) - want) < 1e-6


def test_the_places_of_a_shared_layer_have_streams_of_their_own(rng):
    shared = fg.GRU(4, return_sequences=True, seed=0)
    model = fg.Sequential([shared, shared])
    x = rng.normal(size=(2, 6, 4)).astype(np.float32)
    y = model.predict(x)
    step = model.stream(2)
    for t in range(6):
        assert np.array_equal(step(x[:, t]), y[:, t])


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 2, 3], [0, 1, 2, -1], "012", 3, [0, 1, 2, 0.5]])
def test_a_file_with_a_wrong_order_of_layers_is_refused(tmp_path, order):
    path = tmp_path / "m.safetensors"
    with_a_shared_layer().save(path)
    config, arrays = saving.load(path)
    assert config["order"] == [0, 1, 0, 2]
    saving.save(path, config | {"order": order}, arrays)
    with pytest.raises(fg.FileFormatError, match="does not describe a model"):
        fg.load_model(path)


@pytest.mark.parametrize(
    ("last", "loss", "target"),
    [
        ("softmax", "sparse_categorical_crossentropy", [1]),
        ("softmax", "categorical_crossentropy", [[0.0, 1.0]]),
        ("sigmoid", "binary_crossentropy", [[0.0, 1.0]]),
    ],
)
def test_evaluation_takes_the_loss_from_logits_as_training_does(last, loss, target):
    model = fg.Sequential([fg.Dense(2, last)])
    model.build((None, 2))
    model.set_weights([np.array([[40.0, 0.0], [0.0, 0.0]]), np.zeros(2)])
    model.compile(fg.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    x, y = np.ones((1, 2)), np.array(target)
    history = model.fit(x, y, validation_data=(x, y), verbose=0).history
    # A probability of e^-40 would be taken for one of 1e-7, whose logarithm is 16.
    assert history["val_loss"] == history["loss"] and history["loss"][0] > 20
    assert model.evaluate(x, y) == [history["loss"][0], history["accuracy"][0]]


def test_validation_data_may_have_lengths_or_a_mask_and_has_them_where_the_others_do(rng):
    x, y = rng.normal(size=(6, 5, 3)), rng.normal(size=(6, 1))
    lengths = np.array([5, 1, 3, 2, 4, 5])
    mask = np.arange(5) < lengths[:, None]
    weight = rng.uniform(0.5, 2, 6)
    model = fg.Sequential([fg.GRU(4, dtype="float64"), fg.Dense(1, dtype="float64")])
    model.compile("adam", "mse")
    for columns in (
        {"lengths": lengths},
        {"mask": mask},
        {"lengths": lengths, "sample_weight": weight},
    ):
        held = {"x": x, "y": y, **columns}
        history = model.fit(x, y, lengths=lengths, validation_data=held, verbose=0).history
        assert history["val_loss"] == [model.evaluate(**held)]
    model.fit(x, y, validation_data={"x": x, "y": y}, verbose=0)
    ragged = [row[:n] for row, n in zip(x, lengths, strict=True)]
    model.fit(x, y, lengths=lengths, validation_data=(ragged, y), verbose=0)
    before = model.get_weights()
    for columns, given, error, message in (
        (
            {"lengths": lengths},
            (x, y),
            ValueError,
            "validation_data: expected a dict with x, y and",
        ),
        (
            {"mask": mask},
            (x, y),
            ValueError,
            "its own lengths or mask, as what is .* given a tuple",
        ),
        ({}, {"x": x, "z": y}, TypeError, "some of sample_weight, mask, lengths, given 'x', 'z'"),
        ({}, {"y": y}, TypeError, "validation_data: expected a dict with x, y and .* given 'y'"),
        ({}, {"x": x}, ValueError, "validation_data: y: expected a target for each sample"),
    ):
        with pytest.raises(error, match=message):
            model.fit(x, y, validation_data=given, verbose=0, **columns)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "binary_crossentropy"])
def test_a_last_activation_goes_with_the_loss_in_every_spelling(loss, masked, rng):
    V, name = 5, "sigmoid" if loss.startswith("binary") else "softmax"
    x, lengths = rng.normal(size=(3, 4, 2)), np.array([4, 1, 3])
    y = rng.integers(0, 2, (3, 4, V)) if name == "sigmoid" else rng.integers(0, V, (3, 4))
    tops = (
        [fg.Dense(V, name)],
        [fg.TimeDistributed(fg.Dense(V, name))],
        [fg.Dense(V), fg.Activation(name)],
        [fg.Dense(V), fg.TimeDistributed(fg.Activation(name))],
    )
    scale, results = 1000.0, []  # of weights, so that probabilities are 0 and 1
    for top in tops:
        model = fg.Sequential([fg.GRU(3, return_sequences=True), *top])
        model.build((None, 4, 2))
        random = np.random.default_rng(0)
        for layer in model.layers:
            weights = [random.normal(size=w.shape) for w in layer.get_weights()]
            layer.set_weights([scale * w if w.shape == (3, V) else w for w in weights])
        model.compile(fg.optimizers.SGD(0.1), loss, metrics=["accuracy"])
        options = {"lengths": lengths} if masked else {}
        before = model.evaluate(x, y, **options)
        assert model.train_on_batch(x, y, **options) == pytest.approx(before)
        results.append((before, [w for layer in model.layers for w in layer.get_weights()]))
    assert results[0][0][0] > 20  # as only logits tell
    for before, weights in results[1:]:
        assert before == results[0][0]
        for got, want in zip(weights, results[0][1], strict=True):
            np.testing.assert_array_equal(got, want)
