"""Einstein-radius bins: the request's, so that numbers can be laid side by side."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

THETA_E_EDGES_ARCSEC = (0.0, 0.75, 1.0, 1.5, 2.0, np.inf)
# Below this a bin is shown, not judged
MIN_ROWS, MIN_HOSTS = 8, 4


def theta_e_bins(theta_e_arcsec: Floats) -> list[tuple[float, float, NDArray[np.bool_]]]:
    """Return (low, high, rows) of every bin with rows; a value on an edge belongs to the bin above."""
    bins = []
    for low, high in pairwise(THETA_E_EDGES_ARCSEC):
        rows = (theta_e_arcsec >= low) & (theta_e_arcsec < high)
        if rows.any():
            bins.append((low, high, rows))
    return bins


def can_be_judged(rows: NDArray[np.bool_], groups: NDArray[np.int64]) -> bool:
    """Whether a bin holds enough rows of enough hosts."""
    return bool(rows.sum() >= MIN_ROWS and len(np.unique(groups[rows])) >= MIN_HOSTS)


def bin_label(low: float, high: float) -> str:
    """Return a bin in words, in arcsec."""
    if low == 0:
        return f'< {high:g}"'
    return f'>= {low:g}"' if np.isinf(high) else f'{low:g}-{high:g}"'
