"""Cells for what has no end: one step at a time, or some, in memory that stays.

A call from Python takes as long as a step of 64 units, so a step takes as few arguments as it can:
`sizes`, the packed weights, and `memory`, which holds input, states and scratch. A step allocates
nothing.

Compiled code of a user's own calls the same functions, with the arrays of an `Opened`::

    lstm_stream(sizes, weights, memory, 0, 1)       the x in memory moves the states there on
    lstm_sequence(sizes, weights, memory, x, y)     x (B, T, I) does so, y (B, T, H) is each h
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from fastgru.kernels import gru, lstm, simple_rnn
from fastgru.kernels.arrays import ALIGNMENT, aligned_empty
from fastgru.kernels.gemm import padded, product, whole_panels
from fastgru.kernels.handover import prepared
from fastgru.kernels.jit import argument, inline, jit, part
from fastgru.kernels.names import SIGMOID, TANH
from fastgru.kernels.packing import Packed
from fastgru.kernels.recurrence import forward_rows
from fastgru.kernels.simd import pointer
from fastgru.kernels.threads import LEAST_FLOPS, share_out

# Work below this, some 5 us, is done without giving up the GIL, or passing arrays on.
SHORT_FLOPS = 500_000


class Opened(NamedTuple):
    """What a stream of steps works on; made by `open_stream`.

    `sizes` holds B, I, H, whether gates are held, and the codes of the two activations; `memory`
    all arrays, of which `x` (B, I), the input of the next step, `h` (B, H) and `c` (B, H), the
    states, are views. `c` is None in cells with one state.
    """

    sizes: np.ndarray
    weights: np.ndarray
    memory: np.ndarray
    x: np.ndarray
    h: np.ndarray
    c: np.ndarray | None


@register_jitable
def _lines(n, itemsize):
    """Round a number of elements up to whole cache lines."""
    return -(-n * itemsize // ALIGNMENT) * ALIGNMENT // itemsize


def open_stream(
    batch: int,
    weights: Packed,
    *,
    gates: int,
    states: int = 1,
    recurrent_activation: int = SIGMOID,
    activation: int = TANH,
) -> Opened:
    """Make what a stream of a cell works on, for a batch of streams, with states of zeros.

    Parameters
    ----------
    batch : int
        Number of streams, B.
    weights : Packed
    gates, states : int
        What the cell has: a GRU 3 and 1, an LSTM 4 and 2, a simple network 1 and 1.
    recurrent_activation, activation : int
        Indices into ACTIVATIONS.
    """
    dtype, I, H = weights.forward.dtype, weights.inputs, weights.units
    codes = int(weights.held), recurrent_activation, activation
    sizes = np.array([batch, I, H, *codes], np.int64)
    places, end = [], 0
    for width in (I, *[H] * states):
        places.append((end, width))
        end += _lines(batch * width, dtype.itemsize)
    work = batch * (2 * padded(gates * H, dtype) + padded(H, dtype)) + padded(1, dtype)
    memory = aligned_empty((end + work,), dtype)
    memory[...] = 0
    x, h, *c = (memory[at : at + batch * n].reshape(batch, n) for at, n in places)
    return Opened(sizes, weights.forward, memory, x, h, c[0] if c else None)


@part
def run_step(gates, states, apart, step, reset, sizes, weights, memory, worker, workers):
    """Run one worker's share of the rows through one step; step and reset as in `forward_rows`."""
    B, I, H, held, gate, candidate = (
        sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5],
    )  # fmt: skip
    w = pointer(weights)
    wide, narrow = whole_panels(gates * H, w), whole_panels(H, w)
    at_h, state = _lines(B * I, memory.itemsize), _lines(B * H, memory.itemsize)
    first = B * worker // workers
    rows = B * (worker + 1) // workers - first
    x = pointer(memory) + first * I
    h = pointer(memory) + (at_h + first * H)
    c = h + (states - 1) * state
    work = pointer(memory) + (at_h + states * state)
    xs = work + first * wide
    a = work + (B + first) * wide
    u = work + (2 * B * wide + first * narrow)
    bias, kernel = w, w + (1 + apart) * wide
    recurrent = kernel + I * wide
    product(rows, wide, I, x, I, 1, kernel, bias, 0, xs, wide, False)
    # The sums of both sides are one chain, unless some of them stay apart.
    start, start_row = (w + wide, 0) if apart > 0 else (xs, wide)
    if reset is not None:
        if held:
            early = (gates - apart) * H
            columns = whole_panels(early, w)
            product(rows, columns, H, h, H, 1, recurrent, start, start_row, a, wide, False)
            for row in range(rows):
                reset(H, xs + row * wide, a + row * wide, h + row * H, gate)
            product(
                rows, narrow, H, a + early, wide, 1, recurrent + H * columns, start + early, 0, u,
                narrow, False,
            )  # fmt: skip
        else:
            product(rows, wide, H, h, H, 1, recurrent, start, start_row, a, wide, False)
    else:
        product(rows, wide, H, h, H, 1, recurrent, start, start_row, a, wide, False)
    for row in range(rows):
        h_t, c_t = h + row * H, c + row * H
        x_t, a_t, u_t = xs + row * wide, a + row * wide, u + row * narrow
        if reset is not None:
            if held:
                step(H, x_t, a_t, u_t, h_t, h_t, c_t, c_t, h_t, False, True, gate, candidate)
                continue
        step(H, x_t, a_t, u_t, h_t, h_t, c_t, c_t, h_t, False, None, gate, candidate)


@inline
def second_states(sizes, memory):
    """Return the second states (B, H) of a cell with two."""
    B, I, H = sizes[0], sizes[1], sizes[2]
    at = _lines(B * I, memory.itemsize) + _lines(B * H, memory.itemsize)
    return memory[at : at + B * H].reshape(B, H)


@part
def run_sequence(slots, apart, step, reset, sizes, weights, memory, c0, c, x, y):
    """Run all rows through the steps of x; step and reset as in `forward_rows`.

    c0 (B, H) are the second states and c the same as (B, 1, H), or both None.
    """
    B, I, H = sizes[0], sizes[1], sizes[2]
    T = x.shape[1]
    if x.shape != (B, T, I) or y.shape != (B, T, H):
        raise ValueError("x, y: expected shapes (B, T, I) and (B, T, H), with the sizes opened for")
    at_h = _lines(B * I, memory.itemsize)
    h = memory[at_h : at_h + B * H].reshape(B, H)
    mask, nothing = np.empty((0, 0), np.bool_), np.empty((0, 0, slots, H), x.dtype)
    work, progress = np.empty(0, x.dtype), np.empty(0, np.int64)
    held = sizes[3] > 0
    if reset is not None:
        if held:
            forward_rows(
                apart, step, reset, x, mask, h, c0, None, weights, y, c, nothing, work, progress,
                True, False, sizes[4], sizes[5], 0, 1,
            )  # fmt: skip
    if not held:
        forward_rows(
            apart, step, reset, x, mask, h, c0, None, weights, y, c, nothing, work, progress,
            None, False, sizes[4], sizes[5], 0, 1,
        )  # fmt: skip
    if T > 0:
        h[...] = y[:, T - 1]


@jit
def gru_stream(sizes, weights, memory, worker, workers):
    """Run one step of a GRU: the x in memory moves the state h in memory on.

    Formula: that of `gru_forward`, whose bits it gives for T = 1.
    Parameters      shape        (memory and weights of one dtype)
    ----------
    sizes           (6,) int64   in: B, I, H, held, codes of the activations
    weights         (n,)         in: `Packed.forward`
    memory          (m,)         in and out: x (B, I), h (B, H) and scratch; see `Opened`
    worker, workers int          in: which share of the rows; 0, 1 for all of them
    Source: that of `gru_forward`. Twin: reference.gru_step.
    """
    run_step(
        3, 1, gru.APART, argument(gru._step), argument(gru._reset_before), sizes, weights, memory,
        worker, workers,
    )  # fmt: skip


@jit
def gru_sequence(sizes, weights, memory, x, y):
    """Run a GRU over sequences: x moves the state h in memory on.

    Formula: that of `gru_forward`, whose bits it gives, on the caller's thread.
    Parameters      shape        (all but sizes of one dtype, C-contiguous)
    ----------
    sizes, weights, memory       in and out, as in `gru_stream`
    x               (B, T, I)    in
    y               (B, T, H)    out, each step's h
    Source: that of `gru_forward`. Twin: reference.gru_forward.
    """
    run_sequence(
        gru.SLOTS, gru.APART, argument(gru._step), argument(gru._reset_before), sizes, weights,
        memory, None, None, x, y,
    )  # fmt: skip


@jit
def lstm_stream(sizes, weights, memory, worker, workers):
    """Run one step of an LSTM: the x in memory moves the states h and c in memory on.

    Formula: that of `lstm_forward`, whose bits it gives for T = 1.
    Parameters      shape        (memory and weights of one dtype)
    ----------
    sizes           (6,) int64   in: B, I, H, held, codes of the activations
    weights         (n,)         in: `Packed.forward`
    memory          (m,)         in and out: x (B, I), h and c (B, H) and scratch; see `Opened`
    worker, workers int          in: which share of the rows; 0, 1 for all of them
    Source: that of `lstm_forward`. Twin: reference.lstm_forward.
    """
    run_step(4, 2, 0, argument(lstm._step), None, sizes, weights, memory, worker, workers)


@jit
def lstm_sequence(sizes, weights, memory, x, y):
    """Run an LSTM over sequences: x moves the states h and c in memory on.

    Formula: that of `lstm_forward`, whose bits it gives, on the caller's thread.
    Parameters      shape        (all but sizes of one dtype, C-contiguous)
    ----------
    sizes, weights, memory       in and out, as in `lstm_stream`
    x               (B, T, I)    in
    y               (B, T, H)    out, each step's h
    Source: that of `lstm_forward`. Twin: reference.lstm_forward.
    """
    c = second_states(sizes, memory)
    run_sequence(
        lstm.SLOTS, 0, argument(lstm._step), None, sizes, weights, memory, c,
        c.reshape(sizes[0], 1, sizes[2]), x, y,
    )  # fmt: skip


@jit
def simple_rnn_stream(sizes, weights, memory, worker, workers):
    """Run one step of a simple network: the x in memory moves the state h in memory on.

    Formula: that of `simple_rnn_forward`, whose bits it gives for T = 1.
    Parameters      shape        (memory and weights of one dtype)
    ----------
    sizes           (6,) int64   in: B, I, H, held, codes of the activations
    weights         (n,)         in: `Packed.forward`
    memory          (m,)         in and out: x (B, I), h (B, H) and scratch; see `Opened`
    worker, workers int          in: which share of the rows; 0, 1 for all of them
    Source: that of `simple_rnn_forward`. Twin: reference.simple_rnn_forward.
    """
    run_step(1, 1, 0, argument(simple_rnn._step), None, sizes, weights, memory, worker, workers)


@jit
def simple_rnn_sequence(sizes, weights, memory, x, y):
    """Run a simple network over sequences: x moves the state h in memory on.

    Formula: that of `simple_rnn_forward`, whose bits it gives, on the caller's thread.
    Parameters      shape        (all but sizes of one dtype, C-contiguous)
    ----------
    sizes, weights, memory       in and out, as in `simple_rnn_stream`
    x               (B, T, I)    in
    y               (B, T, H)    out, each step's h
    Source: that of `simple_rnn_forward`. Twin: reference.simple_rnn_forward.
    """
    run_sequence(
        simple_rnn.SLOTS, 0, argument(simple_rnn._step), None, sizes, weights, memory, None, None,
        x, y,
    )  # fmt: skip


def stream_runner(kernel: Any, stream: Opened) -> Callable[[], None]:
    """Return a function that runs one step of a `stream` by its `kernel`, in threads if that pays.

    The kernel is `gru_stream`, `lstm_stream` or `simple_rnn_stream`, as the weights are.
    """
    B = len(stream.x)
    flops = 2 * B * stream.weights.size
    if flops < SHORT_FLOPS:
        return prepared(kernel, stream[:3])
    if flops < LEAST_FLOPS:
        # Even to ask would take as long as a small step.
        return partial(kernel, *stream[:3], 0, 1)
    return partial(share_out, kernel, stream[:3], B, flops)
