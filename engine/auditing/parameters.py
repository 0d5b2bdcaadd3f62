"""From what a data set records to what the renderer needs.

The user's own names are read as they are: ``psf_fwhm_used_<band>`` for the PSF, and source fluxes from host
magnitude, magnitude difference and colours where fluxes are not recorded. Nothing is guessed beyond the
defaults of the catalogue's definition; what is absent is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import MissingParametersError

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.catalog import RenderColumns

Floats = NDArray[np.float64]

_REQUIRED = (
    "lens_model",
    "theta_e_arcsec",
    "lens_e",
    "lens_phi_rad",
    "src_x_arcsec",
    "src_y_arcsec",
    "src_reff_arcsec",
    "src_e",
    "src_phi_rad",
)
# Colours that give another band's magnitude from r: m_band = m_r + sign * colour
_COLOURS = {"g": ("src_gr", 1.0), "z": ("src_rz", -1.0)}


def recorded_parameters(table: pa.Table, bands: str) -> RenderColumns:
    """Return the validated renderer's columns of a table's rows.

    Raises
    ------
    MissingParametersError
        A needed column is absent; all absent ones are named.
    CatalogError
        A recorded value cannot be rendered; names row, column and value.
    """
    from arcforge.engine.catalog import render_columns

    names = set(table.column_names)
    missing = [name for name in _REQUIRED if name not in names]
    catalog: dict[str, Any] = {name: table.column(name) for name in table.column_names}
    for band in bands:
        flux = f"src_flux_nmgy_{band}"
        if flux not in names:
            derived = _flux_from_magnitudes(table, band)
            if derived is None:
                missing.append(flux)
            else:
                catalog[flux] = derived
        if not names & {f"psf_fwhm_arcsec_{band}", f"psf_fwhm_used_{band}"}:
            missing.append(f"psf_fwhm_arcsec_{band}")
    if missing:
        raise MissingParametersError(missing)
    import pyarrow as pa

    return render_columns(
        {name: c.to_numpy() if isinstance(c, pa.ChunkedArray) else c for name, c in catalog.items()}, bands
    )


def _flux_from_magnitudes(table: pa.Table, band: str) -> Floats | None:
    """Flux in nMgy from ``rmag + src_dmag`` and the source's colours; None where those are not recorded."""
    colour, sign = _COLOURS.get(band, ("", 0.0))
    needed = ["rmag", "src_dmag", *([colour] if colour else [])]
    if band not in "grz" or any(name not in table.column_names for name in needed):
        return None
    magnitude = column(table, "rmag") + column(table, "src_dmag")
    if colour:
        magnitude = magnitude + sign * column(table, colour)
    return np.asarray(10.0 ** ((22.5 - magnitude) / 2.5))


def column(table: pa.Table, name: str) -> Floats:
    """Return a numeric column as float64, null as NaN."""
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)


def is_control_row(table: pa.Table) -> NDArray[np.bool_]:
    """Rows that carry no arc by their own record: ``lens_model = CONTROL`` or ``is_control = 1``."""
    control = np.zeros(table.num_rows, dtype=bool)
    if "lens_model" in table.column_names:
        control |= np.asarray(table.column("lens_model").to_numpy(), dtype=object) == "CONTROL"
    if "is_control" in table.column_names:
        control |= column(table, "is_control") == 1
    return control


def is_negative_row(table: pa.Table) -> NDArray[np.bool_]:
    """Rows with light that is no arc by its own record: ``kind`` is neither arc nor control."""
    if "kind" not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    kind = np.asarray(table.column("kind").to_numpy(zero_copy_only=False), dtype=object)
    return np.asarray((kind != "arc") & (kind != "control"))


def is_failed_row(table: pa.Table) -> NDArray[np.bool_]:
    """Rows that the data set itself marks as failed: ``cutout_ok = 0``."""
    if "cutout_ok" not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    return np.asarray(column(table, "cutout_ok") == 0)
