"""Gates beside the core gate (G2, G3), what a core mask would leave visible (E2), and remedies with their
cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.bins import bin_label, theta_e_bins
from arcforge.engine.auditing.checks import PASS, SKIPPED, WARN, Finding
from arcforge.engine.auditing.gate import GateResult, cell_features, core_features, run_gate
from arcforge.engine.auditing.resampling import HostBootstrap
from arcforge.kernels.codes import PSF_NONE

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Flags = NDArray[np.bool_]

# Mask radii of the sweep; beyond 7.1 px the central 10 x 10 box is masked as a whole
RADII_PIX = (0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
# Fold assignments of a gate that recommends: fewer do not tell how fits vary, which its interval counts
_REPEATS = 3


def ring_gate(
    state: AuditState,
    stamps: Images,
    controls: Images,
    bootstrap: HostBootstrap,
    radius_pix: float,
    purpose: str,
    repeats: int = 1,
) -> GateResult:
    """Gate on the cells of the window with the core masked: r < ``radius_pix`` is never looked at."""
    window, cell = state.thresholds.count("gate.window_pix"), state.thresholds.count("gate.cell_pix")
    keep = state.distance >= radius_pix
    features = [cell_features(images, keep, window, cell) for images in (stamps, controls)]
    return run_gate(
        features[0], features[1], bootstrap, state.thresholds, state.rng(purpose), repeats=repeats
    )


def box_gate(
    state: AuditState,
    stamps: Images,
    controls: Images,
    bootstrap: HostBootstrap,
    radius_pix: float,
    purpose: str,
) -> GateResult | None:
    """The core gate with r < ``radius_pix`` masked; None where nothing of the box is left."""
    box = state.thresholds.count("gate.box_pix")
    keep = core_features((state.distance >= radius_pix)[None, None].astype(np.float32), box)[0] > 0
    keep = np.tile(keep, stamps.shape[1])
    if not keep.any():
        return None
    features = [core_features(images, box)[:, keep] for images in (stamps, controls)]
    return run_gate(
        features[0], features[1], bootstrap, state.thresholds, state.rng(purpose), repeats=_REPEATS
    )


def check_mask_sweep(state: AuditState) -> Finding:
    """G3: how the gate answers when the core is masked up to a radius."""
    pairs = state.pairs
    core = state.thresholds["core.radius_pix"]
    aucs = {
        radius: ring_gate(
            state, pairs.stamps, pairs.controls, state.bootstrap, radius, f"sweep {radius:g}"
        ).auc
        for radius in sorted({*RADII_PIX, core})
    }
    state.evidence["G3"] = [
        {"radius_pix": radius, "auc": auc.value, "ci95": list(auc.ci95)} for radius, auc in aucs.items()
    ]
    ring, whole = aucs[core], aucs[0.0]
    text = f"AUC {ring.value:.3f} without r < {core:g} px, {whole.value:.3f} with the whole window"
    return Finding(PASS, text, ring.value, ring.ci95, None)


def check_visibility(state: AuditState) -> Finding:
    """E2: share of the arcs that a core mask would leave visible, by theta_E."""
    radius = state.thresholds["core.radius_pix"]
    visible = visible_rows(state, radius)
    share = state.bootstrap.mean(visible.astype(np.float64))
    limit = state.thresholds["visibility.min_share"]
    state.evidence["E2"] = {
        "radius_pix": radius,
        "visible": share.value,
        "by_theta_e": by_theta_e(state, visible),
    }
    text = f"{100 * share.value:.0f} % of the arcs stay visible beyond r = {radius:g} px (S/N >= 5, resolved)"
    return Finding(PASS if share.value >= limit else WARN, text, share.value, share.ci95, limit)


def visible_rows(state: AuditState, radius_pix: float) -> Flags:
    """Rows whose arc has S/N >= 5 outside the mask in its best band, and theta_E >= FWHM/2."""
    outside = state.model * (state.distance >= radius_pix)
    snr = np.sqrt(np.sum(outside.astype(np.float64) ** 2, axis=(2, 3))) / state.sky_sigma
    columns = state.forward.columns
    fwhm = np.where(columns.psf_model == PSF_NONE, 0.0, columns.psf_fwhm_arcsec.min(1))
    resolved = columns.theta_e_arcsec >= fwhm / 2.0
    return np.asarray((snr.max(1) >= state.thresholds["visibility.min_arc_snr"]) & resolved)


def by_theta_e(state: AuditState, kept: Flags) -> dict[str, float]:
    """Share of rows kept, by theta_E bin."""
    return {
        bin_label(low, high): float(np.mean(kept[rows]))
        for low, high, rows in theta_e_bins(state.theta_e_arcsec)
    }


@dataclass(frozen=True)
class Remedy:
    """A change to the training set, in words, and the pairs that it would train on."""

    name: str
    action: str
    stamps: Images
    controls: Images
    kept: Flags
    radius_pix: float


def measure_remedies(state: AuditState) -> list[dict[str, Any]]:
    """Apply each remedy and audit it again on the half of the hosts that no radius was chosen on.

    Returns
    -------
    list of dict
        ``remedies`` of the report: name, auc_core with ci95, auc_ring, retained_by_theta_e, recommended.
    """
    rng = state.rng("halves")
    chosen_on = rng.random(state.pairs.n_groups) < 0.5
    first_half = chosen_on[state.pairs.groups]
    if first_half.all() or not first_half.any():
        return []
    radius = _mask_radius(state, first_half)
    everything = np.ones(len(state.pairs), dtype=bool)
    visible = visible_rows(state, radius)
    pairs = state.pairs
    hide = f"hide r < {radius:g} px of stamp and control alike, with the same noise-like fill"
    drop = f"{hide}, and drop pairs whose arc does not show outside it"
    smear = "add negatives: the control with its arc smeared to a ring of the same radial profile"
    rings = pairs.controls + _azimuthal_mean(state)
    remedies = [
        Remedy("core_mask", hide, pairs.stamps, pairs.controls, everything, radius),
        Remedy("core_mask_visible_only", drop, pairs.stamps, pairs.controls, visible, radius),
        Remedy("azimuthal_hard_negatives", smear, pairs.stamps, rings, everything, 0.0),
    ]
    measured = [_measure(state, remedy, ~first_half, visible) for remedy in remedies]
    best = max((m for m in measured if m["recommended"]), key=lambda m: m["auc_ring"] or 0.0, default=None)
    for entry in measured:
        entry["recommended"] = entry is best
    return measured


def _mask_radius(state: AuditState, rows: Flags) -> float:
    """Smallest radius of the sweep that blinds the core gate on these rows (point estimate)."""
    bootstrap = _bootstrap_of(state, rows)
    limit = state.thresholds["gate.max_core_auc"]
    for radius in RADII_PIX[1:]:
        gate = box_gate(
            state, state.pairs.stamps[rows], state.pairs.controls[rows], bootstrap, radius, f"radius {radius}"
        )
        if gate is None or gate.auc.value <= limit:
            return float(radius)
    return float(RADII_PIX[-1])


def _bootstrap_of(state: AuditState, rows: Flags) -> HostBootstrap:
    groups = np.unique(state.pairs.groups[rows], return_inverse=True)[1]
    return HostBootstrap(groups, state.thresholds.count("gate.bootstraps"), state.rng("half"))


def _azimuthal_mean(state: AuditState) -> Images:
    """Each predicted arc turned into a ring of the same radial profile around the stamp's centre."""
    which = np.round(state.distance).astype(np.int64).ravel()
    n, bands = state.model.shape[:2]
    flat = state.model.reshape(n * bands, -1).astype(np.float64)
    ring = np.zeros((flat.shape[1], which.max() + 1))
    ring[np.arange(flat.shape[1]), which] = 1.0
    return np.asarray(
        ((flat @ ring) / np.maximum(ring.sum(0), 1.0))[:, which].reshape(state.model.shape), dtype=np.float32
    )


def _measure(state: AuditState, remedy: Remedy, held_out: Flags, visible: Flags) -> dict[str, Any]:
    limits = state.thresholds
    rows = held_out & remedy.kept
    entry: dict[str, Any] = {
        "name": remedy.name,
        "action": remedy.action,
        "radius_pix": remedy.radius_pix,
        "auc_core": None,
        "ci95": None,
        "auc_ring": None,
        "ring_ci95": None,
        "retained_by_theta_e": by_theta_e(state, remedy.kept),
        "recommended": False,
        "n_pairs": int(rows.sum()),
    }
    if len(np.unique(state.pairs.groups[rows])) < limits.count("sample.min_hosts") // 2:
        return entry
    bootstrap = _bootstrap_of(state, rows)
    stamps, controls = remedy.stamps[rows], remedy.controls[rows]
    core = box_gate(state, stamps, controls, bootstrap, remedy.radius_pix, remedy.name)
    outside = max(remedy.radius_pix, limits["core.radius_pix"])
    ring = ring_gate(state, stamps, controls, bootstrap, outside, remedy.name, _REPEATS)
    entry["auc_core"] = 0.5 if core is None else core.auc.value
    entry["ci95"] = [0.5, 0.5] if core is None else list(core.auc.ci95)
    entry["auc_ring"], entry["ring_ci95"] = ring.auc.value, list(ring.auc.ci95)
    blind = entry["ci95"][1] <= limits["gate.max_core_auc"]
    signal = ring.auc.ci95[0] >= limits["gate.min_ring_auc"]
    # a mask leaves mislabelled positives unless nearly every kept arc of every size shows outside it
    least = min(by_theta_e(state, visible | ~remedy.kept).values(), default=0.0)
    shown = remedy.radius_pix == 0 or least >= limits["visibility.min_share"]
    kept = np.mean(remedy.kept) >= limits["visibility.min_share"]
    entry["recommended"] = bool(blind and signal and shown and kept)
    return entry


def check_remedies(state: AuditState) -> Finding:
    """M1: remedies, measured before and after on hosts they were not tuned on."""
    if not state.residual_explained:
        return Finding(SKIPPED, "remedies are measured once the pixels are what their record says")
    found = next((r for r in state.remedies if r["recommended"]), None)
    shown = ", ".join(
        f"{r['name']} core {r['auc_core']:.2f} ring {r['auc_ring']:.2f}"
        for r in state.remedies
        if r["auc_ring"]
    )
    if found is None:
        return Finding(WARN, f"none qualifies ({shown or 'too few hosts to hold out'})")
    return Finding(
        PASS,
        f"{found['name']} qualifies ({shown})",
        found["auc_core"],
        tuple(found["ci95"]),
        state.thresholds["gate.max_core_auc"],
    )
