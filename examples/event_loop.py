"""Run a trained model inside an event loop that Numba compiles, one frame at a time.

A machine has two sensors. A pulse on the second is an alarm if the first had one in the 12 frames
before. A GRU learns to tell; then a compiled loop takes frames as they come, moves the network on,
applies rules of its own (an alarm is raised once, then there is a pause) and never returns to
Python.

python examples/event_loop.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

import fastgru as fg
from command_line import natural, positive

MEMORY = 12  # frames
PAUSE = 5  # frames after an alarm without another one


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--frames", type=positive, default=1_000_000, help="how many the loop takes"
    )
    parser.add_argument("--units", type=positive, default=16, help="default: 16")
    parser.add_argument("--epochs", type=positive, default=40, help="default: 40")
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--threads", type=positive, help="for training; the loop has one")
    parser.add_argument("--smoke", action="store_true", help="a short run, in seconds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


def sensors(rows: int, frames: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy signals (rows, frames, 2) and where alarms belong, (rows, frames, 1)."""
    pulses = random.random((rows, frames, 2)) < 0.06
    recent = np.zeros((rows, frames), bool)
    for back in range(1, MEMORY + 1):
        recent[:, back:] |= pulses[:, : frames - back, 0]
    signals = pulses + random.normal(0, 0.1, pulses.shape)
    return signals.astype(np.float32), (recent & pulses[:, :, 1])[..., None]


def trained(units: int, epochs: int, random: np.random.Generator) -> fg.Sequential:
    """Return a model that gives the probability of an alarm at every frame."""
    model = fg.Sequential([fg.GRU(units, return_sequences=True), fg.Dense(1, "sigmoid")])
    model.compile(fg.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    x, y = sensors(512, 64, random)
    model.fit(x, y, epochs=epochs, verbose="auto")
    return model


def event_loop(model: fg.Sequential) -> Callable[[np.ndarray], tuple[np.ndarray, int]]:
    """Return a compiled loop: frames (n, 2) -> probabilities (n,), number of alarms raised."""
    gru, dense = (layer.stream() for layer in model.layers)
    # Functions that Numba has compiled: the loop calls them as its own.
    gru_step, dense_step = gru.compiled.kernel, dense.compiled.kernel

    @numba.njit(nogil=True)
    def loop(
        frames: Any, x: Any, gru_memory: Any, h: Any, inner: Any, dense_memory: Any, y: Any
    ) -> Any:
        scores = np.empty(len(frames), y.dtype)
        alarms, pause = 0, 0
        for t in range(len(frames)):
            x[0] = frames[t]
            gru_step(*gru_memory)
            inner[0] = h[0]
            dense_step(*dense_memory)
            scores[t] = y[0, 0]
            pause = max(0, pause - 1)
            if scores[t] > 0.5 and pause == 0:
                alarms += 1
                pause = PAUSE
        return scores, alarms

    def run(frames: np.ndarray) -> tuple[np.ndarray, int]:
        gru.reset()
        places = gru.x, gru.compiled.arguments, gru.y, dense.x, dense.compiled.arguments, dense.y
        scores, alarms = loop(frames, *places)
        return scores, alarms

    return run


def main() -> None:
    """Train, run the loop, and compare it with the model."""
    options = arguments()
    if options.smoke:
        options.frames, options.epochs = 20_000, 25
    fg.set_random_seed(options.seed)
    if options.threads:
        fg.set_num_threads(options.threads)
    random = np.random.default_rng(options.seed)
    start = time.perf_counter()
    model = trained(options.units, options.epochs, random)
    x, y = sensors(1, options.frames, random)

    loop = event_loop(model)
    loop(x[0, :2])  # compiles
    begin = time.perf_counter()
    scores, alarms = loop(x[0])
    each = (time.perf_counter() - begin) / options.frames
    equal = scores.tobytes() == model.predict(x).tobytes()
    accuracy = float(((scores > 0.5) == y[0, :, 0]).mean())
    recall = float((scores > 0.5)[y[0, :, 0]].mean())
    seconds = time.perf_counter() - start

    print(f"{options.frames:,} frames, {alarms:,} alarms, {1e9 * each:.0f} ns a frame.")
    print(f"{accuracy:.4f} of all frames are judged right, {recall:.3f} of those with an alarm.")
    print(f"The loop gives {'the bits' if equal else 'other bits than those'} of model.predict.")
    if not equal:
        raise SystemExit("expected the bits of model.predict")
    if options.smoke and recall < 0.9:
        raise SystemExit(f"expected 0.9 of the alarms or more, got {recall:.3f}")
    if options.json:
        print(json.dumps({
            "seconds": round(seconds, 3),
            "accuracy": accuracy,
            "recall": recall,
            "alarms": alarms,
            "ns_per_frame": 1e9 * each,
            "parameters": model.count_params(),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
