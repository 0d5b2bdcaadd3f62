"""Damage to a store: every kind is found, named, and never read as pixels in silence."""

from __future__ import annotations

import json
import os
import random
import shutil
import time

import numpy as np
import pytest

from arcforge.engine import open_store
from arcforge.engine.durable import place, write_lock
from arcforge.engine.errors import StoreCorruptError, StoreError
from arcforge.engine.verify import verify

SHARD = "arcs/c/1/0/0/0"
PART = "catalog/part-00001.parquet"


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def grow(path):
    path.write_bytes(path.read_bytes() + b"\0")


def repair(store):
    """What a resumed run does: shards that are not done are made again."""
    from arcforge.engine.commits import is_done, shard_name
    from arcforge.engine.writer import reopen

    reopen(store.root, store.plan)
    store.write([k for k in range(store.plan.n_shards) if not is_done(store.root, store.plan, shard_name(k))])
    store.finish()


@pytest.mark.parametrize("key", [SHARD, PART])
@pytest.mark.parametrize("damage", [truncate, remove, empty, grow])
def test_a_file_of_another_size_is_found_named_and_repaired(written, tree_hashes, key, damage):
    before = tree_hashes(written.root)
    damage(written.root / key)
    found = verify(written.root)
    assert len(found.faults) == 1
    assert f"{key} " in found.faults[0]
    store = open_store(written.root)
    with pytest.raises(StoreCorruptError, match=key):
        store.arcs(300) if key == SHARD else store.catalog
    np.testing.assert_array_equal(store.arcs(slice(0, 256)), written.arcs[:256])  # the rest still reads
    repair(written)
    assert tree_hashes(written.root) == before


@pytest.mark.parametrize("at", [0.0, 0.3, 0.9, 0.9999, 1.0])
def test_a_flipped_bit_in_a_shard_is_never_a_pixel(written, tree_hashes, at):
    before = tree_hashes(written.root)
    flip(written.root / SHARD, at)
    with pytest.raises(StoreCorruptError, match=r"arcs: rows .* cannot be decoded"):
        open_store(written.root).arcs(slice(256, 512))
    assert verify(written.root).sound  # sizes alone cannot tell
    found = verify(written.root, level="full")
    assert [SHARD in fault for fault in found.faults] == [True]
    (written.root / SHARD).unlink()
    repair(written)
    assert tree_hashes(written.root) == before


def test_every_flipped_bit_is_refused_or_harmless(written):
    """300 random bits of the arcs' shard: each read fails or gives the committed pixels."""
    path, rng = written.root / SHARD, random.Random(4)
    sound = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(sound)
        damaged[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read = open_store(written.root).arcs(slice(256, 512))
        except StoreCorruptError:
            continue
        np.testing.assert_array_equal(read, written.arcs[256:512])


def test_a_flipped_bit_in_host_pixels_is_found(written):
    flip(written.root / "hosts/pixels/c/0/0/0/0", 0.4)
    with pytest.raises(StoreCorruptError, match="hosts/pixels"):
        open_store(written.root).ctrls(0)
    assert "hosts/pixels/c/0/0/0/0" in verify(written.root, level="full").faults[0]


@pytest.mark.parametrize(
    "key", [PART, "hosts/host_id/c/0", "columns/theta_e_arcsec/c/0", "commits/shard-00001.json"]
)
def test_a_flipped_bit_anywhere_fails_the_full_check(written, key):
    flip(written.root / key)
    assert any(key in fault for fault in verify(written.root, level="full").faults)


def test_a_flipped_bit_in_the_catalogue_is_refused_on_read(written):
    flip(written.root / PART)
    store = open_store(written.root)
    with pytest.raises(StoreCorruptError, match=PART):
        _ = store.catalog
    with pytest.raises(StoreCorruptError, match=PART):
        store.ctrls(0)  # which host a row has stands in the catalogue
    flip(written.root / "hosts/host_id/c/0")
    with pytest.raises(StoreCorruptError, match="hosts/host_id"):
        _ = open_store(written.root).hosts


@pytest.mark.parametrize(
    "key", ["plan.json", "manifest.json", "arcs/zarr.json", "hosts/pixels/zarr.json", "zarr.json"]
)
@pytest.mark.parametrize("damage", [truncate, remove, flip])
def test_damaged_metadata_is_refused_on_opening(written, key, damage):
    damage(written.root / key)
    with pytest.raises(StoreError, match=key.replace(".", r"\.")):
        open_store(written.root)
    if key != "zarr.json" or damage is not remove:
        assert not verify(written.root).sound


def test_a_status_changed_by_hand_is_found(generated):
    """A store that somebody declared complete is not."""
    generated.begin()
    generated.write([0])
    path = generated.root / "zarr.json"
    path.write_text(path.read_text().replace('"writing"', '"complete"'))
    with pytest.raises(StoreError, match=r"manifest\.json: is missing"):
        open_store(generated.root)
    assert not verify(generated.root).sound


def test_a_lost_commit_is_found_and_its_shard_made_again(written, tree_hashes):
    before = tree_hashes(written.root)
    (written.root / "commits/shard-00002.json").unlink()
    assert "commits/shard-00002.json is missing" in verify(written.root).faults[0]
    repair(written)
    assert tree_hashes(written.root) == before


def test_a_commit_of_another_shard_or_plan_does_not_count(generated):
    from arcforge.engine.commits import is_done

    generated.begin()
    generated.write([0, 1])
    commits = generated.root / "commits"
    shutil.copy(commits / "shard-00000.json", commits / "shard-00002.json")
    assert not is_done(generated.root, generated.plan, "shard-00002")
    other = type(generated.plan)(**{**generated.plan.__dict__, "seed": 4})
    assert is_done(generated.root, generated.plan, "shard-00001")
    assert not is_done(generated.root, other, "shard-00001")


def test_an_uncommitted_shard_is_not_read(generated):
    """Its file is there as a whole, but the process was killed before it said so."""
    generated.begin()
    generated.write([0, 1])
    (generated.root / "commits/shard-00001.json").unlink()
    store = open_store(generated.root, allow_partial=True)
    assert len(store) == 256


def test_stale_temporaries_go_when_the_store_is_completed(generated, tree_hashes):
    generated.begin()
    generated.write()
    for name in ("arcs/c/0/0/0/0.99-1.tmp", "commits/x.1-2.tmp", "catalog/part-00000.parquet.5-5.tmp"):
        (generated.root / name).write_bytes(b"half")
    generated.finish()
    assert not [key for key in tree_hashes(generated.root) if key.endswith(".tmp")]


def test_strangers_are_noted_and_not_read(written):
    (written.root / "arcs/c/9").mkdir()
    (written.root / "arcs/c/9/note.txt").write_text("mine")
    found = verify(written.root, level="full")
    assert found.sound
    assert "note.txt: is not part of the store" in found.notes[0]


def test_a_sound_store_passes_every_level_of_the_check(written):
    for level in ("quick", "full"):
        found = verify(written.root, level=level)
        assert (found.sound, found.complete, found.n_rows, found.notes) == (True, True, 600, [])
        assert found.n_bytes > 0


def test_an_incomplete_store_is_checked_as_far_as_it_goes(generated):
    generated.begin()
    generated.write([0])
    found = verify(generated.root, level="full")
    assert (found.sound, found.complete, found.n_rows) == (True, False, 256)
    flip(generated.root / "arcs/c/0/0/0/0")
    assert not verify(generated.root, level="full").sound


def test_two_writers_exclude_each_other(generated):
    generated.begin()
    with write_lock(generated.root):
        for partition in (None, (0, 2)):
            with (
                pytest.raises(StoreError, match="another process is writing it"),
                write_lock(generated.root, partition),
            ):
                pass
        with pytest.raises(StoreError, match="another process is writing it"):
            generated.finish()
    with write_lock(generated.root):  # free again
        pass


def test_partitions_of_one_division_write_side_by_side(generated):
    root = generated.root
    generated.begin()
    with write_lock(root, (0, 2)), write_lock(root, (1, 2)):
        with pytest.raises(StoreError, match="partition 1/2"), write_lock(root, (1, 2)):
            pass
        with pytest.raises(StoreError, match=r"partition ./2"), write_lock(root, (0, 3)):
            pass
        with pytest.raises(StoreError, match="is writing it"), write_lock(root):
            pass
    with write_lock(root, (2, 3)):  # a division that nobody works at any more does not count
        pass


def test_a_lock_dies_with_its_process(generated):
    generated.begin()
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with write_lock(generated.root):
            os.write(tell, b"x")
            os.read(os.pipe()[0], 1)  # until killed
        os._exit(0)
    os.read(ready, 1)
    try:
        with pytest.raises(StoreError, match="another process"), write_lock(generated.root):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    with write_lock(generated.root):
        pass


@pytest.mark.parametrize(
    ("code", "message"), [("ENOSPC", "no space left.*--resume"), ("EIO", "cannot be written")]
)
def test_a_failing_disk_is_named_and_leaves_no_half_file(generated, monkeypatch, code, message):
    import errno

    generated.begin()
    number = getattr(errno, code)

    def fail(point):
        if point == "written":
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("arcforge.engine.durable.reached", fail)
    with pytest.raises(StoreError, match=message):
        generated.write()
    monkeypatch.undo()
    assert not list(generated.root.rglob("*.tmp"))
    assert len(open_store(generated.root, allow_partial=True)) == 0
    generated.write()
    generated.finish()
    assert verify(generated.root, level="full").sound


def test_a_failed_writer_takes_no_more_shards(generated, monkeypatch):
    """Rendering a million rows for a disk that was full at the first would be a night lost."""
    from arcforge.engine import writer

    generated.begin()

    def fail(*args):
        raise StoreError("no space left")

    def write_on():
        with writer.ShardWriter(generated.root, generated.plan) as out:
            out.put(0, generated.arcs[:256], generated.table(0))
            while out._failure is None:
                time.sleep(0.01)
            out.put(1, generated.arcs[256:512], generated.table(1))
            pytest.fail("a shard was taken after the failure")

    monkeypatch.setattr(writer, "write_shard", fail)
    with pytest.raises(StoreError, match="no space left"):
        write_on()


def test_place_replaces_a_file_as_a_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    place(path, b"one")
    place(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


def test_records_are_readable_json(written):
    record = json.loads((written.root / "commits/shard-00001.json").read_text())
    assert record["rows"] == [256, 512]
    assert record["files"][SHARD]["size"] == (written.root / SHARD).stat().st_size
    assert len(record["files"][SHARD]["sha256"]) == 64


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("plan.json", '"seed": 3', '"seed": 4'),
        ("commits/shard-00001.json", '"rows": [\n  256', '"rows": [\n  257'),
        ("manifest.json", '"arcs/c/0/0/0/0"', '"arcs/c/0/0/0/9"'),
    ],
)
def test_a_record_that_was_edited_does_not_count(generated, written, key, old, new):
    """Valid JSON, plausible values: only the record's own hash tells."""
    from arcforge.engine.sealed import read_sealed

    path = written.root / key
    text = path.read_text()
    read_sealed(path, "")
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(StoreCorruptError, match=r"has changed \(its own hash does not hold\); the way out"):
        read_sealed(path, "the way out")
