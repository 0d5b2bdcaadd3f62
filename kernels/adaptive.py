"""Error-controlled rendering: every cell is divided until its share of the error is within the tolerance.

A cell (two grid nodes wide at first) is sampled by a 2 x 2 Gauss-Legendre rule. How wrong that rule can be
follows from how fast the source's profile changes across the cell, which the ray knows: the exponent t = b_n
(R/R_e)^(1/n), its change V across the cell, and the ratio ``epsilon`` of the cell's width in the source plane
to the source radius.

* Smooth light: relative error V (V + c epsilon)^3 / 4320, the rule's fourth-order term, with c = max(2, 2/n)
  for the profile's curvature.
* A cell that may hold the source's centre (epsilon > 1): the central brightness times a bound on the cusp's
  share.
* Brightness is taken at the cell's near side, so an arc thinner than a cell that falls between the samples is
  seen.

A cell of width h whose bound E [per pixel area] satisfies E h <= eta * peak is accepted. Summed over a curve
of cells (an arc) or a cluster around a point (a cusp), whose number grows no faster than 1 / h, errors stay
bounded.

Divided cells wait on a stack and are processed in chunks, so that all arithmetic runs in vector lanes. Sums
of samples go to the grid through a gridding kernel ("exponential of semicircle", Barnett, Magland & af
Klinteberg 2019, SIAM J. Sci. Comput. 41, C479, eq. 1.8) whose transform is divided out with the PSF: a sample
keeps its exact position, where adding it to its cell would move it to the centre.
"""

import numpy as np

from arcforge.kernels import math32
from arcforge.kernels._jit import inline, jit
from arcforge.kernels.ray import (
    TINY,
    F,
    exponent_of,
    inverse_psi_at,
    is_exponential,
    lens_frame,
    model_of,
    source_radius2,
)

GAUSS = F(0.28867513459481287)  # nodes of the two-point rule on a cell of unit width: +- 1 / (2 sqrt 3)
CHUNK = 64  # divided cells processed together: 16 samples each fill the vector lanes from level-1 cache
BASE = 2  # nodes a first cell is wide
WIDTH = 6  # nodes a gridding kernel covers
# A sample within a first cell reaches eight nodes, -3 to +4 from the cell's lower one: a row of the table,
# which holds this many positions a node.
REACH = 8
TABLE_STEPS = 256
LANES = 8  # cells sampled together: a 256-bit vector of float32
DEEPEST = 18  # a cell is then 2^-17 nodes wide


@inline
def sample(m, x, y, width, cusp, exponential):
    """Return the brightness at a sample and the bound on its cell's error, both per pixel area for unit flux.

    ``x, y`` in the lens's principal frame; ``width`` of the cell [pix]; ``cusp`` = b_n (width * stretch /
    2)^(1/n).
    """
    inverse_psi = inverse_psi_at(m, x, y)
    rho2 = source_radius2(m, x, y, inverse_psi) + TINY
    t = exponent_of(m, rho2, exponential)
    magnified = max(F(1.0), m.einstein * inverse_psi - F(1.0)) + m.shear
    epsilon = magnified * (width * m.stretch) / np.sqrt(rho2)
    change = F(2.0) * m.half_inverse_n * t * epsilon
    brightness = m.central * math32.exp(-t)
    # e^(0.6 change) from below, as a power: an exact exponential here would cost an eighth of the ray
    gain = F(1.0) + F(0.6 / 16.0) * change
    gain *= gain
    gain *= gain
    gain *= gain
    gain *= gain
    near_side = min(brightness * gain, m.central)
    term = change + max(F(2.0), F(4.0) * m.half_inverse_n) * epsilon
    smooth = near_side * min(change * (term * term * term) * F(1.0 / 4320.0), F(1.0))
    peaked = m.central * min(F(0.05) * cusp * magnified, F(1.0))
    return brightness, (peaked if epsilon > F(1.0) else smooth)


@inline
def _sample_all(m, xs, ys, count, dx, dy, width, cusp, exponential, values, errors):
    for k in range((count + LANES - 1) // LANES * LANES):
        x, y = lens_frame(m, xs[k] + dx, ys[k] + dy)
        values[k], errors[k] = sample(m, x, y, width, cusp, exponential)


@jit
def sample_cells(fields, xs, ys, count, dx, dy, width, cusp, values, errors):
    """Take one sample in each of ``count`` cells of one width, ``(dx, dy)`` from their centres ``xs, ys``.

    Compiled once: the two loops here are nearly all of the machine code. Four arrays and no more: with six
    the compiler gives up proving that they do not overlap, and with it the vector lanes (4 times slower). The
    count is rounded up to whole vectors, since the scalar rays of a remainder would cost three times the
    rest: all arrays have room for, and ``xs, ys`` hold finite values up to, the next multiple of LANES.
    """
    m = model_of(fields)
    if is_exponential(m):
        _sample_all(m, xs, ys, count, dx, dy, width, cusp, True, values, errors)
    else:
        _sample_all(m, xs, ys, count, dx, dy, width, cusp, False, values, errors)


@jit
def _peak(flux, window, sums, line, best):
    """Return the largest mean of ``flux`` over ``window`` x ``window`` cells; the others are scratch."""
    n_y, n_x = flux.shape
    before = window // 2
    for i in range(n_x):
        best[i] = F(0.0)
    for j in range(n_y):
        target = sums[j]
        for i in range(n_x):
            target[i] = F(0.0)
        for k in range(max(0, j - before), min(n_y, j - before + window)):
            source = flux[k]
            for i in range(n_x):
                target[i] += source[i]
    for j in range(n_y):
        for i in range(n_x):
            line[i] = F(0.0)
        for k in range(window):
            offset = k - before
            low, high = max(0, -offset), min(n_x, n_x - offset)
            if high > low:
                shifted = sums[j, low + offset : high + offset]
                target = line[low:high]
                for i in range(high - low):
                    target[i] += shifted[i]
        for i in range(n_x):
            best[i] = max(best[i], line[i])
    peak = F(0.0)
    for i in range(n_x):
        peak = max(peak, best[i])
    return peak / F(window * window)


@jit
def _spread_first(values, stencil, bounds, lines, grid):
    """Add first cells' samples to the grid: their positions in a cell are fixed, so a separable stencil does.

    Cells are two nodes apart, so even and odd nodes have stencils of their own, four cells wide each.
    """
    n_y, n_x = values.shape[1], values.shape[2]
    low, high = lines[0], lines[1]
    for j in range(n_y):
        for a in range(2):
            across = lines[2 + a]
            for i in range(3):
                low[i] = high[i] = low[n_x + 3 + i] = high[n_x + 3 + i] = F(0.0)
            left, right = values[2 * a, j], values[2 * a + 1, j]
            inner_low, inner_high = low[3:], high[3:]
            for i in range(n_x):
                inner_low[i] = left[i]
                inner_high[i] = right[i]
            for phase in range(2):
                w0, w1, w2, w3 = (
                    stencil[0, phase],
                    stencil[0, phase + 2],
                    stencil[0, phase + 4],
                    stencil[0, phase + 6],
                )
                v0, v1, v2, v3 = (
                    stencil[1, phase],
                    stencil[1, phase + 2],
                    stencil[1, phase + 4],
                    stencil[1, phase + 6],
                )
                for i in range(n_x + 3):
                    across[2 * i + phase] = (
                        w0 * low[i + 3] + w1 * low[i + 2] + w2 * low[i + 1] + w3 * low[i]
                        + v0 * high[i + 3] + v1 * high[i + 2] + v2 * high[i + 1] + v3 * high[i]
                    )  # fmt: skip
        first, count = bounds[2] - 3, 2 * n_x + 6
        lower, upper = lines[2], lines[3]
        for o in range(REACH):
            w_low, w_high = stencil[0, o], stencil[1, o]
            target = grid[bounds[0] + BASE * j + o - 3, first : first + count]
            for i in range(count):
                target[i] += w_low * lower[i] + w_high * upper[i]


@inline
def _lattice(b):
    """Return the offset of sample ``b`` of the four along an axis of a divided cell, in its widths."""
    return F(0.5) * (GAUSS if b % 2 else -GAUSS) + (F(0.25) if b > 1 else F(-0.25))


@inline
def _weights(table, position, out):
    """Write the gridding weights of a sample at ``position`` [nodes from the cell's lower node]."""
    place = (position + F(0.5)) * F(TABLE_STEPS)
    step = min(np.int32(place), np.int32(BASE * TABLE_STEPS - 1))
    part = place - F(step)
    before, after = table[step], table[step + 1]
    for o in range(REACH):
        out[o] = before[o] + part * (after[o] - before[o])


@jit
def _spread_cells(values, count, nodes, xs, ys, origin, nodes_per_pixel, width, table, weights, grid):
    """Add the 4 x 4 samples of each divided cell to the grid; ``width`` of the cells in nodes."""
    for k in range(count):
        at_x = (xs[k] - origin) * nodes_per_pixel - F(nodes[1, k])
        at_y = (ys[k] - origin) * nodes_per_pixel - F(nodes[0, k])
        for b in range(4):
            _weights(table, at_x + _lattice(b) * width, weights[b])
            _weights(table, at_y + _lattice(b) * width, weights[4 + b])
        for a in range(4):
            v0, v1, v2, v3 = (
                values[4 * a, k],
                values[4 * a + 1, k],
                values[4 * a + 2, k],
                values[4 * a + 3, k],
            )
            for o in range(REACH):
                weights[8 + a, o] = (
                    v0 * weights[0, o] + v1 * weights[1, o] + v2 * weights[2, o] + v3 * weights[3, o]
                )
        first = nodes[1, k] - 3
        for r in range(REACH):
            u0, u1, u2, u3 = weights[4, r], weights[5, r], weights[6, r], weights[7, r]
            target = grid[nodes[0, k] + r - 3, first : first + REACH]
            for o in range(REACH):
                target[o] += (
                    u0 * weights[8, o] + u1 * weights[9, o] + u2 * weights[10, o] + u3 * weights[11, o]
                )


@jit
def _add_to_pixels(values, count, nodes, xs, ys, origin, nodes_per_pixel, width, grid):
    """Add the samples of each divided cell to the nodes they lie in (no PSF: nodes are pixels).

    The last cells reach over the stamp's edge by a node where the lit nodes are odd in number: light beyond
    it is left out, there is no PSF that could bring it back.
    """
    for k in range(count):
        for a in range(4):
            j = int(np.floor((ys[k] - origin) * nodes_per_pixel + _lattice(a) * width + F(0.5)))
            for b in range(4):
                i = int(np.floor((xs[k] - origin) * nodes_per_pixel + _lattice(b) * width + F(0.5)))
                if 0 <= j < grid.shape[0] and 0 <= i < grid.shape[1]:
                    grid[j, i] += values[4 * a + b, k]


@jit
def adaptive_grid(
    fields, eta, floor, window, boxed, estimate, origin, nodes_per_pixel, bounds, table, stencil, first,
    stack_place, stack_node, lines, parts, part_errors, nodes, weights, grid, report,
):  # fmt: skip
    """Fill ``grid`` with one row's light for unit flux [per node], every cell within the tolerance.

    Parameters
    ----------
    fields : float32 (22,)
        The folded row.
    eta : float32
        Tolerance of a cell, as a fraction of the image's peak.
    floor : float32
        What that peak is at least [1 / pix], whatever the first samples show: they may all miss a tiny
        source.
    window : int
        First cells over which light is averaged to estimate that peak: the PSF's width.
    boxed : bool
        Add samples to their own node (no PSF) instead of spreading them; every first cell is divided then.
    estimate : bool
        Also sum up the accepted cells' bounds.
    origin, nodes_per_pixel : float32
        Position of node 0 [pix from the stamp's centre]; nodes a pixel.
    bounds : int64 (4,)
        Nodes that hold light: first and end in y, then in x; an even number of each.
    table, stencil : float32 (513, 8), (2, 8)
        Gridding weights by position, and those of a first cell's two positions.
    first : float32 (>= 7 * cells,)
        Scratch: four samples, the bound and two more values of every first cell.
    stack_place, stack_node : float32 (capacity, 2), int32 (capacity, 3)
        Scratch: centre of waiting cells; lower node (y, x) of their first cell, how often they were divided.
    lines : float32 (4, >= max(nodes in x + 12, 64)), parts, part_errors : float32 (16, 64)
    nodes : int32 (2, 64), weights : float32 (12, 8)
        Scratch.
    grid : float32 (size, size)
        Output.
    report : float64 (3,)
        Output: samples taken, cells divided, and the bound on the relative error of the convolved image.
    """
    m = model_of(fields)
    grid[:] = F(0.0)
    report[:] = 0.0
    n_y, n_x = (bounds[1] - bounds[0]) // BASE, (bounds[3] - bounds[2]) // BASE
    if n_y <= 0 or n_x <= 0:
        return
    cells = n_y * n_x
    values = first[: 4 * cells].reshape((4, n_y, n_x))
    errors = first[4 * cells : 5 * cells].reshape((n_y, n_x))
    flux = first[5 * cells : 6 * cells].reshape((n_y, n_x))
    sums = first[6 * cells : 7 * cells].reshape((n_y, n_x))
    width = F(BASE) / nodes_per_pixel
    x_first = origin + (F(bounds[2]) + F(0.5 * (BASE - 1))) / nodes_per_pixel
    y_first = origin + (F(bounds[0]) + F(0.5 * (BASE - 1))) / nodes_per_pixel
    inverse_n = F(2.0) * m.half_inverse_n
    cusp = m.b_n * math32.exp(inverse_n * math32.log(F(0.5) * width * m.stretch))
    area = width * width
    # a sample on a cusp may not claim more than twice the source's whole flux for its cell
    most = F(2.0) / area

    xs, ys, line_values, line_errors = lines[0], lines[1], lines[2], lines[3]
    for i in range(n_x + LANES):
        xs[i] = x_first + F(i) * width
    for j in range(n_y):
        error_line, flux_line = errors[j], flux[j]
        for i in range(n_x + LANES):
            ys[i] = y_first + F(j) * width
        for i in range(n_x):
            error_line[i] = flux_line[i] = F(0.0)
        for a in range(4):
            dx = (GAUSS if a % 2 else -GAUSS) * width
            dy = (GAUSS if a > 1 else -GAUSS) * width
            value_line = values[a, j]
            sample_cells(fields, xs, ys, n_x, dx, dy, width, cusp, line_values, line_errors)
            for i in range(n_x):
                value_line[i] = line_values[i]
                error_line[i] += F(0.25) * line_errors[i]
                flux_line[i] += F(0.25) * min(line_values[i], most)
    peak = max(_peak(flux, window, sums, lines[0], lines[1]), floor)
    limit = eta * peak

    waiting = 0
    for j in range(n_y):
        for i in range(n_x):
            if boxed or errors[j, i] * width > limit:
                stack_place[waiting, 0] = x_first + F(i) * width
                stack_place[waiting, 1] = y_first + F(j) * width
                stack_node[waiting, 0] = bounds[0] + BASE * j
                stack_node[waiting, 1] = bounds[2] + BASE * i
                stack_node[waiting, 2] = 0
                waiting += 1
                errors[j, i] = F(0.0)
                for a in range(4):
                    values[a, j, i] = F(0.0)
            else:
                errors[j, i] *= area
                for a in range(4):
                    values[a, j, i] *= F(0.25) * area
    samples = 4 * cells
    divided = waiting
    if not boxed:
        _spread_first(values, stencil, bounds, lines, grid)

    # Parts are pushed after every cell of their parents' generation: the top of the stack is of one
    # generation.
    while waiting > 0:
        level = stack_node[waiting - 1, 2]
        count = 0
        while count < CHUNK and waiting > 0 and stack_node[waiting - 1, 2] == level:
            waiting -= 1
            xs[count], ys[count] = stack_place[waiting, 0], stack_place[waiting, 1]
            nodes[0, count], nodes[1, count] = stack_node[waiting, 0], stack_node[waiting, 1]
            count += 1
        for k in range(count, min(CHUNK, count + LANES)):
            xs[k], ys[k] = xs[0], ys[0]
        whole = width / F(1 << level)
        half = F(0.5) * whole
        cusp = m.b_n * math32.exp(inverse_n * math32.log(F(0.5) * half * m.stretch))
        for s in range(16):
            sample_cells(
                fields, xs, ys, count, whole * _lattice(s % 4), whole * _lattice(s // 4), half, cusp,
                parts[s], part_errors[s],
            )  # fmt: skip
        samples += 16 * count
        last = level + 1 >= DEEPEST
        weight = F(0.25) * half * half
        for c in range(4):
            top = 8 * (c // 2) + 2 * (c % 2)
            p0, p1, p2, p3 = parts[top], parts[top + 1], parts[top + 4], parts[top + 5]
            e0, e1, e2, e3 = (
                part_errors[top],
                part_errors[top + 1],
                part_errors[top + 4],
                part_errors[top + 5],
            )
            dx = (F(0.25) if c % 2 else F(-0.25)) * whole
            dy = (F(0.25) if c > 1 else F(-0.25)) * whole
            for k in range(count):
                error = F(0.25) * (e0[k] + e1[k] + e2[k] + e3[k])
                kept = weight
                if error * half > limit and not last:
                    stack_place[waiting, 0] = xs[k] + dx
                    stack_place[waiting, 1] = ys[k] + dy
                    stack_node[waiting, 0] = nodes[0, k]
                    stack_node[waiting, 1] = nodes[1, k]
                    stack_node[waiting, 2] = level + 1
                    waiting += 1
                    divided += 1
                    kept = F(0.0)
                elif estimate:
                    errors[(nodes[0, k] - bounds[0]) // BASE, (nodes[1, k] - bounds[2]) // BASE] += (
                        error * half * half
                    )
                p0[k] *= kept
                p1[k] *= kept
                p2[k] *= kept
                p3[k] *= kept
        if boxed:
            _add_to_pixels(
                parts, count, nodes, xs, ys, origin, nodes_per_pixel, whole * nodes_per_pixel, grid
            )
        else:
            _spread_cells(
                parts,
                count,
                nodes,
                xs,
                ys,
                origin,
                nodes_per_pixel,
                whole * nodes_per_pixel,
                table,
                weights,
                grid,
            )
    report[0] = samples
    report[1] = divided
    if estimate:
        report[2] = _peak(errors, window, sums, lines[0], lines[1]) / (area * peak)
