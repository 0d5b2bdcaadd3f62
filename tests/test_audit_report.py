"""Whole audits of small sets: the report's form, its page, its repeatability, and bad input."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arcforge.bench.planted import FAULTS, make_set, to_blob
from arcforge.engine import audit
from arcforge.engine.auditing.page import render_page
from arcforge.engine.auditing.run import CHECKS, run_audit
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.errors import AuditInputError, ConfigError
from arcforge.engine.synthetic import synthetic_hosts

KEYS = (
    "schema",
    "verdict",
    "reason",
    "causes",
    "gate",
    "attribution",
    "checks",
    "remedies",
    "nuisance",
    "provenance",
)
CHECK_KEYS = {
    "id",
    "title",
    "required",
    "status",
    "effect",
    "ci95",
    "threshold",
    "n_pairs",
    "n_groups",
    "message",
}
GATE_KEYS = {"auc", "ci95", "within_pair_auc", "p_permutation", "mde", "n_pairs", "n_groups", "threshold"}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A clean set of 40 pairs of 20 hosts."""
    hosts = synthetic_hosts(20, 4).pixels(np.arange(20))
    return make_set(FAULTS[0], hosts, 40, 21).write(tmp_path_factory.mktemp("clean") / "clean.parquet")


@pytest.fixture(scope="module")
def result(clean):
    return run_audit(clean, seed=3)


def rewrite(source, path, **columns):
    """Copy a set with columns replaced, or dropped where None."""
    table = pq.read_table(source)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        if values is not None:
            table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return path


def status(report, check):
    return next(c["status"] for c in report["checks"] if c["id"] == check)


def test_the_report_has_the_agreed_form(result):
    report = json.loads(json.dumps(result.report, allow_nan=False))
    assert report["schema"] == "arcforge.audit/1"
    assert all(key in report for key in KEYS)
    assert set(report["gate"]) >= GATE_KEYS
    assert [c["id"] for c in report["checks"]] == [c.id for c in CHECKS]
    for check in report["checks"]:
        assert set(check) == CHECK_KEYS
        assert check["status"] in ("PASS", "WARN", "FAIL", "INCONCLUSIVE", "SKIPPED")
        assert "\n" not in check["message"]
    for part in ("geometry", "psf", "extent", "unexplained"):
        assert set(report["attribution"][part]) == {"share", "ci95"}
    for name in (
        "psf_width",
        "offset_x_pix",
        "theta_e_scale",
        "source_size",
        "flux_scale_r",
        "pedestal_nmgy",
    ):
        assert set(report["nuisance"][name]) == {"estimate", "ci95", "nominal"}
    assert report["provenance"]["thresholds"]["gate.box_pix"]["value"] == 10


def test_a_clean_set_is_explained(result):
    report = result.report
    assert report["causes"] == []
    for check in ("D0", "D1", "D2", "S0", "S1", "P1", "P3", "P4", "R1", "R2", "R3", "R5", "N1"):
        assert status(report, check) == "PASS", check
    low, high = report["attribution"]["unexplained"]["ci95"]
    assert -2e-3 < low <= 0 <= high < 2e-3
    assert report["gate"]["within_pair_auc"] > 0.9


def test_parts_add_up_to_the_whole(result):
    shares = result.report["attribution"]
    for row in (shares, *shares["by_theta_e"]):
        total = sum(row[part]["share"] for part in ("geometry", "psf", "extent", "unexplained"))
        assert total == pytest.approx(1)


def test_the_same_seed_gives_the_same_report_and_another_another(clean, result):
    again = run_audit(clean, seed=3).report
    assert json.dumps(again) == json.dumps(result.report)
    other = run_audit(clean, seed=4, checks=[c for c in CHECKS if c.id == "G1"]).report
    assert other["gate"]["auc"] != again["gate"]["auc"]


def test_the_page_stands_alone_and_says_the_verdict_first(result):
    page = render_page(result)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") >= 6
    assert page.index(result.report["verdict"]) < page.index("Next step") < page.index("<img")
    for check in result.report["checks"]:
        assert f"<td>{check['id']}</td>" in page


def test_names_from_the_data_cannot_inject_markup(clean, tmp_path):
    path = rewrite(clean, tmp_path / "<b>x.parquet")
    page = render_page(run_audit(path, checks=CHECKS[:1]))
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page


def test_parameters_that_are_not_recorded_end_as_no_metadata(clean, tmp_path):
    path = rewrite(clean, tmp_path / "bare.parquet", src_reff_arcsec=None, src_flux_nmgy_g=None)
    result = run_audit(path)
    report = result.report
    assert (report["verdict"], report["reason"]) == ("INCONCLUSIVE", "NO_METADATA")
    assert "src_reff_arcsec" in report["because"]
    assert "src_flux_nmgy_g" in report["because"]
    assert status(report, "P1") == "SKIPPED"
    assert "core" in next(c["message"] for c in report["checks"] if c["id"] == "P1")
    assert render_page(result)


def test_fluxes_follow_from_the_users_magnitudes(clean, tmp_path):
    table = pq.read_table(clean)
    magnitude = {b: 22.5 - 2.5 * np.log10(table[f"src_flux_nmgy_{b}"].to_numpy()) for b in "grz"}
    path = rewrite(
        clean,
        tmp_path / "magnitudes.parquet",
        **dict.fromkeys(("src_flux_nmgy_g", "src_flux_nmgy_r", "src_flux_nmgy_z")),
        rmag=np.full(40, 19.5),
        src_dmag=magnitude["r"] - 19.5,
        src_gr=magnitude["g"] - magnitude["r"],
        src_rz=magnitude["r"] - magnitude["z"],
    )
    report = run_audit(path, checks=[c for c in CHECKS if c.id == "R1"]).report
    assert status(report, "R1") == "PASS"


def blobs(table, name):
    return table.column(name).to_pylist()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nan", "NaN or infinite pixels (row 5"),
        ("repeat", "stamps occur twice (row 7 repeats row 6"),
        ("blank", "one constant value (row 5"),
        ("broken", "unreadable pairs (row 5: not a readable npz"),
        ("small", "32) pixels where the set has (64, 64)"),
        ("psf", "psf_fwhm_used_r is 0.0"),
        ("control", "recorded as controls, yet stamp and control differ (row 5"),
    ],
)
def test_faulty_data_is_named_with_its_row(clean, tmp_path, fault, words):
    table = pq.read_table(clean)
    stamps = blobs(table, "stamp_npz")
    pixels = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    changes: dict = {}
    if fault == "nan":
        pixels[1, 3, 3] = np.nan
        stamps[5] = to_blob(pixels)
    elif fault == "repeat":
        stamps[7] = stamps[6]
    elif fault == "blank":
        stamps[5] = to_blob(pixels * np.array([1, 1, 0], dtype=np.float32)[:, None, None])
    elif fault == "broken":
        stamps[5] = stamps[5][:200]
    elif fault == "small":
        stamps[5] = to_blob(pixels[:, :32, :32])
    elif fault == "psf":
        changes["psf_fwhm_used_r"] = np.where(np.arange(40) == 5, 0.0, table["psf_fwhm_used_r"].to_numpy())
    else:
        changes["is_control"] = (np.arange(40) == 5).astype(int)
    path = rewrite(clean, tmp_path / "faulty.parquet", stamp_npz=stamps, **changes)
    report = run_audit(path, checks=[c for c in CHECKS if c.id == "D0"]).report
    assert (report["verdict"], report["reason"]) == ("NO-GO", "DATA")
    assert words in report["because"]


def test_a_host_in_two_splits_is_a_data_fault(clean, tmp_path):
    split = np.where(
        np.arange(40) % 20 == 3, np.array(["train", "test"])[(np.arange(40) >= 20).astype(int)], "train"
    )
    path = rewrite(clean, tmp_path / "split.parquet", split=split)
    report = run_audit(path, checks=[c for c in CHECKS if c.id == "D2"]).report
    assert (report["verdict"], report["reason"]) == ("NO-GO", "DATA")
    assert "row 3 in train" in report["because"] or "row 23 in test" in report["because"]


TWO_SPLITS = np.repeat(["train", "test"], 20)
APART_DEG = {"ra": 10.0 + 0.1 * (np.arange(40) % 20), "dec": np.where(np.arange(40) < 20, 0.0, 1.0)}


@pytest.mark.parametrize(
    ("columns", "expected", "words"),
    [
        # a host that is used in one split only, its source in both
        (
            {"source_id": [f"s{99 if k in (3, 30) else k}" for k in range(40)]},
            "FAIL",
            "row 3 in train, row 30",
        ),
        # one bank for all
        ({"source_id": [f"s{k % 4}" for k in range(40)]}, "WARN", "4 of 4 sources occur in two splits"),
        # -1 stands for no image source
        ({"cosmos_index": np.where(np.arange(40) % 20 == 1, np.arange(40), -1)}, "PASS", "0 of 2 sources"),
        (APART_DEG | {"dec": APART_DEG["dec"] * 10 / 3600}, "PASS", "40 rows lie within a stamp"),
        (APART_DEG, "PASS", "no host in two of the 2 splits"),
    ],
)
def test_sources_and_sky_that_splits_share_are_told(clean, tmp_path, columns, expected, words):
    # hosts of their own, so that nothing is shared but what the case shares
    pixels = np.random.default_rng(0).normal(size=(40, 3, 64, 64)).astype(np.float32)
    own = {"host_id": [f"h{k}" for k in range(40)], "ctrl_stamp_npz": [to_blob(p) for p in pixels]}
    path = rewrite(clean, tmp_path / "shared.parquet", split=TWO_SPLITS, **own, **columns)
    report = run_audit(path, checks=[c for c in CHECKS if c.id == "D2"]).report
    (check,) = report["checks"]
    assert check["status"] == expected
    assert words in check["message"]


def test_hosts_are_told_by_their_pixels_where_nothing_else_tells(clean, tmp_path):
    path = rewrite(clean, tmp_path / "anonymous.parquet", host_id=None)
    assert run_audit(path, checks=CHECKS[:1]).report["provenance"]["n_hosts"] == 20


def test_failed_rows_are_left_out_and_counted(clean, tmp_path):
    path = rewrite(clean, tmp_path / "failed.parquet", cutout_ok=(np.arange(40) != 2).astype(int))
    provenance = run_audit(path, checks=CHECKS[:1]).report["provenance"]
    assert provenance["n_pairs"] == 39
    assert "1 rows are marked as failed" in provenance["notes"][0]


def test_a_folder_of_files_with_keys_in_its_names_is_one_set(clean, tmp_path):
    table = pq.read_table(clean)
    for name, rows in (("train", slice(0, 30)), ("test", slice(30, 40))):
        folder = tmp_path / "set" / f"region_split={name}"
        folder.mkdir(parents=True)
        pq.write_table(
            table.slice(rows.start, rows.stop - rows.start), folder / "part.parquet", row_group_size=7
        )
    report = run_audit(tmp_path / "set", checks=[c for c in CHECKS if c.id in ("D0", "D2")]).report
    assert report["provenance"]["n_rows"] == 40
    assert status(report, "D2") == "FAIL"


def test_a_sample_is_drawn_by_the_seed(clean):
    reports = [run_audit(clean, seed=s, n_pairs=10, checks=CHECKS[:1]) for s in (1, 1, 2)]
    rows = [r.state.pairs.rows.tolist() for r in reports]
    assert rows[0] == rows[1] != rows[2]
    assert len(rows[0]) == 10


@pytest.mark.parametrize("check", ["G1", "R1", "R6"])
def test_a_crash_inside_a_whole_audit_shows_and_never_passes(clean, check):
    def crash(state):
        raise RuntimeError("planted\nover two lines")

    few = [c for c in CHECKS if c.id in ("D0", "D2", check)]
    checks = [replace(c, run=crash) if c.id == check else c for c in few]
    report = run_audit(clean, checks=checks).report
    assert report["verdict"] == "INCONCLUSIVE"
    assert "RuntimeError: planted over two lines" in report["because"]


def test_bad_input_is_one_line_that_names_the_file(clean, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no parquet")
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"x": [1]}), plain)
    empty = rewrite(clean, tmp_path / "controls.parquet", is_control=np.ones(40, dtype=int))
    for path, words in (
        (tmp_path / "absent", "no such file"),
        (text, "not a readable store or parquet"),
        (plain, "no column ctrl_stamp_npz, stamp_npz"),
        (empty, "no pair with an arc"),
    ):
        with pytest.raises(AuditInputError, match=words) as caught:
            audit(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_thresholds_can_be_replaced_but_not_invented(clean, tmp_path):
    given = tmp_path / "limits.toml"
    given.write_text('[gate]\nfolds = 4\nbox_pix = { value = 8, why = "smaller stamps" }\n')
    limits = Thresholds(given)
    assert (limits["gate.folds"], limits["gate.box_pix"]) == (4, 8)
    assert limits.why("gate.box_pix") == "smaller stamps"
    for text, words in (
        ("[gate]\nfold = 4\n", "unknown threshold 'gate.fold'"),
        ('[gate]\nfolds = "4"\n', "give a number"),
        ("folds = 4\n", "outside a section"),
        ("[gate", "cannot read"),
    ):
        given.write_text(text)
        with pytest.raises(ConfigError, match=words):
            Thresholds(given)


def test_every_threshold_has_a_reason():
    limits = Thresholds()
    assert all(len(limits.why(name)) > 15 for name in limits)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from arcforge.engine.inject import inject

    return inject(
        tmp_path_factory.mktemp("store") / "s.zarr", hosts=synthetic_hosts(12, 9), n=24, seed=5, progress=None
    )


def test_a_store_replays_and_is_what_it_says(store):
    checks = [c for c in CHECKS if c.id in ("D0", "D1", "D2", "P1", "P3", "P4", "R1", "R2", "R3", "R5", "N1")]
    report = run_audit(store.path, checks=checks).report
    assert {c["status"] for c in report["checks"] if c["id"] != "P3"} == {"PASS"}
    assert "rendered anew are the same to" in next(c["message"] for c in report["checks"] if c["id"] == "R1")
    assert report["provenance"]["kind"] == "store"


def test_a_store_whose_arcs_are_not_its_catalogue_s_fails_the_replay(store):
    class Tampered:
        """A store whose arcs were made with another seed's parameters."""

        path, bands, pixscale_arcsec, attrs = store.path, store.bands, store.pixscale_arcsec, store.attrs
        catalog = store.catalog
        ctrls = staticmethod(store.ctrls)

        @staticmethod
        def arcs(rows):
            return store.arcs((np.asarray(rows) + 1) % len(store))

        def stamps(self, rows):
            return self.ctrls(rows) + self.arcs(rows)

    report = run_audit(Tampered(), n_pairs=12, checks=[c for c in CHECKS if c.id == "R1"]).report
    assert (report["verdict"], report["reason"]) == ("NO-GO", "UNMODELLED")
    assert "rendered anew differ" in next(c["message"] for c in report["checks"] if c["id"] == "R1")
