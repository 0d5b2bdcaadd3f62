"""Error-controlled rendering: every cell is divided until its share of the error is within the tolerance.

A cell (one grid node wide at first) is sampled by a 2 x 2 Gauss-Legendre rule. How wrong that rule can be follows from
how fast the source's profile changes across the cell, which the ray knows: the exponent t = b_n (R/R_e)^(1/n), its
change V across the cell, and the ratio ``epsilon`` of the cell's width in the source plane to the source radius.

* Smooth light: relative error V (V + 2 epsilon)^3 / 4320, the rule's fourth-order term with the profile's curvature.
* A cell that may hold the source's centre (epsilon > 1): the central brightness times a bound on the cusp's share.
* Brightness is taken at the cell's near side, so an arc thinner than a cell that falls between the samples is seen.

A cell of width h whose bound E [per pixel area] satisfies E h <= eta * peak is accepted. Summed over a curve of cells
(an arc) or a cluster around a point (a cusp), whose number grows no faster than 1 / h, errors stay bounded.

Divided cells wait on a stack and are processed in chunks, so that all arithmetic runs in vector lanes. Sums of samples
go to the grid through a gridding kernel ("exponential of semicircle", Barnett, Magland & af Klinteberg 2019, SIAM J. Sci.
Comput. 41, C479, eq. 1.8) whose transform is divided out with the PSF: a sample keeps its exact position, where adding
it to its cell would move it to the centre.
"""

import numpy as np

from arcforge.kernels import math32
from arcforge.kernels._jit import inline, jit
from arcforge.kernels.ray import (
    F,
    TINY,
    exponent_of,
    inverse_psi_at,
    is_exponential,
    lens_frame,
    model_of,
    source_radius2,
)

GAUSS = F(0.28867513459481287)  # nodes of the two-point rule on a cell of unit width: +- 1 / (2 sqrt 3)
CHUNK = 64  # divided cells processed together: 16 samples each fill the vector lanes from level-1 cache
WIDTH = 6  # nodes a gridding kernel covers; its table holds 8 weights, for nodes -3 to +4
TABLE_STEPS = 512  # positions within a node at which the gridding kernel is tabulated
DEEPEST = 16  # a cell is then 2^-16 nodes wide


@inline
def sample(m, x, y, width, cusp, exponential):
    """Return the brightness at a sample and the bound on its cell's error, both per pixel area for unit flux.

    ``x, y`` in the lens's principal frame; ``width`` of the cell [pix]; ``cusp`` = b_n (width * stretch / 2)^(1/n).
    """
    inverse_psi = inverse_psi_at(m, x, y)
    rho2 = source_radius2(m, x, y, inverse_psi) + TINY
    t = exponent_of(m, rho2, exponential)
    magnified = max(F(1.0), m.einstein * inverse_psi - F(1.0)) + m.shear
    epsilon = magnified * (width * m.stretch) / np.sqrt(rho2)
    change = F(2.0) * m.half_inverse_n * t * epsilon
    brightness = m.central * math32.exp(-t)
    near_side = m.central * math32.exp(-max(t - F(0.6) * change, F(0.0)))
    term = change + F(2.0) * epsilon
    smooth = near_side * min(change * (term * term * term) * F(1.0 / 4320.0), F(1.0))
    peaked = m.central * min(F(0.05) * cusp * magnified, F(1.0))
    return brightness, (peaked if epsilon > F(1.0) else smooth)


@inline
def _sample_all(m, xs, ys, widths, cusps, count, offset_x, offset_y, part, exponential, values, errors):
    for k in range(count):
        x, y = lens_frame(m, xs[k] + offset_x * widths[k], ys[k] + offset_y * widths[k])
        values[k], errors[k] = sample(m, x, y, part * widths[k], cusps[k], exponential)


@jit
def sample_cells(fields, xs, ys, widths, cusps, count, offset_x, offset_y, part, values, errors):
    """Take one sample in each of ``count`` cells, at the same offset in all of them.

    ``xs, ys`` are the cells' centres [pix], offsets are in cell widths, and the sample stands for a part of the
    cell that is ``part`` cell widths wide. Compiled once: the two loops here are nearly all of the machine code.
    """
    m = model_of(fields)
    if is_exponential(m):
        _sample_all(m, xs, ys, widths, cusps, count, offset_x, offset_y, part, True, values, errors)
    else:
        _sample_all(m, xs, ys, widths, cusps, count, offset_x, offset_y, part, False, values, errors)


@jit
def _peak(flux, window, sums):
    """Return the largest mean of ``flux`` over ``window`` x ``window`` nodes; ``sums`` is scratch of its shape."""
    n_y, n_x = flux.shape
    before = window // 2
    peak = F(0.0)
    for j in range(n_y):
        for i in range(n_x):
            sums[j, i] = F(0.0)
        for k in range(max(0, j - before), min(n_y, j - before + window)):
            for i in range(n_x):
                sums[j, i] += flux[k, i]
    for j in range(n_y):
        for i in range(n_x):
            total = F(0.0)
            for k in range(max(0, i - before), min(n_x, i - before + window)):
                total += sums[j, k]
            peak = max(peak, total)
    return peak / F(window * window)


@jit
def _spread_first(values, stencil, bounds, rows, grid):
    """Add first-level samples to the grid: their positions within a node are fixed, so a separable stencil does."""
    n_y, n_x = values.shape[1], values.shape[2]
    for j in range(n_y):
        for a in range(2):
            row = rows[a]
            for i in range(n_x + 6):
                row[i] = F(0.0)
            for o in range(7):
                w_low, w_high = stencil[0, o], stencil[1, o]
                for i in range(n_x):
                    row[i + o] += w_low * values[2 * a, j, i] + w_high * values[2 * a + 1, j, i]
        for o in range(7):
            w_low, w_high = stencil[0, o], stencil[1, o]
            target = grid[bounds[0] + j + o - 3]
            first = bounds[2] - 3
            for i in range(n_x + 6):
                target[first + i] += w_low * rows[0, i] + w_high * rows[1, i]


@inline
def _lattice(b):
    """Return the offset of sample ``b`` of the four along an axis of a divided cell, in its widths."""
    return F(0.5) * (GAUSS if b % 2 else -GAUSS) + (F(0.25) if b > 1 else F(-0.25))


@inline
def _weights(table, position, out):
    """Write the gridding weights of nodes -3 to +4 for a sample at ``position`` (-0.5 to 0.5) within its node."""
    place = (position + F(0.5)) * F(TABLE_STEPS)
    step = min(np.int32(place), np.int32(TABLE_STEPS - 1))
    part = place - F(step)
    for o in range(8):
        out[o] = table[step, o] + part * (table[step + 1, o] - table[step, o])


@jit
def _spread_cell(values, k, node_y, node_x, at_y, at_x, width, table, weights, grid):
    """Add the 4 x 4 samples of divided cell ``k`` to the grid; ``at_y, at_x, width`` in nodes from its node."""
    across, up, rows = weights[0:4], weights[4:8], weights[8:12]
    for b in range(4):
        _weights(table, at_x + _lattice(b) * width, across[b])
        _weights(table, at_y + _lattice(b) * width, up[b])
    for a in range(4):
        for o in range(8):
            total = F(0.0)
            for b in range(4):
                total += values[4 * a + b, k] * across[b, o]
            rows[a, o] = total
    for r in range(7):
        target = grid[node_y + r - 3]
        for o in range(8):
            total = F(0.0)
            for a in range(4):
                total += up[a, r] * rows[a, o]
            target[node_x - 3 + o] += total


@jit
def adaptive_grid(
    fields, eta, window, boxed, origin, nodes_per_pixel, bounds, table, stencil, first, stack_place, stack_node,
    lines, parts, part_errors, nodes, weights, grid, report,
):  # fmt: skip
    """Fill ``grid`` with one row's light for unit flux [per node], every cell within the tolerance.

    Parameters
    ----------
    fields : float32 (22,)
        The folded row.
    eta : float32
        Tolerance of a cell, as a fraction of the image's peak.
    window : int
        Nodes over which light is averaged to estimate that peak: the PSF's width.
    boxed : bool
        Add samples to their own node (no PSF) instead of spreading them.
    origin, nodes_per_pixel, bounds
        As in ``engine.layout``.
    table, stencil : float32 (513, 8), (2, 7)
        Gridding weights by position, and those of the first level's two positions.
    first : float32 (>= 7 * cells,)
        Scratch: four samples, the bound and two more values of every first-level cell.
    stack_place, stack_node : float32 (capacity, 4), int32 (capacity, 3)
        Scratch: centre, width and cusp of waiting cells; their node in y and x, and level.
    lines : float32 (5, >= max(cells in x + 6, 64)), parts, part_errors : float32 (16, 64)
    nodes : int32 (3, 64), weights : float32 (12, 8)
        Scratch.
    grid : float32 (size, size)
        Output.
    report : float64 (3,)
        Output: samples taken, cells divided, and the bound on the relative error of the convolved image.
    """
    m = model_of(fields)
    grid[:] = F(0.0)
    report[:] = 0.0
    n_y, n_x = bounds[1] - bounds[0], bounds[3] - bounds[2]
    if n_y <= 0 or n_x <= 0:
        return
    cells = n_y * n_x
    values = first[: 4 * cells].reshape((4, n_y, n_x))
    errors = first[4 * cells : 5 * cells].reshape((n_y, n_x))
    flux = first[5 * cells : 6 * cells].reshape((n_y, n_x))
    sums = first[6 * cells : 7 * cells].reshape((n_y, n_x))
    width = F(1.0) / F(nodes_per_pixel)
    x_first = F(origin) + F(bounds[2]) * width
    y_first = F(origin) + F(bounds[0]) * width
    inverse_n = F(2.0) * m.half_inverse_n
    cusp = m.b_n * math32.exp(inverse_n * math32.log(F(0.5) * width * m.stretch))

    xs, ys, widths, cusps, line_errors = lines[0], lines[1], lines[2], lines[3], lines[4]
    for i in range(n_x):
        xs[i] = x_first + F(i) * width
        widths[i] = width
        cusps[i] = cusp
    for j in range(n_y):
        for i in range(n_x):
            ys[i] = y_first + F(j) * width
            errors[j, i] = F(0.0)
        for a in range(4):
            dx, dy = GAUSS if a % 2 else -GAUSS, GAUSS if a > 1 else -GAUSS
            sample_cells(fields, xs, ys, widths, cusps, n_x, dx, dy, F(1.0), values[a, j], line_errors)
            for i in range(n_x):
                errors[j, i] += F(0.25) * line_errors[i]

    # The peak, from what has been seen; a sample on a cusp may not claim more than the source's whole flux there.
    most = F(2.0) / (width * width)
    for j in range(n_y):
        for i in range(n_x):
            total = F(0.0)
            for a in range(4):
                total += min(values[a, j, i], most)
            flux[j, i] = F(0.25) * total
    peak = max(_peak(flux, window, sums), TINY)
    limit = eta * peak

    waiting = 0
    area = width * width
    for j in range(n_y):
        for i in range(n_x):
            if errors[j, i] * width > limit:
                stack_place[waiting, 0] = x_first + F(i) * width
                stack_place[waiting, 1] = y_first + F(j) * width
                stack_place[waiting, 2] = width
                stack_place[waiting, 3] = cusp
                stack_node[waiting, 0] = bounds[0] + j
                stack_node[waiting, 1] = bounds[2] + i
                stack_node[waiting, 2] = 0
                waiting += 1
                errors[j, i] = F(0.0)
                for a in range(4):
                    values[a, j, i] = F(0.0)
            else:
                for a in range(4):
                    values[a, j, i] *= F(0.25) * area
                errors[j, i] *= area
    samples = 4 * cells
    divided = waiting
    if boxed:
        for j in range(n_y):
            for i in range(n_x):
                total = F(0.0)
                for a in range(4):
                    total += values[a, j, i]
                grid[bounds[0] + j, bounds[2] + i] = total
    else:
        _spread_first(values, stencil, bounds, lines, grid)

    finer = math32.exp(-inverse_n * F(0.6931471805599453))
    while waiting > 0:
        count = min(CHUNK, waiting)
        waiting -= count
        base = waiting
        for k in range(count):
            xs[k] = stack_place[base + k, 0]
            ys[k] = stack_place[base + k, 1]
            widths[k] = stack_place[base + k, 2]
            cusps[k] = stack_place[base + k, 3] * finer
            for c in range(3):
                nodes[c, k] = stack_node[base + k, c]
        for s in range(16):
            sample_cells(
                fields, xs, ys, widths, cusps, count, _lattice(s % 4), _lattice(s // 4), F(0.5), parts[s],
                part_errors[s],
            )  # fmt: skip
        samples += 16 * count
        for k in range(count):
            node_y, node_x, level = nodes[0, k], nodes[1, k], nodes[2, k]
            half = F(0.5) * widths[k]
            part_area = half * half
            for c in range(4):
                top = 8 * (c // 2) + 2 * (c % 2)
                error = F(0.25) * (
                    part_errors[top, k] + part_errors[top + 1, k] + part_errors[top + 4, k] + part_errors[top + 5, k]
                )
                if error * half > limit and level + 1 < DEEPEST:
                    stack_place[waiting, 0] = xs[k] + (F(0.25) if c % 2 else F(-0.25)) * widths[k]
                    stack_place[waiting, 1] = ys[k] + (F(0.25) if c > 1 else F(-0.25)) * widths[k]
                    stack_place[waiting, 2] = half
                    stack_place[waiting, 3] = cusps[k]
                    stack_node[waiting, 0] = node_y
                    stack_node[waiting, 1] = node_x
                    stack_node[waiting, 2] = level + 1
                    waiting += 1
                    divided += 1
                    weight = F(0.0)
                else:
                    weight = F(0.25) * part_area
                    errors[node_y - bounds[0], node_x - bounds[2]] += error * part_area
                parts[top, k] *= weight
                parts[top + 1, k] *= weight
                parts[top + 4, k] *= weight
                parts[top + 5, k] *= weight
            if boxed:
                total = F(0.0)
                for s in range(16):
                    total += parts[s, k]
                grid[node_y, node_x] += total
            else:
                at_x = (xs[k] - F(origin)) * F(nodes_per_pixel) - F(node_x)
                at_y = (ys[k] - F(origin)) * F(nodes_per_pixel) - F(node_y)
                _spread_cell(
                    parts, k, node_y, node_x, at_y, at_x, widths[k] * F(nodes_per_pixel), table,
                    weights, grid,
                )  # fmt: skip
    report[0] = samples
    report[1] = divided
    report[2] = _peak(errors, window, sums) / (area * peak)
