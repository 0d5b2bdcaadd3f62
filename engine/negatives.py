"""Negatives that teach: rows that look like arcs to a careless network, marked by their kind.

``arc``       lensed, as drawn
``control``   nothing is added
``unlensed``  the same source at the same place, not lensed, as bright as its arc would have been: light of
              the same flux, colour, size and PSF beside the host, without the shape of a lens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ("arc", "control", "unlensed")
# kind in [negatives]: what its rows hold
NEGATIVES = {"unlensed": "share of rows with the source unlensed at its place, as bright as its arc would be"}
# A lens of no consequence: deflections are a millionth of a pixel.
_NO_LENS = {"lens_model": "SIS", "theta_e_arcsec": 1e-6, "lens_e": 0.0, "lens_phi_rad": 0.0, "shear": 0.0}


def kinds_of(
    u: NDArray[np.float64], shares: Mapping[str, float], is_control: NDArray[np.bool_]
) -> NDArray[np.str_]:
    """Kind of each row, from a uniform number each; controls stay controls."""
    kind = np.full(u.shape, "arc", dtype="<U8")
    edge = 0.0
    for name, share in shares.items():
        kind[(u >= edge) & (u < edge + share)] = name
        edge += share
    return np.where(is_control, "control", kind)


def without_lens(table: pa.Table, bands: str) -> pa.Table:
    """Rows of arcs as rows of their unlensed sources, each as bright as its arc.

    The factor on the flux is the row's ``magnification``; it stays on record as ``negative_flux_factor``.
    """
    from arcforge.engine.run_rows import put_column

    factor = np.asarray(table.column("magnification").to_numpy(), dtype=np.float64)
    for name, value in _NO_LENS.items():
        table = put_column(table, name, np.full(table.num_rows, value))
    for band in bands:
        flux = np.asarray(table.column(f"src_flux_nmgy_{band}").to_numpy(), dtype=np.float64)
        table = put_column(table, f"src_flux_nmgy_{band}", flux * factor)
        mag = np.asarray(table.column(f"src_mag_{band}").to_numpy(), dtype=np.float64)
        table = put_column(table, f"src_mag_{band}", mag - 2.5 * np.log10(factor))
    return put_column(table, "negative_flux_factor", factor)
