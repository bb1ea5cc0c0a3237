"""Arrays by name, whose names and places in memory stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from fastgru import kernels
from fastgru.validation import numbers, shape_of


class Arrays(dict[str, np.ndarray]):
    """A dict of arrays as the kernels want them. Assigning to a name copies into its array.

    So the arrays keep their shapes, dtype and memory: whoever holds one sees every change.

    Parameters
    ----------
    label : str
        What errors call it.
    dtype : numpy.dtype
        Of all arrays.
    arrays : dict, optional
        The arrays; those that kernels cannot take, such as read-only ones, are copied.
    """

    def __init__(self, label: str, dtype: Any, arrays: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._label = label
        self._dtype = dtype
        self.hold(arrays or {})

    def hold(self, arrays: Mapping[str, Any]) -> None:
        """Take arrays in under new names."""
        super().update({k: kernels.as_kernel_array(v, self._dtype) for k, v in arrays.items()})

    def __missing__(self, name: str) -> NoReturn:
        """Tell the names that there are."""
        raise KeyError(f"{self._label}: expected one of {list(self)}, given {name!r}")

    def __setitem__(self, name: str, values: Any) -> None:
        """Copy values into the array of that name."""
        self.update({name: values})

    def update(self, *others: Any, **more: Any) -> None:
        """Copy values into the arrays of these names, all or none.

        Raises
        ------
        KeyError
            If there is no such name; the message lists those that there are.
        ValueError, TypeError
            If a shape differs, or the values are no real numbers.
        """
        checked = []
        for name, values in dict(*others, **more).items():
            own, label = self[name], f"{self._label}[{name!r}]"
            # A copy, since the values may be a view of one of these arrays.
            array = np.array(numbers(label, values, self._dtype))
            shape_of(label, array, own.shape)
            checked.append((own, array))
        for own, array in checked:
            own[...] = array

    def __ior__(self, other: Any) -> Arrays:  # type: ignore[override,misc]
        """Copy values into the arrays of these names, all or none."""
        self.update(other)
        return self

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(
            f"{self._label}: expected new values for a name, given a change of the names"
        )

    __delitem__ = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> Any:
        """Copy and pickle; what arrives is made fit for the kernels again."""
        return Arrays, (self._label, self._dtype, dict(self))
