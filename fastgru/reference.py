"""Every kernel again in plain NumPy: the slow truth beside each fast loop.

In float64 these functions are the oracle of the tests, in float32 the baseline of the benchmarks;
each computes in the dtype of its arguments, checks nothing and imports nothing of ours.

A forward function and its backward stand together, and backward quotes forward. Letters: B batch,
T steps, I inputs, H units, V vocabulary or classes, E size of an embedding, K values of a row;
``...`` is any number of leading axes. ``d`` before a name is the gradient of that array, in its
shape. The gates of a GRU come in the order r reset, z update, n candidate, those of an
LSTM i input, f forget, g candidate, o output.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# ---- Activations: y = f(x), elementwise, and dy/dx ----


class Activation(NamedTuple):
    """An elementwise function and its derivative.

    Parameters
    ----------
    function : callable
        ``y = function(x)``.
    derivative : callable
        ``dy/dx = derivative(x, y)``. It is written in y alone wherever y tells enough, which is
        everywhere but in gelu; then x may be None.
    """

    function: Callable[[Any], Any]
    derivative: Callable[[Any, Any], Any]


def _sigmoid(x):
    """Squash into (0, 1): y = exp(x) / (1 + exp(x)).

    The smallest y keep their relative accuracy, and nothing overflows: from x = 40 on, y is 1.
    """
    e = np.exp(np.minimum(x, 40))
    return e / (1 + e)


def _elu(x, alpha=1.0):
    """Bend smoothly towards -alpha: y = x if x > 0 else alpha (exp(x) - 1); arXiv:1511.07289."""
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # y = scale elu(x, alpha)


def _softplus(x):
    """Bend smoothly from 0 to x: y = log(1 + exp(x)), where exp cannot overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_erfc = np.vectorize(math.erfc, otypes=[float])  # NumPy has none


def _normal_cdf(x):
    """Give the share of the standard normal distribution below x, its left tail too."""
    return (0.5 * _erfc(-math.sqrt(0.5) * x)).astype(x.dtype)


def _normal_density(x):
    """Give the standard normal density; beyond |x| = 40 it is 0 and x * x might overflow."""
    x = np.clip(x, -40, 40)
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


ACTIVATIONS = {
    "linear": Activation(np.positive, lambda x, y: np.ones_like(y)),
    "tanh": Activation(np.tanh, lambda x, y: 1 - y * y),
    "sigmoid": Activation(_sigmoid, lambda x, y: y * (1 - y)),
    "relu": Activation(  # heaviside(y, 0) is the float 1 where y > 0, else 0
        lambda x: np.maximum(x, 0),
        lambda x, y: np.heaviside(y, 0),
    ),
    "hard_sigmoid": Activation(  # as in Keras 3; y (1 - y) > 0 on the slope only
        lambda x: np.clip(x / 6 + 0.5, 0, 1),
        lambda x, y: np.heaviside(y * (1 - y), 0) / 6,
    ),
    "elu": Activation(_elu, lambda x, y: np.where(y > 0, 1, y + 1)),
    "selu": Activation(  # Klambauer et al. 2017, arXiv:1706.02515
        lambda x: SELU_SCALE * _elu(x, SELU_ALPHA),
        lambda x, y: np.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA),
    ),
    "softplus": Activation(_softplus, lambda x, y: -np.expm1(-y)),  # sigmoid(x) = 1 - exp(-y)
    "gelu": Activation(  # the exact form (Keras' approximate=False), arXiv:1606.08415
        lambda x: np.maximum(x, -40) * _normal_cdf(x),  # -inf * 0 would be NaN
        lambda x, y: _normal_cdf(x) + np.clip(x, -40, 40) * _normal_density(x),
    ),
}


def softmax(x):
    """Turn rows of scores into rows of probabilities.

    Formula: y = exp(x) / sum(exp(x)), sums over the last axis; x - max(x) gives the same y and
    cannot overflow.

    Parameters
    ----------
    x : (..., K)

    Returns
    -------
    y : (..., K)
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dy, y):
    """Differentiate `softmax`.

    Formula: dy_i/dx_j = y_i (i == j) - y_i y_j, hence dx = y * (dy - sum(dy * y)).

    Parameters
    ----------
    dy, y : (..., K)

    Returns
    -------
    dx : (..., K)
    """
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def _rows(x):
    """Flatten (..., K) to (rows, K), so that a product over all of them is one product."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# ---- GRU, and what all recurrent cells share ----


def _processing_order(x, mask, go_backwards):
    """Turn x and mask as the time loop meets them; masked x, which may be NaN, becomes 0."""
    if go_backwards:
        x, mask = x[:, ::-1], None if mask is None else mask[:, ::-1]
    if mask is not None:
        x = np.where(mask[:, :, None], x, 0)
    return x, mask


def _before(initial, states):
    """Return the state before each step."""
    before = np.empty_like(states)
    before[:, :1], before[:, 1:] = initial[:, None], states[:, :-1]
    return before


def _seen(h, drop):
    """Return what the products see of a state (B, H), or of states (B, T, H)."""
    return h if drop is None else h * (drop if h.ndim == 2 else drop[:, None])


def _gru_cell(a, h, recurrent_kernel, recurrent_bias, reset_after, f, s, drop=None):
    """Make one step from a = x W + b (B, 3H) and h (B, H): the new h, and r, z, n, q."""
    H = h.shape[1]
    seen = _seen(h, drop)
    a_rz, a_n = a[:, : 2 * H], a[:, 2 * H :]
    if reset_after:
        u = seen @ recurrent_kernel  # h U + c of all three gates
        u += recurrent_bias
        rz = s(a_rz + u[:, : 2 * H])
        r, z = rz[:, :H], rz[:, H:]
        q = u[:, 2 * H :]
        n = f(a_n + r * q)
    else:
        U_rz, U_n = recurrent_kernel[:, : 2 * H], recurrent_kernel[:, 2 * H :]
        c_rz, c_n = recurrent_bias[: 2 * H], recurrent_bias[2 * H :]
        rz = s(a_rz + seen @ U_rz + c_rz)
        r, z = rz[:, :H], rz[:, H:]
        q = r * seen
        n = f(a_n + q @ U_n + c_n)
    return n + z * (h - n), r, z, n, q


def gru_forward(
    x,
    mask,
    h0,
    kernel,
    recurrent_kernel,
    bias,
    recurrent_bias,
    *,
    reset_after=True,
    go_backwards=False,
    activation="tanh",
    recurrent_activation="sigmoid",
    drop=None,
    keep_gates=True,
):
    """Run a GRU over a batch of sequences.

    Formula, with f the activation, s the recurrent activation, * elementwise, h the state before
    the step (h0 before the first) and W, U, b, c the columns of kernel, recurrent_kernel, bias and
    recurrent_bias that belong to the gate::

        r = s(x Wr + br + h Ur + cr)
        z = s(x Wz + bz + h Uz + cz)
        reset_after:  q = h Un + cn    n = f(x Wn + bn + r * q)
        otherwise:    q = r * h        n = f(x Wn + bn + q Un + cn)
        h_new = n + z * (h - n)        that is (1 - z) * n + z * h

    A masked step keeps the state and repeats it as its output, whatever its x holds (NaN too).

    Source: Cho et al. 2014, arXiv:1406.1078, section 2.3: equations 5 to 8 of version 3 reset
    before the product, as reset_after=False does; version 1 and cuDNN reset after it.

    Parameters
    ----------
    x : (B, T, I)
    mask : (B, T) bool or None
        False marks a masked step; None masks nothing.
    h0 : (B, H)
    kernel : (I, 3H)
    recurrent_kernel : (H, 3H)
    bias, recurrent_bias : (3H,)
    reset_after : bool
        Whether r resets after the product with Un or before it.
    go_backwards : bool
        Whether step s processes x[:, T - 1 - s]; y and gates stay in processing order.
    activation, recurrent_activation : str
        f and s, names of `ACTIVATIONS`. `gru_backward` has only the outputs r, z, n to go by, so
        it cannot take gelu, whose negative outputs each have two inputs with different slopes.
        softmax, which is not elementwise, is no activation of a GRU.
    drop : (B, H) or None
        What h is multiplied with before U, or r, takes it, in all steps alike: a recurrent dropout,
        arXiv:1512.05287, scaled as in Keras so that the mean stays. None drops nothing.
    keep_gates : bool
        False when no backward will follow.

    Returns
    -------
    y : (B, T, H)
        Each step's h_new, in processing order; the last state is y[:, -1], or h0 when T = 0.
    gates : (B, T, 4, H)
        r, z, n, q, zero at masked steps; (0, 0, 4, H) without keep_gates.
    """
    (B, T, _), H = x.shape, h0.shape[1]
    f, s = ACTIVATIONS[activation].function, ACTIVATIONS[recurrent_activation].function
    x, mask = _processing_order(x, mask, go_backwards)

    a = _rows(x) @ kernel  # x W + b of all steps in one product
    a += bias
    a = a.reshape(B, T, 3 * H)

    y = np.empty((B, T, H), a.dtype)
    gates = np.empty((B, T, 4, H) if keep_gates else (0, 0, 4, H), a.dtype)
    h = h0
    for t in range(T):
        h_new, *kept = _gru_cell(
            a[:, t], h, recurrent_kernel, recurrent_bias, reset_after, f, s, drop
        )
        if mask is not None:
            h_new = np.where(mask[:, t, None], h_new, h)
        if keep_gates:
            for k, gate in enumerate(kept):
                gates[:, t, k] = gate
        y[:, t] = h = h_new
    if keep_gates and mask is not None:
        gates[~mask] = 0
    return y, gates


def gru_backward(
    dy,
    dh_last,
    x,
    mask,
    h0,
    kernel,
    recurrent_kernel,
    bias,
    recurrent_bias,
    y,
    gates,
    *,
    reset_after=True,
    go_backwards=False,
    activation="tanh",
    recurrent_activation="sigmoid",
    drop=None,
):
    """Differentiate `gru_forward`: backpropagation through time.

    Formula, with ar, az, an what s, s, f are applied to, f'(n) and s'(r) slopes written in the
    outputs, dh the gradient of h_new and dh_prev that of h::

        dan = dh * (1 - z) * f'(n)     daz = dh * (h - n) * s'(z)     dgi = [dar, daz, dan]
        reset_after:  dq = dan * r     dar = dan * q * s'(r)          dgh = [dar, daz, dq]
                      dh_prev = dh * z + dgh U^T
        otherwise:    dq = dan Un^T    dar = dq * h * s'(r)           dgh = dgi
                      dh_prev = dh * z + dq * r + [dar, daz] [Ur, Uz]^T
        dx = dgi W^T,  dkernel = x^T dgi,  drecurrent_kernel = h^T dgh (for Un otherwise q^T dan)

    With drop, h is h * drop in all products, and what they hand to dh_prev is multiplied by drop.

    dgi is the gradient of the input side x W + b, dgh of the recurrent side, whose bias is c. A
    masked step hands dh on, and its dx is zero.

    Source: Werbos 1990, Backpropagation through time: what it does and how to do it.

    Parameters
    ----------
    dy : (B, T, H)
        In the order of y, that is processing order.
    dh_last : (B, H)
        Gradient of the last state, on top of dy[:, -1].
    x, mask, h0, kernel, recurrent_kernel, bias, recurrent_bias
        As given to `gru_forward`.
    y, gates
        As returned by it.
    reset_after, go_backwards, activation, recurrent_activation, drop
        As given to it.

    Returns
    -------
    dx, dh0, dkernel, drecurrent_kernel, dbias, drecurrent_bias
        Gradients of sum(dy * y) + sum(dh_last * last state).
    """
    (B, T, _), H = x.shape, h0.shape[1]
    df, ds = ACTIVATIONS[activation].derivative, ACTIVATIONS[recurrent_activation].derivative
    x, mask = _processing_order(x, mask, go_backwards)
    U_rz, U_n = recurrent_kernel[:, : 2 * H], recurrent_kernel[:, 2 * H :]
    r, z, n, q = (gates[:, :, k] for k in range(4))
    h = _before(h0, y)
    seen = _seen(h, drop)

    # What does not depend on dh, for all steps at once.
    slope_n = (1 - z) * df(None, n)  # h_new = n + z * (h - n), n = f(an)
    slope_z = (h - n) * ds(None, z)  # h_new = n + z * (h - n), z = s(az)
    slope_r = (q if reset_after else seen) * ds(
        None, r
    )  # an = ... + r * q  or  q = r * h, r = s(ar)

    dgi = np.empty((B, T, 3, H), y.dtype)
    dgh = np.empty_like(dgi) if reset_after else dgi
    dh = dh_last.copy()
    for t in reversed(range(T)):
        dh = dh + dy[:, t]  # y[:, t] = h_new
        dan, daz = dh * slope_n[:, t], dh * slope_z[:, t]
        if reset_after:  # an = x Wn + bn + r * q, [ar, az, q] = [..., ..., 0] + h U + c
            dar = dan * slope_r[:, t]
            dgi[:, t, 0], dgi[:, t, 1], dgi[:, t, 2] = dar, daz, dan
            dgh[:, t, 0], dgh[:, t, 1], dgh[:, t, 2] = dar, daz, dan * r[:, t]
            dseen = dgh[:, t].reshape(B, 3 * H) @ recurrent_kernel.T
        else:  # an = x Wn + bn + q Un + cn, q = r * h, [ar, az] = [...] + h [Ur, Uz]
            dq = dan @ U_n.T
            dar = dq * slope_r[:, t]
            dgi[:, t, 0], dgi[:, t, 1], dgi[:, t, 2] = dar, daz, dan
            dseen = dq * r[:, t] + dgi[:, t, :2].reshape(B, 2 * H) @ U_rz.T
        dh_prev = dh * z[:, t] + _seen(dseen, drop)
        dh = dh_prev if mask is None else np.where(mask[:, t, None], dh_prev, dh)
    if mask is not None:
        dgi[~mask] = 0
        dgh[~mask] = 0

    # x W + b: the gradients of all steps in one product each.
    dgi, dgh = dgi.reshape(B * T, 3 * H), dgh.reshape(B * T, 3 * H)
    dx = (dgi @ kernel.T).reshape(x.shape)
    dkernel = _rows(x).T @ dgi
    if reset_after:  # h U + c
        drecurrent_kernel = _rows(seen).T @ dgh
    else:  # h [Ur, Uz] + [cr, cz], q Un + cn
        dU_rz, dU_n = _rows(seen).T @ dgh[:, : 2 * H], _rows(q).T @ dgh[:, 2 * H :]
        drecurrent_kernel = np.hstack([dU_rz, dU_n])
    if go_backwards:
        dx = dx[:, ::-1]
    return dx, dh, dkernel, drecurrent_kernel, dgi.sum(axis=0), dgh.sum(axis=0)


def gru_step(
    x,
    h,
    kernel,
    recurrent_kernel,
    bias,
    recurrent_bias,
    *,
    reset_after=True,
    go_backwards=False,
    activation="tanh",
    recurrent_activation="sigmoid",
):
    """Run a GRU for a single step: what `gru_forward` does at each.

    Formula and source: see `gru_forward`.

    Parameters
    ----------
    x : (B, I)
    h : (B, H)
        The state before the step.
    kernel, recurrent_kernel, bias, recurrent_bias, reset_after, activation, recurrent_activation
        As in `gru_forward`.
    go_backwards : bool
        Taken so that one set of options serves all GRU functions; one step has no direction.

    Returns
    -------
    h_new : (B, H)
    """
    f, s = ACTIVATIONS[activation].function, ACTIVATIONS[recurrent_activation].function
    return _gru_cell(x @ kernel + bias, h, recurrent_kernel, recurrent_bias, reset_after, f, s)[0]


# ---- LSTM and SimpleRNN ----


def _lstm_cell(a, h, c, recurrent_kernel, f, s, drop):
    """Make one step from a = x W + b (B, 4H), h and c (B, H): the new h and c, and i, f, g, o."""
    H = h.shape[1]
    a = a + _seen(h, drop) @ recurrent_kernel
    i_f = s(a[:, : 2 * H])
    i, forget = i_f[:, :H], i_f[:, H:]
    g = f(a[:, 2 * H : 3 * H])
    o = s(a[:, 3 * H :])
    c_new = forget * c + i * g
    return o * f(c_new), c_new, i, forget, g, o


def lstm_forward(
    x,
    mask,
    h0,
    c0,
    kernel,
    recurrent_kernel,
    bias,
    *,
    go_backwards=False,
    activation="tanh",
    recurrent_activation="sigmoid",
    drop=None,
):
    """Run an LSTM over a batch of sequences.

    Formula, with phi the activation, s the recurrent activation, * elementwise, h and c the states
    before the step (h0, c0 before the first) and W, U, b the columns of kernel, recurrent_kernel
    and bias that belong to the gate::

        i = s(x Wi + h Ui + bi)        f = s(x Wf + h Uf + bf)
        g = phi(x Wg + h Ug + bg)      o = s(x Wo + h Uo + bo)
        c_new = f * c + i * g          h_new = o * phi(c_new)

    A masked step keeps both states and repeats h as its output, whatever its x holds (NaN too).

    Source: Hochreiter and Schmidhuber 1997, Long short-term memory, Neural Computation 9 (8), with
    the forget gate f of Gers, Schmidhuber and Cummins 2000, Neural Computation 12 (10).

    Parameters
    ----------
    x : (B, T, I)
    mask : (B, T) bool or None
        False marks a masked step; None masks nothing.
    h0, c0 : (B, H)
    kernel : (I, 4H)
    recurrent_kernel : (H, 4H)
    bias : (4H,)
        Gates in the order i input, f forget, g candidate, o output.
    go_backwards : bool
        Whether step s processes x[:, T - 1 - s]; y, c and gates stay in processing order.
    activation, recurrent_activation : str
        phi and s, names of `ACTIVATIONS` other than gelu: see `gru_forward`.
    drop : (B, H) or None
        What h is multiplied with before U takes it: see `gru_forward`.

    Returns
    -------
    y, c : (B, T, H)
        Each step's h_new and c_new, in processing order.
    gates : (B, T, 4, H)
        i, f, g, o, zero at masked steps.
    """
    (B, T, _), H = x.shape, h0.shape[1]
    f, s = ACTIVATIONS[activation].function, ACTIVATIONS[recurrent_activation].function
    x, mask = _processing_order(x, mask, go_backwards)
    a = (_rows(x) @ kernel + bias).reshape(B, T, 4 * H)
    y, cells = np.empty((B, T, H), a.dtype), np.empty((B, T, H), a.dtype)
    gates = np.empty((B, T, 4, H), a.dtype)
    h, c = h0, c0
    for t in range(T):
        h_new, c_new, *kept = _lstm_cell(a[:, t], h, c, recurrent_kernel, f, s, drop)
        gates[:, t] = np.stack(kept, axis=1)
        if mask is not None:
            real = mask[:, t, None]
            h_new, c_new = np.where(real, h_new, h), np.where(real, c_new, c)
        y[:, t], cells[:, t] = h, c = h_new, c_new
    if mask is not None:
        gates[~mask] = 0
    return y, cells, gates


def lstm_backward(
    dy,
    dh_last,
    dc_last,
    x,
    mask,
    h0,
    c0,
    kernel,
    recurrent_kernel,
    bias,
    y,
    c,
    gates,
    *,
    go_backwards=False,
    activation="tanh",
    recurrent_activation="sigmoid",
    drop=None,
):
    """Differentiate `lstm_forward`: backpropagation through time.

    Formula, with ai, af, ag, ao what s, s, phi, s are applied to, phi' and s' slopes written in the
    outputs, dh and dc the gradients of h_new and c_new, dc_prev and dh_prev those of c and h::

        dao = dh * phi(c_new) * s'(o)             dc += dh * o * phi'(phi(c_new))
        dai = dc * g * s'(i)    daf = dc * c * s'(f)    dag = dc * i * phi'(g)
        da = [dai, daf, dag, dao]                 dc_prev = dc * f        dh_prev = da U^T
        dx = da W^T,  dkernel = x^T da,  drecurrent_kernel = h^T da,  dbias = sum(da)

    With drop, h is h * drop here, and dh_prev is multiplied by drop. A masked step hands dh and dc
    on, and its dx is zero.

    Source: Werbos 1990, Backpropagation through time: what it does and how to do it; the whole
    gradient, not the truncated one of Hochreiter and Schmidhuber.

    Parameters
    ----------
    dy : (B, T, H)
        In the order of y, that is processing order.
    dh_last, dc_last : (B, H)
        Gradients of the last states, dh_last on top of dy[:, -1].
    x, mask, h0, c0, kernel, recurrent_kernel, bias
        As given to `lstm_forward`.
    y, c, gates
        As returned by it.
    go_backwards, activation, recurrent_activation, drop
        As given to it.

    Returns
    -------
    dx, dh0, dc0, dkernel, drecurrent_kernel, dbias
        Gradients of sum(dy * y) + sum(dh_last * last h) + sum(dc_last * last c).
    """
    (B, T, _), H = x.shape, h0.shape[1]
    f, df = ACTIVATIONS[activation]
    ds = ACTIVATIONS[recurrent_activation].derivative
    x, mask = _processing_order(x, mask, go_backwards)
    i, forget, g, o = (gates[:, :, k] for k in range(4))
    h, c_prev = _before(h0, y), _before(c0, c)
    da = np.empty((B, T, 4, H), y.dtype)
    dh, dc = dh_last.copy(), dc_last.copy()
    for t in reversed(range(T)):
        dh = dh + dy[:, t]  # y[:, t] = h_new = o * f(c_new)
        f_c = f(c[:, t])
        dc_new = dc + dh * o[:, t] * df(None, f_c)  # c_new = forget * c + i * g
        da[:, t, 0] = dc_new * g[:, t] * ds(None, i[:, t])
        da[:, t, 1] = dc_new * c_prev[:, t] * ds(None, forget[:, t])
        da[:, t, 2] = dc_new * i[:, t] * df(None, g[:, t])
        da[:, t, 3] = dh * f_c * ds(None, o[:, t])
        dh_prev = _seen(da[:, t].reshape(B, 4 * H) @ recurrent_kernel.T, drop)  # a = x W + h U + b
        dc_prev = dc_new * forget[:, t]
        if mask is not None:
            real = mask[:, t, None]
            dh_prev, dc_prev = np.where(real, dh_prev, dh), np.where(real, dc_prev, dc)
        dh, dc = dh_prev, dc_prev
    dx, *dweights = _gradients_of_sums(da, x, mask, _seen(h, drop), kernel, go_backwards)
    return dx, dh, dc, *dweights


def _gradients_of_sums(da, x, mask, h, kernel, go_backwards):
    """Return what the gradients of a = x W + h U + b are to x, W, U and b; x in processing order.

    Changes da in place, which is zero at masked steps.
    """
    if mask is not None:
        da[~mask] = 0
    da = da.reshape(_rows(x).shape[0], kernel.shape[1])
    dx = (da @ kernel.T).reshape(x.shape)
    if go_backwards:
        dx = dx[:, ::-1]
    return dx, _rows(x).T @ da, _rows(h).T @ da, da.sum(axis=0)


def simple_rnn_forward(
    x, mask, h0, kernel, recurrent_kernel, bias, *, go_backwards=False, activation="tanh", drop=None
):
    """Run a simple recurrent network over a batch of sequences.

    Formula, with f the activation and h the state before the step (h0 before the first)::

        h_new = f(x W + h U + b)

    A masked step keeps the state and repeats it as its output, whatever its x holds (NaN too).

    Source: Elman 1990, Finding structure in time, Cognitive Science 14 (2).

    Parameters
    ----------
    x : (B, T, I)
    mask : (B, T) bool or None
        False marks a masked step; None masks nothing.
    h0 : (B, H)
    kernel : (I, H)
    recurrent_kernel : (H, H)
    bias : (H,)
    go_backwards : bool
        Whether step s processes x[:, T - 1 - s]; y stays in processing order.
    activation : str
        f, a name of `ACTIVATIONS` other than gelu: see `gru_forward`.
    drop : (B, H) or None
        What h is multiplied with before U takes it: see `gru_forward`.

    Returns
    -------
    y : (B, T, H)
        Each step's h_new, in processing order.
    """
    (B, T, _), H = x.shape, h0.shape[1]
    f = ACTIVATIONS[activation].function
    x, mask = _processing_order(x, mask, go_backwards)
    a = (_rows(x) @ kernel + bias).reshape(B, T, H)
    y = np.empty((B, T, H), a.dtype)
    h = h0
    for t in range(T):
        h_new = f(a[:, t] + _seen(h, drop) @ recurrent_kernel)
        y[:, t] = h = h_new if mask is None else np.where(mask[:, t, None], h_new, h)
    return y


def simple_rnn_backward(
    dy,
    dh_last,
    x,
    mask,
    h0,
    kernel,
    recurrent_kernel,
    bias,
    y,
    *,
    go_backwards=False,
    activation="tanh",
    drop=None,
):
    """Differentiate `simple_rnn_forward`: backpropagation through time.

    Formula, with a what f is applied to, f' the slope written in the output, dh the gradient of
    h_new and dh_prev that of h::

        da = dh * f'(h_new)    dh_prev = da U^T
        dx = da W^T,  dkernel = x^T da,  drecurrent_kernel = h^T da,  dbias = sum(da)

    With drop, h is h * drop here, and dh_prev is multiplied by drop. A masked step hands dh on, and
    its dx is zero.

    Source: Werbos 1990, Backpropagation through time: what it does and how to do it.

    Parameters
    ----------
    dy : (B, T, H)
        In the order of y, that is processing order.
    dh_last : (B, H)
        Gradient of the last state, on top of dy[:, -1].
    x, mask, h0, kernel, recurrent_kernel, bias
        As given to `simple_rnn_forward`.
    y
        As returned by it.
    go_backwards, activation, drop
        As given to it.

    Returns
    -------
    dx, dh0, dkernel, drecurrent_kernel, dbias
        Gradients of sum(dy * y) + sum(dh_last * last state).
    """
    T = x.shape[1]
    df = ACTIVATIONS[activation].derivative
    x, mask = _processing_order(x, mask, go_backwards)
    da = np.empty_like(y)
    dh = dh_last.copy()
    for t in reversed(range(T)):
        dh = dh + dy[:, t]  # y[:, t] = h_new = f(a)
        da[:, t] = dh * df(None, y[:, t])
        dh_prev = _seen(da[:, t] @ recurrent_kernel.T, drop)  # a = x W + h U + b
        dh = dh_prev if mask is None else np.where(mask[:, t, None], dh_prev, dh)
    seen = _seen(_before(h0, y), drop)
    dx, *dweights = _gradients_of_sums(da, x, mask, seen, kernel, go_backwards)
    return dx, dh, *dweights


# ---- Dense and Embedding ----


def dense(x, kernel, bias, activation="linear"):
    """Weigh the inputs, add a bias, apply an activation.

    Formula: a = x kernel + bias, y = f(a).

    Parameters
    ----------
    x : (..., I)
    kernel : (I, H)
    bias : (H,)
    activation : str
        A name of `ACTIVATIONS`, or "softmax".

    Returns
    -------
    y : (..., H)
    """
    a = x @ kernel + bias
    return softmax(a) if activation == "softmax" else ACTIVATIONS[activation].function(a)


def dense_backward(dy, x, kernel, bias, activation="linear"):
    """Differentiate `dense`.

    Formula: da = dy * f'(a) (or `softmax_backward`), dx = da kernel^T, dkernel = x^T da and
    dbias = sum(da) over all rows.

    Parameters
    ----------
    dy : (..., H)
    x, kernel, bias, activation
        As given to `dense`.

    Returns
    -------
    dx, dkernel, dbias
    """
    a = x @ kernel + bias
    if activation == "softmax":  # y = softmax(a)
        da = softmax_backward(dy, softmax(a))
    else:  # y = f(a)
        f, df = ACTIVATIONS[activation]
        da = dy * df(a, f(a))
    return da @ kernel.T, _rows(x).T @ _rows(da), _rows(da).sum(axis=0)


def embedding(ids, table):
    """Look up the vector of each id.

    Formula: y[...] = table[ids[...]].

    Parameters
    ----------
    ids : (...) int
    table : (V, E)

    Returns
    -------
    y : (..., E)
    """
    return table[ids]


def embedding_backward(dy, ids, table):
    """Differentiate `embedding`: an id that occurs often sums the gradients of all its places.

    Formula: dtable[v] = sum of dy[...] where ids[...] = v.

    Parameters
    ----------
    dy : (..., E)
    ids, table
        As given to `embedding`.

    Returns
    -------
    dtable : (V, E)
    """
    dtable = np.zeros_like(table)
    np.add.at(dtable, ids, dy)
    return dtable


def bag(ids, table):
    """Sum the vectors of the ids of each bag; the id 0 is none.

    Formula: y[...] = sum over k of table[ids[..., k]] where ids[..., k] > 0.

    Parameters
    ----------
    ids : (..., K) int
    table : (V, E)

    Returns
    -------
    y : (..., E)
    """
    return (table[ids] * (ids > 0)[..., None]).sum(axis=-2)


def bag_backward(dy, ids, table):
    """Differentiate `bag`: the gradient of a sum goes to all that was summed.

    Formula: dtable[v] = sum of dy[...] where ids[..., k] = v > 0.

    Parameters
    ----------
    dy : (..., E)
    ids, table
        As given to `bag`.

    Returns
    -------
    dtable : (V, E)
    """
    dtable = np.zeros_like(table)
    np.add.at(dtable, ids, np.broadcast_to(dy[..., None, :], (*ids.shape, table.shape[1])))
    dtable[0] = 0
    return dtable


# ---- Losses: (value of each row, gradient of each row's value) ----

EPSILON = 1e-7  # Keras keeps probabilities in [EPSILON, 1 - EPSILON] before their logarithm


def _clip(p):
    """Keep p off 0 and 1: the clipped p, and its slope, 1 where it is p still and 0 elsewhere."""
    clipped = np.clip(p, EPSILON, 1 - EPSILON)
    return clipped, (clipped == p).astype(p.dtype)


def mse(y, target):
    """Take the mean squared error of each row.

    Formula: value = mean((y - target)^2), dy = 2 (y - target) / K.

    Parameters
    ----------
    y, target : (..., K)

    Returns
    -------
    value : (...)
    dy : (..., K)
        Gradient of each row's own value.
    """
    error = y - np.asarray(target, y.dtype)
    return (error * error).mean(axis=-1), 2 * error / y.shape[-1]


def mae(y, target):
    """Take the mean absolute error of each row.

    Formula: value = mean(|y - target|), dy = sign(y - target) / K.

    Parameters
    ----------
    y, target : (..., K)

    Returns
    -------
    value : (...)
    dy : (..., K)
        Gradient of each row's own value.
    """
    error = y - np.asarray(target, y.dtype)
    return np.abs(error).mean(axis=-1), np.sign(error) / y.shape[-1]


def huber(y, target, delta=1.0):
    """Take the mean of errors that are squared up to delta, and absolute from there.

    Formula, e = y - target::

        value = mean(e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2))
        dy = (e where |e| <= delta, else delta sign(e)) / K

    Source: Huber 1964; keras.losses.huber; torch.nn.HuberLoss.

    Parameters
    ----------
    y, target : (..., K)
    delta : float

    Returns
    -------
    value : (...)
    dy : (..., K)
        Gradient of each row's own value.
    """
    error = y - np.asarray(target, y.dtype)
    small = np.abs(error) <= delta
    value = np.where(small, error * error / 2, delta * (np.abs(error) - delta / 2))
    return value.mean(axis=-1), np.where(small, error, delta * np.sign(error)) / y.shape[-1]


def binary_crossentropy(y, target, from_logits=False):
    """Take the mean cross-entropy of K yes-or-no answers.

    Formula, with t = target::

        from_logits:  value = mean(t softplus(-y) + (1 - t) softplus(y))   dy = (sigmoid(y) - t) / K
        otherwise:    value = -mean(t log(p) + (1 - t) log(1 - p)), p = clip(y, e, 1 - e)
                      dy = (p - t) / (p (1 - p)) / K, zero where clipped

    Source: keras.losses.binary_crossentropy, e = 1e-7.

    Parameters
    ----------
    y : (..., K)
        Probabilities of yes, or their logits.
    target : (..., K)
        Wanted probabilities, often 0 and 1.
    from_logits : bool

    Returns
    -------
    value : (...)
    dy : (..., K)
        Gradient of each row's own value.
    """
    t, K = np.asarray(target, y.dtype), y.shape[-1]
    if from_logits:
        value = t * _softplus(-y) + (1 - t) * _softplus(y)
        dy = _sigmoid(y) - t
    else:
        p, slope = _clip(y)
        value = -(t * np.log(p) + (1 - t) * np.log1p(-p))
        dy = (p - t) / (p * (1 - p)) * slope
    return value.mean(axis=-1), dy / K


def categorical_crossentropy(y, target, from_logits=False):
    """Take the cross-entropy of a choice among V classes.

    Formula, with t = target and sums over the classes::

        from_logits:  value = -sum(t log(softmax(y)))          dy = softmax(y) sum(t) - t
        otherwise:    p = y / sum(y)                           dy = (dp - sum(dp * p)) / sum(y)
                      value = -sum(t log(clip(p, e, 1 - e)))   dp = -t / p, zero where clipped

    Keras divides probabilities by their sum, so dy is that of the quotient: it has no component
    along y, and differs from -t / y even where sum(y) = 1.

    Source: keras.losses.categorical_crossentropy, e = 1e-7.

    Parameters
    ----------
    y : (..., V)
        Probabilities, or logits.
    target : (..., V)
        Wanted probabilities, often one 1 among zeros.
    from_logits : bool

    Returns
    -------
    value : (...)
    dy : (..., V)
        Gradient of each row's own value.
    """
    t = np.asarray(target, y.dtype)
    if from_logits:
        above = y - y.max(axis=-1, keepdims=True)
        log_p = above - np.log(np.exp(above).sum(axis=-1, keepdims=True))
        dy = np.exp(log_p) * t.sum(axis=-1, keepdims=True) - t
    else:
        total = y.sum(axis=-1, keepdims=True)
        p, slope = _clip(y / total)
        log_p = np.log(p)
        dp = -t / p * slope
        dy = (dp - (dp * p).sum(axis=-1, keepdims=True)) / total
    return -(t * log_p).sum(axis=-1), dy


def sparse_categorical_crossentropy(y, target, from_logits=False, smoothing=0.0):
    """Take the cross-entropy of a choice among V classes, the right class given by its number.

    Formula: `categorical_crossentropy` of the target that has a 1 at that class, else zeros; with
    smoothing s of (1 - s) times it, and s / V everywhere.

    Source: keras.losses.sparse_categorical_crossentropy; torch.nn.CrossEntropyLoss.

    Parameters
    ----------
    y : (..., V)
        Probabilities, or logits.
    target : (...) int
        0 <= target < V.
    from_logits : bool
    smoothing : float

    Returns
    -------
    value : (...)
    dy : (..., V)
        Gradient of each row's own value.
    """
    one_hot = np.asarray(target)[..., None] == np.arange(y.shape[-1])
    wanted = (1 - smoothing) * one_hot + smoothing / y.shape[-1]
    return categorical_crossentropy(y, wanted, from_logits)


# ---- Optimizers: new arrays, the old ones stay ----


def sgd_update(
    param, grad, velocity, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0
):
    """Step down the gradient, with momentum.

    Formula::

        velocity = momentum * velocity - learning_rate * grad
        param = param * (1 - learning_rate * weight_decay) + velocity
        nesterov:  momentum * velocity - learning_rate * grad instead of velocity

    PyTorch's velocity leaves out the learning rate and gets it in the step, param - learning_rate *
    velocity: the same while the learning rate does not change. Its weight_decay adds weight_decay *
    param to the gradient instead.

    Source: Sutskever et al. 2013, On the importance of initialization and momentum in deep
    learning; keras.optimizers.SGD.

    Parameters
    ----------
    param, grad, velocity : (...)
        Zero velocity before the first step.
    learning_rate, momentum, weight_decay : float
    nesterov : bool
        Whether to step from where the momentum is about to lead.

    Returns
    -------
    param, velocity : (...)
    """
    velocity = momentum * velocity - learning_rate * grad
    step = momentum * velocity - learning_rate * grad if nesterov else velocity
    return param * (1 - learning_rate * weight_decay) + step, velocity


def rmsprop_update(
    param, grad, v, mean, velocity, learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7,
    centered=False, weight_decay=0.0,
):  # fmt: skip
    """Step down the gradient, measured in units of its root mean square.

    Formula::

        v = v + (1 - rho) (grad^2 - v)        mean = mean + (1 - rho) (grad - mean)
        spread = max(v - mean^2, 0) if centered else v
        velocity = momentum * velocity + learning_rate * grad / sqrt(spread + epsilon)
        param = param * (1 - learning_rate * weight_decay) - velocity

    This is Keras' place of epsilon. PyTorch divides by sqrt(spread) + epsilon, and leaves the
    learning rate out of its velocity.

    Source: Tieleman and Hinton 2012, lecture 6.5, rmsprop; Graves 2013, arXiv:1308.0850, equations
    38 to 41, for centered; keras.optimizers.RMSprop.

    Parameters
    ----------
    param, grad, v, mean, velocity : (...)
        Zero v, mean and velocity before the first step.
    learning_rate, rho, momentum, epsilon, weight_decay : float
    centered : bool
        Whether to measure by the variance instead of the mean square.

    Returns
    -------
    param, v, mean, velocity : (...)
    """
    v = v + (1 - rho) * (grad * grad - v)
    mean = mean + (1 - rho) * (grad - mean)
    spread = np.maximum(v - mean * mean, 0) if centered else v
    velocity = momentum * velocity + learning_rate * grad / np.sqrt(spread + epsilon)
    return param * (1 - learning_rate * weight_decay) - velocity, v, mean, velocity


def adam_update(
    param, grad, m, v, step, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7,
    weight_decay=0.0,
):  # fmt: skip
    """Step down the mean gradient, measured in units of its root mean square.

    Formula, t = step::

        alpha = learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t)
        m = m + (1 - beta_1) (grad - m)        v = v + (1 - beta_2) (grad^2 - v)
        param = param * (1 - learning_rate * weight_decay) - alpha * m / (sqrt(v) + epsilon)

    This is Keras' order of operations, the paper's shortcut just before section 2.1, where
    epsilon is called epsilon-hat. PyTorch follows algorithm 1 and divides by
    sqrt(v / (1 - beta_2^t)) + epsilon: its epsilon, 1e-8 by default, weighs less in early steps.
    With weight_decay it is AdamW, in Keras and in PyTorch.

    Source: Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101,
    algorithm 2.

    Parameters
    ----------
    param, grad, m, v : (...)
        Zero moments m, v before the first step.
    step : int
        1 for the first step.
    learning_rate, beta_1, beta_2, epsilon, weight_decay : float

    Returns
    -------
    param, m, v : (...)
    """
    alpha = learning_rate * math.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    m = m + (1 - beta_1) * (grad - m)
    v = v + (1 - beta_2) * (grad * grad - v)
    param = param * (1 - learning_rate * weight_decay)
    return param - alpha * m / (np.sqrt(v) + epsilon), m, v


def average_update(average, array, keep, share):
    """Move an average towards what it is the average of.

    Formula: average = keep * average + share * array

    Source: Polyak and Juditsky 1992, Acceleration of stochastic approximation by averaging, with
    the weights of an exponential mean; keras.optimizers.Optimizer, use_ema.

    Parameters
    ----------
    average, array : (...)
    keep, share : float
        m and 1 - m for an exponential mean; 1 and 1 / k for one of the k terms of a plain one.

    Returns
    -------
    average : (...)
    """
    return keep * average + share * array


def clip_by_global_norm(grads, norm):
    """Shorten all gradients by one factor, so that their common length is at most norm.

    Formula: length = sqrt(sum of all grad^2), grad * norm / max(length, norm).

    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1; Keras' global_clipnorm.

    Parameters
    ----------
    grads : sequence of (...)
    norm : float
        Greater than 0.

    Returns
    -------
    grads : list of (...)
    """
    length = math.sqrt(sum((grad * grad).sum() for grad in grads))
    return [grad * (norm / max(length, norm)) for grad in grads]


def clip_by_norm(grad, norm):
    """Shorten one gradient so that its length is at most norm.

    Formula: length = sqrt(sum(grad^2)), grad * norm / max(length, norm).

    Source: as `clip_by_global_norm`; Keras' clipnorm.

    Parameters
    ----------
    grad : (...)
    norm : float
        Greater than 0.

    Returns
    -------
    grad : (...)
    """
    return clip_by_global_norm([grad], norm)[0]


# ---- Decoding ----


def log_softmax(x):
    """Return log-probabilities (B, V): y = x - max(x) - log(sum(exp(x - max(x))))."""
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def sample_ids(logits, temperature, top_k, top_p, penalty, previous, uniforms):
    """Draw an id for each row of scores (B, V), by a number in [0, 1) for each.

    Of the top_k largest weights w, as many are kept as hold the share top_p of their sum:

        x = logits / penalty where they are above 0, logits * penalty elsewhere, for previous ids
        w = exp((x - max(x)) / temperature)

    The id is the first one up to which the w kept sum to more than the number times their sum. A
    temperature of 0 takes the largest x. `previous` (B, N) may hold ids out of range for none.
    """
    ids = []
    for x, seen, u in zip(logits.copy(), previous, uniforms, strict=True):
        for j in np.unique(seen[(seen >= 0) & (seen < len(x))]):
            x[j] = x[j] / penalty if x[j] > 0 else x[j] * penalty
        if temperature == 0:
            ids.append(x.argmax())
            continue
        w = np.exp((x - x.max()) / temperature)
        order = np.arange(len(x))
        if top_k < len(x) or top_p < 1:
            order = np.argsort(-w, kind="stable")[:top_k]
            before = np.cumsum(w[order]) - w[order]
            order = order[before < top_p * w[order].sum()]
        order = order[w[order] > 0]
        sums = np.cumsum(w[order])
        ids.append(order[np.searchsorted(sums[:-1], u * sums[-1], side="right")])
    return np.array(ids)


def top_candidates(log_probabilities, sums, ends, count):
    """Return the `count` largest sums[n] + log_probabilities[n, j] of each sentence, with n and j.

    Rows ends[s] to ends[s + 1] - 1 belong to sentence s. Where there are fewer, values are -inf
    and n and j are -1.
    """
    V = log_probabilities.shape[1]
    values, rows, ids = [], [], []
    for first, end in zip(ends[:-1], ends[1:], strict=True):
        value = (sums[first:end, None] + log_probabilities[first:end]).reshape(-1)
        value = np.append(np.where(np.isnan(value), -np.inf, value), np.full(count, -np.inf))
        best = np.argsort(-value, kind="stable")[:count]
        found = value[best] > -np.inf
        values.append(value[best])
        rows.append(np.where(found, first + best // V, -1))
        ids.append(np.where(found, best % V, -1))
    return np.array(values), np.array(rows), np.array(ids)


# ---- Connectionist temporal classification ----


def ctc_loss(y, mask, labels, counts, blank=0, zero_infinity=False):
    """Take minus the log-probability that the frames of each row spell its labels.

    Formula, p = softmax(y) at the N frames that the mask keeps; l is the labels with a blank
    before, between and after them, S = 2 L + 1 symbols; a path stays, goes on by one, or by two
    from a label to another one::

        alpha[n, s] = p[n, l[s]] * (alpha[n-1, s] + alpha[n-1, s-1] + alpha[n-1, s-2] if allowed)
        beta[n, s] = sum over next s' of beta[n+1, s'] p[n+1, l[s']]
        value = -log(alpha[N-1, S-1] + alpha[N-1, S-2])
        dy[n, k] = p[n, k] - sum over s with l[s] = k of alpha[n, s] beta[n, s] / exp(-value)

    all of it in logarithms.

    Source: Graves et al. 2006, Connectionist temporal classification, section 4.

    Parameters
    ----------
    y : (B, T, V)
        Logits.
    mask : (B, T) bool
        False where there is no frame.
    labels : (B, L) int
    counts : (B,) int
        How many labels of each row count.
    blank : int
    zero_infinity : bool
        Whether a row that no path spells has value 0 and gradient 0, not infinity and NaN.

    Returns
    -------
    value : (B,)
    dy : (B, T, V)
        Gradient of each row's own value.
    """
    value, dy = np.zeros(len(y), y.dtype), np.zeros_like(y)
    for b in range(len(y)):
        at, symbols = np.flatnonzero(mask[b]), np.full(2 * counts[b] + 1, blank)
        symbols[1::2] = labels[b, : counts[b]]
        above = y[b, at] - y[b, at].max(axis=-1, keepdims=True)
        log_p = above - np.log(np.exp(above).sum(axis=-1, keepdims=True))
        said = log_p[:, symbols]  # (N, S)
        step = np.subtract.outer(np.arange(len(symbols)), np.arange(len(symbols)))
        skips = (symbols[:, None] != blank) & (symbols[:, None] != symbols)
        # ways[s, r] is 0 where a path may go from place r to place s, else minus infinity
        ways = np.where((step == 0) | (step == 1) | ((step == 2) & skips), 0, -np.inf)
        ways = ways.astype(y.dtype)
        alpha, beta = np.full_like(said, -np.inf), np.full_like(said, -np.inf)
        if len(at):
            alpha[0, :2], beta[-1, -2:] = said[0, :2], 0
        for n in range(1, len(at)):
            alpha[n] = said[n] + np.logaddexp.reduce(ways + alpha[n - 1], axis=1)
        for n in range(len(at) - 2, -1, -1):
            beta[n] = np.logaddexp.reduce(ways.T + (beta[n + 1] + said[n + 1]), axis=1)
        empty = 0.0 if len(symbols) == 1 else -np.inf
        value[b] = -np.logaddexp.reduce(alpha[-1, -2:]) if len(at) else -empty
        if np.isinf(value[b]):
            value[b], dy[b, at] = (0, 0) if zero_infinity else (np.inf, np.nan)
            continue
        shares = np.exp(alpha + beta + value[b])
        dy[b, at] = np.exp(log_p) - shares @ (symbols[:, None] == np.arange(y.shape[-1]))
    return value, dy


# ---- Attention, pooling and normalization ----


def dot_scores(query, keys):
    """Compare every query with every key of its row by their inner product.

    Formula: scores[b, s, t] = sum over i of query[b, s, i] keys[b, t, i].

    Source: Luong et al. 2015, arXiv:1508.04025, equation 8; S queries of T keys in each row.

    Parameters
    ----------
    query : (B, S, I)
    keys : (B, T, I)

    Returns
    -------
    scores : (B, S, T)
    """
    return np.einsum("bsi,bti->bst", query, keys)


def dot_scores_backward(dscores, query, keys):
    """Differentiate `dot_scores`.

    Formula: dquery = dscores keys and dkeys = dscores^T query, row by row.

    Parameters
    ----------
    dscores : (B, S, T)
    query, keys
        As given to `dot_scores`.

    Returns
    -------
    dquery, dkeys
    """
    return np.einsum("bst,bti->bsi", dscores, keys), np.einsum("bst,bsi->bti", dscores, query)


def additive_scores(query, keys, scale):
    """Compare every query with every key of its row by a small network.

    Formula: scores[b, s, t] = sum over u of scale[u] tanh(query[b, s, u] + keys[b, t, u]).

    Source: Bahdanau et al. 2015, arXiv:1409.0473, appendix A.1.2.

    Parameters
    ----------
    query : (B, S, U)
    keys : (B, T, U)
    scale : (U,)

    Returns
    -------
    scores : (B, S, T)
    """
    return np.tanh(query[:, :, None] + keys[:, None]) @ scale


def additive_scores_backward(dscores, query, keys, scale):
    """Differentiate `additive_scores`.

    Formula: y = tanh(query + keys), da = dscores scale (1 - y^2), dquery = sum(da) over t,
    dkeys = sum(da) over s, dscale = sum(dscores y) over b, s, t.

    Parameters
    ----------
    dscores : (B, S, T)
    query, keys, scale
        As given to `additive_scores`.

    Returns
    -------
    dquery, dkeys, dscale
    """
    y = np.tanh(query[:, :, None] + keys[:, None])
    da = dscores[..., None] * scale * (1 - y * y)
    return da.sum(axis=2), da.sum(axis=1), _rows(dscores[..., None] * y).sum(axis=0)


def attend(scores, values, mask=None):
    """Average the values of each row, weighed by the softmax of the scores.

    Formula: weights = exp(scores) / sum(exp(scores)) over the unmasked steps, 0 at the others,
    context[b, s] = sum over t of weights[b, s, t] values[b, t]. All are 0 where no step counts.

    Source: Bahdanau et al. 2015, arXiv:1409.0473, equations 5 and 6.

    Parameters
    ----------
    scores : (B, S, T)
    values : (B, T, I)
    mask : (B, T) bool, optional
        False where a step is to be skipped.

    Returns
    -------
    context : (B, S, I)
    weights : (B, S, T)
    """
    weights = np.zeros_like(scores)
    context = np.zeros((*scores.shape[:2], values.shape[2]), scores.dtype)
    for b in range(len(scores)):
        here = np.full(scores.shape[2], True) if mask is None else mask[b]
        if here.any():
            weights[b][:, here] = softmax(scores[b][:, here])
            context[b] = weights[b][:, here] @ values[b][here]
    return context, weights


def attend_backward(dcontext, dweights, scores, values, mask=None):
    """Differentiate `attend`.

    Formula: dw = dweights + dcontext values^T, dscores by `softmax_backward` over the unmasked
    steps, dvalues = weights^T dcontext; 0 at masked steps.

    Parameters
    ----------
    dcontext : (B, S, I)
    dweights : (B, S, T)
    scores, values, mask
        As given to `attend`.

    Returns
    -------
    dscores, dvalues
    """
    _, weights = attend(scores, values, mask)
    dscores, dvalues = np.zeros_like(scores), np.zeros_like(values)
    for b in range(len(scores)):
        here = np.full(scores.shape[2], True) if mask is None else mask[b]
        dw = dweights[b][:, here] + dcontext[b] @ values[b][here].T
        dscores[b][:, here] = softmax_backward(dw, weights[b][:, here])
        dvalues[b][here] = weights[b][:, here].T @ dcontext[b]
    return dscores, dvalues


def average_pool(x, mask=None):
    """Average the steps of each row that count; 0 where there is none.

    Formula: y[b] = mean of x[b, t] over the unmasked t.

    Parameters
    ----------
    x : (B, T, I)
    mask : (B, T) bool, optional
        False where a step is to be skipped.

    Returns
    -------
    y : (B, I)
    """
    y = np.zeros((x.shape[0], x.shape[2]), x.dtype)
    for b, row in enumerate(x):
        real = row if mask is None else row[mask[b]]
        if len(real):
            y[b] = real.mean(axis=0)
    return y


def average_pool_backward(dy, x, mask=None):
    """Differentiate `average_pool`.

    Formula: dx[b, t] = dy[b] / n at the n unmasked steps, 0 at the others.

    Parameters
    ----------
    dy : (B, I)
    x, mask
        As given to `average_pool`.

    Returns
    -------
    dx : (B, T, I)
    """
    here = np.full(x.shape[:2], True) if mask is None else mask
    share = here / np.maximum(here.sum(axis=1, keepdims=True), 1)
    return (share[:, :, None] * dy[:, None]).astype(x.dtype)


def max_pool(x, mask=None):
    """Take the largest of the steps of each row that count; 0 where there is none.

    Formula: y[b, i] = max of x[b, t, i] over the unmasked t.

    Parameters
    ----------
    x : (B, T, I)
    mask : (B, T) bool, optional
        False where a step is to be skipped.

    Returns
    -------
    y : (B, I)
    places : (B, I) int
        The first step that holds it, or -1 where there is none.
    """
    y = np.zeros((x.shape[0], x.shape[2]), x.dtype)
    places = np.full(y.shape, -1)
    for b, row in enumerate(x):
        steps = np.arange(len(row)) if mask is None else np.flatnonzero(mask[b])
        if len(steps):
            first = row[steps].argmax(axis=0)
            y[b] = np.take_along_axis(row[steps], first[None], axis=0)[0]
            places[b] = steps[first]
    return y, places


def max_pool_backward(dy, x, mask=None):
    """Differentiate `max_pool`: the gradient goes to the first step that holds the maximum.

    Formula: dx[b, places[b, i], i] = dy[b, i], 0 elsewhere.

    Parameters
    ----------
    dy : (B, I)
    x, mask
        As given to `max_pool`.

    Returns
    -------
    dx : (B, T, I)
    """
    _, places = max_pool(x, mask)
    dx = np.zeros_like(x)
    for b, i in np.ndindex(places.shape):
        if places[b, i] >= 0:
            dx[b, places[b, i], i] = dy[b, i]
    return dx


def normalization(x, gamma, beta, epsilon):
    """Give every row mean 0 and variance 1, then a scale and an offset for each column.

    Formula: normal = (x - mean(x)) / sqrt(var(x) + epsilon), y = gamma * normal + beta.

    Source: Ba et al. 2016, arXiv:1607.06450, equation 4.

    Parameters
    ----------
    x : (..., K)
    gamma, beta : (K,)
    epsilon : float
        Greater than 0.

    Returns
    -------
    y : (..., K)
    """
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def normalization_backward(dy, x, gamma, beta, epsilon):
    """Differentiate `normalization`.

    Formula: d = dy * gamma, dx = (d - mean(d) - normal mean(d * normal)) / sqrt(var(x) + epsilon),
    dgamma = sum(dy * normal) and dbeta = sum(dy) over all rows.

    Parameters
    ----------
    dy : (..., K)
    x, gamma, beta, epsilon
        As given to `normalization`.

    Returns
    -------
    dx, dgamma, dbeta
    """
    scale = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + epsilon)
    normal = (x - x.mean(axis=-1, keepdims=True)) * scale
    d = dy * gamma
    slope = (d * normal).mean(axis=-1, keepdims=True)
    dx = scale * (d - d.mean(axis=-1, keepdims=True) - normal * slope)
    return dx, _rows(dy * normal).sum(axis=0), _rows(dy).sum(axis=0)
