"""Recognise spoken digits, one by one and connected, with a GRU and CTC.

python examples/speech.py --data fsdd.npz --leave-out all --plot digits.png

Without --data, espeak-ng speaks the digits (`pip install "fastgru[speech]"`, or `apt install
espeak-ng`); without either, vowels and hisses are made here that only remind of digits.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

import fastgru as fg
from command_line import amount, check_outputs, natural, output, positive

WORDS = "zero one two three four five six seven eight nine".split()
RATE = 8000  # samples per second
COLUMNS = "samples", "lengths", "sample_rate", "speakers", "speaker", "digit", "take"  # of a file
TRAINED, VALIDATED = 10, 5  # the takes from the first on train, those between test less, test
GAP_S = 0.05, 0.4  # seconds of silence between connected digits
GAP_LEVELS = 0.0, 1e-4, 1e-3  # of the noise in it
SILENCE_S = 0.1  # behind each recording, for those who read forwards only

Utterances = tuple[list[np.ndarray], list[str]]


class Recordings:
    """Spoken digits: waves, and of each the digit, the speaker and the number of the take."""

    def __init__(self, waves: list[np.ndarray], digit: Any, speaker: Any, take: Any) -> None:
        self.waves = waves
        self.digit, self.speaker, self.take = map(np.asarray, (digit, speaker, take))

    @classmethod
    def read(cls, path: str) -> Recordings:
        """Read a file of the layout of the Free Spoken Digit Dataset that the README describes."""
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = {name: file[name] for name in COLUMNS}
        except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
            raise ValueError(f"expected an .npz with {', '.join(COLUMNS)}, given {path}") from None
        samples, lengths, rate, speakers, speaker, digit, take = columns.values()
        waves = np.split(samples / np.float32(32768), np.cumsum(lengths)[:-1])
        waves = [fg.audio.resample(wave, int(rate), RATE) for wave in waves]
        return cls(waves, digit, speakers[speaker], take)

    def single(self, rows: Any) -> Utterances:
        """Return some recordings as they are."""
        chosen = np.flatnonzero(rows)
        return [self.waves[i] for i in chosen], [WORDS[self.digit[i]] for i in chosen]

    def connected(self, rows: Any, count: int, seed: int) -> Utterances:
        """Return 2 to 5 recordings of one speaker at a time, joined with random gaps."""
        random = np.random.default_rng(seed)
        places = np.flatnonzero(rows)

        def gap() -> np.ndarray:
            return level * random.normal(size=int(random.uniform(*GAP_S) * RATE))

        waves, texts = [], []
        for _ in range(count):
            speaker = self.speaker[random.choice(places)]
            chosen = random.choice(places[self.speaker[places] == speaker], random.integers(2, 6))
            level = random.choice(GAP_LEVELS)
            parts = [gap()]
            for i in chosen:
                parts += [self.waves[i], gap()]
            waves.append(np.concatenate(parts))
            texts.append(" ".join(WORDS[self.digit[i]] for i in chosen))
        return waves, texts


# ---- digits without data


def program(word: str, voice: str, pitch: int, speed: int) -> np.ndarray:
    """Let the program espeak-ng speak a word."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "word.wav")
        options = ["-v", f"en+{voice}", "-p", str(pitch), "-s", str(speed), "-w", path]
        subprocess.run(["espeak-ng", *options, word], check=True)
        return fg.audio.read_wav(path, RATE)[0]


def library() -> Callable[[str, str, int, int], np.ndarray]:
    """Return a function that lets the library of the package espeakng-loader speak a word."""
    import espeakng_loader

    synchronous, speed_parameter, pitch_parameter, characters, utf8 = 2, 1, 3, 1, 1
    espeak = espeakng_loader.load_library()
    data = espeakng_loader.get_data_path().encode()
    rate = espeak.espeak_Initialize(synchronous, 0, data, 0)
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(0))  # of the noise in its hisses
    chunks: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def take(samples: Any, count: int, events: Any) -> int:
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)) / 32768.0)
        return 0

    espeak.espeak_SetSynthCallback(take)

    def speak(word: str, voice: str, pitch: int, speed: int) -> np.ndarray:
        assert take is not None  # the library calls it
        chunks.clear()
        espeak.espeak_SetVoiceByName(f"en+{voice}".encode())
        espeak.espeak_SetParameter(speed_parameter, speed, 0)
        espeak.espeak_SetParameter(pitch_parameter, pitch, 0)
        text = word.encode()
        size = ctypes.c_size_t(len(text) + 1)
        espeak.espeak_Synth(text, size, 0, characters, 0, utf8, None, None)
        return fg.audio.resample(np.concatenate(chunks), rate, RATE)

    return speak


# The parts of the sound of digits: the two lowest resonances in Hz, or where a hiss is.
I, E, A, O, U, N, HISS, BREATH = (
    (300, 2200), (500, 1800), (700, 1200), (500, 900), (320, 850), (250, 1100), (3200,), (1500,),
)  # fmt: skip
IMITATED = [
    [HISS, I, O], [U, A, N], [BREATH, U], [BREATH, U, I], [BREATH, O], [BREATH, A, I, BREATH],
    [HISS, I, HISS], [HISS, E, N], [E, I, BREATH], [N, A, I, N],
]  # fmt: skip


def imitation(word: str, voice: str, pitch: int, speed: int) -> np.ndarray:
    """Make a sound that reminds of a word: resonances of vowels over a tone, and hisses."""
    random = np.random.default_rng([WORDS.index(word), pitch, speed, *voice.encode()])
    tone = 70 + 2 * pitch + 10 * int(voice[1])
    size = 1 + 0.04 * (int(voice[1]) - 3)  # of the throat
    parts = []
    for resonances in IMITATED[WORDS.index(word)]:
        t = np.arange(int(RATE * 20 / speed * random.uniform(0.9, 1.1))) / RATE
        if len(resonances) == 1:
            carrier = np.cos(2 * np.pi * resonances[0] * size * t)
            part = 0.1 * random.normal(size=len(t)) * carrier
        else:
            hz = tone * np.arange(1, 3500 // tone)[:, None]
            near = sum(np.exp(-(((hz - f * size) / 150) ** 2)) for f in resonances)
            part = 0.1 * (near * np.sin(2 * np.pi * hz * t)).sum(axis=0)
        parts.append(part * np.hanning(len(t)) ** 0.3)
    return np.concatenate(parts)


def synthesised(takes: int) -> tuple[str, Recordings]:
    """Return digits of several voices, so many takes of each, and who has spoken them."""
    speak: Callable[[str, str, int, int], np.ndarray] | None = None
    name = "espeak-ng"
    if shutil.which("espeak-ng"):
        speak = program
    else:
        try:
            speak = library()
        except (ImportError, OSError):
            name, speak = "imitated digits", imitation
            print("For spoken digits: pip install 'fastgru[speech]', or apt install espeak-ng.")
            print("Without, sounds are made here that only remind of digits.")
    random = np.random.default_rng(0)
    waves, rows = [], []
    for voice in ("m1", "m3", "m7", "f2", "f4"):
        for digit, word in enumerate(WORDS):
            for take in range(takes):
                pitch, speed = random.integers(30, 70), random.integers(130, 200)
                wave = speak(word, voice, int(pitch), int(speed))
                loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
                waves.append(wave[loud[0] : loud[-1] + 1] * random.uniform(0.2, 1))
                rows.append((digit, voice, take))
    return name, Recordings(waves, *zip(*rows, strict=True))


# ---- training and measuring


def trained(
    data: Recordings, rows: Any, held: Any, options: argparse.Namespace
) -> tuple[Any, bool]:
    """Return a recognizer of digits, one by one and connected, and if Ctrl-C ended its training."""

    def both(rows: Any, seed: int, share: float) -> Utterances:
        single = data.single(rows)
        connected = data.connected(rows, round(share * len(single[0])), seed)
        return single[0] + connected[0], single[1] + connected[1]

    settings = {"level": options.level}
    if options.forward:
        settings = fg.speech.forward_settings(options.level)
    if options.epochs:
        settings["epochs"] = options.epochs
    recognizer = fg.SpeechRecognizer(**settings, seed=options.seed)
    try:
        recognizer.fit(
            *both(rows, options.seed + 1, options.connected),
            validation_data=both(held, options.seed + 2, 0.5) if held.any() else None,
        )
    except ValueError as error:
        raise SystemExit(f"data: {error}") from None
    except KeyboardInterrupt:
        return recognizer, True
    return recognizer, False


def measured(recognizer: Any, data: Recordings, rows: Any, seed: int) -> dict[str, float]:
    """Return the quality on some recordings, and how fast it was reached."""
    single = recognizer.evaluate(*data.single(rows))
    waves, texts = data.connected(rows, 200, seed)
    seconds = sum(map(len, waves)) / RATE
    start = time.perf_counter()
    connected = recognizer.evaluate(waves, texts)
    return {
        "exact": single["exact"],
        "wer": connected["wer"],
        "connected_exact": connected["exact"],
        "real_time_factor": (time.perf_counter() - start) / seconds,
    }


def streamed(recognizer: Any, wave: np.ndarray) -> float:
    """Recognise chunks of 100 ms; return how many milliseconds one takes."""
    stream, text = recognizer.stream(), ""
    times = []
    for chunk in np.split(wave, range(RATE // 10, len(wave), RATE // 10)):
        start = time.perf_counter()
        text = stream(chunk)
        times.append(time.perf_counter() - start)
    whole = recognizer.transcribe([wave])[0]
    if text != whole:
        raise SystemExit(f"expected the text of the whole, {whole!r}, got {text!r} in chunks")
    return 1000 * float(np.median(times))


def draw(recognizer: Any, wave: np.ndarray, text: str, path: str) -> None:
    """Draw the features of an utterance, and where which word was recognised."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    seconds = len(wave) / RATE
    features = fg.audio.log_mel(wave, RATE, floor=1e-6)
    above.imshow(features.T, origin="lower", aspect="auto", extent=(0, seconds, 0, 40))
    above.set(title=f"said: {text}", ylabel="mel band")
    probabilities = np.exp(recognizer.log_probabilities([wave])[0])
    at = seconds * np.arange(1, len(probabilities) + 1) / len(probabilities)  # where steps end
    for token, curve in zip(recognizer.vocabulary, probabilities.T, strict=True):
        if curve.max() > 0.3:
            below.plot(at, curve, label=token or "blank", color=None if token else "lightgrey")
    below.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.05))
    below.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path)
    print(f"Drawn into {path}.")


def arguments() -> argparse.Namespace:
    """Read the command line; refuse now what would fail after the training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="FILE.npz", help="recordings of digits; see the README")
    parser.add_argument("--test", metavar="FILE.npz", help="test on these: other speakers")
    parser.add_argument(
        "--leave-out", metavar="SPEAKER", nargs="+", default=[],
        help="train again without these speakers, one at a time, and test on them; or: all",
    )  # fmt: skip
    parser.add_argument("--level", choices=("word", "char"), default="word", help="default: word")
    parser.add_argument(
        "--forward", action="store_true", help="read forwards only, and recognise a stream, too"
    )
    parser.add_argument(
        "--connected", type=amount, default=0.5, help="utterances made per recording; default: 0.5"
    )
    parser.add_argument("--validate", action="store_true", help="test on the takes for validation")
    parser.add_argument(
        "--epochs", type=positive, help="passes over the data at most; default: 10, forwards 20"
    )
    parser.add_argument(
        "--save", type=output, metavar="FILE", help="write the recognizer to this file"
    )
    parser.add_argument(
        "--plot", type=output, metavar="FILE", help="draw an utterance into this file"
    )
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--threads", type=positive, help="default: all CPUs this process may use")
    parser.add_argument("--smoke", action="store_true", help="a small data set, in seconds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    check_outputs(parser, [options.plot], options.save)
    return options


def main() -> None:
    """Load or make digits, train, measure, and draw."""
    options = arguments()
    fg.set_random_seed(options.seed)
    if options.threads:
        fg.set_num_threads(options.threads)
    try:
        if options.data:
            name, data = os.path.basename(options.data), Recordings.read(options.data)
        else:
            name, data = synthesised(14 if options.smoke else 30)
        tested = Recordings.read(options.test) if options.test else data
    except (OSError, ValueError) as error:
        raise SystemExit(f"data: {error}") from None
    speakers = np.unique(data.speaker) if "all" in options.leave_out else options.leave_out
    if strangers := set(speakers) - set(data.speaker):
        raise SystemExit(
            f"--leave-out: expected some of {np.unique(data.speaker)}, given {strangers}"
        )
    if options.forward:
        silence = np.zeros(round(SILENCE_S * RATE))
        for recordings in {data, tested}:
            recordings.waves = [np.append(wave, silence) for wave in recordings.waves]
    held = (data.take < TRAINED) & (data.take >= VALIDATED)
    if options.test:
        rows = np.ones(len(tested.waves), bool)
    else:
        rows = held if options.validate else data.take < VALIDATED
    if not rows.any():
        raise SystemExit("data: expected takes to test on, given none")

    start = time.perf_counter()
    recognizer, interrupted = trained(data, data.take >= TRAINED, held, options)
    if interrupted:
        if not recognizer.history.epoch:
            raise SystemExit("Interrupted in the first epoch.")
        print("Interrupted: the best weights so far count.")
    seconds = time.perf_counter() - start
    if options.save:
        recognizer.save(options.save)
    results = measured(recognizer, tested, rows, options.seed + 3)
    (wave, *_), (text, *_) = tested.connected(rows, 1, options.seed)
    print(f"Trained in {seconds:.0f} s on {name}: {recognizer.count_params()} weights.")
    print(f"Single digits exact: {results['exact']:.3f}.  Connected: WER {results['wer']:.3f}.")
    print(f"Said: {text}. Recognised: {recognizer.transcribe([wave])[0]}.")
    print(f"Real-time factor: {results['real_time_factor']:.4f}.")
    if options.forward:
        results["stream_ms"] = streamed(recognizer, wave)
        print(f"In a stream 100 ms take {results['stream_ms']:.1f} ms.")

    left_out = {}
    for speaker in [] if interrupted else speakers:
        others, own = data.speaker != speaker, data.speaker == speaker
        stranger, interrupted = trained(
            data, others & (data.take >= TRAINED), others & held, options
        )
        if interrupted:
            print("Interrupted: the speakers so far count.")
            break
        left_out[str(speaker)] = measured(stranger, data, own, options.seed + 3)
        print(f"Left out: {speaker}: {left_out[str(speaker)]}")

    if options.plot:
        draw(recognizer, wave, text, options.plot)
    if options.smoke and not options.data and (results["exact"] < 0.8 or results["wer"] > 0.3):
        raise SystemExit(
            "expected 0.8 of the digits exact or more, and connected ones with a word error rate "
            f"of 0.3 or less, got {results['exact']:.3f} and {results['wer']:.3f}"
        )
    if options.json:
        print(json.dumps({
            "application": "SpeechRecognizer",
            "data": name,
            "seconds": round(seconds, 3),
            "quality": f"single digits {100 * results['exact']:.1f} % exact, "
            f"2 to 5 connected: word error rate {100 * results['wer']:.1f} %",
            "reference": "no published figure known for words through CTC on these takes",
            **results,
            "left_out": left_out,
            "epochs": len(recognizer.history.history["loss"]),
            "parameters": recognizer.count_params(),
            "threads": fg.get_num_threads(),
            "seed": options.seed,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
