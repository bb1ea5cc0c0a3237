"""Weights in the layout of the kernels: panels of a product, gates in the order of their slots.

What `apart` and `held` mean is said in `recurrence`. A dense layer is one without a state's side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastgru.kernels.arrays import aligned_empty, expect, none_of
from fastgru.kernels.gemm import (
    PACK_FLOPS,
    copy,
    fill,
    pack_columns,
    pack_transposed,
    padded,
    share_of_panels,
    whole_panels,
)
from fastgru.kernels.jit import jit
from fastgru.kernels.simd import pointer
from fastgru.kernels.threads import share_out


class Packed(NamedTuple):
    """Weights in the layout of the kernels; made by `pack`, never changed afterwards.

    `forward` holds, one after another: the bias of the input's side and, with gates apart, that of
    the state's side, each padded to whole panels, then the packed kernel (I, GH) and the packed
    recurrent kernel (H, GH). With gates held, the recurrent kernel is packed as that of the other
    gates, then theirs.
    `backward` holds the packed transposes, (GH, I) and (GH, H), the latter likewise in two parts
    with gates held. It is empty when the weights are packed for inference alone.
    """

    forward: np.ndarray
    backward: np.ndarray
    inputs: int
    units: int
    apart: int = 0
    held: bool = False


class PackedDense(NamedTuple):
    """Weights of a dense layer in the layout of the kernels; made by `pack_dense`, never changed.

    `forward` holds the bias, padded to whole panels, then the packed kernel (K, N); `backward` as
    many zeros as a bias of K has, then the packed transpose (N, K). It is empty when the weights
    are packed for inference alone.
    """

    forward: np.ndarray
    backward: np.ndarray
    inputs: int
    units: int


@jit
def pack_forward(
    kernel, recurrent_kernel, bias, recurrent_bias, apart, held, forward, worker, workers
):
    """Lay out one worker's share of the weights for the forward pass. See `Packed`."""
    I, N = kernel.shape
    H = recurrent_kernel.shape[0]
    k, u, p = pointer(kernel), pointer(recurrent_kernel), pointer(forward)
    # The input's side begins with the gates that are apart, the last ones of the params.
    late = apart * H
    early = N - late
    wide = whole_panels(N, p)
    if worker == 0:
        fill(p, (1 + apart) * wide, 0.0)
        copy(pointer(bias) + early, late, p)
        copy(pointer(bias), early, p + late)
        if apart > 0:
            copy(pointer(recurrent_bias), N, p + wide)
    p = p + (1 + apart) * wide
    begin, end = I * worker // workers, I * (worker + 1) // workers
    pack_columns(k + early, N, begin, end, I, late, p, 0)
    pack_columns(k, N, begin, end, I, early, p, late)
    p = p + I * wide
    begin, end = H * worker // workers, H * (worker + 1) // workers
    if held:
        pack_columns(u, N, begin, end, H, early, p, 0)
        p = p + H * whole_panels(early, p)
        pack_columns(u + early, N, begin, end, H, late, p, 0)
    else:
        pack_columns(u, N, begin, end, H, N, p, 0)


@jit
def pack_backward(kernel, recurrent_kernel, apart, held, backward, worker, workers):
    """Lay out one worker's share of the weights for the backward pass. See `Packed`."""
    I, N = kernel.shape
    H = recurrent_kernel.shape[0]
    k, u, p = pointer(kernel), pointer(recurrent_kernel), pointer(backward)
    late = apart * H
    early = N - late
    begin, end = share_of_panels(I, p, worker, workers)
    pack_transposed(k + early, N, begin, end, late, I, p, N, 0)
    pack_transposed(k, N, begin, end, early, I, p, N, late)
    p = p + N * whole_panels(I, p)
    begin, end = share_of_panels(H, p, worker, workers)
    if held:
        pack_transposed(u, N, begin, end, early, H, p, early, 0)
        p = p + early * whole_panels(H, p)
        pack_transposed(u + early, N, begin, end, late, H, p, late, 0)
    else:
        pack_transposed(u, N, begin, end, N, H, p, N, 0)


def pack(
    kernel: np.ndarray,
    recurrent_kernel: np.ndarray,
    bias: np.ndarray,
    recurrent_bias: np.ndarray | None = None,
    *,
    apart: int = 0,
    held: bool = False,
    backward: bool = False,
) -> Packed:
    """Lay out the weights of a cell for the kernels.

    Parameters
    ----------
    kernel : (I, GH), recurrent_kernel : (H, GH), bias, recurrent_bias : (GH,)
        Gates in the order of the params; C-contiguous, all of one dtype, float32 or float64. There
        is a `recurrent_bias` where gates are apart.
    apart : int, held : bool
        What kind of cell it is: see the module.
    backward : bool
        Whether to pack for the backward pass as well.
    """
    (I, N), H, dtype = kernel.shape, recurrent_kernel.shape[0], kernel.dtype
    expect("kernel", kernel, (I, N), dtype)
    expect("recurrent_kernel", recurrent_kernel, (H, N), dtype)
    expect("bias", bias, (N,), dtype)
    if apart:
        expect("recurrent_bias", recurrent_bias, (N,), dtype)
    wide, late = padded(N, dtype), apart * H
    recurrent = padded(N - late, dtype) + padded(late, dtype) if held else wide
    forward = aligned_empty(((1 + apart + I) * wide + H * recurrent,), dtype)
    transposed = aligned_empty((N * (padded(I, dtype) + padded(H, dtype)) * backward,), dtype)
    if recurrent_bias is None:
        recurrent_bias = none_of(dtype, 1)
    arrays = kernel, recurrent_kernel, bias, recurrent_bias, apart, held, forward
    share_out(pack_forward, arrays, max(I, H), PACK_FLOPS * forward.size)
    if backward:
        arrays = kernel, recurrent_kernel, apart, held, transposed
        share_out(pack_backward, arrays, max(I, H), PACK_FLOPS * transposed.size)
    return Packed(forward, transposed, I, H, apart, held)


def pack_dense(kernel: np.ndarray, bias: np.ndarray, *, backward: bool = False) -> PackedDense:
    """Lay out a kernel (K, N) and a bias (N,), C-contiguous and of one dtype, for the kernels.

    With `backward`, for `dense_backward` as well.
    """
    (K, N), dtype = kernel.shape, kernel.dtype
    expect("kernel", kernel, (K, N), dtype)
    expect("bias", bias, (N,), dtype)
    zeros, no_state = padded(K, dtype), np.empty((0, N), dtype)
    forward = aligned_empty(((1 + K) * padded(N, dtype),), dtype)
    transposed = aligned_empty(((1 + N) * zeros * backward,), dtype)
    arrays = kernel, no_state, bias, none_of(dtype, 1), 0, False, forward
    share_out(pack_forward, arrays, K, PACK_FLOPS * forward.size)
    if backward:
        transposed[:zeros] = 0
        arrays = kernel, no_state, 0, False, transposed[zeros:]
        share_out(pack_backward, arrays, K, PACK_FLOPS * transposed.size)
    return PackedDense(forward, transposed, K, N)
