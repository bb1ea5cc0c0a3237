"""What large weights cost: added to the loss that is trained on, and to the gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgru.validation import made_from, non_negative


class L1L2:
    """The cost l1 * sum |w| + l2 * sum w^2 of weights w.

    A cost of your own is a subclass with other `value` and `gradient`.

    Parameters
    ----------
    l1, l2 : float
        How much the sums weigh.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = non_negative("l1", l1)
        self.l2 = non_negative("l2", l2)

    def value(self, w: np.ndarray) -> float:
        """Return the cost of the weights `w`; the sums are made in float64."""
        absolute = self.l1 * np.abs(w).sum(dtype=np.float64) if self.l1 else 0.0
        return float(absolute + self.l2 * np.square(w).sum(dtype=np.float64))

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Return the gradient of the cost of the weights `w`: at 0, the slope of |w| is 0."""
        one = w.dtype.type
        gradient = one(2 * self.l2) * w
        return gradient + one(self.l1) * np.sign(w) if self.l1 else gradient

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {"name": "l1_l2", "l1": self.l1, "l2": self.l2}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a regularizer from what `get_config` returned."""
        return cls(**{key: value for key, value in config.items() if key != "name"})


class L1(L1L2):
    """The cost l1 * sum |w|, which makes small weights zero.

    Parameters
    ----------
    l1 : float
        How much the sum weighs.
    """

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {"name": "l1", "l1": self.l1}


class L2(L1L2):
    """The cost l2 * sum w^2, which makes large weights small.

    Parameters
    ----------
    l2 : float
        How much the sum weighs.
    """

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {"name": "l2", "l2": self.l2}


REGULARIZERS: dict[str, type[L1L2]] = {"l1": L1, "l2": L2, "l1_l2": L1L2}


def get(name: str, identifier: Any) -> L1L2 | None:
    """Return a regularizer.

    Parameters
    ----------
    name : str
        What errors call the option.
    identifier : str, dict, L1L2 or None
        A name, which stands for the defaults, a config, or the thing itself; None costs nothing.

    Raises
    ------
    ValueError, TypeError
        If it is none of these; the message lists the names.
    """
    if identifier is None or isinstance(identifier, L1L2):
        return identifier
    if identifier == "l1_l2":
        return L1L2(0.01, 0.01)  # the class's own defaults, which are Keras', cost nothing
    made: L1L2 = made_from(name, identifier, REGULARIZERS)
    return made


def config_of(regularizer: L1L2 | None) -> Any:
    """Return what `get` makes a `regularizer` of again: a config, None, or itself."""
    if regularizer is None or type(regularizer) not in REGULARIZERS.values():
        return regularizer
    return regularizer.get_config()
