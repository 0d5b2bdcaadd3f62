"""Arcs that pair exactly: ``(stamp - control) - arc`` is zero in float32, bit for bit.

The rule. With ``fl`` the rounding to float32, a rendered arc ``a`` over a host pixel ``h`` is stored as

    a1 = fl(fl(h + a) - h),    and the stamp is    s = fl(h + a1).

In general ``fl(fl(h + a) - h)`` is not ``a``: the sum drops the bits of ``a`` below the last place of the
stamp, so an arc stored as rendered would not be what the pixels show. The arc stored here is what they show,
and one pass is enough: with rounding to nearest even, repeating the pass changes nothing (Reiser & Knuth
1975, Information Processing Letters 3, 84; Goldberg 1991, ACM Computing Surveys 23, 5, theorem 5), so that
``fl(s - h) = a1`` for every finite ``h`` and ``a`` whose sum does not overflow. Subnormal sums are exact and
need no extra care.

The price. ``|a1 - a| <= (ulp(fl(h + a)) + ulp(a1)) / 2``: at most one unit in the last place of the larger of
stamp and arc, 1e-7 of the pixel's value and far below the noise of any survey. Light fainter than half a unit
of the host's last place becomes zero, and those pixels stay bit-identical to the control.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import RenderError
from arcforge.kernels.pairing import pair_rows

Pixels = NDArray[np.float32]


class ArcMeasures(NamedTuple):
    """What each arc holds on its stamp, (n, bands) each."""

    flux_nmgy: NDArray[np.float64]  #: sum of the pixels
    power: NDArray[np.float64]  #: sum of their squares
    peak: NDArray[np.float32]  #: brightest pixel


def pair_exactly(
    arcs: Pixels, hosts: Pixels, host_index: NDArray[np.integer[Any]], first_row: int = 0
) -> ArcMeasures:
    """Move each arc to the nearest one that ``stamp - control`` reproduces, in place, and measure it.

    Parameters
    ----------
    arcs
        (n, bands, ny, nx) float32, nMgy per pixel, C-contiguous; changed in place.
    hosts
        (n_hosts, bands, ny, nx) float32, finite, C-contiguous.
    host_index
        (n,) host of each row.
    first_row
        Row number of ``arcs[0]``, for messages.

    Raises
    ------
    RenderError
        Where a stamp is not finite; names the row.
    """
    n, n_bands, ny, nx = arcs.shape
    measures = ArcMeasures(
        np.empty((n, n_bands)), np.empty((n, n_bands)), np.empty((n, n_bands), dtype=np.float32)
    )
    pair_rows(
        arcs.reshape(n, n_bands, ny * nx),
        hosts.reshape(len(hosts), n_bands, ny * nx),
        np.ascontiguousarray(host_index, dtype=np.int64),
        *measures,
    )
    bad = ~np.isfinite(measures.power).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise RenderError(
            f"row {first_row + row}: the stamp (host {host_index[row]} plus arc) is not finite; "
            "look at this row's fluxes and at the host's pixels"
        )
    return measures
