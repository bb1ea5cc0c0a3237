"""Showing how training goes: a bar in a terminal or a notebook, lines in a pipe, or nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

Measure = Callable[[], dict[str, float]]


def _text(measured: dict[str, float]) -> str:
    return " - ".join(f"{name}: {value:.4g}" for name, value in measured.items())


def checked(verbose: Any) -> Any:
    """Return `verbose`, or raise unless it is 0, 1, 2 or "auto"."""
    if verbose not in (0, 1, 2, "auto"):
        raise ValueError(f"verbose: expected 0, 1, 2 or 'auto', given {verbose!r}")
    return verbose


class Silent:
    """Show nothing; what the others share."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def begin(self, epoch: int, samples: int | None) -> None:
        """Begin an epoch of so many samples, None if nobody knows."""

    def advance(self, samples: int, measure: Measure) -> None:
        """Note that so many more samples have been trained on."""

    def end(self, measured: dict[str, float]) -> None:
        """End an epoch with what it measured."""

    def close(self) -> None:
        """Leave the screen tidy, also when training was interrupted."""


class Lines(Silent):
    """Print one line per epoch."""

    def begin(self, epoch: int, samples: int | None) -> None:
        """Begin an epoch."""
        self.title = f"Epoch {epoch + 1}/{self.epochs}"
        self.samples = 0
        self.start = time.perf_counter()
        self.seconds = 0.0

    def advance(self, samples: int, measure: Measure) -> None:
        """Note the time: what follows the last batch is validation, not training."""
        self.samples += samples
        self.seconds = time.perf_counter() - self.start

    def end(self, measured: dict[str, float]) -> None:
        """Print the line."""
        rate = self.samples / max(self.seconds, 1e-9)
        print(f"{self.title} - {_text(measured)} - {rate:.0f} samples/s", flush=True)


def _bar(samples: int | None, **options: Any) -> Any:
    """Return a bar of tqdm for so many samples, None if nobody knows."""
    # Without ipywidgets tqdm.auto takes this one, too, but warns in a notebook before.
    if find_spec("ipywidgets") is None:
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    width: dict[str, Any] = {"dynamic_ncols": True}
    with suppress(OSError):  # no terminal
        if not os.get_terminal_size(sys.stderr.fileno()).columns:
            width = {"ncols": 79, "nrows": 24}  # as under `script`; tqdm would cut off all
    return tqdm(total=samples, unit=" samples", **width, **options)


class Bar(Lines):
    """Draw a bar with tqdm, which knows terminals and notebooks; a line takes its place."""

    REFRESH_S = 0.1

    def begin(self, epoch: int, samples: int | None) -> None:
        """Draw an empty bar."""
        super().begin(epoch, samples)
        # Terminals of 80 columns have room for the measures where the rate is left to the line.
        short = None if samples is None else "{desc} {percentage:3.0f}%|{bar}| {remaining}{postfix}"
        self.bar = _bar(samples, desc=self.title, bar_format=short)
        self.shown = time.perf_counter()

    def advance(self, samples: int, measure: Measure) -> None:
        """Move the bar; the numbers beside it are renewed ten times a second, not more."""
        super().advance(samples, measure)
        self.bar.update(samples)
        now = time.perf_counter()
        if now - self.shown > self.REFRESH_S:
            self.bar.set_postfix_str(_text(measure()), refresh=False)
            self.shown = now

    def end(self, measured: dict[str, float]) -> None:
        """Print the line in place of the bar: no terminal is too narrow for it."""
        self.bar.leave = False
        self.bar.close()
        super().end(measured)

    def close(self) -> None:
        """Close a bar that was interrupted."""
        if hasattr(self, "bar"):
            self.bar.close()


def watched(batches: Iterable[Any], samples: int | None, verbose: Any) -> Iterator[Any]:
    """Yield batches, with a bar of the samples done, of so many, if `verbose` is 1.

    Raises
    ------
    ValueError
        If `verbose` is not 0, 1, 2 or "auto"; all but 1 are silent here.
    """
    if checked(verbose) != 1:
        yield from batches
        return
    with _bar(samples) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.x))


def chosen(verbose: Any, epochs: int) -> Silent:
    """Return what shows the progress of so many epochs.

    Raises
    ------
    ValueError
        If `verbose` is not 0, 1, 2 or "auto".
    """
    if checked(verbose) == "auto":
        verbose = 1 if sys.stderr.isatty() or "ipykernel" in sys.modules else 2
    return (Silent, Bar, Lines)[int(verbose)](epochs)
