"""A stack of layers: compile, fit, evaluate, predict, summary, save."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeAlias

import numpy as np

from fastgru import losses, optimizers, saving
from fastgru.batches import (
    Batch,
    Batches,
    Samples,
    Sequences,
    Streams,
    checked_classes,
    is_iterable,
    is_ragged,
    joined,
    named,
)
from fastgru.callbacks import Callback
from fastgru.errors import NonFiniteError
from fastgru.history import History
from fastgru.layers import Backward, Embedding, Layer, Shape, no_dropout
from fastgru.metrics import CLASSES as METRICS
from fastgru.metrics import get as get_metric
from fastgru.progress import checked, watched
from fastgru.recurrent import Bidirectional, Recurrent
from fastgru.registry import config_of, describe, reading, restore
from fastgru.run import Run, States, WeightNoise, checked_callbacks
from fastgru.step import Step
from fastgru.streaming import Chain
from fastgru.summary import lines_of, plain
from fastgru.validation import (
    boolean,
    fraction,
    list_of_arrays,
    name_or,
    non_negative,
    non_negative_int,
    positive_int,
    sizes,
    step_mask,
    visible,
)

# What may come with x and y.
COLUMNS = "sample_weight", "mask", "lengths"

# Metrics get so many probabilities at a time.
ACTIVATED_AT_ONCE = 2**22

Weights: TypeAlias = tuple[list[np.ndarray], list[np.ndarray]]
# What each layer is, or will be, built for: the shapes of its weights, and that of its input.
Known: TypeAlias = dict[Layer, tuple[Any, Any]]


def _covers(built_for: Shape | None, shape: Shape) -> bool:
    """Return whether a layer that was built for a shape, None being any size, takes another."""
    if built_for is None or len(built_for) != len(shape):
        return False
    for n, m in zip(built_for, shape, strict=False):  # a loop: `all` takes twice as long
        if n is not None and n != m:
            return False
    return True


def _free(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken: with the first number behind it, if it is."""
    base, n = name, 0
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    return name


class Sequential:
    """A stack of layers, each taking the output of the one before.

    Parameters
    ----------
    layers : list of Layer, optional
        The layers, the first one first; more can be added with `add`.
    name : str, optional
        Name in summaries and files.

    Attributes
    ----------
    history : History or None
        What the last `fit` has measured, also where it was interrupted.
    stop_training : bool
        Set to True by a callback, it ends `fit` after this batch or epoch.

    Examples
    --------
    >>> import fastgru as fg
    >>> model = fg.Sequential([fg.GRU(8), fg.Dense(1, activation="sigmoid")])
    >>> model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    """

    _last_step: Step | None = None  # what has trained on the last batch

    def __init__(self, layers: list[Layer] | None = None, name: str | None = None) -> None:
        self.name = name_or(name, "sequential")
        self.layers: list[Layer] = []
        self.optimizer: Any = None
        self.loss: Any = None
        self.metrics: list[Any] = []
        self.history: History | None = None
        self.stop_training = False
        self.adversary: Any = None  # what `fastgru.robust.AdversarialTraining` is while it trains
        if layers is not None and not isinstance(layers, (list, tuple)):
            raise TypeError(f"layers: expected a list of layers, given {layers!r}")
        for layer in layers or []:
            self.add(layer)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies need."""
        return {name: value for name, value in vars(self).items() if name != "_last_step"}

    # ---- building

    def add(self, layer: Layer) -> None:
        """Put one more layer on top.

        One that is in the model already shares its weights between its places: their gradients
        add up.

        Raises
        ------
        TypeError
            If it is not a layer.
        ValueError
            If it does not fit the layers below; then neither it nor the model has changed.
        """
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a fastgru layer, given {layer!r}")
        names = {other.name for other in self.layers if other is not layer}
        base, layer.name = layer.name, _free(layer.name, names)
        self.layers.append(layer)
        try:
            self._build_above()
        except BaseException:
            self.layers.pop()
            layer.name = base
            raise

    def _build_above(self) -> None:
        """Build all layers if the first one knows what its input looks like; raise as `build`."""
        first = self.layers[0]
        if not isinstance(first, Embedding):
            if first.built:
                self.build(first.input_shape or ())
            return
        # Its input needs no size, so the layers above are built before any data is seen; those for
        # words of characters need one more axis.
        shape = first.input_shape or first.known_input_shape
        for known in (shape, (*shape, None)):
            with contextlib.suppress(ValueError):
                self.build(known)
                first.input_shape = known
                return
        self.build(shape)  # which tells what does not fit

    def build(self, input_shape: Shape) -> None:
        """Allocate all weights, for an `input_shape` whose batch size does not matter.

        Raises
        ------
        ValueError
            If a layer cannot take what the one before gives, or was built for another input;
            nothing has been allocated then.
        """
        shapes = self._shapes(sizes("input_shape", input_shape))
        for layer, shape in zip(self.layers, shapes, strict=False):
            layer.build(shape)

    def _shapes(self, input_shape: Shape, known: Known | None = None) -> list[Shape]:
        """Return the shapes of the input of every layer and of the output, or raise.

        All shapes that are given with the same dict `known` must be of inputs of one model.
        """
        shapes = [tuple(input_shape)]
        last_step_of = None  # the layer, if any, that has dropped the axis of steps
        known = {} if known is None else known
        for layer in self.layers:
            given = (None, *shapes[-1][1:])
            if not _covers(layer.input_shape, given):
                self._takes(layer, given, last_step_of, known)
            shapes.append(layer.output_shape(shapes[-1]))
            if getattr(layer, "return_sequences", True) is False:
                last_step_of = layer.name
        return shapes

    def _takes(self, layer: Layer, given: Shape, last_step_of: str | None, known: Known) -> None:
        """Raise unless a layer takes input of a shape: see `_shapes`."""
        try:
            expected = {n: tuple(s) for n, s in layer.weight_shapes(given).items()}
        except ValueError as error:
            if last_step_of is None:
                raise
            raise ValueError(
                f"{error}. Set return_sequences=True on the layer {last_step_of!r} below it."
            ) from error
        if layer.built:
            weights = {name: array.shape for name, array in layer.weights().items()}
            known[layer] = weights, layer.input_shape
        weights, built_for = known.setdefault(layer, (expected, given))
        if weights != expected:
            why = "was built for" if layer.built else "takes elsewhere"
            raise ValueError(
                f"{layer.name}: x: expected shape {built_for}, which the layer {why}, given {given}"
            )

    def _checked(self) -> None:
        if not self.layers:
            raise ValueError(f"{self.name}: expected at least one layer, given an empty model")

    def _compiled(self) -> None:
        self._checked()
        if self.loss is None:
            raise RuntimeError(f"{self.name}: call compile(optimizer, loss) first")

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: list[Any] | None = None,
    ) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
            ``"adam"``, ``"adamw"``, ``"rmsprop"``, ``"sgd"``, or one of `fastgru.optimizers`.
        loss : str or Loss
            ``"mse"``, ``"mae"``, ``"huber"``, ``"binary_crossentropy"``,
            ``"categorical_crossentropy"``, ``"sparse_categorical_crossentropy"``, ``"ctc"``, or
            one of `fastgru.losses`.
        metrics : list of str or Metric, optional
            ``"accuracy"``, ``"top_k"``, ``"precision"``, ``"recall"``, ``"f1"``, ``"auc"``,
            ``"perplexity"``, or some of `fastgru.metrics`. In results, names that come more than
            once have numbers: ``top_k``, ``top_k_1``.

        Raises
        ------
        ValueError
            If a name is unknown; the message lists those that are not.
        """
        if metrics is not None and not isinstance(metrics, (list, tuple)):
            raise TypeError(f"metrics: expected a list of names, given {metrics!r}")
        chosen = optimizers.get(optimizer), losses.get(loss)
        self.metrics = [get_metric(name, chosen[1]) for name in metrics or []]
        self.optimizer, self.loss = chosen
        self._last_step = None

    # ---- one pass

    @property
    def _fused(self) -> bool:
        """Whether the last activation is computed with the loss, from logits: exact and stable."""
        last = self.layers[-1].last_activation
        return last is not None and last == self.loss.fused_activation

    def _check(
        self,
        batch: Batch,
        known: Known | None = None,
        class_weight: dict[Any, float] | None = None,
    ) -> list[Shape]:
        """Raise unless a batch fits the layers, the loss and the metrics; change nothing else.

        Batches that are checked with the same dict `known` fit each other, too. Returns the shapes
        of the input of every layer and of the output.
        """
        x, y, weight, mask, _ = batch
        shapes = self._shapes(x.shape, known)
        shape = shapes[-1]
        dtype = self.layers[-1].dtype
        self.layers[0].check(visible(x, mask))
        # Only the first layer's mask depends on what x holds.
        for layer in self.layers:
            mask = layer.output_mask(x, mask)
        output: Any = (len(x), *shape[1:])
        self.loss.check(y, output, dtype, weight, mask)
        if class_weight:
            self._check_classes(class_weight, output[-1])
        for metric in self.metrics:
            with named(metric.name):
                try:
                    # Metrics ask for shapes only, and those of an empty batch are those of any.
                    metric.update(y[:0], np.empty((0, *output[1:]), dtype))
                except (TypeError, ValueError):
                    # The error shall show the shapes that were given.
                    copy.deepcopy(metric).update(y, np.zeros(output, dtype))
                    raise
        return shapes

    def _check_classes(self, class_weight: dict[Any, float], outputs: int) -> None:
        """Raise where a weight is that of a class which outputs cannot mean."""
        if outputs == 1 and not isinstance(self.loss, losses.BinaryCrossentropy):
            return  # a number, of any class or none
        last = max(outputs - 1, 1)
        for label in class_weight:
            if label > last:
                raise ValueError(
                    f"class_weight: expected classes from 0 to {last}, given {label!r}"
                )

    def _forward(
        self, x: Any, mask: Any, fused: bool, states: States | None = None, shift: Any = None
    ) -> tuple[Any, Any, list[Backward]]:
        """Return output (logits, if fused), its mask, and the ways back.

        A `shift` is added to the vectors of an embedding that comes first, or to x.
        """
        backwards = []
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            if shift is not None and i == self._first_vectors:
                x = x + shift
            if fused and i == last:
                top: Any = layer
                y, backward = top.forward(x, mask=mask, logits=True)
            elif states is not None and isinstance(layer, Recurrent):
                begin = states.get(i)
                y, backward = layer.forward(x, mask=mask, initial_state=begin, with_states=True)
            else:
                y, backward = layer.forward(x, mask=mask)
            mask = layer.output_mask(x, mask)
            if isinstance(y, list):
                if states is not None:
                    states[i] = y[1:]
                # With return_state the sequence flows on, and the state stays behind.
                y = y[0]
            x = y
            backwards.append(backward)
        return x, mask, backwards

    def _infer(
        self, x: Any, mask: Any = None, states: States | None = None, fused: bool = False
    ) -> tuple[Any, Any, list[np.ndarray]]:
        """Return output, or logits if fused, its mask, and the states that layers return."""
        returned: list[np.ndarray] = []
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            if fused and i == last:
                top: Any = layer
                y = top.infer(x, mask, None, None, logits=True)
            elif states is not None and isinstance(layer, Recurrent):
                y = layer.infer(x, mask, None, states.get(i), with_states=True)
                states[i] = y[1:]
            else:
                y = layer(x, mask=mask)
            mask = layer.output_mask(x, mask)
            if isinstance(y, list):
                returned += y[1:]
                y = y[0]
            x = y
        return x, mask, returned

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, *, logits: bool = False
    ) -> tuple[np.ndarray, Backward]:
        """Compute the output for a batch as inference does, and return the way back to its input.

        Parameters
        ----------
        x : array
            The input, batch first.
        mask : array of bool (B, T), optional
            False where a step is to be skipped.
        lengths : array of int (B,), optional
            How many steps of each row count.
        logits : bool
            Whether to leave the last activation out, that of a last `Dense` for instance.

        Returns
        -------
        y, backward
            ``dx = backward(dy)``, to be called once, gives the gradient of the input, None where
            the first layer has none, as an `Embedding`, and adds to the layers' `grads`.

        Examples
        --------
        >>> import numpy as np
        >>> import fastgru as fg
        >>> y, backward = fg.Sequential([fg.GRU(3), fg.Dense(1)]).forward(np.ones((2, 5, 4)))
        >>> backward(np.ones_like(y)).shape
        (2, 5, 4)
        """
        self._checked()
        if mask is not None or lengths is not None:
            B, T, *inner = np.shape(x)
            mask = step_mask(mask, lengths, B, T, inner=inner)
        self.build(np.shape(x))
        with no_dropout():
            fused = logits and self.layers[-1].last_activation is not None
            y, _, backwards = self._forward(x, mask, fused)

        def backward(dy: Any, with_dx: bool = True) -> Any:
            for i in reversed(range(len(backwards))):
                dy = backwards[i](dy, with_dx=with_dx or i > 0)
            return dy

        return y, backward

    @property
    def _first_vectors(self) -> int:
        """The place of the first layer whose input are vectors: above an embedding, or 0."""
        return int(isinstance(self.layers[0], Embedding))

    @property
    def _different(self) -> list[Layer]:
        """The layers, each once: one may be at several places."""
        return list(dict.fromkeys(self.layers))

    def _weights(self) -> Weights:
        """Return all params and all gradients."""
        pairs = [pair for layer in self._different for pair in layer.pairs()]
        return [p for p, _ in pairs], [g for _, g in pairs]

    def _scored(
        self, batch: Batch, output: np.ndarray, mask: Any, fused: bool, measured: bool = True
    ) -> tuple[float, np.ndarray]:
        """Return the loss of a batch that was checked, and its gradient; update the metrics.

        If fused, the output are logits, which are overwritten.
        """
        y, weight = batch.y, batch.weight
        if measured and self.metrics:
            # Sample weights belong to the loss; metrics count every sample, as in Keras.
            for part, some in self._activated(output) if fused else [(slice(None), output)]:
                for metric in self.metrics:
                    metric.update(y[part], some, mask=None if mask is None else mask[part])
        if not fused:
            return self.loss(y, output, sample_weight=weight, mask=mask)
        return self.loss.fused(
            y, output, sample_weight=weight, mask=mask, overwrite=True, checked=True
        )

    def _activated(self, logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the output that belongs to logits, some rows at a time, and which rows they are.

        That of a large vocabulary would take as much memory as the logits.
        """
        last = self.layers[-1]
        rows = max(1, ACTIVATED_AT_ONCE // math.prod(logits.shape[1:]))
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            yield part, last.activated(logits[part])

    # ---- data

    def _source(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        mask: Any = None,
        lengths: Any = None,
    ) -> Samples:
        """Return what gives the batches of inputs, with targets or without."""
        if isinstance(x, (list, tuple)) and not x:
            raise ValueError("x: expected at least one sample, given none")
        label_padding = None if self.loss is None else self.loss.label_padding
        if not is_ragged(x):
            return Samples(x, y, sample_weight, mask, lengths, label_padding)
        for name, value in (("mask", mask), ("lengths", lengths)):
            if value is not None:
                raise ValueError(
                    f"{name}: expected None with a list of sequences, which are padded and masked "
                    "by their own lengths, given one"
                )
        return Sequences(x, y, sample_weight, side_of=self._side, label_padding=label_padding)

    def _labelled(self, x: Any, y: Any, sample_weight: Any = None, **columns: Any) -> Samples:
        """Return what gives the batches of at least one sample, with targets."""
        if y is None:
            raise ValueError("y: expected a target for each sample, given None")
        source = self._source(x, y, sample_weight, **columns)
        if source.count == 0:
            raise ValueError("x: expected at least one sample, given none")
        return source

    def _side(self, shape: tuple[int, ...]) -> str | None:
        """Return where outputs have the padding that inputs have at their end, None for nowhere."""
        mask: Any = np.array([[True, False]])
        x = np.full((1, 2, *shape[2:]), np.nan)  # which no layer takes for padding
        for layer in self.layers:
            mask = layer.output_mask(x, mask)
        if mask is None:
            return None
        return "post" if mask[0, 0].any() else "pre"

    def _data(
        self,
        x: Any,
        y: Any,
        columns: dict[str, Any],
        accept: Callable[[Batch], None],
        steps: Any,
        steps_name: str = "steps",
        **options: Any,
    ) -> Any:
        """Return what gives the batches of x and y, with other columns; targets are optional."""
        targets = options.get("targets", True)
        source = self._labelled if targets else self._source
        if not is_iterable(x, y, lists=targets):
            if steps is not None:
                raise ValueError(f"{steps_name}: expected None where x is data, given {steps!r}")
            return source(x, y, **columns)
        for name, value in columns.items():
            if value is not None:
                raise ValueError(f"{name}: expected None where x gives batches, given one")
        return Batches(x, source, accept, steps=steps, steps_name=steps_name, **options)

    def _validation(self, given: Any, steps: Any, passes: int, padded: bool) -> Any:
        """Return what gives the batches of validation data.

        `padded` is whether a mask, or lengths, came with what is trained on.
        """
        pairs = isinstance(given, list) and all(isinstance(item, tuple) for item in given)
        x, y, columns = given, None, dict.fromkeys(COLUMNS)
        if isinstance(given, dict):
            if not {"x"} <= given.keys() <= {"x", "y", *COLUMNS}:
                raise TypeError(
                    f"expected a dict with x, y and some of {', '.join(COLUMNS)}, "
                    f"given {', '.join(map(repr, given))}"
                )
            x, y = given["x"], given.get("y")
            columns = {name: given.get(name) for name in COLUMNS}
        elif isinstance(given, (tuple, list)) and not pairs:
            if len(given) not in (2, 3):
                raise TypeError("expected a tuple (x, y) or (x, y, sample_weight)")
            x, y, columns["sample_weight"] = (*given, None)[:3]
            if padded and not is_ragged(x):
                # Nobody could tell its padding from its steps.
                raise ValueError(
                    "expected a dict with x, y and its own lengths or mask, as what is trained on "
                    "has them, given a tuple"
                )
        elif not is_iterable(given):
            raise TypeError(
                "expected a tuple (x, y) or (x, y, sample_weight), a dict of these, or an iterable "
                f"of such batches, given {type(given).__name__}"
            )
        return self._data(x, y, columns, self._fits, steps, "validation_steps", passes=passes)

    def _fits(self, batch: Batch) -> None:
        """Check a batch, and build for it."""
        shapes = self._check(batch)
        for layer, shape in zip(self.layers, shapes, strict=False):
            layer.build(shape)

    def _trains(self, batch: Batch, *options: Any) -> None:
        """Check a batch, with options of `_check`, and make ready to train on it."""
        self._check(batch, *options)
        self._ready(batch.x.shape)

    def _ready(self, shape: Shape) -> None:
        """Build for an x that was checked; raise if the optimizer cannot update the weights."""
        self.build(shape)
        self.optimizer.check(self._weights()[0])

    # ---- training

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: Any = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        callbacks: Any = None,
        initial_epoch: int = 0,
        verbose: Any = "auto",
        *,
        weight_noise: float = 0.0,
        mask: Any = None,
        lengths: Any = None,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
    ) -> History:
        """Train.

        Parameters
        ----------
        x, y : arrays, or lists of sequences
            Inputs and targets, one row each per sample. Arrays may be larger than memory
            (`numpy.memmap`, or data sets of h5py or zarr): only the rows of a batch are read.
            Sequences of different lengths, ids (T_i,) or features (T_i, I), are padded in batches
            of about the same length, and masked; y has a label for each, or, if outputs have steps,
            a target for each step (T_i,) or (T_i, K).

            Without y, x gives batches (x, y) or (x, y, sample_weight): a generator, any iterable, a
            function that returns one, or what has a length and an index, like Keras' PyDataset.
        batch_size, epochs : int
            Samples per step; passes over the data. Batches from an iterable have their own sizes.
        validation_data : tuple (x, y) or (x, y, sample_weight), dict, or iterable, optional
            What to evaluate after each epoch. A dict holds arguments of `evaluate`: x, y and some
            of `sample_weight`, `mask` and `lengths`; an iterable gives batches, as x may.
        validation_split : float
            Share of the samples, taken from the end, to evaluate instead of training on them.
        shuffle : bool
            Whether to draw a new order for each epoch. Sequences are sorted by length among many
            batches either way.
        class_weight : dict, optional
            Class -> weight of its samples in the loss, not in that of the validation. It needs one
            label for each sample; labels for each step raise: use `sample_weight`.
        sample_weight : array (B,) or (B, T), optional
            Weight of each sample, or of each step, in the loss; with sequences, a list will do.
        callbacks : list of Callback, optional
            What else is to be done while training; see `fastgru.callbacks`.
        initial_epoch : int
            Number of the first epoch, when training goes on.
        verbose : "auto", 0, 1 or 2
            0 silent, 1 a progress bar, 2 one line per epoch; "auto" is 1 in a terminal or a
            notebook, else 2.
        weight_noise : float
            Standard deviation of the Gaussian noise that is added to all trainable weights, biases
            too, while a batch goes forward and backward, drawn anew for each batch. It is taken out
            again, bit for bit, before the update, and there is none in validation. It regularises:
            Graves 2011, "Practical variational inference for neural networks".
        mask : array of bool (B, T), optional
            False where a step of an x that is padded already is to be skipped.
        lengths : array of int (B,), optional
            How many steps of each row of such an x count, in any order; 0 is allowed.
        steps_per_epoch, validation_steps : int, optional
            How many batches of an iterable make an epoch, or a validation; by default all. The next
            epoch goes on where the last one has ended.

        Returns
        -------
        History
            Loss and metrics of each epoch: means over all positions that are not masked. It is
            `history` of the model, too, also after Ctrl-C.

        Raises
        ------
        ValueError, TypeError
            If something does not fit, be it the last label; nothing has changed then. (Batches of
            an iterable are checked when they come.)
        NonFiniteError
            If the loss, a gradient or an updated weight is NaN or infinite; the message names epoch
            and batch, and says whether that batch has changed weights.

        Notes
        -----
        Ctrl-C leaves a model that can be used and trained on, and what it has measured in
        ``model.history``; callbacks are told that training has ended.
        """
        self._compiled()
        batch_size, epochs = positive_int("batch_size", batch_size), positive_int("epochs", epochs)
        initial_epoch = non_negative_int("initial_epoch", initial_epoch)
        share = fraction("validation_split", validation_split)
        checked(verbose)
        callbacks = checked_callbacks(callbacks)
        weight_noise = non_negative("weight_noise", weight_noise)
        shuffle = boolean("shuffle", shuffle)
        class_weight = checked_classes(class_weight)
        passes = epochs - initial_epoch
        columns = {"sample_weight": sample_weight, "mask": mask, "lengths": lengths}
        known: Known = {}
        data = self._data(
            x, y, columns, lambda batch: self._trains(batch, known, class_weight),
            steps_per_epoch, "steps_per_epoch", passes=passes, goes_on=True,
        )  # fmt: skip
        held = None
        if share and validation_data is None:
            if data.count is None:
                raise ValueError(
                    "validation_split: expected 0 where x gives batches, given a share"
                )
            data, held = data.split(share)
        data.class_weight = class_weight
        self._check_all(data, known, class_weight)
        if validation_data is not None:
            with named("validation_data"):
                padded = mask is not None or lengths is not None
                held = self._validation(validation_data, validation_steps, passes, padded)
                self._check_all(held, known)
        elif held is not None:
            self._check_all(held, known)
        self._check_rows(batch_size, data, held)
        options = epochs, initial_epoch, verbose, callbacks, weight_noise
        return self._fit(data, held, batch_size, shuffle, *options)

    def fit_stream(
        self,
        x: Any,
        y: Any,
        steps: int = 100,
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: Any = None,
        callbacks: Any = None,
        initial_epoch: int = 0,
        verbose: Any = "auto",
        *,
        weight_noise: float = 0.0,
    ) -> History:
        """Train on long sequences: truncated backpropagation through time.

        All streams are read side by side, `steps` at a time, from their beginning. The states of
        the recurrent layers go on from one chunk to the next; gradients do not.

        Parameters
        ----------
        x, y : arrays (L, ...), arrays (N, L, ...), or lists of arrays (L_i, ...)
            One long sequence of ids or of features (L, I), with a target for each step, which is
            cut into `batch_size` streams; or several, each of which is a stream. They may be larger
            than memory: only the steps of a chunk are read.
        steps : int
            How many steps gradients go back at most.
        batch_size : int
            How many streams one long sequence is cut into.
        epochs : int
            Passes over the data; states begin with zeros in each.
        validation_data : tuple (x, y), optional
            What to `evaluate_stream` after each epoch.
        callbacks, initial_epoch, verbose, weight_noise
            As in `fit`.

        Returns
        -------
        History
            As of `fit`.

        Raises
        ------
        ValueError, TypeError
            If something does not fit, or a layer reads backwards; nothing has changed then.
        NonFiniteError
            As in `fit`.
        """
        self._compiled()
        epochs = positive_int("epochs", epochs)
        initial_epoch = non_negative_int("initial_epoch", initial_epoch)
        checked(verbose)
        callbacks = checked_callbacks(callbacks)
        weight_noise = non_negative("weight_noise", weight_noise)
        data = self._streams(x, y, steps, batch_size)
        known: Known = {}
        self._check_all(data, known)
        held = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError("validation_data: expected a tuple (x, y)")
            with named("validation_data"):
                held = self._streams(validation_data[0], validation_data[1], steps, 1)
                self._check_all(held, known)
        options = epochs, initial_epoch, verbose, callbacks, weight_noise
        return self._fit(data, held, 1, False, *options)

    def _streams(self, x: Any, y: Any, steps: Any, batch_size: Any) -> Streams:
        for layer in self.layers:
            if isinstance(layer, Bidirectional) or getattr(layer, "go_backwards", False):
                raise ValueError(
                    f"{layer.name}: expected layers that read forwards, since the end of a stream "
                    "is not known yet"
                )
        return Streams(x, y, steps, batch_size, 2 if isinstance(self.layers[0], Embedding) else 3)

    def _check_all(self, data: Any, *options: Any) -> None:
        for piece in data.pieces():
            self._check(piece, *options)

    def _check_rows(self, batch_size: int, *sources: Any) -> None:
        """Raise unless all batches have as many rows, where states go on from each to the next."""
        stateful = [layer.name for layer in self.layers if getattr(layer, "stateful", False)]
        counts = [data.count for data in sources if data is not None and data.count is not None]
        sizes = {min(batch_size, count) for count in counts}
        rest = any(count > batch_size and count % batch_size for count in counts)
        if stateful and (rest or len(sizes) > 1):
            raise ValueError(
                f"batch_size: expected one that makes batches of one size only of "
                f"{' and of '.join(map(str, counts))} samples, since the states of "
                f"{stateful[0]} go on from each to the next, given {batch_size}"
            )

    def _fit(
        self,
        data: Any,
        held: Any,
        batch_size: int,
        shuffle: bool,
        epochs: int,
        initial_epoch: int,
        verbose: Any,
        callbacks: list[Callback],
        weight_noise: float,
    ) -> History:
        """Train on data that were checked; evaluate what is held out."""
        if data.shape is not None:
            self._ready(data.shape)
        steps = getattr(data, "steps", None)
        settings = {"batch_size": batch_size, "shuffle": shuffle, "steps": steps}
        sources = {"x, y, sample_weight": data, "validation_data": held}
        with Run(
            self, callbacks, verbose, initial_epoch, epochs, weight_noise, settings, sources
        ) as run:
            for _ in run:
                batches = data.batches(batch_size, run.random if shuffle else None)
                measured = self._epoch(batches, data.count, run)
                if held is not None:
                    values = self._evaluate(held, batch_size)
                    measured.update({f"val_{name}": value for name, value in values.items()})
                run.epoch_end(measured)
            if self.optimizer.use_ema:
                self.optimizer.finalize(self._weights()[0])
                self._changed()
        return run.history

    def _changed(self) -> None:
        for layer in self.layers:
            layer.changed()

    def _epoch(self, batches: Iterator[Batch], size: int | None, run: Run) -> dict[str, float]:
        """Train on all batches; return mean loss and metrics."""
        run.epoch_begin(size)
        step = None
        for number, batch in enumerate(batches):
            if self.stop_training:
                break
            if number < run.batch:
                continue  # it was trained on before this run went on from a backup
            if step is None:  # the first batch may have built the layers
                step = self._step(run.noise)
            run.batch_begin()
            try:
                value, count = step(batch, run.states)
            except NonFiniteError as error:
                raise error.at(f"in epoch {run.epoch + 1}, batch {number + 1}") from error
            run.batch_end(value, count, len(batch.x))
        return run.results()

    def _step(self, noise: WeightNoise | None = None) -> Step:
        """Return what trains on a batch: that of the last time, if it still would be the same."""
        if self._last_step is None or not self._last_step.is_valid(noise):
            self._last_step = Step(self, noise)
        return self._last_step

    def _reset(self) -> None:
        for metric in self.metrics:
            metric.reset()

    def _results(self, total: float, count: int) -> dict[str, float]:
        """Return the mean loss of so many positions, and the metrics."""
        loss = total / count if count else 0.0
        results = {"loss": loss}
        for metric in self.metrics:
            results[_free(metric.name, results)] = float(metric.result())
        return results

    def train_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, *, mask: Any = None, lengths: Any = None
    ) -> Any:
        """Train on a batch x, y; return the loss, or [loss, metrics...].

        Parameters are those of `fit`: x, y, `sample_weight`, `mask`, `lengths`.
        """
        self._compiled()
        batch = self._labelled(x, y, sample_weight, mask=mask, lengths=lengths).batch()
        self._fits(batch)
        step = self._step()  # which raises if the optimizer cannot update the weights
        self._reset()
        try:
            value, _ = step(batch)
        except NonFiniteError as error:
            raise error.at("on this batch") from error
        return _listed(self._results(value, 1))

    # ---- use

    def _evaluate(self, data: Any, batch_size: int, verbose: Any = 0) -> dict[str, float]:
        self._reset()
        total, seen = 0.0, 0
        states: States | None = {} if data.carries else None
        fused = self._fused
        for batch in watched(data.batches(batch_size), data.count, verbose):
            output, mask, _ = self._infer(batch.x, batch.mask, states, fused)
            count = self.loss.count(batch.y, output.shape, mask)
            total += self._scored(batch, output, mask, fused)[0] * count
            seen += count
        total += seen * sum(layer.penalty() for layer in self._different)
        return self._results(total, seen)

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        sample_weight: Any = None,
        return_dict: bool = False,
        verbose: Any = 0,
        *,
        mask: Any = None,
        lengths: Any = None,
        steps: int | None = None,
    ) -> Any:
        """Return the loss on data, or [loss, metrics...], or a dict of them.

        Parameters
        ----------
        x, y : arrays, or lists of sequences
            Inputs and targets, one row each per sample; or an x that gives batches: see `fit`.
        batch_size : int
            Samples per step.
        sample_weight : array (B,) or (B, T), optional
            Weight of each sample, or of each step, in the loss.
        return_dict : bool
            Whether to return a dict, name -> value.
        verbose : 0 or 1
            Whether to show a progress bar.
        mask, lengths : array, optional
            Which steps of an x that is padded already count: see `fit`.
        steps : int, optional
            How many batches of an iterable to take.
        """
        self._compiled()
        batch_size = positive_int("batch_size", batch_size)
        columns = {"sample_weight": sample_weight, "mask": mask, "lengths": lengths}
        data = self._data(x, y, columns, self._fits, steps)
        self._check_rows(batch_size, data)
        return self._evaluated(data, batch_size, return_dict, verbose)

    def evaluate_stream(
        self,
        x: Any,
        y: Any,
        steps: int = 100,
        batch_size: int = 1,
        return_dict: bool = False,
        verbose: Any = 0,
    ) -> Any:
        """Return the mean loss of all steps of long sequences; see `evaluate` and `fit_stream`.

        Parameters
        ----------
        x, y : arrays or lists
            As in `fit_stream`.
        steps : int
            How many steps to compute at a time; the states go on, so it changes no result.
        batch_size : int
            How many streams one long sequence is cut into. Of one, the state goes on over the whole
            sequence; with more, which is faster, it begins with zeros as many times.
        return_dict, verbose
            As in `evaluate`.
        """
        self._compiled()
        return self._evaluated(self._streams(x, y, steps, batch_size), 1, return_dict, verbose)

    def _evaluated(self, data: Any, batch_size: int, return_dict: bool, verbose: Any) -> Any:
        return_dict = boolean("return_dict", return_dict)
        self._check_all(data)
        if data.shape is not None:
            self.build(data.shape)
        results = self._evaluate(data, batch_size, verbose)
        return results if return_dict else _listed(results)

    def predict(
        self,
        x: Any,
        batch_size: int = 32,
        return_states: bool = False,
        verbose: Any = 0,
        *,
        mask: Any = None,
        lengths: Any = None,
        steps: int | None = None,
    ) -> Any:
        """Compute the output for inputs; the batch size does not change a bit of it.

        Parameters
        ----------
        x : array, or list of sequences
            Inputs, one row per sample; or batches of them: see `fit`.
        batch_size : int
            Samples per step.
        return_states : bool
            Whether to return ``(output, states)``, with the last states of all layers that have
            `return_state`, the first layer's first.
        verbose : 0 or 1
            Whether to show a progress bar.
        mask, lengths : array, optional
            Which steps of an x that is padded already count: see `fit`.
        steps : int, optional
            How many batches of an iterable to take.

        Returns
        -------
        array (N, ...), or list of arrays (T_i, K)
            The outputs in the order of the samples; a list where x was one of sequences of
            different lengths and the outputs have steps.
        """
        self._checked()
        batch_size = positive_int("batch_size", batch_size)
        return_states = boolean("return_states", return_states)

        def accept(batch: Batch) -> None:
            self.build(batch.x.shape)

        columns = {"mask": mask, "lengths": lengths}
        data = self._data(x, None, columns, accept, steps, targets=False)
        self._check_rows(batch_size, data)
        if data.shape is not None:
            self.build(data.shape)
        results, places = [], []
        for batch in watched(data.batches(batch_size), data.count, verbose):
            output, _, states = self._infer(batch.x, batch.mask)
            results.append([output, *states])
            places.append(batch.place)
        output, *states = (joined(parts, places) for parts in zip(*results, strict=True))
        return (output, states) if return_states else output

    def predict_on_batch(self, x: Any, *, mask: Any = None, lengths: Any = None) -> Any:
        """Compute the output for one batch x, of which `mask` or `lengths` count, as `predict`."""
        self._checked()
        source = self._source(x, mask=mask, lengths=lengths)
        self.build(source.shape)
        batch = source.batch()
        return joined([self._infer(batch.x, batch.mask)[0]], [batch.place])

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averages of the weights inside a ``with`` block, and then the weights again.

        They are what an optimizer with ``use_ema=True`` keeps; without, or before the first update,
        the weights are used. The block is for `evaluate`, `predict` and `save`, without the
        optimizer, and not for training.

        Examples
        --------
        >>> import numpy as np
        >>> import fastgru as fg
        >>> model = fg.Sequential([fg.Dense(1)])
        >>> model.compile(fg.optimizers.Adam(use_ema=True), "mse")
        >>> loss = model.train_on_batch(np.ones((2, 3)), np.ones(2))
        >>> with model.averaged():
        ...     y = model.predict(np.ones((2, 3)))
        """
        self._compiled()
        self.optimizer.swap(self._weights()[0])
        self._changed()
        try:
            yield
        finally:
            self.optimizer.swap(self._weights()[0])
            self._changed()

    def stream(self, batch_size: int = 1) -> Chain:
        """Return a function that computes one time step of all layers; see `Layer.stream`.

        A step's output is that of the sequence of all inputs so far.

        Parameters
        ----------
        batch_size : int
            Number of streams side by side.

        Raises
        ------
        TypeError
            If a layer cannot work step by step.
        ValueError
            If the model is not built.
        """
        self._checked()
        return Chain([layer.stream(batch_size) for layer in self.layers])

    # ---- weights, summary, files

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of all weights, layer by layer, in Keras' order and layout.

        Those of a layer at several places come once, as in Keras.
        """
        return [weight for layer in self._different for weight in layer.get_weights()]

    def set_weights(self, weights: list[Any]) -> None:
        """Set all weights from what `get_weights` returned.

        Raises
        ------
        ValueError, TypeError
            If the number or a shape of the arrays does not fit; then no weight has changed.
        """
        rest = list_of_arrays("weights", weights)
        before = [layer.get_weights() for layer in self._different]
        if len(rest) != sum(map(len, before)):
            raise ValueError(f"weights: expected {sum(map(len, before))} arrays, given {len(rest)}")
        try:
            for layer, own in zip(self._different, before, strict=True):
                layer.set_weights(rest[: len(own)])
                rest = rest[len(own) :]
        except (ValueError, TypeError):
            for layer, own in zip(self._different, before, strict=True):
                layer.set_weights(own)
            raise

    def count_params(self) -> int:
        """Return the number of weights."""
        return sum(layer.count_params() for layer in self._different)

    def reset_states(self) -> None:
        """Let all `stateful` layers begin new sequences with their next batch."""
        for layer in self.layers:
            layer.reset_states()

    def summary(self, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print the layers, the shapes of their outputs, and their numbers of weights.

        Parameters
        ----------
        print_fn : callable, optional
            What to call with each line, instead of printing it.
        """
        for line in lines_of(self):
            if print_fn is None:
                print(plain(line, sys.stdout.encoding))
            else:
                print_fn(line)

    def save(self, path: str | os.PathLike[str], include_optimizer: bool = True) -> None:
        """Write the model to one ``.safetensors`` file, as a whole or not at all.

        Parameters
        ----------
        path : str or os.PathLike
            The file to write or to replace. Its folder must exist.
        include_optimizer : bool
            Whether to write the optimizer's state, too, so that training can go on as if it had
            never stopped: Adam's is twice the size of the weights. (What is drawn at random, the
            order of the samples and dropout, is drawn anew.)

        Raises
        ------
        ValueError
            If the model is not built yet, so that it has no weights to save, or holds an instance
            of a class that `load_model` does not know; no file has been touched then.
        """
        self._checked()
        if not all(layer.built for layer in self.layers):
            raise ValueError(f"{self.name}: expected a built model; call fit, predict or build")
        different = self._different
        described, arrays = describe(different)
        config: dict[str, Any] = {
            "class": "Sequential",
            "name": self.name,
            "layers": described,
        }
        if len(different) < len(self.layers):
            config["order"] = [different.index(layer) for layer in self.layers]
        if self.loss is not None:
            config["compile"] = {
                "optimizer": config_of("optimizer", self.optimizer, optimizers.OPTIMIZERS.values()),
                "loss": config_of("loss", self.loss, losses.LOSSES.values()),
                "metrics": [config_of("metrics", m, METRICS.values()) for m in self.metrics],
            }
            if include_optimizer:
                state = self.optimizer.get_state()
                slots = {name: v for name, v in state.items() if isinstance(v, np.ndarray)}
                arrays |= {f"optimizer.{name}": slot for name, slot in slots.items()}
                config["optimizer_state"] = {n: v for n, v in state.items() if n not in slots}
        saving.save(path, config, arrays)


def load_model(path: str | os.PathLike[str]) -> Sequential:
    """Read a model that `Sequential.save` wrote, compiled as it was.

    With the optimizer's state in the file, `fit` goes on as if it had never stopped.

    Raises
    ------
    FileFormatError
        If the file is damaged, or does not hold a model. Nothing in a file is ever executed.
    FileNotFoundError
        If there is no file at that `path`.
    """
    config, arrays = saving.load(path)
    with reading(path, "a model"):
        return _from_file(config, arrays)


def _from_file(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Sequential:
    if config["class"] != "Sequential":
        raise ValueError(f"class: expected 'Sequential', given {config['class']!r}")
    layers = restore(config["layers"], arrays)
    order = config.get("order", range(len(layers)))
    if set(order) != set(range(len(layers))):
        raise ValueError(f"order: expected all of {len(layers)} layers, given {order!r:.40}")
    layers = [layers[i] for i in order]
    model = Sequential(layers, name=config["name"])
    if "compile" in config:
        model.compile(**config["compile"])
    if "optimizer_state" in config:
        slots = [name for name in arrays if name.startswith("optimizer.")]
        state = {name.removeprefix("optimizer."): arrays.pop(name) for name in slots}
        model.optimizer.set_state({**config["optimizer_state"], **state})
        model.optimizer.check(model._weights()[0])
    if arrays:
        raise ValueError(f"arrays that belong to no layer: {sorted(arrays)}")
    return model


def _listed(results: dict[str, float]) -> Any:
    values = list(results.values())
    return values if len(values) > 1 else values[0]
