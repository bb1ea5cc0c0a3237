"""How much slower everything gets while another process keeps one core busy.

A library that makes all threads wait for the slowest, spinning, can lose far more than the core
that is taken. Every contender runs alone and beside the spinner, in turns; a burst lasts many of
the scheduler's time slices, and its average counts, since a single call may fall between them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bench import kernels
from bench.common import cpus_busy, machine, rest
from bench.kernels import Cell
from bench.report import command_line, digits, label, machine_line, markdown, missing_line
from fastgru import set_num_threads

CELLS = (
    Cell("b1_small", 1, 100, 32, 64),
    Cell("b1_mid", 1, 100, 128, 256),
    Cell("b8", 8, 100, 64, 128),
    Cell("b32_mid", 32, 100, 128, 256),
)
QUICK_CELLS = ("b1_mid", "b8")
CONTENDERS = ("fastgru", "pytorch", "jax")
BURST_S = {"quick": 0.15, "full": 0.5}
ROUNDS = {"quick": 2, "full": 7}
# From this batch size on a goal of its own; below, no peer may be slowed down less.
LARGE_BATCH, LARGE_BATCH_GOAL = 8, 2.5

# It ends by itself if this process is killed.
_SPINNER = """
import os
parent = os.getppid()
print("spinning", flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def spinner() -> Iterator[subprocess.Popen[bytes]]:
    """Keep one core busy inside the block."""
    process = subprocess.Popen([sys.executable, "-c", _SPINNER], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def burst(call: Callable[[], Any], seconds: float) -> float:
    """Return the average seconds of a call that is repeated for a while."""
    rest()
    call()
    calls = 0
    begin = time.perf_counter()
    while (now := time.perf_counter()) < begin + seconds or not calls:
        call()
        calls += 1
    return (now - begin) / calls


def slowdowns(
    calls: dict[str, Callable[[], Any]], rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Return each contender's median times of a call, alone and beside the spinner, and ratio."""
    alone: dict[str, list[float]] = {name: [] for name in calls}
    beside: dict[str, list[float]] = {name: [] for name in calls}
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in calls.items():
                alone[name].append(burst(call, seconds))
            with spinner():
                for name, call in calls.items():
                    beside[name].append(burst(call, seconds))
    finally:
        gc.enable()
    results = {}
    for name in calls:
        times = statistics.median(alone[name]), statistics.median(beside[name])
        results[name] = {
            "alone_us": round(times[0] * 1e6, 2),
            "beside_us": round(times[1] * 1e6, 2),
            "slowdown": round(times[1] / times[0], 3),
        }
    return results


def on_one_thread(call: Callable[[], Any], rounds: int, seconds: float, threads: int) -> float:
    """Return the median microseconds of a call of fastgru that uses one thread only."""
    set_num_threads(1)
    try:
        return statistics.median(burst(call, seconds) for _ in range(rounds)) * 1e6
    finally:
        set_num_threads(threads)


def is_met(B: int, slowdown: dict[str, dict[str, float]]) -> bool | None:
    """Tell whether the goal for a batch size is met; None if it needs a peer that is missing."""
    own = slowdown["fastgru"]["slowdown"]
    if B >= LARGE_BATCH:
        return own <= LARGE_BATCH_GOAL
    peers = [timing["slowdown"] for name, timing in slowdown.items() if name != "fastgru"]
    return own < min(peers) if peers else None


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify, then measure the cells; return what JSON can hold."""
    known = {cell.name: cell for cell in CELLS}
    names = list(QUICK_CELLS if quick else known) if names is None else list(names)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"names: expected some of {', '.join(known)}; given {', '.join(unknown)}")
    mode = "quick" if quick else "full"
    busy = cpus_busy()
    missing: dict[str, str] = {}
    rows = []
    for name in names:
        cell = known[name]
        problem = kernels.make_problem(cell)
        present = {}
        for contender in CONTENDERS:
            try:
                present[contender] = kernels.CONTENDERS[contender](problem, threads)
            except ImportError as error:
                missing[contender] = str(error)
        kernels.verify(cell, problem, present)
        for question in kernels.QUESTIONS:
            calls = {contender: calls[question] for contender, calls in present.items()}
            measured = slowdowns(calls, ROUNDS[mode], BURST_S[mode])
            single = on_one_thread(calls["fastgru"], ROUNDS[mode], BURST_S[mode], threads)
            rows.append(
                {
                    **cell._asdict(),
                    "question": question,
                    "contenders": measured,
                    "one_thread": round(single / measured["fastgru"]["alone_us"], 3),
                    "met": is_met(cell.B, measured),
                }
            )
    return {
        "bench": "busy",
        "machine": machine(threads),
        "quick": quick,
        "cpus": os.cpu_count(),
        "cpus_busy_before": busy,
        "contenders": list(CONTENDERS),
        "missing": missing,
        "rows": rows,
    }


def _beside_peers(rows: list[dict[str, Any]]) -> str:
    """Compare fastgru beside the spinner with peers that have the machine for themselves."""
    shares = [
        row["contenders"]["fastgru"]["beside_us"] / min(peers)
        for row in rows
        if (peers := [t["alone_us"] for n, t in row["contenders"].items() if n != "fastgru"])
    ]
    if not shares:
        return ""
    return (
        f"Beside the spinner fastgru takes {min(shares):.2f} to {max(shares):.2f} of the time that "
        "the fastest of the others takes without it."
    )


def table(result: dict[str, Any]) -> str:
    """Render how many times longer a call takes beside the spinner."""
    header = ["B, T, I, H", "question", *map(label, result["contenders"])]
    header += ["fastgru with one thread", "goal", "met"]
    rows = []
    for row in result["rows"]:
        cells = [", ".join(str(row[d]) for d in "BTIH"), row["question"]]
        for name in result["contenders"]:
            timing = row["contenders"].get(name)
            cells.append(digits(timing["slowdown"]) if timing else "missing")
        cells.append(digits(row["one_thread"]))
        large = row["B"] >= LARGE_BATCH
        cells.append(f"at most {LARGE_BATCH_GOAL:g}" if large else "below all peers")
        cells.append({True: "yes", False: "no", None: "unknown"}[row["met"]])
        rows.append(cells)
    notes = [
        "How many times longer a call takes while another process spins on one core: median of "
        "averages over bursts, in turns with bursts without it. With one thread nobody waits for "
        "the core that is taken: what gains so much by a second one cannot lose less with it.",
        _beside_peers(result["rows"]),
        machine_line(result),
        missing_line(result),
        command_line(result),
    ]
    return "\n".join([markdown(header, rows), "", *filter(None, notes)])
