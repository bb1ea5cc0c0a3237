"""A stack of layers: compile, fit, evaluate, predict, summary, save."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastgru import losses, optimizers, saving
from fastgru.errors import FileFormatError, NonFiniteError
from fastgru.layers import Backward, Dense, Embedding, Layer, Shape
from fastgru.masking import Masking
from fastgru.metrics import CLASSES as METRICS
from fastgru.metrics import get as get_metric
from fastgru.progress import checked, progress, watched
from fastgru.random import generator
from fastgru.streaming import Chain
from fastgru.validation import (
    array_of,
    fraction,
    name_or,
    non_negative,
    non_negative_int,
    positive_int,
)
from fastgru.wrappers import INNER, TimeDistributed

LAYERS: dict[str, type[Layer]] = INNER | {c.__name__: c for c in (Masking, TimeDistributed)}

# Data are checked so many numbers at a time: they may be larger than memory, on a disk.
CHECKED_AT_ONCE = 2**20
# Metrics get so many probabilities at a time.
ACTIVATED_AT_ONCE = 2**22


class History:
    """What `fit` measured.

    Attributes
    ----------
    history : dict
        Name -> list with one number per epoch: ``loss``, the metrics, and both with ``val_``.
    epoch : list of int
        The epochs, counted from 0.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def add(self, epoch: int, measured: dict[str, float]) -> None:
        """Note what one epoch measured."""
        self.epoch.append(epoch)
        for name, value in measured.items():
            self.history.setdefault(name, []).append(value)


class Sequential:
    """A stack of layers, each taking the output of the one before.

    Parameters
    ----------
    layers : list of Layer, optional
        The layers, the first one first; more can be added with `add`.
    name : str, optional
        Name in summaries and files.

    Examples
    --------
    >>> import fastgru as fg
    >>> model = fg.Sequential([fg.GRU(8), fg.Dense(1, activation="sigmoid")])
    >>> model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    """

    def __init__(self, layers: list[Layer] | None = None, name: str | None = None) -> None:
        self.name = name_or(name, "sequential")
        self.layers: list[Layer] = []
        self.optimizer: Any = None
        self.loss: Any = None
        self.metrics: list[Any] = []
        if layers is not None and not isinstance(layers, (list, tuple)):
            raise TypeError(f"layers: expected a list of layers, given {layers!r}")
        for layer in layers or []:
            self.add(layer)

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
        base, n = layer.name, 0
        while layer.name in names:
            n += 1
            layer.name = f"{base}_{n}"
        self.layers.append(layer)
        first = self.layers[0]
        try:
            if first.built:
                self.build(first.input_shape or ())
            elif isinstance(first, Embedding):
                # Its input needs no size, so the layers above are built before any data is seen.
                self.build((None, first.input_length))
        except BaseException:
            self.layers.pop()
            layer.name = base
            raise

    def build(self, input_shape: Shape) -> None:
        """Allocate all weights, for an `input_shape` whose batch size does not matter.

        Raises
        ------
        ValueError
            If a layer cannot take what the one before gives, or was built for another input;
            nothing has been allocated then.
        """
        for layer, shape in zip(self.layers, self._shapes(input_shape), strict=False):
            layer.build(shape)

    def _shapes(self, input_shape: Shape) -> list[Shape]:
        """Return the shapes of the input of every layer and of the output, or raise."""
        shapes = [tuple(input_shape)]
        last_step_of = None  # the layer, if any, that has dropped the axis of steps
        known: dict[Layer, tuple[Any, Any]] = {}  # what each layer is, or will be, built for
        for layer in self.layers:
            given = (None, *shapes[-1][1:])
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
                raise ValueError(
                    f"{layer.name}: x: expected shape {built_for}, which the layer was "
                    f"built for, given {given}"
                )
            shapes.append(layer.output_shape(shapes[-1]))
            if getattr(layer, "return_sequences", True) is False:
                last_step_of = layer.name
        return shapes

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
            ``"perplexity"``, or some of `fastgru.metrics`.

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

    # ---- one pass

    @property
    def _fused(self) -> bool:
        """Whether the last activation is computed with the loss, from logits: exact and stable."""
        last = self.layers[-1]
        return isinstance(last, Dense) and last.activation == self.loss.fused_activation

    def _check(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Raise unless all samples fit the layers, the loss and the metrics; change nothing."""
        *_, shape = self._shapes(x.shape)
        dtype = self.layers[-1].dtype
        rows = max(1, CHECKED_AT_ONCE // max(1, x[0].size, y[0].size))
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            self.layers[0].check(x[part])
            # Only the first layer's mask depends on what x holds.
            mask = None
            for layer in self.layers:
                mask = layer.output_mask(x[part], mask)
            w = None if weight is None else weight[part]
            self.loss.check(y[part], (len(x[part]), *shape[1:]), dtype, w, mask)
        # Metrics ask for shapes only, and those of an empty batch are those of any.
        self._measure(y[:0], np.empty((0, *shape[1:]), dtype), None)

    def _forward(self, x: Any, fused: bool) -> tuple[Any, Any, list[Backward]]:
        """Return output (logits, if fused), its mask, and the ways back."""
        mask = None
        backwards = []
        for place, layer in enumerate(self.layers, 1):
            options = {"logits": True} if fused and place == len(self.layers) else {}
            y, backward = layer.forward(x, mask=mask, **options)
            mask = layer.output_mask(x, mask)
            # With return_state the sequence flows on, and the state stays behind.
            x = y[0] if isinstance(y, list) else y
            backwards.append(backward)
        return x, mask, backwards

    def _infer(self, x: Any) -> tuple[Any, Any, list[np.ndarray]]:
        """Return output, its mask, and the states of all layers with return_state."""
        mask = None
        states: list[np.ndarray] = []
        for layer in self.layers:
            y = layer(x, mask=mask)
            mask = layer.output_mask(x, mask)
            if isinstance(y, list):
                states += y[1:]
                y = y[0]
            x = y
        return x, mask, states

    @property
    def _different(self) -> list[Layer]:
        """The layers, each once: one may be at several places."""
        return list(dict.fromkeys(self.layers))

    def _weights(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return all params and all gradients."""
        pairs = [pair for layer in self._different for pair in layer.pairs()]
        return [p for p, _ in pairs], [g for _, g in pairs]

    def _train(self, x: Any, y: Any, weight: Any, where: str) -> float:
        """Train on one batch: return the loss, and update the metrics."""
        fused = self._fused
        output, mask, backwards = self._forward(x, fused)
        if self.metrics:  # before the loss overwrites the logits
            for part, some in self._activated(output) if fused else [(slice(None), output)]:
                self._measure(y[part], some, None if mask is None else mask[part])
        if fused:
            value, dy = self.loss.fused(y, output, sample_weight=weight, mask=mask, overwrite=True)
        else:
            value, dy = self.loss(y, output, sample_weight=weight, mask=mask)
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss is {value} {where}; no weight was changed by it")
        params, gradients = self._weights()
        for gradient in gradients:
            gradient.fill(0)
        # Below the first layer that is trained nobody asks for a gradient.
        trained = [layer.trainable and bool(layer.weights()) for layer in self.layers]
        first = trained.index(True) if any(trained) else len(backwards)
        for i, backward in reversed(list(enumerate(backwards))[first:]):
            dy = backward(dy, with_dx=i > first)
        value += sum(layer.penalty(with_gradients=True) for layer in self.layers)
        try:
            self.optimizer.apply(params, gradients)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} ({where})") from error
        finally:
            # Also after Ctrl-C, when some weights have moved and others have not.
            self._changed()
        return value

    def _activated(self, logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the output that belongs to logits, some rows at a time, and which rows they are.

        That of a large vocabulary would take as much memory as the logits.
        """
        rows = max(1, ACTIVATED_AT_ONCE // logits[0].size)
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            yield part, self.layers[-1].activated(logits[part])  # type: ignore[attr-defined]

    def _measure(self, y: Any, output: Any, mask: Any) -> None:
        # Sample weights belong to the loss; metrics count every sample, as in Keras.
        for metric in self.metrics:
            metric.update(y, output, mask=mask)

    # ---- training

    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: Any = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        verbose: Any = "auto",
    ) -> History:
        """Train.

        Parameters
        ----------
        x, y : arrays
            Inputs and targets, one row each per sample.
        batch_size, epochs : int
            Samples per step; passes over the data.
        validation_data : tuple (x, y) or (x, y, sample_weight), optional
            What to evaluate after each epoch.
        validation_split : float
            Share of the samples, taken from the end, to evaluate instead of training on them.
        shuffle : bool
            Whether to draw a new order for each epoch.
        class_weight : dict, optional
            Class -> weight of its samples in the loss, not in that of the validation.
        sample_weight : array (B,), optional
            Weight of each sample in the loss.
        initial_epoch : int
            Number of the first epoch, when training goes on.
        verbose : "auto", 0, 1 or 2
            0 silent, 1 a progress bar, 2 one line per epoch; "auto" is 1 in a terminal or a
            notebook, else 2.

        Returns
        -------
        History
            Loss and metrics of each epoch.

        Raises
        ------
        ValueError, TypeError
            If something does not fit, be it the last label; nothing has changed then.
        NonFiniteError
            If the loss, a gradient or an updated weight is NaN or infinite; the message names epoch
            and batch, and says whether that batch has changed weights.
        """
        self._compiled()
        batch_size, epochs = positive_int("batch_size", batch_size), positive_int("epochs", epochs)
        initial_epoch = non_negative_int("initial_epoch", initial_epoch)
        share = fraction("validation_split", validation_split)
        checked(verbose)
        x, y, weight = _samples(x, y, sample_weight)
        held: tuple[Any, Any, Any] | None = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
                raise TypeError("validation_data: expected a tuple (x, y) or (x, y, sample_weight)")
            with _named("validation_data"):
                held = _samples(*validation_data)
                self._check(*held)
        elif share:
            (x, y, weight), held = _split(x, y, weight, share)
            self._check(*held)
        weight = _class_weights(y, weight, class_weight)
        self._check(x, y, weight)
        self._ready(x)
        random = generator()
        history = History()
        with progress(verbose, epochs) as show:
            for epoch in range(initial_epoch, epochs):
                order = random.permutation(len(x)) if shuffle else np.arange(len(x))
                measured = self._epoch(x, y, weight, order, batch_size, epoch, show)
                if held is not None:
                    values = self._evaluate(*held, batch_size=batch_size)
                    measured.update({f"val_{name}": value for name, value in values.items()})
                history.add(epoch, measured)
                show.end(measured)
        if self.optimizer.use_ema:
            self.optimizer.finalize(self._weights()[0])
            self._changed()
        return history

    def _changed(self) -> None:
        for layer in self.layers:
            layer.changed()

    def _ready(self, x: np.ndarray) -> None:
        """Build for an x that was checked; raise if the optimizer cannot update the weights."""
        self.build(x.shape)
        self.optimizer.check(self._weights()[0])

    def _epoch(
        self, x: Any, y: Any, weight: Any, order: np.ndarray, batch_size: int, epoch: int, show: Any
    ) -> dict[str, float]:
        """Train on all batches of one order; return mean loss and metrics."""
        self._reset()
        total = 0.0
        seen = 0
        show.begin(epoch, len(order))
        for number, rows in enumerate(_batches(order, batch_size)):
            where = f"in epoch {epoch + 1}, batch {number + 1}"
            w = None if weight is None else weight[rows]
            value = self._train(x[rows], y[rows], w, where)
            total += value * len(rows)
            seen += len(rows)
            show.advance(len(rows), lambda: self._results(total / seen))  # noqa: B023
        return self._results(total / seen)

    def _reset(self) -> None:
        for metric in self.metrics:
            metric.reset()

    def _results(self, loss: float) -> dict[str, float]:
        return {"loss": loss, **{metric.name: float(metric.result()) for metric in self.metrics}}

    def train_on_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on a batch x, y, with `sample_weight`; return the loss, or [loss, metrics...]."""
        self._compiled()
        x, y, weight = _samples(x, y, sample_weight)
        self._check(x, y, weight)
        self._ready(x)
        self._reset()
        results = self._results(self._train(x, y, weight, "on this batch"))
        return _listed(results)

    # ---- use

    def _evaluate(
        self, x: Any, y: Any, weight: Any, batch_size: int, verbose: Any = 0
    ) -> dict[str, float]:
        self._reset()
        total = 0.0
        for rows in watched(_batches(np.arange(len(x)), batch_size), verbose):
            output, mask, _ = self._infer(x[rows])
            w = None if weight is None else weight[rows]
            value, _ = self.loss(y[rows], output, sample_weight=w, mask=mask)
            total += value * len(rows)
            self._measure(y[rows], output, mask)
        return self._results(total / len(x) + sum(layer.penalty() for layer in self.layers))

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        sample_weight: Any = None,
        return_dict: bool = False,
        verbose: Any = 0,
    ) -> Any:
        """Return the loss on data, or [loss, metrics...], or a dict of them.

        Parameters
        ----------
        x, y : arrays
            Inputs and targets, one row each per sample.
        batch_size : int
            Samples per step.
        sample_weight : array (B,), optional
            Weight of each sample in the loss.
        return_dict : bool
            Whether to return a dict, name -> value.
        verbose : 0 or 1
            Whether to show a progress bar.
        """
        self._compiled()
        batch_size = positive_int("batch_size", batch_size)
        x, y, weight = _samples(x, y, sample_weight)
        self._check(x, y, weight)
        self.build(x.shape)
        results = self._evaluate(x, y, weight, batch_size, verbose)
        return results if return_dict else _listed(results)

    def predict(
        self, x: Any, batch_size: int = 32, return_states: bool = False, verbose: Any = 0
    ) -> Any:
        """Compute the output for inputs; the batch size does not change a bit of it.

        Parameters
        ----------
        x : array
            Inputs, one row per sample.
        batch_size : int
            Samples per step.
        return_states : bool
            Whether to return ``(output, states)``, with the last states of all layers that have
            `return_state`, the first layer's first.
        verbose : 0 or 1
            Whether to show a progress bar.
        """
        self._checked()
        batch_size = positive_int("batch_size", batch_size)
        x = _array("x", x)
        self.build(x.shape)
        results = []
        batches = _batches(np.arange(len(x)), batch_size) if len(x) else [np.arange(0)]
        for rows in watched(batches, verbose):
            output, _, states = self._infer(x[rows])
            results.append([output, *states])
        output, *states = (np.concatenate(parts) for parts in zip(*results, strict=True))
        return (output, states) if return_states else output

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Compute the output for one batch x."""
        self._checked()
        x = _array("x", x)
        self.build(x.shape)
        return self._infer(x)[0]

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
        ValueError
            If the number or a shape of the arrays does not fit; then no weight has changed.
        """
        before = [layer.get_weights() for layer in self._different]
        if len(weights) != sum(map(len, before)):
            raise ValueError(
                f"weights: expected {sum(map(len, before))} arrays, given {len(weights)}"
            )
        rest = list(weights)
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

    def summary(self) -> None:
        """Print the layers, the shapes of their outputs and their numbers of weights."""
        rows = [("Layer (type)", "Output shape", "Param #")]
        shape = self.layers[0].input_shape if self.layers else None
        for place, layer in enumerate(self.layers):
            shape = None if shape is None else layer.output_shape(shape)
            count = f"{layer.count_params():,}" if layer.built else "? (not built)"
            if layer in self.layers[:place]:
                count = "0 (shared)"
            rows.append((f"{layer.name} ({type(layer).__name__})", str(shape or "?"), count))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print(f'Model: "{self.name}"')
        for i, row in enumerate(rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
            if i == 0:
                print("  ".join("-" * width for width in widths))
        trained = sum(layer.count_params() for layer in self.layers if layer.trainable)
        print(f"Total params: {self.count_params():,}")
        print(f"Trainable params: {trained:,}")
        print(f"Non-trainable params: {self.count_params() - trained:,}")

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
        config: dict[str, Any] = {
            "class": "Sequential",
            "name": self.name,
            "layers": [
                {
                    "class": type(layer).__name__,
                    "config": _config("layers", layer, LAYERS.values()),
                    "input_shape": list(layer.input_shape or ()),
                }
                for layer in different
            ],
        }
        if len(different) < len(self.layers):
            config["order"] = [different.index(layer) for layer in self.layers]
        arrays = {
            f"{layer.name}.{name}": array
            for layer in different
            for name, array in layer.weights().items()
        }
        if self.loss is not None:
            config["compile"] = {
                "optimizer": _config("optimizer", self.optimizer, optimizers.OPTIMIZERS.values()),
                "loss": _config("loss", self.loss, losses.LOSSES.values()),
                "metrics": [_config("metrics", m, METRICS.values()) for m in self.metrics],
            }
            if include_optimizer:
                state = self.optimizer.get_state()
                slots = {name: v for name, v in state.items() if isinstance(v, np.ndarray)}
                arrays |= {f"optimizer.{name}": slot for name, slot in slots.items()}
                config["optimizer_state"] = {n: v for n, v in state.items() if n not in slots}
        saving.save(path, config, arrays)


def _config(what: str, instance: Any, known: Iterable[type]) -> dict[str, Any]:
    """Return the config of an instance that `load_model` will be able to make again, or raise."""
    if type(instance) not in known:
        raise ValueError(
            f"{what}: expected instances of fastgru's own classes, which load_model knows, given "
            f"one of {type(instance).__name__!r}"
        )
    return instance.get_config()


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
    try:
        return _from_file(config, arrays)
    except (
        ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        reason = f"{type(error).__name__}: {error!s:.200}"
        raise FileFormatError(f"{os.fspath(path)}: does not describe a model: {reason}") from error


def _from_file(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Sequential:
    if config["class"] != "Sequential":
        raise ValueError(f"class: expected 'Sequential', given {config['class']!r}")
    arrays = dict(arrays)
    layers = []
    for described in config["layers"]:
        layer = LAYERS[described["class"]].from_config(described["config"])
        shape = tuple(described["input_shape"])
        weights = {}
        # All sizes are compared before anything is allocated for them.
        for name, expected in layer.weight_shapes(shape).items():
            weights[name] = arrays.pop(f"{layer.name}.{name}")
            if weights[name].shape != expected or weights[name].dtype != layer.dtype:
                raise ValueError(
                    f"{layer.name}.{name}: expected {layer.dtype} {expected}, "
                    f"given {weights[name].dtype} {weights[name].shape}"
                )
        layer.build(shape, weights)
        layers.append(layer)
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


# ---- data in batches


def _listed(results: dict[str, float]) -> Any:
    values = list(results.values())
    return values if len(values) > 1 else values[0]


def _array(name: str, value: Any) -> np.ndarray:
    """Return an array whose first axis is the batch, of a dtype that layers will check."""
    array = array_of(name, value)
    if array.ndim == 0:
        raise ValueError(f"{name}: expected an array of samples, given one number")
    return array


@contextlib.contextmanager
def _named(argument: str) -> Iterator[None]:
    """Begin the errors inside with the argument that holds what they name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from error


def _samples(x: Any, y: Any, weight: Any = None) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return inputs, targets and weights as arrays of the same, positive, length."""
    x, y = _array("x", x), _array("y", y)
    if len(x) == 0:
        raise ValueError("x: expected at least one sample, given none")
    if len(y) != len(x):
        raise ValueError(f"y: expected {len(x)} samples, as many as x, given {len(y)}")
    if weight is not None:
        weight = _array("sample_weight", weight)
        if weight.shape != (len(x),):
            raise ValueError(f"sample_weight: expected shape ({len(x)},), given {weight.shape}")
        if not np.all(np.isfinite(weight)) or np.any(weight < 0):
            raise ValueError("sample_weight: expected finite numbers >= 0")
    return x, y, weight


def _class_weights(y: np.ndarray, weight: np.ndarray | None, classes: Any) -> np.ndarray | None:
    """Return the samples' weights times those of their classes."""
    if classes is None:
        return weight
    if not isinstance(classes, dict):
        raise TypeError(f"class_weight: expected a dict class -> weight, given {classes!r}")
    if y.ndim > 2:
        raise ValueError(f"class_weight: expected one label per sample, given y of {y.shape}")
    if y.ndim == 1 or y.shape[1] == 1:
        labels = y.reshape(len(y))
    elif np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1):
        labels = y.argmax(axis=1)
    else:
        raise ValueError(f"class_weight: expected one-hot rows or one label each, given {y.shape}")
    factors = np.ones(len(y))
    for label, value in classes.items():
        factors[labels == label] = non_negative(f"class_weight[{label!r}]", value)
    return factors if weight is None else factors * weight


def _split(x: Any, y: Any, weight: Any, share: float) -> tuple[Any, Any]:
    """Return the samples to train on, and a share of them, the last ones, for validation."""
    kept = int(len(x) * (1 - share))
    if not 0 < kept < len(x):
        raise ValueError(f"validation_split: {share} of {len(x)} samples leaves one part empty")
    parts = slice(0, kept), slice(kept, None)
    train, held = ((x[p], y[p], None if weight is None else weight[p]) for p in parts)
    return train, held


def _batches(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
