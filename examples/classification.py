"""Learn from real movie reviews which are positive, say why, and stand up to attacks.

python examples/classification.py "a moving, beautifully acted film" --plot reasons.png
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastgru as fg
from command_line import amount, check_outputs, natural, output, positive

REFERENCE = "0.800, and 0.812 averaged over three seeds: PyTorch twin, biGRU 64 with n-grams"
POLARITY_REFERENCE = "76.1 %: CNN-rand, Kim 2014, arXiv:1408.5882, table 2"
FOLDS = 10
STRENGTHS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
# Of the hardened classifier, chosen on a part of the training texts: short vectors leave an attack
# fewer ways, and it is noise enough.
HARDENED = {
    "embedding_dim": 32, "word_dropout": 0.1, "embedding_dropout": 0.0, "dropout": 0.3,
    "epochs": 8, "patience": 8,
}  # fmt: skip

Texts = list[str]


def arguments() -> argparse.Namespace:
    """Read the command line; refuse what would be ignored, or fail after the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "sentences", nargs="*", default=[], metavar="SENTENCE", help="texts to label, with reasons"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="lines of label, tab, text; or the folder of rt-polarity.pos and rt-polarity.neg, for "
        "cross-validation; default: the movie reviews of fastgru.datasets",
    )
    parser.add_argument(
        "--folds",
        type=int,
        choices=range(1, FOLDS + 1),
        default=FOLDS,
        metavar="N",
        help="how many of the folder's 10 folds to run; default: 10",
    )
    parser.add_argument(
        "--seeds", type=positive, default=1, help="how many seeds to train with; default: 1"
    )
    parser.add_argument("--members", type=positive, help="networks per classifier")
    parser.add_argument(
        "--plot", type=output, metavar="FILE", help="draw the reasons for the first sentence"
    )
    parser.add_argument(
        "--attack",
        type=output,
        metavar="FILE",
        help="train hardened classifiers too, attack both kinds, and draw their accuracy",
    )
    parser.add_argument(
        "--epsilon", type=amount, default=0.3, help="what it is hardened with; default: 0.3"
    )
    parser.add_argument("--save", type=output, metavar="FILE", help="keep the classifier")
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--threads", type=positive, help="default: all CPUs this process may use")
    parser.add_argument("--smoke", action="store_true", help="train on a part, in seconds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()

    if options.data and Path(options.data).is_dir():
        data, without = "a folder", ["sentences", "seeds", "plot", "attack", "save"]
    elif options.data:
        data, without = "a file", ["folds", "attack"]
    else:
        data, without = "the movie reviews", ["folds"]
    for name in without:
        if (value := getattr(options, name)) != parser.get_default(name):
            parser.error(f"{name}: expected none with {data} as data, given {value!r}")
    if not all(text.strip() for text in options.sentences):
        parser.error("SENTENCE: expected at least one word, given an empty text")
    check_outputs(parser, [options.plot, options.attack], options.save)
    return options


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the classifier is made with, beside its seed."""
    chosen: dict[str, Any] = {} if options.members is None else {"members": options.members}
    if options.smoke:
        smaller = {"members": 1, "epochs": 3, "units": 16, "embedding_dim": 32, "buckets": 2000}
        chosen = smaller | chosen
    return chosen


def polarity(folder: str) -> tuple[Texts, np.ndarray, np.ndarray]:
    """Return the sentences of rt-polarity, their labels, and the number of each one's fold."""
    parts = [
        Path(folder, f"rt-polarity.{end}").read_text("utf-8").splitlines() for end in ("pos", "neg")
    ]
    texts = [text.strip() for part in parts for text in part]
    labels = np.repeat([1, 0], [len(part) for part in parts])
    folds = np.random.RandomState(10).permutation(len(texts)) % FOLDS
    return texts, labels, folds


def cross_validate(data: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Train and test on folds; return what was measured."""
    texts, labels, folds = data
    scores, seconds, parameters = [], [], 0
    for fold in range(options.folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        start = time.perf_counter()
        model = fg.TextClassifier(seed=options.seed + fold, **settings(options))
        model.fit([texts[i] for i in train], labels[train])
        seconds.append(time.perf_counter() - start)
        scores.append(model.score([texts[i] for i in test], labels[test]))
        parameters = model.count_params()
        print(f"Fold {fold + 1}: {100 * scores[-1]:.1f} % in {seconds[-1]:.0f} s.", flush=True)
    mean, spread = 100 * np.mean(scores), 100 * np.std(scores)
    quality = f"{mean:.1f} % ± {spread:.1f} over {len(scores)} of {FOLDS} folds"
    return {
        "application": "text classification",
        "data": "rt-polarity",
        "parameters": parameters,
        "seconds": round(float(np.mean(seconds)), 1),
        "accuracy": float(mean / 100),
        "quality": quality,
        "reference": POLARITY_REFERENCE,
    }


def train(data: Any, options: argparse.Namespace) -> tuple[dict[str, Any], fg.TextClassifier, bool]:
    """Train and test with each seed, until the last or Ctrl-C.

    Return what was measured, the last classifier, and whether Ctrl-C has ended the training.
    """
    (texts, labels), (test_texts, test_labels) = data
    if options.smoke:
        texts, labels = texts[:2500], labels[:2500]
    scores, seconds, probabilities, interrupted = [], [], 0.0, False
    for seed in range(options.seed, options.seed + options.seeds):
        start = time.perf_counter()
        learner = fg.TextClassifier(seed=seed, **settings(options))
        try:
            learner.fit(texts, labels)
        except ValueError as error:
            raise SystemExit(f"data: {error}") from None
        except KeyboardInterrupt:
            interrupted = True
            if not any(history.epoch for history in learner.history_):
                if seed == options.seed:
                    raise SystemExit("Interrupted in the first epoch.") from None
                print("Interrupted: the seeds so far count.")
                break
            print("Interrupted: the best weights so far count.")
        model = learner
        seconds.append(time.perf_counter() - start)
        scores.append(model.score(test_texts, test_labels))
        probabilities = probabilities + model.predict_proba(test_texts)
        print(f"Seed {seed}: test accuracy {scores[-1]:.3f}, trained in {seconds[-1]:.1f} s.")
        if interrupted:
            break
    together = float((np.argmax(probabilities, axis=1) == test_labels).mean())
    quality = f"{np.mean(scores):.3f}"
    if len(scores) > 1:
        quality += f", and {together:.3f} averaged over {len(scores)} seeds"
    measured = {
        "application": "text classification",
        "data": options.data or "movie reviews",
        "parameters": model.count_params(),
        "seconds": round(float(np.mean(seconds)), 1),
        "accuracy": float(np.mean(scores)),
        "accuracies": scores,
        "together": together,
        "quality": quality,
        "reference": "" if options.data else REFERENCE,
    }
    return measured, model, interrupted


def under_attack(model: Any, texts: Texts, labels: np.ndarray, strength: float) -> float:
    """Return the accuracy of a classifier of one member on texts changed by PGD."""
    (network,), right = model.models, 0
    ids = model.ids(texts)
    order = np.argsort([len(own) for own in ids], kind="stable")
    for part in np.array_split(order, -(-len(order) // 128)):
        lengths = [len(ids[i]) for i in part]
        x = fg.pad_sequences([ids[i] for i in part], padding="post")
        vectors = fg.robust.pgd(network, x, labels[part], strength, lengths=lengths)
        scores = fg.robust.predict_vectors(network, x, vectors, lengths=lengths)
        right += int((scores.argmax(axis=1) == labels[part]).sum())
    return right / len(texts)


def attack(options: argparse.Namespace) -> dict[str, Any]:
    """Compare plain and hardened classifiers under attack; print a table and draw it."""
    (texts, labels), (test_texts, test_labels) = fg.datasets.movie_reviews()
    adversary = fg.robust.AdversarialTraining(options.epsilon)
    curves = {}
    for name, changes, callbacks in (("plain", {}, []), ("hardened", HARDENED, [adversary])):
        rows = []
        for seed in range(options.seed, options.seed + options.seeds):
            chosen = {**changes, **settings(options), "members": 1, "seed": seed}
            model = fg.TextClassifier(**chosen).fit(texts, labels, callbacks=callbacks)
            rows.append([under_attack(model, test_texts, test_labels, s) for s in STRENGTHS])
        curves[name] = np.mean(rows, axis=0)
    cost = curves["plain"][0] - curves["plain"]
    print("strength  plain  hardened  of the cost won back")
    for i, strength in enumerate(STRENGTHS):
        plain, hardened = (float(curve[i]) for curve in curves.values())
        back = f"  {100 * (hardened - plain) / cost[i]:18.0f} %" if cost[i] > 0 else ""
        print(f"{strength:8.2f}  {plain:.3f}  {hardened:8.3f}{back}")
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    for name, curve in curves.items():
        axes.plot(STRENGTHS, curve, marker="o", label=name)
    axes.set_xlabel("attack strength (PGD), relative to the sentence")
    axes.set_ylabel("accuracy")
    axes.legend()
    figure.savefig(options.attack, bbox_inches="tight")
    return {"strengths": STRENGTHS, **{name: curve.tolist() for name, curve in curves.items()}}


def draw(reason: Any, path: str) -> None:
    """Draw the weights of the words of a text."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, sharex=True, figsize=(max(6, len(reason.words) / 2), 5))
    places = range(len(reason.words))
    axes[0].bar(places, reason.attention, color="tab:blue")
    axes[0].set_ylabel("attention")
    colours = ["tab:green" if w >= 0 else "tab:red" for w in reason.integrated_gradients]
    axes[1].bar(places, reason.integrated_gradients, color=colours)
    axes[1].set_ylabel("integrated gradients")
    axes[1].set_xticks(places, reason.words, rotation=60, ha="right")
    axes[0].set_title(f"label {reason.label}, probability {reason.probability:.2f}")
    figure.savefig(path, bbox_inches="tight")


def run(options: argparse.Namespace) -> None:
    """Train, test, label the sentences and say why."""
    if options.threads:
        fg.set_num_threads(options.threads)
    folder = options.data and Path(options.data).is_dir()
    load = (
        polarity if folder else fg.datasets.load_tsv if options.data else fg.datasets.movie_reviews
    )
    try:
        data = load(*filter(None, [options.data]))
    except (OSError, ValueError) as error:
        raise SystemExit(f"data: {error}") from None
    if folder:
        measured = cross_validate(data, options)
    else:
        measured, model, interrupted = train(data, options)
        if options.save:
            model.save(options.save)
            print(f"Saved to {options.save}.")
        sentences = options.sentences or ["a moving film , although its beginning is a bit dull"]
        for sentence in sentences:
            print(model.explain(sentence))
        if options.attack and interrupted:
            print("Not attacked: the training was interrupted.")
        elif options.attack:
            measured["attack"] = attack(options)
        if options.plot:
            draw(model.explain(sentences[0]), options.plot)
            print(f"Drawn to {options.plot}.")
    print(f"Accuracy {measured['quality']}.")
    if options.smoke and not options.data and measured["accuracy"] < 0.65:
        raise SystemExit(f"expected an accuracy of 0.65 or more, got {measured['accuracy']:.3f}")
    if options.json:
        print(json.dumps(measured))


def main() -> None:
    """Do what the command line asks for, until Ctrl-C."""
    try:
        run(arguments())
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        raise SystemExit(130) from None  # as shells say it


if __name__ == "__main__":
    main()
