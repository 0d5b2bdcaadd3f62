"""Stores in an object store that is a dictionary: what is asked of one, and what its failures become.

The real library and a server over HTTP are looked at in tests/test_object_store.py, where they are installed.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from arcforge.engine import open_store, places
from arcforge.engine.durable import place_folder, remove_locks, temporaries, write_lock
from arcforge.engine.errors import ConfigError, StoreError, StoreExistsError
from arcforge.engine.inject import inject
from arcforge.engine.places import ObjectPath, as_place, read_range
from arcforge.engine.verify import verify

N = 300  # two shards
WHERE = "s3://sky/runs/S.zarr"


class AlreadyExistsError(Exception):
    pass


class NotSupportedError(Exception):
    pass


class Objects:
    """The library's functions, on a dictionary; ``every`` makes each so manieth call fail."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.calls = self.failed = self.every = 0
        self.cut = False
        self.conditional = True

    def _call(self) -> None:
        self.calls += 1
        if self.every and self.calls % self.every == 0:
            self.failed += 1
            raise ConnectionError("reset by\nthe server")

    def _content(self, key: str) -> bytes:
        self._call()
        if key not in self.held:
            raise FileNotFoundError(key)
        return self.held[key]

    def _given(self, data: bytes) -> bytes:
        return data[:-1] if self.cut and data else data

    def get(self, store, key):
        data = self._content(key)
        return SimpleNamespace(bytes=lambda: self._given(data), meta={"size": len(data)})

    def get_range(self, store, key, *, start, length):
        return self._given(self._content(key)[start : start + length])

    def head(self, store, key):
        return {"size": len(self._content(key))}

    def put(self, store, key, content, *, use_multipart, mode="overwrite"):
        self._call()
        if mode == "create" and not self.conditional:
            raise NotSupportedError
        if mode == "create" and key in self.held:
            raise AlreadyExistsError
        self.held[key] = content

    def delete(self, store, key):
        self._call()
        self.held.pop(key, None)

    def list(self, store, *, prefix):
        self._call()
        keys = sorted(key for key in self.held if key.startswith(prefix))
        return [[{"path": key} for key in keys[first : first + 3]] for first in range(0, len(keys), 3)]


@pytest.fixture
def objects(monkeypatch):
    held = Objects()
    library, stores, exceptions = (ModuleType(f"obstore{name}") for name in ("", ".store", ".exceptions"))
    for name in ("get", "get_range", "head", "put", "delete", "list"):
        setattr(library, name, getattr(held, name))
    stores.from_url = lambda bucket, **settings: bucket
    exceptions.AlreadyExistsError, exceptions.NotSupportedError = AlreadyExistsError, NotSupportedError
    for module in (library, stores, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(places, "_stores", {})
    monkeypatch.setattr(places, "_PAUSE_S", 0.0)
    return held


@pytest.fixture(scope="module")
def config(small_config):
    return replace(small_config, stamp_size=16)


@pytest.fixture(scope="module")
def local(tmp_path_factory, config):
    return inject(tmp_path_factory.mktemp("objects") / "S.zarr", config=config, n=N, seed=5)


def test_a_store_of_objects_has_the_bytes_of_one_of_files(objects, local, config):
    objects.every = 7
    remote = inject(WHERE, config=config, n=N, seed=5)
    assert objects.failed > 10
    on_disk = {
        p.relative_to(local.path).as_posix(): p.read_bytes() for p in local.path.rglob("*") if p.is_file()
    }
    assert {key.removeprefix("runs/S.zarr/"): data for key, data in objects.held.items()} == on_disk
    rows = [299, 0, 17, 256]
    np.testing.assert_array_equal(remote.stamps(rows), local.stamps(rows))
    assert str(remote.hosts.to_pydict()) == str(local.hosts.to_pydict())
    found = verify(WHERE, level="full")
    assert found.sound
    assert found.notes == []


def test_a_store_of_objects_is_gone_on_with_and_replaced(objects, local, config):
    inject(WHERE, config=config, n=N, seed=5)
    whole = dict(objects.held)
    with pytest.raises(StoreExistsError, match="go on with it by --resume"):
        inject(WHERE, config=config, n=N, seed=5)
    shard = as_place(WHERE) / "arcs/c/1/0/0/0"
    shard.unlink()
    assert any("is missing" in fault for fault in verify(WHERE, level="full").faults)
    inject(WHERE, config=config, n=N, seed=5, resume=True)
    assert objects.held == whole
    shard.put(shard.read_bytes()[:-1] + b"\0")
    assert any("has changed" in fault for fault in verify(WHERE, level="full").faults)
    inject(WHERE, config=config, n=20, seed=5, overwrite=True)
    assert len(open_store(WHERE)) == 20


def test_the_first_of_two_contents_stands_where_the_server_can_tell(objects):
    path = as_place("s3://sky/a/b")
    assert path.create(b"1")
    assert path.create(b"1")  # a request that was repeated
    assert not path.create(b"2")
    objects.conditional = False
    assert path.create(b"3")
    assert path.read_bytes() == b"3"


def test_answers_that_are_cut_off_are_not_taken(objects):
    path = as_place("s3://sky/a/b")
    path.put(b"0123456789")
    assert read_range(path, 2, 3) == b"234"
    assert read_range(path, -3, 2) == b"78"
    objects.cut = True
    for read in (path.read_bytes, lambda: read_range(path, 2, 3)):
        with pytest.raises(StoreError, match=r"fails time after time \(\d+ bytes came of \d+\)"):
            read()


def test_a_server_that_only_fails_is_named_in_one_line(objects):
    objects.every = 1
    with pytest.raises(StoreError, match=r"s3://sky/a/b: .*\(reset by the server\)$"):
        as_place("s3://sky/a/b").put(b"1")
    assert objects.failed == places._ATTEMPTS


def test_keys_behave_as_paths(objects):
    root = as_place("s3:/sky/a/")
    assert str(root) == repr(root) == root.__fspath__() == "s3://sky/a"
    below = root / "c/0"
    assert (below.name, str(below.parent), below.absolute()) == ("0", "s3://sky/a/c", below)
    assert below.relative_to(root).as_posix() == "c/0"
    assert root < below
    assert len({root, as_place("s3://sky/a"), below}) == 2
    assert pickle.loads(pickle.dumps(below)) == below
    assert as_place(below) is below
    assert not root.exists()
    below.put(b"1")
    assert root.exists()
    assert root.is_dir()
    assert below.is_file()
    assert not root.is_file()
    assert [str(each) for each in root.rglob("0")] == ["s3://sky/a/c/0"]
    with pytest.raises(ConfigError, match="names no object"):
        as_place("s3://sky")


def test_objects_need_no_locks_and_leave_nothing_half_written(objects):
    root = as_place("s3://sky/set")
    with write_lock(root), write_lock(root):
        pass
    remove_locks(root)
    assert temporaries(root) == []
    place_folder(root, lambda folder: (folder / "a").put(b"1"))
    with pytest.raises(FileExistsError):
        place_folder(root, lambda folder: (folder / "b").put(b"2"))
    place_folder(root, lambda folder: (folder / "b").put(b"2"), replace=True)
    assert objects.held == {"set/b": b"2"}


def test_without_the_library_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setattr(places, "_stores", {})
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError, match=r"s3://sky/a: needs obstore: pip install 'arcforge\[s3\]'"):
        _ = ObjectPath("s3://sky", "a")._store


def test_a_file_that_ends_too_early_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_range(tmp_path / "file", 8, 2) == b"89"
    with pytest.raises(OSError, match="ends after 10 bytes, where 12 are needed"):
        read_range(tmp_path / "file", 8, 4)
