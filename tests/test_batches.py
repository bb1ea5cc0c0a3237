"""Data on their way into a model: sequences, masks, iterables, files, long streams."""

import tracemalloc

import numpy as np
import pytest

import fastgru as fg
from fastgru.batches import Batches, Samples, Sequences, Streams

RANDOM = np.random.default_rng(5)
LENGTHS = RANDOM.permutation(np.r_[0, 1, 9, RANDOM.integers(2, 9, 40)])
IDS = [RANDOM.integers(1, 9, n) for n in LENGTHS]
FEATURES = [RANDOM.normal(size=(n, 3)).astype("float32") for n in LENGTHS]
LABELS = np.array([int(n > 4) for n in LENGTHS])


def padded(sequences):
    """Return sequences as one array, padded with what must not be looked at."""
    array = np.full((len(sequences), 9, *sequences[1].shape[1:]), 7, sequences[1].dtype)
    for row, sequence in zip(array, sequences, strict=True):
        row[: len(sequence)] = sequence
    return array


def last(cell=fg.GRU, **options):
    """Return a model with one output for a sequence of ids."""
    fg.set_random_seed(3)
    model = fg.Sequential([fg.Embedding(9, 6), cell(5, **options), fg.Dense(1, "sigmoid")])
    model.compile(fg.optimizers.Adam(0.02), "binary_crossentropy", ["accuracy"])
    return model


def every(loss="mse", **options):
    """Return a model with an output for each step of features."""
    fg.set_random_seed(3)
    model = fg.Sequential(
        [
            fg.GRU(5, return_sequences=True, **options),
            fg.Dense(2),
            fg.LSTM(4, return_sequences=True),
        ]
    )
    model.compile(fg.optimizers.Adam(0.02), loss)
    return model


def fit(model, *arguments, **options):
    """Train silently on batches that are drawn in the same order each time."""
    fg.set_random_seed(4)
    return model.fit(*arguments, verbose=0, **options)


def same_weights(one, other):
    return all(map(np.array_equal, one.get_weights(), other.get_weights()))


# ---- lists of sequences


def test_sequences_give_what_each_gives_alone_in_the_order_of_the_caller():
    model = last()
    want = np.concatenate([model.predict(ids[None]) for ids in IDS])
    for batch_size in (1, 4, 100):
        assert np.array_equal(model.predict(IDS, batch_size=batch_size), want)
    assert np.array_equal(model.predict_on_batch(IDS), want)
    assert np.array_equal(model.predict([ids.tolist() for ids in IDS]), want)
    assert np.array_equal(model.predict(np.array(IDS, dtype=object)), want)


@pytest.mark.parametrize("layers", ["forwards", "backwards", "both", "twice"])
def test_outputs_of_steps_come_without_padding(layers):
    fg.set_random_seed(1)
    options = {"return_sequences": True, "go_backwards": layers in ("backwards", "twice")}
    cell = fg.GRU(5, **options)
    model = fg.Sequential([fg.Bidirectional(cell) if layers == "both" else cell])
    if layers == "twice":
        model.add(fg.GRU(4, **options))
    got = model.predict(FEATURES, batch_size=6)
    assert [len(y) for y in got] == list(LENGTHS)
    for y, x in zip(got, FEATURES, strict=True):
        assert np.array_equal(y, model.predict(x[None])[0])
    for y, z in zip(model.predict_on_batch(FEATURES), got, strict=True):
        assert np.array_equal(y, z)


def test_states_of_sequences_come_in_the_order_of_the_caller():
    fg.set_random_seed(1)
    model = fg.Sequential([fg.LSTM(5, return_sequences=True, return_state=True)])
    y, states = model.predict(FEATURES, batch_size=6, return_states=True)
    assert len(y) == len(FEATURES) and [s.shape for s in states] == [(len(FEATURES), 5)] * 2
    for i in (0, 3, 11):
        assert np.array_equal(states[1][i], model.layers[0](FEATURES[i][None])[2][0])


def test_training_on_sequences_is_training_on_padded_arrays():
    """With all samples in one batch, both see the same numbers."""
    models = last(), last(), last()
    models[0].fit(IDS, LABELS, batch_size=99, epochs=3, verbose=0)
    mask = np.arange(9) < LENGTHS[:, None]
    order = np.argsort(LENGTHS, kind="stable")
    for model, options in zip(
        models[1:], ({"lengths": LENGTHS[order]}, {"mask": mask[order]}), strict=True
    ):
        x, y = padded(IDS)[order], LABELS[order]
        model.fit(x, y, batch_size=99, epochs=3, shuffle=False, verbose=0, **options)
        np.testing.assert_allclose(
            models[0].predict(IDS), model.predict(padded(IDS), mask=mask), rtol=1e-4
        )
    assert same_weights(models[1], models[2])
    assert models[0].history.history["loss"] == pytest.approx(models[1].history.history["loss"])


@pytest.mark.parametrize("go_backwards", [False, True])
def test_targets_of_steps_stand_where_their_outputs_are(go_backwards):
    targets = [RANDOM.normal(size=(n, 4)) for n in LENGTHS]
    fg.set_random_seed(3)
    model = fg.Sequential([fg.GRU(4, return_sequences=True, go_backwards=go_backwards)])
    model.compile("adam", "mse")
    outputs = model.predict(FEATURES)
    errors = np.concatenate([y - z for y, z in zip(outputs, targets, strict=True)])
    want = np.mean(errors**2)
    for batch_size in (1, 8, 64):
        assert model.evaluate(FEATURES, targets, batch_size) == pytest.approx(want, rel=1e-5)
    first = model.fit(FEATURES, targets, epochs=30, verbose=0).history["loss"][0]
    assert model.evaluate(FEATURES, targets) < 0.98 * first


def test_weights_of_steps_count_steps():
    targets = [RANDOM.normal(size=(n, 4)) for n in LENGTHS]
    weights = [RANDOM.uniform(size=n) for n in LENGTHS]
    model = every()
    errors = [(y - z) ** 2 for y, z in zip(model.predict(FEATURES), targets, strict=True)]
    per_step = np.concatenate(errors).mean(axis=1)
    want = np.sum(per_step * np.concatenate(weights)) / len(per_step)
    got = model.evaluate(FEATURES, targets, 8, sample_weight=weights)
    assert got == pytest.approx(want, rel=1e-5)
    mask = np.arange(9) < LENGTHS[:, None]
    wide = np.zeros((len(mask), 9))
    wide[mask] = np.concatenate(weights)
    y = np.zeros((len(mask), 9, 4))
    y[mask] = np.concatenate(targets)
    got = model.evaluate(padded(FEATURES), y, 8, sample_weight=wide, lengths=LENGTHS)
    assert got == pytest.approx(want, rel=1e-5)
    some = model.evaluate(FEATURES, targets, sample_weight=weights[0][:1].repeat(len(mask)))
    assert some == pytest.approx(weights[0][:1].sum() * np.mean(per_step), rel=1e-5)


def test_weights_and_splits_of_sequences_mean_what_those_of_arrays_do():
    zero = np.where(LABELS == 1, 0.0, 1.0)
    one, other = last(), last()
    fit(one, IDS, LABELS, class_weight={1: 0.0}, batch_size=8)
    fit(other, IDS, LABELS, sample_weight=zero, batch_size=8)
    assert same_weights(one, other)
    one, other = last(), last()
    fit(one, IDS, LABELS, class_weight={1: 0.5}, sample_weight=1 + zero, batch_size=8)
    fit(other, IDS, LABELS, sample_weight=0.5 + 1.5 * zero, batch_size=8)
    assert same_weights(one, other)
    steps = [np.zeros((n, 4)) for n in LENGTHS], [np.full(n, 0.5) for n in LENGTHS]
    with pytest.raises(ValueError, match="class_weight: expected one label per sample"):
        every().fit(FEATURES, steps[0], class_weight={1: 2.0}, sample_weight=steps[1])
    one, other = last(), last()
    split = fit(one, IDS, LABELS, 8, validation_split=0.25)
    kept = int(len(IDS) * 0.75)
    held = IDS[kept:], LABELS[kept:]
    given = fit(other, IDS[:kept], LABELS[:kept], 8, validation_data=held)
    assert split.history == given.history and "val_accuracy" in split.history
    assert same_weights(one, other)


def test_masks_of_zeros_and_of_lengths_go_together():
    fg.set_random_seed(1)
    model = fg.Sequential([fg.Embedding(9, 6, mask_zero=True), fg.GRU(5)])
    x = np.array([[3, 0, 4, 5], [6, 2, 0, 7]])
    got = model.predict(x, lengths=[3, 2])
    assert np.array_equal(got[:1], model.predict(np.array([[3, 4]])))
    assert np.array_equal(got[1:], model.predict(np.array([[6, 2]])))


def test_padding_costs_little_and_shuffling_leaves_batches_to_chance():
    """Of the movie reviews, or of lengths drawn like theirs."""
    lengths = np.clip(np.random.default_rng(0).normal(19, 9, 9545).round().astype(int), 1, 53)
    source = Sequences([np.ones(n, int) for n in lengths], side_of=lambda shape: None)
    seen = []
    for seed in (0, 0, 1):
        batches = list(source.batches(32, np.random.default_rng(seed)))
        steps = sum(batch.x.size for batch in batches)
        assert 0 < steps - lengths.sum() < 0.1 * steps
        rows = np.concatenate([batch.place.rows for batch in batches])
        assert np.array_equal(np.sort(rows), np.arange(len(lengths)))
        seen.append(rows)
        means = np.array([lengths[batch.place.rows].mean() for batch in batches])
        assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
    assert np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[0], seen[2])
    together = [{frozenset(rows[i : i + 32]) for i in range(0, 9545, 32)} for rows in seen]
    assert len(together[0] & together[2]) == 0


LISTS = {
    "one step too few": (
        lambda m: m.fit(FEATURES, [np.zeros((max(n - 1, 0), 4)) for n in LENGTHS]),
        r"y\[0\]: expected \d steps, as many as x\[0\], given \d",
    ),
    "too few targets": (
        lambda m: m.fit(FEATURES, [np.zeros((n, 4)) for n in LENGTHS[:-1]]),
        r"y: expected 43 samples, as many as x, given 42",
    ),
    "one label where steps have outputs": (
        lambda m: m.fit(FEATURES, LABELS),
        r"y\[0\]: expected shape \(steps,\), given \(\)",
    ),
    "another number of features": (
        lambda m: m.fit([*FEATURES[:-1], np.zeros((2, 5))], LABELS),
        r"x\[42\]: expected shape \(steps, 3\), given \(2, 5\)",
    ),
    "text": (lambda m: m.predict(["ab", "abc"]), r"x\[0\]: expected real numbers"),
    "lengths beside lists": (
        lambda m: m.predict(FEATURES, lengths=LENGTHS), "lengths: expected None with a list",
    ),
    "lengths that are too large": (
        lambda m: m.predict(padded(FEATURES), lengths=LENGTHS + 1),
        r"lengths: expected values from 0 to 9, given \d to 10",
    ),
    "too few lengths": (
        lambda m: m.predict(padded(FEATURES), lengths=[3, 4]),
        r"lengths: expected shape \(43,\), given \(2,\)",
    ),
    "a mask of another shape": (
        lambda m: m.fit(padded(FEATURES), padded(FEATURES), mask=np.ones((43, 8), bool)),
        r"mask: expected shape \(43, 9\), given \(43, 8\)",
    ),
    "no targets": (
        lambda m: m.fit(padded(FEATURES)), "y: expected a target for each sample, given None",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_mistakes_in_lists_are_named_and_nothing_is_half_done(name):
    model = every()
    use, message = LISTS[name]
    with pytest.raises((ValueError, TypeError), match=message):
        use(model)
    assert not any(layer.built for layer in model.layers)


def test_a_mistake_in_the_last_sequence_is_found_before_anything_changes():
    model = last()
    before = model.get_weights()
    for x, y, message in (
        ([*IDS[:-1], [9]], LABELS, "x: expected integers from 0 to 8"),
        (IDS, [*LABELS[:-1], 2], "y: expected targets from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, batch_size=4, verbose=0)
    assert all(map(np.array_equal, before, model.get_weights()))


class Transcripts(fg.losses.MeanSquaredError):
    """A loss that takes targets with lengths of their own, and notes them."""

    label_padding = -1

    def check(self, target, shape, dtype=np.float32, sample_weight=None, mask=None):
        assert target.dtype.kind == "i" and ((target == -1) == (target < 0)).all()

    def __call__(self, target, output, sample_weight=None, mask=None):
        self.seen = target
        return 0.0, np.zeros_like(output)


@pytest.mark.parametrize("x", [FEATURES[:3], np.ones((3, 7, 3))])
def test_a_loss_may_take_targets_of_other_lengths_than_the_inputs(x):
    model = every(Transcripts())
    model.fit(x, [[1, 2], [3], []], shuffle=False, verbose=0)
    rows = {tuple(row) for row in model.loss.seen.tolist()}
    assert rows == {(1, 2), (3, -1), (-1, -1)}


# ---- lengths and masks of padded arrays


def test_padded_arrays_with_lengths_give_what_sequences_give():
    model = every()
    want = model.predict(FEATURES)
    x = padded(FEATURES)
    x[np.arange(9) >= LENGTHS[:, None]] = np.nan
    mask = np.arange(9) < LENGTHS[:, None]
    for got in (
        model.predict(x, lengths=LENGTHS, batch_size=7),
        model.predict(x, mask=mask),
        model.predict_on_batch(x, lengths=LENGTHS),
    ):
        assert np.array_equal(got[mask], np.concatenate(want))
    y = np.ones((43, 9, 4))
    parts = [model.evaluate(x, y, lengths=LENGTHS), model.evaluate(x, y, mask=mask)]
    assert parts[0] == parts[1] == pytest.approx(np.mean((np.concatenate(want) - 1) ** 2), rel=1e-5)
    loss = model.train_on_batch(x, y, lengths=LENGTHS)
    assert loss == pytest.approx(parts[0], rel=1e-5)
    assert not np.isfinite(model.predict(x)).all()


# ---- iterables


X, Y = padded(IDS), LABELS


def pieces(size=10):
    """Yield the samples in order."""
    for i in range(0, len(X), size):
        yield X[i : i + size], Y[i : i + size]


class Counted:
    """What Keras calls a PyDataset."""

    def __init__(self):
        self.batches, self.asked, self.ends = list(pieces()), [], 0

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, i):
        self.asked.append(i)
        return self.batches[i]

    def on_epoch_end(self):
        self.ends += 1


@pytest.mark.parametrize(
    "make",
    [lambda: pieces, lambda: list(pieces()), Counted, lambda: (b for _ in "ab" for b in pieces())],
)
def test_iterables_of_batches_train_like_the_arrays_that_they_hold(make):
    want, got = last(), last()
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    a = want.fit(X, Y, batch_size=10, **options)
    b = got.fit(make(), steps_per_epoch=5, **options)
    assert a.history == b.history and same_weights(want, got)


def test_an_epoch_goes_on_where_the_last_one_has_ended():
    want, got = last(), last()
    for i in (0, 1, 2, 3, 4, 0):
        want.fit(X[10 * i : 10 * i + 10], Y[10 * i : 10 * i + 10], shuffle=False, verbose=0)
    got.fit(pieces, epochs=2, steps_per_epoch=3, verbose=0)
    assert same_weights(want, got)


def test_batches_with_an_index_that_were_read_before_are_not_asked_for_again():
    def read(counted, state, passes, seed):
        data = Batches(counted, Samples, lambda batch: None, steps=3, goes_on=True)
        data.set_state(state)
        random = np.random.default_rng(seed)
        for _ in range(passes):
            assert len(list(data.batches(1, random))) == 3
        return data.get_state()

    whole, before, after = Counted(), Counted(), Counted()
    state = {"read": 0, "order": None}
    read(whole, state, 4, seed=0)
    read(after, read(before, state, 2, seed=0), 2, seed=1)
    assert before.asked + after.asked == whole.asked and len(after.asked) == 6


def test_batches_with_an_index_are_shuffled_and_told_of_the_end():
    data = Counted()
    last().fit(data, epochs=3, verbose=0)
    epochs = [data.asked[i : i + 5] for i in (0, 5, 10)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1 and data.ends == 3


def test_iterables_evaluate_and_predict_like_the_arrays_that_they_hold():
    model = last()
    assert model.evaluate(pieces()) == pytest.approx(model.evaluate(X, Y))
    assert model.evaluate(pieces(), steps=2) == pytest.approx(model.evaluate(X[:20], Y[:20]))
    want = model.predict(X)
    assert np.array_equal(model.predict(x for x, _ in pieces()), want)
    assert np.array_equal(model.predict(pieces(), steps=3), want[:30])
    weighted = ((x, y, np.ones(len(y))) for x, y in pieces())
    assert np.array_equal(model.predict(weighted), want)
    lists = (IDS[i : i + 10] for i in range(0, len(IDS), 10))
    assert np.array_equal(model.predict(lists), model.predict(IDS))
    steps = every()
    halves = iter([FEATURES[:20], FEATURES[20:]])
    for y, z in zip(steps.predict(halves), steps.predict(FEATURES), strict=True):
        assert np.array_equal(y, z)


def test_validation_data_may_come_in_batches():
    model = last()
    want = fit(model, X, Y, epochs=2, validation_data=(X[:20], Y[:20]))
    for held in (pieces, list(pieces())):
        other = last()
        got = fit(other, X, Y, epochs=2, validation_data=held, validation_steps=2)
        for name in want.history:
            assert got.history[name] == pytest.approx(want.history[name])


def test_iterables_take_class_weights_and_sample_weights():
    zero = np.where(Y == 1, 0.0, 1.0)
    one, other = last(), last()
    fit(one, pieces, class_weight={1: 0.0})
    batches = [(x, y, zero[10 * i : 10 * i + 10]) for i, (x, y) in enumerate(pieces())]
    fit(other, batches, shuffle=False)
    assert same_weights(one, other)


ITERABLES = {
    "read once": (
        lambda m: m.fit(pieces(), epochs=2),
        "steps_per_epoch: expected a positive integer with an iterator",
    ),
    "read once, to validate": (
        lambda m: m.fit(X, Y, epochs=2, validation_data=pieces()),
        "validation_data: validation_steps: expected a positive integer",
    ),
    "nothing": (lambda m: m.fit(iter([])), "x: expected at least one batch, given none"),
    "too little": (
        lambda m: m.evaluate(pieces(), steps=9), "x: expected 9 batches, given 5",
    ),
    "no targets": (
        lambda m: m.fit(x for x in [X]), r"batch 1: expected a tuple \(x, y\)",
    ),
    "a wrong label": (
        lambda m: m.evaluate([(X, Y), (X, Y + 1)]), "batch 2: y: expected targets from 0 to 1",
    ),
    "weights beside": (
        lambda m: m.fit(pieces(), sample_weight=Y), "sample_weight: expected None where x gives",
    ),
    "steps of data": (
        lambda m: m.fit(X, Y, steps_per_epoch=2), "steps_per_epoch: expected None where x is data",
    ),
    "a share": (
        lambda m: m.fit(pieces(), validation_split=0.5), "validation_split: expected 0 where",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ITERABLES)
def test_mistakes_in_iterables_are_named(name):
    model = last()
    before = model.get_weights()
    use, message = ITERABLES[name]
    with pytest.raises((ValueError, TypeError), match=message):
        use(model)
    assert all(map(np.array_equal, before, model.get_weights()))


def test_progress_of_iterables_counts_what_has_come(capsys):
    model = last()
    model.fit(pieces, verbose=2)
    assert "samples/s" in capsys.readouterr().out
    model.evaluate(pieces, verbose=1)
    assert "43 samples" in capsys.readouterr().err
    model.predict(pieces(), verbose=1)
    assert "43 samples" in capsys.readouterr().err


# ---- larger than memory


class OnDisk:
    """An array-like that reads rows in increasing order only, as h5py does, and counts them."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        if isinstance(rows, np.ndarray):
            assert np.all(np.diff(rows) > 0)
        taken = self.array[rows]
        self.most = max(self.most, len(taken))
        return taken

    def __array__(self, *arguments, **options):
        raise MemoryError


def test_array_likes_are_read_row_by_row(monkeypatch):
    monkeypatch.setattr("fastgru.batches.CHECKED_AT_ONCE", 90)
    options = {"batch_size": 8, "epochs": 2, "validation_split": 0.3}
    want, got = last(), last()
    a = fit(want, X, Y, **options)
    x, y = OnDisk(X), OnDisk(Y)
    b = fit(got, x, y, **options)
    assert a.history == b.history and same_weights(want, got)
    assert got.evaluate(x, y, batch_size=8) == want.evaluate(X, Y, batch_size=8)
    assert np.array_equal(got.predict(x, batch_size=8), want.predict(X))
    assert x.most <= 10 and y.most <= 10
    with pytest.raises(TypeError, match="y: expected real numbers"):
        got.fit(x, OnDisk(Y.astype(str)))


@pytest.mark.parametrize("kind", [np.asarray, OnDisk])
def test_both_parts_of_a_split_are_drawn_from_their_own_rows(kind):
    rows = np.arange(20)
    for part, own in zip(
        Samples(kind(rows), kind(2 * rows)).split(0.3), (rows[:14], rows[14:]), strict=True
    ):
        for random in (None, np.random.default_rng(0)):
            batches = list(part.batches(4, random))
            got = np.concatenate([batch.x for batch in batches])
            assert np.array_equal(got, own) == (random is None)
            assert np.array_equal(np.sort(got), own)
            assert all(np.array_equal(batch.y, 2 * batch.x) for batch in batches)


def test_a_file_of_200_mb_takes_less_than_20_mb_of_memory(tmp_path):
    x = np.memmap(tmp_path / "x", "float32", "w+", shape=(100_000, 10, 50))
    y = np.memmap(tmp_path / "y", "float32", "w+", shape=(100_000, 1))
    fg.set_random_seed(0)
    model = fg.Sequential([fg.GRU(2), fg.Dense(1)])
    model.compile("sgd", "mse", ["accuracy"])
    model.fit(x[:100], y[:100], verbose=0)
    assert x.nbytes == 2e8
    tracemalloc.start()
    try:
        model.fit(x, y, batch_size=1000, verbose=0, lengths=np.full(100_000, 9, np.int8))
        model.evaluate(x, y, batch_size=1000)
        model.predict(x, batch_size=1000)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


# ---- long streams


def text(L=203, seed=0):
    random = np.random.default_rng(seed)
    ids = random.integers(0, 7, L + 1)
    return ids[:-1], ids[1:]


def language(cell=fg.GRU, **options):
    fg.set_random_seed(2)
    model = fg.Sequential(
        [
            fg.Embedding(7, 4),
            cell(6, return_sequences=True, **options),
            fg.LSTM(5, return_sequences=True),
            fg.Dense(7, "softmax"),
        ]
    )
    model.compile(fg.optimizers.SGD(0.1), "sparse_categorical_crossentropy", ["accuracy"])
    return model


@pytest.mark.parametrize("steps", [1, 7, 500])
def test_a_stream_is_evaluated_as_the_whole_sequence(steps):
    model = language()
    x, y = text()
    want = model.evaluate(x[None], y[None])
    assert model.evaluate_stream(x, y, steps=steps) == pytest.approx(want, rel=1e-5)
    assert model.evaluate_stream(x[None], y[None], steps=steps) == pytest.approx(want, rel=1e-5)
    cut = [x[i : i + 41] for i in range(0, 203, 41)], [y[i : i + 41] for i in range(0, 203, 41)]
    want = model.evaluate(*cut)
    assert model.evaluate_stream(x, y, steps, batch_size=5) == pytest.approx(want, rel=1e-5)
    assert model.evaluate_stream(*cut, steps=steps) == pytest.approx(want, rel=1e-5)


def test_training_on_a_stream_carries_states_and_cuts_gradients():
    """Beside the same steps by hand, with layers that take and give states."""
    x, y = text(60)
    model, twin = language(), language()
    model.fit_stream(x, y, steps=5, batch_size=3, epochs=2, verbose=0)
    embedding, gru, lstm, dense = twin.layers
    for layer in (gru, lstm):
        layer.return_state = True
    xs, ys = x.reshape(3, 20), y.reshape(3, 20)
    for _ in range(2):
        h, hc = np.zeros((3, 6)), [np.zeros((3, 5))] * 2
        for t in range(0, 20, 5):
            for layer in twin.layers:
                layer.zero_gradients()
            a, to_embedding = embedding.forward(xs[:, t : t + 5])
            (b, h), to_gru = gru.forward(a, initial_state=h)
            (c, *hc), to_lstm = lstm.forward(b, initial_state=hc)
            d, to_dense = dense.forward(c, logits=True)
            _, dd = twin.loss.fused(ys[:, t : t + 5], d)
            to_embedding(to_gru(to_lstm(to_dense(dd))[0])[0])
            twin.optimizer.apply(*twin._weights())
            for layer in twin.layers:
                layer.changed()
    for got, want in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    restarted = language()
    for t in range(0, 20, 5):
        restarted.train_on_batch(xs[:, t : t + 5], ys[:, t : t + 5])
    once = language()
    once.fit_stream(x, y, steps=5, batch_size=3, verbose=0)
    assert not same_weights(once, restarted)


def test_a_stream_learns_what_lies_further_back_than_its_chunks():
    """The target is 1 from the first 1 in the input on, so the state has to hold it."""
    x = np.zeros((8, 64, 1), "float32")
    starts = np.random.default_rng(0).integers(0, 48, 8)
    x[np.arange(8), starts] = 1
    y = np.cumsum(x, axis=1)
    fg.set_random_seed(0)
    model = fg.Sequential([fg.GRU(8, return_sequences=True), fg.Dense(1, "sigmoid")])
    model.compile(fg.optimizers.Adam(0.03), "binary_crossentropy", ["accuracy"])
    history = model.fit_stream(x, y, steps=4, epochs=60, validation_data=(x, y), verbose=0)
    assert history.history["accuracy"][-1] > 0.98 and history.history["val_accuracy"][-1] > 0.98


def test_a_corpus_is_not_copied():
    x = np.zeros(3_000_000, np.int32)
    tracemalloc.start()
    try:
        streams = Streams(x[:-1], x[1:], 96, 64, 2)
        batch = next(streams.batches())
        assert batch.x.shape == batch.y.shape == (64, 96)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


STREAMS = {
    "a target too few": (lambda m, x, y: m.fit_stream(x, y[1:]), "y: expected a target for each"),
    "another rank": (
        lambda m, x, y: m.fit_stream(x[None, None], y),
        r"x: expected shape \(streams, steps\), given \(1, 1, 203\)",
    ),
    "no steps": (lambda m, x, y: m.fit_stream(x, y, steps=0), "steps: expected a positive integer"),
    "nothing": (lambda m, x, y: m.fit_stream(x[:0], y[:0]), "x: expected at least one step"),
    "a late id": (
        lambda m, x, y: m.fit_stream(np.r_[x[:-1], 7], y), "x: expected integers from 0 to 6",
    ),
    "held out": (
        lambda m, x, y: m.fit_stream(x, y, validation_data=(x, y[1:])),
        "validation_data: y: expected a target",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_mistakes_in_streams_are_named_and_nothing_is_half_done(name):
    model = language()
    before = model.get_weights()
    use, message = STREAMS[name]
    with pytest.raises(ValueError, match=message):
        use(model, *text())
    assert all(map(np.array_equal, before, model.get_weights()))


def test_layers_that_read_backwards_have_no_streams():
    x, y = text()
    with pytest.raises(ValueError, match="gru: expected layers that read forwards"):
        language(go_backwards=True).fit_stream(x, y)
    with pytest.raises(ValueError, match="bidirectional: expected layers that read forwards"):
        language(lambda *a, **k: fg.Bidirectional(fg.GRU(*a, **k))).evaluate_stream(x, y)


# ---- interruptions


def test_an_interrupted_fit_leaves_the_history_of_the_epochs_before():
    model = last()
    epoch = iter(range(9))

    def batches():
        yield from pieces()
        if next(epoch) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(batches, epochs=9, verbose=0)
    assert model.history.epoch == [0, 1]
    assert [len(values) for values in model.history.history.values()] == [2, 2]
    assert np.isfinite(model.predict(X)).all()
    assert model.fit(X, Y, verbose=0) is model.history


def test_rows_that_are_not_shuffled_are_not_copied():
    source = Samples(X, Y)
    assert all(np.shares_memory(batch.x, X) for batch in source.batches(8))
