"""GRU, LSTM and SimpleRNN side by side."""

from __future__ import annotations

import numpy as np
import pytest

from bench import cells
from fastgru.recurrent import CELLS


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("question", ["inference", "training"])
def test_time_of_a_layer(benchmark, name, question):
    benchmark.group = question
    benchmark(cells.cost(name, np.random.default_rng(0))["calls"][question])


def test_all_cells_are_measured_and_learn(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(1, 50, (600, 8))
    y = (x < 25).sum(axis=1) > 4  # which words there are decides
    monkeypatch.setattr(cells, "reviews", lambda: ((x[:500], y[:500]), (x[500:], y[500:])))
    monkeypatch.setattr(cells, "SECONDS", {"quick": 0.7})
    result = cells.run(quick=True, threads=1)
    assert [row["name"] for row in result["rows"]] == list(CELLS)
    for row in result["rows"]:
        assert row["accuracy"] > 0.75
        assert row["curve"][-1][0] >= 0.7
    # y with the gates, and the second state of the LSTM.
    assert [row["kept_floats"] // cells.H for row in result["rows"]] == [5, 6, 2]
    parameters = [row["parameters"] for row in result["rows"]]
    assert len(set(parameters)) == 3
    text = cells.table(result)
    assert all(f"{n:,}" in text for n in parameters)
    pytest.importorskip("matplotlib")
    cells.plot(result, tmp_path / "cells.png")
    assert (tmp_path / "cells.png").stat().st_size > 5000


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="names: expected some of .*GRU.*; given MGU"):
        cells.run(quick=True, threads=1, names=["MGU"])
