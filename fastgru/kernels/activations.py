"""Activations and their slopes, on vectors and on whole arrays."""

from __future__ import annotations

import math

import numpy as np

from fastgru.kernels.jit import inline, jit, part
from fastgru.kernels.names import (
    ELU,
    GELU,
    HARD_SIGMOID,
    LINEAR,
    RELU,
    SELU,
    SIGMOID,
    SOFTPLUS,
    TANH,
)
from fastgru.kernels.simd import (
    absolute,
    exp,
    expm1,
    get,
    lanes,
    load_up_to,
    log1p,
    pointer,
    put,
    select,
    sigmoid,
    splat,
    store_up_to,
    tanh,
)

# Klambauer et al. 2017, arXiv:1706.02515, section 2
SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


@inline
def softplus(x):
    """Return log(1 + e^x), without overflow."""
    return select(x > 0.0, x, 0.0) + log1p(exp(0.0 - absolute(x)))


@part
def activate(code, x):
    """Return the activation of a vector. A NaN gives NaN."""
    if code == TANH:
        return tanh(x)
    if code == SIGMOID:
        return sigmoid(x)
    if code == RELU:
        return select(x < 0.0, 0.0, x)
    if code == HARD_SIGMOID:
        y = x / 6.0 + 0.5
        y = select(y < 0.0, 0.0, y)
        return select(y > 1.0, 1.0, y)
    if code == ELU:
        return select(x > 0.0, x, expm1(x))
    if code == SELU:
        return select(x > 0.0, x, expm1(x) * SELU_ALPHA) * SELU_SCALE
    if code == SOFTPLUS:
        return softplus(x)
    return x


@part
def slope(code, y):
    """Return the derivative of an activation, from its value y. A NaN gives NaN, but in linear."""
    if code == TANH:
        return 1.0 - y * y
    if code == SIGMOID:
        return y * (1.0 - y)
    # The last y of the next two is 0 or NaN.
    if code == RELU:
        return select(y > 0.0, 1.0, y)
    if code == HARD_SIGMOID:
        return select(y > 0.0, select(y < 1.0, 1.0 / 6.0, 1.0 - y), y)
    if code == ELU:
        return select(y > 0.0, 1.0, y + 1.0)
    if code == SELU:
        return select(y > 0.0, SELU_SCALE, y + SELU_ALPHA * SELU_SCALE)
    if code == SOFTPLUS:
        return 0.0 - expm1(0.0 - y)
    return splat(y, 1.0)


@inline
def gelu(x):
    """Return x Phi(x), Phi the normal distribution; a scalar, since erfc comes from libm."""
    share = 0.5 * math.erfc(-x * math.sqrt(0.5))
    return x * share if share > 0.0 else share  # -inf * 0 would be NaN


@inline
def gelu_slope(x):
    """Return d gelu / dx = Phi(x) + x phi(x)."""
    share = 0.5 * math.erfc(-x * math.sqrt(0.5))
    density = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return share + x * density if density > 0.0 else share


@part
def activate_in_place(code, p, n):
    """Replace n elements by their activation; all but GELU."""
    if code != LINEAR:
        for j in range(0, n, lanes(p)):
            store_up_to(p + j, activate(code, load_up_to(p + j, n - j)), n - j)


@jit
def activation_forward(code, x, y):
    """Apply an activation, elementwise.

    Formula: y = f(x)
    Parameters      shape
    ----------
    code            int     in, index into ACTIVATIONS
    x               (n,)    in
    y               (n,)    out
    Source: beside each formula in the twin. Twin: reference.ACTIVATIONS.
    """
    n = x.size
    p, q = pointer(x), pointer(y)
    if code == GELU:
        for j in range(n):
            put(q + j, gelu(np.float64(get(p + j))))
    else:
        for j in range(0, n, lanes(p)):
            store_up_to(q + j, activate(code, load_up_to(p + j, n - j)), n - j)


@jit
def activation_backward(code, dy, x, y, dx):
    """Propagate the gradient of an activation, elementwise.

    In the forward pass this was:    So now:
        y = f(x)                         dx = dy * f'(x), f' from y for all but GELU
    Parameters      shape
    ----------
    code            int     in, index into ACTIVATIONS
    dy              (n,)    in
    x               (n,)    in, read by GELU alone
    y               (n,)    in
    dx              (n,)    out, may be dy
    Source: beside each formula in the twin. Twin: reference.ACTIVATIONS.
    """
    n = dy.size
    g, p, q, d = pointer(dy), pointer(x), pointer(y), pointer(dx)
    if code == GELU:
        for j in range(n):
            put(d + j, np.float64(get(g + j)) * gelu_slope(np.float64(get(p + j))))
    else:
        for j in range(0, n, lanes(g)):
            left = n - j
            value = load_up_to(g + j, left) * slope(code, load_up_to(q + j, left))
            store_up_to(d + j, value, left)
