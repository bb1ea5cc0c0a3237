"""Arrays as the kernels want them: aligned to cache lines, contiguous, native, writable."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialised array that begins on a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape)
    buffer = np.empty(size * dtype.itemsize + ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % ALIGNMENT
    return buffer[offset : offset + size * dtype.itemsize].view(dtype).reshape(shape)


@functools.cache
def none_of(dtype: np.dtype, dimensions: int) -> np.ndarray:
    """Return an empty array that stands for one that is not there."""
    return np.empty((0,) * dimensions, dtype)


def as_kernel_array(array: Any, dtype: Any) -> np.ndarray:
    """Return the array itself where kernels can take it, else a copy that they can.

    Kernels are compiled for one kind of array: C-contiguous, aligned, in native byte order and
    writable (Numba takes a read-only array for another type, and would compile again).
    """
    array = np.asarray(array, np.dtype(dtype), order="C")
    flags = array.flags
    return array if flags.writeable and flags.aligned else array.copy()
