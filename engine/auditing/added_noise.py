"""Noise that the stamp has and its control lacks: how much, how far its pixels are correlated, and whether
it is noise at all.

Fourth differences are blind to arcs that spread beyond the model. Those of neighbouring pixels measure white
noise; of noise that was blurred they see a part only, and fourth differences of every second or fourth pixel
tell how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from arcforge.engine.remedies import MAD_TO_SIGMA

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Flags = NDArray[np.bool_]

# Fourth difference; its variance is 70 sigma^2
_FOURTH_DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0], dtype=np.float32)
_FOURTH_DIFFERENCE_NORM = float(np.sqrt(np.sum(_FOURTH_DIFFERENCE**2)))
# Weights of the autocorrelation at 1 to 4 steps in the variance of a fourth difference, of 1 at zero
_LAG_WEIGHTS = np.array([-56.0, 28.0, -8.0, 1.0]) / 35.0
# Steps of the differences, in pixels
_STEPS = (1, 2, 4)
_LEAST_PIXELS = 50
# White noise gives the same from step to step; above this ratio it is called white
_WHITE_RATIO = 0.96
# Blurs between these can be told; beyond the middle one differences of neighbouring pixels see nothing
_NO_BLUR_PIX, _BLUR_SEEN_PIX, _WIDEST_BLUR_PIX = 0.1, 1.2, 3.0
# Mean squared correlation between bands from which on they share what they show: noise does not
_SHARED_BY_BANDS = 0.3


@dataclass(frozen=True)
class AddedNoise:
    """Noise in a difference of images.

    Attributes
    ----------
    sigma : float64 (n, band)
        Of a pixel; NaN where too few pixels are free.
    blur_pix : float
        Sigma of the Gaussian that white noise was blurred with to give such neighbours; 0 for white noise.
    """

    sigma: Floats
    blur_pix: float

    @property
    def neighbour_correlation(self) -> float:
        """Correlation of neighbouring pixels."""
        return float(_correlation_at(1.0, self.blur_pix)) if self.blur_pix else 0.0


def high_pass(images: Images, step_pix: int = 1) -> tuple[Images, Images]:
    """Fourth differences of (n, band, y, x) images along y and x, ``step_pix`` apart; white noise keeps its
    sigma.
    """
    kernel = np.zeros(4 * step_pix + 1, dtype=np.float32)
    kernel[::step_pix] = _FOURTH_DIFFERENCE / np.float32(_FOURTH_DIFFERENCE_NORM)
    along_y = ndimage.correlate1d(images, kernel, axis=2, mode="nearest")
    along_x = ndimage.correlate1d(images, kernel, axis=3, mode="nearest")
    return along_y, along_x


def inner_free(free: Flags, step_pix: int = 1) -> Flags:
    """Pixels whose neighbourhood of two steps along both axes is free of arc and inside the stamp."""
    cross = ndimage.generate_binary_structure(2, 1)
    grown = ndimage.binary_erosion(free, structure=cross[None, None], iterations=2 * step_pix, border_value=0)
    return np.asarray(grown)


def added_noise(difference: Images, free: Flags) -> AddedNoise:
    """Measure the noise in a difference of images where ``free`` (n, band, y, x) allows.

    Blurred noise is looked for only where it differs from band to band: what bands share is light.
    """
    fine = _sigma(difference, free, _STEPS[0])
    if not _high_pass_differs_by_band(difference, free):
        return AddedNoise(fine, 0.0)
    sigmas = [fine, *(_sigma(difference, free, step) for step in _STEPS[1:])]
    ratios = [_median_ratio(*pair) for pair in pairwise(sigmas)]
    if not ratios[0] < _WHITE_RATIO:
        return AddedNoise(fine, 0.0)
    # of two steps that see the noise the ratio tells its width; far finer ones see nothing of it
    place = 0 if ratios[0] > _seen_at(1, _BLUR_SEEN_PIX) / _seen_at(2, _BLUR_SEEN_PIX) else 1
    if not np.isfinite(ratios[place]):
        place = 0
    blur_pix = _solve_blur(ratios[place], _STEPS[place], _STEPS[place + 1])
    if differ_by_band(difference, free):
        return AddedNoise(_scatter(difference, free), blur_pix)
    # light beyond the arcs' mask would count as scatter
    return AddedNoise(sigmas[place + 1] / _seen_at(_STEPS[place + 1], blur_pix), blur_pix)


def shared_by_bands(images: Images, where: Flags) -> float:
    """Squared correlation between bands of pixels in ``where``, mean over rows, of the two that share most.

    Near 0 for noise. NaN for a single band, and where no two bands have any power.
    """
    largest = np.nan
    for one, other in combinations(range(images.shape[1]), 2):
        both = where[:, one] & where[:, other]
        a, b = (np.where(both, images[:, band], np.float32(0.0)) for band in (one, other))
        power = _dot(a, a) * _dot(b, b)
        known = power > 0
        if known.any():
            largest = np.fmax(largest, float(np.mean(_dot(a, b)[known] ** 2 / power[known])))
    return float(largest)


def differ_by_band(images: Images, where: Flags) -> bool:
    """Whether bands share nothing of what they show, as noise does not; False for a single band."""
    return shared_by_bands(images, where) < _SHARED_BY_BANDS


def _dot(one: Images, other: Images) -> Floats:
    return np.asarray(np.einsum("nyx,nyx->n", one, other, dtype=np.float64))


def _high_pass_differs_by_band(difference: Images, free: Flags) -> bool:
    """The same of fourth differences, at a step that sees widely blurred noise as well."""
    inner = inner_free(free, _STEPS[1])
    return all(differ_by_band(image, inner) for image in high_pass(difference, _STEPS[1]))


def _sigma(difference: Images, free: Flags, step_pix: int) -> Floats:
    """Sigma of white noise that would give such fourth differences: (n, band), NaN with too few pixels.

    By the median absolute value, so that sources that only one image has do not count as noise.
    """
    inner = inner_free(free, step_pix)
    sigma = np.full(difference.shape[:2], np.nan)
    stacked = np.stack(high_pass(difference, step_pix))
    for n, band in np.ndindex(*sigma.shape):
        chosen = inner[n, band]
        if chosen.sum() >= _LEAST_PIXELS:
            sigma[n, band] = MAD_TO_SIGMA * np.median(np.abs(stacked[:, n, band][:, chosen]))
    return sigma


def _scatter(difference: Images, free: Flags) -> Floats:
    """Robust sigma of the free pixels about their median: (n, band), NaN with too few pixels."""
    sigma = np.full(difference.shape[:2], np.nan)
    for n, band in np.ndindex(*sigma.shape):
        values = difference[n, band][free[n, band]]
        if values.size >= _LEAST_PIXELS:
            sigma[n, band] = MAD_TO_SIGMA * np.median(np.abs(values - np.median(values)))
    return sigma


def _median_ratio(fine: Floats, coarse: Floats) -> float:
    known = np.isfinite(fine) & np.isfinite(coarse) & (coarse > 0)
    return float(np.median(fine[known] / coarse[known])) if known.any() else np.nan


def _correlation_at(distance_pix: Floats | float, blur_pix: float) -> Floats:
    return np.asarray(np.exp(-(np.asarray(distance_pix) ** 2) / (4.0 * blur_pix**2)))


def _seen_at(step_pix: int, blur_pix: float) -> float:
    """Share of the sigma of blurred noise that fourth differences of a step show."""
    correlations = _correlation_at(step_pix * np.arange(1.0, 5.0), blur_pix)
    return math.sqrt(max(1.0 + float(_LAG_WEIGHTS @ correlations), 1e-12))


def _solve_blur(ratio: float, fine: int, coarse: int) -> float:
    """Blur at which fourth differences of two steps show sigmas of this ratio."""

    def misses(blur_pix: float) -> float:
        return _seen_at(fine, blur_pix) / _seen_at(coarse, blur_pix) - ratio

    if misses(_WIDEST_BLUR_PIX) >= 0:
        return _WIDEST_BLUR_PIX
    return float(optimize.brentq(misses, _NO_BLUR_PIX, _WIDEST_BLUR_PIX))
