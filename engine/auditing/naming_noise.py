"""Words for noise: of the whole stamp, or of the added light alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.added_noise import differ_by_band
from arcforge.engine.auditing.causes import Cause, make_cause

if TYPE_CHECKING:
    from arcforge.engine.auditing.diagnosis import Diagnosis, Judge
    from arcforge.engine.auditing.nuisance import FitData

Floats = NDArray[np.float64]

# Share of the residual's power that neighbouring pixels of white noise may have in common
_WHITE = 0.1
# Share of the rows to which a residual adds light, or from which it takes it, beyond which it is no noise
_ONE_SIDED = 0.9
# Photon noise over the root of its light is alike in all bands; beyond this ratio it is not noise of light
_LIKE = 10.0


def stamp_noise(result: Diagnosis) -> Cause:
    """Return the cause of noise that the stamp carries everywhere and its control does not."""
    shared = result.noise_neighbours
    kind = f"noise whose neighbouring pixels correlate by {shared:.2f}," if shared else "white noise"
    text = f"the stamp carries {kind} of {result.noise.value:.3g} sky sigma that its control lacks"
    return make_cause("noise", result.noise, 0.0, text)


def light_noise(data: FitData, judge: Judge) -> Cause | None:
    """Return the cause where the record leaves nothing but noise that follows the arc's light.

    Photon noise of the added light: its variance is the light over a gain. Faults of rendering are smooth,
    and alike in all bands.
    """
    residual = data.added - data.recorded
    power = np.sum(residual.astype(np.float64) ** 2, where=data.arc)
    shared = np.sum(residual[..., 1:] * residual[..., :-1] * (data.arc[..., 1:] & data.arc[..., :-1]))
    light = np.sum(data.recorded, where=data.arc, dtype=np.float64)
    if power <= 0:
        return None
    white = bool(abs(shared) <= _WHITE * power)
    n_arc = np.maximum(data.arc.sum((2, 3)), 1)
    rms = np.sqrt(np.sum(residual**2, axis=(2, 3), where=data.arc) / n_arc)
    if not white and not (differ_by_band(residual, data.arc) and _alike(rms, data)):
        return None
    # noise takes as much as it gives; what is cut off is missing only
    adds = np.mean(np.sum(residual, axis=(1, 2, 3), where=data.arc, dtype=np.float64) > 0)
    if max(adds, 1 - adds) > _ONE_SIDED:
        return None
    off_arc = np.median(np.abs(residual[~data.arc])) if (~data.arc).any() else 0.0
    if off_arc > _WHITE * float(np.median(rms)):
        return None
    size = judge.bootstrap.median(np.median(rms / data.sky_sigma, axis=1))
    kind = "white noise of its own" if white else "noise of its own that neighbouring pixels share"
    text = (
        f"the added light carries {kind}, {size.value:.3g} sky sigma over the arc, with the "
        f"variance of {light / power:.3g} photons a nanomaggy"
    )
    return make_cause("noise", size, 0.0, text)


def _alike(rms: Floats, data: FitData) -> bool:
    """Whether noise over the root of its light has a like size in every band."""
    light = np.mean(data.recorded, axis=(2, 3), where=data.arc)
    of_bands = np.sqrt(np.median(rms**2 / np.maximum(light, 1e-30), axis=0))
    return bool(of_bands.max() <= _LIKE * of_bands.min())
