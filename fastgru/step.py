"""One step of training: a batch goes forward, its loss goes back, and the weights move."""

from __future__ import annotations

import math
from typing import Any

from fastgru.batches import Batch
from fastgru.errors import NonFiniteError
from fastgru.run import States, WeightNoise


class Step:
    """A function that trains a compiled model on one batch.

    What all batches share is looked up when it is made, so it is made anew for every epoch.

    Parameters
    ----------
    model : Sequential
        The model, which is built.
    noise : WeightNoise, optional
        What is on the weights while a batch goes forward and backward.
    """

    def __init__(self, model: Any, noise: WeightNoise | None = None) -> None:
        self.model = model
        self.noise = noise if noise is not None and noise.deviation else None
        self.params, self.gradients = model._weights()
        self._clear = model.optimizer.clearing(self.params, self.gradients)
        self._fused = model._fused
        different = model._different
        self._penalized = [layer for layer in different if layer.regularized]
        trained = [layer.trainable and bool(layer.weights()) for layer in model.layers]
        # Below the first layer that is trained nobody but an adversary asks for a gradient.
        self._first = trained.index(True) if any(trained) else len(trained)

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
        model, noise = self.model, self.noise
        self._clear()
        if noise is not None:
            noise.add(model.layers, self.params)
        before = None if states is None or model.adversary is None else dict(states)
        value, count, dvectors = self._pass(batch, states)
        if model.adversary is not None:
            shift = model.adversary.shift(model, batch, dvectors)
            self._pass(batch, before, shift)
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

    def _pass(
        self, batch: Batch, states: States | None, shift: Any = None
    ) -> tuple[float, int, Any]:
        """Go forward and backward: return the loss, what it is the mean of, and a gradient.

        That is the one of the vectors which a `shift` is added to; it is computed only where there
        is an adversary, who needs it. Metrics do not measure what is shifted.
        """
        model, fused = self.model, self._fused
        output, mask, backwards = model._forward(batch.x, batch.mask, fused, states, shift)
        count = model.loss.count(batch.y, output.shape, mask)
        value, dy = model._scored(batch, output, mask, fused, measured=shift is None)
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss is {value}; no weight was changed by it")
        attacked = model.adversary is not None and shift is None
        wanted = model._first_vectors if attacked else len(backwards)
        dvectors = None
        for i in reversed(range(min(self._first, wanted), len(backwards))):
            dy = backwards[i](dy, with_dx=i > self._first or i >= wanted)
            if isinstance(dy, tuple):
                dy = dy[0]  # truncated: the states of the batch before stay as they were
            if i == wanted:
                dvectors = dy
        return value, count, dvectors
