"""Cuts on what is drawn: names, meanings, and which rows fail them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

# name in [cuts]: what it asks for
CUTS = {
    "arc_snr_min": "matched-filter signal to noise of the arc on its stamp, in the reference band",
    "magnification_min": "lensed over unlensed flux",
    "magnification_max": "the same, at most",
    "theta_e_fwhm_min": "Einstein radius over the PSF's width, in the reference band",
}


def failing(
    cuts: Mapping[str, float],
    table: pa.Table,
    power: NDArray[np.float64],
    invvar: NDArray[np.float64],
    band: str,
) -> dict[str, NDArray[np.bool_]]:
    """Tell for each cut which rows fail it; a row is counted under the first that it fails.

    Parameters
    ----------
    cuts
        By name of ``CUTS``.
    table
        Rows with the renderer's columns and ``magnification``. CONTROL rows fail nothing.
    power
        (n,) sum of squares of the arc's pixels in the reference band.
    invvar
        (n,) typical inverse variance of their hosts there.
    band
        The reference band.
    """
    magnification = _floats(table, "magnification")
    with np.errstate(divide="ignore", invalid="ignore"):
        resolved = _floats(table, "theta_e_arcsec") / _floats(table, f"psf_fwhm_arcsec_{band}")
        snr = np.sqrt(power * invvar)
    good = {
        "arc_snr_min": lambda least: snr >= least,
        "magnification_min": lambda least: magnification >= least,
        "magnification_max": lambda most: magnification <= most,
        "theta_e_fwhm_min": lambda least: resolved >= least,
    }
    left = np.array(table.column("lens_model").to_pylist()) != "CONTROL"
    out = {}
    for name, limit in cuts.items():
        out[name] = left & ~good[name](limit)
        left &= ~out[name]
    return out


def _floats(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)
