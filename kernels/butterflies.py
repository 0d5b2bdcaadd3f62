"""Steps of Fourier transforms on eight neighbouring signals at once, one a lane.

Everything here works on elements: sixteen float32, the real parts of eight numbers and then their imaginary
parts. An element is a cache line, and all its numbers are treated alike: no operation crosses lanes but
``transpose_8``. Arrays are flat and C-contiguous; places count float32 from their start and are not checked.
Written as LLVM's own code for the reason that ``lanes.py`` gives. Where the compiler is switched off, NumPy
does the same.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from arcforge.kernels._jit import FASTMATH, config
from arcforge.kernels.lanes import EIGHT, LANES, ahead, load_8, pointer_8, repeat_8

ELEMENT = 2 * LANES
RADICES = (2, 3, 4, 5)

_INDEX = ir.VectorType(cgutils.int32_t, LANES)
_FLAGS = tuple(sorted(FASTMATH))


class _Lanes:
    """Arithmetic on vectors, and on complex numbers as pairs of them."""

    def __init__(self, context: Any, builder: Any) -> None:
        self._context, self._builder = context, builder

    def add(self, a: Any, b: Any) -> Any:
        return self._builder.fadd(a, b, flags=_FLAGS)

    def subtract(self, a: Any, b: Any) -> Any:
        return self._builder.fsub(a, b, flags=_FLAGS)

    def multiply(self, a: Any, b: Any) -> Any:
        return self._builder.fmul(a, b, flags=_FLAGS)

    def constant(self, value: float) -> Any:
        return ir.Constant(EIGHT, [float(np.float32(value))] * LANES)

    def shuffle(self, a: Any, b: Any, lanes: list[int]) -> Any:
        """Return lanes of two vectors; those of the second count from LANES on."""
        return self._builder.shuffle_vector(a, b, ir.Constant(_INDEX, lanes))

    def product(self, a: Any, b: Any) -> Any:
        real = self.subtract(self.multiply(a[0], b[0]), self.multiply(a[1], b[1]))
        return real, self.add(self.multiply(a[0], b[1]), self.multiply(a[1], b[0]))

    def sum(self, a: Any, b: Any) -> Any:
        return self.add(a[0], b[0]), self.add(a[1], b[1])

    def difference(self, a: Any, b: Any) -> Any:
        return self.subtract(a[0], b[0]), self.subtract(a[1], b[1])

    def load(self, kind: Any, array: Any, index: Any) -> Any:
        return load_8(self._builder, pointer_8(self._context, self._builder, kind, array, index))

    def load_element(self, kind: Any, array: Any, index: Any) -> Any:
        return self.load(kind, array, index), self.load(kind, array, ahead(self._builder, index, LANES))

    def store_element(self, kind: Any, array: Any, index: Any, value: Any) -> None:
        for k, part in enumerate(value):
            place = ahead(self._builder, index, LANES * k)
            self._builder.store(part, pointer_8(self._context, self._builder, kind, array, place), align=4)

    def load_repeated(self, kind: Any, array: Any, index: Any) -> Any:
        """Return the complex number at ``index``, real and imaginary part in turn, in all lanes."""
        data = self._context.make_array(kind)(self._context, self._builder, array).data
        places = (self._builder.gep(data, [ahead(self._builder, index, k)]) for k in range(2))
        return tuple(repeat_8(self._builder, self._builder.load(place)) for place in places)

    def dft(self, x: list[Any]) -> list[Any]:
        """Return the discrete Fourier transform of a few numbers, sum_j x_j exp(-2 pi i j k / r)."""
        if len(x) == 2:
            return [self.sum(*x), self.difference(*x)]
        if len(x) == 4:
            (a, b), (c, d) = self.dft([x[0], x[2]]), self.dft([x[1], x[3]])
            right = self.add(b[0], d[1]), self.subtract(b[1], d[0])
            left = self.subtract(b[0], d[1]), self.add(b[1], d[0])
            return [self.sum(a, c), right, self.difference(a, c), left]
        return self._odd_dft(x)

    def _odd_dft(self, x: list[Any]) -> list[Any]:
        # of x_j + x_(r-j) and x_j - x_(r-j): cosines meet the first, sines the second
        r = len(x)
        places = range(1, r // 2 + 1)
        sums = [self.sum(x[j], x[r - j]) for j in places]
        differences = [self.difference(x[j], x[r - j]) for j in places]
        out = [x[0]] * r
        for each in sums:
            out[0] = self.sum(out[0], each)
        for k in places:
            even, odd = x[0], None
            for j, plus, minus in zip(places, sums, differences, strict=True):
                cos = self.constant(math.cos(2.0 * math.pi * j * k / r))
                sin = self.constant(math.sin(2.0 * math.pi * j * k / r))
                even = self.sum(even, tuple(self.multiply(cos, part) for part in plus))
                turned = tuple(self.multiply(sin, part) for part in minus)
                odd = turned if odd is None else self.sum(odd, turned)
            assert odd is not None
            out[k] = self.add(even[0], odd[1]), self.subtract(even[1], odd[0])
            out[r - k] = self.subtract(even[0], odd[1]), self.add(even[1], odd[0])
        return out


def _butterfly(radix: int, turned: bool) -> Any:
    """Make the intrinsic that transforms ``radix`` elements, and turns them by factors from ``place`` on."""

    @intrinsic
    def butterfly(typingctx, x, at, step, out, to, to_step, factors, place):
        kinds = (types.intp, types.intp, out, types.intp, types.intp, factors, types.intp)
        signature = types.void(x, *kinds)

        def generate(context, builder, signature, args):
            x, at, step, out, to, to_step, factors, place = args
            lanes, values = _Lanes(context, builder), []
            for _ in range(radix):
                values.append(lanes.load_element(signature.args[0], x, at))
                at = builder.add(at, step)
            for k, value in enumerate(lanes.dft(values)):
                if turned and k:
                    index = ahead(builder, place, 2 * (k - 1))
                    value = lanes.product(value, lanes.load_repeated(signature.args[6], factors, index))
                lanes.store_element(signature.args[3], out, to, value)
                to = builder.add(to, to_step)
            return context.get_dummy_value()

        return signature, generate

    return butterfly


@intrinsic
def _transpose(typingctx, x, at, step, out, to):
    signature = types.void(x, types.intp, types.intp, out, types.intp)

    def generate(context, builder, signature, args):
        x, at, step, out, to = args
        lanes, lines = _Lanes(context, builder), []
        for _ in range(LANES):
            lines.append(lanes.load_element(signature.args[0], x, at))
            at = builder.add(at, step)
        halves = [_transposed(lanes, [line[k] for line in lines]) for k in range(2)]
        for k, value in enumerate(zip(*halves, strict=True)):
            lanes.store_element(signature.args[3], out, ahead(builder, to, ELEMENT * k), value)
        return context.get_dummy_value()

    return signature, generate


def _transposed(lanes: _Lanes, lines: list[Any]) -> list[Any]:
    """Exchange blocks of 4, 2 and 1 lanes beside the diagonal."""
    distance = LANES // 2
    while distance:
        low = [i if not i & distance else LANES + i - distance for i in range(LANES)]
        high = [i + distance if not i & distance else LANES + i for i in range(LANES)]
        for i in range(LANES):
            if not i & distance:
                a, b = lines[i], lines[i + distance]
                lines[i], lines[i + distance] = lanes.shuffle(a, b, low), lanes.shuffle(a, b, high)
        distance //= 2
    return lines


@intrinsic
def _part_pair(typingctx, x, at, mirror, a, b, to):
    signature = types.void(x, types.intp, types.intp, a, b, types.intp)

    def generate(context, builder, signature, args):
        x, at, mirror, a, b, to = args
        lanes = _Lanes(context, builder)
        (z_re, z_im), (y_re, y_im) = (lanes.load_element(signature.args[0], x, i) for i in (at, mirror))
        first = lanes.add(z_re, y_re), lanes.subtract(z_im, y_im)
        second = lanes.add(z_im, y_im), lanes.subtract(y_re, z_re)
        lanes.store_element(signature.args[3], a, to, first)
        lanes.store_element(signature.args[4], b, to, second)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _join_pair(typingctx, a, b, at, out, to, mirror):
    signature = types.void(a, b, types.intp, out, types.intp, types.intp)

    def generate(context, builder, signature, args):
        a, b, at, out, to, mirror = args
        lanes = _Lanes(context, builder)
        a_im, a_re = lanes.load_element(signature.args[0], a, at)
        b_im, b_re = lanes.load_element(signature.args[1], b, at)
        there = lanes.add(a_im, b_re), lanes.subtract(a_re, b_im)
        back = lanes.subtract(b_re, a_im), lanes.add(a_re, b_im)
        lanes.store_element(signature.args[3], out, to, there)
        lanes.store_element(signature.args[3], out, mirror, back)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _scale(typingctx, x, at, factors, place, out, to):
    signature = types.void(x, types.intp, factors, types.intp, out, types.intp)

    def generate(context, builder, signature, args):
        x, at, factors, place, out, to = args
        lanes = _Lanes(context, builder)
        re, im = lanes.load_element(signature.args[0], x, at)
        factor = lanes.load(signature.args[2], factors, place)
        swapped = lanes.multiply(im, factor), lanes.multiply(re, factor)
        lanes.store_element(signature.args[4], out, to, swapped)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _convolve(typingctx, x, at, y, place, line, first, row, out, to):
    kinds = (types.intp, y, types.intp, line, types.intp, types.float32, out, types.intp)
    signature = types.void(x, *kinds)

    def generate(context, builder, signature, args):
        x, at, y, place, line, first, row, out, to = args
        lanes = _Lanes(context, builder)
        value = lanes.load_element(signature.args[0], x, at)
        re, im = lanes.product(value, lanes.load_element(signature.args[2], y, place))
        factor = lanes.multiply(repeat_8(builder, row), lanes.load(signature.args[4], line, first))
        swapped = lanes.multiply(im, factor), lanes.multiply(re, factor)
        lanes.store_element(signature.args[7], out, to, swapped)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _swap(typingctx, x, at, out, to):
    signature = types.void(x, types.intp, out, types.intp)

    def generate(context, builder, signature, args):
        x, at, out, to = args
        lanes = _Lanes(context, builder)
        first, second = lanes.load_element(signature.args[0], x, at)
        lanes.store_element(signature.args[2], out, to, (second, first))
        return context.get_dummy_value()

    return signature, generate


def _at(x, place):
    """Return a view of the element at ``place``, two lines of eight."""
    return x[place : place + ELEMENT].reshape(2, LANES)


def _butterfly_plain(radix: int, turned: bool) -> Any:
    angles = 2.0 * np.pi * np.outer(np.arange(radix), np.arange(radix)) / radix
    matrix = np.cos(angles) - 1j * np.sin(angles)

    def butterfly(x, at, step, out, to, to_step, factors, place):
        values = x[at + step * np.arange(radix)[:, None] + np.arange(ELEMENT)].reshape(radix, 2, LANES)
        found = matrix @ (values[:, 0] + 1j * values[:, 1])
        if turned:
            pairs = factors[place : place + 2 * (radix - 1)].reshape(-1, 2)
            found[1:] *= (pairs[:, 0] + 1j * pairs[:, 1])[:, None]
        for k, value in enumerate(found):
            _at(out, to + k * to_step)[:] = value.real, value.imag

    return butterfly


def _transpose_plain(x, at, step, out, to):
    lines = x[at + step * np.arange(LANES)[:, None] + np.arange(ELEMENT)].reshape(LANES, 2, LANES)
    out[to : to + LANES * ELEMENT] = lines.transpose(2, 1, 0).ravel()


def _part_pair_plain(x, at, mirror, a, b, to):
    (z_re, z_im), (y_re, y_im) = _at(x, at), _at(x, mirror)
    _at(a, to)[:] = z_re + y_re, z_im - y_im
    _at(b, to)[:] = z_im + y_im, y_re - z_re


def _join_pair_plain(a, b, at, out, to, mirror):
    (a_im, a_re), (b_im, b_re) = _at(a, at), _at(b, at)
    _at(out, to)[:] = a_im + b_re, a_re - b_im
    _at(out, mirror)[:] = b_re - a_im, a_re + b_im


def _scale_plain(x, at, factors, place, out, to):
    _at(out, to)[:] = _at(x, at)[::-1] * factors[place : place + LANES]


def _convolve_plain(x, at, y, place, line, first, row, out, to):
    (a, b), (c, d) = _at(x, at), _at(y, place)
    factor = row * line[first : first + LANES]
    _at(out, to)[:] = (a * d + b * c) * factor, (a * c - b * d) * factor


def _swap_plain(x, at, out, to):
    _at(out, to)[:] = _at(x, at)[::-1]


_make: Any = _butterfly_plain if config.DISABLE_JIT else _butterfly
# butterfly_R(x, at, step, out, to, to_step, factors, place): the discrete Fourier transform of R elements,
# ``step`` apart from ``at`` on, to elements ``to_step`` apart; all but the first times one of R - 1 complex
# factors, real and imaginary part in turn from ``place`` on. plain_R: without the factors.
butterfly_2, butterfly_3, butterfly_4, butterfly_5 = (_make(radix, True) for radix in RADICES)
plain_2, plain_3, plain_4, plain_5 = (_make(radix, False) for radix in RADICES)
# transpose_8(x, at, step, out, to): eight elements, ``step`` apart, to eight neighbours: lanes to elements
transpose_8: Any = _transpose_plain if config.DISABLE_JIT else _transpose
# part_pair(x, at, mirror, a, b, to): of z = p + i q, the transforms of the real signals p and q, twice over,
# from z's at a frequency and at its mirror
part_pair: Any = _part_pair_plain if config.DISABLE_JIT else _part_pair
# join_pair(a, b, at, out, to, mirror): the transform of p + i q, at a frequency and at its mirror, from those
# of p and q; imaginary parts first, in and out
join_pair: Any = _join_pair_plain if config.DISABLE_JIT else _join_pair
# scale_swapped(x, at, factors, place, out, to): an element times eight factors, imaginary parts first
scale_swapped: Any = _scale_plain if config.DISABLE_JIT else _scale
# convolve_swapped(x, at, y, place, line, first, row, out, to): an element times another, eight factors of
# ``line`` and a number; imaginary parts first
convolve_swapped: Any = _convolve_plain if config.DISABLE_JIT else _convolve
# swap(x, at, out, to): an element, its halves exchanged
swap: Any = _swap_plain if config.DISABLE_JIT else _swap
