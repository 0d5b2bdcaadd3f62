"""Words for causes: the named fault with its fitted size, what that number usually is, and what to mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.causes import NEXT_STEP, Cause, make_cause
from arcforge.engine.auditing.faults import Hypothesis, search_rows
from arcforge.engine.auditing.forward import edge_words
from arcforge.engine.auditing.gains import Gain
from arcforge.engine.auditing.naming_noise import light_noise, stamp_noise
from arcforge.engine.auditing.notes import note_on_provenance
from arcforge.engine.auditing.nuisance import FitData, Point, parameters_of
from arcforge.engine.auditing.readings import ONE_WIDTH, READINGS
from arcforge.engine.auditing.resampling import Estimate
from arcforge.engine.auditing.solve import Evaluation, evaluate

if TYPE_CHECKING:
    from arcforge.engine.auditing.diagnosis import Diagnosis, Judge, Nuisance
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]

# What a cause's own parameter multiplies
_COLUMN = {
    "psf_width": "psf_fwhm_arcsec",
    "theta_e_scale": "theta_e_arcsec",
    "source_size": "src_reff_arcsec",
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


def psf_truth_cause(ratio: float, ci95: tuple[float, float], pixscale_arcsec: float) -> Cause:
    """Return the cause where recorded PSF widths are ``ratio`` times the survey's."""
    known = known_scale("psf_width", ratio, pixscale_arcsec)
    text = f"recorded PSF widths are {ratio:.4g} times the survey's{known}"
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
    if result.gain:
        causes = _with_gain(state, result.gain, result, causes)
    if any(cause.name == "provenance" for cause in causes):
        note = note_on_provenance(state, result, data, judge)
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

    if best.point.reading and READINGS[best.point.reading].cause == name:
        return True
    parameters = parameters_of(data.bands, width_by_band=best.point.width_by_band).get(name, ())
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
    if reading and reading.cause == name:
        if best.point.reading == ONE_WIDTH:
            widths = (f"{band} {best.point[f'psf_width_{band}']:.4g}" for band in data.bands)
            return make_cause(name, None, 1.0, f"{reading.words}: {', '.join(widths)} arcsec")
        factor = judge.bootstrap.median(state.forward.ratio(_COLUMN[name], data.rows, best.point.change))
        factor = factor.widened(state.thresholds["nuisance.floor_scale"] * factor.value)
        return make_cause(name, factor, 1.0, f"{reading.words} (median ratio {factor.value:.4g})")
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
    estimate, where = _worst_band(each, state)
    if estimate is None:
        estimate, where = judge.bootstrap.median(scale.mean(0)), "in every band"
    estimate = estimate.widened(state.thresholds["nuisance.floor_scale"] * estimate.value)
    if _follows_magnification(state, scale.mean(0), data):
        text = "the lensed image is renormalised to the source's flux: magnification is lost (1/mu)"
    else:
        known = known_scale("flux_scale", estimate.value, state.forward.pixscale_arcsec)
        text = f"the added light is {estimate.value:.4g} times the recorded {where}{known}"
    return make_cause("flux_scale", estimate, 1.0, text)


def _with_gain(state: AuditState, gain: Gain, result: Diagnosis, causes: list[Cause]) -> list[Cause]:
    """Add the gain of stamps over controls to what is said of fluxes: arcs may or may not share it."""
    worst, where = _worst_band(gain.bands, state)
    estimate = worst or min(gain.bands.values(), key=lambda e: e.se)
    known = known_scale("flux_scale", estimate.value, state.forward.pixscale_arcsec)
    fluxes = next((c for c in causes if c.name == "flux_scale"), None)
    text = f"{estimate.value:.4g} times as bright as in their controls {where or 'in every band'}{known}"
    point = result.hypotheses[0].point if fluxes else Point()
    arcs = np.array([point[f"flux_scale_{band}"] for band in gain.bands])
    if np.all(np.abs(arcs / gain.factors - 1.0) < _NEAR):
        text = f"stamps, arcs and all, are {text}"
    else:
        text = f"galaxies are in their stamps {text}"
        if fluxes:  # its advice comes at the end of both
            text += f"; beside that, {fluxes.message.removesuffix('; ' + NEXT_STEP['flux_scale'])}"
    others = [cause for cause in causes if cause is not fluxes]
    return [make_cause("flux_scale", estimate, 1.0, text), *others]


def _worst_band(each: dict[str, Estimate], state: AuditState) -> tuple[Estimate | None, str]:
    """Return the scale of the band that departs most, with all in words; None where they are the same."""
    values = [e.value for e in each.values()]
    if max(values) - min(values) <= state.thresholds["nuisance.scale"]:
        return None, ""
    worst = max(each, key=lambda band: abs(np.log(each[band].value)))
    return each[worst], f"in {worst} ({', '.join(f'{b} {e.value:.4g}' for b, e in each.items())})"


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


def _scale_cause(name: str, words: str) -> Callable[..., Cause]:
    def describe(
        state: AuditState, nuisance: dict[str, Nuisance], evaluation: Evaluation, data: FitData, judge: Judge
    ) -> Cause:
        each = {
            n.removeprefix(name + "_"): e.estimate for n, e in nuisance.items() if n.startswith(name + "_")
        }
        worst, where = _worst_band(each, state) if each else (None, "")
        estimate = worst or nuisance[name].estimate
        known = known_scale(name, estimate.value, state.forward.pixscale_arcsec)
        text = f"{words} {estimate.value:.4g} times as recorded{where and ' ' + where}{known}"
        if name == "psf_width" and evaluation.point.edge:
            text += f" (its kernel ends at {edge_words(evaluation.point.edge)})"
        return make_cause(name, estimate, 1.0, text)

    return describe


_WORDS: dict[str, Callable[..., Cause]] = {
    "kernel_offset": _offset_cause,
    "psf_width": _scale_cause("psf_width", "the PSF of the arcs is"),
    "theta_e_scale": _scale_cause("theta_e_scale", "Einstein radii are"),
    "source_size": _scale_cause("source_size", "sources are"),
    "flux_scale": _flux_cause,
    "pedestal": _pedestal_cause,
    "wraparound": _wraparound_cause,
}


def known_scale(name: str, value: float, pixscale_arcsec: float) -> str:
    """Return the mistake by which a scale of this cause is usually what it is, in words; else nothing."""
    p = pixscale_arcsec
    lengths = {
        1 / p: f"arcsec taken for pixels (1/{p:g})",
        p: f"pixels taken for arcsec ({p:g})",
        2.0: "a half width taken for a full width (2)",
        0.5: "a full width taken for a half width (1/2)",
    }
    fwhm = 2.355
    tables = {
        "psf_width": {
            fwhm: "a sigma taken for a FWHM (2.355)",
            1 / fwhm: "a FWHM taken for a sigma (1/2.355)",
            fwhm / p: f"a sigma taken for a FWHM, and arcsec for pixels (2.355/{p:g})",
            p / fwhm: f"a FWHM taken for a sigma, and pixels for arcsec ({p:g}/2.355)",
            fwhm * p: f"a sigma taken for a FWHM, and pixels for arcsec (2.355 x {p:g})",
            1 / (fwhm * p): f"a FWHM taken for a sigma, and arcsec for pixels (1/(2.355 x {p:g}))",
            **lengths,
        },
        "theta_e_scale": lengths,
        "source_size": lengths,
        "flux_scale": {
            p**2: f"flux per square arcsec taken for flux per pixel ({p:g} squared)",
            1 / p**2: f"flux per pixel taken for flux per square arcsec (1/{p:g} squared)",
            2.5: "a factor of the magnitude scale (2.5)",
            10**0.4: "one magnitude (10**0.4)",
            10**-0.4: "one magnitude (10**-0.4)",
        },
    }
    near = [known for known in tables[name] if abs(value / known - 1.0) < _NEAR]
    return f", as by {tables[name][min(near, key=lambda k: abs(np.log(value / k)))]}" if near else ""


def _provenance(result: Diagnosis) -> Cause:
    record = next(h for h in result.hypotheses if not h.causes)
    tried: dict[tuple[str, ...], Hypothesis] = {}
    for h in result.hypotheses:
        if h.causes and h.causes != ("provenance",):
            tried.setdefault(h.causes, h)
    fits = "; ".join(
        f"{' and '.join(h.causes)} leaves {100 * h.misfit / record.misfit:.3g} % of the misfit"
        for h in list(tried.values())[:2]
    )
    best = ", ".join(
        f"{name} {n.estimate.value:.3g}"
        for name, n in result.nuisance.items()
        if n.outside and not name.startswith("pedestal_nmgy_")
    )
    text = f"no named fault explains the pixels ({fits}); best values of all at once: {best or 'as recorded'}"
    return make_cause("provenance", None, None, text)
