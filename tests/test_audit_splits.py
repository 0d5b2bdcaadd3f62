"""Catalogues without pixels: shared objects, sky and sources across splits, and labels that disagree."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arcforge.engine import audit
from arcforge.engine.auditing.groups import near_other_split
from arcforge.engine.errors import AuditInputError

N = 400
_ARCSEC = 1 / 3600.0


def columns(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "RA": rng.uniform(0, 360, N),
        "DEC": np.rad2deg(np.arcsin(rng.uniform(-0.9, 0.9, N))),
        "split": rng.choice(np.array(["train", "test", "val"], dtype=object), N),
        "label": rng.integers(0, 2, N),
    }


def write(data: dict[str, np.ndarray], path):
    pq.write_table(pa.table(data), path)
    return path


def checks_of(report) -> dict[str, dict]:
    return {c["id"]: c for c in report["checks"]}


def test_clean_splits_are_clean_and_still_never_go(tmp_path):
    report = audit(write(columns(), tmp_path / "c.parquet"))
    assert (report["verdict"], report["reason"]) == ("INCONCLUSIVE", "NO_METADATA")
    assert {c["status"] for c in report["checks"]} == {"PASS"}


@pytest.mark.parametrize("distance_arcsec", [0.0, 0.8])
def test_an_object_in_two_splits_is_found_by_its_place(tmp_path, distance_arcsec):
    data = columns()
    data["RA"][7], data["DEC"][7] = data["RA"][300], data["DEC"][300] + distance_arcsec * _ARCSEC
    data["split"][7], data["split"][300] = "train", "test"
    data["label"][7] = data["label"][300]
    report = audit(write(data, tmp_path / "c.parquet"))
    assert (report["verdict"], report["reason"]) == ("NO-GO", "DATA")
    message = checks_of(report)["D2"]["message"]
    assert "1 objects occur in two splits (row 7 in train, row 300 in test)" in message


def test_neighbours_share_sky_without_being_one_object(tmp_path):
    data = columns()
    # across ra = 0, where differences of coordinates mislead
    data["RA"][7], data["RA"][300] = 1.0 * _ARCSEC, 360.0 - 4.0 * _ARCSEC
    data["DEC"][7] = data["DEC"][300] = 0.0
    data["split"][7], data["split"][300] = "train", "test"
    found = checks_of(audit(write(data, tmp_path / "c.parquet")))["D2"]
    assert found["status"] == "PASS"
    assert '2 rows lie within 16.8" of another split' in found["message"]


def test_shared_sources_and_labels_that_disagree_are_found(tmp_path):
    data = columns() | {"source_id": np.arange(N)}
    data["source_id"][5] = data["source_id"][6]
    data["split"][5], data["split"][6] = "train", "val"
    data["RA"][8], data["DEC"][8], data["split"][8] = data["RA"][9], data["DEC"][9], data["split"][9]
    data["label"][8], data["label"][9] = 0, 1
    found = checks_of(audit(write(data, tmp_path / "c.parquet")))
    assert "1 sources occur in two splits" in found["D2"]["message"]
    assert found["D2b"]["status"] == "FAIL"
    assert "rows 8, 9" in found["D2b"]["message"]


def test_positions_that_are_none_fail_and_name_their_row(tmp_path):
    data = columns()
    data["DEC"][11] = np.nan
    found = checks_of(audit(write(data, tmp_path / "c.parquet")))["D0"]
    assert found["status"] == "FAIL"
    assert "row 11" in found["message"]


def test_other_names_are_mapped_and_absent_ones_refused(tmp_path):
    data = columns()
    path = write({"a": data["RA"], "d": data["DEC"], "where": data["split"]}, tmp_path / "c.parquet")
    report = audit(path, columns={"ra": "a", "dec": "d", "split": "where"})
    assert report["provenance"]["columns"] == {"ra": "a", "dec": "d", "split": "where"}
    with pytest.raises(AuditInputError, match="nowhere"):
        audit(path, columns={"ra": "nowhere", "dec": "d"})


def test_csv_is_read_and_has_a_page(tmp_path):
    data = columns()
    path = tmp_path / "c.csv"
    rows = zip(*(data[k] for k in data), strict=True)
    path.write_text("\n".join([",".join(data), *(",".join(map(str, row)) for row in rows)]))
    assert audit(path)["provenance"]["n_rows"] == N
    path.write_text("ra,dec\n1.0,2.0\n3.0,4.0\n")
    report = audit(path, html=tmp_path / "x.html")
    assert report["because"].startswith("the catalogue names neither splits nor labels")
    page = (tmp_path / "x.html").read_text()
    assert f"{report['verdict']} {report['reason']}" in page
    assert all(c["id"] in page for c in report["checks"])


def test_sky_shared_between_splits_equals_brute_force():
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 0.1, 300), rng.uniform(60, 60.05, 300)
    split = rng.integers(-1, 3, 300)
    x, y = ra * np.cos(np.deg2rad(60.025)) * 3600, dec * 3600
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    other = (split[:, None] != split) & (split[:, None] >= 0) & (split >= 0)
    # the plane is flat to some 1e-3 here: no pair lies so near the radius
    assert near_other_split(ra, dec, split, 5.0) == int((other & (distance < 5.0)).any(1).sum())
