"""The loss of connectionist temporal classification against its twin, all paths and PyTorch."""

import itertools
import math
import pathlib

import checks
import numpy as np
import pytest

from fastgru import kernels, reference
from fastgru.kernels import ctc, threads

GOLDEN = pathlib.Path(__file__).parent / "golden" / "torch_ctc.npz"


def draw(rng, dtype="float64", most=5, **sizes):
    """Return random arguments x, mask, labels, counts, blank; some rows have too few frames."""
    B, T, V, L = (
        sizes.get(k, int(rng.integers(*limits)))
        for k, limits in zip("BTVL", ((1, most), (0, 9), (2, 6), (0, 5)), strict=True)
    )
    blank = int(rng.integers(V))
    labels = rng.integers(0, V - 1, (B, L))  # few classes: many labels are repeated
    return {
        "x": (rng.normal(size=(B, T, V)) * 2).astype(dtype),
        "mask": rng.random((B, T)) < 0.8,
        "labels": labels + (labels >= blank),
        "counts": rng.integers(0, L + 1, B),
        "blank": blank,
    }


def run(a, weights=None, zero_infinity=False):
    """Return values and gradients of the kernel."""
    B = len(a["x"])
    values, dx = np.empty(B), np.full_like(a["x"], 99)
    weights = np.ones(B) if weights is None else weights
    kernels.ctc_loss(*a.values(), weights, zero_infinity, values, dx)
    return values, dx


def twin(a, zero_infinity=False):
    with np.errstate(invalid="ignore"):
        return reference.ctc_loss(
            a["x"].astype(float), a["mask"], a["labels"], a["counts"], a["blank"], zero_infinity
        )


def spelled(path, blank):
    """Return what a path spells: equal neighbours merged, then blanks taken out."""
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]


def over_all_paths(a, b):
    """Return the value of row b, and the gradient at its frames, by listing every path."""
    x, blank = a["x"][b][a["mask"][b]].astype(float), a["blank"]
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    wanted = a["labels"][b, : a["counts"][b]].tolist()
    total, visits = 0.0, np.zeros_like(p)
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        if spelled(path, blank) == wanted:
            places = np.arange(len(p)), np.array(path, int)
            chance = p[places].prod()
            total += chance
            visits[places] += chance
    return (-math.log(total), p - visits / total) if total else (math.inf, np.nan * p)


@pytest.mark.parametrize("seed", range(40))
def test_the_loss_is_the_sum_over_all_paths(seed):
    a = draw(np.random.default_rng(seed), T=4, V=3)
    values, dx = run(a)
    for b in range(len(values)):
        value, gradient = over_all_paths(a, b)
        assert values[b] == pytest.approx(value, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(dx[b][a["mask"][b]], gradient, rtol=1e-9, atol=1e-12)
        assert not dx[b][~a["mask"][b]].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(60))
def test_ctc_is_its_twin(seed, dtype):
    rng = np.random.default_rng(seed)
    a = draw(rng, dtype, T=30, V=19, L=12) if seed % 3 == 0 else draw(rng, dtype)
    weights, zero_infinity = rng.uniform(0.5, 2, len(a["x"])), bool(seed % 2)
    values, dx = run(a, weights, zero_infinity)
    want, want_dx = twin(a, zero_infinity)
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(values, want, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        dx, want_dx * weights[:, None, None], rtol=tolerance, atol=tolerance
    )  # fmt: skip


def test_the_twins_gradient_is_that_of_its_value():
    rng = np.random.default_rng(0)
    a = draw(rng, B=3, T=7, V=4, L=3)
    _, dx = twin(a, zero_infinity=True)
    eps, want = 1e-6, np.empty_like(dx)
    for i in np.ndindex(dx.shape):
        high, low = ({**a, "x": a["x"].copy()} for _ in range(2))
        high["x"][i] += eps
        low["x"][i] -= eps
        want[i] = (twin(high, True)[0] - twin(low, True)[0])[i[0]] / (2 * eps)
    np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-8)
    assert dx.any()


def test_where_no_path_spells_the_labels_the_loss_is_infinite_or_zero():
    a = {
        "x": np.random.default_rng(0).normal(size=(4, 3, 5)),
        "mask": np.array([[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]], bool),
        "labels": np.array([[1, 1, 2], [1, 2, 3], [1, 2, 3], [1, 2, 3]]),  # 1, 1 needs a blank
        "counts": np.array([3, 3, 1, 1]),
        "blank": 0,
    }
    values, dx = run(a)
    assert np.isinf(values).tolist() == [True, False, False, True]
    assert np.isnan(dx[0]).all() and np.isfinite(dx[1:]).all() and not dx[3].any()
    values, dx = run(a, zero_infinity=True)
    assert values[0] == values[3] == 0 and not dx[[0, 3]].any() and dx[1].all()


def test_no_labels_are_spelled_by_blanks_alone():
    a = draw(np.random.default_rng(0), B=2, T=4, V=3, L=2)
    a |= {"mask": np.array([[1, 1, 1, 1], [0, 0, 0, 0]], bool), "counts": np.zeros(2, int)}
    values, dx = run(a)
    log_p = np.log(reference.softmax(a["x"][0]))[:, a["blank"]]
    assert values.tolist() == [pytest.approx(-log_p.sum()), 0] and not dx[1].any()


def test_long_sequences_neither_underflow_nor_overflow():
    a = draw(np.random.default_rng(0), "float32", B=1, T=3000, V=7, L=400)
    a["counts"][:] = 400
    a["x"] *= 50
    values, dx = run(a)
    want, want_dx = twin(a)
    assert values[0] > 1e4 and values[0] == pytest.approx(want[0], rel=1e-6)
    np.testing.assert_allclose(dx, want_dx, atol=2e-3)


def test_rows_of_weight_zero_take_no_part():
    a = draw(np.random.default_rng(1), B=3, T=8, V=4, L=2)
    a["x"][1], a["labels"][1] = np.nan, -99
    values, dx = run(a, np.array([1.0, 0.0, 2.0]))
    assert values[1] == 0 and not dx[1].any() and dx[[0, 2]].any()
    assert np.isfinite(values).all() and np.isfinite(dx).all()


def test_nan_flows_through():
    a = draw(np.random.default_rng(2), B=3, T=8, V=4, L=2)
    a["mask"][1, 5] = True
    a["x"][1, 5, 2] = np.nan
    values, dx = run(a)
    assert np.isnan(values).tolist() == [False, True, False]
    assert np.isnan(dx[1, 5]).all() and np.isfinite(dx[[0, 2]]).all()


def test_masked_frames_are_not_there():
    a = draw(np.random.default_rng(3), B=4, T=9, V=4, L=2)
    values, dx = run(a)
    spoiled = {**a, "x": np.where(a["mask"][..., None], a["x"], np.nan)}
    for got, want in zip(run(spoiled), (values, dx), strict=True):
        np.testing.assert_array_equal(got, want)
    for b in range(4):
        kept = a["x"][b : b + 1, a["mask"][b]]
        row = {k: v[b : b + 1] for k, v in a.items() if k in ("labels", "counts")}
        mask = np.ones(kept.shape[:2], bool)
        alone = run({"x": kept, "mask": mask, **row, "blank": a["blank"]})
        assert alone[0][0] == values[b]
        np.testing.assert_array_equal(alone[1][0], dx[b, a["mask"][b]])


def test_two_threads_give_the_bits_of_one(monkeypatch):
    a = draw(np.random.default_rng(4), "float32", B=7, T=40, V=11, L=9)
    entered, enter, before = [], threads._enter, threads.get_num_threads()
    monkeypatch.setattr(threads, "LEAST_FLOPS", 1)
    monkeypatch.setattr(threads, "_enter", lambda *a: entered.append(a[2]) or enter(*a))
    try:
        threads.set_num_threads(1)
        one = run(a)
        threads.set_num_threads(2)
        two = run(a)
    finally:
        threads.set_num_threads(before)
    assert entered == [2]
    for got, want in zip(two, one, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("fence_type", [checks.Fence, checks.Cliff, checks.CliffBefore])
def test_the_kernel_writes_its_outputs_and_reads_its_inputs_alone(fence_type):
    for seed in range(5):
        a = draw(np.random.default_rng(seed), "float32", B=5)
        values, dx = run(a)
        for workers in (1, 2, 7):
            fence = fence_type()
            put = {k: fence.put(v) if k != "blank" else v for k, v in a.items()}
            out = fence.empty(values.shape, "float64"), fence.empty(dx.shape, "float32")
            weights = fence.put(np.ones(5))
            for worker in range(workers):
                ctc.ctc_rows(*put.values(), weights, False, *out, worker, workers)
            fence.check()
            np.testing.assert_array_equal(out[0], values)
            np.testing.assert_array_equal(out[1], dx)


def test_arrays_that_do_not_fit_are_refused():
    a = draw(np.random.default_rng(0), B=3, T=5, V=4, L=2)
    for name, wrong in (
        ("mask", np.ones((3, 4), bool)),
        ("labels", np.zeros((2, 2), int)),
        ("labels", np.zeros((3, 2), np.int32)),
        ("counts", np.zeros(4, int)),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected a C-contiguous"):
            run(a | {name: wrong})


# ---- PyTorch


def check_torch(a, lengths, values, dx):
    """Compare with what PyTorch gives where the first `lengths` frames of each row count."""
    a = a | {"mask": np.arange(a["x"].shape[1]) < lengths[:, None]}
    got, gradient = run(a, zero_infinity=False)
    np.testing.assert_allclose(got, values, rtol=1e-9, atol=1e-9)
    finite = np.isfinite(values)
    np.testing.assert_allclose(gradient[finite], dx[finite], rtol=1e-7, atol=1e-9)
    assert (np.isnan(gradient[~finite]) == a["mask"][~finite][..., None]).all()
    got, gradient = run(a, zero_infinity=True)
    np.testing.assert_allclose(got, np.where(finite, values, 0), rtol=1e-9, atol=1e-9)
    assert not gradient[~finite].any()


def test_ctc_of_the_golden_file():
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = dict(file)
    a = {k: golden[k] for k in ("x", "labels", "counts")}
    a = {"x": a["x"], "mask": None, "labels": a["labels"], "counts": a["counts"]}
    check_torch(
        a | {"blank": int(golden["blank"])}, golden["lengths"], golden["values"], golden["dx"]
    )
    assert np.isinf(golden["values"]).any() and (golden["counts"] == 0).any()


@pytest.mark.parametrize("seed", range(150))
def test_ctc_is_that_of_pytorch_where_it_is_installed(seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    a = draw(rng, T=int(rng.integers(1, 14)), L=int(rng.integers(1, 7)))
    lengths = rng.integers(1, a["x"].shape[1] + 1, len(a["x"]))
    x = torch.tensor(a["x"], requires_grad=True)
    values = torch.nn.functional.ctc_loss(
        x.log_softmax(-1).transpose(0, 1),
        torch.tensor(a["labels"]),
        torch.tensor(lengths),
        torch.tensor(a["counts"]),
        blank=a["blank"],
        reduction="none",
    )
    values[torch.isfinite(values)].sum().backward()
    check_torch(a, lengths, values.detach().numpy(), x.grad.numpy())
