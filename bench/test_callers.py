"""The scenarios of many callers, and that wrong bits are seen."""

from __future__ import annotations

import pytest

from bench import callers
from bench.common import DisagreementError

QUICK = {"quick": 0.05}


def test_threads_processes_and_long_lives(monkeypatch):
    monkeypatch.setattr(callers, "SECONDS", QUICK)
    monkeypatch.setattr(callers, "PREDICTIONS", {"quick": 100})
    names = ["8 threads", "4 processes, spawn", "idle", "memory"]
    result = callers.run(quick=True, threads=2, names=names)
    assert [(row["scenario"], row["cell"]) for row in result["rows"]] == [
        (title, cell) for title in names[:2] for cell in callers.QUICK_CELLS
    ]
    assert all(row["calls_per_s"] > 0 for row in result["rows"])
    assert result["idle"]["cpu_s"] < 0.1 * result["idle"]["seconds"]
    text = callers.table(result)
    assert "| 8 threads " in text and "of idling" in text and "Over 100 predictions" in text


def test_what_is_not_installed_is_missing(monkeypatch):
    def absent(name, seconds):
        raise ModuleNotFoundError("No module named 'dask'")

    monkeypatch.setitem(callers.SCENARIOS, "4 dask workers", absent)
    assert callers.scenario("4 dask workers", "b8", 0) == {"missing": "No module named 'dask'"}


@pytest.mark.parametrize("wrong", [["other"], ["right", "other"], []])
def test_other_bits_than_a_single_callers_are_refused(wrong, monkeypatch):
    def call(function, title, *arguments, **options):
        return {"bits": wrong, "calls_per_s": 1.0}

    monkeypatch.setattr(callers.processes, "call", call)
    monkeypatch.setattr(callers, "right_bits", lambda name, threads: "right")
    with pytest.raises(DisagreementError, match="8 threads: b8: other bits"):
        callers.run(quick=True, threads=2, names=["8 threads"])


def test_the_bits_of_all_callers_are_looked_at(monkeypatch):
    works = [("a", 1, 0.0, 2.0), ("b", 5, 1.0, 3.0)]
    scenario = lambda name, seconds: [((bits,), *rest) for bits, *rest in works]  # noqa: E731
    monkeypatch.setitem(callers.SCENARIOS, "8 threads", scenario)
    assert callers.scenario("8 threads", "b8", 0) == {"bits": ["a", "b"], "calls_per_s": 2.0}


def test_a_forgetful_layer_is_seen(monkeypatch):
    """Growth counts what is kept, so a layer that keeps its outputs must show."""
    import fastgru as fg

    kept = []
    infer = fg.GRU.infer
    monkeypatch.setattr(
        fg.GRU, "infer", lambda self, *a: kept.append(infer(self, *a)) or kept[-1].copy()
    )
    grown = callers.growth(300)
    assert grown["bytes"] > callers.GROWTH_GOAL_BYTES


def test_what_a_pool_does_itself_is_measured_beside(monkeypatch):
    speeds = {(callers.PLAIN, callers.CONTROL): 200.0, ("4 dask workers", callers.CONTROL): 180.0}

    def call(function, title, name, *arguments, **options):
        return {"bits": ["right"], "calls_per_s": speeds.get((title, name), 100.0)}

    monkeypatch.setattr(callers.processes, "call", call)
    monkeypatch.setattr(callers, "right_bits", lambda name, threads: "right")
    result = callers.run(quick=False, threads=2, names=["4 dask workers"])
    assert result["left_to_callers"] == {"4 dask workers": 0.9}
    assert "as many get 0.90 in 4 dask workers" in callers.table(result)
