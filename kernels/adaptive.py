"""Error-controlled rendering: every cell is divided until its share of the error is within the tolerance.

A cell (two grid nodes wide at first) is sampled by a 2 x 2 Gauss-Legendre rule. How wrong that rule can be
follows from how fast the source's profile changes across the cell, which the ray knows: the exponent t = b_n
(R/R_e)^(1/n), its change V across the cell, and the ratio ``epsilon`` of the cell's width in the source plane
to the source radius.

* Smooth light: relative error V (V + c epsilon)^3 / 4320, the rule's fourth-order term, with c = max(2, 2/n)
  for the profile's curvature.
* A cell that may hold the source's centre, or that the lens spreads over as much (epsilon > 1): the central
  brightness times a bound on what the profile changes from there, b_n (width / 2)^(1/n).
* Brightness is taken at the cell's near side, so an arc thinner than a cell that falls between the samples is
  seen.

A cell of width h whose bound E [per pixel area] satisfies E h <= eta * peak is accepted. Summed over a curve
of cells (an arc) or a cluster around a point (a cusp), whose number grows no faster than 1 / h, errors stay
bounded.

Divided cells wait on a stack and are processed in chunks, so that all arithmetic runs in vector lanes. How
samples go from cells to the grid: ``spread.py``.
"""

import numpy as np

from arcforge.kernels import math32
from arcforge.kernels._jit import inline, jit
from arcforge.kernels.lanes import LANES
from arcforge.kernels.lenses import lens_of
from arcforge.kernels.ray import (
    N_FIELDS,
    TINY,
    F,
    brightness_of,
    exponent_of,
    is_exponential,
    lens_frame,
    model_of,
    source_coordinates,
)
from arcforge.kernels.spread import (
    BASE,
    GAUSS,
    add_to_pixels,
    largest_mean,
    lattice,
    spread_cells,
    spread_first,
)

CHUNK = 64  # divided cells processed together: their samples fit the level-1 cache
# Light is lost where float32 adds cells that are far fainter than what is there already: after so many they
# are gathered on a grid of their own. A ring that took a million cells had lost 3e-4 of its light.
TOGETHER = 2048
# The bound takes the lens's map for smooth, and where a weak lens stands in light it has a kink: cells about
# the lens are divided so often where the tolerance is small. Left alone, they were off by 1.5e-4 of the peak.
KINKED = 4
DEEPEST = 18  # a cell is then 2^-17 nodes wide
LN2 = F(0.6931471805599453)
DARK = F(100.0)  # powers of two below the central brightness: nothing that is seen


@inline
def bounded(m, rho2, magnified, exponent, width, cusp, exponential):
    """Return the brightness at a sample and the bound on its cell's error, both per pixel area for unit flux.

    ``width`` of the cell times ``stretch``; ``cusp`` = b_n (width / 2)^(1/n); ``exponent`` counts for n != 1.
    """
    inverse_rho = F(1.0) / np.sqrt(rho2)
    epsilon = magnified * width * inverse_rho
    if exponential:  # one root for both
        exponent = m.steepness * (rho2 * inverse_rho)
    brightness = brightness_of(m, exponent)
    change = (F(2.0) * LN2 * m.half_inverse_n) * exponent * epsilon
    # e^(0.6 change) from below, as a power: an exact exponential here would cost an eighth of the ray
    gain = F(1.0) + F(0.6 / 16.0) * change
    gain *= gain
    gain *= gain
    gain *= gain
    gain *= gain
    near_side = min(brightness * gain, m.central)
    term = change + max(F(2.0), F(4.0) * m.half_inverse_n) * epsilon
    smooth = near_side * min(change * (term * term * term) * F(1.0 / 4320.0), F(1.0))
    # Where the profile falls off like a wall (n < 1, far out) the power outgrows what a float32 can be small;
    # the near side's exponent itself tells that nothing is there. A product that no infinity turns into NaN.
    if exponent * (F(1.0) - F(1.2) * m.half_inverse_n * epsilon) > DARK:
        smooth = F(0.0)
    # cusp times magnified^(1/n), from above
    grown = magnified
    if not exponential:
        grown *= magnified if m.half_inverse_n > F(0.5) else F(1.0)
        grown *= magnified if m.half_inverse_n > F(1.0) else F(1.0)
    # of neighbours in a nearly flat disk (n < 1/2) the errors add up
    share = F(0.12) if m.half_inverse_n > F(1.0) else F(0.05)
    peaked = m.central * min(share * cusp * grown, F(1.0))
    return brightness, (peaked if epsilon > F(1.0) else smooth)


@inline
def _sample_all(
    m, kind, lens, xs, ys, count, width, cusp, exponential, value_scale, error_scale, values, errors
):  # fmt: skip
    # Several loops, through the arrays: one would be a chain of operations so long that the processor could
    # not begin a ray before the last is nearly done; it takes a third more time.
    for k in range(count):
        x, y = lens_frame(m, xs[k], ys[k])
        u, v, magnified = source_coordinates(m, kind, lens, x, y)
        values[k], errors[k] = u * u + v * v + TINY, magnified + m.shear
    if not exponential:
        for k in range(count):
            ys[k] = exponent_of(m, values[k], exponential)
    for k in range(count):
        brightness, error = bounded(m, values[k], errors[k], ys[k], width, cusp, exponential)
        values[k], errors[k] = value_scale * brightness, error_scale * error


@jit
def sample_cells(kind, fields, xs, ys, count, width, value_scale, error_scale, values, errors):
    """Take ``count`` samples at ``xs, ys`` [pix], each in a cell of that width [pix]: its brightness and the
    bound on its cell's error, times a scale each. ``ys`` is overwritten.

    Compiled once: the two loops here are nearly all of the machine code. Four arrays and no more: with six
    the compiler gives up proving that they do not overlap, and with it the vector lanes (4 times slower). The
    count is a multiple of LANES, since the scalar rays of a remainder would cost three times the rest.
    """
    m, lens = model_of(fields), lens_of(kind, fields[N_FIELDS:])
    width *= m.stretch
    inverse_n = F(2.0) * m.half_inverse_n
    cusp = LN2 * m.steepness * math32.exp2(inverse_n * math32.log2(F(0.5) * width))
    if is_exponential(m):
        _sample_all(
            m, kind, lens, xs, ys, count, width, cusp, True, value_scale, error_scale, values, errors
        )  # fmt: skip
    else:
        _sample_all(
            m, kind, lens, xs, ys, count, width, cusp, False, value_scale, error_scale, values, errors
        )  # fmt: skip


@jit
def adaptive_grids(
    kind, fields, eta, floor, window, boxed, estimate, origin, nodes_per_pixel, bounds, table, stencil, first,
    stack_place, stack_node, lines, samples, cells, nodes, weights, part, grids, reports,
):  # fmt: skip
    """Fill ``grids`` with rows' light for unit flux [per node], every cell within the tolerance.

    Parameters
    ----------
    kind : NamedTuple
        Lens model of all rows, one of ``lenses.LENSES``.
    fields : float32 (k, n)
        The folded rows.
    eta : float32 (k,)
        Tolerance of a cell, as a fraction of the image's peak.
    floor : float32 (k,)
        What that peak is at least [1 / pix], whatever the first samples show: they may all miss a tiny
        source.
    window : int64 (k,)
        First cells over which light is averaged to estimate that peak: the PSF's width.
    boxed : bool
        Add samples to their own node (no PSF) instead of spreading them; every first cell is divided then.
    estimate : bool
        Also sum up the accepted cells' bounds.
    origin, nodes_per_pixel : float32
        Position of node 0 [pix from the stamp's centre]; nodes a pixel.
    bounds : int64 (k, 4)
        Nodes that hold light: first and end in y, then in x; an even number of each.
    table, stencil : float32 (513 * 8,), (2, 8)
        Gridding weights by position, and those of a first cell's two positions.
    first : float32 (>= 7 * first cells of any row,)
        Scratch: four samples, the bound and two more values of every first cell.
    stack_place, stack_node : float32 (capacity, 2), int32 (capacity, 3)
        Scratch: centre of waiting cells; lower node (y, x) of their first cell, how often they were divided.
    lines : float32 (4, >= nodes in x + 12)
    samples : float32 (4, >= max(16 * CHUNK, 2 * nodes in x + 4 * LANES))
        Scratch: places, values and errors of the samples taken at once.
    cells : float32 (2, CHUNK), nodes : int32 (5, CHUNK), weights : float32 (64,)
        Scratch.
    part : float32 (size, size)
        Scratch.
    grids : float32 (k, size, size)
        Output.
    reports : float64 (k, 3)
        Output: samples taken, cells divided, and the bound on the relative error of the convolved image.
    """
    width = F(BASE) / nodes_per_pixel
    area = width * width
    edge = origin + F(0.5 * (BASE - 1)) / nodes_per_pixel
    for row in range(grids.shape[0]):
        grid, report, y_node, x_node = grids[row], reports[row], bounds[row, 0], bounds[row, 2]
        # loops: an assignment to a slice takes a quarter of a second more to compile
        for j in range(grid.shape[0]):
            for i in range(grid.shape[1]):
                grid[j, i] = F(0.0)
        for k in range(report.size):
            report[k] = 0.0
        n_y, n_x = (bounds[row, 1] - y_node) // BASE, (bounds[row, 3] - x_node) // BASE
        if n_y <= 0 or n_x <= 0:
            continue
        held = first[: 7 * n_y * n_x].reshape(7, n_y, n_x)
        errors, flux, sums = held[4], held[5], held[6]
        x_first, y_first = edge + F(x_node) / nodes_per_pixel, edge + F(y_node) / nodes_per_pixel
        sample_first(kind, fields[row], x_first, y_first, width, samples, held, errors, flux)
        peak = max(largest_mean(flux, window[row], sums, lines[0], lines[1]), floor[row])
        limit = eta[row] * peak
        kink = F(0.75) * width if eta[row] < F(1e-3) else F(0.0)
        waiting = accept_first(
            fields[row], F(-1.0) if boxed else limit, kink, width, x_first, y_first, y_node, x_node, held,
            stack_place, stack_node,
        )  # fmt: skip
        report[0] = 4 * n_y * n_x
        report[1] = waiting
        if not boxed:
            spread_first(held, stencil, y_node, x_node, lines, grid)
        divide_cells(
            kind, fields[row], limit, kink, boxed, estimate, origin, nodes_per_pixel, y_node, x_node, table,
            stack_place, stack_node, waiting, samples, cells, nodes, weights, errors, part, grid, report,
        )  # fmt: skip
        if estimate:
            report[2] = largest_mean(errors, window[row], sums, lines[0], lines[1]) / (area * peak)


@inline
def accept_first(
    fields, limit, kink, width, x_first, y_first, y_node, x_node, first, stack_place, stack_node
):  # fmt: skip
    """Weigh the first cells that are within ``limit``, empty the others and push them; return how many."""
    errors, area = first[4], width * width
    waiting = np.int64(0)  # the literal is a type of its own, for which divide_cells would be compiled too
    for j in range(errors.shape[0]):
        beside = abs(y_first + F(j) * width - fields[1]) < kink
        for i in range(errors.shape[1]):
            kinked = beside and abs(x_first + F(i) * width - fields[0]) < kink
            if kinked or errors[j, i] * width > limit:
                stack_place[waiting, 0] = x_first + F(i) * width
                stack_place[waiting, 1] = y_first + F(j) * width
                stack_node[waiting, 0] = y_node + BASE * j
                stack_node[waiting, 1] = x_node + BASE * i
                stack_node[waiting, 2] = 0
                waiting += 1
                errors[j, i] = F(0.0)
                for a in range(4):
                    first[a, j, i] = F(0.0)
            else:
                errors[j, i] *= area
                for a in range(4):
                    first[a, j, i] *= F(0.25) * area
    return waiting


@jit
def sample_first(kind, fields, x_first, y_first, width, samples, values, errors, flux):
    """Sample every first cell: four values each, their mean bound and their mean brightness.

    ``samples`` is scratch. A sample on a cusp may not claim more than twice the source's whole flux.
    """
    n_y, n_x = flux.shape
    most = F(2.0) / (width * width)
    stride = (n_x + LANES - 1) // LANES * LANES
    xs, ys, found, bound = samples[0], samples[1], samples[2], samples[3]
    for a in range(4):
        dx = (GAUSS if a % 2 else -GAUSS) * width
        for i in range(stride):
            xs[a * stride + i] = x_first + F(i) * width + dx
    for j in range(n_y):
        for a in range(4):
            y = y_first + F(j) * width + (GAUSS if a > 1 else -GAUSS) * width
            for i in range(stride):
                ys[a * stride + i] = y
        sample_cells(kind, fields, xs, ys, 4 * stride, width, F(1.0), F(0.25), found, bound)
        error_line, flux_line = errors[j], flux[j]
        for i in range(n_x):
            error_line[i] = flux_line[i] = F(0.0)
        for a in range(4):
            value_line = values[a, j]
            found_line, bound_line = found[a * stride :], bound[a * stride :]
            for i in range(n_x):
                value_line[i] = found_line[i]
                error_line[i] += bound_line[i]
                flux_line[i] += F(0.25) * min(found_line[i], most)


@jit
def divide_cells(
    kind, fields, limit, kink, boxed, estimate, origin, nodes_per_pixel, y_node, x_node, table,
    stack_place, stack_node, waiting, samples, cells, nodes, weights, errors, part, grid, report,
):  # fmt: skip
    """Sample the waiting cells' quarters, and theirs, until every cell's bound is within ``limit``.

    Parts are pushed after every cell of their parents' generation: the top of the stack is of one generation.
    """
    base_width = F(BASE) / nodes_per_pixel
    xs, ys = cells[0], cells[1]
    target, added, is_apart = grid, 0, False
    while waiting > 0:
        level = stack_node[waiting - 1, 2]
        count = 0
        while count < CHUNK and waiting > 0 and stack_node[waiting - 1, 2] == level:
            waiting -= 1
            xs[count], ys[count] = stack_place[waiting, 0], stack_place[waiting, 1]
            nodes[0, count], nodes[1, count] = stack_node[waiting, 0], stack_node[waiting, 1]
            count += 1
        stride = (count + LANES - 1) // LANES * LANES
        for k in range(count, stride):
            xs[k], ys[k] = xs[0], ys[0]
        whole = base_width / F(1 << level)
        half = F(0.5) * whole
        place_x, place_y = samples[0], samples[1]
        for s in range(16):
            dx, dy = whole * lattice(s % 4), whole * lattice(s // 4)
            for k in range(stride):
                place_x[s * stride + k] = xs[k] + dx
                place_y[s * stride + k] = ys[k] + dy
        # the parts' light, and the bounds on their error times their width: means of four samples each
        weight = F(0.25) * half * half
        sample_cells(
            kind, fields, place_x, place_y, 16 * stride, half, weight, F(0.25) * half, samples[2], samples[3]
        )
        parts, part_bounds = samples[2], samples[3]
        report[0] += 16 * count
        for c in range(4):
            # its four samples, of the sixteen of the cell
            s0 = (8 * (c // 2) + 2 * (c % 2)) * stride
            s1, s2, s3 = s0 + stride, s0 + 4 * stride, s0 + 5 * stride
            dx = (F(0.25) if c % 2 else F(-0.25)) * whole
            dy = (F(0.25) if c > 1 else F(-0.25)) * whole
            bound, one, two, three = (
                part_bounds[s0:s1], part_bounds[s1 : s1 + stride], part_bounds[s2:s3],
                part_bounds[s3 : s3 + stride],
            )  # fmt: skip
            for k in range(stride):
                bound[k] += one[k] + two[k] + three[k]
            if kink > F(0.0) and level + 1 < KINKED:
                near = kink / F(2 << level)
                for k in range(count):
                    if abs(xs[k] + dx - fields[0]) < near and abs(ys[k] + dy - fields[1]) < near:
                        bound[k] = np.inf
            # which, without a branch that nobody can foresee
            chosen, divided = nodes[2], 0
            for k in range(count):
                chosen[divided] = k
                divided += 1 if bound[k] > limit else 0
            if level + 1 >= DEEPEST:
                divided = 0
            for i in range(divided):
                k = chosen[i]
                stack_place[waiting, 0], stack_place[waiting, 1] = xs[k] + dx, ys[k] + dy
                stack_node[waiting, 0] = nodes[0, k]
                stack_node[waiting, 1] = nodes[1, k]
                stack_node[waiting, 2] = level + 1
                waiting += 1
                parts[s0 + k] = parts[s1 + k] = parts[s2 + k] = parts[s3 + k] = bound[k] = F(0.0)
            report[1] += divided
            if estimate:
                for k in range(count):
                    errors[(nodes[0, k] - y_node) // BASE, (nodes[1, k] - x_node) // BASE] += bound[k] * half
        width = whole * nodes_per_pixel
        if boxed:
            add_to_pixels(parts, stride, count, nodes, xs, ys, origin, nodes_per_pixel, width, target)
        else:
            spread_cells(
                parts, stride, count, nodes, xs, ys, origin, nodes_per_pixel, width, table, weights, target
            )
        added += count
        if added >= TOGETHER:
            move_light(part, grid, is_apart)
            target, added, is_apart = part, 0, True
    if is_apart:
        move_light(part, grid, True)


@inline
def move_light(part, grid, is_filled):
    """Add the part, where it is filled, to the grid, and empty it."""
    for j in range(grid.shape[0]):
        if is_filled:
            for i in range(grid.shape[1]):
                grid[j, i] += part[j, i]
        for i in range(grid.shape[1]):
            part[j, i] = F(0.0)
