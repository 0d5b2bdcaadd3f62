"""Uniform midpoint sampling: N x N samples a pixel, the mean of them. What the peers do, for like-for-like
timing.
"""

import numpy as np

from arcforge.kernels._jit import jit
from arcforge.kernels.ray import brightness_line

F = np.float32


@jit
def uniform_grid(kind, fields, samples, origin, bounds, line, grid):
    """Fill ``grid`` with the mean brightness of every pixel for a source of unit flux [1 / pix].

    Parameters
    ----------
    kind : NamedTuple
        Lens model, one of ``lenses.LENSES``.
    fields : float32 (n,)
        The folded row.
    samples : int
        Samples a pixel and axis, at the midpoints of equal sub-pixels.
    origin : float
        Position of node 0 of the grid on both axes [pix from the stamp's centre].
    bounds : int64 (4,)
        First and one-past-last node in y, then in x, that hold light; the other nodes are set to 0.
    line : float32 (>= samples * size,)
        Scratch.
    grid : float32 (size, size)
        Output; nodes are pixel centres.
    """
    step = F(1.0) / F(samples)
    weight = step * step
    first = F(-0.5) + F(0.5) * step
    grid[:] = F(0.0)
    count = bounds[3] - bounds[2]
    x_first = F(origin + bounds[2]) + first
    for j in range(bounds[0], bounds[1]):
        for k in range(samples):
            y = F(origin + j) + first + F(k) * step
            brightness_line(kind, fields, x_first, step, y, count * samples, line)
            for i in range(count):
                total = F(0.0)
                for s in range(samples):
                    total += line[i * samples + s]
                grid[j, bounds[2] + i] += weight * total
