"""Uniform midpoint sampling: N x N samples a pixel, the mean of them. What the peers do, for like-for-like
timing.
"""

import numpy as np

from arcforge.kernels._jit import jit
from arcforge.kernels.lanes import LANES
from arcforge.kernels.ray import brightness_line

F = np.float32


@jit
def uniform_grid(kind, fields, samples, beside, origin, bounds, stamp, lines, grid):
    """Fill ``grid`` with the mean brightness of every pixel for a source of unit flux [1 / pix].

    Beside the stamp, light is seen through the PSF's wings alone; the peers evaluate nothing there.

    Parameters
    ----------
    kind : NamedTuple
        Lens model, one of ``lenses.LENSES``.
    fields : float32 (n,)
        The folded row.
    samples, beside : int
        Samples a pixel and axis, at the midpoints of equal sub-pixels: in the stamp, and beside it.
    origin : float
        Position of node 0 of the grid on both axes [pix from the stamp's centre].
    bounds : int64 (4,)
        First and one-past-last node in y, then in x, that hold light; the other nodes are set to 0.
    stamp : int64 (2,)
        First and one-past-last node of the stamp, on both axes.
    lines : float32 (2, >= samples * size + LANES)
        Scratch.
    grid : float32 (size, size)
        Output; nodes are pixel centres.
    """
    grid[:] = F(0.0)
    low, high = bounds[2], bounds[3]
    begin = min(max(stamp[0], low), high)
    end = min(max(stamp[1], begin), high)
    for j in range(bounds[0], bounds[1]):
        if stamp[0] <= j < stamp[1]:
            _means(kind, fields, beside, origin, j, low, begin, lines, grid)
            _means(kind, fields, samples, origin, j, begin, end, lines, grid)
            _means(kind, fields, beside, origin, j, end, high, lines, grid)
        else:
            _means(kind, fields, beside, origin, j, low, high, lines, grid)


@jit
def _means(kind, fields, samples, origin, j, begin, end, lines, grid):
    """Fill nodes ``begin`` to ``end`` of line ``j`` of the grid."""
    if end <= begin:
        return
    step = F(1.0) / F(samples)
    weight = step * step
    first = F(-0.5) + F(0.5) * step
    # whole vectors of rays: a scalar remainder would cost more than the rays that are not wanted
    count = ((end - begin) * samples + LANES - 1) // LANES * LANES
    line, sums = lines[0], lines[1]
    for i in range(count):
        sums[i] = F(0.0)
    for k in range(samples):
        y = F(origin + j) + first + F(k) * step
        brightness_line(kind, fields, F(origin + begin) + first, step, y, count, line)
        for i in range(count):
            sums[i] += line[i]
    for i in range(end - begin):
        total = F(0.0)
        for s in range(samples):
            total += sums[i * samples + s]
        grid[j, begin + i] = weight * total
