"""Effects of how a PSF kernel was applied: cut to a finite square, or convolved on an unpadded frame.

Both change faint, smooth light far from the arc, so they are computed on the pixel grid from the unconvolved
arc and added to the converged model. Kernels are sampled at pixel centres: fine for wings, not for cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from arcforge.kernels.codes import PSF_GAUSSIAN, PSF_MOFFAT

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns

Images = NDArray[np.float32]
Floats = NDArray[np.float64]


def sampled_psf(columns: RenderColumns, band: int, side: int, pixscale_arcsec: float) -> Images:
    """PSF of each row in one band at the offsets of a periodic frame, unit integral: float32 (n, side, side).

    Rows whose PSF is neither Gaussian nor Moffat get zeros.
    """
    fwhm = np.maximum(columns.psf_fwhm_arcsec[:, band], 1e-6)[:, None, None] / pixscale_arcsec
    beta = columns.moffat_beta[:, None, None]
    alpha2 = fwhm**2 / (4.0 * (2.0 ** (1.0 / beta) - 1.0))
    sigma2 = fwhm**2 / (8.0 * np.log(2.0))
    # one quarter is evaluated, the others mirror it
    distance = np.arange(side // 2 + 1, dtype=np.float32)
    r2 = (distance[:, None] ** 2 + distance[None, :] ** 2)[None]
    quarter = np.zeros((len(fwhm), *r2.shape[1:]), dtype=np.float32)
    moffat, gaussian = columns.psf_model == PSF_MOFFAT, columns.psf_model == PSF_GAUSSIAN
    if moffat.any():
        scale = (r2 / alpha2[moffat]).astype(np.float32)
        height = (beta - 1.0) / (np.pi * alpha2)
        quarter[moffat] = height[moffat] * np.exp(-beta[moffat] * np.log1p(scale))
    if gaussian.any():
        quarter[gaussian] = np.exp(-r2 / (2.0 * sigma2[gaussian])) / (2.0 * np.pi * sigma2[gaussian])
    mirror = np.abs(_offsets(side)).astype(np.int64)
    return np.asarray(quarter[:, mirror][:, :, mirror])


def _offsets(side: int) -> Floats:
    return np.asarray(fft.fftfreq(side, 1.0 / side).round())


def cut_kernel(
    images: Images,
    unconvolved: Images,
    columns: RenderColumns,
    pixscale_arcsec: float,
    edges_pix: Sequence[Floats],
) -> list[Images]:
    """Return the images as they would be with the PSF cut to |x|, |y| <= edge and renormalised.

    Parameters
    ----------
    images, unconvolved : float32 (n, band, y, x)
        With and without the PSF.
    columns : RenderColumns
        Of these rows, with the PSF that ``images`` have.
    pixscale_arcsec : float
    edges_pix : sequence of float64 (n, band)
        Half sides of the square: a kernel of 2 h + 1 pixels a side ends at h + 1/2. The outermost pixel
        counts in part.
    """
    ny, nx = images.shape[2:]
    # no light comes from farther than a frame away
    farthest = min(int(max(edge.max() for edge in edges_pix)) + 2, max(ny, nx))
    side = fft.next_fast_len(max(ny, nx) + max(ny, nx, farthest), real=True)
    results = [np.empty_like(images) for _ in edges_pix]
    for band in range(images.shape[1]):
        psf = sampled_psf(columns, band, side, pixscale_arcsec)
        spectrum = fft.rfft2(unconvolved[:, band], s=(side, side))
        for edge, result in zip(edges_pix, results, strict=True):
            reach = edge[:, band, None] + 0.5 - np.abs(_offsets(side))
            covered = np.clip(reach, 0.0, 1.0).astype(np.float32)
            inside = covered[:, :, None] * covered[:, None, :]
            kept = np.einsum("nyx,nyx->n", psf, inside, dtype=np.float64)[:, None, None]
            wing = fft.irfft2(spectrum * fft.rfft2(psf * (1.0 - inside)), s=(side, side))[:, :ny, :nx]
            result[:, band] = (images[:, band] - wing) / np.where(kept > 0, kept, 1.0)
    return results


def wraparound(
    unconvolved_wide: Images, columns: RenderColumns, pixscale_arcsec: float, stamp_size: int
) -> Images:
    """Return what an unpadded convolution adds to the right image: light that returns at the opposite edge.

    Parameters
    ----------
    unconvolved_wide : float32 (n, band, wide, wide)
        The arc without PSF on a frame that is wider than the stamp by ``stamp_size // 2`` on each side.
    columns : RenderColumns
    pixscale_arcsec : float
    stamp_size : int
        The frame that was convolved without padding.
    """
    margin = stamp_size // 2
    inner = slice(margin, margin + stamp_size)
    side = fft.next_fast_len(3 * stamp_size, real=True)
    result = np.empty((*unconvolved_wide.shape[:2], stamp_size, stamp_size), dtype=np.float32)
    for band in range(result.shape[1]):
        kernels = [sampled_psf(columns, band, n, pixscale_arcsec) for n in (stamp_size, side)]
        periodic, padded = (k / np.maximum(k.sum((1, 2), keepdims=True), 1e-30) for k in kernels)
        wrapped = _convolve(unconvolved_wide[:, band, inner, inner], periodic, stamp_size)
        result[:, band] = wrapped - _convolve(unconvolved_wide[:, band], padded, side)[:, inner, inner]
    return result


def _convolve(images: Images, kernel: Images, side: int) -> Images:
    """Periodic convolution on a frame of ``side`` pixels, images placed at its origin."""
    spectrum = fft.rfft2(images, s=(side, side)) * fft.rfft2(kernel)
    return np.asarray(fft.irfft2(spectrum, s=(side, side)))
