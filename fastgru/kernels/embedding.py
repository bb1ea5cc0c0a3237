"""Embeddings: rows of a table by their number, or sums of rows, and where gradients go."""

from __future__ import annotations

import numpy as np

from fastgru.kernels.arrays import aligned_empty, expect
from fastgru.kernels.gemm import copy, fill
from fastgru.kernels.jit import jit
from fastgru.kernels.recording import perform
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
    perform(_look_up, ids, table, y)
    return y


def _look_up(ids: np.ndarray, table: np.ndarray, y: np.ndarray) -> None:
    wrong = embedding_rows(ids, table, y)
    if wrong >= 0:
        raise ValueError(f"ids: expected integers from 0 to {len(table) - 1}, given {ids[wrong]}")


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


@jit
def bag_rows(ids, table, y, worker, workers):
    """Compute one share of `bag_forward`."""
    n, K = ids.shape
    E = table.shape[1]
    for i in range(n * worker // workers, n * (worker + 1) // workers):
        target = pointer(y) + i * E
        fill(target, E, 0.0)
        for k in range(K):
            if ids[i, k] > 0:
                source = pointer(table) + ids[i, k] * E
                for j in range(0, E, lanes(target)):
                    value = load_up_to(target + j, E - j) + load_up_to(source + j, E - j)
                    store_up_to(target + j, value, E - j)


def bag_forward(ids: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Sum the rows of a table that belong to the ids of each bag.

    Parameters      shape          (C-contiguous)
    ----------
    ids             (n, K) int64   in, 0 <= ids[i, k] < V, or it raises ValueError
    table           (V, E)         in
    Returns y (n, E).
    Formula: y[i] = sum over k with ids[i, k] > 0 of table[ids[i, k]], in the order of k
    Source: Bojanowski et al. 2017, arXiv:1607.04606; torch.nn.EmbeddingBag, mode "sum".
    Twin: reference.bag.
    """
    expect("table", table, (-1, -1), table.dtype)
    expect("ids", ids, (-1, -1), INT64)
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        raise ValueError(
            f"ids: expected integers from 0 to {len(table) - 1}, given {ids.min()} to {ids.max()}"
        )
    y = aligned_empty((len(ids), table.shape[1]), table.dtype)
    share_out(bag_rows, (ids, table, y), len(ids), 4 * y.size)
    return y


@jit
def bag_add(ids, dy, dtable, worker, workers):
    """Add the gradients of one worker's rows of the table. See `bag_backward`."""
    n, K = ids.shape
    E = dtable.shape[1]
    for i in range(n):
        for k in range(K):
            # As in embedding_add, a row belongs to one worker.
            if ids[i, k] > 0 and ids[i, k] % workers == worker:
                source, target = pointer(dy) + i * E, pointer(dtable) + ids[i, k] * E
                for j in range(0, E, lanes(target)):
                    value = load_up_to(target + j, E - j) + load_up_to(source + j, E - j)
                    store_up_to(target + j, value, E - j)


def bag_backward(dy: np.ndarray, ids: np.ndarray, dtable: np.ndarray) -> None:
    """Add dy[i] to all rows of the table's gradient that bag i has summed.

    In the forward pass this was:               So now:
        y[i] = sum over k of table[ids[i, k]]       dtable[ids[i, k]] += dy[i], ids[i, k] > 0
    Parameters      shape          (C-contiguous)
    ----------
    dy              (n, E)         in
    ids             (n, K) int64   in, those that `bag_forward` has taken
    dtable          (V, E)         added to
    Each row is summed by one worker in the order of i and k: the same bits for any threads.
    Source: textbook. Twin: reference.bag_backward.
    """
    expect("dtable", dtable, (-1, -1), dtable.dtype)
    expect("ids", ids, (-1, -1), INT64)
    expect("dy", dy, (len(ids), dtable.shape[1]), dtable.dtype)
    share_out(bag_add, (ids, dy, dtable), dtable.shape[0], 4 * ids.size * dtable.shape[1])
