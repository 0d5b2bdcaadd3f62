"""Lens parameters that follow from the host: Einstein radius from its mass, shape from its light."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

OMEGA_M = 0.3  # flat cosmology; the Hubble constant drops out of a ratio of distances
_LIGHT_KM_S = 299_792.458
_RAD_ARCSEC = math.degrees(1.0) * 3600.0
_WINDOW_SIGMA_PIX = 4.0
_RADIUS_PIX = 12


def einstein_radius_arcsec(sigma_v_km_s: Floats, lens_z: Floats, src_z: Floats) -> Floats:
    """Einstein radius of an isothermal sphere, 4 pi (sigma_v / c)^2 D_ls / D_s [arcsec].

    Narayan & Bartelmann 1996, astro-ph/9606001, eq. 45; NaN where the source is not behind the lens. In a
    flat universe D_ls / D_s = 1 - chi_l / chi_s, of comoving distances.
    """
    ratio = 1.0 - comoving(lens_z) / comoving(src_z)
    theta = 4.0 * math.pi * (sigma_v_km_s / _LIGHT_KM_S) ** 2 * ratio * _RAD_ARCSEC
    return np.where(ratio > 0.0, theta, np.nan)


def comoving(z: Floats) -> Floats:
    """Comoving distance in units of c / H0, flat with OMEGA_M: good to 1e-6."""
    node, weight = np.polynomial.legendre.leggauss(24)
    steps = 0.5 * np.asarray(z)[:, None] * (node + 1.0)
    integrand = 1.0 / np.sqrt(OMEGA_M * (1.0 + steps) ** 3 + 1.0 - OMEGA_M)
    return np.asarray(0.5 * np.asarray(z) * (integrand @ weight))


def light_shape(pixels: NDArray[np.float32], x_pix: float, y_pix: float) -> tuple[float, float]:
    """Ellipticity (1 - q) / (1 + q) and angle [rad, counter-clockwise from +x] of a galaxy's light.

    Second moments under a round Gaussian window of 4 pixels, the window taken out again as for a Gaussian
    galaxy (1/C = 1/C_windowed - 1/W). The PSF is not taken out: it makes a galaxy rounder than it is, and
    leaves its angle.

    Parameters
    ----------
    pixels
        (bands, ny, nx); all bands are summed.
    x_pix, y_pix
        Its centroid.
    """
    image = pixels.astype(np.float64).sum(axis=0)
    ny, nx = image.shape
    y0, x0 = max(0, round(y_pix) - _RADIUS_PIX), max(0, round(x_pix) - _RADIUS_PIX)
    patch = image[y0 : min(ny, round(y_pix) + _RADIUS_PIX + 1), x0 : min(nx, round(x_pix) + _RADIUS_PIX + 1)]
    y = np.arange(patch.shape[0])[:, None] + y0 - y_pix
    x = np.arange(patch.shape[1])[None, :] + x0 - x_pix
    weight = (patch - np.median(image)) * np.exp(-0.5 * (x**2 + y**2) / _WINDOW_SIGMA_PIX**2)
    total = weight.sum()
    if not total > 0.0:
        return 0.0, 0.0
    xx, yy, xy = (
        (weight * x * x).sum() / total,
        (weight * y * y).sum() / total,
        (weight * x * y).sum() / total,
    )
    windowed = np.array([[xx, xy], [xy, yy]])
    if not np.linalg.det(windowed) > 0.0:
        return 0.0, 0.0
    inverse = np.linalg.inv(windowed) - np.eye(2) / _WINDOW_SIGMA_PIX**2
    values, vectors = np.linalg.eigh(inverse)
    if values[0] <= 0.0:  # broader than the window tells: its shape under the window
        values, vectors = np.linalg.eigh(np.linalg.inv(windowed))
    q = math.sqrt(values[0] / values[1])
    return (1.0 - q) / (1.0 + q), math.atan2(vectors[1, 0], vectors[0, 0]) % math.pi
