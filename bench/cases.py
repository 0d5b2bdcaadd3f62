"""What is timed, as data: stamps, catalogues and sources, and the rows drawn from them.

The ranges are those of a survey at 0.262 arcsec a pixel. On stamps larger than 64 pixels lens and source
are as much larger (a group, a cluster), so that their light fills the stamp and the work grows with it; the
seeing stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import RenderColumns, render_columns

PIXSCALE_ARCSEC = 0.262
BANDS = "grz"
_BAND_SEEING = {"g": 1.11, "r": 1.0, "z": 0.96}  # FWHM over that of r, as in the Legacy Surveys' coadds
_SEED = 20_260_701

# Rows of a catalogue: a smoke test, a table, a run whose start-up does not count.
CATALOGUES = {"S": 16, "M": 64, "L": 512}


@dataclass(frozen=True)
class Stamp:
    """A stamp's size, and how many rows are compared with the reference there (it takes 1 to 5 s a row)."""

    size_pix: int
    reference_rows: int


STAMPS = (
    Stamp(32, 8),
    Stamp(64, 8),
    Stamp(96, 4),
    Stamp(128, 4),
    Stamp(192, 2),
    Stamp(256, 2),
)
SIZES_PIX = tuple(stamp.size_pix for stamp in STAMPS)


@dataclass(frozen=True)
class Source:
    """A population of rows: the ranges that differ from one to another; every draw is uniform.

    Attributes
    ----------
    name : str
    n : (float, float)
        Sersic index.
    reff_arcsec, theta_e_arcsec, fwhm_arcsec : (float, float)
        Half-light radius, Einstein radius, seeing in the r band.
    why : str
        What it stands for.
    """

    name: str
    n: tuple[float, float]
    reff_arcsec: tuple[float, float]
    theta_e_arcsec: tuple[float, float]
    fwhm_arcsec: tuple[float, float]
    why: str


_SEEING = (1.2, 1.5)
_SIZES, _RADII = (0.2, 0.5), (0.5, 2.5)

SOURCES = (
    Source("sersic", (0.5, 4.0), _SIZES, _RADII, _SEEING, "sources of every cuspiness; the default"),
    Source("exponential", (1.0, 1.0), _SIZES, _RADII, _SEEING, "n = 1, as many injections take it"),
    Source(
        "stated", (0.5, 4.0), (0.1, 1.0), (0.3, 3.0), (0.53, 2.09), "the ranges that rtol is promised for"
    ),
    Source("smooth", (1.0, 1.0), (0.3, 0.5), _RADII, _SEEING, "what the variants' tolerances are stated for"),
)


def stamp_of(size_pix: int) -> Stamp:
    """Return the stamp of that size; other sizes are compared on as many rows as the next larger listed
    one.
    """
    rows = next((stamp.reference_rows for stamp in STAMPS if stamp.size_pix >= size_pix), 2)
    return Stamp(size_pix, rows)


def source_named(name: str) -> Source:
    """Return the source population of that name, or raise a ``KeyError`` that lists the names."""
    for source in SOURCES:
        if source.name == name:
            return source
    raise KeyError(f"unknown source {name!r}; use one of {', '.join(source.name for source in SOURCES)}")


def draw_rows(source: Source, n_rows: int, size_pix: int = 64) -> dict[str, NDArray[Any]]:
    """Draw a catalogue: SIE with shear, Sersic source, a Gaussian PSF of its own in every band.

    A column's draws come from a generator of its own, so the rows of a small catalogue are the first of a
    large one.

    Parameters
    ----------
    source : Source
    n_rows : int
    size_pix : int
        Stamp size; beyond 64, lens and source grow with it.

    Returns
    -------
    dict of str to array (n_rows,)
        Columns as ``render_batch`` takes them.
    """
    grown = max(1.0, size_pix / 64.0)
    ranges: dict[str, tuple[float, float]] = {
        "theta_e_arcsec": (grown * source.theta_e_arcsec[0], grown * source.theta_e_arcsec[1]),
        "lens_e": (0.03, 0.4),
        "lens_phi_rad": (0.0, np.pi),
        "lens_x_arcsec": (-0.13, 0.13),
        "lens_y_arcsec": (-0.13, 0.13),
        "shear": (0.0, 0.08),
        "shear_phi_rad": (0.0, np.pi),
        "src_x_arcsec": (-0.4 * grown, 0.4 * grown),
        "src_y_arcsec": (-0.4 * grown, 0.4 * grown),
        "src_reff_arcsec": (grown * source.reff_arcsec[0], grown * source.reff_arcsec[1]),
        "src_n": source.n,
        "src_e": (0.0, 0.4),
        "src_phi_rad": (0.0, np.pi),
        **{f"src_flux_nmgy_{band}": (1.0, 10.0) for band in BANDS},
    }
    columns: dict[str, NDArray[Any]] = {
        "lens_model": np.full(n_rows, "SIE"),
        "psf_model": np.full(n_rows, "gaussian"),
    }
    for k, (name, (low, high)) in enumerate(ranges.items()):
        columns[name] = np.random.default_rng([_SEED, k]).uniform(low, high, n_rows)
    seeing = np.random.default_rng([_SEED, len(ranges)]).uniform(*source.fwhm_arcsec, n_rows)
    for band in BANDS:
        columns[f"psf_fwhm_arcsec_{band}"] = _BAND_SEEING[band] * seeing
    return columns


def columns_of(source: Source, n_rows: int, size_pix: int = 64) -> RenderColumns:
    """Return the same rows validated, as ``render_rows`` takes them."""
    return render_columns(draw_rows(source, n_rows, size_pix), BANDS)
