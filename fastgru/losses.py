"""Losses: one number to make small, and its gradient.

``value, doutput = loss(target, output)`` works on outputs (B, ..., K); every row of K values, a
position, has a value of its own. As Keras' ``sum_over_batch_size`` does, the loss is

    value = sum over positions of weight * value / number of positions

where with a mask only the positions that are not masked are summed and counted. A position whose
weight is zero takes no part at all: its output and target may be NaN, its label out of range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.metrics import as_output, match_labels, match_target, position_weights, positions_of
from fastgru.validation import boolean, made_from, numbers


def _check(target: np.ndarray, used: np.ndarray, low: float, high: float, what: str) -> None:
    """Raise unless all targets (n, ...) that are used lie within [low, high]; NaN does not."""
    within = (target >= low) & (target <= high)
    if not within.all() and not within[used].all():
        wrong = target[used][~within[used]].flat[0]
        raise ValueError(f"y: expected {what}, given {wrong}")


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
    """

    name: str
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
        self, target: Any, logits: Any, sample_weight: Any = None, mask: Any = None
    ) -> tuple[float, np.ndarray]:
        """Return the loss of ``fused_activation(logits)`` and its gradient for the logits.

        Parameters are those of a call.
        """
        if self._activation is None:
            raise TypeError(f"{type(self).__name__} has no activation to fuse with")
        return self._evaluate(target, logits, sample_weight, mask, True)

    def _evaluate(
        self, target: Any, output: Any, sample_weight: Any, mask: Any, from_logits: bool
    ) -> tuple[float, np.ndarray]:
        output = as_output(output)
        weights, count = position_weights(output.shape[:-1], sample_weight, mask)
        target = self._matched(target, output.shape, output.dtype, weights != 0)
        weights /= max(count, 1)
        values = np.empty(weights.size)
        doutput = kernels.aligned_empty(output.shape, output.dtype)
        rows = weights.size, output.shape[-1]
        self._rows(
            target, output.reshape(rows), weights, from_logits, values, doutput.reshape(rows)
        )
        return float(np.vdot(values, weights)), doutput

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
        weights, _ = position_weights(positions_of(shape), sample_weight, mask)
        self._matched(target, shape, np.dtype(dtype), weights != 0)

    # ---- what a kind of loss defines

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray
    ) -> np.ndarray:
        """Return the target of an output of a shape row by row as `_rows` takes it, or raise.

        Only the rows that are used, a bool (n,), have to hold legal values.
        """
        raise TypeError(f"{type(self).__name__} does not define _matched")

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
        return {"name": self.name, "from_logits": self.from_logits}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a loss from what `get_config` returned."""
        return cls(**{key: value for key, value in config.items() if key != "name"})


class MeanSquaredError(Loss):
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

    def __init__(self) -> None:
        super().__init__()

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such a loss again."""
        return {"name": self.name}

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray
    ) -> np.ndarray:
        target = match_target(target, shape, dtype).reshape(used.size, shape[-1])
        limit = float(np.finfo(dtype).max)
        _check(target, used, -limit, limit, "finite numbers")
        return target

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
            values[:] = np.square(error, dtype=np.float64).mean(axis=-1)
            slopes = weights * 2 / output.shape[1]
            np.multiply(error, slopes[:, None], out=dy, casting="same_kind")


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

    Examples
    --------
    >>> value, doutput = BinaryCrossentropy()([1, 0], [[0.5], [0.5]])
    >>> round(value, 4), doutput.tolist()
    (0.6931, [[-1.0], [1.0]])
    """

    name = "binary_crossentropy"
    _activation = "sigmoid"

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray
    ) -> np.ndarray:
        target = match_target(target, shape, dtype).reshape(used.size, shape[-1])
        _check(target, used, 0, 1, "targets from 0 to 1")
        return target

    def _rows(
        self,
        target: np.ndarray,
        output: np.ndarray,
        weights: np.ndarray,
        from_logits: bool,
        values: np.ndarray,
        dy: np.ndarray,
    ) -> None:
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

    Examples
    --------
    >>> value, doutput = CategoricalCrossentropy(from_logits=True)([[1, 0]], [[0.0, 0.0]])
    >>> round(value, 4), doutput.tolist()
    (0.6931, [[-0.5, 0.5]])
    """

    name = "categorical_crossentropy"
    _activation = "softmax"

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray
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
        target = target.reshape(used.size, shape[-1])
        _check(target, used, 0, 1, "probabilities from 0 to 1")
        return target

    def _rows(
        self,
        target: np.ndarray,
        output: np.ndarray,
        weights: np.ndarray,
        from_logits: bool,
        values: np.ndarray,
        dy: np.ndarray,
    ) -> None:
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

    Examples
    --------
    >>> value, doutput = SparseCategoricalCrossentropy(from_logits=True)([1], [[0.0, 0.0]])
    >>> round(value, 4), doutput.tolist()
    (0.6931, [[0.5, -0.5]])
    """

    name = "sparse_categorical_crossentropy"
    _activation = "softmax"

    def _matched(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], used: np.ndarray
    ) -> np.ndarray:
        given, K = match_labels(target, shape).reshape(used.size), shape[-1]
        hint = "; for one output per answer there is 'binary_crossentropy'" if K == 1 else ""
        what = f"integers from 0 to {K - 1}, for an output of {K} values{hint}"
        _check(given, used, 0, K - 1, what)
        labels = np.where(used, given, 0).astype(np.int64)
        if not (labels == given)[used].all():
            raise ValueError(f"y: expected {what}, given {given[used & (labels != given)][0]}")
        return labels

    def _rows(
        self,
        target: np.ndarray,
        output: np.ndarray,
        weights: np.ndarray,
        from_logits: bool,
        values: np.ndarray,
        dy: np.ndarray,
    ) -> None:
        kernels.sparse_categorical_crossentropy(output, target, weights, from_logits, values, dy)


LOSSES: dict[str, type[Loss]] = {
    "mse": MeanSquaredError,
    **{
        loss.name: loss
        for loss in (
            MeanSquaredError,
            BinaryCrossentropy,
            CategoricalCrossentropy,
            SparseCategoricalCrossentropy,
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
