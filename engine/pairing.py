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

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import RenderError

Pixels = NDArray[np.float32]


def pair_exactly(
    arcs: Pixels, hosts: Pixels, host_index: NDArray[np.integer[Any]], first_row: int = 0
) -> None:
    """Move each arc to the nearest one that ``stamp - control`` reproduces, in place.

    Parameters
    ----------
    arcs
        (n, bands, ny, nx) float32, nMgy per pixel; changed in place.
    hosts
        (n_hosts, bands, ny, nx) float32, finite.
    host_index
        (n,) host of each row.
    first_row
        Row number of ``arcs[0]``, for messages.

    Raises
    ------
    RenderError
        Where a stamp is not finite; names the row.
    """
    stamp = np.empty(arcs.shape[1:], dtype=np.float32)
    # A row at a time: both passes over it then run in the processor's cache.
    with np.errstate(over="ignore", invalid="ignore"):
        for i, h in enumerate(host_index):
            np.add(hosts[h], arcs[i], out=stamp)
            np.subtract(stamp, hosts[h], out=arcs[i])
            if not np.isfinite(arcs[i]).all():
                raise RenderError(
                    f"row {first_row + i}: the stamp (host {h} plus arc) is not finite; "
                    "look at this row's fluxes and at the host's pixels"
                )
