"""The command line: what all commands share. What each does with its model is in its own file."""

import io
import subprocess
import sys
from pathlib import Path

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


@pytest.fixture
def standard_input(monkeypatch):
    """Let a command read some bytes."""

    def give(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


# ---- arguments


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


# ---- lines


def test_lines_end_at_new_lines_alone_and_blank_ones_keep_their_place(
    here, standard_input, capsys, monkeypatch
):
    seen = []

    def translate(model, texts, beam_size):
        seen.extend(texts)
        return [f"{len(text)}" for text in texts]

    monkeypatch.setattr(fg.Translator, "translate", translate)
    content = "\ufeffa\u2028b\r\n\n \t\nc\u0085\fd\nend".encode()
    for operands in (["lines.txt"], ["-"], []):
        (here / "lines.txt").write_bytes(content)
        standard_input(content)
        assert main(["translate", "translator", *operands]) == 0
        assert capsys.readouterr().out == "3\n\n\n4\n3\n"
    assert seen == ["a\u2028b", "c\u0085\fd", "end"] * 3


def test_predict_answers_line_by_line(here, standard_input, capsys):
    (here / "lines.txt").write_text("\na dull bore\n\na great joy\n\n", encoding="utf-8")
    assert main(["predict", "classifier", "lines.txt"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [bool(line) for line in lines] == [False, True, False, True, False, False]
    standard_input((here / "lines.txt").read_bytes())
    assert main(["predict", "classifier", "-"]) == 0
    assert capsys.readouterr().out.split("\n") == lines


COMMANDS_THAT_READ = (
    ["predict", "classifier"],
    ["translate", "translator"],
    ["train", "classifier"],
    ["train", "speech"],
    ["train", "translator"],
)


@pytest.mark.parametrize("command", COMMANDS_THAT_READ, ids=" ".join)
def test_bytes_that_are_no_text_are_named_by_file_and_line(command, here, standard_input, capsys):
    content = b"a great\tjoy\n\xe4hm\n"
    (here / "latin.txt").write_bytes(content)
    standard_input(content)
    rest = {"speech": ["new"], "classifier": ["new"], "translator": ["q.txt", "new"]}
    rest = rest[command[1]] if command[0] == "train" else []
    for file, name in (("latin.txt", "latin.txt"), ("-", "standard input")):
        assert main([*command, file, *rest]) == 1
        assert f"{name}, line 2: expected UTF-8, given b'\\xe4hm'" in capsys.readouterr().err
    assert not (here / "new").exists()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("a\n \n", "y.txt, line 2: expected a sentence, given ' '"),
        ("a\n", "y.txt: expected 2 lines, as many as x.txt has, given 1"),
    ],
)
def test_what_is_wrong_with_pairs_of_sentences_is_named_by_file(targets, message, here, capsys):
    (here / "x.txt").write_text("eins\nzwei\n")
    (here / "y.txt").write_text(targets)
    for validation in ([], ["--validation", "x.txt", "y.txt"]):
        training = ["q.txt", "q.txt"] if validation else ["x.txt", "y.txt"]
        assert main(["train", "translator", *training, "new", *validation]) == 1
        assert message in capsys.readouterr().err


def test_standard_input_is_read_once(here, capsys):
    assert main(["train", "translator", "-", "-", "new"]) == 1
    assert "expected one of the files at most on standard input" in capsys.readouterr().err


def test_tables_of_labels_have_the_order_of_load_tsv(here, standard_input, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(fg.TextClassifier, "save", lambda model, path: None)
    standard_input(b"1\ta joy\twith a tab\n0\ta bore\n")
    monkeypatch.setattr(fg.TextClassifier, "fit", lambda model, *data: given.append(data) or model)
    assert main(["train", "classifier", "-", "new"]) == 0
    assert given == [(["a joy\twith a tab", "a bore"], ["1", "0"])]


# ---- training

KINDS = {
    "classifier": (fg.TextClassifier, ["labels.txt"]),
    "language": (fg.LanguageModel, ["q.txt"]),
    "speech": (fg.SpeechRecognizer, ["table.txt"]),
    "translator": (fg.Translator, ["labels.txt", "table.txt"]),
}


@pytest.fixture(params=KINDS)
def kind(request, here):
    """A kind of application, with what its command is given."""
    (here / "table.txt").write_text("a.wav\tlow\na.wav\tlow\n", encoding="utf-8")
    (here / "labels.txt").write_text("good\ta joy\nbad\ta bore\n", encoding="utf-8")
    return request.param


def interrupted(fit, epochs):
    """Return a fit whose last epoch nobody waits for the end of."""

    def fit_until_then(self, *data):
        add, left = fg.History.add, iter(range(epochs))

        def added(history, *measured):
            if next(left, None) is None:
                raise KeyboardInterrupt
            add(history, *measured)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fg.History, "add", added)
            return fit(self, *data)

    return fit_until_then


@pytest.mark.parametrize(("epochs", "many"), [(1, "1 epoch"), (2, "2 epochs")])
def test_an_interrupted_training_saves_what_was_best(
    kind, epochs, many, tmp_path, monkeypatch, capsys
):
    application, operands = KINDS[kind]
    monkeypatch.setattr(application, "fit", interrupted(application.fit, epochs))
    path = tmp_path / "new.safetensors"
    assert main(["train", kind, *operands, str(path)]) == 130
    assert application.load(path).count_params()
    written, progress = capsys.readouterr()
    assert written == ""
    assert "Epoch 1/" in progress
    assert progress.endswith(f"\nfastgru train: interrupted after {many}, saved to {path}\n")


def test_a_training_that_is_interrupted_in_its_first_epoch_leaves_the_old_file(
    kind, tmp_path, monkeypatch, capsys
):
    application, operands = KINDS[kind]
    monkeypatch.setattr(application, "fit", interrupted(application.fit, 0))
    (tmp_path / "old").write_text("a good model")
    assert main(["train", kind, *operands, str(tmp_path / "old")]) == 130
    written, progress = capsys.readouterr()
    assert written == ""
    assert progress.endswith(
        "fastgru train: interrupted before the end of the first epoch, nothing is saved\n"
    )
    assert (tmp_path / "old").read_text() == "a good model"
    assert len(list(tmp_path.iterdir())) == 1


def test_help_says_what_an_interrupted_training_saves(kind, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", kind, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Ctrl-C ends the training early, and saves what was best so far" in said
    assert "before the end of the first epoch nothing is saved. The exit status is 130" in said
    assert ("without it, it is what was learned last" in said) == (kind == "translator")


def test_what_cannot_be_written_is_noticed_before_training(kind, here, monkeypatch, capsys):
    application, operands = KINDS[kind]
    monkeypatch.setattr(application, "fit", lambda *data: pytest.fail("it was trained"))
    commands = [["train", kind, *operands]]
    if kind == "language":
        commands.append(["generate", "--train", "q.txt"])
    for command in commands:
        for path, problem in (
            ("none/new", "No such file or directory"),
            ("q.txt/new", "Not a directory"),
            (str(here), "Is a directory"),
        ):
            assert main([*command, path]) == 1
            message = f"MODEL: expected a file that can be written, given {path!r}: {problem}"
            assert message in capsys.readouterr().err
    assert not [path for path in here.iterdir() if path.name.startswith("tmp")]


def test_benchmarks_run_where_they_are(tmp_path, monkeypatch, capfd):
    root = Path(fg.__file__).parent.parent
    monkeypatch.chdir(root)
    assert main(["bench", "--help"]) == 0
    assert "python -m bench" in capfd.readouterr().out
    assert main(["bench", "nothing"]) == 2
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "kernels", "--quick"]) == 1
    assert "expected the folder of fastgru's sources" in capfd.readouterr().err
