"""What the command lines of the examples share: options are refused before a training."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path


def positive(text: str) -> int:
    """Return an integer of 1 or more, or refuse the argument."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, given {number}")
    return number


def natural(text: str) -> int:
    """Return an integer of 0 or more, or refuse the argument."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, given {number}")
    return number


def fraction(text: str) -> float:
    """Return a number in [0, 1), or refuse the argument."""
    if not 0 <= (number := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a number in [0, 1), given {number}")
    return number


def amount(text: str) -> float:
    """Return a number >= 0, or refuse the argument."""
    if not 0 <= (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number >= 0, given {number}")
    return number


def above_zero(text: str) -> float:
    """Return a number > 0, or refuse the argument."""
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number > 0, given {number}")
    return number


def output(text: str) -> str:
    """Return the path of a file that can be written, or refuse the argument."""
    target = os.path.realpath(text)
    try:
        # Both are tried: a model takes the place of an old file, a picture is written into it.
        tempfile.TemporaryFile(dir=os.path.dirname(target)).close()
        if os.path.exists(target):
            open(target, "ab").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"expected a file that can be written, given {text!r}: {error.strerror}"
        ) from None
    return text


def check_outputs(
    parser: argparse.ArgumentParser, pictures: Sequence[str | None], file: str | None = None
) -> None:
    """Refuse pictures that matplotlib could not draw, and one path for two of the outputs."""
    wanted = [path for path in pictures if path]
    outputs = [*wanted, *([file] if file else [])]
    if len(set(map(os.path.realpath, outputs))) < len(outputs):
        parser.error(f"expected a file of its own for each output, given {outputs}")
    if not wanted:
        return
    if find_spec("matplotlib") is None:
        parser.error("to draw, expected matplotlib: pip install 'fastgru[plot]'")
    from matplotlib.backend_bases import FigureCanvasBase

    endings = FigureCanvasBase.get_supported_filetypes()
    for path in wanted:
        if Path(path).suffix[1:].lower() not in endings:
            parser.error(
                f"expected a picture ending in one of {', '.join(endings)}, given {path!r}"
            )
