"""Source images for the arbiter: their splines in float64, evaluated by SciPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FOOTPRINT_PIX = 3.0  # of a cell in the spline's pixels, before its 16 nodes are thought to see all of it


@dataclass(frozen=True)
class ImageLight:
    """The light of a template for unit flux.

    Attributes
    ----------
    coefficients : float64 (ny, nx)
        Of its spline; adding up to 1.
    pix : float
        Side of the spline's pixels in pixels of the stamp.
    phi : float
        Angle of its x axis, counter-clockwise from the stamp's.
    """

    coefficients: Floats
    pix: float
    phi: float

    @property
    def radius(self) -> float:
        """Distance from the centre beyond which it is dark [pix]."""
        return 0.5 * self.pix * float(np.hypot(*self.coefficients.shape))

    def brightness(self, x: Floats, y: Floats) -> Floats:
        """Return the brightness [1 / pix^2] at positions from the source's centre [pix]."""
        from scipy.ndimage import map_coordinates

        place = (x + 1j * y) * np.exp(-1j * self.phi) / self.pix
        rows, columns = self.coefficients.shape
        at = [place.imag + 0.5 * (rows - 1), place.real + 0.5 * (columns - 1)]
        found = map_coordinates(self.coefficients, at, order=3, prefilter=False, mode="constant")
        return np.asarray(found) / self.pix**2

    def hidden(self, x: Floats, y: Floats, reach: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the brightest light within ``reach`` of each position, and where a cell that spans so much
        may miss some of it.
        """
        lit = np.hypot(x, y) < self.radius + reach
        brightest = np.abs(self.coefficients).max() / self.pix**2
        return np.where(lit, brightest, 0.0), 2.0 * reach > FOOTPRINT_PIX * self.pix
