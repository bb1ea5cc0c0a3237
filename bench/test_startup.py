"""The programs whose start is measured, and what their measurement refuses."""

from __future__ import annotations

import pytest

from bench import startup
from bench.common import DisagreementError
from fastgru.files import cache_directory

COLD, WARM = startup.QUESTIONS[1], startup.QUESTIONS[3]


@pytest.mark.parametrize("program", ["inference", "training"])
def test_a_program_gives_the_right_result_and_another_is_refused(program):
    sample = startup.measure("fastgru", program, 1, cache_directory())
    assert 0 < sample.import_s < sample.total_s
    startup.verify(program, sample)
    if program == "inference":
        wrong = sample._replace(result=sample.result[::-1])
    else:
        wrong = sample._replace(result=sample.result * 1.001)
    with pytest.raises(DisagreementError, match=f"first {program}: off by"):
        startup.verify(program, wrong)


@pytest.mark.parametrize(
    ("question", "grows", "message"),
    [
        (COLD, True, None),
        (COLD, False, "an empty cache did not grow"),
        (WARM, False, None),
        (WARM, True, "a full cache grew"),
    ],
)
def test_a_cache_that_is_not_as_the_question_says_is_refused(
    question, grows, message, monkeypatch, tmp_path
):
    cache = tmp_path / "cache"

    def measure(library, program, threads, folder):
        if grows:
            folder.mkdir()
            (folder / "kernel.nbc").write_text("")
        return startup.Sample(0.1, 0.5, None)

    monkeypatch.setattr(startup, "measure", measure)
    monkeypatch.setattr(startup, "verify", lambda *arguments: None)
    if message is None:
        assert startup.seconds(question, "fastgru", 1, cache) == 0.5
    else:
        with pytest.raises(DisagreementError, match=message):
            startup.seconds(question, "fastgru", 1, cache)


def test_the_table_tells_which_goals_are_met(monkeypatch):
    times = {"import": 0.1, "first inference": 0.9}
    monkeypatch.setattr(startup, "measure", lambda *arguments: None)
    monkeypatch.setattr(startup, "seconds", lambda question, *rest: times[question.name])
    result = startup.run(quick=True, threads=1, names=times)
    assert [row["met"] for row in result["rows"]] == [True, False]
    lines = startup.table(result).splitlines()
    assert " yes |" in lines[2] and " no |" in lines[3]


def test_an_unknown_question_is_refused():
    with pytest.raises(ValueError, match="names: expected some of import, .*; given second"):
        startup.run(quick=True, threads=1, names=["second"])
