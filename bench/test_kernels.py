"""The cells of `bench.kernels` under pytest-benchmark, and checks of the harness itself.

`pytest bench` groups the contenders by cell and question. NumPy gets as many threads as fastgru
when this file is collected before anything imports NumPy, as it is when it runs alone.
"""

from __future__ import annotations

import functools
import sys
import time

import pytest

from bench import common, report

THREADS = common.default_threads()
if "numpy" not in sys.modules:
    common.prepare_environment(THREADS)

from bench import kernels  # noqa: E402  NumPy must not be imported before

CELLS = {cell.name: cell for cell in kernels.CELLS}
QUICK_S = 0.1


@functools.lru_cache(maxsize=1)
def verified(name):
    """Return the contenders of a cell, whose results agree."""
    kernels.set_num_threads(THREADS)
    problem = kernels.make_problem(CELLS[name])
    present, missing = kernels.enter(problem)
    kernels.verify(CELLS[name], problem, present)
    return present, missing


@pytest.mark.parametrize("contender", kernels.CONTENDERS)
@pytest.mark.parametrize("question", kernels.QUESTIONS)
@pytest.mark.parametrize("name", CELLS)
def test_time_of_kernel(benchmark, name, question, contender):
    present, missing = verified(name)
    if contender in missing:
        pytest.skip(f"{contender} is missing: {missing[contender]}")
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
    right = kernels.fastgru_calls(problem)
    assert kernels.verify(SMALL, problem, {"fastgru": right})["fastgru"] < 1
    wrong = corrupt(right, "training", output, change)
    with pytest.raises(common.DisagreementError, match=kernels.OUTPUTS[output]):
        kernels.verify(SMALL, problem, {"fastgru": wrong})


def test_nothing_is_timed_after_a_failed_check(monkeypatch):
    right = kernels.fastgru_calls
    wrong = lambda problem: corrupt(right(problem), "inference", 0, lambda y: -y)  # noqa: E731
    monkeypatch.setitem(kernels.CONTENDERS, "fastgru", wrong)
    monkeypatch.setattr(kernels, "race", None)
    with pytest.raises(common.DisagreementError, match="odd inference fastgru y"):
        kernels.run(quick=True, names=["odd"], threads=1)


def test_a_missing_peer_is_reported_as_missing(monkeypatch):
    def absent(problem):
        raise ModuleNotFoundError("No module named 'peer'")

    monkeypatch.setitem(kernels.CONTENDERS, "peer", absent)
    monkeypatch.setattr(kernels, "CELLS", [SMALL])
    monkeypatch.setitem(kernels.SECONDS, "quick", 0.01)
    result = kernels.run(quick=True, threads=1)
    assert result["missing"] == {"peer": "No module named 'peer'"}
    text = kernels.table(result)
    assert " missing |" in text and "peer is missing: No module named 'peer'." in text
    assert kernels.ratio(result["cells"][0]["inference"]) > 0


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="cells: expected some of b1_small, .*; given b2"):
        kernels.run(quick=True, names=["b2"], threads=1)


def test_contenders_take_turns():
    calls = []
    timings = common.race({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.01)
    switches = sum(one != two for one, two in zip(calls, calls[1:], strict=False))
    assert switches >= common.LEAST_ROUNDS
    for timing in timings.values():
        assert timing.rounds >= common.LEAST_ROUNDS
        assert timing.best_us <= timing.median_us


def test_report_writes_between_its_markers_only(tmp_path):
    text = "a\n<!-- bench:kernels -->\nold\n<!-- /bench -->\nz\n"
    new = report.replace_block(text, "kernels", "new")
    assert new == "a\n<!-- bench:kernels -->\nnew\n<!-- /bench -->\nz\n"
    assert report.replace_block(new, "kernels", "new") == new
    for broken in ("", "<!-- bench:kernels -->", "<!-- /bench --><!-- bench:kernels -->"):
        with pytest.raises(ValueError, match="expected the markers"):
            report.replace_block(broken, "kernels", "new")
