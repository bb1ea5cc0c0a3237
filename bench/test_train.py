"""The tasks of `bench.train` under pytest-benchmark, and checks of what it reports."""

from __future__ import annotations

import functools
import json

import pytest

from bench import common, kernels, train

THREADS = common.default_threads()
TASKS = {task.name: task for task in train.TASKS}
SMALL = train.Task("small", "a small one", 5, 6, 11, 3, (4, 4), False, 1, kernels.Goal(best=0))
LANGUAGE = SMALL._replace(name="language", units=(7,), classes=11)
BOTH_WAYS = SMALL._replace(name="both ways", bidirectional=True)


@functools.lru_cache(maxsize=1)
def verified(name):
    """Return the contenders of a task, whose losses agree."""
    present, missing = train.enter(TASKS[name], THREADS)
    train.verify(TASKS[name], present)
    return present, missing


@pytest.mark.parametrize("contender", train.CONTENDERS)
@pytest.mark.parametrize("name", TASKS)
def test_time_of_a_training_step(benchmark, name, contender):
    present, missing = verified(name)
    if contender in missing:
        pytest.skip(f"{contender} is missing: {missing[contender]}")
    x, y = train.batches(TASKS[name])[0]
    benchmark.group = f"training step, {name}"
    benchmark.pedantic(present[contender], (x, y), rounds=3)


@pytest.mark.parametrize("task", [SMALL, LANGUAGE, BOTH_WAYS], ids=lambda task: task.name)
def test_all_contenders_report_the_same_losses(task):
    present, _ = train.enter(task, 1)
    losses = train.verify(task, present)
    assert losses.keys() == present.keys()
    assert all(len(series) == train.STEPS for series in losses.values())


def test_losses_that_differ_or_do_not_fall_are_refused():
    def steps(change):
        present, _ = train.enter(SMALL, 1)
        right = present["fastgru"]
        return {"fastgru": right, "peer": change}

    falling = train.verify(SMALL, {"fastgru": train.enter(SMALL, 1)[0]["fastgru"]})["fastgru"]
    same = iter(falling)
    train.verify(SMALL, steps(lambda x, y: next(same)))
    off = iter([*falling[:2], falling[2] * 1.002])
    with pytest.raises(common.DisagreementError, match="small: loss 2 of peer is"):
        train.verify(SMALL, steps(lambda x, y: next(off)))
    with pytest.raises(common.DisagreementError, match="loss 0 of peer is nan"):
        train.verify(SMALL, steps(lambda x, y: float("nan")))
    with pytest.raises(common.DisagreementError, match="fall too little"):
        train.verify(SMALL, {"fastgru": lambda x, y: 1.0})


def test_operations_are_counted_forward_and_twice_backward():
    # GRUs: 5 x 6 positions, (3 + 4) and (4 + 4) rows, 12 columns; dense: 5 rows, 4 inputs.
    assert SMALL.flops() == 3 * (2 * 30 * 12 * (7 + 8) + 2 * 5 * 4)
    # Twice as many GRUs; the second ones and the dense layer have 8 inputs.
    assert BOTH_WAYS.flops() == 3 * (2 * 2 * 30 * 12 * (7 + 12) + 2 * 5 * 8)
    # A GRU of 7, then 30 rows to 11 classes.
    assert LANGUAGE.flops() == 3 * (2 * 30 * 21 * 10 + 2 * 30 * 7 * 11)


def test_the_time_of_fit_is_split_into_kernels_and_python():
    before = {name: getattr(train.kernels, name) for name in train.kernels.__all__}
    fit = train.fit_overhead(rounds=2, batches_of_a_round=20)
    assert {name: getattr(train.kernels, name) for name in before} == before
    # Embedding, two GRUs, dense, loss and optimizer, forward and backward.
    assert fit["calls"] >= 10
    assert fit["kernels_us"] > 10
    assert fit["overhead_us"] == pytest.approx(fit["batch_us"] - fit["kernels_us"], abs=0.02)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(train, "TASKS", [SMALL, BOTH_WAYS])
    monkeypatch.setattr(train, "QUICK_TASKS", ["small", "both ways"])
    monkeypatch.setitem(train.BUDGETS, "quick", common.Budget(0.01, 2, 1))
    monkeypatch.setattr(train, "fit_overhead", lambda *given: FIT)
    own = {"fastgru": train.CONTENDERS["fastgru"]}
    monkeypatch.setattr(train, "CONTENDERS", own)
    return own


FIT = {"batch_us": 100.0, "kernels_us": 60.0, "overhead_us": 40.0, "calls": 20.0, "goal_us": 50}


def absent(task, threads, weights):
    raise ModuleNotFoundError("No module named 'peer'")


def test_a_missing_peer_is_never_a_win(quick):
    assert train.run(quick=True, threads=1)["tasks"][0]["met"] is True
    quick["peer"] = absent
    result = train.run(quick=True, threads=1)
    assert [task["met"] for task in result["tasks"]] == [None, None]
    text = train.table(json.loads(json.dumps(result)))
    assert "| missing |" in " ".join(text.split())
    assert "peer is missing: No module named 'peer'." in text
    assert "40 us of Python" in text


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="tasks: expected some of reviews, .*; given speech"):
        train.run(quick=True, threads=1, names=["speech"])
