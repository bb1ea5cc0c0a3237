"""GRU, LSTM and SimpleRNN: what a step costs, and what each has learned after the same time.

The costs are those of one layer. What they learn: to tell good movie reviews from bad ones, in the
network of the quickstart with one recurrent layer. Each cell trains for so many seconds, kernels
compiled before, and after each epoch the clock stops for its accuracy on reviews that it has not
seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import fastgru as fg
from bench.common import Budget, machine, race
from bench.report import command_line, digits, machine_line, markdown
from fastgru.recurrent import CELLS

B, T, I, H = 32, 100, 64, 128
BUDGETS = {"quick": Budget(0.3, 2, 1), "full": Budget(4.0)}
SECONDS = {"quick": 1.0, "full": 20.0}
WORDS, STEPS, UNITS = 6000, 32, 32


def cost(name: str, rng: np.random.Generator) -> dict[str, Any]:
    """Return a layer's params, the floats it keeps per step and row, and the calls to time."""
    layer = CELLS[name](H, return_sequences=True, seed=0)
    x = rng.standard_normal((B, T, I)).astype(np.float32)
    dy = rng.standard_normal((B, T, H)).astype(np.float32)

    def inference() -> None:
        layer(x)

    def training() -> None:
        layer.changed()
        _, backward = layer.forward(x)
        backward(dy)

    training()
    return {
        "parameters": layer.count_params(),
        "kept_floats": kept_floats(layer.forward(x)[1], x),
        "calls": {"inference": inference, "training": training},
    }


def kept_floats(backward: Any, x: np.ndarray) -> int:
    """Return how many floats a backward function holds for each step and row, beside the input."""
    held = []
    for cell in backward.__closure__:
        value = cell.cell_contents
        held += value if isinstance(value, (tuple, list)) else [value]
    arrays = {id(a): a for a in held if isinstance(a, np.ndarray) and a is not x}
    return sum(a.size for a in arrays.values() if a.shape[:2] == (B, T)) // (B * T)


def learn(name: str, data: Any, seconds: float) -> list[tuple[float, float]]:
    """Return (seconds of training, accuracy on unseen reviews) after each epoch."""
    (x, y), (held_x, held_y) = data
    fg.set_random_seed(0)
    model = fg.Sequential(
        [
            fg.Embedding(WORDS, 16, mask_zero=True),
            CELLS[name](UNITS),
            fg.Dropout(0.3),
            fg.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        fg.optimizers.Adam(2e-3, global_clipnorm=1.0), "binary_crossentropy", ["accuracy"]
    )
    model.train_on_batch(x[:32], y[:32])
    model.evaluate(held_x, held_y)
    curve, spent = [], 0.0
    while spent < seconds:
        begin = time.perf_counter()
        model.fit(x, y, verbose=0)
        spent += time.perf_counter() - begin
        accuracy = model.evaluate(held_x, held_y, return_dict=True)["accuracy"]
        curve.append((round(spent, 3), round(accuracy, 4)))
    return curve


def reviews() -> Any:
    """Return padded ids and labels of the movie reviews, to train on and held out."""
    (texts, labels), (test_texts, test_labels) = fg.datasets.movie_reviews()
    tokenizer = fg.Tokenizer(num_words=WORDS, oov_token="<unk>")
    tokenizer.fit_on_texts(texts)

    def ids(some: list[str]) -> np.ndarray:
        return fg.pad_sequences(tokenizer.texts_to_sequences(some), maxlen=STEPS)

    return (ids(texts), np.asarray(labels)), (ids(test_texts), np.asarray(test_labels))


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Measure the cells; return what JSON can hold."""
    names = list(CELLS) if names is None else list(names)
    if unknown := [name for name in names if name not in CELLS]:
        raise ValueError(f"names: expected some of {', '.join(CELLS)}; given {', '.join(unknown)}")
    fg.set_num_threads(threads)
    kind = "quick" if quick else "full"
    costs = {name: cost(name, np.random.default_rng(0)) for name in names}
    timings = {
        question: race({n: c["calls"][question] for n, c in costs.items()}, BUDGETS[kind])
        for question in ("inference", "training")
    }
    data = reviews()
    rows = []
    for name in names:
        curve = learn(name, data, SECONDS[kind])
        rows.append(
            {
                "name": name,
                "parameters": costs[name]["parameters"],
                "kept_floats": costs[name]["kept_floats"],
                **{question: timings[question][name]._asdict() for question in timings},
                "curve": curve,
                "accuracy": max(accuracy for _, accuracy in curve),
            }
        )
    return {
        "bench": "cells",
        "machine": machine(threads),
        "quick": quick,
        "sizes": {"B": B, "T": T, "I": I, "H": H},
        "units_learning": UNITS,
        "seconds": SECONDS[kind],
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Render costs per step of one row, and the best accuracy."""
    sizes = result["sizes"]
    steps = sizes["B"] * sizes["T"]
    header = [
        "cell", "parameters", "inference ns a step", "training ns a step",
        "floats kept a step", f"accuracy in {result['seconds']:.0f} s",
    ]  # fmt: skip
    rows = [
        [
            row["name"],
            f"{row['parameters']:,}",
            digits(row["inference"]["best_us"] / steps * 1e3),
            digits(row["training"]["best_us"] / steps * 1e3),
            f"{row['kept_floats']:,}",
            f"{row['accuracy']:.3f}",
        ]
        for row in result["rows"]
    ]
    text = (
        "One layer at B, T, I, H = "
        f"{', '.join(map(str, sizes.values()))}, time per step and row at "
        "best; and the best accuracy on unseen movie reviews of a network with "
        f"{result['units_learning']} units that has trained for so long, one seed."
    )
    return "\n\n".join([markdown(header, rows), text, machine_line(result), command_line(result)])


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw accuracy against time, and the time of a training step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(2, 1))
    for row in result["rows"]:
        left.plot(*zip(*row["curve"], strict=True), marker="o", markersize=3, label=row["name"])
    left.set(xlabel="seconds of training", ylabel="accuracy on unseen reviews")
    left.legend()
    sizes = result["sizes"]
    times = [row["training"]["best_us"] / sizes["B"] / sizes["T"] * 1e3 for row in result["rows"]]
    right.bar([row["name"] for row in result["rows"]], times, color=["C0", "C1", "C2"])
    right.set(ylabel="ns per step and row, training")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
