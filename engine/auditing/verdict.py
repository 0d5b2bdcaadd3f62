"""The verdict: first match of a short list of rules, and never GO where a required check gave no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arcforge.engine.auditing.attribution import largest_share
from arcforge.engine.auditing.checks import FAIL, PASS, SKIPPED, WARN, Outcome
from arcforge.engine.auditing.naming import NEXT_STEP, Cause

if TYPE_CHECKING:
    from arcforge.engine.auditing.gate import GateResult
    from arcforge.engine.auditing.thresholds import Thresholds

GO, GO_WITH_REMEDY, NO_GO, UNDECIDED = "GO", "GO-WITH-REMEDY", "NO-GO", "INCONCLUSIVE"
DATA_CHECKS = ("D0", "D2")
SELF_CHECKS = ("S0", "S1")
MODEL_CHECKS = ("D1", "N1", "P1", "P2", "P3", "P4", "R1", "R2", "R3", "R5", "R6")
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
    failed = [i for i in DATA_CHECKS if _status(by_id, i) == FAIL]
    if failed:
        return Verdict(NO_GO, "DATA", _messages(by_id, failed), "mend the data set, then audit again")
    failed = [i for i in SELF_CHECKS if _status(by_id, i) == FAIL]
    if failed:
        return Verdict(
            UNDECIDED,
            "AUDIT",
            f"the audit's own test failed: {_messages(by_id, failed)}",
            "report this as a defect of the audit",
        )
    failed = [i for i in MODEL_CHECKS if _status(by_id, i) == FAIL]
    if failed:
        return _disagreement(by_id, failed, causes)
    if missing:
        return Verdict(
            UNDECIDED,
            "NO_METADATA",
            f"the set does not record {', '.join(missing)}; without them no test can tell a bug from physics",
            "record these columns for every row and audit again",
        )
    silent = [o for o in outcomes if o.check.required and o.finding.status not in (PASS, WARN)]
    broken = [o for o in silent if o.crashed or o.finding.status == SKIPPED]
    if broken or gate is None:
        ids = ", ".join(o.check.id for o in broken) or "G1"
        said = "; ".join(o.finding.message for o in broken) or "the core gate gave no result"
        return Verdict(
            UNDECIDED, "AUDIT", f"required checks did not run: {ids} ({said})", "see these checks' messages"
        )
    if silent:
        ids = ", ".join(o.check.id for o in silent)
        return Verdict(
            UNDECIDED,
            "POWER",
            f"too few pairs or hosts to decide {ids}: {_messages(by_id, [silent[0].check.id])}",
            _more_pairs(gate, limits),
        )
    return _physical(gate, attribution, remedies, limits)


def _status(by_id: dict[str, Outcome], check: str) -> str:
    return by_id[check].finding.status if check in by_id else SKIPPED


def _messages(by_id: dict[str, Outcome], ids: Sequence[str]) -> str:
    return "; ".join(f"{i}: {by_id[i].finding.message}" for i in ids)


def _disagreement(by_id: dict[str, Outcome], failed: Sequence[str], causes: Sequence[Cause]) -> Verdict:
    named = [cause for cause in causes if cause.name != "provenance"]
    if named and len(named) == len(causes):
        because = "; ".join(f"{c.name}: {c.message.split('; ')[0]}" for c in named)
        return Verdict(NO_GO, "BUG", because, "; ".join(dict.fromkeys(NEXT_STEP[c.name] for c in named)))
    correlation = by_id["D1"].finding.effect if "D1" in failed else None
    if correlation is not None and correlation < _OTHER_HOST_CORRELATION:
        return Verdict(
            NO_GO,
            "DATA",
            f"the control is not the stamp's own host: {by_id['D1'].finding.message}",
            "pair every stamp with the cutout that its arc was added to",
        )
    said = next((c.message for c in causes if c.name == "provenance"), _messages(by_id, failed[:2]))
    return Verdict(
        NO_GO,
        "UNMODELLED",
        f"the pixels were not made from the recorded parameters: {said}",
        NEXT_STEP["provenance"],
    )


def _physical(
    gate: GateResult,
    attribution: dict[str, Any] | None,
    remedies: Sequence[dict[str, Any]],
    limits: Thresholds,
) -> Verdict:
    low, high = gate.auc.ci95
    top = limits["gate.max_core_auc"]
    measured = f"core AUC {gate.auc.value:.3f} ({low:.3f} to {high:.3f})"
    if high <= top:
        return Verdict(
            GO,
            None,
            f"the pixels are what their record says, and the core tells nothing: {measured}",
            "train",
        )
    if low <= top:
        return Verdict(
            UNDECIDED, "POWER", f"{measured} lies on both sides of {top:g}", _more_pairs(gate, limits)
        )
    source = f", most of it {largest_share(attribution)}" if attribution else ""
    because = f"the pixels are what their record says; the core's cue is physical{source}: {measured}"
    best = next((r for r in remedies if r["recommended"]), None)
    if best is not None:
        cost = ", ".join(f"{k} {100 * v:.0f} %" for k, v in best["retained_by_theta_e"].items())
        return Verdict(GO_WITH_REMEDY, None, because, f"apply {best['name']} (pairs kept by theta_E: {cost})")
    return Verdict(
        NO_GO,
        "SHORTCUT",
        because,
        "no remedy that was measured suffices here: add hard negatives with core light, or more hosts",
    )


def _more_pairs(gate: GateResult, limits: Thresholds) -> str:
    """Number of pairs at which the effect in question could be seen: the error falls as 1/sqrt(pairs)."""
    room = max(abs(limits["gate.max_core_auc"] - gate.auc.value), 0.005)
    factor = (1.96 * gate.auc.se / room) ** 2
    wanted = int(-(-gate.n_pairs * max(factor, 2.0) // 100) * 100)
    return f"audit about {wanted} pairs, of {-(-wanted // max(gate.n_pairs // gate.n_groups, 1))} hosts"
