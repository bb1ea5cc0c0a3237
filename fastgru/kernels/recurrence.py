"""A batch of sequences forward and backward, for every cell, on prepacked weights.

A cell has G gates of H units. What it adds to the loops here is its elementwise step forward and
backward, which its own file passes on as functions: Numba compiles a driver for each of them.

A step keeps slots of H values, one per gate, which the backward pass overwrites with the gradients
of the pre-activations. A gate whose sums of the input's side and of the state's side are not just
added has two of them, and there are two biases: `apart` is the number of such gates, 1 in a GRU
(its candidate) and else 0. The slot of the input's side comes first of all, that of the state's
side last, so that the G that a product with the input's weights needs and the G for the recurrent
weights lie side by side: of the gates r z n the slots are n r z q. Packed weights are in the order
of the slots. `held` says that the gates apart have a product of their own in each step, which waits
for the other gates: the GRU without `reset_after`.

In the loops over the steps `held` is None where it is False: Numba compiles code for None that
knows nothing of what it means.

`drop` (B, H) is what a recurrent dropout multiplies the state with wherever a product takes it, in
all steps alike; None is no dropout.

Three tiers: `run_forward` and `run_backward` are called by the functions of a cell;
`threads.share_out` runs the serial workers (`..._rows`, `..._columns`) on the caller's thread or
under its parallel driver. A worker gives the same bits either way and, as worker 0 of 1, can be
called from any `@njit` code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from fastgru.kernels.arrays import LEAST_SCRATCH, aligned_empty, expect, none_of, scratch
from fastgru.kernels.gemm import (
    BLOCK,
    add_product,
    copy,
    fill,
    group_columns,
    grouped_size,
    pack_block,
    padded,
    panel_width,
    whole_panels,
)
from fastgru.kernels.jit import inline, jit, part
from fastgru.kernels.packing import Packed
from fastgru.kernels.recording import current, perform
from fastgru.kernels.relay import follow, lead, release, shared_product, split
from fastgru.kernels.simd import (
    aligned,
    fma,
    get,
    keep_alive,
    lanes,
    larger,
    load_up_to,
    pointer,
    put,
    smaller,
    store_up_to,
)
from fastgru.kernels.threads import number_of_workers, share_out
from fastgru.kernels.width import SIMD_WIDTH

# How many rows go through their steps together: their scratch memory stays in the cache, and the
# weights are read often enough.
ROWS = 48

# What finishing a step costs for each unit, as operations of a product.
UNIT_FLOPS = 150

# How many bytes of input projections one worker computes before it runs the recurrence over them.
CHUNK_BYTES = 128 * 1024

# Not a literal, for which Numba would compile the products once more.
ZERO = np.int64(0)

BOOL = np.dtype(np.bool_)
NO_MASK = np.empty((0, 0), np.bool_)


# ---- forward


@register_jitable
def _forward_chunk(rows, T, wide, itemsize):
    """Return for how many steps at a time the input's projections are computed."""
    return max(1, min(T, CHUNK_BYTES // (rows * wide * itemsize)))


@register_jitable
def _blocks(rows):
    """Return in how many blocks a worker computes its rows, and how many rows one has at most."""
    blocks = (rows + ROWS - 1) // ROWS
    return blocks, (rows + blocks - 1) // blocks


@register_jitable
def _forward_work(rows, T, wide, itemsize, drop):
    """Return the size of the scratch memory of `_forward_block`: projections, a, u, dropped.

    It is enough for fewer rows, too: their chunks have more steps, and may have more in all.
    """
    projections = min(rows * T, max(rows, CHUNK_BYTES // (wide * itemsize)))
    others = rows * (2 if drop is None else 3)
    return (projections + others) * wide + (64 + 2 * 4 * SIMD_WIDTH) // itemsize


@inline
def _state(first, t, initial, states):
    """Return where the state after step t lies, of step -1 the initial one, and its row stride."""
    H = initial.shape[1]
    if t < 0:
        return pointer(initial) + first * H, H
    # The last state alone takes the place of all.
    steps = states.shape[1]
    return pointer(states) + (first * steps + smaller(t, steps - 1)) * H, steps * H


@part
def _drop_states(rows, first, t, h0, y, drop, dropped):
    """Write the states after step t, of which the next product will know only a part."""
    H = h0.shape[1]
    h, h_row = _state(first, t, h0, y)
    factor = pointer(drop) + first * H
    for row in range(rows):
        for j in range(0, H, lanes(h)):
            left = H - j
            kept = load_up_to(h + (row * h_row + j), left) * load_up_to(
                factor + (row * H + j), left
            )
            store_up_to(dropped + (row * H + j), kept, left)


@part
def _finish_step(
    rows, first, t, at, mask, xs, xs_row, a, u, wide, h0, c0, y, c, gates, held, gate, candidate,
    step,
):  # fmt: skip
    """Finish step t of all rows, whose products are in a (and u): gates and states."""
    S, H = gates.shape[2:]
    keep = gates.size > 0
    masked = mask.size > 0
    h, h_row = _state(first, t - 1, h0, y)
    now, now_row = _state(first, t, h0, y)
    kept, kept_row = pointer(gates), 0
    if keep:
        kept_row = gates.shape[1] * S * H
        kept += first * kept_row + t * S * H
    if c is not None:
        c_old, c_old_row = _state(first, t - 1, c0, c)
        c_new, c_new_row = _state(first, t, c0, c)
    else:
        c_old, c_old_row, c_new, c_new_row = now, 0, now, 0
    for row in range(rows):
        before, after = h + row * h_row, now + row * now_row
        c_before, c_after = c_old + row * c_old_row, c_new + row * c_new_row
        if masked and not mask[first + row, at]:
            copy(before, H, after)
            if c is not None:
                copy(c_before, H, c_after)
            continue
        step(
            H, xs + row * xs_row, a + row * wide, u + row * whole_panels(H, a), before, after,
            c_before, c_after, kept + row * kept_row, keep, held, gate, candidate,
        )  # fmt: skip


@part
def _forward_block(
    first, rows, x, mask, h0, c0, drop, weights, y, c, gates, work, progress, apart, held,
    go_backwards, gate, candidate, step, reset, worker, workers,
):  # fmt: skip
    """Run some rows through all their steps, alone or, with `progress`, with the other workers."""
    B, T, I = x.shape
    S, H = gates.shape[2:]
    N = (S - apart) * H
    early = N - apart * H
    w = pointer(weights)
    wide = whole_panels(N, w)
    chunk = _forward_chunk(rows, T, wide, weights.itemsize)
    xs = aligned(work)
    a = xs + rows * chunk * wide
    u = a + rows * wide
    bias, recurrent_bias, kernel = w, w + wide, w + (1 + apart) * wide
    recurrent = kernel + I * wide
    recurrent_held = recurrent + H * whole_panels(early, w)
    x_at = pointer(x) + first * T * I
    x_step = I
    if go_backwards:
        x_at += (T - 1) * I
        x_step = -I
    phase = ZERO
    if drop is not None:
        dropped = u + rows * wide
        if lead(progress, phase, workers):
            _drop_states(rows, first, -1, h0, y, drop, dropped)
            release(progress, phase)
        phase = follow(progress, phase)
    for t0 in range(0, T, chunk):
        steps = smaller(chunk, T - t0)
        # Row by row, or step by step where a step has more rows: larger products are quicker.
        by_row = steps >= rows
        for i in range(rows if by_row else steps):
            if shared_product(
                progress, phase, worker, workers, steps if by_row else rows, wide, I,
                x_at + (i * T * I + t0 * x_step if by_row else (t0 + i) * x_step),
                x_step if by_row else T * I, 1, kernel, bias, ZERO,
                xs + (i * chunk * wide if by_row else i * wide), wide if by_row else chunk * wide,
            ):  # fmt: skip
                release(progress, phase)
            phase = follow(progress, phase)
        for t in range(t0, t0 + steps):
            at = T - 1 - t if go_backwards else t
            h, h_row = _state(first, t - 1, h0, y)
            if drop is not None:
                h, h_row = dropped, H
            x_t = xs + (t - t0) * wide
            x_row = chunk * wide
            # The sums of both sides are one chain, unless some of them stay apart.
            start, start_row = (recurrent_bias, ZERO) if apart > 0 else (x_t, x_row)
            factor, factor_row, columns, factors, target = h, h_row, wide, recurrent, a
            if reset is not None:
                if held is not None:
                    # The columns end inside a panel; what its rest holds is overwritten by `reset`.
                    columns = whole_panels(early, w)
                    if shared_product(
                        progress, phase, worker, workers, rows, columns, H, h, h_row, 1,
                        recurrent, start, start_row, a, wide,
                    ):  # fmt: skip
                        for row in range(rows):
                            reset(H, x_t + row * x_row, a + row * wide, h + row * h_row, gate)
                        release(progress, phase)
                    phase = follow(progress, phase)
                    factor, factor_row, columns = a + early, wide, whole_panels(N - early, w)
                    factors, start, target = recurrent_held, recurrent_bias + early, u
            if shared_product(
                progress, phase, worker, workers, rows, columns, H, factor, factor_row, 1,
                factors, start, start_row, target, columns,
            ):  # fmt: skip
                _finish_step(
                    rows, first, t, at, mask, x_t, x_row, a, u, wide, h0, c0, y, c, gates, held,
                    gate, candidate, step,
                )  # fmt: skip
                if drop is not None:
                    _drop_states(rows, first, t, h0, y, drop, dropped)
                release(progress, phase)
            phase = follow(progress, phase)


@part
def forward_rows(
    apart, step, reset, x, mask, h0, c0, drop, weights, y, c, gates, work, progress, held,
    go_backwards, gate, candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share of the rows, or with `progress` of the units. See `run_forward`.

    Functions of the cell, all for one row:
    step(H, x, a, u, h, y, c, c_new, kept, keep, held, gate, candidate)
        makes the next states y and c_new of h and c, and what to `keep` in the slots; x holds the
        sums of the input's side and a those of the state's side, or without gates apart those of
        both, and u those of the gates held.
    reset(H, x, a, h, gate)
        turns the sums in a of the gates that are not held into these gates, and puts behind them
        what the kernel of the held ones is multiplied with; None in cells that hold none.
    """
    B, T, I = x.shape
    S, H = gates.shape[2:]
    if T == 0 or y.shape[1] == 0:
        return
    # With `progress` all workers go through all rows together.
    shared = progress.size > 0
    first = 0 if shared else B * worker // workers
    rows = B if shared else B * (worker + 1) // workers - first
    if rows == 0:
        return
    blocks, most = (1, rows) if shared else _blocks(rows)
    wide = whole_panels((S - apart) * H, pointer(weights))
    lent = shared or (workers == 1 and work.size > 0)
    own = np.empty(0 if lent else _forward_work(most, T, wide, x.itemsize, drop), x.dtype)
    for block in range(blocks):
        begin, end = rows * block // blocks, rows * (block + 1) // blocks
        _forward_block(
            first + begin, end - begin, x, mask, h0, c0, drop, weights, y, c, gates,
            pointer(work if lent else own), progress, apart, held, go_backwards, gate, candidate,
            step, reset, worker, workers,
        )  # fmt: skip
    keep_alive(own)


GRADIENTS = ("dkernel", "drecurrent_kernel", "dbias", "drecurrent_bias")


def _expect_inputs(
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    c0: np.ndarray | None,
    drop: np.ndarray | None,
    weights: Packed,
) -> None:
    """Raise unless these arrays fit the weights and each other."""
    (B, T), dtype = x.shape[:2], weights.forward.dtype
    expect("x", x, (B, T, weights.inputs), dtype)
    expect("h0", h0, (B, weights.units), dtype)
    if c0 is not None:
        expect("c0", c0, (B, weights.units), dtype)
    if drop is not None:
        expect("drop", drop, (B, weights.units), dtype)
    if mask is not None:
        expect("mask", mask, (B, T), BOOL)


def run_forward(
    rows: Any,
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    c0: np.ndarray | None,
    weights: Packed,
    slots: int,
    codes: tuple[int, int],
    *,
    return_sequences: bool,
    keep: bool,
    go_backwards: bool,
    drop: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Run a cell over a padded batch by its `rows`, the worker that calls `forward_rows`.

    Returns y, c and the slots (B, T, slots, H). y is (B, T, H), or (B, 1, H) for the last state
    alone; c, the second state of a cell with `c0`, is (B, T, H) with `keep`, else the last alone.
    """
    B, T = x.shape[:2]
    I, H = weights.inputs, weights.units
    _expect_inputs(x, mask, h0, c0, drop, weights)
    y = aligned_empty((B, T if return_sequences else 1, H), x.dtype)
    c = None if c0 is None else aligned_empty((B, T if keep else 1, H), x.dtype)
    if T == 0:
        y[...] = h0[:, None]
        if c is not None:
            c[...] = c0[:, None]
    if keep:
        gates = aligned_empty((B, T, slots, H), x.dtype)
    else:
        gates = np.empty((0, 0, slots, H), x.dtype)
    mask = NO_MASK if mask is None else mask
    N = (slots - weights.apart) * H
    flops = B * T * (2 * (I + H) * N + UNIT_FLOPS * H)
    shares, progress = split(B, T, 2 * B * H * N)
    work = none_of(x.dtype, 1)
    wide = padded(N, x.dtype)
    if progress.size:
        work = np.empty(_forward_work(B, T, wide, x.itemsize, drop), x.dtype)
    elif B * T * wide * x.itemsize >= LEAST_SCRATCH and current.recording is None:
        if number_of_workers(shares, flops) == 1:  # several allocate their own
            _, most = _blocks(B)
            work = scratch(_forward_work(most, T, wide, x.itemsize, drop), x.dtype)
    arguments = (
        x, mask, h0, c0, drop, weights.forward, y, c, gates, work, progress, weights.held or None,
        go_backwards, *codes,
    )  # fmt: skip
    share_out(rows, arguments, shares, flops)
    return y, c, gates


# ---- backward


# Merged into its caller, since to pass all these arrays on takes 50 ns.
@inline
def _gradients_of_step(
    rows, first, t, at, mask, h0, c0, y, c, gates, dy, dh, dc, held, gate, candidate, gradient
):
    """Turn the slots of step t of all rows into gradients, and those of its states: `gradient`."""
    B, T, S, H = gates.shape
    masked = mask.size > 0
    # A missing dy: only the last state has a gradient.
    with_dy = dy.size > 0
    h, h_row = _state(first, t - 1, h0, y)
    dh_at = pointer(dh) + first * H
    if c is not None:
        c_old, c_old_row = _state(first, t - 1, c0, c)
        c_new, c_new_row = _state(first, t, c0, c)
        dc_at, dc_row = pointer(dc) + first * H, H
    else:
        c_old, c_old_row, c_new, c_new_row, dc_at, dc_row = dh_at, 0, dh_at, 0, dh_at, 0
    for row in range(rows):
        dh_row = dh_at + row * H
        dy_row = pointer(dy)
        if with_dy:
            dy_row += ((first + row) * T + t) * H
        kept_row = pointer(gates) + ((first + row) * T + t) * S * H
        if masked and not mask[first + row, at]:
            fill(kept_row, S * H, 0.0)
            if with_dy:
                for j in range(0, H, lanes(dh_at)):
                    g = load_up_to(dh_row + j, H - j) + load_up_to(dy_row + j, H - j)
                    store_up_to(dh_row + j, g, H - j)
        else:
            gradient(
                H, kept_row, h + row * h_row, c_old + row * c_old_row, c_new + row * c_new_row,
                dy_row, with_dy, dh_row, dc_at + row * dc_row, held, gate, candidate,
            )  # fmt: skip


@part
def _add_dropped(rows, first, drop, dq, dh):
    """Add to dh what reaches the states of some rows through their part in the products."""
    H = dh.shape[1]
    factor, target = pointer(drop) + first * H, pointer(dh) + first * H
    for j in range(0, rows * H, lanes(dq)):
        left = rows * H - j
        g = fma(
            load_up_to(dq + j, left), load_up_to(factor + j, left), load_up_to(target + j, left)
        )
        store_up_to(target + j, g, left)


@part
def _multiply(n, factor, p):
    """Multiply n numbers in place."""
    for j in range(0, n, lanes(p)):
        store_up_to(p + j, load_up_to(p + j, n - j) * load_up_to(factor + j, n - j), n - j)


@register_jitable
def _backward_work(rows, I, H, itemsize):
    """Return the size of the scratch memory of `_backward_block`: zeros and dq."""
    return max(I, H) + rows * H + 2 * (64 + 4 * SIMD_WIDTH) // itemsize


@part
def _backward_block(
    first, rows, dy, dh, dc, mask, h0, c0, drop, weights, y, c, gates, dx, work, progress, apart,
    held, go_backwards, gate, candidate, gradient, gradient_of_reset, worker, workers,
):  # fmt: skip
    """Run some rows back through all steps, alone or, with `progress`, with the other workers."""
    B, T, S, H = gates.shape
    I = dx.shape[2]
    N = (S - apart) * H
    early = N - apart * H
    w = pointer(weights)
    recurrent = w + N * whole_panels(I, w)
    recurrent_held = recurrent + early * whole_panels(H, w)
    # In front, where no block writes, whatever its rows; products read to the end of a panel.
    zeros = aligned(work)
    dq = aligned(zeros + whole_panels(larger(I, H), zeros))
    dh_at = pointer(dh) + first * H
    step = S * H
    kept = pointer(gates) + first * T * step
    # Each step's product is followed by the gates of the step before it; first come the last ones.
    phase = ZERO
    t = T
    while t >= 0:
        if t == T:
            go_on = lead(progress, phase, workers)
        else:
            kept_t = kept + t * step
            if gradient_of_reset is not None:
                if held is not None:
                    if shared_product(
                        progress, phase, worker, workers, rows, H, N - early, kept_t, T * step, 1,
                        recurrent_held, zeros, ZERO, dq, H,
                    ):  # fmt: skip
                        if drop is not None:
                            _multiply(rows * H, pointer(drop) + first * H, dq)
                        h, h_row = _state(first, t - 1, h0, y)
                        for row in range(rows):
                            gradient_of_reset(
                                H, kept_t + row * T * step, h + row * h_row, dq + row * H,
                                dh_at + row * H, gate,
                            )  # fmt: skip
                        release(progress, phase)
                    phase = follow(progress, phase)
            # What a dropout is to multiply cannot be added to dh at once.
            start, start_row, target, columns = dh_at, H, dh_at, N
            if drop is not None:
                start, start_row, target = zeros, ZERO, dq
            if held is not None:
                columns = early
            go_on = shared_product(
                progress, phase, worker, workers, rows, H, columns,
                kept_t + apart * H, T * step, 1, recurrent, start, start_row, target, H,
            )  # fmt: skip
        if go_on:
            if drop is not None:
                if t < T:
                    _add_dropped(rows, first, drop, dq, dh)
            if t > 0:
                _gradients_of_step(
                    rows, first, t - 1, T - t if go_backwards else t - 1, mask, h0, c0, y, c,
                    gates, dy, dh, dc, held, gate, candidate, gradient,
                )  # fmt: skip
            release(progress, phase)
        phase = follow(progress, phase)
        t -= 1
    if dx.size > 0:
        dx_at = pointer(dx) + first * T * I
        for row in range(rows):
            if shared_product(
                progress, phase, worker, workers, T, I, N, kept + row * T * step, step, 1, w,
                zeros, ZERO, dx_at + (row * T + (T - 1 if go_backwards else 0)) * I,
                -I if go_backwards else I,
            ):  # fmt: skip
                release(progress, phase)
            phase = follow(progress, phase)


@part
def backward_rows(
    apart, gradient, gradient_of_reset, dy, dh, dc, mask, h0, c0, drop, weights, y, c, gates, dx,
    work, progress, held, go_backwards, gate, candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share backward: slots become gradients, dh and dc those of h0 and c0.

    The share is one of the rows or, with `progress`, of the units. See `run_backward`.

    Functions of the cell, all for one row:
    gradient(H, kept, h, c, c_new, dy, with_dy, dh, dc, held, gate, candidate)
        turns the slots of a step into the gradients of its sums, and dh and dc, the gradients of
        the states that it made, into what reaches those before it other than through the sums.
    gradient_of_reset(H, kept, h, dq, dh, gate)
        does so for what `reset` made, once the gradient dq of that is known; None as `reset` is.
    """
    B, T, S, H = gates.shape
    I = dx.shape[2]
    if T == 0:
        return
    shared = progress.size > 0
    first = 0 if shared else B * worker // workers
    rows = B if shared else B * (worker + 1) // workers - first
    if rows == 0:
        return
    blocks, most = (1, rows) if shared else _blocks(rows)
    own = np.zeros(0 if shared else _backward_work(most, I, H, h0.itemsize), h0.dtype)
    for block in range(blocks):
        begin, end = rows * block // blocks, rows * (block + 1) // blocks
        _backward_block(
            first + begin, end - begin, dy, dh, dc, mask, h0, c0, drop, weights, y, c, gates, dx,
            pointer(work if shared else own), progress, apart, held, go_backwards, gate, candidate,
            gradient, gradient_of_reset, worker, workers,
        )  # fmt: skip
    keep_alive(own)


@part
def _block_of_inputs(block, start, count, x, mask, h0, y, gates, held, backwards, zeros):
    """Copy what was multiplied in `count` steps (numbered b * T + t): x, h (and r * h), grouped.

    A masked step gives zeros: its gradients are zero, but its x may hold NaN.
    """
    B, T, I = x.shape
    S, H = gates.shape[2:]
    x_at, h0_at, y_at, kept = pointer(x), pointer(h0), pointer(y), pointer(gates)
    h_block = block + grouped_size(I)
    b, t = start // T, start % T
    for k in range(count):
        source = T - 1 - t if backwards else t
        if mask.size > 0 and not mask[b, source]:
            group_columns(zeros, I, block, k)
        else:
            group_columns(x_at + (b * T + source) * I, I, block, k)
        if t == 0:
            group_columns(h0_at + b * H, H, h_block, k)
        else:
            group_columns(y_at + (b * T + t - 1) * H, H, h_block, k)
        if held:
            q = kept + ((b * T + t) * S + S - 1) * H
            group_columns(q, H, h_block + grouped_size(H), k)
        t += 1
        if t == T:
            b, t = b + 1, 0


@inline
def _meeting(i, late, N, held):
    """Return which columns of the slots meet a side's inputs, how far on their params are, whose.

    The input's side (0) is in two parts, whose params are in another order; the state's side (1)
    is in one, but for what is held, which meets what was multiplied in its place (2).
    """
    if i == 0:
        return 0, late, N - late, 0
    if i == 1:
        return late, N, -late, 0
    if i == 2:
        return late, N if held else N + late, -late, 1
    return 0, late if held else 0, N - late, 2


@jit
def recurrent_backward_columns(
    x, mask, h0, y, gates, dkernel, drecurrent_kernel, dbias, drecurrent_bias, overwrite, apart,
    held, go_backwards, worker, workers,
):  # fmt: skip
    """Add one worker's share of the columns of the weight gradients. See `run_backward`.

    A panel of columns of the slots is packed once and multiplied with all that it met in the
    forward pass. Each column is summed by one worker, over b, then t.
    """
    B, T, I = x.shape
    S, H = gates.shape[2:]
    late = apart * H
    N = (S - apart) * H
    p = pointer(gates)
    width = 2 * lanes(p)
    # With gates held the last slot has no gradient of sums: it is what their kernel was multiplied
    # with.
    columns = (S - held) * H
    panels = (columns + width - 1) // width
    item = gates.itemsize
    size = grouped_size(I) + (1 + held) * grouped_size(H)
    # A product that begins inside a panel reads as far behind the last row.
    nothing = larger(I, width)
    work = np.empty((BLOCK + 1 + panels) * width + size + nothing + workers + 64 // item, x.dtype)
    packed = aligned(pointer(work))
    sums = packed + (BLOCK + 1) * width
    block = sums + panels * width
    zeros = block + size
    loads = zeros + nothing
    fill(packed + BLOCK * width, (1 + panels) * width, 0.0)
    fill(zeros, nothing, 0.0)
    dk, du, db, dc = (
        pointer(dkernel), pointer(drecurrent_kernel), pointer(dbias), pointer(drecurrent_bias),
    )  # fmt: skip
    for start in range(0, B * T, BLOCK):
        count = smaller(BLOCK, B * T - start)
        _block_of_inputs(block, start, count, x, mask, h0, y, gates, held, go_backwards, zeros)
        last_block = start + BLOCK >= B * T
        anew = overwrite and start == 0
        # Each panel goes to the worker that has least to do so far.
        fill(loads, workers, 0.0)
        for panel in range(panels):
            first = panel * width
            owner = 0
            for other in range(1, workers):
                if get(loads + other) < get(loads + owner):
                    owner = other
            load_of_panel = _work_of_panel(first, width, late, N, held, I, H)
            put(loads + owner, get(loads + owner) + load_of_panel)
            if owner != worker:
                continue
            total = sums + first
            few = smaller(width, columns - first)
            pack_block(p + (start * S * H + first), S * H, count, few, packed, total)
            for i in range(4):
                lo, hi, shift, side = _meeting(i, late, N, held)
                lo, hi = larger(lo, first), smaller(hi, first + width)
                if lo >= hi:
                    continue
                b = packed + (lo - first)
                rows, factor, target = I, block, dk + (lo + shift)
                if side > 0:
                    rows, target = H, du + (lo + shift)
                    factor = block + (grouped_size(I) + (side - 1) * grouped_size(H))
                begin, begin_row = (zeros, ZERO) if anew else (target, N)
                add_product(hi - lo, rows, count, factor, b, begin, begin_row, target, N)
                if last_block and (side == 0 or apart > 0):
                    bias = (db if side == 0 else dc) + (lo + shift)
                    if overwrite:
                        fill(bias, hi - lo, 0.0)
                    _add(hi - lo, sums + lo, bias)
    keep_alive(work)


@inline
def _work_of_panel(first, width, late, N, held, I, H):
    """Return how many rows of products a panel takes part in, twice where by both its vectors."""
    work = 0
    for i in range(4):
        lo, hi, _, side = _meeting(i, late, N, held)
        columns = smaller(hi, first + width) - larger(lo, first)
        if columns > 0:
            work += (I if side == 0 else H) * (1 if 2 * columns <= width else 2)
    return work


@part
def _add(n, source, target):
    """Add n numbers to others."""
    for j in range(0, n, lanes(target)):
        left = n - j
        value = load_up_to(target + j, left) + load_up_to(source + j, left)
        store_up_to(target + j, value, left)


def run_backward(
    rows: Any,
    dy: np.ndarray | None,
    dh_last: np.ndarray | None,
    dc_last: np.ndarray | None,
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    c0: np.ndarray | None,
    weights: Packed,
    y: np.ndarray,
    c: np.ndarray | None,
    gates: np.ndarray,
    gradients: tuple[np.ndarray, ...],
    codes: tuple[int, int],
    *,
    with_dx: bool,
    overwrite: bool,
    go_backwards: bool,
    drop: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Propagate gradients back through the steps of `run_forward`, which kept y, c and gates.

    `rows` is the worker that calls `backward_rows`; gradients are those of kernel, recurrent_kernel
    and biases, and added to, or with `overwrite` taken for zeros, whatever they hold; or () where
    weights are not trained. Returns dx (B, T, I), or
    (0, T, I) unless `with_dx`, dh0 and dc0.
    Rows are shared out for dx and the states, columns for the weights: no sum is ever merged, so
    the bits do not depend on the number of threads.
    """
    B, T = x.shape[:2]
    I, H = weights.inputs, weights.units
    dtype = weights.forward.dtype
    _expect_inputs(x, mask, h0, c0, drop, weights)
    expect("y", y, (B, T, H), dtype)
    expect("gates", gates, (B, T, gates.shape[2], H), dtype)
    if dy is not None:
        expect("dy", dy, (B, T, H), dtype)
    if not weights.backward.size:
        raise ValueError("weights: expected to be packed with backward=True")
    dx = aligned_empty((B, T, I) if with_dx else (0, T, I), x.dtype)
    dh = _copied(dh_last, (B, H), x.dtype)
    dc = None if c is None else _copied(dc_last, (B, H), x.dtype)
    dy = none_of(x.dtype, 3) if dy is None else dy
    mask = NO_MASK if mask is None else mask
    N = (gates.shape[2] - weights.apart) * H
    shapes = (I, N), (H, N), (N,), (N,)
    for name, gradient, shape in zip(GRADIENTS, gradients, shapes, strict=False):
        expect(name, gradient, shape, dtype)
    flops = B * T * (2 * (I + H) * N + UNIT_FLOPS * H)
    shares, progress = split(B, T, 2 * B * H * N)
    work = np.zeros(_backward_work(B, I, H, x.itemsize) if progress.size else 0, x.dtype)
    arguments: tuple[Any, ...] = (
        dy, dh, dc, mask, h0, c0, drop, weights.backward, y, c, gates, dx, work, progress,
        weights.held or None, go_backwards, *codes,
    )  # fmt: skip
    share_out(rows, arguments, shares, flops)
    if not gradients:
        return dx, dh, dc
    if drop is not None:
        h0, y = h0 * drop, y * drop[:, None]
    if overwrite and B * T == 0:
        for gradient in gradients:
            gradient[...] = 0
    if len(gradients) < 4:
        gradients = (*gradients, none_of(x.dtype, 1))
    arguments = (
        x, mask, h0, y, gates, *gradients, overwrite, weights.apart, weights.held, go_backwards,
    )  # fmt: skip
    panels = padded((gates.shape[2] - weights.held) * H, x.dtype) // panel_width(x.dtype)
    share_out(recurrent_backward_columns, arguments, panels, flops)
    return dx, dh, dc


def _copied(array: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array that a kernel may overwrite: a copy, or zeros."""
    copied = aligned_empty(shape, dtype)
    perform(np.copyto, copied, 0 if array is None else array)
    return copied
