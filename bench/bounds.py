"""What stands between fastgru and the goals that it does not reach: its parts, each by itself.

A call cannot take less time than its parts one after another, each of them run over and over on
operands that lie in the nearest caches, and without what is between them: calls from Python, the
threads' meetings, operands that were elsewhere. Where the sum is more than the goal, the goal is
out of reach of these algorithms on this machine. All are timed in turn, in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numba
import numpy as np

from bench.common import cpus_busy, machine, race
from bench.kernels import BUDGETS, CELLS, CONTENDERS, Cell, Limits, Problem, make_problem
from bench.report import command_line, digits, label, machine_line, markdown, missing_line
from fastgru import kernels, set_num_threads
from fastgru.kernels import aligned_empty
from fastgru.kernels.activations import SIGMOID, TANH
from fastgru.kernels.gemm import padded, panel_width, product, share_of_panels
from fastgru.kernels.gru import _gradient_reset_after, _step_reset_after
from fastgru.kernels.recurrence import recurrent_backward_columns
from fastgru.kernels.relay import LEAST_FLOPS_OF_A_STEP
from fastgru.kernels.simd import pointer
from fastgru.kernels.threads import share_out


class Goal(NamedTuple):
    """What a cell should reach: a ratio to another library's time, or a share of the FMA peak."""

    cell: str
    question: str
    peer: str = ""
    ratio: float = 0
    peak: float = 0

    def __str__(self) -> str:
        return f"{self.ratio:g}x {label(self.peer)}" if self.peer else f"{self.peak:.0%} of peak"


GOALS = (
    Goal("b1_small", "training", "numpy", 12),
    Goal("b1_big", "training", "jax", 1.5),
    Goal("b32_mid", "inference", peak=0.92),
    Goal("b128_mid", "inference", peak=0.92),
    Goal("b32_mid", "training", peak=0.85),
    Goal("b128_mid", "training", peak=0.85),
)

QUICK_CELLS = "b1_small", "b1_big", "b32_mid"

Call = Callable[[], Any]


# ---- the parts


@numba.njit(nogil=True, error_model="numpy")
def _products(repeats, rows, columns, K, a, b, start, c, by_columns, worker, workers):
    """Multiply rows with packed weights, over and over: a share of the rows or of the columns."""
    if by_columns:
        first, end = share_of_panels(columns, pointer(b), worker, workers)
        for _ in range(repeats):
            product(
                rows, end - first, K, pointer(a), K, 1, pointer(b) + first * K,
                pointer(start) + first, 0, pointer(c) + first, columns, False,
            )  # fmt: skip
        return
    first, end = rows * worker // workers, rows * (worker + 1) // workers
    for _ in range(repeats):
        product(
            end - first, columns, K, pointer(a) + first * K, K, 1, pointer(b), pointer(start), 0,
            pointer(c) + first * columns, columns, False,
        )  # fmt: skip


@numba.njit(nogil=True, error_model="numpy")
def _gates(repeats, H, x, y, kept, keep, worker, workers):
    """Finish steps of one row, over and over; with `keep` as a training does."""
    for _ in range(repeats * (worker + 1) // workers - repeats * worker // workers):
        at = pointer(x)
        _step_reset_after(H, at, at, pointer(y), pointer(y), pointer(kept), keep, SIGMOID, TANH)


@numba.njit(nogil=True, error_model="numpy")
def _gradients(repeats, H, kept, h, dh, worker, workers):
    """Turn the slots of one row into gradients, over and over."""
    for _ in range(repeats * (worker + 1) // workers - repeats * worker // workers):
        _gradient_reset_after(
            H, pointer(kept) + 4 * H, pointer(h), pointer(h), True, pointer(dh), SIGMOID, TANH
        )


def _zeros(*shape: int) -> np.ndarray:
    array = aligned_empty(shape, np.float32)
    array[...] = 0
    return array


def products(repeats: int, rows: int, columns: int, K: int, shared: bool) -> Call:
    """Return a call that multiplies (rows, K) with packed (K, columns), `repeats` times.

    Rows are shared out to the threads, or with `shared` columns: those of one row.
    """
    width = padded(columns, np.dtype(np.float32))
    arrays = _zeros(rows, K), _zeros(K * width), _zeros(width), _zeros(rows, width)
    arguments = repeats, rows, width, K, *arrays, shared
    shares = width // panel_width(np.dtype(np.float32)) if shared else rows
    return lambda: share_out(_products, arguments, shares, 2 * repeats * rows * K * columns)


def parts(cell: Cell, question: str, problem: Problem, threads: int) -> dict[str, Call]:
    """Return the parts of a call as calls, by their names."""
    set_num_threads(threads)
    _, B, T, I, H = cell
    flops = 2 * B * H * 3 * H
    # As the kernels do: rows are shared out, or a single row's columns if they are many.
    shared = threads > 1 and flops >= LEAST_FLOPS_OF_A_STEP.get(B, np.inf)
    workers = B if B > 1 else threads * shared
    keep = question == "training"

    def elementwise(kernel: Any, *arguments: Any) -> Call:
        # One worker has the gates of a step to itself where columns are shared.
        shares = 1 if shared else max(1, workers)
        return lambda: share_out(kernel, (B * T, H, *arguments), shares, flops * T)

    x, y, kept = _zeros(4 * H + 64), _zeros(H), _zeros(8 * H)
    found = {
        "products of the input": products(1 if B == 1 else B, T, 3 * H, I, shared),
        "products of the state": products(T, B, 3 * H, H, shared),
        "gates": elementwise(_gates, x, y, kept, keep),
    }
    if not keep:
        return found
    grads = _zeros(I, 3 * H), _zeros(H, 3 * H), _zeros(3 * H), _zeros(3 * H)
    none = np.empty((0, 0), np.bool_)
    kind = True, 1, False, False  # overwritten, one gate apart, none held, forwards
    columns = (problem.x, none, problem.h0, problem.dy, _zeros(B, T, 4, H), *grads, *kind)
    panels = padded(4 * H, np.dtype(np.float32)) // panel_width(np.dtype(np.float32))
    return {
        "packing": lambda: kernels.pack_gru(*problem.weights, backward=True),
        **found,
        "gradients of gates": elementwise(_gradients, kept, y, _zeros(H)),
        "gradients of the state": products(T, B, H, 3 * H, shared),
        "gradients of the input": products(1 if B == 1 else B, T, I, 3 * H, shared),
        "gradients of the weights": lambda: share_out(
            recurrent_backward_columns, columns, panels, cell.flops("inference")
        ),
    }


# ---- the run


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Time the parts of all cells, fastgru and those who set the goal."""
    known = {cell.name: cell for cell in CELLS}
    if names is None and quick:
        names = QUICK_CELLS
    goals = [goal for goal in GOALS if names is None or goal.cell in names]
    if names is not None and (unknown := set(names) - {goal.cell for goal in goals}):
        wanted = ", ".join(dict.fromkeys(goal.cell for goal in GOALS))
        raise ValueError(f"cells: expected some of {wanted}; given {', '.join(unknown)}")
    busy = cpus_busy()
    limits = Limits(threads)
    limits.measure()
    rows = []
    missing: dict[str, str] = {}
    for goal in goals:
        cell = known[goal.cell]
        problem = make_problem(cell)
        try:
            calls = {
                name: CONTENDERS[name](problem, threads)[goal.question]
                for name in filter(None, ("fastgru", goal.peer))
            }
        except ImportError as error:
            missing[goal.peer] = str(error)
            continue
        pieces = parts(cell, goal.question, problem, threads)
        timings = race({**calls, **pieces}, BUDGETS["quick" if quick else "full"])
        limits.measure()
        rows.append({
            "cell": cell._asdict(),
            "question": goal.question,
            "goal": str(goal),
            "peer_us": timings[goal.peer].best_us if goal.peer else None,
            "fastgru_us": timings["fastgru"].best_us,
            "parts_us": {name: timings[name].best_us for name in pieces},
            "flops": cell.flops(goal.question),
            "ratio": goal.ratio,
            "peak": goal.peak,
        })  # fmt: skip
    rate = limits.rates[f"fma_{threads}"]
    for row in rows:
        wanted = row["peer_us"] / row["ratio"] if row["peer_us"] else 0
        row["goal_us"] = round(wanted or row["flops"] / rate / 1e3 / row["peak"], 2)
        row["bound_us"] = round(sum(row["parts_us"].values()), 2)
    return {
        "bench": "bounds",
        "machine": machine(threads),
        "quick": quick,
        "cpus_busy_before": busy,
        "cpus_busy_after": cpus_busy(),
        "gflops": {name: round(value, 1) for name, value in limits.rates.items()},
        "missing": missing,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Render what was measured, what was wanted, and the least that the parts take."""
    header = ["B, T, I, H", "call", "goal", "goal us", "fastgru us", "sum of parts us", "parts us"]
    rows = []
    for row in result["rows"]:
        pieces = ", ".join(f"{name} {digits(us)}" for name, us in row["parts_us"].items())
        rows.append([
            ", ".join(str(row["cell"][d]) for d in "BTIH"), row["question"], row["goal"],
            *(digits(row[key]) for key in ("goal_us", "fastgru_us", "bound_us")), pieces,
        ])  # fmt: skip
    return "\n".join([
        markdown(header, rows),
        "",
        "Microseconds at best. The parts are run by themselves, on operands in the nearest caches: "
        "no call is faster than their sum.",
        machine_line(result),
        *filter(None, [missing_line(result)]),
        command_line(result),
    ])  # fmt: skip
