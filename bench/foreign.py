"""A second renderer, written apart from the engine's.

The audit is calibrated on sets that its own renderer did not make. This one samples the lens equation on a
fine regular grid (finer where the source is), convolves by Fourier transform with a PSF kernel sampled on
that grid, and reads the image at pixel centres. It follows the same definitions (contract: intermediate-axis
Einstein radius, major-axis half-light radius, PSF that holds the pixel) and shares no code with the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

# Samples a pixel along a side; odd, so that one of them is the pixel's centre
_SAMPLES = 5
# Pixels around the stamp whose light is convolved into it
_MARGIN_PIX = 24
# (source-plane radius in half-light radii, sub-samples a side) of cells that hold a cusp
_REFINED = ((2.0, 4), (0.4, 16), (0.04, 64))
# Model codes of the engine's columns, written out so that nothing but numbers is shared
_CONTROL, _SIS, _SIE = 0, 1, 2
_GAUSSIAN, _MOFFAT = 1, 2


@dataclass(frozen=True)
class ForeignRenderer:
    """Renders the engine's columns without the engine.

    Attributes
    ----------
    pixscale_arcsec : float
    kernel_fwhm : float
        The PSF kernel is cut to a square of this half side in FWHM; infinity keeps all of it.
    outside_light : bool
        Light that falls beside the stamp is convolved into it.
    padded : bool
        False convolves on the stamp's own periodic frame: light wraps round.
    renormalised : bool
        A cut kernel is scaled to unit sum.
    bank_pedestal, bank_half_arcsec : float
        A constant behind the source, as a share of its flux, over a square of this half side.
    """

    pixscale_arcsec: float = 0.262
    kernel_fwhm: float = np.inf
    outside_light: bool = True
    padded: bool = True
    renormalised: bool = True
    bank_pedestal: float = 0.0
    bank_half_arcsec: float = 1.2

    def __call__(self, columns: RenderColumns, stamp_size: int) -> Images:
        """Render rows: float32 (n, band, y, x), nanomaggies per pixel."""
        return np.stack([self._row(columns, row, stamp_size) for row in range(len(columns))])

    def _pedestal(self, c: RenderColumns, row: int, x: Floats, y: Floats) -> Floats:
        u, v = _source_position(c, row, x, y)
        inside = np.maximum(np.abs(u), np.abs(v)) <= self.bank_half_arcsec
        return np.asarray(self.bank_pedestal / (4.0 * self.bank_half_arcsec**2) * inside, dtype=np.float64)

    def _row(self, c: RenderColumns, row: int, stamp_size: int) -> Images:
        if c.lens_model[row] == _CONTROL:
            return np.zeros((c.src_flux_nmgy.shape[1], stamp_size, stamp_size), dtype=np.float32)
        margin = _margin(stamp_size) if self.padded else 0
        wide = stamp_size + 2 * margin
        light = self._unit_light(c, row, wide)
        if not self.outside_light:
            edge = margin * _SAMPLES
            inside = np.zeros_like(light)
            inner = slice(edge, light.shape[0] - edge or None)
            inside[inner, inner] = light[inner, inner]
            light = inside
        spectrum = fft.rfft2(light)
        pixels = slice(margin * _SAMPLES + _SAMPLES // 2, (margin + stamp_size) * _SAMPLES, _SAMPLES)
        bands = [
            fft.irfft2(spectrum * self._kernel(c, row, band, wide), s=light.shape)[pixels, pixels] * flux
            for band, flux in enumerate(c.src_flux_nmgy[row])
        ]
        return np.array(bands, dtype=np.float32)

    def _unit_light(self, c: RenderColumns, row: int, wide_pix: int) -> Floats:
        """Light of a source of unit flux per pixel, as the mean of each fine cell: (y, x)."""
        step = self.pixscale_arcsec / _SAMPLES
        side = wide_pix * _SAMPLES
        axis = (np.arange(side) - (side - 1) / 2.0) * step
        x, y = np.meshgrid(axis, axis)
        light, radius = _surface_brightness(c, row, x, y)
        for limit, parts in _REFINED:
            near = radius < limit
            offsets = (np.arange(parts) - (parts - 1) / 2.0) / parts * step
            dx, dy = (d.ravel() for d in np.meshgrid(offsets, offsets))
            fine, _ = _surface_brightness(c, row, x[near][:, None] + dx, y[near][:, None] + dy)
            light[near] = fine.mean(1)
        if self.bank_pedestal:
            light = light + self._pedestal(c, row, x, y)
        return light * self.pixscale_arcsec**2

    def _kernel(self, c: RenderColumns, row: int, band: int, wide_pix: int) -> NDArray[np.complex128]:
        """Transform of the PSF of one row and band on the fine periodic frame."""
        side = wide_pix * _SAMPLES
        fwhm = c.psf_fwhm_arcsec[row, band] / self.pixscale_arcsec * _SAMPLES
        # one quarter is evaluated, the others mirror it
        quarter = np.arange(side // 2 + 1, dtype=np.float64)
        r2 = quarter[:, None] ** 2 + quarter**2
        if c.psf_model[row] == _GAUSSIAN:
            sigma = fwhm / np.sqrt(8.0 * np.log(2.0))
            kernel = np.exp(-r2 / (2.0 * sigma**2)) / (2.0 * np.pi * sigma**2)
        elif c.psf_model[row] == _MOFFAT:
            beta = c.moffat_beta[row]
            alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
            kernel = (beta - 1.0) / (np.pi * alpha**2) * (1.0 + r2 / alpha**2) ** -beta
        else:
            raise ValueError(f"row {row}: this renderer knows Gaussian and Moffat PSFs")
        if np.isfinite(self.kernel_fwhm):
            half = np.floor(self.kernel_fwhm * fwhm / _SAMPLES) * _SAMPLES + _SAMPLES // 2
            inside = quarter <= half
            kernel = kernel * inside[:, None] * inside
        mirror = np.abs(fft.fftfreq(side, 1.0 / side)).round().astype(np.int64)
        kernel = kernel[mirror][:, mirror]
        if np.isfinite(self.kernel_fwhm) and self.renormalised:
            kernel = kernel / kernel.sum()
        return np.asarray(fft.rfft2(kernel))


def _margin(stamp_size: int) -> int:
    """Pixels around the stamp: a frame that transforms fast."""
    margin = _MARGIN_PIX
    while fft.next_fast_len(stamp_size + 2 * margin, real=True) != stamp_size + 2 * margin:
        margin += 1
    return margin


def _surface_brightness(c: RenderColumns, row: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Brightness per square arcsec of a source of unit flux, and source radius in half-light radii."""
    u, v = _source_position(c, row, x, y)
    cos, sin = np.cos(c.src_phi_rad[row]), np.sin(c.src_phi_rad[row])
    ratio = (1.0 - c.src_e[row]) / (1.0 + c.src_e[row])
    radius = np.hypot(cos * u + sin * v, (cos * v - sin * u) / ratio) / c.src_reff_arcsec[row]
    n = c.src_n[row]
    b = special.gammaincinv(2.0 * n, 0.5)
    total = 2.0 * np.pi * n * ratio * special.gamma(2.0 * n) * b ** (-2.0 * n) * c.src_reff_arcsec[row] ** 2
    return np.exp(-b * radius ** (1.0 / n)) / total, radius


def _source_position(c: RenderColumns, row: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Source-plane position from the source's centre, in arcsec."""
    x, y = x - c.lens_x_arcsec[row], y - c.lens_y_arcsec[row]
    alpha_x, alpha_y = _deflection(c, row, x, y)
    return x - alpha_x - c.src_x_arcsec[row], y - alpha_y - c.src_y_arcsec[row]


def _deflection(c: RenderColumns, row: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Deflection of a singular isothermal ellipsoid (Kormann et al. 1994, eq. 27a) with shear."""
    theta_e, shear, shear_phi = c.theta_e_arcsec[row], c.shear[row], c.shear_phi_rad[row]
    z = x + 1j * y
    q = (1.0 - c.lens_e[row]) / (1.0 + c.lens_e[row])
    if c.lens_model[row] == _SIS or q > 1.0 - 1e-9:
        alpha = theta_e * z / np.maximum(np.abs(z), 1e-12)
    elif c.lens_model[row] == _SIE:
        turn = np.exp(1j * c.lens_phi_rad[row])
        w = z / turn
        angle = np.angle(w)
        f = np.sqrt(1.0 - q * q)
        # Kormann et al. have the major axis along their second coordinate
        along = np.arcsin(f * np.cos(angle)) + 1j * np.arcsinh(f / q * np.sin(angle))
        alpha = theta_e * np.sqrt(q) / f * along * turn
    else:
        raise ValueError(f"row {row}: this renderer knows SIS and SIE lenses")
    alpha = alpha + shear * np.exp(2j * shear_phi) * np.conj(z)
    return alpha.real, alpha.imag
