"""Metrics: how good the outputs are, over the batches seen so far, and how good texts are.

Also here, since losses and metrics share it: how targets, sample weights and masks are matched to
an output (B, ..., K), whose rows of K values are called positions.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.validation import (
    array_of,
    boolean,
    entry,
    finite,
    made,
    name_or,
    numbers,
    one_of,
    positive_int,
)

__all__ = [
    "AUC",
    "F1",
    "Accuracy",
    "Mean",
    "Metric",
    "Perplexity",
    "Precision",
    "Recall",
    "TopK",
    "bleu",
    "cer",
    "edit_distance",
    "get",
    "wer",
]

Shape = tuple[int, ...]


# ---- matching to the positions of an output


def as_output(output: Any) -> np.ndarray:
    """Return an output (B, ..., K) as the kernels want it; what is not float becomes float64.

    Raises
    ------
    ValueError
        If it has no axis of values, or an empty one.
    """
    if type(output) is np.ndarray and output.dtype.char in "fd" and output.flags.carray:
        if output.dtype.isnative:
            positions_of(output.shape)
            return output  # the common case
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
    if target.shape == output:
        return target
    short = output[:-1]
    if target.shape != (*output, 1) and not (output[-1] == 1 and target.shape == short):
        also = f" or {short}" if output[-1] == 1 else ""
        raise ValueError(
            f"y: expected shape {output}{also}, that of the output, given {target.shape}"
        )
    return target.reshape(output)


def match_labels(labels: Any, output: Shape) -> np.ndarray:
    """Return labels (B, ...) or (B, ..., 1) of an output (B, ..., K) in the shape (B, ...).

    They are not yet known to be integers in range.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    labels = array_of("y", labels)
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


def check_within(
    target: np.ndarray, used: np.ndarray | None, low: float, high: float, what: str
) -> None:
    """Raise unless a target (n, ...) lies within [low, high] where `used` (n,), as NaN does not.

    Without `used` all are. The error says `what` was expected.
    """
    within = (target >= low) & (target <= high)
    if within.all():
        return
    if used is not None:
        target, within = target[used], within[used]
    if not within.all():
        raise ValueError(f"y: expected {what}, given {target[~within].flat[0]}")


def check_classes(labels: np.ndarray, K: int) -> None:
    """Raise unless labels (n,) are integers from 0 to K - 1."""
    hint = "; for one output per answer there is 'binary_crossentropy'" if K == 1 else ""
    what = f"integers from 0 to {K - 1}, for an output of {K} values{hint}"
    check_within(labels, None, 0, K - 1, what)
    if labels.dtype.kind == "f" and not (whole := labels == np.floor(labels)).all():
        raise ValueError(f"y: expected {what}, given {labels[~whole][0]}")


def class_numbers(labels: Any, output: Shape, used: np.ndarray | None) -> np.ndarray:
    """Return the `labels` of an `output` of shape (B, ..., K) as int64 (n,).

    They are 0 where `used`, a bool (n,), is False; None is True everywhere.

    Raises
    ------
    ValueError
        If shapes do not fit, or a label that is used is no integer from 0 to K - 1.
    """
    given = match_labels(labels, output).reshape(-1)
    if used is not None:
        given = np.where(used, given, 0)
    check_classes(given, output[-1])
    return kernels.as_kernel_array(given, np.int64)


def spread(name: str, array: np.ndarray, positions: Shape) -> np.ndarray:
    """Repeat an `array` given for leading axes, such as (B,), over all `positions`, or raise.

    The error begins with `name`.
    """
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
) -> tuple[np.ndarray | None, int]:
    """Return the weight of every position, flat, and how many positions are not masked.

    Parameters
    ----------
    positions : tuple of int
        Shape (B, ...) of an output (B, ..., K) without its last axis.
    sample_weight : array, optional
        Shape (B,), or (B, T) and so on up to `positions`.
    mask : array of bool, optional
        False where a position does not count; shaped like `sample_weight`.

    Returns
    -------
    weights : array (n,) float64, or None
        Zero where masked; None where neither weights nor a mask are given, for ones.
    count : int
        Number of positions that are not masked, whatever their weight.
    """
    if sample_weight is None and mask is None:
        return None, math.prod(positions)
    weights = np.ones(positions)
    if sample_weight is not None:
        given = numbers("sample_weight", sample_weight, np.float64)
        if not np.isfinite(given).all():
            raise ValueError("sample_weight: expected finite numbers, given NaN or infinity")
        weights = spread("sample_weight", given, positions).copy()
    count = weights.size
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_:
            raise TypeError(f"mask: expected an array of bool, given {mask.dtype}")
        mask = spread("mask", mask, positions)
        weights[~mask] = 0.0
        count = int(np.count_nonzero(mask))
    return weights.reshape(-1), count


def used_of(weights: np.ndarray | None) -> np.ndarray | None:
    """Return where positions of some weights count at all, None for everywhere."""
    return None if weights is None else weights != 0


# ---- over batches


class Metric:
    """What every metric has: ``update(target, output, sample_weight, mask)`` adds a batch.

    Parameters
    ----------
    name : str, optional
        Key in histories and progress bars.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name_or(name, type(self).__name__.lower())
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        raise TypeError(f"{type(self).__name__} does not define reset")

    def update(self, target: Any, output: Any, sample_weight: Any = None, mask: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        target : array (B, ...)
            What is right, in a shape that fits the output.
        output : array (B, ..., K)
            Probabilities or scores.
        sample_weight, mask : array, optional
            See `position_weights`.

        Raises
        ------
        ValueError
            If shapes do not fit; nothing has been added then.
        """
        raise TypeError(f"{type(self).__name__} does not define update")

    def result(self) -> float:
        """Return the metric of all batches since the last reset; 0.0 where it is not defined."""
        raise TypeError(f"{type(self).__name__} does not define result")

    def get_state(self) -> dict[str, Any]:
        """Return a copy of all that the metric holds."""
        return copy.deepcopy(vars(self))

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to what `get_state` returned.

        Raises
        ------
        ValueError
            If the state is not that of such a metric.
        """
        if set(state) != set(vars(self)):
            raise ValueError(f"state: expected {sorted(vars(self))}, given {sorted(state)}")
        vars(self).update(copy.deepcopy(state))

    @classmethod
    def options_for(cls, loss: Any) -> dict[str, Any]:
        """Return the arguments that suit the outputs that a `loss` takes."""
        return {}

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such a metric again."""
        options = inspect.signature(type(self)).parameters
        kind = {"class": type(self).__name__}
        return kind | {option: getattr(self, option) for option in options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a metric from what `get_config` returned."""
        return made(cls, {key: value for key, value in config.items() if key != "class"})


class Mean(Metric):
    """A weighted mean of all values added since the last reset.

    Parameters
    ----------
    name : str, optional
        Key in histories and progress bars.

    Examples
    --------
    >>> loss = Mean("loss")
    >>> loss.add(0.5, 32)  # the mean of a batch of 32
    >>> loss.add(0.2, 16)
    >>> round(loss.result(), 3)
    0.4
    """

    def reset(self) -> None:
        """Forget all values."""
        self.total = 0.0
        self.weight = 0.0

    def add(self, values: Any, weights: Any = None) -> None:
        """Add values, one or many, with weights, one for all or one for each; None is one."""
        if weights is None:
            values = np.asarray(values)
            is_bool = values.dtype == np.bool_
            self.total += float(np.count_nonzero(values) if is_bool else values.sum(dtype=float))
            self.weight += values.size
            return
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


def _takes_logits(loss: Any) -> bool:
    return bool(getattr(loss, "from_logits", False))


class _OfAnswers(Metric):
    """What metrics share that compare outputs with a threshold."""

    threshold: float

    @classmethod
    def options_for(cls, loss: Any) -> dict[str, Any]:
        """Return the arguments that suit the outputs that a `loss` takes.

        With logits the threshold is 0. (Keras compares them with 0.5 as well, which counts
        outputs with probabilities up to 0.62 as no.)
        """
        return {"threshold": 0.0} if _takes_logits(loss) else {}


class Accuracy(_OfAnswers, Mean):
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

    def update(self, target: Any, output: Any, sample_weight: Any = None, mask: Any = None) -> None:
        """Add a batch; see `Metric.update`. The mean is over the weights' sum."""
        output = as_output(output)
        target = array_of("y", target)
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


class TopK(Mean):
    """The share of positions whose right class is among the k largest outputs.

    Of equal outputs the first counts as the larger one, so that k = 1 is the accuracy. (TensorFlow
    counts all of them: equal outputs everywhere would be right everywhere.)

    Target as for `Accuracy` with more than one class: class numbers, or one-hot rows.

    Parameters
    ----------
    k : int
    name : str, optional

    Examples
    --------
    >>> top = TopK(2)
    >>> top.update([0, 0], [[0.3, 0.5, 0.2], [0.1, 0.5, 0.4]])
    >>> top.result()
    0.5

    Source: keras.metrics.TopKCategoricalAccuracy, SparseTopKCategoricalAccuracy.
    """

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        self.k = positive_int("k", k)
        super().__init__(name_or(name, "top_k"))

    def update(self, target: Any, output: Any, sample_weight: Any = None, mask: Any = None) -> None:
        """Add a batch; see `Metric.update`. The mean is over the weights' sum."""
        output = as_output(output)
        target = array_of("y", target)
        shape = output.shape
        weights, _ = position_weights(shape[:-1], sample_weight, mask)
        output = output.reshape(math.prod(shape[:-1]), shape[-1])
        if target.shape == shape:
            right = target.reshape(output.shape).argmax(axis=-1)
        else:
            right = class_numbers(target, shape, used_of(weights))
        chosen = np.take_along_axis(output, right[:, None], 1)
        first = np.arange(shape[-1]) < right[:, None]
        ahead = (output > chosen) | ((output == chosen) & first)
        inside = (np.count_nonzero(ahead, axis=-1) < self.k) & ~np.isnan(chosen[:, 0])
        self.add(inside, weights)


class Perplexity(Mean):
    """Among how many equally likely classes the model is left to choose: exp(mean of -log(p)).

    p is the probability of the right class, at least 1e-7 as in the loss: it is exp of
    "sparse_categorical_crossentropy". Target: class numbers.

    Parameters
    ----------
    from_logits : bool
        Whether outputs are scores before the softmax.
    name : str, optional

    Examples
    --------
    >>> perplexity = Perplexity()
    >>> perplexity.update([0, 1], [[0.25, 0.75], [0.75, 0.25]])
    >>> round(perplexity.result(), 6)
    4.0

    Source: keras_hub.metrics.Perplexity.
    """

    def __init__(self, from_logits: bool = False, name: str | None = None) -> None:
        self.from_logits = boolean("from_logits", from_logits)
        super().__init__(name)

    @classmethod
    def options_for(cls, loss: Any) -> dict[str, Any]:
        """Return the arguments that suit the outputs that a `loss` takes."""
        return {"from_logits": _takes_logits(loss)}

    def update(self, target: Any, output: Any, sample_weight: Any = None, mask: Any = None) -> None:
        """Add a batch; see `Metric.update`. The mean is over the weights' sum."""
        output = as_output(output)
        weights, count = position_weights(output.shape[:-1], sample_weight, mask)
        right = class_numbers(target, output.shape, used_of(weights))
        values = np.empty(right.size)
        output = output.reshape(right.size, output.shape[-1])
        unused = kernels.aligned_empty(output.shape, output.dtype)
        each = np.ones(count) if weights is None else weights
        kernels.sparse_categorical_crossentropy(
            output, right, each, self.from_logits, values, unused
        )
        self.add(values, weights)

    def result(self) -> float:
        """Return the perplexity of all batches since the last reset; 0.0 if there was none."""
        return math.exp(min(super().result(), 700.0)) if self.weight else 0.0


class _Answers(_OfAnswers):
    """Counts of right and wrong answers: all K outputs of all positions are yes-or-no answers.

    Parameters
    ----------
    threshold : float
        Where an output turns from no into yes; 0 for logits.
    name : str, optional
    """

    def __init__(self, threshold: float = 0.5, name: str | None = None) -> None:
        self.threshold = finite("threshold", threshold)
        super().__init__(name)

    def reset(self) -> None:
        """Forget all batches."""
        self.true_positives = self.positives = self.predicted = 0.0

    def update(self, target: Any, output: Any, sample_weight: Any = None, mask: Any = None) -> None:
        """Add a batch; see `Metric.update`. A target that is not 0 is a yes, as in Keras."""
        wanted, output, weights = _answers(target, output, sample_weight, mask)
        said = output > self.threshold
        self.true_positives += float(weights[wanted & said].sum())
        self.positives += float(weights[wanted].sum())
        self.predicted += float(weights[said].sum())


def _answers(
    target: Any, output: Any, sample_weight: Any, mask: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is wanted (bool), the output and the weight of each answer that counts, flat."""
    output = as_output(output)
    weights, count = position_weights(output.shape[:-1], sample_weight, mask)
    wanted = match_target(target, output.shape, output.dtype)
    weights = np.repeat(np.ones(count) if weights is None else weights, output.shape[-1])
    used = weights != 0
    wanted = wanted.reshape(-1)[used]
    if np.isnan(wanted).any():
        raise ValueError("y: expected 0 or 1, given nan")
    return wanted != 0, output.reshape(-1)[used], weights[used]


class Precision(_Answers):
    """The share of the answers yes that are right: true positives / predicted positives.

    Target (B, ..., K), or (B, ...) for K = 1; all K outputs count alike.

    Examples
    --------
    >>> precision = Precision()
    >>> precision.update([0, 1, 1], [[0.7], [0.4], [0.9]])
    >>> precision.result()
    0.5

    Source: keras.metrics.Precision.
    """

    def result(self) -> float:
        """Return the precision; 0.0 if no answer was yes."""
        return self.true_positives / self.predicted if self.predicted else 0.0


class Recall(_Answers):
    """The share of what should be yes that was found: true positives / positives.

    Target (B, ..., K), or (B, ...) for K = 1; all K outputs count alike.

    Examples
    --------
    >>> recall = Recall()
    >>> recall.update([0, 1, 1], [[0.2], [0.4], [0.9]])
    >>> recall.result()
    0.5

    Source: keras.metrics.Recall.
    """

    def result(self) -> float:
        """Return the recall; 0.0 if nothing should be yes."""
        return self.true_positives / self.positives if self.positives else 0.0


class F1(_Answers):
    """The harmonic mean of precision and recall: 2 true positives / (predicted + positives).

    Target (B, ..., K), or (B, ...) for K = 1; all K outputs count alike, Keras' average="micro".

    Examples
    --------
    >>> f1 = F1()
    >>> f1.update([0, 1, 1], [[0.2], [0.4], [0.9]])
    >>> round(f1.result(), 4)
    0.6667

    Source: keras.metrics.F1Score with a threshold.
    """

    def result(self) -> float:
        """Return the F1 score; 0.0 if nothing is or should be yes."""
        both = self.predicted + self.positives
        return 2 * self.true_positives / both if both else 0.0


class AUC(Metric):
    """The area under the ROC curve: how often a yes has a larger output than a no.

    It is exact, by the ranks of all outputs since the last reset, which are kept for it, equal ones
    counting half; Keras' AUC approximates it at 200 thresholds from 0 to 1, and comes close for
    outputs that are spread out. Probabilities and logits give the same.

    Target (B, ..., K), or (B, ...) for K = 1; all K outputs are ranked together.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> auc = AUC()
    >>> auc.update([0, 0, 1, 1], [[0.1], [0.4], [0.35], [0.8]])
    >>> auc.result()
    0.75

    Source: Hanley and McNeil 1982, The meaning and use of the area under a ROC curve;
    keras.metrics.AUC.
    """

    def reset(self) -> None:
        """Forget all batches."""
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def update(self, target: Any, output: Any, sample_weight: Any = None, mask: Any = None) -> None:
        """Add a batch; see `Metric.update`. A target that is not 0 is a yes."""
        self._seen.append(_answers(target, output, sample_weight, mask))

    def result(self) -> float:
        """Return the area; 0.0 if there is no yes or no no, NaN if an output is NaN."""
        if not self._seen:
            return 0.0
        wanted, output, weights = (np.concatenate(some) for some in zip(*self._seen, strict=True))
        if np.isnan(output).any():
            return math.nan
        scores, rank = np.unique(output, return_inverse=True)
        yes = np.bincount(rank[wanted], weights[wanted], len(scores))
        no = np.bincount(rank[~wanted], weights[~wanted], len(scores))
        below = np.cumsum(no) - no / 2
        pairs = yes.sum() * no.sum()
        return float(np.vdot(yes, below) / pairs) if pairs else 0.0


METRICS: dict[str, tuple[type[Metric], dict[str, Any]]] = {
    "accuracy": (Accuracy, {}),
    "acc": (Accuracy, {}),
    **{f"{kind}_accuracy": (Accuracy, {"kind": kind}) for kind in _KINDS},
    "top_k": (TopK, {}),
    "precision": (Precision, {}),
    "recall": (Recall, {}),
    "f1": (F1, {}),
    "auc": (AUC, {}),
    "perplexity": (Perplexity, {}),
}
CLASSES: dict[str, type[Metric]] = {kind.__name__: kind for kind, _ in METRICS.values()}


def get(identifier: Any, loss: Any = None) -> Any:
    """Return the metric of a name, with that name, or of a config, or the instance itself.

    Parameters
    ----------
    identifier : str, dict or Metric
        ``"accuracy"``, ``"acc"``, ``"binary_accuracy"``, ``"categorical_accuracy"``,
        ``"sparse_categorical_accuracy"``, ``"top_k"``, ``"precision"``, ``"recall"``, ``"f1"``,
        ``"auc"`` or ``"perplexity"``, upper or lower case, or what `Metric.get_config` returned.
    loss : Loss, optional
        The model's loss: if it takes logits, so does the metric; see `Metric.options_for`.

    Raises
    ------
    ValueError, TypeError
        If there is no such metric; the message lists the names and the closest.
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, dict) and "name" in identifier:
        kind = one_of("metrics", identifier.get("class", "Accuracy"), CLASSES)
        return CLASSES[kind].from_config(identifier)
    kind, options = entry("metrics", identifier, METRICS)
    return kind(**options, **kind.options_for(loss), name=identifier)


# ---- texts


def edit_distance(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> int:
    """Return the least number of insertions, deletions and substitutions between two sequences.

    Parameters
    ----------
    reference, hypothesis : str, or sequence of words

    Examples
    --------
    >>> edit_distance("kitten", "sitting")
    3

    Source: Levenshtein 1966; Wagner and Fischer 1974, The string-to-string correction problem.
    """
    codes: dict[Hashable, int] = {}
    first, second = (
        np.array([codes.setdefault(item, len(codes)) for item in some], np.int64)
        for some in (reference, hypothesis)
    )
    places = np.arange(len(second) + 1)
    # The distance to the first j items is j at first; a run of insertions adds one for each place:
    # so distance - j has its running minimum.
    row = places.copy()
    for i, item in enumerate(first):
        new = row + 1
        np.minimum(new[1:], row[:-1] + (second != item), out=new[1:])
        new[0] = i + 1
        row = np.minimum.accumulate(new - places) + places
    return int(row[-1])


def _pairs(references: Any, hypotheses: Any) -> list[tuple[str, str]]:
    """Return pairs of texts, or raise; a single text is a list of one."""
    if isinstance(references, str) and isinstance(hypotheses, str):
        return [(references, hypotheses)]
    for name, texts in (("references", references), ("hypotheses", hypotheses)):
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{name}: expected a list of texts, given {texts!r:.80}")
    if len(hypotheses) != len(references):
        raise ValueError(
            f"hypotheses: expected {len(references)} texts, as many as references, "
            f"given {len(hypotheses)}"
        )
    return list(zip(references, hypotheses, strict=True))


def _error_rate(pairs: list[tuple[Any, Any]], what: str) -> float:
    total = sum(len(reference) for reference, _ in pairs)
    if not total:
        raise ValueError(f"references: expected at least one {what}, given none")
    return sum(edit_distance(*pair) for pair in pairs) / total


def wer(references: Any, hypotheses: Any) -> float:
    """Return the word error rate: all edits of words over all words of the references.

    Parameters
    ----------
    references, hypotheses : list of str, or str
        What was said, and what was recognised. Words are what lies between white space; nothing
        is done about case and punctuation.

    Returns
    -------
    float
        0 if all is right; it may exceed 1.

    Raises
    ------
    ValueError, TypeError
        If they are no lists of texts, differ in length, or the references have no words.

    Examples
    --------
    >>> wer(["one two three four"], ["one too three"])
    0.5

    Source: as jiwer.wer.
    """
    pairs = _pairs(references, hypotheses)
    return _error_rate([(a.split(), b.split()) for a, b in pairs], "word")


def cer(references: Any, hypotheses: Any) -> float:
    """Return the character error rate: all edits of characters over all of the references.

    Parameters
    ----------
    references, hypotheses : list of str, or str
        What was said, and what was recognised. Spaces count.

    Returns
    -------
    float
        0 if all is right; it may exceed 1.

    Raises
    ------
    ValueError, TypeError
        As `wer`.

    Examples
    --------
    >>> cer(["four"], ["for"])
    0.25

    Source: as jiwer.cer.
    """
    return _error_rate(_pairs(references, hypotheses), "character")


def bleu(references: Any, hypotheses: Any, **options: Any) -> float:
    """Return the BLEU score of translations, from 0 to 100, as sacrebleu computes it.

    Parameters
    ----------
    references : list of str, or list of lists of str
        The right translations: one text for each hypothesis, or several.
    hypotheses : list of str
        The translations.
    options
        Those of ``sacrebleu.BLEU``, such as ``tokenize="none"`` for texts whose words are split
        already, or ``lowercase=True``.

    Raises
    ------
    ModuleNotFoundError
        If sacrebleu is not installed: ``pip install fastgru[translate]``.
    ValueError, TypeError
        If the lists differ in length, or hold no texts.

    Source: Papineni et al. 2002; Post 2018, A call for clarity in reporting BLEU scores.
    """
    try:
        from sacrebleu import BLEU
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "bleu: expected the package sacrebleu: pip install 'fastgru[translate]'"
        ) from error
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise TypeError("references, hypotheses: expected lists of texts, given a str")
    several = [[some] if isinstance(some, str) else list(some) for some in references]
    most = max(map(len, several), default=0)
    # sacrebleu wants the first references of all sentences, then the second ones, and so on.
    streams = [[some[i] if i < len(some) else None for some in several] for i in range(most)]
    pairs = _pairs(streams[0] if streams else [], hypotheses)
    return float(BLEU(**options).corpus_score([text for _, text in pairs], streams).score)
