"""Embeddings: rows of a table by their number, and the scatter-add of their gradients."""

from __future__ import annotations

import numpy as np

from fastgru.kernels.arrays import aligned_empty, expect
from fastgru.kernels.gemm import copy
from fastgru.kernels.jit import jit
from fastgru.kernels.simd import lanes, load_up_to, pointer, store_up_to
from fastgru.kernels.threads import share_out

INT64 = np.dtype(np.int64)


@jit
def embedding_rows(ids, table, y):
    """Copy row ids[i] of the table to y[i]; return the place of the first id that has none, or -1.

    See `embedding_forward`.
    """
    V, n = table.shape
    for i in range(ids.size):
        if not 0 <= ids[i] < V:
            return i
        copy(pointer(table) + ids[i] * n, n, pointer(y) + i * n)
    return -1


def embedding_forward(
    ids: np.ndarray, table: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Look rows of a table up.

    Parameters      shape          (C-contiguous)
    ----------
    ids             (n,) int64     in, 0 <= ids[i] < V, or it raises ValueError
    table           (V, E)         in
    out             (n, E)         where y goes; by default into a new array
    Returns y (n, E).
    Formula: y[i] = table[ids[i]]
    Source: textbook. Twin: reference.embedding.
    """
    expect("table", table, (-1, -1), table.dtype)
    expect("ids", ids, (-1,), INT64)
    if out is not None:
        expect("out", out, (ids.size, table.shape[1]), table.dtype)
    y = aligned_empty((ids.size, table.shape[1]), table.dtype) if out is None else out
    wrong = embedding_rows(ids, table, y)
    if wrong >= 0:
        raise ValueError(f"ids: expected integers from 0 to {len(table) - 1}, given {ids[wrong]}")
    return y


@jit
def embedding_add(ids, dy, dtable, worker, workers):
    """Add the gradients of one worker's rows of the table. See `embedding_backward`."""
    n = dtable.shape[1]
    for i in range(ids.size):
        # A row of the table belongs to one worker, who adds to it in the order of the ids.
        if ids[i] % workers == worker:
            source, target = pointer(dy) + i * n, pointer(dtable) + ids[i] * n
            for j in range(0, n, lanes(target)):
                value = load_up_to(target + j, n - j) + load_up_to(source + j, n - j)
                store_up_to(target + j, value, n - j)


def embedding_backward(dy: np.ndarray, ids: np.ndarray, dtable: np.ndarray) -> None:
    """Add dy[i] to row ids[i] of the table's gradient.

    In the forward pass this was:    So now:
        y[i] = table[ids[i]]             dtable[ids[i]] += dy[i]
    Parameters      shape          (C-contiguous)
    ----------
    dy              (n, E)         in
    ids             (n,) int64     in, those that `embedding_forward` has taken
    dtable          (V, E)         added to
    Each row is summed by one worker in the order of i: the same bits for any number of threads.
    Source: textbook. Twin: reference.embedding_backward.
    """
    expect("dtable", dtable, (-1, -1), dtable.dtype)
    expect("ids", ids, (-1,), INT64)
    expect("dy", dy, (ids.size, dtable.shape[1]), dtable.dtype)
    share_out(embedding_add, (ids, dy, dtable), dtable.shape[0], 4 * dy.size)
