"""Work that several threads do in turns: shared parts, and between them a part for one alone.

A sequence of batch size 1 has a product with all recurrent weights in every step, which threads can
share by columns, and then the gates, which need every column. So the work is a row of phases. A
phase has chunks, which workers claim one by one, their own share first and then what others have
left; whoever finishes the last chunk does what must come before the next phase, and opens it.

Nothing here waits for a thread that has not begun: one worker alone gets through all phases, so
this is safe with every threading layer, and a thread that the system has put to sleep holds up the
others with no more than the one chunk it has claimed.

All numbers only grow, so a worker that comes late finds its phase over and claims nothing. They lie
in one array of int64, one per cache line: how many chunks are done, which phase is open, and for
each worker how many chunks of its share are claimed (with the phase in the upper half).
"""

from __future__ import annotations

import math

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from fastgru.kernels.arrays import aligned_empty
from fastgru.kernels.gemm import product
from fastgru.kernels.jit import inline, part
from fastgru.kernels.simd import lanes, larger, smaller
from fastgru.kernels.system import relax, yield_core
from fastgru.kernels.threads import get_num_threads, number_of_workers

LINE = 8  # int64 per cache line
DONE, OPEN, CLAIMED = 0, LINE, 2 * LINE

CHUNKS = 1  # of each worker's share: with more of them the workers meet more often
# How often to look before helping others with their shares, and before leaving the core to them.
PATIENCE = 64
YIELD_AFTER = 2000


# With so few rows threads share the columns of each step's product, if it is large enough: to agree
# takes them some 0.3 us, and two rows that are not shared have a thread each.
LEAST_FLOPS_OF_A_STEP = {1: 20_000, 2: 150_000, 3: 400_000}


def split(rows: int, steps: int, flops_of_a_step: int) -> tuple[int, np.ndarray]:
    """Return how many workers can share a recurrence, and their `progress`: none if by rows."""
    if flops_of_a_step >= LEAST_FLOPS_OF_A_STEP.get(rows, math.inf):
        workers = number_of_workers(get_num_threads(), steps * flops_of_a_step)
        if workers > 1:
            return workers, progress_of(workers)
    return rows, ALONE


def progress_of(workers: int) -> np.ndarray:
    """Return what `workers` workers share: the state before the first phase."""
    progress = aligned_empty((CLAIMED + workers * LINE,), np.int64)
    progress[:] = 0
    return progress


ALONE = np.empty(0, np.int64)


# ---- atomic operations


def _address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def atomic_load(typingctx, array, index):
    """Read a number, and all that was written before it was."""

    def codegen(context, builder, sig, args):
        address = _address(context, builder, sig.args[0], *args)
        return builder.load_atomic(address, "acquire", 8)

    return types.int64(array, types.intp), codegen


@intrinsic
def atomic_store(typingctx, array, index, value):
    """Write a number, after all that was written before."""

    def codegen(context, builder, sig, args):
        address = _address(context, builder, sig.args[0], *args[:2])
        builder.store_atomic(args[2], address, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def atomic_add(typingctx, array, index, value):
    """Add to a number; return what it was."""

    def codegen(context, builder, sig, args):
        address = _address(context, builder, sig.args[0], *args[:2])
        return builder.atomic_rmw("add", address, args[2], "acq_rel")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def compare_and_swap(typingctx, array, index, expected, new):
    """Write a number if it is the expected one; return what it was."""

    def codegen(context, builder, sig, args):
        address = _address(context, builder, sig.args[0], *args[:2])
        pair = builder.cmpxchg(address, args[2], args[3], "acq_rel", "acquire")
        return builder.extract_value(pair, 0)

    return types.int64(array, types.intp, types.int64, types.int64), codegen


# ---- phases


@part
def _claim(progress, phase, owner, count):
    """Return the number of the next chunk of a worker's share, or -1 if none is left."""
    at = CLAIMED + owner * LINE
    begin = phase << 32
    seen = atomic_load(progress, at)
    while seen < begin + count:
        now = larger(seen, begin)
        found = compare_and_swap(progress, at, seen, now + 1)
        if found == seen:
            return now - begin
        seen = found
    return -1


@inline
def _is_over(progress, phase):
    return atomic_load(progress, OPEN) > phase


@part
def shared_product(
    progress, phase, worker, workers, rows, columns, K, a, a_row, a_k, b, start, start_row, c, c_row
):
    """Compute C = start + A @ B, as `product` does, together with the other workers of a phase.

    Returns whether this worker is the one that goes on: with what needs the whole of C, and then
    with `release`. All of them go on to `follow`. Without `progress` a worker is alone.
    """
    backwards = phase % 2 == 1
    if progress.size == 0:
        product(rows, columns, K, a, a_row, a_k, b, start, start_row, c, c_row, backwards)
        return True
    width = 2 * lanes(c)
    panels = (columns + width - 1) // width
    chunks = CHUNKS * workers
    for i in range(workers):
        if i == 1:
            # The others are about to finish, unless the system has put them to sleep.
            looks = 0
            while looks < PATIENCE and not _is_over(progress, phase):
                relax()
                looks += 1
            if _is_over(progress, phase):
                return False
        owner = (worker + i) % workers
        while True:
            k = _claim(progress, phase, owner, CHUNKS)
            if k < 0:
                break
            chunk = owner * CHUNKS + k
            panel = panels * chunk // chunks
            first, end = panel * width, smaller(panels * (chunk + 1) // chunks * width, columns)
            if first < end:
                product(
                    rows, end - first, K, a, a_row, a_k, b + panel * K * width,
                    start + first, start_row, c + first, c_row, backwards,
                )  # fmt: skip
            if atomic_add(progress, DONE, 1) + 1 == (phase + 1) * chunks:
                return True
    return False


@part
def lead(progress, phase, workers):
    """Return whether this worker is the one that does the work of a phase without a product."""
    if progress.size == 0:
        return True
    if _claim(progress, phase, 0, 1) < 0:
        return False
    atomic_add(progress, DONE, CHUNKS * workers)
    return True


@inline
def release(progress, phase):
    """Let all workers begin the phase that follows this one."""
    if progress.size > 0:
        atomic_store(progress, OPEN, phase + 1)


@part
def follow(progress, phase):
    """Wait until the phase that follows this one may begin, and return its number."""
    if progress.size > 0:
        looks = 0
        while not _is_over(progress, phase):
            relax()
            looks += 1
            if looks > YIELD_AFTER:
                yield_core()
    return phase + 1
