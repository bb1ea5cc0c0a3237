"""The vectors of words that are the weights of the output layer, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.layers import Backward, Dense, Embedding, Shape
from fastgru.validation import numbers, shape_of, visible


class TiedEmbedding(Embedding):
    """The columns of an output layer's kernel as vectors.

    It holds the arrays of that layer, which must be built, and adds to its gradients. Source: Press
    and Wolf 2017, arXiv:1608.05859.

    Parameters
    ----------
    output : Dense
        The layer.
    scale : float
        What the vectors are multiplied by: sqrt(units) makes inputs of variance 1 of what is good
        as an output's weights (Vaswani et al. 2017, arXiv:1706.03762, section 3.4).
    dtype, seed, name, trainable
        As in `Layer`.
    """

    def __init__(self, output: Dense, scale: float = 1.0, **options: Any) -> None:
        super().__init__(output.units, output.weights()["kernel"].shape[0], **options)
        self._output = output
        self._scale = self.dtype.type(scale)
        self._tie()

    def _tie(self) -> None:
        """Hold the arrays of the output layer."""
        self._params, self._grads = self._output._params, self._output._grads

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` returned."""
        super().__setstate__(state)
        self._tie()

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the output's weights."""
        return {name: array.shape for name, array in self._params.items()}

    def build(self, input_shape: Shape, weights: dict[str, np.ndarray] | None = None) -> None:
        """Note the shape; the weights are there."""
        self.input_shape = (None, *input_shape[1:])

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return nothing: the output's weights are its own to train."""
        return []

    def count_params(self) -> int:
        """Return 0, as these weights are counted elsewhere."""
        return 0

    def _vectors(self, used: Any = slice(None)) -> np.ndarray:
        """Return some vectors as rows, which are faster to find than columns."""
        vectors: np.ndarray = np.multiply(self._params["kernel"][:, used].T, self._scale, order="C")
        return vectors

    def stream(self, batch_size: int = 1) -> Any:
        """Return a function of one time step, with `batch_size` ids as its input."""
        layer = Embedding(self.input_dim, self.output_dim, dtype=self.dtype.name, name=self.name)
        layer.build((None, None), {"embeddings": self._vectors()})
        return layer.stream(batch_size)

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[np.ndarray, Backward]:
        """Look the vectors up; `backward` adds their gradients to the columns they came from."""
        if mask is not None or lengths is not None:
            x, mask = self._masked(x, mask, lengths)
        ids = self._ids(x)
        self.build(ids.shape)
        flat: np.ndarray = ids.reshape(-1)
        used: Any = slice(None)
        if flat.size < self.input_dim:  # few words of many: the others are left alone
            used, flat = np.unique(flat, return_inverse=True)
            flat = flat.reshape(-1)
        table = self._vectors(used)
        once = self._once()

        def backward(dy: Any, with_dx: bool = False) -> None:
            once()
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, (*ids.shape, self.output_dim), f"{self.name}: ")
            if not self._output.trainable:
                return
            dy = visible(dy, mask)
            dtable = np.zeros_like(table)
            kernels.embedding_backward(dy.reshape(-1, self.output_dim), flat, dtable)
            dtable *= self._scale
            with self._output._adding.now:
                self._grads["kernel"][:, used] += dtable.T

        y = kernels.embedding_forward(flat, table)
        return y.reshape(*ids.shape, self.output_dim), backward
