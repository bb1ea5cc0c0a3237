"""How much memory inference and training take beside their inputs and weights.

Each figure is from a fresh process: the peak of resident memory during some calls over what was
resident before them, after the libraries were imported and had run on two steps. Counted as well
are the floats that fastgru's forward pass keeps for the backward pass, and the arrays that the
backward pass makes.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from typing import Any

import numpy as np

from bench import kernels, processes
from bench.common import machine
from bench.kernels import Cell
from bench.report import command_line, digits, label, machine_line, markdown, missing_line

CELLS = {
    "b32_mid": Cell("b32_mid", 32, 100, 128, 256),
    "b128_mid": Cell("b128_mid", 128, 64, 128, 256),
}
QUICK_CELLS = ("b32_mid",)
CONTENDERS = ("fastgru", "pytorch", "numpy")
CALLS = 3
TIMEOUT_S = 300


def peak_bytes(contender: str, name: str, question: str, threads: int) -> dict[str, Any]:
    """Return by how much some calls raise this process's memory at most, and what they return."""
    cell = CELLS[name]
    factory = kernels.CONTENDERS[contender]
    try:
        small = factory(kernels.make_problem(cell._replace(T=2)), threads)
        if question not in small:
            return {"missing": "no such call"}
        small[question]()
        problem = kernels.make_problem(cell)
        call = factory(problem, threads)[question]
        del small
    except ImportError as error:
        return {"missing": str(error)}
    gc.collect()
    processes.forget_peak()
    before = processes.resident_bytes()
    for _ in range(CALLS):
        results = call()
    peak = processes.resident_bytes(peak=True) - before
    return {"bytes": peak, "results_bytes": sum(array.nbytes for array in results)}


def count(name: str) -> dict[str, Any]:
    """Count what fastgru keeps from forward to backward, and what the latter allocates.

    NumPy tells tracemalloc of its arrays, and Numba of the scratch memory in the kernels.
    """
    from fastgru.kernels import gru_backward, gru_forward, pack_gru

    cell = CELLS[name]
    for T in (2, cell.T):  # the first loads the kernels
        x, h0, weights, dy, dh_last = kernels.make_problem(cell._replace(T=T))
        packed = pack_gru(*weights, backward=True)
        gradients = tuple(map(np.zeros_like, weights))
        y, gates = gru_forward(x, None, h0, packed, keep=True)
        tracemalloc.start()
        dx, _ = gru_backward(dy, dh_last, x, None, h0, packed, y, gates, gradients)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return {
        "kept_per_step": (y.size + gates.size) / (cell.B * cell.T),
        "kept_goal": 5 * cell.H,
        "backward_bytes": peak,
        "dx_bytes": dx.nbytes,
        # The smallest array with a value per step and row and unit or input that there could be.
        "one_more_bytes": min(y.nbytes, x.nbytes),
    }


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Measure the cells; return what JSON can hold."""
    names = list(QUICK_CELLS if quick else CELLS) if names is None else list(names)
    if unknown := [name for name in names if name not in CELLS]:
        raise ValueError(f"names: expected some of {', '.join(CELLS)}; given {', '.join(unknown)}")
    missing: dict[str, str] = {}
    rows = []
    for name in names:
        problem = kernels.make_problem(CELLS[name])
        present = {"fastgru": kernels.CONTENDERS["fastgru"](problem, threads)}
        kernels.verify(CELLS[name], problem, present)
        counted = processes.call(count, name, threads=threads, timeout=TIMEOUT_S)
        spare = counted["dx_bytes"] + counted["one_more_bytes"]
        row: dict[str, Any] = {**CELLS[name]._asdict(), "counted": counted}
        row["met"] = (
            counted["kept_per_step"] <= counted["kept_goal"] and counted["backward_bytes"] < spare
        )
        for question in kernels.QUESTIONS:
            row[question] = {}
            for contender in CONTENDERS:
                arguments = contender, name, question, threads
                done = processes.call(peak_bytes, *arguments, threads=threads, timeout=TIMEOUT_S)
                if "missing" in done:
                    missing[contender] = done["missing"]
                else:
                    row[question][contender] = done
        rows.append(row)
    return {
        "bench": "memory",
        "machine": machine(threads),
        "quick": quick,
        "contenders": list(CONTENDERS),
        "missing": missing,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Render the peaks in megabytes, and what was counted."""
    header = ["B, T, I, H", "MB", "results alone", *map(label, result["contenders"])]
    rows, notes = [], ["Peak of resident memory over what was resident before the calls."]
    for row in result["rows"]:
        sizes = ", ".join(str(row[d]) for d in "BTIH")
        for question in kernels.QUESTIONS:
            done = row[question]
            cells = [sizes, question, digits(done["fastgru"]["results_bytes"] / 1e6)]
            for name in result["contenders"]:
                cells.append(digits(done[name]["bytes"] / 1e6) if name in done else "missing")
            rows.append(cells)
        counted = row["counted"]
        notes.append(
            f"{sizes}: fastgru keeps {counted['kept_per_step']:g} floats per step and row for the "
            f"backward pass (goal: at most {counted['kept_goal']}), which itself allocates "
            f"{counted['backward_bytes'] / 1e6:.2f} MB, of which dx takes "
            f"{counted['dx_bytes'] / 1e6:.2f} (goal: no other array of its size). "
            f"Goals {'met' if row['met'] else 'not met'}."
        )
    notes += [machine_line(result), missing_line(result), command_line(result)]
    return "\n".join([markdown(header, rows), "", *filter(None, notes)])
