"""Light that is none of a lensed source: rows whose ``kind`` says so are rendered here.

``averaged``  the row's arc, averaged in azimuth about its lens before the PSF acts
``ring``      an inclined ring about the lens's place
``spiral``    an inclined disc of spiral arms there

An average over the azimuth is a mean of the arc turned about its lens, in steps: what the steps leave is a
pattern that repeats once a step, and the PSF wipes it out where the steps are shorter than it. So the average
goes through the renderer that arcs go through, with its accuracy and every PSF.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine import components
from arcforge.engine.errors import CatalogError
from arcforge.engine.psf import gaussian_sigma
from arcforge.engine.source_bank import SourceBank, Template
from arcforge.kernels.codes import PSF_IMAGE, PSF_NONE

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
# renders columns with these sources into an array
Render = Callable[["RenderColumns", "SourceBank | None"], Pixels]

SHAPES = ("ring", "spiral")
LOOKALIKES = ("averaged", *SHAPES)
# column of a ring's or spiral's row: what it holds, lowest and highest value
SHAPE_COLUMNS = {
    "shape_radius_arcsec": ("radius of the ring, or at which spiral arms are brightest", 1e-3, 1e3),
    "shape_e": ("ellipticity (1-q)/(1+q) that the inclination gives it; src_phi_rad turns it", 0.0, 0.9),
    "shape_width": ("sigma of the ring over its radius; of a spiral's arm, in radians", 0.02, 1.0),
    "shape_contrast": ("brightest less faintest over their sum, along the ring or arm", 0.0, 1.0),
    "shape_turn_rad": ("azimuth of its brightest place, in its own plane", -np.inf, np.inf),
    "shape_pitch_rad": ("pitch angle of spiral arms, negative where they wind the other way", -1.5, 1.5),
    "shape_arms": ("number of spiral arms", 1.0, 12.0),
}
_LEAST_PITCH_RAD = 0.05  # arms wound more tightly are a disc
# Steps of an average per radian of arc over the PSF's sigma. Measured through Moffats of 1.3 arcsec, the
# pattern that is left has 2e-6 of the peak in the median, 9e-5 at worst (3 steps: 9e-4).
_STEPS = 4.0
_NO_PSF_SIGMA_PIX = 0.29  # of a pixel's own box
_IMAGE_SIGMA_PIX = 0.7
_FEWEST, _MOST = 12, 512
_TURNED_AT_ONCE = 512
# pixels of a shape: a third of the stamp's, or finer where it is thin, to an eighth
_COARSEST, _FINEST, _THINNEST_PIX = 1.0 / 3.0, 1.0 / 8.0, 1.2
_LARGEST_SIDE = 1023


def lookalike_kinds(catalog: Any, n: int) -> NDArray[Any] | None:
    """The ``kind`` of each row of a table or mapping; None where no row is rendered here."""
    names = getattr(catalog, "column_names", None) or list(catalog)
    if "kind" not in names:
        return None
    column = catalog["kind"]
    values = column.to_pylist() if hasattr(column, "to_pylist") else np.asarray(column).tolist()
    kinds = np.array([value if value in LOOKALIKES else "" for value in values])
    return kinds if n and (kinds != "").any() else None


def as_profiles(catalog: Any, columns: RenderColumns) -> RenderColumns:
    """Check the rows that are rings and spirals; return the columns with plain profiles in their places.

    Raises
    ------
    CatalogError
        As :func:`render_lookalikes`.
    """
    kinds = lookalike_kinds(catalog, len(columns))
    if kinds is None or not np.isin(kinds, SHAPES).any():
        return columns
    shaped = np.isin(kinds, SHAPES)
    radius = np.ones(len(columns))
    radius[shaped] = _shape_values(catalog, np.flatnonzero(shaped))["shape_radius_arcsec"]
    return replace(
        columns,
        source_id=np.where(shaped, "", columns.source_id),
        src_reff_arcsec=np.where(shaped, radius, columns.src_reff_arcsec),
    )


def render_lookalikes(
    catalog: Any,
    kinds: NDArray[Any],
    columns: RenderColumns,
    pixscale_arcsec: float,
    sources: SourceBank | None,
    render: Render,
    out: Pixels,
) -> None:
    """Render the rows that are no lensed source, in their places of ``out`` (n, bands, ny, nx).

    Parameters
    ----------
    catalog
        The rows as a table or mapping: shapes have columns of their own, ``SHAPE_COLUMNS``.
    kinds
        (n,) from :func:`lookalike_kinds`.
    columns
        The same rows for the renderer.
    pixscale_arcsec
        Of the stamps.
    sources
        Source images that rows name.
    render
        Renders columns with a bank of sources.

    Raises
    ------
    CatalogError
        Where a shape's column is absent or out of range.
    """
    turned = np.flatnonzero(kinds == "averaged")
    if turned.size:
        out[turned] = _averages(columns.take(turned), pixscale_arcsec, sources, render)
    shaped = np.flatnonzero(np.isin(kinds, SHAPES))
    if shaped.size:
        values = _shape_values(catalog, shaped)
        ids = np.array([f"{kinds[row]}-{row}" for row in shaped])
        bank = SourceBank(
            [
                shape_template(name, str(kinds[row]), {k: float(v[i]) for k, v in values.items()},
                               pixscale_arcsec)
                for i, (name, row) in enumerate(zip(ids, shaped, strict=True))
            ]
        )  # fmt: skip
        out[shaped] = render(replace(columns.take(shaped), source_id=ids), bank)


def steps_of_average(columns: RenderColumns, pixscale_arcsec: float) -> NDArray[np.int64]:
    """How many turns the average of each row is a mean of."""
    fwhm = np.where(columns.psf_fwhm_arcsec > 0.0, columns.psf_fwhm_arcsec, np.inf).min(axis=1)
    sigma = gaussian_sigma(fwhm)
    sigma = np.where(columns.psf_model == PSF_IMAGE, _IMAGE_SIGMA_PIX * pixscale_arcsec, sigma)
    sigma = np.where(columns.psf_model == PSF_NONE, _NO_PSF_SIGMA_PIX * pixscale_arcsec, sigma)
    beta = np.hypot(columns.src_x_arcsec, columns.src_y_arcsec) + components.offset_arcsec(columns)
    # the long axis of a flattened lens's ring, and a source beyond it
    radius = 1.3 * columns.theta_e_arcsec / (1.0 - np.abs(columns.shear)) + beta + columns.src_reff_arcsec
    return np.clip(np.ceil(_STEPS * radius / sigma), _FEWEST, _MOST).astype(np.int64)


def _averages(
    columns: RenderColumns, pixscale_arcsec: float, sources: SourceBank | None, render: Render
) -> Pixels:
    """Arcs averaged in azimuth, float32 (n, bands, ny, nx)."""
    steps = steps_of_average(columns, pixscale_arcsec)
    averages, first = [], 0
    while first < len(columns):
        stop = first + 1
        while stop < len(columns) and steps[first : stop + 1].sum() <= _TURNED_AT_ONCE:
            stop += 1
        rows = np.repeat(np.arange(first, stop), steps[first:stop])
        angle = np.concatenate([2.0 * np.pi * np.arange(k) / k for k in steps[first:stop]])
        images = render(_turned(columns.take(rows), angle), sources)
        ends = np.cumsum(steps[first:stop])[:-1]
        averages += [part.mean(axis=0, dtype=np.float64) for part in np.split(images, ends)]
        first = stop
    return np.stack(averages).astype(np.float32)


def _turned(columns: RenderColumns, angle_rad: Floats) -> RenderColumns:
    """Lens, shear and source turned about the lens's place."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    x, y = columns.src_x_arcsec, columns.src_y_arcsec
    turned = {
        name: getattr(columns, name) + angle_rad for name in ("lens_phi_rad", "shear_phi_rad", "src_phi_rad")
    }
    return replace(
        columns,
        src_x_arcsec=c * x - s * y,
        src_y_arcsec=s * x + c * y,
        more_shape=components.turned(columns, angle_rad),
        **turned,
    )


def _shape_values(catalog: Any, rows: NDArray[np.int64]) -> Mapping[str, Floats]:
    names = getattr(catalog, "column_names", None) or list(catalog)
    values: dict[str, Floats] = {}
    for name, (meant, low, high) in SHAPE_COLUMNS.items():
        if name not in names:
            raise CatalogError(f"rows of kind ring or spiral need the column {name} ({meant}): add it")
        column = catalog[name]
        whole = column.to_numpy() if hasattr(column, "null_count") else column
        values[name] = np.asarray(whole, dtype=np.float64)[rows]
        with np.errstate(invalid="ignore"):
            bad = ~(np.isfinite(values[name]) & (values[name] >= low) & (values[name] <= high))
        if bad.any():
            at = int(np.argmax(bad))
            raise CatalogError(
                f"catalogue row {rows[at]}: {name} is {values[name][at]:g}, allowed: {low:g} to {high:g}; "
                f"{meant}"
            )
    return values


def shape_template(name: str, kind: str, shape: Mapping[str, float], pixscale_arcsec: float) -> Template:
    """A ring or spiral as a source image.

    Parameters
    ----------
    name
        Its id.
    kind
        One of ``SHAPES``.
    shape
        A value for each of ``SHAPE_COLUMNS``.
    pixscale_arcsec
        Of the stamps it is for.
    """
    radius, width = shape["shape_radius_arcsec"], shape["shape_width"]
    q = (1.0 - shape["shape_e"]) / (1.0 + shape["shape_e"])
    extent = radius * (1.0 + 4.0 * width) if kind == "ring" else 2.5 * radius
    thin = radius * width * q * (1.0 if kind == "ring" else abs(np.sin(shape["shape_pitch_rad"])))
    scale = pixscale_arcsec * np.clip(thin / _THINNEST_PIX / pixscale_arcsec, _FINEST, _COARSEST)
    scale = max(scale, 2.0 * extent / _LARGEST_SIDE)
    half = int(np.ceil(extent / scale)) + 1
    axis = np.arange(-half, half + 1) * scale
    x, y = axis[None, :], axis[:, None] / q
    rho, azimuth = np.hypot(x, y), np.arctan2(y, x)
    light = _ring(rho, azimuth, shape) if kind == "ring" else _spiral(rho, azimuth, shape)
    return Template(name, light.astype(np.float32), scale)


def _ring(rho: Floats, azimuth: Floats, shape: Mapping[str, float]) -> Floats:
    radius = shape["shape_radius_arcsec"]
    across = np.exp(-0.5 * ((rho / radius - 1.0) / shape["shape_width"]) ** 2)
    return np.asarray(across * (1.0 + shape["shape_contrast"] * np.cos(azimuth - shape["shape_turn_rad"])))


def _spiral(rho: Floats, azimuth: Floats, shape: Mapping[str, float]) -> Floats:
    """Logarithmic arms on an exponential disc with a hole, where the host's own light is."""
    scaled = np.maximum(rho / shape["shape_radius_arcsec"], 1e-3)
    pitch, arms = shape["shape_pitch_rad"], shape["shape_arms"]
    pitch = np.copysign(max(abs(pitch), _LEAST_PITCH_RAD), pitch)
    phase = arms * (azimuth - shape["shape_turn_rad"] - np.log(scaled) / np.tan(pitch))
    arm = np.exp((np.cos(phase) - 1.0) / (arms * shape["shape_width"]) ** 2)
    disc = scaled**4 * np.exp(-4.0 * scaled) * np.clip(3.0 * (2.5 - scaled), 0.0, 1.0)  # brightest at 1
    faintest = (1.0 - shape["shape_contrast"]) / (1.0 + shape["shape_contrast"])
    return np.asarray(disc * (faintest + (1.0 - faintest) * arm))
