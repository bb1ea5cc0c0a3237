"""The cells again, one step at a time in NumPy, for activations that are functions of a user's own.

`f` and `s` are pairs (function, slope): the value of an array, and the derivative from that value.
The formulas are those of the kernels, whose interface these functions have, but for `weights`, here
the params themselves, and for activations, here pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastgru import kernels

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]
LINEAR: Pair = (np.positive, np.ones_like)


def named(code: int) -> Pair:
    """Return an activation of the kernels, by its index into ACTIVATIONS, as a pair."""

    def function(a: np.ndarray) -> np.ndarray:
        y = np.empty(a.shape, a.dtype)
        kernels.activation_forward(code, np.array(a).reshape(-1), y.reshape(-1))
        return y

    def slope(y: np.ndarray) -> np.ndarray:
        y = np.array(y)
        one, slopes = np.ones_like(y), np.empty_like(y)
        flat = (one.reshape(-1), y.reshape(-1), y.reshape(-1), slopes.reshape(-1))
        kernels.activation_backward(code, *flat)
        return slopes

    return function, slope


class Step(NamedTuple):
    """What a step has kept; what the products saw of the state; the states before and after it."""

    kept: Any
    seen: Any
    before: Any
    after: Any


class _GRU:
    """Keeps r, z, n and q: see `kernels.gru_forward`."""

    def __init__(self, *weights: np.ndarray, reset_after: bool) -> None:
        self.kernel, self.U, self.bias, self.c = weights
        self.recurrent = self.U, self.c
        self.reset_after = reset_after

    def step(self, a: Any, seen: Any, states: Any, f: Pair, s: Pair) -> Any:
        [h], H = states, seen.shape[1]
        u = seen @ (self.U if self.reset_after else self.U[:, : 2 * H])
        u += self.c[: u.shape[1]]
        r, z = s[0](a[:, :H] + u[:, :H]), s[0](a[:, H : 2 * H] + u[:, H : 2 * H])
        q = u[:, 2 * H :] if self.reset_after else r * seen
        v = r * q if self.reset_after else q @ self.U[:, 2 * H :] + self.c[2 * H :]
        n = f[0](a[:, 2 * H :] + v)
        return [n + z * (h - n)], [r, z, n, q]

    def gradient(self, step: Step, dstates: Any, into: Any, f: Pair, s: Pair) -> Any:
        kept, seen, [h], _ = step
        [dh], H, (r, z, n, q), (dU, dc) = dstates, seen.shape[1], kept, into
        dn, dz = dh * (1 - z) * f[1](n), dh * (h - n) * s[1](z)
        if self.reset_after:
            dr = dn * q * s[1](r)
            du = np.hstack([dr, dz, dn * r])
            dU += seen.T @ du
            dc += du.sum(axis=0)
            dseen = du @ self.U.T
        else:
            dq = dn @ self.U[:, 2 * H :].T
            dr = dq * seen * s[1](r)
            du = np.hstack([dr, dz])
            dU += np.hstack([seen.T @ du, q.T @ dn])
            dseen = dq * r + du @ self.U[:, : 2 * H].T
        return np.hstack([dr, dz, dn]), dseen, [dh * z]


class _LSTM:
    """Keeps i, f, g and o: see `kernels.lstm_forward`."""

    def __init__(self, *weights: np.ndarray) -> None:
        self.kernel, self.U, self.bias = weights
        self.recurrent = (self.U,)

    def step(self, a: Any, seen: Any, states: Any, p: Pair, s: Pair) -> Any:
        i, f, g, o = np.split(a + seen @ self.U, 4, axis=1)
        i, f, g, o = s[0](i), s[0](f), p[0](g), s[0](o)
        c = f * states[1] + i * g
        return [o * p[0](c), c], [i, f, g, o]

    def gradient(self, step: Step, dstates: Any, into: Any, p: Pair, s: Pair) -> Any:
        (i, f, g, o), seen, states, after = step
        (dh, dcell), [dU], value = dstates, into, p[0](after[1])
        dcell = dcell + dh * o * p[1](value)
        gates = dcell * g * s[1](i), dcell * states[1] * s[1](f), dcell * i * p[1](g)
        da = np.hstack([*gates, dh * value * s[1](o)])
        dU += seen.T @ da
        return da, da @ self.U.T, [0 * dh, dcell * f]


class _SimpleRNN:
    """Keeps nothing: the new state tells all. See `kernels.simple_rnn_forward`."""

    def __init__(self, *weights: np.ndarray) -> None:
        self.kernel, self.U, self.bias = weights
        self.recurrent = (self.U,)

    def step(self, a: Any, seen: Any, states: Any, f: Pair, s: Pair) -> Any:
        h = f[0](a + seen @ self.U)
        return [h], []

    def gradient(self, step: Step, dstates: Any, into: Any, f: Pair, s: Pair) -> Any:
        _, seen, _, after = step
        [dU], da = into, dstates[0] * f[1](after[0])
        dU += seen.T @ da
        return da, da @ self.U.T, [0 * da]


CELLS: dict[str, Any] = {"gru": _GRU, "lstm": _LSTM, "simple_rnn": _SimpleRNN}


def _ordered(x: np.ndarray, mask: np.ndarray | None, go_backwards: bool) -> Any:
    """Return x and mask as the steps meet them; masked x, which may be NaN, becomes 0."""
    if go_backwards:
        x, mask = x[:, ::-1], None if mask is None else mask[:, ::-1]
    return (x if mask is None else np.where(mask[:, :, None], x, x.dtype.type(0))), mask


def _where(mask: np.ndarray | None, t: int, real: Any, other: Any) -> list[np.ndarray]:
    """Return the real arrays, and the others in rows where step t is masked."""
    if mask is None:
        return list(real)
    return [np.where(mask[:, t, None], a, b) for a, b in zip(real, other, strict=True)]


def forward(
    x: np.ndarray,
    mask: np.ndarray | None,
    *rest: Any,
    return_sequences: bool = True,
    keep: bool = False,
    go_backwards: bool = False,
    drop: np.ndarray | None = None,
    activation: Pair,
    recurrent_activation: Pair = LINEAR,
) -> Any:
    """Run a cell as its kernel does; `rest` are the first states and, in place of weights, a cell.

    Returns all steps of each state, and a list of `Step`.
    """
    *states, cell = rest
    x, mask = _ordered(x, mask, go_backwards)
    (B, T), H = x.shape[:2], states[0].shape[1]
    a = x @ cell.kernel + cell.bias
    sequences, steps = [np.empty((B, T, H), x.dtype) for _ in states], []
    for t in range(T):
        seen = states[0] if drop is None else states[0] * drop
        made, kept = cell.step(a[:, t], seen, states, activation, recurrent_activation)
        for array in (*made, *kept):
            if array.shape != (B, H) or array.dtype != x.dtype:
                raise ValueError(
                    f"activation: expected functions that keep shape and dtype, {(B, H)} "
                    f"{x.dtype}, given {array.shape} {array.dtype}"
                )
        after = _where(mask, t, made, states)
        steps.append(Step(kept, seen, states, after))
        for sequence, state in zip(sequences, after, strict=True):
            sequence[:, t] = state
        states = after
    return *sequences, steps


def backward(
    dy: np.ndarray | None,
    *rest: Any,
    with_dx: bool = True,
    overwrite: bool = False,
    go_backwards: bool = False,
    drop: np.ndarray | None = None,
    activation: Pair,
    recurrent_activation: Pair = LINEAR,
) -> Any:
    """Go back through the steps of `forward`; takes and gives what a kernel does."""
    *rest_, steps, gradients = rest
    n = (len(rest_) - 3) // 3  # states: gradients of the last, x, mask, the first, a cell, all
    last, (x, mask, *initial), cell = rest_[:n], rest_[n : 2 * n + 2], rest_[2 * n + 2]
    x, mask = _ordered(x, mask, go_backwards)
    B, T, I = x.shape
    dstates = [np.zeros_like(h) if d is None else d for d, h in zip(last, initial, strict=True)]
    into = [np.zeros_like(w) for w in cell.recurrent]
    da = np.zeros((B, T, cell.kernel.shape[1]), x.dtype)
    for t in reversed(range(T)):
        if dy is not None:
            dstates = [dstates[0] + dy[:, t], *dstates[1:]]
        real = [d if mask is None else d * mask[:, t, None] for d in dstates]
        da[:, t], dseen, before = cell.gradient(
            steps[t], real, into, activation, recurrent_activation
        )
        before[0] = before[0] + (dseen if drop is None else dseen * drop)
        dstates = _where(mask, t, before, dstates)
    if gradients:
        flat = da.reshape(B * T, da.shape[2])
        own = x.reshape(B * T, I).T @ flat, into[0], flat.sum(axis=0), *into[1:]
        for gradient, value in zip(gradients, own, strict=True):
            if overwrite:
                gradient[...] = 0
            gradient += value
    dx = da @ cell.kernel.T
    return dx[:, ::-1] if go_backwards else dx, *dstates
