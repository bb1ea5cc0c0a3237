"""Losses: one number to make small, and its gradient.

``value, doutput = loss(target, output)`` works on outputs (B, ..., K); every row of K values, a
position, has a value of its own. As Keras' ``sum_over_batch_size`` does, the loss is

    value = sum over positions of weight * value / number of positions

where with a mask only the positions that are not masked are summed and counted. A position whose
weight is zero takes no part at all: its output and target may be NaN, its label out of range.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.data import pad_sequences
from fastgru.metrics import (
    as_output,
    check_classes,
    check_within,
    match_labels,
    match_target,
    position_weights,
    positions_of,
    spread,
    used_of,
)
from fastgru.validation import (
    boolean,
    fraction,
    integer,
    made,
    made_from,
    non_negative_int,
    numbers,
    positive,
    rows_of,
    step_mask,
)

EPSILON = 1e-7  # as Keras: the smallest probability of which a logarithm is taken


def _smoothed(target: np.ndarray, smoothing: float, choices: int) -> np.ndarray:
    """Move targets towards what each of some choices has where none is better."""
    return target * (1 - smoothing) + smoothing / choices if smoothing else target


def _shares(weights: np.ndarray | None, count: int) -> np.ndarray:
    """Return what the value of each of so many positions is multiplied with in the mean."""
    if weights is not None:
        return weights / max(count, 1)
    weights = np.empty(count)
    weights.fill(1 / max(count, 1))
    return weights


class Loss:
    """What every loss has.

    Parameters
    ----------
    from_logits : bool
        Whether outputs are scores before the softmax or sigmoid, and not probabilities.

    Attributes
    ----------
    name : str
        The loss's name, as `get` knows it.
    fused_activation : str or None
        The activation that the loss can do itself: where a model ends in it, `fused` on what goes
        into the activation gives the same value and the gradient with respect to that, in one
        step that neither overflows nor needs clipping. None if there is none, and with
        `from_logits`, where an activation of the model's is not the one that the loss means.
    label_padding : int or None
        What `fit` pads lists of targets with that have lengths of their own; None if the loss
        takes none, so that lists have a target for each step.
    """

    name: str
    label_padding: int | None = None
    _activation: str | None = None

    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = boolean("from_logits", from_logits)

    @property
    def fused_activation(self) -> str | None:
        """The activation that `fused` includes."""
        return None if self.from_logits else self._activation

    def __call__(
        self, target: Any, output: Any, sample_weight: Any = None, mask: Any = None
    ) -> tuple[float, np.ndarray]:
        """Return the loss of a batch and its gradient.

        Parameters
        ----------
        target : array
            What is right; its shape depends on the loss.
        output : array (B, ..., K)
            What the model says.
        sample_weight : array (B,) or (B, T) and so on, optional
            How much each sample or position counts; the mean is over the number of positions, not
            over the sum of the weights.
        mask : array of bool, shaped likewise, optional
            False where a position does not count.

        Returns
        -------
        value : float
        doutput : array
            Shape and dtype of the output.

        Raises
        ------
        ValueError
            If the target does not fit the output or the loss. It is called `y` there, as in `fit`.
        """
        return self._evaluate(target, output, sample_weight, mask, self.from_logits)

    def fused(
        self,
        target: Any,
        logits: Any,
        sample_weight: Any = None,
        mask: Any = None,
        overwrite: bool = False,
        checked: bool = False,
    ) -> tuple[float, np.ndarray]:
        """Return the loss of ``fused_activation(logits)`` and its gradient for the logits.

        Parameters are those of a call. With `overwrite` the gradient may take the place of the
        logits, so that a large vocabulary's are in memory once; no bit of it changes. With
        `checked` the target is one that `check` has accepted and the logits are a layer's output,
        which are not looked at again.
        """
        if self._activation is None:
            raise TypeError(f"{type(self).__name__} has no activation to fuse with")
        return self._evaluate(target, logits, sample_weight, mask, True, overwrite, checked)

    def _evaluate(
        self,
        target: Any,
        output: Any,
        sample_weight: Any,
        mask: Any,
        from_logits: bool,
        overwrite: bool = False,
        checked: bool = False,
    ) -> tuple[float, np.ndarray]:
        if not checked:
            output = as_output(output)
        weights, count = self._weights(target, output.shape, sample_weight, mask)
        used = used_of(weights)
        target = self._matched(target, output.shape, output.dtype, used)
        if not checked:
            self._check_values(target, used, output.shape[-1])
        weights = _shares(weights, count)
        values = np.empty(weights.size)
        doutput = output if overwrite else kernels.aligned_empty(output.shape, output.dtype)
        rows, drows = rows_of(output), rows_of(doutput)
        self._rows(target, rows, weights, from_logits, values, drows)
        return float(values.dot(weights)), doutput

    def check(
        self,
        target: Any,
        shape: tuple[int, ...],
        dtype: Any = np.float32,
        sample_weight: Any = None,
        mask: Any = None,
    ) -> None:
        """Raise what a call would raise for a target, before there is an output.

        Parameters
        ----------
        target, sample_weight, mask
            Those of a call.
        shape, dtype
            Those that the output will have.

        Raises
        ------
        ValueError, TypeError
            If they do not fit each other or the loss.
        """
        weights, _ = self._weights(target, shape, sample_weight, mask)
        used = used_of(weights)
        self._check_values(self._matched(target, shape, np.dtype(dtype), used), used, shape[-1])

    def count(self, target: Any, shape: tuple[int, ...], mask: np.ndarray | None = None) -> int:
        """Return how many values the loss of an output is the mean of: its positions, unmasked.

        Parameters
        ----------
        target, mask
            Those of a call.
        shape : tuple of int
            That of the output.
        """
        if mask is None:
            return math.prod(shape[:-1])
        return int(np.count_nonzero(mask)) * math.prod(shape[mask.ndim : -1])

    # ---- what a kind of loss defines

    def _weights(
        self, target: Any, shape: tuple[int, ...], sample_weight: Any, mask: Any
    ) -> tuple[np.ndarray | None, int]:
        """Return the weight of each row of an output of a shape, and how many rows count.

        None is ones: see `position_weights`.
        """
        return position_weights(positions_of(shape), sample_weight, mask)

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray | None
    ) -> Any:
        """Return the target of an output of a shape row by row as `_rows` takes it, or raise."""
        raise TypeError(f"{type(self).__name__} does not define _matched")

    def _check_values(self, target: Any, used: np.ndarray | None, choices: int) -> None:
        """Raise unless the rows of a matched target hold legal values; by default all do.

        Only those that are used have to, a bool (n,), or None for all. `choices` is K.
        """

    def _rows(
        self,
        target: np.ndarray,
        output: np.ndarray,
        weights: np.ndarray,
        from_logits: bool,
        values: np.ndarray,
        dy: np.ndarray,
    ) -> None:
        """Write each row's value and its weighted gradient."""
        raise TypeError(f"{type(self).__name__} does not define _rows")

    # ---- what all of them share

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such a loss again."""
        options = inspect.signature(type(self)).parameters
        return {"name": self.name, **{option: getattr(self, option) for option in options}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a loss from what `get_config` returned."""
        return made(cls, {key: value for key, value in config.items() if key != "name"})


class _OfDifferences(Loss):
    """What losses of output - target share: a curve that is averaged over a row."""

    def __init__(self) -> None:
        super().__init__()

    def _curve(self, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the value and the slope of each difference; the first may be float64."""
        raise TypeError(f"{type(self).__name__} does not define _curve")

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray | None
    ) -> np.ndarray:
        return rows_of(match_target(target, shape, dtype))

    def _check_values(self, target: Any, used: np.ndarray | None, choices: int) -> None:
        limit = float(np.finfo(target.dtype).max)
        check_within(target, used, -limit, limit, "finite numbers")

    def _rows(
        self,
        target: np.ndarray,
        output: np.ndarray,
        weights: np.ndarray,
        from_logits: bool,
        values: np.ndarray,
        dy: np.ndarray,
    ) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            error = output - target
            error[weights == 0] = 0
            value, slope = self._curve(error)
            values[:] = value.mean(axis=-1, dtype=np.float64)
            share = weights / output.shape[1]
            np.multiply(slope, share[:, None], out=dy, casting="same_kind")


class MeanSquaredError(_OfDifferences):
    """Mean of the squared differences, for numbers.

    Formula, per row: value = mean((output - target)^2), doutput = 2 (output - target) / K

    Target (B, ..., K); (B, ...) will do for K = 1. Source: keras.losses.MeanSquaredError.

    Examples
    --------
    >>> value, doutput = MeanSquaredError()([1.0, 2.0], [[1.5], [2.0]])
    >>> value, doutput.tolist()
    (0.125, [[0.5], [0.0]])
    """

    name = "mean_squared_error"

    def _curve(self, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.square(error, dtype=np.float64), 2 * error


class MeanAbsoluteError(_OfDifferences):
    """Mean of the absolute differences, for numbers among which some are far off.

    Formula, per row: value = mean(|output - target|), doutput = sign(output - target) / K

    Target (B, ..., K); (B, ...) will do for K = 1. Source: keras.losses.MeanAbsoluteError;
    torch.nn.L1Loss.

    Examples
    --------
    >>> value, doutput = MeanAbsoluteError()([1.0, 2.0], [[1.5], [2.0]])
    >>> value, doutput.tolist()
    (0.25, [[0.5], [0.0]])
    """

    name = "mean_absolute_error"

    def _curve(self, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.abs(error), np.sign(error)


class Huber(_OfDifferences):
    """Mean of differences squared where they are small, and absolute where they are large.

    Formula, per row, e = output - target: value = mean(e^2 / 2 where |e| <= delta, else
    delta (|e| - delta / 2)), doutput = (e clipped to -delta and delta) / K

    Target (B, ..., K); (B, ...) will do for K = 1. Source: Huber 1964, Robust estimation of a
    location parameter; keras.losses.Huber; torch.nn.HuberLoss.

    Parameters
    ----------
    delta : float
        Where the parabola goes over into straight lines; greater than 0.

    Examples
    --------
    >>> value, doutput = Huber()([1.0, 2.0], [[1.5], [5.0]])
    >>> value, doutput.tolist()
    (1.3125, [[0.25], [0.5]])
    """

    name = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = positive("delta", delta)

    def _curve(self, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = np.clip(error, -self.delta, self.delta)
        return np.multiply(slope, error - slope / 2, dtype=np.float64), slope


class BinaryCrossentropy(Loss):
    """Cross-entropy of yes-or-no answers, for a final sigmoid.

    Formula, per row, t = target, p = the output within [1e-7, 1 - 1e-7]:
    value = -mean(t log(p) + (1 - t) log(1 - p)), doutput = (p - t) / (p (1 - p)) / K, or 0 where
    the output was outside; from logits x: value = mean(log(1 + exp(x)) - t x),
    dx = (sigmoid(x) - t) / K

    Target (B, ..., K) within [0, 1]; (B, ...) will do for K = 1.
    Source: keras.losses.BinaryCrossentropy. PyTorch's BCELoss clips the logarithms at -100 instead.

    Parameters
    ----------
    from_logits : bool
        Whether outputs are scores before the sigmoid.
    label_smoothing : float
        How far targets are moved towards 1/2, in [0, 1): t (1 - s) + s / 2, as in Keras.

    Examples
    --------
    >>> value, doutput = BinaryCrossentropy()([1, 0], [[0.5], [0.5]])
    >>> round(value, 4), doutput.tolist()
    (0.6931, [[-1.0], [1.0]])
    """

    name = "binary_crossentropy"
    _activation = "sigmoid"

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        super().__init__(from_logits)
        self.label_smoothing = fraction("label_smoothing", label_smoothing)

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray | None
    ) -> np.ndarray:
        return rows_of(match_target(target, shape, dtype))

    def _check_values(self, target: Any, used: np.ndarray | None, choices: int) -> None:
        check_within(target, used, 0, 1, "targets from 0 to 1")

    def _rows(
        self,
        target: np.ndarray,
        output: np.ndarray,
        weights: np.ndarray,
        from_logits: bool,
        values: np.ndarray,
        dy: np.ndarray,
    ) -> None:
        target = _smoothed(target, self.label_smoothing, 2)
        kernels.binary_crossentropy(output, target, weights, from_logits, values, dy)


class CategoricalCrossentropy(Loss):
    """Cross-entropy of a choice among K classes given as probabilities, for a final softmax.

    Formula, per row, t = target, p = output / sum(output) within [1e-7, 1 - 1e-7]:
    value = -sum(t log(p)); from logits x: value = -sum(t log(softmax(x))),
    dx = softmax(x) sum(t) - t

    Target (B, ..., K) within [0, 1], often one-hot.
    Source: keras.losses.CategoricalCrossentropy. PyTorch's CrossEntropyLoss always takes logits.

    Parameters
    ----------
    from_logits : bool
        Whether outputs are scores before the softmax.
    label_smoothing : float
        How far targets are moved towards 1 / K, in [0, 1): t (1 - s) + s / K, as in Keras and
        PyTorch.

    Examples
    --------
    >>> value, doutput = CategoricalCrossentropy(from_logits=True)([[1, 0]], [[0.0, 0.0]])
    >>> round(value, 4), doutput.tolist()
    (0.6931, [[-0.5, 0.5]])
    """

    name = "categorical_crossentropy"
    _activation = "softmax"

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        super().__init__(from_logits)
        self.label_smoothing = fraction("label_smoothing", label_smoothing)

    def check(
        self,
        target: Any,
        shape: tuple[int, ...],
        dtype: Any = np.float32,
        sample_weight: Any = None,
        mask: Any = None,
    ) -> None:
        """Raise as `Loss.check` does, and where a single class leaves nothing to learn."""
        if shape[-1] == 1:
            raise ValueError(
                f"y: expected 2 or more classes, given an output of shape {shape}; "
                "for one output per answer there is 'binary_crossentropy'"
            )
        super().check(target, shape, dtype, sample_weight, mask)

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray | None
    ) -> np.ndarray:
        target = numbers("y", target, dtype)
        if target.shape != shape:
            hint = ""
            if target.shape in (shape[:-1], (*shape[:-1], 1)):
                hint = "; class numbers belong to 'sparse_categorical_crossentropy'"
            raise ValueError(
                f"y: expected probabilities of shape {shape}, that of the output, "
                f"given {target.shape}{hint}"
            )
        return rows_of(target)

    def _check_values(self, target: Any, used: np.ndarray | None, choices: int) -> None:
        check_within(target, used, 0, 1, "probabilities from 0 to 1")

    def _rows(
        self,
        target: np.ndarray,
        output: np.ndarray,
        weights: np.ndarray,
        from_logits: bool,
        values: np.ndarray,
        dy: np.ndarray,
    ) -> None:
        target = _smoothed(target, self.label_smoothing, output.shape[1])
        kernels.categorical_crossentropy(output, target, weights, from_logits, values, dy)


class SparseCategoricalCrossentropy(Loss):
    """Cross-entropy of a choice among K classes given by their numbers, for a final softmax.

    Formula: that of `CategoricalCrossentropy`, whose target is 1 at the class and 0 elsewhere.

    Target (B, ...) or (B, ..., 1), integers from 0 to K - 1.
    Source: keras.losses.SparseCategoricalCrossentropy.

    Parameters
    ----------
    from_logits : bool
        Whether outputs are scores before the softmax.
    label_smoothing : float
        How far targets are moved towards 1 / K, in [0, 1), as `CategoricalCrossentropy` does and
        PyTorch's CrossEntropyLoss; Keras has none here.
    ignore_class : int, optional
        A class number, often -1, whose positions do not count, as if they were masked; PyTorch's
        ignore_index.

    Examples
    --------
    >>> value, doutput = SparseCategoricalCrossentropy(from_logits=True)([1], [[0.0, 0.0]])
    >>> round(value, 4), doutput.tolist()
    (0.6931, [[0.5, -0.5]])
    """

    name = "sparse_categorical_crossentropy"
    _activation = "softmax"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
    ) -> None:
        super().__init__(from_logits)
        self.label_smoothing = fraction("label_smoothing", label_smoothing)
        self.ignore_class = None if ignore_class is None else integer("ignore_class", ignore_class)

    def _weights(
        self, target: Any, shape: tuple[int, ...], sample_weight: Any, mask: Any
    ) -> tuple[np.ndarray | None, int]:
        mask = self._counted(target, shape, mask)
        return super()._weights(target, shape, sample_weight, mask)

    def count(self, target: Any, shape: tuple[int, ...], mask: np.ndarray | None = None) -> int:
        """Return how many values the loss of an output is the mean of; see `Loss.count`."""
        return super().count(target, shape, self._counted(target, shape, mask))

    def _counted(self, target: Any, shape: tuple[int, ...], mask: Any) -> Any:
        """Return the mask without what is ignored."""
        if self.ignore_class is None:
            return mask
        counted = match_labels(target, shape) != self.ignore_class
        if mask is None:
            return counted
        return counted & spread("mask", np.asarray(mask), shape[:-1])

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray | None
    ) -> np.ndarray:
        labels = match_labels(target, shape).reshape(-1)
        return labels if used is None else np.where(used, labels, 0)

    def _check_values(self, target: Any, used: np.ndarray | None, choices: int) -> None:
        check_classes(target, choices)

    def _rows(
        self,
        target: np.ndarray,
        output: np.ndarray,
        weights: np.ndarray,
        from_logits: bool,
        values: np.ndarray,
        dy: np.ndarray,
    ) -> None:
        labels = kernels.as_kernel_array(target, np.int64)
        kernels.sparse_categorical_crossentropy(
            output, labels, weights, from_logits, values, dy, self.label_smoothing
        )


class CTC(Loss):
    """Connectionist temporal classification: what was said in frames, without saying when.

    Formula: value of a sequence = -log(sum over paths that spell its labels of product over frames
    t of p[t, path[t]]), p = softmax(output); a path names a class or the blank at every frame, and
    spells what is left after merging equal neighbours and then taking out the blanks. The gradient
    is p minus the probability, given the labels, that the path is there.

    Target: a list of B sequences of labels, or an array (B, L) with -1 after a sequence's last
    label; labels are from 0 to K - 1 and not the blank. Output (B, T, K); a mask or lengths say
    which frames there are. Every sequence has one value and one weight, and the loss is their mean,
    as in Keras; PyTorch's reduction "mean" also divides each value by the number of its labels.

    Source: Graves et al. 2006, Connectionist temporal classification; keras.losses.CTC, where the
    blank is 0 and pads the labels, too, and all frames count; torch.nn.CTCLoss.

    Parameters
    ----------
    blank : int
        The class that stands for no label; 0 in Keras and by default in PyTorch.
    zero_infinity : bool
        Where there are too few frames to spell the labels, the value is infinite and the gradient
        NaN, as in PyTorch; with `zero_infinity` both are 0.
    from_logits : bool
        Whether outputs are scores, as in Keras, or logarithms of probabilities, as in PyTorch.
        False for a model that ends in a softmax.

    Examples
    --------
    >>> value, doutput = CTC()([[1]], [[[0.0, 0.0], [0.0, 0.0]]])
    >>> round(value, 4), doutput.round(4).tolist()  # three of four paths spell 1
    (0.2877, [[[0.1667, -0.1667], [0.1667, -0.1667]]])
    """

    name = "ctc"
    label_padding = -1
    _activation = "softmax"

    def __init__(
        self, blank: int = 0, zero_infinity: bool = False, from_logits: bool = True
    ) -> None:
        super().__init__(from_logits)
        self.blank = non_negative_int("blank", blank)
        self.zero_infinity = boolean("zero_infinity", zero_infinity)

    def __call__(
        self,
        target: Any,
        output: Any,
        sample_weight: Any = None,
        mask: Any = None,
        lengths: Any = None,
        target_lengths: Any = None,
    ) -> tuple[float, np.ndarray]:
        """Return the loss of a batch and its gradient.

        Parameters
        ----------
        target : list of sequences of int, or array (B, L)
            Labels; those of an array end with -1 or where `target_lengths` says.
        output : array (B, T, K)
            What the model says.
        sample_weight : array (B,), optional
            How much each sequence counts.
        mask : array of bool (B, T), optional
            False where there is no frame.
        lengths, target_lengths : array of int (B,), optional
            How many frames and how many labels of each row count.

        Returns
        -------
        value : float
        doutput : array (B, T, K)

        Raises
        ------
        ValueError
            If the target does not fit the output; it is called `y` there, as in `fit`.
        """
        output = as_output(output)
        if lengths is not None:
            B, T = self._frames(output.shape)
            mask = step_mask(mask, lengths, B, T)
        if target_lengths is not None:
            labels = self._padded(target)
            B, L = labels.shape
            inside: Any = step_mask(None, target_lengths, B, L, owner="target_")
            target = np.where(inside, labels, -1)
        return super().__call__(target, output, sample_weight, mask)

    @staticmethod
    def _frames(shape: tuple[int, ...]) -> tuple[int, int]:
        """Return B and T of an output, or raise."""
        if len(shape) != 3 or shape[2] == 0:
            raise ValueError(f"output: expected shape (batch, steps, classes), given {shape}")
        return shape[0], shape[1]

    @staticmethod
    def _padded(target: Any) -> np.ndarray:
        """Return labels (B, L) with -1 after the last of each row, not yet known to be legal."""
        if isinstance(target, np.ndarray) and target.dtype != object:
            labels = numbers("y", target, np.float64)
        else:
            try:
                labels = pad_sequences(list(target), dtype="float64", padding="post", value=-1)
            except (TypeError, ValueError) as error:
                raise type(error)(f"y: expected a list of label sequences: {error}") from error
        if labels.ndim != 2:
            raise ValueError(
                "y: expected a list of label sequences, or shape (batch, labels) with -1 after the "
                f"last, given {labels.shape}"
            )
        return labels

    def _weights(
        self, target: Any, shape: tuple[int, ...], sample_weight: Any, mask: Any
    ) -> tuple[np.ndarray | None, int]:
        B, T = self._frames(shape)
        step_mask(mask, None, B, T)
        return position_weights((B,), sample_weight)

    def count(self, target: Any, shape: tuple[int, ...], mask: np.ndarray | None = None) -> int:
        """Return how many sequences the loss is the mean of: the rows of an output of a `shape`."""
        return shape[0]

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        labels, classes = self._padded(target), shape[2]
        if self.blank >= classes:
            raise ValueError(
                f"blank: expected one of the {classes} classes of the output, given {self.blank}"
            )
        if len(labels) != shape[0]:
            raise ValueError(f"y: expected {shape[0]} label sequences, given {len(labels)}")
        if used is not None:
            labels = np.where(used[:, None], labels, -1)
        is_label = (labels >= 0) & (labels < classes) & (labels != self.blank)
        ended = np.logical_or.accumulate(labels == -1, axis=1)
        wrong = np.where(ended, labels != -1, ~is_label | (labels != np.floor(labels)))
        if wrong.any():
            raise ValueError(
                f"y: expected labels from 0 to {classes - 1} other than the blank, {self.blank}, "
                f"and nothing but -1 after the first -1, given {labels[wrong][0]:g}"
            )
        return labels.astype(np.int64), np.count_nonzero(~ended, axis=1).astype(np.int64)

    def _evaluate(
        self,
        target: Any,
        output: Any,
        sample_weight: Any,
        mask: Any,
        from_logits: bool,
        overwrite: bool = False,
        checked: bool = False,
    ) -> tuple[float, np.ndarray]:
        # The logits of a frame are needed again on the way back: nothing is overwritten.
        output = as_output(output)
        weights, count = self._weights(target, output.shape, sample_weight, mask)
        labels, counts = self._matched(target, output.shape, output.dtype, used_of(weights))
        weights = _shares(weights, count)
        frames = np.ones(output.shape[:2], bool) if mask is None else numbers("mask", mask, bool)
        values = np.empty(count)
        doutput = kernels.aligned_empty(output.shape, output.dtype)
        # log_softmax(log(y)) = log(y / sum(y)), clipped below as the cross-entropies are
        logits = output if from_logits else np.log(np.maximum(output, EPSILON))
        kernels.ctc_loss(
            logits, frames, labels, counts, self.blank, weights, self.zero_infinity, values, doutput
        )
        if not from_logits:
            doutput *= np.where(output < EPSILON, 0, 1 / np.maximum(output, EPSILON))
        return float(values.dot(weights)), doutput


LOSSES: dict[str, type[Loss]] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    **{
        loss.name: loss
        for loss in (
            MeanSquaredError,
            MeanAbsoluteError,
            Huber,
            BinaryCrossentropy,
            CategoricalCrossentropy,
            SparseCategoricalCrossentropy,
            CTC,
        )
    },
}


def get(identifier: Any) -> Loss:
    """Return the loss of a name or of a config, or the instance itself.

    Parameters
    ----------
    identifier : str, dict or Loss
        A name such as ``"mse"`` or ``"BinaryCrossentropy"``, upper or lower case, or what
        `Loss.get_config` returned.

    Raises
    ------
    ValueError, TypeError
        If there is no such loss; the message lists the names and the closest.

    Examples
    --------
    >>> get("mse").name
    'mean_squared_error'
    """
    if isinstance(identifier, Loss):
        return identifier
    return made_from("loss", identifier, LOSSES)
