"""The GRU over a batch of sequences: forward and backward, on prepacked weights.

Gates: r reset, z update, n candidate. Params hold them in the order r, z, n (`GATES`). Inside the
kernels a step keeps four slots of H values, n r z q, so that the three a product with the
input's weights needs (n r z) and the three for the recurrent weights (r z q) lie side by side. The
backward pass overwrites them with the gradients of the pre-activations: dn dr dz dq.

Three tiers: `gru_forward` and `gru_backward` are what Python calls; `threads.share_out` runs their
serial workers (`..._rows`, `..._columns`) on the caller's thread or under its parallel driver. A
worker gives the same bits either way and, as worker 0 of 1, can be called from any `@njit` code.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from fastgru.kernels.activations import SIGMOID, TANH, activate, slope
from fastgru.kernels.arrays import aligned_empty, none_of
from fastgru.kernels.gemm import (
    BLOCK,
    PACK_FLOPS,
    add_product,
    copy,
    fill,
    group_columns,
    grouped_size,
    pack_block,
    pack_columns,
    pack_transposed,
    padded,
    panel_width,
    share_of_panels,
    whole_panels,
)
from fastgru.kernels.jit import inline, jit, part
from fastgru.kernels.relay import follow, lead, release, shared_product, split
from fastgru.kernels.simd import (
    aligned,
    fma,
    keep_alive,
    lanes,
    load,
    load_up_to,
    pointer,
    sigmoid,
    store_up_to,
    tanh,
)
from fastgru.kernels.threads import share_out
from fastgru.kernels.width import SIMD_WIDTH

GATES = ("r", "z", "n")

# How many rows go through their steps together: their scratch memory stays in the cache, and the
# weights are read often enough.
ROWS = 48

# How many bytes of input projections one worker computes before it runs the recurrence over them.
CHUNK_BYTES = 128 * 1024


class PackedGRU(NamedTuple):
    """Weights in the layout of the kernels; made by `pack_gru`, never changed afterwards.

    `forward` holds, one after another: the biases of the input side (n r z) and of the recurrent
    side (r z n), each padded to whole panels, then the packed kernel (I, 3H) and the packed
    recurrent kernel (H, 3H) in the same orders. Without `reset_after` the recurrent kernel is
    packed as (H, 2H) r z, then (H, H) n, because its n part multiplies r * h.
    `backward` holds the packed transposes, (3H, I) with rows n r z, and (3H, H) with rows r z n,
    the latter without `reset_after` as (2H, H) r z, then (H, H) n. It is empty when the weights
    are packed for inference alone.
    """

    forward: np.ndarray
    backward: np.ndarray
    inputs: int
    units: int
    reset_after: bool


# ---- packing


@jit
def gru_pack(
    kernel, recurrent_kernel, bias, recurrent_bias, reset_after, forward, backward, worker, workers
):
    """Lay out one worker's share of the weights. See `pack_gru`."""
    I, G = kernel.shape
    H = G // 3
    k, u, b, c = pointer(kernel), pointer(recurrent_kernel), pointer(bias), pointer(recurrent_bias)
    p = pointer(forward)
    wide, wide_2 = whole_panels(G, p), whole_panels(2 * H, p)
    if worker == 0:
        fill(p, 2 * wide, 0.0)
        copy(b + 2 * H, H, p)
        copy(b, 2 * H, p + H)
        copy(c, G, p + wide)
    p = p + 2 * wide
    begin, end = I * worker // workers, I * (worker + 1) // workers
    pack_columns(k + 2 * H, G, begin, end, I, H, p, 0)
    pack_columns(k, G, begin, end, I, 2 * H, p, H)
    p = p + I * wide
    begin, end = H * worker // workers, H * (worker + 1) // workers
    if reset_after:
        pack_columns(u, G, begin, end, H, G, p, 0)
    else:
        pack_columns(u, G, begin, end, H, 2 * H, p, 0)
        pack_columns(u + 2 * H, G, begin, end, H, H, p + H * wide_2, 0)
    if backward.size == 0:
        return
    p = pointer(backward)
    begin, end = share_of_panels(I, p, worker, workers)
    pack_transposed(k + 2 * H, G, begin, end, H, I, p, G, 0)
    pack_transposed(k, G, begin, end, 2 * H, I, p, G, H)
    p = p + G * whole_panels(I, p)
    begin, end = share_of_panels(H, p, worker, workers)
    if reset_after:
        pack_transposed(u, G, begin, end, G, H, p, G, 0)
    else:
        pack_transposed(u, G, begin, end, 2 * H, H, p, 2 * H, 0)
        p = p + 2 * H * whole_panels(H, p)
        pack_transposed(u + 2 * H, G, begin, end, H, H, p, H, 0)


def pack_gru(
    kernel: np.ndarray,
    recurrent_kernel: np.ndarray,
    bias: np.ndarray,
    recurrent_bias: np.ndarray,
    *,
    reset_after: bool = True,
    backward: bool = False,
) -> PackedGRU:
    """Lay out the weights of a GRU for the kernels.

    Parameters
    ----------
    kernel : (I, 3H), recurrent_kernel : (H, 3H), bias, recurrent_bias : (3H,)
        Gate order r, z, n; C-contiguous, all of one dtype, float32 or float64.
    reset_after : bool
        Which of the two GRUs the weights are for.
    backward : bool
        Whether to pack for `gru_backward` as well.
    """
    (I, G), H, dtype = kernel.shape, recurrent_kernel.shape[0], kernel.dtype
    wide = padded(G, dtype)
    recurrent = wide if reset_after else padded(2 * H, dtype) + padded(H, dtype)
    forward = aligned_empty((2 * wide + I * wide + H * recurrent,), dtype)
    transposed = aligned_empty((G * (padded(I, dtype) + padded(H, dtype)) * backward,), dtype)
    arrays = kernel, recurrent_kernel, bias, recurrent_bias, reset_after, forward, transposed
    share_out(gru_pack, arrays, max(I, H), PACK_FLOPS * (forward.size + transposed.size))
    return PackedGRU(forward, transposed, I, H, reset_after)


# ---- forward


@inline
def _combine(gate, candidate, xn, xr, xz, hr, hz, q):
    """Return r, z, n of one vector of units from their pre-activations."""
    if gate == SIGMOID and candidate == TANH:
        r = sigmoid(xr + hr)
        return r, sigmoid(xz + hz), tanh(fma(r, q, xn))
    r = activate(gate, xr + hr)
    return r, activate(gate, xz + hz), activate(candidate, fma(r, q, xn))


@part
def _step_reset_after(H, x, a, h, y, kept, keep, gate, candidate):
    """Finish one step of one row: r, z, n, and h = n + z (h - n).

    x holds the input's n r z (3H), a the recurrent r z q (3H), h the previous state.
    """
    for j in range(0, H, lanes(x)):
        left = H - j
        q = load(a + (2 * H + j))
        r, z, n = _combine(
            gate, candidate, load(x + j), load(x + (H + j)), load(x + (2 * H + j)),
            load(a + j), load(a + (H + j)), q,
        )  # fmt: skip
        store_up_to(y + j, fma(z, load_up_to(h + j, left) - n, n), left)
        if keep:
            store_up_to(kept + j, n, left)
            store_up_to(kept + (H + j), r, left)
            store_up_to(kept + (2 * H + j), z, left)
            store_up_to(kept + (3 * H + j), q, left)


@part
def _reset_before(H, x, a, h, gate):
    """Turn the recurrent r z (2H) in a into r z and, behind them, r * h: what Un multiplies."""
    for j in range(0, H, lanes(x)):
        left = H - j
        r = activate(gate, load(x + (H + j)) + load(a + j))
        z = activate(gate, load(x + (2 * H + j)) + load(a + (H + j)))
        # Behind the last unit r would overwrite z, hence the exact stores.
        store_up_to(a + j, r, left)
        store_up_to(a + (H + j), z, left)
        store_up_to(a + (2 * H + j), r * load_up_to(h + j, left), left)


@part
def _step_reset_before(H, x, a, u, h, y, kept, keep, candidate):
    """Finish one step of one row: n from the product u = (r * h) Un + cn, and h = n + z (h - n)."""
    for j in range(0, H, lanes(x)):
        left = H - j
        z = load(a + (H + j))
        n = activate(candidate, load(x + j) + load(u + j))
        store_up_to(y + j, fma(z, load_up_to(h + j, left) - n, n), left)
        if keep:
            store_up_to(kept + j, n, left)
            store_up_to(kept + (H + j), load(a + j), left)
            store_up_to(kept + (2 * H + j), z, left)
            store_up_to(kept + (3 * H + j), load(a + (2 * H + j)), left)


@register_jitable
def _forward_chunk(rows, T, wide, itemsize):
    """Return for how many steps at a time the input's projections are computed."""
    return max(1, min(T, CHUNK_BYTES // (rows * wide * itemsize)))


@register_jitable
def _forward_work(rows, T, wide, itemsize):
    """Return the size of the scratch memory of `_forward_block`: projections, a and u."""
    steps = _forward_chunk(rows, T, wide, itemsize) + 2
    return rows * wide * steps + (64 + 2 * 4 * SIMD_WIDTH) // itemsize


@part
def _finish_step(
    rows, first, t, at, x, mask, xs, xs_row, a, u, wide, h, h_row, now, y_row, kept, T, H, keep,
    reset_after, gate, candidate,
):  # fmt: skip
    """Finish step t of all rows, whose products are in a (and u): gates and state."""
    masked = mask.size > 0
    for row in range(rows):
        before = h + row * h_row
        after = now + row * y_row
        if masked and not mask[first + row, at]:
            copy(before, H, after)
            continue
        x_t = xs + row * xs_row
        kept_t = kept
        if keep:
            kept_t += (row * T + t) * 4 * H
        if reset_after:
            _step_reset_after(H, x_t, a + row * wide, before, after, kept_t, keep, gate, candidate)
        else:
            u_t = u + row * whole_panels(H, a)
            _step_reset_before(H, x_t, a + row * wide, u_t, before, after, kept_t, keep, candidate)


@part
def _forward_block(
    first, rows, x, mask, h0, weights, y, gates, work, reset_after, go_backwards, gate, candidate,
    progress, worker, workers,
):  # fmt: skip
    """Run some rows through all their steps, alone or, with `progress`, with the other workers."""
    B, T, I = x.shape
    H = h0.shape[1]
    w = pointer(weights)
    wide = whole_panels(3 * H, w)
    chunk = _forward_chunk(rows, T, wide, weights.itemsize)
    xs = aligned(pointer(work))
    a = xs + rows * chunk * wide
    u = a + rows * wide
    bias, recurrent_bias, kernel = w, w + wide, w + 2 * wide
    recurrent = kernel + I * wide
    recurrent_n = recurrent + H * whole_panels(2 * H, w)
    x_at = pointer(x) + first * T * I
    x_step = I
    if go_backwards:
        x_at += (T - 1) * I
        x_step = -I
    keep = gates.size > 0
    y_step = H if y.shape[1] == T else 0
    y_row = y.shape[1] * H
    y_at = pointer(y) + first * y_row
    kept = pointer(gates)
    if keep:
        kept += first * T * 4 * H
    phase = 0
    for t0 in range(0, T, chunk):
        steps = min(chunk, T - t0)
        if steps >= rows:
            for row in range(rows):
                if shared_product(
                    progress, phase, worker, workers, steps, wide, I,
                    x_at + (row * T * I + t0 * x_step), x_step, 1, kernel,
                    bias, 0, xs + row * chunk * wide, wide,
                ):  # fmt: skip
                    release(progress, phase)
                phase = follow(progress, phase)
        else:
            for t in range(steps):
                if shared_product(
                    progress, phase, worker, workers, rows, wide, I,
                    x_at + (t0 + t) * x_step, T * I, 1, kernel,
                    bias, 0, xs + t * wide, chunk * wide,
                ):  # fmt: skip
                    release(progress, phase)
                phase = follow(progress, phase)
        for t in range(t0, t0 + steps):
            at = T - 1 - t if go_backwards else t
            if t == 0:
                h = pointer(h0) + first * H
                h_row = H
            else:
                h = y_at + (t - 1) * y_step
                h_row = y_row
            now = y_at + t * y_step
            x_t = xs + (t - t0) * wide
            x_row = chunk * wide
            if not reset_after:
                # The columns r z end inside a panel; what its rest holds is overwritten by r * h.
                columns = whole_panels(2 * H, w)
                if shared_product(
                    progress, phase, worker, workers, rows, columns, H, h, h_row, 1,
                    recurrent, recurrent_bias, 0, a, wide,
                ):  # fmt: skip
                    for row in range(rows):
                        _reset_before(H, x_t + row * x_row, a + row * wide, h + row * h_row, gate)
                    release(progress, phase)
                phase = follow(progress, phase)
            columns = wide if reset_after else whole_panels(H, w)
            if shared_product(
                progress, phase, worker, workers, rows, columns, H,
                h if reset_after else a + 2 * H, h_row if reset_after else wide, 1,
                recurrent if reset_after else recurrent_n,
                recurrent_bias if reset_after else recurrent_bias + 2 * H, 0,
                a if reset_after else u, columns,
            ):  # fmt: skip
                _finish_step(
                    rows, first, t, at, x, mask, x_t, x_row, a, u, wide, h, h_row, now, y_row,
                    kept, T, H, keep, reset_after, gate, candidate,
                )  # fmt: skip
                release(progress, phase)
            phase = follow(progress, phase)


@jit
def gru_forward_rows(
    x, mask, h0, weights, y, gates, work, progress, reset_after, go_backwards, gate, candidate,
    worker, workers,
):  # fmt: skip
    """Run one worker's share of the rows, or with `progress` of the units. See `gru_forward`."""
    B, T, I = x.shape
    H = h0.shape[1]
    if T == 0 or y.shape[1] == 0:
        return
    if progress.size > 0:
        _forward_block(
            0, B, x, mask, h0, weights, y, gates, work, reset_after, go_backwards, gate, candidate,
            progress, worker, workers,
        )  # fmt: skip
        return
    first = B * worker // workers
    rows = B * (worker + 1) // workers - first
    if rows == 0:
        return
    blocks = (rows + ROWS - 1) // ROWS
    most = (rows + blocks - 1) // blocks
    own = np.empty(
        _forward_work(most, T, whole_panels(3 * H, pointer(weights)), x.itemsize), x.dtype
    )
    for block in range(blocks):
        begin, end = rows * block // blocks, rows * (block + 1) // blocks
        _forward_block(
            first + begin, end - begin, x, mask, h0, weights, y, gates, own, reset_after,
            go_backwards, gate, candidate, progress, worker, workers,
        )  # fmt: skip
    keep_alive(own)


def gru_forward(
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    weights: PackedGRU,
    *,
    return_sequences: bool = True,
    keep: bool = False,
    go_backwards: bool = False,
    recurrent_activation: int = SIGMOID,
    activation: int = TANH,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a GRU over a padded batch.

    Formula (s and f the two activations, * elementwise; a masked step keeps h):
        r = s(x Wr + br + h Ur + cr)        z = s(x Wz + bz + h Uz + cz)
        q = h Un + cn                       n = f(x Wn + bn + r * q)       with reset_after
        q = r * h                           n = f(x Wn + bn + q Un + cn)   without
        h = n + z * (h - n)
    Parameters      shape        (all of one dtype, float32 or float64, C-contiguous)
    ----------
    x               (B, T, I)    in
    mask            (B, T) bool  in, False = masked; None: no step is masked
    h0              (B, H)       in, state before step 0
    weights         PackedGRU    in
    activation, recurrent_activation    in, indices into ACTIVATIONS: f and s
    Returns y (B, T, H), or (B, 1, H), the last state alone, without `return_sequences`; and the
    gates (B, T, 4, H) n r z q, empty unless `keep`, undefined at masked steps. With
    `go_backwards` step t reads x[:, T - 1 - t], and y is in the order of the steps (Keras).
    When T is 0, y is empty, and without `return_sequences` it is h0.
    Parallel over rows; an element is computed by one worker in one order, so the bits do not
    depend on the number of threads or on the other rows.
    Source: Cho et al. 2014, arXiv:1406.1078v3, equations 5 to 8, with z and 1 - z exchanged as in
    Chung et al. 2014, arXiv:1412.3555v1; reset_after is the form of cuDNN. Twin:
    reference.gru_forward.
    """
    (B, T, I), H = x.shape, weights.units
    y = aligned_empty((B, T if return_sequences else 1, H), x.dtype)
    if T == 0 and not return_sequences:
        y[:, 0] = h0
    gates = aligned_empty((B, T, 4, H) if keep else (0, 0, 4, H), x.dtype)
    mask = NO_MASK if mask is None else mask
    flops = 2 * B * T * (I + H) * 3 * H
    shares, progress = split(B, T, 2 * B * H * 3 * H)
    wide = padded(3 * H, x.dtype)
    work = np.empty(_forward_work(B, T, wide, x.itemsize) if progress.size else 0, x.dtype)
    arguments = (
        x, mask, h0, weights.forward, y, gates, work, progress,
        weights.reset_after, go_backwards, recurrent_activation, activation,
    )  # fmt: skip
    share_out(gru_forward_rows, arguments, shares, flops)
    return y, gates


NO_MASK = np.empty((0, 0), np.bool_)


def gru_step(x: np.ndarray, h: np.ndarray, weights: PackedGRU, **activations: int) -> np.ndarray:
    """Run one step: x (B, I) and the state h (B, H) give the next state (B, H).

    Formula, weights, activations and Source: those of `gru_forward`, whose bits these are.
    Twin: reference.gru_step.
    """
    y, _ = gru_forward(x[:, None], None, h, weights, return_sequences=False, **activations)
    return y[:, 0]


# ---- backward


@part
def _gradient_reset_after(H, kept, h, dy, with_dy, dh, gate, candidate):
    """Turn n r z q of one row and step into dn dr dz dq, and dh into z * dh.

    In the forward pass this was:    So now, with g = dh + dy:
        h' = n + z (h - n)               dz = g (h - n) s'    dn = g (1 - z) f'    dh = g z
        n = f(xn + r q)                  dr = dn q s'         dq = dn r
    """
    for j in range(0, H, lanes(kept)):
        left = H - j
        n = load_up_to(kept + j, left)
        r = load_up_to(kept + (H + j), left)
        z = load_up_to(kept + (2 * H + j), left)
        q = load_up_to(kept + (3 * H + j), left)
        g = load_up_to(dh + j, left)
        if with_dy:
            g = g + load_up_to(dy + j, left)
        if gate == SIGMOID and candidate == TANH:
            n_slope, r_slope, z_slope = 1.0 - n * n, r * (1.0 - r), z * (1.0 - z)
        else:
            n_slope, r_slope, z_slope = slope(candidate, n), slope(gate, r), slope(gate, z)
        dn = g * (1.0 - z) * n_slope
        store_up_to(dh + j, g * z, left)
        store_up_to(kept + j, dn, left)
        store_up_to(kept + (H + j), dn * q * r_slope, left)
        store_up_to(kept + (2 * H + j), g * (load_up_to(h + j, left) - n) * z_slope, left)
        store_up_to(kept + (3 * H + j), dn * r, left)


@part
def _gradient_reset_before(H, kept, h, dy, with_dy, dh, gate, candidate):
    """Turn n and z of one row and step into dn and dz, and dh into z * dh; r and q stay.

    In the forward pass this was:    So now, with g = dh + dy:
        h' = n + z (h - n)               dz = g (h - n) s'    dn = g (1 - z) f'    dh = g z
    """
    for j in range(0, H, lanes(kept)):
        left = H - j
        n = load_up_to(kept + j, left)
        z = load_up_to(kept + (2 * H + j), left)
        g = load_up_to(dh + j, left)
        if with_dy:
            g = g + load_up_to(dy + j, left)
        store_up_to(dh + j, g * z, left)
        store_up_to(kept + j, g * (1.0 - z) * slope(candidate, n), left)
        dz = g * (load_up_to(h + j, left) - n) * slope(gate, z)
        store_up_to(kept + (2 * H + j), dz, left)


@part
def _gradient_of_reset(H, kept, h, dq, dh, gate):
    """Turn r of one row and step into dr; q = r h stays, since dUn = q^T dn needs it.

    In the forward pass this was:    So now, with dq = dn Un^T:
        q = r h                          dr = dq h s'         dh += dq r
    """
    for j in range(0, H, lanes(kept)):
        left = H - j
        r = load_up_to(kept + (H + j), left)
        d = load_up_to(dq + j, left)
        store_up_to(dh + j, fma(d, r, load_up_to(dh + j, left)), left)
        dr = d * load_up_to(h + j, left) * slope(gate, r)
        store_up_to(kept + (H + j), dr, left)


@part
def _gradients_of_step(
    rows, first, t, at, mask, kept, T, H, h, h_row, dy, with_dy, dh, reset_after, gate, candidate
):
    """Turn n r z q of step t of all rows into gradients, and dh into z * dh."""
    masked = mask.size > 0
    for row in range(rows):
        dh_row = dh + row * H
        dy_row = dy
        if with_dy:
            dy_row += (row * T + t) * H
        kept_row = kept + (row * T + t) * 4 * H
        if masked and not mask[first + row, at]:
            fill(kept_row, 4 * H, 0.0)
            if with_dy:
                for j in range(0, H, lanes(dh)):
                    g = load_up_to(dh_row + j, H - j) + load_up_to(dy_row + j, H - j)
                    store_up_to(dh_row + j, g, H - j)
        elif reset_after:
            _gradient_reset_after(
                H, kept_row, h + row * h_row, dy_row, with_dy, dh_row, gate, candidate
            )
        else:
            _gradient_reset_before(
                H, kept_row, h + row * h_row, dy_row, with_dy, dh_row, gate, candidate
            )


@register_jitable
def _backward_work(rows, I, H, itemsize):
    """Return the size of the scratch memory of `_backward_block`: zeros and dq."""
    return max(I, H) + rows * H + (64 + 2 * 4 * SIMD_WIDTH) // itemsize


@part
def _backward_block(
    first, rows, dy, dh, mask, h0, weights, y, gates, dx, work, reset_after, go_backwards, gate,
    candidate, progress, worker, workers,
):  # fmt: skip
    """Run some rows back through all steps, alone or, with `progress`, with the other workers."""
    B, T, _, H = gates.shape
    I = dx.shape[2]
    G = 3 * H
    w = pointer(weights)
    recurrent = w + G * whole_panels(I, w)
    recurrent_n = recurrent + 2 * H * whole_panels(H, w)
    dq = aligned(pointer(work))
    zeros = dq + rows * H
    # A missing dy: only the last state has a gradient.
    with_dy = dy.size > 0
    dy_at = pointer(dy)
    if with_dy:
        dy_at += first * T * H
    dh_at = pointer(dh) + first * H
    kept = pointer(gates) + first * T * 4 * H
    h_before = pointer(h0) + first * H
    y_at = pointer(y) + first * T * H
    # Each step's product is followed by the gates of the step before it; first come the last ones.
    phase = 0
    t = T
    while t >= 0:
        h_row = T * H if t > 1 else H
        h = y_at + (t - 2) * H if t > 1 else h_before
        if t == T:
            go_on = lead(progress, phase, workers)
        else:
            h_t = y_at + (t - 1) * H if t > 0 else h_before
            h_t_row = T * H if t > 0 else H
            kept_t = kept + t * 4 * H
            if not reset_after:
                if shared_product(
                    progress, phase, worker, workers, rows, H, H, kept_t, T * 4 * H, 1,
                    recurrent_n, zeros, 0, dq, H,
                ):  # fmt: skip
                    for row in range(rows):
                        _gradient_of_reset(
                            H, kept_t + row * T * 4 * H, h_t + row * h_t_row, dq + row * H,
                            dh_at + row * H, gate,
                        )  # fmt: skip
                    release(progress, phase)
                phase = follow(progress, phase)
            go_on = shared_product(
                progress, phase, worker, workers, rows, H, G if reset_after else 2 * H,
                kept_t + H, T * 4 * H, 1, recurrent, dh_at, H, dh_at, H,
            )  # fmt: skip
        if go_on:
            if t > 0:
                _gradients_of_step(
                    rows, first, t - 1, T - t if go_backwards else t - 1, mask, kept, T, H, h,
                    h_row, dy_at, with_dy, dh_at, reset_after, gate, candidate,
                )  # fmt: skip
            release(progress, phase)
        phase = follow(progress, phase)
        t -= 1
    if dx.size > 0:
        dx_at = pointer(dx) + first * T * I
        for row in range(rows):
            if shared_product(
                progress, phase, worker, workers, T, I, G, kept + row * T * 4 * H, 4 * H, 1, w,
                zeros, 0, dx_at + (row * T + (T - 1 if go_backwards else 0)) * I,
                -I if go_backwards else I,
            ):  # fmt: skip
                release(progress, phase)
            phase = follow(progress, phase)


@jit
def gru_backward_rows(
    dy, dh, mask, h0, weights, y, gates, dx, work, progress, reset_after, go_backwards, gate,
    candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share backward: gates become gradients, dh that of h0. See `gru_backward`.

    The share is one of the rows or, with `progress`, of the units.
    """
    B, T, _, H = gates.shape
    I = dx.shape[2]
    if T == 0:
        return
    if progress.size > 0:
        _backward_block(
            0, B, dy, dh, mask, h0, weights, y, gates, dx, work, reset_after, go_backwards, gate,
            candidate, progress, worker, workers,
        )  # fmt: skip
        return
    first = B * worker // workers
    rows = B * (worker + 1) // workers - first
    if rows == 0:
        return
    blocks = (rows + ROWS - 1) // ROWS
    most = (rows + blocks - 1) // blocks
    own = np.zeros(_backward_work(most, I, H, h0.itemsize), h0.dtype)
    for block in range(blocks):
        begin, end = rows * block // blocks, rows * (block + 1) // blocks
        _backward_block(
            first + begin, end - begin, dy, dh, mask, h0, weights, y, gates, dx, own, reset_after,
            go_backwards, gate, candidate, progress, worker, workers,
        )  # fmt: skip
    keep_alive(own)


@part
def _block_of_inputs(block, start, count, x, mask, h0, y, gates, after, backwards, zeros):
    """Copy what was multiplied in `count` steps (numbered b * T + t): x, h (and r * h), grouped.

    A masked step gives zeros: its gradients are zero, but its x may hold NaN.
    """
    B, T, I = x.shape
    H = h0.shape[1]
    x_at, h0_at, y_at, kept = pointer(x), pointer(h0), pointer(y), pointer(gates)
    h_block = block + grouped_size(I)
    for k in range(count):
        b = (start + k) // T
        t = (start + k) % T
        source = T - 1 - t if backwards else t
        if mask.size > 0 and not mask[b, source]:
            group_columns(zeros, I, block, k)
        else:
            group_columns(x_at + (b * T + source) * I, I, block, k)
        if t == 0:
            group_columns(h0_at + b * H, H, h_block, k)
        else:
            group_columns(y_at + (b * T + t - 1) * H, H, h_block, k)
        if not after:
            q = kept + ((b * T + t) * 4 + 3) * H
            group_columns(q, H, h_block + grouped_size(H), k)


@jit
def gru_backward_columns(
    x, mask, h0, y, gates, dkernel, drecurrent_kernel, dbias, drecurrent_bias,
    reset_after, go_backwards, worker, workers,
):  # fmt: skip
    """Add one worker's share of the columns of the weight gradients. See `gru_backward`.

    A panel of columns of one slot (dn dr dz dq) is packed once and multiplied with all that it
    met in the forward pass. Each column is summed by one worker, over b, then t.
    """
    B, T, I = x.shape
    H = h0.shape[1]
    G = 3 * H
    p = pointer(gates)
    width = 2 * lanes(p)
    slots = 4 if reset_after else 3
    panels = (H + width - 1) // width
    item = gates.itemsize
    size = grouped_size(I) + (1 if reset_after else 2) * grouped_size(H)
    work = np.empty(BLOCK * width + slots * panels * width + size + I + 64 // item, x.dtype)
    packed = aligned(pointer(work))
    sums = packed + BLOCK * width
    block = sums + slots * panels * width
    zeros = block + size
    fill(sums, slots * panels * width, 0.0)
    fill(zeros, I, 0.0)
    whole = panels * (3 * I + 3 * H)
    dk, du, db, dc = (
        pointer(dkernel), pointer(drecurrent_kernel), pointer(dbias), pointer(drecurrent_bias),
    )  # fmt: skip
    for start in range(0, B * T, BLOCK):
        count = min(BLOCK, B * T - start)
        _block_of_inputs(
            block, start, count, x, mask, h0, y, gates, reset_after, go_backwards, zeros
        )
        last_block = start + BLOCK >= B * T
        # Panels go to workers by the work before them, so that shares are even.
        done = 0
        for slot in range(slots):
            # Slots n r z q stand for the gates 2 0 1 2 in the order of the params.
            gate = (slot + 2) % 3
            meets_input = slot < 3
            meets_state = slot > 0 or not reset_after
            for panel in range(panels):
                mine = done * workers // whole == worker
                done += I * meets_input + H * meets_state
                if not mine:
                    continue
                j = panel * width
                few = min(width, H - j)
                column = gate * H + j
                total = sums + (slot * panels + panel) * width
                source = p + (start * 4 * H + slot * H + j)
                pack_block(source, 4 * H, count, few, packed, total)
                if meets_input:
                    add_product(few, I, count, block, packed, dk + column, G)
                if meets_state:
                    factor = block + (grouped_size(I) + grouped_size(H) * (slot == 0))
                    add_product(few, H, count, factor, packed, du + column, G)
                if last_block:
                    for i in range(0, few, lanes(p)):
                        left = few - i
                        value = load_up_to(total + i, left)
                        if meets_input:
                            at = db + (column + i)
                            store_up_to(at, load_up_to(at, left) + value, left)
                        if meets_state:
                            at = dc + (column + i)
                            store_up_to(at, load_up_to(at, left) + value, left)
    keep_alive(work)


def gru_backward(
    dy: np.ndarray | None,
    dh_last: np.ndarray | None,
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    weights: PackedGRU,
    y: np.ndarray,
    gates: np.ndarray,
    gradients: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    *,
    with_dx: bool = True,
    go_backwards: bool = False,
    recurrent_activation: int = SIGMOID,
    activation: int = TANH,
) -> tuple[np.ndarray, np.ndarray]:
    """Propagate gradients back through the steps of `gru_forward`, which kept `y` and `gates`.

    Formula: beside the loops (`_gradient_reset_after`, `_gradient_reset_before`).
    Parameters      shape        (all of one dtype, float32 or float64, C-contiguous)
    ----------
    dy              (B, T, H)    in, gradient of y; None: zeros
    dh_last         (B, H)       in, gradient of the last state, added to dy's; None: zeros
    x, mask, h0, weights         in, as in the forward pass; weights packed with `backward`
    y               (B, T, H)    in
    gates           (B, T, 4, H) overwritten with dn dr dz dq: a second call would be wrong
    gradients       dkernel (I, 3H), drecurrent_kernel (H, 3H), dbias, drecurrent_bias (3H,):
                                 added to, gate order r z n
    go_backwards, recurrent_activation, activation    in, as in the forward pass
    Returns dx (B, T, I), zero at masked steps, or (0, T, I) unless `with_dx`; and dh0 (B, H).
    Rows are shared out for dx and dh0, columns for the weights: no sum is ever merged, so the
    bits do not depend on the number of threads.
    Source: Werbos 1990, backpropagation through time; the buffers are those of the haste library.
    Twin: reference.gru_backward.
    """
    B, T, I = x.shape
    H = weights.units
    dx = aligned_empty((B, T, I) if with_dx else (0, T, I), x.dtype)
    dh = aligned_empty((B, H), x.dtype)
    dh[...] = 0 if dh_last is None else dh_last
    dy = none_of(x.dtype, 3) if dy is None else dy
    mask = NO_MASK if mask is None else mask
    options = weights.reset_after, go_backwards
    flops = 2 * B * T * (I + H) * 3 * H
    shares, progress = split(B, T, 2 * B * H * 3 * H)
    work = np.zeros(_backward_work(B, I, H, x.itemsize) if progress.size else 0, x.dtype)
    arguments = (
        dy, dh, mask, h0, weights.backward, y, gates, dx, work, progress, *options,
        recurrent_activation, activation,
    )  # fmt: skip
    share_out(gru_backward_rows, arguments, shares, flops)
    arguments = (x, mask, h0, y, gates, *gradients, *options)
    share_out(gru_backward_columns, arguments, 3 * -(-H // panel_width(x.dtype)), flops)
    return dx, dh
