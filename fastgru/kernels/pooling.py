"""Pooling over time: the mean and the maximum of the steps that count."""

from __future__ import annotations

import numpy as np

from fastgru.kernels.arrays import aligned_empty, expect, none_of
from fastgru.kernels.gemm import copy, fill
from fastgru.kernels.jit import jit
from fastgru.kernels.simd import lanes, load_up_to, pointer, store_up_to
from fastgru.kernels.threads import share_out
from fastgru.kernels.update import multiply

BOOL, INT32 = np.dtype(np.bool_), np.dtype(np.int32)


def expect_mask(mask: np.ndarray | None, B: int, T: int) -> np.ndarray:
    """Return a mask as kernels know it, or raise; of no elements where there is none."""
    if mask is None:
        return none_of(BOOL, 2)
    expect("mask", mask, (B, T), BOOL)
    return mask


@jit
def average_pool_rows(x, mask, y, worker, workers):
    """Compute one share of `average_pool_forward`."""
    B, T, I = x.shape
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        q = pointer(y) + b * I
        fill(q, I, 0.0)
        count = 0
        for t in range(T):
            if mask.size == 0 or mask[b, t]:
                p = pointer(x) + (b * T + t) * I
                for j in range(0, I, lanes(p)):
                    store_up_to(q + j, load_up_to(q + j, I - j) + load_up_to(p + j, I - j), I - j)
                count += 1
        multiply(q, I, 1.0 / max(count, 1))


def average_pool_forward(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Average the steps of each row.

    Formula: y[b] = sum over the n unmasked t of x[b, t] / n, 0 where n = 0
    Parameters      shape       (C-contiguous)
    ----------
    x               (B, T, I)   in
    mask            (B, T)      in, bool; None: no step is masked
    Returns y (B, I).
    Source: keras.layers.GlobalAveragePooling1D. Twin: reference.average_pool.
    """
    (B, T, I), dtype = x.shape, x.dtype
    expect("x", x, (B, T, I), dtype)
    y = aligned_empty((B, I), dtype)
    share_out(average_pool_rows, (x, expect_mask(mask, B, T), y), B, x.size)
    return y


@jit
def average_pool_backward_rows(dy, mask, dx, worker, workers):
    """Compute one share of `average_pool_backward`."""
    B, T, I = dx.shape
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        count = 0
        for t in range(T):
            if mask.size == 0 or mask[b, t]:
                count += 1
        for t in range(T):
            d = pointer(dx) + (b * T + t) * I
            if mask.size == 0 or mask[b, t]:
                copy(pointer(dy) + b * I, I, d)
                multiply(d, I, 1.0 / count)
            else:
                fill(d, I, 0.0)


def average_pool_backward(dy: np.ndarray, mask: np.ndarray | None, T: int) -> np.ndarray:
    """Propagate the gradient of `average_pool_forward`.

    In the forward pass this was:              So now:
        y[b] = mean of x[b, t], t unmasked         dx[b, t] = dy[b] / n, 0 at masked steps
    Parameters      shape       (C-contiguous)
    ----------
    dy              (B, I)      in
    mask            (B, T)      in, bool; None: no step is masked
    T               int         in
    Returns dx (B, T, I).
    Source: textbook. Twin: reference.average_pool_backward.
    """
    (B, I), dtype = dy.shape, dy.dtype
    expect("dy", dy, (B, I), dtype)
    dx = aligned_empty((B, T, I), dtype)
    share_out(average_pool_backward_rows, (dy, expect_mask(mask, B, T), dx), B, dx.size)
    return dx


@jit
def max_pool_rows(x, mask, y, places, worker, workers):
    """Compute one share of `max_pool_forward`."""
    B, T, I = x.shape
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        y[b] = 0
        places[b] = -1
        for t in range(T):
            if mask.size == 0 or mask[b, t]:
                for j in range(I):
                    value, top = x[b, t, j], y[b, j]
                    # A NaN is larger than anything else, and the first one counts.
                    is_nan = value != value and top == top
                    if places[b, j] < 0 or value > top or is_nan:
                        y[b, j] = value
                        places[b, j] = t


def max_pool_forward(x: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Take the largest of the steps of each row, column by column.

    Formula: y[b, i] = max over the unmasked t of x[b, t, i], 0 where there is none
    Parameters      shape       (C-contiguous)
    ----------
    x               (B, T, I)   in
    mask            (B, T)      in, bool; None: no step is masked
    Returns y (B, I) and places (B, I) int32: the first step that holds it, or -1.
    Source: keras.layers.GlobalMaxPooling1D. Twin: reference.max_pool.
    """
    (B, T, I), dtype = x.shape, x.dtype
    expect("x", x, (B, T, I), dtype)
    y, places = aligned_empty((B, I), dtype), aligned_empty((B, I), INT32)
    share_out(max_pool_rows, (x, expect_mask(mask, B, T), y, places), B, 2 * x.size)
    return y, places


@jit
def max_pool_backward_rows(dy, places, dx, worker, workers):
    """Compute one share of `max_pool_backward`."""
    B, T, I = dx.shape
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        fill(pointer(dx) + b * T * I, T * I, 0.0)
        for j in range(I):
            if places[b, j] >= 0:
                dx[b, places[b, j], j] = dy[b, j]


def max_pool_backward(dy: np.ndarray, places: np.ndarray, T: int) -> np.ndarray:
    """Propagate the gradient of `max_pool_forward`.

    In the forward pass this was:      So now:
        y[b, i] = x[b, places, i]          dx[b, places, i] = dy[b, i], 0 elsewhere
    Parameters      shape           (C-contiguous)
    ----------
    dy              (B, I)          in
    places          (B, I) int32    in, below T
    T               int             in
    Returns dx (B, T, I).
    Source: textbook. Twin: reference.max_pool_backward.
    """
    (B, I), dtype = dy.shape, dy.dtype
    expect("dy", dy, (B, I), dtype)
    expect("places", places, (B, I), INT32)
    dx = aligned_empty((B, T, I), dtype)
    share_out(max_pool_backward_rows, (dy, places, dx), B, dx.size)
    return dx
