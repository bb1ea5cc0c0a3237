"""The cells of `bench.kernels` under pytest-benchmark, and checks of what it reports.

`pytest bench` groups the contenders by cell and question.
"""

from __future__ import annotations

import functools
import json
import time

import pytest

from bench import common, kernels

THREADS = common.default_threads()
CELLS = {cell.name: cell for cell in kernels.CELLS}
QUICK_S = 0.1


@functools.lru_cache(maxsize=1)
def verified(name):
    """Return the contenders of a cell, whose results agree."""
    problem = kernels.make_problem(CELLS[name])
    present, missing = kernels.enter(problem, THREADS)
    kernels.verify(CELLS[name], problem, present)
    return present, missing


@pytest.mark.parametrize("contender", kernels.CONTENDERS)
@pytest.mark.parametrize(
    "name, question", [(cell.name, q) for cell in kernels.CELLS for q in cell.questions]
)
def test_time_of_kernel(benchmark, name, question, contender):
    present, missing = verified(name)
    if contender in missing:
        pytest.skip(f"{contender} is missing: {missing[contender]}")
    if question not in present[contender]:
        pytest.skip(f"{contender} does no {question}")
    call = present[contender][question]
    begin = time.perf_counter()
    call()
    rounds = int(QUICK_S / (time.perf_counter() - begin))
    benchmark.group = f"{name} {question}"
    benchmark.extra_info["threads"] = THREADS
    benchmark.pedantic(call, rounds=min(max(rounds, 3), 500), warmup_rounds=1)


SMALL = kernels.Cell("small", 3, 5, 4, 7)


def corrupt(calls, question, output, change):
    """Return the calls with one output of one question changed."""

    def call():
        got = list(calls[question]())
        got[output] = change(got[output])
        return tuple(got)

    return {**calls, question: call}


@pytest.mark.parametrize("output", range(len(kernels.OUTPUTS)), ids=kernels.OUTPUTS)
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a * 1.001,
        lambda a: a * float("nan"),
        lambda a: a[..., ::-1],
        lambda a: a[:-1],
        lambda a: a.astype("f8"),
    ],
    ids=["scaled", "nan", "reversed", "short", "float64"],
)
def test_a_wrong_output_is_refused(output, change):
    problem = kernels.make_problem(SMALL)
    right = kernels.fastgru_calls(problem, 1)
    assert kernels.verify(SMALL, problem, {"fastgru": right})["fastgru"] < 1
    wrong = corrupt(right, "training", output, change)
    with pytest.raises(common.DisagreementError, match=kernels.OUTPUTS[output]):
        kernels.verify(SMALL, problem, {"fastgru": wrong})


def test_nothing_is_timed_after_a_failed_check(monkeypatch):
    right = kernels.fastgru_calls
    wrong = lambda *given: corrupt(right(*given), "inference", 0, lambda y: -y)  # noqa: E731
    monkeypatch.setitem(kernels.CONTENDERS, "fastgru", wrong)
    monkeypatch.setattr(kernels, "race", None)
    with pytest.raises(common.DisagreementError, match="odd7 inference fastgru y"):
        kernels.run(quick=True, names=["odd7"], threads=1)


def test_the_reference_answers_as_the_layer_does_in_its_own_dtype():
    problem = kernels.make_problem(SMALL)
    assert kernels.verify(SMALL, problem, {"numpy": kernels.numpy_calls(problem)})["numpy"] < 1


@pytest.mark.parametrize("peer", kernels.peers.FACTORIES)
def test_a_peer_agrees_or_is_missing_and_names_its_reason(peer):
    problem = kernels.make_problem(SMALL)
    present, missing = kernels.enter(problem, 2)
    assert (peer in present) != bool(missing.get(peer))
    if peer in present:
        assert kernels.verify(SMALL, problem, {peer: present[peer]})[peer] < 1


def absent(problem, threads):
    raise ModuleNotFoundError("No module named 'peer'")


@pytest.fixture
def one_small_cell(monkeypatch):
    monkeypatch.setattr(kernels, "CELLS", [SMALL])
    monkeypatch.setattr(kernels, "QUICK_CELLS", ["small"])
    monkeypatch.setitem(kernels.BUDGETS, "quick", common.Budget(0.01, 2, 1))
    own = {name: kernels.CONTENDERS[name] for name in ("fastgru", "numpy")}
    monkeypatch.setattr(kernels, "CONTENDERS", own)
    return own


def test_a_missing_peer_is_reported_as_missing_and_never_beaten(one_small_cell, monkeypatch):
    monkeypatch.setitem(kernels.GOALS, "training", [kernels.Goal(best=0)] * 2)
    assert kernels.run(quick=True, threads=1)["cells"][0]["goals"]["training"]["met"] is True
    one_small_cell["peer"] = absent
    result = kernels.run(quick=True, threads=1)
    assert result["missing"] == {"peer": "No module named 'peer'"}
    assert result["cells"][0]["goals"]["training"]["met"] is None
    text = kernels.table(json.loads(json.dumps(result)))
    assert " missing |" in text and "peer is missing: No module named 'peer'." in text
    assert " ?: 0x the best peer |" in text


def timings(share, **best):
    return {name: {"best_us": us, "peak_share": share} for name, us in best.items()}


@pytest.mark.parametrize(
    "goal, share, times, met",
    [
        (kernels.Goal(1.5), 0, dict(fastgru=10, numpy=90, jax=16), True),
        (kernels.Goal(1.5), 0, dict(fastgru=10, numpy=14, jax=90), False),
        (kernels.Goal(1, pytorch=2), 0, dict(fastgru=10, pytorch=21), True),
        (kernels.Goal(1, pytorch=2), 0, dict(fastgru=10, pytorch=19), False),
        (kernels.Goal(1, peak=0.9), 0.91, dict(fastgru=10, numpy=11), True),
        (kernels.Goal(1, peak=0.9), 0.89, dict(fastgru=10, numpy=11), False),
    ],
)
def test_a_goal_is_met_when_all_of_it_is(goal, share, times, met):
    measured = timings(share, **times)
    assert goal.met(measured, missing={}) is met
    assert goal.met(measured, missing={"peer": "why"}) is (None if met else False)


def test_cells_have_the_goals_of_what_limits_them():
    assert {cell.name for cell in kernels.CELLS} > set(kernels.FMA_BOUND)
    assert {cell.name for cell in kernels.CELLS} > set(kernels.QUICK_CELLS)
    assert kernels.goal("b32_big", "training").peak == 0.85
    assert kernels.goal("b1_big", "training").peak == 0
    assert kernels.goal("b1_big", "training").pytorch == 2


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="cells: expected some of stream, .*; given b2"):
        kernels.run(quick=True, names=["b2"], threads=1)
