"""Lensed light of a source that is an image: rays on a fine lattice, spline interpolation, gridding.

A row's model is folded as for a Sersic source (``ray.py``) of unit axis ratio whose size is one pixel of the
template, so that the ray's source coordinates are the template's own pixels. The template is a cubic B-spline
(Unser 1999, IEEE Signal Processing Magazine 16, 22): its integral is the sum of its coefficients, so flux is
conserved by construction, and it is smooth to the second derivative.

Cells are one node wide. Each gets as many rays as its image in the source plane spans template pixels, at
the nodes of a product rule, so that gridding is separable: along a line first, then across lines, with a
table of the gridding kernel at the rule's few places.
"""

import numpy as np

from arcforge.kernels._jit import inline, jit
from arcforge.kernels.ray import source_points

F = np.float32

TAPS = 7  # nodes that a sample within a node's cell can reach: the node and three on either side
REACH = 3
WIDTH = 8  # TAPS and one that is 0
# A cell is traced where the corners' bounding box in the source plane, widened by this share of its size and
# by PAD template pixels, meets the template: lens mapping bends the edges between corners by less.
WIDEN = F(0.4)
PAD = F(2.5)
MOST = 40  # rays a cell and axis


@inline
def spline_at(coefficients, u, v):
    """Return the spline at column ``u``, row ``v``, both at least 1 and at most side - 3."""
    i, j = int(u), int(v)
    a, b = u - F(i), v - F(j)
    a1, b1 = F(1.0) - a, F(1.0) - b
    sixth = F(1.0 / 6.0)
    x0, x3 = sixth * a1 * a1 * a1, sixth * a * a * a
    x1 = F(2.0 / 3.0) - F(0.5) * a * a * (F(2.0) - a)
    x2 = F(2.0 / 3.0) - F(0.5) * a1 * a1 * (F(2.0) - a1)
    y0, y3 = sixth * b1 * b1 * b1, sixth * b * b * b
    y1 = F(2.0 / 3.0) - F(0.5) * b * b * (F(2.0) - b)
    y2 = F(2.0 / 3.0) - F(0.5) * b1 * b1 * (F(2.0) - b1)
    r0, r1, r2, r3 = coefficients[j - 1], coefficients[j], coefficients[j + 1], coefficients[j + 2]
    k = i - 1
    return (
        y0 * (x0 * r0[k] + x1 * r0[k + 1] + x2 * r0[k + 2] + x3 * r0[k + 3])
        + y1 * (x0 * r1[k] + x1 * r1[k + 1] + x2 * r1[k + 2] + x3 * r1[k + 3])
        + y2 * (x0 * r2[k] + x1 * r2[k + 1] + x2 * r2[k + 2] + x3 * r2[k + 3])
        + y3 * (x0 * r3[k] + x1 * r3[k + 1] + x2 * r3[k + 2] + x3 * r3[k + 3])
    )


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
def image_grid(
    kind, fields, coefficients, amplitude, x_first, y_first, step, bounds, samples, places, taps, reach, xs,
    ys, us, vs, across, grid,
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
    places : float32 (MOST + 1, MOST)
        Places of that many rays in a cell, from -1/2 to 1/2.
    taps : float32 (MOST + 1, MOST, 8)
        What each of them gives the seven nodes around, its weight in the cell included; the last is 0.
    reach : int
        3, or 0 where a sample belongs to its own node alone.
    xs, ys, us, vs : float32 (MOST * MOST,)
        Scratch.
    across : float32 (MOST, 8)
        Scratch.
    grid : float32 (size, size)
        Added to.
    """
    n_y, n_x = samples.shape[1:]
    side_v, side_u = coefficients.shape
    centre_u, centre_v = F(0.5) * F(side_u - 1), F(0.5) * F(side_v - 1)
    last_u, last_v = F(side_u - 3), F(side_v - 3)
    weight = amplitude * step * step
    low, high = REACH - reach, REACH + reach + 1
    for j in range(n_y):
        y = y_first + F(j) * step
        for i in range(n_x):
            n, m = int(samples[0, j, i]), int(samples[1, j, i])
            if n == 0:
                continue
            x = x_first + F(i) * step
            for q in range(m):
                row = xs[q * n : q * n + n]
                column = ys[q * n : q * n + n]
                for p in range(n):
                    row[p] = x + places[n, p] * step
                    column[p] = y + places[m, q] * step
            source_points(kind, fields, xs[: n * m], ys[: n * m], us[: n * m], vs[: n * m])
            any_light = False
            for k in range(n * m):
                u, v = us[k] + centre_u, vs[k] + centre_v
                inside = F(1.0) <= u and u < last_u and F(1.0) <= v and v < last_v
                xs[k] = weight * spline_at(coefficients, u, v) if inside else F(0.0)
                any_light |= inside
            if not any_light:
                continue
            for q in range(m):
                sums = across[q]
                for t in range(WIDTH):
                    sums[t] = F(0.0)
                for p in range(n):
                    value, tap = xs[q * n + p], taps[n, p]
                    for t in range(WIDTH):  # a vector's lanes
                        sums[t] += tap[t] * value
            for r in range(low, high):
                target = grid[bounds[0] + j + r - REACH]
                offset = bounds[2] + i - REACH
                for q in range(m):
                    share = taps[m, q, r]
                    for t in range(low, high):
                        target[offset + t] += share * across[q, t]
