"""Lensed light of a source that is an image, in pixels without a PSF: rays in every pixel, added up there.

A row's model is folded as for a Sersic source (``ray.py``) of unit axis ratio whose size is one pixel of the
template's spline, so that the ray's source coordinates are the spline's own pixels. The template is a cubic
B-spline (Unser 1999, IEEE Signal Processing Magazine 16, 22): its integral is the sum of its coefficients, so
flux is conserved by construction, and it is smooth to the second derivative.

Each pixel gets as many rays as its image in the source plane spans pixels of the template. With a PSF nothing
is cut off at a pixel's edge, and far fewer rays do: ``polar_source.py``.
"""

import numpy as np

from arcforge.kernels._jit import inline, jit
from arcforge.kernels.lanes import cubic_at
from arcforge.kernels.ray import F, source_points

# A cell is traced where the corners' bounding box in the source plane, widened by this share of its size and
# by PAD template pixels, meets the template: lens mapping bends the edges between corners by less.
WIDEN = F(0.4)
PAD = F(2.5)
MOST = 40  # rays a cell and axis


@inline
def spline_at(coefficients, u, v):
    """Return the spline at column ``u``, row ``v``, both at least 1 and at most side - 3."""
    i, j = int(u), int(v)
    side = coefficients.shape[1]
    return cubic_at(coefficients, (j - 1) * side + i - 1, side, u - F(i), v - F(j))


@inline
def _length(us, vs, j, i, k, m):
    """Return the distance in the source plane of two corners: line and place of each."""
    du, dv = us[k, m] - us[j, i], vs[k, m] - vs[j, i]
    return np.sqrt(du * du + dv * dv)


@inline
def _count(n):
    """Return a number of rays of at least ``n``, out of few: neighbours with equal numbers share a lattice,
    which sums an image exactly that has nothing finer.
    """
    if n <= F(8.0):
        return 4 * max(1, int(np.ceil(F(0.25) * n)))
    return 12 if n <= F(12.0) else 16 if n <= F(16.0) else 24 if n <= F(24.0) else MOST


@jit
def plan_cells(
    kind, fields, half_u, half_v, x_first, y_first, step, apart, xs, ys, us, vs, samples
):  # fmt: skip
    """Decide how many rays each cell (one a node) gets along x and y, 0 in the dark.

    ``samples`` is uint8 (2, n_y, n_x). Rays lie at most ``apart`` template pixels apart. The corners of a
    cell at the lens's centre are sent to all sides, so that it is seen to be as large as it is.

    ``xs, ys`` (n_x + 1,), ``us, vs`` (2, n_x + 1) are scratch; ``step`` is a cell's width [pix].
    """
    n_y, n_x = samples.shape[1:]
    count = n_x + 1
    for i in range(count):
        xs[i] = x_first + (F(i) - F(0.5)) * step
    for j in range(n_y + 1):
        y = y_first + (F(j) - F(0.5)) * step
        for i in range(count):
            ys[i] = y
        now, before = j % 2, (j + 1) % 2
        source_points(kind, fields, xs[:count], ys[:count], us[now], vs[now])
        if j == 0:
            continue
        for i in range(n_x):
            u_low = min(min(us[now, i], us[now, i + 1]), min(us[before, i], us[before, i + 1]))
            u_high = max(max(us[now, i], us[now, i + 1]), max(us[before, i], us[before, i + 1]))
            v_low = min(min(vs[now, i], vs[now, i + 1]), min(vs[before, i], vs[before, i + 1]))
            v_high = max(max(vs[now, i], vs[now, i + 1]), max(vs[before, i], vs[before, i + 1]))
            margin = PAD + WIDEN * max(u_high - u_low, v_high - v_low)
            reached = (
                u_low - margin < half_u
                and u_high + margin > -half_u
                and v_low - margin < half_v
                and v_high + margin > -half_v
            )
            samples[0, j - 1, i] = samples[1, j - 1, i] = 0
            if reached:
                across = max(_length(us, vs, before, i, before, i + 1), _length(us, vs, now, i, now, i + 1))
                up = max(_length(us, vs, before, i, now, i), _length(us, vs, before, i + 1, now, i + 1))
                samples[0, j - 1, i] = _count(across / apart)
                samples[1, j - 1, i] = _count(up / apart)


@jit
def image_pixels(
    kind, fields, coefficients, amplitude, x_first, y_first, step, bounds, samples, xs, ys, us, vs, grid
):  # fmt: skip
    """Add one row's light for unit flux to ``grid``, from the lit cells of its bounds.

    Parameters
    ----------
    kind, fields
        The lens's kind and the folded row, as ``ray.source_points`` takes them.
    coefficients : float32 (rows, columns)
        The template's spline coefficients, zero for three pixels at every edge; its centre is the source's.
    amplitude : float32
        Brightness per image pixel of a coefficient of 1.
    x_first, y_first, step : float32
        Position of the first node and distance of nodes [pix from the stamp's centre].
    bounds : int64 (4,)
        First and end node in y, then in x.
    samples : uint8 (2, n_y, n_x)
        Rays of each cell along x and along y, 0 to MOST.
    xs, ys, us, vs : float32 (MOST * MOST,)
        Scratch.
    grid : float32 (size, size)
        Added to.
    """
    n_y, n_x = samples.shape[1:]
    side_v, side_u = coefficients.shape
    centre_u, centre_v = F(0.5) * F(side_u - 1), F(0.5) * F(side_v - 1)
    last_u, last_v = F(side_u - 3), F(side_v - 3)
    for j in range(n_y):
        y = y_first + F(j) * step
        for i in range(n_x):
            n, m = int(samples[0, j, i]), int(samples[1, j, i])
            if n == 0:
                continue
            x = x_first + F(i) * step
            for q in range(m):
                row, column = xs[q * n : q * n + n], ys[q * n : q * n + n]
                for p in range(n):
                    row[p] = x + ((F(p) + F(0.5)) / F(n) - F(0.5)) * step
                    column[p] = y + ((F(q) + F(0.5)) / F(m) - F(0.5)) * step
            source_points(kind, fields, xs[: n * m], ys[: n * m], us[: n * m], vs[: n * m])
            total = F(0.0)
            for k in range(n * m):
                u, v = us[k] + centre_u, vs[k] + centre_v
                if F(1.0) <= u and u < last_u and F(1.0) <= v and v < last_v:
                    total += spline_at(coefficients, u, v)
            grid[bounds[0] + j, bounds[2] + i] += amplitude * step * step / F(n * m) * total
