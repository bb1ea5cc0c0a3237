"""Where every random number of the library comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru.validation import non_negative_int

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
    ValueError, TypeError
        If `seed` is not an integer >= 0.
    """
    global _parent
    _parent = generator(non_negative_int("seed", seed))


def generator(seed: int | None = None) -> np.random.Generator:
    """Return a generator with a seed of its own, or one drawn from `set_random_seed`'s."""
    if seed is None:
        return np.random.default_rng(_parent.integers(2**63))
    return np.random.default_rng(non_negative_int("seed", seed))


def get_state() -> dict[str, Any]:
    """Return where the generator of `set_random_seed` is."""
    return dict(_parent.bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Go back to what `get_state` returned.

    Raises
    ------
    ValueError, TypeError, KeyError, OverflowError
        If it is not such a state.
    """
    _parent.bit_generator.state = state
