"""One step of training: a batch goes forward, its loss goes back, and the weights move."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgru.batches import Batch
from fastgru.errors import NonFiniteError
from fastgru.layers import Backward, Dense, Layer
from fastgru.recurrent import CELLS
from fastgru.replay import REPEATS, Replay, is_one_of, is_repeatable
from fastgru.run import States, WeightNoise

# Layers whose backward takes ``overwrite=True``; exactly these.
OVERWRITING = frozenset((*CELLS.values(), Dense))


def _overwrites(layer: Layer, layers: list[Layer]) -> bool:
    """Return whether a layer's backward is alone with its gradients, and can overwrite them."""
    if not is_one_of(layer, OVERWRITING):
        return False
    every = [id(gradient) for other in layers for gradient in other.grads.values()]
    return all(every.count(id(gradient)) == 1 for gradient in layer.grads.values())


class Step:
    """A function that trains a compiled model on one batch.

    What all batches share is looked up when it is made, so it is asked at every epoch whether it is
    still valid. Where many small batches of one shape come in a row, they replay one of them.

    Parameters
    ----------
    model : Sequential
        The model, which is built.
    noise : WeightNoise, optional
        What is on the weights while a batch goes forward and backward.
    """

    def __init__(self, model: Any, noise: WeightNoise | None = None) -> None:
        self._model = weakref.ref(model)  # which holds this
        self._made_for = self._choices(model), noise
        self.noise = noise if noise is not None and noise.deviation else None
        self.params, self.gradients = model._weights()
        self._overwriting = [_overwrites(layer, model.layers) for layer in model.layers]
        pairs = zip(model.layers, self._overwriting, strict=True)
        whole = [id(g) for layer, alone in pairs if alone for g in layer.grads.values()]
        places = [i for i, gradient in enumerate(self.gradients) if id(gradient) in whole]
        self._clear = model.optimizer.clearing(self.params, self.gradients, places)
        self._fused = model._fused
        different = model._different
        self._penalized = [layer for layer in different if layer.regularized]
        trained = [layer.trainable and bool(layer.weights()) for layer in model.layers]
        # Below the first layer that is trained nobody but an adversary asks for a gradient.
        self._first = trained.index(True) if any(trained) else len(trained)
        self._replay: Replay | None = None
        self._shape: tuple[int, ...] = ()  # of the last batch, and how many had it in a row
        self._repeats = 0

    @staticmethod
    def _choices(model: Any) -> list[Any]:
        """Return what a user may change from one epoch to the next."""
        layers = model.layers
        return [*layers, *[layer.trainable for layer in layers], model.optimizer, model.loss]

    def is_valid(self, noise: WeightNoise | None = None) -> bool:
        """Return whether another one, made now, would be no different.

        Of layers that hold others this is not known.
        """
        model: Any = self._model()
        made_for, noise_then = self._made_for
        return (
            noise is noise_then
            and made_for == self._choices(model)
            and is_repeatable(model.layers)
            and model.optimizer.knows(self.params)
        )

    def __call__(self, batch: Batch, states: States | None = None) -> tuple[float, int]:
        """Train on one batch: return the loss and what it is the mean of; update the metrics.

        Parameters
        ----------
        batch : Batch
            One that was checked.
        states : dict, optional
            The last states of the layers that have some, by their place; changed to those behind
            this batch.

        Raises
        ------
        NonFiniteError
            If the loss, a gradient or a new weight is not finite.
        """
        model: Any = self._model()
        noise = self.noise
        self._clear()
        if noise is not None:
            noise.add(model.layers, self.params)
        value, count = self._gradients_of(model, batch, states)
        for layer in self._penalized:
            value += layer.penalty(with_gradients=True)
        if noise is not None:
            noise.remove()
        try:
            model.optimizer.apply(self.params, self.gradients)
        finally:
            # Also after Ctrl-C, when some weights have moved and others have not.
            model._changed()
        return value, count

    def _gradients_of(self, model: Any, batch: Batch, states: States | None) -> tuple[float, int]:
        """Add to the gradients; return the loss and what it is the mean of."""
        if model.adversary is None:
            if states is None and batch.mask is None and is_repeatable(model.layers):
                replay = self._replay_of(model, batch.x)
                if replay is not None:
                    return self._again(model, batch, replay)
            value, count, _ = self._pass(model, batch, states)
            return value, count
        before = None if states is None else dict(states)
        value, count, dvectors = self._pass(model, batch, states)
        shift = model.adversary.shift(model, batch, dvectors)
        self._pass(model, batch, before, shift)
        return value, count

    def _pass(
        self, model: Any, batch: Batch, states: States | None, shift: Any = None
    ) -> tuple[float, int, Any]:
        """Go forward and backward: return the loss, what it is the mean of, and a gradient.

        That is the one of the vectors which a `shift` is added to; it is computed only where there
        is an adversary, who needs it. Metrics do not measure what is shifted.
        """
        output, mask, ways = model._forward(batch.x, batch.mask, self._fused, states, shift)
        value, count, dy = self._scored(model, batch, output, mask, shift is None)
        attacked = model.adversary is not None and shift is None
        wanted = model._first_vectors if attacked else len(ways)
        return value, count, self._back(ways, dy, wanted, more=shift is not None)

    def _scored(
        self, model: Any, batch: Batch, output: np.ndarray, mask: Any, measured: bool = True
    ) -> tuple[float, int, np.ndarray]:
        """Return the loss of an output, what it is the mean of, and its gradient."""
        count = model.loss.count(batch.y, output.shape, mask)
        value, dy = model._scored(batch, output, mask, self._fused, measured=measured)
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss is {value}; no weight was changed by it")
        return value, count, dy

    def _back(self, ways: Sequence[Backward], dy: Any, wanted: int, more: bool = False) -> Any:
        """Go back: return the gradient of the input of the layer at a place that is wanted.

        With `more` gradients are added to those of a pass before.
        """
        dvectors = None
        for i in reversed(range(min(self._first, wanted), len(ways))):
            options = {"overwrite": True} if self._overwriting[i] and not more else {}
            dy = ways[i](dy, with_dx=i > self._first or i >= wanted, **options)
            if isinstance(dy, tuple):
                dy = dy[0]  # truncated: the states of the batch before stay as they were
            if i == wanted:
                dvectors = dy
        return dvectors

    # ---- passes by replay

    def _replay_of(self, model: Any, x: np.ndarray) -> Replay | None:
        """Return what computes the passes of a batch by replay, or None while that does not pay."""
        if x.dtype.kind not in "iuf" or not x.size:
            return None
        if self._replay is not None and self._replay.fits(x):
            return self._replay
        self._repeats = self._repeats + 1 if x.shape == self._shape else 0
        self._shape = x.shape
        if self._repeats != REPEATS:
            return None
        model._changed()  # weights that are packed already would be missing in a recording
        return Replay(model.layers[0], x.shape)

    def _again(self, model: Any, batch: Batch, replay: Replay) -> tuple[float, int]:
        """Go forward and backward by replay, or for the first time, to be recorded."""

        def forward(x: np.ndarray) -> tuple[np.ndarray, list[Backward]]:
            output, _, ways = model._forward(x, None, self._fused)
            return output, ways

        output = replay.forward(batch.x, forward)
        if not self._fused:
            output = output.copy()  # metrics may keep it
        value, count, dy = self._scored(model, batch, output, None)
        replay.backward(dy, lambda ways, dy: self._back(ways, dy, len(ways)))
        if replay is not self._replay:
            self._replay = replay if replay.settle() else None
        return value, count
