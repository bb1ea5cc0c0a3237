"""Arrays for kernels: alignment, and memory that is used again."""

import gc
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from children import start

from fastgru.kernels import arrays
from fastgru.kernels.arrays import LEAST_KEPT, aligned_empty


@pytest.fixture
def kept(monkeypatch):
    """An empty list of kept memory."""
    gc.collect()
    monkeypatch.setattr(arrays, "_kept", [])
    monkeypatch.setattr(arrays, "_loans", {})
    monkeypatch.setattr(arrays, "_size", 0)
    return arrays._kept


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0, 5), (7, 11, 13), (300, 1001)])
def test_an_array_that_is_not_small_begins_on_a_cache_line(shape, dtype):
    array = aligned_empty(shape, dtype)
    assert array.shape == shape and array.dtype == dtype
    assert array.ctypes.data % 64 == 0 or array.nbytes < 2048
    assert array.flags.c_contiguous and array.flags.writeable and type(array) is np.ndarray


def test_large_memory_is_used_again_when_its_last_view_is_gone(kept):
    array = aligned_empty((LEAST_KEPT // 4,), np.float32)
    address, view = array.ctypes.data, array[1000:1002]
    del array
    other = aligned_empty((LEAST_KEPT // 4,), np.float32)
    assert kept == [] and other.ctypes.data != address
    del view
    assert len(kept) == 1
    again = aligned_empty((LEAST_KEPT // 8,), np.float64)
    assert again.ctypes.data == address and kept == []


def test_small_arrays_and_other_sizes_leave_kept_memory_alone(kept):
    aligned_empty((LEAST_KEPT,), np.uint8)
    before = [loan.buffer.size for loan in kept]
    assert before == [LEAST_KEPT + 64]
    some = [aligned_empty((n,), np.uint8) for n in (9, LEAST_KEPT - 1, 2 * LEAST_KEPT)]
    assert [loan.buffer.size for loan in kept] == before and len(some) == 3


def test_no_more_than_so_much_memory_is_kept(kept, monkeypatch):
    monkeypatch.setattr(arrays, "MOST_KEPT", 5 * LEAST_KEPT)
    for _ in range(3):
        some = [aligned_empty((n * LEAST_KEPT,), np.uint8) for n in (1, 2, 3, 4)]
        del some
        gc.collect()
        assert 0 < sum(loan.buffer.size for loan in kept) <= 5 * LEAST_KEPT


def test_two_threads_never_hold_the_same_memory(kept):
    wrong = []

    def work(number):
        rng = np.random.default_rng(number)
        for _ in range(300):
            array = aligned_empty((LEAST_KEPT + int(rng.integers(3)) * LEAST_KEPT // 2,), np.uint8)
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert wrong == []


def test_arrays_that_live_to_the_end_of_the_program_end_quietly():
    code = """
from fastgru.kernels import arrays
class Holder: pass
holder = Holder()
holder.itself, holder.array = holder, arrays.aligned_empty((arrays.LEAST_KEPT,), "u1")
arrays.holder = holder
"""
    process = start("-c", code)
    assert process.communicate(timeout=60) == ("", "") and process.returncode == 0


# ---- what kernels refuse


def dense(**changes):
    from fastgru import kernels

    K, N, B = 5, 7, 3
    a = {
        "kernel": np.ones((K, N), np.float32),
        "bias": np.ones(N, np.float32),
        "x": np.ones((B, K), np.float32),
        "da": np.ones((B, N), np.float32),
        "dkernel": np.zeros((K, N), np.float32),
        "dbias": np.zeros(N, np.float32),
    } | changes
    weights = kernels.pack_dense(a["kernel"], a["bias"], backward=True)
    kernels.dense_forward(a["x"], weights, out=a.get("out"))
    kernels.dense_backward(a["da"], a["x"], weights, a["dkernel"], a["dbias"])


def embedding(**changes):
    from fastgru import kernels

    a = {
        "ids": np.array([0, 3, 1]),
        "table": np.ones((4, 5), np.float32),
        "dy": np.ones((3, 5), np.float32),
        "dtable": np.zeros((4, 5), np.float32),
    } | changes
    kernels.embedding_forward(a["ids"], a["table"], out=a.get("out"))
    kernels.embedding_backward(a["dy"], a["ids"], a["dtable"])


def cross_entropy(**changes):
    from fastgru import kernels

    a = {
        "y": np.ones((3, 5), np.float32),
        "labels": np.array([0, 1, 2]),
        "weights": np.ones(3),
        "values": np.ones(3),
        "dy": np.zeros((3, 5), np.float32),
    } | changes
    kernels.sparse_categorical_crossentropy(
        a["y"], a["labels"], a["weights"], True, a["values"], a["dy"]
    )


def gru(**changes):
    from fastgru import kernels

    B, T, I, H = 2, 3, 4, 5
    a = {
        "kernel": np.ones((I, 3 * H), np.float32),
        "recurrent_kernel": np.ones((H, 3 * H), np.float32),
        "bias": np.ones(3 * H, np.float32),
        "recurrent_bias": np.ones(3 * H, np.float32),
        "x": np.ones((B, T, I), np.float32),
        "mask": np.ones((B, T), np.bool_),
        "h0": np.ones((B, H), np.float32),
        "dy": np.ones((B, T, H), np.float32),
        "dkernel": np.zeros((I, 3 * H), np.float32),
        "drecurrent_kernel": np.zeros((H, 3 * H), np.float32),
        "dbias": np.zeros(3 * H, np.float32),
        "drecurrent_bias": np.zeros(3 * H, np.float32),
    } | changes
    names = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
    weights = kernels.pack_gru(*(a[name] for name in names), backward=True)
    y, gates = kernels.gru_forward(a["x"], a["mask"], a["h0"], weights, keep=True)
    kernels.gru_backward(
        a["dy"], None, a["x"], a["mask"], a["h0"], weights, a.get("y", y), a.get("gates", gates),
        tuple(a[f"d{name}"] for name in names),
    )  # fmt: skip


def locked(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("call", "name", "array"),
    [
        (dense, "kernel", np.ones((7, 5), np.float32).T),
        (dense, "bias", np.ones(6, np.float32)),
        (dense, "bias", np.ones(7)),
        (dense, "x", np.ones((3, 4), np.float32)),
        (dense, "x", locked(np.ones((3, 5), np.float32))),
        (dense, "da", np.ones((2, 7), np.float32)),
        (dense, "dkernel", np.ones((7, 5), np.float32).T),
        (dense, "dkernel", np.ones((5, 7), ">f4")),
        (dense, "dbias", np.ones(1, np.float32)),
        (dense, "out", np.ones((3, 6), np.float32)),
        (gru, "kernel", np.ones((15, 4), np.float32).T),
        (gru, "recurrent_kernel", np.ones((5, 14), np.float32)),
        (gru, "bias", np.ones(5, np.float32)),
        (gru, "recurrent_bias", np.ones(15)),
        (gru, "x", np.ones((2, 3, 3), np.float32)),
        (gru, "x", np.ones((2, 3, 8), np.float32)[:, :, ::2]),
        (gru, "mask", np.ones((2, 3), np.int8)),
        (gru, "mask", np.ones((2, 2), np.bool_)),
        (gru, "h0", np.ones((1, 5), np.float32)),
        (gru, "dy", np.ones((2, 3, 4), np.float32)),
        (gru, "y", np.ones((2, 1, 5), np.float32)),
        (gru, "gates", np.ones((2, 2, 4, 5), np.float32)),
        (gru, "dkernel", np.ones((4, 15))),
        (gru, "drecurrent_kernel", np.ones((4, 15), np.float32)),
        (gru, "dbias", locked(np.ones(15, np.float32))),
        (gru, "drecurrent_bias", np.ones(14, np.float32)),
        (embedding, "ids", np.array([0, 1], np.int32)),
        (embedding, "ids", np.array([[0, 1]])),
        (embedding, "table", np.ones(4, np.float32)),
        (embedding, "dy", np.ones((3, 4), np.float32)),
        (embedding, "dtable", np.ones((4, 10), np.float32)[:, ::2]),
        (embedding, "out", np.ones((3, 4), np.float32)),
        (cross_entropy, "labels", np.array([0, 1])),
        (cross_entropy, "weights", np.ones(3, np.float32)),
        (cross_entropy, "values", np.ones(2)),
        (cross_entropy, "dy", np.ones((3, 5))),
    ],
)
def test_kernels_refuse_arrays_of_another_kind(call, name, array):
    call()
    with pytest.raises(ValueError, match=f"^{name}: expected a C-contiguous"):
        call(**{name: array})


def test_kernels_refuse_ids_that_have_no_row():
    for wrong in (4, -1):
        with pytest.raises(ValueError, match=f"ids: expected integers from 0 to 3, given {wrong}"):
            embedding(ids=np.array([0, wrong]), dy=np.ones((2, 5), np.float32))


def test_kernels_refuse_what_is_no_array():
    with pytest.raises(TypeError, match="x: expected an array, given list"):
        arrays.expect("x", [1.0], (1,), np.dtype(np.float32))


def test_an_interrupt_while_memory_is_given_back_is_not_lost(kept):
    """What runs in a finalizer loses it: Python only says that it was ignored."""

    def interrupt(*_):
        raise KeyboardInterrupt

    lost, hook = [], sys.unraisablehook
    sys.unraisablehook = lost.append
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(40):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.005)
                started = time.perf_counter()
                while time.perf_counter() - started < 5 and not lost:
                    some = [aligned_empty((LEAST_KEPT,), np.uint8) for _ in range(8)]
                    del some
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        sys.unraisablehook = hook
    assert not lost
