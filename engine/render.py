"""Render lensed sources: one stamp, or a catalogue of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import render_columns
from arcforge.engine.components import has_components, render_components
from arcforge.engine.errors import CatalogError, RenderError
from arcforge.engine.lookalikes import lookalike_kinds, render_lookalikes
from arcforge.engine.profiles import (
    deflection_epl,
    deflection_nfw,
    deflection_shear,
    deflection_sie,
    deflection_sis,
    sersic_profile_Ie1,
    sersic_unit_total_flux,
)
from arcforge.engine.source_bank import as_bank
from arcforge.engine.source_rows import source_rows
from arcforge.engine.variants import variant_named

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.psf_images import PsfImages

__all__ = [
    "deflection_epl",
    "deflection_nfw",
    "deflection_shear",
    "deflection_sie",
    "deflection_sis",
    "render_batch",
    "render_lensed_source",
    "render_rows",
    "render_unlensed",
    "sersic_profile_Ie1",
    "sersic_unit_total_flux",
]

PIXEL_RESPONSES = ("in_psf", "box")
RTOL_RANGE = (1e-5, 0.1)


def render_batch(
    catalog: Any,
    *,
    stamp_size: int = 64,
    pixscale_arcsec: float = 0.262,
    bands: str = "grz",
    rtol: float = 1e-3,
    variant: str = "auto",
    threads: int | None = None,
    pixel_response: str = "in_psf",
    theta_e_convention: str = "intermediate",
    psf_images: Any = None,
    sources: Any = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Render the lensed source of every catalogue row, in every band, convolved with the row's PSF.

    Parameters
    ----------
    catalog : mapping of str to 1-D array, or pyarrow.Table
        One row a stamp: ``lens_model``, ``theta_e_arcsec``, ``lens_e``, ``lens_phi_rad``, ``src_x_arcsec``,
        ``src_y_arcsec``, ``src_reff_arcsec``, ``src_e``, ``src_phi_rad``, and a band each
        ``src_flux_nmgy_<band>`` and ``psf_fwhm_arcsec_<band>``; with defaults ``src_n`` (1), ``shear``,
        ``shear_phi_rad``, ``lens_x_arcsec``, ``lens_y_arcsec`` (0), ``psf_model`` ("gaussian"),
        ``moffat_beta`` (3.5); CONVENTIONS.md says what they mean. CONTROL rows give zeros; rows whose
        ``kind`` is averaged, ring or spiral what :mod:`arcforge.engine.lookalikes` says.
    stamp_size : int
        Pixels a side; the frame's origin is the stamp's centre, (stamp_size - 1) / 2.
    pixscale_arcsec : float
    bands : str
        Bands in output order; each has a flux and a PSF width column.
    rtol : float
        Bound on the largest pixel error, as a fraction of the image's peak, against the converged image
        ("auto" only), 1e-5 to 0.1.
    variant : str
        "auto", "uniform1", "uniform2", "uniform4", "uniform8", "low_rank" or "reference"; see ``arcforge
        bench kernels``, for "low_rank" ``engine.low_rank``.
    threads : int, optional
        Default: every core this process may use. The bits do not depend on it.
    pixel_response : {"in_psf", "box"}
        "in_psf": the PSF is the effective one, which holds the pixel's response, as survey PSFs do; the image
        is the brightness convolved with it, at pixel centres. "box": an optical PSF; the image is also
        integrated over the pixel. Rows without a PSF are pixel means in either case.
    theta_e_convention : {"intermediate", "major"}
    psf_images : mapping of int to array (bands, side, side), or PsfImages, optional
        PSFs of the rows with ``psf_model`` "image", by their ``psf_id``; odd side, summing to 1, centred.
    sources : SourceBank, path, or mapping of id to (image, pixscale_arcsec), optional
        Images of the rows with a ``source_id``. ``src_reff_arcsec`` is then the half-light radius to which
        the image is scaled (0 or null: its own size), ``src_phi_rad`` turns it, fluxes are the row's.
    out : float32 (n, bands, stamp_size, stamp_size), optional
        C-contiguous array to write to.

    Returns
    -------
    float32 (n, bands, stamp_size, stamp_size)
        Nanomaggies per pixel, never renormalised: the flux is the source's times its magnification.

    Raises
    ------
    CatalogError
        For a missing column or a value out of range; names row and column.
    PsfError
        For a PSF image of even side, off-centre or not adding up to 1; names it.
    RenderError
        For an option out of range, or a row whose light or PSF no grid can hold.
    """
    columns = render_columns(catalog, bands, theta_e_convention=theta_e_convention)

    def render(columns: RenderColumns, sources: Any, out: NDArray[np.float32] | None = None) -> Any:
        return render_rows(
            columns,
            stamp_size=stamp_size,
            pixscale_arcsec=pixscale_arcsec,
            rtol=rtol,
            variant=variant,
            threads=threads,
            pixel_response=pixel_response,
            psf_images=psf_images,
            sources=sources,
            out=out,
        )

    kinds = lookalike_kinds(catalog, len(columns))
    images: NDArray[np.float32]
    if kinds is None:
        images = render(columns, sources, out)
        return images
    bank = as_bank(sources)
    plain = np.flatnonzero(kinds == "")
    first = render(columns.take(plain), bank)  # which checks the options
    images = np.empty((len(columns), *first.shape[1:]), dtype=np.float32) if out is None else out
    images[plain] = first
    render_lookalikes(catalog, kinds, columns, pixscale_arcsec, bank, render, images)
    return images


def render_rows(
    columns: RenderColumns,
    *,
    stamp_size: int = 64,
    pixscale_arcsec: float = 0.262,
    rtol: float = 1e-3,
    variant: str = "auto",
    threads: int | None = None,
    pixel_response: str = "in_psf",
    psf_images: Any = None,
    sources: Any = None,
    out: NDArray[np.float32] | None = None,
    magnification: NDArray[np.float64] | None = None,
    effort: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Render columns that were validated before; arguments and result as those of ``render_batch``.

    ``magnification`` (n,), where given, is filled with each row's lensed over unlensed flux, summed over the
    whole grid that is rendered (of rows without a PSF: over the stamp); NaN in CONTROL rows and for
    ``variant`` "reference". ``effort`` (n, 3), where given, is filled with the samples that "auto" took, the
    cells that it divided, and its own bound on the image's error over its peak; NaN in other rows.
    """
    chosen = variant_named(variant)
    _check_options(stamp_size, pixscale_arcsec, rtol, pixel_response)
    shape = (len(columns), columns.src_flux_nmgy.shape[1], stamp_size, stamp_size)
    if out is None:
        out = np.empty(shape, dtype=np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise RenderError(
            f"out must be a C-contiguous float32 array of shape {shape}, not {out.dtype} {out.shape}"
        )
    if has_components(columns):
        images, bank = _as_images(psf_images, shape[1]), as_bank(sources)

        def one_component(part: RenderColumns, image: Any, magnified: Any, spent: Any) -> None:
            render_rows(
                part,
                stamp_size=stamp_size,
                pixscale_arcsec=pixscale_arcsec,
                rtol=rtol,
                variant=variant,
                threads=threads,
                pixel_response=pixel_response,
                psf_images=images,
                sources=bank,
                out=image,
                magnification=magnified,
                effort=spent,
            )

        render_components(columns, one_component, out, magnification, effort)
        return out
    boxed = pixel_response == "box"
    images = _as_images(psf_images, shape[1])
    image_rows = source_rows(columns, as_bank(sources), pixscale_arcsec)
    if image_rows is not None and chosen.samples:
        raise RenderError(
            f'variant is {variant!r}; rows with a source image are rendered by "auto" or "reference"'
        )
    if chosen.name == "reference":
        from arcforge.engine.reference import reference_stamps

        if magnification is not None:
            magnification[:] = np.nan
        if effort is not None:
            effort[:] = np.nan
        reference_stamps(columns, stamp_size, pixscale_arcsec, boxed, out, images, image_rows)
    else:
        from arcforge.engine.stamps import Options, render

        render(
            columns,
            Options(stamp_size, float(pixscale_arcsec), rtol, chosen, boxed),
            threads,
            out,
            images,
            image_rows,
            magnification,
            effort,
        )
    return out


def _as_images(psf_images: Any, n_bands: int) -> PsfImages | None:
    from arcforge.engine.psf_images import PsfImages

    if psf_images is None or isinstance(psf_images, PsfImages):
        return psf_images
    return PsfImages(psf_images, n_bands)


def _check_options(stamp_size: int, pixscale_arcsec: float, rtol: float, pixel_response: str) -> None:
    if not (isinstance(stamp_size, (int, np.integer)) and 4 <= stamp_size <= 1024):
        raise RenderError(f"stamp_size is {stamp_size!r}; allowed: 4 to 1024 pixels, a whole number")
    if not (np.isfinite(pixscale_arcsec) and pixscale_arcsec > 0.0):
        raise RenderError(f"pixscale_arcsec is {pixscale_arcsec!r}; allowed: value > 0")
    if not RTOL_RANGE[0] <= rtol <= RTOL_RANGE[1]:
        raise RenderError(f"rtol is {rtol!r}; allowed: {RTOL_RANGE[0]:g} to {RTOL_RANGE[1]:g}")
    if pixel_response not in PIXEL_RESPONSES:
        raise RenderError(f'pixel_response is {pixel_response!r}; use "in_psf" or "box"')


def render_unlensed(catalog: Any, *, bands: str = "grz", **options: Any) -> NDArray[np.float32]:
    """Render every row's source as it would look without its lens, at lens position plus source offset.

    Arguments and result as those of ``render_batch``.
    """
    columns = render_columns(
        catalog, bands, theta_e_convention=options.pop("theta_e_convention", "intermediate")
    )
    # the deflection vanishes with theta_E; 1e-30 keeps the one code path
    without = replace(
        columns,
        theta_e_arcsec=np.full(len(columns), 1e-30),
        lens_e=np.zeros(len(columns)),
        shear=np.zeros(len(columns)),
    )
    return render_rows(without, **options)


def render_lensed_source(
    stamp_size: int,
    pixscale_arcsec: float,
    lens_model: str,
    theta_e_arcsec: float,
    lens_e: float,
    lens_phi_rad: float,
    shear: float,
    shear_phi_rad: float,
    src_total_flux_nmgy: float,
    src_reff_arcsec: float,
    src_e: float,
    src_phi_rad: float,
    src_x_arcsec: float,
    src_y_arcsec: float,
    psf_fwhm_pix: float,
    psf_model: str = "gaussian",
    moffat_beta: float = 3.5,
    psf_apply: bool = True,
    *,
    src_n: float = 1.0,
    lens_x_arcsec: float = 0.0,
    lens_y_arcsec: float = 0.0,
    theta_e_convention: str = "intermediate",
    pixel_response: str = "in_psf",
    rtol: float = 1e-3,
) -> NDArray[np.float32]:
    """Render one lensed source in one band.

    Parameters
    ----------
    stamp_size : int
        Pixels a side, 4 to 1024.
    pixscale_arcsec : float
    lens_model : {"SIE", "SIS", "CONTROL"}
        CONTROL, or an Einstein radius of 0, gives zeros.
    theta_e_arcsec, lens_e, lens_phi_rad : float
        Einstein radius, ellipticity (1 - q) / (1 + q), angle of the major axis counter-clockwise from +x.
    shear, shear_phi_rad : float
    src_total_flux_nmgy : float
        UNLENSED total flux; the image is brighter by the magnification.
    src_reff_arcsec, src_e, src_phi_rad, src_n : float
        Major-axis half-light radius, ellipticity, angle, Sersic index.
    src_x_arcsec, src_y_arcsec : float
        Source offset from the lens.
    psf_fwhm_pix : float
        Full width at half maximum in PIXELS; 0 for no PSF.
    psf_model : {"gaussian", "moffat"}
    moffat_beta : float
    psf_apply : bool
        False for no PSF.
    lens_x_arcsec, lens_y_arcsec : float
        Lens position from the stamp's centre.
    theta_e_convention, pixel_response, rtol
        As those of ``render_batch``.

    Returns
    -------
    float32 (stamp_size, stamp_size)
        Nanomaggies per pixel.

    Raises
    ------
    RenderError, CatalogError
        For an argument out of range; names it.
    """
    _check_options(stamp_size, pixscale_arcsec, rtol, pixel_response)
    if not (np.isfinite(psf_fwhm_pix) and psf_fwhm_pix >= 0.0):
        raise RenderError(f"psf_fwhm_pix is {psf_fwhm_pix!r}; allowed: 0 (no PSF) or a width in pixels")
    if theta_e_arcsec == 0.0:
        lens_model = "CONTROL"
    with_psf = psf_apply and psf_fwhm_pix != 0
    row: dict[str, Any] = {
        "lens_model": lens_model,
        "theta_e_arcsec": theta_e_arcsec,
        "lens_e": lens_e,
        "lens_phi_rad": lens_phi_rad,
        "lens_x_arcsec": lens_x_arcsec,
        "lens_y_arcsec": lens_y_arcsec,
        "shear": shear,
        "shear_phi_rad": shear_phi_rad,
        "src_x_arcsec": src_x_arcsec,
        "src_y_arcsec": src_y_arcsec,
        "src_reff_arcsec": src_reff_arcsec,
        "src_n": src_n,
        "src_e": src_e,
        "src_phi_rad": src_phi_rad,
        "src_flux_nmgy_r": src_total_flux_nmgy,
        "psf_fwhm_arcsec_r": psf_fwhm_pix * pixscale_arcsec,
        "psf_model": psf_model if with_psf else "none",
        "moffat_beta": moffat_beta,
    }
    try:
        image: NDArray[np.float32] = render_batch(
            {name: np.array([value]) for name, value in row.items()},
            stamp_size=stamp_size,
            pixscale_arcsec=pixscale_arcsec,
            bands="r",
            rtol=rtol,
            threads=1,
            pixel_response=pixel_response,
            theta_e_convention=theta_e_convention,
        )
    except CatalogError as error:  # of a table of one row, which the caller has never seen
        message = str(error).removeprefix("catalogue row 0: ")
        raise CatalogError(message.replace("src_flux_nmgy_r", "src_total_flux_nmgy")) from None
    return np.asarray(image[0, 0])
