"""Cuts on what is drawn: names, meanings, and which rows fail them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels.pairing import visible_shares

if TYPE_CHECKING:
    import pyarrow as pa

# name in [cuts]: what it asks for
CUTS = {
    "arc_snr_min": "matched-filter signal to noise of the arc on its stamp, in the reference band",
    "magnification_min": "lensed over unlensed flux",
    "magnification_max": "the same, at most",
    "theta_e_fwhm_min": "Einstein radius over the PSF's width, in the reference band",
    "visibility_min": "mean share that the arc has in the brightness where it lies, 0 to 1: see visibility",
}


def failing(
    cuts: Mapping[str, float],
    table: pa.Table,
    power: NDArray[np.float64],
    invvar: NDArray[np.float64],
    band: str,
    seen: NDArray[np.float64],
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
    seen
        (n,) visibility there.
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
        "visibility_min": lambda least: seen >= least,
    }
    left = np.array(table.column("lens_model").to_pylist()) != "CONTROL"
    out = {}
    for name, limit in cuts.items():
        out[name] = left & ~good[name](limit)
        left &= ~out[name]
    return out


def visibility(
    arcs: NDArray[np.float32],
    hosts: NDArray[np.float32],
    places: NDArray[np.int64],
    invvar: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How far arcs stand out from what lies under them: 0 (lost) to 1 (nothing else is there).

    The mean, over the arc's light, of its share in the brightness there,

        sum a * a / (a + h + s) / sum a,    a: arc, h: host's light, s: standard deviation of the sky,

    where a > 0 and h is taken as 0 below 0. NaN for rows without light.

    Parameters
    ----------
    arcs
        (n, ny, nx) of one band, nanomaggies per pixel.
    hosts
        (m, ny, nx) in that band.
    places
        (n,) which of these is the row's.
    invvar
        (n,) typical inverse variance of the sky.
    """
    out = np.empty(len(arcs))
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.nan_to_num(1.0 / np.sqrt(invvar), nan=0.0, posinf=0.0).astype(np.float32)
    pixels = (-1, arcs.shape[1] * arcs.shape[2])
    places = np.ascontiguousarray(places, dtype=np.int64)
    visible_shares(arcs.reshape(pixels), hosts.reshape(pixels), places, sigma, out)
    return out


def _floats(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)
