"""The verdict: first match of a short list of rules, and never GO where a required check gave no answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arcforge.engine.auditing.attribution import largest_share
from arcforge.engine.auditing.causes import NEXT_STEP, Cause
from arcforge.engine.auditing.checks import FAIL, PASS, SKIPPED, WARN, Outcome

if TYPE_CHECKING:
    from arcforge.engine.auditing.gate import GateResult
    from arcforge.engine.auditing.thresholds import Thresholds

GO, GO_WITH_REMEDY, NO_GO, UNDECIDED = "GO", "GO-WITH-REMEDY", "NO-GO", "INCONCLUSIVE"
DATA_CHECKS = ("D0", "D2")
SELF_CHECKS = ("S0", "S1")
MODEL_CHECKS = ("D1", "N1", "P1", "P2", "P3", "P4", "R1", "R2", "R3", "R4", "R5", "R6", "R7")
# Below this correlation of pixel noise the control is not the stamp's own host
_OTHER_HOST_CORRELATION = 0.5


@dataclass(frozen=True)
class Verdict:
    """What to do, why, and the next step, each in words that stand alone."""

    verdict: str
    reason: str | None
    because: str
    next_step: str


def decide(
    outcomes: Sequence[Outcome],
    causes: Sequence[Cause],
    gate: GateResult | None,
    attribution: dict[str, Any] | None,
    remedies: Sequence[dict[str, Any]],
    missing: Sequence[str],
    limits: Thresholds,
) -> Verdict:
    """Return the first rule that matches.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of every check of the registry.
    causes : sequence of Cause
        Named faults.
    gate : GateResult or None
        The core gate, None where it gave no result.
    attribution, remedies
        As in the report.
    missing : sequence of str
        Parameter columns that are not recorded.
    limits : Thresholds
    """
    by_id = {outcome.check.id: outcome for outcome in outcomes}
    return (
        _faulty_data(by_id)
        or _faulty_audit(by_id)
        or _disagreement(by_id, causes)
        or _unrecorded(missing)
        or _unanswered(outcomes, gate, limits)
        or _physical(gate, attribution, remedies, limits)
    )


def _failed(by_id: dict[str, Outcome], ids: Sequence[str]) -> list[str]:
    return [i for i in ids if i in by_id and by_id[i].finding.status == FAIL]


def _messages(by_id: dict[str, Outcome], ids: Sequence[str]) -> str:
    return "; ".join(f"{i}: {by_id[i].finding.message}" for i in ids)


def _faulty_data(by_id: dict[str, Outcome]) -> Verdict | None:
    failed = _failed(by_id, DATA_CHECKS)
    if not failed:
        return None
    return Verdict(NO_GO, "DATA", _messages(by_id, failed), "mend the data set, then audit again")


def _faulty_audit(by_id: dict[str, Outcome]) -> Verdict | None:
    failed = _failed(by_id, SELF_CHECKS)
    if not failed:
        return None
    because = f"the audit's own test failed: {_messages(by_id, failed)}"
    return Verdict(UNDECIDED, "AUDIT", because, "report this as a defect of the audit")


def _disagreement(by_id: dict[str, Outcome], causes: Sequence[Cause]) -> Verdict | None:
    """The pixels are not what their record says."""
    failed = _failed(by_id, MODEL_CHECKS)
    if not failed:
        return None
    named = [cause for cause in causes if cause.name != "provenance"]
    if named and len(named) == len(causes):
        because = "; ".join(f"{c.name}: {c.message.split('; ')[0]}" for c in named)
        return Verdict(NO_GO, "BUG", because, "; ".join(dict.fromkeys(NEXT_STEP[c.name] for c in named)))
    correlation = by_id["D1"].finding.effect if "D1" in failed else None
    if correlation is not None and correlation < _OTHER_HOST_CORRELATION:
        because = f"the control is not the stamp's own host: {by_id['D1'].finding.message}"
        return Verdict(NO_GO, "DATA", because, "pair every stamp with the cutout that its arc was added to")
    said = next((c.message for c in causes if c.name == "provenance"), _messages(by_id, failed[:2]))
    because = f"the pixels were not made from the recorded parameters: {said}"
    return Verdict(NO_GO, "UNMODELLED", because, NEXT_STEP["provenance"])


def _unrecorded(missing: Sequence[str]) -> Verdict | None:
    if not missing:
        return None
    because = (
        f"the set does not record {', '.join(missing)}; without them no test can tell a bug from physics"
    )
    return Verdict(UNDECIDED, "NO_METADATA", because, "record these columns for every row and audit again")


def _unanswered(outcomes: Sequence[Outcome], gate: GateResult | None, limits: Thresholds) -> Verdict | None:
    """A required check gave no answer. The core gate's size is the last question and not asked here."""
    silent = [o for o in outcomes if o.check.required and o.finding.status not in (PASS, WARN)]
    broken = [o for o in silent if o.crashed or o.finding.status == SKIPPED]
    core_gate = next((o for o in silent if o.check.id == "G1" and o not in broken), None)
    if gate is None and core_gate and not any(o.crashed for o in broken):
        step = f"audit pairs of {limits.count('sample.min_hosts')} hosts or more"
        return Verdict(UNDECIDED, "POWER", core_gate.finding.message, step)
    if broken or gate is None:
        ids = ", ".join(o.check.id for o in broken) or "G1"
        said = "; ".join(o.finding.message for o in broken) or "the core gate gave no result"
        because = f"required checks did not run: {ids} ({said})"
        return Verdict(UNDECIDED, "AUDIT", because, "see the messages of these checks")
    if gate.auc.ci95[1] < 0.5:
        because = f"the core AUC lies below 0.5 ({gate.auc.value:.3f}): hosts are grouped wrongly"
        return Verdict(
            UNDECIDED, "AUDIT", because, "record a host_id that is the same wherever a host is used"
        )
    if gate.n_groups < limits.count("sample.min_hosts"):
        because = f"{gate.n_groups} hosts are too few for folds that keep hosts together"
        return Verdict(UNDECIDED, "POWER", because, _more_pairs(gate, limits))
    silent = [o for o in silent if o.check.id != "G1"]
    if silent:
        ids = ", ".join(o.check.id for o in silent)
        because = f"too few pairs or hosts to decide {ids} ({silent[0].finding.message})"
        return Verdict(UNDECIDED, "POWER", because, _more_pairs(gate, limits))
    return None


def _physical(
    gate: GateResult | None,
    attribution: dict[str, Any] | None,
    remedies: Sequence[dict[str, Any]],
    limits: Thresholds,
) -> Verdict:
    """The pixels are what their record says: what is left is the size of the core's cue."""
    assert gate is not None  # the rule before this one answers where the gate gave no result
    low, high = gate.auc.ci95
    top = limits["gate.max_core_auc"]
    measured = f"core AUC {gate.auc.value:.3f} ({low:.3f} to {high:.3f})"
    if high <= top:
        because = f"the pixels are what their record says, and the core tells nothing: {measured}"
        return Verdict(GO, None, because, "train")
    if low <= top:
        because = f"{measured} lies on both sides of {top:g}"
        return Verdict(UNDECIDED, "POWER", because, _more_pairs(gate, limits))
    source = f", most of it {largest_share(attribution)}" if attribution else ""
    because = f"the pixels are what their record says; the core's cue is physical{source}: {measured}"
    best = next((r for r in remedies if r["recommended"]), None)
    if best is None:
        step = "no remedy that was measured suffices here: add hard negatives with core light, or more hosts"
        return Verdict(NO_GO, "SHORTCUT", because, step)
    cost = ", ".join(f"{k} {100 * v:.0f} %" for k, v in best["retained_by_theta_e"].items())
    return Verdict(GO_WITH_REMEDY, None, because, f"{best['action']}; pairs kept by theta_E: {cost}")


def _more_pairs(gate: GateResult, limits: Thresholds) -> str:
    """Number of pairs at which the effect in question could be seen: the error falls as 1/sqrt(pairs)."""
    room = max(abs(limits["gate.max_core_auc"] - gate.auc.value), 0.005)
    factor = (1.96 * gate.auc.se / room) ** 2
    if not math.isfinite(factor):  # two hosts leave no interval
        return f"audit pairs of {limits.count('sample.min_hosts')} hosts or more"
    wanted = int(-(-gate.n_pairs * max(factor, 2.0) // 100) * 100)
    return f"audit about {wanted} pairs, of {-(-wanted // max(gate.n_pairs // gate.n_groups, 1))} hosts"
