"""Checks of what users give: each error names the argument, what was given, what was expected."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastgru import kernels


def positive_int(name: str, value: Any) -> int:
    """Return a positive integer, or raise."""
    return _integer(name, value, 1, "a positive integer")


def non_negative_int(name: str, value: Any) -> int:
    """Return an integer >= 0, or raise."""
    return _integer(name, value, 0, "an integer >= 0")


def integer(name: str, value: Any) -> int:
    """Return an integer, or raise."""
    return _integer(name, value, -math.inf, "an integer")


def _integer(name: str, value: Any, least: float, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected {what}, given {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected {what}, given {value!r}")
    return int(value)


def positive(name: str, value: Any) -> float:
    """Return a finite number > 0, or raise."""
    return _number(name, value, lambda n: 0 < n < math.inf, "a number > 0")


def non_negative(name: str, value: Any) -> float:
    """Return a finite number >= 0, or raise."""
    return _number(name, value, lambda n: 0 <= n < math.inf, "a number >= 0")


def fraction(name: str, value: Any) -> float:
    """Return a number in [0, 1), or raise."""
    return _number(name, value, lambda n: 0 <= n < 1, "a number in [0, 1)")


def fraction_or_one(name: str, value: Any) -> float:
    """Return a number in [0, 1], or raise."""
    return _number(name, value, lambda n: 0 <= n <= 1, "a number in [0, 1]")


def finite(name: str, value: Any) -> float:
    """Return a number that is neither NaN nor infinite, or raise."""
    return _number(name, value, math.isfinite, "a finite number")


def _number(name: str, value: Any, fits: Callable[[float], bool], what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected {what}, given {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an int of more than 308 digits
        number = math.inf
    if not fits(number):
        raise ValueError(f"{name}: expected {what}, given {value!r}")
    return number


def boolean(name: str, value: Any) -> bool:
    """Return True or False, or raise."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a bool, given {value!r}")
    return bool(value)


def one_of(name: str, value: Any, valid: Iterable[str], why: str = "") -> str:
    """Return a valid name, or raise with the list of them and the closest."""
    valid = sorted(valid)
    if isinstance(value, str) and value in valid:
        return value
    error = ValueError if isinstance(value, str) else TypeError
    hint = _closest(value, valid)
    raise error(f"{name}: expected one of {', '.join(valid)}, given {value!r}.{why}{hint}")


def _closest(value: Any, valid: Iterable[str]) -> str:
    """Return the question whether a name was meant that is like a value, or nothing."""
    close = difflib.get_close_matches(value, valid, 1) if isinstance(value, str) else []
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown_option(kind: type, option: str) -> TypeError:
    """Return the error for an option that a class does not take: it lists those that it does."""
    known: set[str] = set()
    for init in [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]:
        _, *parameters = inspect.signature(init).parameters.values()
        named = {
            each.name
            for each in parameters
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        }
        known |= named
        if len(named) == len(parameters):
            break  # it passes no others on
    expected = f"options among {', '.join(sorted(known))}" if known else "no options"
    return TypeError(
        f"{kind.__name__}: expected {expected}, given {option!r}.{_closest(option, known)}"
    )


def made(kind: type, options: Mapping[str, Any]) -> Any:
    """Return an object of a class, made with options, or raise if it does not take one of them."""
    for option in options.keys() - inspect.signature(kind).parameters.keys():
        raise unknown_option(kind, option)
    return kind(**options)


def float_dtype(value: Any) -> np.dtype[Any]:
    """Return float32 or float64, or raise."""
    try:
        dtype = np.dtype(object if value is None else value)  # np.dtype(None) is float64
    except TypeError:
        dtype = np.dtype(object)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype: expected 'float32' or 'float64', given {value!r}")
    return dtype


def array_of(name: str, value: Any, owner: str = "") -> np.ndarray:
    """Return an array of real numbers, of the dtype it has, or raise."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{owner}{name}: expected an array, given sequences of different lengths; "
            "pad them first, with fastgru.pad_sequences"
        ) from error
    real_dtype(owner + name, array.dtype)
    return array


def list_of_arrays(name: str, value: Any, owner: str = "") -> list[Any]:
    """Return a list of what may be arrays, or raise."""
    if isinstance(value, (str, dict)) or not isinstance(value, Iterable):
        raise TypeError(f"{owner}{name}: expected a list of arrays, given {value!r:.80}")
    return list(value)


def sizes(name: str, value: Any, owner: str = "") -> tuple[int | None, ...]:
    """Return the shape of an array, None being any size, or raise."""
    if not isinstance(value, (tuple, list)) or not all(
        size is None or (isinstance(size, (int, np.integer)) and size >= 0) for size in value
    ):
        raise ValueError(
            f"{owner}{name}: expected a tuple of integers >= 0, or None for any size, "
            f"given {value!r}"
        )
    return tuple(value)


def real_dtype(name: str, dtype: np.dtype[Any]) -> None:
    """Raise unless a dtype is that of real numbers."""
    if dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, given an array of {dtype}")


def numbers(name: str, value: Any, dtype: Any, owner: str = "") -> np.ndarray:
    """Return an array of real numbers as the kernels want it, or raise."""
    if type(value) is np.ndarray and value.dtype is dtype and value.flags.carray:
        return value  # the common case, on the way of every array of every batch
    return kernels.as_kernel_array(array_of(name, value, owner), dtype)


def shape_of(name: str, array: np.ndarray, expected: tuple[Any, ...], owner: str = "") -> None:
    """Raise unless an array has the expected shape; a str in it is any size, by its name."""
    if array.shape == expected:
        return

    def fits(shape: tuple[int, ...]) -> bool:
        return len(shape) == len(expected) and all(
            isinstance(e, str) or e == n for e, n in zip(expected, shape, strict=True)
        )

    if not fits(array.shape):
        wanted = "(" + ", ".join(map(str, expected)) + ("," if len(expected) == 1 else "") + ")"
        hint = f" Add the missing axis: {name}[None]." if fits((1, *array.shape)) else ""
        raise ValueError(f"{owner}{name}: expected shape {wanted}, given {array.shape}.{hint}")


def rows_of(array: np.ndarray) -> np.ndarray:
    """Return an array (B, ..., K) as one of rows (n, K), which is quick where it is one."""
    return array if array.ndim == 2 else array.reshape(-1, array.shape[-1])


def row_lengths(lengths: Any, batch: int, steps: int, owner: str = "") -> np.ndarray:
    """Return the lengths (B,) of rows of at most so many steps, or raise."""
    lengths = np.asarray(lengths)
    if lengths.size and lengths.dtype.kind not in "iu":
        raise TypeError(f"{owner}lengths: expected integers, given {lengths.dtype}")
    shape_of("lengths", lengths, (batch,), owner)
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= steps:
        raise ValueError(
            f"{owner}lengths: expected values from 0 to {steps}, given "
            f"{lengths.min()} to {lengths.max()}"
        )
    return lengths


def step_mask(
    mask: Any,
    lengths: Any,
    batch: int,
    steps: int,
    owner: str = "",
    inner: Sequence[int] = (),
) -> np.ndarray | None:
    """Return the bool mask (B, T) that `mask` and `lengths` describe, or None if neither does.

    Where steps have steps themselves, as words of characters, a mask may have these `inner` axes.
    """
    if mask is not None:
        mask = np.ascontiguousarray(mask)
        if mask.dtype != np.bool_:
            raise TypeError(f"{owner}mask: expected an array of bool, given {mask.dtype}")
        shape_of("mask", mask, (batch, steps, *inner[: max(mask.ndim - 2, 0)]), owner)
    if lengths is not None:
        lengths = row_lengths(lengths, batch, steps, owner)
        inside = np.arange(steps) < lengths[:, None]
        mask = inside if mask is None else mask & outer(inside, mask.ndim)
    if mask is not None and not mask.flags.writeable:
        mask = mask.copy()
    return mask


def outer(mask: np.ndarray, ndim: int) -> np.ndarray:
    """Return a mask with as many axes of one more behind its own as arrays of `ndim` axes have."""
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


def visible(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return x (B, T, ...) with zeros at masked steps, whatever it holds there; often x itself."""
    if mask is None or mask.all():
        return x
    hidden = ~mask
    if not x[hidden].any():
        return x
    x = x.copy()
    x[hidden] = 0
    return x


def name_or(value: Any, default: str) -> str:
    """Return a name, or the default if there is none, or raise."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"name: expected a str, given {value!r}")
    return value or default


def entry(name: str, value: Any, registry: Mapping[str, Any]) -> Any:
    """Return what a registry holds under a name, in upper or lower case, or raise as `one_of`."""
    key = value.lower() if isinstance(value, str) else ""
    return registry[key if key in registry else one_of(name, value, registry)]


def made_from(name: str, identifier: Any, registry: Mapping[str, Any]) -> Any:
    """Make what an identifier describes: a registered name, a class's own, or a config with one."""
    named = isinstance(identifier, dict) and "name" in identifier
    config = identifier if named else {"name": identifier}
    for kind in registry.values():
        if str(config["name"]).lower() == kind.__name__.lower():
            return kind.from_config(config)
    return entry(name, config["name"], registry).from_config(config)
