"""Eight neighbouring float32 at once: the vector operations that the compiler does not find by itself.

Loops of a fixed eight steps are unrolled to scalars before LLVM's loop vectoriser sees them, and numba leaves
its other vectoriser (SLP) switched off; so adding a sample to its eight nodes took five times as long as it
does with these. Arrays are C-contiguous, of any shape: indices count float32 from their start and are not
checked. Where the compiler is switched off, NumPy does the same.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from arcforge.kernels._jit import config

LANES = 8

EIGHT = ir.VectorType(ir.FloatType(), 8)
_FOUR = ir.VectorType(ir.FloatType(), 4)


def pointer_8(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the address of eight float32 from ``index`` on."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), EIGHT.as_pointer())


def load_8(builder: Any, pointer: Any) -> Any:
    """Return the eight float32 at an address, aligned as one of them is."""
    return builder.load(pointer, align=4)


def repeat_8(builder: Any, value: Any) -> Any:
    """Return a float32 in all eight lanes."""
    zero = cgutils.int32_t(0)
    one = builder.insert_element(ir.Constant(EIGHT, ir.Undefined), value, zero)
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(cgutils.int32_t, 8), [0] * 8))


def ahead(builder: Any, index: Any, count: int) -> Any:
    """Return an index that is ``count`` further on."""
    return builder.add(index, ir.Constant(index.type, count))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, fused where the CPU can."""
    kind, name = ir.FunctionType(a.type, [a.type] * 3), f"llvm.fmuladd.v{a.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _weighted(builder: Any, factors: Any, lines: Any) -> Any:
    """Return the sum of lines times their factors."""
    total = builder.fmul(factors[0], lines[0])
    for factor, line in zip(factors[1:], lines[1:], strict=True):
        total = _multiply_add(builder, factor, line, total)
    return total


# Weights of four neighbours in a cubic B-spline, as polynomials of the part of a pixel: lines are powers.
_CUBIC = (
    (1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0, 0.0),
    (-0.5, 0.0, 0.5, 0.0),
    (0.5, -1.0, 0.5, 0.0),
    (-1.0 / 6.0, 0.5, -0.5, 1.0 / 6.0),
)


def _pick(builder: Any, vector: Any, lane: int, lanes: int = 8) -> Any:
    """Return one lane of eight in all of ``lanes``."""
    mask = ir.Constant(ir.VectorType(cgutils.int32_t, lanes), [lane] * lanes)
    return builder.shuffle_vector(vector, vector, mask)


@intrinsic
def _cubic(typingctx, x, first, stride, a, b):
    signature = types.float32(x, types.intp, types.intp, types.float32, types.float32)

    def generate(context, builder, signature, args):
        x, first, stride, a, b = args
        lines = [ir.Constant(EIGHT, [*line, *line]) for line in _CUBIC]
        part = builder.insert_element(ir.Constant(EIGHT, ir.Undefined), a, cgutils.int32_t(0))
        part = builder.insert_element(part, b, cgutils.int32_t(4))
        mask = ir.Constant(ir.VectorType(cgutils.int32_t, 8), [0] * 4 + [4] * 4)
        part = builder.shuffle_vector(part, part, mask)
        weights = lines[3]
        for line in lines[2::-1]:
            weights = _multiply_add(builder, weights, part, line)
        data = context.make_array(signature.args[0])(context, builder, x).data
        total, index = None, first
        for line in range(4):
            row = builder.load(builder.bitcast(builder.gep(data, [index]), _FOUR.as_pointer()), align=4)
            factor = _pick(builder, weights, 4 + line, 4)
            total = builder.fmul(factor, row) if total is None else _multiply_add(builder, factor, row, total)
            index = builder.add(index, stride)
        lowest = ir.Constant(ir.VectorType(cgutils.int32_t, 4), [0, 1, 2, 3])
        total = builder.fmul(total, builder.shuffle_vector(weights, weights, lowest))
        parts = [builder.extract_element(total, cgutils.int32_t(lane)) for lane in range(4)]
        return builder.fadd(builder.fadd(parts[0], parts[1]), builder.fadd(parts[2], parts[3]))

    return signature, generate


@intrinsic
def _spread(typingctx, out, at, stride, table, first_x, part_x, first_y, part_y, value):
    kinds = (types.intp, types.float32, types.intp, types.float32, types.float32)
    signature = types.void(out, types.intp, types.intp, table, *kinds)

    def generate(context, builder, signature, args):
        out, at, stride, table, first_x, part_x, first_y, part_y, value = args

        def weights(first, part):
            low = load_8(builder, pointer_8(context, builder, signature.args[3], table, first))
            index = builder.add(first, ir.Constant(first.type, 8))
            high = load_8(builder, pointer_8(context, builder, signature.args[3], table, index))
            return _multiply_add(builder, repeat_8(builder, part), builder.fsub(high, low), low)

        across = weights(first_x, part_x)
        up = builder.fmul(repeat_8(builder, value), weights(first_y, part_y))
        for line in range(1, 7):
            target = pointer_8(context, builder, signature.args[0], out, at)
            total = _multiply_add(builder, _pick(builder, up, line), across, load_8(builder, target))
            builder.store(total, target, align=4)
            at = builder.add(at, stride)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _lerp(typingctx, out, at, table, first, part):
    signature = types.void(out, types.intp, table, types.intp, types.float32)

    def generate(context, builder, signature, args):
        out, at, table, first, part = args
        kind = signature.args[2]
        low = load_8(builder, pointer_8(context, builder, kind, table, first))
        index = builder.add(first, ir.Constant(first.type, 8))
        high = load_8(builder, pointer_8(context, builder, kind, table, index))
        value = _multiply_add(builder, repeat_8(builder, part), builder.fsub(high, low), low)
        builder.store(value, pointer_8(context, builder, signature.args[0], out, at), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _add_outer(typingctx, out, at, stride, values, first, step, across, in_x, up, in_y):
    kinds = (types.intp, types.intp, values, types.intp, types.intp, across, types.intp, up, types.intp)
    signature = types.void(out, *kinds)

    def generate(context, builder, signature, args):
        out, at, stride, values, first, step, across, in_x, up, in_y = args
        kinds = signature.args
        scalars = context.make_array(kinds[3])(context, builder, values).data
        weights = context.make_array(kinds[8])(context, builder, up).data
        lines = [
            load_8(builder, pointer_8(context, builder, kinds[6], across, ahead(builder, in_x, 8 * b)))
            for b in range(4)
        ]
        rows = []
        for _ in range(4):
            factors = []
            for _ in range(4):
                factors.append(repeat_8(builder, builder.load(builder.gep(scalars, [first]))))
                first = builder.add(first, step)
            rows.append(_weighted(builder, factors, lines))
        for line in range(8):
            places = [ahead(builder, in_y, 8 * a + line) for a in range(4)]
            factors = [repeat_8(builder, builder.load(builder.gep(weights, [place]))) for place in places]
            target = pointer_8(context, builder, kinds[0], out, at)
            total = builder.fadd(load_8(builder, target), _weighted(builder, factors, rows))
            builder.store(total, target, align=4)
            at = builder.add(at, stride)
        return context.get_dummy_value()

    return signature, generate


def _weigh(vectors):
    """Make the intrinsic that weighs lines of ``vectors`` times eight float32."""

    @intrinsic
    def weigh(typingctx, out, at, x, first, step, weights, place, count):
        signature = types.void(out, types.intp, x, types.intp, types.intp, weights, types.intp, types.intp)

        def generate(context, builder, signature, args):
            out, at, x, first, step, weights, place, count = args
            kinds = signature.args
            data = context.make_array(kinds[5])(context, builder, weights).data
            sums = [cgutils.alloca_once(builder, EIGHT) for _ in range(vectors)]
            for total in sums:
                builder.store(ir.Constant(EIGHT, None), total)
            with cgutils.for_range(builder, count) as loop:
                weight = repeat_8(builder, builder.load(builder.gep(data, [builder.add(place, loop.index)])))
                line = builder.add(first, builder.mul(loop.index, step))
                for k, total in enumerate(sums):
                    index = builder.add(line, ir.Constant(line.type, 8 * k))
                    values = load_8(builder, pointer_8(context, builder, kinds[2], x, index))
                    builder.store(_multiply_add(builder, weight, values, builder.load(total)), total)
            for k, total in enumerate(sums):
                index = builder.add(at, ir.Constant(at.type, 8 * k))
                target = pointer_8(context, builder, kinds[0], out, index)
                builder.store(builder.load(total), target, align=4)
            return context.get_dummy_value()

        return signature, generate

    return weigh


def _lerp_plain(out, at, table, first, part):
    out = out.reshape(-1)
    low, high = table[first : first + 8], table[first + 8 : first + 16]
    out[at : at + 8] = low + part * (high - low)


def _add_outer_plain(out, at, stride, values, first, step, across, in_x, up, in_y):
    lines, weights = (x[i : i + 32].reshape(4, 8) for x, i in ((across, in_x), (up, in_y)))
    patch = at + stride * np.arange(8)[:, None] + np.arange(8)
    out.reshape(-1)[patch] += weights.T @ (values[first + step * np.arange(16)].reshape(4, 4) @ lines)


def _weigh_plain(vectors):
    def weigh(out, at, x, first, step, weights, place, count):
        out, x = out.reshape(-1), x.reshape(-1)
        total = np.zeros(8 * vectors, dtype=np.float32)
        for k in range(count):
            begin = first + k * step
            total += weights[place + k] * x[begin : begin + 8 * vectors]
        out[at : at + 8 * vectors] = total

    return weigh


def _cubic_plain(x, first, stride, a, b):
    across, up = (np.array([1.0, t, t * t, t * t * t]) @ np.array(_CUBIC) for t in (a, b))
    window = x.reshape(-1)[first + stride * np.arange(4)[:, None] + np.arange(4)]
    return np.float32(up @ window @ across)


def _spread_plain(out, at, stride, table, first_x, part_x, first_y, part_y, value):
    def weights(first, part):
        low, high = table[first : first + 8], table[first + 8 : first + 16]
        return low + part * (high - low)

    patch = at + stride * np.arange(6)[:, None] + np.arange(8)
    out.reshape(-1)[patch] += value * np.outer(weights(first_y, part_y)[1:7], weights(first_x, part_x))


# cubic_at(x, first, stride, a, b): the cubic B-spline of 4 x 4 coefficients from ``first`` on, lines
# ``stride`` apart, at parts a and b of a pixel beyond the second of them, along a line and across lines
cubic_at: Any = _cubic_plain if config.DISABLE_JIT else _cubic
# spread_6(out, at, stride, table, first_x, part_x, first_y, part_y, value): value times the outer product of
# two lines, each between two of a table's, of that in y without its ends, added to 6 x 8 of out from ``at``
# on, lines ``stride`` apart
spread_6: Any = _spread_plain if config.DISABLE_JIT else _spread
# lerp_8(out, at, table, first, part): between two lines of a table, eight a line
lerp_8: Any = _lerp_plain if config.DISABLE_JIT else _lerp
# add_outer_8(out, at, stride, values, first, step, across, in_x, up, in_y): 4 x 4 values, ``step`` apart
# from ``first`` on, each times the outer product of a line of ``up`` (four from ``in_y`` on, one for each
# four values) and one of ``across`` (four from ``in_x`` on), added to 8 x 8 of out from ``at`` on, lines
# ``stride`` apart
add_outer_8: Any = _add_outer_plain if config.DISABLE_JIT else _add_outer
# weigh_8(out, at, x, first, step, weights, place, count): the sum of ``count`` lines of x, ``step`` apart,
# times the weights from ``place`` on; weigh_32 the same for lines of 32
weigh_8: Any = _weigh_plain(1) if config.DISABLE_JIT else _weigh(1)
weigh_32: Any = _weigh_plain(4) if config.DISABLE_JIT else _weigh(4)
