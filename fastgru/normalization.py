"""Layer normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastgru import initializers, kernels
from fastgru.layers import Backward, Layer, Shape
from fastgru.streaming import Stream
from fastgru.validation import numbers, positive, shape_of, step_mask, visible


class LayerNormalization(Layer):
    """Give the features of every step mean 0 and variance 1, then a scale and an offset each.

    Input (..., K) -> Output the same shape.

    ::

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    with mean and variance over the last axis. At masked steps y is `beta`.

    Parameters
    ----------
    epsilon : float
        What is added to the variance, > 0.
    center, scale : bool
        Whether there is a `beta`, and a `gamma`.
    dtype, seed, name
        As in `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> LayerNormalization()(np.array([[1.0, 3.0]])).round(2).tolist()
    [[-1.0, 1.0]]

    Notes
    -----
    Ba et al. 2016, arXiv:1607.06450.
    """

    def __init__(
        self, epsilon: float = 1e-3, center: bool = True, scale: bool = True, **options: Any
    ) -> None:
        super().__init__(**options)
        self.epsilon = positive("epsilon", epsilon)
        self.center, self.scale = bool(center), bool(scale)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        own = {"epsilon": self.epsilon, "center": self.center, "scale": self.scale}
        return {**own, **super().get_config()}

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return gamma (K,) and beta (K,), those that there are."""
        K = input_shape[-1]
        if K is None or K < 1:
            raise ValueError(f"{self.name}: x: expected a last axis of 1 or more, given {K}")
        there = {"gamma": self.scale, "beta": self.center}
        return {name: (K,) for name, is_there in there.items() if is_there}

    def initializer(self, name: str) -> Callable[..., np.ndarray]:
        """Return ones for gamma, zeros for beta."""
        return initializers.zeros if name == "beta" else lambda shape, random: np.ones(shape)

    def _pair(self, arrays: dict[str, np.ndarray], K: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what stands for gamma and beta among some arrays, where one may be missing."""
        gamma, beta = arrays.get("gamma"), arrays.get("beta")
        return (
            np.ones(K, self.dtype) if gamma is None else gamma,
            np.zeros(K, self.dtype) if beta is None else beta,
        )

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function of one time step of `batch_size` streams: see `Layer.stream`."""
        n = self._streams(batch_size)
        x = np.zeros((n, (self.input_shape or (1,))[-1] or 1), self.dtype)
        y, normal, scales = np.zeros_like(x), np.zeros_like(x), np.zeros(n, self.dtype)
        gamma, beta = self._pair(self._params, x.shape[1])

        def run() -> None:
            kernels.normalization_forward(x, gamma, beta, self.epsilon, (y, normal, scales))

        return Stream(x, y, run, owner=f"{self.name}: ")

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[np.ndarray, Backward]:
        """Normalize; `backward` adds to the gradients of gamma and beta."""
        owner = f"{self.name}: "
        x = numbers("x", x, self.dtype, owner)
        if x.ndim < 2:
            raise ValueError(f"{owner}x: expected shape (batch, ..., K), given {x.shape}")
        mask = step_mask(mask, lengths, x.shape[0], x.shape[1], owner, x.shape[2:-1])
        self.build(x.shape)
        K = (self.input_shape or x.shape)[-1] or 0
        shape_of("x", x, (*x.shape[:-1], K), owner)
        x = visible(x, mask)
        gamma, beta = self._pair(self._params, K)
        rows = x.reshape(x.size // K, K)
        y, normal, scales = kernels.normalization_forward(rows, gamma, beta, self.epsilon)
        once = self._once()

        def backward(dy: Any, with_dx: bool = True) -> np.ndarray:
            once()
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, x.shape, f"{self.name}: ")
            with self._adding.now:
                gradients = self._pair(self._grads, K)
                dy = dy.reshape(rows.shape)
                dx = kernels.normalization_backward(dy, normal, scales, gamma, *gradients)
            return visible(dx.reshape(x.shape), mask)

        return y.reshape(x.shape), backward
