"""Caps and fixtures for all tests."""

import os

# Before Numba is imported: two threads on every machine, so that "parallel" means it on one core
# and a large machine does not spend its time on starting threads. NumPy's own pool stays out.
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("fastgru", deadline=None, derandomize=True)
settings.load_profile("fastgru")


@pytest.fixture
def rng(request):
    """Random numbers that are the same in every run, and others in every test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.rpartition("::")[2].encode()))


@pytest.fixture
def threads(monkeypatch):
    """The module `threads`, where even tiny work is big enough; restored after the test.

    It begins with one thread: entering the parallel driver for tiny work takes most of the time.
    """
    from fastgru.kernels import threads

    monkeypatch.setattr(threads, "LEAST_FLOPS", 1)
    monkeypatch.setattr(threads, "_num_threads", 1)
    return threads


@pytest.fixture
def killed_while_writing(monkeypatch):
    """A function that leaves what a process does which is killed while it writes a file."""
    from fastgru.files import write_atomically

    def leave(path):
        with monkeypatch.context() as patch:
            # A process that is killed neither renames nor removes.
            patch.setattr(os, "replace", lambda source, target: 1 / 0)
            patch.setattr(Path, "unlink", lambda self, missing_ok: None)
            with pytest.raises(ZeroDivisionError):
                write_atomically(path, b"new")

    return leave
