"""Where the model adds no light, stamp and control must be the same pixels: pairing, added noise,
registration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.added_noise import high_pass, inner_free
from arcforge.engine.auditing.checks import FAIL, INCONCLUSIVE, PASS, Finding
from arcforge.engine.noise_models import SKY_MAG_ARCSEC2

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Flags = NDArray[np.bool_]


def pairing_correlation(first: Images, second: Images, free: Flags) -> Floats:
    """Correlation of two sets' high-pass pixels where no arc is: (n,), NaN where too few."""
    result = np.full(len(first), np.nan)
    for n in range(len(first)):
        chosen = inner_free(free[n : n + 1])[0]
        if chosen.sum() >= 100:
            # a row at a time: the filtered images of a whole sample would take as much memory again, twice
            a, b = (np.concatenate(high_pass(images[n : n + 1])) for images in (first, second))
            x, y = a[:, chosen].ravel(), b[:, chosen].ravel()
            norm = np.sqrt(np.dot(x, x) * np.dot(y, y))
            result[n] = np.dot(x, y) / norm if norm > 0 else float(np.array_equal(x, y))
    return result


def check_pairing(state: AuditState) -> Finding:
    """D1: where the model adds nothing, stamp and control hold the same noise."""
    correlation = pairing_correlation(state.quiet_stamps - state.model, state.pairs.controls, state.arc_free)
    known = np.isfinite(correlation)
    if not known.any():
        return Finding(INCONCLUSIVE, "no stamp has 100 pixels without arc")
    estimate = state.bootstrap.mean(np.where(known, correlation, 0.0), known.astype(np.float64))
    limit = state.thresholds["data.pairing_correlation"]
    exact = float(np.mean(np.abs(state.added)[state.arc_free] <= 0))
    message = (
        f"pixel noise of stamp and control correlates to {estimate.value:.6f} where no arc is "
        f"({100 * exact:.0f} % of those pixels are identical)"
    )
    status = PASS if estimate.value >= limit else FAIL
    return Finding(status, message, estimate.value, estimate.ci95, limit)


def check_noise(state: AuditState) -> Finding:
    """N1: the stamp carries no noise that its control lacks, but its arc's where that is recorded."""
    elsewhere = _noise_elsewhere(state)
    gain = state.recorded_gain
    if gain is None:
        return elsewhere
    parts = [_noise_of_light(state, gain), elsewhere, *_sky_of_gain(state, gain)]
    worst = max(parts, key=lambda found: _RANK[found.status])
    return replace(worst, message="; ".join(part.message for part in parts))


# pixels with fewer electrons of added light say little of its noise, and their law is far from Gaussian
_LEAST_ELECTRONS = 10.0
_RANK = {PASS: 0, INCONCLUSIVE: 1, FAIL: 2}


def _noise_of_light(state: AuditState, gain: NDArray[np.float64]) -> Finding:
    """Variance of the added light's noise over light / gain, which is 1."""
    model = state.model.astype(np.float64)
    electrons = model * gain[:, :, None, None]
    lit = electrons > _LEAST_ELECTRONS
    noise = state.pairs.stamps.astype(np.float64) - state.pairs.controls - model
    ratio = np.where(lit, noise**2 * gain[:, :, None, None] / np.where(lit, model, 1.0), 0.0)
    n_lit = lit.sum(axis=(1, 2, 3)).astype(np.float64)
    if n_lit.sum() < 100:
        return Finding(INCONCLUSIVE, f"no 100 pixels hold {_LEAST_ELECTRONS:g} electrons of added light")
    estimate = state.bootstrap.mean(ratio.sum(axis=(1, 2, 3)) / np.maximum(n_lit, 1.0), n_lit)
    limit = state.thresholds["nuisance.noise_gain"]
    unit = np.where(lit, noise * np.sqrt(gain[:, :, None, None] / np.where(lit, model, 1.0)), 0.0)
    both = lit[..., 1:] & lit[..., :-1]
    lag = float((unit[..., 1:] * unit[..., :-1])[both].mean()) / max(estimate.value, 1e-30)
    message = (
        f"noise of the added light has {estimate.value:.3f} times the variance light / gain, neighbours "
        f"correlate by {lag:+.3f}"
    )
    low, high = estimate.ci95
    status = PASS if abs(low - 1) <= limit and abs(high - 1) <= limit else INCONCLUSIVE
    if low > 1 + limit or high < 1 - limit:
        status = FAIL
    return Finding(status, message, estimate.value, estimate.ci95, limit)


def _sky_of_gain(state: AuditState, gain: NDArray[np.float64]) -> list[Finding]:
    """Sky that gains and the controls' noise ask for (sky = gain x variance) over the usual one.

    Gains in other units (of single exposures, of counts) are off by factors of hundreds. Nothing is said of
    bands whose sky is not known.
    """
    area = state.pairs.pixscale_arcsec**2
    limit = state.thresholds["nuisance.gain_sky"]
    factors = {}
    for b, band in enumerate(state.pairs.bands):
        implied = float(np.median(gain[:, b] * state.sky_sigma[:, b] ** 2)) / area
        if band in SKY_MAG_ARCSEC2 and implied > 0.0:
            factors[band] = implied / 10.0 ** (0.4 * (22.5 - SKY_MAG_ARCSEC2[band]))
    if not factors:
        return []
    band = max(factors, key=lambda each: abs(np.log(factors[each])))
    mag = SKY_MAG_ARCSEC2[band] - 2.5 * float(np.log10(factors[band]))
    off = max(factors[band], 1.0 / factors[band])
    message = f"gain and noise of the controls ask for a sky of {mag:.1f} mag/arcsec^2 in {band}"
    if off > limit:
        message += f", {off:.0f} times off the usual one: the gain is in other units"
    return [Finding(PASS if off <= limit else FAIL, message, factors[band], None, limit)]


def _noise_elsewhere(state: AuditState) -> Finding:
    noise = state.diagnosis.noise
    limit = state.thresholds["nuisance.noise_sigma"]
    message = f"noise of the difference where no arc is: {noise.value:.4f} sky sigma"
    if state.diagnosis.registration_matters:
        message += " after the control's shift"
    status = PASS if noise.ci95[1] <= limit else FAIL if noise.ci95[0] > limit else INCONCLUSIVE
    return Finding(status, message, noise.value, noise.ci95, limit)


def check_registration(state: AuditState) -> Finding:
    """R5: control and stamp show their host at the same place."""
    registration = state.diagnosis.registration
    limit = state.thresholds["nuisance.control_shift_pix"]
    if registration.own:
        low, high = registration.own.ci95
        text = (
            f"controls lie elsewhere in each pair, {registration.own.value:.4f} px from their stamps (median)"
        )
        status = FAIL if low > limit else PASS if high <= limit else INCONCLUSIVE
        return Finding(status, text, registration.own.value, (low, high), limit)
    x, y = registration.x, registration.y
    low = max(x.least_size, y.least_size)
    high = max(max(abs(v) for v in e.ci95) for e in (x, y))
    status = PASS if high <= limit else FAIL if low > limit else INCONCLUSIVE
    return Finding(
        status,
        f"control lies ({x.value:+.4f}, {y.value:+.4f}) px from its stamp",
        float(np.hypot(x.value, y.value)),
        (low, high),
        limit,
    )
