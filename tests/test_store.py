"""Reading stores: rows by any index, the catalogue, partial stores, plain zarr."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import zarr

from arcforge.engine import open_store
from arcforge.engine.errors import StoreCorruptError, StoreError
from arcforge.engine.plan import read_plan, shard_shape
from arcforge.engine.verify import verify

INDEXES = {
    "all": slice(None),
    "range": slice(250, 270),
    "backwards": slice(520, 3, -37),
    "empty slice": slice(5, 5),
    "empty list": [],
    "one": 599,
    "negative": np.array([-1, -600]),
    "unsorted, repeated": np.array([513, 2, 2, 599, 0, 257, 2]),
    "mask": np.arange(600) % 97 == 5,
    "unsigned": np.array([1, 2], dtype=np.uint16),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_rows_are_picked_as_numpy_picks_them(written, index):
    store = open_store(written.root)
    rows = np.atleast_1d(np.arange(600)[index if len(np.shape(index)) == 0 or len(index) else slice(0)])
    picked = store.arcs(index)
    assert picked.dtype == np.float32
    assert picked.shape == (len(rows), 2, 8, 8)
    np.testing.assert_array_equal(picked, written.arcs[rows])
    np.testing.assert_array_equal(store.ctrls(index), written.hosts.pixels[written.host_index[rows]])
    rest = store.stamps(index) - store.ctrls(index) - store.arcs(index)
    assert not rest.view(np.uint32).any()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (np.array([0, 600]), "row 600 is out of range.*600 rows"),
        (np.array([-601]), "row -601 is out of range"),
        (np.array([1.0]), "float64"),
        (np.zeros((2, 2), int), "2-D"),
        (np.zeros(5, bool), "mask of 5 entries for 600 rows"),
    ],
)
def test_rows_that_are_not_there_are_refused(written, index, message):
    with pytest.raises(IndexError, match=message):
        open_store(written.root).arcs(index)


@pytest.mark.compiled
def test_a_store_describes_itself(written):
    store = open_store(str(written.root))
    assert (len(store), store.bands, store.pixscale_arcsec, store.stamp_size) == (600, "gr", 0.25, 8)
    assert store.path == written.root
    assert store.attrs["status"] == "complete"
    assert store.attrs["certificate"]["passed"]
    assert store.attrs["n_valid"] == 600
    assert store.attrs["seed"] == 3
    assert store.attrs["bands"] == "gr"
    assert "nanomaggies" in store.attrs["units"]["pixels"]
    assert read_plan(written.root) == written.plan
    assert store.hosts.column("host_id").to_pylist() == [f"host-{i}" for i in range(5)]


def test_the_catalogue_comes_back_in_row_order(written):
    import pyarrow as pa

    expected = pa.concat_tables([written.table(shard) for shard in range(3)])
    catalog = open_store(written.root).catalog
    assert catalog.schema == expected.schema
    for name in expected.column_names:  # NaN is not equal to itself, as text it is
        assert list(map(str, catalog.column(name).to_pylist())) == list(
            map(str, expected.column(name).to_pylist())
        )


def test_plain_zarr_reads_everything(written):
    """Warnings are errors here: a listing must not stumble over what is not zarr either."""
    group = zarr.open(str(written.root), mode="r")
    assert dict(group.members()).keys() == {"arcs", "columns", "hosts"}
    control = group["hosts/pixels"][:][group["columns/host_index"][:]]
    np.testing.assert_array_equal(group["arcs"][:], written.arcs)
    np.testing.assert_array_equal(control, written.hosts.pixels[written.host_index])
    assert group["arcs"].metadata.dimension_names == ("row", "band", "y", "x")
    assert np.isnan(group["arcs"].fill_value)
    assert group["columns/lens_model"][:3].tolist() == ["CONTROL", "SIE", "SIE"]
    np.testing.assert_array_equal(group["columns/seen"][:], np.arange(600) % 2 == 0)
    assert np.isnan(group["columns/theta_e_arcsec"][0])
    # nulls that are not floating point, and a name that is no folder name: told, not dropped in silence
    assert group["columns"].attrs["parquet_only"] == ["note/ü"]


def test_pandas_style_readers_find_the_catalogue_as_parquet(written):
    import pyarrow.parquet as pq

    assert pq.read_table(written.root / "catalog").num_rows == 600


def test_hosts_too_many_to_keep_are_read_when_needed(written, monkeypatch):
    monkeypatch.setattr("arcforge.engine.store._KEPT_HOST_BYTES", 0)
    rows = np.array([5, 599, 5, 0])
    expected = written.hosts.pixels[written.host_index[rows]]
    np.testing.assert_array_equal(open_store(written.root).ctrls(rows), expected)


def test_an_incomplete_store_is_refused_unless_asked_for(generated):
    generated.begin()
    generated.write([0, 2])
    with pytest.raises(StoreError, match=r"incomplete, 2 of 3 shards.*--resume"):
        open_store(generated.root)
    with pytest.raises(StoreError, match=r"1 of 3 shards are not committed \(1\)"):
        generated.finish()
    partial = open_store(generated.root, allow_partial=True)
    rows = np.r_[0:256, 512:600]
    np.testing.assert_array_equal(partial.rows, rows)
    assert len(partial) == partial.catalog.num_rows == len(rows)
    np.testing.assert_array_equal(partial.arcs([0, -1, 256]), generated.arcs[[0, 599, 512]])
    np.testing.assert_array_equal(partial.catalog.column("row_id").to_numpy(), rows)


def test_a_store_with_nothing_committed_opens_empty(generated):
    generated.begin()
    store = open_store(generated.root, allow_partial=True)
    assert len(store) == 0
    assert store.arcs(slice(None)).shape == (0, 2, 8, 8)
    with pytest.raises(StoreError, match="no shard is committed"):
        _ = store.catalog


@pytest.mark.parametrize("shards", [[2, 0, 1], [1, 2, 0]])
def test_order_and_repetition_do_not_change_a_byte(written, tmp_path, tree_hashes, shards):
    other = type(written)(
        tmp_path / "other.zarr", written.plan, written.hosts, written.host_index, written.arcs
    )
    other.begin()
    other.write(shards)
    other.write(shards[:1])  # done twice
    other.finish()
    other.finish()
    assert tree_hashes(other.root) == tree_hashes(written.root)


def test_another_process_writes_the_same_bytes(written, tmp_path, tree_hashes):
    """Nothing of a process (hash seeds, dictionary order, threads, clock) gets into the files."""
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import conftest\n"
        "store = conftest.generate(pathlib.Path(sys.argv[2])); store.begin(); store.write(); store.finish()\n"
    )
    root = tmp_path / "elsewhere" / "S.zarr"
    subprocess.run([sys.executable, "-c", script, str(__file__).rpartition("/")[0], str(root)], check=True)
    assert tree_hashes(root) == tree_hashes(written.root)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no such store"):
        open_store(tmp_path / "absent.zarr")
    with pytest.raises(StoreError, match="holds no store"):
        open_store(tmp_path)
    zarr.create_group(tmp_path / "other.zarr", attributes={"schema": "else"})
    with pytest.raises(StoreError, match="no arcforge store"):
        open_store(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="no such store"):
        verify(tmp_path / "absent.zarr")


def test_another_format_version_is_refused(written):
    path = written.root / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["format_version"] = 2
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="format 2, this version reads 1"):
        open_store(written.root)


def test_a_changed_plan_is_named_with_both_values(written):
    import dataclasses

    plan = written.plan
    for change, message in [
        ({"seed": 4}, "seed = 3, not 4"),
        ({"config": "rtol = 0.01\n"}, "config = 'rtol = 0.001', not 'rtol = 0.01'"),
        ({"render": plan.render | {"rtol": 0.01}}, "render rtol = 0.001, not 0.01"),
        ({"software": {"python": "3", "zarr": "9"}}, "software zarr = None, not '9'"),
    ]:
        with pytest.raises(StoreError, match=message):
            dataclasses.replace(plan, **change).refuse_other(plan, written.root)
    plan.refuse_other(read_plan(written.root), written.root)


def test_errors_are_one_line_with_a_way_out(written):
    (written.root / "arcs/c/1/0/0/0").unlink()
    with pytest.raises(StoreCorruptError) as caught:
        open_store(written.root).arcs(slice(None))
    assert "\n" not in str(caught.value)
    assert "arcs/c/1/0/0/0 is missing; restore it from a copy, or remove it and repeat" in str(caught.value)


@pytest.mark.parametrize(
    ("n_rows", "stamp_size", "chunk_rows", "shard_rows"),
    [
        (1_000_000, 64, 16, 1024),
        (16_384, 64, 16, 256),
        (16_385, 64, 16, 1024),
        (1_000_000, 101, 8, 512),
        (1_000_000, 1024, 1, 4),
        (10, 4096, 1, 1),
    ],
)
def test_a_shard_fits_into_memory_whatever_the_stamp(n_rows, stamp_size, chunk_rows, shard_rows):
    row_bytes = 3 * 4 * stamp_size**2
    assert shard_shape(n_rows, row_bytes) == (chunk_rows, shard_rows)
    assert shard_rows == 1 or shard_rows * row_bytes <= 64 << 20


def test_an_opened_store_goes_to_another_process(written):
    store = open_store(written.root)
    first = store.stamps(slice(0, 3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).stamps(slice(0, 3)), first)
