"""Train a translator with attention: of numbers in words, or of sentences from files.

python examples/translation.py "two hundred and ninety-one" --plot attention.png
python examples/translation.py --data multi30k --source de --target en "Zwei Hunde im Schnee."
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastgru as fg
from command_line import above_zero, check_outputs, fraction, natural, output, positive

Pairs = tuple[list[str], list[str]]

LARGEST = 1_000_000
# Languages that write a number as one word, as German, have thousands; others have 16 to 192.
MOST_WORDS = 200
# Of lengths: the one that does best on the validation sentences is taken.
PENALTIES = (0.6, 1.0, 1.4, 1.8)
# By language pair: a PyTorch twin of the same network, 10 epochs, greedy search, Multi30k test2016.
TWIN = {("de", "en"): 39.1, ("en", "de"): 31.0}


def arguments() -> argparse.Namespace:
    """Read the command line; refuse now what would fail after the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="what to translate then")
    parser.add_argument(
        "--data",
        metavar="PREFIX",
        help="files PREFIX.{train,val,test2016}.{LANGUAGE}.txt.gz, a sentence in each line; "
        "default: numbers in words, as the package num2words has them",
    )
    parser.add_argument("--source", default="en", metavar="LANGUAGE", help="default: en")
    parser.add_argument("--target", metavar="LANGUAGE", help="default: de, or fr for numbers")
    parser.add_argument("--save", type=output, metavar="FILE", help="keep the translator")
    parser.add_argument(
        "--plot", type=output, metavar="FILE", help="draw the attention for the first sentence"
    )
    parser.add_argument("--epochs", type=positive, help="default: 10 for files, 15 for numbers")
    parser.add_argument("--units", type=positive, help="default: 384 for files, 64 for numbers")
    parser.add_argument("--dropout", type=fraction, help="default: 0.4 for files, 0.1 for numbers")
    parser.add_argument(
        "--learning-rate", type=above_zero, help="default: 0.001 for files, 0.01 for numbers"
    )
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--threads", type=positive, help="default: all CPUs this process may use")
    parser.add_argument("--smoke", action="store_true", help="few numbers, in seconds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    if not all(text.strip() for text in options.sentences):
        parser.error("SENTENCE: expected at least one word, given an empty text")
    check_outputs(parser, [options.plot], options.save)
    return options


def numbers(count: int, languages: tuple[str, str], seed: int) -> Pairs:
    """Return numbers in the words of two languages, no number twice."""
    try:
        from num2words import CONVERTER_CLASSES, num2words
    except ModuleNotFoundError:
        raise SystemExit(
            "Numbers in words come from the package num2words: pip install 'fastgru[translate]', "
            "or give files of your own with --data."
        ) from None
    # As many digits as any other: small numbers would be rare else, and the hardest.
    random = np.random.default_rng(seed)
    drawn = (10 ** random.uniform(0, np.log10(LARGEST), 4 * count)).astype(int)
    values = list(dict.fromkeys(drawn.tolist()))[:count]

    def words_of(name: str) -> list[str]:
        try:
            texts = [num2words(value, lang=name) for value in values]
        except (NotImplementedError, TypeError):
            known = ", ".join(sorted(CONVERTER_CLASSES))
            raise SystemExit(
                f"language: expected one that num2words has, of {known}, given {name!r}"
            ) from None
        if len({word for text in texts for word in fg.translation.split(text)}) > MOST_WORDS:
            raise SystemExit(
                f"language: expected one that writes numbers in several words, given {name!r}: "
                f"{texts[0]}; try fr, or files of your own with --data"
            )
        return texts

    return words_of(languages[0]), words_of(languages[1])


def sentences(prefix: str, part: str, languages: tuple[str, str]) -> Pairs:
    """Read the sentences of one part in two languages."""

    def side(name: str) -> list[str]:
        with gzip.open(f"{prefix}.{part}.{name}.txt.gz", "rt", encoding="utf-8", newline="\n") as f:
            return [" ".join(line.split()) for line in f]

    return side(languages[0]), side(languages[1])


def bleu(references: list[str], translations: list[str]) -> tuple[float, str] | None:
    """Return the score of lower-cased words and punctuation marks, and how sacrebleu made it."""
    try:
        from sacrebleu import BLEU
    except ModuleNotFoundError:
        print("For BLEU: pip install 'fastgru[translate]'")
        return None
    split = [
        [" ".join(fg.translation.split(text)) for text in texts]
        for texts in (translations, references)
    ]
    metric = BLEU(tokenize="none", force=True)
    score = metric.corpus_score(split[0], [split[1]]).score
    return float(score), str(metric.get_signature())


def best_penalty(translator: fg.Translator, held: Pairs) -> float:
    """Return the length penalty that the beam does best with on held-out sentences."""
    scores = {
        penalty: bleu(held[1], translator.translate(held[0], length_penalty=penalty))
        for penalty in PENALTIES
    }
    return max(scores, key=lambda penalty: scores[penalty] or 0)


def draw(alignment: Any, path: str) -> None:
    """Draw how much each word of a translation looks at each word of the source."""
    axes = alignment.plot()
    axes.set(xlabel="source", ylabel="translation")
    axes.xaxis.set_label_position("top")
    axes.figure.colorbar(axes.images[0], ax=axes, label="attention")
    axes.figure.savefig(path)


def main() -> None:
    """Load, train, test, save, and translate the sentences."""
    options = arguments()
    fg.set_random_seed(options.seed)
    if options.threads:
        fg.set_num_threads(options.threads)
    languages = options.source, options.target or ("de" if options.data else "fr")
    if options.data:
        try:
            train, held, test = (
                sentences(options.data, part, languages) for part in ("train", "val", "test2016")
            )
        except (OSError, EOFError, ValueError) as error:
            raise SystemExit(f"data: {error}") from None
        if options.smoke:
            train, test = ([side[:640] for side in part] for part in (train, test))
        settings: dict[str, Any] = {"epochs": 10}
    else:
        count = 3000 if options.smoke else 10000
        both = numbers(count + 1000, languages, seed=0)
        train = [side[:count] for side in both]
        held, test = ([side[count + i :][:500] for side in both] for i in (0, 500))
        settings = {
            "units": 64,
            "embedding": 32,
            "dropout": 0.1,
            "label_smoothing": 0.0,
            "min_count": 1,
            "learning_rate": 0.01,
            "epochs": 8 if options.smoke else 15,
        }
    for name in ("units", "dropout", "epochs", "learning_rate"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    translator = fg.Translator(**settings, seed=options.seed)

    start = time.perf_counter()
    try:
        translator.fit(*train, validation_data=held)
    except ValueError as error:
        raise SystemExit(f"data: {error}") from None
    except KeyboardInterrupt:
        if not translator.history.epoch:
            raise SystemExit("Interrupted in the first epoch.") from None
        print("Interrupted: the best weights so far count.")
    seconds = time.perf_counter() - start
    print(f"Trained in {seconds:.1f} s, compilation included, {translator.count_params()} weights.")
    if options.save:
        translator.save(options.save)
        print(f"Saved to {options.save}.")

    penalty = best_penalty(translator, held) if options.data and not options.smoke else 1.0
    start = time.perf_counter()
    greedy = translator.translate(test[0], beam_size=1)
    found = translator.translate(test[0], beam_size=5, length_penalty=penalty)
    rate = 2 * len(found) / (time.perf_counter() - start)
    wanted = [fg.translation.join(fg.translation.split(text)) for text in test[1]]
    exact = np.mean([a == b for a, b in zip(found, wanted, strict=True)])
    score, greedy_score = bleu(wanted, found), bleu(wanted, greedy)
    print(f"{exact:.1%} of {len(found)} translations are the reference itself.")
    if score and greedy_score:
        print(f"BLEU {score[0]:.1f} with a beam of 5 and a length penalty of {penalty}, "
              f"{greedy_score[0]:.1f} greedily ({score[1]}).")  # fmt: skip

    some = options.sentences or test[0][:3]
    for text, translation in zip(some, translator.translate(some), strict=True):
        print(f"{text}\n    {translation}")
    if options.plot:
        alignment = translator.attention(some[0])
        if alignment.target:
            draw(alignment, options.plot)
            print(f"The attention for the first sentence is drawn in {options.plot}.")
        else:
            print("Nothing is drawn: the translation of the first sentence is empty.")
    if options.smoke and not options.data and exact < 0.9:
        raise SystemExit(f"expected 90 % exact translations or more, got {exact:.1%}")
    if options.json:
        measured = f"{exact:.1%} exact"
        if score and greedy_score and options.data:
            measured = f"BLEU {greedy_score[0]:.1f} greedily, {score[0]:.1f} with a beam of 5"
        name = " to ".join(languages)
        twin = TWIN.get(languages) if options.data else None
        print(json.dumps({
            "application": "Translator",
            "data": f"{Path(options.data).name}, {name}" if options.data else f"numbers, {name}",
            "quality": measured,
            "reference": f"{twin} greedily: PyTorch, same network, 10 epochs" if twin else "",
            "seed": options.seed,
            "epochs": translator.epochs,
            "threads": fg.get_num_threads(),
            "seconds": round(seconds, 3),
            "bleu": score and score[0],
            "bleu_greedy": greedy_score and greedy_score[0],
            "signature": score and score[1],
            "length_penalty": penalty,
            "exact": exact,
            "sentences_per_s": rate,
            "parameters": translator.count_params(),
            "pairs": len(train[0]),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
