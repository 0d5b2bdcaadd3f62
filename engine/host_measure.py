"""Measure a host galaxy on its cutout: sky, sub-pixel centroid, aperture magnitudes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import HostError

Floats = NDArray[np.float64]

APERTURE_RADIUS_ARCSEC = 2.5
SEARCH_RADIUS_PIX = 3.0
WINDOW_SIGMA_PIX = 2.0
MIN_SIGNAL_TO_NOISE = 5.0
_WINDOW_RADIUS_PIX = 7
_CONVERGED_PIX = 1e-5
_CLIP_ROUNDS = 10
_STEP = 1.5
_MAX_STEPS = 100


@dataclass(frozen=True)
class Measurement:
    """What is measured on a cutout of (bands, ny, nx) pixels."""

    x_pix: float  #: 0-based column of the centroid
    y_pix: float
    mag: tuple[float, ...]  #: AB, aperture of radius 2.5 arcsec less sky; NaN where its flux is not positive
    sky_sigma_nmgy: tuple[float, ...]  #: standard deviation of a sky pixel


def measure(pixels: NDArray[np.float32], pixscale_arcsec: float) -> Measurement:
    """Measure the galaxy at the centre of a cutout.

    Parameters
    ----------
    pixels : float32 (bands, ny, nx)
        Finite, nanomaggies.
    pixscale_arcsec : float
        Pixel scale.

    Raises
    ------
    HostError
        No galaxy within 3 pixels of the central pixel (without the file's name, which the caller adds).
    """
    sky = [clipped_sky(plane) for plane in pixels]
    sigma = np.array([s for _, s in sky])
    image = pixels.astype(np.float64) - np.array([level for level, _ in sky])[:, None, None]
    # bands add with weight 1/variance: the deepest one settles the position; noise-free images count alike
    weights = 1.0 / sigma**2 if (sigma > 0).all() else np.ones(len(sigma))
    x, y = centroid(np.tensordot(weights, image, axes=1), math.sqrt(float(np.sum((weights * sigma) ** 2))))
    flux = [_aperture_flux(plane, x, y, APERTURE_RADIUS_ARCSEC / pixscale_arcsec) for plane in image]
    mags = tuple(22.5 - 2.5 * math.log10(value) if value > 0 else math.nan for value in flux)
    return Measurement(x, y, mags, tuple(float(s) for s in sigma))


def clipped_sky(plane: NDArray[np.float32]) -> tuple[float, float]:
    """Median and standard deviation of the pixels within 3 sigma of the median, in nanomaggies.

    The deviation is that of a Gaussian whose lower quartile lies as far below the median as theirs: galaxies
    only brighten pixels, so the lower side is the clean one. One sort serves every round of clipping.
    """
    values = np.sort(plane, axis=None)
    first, last = 0, values.size  # the kept range
    for _ in range(_CLIP_ROUNDS):
        level = float(values[(first + last) // 2])
        sigma = (level - float(values[first + (last - first) // 4])) / 0.67449
        kept = np.searchsorted(values, np.array([level - 3.0 * sigma, level + 3.0 * sigma], values.dtype))
        if sigma == 0.0 or (kept[0] == first and kept[1] == last):
            break
        first, last = int(kept[0]), int(kept[1])
    return level, sigma


def centroid(image: Floats, sigma: float) -> tuple[float, float]:
    """Sub-pixel position (x, y), 0-based, of the galaxy nearest the central pixel.

    Parameters
    ----------
    image : float64 (ny, nx)
        Sky-subtracted; the central pixel is (ny // 2, nx // 2).
    sigma : float
        Standard deviation of a pixel.

    Notes
    -----
    Iterated first moments under a Gaussian window of sigma 2 pixels. The window shows only a part of a shift
    (half for a galaxy of its own width), so steps are lengthened; by less than 2, since of a point it shows
    all. A plain moment would be pulled by pixels where a neighbour is in the frame.

    Raises
    ------
    HostError
        The windowed signal is below 5 sigma or the position leaves the search radius of 3 pixels.
    """
    centre_y, centre_x = image.shape[0] // 2, image.shape[1] // 2
    x, y = _brightest_near(image, centre_x, centre_y)
    for _ in range(_MAX_STEPS):
        dx, dy, signal, noise = _windowed(image, x, y)
        if not signal > MIN_SIGNAL_TO_NOISE * noise * sigma or signal <= 0.0:
            ratio = signal / (noise * sigma) if sigma > 0 else math.nan
            raise HostError(
                f"no galaxy at its centre (signal to noise {ratio:.1f} < {MIN_SIGNAL_TO_NOISE:g} at pixel "
                f"x = {x:.1f}, y = {y:.1f}): cut it out around the galaxy, or remove it",
                reason="no galaxy",
            )
        x, y = x + _STEP * dx, y + _STEP * dy
        if math.hypot(x - centre_x, y - centre_y) > SEARCH_RADIUS_PIX + 1.0:
            break
        if math.hypot(dx, dy) < _CONVERGED_PIX:
            return x, y
    raise HostError(
        f"no distinct galaxy within {SEARCH_RADIUS_PIX:g} pixels of its central pixel "
        f"({centre_x}, {centre_y}): cut it out around the galaxy, or remove it",
        reason="no galaxy",
    )


def _brightest_near(image: Floats, centre_x: int, centre_y: int) -> tuple[float, float]:
    """The brightest 3x3 mean within the search radius."""
    reach = int(SEARCH_RADIUS_PIX)
    rows = slice(centre_y - reach - 1, centre_y + reach + 2)
    columns = slice(centre_x - reach - 1, centre_x + reach + 2)
    patch = image[rows, columns]
    size = 2 * reach + 1
    smooth = sum(patch[i : i + size, j : j + size] for i in range(3) for j in range(3))
    offset = np.arange(-reach, reach + 1)
    outside = np.hypot(offset[:, None], offset[None, :]) > SEARCH_RADIUS_PIX
    best = int(np.argmax(np.where(outside, -np.inf, smooth)))
    return float(centre_x + offset[best % size]), float(centre_y + offset[best // size])


def _windowed(image: Floats, x: float, y: float) -> tuple[float, float, float, float]:
    """First moments about (x, y), windowed sum, and the sum's noise for a pixel sigma of 1."""
    ny, nx = image.shape
    row0, column0 = max(round(y) - _WINDOW_RADIUS_PIX, 0), max(round(x) - _WINDOW_RADIUS_PIX, 0)
    rows = np.arange(row0, min(round(y) + _WINDOW_RADIUS_PIX + 1, ny))
    columns = np.arange(column0, min(round(x) + _WINDOW_RADIUS_PIX + 1, nx))
    window_y = np.exp(-0.5 * ((rows - y) / WINDOW_SIGMA_PIX) ** 2)
    window_x = np.exp(-0.5 * ((columns - x) / WINDOW_SIGMA_PIX) ** 2)
    patch = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    along_x = window_y @ patch
    along_y = patch @ window_x
    signal = float(along_x @ window_x)
    noise = math.sqrt(float(np.sum(window_x**2) * np.sum(window_y**2)))
    if signal <= 0.0:
        return 0.0, 0.0, signal, noise
    dx = float(along_x @ (window_x * (columns - x))) / signal
    dy = float(along_y @ (window_y * (rows - y))) / signal
    return dx, dy, signal, noise


def _aperture_flux(plane: Floats, x: float, y: float, radius_pix: float) -> float:
    """Sum within the radius; a pixel on the edge counts by a linear ramp one pixel wide."""
    rows, columns = np.arange(plane.shape[0]), np.arange(plane.shape[1])
    distance = np.hypot(rows[:, None] - y, columns[None, :] - x)
    return float(np.sum(plane * np.clip(radius_pix + 0.5 - distance, 0.0, 1.0)))
