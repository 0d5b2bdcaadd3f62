"""Pair arcs with their hosts exactly, and measure them, in one pass over the pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels._jit import jit_exact


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
    n_pixels = arcs.shape[2]
    for i in range(arcs.shape[0]):
        for b in range(arcs.shape[1]):
            host, arc = hosts[host_index[i], b], arcs[i, b]
            for k in range(n_pixels):
                stamp = host[k] + arc[k]
                arc[k] = stamp - host[k]
            total, squares, top = 0.0, 0.0, arc[0]
            for k in range(n_pixels):
                value = np.float64(arc[k])
                total += value
                squares += value * value
                top = max(top, arc[k])
            flux[i, b], power[i, b], peak[i, b] = total, squares, top
