"""The verdict's rules, and that nothing which did not run can lead to GO."""

from __future__ import annotations

from dataclasses import replace

import pytest

from arcforge.engine.auditing import run as run_module
from arcforge.engine.auditing.causes import NEXT_STEP, Cause
from arcforge.engine.auditing.checks import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    SKIPPED,
    WARN,
    Finding,
    MissingParametersError,
    Outcome,
    run_check,
)
from arcforge.engine.auditing.gate import GateResult
from arcforge.engine.auditing.resampling import Estimate
from arcforge.engine.auditing.run import CHECKS
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.auditing.verdict import decide

LIMITS = Thresholds()
REQUIRED = [check.id for check in CHECKS if check.required]
SHARES = {name: {"share": s, "ci95": [s - 0.05, s + 0.05]} for name, s in
          (("geometry", 0.7), ("psf", 0.2), ("extent", 0.1), ("unexplained", 0.0))}  # fmt: skip
REMEDY = {
    "name": "core_mask",
    "action": "hide the core",
    "recommended": True,
    "auc_ring": 0.9,
    "retained_by_theta_e": {'< 0.75"': 0.4},
}


def outcomes(**changed: str) -> list[Outcome]:
    """All checks pass but the changed ones."""
    return [
        Outcome(check, Finding(changed.get(check.id, PASS), f"finding of {check.id}", effect=1.0))
        for check in CHECKS
    ]


def gate(low: float, high: float) -> GateResult:
    auc = Estimate((low + high) / 2, (low, high), (high - low) / 4)
    return GateResult(auc, auc, 0.1, 0.5, 0.03, 2000, 400)


def cause(name: str) -> Cause:
    return Cause(name, 1.2, (1.1, 1.3), 1.0, "ratio", f"words; {NEXT_STEP[name]}")


GO_GATE, LEAK = gate(0.48, 0.52), gate(0.85, 0.95)


def test_all_explained_and_a_blind_core_is_go():
    verdict = decide(outcomes(), [], GO_GATE, SHARES, [], [], LIMITS)
    assert (verdict.verdict, verdict.reason) == ("GO", None)


@pytest.mark.parametrize(
    ("changed", "causes", "expected"),
    [
        ({"D0": FAIL, "R1": FAIL}, [], ("NO-GO", "DATA")),
        ({"D2": FAIL}, [], ("NO-GO", "DATA")),
        ({"S0": FAIL, "R1": FAIL}, [], ("INCONCLUSIVE", "AUDIT")),
        ({"S1": FAIL}, [], ("INCONCLUSIVE", "AUDIT")),
        ({"R1": FAIL, "R3": FAIL}, ["psf_width"], ("NO-GO", "BUG")),
        ({"D1": FAIL, "R3": FAIL}, ["control_shift"], ("NO-GO", "BUG")),
        ({"R1": FAIL, "R3": FAIL}, ["provenance"], ("NO-GO", "UNMODELLED")),
        ({"R1": FAIL, "R3": FAIL}, ["noise", "provenance"], ("NO-GO", "UNMODELLED")),
        ({"P4": FAIL}, [], ("NO-GO", "UNMODELLED")),
        ({"P3": INCONCLUSIVE}, [], ("INCONCLUSIVE", "POWER")),
        ({"E2": INCONCLUSIVE}, [], ("GO", None)),
        ({"G1": FAIL}, [], ("GO", None)),  # its size is what the verdict is about, not a failure of data
        ({"R1": WARN}, [], ("GO", None)),
    ],
)
def test_the_first_rule_that_matches_decides(changed, causes, expected):
    verdict = decide(outcomes(**changed), [cause(c) for c in causes], GO_GATE, SHARES, [], [], LIMITS)
    assert (verdict.verdict, verdict.reason) == expected


def test_a_control_of_another_host_is_a_data_fault():
    found = [
        replace(o, finding=replace(o.finding, status=FAIL, effect=0.1)) if o.check.id == "D1" else o
        for o in outcomes(R1=FAIL)
    ]
    verdict = decide(found, [cause("provenance")], GO_GATE, SHARES, [], [], LIMITS)
    assert (verdict.verdict, verdict.reason) == ("NO-GO", "DATA")


def test_without_parameters_it_is_never_physics():
    skipped = {i: SKIPPED for i in ("P1", "P2", "P3", "P4", "R1", "R2", "R3", "R5", "R6", "N1", "E1", "S1")}
    verdict = decide(outcomes(**skipped), [], LEAK, None, [], ["src_reff_arcsec"], LIMITS)
    assert (verdict.verdict, verdict.reason) == ("INCONCLUSIVE", "NO_METADATA")
    assert "src_reff_arcsec" in verdict.because


def test_a_physical_leak_goes_with_a_remedy_or_not_at_all():
    with_remedy = decide(outcomes(), [], LEAK, SHARES, [REMEDY], [], LIMITS)
    assert with_remedy.verdict == "GO-WITH-REMEDY"
    assert "hide the core" in with_remedy.next_step
    assert "40 %" in with_remedy.next_step
    without = decide(outcomes(), [], LEAK, SHARES, [REMEDY | {"recommended": False}], [], LIMITS)
    assert (without.verdict, without.reason) == ("NO-GO", "SHORTCUT")
    assert "geometry" in without.because


def test_an_interval_on_both_sides_asks_for_more_pairs():
    verdict = decide(outcomes(), [], gate(0.5, 0.6), SHARES, [], [], LIMITS)
    assert (verdict.verdict, verdict.reason) == ("INCONCLUSIVE", "POWER")
    assert "pairs" in verdict.next_step


@pytest.mark.parametrize("silent", REQUIRED)
@pytest.mark.parametrize("how", ["crash", "skip"])
def test_a_required_check_that_did_not_run_is_never_go(silent, how):
    def broken(state):
        if how == "crash":
            raise ZeroDivisionError("planted")
        raise MissingParametersError(["planted"])

    found = []
    for check in CHECKS:
        run = broken if check.id == silent else (lambda state: Finding(PASS, "fine", effect=1.0))
        found.append(run_check(replace(check, run=run), None))
    assert {o.check.id for o in found if o.finding.status != PASS} == {silent}
    for auc in (GO_GATE, LEAK):
        verdict = decide(found, [], auc, SHARES, [REMEDY], [], LIMITS)
        assert verdict.verdict not in ("GO", "GO-WITH-REMEDY")
        assert silent in verdict.because


def test_an_auc_below_half_is_a_grouping_error_and_few_hosts_decide_nothing():
    below = decide(outcomes(G1=FAIL), [], gate(0.3, 0.4), SHARES, [], [], LIMITS)
    assert (below.verdict, below.reason) == ("INCONCLUSIVE", "AUDIT")
    few = decide(outcomes(), [], replace(GO_GATE, n_groups=3), SHARES, [], [], LIMITS)
    assert (few.verdict, few.reason) == ("INCONCLUSIVE", "POWER")


def test_without_a_gate_result_it_is_never_go():
    assert decide(outcomes(), [], None, SHARES, [REMEDY], [], LIMITS).verdict == "INCONCLUSIVE"


def test_the_registry_names_each_check_once_and_requires_what_decides():
    ids = [check.id for check in run_module.CHECKS]
    assert len(ids) == len(set(ids))
    assert {"D0", "D1", "D2", "S0", "S1", "G1", "P1", "P2", "P3", "P4", "R1", "R2", "R3", "R6", "N1"} <= set(
        REQUIRED
    )
