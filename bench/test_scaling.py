"""What counts as a cliff, and the scaling of a small base."""

from __future__ import annotations

import pytest

from bench import scaling
from bench.kernels import Cell

BASE = Cell("base", 4, 3, 5, 7)


def found(axis, times, threads=1):
    """Return the neighbours between which times (size -> us) of an axis have a cliff."""
    made = [
        scaling.Point(axis, n, scaling.BASE._replace(**{} if axis == "threads" else {axis: n}),
                      n if axis == "threads" else threads)
        for n in times
    ]  # fmt: skip
    cliffs = scaling.cliffs(list(zip(made, times.values(), strict=True)), "inference")
    return [(cliff["from"], cliff["to"]) for cliff in cliffs]


def test_time_that_grows_as_the_work_is_no_cliff():
    assert found("T", {10: 10.0, 20: 20.0, 40: 41.0}) == []
    assert found("threads", {1: 10.0, 2: 5.0, 3: 1.0}) == []


def test_rounding_up_to_tiles_and_panels_is_no_cliff_and_more_is():
    assert found("B", {6: 10.0, 7: 20.0}) == []
    assert found("B", {6: 10.0, 7: 28.0}) == [(6, 7)]
    assert found("B", {12: 10.0, 13: 20.0}, threads=2) == []
    assert found("B", {12: 10.0, 13: 20.0}, threads=12) == [(12, 13)]
    assert found("T", {16: 10.0, 17: 15.0}) == [(16, 17)]


def test_a_larger_size_that_takes_less_is_a_cliff():
    assert found("I", {31: 14.0, 32: 10.0}) == [(31, 32)]
    assert found("I", {31: 13.0, 32: 10.0}) == []


def test_more_threads_that_take_longer_are_a_cliff():
    assert found("threads", {1: 10.0, 2: 14.0}) == [(1, 2)]


@pytest.fixture
def result(monkeypatch):
    monkeypatch.setattr(scaling, "BASE", BASE)
    monkeypatch.setattr(
        scaling, "QUICK_SWEEPS", {"B": (1, 6, 7), "T": (2, 5), "I": (3,), "H": (8, 9)}
    )
    return scaling.run(quick=True, threads=2)


def test_every_size_is_timed_and_told(result):
    sizes = [(row["axis"], row["size"]) for row in result["rows"] if row["question"] == "training"]
    assert sizes == [
        ("B", 1), ("B", 6), ("B", 7), ("T", 2), ("T", 5), ("I", 3), ("H", 8), ("H", 9),
        ("threads", 1), ("threads", 2),
    ]  # fmt: skip
    for row in result["rows"]:
        assert 0 < row["best_us"] <= row["median_us"]
    result["cliffs"] = [
        {"axis": "B", "question": "training", "from": 6, "to": 7, "growth": 9.5, "allowed": 2}
    ]
    text = scaling.table(result)
    assert "Cliff: training, B 6 to 7: time x 9.5, work x 2." in text


def test_the_plot_has_a_panel_for_each_axis(result, tmp_path):
    pytest.importorskip("matplotlib")
    scaling.plot(result, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
