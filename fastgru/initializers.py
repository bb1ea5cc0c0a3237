"""Initial weights, seeded.

An initializer is a function of a shape and a `numpy.random.Generator` that returns an array of that
shape. `INITIALIZERS` has those with a name; the formulas are Keras'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastgru.validation import finite, made_from, one_of

Shape = tuple[int, ...]
Initializer = Callable[[Shape, np.random.Generator], np.ndarray]


def zeros(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return zeros of a `shape`; nothing is `random`."""
    return np.zeros(shape)


def ones(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return ones of a `shape`; nothing is `random`."""
    return np.ones(shape)


class Constant:
    """An initializer that gives one value everywhere.

    Parameters
    ----------
    value : float
        The value.
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = finite("value", value)

    def __call__(self, shape: Shape, random: np.random.Generator) -> np.ndarray:
        """Return the value in an array of a `shape`; nothing is `random`."""
        return np.full(shape, self.value)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {"name": "constant", "value": self.value}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make an initializer from what `get_config` returned."""
        return cls(**{key: value for key, value in config.items() if key != "name"})


def with_forget_bias(begin: Initializer) -> Initializer:
    """Return the initializer `begin` with ones for the second of four gates, an LSTM's forget gate.

    Source: Jozefowicz et al. 2015, "An empirical exploration of recurrent network architectures".
    """

    def initialize(shape: Shape, random: np.random.Generator) -> np.ndarray:
        bias = np.array(begin(shape, random)).reshape(4, -1)
        bias[1] = 1
        return bias.reshape(shape)

    return initialize


def random_uniform(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a `shape` from U(-0.05, 0.05), `random`: Keras' choice for embeddings."""
    return random.uniform(-0.05, 0.05, shape)


def random_normal(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a `shape` from N(0, 0.05^2), `random`."""
    return random.normal(0, 0.05, shape)


def _fans(shape: Shape) -> tuple[int, int]:
    """Return how many numbers meet in an output, and how many outputs there are."""
    return (shape[0], shape[0]) if len(shape) == 1 else (shape[-2], shape[-1])


def _uniform(variance: float, shape: Shape, random: np.random.Generator) -> np.ndarray:
    limit = math.sqrt(3 * variance)
    return random.uniform(-limit, limit, shape)


# The standard deviation of N(0, 1) without what is beyond -2 and 2.
TRUNCATED = 0.87962566103423978


def _normal(variance: float, shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a normal distribution without its tails, which has that variance."""
    values = random.normal(size=shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = random.normal(size=np.count_nonzero(outside))
    return values * (math.sqrt(variance) / TRUNCATED)


def glorot_uniform(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a `shape` from U(-l, l), l = sqrt(6 / (rows + columns)), `random`.

    Source: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward
    neural networks", equation 16.
    """
    limit = math.sqrt(6.0 / sum(_fans(shape)))
    return random.uniform(-limit, limit, shape)


def glorot_normal(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a `shape`, normal and of variance 2 / (rows + columns), `random`.

    Source: that of `glorot_uniform`.
    """
    return _normal(2 / sum(_fans(shape)), shape, random)


def he_uniform(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a `shape`, uniform and of variance 2 / rows, `random`: for relu.

    Source: He et al. 2015, arXiv:1502.01852.
    """
    return _uniform(2 / _fans(shape)[0], shape, random)


def he_normal(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a `shape`, normal and of variance 2 / rows, `random`: for relu.

    Source: He et al. 2015, arXiv:1502.01852.
    """
    return _normal(2 / _fans(shape)[0], shape, random)


def lecun_uniform(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a `shape`, uniform and of variance 1 / rows, `random`: for selu.

    Source: LeCun et al. 1998, "Efficient backprop"; Klambauer et al. 2017, arXiv:1706.02515.
    """
    return _uniform(1 / _fans(shape)[0], shape, random)


def lecun_normal(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return values of a `shape`, normal and of variance 1 / rows, `random`: for selu.

    Source: that of `lecun_uniform`.
    """
    return _normal(1 / _fans(shape)[0], shape, random)


def orthogonal(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Return a matrix of a `shape` with orthonormal rows, or columns where it has more rows.

    It is uniformly distributed among them, `random`. Source: Saxe et al. 2014, arXiv:1312.6120.
    """
    if len(shape) != 2:
        raise ValueError(f"orthogonal: expected the shape of a matrix, given {shape}")
    rows, columns = shape
    q, r = np.linalg.qr(random.normal(size=(max(shape), min(shape))))
    # QR leaves the signs to the library; this makes q uniformly distributed.
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T


_FUNCTIONS: tuple[Initializer, ...] = (
    glorot_normal, glorot_uniform, he_normal, he_uniform, lecun_normal, lecun_uniform, ones,
    orthogonal, random_normal, random_uniform, zeros,
)  # fmt: skip
INITIALIZERS: dict[str, Any] = {
    "constant": Constant,
    **{f.__name__: f for f in _FUNCTIONS},
}


def get(name: str, identifier: Any) -> Initializer:
    """Return an initializer.

    Parameters
    ----------
    name : str
        What errors call the option.
    identifier : str, dict or callable
        A name, the config of a `Constant`, or a function of a shape and a generator.

    Raises
    ------
    ValueError, TypeError
        If it is none of these; the message lists the names.
    """
    if callable(identifier):
        return identifier
    if isinstance(identifier, dict):
        return made_from(name, identifier, {"constant": Constant})
    found = INITIALIZERS[one_of(name, identifier, INITIALIZERS)]
    return found() if found is Constant else found


def config_of(initializer: Initializer) -> Any:
    """Return what `get` makes an `initializer` of again: a name, a config, or itself."""
    if isinstance(initializer, Constant):
        return initializer.get_config()
    name = getattr(initializer, "__name__", None)
    return name if INITIALIZERS.get(name or "") is initializer else initializer
