"""Translation: what the network computes, what it learns, and how sentences come out."""

import io
import itertools

import numpy as np
import pytest

import fastgru as fg
from fastgru import decoding, losses, saving
from fastgru.cli import main
from fastgru.layers import Dropout
from fastgru.text import vocabulary
from fastgru.translation import EDGE, UNKNOWN, Alignment, join, split

SMALL = {"units": 7, "embedding": 5, "min_count": 1, "dropout": 0.0, "seed": 3}
WORDS = "null eins zwei drei vier fünf sechs sieben acht neun".split()
DIGITS = "zero one two three four five six seven eight nine".split()


def numbers(count, seed, longest=5):
    """Return sequences of digits in two languages: from left to right, and from right to left."""
    random = np.random.default_rng(seed)
    rows = [random.integers(10, size=random.integers(1, longest + 1)) for _ in range(count)]
    sources = [" ".join(WORDS[i] for i in row) for row in rows]
    return sources, [" ".join(DIGITS[i] for i in row[::-1]) for row in rows]


@pytest.fixture(scope="module")
def taught():
    settings = {**SMALL, "units": 32, "embedding": 16, "learning_rate": 0.02, "batch_size": 16}
    pairs = numbers(700, seed=1)
    return fg.Translator(**settings, epochs=6, label_smoothing=0).fit(*pairs, verbose=0)


@pytest.fixture
def fresh():
    """A translator with initial weights for a few words, and a batch of three sentences."""

    def make(**settings):
        translator = fg.Translator(**{**SMALL, **settings})
        pairs = translator._pairs(*numbers(40, seed=2))
        ids = [side[:3] for side in translator._prepare(pairs, np.random.default_rng(5))]
        return translator, translator._batch(*ids)

    return make


# ---- words


def test_text_is_split_into_words_and_marks_and_joined_again():
    text = "Two men's T-shirts (blue), 3.5 Euro – „Größe“ and/or x_1?"
    words = split(text)
    assert words[:5] == ["two", "men", "'", "s", "t"] and "größe" in words
    assert split(text, lower=False)[0] == "Two"
    assert split(join(words)) == words
    assert join(split("a t-shirt, (blue).")) == "a t-shirt, (blue)."


def test_rare_words_are_unknown_and_zero_is_the_edge():
    translator = fg.Translator(**{**SMALL, "min_count": 2})
    pairs = translator._pairs(["a b a", "c b a"], ["x x", "y x"])
    sources, targets = translator._prepare(pairs, np.random.default_rng(0))
    assert [row.tolist() for row in sources] == [[2, 3, 2], [UNKNOWN, 3, 2]]
    assert [row.tolist() for row in targets] == [[2, 2], [UNKNOWN, 2]]
    assert EDGE not in translator._words[0].index_word


# ---- the network


@pytest.mark.parametrize("score", ["general", "additive"])
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_those_of_central_differences(score, tied, fresh):
    translator, batch = fresh(score=score, tied=tied, dtype="float64")
    random = np.random.default_rng(0)
    for layer in translator._stack:
        for weights in layer.weights().values():
            weights[...] = random.normal(size=weights.shape)  # far from even attention

    def loss():
        for layer in translator._stack:
            layer.changed()
        rows, backward = translator._forward(batch)
        value, drows = translator._scored(rows, batch.labels, 0.1)
        return value, lambda: backward(drows)

    loss()[1]()
    pairs = {
        f"{layer.name}.{name}": (weights, gradient.copy())
        for layer in translator._stack
        for name, (weights, gradient) in zip(layer.weights(), layer.pairs(), strict=True)
    }
    for name, (weights, gradient) in pairs.items():
        direction = random.normal(size=weights.shape)
        got, values = np.vdot(gradient, direction), []
        for sign in (1, -1):
            weights += sign * 1e-6 * direction
            values.append(loss()[0])
            weights -= sign * 1e-6 * direction
        want = (values[0] - values[1]) / 2e-6
        assert abs(got - want) < 1e-8 + 1e-6 * abs(want), name
        assert abs(want) > 1e-4, f"{name} does not matter"


def test_the_same_words_score_alike_in_training_and_step_by_step(fresh):
    translator, batch = fresh()
    rows, _ = translator._forward(batch)
    trained = decoding.log_softmax(translator._output(rows))
    step, state = translator._decode(batch.sources, batch.lengths)
    steps = []
    for ids in batch.inputs.T:
        scores, state, weights = step(ids, state)
        steps.append(scores)
        inside = np.arange(batch.sources.shape[1]) < batch.lengths[:, None]
        assert not weights[~inside].any()
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(trained, np.stack(steps, 1)[batch.mask], rtol=1e-4, atol=1e-5)


def test_scores_come_in_parts(fresh, monkeypatch):
    translator, batch = fresh()
    rows, _ = translator._forward(batch)

    def parts(size):
        monkeypatch.setattr("fastgru.translation.ROWS_AT_ONCE", size)
        translator._output.zero_gradients()
        value, drows = translator._scored(rows, batch.labels, 0.2)
        return value, drows, translator._output.grads["kernel"].copy()

    whole, *arrays = parts(len(rows))
    want = losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    assert whole == pytest.approx(want(batch.labels, translator._output(rows))[0], rel=1e-6)
    value, *others = parts(3)
    assert len(rows) % 3 and value == pytest.approx(whole, rel=1e-6)
    for got, expected in zip(others, arrays, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_dropout_changes_training_and_not_validation(fresh):
    translator, batch = fresh()
    plain, _ = translator._forward(batch)
    assert np.array_equal(plain, translator._forward(batch)[0])
    dropped, _ = translator._forward(batch, Dropout(0.5, seed=0))
    assert 0.3 < (dropped == 0).mean() < 0.7


def test_padding_changes_no_translation_and_no_gradient(fresh):
    translator, batch = fresh(dtype="float64")
    gradients = []
    for more in (0, 3):
        sources, inputs = (
            np.pad(ids, ((0, 0), (0, more)), constant_values=4)
            for ids in (batch.sources, batch.inputs)
        )
        mask = np.pad(batch.mask, ((0, 0), (0, more)))
        for layer in translator._stack:
            layer.zero_gradients()
        padded = batch._replace(sources=sources, inputs=inputs, mask=mask)
        rows, backward = translator._forward(padded)
        backward(translator._scored(rows, batch.labels, 0.0)[1])
        gradients.append([g.copy() for layer in translator._stack for _, g in layer.pairs()])
    for got, want in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


# ---- training


def test_pairs_of_like_lengths_make_the_batches(fresh):
    translator, _ = fresh(batch_size=8)
    tokens = [[split(text) for text in texts] for texts in numbers(61, seed=7, longest=9)]
    ids = [translator._ids(side, tokens[side]) for side in (0, 1)]
    batches = list(translator._batches(*ids, np.random.default_rng(0)))
    seen = [row[:n].tolist() for b in batches for row, n in zip(b.sources, b.lengths, strict=True)]
    assert sorted(seen) == sorted(row.tolist() for row in ids[0])
    assert sum(b.lengths.sum() for b in batches) / sum(b.sources.size for b in batches) > 0.85
    assert np.mean([b.lengths.mean() for b in batches][:4]) != ids[0][0].size
    for b in batches:
        assert (b.inputs[:, 0] == EDGE).all()
        ends = b.mask.sum(axis=1)
        assert (b.labels[np.cumsum(ends) - 1] == EDGE).all()


def test_numbers_are_translated_that_it_has_not_seen(taught):
    sources, targets = numbers(300, seed=9)
    exact = np.mean([a == b for a, b in zip(taught.translate(sources), targets, strict=True)])
    assert exact > 0.97
    losses = taught.history.history["loss"]
    assert len(losses) == 6 and losses[-1] < 0.2 * losses[0]


def test_a_seed_repeats_every_bit():
    pairs = numbers(60, seed=4)

    def weights(seed):
        translator = fg.Translator(**{**SMALL, "dropout": 0.3, "seed": seed}, epochs=2)
        translator.fit(*pairs, verbose=0)
        return [w for layer in translator._layers() for w in layer.get_weights()]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(map(np.array_equal, first, again))
    assert not any(map(np.array_equal, first[:2], other[:2]))


def test_the_best_epoch_is_kept_when_ctrl_c_ends_training(monkeypatch):
    pairs, held = numbers(64, seed=4), numbers(20, seed=5)
    kept, steps = [], itertools.count()
    train = fg.Translator._train

    def interrupted(self, *arguments):
        step = next(steps)
        if step == 2:  # the second epoch begins
            kept.extend(w for layer in self._layers() for w in layer.get_weights())
        if step == 5:
            raise KeyboardInterrupt
        return train(self, *arguments)

    monkeypatch.setattr(fg.Translator, "_train", interrupted)
    nats = iter([1.0, 2.0])
    monkeypatch.setattr(fg.Translator, "_nats", lambda self, *_: next(nats))
    translator = fg.Translator(**SMALL, batch_size=32, epochs=9)
    with pytest.raises(KeyboardInterrupt):
        translator.fit(*pairs, validation_data=held, verbose=0)
    assert translator.history.history["val_loss"] == [1.0, 2.0]
    now = [w for layer in translator._layers() for w in layer.get_weights()]
    assert all(map(np.array_equal, now, kept))


@pytest.mark.parametrize("method", ["_build", "_assemble", "_ids", "_train"])
def test_an_interrupt_before_the_end_of_an_epoch_leaves_the_old_translator(method, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    translator = fg.Translator(**SMALL, epochs=1).fit(*numbers(20, seed=4), verbose=0)
    before = translator.translate(["eins zwei"])
    with monkeypatch.context() as patch:
        patch.setattr(translator, method, interrupt)
        with pytest.raises(KeyboardInterrupt):
            translator.fit(["un", "deux"], ["one", "two"], verbose=0)
    assert len(translator.history.epoch) == 1
    assert translator.translate(["eins zwei"]) == before


def test_a_loss_that_is_not_finite_ends_training_and_leaves_the_best_epoch(monkeypatch):
    pairs, held = numbers(64, seed=4), numbers(20, seed=5)
    train, kept = fg.Translator._train, []

    def overflown(self, *arguments):
        if len(self.history.epoch) == 1:
            if kept:
                self._output.weights()["bias"][:] = np.nan
                self._output.changed()
            else:
                kept.extend(w for layer in self._layers() for w in layer.get_weights())
        return train(self, *arguments)

    monkeypatch.setattr(fg.Translator, "_train", overflown)
    translator = fg.Translator(**SMALL, batch_size=32, epochs=9)
    message = r"the loss is nan; no weight was changed by it \(in epoch 2, batch 2\)"
    with pytest.raises(fg.NonFiniteError, match=message):
        translator.fit(*pairs, validation_data=held, verbose=0)
    now = [w for layer in translator._layers() for w in layer.get_weights()]
    assert all(map(np.array_equal, now, kept))


def test_the_loss_of_validation_is_that_of_its_words(taught):
    sources, targets = numbers(40, seed=11)
    tokens = [[split(text) for text in texts] for texts in (sources, targets)]
    total, count = 0.0, 0
    for source, target in zip(*tokens, strict=True):
        step, state = taught._decode(taught._ids(0, [source])[0][None], np.array([len(source)]))
        before = EDGE
        for word in [*taught._ids(1, [target])[0], EDGE]:
            scores, state, _ = step(np.array([before]), state)
            total, count, before = total - scores[0, word], count + 1, word
    assert taught._nats(*tokens) == pytest.approx(total / count, rel=1e-4)


# ---- use


def test_translations_do_not_depend_on_the_batch(taught):
    sources, _ = numbers(30, seed=12, longest=8)
    found = taught._search([split(s) for s in sources], 3, 1.0, None, 30)
    for size in (1, 7):
        others = taught._search([split(s) for s in sources], 3, 1.0, None, size)
        for a, b in zip(found, others, strict=True):
            assert a.ids == b.ids and a.score == b.score
            assert np.array_equal(a.attention[:, : b.attention.shape[1]], b.attention)


def test_a_beam_of_one_takes_the_best_word_of_each_step(fresh):
    translator, batch = fresh()
    [found] = translator._search([["null", "neun"]], 1, 1.0, 6, 1)
    step, state = translator._decode(translator._ids(0, [["null", "neun"]])[0][None], np.array([2]))
    ids = [EDGE]
    for _ in range(6):
        scores, state, _ = step(np.array(ids[-1:]), state)
        ids.append(int(scores.argmax()))
        if ids[-1] == EDGE:
            break
    assert found.ids == [i for i in ids if i != EDGE]


def test_a_wide_beam_finds_what_trying_all_finds(fresh):
    translator, _ = fresh()
    step, start = translator._decode(np.array([[2, 5, 7]]), np.array([3]))
    V, best = translator._output.units, (-np.inf, [])

    def extend(ids, state, total):
        nonlocal best
        scores, state, _ = step(np.array([ids[-1] if ids else EDGE]), state)
        for i, score in enumerate(scores[0].tolist()):
            value = (total + score) / (len(ids) + 1)
            if i == EDGE or len(ids) == 2:
                best = max(best, (value, ids + [i] * (i != EDGE)))
            else:
                extend([*ids, i], state, total + score)

    extend([], start, 0.0)
    [[found]] = decoding.beam_search(step, start, [EDGE], EDGE, beam_size=V * V, max_length=3)
    assert found.ids == best[1] and found.score == pytest.approx(best[0], rel=1e-6)


def test_an_unknown_word_is_the_one_that_got_most_attention(taught):
    found = decoding.Hypothesis([2, UNKNOWN], 0.0, np.array([[0.9, 0.1], [0.2, 0.8]]))
    first = taught._words[1].index_word[2]
    assert taught._target_words(["tom", "anna"], found) == [first, "anna"]


def test_attention_tells_where_words_come_from(taught):
    alignment = taught.attention("Drei sieben neun fünf")
    assert alignment.source == ["drei", "sieben", "neun", "fünf"]
    assert alignment.target == ["five", "nine", "seven", "three"]
    assert alignment.weights.shape == (4, 4)
    np.testing.assert_allclose(alignment.weights.sum(axis=1), 1, rtol=1e-5)


def test_attention_is_drawn():
    pytest.importorskip("matplotlib")
    axes = Alignment(["zwei", "hunde"], ["two", "dogs", "!"], np.eye(3, 2)).plot()
    assert [t.get_text() for t in axes.get_yticklabels()] == ["two", "dogs", "!"]
    assert axes.images[0].get_array().shape == (3, 2)


def test_a_file_holds_all_that_a_translator_has_learned(taught, tmp_path):
    taught.save(tmp_path / "t.safetensors")
    loaded = fg.Translator.load(tmp_path / "t.safetensors")
    sources, _ = numbers(20, seed=13)
    assert loaded.translate(sources) == taught.translate(sources)
    assert loaded.get_config() == taught.get_config()
    assert loaded.count_params() == taught.count_params()


@pytest.mark.parametrize("change", ["words", "layers", "tied"])
def test_a_file_that_does_not_fit_together_is_refused(change, taught, tmp_path):
    path = tmp_path / "t.safetensors"
    taught.save(path)
    config, arrays = saving.load(path)
    if change == "words":
        config["learned"]["words"][0] = vocabulary("", [["a"]], 1).to_json()
    elif change == "layers":
        config["layers"].reverse()
    else:
        config["settings"]["tied"] = False
    saving.save(path, config, arrays)
    with pytest.raises(fg.FileFormatError):
        fg.Translator.load(path)


PAIR = ["ein hund"], ["a dog"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.fit("ein hund", ["a dog"]), TypeError, "sources: expected a list of texts"),
        (lambda t: t.fit(["ein"], ["a", "b"]), ValueError, "targets: expected 1 texts"),
        (lambda t: t.fit([], []), ValueError, "sources: expected at least one text, given none"),
        (lambda t: t.fit(["ein", " "], ["a", "b"]), ValueError, r"sources\[1\]: expected at least"),
        (lambda t: t.fit(["ein"], [3]), TypeError, r"targets\[0\]: expected a str, given 3"),
        (
            lambda t: t.fit(["ein ein"] * 3, ["a", "b", "c"]),
            ValueError,
            "targets: expected a word seen min_count = 2",
        ),
        (
            lambda t: t.fit(["ein mann"], ["a a"]),
            ValueError,
            "sources: expected a word seen min_count = 2 times or more, given none seen more",
        ),
        (lambda t: t.fit(*PAIR, validation_data=["a"]), TypeError, r"targets\), given \['a'\]"),
        (
            lambda t: t.fit(*PAIR, validation_data=(["a"], [""])),
            ValueError,
            r"validation_data: targets\[0\]: expected at least one word",
        ),
        (lambda t: t.fit(*PAIR, verbose=7), ValueError, "verbose: expected"),
        (lambda t: t.translate(["ein hund"]), RuntimeError, "Translator: call fit first"),
        (lambda t: t.attention(["ein hund"]), TypeError, "text: expected a str"),
        (lambda t: t.save("x"), RuntimeError, "call fit first"),
    ],
)
def test_what_cannot_be_is_refused(call, error, message):
    translator = fg.Translator(**SMALL | {"min_count": 2})
    with pytest.raises(error, match=message):
        call(translator)
    assert not translator._layers()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "units: expected a positive integer"),
        ({"score": "luong"}, "score: expected one of additive, general"),
        ({"dropout": 1.0}, "dropout: expected a number in"),
        ({"tied": 1}, "tied: expected a bool"),
        ({"dtype": "int8"}, "dtype: expected"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fg.Translator(**options)


# ---- the command line


def test_the_command_line_trains_and_translates(tmp_path, capsys, monkeypatch):
    for name, seed in (("train", 1), ("val", 2)):
        for side, texts in zip(("x", "y"), numbers(50, seed), strict=True):
            (tmp_path / f"{name}.{side}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    files = ["train.x", "train.y", "m.safetensors", "--validation", "val.x", "val.y"]
    options = ["--units", "7", "--epochs", "1", "--min-count", "1", "--seed", "0"]
    assert main(["train", "translator", *files, *options]) == 0
    assert "fastgru translate m.safetensors" in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("Eins fünf\n\nneun\n", encoding="utf-8")
    assert main(["translate", "m.safetensors", "lines.txt", "--beam-size", "2"]) == 0
    want = fg.Translator.load("m.safetensors").translate(["eins fünf", "neun"], beam_size=2)
    assert capsys.readouterr().out.split("\n") == [want[0], "", want[1], ""]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"neun")))
    assert main(["translate", "m.safetensors", "--beam-size", "2"]) == 0
    assert capsys.readouterr().out == f"{want[1]}\n"


def test_the_command_line_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "x").write_text("eins")
    for given in ("missing", "x"):
        assert main(["translate", str(tmp_path / given)]) == 1
        assert "fastgru translate: " in (said := capsys.readouterr().err) and given in said
