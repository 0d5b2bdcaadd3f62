"""Is a store what was committed? Three levels, each holding the one before.

``quick``
    Every file is there with its size; metadata, plan and manifest have their hashes.
``full``
    Every file has its SHA-256.
``deep``
    Every shard decodes, is finite and pairs exactly; the columns equal the catalogue; rows rendered again
    from their recorded parameters are the stored arcs bit for bit (not of imported pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcforge.engine import provenance
from arcforge.engine.arrays import METADATA_FILE, read_attributes, read_column
from arcforge.engine.commits import MANIFEST_FILE, corrupt_message, hash_fault, shard_name, size_fault
from arcforge.engine.durable import LOCK_FOLDER
from arcforge.engine.errors import ArcforgeError, ConfigError, StoreCorruptError
from arcforge.engine.places import as_place
from arcforge.engine.plan import PLAN_FILE
from arcforge.engine.replay import difference, replay
from arcforge.engine.store import Store, open_store
from arcforge.engine.store_status import COMPLETE, read_group_attributes

LEVELS = ("quick", "full", "deep")
RENDERED_ROWS = 64

Progress = Callable[[int, int], None]


@dataclass
class Verification:
    """What was looked at and what was found."""

    level: str
    complete: bool  #: False: a run is under way or was stopped
    n_rows: int = 0  #: rows that are committed
    n_files: int = 0
    n_bytes: int = 0
    n_rendered: int = 0  #: rows that were rendered again
    faults: list[str] = field(default_factory=list)  #: one line each: what, where, the way out
    notes: list[str] = field(default_factory=list)  #: what is unusual but harms no pixel

    @property
    def sound(self) -> bool:
        """Nothing that is committed has changed."""
        return not self.faults


def verify(
    path: str | Path,
    *,
    level: str = "quick",
    rendered_rows: int = RENDERED_ROWS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare a store with what was committed.

    Parameters
    ----------
    path
        The store's folder. Of a store that is not complete, the committed part is looked at.
    level
        One of ``LEVELS``.
    rendered_rows
        Rows that ``deep`` renders again, spread evenly over the store.
    threads
        Threads that render them.
    progress
        Called with (bytes looked at, bytes in all).

    Raises
    ------
    StoreError
        Where there is no store.
    ConfigError
        For an unknown level.
    """
    if level not in LEVELS:
        raise ConfigError(f"level {level!r} is unknown; use one of {', '.join(LEVELS)}")
    root = as_place(path)
    found = Verification(level, complete=True)
    try:
        found.complete = read_group_attributes(root)["status"] == COMPLETE
        store = open_store(root, allow_partial=True)
    except StoreCorruptError as error:
        found.faults.append(str(error))
        return found
    found.n_rows = len(store)
    _check_files(store, found, progress)
    _note_strangers(store, found)
    if found.complete and store.attrs.get("plan_sha256") != store.plan.sha256:
        found.faults.append(corrupt_message(root, METADATA_FILE, f"belongs to another plan than {PLAN_FILE}"))
    if level == "deep" and found.sound:
        for look in (_faults_of_shards, _faults_of_hosts, _faults_of_columns):
            found.faults += look(store)
        if found.sound and len(store) and not store.is_imported:
            _render_again(store, found, rendered_rows, threads)
    return found


def _check_files(store: Store, found: Verification, progress: Progress | None) -> None:
    fault_of = size_fault if found.level == "quick" else hash_fault
    total = sum(record.size for record in store.files.values())
    for key, record in store.files.items():
        fault = fault_of(store.path, key, record)
        if fault:
            found.faults.append(corrupt_message(store.path, key, fault))
        found.n_files += 1
        found.n_bytes += record.size
        if progress is not None:
            progress(found.n_bytes, total)


def _note_strangers(store: Store, found: Verification) -> None:
    """Note files that no record names: they are never read, but somebody put them there."""
    if not found.complete:
        return
    known = store.files.keys() | {MANIFEST_FILE, METADATA_FILE}
    for path in sorted(store.path.rglob("*")):
        key = path.relative_to(store.path).as_posix()
        if path.is_file() and key not in known and not key.startswith(f"{LOCK_FOLDER}/"):
            found.notes.append(f"{path}: is not part of the store, and not read")


def _blocks(store: Store) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield every committed shard with the places of its rows in the opened store."""
    shards = store.rows // store.plan.shard_rows
    for shard in np.unique(shards):
        yield int(shard), np.flatnonzero(shards == shard)


def _faults_of_shards(store: Store) -> Iterator[str]:
    for shard, rows in _blocks(store):
        name = f"{store.path}: {shard_name(shard)}"
        try:
            arcs, controls, stamps = store.arcs(rows), store.ctrls(rows), store.stamps(rows)
        except ArcforgeError as error:
            yield str(error)
            continue
        bad = ~np.isfinite(arcs).all(axis=(1, 2, 3))
        if bad.any():
            row = store.rows[rows[bad][0]]
            yield f"{name}: row {row} has pixels that are not finite; make the shard again"
        with np.errstate(invalid="ignore", over="ignore"):
            rest = (stamps - controls) - arcs
        unpaired = ~bad & (rest.view(np.uint32) != 0).any(axis=(1, 2, 3))
        if unpaired.any():
            row = store.rows[rows[unpaired][0]]
            yield f"{name}: stamp - control - arc of row {row} is not zero; make the shard again"


def _faults_of_hosts(store: Store) -> Iterator[str]:
    for first in range(0, store.plan.n_hosts, store.plan.shard_rows):
        numbers = np.arange(first, min(first + store.plan.shard_rows, store.plan.n_hosts))
        try:
            bad = ~np.isfinite(store.host_pixels(numbers)).all(axis=(1, 2, 3))
        except ArcforgeError as error:
            yield str(error)
            return
        if bad.any():
            yield f"{store.path}: host {numbers[bad][0]} has pixels that are not finite; make the store again"


def _faults_of_columns(store: Store) -> Iterator[str]:
    """Compare the 1-D arrays with the parquet parts that they were made from."""
    if store.attrs["status"] != COMPLETE:
        return
    catalog = store.catalog
    attributes = read_attributes((store.path / "columns" / METADATA_FILE).read_bytes()) or {}
    parquet_only = attributes.get("parquet_only", [])
    for name in catalog.column_names:
        if name in parquet_only:
            continue
        values, recorded = read_column(store.path, f"columns/{name}"), catalog.column(name)
        if values.dtype.kind == "f":
            equal = np.array_equal(values, recorded.to_numpy(), equal_nan=True)
        else:
            equal = values.tolist() == recorded.to_pylist()
        if not equal:
            yield corrupt_message(store.path, f"columns/{name}", "differs from the catalogue's column")


def _render_again(store: Store, found: Verification, n_rows: int, threads: int | None) -> None:
    """Render rows spread over the store from their recorded parameters, and compare bits."""
    rows = np.unique(np.linspace(0, len(store) - 1, min(n_rows, len(store))).round().astype(np.int64))
    stored, fresh = store.arcs(rows), replay(store, rows, threads).arcs
    found.n_rendered = len(rows)
    off = difference(store, rows, fresh, stored)
    if off is None:
        return
    what = (
        f"{off.n_rows} of {len(rows)} rows rendered again differ, the first is row "
        f"{off.first}, by up to {off.worst:.1g} of the brightest pixel"
    )
    other = other_machinery(store)
    if other:
        found.notes.append(f"{store.path}: {what}; it was made with {other}")
    else:
        found.faults.append(
            f"{store.path}: {what}; its pixels are not what its catalogue says: make it again"
        )


def other_machinery(store: Store) -> str:
    """Say which code, library or processor made a store, where it is not the present one."""
    plan = store.plan
    if plan.code_sha256 != provenance.code_sha256():
        return f"other arcforge sources ({plan.code_sha256[:12]}, here {provenance.code_sha256()[:12]})"
    for name, version in provenance.software().items():
        if plan.software.get(name) != version:
            return f"{name} {plan.software.get(name)} (here {version})"
    processors = store.attrs.get("processors", [])
    return "" if processors in ([], [provenance.cpu()]) else f"the processor {', '.join(processors)}"
