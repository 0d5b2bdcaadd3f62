"""Run an audit: read, check, decide, report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from arcforge.engine.auditing import (
    attribution,
    four_tests,
    gates,
    integrity,
    light,
    masks,
    own_negatives,
    placement,
    residual,
    selftest,
    sky,
)
from arcforge.engine.auditing.causes import Cause
from arcforge.engine.auditing.checks import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Check,
    Finding,
    MissingParametersError,
    Outcome,
    run_check,
)
from arcforge.engine.auditing.naming import psf_truth_cause
from arcforge.engine.auditing.pairs import draw_pairs
from arcforge.engine.auditing.parameters import recorded_parameters
from arcforge.engine.auditing.sources import open_pairs
from arcforge.engine.auditing.splits import audit_catalogue, is_catalogue
from arcforge.engine.auditing.state import NO_PAIRS, AuditState
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.auditing.verdict import Verdict, decide
from arcforge.engine.durable import check_place
from arcforge.engine.errors import AuditInputError, CatalogError
from arcforge.engine.notebook import Report
from arcforge.engine.psf_tables import PsfTable

SCHEMA = "arcforge.audit/1"


def _check_gate(state: AuditState) -> Finding:
    """G1: the core gate."""
    gate = state.gate
    limit = state.thresholds["gate.max_core_auc"]
    low, high = gate.auc.ci95
    text = (
        f"AUC {gate.auc.value:.3f} ({low:.3f} to {high:.3f}), within pairs {gate.within_pair_auc.value:.3f}, "
        f"false positives at half completeness {gate.fpr_at_half_tpr:.3f}, p = {gate.p_permutation:.3g}, "
        f"smallest effect that would be seen {gate.mde:.3f}"
    )
    if state.pairs.n_groups < state.thresholds.count("sample.min_hosts"):
        return Finding(
            INCONCLUSIVE,
            f"{state.pairs.n_groups} hosts are too few for grouped folds; {text}",
            gate.auc.value,
            (low, high),
            limit,
        )
    if high < 0.5:
        text = f"{text}: an AUC below 0.5 means that rows of one host sit in two groups"
        return Finding(FAIL, text, gate.auc.value, (low, high), limit)
    status = PASS if high <= limit else FAIL if low > limit else INCONCLUSIVE
    return Finding(status, text, gate.auc.value, (low, high), limit)


# In the order in which they run and are reported. A required check that gives no answer can never lead to GO.
CHECKS: tuple[Check, ...] = (
    Check(
        "D0", "Integrity: readable, finite, one shape and type, no repeats", True, integrity.check_integrity
    ),
    Check("D1", "Pairing: stamp and control share their noise", True, sky.check_pairing),
    Check("D2", "Splits share no host", True, integrity.check_splits),
    Check("S0", "Self-test: controls against controls give 0.5", True, selftest.check_null, beside=True),
    Check("S1", "Self-test: planted faults are found", True, selftest.check_planted),
    Check("G1", "Core gate: logistic regression on the central box", True, _check_gate, beside=True),
    Check("P1", "Test 1: outer annulus, observed and predicted", True, four_tests.check_outer_annulus),
    Check(
        "P2", "Test 2: regression of core light, observed and predicted", True, four_tests.check_regression
    ),
    Check("P3", "Test 3: core share by theta_E, observed and predicted", True, four_tests.check_core_share),
    Check("P4", "Test 4: radial profile, observed and predicted", True, four_tests.check_profile),
    Check("R1", "Residual: stamp - control - model", True, residual.check_residual),
    Check("R2", "Nuisance fit: parameters as recorded", True, residual.check_nuisance),
    Check("R3", "Fault dictionary: no named fault is needed", True, residual.check_cause),
    Check("R4", "Flux, observed and predicted", True, light.check_flux),
    Check("R5", "Registration of control and stamp", True, sky.check_registration),
    Check("R6", "Explained away: (stamp - model) against control", True, residual.check_explained_away),
    Check("R7", "PSF widths against the survey's", False, light.check_psf_truth),
    Check("N1", "Noise of the stamp that the control lacks", True, sky.check_noise),
    Check("E1", "Attribution of the core light", True, attribution.check_attribution),
    Check("E2", "Visibility of arcs outside a core mask", False, masks.check_visibility),
    Check("E3", "Realism of the sources", False, light.check_realism),
    Check("E4", "Centre of lens and host", False, placement.check_centre),
    Check(
        "D3",
        "What is not pixels: zeros, repeats, rounding, order, columns",
        False,
        gates.check_artefacts,
        beside=True,
    ),
    Check("G2", "Gates on other features, and ungrouped folds", False, gates.check_family, beside=True),
    Check("G4", "Core gate by theta_E, PSF and flux", False, gates.check_strata),
    Check("G5", "Arcs against the set's own negatives", False, own_negatives.check_own_negatives),
    Check("G3", "Gate with the core masked, by radius", False, masks.check_mask_sweep),
    Check("M1", "Remedies, measured on held-out hosts", False, masks.check_remedies),
)


@dataclass(frozen=True)
class AuditResult:
    """A finished audit: the report, and the state that pictures are drawn from."""

    report: dict[str, Any]
    state: AuditState


def audit(
    path_or_store: Any,
    *,
    seed: int = 0,
    n_pairs: int | None = None,
    thresholds: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    psf_table: Path | str | None = None,
    html: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Audit a paired data set for leakage: bug, PSF or physics; GO or NO-GO.

    Parameters
    ----------
    path_or_store : path or Store
        A store, a parquet file or a folder of parquet files (local or ``s3://``) with columns ``stamp_npz``
        and ``ctrl_stamp_npz``; or a catalogue without pixels (parquet, CSV, FITS), whose splits are audited.
    seed : int
        Everything random follows from it; the same seed gives the same report.
    n_pairs : int, optional
        Pairs to draw; default from the thresholds (2000).
    thresholds : path, optional
        TOML file that replaces default thresholds.
    columns : mapping of str to str, optional
        The set's own names of columns, by ours (``{"stamp_npz": "image", "label": "is_lens"}``). A set with
        images and a ``label`` but no controls is audited as unpaired: only what needs no pair.
    psf_table : path, optional
        The survey's PSF widths by brick (``psfsize_<band>`` with ``brickname``, or ``ra`` and ``dec``), which
        recorded widths are held against; default: the set's own ``psfsize_<band>`` columns.
    html : path, optional
        Where to write the page with pictures.
    progress : callable, optional
        Called with (done, total) steps.

    Returns
    -------
    dict
        The report, schema ``arcforge.audit/1``: verdict, reason, causes, gate, attribution, checks, remedies,
        nuisance, provenance, and ``evidence`` (the measured tables behind the figures).

    Raises
    ------
    AuditInputError
        The set cannot be read, or holds no pair with an arc.
    ConfigError
        The thresholds are wrong.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise AuditInputError(f"seed is {seed!r}; give a whole number from 0 on")
    if html is not None:
        check_place(Path(html))
    if is_catalogue(path_or_store, columns):
        if psf_table is not None:
            raise AuditInputError(
                f"{path_or_store}: a catalogue without pixels has no PSF to hold against a table"
            )
        report = audit_catalogue(path_or_store, mapping=columns, thresholds=thresholds)
        if html is not None:
            from arcforge.engine.auditing.splits_page import write_splits_page

            write_splits_page(report, Path(html))
        return Report(report)
    result = run_audit(
        path_or_store,
        seed=seed,
        n_pairs=n_pairs,
        thresholds=thresholds,
        columns=columns,
        psf_table=psf_table,
        progress=progress,
    )
    if html is not None:
        from arcforge.engine.auditing.page import write_page

        write_page(result, Path(html))
    return Report(result.report)


def run_audit(
    path_or_store: Any,
    *,
    seed: int = 0,
    n_pairs: int | None = None,
    thresholds: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    psf_table: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    checks: Sequence[Check] = CHECKS,
) -> AuditResult:
    """Audit a set and keep the state for pictures; arguments as those of :func:`audit`."""
    if n_pairs is not None and n_pairs < 1:
        raise AuditInputError(f"n_pairs is {n_pairs}; give a number from 1 on")
    limits = Thresholds(thresholds)
    steps = len(checks) + 1
    report_step = progress or (lambda done, total: None)

    def report_reading(stage: str, done: int, total: int) -> None:
        if stage == "reading":
            report_step(int(done == total), steps)

    source = open_pairs(path_or_store, limits.count("sample.blob_bytes"), columns)
    widths = None if psf_table is None else PsfTable.read(psf_table, source.bands)
    pairs = draw_pairs(source, limits, seed, n_pairs, report_reading)
    state = AuditState(pairs, limits, seed, report_reading, widths)
    outcomes = _run_all(checks, state, lambda done: report_step(done + 1, steps))
    return AuditResult(_report(state, outcomes), state)


def _run_all(checks: Sequence[Check], state: AuditState, report_done: Callable[[int], None]) -> list[Outcome]:
    """Run checks, some in a thread beside the others; the outcomes are in the order of the checks."""
    outcomes: dict[str, Outcome] = {}
    beside = ThreadPoolExecutor(1, "arcforge-audit")
    # the matrices are small: more BLAS threads only wait for each other
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            begun = {check.id: beside.submit(run_check, check, state) for check in checks if check.beside}
            for check in sorted(checks, key=lambda check: check.beside):
                outcomes[check.id] = begun[check.id].result() if check.beside else run_check(check, state)
                report_done(len(outcomes))
        finally:
            beside.shutdown(cancel_futures=True)
    return [outcomes[check.id] for check in checks]


def _report(state: AuditState, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    diagnosis = state.finished("diagnosis")
    causes = list(diagnosis.causes) if diagnosis else []
    causes += _psf_truth_cause(outcomes, causes, state)
    gate, shares = state.finished("gate"), state.finished("attribution")
    remedies = state.finished("remedies") or []
    verdict = decide(outcomes, causes, gate, shares, remedies, _missing(state), state.thresholds)
    report = {
        "schema": SCHEMA,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "because": verdict.because,
        "next_step": verdict.next_step,
        "causes": [
            {
                "name": c.name,
                "estimate": c.estimate,
                "ci95": list(c.ci95) if c.ci95 else None,
                "nominal": c.nominal,
                "unit": c.unit,
                "message": c.message,
            }
            for c in causes
        ],
        "gate": _gate_entry(state, gate),
        "attribution": shares or {name: {"share": None, "ci95": None} for name in attribution.PARTS},
        "checks": [_check_entry(state, outcome) for outcome in outcomes],
        "remedies": list(remedies),
        "nuisance": {
            name: {"estimate": n.estimate.value, "ci95": list(n.estimate.ci95), "nominal": n.nominal}
            for name, n in (diagnosis.nuisance if diagnosis else {}).items()
        },
        "provenance": _provenance(state, verdict),
        "evidence": dict(sorted(state.evidence.items())),
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def _psf_truth_cause(outcomes: Sequence[Outcome], causes: Sequence[Cause], state: AuditState) -> list[Cause]:
    """Name the PSF where its recorded width is not the survey's, though pixels and record may agree."""
    finding = next((o.finding for o in outcomes if o.check.id == "R7"), None)
    if finding is None or finding.status != FAIL or any(c.name == "psf_width" for c in causes):
        return []
    if finding.effect is None or finding.ci95 is None:
        return []
    return [psf_truth_cause(finding.effect, finding.ci95, state.pairs.pixscale_arcsec)]


def _missing(state: AuditState) -> list[str]:
    if state.pairs.source.kind == "unpaired":
        return [NO_PAIRS]
    try:
        recorded_parameters(state.pairs.table, state.pairs.bands)
    except MissingParametersError as error:
        return error.columns
    except CatalogError:
        return []
    return []


def _gate_entry(state: AuditState, gate: Any) -> dict[str, Any]:
    threshold = state.thresholds["gate.max_core_auc"]
    if gate is None:
        empty = dict.fromkeys(("auc", "ci95", "within_pair_auc", "p_permutation", "mde", "fpr_at_half_tpr"))
        return {
            **empty,
            "n_pairs": len(state.pairs),
            "n_groups": state.pairs.n_groups,
            "threshold": threshold,
        }
    return {
        "auc": gate.auc.value,
        "ci95": list(gate.auc.ci95),
        "within_pair_auc": gate.within_pair_auc.value if state.pairs.source.kind != "unpaired" else None,
        "p_permutation": gate.p_permutation,
        "mde": gate.mde,
        "fpr_at_half_tpr": gate.fpr_at_half_tpr,
        "n_pairs": gate.n_pairs,
        "n_groups": gate.n_groups,
        "threshold": threshold,
    }


def _check_entry(state: AuditState, outcome: Outcome) -> dict[str, Any]:
    check = outcome.check
    return outcome.finding.entry(
        check.id,
        check.title,
        required=check.required,
        n_pairs=len(state.pairs),
        n_groups=state.pairs.n_groups,
    )


def _provenance(state: AuditState, verdict: Verdict) -> dict[str, Any]:
    from importlib.metadata import version

    pairs = state.pairs
    return {
        "path": Path(pairs.source.path).name,
        "kind": pairs.source.kind,
        "bands": pairs.bands,
        "pixscale_arcsec": pairs.pixscale_arcsec,
        "stamp_pix": list(pairs.stamps.shape[2:]),
        "n_rows": pairs.full_table.num_rows,
        "n_scanned": pairs.scan.n_scanned,
        "n_pairs": len(pairs),
        "n_hosts": pairs.n_groups,
        "notes": pairs.notes,
        "seed": state.seed,
        "software": {
            "arcforge": version("arcforge"),
            "python": ".".join(map(str, sys.version_info[:3])),
            "numpy": np.__version__,
        },
        "thresholds": {
            name: {"value": value, "why": state.thresholds.why(name)}
            for name, value in state.thresholds.items()
        },
        "scope": (
            "The audit certifies that the data are what they claim to be and carry no hidden cue. It "
            "does not certify performance on the sky: test on real lenses and real non-lenses."
        ),
    }


def _plain(value: Any) -> Any:
    """Turn numpy scalars into numbers and NaN or infinity into null, so that the report is JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
