"""Sets under other names, sets without controls, and the report for a continuous-integration server."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from arcforge.bench.planted import FAULTS, make_set, to_blob
from arcforge.cli.app import app
from arcforge.engine import audit
from arcforge.engine.auditing import pairs as pairs_module
from arcforge.engine.auditing.junit import write_junit
from arcforge.engine.auditing.mapping import read_mapping
from arcforge.engine.auditing.page import write_page
from arcforge.engine.auditing.run import CHECKS, run_audit
from arcforge.engine.auditing.sources import open_pairs
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.errors import AuditInputError, ConfigError
from arcforge.engine.synthetic import synthetic_hosts

N_PAIRS = 48
BLOB = 1 << 26
QUICK = [c for c in CHECKS if c.id in ("D0", "D1", "D2", "G1", "P1", "R1", "R3")]


@pytest.fixture(scope="module")
def made():
    hosts = synthetic_hosts(N_PAIRS, 4).pixels(np.arange(N_PAIRS))
    return make_set(FAULTS[0], hosts, N_PAIRS, 21)


@pytest.fixture(scope="module")
def unpaired(made, tmp_path_factory):
    """Stamps of the first half, controls of the second: no host has both."""
    half = N_PAIRS // 2
    images = [*made.stamps[:half], *made.controls[half:]]
    table = pa.table(
        {
            "image": [to_blob(i) for i in images],
            "is_lens": [1] * half + [0] * half,
            "host_id": made.columns["host_id"].tolist(),
        }
    )
    path = tmp_path_factory.mktemp("unpaired") / "u.parquet"
    pq.write_table(table, path)
    return path


def test_mapped_names_give_the_same_table(made, tmp_path):
    path = made.write(tmp_path / "ours.parquet")
    table = pq.read_table(path)
    other = {"theta_e_arcsec": "einstein_radius", "stamp_npz": "with_arc", "ctrl_stamp_npz": "without"}
    theirs = table.rename_columns([other.get(n, n) for n in table.column_names])
    pq.write_table(theirs, tmp_path / "theirs.parquet")
    (tmp_path / "map.toml").write_text(
        'stamp_column = "with_arc"\ncontrol_column = "without"\n'
        '[columns]\ntheta_e_arcsec = "einstein_radius"\n'
    )
    mapping = read_mapping(tmp_path / "map.toml")
    assert mapping == other
    ours, mapped = open_pairs(path, BLOB), open_pairs(tmp_path / "theirs.parquet", BLOB, mapping)
    assert mapped.table.equals(ours.table)
    rows = np.arange(3)
    for one, another in zip(ours.batches(rows, 2), mapped.batches(rows, 2), strict=True):
        assert np.array_equal(one.stamps, another.stamps)
        assert np.array_equal(one.controls, another.controls)


@pytest.mark.parametrize(
    ("text", "words"),
    [("[columns", "cannot read"), ("other = 1", "not other"), ("[columns]\nra = 3", "name of a column")],
)
def test_a_faulty_map_is_one_line(tmp_path, text, words):
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_mapping(path)


def test_a_mapped_column_that_is_not_there_is_refused(unpaired):
    with pytest.raises(AuditInputError, match="no column picture"):
        open_pairs(unpaired, BLOB, {"stamp_npz": "picture"})


def test_an_unpaired_set_runs_the_gate_and_says_what_is_lost(unpaired):
    report = run_audit(unpaired, columns={"stamp_npz": "image", "label": "is_lens"}, checks=QUICK).report
    status = {c["id"]: c["status"] for c in report["checks"]}
    assert status["D0"] == "PASS"
    assert status["P1"] == status["R1"] == status["R3"] == status["D1"] == "SKIPPED"
    assert report["gate"]["auc"] > 0.5
    assert report["gate"]["within_pair_auc"] is None
    assert (report["verdict"], report["reason"]) == ("INCONCLUSIVE", "NO_METADATA")
    assert "control of each stamp" in report["because"]


def test_an_unpaired_set_in_the_order_of_its_labels_is_told(unpaired, tmp_path):
    columns, d3 = {"stamp_npz": "image", "label": "is_lens"}, [c for c in CHECKS if c.id == "D3"]
    (check,) = (
        c for c in run_audit(unpaired, columns=columns, checks=d3).report["checks"] if c["id"] == "D3"
    )
    assert check["status"] == "WARN"
    assert "position in the file (AUC 1.00)" in check["message"]
    table = pq.read_table(unpaired)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), tmp_path / "u.parquet")
    report = run_audit(tmp_path / "u.parquet", columns=columns, checks=d3).report
    (check,) = (c for c in report["checks"] if c["id"] == "D3")
    assert check["status"] != "WARN"
    assert "tell no more than chance" in check["message"]


def test_an_unpaired_set_has_a_page_too(unpaired, tmp_path):
    columns = {"stamp_npz": "image", "label": "is_lens"}
    write_page(run_audit(unpaired, columns=columns, checks=QUICK), tmp_path / "u.html")
    assert "NO_METADATA" in (tmp_path / "u.html").read_text()


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_hosts_are_too_few_and_it_is_said_so(made, tmp_path, n):
    pq.write_table(pq.read_table(made.write(tmp_path / "all.parquet")).slice(0, n), tmp_path / "few.parquet")
    checks = [c for c in CHECKS if c.id in ("D0", "S0", "G1", "R6", "M1")]
    result = run_audit(tmp_path / "few.parquet", checks=checks)
    assert (result.report["verdict"], result.report["reason"]) == ("INCONCLUSIVE", "POWER")
    assert "hosts" in result.report["because"]
    assert not any("did not finish" in c["message"] for c in result.report["checks"])
    assert "8 hosts" in result.report["next_step"]


def test_stamps_without_an_outer_annulus_are_refused(made, tmp_path):
    inner = (slice(None), slice(None), slice(24, 40), slice(24, 40))
    small = replace(made, stamps=made.stamps[inner], controls=made.controls[inner])
    with pytest.raises(AuditInputError, match=r"16 x 16 px hold 0 pixels beyond r = 20 px.*core.outer_pix"):
        run_audit(small.write(tmp_path / "small.parquet"), checks=QUICK)


def test_stamps_that_are_not_square_are_refused(made, tmp_path):
    lower = (slice(None), slice(None), slice(4, None))
    oblong = replace(made, stamps=made.stamps[lower], controls=made.controls[lower])
    with pytest.raises(AuditInputError, match=r"60 x 64 px \(y, x\).* cut them to 60 x 60 px"):
        run_audit(oblong.write(tmp_path / "oblong.parquet"), checks=QUICK)


def test_unpaired_labels_have_to_be_two_known_ones(unpaired, tmp_path):
    table = pq.read_table(unpaired)
    place = table.schema.get_field_index("is_lens")
    mapping = {"stamp_npz": "image", "label": "is_lens"}
    for values, words in (([1] * N_PAIRS, "one label only"), ([2] * N_PAIRS, "row 0: label is '2'")):
        path = tmp_path / "x.parquet"
        pq.write_table(table.set_column(place, "is_lens", pa.array(values)), path)
        with pytest.raises(AuditInputError, match=words):
            open_pairs(path, BLOB, mapping)


def test_pairs_that_share_an_object_on_either_side_are_one_group(unpaired, tmp_path):
    table = pq.read_table(unpaired)
    hosts = table.column("host_id").to_pylist()
    hosts[N_PAIRS // 2 + 1] = hosts[0]
    place = table.schema.get_field_index("host_id")
    path = tmp_path / "x.parquet"
    pq.write_table(table.set_column(place, "host_id", pa.array(hosts)), path)
    groups = open_pairs(path, BLOB, {"stamp_npz": "image", "label": "is_lens"}).table.column("host_id")
    assert groups[0] == groups[1]
    assert len(set(groups.to_pylist())) == N_PAIRS // 2 - 1


def test_junit_counts_failures_and_escapes_text(unpaired, tmp_path):
    report = run_audit(unpaired, columns={"stamp_npz": "image", "label": "is_lens"}, checks=QUICK).report
    report["checks"][0] |= {"status": "FAIL", "message": "<bad> & \x00 'quoted'"}
    suite = ElementTree.parse(write_junit(report, tmp_path / "a.xml", passing=False)).getroot()
    assert suite.get("tests") == str(1 + len(QUICK))
    assert suite.get("failures") == "2"
    failures = [c.find("failure").get("message") for c in suite if c.find("failure") is not None]
    assert failures[0].startswith("INCONCLUSIVE NO_METADATA")
    assert failures[1] == "<bad> & ? 'quoted'"


def test_the_command_takes_a_map_and_writes_junit(unpaired, tmp_path):
    (tmp_path / "map.toml").write_text('stamp_column = "image"\n[columns]\nlabel = "is_lens"\n')
    result = CliRunner().invoke(
        app,
        ["audit", str(unpaired), "--map", str(tmp_path / "map.toml"), "--junit", str(tmp_path / "a.xml")],
    )
    assert result.exit_code == 30, result.output
    assert (tmp_path / "a.xml").exists()


def test_fewer_pairs_of_large_stamps_are_drawn_and_the_report_says_so(made, tmp_path, monkeypatch):
    path = made.write(tmp_path / "set.parquet")
    monkeypatch.setattr(pairs_module, "_LEAST_PAIRS", 5)
    (tmp_path / "t.toml").write_text("[sample]\nimage_bytes = 500000\n")  # ten stamps of 3 x 64 x 64
    limits = Thresholds(tmp_path / "t.toml")
    drawn = pairs_module.draw_pairs(open_pairs(path, BLOB), limits, 0, None, lambda *step: None)
    assert len(drawn) == 10
    assert any("for memory" in note for note in drawn.notes)
    asked = pairs_module.draw_pairs(open_pairs(path, BLOB), limits, 0, 20, lambda *step: None)
    assert len(asked) == 20


@pytest.mark.parametrize("seed", [-1, 1.5, "x"])
def test_a_seed_that_is_none_is_refused(tmp_path, seed):
    with pytest.raises(AuditInputError, match="seed is"):
        audit(tmp_path / "pairs.parquet", seed=seed)
