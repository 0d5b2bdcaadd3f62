"""Lensed light of a source that is an image: rays on rings around the lens, as dense as the image asks for.

A lens maps a ring to a closed curve and is smooth along it and, but for its centre, across rings. Rays that
lie evenly in angle and in radius are therefore a trapezoidal rule of smooth, periodic functions, whose error
falls faster than any power of their distance once that is as fine as the image; and the point at which a
lens is singular is where rings end. On a lattice in x and y the same accuracy took six times as many rays:
between radius 0 and half the Einstein radius an isothermal lens stretches tangents without bound, and rings
can hold as many rays as that needs, each its own number.

Every ray goes to the grid by itself, with the weights of the gridding kernel (``spread.py``). Rows without a
PSF have no gridding kernel that would smooth the pixels' edges: ``image_source.py``.
"""

import numpy as np

from arcforge.kernels._jit import inline, jit
from arcforge.kernels.image_source import PAD, WIDEN, spline_at
from arcforge.kernels.lanes import spread_6
from arcforge.kernels.ray import F, source_points
from arcforge.kernels.spread import REACH, TABLE_STEPS

SECTORS = 64  # of a ring; dark ones are left out
MOST_BANDS = 96  # of rings, in each of which every sector is dark or lit
BATCH = 2048  # rays traced together, about
RAYS = (MOST_BANDS + 1) * (SECTORS + 1)  # that scratch holds
TURN = F(2.0 * np.pi)
CLOSER = F(1.25)  # are rings than rays on them: a ring's sum is periodic, and misses less
# Rings are this many times more, less one, at the centre, and half of that this many rings from it.
CENTRE_MORE, CENTRE_RINGS = F(3.0), F(3.0)
LONGER = F(1.1)  # than the chord between two directions the curve is, at the most


@inline
def _less(a, b):
    return a if a < b else b


@inline
def _more(a, b):
    return a if a > b else b


@jit
def survey(
    kind, fields, radius, n_bands, half_u, half_v, directions, xs, ys, us, vs, weights, lit, radial,
    tangential,
):  # fmt: skip
    """Look at rings from the lens's centre to ``radius`` [pix]: where they are lit, and how stretched.

    Fills, for each of ``n_bands`` bands of rings: ``lit`` uint8 (bands, SECTORS); ``radial`` float32
    (bands,), template pixels a pixel along a radius; ``tangential`` float32 (bands,), template pixels a
    radian along a ring, where it is lit. ``xs`` to ``weights`` ((bands + 1) * (SECTORS + 1),) are scratch.
    """
    width = radius / F(n_bands)
    lens_x, lens_y = fields[0], fields[1]
    points = SECTORS + 1  # of a ring: it ends where it began
    for k in range(n_bands + 1):
        r = width * max(F(k), F(0.1))
        ring_x, ring_y = xs[k * points : (k + 1) * points], ys[k * points : (k + 1) * points]
        for m in range(SECTORS):
            ring_x[m] = lens_x + r * directions[0, m]
            ring_y[m] = lens_y + r * directions[1, m]
        ring_x[SECTORS], ring_y[SECTORS] = ring_x[0], ring_y[0]
    count = (n_bands + 1) * points
    source_points(kind, fields, xs[:count], ys[:count], us[:count], vs[:count])
    # What follows is of the patch between two points and the two further out, for all of them at once: loops
    # that fill one line each are vectorised. A ring's last patch, which has no width, is not asked for.
    patches = n_bands * points - 1
    squares, across, along = weights, xs, ys
    for i in range(patches):
        u_low = _less(_less(us[i], us[i + 1]), _less(us[i + points], us[i + points + 1]))
        u_high = _more(_more(us[i], us[i + 1]), _more(us[i + points], us[i + points + 1]))
        v_low = _less(_less(vs[i], vs[i + 1]), _less(vs[i + points], vs[i + points + 1]))
        v_high = _more(_more(vs[i], vs[i + 1]), _more(vs[i + points], vs[i + points + 1]))
        margin = PAD + WIDEN * _more(u_high - u_low, v_high - v_low)
        beyond_u = _more(u_low - half_u, -half_u - u_high)
        beyond_v = _more(v_low - half_v, -half_v - v_high)
        across[i] = margin - _more(beyond_u, beyond_v)  # > 0 where lit
    for i in range(patches + points):
        squares[i] = (us[i + 1] - us[i]) ** 2 + (vs[i + 1] - vs[i]) ** 2
    for i in range(patches):
        along[i] = _more(squares[i], squares[i + points]) if across[i] > F(0.0) else F(0.0)
    for k in range(n_bands):
        for m in range(SECTORS):
            lit[k, m] = across[k * points + m] > F(0.0)
    for i in range(patches):
        across[i] = (us[i + points] - us[i]) ** 2 + (vs[i + points] - vs[i]) ** 2
    for k in range(n_bands):
        longest, widest = F(0.0), F(0.0)
        for i in range(k * points, k * points + SECTORS):
            longest, widest = _more(along[i], longest), _more(across[i], widest)
        radial[k] = np.sqrt(widest) / width
        tangential[k] = LONGER * np.sqrt(longest) * F(SECTORS) / TURN


@jit
def envelope(radial, tangential, width):
    """Return (a, b, c) such that a + b c / (r + c) is smooth and no less than ``radial`` where rings are lit.

    Of a few values of c [pix] the one that takes the fewest rings. An isothermal lens stretches all radii
    alike: b is 0.
    """
    last = 0
    for k in range(radial.size):
        if tangential[k] > F(0.0):
            last = k
    a = F(0.0)
    for k in range(last // 2, last + 1):
        a = max(a, radial[k])
    best_b, best_c, fewest = F(0.0), F(1.0), F(np.inf)
    c = width
    for _ in range(6):
        b = F(0.0)
        for k in range(last + 1):
            b = max(b, (radial[k] - a) * ((F(k) + F(0.5)) * width + c) / c)
        rings = b * c * np.log(F(1.0) + F(last + 1) * width / c)
        if rings < fewest:
            best_b, best_c, fewest = b, c, rings
        c *= F(2.0)
    return a, best_b, best_c


@jit
def density(stretch, least, apart, r):
    """Return rings a pixel at radius ``r``, for an ``envelope`` of how radii are stretched.

    It is smooth, as the sum over rings has to be. Near the centre there are more: the sum begins there, where
    the light need not end, and what is lost at the beginning of a sum falls only as a power of the step.
    """
    a, b, c = stretch
    found = CLOSER * (a + b * c / (r + c)) / apart
    found = np.sqrt(found * found + least * least)
    from_centre = r * found / CENTRE_RINGS
    return found * (F(1.0) + CENTRE_MORE / (F(1.0) + from_centre * from_centre))


@jit
def next_ring(stretch, least, apart, r):
    """Return the radius one ring further on, by the classical fourth-order rule of Runge and Kutta."""
    a = F(1.0) / density(stretch, least, apart, r)
    b = F(1.0) / density(stretch, least, apart, r + F(0.5) * a)
    c = F(1.0) / density(stretch, least, apart, r + F(0.5) * b)
    d = F(1.0) / density(stretch, least, apart, r + c)
    return r + (a + F(2.0) * (b + c) + d) / F(6.0)


@jit
def polar_grid(
    kind, fields, coefficients, amplitude, radius, apart, least, origin, nodes_per_pixel, bounds, table,
    directions, middles, lit, radial, tangential, xs, ys, us, vs, weights, grid,
):  # fmt: skip
    """Fill ``grid`` with one row's light for unit flux [per node].

    Parameters
    ----------
    kind, fields
        The lens's kind and the folded row, as ``ray.source_points`` takes them.
    coefficients : float32 (rows, columns)
        The template's spline coefficients, zero for three pixels at every edge; its centre is the source's.
    amplitude : float32
        Brightness per image pixel of a coefficient of 1.
    radius : float32
        From the lens to where no light is looked for [pix].
    apart : float32
        Distance of rays in the source plane, at the most [template pix].
    least : float32
        Rays a pixel along an axis, at the least.
    origin, nodes_per_pixel : float32
        Position of node 0 [pix from the stamp's centre]; nodes a pixel.
    bounds : int64 (4,)
        Nodes that hold light: first and end in y, then in x.
    table : float32 (513 * 8,)
        Gridding weights by position, as ``adaptive.adaptive_grids`` takes them.
    directions : float32 (4, SECTORS)
        Cosine and sine of the sectors' first edges, and of their middles.
    middles : float32 (2, SECTORS)
        Scratch.
    lit, radial, tangential : uint8 (bands, SECTORS), float32 (bands,), float32 (bands,)
        Scratch; their number of bands is how closely the rings are looked at before.
    xs, ys, us, vs, weights : float32 (RAYS,)
        Scratch.
    grid : float32 (size, size)
        Output.

    Returns
    -------
    int
        Rays traced.
    """
    grid[:] = F(0.0)
    n_bands = radial.size
    half_v, half_u = F(0.5) * F(coefficients.shape[0]), F(0.5) * F(coefficients.shape[1])
    survey(
        kind, fields, radius, n_bands, half_u, half_v, directions, xs, ys, us, vs, weights, lit, radial,
        tangential,
    )  # fmt: skip
    width = radius / F(n_bands)
    stretch = envelope(radial, tangential, width)
    lens_x, lens_y = fields[0], fields[1]
    traced, count, ring, band, n_lit = 0, 0, 0, -1, 0
    r = F(0.5) / density(stretch, least, apart, F(0.0))
    while r < radius:
        rings = density(stretch, least, apart, r)
        k = min(int(r / width), n_bands - 1)
        if tangential[k] > F(0.0):
            if k != band:
                band, n_lit = k, 0
                for m in range(SECTORS):
                    if lit[k, m] != 0:
                        middles[0, n_lit], middles[1, n_lit] = directions[2, m], directions[3, m]
                        n_lit += 1
            needed = TURN * max(tangential[k] / apart, r * least)
            each = min(max(1, int(np.ceil(needed / F(SECTORS)))), RAYS)
            step = TURN / F(each * SECTORS)
            weight = amplitude * r * step / rings
            half = F(0.5) - F(0.5) * F(each)
            if ring == 0:  # the sum starts at radius 0 with a slope: the next term of Euler and Maclaurin
                weight *= F(11.0 / 12.0)
            for j in range(each):
                if count + n_lit > BATCH:
                    _add_rays(
                        kind, fields, coefficients, count, origin, nodes_per_pixel, bounds, table, xs, ys, us,
                        vs, weights, grid,
                    )  # fmt: skip
                    count = 0
                # turned from the sectors' middles by an angle so small that a short series does
                turn = (F(np.int32(j)) + half) * step
                t2 = turn * turn
                along = r * (F(1.0) - t2 * (F(0.5) - t2 * F(1.0 / 24.0)))
                beside = r * turn * (F(1.0) - t2 * (F(1.0 / 6.0) - t2 * F(1.0 / 120.0)))
                x, y, share = xs[count:], ys[count:], weights[count:]
                for m in range(n_lit):
                    x[m] = lens_x + (middles[0, m] * along - middles[1, m] * beside)
                    y[m] = lens_y + (middles[1, m] * along + middles[0, m] * beside)
                    share[m] = weight
                count += n_lit
                traced += n_lit
        r = next_ring(stretch, least, apart, r)
        ring += 1
    _add_rays(
        kind, fields, coefficients, count, origin, nodes_per_pixel, bounds, table, xs, ys, us, vs, weights,
        grid,
    )  # fmt: skip
    return traced


@jit
def _add_rays(
    kind, fields, coefficients, count, origin, nodes_per_pixel, bounds, table, xs, ys, us, vs, weights,
    grid,
):  # fmt: skip
    """Trace the rays that were gathered and put each one's light on the grid."""
    source_points(kind, fields, xs[:count], ys[:count], us[:count], vs[:count])
    side_v, side_u = coefficients.shape
    centre_u, centre_v = F(0.5) * F(side_u - 1), F(0.5) * F(side_v - 1)
    last_u, last_v = F(side_u - 3), F(side_v - 3)
    size = grid.shape[1]
    steps = F(TABLE_STEPS)
    kept = 0
    for k in range(count):  # those that meet the template move up
        u, v = us[k] + centre_u, vs[k] + centre_v
        us[kept], vs[kept], weights[kept] = u, v, weights[k]
        xs[kept], ys[kept] = (xs[k] - origin) * nodes_per_pixel, (ys[k] - origin) * nodes_per_pixel
        kept += (F(1.0) <= u) & (u < last_u) & (F(1.0) <= v) & (v < last_v)
    for k in range(kept):
        weights[k] *= spline_at(coefficients, us[k], vs[k])
    y_first, y_end, x_first, x_end = bounds[0], bounds[1], bounds[2], bounds[3]
    for k in range(kept):
        i, j = int(xs[k] + F(0.5)), int(ys[k] + F(0.5))
        if j < y_first or j >= y_end or i < x_first or i >= x_end:
            continue
        # from the node below on, the kernel reaches six nodes; the table's lines have one more at both ends
        i, j = int(xs[k]), int(ys[k])
        place_x, place_y = (xs[k] - F(i) + F(0.5)) * steps, (ys[k] - F(j) + F(0.5)) * steps
        step_x, step_y = int(place_x), int(place_y)
        spread_6(
            grid, (j - 2) * size + i - 3, size, table, REACH * step_x, place_x - F(step_x), REACH * step_y,
            place_y - F(step_y), weights[k],
        )  # fmt: skip
