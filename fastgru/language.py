"""Language generation: a stack of GRUs that predicts the next character, or the next word."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from reprlib import repr as shortened
from typing import Any

import numpy as np

from fastgru import decoding, optimizers, schedules
from fastgru.application import Application
from fastgru.callbacks import EarlyStopping
from fastgru.history import History
from fastgru.layers import Dense, Dropout, Embedding, Layer, Shape
from fastgru.losses import SparseCategoricalCrossentropy
from fastgru.model import Sequential
from fastgru.progress import checked
from fastgru.random import generator
from fastgru.recurrent import GRU
from fastgru.text import Tokenizer, vocabulary
from fastgru.tied import TiedEmbedding
from fastgru.validation import (
    boolean,
    float_dtype,
    fraction,
    non_negative,
    non_negative_int,
    one_of,
    positive,
    positive_int,
)

# A word or a punctuation mark with the space before it, or other white space: no character of a
# text is lost. After Radford et al. 2019, "Language models are unsupervised multitask learners".
_WORD = re.compile(r" ?\w+(?:['’-]\w+)*| ?[^\w\s]|\s")
# What ends a word that is spelled.
END = ""
LEVELS = ("character", "word")
# Of the gradients' common length.
CLIP = 1.0
# So many steps of a text are computed at once where nothing is trained.
STEPS_AT_ONCE = 1024
SETTINGS = (
    "level", "units", "layers", "embedding", "tied", "dropout", "recurrent_dropout", "num_words",
    "min_count", "steps", "batch_size", "epochs", "learning_rate", "weight_decay",
    "validation_split", "patience", "dtype", "seed",
)  # fmt: skip


def split(text: str, level: str = "word") -> Sequence[str]:
    """Return the tokens of a text, which joined are the text again.

    Parameters
    ----------
    text : str
        Any text.
    level : str
        ``"word"``, or ``"character"``, of which a text is a sequence already.

    Raises
    ------
    ValueError
        If there is no such level.

    Examples
    --------
    >>> split("It isn't good, is it?")
    ['It', " isn't", ' good', ',', ' is', ' it', '?']
    """
    return _WORD.findall(text) if one_of("level", level, LEVELS) == "word" else text


class LanguageModel(Application):
    r"""Learn from a text how it goes on, and write more of it.

    The next token, a character or a word, is predicted from all tokens before it::

        x_1 = embedding of the token
        x_i+1 = dropout(GRU_i(x_i))
        logits = x_n+1 kernel + bias        of all tokens that can be next

    It is trained by truncated backpropagation through time: the text is cut into `batch_size`
    streams that are read side by side, `steps` tokens at a time, and the states go on.

    Parameters
    ----------
    level : str
        What a token is: ``"character"`` or ``"word"``. A word holds the space before it, and a
        punctuation mark is a word.
    units, layers : int
        Units of a `GRU`, and how many of them there are one above the other.
    embedding : int, optional
        Length of the vectors that stand for tokens; by default 64 for characters, else `units`.
    tied : bool
        Whether these vectors are also the weights of the output, which takes an `embedding` of
        `units`.
    dropout : float
        Share of the values behind each `GRU` that are dropped in training.
    recurrent_dropout : float
        Share of each `GRU`'s state that its own products do not see in training, the same in all
        steps. Large layers learn a short text by heart without.
    num_words : int
        How many words to know at most, the most frequent ones; all others are one unknown word,
        which is learned like any word, and never written. All characters are known.
    min_count : int
        Words seen less often are unknown: from them the model learns where to expect words that it
        has never seen. With 1, and `num_words` for all, it would never learn that.
    steps : int, optional
        How many tokens gradients go back at most; by default 96 characters or 32 words.
    batch_size : int
        How many streams a text is cut into; of a short one fewer, with `steps` tokens at least.
    epochs : int
        Passes over the text at most.
    learning_rate, weight_decay : float
        Of `AdamW`; the rate falls along half a cosine to 0 in the last epoch.
    validation_split : float
        Share of the text, its end, that is not trained on but measured after each epoch.
    patience : int
        Training ends after so many epochs without a new least loss on that part.
    dtype : str
        ``"float32"`` or ``"float64"``.
    seed : int, optional
        Seed of the weights and of dropout; by default drawn from `set_random_seed`.

    Attributes
    ----------
    history : History
        ``loss`` and ``val_loss`` of each epoch of the last `fit`, in nats per token.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range; the message says what was expected.

    Examples
    --------
    >>> import fastgru as fg
    >>> model = fg.LanguageModel(units=32, steps=16, batch_size=8, epochs=20, seed=0)
    >>> _ = model.fit("the cat sat on the mat\n" * 100, verbose=0)
    >>> model.generate("the cat", length=15, temperature=0)
    ' sat on the mat'

    Notes
    -----
    Mikolov et al. 2010, "Recurrent neural network based language model"; Graves 2013,
    arXiv:1308.0850, for characters; Zaremba et al. 2014, arXiv:1409.2329, and Gal and Ghahramani
    2016, arXiv:1512.05287, for where to drop; Press and Wolf 2017, arXiv:1608.05859 (tied).
    """

    def __init__(
        self,
        level: str = "character",
        units: int = 256,
        layers: int = 1,
        embedding: int | None = None,
        tied: bool = False,
        dropout: float = 0.2,
        recurrent_dropout: float = 0.0,
        num_words: int = 10000,
        min_count: int = 2,
        steps: int | None = None,
        batch_size: int = 64,
        epochs: int = 10,
        learning_rate: float = 0.004,
        weight_decay: float = 0.01,
        validation_split: float = 0.1,
        patience: int = 3,
        dtype: str = "float32",
        seed: int | None = None,
    ) -> None:
        self.level = one_of("level", level, LEVELS)
        self.units, self.layers = positive_int("units", units), positive_int("layers", layers)
        self.tied = boolean("tied", tied)
        is_short = self.level == "character" and not self.tied
        if embedding is None:
            embedding = 64 if is_short else self.units
        self.embedding = positive_int("embedding", embedding)
        if self.tied and self.embedding != self.units:
            raise ValueError(
                f"embedding: expected {self.units}, as many as units, where tied, given {embedding}"
            )
        self.dropout = fraction("dropout", dropout)
        self.recurrent_dropout = fraction("recurrent_dropout", recurrent_dropout)
        self.num_words = positive_int("num_words", num_words)
        self.min_count = positive_int("min_count", min_count)
        if steps is None:
            steps = 96 if self.level == "character" else 32
        self.steps = positive_int("steps", steps)
        self.batch_size = positive_int("batch_size", batch_size)
        self.epochs = positive_int("epochs", epochs)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.validation_split = fraction("validation_split", validation_split)
        self.patience = positive_int("patience", patience)
        self.dtype = float_dtype(dtype).name
        self.seed = None if seed is None else non_negative_int("seed", seed)
        self.history = History()
        self._tokenizer = Tokenizer()
        self._model: Sequential | None = None

    # ---- tokens

    def _vocabulary(self, tokens: Sequence[str], held: Sequence[str]) -> Tokenizer:
        """Return the ids of what is learned from, and of what is measured."""
        if self.level == "word":
            return vocabulary("text", [tokens], self.min_count, self.num_words)
        # An alphabet is no knowledge about the text; how often words occur in it is.
        tokenizer = Tokenizer(filters="", lower=False, char_level=True)
        tokenizer.fit_on_texts([tokens, held])
        return tokenizer

    @property
    def _size(self) -> int:
        """The number of ids, 0 included."""
        known = len(self._tokenizer.word_index) + 1
        return min(known, self._tokenizer.num_words or known)

    @property
    def _never(self) -> int:
        """How many ids, the first ones, are never generated."""
        return 1 if self.level == "character" else 2

    @property
    def _start(self) -> int:
        """The id that stands before a text: that of a new line, if there is one."""
        known = self._id("\n")
        return self._never if known is None else known

    def _id(self, token: str) -> int | None:
        """Return the id of a token that can be generated, None for any other."""
        known = self._tokenizer.word_index.get(token)
        return known if known is not None and self._never <= known < self._size else None

    def _ids(self, name: str, text: Any) -> np.ndarray:
        """Return the ids of a text's tokens, the start before them; raise if one has no id."""
        tokens = split(_joined(name, text), self.level)
        if self.level == "character":
            unseen = sorted(set(tokens) - self._tokenizer.word_index.keys())
            if unseen:
                raise ValueError(
                    f"{name}: expected characters that fit has seen, given {shortened(unseen)}"
                )
            # Ids by code points: a text has millions of characters.
            codes = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), np.uint32)
            seen, places = np.unique(codes, return_inverse=True)
            table = np.array([self._tokenizer.word_index[chr(c)] for c in seen], np.int64)
            ids = table[places]
        else:
            [words] = self._tokenizer.texts_to_sequences([tokens])
            ids = np.array(words, np.int64)
        return np.concatenate([[self._start], ids])

    def _prompted(self, prompt: Any) -> tuple[np.ndarray, str, list[int]]:
        """Return a prompt's ids, how the next token has begun in it, and which ids cannot be next.

        A word holds the space before it, so a space at a prompt's end is the beginning of one.
        """
        text, words = _joined("prompt", prompt), self._tokenizer.index_word
        if self.level == "word" and text.endswith(" "):
            others = [i for i in range(self._size) if not words.get(i, "").startswith(" ")]
            if len(others) < self._size:
                return self._ids("prompt", text[:-1]), " ", others
        return self._ids("prompt", text), "", list(range(self._never))

    def _ends(self, stop: str) -> list[str]:
        """Return the tokens that `stop` stands for, or raise."""
        ends = [stop, f" {stop}"] if self.level == "word" else [stop]
        if not any(self._id(end) is not None for end in ends):
            raise ValueError(f"stop: expected a known {self.level}, given {stop!r}")
        return ends

    # ---- the network

    def _build(self) -> None:
        """Make the layers for the tokens that there are."""
        V, E, H = self._size, self.embedding, self.units
        seeds = generator(self.seed)

        def options(name: str) -> dict[str, Any]:
            return {"name": name, "seed": int(seeds.integers(2**32)), "dtype": self.dtype}

        shapes: dict[Layer, Shape] = {}
        if not self.tied:
            shapes[Embedding(V, E, **options("embedding"))] = (None, None)
        for i in range(self.layers):
            gru = GRU(
                H,
                return_sequences=True,
                recurrent_dropout=self.recurrent_dropout,
                **options(f"gru_{i}"),
            )
            shapes[gru] = (None, None, H if i else E)
        # Of the length 1, as tied vectors should be: Glorot's limits are for few outputs.
        kernel = "lecun_uniform" if self.tied else "glorot_uniform"
        shapes[Dense(V, kernel_initializer=kernel, **options("output"))] = (None, None, H)
        for layer, shape in shapes.items():
            weights = None
            if type(layer) is Embedding:
                # Of variance 1 as in PyTorch: from Keras' U(-0.05, 0.05) training starts slowly.
                weights = {"embeddings": seeds.standard_normal((V, E))}
            layer.build(shape, weights)
        self._assemble(list(shapes))

    def _layers(self) -> list[Layer]:
        if self._model is None:
            return []
        return [layer for layer in self._model.layers if type(layer) in (Embedding, GRU, Dense)]

    def _assemble(self, layers: list[Any]) -> None:
        kinds = [Embedding] * (not self.tied) + [GRU] * self.layers + [Dense]
        if [type(layer) for layer in layers] != kinds:
            raise ValueError(f"layers: expected those of a LanguageModel, given {layers!s:.100}")
        *below, output = layers
        scale = math.sqrt(output.weights()["kernel"].shape[0])
        embedding = TiedEmbedding(output, scale, dtype=self.dtype) if self.tied else below.pop(0)
        if {embedding.input_dim, output.units} != {self._size}:
            raise ValueError(f"layers: expected outputs for {self._size} ids, given {output.units}")
        stack: list[Layer] = [embedding]
        for i, gru in enumerate(below):
            stack.append(gru)
            if self.dropout:
                seed = None if gru.seed is None else gru.seed + 1
                options: dict[str, Any] = {"name": f"dropout_{i}", "seed": seed}
                stack.append(Dropout(self.dropout, dtype=self.dtype, **options))
        self._model = Sequential([*stack, output], name="language_model")
        self._embedding, self._recurrent, self._output = embedding, below, output

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make such a model again."""
        return {name: getattr(self, name) for name in SETTINGS}

    def _learned(self) -> dict[str, Any]:
        return {"tokens": self._tokenizer.to_json()}

    def _learn(self, learned: dict[str, Any]) -> None:
        self._tokenizer = Tokenizer.from_json(learned["tokens"])

    def count_params(self) -> int:
        """Return the number of weights."""
        return sum(layer.count_params() for layer in self._layers())

    # ---- training

    def fit(self, text: Any, validation_text: Any = None, verbose: Any = "auto") -> LanguageModel:
        """Learn from a text.

        The model then has the weights of the epoch with the least ``val_loss``; those of the last
        epoch if nothing is measured.

        Parameters
        ----------
        text : str or list of str
            What to learn from. Of a list, each text stands on a line, or lines, of its own.
        validation_text : str or list of str, optional
            What to measure after each epoch, instead of the end of the text.
        verbose : "auto", 0, 1 or 2
            As in `Sequential.fit`.

        Returns
        -------
        LanguageModel
            Itself.

        Raises
        ------
        ValueError, TypeError
            If a text is none, or too short, or no word of it is seen `min_count` times; nothing has
            changed then.
        NonFiniteError
            If the loss, a gradient or an updated weight is NaN or infinite.

        Notes
        -----
        Ctrl-C raises `KeyboardInterrupt`, as from `Sequential.fit`. The model is then the old one
        if no epoch had ended, else it has the best weights so far, or those of that moment if
        nothing is measured.
        """
        checked(verbose)
        tokens = split(_joined("text", text), self.level)
        cut = len(tokens)
        if validation_text is None:
            cut -= int(self.validation_split * len(tokens))
            held = tokens[cut:]
        else:
            held = split(_joined("validation_text", validation_text), self.level)
        if cut < 2:
            raise ValueError(f"text: expected 2 {self.level}s or more to learn from, given {cut}")
        options: dict[str, Any] = {}
        with self._learning():
            self.history = History()
            self._tokenizer = self._vocabulary(tokens[:cut], held)
            ids = self._ids("text", "".join(tokens[:cut]))
            self._build()
            assert self._model is not None
            streams = min(self.batch_size, max(1, (len(ids) - 1) // self.steps))
            chunks = math.ceil(math.ceil((len(ids) - 1) / streams) / self.steps)
            optimizer = optimizers.AdamW(
                schedules.CosineDecay(self.learning_rate, self.epochs * chunks),
                weight_decay=self.weight_decay,
                global_clipnorm=CLIP,
            )
            self._model.compile(optimizer, SparseCategoricalCrossentropy(from_logits=True))
            if held:
                measured = self._ids("validation_text", "".join(held))
                options["validation_data"] = measured[:-1], measured[1:]
                options["callbacks"] = [
                    EarlyStopping(patience=self.patience, restore_best_weights=True)
                ]
            try:
                self._model.fit_stream(
                    ids[:-1], ids[1:], steps=self.steps, batch_size=streams, epochs=self.epochs,
                    verbose=verbose, **options,
                )  # fmt: skip
            finally:
                self.history = self._model.history or History()
        return self

    # ---- use

    def _run(self, ids: np.ndarray, state: Any = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the logits (N, T, V) after each of the ids (N, T), and the states of the GRUs."""
        x, states = self._embedding(ids), []
        for i, layer in enumerate(self._recurrent):
            initial = None if state is None else state[i]
            x, last = layer.infer(x, None, None, initial, with_states=True)
            states.append(last)
        return self._output(x), states

    def step(self, ids: np.ndarray, state: Any = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """Tell what may come next: a step as `decoding.beam_search` takes it.

        Parameters
        ----------
        ids : array of int (N,)
            The last ids of N texts.
        state : list of arrays (N, units), optional
            What was returned for the ids before; it stays as it is. None at the beginning.

        Returns
        -------
        log_probabilities, state
            Arrays (N, V), and (N, units) of each layer.
        """
        self._fitted()
        logits, state = self._run(np.asarray(ids)[:, None], state)
        return decoding.log_softmax(logits[:, 0]), state

    def fusion(self, outputs: Sequence[str]) -> dict[str, Any]:
        """Return the options that let `decoding.CTCBeamSearch` ask this model.

        Parameters
        ----------
        outputs : sequence of str
            What each output of the recognizer stands for; an empty str for the blank.

        Returns
        -------
        dict
            ``language_model``, ``state`` and ``start``.

        Raises
        ------
        ValueError
            If one of them is no token of this model.
        """
        self._fitted()
        known = {token: self._id(token) if token else 0 for token in outputs}
        unseen = [token for token in outputs if known[token] is None]
        if unseen:
            raise ValueError(f"outputs: expected known tokens, given {unseen!r:.60}")
        places = np.array([known[token] for token in outputs], np.int64)

        def step(ids: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
            # At the beginning no output has come yet, and no id of theirs stands for that.
            own = np.full(len(ids), self._start) if state is None else places[ids]
            log_probabilities, state = self.step(own, state)
            return log_probabilities[:, places], state

        return {"language_model": step, "state": None, "start": np.zeros(1, np.int64)}

    def log_probabilities(self, text: Any) -> np.ndarray:
        """Return the log-probability of each token of a text, given those before it.

        Parameters
        ----------
        text : str or list of str
            The text; at word level, words that are not known count as the unknown word.

        Returns
        -------
        array (N,)
            In nats.

        Raises
        ------
        ValueError, TypeError
            If the text is empty, or has a character that `fit` has never seen.
        """
        self._fitted()
        ids, state, parts = self._ids("text", text), None, []
        for start in range(0, len(ids) - 1, STEPS_AT_ONCE):
            part = ids[start : start + STEPS_AT_ONCE + 1]
            logits, state = self._run(part[None, :-1], state)
            scores = decoding.log_softmax(logits[0])
            parts.append(scores[np.arange(len(scores)), part[1:]])
        return np.concatenate(parts)

    def evaluate(self, text: Any) -> dict[str, float]:
        """Return how well a text is predicted, the states carried over all of it.

        Parameters
        ----------
        text : str or list of str
            As in `log_probabilities`.

        Returns
        -------
        dict
            ``nats`` per token, as ``val_loss`` is, and ``perplexity``, which is exp(nats): at word
            level all unknown words are one token there, which is easy to predict if they are many.
            ``unknown`` is their share of the tokens: only models that know the same words can be
            compared by those two. ``bits_per_character`` compares any models: in so many bits could
            the text be stored, unknown words being spelled.

        Notes
        -----
        Characters of an unknown word, and its end, are as likely as in a list of all words that
        `fit` has seen, wherever they stand in it.
        """
        values, text = self.log_probabilities(text), _joined("text", text)
        total = -float(values.sum(dtype=np.float64))
        nats = total / len(values)
        tokens = split(text, self.level)
        ids = self._ids("text", text)[1:].tolist()
        unknown = [token for i, token in zip(ids, tokens, strict=True) if i < self._never]
        return {
            "nats": nats,
            "perplexity": math.exp(nats),
            "unknown": len(unknown) / len(values),
            "bits_per_character": (total + self._spelled(unknown)) / (math.log(2) * len(text)),
        }

    def _spelled(self, words: list[str]) -> float:
        """Return in how many nats words that are not known can be stored."""
        seen = self._tokenizer.word_counts
        counts: Counter[str] = Counter("".join(seen))
        counts[END] = len(seen)
        every = counts.total() + 1  # with one for all characters never seen, equally likely
        rare = 1 / (sys.maxunicode + 1)
        spelled: Counter[str] = Counter("".join(words))
        spelled[END] = len(words)
        return -sum(n * math.log((counts[c] or rare) / every) for c, n in spelled.items())

    def perplexity(self, text: Any) -> float:
        """Return among how many equally likely tokens a `text` lets choose.

        At word level all unknown words are one token: see `evaluate`.
        """
        return self.evaluate(text)["perplexity"]

    def bits_per_character(self, text: Any) -> float:
        """Return in how many bits per character a `text` could be stored.

        At word level unknown words are spelled: see `evaluate`.
        """
        return self.evaluate(text)["bits_per_character"]

    def predict_next(self, prompt: str = "", n: int = 5) -> list[tuple[str, float]]:
        """Return the most probable next tokens and their probabilities, the likeliest first.

        Parameters
        ----------
        prompt : str
            What stands before, as in `stream`.
        n : int
            How many tokens to return.
        """
        self._fitted()
        n = positive_int("n", n)
        ids, begun, others = self._prompted(prompt)
        logits = self._run(ids[None])[0][0, -1]
        if begun:
            logits[others] = -np.inf
        probabilities = np.exp(decoding.log_softmax(logits))
        possible = np.delete(np.arange(len(logits)), others)
        best = possible[np.argsort(-probabilities[possible], kind="stable")[:n]]
        words = self._tokenizer.index_word
        return [(words[i].removeprefix(begun), float(probabilities[i])) for i in best.tolist()]

    def stream(
        self,
        prompt: str = "",
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: str | None = None,
        penalty_window: int = 64,
    ) -> Iterator[str]:
        """Yield the tokens of a text that goes on from a prompt, one by one.

        Parameters
        ----------
        prompt : str
            What stands before; the beginning of a line by default. At word level a space at its
            end is that of the word that comes next.
        length : int
            How many tokens to generate at most.
        temperature, top_k, top_p, repetition_penalty
            How to draw them: see `decoding.sample`. A temperature of 0 takes the most probable.
        seed : int, optional
            Seed of what is drawn; by default from `set_random_seed`.
        stop : str, optional
            A token, such as a new line, at which the text ends; it is not part of it. A word
            without the space before it stands for that with the space, too.
        penalty_window : int
            How many tokens back the `repetition_penalty` looks, the prompt's included.

        Raises
        ------
        ValueError, TypeError
            If an argument is out of range, or the prompt has a character never seen in training.
        RuntimeError
            If it is not fitted.
        """
        self._fitted()
        assert self._model is not None
        length = non_negative_int("length", length)
        window = positive_int("penalty_window", penalty_window)
        ids, begun, others = self._prompted(prompt)
        ends = [] if stop is None else self._ends(stop)
        options: dict[str, Any] = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
            "generator": generator(seed),
        }
        decoding.sample(np.zeros((1, 1)), **options | {"generator": generator(0)})  # to check them
        if repetition_penalty != 1:
            options["previous"] = np.full((1, window), -1)
            options["previous"][0, : len(ids) - 1] = ids[1:][-window:]
        step = self._model.stream()
        for i in ids:
            logits = step(np.array([i]))
        logits[:, others] = -np.inf
        place = min(len(ids) - 1, window)
        return self._generated(step, logits, place, length, ends, begun, options)

    def _generated(
        self,
        step: Any,
        logits: np.ndarray,
        place: int,
        length: int,
        ends: list[str],
        begun: str,
        options: dict[str, Any],
    ) -> Iterator[str]:
        """Yield tokens until one of `ends`; `place` of those before are penalized.

        The first one is drawn from logits, and comes without what has `begun` it.
        """
        words, never = self._tokenizer.index_word, logits[:, : self._never]
        previous = options.get("previous")
        for i in range(place, place + length):
            never[...] = -np.inf
            ids = decoding.sample(logits, **options)
            word = words[int(ids[0])]
            if word in ends:
                return
            yield word.removeprefix(begun)
            begun = ""
            if previous is not None:
                previous[0, i % previous.shape[1]] = ids[0]
            logits = step(ids)

    def generate(self, prompt: str = "", length: int = 200, **options: Any) -> str:
        """Return a text that goes on from a prompt, without the prompt.

        Parameters
        ----------
        prompt, length, **options
            As in `stream`: ``temperature``, ``top_k``, ``top_p``, ``repetition_penalty``, ``seed``,
            ``stop``, ``penalty_window``.

        Returns
        -------
        str
        """
        return "".join(self.stream(prompt, length, **options))


def _joined(name: str, text: Any) -> str:
    """Return a text, or the lines of a list of texts, or raise."""
    if isinstance(text, (list, tuple)):
        for i, line in enumerate(text):
            if not isinstance(line, str):
                raise TypeError(f"{name}[{i}]: expected a str, given {shortened(line)}")
        text = "".join(f"{line}\n" for line in text)
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a str or a list of str, given {shortened(text)}")
    if not text and name != "prompt":
        raise ValueError(f"{name}: expected at least one character, given an empty text")
    return text
