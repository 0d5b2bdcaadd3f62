"""How far a control lies from its stamp's host, which interpolation moved it, and what that explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline

from arcforge.engine.auditing.added_noise import added_noise
from arcforge.engine.auditing.resampling import Estimate, HostBootstrap
from arcforge.engine.remedies import MAD_TO_SIGMA

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Flags = NDArray[np.bool_]

# Pixels at the rim that interpolation cannot fill
RIM_PIX = 4
_SMOOTH_PIX = 1.0
_REGISTRATION_STEPS = 6
_HALF_STEP_PIX = 0.05
# How a control may have been moved: names of the operators that are tried
SHIFT_OPERATORS = ("fourier", "linear", "quadratic", "cubic", "quartic", "quintic")
_SPLINE_DEGREE = {"linear": 1, "quadratic": 2, "cubic": 3, "quartic": 4, "quintic": 5}
# What moves smooth images with the least harm
_SMOOTH_OPERATOR = "quintic"
# Rows have shifts of their own where those leave less than this share of what a common one leaves
_OWN_GAIN = 0.2
# Side of the neighbourhood that any interpolation is taken to end in, on either side of a pixel
_FILTER_REACH_PIX = 3
# Simulated rows that tell how interpolation damps noise
_DAMPED_ROWS = 8
# Rows that tell which interpolation it was, beside noise
_NOISY_ROWS = 16
# Less of the sky explained means noise that only one of the two has
_QUIET = 0.95


@dataclass(frozen=True)
class Registration:
    """How far the control lies from the stamp's host, and what moving it explains.

    Attributes
    ----------
    x, y : Estimate
        Control minus stamp, in pixels.
    own : Estimate or None
        Median length, where every row has a shift of its own.
    explained : float
        Share of the sky difference's variance that the best interpolation removes.
    operator : str
        Which one, in words.
    moved : {"control", "stamp"}
        What was interpolated.
    difference : float32 (n, band, y, x)
        Stamp - model - control after registration, zero at the rim.
    damping : float
        Share of the sigma of the stamp's own white noise that interpolation leaves in ``difference``.
    """

    x: Estimate
    y: Estimate
    own: Estimate | None
    explained: float
    operator: str
    moved: str
    difference: Images
    damping: float = 1.0

    @property
    def length_pix(self) -> float:
        """Length of the shift."""
        return self.own.value if self.own else float(np.hypot(self.x.value, self.y.value))


@dataclass(frozen=True)
class _Alignment:
    """Shifts (y, x) of each row, the interpolation that suits them, and what it leaves."""

    rows: Floats
    operator: str
    direction: int
    difference: Images
    power: float
    explained: float


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
    inner = inner_pixels(stamps.shape[2:])
    weight = free & inner
    smooth = [ndimage.gaussian_filter(i, (0, 0, _SMOOTH_PIX, _SMOOTH_PIX)) for i in (stamps, controls)]
    rows = _descend(smooth[0], smooth[1], weight, np.zeros(2), "fourier")
    shift = np.nanmedian(rows, axis=0)
    found, own = _align(stamps, controls, weight, shift, least_shift), None
    if np.nanmedian(np.hypot(*(rows - shift).T)) > least_shift:
        start = np.where(np.isfinite(rows), rows, shift)
        start = _descend(smooth[0], smooth[1], weight, start, "fourier")
        each = _align(stamps, controls, weight, start, least_shift)
        if each.power < _OWN_GAIN * found.power:
            found, own = each, bootstrap.median(np.hypot(*each.rows.T))
            rows = start
    if found.operator and found.explained < _QUIET:
        # interpolation damps noise, so that noisy pixels ask for shifts that damp it: smooth ones do not
        shift = rows if own else np.nanmedian(rows, axis=0)
        found = replace(_align_in_noise(stamps, controls, weight, shift, found), rows=rows)
        own = bootstrap.median(np.hypot(*rows.T)) if own else None
    y, x = (bootstrap.median(found.rows[:, axis]) for axis in (0, 1))
    moved = "control" if found.direction > 0 else "stamp"
    words = f"{found.operator} interpolation of the {moved}"
    difference = np.where(inner, found.difference, np.float32(0.0))
    return Registration(x, y, own, found.explained, words, moved, difference, _damping(found))


def share_of_sky(difference: Images, controls: Images, where: Flags) -> float:
    """Share of a difference's variance that each control's neighbourhood of each pixel predicts; 0 for noise.

    What another interpolation than the right one leaves is such a filter of the sky, whatever it is.

    Parameters
    ----------
    difference, controls : float32 (n, band, y, x)
    where : bool (n, band, y, x)
        Pixels that count.
    """
    reach = range(-_FILTER_REACH_PIX, _FILTER_REACH_PIX + 1)
    shares = []
    for image, control, flags in zip(difference, controls, where, strict=True):
        near = [np.roll(control, (dy, dx), (1, 2))[flags] for dy in reach for dx in reach]
        design = np.stack([*near, np.ones(int(flags.sum()), dtype=np.float32)]).astype(np.float64)
        values = image[flags].astype(np.float64)
        spare = len(values) - len(design)
        if spare < len(values) / 2 or np.ptp(values) <= 0:
            continue
        # matrices this narrow cost many threads more than they save
        normal, target = np.einsum("ip,jp->ij", design, design), np.einsum("ip,p->i", design, values)
        weights = np.linalg.lstsq(normal, target, rcond=1e-12)[0]
        left = values - np.einsum("i,ip->p", weights, design)
        shares.append(1.0 - np.sum(left**2) / spare / values.var())
    return float(np.median(shares)) if shares else 0.0


def _damping(found: _Alignment) -> float:
    """Send white noise the way of the stamps, and measure it as theirs will be."""
    if not found.operator or found.direction < 0:
        return 1.0
    shape = (_DAMPED_ROWS, 3, *found.difference.shape[2:])
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    shifts = found.rows[np.isfinite(found.rows).all(1)]
    shifts = shifts[np.linspace(0, len(shifts) - 1, _DAMPED_ROWS).astype(np.int64)]
    back = move(move(noise, shifts, found.operator), -shifts, _SMOOTH_OPERATOR)
    free = np.broadcast_to(inner_pixels(shape[2:]), shape)
    return float(np.nanmedian(added_noise(back, free).sigma))


def inner_pixels(shape: tuple[int, ...]) -> Flags:
    """Pixels of a stamp that interpolation can fill: bool (y, x)."""
    inner = np.zeros(shape, dtype=bool)
    inner[RIM_PIX:-RIM_PIX, RIM_PIX:-RIM_PIX] = True
    return inner


def _align(stamps: Images, controls: Images, weight: Flags, shift: Floats, least_shift: float) -> _Alignment:
    """Find the interpolation that explains the sky, from a shift (2,) or those of each row (n, 2)."""
    difference = stamps - controls
    before = _robust_power(difference, weight)
    # where most pixels are identical nothing was moved, whatever light asks for a shift
    if before <= 0 or np.median(np.hypot(*np.atleast_2d(shift).T)) < least_shift:
        return _Alignment(np.broadcast_to(shift, (len(stamps), 2)), "", 1, difference, before, 0.0)
    powers = {key: _robust_power(left, weight) for key, left in _each_operator(stamps, controls, shift)}
    operator, direction = min(powers, key=lambda key: powers[key])
    one, other = (stamps, controls) if direction > 0 else (controls, stamps)
    rows = direction * _descend(one, other, weight, direction * shift, operator)
    shift = rows if shift.ndim == 2 else np.nanmedian(rows, axis=0)
    return _moved(stamps, controls, weight, shift, rows, (operator, direction), before)


def _align_in_noise(
    stamps: Images, controls: Images, weight: Flags, shift: Floats, found: _Alignment
) -> _Alignment:
    """Choose the interpolation again where one of the two has noise of its own, which linear ones damp.

    The right one leaves nothing that the sky predicts.
    """
    few = np.unique(np.linspace(0, len(stamps) - 1, _NOISY_ROWS).astype(np.int64))
    of_few = shift[few] if shift.ndim == 2 else shift
    shares = {
        key: share_of_sky(left, controls[few], weight[few]) * _robust_power(left, weight[few])
        for key, left in _each_operator(stamps[few], controls[few], of_few)
    }
    best = min(shares, key=lambda key: shares[key])
    before = found.power / max(1.0 - found.explained, 1e-30)
    return _moved(stamps, controls, weight, shift, found.rows, best, before)


def _each_operator(
    stamps: Images, controls: Images, shift: Floats
) -> Iterator[tuple[tuple[str, int], Images]]:
    """Yield every interpolation with what it moved, +1 control and -1 stamp, and the difference it leaves."""
    for operator in SHIFT_OPERATORS:
        yield (operator, 1), move(stamps, shift, operator) - controls
        yield (operator, -1), stamps - move(controls, -shift, operator)


def _moved(
    stamps: Images,
    controls: Images,
    weight: Flags,
    shift: Floats,
    rows: Floats,
    way: tuple[str, int],
    before: float,
) -> _Alignment:
    """Take the shift back: what is left, at the stamp's place."""
    operator, direction = way
    one, other = (stamps, controls) if direction > 0 else (controls, stamps)
    difference = direction * (move(one, direction * shift, operator) - other)
    power = _robust_power(difference, weight)
    if direction > 0:
        # the arc went with its stamp to where the control is: what is left of it goes back
        inner = inner_pixels(stamps.shape[2:])
        difference = move(np.where(inner, difference, np.float32(0.0)), -shift, _SMOOTH_OPERATOR)
    return _Alignment(rows, operator, direction, difference, power, 1.0 - power / before)


def _descend(moving: Images, fixed: Images, weight: Flags, start: Floats, operator: str) -> Floats:
    """Shift (y, x) of each row that takes ``moving`` to ``fixed``: (n, 2).

    From one ``start`` (2,) the rows move together, and each row's departure is its last step; from starts of
    their own (n, 2) each row moves on its own, and those whose pixels do not tell stay.
    """
    shift, rows = start, np.broadcast_to(start, (len(moving), 2))
    for _ in range(_REGISTRATION_STEPS):
        moved = move(moving, shift, operator)
        slopes = []
        for axis in np.eye(2) * _HALF_STEP_PIX:
            ahead, behind = (move(moving, shift + sign * axis, operator) for sign in (1.0, -1.0))
            slopes.append((ahead - behind) / np.float32(2.0 * _HALF_STEP_PIX))
        steps = _row_steps(slopes, fixed - moved, weight)
        step = np.nan_to_num(steps) if shift.ndim == 2 else np.nanmedian(steps, axis=0)
        rows = shift + (step if shift.ndim == 2 else steps)
        shift = shift + step
        if np.abs(step).max() < 1e-4:
            break
    return np.asarray(rows)


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
    """Move (n, band, y, x) images by ``shift`` = (y, x) pixels, or by (n, 2) of them, on a periodic frame.

    "linear" to "quintic" are interpolation by B-splines through the pixels, "fourier" keeps every frequency.
    """
    ny, nx = images.shape[2:]
    shifts = np.atleast_2d(shift)
    along_y = _transfer(np.asarray(np.fft.fftfreq(ny), dtype=np.float64), shifts[:, 0], operator)[
        :, None, :, None
    ]
    along_x = _transfer(np.asarray(np.fft.rfftfreq(nx), dtype=np.float64), shifts[:, 1], operator)[
        :, None, None, :
    ]
    moved = np.fft.irfft2(np.fft.rfft2(images) * along_y * along_x, s=(ny, nx))
    return np.asarray(moved, dtype=np.float32)


def _transfer(frequency: Floats, shifts: Floats, operator: str) -> NDArray[np.complex128]:
    """Frequency response of moving a line of pixels by each of k shifts: (k, frequency)."""
    if operator == "fourier":
        response = np.exp(-2j * np.pi * np.outer(shifts, frequency))
        # a wave of two pixels has no phase: what a real image keeps of it
        alternating = np.abs(frequency) == 0.5
        response[:, alternating] = response[:, alternating].real
        return np.asarray(response)
    degree = _SPLINE_DEGREE[operator]
    basis = BSpline.basis_element(np.arange(degree + 2) - (degree + 1) / 2.0, extrapolate=False)
    reach = degree + 1 + int(np.ceil(np.abs(shifts).max()))
    taps = np.arange(-reach, reach + 1)
    waves = np.exp(-2j * np.pi * np.outer(taps, frequency))
    still = np.nan_to_num(basis(taps.astype(np.float64))) @ waves
    return np.asarray(np.nan_to_num(basis(taps - shifts[:, None])) @ waves / still)


def _robust_power(difference: Images, weight: Flags) -> float:
    values = difference[weight]
    return float((MAD_TO_SIGMA * np.median(np.abs(values))) ** 2) if values.size else 0.0
