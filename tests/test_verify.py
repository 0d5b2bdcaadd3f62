"""What the deep check of a store finds where every file is as it was committed; what stands in its way."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from arcforge.engine import open_store, provenance
from arcforge.engine.arrays import METADATA_FILE, _read_objects, encode_column, read_attributes, read_column
from arcforge.engine.commits import (
    FileRecord,
    commit,
    files_of,
    read_commit,
    read_manifest,
    shard_name,
    write_manifest,
)
from arcforge.engine.durable import place
from arcforge.engine.errors import ConfigError, StoreCorruptError, StoreError
from arcforge.engine.store_status import is_store, read_group_attributes
from arcforge.engine.verify import other_machinery, verify


def faults_of(store) -> list[str]:
    store.begin()
    store.write()
    store.finish()
    return verify(store.root, level="deep").faults


def recommit(store, shard: int, key: str, data: bytes) -> None:
    """Put other bytes in the place of a shard's file, with a record that says so."""
    name = shard_name(shard)
    files = files_of(read_commit(store.root, store.plan.sha256, name))
    place(store.root / key, data)
    commit(store.root, store.plan, name, files | {key: FileRecord.of(data)})


def test_pixels_that_are_not_finite_are_found_by_row(generated):
    generated.arcs[300, 1, 2, 3] = np.nan
    (fault,) = faults_of(generated)
    assert "shard-00001: row 300 has pixels that are not finite" in fault


def test_hosts_that_are_not_finite_are_found_by_number(generated):
    generated.hosts.pixels[3, 0, 0, 0] = np.inf
    assert any("host 3 has pixels that are not finite" in fault for fault in faults_of(generated))


def test_arcs_that_do_not_add_up_are_found_by_row(generated):
    generated.arcs[7] *= np.float32(1.0 + 3e-7)
    assert any("arc of row 7 is not zero" in fault for fault in faults_of(generated))


def test_a_shard_that_was_committed_in_ruins_is_found(generated):
    generated.begin()
    generated.write()
    recommit(generated, 1, "arcs/c/1/0/0/0", b"\0" * 9000)
    generated.finish()
    assert verify(generated.root, level="full").sound
    (fault,) = verify(generated.root, level="deep").faults
    assert "rows 256 to 511 cannot be decoded" in fault


def test_columns_that_differ_from_the_catalogue_are_named(written):
    store = open_store(written.root)
    values = read_column(written.root, "columns/theta_e_arcsec")
    values[10] += 1.0
    files = {k: FileRecord(r.size, r.sha256) for k, r in store.files.items()}
    for key, data in encode_column("columns/theta_e_arcsec", len(values), 0, values).items():
        place(written.root / key, data)
        files[key] = FileRecord.of(data)
    write_manifest(written.root, written.plan, files)
    assert verify(written.root, level="full").sound
    faults = verify(written.root, level="deep").faults
    assert any("columns/theta_e_arcsec differs from the catalogue's column" in fault for fault in faults)


def test_a_complete_store_of_another_plan_is_told(written):
    path = written.root / METADATA_FILE
    data = path.read_bytes().replace(written.plan.sha256.encode(), b"0" * 64)
    path.write_bytes(data)
    files = read_manifest(written.root)
    write_manifest(written.root, written.plan, files | {METADATA_FILE: FileRecord.of(data)})
    faults = verify(written.root).faults
    assert any("belongs to another plan" in fault for fault in faults), faults


def test_an_unknown_level_is_refused(written):
    with pytest.raises(ConfigError, match="level 'deeper' is unknown; use one of"):
        verify(written.root, level="deeper")


def test_what_made_a_store_elsewhere_is_named(complete_store):
    plan = replace(
        open_store(complete_store).plan, code_sha256=provenance.code_sha256(), software=provenance.software()
    )

    def made(processors=(), **changes) -> str:
        return other_machinery(
            SimpleNamespace(plan=replace(plan, **changes), attrs={"processors": list(processors)})
        )

    assert made() == made([provenance.cpu()]) == ""
    assert made(["an abacus"]) == "the processor an abacus"
    assert made(code_sha256="1" * 64).startswith("other arcforge sources (111111111111, here ")
    assert made(software=plan.software | {"numpy": "0.1"}) == f"numpy 0.1 (here {np.__version__})"


def test_libraries_and_processors_that_cannot_be_told(monkeypatch):
    def absent(name):
        raise provenance.PackageNotFoundError(name)

    def unreadable(self):
        raise OSError

    monkeypatch.setattr(provenance, "version", absent)
    found = provenance.software.__wrapped__()
    assert found.pop("python")
    assert set(found.values()) == {"not installed"}
    monkeypatch.setattr(Path, "read_text", unreadable)
    assert provenance._model_name()


def test_what_is_no_store_says_what_it_is(tmp_path, written):
    (tmp_path / METADATA_FILE).mkdir()
    with pytest.raises(StoreError, match=r"cannot be read \(Is a directory\)"):
        read_group_attributes(tmp_path)
    (tmp_path / METADATA_FILE).rmdir()
    for text, message in (
        ("{", "is not the metadata of a zarr v3 group"),
        ("[3]", "is not the metadata of a zarr v3 group"),
        ('{"zarr_format": 2}', "is not the metadata of a zarr v3 group"),
        (
            '{"zarr_format": 3, "node_type": "group", "attributes": 3}',
            "is not the metadata of a zarr v3 group",
        ),
        ('{"zarr_format": 3, "node_type": "group"}', "is a zarr group, but no arcforge store"),
    ):
        (tmp_path / METADATA_FILE).write_text(text)
        with pytest.raises(StoreError, match=message):
            read_group_attributes(tmp_path)
        assert not is_store(tmp_path)
    shutil.copy(tmp_path / METADATA_FILE, written.root / METADATA_FILE)
    assert is_store(written.root)
    with pytest.raises(StoreCorruptError, match=r"has changed \(schema or status\)"):
        read_group_attributes(written.root)
    assert read_attributes(b"\xff") is None


def test_a_folder_in_the_place_of_a_record_is_told(written):
    record = written.root / "commits" / "shard-00001.json"
    record.unlink()
    record.mkdir()
    with pytest.raises(StoreError, match=r"shard-00001.json: cannot be read \(Is a directory\)"):
        read_commit(written.root, written.plan.sha256, "shard-00001")


def test_columns_are_written_in_parts_and_read_from_objects_too(tmp_path, monkeypatch):
    monkeypatch.setattr("arcforge.engine.arrays.COLUMN_CHUNK_ROWS", 16)
    values = np.random.default_rng(1).normal(size=40)
    for first in (0, 16):
        part = values[:16] if first == 0 else values[16:]
        files = encode_column("columns/x", 40, first, part)
        assert (f"columns/x/{METADATA_FILE}" in files) == (first == 0)
        for key, data in files.items():
            place(tmp_path / key, data)
    np.testing.assert_array_equal(read_column(tmp_path, "columns/x"), values)
    np.testing.assert_array_equal(_read_objects(tmp_path, "columns/x"), values)
    (tmp_path / "columns/x" / METADATA_FILE).write_text("{")
    with pytest.raises(StoreCorruptError, match="columns/x: is not a readable column"):
        read_column(tmp_path, "columns/x")
