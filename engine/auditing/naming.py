"""Words for causes: the named fault with its fitted size, what that number usually is, and what to mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.causes import Cause, make_cause
from arcforge.engine.auditing.faults import Hypothesis, parameters_of, search_rows
from arcforge.engine.auditing.forward import edge_words
from arcforge.engine.auditing.naming_noise import light_noise, stamp_noise
from arcforge.engine.auditing.notes import note_on_provenance
from arcforge.engine.auditing.nuisance import FitData
from arcforge.engine.auditing.readings import READINGS
from arcforge.engine.auditing.resampling import Estimate
from arcforge.engine.auditing.solve import Evaluation, evaluate

if TYPE_CHECKING:
    from arcforge.engine.auditing.diagnosis import Diagnosis, Judge, Nuisance
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]

_KNOWN_WIDTHS = {
    2.355: "a sigma taken for a FWHM (2.355)",
    1 / 2.355: "a FWHM taken for a sigma (1/2.355)",
    1 / 0.262: "arcsec taken for pixels (1/0.262)",
    0.262: "pixels taken for arcsec (0.262)",
    2.0: "a half width taken for a full width (2)",
}
_KNOWN_FLUXES = {
    0.262**2: "flux per square arcsec taken for flux per pixel (0.262 squared)",
    1 / 0.262**2: "flux per pixel taken for flux per square arcsec (1/0.262 squared)",
    2.5: "a factor of the magnitude scale (2.5)",
    10**0.4: "one magnitude (10**0.4)",
    10**-0.4: "one magnitude (10**-0.4)",
}
# A fitted number this close to a known one is called by its name
_NEAR = 0.02
# A shift that leaves less than this share of the misfit is the fault, even if its interpolation is not known
_SHIFT_LEAVES = 0.1
# A shift by an unknown interpolation is off by so many pixels times the root of the share of the sky that it
# leaves, a tenth of itself at most: order 2 taken for order 3 leaves 0.7 % and is off by 0.02 px
_OF_UNKNOWN_PIX, _OF_UNKNOWN = 0.25, 0.1
# Flux scales whose product with the magnification scatters less than this share of their own scatter are 1/mu
_FOLLOWS_MAGNIFICATION = 0.2


def psf_truth_cause(ratio: float, ci95: tuple[float, float]) -> Cause:
    """Return the cause where recorded PSF widths are ``ratio`` times the survey's."""
    text = f"recorded PSF widths are {ratio:.4g} times the survey's{_known(ratio, _KNOWN_WIDTHS)}"
    return replace(make_cause("psf_width", None, 1.0, text), estimate=ratio, ci95=ci95)


def name_causes(state: AuditState, result: Diagnosis, data: FitData, judge: Judge) -> list[Cause]:
    """Return the named causes, most certain first; none where the record explains the pixels.

    ``result`` holds all but its causes, ``data`` the fitted pixels, ``judge`` what counts as explained.
    """
    causes: list[Cause] = []
    if result.displaced:
        causes.append(make_cause(result.displaced.cause, None, None, result.displaced.detail))
    if result.registration_matters:
        causes.append(_shift_cause(state, result))
    grain = light_noise(data, judge) if result.hypotheses else None
    if grain:
        causes.append(grain)
    elif result.hypotheses:
        causes += _fitted_causes(state, result, data, judge)
    if _went_with_its_stamp(result):
        causes = [cause for cause in causes if cause.name != "kernel_offset"]
    if any(cause.name == "provenance" for cause in causes):
        note = note_on_provenance(state, result, data)
        causes = [replace(c, message=note + c.message) if c.name == "provenance" else c for c in causes]
    if result.noise.ci95[0] > state.thresholds["nuisance.noise_sigma"]:
        causes.append(stamp_noise(result))
    return causes


def _shift_cause(state: AuditState, result: Diagnosis) -> Cause:
    shift = result.registration
    where = f"({shift.x.value:+.3f}, {shift.y.value:+.3f}) px from its stamp"
    if shift.own:
        where = f"{shift.own.value:.3f} px from its stamp (median), elsewhere in each pair"
    share = f"{100 * shift.explained:.0f} % of the sky difference"
    text = f"the control lies {where}; {shift.operator} removes {share}"
    if _went_with_its_stamp(result):
        text += "; the arc went with its stamp"
    unknown = _OF_UNKNOWN_PIX * float(np.sqrt(max(1.0 - shift.explained, 0.0)))
    floor = max(state.thresholds["nuisance.floor_offset_pix"], min(unknown, _OF_UNKNOWN * shift.length_pix))
    length = shift.own.widened(floor) if shift.own else _length(shift.x, shift.y, floor)
    return make_cause("control_shift", length, 0.0, text)


def _went_with_its_stamp(result: Diagnosis) -> bool:
    """Whether the stamp was moved with its arc, so that the arc's offset is no fault of its own."""
    shift = result.registration
    if not result.registration_matters or shift.moved != "stamp" or shift.own or not result.hypotheses:
        return False
    point = result.hypotheses[0].point
    apart = np.hypot(point["offset_x_pix"] + shift.x.value, point["offset_y_pix"] + shift.y.value)
    return bool(apart < _NEAR)


def _length(x: Estimate, y: Estimate, floor: float) -> Estimate:
    """Length of a vector of two estimates, with the error along its own direction."""
    length = float(np.hypot(x.value, y.value))
    half_x, half_y = (abs(v.value) * (v.ci95[1] - v.ci95[0]) / 2.0 for v in (x, y))
    half = float(np.hypot(half_x, half_y)) / max(length, 1e-12)
    return Estimate(length, (length - half, length + half), half / 1.96).widened(floor)


def _fitted_causes(state: AuditState, result: Diagnosis, data: FitData, judge: Judge) -> list[Cause]:
    best, *others = result.hypotheses
    if best.explains and not best.causes:
        return []
    if not best.explains:
        # what an unknown way of resampling leaves of a shifted control is no second fault
        settled = result.registration_matters and result.shift_leaves < _SHIFT_LEAVES
        return [] if result.explained_as_recorded or settled else [_provenance(result)]
    rivals = [h for h in others if h.causes != ("provenance",) and not set(best.causes) <= set(h.causes)]
    if any(
        _vote(best, rival, judge, data) < state.thresholds["faults.vote"]
        for rival in rivals
        if not rival.explains
    ):
        return [_provenance(result)]
    evaluation = evaluate(state.forward, best.apply(data), best.point, best.free)
    if not judge.explains(evaluation, data, float(result.recorded.chi2.sum())):
        return [_provenance(result)]
    significant = [name for name in best.causes if _is_outside(state, name, best, evaluation, data, judge)]
    if not significant:
        # a departure within tolerance is no fault, however surely it is known
        return [] if judge.passes(result.recorded, data) else [_provenance(result)]
    undecided = sorted(
        {
            c
            for h in rivals
            if h.explains and _vote(best, h, judge, data) < state.thresholds["faults.vote"]
            for c in h.causes
        }
    )
    tail = f"; cannot be told apart from {', '.join(undecided)} in this sample" if undecided else ""
    causes = [_fitted_cause(state, name, best, evaluation, data, judge) for name in significant]
    return [replace(c, message=c.message + tail) for c in sorted(causes, key=lambda c: -c.certainty)]


def _vote(best: Hypothesis, rival: Hypothesis, judge: Judge, data: FitData) -> float:
    """Share of host resamples in which the best explanation has the smaller misfit."""
    hosts = judge.bootstrap.of_rows(search_rows(len(data.rows)))
    _, difference = hosts.sums(rival.chi2 - best.chi2)
    return float(np.mean(difference > 0))


def _is_outside(
    state: AuditState, name: str, best: Hypothesis, evaluation: Evaluation, data: FitData, judge: Judge
) -> bool:
    """Whether a fitted fault is larger than its tolerance, interval and all."""
    from arcforge.engine.auditing.diagnosis import summarise

    parameters = parameters_of(data.bands).get(name, ())
    if name in ("orientation", "band_order") or not set(parameters) & set(best.free):
        return True
    nuisance = summarise(evaluation, data, judge.bootstrap, state.thresholds)
    return any(nuisance[p].outside for p in parameters if p in nuisance)


def _fitted_cause(
    state: AuditState, name: str, best: Hypothesis, evaluation: Evaluation, data: FitData, judge: Judge
) -> Cause:
    from arcforge.engine.auditing.diagnosis import summarise

    if name in ("orientation", "band_order"):
        return make_cause(name, None, None, best.detail)
    reading = READINGS[best.point.reading] if best.point.reading else None
    if reading and reading.cause == name and reading.factor:
        factor = judge.bootstrap.median(reading.factor(state.forward.columns.take(data.rows)))
        factor = factor.widened(state.thresholds["nuisance.floor_scale"] * factor.value)
        return make_cause(name, factor, 1.0, f"{reading.words} (median {factor.value:.4g})")
    nuisance = summarise(evaluation, data, judge.bootstrap, state.thresholds)
    if "source_bank" in best.free:
        share = nuisance["source_bank"].estimate
        text = f"a constant of {share.value:.3g} of its flux lies {best.detail}, and is lensed with it"
        return replace(make_cause(name, share, 0.0, text), unit="of the source's flux")
    word = _WORDS[name]
    return word(state, nuisance, evaluation, data, judge)


def _offset_cause(
    state: AuditState, nuisance: dict[str, Nuisance], evaluation: Evaluation, data: FitData, judge: Judge
) -> Cause:
    x, y = nuisance["offset_x_pix"].estimate, nuisance["offset_y_pix"].estimate
    half = ", half a pixel" if any(abs(abs(v.value) - 0.5) < _NEAR for v in (x, y)) else ""
    text = f"every arc lies ({x.value:+.3f}, {y.value:+.3f}) px from its place{half}"
    return make_cause(
        "kernel_offset", _length(x, y, state.thresholds["nuisance.floor_offset_pix"]), 0.0, text
    )


def _pedestal_cause(
    state: AuditState, nuisance: dict[str, Nuisance], evaluation: Evaluation, data: FitData, judge: Judge
) -> Cause:
    each = [evaluation.values(f"pedestal_nmgy_{band}") for band in data.bands]
    shown = ", ".join(f"{band} {np.median(v):+.3g}" for band, v in zip(data.bands, each, strict=True))
    sigmas = judge.bootstrap.median(np.mean(np.array(each).T / data.sky_sigma, axis=1)).value
    text = f"a constant is added to every stamp ({shown} nMgy/px; {sigmas:+.3f} sky sigma)"
    return make_cause("pedestal", nuisance["pedestal_nmgy"].estimate, 0.0, text)


def _wraparound_cause(
    state: AuditState, nuisance: dict[str, Nuisance], evaluation: Evaluation, data: FitData, judge: Judge
) -> Cause:
    text = "light that leaves the stamp at one edge returns at the opposite one"
    return make_cause("wraparound", nuisance["wraparound"].estimate, 0.0, text)


def _flux_cause(
    state: AuditState, nuisance: dict[str, Nuisance], evaluation: Evaluation, data: FitData, judge: Judge
) -> Cause:
    scale = np.array([evaluation.values(f"flux_scale_{band}") for band in data.bands])
    each = {band: judge.bootstrap.median(rows) for band, rows in zip(data.bands, scale, strict=True)}
    values = [e.value for e in each.values()]
    if max(values) - min(values) <= state.thresholds["nuisance.scale"]:
        estimate, where = judge.bootstrap.median(scale.mean(0)), "in every band"
    else:
        worst = max(each, key=lambda band: abs(np.log(each[band].value)))
        estimate, where = (
            each[worst],
            f"in {worst} ({', '.join(f'{b} {e.value:.4g}' for b, e in each.items())})",
        )
    estimate = estimate.widened(state.thresholds["nuisance.floor_scale"] * estimate.value)
    if _follows_magnification(state, scale.mean(0), data):
        text = "the lensed image is renormalised to the source's flux: magnification is lost (1/mu)"
    else:
        known = _known(estimate.value, _KNOWN_FLUXES)
        text = f"the added light is {estimate.value:.4g} times the recorded {where}{known}"
    return make_cause("flux_scale", estimate, 1.0, text)


def _follows_magnification(state: AuditState, scale: Floats, data: FitData) -> bool:
    lensed = data.recorded.sum((1, 2, 3), dtype=np.float64)
    magnification = lensed / state.forward.columns.take(data.rows).src_flux_nmgy.sum(1)
    if (
        np.any(scale <= 0)
        or np.any(magnification <= 0)
        or np.std(np.log(scale)) < state.thresholds["nuisance.scale"]
    ):
        return False
    return bool(np.std(np.log(scale * magnification)) < _FOLLOWS_MAGNIFICATION * np.std(np.log(scale)))


def _scale_cause(name: str, words: str, known: dict[float, str]) -> Callable[..., Cause]:
    def describe(
        state: AuditState, nuisance: dict[str, Nuisance], evaluation: Evaluation, data: FitData, judge: Judge
    ) -> Cause:
        estimate = nuisance[name].estimate
        text = f"{words} {estimate.value:.4g} times as recorded{_known(estimate.value, known)}"
        if name == "psf_width" and evaluation.point.edge:
            text += f" (its kernel ends at {edge_words(evaluation.point.edge)})"
        return make_cause(name, estimate, 1.0, text)

    return describe


_WORDS: dict[str, Callable[..., Cause]] = {
    "kernel_offset": _offset_cause,
    "psf_width": _scale_cause("psf_width", "the PSF of the arcs is", _KNOWN_WIDTHS),
    "theta_e_scale": _scale_cause("theta_e_scale", "Einstein radii are", {}),
    "source_size": _scale_cause("source_size", "sources are", {}),
    "flux_scale": _flux_cause,
    "pedestal": _pedestal_cause,
    "wraparound": _wraparound_cause,
}


def _known(value: float, table: dict[float, str]) -> str:
    for known, words in table.items():
        if abs(value / known - 1.0) < _NEAR:
            return f", as by {words}"
    return ""


def _provenance(result: Diagnosis) -> Cause:
    record = next(h for h in result.hypotheses if not h.causes)
    tried = [h for h in result.hypotheses if h.causes and h.causes != ("provenance",)][:2]
    fits = "; ".join(
        f"{' and '.join(h.causes)} leaves {100 * h.misfit / record.misfit:.2g} % of the misfit" for h in tried
    )
    best = ", ".join(
        f"{name} {n.estimate.value:.3g}"
        for name, n in result.nuisance.items()
        if n.outside and not name.startswith("pedestal_nmgy_")
    )
    text = f"no named fault explains the pixels ({fits}); best values of all at once: {best or 'as recorded'}"
    return make_cause("provenance", None, None, text)
