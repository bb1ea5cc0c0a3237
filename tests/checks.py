"""What every kernel must keep, checked for any row of `cases.py`; `test_checks_bite` checks these.

A check is a function of a case and a random generator that raises AssertionError. `CHECKS` lists
them with the parts of a case that each one needs.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap

import numpy as np
import pytest

from fastgru.kernels import recurrence, relay, threads
from fastgru.kernels.width import SIMD_WIDTH

CHECKS = []

PROT_NONE = 0  # Python's mmap does not name it


def needs(*parts):
    """Register a check, to run for the cases that have all these parts."""

    def register(check):
        CHECKS.append((check, parts))
        return check

    return register


# ---- comparisons


def assert_close(got, want, case):
    """Require |got - want| <= k eps sqrt(terms) scale, where scale is the largest |want|.

    It is at least 1, since arguments are of order 1, and a result may be their difference. Where
    values are not bounded, they may on their way have been larger than the result.
    """
    dtype, terms, k = case.dtype, case.terms(**case.sizes), 4 if case.bounded else 16
    for name in want:
        assert got[name].shape == want[name].shape, f"wrong shape: {name}"
        assert got[name].dtype == dtype, f"wrong dtype: {name}"
        if not want[name].size:
            continue
        scale = max(np.abs(want[name]).max(), 1)
        error = np.abs(got[name] - want[name]).max() / (
            np.finfo(dtype).eps * np.sqrt(terms) * scale
        )
        assert error <= k, f"wrong: {name}, {error:.3g} > {k}"


def assert_same(got, want):
    """Require the same bits. A NaN, too, must be the same."""
    for name in want:
        assert got[name].shape == want[name].shape, f"wrong shape: {name}"
        assert got[name].tobytes() == want[name].tobytes(), f"not the same bits: {name}"


def rows(arrays, names, part):
    """Return the arguments of some rows of a batch."""
    return {k: v[part] if k in names and v is not None else v for k, v in arrays.items()}


def assert_same_in_parts(case, size, rng):
    """Require the same bits for all rows at once and for parts of so many rows, one by one."""
    a = case.arguments(rng)
    d = case.gradients(rng, case.forward(a, case.options)[0])
    outputs, gradients = case.run(a, d)
    of_rows = {k: v for k, v in gradients.items() if k in case.rows}
    added = {k: np.zeros_like(a[k]) for k in case.params}
    for start in range(0, len(a[case.rows[0]]), size):
        part = slice(start, start + size)
        got = case.run(rows(a, case.rows, part), rows(d, d, part), added)
        assert_same(got[0], rows(outputs, outputs, part))
        assert_same(got[1], rows(of_rows, of_rows, part))
    assert_close(gradients, added, case)


def states(arguments):
    """Return the names of the last states of a sequence, with those of the initial ones."""
    return {f"{k}_last": f"{k}0" for k in "hc" if f"{k}0" in arguments}


# ---- checks


@needs()
def check_forward(case, rng):
    """The outputs are those of the reference."""
    a, d = case.example(rng)
    outputs, _ = case.run(a, d)
    assert_close(outputs, case.twin(a, d)[0], case)


@needs("backward")
def check_backward(case, rng):
    """The gradients are those of the reference."""
    a, d = case.example(rng)
    _, gradients = case.run(a, d)
    want = case.twin(a, d)[1]
    assert gradients.keys() == want.keys()
    assert_close(gradients, want, case)


@needs("params")
def check_gradients_are_added(case, rng):
    """The gradients of parameters are added to what their arrays hold."""
    a, d = case.example(rng)
    before = {k: rng.normal(size=a[k].shape).astype(case.dtype) for k in case.params}
    want = {k: case.twin(a, d)[1][k] + before[k] for k in case.params}
    into = {k: v.copy() for k, v in before.items()}
    case.run(a, d, into)
    assert_close(into, want, case)


@needs("masked")
def check_padding_is_invisible(case, rng):
    """Whatever x holds at masked steps changes nothing, and its gradient there is zero."""
    a, d = case.example(rng)
    here = a["mask"]
    assert here.any() and not here.all() and not here.any(axis=1).all()
    outputs, gradients = case.run(a, d)
    for padding in (0, np.inf, np.nan):
        filled = a | {"x": np.where(here[..., None], a["x"], a["x"].dtype.type(padding))}
        for got, want in zip(case.run(filled, d), (outputs, gradients), strict=True):
            assert_same(got, want)
    assert all(np.isfinite(v).all() for v in (outputs | gradients).values())
    assert not gradients["x"][~here].any(), "x has a gradient at masked steps"
    empty = ~here.any(axis=1)
    for last, first in states(a).items():
        assert_same({last: outputs[last][empty]}, {last: a[first][empty]})


@needs("rows")
def check_one_by_one(case, rng):
    """A row's results do not depend on the other rows."""
    for sized in (case, case.at(B=13)) if "B" in case.sizes else (case,):
        assert_same_in_parts(sized, 1, rng)


@needs("rows")
def check_many_rows(case, rng):
    """Nor do they where one thread runs blocks of rows, some larger by one than the next."""
    of_rows = next(iter(case.sizes))
    assert_same_in_parts(case.at(**{of_rows: 3 * recurrence.ROWS + 2}), 29, rng)


@needs()
def check_threads(case, rng):
    """The number of threads does not change a bit of any output or gradient."""
    larger = case.at(B=13, T=20 if case.bounded else 5, H=41) if case.sequence else case
    for sized in (case, larger):
        a, d = sized.example(rng)
        threads.set_num_threads(1)
        want = sized.run(a, d)
        for n in (2, 3):
            threads.set_num_threads(n)
            for got, one in zip(sized.run(a, d), want, strict=True):
                assert_same(got, one)


@needs("sequence")
def check_units_shared(case, rng):
    """Threads that share the units of few rows give the bits of one thread."""
    larger = case.at(B=2, T=20 if case.bounded else 5, H=4 * SIMD_WIDTH + 41)
    shared = []
    make = relay.progress_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay, "progress_of", lambda workers: shared.append(1) or make(workers))
        for sized in (case, larger, larger.at(B=1)):
            a, d = sized.example(rng)
            threads.set_num_threads(1)
            want = sized.run(a, d)
            patch.setattr(relay, "LEAST_FLOPS_OF_A_STEP", {sized.sizes["B"]: 0})
            for n in (2, 3):
                threads.set_num_threads(n)
                for got, one in zip(sized.run(a, d), want, strict=True):
                    assert_same(got, one)
    assert len(shared) == 3 * 2 * 2, "a run did not share the units"


@needs("sequence")
def check_step_by_step(case, rng):
    """T calls of one step each give the sequence."""
    a = case.arguments(rng)
    (outputs, _), T = case.forward(a, case.options), case.sizes["T"]
    state = {last: a[first] for last, first in states(a).items()}
    for t in range(T):
        s = T - 1 - t if case.options["go_backwards"] else t
        step = {k: a[k] if a[k] is None else np.ascontiguousarray(a[k][:, s : s + 1])
                for k in ("x", "mask")}  # fmt: skip
        for last, first in states(a).items():
            step[first] = np.ascontiguousarray(state[last])
        state, _ = case.forward(a | step, case.options)
        assert_same({"y": state["y"][:, 0]}, {"y": outputs["y"][:, t]})
    assert_same(state, {last: outputs[last] for last in states(a)})


@needs("sequence")
def check_last_state(case, rng):
    """Inference gives what training gives, and the last state alone is that of the sequence."""
    for sized in (case, case.at(T=1), case.at(T=0)):
        a = sized.arguments(rng)
        outputs, _ = case.forward(a, case.options)
        assert_same(case.forward(a, case.options, keep=False)[0], outputs)
        for keep in (True, False):
            last, _ = case.forward(a, case.options, return_sequences=False, keep=keep)
            assert last["y"].shape == (case.sizes["B"], 1, case.sizes["H"])
            assert_same({"h": last["y"][:, 0]}, {"h": outputs["h_last"]})
            assert_same(last, {name: outputs[name] for name in states(a)})


@needs()
def check_sizes(case, rng):
    """Results are right around the edges of vector, panel and tile, and for empty sequences."""
    W = SIMD_WIDTH * 4 // np.dtype(case.dtype).itemsize
    edges = sorted({1, max(W - 1, 1), W, W + 1, 2 * W, 2 * W + 3})
    letters = [k for k in case.sizes if k not in "BT"]
    cases = [
        case.at(**dict(zip(letters, sizes, strict=True)))
        for sizes in itertools.product(edges, repeat=len(letters))
    ]
    if case.sequence:
        cases += [case.at(B=B) for B in range(1, 15)] + [case.at(T=T) for T in (0, 1)]
    if case.sequence and case.bounded:
        # More steps than one chunk of projections, and more than one block of a weight gradient.
        cases += [case.at(B=14, T=20, H=65), case.at(B=1, T=200, H=4 * W + 1)]
    for sized in cases:
        a, d = sized.example(rng)
        for got, want in zip(sized.run(a, d), sized.twin(a, d), strict=True):
            assert_close(got, want, sized)


@needs("fenced")
def check_memory(case, rng, fence_type=None):
    """Kernels write their outputs and nothing else, and what lies around their inputs is no input.

    Serial workers, whatever their number, together make what the public call makes.
    """
    for sized in (case, case.at(B=7, H=33)) if case.sequence else (case,):
        a, d = sized.example(rng)
        outputs, gradients = sized.run(a, d)
        for workers in (1, 2, 5):
            fence = (fence_type or Fence)()
            got = case.fenced(fence, a, d, case.options, workers)
            fence.check()
            assert_same(got, outputs | gradients)


# ---- arrays that notice who steps over their edges


class Fence:
    """Hands out arrays between guard bands, and tells if anything wrote there or to an input."""

    GUARD = 128

    def __init__(self):
        self._handed_out = []

    def put(self, array, out=False):
        """Return a copy: an output (or both) between numbers, an input between NaN."""
        fill = out or array.dtype.kind == "i"
        post = True if array.dtype == bool else -12345 if fill else np.nan
        whole = np.full(array.size + 2 * self.GUARD, post, array.dtype)
        inside = whole[self.GUARD : self.GUARD + array.size]
        inside[...] = array.ravel()
        self._handed_out.append((whole, whole.copy(), inside if out else inside[:0]))
        return inside.reshape(array.shape)

    def empty(self, shape, dtype):
        """Return an array of NaN, for an output."""
        return self.put(np.full(shape, np.nan, dtype), out=True)

    def check(self):
        for whole, before, written in self._handed_out:
            before[self.GUARD : self.GUARD + written.size] = written
            assert whole.tobytes() == before.tobytes(), "a kernel wrote beside its output"


class Cliff(Fence):
    """Hands out arrays that touch memory which kills the process when it is read or written."""

    _all = []  # never unmapped

    def put(self, array, out=False, at_end=True):
        page = mmap.PAGESIZE
        data = -(-array.nbytes // page) * page
        memory = mmap.mmap(-1, data + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for edge in (start, start + page + data):
            assert protect(ctypes.c_void_p(edge), ctypes.c_size_t(page), PROT_NONE) == 0
        offset = page + (data - array.nbytes if at_end else 0)
        inside = np.frombuffer(memory, array.dtype, array.size, offset)
        inside[...] = array.ravel()
        self._all.append(memory)
        return inside.reshape(array.shape)


class CliffBefore(Cliff):
    """The same, with the edge in front of the array."""

    def put(self, array, out=False, at_end=False):
        return super().put(array, out, at_end)
