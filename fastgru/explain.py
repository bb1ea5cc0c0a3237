"""Why a model answered as it did: what each step of its input had to do with an output.

All functions take a `Sequential` and a batch x. They explain one output of each row, before a last
softmax or sigmoid, as inference computes it. Behind an `Embedding` they explain by its vectors, and
sum over the values of a vector, so that ids (B, T) get weights (B, T), and features (B, T, I) get
weights (B, T, I). A model with a `stateful` layer is refused: every look would move its states on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastgru import custom
from fastgru.attention import Attention
from fastgru.layers import Embedding
from fastgru.model import Sequential
from fastgru.pooling import GlobalAveragePooling1D, GlobalMaxAveragePooling1D, GlobalMaxPooling1D
from fastgru.recurrent import GRU, Bidirectional
from fastgru.validation import array_of, finite, one_of, positive_int, shape_of, step_mask, visible


def stateless(layers: Iterable[Any]) -> None:
    """Raise if one of some layers is `stateful`."""
    for layer in layers:
        if getattr(getattr(layer, "forward_layer", layer), "stateful", False):
            raise ValueError(f"{layer.name}: expected a layer that is not stateful")


class Traced:
    """A batch on its way into a model: the values that have gradients, and the layers behind.

    Parameters
    ----------
    model : Sequential
        A model, built or not.
    x : array
        A batch of ids or features.
    mask, lengths : array, optional
        Which steps count.

    Attributes
    ----------
    values : array (B, T, E)
        What an embedding made of x, or x itself.
    mask : array of bool (B, T) or None
        Which steps count.
    rest : Sequential
        The layers that values go through.
    """

    def __init__(self, model: Sequential, x: Any, mask: Any = None, lengths: Any = None) -> None:
        if not isinstance(model, Sequential):
            raise TypeError(f"model: expected a Sequential, given {model!r:.80}")
        stateless(model.layers)
        x = array_of("x", x)
        if x.ndim < 2 or not len(x):
            raise ValueError(f"x: expected a batch (batch, steps, ...), given shape {x.shape}")
        model.build(x.shape)
        first = model.layers[0]
        self.embedded = isinstance(first, Embedding)
        if mask is not None or lengths is not None:
            mask = step_mask(mask, lengths, *x.shape[:2])
        if self.embedded:
            if len(model.layers) < 2:
                raise ValueError("model: expected layers above the embedding, given none")
            self.values, mask = first(x, mask), first.output_mask(x, mask)
            self.rest = Sequential(model.layers[1:], name=model.name)
        else:
            self.values, self.rest = visible(np.asarray(x, first.dtype), mask), model
        self.mask = mask

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Return the outputs (B, K) for values in the place of the batch's."""
        y, _ = self.rest.forward(values, self.mask, logits=True)
        if y.ndim != 2:
            raise ValueError(
                f"model: expected outputs of shape (batch, classes), given {y.shape}; explain one "
                "step's output by a model that ends there"
            )
        return y

    def targets(self, target: Any) -> np.ndarray:
        """Return the place (B,) of the output of `target`, by default the largest."""
        y = self.scores(self.values)
        if target is None:
            return y.argmax(axis=1)
        places = array_of("target", target)
        if places.shape not in ((), (len(y),)):
            raise ValueError(
                f"target: expected an integer, or one for each of {len(y)} rows, given shape "
                f"{places.shape}"
            )
        if places.dtype.kind not in "iu" or not (
            (places >= 0).all() and (places < y.shape[1]).all()
        ):
            raise ValueError(
                f"target: expected integers from 0 to {y.shape[1] - 1}, given {target!r:.80}"
            )
        return np.broadcast_to(places, len(y))

    def gradient(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return how the outputs in some places change with values in the place of the batch's."""
        y, backward = self.rest.forward(values, self.mask, logits=True)
        dy = np.zeros_like(y)
        dy[np.arange(len(y)), places] = 1
        return self.visible(backward(dy))

    def visible(self, array: np.ndarray) -> np.ndarray:
        """Return zeros at masked steps, and the array elsewhere."""
        return visible(array, self.mask)

    def weights(self, array: np.ndarray) -> np.ndarray:
        """Return one weight for what one element of x has become."""
        return array.sum(axis=-1) if self.embedded else array


def saliency(
    model: Sequential, x: Any, target: Any = None, mask: Any = None, lengths: Any = None
) -> np.ndarray:
    """Return how fast an output changes with each step of the input.

    Formula: the norm of the gradient d output[target] / d vector behind an `Embedding`; its
    absolute value for features.

    Parameters
    ----------
    model : Sequential
        With outputs (B, K).
    x : array
        Ids (B, T) or features (B, T, I).
    target : int or array of int (B,), optional
        Which output to explain; by default the largest.
    mask, lengths : array, optional
        Which steps count; the others get 0.

    Returns
    -------
    array (B, T) or (B, T, I)
        The weights, all >= 0.

    Source: Simonyan, Vedaldi and Zisserman 2014, arXiv:1312.6034, section 3.
    """
    batch = Traced(model, x, mask, lengths)
    gradient = batch.gradient(batch.values, batch.targets(target))
    return np.sqrt((gradient**2).sum(axis=-1)) if batch.embedded else np.abs(gradient)


def integrated_gradients(
    model: Sequential,
    x: Any,
    target: Any = None,
    baseline: Any = None,
    steps: int = 64,
    mask: Any = None,
    lengths: Any = None,
) -> np.ndarray:
    """Share the difference that the input makes to an output out among its steps.

    Formula: (v - v0) * mean over k of d output[target] / d v at v0 + (k - 1/2) / steps (v - v0),
    k = 1 ... steps. The weights of a row sum to output(v) - output(v0), but for the error of that
    midpoint rule (completeness).

    Parameters
    ----------
    model : Sequential
        With outputs (B, K).
    x : array
        Ids (B, T) or features (B, T, I).
    target : int or array of int (B,), optional
        Which output to explain; by default the largest.
    baseline : array, optional
        v0, which broadcasts to the vectors (B, T, E) or features; by default 0.
    steps : int
        How many gradients the integral is made of.
    mask, lengths : array, optional
        Which steps count; the others get 0.

    Returns
    -------
    array (B, T) or (B, T, I)
        The weights: above 0 what speaks for the output, below 0 what speaks against it.

    Source: Sundararajan, Taly and Yan 2017, arXiv:1703.01365, equations 1 and 3.
    """
    batch = Traced(model, x, mask, lengths)
    steps = positive_int("steps", steps)
    values, places = batch.values, batch.targets(target)
    start = np.zeros_like(values)
    if baseline is not None:
        baseline = array_of("baseline", baseline)
        try:
            start[...] = baseline
        except ValueError:
            raise ValueError(
                f"baseline: expected a shape that broadcasts to {start.shape}, given "
                f"{baseline.shape}"
            ) from None
    total = np.zeros(values.shape)
    for k in range(steps):
        along = start + values.dtype.type((k + 0.5) / steps) * (values - start)
        total += batch.gradient(along, places)
    return batch.weights((values - start) * total / steps).astype(values.dtype)


def occlusion(
    model: Sequential,
    x: Any,
    target: Any = None,
    baseline: float = 0.0,
    mask: Any = None,
    lengths: Any = None,
) -> np.ndarray:
    """Return how much an output falls when a step is blanked out, one step after the other.

    Parameters
    ----------
    model : Sequential
        With outputs (B, K).
    x : array
        Ids (B, T) or features (B, T, I).
    target : int or array of int (B,), optional
        Which output to explain; by default the largest.
    baseline : float
        What all values of the step become; the step itself stays.
    mask, lengths : array, optional
        Which steps count; the others get 0.

    Returns
    -------
    array (B, T)
        The weights: above 0 what speaks for the output.

    Source: Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2.
    """
    batch, baseline = Traced(model, x, mask, lengths), finite("baseline", baseline)
    places, rows = batch.targets(target), np.arange(len(batch.values))
    before = batch.scores(batch.values)[rows, places]
    weights = np.zeros(batch.values.shape[:2], batch.values.dtype)
    for t in range(weights.shape[1]):
        blanked = batch.values.copy()
        blanked[:, t] = baseline
        weights[:, t] = before - batch.scores(blanked)[rows, places]
    return weights if batch.mask is None else weights * batch.mask


def attention(model: Sequential, x: Any, mask: Any = None, lengths: Any = None) -> np.ndarray:
    """Return how much the model's pooling over time takes from each step; rows sum to 1.

    Of an `Attention` layer that is its weights; of an average, equal shares; of a maximum, the
    share of features whose maximum is at that step; of both, the mean of the two.

    Parameters
    ----------
    model : Sequential
        With one of these layers; the first one counts.
    x : array
        A batch of ids or features.
    mask, lengths : array, optional
        Which steps count; the others get 0.

    Returns
    -------
    array (B, T)
        The weights, all >= 0.

    Raises
    ------
    ValueError
        If the model pools nothing.
    """
    batch = Traced(model, x, mask, lengths)
    y, here = batch.values, batch.mask
    for layer in batch.rest.layers:
        if isinstance(layer, Attention):
            return layer.weights_of(y, here)
        if isinstance(
            layer, (GlobalAveragePooling1D, GlobalMaxPooling1D, GlobalMaxAveragePooling1D)
        ):
            return _pooled(layer, y, here)
        y, here = layer(y, mask=here), layer.output_mask(y, here)
        y = y[0] if isinstance(y, list) else y
    raise ValueError(
        f"model: expected an Attention or a pooling layer, given "
        f"{[type(layer).__name__ for layer in model.layers]}"
    )


def _pooled(layer: Any, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return the shares of the steps in a maximum or an average."""
    here = np.ones(x.shape[:2], bool) if mask is None else mask
    equal = here / np.maximum(here.sum(axis=1, keepdims=True), 1)
    if isinstance(layer, GlobalAveragePooling1D):
        return equal.astype(x.dtype)
    seen = np.where(here[..., None], x, -np.inf)
    largest = np.zeros(x.shape[:2])
    rows = np.flatnonzero(here.any(axis=1))
    for row in rows:
        largest[row] = np.bincount(seen[row].argmax(axis=0), minlength=x.shape[1]) / x.shape[2]
    if isinstance(layer, GlobalMaxPooling1D):
        return largest.astype(x.dtype)
    return ((largest + equal) / 2).astype(x.dtype)


def gate_activations(
    model: Sequential, x: Any, layer: str | None = None, mask: Any = None, lengths: Any = None
) -> dict[str, np.ndarray]:
    """Return what the gates of a GRU do at every step.

    Formula, by its weights: z = s(x Wz + h Uz + b), r = s(x Wr + h Ur + b), with the state h before
    the step and s the `recurrent_activation`. The update gate z near 1 keeps the state; the reset
    gate r near 0 leaves it out of the candidate.

    Parameters
    ----------
    model : Sequential
        With a `GRU`, or a `Bidirectional` one, of which the forward layer is shown.
    x : array
        A batch of ids or features.
    layer : str, optional
        The name of the layer; by default the first GRU.
    mask, lengths : array, optional
        Which steps count; values at the others mean nothing.

    Returns
    -------
    dict of str to array (B, T, H)
        ``"update"``, ``"reset"`` and ``"state"``, the output of each step.
    """
    batch = Traced(model, x, mask, lengths)
    y, here = batch.values, batch.mask
    grus = {}
    for each in batch.rest.layers:
        inner = each.forward_layer if isinstance(each, Bidirectional) else each
        if isinstance(inner, GRU):
            grus[each.name] = inner
            if layer in (None, each.name):
                return _gates(inner, y, here)
        y, here = each(y, mask=here), each.output_mask(y, here)
        y = y[0] if isinstance(y, list) else y
    if layer is not None and grus:
        one_of("layer", layer, grus)
    raise ValueError("model: expected a GRU layer, given none")


def _gates(layer: GRU, x: np.ndarray, mask: np.ndarray | None) -> dict[str, np.ndarray]:
    shape_of("x", x, ("batch", "steps", "inputs"))
    options = {"return_sequences": True, "return_state": False, "zero_output_for_mask": False}
    every = GRU.from_config(layer.get_config() | options)
    every.build(x.shape, dict(layer.weights()))
    states = every(x, mask=mask)
    if every.go_backwards:
        raise ValueError(f"{layer.name}: expected a layer that reads forwards")
    before = np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], axis=1)
    # Keras' order of the gates: z, r, h.
    kernel, recurrent_kernel, *bias = layer.get_weights()
    H = layer.units
    shift = bias[0].reshape(-1, 3 * H).sum(axis=0) if bias else np.zeros(3 * H, x.dtype)
    a = (x @ kernel + before @ recurrent_kernel + shift)[..., : 2 * H]
    s = every._options["recurrent_activation"]
    value, _ = s if every.is_custom else custom.named(s)
    gates = value(a)
    return {"update": gates[..., :H], "reset": gates[..., H:], "state": states}
