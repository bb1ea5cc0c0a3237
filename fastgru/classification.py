"""Text classification: raw strings in, labels of any kind out, with reasons."""

from __future__ import annotations

import html
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

import numpy as np

from fastgru import explain, losses, random
from fastgru.application import Application
from fastgru.attention import Attention
from fastgru.bags import EmbeddingBag
from fastgru.batches import named
from fastgru.callbacks import Callback, EarlyStopping
from fastgru.elementwise import SpatialDropout1D
from fastgru.history import History
from fastgru.layers import Dense, Dropout, Layer
from fastgru.model import Sequential
from fastgru.optimizers import Adam
from fastgru.pooling import GlobalMaxAveragePooling1D
from fastgru.progress import checked
from fastgru.recurrent import GRU, Bidirectional
from fastgru.run import checked_callbacks
from fastgru.schedules import CosineDecay
from fastgru.validation import (
    boolean,
    fraction,
    non_negative_int,
    one_of,
    positive,
    positive_int,
)

_WORDS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
LONGEST_BAG = 48  # n-grams of a word that count: those of its first 25 letters
TEMPERATURES = np.geomspace(0.05, 20, 241)
PREDICTED_AT_ONCE = 256


class TextClassifier(Application):
    """Learn from labelled texts, and label others.

    Each word is the sum of a vector of its own, if it was seen often enough, and of the vectors of
    its character n-grams, which words that were never seen have, too. A GRU reads them in both
    directions, pooling makes one vector of all steps, and a dense layer the scores of the labels.
    A part of the texts is held out: training stops when the answers for it do not become better,
    the best weights are kept, and its labels calibrate the probabilities (temperature scaling).

    Parameters
    ----------
    units : int
        Units of the GRU, in each direction.
    embedding_dim : int
        Length of the words' vectors.
    pooling : str
        ``"attention"``, an average of all steps by learned weights, or ``"max_average"``, their
        maximum and their average.
    members : int
        How many networks are trained one after the other, whose scores are averaged.
    min_count : int
        How often a word has to occur to get a vector of its own.
    ngrams : list of int
        Lengths of the character n-grams; of an empty list there are none.
    buckets : int
        Number of vectors that n-grams share, by their hash.
    word_dropout, embedding_dropout, dropout : float
        Share of the words, of the values of their vectors, and of the pooled values that is
        dropped in training.
    epochs, patience, batch_size : int
        Passes over the texts at most, how many in a row may bring nothing before training stops,
        and texts per step.
    learning_rate : float
        Where Adam's learning rate begins; it falls to 0 along a cosine over all epochs.
    held_out : float
        Share of the texts, drawn at random, that is held out; 0 for none, and then all epochs are
        trained, and the probabilities are as the network gives them.
    lower : bool
        Whether upper and lower case are the same.
    seed : int, optional
        Makes all that is drawn repeatable; by default drawn from `set_random_seed`.

    Attributes
    ----------
    classes_ : list
        The labels, sorted.
    temperature_ : float
        What scores are divided by before they become probabilities.
    history_ : list of History
        What the last `fit` has measured, one for each of `models`.
    models : list of Sequential
        The members' networks, whose outputs are scores.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message says what was expected.

    Examples
    --------
    >>> texts = ["a joy", "pure joy", "a bore", "what a bore"] * 8
    >>> labels = ["good", "good", "bad", "bad"] * 8
    >>> model = TextClassifier(units=8, embedding_dim=8, buckets=100, members=1, seed=1)
    >>> model = model.fit(texts, labels, verbose=0)
    >>> model.predict(["joy", "bore"]).tolist()
    ['good', 'bad']
    >>> model.predict_proba(["joy"]).shape
    (1, 2)

    Notes
    -----
    Bojanowski et al. 2017, arXiv:1607.04606 (n-grams); Yang et al. 2016, "Hierarchical attention
    networks for document classification" (attention); Howard and Ruder 2018, arXiv:1801.06146 (both
    other poolings side by side); Guo et al. 2017, arXiv:1706.04599 (temperature scaling).
    """

    def __init__(
        self,
        units: int = 48,
        embedding_dim: int = 100,
        pooling: str = "attention",
        members: int = 3,
        min_count: int = 2,
        ngrams: Sequence[int] = (3, 4),
        buckets: int = 20000,
        word_dropout: float = 0.2,
        embedding_dropout: float = 0.6,
        dropout: float = 0.5,
        epochs: int = 5,
        patience: int = 2,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        held_out: float = 0.1,
        lower: bool = True,
        seed: int | None = None,
    ) -> None:
        self.units = positive_int("units", units)
        self.embedding_dim = positive_int("embedding_dim", embedding_dim)
        self.pooling = one_of("pooling", pooling, ("attention", "max_average"))
        self.members = positive_int("members", members)
        self.min_count = positive_int("min_count", min_count)
        if not isinstance(ngrams, (list, tuple)):
            raise TypeError(f"ngrams: expected a list of integers, given {ngrams!r}")
        self.ngrams = [positive_int("ngrams", n) for n in ngrams]
        self.buckets = positive_int("buckets", buckets)
        self.word_dropout = fraction("word_dropout", word_dropout)
        self.embedding_dropout = fraction("embedding_dropout", embedding_dropout)
        self.dropout = fraction("dropout", dropout)
        self.epochs = positive_int("epochs", epochs)
        self.patience = positive_int("patience", patience)
        self.batch_size = positive_int("batch_size", batch_size)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.held_out = fraction("held_out", held_out)
        self.lower = boolean("lower", lower)
        self.seed = None if seed is None else non_negative_int("seed", seed)
        self.models: list[Sequential] = []
        self.classes_: list[Any] = []
        self.temperature_ = 1.0
        self.history_: list[Any] = []
        self._kind = "single"
        self._vocabulary: dict[str, int] = {}
        self._bags: dict[str, list[int]] = {}

    # ---- what files hold

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make such a classifier again."""
        names = (
            "units", "embedding_dim", "pooling", "members", "min_count", "ngrams", "buckets",
            "word_dropout", "embedding_dropout", "dropout", "epochs", "patience", "batch_size",
            "learning_rate", "held_out", "lower", "seed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _layers(self) -> list[Layer]:
        return [layer for model in self.models for layer in model.layers]

    def _assemble(self, layers: list[Layer]) -> None:
        # After an interrupted fit there are fewer members than there should be.
        size = sum(layer.name.startswith("member_0_") for layer in layers)
        self.models = [
            Sequential(layers[i : i + size], name=f"member_{i // size}")
            for i in range(0, len(layers), size)
        ]
        for model in self.models:
            model.compile(loss=self._loss)

    def _learned(self) -> dict[str, Any]:
        return {
            "kind": self._kind,
            "classes": self.classes_,
            "temperature": self.temperature_,
            "vocabulary": list(self._vocabulary),
        }

    def _learn(self, learned: dict[str, Any]) -> None:
        self._kind = one_of("kind", learned["kind"], KINDS)
        self.classes_ = list(learned["classes"])
        self.temperature_ = positive("temperature", learned["temperature"])
        self._know(learned["vocabulary"])

    # ---- text

    def _know(self, words: Iterable[str]) -> None:
        """Take over the words that have a vector of their own."""
        self._vocabulary = {str(word): i for i, word in enumerate(words, start=1)}
        self._bags = {}

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Return where the words of a text begin and end; punctuation marks are words."""
        return [found.span() for found in _WORDS.finditer(text)]

    def _words(self, texts: Any) -> list[list[str]]:
        """Return the words of each text, or raise."""
        if not _is_list(texts):
            raise TypeError(f"texts: expected a list of str, given {shortened(texts)}")
        words = []
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{i}]: expected a str, given {shortened(text)}")
            try:
                text.encode()
            except UnicodeEncodeError:  # half of a pair of surrogates
                raise ValueError(
                    f"texts[{i}]: expected Unicode text, given {shortened(text)}"
                ) from None
            # Lower case comes after, for it has other letters: that of a dotted I has two.
            own = [text[start:end] for start, end in self._spans(text)]
            if not own:
                raise ValueError(f"texts[{i}]: expected at least one word, given {text!r:.40}")
            words.append([word.lower() for word in own] if self.lower else own)
        return words

    def _bag(self, word: str) -> list[int]:
        """Return the ids of a word and of its n-grams; 0 stands for a word that is unknown."""
        if word not in self._bags:
            marked, first = f"<{word}>", len(self._vocabulary) + 1
            grams = [
                first + zlib.crc32(marked[i : i + n].encode()) % self.buckets
                for i in range(len(marked))
                for n in self.ngrams
                if i + n <= len(marked)
            ]
            self._bags[word] = [self._vocabulary.get(word, 0), *grams[:LONGEST_BAG]]
        return self._bags[word]

    def _ids(self, texts: list[list[str]]) -> list[np.ndarray]:
        """Return the bags (T, K) of the words of each text."""
        width = max(len(self._bag(word)) for words in texts for word in words)
        ids = []
        for words in texts:
            own = np.zeros((len(words), width), np.int32)
            for row, word in zip(own, words, strict=True):
                bag = self._bag(word)
                row[: len(bag)] = bag
            ids.append(own)
        return ids

    # ---- training

    def _network(self, number: int) -> Sequential:
        pool = Attention if self.pooling == "attention" else GlobalMaxAveragePooling1D
        rows = 1 + len(self._vocabulary) + (self.buckets if self.ngrams else 0)
        layers = [
            EmbeddingBag(rows, self.embedding_dim),
            SpatialDropout1D(self.word_dropout, "steps"),
            Dropout(self.embedding_dropout),
            Bidirectional(GRU(self.units, return_sequences=True)),
            pool(),
            Dropout(self.dropout),
            Dense(len(self.classes_)),
        ]
        for layer in layers:
            layer.name = f"member_{number}_{layer.name}"
        return Sequential(layers, name=f"member_{number}")

    @property
    def _loss(self) -> losses.Loss:
        if self._kind == "single":
            return losses.SparseCategoricalCrossentropy(from_logits=True)
        return losses.BinaryCrossentropy(from_logits=True)

    def fit(
        self,
        texts: Sequence[str],
        labels: Any,
        validation_data: tuple[Any, Any] | None = None,
        callbacks: Any = None,
        verbose: Any = "auto",
    ) -> TextClassifier:
        """Learn from texts and their labels; what was learned before is forgotten.

        Parameters
        ----------
        texts : list of str
            The texts.
        labels : list or array
            One label for each text: all str, all bool, or all numbers; or, for several labels at a
            time, a list (or set) of labels for each text, or an array (N, K) of 0 and 1.
        validation_data : tuple (texts, labels), optional
            What is held out, instead of a part of the texts.
        callbacks : list of Callback, optional
            What else follows the training of each member.
        verbose : "auto", 0, 1 or 2
            How progress is shown; see `Sequential.fit`.

        Returns
        -------
        TextClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError
            If texts or labels do not fit; nothing has changed then.

        Notes
        -----
        As of `Sequential.fit`, KeyboardInterrupt comes out after Ctrl-C. The classifier is then the
        old one if no epoch had ended. Else the members that were trained so far remain, the last
        one with its best weights unless that was its first epoch, and the classifier can be used.
        """
        checked(verbose)
        callbacks = checked_callbacks(callbacks)
        words = self._words(texts)
        if len(words) < 2:
            raise ValueError(f"texts: expected at least 2, given {len(words)}")
        kind, classes, targets = _encoded(labels, len(words))
        held_words, held_targets = [], targets[:0]
        generator = random.generator(self.seed)
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError("validation_data: expected a tuple (texts, labels)")
            with named("validation_data"):
                held_words = self._words(validation_data[0])
                held_targets = _as_encoded(validation_data[1], len(held_words), kind, classes)
        elif self.held_out:
            order = generator.permutation(len(words))
            count = min(max(round(self.held_out * len(words)), 1), len(words) - 1)
            held, kept = order[:count], order[count:]
            held_words, held_targets = [words[i] for i in held], targets[held]
            words, targets = [words[i] for i in kept], targets[kept]

        counts = Counter(word for own in words for word in own).most_common()
        if not self.ngrams and counts[0][1] < self.min_count:
            raise ValueError(
                f"min_count: expected at most {counts[0][1]}, as often as the most frequent word "
                f"occurs, where there are no ngrams, given {self.min_count}"
            )
        state = random.get_state()
        with self._learning():
            self.models, self.history_, self.temperature_ = [], [], 1.0
            self._kind, self.classes_ = kind, classes
            self._know(word for word, n in counts if n >= self.min_count)
            x, held_x = self._ids(words), self._ids(held_words) if held_words else []
            random.set_random_seed(int(generator.integers(2**31)))
            try:
                for number in range(self.members):
                    self._train(number, (x, targets), (held_x, held_targets), callbacks, verbose)
            finally:
                random.set_state(state)
                if self.history_ and not self.history_[-1].epoch:
                    # Its weights are still nearly those that it began with.
                    self.models.pop()
                    self.history_.pop()
                if self.models and held_x:
                    self.temperature_ = best_temperature(self._scores(held_x), held_targets)
        return self

    def _epochs(self) -> int:
        """Return how many epochs the last fit has finished, of all members."""
        return sum(len(history.epoch) for history in self.history_)

    def _train(
        self,
        number: int,
        data: tuple[Any, Any],
        held: Any,
        callbacks: list[Callback],
        verbose: Any,
    ) -> None:
        """Train one more member."""
        model = self._network(number)
        rate = CosineDecay(self.learning_rate, self.epochs * -(-len(data[0]) // self.batch_size))
        model.compile(Adam(rate), self._loss)
        mine: list[Callback] = []
        if held[0]:
            mine = [
                Calibration(*held),
                EarlyStopping(
                    "val_calibrated_loss", patience=self.patience, restore_best_weights=True
                ),
            ]
        model.build((None, *np.shape(data[0][0])))
        self.models.append(model)
        self.history_.append(History())
        try:
            model.fit(
                *data,
                batch_size=self.batch_size,
                epochs=self.epochs,
                callbacks=[*mine, *callbacks],
                verbose=verbose,
            )
        finally:
            self.history_[-1] = model.history or self.history_[-1]

    # ---- use

    def _scores(self, ids: list[np.ndarray]) -> np.ndarray:
        """Return the mean scores (N, K) of the members."""
        return np.mean([m.predict(ids, batch_size=PREDICTED_AT_ONCE) for m in self.models], axis=0)

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return what the networks in `models` read: the ids (T, K) of words and of their n-grams.

        Parameters
        ----------
        texts : list of str
            The texts.
        """
        self._fitted()
        words = self._words(texts)
        return self._ids(words) if words else []

    def decision_function(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores before they become probabilities.

        Parameters
        ----------
        texts : list of str
            The texts.

        Returns
        -------
        array (N, K)
            One column for each of `classes_`.
        """
        ids = self.ids(texts)
        return self._scores(ids) if ids else np.zeros((0, len(self.classes_)), np.float32)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return how likely each label is.

        Parameters
        ----------
        texts : list of str
            The texts.

        Returns
        -------
        array (N, K)
            One column for each of `classes_`. Rows sum to 1, but for texts with several labels,
            where each column is a probability by itself.
        """
        return self._probabilities(self.decision_function(texts))

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        scores = scores / self.temperature_
        return _softmax(scores) if self._kind == "single" else _sigmoid(scores)

    def predict(self, texts: Sequence[str]) -> Any:
        """Return the label of each text, or its labels.

        Parameters
        ----------
        texts : list of str
            The texts.

        Returns
        -------
        array (N,), or list of lists, or array (N, K)
            Labels of the kind that `fit` was given: the most likely one of each text, or all that
            are more likely than not.
        """
        scores = self.decision_function(texts)
        if self._kind == "single":
            classes = np.empty(len(self.classes_), object)
            classes[:] = self.classes_
            return np.array(classes[scores.argmax(axis=1)].tolist(), np.array(self.classes_).dtype)
        if self._kind == "indicator":
            return (scores > 0).astype(np.int32)
        return [[c for c, s in zip(self.classes_, row, strict=True) if s > 0] for row in scores]

    def score(self, texts: Sequence[str], labels: Any) -> float:
        """Return the accuracy: the share of texts whose label, or all of whose labels, are right.

        Parameters
        ----------
        texts : list of str
            The texts.
        labels : list or array
            What `fit` takes.

        Raises
        ------
        ValueError, TypeError
            If there are no texts, or the labels do not fit.
        """
        scores = self.decision_function(texts)
        targets = _as_encoded(labels, len(scores), self._kind, self.classes_)
        if self._kind == "single":
            return float((scores.argmax(axis=1) == targets).mean())
        return float(((scores > 0) == targets).all(axis=1).mean())

    def count_params(self) -> int:
        """Return the number of weights."""
        return sum(model.count_params() for model in self.models)

    def explain(self, text: str, label: Any = None, steps: int = 64) -> Explanation:
        """Return what each word of a text had to do with a label.

        Parameters
        ----------
        text : str
            The text.
        label : optional
            One of `classes_`; by default the most likely one.
        steps : int
            How many gradients the integrated gradients are made of.

        Returns
        -------
        Explanation
            Attention and integrated gradients, word by word; it shows itself in colours in a
            notebook, and its `html` does elsewhere.
        """
        x = self.ids([text])[0]
        scores = self._scores([x])
        probabilities = self._probabilities(scores)[0]
        if label is None:
            place = int(probabilities.argmax())
        elif label in self.classes_:
            place = self.classes_.index(label)
        else:
            raise ValueError(f"label: expected one of {self.classes_!r:.200}, given {label!r:.40}")
        weights = np.zeros((2, len(x)))
        for model in self.models:
            weights[0] += explain.attention(model, x[None])[0]
            weights[1] += explain.integrated_gradients(model, x[None], place, steps=steps)[0]
            if self._kind == "single":  # where scores compete
                other = int(np.delete(scores[0], place).argmax())
                other += other >= place
                weights[1] -= explain.integrated_gradients(model, x[None], other, steps=steps)[0]
        attention, gradients = weights / len(self.models)
        return Explanation(
            text,
            self.classes_[place],
            float(probabilities[place]),
            self._spans(text),
            attention,
            gradients,
        )


@dataclass(eq=False)  # == of arrays is no answer
class Explanation:
    """What each word of a text had to do with a label.

    Attributes
    ----------
    text : str
        The text.
    label : str, int, float or bool
        The label that is explained.
    probability : float
        How likely the classifier thinks it is.
    spans : list of (int, int)
        Where each word begins and ends in the text.
    attention : array (T,)
        How much the pooling takes from each word, see `fastgru.explain.attention`; it sums to 1.
    integrated_gradients : array (T,)
        What each word adds to the score of the label, less what it adds to that of the strongest
        other one (Sundararajan et al. 2017, arXiv:1703.01365).
    """

    text: str
    label: Any
    probability: float
    spans: list[tuple[int, int]]
    attention: np.ndarray
    integrated_gradients: np.ndarray

    @property
    def words(self) -> list[str]:
        """The words as they are in the text."""
        return [self.text[start:end] for start, end in self.spans]

    def __str__(self) -> str:
        """Return a table, one line for each word."""
        width = max(map(len, self.words))
        lines = [f"{self.label!s} ({self.probability:.2f})"]
        lines.append(f"{'word':{width}}  attention  integrated gradients")
        for word, a, g in zip(self.words, self.attention, self.integrated_gradients, strict=True):
            lines.append(f"{word:{width}}  {a:9.3f}  {g:+20.3f}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.html()

    def html(self) -> str:
        """Return HTML, as a notebook shows it: the text twice, coloured by either of the weights.

        Returns
        -------
        str
            A ``<div>``; a word's weight is its title, which shows up under the mouse.
        """
        title = f"<b>{html.escape(str(self.label))}</b> ({self.probability:.2f})"
        rows = [f'<div style="font-family:sans-serif;line-height:1.8">{title}']
        for name, weights in (
            ("attention", self.attention),
            ("integrated gradients", self.integrated_gradients),
        ):
            rows.append(f"<br><small>{name}</small><br>{self._coloured(weights)}")
        return "".join([*rows, "</div>"])

    def _coloured(self, weights: np.ndarray) -> str:
        """Return the text as HTML: green for weights above 0, red below, full for the largest."""
        parts, end = [], 0
        largest = max(float(np.abs(weights).max()), 1e-12)
        for (start, stop), weight in zip(self.spans, weights, strict=True):
            colour, shade = "46,160,67" if weight >= 0 else "220,60,60", abs(weight) / largest
            parts.append(html.escape(self.text[end:start]))
            parts.append(
                f'<span style="background:rgba({colour},{shade:.2f})" title="{weight:+.3f}">'
                f"{html.escape(self.text[start:stop])}</span>"
            )
            end = stop
        return "".join([*parts, html.escape(self.text[end:])])


class Calibration(Callback):
    """Measure after each epoch how good the probabilities of held-out data are once calibrated.

    ``val_calibrated_loss`` is their loss at the best temperature, and ``val_accuracy`` the share of
    labels that are right. Of an overconfident network the plain loss rises while it still learns.

    Parameters
    ----------
    x : list of arrays
        The inputs.
    targets : array (N,) or (N, K)
        Numbers of classes, or 0 and 1.
    """

    def __init__(self, x: list[np.ndarray], targets: np.ndarray) -> None:
        super().__init__()
        self.x, self.targets = x, targets

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure."""
        scores = self.model.predict(self.x, batch_size=PREDICTED_AT_ONCE)
        right = scores.argmax(axis=1) if self.targets.ndim == 1 else scores > 0
        assert logs is not None
        logs["val_accuracy"] = float((right == self.targets).mean())
        temperature = best_temperature(scores, self.targets)
        logs["val_calibrated_loss"] = _loss_at(temperature, scores, self.targets)


def best_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return what scores have to be divided by for the likeliest labels.

    Parameters
    ----------
    scores : array (N, K)
        Before softmax or sigmoid.
    targets : array (N,) or (N, K)
        Numbers of classes, for softmax; or 0 and 1, for sigmoid.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    values = [_loss_at(temperature, scores, targets) for temperature in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(values))])


def _loss_at(temperature: float, scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the cross-entropy of scores at a temperature."""
    scores = scores.astype(np.float64) / temperature
    if targets.ndim == 1:
        chosen = scores[np.arange(len(scores)), targets]
        top = scores.max(axis=1)
        return float((top + np.log(np.exp(scores - top[:, None]).sum(axis=1)) - chosen).mean())
    return float((np.logaddexp(0, scores) - targets * scores).mean())


def _softmax(scores: np.ndarray) -> np.ndarray:
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -scores))


def _is_list(value: Any) -> bool:
    """Return whether a value has items in an order of their own."""
    others = (str, bytes, set, frozenset, Mapping)
    return isinstance(value, Iterable) and not isinstance(value, others)


# ---- labels

# One label for each text, a collection of labels, or a row of 0 and 1.
KINDS = ("single", "sets", "indicator")


def _encoded(labels: Any, count: int) -> tuple[str, list[Any], np.ndarray]:
    """Return the kind of some labels, all that there are, and numbers for them, or raise."""
    kind, rows = _listed(labels, count)
    if kind == "indicator":
        classes: list[Any] = list(range(len(rows[0])))
    else:
        every = rows if kind == "single" else [label for row in rows for label in row]
        classes = sorted(set(every))
        least = 2 if kind == "single" else 1
        if len(classes) < least:
            raise ValueError(f"labels: expected {least} different ones or more, given {classes!r}")
    return kind, classes, _numbered(rows, kind, classes)


def _as_encoded(labels: Any, count: int, kind: str, classes: list[Any]) -> np.ndarray:
    """Return numbers for labels of a kind that is known, or raise."""
    if not count:
        raise ValueError("texts: expected at least 1, given none")
    given, rows = _listed(labels, count)
    if given != kind or (kind == "indicator" and len(rows[0]) != len(classes)):
        raise ValueError(f"labels: expected what fit was given, {kind}, given {shortened(labels)}")
    return _numbered(rows, kind, classes)


def _listed(labels: Any, count: int) -> tuple[str, list[Any]]:
    """Return the kind of some labels, and plain Python lists of them."""
    if not _is_list(labels):
        raise TypeError(f"labels: expected a list with one for each text, given {labels!r:.40}")
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        if not np.isin(labels, (0, 1)).all() or not labels.shape[1]:
            raise ValueError("labels: expected 0 and 1 in an array (N, K), given other values")
        kind, rows = "indicator", labels.astype(int).tolist()
    else:
        rows = [label.item() if isinstance(label, np.generic) else label for label in labels]
        kind = "single"
        if rows and all(isinstance(row, (list, tuple, set, frozenset)) for row in rows):
            kind = "sets"
            rows = [
                [label.item() if isinstance(label, np.generic) else label for label in row]
                for row in rows
            ]
    if len(rows) != count:
        raise ValueError(f"labels: expected {count}, one for each text, given {len(rows)}")
    every = rows if kind == "single" else [label for row in rows for label in row]
    for label in every:
        if not isinstance(label, (str, int, float)):
            hint = "; give np.array(labels)" if isinstance(label, np.ndarray) else ""
            raise TypeError(f"labels: expected str, int, bool or float, given {label!r:.40}{hint}")
        if label != label:
            raise ValueError("labels: expected a label for each text, given NaN")
        if _sort(label) is not _sort(every[0]):
            raise TypeError(
                f"labels: expected all str, all bool or all numbers, given {every[0]!r:.40} and "
                f"{label!r:.40}"
            )
    if kind == "sets":
        lists = [row for row in labels if isinstance(row, (list, tuple))]
        if len(lists) == count and all(len(row) > 1 and {*row} <= {0, 1} for row in lists):
            raise ValueError(
                "labels: expected the labels of each text, given rows of 0 and 1; if they say "
                "which labels a text has, give np.array(labels)"
            )
        for row in rows:
            if len(set(row)) < len(row):
                raise ValueError(f"labels: expected each label once, given {shortened(row)}")
    return kind, rows


def _sort(label: Any) -> type:
    """Return what a label is: a str, a bool, which equals a number, or a number."""
    return next(sort for sort in (str, bool, object) if isinstance(label, sort))


def _numbered(rows: list[Any], kind: str, classes: list[Any]) -> np.ndarray:
    """Return the numbers of classes (N,), or 0 and 1 (N, K)."""
    if kind == "indicator":
        return np.array(rows, np.float32)
    places = {label: i for i, label in enumerate(classes)}
    try:
        if kind == "single":
            return np.array([places[row] for row in rows], np.int64)
        targets = np.zeros((len(rows), len(classes)), np.float32)
        for target, row in zip(targets, rows, strict=True):
            target[[places[label] for label in row]] = 1
    except KeyError as error:
        raise ValueError(f"labels: expected some of {classes!r:.200}, given {error}") from None
    return targets
