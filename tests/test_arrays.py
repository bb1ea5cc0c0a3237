"""Arrays for kernels: alignment, and memory that is used again."""

import gc
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from children import start

import fastgru as fg
from fastgru import kernels
from fastgru.kernels import arrays, recurrence
from fastgru.kernels.arrays import LEAST_KEPT, aligned_empty

FLOAT32 = np.dtype("float32")


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


# ---- scratch memory


def test_scratch_memory_is_one_for_each_thread():
    first, again = arrays.scratch(50_000, FLOAT32), arrays.scratch(20_000, FLOAT32)
    assert first.size >= 50_000
    assert again is first
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(arrays.scratch, 50_000, FLOAT32).result()
    assert not np.shares_memory(first, other)
    assert arrays.scratch(30_000, np.dtype("float64")).dtype == "float64"


def test_so_much_scratch_memory_is_lent_and_no_more():
    assert arrays.scratch(arrays.MOST_SCRATCH // 4, FLOAT32).nbytes == arrays.MOST_SCRATCH
    assert arrays.scratch(arrays.MOST_SCRATCH // 4 + 1, FLOAT32).size == 0


@pytest.mark.parametrize(("B", "T", "H"), [(1, 99, 300), (49, 5, 300), (97, 1, 260), (7, 60, 100)])
def test_scratch_memory_is_large_enough(B, T, H, monkeypatch, rng, threads):
    sizes = []
    monkeypatch.setattr(
        recurrence, "scratch", lambda n, dtype: sizes.append(n) or arrays.scratch(n, dtype)
    )
    for dropped in (None, 0.5):
        layer = fg.GRU(H, recurrent_dropout=dropped or 0.0, seed=1)
        layer.forward(rng.normal(size=(B, T, 3)).astype(np.float32))
        wide = recurrence.padded(3 * H, FLOAT32)
        assert sizes.pop() >= recurrence._forward_work(
            recurrence._blocks(B)[1], T, wide, 4, dropped
        )


@pytest.mark.parametrize("B", [1, 7, 48, 49, 97])
def test_a_forward_pass_works_in_scratch_memory_whatever_it_holds(B, rng, monkeypatch, threads):
    x = rng.normal(size=(B, 60, 8)).astype(np.float32)
    layer = fg.GRU(300, return_sequences=True, seed=1)
    lent = []

    def poisoned(size, dtype):
        memory = arrays.scratch(size, dtype)
        memory[...] = np.nan
        lent.append(memory.size)
        return memory

    monkeypatch.setattr(recurrence, "scratch", poisoned)
    y = layer(x)
    assert min(lent) > 0
    monkeypatch.setattr(recurrence, "scratch", lambda size, dtype: np.empty(0, dtype))
    np.testing.assert_array_equal(y, layer(x))


def test_what_is_recorded_works_in_memory_of_its_own(rng):
    """Another thread may replay it while this one works on."""
    x = rng.normal(size=(7, 60, 8)).astype(np.float32)
    layer = fg.GRU(100, return_sequences=True, seed=1)
    layer(x)
    with kernels.recorded() as noted:
        layer.forward(x)
    used = [a for _, arguments, _ in noted._calls for a in arguments if isinstance(a, np.ndarray)]
    memory = arrays.scratch(1, FLOAT32)
    assert not any(np.shares_memory(memory, array) for array in used)


@pytest.mark.parametrize("item", [4, 8])
@pytest.mark.parametrize(("drop", "others"), [(None, 2), (0.5, 3)])
def test_scratch_memory_is_enough_for_blocks_of_fewer_rows_whose_chunks_are_longer(
    item, drop, others
):
    for most in range(2, recurrence.ROWS + 1):
        for T, wide in ((7, 160), (39, 160), (120, 192), (1000, 32), (300, 4096)):
            lent = recurrence._forward_work(most, T, wide, item, drop)
            for rows in range(1, most + 1):
                chunk = recurrence._forward_chunk(rows, T, wide, item)
                rest = lent - (chunk + others) * rows * wide
                assert rest * item >= 64 + 2 * 4 * recurrence.SIMD_WIDTH
