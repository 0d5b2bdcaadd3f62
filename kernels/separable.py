"""A Gaussian PSF as two passes of a short line of weights, down the columns and along the rows.

Both the Gaussian and what the grid's samples carry (the gridding kernel, the pixel's response) are products
of one function per axis, so the transfer function that the FFT would multiply with is one, too. Its inverse
transform per axis is a line of weights that dies out like the Gaussian; where that is short, two passes take
a fifth of the time of the transforms, wrap nothing, and leave no noise of float32 where there is no light.
"""

import numpy as np

from arcforge.kernels._jit import inline, jit
from arcforge.kernels.lanes import LANES, weigh_8, weigh_32
from arcforge.kernels.transfer import frequency


@jit
def gaussian_weights(sigma_pix, response, nodes_per_pixel, cosines, radius, weights):
    """Fill ``weights[: radius + 1]`` with the inverse transform of ``response`` times a Gaussian's.

    ``response`` (size,) holds a factor per frequency bin, ``cosines`` (size,) the cosine of 2 pi j / size.
    """
    size = response.size
    falloff = -2.0 * np.pi**2 * sigma_pix**2
    for r in range(radius + 1):
        weights[r] = response[0] / size
    for j in range(1, size // 2 + 1):
        k = frequency(j, size, nodes_per_pixel)
        twice = 2.0 if 2 * j < size else 1.0  # bins j and -j, but for the highest of an even size
        factor = twice * response[j] * np.exp(falloff * k * k) / size
        place = 0
        for r in range(radius + 1):
            weights[r] += factor * cosines[place]
            place += j
            if place >= size:
                place -= size


@jit
def weigh_lines(out, at, count, x, first, step, weights, place, lines):
    """Set ``count`` >= 8 float32 of ``out`` to the weighted sum of lines of x that are ``step`` apart.

    The last group overlaps the one before: a few sums are made twice, none past the end.
    """
    if count >= 32:
        for i in range(0, count - 31, 32):
            weigh_32(out, at + i, x, first + i, step, weights, place, lines)
        if count % 32:
            weigh_32(out, at + count - 32, x, first + count - 32, step, weights, place, lines)
    else:
        for i in range(0, count - 7, 8):
            weigh_8(out, at + i, x, first + i, step, weights, place, lines)
        if count % 8:
            weigh_8(out, at + count - 8, x, first + count - 8, step, weights, place, lines)


@inline
def sum_of_nodes(grid, lit, line):
    """Return the sum of the lit nodes; ``line`` is scratch."""
    for i in range(lit[2], lit[3]):
        line[i] = np.float32(0.0)
    for j in range(lit[0], lit[1]):
        for i in range(lit[2], lit[3]):
            line[i] += grid[j, i]
    total = 0.0
    for i in range(lit[2], lit[3]):
        total += line[i]
    return total


@inline
def lit_part(lit, first, span, radius):
    """Return the nodes where a line of weighted sums begins and ends, its first lit one and how many there
    are (at least LANES): what weights of that radius reach from ``span`` nodes, ``first`` on.
    """
    start, end = first - radius - LANES, first + span + radius
    high = min(lit[3], end)
    low = min(max(lit[2], start + LANES), max(high - LANES, 0))
    return start, end, low, max(high - low, LANES)


@inline
def lit_lines(lit, middle, radius):
    """Return the first and one-past-last lit line that weights of that radius about ``middle`` reach."""
    above = min(max(lit[0], middle - radius), lit[1])
    return above, max(min(lit[1], middle + radius + 1), above)


@jit
def convolve_gaussians(
    grid, lit, first, nodes_per_pixel, sigmas_pix, radii, response, cosines, scales, half, weights, line,
    sums, out,
):  # fmt: skip
    """Convolve a row's grid with every band's Gaussian, at the pixels; return the sum of the grid's nodes.

    Parameters
    ----------
    grid : float32 (size, size)
    lit : int64 (4,)
        Nodes that are not zero: first and end in y, then in x.
    first, nodes_per_pixel : int
        Node of the first pixel, on both axes.
    sigmas_pix, scales : float64 (bands,)
    radii : int64 (bands,)
        Nodes on each side of a pixel that its weights reach.
    response, cosines : float64 (size,)
        As those of ``gaussian_weights``.
    half : float64 (> largest radius,), weights : float32 (> 2 largest radii,)
    line : float32 (>= size, >= nodes of the stamp + 2 largest radii + 16)
    sums : float32 (>= nodes of the stamp, >= 8)
        Scratch.
    out : float32 (bands, ny, nx)
        Output.
    """
    bands, ny, nx = out.shape
    size, flat = grid.shape[0], grid.reshape(grid.size)
    span = (nx - 1) * nodes_per_pixel + 1
    for band in range(bands):
        radius = radii[band]
        gaussian_weights(sigmas_pix[band], response, nodes_per_pixel, cosines, radius, half)
        for r in range(radius + 1):
            weights[radius - r] = weights[radius + r] = half[r]
        scale = np.float32(scales[band])
        start, end, low, count = lit_part(lit, first, span, radius)
        for i in range(end + LANES - start):
            line[i] = np.float32(0.0)
        for j in range(ny):
            middle = first + j * nodes_per_pixel
            above, below = lit_lines(lit, middle, radius)
            place = above - (middle - radius)
            weigh_lines(
                line, low - start, count, flat, above * size + low, size, weights, place, below - above
            )
            weigh_lines(sums, 0, max(span, LANES), line, LANES, 1, weights, 0, 2 * radius + 1)
            if nodes_per_pixel == 1:
                for i in range(nx):
                    out[band, j, i] = scale * sums[i]
            else:
                for i in range(nx):
                    out[band, j, i] = scale * sums[i * nodes_per_pixel]
    return sum_of_nodes(grid, lit, line)
