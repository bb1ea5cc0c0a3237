"""Speech recognition: from waveforms to words, for whole recordings and for sound that goes on."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from reprlib import repr as shortened
from typing import Any

import numpy as np

from fastgru import audio
from fastgru.application import Application
from fastgru.batches import Sequences, named
from fastgru.callbacks import EarlyStopping
from fastgru.decoding import CTCBeamSearch, ctc_greedy, log_softmax
from fastgru.history import History
from fastgru.layers import Dense, Dropout, Layer
from fastgru.losses import CTC
from fastgru.metrics import cer, wer
from fastgru.model import Sequential
from fastgru.optimizers import AdamW
from fastgru.progress import checked
from fastgru.random import generator
from fastgru.recurrent import GRU, Bidirectional
from fastgru.run import checked_callbacks
from fastgru.schedules import CosineDecay, LinearWarmup
from fastgru.text import Tokenizer
from fastgru.validation import (
    array_of,
    boolean,
    fraction,
    non_negative_int,
    one_of,
    positive,
    positive_int,
)

FEATURES = {"log_mel": audio.log_mel, "mfcc": audio.mfcc}
BLANK = 0  # the id that a Tokenizer gives to no word
CLIP = 1.0  # of the gradients' common length
# The least energy, that of faint noise: the silence of a computer, all zeros, is no quieter.
FLOOR = 1e-6
LEVELS = ("word", "char")
SLOWEST, FASTEST = 0.1, 10
WARMUP = 0.1  # share of the batches in which the learning rate rises
# How much of the features and of the time one mask may hide, and of the time all together.
WIDEST_MASK, LONGEST_MASK = 0.2, 0.1
SETTINGS = (
    "units", "layers", "bidirectional", "level", "sample_rate", "features", "feature_options",
    "stack", "prior_frames", "dropout", "speeds", "masks", "learning_rate", "batch_size", "epochs",
    "patience", "validation_split", "seed",
)  # fmt: skip


class _FrontEnd:
    """Samples to what the network takes, chunk by chunk: bit for bit that of the whole."""

    def __init__(self, settings: SpeechRecognizer, mean: Any, deviation: Any) -> None:
        self._features = settings._feature_stream()
        self._normalizer = audio.RunningNormalizer(mean, deviation, settings.prior_frames)
        self._stack = settings.stack
        self.reset()

    def reset(self) -> None:
        self._features.reset()
        self._normalizer.reset()
        self._rest = np.empty((0, len(self._normalizer._mean)), np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the steps (T, stack * I) that are complete now."""
        frames = self._normalizer(self._features(samples))
        rest = np.concatenate([self._rest, frames])
        steps = len(rest) // self._stack
        self._rest = rest[steps * self._stack :]
        return rest[: steps * self._stack].reshape(steps, self._stack * rest.shape[1])


def forward_settings(level: str = "word") -> dict[str, Any]:
    """Return settings for a `SpeechRecognizer` that reads forwards only, and so can `stream`.

    With those for both ways CTC easily learns no more than to guess from the first sound of a word.
    One wide layer and long steps keep it from that. A tenth of a second of silence behind each
    recording tells that "two" does not go on as "three".

    Parameters
    ----------
    level : {"word", "char"}
        What is recognised; characters need shorter steps.

    Examples
    --------
    >>> SpeechRecognizer(**forward_settings()).bidirectional
    False
    """
    return {
        "bidirectional": False,
        "level": level,
        "layers": 1,
        "units": 96,
        "stack": {"word": 8, "char": 3}[one_of("level", level, LEVELS)],
        "learning_rate": 0.012,
        "epochs": 20,
    }


class SpeechRecognizer(Application):
    """Write down what is said, having learned from recordings and their transcripts.

    The waveform becomes logarithms of the energies in mel bands, normalized by the frames so far;
    `stack` frames make one step of a stack of GRUs; connectionist temporal classification (CTC)
    finds out by itself which steps belong to which word. ::

        x = stacked(normalized(log_mel(wave)))
        h = GRU(dropout(GRU(dropout(x))))
        scores = dropout(h) kernel + bias               of the blank and all words, for each step

    Parameters
    ----------
    units, layers : int
        Units of each GRU (in each direction), and how many GRUs there are.
    bidirectional : bool
        Whether they read both ways. That is more accurate, and cannot `stream`; for the other way
        see `forward_settings`.
    level : {"word", "char"}
        What is recognised: the words of the transcripts as wholes, for a small vocabulary, or
        their characters.
    sample_rate : int
        Samples per second; WAV files of other rates are resampled.
    features : {"log_mel", "mfcc"}
        Which of `fastgru.audio`'s.
    feature_options : dict, optional
        Options of that function, such as ``{"n_mels": 64}``; `floor` is 1e-6 by default.
    stack : int
        How many frames (of 10 ms) make one step.
    prior_frames : float
        For how many frames the training data's mean and deviation count when a recording begins:
        see `fastgru.audio.RunningNormalizer`.
    dropout : float
        Share of values that are dropped in training, see above.
    speeds : sequence of float
        Each epoch takes each recording at one of these speeds, drawn at random, and its pitch
        changes with it: more voices than there are. From 0.1 to 10; ``(1,)`` for none but its own.
    masks : int
        How many stretches of time, and how many bands, are hidden in each recording in training.
    learning_rate : float
        The highest of `AdamW`: it rises in the first tenth, and falls as a cosine to 0.
    batch_size, epochs : int
        Recordings in a step, all of about the same length; passes over the data at most.
    patience : int
        Stop after so many epochs without a lower loss on the held-out part; the best epoch's
        weights stay, also after Ctrl-C.
    validation_split : float
        Share of the recordings, drawn at random, that is held out.
    seed : int, optional
        Seed of weights, dropout and all that is drawn; by default from `set_random_seed`.

    Attributes
    ----------
    history : History
        What the last `fit` has measured.
    vocabulary : list of str
        What each output stands for; the first one is the blank.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range; the message says what was expected.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru as fg
    >>> time = np.arange(2000) / 8000
    >>> low, high = np.sin(2 * np.pi * 300 * time), np.sin(2 * np.pi * 2000 * time)
    >>> small = dict(units=16, layers=1, dropout=0, speeds=(1,), masks=0, validation_split=0)
    >>> recognizer = fg.SpeechRecognizer(**small, epochs=40, learning_rate=0.02, seed=0)
    >>> _ = recognizer.fit([low, high], ["low", "high"], verbose=0)
    >>> recognizer.transcribe([high, low])
    ['high', 'low']

    Notes
    -----
    Graves et al. 2006 (CTC, as `fastgru.losses.CTC` says); Graves and Jaitly 2014, "Towards
    end-to-end speech recognition with recurrent neural networks" (recurrent layers with CTC and no
    more); Ko et al. 2015, "Audio augmentation for speech recognition" (speeds); Park et al. 2019,
    "SpecAugment" (masks); Sak et al. 2015, arXiv:1507.06947 (stacked frames).
    """

    def __init__(
        self,
        units: int = 64,
        layers: int = 2,
        bidirectional: bool = True,
        level: str = "word",
        sample_rate: int = 8000,
        features: str = "log_mel",
        feature_options: dict[str, Any] | None = None,
        stack: int = 3,
        prior_frames: float = 20.0,
        dropout: float = 0.2,
        speeds: Sequence[float] = (0.9, 1.0, 1.1),
        masks: int = 0,
        learning_rate: float = 0.006,
        batch_size: int = 16,
        epochs: int = 10,
        patience: int = 8,
        validation_split: float = 0.1,
        seed: int | None = None,
    ) -> None:
        self.units = positive_int("units", units)
        self.layers = positive_int("layers", layers)
        self.bidirectional = boolean("bidirectional", bidirectional)
        self.level = one_of("level", level, LEVELS)
        self.sample_rate = positive_int("sample_rate", sample_rate)
        self.features = one_of("features", features, FEATURES)
        if not isinstance(feature_options, (dict, type(None))):
            raise TypeError(f"feature_options: expected a dict, given {feature_options!r}")
        self.feature_options = dict(feature_options or {})
        self.stack = positive_int("stack", stack)
        self.prior_frames = positive("prior_frames", prior_frames)
        self.dropout = fraction("dropout", dropout)
        if not isinstance(speeds, (list, tuple)) or not speeds:
            raise TypeError(f"speeds: expected a list of numbers > 0, given {speeds!r}")
        self.speeds = [positive(f"speeds[{i}]", speed) for i, speed in enumerate(speeds)]
        for i, speed in enumerate(self.speeds):
            if not SLOWEST <= speed <= FASTEST:
                raise ValueError(
                    f"speeds[{i}]: expected a number from {SLOWEST} to {FASTEST}, given {speed:g}"
                )
        self.masks = non_negative_int("masks", masks)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.batch_size = positive_int("batch_size", batch_size)
        self.epochs = positive_int("epochs", epochs)
        self.patience = positive_int("patience", patience)
        self.validation_split = fraction("validation_split", validation_split)
        self.seed = None if seed is None else non_negative_int("seed", seed)
        self._feature_stream()  # finds wrong options
        self.history = History()
        self._tokenizer = self._new_tokenizer()
        self._prior = np.zeros(1), np.ones(1)
        self._model: Sequential | None = None

    # ---- what a file holds

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make such a recognizer again."""
        return {name: getattr(self, name) for name in SETTINGS}

    def _layers(self) -> list[Layer]:
        return [] if self._model is None else self._model.layers

    def _assemble(self, layers: list[Layer]) -> None:
        *below, last = layers
        if not below or not isinstance(last, Dense) or last.units != len(self.vocabulary):
            raise ValueError(
                f"layers: expected a Dense with {len(self.vocabulary)} units at the end, one for "
                "each token and the blank"
            )
        model = Sequential(layers)
        model.build((None, None, self.stack * len(self._prior[0])))
        self._model = model

    def _learned(self) -> dict[str, Any]:
        mean, deviation = (array.tolist() for array in self._prior)
        return {"mean": mean, "deviation": deviation, "tokens": self._tokenizer.to_json()}

    def _learn(self, learned: dict[str, Any]) -> None:
        self._tokenizer = Tokenizer.from_json(learned["tokens"])
        self._prior = np.array(learned["mean"]), np.array(learned["deviation"])
        _FrontEnd(self, *self._prior)(np.zeros(self._least_samples()))  # raises if they do not fit

    def count_params(self) -> int:
        """Return the number of weights."""
        return sum(layer.count_params() for layer in self._layers())

    # ---- sound

    def _feature_stream(self) -> audio.FeatureStream:
        options = {"floor": FLOOR} | self.feature_options
        return audio.FeatureStream(FEATURES[self.features], self.sample_rate, **options)

    def _least_samples(self) -> int:
        """Return how many samples one step takes."""
        window, hop = (
            round(self.feature_options.get(name, default) * self.sample_rate / 1000)
            for name, default in (("window_ms", audio.WINDOW_MS), ("hop_ms", audio.HOP_MS))
        )
        return window + (self.stack - 1) * hop

    def _samples(self, name: str, wave: Any) -> np.ndarray:
        """Return the samples of a WAV file or an array (n,), or raise."""
        if isinstance(wave, (str, os.PathLike)):
            name = f"{name}, {os.fspath(wave)}"
            array, _ = audio.read_wav(wave, self.sample_rate)
        else:
            array = array_of(name, wave)
        if array.ndim != 1 or array.dtype.kind != "f":
            raise ValueError(
                f"{name}: expected a WAV file's path, or samples (n,) of floats in [-1, 1], given "
                f"{array.dtype} of shape {array.shape}; divide 16-bit samples by 32768"
            )
        return audio._plausible(name, array)

    def _waves(self, waves: Any) -> list[np.ndarray]:
        """Return the samples of each recording, or raise."""
        if isinstance(waves, (str, bytes, os.PathLike)) or not isinstance(
            waves, (Sequence, np.ndarray)
        ):
            raise TypeError(
                f"waves: expected a list of WAV files' paths or of arrays, given {shortened(waves)}"
            )
        return [self._samples(f"waves[{i}]", wave) for i, wave in enumerate(waves)]

    # ---- text

    def _new_tokenizer(self) -> Tokenizer:
        return Tokenizer(filters="", lower=False, char_level=self.level == "char")

    @property
    def vocabulary(self) -> list[str]:
        """What each output stands for: first the blank, an empty text, then the tokens."""
        return ["", *self._tokenizer.word_index]

    def _text(self, ids: Sequence[int]) -> str:
        tokens = self._tokenizer.index_word
        return ("" if self.level == "char" else " ").join(tokens[i] for i in ids)

    def _pairs(self, waves: Any, transcripts: Any) -> tuple[list[np.ndarray], list[str]]:
        """Return recordings, and their transcripts with single spaces, or raise."""
        waves = self._waves(waves)
        if isinstance(transcripts, str) or not isinstance(transcripts, (Sequence, np.ndarray)):
            raise TypeError(f"transcripts: expected a list of str, given {shortened(transcripts)}")
        for i, text in enumerate(transcripts):
            if not isinstance(text, str):
                raise TypeError(f"transcripts[{i}]: expected a str, given {shortened(text)}")
        if len(waves) != len(transcripts):
            raise ValueError(
                f"transcripts: expected {len(waves)}, as many as waves, given {len(transcripts)}"
            )
        for i, wave in enumerate(waves):
            if len(wave) < self._least_samples():
                raise ValueError(
                    f"waves[{i}]: expected {self._least_samples()} samples or more, "
                    f"given {len(wave)}"
                )
        return waves, [" ".join(text.split()) for text in transcripts]

    def _examples(self, waves: Any, transcripts: Any) -> tuple[list[np.ndarray], list[str]]:
        """Return what `_pairs` does if the transcripts fit into their recordings, or raise."""
        waves, texts = self._pairs(waves, transcripts)
        hop = self._feature_stream()._hop * self.stack
        for i, (wave, text) in enumerate(zip(waves, texts, strict=True)):
            steps = 1 + (len(wave) - self._least_samples()) // hop
            tokens = text if self.level == "char" else text.split()
            blanks = sum(a == b for a, b in itertools.pairwise(tokens))
            needed = len(tokens) + blanks
            if needed > steps:
                raise ValueError(
                    f"transcripts[{i}]: expected at most {steps} {self.level}s in a recording of "
                    f"{len(wave) / self.sample_rate:.2f} s, given {needed} with the blanks between "
                    "equal ones; a smaller stack leaves room for more"
                )
        return waves, texts

    def _labels(self, texts: list[str]) -> list[np.ndarray]:
        """Return the ids of transcripts."""
        return [np.array(ids, int) for ids in self._tokenizer.texts_to_sequences(texts)]

    # ---- training

    def fit(
        self,
        waves: Any,
        transcripts: Any,
        validation_data: Any = None,
        callbacks: Any = None,
        verbose: Any = "auto",
    ) -> SpeechRecognizer:
        """Learn from recordings.

        Parameters
        ----------
        waves : list of str, os.PathLike or array (n,) of float
            WAV files, or samples in [-1, 1] at `sample_rate`. A magnitude above 32 is an error: so
            large are 16-bit samples that were not divided by 32768.
        transcripts : list of str
            What is said in each; an empty text for nothing.
        validation_data : tuple (waves, transcripts), optional
            What to measure each epoch on; by default `validation_split` of the recordings is kept
            back for that.
        callbacks : list of Callback, optional
            More of `fastgru.callbacks`.
        verbose : "auto", 0, 1 or 2
            As in `Sequential.fit`.

        Returns
        -------
        SpeechRecognizer
            Itself.

        Raises
        ------
        ValueError, TypeError, FileFormatError
            If something does not fit; the message names the recording, and nothing has changed.

        Notes
        -----
        As of `Sequential.fit`, KeyboardInterrupt comes out after Ctrl-C. The recognizer is then the
        old one if no epoch had ended, else it has the best weights so far.
        """
        checked(verbose)
        callbacks = checked_callbacks(callbacks)
        waves, texts = self._examples(waves, transcripts)
        random = generator(self.seed)
        held: tuple[list[np.ndarray], list[str]] | None = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError("validation_data: expected a tuple (waves, transcripts)")
            with named("validation_data"):
                held = self._examples(*validation_data)
        elif count := round(self.validation_split * len(waves)):
            order = random.permutation(len(waves)).tolist()
            held = [waves[i] for i in order[:count]], [texts[i] for i in order[:count]]
            waves, texts = [waves[i] for i in order[count:]], [texts[i] for i in order[count:]]
        if not any(texts):
            raise ValueError("transcripts: expected at least one word to learn, given none")
        options: dict[str, Any] = {}
        monitor = "loss"
        with self._learning():
            self.history = History()
            self._tokenizer = self._new_tokenizer()
            self._tokenizer.fit_on_texts(texts + (held[1] if held else []))
            self._prior = self._prior_of(waves)
            data = _Epoch(self, waves, self._labels(texts), random)
            if held:
                monitor = "val_loss"
                steps = [self._steps(wave) for wave in held[0]]
                options["validation_data"] = steps, self._labels(held[1])
            self._model = self._new_model(random, len(data))
            best = EarlyStopping(monitor, patience=self.patience, restore_best_weights=True)
            try:
                self._model.fit(
                    data,
                    epochs=self.epochs,
                    callbacks=[*callbacks, best],
                    verbose=verbose,
                    **options,
                )
            finally:
                self.history = self._model.history or History()
        return self

    def _prior_of(self, waves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation of the features over all frames."""
        features = np.concatenate([self._feature_stream()(wave) for wave in waves])
        deviation = np.maximum(features.std(axis=0, dtype=np.float64), audio.LEAST_DEVIATION)
        return features.mean(axis=0, dtype=np.float64), deviation

    def _steps(self, wave: np.ndarray) -> np.ndarray:
        return _FrontEnd(self, *self._prior)(wave)

    def _new_model(self, random: np.random.Generator, batches: int) -> Sequential:
        def seed() -> int:
            return int(random.integers(2**32))

        layers: list[Layer] = []
        for _ in range(self.layers):
            gru = GRU(self.units, return_sequences=True, seed=seed())
            layers.append(Dropout(self.dropout, seed=seed()))
            layers.append(Bidirectional(gru) if self.bidirectional else gru)
        layers.append(Dropout(self.dropout, seed=seed()))
        layers.append(Dense(len(self.vocabulary), seed=seed()))
        model = Sequential(layers)
        model.build((None, None, self.stack * len(self._prior[0])))
        steps = batches * self.epochs
        warmup = max(1, round(WARMUP * steps))
        after = CosineDecay(self.learning_rate, max(1, steps - warmup))
        model.compile(
            AdamW(LinearWarmup(self.learning_rate, warmup, after), global_clipnorm=CLIP),
            # A recording that was sped up may be too short for what it says.
            CTC(blank=BLANK, zero_infinity=True),
        )
        return model

    # ---- use

    def log_probabilities(self, waves: Any) -> list[np.ndarray]:
        """Return how probable each output is in each step.

        Parameters
        ----------
        waves : list of str, os.PathLike or array (n,) of float
            As in `transcribe`.

        Returns
        -------
        list of arrays (T, V)
            One for each recording, V as in `vocabulary`; the searches of `fastgru.decoding` take
            them.
        """
        self._fitted()
        assert self._model is not None
        steps = [self._steps(wave) for wave in self._waves(waves)]
        scores = [np.empty((0, len(self.vocabulary)), np.float32)] * len(steps)
        filled = [i for i, x in enumerate(steps) if len(x)]
        if filled:
            outputs = self._model.predict([steps[i] for i in filled])
            for i, output in zip(filled, outputs, strict=True):
                scores[i] = log_softmax(output)
        return scores

    def _search(self, beam_size: Any, options: dict[str, Any]) -> CTCBeamSearch | None:
        """Return the search; None for a beam of 1 that nothing else steers, the best path."""
        if positive_int("beam_size", beam_size) == 1 and not options:
            return None
        model: Any = options.get("language_model")
        if hasattr(model, "fusion"):
            with named("language_model"):
                if self.level == getattr(model, "level", None) == "word":
                    fused = _spaced_fusion(model, self.vocabulary)
                else:
                    fused = model.fusion(self.vocabulary)
            options = options | fused
        elif model is not None and not callable(model):
            raise TypeError(
                "language_model: expected a function, or a model with a method fusion, given "
                f"{shortened(model)}"
            )
        return CTCBeamSearch(BLANK, beam_size, **options)

    def transcribe(self, waves: Any, beam_size: int = 8, **options: Any) -> list[str]:
        """Write down what is said.

        Parameters
        ----------
        waves : list of str, os.PathLike or array (n,) of float
            WAV files, or samples in [-1, 1] at `sample_rate`.
        beam_size : int
            How many texts are followed side by side; 1 takes the best output of each step.
        **options
            Those of `fastgru.decoding.CTCBeamSearch`: `lm_weight`, `bonus`, and `language_model`, a
            function of the last id and a state that knows the outputs by their places in
            `vocabulary`, with its first `state` and its `start`. What has a method ``fusion``, as
            a `LanguageModel` of the same tokens, is asked for these three:
            ``fusion(vocabulary)`` returns them as a dict. One of words has to have seen each word
            of the vocabulary at the beginning of a line and behind another word.

        Returns
        -------
        list of str
            One for each; empty where nothing is said, or the recording is shorter than a step.

        Raises
        ------
        RuntimeError
            If it is not fitted.
        ValueError, TypeError, FileFormatError
            If a recording cannot be read.
        """
        search = self._search(beam_size, options)
        texts = []
        for scores in self.log_probabilities(waves):
            if search is None:
                ids = ctc_greedy(scores, BLANK)
            else:
                search.reset()
                ids = search(scores)[0].ids
            texts.append(self._text(ids))
        return texts

    def evaluate(
        self, waves: Any, transcripts: Any, beam_size: int = 8, **options: Any
    ) -> dict[str, float]:
        """Compare what is recognised with what is said.

        Parameters
        ----------
        waves, transcripts
            As in `fit`.
        beam_size, options
            As in `transcribe`.

        Returns
        -------
        dict of str to float
            ``"exact"``, the share of recordings without an error, ``"wer"`` and ``"cer"``, the
            error rates of words and characters.
        """
        waves, texts = self._pairs(waves, transcripts)
        heard = self.transcribe(waves, beam_size, **options)
        exact = sum(a == b for a, b in zip(texts, heard, strict=True)) / max(1, len(texts))
        return {"exact": exact, "wer": wer(texts, heard), "cer": cer(texts, heard)}

    def stream(self, beam_size: int = 8, **options: Any) -> SpeechStream:
        """Return a function that takes a sound in chunks: see `SpeechStream`.

        Parameters
        ----------
        beam_size, options
            As in `transcribe`.

        Raises
        ------
        RuntimeError
            If it is not fitted.
        TypeError
            If it is bidirectional, since it needs the end before it can begin.
        """
        self._fitted()
        if self.bidirectional:
            raise TypeError(
                "stream: expected bidirectional=False, for a stream has no end to read backwards "
                "from, given True"
            )
        return SpeechStream(self, self._search(beam_size, options))


def _spaced_fusion(model: Any, vocabulary: list[str]) -> dict[str, Any]:
    """Return a model's `fusion` where its words hold the space before them, but for the first."""
    words, V = vocabulary[1:], len(vocabulary)
    try:
        fused = model.fusion([*vocabulary, *(f" {word}" for word in words)])
    except ValueError as error:
        raise ValueError(
            "expected a model that has seen each word at the beginning of a line and behind "
            f"another word; {error}"
        ) from None
    first, later = np.arange(V), np.r_[BLANK, V : V + len(words)]

    def step(ids: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        count, inner = state  # how many words there are
        own = later[ids] if count > 1 else ids
        log_probabilities, inner = fused["language_model"](own, inner)
        return log_probabilities[:, later if count else first], (count + 1, inner)

    return fused | {"language_model": step, "state": (0, fused["state"])}


class SpeechStream:
    """Recognise a sound that goes on: ``text = stream(samples)``, what was said so far.

    Made by `SpeechRecognizer.stream`. However the sound is cut into chunks, the text is the one
    that `SpeechRecognizer.transcribe` finds for all of it.

    Parameters
    ----------
    recognizer : SpeechRecognizer
        One that is fitted and reads forwards only.
    search : CTCBeamSearch, optional
        How the text is searched for; by default the best output of each step counts.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru as fg
    >>> small = dict(bidirectional=False, epochs=1, speeds=(1,), validation_split=0)
    >>> recognizer = fg.SpeechRecognizer(**small, seed=0)
    >>> wave = np.random.default_rng(0).normal(size=8000)
    >>> stream = recognizer.fit([wave], ["noise"], verbose=0).stream()
    >>> [stream(chunk) for chunk in np.split(wave, 4)][-1] == recognizer.transcribe([wave])[0]
    True
    """

    def __init__(self, recognizer: SpeechRecognizer, search: CTCBeamSearch | None) -> None:
        assert recognizer._model is not None
        self._recognizer, self._search = recognizer, search
        self._front = _FrontEnd(recognizer, *recognizer._prior)
        self._step = recognizer._model.stream()
        self.reset()

    def reset(self) -> None:
        """Forget all sound, for another one."""
        self._front.reset()
        self._step.reset()
        self._ids: list[int] = []
        self._last: int | None = None
        if self._search is not None:
            self._search.reset()

    @property
    def text(self) -> str:
        """What was said so far."""
        return self._recognizer._text(self._ids)

    def __call__(self, samples: Any) -> str:
        """Take the next samples (n,), any number; return what was said so far.

        A beam search may yet change its mind about the last words.
        """
        steps = self._front(self._recognizer._samples("samples", samples))
        if len(steps):
            scores = log_softmax(np.stack([self._step(x).copy() for x in steps]))
            if self._search is not None:
                self._ids = self._search(scores)[0].ids
            else:
                self._ids += ctc_greedy(scores, BLANK, self._last)
                self._last = int(scores[-1].argmax())
        return self.text


class _Epoch:
    """The batches of an epoch, drawn anew each time: order, speeds and masks."""

    def __init__(
        self,
        recognizer: SpeechRecognizer,
        waves: list[np.ndarray],
        labels: list[np.ndarray],
        random: np.random.Generator,
    ) -> None:
        self._batch_size, self._masks = recognizer.batch_size, recognizer.masks
        self._rows, self._stack = len(recognizer._prior[0]), recognizer.stack
        self._random, self._labels = random, labels
        least = recognizer._least_samples()
        self._steps = []
        for wave in waves:
            spoken = [_at_speed(wave, speed) for speed in recognizer.speeds]
            kept = [again for again in spoken if len(again) >= least] or [wave]
            self._steps.append([recognizer._steps(again) for again in kept])

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self._batch_size)

    def __iter__(self) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
        random = self._random
        x = [versions[random.integers(len(versions))] for versions in self._steps]
        source = Sequences(x, side_of=lambda shape: "post")
        for batch in source.batches(self._batch_size, random):
            rows = batch.place.rows
            yield [self._masked(x[i]) for i in rows], [self._labels[i] for i in rows]

    def _masked(self, x: np.ndarray) -> np.ndarray:
        """Return steps with some time and some bands set to 0, their mean."""
        if not self._masks:
            return x
        frames = x.reshape(-1, self._rows).copy()
        for axis, most in ((0, LONGEST_MASK), (1, WIDEST_MASK)):
            along = frames if axis == 0 else frames.T
            for _ in range(self._masks):
                width = self._random.integers(int(most * len(along)) + 1)
                start = self._random.integers(len(along) - width + 1)
                along[start : start + width] = 0
        return frames.reshape(x.shape)


def _at_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """Return what is said faster, and so higher: less samples at the same rate."""
    return wave if speed == 1 else audio.resample(wave, round(100 * speed), 100)
