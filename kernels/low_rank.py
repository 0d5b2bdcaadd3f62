"""A PSF of any shape as a few separable terms, each two passes of a line of weights.

A Moffat takes six terms to a few millionths, one that is elliptical and off its pixel a dozen, noise all
there are. Nothing wraps, and only lit nodes are looked at.
"""

import numpy as np

from arcforge.kernels._jit import inline, jit
from arcforge.kernels.lanes import LANES, weigh_8, weigh_32
from arcforge.kernels.separable import lit_lines, lit_part, sum_of_nodes, weigh_lines


@inline
def _taps(at, width, begin, end, taps):
    """Return the first tap, and the end of those, by which ``width`` sums from ``at`` on see lit nodes."""
    low = min(max(begin - at - width + 1, 0), taps)
    return low, max(min(end - at, taps), low)


@jit
def weigh_along(out, count, line, begin, end, weights, place, taps):
    """Set ``count`` >= 8 float32 of ``out`` to the sums of ``taps`` numbers of ``line`` from their own place
    on, times the weights from ``place`` on; the line is zero but from ``begin`` to ``end``.
    """
    for i in range(0, count - 31, 32):
        low, high = _taps(i, 32, begin, end, taps)
        weigh_32(out, i, line, i + low, 1, weights, place + low, high - low)
    for i in range(count - count % 32, count - 7, 8):
        low, high = _taps(i, 8, begin, end, taps)
        weigh_8(out, i, line, i + low, 1, weights, place + low, high - low)
    if count % 8:
        low, high = _taps(count - 8, 8, begin, end, taps)
        weigh_8(out, count - 8, line, count - 8 + low, 1, weights, place + low, high - low)


@jit
def convolve_low_rank(grid, lit, first, nodes_per_pixel, ranks, radii, up, across, scales, line, sums, out):
    """Convolve a row's grid with every band's terms, at the pixels; return the sum of the grid's nodes.

    Parameters
    ----------
    grid : float32 (size, size)
    lit : int64 (4,)
        Nodes that are not zero: first and end in y, then in x.
    first, nodes_per_pixel : int
        Node of the first pixel, on both axes.
    ranks, radii : int64 (bands,)
        Terms, and nodes on each side of a pixel that their weights reach.
    up, across : float32 (bands, >= most terms, >= 2 largest radii + 1)
        Weights of each term in y and in x, from ``-radius`` on: node p of the grid counts for the pixel at p
        - offset.
    scales : float64 (bands,)
    line : float32 (>= size, >= nodes of the stamp + 2 largest radii + 16)
    sums : float32 (>= nodes of the stamp, >= 8)
        Scratch.
    out : float32 (bands, ny, nx)
        Output.
    """
    bands, ny, nx = out.shape
    size, flat = grid.shape[0], grid.reshape(grid.size)
    span = max((nx - 1) * nodes_per_pixel + 1, LANES)
    for band in range(bands):
        radius, taps, scale = radii[band], 2 * radii[band] + 1, np.float32(scales[band])
        start, end, low, count = lit_part(lit, first, span, radius)
        begin = low - first + radius  # the lit nodes, as the taps of the first pixel count them
        for i in range(end + LANES - start):
            line[i] = np.float32(0.0)
        for j in range(ny):
            middle = first + j * nodes_per_pixel
            above, below = lit_lines(lit, middle, radius)
            target = out[band, j]
            for i in range(nx):
                target[i] = np.float32(0.0)
            for term in range(ranks[band]):
                weigh_lines(
                    line, low - start, count, flat, above * size + low, size, up[band, term],
                    above - (middle - radius), below - above,
                )  # fmt: skip
                weigh_along(sums, span, line[LANES:], begin, begin + count, across[band, term], 0, taps)
                if nodes_per_pixel == 1:
                    for i in range(nx):
                        target[i] += sums[i]
                else:
                    for i in range(nx):
                        target[i] += sums[i * nodes_per_pixel]
            for i in range(nx):
                target[i] *= scale
    return sum_of_nodes(grid, lit, line)
