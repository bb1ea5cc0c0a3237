"""A kernel with its arguments as two numbers, which compiled code can hand on and call.

A block of memory holds a kernel's address and its arguments, and a small function, a share, takes
them out of it again and calls the kernel for one worker. What is given the addresses of both is
compiled once for all kernels: the parallel driver, and what Python calls for a step of a stream, or
of training that is made again (`recording`), where each array among the arguments takes 30 ns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastgru.kernels.jit import address_of, jit

WORD = ir.IntType(64)
# As many as an array of five dimensions, which no argument of a kernel exceeds.
WORDS_OF_ARGUMENT = 15
FAILED = 0  # the word of a block that tells whether a share has failed
SHARE = ir.FunctionType(ir.VoidType(), [WORD] * 3)  # of a block, a worker, and of how many


def _layout(context: Any, kinds: Any) -> ir.LiteralStructType:
    """Return what a block holds: whether a share has failed, the kernel's address, arguments."""
    return ir.LiteralStructType([WORD, WORD, *map(context.get_value_type, kinds)])


def _field(builder: ir.IRBuilder, block: ir.Value, i: int) -> ir.Value:
    return builder.gep(block, [ir.IntType(32)(0), ir.IntType(32)(i)])


@intrinsic
def stack_block(typingctx, arguments):
    """Return the address of a block on the stack."""

    def codegen(context, builder, sig, args):
        block = cgutils.alloca_once(builder, _layout(context, arguments.types))
        return builder.ptrtoint(block, WORD)

    return types.intp(arguments), codegen


@intrinsic
def fill_block(typingctx, block, address, arguments):
    """Write the address of a kernel, and its arguments, to a block; return the share's address."""
    kinds = arguments.types

    def codegen(context, builder, sig, args):
        layout = _layout(context, kinds)
        own = builder.inttoptr(args[0], layout.as_pointer())
        values = [builder.extract_value(args[2], i) for i in range(len(kinds))]
        values = [_borrowed(context, builder, *pair) for pair in zip(kinds, values, strict=True)]
        for i, value in enumerate([WORD(0), args[1], *values]):
            builder.store(value, _field(builder, own, i))
        share = ir.Function(builder.module, SHARE, builder.module.get_unique_name("share"))
        share.linkage = "internal"
        _write_share(context, share, layout, (*kinds, types.intp, types.intp))
        return builder.ptrtoint(share, WORD)

    return types.intp(types.intp, types.intp, arguments), codegen


def _borrowed(context: Any, builder: ir.IRBuilder, kind: Any, value: ir.Value) -> ir.Value:
    """Return an argument without its reference count, which ends with the call that fills a block.

    A kernel may count up and down where it takes an array; with a null pointer nothing is counted.
    """
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    return array._getvalue()


def _write_share(context: Any, share: ir.Function, layout: ir.Type, kinds: Any) -> None:
    """Write a share's code: a call of the kernel, and a note in the block if that has failed."""
    builder = ir.IRBuilder(share.append_basic_block())
    block = builder.inttoptr(share.args[0], layout.as_pointer())
    address, *values = (builder.load(_field(builder, block, i + 1)) for i in range(len(kinds) - 1))
    failed = _call(context, builder, address, kinds, [*values, *share.args[1:]])
    with builder.if_then(failed):
        builder.store(WORD(1), _field(builder, block, FAILED))
    builder.ret_void()


def _call(context: Any, builder: ir.IRBuilder, address: Any, kinds: Any, values: Any) -> Any:
    """Write a call of the kernel at an address, by Numba's convention; return whether it fails."""
    convention = context.call_conv
    function_type = convention.get_function_type(types.none, kinds)
    callee = builder.inttoptr(address, function_type.as_pointer())
    # A status comes back; result and exception go to the first two.
    slots = [cgutils.alloca_once(builder, t.pointee) for t in function_type.args[:2]]
    for slot in slots:
        builder.store(ir.Constant(slot.type.pointee, None), slot)
    packed = context.get_arg_packer(kinds).as_arguments(builder, values)
    status = builder.call(callee, [*slots, *packed])
    return builder.icmp_signed("!=", status, status.type(0))


@intrinsic
def call_share(typingctx, share, block, worker, workers):
    """Run one share: that of a worker, of so many."""

    def codegen(context, builder, sig, args):
        builder.call(builder.inttoptr(args[0], SHARE.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def has_failed(typingctx, block):
    """Return 1 if a share of a block has failed, else 0."""

    def codegen(context, builder, sig, args):
        return builder.load(builder.inttoptr(args[0], WORD.as_pointer()))

    return types.intp(types.intp), codegen


@intrinsic
def call_driver(typingctx, drive, share, block, workers, caller):
    """Let the parallel driver at an address run all shares of a block: see `threads`."""
    kinds = types.intp, types.intp, types.intp, types.intp

    def codegen(context, builder, sig, args):
        _call(context, builder, args[0], kinds, args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, *kinds), codegen


@jit
def hand_over(drive, address, workers, caller, *arguments):
    """Let the driver run the kernel at an address; return 1 if a share failed, else 0."""
    block = stack_block(arguments)
    call_driver(drive, fill_block(block, address, arguments), block, workers, caller)
    return has_failed(block)


@jit
def _fill(block, address, *arguments):
    return fill_block(block, address, arguments)


@jit(nogil=False)
def _run_alone(share, block):
    """Run the only share of a block, with the GIL: to give it up takes 50 ns."""
    call_share(share, block, 0, 1)


class Share(NamedTuple):
    """The addresses of a function and of the block that it takes, and what has to stay for them."""

    function: int
    block: int
    kept: Any


def only_share(kernel: Any, arguments: tuple[Any, ...]) -> Share:
    """Return what calls a kernel with these arguments, as worker 0 of 1."""
    block = np.zeros(2 + WORDS_OF_ARGUMENT * len(arguments), np.int64)
    place = block.__array_interface__["data"][0]
    share = _fill(place, address_of(kernel, (*arguments, 0, 1)), *arguments)
    return Share(share, place, (block, arguments))


def prepared(kernel: Any, arguments: tuple[Any, ...]) -> Callable[[], None]:
    """Return a function that calls a kernel with these arguments, as worker 0 of 1.

    The kernel must be one that cannot fail, and is not worth giving up the GIL for.
    """
    share = only_share(kernel, arguments)
    run = partial(_run_alone, share.function, share.block)
    run.kept = share.kept  # type: ignore[attr-defined]
    return run
