"""From residual to cause: is the difference explained as recorded, and if not, which named fault explains it?

A cause is named where rendering with it leaves no more than the residual check allows, and it wins against
the record and against every other cause in the host bootstrap. A fit that improves without explaining names
nothing: the pixels were not made from these parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.added_noise import added_noise
from arcforge.engine.auditing.causes import Cause
from arcforge.engine.auditing.faults import Hypothesis, search
from arcforge.engine.auditing.gains import Gain, find_gain
from arcforge.engine.auditing.naming import name_causes
from arcforge.engine.auditing.nuisance import (
    FitData,
    Point,
    is_scale,
    is_width_of_band,
    nominal_value,
    parameter_names,
)
from arcforge.engine.auditing.registration import Registration, inner_pixels, register, share_of_sky
from arcforge.engine.auditing.resampling import Estimate, HostBootstrap, spread_rows
from arcforge.engine.auditing.solve import Evaluation, evaluate
from arcforge.engine.auditing.transforms import Transform, displaced_stamps

if TYPE_CHECKING:
    from arcforge.engine.auditing.forward import Edge
    from arcforge.engine.auditing.state import AuditState
    from arcforge.engine.auditing.thresholds import Thresholds

Floats = NDArray[np.float64]

# No interval of a pedestal is narrower, in sky sigmas: what the wings of arcs leave of it
_PEDESTAL_FLOOR = 5e-4
# Share of what a shift leaves that may be the sky's, where noise is more than the shift
_SKY_MAY_BE_LEFT = 0.05
# Rows on which turned stamps are looked for
_FEW_ROWS = 16


@dataclass(frozen=True)
class Nuisance:
    """One parameter of the fit; ``within`` tells whether its interval lies inside the tolerance."""

    estimate: Estimate
    nominal: float
    tolerance: float

    @property
    def departure(self) -> float:
        """Distance from the nominal value in tolerances."""
        return abs(self.estimate.value - self.nominal) / self.tolerance

    @property
    def within(self) -> bool:
        """The interval lies inside nominal +- tolerance."""
        low, high = self.estimate.ci95
        return self.nominal - self.tolerance <= low and high <= self.nominal + self.tolerance

    @property
    def outside(self) -> bool:
        """The interval lies outside nominal +- tolerance."""
        low, high = self.estimate.ci95
        return high < self.nominal - self.tolerance or low > self.nominal + self.tolerance


@dataclass(frozen=True)
class Diagnosis:
    """What the fit found on the fitted rows.

    Attributes
    ----------
    nuisance : dict
        Parameter name to :class:`Nuisance`, at the record or, where that does not hold, at the best
        explanation.
    noise : Estimate
        Noise of the stamp that its control lacks, in sky sigmas.
    noise_neighbours : float
        Correlation of that noise in neighbouring pixels.
    registration : Registration
    registration_matters : bool
        The control is shifted and moving it explains the sky difference.
    explained_as_recorded : bool
        Recorded parameters leave no more than the residual check allows (the PSF kernel may be a finite one).
    kernel_edge : Edge or None
        Where the PSF kernel ends, if that is needed.
    causes : list of Cause
        Most certain first; ``provenance`` where something is wrong and no cause explains it.
    hypotheses : list of Hypothesis
        What was tried, best first.
    recorded : Evaluation
        The residual of the record.
    data : FitData
        The pixels that were fitted.
    shift_leaves : float
        Share of the misfit that moving a shifted control back leaves.
    displaced : Transform or None
        Stamp and control do not show the same noise until this is taken back; everything else is measured
        after that.
    gain : Gain or None
        Stamp and control are on different scales; taken back likewise.
    """

    nuisance: dict[str, Nuisance]
    noise: Estimate
    noise_neighbours: float
    registration: Registration
    registration_matters: bool
    explained_as_recorded: bool
    recorded: Evaluation
    data: FitData
    causes: list[Cause] = field(default_factory=list)
    shift_leaves: float = 1.0
    displaced: Transform | None = None
    gain: Gain | None = None
    kernel_edge: Edge | None = None
    hypotheses: list[Hypothesis] = field(default_factory=list)


def diagnose(state: AuditState) -> Diagnosis:
    """Fit the nuisance parameters and, where record and pixels disagree, search for the cause."""
    rows, limits, forward = state.fit_rows, state.thresholds, state.forward
    bootstrap = HostBootstrap(
        np.unique(state.pairs.groups[rows], return_inverse=True)[1],
        limits.count("gate.bootstraps"),
        state.rng("fit bootstrap"),
    )
    collected = _collect(state)
    displaced = _displacement(collected)
    raw = displaced.undo(collected) if displaced else collected
    gain = find_gain(raw, bootstrap, limits["nuisance.scale"], limits["nuisance.floor_scale"])
    raw = gain.undo(raw) if gain else raw
    registration, shifted = _register(state, raw, bootstrap)
    data = _moved_back(raw, registration) if shifted else raw
    grain = added_noise(data.added - data.recorded, data.beside)
    seen_noise = _noise(grain.sigma / data.sky_sigma, bootstrap, limits)
    data = _weigh(data, np.nan_to_num(grain.sigma), limits)
    recorded = evaluate(forward, data, Point(), ())
    is_noisy = seen_noise.ci95[0] > limits["nuisance.noise_sigma"]
    judge = Judge(limits, bootstrap, seen_noise.value if is_noisy else 0.0)
    noise = seen_noise
    if shifted and is_noisy:
        noise = _noise(_noise_under_shift(state, raw, data, registration, grain.sigma), bootstrap, limits)
    nuisance: dict[str, Nuisance] = {}
    if passes := judge.passes(recorded, data):
        about_record = evaluate(forward, data, Point(), parameter_names(data.bands))
        nuisance = summarise(about_record, data, bootstrap, limits)
    before = evaluate(forward, replace(data, added=raw.added), Point(), ()) if shifted else recorded
    result = Diagnosis(
        nuisance=nuisance,
        noise=noise,
        noise_neighbours=0.0 if shifted else grain.neighbour_correlation,
        registration=registration,
        registration_matters=shifted,
        shift_leaves=_left_of(before, recorded, is_noisy),
        # what a constant adds can be less than the residual may be, and still be known to be there
        explained_as_recorded=passes and not any(n.outside for n in nuisance.values()),
        recorded=recorded,
        data=data,
        displaced=displaced,
        gain=gain,
    )
    if not result.explained_as_recorded:
        result = _search(state, result, data, judge)
    return replace(result, causes=name_causes(state, result, data, judge))


def _search(state: AuditState, result: Diagnosis, data: FitData, judge: Judge) -> Diagnosis:
    """Add the hypotheses, and the nuisance parameters about the best of them."""
    hypotheses = search(state.forward, data, judge)
    best = hypotheses[0]
    undone = best.apply(data)
    by_band = best.point.width_by_band and not best.point.reading
    names = (*parameter_names(data.bands, width_by_band=by_band), *undone.templates)
    about_best = evaluate(state.forward, undone, best.point, names)
    return replace(
        result,
        hypotheses=hypotheses,
        nuisance=summarise(about_best, undone, judge.bootstrap, judge.limits),
        kernel_edge=best.point.edge,
        explained_as_recorded=result.explained_as_recorded or (best.explains and not best.causes),
    )


class Judge:
    """Decides whether an evaluation leaves no more than allowed.

    Parameters
    ----------
    limits : Thresholds
    bootstrap : HostBootstrap
        Of the fitted rows.
    noise_sigma : float
        Added noise in sky sigmas; where it is > 0, only what neighbouring pixels share counts as a residual.
    """

    def __init__(self, limits: Thresholds, bootstrap: HostBootstrap, noise_sigma: float) -> None:
        self.limits = limits
        self.bootstrap = bootstrap
        self.noise_sigma = noise_sigma

    def of_rows(self, index: NDArray[np.int64]) -> Judge:
        """Return the judge of some of the rows."""
        return Judge(self.limits, self.bootstrap.of_rows(index), self.noise_sigma)

    def passes(self, evaluation: Evaluation, data: FitData, *, among_few: bool = False) -> bool:
        """Whether two renderers may differ by the residual (by its structured part, under noise).

        Held against the arc's peak alone: the same accuracy is many sky sigmas where arcs are bright.
        ``among_few`` asks it of fewer of the rows, where they are a part of those that will decide.
        """
        return self._leaves(evaluation, data, self.limits["residual.rms_of_peak"], among_few)

    def explains(
        self, evaluation: Evaluation, data: FitData, record_misfit: float, *, among_few: bool = False
    ) -> bool:
        """Whether a fault accounts for the pixels: the residual passes, or nearly all of a large misfit is
        gone.

        A renderer that is a little coarse leaves more than converged ones, whatever its fault.
        """
        limits = self.limits
        if self.passes(evaluation, data, among_few=among_few):
            return True
        little = evaluation.chi2.sum() <= limits["faults.leaves"] * record_misfit
        return bool(little) and self._leaves(evaluation, data, limits["faults.rms_of_peak"], among_few)

    def _leaves(self, evaluation: Evaluation, data: FitData, rms_of_peak: float, among_few: bool) -> bool:
        limits = self.limits
        if self.noise_sigma > 0:
            power = (self.noise_sigma * data.sky_sigma / np.where(data.peak > 0, data.peak, np.inf)) ** 2
            allowed = rms_of_peak**2 + limits["faults.noise_excess"] * float(power.mean())
            return bool(evaluation.structured.mean() <= allowed)
        level = limits["faults.few_rows_quantile" if among_few else "residual.row_quantile"]
        return bool(np.quantile(evaluation.rms_of_peak, level) <= rms_of_peak)


def _noise_under_shift(
    state: AuditState, raw: FitData, moved: FitData, registration: Registration, left_sigma: Floats
) -> Floats:
    """Return the stamp's own noise in sky sigmas, (n, band), from what is left after a shift.

    What an unknown interpolation leaves of the sky is no noise; the known one damps the noise, and where it
    moved the control, the control's sky.
    """
    of_sky = share_of_sky(moved.added - moved.recorded, moved.controls, moved.beside)
    sigma = left_sigma * np.sqrt(max(1.0 - of_sky, 0.0)) / registration.damping
    if registration.moved == "stamp":
        return np.asarray(sigma / raw.sky_sigma)
    sky = state.sky_sigma_of(raw.added + raw.controls - raw.recorded)
    return np.asarray(sigma / np.sqrt(np.maximum(sky**2 - np.nan_to_num(sigma) ** 2, raw.sky_sigma**2)))


def _left_of(before: Evaluation, after: Evaluation, is_noisy: bool) -> float:
    """Share of the misfit that is left; under noise, of what neighbouring pixels share."""
    if is_noisy:
        return float(after.structured.sum() / max(before.structured.sum(), 1e-300))
    return float(after.chi2.sum() / max(before.chi2.sum(), 1e-300))


def _noise(relative: Floats, bootstrap: HostBootstrap, limits: Thresholds) -> Estimate:
    """Return the median over hosts of noise in sky sigmas, (n, band)."""
    noise = bootstrap.median(_median_of_bands(relative))
    return noise.widened(limits["nuisance.floor_noise"] * noise.value)


def _median_of_bands(values: Floats) -> Floats:
    """Median of the finite values of each row (n, band); NaN where there is none."""
    result = np.full(len(values), np.nan)
    known = np.isfinite(values).any(1)
    result[known] = np.nanmedian(values[known], axis=1)
    return result


def _displacement(data: FitData) -> Transform | None:
    """Return how stamp or control was turned or had its bands exchanged, if so: what fits the arcs best."""
    few = data.take(spread_rows(len(data.rows), _FEW_ROWS))
    found = displaced_stamps(few)

    def misfit(transform: Transform) -> float:
        undone = transform.undo(few)
        return float(np.sum(((undone.added - undone.recorded) * few.arc) ** 2))

    return min(found, key=misfit) if found else None


def _collect(state: AuditState) -> FitData:
    rows = state.fit_rows
    free = state.arc_free[rows]
    return FitData(
        bands=state.pairs.bands,
        rows=rows,
        added=state.added[rows],
        controls=state.pairs.controls[rows],
        recorded=state.model[rows],
        weights=np.ones(free.shape[:2]),
        peak=state.model_peak[rows],
        sky_sigma=state.sky_sigma[rows],
        arc=~free,
        seen=np.ones(free.shape[2:], dtype=bool),
    )


def _moved_back(data: FitData, registration: Registration) -> FitData:
    """Return the data with the control where its stamp is: nothing is known of the rim then."""
    seen = inner_pixels(data.seen.shape)
    return replace(data, added=data.recorded + registration.difference, seen=seen, arc=data.arc & seen)


def _register(state: AuditState, data: FitData, bootstrap: HostBootstrap) -> tuple[Registration, bool]:
    """Measure the control's shift, and tell whether moving it back explains the sky difference."""
    limits = state.thresholds
    stamps = data.added + data.controls - data.recorded
    least = limits["nuisance.control_shift_pix"]
    registration = register(stamps, data.controls, ~data.arc, bootstrap, least)
    if registration.length_pix <= least:
        return registration, False
    if registration.explained >= limits["faults.shift_explained"]:
        return registration, True
    # beside strong noise a small shift removes little: then nothing of the sky may be left
    certain = max(registration.x.least_size, registration.y.least_size) > least
    beside = ~data.arc & inner_pixels(data.seen.shape)
    left = share_of_sky(registration.difference, data.controls, beside) if certain else 1.0
    return registration, left < _SKY_MAY_BE_LEFT


def _weigh(data: FitData, noise_nmgy: Floats, limits: Thresholds) -> FitData:
    """Weigh pixels by rendering error, added noise and 1e-4 sky sigma (rounding of bright hosts)."""
    variance = (limits["residual.model_error_of_peak"] * data.peak) ** 2
    variance = variance + noise_nmgy**2 + (1e-4 * data.sky_sigma) ** 2
    return replace(data, weights=1.0 / variance)


def summarise(
    evaluation: Evaluation, data: FitData, bootstrap: HostBootstrap, limits: Thresholds
) -> dict[str, Nuisance]:
    """Return the median over hosts of each parameter, with interval, nominal value and tolerance."""
    result: dict[str, Nuisance] = {}
    sky = float(np.median(data.sky_sigma))
    for name in evaluation.free:
        tolerance, floor = _tolerance(name, sky, limits)
        estimate = bootstrap.median(evaluation.values(name), evaluation.known(name))
        estimate = estimate.widened(floor * max(estimate.value, 1.0) if is_scale(name) else floor)
        result[name] = Nuisance(estimate, nominal_value(name), tolerance)
    if widths := [name for name in evaluation.free if is_width_of_band(name)]:
        known = np.array([evaluation.known(name) for name in widths])
        logs = np.log([evaluation.values(name) for name in widths])
        mean = np.exp(np.sum(known * logs, axis=0) / np.sum(known, axis=0))
        tolerance, floor = _tolerance("psf_width", sky, limits)
        estimate = bootstrap.median(mean, known.sum(0))
        result["psf_width"] = Nuisance(estimate.widened(floor * estimate.value), 1.0, tolerance)
    pedestals = [name for name in evaluation.free if name.startswith("pedestal_nmgy_")]
    if pedestals:
        tolerance, floor = _tolerance("pedestal_nmgy", sky, limits)
        mean = np.mean([evaluation.values(name) for name in pedestals], axis=0)
        estimate = bootstrap.median(mean)
        floor = max(floor, limits["nuisance.floor_pedestal"] * abs(estimate.value))
        result["pedestal_nmgy"] = Nuisance(estimate.widened(floor), 0.0, tolerance)
    return result


def _tolerance(name: str, sky_sigma: float, limits: Thresholds) -> tuple[float, float]:
    """Return the tolerance of a parameter and the floor of its interval."""
    if name.startswith("offset"):
        return limits["nuisance.offset_pix"], limits["nuisance.floor_offset_pix"]
    if name.startswith("pedestal"):
        return limits["nuisance.pedestal_sigma"] * sky_sigma, _PEDESTAL_FLOOR * sky_sigma
    if name == "source_bank":
        return limits["nuisance.source_bank"], limits["nuisance.floor_scale"]
    if name == "wraparound":
        return limits["nuisance.wraparound"], limits["nuisance.floor_wraparound"]
    if name == "source_size":
        return limits["nuisance.source_size"], limits["nuisance.floor_scale"]
    return limits["nuisance.scale"], limits["nuisance.floor_scale"] if is_scale(name) else 1e-5
