"""Whole training steps of the models that people train, in tokens per second.

One step = embedding, GRUs, dense layer, loss, backward, clipping by the global norm, Adam: one
`train_on_batch`. The ids and targets are drawn from a seed, sequences are full. Before any is
timed, all contenders begin with the same weights and must report the same losses.

Beside it: what `fit` spends on a batch outside the kernels.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

import fastgru as fg
from bench.common import Budget, DisagreementError, cpus_busy, machine, race, rest
from bench.kernels import Goal, Limits, ratios
from bench.peers import import_keras, swap_gates
from bench.report import command_line, digits, label, machine_line, markdown, missing_line
from fastgru import kernels


class Task(NamedTuple):
    """A model and its batch: B rows of T ids below V; GRUs of `units`, one after the other.

    `classes` is 1 where one label goes with a row, else there is one of V with every step.
    """

    name: str
    title: str
    B: int
    T: int
    V: int
    embedding: int
    units: tuple[int, ...]
    bidirectional: bool
    classes: int
    goal: Goal

    @property
    def is_classifier(self) -> bool:
        """Whether the last GRU gives its last state alone."""
        return self.classes == 1

    def flops(self) -> int:
        """Count the operations of the products of GRUs and dense layer, forward and backward."""
        directions = 1 + self.bidirectional
        total, inputs = 0, self.embedding
        for H in self.units:
            total += 2 * self.B * self.T * (inputs + H) * 3 * H * directions
            inputs = H * directions
        rows = self.B * (1 if self.is_classifier else self.T)
        return 3 * (total + 2 * rows * inputs * self.classes)


TASKS = (
    Task(
        "reviews", "movie reviews, GRU 8 and 8", 32, 32, 6000, 16, (8, 8), False, 1,
        Goal(best=5),
    ),
    Task(
        "bidirectional", "classifier, bidirectional GRU 64 and 64", 32, 64, 6000, 64, (64, 64),
        True, 1, Goal(best=3),
    ),
    Task(
        "characters", "language model, GRU 256, V = 96", 64, 64, 96, 256, (256,), False, 96,
        Goal(best=1.75),
    ),
    Task(
        "words", "language model, GRU 256, V = 10,000", 64, 64, 10_000, 256, (256,), False, 10_000,
        Goal(best=1, peak=0.8),
    ),
)  # fmt: skip
QUICK_TASKS = ("reviews", "characters")
BUDGETS = {"quick": Budget(0.5, least_rounds=2, patience=1), "full": Budget(15.0)}
BATCHES = 64  # different ones, in turn
# PyTorch and Keras add epsilon at different places; this one is too small for that to tell.
LEARNING_RATE, EPSILON, CLIP = 0.01, 1e-12, 1.0

# A contender trains on one batch and returns the loss before the step.
Step = Callable[[np.ndarray, np.ndarray], float]
Weights = list[list[np.ndarray]]  # of each layer, in Keras' order and layout


def batches(task: Task, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw batches of ids (B, T) and targets: (B, 1) of 0 and 1, or ids (B, T)."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(BATCHES):
        x = rng.integers(0, task.V, (task.B, task.T))
        classifies = task.is_classifier
        y = rng.integers(0, 2, (task.B, 1)) if classifies else rng.integers(0, task.V, x.shape)
        drawn.append((x, y.astype(np.float32) if classifies else y))
    return drawn


# ---- contenders: a factory takes a task, the number of threads and the first weights


def fastgru_model(task: Task) -> fg.Sequential:
    """Build and compile the model of a task."""
    model = fg.Sequential([fg.Embedding(task.V, task.embedding, seed=1)])
    for i, H in enumerate(task.units):
        sequences = i + 1 < len(task.units) or not task.is_classifier
        layer = fg.GRU(H, return_sequences=sequences, seed=2 + i)
        model.add(fg.Bidirectional(layer) if task.bidirectional else layer)
    model.add(fg.Dense(task.classes, "sigmoid" if task.is_classifier else "softmax", seed=9))
    kind = "binary" if task.is_classifier else "sparse_categorical"
    optimizer = fg.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON, global_clipnorm=CLIP)
    model.compile(optimizer, loss=f"{kind}_crossentropy")
    model.build((None, task.T))
    return model


def fastgru_step(task: Task, threads: int, weights: Weights) -> Step:
    """Train with `train_on_batch`."""
    fg.set_num_threads(threads)
    model = fastgru_model(task)
    for layer, arrays in zip(model.layers, weights, strict=True):
        layer.set_weights(arrays)
    return model.train_on_batch


def torch_step(task: Task, threads: int, weights: Weights) -> Step:
    """Train with autograd, `clip_grad_norm_` and the fused Adam."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    directions = 1 + task.bidirectional
    embedding = nn.Embedding(task.V, task.embedding)
    H = task.units[0]
    gru = nn.GRU(
        task.embedding, H, len(task.units), batch_first=True, bidirectional=task.bidirectional
    )
    dense = nn.Linear(H * directions, task.classes)
    parts = nn.ModuleList([embedding, gru, dense])
    first, *middle, last = weights
    recurrent = [
        part
        for layer in middle
        for i in range(0, len(layer), 3)
        for kernel, recurrent_kernel, biases in [layer[i : i + 3]]
        for part in (swap_gates(kernel).T, swap_gates(recurrent_kernel).T, *swap_gates(biases))
    ]
    values = [*first, *recurrent, last[0].T, last[1]]
    with torch.no_grad():
        for parameter, value in zip(parts.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    optimizer = torch.optim.Adam(parts.parameters(), LEARNING_RATE, eps=EPSILON, fused=True)
    parameters = list(parts.parameters())

    def step(x: np.ndarray, y: np.ndarray) -> float:
        optimizer.zero_grad(set_to_none=True)
        sequence, states = gru(embedding(torch.from_numpy(x)))
        target = torch.from_numpy(y)
        if task.is_classifier:
            logits = dense(torch.cat(tuple(states[-directions:]), dim=1))
            loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
        else:
            logits = dense(sequence).reshape(-1, task.classes)
            loss = nn.functional.cross_entropy(logits, target.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return loss.item()

    return step


def keras_step(task: Task, threads: int, weights: Weights) -> Step:
    """Train with `train_on_batch`, compiled as its backend does by default."""
    keras = import_keras()
    model = keras.Sequential([keras.Input((task.T,), dtype="int32")])
    model.add(keras.layers.Embedding(task.V, task.embedding))
    for i, H in enumerate(task.units):
        sequences = i + 1 < len(task.units) or not task.is_classifier
        layer = keras.layers.GRU(H, return_sequences=sequences)
        model.add(keras.layers.Bidirectional(layer) if task.bidirectional else layer)
    model.add(keras.layers.Dense(task.classes))
    for layer, arrays in zip(model.layers, weights, strict=True):
        layer.set_weights(arrays)
    losses = keras.losses
    kind = losses.BinaryCrossentropy if task.is_classifier else losses.SparseCategoricalCrossentropy
    optimizer = keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON, global_clipnorm=CLIP)
    model.compile(optimizer, kind(from_logits=True))

    def step(x: np.ndarray, y: np.ndarray) -> float:
        model.reset_metrics()  # or it returns the mean of all losses so far
        return float(model.train_on_batch(x, y))

    return step


CONTENDERS: dict[str, Callable[[Task, int, Weights], Step]] = {
    "fastgru": fastgru_step,
    "pytorch": torch_step,
    "keras": keras_step,
}


def enter(task: Task, threads: int) -> tuple[dict[str, Step], dict[str, str]]:
    """Make all contenders with the same weights; one that is not installed is missing."""
    weights = [layer.get_weights() for layer in fastgru_model(task).layers]
    present, missing = {}, {}
    for name, factory in CONTENDERS.items():
        try:
            present[name] = factory(task, threads, weights)
        except ImportError as error:
            missing[name] = str(error)
    return present, missing


# ---- the check

STEPS = 3
TOLERANCE = 1e-3


def verify(task: Task, present: dict[str, Step]) -> dict[str, list[float]]:
    """Train on one batch three times; raise unless all report the same, falling, losses."""
    x, y = batches(task)[0]
    losses = {name: [float(step(x, y)) for _ in range(STEPS)] for name, step in present.items()}
    want = losses["fastgru"]
    if not want[0] - want[-1] > 5 * TOLERANCE * want[0]:
        raise DisagreementError(f"{task.name}: the losses {want} fall too little to tell anything")
    for name, got in losses.items():
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            if not abs(one - other) <= TOLERANCE * abs(other):
                raise DisagreementError(
                    f"{task.name}: loss {i} of {name} is {one}, that of fastgru {other}"
                )
    return losses


# ---- what fit adds to the kernels

# Every other step of `fit` on so little data is Python.
TINY = TASKS[0]._replace(name="tiny", B=2, T=4)

# These make or convert arrays, or choose something: a cost of Python's, not the work of a batch.
NO_KERNELS = {
    "ACTIVATIONS", "aligned_empty", "as_kernel_array", "get_num_threads", "set_num_threads",
}  # fmt: skip


@contextlib.contextmanager
def timed_kernels(spent: list[float]) -> Iterator[None]:
    """Inside, add the seconds of each call that is made to `fastgru.kernels` to a list."""
    clock = time.perf_counter

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            begin = clock()
            result = function(*args, **options)
            spent.append(clock() - begin)
            return result

        return call

    own = {name: getattr(kernels, name) for name in kernels.__all__ if name not in NO_KERNELS}
    try:
        for name, function in own.items():
            setattr(kernels, name, timed(function))
        yield
    finally:
        for name, function in own.items():
            setattr(kernels, name, function)


def fit_overhead(rounds: int = 7, batches_of_a_round: int = 400) -> dict[str, Any]:
    """Return what `fit` takes for a tiny batch, and what of it the kernels take, in microseconds.

    The time of a batch is the difference between epochs of twice as many batches and of as many,
    so what `fit` does once does not count. In other epochs every call from fastgru's layers,
    losses and optimizer to `fastgru.kernels` is timed, less what the clock itself takes.
    """
    model = fastgru_model(TINY)
    drawn = batches(TINY)
    repeats = -(-2 * batches_of_a_round // len(drawn))
    x, y = (np.concatenate([pair[i] for pair in drawn] * repeats) for i in (0, 1))
    once = TINY.B * batches_of_a_round

    def fit(samples: int) -> float:
        begin = time.perf_counter()
        model.fit(x[:samples], y[:samples], batch_size=TINY.B, verbose=0)
        return time.perf_counter() - begin

    ticks: list[float] = []
    with_clock = []
    fit(once)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        longer, shorter = [], []
        for _ in range(rounds):
            rest()
            shorter.append(fit(once))
            longer.append(fit(2 * once))
            spent: list[float] = []
            with timed_kernels(spent):
                fit(once)
            with_clock.append(sum(spent) / batches_of_a_round)
            calls = len(spent) / batches_of_a_round
            for _ in range(1000):
                begin = time.perf_counter()
                ticks.append(time.perf_counter() - begin)
    finally:
        if was_enabled:
            gc.enable()
    batch = (min(longer) - min(shorter)) / batches_of_a_round
    inside = min(with_clock) - calls * statistics.median(ticks)
    return {
        "batch_us": round(batch * 1e6, 2),
        "kernels_us": round(inside * 1e6, 2),
        "overhead_us": round((batch - inside) * 1e6, 2),
        "calls": round(calls, 2),
        "goal_us": 50,
    }


# ---- the run


def _endless(step: Step, task: Task) -> Callable[[], Any]:
    """Return a call that trains on the next batch."""
    drawn = batches(task)
    i = 0

    def call() -> None:
        nonlocal i
        step(*drawn[i])
        i = (i + 1) % len(drawn)

    return call


def chosen(names: Iterable[str] | None, quick: bool) -> list[Task]:
    """Return the tasks of these names; by default all, or some if it has to be quick."""
    known = {task.name: task for task in TASKS}
    if names is None:
        names = QUICK_TASKS if quick else known
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"tasks: expected some of {', '.join(known)}; given {', '.join(unknown)}")
    return [known[name] for name in names]


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify and time every task; return what `bench/results/train.json` holds."""
    tasks = chosen(names, quick)
    busy = cpus_busy()
    limits = Limits(threads)
    limits.measure()
    rows = []
    missing: dict[str, str] = {}
    for task in tasks:
        row: dict[str, Any] = {**task._asdict(), "goal": str(task.goal), "steps": {}}
        rows.append(row)
        present, missing = enter(task, threads)
        row["losses"] = verify(task, present)
        calls = {name: _endless(step, task) for name, step in present.items()}
        timings = race(calls, BUDGETS["quick" if quick else "full"])
        row["steps"] = {name: timing._asdict() for name, timing in timings.items()}
        if not all(timing.settled for timing in timings.values()):
            print(f"warning: {task.name}: times did not settle", file=sys.stderr)
        limits.measure()
    peak = limits.rates[f"fma_{threads}"]
    for task, row in zip(tasks, rows, strict=True):
        for timing in row["steps"].values():
            timing["tokens_per_s"] = round(task.B * task.T / timing["best_us"] * 1e6)
            timing["peak_share"] = round(task.flops() / timing["best_us"] / 1e3 / peak, 4)
        row["met"] = task.goal.met(row["steps"], missing)
    return {
        "bench": "train",
        "machine": machine(threads),
        "quick": quick,
        "cpus_busy_before": busy,
        "cpus_busy_after": cpus_busy(),
        "gflops": {name: round(rate, 1) for name, rate in limits.rates.items()},
        "contenders": list(CONTENDERS),
        "missing": missing,
        "keras_backend": _backend(),
        "tasks": rows,
        "fit": fit_overhead(*([3, 100] if quick else [])),
    }


def _backend() -> str | None:
    keras = sys.modules.get("keras")
    return keras.backend.backend() if keras else None


def table(result: dict[str, Any]) -> str:
    """Render tokens per second, the others' ratios, and what a batch costs outside the kernels."""
    others = [name for name in result["contenders"] if name != "fastgru"]
    header = ["one training step", "B, T", "tokens/s", "best ms", "median ms", "of FMA peak"]
    header += [*(f"{label(name)} tokens/s" for name in others), "best peer", "goal met"]
    rows = []
    for task in result["tasks"]:
        steps = task["steps"]
        row = [task["title"], f"{task['B']}, {task['T']}"]
        own = steps["fastgru"]
        row += [digits(own["tokens_per_s"])]
        row += [digits(own[f"{which}_us"] / 1000) for which in ("best", "median")]
        row += [f"{own['peak_share']:.0%}"]
        row += [digits(steps[n]["tokens_per_s"]) if n in steps else "missing" for n in others]
        times = ratios(steps)
        fastest = min(times, key=times.__getitem__, default=None)
        row += [f"{label(fastest)} {times[fastest]:.2f}" if fastest else "-"]
        verdict = {True: "yes", False: "no", None: "?"}[task["met"]]
        rows.append([*row, f"{verdict}: {task['goal']}"])
    fit = result["fit"]
    parts = [
        markdown(header, rows),
        "",
        "Embedding, GRU, dense, loss, backward, clipping by the global norm and Adam; tokens per "
        "second at best, and how many times longer the best peer takes; the first "
        f"{STEPS} losses agree. Keras runs on {label(result['keras_backend'] or 'nothing')}.",
        f"`fit` takes {digits(fit['batch_us'])} us for a batch of {TINY.B} rows of {TINY.T} ids "
        f"through the first model, {digits(fit['kernels_us'])} us of it in {fit['calls']:g} calls "
        f"of kernels: {digits(fit['overhead_us'])} us of Python (goal: at most "
        f"{fit['goal_us']} us).",
        machine_line(result),
    ]
    unsettled = [
        task["name"]
        for task in result["tasks"]
        if not all(timing["settled"] for timing in task["steps"].values())
    ]
    if unsettled:
        parts.append(f"The machine was busy; times did not settle in: {', '.join(unsettled)}.")
    if result["missing"]:
        parts.append(missing_line(result))
    return "\n".join([*parts, command_line(result)])
