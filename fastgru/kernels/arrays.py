"""Arrays as the kernels want them: aligned to cache lines, contiguous, native, writable."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

ALIGNMENT = 64
LEAST_ALIGNED = 2048


# From this size on memory is kept for the next array: the system gives new memory page by page,
# filled with zeros, which takes as long as some kernels do.
LEAST_KEPT = 256 * 1024
MOST_KEPT = 256 * 1024 * 1024

_kept: list[np.ndarray] = []


class _Memory:
    """Memory that is kept for the next array when the last array on it is gone.

    No lock guards the list, for the finalizer runs at any time, even in a thread that holds it;
    but each single operation on a list is whole.
    """

    def __init__(self, size: int) -> None:
        self.buffer = self._taken(size)
        self.__array_interface__ = self.buffer.__array_interface__

    @staticmethod
    def _taken(size: int) -> np.ndarray:
        for _ in range(len(_kept)):
            try:
                buffer = _kept.pop(0)
            except IndexError:  # another thread was quicker
                break
            if size <= buffer.size <= size + size // 4:
                return buffer
            _kept.append(buffer)
        return np.empty(size, np.uint8)

    def __del__(self) -> None:
        if MOST_KEPT is None:  # the interpreter is taking its modules apart
            return
        _kept.append(self.buffer)
        if sum([buffer.size for buffer in _kept]) > MOST_KEPT:
            _kept.pop(0)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialised array of a shape and dtype that begins on a cache line.

    A small one begins anywhere: to find its place takes longer than its kernels would save.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST_ALIGNED:
        return np.empty(shape, dtype)
    if size < LEAST_KEPT:
        buffer = np.empty(size + ALIGNMENT, np.uint8)
    else:
        buffer = np.asarray(_Memory(size + ALIGNMENT))
    offset = -buffer.__array_interface__["data"][0] % ALIGNMENT
    return np.ndarray(shape, dtype, buffer, offset)


@functools.cache
def none_of(dtype: np.dtype, dimensions: int) -> np.ndarray:
    """Return an empty array that stands for one that is not there."""
    return np.empty((0,) * dimensions, dtype)


def as_kernel_array(array: Any, dtype: Any) -> np.ndarray:
    """Return the array itself where kernels can take it, else a copy of that dtype that they can.

    Kernels are compiled for one kind of array: C-contiguous, aligned, in native byte order and
    writable (Numba takes a read-only array for another type, and would compile again).
    """
    array = np.asarray(array, dtype, order="C")
    # "carray" is all of it but the byte order, which the dtype says.
    return array if array.flags.carray else array.copy()


def expect(name: str, array: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise unless an array is one that kernels can take, of a shape and dtype.

    Kernels see an address and sizes: an array of another kind would be read wrongly, or not where
    it ends. An axis given as -1 may have any size.
    """
    if type(array) is np.ndarray and array.shape == shape and array.dtype is dtype:
        if array.flags.carray:
            return
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an array, given {type(array).__name__}")
    sizes = zip(array.shape, shape, strict=False)
    fits = array.ndim == len(shape) and all(n == m or m == -1 for n, m in sizes)
    if not fits or array.dtype != dtype or not array.flags.carray:
        kind = "" if array.flags.carray else ", not C-contiguous, aligned and writable"
        wanted = str(shape).replace("-1", "any")
        raise ValueError(
            f"{name}: expected a C-contiguous, aligned, writable array of {np.dtype(dtype)} "
            f"{wanted}, given {array.dtype} {array.shape}{kind}"
        )
