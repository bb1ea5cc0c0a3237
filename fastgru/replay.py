"""Passes forward and backward that are made again from the calls of their kernels alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.layers import Backward, Dense, Embedding, Layer, packing_anew
from fastgru.pooling import GlobalAveragePooling1D, GlobalMaxPooling1D
from fastgru.recurrent import CELLS, Recurrent

# So many batches of one shape in a row are trained on before the next one is recorded: that takes
# as long as two of them, and where nothing is in the disk cache most of a second.
REPEATS = 8

# Exactly these, and their own `forward`: what a user makes of them may do anything.
_KINDS: tuple[type[Layer], ...] = (
    *CELLS.values(), Dense, Embedding, GlobalAveragePooling1D, GlobalMaxPooling1D,
)  # fmt: skip
KINDS = {kind: kind.forward for kind in _KINDS}


def is_one_of(layer: Layer, kinds: Mapping[type[Layer], Any]) -> bool:
    """Return whether a layer is one of these kinds exactly, and nobody has changed its forward."""
    kind = type(layer)
    return kinds.get(kind) is kind.forward and "forward" not in vars(layer)


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


class Snapshot:
    """Layers and all their attributes, to tell whether they are still the same.

    What layers work out by themselves, their packed weights for instance, does not count.
    """

    def __init__(self, layers: list[Layer]) -> None:
        self._seen = [(layer, type(layer).forward, self._told(layer)) for layer in layers]

    @staticmethod
    def _told(layer: Layer) -> dict[str, Any]:
        if isinstance(layer, Recurrent):
            layer.settle()
        return dict(vars(layer))

    def shows(self, layers: list[Layer]) -> bool:
        """Return whether these are the layers, and as they were."""
        if len(layers) != len(self._seen):
            return False
        for layer, (seen, forward, told) in zip(layers, self._seen, strict=True):
            if layer is not seen or type(layer).forward is not forward:
                return False
            now = vars(layer)
            told["_packed"] = now["_packed"]
            try:
                if now != told:
                    return False
            except ValueError:  # arrays of a user's, which are others
                return False
        return True


class Replay:
    """One pass forward and one backward over batches of a shape, from the second on by replay.

    The first pass is made as any other, and recorded: all that it has computed stays in memory, for
    the next one to overwrite.

    Parameters
    ----------
    layers : list of Layer
        Those of the model, which are repeatable.
    shape : tuple
        The shape of the batches.
    fused : bool
        Whether the output are logits.
    """

    def __init__(self, layers: list[Layer], shape: tuple[int, ...], fused: bool) -> None:
        first = layers[0]
        self._fused = fused
        # Floats are no ids as they are.
        self._kinds = "iu" if isinstance(first, Embedding) else "iuf"
        self._x = np.empty(shape, np.int64 if isinstance(first, Embedding) else first.dtype)
        self._output = self._dy = self._x  # until the first passes
        self._ways: list[Backward] = []
        self._forward: Any = None  # a recording, as the next one
        self._backward: Any = None

    def fits(self, x: np.ndarray, fused: bool) -> bool:
        """Return whether a batch is one of those."""
        alike = x.shape == self._x.shape and x.dtype.kind in self._kinds
        return alike and fused is self._fused

    def forward(
        self, x: np.ndarray, first: Callable[[np.ndarray], tuple[np.ndarray, list[Backward]]]
    ) -> np.ndarray:
        """Return the output; `first` computes it from an x, and returns the ways back, too."""
        np.copyto(self._x, x, casting="unsafe")
        if self._forward is not None:
            kernels.replay(self._forward)
            return self._output
        # Packing belongs to it, into memory that nobody else is given.
        with kernels.recorded() as noted, packing_anew():
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

    def prepare(self) -> bool:
        """Get ready after the first passes; return whether it pays to make them again.

        It does not where kernels take long, and what they have computed takes much memory.
        """
        recordings = self._forward, self._backward
        if any(noted is None or not noted.is_small for noted in recordings):
            return False
        for noted in recordings:
            noted.prepare()
        return True
