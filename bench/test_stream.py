"""The steps of `bench.stream` under pytest-benchmark, and checks of what it reports."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import common, kernels, stream

THREADS = common.default_threads()
SMALL = kernels.Cell("tiny", 1, 1, 3, 7)


@pytest.mark.parametrize("contender", stream.CONTENDERS)
@pytest.mark.parametrize("size", stream.SIZES, ids=[size.name for size in stream.SIZES])
def test_time_of_a_step(benchmark, size, contender):
    problem = kernels.make_problem(size)
    present, missing = stream.enter(problem, THREADS)
    if contender in missing:
        pytest.skip(f"{contender} is missing: {missing[contender]}")
    stream.verify(size, problem, {contender: present[contender]})
    benchmark.group = f"one step, {size.H} units"
    benchmark.pedantic(
        present[contender], (problem.x[0],), rounds=20, iterations=50, warmup_rounds=1
    )


def test_a_step_that_forgets_its_state_is_refused():
    problem = kernels.make_problem(SMALL)
    assert stream.verify(SMALL, problem, {"numpy": stream.numpy_step(problem, 1)})["numpy"] < 1

    def forgets(x):
        return stream.numpy_step(problem, 1)(x)

    with pytest.raises(common.DisagreementError, match="tiny forgets step 1"):
        stream.verify(SMALL, problem, {"forgets": forgets})


def test_memory_that_stays_and_memory_that_comes_and_goes_are_told_apart():
    kept = []
    arrays = np.ones(1000)
    nothing = stream.allocations(lambda: None)
    keeps = stream.allocations(lambda: kept.append(bytes(100)))
    passes = stream.allocations(lambda: arrays + 1)
    assert stream.is_free(nothing, SMALL)
    assert keeps["grown_bytes"] > 100 * keeps["calls"] and not stream.is_free(keeps, SMALL)
    assert passes["grown_bytes"] < 1000 and passes["peak_bytes"] > 8000
    assert not stream.is_free(passes, SMALL)


def test_percentiles_are_those_of_single_calls():
    times = iter(range(10**9))

    def call():
        if next(times) % 10 == 0:
            sum(range(20_000))

    (got,) = stream.latencies({"call": call}, rounds=2, singles=100).values()
    assert 0 <= got["p50_us"] < 10 < got["p99_us"]


def test_the_goal_of_a_step_needs_time_ratio_and_memory(monkeypatch):
    own = {name: stream.CONTENDERS[name] for name in ("fastgru", "numpy")}
    monkeypatch.setattr(stream, "CONTENDERS", own)
    monkeypatch.setattr(stream, "is_free", lambda allocated, size: free)
    monkeypatch.setitem(stream.BUDGETS, "quick", common.Budget(0.01, 2, 1))
    monkeypatch.setitem(stream.ROUNDS, "quick", 1)

    def met(goal):
        monkeypatch.setattr(stream, "SIZES", {SMALL: goal})
        result = stream.run(quick=True, threads=1)
        text = stream.table(json.loads(json.dumps(result)))
        return result["sizes"][0]["met"], text

    free = True
    assert met(stream.Goal(us=1e6, best=0))[0] is True
    assert met(stream.Goal(us=1e-3, best=0))[0] is False
    assert met(stream.Goal(us=1e6, best=1e6))[0] is False
    own["peer"] = absent
    got, text = met(stream.Goal(us=1e6, best=0))
    assert got is None
    assert "unknown while libraries are missing" in text
    assert "| peer | missing | - | - |" in " ".join(text.split())
    free = False
    assert met(stream.Goal(us=1e6, best=0))[0] is False


def absent(problem, threads):
    raise ModuleNotFoundError("No module named 'peer'")


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="sizes: expected some of small, h256; given big"):
        stream.run(quick=True, threads=1, names=["big"])
