"""The examples, as a newcomer runs them: each in a few seconds, with what it asserts itself."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from children import TESTS, finish, start

import fastgru as fg

# The others take longer, or need the network once.
QUICK = {"event_loop", "understanding_gru"}
EXAMPLES = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])
    for path in sorted((TESTS.parent / "examples").glob("*.py"))
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


def refused(name, arguments, folder, monkeypatch, capsys):
    """Return what an example says that ends before it trains."""
    module = example(name)
    if hasattr(module, "find_spec"):
        monkeypatch.setattr(module, "find_spec", lambda package: None)
    monkeypatch.setattr(sys, "argv", [name, *(a.format(folder=folder) for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        module.main()
    return f"{capsys.readouterr().err}{ended.value}"


REFUSED = [
    ("classification", ["--data", "{folder}", "a film"], "sentences: expected none with a folder"),
    ("classification", ["--data", "{folder}", "--save", "x"], "save: expected none with a folder"),
    ("classification", ["--data", "{folder}", "--seeds", "2"], "seeds: expected none with a fold"),
    ("classification", ["--data", "x.tsv", "--attack", "x.png"], "attack: expected none with a f"),
    ("classification", ["--folds", "2"], "folds: expected none with the movie"),
    ("classification", ["--data", "{folder}", "--folds", "0"], "--folds: invalid choice: 0"),
    ("classification", ["--seeds", "0"], "seeds: expected 1 or more, given 0"),
    ("classification", ["--attack", "x.png"], "pip install 'fastgru[plot]'"),
    ("classification", ["--data", "{folder}"], "data: [Errno 2]"),
    ("language", ["--data", "{folder}/some.txt", "\u03a9"], "prompt: expected characters of the"),
    ("translation", ["--data", "{folder}/none"], "data: [Errno 2]"),
    ("speech", ["--data", "{folder}/some.txt"], "data: "),
    ("speech", ["--data", "{folder}/other.npz"], "data: "),
    ("speech", ["--smoke", "--leave-out", "nobody"], "--leave-out: expected some of"),
    ("music", ["--data", "{folder}/other.npz"], "data: "),
    ("understanding_gru", ["--data", "{folder}/some.txt"], "some.txt, line 1: expected a number"),
    ("quickstart", ["--data", "{folder}/some.txt"], "some.txt, line 1: expected a number"),
    *[
        (name, ["--save", "{folder}/none/x"], "expected a file in a folder that exists")
        for name in ("classification", "language", "music", "quickstart", "speech", "translation")
    ],
    *[
        (name, ["--plot", "x.png"], "pip install 'fastgru[plot]'")
        for name in ("classification", "language", "speech", "translation", "understanding_gru")
    ],
]


@pytest.mark.parametrize(("name", "arguments", "message"), REFUSED)
def test_what_cannot_end_well_is_refused_before_the_training(
    name, arguments, message, tmp_path, monkeypatch, capsys
):
    (tmp_path / "some.txt").write_text("to be or not to be\n")
    np.savez(tmp_path / "other.npz", other=np.zeros(2))
    assert message in refused(name, arguments, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(("language", "message"), [("de", "several words"), ("xx", "num2words")])
def test_numbers_that_no_translator_learns_are_refused(
    language, message, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("num2words")
    said = refused("translation", ["--target", language], tmp_path, monkeypatch, capsys)
    assert f"given '{language}'" in said and message in said


def test_the_quickstart_refuses_no_threads(tmp_path):
    path = TESTS.parent / "examples" / "quickstart.py"
    process = start(str(path), "--threads", "0", cwd=tmp_path, PYTHONPATH=str(TESTS.parent))
    output, errors = process.communicate(timeout=60)
    assert process.returncode and "expected a positive integer, given 0" in errors and not output


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
