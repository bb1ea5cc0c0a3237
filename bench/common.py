"""What every benchmark needs: a fair environment, the machine, a check and a clock.

Nothing here imports NumPy at the top: its BLAS reads the number of threads from the environment
while it is loaded, so `prepare_environment` has to come first.
"""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"

THREAD_VARIABLES = (
    "FASTGRU_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # of XLA's pool, that is, JAX
)
# Some machines set these for another program; they make OpenBLAS choose slower loops.
HANDICAPS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

EPSILON = 2.0**-23  # of float32

# The distributions of the other libraries.
PEERS = {
    "pytorch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "jax": "jax",
    "keras": "keras",
}


# ---- the environment


def default_threads() -> int:
    """Return how many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def prepare_environment(threads: int) -> None:
    """Give every library the same number of threads; raise if NumPy is loaded already."""
    if "numpy" in sys.modules:
        raise RuntimeError("the threads of NumPy's BLAS must be set before NumPy is imported")
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    for name in HANDICAPS:
        os.environ.pop(name, None)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _blas() -> dict[str, Any]:
    """Describe NumPy's BLAS: name and version; loops and threads too if threadpoolctl tells."""
    import numpy as np

    try:
        build = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    except (TypeError, KeyError):
        build = {}
    about = {key: build.get(key, "unknown") for key in ("name", "version")}
    if importlib.util.find_spec("threadpoolctl"):
        import threadpoolctl

        for pool in threadpoolctl.threadpool_info():
            if pool.get("user_api") == "blas":
                about["architecture"] = pool.get("architecture")
                about["threads"] = pool.get("num_threads")
    return about


def versions() -> dict[str, str]:
    """Return the versions of the other libraries that are installed."""
    found = {}
    for name, distribution in PEERS.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def machine(threads: int) -> dict[str, Any]:
    """Describe what the numbers were measured on."""
    import numba
    import numpy as np

    from fastgru._version import __version__
    from fastgru.kernels.width import SIMD_WIDTH

    return {
        "cpu": _cpu_model(),
        "cpus": default_threads(),
        "vector_bits": 32 * SIMD_WIDTH,
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
        "numba": numba.__version__,
        "fastgru": __version__,
        "versions": versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def cpus_busy(seconds: float = 0.5) -> float | None:
    """Return how many CPUs other processes, or other guests, keep busy while this one sleeps."""

    def ticks() -> tuple[int, int]:
        fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        return sum(fields), fields[3] + fields[4]  # all; idle and waiting

    try:
        total, idle = ticks()
        time.sleep(seconds)
        total_after, idle_after = ticks()
    except (OSError, ValueError, IndexError):
        return None
    passed = max(total_after - total, 1)
    return round((os.cpu_count() or 1) * (1 - (idle_after - idle) / passed), 2)


# ---- the check


class DisagreementError(AssertionError):
    """A contender's result is wrong, so its time means nothing."""


def check_close(what: str, got: Any, want: Any, terms: int, factor: float = 16.0) -> float:
    """Raise unless |got - want| <= factor * eps32 * sqrt(terms) * max|want|.

    Parameters
    ----------
    what : str
        Whose array this is, for the message.
    got : float32 array
    want : float64 array
        The truth.
    terms : int
        How many rounded products each element sums.
    factor : float
        How many times larger than the expected rounding error an error may be.

    Returns
    -------
    share : float
        The largest error as a share of what is allowed.
    """
    if got.shape != want.shape or got.dtype.name != "float32":
        raise DisagreementError(
            f"{what}: expected float32 {want.shape}, received {got.dtype} {got.shape}"
        )
    error = float(abs(got - want).max())
    allowed = factor * EPSILON * math.sqrt(terms) * float(abs(want).max())
    if not error <= allowed:  # NaN is no agreement
        raise DisagreementError(f"{what}: off by {error:.3g}, where {allowed:.3g} is allowed")
    return error / allowed


# ---- the clock


class Timing(NamedTuple):
    """How long one call took, in microseconds.

    `best` is what the code can do, `median` what it did on this machine; `settled` tells whether
    several rounds came within 5 % of the best, that is, whether the machine was quiet enough.
    """

    best_us: float
    median_us: float
    samples: int
    rounds: int
    settled: bool


# Thread pools spin after a call, ONNX Runtime's for 40 ms, OpenBLAS' for 100 ms; the next contender
# must not pay for that.
PAUSE_S = 0.025
SLICE_S = 0.005  # A pause ends with so long a time in which no thread of this process ran,
LONGEST_PAUSE_S = 0.5  # unless one never rests.
BURST_S = 0.015  # How long one contender runs in one round.
SAMPLE_S = 50e-6  # A sample takes at least this long, hundreds of ticks of the clock.
SETTLED_ROUNDS = 3
SETTLED_RATIO = 1.05


class Budget(NamedTuple):
    """How long a race may take: the seconds that it should, the rounds that it must have.

    While a best time has not been met again, it goes on up to `patience` times as long.
    """

    seconds: float
    least_rounds: int = 5
    patience: float = 4


def rest() -> bool:
    """Pause until the threads of this process are idle; return whether they are."""
    time.sleep(PAUSE_S)
    end = time.perf_counter() + LONGEST_PAUSE_S
    while time.perf_counter() < end:
        used = time.process_time()
        time.sleep(SLICE_S)
        if time.process_time() - used < SLICE_S / 10:
            return True
    return False


def race(contenders: Mapping[str, Callable[[], Any]], budget: Budget) -> dict[str, Timing]:
    """Time contenders against each other, round by round, so that all meet the same machine.

    In each round every contender pauses, runs once untimed, then runs for a burst; the order
    rotates. Rounds go on until the budget is spent.
    """
    calls = {}
    for name, call in contenders.items():
        call()
        begin = time.perf_counter()
        call()
        calls[name] = max(1, math.ceil(SAMPLE_S / max(time.perf_counter() - begin, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    bests: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        begin = time.perf_counter()
        while True:
            for name in order:
                rest()
                burst = _burst(contenders[name], calls[name])
                samples[name] += burst
                bests[name].append(min(burst))
            order.append(order.pop(0))
            spent = time.perf_counter() - begin
            settled = all(map(_is_settled, bests.values()))
            rounds = len(bests[order[0]])
            limit = budget.seconds if settled else budget.patience * budget.seconds
            if rounds >= budget.least_rounds and spent >= limit:
                break
    finally:
        if was_enabled:
            gc.enable()
    return {
        name: Timing(
            round(min(taken) * 1e6, 3),
            round(statistics.median(taken) * 1e6, 3),
            len(taken),
            rounds,
            _is_settled(bests[name]),
        )
        for name, taken in samples.items()
    }


def _burst(call: Callable[[], Any], calls: int) -> list[float]:
    """Return the seconds per call of the samples of one burst."""
    clock = time.perf_counter
    call()
    samples = []
    end = clock() + BURST_S
    while True:
        begin = clock()
        for _ in range(calls):
            call()
        now = clock()
        samples.append((now - begin) / calls)
        if now >= end:
            return samples


def _is_settled(bests: list[float]) -> bool:
    near = SETTLED_RATIO * min(bests)
    return sum(best <= near for best in bests) >= SETTLED_ROUNDS


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write a result, one key a line, so that a new run makes a readable diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
