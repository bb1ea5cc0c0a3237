"""GRU layers against the other libraries, and against what the machine's multipliers can do.

Inference: from NumPy arrays to the NumPy result, weights packed before. Training: forward and full
backpropagation through time, with the weights packed anew as after each update, to dx, dh0 and the
gradients of all weights. In each cell all contenders are checked against NumPy in float64 before
any is timed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numba
import numpy as np

from bench import peers
from bench.common import Budget, check_close, cpus_busy, machine, race, rest
from bench.peers import Calls
from bench.report import command_line, digits, label, machine_line, markdown, missing_line
from fastgru import GRU, reference, set_num_threads
from fastgru.kernels import aligned_empty
from fastgru.kernels.gemm import panel_width, tile
from fastgru.kernels.simd import lanes, pointer
from fastgru.kernels.threads import share_out


class Cell(NamedTuple):
    """A size to measure: B rows of T steps, I inputs, H units."""

    name: str
    B: int
    T: int
    I: int
    H: int

    @property
    def questions(self) -> tuple[str, ...]:
        """What to measure: nobody trains on single steps."""
        return QUESTIONS if self.T > 1 else QUESTIONS[:1]

    def flops(self, question: str) -> int:
        """Count the operations of the products; the backward pass has two of each."""
        forward = 2 * self.B * self.T * (self.I + self.H) * 3 * self.H
        return forward if question == "inference" else 3 * forward


QUESTIONS = ("inference", "training")
CELLS = (
    Cell("stream", 1, 1, 32, 64),
    Cell("stream256", 1, 1, 64, 256),
    Cell("b1_small", 1, 100, 32, 64),
    Cell("b1_mid", 1, 100, 128, 256),
    Cell("b1_big", 1, 50, 512, 1024),
    Cell("b8", 8, 100, 64, 128),
    Cell("b32_small", 32, 100, 32, 64),
    Cell("b32_mid", 32, 100, 128, 256),
    Cell("b32_big", 32, 50, 512, 512),
    Cell("b128_mid", 128, 64, 128, 256),
    Cell("odd7", 7, 37, 13, 100),
    Cell("odd3", 3, 250, 1, 50),
    Cell("odd65", 65, 20, 300, 48),
)
QUICK_CELLS = ("stream", "b1_small", "b32_small", "odd7")
BUDGETS = {"quick": Budget(0.3, least_rounds=2, patience=1), "full": Budget(4.0, patience=2)}


class Goal(NamedTuple):
    """What fastgru should reach: shares of the FMA peak, and ratios to others' best times."""

    best: float
    pytorch: float = 0
    peak: float = 0

    def met(self, timings: dict[str, Any], missing: Iterable[str]) -> bool | None:
        """Tell whether it is; None where a missing contender could have been faster."""
        others = ratios(timings)
        reached = (
            min(others.values(), default=self.best) >= self.best
            and others.get("pytorch", self.pytorch) >= self.pytorch
            and timings["fastgru"]["peak_share"] >= self.peak
        )
        return None if reached and missing else reached

    def __str__(self) -> str:
        parts = [f"{self.best:g}x the best peer"]
        parts += [f"{self.pytorch:g}x PyTorch"] if self.pytorch else []
        parts += [f"{self.peak:.0%} of FMA peak"] if self.peak else []
        return ", ".join(parts)


FMA_BOUND = ("b32_mid", "b32_big", "b128_mid")
GOALS = {
    "inference": (Goal(best=1), Goal(best=1, peak=0.92)),
    "training": (Goal(best=1.5, pytorch=2), Goal(best=1.4, peak=0.85)),
}


def goal(name: str, question: str) -> Goal:
    """Return what fastgru should reach in a cell: the second of two where FMAs are the limit."""
    return GOALS[question][name in FMA_BOUND]


class Problem(NamedTuple):
    """The arrays every contender gets; weights = kernel, recurrent_kernel and the two biases."""

    x: np.ndarray
    h0: np.ndarray
    weights: tuple[np.ndarray, ...]
    dy: np.ndarray
    dh_last: np.ndarray


def make_problem(cell: Cell, seed: int = 0) -> Problem:
    """Draw a problem in float32: weights as PyTorch begins with, all else standard normal."""
    rng = np.random.default_rng(seed)
    _, B, T, I, H = cell

    def normal(*shape: int) -> np.ndarray:
        array = aligned_empty(shape, np.float32)
        array[...] = rng.standard_normal(shape)
        return array

    def weight(*shape: int) -> np.ndarray:
        array = aligned_empty(shape, np.float32)
        array[...] = rng.uniform(-1, 1, shape) / np.sqrt(H)
        return array

    weights = weight(I, 3 * H), weight(H, 3 * H), weight(3 * H), weight(3 * H)
    return Problem(normal(B, T, I), normal(B, H), weights, normal(B, T, H), normal(B, H))


def exactly(problem: Problem) -> Problem:
    """Return the problem in float64."""
    return Problem(
        *(
            tuple(a.astype(np.float64) for a in part)
            if isinstance(part, tuple)
            else part.astype(np.float64)
            for part in problem
        )
    )


# ---- contenders: a factory takes a problem and the number of threads and returns the calls to
# time, one per question. An inference returns y; a training step returns y, dx, dh0 and the
# gradients of the weights.


def fastgru_calls(problem: Problem, threads: int) -> Calls:
    """Call the layer."""
    set_num_threads(threads)
    x, h0, weights, dy, dh_last = problem
    infers = GRU(h0.shape[1], return_sequences=True)
    trains = GRU(h0.shape[1], return_sequences=True, return_state=True)
    for layer in (infers, trains):
        layer.build(x.shape, dict(zip(layer.weight_shapes(x.shape), weights, strict=True)))

    def inference() -> tuple[np.ndarray, ...]:
        return (infers(x, initial_state=h0),)

    def training() -> tuple[np.ndarray, ...]:
        trains.changed()
        (y, _), backward = trains.forward(x, initial_state=h0)
        dx, dh0 = backward(dy, dh_last, overwrite=True)
        return y, dx, dh0, *trains.grads.values()

    return {"inference": inference, "training": training}


def numpy_calls(problem: Problem, threads: int = 1) -> Calls:
    """Call the reference: NumPy, in the dtype of the problem; threads are in the environment."""
    x, h0, weights, dy, dh_last = problem

    def inference() -> tuple[np.ndarray, ...]:
        return (reference.gru_forward(x, None, h0, *weights, keep_gates=False)[0],)

    def training() -> tuple[np.ndarray, ...]:
        y, gates = reference.gru_forward(x, None, h0, *weights)
        return y, *reference.gru_backward(dy, dh_last, x, None, h0, *weights, y, gates)

    return {"inference": inference, "training": training}


CONTENDERS: dict[str, Callable[[Problem, int], Calls]] = {
    "fastgru": fastgru_calls,
    **peers.FACTORIES,
    "numpy": numpy_calls,
}


def enter(problem: Problem, threads: int) -> tuple[dict[str, Calls], dict[str, str]]:
    """Make all contenders; one whose library is not installed is missing, with the reason."""
    present, missing = {}, {}
    for name, factory in CONTENDERS.items():
        try:
            present[name] = factory(problem, threads)
        except ImportError as error:
            missing[name] = str(error)
    return present, missing


# ---- the check

OUTPUTS = ("y", "dx", "dh0", "dkernel", "drecurrent_kernel", "dbias", "drecurrent_bias")


def terms(cell: Cell) -> tuple[int, ...]:
    """Count the products that an element of each output sums; see `OUTPUTS`."""
    _, B, T, I, H = cell
    return I + H, 3 * H, 3 * H, B * T, B * T, B * T, B * T


def verify(cell: Cell, problem: Problem, present: dict[str, Calls]) -> dict[str, float]:
    """Check all outputs of all contenders against NumPy in float64; raise if one is off.

    Returns each contender's largest error as a share of what is allowed.
    """
    want = numpy_calls(exactly(problem))["training"]()
    shares = {}
    for name, calls in present.items():
        errors = []
        for question in QUESTIONS:
            if question not in calls:
                continue
            got = calls[question]()
            expected = len(OUTPUTS) if question == "training" else 1
            if len(got) != expected:
                raise ValueError(f"{name} {question}: {len(got)} outputs instead of {expected}")
            errors += [
                check_close(f"{cell.name} {question} {name} {output}", one, truth, count)
                for output, one, truth, count in zip(OUTPUTS, got, want, terms(cell), strict=False)
            ]
        shares[name] = round(max(errors), 4)
    return shares


# ---- the machine's limit


@numba.njit(nogil=True, error_model="numpy")
def _multiply(a, b, c, repeats, worker, workers):
    """Multiply a worker's six rows with its panel, over and over, from the first-level cache."""
    K = a.shape[2]
    width = 2 * lanes(pointer(a))
    a_at = pointer(a) + worker * 6 * K
    b_at = pointer(b) + worker * K * width
    c_at = pointer(c) + worker * 6 * width
    for _ in range(repeats):
        tile(6, 2, a_at, K, 1, b_at, 0, K, c_at, width, c_at, width, 0)


def fma_call(threads: int) -> tuple[Callable[[], None], int]:
    """Return a call that does nothing but multiply and add on all threads, and its flops."""
    K, width = 192, panel_width(np.dtype(np.float32))
    a, b, c = (
        aligned_empty(shape, np.float32)
        for shape in ((threads, 6, K), (threads, K, width), (threads, 6, width))
    )
    a[...], b[...], c[...] = 1e-3, 1e-3, 0
    repeats = max(1, 200_000_000 // (2 * 6 * K * width))  # about 2 ms
    flops = threads * repeats * 2 * 6 * K * width

    def call() -> None:
        set_num_threads(threads)
        share_out(_multiply, (a, b, c, repeats), threads, flops)

    return call, flops


def blas_call(size: int = 1024) -> tuple[Callable[[], None], int]:
    """Return a large product by NumPy's BLAS, which shows that it is not held back; and flops."""
    a, b, c = (aligned_empty((size, size), np.float32) for _ in range(3))
    a[...], b[...] = 1e-3, 1e-3

    def call() -> None:
        np.matmul(a, b, out=c)

    return call, 2 * size**3


class Limits:
    """The highest rates seen in this run, in GFLOP/s; measured again between the cells."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.rates: dict[str, float] = {}
        self._calls = {f"fma_{n}": fma_call(n) for n in sorted({1, threads})}
        self._calls["blas"] = blas_call()

    def measure(self, seconds: float = 0.15) -> None:
        """Run each limit for a while and keep its best."""
        for name, (call, flops) in self._calls.items():
            rest()
            call()
            end = time.perf_counter() + seconds
            while (begin := time.perf_counter()) < end:
                call()
                rate = flops / (time.perf_counter() - begin) / 1e9
                self.rates[name] = max(rate, self.rates.get(name, 0))
        set_num_threads(self.threads)


# ---- the run


def chosen(names: Iterable[str] | None, quick: bool) -> list[Cell]:
    """Return the cells of these names; by default all, or some if it has to be quick."""
    known = {cell.name: cell for cell in CELLS}
    if names is None:
        names = QUICK_CELLS if quick else known
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"cells: expected some of {', '.join(known)}; given {', '.join(unknown)}")
    return [known[name] for name in names]


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify and time every cell; return what `bench/results/kernels.json` holds."""
    cells = chosen(names, quick)
    busy = cpus_busy()
    if busy is not None and busy > 0.2:
        print(f"warning: other processes keep {busy:.1f} CPUs busy", file=sys.stderr)
    limits = Limits(threads)
    limits.measure()
    rows = []
    missing: dict[str, str] = {}
    for cell in cells:
        problem = make_problem(cell)
        present, missing = enter(problem, threads)
        row: dict[str, Any] = {**cell._asdict(), "error_share": verify(cell, problem, present)}
        for question in cell.questions:
            calls = {c: calls[question] for c, calls in present.items() if question in calls}
            timings = race(calls, BUDGETS["quick" if quick else "full"])
            row[question] = {c: timing._asdict() for c, timing in timings.items()}
            if not all(timing.settled for timing in timings.values()):
                print(f"warning: {cell.name} {question}: times did not settle", file=sys.stderr)
        limits.measure()
        rows.append(row)
    peak = limits.rates[f"fma_{threads}"]
    for cell, row in zip(cells, rows, strict=True):
        row["goals"] = {}
        for question in cell.questions:
            for timing in row[question].values():
                flops = cell.flops(question)
                timing["peak_share"] = round(flops / timing["best_us"] / 1e3 / peak, 4)
            wanted = goal(cell.name, question)
            row["goals"][question] = {
                "wanted": str(wanted),
                "met": wanted.met(row[question], missing),
            }
    return {
        "bench": "kernels",
        "machine": machine(threads),
        "quick": quick,
        "cpus_busy_before": busy,
        "cpus_busy_after": cpus_busy(),
        "gflops": {name: round(rate, 1) for name, rate in limits.rates.items()},
        "contenders": list(CONTENDERS),
        "missing": missing,
        "cells": rows,
    }


# ---- the table


def ratios(timings: dict[str, Any]) -> dict[str, float]:
    """Return how many times longer than fastgru each of the others takes."""
    own = timings["fastgru"]["best_us"]
    return {name: timing["best_us"] / own for name, timing in timings.items() if name != "fastgru"}


def table(result: dict[str, Any]) -> str:
    """Render the times of a call, how far from the limit they are, and the others' ratios."""
    others = [name for name in result["contenders"] if name != "fastgru"]
    header = ["B, T, I, H", "best us", "median us", "of FMA peak", *map(label, others), "goal met"]
    parts = []
    for question in QUESTIONS:
        rows = []
        for cell in result["cells"]:
            if question not in cell:
                continue
            own, times = cell[question]["fastgru"], ratios(cell[question])
            fastest = min(times, key=times.__getitem__, default=None)
            row = [", ".join(str(cell[d]) for d in "BTIH")]
            row += [digits(own["best_us"]), digits(own["median_us"]), f"{own['peak_share']:.0%}"]
            for name in others:
                if name in times:
                    bold = "**" * (name == fastest)
                    row.append(f"{bold}{times[name]:.2f}{bold}")
                else:
                    row.append("missing" if name in result["missing"] else "-")
            verdict = {True: "yes", False: "no", None: "?"}[cell["goals"][question]["met"]]
            rows.append([*row, f"{verdict}: {cell['goals'][question]['wanted']}"])
        parts += [f"{question.capitalize()}:", "", markdown(header, rows), ""]
    unsettled = [
        f"{cell['name']} {question}"
        for cell in result["cells"]
        for question in QUESTIONS
        if question in cell and not all(timing["settled"] for timing in cell[question].values())
    ]
    parts += [
        "Microseconds that fastgru takes for one call, and how many times longer each of the "
        "others takes at best, the fastest one in bold; float32, all in turn in one run, after a "
        "check that results agree. Training = forward, full backward, all gradients, weights "
        "packed anew.",
        machine_line(result),
    ]
    if unsettled:
        parts.append(f"The machine was busy; times did not settle in: {', '.join(unsettled)}.")
    if result["missing"]:
        parts.append(missing_line(result))
    return "\n".join([*parts, command_line(result)])
