"""Dense layers: y = f(x K + b) on prepacked weights, and its gradients."""

from __future__ import annotations

import numpy as np

from fastgru.kernels.activations import LINEAR, activate_in_place
from fastgru.kernels.arrays import aligned_empty, expect
from fastgru.kernels.gemm import (
    BLOCK,
    add_product,
    fill,
    group_columns,
    grouped_size,
    pack_block,
    panel_width,
    product,
    whole_panels,
)
from fastgru.kernels.jit import jit
from fastgru.kernels.packing import PackedDense
from fastgru.kernels.simd import aligned, keep_alive, lanes, pointer, smaller
from fastgru.kernels.threads import share_out

# How many rows of x meet all panels of the kernel: they stay in the second-level cache.
ROWS = 240


@jit
def dense_rows(x, weights, code, y, worker, workers):
    """Compute one worker's share of the rows of a dense layer.

    Formula: that of `dense_forward`.
    Parameters      shape     (all but code of one dtype, C-contiguous)
    ----------
    x               (B, K)    in
    weights         (n,)      in: `PackedDense.forward`, or on the way back, for dx, its `backward`
    code            int       in, index into ACTIVATIONS, all but gelu
    y               (B, N)    out
    worker, workers int       in: which share of the rows; 0, 1 for all of them
    Source: textbook. Twin: reference.dense.
    """
    B, K = x.shape
    N = y.shape[1]
    first = B * worker // workers
    rows = B * (worker + 1) // workers - first
    w = pointer(weights)
    y_at = pointer(y) + first * N
    kernel = w + whole_panels(N, w)
    x_at = pointer(x) + first * K
    for start in range(0, rows, ROWS):
        few = smaller(ROWS, rows - start)
        product(few, N, K, x_at + start * K, K, 1, kernel, w, 0, y_at + start * N, N, False)
    activate_in_place(code, y_at, rows * N)


def dense_forward(
    x: np.ndarray,
    weights: PackedDense,
    activation: int = LINEAR,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Compute a dense layer.

    Formula: y = f(x K + b)
    Parameters      shape     (one dtype, C-contiguous)
    ----------
    x               (B, K)    in
    weights         PackedDense (K, N)
    activation      int       in, index into ACTIVATIONS, all but gelu
    out             (B, N)    where y goes; by default into a new array
    Returns y (B, N). An element's bits depend on its own row and column alone.
    Source: textbook. Twin: reference.dense.
    """
    B, dtype = x.shape[0], weights.forward.dtype
    expect("x", x, (B, weights.inputs), dtype)
    if out is not None:
        expect("out", out, (B, weights.units), dtype)
    y = aligned_empty((B, weights.units), dtype) if out is None else out
    flops = 2 * y.size * x.shape[1]
    share_out(dense_rows, (x, weights.forward, activation, y), x.shape[0], flops)
    return y


@jit
def dense_backward_columns(x, da, dkernel, dbias, overwrite, worker, workers):
    """Add one worker's share of the columns of dK += x^T da, db += sum of da's rows.

    With `overwrite` both are taken for zeros.
    """
    B, K = x.shape
    N = da.shape[1]
    p = pointer(da)
    width = 2 * lanes(p)
    panels = (N + width - 1) // width
    work = np.empty((BLOCK + 1) * width + grouped_size(K) + 64 // da.itemsize, da.dtype)
    packed = aligned(pointer(work))
    zeros = packed + BLOCK * width
    block = zeros + width
    fill(zeros, width, 0.0)
    for start in range(0, B, BLOCK):
        count = smaller(BLOCK, B - start)
        for k in range(count):
            group_columns(pointer(x) + (start + k) * K, K, block, k)
        for panel in range(panels * worker // workers, panels * (worker + 1) // workers):
            j = panel * width
            few = smaller(width, N - j)
            target, begin_row = pointer(dkernel) + j, N
            begin = target
            if overwrite and start == 0:
                begin, begin_row = zeros, 0
                fill(pointer(dbias) + j, few, 0.0)
            pack_block(p + (start * N + j), N, count, few, packed, pointer(dbias) + j)
            add_product(few, K, count, block, packed, begin, begin_row, target, N)
    keep_alive(work)


def dense_backward(
    da: np.ndarray,
    x: np.ndarray,
    weights: PackedDense,
    dkernel: np.ndarray | None,
    dbias: np.ndarray | None,
    *,
    with_dx: bool = True,
    overwrite: bool = False,
) -> np.ndarray | None:
    """Propagate the gradient of a = x K + b.

    In the forward pass this was:    So now:
        a = x K + b                      dx = da K^T    dK += x^T da    db += sum over rows of da
    Parameters      shape     (one dtype, C-contiguous)
    ----------
    da              (B, N)    in
    x               (B, K)    in
    weights         PackedDense, packed with `backward`
    dkernel         (K, N)    added to; None where the weights are not trained
    dbias           (N,)      added to; None likewise
    overwrite       bool      in: whether both are taken for zeros, whatever they hold
    Returns dx (B, K), or None unless `with_dx`.
    Source: textbook. Twin: reference.dense_backward.
    """
    B, K, N, dtype = x.shape[0], weights.inputs, weights.units, weights.forward.dtype
    expect("da", da, (B, N), dtype)
    expect("x", x, (B, K), dtype)
    if dkernel is not None:
        expect("dkernel", dkernel, (K, N), dtype)
        expect("dbias", dbias, (N,), dtype)
    if with_dx and not weights.backward.size and weights.forward.size:
        raise ValueError("weights: expected to be packed with backward=True for dx")
    flops = 2 * B * K * N
    dx = None
    if with_dx:
        dx = aligned_empty((B, K), x.dtype)
        share_out(dense_rows, (da, weights.backward, LINEAR, dx), B, flops)
    if dkernel is not None:
        panels = -(-N // panel_width(x.dtype))
        if overwrite and B == 0:
            dkernel[...] = dbias[...] = 0
        share_out(dense_backward_columns, (x, da, dkernel, dbias, overwrite), panels, flops)
    return dx
