"""Metrics: how good the outputs are, averaged over the batches seen so far.

Also here, since losses and metrics share it: how targets, sample weights and masks are matched to
an output (B, ..., K), whose rows of K values are called positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru.validation import entry, finite, name_or, numbers, one_of

Shape = tuple[int, ...]


# ---- matching to the positions of an output


def as_output(output: Any) -> np.ndarray:
    """Return an output (B, ..., K) as the kernels want it; what is not float becomes float64.

    Raises
    ------
    ValueError
        If it has no axis of values, or an empty one.
    """
    dtype = np.asarray(output).dtype
    if dtype.char not in "fd":
        dtype = np.dtype(np.float32 if dtype == np.float16 else np.float64)
    output = numbers("output", output, dtype.newbyteorder("="))
    positions_of(output.shape)
    return output


def positions_of(output: Shape) -> Shape:
    """Return the shape (B, ...) of the positions of an output of a shape (B, ..., K).

    Raises
    ------
    ValueError
        If it has no axis of values, or an empty one.
    """
    if len(output) < 2 or output[-1] == 0:
        raise ValueError(f"output: expected shape (batch, ..., values), given {output}")
    return output[:-1]


def match_target(target: Any, output: Shape, dtype: np.dtype[Any]) -> np.ndarray:
    """Return a target with the shape (B, ..., K) and the dtype of an output.

    The axis of a single value may be left out, or be there once too often: labels (B,) fit an
    output (B, 1), as in Keras.

    Raises
    ------
    ValueError
        If the shapes do not fit. Nothing is broadcast.
    """
    target = numbers("y", target, dtype)
    short = output[:-1]
    fits = target.shape in (output, (*output, 1))
    if not fits and not (output[-1] == 1 and target.shape == short):
        also = f" or {short}" if output[-1] == 1 else ""
        raise ValueError(
            f"y: expected shape {output}{also}, that of the output, given {target.shape}"
        )
    return target.reshape(output)


def match_labels(labels: Any, output: Shape) -> np.ndarray:
    """Return labels (B, ...) or (B, ..., 1) of an output (B, ..., K) in the shape (B, ...).

    They are float64 and not yet known to be integers in range.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    labels = numbers("y", labels, np.float64)
    short = output[:-1]
    if labels.shape not in (short, (*short, 1)):
        hint = ""
        if labels.shape == output:
            hint = "; one-hot targets belong to 'categorical_crossentropy'"
        raise ValueError(
            f"y: expected class numbers of shape {short} or {(*short, 1)} for an output of shape "
            f"{output}, given {labels.shape}{hint}"
        )
    return labels.reshape(short)


def _spread(name: str, array: np.ndarray, positions: Shape) -> np.ndarray:
    """Repeat an array given for leading axes, such as (B,), over all positions."""
    shape = array.shape
    while len(shape) > len(positions) and shape[-1] == 1:
        shape = shape[:-1]
    fits = 1 <= len(shape) <= len(positions) and all(
        n == m or (i > 0 and n == 1) for i, (n, m) in enumerate(zip(shape, positions, strict=False))
    )
    if not fits:
        leading = " or ".join(str(positions[: i + 1]) for i in range(len(positions)))
        raise ValueError(f"{name}: expected shape {leading}, given {array.shape}")
    array = array.reshape(shape + (1,) * (len(positions) - len(shape)))
    return np.broadcast_to(array, positions)


def position_weights(
    positions: Shape, sample_weight: Any = None, mask: Any = None
) -> tuple[np.ndarray, int]:
    """Return the weight of every position, flat, and how many positions are not masked.

    Parameters
    ----------
    positions : tuple of int
        Shape (B, ...) of an output (B, ..., K) without its last axis.
    sample_weight : array, optional
        Shape (B,), or (B, T) and so on up to `positions`; by default ones.
    mask : array of bool, optional
        False where a position does not count; shaped like `sample_weight`.

    Returns
    -------
    weights : array (n,) float64
        Zero where masked.
    count : int
        Number of positions that are not masked, whatever their weight.
    """
    weights = np.ones(positions)
    if sample_weight is not None:
        given = numbers("sample_weight", sample_weight, np.float64)
        if not np.isfinite(given).all():
            raise ValueError("sample_weight: expected finite numbers, given NaN or infinity")
        weights = _spread("sample_weight", given, positions).copy()
    count = weights.size
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_:
            raise TypeError(f"mask: expected an array of bool, given {mask.dtype}")
        mask = _spread("mask", mask, positions)
        weights[~mask] = 0.0
        count = int(np.count_nonzero(mask))
    return weights.reshape(-1), count


# ---- averages over batches


class Mean:
    """A weighted mean of all values added since the last reset.

    Parameters
    ----------
    name : str
        Key in histories and progress bars.

    Examples
    --------
    >>> loss = Mean("loss")
    >>> loss.add(0.5, 32)  # the mean of a batch of 32
    >>> loss.add(0.2, 16)
    >>> round(loss.result(), 3)
    0.4
    """

    def __init__(self, name: str = "mean") -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.total = 0.0
        self.weight = 0.0

    def add(self, values: Any, weights: Any = 1.0) -> None:
        """Add values, one or many, with weights, one for all or one for each."""
        values, weights = np.asarray(values, float), np.asarray(weights, float)
        if values.shape != weights.shape:
            values, weights = np.broadcast_arrays(values, weights)
        used = weights != 0  # a value of weight 0 does not count, even if it is NaN
        if not used.all():
            values, weights = values[used], weights[used]
        self.total += float(np.vdot(values, weights))
        self.weight += float(weights.sum())

    def result(self) -> float:
        """Return the mean, 0.0 if no value has any weight, as Keras does."""
        return self.total / self.weight if self.weight else 0.0


def accuracy_kind(target: Shape, output: Shape) -> str:
    """Return what Keras' "accuracy" means for these shapes of target and output.

    Returns
    -------
    str
        ``"binary"`` for one output value, else ``"sparse_categorical"`` for targets without an
        axis of classes, else ``"categorical"``.
    """
    if output[-1] == 1:
        return "binary"
    if len(target) < len(output) or target[-1] == 1:
        return "sparse_categorical"
    return "categorical"


class Accuracy(Mean):
    """The share of positions whose output is right.

    Binary: the output is above the threshold exactly where the target is 1, averaged over the K
    outputs of a position. Sparse categorical: the largest output is at the target's number.
    Categorical: the largest output is where the target is largest. Of equal ones the first counts.

    Parameters
    ----------
    kind : str, optional
        ``"binary"``, ``"categorical"`` or ``"sparse_categorical"``; by default decided for each
        batch by `accuracy_kind`, as Keras' "accuracy" is.
    threshold : float
        Where a binary output turns from no into yes; 0 for logits.
    name : str, optional
        By default ``"accuracy"`` after the kind.

    Examples
    --------
    >>> accuracy = get("accuracy")
    >>> accuracy.update([0, 1, 1], [[0.2], [0.4], [0.9]])
    >>> round(accuracy.result(), 3)
    0.667

    Source: keras.metrics.BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy.
    """

    def __init__(
        self, kind: str | None = None, threshold: float = 0.5, name: str | None = None
    ) -> None:
        self.kind = None if kind is None else one_of("kind", kind, _KINDS)
        self.threshold = finite("threshold", threshold)
        super().__init__(name_or(name, f"{kind}_accuracy" if kind else "accuracy"))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such a metric again."""
        return {"name": self.name, "kind": self.kind, "threshold": self.threshold}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a metric from what `get_config` returned."""
        return cls(**config)

    def update(self, target: Any, output: Any, sample_weight: Any = None, mask: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        target : array (B, ...)
            What is right, in a shape that fits the output.
        output : array (B, ..., K)
            Probabilities or scores.
        sample_weight, mask : array, optional
            See `position_weights`. The mean is over the weights' sum.

        Raises
        ------
        ValueError
            If shapes do not fit.
        """
        output = as_output(output)
        target = numbers("y", target, np.float64)
        shape = output.shape
        weights, _ = position_weights(shape[:-1], sample_weight, mask)
        kind = self.kind or accuracy_kind(target.shape, shape)
        if kind == "sparse_categorical":
            right = match_labels(target, shape) == output.argmax(axis=-1)
        elif kind == "categorical":
            wanted = match_target(target, shape, output.dtype)
            right = wanted.argmax(axis=-1) == output.argmax(axis=-1)
        else:
            wanted = match_target(target, shape, output.dtype)
            equal = wanted == (output > self.threshold)
            right = equal if shape[-1] == 1 else equal.mean(axis=-1)
        self.add(right.reshape(-1), weights)


_KINDS = ("binary", "categorical", "sparse_categorical")
METRICS: dict[str, str | None] = {
    "accuracy": None,
    "acc": None,
    **{f"{kind}_accuracy": kind for kind in _KINDS},
}


def get(identifier: Any, loss: Any = None) -> Accuracy:
    """Return the metric of a name, with that name, or of a config, or the instance itself.

    Parameters
    ----------
    identifier : str, dict or Accuracy
        ``"accuracy"``, ``"acc"``, ``"binary_accuracy"``, ``"categorical_accuracy"`` or
        ``"sparse_categorical_accuracy"``, upper or lower case, or what `Accuracy.get_config`
        returned.
    loss : Loss, optional
        The model's loss: if it takes logits, the binary threshold is 0 instead of 0.5. (Keras
        compares logits with 0.5 as well, which counts outputs with probabilities up to 0.62 as no.)

    Raises
    ------
    ValueError, TypeError
        If there is no such metric; the message lists the names and the closest.
    """
    if isinstance(identifier, Accuracy):
        return identifier
    if isinstance(identifier, dict) and "name" in identifier:
        return Accuracy.from_config(identifier)
    kind = entry("metrics", identifier, METRICS)
    threshold = 0.0 if getattr(loss, "from_logits", False) else 0.5
    return Accuracy(kind, threshold, name=identifier)
