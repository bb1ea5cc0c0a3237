"""Train the GRU network of "Understanding the GRU" on real movie reviews, and ask it.

python examples/quickstart.py "a moving, beautifully acted film" "a dull and clumsy mess"
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

import fastgru as fg
from command_line import natural, output, positive

WORDS = 6000
STEPS = 32


def arguments() -> argparse.Namespace:
    """Read the command line; refuse now what would fail after the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="reviews to judge")
    parser.add_argument("--data", metavar="FILE.tsv", help="lines of label, tab, text")
    parser.add_argument(
        "--save",
        type=output,
        metavar="FILE",
        default="movie_reviews.safetensors",
        help="default: movie_reviews.safetensors",
    )
    parser.add_argument("--epochs", type=positive, default=4, help="default: 4")
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--threads", type=positive, help="default: all CPUs this process may use")
    parser.add_argument("--smoke", action="store_true", help="two epochs on a part, in seconds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


def main() -> None:
    """Load, train, test, save, and judge the sentences."""
    options = arguments()
    fg.set_random_seed(options.seed)
    if options.threads:
        fg.set_num_threads(options.threads)
    load = fg.datasets.load_tsv if options.data else fg.datasets.movie_reviews
    try:
        (texts, labels), (test_texts, test_labels) = load(*filter(None, [options.data]))
    except (OSError, ValueError) as error:
        raise SystemExit(f"data: {error}") from None
    if options.smoke:
        texts, labels, options.epochs = texts[:2000], labels[:2000], 2

    tokenizer = fg.Tokenizer(num_words=WORDS, oov_token="<unk>")
    tokenizer.fit_on_texts(texts)
    for text, words in zip(
        options.sentences, tokenizer.texts_to_sequences(options.sentences), strict=True
    ):
        if not words:
            raise SystemExit(f"SENTENCE: expected at least one word, given {text!r}")

    def ids(some_texts: list[str]) -> np.ndarray:
        return fg.pad_sequences(tokenizer.texts_to_sequences(some_texts), maxlen=STEPS)

    model = fg.Sequential(
        [
            fg.Embedding(WORDS, 16, mask_zero=True, input_length=STEPS),
            fg.GRU(8, return_sequences=True),
            fg.GRU(8),
            fg.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        optimizer=fg.optimizers.Adam(learning_rate=0.005),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    model.summary()

    start = time.perf_counter()
    try:
        model.fit(ids(texts), labels, epochs=options.epochs, batch_size=32, verbose="auto")
    except KeyboardInterrupt:
        if model.history is None or not model.history.epoch:
            raise SystemExit("Interrupted in the first epoch.") from None
        print("Interrupted: the weights so far count.")
    seconds = time.perf_counter() - start
    model.save(options.save)
    _, accuracy = model.evaluate(ids(test_texts), test_labels, batch_size=256)
    rate = len(model.history.epoch) * len(texts) / seconds
    print(f"Test accuracy {accuracy:.3f} on {len(test_texts)} reviews it has not seen.")
    print(f"Trained in {seconds:.1f} s, compilation included: {rate:.0f} samples/s.")
    print(f"Saved to {options.save}.")

    if options.sentences:
        for text, score in zip(
            options.sentences, model.predict(ids(options.sentences))[:, 0], strict=True
        ):
            print(f"{'positive' if score > 0.5 else 'negative'} ({score:.2f}): {text}")
    if options.smoke and not options.data and accuracy < 0.6:
        raise SystemExit(f"expected an accuracy of 0.6 or more, got {accuracy:.3f}")
    if options.json:
        print(json.dumps({
            "seconds": round(seconds, 3),
            "accuracy": accuracy,
            "samples_per_s": rate,
            "parameters": model.count_params(),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
