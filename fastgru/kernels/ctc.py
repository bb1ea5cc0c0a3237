"""The loss of connectionist temporal classification (CTC), with its gradient, row by row.

All sums over paths are float64 logarithms. A row's result depends neither on the other rows nor on
how far they are padded.
"""

from __future__ import annotations

import math

import numpy as np

from fastgru.kernels.arrays import expect
from fastgru.kernels.gemm import fill
from fastgru.kernels.jit import inline, jit
from fastgru.kernels.simd import get, keep_alive, pointer, put
from fastgru.kernels.softmax import EXP_FLOPS, FLOAT64, INT64, LOG_FLOPS, exponentials
from fastgru.kernels.threads import share_out
from fastgru.kernels.update import multiply

BOOL = np.dtype(np.bool_)


@inline
def log_sum_of_2(a, b):
    """Return log(exp(a) + exp(b)); a NaN beside minus infinity or another NaN stays."""
    top = max(a, b)
    if top == -math.inf:
        return a + b
    return top + math.log(1.0 + math.exp(min(a, b) - top))


@inline
def log_sum_of_3(a, b, c):
    """Return log(exp(a) + exp(b) + exp(c)), as `log_sum_of_2`."""
    high, low = max(a, b), min(a, b)
    top, middle = max(high, c), min(high, c)
    if top == -math.inf:
        return a + b + c
    return top + math.log(1.0 + math.exp(middle - top) + math.exp(low - top))


@jit
def ctc_rows(
    x, mask, labels, counts, blank, weights, zero_infinity, values, dx, worker, workers
):  # fmt: skip
    """Compute one share of `ctc_loss`.

    Place s of a row's S = 2 L + 1 is the blank if s is even, else label s // 2. A path is at place
    0 or 1 at first and at one of the last two in the end, and goes on by two at most: so at frame n
    it is at a place from S - 2 (N - n) to 2 n + 1.
    """
    B, T, V = x.shape
    rows = range(B * worker // workers, B * (worker + 1) // workers)
    most = 1
    for b in rows:
        most = max(most, 2 * counts[b] + 1)
    alpha = np.empty((T, most))
    beta, after = np.empty(most), np.empty(most)
    symbols, may_skip = np.empty(most, np.int64), np.empty(most, np.bool_)
    log_total, frames = np.empty(T), np.empty(T, np.int64)
    for b in rows:
        p, d = pointer(x) + b * T * V, pointer(dx) + b * T * V
        weight = weights[b]
        S, N = 2 * counts[b] + 1, 0
        for t in range(T):
            if weight != 0.0 and mask[b, t]:
                frames[N] = t
                N += 1
            else:
                fill(d + t * V, V, 0.0)
        if weight == 0.0:
            values[b] = 0.0
            continue
        for s in range(S):
            symbols[s] = blank if s % 2 == 0 else labels[b, s // 2]
            # Between two equal labels there has to be a blank.
            may_skip[s] = s % 2 == 1 and s > 1 and symbols[s] != symbols[s - 2]

        # alpha[n, s]: all ways to be at place s after frame n
        for n in range(N):
            row, slope = p + frames[n] * V, d + frames[n] * V
            top, total = exponentials(row, slope, V)
            multiply(slope, V, weight / total)
            log_total[n] = top + math.log(total)
            before = alpha[n - 1]
            alpha[n, :S] = -math.inf
            for s in range(max(0, S - 2 * (N - n)), min(S, 2 * n + 2)):
                if n == 0:
                    ways = 0.0
                elif may_skip[s]:
                    ways = log_sum_of_3(before[s], before[s - 1], before[s - 2])
                else:
                    ways = log_sum_of_2(before[s], before[s - 1] if s > 0 else -math.inf)
                alpha[n, s] = ways + (np.float64(get(row + symbols[s])) - log_total[n])
        if N == 0:
            likelihood = 0.0 if S == 1 else -math.inf
        else:
            last = alpha[N - 1]
            likelihood = log_sum_of_2(last[S - 1], last[S - 2] if S > 1 else -math.inf)
        values[b] = -likelihood
        if likelihood == -math.inf:
            values[b] = 0.0 if zero_infinity else math.inf
            for n in range(N):
                fill(d + frames[n] * V, V, 0.0 if zero_infinity else math.nan)
            continue

        # beta[s]: all ways on from place s after frame n; after[s]: the same at the next frame,
        # together with what that frame says
        after[:S] = -math.inf
        for n in range(N - 1, -1, -1):
            row, slope = p + frames[n] * V, d + frames[n] * V
            first, end = max(0, S - 2 * (N - n)), min(S, 2 * n + 2)
            blanks = 0.0
            for s in range(first, end):
                if n == N - 1:
                    beta[s] = 0.0
                elif s + 2 < S and may_skip[s + 2]:
                    beta[s] = log_sum_of_3(after[s], after[s + 1], after[s + 2])
                else:
                    beta[s] = log_sum_of_2(after[s], after[s + 1] if s + 1 < S else -math.inf)
                share = math.exp(alpha[n, s] + beta[s] - likelihood) * weight
                if s % 2 == 0:
                    blanks += share
                else:
                    place = slope + symbols[s]
                    put(place, np.float64(get(place)) - share)
            put(slope + blank, np.float64(get(slope + blank)) - blanks)
            for s in range(first, end):
                after[s] = beta[s] + (np.float64(get(row + symbols[s])) - log_total[n])
    keep_alive(alpha)


def ctc_loss(
    x: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    counts: np.ndarray,
    blank: int,
    weights: np.ndarray,
    zero_infinity: bool,
    values: np.ndarray,
    dx: np.ndarray,
) -> None:
    """Minus the logarithm of the probability that some frames spell some labels.

    Formula, with the N frames that the mask keeps, w the weight of the row, p = softmax(x); a path
    names one symbol per frame, and spells what is left after merging neighbours that are equal and
    then taking out the blanks:
        value = -log(sum over paths that spell the labels of product over n of p[n, path[n]])
        dx = w (p[n, k] - probability, given the labels, that the path names k at frame n)
    Where no path spells them, value is infinite and dx NaN, or both 0 with zero_infinity.
    Parameters      shape           (x and dx of one dtype, C-contiguous)
    ----------
    x               (B, T, V)       in, logits
    mask            (B, T) bool     in, False for frames that are not there
    labels          (B, L) int64    in, 0 <= labels < V, not the blank
    counts          (B,) int64      in, the first counts[b] <= L labels of a row count
    blank           int             in, 0 <= blank < V
    weights         (B,) float64    in; weight 0 gives value 0 and dx 0, whatever x holds
    zero_infinity   bool            in
    values          (B,) float64    out, without the weight
    dx              (B, T, V)       out, not x
    Source: Graves et al. 2006, Connectionist temporal classification, section 4; the names and
    zero_infinity are those of torch.nn.CTCLoss. Twin: reference.ctc_loss.
    """
    B, T, V = x.shape
    expect("x", x, x.shape, x.dtype)
    expect("dx", dx, x.shape, x.dtype)
    expect("mask", mask, (B, T), BOOL)
    expect("labels", labels, (B, -1), INT64)
    expect("counts", counts, (B,), INT64)
    expect("weights", weights, (B,), FLOAT64)
    expect("values", values, (B,), FLOAT64)
    arguments = (
        x, mask, labels, counts, blank, weights, bool(zero_infinity), values, dx,
    )  # fmt: skip
    places = B + 2 * int(counts.sum())
    share_out(ctc_rows, arguments, B, EXP_FLOPS * x.size + 6 * LOG_FLOPS * T * places)
