"""The command line: what all commands share. What each does with its model is in its own file."""

import subprocess
import sys

import numpy as np
import pytest

import fastgru as fg
from fastgru import audio
from fastgru.cli import main

TEXT = "the cat sat on the mat.\n" * 40
TEXTS = ["a great film", "a dull film", "a great joy", "a dull bore"] * 5
RATE = 8000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a tiny model of each kind and something to give it."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "q.txt").write_text("a great film\n", encoding="utf-8")
    classifier = fg.TextClassifier(units=4, embedding_dim=8, buckets=50, members=1, epochs=1)
    classifier.fit(TEXTS, ["good", "bad"] * 10, verbose=0).save(folder / "classifier")
    small = {"units": 8, "epochs": 1, "seed": 0}
    fg.LanguageModel(**small).fit(TEXT, verbose=0).save(folder / "characters")
    fg.LanguageModel("word", **small).fit(TEXT, verbose=0).save(folder / "words")
    translator = fg.Translator(**small, embedding=8, min_count=1)
    translator.fit(TEXTS, TEXTS, verbose=0).save(folder / "translator")
    wave = np.sin(np.arange(2000, dtype=np.float32))
    audio.write_wav(folder / "a.wav", wave, RATE)
    recognizer = fg.SpeechRecognizer(**small, layers=1, validation_split=0)
    recognizer.fit([wave, wave], ["low", "low"], verbose=0).save(folder / "recognizer")
    return folder


@pytest.fixture
def here(files, monkeypatch):
    """The same, as the working folder."""
    monkeypatch.chdir(files)
    return files


@pytest.mark.parametrize(
    ("command", "option", "operand"),
    [
        ("predict classifier", "--explain", "q.txt"),
        ("generate characters", "--length 5 --seed 1", "the cat"),
        ("translate translator", "--beam-size 1", "q.txt"),
        ("transcribe recognizer", "--beam-size 1", "a.wav"),
    ],
)
def test_operands_may_stand_behind_options(command, option, operand, here, capsys):
    command, option = command.split(), option.split()
    assert main([*command, operand, *option]) == 0
    expected = capsys.readouterr().out
    for arguments in ([*command, *option, operand], [command[0], *option, command[1], operand]):
        assert main(arguments) == 0
        assert capsys.readouterr().out == expected


def test_operands_that_are_missing_or_too_many_are_refused(here, capsys):
    for arguments in (["predict"], ["predict", "classifier", "q.txt", "--explain", "q.txt"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "arguments" in capsys.readouterr().err


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "fastgru", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{fg.__version__}\n"


def test_a_reader_who_has_enough_is_no_error():
    command = [sys.executable, "-m", "fastgru", "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_an_interrupted_command_says_so_in_one_line(here, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        yield "a"
        raise KeyboardInterrupt

    monkeypatch.setattr(fg.LanguageModel, "stream", interrupted)
    assert main(["generate", "characters", "the c"]) == 130
    assert capsys.readouterr() == ("the ca", "\nfastgru generate: interrupted\n")
