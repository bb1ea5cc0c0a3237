"""Every check for every kernel of `cases.py`."""

import os
from dataclasses import replace

import numba
import numpy as np
import pytest
from cases import (
    CASES,
    GRU,
    GRU_CASES,
    LSTM_CASES,
    RECURRENT_CASES,
    SIMPLE_RNN_CASES,
    SLOPED,
    codes,
    gru_case,
    lstm_case,
    recurrent_arguments,
    simple_rnn_case,
)
from checks import CHECKS, assert_same, check_backward, check_forward, check_one_by_one
from children import finish, start
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgru import reference
from fastgru.kernels import gru, recurrence
from fastgru.kernels.activations import activation_backward, activation_forward
from fastgru.kernels.arrays import none_of
from fastgru.kernels.names import ACTIVATIONS
from fastgru.kernels.relay import ALONE


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param(check, case, id=f"{check.__name__.removeprefix('check_')}-{case.name}")
        for check, parts in CHECKS
        for case in CASES
        if all(map(case.has, parts))
    ],
)
def test_kernel(check, case, rng, threads):
    check(case, rng)


def test_every_check_runs_for_some_case():
    for _, parts in CHECKS:
        assert any(all(map(case.has, parts)) for case in CASES)


def test_the_table_has_every_kind_of_gru_and_every_activation_in_both_places():
    flags = ("reset_after", "go_backwards", "masked")
    assert len({tuple(c.options[f] for f in flags) for c in GRU_CASES}) == 8
    assert {c.options["activation"] for c in GRU_CASES} == set(SLOPED)
    assert {c.options["recurrent_activation"] for c in GRU_CASES} == set(SLOPED)


def test_the_table_has_every_kind_of_the_other_cells():
    flags = ("go_backwards", "masked")
    for cases in (LSTM_CASES, SIMPLE_RNN_CASES):
        assert len({tuple(c.options[f] for f in flags) for c in cases}) == 4
        assert {c.options["activation"] for c in cases} == set(SLOPED)
    assert {c.options["recurrent_activation"] for c in LSTM_CASES} == set(SLOPED)


def test_the_mask_of_the_table_has_a_leading_gap_a_hole_and_an_empty_row():
    sizes = {"B": 3, "T": 5, "I": 4, "H": 7}
    mask = recurrent_arguments(GRU, np.random.default_rng(0), sizes, True)["mask"]
    assert mask.tolist() == [
        [False, True, True, False, True],
        [True, True, False, True, True],
        [False, False, False, False, False],
    ]


def of_any_shape(test):
    """Run a test for random sizes, dtypes and seeds."""
    sizes = {"B": (1, 15), "T": (0, 9), "I": (1, 70), "H": (1, 70)}
    return settings(max_examples=60)(
        given(
            sizes=st.fixed_dictionaries({k: st.integers(*ends) for k, ends in sizes.items()}),
            flags=st.tuples(*[st.booleans()] * 3),
            dtype=st.sampled_from([np.float32, np.float64]),
            seed=st.integers(0, 2**32 - 1),
        )(test)
    )


def agrees_with_the_reference(case, seed):
    for check in (check_forward, check_backward, check_one_by_one):
        check(case, np.random.default_rng(seed))


@of_any_shape
def test_a_gru_of_any_shape_agrees_with_the_reference(sizes, flags, dtype, seed):
    agrees_with_the_reference(gru_case(*flags, dtype=dtype).at(**sizes), seed)


@of_any_shape
def test_an_lstm_of_any_shape_agrees_with_the_reference(sizes, flags, dtype, seed):
    agrees_with_the_reference(lstm_case(*flags[:2], dtype=dtype).at(**sizes), seed)


@of_any_shape
def test_a_simple_rnn_of_any_shape_agrees_with_the_reference(sizes, flags, dtype, seed):
    agrees_with_the_reference(simple_rnn_case(*flags[:2], dtype=dtype).at(**sizes), seed)


# ---- what the GRU offers beside the table


@pytest.mark.parametrize("case", GRU_CASES, ids=lambda case: case.name)
def test_one_step_is_a_sequence_of_one_step(case, rng):
    for batch in (1, 3, 8):
        sized = replace(case.at(B=batch, T=1), options=case.options | {"masked": False})
        a = sized.arguments(rng)
        outputs, (weights, _, _) = sized.forward(a, sized.options)
        roles = {k: v for k, v in codes(case.options).items() if k != "go_backwards"}
        got = gru.gru_step(a["x"][:, 0].copy(), a["h0"], weights, **roles)
        assert got.tobytes() == outputs["y"][:, 0].tobytes()


USUAL_CASES = [case for case in RECURRENT_CASES if case.bounded]
usual_cases = pytest.mark.parametrize("case", USUAL_CASES, ids=lambda case: case.name)


@usual_cases
def test_a_missing_gradient_counts_as_zeros(case, rng):
    a, d = case.example(rng)
    zeros = {name: np.zeros_like(array) for name, array in d.items()}
    for missing in d:
        for got, want in zip(
            case.run(a, d | {missing: None}),
            case.run(a, d | {missing: zeros[missing]}),
            strict=True,
        ):
            assert_same(got, want)


@usual_cases
def test_dx_can_be_left_out(case, rng):
    a, d = case.example(rng)
    _, want = case.run(a, d)
    options = case.options | {"with_dx": False}
    _, kept = case.forward(a, case.options)
    into = {k: np.zeros_like(a[k]) for k in case.params}
    got = case.backward(a, kept, d, into, options) | into
    assert got.pop("x").shape == (0, *want.pop("x").shape[1:])
    assert np.any(want["h0"])
    assert_same(got, want)


@pytest.mark.parametrize("case", USUAL_CASES[::2], ids=lambda case: case.name)
def test_forward_and_backward_leave_their_inputs_as_they_were(case, rng):
    a, d = case.example(rng)
    before = {k: None if v is None else v.copy() for k, v in (a | d).items()}
    case.run(a, d)
    for name, array in (a | d).items():
        assert array is None or np.array_equal(array, before[name]), name


@pytest.mark.parametrize(
    ("case", "slots", "twin"), [(gru_case(), "nrzq", "rznq"), (lstm_case(), "ifgo", "ifgo")]
)
def test_gates_are_kept_in_the_order_that_the_docstring_says(case, slots, twin, rng):
    a = case.arguments(rng)
    _, (*_, gates) = case.forward(a, case.options)
    forward = reference.gru_forward if twin == "rznq" else reference.lstm_forward
    *_, kept = forward(**a)
    for slot, name in enumerate(slots):
        want = kept[:, :, twin.index(name)]
        np.testing.assert_allclose(gates[:, :, slot], want, rtol=2e-5, atol=1e-6, err_msg=name)


def test_a_worker_can_be_called_from_compiled_code(rng):
    case = gru_case()
    a = case.arguments(rng)
    outputs, (weights, _, _) = case.forward(a, case.options)
    worker = gru.gru_forward_rows

    @numba.njit
    def twice(x, mask, h0, packed, y, gates, work, progress):
        for _ in range(2):
            states = h0, None, None, packed, y, None
            worker(x, mask, *states, gates, work, progress, None, False, 2, 1, 0, 1)

    y = np.full_like(outputs["y"], np.nan)
    nothing = np.empty((0, 0, 4, 7), np.float32)
    alone = none_of(np.dtype(np.float32), 1), ALONE
    twice(a["x"], recurrence.NO_MASK, a["h0"], weights.forward, y, nothing, *alone)
    assert y.tobytes() == outputs["y"].tobytes()


# ---- activations


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_stand_extreme_values(name, dtype):
    info = np.finfo(dtype)
    sizes = np.array([0, info.smallest_subnormal, info.tiny, 1e-3, 20, 1e4, info.max / 4, np.inf])
    x = np.concatenate([sizes, -sizes]).astype(dtype)
    y = np.empty_like(x)
    activation_forward(ACTIVATIONS.index(name), x, y)
    with np.errstate(all="ignore"):
        want = reference.ACTIVATIONS[name].function(x.astype(np.float64))
        want_in_dtype = want.astype(dtype)
    assert np.array_equal(np.isfinite(y), np.isfinite(want_in_dtype))
    # gelu(x) = x (1 + erf) / 2 loses its relative accuracy where it is nearly zero.
    atol = info.eps if name == "gelu" else 2 * info.tiny
    np.testing.assert_allclose(y, want, rtol=8 * info.eps, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_give_nan_for_nan_and_for_nothing_else(name, dtype):
    x = np.linspace(-3, 3, 37, dtype=dtype)
    x[[0, 5, 36]] = np.nan
    y = np.empty_like(x)
    activation_forward(ACTIVATIONS.index(name), x, y)
    assert np.array_equal(np.isnan(y), np.isnan(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_stand_infinities_and_give_nan_for_nan(name, dtype):
    x = np.linspace(-4, 4, 37, dtype=dtype)
    x[[0, 3, 5, 36]] = [-np.inf, np.inf, np.nan, np.inf]
    y, dx = np.empty_like(x), np.empty_like(x)
    activation_forward(ACTIVATIONS.index(name), x, y)
    activation_backward(ACTIVATIONS.index(name), np.ones_like(x), x, y, dx)
    function, derivative = reference.ACTIVATIONS[name]
    exact = x.astype(np.float64)
    want = derivative(exact, function(exact))
    assert np.isfinite(np.delete(want, 5)).all() and np.isnan(want[5]) == (name != "linear")
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(dx, want, rtol=8 * eps, atol=4 * eps)


# ---- threads


@pytest.fixture
def entered(monkeypatch):
    """The number of workers of each entry into the parallel driver."""
    from fastgru.kernels import threads

    calls = []
    enter = threads._enter

    def spy(address, arguments, workers):
        calls.append(workers)
        return enter(address, arguments, workers)

    monkeypatch.setattr(threads, "_enter", spy)
    monkeypatch.setattr(threads, "_num_threads", 2)
    return calls


BIG = gru_case().at(B=32, T=20, I=32, H=64)


def test_big_work_enters_the_parallel_driver_forward_and_backward(entered, rng):
    a, d = BIG.example(rng)
    BIG.forward(a, BIG.options)
    assert entered == [2]
    BIG.run(a, d)
    assert entered == [2] * 4


def test_small_work_stays_on_the_callers_thread(entered, rng):
    case = gru_case().at(B=2, T=3)
    case.run(*case.example(rng))
    assert entered == []


def test_one_row_of_few_units_stays_on_the_callers_thread(entered, rng):
    case = BIG.at(B=1, T=900, H=32)
    case.forward(case.arguments(rng), case.options)
    assert entered == []


def test_one_row_of_many_units_is_shared(entered, rng):
    case = BIG.at(B=1, T=400)
    case.run(*case.example(rng))
    assert entered == [2] * 3


def test_with_one_thread_nothing_runs_in_parallel(entered, rng):
    from fastgru.kernels import threads

    threads.set_num_threads(1)
    BIG.run(*BIG.example(rng))
    assert entered == []


def test_a_second_caller_does_not_wait_for_the_parallel_driver(entered, rng):
    from fastgru.kernels import threads

    a, d = BIG.example(rng)
    want = BIG.run(a, d)
    entered.clear()
    with threads._region:
        got = BIG.run(a, d)
    assert entered == []
    assert all(got[1][k].tobytes() == want[1][k].tobytes() for k in want[1])


def test_a_share_that_fails_is_not_overlooked(entered):
    import numba

    from fastgru.kernels import threads

    @numba.njit
    def fails(x, wrong, worker, workers):
        if worker == wrong:
            raise ValueError("no memory")
        x[worker] = workers

    for wrong in (0, 1):
        x = np.zeros(2)
        with pytest.raises(MemoryError, match="a kernel could not allocate"):
            threads.share_out(fails, (x, wrong), 2, 10 * threads.LEAST_FLOPS)
        assert x[1 - wrong] == 2  # the other share was done
    threads.share_out(fails, (x, 2), 2, 10 * threads.LEAST_FLOPS)
    assert x.tolist() == [2, 2]
    assert entered == [2] * 3


@pytest.mark.parametrize("n", [0, -1, True, 1.5, "2", None])
def test_set_num_threads_refuses_what_is_no_positive_integer(n, threads):
    with pytest.raises(ValueError, match="n: expected a positive integer"):
        threads.set_num_threads(n)
    assert threads.get_num_threads() == 1


# ---- memory


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
@pytest.mark.parametrize("fence", ["Cliff", "CliffBefore"])
def test_kernels_neither_read_nor_write_beyond_their_arrays(fence):
    """In a process of its own, since a step over the edge ends it."""
    code = f"""
import numpy as np, cases, checks
rng = np.random.default_rng(0)
for case in cases.CASES:
    if case.fenced:
        checks.check_memory(case, rng, checks.{fence})
print("done")
"""
    assert finish(start("-c", code)) == "done\n"
