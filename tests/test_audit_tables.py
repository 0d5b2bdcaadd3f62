"""Published tables: read with care, predicted from stated inputs, explained; never a verdict of "physics"."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from arcforge.bench.core_leakage import CASE, answer
from arcforge.engine.auditing import explanations, tables_report
from arcforge.engine.auditing.tables import read_tables
from arcforge.engine.auditing.tables_model import Departure, TablesModel
from arcforge.engine.auditing.tables_page import write_tables_page
from arcforge.engine.auditing.tables_report import audit_tables
from arcforge.engine.errors import AuditInputError

# The study draws 420; the answers below hold with far fewer
N_ROWS = 49


@pytest.fixture(scope="module")
def few_rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables_report, "_ROWS", N_ROWS)
        patch.setattr(explanations, "_EVALUATIONS_OF_ONE", 8)
        patch.setattr(explanations, "_EVALUATIONS_OF_TWO", 20)
        yield


@pytest.fixture(scope="module")
def report(few_rows):
    return audit_tables(CASE, seed=2)


def test_the_case_is_provenance_with_a_wide_blur_and_extended_sources_alike(report):
    assert (report["verdict"], report["reason"]) == ("NO-GO", "UNMODELLED")
    assert [c["name"] for c in report["causes"]] == ["provenance"]
    fitting = {e["name"] for e in report["degenerate"]}
    assert {"psf_width", "source_size"} <= fitting
    blur = next(e for e in report["degenerate"] if e["name"] == "psf_width")
    assert 1.7 < blur["values"][0] < 2.6
    statuses = {e["name"]: e["status"] for e in report["explanations"]}
    assert statuses["as_stated"] == statuses["pedestal"] == statuses["theta_e_scale"] == "excluded"
    assert {t["name"] for t in report["tell_apart"]} == fitting
    json.dumps(report, allow_nan=False)


def test_the_cases_questions_are_answered_from_the_numbers(report):
    answers = dict(answer(report))
    assert len(answers) == 4
    first = next(iter(answers.values()))
    assert first.startswith("No.")
    assert f"{report['evidence']['published']['profile'][0]:.2f}" in first


def test_the_page_shows_verdict_explanations_and_a_picture(report, tmp_path):
    text = write_tables_page(report, tmp_path / "t.html").read_text()
    assert "NO-GO UNMODELLED" in text
    assert "data:image/png" in text
    assert text.count("<tr>") > len(report["explanations"])


def tables_of(prediction, path: Path) -> Path:
    """Write tables that hold what was predicted."""
    case = tomllib.loads(CASE.read_text())
    inputs = "\n".join(f"{k} = {json.dumps(v)}" for k, v in case["inputs"].items())
    frame = "\n".join(f"{k} = {json.dumps(v)}" for k, v in case["frame"].items())
    path.write_text(
        f"[frame]\n{frame}\n[inputs]\n{inputs}\n[test3]\n"
        f"theta_e_edges_arcsec = {case['test3']['theta_e_edges_arcsec']}\n"
        f"core_share = {prediction.core_share.tolist()}\n[test4]\ntheta_e_min_arcsec = 2.0\n"
        f"radius_pix = {case['test4']['radius_pix']}\nmean_nmgy = {prediction.profile.tolist()}\n"
    )
    return path


def test_numbers_of_the_stated_inputs_are_explained_by_them_and_still_never_go(
    few_rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(explanations, "IDEAS", explanations.IDEAS[:2])
    path = tables_of(TablesModel(read_tables(CASE), 140, 5).predict(Departure()), tmp_path / "t.toml")
    report = audit_tables(path, seed=2)
    assert (report["verdict"], report["reason"]) == ("INCONCLUSIVE", "NO_METADATA")
    assert report["causes"] == []
    assert report["explanations"][0]["status"] == "fits"


def test_every_departure_moves_the_prediction_and_leaves_the_others_alone():
    model = TablesModel(read_tables(CASE), 28, 1)
    stated = model.predict(Departure())
    wide = model.predict(Departure(psf_width=2.0))
    assert wide.core_share[0] < stated.core_share[0]
    assert wide.profile[0] > stated.profile[0]
    raised = model.predict(Departure(pedestal=0.1))
    assert raised.outer_over_core > 30 * stated.outer_over_core
    assert np.allclose(model.predict(Departure()).profile, stated.profile)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pixscale_arcsec = 0.262", "", "frame.pixscale_arcsec is missing"),
        ("pixscale_arcsec = 0.262", "pixscale_arcsec = -1", "give a number above 0"),
        ("src_n = 1.0", "src_m = 1.0", "unknown inputs.src_m"),
        ("src_n = 1.0", "src_n = [2.0, 1.0]", "low to high"),
        ('psf_model = "moffat"', 'psf_model = "airy"', "gaussian, moffat"),
        ("core_share = [0.41, ", "core_share = [", "has 1 more"),
        ("core_share = [0.41, ", "core_share = [nan, ", "finite numbers"),
        ("theta_e_min_arcsec = 2.0", "", "theta_e_min_arcsec"),
        ("[test1]", "[test5]", "unknown entry 'test5'"),
        ("slack = 0.03", "slack = 0", "slack is 0"),
        ("[frame]", "[frame", "cannot read tables"),
    ],
)
def test_a_faulty_file_is_one_line_that_says_what_and_where(tmp_path, old, new, message):
    text = CASE.read_text()
    assert old in text
    path = tmp_path / "t.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(AuditInputError, match=message) as error:
        read_tables(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
