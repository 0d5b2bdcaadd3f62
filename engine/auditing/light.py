"""R4 flux, R7 the survey's PSF, E3 realism of the added light."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import FAIL, INCONCLUSIVE, PASS, WARN, Finding, judge_equivalence
from arcforge.engine.auditing.parameters import column
from arcforge.engine.auditing.resampling import spread_rows
from arcforge.engine.components import has_components
from arcforge.kernels.codes import PSF_NONE

if TYPE_CHECKING:
    from arcforge.engine.auditing.resampling import Estimate
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]

_WIDE_ROWS = 64
# No interval of the flux ratio is narrower: two converged renderers agree to this
_FLOOR = 1e-3
# From space telescopes to a bad night
_SURVEY_RANGE_ARCSEC = (0.05, 3.5)
# Real sources scatter by some 0.3 mag in g - r; less than this is one colour for all
_LEAST_COLOUR_SCATTER_MAG = 0.02
# of an arc's peak: lensed light is positive, and renderers err by a fiftieth of this
_MOST_DARK = 0.05


def check_flux(state: AuditState) -> Finding:
    """R4: the added light is the model's, over the whole stamp; with magnification and what is cut off."""
    axes = (1, 2, 3)
    observed = state.added.sum(axes, dtype=np.float64)
    predicted = state.model.sum(axes, dtype=np.float64)
    scale = np.where(predicted > 0, predicted, np.inf)
    ratio = state.bootstrap.ratio(observed / scale, (predicted > 0).astype(np.float64)).widened(_FLOOR)
    rows = spread_rows(len(state.pairs), _WIDE_ROWS)
    wide = state.forward.wide_light(rows).sum(axes, dtype=np.float64)
    intrinsic = state.forward.columns.take(rows).src_flux_nmgy.sum(1)
    magnification = float(np.median(wide / np.where(intrinsic > 0, intrinsic, np.inf)))
    inside = float(predicted[rows].sum() / max(wide.sum(), 1e-300))
    limit = state.thresholds["tests.flux_ratio"]
    state.evidence["R4"] = {"ratio": ratio.value, "magnification": magnification, "inside_stamp": inside}
    text = (
        f"added light is {ratio.value:.4f} times the predicted; magnification {magnification:.2f} (median), "
        f"{100 * inside:.1f} % of the light inside the stamp"
    )
    status = judge_equivalence(ratio.ci95, 1 - limit, 1 + limit)
    return Finding(status, text, ratio.value, ratio.ci95, limit)


def _survey_widths(state: AuditState) -> Floats | None:
    """The survey's PSF widths, arcsec (n, band): of a table of bricks, else of columns of the set."""
    table, bands = state.pairs.table, state.pairs.bands
    held = table.column_names
    if state.psf_table is not None:
        unknown = np.full(table.num_rows, np.nan)
        bricks = table.column("brickname").to_pylist() if "brickname" in held else [None] * table.num_rows
        place = [column(table, name) if name in held else unknown for name in ("ra", "dec")]
        return state.psf_table.widths_at(np.array(bricks, dtype=object), *place)
    names = [f"psfsize_{band}" for band in bands]
    return np.stack([column(table, name) for name in names], axis=1) if set(names) <= set(held) else None


def psf_truth(state: AuditState) -> tuple[Estimate, int] | None:
    """Recorded over survey PSF width, and rows without a survey value; None where none is given."""
    survey = _survey_widths(state)
    if survey is None:
        return None
    columns = state.parameters
    recorded = np.where((columns.psf_model != PSF_NONE)[:, None], columns.psf_fwhm_arcsec, np.nan)
    known = np.isfinite(survey) & (survey > 0) & np.isfinite(recorded)
    ratio = np.where(known, recorded / np.where(known, survey, 1.0), np.nan)
    rows = known.any(1)
    of_rows = np.full(len(ratio), np.nan)
    of_rows[rows] = np.nanmedian(ratio[rows], axis=1)
    return state.bootstrap.median(of_rows), int((~known).sum())


def check_psf_truth(state: AuditState) -> Finding:
    """R7: recorded PSF widths are the survey's (psfsize, arcsec FWHM)."""
    found = psf_truth(state)
    if found is None:
        return _check_range(state)
    ratio, absent = found
    limit = state.thresholds["tests.psf_truth"]
    text = f"recorded PSF widths are {ratio.value:.4g} times the survey's psfsize"
    if absent:
        text += f"; {absent} values have none (no brick, or psfsize 0 where a band has no coverage)"
    if not np.isfinite(ratio.value):
        text = f"no row has a survey PSF width ({absent} values are 0 or missing)"
        if state.psf_table is not None:
            text += f": {state.psf_table.path} is joined by brickname, or by ra and dec"
            return Finding(INCONCLUSIVE, text, None, None)
        return Finding(FAIL, text, None, None)
    status = judge_equivalence(ratio.ci95, 1 - limit, 1 + limit)
    return Finding(status, text, ratio.value, ratio.ci95, limit)


def _check_range(state: AuditState) -> Finding:
    """Without survey values: widths in another unit lie outside the range of surveys."""
    columns = state.parameters
    widths = columns.psf_fwhm_arcsec[columns.psf_model != PSF_NONE]
    widths = widths[widths > 0]
    if not widths.size:
        return Finding(PASS, "no PSF width is recorded to be held against a survey's")
    low, high = (float(q) for q in np.quantile(widths, (0.01, 0.99)))
    text = f"no psfsize_<band> columns; recorded widths run from {low:.2f} to {high:.2f} arcsec"
    if low < _SURVEY_RANGE_ARCSEC[0] or high > _SURVEY_RANGE_ARCSEC[1]:
        unit = f"{_SURVEY_RANGE_ARCSEC[0]:g} to {_SURVEY_RANGE_ARCSEC[1]:g} arcsec"
        return Finding(WARN, f"{text}: surveys have {unit}; is the unit right?", high)
    return Finding(PASS, f"{text}, as surveys have", high)


def check_realism(state: AuditState) -> Finding:
    """E3: do the sources scatter as real ones do?"""
    columns, bands = state.parameters, state.pairs.bands
    flux = columns.src_flux_nmgy
    remarks, scatter = [], None
    if len(bands) > 1 and (flux > 0).all():
        colours = -2.5 * np.log10(flux[:, :-1] / flux[:, 1:])
        scatter = float(colours.std(0).max())
        shown = ", ".join(
            f"{a}-{b} {m:.2f} +- {s:.2f}"
            for a, b, m, s in zip(bands[:-1], bands[1:], colours.mean(0), colours.std(0), strict=True)
        )
        if scatter < _LEAST_COLOUR_SCATTER_MAG:
            remarks.append(f"every source has one colour ({shown})")
    theta_e = state.theta_e_arcsec
    values = np.unique(theta_e[np.isfinite(theta_e)])
    if 1 < len(values) <= max(12, len(theta_e) // 20) and len(theta_e) >= 40:
        remarks.append(f"Einstein radii take {len(values)} values only")
    indices = columns.src_n[columns.source_id == ""]  # an image has none
    if len(indices) and np.ptp(indices) == 0 and not has_components(columns):
        remarks.append(f"every source has Sersic index {indices[0]:g}")
    model = state.finished("model")
    if model is not None:
        peak = np.maximum(model.max((1, 2, 3)), np.finfo(np.float32).tiny)
        depth = -model.min((1, 2, 3)) / peak
        dark = int((depth > _MOST_DARK).sum())
        if dark:
            row = int(np.argmax(depth))
            remarks.append(
                f"{dark} of {len(depth)} arcs have notches darker than the sky (row {state.pairs.rows[row]}: "
                f"{depth[row]:.0%} of its peak): clean the bank of sources"
            )
    sizes = columns.src_reff_arcsec[columns.src_reff_arcsec > 0]  # of an image it need not be recorded
    words = list(remarks)
    if len(sizes):
        words.append("sources of {:.2f} to {:.2f} arcsec".format(*np.quantile(sizes, (0.05, 0.95))))
    if scatter is not None:
        words.append(f"colours scatter by {scatter:.2f} mag")
    return Finding(WARN if remarks else PASS, "; ".join(words), scatter)
