"""The pedestal of a source bank: a constant behind every source template, which the lens maps with it.

Image templates that were cut from noisy data, or whose sky was not subtracted, carry light out to the
template's edge. Lensed, it fills the image of a square (or a disc) of the source plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from arcforge.engine.auditing.kernels import sampled_psf
from arcforge.engine.profiles import deflection_shear, deflection_sie

if TYPE_CHECKING:
    from arcforge.engine.auditing.forward import Forward

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Integers = NDArray[np.int64]

# Samples a pixel along a side; the light is flat, only its edge needs them
_SAMPLES = 4
# Half sides (or radii) of templates that are tried, in arcsec
HALF_SIZES_ARCSEC = (0.5, 0.7, 1.0, 1.3, 1.7, 2.2, 2.8, 3.6, 4.6)


class BankPedestal:
    """Lensed pedestals of some rows, for any template size.

    Parameters
    ----------
    forward : Forward
        Recorded lenses and sources.
    rows : int64 (n,)
    """

    def __init__(self, forward: Forward, rows: Integers) -> None:
        self.columns = forward.columns.take(rows)
        self.pixscale_arcsec = forward.pixscale_arcsec
        self.stamp_size = forward.stamp_size
        self.pixel_response = forward.pixel_response
        self._u, self._v = self._source_positions()

    def _source_positions(self) -> tuple[Images, Images]:
        """Position of every sample in the source's frame, in arcsec: float32 (n, y, x) each."""
        c, side = self.columns, self.stamp_size * _SAMPLES
        axis = (np.arange(side) - (side - 1) / 2.0) * self.pixscale_arcsec / _SAMPLES
        u, v = (np.empty((len(c), side, side), dtype=np.float32) for _ in range(2))
        for row in range(len(c)):
            x, y = np.meshgrid(axis - c.lens_x_arcsec[row], axis - c.lens_y_arcsec[row])
            lens = deflection_sie(x, y, c.theta_e_arcsec[row], c.lens_e[row], c.lens_phi_rad[row])
            shear = deflection_shear(x, y, c.shear[row], c.shear_phi_rad[row])
            u[row] = x - lens[0] - shear[0] - c.src_x_arcsec[row]
            v[row] = y - lens[1] - shear[1] - c.src_y_arcsec[row]
        return u, v

    def _cell_response(self, side: int) -> Images | float:
        """Blur by the pixel that means over pixels hold and a PSF that holds the pixel already must not."""
        if self.pixel_response != "in_psf":
            return 1.0
        along_y, along_x = np.sinc(fft.fftfreq(side)), np.sinc(fft.rfftfreq(side))
        return np.asarray(along_y[:, None] * along_x, dtype=np.float32)

    def template(self, half_arcsec: float, square: bool) -> Images:
        """Light of a pedestal that holds the source's flux over the template: float32 (n, band, y, x).

        Parameters
        ----------
        half_arcsec : float
            Half the side of a square along x and y, or the radius of a disc.
        square : bool
        """
        c, n = self.columns, self.stamp_size
        if square:
            inside = (np.abs(self._u) <= half_arcsec) & (np.abs(self._v) <= half_arcsec)
            area = 4.0 * half_arcsec**2
        else:
            inside = self._u**2 + self._v**2 <= half_arcsec**2
            area = np.pi * half_arcsec**2
        cells = inside.reshape(len(c), n, _SAMPLES, n, _SAMPLES).mean((2, 4), dtype=np.float32)
        side = fft.next_fast_len(2 * n, real=True)
        spectrum = fft.rfft2(cells, s=(side, side)) / self._cell_response(side)
        result = np.empty((len(c), c.src_flux_nmgy.shape[1], n, n), dtype=np.float32)
        for band in range(result.shape[1]):
            psf = sampled_psf(c, band, side, self.pixscale_arcsec)
            psf /= np.maximum(psf.sum((1, 2), keepdims=True), 1e-30)
            smooth = fft.irfft2(spectrum * fft.rfft2(psf), s=(side, side))[:, :n, :n]
            level = c.src_flux_nmgy[:, band] / area * self.pixscale_arcsec**2
            result[:, band] = smooth * level[:, None, None]
        return result
