"""Ids and features of different lengths into padded batches."""

from collections.abc import Sequence
from operator import index
from reprlib import repr as shortened
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray


def pad_sequences(
    sequences: Sequence[ArrayLike],
    maxlen: int | None = None,
    dtype: DTypeLike = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float | str = 0.0,
) -> NDArray[Any]:
    """Put sequences of different lengths into one array, padded or cut to one length.

    It takes the arguments of ``keras.utils.pad_sequences`` and gives the same arrays, except that
    it refuses what Keras changes silently: numbers that `dtype` cannot hold.

    Parameters
    ----------
    sequences : sequence of array_like
        Ids of shape (T_i,), or features of shape (T_i, I). A sequence may be empty.
    maxlen : int or None, default None
        The common length T, at least 0; None takes the length of the longest sequence.
    dtype : dtype, default "int32"
        The type of the result. Features need ``"float32"``; strings need ``object``.
    padding : {"pre", "post"}, default "pre"
        Whether the padding comes before or after a sequence.
    truncating : {"pre", "post"}, default "pre"
        Whether a sequence that is too long loses its first or its last steps.
    value : float or str, default 0.0
        What the padding is filled with.

    Returns
    -------
    numpy.ndarray of shape (B, T) or (B, T, I)
        The batch.

    Raises
    ------
    ValueError
        If `padding` or `truncating` has another name, `maxlen` is negative, `sequences` is not a
        sequence of sequences or is empty while `maxlen` is None, the steps differ in shape, or
        `dtype` is none or cannot hold a number or `value`.

    Examples
    --------
    >>> pad_sequences([[1], [2, 3, 4]])
    array([[0, 0, 1],
           [2, 3, 4]], dtype=int32)
    >>> pad_sequences([[1], [2, 3, 4]], maxlen=2, padding="post", truncating="post")
    array([[1, 0],
           [2, 3]], dtype=int32)
    """
    for name, side in (("padding", padding), ("truncating", truncating)):
        if side not in ("pre", "post"):
            raise ValueError(f"pad_sequences: expected {name} 'pre' or 'post', given {side!r}.")
    if isinstance(sequences, str | bytes) or not hasattr(sequences, "__len__"):
        raise ValueError(
            "pad_sequences: expected sequences to be a list of sequences, "
            f"given {shortened(sequences)}."
        )
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"pad_sequences: expected a dtype, given {dtype!r}.") from None
    fill = _cast(value, dtype, "value")
    arrays = [_cast(s, dtype, f"sequences[{n}]") for n, s in enumerate(sequences)]
    for n, array in enumerate(arrays):
        if array.ndim == 0:
            raise ValueError(
                f"pad_sequences: expected sequences[{n}] to be a sequence, "
                f"given {shortened(sequences[n])}."
            )
    length = _common_length(maxlen, arrays)

    step_shapes = [array.shape[1:] for array in arrays if len(array)]
    step_shape = step_shapes[0] if step_shapes else ()
    batch = np.full((len(arrays), length, *step_shape), fill, dtype)
    for n, array in enumerate(arrays):
        if not len(array):
            continue  # an empty list has no step shape that could differ
        if array.shape[1:] != step_shape:
            raise ValueError(
                f"pad_sequences: expected steps of shape {step_shape} as in the sequences before, "
                f"given sequences[{n}] of shape {array.shape}."
            )
        excess = max(len(array) - length, 0)
        kept = array[excess:] if truncating == "pre" else array[: len(array) - excess]
        start = length - len(kept) if padding == "pre" else 0
        batch[n, start : start + len(kept)] = kept
    return batch


def _common_length(maxlen: int | None, arrays: list[NDArray[Any]]) -> int:
    if maxlen is None:
        if not arrays:
            raise ValueError("pad_sequences: expected at least one sequence, or maxlen.")
        return max(map(len, arrays))
    try:
        length = index(maxlen)
    except TypeError:
        length = -1
    if length < 0:
        raise ValueError(f"pad_sequences: expected maxlen >= 0 or None, given {maxlen!r}.")
    return length


def _cast(values: ArrayLike, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Cast without loss, but for the rounding of floats."""
    try:
        array = np.asarray(values)
        with np.errstate(over="raise", invalid="raise"):
            cast = array.astype(dtype)
        fits = dtype.kind not in "iu" or bool((cast == array).all())
    except (TypeError, ValueError, OverflowError, FloatingPointError):
        fits = False
    if not fits:
        raise ValueError(
            f"pad_sequences: expected {name} to hold values of dtype {dtype}, "
            f"given {shortened(values)}."
        )
    return cast
