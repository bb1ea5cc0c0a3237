"""The command ``fastgru``: what it runs on, compiling ahead of time, and the applications."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import io
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastgru

# Settings of a language model, beside its seed.
LANGUAGE = ("level", "units", "layers", "dropout", "epochs")
INPUT = "- for standard input"
INTERRUPT = (
    "Ctrl-C ends the training early, and saves what was best so far; before the end of the first "
    "epoch nothing is saved. The exit status is 130 then."
)
# Lines that are translated at once, whose order stays: one from a terminal, which waits for it.
LINES = 256


class _Command(argparse.ArgumentParser):
    """A parser of operands and options in any order.

    argparse alone takes an optional operand that is not there before the next option for missing,
    and refuses it behind.
    """

    # True parses as argparse does, which commands of several kinds need.
    in_order = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse what comes after the command's name."""
        if self.in_order:
            return super().parse_known_args(args, namespace)
        self.in_order = True  # since this is called again, for options and for operands
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.in_order = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="fastgru", description=fastgru.__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=fastgru.__version__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Command
    )
    info = commands.add_parser("info", help="print versions, CPU, threads and the kernels' folder")
    info.set_defaults(run=lambda options: fastgru.show_config())
    _add_warmup(commands)
    train = commands.add_parser("train", help="make a model of one kind from files")
    train.in_order = True
    kinds = train.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_train_classifier(kinds)
    _add_train_language(kinds)
    _add_train_speech(kinds)
    _add_train_translator(kinds)
    _add_predict(commands)
    _add_generate(commands)
    _add_transcribe(commands)
    _add_translate(commands)
    _add_bench(commands)
    options, others = parser.parse_known_args(arguments)
    if options.command == "bench":
        options.arguments = others  # which it knows itself
    elif others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    try:
        status = options.run(options)
        sys.stdout.flush()  # not at the end of Python, where a broken pipe could not be caught
        return status or 0
    except KeyboardInterrupt as error:
        print(f"\nfastgru {options.command}: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130  # as shells say it
    except BrokenPipeError:
        # `head` has read enough. What is still to be written must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError) as error:
        print(f"fastgru {options.command}: {error}", file=sys.stderr)
        return 1


def _add_warmup(commands: Any) -> None:
    parser = commands.add_parser("warmup", help="compile all kernels now, into the disk cache")
    parser.add_argument(
        "--dtype", action="append", choices=("float32", "float64"), help="default: both"
    )
    parser.set_defaults(run=_warmup)


def _warmup(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    fastgru.warmup(options.dtype or ("float32", "float64"))
    print(f"All kernels are compiled: {time.perf_counter() - start:.1f} s.")
    fastgru.show_config()


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


def _lines(file: str) -> Iterator[str]:
    """Yield the lines of a file in UTF-8, or of standard input if it is called "-".

    They end at new lines alone, not at all that `str.splitlines` takes for an end.
    """
    with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{_name(file)}, line {number}: expected UTF-8, "
                    f"given {line[error.start :]!r:.40}"
                ) from None


def _add_file(parser: argparse.ArgumentParser) -> None:
    """Add what a model is to answer to."""
    add = parser.add_argument
    add("file", nargs="?", default="-", metavar="FILE", help="default: -, the standard input")


def _columns(table: str, first: str, second: str) -> tuple[list[str], list[str]]:
    """Return what the lines of a table have before and behind their first tab."""
    rows = []
    for number, line in enumerate(_lines(table), start=1):
        if not line.strip():
            continue
        left, _, right = line.partition("\t")
        if not left.strip() or not right.strip():
            raise ValueError(
                f"{_name(table)}, line {number}: expected {first}, a tab and {second}, "
                f"given {line!r:.60}"
            )
        rows.append((left.strip(), right.strip()))
    return [left for left, _ in rows], [right for _, right in rows]


def _answer(file: str, answers: Callable[[list[str]], Iterable[str]]) -> None:
    """Print an answer to each line of a file, and an empty line for a blank one."""
    lines = _lines(file)
    size = 1 if file == "-" and sys.stdin.isatty() else LINES
    while some := list(itertools.islice(lines, size)):
        found = iter(answers([line for line in some if line.strip()]))
        for line in some:
            print(next(found) if line.strip() else "", flush=True)


def _add_output(parser: argparse.ArgumentParser) -> None:
    """Add the file that training writes, and the seed that it begins with."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="the file to write, model.safetensors say")
    add("--seed", type=int, help="a number that makes the result repeatable")


def _train(options: argparse.Namespace) -> None:
    """Make a model, and say how to use it."""
    _fitted(options)
    print(f"Saved to {options.model}. Use it: fastgru {options.use.format(options.model)}")


def _fitted(options: argparse.Namespace) -> Any:
    """Return a model that has learned and that is saved, also where Ctrl-C ends all."""
    _check_output(options.model)
    model, *data = options.prepare(options)
    # Without a terminal fit prints its progress.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            model.fit(*data)
        except KeyboardInterrupt:
            if not (epochs := model._epochs()):
                raise KeyboardInterrupt(
                    "interrupted before the end of the first epoch, nothing is saved"
                ) from None
            model.save(options.model)
            many = f"{epochs} epochs" if epochs > 1 else "1 epoch"
            raise KeyboardInterrupt(f"interrupted after {many}, saved to {options.model}") from None
    model.save(options.model)
    return model


def _check_output(path: str) -> None:
    """Raise unless a file can be written: training may take hours until it is."""
    target = os.path.realpath(path)
    try:
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=os.path.dirname(target)):
            pass
    except OSError as error:
        raise OSError(
            f"MODEL: expected a file that can be written, given {path!r}: {error.strerror}"
        ) from error


def _add_train_classifier(kinds: Any) -> None:
    parser = kinds.add_parser(
        "classifier",
        help="from texts and their labels",
        description="Learn to label texts. Each line of the UTF-8 file is an example: a label, a "
        "tab, and a text. A tenth of them is held out to stop in time and to calibrate "
        f"probabilities. {INTERRUPT}",
    )
    parser.add_argument("table", metavar="TABLE", help=f"lines of label, tab, text; {INPUT}")
    _add_output(parser)
    parser.set_defaults(run=_train, prepare=_classifier, use="predict {}")


def _classifier(options: argparse.Namespace) -> tuple[Any, ...]:
    labels, texts = _columns(options.table, "a label", "a text")
    return fastgru.TextClassifier(seed=options.seed), texts, labels


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="label texts by a trained classifier",
        description="Label each line of a UTF-8 file: print the label, a tab, and how likely it "
        "is. If texts have several labels, print all that are more likely than not, the likeliest "
        "first: label, tab, probability, tab, label and so on, or an empty line if there is none. "
        "Blank lines become empty ones. MODEL comes from `fastgru train classifier`, or from "
        "TextClassifier.save in Python.",
    )
    parser.add_argument("model", metavar="MODEL", help="the file of a classifier")
    _add_file(parser)
    parser.add_argument("--explain", action="store_true", help="say what each word contributes")
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> None:
    model = fastgru.TextClassifier.load(options.model)

    def labels(texts: list[str]) -> Iterator[str]:
        probabilities = model.predict_proba(texts)
        for chosen, row, text in zip(model.predict(texts), probabilities, texts, strict=True):
            likely = dict(zip(model.classes_, row, strict=True))
            if isinstance(chosen, np.ndarray):
                chosen = [label for label, is_one in zip(likely, chosen, strict=True) if is_one]
            elif not isinstance(chosen, list):
                chosen = [chosen]
            chosen = sorted(chosen, key=likely.__getitem__, reverse=True)
            line = "\t".join(f"{label}\t{likely[label]:.3f}" for label in chosen)
            yield f"{line}\n{model.explain(text)}\n" if options.explain else line

    _answer(options.file, labels)


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of some options that were given."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _add_train_language(kinds: Any) -> None:
    parser = kinds.add_parser(
        "language",
        help="from a text",
        description="Train a language model from a UTF-8 file: how the text goes on, by "
        "characters or by words. A tenth, its end, is kept back to find the best epoch. "
        f"{INTERRUPT}",
    )
    parser.add_argument("text", metavar="TEXT", help=f"what to learn from; {INPUT}")
    _add_output(parser)
    _add_language(parser.add_argument)
    parser.set_defaults(run=_train, prepare=_language, use="generate {} PROMPT")


def _add_language(add: Any) -> None:
    """Add the settings of a language model."""
    add("--level", choices=("character", "word"), help="what to predict; default: character")
    add("--units", type=int, metavar="N", help="size of a layer; default: 256")
    add("--layers", type=int, metavar="N", help="default: 1")
    add("--dropout", type=float, metavar="X", help="more for larger models; default: 0.2")
    add("--epochs", type=int, metavar="N", help="passes over the text at most; default: 10")


def _language(options: argparse.Namespace) -> tuple[Any, ...]:
    settings = _given(options, *LANGUAGE, "seed")
    return fastgru.LanguageModel(**settings), list(_lines(options.text))


def _add_generate(commands: Any) -> None:
    """Add the command that writes texts."""
    parser = commands.add_parser(
        "generate",
        help="write more of a text, as a language model has learned it from one",
        description="Write more of a text: print what a language model makes of a prompt, as it "
        "comes. MODEL comes from `fastgru train language`, from LanguageModel.save in Python, or "
        "from here, with a text to learn from.",
        epilog="Example: fastgru generate plays.safetensors 'To be' --train shakespeare.txt",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="file of the model: read, or with --train written")
    add(
        "prompt",
        nargs="?",
        default="",
        metavar="PROMPT",
        help="how the text begins, - to read that from standard input; default: a new line",
    )
    add(
        "--length",
        type=int,
        default=500,
        metavar="N",
        help="characters to write, or words if the model works with words; default: 500",
    )
    add(
        "--temperature",
        type=float,
        metavar="X",
        help="below 1 safer, above 1 bolder, 0 always the likeliest; default: 1",
    )
    add("--top-k", type=int, metavar="K", help="draw among the K likeliest only")
    add("--top-p", type=float, metavar="P", help="draw among the likeliest that make up P only")
    add("--repetition-penalty", type=float, metavar="X", help="above 1 against repetitions")
    add(
        "--stop",
        metavar="TOKEN",
        help=r"end before this character or word (without its space); \n is a new line",
    )
    add("--seed", type=int, help="the same seed gives the same model and the same text")
    learning = parser.add_argument_group(
        "learning first", "As `fastgru train language` does. The others need --train."
    )
    learning.add_argument(
        "--train", dest="text", metavar="TEXT", help=f"what to learn from; {INPUT}"
    )
    _add_language(learning.add_argument)
    parser.set_defaults(run=_generate, prepare=_language)


def _generate(options: argparse.Namespace) -> None:
    if options.text == options.prompt == "-":
        raise ValueError("expected either the text to learn from or the prompt on standard input")
    settings = _given(options, *LANGUAGE)
    if options.text is not None:
        model = _fitted(options)
    elif settings:
        raise ValueError(f"--{next(iter(settings))}: expected beside --train only")
    else:
        model = fastgru.LanguageModel.load(options.model)
    prompt = "\n".join(_lines("-")) if options.prompt == "-" else options.prompt
    drawing = _given(options, "temperature", "top_k", "top_p", "repetition_penalty", "seed")
    stop = None if options.stop is None else options.stop.replace(r"\n", "\n")
    tokens = model.stream(prompt, options.length, **drawing, stop=stop)
    print(prompt, end="")
    for token in tokens:
        print(token, end="", flush=True)
    print()


def _add_train_speech(kinds: Any) -> None:
    parser = kinds.add_parser(
        "speech",
        help="from recordings and what is said in them",
        description="Train a speech recognizer from a UTF-8 file: each line has the path of a WAV "
        "file, relative to the folder of the table (or, from standard input, to the working one), "
        "a tab, and what is said in it. A tenth is kept back to find the best epoch. "
        f"{INTERRUPT}",
    )
    parser.add_argument("table", metavar="TABLE", help=f"lines of WAV file, tab, text; {INPUT}")
    _add_output(parser)
    parser.add_argument(
        "--level",
        choices=("word", "char"),
        default="word",
        help="recognise whole words, of which there must be few, or characters; default: word",
    )
    parser.add_argument(
        "--sample-rate", type=int, default=8000, help="Hz to work with; default: 8000"
    )
    parser.add_argument(
        "--forward",
        action="store_true",
        help="read forwards only: worse, but it can stream; recordings should end with silence",
    )
    add = parser.add_argument
    add("--units", type=int, help="size of the GRUs; default: 64, forwards 96")
    add("--epochs", type=int, help="passes at most; default: 10, forwards 20")
    parser.set_defaults(run=_train, prepare=_recognizer, use="transcribe {} FILE.wav")


def _recognizer(options: argparse.Namespace) -> tuple[Any, ...]:
    paths, texts = _columns(options.table, "a WAV file", "a text")
    waves = [Path(options.table).parent / path for path in paths]
    settings = _given(options, "level", "sample_rate", "units", "epochs", "seed")
    if options.forward:
        settings = fastgru.speech.forward_settings(options.level) | settings
    recognizer = fastgru.SpeechRecognizer(**settings)
    return recognizer, waves, texts


def _add_transcribe(commands: Any) -> None:
    parser = commands.add_parser(
        "transcribe",
        help="write down what is said in WAV files",
        description="Print a line for each WAV file: its name, a tab, and what is said in it; of "
        "the standard input, the text alone. Files that cannot be read are reported, the others "
        "go on, and the exit status is 1. MODEL comes from `fastgru train speech`, or from "
        "SpeechRecognizer.save in Python.",
    )
    parser.add_argument("model", metavar="MODEL", help="the file of a recognizer")
    parser.add_argument(
        "files", nargs="*", default=["-"], metavar="FILE", help="default: -, the standard input"
    )
    parser.add_argument(
        "--beam-size", type=int, default=8, help="1 is fastest, 8 a little better; default: 8"
    )
    parser.set_defaults(run=_transcribe)


def _transcribe(options: argparse.Namespace) -> int:
    recognizer = fastgru.SpeechRecognizer.load(options.model)
    status = 0
    for path in options.files:
        try:
            wave = path if path != "-" else _sound(recognizer.sample_rate)
            [text] = recognizer.transcribe([wave], options.beam_size)
        except (OSError, ValueError) as error:
            print(f"fastgru transcribe: {error}", file=sys.stderr)
            status = 1
            continue
        print(text if path == "-" else f"{path}\t{text}", flush=True)
    return status


def _sound(sample_rate: int) -> np.ndarray:
    """Return the samples of the WAV file on standard input."""
    sound = io.BytesIO(sys.stdin.buffer.read())
    sound.name = _name("-")
    samples, _ = fastgru.audio.read_wav(sound, sample_rate)
    return samples


def _add_train_translator(kinds: Any) -> None:
    parser = kinds.add_parser(
        "translator",
        help="from sentences and their translations",
        description="Train a translator from two UTF-8 files: each line of SOURCES is a sentence, "
        f"and the same line of TARGETS its translation. {INTERRUPT} What is best, --validation "
        "tells; without it, it is what was learned last.",
    )
    parser.add_argument("sources", metavar="SOURCES", help=f"sentences; {INPUT}")
    parser.add_argument("targets", metavar="TARGETS", help=f"their translations; {INPUT}")
    _add_output(parser)
    parser.add_argument(
        "--validation",
        nargs=2,
        metavar=("SOURCES", "TARGETS"),
        help="two other such files, by which the best epoch is chosen",
    )
    parser.add_argument("--epochs", type=int, default=10, help="passes over the files; default: 10")
    parser.add_argument("--units", type=int, default=384, help="size of the GRUs; default: 384")
    parser.add_argument("--min-count", type=int, default=2, help="of words to know; default: 2")
    parser.set_defaults(run=_train, prepare=_translator, use="translate {}")


def _translator(options: argparse.Namespace) -> tuple[Any, ...]:
    translator = fastgru.Translator(
        units=options.units,
        epochs=options.epochs,
        min_count=options.min_count,
        seed=options.seed,
    )
    files = [options.sources, options.targets, *(options.validation or [])]
    if files.count("-") > 1:
        raise ValueError("expected one of the files at most on standard input")
    held = _pairs(*options.validation) if options.validation else None
    return translator, *_pairs(options.sources, options.targets), held


def _pairs(sources: str, targets: str) -> tuple[list[str], list[str]]:
    """Return the lines of two files: none is blank, and there are as many."""
    sides: list[list[str]] = []
    for file in (sources, targets):
        sides.append(list(_lines(file)))
        for number, line in enumerate(sides[-1], start=1):
            if not line.strip():
                raise ValueError(
                    f"{_name(file)}, line {number}: expected a sentence, given {line!r}"
                )
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{_name(targets)}: expected {len(sides[0])} lines, as many as {_name(sources)} has, "
            f"given {len(sides[1])}"
        )
    return sides[0], sides[1]


def _add_translate(commands: Any) -> None:
    parser = commands.add_parser(
        "translate",
        help="translate lines of text by a trained translator",
        description="Translate each line of a UTF-8 file, or of the standard input, to a line of "
        "the standard output. Blank lines become empty ones. MODEL comes from `fastgru train "
        "translator`, or from Translator.save in Python.",
    )
    parser.add_argument("model", metavar="MODEL", help="the file of a translator")
    _add_file(parser)
    parser.add_argument(
        "--beam-size", type=int, default=5, help="1 is fastest, 5 a little better; default: 5"
    )
    parser.set_defaults(run=_translate)


def _translate(options: argparse.Namespace) -> None:
    translator = fastgru.Translator.load(options.model)
    _answer(options.file, lambda texts: translator.translate(texts, options.beam_size))


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench", help="run `python -m bench`, in the folder of fastgru's sources", add_help=False
    )
    parser.in_order = True
    parser.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> int:
    if not Path("bench", "registry.py").is_file():
        raise ValueError("expected the folder of fastgru's sources to be the working folder")
    return subprocess.call([sys.executable, "-m", "bench", *options.arguments])


if __name__ == "__main__":
    raise SystemExit(main())
