"""Negatives that teach: rows that look like arcs to a careless network, marked by their kind.

``arc``       lensed, as drawn
``control``   nothing is added
``unlensed``  the same source at the same place, not lensed: light of the arc's flux, colour, size and PSF
              beside the host, without the shape of a lens
``averaged``  the arc averaged in azimuth about the lens before the PSF: its radial profile, flux and colour,
              without its shape
``ring``      a ring about the host, about as large as the Einstein radius, with the arc's flux and colours
``spiral``    spiral arms about the host, likewise

All are as bright as the row's arc would have been.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.components import column_names, component_numbers
from arcforge.engine.lookalikes import SHAPE_COLUMNS, SHAPES

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ("arc", "control", "unlensed", "averaged", *SHAPES)
# kind in [negatives]: what its rows hold
NEGATIVES = {
    "unlensed": "share of rows with the source unlensed at its place, as bright as its arc would be",
    "averaged": "share of rows with the arc averaged in azimuth about the lens, before the PSF",
    "ring": "share of rows with a ring about the host, as bright and as blue as the arc would be",
    "spiral": "share of rows with spiral arms about the host, likewise",
}
# A lens of no consequence: deflections are a millionth of a pixel.
_NO_LENS = {"lens_model": "SIS", "theta_e_arcsec": 1e-6, "lens_e": 0.0, "lens_phi_rad": 0.0, "shear": 0.0}


class Draw(Protocol):
    """Draws of some rows."""

    def prior(self, name: str) -> NDArray[Any]:
        """A draw of a prior for each row."""

    def uniform(self, purpose: str) -> NDArray[np.float64]:
        """A number in (0, 1) for each row."""


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


def shape_columns(
    draw: Draw, kind: NDArray[np.str_], theta_e_arcsec: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Columns of rings and spirals, NaN in other rows."""
    columns = {
        name: np.asarray(draw.prior(name), dtype=np.float64)
        for name in SHAPE_COLUMNS
        if name != "shape_radius_arcsec"
    }
    columns["shape_radius_arcsec"] = draw.prior("shape_radius_theta_e") * theta_e_arcsec
    columns["shape_pitch_rad"] *= np.where(draw.uniform("shape_handedness") < 0.5, -1.0, 1.0)
    shaped = np.isin(kind, SHAPES)
    return {name: np.where(shaped, values, np.nan) for name, values in columns.items()}


def as_negatives(table: pa.Table, kind: str, bands: str) -> pa.Table:
    """Rows of arcs as rows of that kind, each as bright as its arc.

    The factor on the flux is the row's ``magnification``; it stays on record as ``negative_flux_factor``. An
    averaged row keeps lens and source, which its light follows from, and a factor of 1.
    """
    from arcforge.engine.run_rows import put_column

    if kind == "averaged":
        return table
    n = table.num_rows
    factor = np.asarray(table.column("magnification").to_numpy(), dtype=np.float64)
    for name, value in _NO_LENS.items():
        table = put_column(table, name, np.full(n, value))
    for band in bands:
        flux = np.asarray(table.column(f"src_flux_nmgy_{band}").to_numpy(), dtype=np.float64)
        table = put_column(table, f"src_flux_nmgy_{band}", flux * factor)
        mag = np.asarray(table.column(f"src_mag_{band}").to_numpy(), dtype=np.float64)
        table = put_column(table, f"src_mag_{band}", mag - 2.5 * np.log10(factor))
    if kind in SHAPES:  # an image of its own, about the lens's place: no other row's source fits it
        rows = table.column("rng_row").to_pylist()
        table = put_column(table, "source_id", [f"{kind}-{row}" for row in rows])
        for name in ("src_x_arcsec", "src_y_arcsec"):
            table = put_column(table, name, np.zeros(n))
        for name in ("src_reff_arcsec", "src_n", "src_e"):
            table = put_column(table, name, np.full(n, np.nan))
        table = _without_components(table, bands)
    return put_column(table, "negative_flux_factor", factor)


def _without_components(table: pa.Table, bands: str) -> pa.Table:
    """Rows whose light is of one piece."""
    from arcforge.engine.run_rows import put_column

    n = table.num_rows
    for number in component_numbers(table.column_names):
        shares, shapes = column_names(number, bands)
        for names, value in ((shares, 0.0), (shapes, np.nan)):
            for name in names:
                table = put_column(table, name, np.full(n, value))
    if "src_structure" in table.column_names:
        table = put_column(table, "src_structure", [""] * n)
    return table
