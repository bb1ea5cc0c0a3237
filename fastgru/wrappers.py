"""Layers around other layers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from fastgru.attention import Attention
from fastgru.bags import EmbeddingBag
from fastgru.elementwise import Activation, SpatialDropout1D
from fastgru.layers import Backward, Dense, Dropout, Embedding, Layer, Shape
from fastgru.normalization import LayerNormalization
from fastgru.pooling import (
    GlobalAveragePooling1D,
    GlobalMaxAveragePooling1D,
    GlobalMaxPooling1D,
)
from fastgru.recurrent import CELLS, Bidirectional
from fastgru.regularizers import L1L2
from fastgru.streaming import Stream
from fastgru.validation import array_of, numbers, one_of, shape_of, sizes, step_mask

# What a step may be given to, by the names in configs.
INNER: dict[str, type[Layer]] = CELLS | {
    c.__name__: c
    for c in (
        Activation,
        Attention,
        Bidirectional,
        Dense,
        Dropout,
        Embedding,
        EmbeddingBag,
        GlobalAveragePooling1D,
        GlobalMaxAveragePooling1D,
        GlobalMaxPooling1D,
        LayerNormalization,
        SpatialDropout1D,
    )
}


class TimeDistributed(Layer):
    """Apply a layer to every step of a sequence by itself, to all steps at once.

    Input (B, T, ...) -> Output (B, T, ...), what the layer makes of (B * T, ...). Masked steps are
    left out: the layer never sees them, and their output is 0. A mask of more axes, such as
    `Embedding` makes of words of characters with `mask_zero`, is the layer's, step by step; steps
    that it masks as a whole are left out.

    Parameters
    ----------
    layer : Layer
        One of fastgru's own layers, not built yet and without states in its output; a layer with
        its config is made from it, so nothing is shared.
    name : str, optional
        As in `Layer`.

    Raises
    ------
    ValueError, TypeError
        If an argument or an input does not fit; the message says what was expected.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru as fg
    >>> TimeDistributed(fg.Dense(8))(np.zeros((2, 5, 3))).shape
    (2, 5, 8)
    >>> TimeDistributed(fg.GRU(8))(np.zeros((2, 5, 4, 3))).shape  # words of 4 characters
    (2, 5, 8)
    """

    def __init__(self, layer: Any, name: str | None = None) -> None:
        if type(layer) not in INNER.values():
            raise TypeError(f"layer: expected one of {', '.join(sorted(INNER))}, given {layer!r}")
        if layer.built:
            raise ValueError(f"layer: expected one that is not built, given {layer.name!r}")
        config = layer.get_config()
        inner = config.get("layer", {}).get("config", config)  # that of a Bidirectional
        for option in ("return_state", "return_weights"):
            if inner.get(option):
                raise ValueError(f"layer: expected one without {option}, given {layer.name!r}")
        super().__init__(dtype=layer.dtype.name, name=name)
        self.layer: Layer = type(layer).from_config(config)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        layer = {"class": type(self.layer).__name__, "config": self.layer.get_config()}
        return {"layer": layer, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a layer from what `get_config` returned."""
        described = config["layer"]
        kind = INNER[one_of("layer", described["class"], INNER)]
        return cls(**config | {"layer": kind.from_config(described["config"])})

    # The params are the layer's own.

    def _step(self, input_shape: Shape) -> Shape:
        """Return the shape that the layer sees."""
        if len(input_shape) < 2:
            raise ValueError(
                f"{self.name}: x: expected shape (batch, steps, ...), given {input_shape}"
            )
        return (None, *input_shape[2:])

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the layer's params."""
        return self.layer.weight_shapes(self._step(input_shape))

    def build(self, input_shape: Shape, weights: dict[str, np.ndarray] | None = None) -> None:
        """Allocate the weights of the layer, unless they are there; see `Layer.build`."""
        if self.built:
            return
        with self._building.now:
            if self.built:
                return
            input_shape = sizes("input_shape", input_shape, f"{self.name}: ")
            self.layer.build(self._step(input_shape), weights)
            self._tie()
            self.input_shape = (None, *input_shape[1:])

    def _tie(self) -> None:
        """Hold the arrays of the layer."""
        self._params, self._grads = self.layer._params, self.layer._grads

    @property
    def params(self) -> dict[str, np.ndarray]:
        """The weights of the layer by name, once it is built."""
        return self.layer.params

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights of the layer."""
        return self.layer.trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if hasattr(self, "layer"):
            self.layer.trainable = value

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the pairs of a param and its gradient that an optimizer works on."""
        return self.layer.pairs()

    def regularizer(self, name: str) -> L1L2 | None:
        """Return what the size of one param costs, as in the layer."""
        return self.layer.regularizer(name)

    def changed(self) -> None:
        """Note that the weights have changed."""
        self.layer.changed()

    def _to_keras(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self.layer._to_keras(values)

    def _from_keras(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        return self.layer._from_keras(arrays)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` returned."""
        super().__setstate__(state)
        self.layer = copy.copy(self.layer)
        self._tie()

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the batch, the steps, and what the layer makes of one step."""
        return (*input_shape[:2], *self.layer.output_shape(self._step(input_shape))[1:])

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
        """Return the mask of the steps, with further axes if the layer's output has them."""
        if mask is None or mask.ndim == 2:
            return mask
        inner = self.layer.output_mask(_gathered(x, None), _gathered(mask, None))
        return _some(mask) if inner is None else inner.reshape(mask.shape)

    def check(self, x: np.ndarray) -> None:
        """Raise unless the values of an input fit the layer."""
        self.layer.check(x)

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function of one time step of `batch_size` streams: that of the layer."""
        self._streams(batch_size)
        if len(self.layer.input_shape or ()) > 2:
            return super().stream(batch_size)
        return self.layer.stream(batch_size)

    def _steps(
        self, x: Any, mask: Any, lengths: Any
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return x, which of its steps count, and the mask inside of these; build the layer."""
        owner = f"{self.name}: "
        x = array_of("x", x, owner)
        self._step(x.shape)
        mask = step_mask(mask, lengths, x.shape[0], x.shape[1], owner, x.shape[2:])
        self.build(x.shape)
        if mask is None:
            return x, None, None
        some = _some(mask)
        inner = mask[some] if mask.ndim > 2 else None
        return x, None if some.all() else some, inner

    def _spread(self, rows: np.ndarray, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Return what the layer has made of the steps that count, in the places of all steps."""
        if mask is None:
            return rows.reshape(*x.shape[:2], *rows.shape[1:])
        y = np.zeros((*x.shape[:2], *rows.shape[1:]), rows.dtype)
        y[mask] = rows
        return y

    @property
    def last_activation(self) -> str | None:
        """The activation that comes last in the layer."""
        return self.layer.last_activation

    def infer(
        self, x: Any, mask: Any, lengths: Any, initial_state: Any, *, logits: bool = False
    ) -> np.ndarray:
        """Apply the layer for inference, with `logits` but for its last activation."""
        x, mask, inner = self._steps(x, mask, lengths)
        options = {"logits": True} if logits else {}
        rows = self.layer.infer(_gathered(x, mask), inner, None, None, **options)
        return self._spread(rows, x, mask)

    def forward(
        self,
        x: Any,
        mask: Any = None,
        lengths: Any = None,
        initial_state: Any = None,
        *,
        logits: bool = False,
    ) -> tuple[np.ndarray, Backward]:
        """Apply the layer, with `logits` but for its last activation; `backward` goes back."""
        x, mask, inner = self._steps(x, mask, lengths)
        options = {"logits": True} if logits else {}
        rows, back = self.layer.forward(_gathered(x, mask), mask=inner, **options)
        y = self._spread(rows, x, mask)

        def backward(dy: Any, with_dx: bool = True) -> np.ndarray | None:
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, y.shape, f"{self.name}: ")
            dx = back(_gathered(dy, mask), with_dx=with_dx)
            return None if dx is None else self._spread(dx, x, mask)

        return y, backward


def _gathered(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return the steps of x (B, T, ...) that count, one behind the other."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]) if mask is None else x[mask]


def _some(mask: np.ndarray) -> np.ndarray:
    """Return the steps (B, T) of which a mask (B, T, ...) leaves something."""
    return np.asarray(mask.any(axis=tuple(range(2, mask.ndim))))
