"""E1's other half: how much of the core gate's AUC is geometry, PSF, source extent, or explained by none.

Light and AUC are not proportional: a little light in a quiet core tells much. So the gate is trained anew on
controls plus each of the four renders, with the same folds, and its excess over 0.5 is shared out by Shapley.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.gate import GateResult, core_features, run_gate

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]

# Fold assignments of each of the five gates: the same five times, so that most of their scatter cancels
_REPEATS = 3


def share_out(with_both: Any, psf_only: Any, extent_only: Any, neither: Any, observed: Any) -> dict[str, Any]:
    """Return the parts of a quantity that is 0 where nothing is added, of its values with PSF and extent on
    or off.

    What remains with both off is geometry; PSF and extent get their Shapley shares; what the full model does
    not account for is unexplained.
    """
    return {
        "geometry": neither,
        "psf": 0.5 * ((with_both - extent_only) + (psf_only - neither)),
        "extent": 0.5 * ((with_both - psf_only) + (extent_only - neither)),
        "unexplained": observed - with_both,
    }


def budget_auc(state: AuditState, boxes: dict[str, Floats]) -> dict[str, Any]:
    """Return each part's share of the core gate's excess AUC, with its interval over hosts and folds.

    Parameters
    ----------
    state : AuditState
    boxes : dict of float64 (n, p)
        Core pixels of the renders that :func:`share_out` names but ``observed``.

    Returns
    -------
    dict
        ``parts`` (name to ``auc``, ``ci95``) add up to ``total``, the excess of the gate over 0.5 in these
        folds; ``gates`` holds the AUC of each render.
    """
    box = state.thresholds.count("gate.box_pix")
    controls = core_features(state.pairs.controls, box)
    stamps = {name: controls + light for name, light in boxes.items()}
    stamps["observed"] = core_features(state.quiet_stamps, box)
    gates = {name: _gate(state, features, controls) for name, features in stamps.items()}
    values = share_out(**{name: gate.fold_aucs.mean() - 0.5 for name, gate in gates.items()})
    over_hosts = share_out(**{name: gate.resampled - 0.5 for name, gate in gates.items()})
    over_folds = share_out(**{name: gate.fold_aucs - 0.5 for name, gate in gates.items()})
    parts = {}
    for name, value in values.items():
        estimate = state.bootstrap.interval(
            float(value), over_hosts[name], extra_variance=2.0 * float(np.var(over_folds[name], ddof=1))
        )
        parts[name] = {"auc": estimate.value, "ci95": list(estimate.ci95)}
    return {
        "parts": parts,
        "total": float(gates["observed"].fold_aucs.mean() - 0.5),
        "gates": {name: float(gate.fold_aucs.mean()) for name, gate in gates.items()},
    }


def _gate(state: AuditState, stamps: Floats, controls: Floats) -> GateResult:
    # one stream for all: the same folds
    return run_gate(
        stamps, controls, state.bootstrap, state.thresholds, state.rng("budget"), repeats=_REPEATS
    )
