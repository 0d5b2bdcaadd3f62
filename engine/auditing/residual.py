"""R1 the residual, R2 the fitted nuisance parameters, R3 the named cause, R6 the explained-away gate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import FAIL, INCONCLUSIVE, PASS, WARN, Finding, row_words
from arcforge.engine.auditing.forward import edge_words
from arcforge.engine.auditing.gate import core_features, run_gate
from arcforge.engine.auditing.resampling import spread_rows
from arcforge.engine.auditing.solve import measure_residual
from arcforge.engine.auditing.sources import StorePairs

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Images = NDArray[np.float32]

# Rows of a store that are rendered anew, and the rounding of another kind of CPU (of the peak)
_REPLAYED_ROWS = 64
_OTHER_CPU = 1e-4
# Pairs that leave so many times more than the others may are told one by one
_FAR = 10.0


def check_residual(state: AuditState) -> Finding:
    """R1: stamp - control - model is as small as two converged renderers allow, in 95 % of the rows."""
    limits = state.thresholds
    residual = state.added - state.model
    measured = measure_residual(residual, ~state.arc_free, state.arc_free, state.model_peak, state.sky_sigma)
    level = limits["residual.row_quantile"]
    of_peak = state.bootstrap.quantile(measured["rms_of_peak"], level)
    of_sky = state.bootstrap.quantile(measured["rms_of_sky"], level)
    state.residual_of_peak, state.residual_of_sky = measured["rms_of_peak"], measured["rms_of_sky"]
    tops = (limits["residual.rms_of_peak"], limits["residual.rms_of_sky"])
    ratios = [(e.value / top, e, top) for e, top in zip((of_peak, of_sky), tops, strict=True)]
    worst, estimate, top = max(ratios, key=lambda item: item[0])
    text = (
        f"{100 * level:.0f} % of the pairs leave less than {of_peak.value:.2g} of the arc's peak and "
        f"{of_sky.value:.2g} sky sigma (root mean square over the arc)"
    )
    status = PASS if worst <= 1 else WARN if of_peak.value <= tops[0] else FAIL
    if isinstance(state.pairs.source, StorePairs) and state.pairs.source.is_rendered:
        agrees, words = _replay(state, state.pairs.source)
        status, text = (status if agrees else FAIL), f"{text}; {words}"
    if status == FAIL and state.residual_explained and state.kernel_edge:
        status, text = WARN, f"{text}; a PSF kernel that ends at {edge_words(state.kernel_edge)} explains it"
    far = np.flatnonzero(measured["rms_of_peak"] > _FAR * tops[0])
    if 0 < len(far) < (1 - level) * len(state.pairs):
        rows = row_words(state.pairs.rows[far].tolist())
        text += f"; {len(far)} of {len(state.pairs)} leave more than {_FAR * tops[0]:.2g} of it ({rows})"
        status = WARN if status == PASS else status
    return Finding(status, text, estimate.value, estimate.ci95, top)


def _replay(state: AuditState, source: StorePairs) -> tuple[bool, str]:
    """Render a store's rows anew with its own options: the same to the rounding of stamp and control."""
    chosen = spread_rows(len(state.pairs), _REPLAYED_ROWS)
    stored, again = source.replay(state.pairs.rows[chosen])
    difference = np.abs(stored - again)
    larger = np.maximum(np.abs(state.pairs.stamps[chosen]), np.abs(state.pairs.controls[chosen]))
    steps = float(np.max(difference / np.spacing(larger)))
    of_peak = float(np.max(difference.max((1, 2, 3)) / np.maximum(stored.max((1, 2, 3)), 1e-30)))
    if steps <= state.thresholds["residual.replay_ulp"]:
        return True, f"{len(chosen)} rows rendered anew are the same to {steps:.0f} float32 steps"
    return of_peak <= _OTHER_CPU, f"{len(chosen)} rows rendered anew differ by {of_peak:.1e} of the peak"


def check_nuisance(state: AuditState) -> Finding:
    """R2: offset, PSF width, Einstein radius, source size, fluxes and pedestals are as recorded."""
    nuisance = state.diagnosis.nuisance
    outside = [name for name, n in nuisance.items() if n.outside]
    open_ones = [name for name, n in nuisance.items() if not n.outside and not n.within]
    worst = max(nuisance.values(), key=lambda n: n.departure)
    n_rows = len(state.fit_rows)
    if outside:
        shown = ", ".join(f"{name} {nuisance[name].estimate.value:.4g}" for name in outside[:4])
        return Finding(FAIL, f"outside tolerance: {shown}", worst.departure, None, 1.0, n_rows)
    if open_ones:
        shown = ", ".join(
            f"{name} {nuisance[name].estimate.ci95[0]:.4g} to {nuisance[name].estimate.ci95[1]:.4g}"
            for name in open_ones[:4]
        )
        return Finding(
            INCONCLUSIVE,
            f"known too poorly: {shown}; more pairs are needed",
            worst.departure,
            None,
            1.0,
            n_rows,
        )
    text = (
        f"all {len(nuisance)} parameters within tolerance, the largest departure {worst.departure:.2f} of it"
    )
    return Finding(PASS, text, worst.departure, None, 1.0, n_rows)


def check_cause(state: AuditState) -> Finding:
    """R3: no fault of the dictionary is needed to explain the pixels."""
    causes = state.diagnosis.causes
    n_rows = len(state.fit_rows)
    if not causes:
        return Finding(
            PASS, "the recorded parameters explain the pixels; no fault is needed", 0.0, None, 0.0, n_rows
        )
    return Finding(
        FAIL, "; ".join(f"{c.name}: {c.message}" for c in causes), float(len(causes)), None, 0.0, n_rows
    )


def check_explained_away(state: AuditState) -> Finding:
    """R6: with the model subtracted, the core gate finds nothing."""
    box = state.thresholds.count("gate.box_pix")
    limit = state.thresholds["gate.explained_tolerance"]
    controls = core_features(state.pairs.controls, box)

    def judge(model: Images) -> Finding:
        result = run_gate(
            core_features(state.quiet_stamps - model, box),
            controls,
            state.bootstrap,
            state.thresholds,
            state.rng("explained away"),
            hardly_differ=True,
        )
        low, high = result.auc.ci95
        status = PASS if 0.5 - limit <= low and high <= 0.5 + limit else INCONCLUSIVE
        if high < 0.5 - limit or low > 0.5 + limit:
            status = FAIL
        text = f"(stamp - model) against control: AUC {result.auc.value:.3f}"
        return Finding(status, text, result.auc.value, (low, high), limit)

    finding = state.with_cut_kernel(judge)
    if finding.status != PASS and state.residual_explained and _outshines_the_sky(state):
        text = f"{finding.message}: arcs so bright that what two renderers may differ by shows in the noise"
        return replace(finding, status=WARN, message=text)
    return finding


def _outshines_the_sky(state: AuditState) -> bool:
    """Whether the residual is within its share of the arcs' peaks, and many sky sigmas for all that."""
    limits, level = state.thresholds, state.thresholds["residual.row_quantile"]
    if state.residual_of_peak is None or state.residual_of_sky is None:
        return False
    of_peak, of_sky = (np.quantile(v, level) for v in (state.residual_of_peak, state.residual_of_sky))
    return bool(of_peak <= limits["residual.rms_of_peak"] and of_sky > limits["residual.rms_of_sky"])
