"""Predict the next chord of polyphonic music, as in Chung et al. 2014 (arXiv:1412.3555).

python examples/music.py --data jsb_chorales.npz --cell gru

The data are piano rolls of 88 keys: FILE.npz has train, valid and test, uint8 (steps, 11), with the
keys packed by numpy.packbits and all pieces one after another, and train_lengths, valid_lengths and
test_lengths, the steps of each piece; pieces of one step, with nothing to predict, are left out.
The score is the negative log-likelihood in nats: summed over the keys, and the mean of all steps
that have a successor; beside it, the mean of the pieces' means, in which the steps of long pieces
count less.

One network tells all keys of a step, independent of each other given the steps before, as in the
paper. With --keys apart, it is a small one, used for each of the keys: it reads the keys around its
own and tells that one, so what is learned in one key holds in all others (Johnson 2017, Generating
polyphonic music using tied parallel networks). With --keys in-turn, it is also told those keys of
the step to come that lie below its own: a richer model than the paper's, whose keys need not be
independent, of the same steps.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

import fastgru as fg
import piano_rolls as rolls
from command_line import above_zero, amount, fraction, natural, output, positive

CELLS = {"gru": fg.GRU, "lstm": fg.LSTM, "tanh": fg.SimpleRNN}
# Of the keys that are silent in a whole part, where each has a network: half of the work is saved.
ONE_IN = 4
# Chosen on the validation set of the JSB chorales, with one network for all keys.
WEIGHT_NOISE = {"gru": 0.075, "lstm": 0.075, "tanh": 0.05}


def arguments() -> argparse.Namespace:
    """Read the command line; refuse now what would fail after the training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", metavar="FILE.npz", help="default: chords made here")
    parser.add_argument("--cell", choices=CELLS, default="gru", help="default: gru")
    parser.add_argument("--units", type=positive, default=100, help="default: 100")
    parser.add_argument("--layers", type=positive, default=1, help="of the cell; default: 1")
    parser.add_argument(
        "--keys",
        choices=("together", "apart", "in-turn"),
        default="together",
        help="whether one network tells all keys, or one for each, with the same weights; in turn, "
        "each is told those of the step to come below its own; default: together",
    )
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
    if not 0 <= (keys := int(text)) < rolls.KEYS:
        raise argparse.ArgumentTypeError(f"expected 0 to {rolls.KEYS - 1}, given {keys}")
    return keys


def training_data(
    options: argparse.Namespace, parts: rolls.Pieces, contexts: list[int], valid: rolls.Pieces
) -> tuple[tuple[Any, ...], Any]:
    """Return what `fit` takes first, made of the parts, and as validation data."""
    drawing = {"most": options.transpose, "seed": options.seed}
    if options.keys != "together":
        is_in_turn = options.keys == "in-turn"
        train = rolls.KeyBatches(
            parts, contexts, options.batch_size, **drawing, is_in_turn=is_in_turn, one_in=ONE_IN
        )
        none = [0] * len(valid)
        return (train,), rolls.KeyBatches(valid, none, 1, 0, options.seed, is_in_turn)
    if options.transpose or options.context:
        return (rolls.Batches(parts, contexts, options.batch_size, **drawing),), rolls.shifted(
            valid
        )
    return rolls.shifted(parts), rolls.shifted(valid)


def scores(model: fg.Sequential, pieces: rolls.Pieces, keys: str) -> tuple[float, float]:
    """Return the mean negative log-likelihood of all steps, and the mean of the pieces' means.

    `keys` is the option of the command line.
    """
    x, y = rolls.shifted(pieces)
    if keys == "together":
        sounding = model.predict(x)
    else:
        read = map(rolls.around_keys, x, y if keys == "in-turn" else [None] * len(x))
        sounding = [model.predict(rows, batch_size=rolls.KEYS)[..., 0].T for rows in read]
    right = [np.where(real > 0, p, 1 - p) for p, real in zip(sounding, y, strict=True)]
    steps = [-np.log(np.maximum(p, 1e-7)).sum(axis=1, dtype=float) for p in right]
    return float(np.mean(np.concatenate(steps))), float(np.mean([piece.mean() for piece in steps]))


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
    model.add(fg.Dense(rolls.KEYS if options.keys == "together" else 1, activation="sigmoid"))
    model.compile(
        optimizer=fg.optimizers.Adam(rate, beta_2=options.beta_2, global_clipnorm=options.clipnorm),
        loss="binary_crossentropy",  # the mean over the keys, and over the steps that are read
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
        data = rolls.load(options.data) if options.data else rolls.made_chords()
    except (OSError, ValueError) as error:
        raise SystemExit(f"data: {error}") from None

    parts, contexts = rolls.cut(data["train"], options.steps, options.context)
    model = network(options, batches=-(-len(parts) // options.batch_size))
    train, valid = training_data(options, parts, contexts, data["valid"])
    start = time.perf_counter()
    stopping = fg.callbacks.EarlyStopping(patience=options.patience, restore_best_weights=True)
    try:
        model.fit(
            *train,
            batch_size=options.batch_size,
            epochs=options.epochs,
            validation_data=valid,
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
    results = {split: scores(model, pieces, options.keys) for split, pieces in data.items()}
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
