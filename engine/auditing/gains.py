"""Stamp and control on different scales: the galaxy, its noise and all, is so many times as bright in one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.added_noise import high_pass, inner_free
from arcforge.engine.auditing.nuisance import FitData

if TYPE_CHECKING:
    from arcforge.engine.auditing.resampling import Estimate, HostBootstrap

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

# A gain is one where it removes this share of what stamp and control differ by beside the arc, or where the
# galaxy and its noise agree on it to this share of itself
_REMOVED, _AGREE = 0.9, 0.1
# Controls and light whose squared correlation lies closer to 1 cannot be told apart
_TOLD_APART = 1e-6


@dataclass(frozen=True)
class Gain:
    """By what the control is multiplied to be as its stamp: an estimate for each band."""

    bands: dict[str, Estimate]

    @property
    def factors(self) -> Floats:
        """The values: (band,)."""
        return np.array([estimate.value for estimate in self.bands.values()])

    def undo(self, data: FitData) -> FitData:
        """Return the data with the control on the stamp's scale."""
        factor = self.factors.astype(np.float32)[:, None, None]
        return replace(
            data,
            added=data.added - (factor - 1) * data.controls,
            controls=data.controls * factor,
            sky_sigma=data.sky_sigma * self.factors,
        )


def find_gain(data: FitData, bootstrap: HostBootstrap, tolerance: float, floor: float) -> Gain | None:
    """Return the gain of stamp over control; None where there is none, or it is not what they differ by.

    Parameters
    ----------
    data : FitData
    bootstrap : HostBootstrap
        Of its rows.
    tolerance, floor : float
        Of scales: what is no fault, and the least half-width of an interval.
    """
    images = (data.added, data.controls, data.recorded)
    added, controls, light = (_about_mean(image, data.beside) for image in images)
    slopes = _slopes(added, controls, light)
    found = {band: bootstrap.median(1.0 + slopes[:, k]) for k, band in enumerate(data.bands)}
    found = {band: estimate.widened(floor * estimate.value) for band, estimate in found.items()}
    intervals = [estimate.ci95 for estimate in found.values()]
    outside = [k for k, (low, high) in enumerate(intervals) if low > 1 + tolerance or high < 1 - tolerance]
    if not outside:
        return None
    gain = Gain(found)
    left = added - (gain.factors.astype(np.float32) - 1)[:, None, None] * controls
    before, after = ((image[:, outside].astype(np.float64) ** 2).sum() for image in (added, left))
    if after <= (1.0 - _REMOVED) * before:
        return gain
    # noise and constants that one image has alone leave both of these as they are; a shift does not
    of_noise, of_galaxy = _slopes_of_noise(data)[outside], gain.factors[outside] - 1.0
    agree = np.abs(of_noise - of_galaxy) <= np.maximum(tolerance, _AGREE * np.abs(of_galaxy))
    return gain if agree.all() else None


def _about_mean(images: Images, where: NDArray[np.bool_]) -> Images:
    """Return (n, band, y, x) images about the mean of the pixels in ``where``, 0 elsewhere."""
    n = np.maximum(where.sum((2, 3)), 1)
    mean = (np.sum(images, axis=(2, 3), where=where, dtype=np.float64) / n).astype(np.float32)
    return np.asarray((images - mean[:, :, None, None]) * where)


def _slopes_of_noise(data: FitData) -> Floats:
    """Return what multiplies the controls' noise in the added light: (band,), NaN where they have none."""
    free = inner_free(data.beside)
    product, power = np.zeros((2, len(data.bands)))
    for added, controls in zip(high_pass(data.added), high_pass(data.controls), strict=True):
        product += np.einsum("nbyx,nbyx,nbyx->b", added, controls, free, dtype=np.float64)
        power += np.einsum("nbyx,nbyx,nbyx->b", controls, controls, free, dtype=np.float64)
    return np.asarray(np.divide(product, power, out=np.full(power.shape, np.nan), where=power > 0))


def _slopes(added: Images, controls: Images, light: Images) -> Floats:
    """Return what multiplies the controls in ``added``, beside so many times the light: (n, band).

    What wings of arcs leave beside their mask follows the galaxy as well, and would be taken for a gain.
    """

    def dot(one: Images, other: Images) -> Floats:
        return np.asarray(np.einsum("nbyx,nbyx->nb", one, other, dtype=np.float64))

    power, of_light, both = dot(controls, controls), dot(light, light), dot(controls, light)
    own = power * of_light - both**2
    told = own > _TOLD_APART * power * of_light
    slopes = np.full(power.shape, np.nan)
    np.divide(dot(added, controls), power, out=slopes, where=~told & (power > 0))
    np.divide(dot(added, controls) * of_light - dot(added, light) * both, own, out=slopes, where=told)
    return slopes
