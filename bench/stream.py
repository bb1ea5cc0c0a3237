"""One step of a GRU at a time, as audio or ticks come in: how long until the state is there.

A step takes a NumPy array (1, I) and gives the new state as one, which the next step may write to.
Every library is called in its quickest form: memory bound once, states that stay where they are.
All are checked step by step against NumPy in float64. Best is over bursts of steps, as in the other
benchmarks; the percentiles are over single steps with a clock around each.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from bench.common import Budget, check_close, cpus_busy, machine, race, rest
from bench.kernels import Cell, Problem, exactly, make_problem, numpy_calls, ratios
from bench.peers import jax_gru, onnxruntime_session, openvino_request
from bench.report import command_line, digits, label, machine_line, markdown, missing_line
from fastgru import GRU, reference, set_num_threads


class Goal(NamedTuple):
    """What a step should take: at most `us`, with the best peer `best` times as long."""

    us: float
    best: float


SIZES = {
    Cell("small", 1, 1, 32, 64): Goal(us=2, best=4),
    Cell("h256", 1, 1, 64, 256): Goal(us=float("inf"), best=1),
}
BUDGETS = {"quick": Budget(0.4, least_rounds=2, patience=1), "full": Budget(8.0)}
ROUNDS = {"quick": 3, "full": 20}
SINGLES = 500  # steps with a clock around each, in one round
CHECKED = 50

Step = Callable[[np.ndarray], np.ndarray]


# ---- contenders: a factory takes a problem of one step and the number of threads


def fastgru_step(problem: Problem, threads: int) -> Step:
    """Use the public `stream`."""
    set_num_threads(threads)
    x, h0, weights, *_ = problem
    layer = GRU(h0.shape[1])
    layer.build(x.shape, dict(zip(layer.weight_shapes(x.shape), weights, strict=True)))
    return layer.stream(batch_size=1)


def onnxruntime_step(problem: Problem, threads: int) -> Step:
    """Run a model of one step between two bound states, each in turn the old and the new one."""
    session = onnxruntime_session(problem, threads)
    x = np.zeros_like(problem.x)
    states = [np.zeros((1, 1, *problem.h0.shape), np.float32) for _ in range(2)]
    bindings = []
    for old, new in (states, states[::-1]):
        binding = session.io_binding()
        binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
        binding.bind_input("h0", "cpu", 0, np.float32, old.shape[1:], old.ctypes.data)
        binding.bind_output("y", "cpu", 0, np.float32, new.shape, new.ctypes.data)
        bindings.append((binding, new[0, 0]))
    turns = itertools.cycle(bindings)
    run = session.run_with_iobinding

    def step(given: np.ndarray) -> np.ndarray:
        x[0] = given
        binding, h = next(turns)
        run(binding)
        return h

    return step


def openvino_step(problem: Problem, threads: int) -> Step:
    """Run the same model on memory bound once."""
    import openvino

    request = openvino_request(problem, threads)
    x, h = np.zeros_like(problem.x), np.zeros_like(problem.h0)
    request.set_input_tensor(0, openvino.Tensor(x, shared_memory=True))
    request.set_input_tensor(1, openvino.Tensor(h[None], shared_memory=True))
    request.infer()
    y = request.get_output_tensor(0).data[0, 0]

    def step(given: np.ndarray) -> np.ndarray:
        x[0] = given
        request.infer()
        h[...] = y
        return h

    return step


def torch_cell_step(problem: Problem, threads: int) -> Step:
    """Call nn.GRUCell in inference mode."""
    import torch

    return _torch_step(torch.nn.GRUCell, problem, threads)


def torch_gru_step(problem: Problem, threads: int) -> Step:
    """Call nn.GRU on sequences of one step (T, I)."""
    import torch

    return _torch_step(torch.nn.GRU, problem, threads)


def _torch_step(kind: Any, problem: Problem, threads: int) -> Step:
    import torch

    torch.set_num_threads(threads)
    x, h0, weights, *_ = problem
    module = kind(x.shape[2], h0.shape[1])
    with torch.no_grad():
        for parameter, values in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(values.T.copy()))
    h = torch.zeros(h0.shape)

    def step(given: np.ndarray) -> np.ndarray:
        nonlocal h
        with torch.inference_mode():
            outputs = module(torch.from_numpy(given), h)
            h = outputs[1] if isinstance(outputs, tuple) else outputs
            return h.numpy()

    return step


def jax_step(problem: Problem, threads: int) -> Step:
    """Call the compiled step, whose state stays in JAX's memory."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    from jax import numpy as jnp

    weights = tuple(map(jnp.asarray, problem.weights))
    h = jnp.zeros(problem.h0.shape)

    @jax.jit
    def run(x: Any, h: Any, weights: Any) -> Any:
        return jax_gru(x[None], h, weights, jnp.zeros((1, 1, 1)))[1]

    def step(given: np.ndarray) -> np.ndarray:
        nonlocal h
        h = run(given, h, weights)
        return np.asarray(h)

    return step


def numpy_step(problem: Problem, threads: int) -> Step:
    """Call the reference on sequences of one step."""
    h, weights = np.zeros_like(problem.h0), problem.weights

    def step(given: np.ndarray) -> np.ndarray:
        nonlocal h
        h = reference.gru_forward(given[None], None, h, *weights, keep_gates=False)[0][:, 0]
        return h

    return step


CONTENDERS: dict[str, Callable[[Problem, int], Step]] = {
    "fastgru": fastgru_step,
    "onnxruntime": onnxruntime_step,
    "openvino": openvino_step,
    "pytorch": torch_cell_step,
    "pytorch_gru": torch_gru_step,
    "jax": jax_step,
    "numpy": numpy_step,
}


def enter(problem: Problem, threads: int) -> tuple[dict[str, Step], dict[str, str]]:
    """Make all contenders, in the state of zeros; one that is not installed is missing."""
    present, missing = {}, {}
    for name, factory in CONTENDERS.items():
        try:
            present[name] = factory(problem, threads)
        except ImportError as error:
            missing[name] = str(error)
    return present, missing


def verify(size: Cell, problem: Problem, present: dict[str, Step]) -> dict[str, float]:
    """Check the first steps of all contenders against NumPy in float64; raise if one is off."""
    x = np.random.default_rng(1).standard_normal((1, CHECKED, size.I)).astype(np.float32)
    exact = exactly(problem._replace(x=x, h0=np.zeros_like(problem.h0)))
    (want,) = numpy_calls(exact)["inference"]()
    return {
        name: max(
            check_close(
                f"{size.name} {name} step {t}",
                np.array(step(x[:, t])).reshape(problem.h0.shape),
                want[:, t],
                terms=size.I + size.H,
            )
            for t in range(CHECKED)
        )
        for name, step in present.items()
    }


# ---- measuring


def latencies(
    calls: dict[str, Callable[[], Any]], rounds: int, singles: int = SINGLES
) -> dict[str, dict[str, float]]:
    """Return the percentiles of single calls in microseconds, taken in turns, without the clock."""
    clock = time.perf_counter_ns
    taken: dict[str, list[int]] = {name: [] for name in calls}
    ticks = sorted(-(clock() - clock()) for _ in range(1001))[500]
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in calls.items():
                rest()
                for _ in range(20):
                    call()
                for _ in range(singles):
                    begin = clock()
                    call()
                    taken[name].append(clock() - begin - ticks)
    finally:
        if was_enabled:
            gc.enable()
    return {
        name: {f"p{p}_us": round(float(np.percentile(times, p)) / 1e3, 3) for p in (50, 99)}
        for name, times in taken.items()
    }


def allocations(call: Callable[[], Any], calls: int = 1000) -> dict[str, int]:
    """Return by how many bytes Python's and NumPy's memory grew over some calls, and its peak.

    The peak holds what comes and goes within one call: Python's own tuples and numbers too.
    """

    def repeat(times: int) -> None:
        for _ in itertools.repeat(None, times):
            call()

    repeat(10)
    tracemalloc.start()
    try:
        repeat(10)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        repeat(calls)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return {"calls": calls, "grown_bytes": after - before, "peak_bytes": peak - before}


def is_free(allocated: dict[str, int], size: Cell) -> bool:
    """Tell whether steps allocate nothing that stays, and never as much as the smallest array."""
    smallest = np.empty(min(size.I, size.H), np.float32).__sizeof__()
    return allocated["grown_bytes"] < allocated["calls"] and allocated["peak_bytes"] < smallest


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify and time both sizes; return what `bench/results/stream.json` holds."""
    known = {size.name: size for size in SIZES}
    names = list(known if names is None else names)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"sizes: expected some of {', '.join(known)}; given {', '.join(unknown)}")
    which = "quick" if quick else "full"
    busy = cpus_busy()
    rows = []
    missing: dict[str, str] = {}
    for size in map(known.__getitem__, names):
        problem = make_problem(size)
        present, missing = enter(problem, threads)
        row: dict[str, Any] = {**size._asdict(), "error_share": verify(size, problem, present)}
        x = problem.x[0]
        calls = {name: functools.partial(step, x) for name, step in present.items()}
        row["allocated"] = allocations(calls["fastgru"])
        timings = race(calls, BUDGETS[which])
        singles = latencies(calls, ROUNDS[which])
        row["steps"] = {name: {**timings[name]._asdict(), **singles[name]} for name in calls}
        goal, own = SIZES[size], row["steps"]["fastgru"]["best_us"]
        met = (
            own <= goal.us
            and min(ratios(row["steps"]).values(), default=goal.best) >= goal.best
            and is_free(row["allocated"], size)
        )
        row["goal"] = {"us": goal.us if goal.us < 1e9 else None, "best": goal.best}
        row["met"] = None if met and missing else met
        rows.append(row)
    return {
        "bench": "stream",
        "machine": machine(threads),
        "quick": quick,
        "cpus_busy_before": busy,
        "cpus_busy_after": cpus_busy(),
        "contenders": list(CONTENDERS),
        "missing": missing,
        "sizes": rows,
    }


# ---- the table


def table(result: dict[str, Any]) -> str:
    """Render best, 50th and 99th percentile of each library's step."""
    sizes = result["sizes"]
    header = ["one step, us"]
    for size in sizes:
        header += [f"{size['I']} inputs, {size['H']} units: best", "p50", "p99"]
    rows = []
    for name in result["contenders"]:
        row = [label(name)]
        for size in sizes:
            timing = size["steps"].get(name)
            keys = ("best_us", "p50_us", "p99_us")
            row += [digits(timing[key]) for key in keys] if timing else ["missing", "-", "-"]
        rows.append(row)
    parts = [markdown(header, rows), ""]
    for size in sizes:
        times = ratios(size["steps"])
        fastest = min(times, key=times.__getitem__, default=None)
        goal, allocated = size["goal"], size["allocated"]
        verdict = {True: "met", False: "not met", None: "unknown while libraries are missing"}
        parts.append(
            f"{size['H']} units: "
            + (f"{label(fastest)} takes {times[fastest]:.1f} times as long; " if fastest else "")
            + f"over {allocated['calls']} steps memory grew by {allocated['grown_bytes']} bytes, "
            f"and within one by at most {allocated['peak_bytes']}; the goal, "
            + (f"{goal['us']:g} us and " if goal["us"] else "")
            + f"{goal['best']:g} times the best peer, is {verdict[size['met']]}."
        )
    parts.append(machine_line(result))
    if result["missing"]:
        parts.append(missing_line(result))
    return "\n".join([*parts, command_line(result)])
