"""Catalogue files of every kind read to the same table, and bad files are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from arcforge.engine.catalog import read_catalog, render_columns
from arcforge.engine.errors import CatalogError

COLUMNS = {
    "task_id": ["0007", "0008", "0010"],
    "row_id": [0, 1, 2],
    "lens_model": ["SIE", "SIS", "CONTROL"],
    "theta_e_arcsec": [1.25, 0.75, 0.0],
    "lens_e": [0.2, 0.0, 0.0],
    "lens_phi_rad": [0.3, 0.0, 0.0],
    "src_x_arcsec": [0.1, -0.2, 0.0],
    "src_y_arcsec": [0.0, 0.2, 0.0],
    "src_reff_arcsec": [0.3, 0.4, 0.0],
    "src_e": [0.1, 0.2, 0.0],
    "src_phi_rad": [1.0, 2.0, 0.0],
    "src_flux_nmgy_r": [1.0, 0.1, 0.0],
    "psf_fwhm_arcsec_r": [1.3, 1.4, 0.0],
}


def write(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({**COLUMNS, "stamp_npz": [b"x", b"y", b"z"]}), path)
    elif path.suffix == ".ecsv":
        Table(COLUMNS).write(path, format="ascii.ecsv")
    elif ".fits" in path.name:
        Table(COLUMNS).write(path, format="fits")
    else:
        lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in zip(*COLUMNS.values(), strict=True))]
        path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", ["c.parquet", "c.csv", "c.ecsv", "c.fits", "c.fits.gz"])
def test_every_kind_reads_to_the_same_table(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    table = read_catalog(tmp_path / name)
    assert table.to_pydict() == COLUMNS  # names stay text, numbers keep every bit, pixel blobs are left out
    assert len(render_columns(table, "r")) == 3


def test_a_hive_partitioned_folder_keeps_its_partition_as_a_column(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder = tmp_path / f"region_split={split}"
        folder.mkdir()
        write(folder / "part.parquet")
    table = read_catalog(tmp_path)
    assert table.num_rows == 6
    assert sorted(set(table["region_split"].to_pylist())) == ["test", "train"]


def test_empty_entries_are_null_and_then_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    write(path)
    path.write_text(path.read_text().replace("0.75", ""))
    table = read_catalog(path)
    assert table["theta_e_arcsec"].null_count == 1
    with pytest.raises(CatalogError, match=r"row 1 \(row_id 1\): theta_e_arcsec is missing"):
        render_columns(table, "r")


def test_masked_fits_entries_are_null(tmp_path: Path) -> None:
    table = Table(COLUMNS, masked=True)
    table["row_id"].mask = [False, True, False]
    table.write(tmp_path / "c.ecsv", format="ascii.ecsv")
    assert read_catalog(tmp_path / "c.ecsv")["row_id"].to_pylist() == [0, None, 2]


@pytest.mark.parametrize("name", ["c.parquet", "c.fits", "c.fits.gz"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CatalogError) as caught:
        read_catalog(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.csv", None, "does not exist"),
        ("c.txt", "a b", "unknown kind"),
        ("c.csv", "a,b\n1,2\n3\n", "unreadable"),
        ("c.csv", "lens_model,row_id\n", "no rows"),
    ],
)
def test_other_bad_files(tmp_path: Path, name: str, content: str | None, reason: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(CatalogError, match=reason) as caught:
        read_catalog(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_vector_columns_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "c.fits"
    Table({"lens_model": ["SIE"], "flux": np.zeros((1, 3))}).write(path)
    with pytest.raises(CatalogError, match="column flux has shape"):
        read_catalog(path)
