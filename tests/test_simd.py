"""The vector type: elementary functions against a wider float, memory, arithmetic."""

import operator
import os

import numba
import numpy as np
import pytest
from checks import Fence
from children import finish, start

from fastgru.kernels import simd
from fastgru.kernels.simd import (
    absolute,
    aligned,
    fma,
    lanes,
    load,
    load_up_to,
    pointer,
    put,
    select,
    splat,
    store,
    store_up_to,
)

# Not `@jit`: the disk cache knows the sources of the package, not this file.
compiled = numba.njit(error_model="numpy")
exp, tanh, sigmoid, expm1, log1p = simd.exp, simd.tanh, simd.sigmoid, simd.expm1, simd.log1p

DTYPES = [np.float32, np.float64]
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
FUNCTIONS = ("exp", "tanh", "sigmoid", "expm1", "log1p")
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
needs_wider = pytest.mark.skipif(
    np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps,
    reason="longdouble is no wider than float64 here",
)


@compiled
def run(code, x, y):
    p, q = pointer(x), pointer(y)
    for j in range(0, x.size, lanes(p)):
        v = load_up_to(p + j, x.size - j)
        if code == 0:
            v = exp(v)
        elif code == 1:
            v = tanh(v)
        elif code == 2:
            v = sigmoid(v)
        elif code == 3:
            v = expm1(v)
        else:
            v = log1p(v)
        store_up_to(q + j, v, x.size - j)


def ours(name, x):
    y = np.empty_like(x)
    run(FUNCTIONS.index(name), x, y)
    return y


TRUTH = {
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "expm1": np.expm1,
    "log1p": np.log1p,
}


def ulps(got, want):
    """Return the error in units of the last place; an overflow counts as the next power of two."""
    info, wide = np.finfo(got.dtype), want.dtype.type
    top = wide(2) ** info.maxexp
    with np.errstate(all="ignore"):
        # NumPy's spacing of the largest number is infinite, so the one before stands for it.
        below = np.nextafter(info.max, info.dtype.type(0))
        unit = np.spacing(np.minimum(np.abs(want), wide(below)).astype(got.dtype))
        got = np.clip(got.astype(wide), -top, top)
        return np.abs(got - np.clip(want, -top, top)) / unit


def numbers(dtype, low=-np.inf, high=np.inf, seed=0):
    """Return floats of every exponent and sign, and many where something happens."""
    rng, info = np.random.default_rng(seed), np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    mantissas = np.concatenate(
        [np.ones((len(exponents), 1)), rng.uniform(1, 2, (len(exponents), 60))], 1
    )
    x = np.ldexp(mantissas, exponents[:, None]).ravel()
    x = x[x <= info.max]
    edge = np.log(np.finfo(dtype).max.astype(np.float64)) + 80
    x = np.concatenate(
        [[0], x, -x, rng.uniform(-edge, edge, 100_000), rng.normal(size=100_000) * 5]
    )
    x = x.astype(dtype)
    return x[(x >= low) & (x <= high)]


def worst(name, x):
    with np.errstate(all="ignore"):
        want = TRUTH[name](x.astype(WIDER[x.dtype.type]))
    error = ulps(ours(name, x), want)
    i = np.argmax(error)
    return error[i], f"{name}({x[i]!r}): {error[i]:.2f} ulp"


@needs_wider
@by_dtype
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("exp", -np.inf, np.inf),
        ("tanh", -np.inf, np.inf),
        ("sigmoid", -np.inf, np.inf),
        ("expm1", -np.inf, 0),
        ("log1p", 0, 1),
    ],
)
def test_elementary_functions_are_within_4_ulp_everywhere(name, low, high, dtype):
    error, where = worst(name, numbers(dtype, low, high))
    assert error <= 4, where


@by_dtype
def test_exp_gives_results_below_the_normal_numbers(dtype):
    info = np.finfo(dtype)
    low, high = (float(np.log(np.longdouble(v))) for v in (info.smallest_subnormal, info.tiny))
    y = ours("exp", np.linspace(low, high, 10_000, dtype=dtype))
    # Near -708 the spacing of float64 numbers is worth 512 units in the last place of exp.
    assert ((y >= 0) & (y <= info.tiny * (1 + 1e-3))).all() and (y > 0).mean() > 0.99
    assert (np.diff(y) >= 0).all() and len(np.unique(y)) > 1000


@by_dtype
def test_ulps_are_measured_rightly(dtype):
    want = np.array([1, 1, 0, 2.0**-140 if dtype == np.float32 else 2.0**-1070], WIDER[dtype])
    info = np.finfo(dtype)
    got = np.array([1 + info.eps, 1, info.smallest_subnormal, want[3]], dtype)
    assert ulps(got, want).tolist() == [1, 0, 1, 0]
    assert ulps(dtype([info.max]), WIDER[dtype]([np.inf])).tolist() == [1]
    assert ulps(dtype([np.inf]), WIDER[dtype]([1])) > 1e6


@by_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_gives_nan_in_its_lane_alone(name, dtype):
    x = np.linspace(0, 1, 37, dtype=dtype)
    want = ours(name, x)
    x[[0, 3, 36]] = np.nan
    got = ours(name, x)
    assert np.array_equal(np.isnan(got), np.isnan(x))
    assert np.array_equal(got[~np.isnan(x)], want[~np.isnan(x)])


@by_dtype
@pytest.mark.parametrize(
    ("name", "at_minus_infinity", "at_infinity"),
    [("exp", 0, np.inf), ("tanh", -1, 1), ("sigmoid", 0, 1), ("expm1", -1, None)],
)
def test_infinities_give_the_limits(name, at_minus_infinity, at_infinity, dtype):
    low, high = ours(name, dtype([-np.inf, np.inf]))
    assert low == at_minus_infinity
    assert at_infinity is None or high == at_infinity


@by_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_result_does_not_depend_on_its_lane(name, dtype):
    x = np.random.default_rng(0).uniform(0, 1, 67).astype(dtype)
    want = ours(name, x)
    for first in range(33):
        assert ours(name, x[first:].copy()).tobytes() == want[first:].tobytes()


# ---- memory


@compiled
def width(x):
    return lanes(pointer(x))


@compiled
def move(x, y, count):
    store_up_to(pointer(y), load_up_to(pointer(x), count), count)


@compiled
def load_part(x, y, count):
    store(pointer(y), load_up_to(pointer(x), count))


@by_dtype
def test_a_vector_has_the_width_that_was_chosen(dtype):
    assert width(np.empty(1, dtype)) * np.dtype(dtype).itemsize == 4 * simd.SIMD_WIDTH


@by_dtype
def test_partial_stores_touch_nothing_beyond(dtype):
    n = width(np.empty(1, dtype))
    for count in range(n + 1):
        fence = Fence()
        x = fence.put(np.arange(1, count + 1, dtype=dtype))
        y = fence.empty(count, dtype)
        move(x, y, count)
        fence.check()
        assert np.array_equal(x, y)


@by_dtype
def test_partial_loads_give_zeros_for_the_rest(dtype):
    n = width(np.empty(1, dtype))
    x = np.full(n, np.nan, dtype)
    for count in range(n + 1):
        x[:count] = np.arange(1, count + 1)
        y = np.full(n, 9, dtype)
        load_part(x, y, count)
        assert y.tolist() == [*range(1, count + 1), *[0] * (n - count)]


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
def test_partial_loads_and_stores_do_not_even_touch_a_protected_page():
    code = """
import numpy as np, checks, test_simd as t
for dtype in t.DTYPES:
    for fence in (checks.Cliff(), checks.CliffBefore()):
        for count in range(t.width(np.empty(1, dtype)) + 1):
            x, y = fence.put(np.arange(count, dtype=dtype)), fence.empty(count, dtype)
            t.move(x, y, count)
            assert np.array_equal(x, y)
print("done")
"""
    assert finish(start("-c", code)) == "done\n"


@compiled
def mark_aligned(x):
    put(aligned(pointer(x)), x.dtype.type(1))


@by_dtype
def test_aligned_is_the_next_address_that_64_divides(dtype):
    buffer = np.zeros(256, dtype)
    for first in range(64):
        buffer[:] = 0
        part = buffer[first:]
        mark_aligned(part)
        (at,) = np.flatnonzero(part)
        assert (part.ctypes.data + at * part.itemsize) % 64 == 0
        assert at * part.itemsize < 64


# ---- arithmetic


@compiled
def calculate(x, y, z, out):
    p, q, r, o = pointer(x), pointer(y), pointer(z), pointer(out)
    n = lanes(p)
    a, b, c = load(p), load(q), load(r)
    store(o, a + b)
    store(o + n, a - b)
    store(o + 2 * n, a * b)
    store(o + 3 * n, a / b)
    store(o + 4 * n, fma(a, b, c))
    store(o + 5 * n, absolute(a))
    store(o + 6 * n, select(a < b, a, c))
    store(o + 7 * n, select(a > b, 2.0, c))
    store(o + 8 * n, 1.5 - a * 2.0)
    store(o + 9 * n, splat(p, 0.1))
    store(o + 10 * n, splat(a, 0.1))


@by_dtype
def test_arithmetic_is_that_of_numpy_lane_by_lane(dtype):
    n, rng = width(np.empty(1, dtype)), np.random.default_rng(0)
    for _ in range(20):
        a, b, c = rng.normal(size=(3, n)).astype(dtype)
        b[0] = np.nan
        out = np.empty((11, n), dtype)
        calculate(a, b, c, out)
        want = [op(a, b) for op in (operator.add, operator.sub, operator.mul, operator.truediv)]
        want += [out[4], np.abs(a), np.where(a < b, a, c), np.where(a > b, dtype(2), c)]
        want += [dtype(1.5) - a * dtype(2), *[np.full(n, 0.1, dtype)] * 2]
        assert np.array_equal(out, np.array(want, dtype), equal_nan=True)


@by_dtype
def test_fma_rounds_once(dtype):
    n, eps = width(np.empty(1, dtype)), np.finfo(dtype).eps
    a = np.full(n, 1 + eps, dtype)
    out = np.empty((11, n), dtype)
    calculate(a, a, -(a * a), out)
    assert (out[4] == dtype(eps) * dtype(eps)).all()
