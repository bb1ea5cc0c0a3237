"""Fresh processes: what they return, and what becomes of those that fail or hang."""

from __future__ import annotations

import os
import time

import pytest

from bench import processes


def add(a, b):
    print("something else on the way")
    return {"sum": a + b}


def fail():
    raise OSError("no luck")


def hang():
    print("began", flush=True)
    time.sleep(600)


def settings():
    return {name: os.environ.get(name) for name in ("FASTGRU_NUM_THREADS", "NUMBA_NUM_THREADS")}


def test_a_function_is_called_in_another_process():
    assert processes.call(add, 2, 3, threads=1, timeout=60) == {"sum": 5}


def test_a_child_that_fails_is_reported_with_what_it_said():
    with pytest.raises(processes.ChildError, match="ended with 1(.|\n)*OSError: no luck"):
        processes.call(fail, threads=1, timeout=60)


def test_a_child_that_hangs_is_ended_and_reported():
    process = processes.start_call(hang, threads=1)
    with pytest.raises(processes.ChildError, match=r"not done after 3 s: began"):
        processes.result_of(process, timeout=3)
    assert process.returncode is not None


def test_children_choose_their_own_threads_within_the_bound(monkeypatch):
    monkeypatch.setenv("FASTGRU_NUM_THREADS", "7")
    got = processes.call(settings, threads=3, timeout=60)
    assert got == {"FASTGRU_NUM_THREADS": None, "NUMBA_NUM_THREADS": "3"}
