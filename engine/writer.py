"""Writing a store: begin it, write whole shards, complete it. Every step may be killed and repeated.

The order is the protocol. The skeleton (plan, metadata, hosts) appears in one rename. A shard is encoded in
memory, its files are placed durably, then its commit record. Completing writes the columns, the manifest, and
``status = complete`` last.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from arcforge.engine import provenance
from arcforge.engine.arrays import (
    METADATA_FILE,
    Encoded,
    ImageArray,
    Pixels,
    encode_column,
    encode_group,
    encode_root,
)
from arcforge.engine.commits import (
    HOSTS,
    FileRecord,
    Files,
    commit,
    commit_file,
    files_of,
    is_done,
    place_files,
    read_commit,
    shard_name,
    write_manifest,
)
from arcforge.engine.durable import place, place_folder, reached, remove_locks, temporaries, write_lock
from arcforge.engine.errors import StoreError, StoreExistsError
from arcforge.engine.places import as_place
from arcforge.engine.plan import PLAN_FILE, Plan, read_plan
from arcforge.engine.store_status import (
    COMPLETE,
    SCHEMA,
    WRITING,
    catalog_key,
    committed_shards,
    corrections_key,
    read_group_attributes,
)
from arcforge.engine.table_columns import column_files, encode_table

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.host_source import HostLayer


class HostSource(Protocol):
    """Where the hosts' pixels and columns come from; read once more for every time they are written."""

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """What is known of the hosts: (n_hosts,) arrays by name, text as numpy's StringDType."""

    @property
    def layers(self) -> Sequence[HostLayer]:
        """Images of the hosts beside their pixels."""

    @property
    def refused(self) -> dict[str, Any]:
        """What could not be a host: counts by reason, and the first by name."""

    @property
    def notes(self) -> Encoded:
        """Further files to keep beside the hosts, by path in the store."""

    @property
    def sources(self) -> dict[str, Any]:
        """What is known of the source images."""

    def blocks(self, n: int) -> Iterator[Pixels]:
        """Yield the pixels of consecutive hosts, (k <= n, bands, ny, nx) float32 at a time."""


def group_attributes(plan: Plan, status: str, processors: list[str]) -> dict[str, Any]:
    """Return the attributes of the store's group."""
    return {
        "schema": SCHEMA,
        "format_version": plan.format_version,
        "status": status,
        "n_rows": plan.n_rows,
        "n_valid": plan.n_rows,
        "bands": plan.bands,
        "stamp_size": plan.stamp_size,
        "pixscale_arcsec": plan.pixscale_arcsec,
        "units": {
            "pixels": "nanomaggies per pixel (AB, zero point 22.5)",
            "angles": "arcsec; position angles in radians, counter-clockwise from +x",
        },
        "axes": ["row", "band", "y", "x"],
        "pairing": "control = hosts/pixels[host_index]; stamp = control + arcs, in float32"
        + (", then the pixels listed in corrections/" if plan.is_imported else ""),
        "stamp_centre": "pixel ((nx-1)/2, (ny-1)/2), counted from 0, is the origin of all positions",
        "psf": "full width at half maximum in arcsec",
        "theta_e_convention": "intermediate",
        "render": plan.render,
        "config": plan.config,
        "config_sha256": plan.config_sha256,
        "plan_sha256": plan.sha256,
        "seed": plan.seed,
        "code_sha256": plan.code_sha256,
        "software": plan.software,
        "processors": processors,
    }


def arcs_array(plan: Plan) -> ImageArray:
    """Return the encoder of a store's arcs."""
    return ImageArray("arcs", (plan.n_rows, *plan.row_shape), plan.chunk_rows, plan.shard_rows)


def begin(root: Path, plan: Plan, hosts: HostSource, *, replace: bool = False) -> None:
    """Create a store without rows: plan, metadata and hosts, all or nothing.

    Raises
    ------
    StoreExistsError
        Where another process created it meanwhile.
    StoreError
        Where it cannot be written.
    """

    def fill(folder: Path) -> None:
        plan.write(folder)
        write_hosts(folder, plan, hosts)
        metadata = arcs_array(plan).metadata() | encode_root(group_attributes(plan, WRITING, []))
        place_files(folder, metadata)

    try:
        place_folder(root, fill, replace=replace)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreExistsError(f"{root}: {error.strerror}; choose another name") from error


def write_hosts(root: Path, plan: Plan, hosts: HostSource) -> None:
    """Write the host arrays and commit them."""
    shape = (plan.n_hosts, *plan.row_shape)
    array = ImageArray("hosts/pixels", shape, plan.chunk_rows, plan.host_shard_rows)
    attributes = {
        "columns": list(hosts.columns),
        "layers": [layer.name for layer in hosts.layers],
        "refused": hosts.refused,
        "sources": hosts.sources,
    }
    files = place_files(root, encode_group("hosts", attributes) | array.metadata())
    for shard, pixels in enumerate(hosts.blocks(plan.host_shard_rows)):
        files |= place_files(root, array.encode(shard, pixels))
    for layer in hosts.layers:
        array = ImageArray(f"hosts/{layer.name}", layer.shape, plan.chunk_rows, plan.host_shard_rows)
        files |= place_files(root, array.metadata())
        for shard, pixels in enumerate(layer.blocks(plan.host_shard_rows)):
            files |= place_files(root, array.encode(shard, pixels))
    columns = dict(hosts.notes)
    for name, values in hosts.columns.items():
        columns |= encode_column(f"hosts/{name}", len(values), 0, values)
    commit(root, plan, HOSTS, files | place_files(root, columns))


def write_shard(
    root: Path,
    plan: Plan,
    array: ImageArray,
    shard: int,
    arcs: Pixels,
    table: pa.Table,
    corrections: pa.Table | None = None,
) -> None:
    """Write one whole shard, arcs and catalogue, and commit it."""
    encoded: Encoded = array.encode(shard, arcs) | {catalog_key(shard): encode_table(table)}
    if corrections is not None:
        encoded[corrections_key(shard)] = encode_table(corrections)
    files = place_files(root, encoded)
    commit(root, plan, shard_name(shard), files, rows=list(plan.rows_of(shard)), processor=provenance.cpu())


class ShardWriter:
    """Writes shards in threads of its own, so that rendering goes on; each holds one, and one more waits.

    A context manager. Leaving it waits until everything handed over is committed; leaving it by an exception
    ends the shards in hand and drops the waiting one.

    Parameters
    ----------
    root, plan
        The store.
    writers
        Threads.
    before
        Called with (shard, arcs, table) in a writer's thread before the shard is encoded; it may change the
        arcs in place and returns the table to store.
    after
        Called with the arcs when they are no longer needed, whatever became of them.
    """

    def __init__(
        self,
        root: Path,
        plan: Plan,
        *,
        writers: int = 1,
        before: Callable[[int, Pixels, pa.Table], pa.Table] | None = None,
        after: Callable[[Pixels], None] | None = None,
    ) -> None:
        self._root, self._plan = root, plan
        self._array = arcs_array(plan)
        self._before, self._after = before, after
        self._waiting: queue.Queue[tuple[int, Pixels, pa.Table, pa.Table | None] | None] = queue.Queue(
            maxsize=1
        )
        self._failure: BaseException | None = None
        self._dropping = False
        self._threads = [
            threading.Thread(target=self._run, name="arcforge-writer", daemon=True) for _ in range(writers)
        ]

    def __enter__(self) -> ShardWriter:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dropping = kind is not None
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        if kind is None:
            self._raise_failure()

    def put(self, shard: int, arcs: Pixels, table: pa.Table, corrections: pa.Table | None = None) -> None:
        """Hand over a shard; waits while every thread has one. Raises what went wrong with an earlier one."""
        self._raise_failure()
        self._waiting.put((shard, arcs, table, corrections))

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            shard, arcs, table, corrections = item
            try:
                if self._failure is None and not self._dropping:
                    if self._before is not None:
                        table = self._before(shard, arcs, table)
                    write_shard(self._root, self._plan, self._array, shard, arcs, table, corrections)
            except BaseException as error:  # handed to the thread that renders
                self._failure = self._failure or error
            finally:
                if self._after is not None:
                    self._after(arcs)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def finalise(root: Path) -> None:
    """Complete a store whose shards are all committed. Safe to repeat, also after a kill.

    Raises
    ------
    StoreError
        Where shards are missing, or another process is writing the store.
    """
    root = as_place(root)
    read_group_attributes(root)
    plan = read_plan(root)
    with write_lock(root):
        complete(root, plan)


def complete(root: Path, plan: Plan) -> None:
    """Do the work of :func:`finalise` under the caller's lock."""
    done = committed_shards(root, plan)
    if len(done) < plan.n_shards or not is_done(root, plan, HOSTS):
        missing = sorted(set(range(plan.n_shards)) - set(done))
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise StoreError(
            f"{root}: {len(missing)} of {plan.n_shards} shards are not committed ({listed or 'hosts'}); "
            "run the missing partitions, or repeat the command that made it with --resume"
        )
    for path in temporaries(root):
        path.unlink(missing_ok=True)
    files: Files = {}
    processors: set[str] = set()
    for name in [HOSTS, *map(shard_name, done)]:
        record = read_commit(root, plan.sha256, name)
        files |= files_of(record)
        processors |= {record["processor"]} if "processor" in record else set()
        files[commit_file(name)] = FileRecord.of((root / commit_file(name)).read_bytes())
    for encoded in column_files(root, plan, files):
        files |= place_files(root, encoded)
    reached("columns placed")
    files |= place_files(root, arcs_array(plan).metadata())
    files[PLAN_FILE] = FileRecord.of((root / PLAN_FILE).read_bytes())
    nodes = {key: (root / key).read_bytes() for key in files if key.endswith(f"/{METADATA_FILE}")}
    attributes = group_attributes(plan, COMPLETE, sorted(processors)) | {"certificate": _certificate(plan)}
    group = encode_root(attributes, nodes)[METADATA_FILE]
    write_manifest(root, plan, files | {METADATA_FILE: FileRecord.of(group)})
    reached("manifest placed")
    remove_locks(root)
    place(root / METADATA_FILE, group)


def _certificate(plan: Plan) -> dict[str, Any] | None:
    """Return the numerical certificate of the renderer that made the arcs; None where they were imported."""
    if plan.is_imported:
        return None
    from arcforge.engine.certificate import quick_certificate

    return quick_certificate()


def reopen(root: Path, plan: Plan) -> None:
    """Mark a complete store as being written again, before anything in it is repaired."""
    place_files(root, encode_root(group_attributes(plan, WRITING, [])))
