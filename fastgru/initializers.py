"""Initial weights, seeded."""

from __future__ import annotations

import math

import numpy as np

Shape = tuple[int, ...]


def zeros(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return zeros."""
    return np.zeros(shape)


def unit_forget_bias(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return zeros, but ones for the second of four gates, an LSTM's forget gate.

    Source: Jozefowicz et al. 2015, "An empirical exploration of recurrent network architectures".
    """
    bias = np.zeros((4, shape[0] // 4))
    bias[1] = 1
    return bias.reshape(shape)


def uniform(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values from U(-0.05, 0.05), Keras' choice for embeddings."""
    return random.uniform(-0.05, 0.05, shape)


def glorot_uniform(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values from U(-l, l), l = sqrt(6 / (rows + columns)).

    Source: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward
    neural networks", equation 16.
    """
    limit = math.sqrt(6.0 / sum(shape))
    return random.uniform(-limit, limit, shape)


def orthogonal(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return a matrix with orthonormal rows, or columns where it has more rows than columns.

    Source: Saxe et al. 2014, arXiv:1312.6120.
    """
    rows, columns = shape
    q, r = np.linalg.qr(random.normal(size=(max(shape), min(shape))))
    # QR leaves the signs to the library; this makes q uniformly distributed.
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T
