"""Where every random number of the library comes from."""

from __future__ import annotations

import numpy as np

_parent = np.random.default_rng()


def set_random_seed(seed: int) -> None:
    """Make all that follows repeatable: initial weights, shuffling, dropout.

    The same program with the same seed gives the same bits in every run on a machine.

    Parameters
    ----------
    seed : int
        Zero or more.

    Raises
    ------
    ValueError
        If `seed` is not an integer >= 0.
    """
    global _parent
    if seed is None:
        raise ValueError("seed: expected an integer >= 0, given None")
    _parent = generator(seed)


def generator(seed: int | None = None) -> np.random.Generator:
    """Return a generator with a seed of its own, or one drawn from `set_random_seed`'s."""
    if seed is None:
        return np.random.default_rng(_parent.integers(2**63))
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: expected an integer >= 0, given {seed!r}")
    return np.random.default_rng(seed)
