"""Callbacks: told of everything in order, as Keras' do, and whatever happens to the run."""

import csv
import gc
import inspect
import math
import signal
import sys
import types
import weakref

import numpy as np
import pytest

import fastgru as fg
from fastgru import callbacks as cb
from fastgru import saving
from fastgru.random import generator

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(44, 6, 3)).astype("float32")
Y = X[:, :, 0].sum(axis=1, keepdims=True) > 0


def compiled(metrics=("accuracy",), optimizer="adam"):
    fg.set_random_seed(3)
    model = fg.Sequential([fg.GRU(5), fg.Dropout(0.3), fg.Dense(1, "sigmoid")])
    model.compile(optimizer, "binary_crossentropy", list(metrics))
    return model


def fitted(*callbacks, model=None, **options):
    """Train for 3 epochs of 5 batches, the last of them shorter; return model and history."""
    model = compiled() if model is None else model
    options = {"epochs": 3, "batch_size": 8, "validation_split": 0.2, "verbose": 0} | options
    return model, model.fit(X, Y, callbacks=list(callbacks), **options)


class Recorder(cb.Callback):
    """Note every event, and what the model was then."""

    def __init__(self):
        self.events = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda *a, **k: self.events.append((name.removeprefix("on_"), *a))


# ---- events


def test_events_come_in_order_with_what_was_measured():
    record = Recorder()
    _, history = fitted(record, epochs=2)
    names = [event[0] for event in record.events]
    epoch = ["epoch_begin", *["train_batch_begin", "train_batch_end"] * 5, "epoch_end"]
    assert names == ["train_begin", *epoch * 2, "train_end"]
    batches = [e[1] for e in record.events if e[0] == "train_batch_end"]
    assert batches == [0, 1, 2, 3, 4] * 2
    measured = [e[1:] for e in record.events if e[0] == "epoch_end"]
    assert measured == [(i, {k: v[i] for k, v in history.history.items()}) for i in range(2)]
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    last = [e[2] for e in record.events if e[0] == "train_batch_end"][-1]
    assert last == {name: history.history[name][-1] for name in ("loss", "accuracy")}
    assert record.events[-1] == ("train_end", measured[-1][1])


def test_callbacks_change_nothing_by_themselves():
    model, history = fitted()
    other, watched = fitted(Recorder(), cb.ProgressBar(0), cb.LambdaCallback())
    assert history.history == watched.history
    assert all(map(np.array_equal, model.get_weights(), other.get_weights()))
    assert model.history is history


def test_metrics_are_asked_after_a_batch_only_where_a_callback_reads_them(monkeypatch):
    asked = []
    result = fg.metrics.Mean.result
    monkeypatch.setattr(fg.metrics.Mean, "result", lambda self: asked.append(1) or result(self))
    fitted(cb.ProgressBar(2), cb.EarlyStopping(), epochs=2)
    assert len(asked) == 4  # training and validation of two epochs
    fitted(cb.LambdaCallback(on_train_batch_end=lambda batch, logs: None), epochs=2)
    assert len(asked) == 4 + 4 + 10


def test_functions_are_called_for_the_events_they_are_given_for():
    seen = []
    functions = {
        name: lambda *a, name=name: seen.append(name)
        for name in inspect.signature(cb.LambdaCallback).parameters
    }
    fitted(cb.LambdaCallback(**functions), epochs=1)
    assert set(seen) == set(functions) and len(functions) == 6
    assert seen.count("on_train_batch_end") == seen.count("on_train_batch_begin") == 5
    with pytest.raises(TypeError, match="on_epoch_end: expected a function, given 3"):
        cb.LambdaCallback(on_epoch_end=3)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (cb.EarlyStopping(), "callbacks: expected a list of callbacks, given <fastgru"),
        ([cb.EarlyStopping(), "early"], r"callbacks\[1\]: expected a fastgru.callbacks.Callback"),
    ],
)
def test_what_is_no_list_of_callbacks_is_refused_before_training(callbacks, message):
    model = compiled()
    with pytest.raises(TypeError, match=message):
        model.fit(X, Y, callbacks=callbacks)
    assert not model.layers[0].built


@pytest.mark.parametrize(("batch", "epochs", "batches"), [(2, 1, 3), (4, 1, 5), (None, 2, 10)])
def test_training_stops_after_the_batch_or_the_epoch_that_asks_for_it(batch, epochs, batches):
    def stop(number, logs):
        model.stop_training = number == (1 if batch is None else batch)

    event = "on_epoch_end" if batch is None else "on_train_batch_end"
    model, record = compiled(), Recorder()
    _, history = fitted(cb.LambdaCallback(**{event: stop}), record, model=model)
    assert len(history.epoch) == epochs and len(history.history["val_loss"]) == epochs
    assert sum(e[0] == "train_batch_end" for e in record.events) == batches
    assert record.events[-1][0] == "train_end"
    assert fitted(model=model)[1].epoch == [0, 1, 2]  # and it can be trained again


def test_a_bar_of_the_user_takes_the_place_of_the_one_of_fit(capsys):
    fitted(cb.ProgressBar(2), verbose=1, epochs=2)
    out, err = capsys.readouterr()
    assert out.count("\n") == 2 and "Epoch 2/2" in out and err == ""


def test_a_callback_does_not_keep_the_data_alive():
    x, record = X.copy(), Recorder()
    alive = weakref.ref(x)
    model = compiled()
    model.fit(x, Y, verbose=0, callbacks=[record])
    del x
    gc.collect()
    assert alive() is None and record.model is model


# ---- Keras' rules, driven by numbers


def drive(callback, values, name="val_loss"):
    """Play epochs that measured these values; return the learning rates and the weights left."""
    model = types.SimpleNamespace(stop_training=False, weights=None)
    model.optimizer = types.SimpleNamespace(learning_rate=1.0)
    model.get_weights = lambda: [np.array(model.weights)]
    model.set_weights = lambda weights: setattr(model, "weights", int(weights[0]))
    callback.model = model
    callback.on_train_begin({})
    rates = []
    for epoch, value in enumerate(values):
        model.weights = epoch
        logs = {name: value}
        callback.on_epoch_end(epoch, logs)
        rates.append(model.optimizer.learning_rate)
        if model.stop_training:
            break
    callback.on_train_end({})
    return rates, model.weights


NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "values", "epochs", "left"),
    [
        ({}, [3, 2, 2, 1], 3, 2),
        ({"patience": 2}, [3, 2, 2, 2, 1], 4, 3),
        ({"patience": 2, "restore_best_weights": True}, [3, 1, 2, 2, 0], 4, 1),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.6, 2.5, 2.4, 1], 3, 2),
        ({"patience": 1, "min_delta": -0.5}, [3, 2.4, 2, 2], 3, 2),
        ({"patience": 2, "mode": "max"}, [3, 4, 2, 5, 1, 1, 1], 6, 5),
        ({"patience": 2, "baseline": 1}, [5, 4, 3, 2, 0], 5, 4),
        ({"patience": 2, "baseline": 1}, [5, 5, 5], 2, 1),
        ({"patience": 1, "start_from_epoch": 3}, [3, 9, 9, 9, 8, 8, 8], 6, 5),
        ({"restore_best_weights": True, "start_from_epoch": 9}, [3, 2], 2, 1),
        ({"patience": 2}, [NAN, 3, NAN, NAN, 2], 4, 3),
        ({"patience": 0}, [3, NAN], 2, 1),
        ({"restore_best_weights": True, "patience": 9}, [3, 1, 2], 3, 1),
    ],
)
def test_early_stopping_stops_as_keras_does(options, values, epochs, left):
    stop = cb.EarlyStopping(**options)
    for _ in range(2):  # an instance may be used again
        rates, weights = drive(stop, values)
        assert (len(rates), weights) == (epochs, left)


@pytest.mark.parametrize(
    ("options", "values", "rates"),
    [
        ({"patience": 1}, [3, 2, 2, 2, 1], [1, 1, 0.5, 0.25, 0.25]),
        ({"patience": 2}, [3, 3, 3, 3, 3], [1, 1, 0.5, 0.5, 0.25]),
        ({"patience": 1, "cooldown": 2}, [3] * 7, [1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
        ({"patience": 1, "min_lr": 0.3}, [3] * 4, [1, 0.5, 0.3, 0.3]),
        ({"patience": 1, "min_delta": 0.1}, [3, 2.95, 2.8], [1, 0.5, 0.5]),
        ({"patience": 1, "mode": "max"}, [3, 4, 3], [1, 1, 0.5]),
    ],
)
def test_the_learning_rate_is_reduced_as_keras_does(options, values, rates):
    assert drive(cb.ReduceLROnPlateau(factor=0.5, **options), values)[0] == rates


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("loss", "min"),
        ("val_loss", "min"),
        ("val_perplexity", "min"),
        ("wer", "min"),
        ("acc", "max"),
        ("val_sparse_categorical_accuracy", "max"),
        ("val_f1", "max"),
        ("top_k", "max"),
    ],
)
def test_the_name_of_a_measure_says_whether_less_is_better(monitor, mode):
    assert cb.EarlyStopping(monitor).mode == mode


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cb.EarlyStopping("charm"), "mode: expected 'min' or 'max' .* monitor='charm'"),
        (lambda: cb.EarlyStopping(3), "monitor: expected the name of a measure, given 3"),
        (lambda: cb.EarlyStopping(mode="mx"), "mode: expected one of .*'mx'. Did you mean 'max'"),
        (lambda: cb.EarlyStopping(patience=-1), "patience: expected an integer >= 0"),
        (lambda: cb.EarlyStopping(baseline=NAN), "baseline: expected a finite number"),
        (lambda: cb.EarlyStopping(min_delta="1"), "min_delta: expected a finite number"),
        (lambda: cb.ReduceLROnPlateau(factor=1.0), r"factor: expected a number in \[0, 1\)"),
        (lambda: cb.ReduceLROnPlateau(min_lr=-1), "min_lr: expected a number >= 0"),
        (lambda: cb.ModelCheckpoint("m", save_freq=0), "save_freq: expected a positive integer"),
        (lambda: cb.BackupAndRestore("m", save_freq="x"), "save_freq: expected a positive integer"),
        (lambda: cb.CSVLogger("m", separator=";;"), "separator: expected one character"),
        (lambda: cb.CSVLogger(5), "filename: expected a str or an os.PathLike, given 5"),
        (lambda: cb.ModelCheckpoint(None), "filepath: expected a str or an os.PathLike"),
        (lambda: cb.BackupAndRestore(5), "path: expected a str or an os.PathLike, given 5"),
        (lambda: cb.ProgressBar(5), "verbose: expected 0, 1, 2 or 'auto', given 5"),
    ],
)
def test_arguments_that_do_not_fit_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize("kind", [cb.EarlyStopping, cb.ReduceLROnPlateau])
def test_a_measure_that_there_is_not_is_named_with_those_that_there_are(kind):
    with pytest.raises(ValueError, match="monitor: expected one of .*Did you mean 'val_loss'"):
        fitted(kind("val_los", mode="min"))


def test_a_schedule_that_a_plateau_cannot_change_is_refused_before_training():
    model = compiled(optimizer=fg.optimizers.Adam(lambda step: 0.1))
    before = Recorder()
    with pytest.raises(TypeError, match="learning_rate: expected another schedule in place of one"):
        fitted(before, cb.ReduceLROnPlateau(), model=model)
    assert before.events == [("train_begin", {})]


def test_early_stopping_and_a_plateau_work_on_a_real_model():
    optimizer = fg.optimizers.SGD(0.0)  # no epoch is better than the first
    plateau = cb.ReduceLROnPlateau(patience=1, min_lr=0)
    stop = cb.EarlyStopping(patience=2, restore_best_weights=True)
    model, history = fitted(stop, model=compiled(optimizer=optimizer), epochs=9)
    assert history.epoch == [0, 1, 2]
    optimizer = fg.optimizers.SGD(1e-30)
    _, history = fitted(plateau, model=compiled(optimizer=optimizer), epochs=3)
    assert history.history["learning_rate"] == pytest.approx([1e-30, 1e-30, 1e-31])
    assert optimizer.learning_rate == pytest.approx(1e-32)


# ---- files


def test_checkpoints_are_models_named_by_what_was_measured(tmp_path):
    path = tmp_path / "deep" / "{epoch:02d}-{val_loss:.3f}.safetensors"
    weights = []
    keep = cb.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()))
    model = compiled()
    _, history = fitted(cb.ModelCheckpoint(path), keep, model=model)
    names = sorted(p.name for p in path.parent.iterdir())
    losses = history.history["val_loss"]
    assert names == [f"{i + 1:02d}-{loss:.3f}.safetensors" for i, loss in enumerate(losses)]
    for name, want in zip(names, weights, strict=True):
        again = fg.load_model(path.parent / name)
        assert all(map(np.array_equal, again.get_weights(), want))
        assert again.optimizer.iterations == 5 * int(name[:2])


def test_only_the_best_is_kept(tmp_path):
    saved = []
    check = cb.ModelCheckpoint(tmp_path / "m", save_best_only=True, initial_value_threshold=4)
    check.model = types.SimpleNamespace(save=lambda path, **options: saved.append(path))
    for epoch, value in enumerate([NAN, 5, 3, 3, 4, 2, NAN, 1]):
        check.on_epoch_end(epoch, {"val_loss": value})
    assert len(saved) == 3 and check.best == 1


@pytest.mark.skipif(sys.platform == "win32", reason="leftovers stay there")
def test_what_was_left_of_a_backup_goes_before_the_next_is_due(tmp_path, killed_while_writing):
    killed_while_writing(tmp_path / "backup")
    fitted(cb.BackupAndRestore(tmp_path / "backup", save_freq=1000))
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_come_every_so_many_batches_across_epochs(tmp_path):
    path = tmp_path / "{epoch}-{batch}-{loss:.2f}"
    check = cb.ModelCheckpoint(path, save_freq=4, save_weights_only=True)
    model, _ = fitted(check)
    names = sorted(p.name[:3] for p in tmp_path.iterdir())
    assert names == ["1-4", "2-3", "3-2"]
    again = fg.load_model(sorted(tmp_path.iterdir())[-1])
    assert again.optimizer.iterations == 0 and again.count_params() == model.count_params()


def test_a_name_that_was_not_measured_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"filepath: expected names of loss, .*epoch, given '.*vl"):
        fitted(cb.ModelCheckpoint(tmp_path / "{vl}"))


def test_a_log_has_a_row_for_every_epoch(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("old\n" * 999)
    _, history = fitted(cb.CSVLogger(path, separator=";"))
    head, *rows = csv.reader(path.read_text().splitlines(), delimiter=";")
    assert head == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert [int(row[0]) for row in rows] == [0, 1, 2]
    for column, name in enumerate(head[1:], 1):
        assert [float(row[column]) for row in rows] == history.history[name]
    fitted(cb.CSVLogger(path, separator=";", append=True), epochs=2)
    lines = path.read_text().splitlines()
    assert len(lines) == 6 and lines[4].startswith("0;") and lines[0].count("epoch") == 1


# ---- interrupts


class Interrupting(fg.Layer):
    """Interrupt a program as Ctrl-C does, in the forward pass of one batch."""

    at = math.inf

    def forward(self, x, mask=None, lengths=None, initial_state=None):
        self.build(x.shape)
        self.at -= 1
        if self.at == 0:
            signal.raise_signal(signal.SIGINT)
        return x, lambda dy, with_dx=True: dy


@pytest.fixture
def listening():
    """Let SIGINT interrupt as in a terminal: what a shell runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_an_interrupted_fit_leaves_a_model_and_a_history_that_can_be_used(noise):
    model = compiled()
    model.layers.insert(2, Interrupting())
    model.layers[2].at = 5 + 2 * 2 + 5 + 3  # two epochs, their validations, and two batches
    weights, record = [], Recorder()
    keep = cb.LambdaCallback(
        on_train_batch_end=lambda batch, logs: weights.append(model.get_weights())
    )
    with pytest.raises(KeyboardInterrupt):
        fitted(keep, record, model=model, weight_noise=noise)
    assert model.history.epoch == [0, 1] and len(model.history.history["val_loss"]) == 2
    assert record.events[-1][0] == "train_end" and len(weights) == 12
    assert all(map(np.array_equal, model.get_weights(), weights[-1]))
    model.layers[2].at = math.inf
    assert fitted(model=model)[1].epoch == [0, 1, 2]


def test_an_interrupted_fit_restores_the_best_weights():
    model, weights = compiled(), []

    def end(epoch, logs):
        logs["val_loss"] = [2.0, 1.0, 3.0][epoch]
        weights.append(model.get_weights())

    def interrupt(epoch, logs):
        if epoch == 3:
            raise KeyboardInterrupt

    callbacks = [
        cb.LambdaCallback(on_epoch_end=end, on_epoch_begin=interrupt),
        cb.EarlyStopping(patience=9, restore_best_weights=True),
    ]
    with pytest.raises(KeyboardInterrupt):
        fitted(*callbacks, model=model, epochs=9)
    assert all(map(np.array_equal, model.get_weights(), weights[1]))
    assert model.history.history["val_loss"] == [2, 1, 3]


# ---- noise on the weights


def test_noise_is_on_all_weights_in_training_and_on_none_after_it():
    model = compiled()
    model.build(X.shape)
    clean = model.get_weights()
    seen = []
    forward = model.layers[2].forward

    def spy(*arguments, **options):
        seen.append(model.get_weights())
        return forward(*arguments, **options)

    model.layers[2].forward = spy
    model.optimizer.learning_rate = 0.0
    fitted(model=model, weight_noise=0.5, epochs=2)
    assert all(map(np.array_equal, model.get_weights(), clean))
    assert len(seen) == 10  # validation does not come this way
    noise = [np.concatenate([(a - b).ravel() for a, b in zip(s, clean, strict=True)]) for s in seen]
    assert np.all(np.abs(noise) > 0)
    assert np.std(noise) == pytest.approx(0.5, rel=0.05) and abs(np.mean(noise)) < 0.05
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.3


def test_gradients_are_those_of_the_noisy_weights():
    """Two models, one with noise by `fit`, one with the same noise put on and taken off by hand."""
    rate, deviation = 0.1, 0.3
    model = compiled(optimizer=fg.optimizers.SGD(rate))
    model.layers.pop(1)
    model.build(X.shape)
    start = model.get_weights()
    noisy = []
    forward = model.layers[-1].forward

    def spy(*arguments, **options):
        noisy.append(model.get_weights())
        return forward(*arguments, **options)

    model.layers[-1].forward = spy
    model.fit(X, Y, batch_size=44, shuffle=False, verbose=0, weight_noise=deviation)
    twin = compiled(optimizer=fg.optimizers.SGD(rate))
    twin.layers.pop(1)
    twin.build(X.shape)
    twin.set_weights(noisy[0])
    twin.fit(X, Y, batch_size=44, shuffle=False, verbose=0)
    for w, s, t, n in zip(model.get_weights(), start, twin.get_weights(), noisy[0], strict=True):
        np.testing.assert_allclose(w - s, t - n, rtol=1e-3, atol=1e-6)
    assert not np.array_equal(noisy[0][0], start[0])


def test_noise_is_seeded_and_drawn_from_its_own_generator():
    model, history = fitted(weight_noise=0.2)
    same, again = fitted(weight_noise=0.2)
    assert history.history == again.history
    assert all(map(np.array_equal, model.get_weights(), same.get_weights()))
    assert fitted()[1].history != history.history
    with pytest.raises(ValueError, match="weight_noise: expected a number >= 0, given -1"):
        fitted(weight_noise=-1)


def test_an_interrupt_at_any_line_leaves_weights_without_noise():
    model = compiled()
    model.build(X.shape)
    start = model.get_weights()
    files = {inspect.getfile(fg.run), inspect.getfile(fg.model)}

    def interrupted(line):
        """Interrupt at a line of the second batch; return whether it came so far."""
        count = 0

        def trace(frame, event, argument):
            nonlocal count
            if frame.f_code.co_filename not in files:
                return None
            if event == "line" and begun:
                count += 1
                if count == line:
                    raise KeyboardInterrupt
            return trace

        def begin(batch, logs):
            begun.extend([1] * (batch == 1))

        begun, states = [], [start]
        follow = cb.LambdaCallback(
            on_train_batch_begin=begin,
            on_train_batch_end=lambda batch, logs: states.append(model.get_weights()),
        )
        model.set_weights(start)
        old = sys.gettrace()
        sys.settrace(trace)
        try:
            model.fit(X[:16], Y[:16], batch_size=8, verbose=0, callbacks=[follow], weight_noise=0.3)
            hit = False
        except KeyboardInterrupt:
            hit = True
        finally:
            sys.settrace(old)
        left = model.get_weights()
        if len(states) == 2:  # the second batch may have been interrupted before or after its end
            fresh = [np.array_equal(a, b) for a, b in zip(left, states[1], strict=True)]
            assert all(fresh) or not any(fresh), line
            far = max(np.abs(a - b).max() for a, b in zip(left, states[1], strict=True))
            assert far < 0.01, line  # Adam steps by 0.001, noise would be 0.3
        return hit

    lines = 1
    while interrupted(lines):
        lines += 1
    assert lines > 50


# ---- backups


def test_a_backup_goes_when_the_run_has_ended_by_itself_and_stays_after_an_interrupt(tmp_path):
    path = tmp_path / "new" / "b.safetensors"
    interrupt = cb.LambdaCallback(on_train_end=lambda logs: there.append(path.exists()))
    there = []
    fitted(interrupt, cb.BackupAndRestore(path))
    assert there == [True] and list(path.parent.iterdir()) == []
    fitted(cb.BackupAndRestore(path, delete_checkpoint=False))
    assert [p.name for p in path.parent.iterdir()] == ["b.safetensors"]


class Crash(Exception):
    pass


def crashing(batch):
    """Return a callback that ends a run in its so manyth batch."""
    count = 0

    def end(number, logs):
        nonlocal count
        count += 1
        if count == batch:
            raise Crash

    return cb.LambdaCallback(on_train_batch_end=end)


def everything(model, history):
    state = model.optimizer.get_state()
    return (
        [w.tobytes() for w in model.get_weights()],
        {n: v.tobytes() if isinstance(v, np.ndarray) else v for n, v in state.items()},
        history.history,
        history.epoch,
    )


class Counter(cb.Callback):
    """A callback of a user, with state of its own, that draws from the library's generator."""

    def __init__(self):
        self.batches, self.drawn = 0, 0.0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.drawn = generator().random()

    def get_state(self):
        seen = {"worst": -math.inf, "rows": np.arange(3), "drawn": self.drawn}
        return {"batches": self.batches, "seen": seen}

    def set_state(self, state):
        self.batches, seen = state["batches"], state["seen"]
        assert seen["worst"] == -math.inf and list(seen["rows"]) == [0, 1, 2]
        self.drawn = seen["drawn"]


def callbacks_of_a_run(folder, name, freq, batch):
    return [
        crashing(batch),
        cb.ReduceLROnPlateau("loss", patience=1, min_delta=1.0),
        cb.EarlyStopping(patience=2, min_delta=0.003, restore_best_weights=True),
        cb.CSVLogger(folder / f"{name}.csv"),
        cb.ModelCheckpoint(folder / f"{name}.model", save_best_only=True),
        Counter(),
        cb.BackupAndRestore(folder / f"{name}.backup", save_freq=freq),
    ]


@pytest.mark.parametrize("freq", ["epoch", 1, 3, 5])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_run_that_goes_on_from_a_backup_ends_with_the_same_bits(tmp_path, freq, noise):
    options = {"epochs": 6, "weight_noise": noise}
    whole = callbacks_of_a_run(tmp_path, "whole", freq, None)
    want = everything(*fitted(*whole, **options))
    crashes = iter([1, 7, 11, 13, 10, 9, None])
    for batch in crashes:
        parts = callbacks_of_a_run(tmp_path, "parts", freq, batch)
        try:
            got = everything(*fitted(*parts, **options))
        except Crash:
            continue
        break
    assert batch != 1 and got == want
    for kind in ("csv", "model"):
        files = [tmp_path / f"{name}.{kind}" for name in ("whole", "parts")]
        assert len({file.read_bytes() for file in files}) == 1
    for ours, theirs in zip(whole, parts, strict=True):
        assert str(ours.get_state()) == str(theirs.get_state())
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv", ".csv", ".model", ".model"]


def batches(stop=6, size=7):
    """Yield so many batches, each of them different."""
    for i in range(stop):
        rows = np.arange(i, i + size) % len(X)
        yield X[rows], Y[rows]


ITERABLES = {
    "a list": lambda: list(batches()),
    "a function": lambda: batches,
    "an iterator": lambda: batches(99),
}


@pytest.mark.parametrize("freq", ["epoch", 3])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    "name, steps",
    [(name, steps) for name in ITERABLES for steps in (4, 8)]
    + [("a list", None), ("a function", None)],
)
def test_a_run_goes_on_in_batches_where_it_was(tmp_path, name, steps, shuffle, freq):
    def run(*callbacks):
        model, data = compiled(), ITERABLES[name]()
        options = {"steps_per_epoch": steps, "shuffle": shuffle, "epochs": 4, "verbose": 0}
        held = {"validation_data": batches(99), "validation_steps": 2}  # read on, too
        return everything(model, model.fit(data, callbacks=list(callbacks), **held, **options))

    want = run()
    for batch in (9, 5):
        with pytest.raises(Crash):
            run(crashing(batch), cb.BackupAndRestore(tmp_path / "b", save_freq=freq))
    assert (tmp_path / "b").exists()
    callbacks = [crashing(None), cb.BackupAndRestore(tmp_path / "b", save_freq=freq)]
    assert run(*callbacks) == want


def test_a_run_may_be_given_more_epochs_and_ends_as_one_that_had_them_at_once(tmp_path):
    backup = cb.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    fitted(backup, epochs=2)
    got = everything(*fitted(backup, epochs=5))
    assert got == everything(*fitted(epochs=5))
    model = compiled()
    before = model.predict(X)
    _, history = fitted(backup, model=model, epochs=3)  # nothing is left to do
    assert history.epoch == [0, 1, 2, 3, 4]
    assert everything(model, history) == got
    after = model.predict(X)
    model.set_weights(model.get_weights())  # which makes the model look at them
    assert np.array_equal(after, model.predict(X)) and not np.array_equal(after, before)


def test_a_model_that_is_not_built_is_built_from_a_backup(tmp_path):
    from fastgru.batches import Samples
    from fastgru.run import Run

    backup = cb.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    model, _ = fitted(backup)
    fresh = compiled()
    settings = {"batch_size": 8, "shuffle": True, "steps": None}
    trained, held = Samples(X[:35], Y[:35]), Samples(X[35:], Y[35:])
    data = {"x, y, sample_weight": trained, "validation_data": held}
    with Run(fresh, [backup], 0, 0, 3, 0.0, settings, data) as run:
        assert list(run) == []
    assert all(map(np.array_equal, model.get_weights(), fresh.get_weights()))


def test_a_run_that_was_told_to_stop_does_not_go_on(tmp_path):
    stop = cb.EarlyStopping(min_delta=9, restore_best_weights=True)
    backup = cb.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    want = everything(*fitted(stop, backup, epochs=5))
    got = everything(*fitted(stop, backup, epochs=5))
    assert got == want and len(got[3]) == 2


MISFITS = [
    ({"batch_size": 9}, "batch_size: expected 8, as in the backup .*, given 9. Remove the file"),
    ({"shuffle": False}, "shuffle: expected True, .* given False"),
    ({"weight_noise": 0.1}, "weight_noise: expected 0.0, .* given 0.1"),
    ({"validation_split": 0.3}, "x, y, sample_weight: expected '35 rows.* given '30 rows"),
    ({"validation_split": 0.0}, "x, y, sample_weight: .* given '44 rows"),
    ({"sample_weight": np.ones(44)}, "x, y, sample_weight: expected '35 rows, 35 rows, none"),
]


@pytest.mark.parametrize(("options", "message"), MISFITS)
def test_a_backup_of_another_run_is_refused_and_kept(tmp_path, options, message):
    path = tmp_path / "b"
    fitted(cb.BackupAndRestore(path, delete_checkpoint=False), epochs=1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        fitted(cb.BackupAndRestore(path), **options)
    assert path.read_bytes() == before


def test_a_backup_of_other_data_model_or_callbacks_is_refused(tmp_path):
    backup = cb.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    fitted(backup, epochs=1)
    options = {"batch_size": 8, "validation_split": 0.2, "verbose": 0, "callbacks": [backup]}
    for x, y in ((X + 1, Y), (X, ~Y)):
        with pytest.raises(ValueError, match="x, y, sample_weight: expected '35 rows"):
            compiled().fit(x, y, **options)
    with pytest.raises(ValueError, match=r"callbacks: expected \[\], .* given \['EarlyStopping'\]"):
        fitted(backup, cb.EarlyStopping())
    with pytest.raises(ValueError, match=r"metrics: expected \['accuracy'\], .* given \[\]"):
        fitted(backup, model=compiled(metrics=()))
    with pytest.raises(ValueError, match="optimizer: expected 'Adam', .* given 'SGD'"):
        fitted(backup, model=compiled(optimizer="sgd"))
    model = fg.Sequential([fg.GRU(4), fg.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", ["accuracy"])
    with pytest.raises(ValueError, match="weights: expected .*float32.* given .*float32"):
        fitted(backup, model=model)


def spoiled(path, spoil):
    config, arrays = saving.load(path)
    spoil(config, arrays)
    saving.save(path, config, arrays)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c, a: c.update({"class": "Sequential"}),
        lambda c, a: c.pop("description"),
        lambda c, a: c["state"].pop("epoch"),
        lambda c, a: c["state"].update(epoch="x"),
        lambda c, a: c["state"]["random"]["order"].update(bit_generator="MT19937"),
        lambda c, a: c["state"]["layers"].pop(),
        lambda c, a: c["state"]["layers"][1]["random"].pop(),
        lambda c, a: c["state"]["random"].update({"global": 3}),
        lambda c, a: c["state"]["optimizer"].pop("iterations"),
        lambda c, a: c["state"]["metrics"][0].pop("total"),
        lambda c, a: a.pop("weights.gru.kernel"),
        lambda c, a: a.update({"weights.gru.kernel": np.zeros(3, "float32")}),
    ],
)
def test_a_file_that_is_no_backup_is_refused(tmp_path, spoil):
    path = tmp_path / "b"
    fitted(cb.BackupAndRestore(path, delete_checkpoint=False), epochs=1)
    spoiled(path, spoil)
    with pytest.raises(fg.FileFormatError, match="does not describe a backup"):
        fitted(cb.BackupAndRestore(path))


def test_a_damaged_backup_is_refused(tmp_path):
    path = tmp_path / "b"
    fitted(cb.BackupAndRestore(path, delete_checkpoint=False), epochs=1)
    data = bytearray(path.read_bytes())
    for place in (len(data) // 2, len(data) - 1, 100):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(fg.FileFormatError):
            fitted(cb.BackupAndRestore(path))
    path.write_bytes(data[:-8])
    with pytest.raises(fg.FileFormatError):
        fitted(cb.BackupAndRestore(path))


def test_layers_inside_of_layers_are_found():
    from fastgru.run import _layers

    layers = [fg.Bidirectional(fg.GRU(3)), fg.Dropout(0.1)]
    inner = [layers[0].forward_layer, layers[0].backward_layer]
    assert list(_layers(layers)) == [layers[0], *inner, layers[1]]


class Running(fg.Layer):
    """Subtract a running mean, with a generator of its own: state that is no weight."""

    def __init__(self, **options):
        super().__init__(**options)
        self._carried = None
        self.other = np.random.default_rng(5)

    def forward(self, x, mask=None, lengths=None, initial_state=None):
        self.build(x.shape)
        mean, noise = x.mean(axis=(0, 1)), np.float32(self.other.normal())
        last = self._carried[0] if self._carried else mean
        self._carried = [last + np.float32(0.1) * (mean - last) + noise]
        return x - last, lambda dy, with_dx=True: dy


def test_what_layers_carry_on_and_draw_is_part_of_a_backup(tmp_path):
    def model():
        fg.set_random_seed(2)
        made = fg.Sequential([Running(), fg.GRU(4), fg.Dense(1, "sigmoid")])
        made.compile("adam", "binary_crossentropy")
        return made

    want = everything(*fitted(model=model()))
    backup = cb.BackupAndRestore(tmp_path / "b", save_freq=2)
    with pytest.raises(Crash):
        fitted(crashing(9), backup, model=model())
    got = everything(*fitted(crashing(None), backup, model=model()))
    assert got == want
