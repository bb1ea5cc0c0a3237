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
from fastgru.replay import KINDS, REPEATS, Replay, Snapshot, is_one_of, is_repeatable
from fastgru.run import States, WeightNoise
from fastgru.validation import shape_of

# Layers whose backward takes ``overwrite=True``; exactly these.
OVERWRITING = {cls: KINDS[cls] for cls in (*CELLS.values(), Dense)}


def _is_ours(thing: Any) -> bool:
    """Return whether a layer, loss or metric is none of a user's, who may add to any gradient."""
    inner = getattr(thing, "layer", None)
    ours = type(thing).__module__.partition(".")[0] == "fastgru"
    return ours and (inner is None or _is_ours(inner))


def _overwriting(model: Any) -> list[bool]:
    """Return for each layer whether its backward may overwrite its gradients: nobody adds to them.

    Then they need not be set to zero before.
    """
    layers: list[Layer] = model.layers
    if not all(map(_is_ours, (*layers, model.loss, *model.metrics))):
        return [False] * len(layers)
    every = [id(gradient) for layer in layers for gradient in layer.grads.values()]

    def is_alone(layer: Layer) -> bool:
        return all(every.count(id(gradient)) == 1 for gradient in layer.grads.values())

    return [is_one_of(layer, OVERWRITING) and is_alone(layer) for layer in layers]


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
        self._made_for = self._choices(model, noise)
        self.noise = noise
        self.params, self.gradients = model._weights()
        self._overwriting = _overwriting(model)
        pairs = zip(model.layers, self._overwriting, strict=True)
        whole = {id(g) for layer, alone in pairs if alone for g in layer.grads.values()}
        places = [i for i, gradient in enumerate(self.gradients) if id(gradient) in whole]
        self._clear_all = model.optimizer.clearing(self.params, self.gradients)
        self._clear = model.optimizer.clearing(self.params, self.gradients, places)
        different = model._different
        self._penalized = [layer for layer in different if layer.regularized]
        trained = [layer.trainable and bool(layer.weights()) for layer in model.layers]
        # Below the first layer that is trained nobody but an adversary asks for a gradient.
        self._first = trained.index(True) if any(trained) else len(trained)
        self._layers = [(layer, layer.trainable) for layer in model.layers]
        # What only repeatable layers are known well enough for.
        self._snapshot = Snapshot(model.layers) if is_repeatable(model.layers) else None
        self._replay: Replay | None = None
        self._shape: tuple[int, ...] = ()  # of the last batch, and how many had it in a row
        self._repeats: float = 0

    @staticmethod
    def _choices(model: Any, noise: WeightNoise | None) -> tuple[Any, ...]:
        """Return what a step depends on beside the layers."""
        return noise, model.optimizer, model.loss, *model.metrics

    def is_valid(self, noise: WeightNoise | None = None) -> bool:
        """Return whether another one, made now, would be no different."""
        model: Any = self._model()
        choices = self._choices(model, noise)
        return (
            len(choices) == len(self._made_for)
            and all([a is b for a, b in zip(choices, self._made_for, strict=True)])
            and self._snapshot is not None
            and self._snapshot.shows(model.layers)
            and model.optimizer.knows(self.params)
        )

    def _is_as_made(self, layers: list[Layer]) -> bool:
        """Return whether no layer came, went, was frozen, or got another `forward` since then."""
        if len(layers) != len(self._layers):
            return False
        for layer, (known, trainable), alone in zip(
            layers, self._layers, self._overwriting, strict=True
        ):
            if layer is not known or layer.trainable is not trainable:
                return False
            if alone and not is_one_of(layer, OVERWRITING):
                return False
        return True

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
        snapshot = self._snapshot
        same = snapshot is not None and snapshot.shows(model.layers)
        alone = same or self._is_as_made(model.layers)
        if alone:
            self._clear()
        else:
            self._clear_all()
        if noise is not None:
            noise.add(model.layers, self.params)
        replay = None
        if same and states is None and batch.mask is None and model.adversary is None:
            replay = self._replay_of(model, batch.x)
        if replay is not None:
            value, count = self._again(model, batch, replay)
        else:
            value, count = self._gradients_of(model, batch, states, alone)
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

    def _gradients_of(
        self, model: Any, batch: Batch, states: States | None, alone: bool
    ) -> tuple[float, int]:
        """Compute the gradients; return the loss and what it is the mean of.

        Unless they are `alone`, all of them are added to zeros.
        """
        before = None if states is None or model.adversary is None else dict(states)
        value, count, dvectors = self._pass(model, batch, states, alone)
        if model.adversary is not None:
            shift = model.adversary.shift(model, batch, dvectors)
            self._pass(model, batch, before, False, shift)
        return value, count

    def _pass(
        self, model: Any, batch: Batch, states: States | None, alone: bool, shift: Any = None
    ) -> tuple[float, int, Any]:
        """Go forward and backward: return the loss, what it is the mean of, and a gradient.

        That is the one of the vectors which a `shift` is added to; it is computed only where there
        is an adversary, who needs it. Metrics do not measure what is shifted.
        """
        fused = model._fused
        output, mask, ways = model._forward(batch.x, batch.mask, fused, states, shift)
        value, count, dy = self._scored(model, batch, output, mask, fused, shift is None)
        attacked = model.adversary is not None and shift is None
        wanted = model._first_vectors if attacked else len(ways)
        return value, count, self._back(ways, dy, wanted, alone)

    def _scored(
        self,
        model: Any,
        batch: Batch,
        output: np.ndarray,
        mask: Any,
        fused: bool,
        measured: bool = True,
    ) -> tuple[float, int, np.ndarray]:
        """Return the loss of an output, what it is the mean of, and its gradient."""
        count = model.loss.count(batch.y, output.shape, mask)
        value, dy = model._scored(batch, output, mask, fused, measured=measured)
        if not math.isfinite(value):
            self._clear_all()
            raise NonFiniteError(f"the loss is {value}; no weight was changed by it")
        return value, count, dy

    def _back(self, ways: Sequence[Backward], dy: Any, wanted: int, alone: bool) -> Any:
        """Go back: return the gradient of the input of the layer at a place that is wanted."""
        dvectors = None
        for i in reversed(range(min(self._first, wanted), len(ways))):
            options = {"overwrite": True} if alone and self._overwriting[i] else {}
            dy = ways[i](dy, with_dx=i > self._first or i >= wanted, **options)
            if isinstance(dy, tuple):
                dy = dy[0]  # truncated: the states of the batch before stay as they were
            if i == wanted:
                dvectors = dy
        return dvectors

    # ---- passes by replay

    def _replay_of(self, model: Any, x: np.ndarray) -> Replay | None:
        """Return what computes the passes of a batch by replay, or None while that does not pay."""
        if not x.size:
            return None
        fused = model._fused
        if self._replay is not None and self._replay.fits(x, fused):
            return self._replay
        self._repeats = self._repeats + 1 if x.shape == self._shape else 0
        self._shape = x.shape
        if self._repeats < REPEATS:
            return None
        replay = Replay(model.layers, x.shape, fused)
        if not replay.fits(x, fused):
            self._repeats = -math.inf  # until another shape comes
            return None
        return replay

    def _again(self, model: Any, batch: Batch, replay: Replay) -> tuple[float, int]:
        """Go forward and backward by replay, or for the first time, to be recorded."""
        fused = model._fused

        def forward(x: np.ndarray) -> tuple[np.ndarray, list[Backward]]:
            output, _, ways = model._forward(x, None, fused)
            return output, ways

        try:
            output = replay.forward(batch.x, forward).copy()  # which losses and metrics may keep
        except ValueError:
            # Ids have changed after they were checked: this names the layer.
            model.layers[0].check(batch.x)
            raise
        value, count, dy = self._scored(model, batch, output, None, fused)
        shape_of("dy", np.asarray(dy), output.shape, f"{model.layers[-1].name}: ")
        replay.backward(dy, lambda ways, dy: self._back(ways, dy, len(ways), True))
        if replay is not self._replay:
            if replay.prepare():
                self._replay = replay
            else:
                self._repeats = -math.inf  # until another shape comes
        return value, count
