"""Sums of embeddings: words as what they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.layers import Backward, Embedding, Shape
from fastgru.streaming import Stream
from fastgru.validation import numbers, shape_of


class EmbeddingBag(Embedding):
    """Turn each bag of integers into one vector: the sum of their rows of a table.

    Input (B, T, K) or any other shape with a last axis, integers -> Output (B, T, output_dim). The
    integer 0 adds nothing, so bags of different sizes are filled up with it.

    Parameters
    ----------
    input_dim, output_dim, input_length
        As in `Embedding`.
    mask_zero : bool
        Whether a bag of zeros alone is padding: the layers that follow skip it.
    embeddings_initializer, embeddings_regularizer, dtype, seed, name, trainable
        As in `Embedding`.

    Raises
    ------
    ValueError
        If a size is not positive, or an integer is outside 0 ... input_dim - 1 at a step that is
        not masked.

    Examples
    --------
    >>> import numpy as np
    >>> EmbeddingBag(9, 4)(np.array([[[1, 7, 8], [2, 8, 0]]])).shape
    (1, 2, 4)

    Notes
    -----
    With the id of a word and those of its character n-grams in a bag, it is what fastText sums:
    Bojanowski et al. 2017, arXiv:1607.04606.
    """

    @property
    def known_input_shape(self) -> Shape:
        """The shape of any input: its sizes matter to no layer above."""
        return None, self.input_length, None

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape with the last axis replaced by the length of a vector."""
        return super().output_shape(input_shape[:-1])

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
        """Return where a bag is not padding, neither by the mask nor, with mask_zero, by zeros."""
        return super().output_mask(np.asarray(x).max(axis=-1, initial=0), mask)

    def stream(self, batch_size: int = 1) -> Stream:
        """Raise: bags have no size that a stream of `batch_size` rows could keep space for."""
        raise TypeError(f"{self.name}: EmbeddingBag cannot work step by step")

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[np.ndarray, Backward]:
        """Sum the vectors; `backward` adds a sum's gradient to all rows that it came from."""
        if mask is not None or lengths is not None:
            x, mask = self._masked(x, mask, lengths)
        ids = self._ids(x)
        if ids.ndim < 2:
            raise ValueError(f"{self.name}: x: expected shape (..., bag), given {ids.shape}")
        self.build(ids.shape)
        bags = ids.reshape(-1, ids.shape[-1])
        y = kernels.bag_forward(bags, self._params["embeddings"])
        once = self._once()

        def backward(dy: Any, with_dx: bool = False) -> None:
            once()
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, (*ids.shape[:-1], self.output_dim), f"{self.name}: ")
            if not self.trainable:
                return
            with self._adding.now:
                table = self._grads["embeddings"]
                kernels.bag_backward(dy.reshape(y.shape), bags, table)

        return y.reshape(*ids.shape[:-1], self.output_dim), backward
