"""The LSTM over a batch of sequences: forward and backward, on prepacked weights.

Gates: i input, f forget, g candidate, o output. Params hold them in this order (`GATES`), Keras'
own, and so do the four slots of H values that a step keeps beside the states h and c. The backward
pass overwrites the slots with the gradients of the pre-activations: di df dg do. The loops are
those of `recurrence`.
"""

from __future__ import annotations

import numpy as np

from fastgru.kernels.activations import SIGMOID, TANH, activate, slope
from fastgru.kernels.jit import argument, inline, jit
from fastgru.kernels.packing import Packed, pack
from fastgru.kernels.recurrence import (
    backward_rows,
    forward_rows,
    run_backward,
    run_forward,
)
from fastgru.kernels.simd import fma, lanes, load, load_up_to, sigmoid, splat, store_up_to, tanh

GATES = ("i", "f", "g", "o")
SLOTS = 4


def pack_lstm(
    kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray, *, backward: bool = False
) -> Packed:
    """Lay out the weights of an LSTM for the kernels.

    Parameters
    ----------
    kernel : (I, 4H), recurrent_kernel : (H, 4H), bias : (4H,)
        Gate order i, f, g, o; C-contiguous, all of one dtype, float32 or float64.
    backward : bool
        Whether to pack for `lstm_backward` as well.
    """
    return pack(kernel, recurrent_kernel, bias, backward=backward)


# ---- forward


@inline
def _step(H, x, a, u, h, y, c, c_new, kept, keep, held, gate, candidate):
    """Finish one step of one row: i, f, g, o from their sums in a (4H), then the states."""
    for j in range(0, H, lanes(a)):
        left = H - j
        i, f = load(a + j), load(a + (H + j))
        g, o = load(a + (2 * H + j)), load(a + (3 * H + j))
        if gate == SIGMOID and candidate == TANH:
            i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
            now = fma(f, load_up_to(c + j, left), i * g)
            output = o * tanh(now)
        else:
            i, f, o = activate(gate, i), activate(gate, f), activate(gate, o)
            g = activate(candidate, g)
            now = fma(f, load_up_to(c + j, left), i * g)
            output = o * activate(candidate, now)
        store_up_to(c_new + j, now, left)
        store_up_to(y + j, output, left)
        if keep:
            store_up_to(kept + j, i, left)
            store_up_to(kept + (H + j), f, left)
            store_up_to(kept + (2 * H + j), g, left)
            store_up_to(kept + (3 * H + j), o, left)


@jit
def lstm_forward_rows(
    x, mask, h0, c0, drop, weights, y, c, gates, work, progress, held, go_backwards, gate,
    candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share of the rows, or with `progress` of the units. See `lstm_forward`."""
    forward_rows(
        0, argument(_step), None, x, mask, h0, c0, drop, weights, y, c, gates, work, progress,
        held, go_backwards, gate, candidate, worker, workers,
    )  # fmt: skip


def lstm_forward(
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    c0: np.ndarray,
    weights: Packed,
    *,
    return_sequences: bool = True,
    keep: bool = False,
    go_backwards: bool = False,
    drop: np.ndarray | None = None,
    recurrent_activation: int = SIGMOID,
    activation: int = TANH,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run an LSTM over a padded batch.

    Formula (s and p the two activations, * elementwise; a masked step keeps h and c):
        i = s(x Wi + h Ui + bi)        f = s(x Wf + h Uf + bf)
        g = p(x Wg + h Ug + bg)        o = s(x Wo + h Uo + bo)
        c = f * c + i * g              h = o * p(c)
    Parameters      shape        (all of one dtype, float32 or float64, C-contiguous)
    ----------
    x               (B, T, I)    in
    mask            (B, T) bool  in, False = masked; None: no step is masked
    h0, c0          (B, H)       in, states before step 0
    weights         Packed       in, by `pack_lstm`
    activation, recurrent_activation    in, indices into ACTIVATIONS: p and s
    drop            (B, H)       in, what h is multiplied with before U takes it, in all steps
                                 alike: a recurrent dropout; None: nothing
    Returns y (B, T, H), each step's h, or (B, 1, H), the last one alone, without
    `return_sequences`; c (B, T, H), or (B, 1, H), the last one alone, unless `keep`; and the gates
    (B, T, 4, H) i f g o, empty unless `keep`, undefined at masked steps. With `go_backwards` step t
    reads x[:, T - 1 - t], and y is in the order of the steps (Keras). When T is 0, what holds all
    steps is empty, and what holds the last state alone is the initial one.
    Parallel over rows; an element is computed by one worker in one order, so the bits do not
    depend on the number of threads or on the other rows.
    Source: Hochreiter and Schmidhuber 1997, Long short-term memory, with the forget gate of Gers,
    Schmidhuber and Cummins 2000. Twin: reference.lstm_forward.
    """
    y, c, gates = run_forward(
        lstm_forward_rows, x, mask, h0, c0, weights, SLOTS, (recurrent_activation, activation),
        return_sequences=return_sequences, keep=keep, go_backwards=go_backwards,
        drop=drop,
    )  # fmt: skip
    return y, c, gates


# ---- backward


@inline
def _gradient(H, kept, h, c, c_new, dy, with_dy, dh, dc, held, gate, candidate):
    """Turn i f g o of one row and step into di df dg do, dc into that of c, and dh into zero.

    In the forward pass this was:    So now, with e = dh + dy and d = dc + e o p'(p(c')):
        c' = f c + i g                   di = d g s'    df = d c s'    dg = d i p'    dc = d f
        h' = o p(c')                     do = e p(c') s'
    """
    for j in range(0, H, lanes(kept)):
        left = H - j
        i = load_up_to(kept + j, left)
        f = load_up_to(kept + (H + j), left)
        g = load_up_to(kept + (2 * H + j), left)
        o = load_up_to(kept + (3 * H + j), left)
        e = load_up_to(dh + j, left)
        if with_dy:
            e = e + load_up_to(dy + j, left)
        now = load_up_to(c_new + j, left)
        if gate == SIGMOID and candidate == TANH:
            p = tanh(now)
            p_slope, g_slope = 1.0 - p * p, 1.0 - g * g
            i_slope, f_slope, o_slope = i * (1.0 - i), f * (1.0 - f), o * (1.0 - o)
        else:
            p = activate(candidate, now)
            p_slope, g_slope = slope(candidate, p), slope(candidate, g)
            i_slope, f_slope, o_slope = slope(gate, i), slope(gate, f), slope(gate, o)
        d = fma(e * o, p_slope, load_up_to(dc + j, left))
        store_up_to(dh + j, splat(dh, 0.0), left)
        store_up_to(dc + j, d * f, left)
        store_up_to(kept + j, d * g * i_slope, left)
        store_up_to(kept + (H + j), d * load_up_to(c + j, left) * f_slope, left)
        store_up_to(kept + (2 * H + j), d * i * g_slope, left)
        store_up_to(kept + (3 * H + j), e * p * o_slope, left)


@jit
def lstm_backward_rows(
    dy, dh, dc, mask, h0, c0, drop, weights, y, c, gates, dx, work, progress, held, go_backwards,
    gate, candidate, worker, workers,
):  # fmt: skip
    """Run one worker's share backward: gates become gradients, dh and dc those of h0 and c0.

    The share is one of the rows or, with `progress`, of the units. See `lstm_backward`.
    """
    backward_rows(
        0, argument(_gradient), None, dy, dh, dc, mask, h0, c0, drop, weights, y, c, gates, dx,
        work, progress, held, go_backwards, gate, candidate, worker, workers,
    )  # fmt: skip


def lstm_backward(
    dy: np.ndarray | None,
    dh_last: np.ndarray | None,
    dc_last: np.ndarray | None,
    x: np.ndarray,
    mask: np.ndarray | None,
    h0: np.ndarray,
    c0: np.ndarray,
    weights: Packed,
    y: np.ndarray,
    c: np.ndarray,
    gates: np.ndarray,
    gradients: tuple[np.ndarray, ...],
    *,
    with_dx: bool = True,
    overwrite: bool = False,
    go_backwards: bool = False,
    drop: np.ndarray | None = None,
    recurrent_activation: int = SIGMOID,
    activation: int = TANH,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Propagate gradients back through the steps of `lstm_forward`, which kept y, c and gates.

    Formula: beside the loop (`_gradient`).
    Parameters      shape        (all of one dtype, float32 or float64, C-contiguous)
    ----------
    dy              (B, T, H)    in, gradient of y; None: zeros
    dh_last, dc_last (B, H)      in, gradients of the last states, dh_last added to dy's; None:
                                 zeros
    x, mask, h0, c0, weights     in, as in the forward pass; weights packed with `backward`
    y, c            (B, T, H)    in
    gates           (B, T, 4, H) overwritten with di df dg do: a second call would be wrong
    gradients       dkernel (I, 4H), drecurrent_kernel (H, 4H), dbias (4H,): added to, gate order
                                 i f g o; or () where weights are not trained
    overwrite       bool         in: whether gradients are taken for zeros, whatever they hold
    go_backwards, recurrent_activation, activation, drop    in, as in the forward pass
    Returns dx (B, T, I), zero at masked steps, or (0, T, I) unless `with_dx`; dh0 and dc0 (B, H).
    Source: Werbos 1990, backpropagation through time. Twin: reference.lstm_backward.
    """
    dx, dh0, dc0 = run_backward(
        lstm_backward_rows, dy, dh_last, dc_last, x, mask, h0, c0, weights, y, c, gates,
        gradients, (recurrent_activation, activation), with_dx=with_dx, overwrite=overwrite,
        go_backwards=go_backwards, drop=drop,
    )  # fmt: skip
    return dx, dh0, dc0
