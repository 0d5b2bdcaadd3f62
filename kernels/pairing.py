"""Pair arcs with their hosts exactly, measure them and how far they stand out, in passes over the pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels._jit import inline_sum, jit_exact

_ZERO = np.float32(0.0)


@inline_sum
def _sums(arc):
    """Return the sum of the pixels and of their squares."""
    total, squares = 0.0, 0.0
    for k in range(arc.size):
        value = np.float64(arc[k])
        total += value
        squares += value * value
    return total, squares


@inline_sum
def _sums_beside(arc, host, sigma):
    """Return the sum of the arc's light, and that of each pixel's times its share in the brightness there."""
    total, seen = 0.0, 0.0
    for k in range(arc.size):
        light = max(arc[k], _ZERO)
        under = max(host[k], _ZERO) + sigma + light
        total += np.float64(light)
        seen += np.float64(light * (light / under if under > _ZERO else _ZERO))
    return total, seen


@inline_sum
def _largest(arc):
    """Return the largest pixel; eight at once, since each comparison waits for the last."""
    a = b = c = d = e = f = g = h = arc[0]
    whole = arc.size - arc.size % 8
    for k in range(0, whole, 8):
        a, b, c, d = max(a, arc[k]), max(b, arc[k + 1]), max(c, arc[k + 2]), max(d, arc[k + 3])
        e, f, g, h = max(e, arc[k + 4]), max(f, arc[k + 5]), max(g, arc[k + 6]), max(h, arc[k + 7])
    for k in range(whole, arc.size):
        a = max(a, arc[k])
    return max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)))


# Exact: an optimiser that may reassociate would turn (h + a) - h into a.
@jit_exact
def pair_rows(
    arcs: NDArray[np.float32],
    hosts: NDArray[np.float32],
    host_index: NDArray[np.int64],
    flux: NDArray[np.float64],
    power: NDArray[np.float64],
    peak: NDArray[np.float32],
) -> None:
    """Replace every pixel ``a`` of ``arcs`` (n, bands, pixels) by ``fl(fl(h + a) - h)``.

    ``flux``, ``power`` and ``peak`` (n, bands) get each band's sum, sum of squares and maximum. The power is
    not finite where a pixel is not: the square of a finite float32 fits into a float64.
    """
    for i in range(arcs.shape[0]):
        for b in range(arcs.shape[1]):
            host, arc = hosts[host_index[i], b], arcs[i, b]
            for k in range(arc.size):
                stamp = host[k] + arc[k]
                arc[k] = stamp - host[k]
            flux[i, b], power[i, b] = _sums(arc)
            peak[i, b] = _largest(arc)


@jit_exact
def visible_shares(
    arcs: NDArray[np.float32],
    hosts: NDArray[np.float32],
    host_index: NDArray[np.int64],
    sigma: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    """Put sum a * a / (a + h + s) / sum a, over a > 0, of each row into ``out`` (n,); NaN without light.

    ``arcs`` (n, pixels) and ``hosts`` (m, pixels) of one band; ``sigma`` (n,).
    """
    for i in range(arcs.shape[0]):
        total, seen = _sums_beside(arcs[i], hosts[host_index[i]], sigma[i])
        out[i] = seen / total if total > 0.0 else np.nan
