"""Softmax, and cross-entropies with their gradients, row by row.

Sums over a row are float64 and in one fixed order, so a row's result depends neither on the vector
width nor on the other rows. What happens once for an element of a target, such as a logarithm, is
a float64 scalar from libm; what happens for all V scores of a vocabulary runs on vectors.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from fastgru.kernels.arrays import expect
from fastgru.kernels.gemm import fill
from fastgru.kernels.jit import inline, jit, part
from fastgru.kernels.simd import (
    I32,
    exp,
    get,
    keep_alive,
    lanes,
    lanes_of,
    load,
    load_up_to,
    pointer,
    put,
    select,
    store_up_to,
)
from fastgru.kernels.threads import share_out
from fastgru.kernels.update import dot, multiply

EPSILON = 1e-7  # as Keras: probabilities stay in [EPSILON, 1 - EPSILON] before a logarithm
# Roughly the cost of one element in additions: it decides how many threads are worth their start.
EXP_FLOPS, LOG_FLOPS = 30, 100


@intrinsic
def _largest_lane(typingctx, x):
    """Return the largest of all lanes, where none is NaN."""

    def codegen(context, builder, sig, args):
        result: ir.Value = builder.extract_element(args[0], I32(0))
        for lane in range(1, lanes_of(sig.args[0].dtype)):
            value = builder.extract_element(args[0], I32(lane))
            result = builder.select(builder.fcmp_ordered(">", value, result), value, result)
        return result

    return x.dtype(x), codegen


@part
def largest(p, n):
    """Return the largest of n >= 1 elements; any of them if there is a NaN."""
    width = lanes(p)
    if n < width:
        top = get(p)
        for j in range(1, n):
            top = get(p + j) if get(p + j) > top else top
        return top
    tops = load(p)
    for j in range(width, n, width):
        x = load(p + min(j, n - width))  # the last vector may overlap: a maximum does not mind
        tops = select(x > tops, x, tops)
    return _largest_lane(tops)


@part
def row_sum(p, n):
    """Return the sum of n elements in float64: eight partial sums, in the order of `update.dot`."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = tail = 0.0
    whole = n - n % 8
    for j in range(0, whole, 8):
        s0 += np.float64(get(p + j))
        s1 += np.float64(get(p + (j + 1)))
        s2 += np.float64(get(p + (j + 2)))
        s3 += np.float64(get(p + (j + 3)))
        s4 += np.float64(get(p + (j + 4)))
        s5 += np.float64(get(p + (j + 5)))
        s6 += np.float64(get(p + (j + 6)))
        s7 += np.float64(get(p + (j + 7)))
    for j in range(whole, n):
        tail += np.float64(get(p + j))
    return (((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))) + tail


@part
def exponentials(p, q, n):
    """Write q = exp(p - max(p)), which cannot overflow; return max(p) and sum(q)."""
    top = largest(p, n)
    for j in range(0, n, lanes(p)):
        store_up_to(q + j, exp(load_up_to(p + j, n - j) - top), n - j)
    return np.float64(top), row_sum(q, n)


@inline
def clip(p):
    """Keep a probability off 0 and 1, and NaN as it is."""
    if p < EPSILON:
        return EPSILON
    if p > 1.0 - EPSILON:
        return 1.0 - EPSILON
    return p


@jit
def softmax_rows(x, y, worker, workers):
    """Compute one share of `softmax_forward`."""
    B, V = x.shape
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        q = pointer(y) + b * V
        total = exponentials(pointer(x) + b * V, q, V)[1]
        for j in range(0, V, lanes(q)):
            store_up_to(q + j, load_up_to(q + j, V - j) / total, V - j)


@jit
def log_softmax_rows(x, y, worker, workers):
    """Compute one share of `log_softmax_forward`."""
    B, V = x.shape
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        p, q = pointer(x) + b * V, pointer(y) + b * V
        top, total = exponentials(p, q, V)
        log_total = math.log(total)
        for j in range(0, V, lanes(q)):
            store_up_to(q + j, (load_up_to(p + j, V - j) - top) - log_total, V - j)


@jit
def softmax_backward_rows(dy, y, dx, worker, workers):
    """Compute one share of `softmax_backward`."""
    B, V = y.shape
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        g, p, d = pointer(dy) + b * V, pointer(y) + b * V, pointer(dx) + b * V
        mean = dot(g, p, V)
        for j in range(0, V, lanes(p)):
            value = load_up_to(p + j, V - j) * (load_up_to(g + j, V - j) - mean)
            store_up_to(d + j, value, V - j)


@jit
def sparse_rows(y, labels, weights, from_logits, values, dy, smoothing, worker, workers):
    """Compute one share of `sparse_categorical_crossentropy`."""
    B, V = y.shape
    main, share = 1.0 - smoothing, smoothing / V
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        p, d = pointer(y) + b * V, pointer(dy) + b * V
        weight, label = weights[b], labels[b]
        if weight == 0.0:
            values[b] = 0.0
            fill(d, V, 0.0)
        elif not 0 <= label < V:
            # Somebody has changed it since it was checked: no memory is touched but the row's own.
            values[b] = math.nan
            fill(d, V, math.nan)
        elif from_logits:
            # Before d, which may be p, is written.
            score = np.float64(get(p + label))
            all_scores = row_sum(p, V) if smoothing != 0.0 else 0.0
            top, total = exponentials(p, d, V)
            values[b] = (top - score) + math.log(total)
            right = (np.float64(get(d + label)) / total - main) * weight
            multiply(d, V, weight / total)
            put(d + label, right)
            if smoothing != 0.0:
                mean = (top - all_scores / V) + math.log(total)
                values[b] = main * values[b] + smoothing * mean
                for j in range(0, V, lanes(d)):
                    store_up_to(d + j, load_up_to(d + j, V - j) - share * weight, V - j)
        else:
            total = row_sum(p, V)
            value = mass = 0.0
            if smoothing != 0.0:
                for j in range(V):
                    given = np.float64(get(p + j)) / total
                    clipped = clip(given)
                    value -= share * math.log(clipped)
                    mass += share if clipped == given else 0.0
            given = np.float64(get(p + label)) / total
            clipped = clip(given)
            slope = 1.0 if clipped == given else 0.0
            values[b] = value - main * math.log(clipped)
            mass += main * slope
            right = (main + share) * slope / clipped
            fill(d, V, mass / total * weight)
            if smoothing != 0.0:
                for j in range(V):
                    given = np.float64(get(p + j)) / total
                    if clip(given) == given:
                        put(d + j, (mass - share / given) / total * weight)
            put(d + label, (mass - right) / total * weight)


@jit
def categorical_rows(y, target, weights, from_logits, values, dy, worker, workers):
    """Compute one share of `categorical_crossentropy`."""
    B, V = y.shape
    scratch = np.empty(V, y.dtype)  # y is needed beside its exponentials, and dy may be y
    e = pointer(scratch)
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        p, q, d = pointer(y) + b * V, pointer(target) + b * V, pointer(dy) + b * V
        weight = weights[b]
        value = mass = 0.0
        if weight == 0.0:
            fill(d, V, 0.0)
        elif from_logits:
            top, total = exponentials(p, e, V)
            log_total = math.log(total)
            for j in range(V):
                t = np.float64(get(q + j))
                mass += t
                if t != 0.0:
                    value += t * ((top - np.float64(get(p + j))) + log_total)
            factor = mass * weight / total
            for j in range(0, V, lanes(p)):
                wanted = load_up_to(q + j, V - j) * weight
                store_up_to(d + j, load_up_to(e + j, V - j) * factor - wanted, V - j)
        else:
            total = row_sum(p, V)
            for j in range(V):
                t = np.float64(get(q + j))
                if t != 0.0:
                    given = np.float64(get(p + j)) / total
                    clipped = clip(given)
                    value -= t * math.log(clipped)
                    mass += t if clipped == given else 0.0
            for j in range(V):
                given = np.float64(get(p + j)) / total
                clipped = clip(given)
                t = np.float64(get(q + j)) if clipped == given else 0.0
                put(d + j, (mass - t / clipped) / total * weight)
        values[b] = value
    keep_alive(scratch)


@jit
def binary_rows(y, target, weights, from_logits, values, dy, worker, workers):
    """Compute one share of `binary_crossentropy`."""
    B, V = y.shape
    for b in range(B * worker // workers, B * (worker + 1) // workers):
        p, q, d = pointer(y) + b * V, pointer(target) + b * V, pointer(dy) + b * V
        weight = weights[b] / V
        value = 0.0
        if weight == 0.0:
            fill(d, V, 0.0)
        elif from_logits:
            for j in range(V):
                x, t = np.float64(get(p + j)), np.float64(get(q + j))
                e = math.exp(-abs(x))
                # softplus(x) - t x, from the smaller of x and -x
                value += ((1.0 - t) * x if x > 0.0 else -t * x) + math.log1p(e)
                put(d + j, ((1.0 if x > 0.0 else e) / (1.0 + e) - t) * weight)
        else:
            for j in range(V):
                x, t = np.float64(get(p + j)), np.float64(get(q + j))
                c = clip(x)
                slope = 1.0 if c == x else 0.0
                value -= t * math.log(c) + (1.0 - t) * math.log1p(-c)
                put(d + j, (c - t) / (c * (1.0 - c)) * slope * weight)
        values[b] = value / V


INT64, FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)


def _expect(shape: tuple[int, ...], dtype: np.dtype, **arrays: np.ndarray) -> None:
    """Raise unless all arrays have a shape and dtype that the kernels can take."""
    for name, array in arrays.items():
        expect(name, array, shape, dtype)


def softmax_forward(x: np.ndarray, y: np.ndarray) -> None:
    """Turn rows of scores into rows of probabilities.

    Formula: y = exp(x - max(x)) / sum(exp(x - max(x)))
    Parameters      shape     (one dtype, C-contiguous)
    ----------
    x               (B, V)    in, V >= 1
    y               (B, V)    out, may be x
    Source: textbook. Twin: reference.softmax.
    """
    _expect(x.shape, x.dtype, x=x, y=y)
    share_out(softmax_rows, (x, y), x.shape[0], EXP_FLOPS * x.size)


def log_softmax_forward(x: np.ndarray, y: np.ndarray) -> None:
    """Turn rows of scores into rows of log-probabilities.

    Formula: y = x - max(x) - log(sum(exp(x - max(x))))
    Parameters      shape     (one dtype, C-contiguous)
    ----------
    x               (B, V)    in, V >= 1
    y               (B, V)    out, not x
    Source: textbook. Twin: reference.log_softmax.
    """
    _expect(x.shape, x.dtype, x=x, y=y)
    share_out(log_softmax_rows, (x, y), x.shape[0], EXP_FLOPS * x.size)


def softmax_backward(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    """Differentiate `softmax_forward`.

    In the forward pass this was:    So now:
        y = softmax(x)                   dx = y * (dy - sum(dy * y))
    Parameters      shape     (one dtype, C-contiguous)
    ----------
    dy, y           (B, V)    in
    dx              (B, V)    out, may be dy
    Source: textbook. Twin: reference.softmax_backward.
    """
    _expect(y.shape, y.dtype, dy=dy, y=y, dx=dx)
    share_out(softmax_backward_rows, (dy, y, dx), y.shape[0], 8 * y.size)


def sparse_categorical_crossentropy(
    y: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    from_logits: bool,
    values: np.ndarray,
    dy: np.ndarray,
    smoothing: float = 0.0,
) -> None:
    """Cross-entropy of a choice among V classes, the right one given by its number.

    Formula, with k the label, w the weight of the row, e = 1e-7:
        from_logits:  value = log(sum(exp(y))) - y[k]      dy = w (softmax(y) - (j == k))
        otherwise:    p = y / sum(y), value = -log(clip(p[k], e, 1 - e))
                      dy = w (1 - (j == k) / p[k]) / sum(y), zero where p[k] is clipped
    With smoothing s, it is that of `categorical_crossentropy` for t = (1 - s) (j == k) + s / V.
    Parameters      shape           (y and dy of one dtype, C-contiguous)
    ----------
    y               (B, V)          in
    labels          (B,) int64      in, 0 <= labels[b] < V, unless its weight is 0; any other
                                    gives NaN
    weights         (B,) float64    in; weight 0 gives value 0 and dy 0, whatever y holds
    from_logits     bool            in
    values          (B,) float64    out, without the weight
    dy              (B, V)          out, may be y
    smoothing       float           in, 0 <= smoothing < 1
    Source: keras.losses.sparse_categorical_crossentropy; label_smoothing of
    torch.nn.CrossEntropyLoss.
    Twin: reference.sparse_categorical_crossentropy.
    """
    _expect(y.shape, y.dtype, y=y, dy=dy)
    _expect(y.shape[:1], INT64, labels=labels)
    _expect(y.shape[:1], FLOAT64, weights=weights, values=values)
    arguments = (y, labels, weights, bool(from_logits), values, dy, float(smoothing))
    cost = LOG_FLOPS if smoothing and not from_logits else EXP_FLOPS
    share_out(sparse_rows, arguments, y.shape[0], cost * y.size)


def categorical_crossentropy(
    y: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    from_logits: bool,
    values: np.ndarray,
    dy: np.ndarray,
) -> None:
    """Cross-entropy of a choice among V classes, given the wanted probabilities.

    Formula, with t the target, w the weight of the row, e = 1e-7:
        from_logits:  value = -sum(t log(softmax(y)))          dy = w (softmax(y) sum(t) - t)
        otherwise:    p = y / sum(y)                           dy = w (dp - sum(dp * p)) / sum(y)
                      value = -sum(t log(clip(p, e, 1 - e)))   dp = -t / p, zero where clipped
    Parameters      shape           (y, target and dy of one dtype, C-contiguous)
    ----------
    y, target       (B, V)          in
    weights         (B,) float64    in; weight 0 gives value 0 and dy 0, whatever y and target hold
    from_logits     bool            in
    values          (B,) float64    out, without the weight
    dy              (B, V)          out, may be y
    Source: keras.losses.categorical_crossentropy. Twin: reference.categorical_crossentropy.
    """
    _expect(y.shape, y.dtype, y=y, target=target, dy=dy)
    _expect(y.shape[:1], FLOAT64, weights=weights, values=values)
    arguments = (y, target, weights, bool(from_logits), values, dy)
    cost = EXP_FLOPS if from_logits else LOG_FLOPS
    share_out(categorical_rows, arguments, y.shape[0], cost * y.size)


def binary_crossentropy(
    y: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    from_logits: bool,
    values: np.ndarray,
    dy: np.ndarray,
) -> None:
    """Mean cross-entropy of the V yes-or-no answers of each row.

    Formula, with t the target, w the weight of the row, s = logistic, e = 1e-7:
        from_logits:  value = mean(log(1 + exp(y)) - t y)      dy = w (s(y) - t) / V
        otherwise:    p = clip(y, e, 1 - e)                    dy = w (p - t) / (p (1 - p)) / V,
                      value = -mean(t log(p) + (1 - t) log(1 - p))        zero where clipped
    Parameters      shape           (y, target and dy of one dtype, C-contiguous)
    ----------
    y, target       (B, V)          in
    weights         (B,) float64    in; weight 0 gives value 0 and dy 0, whatever y and target hold
    from_logits     bool            in
    values          (B,) float64    out, without the weight
    dy              (B, V)          out, may be y
    Source: keras.losses.binary_crossentropy. Twin: reference.binary_crossentropy.
    """
    _expect(y.shape, y.dtype, y=y, target=target, dy=dy)
    _expect(y.shape[:1], FLOAT64, weights=weights, values=values)
    arguments = (y, target, weights, bool(from_logits), values, dy)
    share_out(binary_rows, arguments, y.shape[0], LOG_FLOPS * y.size)
