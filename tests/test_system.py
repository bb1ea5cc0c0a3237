"""What kernels ask of the operating system."""

import os
import threading

import numba
import pytest

from fastgru.kernels import system
from fastgru.kernels.system import current_core, leave_core, this_thread

needs_moving = pytest.mark.skipif(not system.CAN_MOVE, reason="threads cannot be moved here")


@numba.njit
def where():
    return current_core(), this_thread()


@numba.njit
def leave(core, owner):
    leave_core(core, owner)
    return current_core()


@needs_moving
def test_a_thread_knows_its_core_and_itself():
    core, thread = where()
    assert core in os.sched_getaffinity(0) and where()[1] == thread
    others = []
    other = threading.Thread(target=lambda: others.append(where()[1]))
    other.start()
    other.join()
    assert others != [thread]


@needs_moving
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core")
def test_a_thread_leaves_a_core_and_may_use_all_of_them_afterwards():
    allowed = os.sched_getaffinity(0)
    moved = []

    def work(owner):
        for core in sorted(allowed)[:2] * 3:
            os.sched_setaffinity(0, {core})
            moved.append(leave(core, owner) != core)
            moved.append(os.sched_getaffinity(0) == allowed)

    thread = threading.Thread(target=work, args=(threading.get_native_id(),))
    thread.start()
    thread.join()
    assert moved == [True] * 12
    assert os.sched_getaffinity(0) == allowed


@needs_moving
def test_a_thread_stays_where_there_is_no_other_core():
    core = min(os.sched_getaffinity(0))
    seen = []

    def work():
        os.sched_setaffinity(0, {core})
        seen.append(leave(core, threading.get_native_id()))
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [core, {core}]


@needs_moving
@pytest.mark.parametrize("core", [-1, 1023, 1024, 10**6])
def test_a_core_that_there_is_not_does_no_harm(core):
    allowed = os.sched_getaffinity(0)
    assert leave(core, threading.get_native_id()) in allowed
    assert os.sched_getaffinity(0) == allowed
