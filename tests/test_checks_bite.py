"""A check that cannot fail is worthless: each one gets deliberately wrong kernels here."""

from dataclasses import replace

import checks
import numpy as np
import pytest
from cases import (
    ACTIVATION_CASES,
    CASES,
    GRU_PARAMS,
    additive_scores_case,
    attend_case,
    dot_scores_case,
    gru_case,
    lstm_case,
    normalization_case,
    pool_case,
)

from fastgru.kernels import threads as thread_settings

PLAIN = gru_case()
MASKED = gru_case(masked=True)
LSTM = lstm_case()


def change_arguments(case, change):
    """Return the case with a kernel that sees changed arguments, forward and backward."""
    return replace(
        case,
        forward=lambda a, o, **more: case.forward(a | change(a), o, **more),
        backward=lambda a, *rest: case.backward(a | change(a), *rest),
    )


def change_options(case, **options):
    """Return the case with a kernel that runs with other options."""
    return replace(
        case,
        forward=lambda a, o, **more: case.forward(a, o | options, **more),
        backward=lambda a, kept, d, into, o: case.backward(a, kept, d, into, o | options),
    )


def change_outputs(case, change):
    """Return the case with a kernel whose outputs y, h_last are changed in place."""

    def forward(a, o, **more):
        outputs, kept = case.forward(a, o, **more)
        outputs = {k: v.copy() for k, v in outputs.items()}
        change(outputs, a)
        return outputs, kept

    return replace(case, forward=forward)


def change_gradients(case, change):
    """Return the case with a kernel whose gradients are changed in place."""

    def backward(a, kept, d, into, o):
        gradients = case.backward(a, kept, d, into, o)
        change(gradients | into, a)
        return gradients

    return replace(case, backward=backward)


def swap_first_two(gates):
    """Return a change of the params that exchanges their first two gates."""

    def swapped(w):
        first, second, *rest = np.split(w, gates, axis=-1)
        return np.ascontiguousarray(np.concatenate([second, first, *rest], axis=-1))

    return lambda a: {k: swapped(a[k]) for k in GRU_PARAMS if k in a}


def forget(name):
    return lambda a: {name: np.zeros_like(a[name])}


def off_by(name, part):
    """Change one element by a part of the largest, or of 1."""

    def change(arrays, a):
        arrays[name].flat[1] += part * max(np.abs(arrays[name]).max(), 1)

    return change


def is_refused(check, case, match=None):
    """Require that a check passes the right case (left to test_kernels) and fails this one."""
    with pytest.raises(AssertionError, match=match):
        check(case, np.random.default_rng(1))


def test_swapped_gates_are_found():
    for case, gates in ((PLAIN, 3), (LSTM, 4)):
        wrong = change_arguments(case, swap_first_two(gates))
        is_refused(checks.check_forward, wrong, "wrong: y")
        is_refused(checks.check_backward, wrong, "wrong: x")
        is_refused(checks.check_sizes, wrong)


@pytest.mark.parametrize("name", ["bias", "recurrent_bias", "h0", "kernel", "recurrent_kernel"])
def test_a_forgotten_argument_is_found(name):
    is_refused(checks.check_forward, change_arguments(PLAIN, forget(name)), "wrong: y")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("reset_after", PLAIN), ("go_backwards", gru_case(go_backwards=True))],
    ids=["reset_after", "go_backwards"],
)
def test_an_ignored_option_is_found(wrong, right):
    case = change_options(right, **{wrong: not right.options[wrong]})
    is_refused(checks.check_forward, case, "wrong: y")
    is_refused(checks.check_backward, case)


def test_an_ignored_mask_is_found():
    wrong = change_arguments(MASKED, lambda a: {"mask": None})
    is_refused(checks.check_forward, wrong, "wrong: y")
    is_refused(checks.check_padding_is_invisible, wrong)


def test_a_reversed_mask_is_found():
    right = gru_case(go_backwards=True, masked=True)
    wrong = change_arguments(right, lambda a: {"mask": np.ascontiguousarray(a["mask"][:, ::-1])})
    is_refused(checks.check_forward, wrong, "wrong: y")
    is_refused(checks.check_padding_is_invisible, wrong)


def test_a_wrong_activation_is_found():
    is_refused(checks.check_forward, change_options(PLAIN, activation="softplus"))
    is_refused(checks.check_forward, change_options(PLAIN, recurrent_activation="hard_sigmoid"))


def test_a_forgotten_second_state_is_found():
    wrong = change_arguments(LSTM, forget("c0"))
    is_refused(checks.check_forward, wrong, "wrong: y")
    is_refused(checks.check_backward, wrong, "wrong: x")


def test_a_forgotten_gradient_of_the_second_state_is_found():
    def backward(a, kept, d, into, o):
        return LSTM.backward(a, kept, d | {"c_last": np.zeros_like(d["c_last"])}, into, o)

    is_refused(checks.check_backward, replace(LSTM, backward=backward), "wrong: x")
    zeros = change_gradients(LSTM, lambda gradients, a: gradients["c0"].fill(0))
    is_refused(checks.check_backward, zeros, "wrong: c0")


def test_states_that_are_exchanged_are_found():
    def exchange(outputs, a):
        outputs["h_last"], outputs["c_last"] = outputs["c_last"], outputs["h_last"]

    is_refused(checks.check_forward, change_outputs(LSTM, exchange), "wrong: h_last")


def test_a_masked_step_that_changes_the_second_state_is_found():
    def change(outputs, a):
        outputs["c_last"][-1] = 0  # of a row without any step

    wrong = change_outputs(lstm_case(masked=True), change)
    is_refused(checks.check_padding_is_invisible, wrong, "not the same bits: c_last")


@pytest.mark.parametrize("name", ["x", "h0", *GRU_PARAMS])
def test_a_gradient_of_zeros_is_found(name):
    wrong = change_gradients(PLAIN, lambda gradients, a: gradients[name].fill(0))
    is_refused(checks.check_backward, wrong, f"wrong: {name}")


@pytest.mark.parametrize("name", ["x", "h0", *GRU_PARAMS])
@pytest.mark.parametrize(("dtype", "part"), [(np.float32, 3e-5), (np.float64, 3e-14)])
def test_one_gradient_that_is_a_little_off_is_found(name, dtype, part):
    wrong = change_gradients(gru_case(dtype=dtype), off_by(name, part))
    is_refused(checks.check_backward, wrong, f"wrong: {name}")


@pytest.mark.parametrize(("dtype", "part"), [(np.float32, 3e-5), (np.float64, 3e-14)])
def test_one_output_that_is_a_little_off_is_found(dtype, part):
    wrong = change_outputs(gru_case(dtype=dtype), off_by("y", part))
    is_refused(checks.check_forward, wrong, "wrong: y")


def test_nan_is_never_close():
    def spoil(outputs, a):
        outputs["y"].flat[0] = np.nan

    is_refused(checks.check_forward, change_outputs(PLAIN, spoil))


def test_a_missing_axis_or_another_dtype_is_found():
    def forward(a, o):
        return {"y": a["x"][:1]}, None

    elementwise = replace(ACTIVATION_CASES[0], backward=None)
    assert elementwise.name == "linear-float32"
    is_refused(checks.check_forward, replace(elementwise, forward=forward), "wrong shape: y")
    double = replace(elementwise, forward=lambda a, o: ({"y": a["x"].astype(float)}, None))
    is_refused(checks.check_forward, double, "wrong dtype: y")


def test_gradients_that_overwrite_are_found():
    def backward(a, kept, d, into, o):
        for gradient in into.values():
            gradient.fill(0)
        return PLAIN.backward(a, kept, d, into, o)

    wrong = replace(PLAIN, backward=backward)
    checks.check_backward(wrong, np.random.default_rng(1))
    is_refused(checks.check_gradients_are_added, wrong, "wrong: kernel")


def test_a_gradient_at_masked_steps_is_found():
    def change(gradients, a):
        gradients["x"][~a["mask"]] = 1

    is_refused(checks.check_padding_is_invisible, change_gradients(MASKED, change))


def test_padding_that_leaks_into_gradients_is_found():
    def change(gradients, a):
        if not np.isfinite(a["x"]).all():
            gradients["kernel"][0, 0] = np.nan

    is_refused(checks.check_padding_is_invisible, change_gradients(MASKED, change))


def test_a_row_that_depends_on_the_batch_is_found():
    def by_batch(outputs, a):
        outputs["y"] *= 1 + np.finfo(np.float32).eps * len(a["x"])

    is_refused(checks.check_one_by_one, change_outputs(PLAIN, by_batch), "not the same bits: y")

    def neighbour(gradients, a):
        gradients["x"][:] = gradients["x"][::-1].copy()

    is_refused(checks.check_one_by_one, change_gradients(PLAIN, neighbour), "not the same bits: x")


@pytest.mark.parametrize("name", ["x", "h0", *GRU_PARAMS])
def test_a_gradient_that_is_wrong_for_many_rows_is_found(name):
    def change(gradients, a):
        if len(a["x"]) > 48:
            gradients[name][-1] = 0

    is_refused(checks.check_many_rows, change_gradients(PLAIN, change), name)


@pytest.mark.parametrize("name", ["x", "h0", *GRU_PARAMS])
def test_a_result_that_depends_on_the_threads_is_found(name, threads):
    def last_bit(gradients, a):
        if thread_settings.get_num_threads() > 1:
            last = gradients[name][-1:]
            last[...] = np.nextafter(last, np.inf)

    is_refused(checks.check_threads, change_gradients(PLAIN, last_bit), "not the same bits")


def test_a_bit_that_depends_on_how_units_are_shared_is_found(threads):
    def last_bit(outputs, a):
        if thread_settings.get_num_threads() > 1:
            last = outputs["y"][-1:]
            last[...] = np.nextafter(last, np.inf)

    wrong = change_outputs(PLAIN, last_bit)
    is_refused(checks.check_units_shared, wrong, "not the same bits")


def test_units_that_are_not_shared_are_found(threads):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks.relay, "split", lambda rows, *_: (rows, checks.relay.ALONE))
        patch.setattr("fastgru.kernels.recurrence.split", checks.relay.split)
        is_refused(checks.check_units_shared, PLAIN, "did not share")


def test_a_step_that_forgets_the_state_is_found():
    def forget_later(a):
        return {} if a["x"].shape[1] > 1 else {"h0": np.zeros_like(a["h0"])}

    is_refused(checks.check_step_by_step, change_arguments(PLAIN, forget_later))

    def forget_c_later(a):
        return {} if a["x"].shape[1] > 1 else {"c0": np.zeros_like(a["c0"])}

    is_refused(checks.check_step_by_step, change_arguments(LSTM, forget_c_later))
    backwards = gru_case(go_backwards=True)
    is_refused(checks.check_step_by_step, change_options(backwards, go_backwards=False))


def test_a_wrong_last_state_is_found():
    def forward(a, o, return_sequences=True, keep=True):
        outputs, kept = PLAIN.forward(a, o, keep=keep)
        if not return_sequences:
            outputs["y"] = outputs["y"][:, :1]
        return outputs, kept

    is_refused(checks.check_last_state, replace(PLAIN, forward=forward))

    def without_c(a, o, return_sequences=True, keep=True):
        outputs, kept = LSTM.forward(a, o, return_sequences, keep)
        return outputs if return_sequences else outputs | {"c_last": a["c0"]}, kept

    wrong = replace(LSTM, forward=without_c)
    is_refused(checks.check_last_state, wrong, "not the same bits: c_last")


def test_inference_that_differs_from_training_is_found():
    def forward(a, o, return_sequences=True, keep=True):
        outputs, kept = PLAIN.forward(a, o, return_sequences, keep)
        if not keep:
            outputs = {k: np.nextafter(v, np.float32(9)) for k, v in outputs.items()}
        return outputs, kept

    is_refused(checks.check_last_state, replace(PLAIN, forward=forward), "not the same bits: y")


@pytest.mark.parametrize("letter", ["I", "H"])
def test_a_kernel_that_is_wrong_at_one_size_only_is_found(letter):
    width = checks.SIMD_WIDTH + 1

    def at_the_edge(outputs, a):
        if a["kernel"].shape[0 if letter == "I" else 1] == (width if letter == "I" else 3 * width):
            outputs["y"][..., -1] = 0

    is_refused(checks.check_sizes, change_outputs(PLAIN, at_the_edge), "wrong: y")


@pytest.mark.parametrize("rows", [1, 6, 7, 13])
def test_a_kernel_that_is_wrong_for_some_number_of_rows_is_found(rows):
    def change(outputs, a):
        if len(a["x"]) == rows:
            outputs["y"][-1] = 0

    is_refused(checks.check_sizes, change_outputs(PLAIN, change), "wrong: y")


@pytest.mark.parametrize("place", ["before", "behind", "input"])
def test_a_kernel_that_writes_beside_its_output_is_found(place):
    def fenced(fence, a, d, options, workers):
        watched = []

        class Spy:
            def put(self, array, out=False):
                watched.append((fence.put(array, out), out))
                return watched[-1][0]

            def empty(self, shape, dtype):
                watched.append((fence.empty(shape, dtype), True))
                return watched[-1][0]

        got = PLAIN.fenced(Spy(), a, d, options, workers)
        array = next(v for v, out in watched if out == (place != "input"))
        whole, at = array.base, fence.GUARD
        whole[{"before": at - 1, "behind": at + array.size, "input": at}[place]] += 1
        return got

    is_refused(checks.check_memory, replace(PLAIN, fenced=fenced), "beside its output")


def test_a_worker_that_skips_its_share_is_found():
    def fenced(fence, a, d, options, workers):
        got = PLAIN.fenced(fence, a, d, options, workers)
        if workers > 1:
            got["kernel"][0] = 0
        return got

    is_refused(checks.check_memory, replace(PLAIN, fenced=fenced), "not the same bits: kernel")


# ---- attention, pooling and normalization


OTHERS = {
    "dot scores": dot_scores_case(np.float32),
    "additive scores": additive_scores_case(np.float32),
    "attend": attend_case(np.float32, True),
    "average": pool_case("average", np.float32, True),
    "max": pool_case("max", np.float32, True),
    "normalization": normalization_case(np.float32),
}


@pytest.mark.parametrize("name", ["attend", "average", "max"])
def test_a_mask_ignored_by_other_kernels_is_found(name):
    wrong = change_arguments(OTHERS[name], lambda a: {"mask": None})
    is_refused(checks.check_forward, wrong)
    is_refused(checks.check_backward, wrong)
    if name != "attend":
        is_refused(checks.check_padding_is_invisible, wrong)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("dot scores", "query"),
        ("dot scores", "keys"),
        ("additive scores", "query"),
        ("additive scores", "keys"),
        ("additive scores", "scale"),
        ("attend", "scores"),
        ("attend", "values"),
        ("average", "x"),
        ("max", "x"),
        ("normalization", "x"),
        ("normalization", "gamma"),
        ("normalization", "beta"),
    ],
)
def test_a_forgotten_argument_or_gradient_of_other_kernels_is_found(name, argument):
    case = OTHERS[name]
    is_refused(checks.check_forward, change_arguments(case, forget(argument)), "wrong: ")
    for change in (lambda gradients, a: gradients[argument].fill(0), off_by(argument, 3e-5)):
        wrong = change_gradients(case, change)
        is_refused(checks.check_backward, wrong, f"wrong: {argument}")


def test_a_gradient_of_the_weights_that_is_forgotten_is_found():
    case = OTHERS["attend"]

    def backward(a, kept, d, into, o):
        return case.backward(a, kept, d | {"weights": np.zeros_like(d["weights"])}, into, o)

    is_refused(checks.check_backward, replace(case, backward=backward), "wrong: scores")


def test_the_last_of_equal_values_with_the_gradient_is_found():
    case = OTHERS["max"]

    def backward(a, places, d, into, o):
        back = {k: None if v is None else np.ascontiguousarray(v[:, ::-1]) for k, v in a.items()}
        _, places = case.forward(back, o)
        gradient = case.backward(back, places, d, into, o)["x"]
        return {"x": np.ascontiguousarray(gradient[:, ::-1])}

    is_refused(checks.check_backward, replace(case, backward=backward), "wrong: x")


def test_every_check_is_bitten_by_some_test_of_this_file():
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    assert [c.__name__ for c, _ in checks.CHECKS if f"checks.{c.__name__}," not in text] == []


def test_the_right_kernels_pass_what_bites_the_wrong_ones(threads):
    for check, parts in checks.CHECKS:
        for case in (PLAIN, MASKED, LSTM, CASES[-1]):
            if all(map(case.has, parts)):
                check(case, np.random.default_rng(1))
