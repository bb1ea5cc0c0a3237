"""Calls that are noted while they are made, and made again all at once.

A step of training on a small batch takes as long in Python, and in what Numba does with every array
among the arguments, as in its kernels. If the next batch has the same shape, the same calls come
again; and if they come with the same memory, addresses are all that has to be handed on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastgru.kernels.handover import FAILED, Share, call_share, has_failed, only_share
from fastgru.kernels.jit import jit


class Recording:
    """The calls that a thread has made inside `recorded`, in their order.

    Attributes
    ----------
    is_small : bool
        Whether none of the kernels among them is work for several threads.
    """

    def __init__(self) -> None:
        self.is_small = True
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], bool]] = []
        self._runs: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def note(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Note a call."""
        self._calls.append((function, arguments, False))

    def note_kernel(self, worker: Any, arguments: tuple[Any, ...], is_small: bool) -> None:
        """Note a call `worker(*arguments, 0, 1)`."""
        self.is_small &= is_small
        self._calls.append((worker, arguments, True))

    def prepare(self) -> None:
        """Compile what is needed to make the calls again: kernels that follow each other as one."""
        shares: list[Share] = []
        for function, arguments, is_kernel in self._calls:
            if is_kernel:
                shares.append(only_share(function, arguments))
                continue
            self._add(shares)
            shares = []
            self._runs.append((function, arguments))
        self._add(shares)
        self._calls.clear()

    def _add(self, shares: list[Share]) -> None:
        if shares:
            places = np.array([share[:2] for share in shares], np.int64)
            self._runs.append((_run, (places, shares)))

    def replay(self) -> None:
        """Make all calls again; what they take and give are the arrays of the first time."""
        for function, arguments in self._runs:
            function(*arguments)


def _run(places: np.ndarray, shares: list[Share]) -> None:
    if _run_shares(places):
        for share in shares:
            share.kept[0][FAILED] = 0
        raise MemoryError("a kernel could not allocate its work space")


class _Current(threading.local):
    """What notes the calls of a thread."""

    recording: Recording | None = None


current = _Current()


@contextlib.contextmanager
def recorded() -> Iterator[Recording]:
    """Inside, note the calls of this thread that go by way of `share_out` and `perform`."""
    noted = current.recording = Recording()
    try:
        yield noted
    finally:
        current.recording = None


def perform(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function that writes to some of its arguments, and note that."""
    if current.recording is not None:
        current.recording.note(function, arguments)
    function(*arguments)


def replay(noted: Recording) -> None:
    """Make the calls that were `noted` again, once they are prepared."""
    noted.replay()


@jit
def _run_shares(shares):
    """Run the only share of each block; return how many of them have failed."""
    failed = 0
    for i in range(shares.shape[0]):
        call_share(shares[i, 0], shares[i, 1], 0, 1)
        failed += has_failed(shares[i, 1])
    return failed
