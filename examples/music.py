"""Predict the next chord of polyphonic music, as in Chung et al. 2014 (arXiv:1412.3555).

python examples/music.py --data jsb_chorales.npz --cell gru

The data are piano rolls of 88 keys: FILE.npz has train, valid and test, uint8 (steps, 11), with the
keys packed by numpy.packbits and all pieces one after another, and train_lengths, valid_lengths and
test_lengths, the steps of each piece. The score is the negative log-likelihood in nats: summed over
the keys, and the mean of all steps that have a successor; beside it, the mean of the pieces' means,
in which the steps of long pieces count less.
"""

from __future__ import annotations

import argparse
import json
import time
import zipfile

import numpy as np

import fastgru as fg
from command_line import above_zero, amount, fraction, natural, output, positive

KEYS = 88
SPLITS = "train", "valid", "test"
CELLS = {"gru": fg.GRU, "lstm": fg.LSTM, "tanh": fg.SimpleRNN}
# Chosen on the validation set of the JSB chorales.
WEIGHT_NOISE = {"gru": 0.075, "lstm": 0.075, "tanh": 0.05}

Pieces = list[np.ndarray]


def arguments() -> argparse.Namespace:
    """Read the command line; refuse now what would fail after the training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", metavar="FILE.npz", help="default: chords made here")
    parser.add_argument("--cell", choices=CELLS, default="gru", help="default: gru")
    parser.add_argument("--units", type=positive, default=100, help="default: 100")
    parser.add_argument("--layers", type=positive, default=1, help="of the cell; default: 1")
    parser.add_argument(
        "--reset-after",
        action="store_true",
        help="let the GRU reset its state after the product with the weights, as PyTorch does, and "
        "not before, as the paper's",
    )
    parser.add_argument(
        "--activation", choices=("tanh", "relu"), default="tanh", help="of the cell; default: tanh"
    )
    parser.add_argument("--learning-rate", type=above_zero, default=0.003, help="default: 0.003")
    parser.add_argument(
        "--decay",
        action="store_true",
        help="let the learning rate fall to 0 over all epochs, along half a cosine",
    )
    parser.add_argument(
        "--warmup",
        type=natural,
        default=0,
        metavar="BATCHES",
        help="before which it rises from 0, with --decay; default: 0",
    )
    parser.add_argument(
        "--beta-2",
        type=fraction,
        default=0.999,
        help="of Adam; less suits rare keys, whose gradients come seldom; default: 0.999",
    )
    parser.add_argument(
        "--clipnorm",
        type=above_zero,
        default=1.0,
        help="the longest gradient; default: 1, which is seldom reached",
    )
    parser.add_argument(
        "--weight-noise",
        type=amount,
        help="deviation of the noise on the weights in training; default: "
        + ", ".join(f"{noise} ({cell})" for cell, noise in WEIGHT_NOISE.items()),
    )
    parser.add_argument(
        "--dropout",
        type=fraction,
        default=0.0,
        help="of the states that leave a layer; default: 0",
    )
    parser.add_argument(
        "--recurrent-dropout", type=fraction, default=0.0, help="inside the cell; default: 0"
    )
    parser.add_argument(
        "--transpose",
        type=interval,
        default=0,
        metavar="KEYS",
        help="move each part up or down by up to so many keys, in each epoch anew; default: 0",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        default=200,
        help="gradients of a training step go back no further, while validation and test read "
        "whole pieces; default: 200",
    )
    parser.add_argument(
        "--context",
        type=natural,
        default=0,
        help="read so many steps more before those of each part, which do not count; default: 0",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=8, help="pieces in a step; default: 8"
    )
    parser.add_argument("--epochs", type=positive, default=500, help="at most; default: 500")
    parser.add_argument(
        "--patience", type=positive, default=15, help="epochs without a better one; default: 15"
    )
    parser.add_argument("--save", type=output, metavar="FILE.safetensors", help="keep the model")
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--threads", type=positive, help="default: all CPUs this process may use")
    parser.add_argument("--smoke", action="store_true", help="a small network and a few epochs")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    if options.reset_after and options.cell != "gru":
        parser.error("--reset-after: expected none without --cell gru")
    if options.warmup and not options.decay:
        parser.error("--warmup: expected none without --decay")
    return options


def interval(text: str) -> int:
    """Return a number of keys that a note can move by, or refuse the argument."""
    if not 0 <= (keys := int(text)) < KEYS:
        raise argparse.ArgumentTypeError(f"expected 0 to {KEYS - 1}, given {keys}")
    return keys


def load(path: str) -> dict[str, Pieces]:
    """Read the pieces of each split, float32 (T, 88)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {split: (file[split], file[f"{split}_lengths"]) for split in SPLITS}
    except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        names = ", ".join(f"{split}, {split}_lengths" for split in SPLITS)
        raise ValueError(f"expected an .npz with {names}, given {path}") from None
    return {
        split: np.split(np.unpackbits(rolls, axis=1).astype(np.float32), np.cumsum(lengths)[:-1])
        for split, (rolls, lengths) in columns.items()
    }


def made_chords(seed: int = 0) -> dict[str, Pieces]:
    """Make pieces whose chords go up, or down, a scale for ever: the first two tell which way."""
    random = np.random.default_rng(seed)

    def piece() -> np.ndarray:
        steps, way = int(random.integers(10, 40)), random.choice([-1, 1])
        roots = 30 + (random.integers(12) + way * np.arange(steps)) % 12
        roll = np.zeros((steps, KEYS), np.float32)
        for third in (0, 4, 7):
            roll[np.arange(steps), roots + third] = 1
        return roll

    return {
        split: [piece() for _ in range(n)] for split, n in zip(SPLITS, (100, 20, 20), strict=True)
    }


def shifted(pieces: Pieces) -> tuple[Pieces, Pieces]:
    """Return all steps but the last of each piece, and the steps that follow them."""
    return [piece[:-1] for piece in pieces], [piece[1:] for piece in pieces]


def scores(model: fg.Sequential, pieces: Pieces) -> tuple[float, float]:
    """Return the mean negative log-likelihood of all steps, and the mean of the pieces' means."""
    x, y = shifted(pieces)
    right = [np.where(real > 0, p, 1 - p) for p, real in zip(model.predict(x), y, strict=True)]
    steps = [-np.log(np.maximum(p, 1e-7)).sum(axis=1, dtype=float) for p in right]
    return float(np.mean(np.concatenate(steps))), float(np.mean([piece.mean() for piece in steps]))


def cut(pieces: Pieces, steps: int, context: int) -> tuple[Pieces, list[int]]:
    """Cut long pieces; a part begins with the last step of the part before, or further back.

    Returns
    -------
    parts : list of arrays (T, 88)
    contexts : list of int
        How many steps of each part belong to those before it.
    """
    parts, contexts = [], []
    for piece in pieces:
        for start in range(0, len(piece) - 1, steps):
            contexts.append(min(context, start))
            parts.append(piece[start - contexts[-1] : start + steps + 1])
    return parts, contexts


class Batches:
    """Batches of parts in other keys: each part is moved by a random interval whenever it is read.

    Parameters
    ----------
    parts : list of arrays (T, 88)
    contexts : list of int
        How many steps at the beginning of each part do not count.
    batch_size : int
    most : int
        How many keys they are moved up or down at most.
    seed : int
    """

    def __init__(
        self, parts: Pieces, contexts: list[int], batch_size: int, most: int, seed: int
    ) -> None:
        self.parts, self.contexts, self.batch_size, self.most = parts, contexts, batch_size, most
        self.is_weighted = any(contexts)
        self.random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.parts) // self.batch_size)

    def __getitem__(self, i: int) -> tuple[Pieces, ...]:
        chosen = self.order[i * self.batch_size : (i + 1) * self.batch_size]
        by = self.random.integers(-self.most, self.most + 1, len(chosen))
        x, y = shifted([moved(self.parts[k], n) for k, n in zip(chosen, by, strict=True)])
        if not self.is_weighted:
            return x, y
        weights = [np.ones(len(part), np.float32) for part in x]
        for own, k in zip(weights, chosen, strict=True):
            own[: self.contexts[k]] = 0
        return x, y, weights

    def on_epoch_end(self) -> None:
        """Put the parts together anew."""
        self.order = self.random.permutation(len(self.parts))


def moved(piece: np.ndarray, by: int) -> np.ndarray:
    """Move all notes up by some keys, or down; those beyond the last key are lost."""
    result = np.zeros_like(piece)
    result[:, max(by, 0) : KEYS + min(by, 0)] = piece[:, max(-by, 0) : KEYS + min(-by, 0)]
    return result


def network(options: argparse.Namespace, batches: int) -> fg.Sequential:
    """Make the model, compiled for epochs of so many batches."""
    rate = options.learning_rate
    if options.decay:
        steps = max(options.epochs * batches - options.warmup, 1)
        rate = fg.optimizers.CosineDecay(
            0.0, steps, warmup_target=rate, warmup_steps=options.warmup
        )
    forms = {"reset_after": options.reset_after} if options.cell == "gru" else {}
    model = fg.Sequential()
    for _ in range(options.layers):
        cell = CELLS[options.cell](
            options.units,
            activation=options.activation,
            return_sequences=True,
            recurrent_dropout=options.recurrent_dropout,
            **forms,
        )
        model.add(cell)
        if options.dropout:
            model.add(fg.Dropout(options.dropout))
    model.add(fg.Dense(KEYS, activation="sigmoid"))
    model.compile(
        optimizer=fg.optimizers.Adam(rate, beta_2=options.beta_2, global_clipnorm=options.clipnorm),
        loss="binary_crossentropy",  # the mean over the keys, and over real steps only
    )
    return model


def main() -> None:
    """Load, train until the validation set stops it, and score the test set."""
    options = arguments()
    fg.set_random_seed(options.seed)
    if options.threads:
        fg.set_num_threads(options.threads)
    if options.weight_noise is None:
        options.weight_noise = WEIGHT_NOISE[options.cell]
    if options.smoke:
        options.units, options.epochs = min(options.units, 48), min(options.epochs, 40)
        options.learning_rate, options.weight_noise = 0.01, 0.01
    try:
        data = load(options.data) if options.data else made_chords()
    except (OSError, ValueError) as error:
        raise SystemExit(f"data: {error}") from None

    parts, contexts = cut(data["train"], options.steps, options.context)
    model = network(options, batches=-(-len(parts) // options.batch_size))
    train = shifted(parts)
    if options.transpose or options.context:
        train = (Batches(parts, contexts, options.batch_size, options.transpose, options.seed),)
    start = time.perf_counter()
    stopping = fg.callbacks.EarlyStopping(patience=options.patience, restore_best_weights=True)
    try:
        model.fit(
            *train,
            batch_size=options.batch_size,
            epochs=options.epochs,
            validation_data=shifted(data["valid"]),
            weight_noise=options.weight_noise,
            callbacks=[stopping],
        )
    except ValueError as error:
        raise SystemExit(f"data: {error}") from None
    except KeyboardInterrupt:
        if model.history is None or not model.history.epoch:
            raise SystemExit("Interrupted in the first epoch.") from None
        print("Interrupted: the best weights so far count.")
    seconds = time.perf_counter() - start
    epochs = len(model.history.epoch)
    if options.save:
        model.save(options.save)
    results = {split: scores(model, pieces) for split, pieces in data.items()}
    model.summary()
    for i, what in enumerate(("Negative log-likelihood per step", "Mean of the pieces' means")):
        print(f"{what}: {', '.join(f'{split} {nll[i]:.3f}' for split, nll in results.items())}.")
    print(f"{epochs} epochs in {seconds:.1f} s.")
    test = results["test"][0]
    if options.smoke and not options.data and test > 4:
        raise SystemExit(f"expected a negative log-likelihood of at most 4, got {test:.3f}")
    if options.json:
        print(json.dumps({
            "seconds": round(seconds, 3),
            **{f"{split}_nll": nll[0] for split, nll in results.items()},
            **{f"{split}_nll_of_pieces": nll[1] for split, nll in results.items()},
            "epochs": epochs,
            "parameters": model.count_params(),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
