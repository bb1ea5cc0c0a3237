"""A lock that copies, pickles and forked children find open."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any


class Lock:
    """Lets one thread at a time into a ``with some_lock.now:`` block.

    A forked child has no thread but the one that forked: a plain lock that another one held would
    stay closed in it forever.
    """

    def __init__(self) -> None:
        self.now = threading.Lock()
        _locks.add(self)

    def __reduce__(self) -> Any:
        """Copy and pickle as a new lock."""
        return Lock, ()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in _locks:
        lock.now = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
