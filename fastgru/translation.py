"""Machine translation: an encoder that reads both ways, and a decoder that looks back at it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from reprlib import repr as shortened
from typing import Any, NamedTuple

import numpy as np

from fastgru import decoding, losses, optimizers, schedules
from fastgru.application import Application
from fastgru.attention import Attention
from fastgru.batches import named, padded
from fastgru.errors import NonFiniteError
from fastgru.history import History
from fastgru.layers import Backward, Dense, Dropout, Embedding, Layer
from fastgru.progress import checked, chosen
from fastgru.random import generator
from fastgru.recurrent import GRU, Bidirectional
from fastgru.text import Tokenizer, vocabulary
from fastgru.tied import TiedEmbedding
from fastgru.validation import (
    boolean,
    float_dtype,
    fraction,
    non_negative_int,
    one_of,
    positive,
    positive_int,
)

# Words and numbers, and every other sign by itself.
_TOKEN = re.compile(r"\w+|[^\w\s]")
UNKNOWN = 1
# What begins and ends every sentence: the id that a Tokenizer gives to no word.
EDGE = 0
# So many scores of words are worked on at once: they stay in the caches.
ROWS_AT_ONCE = 384
# Of the gradients' common length: longer ones come from a few odd batches.
CLIP = 1.0
SETTINGS = (
    "units", "embedding", "score", "tied", "dropout", "label_smoothing", "min_count", "lower",
    "learning_rate", "batch_size", "epochs", "dtype", "seed",
)  # fmt: skip
# Of Adam: gradients of rare words are so small that more would slow them down.
EPSILON = 1e-9


def split(text: str, lower: bool = True) -> list[str]:
    """Return the words and the punctuation marks of a text.

    Parameters
    ----------
    text : str
        Any text.
    lower : bool
        Whether to lower its case.

    Examples
    --------
    >>> split("Two men, talking.")
    ['two', 'men', ',', 'talking', '.']
    """
    return _TOKEN.findall(text.lower() if lower else text)


def join(words: Sequence[str]) -> str:
    """Return words and punctuation marks as one text, from which `split` gets them again.

    Parameters
    ----------
    words : list of str
        What `split` returned.

    Examples
    --------
    >>> join(["a", "t", "-", "shirt", ",", "(", "blue", ")", "."])
    'a t-shirt, (blue).'
    """
    text = re.sub(r"(?<=\w) ([-'’/]) (?=\w)", r"\1", " ".join(words))
    return re.sub(r"([(\[{„]) | ([.,;:!?%)\]}])", r"\1\2", text)


class Alignment(NamedTuple):
    """A translation, and where in the source its words come from.

    Attributes
    ----------
    source, target : list of str
        The words of both sentences.
    weights : array (len(target), len(source))
        How much attention each word of the translation has paid to each word of the source.
    """

    source: list[str]
    target: list[str]
    weights: np.ndarray

    def plot(self, axes: Any = None) -> Any:
        """Draw the weights as a picture, a row for each word of the translation.

        Parameters
        ----------
        axes : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure's.

        Returns
        -------
        matplotlib.axes.Axes
        """
        if axes is None:
            try:
                from matplotlib.figure import Figure
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "plot: expected the package matplotlib: pip install 'fastgru[plot]'"
                ) from error
            width, height = (1.5 + 0.35 * len(words) for words in (self.source, self.target))
            axes = Figure(figsize=(width, height), layout="constrained").subplots()
        axes.imshow(self.weights, cmap="Greys", vmin=0, vmax=1)
        axes.set_xticks(range(len(self.source)), self.source, rotation=90)
        axes.set_yticks(range(len(self.target)), self.target)
        axes.xaxis.tick_top()
        return axes


class _Batch(NamedTuple):
    """Pairs of sentences: ids (B, S) and (B, T), padded, and how many of them count."""

    sources: np.ndarray
    lengths: np.ndarray
    inputs: np.ndarray  # the words before
    labels: np.ndarray  # of the steps that count, one behind the other (n,)
    mask: np.ndarray


class Translator(Application):
    """Translate sentences, having learned from pairs of them.

    A bidirectional `GRU` reads the source; another one writes the translation word by word, and
    pays attention to what the first has made of each word of the source::

        memory  = dropout([forward h, backward h])          of each word of the source
        state   = tanh([last forward h, last backward h] bridge)        that the decoder begins with
        h       = GRU(dropout(embedding of the word before))
        context = attention(memory, query=h)
        scores  = dropout(tanh([h, context] combine)) kernel + bias     of all words

    In training all words before are known, so the decoder runs over whole sentences at once.

    Parameters
    ----------
    units : int
        Units of the decoder, and of the encoder in each direction.
    embedding : int
        Length of the vectors that stand for words.
    score : str
        That of the `Attention`: ``"general"`` (Luong) or ``"additive"`` (Bahdanau).
    tied : bool
        Whether the vectors of the target's words are also the output's weights.
    dropout : float
        Share of values that are dropped in training, see above.
    label_smoothing : float
        How far the wanted probabilities are moved towards equal ones.
    min_count : int
        Words seen less often are unknown: on the target side translations contain the source word
        that got most attention in their place.
    lower : bool
        Whether to lower the case of all texts.
    learning_rate : float
        Of `Adam` in the first batch; it falls linearly to 0 in the last one.
    batch_size, epochs : int
        Pairs in a step, all of about the same lengths; passes over the data. Multiples of 12 are
        fastest: the kernels take six rows at a time, in each of two threads.
    dtype : str
        ``"float32"`` or ``"float64"``.
    seed : int, optional
        Seed of weights, dropout and order; by default drawn from `set_random_seed`.

    Attributes
    ----------
    history : History
        What the last `fit` has measured.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range; the message says what was expected.

    Examples
    --------
    >>> import fastgru as fg
    >>> small = dict(units=16, embedding=16, min_count=1, dropout=0)
    >>> translator = fg.Translator(**small, learning_rate=0.01, epochs=60, seed=0)
    >>> _ = translator.fit(["ein hund", "ein mann"], ["a dog", "a man"], verbose=0)
    >>> translator.translate(["Ein Hund"])
    ['a dog']

    Notes
    -----
    Bahdanau, Cho and Bengio 2015, arXiv:1409.0473; Luong, Pham and Manning 2015, arXiv:1508.04025;
    Press and Wolf 2017, arXiv:1608.05859 (tied); Szegedy et al. 2016, arXiv:1512.00567, section 7
    (label smoothing). The attention's output is not fed back into the decoder (Luong's "input
    feeding"), so that no step of the decoder waits for the attention of the one before.
    """

    def __init__(
        self,
        units: int = 384,
        embedding: int = 256,
        score: str = "general",
        tied: bool = True,
        dropout: float = 0.4,
        label_smoothing: float = 0.1,
        min_count: int = 2,
        lower: bool = True,
        learning_rate: float = 0.001,
        batch_size: int = 72,
        epochs: int = 10,
        dtype: str = "float32",
        seed: int | None = None,
    ) -> None:
        self.units = positive_int("units", units)
        self.embedding = positive_int("embedding", embedding)
        self.score = one_of("score", score, ("additive", "general"))
        self.tied = boolean("tied", tied)
        self.dropout = fraction("dropout", dropout)
        self.label_smoothing = fraction("label_smoothing", label_smoothing)
        self.min_count = positive_int("min_count", min_count)
        self.lower = boolean("lower", lower)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.batch_size = positive_int("batch_size", batch_size)
        self.epochs = positive_int("epochs", epochs)
        self.dtype = float_dtype(dtype).name
        self.seed = None if seed is None else non_negative_int("seed", seed)
        self.history = History()
        self._words: list[Tokenizer] = []
        self._stack: list[Layer] = []

    # ---- words

    def _tokens(self, name: str, texts: Any) -> list[list[str]]:
        """Return the words of texts, or raise."""
        if isinstance(texts, str) or not isinstance(texts, Sequence | np.ndarray):
            raise TypeError(f"{name}: expected a list of texts, given {shortened(texts)}")
        tokens = []
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{name}[{i}]: expected a str, given {shortened(text)}")
            tokens.append(split(text, self.lower))
            if not tokens[-1]:
                raise ValueError(f"{name}[{i}]: expected at least one word, given {text!r}")
        return tokens

    def _pairs(self, sources: Any, targets: Any) -> tuple[list[list[str]], list[list[str]]]:
        pairs = self._tokens("sources", sources), self._tokens("targets", targets)
        if len(pairs[0]) != len(pairs[1]):
            raise ValueError(
                f"targets: expected {len(pairs[0])} texts, as many as sources, "
                f"given {len(pairs[1])}"
            )
        if not pairs[0]:
            raise ValueError("sources: expected at least one text, given none")
        return pairs

    def _ids(self, side: int, tokens: list[list[str]]) -> list[np.ndarray]:
        return [np.array(row) for row in self._words[side].texts_to_sequences(tokens)]

    # ---- the network

    def _build(self, random: np.random.Generator) -> None:
        """Make the layers for the words that there are."""
        E, H = self.embedding, self.units
        sources, targets = (_size(words) for words in self._words)

        def options(name: str) -> dict[str, Any]:
            return {"name": name, "seed": int(random.integers(2**32)), "dtype": self.dtype}

        both = {"return_sequences": True, "return_state": True}
        attention: dict[str, Any] = {"query_dim": H, "return_weights": True}
        shapes: dict[Layer, tuple[int | None, ...]] = {
            Embedding(sources, E, **options("source")): (None, None),
            Bidirectional(GRU(H, **both, **options("encoder"))): (None, None, E),
            Dense(H, activation="tanh", **options("bridge")): (None, 2 * H),
            GRU(H, **both, **options("decoder")): (None, None, E),
            Attention(self.score, **attention, **options("attention")): (None, None, 2 * H),
            Dense(E, activation="tanh", **options("combine")): (None, 3 * H),
            # Of the length 1, as tied vectors should be: Glorot's limits are for few outputs.
            Dense(targets, kernel_initializer="lecun_uniform", **options("output")): (None, E),
        }
        if not self.tied:
            shapes[Embedding(targets, E, **options("target"))] = (None, None)
        for layer, shape in shapes.items():
            layer.build(shape)
        self._assemble(list(shapes))

    def _layers(self) -> list[Layer]:
        return self._stack

    def _assemble(self, layers: list[Any]) -> None:
        kinds = [Embedding, Bidirectional, Dense, GRU, Attention, Dense, Dense]
        if [type(layer) for layer in layers] != kinds + [Embedding] * (not self.tied):
            raise ValueError(f"layers: expected those of a Translator, given {layers!s:.100}")
        (
            self._source, self._encoder, self._bridge, self._decoder, self._attention,
            self._combine, self._output, *target,
        ) = layers  # fmt: skip
        # Small vectors, of the source's words too, learn faster here than those of variance 1.
        self._target = TiedEmbedding(self._output, dtype=self.dtype) if self.tied else target[0]
        sizes = [self._source.input_dim, self._output.units]
        if sizes != [_size(words) for words in self._words]:
            raise ValueError(f"layers: expected as many words as were learned, given {sizes}")
        self._stack = layers

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make such a translator again."""
        return {name: getattr(self, name) for name in SETTINGS}

    def _learned(self) -> dict[str, Any]:
        return {"words": [words.to_json() for words in self._words]}

    def _learn(self, learned: dict[str, Any]) -> None:
        source, target = learned["words"]
        self._words = [Tokenizer.from_json(source), Tokenizer.from_json(target)]

    def count_params(self) -> int:
        """Return the number of weights."""
        return sum(layer.count_params() for layer in self._stack)

    def _forward(
        self, batch: _Batch, dropout: Dropout | None = None
    ) -> tuple[np.ndarray, Callable[[np.ndarray], None]]:
        """Return what the output layer takes for all words (n, E), and the way back."""

        def drop(x: np.ndarray) -> tuple[np.ndarray, Backward]:
            return (x, lambda dy: dy) if dropout is None else dropout.forward(x)

        x, back_source = self._source.forward(batch.sources)
        x, back_x = drop(x)
        [memory, *ends], back_encoder = self._encoder.forward(x, lengths=batch.lengths)
        state, back_bridge = self._bridge.forward(np.concatenate(ends, axis=1))
        memory, back_memory = drop(memory)
        y, back_target = self._target.forward(batch.inputs)
        y, back_y = drop(y)
        (hidden, _), back_decoder = self._decoder.forward(y, initial_state=state)
        (context, _), back_attention = self._attention.forward(
            memory, lengths=batch.lengths, query=hidden
        )
        mixed, back_mixed = self._combine.forward(np.concatenate([hidden, context], axis=-1))
        rows, back_rows = drop(mixed[batch.mask])

        def backward(drows: np.ndarray) -> None:
            dmixed = np.zeros_like(mixed)
            dmixed[batch.mask] = back_rows(drows)
            dhidden, dcontext = np.split(back_mixed(dmixed), [self.units], axis=-1)
            dmemory, dquery = back_attention(dcontext)
            dy, dstate = back_decoder(dhidden + dquery)
            back_target(back_y(dy))
            dends = np.split(back_bridge(dstate), 2, axis=1)
            back_source(back_x(back_encoder(back_memory(dmemory), dends)))

        return rows, backward

    def _scored(
        self, rows: np.ndarray, labels: np.ndarray, label_smoothing: float
    ) -> tuple[float, np.ndarray]:
        """Return the mean loss of all words and its gradient for the rows (n, E).

        The scores (n, V) never exist all at once.
        """
        loss = losses.SparseCategoricalCrossentropy(label_smoothing=label_smoothing)
        n = len(rows)
        total, drows = 0.0, np.empty_like(rows)
        for start in range(0, n, ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            scores, backward = self._output.forward(rows[part])
            share = np.full(len(scores), len(scores) / n)
            value, dscores = loss.fused(labels[part], scores, sample_weight=share, overwrite=True)
            drows[part] = backward(dscores)
            total += value
        return total, drows

    # ---- training

    def _batch(self, sources: list[np.ndarray], targets: list[np.ndarray]) -> _Batch:
        """Pad pairs of sentences."""
        x, _ = padded(sources, np.array([len(row) for row in sources]))
        edges = [np.concatenate([[EDGE], row, [EDGE]]) for row in targets]
        lengths = np.array([len(row) for row in edges])
        y, _ = padded(edges, lengths)
        mask = np.arange(1, y.shape[1]) < lengths[:, None]
        x_lengths = np.array([len(row) for row in sources])
        return _Batch(x, x_lengths, y[:, :-1], y[:, 1:][mask], mask)

    def _batches(
        self, sources: list[np.ndarray], targets: list[np.ndarray], random: Any = None
    ) -> Iterator[_Batch]:
        """Yield batches of pairs of about the same lengths, in a random order if wanted."""
        N, size = len(sources), self.batch_size
        lengths = np.array([[len(y), len(x)] for x, y in zip(sources, targets, strict=True)])
        order = np.arange(N) if random is None else random.permutation(N)
        # By the sources first: the encoder has two directions, and the decoder one.
        order = order[np.lexsort(lengths[order].T)]
        chosen = [order[i : i + size] for i in range(0, N, size)]
        if random is not None:
            chosen = [chosen[i] for i in random.permutation(len(chosen))]
        for rows in chosen:
            yield self._batch([sources[i] for i in rows], [targets[i] for i in rows])

    def _prepare(
        self, pairs: tuple[list[list[str]], list[list[str]]], random: np.random.Generator
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Choose the words, make layers for them, and return the ids of all pairs."""
        names = ("sources", "targets")
        self._words = [vocabulary(*side, self.min_count) for side in zip(names, pairs, strict=True)]
        self._build(random)
        return self._ids(0, pairs[0]), self._ids(1, pairs[1])

    def _train(self, batch: _Batch, dropout: Dropout | None, optimizer: Any) -> float:
        """Train on one batch; return its loss."""
        rows, backward = self._forward(batch, dropout)
        weights, gradients = zip(*(pair for l in self._stack for pair in l.pairs()), strict=True)
        optimizer.clearing(weights, gradients)()
        value, drows = self._scored(rows, batch.labels, self.label_smoothing)
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss is {value}; no weight was changed by it")
        backward(drows)
        try:
            optimizer.apply(weights, gradients)
        finally:
            for layer in self._stack:
                layer.changed()
        return value

    def _epoch(
        self, epoch: int, batches: Any, dropout: Dropout | None, optimizer: Any, show: Any
    ) -> dict[str, float]:
        """Train on all batches; return the mean loss."""
        total = seen = 0.0
        for number, batch in enumerate(batches):
            try:
                value = self._train(batch, dropout, optimizer)
            except NonFiniteError as error:
                raise error.at(f"in epoch {epoch + 1}, batch {number + 1}") from error
            total += value * len(batch.labels)
            seen += len(batch.labels)
            show.advance(len(batch.lengths), lambda: {"loss": total / seen})  # noqa: B023
        return {"loss": total / seen}

    def fit(
        self,
        sources: Any,
        targets: Any,
        validation_data: Any = None,
        verbose: Any = "auto",
    ) -> Translator:
        """Learn from pairs of sentences.

        The translator then has the weights of the epoch with the least ``val_loss``; those of the
        last epoch without validation data.

        Parameters
        ----------
        sources, targets : list of str
            Sentences and their translations.
        validation_data : tuple (sources, targets), optional
            Other such pairs, whose loss is measured after each epoch.
        verbose : "auto", 0, 1 or 2
            As in `Sequential.fit`.

        Returns
        -------
        Translator
            Itself. Its `history` has the ``loss`` of each epoch, with dropout and label smoothing,
            and the ``val_loss``, without both: nats per word.

        Raises
        ------
        ValueError, TypeError
            If a text has no word, the lists do not fit, or no word of one side is seen `min_count`
            times; nothing has changed then.
        NonFiniteError
            If the loss, a gradient or an updated weight is NaN or infinite.

        Notes
        -----
        Ctrl-C raises `KeyboardInterrupt`, as from `Sequential.fit`. The translator is then the
        old one if no epoch had ended, else it has the best weights so far, or those of that moment
        if nothing is measured.
        """
        pairs = self._pairs(sources, targets)
        held = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError(
                    "validation_data: expected a tuple (sources, targets), "
                    f"given {shortened(validation_data)}"
                )
            with named("validation_data"):
                held = self._pairs(*validation_data)
        checked(verbose)
        random = generator(self.seed)
        with self._learning():
            self.history = History()
            data = self._prepare(pairs, random)
            steps = self.epochs * -(-len(pairs[0]) // self.batch_size)
            rate = schedules.PolynomialDecay(self.learning_rate, steps, 0.0)
            optimizer = optimizers.Adam(rate, epsilon=EPSILON, global_clipnorm=CLIP)
            seed = int(random.integers(2**32))
            dropout = Dropout(self.dropout, dtype=self.dtype, seed=seed) if self.dropout else None
            best: list[Any] = []
            least = math.inf
            show = chosen(verbose, self.epochs)
            try:
                for epoch in range(self.epochs):
                    show.begin(epoch, len(pairs[0]))
                    batches = self._batches(*data, random)
                    measured = self._epoch(epoch, batches, dropout, optimizer, show)
                    if held is not None:
                        measured["val_loss"] = self._nats(*held)
                        if measured["val_loss"] < least:
                            least = measured["val_loss"]
                            best = [layer.get_weights() for layer in self._stack]
                    self.history.add(epoch, measured)
                    show.end(measured)
            finally:
                show.close()
                for layer, weights in zip(self._stack, best, strict=False):
                    layer.set_weights(weights)
        return self

    def _nats(self, sources: list[list[str]], targets: list[list[str]]) -> float:
        """Return the mean negative log-probability of all words, ends included."""
        total = count = 0.0
        for batch in self._batches(self._ids(0, sources), self._ids(1, targets)):
            rows, _ = self._forward(batch)
            total += self._scored(rows, batch.labels, 0.0)[0] * len(rows)
            count += len(rows)
        return total / count

    # ---- use

    def translate(
        self,
        texts: Any,
        beam_size: int = 5,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        batch_size: int = 64,
    ) -> list[str]:
        """Translate sentences.

        Parameters
        ----------
        texts : list of str
            The sentences.
        beam_size : int
            How many beginnings of a translation are followed, as `decoding.beam_search` does; 1 is
            greedy search.
        length_penalty : float
            The scores of translations are divided by their length to this power.
        max_length : int, optional
            Of a translation in words; by default 10 more than twice the source's.
        batch_size : int
            How many sentences are translated at once, which changes no bit of the results.

        Returns
        -------
        list of str

        Raises
        ------
        ValueError, TypeError
            If a text has no word, or a number is out of range.
        RuntimeError
            If it is not fitted.
        """
        tokens = self._tokens("texts", texts)
        found = self._search(tokens, beam_size, length_penalty, max_length, batch_size)
        return [join(self._target_words(*pair)) for pair in zip(tokens, found, strict=True)]

    def attention(self, text: str, beam_size: int = 5, length_penalty: float = 1.0) -> Alignment:
        """Translate a sentence, and tell what each word of the translation was made from.

        Parameters
        ----------
        text : str
            The sentence.
        beam_size, length_penalty
            As in `translate`.

        Returns
        -------
        Alignment
            Both sentences' words, the weights between them, and a way to draw these.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected a str, given {shortened(text)}")
        [source] = self._tokens("texts", [text])
        [found] = self._search([source], beam_size, length_penalty, None, 1)
        assert found.attention is not None
        return Alignment(source, self._target_words(source, found), found.attention)

    def _search(
        self,
        tokens: list[list[str]],
        beam_size: int,
        length_penalty: float,
        max_length: int | None,
        batch_size: int,
    ) -> list[decoding.Hypothesis]:
        """Return the best translation of each sentence."""
        self._fitted()
        batch_size = positive_int("batch_size", batch_size)
        ids = self._ids(0, tokens)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: dict[int, decoding.Hypothesis] = {}
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            lengths = np.array([len(ids[i]) for i in rows])
            step, state = self._decode(padded([ids[i] for i in rows], lengths)[0], lengths)
            best = decoding.beam_search(
                step,
                state,
                np.full(len(rows), EDGE),
                EDGE,
                beam_size=beam_size,
                max_length=2 * lengths + 10 if max_length is None else max_length,
                length_penalty=length_penalty,
            )
            found |= {i: hypothesis for i, [hypothesis] in zip(rows, best, strict=True)}
        return [found[i] for i in range(len(ids))]

    def _decode(self, sources: np.ndarray, lengths: np.ndarray) -> tuple[decoding.Step, Any]:
        """Read sentences (B, S); return what finds their next words, and the state it begins with.

        A state is the sentences' numbers and the decoder's state, each of N hypotheses.
        """
        B = len(sources)
        memory, *ends = self._encoder(self._source(sources), lengths=lengths)
        attend = self._attention.over(memory, lengths=lengths)

        def step(ids: np.ndarray, state: Any) -> tuple[np.ndarray, Any, np.ndarray]:
            row, h = state
            y = self._target(ids)
            _, h = self._decoder(y[:, None], initial_state=h)
            # The hypotheses of a sentence follow each other: they are queries to the same values.
            counts = np.bincount(row, minlength=B)
            place = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
            query = np.zeros((B, counts.max(), self.units), h.dtype)
            query[row, place] = h
            context, weights = (array[row, place] for array in attend(query))
            scores = self._output(self._combine(np.concatenate([h, context], axis=1)))
            return decoding.log_softmax(scores), (row, h), weights

        return step, (np.arange(B), self._bridge(np.concatenate(ends, axis=1)))

    def _target_words(self, source: list[str], found: decoding.Hypothesis) -> list[str]:
        """Return the words of a translation; unknown ones are those of the source."""
        assert found.attention is not None
        names = self._words[1].index_word
        return [
            source[weights.argmax()] if i == UNKNOWN else names[i]
            for i, weights in zip(found.ids, found.attention, strict=True)
        ]


def _size(words: Tokenizer) -> int:
    """Return the number of ids of a vocabulary."""
    assert words.num_words is not None
    return words.num_words
