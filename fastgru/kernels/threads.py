"""How many threads, and when to use them.

A parallel driver is entered only where that is safe and pays. GNU OpenMP kills a forked child that
enters one, and two at once would only fight for the cores. Everywhere else the serial worker runs
on the caller's own thread, without the GIL and with the same bits.

Numba's `workqueue` layer, the one that is there when no OpenMP and no TBB is, aborts the process
when two Python threads are in any parallel code at the same time, be it the user's own. There the
workers run on a few Python threads of ours instead.

There is one parallel driver for all kernels, compiled once. It calls the compiled worker by its
address: were the worker merged into the driver, LLVM would compile it four times over, some 3 s for
each kernel; and were its arguments passed through, the driver for each kernel's, 0.6 s.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numba
from numba import prange

from fastgru.kernels.handover import call_share, hand_over
from fastgru.kernels.jit import address_of, jit
from fastgru.kernels.recording import current
from fastgru.kernels.system import current_core, leave_core, this_thread

# Work below this stays on the caller's thread: some 80 us at 100 GFLOP/s. A thread that is awake
# takes 5 us to come and help, but one that sleeps, as after a pause of the caller's, some 500.
LEAST_FLOPS = 8_000_000

# How often a thread of GNU OpenMP looks for work before it sleeps: a millisecond long. With 40 us
# calls of 0.7 ms took as long as with one thread, in the median: the other one was asleep.
SPINS = 50_000

# What waking a Python thread takes in addition, where workers run on those.
LEAST_FLOPS_OF_PYTHON_THREADS = 2 * LEAST_FLOPS

_region = threading.Lock()
_forked = False
_num_threads: int | None = None
_pool: ThreadPoolExecutor | None = None


class _Forced(threading.local):
    """How many workers all work of a thread is shared out to; None: as many as pay."""

    workers: int | None = None


_forced = _Forced()


def _after_fork() -> None:
    global _forked, _region, _pool
    _forked = True
    _region = threading.Lock()
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _cgroup_quota(root: Path = Path("/"), pid: str = "self") -> float:
    """Return how many CPUs the control groups of this process allow, version 1 or 2."""
    quota = math.inf
    try:
        lines = (root / "proc" / pid / "cgroup").read_text().splitlines()
    except OSError:
        return quota
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controllers:
            if "cpu" not in controllers.split(","):
                continue
            mount = mount / "cpu"
        # A limit on any enclosing group counts as well; inside a container the path may be the
        # host's, and only the mount itself is there.
        parts = Path(path.lstrip("/")).parts
        for folder in (mount.joinpath(*parts[:n]) for n in range(len(parts) + 1)):
            quota = min(quota, _quota_of(folder))
    return quota


def _quota_of(folder: Path) -> float:
    """Return the CPUs that one control group allows."""
    try:
        limit, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    known = limit.isdigit() and period.isdigit() and int(period) > 0
    return int(limit) / int(period) if known else math.inf  # "max" and "-1": no limit


def _environment(name: str) -> int | None:
    value = os.environ.get(name, "").split(",")[0].strip()
    return int(value) if value.isdigit() and int(value) > 0 else None


def default_num_threads() -> int:
    """Return the CPUs this process may use, or what the environment says.

    FASTGRU_NUM_THREADS decides alone. Else NUMBA_NUM_THREADS and OMP_NUM_THREADS, the affinity
    mask and the control groups' quota are upper bounds; a worker process of another pool gets one.

    Raises
    ------
    ValueError
        If FASTGRU_NUM_THREADS is set to something else than a positive integer.
    """
    wanted = _environment("FASTGRU_NUM_THREADS")
    if wanted:
        return wanted
    if os.environ.get("FASTGRU_NUM_THREADS"):
        raise ValueError(
            "FASTGRU_NUM_THREADS: expected a positive integer, "
            f"given {os.environ['FASTGRU_NUM_THREADS']!r}"
        )
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    bounds = [cpus, max(1, math.ceil(min(_cgroup_quota(), cpus)))]
    bounds += [n for n in map(_environment, ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")) if n]
    return min(bounds)


def get_num_threads() -> int:
    """Return how many threads the kernels may use."""
    global _num_threads
    if _num_threads is None:
        _num_threads = default_num_threads()
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set how many threads the kernels may use; results do not depend on it.

    Raises
    ------
    ValueError
        If `n` is not a positive integer.
    """
    global _num_threads
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n: expected a positive integer, given {n!r}")
    _num_threads = n


@contextlib.contextmanager
def always_sharing(sharing: bool) -> Iterator[None]:
    """Inside, all work of this thread is shared out to two workers, or none: to compile both."""
    _forced.workers = 2 if sharing else 1
    try:
        yield
    finally:
        _forced.workers = None


def number_of_workers(shares: int, flops: int) -> int:
    """Return how many workers a piece of work pays for."""
    forced = _forced.workers
    if forced is not None:
        return min(shares, forced)
    if flops < LEAST_FLOPS:
        return 1
    return min(get_num_threads(), shares, 1 + flops // LEAST_FLOPS)


@jit(parallel=True)
def _drive(share, block, workers, caller):
    """Run one share on each of Numba's threads: see `handover`.

    A thread that was asleep often wakes up on the core of the one that woke it, and would stay
    there for milliseconds, until the system moves it to a free one: so it goes there itself.
    """
    core, thread = current_core(), this_thread()
    for worker in prange(workers):
        if current_core() == core and this_thread() != thread:
            leave_core(core, caller)
        call_share(share, block, worker, workers)


def share_out(worker: Any, arguments: tuple[Any, ...], shares: int, flops: int) -> None:
    """Call `worker(*arguments, i, n)` for i in range(n), in parallel where that is safe and pays.

    `worker` is a `@jit` kernel that computes share i of n; `shares` is the largest useful n and
    `flops` the size of the whole work.
    """
    workers = number_of_workers(shares, flops)
    if current.recording is not None:
        is_small = workers < 2 and flops < LEAST_FLOPS
        current.recording.note_kernel(worker, arguments, is_small)
    if workers < 2 or _forked or not _region.acquire(blocking=False):
        worker(*arguments, 0, 1)
        return
    try:
        if _is_safe_beside_other_parallel_code():
            failed = _enter(address_of(worker, (*arguments, 0, 1)), arguments, workers)
        elif flops < LEAST_FLOPS_OF_PYTHON_THREADS:
            failed = worker(*arguments, 0, 1)
        else:
            failed = _enter_python_threads(worker, arguments, workers)
    finally:
        _region.release()
    if failed:
        raise MemoryError("a kernel could not allocate its work space")


def _enter(address: int, arguments: tuple[Any, ...], workers: int) -> int:
    """Run the driver on `workers` of Numba's threads."""
    drive, caller = address_of(_drive, (0, 0, 0, 0)), threading.get_native_id()
    if workers >= numba.config.NUMBA_NUM_THREADS:
        return hand_over(drive, address, workers, caller, *arguments)
    before = numba.get_num_threads()
    numba.set_num_threads(workers)
    try:
        return hand_over(drive, address, workers, caller, *arguments)
    finally:
        numba.set_num_threads(before)


@functools.cache
def _is_safe_beside_other_parallel_code() -> bool:
    """Whether two threads may be in parallel code at once, with the layer that Numba chose."""
    _start_threads()
    return numba.threading_layer() != "workqueue"


def _start_threads() -> None:
    """Start Numba's threads, with a GNU OpenMP that waits patiently.

    By itself it lets a thread that waits for the others spin for milliseconds. Where cores are
    shared with other processes, the system then takes them away for as long, just when the work is
    done: calls of 0.2 ms took 16 ms. It reads the variable once, while it is loaded.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        numba.get_num_threads()
        return
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    try:
        numba.get_num_threads()
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def _enter_python_threads(worker: Any, arguments: tuple[Any, ...], workers: int) -> None:
    """Run the worker on this thread and on Python threads of our own; none holds the GIL."""
    global _pool
    if _pool is None or _pool._max_workers < workers - 1:
        if _pool is not None:
            _pool.shutdown(wait=False)
        _pool = ThreadPoolExecutor(workers - 1, thread_name_prefix="fastgru")
    others = [_pool.submit(worker, *arguments, i, workers) for i in range(1, workers)]
    try:
        worker(*arguments, 0, workers)
    finally:
        # Even after a KeyboardInterrupt: they write to the caller's arrays.
        wait(others)
    for other in others:
        other.result()
