"""No kernel writes behind the memory that it allocates itself; `check_memory` is for what it gets.

All kernels run at sizes of every kind in a process whose C library looks at each block that is
given back, and ends the process if something was written behind it.
"""

import ctypes.util

import pytest
from children import finish, start

CHECKER = ctypes.util.find_library("c_malloc_debug")

pytestmark = pytest.mark.skipif(CHECKER is None, reason="a part of glibc")


def start_checked(code):
    """Start Python with some code, and with four threads, so that shares have different rows."""
    return start(
        "-c",
        code,
        LD_PRELOAD=CHECKER,
        GLIBC_TUNABLES="glibc.malloc.check=3",
        NUMBA_NUM_THREADS=4,
    )


ALL_KERNELS = """
import numpy as np
from cases import CASES
from fastgru.kernels import threads

threads.LEAST_FLOPS = 1
rng = np.random.default_rng(0)
for case in CASES:
    # All small; as large as a vector or a few; blocks of rows and of steps, some larger by one.
    vectors, blocks = dict.fromkeys(case.sizes, 70), {"B": 400, "T": 40, "H": 60}
    for least, most in ((1, {}), (1, vectors), (5, blocks)):
        sizes = {name: int(rng.integers(least, 1 + most.get(name, 9))) for name in case.sizes}
        case = case.at(**sizes)
        a = case.arguments(rng)
        threads.set_num_threads(int(rng.integers(1, 5)))
        case.run(a, case.gradients(rng, case.forward(a, case.options)[0]))
print("done")
"""


def test_kernels_write_within_the_memory_that_they_allocate():
    assert finish(start_checked(ALL_KERNELS)) == "done\n"


SOME_ROWS = """
import numpy as np
from fastgru.kernels.jit import jit
from fastgru.kernels.gemm import fill
from fastgru.kernels.simd import keep_alive, pointer

@jit
def kernel(rows, used, wide):
    work = np.empty(rows * wide, np.float32)
    fill(pointer(work), used * wide, 1.0)
    keep_alive(work)

kernel(5, {used}, 32)
print("done")
"""


def test_the_check_bites():
    assert finish(start_checked(SOME_ROWS.format(used=5))) == "done\n"
    process = start_checked(SOME_ROWS.format(used=6))
    _, errors = process.communicate(timeout=300)
    assert process.returncode < 0, errors
