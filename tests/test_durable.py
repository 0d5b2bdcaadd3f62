"""Files and folders that are there as a whole or not at all: what others left, hold, or refuse to give."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from arcforge.engine import commits, durable
from arcforge.engine.commits import FileRecord, commit, hash_fault, read_committed, shard_name, size_fault
from arcforge.engine.durable import place_folder, place_large, write_lock
from arcforge.engine.errors import StoreCorruptError, StoreError


def half_written(target, error):
    with place_large(target) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_a_large_file_takes_its_place_when_its_writer_is_done(tmp_path):
    target = tmp_path / "new" / "table.fits"
    with place_large(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert os.listdir(target.parent) == ["table.fits"]


def test_a_large_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path):
    target = tmp_path / "table.fits"
    target.write_bytes(b"old")
    for error, said in (
        (OSError(errno.ENOSPC, "full"), "no space left"),
        (OSError(errno.EIO, "broken disk"), r"cannot be written \(broken disk\)"),
        (StoreError("another reason"), "^another reason$"),
    ):
        with pytest.raises(StoreError, match=said):
            half_written(target, error)
        assert target.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["table.fits"]


def test_a_folder_takes_the_place_of_another_only_where_it_may(tmp_path):
    def fill(folder):
        (folder / "new").write_bytes(b"1")

    target = tmp_path / "set"
    place_folder(target, fill)
    (target / "old").write_bytes(b"0")
    with pytest.raises(FileExistsError):
        place_folder(target, fill)
    assert sorted(os.listdir(target)) == ["new", "old"]
    place_folder(target, fill, replace=True)
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["set"]


def test_a_folder_below_a_file_cannot_be_created(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be created"):
        place_folder(tmp_path / "file" / "set", lambda folder: None)


def test_what_the_dead_left_beside_a_folder_goes_and_what_the_living_fill_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = f".set.{socket.gethostname()}"
    left = [f"{here}.{dead.pid}.new.tmp", f"{here}.{os.getpid()}.old.tmp"]
    others = [f"{here}.1.new.tmp", ".set.elsewhere.1.new.tmp", f"{here}.no-number.new.tmp"]
    for name in (*left, *others):
        (tmp_path / name).mkdir()
    place_folder(tmp_path / "set", lambda folder: None)
    assert sorted(os.listdir(tmp_path)) == sorted(["set", *others])


def test_a_process_of_another_user_is_alive(monkeypatch):
    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert durable._is_alive(1)


def test_a_file_system_without_locks_is_warned_of_and_written_to(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    entered = False
    with pytest.warns(RuntimeWarning, match="has no locks .*start each writer once"), write_lock(tmp_path):
        entered = True
    assert entered


def test_a_lock_of_a_store_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Its last holder removes lock files; who opened one before holds nothing and has to begin again."""
    real, folder = fcntl.flock, tmp_path / durable.LOCK_FOLDER
    seen = []

    def flock(handle, how):
        seen.append(handle)
        if len(seen) == 1:
            (folder / "store").unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with write_lock(tmp_path):
        assert len(seen) == 2
        assert durable._same_file(seen[1], folder / "store")


def test_a_lock_folder_that_goes_between_two_steps_is_made_again(tmp_path, monkeypatch):
    real, folder, seen = os.open, tmp_path / durable.LOCK_FOLDER, []

    def open_once_gone(path, *how, **more):
        if path == folder / "store":
            seen.append(path)
            if len(seen) == 1:
                folder.rmdir()
        return real(path, *how, **more)

    monkeypatch.setattr(os, "open", open_once_gone)
    with write_lock(tmp_path):
        assert len(seen) == 2
        assert (folder / "store").exists()


def test_what_stands_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "arcs").mkdir()
    (tmp_path / "file").write_bytes(b"")
    record = FileRecord((tmp_path / "arcs").stat().st_size, "0" * 64)
    assert hash_fault(tmp_path, "arcs", record) == "cannot be read (Is a directory)"
    assert size_fault(tmp_path, "file/arcs", record) == "cannot be read (Not a directory)"
    with pytest.raises(StoreCorruptError, match=r"arcs cannot be read \(Is a directory\); restore it"):
        read_committed(tmp_path, "arcs", record)


def test_a_part_that_another_plan_committed_first_is_left_to_it(generated, monkeypatch):
    """Object stores know no locks: the first record stands, unless it is damaged or of the same plan."""
    generated.begin()
    name = shard_name(1)
    other = replace(generated.plan, seed=4)
    commit(generated.root, other, name, {})
    monkeypatch.setattr(commits, "place_first", lambda path, data: False)
    with pytest.raises(StoreError, match="a run with another plan writes to the same place"):
        commit(generated.root, generated.plan, name, {})
    record = generated.root / commits.commit_file(name)
    record.write_bytes(record.read_bytes()[:-9])
    commit(generated.root, generated.plan, name, {})
    commit(generated.root, generated.plan, name, {})
    assert commits.read_commit(generated.root, generated.plan.sha256, name)["part"] == name


def _as_pages(data):
    pages = mmap.mmap(-1, len(data))
    pages[:] = data
    return memoryview(pages)


@pytest.mark.parametrize("beyond", [0, 1, durable.BLOCK_BYTES - 1])
@pytest.mark.parametrize("aligned", [True, False])
def test_what_is_large_is_written_whole_in_any_memory(tmp_path, beyond, aligned):
    data = os.urandom(durable._LARGE_BYTES + 3 * durable.BLOCK_BYTES + beyond)
    durable.place(tmp_path / "file", _as_pages(data) if aligned else memoryview(b"." + data)[1:])
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system writes through its page cache only")
def test_large_files_go_past_the_page_cache(tmp_path, monkeypatch):
    """Also in several writes, and after one that was cut short in the middle of a block."""
    data, write, ways = os.urandom(durable._LARGE_BYTES + 100), os.write, []

    def slow(handle, part):
        ways.append(bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT))
        return write(handle, part[: 1 << 18])

    monkeypatch.setattr(os, "write", slow)
    durable.place(tmp_path / "blocks", _as_pages(data))
    assert (tmp_path / "blocks").read_bytes() == data
    if True not in ways:
        pytest.skip("this file system knows no such writes")
    assert ways == [True] * 4 + [False]

    def cut(handle, part):
        direct = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT
        if direct and len(ways) > 6:
            raise OSError(errno.EINVAL, "not aligned")
        ways.append(bool(direct))
        return write(handle, part[: 1 << 18])

    monkeypatch.setattr(os, "write", cut)
    durable.place(tmp_path / "cut", _as_pages(data))
    assert (tmp_path / "cut").read_bytes() == data

    def refused(handle, part):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EIO, "broken disk")
        return write(handle, part)

    monkeypatch.setattr(os, "write", refused)
    with pytest.raises(StoreError, match=r"broken: cannot be written \(broken disk\)"):
        durable.place(tmp_path / "broken", _as_pages(data))
    assert sorted(os.listdir(tmp_path)) == ["blocks", "cut"]
