"""Where things are: the core that a thread runs on, or is to run on, and an array in memory."""

from __future__ import annotations

import ctypes
import os

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastgru.kernels.jit import jit

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
# Room for the bits of 1024 cores, as in C's cpu_set_t.
MASK_BYTES = 128


def _has(*names: str) -> bool:
    """Return whether the C library has all of these functions."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None)
    return all(hasattr(library, name) for name in names)


CAN_YIELD = _has("sched_yield")
CAN_MOVE = _has("sched_getcpu", "sched_getaffinity", "sched_setaffinity", "pthread_self")


def _call(builder: ir.IRBuilder, name: str, gives: ir.Type, *args: ir.Value) -> ir.Value:
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(gives, [a.type for a in args])
        function = ir.Function(builder.module, kind, name)
    return builder.call(function, args)


@intrinsic
def relax(typingctx):
    """Tell the core that this is a loop of looks."""

    def codegen(context, builder, sig, args):
        if builder.module.triple.startswith(("x86_64", "i686")):
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_core(typingctx):
    """Leave the core to another thread that could run."""

    def codegen(context, builder, sig, args):
        if CAN_YIELD:
            _call(builder, "sched_yield", I32)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def current_core(typingctx):
    """Return the number of the core that this thread runs on; -1 where that is not known."""

    def codegen(context, builder, sig, args):
        if not CAN_MOVE:
            return I64(-1)
        return builder.sext(_call(builder, "sched_getcpu", I32), I64)

    return types.int64(), codegen


@intrinsic
def this_thread(typingctx):
    """Return a number that no other thread has; 0 where that is not known."""

    def codegen(context, builder, sig, args):
        return _call(builder, "pthread_self", I64) if CAN_MOVE else I64(0)

    return types.int64(), codegen


@intrinsic
def leave_core(typingctx, core, owner):
    """Move this thread to another of the cores that the thread `owner` (its system's id) may use.

    Afterwards it may use all of them again. Without another core nothing happens.
    """

    def codegen(context, builder, sig, args):
        if not CAN_MOVE:
            return context.get_dummy_value()
        core, owner = args
        mask = cgutils.alloca_once(builder, ir.ArrayType(I64, MASK_BYTES // 8))
        mask.align = 8
        address = builder.bitcast(mask, I8.as_pointer())
        size, myself = I64(MASK_BYTES), I32(0)
        builder.store(ir.Constant(mask.type.pointee, None), mask)
        _call(builder, "sched_getaffinity", I32, builder.trunc(owner, I32), size, address)
        # On a larger machine than there is room for, the system has left the mask empty.
        index = builder.urem(builder.lshr(core, I64(6)), I64(MASK_BYTES // 8))
        word = builder.gep(mask, [I64(0), index])
        bits = builder.load(word)
        own = builder.shl(I64(1), builder.and_(core, I64(63)))
        builder.store(builder.and_(bits, builder.not_(own)), word)
        # An empty mask is refused by the system, and this thread stays.
        _call(builder, "sched_setaffinity", I32, myself, size, address)
        builder.store(bits, word)
        _call(builder, "sched_setaffinity", I32, myself, size, address)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@jit(nogil=False)
def address(array):
    """Return where the first element of an array is."""
    return array.ctypes.data
