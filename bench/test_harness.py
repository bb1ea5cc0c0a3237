"""What all benchmarks share: taking turns, the command line, the README's blocks."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from bench import __main__ as cli
from bench import common, registry, report


def test_contenders_take_turns():
    calls = []
    contenders = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    budget = common.Budget(0.01)
    timings = common.race(contenders, budget)
    switches = sum(one != two for one, two in zip(calls, calls[1:], strict=False))
    assert switches >= budget.least_rounds
    for timing in timings.values():
        assert timing.rounds >= budget.least_rounds
        assert timing.best_us <= timing.median_us


def test_a_contender_waits_until_the_threads_of_the_one_before_rest(monkeypatch):
    monkeypatch.setattr(common, "LONGEST_PAUSE_S", 20.0)
    end = time.perf_counter() + 0.3

    def spin():
        while time.perf_counter() < end:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    assert common.rest()
    assert not thread.is_alive()


def test_a_thread_that_never_rests_is_noticed(monkeypatch):
    monkeypatch.setattr(common, "LONGEST_PAUSE_S", 0.05)
    over = threading.Event()

    def spin():
        while not over.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    assert not common.rest()
    over.set()
    thread.join()


# ---- the registry


@pytest.mark.parametrize("name", registry.BENCHES)
def test_a_benchmark_has_what_the_registry_promises(name):
    bench = registry.load(name)
    options = inspect.signature(bench.run).parameters
    assert list(options) == ["quick", "threads", "names"]
    assert {option.kind for option in options.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert options["names"].default is None
    assert list(inspect.signature(bench.table).parameters) == ["result"]
    if hasattr(bench, "plot"):
        assert list(inspect.signature(bench.plot).parameters) == ["result", "path"]


@pytest.fixture
def toy(monkeypatch):
    """A registered benchmark, which the others do not disturb."""
    module = types.ModuleType("toy")
    module.run = lambda *, quick, threads, names=None: {
        "bench": "toy", "quick": quick, "threads": threads, "names": names,
    }  # fmt: skip
    module.table = lambda result: f"quick is {result['quick']}"
    monkeypatch.setitem(sys.modules, "toy", module)
    monkeypatch.setattr(cli, "prepare_environment", lambda threads: None)
    for name in list(registry.BENCHES):
        monkeypatch.delitem(registry.BENCHES, name)
    monkeypatch.setitem(registry.BENCHES, "toy", "toy")
    return module


# ---- the command line


def test_one_name_is_measured_here_and_written(toy, tmp_path, capsys):
    command = ["toy", "--quick", "--threads", "3", "--cells", "a,b", "--results", str(tmp_path)]
    assert cli.main(command) == 0
    assert json.loads((tmp_path / "toy.json").read_text()) == {
        "bench": "toy", "quick": True, "threads": 3, "names": ["a", "b"],
    }  # fmt: skip
    assert "quick is True" in capsys.readouterr().out


def test_a_disagreement_is_an_error_and_nothing_is_written(toy, tmp_path, capsys):
    def run(**options):
        raise common.DisagreementError("y: off by 1")

    toy.run = run
    assert cli.main(["toy", "--results", str(tmp_path)]) == 1
    assert "bench toy: y: off by 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_several_names_have_a_process_each_and_one_failure_stops_no_other(
    toy, monkeypatch, tmp_path
):
    monkeypatch.setitem(registry.BENCHES, "other", "other")
    commands = []

    def run(command, check):
        commands.append(command[3:])
        return types.SimpleNamespace(returncode=len(commands) == 1)

    monkeypatch.setattr(subprocess, "run", run)
    rest = ["--threads", "2", "--results", str(tmp_path)]
    assert cli.main([*rest, "--quick"]) == 1
    assert commands == [["toy", *rest, "--quick"], ["other", *rest, "--quick"]]
    assert cli.main(["other", "toy", *rest]) == 0
    assert commands[2:] == [["other", *rest], ["toy", *rest]]


@pytest.mark.parametrize(
    "command, message",
    [
        (["nothing"], "NAME: expected some of toy, or report alone; given nothing"),
        (["toy", "report"], "NAME: expected some of toy, or report alone; given report"),
        (["toy", "toy", "--cells", "a"], "--cells: expected one NAME"),
        (["toy", "--threads", "0"], "--threads: expected a positive number"),
    ],
)
def test_a_wrong_command_line_is_refused(toy, capsys, command, message):
    with pytest.raises(SystemExit):
        cli.main(command)
    assert message in capsys.readouterr().err


# ---- the report


def test_report_writes_between_its_markers_only(tmp_path):
    text = "a\n<!-- bench:kernels -->\nold\n<!-- /bench -->\nz\n"
    new = report.replace_block(text, "kernels", "new")
    assert new == "a\n<!-- bench:kernels -->\nnew\n<!-- /bench -->\nz\n"
    assert report.replace_block(new, "kernels", "new") == new
    for broken in ("", "<!-- bench:kernels -->", "<!-- /bench --><!-- bench:kernels -->"):
        with pytest.raises(ValueError, match="expected the markers"):
            report.replace_block(broken, "kernels", "new")


def test_the_readme_has_a_place_for_every_benchmark():
    readme = Path(common.__file__).parent.parent / "README.md"
    for name in registry.BENCHES:
        assert "|block|" in report.replace_block(readme.read_text(), name, "|block|")


def written(folder, text):
    """Return the paths of a result of `toy` and of a README."""
    common.write_json({"bench": "toy", "quick": False}, folder / "results" / "toy.json")
    (folder / "README.md").write_text(text)
    return ["--results", str(folder / "results"), "--readme", str(folder / "README.md")]


def test_report_writes_tables_and_plots(toy, tmp_path):
    toy.plot = lambda result, path: path.write_text("a picture")
    paths = written(tmp_path, "a\n<!-- bench:toy -->\n<!-- /bench -->\nz\n")
    assert cli.main(["report", *paths]) == 0
    assert (tmp_path / "results" / "toy.png").read_text() == "a picture"
    assert (tmp_path / "README.md").read_text() == (
        "a\n<!-- bench:toy -->\nquick is False\n\n![toy](results/toy.png)\n<!-- /bench -->\nz\n"
    )


def test_report_writes_what_applications_reach(toy, tmp_path, capsys):
    text = "<!-- bench:toy -->\n<!-- /bench -->\n<!-- bench:applications -->\n<!-- /bench -->\n"
    paths = written(tmp_path, text)
    row = {
        "application": "classify", "data": "reviews", "parameters": 12345, "seconds": 61.23,
        "quality": "0.80", "reference": "0.79, theirs",
    }  # fmt: skip
    folder = tmp_path / "results" / "applications"
    common.write_json([row, row | {"data": "more"}], folder / "one.json")
    noted = row | {"application": "translate", "note": "slowly"}
    common.write_json(noted, folder / "two.json")
    assert cli.main(["report", *paths]) == 0
    table = (tmp_path / "README.md").read_text().splitlines()[4:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:-3]]
    assert [line[:2] for line in cells[1:]] == [
        ["classify", "reviews"], ["classify", "more"], ["translate", "reviews"],
    ]  # fmt: skip
    assert cells[1][2:] == ["12,345", "61.2", "0.80", "0.79, theirs"]
    assert table[-2] == "translate, reviews: slowly"
    common.write_json({"application": "x"}, folder / "one.json")
    assert cli.main(["report", *paths]) == 1
    assert "one.json: expected the keys data, parameters" in capsys.readouterr().err


def test_report_changes_nothing_where_a_marker_or_matplotlib_is_missing(toy, tmp_path, capsys):
    assert cli.main(["report", *written(tmp_path, "no marker")]) == 1
    assert (tmp_path / "README.md").read_text() == "no marker"
    assert "has not changed" in capsys.readouterr().err

    def plot(result, path):
        raise ModuleNotFoundError("No module named 'matplotlib'")

    toy.plot = plot
    text = "<!-- bench:toy -->\n<!-- /bench -->"
    assert cli.main(["report", *written(tmp_path, text)]) == 1
    assert (tmp_path / "README.md").read_text() == text


def test_numbers_have_three_digits():
    got = [report.digits(value) for value in (0.001234, 1.5, 61.23, 999.4, 1264, 129_499)]
    assert got == ["0.00123", "1.5", "61.2", "999", "1,260", "129,000"]
