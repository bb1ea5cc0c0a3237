"""How a model stands up to attack: small changes to its input that make it wrong.

Attacks change features, or the vectors behind an `Embedding` (words have no small changes). The
strength `epsilon` is relative: 0.1 lets the change of a sequence be a tenth as long as the sequence
itself, the root of the sum of all its squares. So models whose vectors differ in size compare.
A model with a `stateful` layer is refused: its states would go on with every step of an attack.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru.batches import Batch
from fastgru.callbacks import Callback
from fastgru.explain import Traced, stateless
from fastgru.layers import Embedding
from fastgru.model import Sequential
from fastgru.validation import non_negative, one_of, positive, positive_int, visible

NORMS = ("l2", "linf")


def fgsm(
    model: Sequential,
    x: Any,
    y: Any,
    epsilon: float,
    norm: str = "l2",
    mask: Any = None,
    lengths: Any = None,
) -> np.ndarray:
    """Attack by one step along the gradient of the loss.

    Formula: v + epsilon |v| g / |g| for ``"l2"``, v + epsilon rms(v) sign(g) for ``"linf"``, with
    g = d loss / d v of each sequence by itself; rms is the root of the mean square.

    Parameters
    ----------
    model : Sequential
        A compiled model: its loss is what the attack makes larger.
    x, y : arrays
        A batch and its targets.
    epsilon : float
        The strength, relative to the sequence; 0 changes nothing.
    norm : str
        ``"l2"`` or ``"linf"``.
    mask, lengths : array, optional
        Which steps count; the others do not change.

    Returns
    -------
    array (B, T, E)
        Features or vectors for `predict_vectors`.

    Source: Goodfellow, Shlens and Szegedy 2015, arXiv:1412.6572; for ``"l2"`` Miyato, Dai and
    Goodfellow 2017, arXiv:1605.07725.
    """
    return pgd(model, x, y, epsilon, 1, norm=norm, step_size=1.0, mask=mask, lengths=lengths)


def pgd(
    model: Sequential,
    x: Any,
    y: Any,
    epsilon: float,
    steps: int = 10,
    step_size: float | None = None,
    norm: str = "l2",
    mask: Any = None,
    lengths: Any = None,
) -> np.ndarray:
    """Attack by several steps along the gradient of the loss, never further than `epsilon`.

    Parameters
    ----------
    model, x, y, epsilon, norm, mask, lengths
        As in `fgsm`.
    steps : int
        How many steps.
    step_size : float, optional
        Length of a step, as a share of epsilon; by default 2.5 / steps.

    Returns
    -------
    array (B, T, E)
        Features or vectors for `predict_vectors`.

    Source: Madry et al. 2018, arXiv:1706.06083, without the random start.
    """
    epsilon, steps = non_negative("epsilon", epsilon), positive_int("steps", steps)
    share = positive("step_size", 2.5 / steps if step_size is None else step_size)
    norm = one_of("norm", norm, NORMS)
    batch = _traced(model, x, mask, lengths)
    values = batch.visible(batch.values)
    limit, shift = _limit(values, batch.mask, epsilon, norm), np.zeros_like(values)
    for _ in range(steps):
        output, backward = batch.rest.forward(values + shift, batch.mask, logits=model._fused)
        loss = model.loss.fused if model._fused else model.loss
        _, dy = loss(np.asarray(y), output)
        shift += share * limit * _direction(batch.visible(backward(dy)), norm)
        if norm == "l2":
            shift *= np.minimum(1, limit / np.maximum(_length(shift), 1e-30))
        else:
            shift = np.clip(shift, -limit, limit)
    return values + shift


def predict_vectors(
    model: Sequential, x: Any, vectors: np.ndarray, mask: Any = None, lengths: Any = None
) -> np.ndarray:
    """Return the outputs for vectors in the place of those that x leads to.

    Parameters
    ----------
    model : Sequential
        The model.
    x : array
        The batch that was attacked, which tells what is padding.
    vectors : array (B, T, E)
        What an attack has returned.
    mask, lengths : array, optional
        Which steps count.
    """
    batch = Traced(model, x, mask, lengths)
    return batch.rest.forward(vectors, batch.mask)[0]


class AdversarialTraining(Callback):
    """Train on each batch and on its attacked self: a callback for `fit`.

    After the gradients of the weights, those of the vectors are known; vectors that are shifted
    along them, as by `fgsm` with ``"l2"``, go through the model once more, and the gradients of the
    two losses add up. A step takes twice as long. Loss and metrics are those of the batch itself.

    Parameters
    ----------
    epsilon : float
        The strength of the attack, relative to each sequence.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru as fg
    >>> model = fg.Sequential([fg.GRU(4), fg.Dense(1, "sigmoid")])
    >>> model.compile("adam", "binary_crossentropy")
    >>> x, y = np.ones((8, 5, 3)), np.ones(8)
    >>> history = model.fit(x, y, callbacks=[AdversarialTraining(0.1)], verbose=0)

    Notes
    -----
    Miyato, Dai and Goodfellow 2017, arXiv:1605.07725, equations 3 and 6. There, vectors are
    normalised, lest training makes them large; here the attack grows with them.
    """

    def __init__(self, epsilon: float = 0.3) -> None:
        super().__init__()
        self.epsilon = non_negative("epsilon", epsilon)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Begin to attack.

        Raises
        ------
        ValueError
            If a layer is `stateful`: its states would go on twice in a step.
        """
        stateless(self.model.layers)
        self.model.adversary = self

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Leave the model alone."""
        self.model.adversary = None

    def shift(self, model: Sequential, batch: Batch, gradient: np.ndarray) -> np.ndarray:
        """Return what is added to the vectors of a batch.

        Parameters
        ----------
        model : Sequential
            The model that is trained.
        batch : Batch
            Its input.
        gradient : array (B, T, E)
            The gradient of the vectors.
        """
        first, mask = model.layers[0], batch.mask
        values = np.asarray(batch.x, first.dtype)
        if isinstance(first, Embedding):
            values, mask = first(batch.x, mask), first.output_mask(batch.x, mask)
        values, gradient = visible(values, mask), visible(gradient, mask)
        return _limit(values, mask, self.epsilon, "l2") * _direction(gradient, "l2")


def _traced(model: Sequential, x: Any, mask: Any, lengths: Any) -> Traced:
    batch = Traced(model, x, mask, lengths)
    model._compiled()
    return batch


def _length(array: np.ndarray) -> np.ndarray:
    """Return the norms of the sequences, to be multiplied with them."""
    axes = tuple(range(1, array.ndim))
    return np.sqrt((array**2).sum(axis=axes, keepdims=True))


def _limit(values: np.ndarray, mask: np.ndarray | None, epsilon: float, norm: str) -> np.ndarray:
    """Return how far a sequence may be moved, or each of its values."""
    limit = values.dtype.type(epsilon) * _length(values)
    if norm == "l2":
        return limit
    steps = values.shape[1] if mask is None else mask.sum(axis=1).reshape(-1, 1, 1)
    return (limit / np.sqrt(np.maximum(steps * values.shape[-1], 1))).astype(values.dtype)


def _direction(gradient: np.ndarray, norm: str) -> np.ndarray:
    """Return the way up: of length 1 for each sequence, or of 1 for each value."""
    if norm == "linf":
        return np.sign(gradient)
    # By the largest value first: squares of what is tiny would be 0.
    axes = tuple(range(1, gradient.ndim))
    scaled = gradient / np.maximum(np.abs(gradient).max(axis=axes, keepdims=True), 1e-30)
    return scaled / np.maximum(_length(scaled), 1e-30)
