"""How often the audit is right: foreign sets with planted faults and clean ones, audited and counted.

    python -m arcforge.bench.calibrate --pairs 240 --seeds 1 --out calibration.json

Each fault of ``planted.FAULTS``, ``planted_several`` and ``planted_conventions`` is made in one of the
surveys of ``surveys.SURVEYS`` in turn (another with each seed), by a renderer that is not the engine's; clean
sets in every survey, those of ``OTHER_SURVEYS`` too. A seed takes an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from arcforge.bench.planted import FAULTS, Fault, PairedSet, make_set
from arcforge.bench.planted_conventions import CONVENTIONS
from arcforge.bench.planted_several import TWO_FAULTS
from arcforge.bench.surveys import OTHER_SURVEYS, SURVEYS, Survey
from arcforge.engine.auditing.run import CHECKS, run_audit

# Checks that say whether pixels and record agree; gates and remedies take long and name nothing
_NAMING = ("D0", "D1", "D2", "P1", "P2", "P3", "P4", "R1", "R2", "R3", "R5", "N1")
# What may fail of a clean set: its arcs do lighten the core
_OF_PHYSICS = {"G1"}


def list_cases(seeds: Sequence[int]) -> Iterator[tuple[Fault, Survey, int]]:
    """Yield (fault, survey, seed): every fault once a seed, the clean set in every survey."""
    for seed in seeds:
        yield from ((FAULTS[0], survey, seed) for survey in (*SURVEYS, *OTHER_SURVEYS))
        for k, fault in enumerate(FAULTS[1:]):
            yield fault, SURVEYS[(k + seed) % len(SURVEYS)], seed
        for k, fault in enumerate((*TWO_FAULTS, *CONVENTIONS)):
            yield fault, SURVEYS[(k + seed) % len(SURVEYS)], seed


@cache
def _clean(survey: Survey, seed: int, n_pairs: int) -> PairedSet:
    return make_set(FAULTS[0], survey.host_pixels(seed), n_pairs, seed, survey=survey)


def audit_case(fault: Fault, survey: Survey, seed: int, n_pairs: int, folder: Path) -> dict[str, Any]:
    """Make a set, audit it, and tell whether the name is right and the interval holds the truth."""
    clean = _clean(survey, seed, n_pairs)
    hosts = survey.host_pixels(seed)
    arcs = clean.stamps - clean.controls
    made = make_set(fault, hosts, n_pairs, seed, survey=survey, arcs=arcs) if fault.cause else clean
    path = made.write(folder / "set.parquet")
    start = time.perf_counter()
    # of a clean set the verdict counts too: whatever does not find it clean is a false alarm
    checks = [c for c in CHECKS if c.id in _NAMING] if fault.cause else CHECKS
    report = run_audit(path, seed=seed, checks=checks).report
    seconds = time.perf_counter() - start
    names = [cause["name"] for cause in report["causes"]]
    found = next((c for c in report["causes"] if c["name"] == fault.cause), None)
    wanted = {fault.cause, *fault.also}
    failed = [
        c["id"]
        for c in report["checks"]
        if c["status"] not in ("PASS", "WARN") and (fault.cause or c["required"])
    ]
    right = bool(names) and names[0] in wanted if fault.cause else not names and set(failed) <= _OF_PHYSICS
    interval = found["ci95"] if found and right else None
    truth = made.truth
    return {
        "fault": fault.name,
        "survey": survey.name,
        "seed": seed,
        "wanted": fault.cause,
        "named": names,
        "right": right,
        "only": right and set(names) <= wanted,
        "all": set(names) >= wanted - {None},
        "two": bool(fault.also),
        "truth": truth,
        "estimate": found["estimate"] if found else None,
        "ci95": interval,
        "covered": interval[0] <= truth <= interval[1] if interval and truth is not None else None,
        "verdict": f"{report['verdict']} {report['reason']}",
        "failed": failed,
        "messages": [c["message"] for c in report["checks"] if c["id"] in failed],
        "seconds": round(seconds, 1),
    }


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count: right names first, intervals that hold the truth, clean sets without alarm."""
    planted = [r for r in results if r["wanted"]]
    clean = [r for r in results if not r["wanted"]]
    known = [r for r in planted if r["covered"] is not None]
    share = lambda rows, key: (sum(bool(r[key]) for r in rows), len(rows))  # noqa: E731
    return {
        "right_name_first": share([r for r in planted if not r["two"]], "right"),
        "no_other_name": share(planted, "only"),
        "both_of_two_named": share([r for r in planted if r["two"]], "all"),
        "interval_holds_truth": share(known, "covered"),
        "clean_without_alarm": share(clean, "right"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the calibration and print a line a set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for fault, survey, seed in list_cases(options.seeds):
            if options.only not in fault.name:
                continue
            result = audit_case(fault, survey, seed, options.pairs, Path(folder))
            results.append(result)
            good = result["right"] and result["all"] and result["covered"] is not False
            mark = "ok " if good else "BAD"
            sys.stdout.write(
                f"{mark} {fault.name:38s} {survey.name:30s} {','.join(result['named']) or '-':24s} "
                f"truth {result['truth']} found {result['estimate']} {result['ci95']} {result['failed']} "
                f"{result['verdict'] if not result['wanted'] else ''} {result['seconds']} s\n"
            )
            sys.stdout.flush()
            if options.out:
                report = {"sets": results, "summary": summarise(results)}
                options.out.write_text(json.dumps(report, indent=1))
    sys.stdout.write(json.dumps(summarise(results)) + "\n")


if __name__ == "__main__":
    main()
