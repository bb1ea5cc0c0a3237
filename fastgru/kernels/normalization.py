"""Layer normalization: every row with the mean and the variance of its own."""

from __future__ import annotations

import math

import numpy as np

from fastgru.kernels.arrays import aligned_empty, expect
from fastgru.kernels.gemm import panel_width, share_of_panels
from fastgru.kernels.jit import jit
from fastgru.kernels.simd import get, lanes, load_up_to, pointer, put, splat, store_up_to
from fastgru.kernels.softmax import row_sum
from fastgru.kernels.threads import share_out
from fastgru.kernels.update import dot, multiply


@jit
def normalization_rows(x, gamma, beta, epsilon, y, normal, scales, worker, workers):
    """Compute one share of `normalization_forward`."""
    B, K = x.shape
    g, c = pointer(gamma), pointer(beta)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        p, q, n = pointer(x) + b * K, pointer(y) + b * K, pointer(normal) + b * K
        mean = row_sum(p, K) / K
        for j in range(0, K, lanes(p)):
            store_up_to(n + j, load_up_to(p + j, K - j) - mean, K - j)
        scale = 1.0 / math.sqrt(dot(n, n, K) / K + epsilon)
        put(pointer(scales) + b, scale)
        multiply(n, K, scale)
        for j in range(0, K, lanes(p)):
            left = K - j
            value = load_up_to(n + j, left) * load_up_to(g + j, left) + load_up_to(c + j, left)
            store_up_to(q + j, value, left)


def normalization_forward(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    epsilon: float,
    out: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give every row mean 0 and variance 1, then a scale and an offset for each column.

    Formula: normal = (x - mean(x)) / sqrt(var(x) + epsilon), y = gamma * normal + beta
    Parameters      shape     (one dtype, C-contiguous)
    ----------
    x               (B, K)    in
    gamma, beta     (K,)      in
    epsilon         float     in, > 0
    out                       where y, normal and scales go; by default into new arrays
    Returns y (B, K), normal (B, K) and scales (B,) = 1 / sqrt(var(x) + epsilon).
    Source: Ba et al. 2016, arXiv:1607.06450, equation 4. Twin: reference.normalization.
    """
    (B, K), dtype = x.shape, x.dtype
    expect("x", x, (B, K), dtype)
    expect("gamma", gamma, (K,), dtype)
    expect("beta", beta, (K,), dtype)
    if out is None:
        y, normal, scales = (aligned_empty(shape, dtype) for shape in ((B, K), (B, K), (B,)))
    else:
        y, normal, scales = out
        expect("y", y, (B, K), dtype)
        expect("normal", normal, (B, K), dtype)
        expect("scales", scales, (B,), dtype)
    arguments = (x, gamma, beta, float(epsilon), y, normal, scales)
    share_out(normalization_rows, arguments, B, 10 * x.size)
    return y, normal, scales


@jit
def normalization_backward_rows(dy, normal, scales, gamma, dx, worker, workers):
    """Compute one share of the rows of dx. See `normalization_backward`."""
    B, K = dy.shape
    g = pointer(gamma)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        p, n, d = pointer(dy) + b * K, pointer(normal) + b * K, pointer(dx) + b * K
        for j in range(0, K, lanes(p)):
            store_up_to(d + j, load_up_to(p + j, K - j) * load_up_to(g + j, K - j), K - j)
        mean, slope = row_sum(d, K) / K, dot(d, n, K) / K
        scale = get(pointer(scales) + b)
        for j in range(0, K, lanes(p)):
            left = K - j
            value = (load_up_to(d + j, left) - mean) - load_up_to(n + j, left) * slope
            store_up_to(d + j, value * scale, left)


@jit
def normalization_backward_columns(dy, normal, dgamma, dbeta, worker, workers):
    """Add one share of the columns of dgamma and dbeta. See `normalization_backward`."""
    B, K = dy.shape
    first, end = share_of_panels(K, pointer(dy), worker, workers)
    for j in range(first, end, lanes(pointer(dy))):
        p, n, left = pointer(dy) + j, pointer(normal) + j, end - j
        scale, offset = splat(p, 0.0), splat(p, 0.0)
        for b in range(B):
            value = load_up_to(p + b * K, left)
            scale = scale + value * load_up_to(n + b * K, left)
            offset = offset + value
        dg, db = pointer(dgamma) + j, pointer(dbeta) + j
        store_up_to(dg, load_up_to(dg, left) + scale, left)
        store_up_to(db, load_up_to(db, left) + offset, left)


def normalization_backward(
    dy: np.ndarray,
    normal: np.ndarray,
    scales: np.ndarray,
    gamma: np.ndarray,
    dgamma: np.ndarray,
    dbeta: np.ndarray,
) -> np.ndarray:
    """Propagate the gradient of `normalization_forward`.

    In the forward pass this was:            So now, with means over a row:
        normal = (x - mean(x)) * scale           d = dy * gamma
        y = gamma * normal + beta                dx = scale (d - mean(d) - normal mean(d * normal))
                                                 dgamma += sum of dy * normal   dbeta += sum of dy
    Parameters      shape     (one dtype, C-contiguous)
    ----------
    dy, normal      (B, K)    in
    scales          (B,)      in
    gamma           (K,)      in
    dgamma, dbeta   (K,)      added to
    A column is summed by one worker in the order of b: the same bits for any number of threads.
    Returns dx (B, K).
    Source: textbook. Twin: reference.normalization_backward.
    """
    (B, K), dtype = dy.shape, dy.dtype
    expect("dy", dy, (B, K), dtype)
    expect("normal", normal, (B, K), dtype)
    expect("scales", scales, (B,), dtype)
    for name, array in (("gamma", gamma), ("dgamma", dgamma), ("dbeta", dbeta)):
        expect(name, array, (K,), dtype)
    dx = aligned_empty((B, K), dtype)
    share_out(normalization_backward_rows, (dy, normal, scales, gamma, dx), B, 10 * dy.size)
    panels = -(-K // panel_width(dtype))
    share_out(normalization_backward_columns, (dy, normal, dgamma, dbeta), panels, 4 * dy.size)
    return dx
