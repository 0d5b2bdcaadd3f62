"""What to say of pixels that no named fault explains: what else would leave little of the misfit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize

from arcforge.engine.auditing.faults import search
from arcforge.engine.auditing.nuisance import FitData, Point, parameters_of
from arcforge.engine.auditing.readings import READINGS
from arcforge.engine.auditing.resampling import spread_rows
from arcforge.engine.auditing.solve import evaluate, fit
from arcforge.engine.components import scaled

if TYPE_CHECKING:
    from arcforge.engine.auditing.diagnosis import Diagnosis, Judge
    from arcforge.engine.auditing.faults import Hypothesis
    from arcforge.engine.auditing.forward import Forward
    from arcforge.engine.auditing.state import AuditState
    from arcforge.engine.catalog import RenderColumns

# Rows on which renderers and readings are tried, and the share of the misfit that they may leave to be told
_ROWS, _LEAVES = 16, 0.2
# Scales that all lengths are tried at, and the rows for a first look
_LOG_SCALES, _SCAN_ROWS = np.linspace(-1.0, 1.0, 101), 6
# What may differ from band to band, in words
_BY_BAND = {
    "kernel_offset": "arcs at places of their own in each band (x y, in px)",
    "source_size": "sources of another size in each band (scale)",
    "theta_e_scale": "Einstein radii of their own in each band (scale)",
}
# Share of the pairs with pixels cut off from which on these are the reason
_CLIPPED = 0.5
# Where more and less than these shares of the pairs are as recorded, and the others leave so many times more
# than a residual may be, the set is a mixture
_FEW, _MOST, _FAR = 0.05, 0.95, 10.0
# A pair that leaves so many times more than that is none of those as recorded
_SURELY = 3.0


def note_on_provenance(state: AuditState, result: Diagnosis, data: FitData, judge: Judge) -> str:
    """Return a sentence that ends in "; ", or nothing."""
    few = data.take(spread_rows(len(data.rows), _ROWS))
    fluxes = parameters_of(few.bands)["flux_scale"]
    misfit = float(evaluate(state.forward, few, Point(), fluxes).left.sum())
    # another reading may hold for all pairs and still be that of the record for some, as without shear
    return (
        _clipped(state)
        or _rendered_otherwise(state, few)
        or _read_otherwise(state, few, misfit)
        or _of_other_pixels(state, few, misfit)
        or _apart_by_band(state, few, misfit)
        or _mixture(state, result, data, judge)
    )


def _clipped(state: AuditState) -> str:
    """Say so where pixels were cut off at a value: light is lost then."""
    scan = state.pairs.scan
    if not scan.clipped or len(scan.clipped) < _CLIPPED * scan.n_scanned:
        return ""
    return (
        f"of {len(scan.clipped)} of {scan.n_scanned} pairs many pixels are one value, the lowest, the "
        "highest or zero: pixels that were cut off or filled do not hold the added light; "
    )


def _mixture(state: AuditState, result: Diagnosis, data: FitData, judge: Judge) -> str:
    """Say so where some pairs are as recorded and others are not, and what explains those."""
    limit, found = state.thresholds["residual.rms_of_peak"], result.recorded.rms_of_peak
    as_recorded = found <= limit
    share = float(np.mean(as_recorded))
    if not _FEW < share < _MOST or np.median(found[~as_recorded]) < _FAR * limit:
        return ""
    wrong = state.pairs.rows[data.rows[~as_recorded]][:3]
    # those that a coarse renderer alone may have left are of no use to the search
    others = np.flatnonzero(found > _SURELY * limit)
    best = search(state.forward, data.take(others), judge.of_rows(others))[0]
    explained = f"{_shown(best, data.bands)} explains those; " if best.explains and best.causes else ""
    return (
        f"{100 * share:.0f} % of the pairs are as recorded, others are not (rows "
        f"{', '.join(str(row) for row in wrong)}, ...): {explained}find what those have in common; "
    )


def _shown(found: Hypothesis, bands: str) -> str:
    """Return the causes of a hypothesis, each with its values."""
    parameters = parameters_of(bands, width_by_band=found.point.width_by_band)
    values = {
        cause: [f"{found.point[name]:.4g}" for name in parameters.get(cause, ()) if name in found.free]
        for cause in found.causes
    }
    return " and ".join(f"{cause} ({', '.join(values[cause]) or found.detail})" for cause in found.causes)


def _rendered_otherwise(state: AuditState, few: FitData) -> str:
    """Say so where another kind of renderer would have left these pixels."""
    misfit = float(evaluate(state.forward, few, Point(), ()).chi2.sum())
    for words, other in _other_renderers(state.forward):
        again = replace(few, recorded=other.render(few.rows))
        left = float(evaluate(other, again, Point(), ()).chi2.sum())
        if left < _LEAVES * misfit:
            return words.format(f"{100 * left / misfit:.2g} %")
    return ""


def _other_renderers(forward: Forward) -> Iterator[tuple[str, Forward]]:
    for samples in (1, 2, 4):
        yield (
            f"{samples} x {samples} samples a pixel would leave {{}} of the misfit: the renderer samples too "
            "coarsely; ",
            forward.otherwise(variant=f"uniform{samples}"),
        )
    other = forward.otherwise(pixel_response="box" if forward.pixel_response == "in_psf" else "in_psf")
    how = "means over pixels beside" if other.pixel_response == "box" else "no means over pixels beyond"
    yield f"{how} the PSF would leave {{}} of the misfit: the PSF holds the pixel once; ", other


def _read_otherwise(state: AuditState, few: FitData, misfit: float) -> str:
    """Say so where another reading of the record leaves little, whatever the fluxes."""
    free = parameters_of(few.bands)["flux_scale"]
    left = {
        name: float(evaluate(state.forward, few, Point(reading=name), free).left.sum()) for name in READINGS
    }
    best = min(left, key=lambda name: left[name])
    if left[best] >= _LEAVES * misfit:
        return ""
    return f"{READINGS[best].words}: that would leave {100 * left[best] / misfit:.2g} % of the misfit; "


def _of_other_pixels(state: AuditState, few: FitData, misfit: float) -> str:
    """Say so where every length is so many times as recorded: the renderer's pixels had another size."""
    free = parameters_of(few.bands)["flux_scale"]
    scan = few.take(spread_rows(len(few.rows), _SCAN_ROWS))

    def left(log_scale: float, data: FitData, with_psf: bool) -> float:
        columns = _scaled_lengths(state.forward.columns, float(np.exp(log_scale)), with_psf)
        other = state.forward.otherwise(columns=columns)
        again = replace(data, recorded=other.render(data.rows))
        return float(evaluate(other, again, Point(), free).left.sum())

    def best(with_psf: bool) -> Any:
        start = min(_LOG_SCALES, key=lambda s: left(s, scan, with_psf))
        step = _LOG_SCALES[1] - _LOG_SCALES[0]
        bounds = (start - step, start + step)
        return optimize.minimize_scalar(left, bounds=bounds, args=(few, with_psf), method="bounded")

    of_all, but_psf = best(True), best(False)
    found, but = (of_all, "") if of_all.fun <= but_psf.fun else (but_psf, " but the PSF's")
    if found.fun >= _LEAVES * misfit:
        return ""
    scale, pixscale = float(np.exp(found.x)), state.forward.pixscale_arcsec
    return (
        f"all lengths{but} {scale:.4g} times as recorded would leave {100 * found.fun / misfit:.2g} % of the "
        f"misfit: they were rendered for pixels of {pixscale / scale:.4g} arcsec, not {pixscale:.4g}; "
    )


def _scaled_lengths(columns: RenderColumns, scale: float, with_psf: bool) -> RenderColumns:
    names = [f"{name}_arcsec" for name in ("theta_e", "lens_x", "lens_y", "src_x", "src_y", "src_reff")]
    names += ["psf_fwhm_arcsec"] if with_psf else []
    lengths = {name: getattr(columns, name) * scale for name in names}
    return replace(columns, more_shape=scaled(columns, scale), **lengths)


def _apart_by_band(state: AuditState, few: FitData, misfit: float) -> str:
    """Say so where arcs have places, sizes or Einstein radii of their own in each band."""
    for cause, words in _BY_BAND.items():
        names = parameters_of(few.bands)[cause]
        found = [fit(state.forward, few.of_band(k), Point(), names) for k in range(len(few.bands))]
        left = sum(float(each.chi2.sum()) for each in found)
        if left < _LEAVES * misfit:
            shown = ", ".join(
                f"{band} {' '.join(f'{each.point[n]:.3f}' for n in names)}"
                for band, each in zip(few.bands, found, strict=True)
            )
            return f"{words} ({shown}) would leave {100 * left / misfit:.2g} % of the misfit; "
    return ""
