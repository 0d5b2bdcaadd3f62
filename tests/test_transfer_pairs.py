"""Import and export: pixels and columns survive both ways, and bad rows are refused one by one."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from arcforge.cli import app as app_module
from arcforge.engine import open_store
from arcforge.engine.auditing.sources import open_pairs
from arcforge.engine.blobs import decode_cutout
from arcforge.engine.errors import ConfigError, ImportSourceError, StoreError, StoreExistsError
from arcforge.engine.exports import FORMATS, export_store
from arcforge.engine.imports import import_pairs, read_mapping
from arcforge.engine.inject import inject
from arcforge.engine.verify import verify

LIMIT = 1 << 26
N, SIZE = 300, 12  # two shards
EVERYTHING = slice(None)


def packed(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def by_band(cube: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(("image_g", "image_r"), cube, strict=True))


@pytest.fixture(scope="module")
def pairs() -> dict[str, np.ndarray]:
    """Stamps that are not control + arc in float32: added in float64, with signs of every kind."""
    rng = np.random.default_rng(11)
    hosts = rng.normal(0.0, 0.01, (7, 2, SIZE, SIZE))
    index = rng.integers(0, 7, N)
    index[:7] = np.arange(7)[::-1]
    controls = hosts.astype(np.float32)[index]
    stamps = (hosts[index] + rng.normal(0.0, 0.01, (N, 2, SIZE, SIZE))).astype(np.float32)
    stamps[5, 0, 0, :4] = [-0.0, 0.0, 1e-40, 3.0]
    controls[5, 0, 0, :4] = [0.0, -0.0, 1.0, 1e-30]
    return {"stamps": stamps, "controls": controls}


def write(path, stamps, controls, **columns) -> None:
    table = {
        "task_id": [f"t{k}" for k in range(len(stamps))],
        "lens_model": pa.array(["SIE" if k % 3 else None for k in range(len(stamps))]),
        "is_control": pa.array(np.arange(len(stamps)) % 2, type=pa.int8()),
        "theta_e_arcsec": pa.array(np.linspace(0.5, 2, len(stamps)), type=pa.float32()),
        "pixscale_arcsec": np.full(len(stamps), 0.262),
        "stamp_npz": [s if isinstance(s, bytes) or s is None else packed(**by_band(s)) for s in stamps],
        "ctrl_stamp_npz": [c if isinstance(c, bytes) else packed(**by_band(c)) for c in controls],
    }
    pq.write_table(pa.table(table | columns), path, row_group_size=100)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write(path, pairs["stamps"], pairs["controls"])
    return path


@pytest.fixture(scope="module")
def imported(parquet):
    return import_pairs(parquet, parquet.parent / "S.zarr")[0]


def bits(images: np.ndarray) -> np.ndarray:
    return images.view(np.uint32)


def parameters(path) -> pa.Table:
    return pq.read_table(path).drop_columns(["stamp_npz", "ctrl_stamp_npz"]).replace_schema_metadata(None)


def test_pixels_and_columns_are_imported_bit_for_bit(imported, parquet, pairs):
    np.testing.assert_array_equal(bits(imported.stamps(EVERYTHING)), bits(pairs["stamps"]))
    np.testing.assert_array_equal(bits(imported.ctrls(EVERYTHING)), bits(pairs["controls"]))
    some = np.array([299, 5, 5, 0, 256])
    np.testing.assert_array_equal(bits(imported.stamps(some)), bits(pairs["stamps"][some]))
    given = parameters(parquet)
    assert imported.catalog.select(given.column_names).equals(given)
    np.testing.assert_array_equal(imported.catalog.column("import_row").to_numpy(), np.arange(N))
    rest = imported.stamps(EVERYTHING) - imported.ctrls(EVERYTHING) - imported.arcs(EVERYTHING)
    assert not rest.any()


def test_stamps_that_are_no_float32_sum_need_their_corrections(imported, pairs):
    """Without the list some pixels are off by a rounding, so that the test above can fail."""
    sums = imported.ctrls(EVERYTHING) + imported.arcs(EVERYTHING)
    assert (bits(sums) != bits(pairs["stamps"])).any()
    assert any(key.startswith("corrections/") for key in imported.files)


def test_equal_controls_are_stored_once(imported, pairs):
    assert imported.plan.n_hosts == 8  # seven, and the one that was changed in a few pixels
    index = imported.catalog.column("host_index").to_numpy()
    np.testing.assert_array_equal(imported.catalog.column("host_rows").to_numpy(), np.bincount(index)[index])


def test_an_imported_store_verifies_without_being_rendered(imported):
    found = verify(imported.path, level="deep")
    assert found.sound
    assert found.complete
    assert found.n_rendered == 0


def test_a_changed_correction_is_found(imported, tmp_path):
    import shutil

    copy = tmp_path / "S.zarr"
    shutil.copytree(imported.path, copy)
    key = next(key for key in imported.files if key.startswith("corrections/"))
    damaged = bytearray((copy / key).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (copy / key).write_bytes(damaged)
    assert any(key in fault for fault in verify(copy, level="full").faults)
    with pytest.raises(StoreError, match="corrections"):
        open_store(copy).stamps(EVERYTHING)


@pytest.mark.parametrize("format", FORMATS)
def test_every_export_comes_back_bit_for_bit(imported, tmp_path, format):
    out = tmp_path / ("pairs.parquet" if format == "parquet" else "pairs")
    export_store(imported, out, format=format)
    back, refused = import_pairs(out, tmp_path / "B.zarr")
    assert refused == []
    np.testing.assert_array_equal(bits(back.stamps(EVERYTHING)), bits(imported.stamps(EVERYTHING)))
    np.testing.assert_array_equal(bits(back.ctrls(EVERYTHING)), bits(imported.ctrls(EVERYTHING)))
    assert back.catalog.select(imported.catalog.column_names).equals(imported.catalog)


def test_the_users_parquet_comes_back_as_it_was(imported, parquet, tmp_path, pairs):
    export_store(imported, tmp_path / "again.parquet")
    assert parameters(tmp_path / "again.parquet").equals(parameters(parquet))
    blob = pq.read_table(tmp_path / "again.parquet").column("stamp_npz")[7].as_py()
    images = decode_cutout(blob, LIMIT)
    assert images.keys() == {"g", "r"}
    np.testing.assert_array_equal(images["r"], pairs["stamps"][7, 1])


@pytest.fixture(scope="module")
def injected(tmp_path_factory, small_config):
    config = replace(small_config, synthetic_host_count=5)
    return inject(tmp_path_factory.mktemp("injected") / "S.zarr", config=config, n=280, seed=9)


def test_an_injected_store_exports_and_comes_back(injected, tmp_path):
    export_store(injected, tmp_path / "p", partition_by="split")
    folders = {path.name for path in (tmp_path / "p").iterdir()}
    assert folders == {f"split={name}" for name in injected.catalog.column("split").unique().to_pylist()}
    back, _ = import_pairs(tmp_path / "p", tmp_path / "B.zarr")
    order = np.argsort(back.catalog.column("row_id").to_numpy())
    np.testing.assert_array_equal(bits(back.stamps(order)), bits(injected.stamps(EVERYTHING)))
    np.testing.assert_array_equal(bits(back.arcs(order)), bits(injected.arcs(EVERYTHING)))
    ordered = back.catalog.take(order)
    for name in injected.catalog.column_names:  # NaN is not equal to itself, as text it is
        assert str(ordered.column(name).to_pylist()) == str(injected.catalog.column(name).to_pylist()), name
    assert not any(key.startswith("corrections/") for key in back.files)


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a blob was unpickled",))


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[Trap()]], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def damaged(cube: np.ndarray) -> bytes:
    blob = bytearray(packed(**by_band(cube)))
    blob[120:140] = bytes(20)
    return bytes(blob)


BAD = {
    "not a zip": (lambda cube: b"not a zip", "not a readable npz"),
    "null": (lambda cube: None, "null"),
    "empty": (lambda cube: b"", "not a readable npz"),
    "wrong keys": (lambda cube: packed(img=cube[0]), "no array image_"),
    "one band": (lambda cube: packed(image_r=np.zeros((SIZE, SIZE), np.float32)), "bands r where"),
    "objects": (lambda cube: zipped(image_g=objects(), image_r=objects()), "nothing pickled"),
    "pickle": (lambda cube: pickle.dumps(Trap()), "not a readable npz"),
    "bomb": (lambda cube: zipped(image_g=bytes(100 << 20)), "unpacks to 104857600 bytes"),
    "shape": (lambda cube: packed(**by_band(cube[:, :8, :8])), "its stamp is"),
    "three axes": (lambda cube: packed(image_g=cube, image_r=cube), "2-D"),
    "damaged": (damaged, "not a readable npz"),
    "truncated": (lambda cube: packed(**by_band(cube))[:-40], "not a readable npz"),
    "NaN": (lambda cube: packed(**by_band(np.where(cube > 0.02, np.nan, cube))), "not finite"),
    "float64": (lambda cube: packed(**by_band(cube.astype(np.float64) + 1e-12)), "more digits than float32"),
    "integers": (lambda cube: packed(**by_band((cube * 100).astype(np.int32))), "floats"),
}


def test_bad_rows_are_refused_by_number_and_the_rest_imported(pairs, tmp_path):
    rows = dict(zip(range(2, 200, 7), BAD, strict=False))
    stamps = list(pairs["stamps"][:200])
    for row, name in rows.items():
        stamps[row] = BAD[name][0](pairs["stamps"][row])
    write(tmp_path / "p.parquet", stamps, pairs["controls"][:200])
    store, refused = import_pairs(tmp_path / "p.parquet", tmp_path / "S.zarr")
    assert {entry.row: BAD[rows[entry.row]][1] in entry.reason for entry in refused} == dict.fromkeys(
        rows, True
    )
    good = np.setdiff1d(np.arange(200), list(rows))
    np.testing.assert_array_equal(store.catalog.column("import_row").to_numpy(), good)
    np.testing.assert_array_equal(bits(store.stamps(EVERYTHING)), bits(pairs["stamps"][good]))
    listed = json.loads((store.path / "refused.json").read_text())
    assert [entry["row"] for entry in listed] == list(rows)
    assert verify(store.path, level="deep").sound


def test_the_command_lists_refused_rows(pairs, tmp_path):
    stamps = list(pairs["stamps"][:40])
    stamps[3] = b"nonsense"
    write(tmp_path / "p.parquet", stamps, pairs["controls"][:40])
    run = CliRunner().invoke(
        app_module.app, ["import", str(tmp_path / "p.parquet"), "--out", str(tmp_path / "S.zarr")]
    )
    assert run.exit_code == 0, run.output
    assert "row 3 refused: stamp_npz: not a readable npz archive" in run.stderr
    assert "39 rows" in run.stdout
    assert "1 row refused" in run.stdout
    out = CliRunner().invoke(
        app_module.app,
        ["export", str(tmp_path / "S.zarr"), "--format", "npy", "--out", str(tmp_path / "npy")],
    )
    assert out.exit_code == 0, out.output
    assert np.load(tmp_path / "npy" / "stamps.npy", mmap_mode="r").shape == (39, 2, SIZE, SIZE)


def test_a_control_of_another_size_is_refused(pairs, tmp_path):
    controls = list(pairs["controls"][:5])
    controls[2] = packed(**by_band(controls[2][:, 1:, 1:]))
    write(tmp_path / "p.parquet", pairs["stamps"][:5], controls)
    _, refused = import_pairs(tmp_path / "p.parquet", tmp_path / "S.zarr")
    assert [(entry.row, "its control" in entry.reason) for entry in refused] == [(2, True)]


def test_a_source_without_a_good_row_makes_no_store(tmp_path):
    write(tmp_path / "p.parquet", [b"x", b"y"], [b"x", b"y"])
    with pytest.raises(ImportSourceError, match="no stamp can be read"):
        import_pairs(tmp_path / "p.parquet", tmp_path / "S.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.parquet"]


def test_a_stopped_import_goes_on_to_the_same_bytes(parquet, imported, tmp_path, monkeypatch, tree_hashes):
    from arcforge.engine import writer

    real, calls = writer.write_shard, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise StoreError("stopped")
        real(*arguments)

    monkeypatch.setattr(writer, "write_shard", stop)
    with pytest.raises(StoreError, match="stopped"):
        import_pairs(parquet, tmp_path / "S.zarr")
    monkeypatch.undo()
    with pytest.raises(StoreExistsError, match="--resume"):
        import_pairs(parquet, tmp_path / "S.zarr")
    import_pairs(parquet, tmp_path / "S.zarr", resume=True)
    assert tree_hashes(tmp_path / "S.zarr") == tree_hashes(imported.path)


def test_another_source_is_not_mixed_in(pairs, tmp_path):
    write(tmp_path / "p.parquet", pairs["stamps"][:20], pairs["controls"][:20])
    import_pairs(tmp_path / "p.parquet", tmp_path / "S.zarr")
    write(tmp_path / "p.parquet", pairs["stamps"][1:21], pairs["controls"][1:21])
    with pytest.raises(StoreError, match="was begun with"):
        import_pairs(tmp_path / "p.parquet", tmp_path / "S.zarr", resume=True)


def test_names_and_constants_are_mapped(pairs, tmp_path):
    write(tmp_path / "p.parquet", pairs["stamps"][:4], pairs["controls"][:4])
    table = pq.read_table(tmp_path / "p.parquet").drop_columns(["pixscale_arcsec"])
    table = table.rename_columns({"theta_e_arcsec": "thetaE", "stamp_npz": "pos", "ctrl_stamp_npz": "neg"})
    pq.write_table(table, tmp_path / "p.parquet")
    (tmp_path / "map.toml").write_text(
        'pixscale_arcsec = 0.2\nbands = "rg"\nstamp_column = "pos"\ncontrol_column = "neg"\n'
        '[columns]\ntheta_e_arcsec = "thetaE"\n[values]\npsf_model = "moffat"\n'
    )
    mapping = read_mapping(tmp_path / "map.toml")
    store, _ = import_pairs(tmp_path / "p.parquet", tmp_path / "S.zarr", mapping=mapping)
    assert (store.pixscale_arcsec, store.bands) == (0.2, "rg")
    np.testing.assert_array_equal(store.stamps(EVERYTHING), pairs["stamps"][:4, ::-1])
    assert "theta_e_arcsec" in store.catalog.column_names
    assert store.catalog.column("psf_model").to_pylist() == ["moffat"] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pixscale = 1", "'pixscale' is unknown"),
        ("= 3", "cannot be read as TOML"),
        ("[values]\nseen = 9223372036854775808", "values.seen is 9223372036854775808; a column"),
    ],
)
def test_a_bad_map_is_refused(tmp_path, text, message):
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mapping(tmp_path / "map.toml")


def test_what_cannot_be_imported_is_named(tmp_path, pairs):
    with pytest.raises(ImportSourceError, match="does not exist"):
        import_pairs(tmp_path / "nothing", tmp_path / "S.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportSourceError, match="no npz or FITS files"):
        import_pairs(tmp_path / "empty", tmp_path / "S.zarr")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ImportSourceError, match="no column ctrl_stamp_npz, stamp_npz"):
        import_pairs(tmp_path / "a.parquet", tmp_path / "S.zarr")
    write(tmp_path / "p.parquet", pairs["stamps"][:2], pairs["controls"][:2])
    table = pq.read_table(tmp_path / "p.parquet").drop_columns(["pixscale_arcsec"])
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(ImportSourceError, match=r"pixel scale.*--map"):
        import_pairs(tmp_path / "p.parquet", tmp_path / "S.zarr")


def test_exports_do_not_overwrite_unasked(imported, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(StoreExistsError, match="--overwrite"):
        export_store(imported, tmp_path / "out", format="npy")
    with pytest.raises(StoreExistsError, match="holds the store"):
        export_store(imported, imported.path, format="npy", overwrite=True)
    with pytest.raises(ConfigError, match="partition_by is for parquet"):
        export_store(imported, tmp_path / "x", format="npz", partition_by="task_id")
    with pytest.raises(ConfigError, match="no column 'region'"):
        export_store(imported, tmp_path / "x", partition_by="region")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_single_cutouts_become_rows_without_arcs(tmp_path, pairs):
    for k in (2, 10, 1):
        cutout = np.moveaxis(pairs["controls"][k], 0, 2)
        np.savez(
            tmp_path / f"c{k}.npz", cutout=cutout, meta_bands="gr", meta_pixel_scale=0.262, meta_z=0.1 * k
        )
    store, refused = import_pairs(tmp_path, tmp_path.parent / f"{tmp_path.name}.zarr")
    assert refused == []
    np.testing.assert_array_equal(store.stamps(EVERYTHING), pairs["controls"][[1, 2, 10]])
    assert not store.arcs(EVERYTHING).any()
    catalog = store.catalog
    assert catalog.column("lens_model").to_pylist() == ["CONTROL"] * 3
    assert catalog.column("host_id").to_pylist() == ["c1", "c2", "c10"]
    np.testing.assert_allclose(catalog.column("z").to_numpy(), [0.1, 0.2, 1.0])


def test_public_cutouts_are_imported(survey_data, tmp_path):
    lenses, refused = import_pairs(survey_data / "lenses" / "ls_dr10_tierB", tmp_path / "L.zarr")
    assert (len(lenses), lenses.bands, lenses.stamp_size, refused) == (6, "grz", 101, [])
    with np.load(survey_data / "lenses" / "ls_dr10_tierB" / "0001m040_4091.npz") as original:
        row = lenses.catalog.column("galaxy_id").to_pylist().index("0001m040_4091")
        np.testing.assert_array_equal(lenses.ctrls([row])[0], np.moveaxis(original["cutout"], 2, 0))
    hosts, refused = import_pairs(survey_data / "hosts" / "des46", tmp_path / "H.zarr")
    assert (len(hosts), hosts.plan.n_hosts, refused) == (46, 46, [])
    assert hosts.pixscale_arcsec == pytest.approx(0.263)


def test_the_audit_sees_the_same_pairs_in_a_store(survey_data, tmp_path):
    source = survey_data / "pairs" / "pairs_psf_2355.parquet"
    store, _ = import_pairs(source, tmp_path / "S.zarr")
    rows = np.arange(0, 114, 20)
    batches = [next(open_pairs(what, LIMIT).batches(rows, 16)) for what in (source, store.path)]
    np.testing.assert_array_equal(bits(batches[0].stamps), bits(batches[1].stamps))
    np.testing.assert_array_equal(bits(batches[0].controls), bits(batches[1].controls))
    assert not open_pairs(store, LIMIT).is_rendered  # nothing to repeat bit for bit
