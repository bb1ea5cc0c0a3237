"""All kernel tests at the vector widths that are not this machine's, and the same bits at all."""

import os
from pathlib import Path

import pytest
from children import finish, start

from fastgru.kernels.width import SIMD_WIDTH, WIDTHS

TESTS = Path(__file__).parent
INNER = "FASTGRU_TESTS_AT_WIDTH"

pytestmark = pytest.mark.skipif(INNER in os.environ, reason="already runs at another width")


def start_at(width, *arguments):
    """Start Python at a vector width; the cache directory is the one of this process."""
    return start(*arguments, FASTGRU_SIMD_WIDTH=width, **{INNER: width})


OTHERS = [width for width in WIDTHS if width != SIMD_WIDTH]


@pytest.fixture(scope="module")
def runs():
    """The kernel tests at the other widths, side by side."""
    tests = [str(TESTS / name) for name in ("test_kernels.py", "test_simd.py")]
    options = ["-m", "pytest", *tests, "-x", "-p", "no:cacheprovider"]
    processes = {width: start_at(width, *options) for width in OTHERS}
    yield processes
    for process in processes.values():
        process.kill()


@pytest.mark.parametrize("width", OTHERS)
def test_all_kernel_tests_pass_at_width(width, runs):
    assert " passed" in finish(runs[width], timeout=600)


BITS = """
import hashlib
import numpy as np
import cases
from fastgru.kernels.width import SIMD_WIDTH

digest = hashlib.sha256()
for case in cases.CASES:
    sizes = {"B": 3, "T": 5, "I": 20, "H": 37} if case.sequence else {}
    a, d = case.at(**sizes).example(np.random.default_rng(0))
    outputs, gradients = case.run(a, d)
    for name, array in sorted((outputs | gradients).items()):
        digest.update(array.tobytes())
print(SIMD_WIDTH, digest.hexdigest())
"""


def test_results_are_the_same_bits_at_every_width():
    processes = [start_at(width, "-c", BITS) for width in WIDTHS]
    lines = [finish(process, timeout=600).split() for process in processes]
    assert [int(width) for width, _ in lines] == list(WIDTHS)
    assert len({bits for _, bits in lines}) == 1, lines
