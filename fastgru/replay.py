"""Passes forward and backward that are made again from the calls of their kernels alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.layers import Backward, Dense, Embedding, Layer
from fastgru.pooling import GlobalAveragePooling1D, GlobalMaxPooling1D
from fastgru.recurrent import CELLS, Recurrent

# So many batches of one shape in a row are trained on before the next one is recorded: that takes
# as long as two of them, and where nothing is in the disk cache most of a second.
REPEATS = 8

# Exactly these: what a user makes of them may do anything.
KINDS = frozenset((*CELLS.values(), Dense, Embedding, GlobalAveragePooling1D, GlobalMaxPooling1D))


def is_one_of(layer: Layer, kinds: Collection[type[Layer]]) -> bool:
    """Return whether a layer is one of these kinds exactly, and nobody has changed its forward."""
    return type(layer) in kinds and "forward" not in vars(layer)


def is_repeatable(layers: list[Layer]) -> bool:
    """Return whether layers do nothing in training without a mask but call the same kernels.

    Nothing is drawn, carried over, or computed in NumPy then, nor copied to fit the next layer.
    """
    dtype = layers[0].dtype
    for layer in layers:
        if not is_one_of(layer, KINDS) or layer.dtype is not dtype:
            return False
        if isinstance(layer, Recurrent):
            if layer.dropout or layer.recurrent_dropout or layer.stateful or layer.return_state:
                return False
            if layer.is_custom:
                return False
        elif isinstance(layer, Embedding) and layer.mask_zero:
            return False
    return True


class Replay:
    """One pass forward and one backward over batches of a shape, from the second on by replay.

    The first pass is made as any other, and recorded: all that it has computed stays in memory, for
    the next one to overwrite.

    Parameters
    ----------
    layer : Layer
        The first layer of the model, whose layers are repeatable.
    shape : tuple
        The shape of the batches.
    """

    def __init__(self, layer: Layer, shape: tuple[int, ...]) -> None:
        self._x = np.empty(shape, np.int64 if isinstance(layer, Embedding) else layer.dtype)
        self._output = self._dy = self._x  # until the first passes
        self._ways: list[Backward] = []
        self._forward: Any = None  # a recording, as the next one
        self._backward: Any = None

    def fits(self, x: np.ndarray) -> bool:
        """Return whether a batch is one of those."""
        return x.shape == self._x.shape

    def forward(
        self, x: np.ndarray, first: Callable[[np.ndarray], tuple[np.ndarray, list[Backward]]]
    ) -> np.ndarray:
        """Return the output; `first` computes it from an x, and returns the ways back, too."""
        np.copyto(self._x, x, casting="unsafe")
        if self._forward is not None:
            kernels.replay(self._forward)
            return self._output
        with kernels.recorded() as noted:
            self._output, self._ways = first(self._x)
        self._forward = noted
        return self._output

    def backward(self, dy: np.ndarray, first: Callable[[list[Backward], np.ndarray], Any]) -> None:
        """Add to the gradients; `first` does so, given the ways back and a dy."""
        if self._backward is not None:
            np.copyto(self._dy, dy)
            kernels.replay(self._backward)
            return
        ways, self._ways = self._ways, []
        if not self._forward.is_small:
            first(ways, dy)
            return
        self._dy = np.array(dy, self._output.dtype)
        with kernels.recorded() as noted:
            first(ways, self._dy)
        self._backward = noted

    def settle(self) -> bool:
        """Get ready after the first passes; return whether it pays to make them again.

        It does not where kernels take long, and what they have computed takes much memory.
        """
        recordings = self._forward, self._backward
        if any(noted is None or not noted.is_small for noted in recordings):
            return False
        for noted in recordings:
            noted.prepare()
        return True
