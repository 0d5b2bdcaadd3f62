"""A plain renderer in NumPy, for tests whose subject is not rendering, where kernels are not compiled.

As plain Python a kernel takes a second a stamp; this takes milliseconds. It samples the arbiter's formulas on
one regular grid and convolves once, to some per cent of the peak. Its bits do not depend on the other rows of
a batch or on threads, as those of the kernels do not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from scipy import fft

from arcforge.engine import reference, stamps
from arcforge.engine.psf import MOFFAT_NODES_PER_UNIT, moffat_alpha, moffat_table
from arcforge.engine.threads import usable_threads
from arcforge.kernels.codes import CONTROL, PSF_GAUSSIAN, PSF_IMAGE, PSF_NONE

SAMPLES = 2  # a pixel along a side; "uniform1" takes 1
MARGIN_PIX = 8
BY_KERNELS = stamps.render


def keep_certificate() -> None:
    """Let stores of this and other processes hold the certificate of this renderer."""
    from arcforge.engine.certificate import quick_certificate

    stamps.render = render
    try:
        quick_certificate()
    finally:
        stamps.render = BY_KERNELS


def render(
    columns: Any,
    options: stamps.Options,
    threads: int | None,
    out: np.ndarray,
    images: Any = None,
    sources: Any = None,
    magnification: np.ndarray | None = None,
    effort: np.ndarray | None = None,
) -> None:
    """Stand in for ``engine.stamps.render``: the same arguments, refusals and frame."""
    usable_threads(threads)
    stamps._check_images(columns, images)
    stamps.make_batch(columns, options, images, sources, magnification, effort)  # refuses what no grid holds
    if effort is not None:
        samples = (SAMPLES * options.stamp_size) ** 2
        effort[:] = np.where(columns.lens_model == CONTROL, np.nan, samples)[:, None]
    for row in range(len(columns)):
        if columns.lens_model[row] == CONTROL:
            out[row], magnified = 0.0, np.nan
        else:
            magnified = _render_row(columns, row, options, out[row], images, sources)
        if magnification is not None:
            magnification[row] = magnified


def _render_row(
    c: Any, row: int, options: stamps.Options, out: np.ndarray, images: Any, sources: Any
) -> float:
    """Write one row's bands; return its lensed over unlensed flux."""
    size, convolved = options.stamp_size, c.psf_model[row] != PSF_NONE
    wide = size + 2 * MARGIN_PIX * convolved
    per_pixel = 1 if options.variant.samples == 1 else SAMPLES
    scene = reference._scene(c if sources is None else sources.folded, row, options.pixscale_arcsec, sources)
    axis = (np.arange(wide * per_pixel) - 0.5 * (wide * per_pixel - 1)) / per_pixel
    x, y = np.meshgrid(axis, axis)
    if scene.image is not None:
        light = scene.image.brightness(*scene.source_position(x, y))
    else:
        light = scene.brightness(scene.radius(x, y))
    if not convolved:
        pixels = light.reshape(wide, per_pixel, wide, per_pixel).mean((1, 3))
        out[:] = c.src_flux_nmgy[row][:, None, None] * pixels
        return float(pixels.sum())
    ky, kx = fft.fftfreq(len(axis), 1 / per_pixel), fft.rfftfreq(len(axis), 1 / per_pixel)
    spectrum = fft.rfft2(light)
    if scene.image is None and scene.mass.theta_e < 1e-9 and scene.reff < 0.1:  # a point, unlensed
        x0, y0 = (at + scene.source[k] - axis[0] for k, at in enumerate(scene.lens))
        spectrum = np.exp(-2j * np.pi * y0 * ky)[:, None] * np.exp(-2j * np.pi * x0 * kx) * per_pixel**2
    beside = (per_pixel // 2 - 0.5 * (per_pixel - 1)) / per_pixel  # the sample that is read, from the centre
    spectrum *= np.exp(-2j * np.pi * beside * ky)[:, None] * np.exp(-2j * np.pi * beside * kx)
    if options.boxed:
        spectrum *= np.sinc(ky)[:, None] * np.sinc(kx)
    first = MARGIN_PIX * per_pixel + per_pixel // 2
    centres = slice(first, first + (size - 1) * per_pixel + 1, per_pixel)
    for band, flux in enumerate(c.src_flux_nmgy[row]):
        image = fft.irfft2(spectrum * _transfer(c, row, band, options, images, kx, ky), s=light.shape)
        out[band] = flux * image[centres, centres]
    return float(light.sum() / per_pixel**2)


def _transfer(
    c: Any, row: int, band: int, options: stamps.Options, images: Any, kx: np.ndarray, ky: np.ndarray
) -> np.ndarray:
    """Return the PSF's transform at frequencies in cycles a pixel: (ky, kx)."""
    if c.psf_model[row] == PSF_IMAGE:
        inside = (np.abs(ky) <= 0.5)[:, None] & (kx <= 0.5)
        return inside * reference._image_transfer(kx, ky, images.pixels[int(c.psf_id[row])][band])
    fwhm_pix = float(c.psf_fwhm_arcsec[row, band] / options.pixscale_arcsec)
    beta = None if c.psf_model[row] == PSF_GAUSSIAN else float(c.moffat_beta[row])
    return _round_transfer(fwhm_pix, beta, tuple(kx), tuple(ky))


@lru_cache(maxsize=256)  # an audit renders the same rows again and again
def _round_transfer(
    fwhm_pix: float, beta: float | None, kx: tuple[float, ...], ky: tuple[float, ...]
) -> np.ndarray:
    """Return the transform of a Gaussian PSF (``beta`` None), or of a Moffat one."""
    k = np.hypot(np.array(ky)[:, None], np.array(kx))
    if beta is None:
        return np.exp(-((np.pi * fwhm_pix * k) ** 2) / (4.0 * np.log(2.0)))
    table = moffat_table(beta)
    z = 2.0 * np.pi * moffat_alpha(fwhm_pix, beta) * k
    return np.interp(z * MOFFAT_NODES_PER_UNIT, np.arange(len(table)), table, right=0.0)
