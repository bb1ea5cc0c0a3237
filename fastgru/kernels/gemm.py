"""Matrix products on packed weights: panels of two vectors, and one register tile.

The right-hand matrix B (K, N) is packed in panels of two vectors' width, `[panel][K][2 W]`, the
last panel padded with zeros, so that the inner loop reads it in one stream, and a panel stays in
the first-level cache while every row of A passes. Six rows by two vectors keep twelve sums in
registers, enough to hide the latency of the FMA on every x86 since 2013.

The rule that all bits follow from: an element of C is one chain of FMAs over K in ascending order,
begun with `start` (a bias, or what C holds already). Tile, batch, thread and step do not matter.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from fastgru.kernels.jit import inline, part
from fastgru.kernels.simd import (
    I32,
    I64,
    call_llvm,
    first_lanes,
    get,
    lanes,
    lanes_of,
    larger,
    llvm_vector,
    load,
    load_lanes,
    load_up_to,
    load_vector,
    prefetch,
    prefetch_line,
    put,
    smaller,
    splat,
    spread,
    store,
    store_lanes,
    store_up_to,
    store_vector,
)
from fastgru.kernels.width import SIMD_WIDTH

# How many rows of A and B one block of a weight gradient covers: its panel of B stays in L1 or is
# read from L2 in one stream, and the gradient itself is read and written once for each block.
BLOCK = 384

# How many rows of B to ask for ahead: a panel comes from L2, where at every page's end the hardware
# stops looking ahead. It gives products of a few MB 2 to 5 %.
ROWS_AHEAD = 4

# From so many columns on the rows of a product are asked for before they are written.
FAR = 4096

# What packing one number costs, as operations of a product.
PACK_FLOPS = 16


def panel_width(dtype: np.dtype) -> int:
    """Return the number of columns of a panel: two vectors."""
    return 2 * SIMD_WIDTH * 4 // dtype.itemsize


def padded(n: int, dtype: np.dtype) -> int:
    """Round a number of columns up to whole panels."""
    width = panel_width(dtype)
    return -(-n // width) * width


@inline
def whole_panels(n, p):
    """Round a number of columns up to whole panels, in a kernel."""
    width = 2 * lanes(p)
    return (n + width - 1) // width * width


@intrinsic
def scratch_tile(typingctx, p):
    """Return the address of six rows of one panel on the stack."""

    def codegen(context, builder, sig, args):
        vector = llvm_vector(sig.args[0].dtype)
        slot = cgutils.alloca_once(builder, ir.ArrayType(vector, 12))
        slot.align = 64
        return builder.bitcast(slot, args[0].type)

    return p(p), codegen


@intrinsic(prefer_literal=True)
def tile(typingctx, M, V, a, a_row, a_k, b, b_panel, K, start, start_row, c, c_row, few):
    """C[M, V vectors] = start + A[M, K] @ B[K, V vectors], all sums in registers.

    M and V are literals; two vectors are a panel. Strides are counted in elements: `a_row` and
    `a_k` between rows and columns of A, `b_panel` between panels of B, `start_row` (0 repeats one
    row of biases) and `c_row` between rows of C. A row of C holds its panels one after another.
    With one vector, only its first `few` columns of C and `start` are touched.
    """
    if not all(isinstance(n, types.IntegerLiteral) for n in (M, V)):
        raise RequireLiteralValue("M and V of a tile")
    rows, vectors = M.literal_value, V.literal_value
    size = types.intp
    sig = types.void(M, V, a, size, size, a, size, size, a, size, a, size, size)

    def codegen(context, builder, sig, args):
        _, _, a, a_row, a_k, b, b_panel, K, start, start_row, c, c_row, few = args
        dtype = sig.args[2].dtype
        width = lanes_of(dtype)
        columns = range(vectors)

        def at(base, stride, m, offset=0):
            address = builder.gep(base, [builder.mul(stride, I64(m))]) if m else base
            return builder.gep(address, [I64(offset)]) if offset else address

        if vectors == 1:
            mask = first_lanes(builder, dtype, few)
            load_some = functools.partial(load_lanes, builder, dtype, mask)
            store_some = functools.partial(store_lanes, builder, dtype, mask)
        else:
            load_some = functools.partial(load_vector, builder, dtype)
            store_some = functools.partial(store_vector, builder, dtype)
        sums = {}
        for m in range(rows):
            for n in columns:
                first = load_some(at(start, start_row, m, width * n))
                sums[m, n] = cgutils.alloca_once_value(builder, first)
        a_at = cgutils.alloca_once_value(builder, a)
        b_at = cgutils.alloca_once_value(builder, b)
        with cgutils.for_range(builder, K):
            a_now, b_now = builder.load(a_at), builder.load(b_at)
            b_row = [
                load_vector(builder, dtype, at(b_now, b_panel, n // 2, n % 2 * width))
                for n in columns
            ]
            if vectors > 1:
                for n in columns:
                    later = 2 * width * ROWS_AHEAD + n % 2 * width
                    prefetch_line(builder, at(b_now, b_panel, n // 2, later))
            for m in range(rows):
                value = spread(builder, dtype, builder.load(at(a_now, a_row, m)))
                for n in columns:
                    new = call_llvm(
                        builder, "fma", dtype, value, b_row[n], builder.load(sums[m, n])
                    )
                    builder.store(new, sums[m, n])
            builder.store(builder.gep(a_now, [a_k]), a_at)
            builder.store(builder.gep(b_now, [I64(2 * width)]), b_at)
        for m in range(rows):
            for n in columns:
                store_some(builder.load(sums[m, n]), at(c, c_row, m, width * n))
        return context.get_dummy_value()

    return sig, codegen


@part
def few_rows(rows, a, a_row, a_k, b, K, start, start_row, c, c_row):
    """Multiply one to six rows with one panel."""
    if rows == 6:
        tile(6, 2, a, a_row, a_k, b, 0, K, start, start_row, c, c_row, 0)
    elif rows == 5:
        tile(5, 2, a, a_row, a_k, b, 0, K, start, start_row, c, c_row, 0)
    elif rows == 4:
        tile(4, 2, a, a_row, a_k, b, 0, K, start, start_row, c, c_row, 0)
    elif rows == 3:
        tile(3, 2, a, a_row, a_k, b, 0, K, start, start_row, c, c_row, 0)
    elif rows == 2:
        tile(2, 2, a, a_row, a_k, b, 0, K, start, start_row, c, c_row, 0)
    else:
        tile(1, 2, a, a_row, a_k, b, 0, K, start, start_row, c, c_row, 0)


@part
def few_rows_of_half(columns, rows, a, a_row, a_k, b, K, start, start_row, c, c_row):
    """Multiply one to six rows with the first columns, at most one vector, of one panel.

    A tile for each number of rows would gain less than it takes to compile.
    """
    row = 0
    while row < rows:
        a_m, s, c_m = a + row * a_row, start + row * start_row, c + row * c_row
        if rows - row == 6:
            tile(6, 1, a_m, a_row, a_k, b, 0, K, s, start_row, c_m, c_row, columns)
            row += 6
        elif rows - row == 5:
            tile(5, 1, a_m, a_row, a_k, b, 0, K, s, start_row, c_m, c_row, columns)
            row += 5
        elif rows - row == 4:
            tile(4, 1, a_m, a_row, a_k, b, 0, K, s, start_row, c_m, c_row, columns)
            row += 4
        else:
            tile(1, 1, a_m, a_row, a_k, b, 0, K, s, start_row, c_m, c_row, columns)
            row += 1


@part
def partial_panel(columns, rows, a, a_row, a_k, b, K, start, start_row, c, c_row):
    """Multiply one to six rows with the first columns of one panel; C is not touched beyond."""
    width = lanes(c)
    if columns <= width:
        few_rows_of_half(columns, rows, a, a_row, a_k, b, K, start, start_row, c, c_row)
        return
    work = scratch_tile(c)
    for m in range(rows):
        for j in range(0, columns, width):
            first = load_up_to(start + (m * start_row + j), columns - j)
            store(work + (m * 2 * width + j), first)
    few_rows(rows, a, a_row, a_k, b, K, work, 2 * width, work, 2 * width)
    for m in range(rows):
        for j in range(0, columns, width):
            store_up_to(c + (m * c_row + j), load(work + (m * 2 * width + j)), columns - j)


@part
def product(rows, columns, K, a, a_row, a_k, b, start, start_row, c, c_row, backwards):
    """C[rows, columns] = start + A[rows, K] @ B[K, columns], B packed.

    With `backwards`, one row goes through the panels from the last to the first. Where every other
    product with the same weights does so, it finds in the cache what the one before has used last.
    """
    width = 2 * lanes(c)
    panel = K * width
    column = 0
    # One or two rows: more panels at once, for enough independent sums to hide the latency.
    if rows == 1:
        whole = columns // width
        done = 0
        while done < whole:
            # 6 panels = 3 + 3, since a tile of 1 panel wastes the machine.
            left = whole - done
            some = (left + (left + 3) // 4 - 1) // ((left + 3) // 4)
            at = left - some if backwards else done
            b_i, s, c_i = b + at * panel, start + at * width, c + at * width
            if some == 4:
                tile(1, 8, a, 0, a_k, b_i, panel, K, s, 0, c_i, 0, 0)
            elif some == 3:
                tile(1, 6, a, 0, a_k, b_i, panel, K, s, 0, c_i, 0, 0)
            elif some == 2:
                tile(1, 4, a, 0, a_k, b_i, panel, K, s, 0, c_i, 0, 0)
            else:
                tile(1, 2, a, 0, a_k, b_i, panel, K, s, 0, c_i, 0, 0)
            done += some
        column = whole * width
        b += whole * panel
    elif rows == 2:
        while columns - column >= 2 * width:
            s = start + column
            tile(2, 4, a, a_row, a_k, b, panel, K, s, start_row, c + column, c_row, 0)
            column += 2 * width
            b += 2 * panel
    tiles = (rows + 5) // 6
    least = rows // larger(tiles, 1)
    longer = rows - least * tiles
    while column < columns:
        row = 0
        for i in range(tiles):
            # Rows are shared out evenly: 7 = 4 + 3, since a tile of 1 row wastes the machine.
            few = least + 1 if i < longer else least
            a_i = a + row * a_row
            s = start + (row * start_row + column)
            c_i = c + (row * c_row + column)
            if c_row >= FAR:
                # The next rows of C are pages apart, where no hardware would look for them.
                for ahead in range(few, smaller(2 * few, rows - row)):
                    prefetch(c_i + ahead * c_row)
                    prefetch(c_i + (ahead * c_row + width - 1))
            if columns - column >= width:
                few_rows(few, a_i, a_row, a_k, b, K, s, start_row, c_i, c_row)
            else:
                partial_panel(
                    columns - column, few, a_i, a_row, a_k, b, K, s, start_row, c_i, c_row
                )
            row += few
        column += width
        b += panel


@part
def pack_columns(source, source_row, begin, end, K, N, packed, first):
    """Copy rows begin ... end of a matrix (K, N) into columns first ... of a packed matrix.

    The packed matrix has K rows; what is behind the last column in its panel is set to zero.
    """
    vector = lanes(source)
    width = 2 * vector
    j = 0
    while j < N:
        column = first + j
        lane = column % width
        target = packed + ((column - lane) * K + lane)
        count = smaller(vector, smaller(N - j, width - lane))
        if count == vector:
            for k in range(begin, end):
                store(target + k * width, load(source + (k * source_row + j)))
        else:
            for k in range(begin, end):
                value = load_up_to(source + (k * source_row + j), count)
                store_up_to(target + k * width, value, count)
        j += count
    _clear_behind(packed, first + N, K, begin, end)


@part
def _clear_behind(packed, columns, K, begin, end):
    """Set to zero what is behind the last column in its panel, in some rows."""
    width = 2 * lanes(packed)
    lane = columns % width
    if lane > 0:
        target = packed + ((columns - lane) * K + lane)
        for k in range(begin, end):
            fill(target + k * width, width - lane, 0.0)


@intrinsic
def _transpose_block(typingctx, source, source_row, target, target_row):
    """Copy the transpose of a block of as many rows as a vector has lanes, and columns."""
    size = types.intp

    def codegen(context, builder, sig, args):
        source, source_row, target, target_row = args
        dtype = sig.args[0].dtype
        n = lanes_of(dtype)

        def at(base, row, i):
            return builder.gep(base, [builder.mul(row, I64(i))]) if i else base

        rows = [load_vector(builder, dtype, at(source, source_row, i)) for i in range(n)]
        # Each round exchanges one bit of a row's number with that of a column's.
        bit = 1
        while bit < n:
            low = [j if not j & bit else j - bit + n for j in range(n)]
            high = [j + bit if not j & bit else j + n for j in range(n)]
            for i in range(n):
                if not i & bit:
                    pair = rows[i], rows[i | bit]
                    rows[i], rows[i | bit] = (
                        builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, n), lanes))
                        for lanes in (low, high)
                    )
            bit *= 2
        for i, row in enumerate(rows):
            store_vector(builder, dtype, row, at(target, target_row, i))
        return context.get_dummy_value()

    return types.void(source, size, target, size), codegen


@part
def pack_transposed(source, source_row, begin, end, K, N, packed, packed_rows, first):
    """Copy rows begin ... end of a matrix (N, K) into columns of a packed matrix.

    The packed matrix has `packed_rows` rows, of which these are first ... first + K, and N columns;
    what is behind the last column in its panel is set to zero. `begin` is a multiple of a panel.
    """
    vector = lanes(source)
    width = 2 * vector
    for n in range(begin, end, vector):
        lane = n % width
        target = packed + ((n - lane) * packed_rows + lane + first * width)
        row = source + n * source_row
        few = smaller(vector, end - n)
        k = 0
        if few == vector:
            while k + vector <= K:
                _transpose_block(row + k, source_row, target + k * width, width)
                k += vector
        for i in range(few):
            for j in range(k, K):
                put(target + (j * width + i), get(row + (i * source_row + j)))
    if begin < end == N:
        _clear_behind(packed, N, packed_rows, first, first + K)


@part
def share_of_panels(columns, p, worker, workers):
    """Return where a worker's share of some columns begins and ends: with whole panels."""
    width = 2 * lanes(p)
    panels = (columns + width - 1) // width
    end = smaller(panels * (worker + 1) // workers * width, columns)
    return panels * worker // workers * width, end


@part
def fill(p, n, value):
    """Set n elements to one value."""
    for j in range(0, n, lanes(p)):
        store_up_to(p + j, splat(p, value), n - j)


@part
def copy(source, n, target):
    """Copy n elements."""
    for j in range(0, n, lanes(target)):
        store_up_to(target + j, load_up_to(source + j, n - j), n - j)


@part
def pack_block(source, source_row, K, columns, packed, sums):
    """Pack up to one panel's columns of K rows, and add each column's rows to `sums`, in order."""
    vector = lanes(source)
    if columns == 2 * vector:
        low, high = load(sums), load(sums + vector)
        for k in range(K):
            row = source + k * source_row
            # The panel beside this one comes next, and its rows are a page apart.
            prefetch(row + 2 * vector)
            prefetch(row + 3 * vector)
            left, right = load(row), load(row + vector)
            store(packed + k * 2 * vector, left)
            store(packed + (k * 2 * vector + vector), right)
            low, high = low + left, high + right
        store(sums, low)
        store(sums + vector, high)
        return
    for j in range(0, 2 * vector, vector):
        count = larger(columns - j, 0)
        total = load_up_to(sums + j, count)
        for k in range(K):
            value = load_up_to(source + (k * source_row + j), count)
            store(packed + (k * 2 * vector + j), value)
            total = total + value
        if count > 0:
            store_up_to(sums + j, total, count)


@inline
def group_size():
    """Return how far groups of six columns lie apart: a row's last store reaches into the next."""
    return 6 * (BLOCK + 3)


@inline
def grouped_size(n):
    """Return the number of elements of a block of n columns that `group_columns` fills."""
    return (n + 5) // 6 * group_size()


@part
def group_columns(source, n, block, k):
    """Copy n values to row k of a block laid out in groups of six columns, `[group][BLOCK + 3][6]`.

    `add_product` walks down six columns at a time. In a plain block that would touch one cache
    line, and for long rows one page, for every six values. Rows come in ascending order, so that
    whole vectors can be stored: what reaches beyond six columns, the next rows replace.
    """
    vector = lanes(block)
    target = block + k * 6
    j = 0
    while j + larger(vector, 8) <= n:
        for i in range(0, 6, vector):
            store(target + i, load(source + (j + i)))
        target = target + group_size()
        j += 6
    while j < n:
        few = smaller(6, n - j)
        # Not `copy`: calls of it took longer than all else that is done for a short row.
        for i in range(0, few, vector):
            store_up_to(target + i, load_up_to(source + (j + i), few - i), few - i)
        target = target + group_size()
        j += 6


@part
def add_product(columns, M, K, block, b, start, start_row, c, c_row):
    """C[M, columns <= one panel] = start + A[K, M]^T @ B[K, columns].

    A is a block filled by `group_columns`, B is packed by `pack_block`. With a `start_row` of 0
    each row begins with the same numbers.
    """
    width = 2 * lanes(c)
    for m in range(0, M, 6):
        few = smaller(6, M - m)
        a = block + m // 6 * group_size()
        c_m = c + m * c_row
        start_m = start + m * start_row
        # The next rows of C are far apart, where no hardware would look for them.
        for i in range(6, smaller(12, M - m)):
            prefetch(c_m + i * c_row)
            prefetch(c_m + (i * c_row + columns - 1))
        if columns == width:
            few_rows(few, a, 1, 6, b, K, start_m, start_row, c_m, c_row)
        else:
            partial_panel(columns, few, a, 1, 6, b, K, start_m, start_row, c_m, c_row)
