"""The parts of a call do what they are said to do, and their sum is what a goal is held against."""

from __future__ import annotations

import numpy as np
import pytest

from bench import bounds
from fastgru.kernels import aligned_empty
from fastgru.kernels.gemm import pack_columns, padded
from fastgru.kernels.simd import pointer


@bounds.numba.njit
def pack(b, packed):
    pack_columns(pointer(b), b.shape[1], 0, b.shape[0], *b.shape, pointer(packed), 0)


@pytest.mark.parametrize("by_columns", [False, True])
def test_products_are_products(by_columns):
    random = np.random.default_rng(0)
    rows, K, columns = (1, 5, 70) if by_columns else (7, 5, 70)
    width = padded(columns, np.dtype(np.float32))
    a, b, packed, c = (
        aligned_empty(shape, np.float32)
        for shape in ((rows, K), (K, columns), (K * width,), (rows, width))
    )
    a[...], b[...] = random.standard_normal((rows, K)), random.standard_normal((K, columns))
    pack(b, packed)
    start = np.arange(width, dtype=np.float32)
    for worker in range(2):
        bounds._products(2, rows, width, K, a, packed, start, c, by_columns, worker, 2)
    np.testing.assert_allclose(c[:, :columns], a @ b + start[:columns], rtol=1e-5)


def test_a_goal_is_held_against_the_sum_of_the_parts():
    result = bounds.run(quick=True, threads=1, names=["b1_small"])
    (row,) = result["rows"]
    assert row["goal_us"] == pytest.approx(row["peer_us"] / 12, abs=0.01)
    assert row["bound_us"] == pytest.approx(sum(row["parts_us"].values()), abs=0.01)
    # Each part by itself cannot take longer than the whole, far from it.
    assert max(row["parts_us"].values()) < 0.6 * row["fastgru_us"]
    assert f"| 1, 100, 32, 64 | training | 12x {'NumPy'} |" in bounds.table(result)


def test_a_missing_peer_is_reported(monkeypatch):
    def absent(problem, threads):
        raise ImportError("No module named 'numpy'")

    monkeypatch.setitem(bounds.CONTENDERS, "numpy", absent)
    result = bounds.run(quick=True, threads=1, names=["b1_small"])
    assert not result["rows"]
    assert "NumPy is missing: No module named 'numpy'." in bounds.table(result)


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="cells: expected some of b1_small, .*; given b8"):
        bounds.run(quick=True, threads=1, names=["b8"])
