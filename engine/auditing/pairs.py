"""The audited sample: pixels of the drawn pairs, hosts of all rows, and what a scan of the pixels met."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.groups import (
    join_groups,
    number,
    number_known,
    number_sources,
    same_sky,
)
from arcforge.engine.auditing.parameters import column, is_control_row, is_failed_row, is_negative_row
from arcforge.engine.auditing.sources import PairSource, PixelBatch
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.errors import AuditInputError
from arcforge.engine.remedies import distance_pix

if TYPE_CHECKING:
    import pyarrow as pa

Integers = NDArray[np.int64]
Images = NDArray[np.float32]
Flags = NDArray[np.bool_]
Progress = Callable[[str, int, int], None]

DEFAULT_PIXSCALE_ARCSEC = 0.262
# Fewer cannot be judged, however large the stamps
_LEAST_PAIRS = 200
# Noise hardly ever repeats a value: above this share of a band's pixels they were cut off or filled
_CLIPPED = 0.01
# Pixels of sky that a noise level takes
_LEAST_SKY = 50
# A source bank shared by most hosts would chain them into one group; then only hosts are grouped
_LARGEST_GROUP_SHARE = 0.5
_SOURCE_COLUMNS = ("source_id", "cosmos_index")


@dataclass
class PixelScan:
    """What was met while pixels were read: counts and row numbers, never pixels."""

    n_scanned: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    dtypes: set[tuple[str, str]] = field(default_factory=set)
    not_finite: list[int] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)  #: rows with a band of one single value
    clipped: list[int] = field(
        default_factory=list
    )  #: rows of which many pixels of a band have one value: its lowest, its highest or zero
    stamp_digests: dict[bytes, int] = field(default_factory=dict)
    repeated_stamps: list[tuple[int, int]] = field(
        default_factory=list
    )  #: (row, the earlier row with its pixels)
    unequal_controls: list[int] = field(
        default_factory=list
    )  #: control rows whose stamp is not their control


@dataclass(frozen=True)
class Pairs:
    """The drawn pairs that carry an arc, in row order, with the hosts of every row of the set."""

    source: PairSource
    bands: str
    pixscale_arcsec: float
    stamps: Images  #: (n, band, y, x), nMgy per pixel
    controls: Images
    rows: Integers  #: (n,) row of the set
    table: pa.Table  #: recorded columns of the drawn pairs
    groups: Integers  #: (n,) host number among the drawn pairs, 0 to n_groups - 1
    all_groups: Integers  #: (n_rows,) host number of every row of the set
    objects: Integers  #: (n_rows,) the same, rows that share no more than a source apart
    sources: Integers  #: (n_rows,) source number of every row, -1 where none is recorded
    full_table: pa.Table
    scan: PixelScan
    notes: list[str]

    @property
    def n_groups(self) -> int:
        """Hosts among the drawn pairs."""
        return int(self.groups.max()) + 1

    def __len__(self) -> int:
        return len(self.rows)


def draw_pairs(
    source: PairSource,
    thresholds: Thresholds,
    seed: int,
    n_pairs: int | None,
    progress: Progress,
) -> Pairs:
    """Scan the set's pixels and keep a random sample of its pairs.

    Parameters
    ----------
    source : PairSource
        The set.
    thresholds : Thresholds
        Section ``sample``.
    seed : int
        Decides which pairs are drawn.
    n_pairs : int or None
        Pairs to keep; None for the default of the thresholds.
    progress : callable
        Called with (stage, done, total).

    Raises
    ------
    AuditInputError
        No pair with an arc and readable pixels is left.
    """
    table = source.table
    rng = np.random.default_rng([seed, 1])
    failed, controls = is_failed_row(table), is_control_row(table)
    usable = np.flatnonzero(~failed)
    notes: list[str] = []
    limit = n_pairs or _affordable(source, thresholds, notes)
    scanned = _choose(usable, max(thresholds.count("sample.scan_pairs"), limit), rng)
    negatives = is_negative_row(table)
    drawn = _choose(scanned[~controls[scanned] & ~negatives[scanned]], limit, rng)
    if negatives.any():
        notes.append(f"{int(negatives.sum())} rows are negatives by their kind and are no pairs")
    if failed.any():
        notes.append(f"{int(failed.sum())} rows are marked as failed (cutout_ok = 0) and left out")
    if len(scanned) < len(usable):
        notes.append(f"pixels of {len(scanned)} of {len(usable)} rows were read")
    scan = PixelScan()
    kept: list[tuple[Integers, Images, Images]] = []
    host_of_control = np.full(table.num_rows, -1, dtype=np.int64)
    seen: dict[bytes, int] = {}
    for batch in source.batches(scanned, thresholds.count("sample.batch_pairs")):
        finite = _scan_batch(scan, batch, controls)
        for row, image in zip(batch.rows, batch.controls, strict=True):
            host_of_control[row] = seen.setdefault(_digest(image), len(seen))
        take = finite & np.isin(batch.rows, drawn, assume_unique=True)
        kept.append((batch.rows[take], batch.stamps[take], batch.controls[take]))
        progress("reading", scan.n_scanned, len(scanned))
    rows = np.concatenate([k[0] for k in kept]) if kept else np.zeros(0, dtype=np.int64)
    if len(rows) == 0:
        raise AuditInputError(
            f"{source.path}: no pair with an arc and readable pixels among {len(usable)} rows"
        )
    _require_shape(source, thresholds)
    sources = _number_sources(table)
    objects = _group_hosts(table, host_of_control, thresholds)
    all_groups = _join_sources(objects, sources, notes)
    return Pairs(
        source=source,
        bands=source.bands,
        pixscale_arcsec=_pixscale(source, notes),
        stamps=np.concatenate([k[1] for k in kept]),
        controls=np.concatenate([k[2] for k in kept]),
        rows=rows,
        table=table.take(rows),
        groups=number(all_groups[rows]),
        all_groups=all_groups,
        objects=objects,
        sources=sources,
        full_table=table,
        scan=scan,
        notes=notes,
    )


def _require_shape(source: PairSource, thresholds: Thresholds) -> None:
    """Refuse stamps that are not square, or hold next to nothing of the outer annulus, which is the sky's."""
    ny, nx = source.image_shape
    if ny != nx:
        raise AuditInputError(
            f"{source.path}: stamps of {ny} x {nx} px (y, x) cannot be rendered again; cut them to "
            f"{min(ny, nx)} x {min(ny, nx)} px about their centres"
        )
    outer = thresholds["core.outer_pix"]
    sky = int((distance_pix(source.image_shape) >= outer).sum())
    if sky < _LEAST_SKY:
        raise AuditInputError(
            f"{source.path}: stamps of {ny} x {nx} px hold {sky} pixels beyond r = {outer:g} px, where the "
            "sky is measured; cut larger ones, or lower core.outer_pix with --thresholds"
        )


def _affordable(source: PairSource, thresholds: Thresholds, notes: list[str]) -> int:
    """Pairs to draw where none are asked for: fewer of large stamps, so that memory stays bounded."""
    ny, nx = source.image_shape
    fitting = int(thresholds["sample.image_bytes"] // (4 * len(source.bands) * ny * nx))
    wanted = thresholds.count("sample.n_pairs")
    if fitting < min(wanted, source.table.num_rows):
        notes.append(f"stamps of {ny} x {nx} px: {max(fitting, _LEAST_PAIRS)} pairs are drawn, for memory")
    return min(wanted, max(fitting, _LEAST_PAIRS))


def _choose(rows: Integers, limit: int, rng: np.random.Generator) -> Integers:
    if len(rows) <= limit:
        return rows
    return np.sort(rng.choice(rows, size=limit, replace=False))


def _pixscale(source: PairSource, notes: list[str]) -> float:
    if source.pixscale_arcsec is not None:
        return source.pixscale_arcsec
    notes.append(
        f"no pixel scale is recorded; {DEFAULT_PIXSCALE_ARCSEC} arcsec is taken (column pixscale_arcsec)"
    )
    return DEFAULT_PIXSCALE_ARCSEC


def _scan_batch(scan: PixelScan, batch: PixelBatch, is_control: Flags) -> Flags:
    """Enter a batch into the scan; returns which of its rows are finite (k,)."""
    scan.problems += batch.problems
    scan.dtypes |= batch.dtypes
    scan.n_scanned += len(batch.rows) + len(batch.problems)
    finite = np.isfinite(batch.stamps).all((1, 2, 3)) & np.isfinite(batch.controls).all((1, 2, 3))
    flat, clipped = np.zeros((2, len(batch.rows)), dtype=bool)
    for images in (batch.stamps, batch.controls):
        lowest, highest = images.min((2, 3), initial=np.inf), images.max((2, 3), initial=-np.inf)
        flat |= (highest == lowest).any(1)
        for value in (lowest, highest, np.zeros_like(lowest)):
            clipped |= ((images == value[:, :, None, None]).mean((2, 3)) > _CLIPPED).any(1)
    scan.clipped += batch.rows[finite & clipped & ~flat].tolist()
    scan.not_finite += batch.rows[~finite].tolist()
    scan.blank += batch.rows[finite & flat].tolist()
    for k, row in enumerate(batch.rows.tolist()):
        if is_control[row]:
            if not np.array_equal(batch.stamps[k], batch.controls[k]):
                scan.unequal_controls.append(row)
        else:
            first = scan.stamp_digests.setdefault(_digest(batch.stamps[k]), row)
            if first != row:
                scan.repeated_stamps.append((row, first))
    return np.asarray(finite)


def _digest(image: Images) -> bytes:
    # tells equal pixels, guards nothing: the fastest hash of the processor's own
    return hashlib.sha1(np.ascontiguousarray(image).data, usedforsecurity=False).digest()


def _group_hosts(table: pa.Table, host_of_control: Integers, thresholds: Thresholds) -> Integers:
    """Host number of every row: same host id, same control pixels, same sky position."""
    names = table.column_names
    keys = [host_of_control]
    for name in ("host_id", "host_index"):
        if name in names:
            keys.append(number_known(_values(table, name)))
    if "ra" in names and "dec" in names:
        keys.append(
            same_sky(column(table, "ra"), column(table, "dec"), thresholds["data.same_object_arcsec"])
        )
    return join_groups(table.num_rows, keys)


def _number_sources(table: pa.Table) -> Integers:
    """Source number of every row, -1 where none is recorded."""
    name = next((n for n in _SOURCE_COLUMNS if n in table.column_names), None)
    if name is None:
        return np.full(table.num_rows, -1, dtype=np.int64)
    return number_sources(_values(table, name))


def _join_sources(objects: Integers, sources: Integers, notes: list[str]) -> Integers:
    """Host number of every row, hosts that share a source as one where that leaves groups to choose from."""
    if not (sources >= 0).any():
        return objects
    joined = join_groups(len(objects), [objects, sources])
    if np.bincount(joined).max() <= _LARGEST_GROUP_SHARE * len(objects):
        return joined
    notes.append("sources are shared by most hosts: folds keep hosts together, not sources")
    return objects


def _values(table: pa.Table, name: str) -> Any:
    return table.column(name).to_numpy(zero_copy_only=False)
