"""Catalogues: one row an injection. Files become tables, tables become the renderer's columns.

The gate is :func:`render_columns`: past it every value is finite, in range and in the renderer's own
conventions, so kernels need no checks. It works on whole columns; single rows are looked at only to word an
error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog_files import read_catalog
from arcforge.engine.columns import COLUMNS, FLUX, PSF_FWHM, Column
from arcforge.engine.components import read_components
from arcforge.engine.errors import CatalogError
from arcforge.kernels.codes import (
    CONTROL,
    EPL,
    LENS_MODELS,
    NFW,
    PSF_GAUSSIAN,
    PSF_IMAGE,
    PSF_MODELS,
    PSF_MOFFAT,
    PSF_NONE,
    SIE,
    SIS,
)

__all__ = [
    "CONTROL",
    "SIE",
    "SIS",
    "THETA_E_CONVENTIONS",
    "RenderColumns",
    "band_names",
    "read_catalog",
    "render_columns",
]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
CatalogLike = Any  # Mapping[str, ArrayLike] or pyarrow.Table; pyarrow is imported only where it is used

THETA_E_CONVENTIONS = ("intermediate", "major")


@dataclass(frozen=True)
class RenderColumns:
    """What the renderer is given: ``n`` validated rows, every array C-contiguous.

    Angles in arcsec and radians, fluxes in nanomaggies. ``theta_e_arcsec`` is the intermediate-axis Einstein
    radius whatever the catalogue's convention was. Of a CONTROL row only ``lens_model`` has a meaning; its
    other entries are finite. SIS rows have ``lens_e = 0``. Rows whose PSF has no FWHM (none, image) hold 0.
    """

    lens_model: NDArray[np.int8]  #: (n,) codes of ``arcforge.kernels.codes``
    theta_e_arcsec: Floats  #: (n,), as all that follow unless stated
    lens_e: Floats
    lens_phi_rad: Floats
    lens_gamma: Floats  #: slope of EPL rows; 2 in the others
    nfw_rs_arcsec: Floats  #: scale radius of NFW rows; 1 in the others
    lens_x_arcsec: Floats
    lens_y_arcsec: Floats
    shear: Floats
    shear_phi_rad: Floats
    src_x_arcsec: Floats
    src_y_arcsec: Floats
    src_reff_arcsec: Floats
    src_n: Floats
    src_e: Floats
    src_phi_rad: Floats
    src_flux_nmgy: Floats  #: (n, bands)
    psf_fwhm_arcsec: Floats  #: (n, bands)
    psf_model: NDArray[np.int8]
    moffat_beta: Floats
    psf_id: NDArray[np.int64]  #: -1 where the PSF is not an image
    source_id: NDArray[Any]  #: (n,) text; "" where the source is a Sersic profile
    more_fraction: Floats  #: (n, k, bands) share of further components in the flux; see ``components``
    more_shape: Floats  #: (n, k, 6) x, y, R_e, n, e, phi of each, x and y from the first one's centre

    def __len__(self) -> int:
        return int(self.lens_model.shape[0])

    def take(self, rows: slice | NDArray[np.integer[Any]] | Sequence[int]) -> RenderColumns:
        """Those rows, in that order, as contiguous copies."""
        index: Any = rows if isinstance(rows, slice) else np.asarray(rows, dtype=np.int64)
        return RenderColumns(
            **{f.name: np.ascontiguousarray(getattr(self, f.name)[index]) for f in fields(self)}
        )


# Columns with a rule of their own; of the others each lens row needs a value.
_SPECIAL = (
    "theta_e_arcsec", "lens_e", "lens_phi_rad", "lens_gamma", "nfw_rs_arcsec", "moffat_beta", "psf_id",
)  # fmt: skip
_GEOMETRY = tuple(column for name, column in COLUMNS.items() if name not in _SPECIAL)


_OF_PROFILES = ("src_reff_arcsec", "src_n", "src_e")


class _Table:
    """Column access that is the same for a mapping of arrays and for a pyarrow Table."""

    def __init__(self, catalog: CatalogLike) -> None:
        self._names = list(getattr(catalog, "column_names", None) or catalog)
        self._catalog = catalog
        self.n = self._length()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def _length(self) -> int:
        if hasattr(self._catalog, "num_rows"):
            return int(self._catalog.num_rows)
        if "lens_model" not in self:
            raise CatalogError(_absent("lens_model", self._names))
        shape = np.shape(self._catalog["lens_model"])
        if len(shape) != 1:
            raise CatalogError(f"column lens_model has shape {shape}: give a 1-D array, one entry a row")
        return int(shape[0])

    def _raw(self, name: str) -> NDArray[Any]:
        column = self._catalog[name]
        if hasattr(column, "to_numpy") and hasattr(column, "null_count"):  # pyarrow: nulls become NaN or None
            values = np.asarray(column.to_numpy())
        elif isinstance(column, np.ma.MaskedArray):
            values = np.array(column.data, dtype=object)
            values[np.ma.getmaskarray(column)] = None
        else:
            values = np.asarray(column)
        if values.shape != (self.n,):
            raise CatalogError(
                f"column {name} has shape {values.shape} where lens_model has {self.n} rows: "
                "give 1-D arrays of one length"
            )
        return values

    def floats(self, name: str) -> Floats:
        """The column as float64, null as NaN; a copy is made only where the type differs."""
        values = self._raw(name)
        if values.dtype.kind in "biuf":
            return values.astype(np.float64, copy=False)
        if values.dtype.kind == "O":
            try:
                return np.array(values, dtype=np.float64)
            except (TypeError, ValueError):
                pass
        row = next((i for i, value in enumerate(values) if not _is_number(value)), 0)
        self.refuse(row, name, values[row], "a number", "convert the column to numbers")

    def codes(self, name: str, table: Mapping[str, int], needed: Flags | None = None) -> NDArray[np.int8]:
        """A column of names as int8 codes; rows that do not need it may hold null, which gives -1."""
        values = self._raw(name)
        if values.dtype.kind == "S":  # FITS strings
            values = np.strings.rstrip(np.char.decode(values, "ascii"))
        codes = np.full(self.n, -1, dtype=np.int8)
        if values.dtype.kind in "UOT":
            for word, code in table.items():
                codes[values == word] = code
        bad = codes < 0
        if needed is not None and bad.any():
            bad &= needed | ~np.array([_is_blank(value) for value in values], dtype=np.bool_)
        if bad.any():
            row = int(np.argmax(bad))
            self.refuse(row, name, values[row], ", ".join(table), "names are case-sensitive", bad)
        return codes

    def checked(self, column: Column, needed: Flags) -> Floats:
        """The column with every needed row in range; others may be null or 0 and get the neutral value."""
        if column.name not in self:
            if column.default is None and needed.any():
                raise CatalogError(_absent(column.name, self._names))
            return np.full(self.n, column.neutral if column.default is None else column.default)
        values = self.floats(column.name)
        good = column.in_range(values)
        if good.all():
            return values
        unused = ~needed & (np.isnan(values) | (values == 0.0))
        bad = ~good & ~unused
        if bad.any():
            row = int(np.argmax(bad))
            self.refuse(row, column.name, values[row], column.allowed(), column.remedy, bad)
        return np.asarray(np.where(good, values, column.neutral), dtype=np.float64)

    def refuse(
        self, row: int, name: str, value: Any, allowed: str, remedy: str, bad: Flags | None = None
    ) -> NoReturn:
        """Raise the one-line error for a bad value."""
        label = ""
        for key in ("row_id", "task_id"):
            if key in self:
                label = f" ({key} {self._raw(key)[row]})"
                break
        shown = "missing (null or NaN)" if _is_blank(value) else f"{_plain(value)!r}"
        more = int(bad.sum()) - 1 if bad is not None else 0
        others = f"; {more} more row{'s' if more > 1 else ''} of this kind" if more else ""
        raise CatalogError(
            f"catalogue row {row}{label}: {name} is {shown}, allowed: {allowed}; {remedy}{others}"
        )


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, np.number))


def _is_blank(value: Any) -> bool:
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    return value is None or (isinstance(value, str) and value == "")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _absent(name: str, names: Sequence[str]) -> str:
    import difflib

    known = {*COLUMNS, "lens_model", "psf_model"}
    strangers = [n for n in names if n not in known and not n.startswith(("src_flux_nmgy_", "psf_fwhm_"))]
    close = difflib.get_close_matches(name, strangers, n=1)
    hint = f'rename "{close[0]}" if that is it' if close else "add it"
    return f"the catalogue has no column {name}, which has no default: {hint}"


def misspelt_columns(names: Sequence[str]) -> dict[str, str]:
    """Columns that nobody reads and that look like one with a default, which is absent: name to name."""
    import difflib

    known = {*COLUMNS, "psf_model", "source_id", "host_id", "kind", "split", "theta_e_convention"}
    absent = {name.casefold(): name for name in sorted(known - set(names))}
    found: dict[str, str] = {}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name.casefold(), list(absent), n=1, cutoff=0.8)
            if close:
                found[name] = absent[close[0]]
    return found


def band_names(bands: str | Sequence[str]) -> tuple[str, ...]:
    """The bands as a tuple, e.g. ``("g", "r", "z")``; a repeated or empty set is a CatalogError."""
    names = tuple(bands)
    if not names or len(set(names)) != len(names) or not all(names):
        raise CatalogError(f'bands {bands!r} must name each band once, e.g. "grz"')
    return names


def render_columns(
    catalog: CatalogLike, bands: str | Sequence[str], *, theta_e_convention: str = "intermediate"
) -> RenderColumns:
    """Check a catalogue and bring it into the renderer's form.

    Parameters
    ----------
    catalog : mapping of str to 1-D array, or pyarrow.Table
        The columns of the catalogue; unknown columns are ignored here.
    bands : str or sequence of str
        Bands to render, in output order; each needs ``src_flux_nmgy_<band>`` and ``psf_fwhm_arcsec_<band>``
        (``psf_fwhm_used_<band>`` is read in its stead).
    theta_e_convention : {"intermediate", "major"}
        Convention of ``theta_e_arcsec``; a column ``theta_e_convention`` comes first where it is not null.
        "major" is the prefactor of an SIE or EPL without sqrt(q); it is divided by sqrt(q) here. SIS and NFW
        rows do not differ.

    Returns
    -------
    RenderColumns
        n validated rows.

    Raises
    ------
    CatalogError
        One line with row, column, value and the way out. A null is never filled in a row that uses the value.

    Notes
    -----
    Rows with ``lens_model = "CONTROL"`` may hold null or 0 in any other column; SIS rows in ``lens_e`` and
    ``lens_phi_rad``.
    """
    names = band_names(bands)
    table = _Table(catalog)
    if "lens_model" not in table:
        raise CatalogError(_absent("lens_model", table._names))
    model = table.codes("lens_model", LENS_MODELS)
    lens, elliptical = model != CONTROL, (model != CONTROL) & (model != SIS)
    lens_e = np.where(model == SIS, 0.0, table.checked(COLUMNS["lens_e"], elliptical))
    theta_e = table.checked(COLUMNS["theta_e_arcsec"], lens)
    major = _is_major(table, theta_e_convention) & elliptical & (model != NFW)
    theta_e = np.where(major, theta_e / np.sqrt((1.0 - lens_e) / (1.0 + lens_e)), theta_e)
    flux = [table.checked(FLUX.of_band(band), lens) for band in names]
    source_id = _source_ids(table)
    profile = lens & (source_id == "")  # an image has its own shape, and its own size where none is given
    geometry: dict[str, Any] = {
        column.name: np.ascontiguousarray(
            table.checked(column, profile if column.name in _OF_PROFILES else lens)
        )
        for column in _GEOMETRY
    }
    unsized = (source_id != "") & ~_is_given(table, "src_reff_arcsec")
    geometry["src_reff_arcsec"] = np.where(unsized, 0.0, geometry["src_reff_arcsec"])
    return RenderColumns(
        lens_model=model,
        theta_e_arcsec=theta_e,
        lens_e=lens_e,
        lens_phi_rad=np.ascontiguousarray(table.checked(COLUMNS["lens_phi_rad"], elliptical)),
        lens_gamma=_of_model(table, "lens_gamma", model == EPL),
        nfw_rs_arcsec=_of_model(table, "nfw_rs_arcsec", model == NFW),
        **geometry,
        src_flux_nmgy=np.ascontiguousarray(np.stack(flux, axis=1)),
        source_id=source_id,
        **read_components(table, table._names, names, profile),
        **_psf_columns(table, names, lens),
    )


def _of_model(table: _Table, name: str, rows: Flags) -> Floats:
    """A column that only some lens models have; the neutral value in the other rows."""
    column = COLUMNS[name]
    values = table.checked(column, rows) if rows.any() else np.full(table.n, column.neutral)
    return np.ascontiguousarray(np.where(rows, values, column.neutral))


def _source_ids(table: _Table) -> NDArray[Any]:
    """The names of source images, "" where a row has none."""
    if "source_id" not in table:
        return np.full(table.n, "")
    return np.array(["" if _is_blank(value) else str(value) for value in table._raw("source_id")])


def _is_given(table: _Table, name: str) -> Flags:
    """Tell which rows have a positive value."""
    if name not in table:
        return np.zeros(table.n, dtype=np.bool_)
    return np.asarray(table.floats(name) > 0.0, dtype=np.bool_)


def _is_major(table: _Table, convention: str) -> Flags:
    """Rows whose Einstein radius is in the "major" convention."""
    codes = {name: code for code, name in enumerate(THETA_E_CONVENTIONS)}
    if convention not in codes:
        raise CatalogError(f'theta_e_convention {convention!r} is unknown: use "intermediate" or "major"')
    if "theta_e_convention" not in table:
        return np.full(table.n, convention == "major")
    given = table.codes("theta_e_convention", codes, needed=np.zeros(table.n, dtype=np.bool_))
    return np.asarray(np.where(given < 0, convention == "major", given == codes["major"]), dtype=np.bool_)


def _psf_columns(table: _Table, bands: Sequence[str], lens: Flags) -> dict[str, Any]:
    """PSF model, widths, Moffat beta and image number of each row."""
    if "psf_model" in table:
        model = table.codes("psf_model", PSF_MODELS, needed=lens)
        model[model < 0] = PSF_NONE  # null, which only CONTROL rows may hold
    else:
        model = np.full(table.n, PSF_GAUSSIAN, dtype=np.int8)
    has_width = (model == PSF_GAUSSIAN) | (model == PSF_MOFFAT)
    widths = []
    for band in bands:
        name = f"{PSF_FWHM.name}_{band}"
        if name not in table and f"psf_fwhm_used_{band}" in table:
            name = f"psf_fwhm_used_{band}"
        column = replace(PSF_FWHM, name=name)
        widths.append(np.where(has_width, table.checked(column, lens & has_width), 0.0))
    fwhm = np.ascontiguousarray(np.stack(widths, axis=1))
    model[has_width & (fwhm <= 0.0).any(axis=1)] = PSF_NONE  # CONTROL rows without a PSF
    beta = table.checked(COLUMNS["moffat_beta"], lens & (model == PSF_MOFFAT))
    psf_id = table.checked(COLUMNS["psf_id"], lens & (model == PSF_IMAGE))
    bad = lens & (model == PSF_IMAGE) & ((psf_id < 0.0) | (psf_id != np.floor(psf_id)))
    if bad.any():
        row = int(np.argmax(bad))
        table.refuse(row, "psf_id", psf_id[row], "a whole number from 0 on", COLUMNS["psf_id"].remedy, bad)
    psf_id = np.where(model == PSF_IMAGE, psf_id, -1.0)
    return {
        "psf_fwhm_arcsec": fwhm,
        "psf_model": model,
        "moffat_beta": np.ascontiguousarray(beta),
        "psf_id": psf_id.astype(np.int64),
    }
