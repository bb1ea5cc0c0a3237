"""Attention: scores of queries and keys, their softmax over the steps that count, weighted sums.

All is done row of the batch by row, so that neither the batch nor the threads change a bit, and a
masked step adds nothing but zeros, so that the padding's length changes none either.
"""

from __future__ import annotations

import numpy as np

from fastgru.kernels.arrays import aligned_empty, expect
from fastgru.kernels.gemm import (
    PACK_FLOPS,
    fill,
    pack_columns,
    pack_transposed,
    product,
    whole_panels,
)
from fastgru.kernels.jit import jit, part
from fastgru.kernels.pooling import expect_mask
from fastgru.kernels.simd import (
    aligned,
    get,
    keep_alive,
    lanes,
    load_up_to,
    pointer,
    put,
    store_up_to,
    tanh,
)
from fastgru.kernels.softmax import EXP_FLOPS, exponentials
from fastgru.kernels.threads import share_out
from fastgru.kernels.update import dot


@part
def times(M, N, K, a, a_row, a_k, b, packed, start, start_row, c):
    """C[M, N] = start + A[M, K] @ B[K, N], B plain; `packed` has room for it."""
    pack_columns(b, N, 0, K, K, N, packed, 0)
    product(M, N, K, a, a_row, a_k, packed, start, start_row, c, N, False)


@part
def times_transposed(M, N, K, a, b, packed, start, start_row, c):
    """C[M, N] = start + A[M, K] @ B[N, K]^T, B plain; `packed` has room for it."""
    pack_transposed(b, K, 0, N, K, N, packed, K, 0)
    product(M, N, K, a, K, 1, packed, start, start_row, c, N, False)


@jit
def dot_scores_rows(query, keys, scores, worker, workers):
    """Compute one share of `dot_scores_forward`."""
    B, S, I = query.shape
    T = keys.shape[1]
    q, k = pointer(query), pointer(keys)
    wide = whole_panels(T, k)
    work = np.empty(wide * (I + 1) + 64 // query.itemsize, query.dtype)
    zeros = aligned(pointer(work))
    fill(zeros, wide, 0.0)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        target = pointer(scores) + b * S * T
        times_transposed(S, T, I, q + b * S * I, k + b * T * I, zeros + wide, zeros, 0, target)
    keep_alive(work)


def dot_scores_forward(query: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Compare every query with every key of its row by their inner product.

    Formula: scores[b, s, t] = sum over i of query[b, s, i] keys[b, t, i]
    Parameters      shape       (one dtype, C-contiguous)
    ----------
    query           (B, S, I)   in
    keys            (B, T, I)   in
    Returns scores (B, S, T).
    Source: Luong et al. 2015, arXiv:1508.04025, equation 8. Twin: reference.dot_scores.
    """
    (B, S, I), dtype = query.shape, query.dtype
    expect("query", query, (B, S, I), dtype)
    expect("keys", keys, (B, -1, I), dtype)
    scores = aligned_empty((B, S, keys.shape[1]), dtype)
    flops = (2 * S + PACK_FLOPS) * keys.size
    share_out(dot_scores_rows, (query, keys, scores), B, flops)
    return scores


@jit
def dot_scores_backward_rows(dscores, query, keys, dquery, dkeys, worker, workers):
    """Compute one share of `dot_scores_backward`."""
    B, S, T = dscores.shape
    I = keys.shape[2]
    wide = whole_panels(I, pointer(keys))
    work = np.empty(wide * (max(S, T) + 1) + 64 // keys.itemsize, keys.dtype)
    zeros = aligned(pointer(work))
    packed = zeros + wide
    fill(zeros, wide, 0.0)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        g, q, k = pointer(dscores) + b * S * T, pointer(query) + b * S * I, pointer(keys)
        times(S, I, T, g, T, 1, k + b * T * I, packed, zeros, 0, pointer(dquery) + b * S * I)
        d = pointer(dkeys) + b * T * I
        times(T, I, S, g, 1, T, q, packed, d, I, d)
    keep_alive(work)


def dot_scores_backward(
    dscores: np.ndarray, query: np.ndarray, keys: np.ndarray, dkeys: np.ndarray
) -> np.ndarray:
    """Propagate the gradient of `dot_scores_forward`.

    In the forward pass this was:         So now, in each row:
        scores = query keys^T                 dquery = dscores keys   dkeys += dscores^T query
    Parameters      shape       (one dtype, C-contiguous)
    ----------
    dscores         (B, S, T)   in
    query           (B, S, I)   in
    keys            (B, T, I)   in
    dkeys           (B, T, I)   added to: keys are often the values, too
    Returns dquery (B, S, I).
    Source: textbook. Twin: reference.dot_scores_backward.
    """
    (B, S, I), T, dtype = query.shape, keys.shape[1], query.dtype
    expect("dscores", dscores, (B, S, T), dtype)
    expect("query", query, (B, S, I), dtype)
    expect("keys", keys, (B, T, I), dtype)
    expect("dkeys", dkeys, (B, T, I), dtype)
    dquery = aligned_empty(query.shape, dtype)
    flops = (4 * S + 2 * PACK_FLOPS) * keys.size
    share_out(dot_scores_backward_rows, (dscores, query, keys, dquery, dkeys), B, flops)
    return dquery


@part
def tanh_of_sum(p, q, n, target):
    """Write tanh(p + q) of n elements."""
    for j in range(0, n, lanes(p)):
        store_up_to(target + j, tanh(load_up_to(p + j, n - j) + load_up_to(q + j, n - j)), n - j)


@jit
def additive_scores_rows(query, keys, scale, scores, worker, workers):
    """Compute one share of `additive_scores_forward`."""
    B, S, U = query.shape
    T = keys.shape[1]
    work = np.empty(U, query.dtype)
    row = pointer(work)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        k = pointer(keys) + b * T * U
        for s in range(b * S, (b + 1) * S):
            for t in range(T):
                tanh_of_sum(pointer(query) + s * U, k + t * U, U, row)
                put(pointer(scores) + (s * T + t), dot(row, pointer(scale), U))
    keep_alive(work)


def additive_scores_forward(query: np.ndarray, keys: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Compare every query with every key of its row by a small network.

    Formula: scores[b, s, t] = sum over u of scale[u] tanh(query[b, s, u] + keys[b, t, u])
    Parameters      shape       (one dtype, C-contiguous)
    ----------
    query           (B, S, U)   in
    keys            (B, T, U)   in
    scale           (U,)        in
    Returns scores (B, S, T).
    Source: Bahdanau et al. 2015, arXiv:1409.0473, appendix A.1.2. Twin: reference.additive_scores.
    """
    (B, S, U), dtype = query.shape, query.dtype
    expect("query", query, (B, S, U), dtype)
    expect("keys", keys, (B, -1, U), dtype)
    expect("scale", scale, (U,), dtype)
    scores = aligned_empty((B, S, keys.shape[1]), dtype)
    share_out(additive_scores_rows, (query, keys, scale, scores), B, EXP_FLOPS * S * keys.size)
    return scores


@jit
def additive_scores_backward_rows(
    dscores, query, keys, scale, dquery, dkeys, dscales, worker, workers
):
    """Compute one share of `additive_scores_backward`; dscales (B, U) is what each row adds."""
    B, S, T = dscores.shape
    U = scale.size
    work = np.empty(U, keys.dtype)
    row, w = pointer(work), pointer(scale)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        dw = pointer(dscales) + b * U
        fill(dw, U, 0.0)
        fill(pointer(dquery) + b * S * U, S * U, 0.0)
        fill(pointer(dkeys) + b * T * U, T * U, 0.0)
        for s in range(b * S, (b + 1) * S):
            q, dq = pointer(query) + s * U, pointer(dquery) + s * U
            for t in range(T):
                g = get(pointer(dscores) + (s * T + t))
                if g == 0.0:  # a masked step, among others
                    continue
                k, dk = pointer(keys) + (b * T + t) * U, pointer(dkeys) + (b * T + t) * U
                tanh_of_sum(q, k, U, row)
                for j in range(0, U, lanes(row)):
                    left = U - j
                    y = load_up_to(row + j, left)
                    store_up_to(dw + j, load_up_to(dw + j, left) + y * g, left)
                    da = load_up_to(w + j, left) * g * (1.0 - y * y)
                    store_up_to(dq + j, load_up_to(dq + j, left) + da, left)
                    store_up_to(dk + j, load_up_to(dk + j, left) + da, left)
    keep_alive(work)


def additive_scores_backward(
    dscores: np.ndarray,
    query: np.ndarray,
    keys: np.ndarray,
    scale: np.ndarray,
    dscale: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Propagate the gradient of `additive_scores_forward`, whose tanh is computed again.

    In the forward pass this was:         So now:
        y = tanh(query + keys)                dscale += sum over b, s, t of dscores y
        scores = sum over u of scale y        da = dscores scale (1 - y^2)
                                              dquery = sum over t of da   dkeys = sum over s of da
    Parameters      shape       (one dtype, C-contiguous)
    ----------
    dscores         (B, S, T)   in
    query           (B, S, U)   in
    keys            (B, T, U)   in
    scale           (U,)        in
    dscale          (U,)        added to
    Returns dquery (B, S, U) and dkeys (B, T, U).
    Source: textbook. Twin: reference.additive_scores_backward.
    """
    (B, S, U), T, dtype = query.shape, keys.shape[1], query.dtype
    expect("dscores", dscores, (B, S, T), dtype)
    expect("query", query, (B, S, U), dtype)
    expect("keys", keys, (B, T, U), dtype)
    expect("scale", scale, (U,), dtype)
    expect("dscale", dscale, (U,), dtype)
    dquery, dkeys = aligned_empty(query.shape, dtype), aligned_empty(keys.shape, dtype)
    dscales = aligned_empty((B, U), dtype)
    arguments = (dscores, query, keys, scale, dquery, dkeys, dscales)
    share_out(additive_scores_backward_rows, arguments, B, 2 * EXP_FLOPS * S * keys.size)
    # Row by row, whoever has computed them.
    dscale += dscales.sum(axis=0)
    return dquery, dkeys


@part
def gather(p, mask, b, T, target):
    """Copy the elements of a row at steps that count, one behind the other; return their number."""
    count = 0
    for t in range(T):
        if mask.size == 0 or mask[b, t]:
            put(target + count, get(p + t))
            count += 1
    return count


@jit
def attend_rows(scores, values, mask, weights, context, worker, workers):
    """Compute one share of `attend_forward`."""
    B, S, T = scores.shape
    I = values.shape[2]
    v = pointer(values)
    wide = whole_panels(I, v)
    work = np.empty(wide * (T + 1) + T + 64 // values.itemsize, values.dtype)
    zeros = aligned(pointer(work))
    packed = zeros + wide
    real = packed + wide * T
    fill(zeros, wide, 0.0)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        for s in range(b * S, (b + 1) * S):
            count = gather(pointer(scores) + s * T, mask, b, T, real)
            total = exponentials(real, real, count)[1] if count > 0 else 1.0
            count = 0
            for t in range(T):
                q = pointer(weights) + (s * T + t)
                if mask.size == 0 or mask[b, t]:
                    put(q, np.float64(get(real + count)) / total)
                    count += 1
                else:
                    put(q, 0.0)
        w = pointer(weights) + b * S * T
        times(S, I, T, w, T, 1, v + b * T * I, packed, zeros, 0, pointer(context) + b * S * I)
    keep_alive(work)


def attend_forward(
    scores: np.ndarray, values: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Average the values of each row, weighed by the softmax of scores over the steps that count.

    Formula, with both sums over the unmasked t:
        weights[b, s, t] = exp(scores[b, s, t]) / sum(exp(scores[b, s])), 0 at masked steps
        context[b, s] = sum(weights[b, s, t] values[b, t])
    Parameters      shape       (one dtype, C-contiguous)
    ----------
    scores          (B, S, T)   in
    values          (B, T, I)   in, finite at masked steps
    mask            (B, T)      in, bool; None: no step is masked
    Returns context (B, S, I) and weights (B, S, T); both are 0 where all steps are masked.
    Source: Bahdanau et al. 2015, arXiv:1409.0473, equations 5 and 6. Twin: reference.attend.
    """
    (B, S, T), I, dtype = scores.shape, values.shape[2], scores.dtype
    expect("scores", scores, (B, S, T), dtype)
    expect("values", values, (B, T, I), dtype)
    mask = expect_mask(mask, B, T)
    context, weights = aligned_empty((B, S, I), dtype), aligned_empty(scores.shape, dtype)
    flops = (2 * S + PACK_FLOPS) * values.size + EXP_FLOPS * scores.size
    share_out(attend_rows, (scores, values, mask, weights, context), B, flops)
    return context, weights


@jit
def attend_backward_rows(
    dcontext, dweights, weights, values, mask, dscores, dvalues, worker, workers
):
    """Compute one share of `attend_backward`."""
    B, S, T = weights.shape
    I = values.shape[2]
    p = pointer(values)
    wide = whole_panels(I, p)
    size = max(wide * S, whole_panels(T, p) * I)
    work = np.empty(wide + size + 2 * T + 64 // values.itemsize, values.dtype)
    zeros = aligned(pointer(work))
    packed = zeros + wide
    real = packed + size
    fill(zeros, wide, 0.0)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        g, v, here = pointer(dcontext) + b * S * I, p + b * T * I, b * S * T
        ds, w = pointer(dscores) + here, pointer(weights) + here
        # What the weights' gradient is, for now.
        times_transposed(S, T, I, g, v, packed, pointer(dweights) + here, T, ds)
        for s in range(S):
            gather(ds + s * T, mask, b, T, real)
            count = gather(w + s * T, mask, b, T, real + T)
            mean = dot(real, real + T, count)
            for t in range(T):
                d = ds + (s * T + t)
                if mask.size == 0 or mask[b, t]:
                    put(d, np.float64(get(w + (s * T + t))) * (np.float64(get(d)) - mean))
                else:
                    put(d, 0.0)
        times(T, I, S, w, 1, T, g, packed, zeros, 0, pointer(dvalues) + b * T * I)
    keep_alive(work)


def attend_backward(
    dcontext: np.ndarray,
    dweights: np.ndarray,
    weights: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Propagate the gradient of `attend_forward`.

    In the forward pass this was:    So now, in each row:
        weights = softmax(scores)        dw = dweights + dcontext values^T
        context = weights values         dscores = weights * (dw - sum over t of dw * weights)
                                         dvalues = weights^T dcontext
    Parameters      shape       (one dtype, C-contiguous)
    ----------
    dcontext        (B, S, I)   in
    dweights        (B, S, T)   in, of the weights as an output of their own; often zeros
    weights         (B, S, T)   in
    values          (B, T, I)   in, finite at masked steps
    mask            (B, T)      in, bool; None: no step is masked
    Returns dscores (B, S, T) and dvalues (B, T, I); both are 0 at masked steps.
    Source: textbook. Twin: reference.attend_backward.
    """
    (B, S, T), I, dtype = weights.shape, values.shape[2], weights.dtype
    expect("dcontext", dcontext, (B, S, I), dtype)
    expect("dweights", dweights, (B, S, T), dtype)
    expect("weights", weights, (B, S, T), dtype)
    expect("values", values, (B, T, I), dtype)
    mask = expect_mask(mask, B, T)
    dscores, dvalues = aligned_empty(weights.shape, dtype), aligned_empty(values.shape, dtype)
    flops = (4 * S + PACK_FLOPS) * values.size
    arguments = (dcontext, dweights, weights, values, mask, dscores, dvalues)
    share_out(attend_backward_rows, arguments, B, flops)
    return dscores, dvalues
