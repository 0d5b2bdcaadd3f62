"""Where the model adds no light, stamp and control must be the same pixels: pairing, added noise,
registration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline

from arcforge.engine.auditing.checks import FAIL, INCONCLUSIVE, PASS, Finding
from arcforge.engine.auditing.resampling import Estimate, HostBootstrap
from arcforge.engine.noise_models import SKY_MAG_ARCSEC2

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Flags = NDArray[np.bool_]

# Fourth difference: blind to arcs that spread beyond the model, keeps white noise; its variance is 70 sigma^2
_FOURTH_DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0], dtype=np.float32)
_FOURTH_DIFFERENCE_NORM = float(np.sqrt(np.sum(_FOURTH_DIFFERENCE**2)))
# Pixels at the rim that interpolation cannot fill
RIM_PIX = 4
_SMOOTH_PIX = 1.0
_REGISTRATION_STEPS = 6
_HALF_STEP_PIX = 0.05
# How a control may have been moved: names of the operators that are tried
SHIFT_OPERATORS = ("fourier", "linear", "cubic", "quintic")
# What moves smooth images with the least harm
_SMOOTH_OPERATOR = "quintic"
_SPLINE_DEGREE = {"linear": 1, "cubic": 3, "quintic": 5}


def high_pass(images: Images) -> tuple[Images, Images]:
    """Fourth differences of (n, band, y, x) images along y and x; white noise keeps its sigma."""
    kernel = _FOURTH_DIFFERENCE / np.float32(_FOURTH_DIFFERENCE_NORM)
    along_y = ndimage.correlate1d(images, kernel, axis=2, mode="nearest")
    along_x = ndimage.correlate1d(images, kernel, axis=3, mode="nearest")
    return along_y, along_x


def _inner(free: Flags) -> Flags:
    """Pixels whose 5-pixel neighbourhood along both axes is free of arc and inside the stamp."""
    cross = ndimage.generate_binary_structure(2, 1)
    grown = ndimage.binary_erosion(free, structure=cross[None, None], iterations=2, border_value=0)
    return np.asarray(grown)


def white_noise(difference: Images, free: Flags) -> Floats:
    """Sigma of the white noise in a difference of images where ``free`` (n, band, y, x) allows: (n, band).

    By the median absolute fourth difference, so that sources that only one image has do not count as noise.
    NaN where fewer than 50 pixels are free.
    """
    inner = _inner(free)
    sigma = np.full(difference.shape[:2], np.nan)
    stacked = np.stack(high_pass(difference))
    for n, band in np.ndindex(*sigma.shape):
        chosen = inner[n, band]
        if chosen.sum() >= 50:
            sigma[n, band] = 1.4826 * np.median(np.abs(stacked[:, n, band][:, chosen]))
    return sigma


def pairing_correlation(first: Images, second: Images, free: Flags) -> Floats:
    """Correlation of two sets' high-pass pixels where no arc is: (n,), NaN where too few."""
    result = np.full(len(first), np.nan)
    for n in range(len(first)):
        chosen = _inner(free[n : n + 1])[0]
        if chosen.sum() >= 100:
            # a row at a time: the filtered images of a whole sample would take as much memory again, twice
            a, b = (np.concatenate(high_pass(images[n : n + 1])) for images in (first, second))
            x, y = a[:, chosen].ravel(), b[:, chosen].ravel()
            norm = np.sqrt(np.dot(x, x) * np.dot(y, y))
            result[n] = np.dot(x, y) / norm if norm > 0 else float(np.array_equal(x, y))
    return result


@dataclass(frozen=True)
class Registration:
    """How far the control lies from the stamp's host, and what moving it explains.

    Attributes
    ----------
    x, y : Estimate
        Control minus stamp, in pixels.
    explained : float
        Share of the sky difference's variance that the best interpolation removes.
    operator : str
        Which one, in words.
    difference : float32 (n, band, y, x)
        Stamp - model - control after registration, zero at the rim.
    """

    x: Estimate
    y: Estimate
    explained: float
    operator: str
    difference: Images


def register(
    stamps: Images, controls: Images, free: Flags, bootstrap: HostBootstrap, least_shift: float
) -> Registration:
    """Measure the shift between arc-subtracted stamps and controls from pixels without arc.

    Parameters
    ----------
    stamps : float32 (n, band, y, x)
        With the model subtracted.
    controls : float32 (n, band, y, x)
    free : bool (n, band, y, x)
        Pixels without arc.
    bootstrap : HostBootstrap
        Of these rows.
    least_shift : float
        From this shift on, in pixels, the way in which the control was moved is looked for.
    """
    weight = free.copy()
    weight[:, :, :RIM_PIX] = weight[:, :, -RIM_PIX:] = False
    weight[..., :RIM_PIX] = weight[..., -RIM_PIX:] = False
    smooth = [ndimage.gaussian_filter(i, (0, 0, _SMOOTH_PIX, _SMOOTH_PIX)) for i in (stamps, controls)]
    rows = _descend(smooth[0], smooth[1], weight, np.zeros(2), "fourier")
    shift = np.nanmedian(rows, axis=0)
    operator, direction = _best_operator(stamps, controls, weight, shift, least_shift)
    difference, explained = stamps - controls, 0.0
    if operator:
        one, other = (stamps, controls) if direction > 0 else (controls, stamps)
        rows = direction * _descend(one, other, weight, direction * shift, operator)
        shift = np.nanmedian(rows, axis=0)
        before = _robust_power(difference, weight)
        difference = direction * (move(one, direction * shift, operator) - other)
        explained = 1.0 - _robust_power(difference, weight) / before
    inner = inner_pixels(difference.shape[2:])
    if operator and direction > 0:
        # the arc went with its stamp to where the control is: what is left of it goes back
        difference = move(np.where(inner, difference, np.float32(0.0)), -shift, _SMOOTH_OPERATOR)
    y, x = (bootstrap.median(rows[:, axis]) for axis in (0, 1))
    words = f"{operator} interpolation of the {'control' if direction > 0 else 'stamp'}"
    return Registration(x, y, explained, words, np.where(inner, difference, np.float32(0.0)))


def inner_pixels(shape: tuple[int, ...]) -> Flags:
    """Pixels of a stamp that interpolation can fill: bool (y, x)."""
    inner = np.zeros(shape, dtype=bool)
    inner[RIM_PIX:-RIM_PIX, RIM_PIX:-RIM_PIX] = True
    return inner


def _descend(moving: Images, fixed: Images, weight: Flags, start: Floats, operator: str) -> Floats:
    """Shift (y, x) of each row that takes ``moving`` to ``fixed``, about a shared one: (n, 2)."""
    shift, rows = start, np.tile(start, (len(moving), 1))
    for _ in range(_REGISTRATION_STEPS):
        moved = move(moving, shift, operator)
        slopes = []
        for axis in np.eye(2) * _HALF_STEP_PIX:
            ahead, behind = (move(moving, shift + sign * axis, operator) for sign in (1.0, -1.0))
            slopes.append((ahead - behind) / np.float32(2.0 * _HALF_STEP_PIX))
        steps = _row_steps(slopes, fixed - moved, weight)
        rows = shift + steps
        step = np.nanmedian(steps, axis=0)
        shift = shift + step
        if np.abs(step).max() < 1e-4:
            break
    return rows


def _row_steps(slopes: list[Images], difference: Images, weight: Flags) -> Floats:
    """Least-squares step (y, x) of each row, NaN where its pixels do not tell: (n, 2)."""
    masked = [slope * weight for slope in slopes]
    normal = np.array([[_dot(a, b) for a in masked] for b in masked])
    target = np.array([_dot(slope, difference) for slope in masked])
    steps = np.full((len(difference), 2), np.nan)
    for n in range(len(difference)):
        matrix = normal[:, :, n]
        if np.linalg.det(matrix) > 1e-12 * np.trace(matrix) ** 2:
            steps[n] = np.clip(np.linalg.solve(matrix, target[:, n]), -1.0, 1.0)
    return steps


def _dot(one: Images, other: Images) -> Floats:
    return np.asarray(np.einsum("nbyx,nbyx->n", one, other, dtype=np.float64))


def move(images: Images, shift: Floats, operator: str) -> Images:
    """Move (n, band, y, x) images by ``shift`` = (y, x) pixels, on a periodic frame.

    "linear", "cubic" and "quintic" are interpolation by B-splines through the pixels, "fourier" keeps every
    frequency.
    """
    ny, nx = images.shape[2:]
    along_y = _transfer(np.fft.fftfreq(ny), float(shift[0]), operator)[:, None]
    along_x = _transfer(np.fft.rfftfreq(nx), float(shift[1]), operator)
    moved = np.fft.irfft2(np.fft.rfft2(images) * along_y * along_x, s=(ny, nx))
    return np.asarray(moved, dtype=np.float32)


def _transfer(frequency: NDArray[np.floating[Any]], shift: float, operator: str) -> NDArray[np.complex128]:
    """Frequency response of moving a line of pixels by ``shift``."""
    if operator == "fourier":
        return np.asarray(np.exp(-2j * np.pi * frequency * shift))
    degree = _SPLINE_DEGREE[operator]
    basis = BSpline.basis_element(np.arange(degree + 2) - (degree + 1) / 2.0, extrapolate=False)
    taps = np.arange(np.floor(shift) - degree, np.ceil(shift) + degree + 1)
    waves = np.exp(-2j * np.pi * np.outer(frequency, taps))
    moved, still = (waves @ np.nan_to_num(basis(taps - s)) for s in (shift, 0.0))
    return np.asarray(moved / still)


def _best_operator(
    stamps: Images, controls: Images, weight: Flags, shift: Floats, least_shift: float
) -> tuple[str, int]:
    """Return the interpolation that explains the sky best, and what it moved: +1 control, -1 stamp."""
    if np.hypot(*shift) < least_shift:
        return "", 1
    powers = {}
    for operator in SHIFT_OPERATORS:
        powers[operator, 1] = _robust_power(move(stamps, shift, operator) - controls, weight)
        powers[operator, -1] = _robust_power(stamps - move(controls, -shift, operator), weight)
    return min(powers, key=lambda key: powers[key])


def _robust_power(difference: Images, weight: Flags) -> float:
    values = difference[weight]
    return float((1.4826 * np.median(np.abs(values))) ** 2) if values.size else 0.0


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
    x, y = registration.x, registration.y
    low = max(min(abs(v) for v in e.ci95) if e.ci95[0] * e.ci95[1] > 0 else 0.0 for e in (x, y))
    high = max(max(abs(v) for v in e.ci95) for e in (x, y))
    status = PASS if high <= limit else FAIL if low > limit else INCONCLUSIVE
    return Finding(
        status,
        f"control lies ({x.value:+.4f}, {y.value:+.4f}) px from its stamp",
        float(np.hypot(x.value, y.value)),
        (low, high),
        limit,
    )
