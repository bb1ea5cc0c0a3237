"""The examples, as a newcomer runs them: each in a few seconds, with what it asserts itself."""

import gzip
import importlib.util
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from children import TESTS, finish, start

import fastgru as fg

# The others take longer, or need the network once.
QUICK = {"event_loop", "understanding_gru"}
EXAMPLES = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])
    for path in sorted((TESTS.parent / "examples").glob("*.py"))
    if path.stem not in ("command_line", "piano_rolls")
]


def run(path, folder, *arguments):
    return finish(start(str(path), *arguments, cwd=folder, PYTHONPATH=str(TESTS.parent)))


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_ends_well_and_says_what_it_measured(path, tmp_path):
    arguments = ["--smoke", "--json", "--seed", "1"]
    if path.stem == "translation":
        pytest.importorskip("num2words")
    if path.stem == "understanding_gru":
        (tmp_path / "reviews.tsv").write_text("1\ta moving film\n0\ta dull film\n" * 50)
        arguments += ["a dull film", "--data", str(tmp_path / "reviews.tsv")]
    output = run(path, tmp_path, *arguments)
    measured = json.loads(output.splitlines()[-1])
    # The quickstart shows that a model can be kept; the others write no file that nobody wants.
    assert any(tmp_path.glob("*.safetensors")) == (path.stem == "quickstart")
    assert measured["seconds"] > 0
    if path.stem == "event_loop":
        assert measured["recall"] > 0.9 and measured["parameters"] == 977
    if path.stem == "understanding_gru":
        assert measured["difference"] < 1e-6
        able = [name for name, right in measured["memory"].items() if right >= 0.9]
        assert f"Right in 0.9 of the cases or more: {', '.join(able)}." in output
        assert measured["gradient_kept"]["GRU"] > 10 * measured["gradient_kept"]["SimpleRNN"]
        assert {name: cell["parameters"] for name, cell in measured["cells"].items()} == {
            "SimpleRNN": 528, "LSTM": 2112, "GRU": 1632,
        }  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_explains_itself(path, tmp_path):
    text = run(path, tmp_path, "--help")
    assert all(option in text for option in ("--smoke", "--seed", "--threads", "--json"))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["word", "char"])
def test_digits_are_recognised_forwards_too(level, tmp_path):
    path = TESTS.parent / "examples" / "speech.py"
    output = run(path, tmp_path, "--smoke", "--forward", "--level", level, "--json")
    measured = json.loads(output.splitlines()[-1])
    assert measured["exact"] > 0.8 and measured["wer"] < 0.3


def example(name):
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(name, TESTS.parent / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(name, arguments, folder, monkeypatch, capsys, installed=False):
    """Return what an example says that ends before it trains, without matplotlib by default."""
    module = example(name)
    if not installed:
        monkeypatch.setattr("command_line.find_spec", lambda package: None)
    monkeypatch.setattr(sys, "argv", [name, *(a.format(folder=folder) for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        module.main()
    return f"{capsys.readouterr().err}{ended.value}"


OUTPUTS = {
    "save": ["classification", "language", "music", "quickstart", "speech", "translation"],
    "plot": ["classification", "language", "speech", "translation", "understanding_gru"],
    "attack": ["classification"],
}
REFUSED = [
    ("classification", ["--data", "{folder}", "a film"], "sentences: expected none with a folder"),
    ("classification", ["--data", "{folder}", "--save", "x"], "save: expected none with a folder"),
    ("classification", ["--data", "{folder}", "--seeds", "2"], "seeds: expected none with a fold"),
    ("classification", ["--data", "x.tsv", "--attack", "x.png"], "attack: expected none with a f"),
    ("classification", ["--folds", "2"], "folds: expected none with the movie"),
    ("classification", ["--data", "{folder}", "--folds", "0"], "--folds: invalid choice: 0"),
    ("classification", ["--smoke", ""], "SENTENCE: expected at least one word, given an empty"),
    ("translation", ["--smoke", "a", " "], "SENTENCE: expected at least one word, given an empty"),
    ("quickstart", ["--data", "{folder}/a.tsv", ""], "SENTENCE: expected at least one word, given"),
    (
        "quickstart",
        ["--data", "{folder}/a.tsv", "?"],
        "SENTENCE: expected at least one word, given",
    ),
    *[
        (name, [f"--{option}", value], f"--{option}: expected a number {wanted}, given {value}")
        for name, option, wanted in (
            ("classification", "epsilon", ">= 0"),
            ("language", "temperature", ">= 0"),
            ("language", "dropout", "in [0, 1)"),
            ("language", "recurrent-dropout", "in [0, 1)"),
            ("music", "dropout", "in [0, 1)"),
            ("music", "recurrent-dropout", "in [0, 1)"),
            ("music", "learning-rate", "> 0"),
            ("music", "beta-2", "in [0, 1)"),
            ("music", "clipnorm", "> 0"),
            ("music", "weight-noise", ">= 0"),
            ("speech", "connected", ">= 0"),
            ("translation", "dropout", "in [0, 1)"),
            ("translation", "learning-rate", "> 0"),
        )
        for value in ("-1.0", "inf", "nan")
    ],
    *[
        (path.values[0].stem, ["--seed", "-1"], "--seed: expected 0 or more, given -1")
        for path in EXAMPLES
    ],
    *[
        (name, ["--smoke", f"--{option}", "0"], f"--{option}: expected 1 or more, given 0")
        for name, options in {
            "classification": ["seeds", "members", "threads"],
            "event_loop": ["frames", "units", "epochs", "threads"],
            "language": ["units", "layers", "epochs", "threads"],
            "music": ["units", "layers", "steps", "batch-size", "epochs", "patience", "threads"],
            "quickstart": ["epochs", "threads"],
            "speech": ["epochs", "threads"],
            "translation": ["units", "epochs", "threads"],
            "understanding_gru": ["units", "epochs", "updates", "threads"],
        }.items()
        for option in options
    ],
    ("music", ["--transpose", "88"], "--transpose: expected 0 to 87, given 88"),
    (
        "music",
        ["--cell", "lstm", "--reset-after"],
        "--reset-after: expected none without --cell gru",
    ),
    ("music", ["--warmup", "9"], "--warmup: expected none without --decay"),
    ("music", ["--context", "-1"], "--context: expected 0 or more, given -1"),
    ("classification", ["--attack", "x.png"], "pip install 'fastgru[plot]'"),
    ("classification", ["--data", "{folder}"], "data: [Errno 2]"),
    ("language", ["--data", "{folder}/some.txt", "\u03a9"], "prompt: expected characters of the"),
    ("language", ["--data", "{folder}/empty.npz"], "data: text: expected at least one character"),
    ("classification", ["--data", "{folder}/a.tsv"], "data: labels: expected 2 different ones"),
    ("translation", ["--data", "{folder}/none"], "data: [Errno 2]"),
    *[
        (name, ["--data", f"{{folder}}/{file}"], f"data: expected an .npz with {columns}")
        for name, columns in (
            ("speech", "samples, lengths, sample_rate, speakers, speaker, digit, take, given "),
            ("music", "train, train_lengths, valid, valid_lengths, test, test_lengths, given "),
        )
        for file in ("some.txt", "other.npz", "other.npy", "empty.npz")
    ],
    ("speech", ["--smoke", "--leave-out", "nobody"], "--leave-out: expected some of"),
    ("understanding_gru", ["--data", "{folder}/some.txt"], "some.txt, line 1: expected a number"),
    ("quickstart", ["--data", "{folder}/some.txt"], "some.txt, line 1: expected a number"),
    *[
        (name, [f"--{option}", f"{{folder}}{path}"], f"--{option}: expected a file that can be wr")
        for option, names in OUTPUTS.items()
        for name in names
        for path in ("/none/x.png", "/some.txt/x.png", "")
    ],
    *[
        (name, [f"--{option}", "{folder}/x", "--plot", "{folder}/a/../x"], "a file of its own for")
        for option, names in OUTPUTS.items()
        if option != "plot"
        for name in names
        if name in OUTPUTS["plot"]
    ],
    *[(name, ["--plot", "x.png"], "pip install 'fastgru[plot]'") for name in OUTPUTS["plot"]],
]


@pytest.mark.parametrize(("name", "arguments", "message"), REFUSED)
def test_what_cannot_end_well_is_refused_before_the_training(
    name, arguments, message, tmp_path, monkeypatch, capsys
):
    (tmp_path / "some.txt").write_text("to be or not to be\n")
    np.savez(tmp_path / "other.npz", other=np.zeros(2))
    np.save(tmp_path / "other.npy", np.zeros(2))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "a.tsv").write_text("1\ta moving film\n" * 20)
    assert message in refused(name, arguments, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("option", "name"), [(option, name) for option, names in OUTPUTS.items() for name in names]
)
def test_files_that_may_not_be_written_are_refused(option, name, tmp_path, monkeypatch, capsys):
    old, closed = tmp_path / "old.png", tmp_path / "closed"
    old.touch(0o444)
    closed.mkdir(0o555)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    for path in (old, closed / "new.png"):
        said = refused(name, [f"--{option}", str(path)], tmp_path, monkeypatch, capsys)
        assert f"expected a file that can be written, given '{path}': Permission denied" in said


@pytest.mark.parametrize("name", OUTPUTS["plot"])
def test_pictures_that_cannot_be_drawn_are_refused(name, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    options = ["plot", "attack"] if name in OUTPUTS["attack"] else ["plot"]
    for path in ("{folder}/a.xyz", "{folder}/png"):
        for option in options:
            said = refused(name, [f"--{option}", path], tmp_path, monkeypatch, capsys, True)
            assert "expected a picture ending in one of " in said and " png, " in said
    assert not list(tmp_path.iterdir())


def test_pictures_say_what_they_show(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "a.svg"  # in which texts are comments, too
    weights = np.array([0.5, -0.5])
    reason = SimpleNamespace(
        words=["a", "b"], attention=weights, integrated_gradients=weights, label=1, probability=0.67
    )
    example("classification").draw(reason, str(path))
    assert "<!-- label 1, probability 0.67 -->" in path.read_text()
    alignment = fg.translation.Alignment(["ein", "Hund"], ["a", "dog"], np.eye(2))
    example("translation").draw(alignment, str(path))
    drawn = path.read_text()
    assert all(f"<!-- {label} -->" in drawn for label in ("source", "translation", "attention"))


@pytest.mark.parametrize(("language", "message"), [("de", "several words"), ("xx", ", fr, ")])
def test_numbers_that_no_translator_learns_are_refused(
    language, message, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("num2words")
    said = refused("translation", ["--target", language], tmp_path, monkeypatch, capsys)
    assert f"given '{language}'" in said and message in said


def test_music_in_other_keys_has_the_same_intervals():
    rolls = example("piano_rolls")
    parts = [np.eye(5, rolls.KEYS, 40 + i, dtype=np.float32) for i in range(9)]
    batches = rolls.Batches(parts, [0] * 9, 4, 3, seed=0)
    assert len(batches) == 3
    seen = [pair for i in range(3) for pair in zip(*batches[i], strict=True)]
    lowest = []
    for x, y in seen:
        keys = np.flatnonzero(x.any(axis=0))
        assert (np.diff(keys) == 1).all() and len(keys) == 4  # each part goes up key by key
        assert (x[1:] == y[:-1]).all()
        lowest.append(keys[0])
    assert 37 <= min(lowest) and max(lowest) <= 51 and len(set(lowest)) > 2
    assert (rolls.moved(parts[0], 60) == 0).all()  # beyond the last key
    batches.on_epoch_end()
    assert sorted(batches.order) == list(range(9))


def test_parts_of_music_are_read_from_some_steps_before_that_do_not_count():
    rolls = example("piano_rolls")
    pieces = [np.eye(steps, rolls.KEYS, dtype=np.float32) for steps in (12, 4, 1)]
    parts, contexts = rolls.cut(pieces, 5, 3)
    assert contexts == [0, 3, 3, 0]
    assert [len(part) for part in parts] == [6, 9, 5, 4]
    x, y, counts = rolls.Batches(parts, contexts, 9, 0, seed=0)[0]
    target = np.concatenate([a[c > 0] for a, c in zip(y, counts, strict=True)])
    assert [len(c) for c in counts] == [len(a) for a in x]
    # Every step that has one before it counts once.
    assert (target.sum(axis=0)[:12] == [0] + [2] * 3 + [1] * 8).all()
    assert target.sum() == 11 + 3


def test_the_network_of_a_key_reads_the_keys_around_it():
    rolls = example("piano_rolls")
    x = (np.random.default_rng(0).random((2, 3, rolls.KEYS)) < 0.1).astype(np.float32)
    read = rolls.around_keys(x)
    assert read.shape == (2, rolls.KEYS, 3, 2 * rolls.OCTAVE + 15)
    for i, key, t in ((0, 0, 0), (1, 5, 2), (0, 43, 1), (1, rolls.KEYS - 1, 1)):
        sounding = [k - key for k in np.flatnonzero(x[i, t])]
        near, classes, count, place = np.split(read[i, key, t], [2 * rolls.OCTAVE + 1, -2, -1])
        assert np.flatnonzero(near).tolist() == [
            rolls.OCTAVE + k for k in sounding if abs(k) <= rolls.OCTAVE
        ]
        assert classes.tolist() == [sum(k % 12 == c for k in sounding) / 2 for c in range(12)]
        assert count * 5 == pytest.approx(len(sounding))
        assert place == pytest.approx(4 * key / (rolls.KEYS - 1) - 2)
    # Other keys read the same of what has moved.
    x[..., 81:] = 0
    higher = rolls.around_keys(np.stack([rolls.moved(piece, 7) for piece in x]))
    read = rolls.around_keys(x)
    assert (higher[:, 7:, :, :-1] == read[:, :-7, :, :-1]).all()
    assert (rolls.around_keys(x[0]) == read[0]).all()


def test_keys_in_turn_know_those_below_of_the_step_to_come_and_no_others():
    rolls = example("piano_rolls")
    x, y = (np.random.default_rng(0).random((2, 1, 3, rolls.KEYS)) < 0.2).astype(np.float32)
    read = rolls.around_keys(x, y)
    old = 2 * rolls.OCTAVE + 15
    assert (read[..., :old] == rolls.around_keys(x)).all()
    for key in (0, 5, 50, rolls.KEYS - 1):
        below = [k - key for k in np.flatnonzero(y[0, 1, :key])]
        near, classes, count = np.split(read[0, key, 1, old:], [rolls.OCTAVE, -1])
        assert np.flatnonzero(near).tolist() == [
            rolls.OCTAVE + k for k in below if k >= -rolls.OCTAVE
        ]
        assert classes.tolist() == [sum(k % 12 == c for k in below) / 2 for c in range(12)]
        assert count * 5 == pytest.approx(len(below))
        other = y.copy()
        other[..., key:] = 1 - other[..., key:]
        assert (rolls.around_keys(x, other)[:, : key + 1] == read[:, : key + 1]).all()
        other[..., key - 1] = 1 - other[..., key - 1]
        assert key == 0 or (rolls.around_keys(x, other)[:, key] != read[:, key]).any()


@pytest.mark.parametrize("keys", ["together", "apart", "in-turn"])
def test_the_likelihoods_of_all_chords_that_may_follow_add_up_to_1(keys, monkeypatch):
    music = example("music")
    monkeypatch.setattr(music.rolls, "KEYS", 4)
    fg.set_random_seed(3)
    model = fg.Sequential([
        fg.GRU(5, return_sequences=True),
        fg.Dense(4 if keys == "together" else 1, activation="sigmoid"),
    ])  # fmt: skip
    old = np.array([[0, 1, 0, 1]], np.float32)
    chords = np.array(list(np.ndindex(2, 2, 2, 2)), np.float32)

    def total():
        nll = [music.scores(model, [np.vstack([old, chord])], keys)[0] for chord in chords]
        return np.exp(-np.array(nll)).sum()

    assert total() == pytest.approx(1, abs=1e-5)
    if keys == "in-turn":  # a key that knows itself makes more of it
        read = music.rolls.around_keys
        monkeypatch.setattr(
            music.rolls,
            "around_keys",
            lambda x, y: read(x, np.pad(y[:, 1:], [(0, 0), (0, 1)])),
        )
        assert abs(total() - 1) > 1e-3


def test_silent_keys_that_are_left_out_are_stood_for_by_the_others():
    rolls = example("piano_rolls")
    pieces = [np.eye(steps, rolls.KEYS, 40, dtype=np.float32) for steps in (9, 4)]
    parts, contexts = rolls.cut(pieces, 5, 3)
    x, y, weights = rolls.KeyBatches(parts, contexts, 3, 0, seed=0)[0]
    assert x.shape[:2] == y.shape[:2] == weights.shape == (3 * rolls.KEYS, 6)
    counted = 8 + 3  # each note that has a step before it
    assert np.count_nonzero(weights) == counted * rolls.KEYS
    assert (y * weights[..., np.newaxis]).mean() == pytest.approx(1 / rolls.KEYS)
    rows, notes, sums = [], [], []
    fewer = rolls.KeyBatches(parts, contexts, 3, 0, seed=0, one_in=4)
    for _ in range(200):
        x, y, weights = fewer[0]
        rows.append(len(x))
        notes.append((y * weights[..., np.newaxis]).mean())
        sums.append(weights.mean())
        fewer.on_epoch_end()
    assert np.mean(rows) < 0.5 * 3 * rolls.KEYS
    assert np.array(notes) == pytest.approx(1 / rolls.KEYS)
    assert 1 - min(sums) > 0.02 and np.mean(sums) == pytest.approx(1, rel=0.02)


def test_rolls_are_read_without_pieces_of_a_single_step(tmp_path):
    rolls = example("piano_rolls")
    packed = np.random.default_rng(0).integers(0, 256, (9, 11), np.uint8)
    columns = {split: packed for split in rolls.SPLITS}
    columns |= {f"{split}_lengths": [1, 5, 1, 2] for split in rolls.SPLITS}
    path = tmp_path / "music.npz"
    np.savez(path, **columns)
    for pieces in rolls.load(path).values():
        assert [len(piece) for piece in pieces] == [5, 2]
        assert (np.packbits(np.vstack(pieces) > 0, axis=1) == packed[[1, 2, 3, 4, 5, 7, 8]]).all()
    for wrong in (packed[:, :10], packed.astype(int), packed[0]):
        np.savez(path, **columns | {"valid": wrong})
        with pytest.raises(
            ValueError, match=r"valid: expected uint8 of shape \(steps, 11\), given"
        ):
            rolls.load(path)


@pytest.mark.parametrize("keys", ["together", "apart", "in-turn"])
def test_training_and_validation_take_the_loss_that_is_scored(keys):
    music, random = example("music"), np.random.default_rng(0)
    pieces = [(random.random((n, 88)) < 0.1).astype(np.float32) for n in (6, 3, 9)]
    fg.set_random_seed(3)
    model = fg.Sequential([
        fg.GRU(5, return_sequences=True),
        fg.Dense(88 if keys == "together" else 1, activation="sigmoid"),
    ])  # fmt: skip
    model.compile(loss="binary_crossentropy")
    options = SimpleNamespace(keys=keys, batch_size=2, transpose=0, context=0, seed=0)
    train, valid = music.training_data(options, pieces[:2], [0, 0], pieces)
    expected = music.scores(model, pieces, keys)[0]
    if keys == "together":
        assert model.evaluate(*valid, verbose=0) * 88 == pytest.approx(expected, rel=1e-5)
        assert [len(part) for part in train[0]] == [5, 2]
        return
    # Each piece is a batch of its own, and all of its keys are read, where they are.
    losses = [model.evaluate(iter([valid[i]]), verbose=0) * 88 for i in range(3)]
    each = [music.scores(model, [pieces[i]], keys)[0] for i in valid.order]
    assert losses == pytest.approx(each, rel=1e-5)
    assert model.evaluate(valid, verbose=0) * 88 == pytest.approx(expected, rel=1e-5)
    assert train[0].one_in > 1 and len(train[0]) == 1
    train[0].one_in = 1
    loss = model.evaluate(train[0], verbose=0) * 88
    assert loss == pytest.approx(music.scores(model, pieces[:2], keys)[0], rel=1e-5)


@pytest.fixture
def corpora(tmp_path):
    """A folder with a little to learn from in the layout of each example."""
    text = ["a moving film", "a dull film"] * 10
    (tmp_path / "a.tsv").write_text("".join(f"{i % 2}\t{line}\n" for i, line in enumerate(text)))
    (tmp_path / "a.txt").write_text("to be or not to be\n" * 9)
    for part in ("train", "val", "test2016"):
        for language in ("en", "de"):
            with gzip.open(tmp_path / f"a.{part}.{language}.txt.gz", "wt") as file:
                file.write("\n".join(text))
    splits = {split: np.eye(9, 11, dtype=np.uint8) for split in ("train", "valid", "test")}
    np.savez(tmp_path / "music.npz", **splits, **{f"{split}_lengths": [4, 5] for split in splits})
    waves = np.random.default_rng(0).integers(-99, 99, 36000, np.int16)
    rows = {
        "lengths": [2000] * 18,
        "digit": [1, 2] * 9,
        "take": [0, 6, 12] * 6,
        "speaker": [0] * 9 + [1] * 9,
    }
    np.savez(tmp_path / "a.npz", samples=waves, sample_rate=8000, speakers=["m", "f"], **rows)
    return tmp_path


def interrupt_after(epochs, monkeypatch):
    """Let Ctrl-C come in the epoch that follows so many."""
    left, add = iter(range(epochs)), fg.History.add

    def interrupt(history, *measured):
        if next(left, None) is None:
            raise KeyboardInterrupt
        add(history, *measured)

    monkeypatch.setattr(fg.History, "add", interrupt)


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("classification", "a.tsv", fg.TextClassifier),
        ("language", "a.txt", fg.LanguageModel),
        ("music", "music.npz", None),
        ("quickstart", "a.tsv", None),
        ("speech", "a.npz", fg.SpeechRecognizer),
        ("translation", "a", fg.Translator),
    ],
)
def test_an_interrupted_training_keeps_the_best_weights(
    name, data, kind, epochs, corpora, monkeypatch, capsys
):
    path = corpora / "model.safetensors"
    interrupt_after(epochs, monkeypatch)
    monkeypatch.setattr(
        sys, "argv", [name, "--data", str(corpora / data), "--save", str(path), "--smoke"]
    )
    if epochs:
        example(name).main()
        assert "Interrupted: the " in capsys.readouterr().out
        (kind.load if kind else fg.load_model)(path)
    else:
        with pytest.raises(SystemExit, match="Interrupted in the first epoch"):
            example(name).main()
    assert path.exists() == bool(epochs)


@pytest.mark.parametrize(("epochs", "seeds"), [(3, 1), (4, 2)])
def test_an_interruption_ends_the_training_with_all_seeds(
    epochs, seeds, corpora, monkeypatch, capsys
):
    path = corpora / "model.safetensors"
    interrupt_after(epochs, monkeypatch)
    arguments = ["--data", str(corpora / "a.tsv"), "--seeds", "3", "--smoke", "--save", str(path)]
    monkeypatch.setattr(sys, "argv", ["classification", *arguments, "--json"])
    example("classification").main()
    said = capsys.readouterr().out
    assert said.count("Interrupted: ") == 1 and said.count("Seed ") == seeds
    assert len(json.loads(said.splitlines()[-1])["accuracies"]) == seeds
    # Of two seeds the second one was interrupted, and it is the last one that counts.
    assert fg.TextClassifier.load(path).seed == seeds - 1


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_interrupted_attack_ends_without_a_traceback(epochs, tmp_path, monkeypatch, capsys):
    module, data = example("classification"), (["a moving film", "a dull film"] * 10, [1, 0] * 10)
    interrupt_after(epochs, monkeypatch)
    monkeypatch.setattr(module, "check_outputs", lambda *outputs: None)
    monkeypatch.setattr(fg.datasets, "movie_reviews", lambda: (data, data))
    monkeypatch.setattr(fg.TextClassifier, "score", lambda *data: 1.0)
    path = tmp_path / "attack.png"
    monkeypatch.setattr(sys, "argv", ["classification", "--smoke", "--attack", str(path)])
    if epochs == 1:  # of the three of the training
        module.main()
        assert "Not attacked: the training was interrupted." in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert ended.value.code == 130 and capsys.readouterr().err.endswith("Interrupted.\n")


def test_an_interrupted_cross_validation_ends_without_a_traceback(tmp_path, monkeypatch, capsys):
    for end, word in (("pos", "moving"), ("neg", "dull")):
        (tmp_path / f"rt-polarity.{end}").write_text(f"a {word} film\n" * 20)
    interrupt_after(4, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["classification", "--smoke", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        example("classification").main()
    said = capsys.readouterr()
    assert ended.value.code == 130 and said.err.endswith("Interrupted.\n")
    assert said.out.count("Fold ") == 1


def test_an_interruption_ends_the_training_without_the_other_speakers(corpora, monkeypatch, capsys):
    interrupt_after(2, monkeypatch)  # of each training the first
    arguments = ["--data", str(corpora / "a.npz"), "--leave-out", "all", "--epochs", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["speech", *arguments])
    example("speech").main()
    said = capsys.readouterr().out
    assert said.count("Interrupted: the speakers so far count.") == 1
    assert list(json.loads(said.splitlines()[-1])["left_out"]) == ["f"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("music", "music.npz", "data: train: expected a piece of two steps or more, given none"),
        ("speech", "a.npz", "data: expected takes to test on, given none"),
        ("speech", "b.npz", "data: transcripts: expected at least one word to learn, given none"),
        ("translation", "a", "data: sources[0]: expected at least one word, given ''"),
    ],
)
def test_data_without_what_is_to_be_learned_are_refused(
    name, data, message, corpora, monkeypatch, capsys
):
    with np.load(corpora / "a.npz") as file:
        columns = dict(file)
    np.savez(corpora / "a.npz", **columns | {"take": [12] * 18})
    np.savez(corpora / "b.npz", **columns | {"take": [0] * 18})
    with np.load(corpora / "music.npz") as file:
        np.savez(corpora / "music.npz", **dict(file) | {"train_lengths": [1] * 9})
    with gzip.open(corpora / "a.train.en.txt.gz", "wt") as file:
        file.write("\n" * 20)
    assert message in refused(name, ["--data", str(corpora / data)], corpora, monkeypatch, capsys)


def test_cells_that_have_not_learned_to_remember_are_not_praised(capsys):
    tour = example("understanding_gru")
    tour.DISTANCE = 30
    _, accuracy = tour.show_gradients(0, 0, np.random.default_rng(0))
    assert max(accuracy.values()) < 0.9
    said = capsys.readouterr().out
    assert "Right in 0.9 of the cases or more: none." in said and "learn to hold" not in said


def test_a_name_that_does_not_exist_gets_the_list_of_those_that_do():
    with pytest.raises(AttributeError, match=r"expected one of .* GRU, .* given 'GatedTurnstile'"):
        _ = fg.GatedTurnstile
    with pytest.raises(AttributeError, match="Did you mean 'SimpleRNN'"):
        _ = fg.SimpleRnn
    assert not hasattr(fg, "tanh")
    for module, name, known in (
        (fg.audio, "log_mell", "log_mel"),
        (fg.callbacks, "EarlyStoping", "EarlyStopping"),
        (fg.data, "pad_sequence", "pad_sequences"),
        (fg.decoding, "beam_serch", "beam_search"),
        (fg.explain, "occlussion", "occlusion"),
        (fg.initializers, "glorot_unifrom", "glorot_uniform"),
        (fg.losses, "Hubert", "Huber"),
        (fg.metrics, "Precisoin", "Precision"),
        (fg.optimizers, "Adma", "Adam"),
        (fg.regularizers, "L1l2", "L1L2"),
        (fg.robust, "fgms", "fgsm"),
        (fg.schedules, "CosineDecays", "CosineDecay"),
    ):
        message = rf"{module.__name__}: expected one of .*{known}, .* Did you mean '{known}'"
        with pytest.raises(AttributeError, match=message):
            getattr(module, name)


@pytest.mark.parametrize("keys", ["together", "apart", "in-turn"])
def test_music_is_learned_in_other_keys(keys, corpora, monkeypatch, capsys):
    options = ["--transpose", "2", "--activation", "relu", "--units", "4", "--epochs", "2"]
    options += ["--keys", keys]
    options += ["--layers", "2", "--decay", "--warmup", "3", "--steps", "2", "--context", "1"]
    monkeypatch.setattr(sys, "argv", ["music", "--data", str(corpora / "music.npz"), *options])
    example("music").main()
    assert "2 epochs in" in capsys.readouterr().out
