"""Pooling over time: one vector for each sequence, from the steps that count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.layers import Backward, Layer, Shape
from fastgru.validation import numbers, shape_of, step_mask


class Pooling(Layer):
    """What the layers that pool over time have in common."""

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return no shapes, or raise if the input has no axis of steps."""
        if len(input_shape) != 3:
            raise ValueError(
                f"{self.name}: x: expected shape (batch, steps, inputs), given {input_shape}"
            )
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape without the steps."""
        return input_shape[0], input_shape[-1]

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> None:
        """Return None: there are no steps any more."""

    def _pool(
        self, x: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Return the output, and what gives dx for dy."""
        raise TypeError(f"{type(self).__name__} does not define _pool")

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[np.ndarray, Backward]:
        """Pool the steps that `mask` and `lengths` leave."""
        owner = f"{self.name}: "
        x = numbers("x", x, self.dtype, owner)
        shape_of("x", x, ("batch", "steps", "inputs"), owner)
        mask = step_mask(mask, lengths, x.shape[0], x.shape[1], owner)
        self.build(x.shape)
        y, back = self._pool(x, mask)

        def backward(dy: Any, with_dx: bool = True) -> np.ndarray:
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, y.shape, f"{self.name}: ")
            return back(dy)

        return y, backward


class GlobalAveragePooling1D(Pooling):
    """Average the steps of each sequence.

    Input (B, T, I) -> Output (B, I). Masked steps do not count, whatever they hold; where no step
    counts the output is 0.

    Parameters
    ----------
    dtype, seed, name
        As in `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0], [3.0], [9.0]]])
    >>> GlobalAveragePooling1D()(x, lengths=[2]).tolist()
    [[2.0]]
    """

    def _pool(
        self, x: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        y = kernels.average_pool_forward(x, mask)
        return y, lambda dy: kernels.average_pool_backward(dy, mask, x.shape[1])


class GlobalMaxPooling1D(Pooling):
    """Take the largest value of each feature over the steps of each sequence.

    Input (B, T, I) -> Output (B, I). Masked steps do not count, whatever they hold; where no step
    counts the output is 0. Of equal values the first has the gradient.

    Parameters
    ----------
    dtype, seed, name
        As in `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0], [3.0], [9.0]]])
    >>> GlobalMaxPooling1D()(x, lengths=[2]).tolist()
    [[3.0]]
    """

    def _pool(
        self, x: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        y, places = kernels.max_pool_forward(x, mask)
        return y, lambda dy: kernels.max_pool_backward(dy, places, x.shape[1])


class GlobalMaxAveragePooling1D(Pooling):
    """Take the largest value and the average of each feature over the steps of each sequence.

    Input (B, T, I) -> Output (B, 2 I), the maxima before the averages. Masked steps do not count,
    as in `GlobalMaxPooling1D` and `GlobalAveragePooling1D`.

    Parameters
    ----------
    dtype, seed, name
        As in `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0], [3.0], [9.0]]])
    >>> GlobalMaxAveragePooling1D()(x, lengths=[2]).tolist()
    [[3.0, 2.0]]

    Notes
    -----
    Howard and Ruder 2018, arXiv:1801.06146, section 3.3 ("concat pooling").
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape without the steps, with two values for each feature."""
        features = input_shape[-1]
        return input_shape[0], None if features is None else 2 * features

    def _pool(
        self, x: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        largest, places = kernels.max_pool_forward(x, mask)
        average = kernels.average_pool_forward(x, mask)
        T, I = x.shape[1:]

        def back(dy: np.ndarray) -> np.ndarray:
            dlargest, daverage = (np.ascontiguousarray(half) for half in (dy[:, :I], dy[:, I:]))
            dx = kernels.max_pool_backward(dlargest, places, T)
            dx += kernels.average_pool_backward(daverage, mask, T)
            return dx

        return np.concatenate([largest, average], axis=1), back
