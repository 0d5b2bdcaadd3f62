"""Fourier transforms of one stamp's grid and its convolution with the PSF of every band, float32.

A grid is transformed along y, then along x, and every band goes back along x, then y. Each pass takes eight
lines at a time through all steps of the transform, one a vector lane (``butterflies.py``), in buffers of the
level-1 cache; what lies between passes stays in level 2. Real lines go in pairs, as real and imaginary part
of a complex one. A band's PSF is multiplied in on the way to its first pass. Columns without light are passed
over, and so are those beside the stamp on the way back. A stamp of three bands takes a quarter of the time
that FFTW's plans take for it, and one call does it, without the interpreter.

Steps: Stockham's autosort (Van Loan 1992, Computational Frameworks for the Fast Fourier Transform, 1.7), by
decimation in frequency, radices 2 to 5. The inverse is the forward transform of numbers whose real and
imaginary parts are exchanged.

Order of a spectrum: blocks of eight frequencies along y (0 to half the grid's size, the last block filled
up); in each, the frequencies along x, as an FFT has them; in each, an element (``butterflies.py``).
"""

import numpy as np

from arcforge.kernels._jit import jit
from arcforge.kernels.butterflies import (
    ELEMENT,
    butterfly_2,
    butterfly_3,
    butterfly_4,
    butterfly_5,
    convolve_swapped,
    join_pair,
    part_pair,
    plain_2,
    plain_3,
    plain_4,
    plain_5,
    scale_swapped,
    swap,
    transpose_8,
)
from arcforge.kernels.lanes import LANES
from arcforge.kernels.transfer import gaussian_quarter, radial_quarter

F = np.float32


@jit
def transform_lines(x, at, step, out, to, a, b, size, radices, factors):
    """Transform eight lines of ``size`` numbers: elements ``step`` apart in ``x``, neighbours in ``out``.

    ``radices`` (int64), at least two, multiply to ``size``; ``factors`` are those of ``engine.fourier``.
    ``a`` and ``b`` are scratch, ELEMENT * size each; ``x`` may be ``a``.
    """
    n, apart, place = size, 1, 0
    last = radices.size - 1
    target = b
    for k in range(radices.size):
        radix = radices[k]
        rest = n // radix
        if k == last:
            for q in range(apart):
                here, there = at + step * q, to + ELEMENT * q
                if radix == 5:
                    plain_5(x, here, step * apart, out, there, ELEMENT * apart, factors, place)
                elif radix == 4:
                    plain_4(x, here, step * apart, out, there, ELEMENT * apart, factors, place)
                elif radix == 3:
                    plain_3(x, here, step * apart, out, there, ELEMENT * apart, factors, place)
                else:
                    plain_2(x, here, step * apart, out, there, ELEMENT * apart, factors, place)
            return
        across = step * apart * rest
        for p in range(rest):
            for q in range(apart):
                here, there = at + step * (q + apart * p), ELEMENT * (q + apart * radix * p)
                if radix == 5:
                    butterfly_5(x, here, across, target, there, ELEMENT * apart, factors, place)
                elif radix == 4:
                    butterfly_4(x, here, across, target, there, ELEMENT * apart, factors, place)
                elif radix == 3:
                    butterfly_3(x, here, across, target, there, ELEMENT * apart, factors, place)
                else:
                    butterfly_2(x, here, across, target, there, ELEMENT * apart, factors, place)
            place += 2 * (radix - 1)
        x, at, step = target, 0, ELEMENT
        target = a if k % 2 == 0 else b
        n, apart = rest, apart * radix


@jit
def forward(grid, lit, a, b, z, pair, turned, spectrum, radices, factors):
    """Write twice the transform of ``grid`` (size, size), which is 0 outside columns lit[0] to lit[1] - 1.

    ``size`` is at least 16; ``a``, ``b``, ``z`` (ELEMENT * (size + 1)), ``pair`` (2 * 8 * ELEMENT) and
    ``turned``, as large as ``spectrum``, are scratch.
    """
    size = grid.shape[0]
    blocks = spectrum.size // (ELEMENT * size)
    # literals are types of their own, for which transform_lines would be compiled anew
    start, step = np.int64(0), np.int64(ELEMENT)
    source = grid.reshape(grid.size)
    first = max(0, min(lit[0], size - ELEMENT))
    end = max(first, min(size, lit[1]))
    parts, others = pair[: LANES * ELEMENT], pair[LANES * ELEMENT :]
    for x0 in range(first, end, ELEMENT):
        column = min(x0, size - ELEMENT)
        transform_lines(source, column, size, z, start, a, b, size, radices, factors)
        for i in range(ELEMENT):
            z[ELEMENT * size + i] = z[i]
        for block in range(blocks):
            for k in range(LANES):
                j = LANES * block + k
                part_pair(z, ELEMENT * j, ELEMENT * (size - j), parts, others, ELEMENT * k)
            there = ELEMENT * (block * size + column)
            transpose_8(parts, 0, ELEMENT, turned, there)
            transpose_8(others, 0, ELEMENT, turned, there + LANES * ELEMENT)
    reached = min(size, first + (end - first + ELEMENT - 1) // ELEMENT * ELEMENT)
    for block in range(blocks):
        line = ELEMENT * block * size
        for i in range(line, line + ELEMENT * first):
            turned[i] = F(0.0)
        for i in range(line + ELEMENT * reached, line + ELEMENT * size):
            turned[i] = F(0.0)
        transform_lines(turned, line, step, spectrum, line, a, b, size, radices, factors)


@jit
def inverse(
    spectrum, size, period, quarter, psf, response, scale, first, nodes, a, b, z, pair, turned, radices,
    factors, out,
):  # fmt: skip
    """Multiply a spectrum by a PSF's and write the stamp, ``out`` (side, side), side at least 16.

    Parameters
    ----------
    spectrum : float32
        Of a grid of ``size``.
    period : int
        Size of the grid to go back to: ``size``, or less where the PSF passes nothing that it cannot hold.
    quarter : float32 (period // 2 + 1, 8 * blocks)
        Factors of a PSF that is even in both axes, frequencies along x, then y; of the others its shape
        alone is used.
    psf : float32
        Transform of any PSF, in the order of a spectrum of ``period``; times ``response`` in each axis, times
        ``scale``.
    first, nodes : int
        Node of the stamp's first pixel on either axis, nodes from one pixel to the next, in ``period``.
    a, b, z, pair, turned
        Scratch, as ``forward`` has it.
    radices, factors
        Those of ``period``.
    """
    blocks, half = quarter.shape[1] // LANES, quarter.shape[0]
    start, near = np.int64(0), np.int64(ELEMENT)
    even = quarter.reshape(quarter.size)
    for block in range(blocks):
        for i in range(period):
            there = i if 2 * i <= period else size - period + i
            at = ELEMENT * (block * size + there)
            if psf.size:
                place = ELEMENT * (block * period + i)
                row = scale * response[there]
                convolve_swapped(spectrum, at, psf, place, response, LANES * block, row, a, ELEMENT * i)
            else:
                place = LANES * (blocks * min(i, period - i) + block)
                scale_swapped(spectrum, at, even, place, a, ELEMENT * i)
        line = ELEMENT * block * period
        transform_lines(a, start, near, turned, line, a, b, period, radices, factors)
    parts, others = pair[: LANES * ELEMENT], pair[LANES * ELEMENT :]
    side = out.shape[0]
    stamp = out.reshape(out.size)
    step = ELEMENT * nodes
    for x0 in range(0, side, ELEMENT):
        column = min(x0, side - ELEMENT)
        for block in range(blocks):
            at = ELEMENT * (block * period + first) + step * column
            transpose_8(turned, at, step, parts, 0)
            transpose_8(turned, at + LANES * step, step, others, 0)
            for k in range(min(LANES, half - LANES * block)):
                j = LANES * block + k
                join_pair(parts, others, ELEMENT * k, a, ELEMENT * j, ELEMENT * (period - j))
        transform_lines(a, start, near, z, start, a, b, period, radices, factors)
        for j in range(side):
            swap(z, ELEMENT * (first + nodes * j), stamp, j * side + column)


@jit
def convolve_rows(
    grids, lit, psf, gaussian, widths_pix, table, nodes_per_unit, response, nodes_per_pixel, scales, first,
    nodes, size_steps, size_factors, period, period_steps, period_factors, quarter, a, b, z, pair, turned,
    spectrum, sums, rows, out,
):  # fmt: skip
    """Convolve rows' grids with their PSFs and write their stamps.

    Parameters
    ----------
    grids : float32 (k, size, size)
        Light of each row for unit flux.
    lit : int64 (k, 2)
        Columns that hold it: first and end.
    psf : float32 (bands, n)
        Transforms of PSF images, as ``inverse`` takes them; (1, 0) for the others.
    gaussian : bool
        Those are Gaussians, or what ``table`` says (``transfer.radial_quarter``).
    widths_pix : float64 (k, bands)
        Their sigmas, or radii.
    response : float32 (size,)
        One factor per frequency bin and axis.
    nodes_per_pixel : int
        Of the grid.
    scales : float64 (k, bands)
    first, nodes, period
        As ``inverse`` takes them.
    size_steps, size_factors, period_steps, period_factors
        Radices and factors of both sizes (``engine.fourier``).
    quarter, a, b, z, pair, turned, spectrum
        Scratch.
    sums : float64 (k,)
        Output: sum of each grid.
    rows : int64 (k,)
        Where each row's stamp goes in ``out`` float32 (n, bands, side, side).
    """
    for k in range(rows.size):
        forward(grids[k], lit[k], a, b, z, pair, turned, spectrum, size_steps, size_factors)
        sums[k] = 0.5 * spectrum[0]
        for band in range(out.shape[1]):
            image = psf[min(band, psf.shape[0] - 1)]
            scale = 0.5 * scales[k, band]  # the spectrum is twice the grid's
            if image.size == 0:
                width = widths_pix[k, band]
                if gaussian:
                    gaussian_quarter(width, response, nodes_per_pixel, scale, a, quarter)
                else:
                    radial_quarter(width, table, nodes_per_unit, response, nodes_per_pixel, scale, quarter)
            inverse(
                spectrum, grids.shape[1], period, quarter, image, response, F(scale), first, nodes, a, b, z,
                pair, turned, period_steps, period_factors, out[rows[k], band],
            )  # fmt: skip
