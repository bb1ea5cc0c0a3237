"""Understand the GRU: its equations executed, its gates over a real sentence, its gradients.

A retelling of the article "Understanding the GRU" in which every claim is computed. A GRU has two
gates, reset and update; input, output and forget gates belong to an LSTM.

python examples/understanding_gru.py --plot tour.png
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastgru as fg
from command_line import check_outputs, natural, output, positive

CELLS = {"SimpleRNN": fg.SimpleRNN, "LSTM": fg.LSTM, "GRU": fg.GRU}
WORDS, STEPS, DISTANCE = 6000, 32, 100
SENTENCE = "not a good film , but the last scene is beautiful and moving"


def arguments() -> argparse.Namespace:
    """Read the command line; refuse now what would fail after the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sentence", nargs="?", default=SENTENCE, help="what the gates are shown on")
    parser.add_argument("--data", metavar="FILE.tsv", help="lines of label, tab, text")
    parser.add_argument("--units", type=positive, default=16, help="that read reviews; default: 16")
    parser.add_argument("--epochs", type=positive, default=4, help="on the reviews; default: 4")
    parser.add_argument(
        "--updates", type=positive, default=600, help="for the memory task; default: 600"
    )
    parser.add_argument("--plot", type=output, metavar="FILE", help="draw gates and gradients")
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--threads", type=positive, help="default: all CPUs this process may use")
    parser.add_argument("--smoke", action="store_true", help="a short run, in seconds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    check_outputs(parser, [options.plot])
    return options


# ---- 1: the equations


def sigmoid(a: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-a))."""
    return 0.5 * (1 + np.tanh(a / 2))


def gru_steps(layer: fg.GRU, x: np.ndarray) -> dict[str, np.ndarray]:
    """Run the equations of the GRU over x (T, I): return z, r, n and h, each (T, H).

    ::

        z = sigmoid(x Wz + bz + h Uz + cz)        update: how much of the old state stays
        r = sigmoid(x Wr + br + h Ur + cr)        reset: how much of it the candidate sees
        n = tanh(x Wn + bn + r * (h Un + cn))     the candidate for the new state
        h = z * h + (1 - z) * n

    Cho et al. 2014, arXiv:1406.1078, with the reset after the product, as in cuDNN and Keras.
    """
    kernel, recurrent_kernel, (bias, recurrent_bias) = layer.get_weights()
    h = np.zeros(layer.units)
    kept: dict[str, list[np.ndarray]] = {"z": [], "r": [], "n": [], "h": []}
    for x_t in x:
        xz, xr, xn = np.split(x_t @ kernel + bias, 3)
        hz, hr, hn = np.split(h @ recurrent_kernel + recurrent_bias, 3)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        n = np.tanh(xn + r * hn)
        h = z * h + (1 - z) * n
        for name, value in (("z", z), ("r", r), ("n", n), ("h", h)):
            kept[name].append(value)
    return {name: np.array(values) for name, values in kept.items()}


def show_equations(random: np.random.Generator) -> float:
    """Print how far the formula and the layer are apart."""
    print("1. The equations\n")
    print(*gru_steps.__doc__.split("\n\n")[2].splitlines(), sep="\n")  # type: ignore[union-attr]
    layer = fg.GRU(24, return_sequences=True)
    x = random.normal(size=(1, 50, 8)).astype(np.float32)
    y = layer(x)[0]
    apart = float(np.abs(gru_steps(layer, x[0])["h"] - y).max())
    print(f"\nFormula and layer differ by {apart:.1e} at most, over 50 steps.")
    wrong = sigmoid(np.maximum(y - 0.5, 0))
    print(
        f"The sigmoid(max(c - h, 0)) of the article never falls below {wrong.min():.1f}: no gate."
    )
    return apart


def show_names() -> None:
    """Ask for names that the article uses and nobody has."""
    print("\n2. Names that do not exist\n")
    print("A GRU has two gates, update and reset; input, output and forget gates belong to an LSTM")
    print("and to no GRU. A Gated Turnstile, a tanh stochastic unit and a loss tanh are nowhere:\n")
    asked: list[tuple[str, Callable[[], Any]]] = [
        ("fg.GatedTurnstile", lambda: fg.GatedTurnstile),  # type: ignore[attr-defined]
        ('activation="tanh_stochastic_unit"', lambda: fg.GRU(8, activation="tanh_stochastic_unit")),
        ('loss="tanh"', lambda: fg.Sequential([fg.Dense(1)]).compile("adam", "tanh")),
    ]
    for what, ask in asked:
        try:
            ask()
        except (AttributeError, ValueError) as error:
            print(f"{what}\n    {type(error).__name__}: {error}")
        else:
            raise SystemExit(f"expected an error for {what}")


# ---- 3: gradients over a distance


def remember(rows: int, steps: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return noise with a marked number among its first five, and whether that is above 0."""
    x = random.normal(size=(rows, steps, 2)).astype(np.float32)
    marked = np.arange(rows), random.integers(0, min(5, steps), rows)
    x[:, :, 1] = 0
    x[(*marked, 1)] = 1
    return x, (x[(*marked, 0)] > 0).astype(np.float32)[:, None]


def gradient_norms(trained: Any, x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return how long the gradient of the state is 1, 2, ... steps before the last one, (T,).

    It begins with a random direction of length 1, and goes back one step after the other: the
    median of all rows. The state of an LSTM is h and c together.
    """
    layer = type(trained)(trained.units, return_state=True)
    layer.build(x.shape)
    layer.set_weights(trained.get_weights())
    states = [np.zeros((len(x), layer.units)) for _ in range(1 + isinstance(layer, fg.LSTM))]
    steps_back = []
    for t in range(x.shape[1]):
        (_, *states), back = layer.forward(x[:, t : t + 1], initial_state=states)
        steps_back.append(back)
    gradients = [np.zeros_like(state) for state in states]
    gradients[0] = random.normal(size=gradients[0].shape)
    first, norms = np.linalg.norm(gradients[0], axis=1), []
    for back in reversed(steps_back):
        _, given = back(None, dstates=gradients)
        gradients = given if isinstance(given, list) else [given]
        length = np.linalg.norm(np.concatenate(gradients, axis=1).astype(float), axis=1)
        norms.append(np.median(length / first))
    return np.array(norms)


def show_gradients(
    updates: int, seed: int, random: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Train each cell to remember, and print how much of a gradient goes back how far."""
    print("\n3. Gradients over a distance\n")
    print(f"Remember whether a marked number was above 0, for {DISTANCE} steps of noise. Of a")
    print("gradient's length 1 at the end is left, so many steps before:\n")
    print(f"{'':21}{'1':>9}{'10':>9}{'30':>9}{DISTANCE:>9}   accuracy")
    norms, accuracy = {}, {}
    test_x, test_y = remember(500, DISTANCE, random)
    for name, kind in CELLS.items():
        fg.set_random_seed(seed)
        batches = np.random.default_rng(seed)
        layer = kind(32)
        model = fg.Sequential([layer, fg.Dense(1, "sigmoid")])
        optimizer = fg.optimizers.Adam(0.01, global_clipnorm=1.0)
        model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
        model.build(test_x.shape)
        for when in ("before training", "after"):
            if when == "after":
                for update in range(updates):
                    # Distances grow at first: no cell learns to hold what it has never reached.
                    longest = max(7, int(DISTANCE * min(1.0, 2 * update / updates)))
                    x, y = remember(64, int(batches.integers(6, longest + 1)), batches)
                    model.train_on_batch(x, y)
                accuracy[name] = float(model.evaluate(test_x, test_y)[1])
            norms[f"{name} {when}"] = n = gradient_norms(layer, test_x[:32], random)
            row = "".join(f"{value:9.1e}" for value in n[[0, 9, 29, DISTANCE - 1]])
            right = f"{accuracy[name]:11.3f}" if when == "after" else ""
            print(f"{name if when != 'after' else '':10}{when if when == 'after' else 'before':11}"
                  f"{row}{right}")  # fmt: skip
    able = [name for name in CELLS if accuracy[name] >= 0.9]
    further = [
        name
        for name in CELLS
        if norms[f"{name} after"][-1] > 100 * norms[f"{name} before training"][-1]
    ]
    print(f"\nRight in 0.9 of the cases or more: {', '.join(able) or 'none'}.")
    print(f"100 times the gradient of before training, or more: {', '.join(further) or 'none'}.")
    print("A gate that is held keeps a value, and with it its gradient. A plain RNN sends all it")
    print("knows through the same matrix and tanh in every step, and has no gate to hold.")
    return norms, accuracy


# ---- 4: gates over a sentence, 5: the cells side by side


def reviews(path: str | None, random: np.random.Generator) -> tuple[Any, Any, str]:
    """Return labelled texts for training and for testing, and where they are from."""
    if path:
        return *fg.datasets.load_tsv(path), path
    try:
        return *fg.datasets.movie_reviews(), "movie reviews"
    except ConnectionError:
        sides = ["dull", "bad", "boring", "poor"], ["good", "moving", "beautiful", "fine"]

        def made(rows: int) -> tuple[list[str], np.ndarray]:
            texts, labels = [], random.integers(0, 2, rows)
            for label in labels:
                denied = random.random() < 0.4
                word = random.choice(sides[int(label) ^ int(denied)])
                texts.append(f"the last scene is {'not ' if denied else ''}{word} and the film")
            return texts, labels.astype(np.int32)

        return made(4000), made(500), "sentences made here, as the reviews cannot be fetched"


def compare_cells(
    options: argparse.Namespace, data: Any, ids: Callable[[list[str]], np.ndarray]
) -> tuple[dict[str, dict[str, float]], fg.Sequential]:
    """Train the same classifier with each cell; return what was measured, and the GRU's."""
    (texts, labels), (test_texts, test_labels) = data
    x, test_x = ids(texts), ids(test_texts)
    table = {}
    for name, kind in CELLS.items():
        fg.set_random_seed(options.seed)
        cell = kind(options.units)
        model = fg.Sequential(
            [fg.Embedding(WORDS, 16, mask_zero=True), cell, fg.Dense(1, "sigmoid")]
        )
        model.compile(fg.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
        model.train_on_batch(x[:32], labels[:32])  # compiles
        model.fit(x, labels, epochs=options.epochs, verbose=0)
        layer, steps = kind(128, return_sequences=True), np.ones((32, 100, 64), np.float32)
        times = []
        for _ in range(6):
            begin = time.perf_counter()
            y, backward = layer.forward(steps)
            backward(y)
            times.append(time.perf_counter() - begin)
        table[name] = {
            "ns_per_step": 1e9 * min(times) / (32 * 100),
            "parameters": cell.count_params(),
            "accuracy": float(model.evaluate(test_x, test_labels, batch_size=256)[1]),
        }
    return table, model


def show_gates(model: fg.Sequential, words: list[str], ids: np.ndarray) -> dict[str, np.ndarray]:
    """Print what the gates of a trained GRU do at each word."""
    embedding, layer, dense = model.layers
    gates = gru_steps(layer, embedding(ids[None])[0])
    scores = dense(gates["h"].astype(np.float32))[:, 0]
    print("word                rewritten           hidden   positive")
    for i, word in enumerate(words):
        columns = ""
        for gate in (1 - gates["z"][i], 1 - gates["r"][i]):
            columns += f"{gate.min():6.0%} to {gate.max():4.0%}  "
        print(f"{word[:15]:15}{columns}{scores[i]:8.2f}")
    print("\nRewritten: what share of its old value the update gate replaces (1 - z). Hidden: how")
    print("much of it the reset gate keeps from the candidate (1 - r). From the lowest unit to the")
    print("highest. Positive: what the model would say if the sentence ended there.")
    return gates


# ---- pictures


def draw(
    path: str, words: list[str], gates: dict[str, np.ndarray], norms: dict[str, np.ndarray]
) -> None:
    """Draw gates over the sentence, and gradients over the distance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    rows = figure.subplots(3, 1)
    for axes, gate, title in (
        (rows[0], 1 - gates["z"], "update gate: what is rewritten (1 - z)"),
        (rows[1], 1 - gates["r"], "reset gate: what is hidden from the candidate (1 - r)"),
    ):
        image = axes.imshow(gate.T, aspect="auto", cmap="viridis")
        axes.set(title=title, ylabel="unit")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xticks(range(len(words)), words, rotation=30)
        figure.colorbar(image, ax=axes)
    colors = dict(zip(CELLS, ("tab:red", "tab:blue", "tab:green"), strict=True))
    for name, values in norms.items():
        style = "-" if name.endswith("after") else ":"
        distance = np.arange(1, len(values) + 1)
        rows[2].semilogy(distance, values, style, color=colors[name.split()[0]], label=name)
    rows[2].set(title="length of the gradient", xlabel="steps before the last", ylim=(1e-12, 2))
    figure.legend(*rows[2].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path)
    print(f"\nDrawn to {path}.")


def main() -> None:
    """Take the tour."""
    options = arguments()
    if options.smoke:
        options.epochs, options.updates = min(options.epochs, 2), min(options.updates, 400)
    fg.set_random_seed(options.seed)
    if options.threads:
        fg.set_num_threads(options.threads)
    random = np.random.default_rng(options.seed)
    start = time.perf_counter()
    try:
        train, test, source = reviews(options.data, random)
    except (OSError, ValueError) as error:
        raise SystemExit(f"data: {error}") from None
    if options.smoke:
        train = train[0][:4000], train[1][:4000]
    tokenizer = fg.Tokenizer(num_words=WORDS, oov_token="<unk>")
    tokenizer.fit_on_texts(train[0])
    (sequence,) = tokenizer.texts_to_sequences([options.sentence])
    words = tokenizer.sequences_to_texts([sequence])[0].split()
    if not words:
        raise SystemExit(f"sentence: expected words, given {options.sentence!r}")

    apart = show_equations(random)
    show_names()
    norms, memory = show_gradients(options.updates, options.seed, random)

    def ids(texts: list[str]) -> np.ndarray:
        return fg.pad_sequences(tokenizer.texts_to_sequences(texts), maxlen=STEPS)

    table, model = compare_cells(options, (train, test), ids)
    print(f"\n4. The gates over a sentence ({source})\n")
    gates = show_gates(model, words, np.array(sequence))

    print("\n5. The three cells\n")
    print("cell         ns per step   parameters   reviews   memory")
    for name, row in table.items():
        print(f"{name:12}{row['ns_per_step']:12,.0f}{row['parameters']:13,.0f}"
              f"{row['accuracy']:10.3f}{memory[name]:9.3f}")  # fmt: skip
    print("\nTraining of 128 units on 64 inputs in batches of 32, per step and row; parameters of")
    print(f"{options.units} units on 16 inputs; accuracy on unseen reviews, and in remembering.")
    if options.plot:
        draw(options.plot, words, gates, norms)

    kept = {name: float(norms[f"{name} after"][-1]) for name in CELLS}
    if apart > 1e-5:
        raise SystemExit(f"expected the formula to be that of the layer, got {apart:.1e} between")
    if options.smoke:
        if not 10 * kept["SimpleRNN"] < kept["GRU"] < 10:
            raise SystemExit(f"expected a GRU to keep gradients, got {kept}")
        if memory["GRU"] < 0.9:
            raise SystemExit(f"expected the GRU to remember 0.9, got {memory['GRU']:.3f}")
    if options.json:
        print(json.dumps({
            "seconds": round(time.perf_counter() - start, 3),
            "accuracy": table["GRU"]["accuracy"],
            "parameters": table["GRU"]["parameters"],
            "difference": apart,
            "memory": memory,
            "gradient_kept": kept,
            "cells": table,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
