"""Arrays as the kernels want them: aligned to cache lines, contiguous, native, writable."""

from __future__ import annotations

import functools
import math
import threading
import weakref
from typing import Any

import numpy as np

ALIGNMENT = 64
LEAST_ALIGNED = 2048


# From this size on memory is kept for the next array: the system gives new memory page by page,
# filled with zeros, which takes as long as some kernels do.
LEAST_KEPT = 256 * 1024
MOST_KEPT = 256 * 1024 * 1024
LEAST_SCRATCH, MOST_SCRATCH = 128 * 1024, 4 * 1024 * 1024


class _Memory:
    """Memory of an array, until the last view of that is gone."""

    def __init__(self, buffer: np.ndarray) -> None:
        self.buffer = buffer
        self.__array_interface__ = buffer.__array_interface__


class _Loan(weakref.ref[_Memory]):
    """Notes when memory that was lent is given back: it puts itself among what is kept.

    No line of Python runs then, as in a finalizer: there a Ctrl-C would be lost.
    """

    buffer: np.ndarray


# No lock guards these: each single operation on them is whole. Of the size one of two threads that
# change it at once may be missed, so it is counted again where it matters.
_kept: list[_Loan] = []
_loans: dict[int, _Loan] = {}  # by their ids: those that are out, or kept
_size = 0  # of all loans, in bytes


def _lent(size: int) -> Any:
    """Return memory of so many bytes: some that is kept, or else new, and kept afterwards.

    What is out and what is kept has MOST_KEPT bytes at most; what is beyond that is not kept.
    """
    global _size
    buffer = None
    for _ in range(len(_kept)):
        try:
            loan = _kept.pop(0)
        except IndexError:  # another thread was quicker
            break
        if size <= loan.buffer.size <= size + size // 4:
            _loans.pop(id(loan), None)
            buffer = loan.buffer
            break
        _kept.append(loan)
    if buffer is None:
        buffer = np.empty(size, np.uint8)
        _size += size
    if _size > MOST_KEPT and not _make_room(buffer.size):
        return buffer
    memory = _Memory(buffer)
    loan = _Loan(memory, _kept.append)
    loan.buffer = buffer
    _loans[id(loan)] = loan
    return memory


def _make_room(size: int) -> bool:
    """Give kept memory back to the system, the oldest first; return whether so much more fits."""
    global _size
    _size = sum([loan.buffer.size for loan in list(_loans.values())]) + size
    while _size > MOST_KEPT:
        try:
            loan = _kept.pop(0)
        except IndexError:
            _size -= size
            return False
        _loans.pop(id(loan), None)
        _size -= loan.buffer.size
    return True


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
        buffer = np.asarray(_lent(size + ALIGNMENT))
    return np.ndarray(shape, dtype, buffer, -_address_of()(buffer) % ALIGNMENT)


class _Scratch(threading.local):
    """What a thread's kernels work in, one after another: an array of each dtype."""

    def __init__(self) -> None:
        self.arrays: dict[np.dtype, np.ndarray] = {}


_scratch = _Scratch()


def scratch(size: int, dtype: np.dtype) -> np.ndarray:
    """Return memory (size or more,) that is this thread's until its next call of this function.

    Where the C library gives memory back to the system at every turn, as it is told to in workers
    of dask, a kernel that allocates its own is slower by a tenth. An empty array stands for more
    than is kept.
    """
    array = _scratch.arrays.get(dtype)
    if array is None or array.size < size:
        if size * dtype.itemsize > MOST_SCRATCH:
            return none_of(dtype, 1)
        array = _scratch.arrays[dtype] = np.empty(size, dtype)
    return array


@functools.cache
def _address_of() -> Any:
    """Return the function that tells where an array is, six times as quick as NumPy does.

    It is compiled; this module has to do without Numba until the first kernel is called.
    """
    from fastgru.kernels.system import address

    return address


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
