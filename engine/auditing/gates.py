"""Gates beside the core gate: what is not pixels (D3), other features (G2), strata (G4)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.bins import bin_label, can_be_judged, theta_e_bins
from arcforge.engine.auditing.checks import INCONCLUSIVE, PASS, WARN, Finding
from arcforge.engine.auditing.gate import GateResult, cell_features, core_features, run_gate
from arcforge.engine.auditing.resampling import Estimate, HostBootstrap
from arcforge.engine.auditing.trees import run_tree_gate
from arcforge.engine.auditing.unpaired import UnpairedPairs

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

_PROFILE_RINGS = 16
_ANNULUS_PIX = (6, 16)
# Fold assignments: fewer do not tell how fits vary, which the intervals count
_REPEATS = 3
# Trees cost ten times a linear fit
_TREE_REPEATS = 2
# A row's win is 0 or 1: its standard deviation is 1/2. One-sided 5 %, power 80 %
_DETECTABLE_IN_SE = 1.645 + 0.842


def artefact_features(images: Images, faint: Floats | float = 0.0) -> Floats:
    """What a file tells without its picture: zeros, repeated values, coarse rounding; (n, 4 * band).

    Brightness must not show in these, for light was added: repeats count from the third on, since two values
    in a few thousand are the same by chance, the more so the fainter all are; rounding is that of pixels
    beyond ``faint`` (a number a band, the sky's sigma), since sums that nearly cancel lose their last digits.
    """
    n, bands = images.shape[:2]
    flat = images.reshape(n, bands, -1)
    zeros = np.mean(flat == 0, axis=2)
    ordered = np.sort(flat, axis=2)
    repeated = np.mean(ordered[..., 2:] == ordered[..., :-2], axis=2)
    bits = flat.view(np.uint32)
    bright = np.abs(flat) > np.reshape(faint, (-1, 1))
    # mantissas that end in zeros: values that were stored in fewer bits, or on a lattice
    count = np.maximum(bright.sum(axis=2), 1)
    coarse = (((bits & 0xFFF) == 0) & bright).sum(axis=2) / count
    half = (((bits & 0x1FFF) == 0) & bright).sum(axis=2) / count
    return np.concatenate([zeros, repeated, coarse, half], axis=1).astype(np.float64)


def check_artefacts(state: AuditState) -> Finding:
    """D3: zeros, repeated values and rounding do not tell stamp from control; nor, where these are rows of
    their own, do the order of the rows and their columns.
    """
    finding = _check_pixel_artefacts(state)
    source = state.pairs.source
    if not isinstance(source, UnpairedPairs):
        return finding
    limit = state.thresholds["gate.max_artefact_auc"]
    told = source.telling()
    state.evidence["D3"] = {t.what: {"auc": t.auc, "ci95": [t.low, t.high]} for t in told}
    sure = [t for t in told if t.low > limit]
    if not sure:
        text = (
            f"{finding.message}; the order of the rows and {len(told) - 2} columns tell no more than chance"
        )
        return replace(finding, message=text)
    named = ", ".join(f"{t.what} (AUC {t.auc:.2f})" for t in sure[:4])
    text = f"{finding.message}; labels can be told from {named}: draw both classes alike, shuffle the rows"
    return replace(finding, status=WARN, message=text)


def _check_pixel_artefacts(state: AuditState) -> Finding:
    faint = np.median(state.sky_sigma, axis=0)
    stamps, controls = (artefact_features(i, faint) for i in (state.pairs.stamps, state.pairs.controls))
    limit = state.thresholds["gate.max_artefact_auc"]
    if np.array_equal(stamps, controls):
        return Finding(PASS, "zeros, repeats and rounding are the same in both", 0.5, (0.5, 0.5), limit)
    gate = run_gate(stamps, controls, state.bootstrap, state.thresholds, state.rng("artefacts"))
    low, high = gate.auc.ci95
    text = f"AUC {gate.auc.value:.3f} from zeros, repeated values and rounding alone"
    status = PASS if high <= limit else WARN if low > limit else INCONCLUSIVE
    if status == INCONCLUSIVE:
        n_hosts = len(np.unique(state.pairs.groups))
        text += f" ({low:.3f} to {high:.3f}): {n_hosts} hosts are too few to tell it from {limit:g}"
    return Finding(
        status,
        text,
        gate.auc.value,
        (low, high),
        limit,
    )


def check_family(state: AuditState) -> Finding:
    """G2: what other features and trees tell, and what folds that split hosts would have said."""
    stamps, controls = state.pairs.stamps, state.pairs.controls
    box = state.thresholds.count("gate.box_pix")
    gates = {
        "core mean": _gate(
            state, *(core_features(i, box).mean(1, keepdims=True) for i in (stamps, controls))
        ),
        "radial profile": _gate(state, *(_rings(state, i, 0, _PROFILE_RINGS) for i in (stamps, controls))),
        "annulus": _gate(state, *(_rings(state, i, *_ANNULUS_PIX) for i in (stamps, controls))),
        "core excluded": _gate(state, *(_outside(state, i) for i in (stamps, controls))),
    }
    aucs = {name: gate.auc for name, gate in gates.items()}
    aucs["boosted trees on the core"] = run_tree_gate(
        core_features(stamps, box),
        core_features(controls, box),
        state.bootstrap,
        state.thresholds,
        state.rng("trees"),
        repeats=_TREE_REPEATS,
    )
    own_folds = HostBootstrap(np.arange(len(stamps)), 2, state.rng("ungrouped"))
    ungrouped = run_gate(
        core_features(stamps, box),
        core_features(controls, box),
        own_folds,
        state.thresholds,
        state.rng("ungrouped folds"),
        repeats=1,
    )
    state.evidence["G2"] = {name: {"auc": e.value, "ci95": list(e.ci95)} for name, e in aucs.items()}
    state.evidence["G2"]["ungrouped folds"] = {"auc": ungrouped.auc.value, "ci95": None}
    shown = ", ".join(f"{name} {e.value:.3f}" for name, e in aucs.items())
    text = f"AUC of {shown}; the core gate with folds that split hosts would read {ungrouped.auc.value:.3f}"
    annulus = aucs["annulus"]
    return Finding(PASS, text, annulus.value, annulus.ci95, None)


def _gate(state: AuditState, stamps: Floats, controls: Floats) -> GateResult:
    return run_gate(
        stamps, controls, state.bootstrap, state.thresholds, state.rng("family"), repeats=_REPEATS
    )


def _rings(state: AuditState, images: Images, inner: int, outer: int) -> Floats:
    """Mean of each ring of 1 px: (n, bands * rings)."""
    which = state.distance.astype(np.int64)
    rings = [images[:, :, which == r].mean(2, dtype=np.float64) for r in range(inner, outer)]
    return np.concatenate(rings, axis=1)


def _outside(state: AuditState, images: Images) -> Floats:
    limits = state.thresholds
    keep = state.distance >= limits["core.radius_pix"]
    return cell_features(images, keep, limits.count("gate.window_pix"), limits.count("gate.cell_pix"))


def check_strata(state: AuditState) -> Finding:
    """G4: the core gate by theta_E, PSF width, flux and band, each with numbers and the least effect seen."""
    wins = state.gate.wins
    strata = [(bin_label(low, high), rows) for low, high, rows in theta_e_bins(state.theta_e_arcsec)]
    if state.has_parameters:
        columns = state.parameters
        for name, values in (
            ("PSF", columns.psf_fwhm_arcsec.mean(1)),
            ("source flux", columns.src_flux_nmgy.mean(1)),
        ):
            edges = np.quantile(values, (1 / 3, 2 / 3))
            third = np.digitize(values, edges)
            for k, words in enumerate(("lowest", "middle", "highest")):
                strata.append((f"{name}, {words} third", third == k))
    table = []
    for words, rows in strata:
        if not can_be_judged(rows, state.pairs.groups):
            continue
        share = state.bootstrap.mean(np.where(rows, wins, 0.0), rows.astype(np.float64))
        table.append(_stratum(words, rows, state, share))
    everything = np.ones(len(wins), dtype=bool)
    bands = [_stratum(f"band {b}", everything, state, e) for b, e in _gates_by_band(state).items()]
    state.evidence["G4"] = table + bands
    shown = ", ".join(
        f"{t['stratum']} {t['within_pair_auc']:.2f} (n {t['n_pairs']}, detectable {t['mde']:.2f})"
        for t in table[: len(theta_e_bins(state.theta_e_arcsec))]
    )
    by_band = ", ".join(f"{entry['stratum']} alone {entry['within_pair_auc']:.2f}" for entry in bands)
    return Finding(PASS, f"within-pair AUC: {shown or 'no stratum holds enough pairs'}; {by_band}", None)


def _stratum(words: str, rows: NDArray[np.bool_], state: AuditState, share: Estimate) -> dict[str, Any]:
    """Return one row of G4's table."""
    return {
        "stratum": words,
        "n_pairs": int(rows.sum()),
        "n_hosts": len(np.unique(state.pairs.groups[rows])),
        "within_pair_auc": share.value,
        "ci95": list(share.ci95),
        "mde": _DETECTABLE_IN_SE * 0.5 / np.sqrt(rows.sum()),
    }


def _gates_by_band(state: AuditState) -> dict[str, Estimate]:
    """Within-pair AUC of a core gate that sees one band only, by band."""
    box = state.thresholds.count("gate.box_pix")
    result = {}
    for k, band in enumerate(state.pairs.bands):
        features = [core_features(i[:, k : k + 1], box) for i in (state.pairs.stamps, state.pairs.controls)]
        rng = state.rng(f"band {band}")
        gate = run_gate(features[0], features[1], state.bootstrap, state.thresholds, rng, repeats=_REPEATS)
        result[band] = gate.within_pair_auc
    return result
