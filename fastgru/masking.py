"""Masks made from what steps hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru.layers import Backward, Layer
from fastgru.streaming import Stream
from fastgru.validation import finite, numbers, shape_of, visible


class Masking(Layer):
    """Let the layers that follow skip the steps whose features are all equal to one value.

    Input (B, T, I) -> Output the same, with zeros at the steps that are skipped. It belongs at the
    beginning of a model, before anything has changed the values.

    Parameters
    ----------
    mask_value : float
        The value that stands for padding.
    dtype, seed, name
        As in `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> Masking().output_mask(np.array([[[1.0, 0.0], [0.0, 0.0]]]), None)
    array([[ True, False]])
    """

    def __init__(self, mask_value: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.mask_value = finite("mask_value", mask_value)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {"mask_value": self.mask_value, **super().get_config()}

    def _real(
        self, x: np.ndarray, differs: np.ndarray | None = None, real: np.ndarray | None = None
    ) -> np.ndarray:
        """Return which rows of the last axis are not padding, in new arrays or in these."""
        # In the layer's dtype, in which 0.1 is another number than in Python's.
        return np.not_equal(x, self.dtype.type(self.mask_value), differs).any(axis=-1, out=real)

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
        """Return where the input is not padding, nor masked already."""
        real = self._real(self._input(x))
        return real if mask is None else real & mask

    def _input(self, x: Any) -> np.ndarray:
        owner = f"{self.name}: "
        x = numbers("x", x, self.dtype, owner)
        shape_of("x", x, ("batch", "steps", "inputs"), owner)
        return x

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function that gives back its input, `batch_size` rows, none of them padding."""
        n = self._streams(batch_size)
        x = np.zeros((n, (self.input_shape or (1,))[-1] or 1), self.dtype)
        differs, real = np.empty(x.shape, np.bool_), np.empty(n, np.bool_)

        def run() -> None:
            if not self._real(x, differs, real).all():
                raise ValueError(
                    f"{self.name}: x: a row of {self.mask_value} is padding; leave such a step out"
                )

        return Stream(x, x, run, owner=f"{self.name}: ")

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[np.ndarray, Backward]:
        """Clear the steps to be skipped; `backward` clears their gradients."""
        x = self._input(x)
        self.build(x.shape)
        real = self._real(x)

        def backward(dy: Any, with_dx: bool = True) -> np.ndarray:
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, x.shape, f"{self.name}: ")
            return visible(dy, real)

        return visible(x, real), backward
