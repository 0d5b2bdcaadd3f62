"""From samples in cells to nodes of a grid, each sample with its exact position.

A sample is added to the nodes around it with the weights of a gridding kernel ("exponential of semicircle",
Barnett, Magland & af Klinteberg 2019, SIAM J. Sci. Comput. 41, C479, eq. 1.8), whose transform is divided out
together with the PSF (``engine.gridding``). Adding it to the nearest node would move it there.
"""

import numpy as np

from arcforge.kernels._jit import inline, jit
from arcforge.kernels.lanes import add_outer_8, lerp_8

F = np.float32

GAUSS = F(0.28867513459481287)  # nodes of the two-point rule on a cell of unit width: +- 1 / (2 sqrt 3)
BASE = 2  # nodes a first cell is wide
WIDTH = 6  # nodes a gridding kernel covers
# A sample within a first cell reaches eight nodes, -3 to +4 from the cell's lower one: a row of the table,
# which holds this many positions a node.
REACH = 8
TABLE_STEPS = 256
# Cells divided up to twice lie in at most four places along an axis of their first cell; the lines of these
# (1 + 2 + 4 places of four samples) follow the table.
FEW = 4
PLACED = REACH * (BASE * TABLE_STEPS + 1)


@jit
def largest_mean(flux, window, sums, line, best):
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
def spread_first(values, stencil, y_node, x_node, lines, grid):
    """Add first cells' samples to the grid, from node (y, x) on: their positions in a cell are fixed, so a
    separable stencil does.

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
        first, count = x_node - 3, 2 * n_x + 6
        lower, upper = lines[2], lines[3]
        for o in range(REACH):
            w_low, w_high = stencil[0, o], stencil[1, o]
            target = grid[y_node + BASE * j + o - 3, first : first + count]
            for i in range(count):
                target[i] += w_low * lower[i] + w_high * upper[i]


@inline
def lattice(b):
    """Return the offset of sample ``b`` of the four along an axis of a divided cell, in its widths."""
    return F(0.5) * (GAUSS if b % 2 else -GAUSS) + (F(0.25) if b > 1 else F(-0.25))


@jit
def spread_cells(values, stride, count, nodes, xs, ys, origin, nodes_per_pixel, width, table, weights, grid):
    """Add the 4 x 4 samples of each divided cell to the grid; ``width`` of the cells in nodes.

    Sample s of cell k is ``values[s * stride + k]``. ``nodes`` int32 (5, >= count) holds the lower node
    (y, x) of each cell's first cell; its other lines are scratch, and so is ``weights`` float32 (64,).
    ``table`` is flat, lines of eight nodes: by position, and from ``PLACED`` on those of cells of the first
    generations, which lie in few places within their first cell.
    """
    size = grid.shape[1]
    places = np.int32(F(BASE) / width + F(0.5))  # of such a cell along an axis
    per_width = F(1.0) / width
    line = np.int32(PLACED + 4 * REACH * (places - 1))
    # where, before what: in one loop a cell's sums would wait for its places, and the next cell for those
    for k in range(count):
        at_x, at_y = _place(k, nodes, xs, ys, origin, nodes_per_pixel)
        nodes[2, k] = (nodes[0, k] - 3) * np.int32(size) + nodes[1, k] - 3
        nodes[3, k] = line + np.int32(4 * REACH) * np.int32(at_x * per_width)
        nodes[4, k] = line + np.int32(4 * REACH) * np.int32(at_y * per_width)
    if places <= FEW:
        for k in range(count):
            add_outer_8(
                grid, np.int64(nodes[2, k]), size, values, k, stride,
                table, np.int64(nodes[3, k]), table, np.int64(nodes[4, k]),
            )  # fmt: skip
        return
    start = np.int64(0)
    for k in range(count):
        at_x, at_y = _place(k, nodes, xs, ys, origin, nodes_per_pixel)
        for b in range(8):
            place = ((at_x if b < 4 else at_y) + lattice(b % 4) * width) * F(TABLE_STEPS)
            step = min(np.int32(place), np.int32(BASE * TABLE_STEPS - 1))
            lerp_8(weights, REACH * b, table, REACH * step, place - F(step))
        add_outer_8(
            grid, np.int64(nodes[2, k]), size, values, k, stride, weights, start, weights, start + 4 * REACH
        )


@inline
def _place(k, nodes, xs, ys, origin, nodes_per_pixel):
    """Return a cell's centre from the edge of its first cell, half a node before its lower node [nodes]."""
    x = (xs[k] - origin) * nodes_per_pixel - F(nodes[1, k]) + F(0.5)
    y = (ys[k] - origin) * nodes_per_pixel - F(nodes[0, k]) + F(0.5)
    return x, y


@jit
def add_to_pixels(values, stride, count, nodes, xs, ys, origin, nodes_per_pixel, width, grid):
    """Add the samples of each divided cell to the nodes they lie in (no PSF: nodes are pixels).

    The last cells reach over the stamp's edge by a node where the lit nodes are odd in number: light beyond
    it is left out, there is no PSF that could bring it back.
    """
    for k in range(count):
        for a in range(4):
            j = int(np.floor((ys[k] - origin) * nodes_per_pixel + lattice(a) * width + F(0.5)))
            for b in range(4):
                i = int(np.floor((xs[k] - origin) * nodes_per_pixel + lattice(b) * width + F(0.5)))
                if 0 <= j < grid.shape[0] and 0 <= i < grid.shape[1]:
                    grid[j, i] += values[(4 * a + b) * stride + k]
