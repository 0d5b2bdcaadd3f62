"""Point-spread functions: how far they reach, and the tables their transforms are read from."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels.codes import PSF_GAUSSIAN, PSF_MOFFAT

GAUSSIAN_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
MOFFAT_NODES_PER_UNIT = 256
MOFFAT_Z_END = 36.0  # transforms are below 2e-12 there for beta <= 5, below 2e-6 for beta <= 20

Floats = NDArray[np.float64]


def gaussian_sigma(fwhm: float | Floats) -> Floats:
    """Return sigma of a Gaussian of that full width at half maximum, in the same unit."""
    return np.asarray(fwhm / GAUSSIAN_FWHM_PER_SIGMA)


def moffat_alpha(fwhm: float | Floats, beta: float | Floats) -> Floats:
    """Return the scale alpha of a Moffat (1 + r^2/alpha^2)^-beta of that full width at half maximum."""
    return np.asarray(fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0)))


def reach(
    model: NDArray[np.int8], fwhm: Floats, beta: Floats, level: float, distance: float | Floats = 0.0
) -> Floats:
    """Return the radius at which each PSF has fallen to ``level`` of what it is at ``distance`` (its peak, if
    0), in the unit of ``fwhm``; 0 for none.
    """
    gaussian = np.hypot(distance, gaussian_sigma(fwhm) * np.sqrt(-2.0 * np.log(level)))
    alpha = np.maximum(moffat_alpha(fwhm, beta), 1e-30)
    moffat = alpha * np.sqrt((1.0 + (distance / alpha) ** 2) * level ** (-1.0 / beta) - 1.0)
    return np.where(model == PSF_GAUSSIAN, gaussian, np.where(model == PSF_MOFFAT, moffat, 0.0))


@lru_cache(maxsize=64)
def moffat_table(beta: float) -> NDArray[np.float64]:
    """Return the Fourier transform of a unit-flux Moffat on nodes of z = 2 pi k alpha, 1/256 apart, from 0
    on.

    2^(2-beta) / Gamma(beta-1) z^(beta-1) K_(beta-1)(z), with K the modified Bessel function (a Hankel
    transform, DLMF 10.22.46). Linear interpolation between the nodes is good to 1e-6 for beta >= 3
    and to 1e-5 for beta = 2, at the lowest frequencies.
    """
    from scipy.special import gammaln, kve

    z = np.arange(int(MOFFAT_Z_END * MOFFAT_NODES_PER_UNIT) + 1) / MOFFAT_NODES_PER_UNIT
    order = beta - 1.0
    values = np.ones_like(z)
    log_value = (1.0 - order) * np.log(2.0) - gammaln(order) + order * np.log(z[1:]) - z[1:]
    values[1:] = np.exp(log_value) * kve(order, z[1:])
    values.setflags(write=False)
    return values
