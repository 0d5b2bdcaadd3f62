"""Commit records: a part of a store is there when its record is, and its files have the sizes it states.

``commits/hosts.json`` stands for the host arrays, ``commits/shard-00012.json`` for a shard of arcs with its
part of the catalogue. A record is written last, after every file it names is on the disk, so that its
existence is the proof. ``manifest.json`` gathers all files when the store is complete.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arcforge.engine import sealed
from arcforge.engine.durable import place, place_first, reached
from arcforge.engine.errors import StoreCorruptError, StoreError
from arcforge.engine.places import is_object
from arcforge.engine.plan import Plan

MANIFEST_FILE = "manifest.json"
HOSTS = "hosts"

_FEW_FILES, _PLACING_THREADS = 4, 8

_CHANGED = "has changed (its SHA-256 is not the committed one)"
_RECORD_REMEDY = "repeat the command that made the store with --resume"


@dataclass(frozen=True)
class FileRecord:
    """What a file was when it was written."""

    size: int  # bytes
    sha256: str

    @classmethod
    def of(cls, data: bytes | memoryview) -> FileRecord:
        """Return the record of a file with this content."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


Files = dict[str, FileRecord]  # by path relative to the store, with "/" between folders


def shard_name(shard: int) -> str:
    """Name of a shard's commit record."""
    return f"shard-{shard:05d}"


def commit_file(name: str) -> str:
    """Path of a commit record, relative to the store."""
    return f"commits/{name}.json"


def place_files(root: Path, files: dict[str, bytes | memoryview]) -> Files:
    """Place files under ``root`` durably and return their records.

    Many small files are placed by several threads: each waits for the disk three times or more.
    """

    def one(key: str) -> FileRecord:
        place(root / key, files[key])
        return FileRecord.of(files[key])

    if len(files) <= _FEW_FILES:
        return {key: one(key) for key in files}
    with ThreadPoolExecutor(_PLACING_THREADS, thread_name_prefix="arcforge-placing") as pool:
        return dict(zip(files, pool.map(one, files), strict=True))


def commit(root: Path, plan: Plan, name: str, files: Files, **facts: Any) -> None:
    """Write the record that makes a part count. Every file must be in place.

    Raises
    ------
    StoreError
        Where a writer of another plan has committed the part; object stores have no locks that keep it away.
    """
    reached("before commit")
    record = {"plan_sha256": plan.sha256, "part": name} | facts | {"files": _as_json(files)}
    path, data = root / commit_file(name), sealed.seal(record)
    if not place_first(path, data):
        _refuse_other_writer(path, plan)
        place(path, data)  # a damaged record, or one of files that were lost since
    reached("committed")


def _refuse_other_writer(path: Path, plan: Plan) -> None:
    try:
        found = sealed.read_sealed(path, _RECORD_REMEDY).get("plan_sha256")
    except StoreCorruptError:
        return
    if found != plan.sha256:
        raise StoreError(
            f"{path}: a run with another plan writes to the same place; let one of them end, "
            "and give the other a place of its own"
        )


def read_commit(root: Path, plan_sha256: str, name: str) -> dict[str, Any]:
    """Read one commit record, checked against the plan; the sizes of its files are not looked at.

    Raises
    ------
    StoreError, StoreCorruptError
        Where it is not there, damaged, or of another plan.
    """
    path = root / commit_file(name)
    record = sealed.read_sealed(path, _RECORD_REMEDY)
    if record.get("plan_sha256") != plan_sha256 or record.get("part") != name:
        raise StoreCorruptError(
            f"{path}: belongs to another plan or part; put back the right file or remove it"
        )
    return record


def files_of(record: dict[str, Any]) -> Files:
    """Return the files that a commit record or a manifest names."""
    return {key: FileRecord(**entry) for key, entry in record["files"].items()}


def is_done(root: Path, plan: Plan, name: str) -> bool:
    """Tell whether a part is committed and its files have the sizes that its record states."""
    try:
        files = files_of(read_commit(root, plan.sha256, name))
    except StoreError:
        return False
    return not any(size_fault(root, key, record) for key, record in files.items())


def size_fault(root: Path, key: str, record: FileRecord) -> str | None:
    """Return what is wrong with a file's presence or size, or None."""
    try:
        found = (root / key).stat().st_size
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None if found == record.size else f"has {found:,} bytes instead of {record.size:,}"


def hash_fault(root: Path, key: str, record: FileRecord) -> str | None:
    """Return what is wrong with a file's presence, size or content, or None."""
    if is_object(root):
        return _read(root, key, record)[1]
    fault = size_fault(root, key, record)
    if fault:
        return fault
    try:
        with open(root / key, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None if found == record.sha256 else _CHANGED


def _read(root: Path, key: str, record: FileRecord) -> tuple[bytes, str | None]:
    """Read a file, and return what is wrong with it."""
    try:
        data = (root / key).read_bytes()
    except FileNotFoundError:
        return b"", "is missing"
    except OSError as error:
        return b"", f"cannot be read ({error.strerror or error})"
    if len(data) != record.size:
        return data, f"has {len(data):,} bytes instead of {record.size:,}"
    return data, None if FileRecord.of(data) == record else _CHANGED


def read_committed(root: Path, key: str, record: FileRecord) -> bytes:
    """Read a whole file that must be as committed.

    Raises
    ------
    StoreCorruptError
        Where it is not.
    """
    data, fault = _read(root, key, record)
    if fault is not None:
        raise StoreCorruptError(corrupt_message(root, key, fault))
    return data


def corrupt_message(root: Path, key: str, fault: str) -> str:
    """Word an error about a file: what, where, and the way out."""
    return (
        f"{root}/{key} {fault}; restore it from a copy, or remove it and repeat the command that made the "
        "store with --resume"
    )


def write_manifest(root: Path, plan: Plan, files: Files) -> None:
    """Write the list of all files of a complete store, in the order of their names."""
    record = {"plan_sha256": plan.sha256, "files": _as_json(files)}
    place(root / MANIFEST_FILE, sealed.seal(record))


def read_manifest(root: Path) -> Files:
    """Read the list of all files of a complete store."""
    return files_of(sealed.read_sealed(root / MANIFEST_FILE, _RECORD_REMEDY))


def _as_json(files: Files) -> dict[str, dict[str, Any]]:
    return {key: asdict(files[key]) for key in sorted(files)}
