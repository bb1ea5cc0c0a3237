"""The GRU over a batch of sequences: forward and backward, on prepacked weights.

Gates: r reset, z update, n candidate. Params hold them in the order r, z, n (`GATES`). A step
keeps four slots of H values, n r z q, since the candidate's two sums stay apart: n is what the
input's side leads to and q what the state's side does. The backward pass overwrites them with the
gradients of the pre-activations: dn dr dz dq. The loops are those of `recurrence`.
"""

from __future__ import annotations

import numpy as np

from fastgru.kernels.activations import SIGMOID, TANH, activate, slope
from fastgru.kernels.jit import argument, inline, jit, part
from fastgru.kernels.packing import Packed, pack
from fastgru.kernels.recurrence import (
    backward_rows,
    forward_rows,
    run_backward,
    run_forward,
)
from fastgru.kernels.simd import (
    fma,
    lanes,
    load,
    load_up_to,
    prefetch,
    sigmoid,
    store_up_to,
    tanh,
)

GATES = ("r", "z", "n")
SLOTS = 4
APART = 1  # the candidate, r * q being between its two sums


def pack_gru(
    kernel: np.ndarray,
    recurrent_kernel: np.ndarray,
    bias: np.ndarray,
    recurrent_bias: np.ndarray,
    *,
    reset_after: bool = True,
    backward: bool = False,
) -> Packed:
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
    weights = kernel, recurrent_kernel, bias, recurrent_bias
    return pack(*weights, apart=APART, held=not reset_after, backward=backward)


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
    """Turn the recurrent r z (2H) in a into r z and, behind them, r * h: what Un multiplies.

    h is the previous state, or with a dropout what that has left of it.
    """
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


@inline
def _step(H, x, a, u, h, y, c, c_new, kept, keep, held, gate, candidate):
    """Finish one step of one row: see `forward_rows`."""
    if held is not None:
        _step_reset_before(H, x, a, u, h, y, kept, keep, candidate)
    else:
        _step_reset_after(H, x, a, h, y, kept, keep, gate, candidate)


@jit
def gru_forward_rows(
    x, mask, h0, c0, drop, weights, y, c, gates, work, progress, held, go_backwards, gate,
    candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share of the rows, or with `progress` of the units. See `gru_forward`."""
    forward_rows(
        APART, argument(_step), argument(_reset_before), x, mask, h0, c0, drop, weights, y, c,
        gates, work, progress, held, go_backwards, gate, candidate, worker, workers,
    )  # fmt: skip


def gru_forward(
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    weights: Packed,
    *,
    return_sequences: bool = True,
    keep: bool = False,
    go_backwards: bool = False,
    drop: np.ndarray | None = None,
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
    weights         Packed    in
    activation, recurrent_activation    in, indices into ACTIVATIONS: f and s
    drop            (B, H)       in, what h is multiplied with wherever Ur, Uz or Un takes it,
                                 in all steps alike: a recurrent dropout; None: nothing
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
    y, _, gates = run_forward(
        gru_forward_rows, x, mask, h0, None, weights, SLOTS, (recurrent_activation, activation),
        return_sequences=return_sequences, keep=keep, go_backwards=go_backwards,
        drop=drop,
    )  # fmt: skip
    return y, gates


def gru_step(x: np.ndarray, h: np.ndarray, weights: Packed, **activations: int) -> np.ndarray:
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
        # The step before is the next one, and on another page: no hardware would look there.
        for slot in range(4):
            prefetch(kept + ((slot - 4) * H + j))
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

    Where a dropout multiplied h, dq has been multiplied with the same.
    """
    for j in range(0, H, lanes(kept)):
        left = H - j
        r = load_up_to(kept + (H + j), left)
        d = load_up_to(dq + j, left)
        store_up_to(dh + j, fma(d, r, load_up_to(dh + j, left)), left)
        dr = d * load_up_to(h + j, left) * slope(gate, r)
        store_up_to(kept + (H + j), dr, left)


@inline
def _gradient(H, kept, h, c, c_new, dy, with_dy, dh, dc, held, gate, candidate):
    """Turn the slots of one row and step into gradients: see `backward_rows`."""
    if held is not None:
        _gradient_reset_before(H, kept, h, dy, with_dy, dh, gate, candidate)
    else:
        _gradient_reset_after(H, kept, h, dy, with_dy, dh, gate, candidate)


@jit
def gru_backward_rows(
    dy, dh, dc, mask, h0, c0, drop, weights, y, c, gates, dx, work, progress, held, go_backwards,
    gate, candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share backward: gates become gradients, dh that of h0. See `gru_backward`.

    The share is one of the rows or, with `progress`, of the units.
    """
    backward_rows(
        APART, argument(_gradient), argument(_gradient_of_reset), dy, dh, dc, mask, h0, c0, drop,
        weights, y, c, gates, dx, work, progress, held, go_backwards, gate, candidate, worker,
        workers,
    )  # fmt: skip


def gru_backward(
    dy: np.ndarray | None,
    dh_last: np.ndarray | None,
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    weights: Packed,
    y: np.ndarray,
    gates: np.ndarray,
    gradients: tuple[np.ndarray, ...],
    *,
    with_dx: bool = True,
    overwrite: bool = False,
    go_backwards: bool = False,
    drop: np.ndarray | None = None,
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
                                 added to, gate order r z n; or ()
    overwrite       bool         in: whether gradients are taken for zeros, whatever they hold
    go_backwards, recurrent_activation, activation, drop    in, as in the forward pass
    Returns dx (B, T, I), zero at masked steps, or (0, T, I) unless `with_dx`; and dh0 (B, H).
    Rows are shared out for dx and dh0, columns for the weights: no sum is ever merged, so the
    bits do not depend on the number of threads.
    Source: Werbos 1990, backpropagation through time; the buffers are those of the haste library.
    Twin: reference.gru_backward.
    """
    dx, dh0, _ = run_backward(
        gru_backward_rows, dy, dh_last, None, x, mask, h0, None, weights, y, None, gates,
        gradients, (recurrent_activation, activation), with_dx=with_dx, overwrite=overwrite,
        go_backwards=go_backwards, drop=drop,
    )  # fmt: skip
    return dx, dh0
