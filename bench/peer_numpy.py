"""Peer: plain NumPy as injection scripts write it, in float64: a meshgrid, a trace for each band, an FFT
convolution.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import RenderColumns
from arcforge.engine.psf import gaussian_sigma
from arcforge.engine.rays import central_brightness, sersic_bn

Floats = NDArray[np.float64]


def prepare(
    columns: RenderColumns, size_pix: int, pixscale_arcsec: float, *, samples: int
) -> Callable[[], NDArray[np.float32]]:
    """Return a call that renders every row in every band: float32 (n, bands, size_pix, size_pix)."""
    n_rows, n_bands = columns.src_flux_nmgy.shape
    out = np.empty((n_rows, n_bands, size_pix, size_pix), dtype=np.float32)

    def render() -> NDArray[np.float32]:
        for row in range(n_rows):
            for band in range(n_bands):
                image = _brightness(columns, row, size_pix, pixscale_arcsec, samples) * pixscale_arcsec**2
                sigma_pix = float(gaussian_sigma(columns.psf_fwhm_arcsec[row, band])) / pixscale_arcsec
                out[row, band] = columns.src_flux_nmgy[row, band] * _convolved(image, sigma_pix)
        return out

    return render


def _brightness(
    columns: RenderColumns, row: int, size_pix: int, pixscale_arcsec: float, samples: int
) -> Floats:
    """Return each pixel's mean brightness for unit flux [arcsec^-2]."""
    axis = ((np.arange(size_pix * samples) + 0.5) / samples - 0.5 * size_pix) * pixscale_arcsec
    x, y = np.meshgrid(axis - columns.lens_x_arcsec[row], axis - columns.lens_y_arcsec[row])
    alpha_x, alpha_y = _sie(x, y, columns, row)
    twist = 2.0 * columns.shear_phi_rad[row]
    g1, g2 = columns.shear[row] * np.cos(twist), columns.shear[row] * np.sin(twist)
    beta_x = x - alpha_x - (g1 * x + g2 * y) - columns.src_x_arcsec[row]
    beta_y = y - alpha_y - (g2 * x - g1 * y) - columns.src_y_arcsec[row]
    c, s = np.cos(columns.src_phi_rad[row]), np.sin(columns.src_phi_rad[row])
    q = (1.0 - columns.src_e[row]) / (1.0 + columns.src_e[row])
    radius = np.sqrt((c * beta_x + s * beta_y) ** 2 + ((c * beta_y - s * beta_x) / q) ** 2)
    n, reff = columns.src_n[row], columns.src_reff_arcsec[row]
    b_n = sersic_bn(n)
    light = central_brightness(n, b_n, np.float64(q), reff) * np.exp(-b_n * (radius / reff) ** (1.0 / n))
    if samples == 1:
        return np.asarray(light)
    return np.asarray(light.reshape(size_pix, samples, size_pix, samples).mean(axis=(1, 3)))


def _sie(x: Floats, y: Floats, columns: RenderColumns, row: int) -> tuple[Floats, Floats]:
    c, s = np.cos(columns.lens_phi_rad[row]), np.sin(columns.lens_phi_rad[row])
    q = (1.0 - columns.lens_e[row]) / (1.0 + columns.lens_e[row])
    f = np.sqrt(1.0 - q * q)
    along, across = c * x + s * y, c * y - s * x
    psi = np.sqrt(q * q * along**2 + across**2 + 1e-18)
    strength = columns.theta_e_arcsec[row] * np.sqrt(q) / f
    a, h = strength * np.arctan(f * along / psi), strength * np.arctanh(f * across / psi)
    return c * a - s * h, s * a + c * h


def _convolved(image: Floats, sigma_pix: float) -> Floats:
    """Convolve with a sampled Gaussian, on a grid that is wide enough for nothing to wrap round."""
    size = image.shape[0]
    padded = size + int(np.ceil(6.0 * sigma_pix))
    distance = np.fft.fftfreq(padded, 1.0 / padded)
    kernel = np.exp(-0.5 * (distance[:, None] ** 2 + distance[None, :] ** 2) / sigma_pix**2)
    kernel /= kernel.sum()
    spectrum = np.fft.rfft2(image, (padded, padded)) * np.fft.rfft2(kernel)
    return np.asarray(np.fft.irfft2(spectrum, (padded, padded))[:size, :size])
