"""How time grows with batch, steps, inputs, units and threads, and whether it ever jumps.

Around the base cell one size varies at a time, past multiples of the tile's six rows, of the vector
and of the panel, and past what the caches hold. Between neighbours time may grow as the work does,
or as the work does that is rounded up to whole tiles and panels; where it grows more, or where a
larger size takes less, there is a cliff, and the result lists it.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bench import kernels
from bench.common import machine
from bench.kernels import Cell
from bench.report import command_line, digits, machine_line, markdown
from fastgru import set_num_threads

BASE = Cell("base", 12, 50, 64, 128)
SWEEPS: dict[str, tuple[int, ...]] = {
    "B": (
        *range(1, 9), 11, 12, 13, 14, 17, 18, 19, 23, 24, 25, 31, 32, 33, 36, 37, 47, 48, 49, 64,
        72, 73, 95, 96, 97, 98, 128, 192, 193, 256,
    ),
    "T": (
        *range(1, 9), 11, 12, 13, 15, 16, 17, 24, 25, 31, 32, 33, 50, 63, 64, 65, 100, 127, 128,
        129, 200, 400, 800,
    ),
    "I": (
        1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 96, 127, 128, 129,
        192, 255, 256, 257, 384, 511, 512, 513,
    ),
    "H": (
        4, 8, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 85, 86, 95, 96, 97, 127, 128, 129,
        160, 191, 192, 193, 255, 256, 257, 320, 383, 384, 385, 448, 511, 512, 513, 640, 768,
    ),
}  # fmt: skip
QUICK_SWEEPS: dict[str, tuple[int, ...]] = {
    "B": (1, 2, 3, 4, 6, 7, 12, 13, 24, 25, 48, 49),
    "T": (1, 2, 4, 16, 17, 50, 100),
    "I": (1, 8, 16, 17, 32, 33, 64, 128),
    "H": (16, 17, 32, 33, 64, 65, 128, 129, 256),
}
AXES = (*SWEEPS, "threads")
ROUNDS = {"quick": 3, "full": 15}
SAMPLE_S = 0.003
TILE_ROWS = 6
# By how much time may grow beyond what the work does, or be longer than at the next larger size.
CLIFF = 1.35


class Point(NamedTuple):
    """One size of one axis."""

    axis: str
    size: int
    cell: Cell
    threads: int

    def flops(self, question: str) -> int:
        """Return the operations of the products."""
        return self.cell.flops(question)

    def padded_flops(self, question: str) -> int:
        """Return them with rows rounded up to tiles for each thread, and columns to panels."""
        from fastgru.kernels.gemm import padded

        _, B, T, I, H = self.cell
        workers = min(self.threads, B)
        rows = workers * math.ceil(math.ceil(B / workers) / TILE_ROWS) * TILE_ROWS
        # Three gates together make a row of columns.
        units = math.ceil(padded(3 * H, _float32()) / 3)
        return Cell("", rows, T, I, units).flops(question)

    def allowed(self, other: Point, question: str) -> float:
        """Return how many times longer a larger size may take than this one."""
        if self.axis == "threads":
            return 1.0
        exact = other.flops(question) / self.flops(question)
        return max(exact, other.padded_flops(question) / self.padded_flops(question))


def _float32() -> Any:
    import numpy as np

    return np.dtype(np.float32)


def points(axes: Iterable[str], quick: bool, threads: int) -> list[Point]:
    """Return all sizes of some axes."""
    made = []
    for axis in axes:
        if axis == "threads":
            made += [Point(axis, n, BASE, n) for n in range(1, threads + 1)]
            continue
        sizes = (QUICK_SWEEPS if quick else SWEEPS)[axis]
        made += [Point(axis, n, BASE._replace(name=f"{axis}{n}", **{axis: n}), threads)
                 for n in sizes]  # fmt: skip
    return made


def measure(calls: list[tuple[int, Callable[[], Any]]], rounds: int) -> list[dict[str, float]]:
    """Time (threads, call) pairs in turns, in another random order each round."""
    samples: list[list[float]] = [[] for _ in calls]
    order = list(range(len(calls)))
    gc.disable()
    try:
        for _ in range(rounds):
            random.shuffle(order)
            for i in order:
                threads, call = calls[i]
                set_num_threads(threads)
                call()
                begin = now = time.perf_counter()
                while now < begin + SAMPLE_S:
                    call()
                    now, before = time.perf_counter(), now
                    samples[i].append(now - before)
    finally:
        gc.enable()
    return [
        {
            "best_us": round(min(taken) * 1e6, 3),
            "median_us": round(statistics.median(taken) * 1e6, 3),
        }
        for taken in samples
    ]


def cliffs(of_axis: list[tuple[Point, float]], question: str) -> list[dict[str, Any]]:
    """Return where time jumps between neighbours, given the points in order with their times."""
    found = []
    for (one, time_one), (two, time_two) in zip(of_axis, of_axis[1:], strict=False):
        growth = time_two / time_one
        # With more threads the same work must not take longer; any gain is welcome.
        excess = growth / one.allowed(two, question)
        fall = 1 / growth if one.axis != "threads" else 1.0
        if max(excess, fall) > CLIFF:
            found.append(
                {
                    "axis": one.axis,
                    "question": question,
                    "from": one.size,
                    "to": two.size,
                    "growth": round(growth, 3),
                    "allowed": round(one.allowed(two, question), 3),
                }
            )
    return found


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify and time all axes, or those named; return what JSON can hold."""
    names = list(AXES) if names is None else list(names)
    if unknown := [name for name in names if name not in AXES]:
        raise ValueError(f"names: expected some of {', '.join(AXES)}; given {', '.join(unknown)}")
    chosen = points(names, quick, threads)
    calls = []
    for point in chosen:
        problem = kernels.make_problem(point.cell)
        present = {"fastgru": kernels.fastgru_calls(problem, point.threads)}
        kernels.verify(point.cell, problem, present)
        calls.append(present["fastgru"])
    rows = []
    found = []
    for question in kernels.QUESTIONS:
        timings = measure(
            [(point.threads, call[question]) for point, call in zip(chosen, calls, strict=True)],
            ROUNDS["quick" if quick else "full"],
        )
        for point, timing in zip(chosen, timings, strict=True):
            rows.append(
                {
                    "axis": point.axis,
                    "size": point.size,
                    "question": question,
                    **timing,
                    "ps_per_flop": round(timing["best_us"] * 1e6 / point.flops(question), 3),
                }
            )
        for axis in names:
            of_axis = [
                (point, timing["best_us"])
                for point, timing in zip(chosen, timings, strict=True)
                if point.axis == axis
            ]
            found += cliffs(of_axis, question)
    set_num_threads(threads)
    return {
        "bench": "scaling",
        "machine": machine(threads),
        "quick": quick,
        "base": BASE._asdict(),
        "axes": names,
        "rows": rows,
        "cliffs": found,
    }


def _sizes(result: dict[str, Any], axis: str, question: str) -> list[dict[str, Any]]:
    rows = result["rows"]
    return [row for row in rows if row["axis"] == axis and row["question"] == question]


def table(result: dict[str, Any]) -> str:
    """Render what a flop costs at both ends of each axis and at its best, and all cliffs."""
    header = ["axis", "question", "sizes", "ps/flop first", "last", "best", "at", "cliffs"]
    rows = []
    for axis in result["axes"]:
        for question in kernels.QUESTIONS:
            sizes = _sizes(result, axis, question)
            best = min(sizes, key=lambda row: row["ps_per_flop"])
            jumps = [c for c in result["cliffs"] if (c["axis"], c["question"]) == (axis, question)]
            rows.append(
                [axis, question, f"{sizes[0]['size']} to {sizes[-1]['size']}"]
                + [digits(row["ps_per_flop"]) for row in (sizes[0], sizes[-1], best)]
                + [str(best["size"]), str(len(jumps))]
            )
    sizes = ", ".join(f"{d} {result['base'][d]}" for d in "BTIH")
    notes = [
        f"One size varies at a time, around {sizes}; best times. A cliff is a time that grows "
        f"{CLIFF:g} times more than the work, rounded up to whole tiles and panels, or that is "
        f"{CLIFF:g} times longer than at the next larger size."
    ]
    for cliff in result["cliffs"]:
        notes.append(
            f"Cliff: {cliff['question']}, {cliff['axis']} {cliff['from']} to {cliff['to']}: time "
            f"x {cliff['growth']:g}, work x {cliff['allowed']:g}."
        )
    notes += [machine_line(result), command_line(result)]
    return "\n".join([markdown(header, rows), "", *notes])


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw what a flop costs over each axis, cliffs marked, as PNG."""
    from matplotlib.figure import Figure

    axes = result["axes"]
    figure = Figure(figsize=(4 * len(axes), 4), layout="constrained")
    for axis, panel in zip(axes, figure.subplots(1, len(axes), sharey=True, squeeze=False)[0],
                           strict=True):  # fmt: skip
        for question, color in zip(kernels.QUESTIONS, ("tab:blue", "tab:orange"), strict=True):
            costs = {row["size"]: row["ps_per_flop"] for row in _sizes(result, axis, question)}
            panel.plot(list(costs), list(costs.values()), ".-", color=color, label=question)
            for cliff in result["cliffs"]:
                if (cliff["axis"], cliff["question"]) == (axis, question):
                    ends = cliff["from"], cliff["to"]
                    panel.plot(ends, [costs[n] for n in ends], "o-", color="tab:red")
        panel.set_xlabel(axis)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("picoseconds per flop")
    first.legend()
    figure.suptitle(", ".join(f"{d} {result['base'][d]}" for d in "BTIH") + ", one size varied")
    figure.savefig(path, dpi=110)
