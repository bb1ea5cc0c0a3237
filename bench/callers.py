"""Many callers at once: threads, processes by every start method, joblib, dask; and long lives.

Each scenario runs in a fresh process with a time limit, so that an abort or a deadlock is found and
ends nothing else. The results are compared, bit for bit, with one that was checked against NumPy,
and all callers together must get as much done as one caller does with the machine for itself.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from bench import kernels, processes
from bench.common import DisagreementError, machine
from bench.kernels import Cell
from bench.report import command_line, digits, machine_line, markdown

CELLS = {"b1_small": Cell("b1_small", 1, 100, 32, 64), "b8": Cell("b8", 8, 100, 64, 128)}
QUICK_CELLS = ("b8",)
THREADS, PROCESSES = 8, 4
STARTERS = {"quick": 2, "full": 8}
SECONDS = {"quick": 0.2, "full": 2.0}  # for which each caller predicts
SHARE_GOAL = 0.95  # of one caller's throughput: a twentieth is noise
# What a pool's own threads and processes take of the machine shows in work that is none of ours.
CONTROL, CONTROL_SIZE, PLAIN = "control", 2**16, f"{PROCESSES} processes, spawn"
CONTROLLED = f"{PROCESSES} joblib workers", f"{PROCESSES} dask workers"
TIMEOUT_S = 300
# OpenMP's threads spin for a moment after a kernel, which is counted apart.
SETTLE_S, IDLE_S, IDLE_GOAL_S = 0.1, 2.0, 0.002
PREDICTIONS = {"quick": 2_000, "full": 20_000}
GROWTH_GOAL_BYTES = 1_000_000


class Work(NamedTuple):
    """What one caller did: the distinct bits of its results, its calls, and when."""

    bits: tuple[str, ...]
    calls: int
    begin: float
    end: float


@functools.cache
def predictor(name: str) -> Callable[[], np.ndarray]:
    """Return a call of a layer with the weights of a cell's problem, for one process.

    Or, as control, a call of NumPy that allocates nothing.
    """
    if name == CONTROL:
        x, y = np.ones((2, CONTROL_SIZE), np.float32)
        return lambda: np.tanh(x, out=y)
    import fastgru as fg

    problem = kernels.make_problem(CELLS[name])
    layer = fg.GRU(CELLS[name].H, return_sequences=True)
    shape = problem.x.shape
    layer.build(shape, dict(zip(layer.weight_shapes(shape), problem.weights, strict=True)))
    return lambda: layer(problem.x, initial_state=problem.h0)


def hashed(y: np.ndarray) -> str:
    """Return what stands for the bits of an array."""
    return hashlib.sha256(y.tobytes()).hexdigest()


def work(name: str, seconds: float) -> Work:
    """Predict for a while."""
    predict = predictor(name)
    bits: set[str] = set()
    calls = 0
    begin = time.perf_counter()
    while (now := time.perf_counter()) < begin + seconds or not calls:
        y = predict()
        if not calls & (calls - 1):  # the first, the second, the fourth ... not to time the hash
            bits.add(hashed(y))
        calls += 1
    return Work(tuple(bits), calls, begin, now)


# ---- scenarios: each returns what all callers did, after one round that is not counted


def _one(name: str, seconds: float) -> list[Work]:
    work(name, 0)
    return [work(name, seconds)]


def _threads(name: str, seconds: float) -> list[Work]:
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, [name] * THREADS, [0.0] * THREADS))
        return list(pool.map(work, [name] * THREADS, [seconds] * THREADS))


def _processes(method: str, name: str, seconds: float) -> list[Work]:
    work(name, 0.1)  # a parallel kernel ran, and its threads live, before the children start
    with multiprocessing.get_context(method).Pool(PROCESSES) as pool:
        for duration in (0.0, seconds):
            works = pool.starmap(work, [(name, duration)] * PROCESSES, chunksize=1)
    return works


def _joblib(name: str, seconds: float) -> list[Work]:
    import joblib

    work(name, 0.1)
    with joblib.Parallel(n_jobs=PROCESSES, backend="loky") as parallel:
        for duration in (0.0, seconds):
            works = parallel(joblib.delayed(work)(name, duration) for _ in range(PROCESSES))
    return works


def _dask(name: str, seconds: float) -> list[Work]:
    from distributed import Client, LocalCluster

    work(name, 0.1)
    with (
        LocalCluster(
            n_workers=PROCESSES, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        for duration in (0.0, seconds):
            tasks = client.map(work, [name] * PROCESSES, [duration] * PROCESSES, pure=False)
            works = client.gather(tasks)
    return works


SCENARIOS: dict[str, Callable[[str, float], list[Work]]] = {
    "one caller": _one,
    f"{THREADS} threads": _threads,
    **{
        f"{PROCESSES} processes, {method}": functools.partial(_processes, method)
        for method in ("fork", "spawn", "forkserver")
        if method in multiprocessing.get_all_start_methods()
    },
    f"{PROCESSES} joblib workers": _joblib,
    f"{PROCESSES} dask workers": _dask,
}


def scenario(title: str, name: str, seconds: float) -> dict[str, Any]:
    """Run one scenario in this process; return its bits, and calls a second of all together."""
    try:
        works = [Work(*done) for done in SCENARIOS[title](name, seconds)]
    except ImportError as error:
        return {"missing": str(error)}
    took = max(done.end for done in works) - min(done.begin for done in works)
    return {
        "bits": sorted({bits for done in works for bits in done.bits}),
        "calls_per_s": sum(done.calls for done in works) / took,
    }


# ---- starting together on an empty cache


def first_bits(name: str) -> list[str]:
    """Return the bits of this process's first prediction."""
    return list(work(name, 0).bits)


def start_together(name: str, threads: int, callers: int) -> dict[str, Any]:
    """Start processes at the same time on an empty cache; return their bits, and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        children = [
            processes.start_call(first_bits, name, threads=threads, FASTGRU_CACHE_DIR=folder)
            for _ in range(callers)
        ]
        try:
            bits = [processes.result_of(child, TIMEOUT_S) for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        seconds = time.perf_counter() - begin
        return {"bits": sorted({one for some in bits for one in some}), "seconds": seconds}


# ---- long lives


def idle() -> dict[str, float]:
    """Return the CPU time that all threads of this process use after parallel kernels."""
    work("b8", 0.3)
    used = [time.process_time()]
    for seconds in (SETTLE_S, IDLE_S):
        time.sleep(seconds)
        used.append(time.process_time())
    return {"seconds": IDLE_S, "settling_cpu_s": used[1] - used[0], "cpu_s": used[2] - used[1]}


def growth(predictions: int) -> dict[str, int]:
    """Return the memory gained over predictions of 1 to 200 steps and 1 to 8 rows, in bytes.

    Counted from a tenth of the way: until then the allocator's free lists still fill.
    """
    import fastgru as fg

    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 200, 16), np.float32)
    layer = fg.GRU(64, return_sequences=True)
    layer(x)
    start = 0
    for i, (rows, steps) in enumerate(rng.integers(1, (9, 201), (predictions, 2))):
        if i == predictions // 10:
            start = processes.resident_bytes()
        layer(x[:rows, :steps])
    return {"predictions": predictions, "bytes": processes.resident_bytes() - start}


# ---- the run


def right_bits(name: str, threads: int) -> str:
    """Return the bits that every caller must get, of results checked against NumPy."""
    problem = kernels.make_problem(CELLS[name])
    calls = kernels.fastgru_calls(problem, threads)
    kernels.verify(CELLS[name], problem, {"fastgru": calls})
    return hashed(calls["inference"]()[0])


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Run all scenarios, or those named; raise where a result is wrong or a process fails."""
    known = [*SCENARIOS, "empty cache", "idle", "memory"]
    names = known if names is None else list(names)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"names: expected some of {'; '.join(known)}; given {'; '.join(unknown)}")
    mode = "quick" if quick else "full"
    child = functools.partial(processes.call, threads=threads, timeout=TIMEOUT_S)
    cells = list(QUICK_CELLS if quick else CELLS)
    right = {name: right_bits(name, threads) for name in CELLS}
    one = {name: child(scenario, "one caller", name, SECONDS[mode]) for name in cells}

    def agree(title: str, name: str, bits: list[str]) -> None:
        if bits != [right[name]]:
            raise DisagreementError(f"{title}: {name}: other bits than those of this process")

    rows = []
    for title in [title for title in SCENARIOS if title in names]:
        for name in cells:
            done = one[name]
            if title != "one caller":
                done = child(scenario, title, name, SECONDS[mode])
            row = {"scenario": title, "cell": name, "missing": done.get("missing")}
            if not row["missing"]:
                agree(title, name, done["bits"])
                row["calls_per_s"] = round(done["calls_per_s"], 1)
                row["share_of_one"] = round(done["calls_per_s"] / one[name]["calls_per_s"], 3)
                row["met"] = row["share_of_one"] >= SHARE_GOAL
            rows.append(row)
    plain, left = None, {}
    for title in [title for title in CONTROLLED if title in names and not quick]:
        plain = plain or child(scenario, PLAIN, CONTROL, SECONDS[mode])["calls_per_s"]
        done = child(scenario, title, CONTROL, SECONDS[mode])
        if "missing" not in done:
            left[title] = round(done["calls_per_s"] / plain, 3)
    result: dict[str, Any] = {
        "bench": "callers",
        "machine": machine(threads),
        "quick": quick,
        "cells": [CELLS[name]._asdict() for name in cells],
        "rows": rows,
        "left_to_callers": left,
    }
    if "empty cache" in names:
        alone = start_together("b1_small", threads, 1)
        together = start_together("b1_small", threads, STARTERS[mode])
        for done in (alone, together):
            agree("empty cache", "b1_small", done["bits"])
        result["starting"] = {
            "processes": STARTERS[mode],
            "alone_s": round(alone["seconds"], 3),
            "together_s": round(together["seconds"], 3),
        }
    if "idle" in names:
        result["idle"] = child(idle)
        result["idle"]["met"] = result["idle"]["cpu_s"] <= IDLE_GOAL_S
    if "memory" in names:
        result["memory"] = child(growth, PREDICTIONS[mode])
        result["memory"]["met"] = result["memory"]["bytes"] <= GROWTH_GOAL_BYTES
    return result


def table(result: dict[str, Any]) -> str:
    """Render the throughput of all callers together beside one caller's, and the long lives."""
    cells_of = result["cells"]
    header = ["callers", *(f"calls/s {', '.join(str(c[d]) for d in 'BTIH')}" for c in cells_of)]
    header += ["of one caller's"] * len(cells_of) + ["met"]

    def met(done: dict[str, Any]) -> str:
        return "met" if done["met"] else "not met"

    rows = []
    for title in dict.fromkeys(row["scenario"] for row in result["rows"]):
        of_title = [row for row in result["rows"] if row["scenario"] == title]
        if any(row["missing"] for row in of_title):
            rows.append([title, *["missing"] * (2 * len(cells_of)), "unknown"])
            continue
        cells = [digits(row["calls_per_s"]) for row in of_title]
        cells += [f"{row['share_of_one']:.2f}" for row in of_title]
        rows.append([title, *cells, "yes" if all(row["met"] for row in of_title) else "no"])
    notes = [
        "All callers got the same bits; none aborted or waited for ever. Goal: in total at least "
        f"{SHARE_GOAL:g} of what one caller gets done."
    ]
    if left := result.get("left_to_callers"):
        shares = ", ".join(f"{share:.2f} in {title}" for title, share in left.items())
        notes.append(
            "What such a pool does itself, for comparison: of the NumPy calls that "
            f"{PLAIN} get done, as many get {shares}."
        )
    if done := result.get("starting"):
        notes.append(
            f"{done['processes']} processes that start together on an empty cache all have their "
            f"first result after {done['together_s']:.1f} s, one alone after {done['alone_s']:.1f}."
        )
    if done := result.get("idle"):
        notes.append(
            "CPU time of all threads after parallel kernels: "
            f"{done['settling_cpu_s'] * 1e3:.1f} ms until they rest, {done['cpu_s'] * 1e3:.2f} ms "
            f"over {done['seconds']:g} s of idling (goal: {IDLE_GOAL_S * 1e3:g} ms, {met(done)})."
        )
    if done := result.get("memory"):
        notes.append(
            f"Over {done['predictions']:,} predictions of changing length and batch resident "
            f"memory changed by {done['bytes'] / 1e6:+.2f} MB "
            f"(goal: {GROWTH_GOAL_BYTES / 1e6:g} MB, {met(done)})."
        )
    notes += [machine_line(result), command_line(result)]
    return "\n".join([markdown(header, rows), "", *notes])
