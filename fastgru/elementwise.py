"""Layers that change each value by itself, and drop whole features or steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru.kernels.names import ACTIVATIONS
from fastgru.layers import Backward, Dropout, Layer, activate, activation_gradient, activation_name
from fastgru.streaming import Stream
from fastgru.validation import numbers, one_of, shape_of


class Activation(Layer):
    """Apply an activation to every value; softmax to every row of the last axis.

    Input any shape -> Output the same shape.

    Parameters
    ----------
    activation : str
        linear, tanh, sigmoid, relu, softmax, hard_sigmoid, elu, selu, softplus or gelu.
    dtype, seed, name
        As in `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> Activation("relu")(np.array([[-1.0, 2.0]])).tolist()
    [[0.0, 2.0]]
    """

    def __init__(self, activation: str | None, **options: Any) -> None:
        super().__init__(**options)
        self.activation = activation_name("activation", activation, (*ACTIVATIONS, "softmax"))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {"activation": self.activation, **super().get_config()}

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function of one time step of `batch_size` streams: see `Layer.stream`."""
        n = self._streams(batch_size)
        x = np.zeros((n, (self.input_shape or (1,))[-1] or 1), self.dtype)
        y = np.zeros_like(x)
        return Stream(x, y, lambda: activate(self.activation, x, y), owner=f"{self.name}: ")

    @property
    def last_activation(self) -> str:
        """The activation."""
        return self.activation

    def infer(
        self, x: Any, mask: Any, lengths: Any, initial_state: Any, *, logits: bool = False
    ) -> np.ndarray:
        """Apply the activation, or with `logits` none."""
        return self.forward(x, logits=logits)[0]

    def forward(
        self,
        x: Any,
        mask: Any = None,
        lengths: Any = None,
        initial_state: Any = None,
        *,
        logits: bool = False,
    ) -> tuple[np.ndarray, Backward]:
        """Apply the activation, or with `logits` none; `backward` multiplies with its slope."""
        x = numbers("x", x, self.dtype, f"{self.name}: ")
        if x.ndim < 2:
            raise ValueError(f"{self.name}: x: expected shape (batch, ...), given {x.shape}")
        self.build(x.shape)
        if logits:
            # A copy, which may be overwritten: the layer below may need its output again.
            return x.copy(), lambda dy, with_dx=True: dy
        y = np.empty_like(x)
        activate(self.activation, x, y)

        def backward(dy: Any, with_dx: bool = True) -> np.ndarray:
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, x.shape, f"{self.name}: ")
            return activation_gradient(self.activation, dy, x, y)

        return y, backward


class SpatialDropout1D(Dropout):
    """Set a random share of the features to zero in training, each in all steps of its row.

    Input (B, T, I) -> Output the same shape. Inference passes everything on unchanged. With
    ``"steps"`` whole steps are set to zero instead: behind an `Embedding` that is word dropout.

    Parameters
    ----------
    rate : float
        The share of features, or steps, that are set to zero, in [0, 1); the others are scaled up.
    drop : str
        ``"features"`` or ``"steps"``.
    dtype, seed, name
        As in `Layer`.

    Notes
    -----
    Tompson et al. 2015, arXiv:1411.4280, section 3.2; Gal and Ghahramani 2016, arXiv:1512.05287,
    section 4.2, for words (theirs drops all of the same word together).
    """

    def __init__(self, rate: float, drop: str = "features", **options: Any) -> None:
        super().__init__(rate, **options)
        self.drop = one_of("drop", drop, ("features", "steps"))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {"drop": self.drop, **super().get_config()}

    def _drawn(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3:
            raise ValueError(
                f"{self.name}: x: expected shape (batch, steps, inputs), given {shape}"
            )
        B, T, I = shape
        return (B, 1, I) if self.drop == "features" else (B, T, 1)
