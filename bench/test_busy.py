"""The spinner, and the goals of a busy machine."""

from __future__ import annotations

import re
import time

import pytest

from bench import busy, kernels

SMALL = kernels.Cell("small", 3, 5, 4, 7)


def cpu_ticks(pid):
    """Return the CPU time a process has used, in ticks of the system."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_spinner_spins_until_the_block_is_left():
    with pytest.raises(KeyError), busy.spinner() as process:
        time.sleep(0.5)
        assert cpu_ticks(process.pid) > 0
        assert process.poll() is None
        raise KeyError
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("B", "fastgru", "peers", "met"),
    [
        (8, 2.5, {"jax": 1.0}, True),
        (8, 2.6, {"jax": 3.0}, False),
        (8, 2.4, {}, True),
        (1, 1.3, {"jax": 1.4, "pytorch": 9}, True),
        (1, 1.5, {"jax": 1.4, "pytorch": 9}, False),
        (1, 1.0, {}, None),
    ],
)
def test_large_batches_have_a_goal_and_small_ones_the_peers(B, fastgru, peers, met):
    slowdowns = {name: {"slowdown": s} for name, s in {"fastgru": fastgru, **peers}.items()}
    assert busy.is_met(B, slowdowns) is met


def test_fastgru_beside_the_spinner_is_compared_with_peers_at_rest():
    def row(own, *peers):
        timings = {"fastgru": {"alone_us": 1.0, "beside_us": own}}
        return {"contenders": timings | {str(i): {"alone_us": p} for i, p in enumerate(peers)}}

    text = busy._beside_peers([row(2.0, 4.0, 8.0), row(3.0, 9.0, 5.0), row(1.0)])
    assert text.startswith("Beside the spinner fastgru takes 0.50 to 0.60 of the time")
    assert busy._beside_peers([row(1.0)]) == ""


def test_a_missing_peer_is_no_win(monkeypatch):
    def absent(problem, threads):
        raise ModuleNotFoundError("No module named 'peer'")

    monkeypatch.setattr(busy, "CELLS", [SMALL])
    monkeypatch.setattr(busy, "CONTENDERS", ("fastgru", "jax"))
    monkeypatch.setitem(kernels.CONTENDERS, "jax", absent)
    monkeypatch.setitem(busy.BURST_S, "quick", 0.01)
    result = busy.run(quick=True, threads=1, names=["small"])
    assert [row["question"] for row in result["rows"]] == ["inference", "training"]
    for row in result["rows"]:
        assert row["met"] is None
        timing = row["contenders"]["fastgru"]
        assert timing["slowdown"] == pytest.approx(timing["beside_us"] / timing["alone_us"], 0.01)
    text = busy.table(result)
    assert re.search(r"\| missing \| +[0-9.]+ \| below all peers \| unknown \|", text)
    assert all(row["one_thread"] > 0 for row in result["rows"])
    assert "JAX is missing: No module named 'peer'." in text
