"""Learn to write movie reviews, letter by letter, or what a text of your own is like.

python examples/language.py "a film that"
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np

import fastgru as fg
from command_line import amount, check_outputs, fraction, natural, output, positive

GENERATED = 5000  # characters, to measure the speed
ENOUGH = {"character": 2.1, "word": 2.3}  # nats per character in the smoke run
# Of a published or measured model beside this one, by the data's name.
REFERENCES = {
    "tinyshakespeare": "PyTorch, same model and training: 1.528 nats per character in 174 s on one "
    "core; nanoGPT: 1.88 in 3 minutes on a CPU, 1.47 on a GPU (its README)",
}


def arguments() -> argparse.Namespace:
    """Read the command line; refuse now what would fail after the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("prompt", nargs="?", default="", help="how the text to write begins")
    parser.add_argument("--data", metavar="FILE.txt", help="a text in UTF-8; its end is held out")
    parser.add_argument(
        "--level", choices=("character", "word"), default="character", help="default: character"
    )
    parser.add_argument("--units", type=positive, default=256, help="of each GRU; default: 256")
    parser.add_argument("--layers", type=positive, default=1, help="how many GRUs; default: 1")
    parser.add_argument(
        "--dropout", type=fraction, default=0.2, help="after each GRU; default: 0.2"
    )
    parser.add_argument(
        "--recurrent-dropout", type=fraction, default=0.0, help="on the way to the next step"
    )
    parser.add_argument("--epochs", type=positive, default=7, help="default: 7")
    parser.add_argument(
        "--temperature", type=amount, default=0.7, help="below 1, likely texts become likelier"
    )
    parser.add_argument("--save", type=output, metavar="FILE", help="keep the model")
    parser.add_argument(
        "--plot", type=output, metavar="FILE", help="draw how surprised it is by each token"
    )
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--threads", type=positive, help="default: all CPUs this process may use")
    parser.add_argument("--smoke", action="store_true", help="a small model of a part, in seconds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()

    check_outputs(parser, [options.plot], options.save)
    return options


def load(path: str | None) -> tuple[str, str]:
    """Return what to learn from and what to measure with: reviews, or nine tenths and a tenth."""
    if path is None:
        (texts, _), (test_texts, _) = fg.datasets.movie_reviews()
        return "\n".join(texts) + "\n", "\n".join(test_texts) + "\n"
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def plot(model: fg.LanguageModel, text: str, path: str) -> None:
    """Draw the learning curve, and in how many bits each token of a text could be stored."""
    from matplotlib.figure import Figure

    tokens = fg.language.split(text, model.level)
    bits = -model.log_probabilities(text) / math.log(2)
    figure = Figure(figsize=(max(6, len(tokens) / 6), 6), layout="constrained")
    above, below = figure.subplots(2)
    for name, values in model.history.history.items():
        above.plot(range(1, len(values) + 1), values, "o-", label=name)
    above.set(xlabel="epoch", ylabel=f"nats per {model.level}")
    above.xaxis.get_major_locator().set_params(integer=True)
    above.legend()
    below.bar(range(len(bits)), bits, color="tab:orange")
    labels = [repr(token)[1:-1].replace(r"\n", "↵") for token in tokens]
    below.set_xticks(range(len(bits)), labels, rotation=90 * (model.level == "word"))
    below.set(ylabel="bits", title=f"How surprised it is by each {model.level}")
    below.margins(x=0.01)
    figure.savefig(path)


def main() -> None:
    """Train, measure, save, and write."""
    options = arguments()
    fg.set_random_seed(options.seed)
    if options.threads:
        fg.set_num_threads(options.threads)
    try:
        text, test_text = load(options.data)
    except (OSError, ValueError) as error:
        raise SystemExit(f"data: {error}") from None
    settings = {
        name: vars(options)[name]
        for name in ("level", "units", "layers", "dropout", "recurrent_dropout", "epochs")
    }
    # The learning rate falls until the last epoch, and most is won where it is small.
    settings["patience"] = options.epochs
    if options.smoke:
        text, test_text = text[:150_000], test_text[:20_000]
        settings |= {"units": 64, "epochs": 4, "steps": 64, "batch_size": 16, "learning_rate": 0.01}
    seen = text + test_text if options.data else text
    if options.level == "character" and (unseen := set(options.prompt) - set(seen)):
        raise SystemExit(f"prompt: expected characters of the data, given {sorted(unseen)}")

    model = fg.LanguageModel(**settings)
    start = time.perf_counter()
    # The end of a file of one's own is both what stops training and what is reported, as in
    # char-rnn; of the reviews another part is.
    try:
        model.fit(text, test_text if options.data else None)
    except ValueError as error:
        raise SystemExit(f"data: {error}") from None
    except KeyboardInterrupt:
        if not model.history.epoch:
            raise SystemExit("Interrupted in the first epoch.") from None
        print("Interrupted: the best weights so far count.")
    seconds = time.perf_counter() - start
    if options.save:
        model.save(options.save)
        print(f"Saved to {options.save}.")
    measured = model.evaluate(test_text)
    nats = measured["bits_per_character"] * math.log(2)
    print(
        f"{nats:.4f} nats = {measured['bits_per_character']:.3f} bits per character, "
        f"perplexity {measured['perplexity']:.2f} per {model.level}, on {len(test_text):,} "
        f"characters it has not seen. Trained in {seconds:.1f} s, compilation included."
    )

    model.generate(length=1)  # compiles what draws
    start = time.perf_counter()
    length = len(model.generate(length=GENERATED, seed=options.seed))
    speed = length / (time.perf_counter() - start)
    print(f"It writes {speed:,.0f} characters per second:\n")
    if options.data:
        print(options.prompt, end="")
        print(model.generate(options.prompt, 600, temperature=options.temperature))
    else:
        for seed in range(3):
            print(f"- {options.prompt}", end="")
            tokens = model.stream(
                options.prompt, 300, temperature=options.temperature, seed=seed, stop="\n"
            )
            for token in tokens:
                print(token, end="", flush=True)
            print()
    best = ", ".join(f"{token!r} {p:.0%}" for token, p in model.predict_next(options.prompt))
    print(f"\nAfter {options.prompt!r} it expects {best}.")

    if options.plot:
        plot(model, test_text[:100], options.plot)
        print(f"The picture is in {options.plot}.")
    if options.smoke and not options.data and nats > ENOUGH[options.level]:
        raise SystemExit(
            f"expected {ENOUGH[options.level]} nats per character or less, got {nats:.3f}"
        )
    if options.json:
        data = Path(options.data).stem if options.data else "movie reviews"
        print(json.dumps({
            "application": "LanguageModel",
            "data": data,
            "size": f"{options.layers} x {settings['units']}",
            "seed": options.seed,
            "seconds": round(seconds, 1),
            "quality": f"{nats:.3f} nats per character; writes {round(speed, -3):,.0f} a second",
            "nats_per_char": round(nats, 4),
            "bits_per_char": round(measured["bits_per_character"], 4),
            "perplexity": round(measured["perplexity"], 3),
            "chars_per_s": round(speed),
            "parameters": model.count_params(),
            "val_loss": [round(float(v), 4) for v in np.array(model.history.history["val_loss"])],
            "reference": REFERENCES.get(data, ""),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
