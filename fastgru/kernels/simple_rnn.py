"""The simple recurrent network over a batch of sequences, on prepacked weights.

A step keeps one slot of H values, the new state n, which the backward pass overwrites with the
gradient of the pre-activation. The loops are those of `recurrence`.
"""

from __future__ import annotations

import numpy as np

from fastgru.kernels.activations import TANH, activate, slope
from fastgru.kernels.jit import argument, inline, jit
from fastgru.kernels.packing import Packed, pack
from fastgru.kernels.recurrence import (
    backward_rows,
    forward_rows,
    run_backward,
    run_forward,
)
from fastgru.kernels.simd import lanes, load, load_up_to, splat, store_up_to, tanh

SLOTS = 1


def pack_simple_rnn(
    kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray, *, backward: bool = False
) -> Packed:
    """Lay out the weights of a simple recurrent network for the kernels.

    Parameters
    ----------
    kernel : (I, H), recurrent_kernel : (H, H), bias : (H,)
        C-contiguous, all of one dtype, float32 or float64.
    backward : bool
        Whether to pack for `simple_rnn_backward` as well.
    """
    return pack(kernel, recurrent_kernel, bias, backward=backward)


# ---- forward


@inline
def _step(H, x, a, u, h, y, c, c_new, kept, keep, held, gate, candidate):
    """Finish one step of one row: the new state from its sum in a."""
    for j in range(0, H, lanes(a)):
        left = H - j
        n = tanh(load(a + j)) if candidate == TANH else activate(candidate, load(a + j))
        store_up_to(y + j, n, left)
        if keep:
            store_up_to(kept + j, n, left)


@jit
def simple_rnn_forward_rows(
    x, mask, h0, c0, drop, weights, y, c, gates, work, progress, held, go_backwards, gate,
    candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share of the rows, or with `progress` of the units.

    See `simple_rnn_forward`.
    """
    forward_rows(
        0, argument(_step), None, x, mask, h0, c0, drop, weights, y, c, gates, work, progress,
        held, go_backwards, gate, candidate, worker, workers,
    )  # fmt: skip


def simple_rnn_forward(
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    weights: Packed,
    *,
    return_sequences: bool = True,
    keep: bool = False,
    go_backwards: bool = False,
    drop: np.ndarray | None = None,
    activation: int = TANH,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a simple recurrent network over a padded batch.

    Formula (f the activation; a masked step keeps h):
        h = f(x W + h U + b)
    Parameters      shape        (all of one dtype, float32 or float64, C-contiguous)
    ----------
    x               (B, T, I)    in
    mask            (B, T) bool  in, False = masked; None: no step is masked
    h0              (B, H)       in, state before step 0
    weights         Packed       in, by `pack_simple_rnn`
    activation      int          in, index into ACTIVATIONS: f
    drop            (B, H)       in, what h is multiplied with before U takes it, in all steps
                                 alike: a recurrent dropout; None: nothing
    Returns y (B, T, H), or (B, 1, H), the last state alone, without `return_sequences`; and the new
    states (B, T, 1, H) for the backward pass, empty unless `keep`, undefined at masked steps. With
    `go_backwards` step t reads x[:, T - 1 - t], and y is in the order of the steps (Keras). When T
    is 0, y is empty, and without `return_sequences` it is h0.
    Parallel over rows; an element is computed by one worker in one order, so the bits do not
    depend on the number of threads or on the other rows.
    Source: Elman 1990, Finding structure in time. Twin: reference.simple_rnn_forward.
    """
    y, _, gates = run_forward(
        simple_rnn_forward_rows, x, mask, h0, None, weights, SLOTS, (activation, activation),
        return_sequences=return_sequences, keep=keep, go_backwards=go_backwards,
        drop=drop,
    )  # fmt: skip
    return y, gates


# ---- backward


@inline
def _gradient(H, kept, h, c, c_new, dy, with_dy, dh, dc, held, gate, candidate):
    """Turn n of one row and step into the gradient of its sum, and dh into zero.

    In the forward pass this was:    So now:
        n = f(a)                         da = (dh + dy) f'
    """
    for j in range(0, H, lanes(kept)):
        left = H - j
        n = load_up_to(kept + j, left)
        g = load_up_to(dh + j, left)
        if with_dy:
            g = g + load_up_to(dy + j, left)
        store_up_to(dh + j, splat(dh, 0.0), left)
        store_up_to(kept + j, g * slope(candidate, n), left)


@jit
def simple_rnn_backward_rows(
    dy, dh, dc, mask, h0, c0, drop, weights, y, c, gates, dx, work, progress, held, go_backwards,
    gate, candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share backward: n becomes its sum's gradient, dh that of h0.

    The share is one of the rows or, with `progress`, of the units. See `simple_rnn_backward`.
    """
    backward_rows(
        0, argument(_gradient), None, dy, dh, dc, mask, h0, c0, drop, weights, y, c, gates, dx,
        work, progress, held, go_backwards, gate, candidate, worker, workers,
    )  # fmt: skip


def simple_rnn_backward(
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
    activation: int = TANH,
) -> tuple[np.ndarray, np.ndarray]:
    """Propagate gradients back through the steps of `simple_rnn_forward`, which kept y and gates.

    Formula: beside the loop (`_gradient`).
    Parameters      shape        (all of one dtype, float32 or float64, C-contiguous)
    ----------
    dy              (B, T, H)    in, gradient of y; None: zeros
    dh_last         (B, H)       in, gradient of the last state, added to dy's; None: zeros
    x, mask, h0, weights         in, as in the forward pass; weights packed with `backward`
    y               (B, T, H)    in
    gates           (B, T, 1, H) overwritten with da: a second call would be wrong
    gradients       dkernel (I, H), drecurrent_kernel (H, H), dbias (H,): added to
    overwrite       bool         in: whether gradients are taken for zeros, whatever they hold
    go_backwards, activation, drop    in, as in the forward pass
    Returns dx (B, T, I), zero at masked steps, or (0, T, I) unless `with_dx`; and dh0 (B, H).
    Source: Werbos 1990, backpropagation through time. Twin: reference.simple_rnn_backward.
    """
    dx, dh0, _ = run_backward(
        simple_rnn_backward_rows, dy, dh_last, None, x, mask, h0, None, weights, y, None, gates,
        gradients, (activation, activation), with_dx=with_dx, overwrite=overwrite,
        go_backwards=go_backwards, drop=drop,
    )  # fmt: skip
    return dx, dh0
