"""E1: how much of the core's added light is geometry, PSF or source extent, and how much is explained by
none.

Four renders a row, PSF on or off times source as recorded or a point, give the Shapley shares of PSF and
extent; what remains with both off is geometry: images or rings that lie inside the core. What the full model
does not account for is unexplained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.bins import bin_label, theta_e_bins
from arcforge.engine.auditing.budget import budget_auc, share_out
from arcforge.engine.auditing.checks import PASS, Finding
from arcforge.engine.auditing.gate import core_features

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]

PARTS = ("geometry", "psf", "extent", "unexplained")


def attribute(state: AuditState) -> dict[str, Any]:
    """Return shares of the observed core light with intervals, overall and by theta_E bin, and of the AUC."""
    compact = state.thresholds["attribution.compact_reff_arcsec"]
    box = state.thresholds.count("gate.box_pix")
    flux = state.model.sum((1, 2, 3), dtype=np.float64)
    scale = np.where(flux > 0, flux, np.inf)
    renders: dict[str, dict[str, Any]] = {
        "extent_only": {"with_psf": False},
        "psf_only": {"reff_arcsec": compact},
        "neither": {"with_psf": False, "reff_arcsec": compact},
    }
    core: dict[str, Floats] = {}
    boxes: dict[str, Floats] = {}
    for name, options in (("with_both", None), *renders.items()):
        images = state.model if options is None else state.render_all("attributing", **options)
        core[name] = np.sum(images, axis=(1, 2, 3), where=state.core, dtype=np.float64) / scale
        boxes[name] = core_features(images, box)
    observed = np.sum(state.added, axis=(1, 2, 3), where=state.core, dtype=np.float64) / scale
    light: dict[str, Floats] = share_out(**core, observed=observed)
    everything = np.ones(len(observed), dtype=bool)
    result: dict[str, Any] = _shares(state, light, observed, everything)
    result["by_theta_e"] = [
        {
            "theta_e_arcsec": bin_label(low, high),
            "n_pairs": int(rows.sum()),
            **_shares(state, light, observed, rows),
        }
        for low, high, rows in theta_e_bins(state.theta_e_arcsec)
    ]
    result["auc"] = budget_auc(state, boxes)
    return result


def _shares(
    state: AuditState, light: dict[str, Floats], observed: Floats, rows: NDArray[np.bool_]
) -> dict[str, Any]:
    shares = {}
    for name in PARTS:
        estimate = state.bootstrap.ratio(np.where(rows, light[name], 0.0), np.where(rows, observed, 0.0))
        if name == "unexplained":
            estimate = estimate.widened(state.thresholds["attribution.floor"])
        shares[name] = {"share": estimate.value, "ci95": list(estimate.ci95)}
    return shares


def largest_share(attribution: dict[str, Any]) -> str:
    """Name the largest physical share, "mixed" where the intervals of the two largest overlap."""
    ranked = sorted(PARTS[:3], key=lambda name: -attribution[name]["share"])
    first, second = (attribution[name] for name in ranked[:2])
    return ranked[0] if first["ci95"][0] > second["ci95"][1] else f"mixed ({ranked[0]} and {ranked[1]})"


def check_attribution(state: AuditState) -> Finding:
    """E1: shares of the core's added light, and of the core gate's excess over 0.5."""
    shares = state.attribution
    text = "core light: " + ", ".join(f"{name} {100 * shares[name]['share']:.1f} %" for name in PARTS)
    budget = shares["auc"]["parts"]
    text += "; core AUC above 0.5: " + ", ".join(f"{name} {budget[name]['auc']:+.3f}" for name in PARTS)
    unexplained = shares["unexplained"]
    return Finding(PASS, text, unexplained["share"], tuple(unexplained["ci95"]), None)
