"""SIMD values for Numba kernels: a pointer, a vector and a mask type, and elementary functions.

A kernel names its arithmetic instead of hoping for the auto-vectoriser::

    for j in range(0, n, lanes(p)):
        store(q + j, tanh(load(p + j) * 0.5))

`pointer(array)` is the address of an array's first element and knows its dtype, so that one source
serves float32 and float64: `load` of a float32 pointer gives `SIMD_WIDTH` lanes, of a float64
pointer half as many. Offsets are counted in elements. Nothing checks bounds here; the public
functions of the kernel modules check all they are given.

Every operation works lane by lane and rounds once, so a result never depends on the width.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, signature
from numba.core.typing.templates import infer_global as infer
from numba.extending import intrinsic, lower_builtin, models, register_model

from fastgru.kernels.jit import inline
from fastgru.kernels.width import HAS_SCALEF, SIMD_WIDTH

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
SCALARS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
SUFFIX = {types.float32: "f32", types.float64: "f64"}


def lanes_of(dtype: types.Float) -> int:
    """Return how many values of a dtype one vector holds."""
    return SIMD_WIDTH * 32 // dtype.bitwidth


class Pointer(types.Type):
    """The address of one element of an array."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"pointer({dtype})")


class Vector(types.Type):
    """As many values as one register holds."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"vector({dtype} x {lanes_of(dtype)})")


class Mask(types.Type):
    """One truth value per lane."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"mask({dtype} x {lanes_of(dtype)})")


def llvm_vector(dtype: types.Float) -> ir.VectorType:
    """Return the LLVM type of a vector."""
    return ir.VectorType(SCALARS[dtype], lanes_of(dtype))


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Pointer) -> None:
        super().__init__(dmm, fe_type, SCALARS[fe_type.dtype].as_pointer())


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, llvm_vector(fe_type.dtype))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Mask) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(I1, lanes_of(fe_type.dtype)))


# ---- building blocks of the code generators


def constant(dtype: types.Float, value: float) -> ir.Constant:
    """Return a vector with the same value in every lane."""
    rounded = float(np.float32(value)) if dtype == types.float32 else float(value)
    return ir.Constant(llvm_vector(dtype), [rounded] * lanes_of(dtype))


def spread(builder: ir.IRBuilder, dtype: types.Float, scalar: ir.Value) -> ir.Value:
    """Copy a scalar into every lane."""
    vector = llvm_vector(dtype)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def call_llvm(builder: ir.IRBuilder, name: str, dtype: types.Float, *args: ir.Value) -> ir.Value:
    """Call a lane-wise LLVM intrinsic such as `llvm.fma` on vectors."""
    vector = llvm_vector(dtype)
    full_name = f"llvm.{name}.v{vector.count}{SUFFIX[dtype]}"
    function = builder.module.globals.get(full_name)
    if function is None:
        kind = ir.FunctionType(vector, [vector] * len(args))
        function = ir.Function(builder.module, kind, full_name)
    return builder.call(function, args)


def load_vector(builder: ir.IRBuilder, dtype: types.Float, address: ir.Value) -> ir.Value:
    """Load a vector from any element's address."""
    value = builder.load(builder.bitcast(address, llvm_vector(dtype).as_pointer()))
    value.align = dtype.bitwidth // 8
    return value


def store_vector(
    builder: ir.IRBuilder, dtype: types.Float, value: ir.Value, address: ir.Value
) -> None:
    """Store a vector to any element's address."""
    done = builder.store(value, builder.bitcast(address, llvm_vector(dtype).as_pointer()))
    done.align = dtype.bitwidth // 8


def prefetch_line(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Ask for the cache line of an address."""
    byte = ir.IntType(8).as_pointer()
    function = builder.module.globals.get("llvm.prefetch.p0")
    if function is None:
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        function = ir.Function(builder.module, kind, "llvm.prefetch.p0")
    # For reading: a prefetch for writing would be dropped where the CPU has no such thing.
    builder.call(function, [builder.bitcast(address, byte), I32(0), I32(3), I32(1)])


def first_lanes(builder: ir.IRBuilder, dtype: types.Float, count: ir.Value) -> ir.Value:
    """Return a mask of the first `count` lanes."""
    n = lanes_of(dtype)
    index = ir.Constant(ir.VectorType(I64, n), list(range(n)))
    undefined = ir.Constant(ir.VectorType(I64, n), ir.Undefined)
    one = builder.insert_element(undefined, count, I32(0))
    counts = builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, n), [0] * n))
    return builder.icmp_signed("<", index, counts)


def _masked(builder: ir.IRBuilder, kind: str, dtype: types.Float) -> ir.Function:
    """Declare LLVM's masked load or store."""
    vector = llvm_vector(dtype)
    name = f"llvm.masked.{kind}.v{vector.count}{SUFFIX[dtype]}.p0"
    function = builder.module.globals.get(name)
    if function is None:
        mask = ir.VectorType(I1, vector.count)
        address = vector.as_pointer()
        if kind == "load":
            signature_ = ir.FunctionType(vector, [address, I32, mask, vector])
        else:
            signature_ = ir.FunctionType(ir.VoidType(), [vector, address, I32, mask])
        function = ir.Function(builder.module, signature_, name)
    return function


def load_lanes(
    builder: ir.IRBuilder, dtype: types.Float, mask: ir.Value, address: ir.Value
) -> ir.Value:
    """Load the lanes of a mask from any element's address, and zeros into the others."""
    address = builder.bitcast(address, llvm_vector(dtype).as_pointer())
    align = I32(dtype.bitwidth // 8)
    arguments = [address, align, mask, constant(dtype, 0.0)]
    return builder.call(_masked(builder, "load", dtype), arguments)


def store_lanes(
    builder: ir.IRBuilder, dtype: types.Float, mask: ir.Value, value: ir.Value, address: ir.Value
) -> None:
    """Store the lanes of a mask to any element's address."""
    address = builder.bitcast(address, llvm_vector(dtype).as_pointer())
    align = I32(dtype.bitwidth // 8)
    builder.call(_masked(builder, "store", dtype), [value, address, align, mask])


# ---- memory


@intrinsic
def pointer(typingctx, array):
    """Return the address of an array's first element."""
    if not isinstance(array, types.Array) or array.dtype not in SCALARS:
        return None

    def codegen(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return Pointer(array.dtype)(array), codegen


# Numba compiles `min` and `max` as functions, once for each mixture of kinds of integers.


@intrinsic
def smaller(typingctx, a, b):
    """Return the smaller of two integers."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.icmp_signed("<", *args), *args)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def larger(typingctx, a, b):
    """Return the larger of two integers."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.icmp_signed(">", *args), *args)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def keep_alive(typingctx, array):
    """Keep an array until here: Numba frees it after its last use, and a pointer is none."""

    def codegen(context, builder, sig, args):
        return context.get_dummy_value()

    return types.void(array), codegen


@intrinsic
def aligned(typingctx, p):
    """Round an address up to the next multiple of 64 bytes, the length of a cache line."""

    def codegen(context, builder, sig, args):
        address = builder.ptrtoint(args[0], I64)
        return builder.inttoptr(builder.and_(builder.add(address, I64(63)), I64(-64)), args[0].type)

    return p(p), codegen


@intrinsic
def lanes(typingctx, p):
    """Return the number of lanes of a pointer's vectors, known when compiling."""

    def codegen(context, builder, sig, args):
        return I64(lanes_of(sig.args[0].dtype))

    return types.intp(p), codegen


@intrinsic
def prefetch(typingctx, p):
    """Ask for the cache line of an address, which will be read and written soon."""

    def codegen(context, builder, sig, args):
        prefetch_line(builder, args[0])
        return context.get_dummy_value()

    return types.void(p), codegen


@intrinsic
def load(typingctx, p):
    """Load one vector."""

    def codegen(context, builder, sig, args):
        return load_vector(builder, sig.args[0].dtype, args[0])

    return Vector(p.dtype)(p), codegen


@intrinsic
def store(typingctx, p, value):
    """Store one vector."""

    def codegen(context, builder, sig, args):
        store_vector(builder, sig.args[0].dtype, args[1], args[0])
        return context.get_dummy_value()

    return types.void(p, Vector(p.dtype)), codegen


@intrinsic
def _load_first(typingctx, p, count):
    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        return load_lanes(builder, dtype, first_lanes(builder, dtype, args[1]), args[0])

    return Vector(p.dtype)(p, types.intp), codegen


@intrinsic
def _store_first(typingctx, p, value, count):
    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        store_lanes(builder, dtype, first_lanes(builder, dtype, args[2]), args[1], args[0])
        return context.get_dummy_value()

    return types.void(p, Vector(p.dtype), types.intp), codegen


@inline
def load_up_to(p, count):
    """Load the first `count` lanes, zeros in the others; memory behind them is not touched."""
    if count >= lanes(p):
        return load(p)
    return _load_first(p, count)


@inline
def store_up_to(p, value, count):
    """Store the first `count` lanes; memory behind them is not touched."""
    if count >= lanes(p):
        store(p, value)
    else:
        _store_first(p, value, count)


@intrinsic
def get(typingctx, p):
    """Return the scalar at an address."""

    def codegen(context, builder, sig, args):
        return builder.load(args[0])

    return p.dtype(p), codegen


@intrinsic
def put(typingctx, p, value):
    """Write a scalar to an address."""

    def codegen(context, builder, sig, args):
        builder.store(args[1], args[0])
        return context.get_dummy_value()

    return types.void(p, p.dtype), codegen


@intrinsic
def splat(typingctx, p, value):
    """Return a vector, of the dtype of a pointer or vector, with a scalar in every lane."""

    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        return spread(builder, dtype, context.cast(builder, args[1], sig.args[1], dtype))

    return Vector(p.dtype)(p, value), codegen


# ---- arithmetic: + - * / with vectors or numbers on either side, comparisons, pointer + offset


def _as_vector(context, builder, kind, dtype, value):
    if isinstance(kind, Vector):
        return value
    return spread(builder, dtype, context.cast(builder, value, kind, dtype))


def _define(symbol: Callable[..., Any], emit: Callable[..., ir.Value], gives: type) -> None:
    """Let Numba type and lower one operator on vectors and numbers."""

    class Template(AbstractTemplate):
        def generic(self, args, kws):
            vectors = [a for a in args if isinstance(a, Vector)]
            if len(args) != 2 or not vectors:
                return None
            if not all(isinstance(a, (Vector, types.Number)) for a in args):
                return None
            return signature(gives(vectors[0].dtype), *args)

    infer(symbol)(Template)

    def lower(context, builder, sig, args):
        dtype = next(a.dtype for a in sig.args if isinstance(a, Vector))
        a, b = (
            _as_vector(context, builder, k, dtype, v) for k, v in zip(sig.args, args, strict=True)
        )
        return emit(builder, a, b)

    for kinds in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(symbol, *kinds)(lower)


_define(operator.add, lambda b, x, y: b.fadd(x, y), Vector)
_define(operator.sub, lambda b, x, y: b.fsub(x, y), Vector)
_define(operator.mul, lambda b, x, y: b.fmul(x, y), Vector)
_define(operator.truediv, lambda b, x, y: b.fdiv(x, y), Vector)
_define(operator.lt, lambda b, x, y: b.fcmp_ordered("<", x, y), Mask)
_define(operator.gt, lambda b, x, y: b.fcmp_ordered(">", x, y), Mask)


@infer(operator.add)
@infer(operator.iadd)
class _Offset(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 2 and isinstance(args[0], Pointer) and isinstance(args[1], types.Integer):
            return signature(args[0], args[0], types.intp)
        return None


@lower_builtin(operator.add, Pointer, types.Integer)
@lower_builtin(operator.iadd, Pointer, types.Integer)
def _lower_offset(context, builder, sig, args):
    return builder.gep(args[0], [args[1]])


@intrinsic
def fma(typingctx, x, y, z):
    """Return x * y + z, rounded once."""

    def codegen(context, builder, sig, args):
        return call_llvm(builder, "fma", sig.args[0].dtype, *args)

    return x(x, x, x), codegen


@intrinsic
def absolute(typingctx, x):
    """Return the value without its sign."""

    def codegen(context, builder, sig, args):
        return call_llvm(builder, "fabs", sig.args[0].dtype, *args)

    return x(x), codegen


@intrinsic
def minus_absolute(typingctx, x):
    """Return the value with its sign set."""

    def codegen(context, builder, sig, args):
        return builder.fneg(call_llvm(builder, "fabs", sig.args[0].dtype, *args))

    return x(x), codegen


@intrinsic
def select(typingctx, mask, x, y):
    """Return x where the mask is true, else y; a NaN in the other one does not matter."""

    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        x, y = (
            _as_vector(context, builder, kind, dtype, value)
            for kind, value in zip(sig.args[1:], args[1:], strict=True)
        )
        return builder.select(args[0], x, y)

    return Vector(mask.dtype)(mask, x, y), codegen


@inline
def clamp(x, low, high):
    """Limit x to [low, high]. NaN stays NaN, unlike with LLVM's minnum and maxnum."""
    x = select(x < low, low, x)
    return select(x > high, high, x)


# ---- elementary functions, at most 4 ulp from the true value over all finite inputs

# For each dtype: bits of the mantissa, bias of the exponent, ln 2 in two parts (the first short
# enough that n * LN2[0] is exact), the limits between which exp is finite and not zero, the
# limit beyond which tanh is 1; P of expm1(r) = r + r^2 P(r) on |r| <= ln(2) / 2 and Q of
# atanh(s) = s (1 + s^2 Q(s^2)) on |s| <= 1/3, fitted by iteratively reweighted least squares
# (relative errors 1.4e-8 and 1.8e-17, 4.6e-9 and 1.4e-18).
_FORMAT = {
    types.float32: dict(
        mantissa=23,
        bias=127,
        ln2=(0.693145751953125, 1.428606820309417232e-6),
        exp_limits=(-104.0, 89.0),
        tanh_limit=9.2,
        expm1=(0.5000000062, 0.1666654294, 0.04166628195, 0.00836659095, 0.001394645593),
        atanh=(0.3333320651, 0.2001085322, 0.1399950475, 0.1401257806),
    ),
    types.float64: dict(
        mantissa=52,
        bias=1023,
        ln2=(0.6931471805582987144589424, 1.646594958289708128098e-12),
        exp_limits=(-746.0, 710.0),
        tanh_limit=19.2,
        expm1=(
            0.50000000000000055934,
            0.16666666666666683689,
            0.041666666666573265363,
            0.0083333333333161054639,
            0.0013888888932473766727,
            0.00019841269899704345083,
            0.000024801504346279963554,
            2.7557230952710510627e-6,
            2.7626362660995838434e-7,
            2.511351820672337336e-8,
        ),
        atanh=(
            0.33333333333333151701,
            0.20000000000078698882,
            0.14285714273916612135,
            0.11111111985538799787,
            0.090908719377245073425,
            0.076932805086537082332,
            0.066504793635986240465,
            0.060531037266663447129,
            0.04169778403569693699,
            0.085098058150847428679,
        ),
    ),
}


LOG2_E = 1.4426950408889634


def _horner(builder: ir.IRBuilder, dtype: types.Float, name: str, x: ir.Value) -> ir.Value:
    """Evaluate a polynomial of `_FORMAT`."""
    *rest, p = (constant(dtype, c) for c in _FORMAT[dtype][name])
    for c in reversed(rest):
        p = call_llvm(builder, "fma", dtype, p, x, c)
    return p


def _nearest_multiple(
    builder: ir.IRBuilder, dtype: types.Float, x: ir.Value, factor: float
) -> ir.Value:
    """Round x * factor to an integer, for results below 2^(mantissa - 2): a vector of floats.

    Adding 1.5 * 2^mantissa leaves no bits for a fraction; every CPU can do that.
    """
    magic = constant(dtype, 1.5 * 2.0 ** _FORMAT[dtype]["mantissa"])
    return builder.fsub(call_llvm(builder, "fma", dtype, x, constant(dtype, factor), magic), magic)


def _power_of_two(builder: ir.IRBuilder, dtype: types.Float, n: ir.Value) -> ir.Value:
    """Return 2^n for integral n of a normal result: n + bias shifted to where exponents are."""
    f = _FORMAT[dtype]
    integers = ir.VectorType(ir.IntType(dtype.bitwidth), lanes_of(dtype))
    magic = constant(dtype, 1.5 * 2.0 ** f["mantissa"] + f["bias"])
    bits = builder.bitcast(builder.fadd(n, magic), integers)
    shift = ir.Constant(integers, [f["mantissa"]] * lanes_of(dtype))
    return builder.bitcast(builder.shl(bits, shift), llvm_vector(dtype))


@intrinsic
def _exponent(typingctx, x):
    """Return the integer nearest to x / ln 2."""

    def codegen(context, builder, sig, args):
        return _nearest_multiple(builder, sig.args[0].dtype, args[0], LOG2_E)

    return x(x), codegen


@intrinsic
def _two_to_the(typingctx, n):
    """Return 2^n for integral n of a normal result."""

    def codegen(context, builder, sig, args):
        return _power_of_two(builder, sig.args[0].dtype, args[0])

    return n(n), codegen


@intrinsic
def _scaled(typingctx, x, n):
    """Return x * 2^n, rounded once, for x near 1 and integral n, also below the normal numbers."""

    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        x, n = args
        if HAS_SCALEF and dtype.bitwidth * lanes_of(dtype) == 512:
            kind, bits = ("ps", 16) if dtype == types.float32 else ("pd", 8)
            name, lanes_mask = f"llvm.x86.avx512.mask.scalef.{kind}.512", ir.IntType(bits)
            function = builder.module.globals.get(name)
            if function is None:
                vector = llvm_vector(dtype)
                signature_ = ir.FunctionType(vector, [vector, vector, vector, lanes_mask, I32])
                function = ir.Function(builder.module, signature_, name)
            nearest = I32(4)  # rounding as everywhere
            return builder.call(function, [x, n, x, lanes_mask(-1), nearest])
        # Half of the way is exact, so that the other half rounds once.
        half = _nearest_multiple(builder, dtype, n, 0.5)
        x = builder.fmul(x, _power_of_two(builder, dtype, half))
        return builder.fmul(x, _power_of_two(builder, dtype, builder.fsub(n, half)))

    return x(x, n), codegen


@intrinsic
def _expm1_reduced(typingctx, x, n):
    """Return exp(x - n ln 2) - 1, for |x - n ln 2| <= ln(2) / 2."""

    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        x, n = args
        high, low = _FORMAT[dtype]["ln2"]
        r = call_llvm(builder, "fma", dtype, n, constant(dtype, -high), x)
        r = call_llvm(builder, "fma", dtype, n, constant(dtype, -low), r)
        p = _horner(builder, dtype, "expm1", r)
        return call_llvm(builder, "fma", dtype, builder.fmul(r, r), p, r)

    return x(x, n), codegen


@intrinsic
def _atanh_reduced(typingctx, s):
    """Return atanh(s), for |s| <= 1/3."""

    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        (s,) = args
        square = builder.fmul(s, s)
        q = _horner(builder, dtype, "atanh", square)
        return call_llvm(builder, "fma", dtype, builder.fmul(square, s), q, s)

    return s(s), codegen


def _limit(name: str, index: int | None = None) -> Any:
    """Make an intrinsic that gives a number of `_FORMAT` as a vector like its argument."""

    @intrinsic
    def limit(typingctx, x):
        def codegen(context, builder, sig, args):
            value = _FORMAT[sig.args[0].dtype][name]
            return constant(sig.args[0].dtype, value if index is None else value[index])

        return x(x), codegen

    return limit


_exp_low, _exp_high = _limit("exp_limits", 0), _limit("exp_limits", 1)
_tanh_limit = _limit("tanh_limit")


@inline
def exp(x):
    """Return e^x; results below the normal numbers are right too."""
    x = clamp(x, _exp_low(x), _exp_high(x))
    n = _exponent(x)
    return _scaled(_expm1_reduced(x, n) + 1.0, n)


@inline
def sigmoid(x):
    """Return 1 / (1 + e^-x), from e^-|x| so that small results keep their relative accuracy."""
    a = minus_absolute(x)
    a = select(a < _exp_low(a), _exp_low(a), a)
    n = _exponent(a)
    e = _scaled(_expm1_reduced(a, n) + 1.0, n)
    return select(x < 0.0, e, 1.0) / (e + 1.0)


@inline
def tanh(x):
    """Return m / (m + 2) with m = e^2x - 1, which is accurate around 0 as well."""
    x = clamp(x, 0.0 - _tanh_limit(x), _tanh_limit(x))
    x = x + x
    n = _exponent(x)
    scale = _two_to_the(n)
    m = fma(scale, _expm1_reduced(x, n), scale - 1.0)
    return m / (m + 2.0)


@inline
def expm1(x):
    """Return e^x - 1 for x <= 0, accurate around 0 as well; for larger x it is not meant."""
    x = clamp(x, -80.0, 0.0)
    n = _exponent(x)
    scale = _two_to_the(n)
    return fma(scale, _expm1_reduced(x, n), scale - 1.0)


@inline
def log1p(x):
    """Return log(1 + x) for 0 <= x <= 1, as 2 atanh(x / (2 + x))."""
    return _atanh_reduced(x / (x + 2.0)) * 2.0
