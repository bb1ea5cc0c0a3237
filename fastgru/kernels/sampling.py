"""Choosing ids: at random by their scores, and the best continuations of a beam.

Equal scores are told apart by their place, so that a choice depends on nothing but the scores.
"""

from __future__ import annotations

import numpy as np

from fastgru.kernels.arrays import expect
from fastgru.kernels.jit import jit, part
from fastgru.kernels.simd import pointer
from fastgru.kernels.softmax import FLOAT64, INT64, exponentials
from fastgru.kernels.threads import share_out

# Beyond this, colder makes no difference: every difference of scores overflows or is zero.
LARGEST_SCALE = 1e30
LOOK_FLOPS = 30  # roughly the cost of looking at one score, in additions


@part
def comes_first(weights, i, j):
    """Return whether id i comes before id j: it is heavier, or as heavy and smaller."""
    return weights[i] > weights[j] or (weights[i] == weights[j] and i < j)


@part
def sift(heap, size, at, weights):
    """Move heap[at] down until no child comes before it."""
    moved = heap[at]
    child = 2 * at + 1
    while child < size:
        if child + 1 < size and comes_first(weights, heap[child + 1], heap[child]):
            child += 1
        if not comes_first(weights, heap[child], moved):
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    heap[at] = moved


@part
def heaviest(weights, total, top_k, top_p, heap):
    """Sort the ids that may be drawn to the end of the heap, the heaviest last.

    Return how many there are and their weight. Only they are sorted, which are often few.
    """
    V = weights.size
    for i in range(V):
        heap[i] = i
    for at in range(V // 2 - 1, -1, -1):
        sift(heap, V, at, weights)
    enough = total * top_p if top_k >= V else np.inf
    count, mass = 0, 0.0
    while count < top_k and count < V and mass < enough:
        last = V - 1 - count
        heap[0], heap[last] = heap[last], heap[0]
        sift(heap, last, 0, weights)
        mass += weights[heap[last]]
        count += 1
    if top_k >= V:
        return count, mass
    # Of the top_k, those that hold the share top_p of their own weight.
    enough, kept, few = mass * top_p, 0.0, 0
    while few < count and kept < enough:
        kept += weights[heap[V - 1 - few]]
        few += 1
    return few, kept


@jit
def sample_rows(logits, scale, top_k, top_p, penalty, previous, uniforms, work, heap, ids):
    """Draw ids; return the first row that has no distribution, or -1. See `sample_ids`."""
    B, V = logits.shape
    scores, weights = work[0], work[1]
    for b in range(B):
        scores[:] = logits[b]
        for t in range(previous.shape[1]):
            j = previous[b, t]
            # A score that is not what came in has been changed before.
            if 0 <= j < V and scores[j] == logits[b, j]:
                scores[j] = scores[j] / penalty if scores[j] > 0 else scores[j] * penalty
        best, broken = 0, False
        for j in range(V):
            broken = broken or np.isnan(scores[j])
            if scores[j] > scores[best]:
                best = j
        top = scores[best]
        if broken or not abs(top) < np.inf:
            return b
        ids[b] = best
        if scale == 0.0:
            continue
        for j in range(V):
            scores[j] = (scores[j] - top) * scale
        total = exponentials(pointer(scores), pointer(weights), V)[1]
        mass = 0.0
        if top_k >= V and top_p >= 1.0:
            target = uniforms[b] * total
            for j in range(V):
                if weights[j] > 0.0:  # the last such one, should rounding leave the sum short
                    ids[b] = j
                    mass += weights[j]
                    if mass > target:
                        break
        else:
            count, kept = heaviest(weights, total, top_k, top_p, heap)
            target = uniforms[b] * kept
            for i in range(count):
                j = heap[V - 1 - i]
                if weights[j] > 0.0:
                    ids[b] = j
                    mass += weights[j]
                    if mass > target:
                        break
    return -1


def sample_ids(
    logits: np.ndarray,
    temperature: float,
    top_k: int,
    top_p: float,
    penalty: float,
    previous: np.ndarray,
    uniforms: np.ndarray,
) -> np.ndarray:
    """Draw an id for each row of scores.

    Formula: x = logits; x[j] = x[j] / penalty if x[j] > 0 else x[j] penalty, for each id j among
    the previous ones; w = exp((x - max(x)) / temperature). Only the top_k largest w are kept, and
    of those only as many, the largest first, as hold the share top_p of their sum, the last one
    included. The id is the first one up to which the w kept sum to more than u times their sum.
    The order is that of size if any are left out, else that of the ids.
    Parameters      shape           (C-contiguous)
    ----------
    logits          (B, V)          in, V > 0; -inf for what must not be drawn
    temperature     float           in, >= 0; 0: the largest x, of equal ones the first
    top_k           int             in, >= 1
    top_p           float           in, in (0, 1]
    penalty         float           in, > 0
    previous        (B, N) int64    in; what is not in [0, V) is passed over
    uniforms        (B,) float64    in, in [0, 1): the u
    Returns ids (B,) int64. A row's id depends on its own row alone.
    Source: Holtzman et al. 2020, arXiv:1904.09751, section 3 (top_p); Fan et al. 2018,
    arXiv:1805.04833, section 5 (top_k); Keskar et al. 2019, arXiv:1909.05858, section 4.1, as
    corrected by all that use it (penalty). Twin: reference.sample_ids.
    """
    (B, V), dtype = logits.shape, logits.dtype
    expect("logits", logits, (B, V), dtype)
    expect("previous", previous, (B, -1), INT64)
    expect("uniforms", uniforms, (B,), FLOAT64)
    ids, heap, work = np.empty(B, INT64), np.empty(V, INT64), np.empty((2, V), dtype)
    scale = min(1 / temperature, LARGEST_SCALE) if temperature else 0.0
    wrong = sample_rows(logits, scale, top_k, top_p, penalty, previous, uniforms, work, heap, ids)
    if wrong >= 0:
        raise ValueError(
            "logits: expected finite scores, or -inf for some of a row, "
            f"given row {wrong} with NaN, inf or nothing but -inf"
        )
    return ids


@jit
def candidate_rows(log_probabilities, sums, ends, values, rows, ids, worker, workers):
    """Find the candidates of one share of the sentences. See `top_candidates`."""
    V = log_probabilities.shape[1]
    S, M = values.shape
    for s in range(S * worker // workers, S * (worker + 1) // workers):
        values[s] = -np.inf
        rows[s] = -1
        ids[s] = -1
        for n in range(ends[s], ends[s + 1]):
            for j in range(V):
                value = sums[n] + np.float64(log_probabilities[n, j])
                if value > values[s, M - 1]:
                    at = M - 1
                    while at > 0 and value > values[s, at - 1]:
                        values[s, at] = values[s, at - 1]
                        rows[s, at] = rows[s, at - 1]
                        ids[s, at] = ids[s, at - 1]
                        at -= 1
                    values[s, at], rows[s, at], ids[s, at] = value, n, j


def top_candidates(
    log_probabilities: np.ndarray, sums: np.ndarray, ends: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the most probable continuations of the hypotheses of each sentence.

    Formula: value = sums[n] + log_probabilities[n, j], sorted over all rows n and ids j of a
    sentence, of equal values the first n and j first.
    Parameters            shape             (C-contiguous)
    ----------
    log_probabilities     (N, V)            in
    sums                  (N,) float64      in, those of the hypotheses so far
    ends                  (S + 1,) int64    in, rows ends[s] to ends[s + 1] - 1 are of sentence s
    count                 int               in, how many to find
    Returns values, rows n and ids j, each (S, count); where there are fewer, values are -inf and
    rows and ids -1. What is NaN is never found. A sentence belongs to one worker.
    Source: textbook. Twin: reference.top_candidates.
    """
    (N, V), S = log_probabilities.shape, len(ends) - 1
    expect("log_probabilities", log_probabilities, (N, V), log_probabilities.dtype)
    expect("sums", sums, (N,), FLOAT64)
    expect("ends", ends, (S + 1,), INT64)
    values = np.empty((S, count))
    rows, ids = np.empty((S, count), INT64), np.empty((S, count), INT64)
    arguments = (log_probabilities, sums, ends, values, rows, ids)
    share_out(candidate_rows, arguments, S, LOOK_FLOPS * N * V)
    return values, rows, ids
