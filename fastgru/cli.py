"""The command ``fastgru``: what it runs on, compiling ahead of time, and the applications."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastgru


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="fastgru", description=fastgru.__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=fastgru.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="print versions, CPU, threads and the kernels' folder")
    warmup = commands.add_parser("warmup", help="compile all kernels now, into the disk cache")
    warmup.add_argument(
        "--dtype", action="append", choices=("float32", "float64"), help="default: both"
    )
    _add_generate(commands)
    options = parser.parse_args(arguments)
    if "run" in options:
        try:
            options.run(options)
        except (OSError, ValueError) as error:
            print(f"fastgru {options.command}: {error}", file=sys.stderr)
            return 1
    elif options.command == "info":
        fastgru.show_config()
    else:
        start = time.perf_counter()
        fastgru.warmup(options.dtype or ("float32", "float64"))
        print(f"All kernels are compiled: {time.perf_counter() - start:.1f} s.")
        fastgru.show_config()
    return 0


def _text(path: str) -> str:
    """Return what a file in UTF-8 holds, or standard input if it is called "-"."""
    return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of some options that were given."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _add_generate(commands: Any) -> None:
    """Add the command that writes texts."""
    parser = commands.add_parser(
        "generate",
        help="write more of a text, as a language model has learned it from one",
        description="Write more of a text: print what a language model makes of a prompt, as it "
        "comes. To make a model first, give it a text to learn from with --train.",
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
    add("--stop", metavar="TOKEN", help=r"end before this character or word; \n is a new line")
    add("--seed", type=int, help="the same seed gives the same model and the same text")
    train = parser.add_argument_group("learning first").add_argument
    train("--train", metavar="FILE", help="a text in UTF-8 to learn from, - for standard input")
    train("--level", choices=("character", "word"), help="what to predict; default: character")
    train("--units", type=int, metavar="N", help="size of a layer; default: 256")
    train("--layers", type=int, metavar="N", help="default: 1")
    train("--dropout", type=float, metavar="X", help="more for larger models; default: 0.2")
    train("--epochs", type=int, metavar="N", help="passes over the text at most; default: 10")
    parser.set_defaults(run=_generate)  # fmt: skip


def _generate(options: argparse.Namespace) -> None:
    if options.train == options.prompt == "-":
        raise ValueError("expected either the text to learn from or the prompt on standard input")
    if options.train is not None:
        settings = _given(options, "level", "units", "layers", "dropout", "epochs", "seed")
        model = fastgru.LanguageModel(**settings).fit(_text(options.train))
        model.save(options.model)
    else:
        model = fastgru.LanguageModel.load(options.model)
    prompt = _text("-").removesuffix("\n") if options.prompt == "-" else options.prompt
    drawing = _given(options, "temperature", "top_k", "top_p", "repetition_penalty", "stop", "seed")
    if "stop" in drawing:
        drawing["stop"] = drawing["stop"].replace(r"\n", "\n")
    tokens = model.stream(prompt, options.length, **drawing)
    print(prompt, end="")
    for token in tokens:
        print(token, end="", flush=True)
    print()


if __name__ == "__main__":
    raise SystemExit(main())
