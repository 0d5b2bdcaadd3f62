"""Import: paired cutouts made elsewhere, streamed into a store, bit for bit.

Two passes. The first decodes everything once: it refuses rows that cannot be read, finds the hosts (controls
of equal pixels are one host) and fixes the plan. The second writes shards, as a run does. What is held is one
shard and some 200 bytes a row, whatever the size of the source.

``arc = stamp - control`` in float32. A store gives back ``control + arc``, which can miss by a rounding a
stamp that was not made as that sum; such pixels are listed in ``corrections/`` and set when stamps are read.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine import provenance
from arcforge.engine.commits import is_done, shard_name
from arcforge.engine.durable import write_lock
from arcforge.engine.errors import ConfigError, ImportSourceError
from arcforge.engine.import_files import STAMPS_FILE, FolderSource, NpySource
from arcforge.engine.import_scan import ImportedHosts, Refused, Scan, scan_source
from arcforge.engine.import_sources import Batch, Mapping, ParquetSource, Source
from arcforge.engine.plan import IMPORTED, Plan, read_plan, shard_shape
from arcforge.engine.run_output import begin_store, check_output, is_whole, make_ready
from arcforge.engine.sealed import digest
from arcforge.engine.store import Store, open_store
from arcforge.engine.writer import ShardWriter, complete

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.arrays import Pixels

ROW_COLUMN = "import_row"
_OWN_COLUMNS = ("host_index", "host_rows")  # made anew, also where the source has them

_KIND_WORDS: dict[Any, str] = {str: "text", dict: "a table", (int, float): "a number"}

Progress = Callable[[int, int], None]


def read_mapping(path: str | os.PathLike[str] | None) -> Mapping:
    """Read ``--map``: a TOML file with any of ``pixscale_arcsec``, ``bands``, ``stamp_column``,
    ``control_column``, a table ``[columns]`` (new name = source's name), a table ``[values]`` (constants).

    Raises
    ------
    ConfigError
        For an unreadable file or an unknown key.
    """
    if path is None:
        return Mapping()
    try:
        tree = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error
    known = set(Mapping.__dataclass_fields__)
    unknown = sorted(tree.keys() - known)
    if unknown:
        raise ConfigError(f"{path}: key {unknown[0]!r} is unknown; use {', '.join(sorted(known))}")
    kinds: dict[str, Any] = {"columns": dict, "values": dict, "pixscale_arcsec": (int, float)}
    for key, value in tree.items():
        kind = kinds.get(key, str)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{path}: {key} is {value!r}; give {_KIND_WORDS[kind]}")
    for table, inner, words in (("columns", str, "names"), ("values", (int, float, str), "numbers or text")):
        for key, value in tree.get(table, {}).items():
            if not isinstance(value, inner) or not key:
                raise ConfigError(f"{path}: {table}.{key} is {value!r}; [{table}] holds {words}")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ConfigError(f"{path}: {table}.{key} is {value}; a column of integers holds 64 bits")
    if not 0.0 < tree.get("pixscale_arcsec", 1.0) < math.inf:
        raise ConfigError(f"{path}: pixscale_arcsec is {tree['pixscale_arcsec']}; give arcsec, above 0")
    return Mapping(**tree)


def open_source(path: str | os.PathLike[str], mapping: Mapping) -> Source:
    """Open what is to be imported.

    Raises
    ------
    ImportSourceError
        Where it is absent or of no known layout.
    """
    place = Path(path)
    if not place.exists():
        raise ImportSourceError(f"{place}: does not exist; give a parquet file or a folder of cutouts")
    if place.is_file():
        if place.suffix in (".parquet", ".pq"):
            return ParquetSource(place, mapping)
        return FolderSource(place, mapping)
    if (place / STAMPS_FILE).is_file():
        return NpySource(place, mapping)
    has_parquet = any(
        file.suffix in (".parquet", ".pq") and file.name != "catalog.parquet"
        for file in place.rglob("*.p*q*")
    )
    return ParquetSource(place, mapping) if has_parquet else FolderSource(place, mapping)


def import_pairs(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    mapping: Mapping | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[Store, list[Refused]]:
    """Import paired cutouts into a store.

    Parameters
    ----------
    source
        A parquet file or hive-partitioned folder of ``stamp_npz`` and ``ctrl_stamp_npz``; a folder of npz or
        FITS files; a folder with ``stamps.npy``, ``ctrls.npy`` and ``catalog.parquet``.
    out
        The store's folder.
    mapping
        How names are read.
    overwrite, resume
        As those of :func:`arcforge.engine.inject.inject`.
    progress
        Called with (rows done, rows in all) while shards are written.

    Returns
    -------
    (Store, list of Refused)
        The complete store, and the rows of the source that are not in it.

    Raises
    ------
    ImportSourceError
        Where no row can be read, or the pixel scale is nowhere stated.
    StoreError
        Where the output is in the way or cannot be written.
    """
    root = Path(out)
    check_output(root, overwrite=overwrite, resume=resume, partition=None)
    opened = open_source(source, mapping or Mapping())
    scale = opened.pixscale_arcsec
    if scale is None:
        raise ImportSourceError(
            f"{source}: does not state its pixel scale; give pixscale_arcsec in --map (a TOML file)"
        )
    if not (isinstance(scale, int | float) and 0.0 < scale < math.inf):
        raise ImportSourceError(f"{source}: its pixel scale is {scale!r}; give pixscale_arcsec in --map")
    with tempfile.TemporaryFile(dir=_existing(root)) as scratch:
        scan = scan_source(source, opened, scratch)
        hosts = ImportedHosts(scan, scratch, len(opened.bands))
        plan = _plan(opened, scan, float(scale))
        if overwrite or not root.exists():
            begin_store(root, plan, hosts, may_exist=resume)
        plan.refuse_other(read_plan(root), root)
        with write_lock(root):
            if not is_whole(root, plan):
                make_ready(root, plan, hosts, alone=True)
                _write(root, plan, opened, scan, progress)
                complete(root, plan)
    return open_store(root), scan.refused


def _existing(root: Path) -> Path:
    return next(parent for parent in root.absolute().parents if parent.is_dir())


def _plan(source: Source, scan: Scan, pixscale_arcsec: float) -> Plan:
    n_rows = int(scan.is_good.sum())
    added = [name for name in (*_OWN_COLUMNS, ROW_COLUMN) if name not in scan.schema.names]
    lines = {
        "layout": source.layout,
        "rows_read": len(scan.is_good),
        "rows_refused": len(scan.refused),
        "added_columns": added,
    }
    config = "[import]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
    chunk_rows, shard_rows = shard_shape(n_rows, 4 * len(source.bands) * scan.size**2)
    return Plan(
        n_rows=n_rows,
        bands=source.bands,
        stamp_size=scan.size,
        pixscale_arcsec=pixscale_arcsec,
        chunk_rows=chunk_rows,
        shard_rows=shard_rows,
        seed=0,
        config=config,
        config_sha256=digest(lines),
        catalog=f"{IMPORTED}sha256:{scan.sha256}",
        hosts=f"sha256:{digest({'hosts': scan.host_sha256})}",
        n_hosts=scan.n_hosts,
        # how the audit renders the rows: nothing of an import's own renderer is known
        render={"rtol": 1e-3, "variant": "auto", "pixel_response": "in_psf"},
        code_sha256=provenance.code_sha256(),
        software=provenance.software(),
    )


def added_columns(plan: Plan) -> list[str]:
    """Return the columns of an imported store's catalogue that its source did not have."""
    if not plan.is_imported:
        return []
    found: list[str] = tomllib.loads(plan.config)["import"]["added_columns"]
    return found


def _write(root: Path, plan: Plan, source: Source, scan: Scan, progress: Progress | None) -> None:
    """Write the shards that are not committed."""
    todo = {shard for shard in range(plan.n_shards) if not is_done(root, plan, shard_name(shard))}
    good_rows = np.flatnonzero(scan.is_good)
    wanted = np.zeros(len(scan.is_good), dtype=np.bool_)
    for shard in todo:
        wanted[good_rows[slice(*plan.rows_of(shard))]] = True
    counts = np.bincount(scan.host, minlength=scan.n_hosts)
    with ShardWriter(root, plan) as writer:
        filling: _Shard | None = None
        for batch in source.batches(wanted):
            numbers = np.arange(batch.first, batch.first + len(batch.pairs))
            numbers = numbers[wanted[numbers]]
            rows = np.searchsorted(good_rows, numbers)  # of the store
            for shard in np.unique(rows // plan.shard_rows).tolist():
                if filling is None:
                    filling = _Shard(plan, shard)
                some = rows // plan.shard_rows == shard
                for number, row in zip(numbers[some].tolist(), rows[some].tolist(), strict=True):
                    filling.take(batch.pairs[number - batch.first], number, row)
                filling.tables.append(_own_table(batch, numbers[some], rows[some], scan, counts))
                if rows[some][-1] + 1 == filling.stop:
                    filling.put(writer)
                    filling = None
                    if progress is not None:
                        progress(plan.rows_of(shard)[1], plan.n_rows)


class _Shard:
    """A shard while its rows come in."""

    def __init__(self, plan: Plan, shard: int) -> None:
        self.shard = shard
        self.first, self.stop = plan.rows_of(shard)
        self.tables: list[pa.Table] = []
        self._arcs = np.empty((self.stop - self.first, *plan.row_shape), dtype=np.float32)
        self._missed: list[tuple[NDArray[Any], ...]] = []

    def take(self, pair: tuple[Pixels, Pixels] | str, number: int, row: int) -> None:
        """Put a pair's arc in its place, and note the pixels in which control + arc is not the stamp."""
        if isinstance(pair, str):
            raise ImportSourceError(f"row {number} has changed since it was checked: {pair}; import it anew")
        stamp, control = pair
        arc = np.subtract(stamp, control, out=self._arcs[row - self.first])
        again = (control + arc).view(np.uint32)
        missed = np.flatnonzero(again.ravel() != stamp.view(np.uint32).ravel())
        if missed.size:
            self._missed.append((np.full(missed.size, row), missed, stamp.ravel()[missed]))

    def put(self, writer: ShardWriter) -> None:
        """Hand the shard over."""
        import pyarrow as pa

        corrections = None
        if self._missed:
            row, pixel, stamp = (np.concatenate(part) for part in zip(*self._missed, strict=True))
            corrections = pa.table({"row": row, "pixel": pixel.astype(np.int32), "stamp": stamp})
        writer.put(self.shard, self._arcs, pa.concat_tables(self.tables).combine_chunks(), corrections)


def _own_table(
    batch: Batch,
    numbers: NDArray[np.int64],
    rows: NDArray[np.int64],
    scan: Scan,
    counts: NDArray[np.int64],
) -> pa.Table:
    """Return rows of the catalogue: the source's columns in its types, and ours."""
    import pyarrow as pa

    some = batch.table.take(pa.array(numbers - batch.first))
    host = scan.host[rows]
    own = {"host_index": host, "host_rows": counts[host], ROW_COLUMN: numbers}
    columns: dict[str, Any] = {}
    for f in scan.schema:
        if f.name in _OWN_COLUMNS:
            columns[f.name] = pa.array(own[f.name])
        elif f.name in some.column_names:
            columns[f.name] = some.column(f.name).cast(f.type)
        else:
            columns[f.name] = pa.nulls(len(rows), f.type)
    for name, values in own.items():
        columns.setdefault(name, pa.array(values))
    return pa.table(columns)
