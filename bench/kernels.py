"""GRU kernels against NumPy, and against what the machine's multipliers can do.

Inference: from the call to the NumPy result, weights packed before. Training: forward and full
backpropagation through time, with the weights packed anew as after each update, to dx, dh0 and the
gradients of all weights. All contenders are checked against NumPy in float64 before any is timed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numba
import numpy as np

from bench.common import check_close, cpus_busy, machine, race
from bench.report import command_line, digits, label, machine_line, markdown, missing_line
from fastgru import reference
from fastgru.kernels import (
    aligned_empty,
    gru_backward,
    gru_forward,
    pack_gru,
    set_num_threads,
)
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

    def flops(self, question: str) -> int:
        """Count the operations of the products; the backward pass has two of each."""
        forward = 2 * self.B * self.T * (self.I + self.H) * 3 * self.H
        return forward if question == "inference" else 3 * forward


CELLS = (
    Cell("b1_small", 1, 100, 32, 64),
    Cell("b8", 8, 100, 64, 128),
    Cell("b32_small", 32, 100, 32, 64),
    Cell("b32_mid", 32, 100, 128, 256),
    Cell("odd", 7, 37, 13, 100),
)
QUESTIONS = ("inference", "training")
SECONDS = {"quick": 0.8, "full": 4.0}  # per cell and question


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


# ---- contenders: a factory takes a problem and returns the calls to time, one per question.
# An inference returns y; a training step returns y, dx, dh0 and the gradients of the weights.

Calls = dict[str, Callable[[], tuple[np.ndarray, ...]]]


def fastgru_calls(problem: Problem) -> Calls:
    """Call the kernels."""
    x, h0, weights, dy, dh_last = problem
    packed = pack_gru(*weights)

    def inference() -> tuple[np.ndarray, ...]:
        return (gru_forward(x, None, h0, packed)[0],)

    def training() -> tuple[np.ndarray, ...]:
        packed = pack_gru(*weights, backward=True)
        y, gates = gru_forward(x, None, h0, packed, keep=True)
        gradients = tuple(map(np.zeros_like, weights))
        dx, dh0 = gru_backward(dy, dh_last, x, None, h0, packed, y, gates, gradients)
        return y, dx, dh0, *gradients

    return {"inference": inference, "training": training}


def numpy_calls(problem: Problem) -> Calls:
    """Call the reference: NumPy, in the dtype of the problem."""
    x, h0, weights, dy, dh_last = problem

    def inference() -> tuple[np.ndarray, ...]:
        return (reference.gru_forward(x, None, h0, *weights, keep_gates=False)[0],)

    def training() -> tuple[np.ndarray, ...]:
        y, gates = reference.gru_forward(x, None, h0, *weights)
        return y, *reference.gru_backward(dy, dh_last, x, None, h0, *weights, y, gates)

    return {"inference": inference, "training": training}


CONTENDERS: dict[str, Callable[[Problem], Calls]] = {"fastgru": fastgru_calls, "numpy": numpy_calls}


def enter(problem: Problem) -> tuple[dict[str, Calls], dict[str, str]]:
    """Make all contenders; one whose library is not installed is missing, with the reason."""
    present, missing = {}, {}
    for name, factory in CONTENDERS.items():
        try:
            present[name] = factory(problem)
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
    exact = Problem(
        *(
            tuple(a.astype(np.float64) for a in part)
            if isinstance(part, tuple)
            else part.astype(np.float64)
            for part in problem
        )
    )
    want = numpy_calls(exact)["training"]()
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
        tile(6, 1, a_at, K, 1, b_at, 0, K, c_at, width, c_at, width)


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
            call()
            end = time.perf_counter() + seconds
            while (begin := time.perf_counter()) < end:
                call()
                rate = flops / (time.perf_counter() - begin) / 1e9
                self.rates[name] = max(rate, self.rates.get(name, 0))
        set_num_threads(self.threads)


# ---- the run


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify and time every cell; return what `bench/results/kernels.json` holds."""
    known = {cell.name: cell for cell in CELLS}
    names = list(known) if names is None else list(names)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"cells: expected some of {', '.join(known)}; given {', '.join(unknown)}")
    set_num_threads(threads)
    problems = {}
    missing: dict[str, str] = {}
    checks = {}
    for name in names:
        problem = make_problem(known[name])
        present, missing = enter(problem)
        checks[name] = verify(known[name], problem, present)
        problems[name] = present
    busy = cpus_busy()
    if busy is not None and busy > 0.2:
        print(f"warning: other processes keep {busy:.1f} CPUs busy", file=sys.stderr)
    limits = Limits(threads)
    limits.measure()
    cells = []
    for name in names:
        cell = known[name]
        row: dict[str, Any] = {**cell._asdict(), "error_share": checks[name]}
        for question in QUESTIONS:
            present = problems[name].items()
            runners = {c: calls[question] for c, calls in present if question in calls}
            timings = race(runners, SECONDS["quick" if quick else "full"])
            row[question] = {c: timing._asdict() for c, timing in timings.items()}
            if not all(timing.settled for timing in timings.values()):
                print(f"warning: {name} {question}: times did not settle", file=sys.stderr)
        limits.measure()
        cells.append(row)
    peak = limits.rates[f"fma_{threads}"]
    for row in cells:
        for question in QUESTIONS:
            flops = known[row["name"]].flops(question)
            for timing in row[question].values():
                timing["peak_share"] = round(flops / timing["best_us"] / 1e3 / peak, 4)
    return {
        "bench": "kernels",
        "machine": machine(threads),
        "quick": quick,
        "cpus_busy_before": busy,
        "cpus_busy_after": cpus_busy(),
        "gflops": {name: round(rate, 1) for name, rate in limits.rates.items()},
        "contenders": list(CONTENDERS),
        "missing": missing,
        "cells": cells,
    }


def ratio(timings: dict[str, Any]) -> float | None:
    """Return how many times longer the fastest other contender takes than fastgru."""
    others = [timing["best_us"] for name, timing in timings.items() if name != "fastgru"]
    return min(others) / timings["fastgru"]["best_us"] if others else None


def table(result: dict[str, Any]) -> str:
    """Render the best times of a call, and how far from the limit they are."""
    contenders, missing = result["contenders"], result["missing"]
    present = [name for name in contenders if name not in missing]
    versus = label(present[1]) if len(present) == 2 else "best other"
    header = ["B, T, I, H"]
    for question in QUESTIONS:
        header += [f"{question} {label(name)} us" for name in contenders]
        header += [f"{versus} / fastgru", "of FMA peak"]
    rows = []
    for cell in result["cells"]:
        row = [", ".join(str(cell[d]) for d in "BTIH")]
        for question in QUESTIONS:
            timings = cell[question]
            row += [
                digits(timings[name]["best_us"]) if name in timings else "missing"
                for name in contenders
            ]
            times = ratio(timings)
            row += [
                f"{times:.1f}" if times else "-",
                f"{timings['fastgru']['peak_share']:.0%}",
            ]
        rows.append(row)
    unsettled = [
        f"{cell['name']} {question}"
        for cell in result["cells"]
        for question in QUESTIONS
        if not all(timing["settled"] for timing in cell[question].values())
    ]
    notes = [
        "Best time of one call in microseconds, float32, all libraries in turn in one run, after "
        "a check that results agree. Training = forward, full backward, all gradients, weights "
        "packed anew.",
        machine_line(result),
    ]
    if unsettled:
        notes.append(f"The machine was busy; times did not settle in: {', '.join(unsettled)}.")
    if missing:
        notes.append(missing_line(result))
    return "\n".join([markdown(header, rows), "", *notes, command_line(result)])
