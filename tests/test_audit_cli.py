"""``arcforge audit`` as a command: exit codes, files, one-line errors; and the sets it is held to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from arcforge.cli import app as app_module
from arcforge.cli import audit as audit_command
from arcforge.engine.auditing import run as run_module

PAIRS = Path(__file__).parents[2] / "shared" / "data" / "pairs"


def invoke(*args: str):
    return CliRunner().invoke(app_module.app, ["audit", *args])


class FinishedAudit:
    """A report without an audit behind it."""

    state = None

    def __init__(self, verdict: str) -> None:
        self.report = {
            "verdict": verdict,
            "reason": "BUG" if verdict == "NO-GO" else None,
            "because": "why",
            "next_step": "what next",
            "causes": [
                {"name": "psf_width", "estimate": 2.355, "ci95": [2.3, 2.4], "nominal": 1.0, "unit": "ratio"}
            ],
            "checks": [{"id": "D0", "status": "PASS", "title": "Integrity: all", "message": "fine [sic]"}],
        }


@pytest.fixture
def finished(monkeypatch):
    """Let the audit give a chosen verdict, and keep what it was asked."""
    asked = {}

    def choose(verdict):
        def run_audit(path, **options):
            asked.update(options, path=path)
            return FinishedAudit(verdict)

        monkeypatch.setattr(run_module, "run_audit", run_audit)
        return asked

    return choose


@pytest.mark.parametrize(
    ("verdict", "code"), [("GO", 0), ("GO-WITH-REMEDY", 10), ("NO-GO", 20), ("INCONCLUSIVE", 30)]
)
def test_the_exit_code_is_the_verdict(finished, verdict, code):
    finished(verdict)
    result = invoke("pairs.parquet")
    assert result.exit_code == code
    assert verdict in result.stdout
    assert "next: what next" in result.stdout


def test_fail_on_chooses_what_fails(finished):
    finished("GO-WITH-REMEDY")
    assert invoke("x", "--fail-on", "nogo,inconclusive").exit_code == 0
    assert invoke("x", "--fail-on", "nogo, remedy").exit_code == 10
    finished("NO-GO")
    assert invoke("x", "--fail-on", "nogo").exit_code == 20
    assert invoke("x", "--fail-on", "").exit_code == 0


def test_an_unknown_word_for_fail_on_is_wrong_usage():
    result = invoke("x", "--fail-on", "nogo,never")
    assert result.exit_code == 2
    assert "'never'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_options_reach_the_audit_and_the_json_is_the_report(finished, tmp_path):
    asked = finished("NO-GO")
    result = invoke("x", "--seed", "5", "--n-pairs", "7", "--json", str(tmp_path / "new" / "r.json"))
    assert result.exit_code == 20
    assert (asked["path"], asked["seed"], asked["n_pairs"]) == ("x", 5, 7)
    assert json.loads((tmp_path / "new" / "r.json").read_text())["verdict"] == "NO-GO"
    assert "psf_width" in result.stdout
    assert "2.355 (95 %: 2.3 to 2.4; should be 1)" in result.stdout
    assert "fine [sic]" in result.stdout


def test_an_absent_set_is_one_line_and_failure(tmp_path):
    result = invoke(str(tmp_path / "absent.parquet"))
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "absent.parquet: no such file" in result.stderr


def test_every_verdict_has_an_exit_code():
    assert set(audit_command.EXIT_CODES) == {"GO", "GO-WITH-REMEDY", "NO-GO", "INCONCLUSIVE"}
    with pytest.raises(typer.BadParameter):
        audit_command._parse_fail_on("go")


def shared(name: str) -> str:
    path = PAIRS / name
    if not path.exists():
        pytest.skip(f"shared data not found at {path}")
    return str(path)


@pytest.mark.compiled
def test_the_foreign_clean_set_is_explained(tmp_path):
    result = invoke(shared("pairs_clean.parquet"), "--json", str(tmp_path / "r.json"))
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["causes"] == []
    assert {c["id"]: c["status"] for c in report["checks"] if c["id"][0] in "PR"} == dict.fromkeys(
        ("P1", "P2", "P3", "P4", "R1", "R2", "R3", "R4", "R5", "R6", "R7"), "PASS"
    )
    assert report["verdict"] == "GO-WITH-REMEDY" or report["reason"] == "SHORTCUT"
    assert result.exit_code in (10, 20)
    low, high = report["attribution"]["unexplained"]["ci95"]
    assert low <= 0 <= high


def test_the_foreign_set_with_the_wide_psf_is_a_named_bug(tmp_path):
    result = invoke(shared("pairs_psf_2355.parquet"), "--json", str(tmp_path / "r.json"))
    report = json.loads((tmp_path / "r.json").read_text())
    assert result.exit_code == 20
    assert (report["verdict"], report["reason"]) == ("NO-GO", "BUG")
    first = report["causes"][0]
    assert first["name"] == "psf_width"
    assert first["ci95"][0] <= 2.355 <= first["ci95"][1]
    assert "sigma taken for a FWHM" in first["message"]
    profile = report["evidence"]["P4"]["all"]
    apart = [abs(o - p) for o, p in zip(profile["observed"], profile["predicted"], strict=True)]
    assert max(apart) > 0.2
