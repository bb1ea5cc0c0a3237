"""Kernels among threads and processes, and their cache on disk in good and bad folders."""

import errno
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cases import gru_case, lstm_case, simple_rnn_case
from children import finish, start

from fastgru.kernels import (
    activations,
    gru,
    handover,
    lstm,
    packing,
    recurrence,
    simple_rnn,
    threads,
    width,
)
from fastgru.kernels.arrays import as_kernel_array

ROOT = Path(__file__).parent.parent
# Big enough for the parallel driver, many times over.
BIG = gru_case().at(B=64, T=30, I=32, H=64)


def predict(seed=0):
    """Return the bits of a GRU's outputs."""
    a = BIG.arguments(np.random.default_rng(seed))
    outputs, _ = BIG.forward(a, BIG.options, keep=False)
    return hashlib.sha256(outputs["y"].tobytes()).hexdigest()


def predict_and_tell(seed=0):
    """Return the bits, and what this process knows of itself."""
    return predict(seed), threads._forked, threads.get_num_threads()


@pytest.fixture
def want(monkeypatch):
    """The right bits for seeds 0 to 7, after a parallel kernel ran in this process."""
    monkeypatch.setattr(threads, "_num_threads", 1)
    serial = [predict(seed) for seed in range(8)]
    entered = []
    enter = threads._enter
    monkeypatch.setattr(threads, "_enter", lambda *a: (entered.append(a[-1]), enter(*a))[1])
    threads.set_num_threads(2)
    assert predict(0) == serial[0] and entered == [2]
    return serial


# ---- threads


def test_eight_threads_predict_at_once(want):
    barrier = threading.Barrier(8)

    def work(seed):
        barrier.wait(60)
        return [predict(seed) for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[bits] * 4 for bits in want]


def test_a_pool_of_threads_trains_at_once(want):
    a, d = BIG.example(np.random.default_rng(0))
    right = BIG.run(a, d)[1]
    with ThreadPoolExecutor(4) as pool:
        for gradients in pool.map(lambda _: BIG.run(a, d)[1], range(12)):
            assert all(gradients[k].tobytes() == right[k].tobytes() for k in right)


def test_the_very_first_calls_of_a_process_may_come_from_eight_threads(want):
    code = """
import threading
import test_processes as t
from concurrent.futures import ThreadPoolExecutor
barrier = threading.Barrier(8)
def work(seed):
    barrier.wait(60)
    return t.predict(seed)
with ThreadPoolExecutor(8) as pool:
    print(*pool.map(work, range(8)))
"""
    assert finish(start("-c", code, FASTGRU_NUM_THREADS=2)).split() == want


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_a_users_own_parallel_code_may_run_beside_the_kernels(layer, want):
    """Numba's workqueue layer aborts the process when two threads are in parallel code at once."""
    code = """
import threading
import numba
import numpy as np
import test_processes as t
from fastgru.kernels import threads

@numba.njit(parallel=True, nogil=True)
def total(a):
    s = 0.0
    for i in numba.prange(a.size):
        s += a[i]
    return s

a = np.ones(100_000)
stop = threading.Event()
def users():
    while not stop.is_set():
        total(a)
total(a)
assert numba.threading_layer() == LAYER
threads.LEAST_FLOPS_OF_PYTHON_THREADS = 1
other = threading.Thread(target=users)
other.start()
try:
    print(*{t.predict(0) for _ in range(100)})
finally:
    stop.set()
    other.join()
assert (threads._pool is None) == (LAYER != "workqueue")
""".replace("LAYER", repr(layer))
    environment = {"NUMBA_THREADING_LAYER": layer, "FASTGRU_NUM_THREADS": 2}
    process = start("-c", code, **environment)
    output, errors = process.communicate(timeout=300)
    if layer == "omp" and "No threading layer could be loaded" in errors:
        pytest.skip("no OpenMP here")
    assert process.returncode == 0, errors
    assert output.split() == want[:1]


def test_two_warmups_at_once_leave_the_settings_as_they_were():
    before = threads.LEAST_FLOPS, threads.get_num_threads()
    inside, leave = threading.Barrier(3), threading.Event()

    def warm(sharing):
        with threads.always_sharing(sharing):
            inside.wait(60)
            leave.wait(60)
            return threads.number_of_workers(8, 0)

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(warm, sharing) for sharing in (True, False)]
        inside.wait(60)
        assert threads.number_of_workers(8, 0) == 1
        leave.set()
        assert [one.result() for one in both] == [2, 1]
    assert (threads.LEAST_FLOPS, threads.get_num_threads()) == before
    assert threads.number_of_workers(8, 0) == 1


# ---- processes


METHODS = [
    m for m in ("fork", "spawn", "forkserver") if m in multiprocessing.get_all_start_methods()
]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
def test_children_predict_after_the_parent_ran_a_parallel_kernel(method, want):
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map_async(predict_and_tell, range(4), chunksize=1).get(timeout=120)
    assert [bits for bits, _, _ in results] == want[:4]
    for _, forked, num_threads in results:
        assert forked == (method == "fork")
        # A forked child inherits the setting, which it may not use.
        assert num_threads == (2 if method == "fork" else 1)


@pytest.mark.skipif("fork" not in METHODS, reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_a_kernel_runs_in_parallel_predicts(want):
    with threads._region, multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(predict, (1,)).get(timeout=120) == want[1]
    assert not threads._forked


def test_joblib_workers_predict(want):
    joblib = pytest.importorskip("joblib")
    for backend in ("loky", "threading"):
        parallel = joblib.Parallel(n_jobs=2, backend=backend)
        assert parallel(joblib.delayed(predict)(seed) for seed in range(4)) == want[:4]


# ---- the cache of compiled kernels

# Runs two kernels that compile quickly, and tells what came of it.
CHEAP = """
import json, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from fastgru.kernels.activations import activation_backward, activation_forward
    x = np.linspace(-3, 3, 37, dtype=np.float32)
    y, dx = np.empty_like(x), np.empty_like(x)
    activation_forward(1, x, y)
    if BACKWARD:
        activation_backward(1, x, x, y, dx)
print(json.dumps({
    "y": y.tolist(),
    "warnings": [w.category.__name__ for w in caught],
    "text": " ".join(str(w.message) for w in caught),
    "hits": sum(activation_forward.stats.cache_hits.values()),
    "misses": sum(activation_forward.stats.cache_misses.values()),
}))
"""


def start_cheap(folder, backward=False, before=""):
    code = f"BACKWARD = {backward}\n{before}\n{CHEAP}"
    return start("-c", code, FASTGRU_CACHE_DIR=folder)


def cheap(folder, backward=False, before=""):
    """Run the kernels with a cache directory; require the right result and return the rest."""
    return checked(finish(start_cheap(folder, backward, before)))


# What a folder does that cannot be written to: modes do not keep root from it.
UNWRITABLE = """
import os, tempfile
def refuse(*_, dir, **options):
    raise OSError({number}, os.strerror({number}), dir)
tempfile.TemporaryFile = refuse
os.access = lambda path, mode: not mode & os.W_OK
"""


def checked(output):
    result = json.loads(output)
    x = np.linspace(-3, 3, 37, dtype=np.float32)
    np.testing.assert_allclose(result.pop("y"), np.tanh(x), rtol=1e-6)
    return result


def test_a_second_process_compiles_nothing(tmp_path):
    first, second = cheap(tmp_path), cheap(tmp_path)
    assert (first["hits"], first["misses"]) == (0, 1)
    assert (second["hits"], second["misses"]) == (1, 0)
    assert first["warnings"] == second["warnings"] == []


def test_the_cache_is_private(tmp_path):
    cheap(tmp_path / "new")
    folders = [p for p in (tmp_path / "new" / "kernels").rglob("*") if p.is_dir()]
    assert len(folders) == 1
    for folder in (*folders, folders[0].parent):
        assert folder.stat().st_mode & 0o077 == 0


def test_four_processes_may_start_together_on_an_empty_cache(tmp_path):
    results = [checked(finish(p)) for p in [start_cheap(tmp_path) for _ in range(4)]]
    assert [r["warnings"] for r in results] == [[]] * 4
    last = cheap(tmp_path)
    assert (last["hits"], last["misses"]) == (1, 0)


def test_processes_that_keep_other_dtypes_at_the_same_time_do_not_mix_them_up(
    tmp_path, monkeypatch
):
    """Both find an empty cache before either writes to it; each file must be what its name says."""
    monkeypatch.setenv("FASTGRU_CACHE_DIR", str(tmp_path))
    code = """
import numpy as np
from fastgru.kernels.activations import activation_forward
x = np.linspace(-3, 3, 37, dtype="DTYPE")
y = np.empty_like(x)
compile = activation_forward._compiler.compile
def wait_for_the_other(args, return_type):
    print("compiling", flush=True)
    input()
    return compile(args, return_type)
activation_forward._compiler.compile = wait_for_the_other
activation_forward(1, x, y)
assert np.allclose(y, np.tanh(x), rtol=1e-6)
"""
    both = [start("-c", code.replace("DTYPE", d)) for d in ("float32", "float64")]
    assert [process.stdout.readline() for process in both] == ["compiling\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        finish(process)
    for dtype in ("float32", "float64"):
        assert finish(start("-c", code.replace("DTYPE", dtype))) == ""


def test_an_edit_while_a_process_runs_is_not_kept_as_the_edited_file(tmp_path):
    """What is compiled belongs to the sources that were imported."""
    shutil.copytree(ROOT / "fastgru", tmp_path / "fastgru")
    code = """
import pathlib, fastgru.kernels.jit as jit
path = pathlib.Path(jit.__file__).parent / "dense.py"
before = jit.kernel_cache.__wrapped__().name
path.write_text(path.read_text() + "# edited")
assert jit.kernel_cache.__wrapped__().name == before
print(jit.SOURCES)
"""
    run = [finish(start("-c", code, cwd=tmp_path, FASTGRU_CACHE_DIR=tmp_path)) for _ in "ab"]
    assert run[0] != run[1]
    assert (tmp_path / "fastgru/kernels/dense.py").read_text().count("# edited") == 2


def test_a_cache_that_cannot_be_written_costs_one_warning(tmp_path):
    (tmp_path / "file").write_text("no folder")
    result = cheap(tmp_path / "file" / "x", backward=True)
    assert result["warnings"] == ["CacheWarning"]
    assert "FASTGRU_CACHE_DIR" in result["text"]


def test_a_full_disk_costs_one_warning_that_says_where_and_what_to_do(tmp_path):
    result = cheap(tmp_path, True, UNWRITABLE.format(number=errno.ENOSPC))
    assert result["warnings"] == ["CacheWarning"]
    for part in ("No space left", str(tmp_path / "kernels"), "FASTGRU_CACHE_DIR"):
        assert part in result["text"]


def test_a_cache_that_can_only_be_read_is_used_and_warns_of_what_it_cannot_keep(tmp_path):
    cheap(tmp_path)
    before = UNWRITABLE.format(number=errno.EROFS)
    there, more = cheap(tmp_path, False, before), cheap(tmp_path, True, before)
    assert there["hits"] == more["hits"] == 1
    assert there["warnings"] == [] and more["warnings"] == ["CacheWarning"]


@pytest.mark.skipif(os.name != "posix", reason="modes of folders")
def test_a_cache_that_others_can_write_to_is_refused(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    result = cheap(tmp_path)
    assert result["warnings"] == ["CacheWarning"]
    assert "0700" in result["text"]
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    cheap(folder)
    return folder


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".nbc", "empty"),
        (".nbc", "half"),
        (".nbc", "garbage"),
        (".nbc", "one bit"),
        (".nbc", "missing"),
    ],
)
def test_damaged_files_only_cost_a_compilation(suffix, damage, filled_cache, tmp_path):
    folder = shutil.copytree(filled_cache, tmp_path / "copy")
    files = list(folder.rglob(f"*{suffix}"))
    assert files
    for file in files:
        data = file.read_bytes()
        if damage == "missing":
            file.unlink()
        else:
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            new = {"empty": b"", "half": data[:middle], "garbage": b"\x93x" * 999}
            new["one bit"] = flipped
            file.write_bytes(new[damage])
    first, second = cheap(folder), cheap(folder)
    assert first["hits"] == 0
    assert first["warnings"] == second["warnings"] == []
    assert second["hits"] == 1, "the damage was not repaired"


@pytest.mark.parametrize("value", ["5", "08", "32", "avx", " "])
def test_a_width_that_does_not_exist_is_refused(value, monkeypatch):
    monkeypatch.setenv("FASTGRU_SIMD_WIDTH", value)
    with pytest.raises(ValueError, match=f"FASTGRU_SIMD_WIDTH.*{value}"):
        width._detect()


def test_a_wrong_width_stops_the_import():
    process = start("-c", "import fastgru.kernels.gru", FASTGRU_SIMD_WIDTH=5)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ValueError: FASTGRU_SIMD_WIDTH: expected 4, 8 or 16, given '5'" in errors


@pytest.mark.parametrize("value", ["4", "8", "16"])
def test_the_width_can_be_chosen(value, monkeypatch):
    monkeypatch.setenv("FASTGRU_SIMD_WIDTH", value)
    assert width._detect() == int(value)


# ---- compiled signatures

KERNELS = (
    packing.pack_forward, packing.pack_backward, recurrence.recurrent_backward_columns,
    gru.gru_forward_rows, gru.gru_backward_rows, lstm.lstm_forward_rows, lstm.lstm_backward_rows,
    simple_rnn.simple_rnn_forward_rows, simple_rnn.simple_rnn_backward_rows,
    activations.activation_forward, activations.activation_backward, threads._drive,
    handover.hand_over, handover._fill,
)  # fmt: skip


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array):
    twice = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    part = twice[tuple(slice(None, None, 2) for _ in array.shape)]
    part[...] = array
    return part


def misaligned(array):
    data = np.zeros(array.nbytes + 1, np.uint8)
    moved = data[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


ODD = {
    "read-only": read_only,
    "non-contiguous": strided,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "column-major": np.asfortranarray,
    "misaligned": misaligned,
    "reversed": lambda array: array[::-1].copy()[::-1],
    "list": lambda array: array.tolist() if array.size else array,
    "subclass": lambda array: array.view(type("Sub", (np.ndarray,), {})),
}


def run_everything(case, change, rng):
    """Run a case on changed arguments and return all results."""
    a, d = case.example(rng)
    prepared = {
        k: v if v is None else as_kernel_array(change(v), v.dtype) for k, v in (a | d).items()
    }
    outputs, gradients = case.run(prepared, {k: prepared[k] for k in d})
    return outputs | gradients


def test_kernels_that_are_given_functions_can_be_kept_on_disk(rng):
    for make in (gru_case, lstm_case, simple_rnn_case):
        case = make()
        case.run(*case.example(rng))
    kernels = [k for k in KERNELS if "rows" in k.py_func.__name__]
    libraries = [code.library for kernel in kernels for code in kernel.overloads.values()]
    assert len(kernels) == 6 <= len(libraries)
    # Numba refuses what holds an address of this process.
    assert not any(library.has_dynamic_globals for library in libraries)


@pytest.mark.parametrize("kind", ODD)
def test_no_legal_input_compiles_anything_new(kind, threads):
    threads.set_num_threads(2)
    cases = [
        make(masked=masked, dtype=dtype)
        for make in (gru_case, lstm_case, simple_rnn_case)
        for masked in (False, True)
        for dtype in (np.float32, np.float64)
    ]
    cases += [case.at(B=1, T=1, I=1, H=1) for case in cases] + [case.at(T=0) for case in cases]
    want = [run_everything(case, np.copy, np.random.default_rng(0)) for case in cases]
    before = [len(kernel.signatures) for kernel in KERNELS]
    for case, right in zip(cases, want, strict=True):
        got = run_everything(case, ODD[kind], np.random.default_rng(0))
        assert all(got[name].tobytes() == right[name].tobytes() for name in right)
    assert [len(kernel.signatures) for kernel in KERNELS] == before


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("shape", [(3, 4), (5,), (1, 1), (0, 4), (2, 3, 4)])
def test_as_kernel_array_gives_what_kernels_take(kind, shape):
    source = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    array = as_kernel_array(ODD[kind](source), np.float32)
    assert type(array) is np.ndarray or kind == "subclass"
    assert array.dtype == np.float32 and array.dtype.isnative
    assert array.flags.c_contiguous and array.flags.aligned and array.flags.writeable
    assert np.array_equal(array, source)


def test_as_kernel_array_copies_only_what_it_must():
    array = np.ones((3, 4), np.float32)
    assert as_kernel_array(array, np.float32) is array
    locked = read_only(array)
    assert not np.shares_memory(as_kernel_array(locked, np.float32), locked)


# ---- how many threads


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        ("0::/user/app\n", {"user/app/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/user/app\n", {"user/app/cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "400000 100000"}, 4),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/path/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/a\n", {}, math.inf),
        ("0::/a\n", {"a/cpu.max": ""}, math.inf),
        (
            "4:cpu,cpuacct:/docker/x\n2:memory:/m\n",
            {
                "cpu/docker/x/cpu.cfs_quota_us": "250000\n",
                "cpu/docker/x/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            "4:cpuacct,cpu:/x\n",
            {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        (
            "4:cpu:/path/of/the/host\n",
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "5:cpuset:/x\n3:memory:/x\n",
            {"cpu/x/cpu.cfs_quota_us": "100000\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("", {"cpu.max": "100000 100000"}, math.inf),
        (None, {"cpu.max": "100000 100000"}, math.inf),
    ],
)
def test_the_quota_of_control_groups_is_read(groups, files, cpus, tmp_path):
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    assert threads._cgroup_quota(tmp_path) == cpus


VARIABLES = ("FASTGRU_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity masks here")
@pytest.mark.parametrize(
    ("fastgru", "numba", "omp", "quota", "expected"),
    [
        (None, None, None, math.inf, 8),
        ("3", None, None, math.inf, 3),
        ("12", "2", "1", 1, 12),
        (None, "4", None, math.inf, 4),
        (None, None, "2", math.inf, 2),
        (None, "4", "2", math.inf, 2),
        (None, "2", "4", math.inf, 2),
        (None, None, "100", math.inf, 8),
        (None, None, "4,2", math.inf, 4),
        (None, None, " 5 ", math.inf, 5),
        ("", "0", "-1", math.inf, 8),
        (None, "1.5", "abc", math.inf, 8),
        (None, None, None, 1.5, 2),
        (None, None, None, 0.3, 1),
        (None, None, None, 100, 8),
        (None, None, "1", 4, 1),
    ],
)
def test_the_environment_and_the_quota_bound_the_threads(
    fastgru, numba, omp, quota, expected, monkeypatch
):
    for name, value in zip(VARIABLES, (fastgru, numba, omp), strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: quota)
    assert threads.default_num_threads() == expected


@pytest.mark.parametrize("value", ["abc", "0", "-2", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(value, monkeypatch):
    monkeypatch.setenv("FASTGRU_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"FASTGRU_NUM_THREADS: .* given '{value}'"):
        threads.default_num_threads()


def test_no_kernel_reads_memory_that_it_has_given_back():
    """An allocator that overwrites and unmaps freed memory at once must change nothing."""
    code = """
import numpy as np, fastgru as fg
x = np.random.default_rng(0).normal(size=(32, 40, 16)).astype("float32")
layers = [fg.GRU(64, seed=0), fg.GRU(64, seed=0, reset_after=False), fg.LSTM(64, seed=0)]
layers += [fg.SimpleRNN(64, seed=0), fg.Dense(300, seed=0)]
for layer in layers:
    results = []
    for threads in [1] + [2] * 30:
        fg.set_num_threads(threads)
        layer.zero_gradients() if layer.built else None
        y, backward = layer.forward(x)
        results.append([y.copy(), backward(y.copy()), *layer.get_gradients()])
    for result in results:
        assert all(np.isfinite(a).all() for a in result)
        assert all(map(np.array_equal, results[0], result))
fg.set_num_threads(1)
assert np.isfinite(fg.GRU(64)(np.ones((700, 20, 8)))).all()
"""
    hostile = {
        "MALLOC_ARENA_MAX": 1,
        "MALLOC_PERTURB_": 165,
        "MALLOC_MMAP_THRESHOLD_": 4096,
    }
    finish(start("-c", code, **hostile))


def test_dask_workers_predict(want):
    dask = pytest.importorskip("dask")
    tasks = [dask.delayed(predict)(seed) for seed in range(4)]
    for scheduler in ("processes", "threads"):
        assert list(dask.compute(*tasks, scheduler=scheduler, num_workers=2)) == want[:4]


def test_eight_processes_may_start_together_on_an_empty_cache_with_both_dtypes(tmp_path):
    code = """
import hashlib
import numpy as np
from fastgru.kernels.activations import activation_forward
x = np.linspace(-3, 3, 37, dtype="DTYPE")
y = np.empty_like(x)
activation_forward(1, x, y)
np.testing.assert_allclose(y, np.tanh(x), rtol=1e-6)
print(hashlib.sha256(y.tobytes()).hexdigest())
"""
    dtypes = ("float32", "float64") * 4
    children = [
        start("-W", "error", "-c", code.replace("DTYPE", dtype), FASTGRU_CACHE_DIR=tmp_path)
        for dtype in dtypes
    ]
    bits = [finish(child) for child in children]
    assert len(set(bits)) == len(set(zip(dtypes, bits, strict=True))) == 2
    assert len(list(tmp_path.rglob("*.nbc"))) == 2


def test_idle_threads_use_no_cpu_time_after_a_parallel_kernel():
    code = """
import time
import test_processes as t
t.predict()
t.threads.numba.threading_layer()  # raises unless threads were started
time.sleep(0.2)  # OpenMP's threads spin for a moment
before = time.process_time()
time.sleep(1)
print(time.process_time() - before)
"""
    assert float(finish(start("-c", code, FASTGRU_NUM_THREADS=2))) < 0.005
