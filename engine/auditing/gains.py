"""Stamp and control on different scales: the galaxy, its noise and all, is so many times as bright in one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.nuisance import FitData

if TYPE_CHECKING:
    from arcforge.engine.auditing.resampling import Estimate, HostBootstrap

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

# A gain is one where it removes this share of what stamp and control differ by beside the arc; a shift of a
# pixel, a constant or noise let far less of that go
_REMOVED = 0.9
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
    added, controls, light = (image * data.beside for image in (data.added, data.controls, data.recorded))
    slopes = _slopes(added, controls, light)
    found = {band: bootstrap.median(1.0 + slopes[:, k]) for k, band in enumerate(data.bands)}
    found = {band: estimate.widened(floor * estimate.value) for band, estimate in found.items()}
    intervals = [estimate.ci95 for estimate in found.values()]
    outside = [k for k, (low, high) in enumerate(intervals) if low > 1 + tolerance or high < 1 - tolerance]
    if not outside:
        return None
    gain = Gain(found)
    left = added - (gain.factors.astype(np.float32) - 1)[:, None, None] * controls
    before, after = (
        np.einsum("nbyx,nbyx->b", image, image, dtype=np.float64)[outside].sum() for image in (added, left)
    )
    return gain if after <= (1.0 - _REMOVED) * before else None


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
