"""The oracle is judged here: by central differences, by closed forms, by loops over scalars."""

import math
from decimal import Decimal
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import special  # type: ignore[import-untyped]

from fastgru import reference
from fastgru.reference import ACTIVATIONS

pytestmark = pytest.mark.filterwarnings("error")  # no overflow, no invalid value goes unnoticed

GRU_ACTIVATIONS = [name for name in ACTIVATIONS if name != "gelu"]
ARGUMENTS = ("x", "h0", "kernel", "recurrent_kernel", "bias", "recurrent_bias")
B, T, I_, H = 3, 4, 2, 5  # pairwise different; I alone is no name for ruff


# ---- Tools ----


def read_only(array):
    """Lock an array, so that whoever writes into an argument is found out."""
    array.flags.writeable = False
    return array


def check_gradients(function, gradients, eps=1e-5, **arrays):
    """Compare gradients with central differences of function(**arrays), which gives a number.

    Project the outputs on random arrays to make that number: then one check sees them all.
    """
    for name, gradient in gradients.items():
        kept = arrays[name]
        assert gradient.shape == kept.shape, f"d{name}"
        want = np.empty_like(kept)
        for i in np.ndindex(kept.shape):
            up, down = kept.copy(), kept.copy()
            up[i] += eps
            down[i] -= eps
            difference = function(**arrays | {name: up}) - function(**arrays | {name: down})
            want[i] = difference / (2 * eps)
        np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=2e-9, err_msg=f"d{name}")


def gru_arrays(seed=0, dtype=np.float64, b=B, t=T):
    """Draw the float arguments of a GRU, tame enough (1 / sqrt(H)) not to be chaotic."""
    rng = np.random.default_rng(seed)
    shapes = (b, t, I_), (b, H), (I_, 3 * H), (H, 3 * H), (3 * H,), (3 * H,)
    arrays = {name: rng.normal(size=shape) for name, shape in zip(ARGUMENTS, shapes, strict=True)}
    for name in ARGUMENTS[2:]:
        arrays[name] /= math.sqrt(H)
    return {name: read_only(array.astype(dtype)) for name, array in arrays.items()}


def projection(seed=1, dtype=np.float64, b=B, t=T):
    """Draw gradients of y and of the last state."""
    rng = np.random.default_rng(seed)
    dy, dh_last = rng.normal(size=(b, t, H)), rng.normal(size=(b, H))
    return read_only(dy.astype(dtype)), read_only(dh_last.astype(dtype))


def check_gru_gradients(mask, b=B, t=T, backward=reference.gru_backward, **options):
    """Check all six gradients of a GRU at once."""
    arrays, (dy, dh_last) = gru_arrays(b=b, t=t), projection(b=b, t=t)

    def projected(x, h0, *weights, **named):
        y, _ = reference.gru_forward(x, mask, h0, *weights, **named, **options)
        h_last = y[:, -1] if t else h0
        return (y * dy).sum() + (h_last * dh_last).sum()

    x, *rest = arrays.values()
    y, gates = reference.gru_forward(x, mask, *rest, **options)
    got = backward(dy, dh_last, x, mask, *rest, y, gates, **options)
    check_gradients(projected, dict(zip(ARGUMENTS, got, strict=True)), **arrays)


ONES = np.ones((B, T), bool)
HOLES = read_only(np.array([[1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool))  # gap, lead, nothing
PADDED = read_only(np.arange(T) < np.array([[4], [0], [2]]))
MASKS = {"none": None, "ones": ONES, "holes": HOLES, "padded": PADDED}

each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
both_resets = pytest.mark.parametrize("reset_after", [True, False])
both_directions = pytest.mark.parametrize("go_backwards", [False, True])


# ---- Activations ----

SCALAR = {  # from the definitions, one number at a time
    "linear": lambda x: x,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "relu": lambda x: x if x > 0 else 0.0,
    "hard_sigmoid": lambda x: 0.0 if x <= -3 else 1.0 if x >= 3 else x / 6 + 0.5,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.05070098 * (x if x > 0 else 1.67326324 * (math.exp(x) - 1)),
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
}
POINTS = np.linspace(-5, 5, 100)  # misses the kinks at -3, 0, 3

each_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def test_every_activation_is_defined_here_too():
    assert SCALAR.keys() == ACTIVATIONS.keys()


@each_activation
def test_activation_equals_its_definition(name):
    want = [SCALAR[name](x) for x in POINTS.tolist()]
    np.testing.assert_allclose(ACTIVATIONS[name].function(POINTS), want, rtol=1e-8, atol=1e-15)


@each_activation
def test_activation_derivative(name):
    function, derivative = ACTIVATIONS[name]
    eps = 1e-5
    want = (function(POINTS + eps) - function(POINTS - eps)) / (2 * eps)
    got = derivative(POINTS, function(POINTS))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", GRU_ACTIVATIONS)
def test_derivative_follows_from_the_output_alone(name):
    function, derivative = ACTIVATIONS[name]
    y = function(POINTS)
    np.testing.assert_array_equal(derivative(None, y), derivative(POINTS, y))


def test_gelu_has_no_derivative_from_its_output_alone():
    function, derivative = ACTIVATIONS["gelu"]
    low, high = -2.0, -0.0907  # on either side of the minimum, with nearly the same output
    x = np.array([low, high])
    y = function(x)
    assert abs(y[0] - y[1]) < 5e-3
    slopes = derivative(x, y)
    assert slopes[0] < 0 < slopes[1]


@each_activation
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_takes_every_finite_number(name, dtype):
    big = np.finfo(dtype).max / 2
    ends = [0, 1e-30, 1, 39, 41, 88, 104, 709, 746, 1e4, 1e30, big]
    x = np.array([-e for e in ends] + ends, dtype)
    function, derivative = ACTIVATIONS[name]
    for y in (function(x), derivative(x, function(x))):
        assert y.dtype == dtype
        assert np.isfinite(y).all()
    assert np.isnan(function(np.array([np.nan], dtype))).all()


@each_activation
def test_activation_leaves_its_argument_alone(name):
    function, derivative = ACTIVATIONS[name]
    x = read_only(POINTS.copy())
    y = read_only(function(x))
    assert not np.shares_memory(x, y)
    derivative(x, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_accurate_over_the_whole_line(dtype):
    info = np.finfo(dtype)
    x = np.concatenate([np.linspace(-750, 750, 3001), np.linspace(-110, 50, 1601)]).astype(dtype)
    want = [1 / (1 + Decimal(-v).exp()) for v in x.tolist()]
    got = ACTIVATIONS["sigmoid"].function(x)
    for g, w in zip(got.tolist(), want, strict=True):
        error = abs(Decimal(g) - w)
        assert error <= max(
            4 * Decimal(float(info.eps)) * w, Decimal(float(info.smallest_subnormal))
        )
    ends = ACTIVATIONS["sigmoid"].function(np.array([-np.inf, -info.max, info.max, np.inf], dtype))
    np.testing.assert_array_equal(ends, [0, 0, 1, 1])


def test_gelu_is_accurate_in_its_left_tail():
    x = np.linspace(-35, 10, 1000)
    np.testing.assert_allclose(ACTIVATIONS["gelu"].function(x), x * special.ndtr(x), rtol=1e-12)


def test_softmax():
    x = np.random.default_rng(0).normal(size=(2, 3, 5))
    y = reference.softmax(x)
    for row_x, row_y in zip(x.reshape(6, 5).tolist(), y.reshape(6, 5), strict=True):
        total = sum(math.exp(v) for v in row_x)
        np.testing.assert_allclose(row_y, [math.exp(v) / total for v in row_x], rtol=1e-14)
    np.testing.assert_allclose(reference.softmax(x + 1e3), y, rtol=1e-12)
    np.testing.assert_array_equal(reference.softmax(np.array([[1e300, -1e300]])), [[1, 0]])


def test_softmax_gradient():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 3, 5))
    dx = reference.softmax_backward(dy, reference.softmax(x))
    check_gradients(lambda x: (reference.softmax(x) * dy).sum(), {"x": dx}, x=x)


# ---- GRU: the formula ----


def gru_by_hand(
    x, mask, h0, kernel, recurrent_kernel, bias, recurrent_bias, reset_after, backwards
):
    """Compute a GRU one number at a time."""
    b_size, t_size, i_size = x.shape
    h_size = h0.shape[1]
    y = np.zeros((b_size, t_size, h_size))
    gates = np.zeros((b_size, t_size, 4, h_size))
    R, Z, N = 0, h_size, 2 * h_size  # first column of each gate

    def logistic(v):
        return 1 / (1 + math.exp(-v))

    for b in range(b_size):
        h = [float(v) for v in h0[b]]
        for t in range(t_size):
            source = t_size - 1 - t if backwards else t
            if mask is None or mask[b, source]:

                def from_x(column, b=b, source=source):
                    total = bias[column]
                    for i in range(i_size):
                        total += x[b, source, i] * kernel[i, column]
                    return total

                def from_state(state, column):
                    total = recurrent_bias[column]
                    for k in range(h_size):
                        total += state[k] * recurrent_kernel[k, column]
                    return total

                r = [logistic(from_x(R + j) + from_state(h, R + j)) for j in range(h_size)]
                z = [logistic(from_x(Z + j) + from_state(h, Z + j)) for j in range(h_size)]
                if reset_after:
                    q = [from_state(h, N + j) for j in range(h_size)]
                    n = [math.tanh(from_x(N + j) + r[j] * q[j]) for j in range(h_size)]
                else:
                    q = [r[j] * h[j] for j in range(h_size)]
                    n = [math.tanh(from_x(N + j) + from_state(q, N + j)) for j in range(h_size)]
                h = [(1 - z[j]) * n[j] + z[j] * h[j] for j in range(h_size)]
                gates[b, t] = r, z, n, q
            y[b, t] = h
    return y, gates


@each_mask
@both_resets
@both_directions
def test_gru_equals_a_loop_over_scalars(mask, reset_after, go_backwards):
    x, *rest = gru_arrays().values()
    want_y, want_gates = gru_by_hand(x, mask, *rest, reset_after, go_backwards)
    y, gates = reference.gru_forward(
        x, mask, *rest, reset_after=reset_after, go_backwards=go_backwards
    )
    np.testing.assert_allclose(y, want_y, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gates, want_gates, rtol=1e-12, atol=1e-14)


@both_resets
@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
@pytest.mark.parametrize("name", ARGUMENTS[2:])
def test_a_gru_with_permuted_gates_differs(reset_after, order, name):
    arrays = gru_arrays()
    y, _ = reference.gru_forward(mask=None, reset_after=reset_after, **arrays)
    columns = np.concatenate([np.arange(H) + H * gate for gate in order])
    arrays[name] = arrays[name][..., columns]
    twin, _ = reference.gru_forward(mask=None, reset_after=reset_after, **arrays)
    assert abs(twin - y).max() > 1e-2


def test_the_two_reset_forms_differ():
    arrays = gru_arrays()
    after, _ = reference.gru_forward(mask=None, reset_after=True, **arrays)
    before, _ = reference.gru_forward(mask=None, reset_after=False, **arrays)
    assert abs(after - before).max() > 1e-2


@both_resets
@both_directions
@pytest.mark.parametrize("seed", range(5))
def test_a_masked_step_is_as_if_it_were_not_there(reset_after, go_backwards, seed):
    options = {"reset_after": reset_after, "go_backwards": go_backwards}
    x, h0, *weights = gru_arrays(seed).values()
    mask = np.random.default_rng(seed).random((B, T)) < 0.6
    y, gates = reference.gru_forward(x, mask, h0, *weights, **options)
    order = mask[:, ::-1] if go_backwards else mask
    for b in range(B):
        row = slice(b, b + 1)
        alone, kept = reference.gru_forward(x[row, mask[b]], None, h0[row], *weights, **options)
        np.testing.assert_allclose(y[row, order[b]], alone, rtol=1e-13)
        np.testing.assert_allclose(gates[row, order[b]], kept, rtol=1e-13)
        assert (gates[b, ~order[b]] == 0).all()
        previous = np.concatenate([h0[row], y[b]])
        for t in np.flatnonzero(~order[b]):
            np.testing.assert_array_equal(y[b, t], previous[t])


@both_resets
def test_go_backwards_is_reading_from_the_end(reset_after):
    x, *rest = gru_arrays().values()
    y, gates = reference.gru_forward(x, HOLES, *rest, reset_after=reset_after, go_backwards=True)
    want = reference.gru_forward(x[:, ::-1], HOLES[:, ::-1], *rest, reset_after=reset_after)
    np.testing.assert_array_equal(y, want[0])
    np.testing.assert_array_equal(gates, want[1])


@both_resets
@pytest.mark.parametrize("name", GRU_ACTIVATIONS)
def test_steps_make_a_sequence(reset_after, name):
    options = {"reset_after": reset_after, "activation": name, "recurrent_activation": name}
    x, h, *weights = gru_arrays().values()
    y, _ = reference.gru_forward(x, None, h, *weights, **options)
    for t in range(T):
        h = reference.gru_step(x[:, t], h, *weights, **options)
        np.testing.assert_allclose(h, y[:, t], rtol=1e-13, atol=1e-15)


def test_activation_and_recurrent_activation_are_not_confused():
    arrays = gru_arrays()
    _, gates = reference.gru_forward(
        mask=None, activation="linear", recurrent_activation="hard_sigmoid", **arrays
    )
    r, z, n, q = np.moveaxis(gates, 2, 0)
    a = arrays["x"] @ arrays["kernel"][:, 2 * H :] + arrays["bias"][2 * H :]
    np.testing.assert_allclose(n, a + r * q, rtol=1e-12, atol=1e-14)
    assert ((r >= 0) & (r <= 1) & (z >= 0) & (z <= 1)).all()


@each_mask
def test_inference_keeps_no_gates(mask):
    arrays = gru_arrays()
    y, _ = reference.gru_forward(mask=mask, **arrays)
    same, gates = reference.gru_forward(mask=mask, keep_gates=False, **arrays)
    np.testing.assert_array_equal(same, y)
    assert gates.shape == (0, 0, 4, H)


# ---- GRU: the gradients ----


@each_mask
@both_resets
@both_directions
def test_gru_gradients(mask, reset_after, go_backwards):
    check_gru_gradients(mask, reset_after=reset_after, go_backwards=go_backwards)


@both_resets
@pytest.mark.parametrize("name", GRU_ACTIVATIONS)
@pytest.mark.parametrize("which", ["activation", "recurrent_activation"])
def test_gru_gradients_with_each_activation(reset_after, name, which):
    check_gru_gradients(HOLES[:2], b=2, reset_after=reset_after, **{which: name})


@both_resets
@pytest.mark.parametrize(("b", "t"), [(1, 4), (1, 1), (2, 1), (2, 0)])
def test_gru_gradients_of_small_sizes(reset_after, b, t):
    check_gru_gradients(None, b=b, t=t, reset_after=reset_after)
    check_gru_gradients(HOLES[:b, :t], b=b, t=t, reset_after=reset_after)


@both_resets
@both_directions
def test_nan_in_masked_steps_stays_invisible(reset_after, go_backwards):
    options = {"reset_after": reset_after, "go_backwards": go_backwards}
    x, *rest = gru_arrays().values()
    dy, dh_last = projection()
    results = []
    for filling in (0.5, np.nan):
        filled = np.where(HOLES[:, :, None], x, filling)
        y, gates = reference.gru_forward(filled, HOLES, *rest, **options)
        got = reference.gru_backward(dy, dh_last, filled, HOLES, *rest, y, gates, **options)
        assert (got[0][~HOLES] == 0).all()
        assert (got[0][HOLES] != 0).all()
        results.append([y, gates, *got])
    for clean, tainted in zip(*results, strict=True):
        np.testing.assert_array_equal(clean, tainted)


def test_nan_in_a_real_step_is_computed_through():
    x, *rest = gru_arrays().values()
    x = x.copy()
    x[0, 1] = np.nan
    y, _ = reference.gru_forward(x, None, *rest)
    assert np.isnan(y[0, 1:]).all()
    assert np.isfinite(y[0, :1]).all() and np.isfinite(y[1:]).all()


@both_resets
def test_a_row_of_length_0_keeps_its_state_and_learns_nothing(reset_after):
    x, h0, *weights = gru_arrays().values()
    dy, dh_last = projection()
    mask = np.zeros((B, T), bool)
    y, gates = reference.gru_forward(x, mask, h0, *weights, reset_after=reset_after)
    np.testing.assert_array_equal(y, np.repeat(h0[:, None], T, axis=1))
    dx, dh0, *dweights = reference.gru_backward(
        dy, dh_last, x, mask, h0, *weights, y, gates, reset_after=reset_after
    )
    np.testing.assert_allclose(dh0, dy.sum(axis=1) + dh_last, rtol=1e-13)
    for gradient in (dx, *dweights):
        assert (gradient == 0).all()


@both_resets
@pytest.mark.parametrize("mask", [None, np.zeros((B, 0), bool)])
def test_no_steps(reset_after, mask):
    x, h0, *weights = gru_arrays(t=0).values()
    dy, dh_last = projection(t=0)
    y, gates = reference.gru_forward(x, mask, h0, *weights, reset_after=reset_after)
    assert y.shape == (B, 0, H)
    assert gates.shape == (B, 0, 4, H)
    dx, dh0, *dweights = reference.gru_backward(
        dy, dh_last, x, mask, h0, *weights, y, gates, reset_after=reset_after
    )
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dh0, dh_last)
    assert not np.shares_memory(dh0, dh_last)
    for gradient, weight in zip(dweights, weights, strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(weight))


@each_mask
@both_resets
def test_gru_computes_in_the_dtype_it_is_given(mask, reset_after):
    results = {}
    for dtype in (np.float32, np.float64):
        x, *rest = gru_arrays(dtype=dtype).values()
        dy, dh_last = projection(dtype=dtype)
        y, gates = reference.gru_forward(x, mask, *rest, reset_after=reset_after)
        got = reference.gru_backward(dy, dh_last, x, mask, *rest, y, gates, reset_after=reset_after)
        step = reference.gru_step(x[:, 0], *rest, reset_after=reset_after)
        results[dtype] = [y, gates, *got, step]
        assert {array.dtype for array in results[dtype]} == {np.dtype(dtype)}
    for single, double in zip(results[np.float32], results[np.float64], strict=True):
        np.testing.assert_allclose(single, double, rtol=0, atol=2e-5)


def wrong_dkernel(*args, **options):
    dx, dh0, dkernel, *rest = reference.gru_backward(*args, **options)
    return dx, dh0, 0 * dkernel, *rest


def wrong_drecurrent_bias(*args, **options):
    *rest, dbias, _ = reference.gru_backward(*args, **options)
    return *rest, dbias, dbias


def wrong_dbias(*args, **options):
    *rest, dbias, drecurrent_bias = reference.gru_backward(*args, **options)
    r, z, n = np.split(dbias, 3)
    return *rest, np.concatenate([z, r, n]), drecurrent_bias


def wrong_dh0(dy, dh_last, *args, **options):
    dx, _, *rest = reference.gru_backward(dy, dh_last, *args, **options)
    return dx, reference.gru_backward(dy, 0 * dh_last, *args, **options)[1], *rest


def wrong_dx(*args, **options):
    dx, *rest = reference.gru_backward(*args, **options)
    return dx[:, ::-1], *rest


def wrong_drecurrent_kernel(*args, **options):
    dx, dh0, dkernel, drecurrent_kernel, *rest = reference.gru_backward(*args, **options)
    return dx, dh0, dkernel, drecurrent_kernel * (1 + 1e-5), *rest


@pytest.mark.parametrize(
    "wrong",
    [
        wrong_dx,
        wrong_dh0,
        wrong_dkernel,
        wrong_drecurrent_kernel,
        wrong_dbias,
        wrong_drecurrent_bias,
    ],
)
def test_the_gradient_check_bites(wrong):
    with pytest.raises(AssertionError, match=wrong.__name__.removeprefix("wrong_") + "\n"):
        check_gru_gradients(None, backward=wrong)


# ---- LSTM and SimpleRNN ----


class Cell(NamedTuple):
    """One of the cells whose gates have one bias: its functions, and its number of gates."""

    forward: Any
    backward: Any
    gates: int
    states: str  # the letter of each state

    def arrays(self, seed=0, dtype=np.float64, b=B, t=T):
        """Draw the float arguments, as tame as those of `gru_arrays`."""
        rng, N = np.random.default_rng(seed), self.gates * H
        shapes = {"x": (b, t, I_), **{f"{k}0": (b, H) for k in self.states}}
        arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        for name, shape in {"kernel": (I_, N), "recurrent_kernel": (H, N), "bias": (N,)}.items():
            arrays[name] = rng.normal(size=shape) / math.sqrt(H)
        return {name: read_only(array.astype(dtype)) for name, array in arrays.items()}

    def projections(self, seed=1, dtype=np.float64, b=B, t=T):
        """Draw gradients of y and of the last states."""
        rng = np.random.default_rng(seed)
        shapes = (b, t, H), *[(b, H)] * len(self.states)
        return [read_only(rng.normal(size=shape).astype(dtype)) for shape in shapes]

    def run(self, mask, arrays, **options):
        """Return y, the last states and what else `backward` takes."""
        results = self.forward(mask=mask, **arrays, **options)
        kept = results if isinstance(results, tuple) else (results,)
        sequences = zip(self.states, kept, strict=False)
        last = [s[:, -1] if s.shape[1] else arrays[f"{k}0"] for k, s in sequences]
        return kept[0], last, kept

    def check_gradients(self, mask, b=B, t=T, backward=None, **options):
        """Check all gradients at once."""
        arrays, projections = self.arrays(b=b, t=t), self.projections(b=b, t=t)

        def projected(**arrays):
            y, last, _ = self.run(mask, arrays, **options)
            return sum((a * d).sum() for a, d in zip([y, *last], projections, strict=True))

        _, _, kept = self.run(mask, arrays, **options)
        x, *rest = arrays.values()
        got = (backward or self.backward)(*projections, x, mask, *rest, *kept, **options)
        check_gradients(projected, dict(zip(arrays, got, strict=True)), **arrays)


CELLS = {
    "lstm": Cell(reference.lstm_forward, reference.lstm_backward, 4, "hc"),
    "simple_rnn": Cell(reference.simple_rnn_forward, reference.simple_rnn_backward, 1, "h"),
}
LSTM = CELLS["lstm"]
each_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def cell_by_hand(cell, x, mask, initial, kernel, recurrent_kernel, bias, backwards):
    """Compute a cell one number at a time: each step's states."""
    b_size, t_size, i_size = x.shape
    h_size = initial[0].shape[1]
    states = np.zeros((len(initial), b_size, t_size, h_size))

    def logistic(v):
        return 1 / (1 + math.exp(-v))

    for b in range(b_size):
        h, *c = ([float(v) for v in state[b]] for state in initial)
        for t in range(t_size):
            source = t_size - 1 - t if backwards else t
            if mask is None or mask[b, source]:

                def sums(gate, b=b, source=source, h=h):
                    for j in range(gate * h_size, (gate + 1) * h_size):
                        yield (
                            sum(x[b, source, i] * kernel[i, j] for i in range(i_size))
                            + sum(h[k] * recurrent_kernel[k, j] for k in range(h_size))
                            + bias[j]
                        )

                if cell is LSTM:
                    i, f = (list(map(logistic, sums(gate))) for gate in (0, 1))
                    g, o = list(map(math.tanh, sums(2))), list(map(logistic, sums(3)))
                    c = [[f[j] * c[0][j] + i[j] * g[j] for j in range(h_size)]]
                    h = [o[j] * math.tanh(c[0][j]) for j in range(h_size)]
                else:
                    h = list(map(math.tanh, sums(0)))
            states[:, b, t] = h, *c
    return states


@each_cell
@each_mask
@both_directions
def test_a_cell_equals_a_loop_over_scalars(cell, mask, go_backwards):
    arrays = cell.arrays()
    x, *rest = arrays.values()
    initial, weights = rest[: len(cell.states)], rest[len(cell.states) :]
    want = cell_by_hand(cell, x, mask, initial, *weights, go_backwards)
    _, last, kept = cell.run(mask, arrays, go_backwards=go_backwards)
    for got, end, states in zip(kept, last, want, strict=False):
        np.testing.assert_allclose(got, states, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(end, states[:, -1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order", list(permutations(range(4)))[1:])
@pytest.mark.parametrize("name", ["kernel", "recurrent_kernel", "bias"])
def test_an_lstm_with_permuted_gates_differs(order, name):
    arrays = LSTM.arrays()
    y, _, _ = reference.lstm_forward(mask=None, **arrays)
    columns = np.concatenate([np.arange(H) + H * gate for gate in order])
    twin, _, _ = reference.lstm_forward(mask=None, **arrays | {name: arrays[name][..., columns]})
    assert abs(twin - y).max() > 1e-2


def test_an_lstm_keeps_its_gates_in_their_order_and_none_at_masked_steps():
    arrays = LSTM.arrays()
    y, c, gates = reference.lstm_forward(mask=HOLES, recurrent_activation="hard_sigmoid", **arrays)
    assert (gates[~HOLES] == 0).all()
    i, f, g, o = np.moveaxis(gates[HOLES], 1, 0)
    before = np.concatenate([arrays["c0"][:, None], c[:, :-1]], axis=1)[HOLES]
    assert ((g < 0).any(axis=1)).all() and ((i >= 0) & (f >= 0) & (o >= 0)).all()
    np.testing.assert_allclose(c[HOLES], f * before + i * g, rtol=1e-13)
    np.testing.assert_allclose(y[HOLES], o * np.tanh(c[HOLES]), rtol=1e-13)


@each_cell
def test_a_cell_that_goes_backwards_reads_from_the_end(cell):
    arrays = cell.arrays()
    y, _, kept = cell.run(HOLES, arrays, go_backwards=True)
    turned = arrays | {"x": arrays["x"][:, ::-1]}
    for got, want in zip(kept, cell.run(HOLES[:, ::-1], turned)[2], strict=True):
        np.testing.assert_array_equal(got, want)


@each_cell
@each_mask
@both_directions
def test_gradients_of_a_cell(cell, mask, go_backwards):
    cell.check_gradients(mask, go_backwards=go_backwards)


DROP = np.array([[2.0, 0.0, 2.0, 0.0, 2.0], [0.0, 2.0, 2.0, 2.0, 0.0], [2.0, 0.0, 0.0, 2.0, 2.0]])


@each_mask
@both_resets
@both_directions
def test_gradients_of_a_gru_with_dropped_states(mask, reset_after, go_backwards):
    check_gru_gradients(mask, reset_after=reset_after, go_backwards=go_backwards, drop=DROP)


@each_cell
@each_mask
@both_directions
def test_gradients_of_a_cell_with_dropped_states(cell, mask, go_backwards):
    cell.check_gradients(mask, go_backwards=go_backwards, drop=DROP)


@each_cell
def test_a_dropout_hides_parts_of_the_state_from_the_products_alone(cell):
    arrays = cell.arrays(t=1)
    _, last, _ = cell.run(None, arrays, drop=DROP)
    _, want, _ = cell.run(None, arrays | {"h0": arrays["h0"] * DROP})
    for got, other in zip(last, want, strict=True):
        np.testing.assert_array_equal(got, other)


@both_resets
def test_a_gru_with_a_dropout_still_keeps_the_whole_state(reset_after):
    arrays = gru_arrays(t=1)
    y, gates = reference.gru_forward(mask=None, **arrays, reset_after=reset_after, drop=DROP)
    dropped = arrays | {"h0": arrays["h0"] * DROP}
    _, want = reference.gru_forward(mask=None, **dropped, reset_after=reset_after)
    np.testing.assert_array_equal(gates, want)
    _, z, n, _ = np.moveaxis(gates[:, 0], 1, 0)
    np.testing.assert_allclose(y[:, 0], (1 - z) * n + z * arrays["h0"], rtol=1e-13)


@pytest.mark.parametrize("name", GRU_ACTIVATIONS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("which", ["activation", "recurrent_activation"])
def test_gradients_of_a_cell_with_each_activation(cell, name, which):
    if cell == "lstm" or which == "activation":
        CELLS[cell].check_gradients(HOLES[:2], b=2, **{which: name})


@each_cell
@pytest.mark.parametrize(("b", "t"), [(1, 4), (1, 1), (2, 1), (2, 0)])
def test_gradients_of_a_cell_of_small_sizes(cell, b, t):
    cell.check_gradients(None, b=b, t=t)
    cell.check_gradients(HOLES[:b, :t], b=b, t=t)


@each_cell
@both_directions
def test_nan_in_masked_steps_of_a_cell_stays_invisible(cell, go_backwards):
    arrays, projections = cell.arrays(), cell.projections()
    x, *rest = arrays.values()
    results = []
    for filling in (0.5, np.nan):
        filled = np.where(HOLES[:, :, None], x, filling)
        _, _, kept = cell.run(HOLES, arrays | {"x": filled}, go_backwards=go_backwards)
        got = cell.backward(*projections, filled, HOLES, *rest, *kept, go_backwards=go_backwards)
        assert (got[0][~HOLES] == 0).all()
        assert (got[0][HOLES] != 0).all()
        results.append([*kept, *got])
    for clean, tainted in zip(*results, strict=True):
        np.testing.assert_array_equal(clean, tainted)


@each_cell
@each_mask
def test_a_cell_computes_in_the_dtype_it_is_given(cell, mask):
    results = {}
    for dtype in (np.float32, np.float64):
        arrays = cell.arrays(dtype=dtype)
        x, *rest = arrays.values()
        _, _, kept = cell.run(mask, arrays)
        got = cell.backward(*cell.projections(dtype=dtype), x, mask, *rest, *kept)
        results[dtype] = [*kept, *got]
        assert {array.dtype for array in results[dtype]} == {np.dtype(dtype)}
    for single, double in zip(results[np.float32], results[np.float64], strict=True):
        np.testing.assert_allclose(single, double, rtol=0, atol=2e-5)


def without_dc(dy, dh_last, dc_last, *args, **options):
    return reference.lstm_backward(dy, dh_last, 0 * dc_last, *args, **options)


def with_i_and_f_swapped(*args, **options):
    *rest, dbias = reference.lstm_backward(*args, **options)
    i, f, g, o = np.split(dbias, 4)
    return *rest, np.concatenate([f, i, g, o])


@pytest.mark.parametrize(("wrong", "name"), [(without_dc, "dx"), (with_i_and_f_swapped, "dbias")])
def test_the_gradient_check_of_an_lstm_bites(wrong, name):
    with pytest.raises(AssertionError, match=name + "\n"):
        LSTM.check_gradients(None, backward=wrong)


# ---- Dense and Embedding ----


def dense_arrays(lead):
    rng = np.random.default_rng(0)
    shapes = {"x": (*lead, 4), "kernel": (4, 5), "bias": (5,)}
    arrays = {name: read_only(rng.normal(size=shape)) for name, shape in shapes.items()}
    return arrays, read_only(rng.normal(size=(*lead, 5)))


@pytest.mark.parametrize("name", [*ACTIVATIONS, "softmax"])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_dense_gradients(name, lead):
    arrays, dy = dense_arrays(lead)
    got = reference.dense_backward(dy, **arrays, activation=name)

    def projected(**arrays):
        return (reference.dense(**arrays, activation=name) * dy).sum()

    check_gradients(projected, dict(zip(arrays, got, strict=True)), **arrays)


@pytest.mark.parametrize("name", ["linear", "relu", "softmax"])
def test_dense_equals_a_loop_over_scalars(name):
    arrays, _ = dense_arrays((3,))
    x, kernel, bias = arrays.values()
    y = reference.dense(x, kernel, bias, activation=name)
    for b in range(3):
        a = [sum(x[b, i] * kernel[i, j] for i in range(4)) + bias[j] for j in range(5)]
        if name == "softmax":
            want = [math.exp(v) / sum(math.exp(u) for u in a) for v in a]
        else:
            want = [SCALAR[name](v) for v in a]
        np.testing.assert_allclose(y[b], want, rtol=1e-12, atol=1e-14)


def test_dense_of_no_rows():
    arrays, dy = dense_arrays((0,))
    assert reference.dense(**arrays).shape == (0, 5)
    dx, dkernel, dbias = reference.dense_backward(dy, **arrays)
    assert dx.shape == (0, 4)
    np.testing.assert_array_equal(dkernel, np.zeros((4, 5)))
    np.testing.assert_array_equal(dbias, np.zeros(5))


def test_embedding_and_its_gradient():
    rng = np.random.default_rng(0)
    table = read_only(rng.normal(size=(6, 4)))
    ids = np.array([[5, 0, 5], [1, 5, 3]])
    dy = rng.normal(size=(2, 3, 4))
    y = reference.embedding(ids, table)
    for place, v in np.ndenumerate(ids):
        np.testing.assert_array_equal(y[place], table[v])
    dtable = reference.embedding_backward(dy, ids, table)
    check_gradients(
        lambda table: (reference.embedding(ids, table) * dy).sum(), {"table": dtable}, table=table
    )
    np.testing.assert_array_equal(dtable[[2, 4]], np.zeros((2, 4)))  # never looked up
    np.testing.assert_allclose(dtable[5], dy[0, 0] + dy[0, 2] + dy[1, 1], rtol=1e-14)


# ---- Losses ----


def probabilities(shape, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 0.95, shape)


def logits(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape) * 3


def some_classes(shape, seed=1):
    return np.random.default_rng(seed).integers(shape[-1], size=shape[:-1])


LOSSES = {  # name: function, y, target, options, all drawn for a shape
    "mse": (reference.mse, logits, probabilities, {}),
    "mae": (reference.mae, logits, probabilities, {}),
    "huber": (reference.huber, logits, probabilities, {"delta": 1.3}),
    "binary": (reference.binary_crossentropy, probabilities, probabilities, {}),
    "binary_logits": (
        reference.binary_crossentropy,
        logits,
        probabilities,
        {"from_logits": True},
    ),
    "categorical": (reference.categorical_crossentropy, probabilities, probabilities, {}),
    "categorical_logits": (
        reference.categorical_crossentropy,
        logits,
        probabilities,
        {"from_logits": True},
    ),
    "sparse": (reference.sparse_categorical_crossentropy, probabilities, some_classes, {}),
    "sparse_logits": (
        reference.sparse_categorical_crossentropy,
        logits,
        some_classes,
        {"from_logits": True},
    ),
    "sparse_smoothed": (
        reference.sparse_categorical_crossentropy,
        logits,
        some_classes,
        {"from_logits": True, "smoothing": 0.3},
    ),
}
each_loss = pytest.mark.parametrize(
    ("loss", "draw_y", "draw_target", "options"), LOSSES.values(), ids=LOSSES
)


@each_loss
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_loss_gradient(loss, draw_y, draw_target, options, shape):
    y, target = draw_y(shape), read_only(np.asarray(draw_target(shape, seed=1)))
    value, dy = loss(read_only(y), target, **options)
    assert value.shape == shape[:-1]
    weight = np.random.default_rng(2).normal(size=shape[:-1])  # each row has its own gradient

    def weighted(y):
        return (loss(y, target, **options)[0] * weight).sum()

    check_gradients(weighted, {"y": dy * weight[..., None]}, y=y)


@each_loss
def test_loss_computes_in_the_dtype_of_y(loss, draw_y, draw_target, options):
    y, target = draw_y((3, 4)), draw_target((3, 4), seed=1)
    want = loss(y, target, **options)
    got = loss(y.astype(np.float32), target, **options)
    for single, double in zip(got, want, strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)


def test_loss_values_equal_their_definitions():
    y, t = probabilities((2, 3)), probabilities((2, 3), seed=1)
    x = logits((2, 3))
    for b in range(2):
        K = range(3)
        p = [y[b, k] / sum(y[b]) for k in K]
        soft = [math.exp(x[b, k]) / sum(math.exp(v) for v in x[b]) for k in K]
        squash = [1 / (1 + math.exp(-v)) for v in x[b]]

        def binary(p, b=b, K=K):
            return -sum(
                t[b, k] * math.log(p[k]) + (1 - t[b, k]) * math.log(1 - p[k]) for k in K
            ) / len(K)

        def bent(e):
            return e * e / 2 if abs(e) <= 1 else abs(e) - 0.5

        def categorical(p, b=b, K=K):
            return -sum(t[b, k] * math.log(p[k]) for k in K)

        pairs = [
            (reference.mse(x, t), sum((x[b, k] - t[b, k]) ** 2 for k in K) / 3),
            (reference.mae(x, t), sum(abs(x[b, k] - t[b, k]) for k in K) / 3),
            (reference.huber(x, t), sum(bent(x[b, k] - t[b, k]) for k in K) / 3),
            (reference.binary_crossentropy(y, t), binary(y[b])),
            (reference.binary_crossentropy(x, t, from_logits=True), binary(squash)),
            (reference.categorical_crossentropy(y, t), categorical(p)),
            (reference.categorical_crossentropy(x, t, from_logits=True), categorical(soft)),
            (reference.sparse_categorical_crossentropy(y, [2, 0]), -math.log(p[[2, 0][b]])),
        ]
        for (value, _), want in pairs:
            np.testing.assert_allclose(value[b], want, rtol=1e-12)


def test_sparse_is_categorical_with_one_hot_targets():
    y, classes = probabilities((2, 3, 4)), some_classes((2, 3, 4))
    for from_logits in (False, True):
        got = reference.sparse_categorical_crossentropy(y, classes, from_logits)
        want = reference.categorical_crossentropy(y, np.eye(4)[classes], from_logits)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g, w)


def test_losses_agree_with_and_without_logits():
    x, t = logits((3, 4)), probabilities((3, 4), seed=1)
    value, dx = reference.categorical_crossentropy(x, t, from_logits=True)
    y = reference.softmax(x)
    same, dy = reference.categorical_crossentropy(y, t)
    np.testing.assert_allclose(same, value, rtol=1e-12)
    np.testing.assert_allclose(reference.softmax_backward(dy, y), dx, rtol=1e-10, atol=1e-12)

    function, derivative = ACTIVATIONS["sigmoid"]
    value, dx = reference.binary_crossentropy(x, t, from_logits=True)
    y = function(x)
    same, dy = reference.binary_crossentropy(y, t)
    np.testing.assert_allclose(same, value, rtol=1e-12)
    np.testing.assert_allclose(dy * derivative(x, y), dx, rtol=1e-10, atol=1e-12)


def test_certain_and_wrong_is_clipped_as_in_keras():
    value, dy = reference.binary_crossentropy(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(value, -math.log(1e-7), rtol=1e-8)
    np.testing.assert_array_equal(dy, 0)
    value, dy = reference.sparse_categorical_crossentropy(np.array([[0.0, 1.0]]), np.array([0]))
    np.testing.assert_allclose(value, -math.log(1e-7), rtol=1e-8)
    np.testing.assert_array_equal(dy, 0)


def test_gradient_where_only_some_probabilities_are_clipped():
    y = np.array([[1e-5, 300.0, 700.0]])  # the first is 1e-8 of the sum
    t = np.array([[0.3, 0.2, 0.5]])
    _, dy = reference.categorical_crossentropy(y, t)
    check_gradients(
        lambda y: reference.categorical_crossentropy(y, t)[0].sum(), {"y": dy}, eps=1e-6, y=y
    )
    assert dy[0, 0] != 0  # through the sum only


def test_dividing_by_the_sum_leaves_no_gradient_along_y():
    y, t = probabilities((3, 4)), probabilities((3, 4), seed=1)
    _, dy = reference.categorical_crossentropy(y, t)
    np.testing.assert_allclose((y * dy).sum(axis=-1), 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_from_huge_logits_stay_finite(dtype):
    y = np.array([[1e4, -1e4, 0.0]], dtype)
    value, dy = reference.binary_crossentropy(y, np.array([[0, 1, 1]]), from_logits=True)
    np.testing.assert_allclose(value, (2e4 + math.log(2)) / 3, rtol=1e-6)
    np.testing.assert_allclose(dy, np.array([[1, -1, -0.5]]) / 3, rtol=1e-6)
    value, dy = reference.sparse_categorical_crossentropy(y, np.array([1]), from_logits=True)
    np.testing.assert_allclose(value, 2e4)
    np.testing.assert_array_equal(dy, [[1, -1, 0]])


# ---- Optimizers ----


def three_gradients(dtype=np.float64):
    rng = np.random.default_rng(0)
    param = read_only(rng.normal(size=(2, 3)).astype(dtype))
    return param, [read_only(rng.normal(size=(2, 3)).astype(dtype)) for _ in range(3)]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_its_definition(momentum, nesterov):
    param, grads = three_gradients()
    velocity = np.zeros_like(param)
    p, v = float(param[1, 2]), 0.0
    for grad in grads:
        param, velocity = reference.sgd_update(
            read_only(param), grad, read_only(velocity), 0.1, momentum, nesterov
        )
        g = float(grad[1, 2])
        v = momentum * v - 0.1 * g
        p = p + momentum * v - 0.1 * g if nesterov else p + v
        assert param[1, 2] == pytest.approx(p, rel=1e-14)
        assert velocity[1, 2] == pytest.approx(v, rel=1e-14)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_a_constant_rate_is_that_of_pytorch(nesterov):
    param, grads = three_gradients()
    velocity = buffer = np.zeros_like(param)
    twin = param
    for grad in grads:
        param, velocity = reference.sgd_update(param, grad, velocity, 0.1, 0.9, nesterov)
        buffer = 0.9 * buffer + grad
        twin = twin - 0.1 * (grad + 0.9 * buffer if nesterov else buffer)
    np.testing.assert_allclose(param, twin, rtol=1e-12)


def test_adam_equals_its_definition():
    param, grads = three_gradients()
    m = v = np.zeros_like(param)
    p, m1, v1 = float(param[1, 2]), 0.0, 0.0
    for step, grad in enumerate(grads, start=1):
        param, m, v = reference.adam_update(
            read_only(param), grad, read_only(m), read_only(v), step
        )
        g = float(grad[1, 2])
        m1 = 0.9 * m1 + 0.1 * g
        v1 = 0.999 * v1 + 0.001 * g * g
        p -= 0.001 * math.sqrt(1 - 0.999**step) / (1 - 0.9**step) * m1 / (math.sqrt(v1) + 1e-7)
        assert param[1, 2] == pytest.approx(p, rel=1e-13)
        assert m[1, 2] == pytest.approx(m1, rel=1e-12)
        assert v[1, 2] == pytest.approx(v1, rel=1e-12)


def test_adam_differs_from_pytorch_by_the_place_of_epsilon_only():
    for epsilon, same in ((0.0, True), (0.1, False)):
        param, grads = three_gradients()
        twin, m, v = param, np.zeros_like(param), np.zeros_like(param)
        for step, grad in enumerate(grads, start=1):
            param, m, v = reference.adam_update(param, grad, m, v, step, epsilon=epsilon)
            m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.999**step)
            twin = twin - 0.001 * m_hat / (np.sqrt(v_hat) + epsilon)
        assert np.allclose(param, twin, rtol=1e-12, atol=0) == same


@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_equals_its_definition(centered):
    param, grads = three_gradients()
    v = mean = velocity = np.zeros_like(param)
    p, v1, m1, u = float(param[1, 2]), 0.0, 0.0, 0.0
    for grad in grads:
        param, v, mean, velocity = reference.rmsprop_update(
            *map(read_only, (param, grad, v, mean, velocity)), 0.1, 0.8, 0.7, 1e-3, centered
        )
        g = float(grad[1, 2])
        v1 = 0.8 * v1 + 0.2 * g * g
        m1 = 0.8 * m1 + 0.2 * g
        u = 0.7 * u + 0.1 * g / math.sqrt((v1 - m1**2 if centered else v1) + 1e-3)
        p -= u
        for got, want in ((param, p), (v, v1), (mean, m1), (velocity, u)):
            assert got[1, 2] == pytest.approx(want, rel=1e-12)


def test_rmsprop_takes_a_negative_variance_for_zero():
    zero = np.zeros(1)
    param, *_ = reference.rmsprop_update(zero, zero + 2, zero + 3.9, zero + 2, zero, 0.1, 0.9,
                                         epsilon=0.25, centered=True)  # fmt: skip
    assert param == pytest.approx(-0.1 * 2 / 0.5)


@pytest.mark.parametrize(
    "update",
    [
        lambda p, g, decay: reference.sgd_update(p, g, 0 * p, 0.1, 0.9, True, decay),
        lambda p, g, decay: reference.rmsprop_update(
            p, g, *[0 * p] * 3, learning_rate=0.1, weight_decay=decay
        ),
        lambda p, g, decay: reference.adam_update(
            p, g, 0 * p, 0 * p, 1, learning_rate=0.1, weight_decay=decay
        ),
    ],
)
def test_weight_decay_shrinks_the_param_and_leaves_the_rest(update):
    param, grads = three_gradients()
    plain, decayed = update(param, grads[0], 0.0), update(param, grads[0], 0.3)
    np.testing.assert_allclose(decayed[0], plain[0] - 0.1 * 0.3 * param, rtol=1e-12)
    assert all(map(np.array_equal, decayed[1:], plain[1:]))


def test_an_average_keeps_a_share_of_itself():
    param, grads = three_gradients()
    got = reference.average_update(param, grads[0], 0.75, 0.5)
    assert got[1, 2] == pytest.approx(0.75 * param[1, 2] + 0.5 * grads[0][1, 2], rel=1e-14)


def test_updates_compute_in_the_dtype_they_are_given():
    param, grads = three_gradients(np.float32)
    zeros = np.zeros_like(param)
    for result in (
        reference.sgd_update(param, grads[0], zeros, 0.1, 0.9, True),
        reference.rmsprop_update(param, grads[0], zeros, zeros, zeros, 0.1, centered=True),
        reference.adam_update(param, grads[0], zeros, zeros, 1),
        [reference.average_update(param, grads[0], 0.9, 0.1)],
        [reference.clip_by_norm(grads[0], 0.1), *reference.clip_by_global_norm(grads, 0.1)],
    ):
        assert {array.dtype for array in result} == {np.dtype(np.float32)}


def test_clip_by_norm():
    grad = read_only(np.array([[3.0, 0.0], [0.0, -4.0]]))
    np.testing.assert_array_equal(reference.clip_by_norm(grad, 5.0), grad)
    np.testing.assert_array_equal(reference.clip_by_norm(grad, 9.0), grad)
    np.testing.assert_allclose(reference.clip_by_norm(grad, 1.0), grad / 5, rtol=1e-15)
    np.testing.assert_array_equal(reference.clip_by_norm(0 * grad, 1.0), 0)
    assert np.isnan(reference.clip_by_norm(grad * np.nan, 1.0)).all()


def test_clip_by_global_norm_keeps_the_direction():
    grads = [read_only(np.array([3.0])), read_only(np.array([[0.0, 4.0], [12.0, 0.0]]))]
    for norm, factor in ((13.0, 1), (20.0, 1), (1.0, 1 / 13)):
        clipped = reference.clip_by_global_norm(grads, norm)
        for got, grad in zip(clipped, grads, strict=True):
            np.testing.assert_allclose(got, grad * factor, rtol=1e-15)


def test_one_nan_taints_all_gradients_clipped_together():
    grads = [np.array([np.nan]), np.array([1.0, 2.0])]
    for clipped in reference.clip_by_global_norm(grads, 1.0):
        assert np.isnan(clipped).all()


# ---- Attention, pooling and normalization ----

STEPS = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
PLAIN_SHAPES = {"query": (3, 2, 4), "keys": (3, 5, 4), "scale": (4,)}


class Function(NamedTuple):
    """A function of arrays, its way back, and the shapes of its arguments and outputs."""

    forward: Any
    backward: Any
    shapes: dict[str, tuple[int, ...]]
    outputs: tuple[tuple[int, ...], ...]
    options: dict[str, Any]

    def check_gradients(self, backward=None):
        """Compare the gradients of all arguments with central differences."""
        rng = np.random.default_rng(0)
        arrays = {name: read_only(rng.normal(size=s)) for name, s in self.shapes.items()}
        gradients = [read_only(rng.normal(size=shape)) for shape in self.outputs]

        def projected(**arrays):
            results = self.forward(**arrays, **self.options)
            results = results if isinstance(results, tuple) else (results,)
            pairs = zip(results, gradients, strict=False)  # max_pool's places have no gradient
            return sum((y * dy).sum() for y, dy in pairs)

        got = (backward or self.backward)(*gradients, **arrays, **self.options)
        got = got if isinstance(got, tuple) else (got,)
        check_gradients(projected, dict(zip(arrays, got, strict=True)), **arrays)


def masked_and_not(forward, backward, shapes, outputs):
    return [Function(forward, backward, shapes, outputs, {"mask": m}) for m in (None, STEPS)]


FUNCTIONS = [
    Function(
        reference.dot_scores,
        reference.dot_scores_backward,
        {name: PLAIN_SHAPES[name] for name in ("query", "keys")},
        ((3, 2, 5),),
        {},
    ),
    Function(
        reference.additive_scores,
        reference.additive_scores_backward,
        PLAIN_SHAPES,
        ((3, 2, 5),),
        {},
    ),
    *masked_and_not(
        reference.attend,
        reference.attend_backward,
        {"scores": (3, 2, 5), "values": (3, 5, 4)},
        ((3, 2, 4), (3, 2, 5)),
    ),
    *masked_and_not(
        reference.average_pool, reference.average_pool_backward, {"x": (3, 5, 4)}, ((3, 4),)
    ),
    *masked_and_not(reference.max_pool, reference.max_pool_backward, {"x": (3, 5, 4)}, ((3, 4),)),
    Function(
        reference.normalization,
        reference.normalization_backward,
        {"x": (3, 5, 4), "gamma": (4,), "beta": (4,)},
        ((3, 5, 4),),
        {"epsilon": 0.1},
    ),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.forward.__name__)
def test_gradients_of_a_function(function):
    function.check_gradients()


@pytest.mark.parametrize(
    ("place", "name"), [(p, n) for p, f in enumerate(FUNCTIONS) for n in f.shapes]
)
def test_the_gradient_check_of_a_function_bites(place, name):
    function = FUNCTIONS[place]

    def wrong(*args, **options):
        got = function.backward(*args, **options)
        got = got if isinstance(got, tuple) else (got,)
        factors = [1 + 1e-5 * (own == name) for own in function.shapes]
        return tuple(g * factor for g, factor in zip(got, factors, strict=True))

    with pytest.raises(AssertionError, match=f"d{name}\n"):
        function.check_gradients(wrong)


def test_scores_equal_a_loop_over_scalars():
    rng = np.random.default_rng(0)
    query, keys, scale = (rng.normal(size=shape) for shape in PLAIN_SHAPES.values())
    dot, additive = (
        reference.dot_scores(query, keys),
        reference.additive_scores(query, keys, scale),
    )
    for b, s, t in np.ndindex(3, 2, 5):
        pairs = list(zip(query[b, s], keys[b, t], scale, strict=True))
        np.testing.assert_allclose(dot[b, s, t], sum(q * k for q, k, _ in pairs), rtol=1e-12)
        want = sum(v * math.tanh(q + k) for q, k, v in pairs)
        np.testing.assert_allclose(additive[b, s, t], want, rtol=1e-12)


def test_attention_equals_a_loop_over_scalars_that_never_sees_masked_steps():
    rng = np.random.default_rng(0)
    scores, values = rng.normal(size=(3, 2, 5)), rng.normal(size=(3, 5, 4))
    values[~STEPS] = np.nan
    scores[np.repeat(~STEPS[:, None], 2, axis=1)] = np.nan
    context, weights = reference.attend(scores, values, STEPS)
    for b, s in np.ndindex(3, 2):
        steps = [t for t in range(5) if STEPS[b, t]]
        total = sum(math.exp(scores[b, s, t]) for t in steps)
        want = [math.exp(scores[b, s, t]) / total if t in steps else 0 for t in range(5)]
        np.testing.assert_allclose(weights[b, s], want, rtol=1e-12)
        for i in range(4):
            value = sum(want[t] * values[b, t, i] for t in steps)
            np.testing.assert_allclose(context[b, s, i], value, rtol=1e-12)


def test_pooling_equals_a_loop_over_scalars_that_never_sees_masked_steps():
    x = np.random.default_rng(0).integers(-2, 2, (3, 5, 4)).astype(float)
    x[~STEPS] = np.nan
    average, (largest, places) = reference.average_pool(x, STEPS), reference.max_pool(x, STEPS)
    for b, i in np.ndindex(3, 4):
        values = {t: x[b, t, i] for t in range(5) if STEPS[b, t]}
        want = max(values.values(), default=0)
        np.testing.assert_allclose(average[b, i], sum(values.values()) / max(len(values), 1))
        assert largest[b, i] == want
        assert places[b, i] == min((t for t in values if values[t] == want), default=-1)


def test_normalization_equals_a_loop_over_scalars():
    rng = np.random.default_rng(0)
    x, gamma, beta = rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=4)
    y = reference.normalization(x, gamma, beta, 0.1)
    for b in range(3):
        mean = sum(x[b]) / 4
        length = math.sqrt(sum((v - mean) ** 2 for v in x[b]) / 4 + 0.1)
        want = [g * (v - mean) / length + c for v, g, c in zip(x[b], gamma, beta, strict=True)]
        np.testing.assert_allclose(y[b], want, rtol=1e-12)
