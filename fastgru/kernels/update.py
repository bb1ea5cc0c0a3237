"""Optimizer updates: one pass over param, gradient and state; and the sums that clipping needs.

A model has dozens of arrays, most of them small, and a call from Python takes longer than such an
array. So one call works on all of them: `Places` tells where they are.

An update waits for memory, not for arithmetic: Adam on 200,000 elements takes as long with two
threads as with one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastgru.kernels.arrays import none_of
from fastgru.kernels.gemm import fill
from fastgru.kernels.jit import inline, jit, part
from fastgru.kernels.simd import (
    I32,
    I64,
    SCALARS,
    Pointer,
    call_llvm,
    clamp,
    constant,
    fma,
    get,
    lanes,
    lanes_of,
    larger,
    load,
    load_up_to,
    smaller,
    splat,
    store_up_to,
)
from fastgru.kernels.threads import share_out

# Partial sums of a dot product.
GROUP = 32


@intrinsic
def square_root(typingctx, x):
    """Return the square root of a vector, rounded once; NaN below zero."""

    def codegen(context, builder, sig, args):
        return call_llvm(builder, "sqrt", sig.args[0].dtype, args[0])

    return x(x), codegen


@intrinsic
def all_zero(typingctx, x):
    """Return whether every lane of a vector is zero, so that none is NaN."""

    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        equal = builder.fcmp_ordered("==", args[0], constant(dtype, 0.0))
        bits = builder.bitcast(equal, ir.IntType(lanes_of(dtype)))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, -1))

    return types.boolean(x), codegen


@intrinsic
def _dot_of_groups(typingctx, p, q, groups):
    """Return the sum of p[j] q[j] in float64, for so many groups of GROUP elements."""

    def codegen(context, builder, sig, args):
        p, q, groups = args
        narrow = ir.VectorType(SCALARS[sig.args[0].dtype], 8)
        wide = ir.VectorType(ir.DoubleType(), 8)
        zeros = ir.Constant(wide, [0.0] * 8)
        sums = [cgutils.alloca_once_value(builder, zeros) for _ in range(GROUP // 8)]

        def eight(pointer, place):
            address = builder.bitcast(builder.gep(pointer, [place]), narrow.as_pointer())
            value = builder.load(address)
            value.align = sig.args[0].dtype.bitwidth // 8
            return value if narrow == wide else builder.fpext(value, wide)

        with cgutils.for_range(builder, groups) as loop:
            first = builder.mul(loop.index, I64(GROUP))
            for i, total in enumerate(sums):
                place = builder.add(first, I64(8 * i))
                term = builder.fmul(eight(p, place), eight(q, place))
                builder.store(builder.fadd(builder.load(total), term), total)
        eights = _by_pairs(builder, [builder.load(total) for total in sums])
        ones = [builder.extract_element(eights, I32(i)) for i in range(8)]
        return _by_pairs(builder, ones)

    return types.float64(p, q, types.intp), codegen


def _by_pairs(builder, values):
    """Return the sum of values: that of neighbours, then of neighbouring sums, and so on."""
    while len(values) > 1:
        values = [builder.fadd(*values[i : i + 2]) for i in range(0, len(values), 2)]
    return values[0]


@part
def dot(p, q, n):
    """Return the sum of p[j] q[j] in float64.

    The partial sums, that of j modulo GROUP, are added in the end: an order that neither the vector
    width nor the number of threads changes, and that keeps the adders busy.
    """
    total = _dot_of_groups(p, q, n // GROUP)
    for j in range(n - n % GROUP, n):
        total += np.float64(get(p + j)) * np.float64(get(q + j))
    return total


@inline
def multiply(p, n, factor):
    """Multiply n elements by a number."""
    for j in range(0, n, lanes(p)):
        store_up_to(p + j, load_up_to(p + j, n - j) * factor, n - j)


class Places(NamedTuple):
    """Where the arrays of one dtype are that an update works on; made by `places_of`.

    `addresses` (k, n) holds a row for the params, one for their gradients, and one for each kind of
    state; `sizes` (n,) the number of elements, `size` their sum; `kind` is an empty array of the
    dtype, and `arrays` keeps the arrays alive.
    """

    addresses: np.ndarray
    sizes: np.ndarray
    kind: np.ndarray
    size: int
    arrays: tuple[tuple[np.ndarray, ...], ...]


def places_of(*roles: Sequence[np.ndarray]) -> Places:
    """Note where arrays are: `roles` are params, gradients, and so on, alike in shapes and order.

    Raises
    ------
    ValueError
        If they are not C-contiguous arrays of one dtype and pairwise the same sizes.
    """
    dtype, sizes = roles[0][0].dtype, [array.size for array in roles[0]]
    for role in roles:
        if [array.size for array in role] != sizes:
            raise ValueError(f"roles: expected sizes {sizes}, given {[a.size for a in role]}")
        for array in role:
            if array.dtype != dtype or not array.flags.carray:
                raise ValueError(
                    f"roles: expected C-contiguous, writable arrays of {dtype}, given {array.dtype}"
                )
    addresses = [[array.__array_interface__["data"][0] for array in role] for role in roles]
    return Places(
        np.array(addresses, np.int64).reshape(len(roles), -1),
        np.array(sizes, np.int64),
        none_of(dtype, 1),
        sum(sizes),
        tuple(map(tuple, roles)),
    )


@intrinsic
def _pointer_at(typingctx, address, kind):
    """Return a pointer to an address, of the dtype of an array."""

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return Pointer(kind.dtype)(types.int64, kind), codegen


@jit
def _clear(addresses, sizes, kind):
    for i in range(sizes.size):
        fill(_pointer_at(addresses[1, i], kind), sizes[i], 0.0)


def clear(places: Places) -> None:
    """Set all gradients to zero.

    Parameters      shape
    ----------
    places          Places      gradients: out
    Source: textbook. Twin: array.fill(0).
    """
    _clear(*places[:3])


@jit
def _sums_of_squares(addresses, sizes, kind, sums):
    total = 0.0
    for i in range(sizes.size):
        p = _pointer_at(addresses[1, i], kind)
        sums[i] = dot(p, p, sizes[i])
        total += sums[i]
    return total


def sums_of_squares(places: Places) -> tuple[np.ndarray, float]:
    """Return sum(gradient^2) of each gradient, and of all, in float64.

    No finite float32 overflows them.

    Parameters      shape
    ----------
    places          Places      in, all gradients
    Source: textbook. Twin: (a * a).sum(), as in reference.clip_by_global_norm.
    """
    sums = np.empty(places.sizes.size)
    return sums, _sums_of_squares(*places[:3], sums)


@jit
def _all_finite(addresses, sizes, kind, limit):
    width = lanes(_pointer_at(addresses[1, 0], kind))
    zero = splat(_pointer_at(addresses[1, 0], kind), 0.0)
    s0 = s1 = s2 = s3 = zero
    for i in range(sizes.size):
        p, n = _pointer_at(addresses[1, i], kind), sizes[i]
        whole = n - n % (4 * width)
        for j in range(0, whole, 4 * width):
            s0 = fma(clamp(load(p + j), -limit, limit), zero, s0)
            s1 = fma(clamp(load(p + (j + width)), -limit, limit), zero, s1)
            s2 = fma(clamp(load(p + (j + 2 * width)), -limit, limit), zero, s2)
            s3 = fma(clamp(load(p + (j + 3 * width)), -limit, limit), zero, s3)
        for j in range(whole, n, width):
            s0 = fma(clamp(load_up_to(p + j, n - j), -limit, limit), zero, s0)
    return all_zero((s0 + s1) + (s2 + s3))


def all_finite(places: Places, limit: float = math.inf) -> bool:
    """Return whether no element of a gradient is NaN or, if not limited, infinite.

    Parameters      shape
    ----------
    places          Places      in, all gradients
    limit           float       in: elements are limited to [-limit, limit] first
    Source: textbook, 0 x is 0 for all others. Twin: numpy.isfinite(numpy.clip(a, ...)).all().
    """
    return _all_finite(*places[:3], float(limit))


@inline
def _share(offset, n, begin, end):
    """Return which elements of an array are between two places in the row of all arrays."""
    return larger(begin - offset, 0), smaller(end - offset, n)


@jit
def sgd_share(
    addresses, sizes, kind, scales, limit, learning_rate, momentum, nesterov, decay, finite,
    worker, workers,
):  # fmt: skip
    """Compute one share of `sgd_update`."""
    total = sizes.sum()
    begin, end = total * worker // workers, total * (worker + 1) // workers
    zeros = zero = splat(_pointer_at(addresses[0, 0], kind), 0.0)  # until a NaN or inf passes
    with_velocity = addresses.shape[0] == 3
    offset = 0
    for i in range(sizes.size):
        p, g = _pointer_at(addresses[0, i], kind), _pointer_at(addresses[1, i], kind)
        u = _pointer_at(addresses[2 if with_velocity else 0, i], kind)
        first, last = _share(offset, sizes[i], begin, end)
        offset += sizes[i]
        rate = scales[i] * learning_rate
        for j in range(first, last, lanes(p)):
            left = last - j
            step = clamp(load_up_to(g + j, left), -limit, limit) * rate
            speed = 0.0 - step
            if with_velocity:
                speed = load_up_to(u + j, left) * momentum - step
                store_up_to(u + j, speed, left)
                if nesterov:
                    speed = speed * momentum - step
            param = load_up_to(p + j, left)
            store_up_to(p + j, param + (speed - param * decay), left)
            zeros = fma(load_up_to(p + j, left), zero, zeros)
    if not all_zero(zeros):
        finite[0] = False


@jit
def rmsprop_share(
    addresses, sizes, kind, scales, limit, learning_rate, rho, momentum, epsilon, centered, decay,
    finite, worker, workers,
):  # fmt: skip
    """Compute one share of `rmsprop_update`."""
    total = sizes.sum()
    begin, end = total * worker // workers, total * (worker + 1) // workers
    zeros = zero = splat(_pointer_at(addresses[0, 0], kind), 0.0)  # until a NaN or inf passes
    with_velocity = addresses.shape[0] == (5 if centered else 4)
    offset = 0
    for i in range(sizes.size):
        p, g = _pointer_at(addresses[0, i], kind), _pointer_at(addresses[1, i], kind)
        r = _pointer_at(addresses[2, i], kind)
        q = _pointer_at(addresses[3 if centered else 0, i], kind)
        u = _pointer_at(addresses[addresses.shape[0] - 1, i], kind)
        first, last = _share(offset, sizes[i], begin, end)
        offset += sizes[i]
        scale = scales[i]
        for j in range(first, last, lanes(p)):
            left = last - j
            slope = clamp(load_up_to(g + j, left), -limit, limit) * scale
            square = load_up_to(r + j, left)
            square = square + (slope * slope - square) * (1.0 - rho)
            store_up_to(r + j, square, left)
            spread = square
            if centered:
                mean = load_up_to(q + j, left)
                mean = mean + (slope - mean) * (1.0 - rho)
                store_up_to(q + j, mean, left)
                # Of gradients that hardly change, rounding may leave less than nothing.
                spread = clamp(square - mean * mean, 0.0, math.inf)
            step = slope * learning_rate / square_root(spread + epsilon)
            if with_velocity:
                step = load_up_to(u + j, left) * momentum + step
                store_up_to(u + j, step, left)
            param = load_up_to(p + j, left)
            store_up_to(p + j, param - (step + param * decay), left)
            # As in `adam_share`.
            zeros = fma(load_up_to(p + j, left), zero, fma(square, zero, zeros))
    if not all_zero(zeros):
        finite[0] = False


@jit
def adam_share(
    addresses, sizes, kind, scales, limit, alpha, beta_1, beta_2, epsilon, decay, finite,
    worker, workers,
):  # fmt: skip
    """Compute one share of `adam_update`."""
    total = sizes.sum()
    begin, end = total * worker // workers, total * (worker + 1) // workers
    zeros = zero = splat(_pointer_at(addresses[0, 0], kind), 0.0)  # until a NaN or inf passes
    offset = 0
    for i in range(sizes.size):
        p, g = _pointer_at(addresses[0, i], kind), _pointer_at(addresses[1, i], kind)
        q, r = _pointer_at(addresses[2, i], kind), _pointer_at(addresses[3, i], kind)
        first, last = _share(offset, sizes[i], begin, end)
        offset += sizes[i]
        scale = scales[i]
        for j in range(first, last, lanes(p)):
            left = last - j
            slope = clamp(load_up_to(g + j, left), -limit, limit) * scale
            mean, square = load_up_to(q + j, left), load_up_to(r + j, left)
            mean = mean + (slope - mean) * (1.0 - beta_1)
            square = square + (slope * slope - square) * (1.0 - beta_2)
            store_up_to(q + j, mean, left)
            store_up_to(r + j, square, left)
            step = mean * alpha / (square_root(square) + epsilon)
            param = load_up_to(p + j, left)
            store_up_to(p + j, param - (step + param * decay), left)
            # An infinite square would stop its param for ever, which may itself be finite.
            zeros = fma(load_up_to(p + j, left), zero, fma(square, zero, zeros))
    if not all_zero(zeros):
        finite[0] = False


@jit
def average_share(addresses, sizes, kind, keep, share, worker, workers):
    """Compute one share of `average_update`."""
    total = sizes.sum()
    begin, end = total * worker // workers, total * (worker + 1) // workers
    offset = 0
    for i in range(sizes.size):
        p, q = _pointer_at(addresses[0, i], kind), _pointer_at(addresses[1, i], kind)
        first, last = _share(offset, sizes[i], begin, end)
        offset += sizes[i]
        for j in range(first, last, lanes(p)):
            left = last - j
            value = load_up_to(p + j, left) * keep + load_up_to(q + j, left) * share
            store_up_to(p + j, value, left)


def _run(share: Any, places: Places, scales: np.ndarray, *numbers: Any) -> bool:
    """Share an update out; return whether what it made is finite."""
    finite = np.ones(1, np.bool_)
    flops = 10 * places.size
    share_out(share, (*places[:3], scales, *numbers, finite), places.size, flops)
    return bool(finite[0])


def sgd_update(
    places: Places,
    scales: np.ndarray,
    limit: float,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    decay: float = 0.0,
) -> bool:
    """Step down the gradients, with momentum; return whether all params are finite.

    Formula, with g = scale * clip(grad, -limit, limit):
        velocity = momentum * velocity - learning_rate * g
        param = param - decay * param + velocity
        nesterov:  param = param - decay * param + momentum * velocity - learning_rate * g
    Parameters      shape         (one dtype)
    ----------
    places          Places        params: in and out, gradients: in, velocities: in and out;
                                  without velocities they are -learning_rate * g
    scales          (n,) float64  in: clipping by a norm without a pass of its own
    limit           float         in: clipping by value; infinite for none
    learning_rate   float         in
    momentum        float         in
    nesterov        bool          in
    decay           float         in: learning_rate * weight_decay
    Source: Sutskever et al. 2013; keras.optimizers.SGD. Twin: reference.sgd_update.
    """
    numbers = float(limit), float(learning_rate), float(momentum), bool(nesterov), float(decay)
    return _run(sgd_share, places, scales, *numbers)


def rmsprop_update(
    places: Places,
    scales: np.ndarray,
    limit: float,
    learning_rate: float,
    rho: float,
    momentum: float,
    epsilon: float,
    centered: bool,
    decay: float = 0.0,
) -> bool:
    """Step down the gradients, measured in units of their root mean square.

    Return whether all params and v are finite.

    Formula, with g = scale * clip(grad, -limit, limit):
        v = v + (1 - rho) (g^2 - v)         step = learning_rate * g / sqrt(v + epsilon)
        centered:  mean = mean + (1 - rho) (g - mean), and max(v - mean^2, 0) instead of v in step
        velocity = momentum * velocity + step
        param = param - decay * param - velocity
    Parameters      shape         (one dtype)
    ----------
    places          Places        params: in and out, gradients: in, then v, means if centered, and
                                  velocities: in and out, zeros before the first step; without
                                  velocities they are step
    scales          (n,) float64  in: clipping by a norm without a pass of its own
    limit           float         in: clipping by value; infinite for none
    learning_rate   float         in
    rho, momentum   float         in
    epsilon         float         in
    centered        bool          in
    decay           float         in: learning_rate * weight_decay
    Source: Tieleman and Hinton 2012, lecture 6.5, and Graves 2013, arXiv:1308.0850, equations 38 to
    41, for centered; keras.optimizers.RMSprop. Twin: reference.rmsprop_update.
    """
    numbers = map(float, (limit, learning_rate, rho, momentum, epsilon))
    return _run(rmsprop_share, places, scales, *numbers, bool(centered), float(decay))


def adam_update(
    places: Places,
    scales: np.ndarray,
    limit: float,
    alpha: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    decay: float = 0.0,
) -> bool:
    """Step down the mean gradients, measured in units of their root mean square.

    Return whether all params and v are finite.

    Formula, with g = scale * clip(grad, -limit, limit):
        m = m + (1 - beta_1) (g - m)        v = v + (1 - beta_2) (g^2 - v)
        param = param - decay * param - alpha * m / (sqrt(v) + epsilon)
    Parameters      shape         (one dtype)
    ----------
    places          Places        params: in and out, gradients: in, m and v: in and out, zeros
                                  before the first step
    scales          (n,) float64  in: clipping by a norm without a pass of its own
    limit           float         in: clipping by value; infinite for none
    alpha           float         in: learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t), step t
    beta_1, beta_2  float         in
    epsilon         float         in
    decay           float         in: learning_rate * weight_decay
    Source: Kingma and Ba 2015, arXiv:1412.6980, the form before section 2.1, as Keras; Loshchilov
    and Hutter 2019, arXiv:1711.05101, algorithm 2, for decay. Twin: reference.adam_update.
    """
    numbers = map(float, (limit, alpha, beta_1, beta_2, epsilon, decay))
    return _run(adam_share, places, scales, *numbers)


def average_update(places: Places, keep: float, share: float) -> None:
    """Move averages towards what they are the averages of.

    Formula: average = keep * average + share * array
    Parameters      shape
    ----------
    places          Places        averages: in and out, arrays: in
    keep, share     float         in: m and 1 - m for an exponential moving average, 1 and 1 / k for
                                  one of k terms of a mean, 0 and 1 or 1 / k to begin
    Source: Polyak and Juditsky 1992; keras.optimizers.Optimizer, use_ema.
    Twin: reference.average_update.
    """
    numbers = float(keep), float(share)
    share_out(average_share, (*places[:3], *numbers), places.size, 4 * places.size)
