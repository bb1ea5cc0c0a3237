"""Kernels of updates, softmax and cross-entropies against their twins in plain NumPy."""

import math

import numpy as np
import pytest

from fastgru import kernels, reference
from fastgru.kernels import threads
from fastgru.kernels.update import GROUP

DTYPES = ["float32", "float64"]
SIZES = [0, 1, 3, 7, 8, 9, 16, 17, 32, 35, 64, 1000]
ROWS = [(3, 1), (5, 2), (2, 7), (4, 8), (3, 17), (1, 35), (6, 301), (0, 4)]
GUARD = 77.0


def rtol(dtype):
    return 2e-5 if dtype == "float32" else 1e-12


def guarded(array, dtype):
    """Copy an array to between two bands that nobody may write to."""
    array = np.asarray(array, dtype)
    band = np.full(array.size + 64, GUARD, dtype)
    band[32 : 32 + array.size] = array.reshape(-1)
    return band[32 : 32 + array.size].reshape(array.shape), band


def assert_guards(*bands):
    for band in bands:
        assert (band[:32] == GUARD).all() and (band[-32:] == GUARD).all()


def assert_close(got, want, dtype, scale=1.0):
    np.testing.assert_allclose(got, want, rtol=rtol(dtype), atol=rtol(dtype) * scale)


def random_rows(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


INF, ONE = math.inf, np.ones(1)


def places(*arrays):
    """Say where a param, its gradient and its state are."""
    return kernels.places_of(*([array] for array in arrays))


# ---- sums and limits


def partial_sums(terms):
    """Add float64 numbers in the one order that the kernels promise."""
    whole = len(terms) - len(terms) % GROUP
    s = [0.0] * GROUP
    for j in range(whole):
        s[j % GROUP] += float(terms[j])
    s = [(s[i] + s[8 + i]) + (s[16 + i] + s[24 + i]) for i in range(8)]
    total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
    for j in range(whole, len(terms)):
        total += float(terms[j])
    return total


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_sums_of_squares_have_one_fixed_order(n, dtype):
    a = random_rows(n, dtype)
    (got,), total = kernels.sums_of_squares(places(a, a))
    assert total == got
    assert got == partial_sums(a.astype(float) ** 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clear_makes_gradients_zero_and_nothing_else(dtype):
    params = [random_rows(n, dtype, n) for n in SIZES]
    gradients, bands = zip(*(guarded(random_rows(n, dtype), dtype) for n in SIZES), strict=True)
    kept = [param.copy() for param in params]
    kernels.clear(kernels.places_of(params, gradients))
    assert not any(gradient.any() for gradient in gradients)
    assert all((param == own).all() for param, own in zip(params, kept, strict=True))
    assert_guards(*bands)


def test_sums_of_squares_of_large_float32_does_not_overflow():
    large, bad = np.full(9, 1e30, "float32"), np.array([1, np.nan, 2], "float32")
    got, total = kernels.sums_of_squares(kernels.places_of([large, bad], [large, bad]))
    assert np.isnan(total)
    assert got[0] == pytest.approx(9e60) and math.isnan(got[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [*SIZES, 128, 129])
def test_all_finite_sees_every_element(n, dtype):
    a, band = guarded(np.full(n, np.finfo(dtype).max), dtype)
    band[31] = band[32 + n] = np.nan
    here = places(a, a)
    assert kernels.all_finite(here)
    for i in range(n):
        for bad in (np.nan, np.inf, -np.inf):
            kept, a[i] = a[i], bad
            assert not kernels.all_finite(here)
            assert kernels.all_finite(here, limit=2.0) is (bad == bad)
            a[i] = kept


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workers", [1, 2])
def test_updates_say_whether_all_is_finite(workers, dtype, monkeypatch):
    monkeypatch.setattr(threads, "LEAST_FLOPS", 1)
    monkeypatch.setattr(threads, "_num_threads", workers)
    slots, large = np.zeros((2, 37), dtype), np.finfo(dtype).max
    for i in (None, 0, 17, 18, 36):
        grad = np.ones(37, dtype)
        if i is not None:
            grad[i] = np.inf
        for momentum in (0.0, 0.9):
            u = [slots[0].copy()] if momentum else []
            here = places(np.ones(37, dtype), grad, *u)
            finite = kernels.sgd_update(here, ONE, INF, 0.1, momentum, False)
            assert finite is (i is None)
        m, v = slots.copy()
        # An epsilon that is zero in float32 makes NaN of nothing, but not behind the last element.
        here = places(np.ones(37, dtype), grad, m, v)
        finite = kernels.adam_update(here, ONE, INF, 0.1, 0.9, 0.999, 1e-60)
        assert finite is (i is None)
        here = places(np.ones(37, dtype), grad, slots[1].copy())
        finite = kernels.rmsprop_update(here, ONE, INF, 0.1, 0.9, 0.0, 1e-60, False)
        assert finite is (i is None)
        if i is not None:
            grad[i] = large  # finite, but not its square
            m, v = slots.copy()
            param = np.ones(37, dtype)
            here = places(param, grad, m, v)
            assert not kernels.adam_update(here, ONE, INF, 0.1, 0.9, 0.999, 1e-7)
            assert not kernels.rmsprop_update(
                places(param, grad, slots[1].copy()), ONE, INF, 0.1, 0.9, 0.0, 1e-7, False
            )
            assert np.isfinite(param).all()


# ---- updates


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_sgd_update_is_its_twin(n, momentum, nesterov, weight_decay, dtype):
    (param, b1), (grad, b2), (velocity, b3) = (
        guarded(random_rows(n, dtype, seed), dtype) for seed in range(3)
    )
    want = reference.sgd_update(
        param.astype(float), 0.7 * grad, velocity.astype(float), 0.1, momentum, nesterov,
        weight_decay,
    )  # fmt: skip
    here, scales = places(param, grad, velocity), np.array([0.7])
    kernels.sgd_update(here, scales, INF, 0.1, momentum, nesterov, 0.1 * weight_decay)
    assert_close(param, want[0], dtype)
    assert_close(velocity, want[1], dtype)
    assert_guards(b1, b2, b3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_sgd_update_without_velocity_is_plain_descent(n, dtype):
    param, band = guarded(random_rows(n, dtype), dtype)
    grad = random_rows(n, dtype, 1)
    want = param.astype(float) - 0.1 * 0.7 * grad.astype(float)
    kernels.sgd_update(places(param, grad), np.array([0.7]), INF, 0.1, 0.0, False)
    assert_close(param, want, dtype)
    assert_guards(band)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_rmsprop_update_is_its_twin(n, momentum, centered, weight_decay, dtype):
    (param, b1), (mean, b2), (velocity, b3) = (
        guarded(random_rows(n, dtype, seed), dtype) for seed in range(3)
    )
    # Some of the squares are less than that of the mean, as rounding may leave them.
    v, b4 = guarded(random_rows(n, dtype, 3) ** 2, dtype)
    grad, rho, epsilon = random_rows(n, dtype, 4), 0.8, 1e-3
    want = reference.rmsprop_update(
        *(a.astype(float) for a in (param, 0.7 * grad, v, mean, velocity)),
        0.1, rho, momentum, epsilon, centered, weight_decay,
    )  # fmt: skip
    used = [True, centered, momentum > 0]
    slots = [slot for slot, use in zip((v, mean, velocity), used, strict=True) if use]
    kernels.rmsprop_update(
        places(param, grad, *slots), np.array([0.7]), INF, 0.1, rho, momentum, epsilon, centered,
        0.1 * weight_decay,
    )  # fmt: skip
    if momentum == 0:
        want = (want[0], *want[1:3])
    for got, expected, use in zip((param, v, mean, velocity), want, [True, *used], strict=False):
        if use:
            assert_close(got, expected, dtype)
    assert_guards(b1, b2, b3, b4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adam_update_is_its_twin(n, weight_decay, dtype):
    (param, b1), (m, b2) = (guarded(random_rows(n, dtype, seed), dtype) for seed in range(2))
    v, b3 = guarded(random_rows(n, dtype, 2) ** 2, dtype)
    grad, step, (beta_1, beta_2, epsilon) = random_rows(n, dtype, 3), 5, (0.8, 0.95, 1e-3)
    alpha = 0.1 * math.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    want = reference.adam_update(
        *(a.astype(float) for a in (param, 0.7 * grad, m, v)), step, 0.1, beta_1, beta_2, epsilon,
        weight_decay,
    )  # fmt: skip
    here, scales = places(param, grad, m, v), np.array([0.7])
    kernels.adam_update(here, scales, INF, alpha, beta_1, beta_2, epsilon, 0.1 * weight_decay)
    for got, expected in zip((param, m, v), want, strict=True):
        assert_close(got, expected, dtype)
    assert_guards(b1, b2, b3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_small_decay_is_not_rounded_away(dtype):
    """1 - 1e-8 is 1 in float32; 1e-8 of the param together with the step is not nothing."""
    step = float(np.spacing(np.ones(1, dtype))[0]) * (0.5 - 1e-3)
    param = np.ones(1, dtype)
    kernels.sgd_update(places(param, np.full(1, step, dtype)), ONE, INF, 1.0, 0.0, False, step / 50)
    assert param[0] < 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("keep", "share"), [(0.9, 0.1), (1.0, 0.25), (0.0, 1.0)])
def test_average_update_is_its_twin(n, keep, share, dtype):
    (average, b1), (array, b2) = (guarded(random_rows(n, dtype, i), dtype) for i in range(2))
    kept = array.copy()
    want = reference.average_update(average.astype(float), array.astype(float), keep, share)
    kernels.average_update(places(average, array), keep, share)
    assert_close(average, want, dtype)
    assert np.array_equal(array, kept)
    assert_guards(b1, b2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_gradient_spoils_its_own_element_alone(dtype):
    grad = np.ones(19, dtype)
    grad[4] = np.nan
    for update in (
        lambda *a: kernels.sgd_update(places(*a[:3]), ONE, INF, 0.1, 0.9, True),
        lambda *a: kernels.adam_update(places(*a), ONE, INF, 0.1, 0.9, 0.999, 1e-7),
        lambda *a: kernels.rmsprop_update(places(*a), ONE, INF, 0.1, 0.9, 0.0, 1e-7, True),
    ):
        param = np.ones(19, dtype)
        update(param, grad, np.zeros(19, dtype), np.zeros(19, dtype))
        assert np.isnan(param).tolist() == (np.arange(19) == 4).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_one_call_updates_many_arrays_each_with_its_scale(workers, dtype, monkeypatch):
    monkeypatch.setattr(threads, "LEAST_FLOPS", 1)
    monkeypatch.setattr(threads, "_num_threads", workers)
    sizes, rng = (5, 1, 300, 0, 33, 16), np.random.default_rng(0)
    scales = rng.uniform(0.5, 2, len(sizes))
    roles = [[guarded(rng.uniform(0.1, 1, n), dtype) for n in sizes] for _ in ("p", "g", "m", "v")]
    arrays = [[array for array, _ in role] for role in roles]
    before = [[array.copy() for array in role] for role in arrays]
    here = kernels.places_of(*arrays)
    assert kernels.adam_update(here, scales, 0.6, 0.1, 0.9, 0.999, 1e-7)
    assert kernels.sgd_update(kernels.places_of(*arrays[:3]), scales, 0.6, 0.1, 0.9, False)
    assert kernels.rmsprop_update(here, scales, 0.6, 0.1, 0.9, 0.8, 1e-7, False)
    kernels.average_update(kernels.places_of(*arrays[2:]), 0.9, 0.1)
    for i, n in enumerate(sizes):
        param, grad, m, v = (role[i] for role in before)
        alone = places(param, grad, m, v)
        kernels.adam_update(alone, scales[i : i + 1], 0.6, 0.1, 0.9, 0.999, 1e-7)
        kernels.sgd_update(places(param, grad, m), scales[i : i + 1], 0.6, 0.1, 0.9, False)
        kernels.rmsprop_update(alone, scales[i : i + 1], 0.6, 0.1, 0.9, 0.8, 1e-7, False)
        kernels.average_update(places(m, v), 0.9, 0.1)
        for role, want in zip(arrays, (param, grad, m, v), strict=True):
            assert role[i].tobytes() == want.tobytes(), n
    assert_guards(*(band for role in roles for _, band in role))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_limit_clips_the_elements_of_the_gradient(dtype):
    grad = np.array([-3, -0.5, 0, 0.5, np.inf], dtype)
    param = np.zeros(5, dtype)
    assert kernels.sgd_update(places(param, grad), ONE, 1.0, 0.5, 0.0, False)
    assert param.tolist() == [0.5, 0.25, 0, -0.25, -0.5]


def test_places_of_arrays_that_do_not_fit_are_refused():
    a = np.zeros((4, 6), np.float32)
    for other, message in (
        (np.zeros((4, 5), np.float32), "expected sizes"),
        (np.zeros((4, 6)), "of float32, given float64"),
        (np.zeros((6, 4), np.float32).T, "C-contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.places_of([a], [other])


# ---- softmax


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ROWS)
def test_softmax_is_its_twin(shape, dtype):
    x = 5 * random_rows(shape, dtype)
    (y, b1), (dx, b2) = guarded(np.zeros(shape), dtype), guarded(np.zeros(shape), dtype)
    kernels.softmax_forward(x, y)
    assert_close(y, reference.softmax(x.astype(float)), dtype, 0)
    dy = random_rows(shape, dtype, 1)
    kernels.softmax_backward(dy, y, dx)
    assert_close(dx, reference.softmax_backward(dy.astype(float), y.astype(float)), dtype)
    assert_guards(b1, b2)
    kernels.softmax_forward(x, x)
    np.testing.assert_array_equal(x, y)
    kernels.softmax_backward(dy, y, dy)
    np.testing.assert_array_equal(dy, dx)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_extreme_scores(dtype):
    x = np.zeros((4, 19), dtype)
    x[0, 3], x[1] = 1e30, -1e30
    x[2, 5], x[3, 18] = -np.inf, np.nan
    y = np.empty_like(x)
    kernels.softmax_forward(x, y)
    assert y[0].tolist() == (np.arange(19) == 3).tolist()
    assert_close(y[1], np.full(19, 1 / 19), dtype)
    assert_close(y[2], np.where(np.arange(19) == 5, 0, 1 / 18), dtype)
    assert np.isnan(y[3]).all()


# ---- cross-entropies


def cross_entropy(kind, shape, dtype, from_logits, seed=0):
    """Return output and target for a loss: y, target as its twin and as its kernel want it."""
    rng = np.random.default_rng(seed)
    y = 3 * rng.normal(size=shape)
    if not from_logits:
        y = 1 / (1 + np.exp(-y)) if kind == "binary" else reference.softmax(y) * 1.3
    if kind == "sparse_categorical":
        target = rng.integers(0, shape[1], shape[0])
        return y.astype(dtype), target
    return y.astype(dtype), rng.uniform(size=shape).astype(dtype)


KINDS = ["binary", "categorical", "sparse_categorical"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_cross_entropy_is_its_twin(kind, shape, from_logits, dtype):
    y, target = cross_entropy(kind, shape, dtype, from_logits)
    weights = np.random.default_rng(1).uniform(0.5, 2, shape[0])
    values, dy = np.empty(shape[0]), guarded(np.zeros(shape), dtype)
    kernel = getattr(kernels, f"{kind}_crossentropy")
    kernel(y, target, weights, from_logits, values, dy[0])
    exact = target if kind == "sparse_categorical" else target.astype(float)
    twin = getattr(reference, f"{kind}_crossentropy")
    want, want_dy = twin(y.astype(float), exact, from_logits)
    assert_close(values, want, dtype)
    want_dy = want_dy * weights[:, None]
    assert_close(dy[0], want_dy, dtype, np.abs(want_dy).max(initial=1))
    assert_guards(dy[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("shape", ROWS)
def test_smoothed_cross_entropy_is_its_twin(shape, from_logits, dtype):
    y, labels = cross_entropy("sparse_categorical", shape, dtype, from_logits)
    weights = np.random.default_rng(1).uniform(0.5, 2, shape[0])
    values, dy = np.empty(shape[0]), guarded(np.zeros(shape), dtype)
    kernels.sparse_categorical_crossentropy(y, labels, weights, from_logits, values, dy[0], 0.3)
    twin = reference.sparse_categorical_crossentropy
    want, want_dy = twin(y.astype(float), labels, from_logits, 0.3)
    assert_close(values, want, dtype)
    want_dy = want_dy * weights[:, None]
    assert_close(dy[0], want_dy, dtype, np.abs(want_dy).max(initial=1))
    assert_guards(dy[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_may_take_the_place_of_the_output(kind, shape, from_logits, dtype):
    y, target = cross_entropy(kind, shape, dtype, from_logits)
    weights = np.random.default_rng(1).uniform(0.5, 2, shape[0])
    weights[1:2] = 0
    kernel = getattr(kernels, f"{kind}_crossentropy")
    values, dy = np.empty(shape[0]), np.empty_like(y)
    kernel(y, target, weights, from_logits, values, dy)
    again, (place, band) = np.empty(shape[0]), guarded(y, dtype)
    kernel(place, target, weights, from_logits, again, place)
    assert again.tobytes() == values.tobytes() and place.tobytes() == dy.tobytes()
    assert_guards(band)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_weight_zero_take_no_part(kind, from_logits):
    y, target = cross_entropy(kind, (3, 11), "float64", from_logits)
    y[1] = np.nan
    target[1] = -99
    values, dy = np.empty(3), np.empty_like(y)
    weights = np.array([1.0, 0.0, 2.0])
    getattr(kernels, f"{kind}_crossentropy")(y, target, weights, from_logits, values, dy)
    assert values[1] == 0 and (dy[1] == 0).all()
    assert np.isfinite(values).all() and np.isfinite(dy).all() and (dy[[0, 2]] != 0).all()


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_nan_flows_through_a_cross_entropy(kind, from_logits):
    y, target = cross_entropy(kind, (3, 11), "float32", from_logits)
    y[1, 4] = np.nan
    values, dy = np.empty(3), np.empty_like(y)
    getattr(kernels, f"{kind}_crossentropy")(y, target, np.ones(3), from_logits, values, dy)
    assert np.isnan(values).tolist() == [False, True, False]
    assert np.isnan(dy[1, 4]) and np.isfinite(dy[[0, 2]]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_huge_logits_neither_overflow_nor_lose_the_gradient(kind, dtype):
    y = np.array([[1e4, 0.0, -1e4]], dtype)
    target = {"sparse_categorical": np.array([2])}.get(kind, np.array([[0, 0, 1]], dtype))
    values, dy = np.empty(1), np.empty_like(y)
    getattr(kernels, f"{kind}_crossentropy")(y, target, np.ones(1), True, values, dy)
    want = (2e4 + math.log(2)) / 3 if kind == "binary" else 2e4
    assert values[0] == pytest.approx(want)
    share = np.array([1, 0.5, -1]) / 3 if kind == "binary" else [1, 0, -1]
    assert_close(dy[0], share, dtype)


def test_probabilities_are_clipped_as_in_keras():
    y = np.array([[0.0, 1.0]])
    values, dy = np.empty(1), np.empty_like(y)
    kernels.binary_crossentropy(y, np.array([[1.0, 0.0]]), np.ones(1), False, values, dy)
    assert values[0] == pytest.approx(-math.log(1e-7)) and (dy == 0).all()
    kernels.sparse_categorical_crossentropy(y, np.array([0]), np.ones(1), False, values, dy)
    assert values[0] == pytest.approx(-math.log(1e-7)) and (dy == 0).all()


# ---- the same bits however the work is shared


def all_results(n_threads):
    threads.set_num_threads(n_threads)
    rng = np.random.default_rng(3)
    param, grad, m, v = rng.uniform(size=(4, 1003)).astype("float32")
    scales = np.full(1, 0.9)
    kernels.adam_update(places(param, grad, m, v), scales, INF, 0.1, 0.9, 0.999, 1e-7)
    kernels.sgd_update(places(param, grad, m), scales, INF, 0.1, 0.9, True)
    kernels.rmsprop_update(places(param, grad, m, v), scales, INF, 0.1, 0.9, 0.0, 1e-7, True)
    kernels.average_update(places(v, param), 0.9, 0.1)
    results = [param, m, v]
    for kind in KINDS:
        for from_logits in (False, True):
            y, target = cross_entropy(kind, (7, 37), "float32", from_logits)
            values, dy = np.empty(7), np.empty_like(y)
            kernel = getattr(kernels, f"{kind}_crossentropy")
            kernel(y, target, np.full(7, 0.3), from_logits, values, dy)
            results += [values, dy]
    y, dx = np.empty((7, 37), "float32"), np.empty((7, 37), "float32")
    kernels.softmax_forward(random_rows((7, 37), "float32"), y)
    kernels.softmax_backward(dy, y, dx)
    return [*results, y, dx]


def test_two_threads_give_the_bits_of_one(monkeypatch):
    before = threads.get_num_threads()
    entered = []
    enter = threads._enter
    monkeypatch.setattr(threads, "LEAST_FLOPS", 1)
    monkeypatch.setattr(threads, "_enter", lambda *a: entered.append(a[2]) or enter(*a))
    try:
        one, two = all_results(1), all_results(2)
    finally:
        threads.set_num_threads(before)
    assert entered == [2] * 12
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_batch(kind):
    y, target = cross_entropy(kind, (5, 23), "float32", True)
    kernel = getattr(kernels, f"{kind}_crossentropy")
    values, dy = np.empty(5), np.empty_like(y)
    kernel(y, target, np.ones(5), True, values, dy)
    for b in range(5):
        value, d = np.empty(1), np.empty((1, 23), "float32")
        kernel(y[b : b + 1].copy(), target[b : b + 1].copy(), np.ones(1), True, value, d)
        assert value[0] == values[b]
        np.testing.assert_array_equal(d[0], dy[b])
