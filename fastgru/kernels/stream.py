"""One step of a recurrence at a time, in memory that stays: nothing is allocated.

A call from Python takes as long as a step of 64 units, so a step takes as few arguments as it can:
`sizes`, the packed weights, and `memory`, which holds input, state and scratch. Compiled code can
call it as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from fastgru.kernels.arrays import ALIGNMENT, aligned_empty
from fastgru.kernels.gemm import padded, product, whole_panels
from fastgru.kernels.gru import _reset_before, _step_reset_after, _step_reset_before
from fastgru.kernels.jit import jit
from fastgru.kernels.names import SIGMOID, TANH
from fastgru.kernels.recurrence import Packed
from fastgru.kernels.simd import pointer
from fastgru.kernels.threads import LEAST_FLOPS, share_out


class GRUStream(NamedTuple):
    """What a stream of steps works on; made by `open_gru_stream`.

    `sizes` holds B, I, H, reset_after and the codes of the two activations; `memory` all arrays, of
    which `x` (B, I), the input of the next step, and `h` (B, H), the state, are views.
    """

    sizes: np.ndarray
    weights: np.ndarray
    memory: np.ndarray
    x: np.ndarray
    h: np.ndarray


@register_jitable
def _lines(n, itemsize):
    """Round a number of elements up to whole cache lines."""
    return -(-n * itemsize // ALIGNMENT) * ALIGNMENT // itemsize


def open_gru_stream(
    batch: int,
    weights: Packed,
    *,
    recurrent_activation: int = SIGMOID,
    activation: int = TANH,
) -> GRUStream:
    """Make what `gru_stream` works on, for a batch of streams, with a state of zeros.

    Parameters
    ----------
    batch : int
        Number of streams, B.
    weights : Packed
    recurrent_activation, activation : int
        Indices into ACTIVATIONS.
    """
    dtype, I, H = weights.forward.dtype, weights.inputs, weights.units
    codes = int(not weights.held), recurrent_activation, activation
    sizes = np.array([batch, I, H, *codes], np.int64)
    at_h = _lines(batch * I, dtype.itemsize)
    at_work = at_h + _lines(batch * H, dtype.itemsize)
    work = batch * (2 * padded(3 * H, dtype) + padded(H, dtype)) + padded(1, dtype)
    memory = aligned_empty((at_work + work,), dtype)
    memory[...] = 0
    x = memory[: batch * I].reshape(batch, I)
    h = memory[at_h : at_h + batch * H].reshape(batch, H)
    return GRUStream(sizes, weights.forward, memory, x, h)


@jit
def gru_stream(sizes, weights, memory, worker, workers):
    """Run one step of a GRU: the x in memory moves the state h in memory on.

    Formula: that of `gru_forward`, whose bits it gives for T = 1.
    Parameters      shape        (memory and weights of one dtype)
    ----------
    sizes           (6,) int64   in: B, I, H, reset_after, codes of the activations
    weights         (n,)         in: `Packed.forward`
    memory          (m,)         in and out: x (B, I), h (B, H) and scratch; see `GRUStream`
    worker, workers int          in: which share of the rows; 0, 1 for all of them
    Source: that of `gru_forward`. Twin: reference.gru_step.
    """
    B, I, H, reset_after, gate, candidate = (
        sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5],
    )  # fmt: skip
    w = pointer(weights)
    wide, narrow = whole_panels(3 * H, w), whole_panels(H, w)
    at_h = _lines(B * I, memory.itemsize)
    first = B * worker // workers
    rows = B * (worker + 1) // workers - first
    x = pointer(memory) + first * I
    h = pointer(memory) + (at_h + first * H)
    work = pointer(memory) + (at_h + _lines(B * H, memory.itemsize))
    xs = work + first * wide
    a = work + (B + first) * wide
    u = work + (2 * B * wide + first * narrow)
    bias, recurrent_bias, kernel = w, w + wide, w + 2 * wide
    recurrent = kernel + I * wide
    product(rows, wide, I, x, I, 1, kernel, bias, 0, xs, wide, False)
    if reset_after:
        product(rows, wide, H, h, H, 1, recurrent, recurrent_bias, 0, a, wide, False)
        for row in range(rows):
            x_t, a_t, h_t = xs + row * wide, a + row * wide, h + row * H
            _step_reset_after(H, x_t, a_t, h_t, h_t, h_t, False, gate, candidate)
        return
    columns = whole_panels(2 * H, w)
    product(rows, columns, H, h, H, 1, recurrent, recurrent_bias, 0, a, wide, False)
    for row in range(rows):
        _reset_before(H, xs + row * wide, a + row * wide, h + row * H, gate)
    product(
        rows, narrow, H, a + 2 * H, wide, 1, recurrent + H * columns,
        recurrent_bias + 2 * H, 0, u, narrow, False,
    )  # fmt: skip
    for row in range(rows):
        x_t, a_t, u_t, h_t = xs + row * wide, a + row * wide, u + row * narrow, h + row * H
        _step_reset_before(H, x_t, a_t, u_t, h_t, h_t, h_t, False, candidate)


def gru_stream_runner(stream: GRUStream) -> Callable[[], None]:
    """Return a function that runs one step of a `stream`, with threads where that pays."""
    B, I, H = stream.x.shape[0], stream.x.shape[1], stream.h.shape[1]
    flops = 2 * B * (I + H) * 3 * H
    if flops < LEAST_FLOPS:
        # Even to ask would take as long as a small step.
        return partial(gru_stream, *stream[:3], 0, 1)
    return partial(share_out, gru_stream, stream[:3], B, flops)
