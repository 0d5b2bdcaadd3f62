"""Where audited pairs come from: a store, or a table of ``.npz`` blobs in parquet (a file, a folder, ``s3://``).

Both give the same two things: a table of everything but pixels, and batches of decoded pixels for wanted
rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.row_groups import CONTROL_COLUMN, STAMP_COLUMN, list_row_groups, read_scalars
from arcforge.engine.blobs import BAND_ORDER, BlobError, decode_cutout, stack_bands
from arcforge.engine.catalog_files import numbers_of
from arcforge.engine.errors import AuditInputError

if TYPE_CHECKING:
    import pyarrow as pa

Integers = NDArray[np.int64]
Images = NDArray[np.float32]

LABEL_COLUMN = "label"


@dataclass
class PixelBatch:
    """Decoded pairs of ``rows`` (k,): ``stamps`` and ``controls`` are float32 (k, band, y, x)."""

    rows: Integers
    stamps: Images
    controls: Images
    problems: list[tuple[int, str]] = field(default_factory=list)  #: rows that could not be decoded, and why
    dtypes: set[tuple[str, str]] = field(default_factory=set)  #: (stamp, control) dtypes as stored


class PairSource(Protocol):
    """A paired data set."""

    path: str
    kind: str  #: "store" or "parquet"
    bands: str
    image_shape: tuple[int, int]  #: (ny, nx)
    pixscale_arcsec: float | None  #: None where the set does not say
    pixel_response: str  #: as the renderer takes it
    table: pa.Table  #: all columns but pixels, in row order
    psf_images: Any  #: PSFs that are images, by ``psf_id``; None without
    sources: Any  #: source images, by ``source_id``; None without

    def noise(self, rows: Integers) -> Images | None:
        """Return the noise of the added light, (k, band, y, x), made again; None where there is no record."""
        ...

    def batches(self, rows: Integers, size: int) -> Iterator[PixelBatch]:
        """Yield the pixels of ``rows`` (ascending, unique), at most ``size`` rows at a time."""
        ...


def open_pairs(path_or_store: Any, blob_bytes: int, mapping: Mapping[str, str] | None = None) -> PairSource:
    """Open a store (path or object), a parquet file, a folder of parquet files, or ``s3://`` parquet.

    ``mapping`` gives the set's own names of columns, by ours. A set without controls but with a ``label`` is
    opened as unpaired.

    Raises
    ------
    AuditInputError
        The path is absent or neither; the message says what was looked for.
    StoreError
        The store is unreadable or incomplete.
    """
    if hasattr(path_or_store, "stamps") and hasattr(path_or_store, "ctrls"):
        return StorePairs(path_or_store)
    text = str(path_or_store)
    if "://" in text:
        return _open_parquet(text, blob_bytes, mapping)
    path = Path(text)
    if not path.exists():
        raise AuditInputError(
            f"{path}: no such file or folder; give a store or a parquet file with paired cutouts"
        )
    if path.is_dir() and ((path / "zarr.json").exists() or path.suffix == ".zarr"):
        from arcforge.engine.store import open_store

        return StorePairs(open_store(path))
    return _open_parquet(text, blob_bytes, mapping)


def _open_parquet(text: str, blob_bytes: int, mapping: Mapping[str, str] | None) -> PairSource:
    names = _column_names(text)
    ours = dict(mapping or {})
    absent = [theirs for theirs in ours.values() if theirs not in names]
    if absent:
        raise AuditInputError(f"{text}: no column {absent[0]}, which --map names; there is {_some(names)}")
    label = ours.get(LABEL_COLUMN, LABEL_COLUMN)
    if ours.get(CONTROL_COLUMN, CONTROL_COLUMN) not in names and label in names:
        from arcforge.engine.auditing.unpaired import UnpairedPairs

        return UnpairedPairs(ParquetPairs(text, blob_bytes, ours, pixels=(STAMP_COLUMN,)))
    return ParquetPairs(text, blob_bytes, ours)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


class StorePairs:
    """The pairs of an arcforge store."""

    kind = "store"

    def __init__(self, store: Any) -> None:
        self.store = store
        self.path = str(getattr(store, "path", "store"))
        self.bands = "".join(store.bands)
        ny, nx = store.stamps([0]).shape[2:]
        self.image_shape = (int(ny), int(nx))
        self.pixscale_arcsec: float | None = float(store.pixscale_arcsec)
        self._options = dict(store.attrs["render"])
        self.pixel_response = str(self._options["pixel_response"])
        self.table = store.catalog
        self.psf_images = getattr(store, "psf_images", None)
        # pixels that were imported come from another renderer: nothing to repeat bit for bit
        self.is_rendered = not getattr(store, "is_imported", False)
        self.sources = getattr(store, "sources", None)

    def replay(self, rows: Integers) -> tuple[Images, Images]:
        """Return arcs as stored and as rendered anew with the store's own options."""
        from arcforge.engine.render import render_batch

        stored = self.store.arcs(rows)
        if "noise" in self.table.column_names:
            from arcforge.engine.replay import replay

            return stored, replay(self.store, rows).arcs
        again = render_batch(
            self.table.take(rows),
            stamp_size=stored.shape[-1],
            pixscale_arcsec=float(self.store.pixscale_arcsec),
            bands=self.bands,
            psf_images=self.psf_images,
            sources=self.sources,
            **self._options,
        )
        return stored, again

    def noise(self, rows: Integers) -> Images | None:
        """Return the noise of the added light, made again from the store's seed."""
        if "noise" not in self.table.column_names:
            return None
        noise: Images = self.store.noise(rows)
        return noise

    def batches(self, rows: Integers, size: int) -> Iterator[PixelBatch]:
        """Yield the pixels of ``rows``."""
        for begin in range(0, len(rows), size):
            some = rows[begin : begin + size]
            yield PixelBatch(
                some, self.store.stamps(some), self.store.ctrls(some), dtypes={("float32", "float32")}
            )


class ParquetPairs:
    """Pairs in parquet: one row a pair, two binary columns of ``.npz`` archives, parameters in the others."""

    kind = "parquet"
    psf_images = None
    sources = None
    pixel_response = "in_psf"  # survey PSFs hold the pixel; no set of this form records another

    def __init__(
        self,
        path: str,
        blob_bytes: int,
        mapping: Mapping[str, str] | None = None,
        pixels: Sequence[str] = (STAMP_COLUMN, CONTROL_COLUMN),
    ) -> None:
        from arcforge.engine.threads import usable_threads

        theirs = dict(mapping or {})
        self.path = path
        self.pixel_columns = tuple(theirs.get(name, name) for name in pixels)
        self._blob_bytes = blob_bytes
        self._pool = ThreadPoolExecutor(max_workers=usable_threads(None))
        self._pieces = list_row_groups(path, self.pixel_columns)
        self.table = _renamed(read_scalars(path, self._pieces), theirs)
        self.pixscale_arcsec = _one_pixscale(path, self.table)
        self.bands, self.image_shape = self._first_layout()

    def noise(self, rows: Integers) -> Images | None:
        """Return None: a foreign set's noise cannot be made again."""
        return None

    def _first_layout(self) -> tuple[str, tuple[int, int]]:
        """Bands and image shape of the first stamp that can be decoded; later rows are held to them."""
        reason = "no rows"
        for piece in self._pieces:
            for row, stamp, *_ in piece.blobs(None, 16):
                try:
                    images = decode_cutout(stamp, self._blob_bytes)
                except BlobError as error:
                    reason = f"row {row}: {error}"
                    continue
                bands = "".join(sorted(images, key=lambda b: (BAND_ORDER.find(b) % 99, b)))
                shape = images[bands[0]].shape
                return bands, (int(shape[0]), int(shape[1]))
        raise AuditInputError(
            f"{self.path}: column {self.pixel_columns[0]} holds no readable cutout ({reason})"
        )

    def batches(self, rows: Integers, size: int) -> Iterator[PixelBatch]:
        """Yield the pixels of ``rows``; a row that cannot be decoded becomes a problem, not an error."""
        for piece in self._pieces:
            wanted = rows[(rows >= piece.first_row) & (rows < piece.first_row + piece.n_rows)]
            if wanted.size == 0:
                continue
            batch: list[tuple[Any, ...]] = []
            for item in piece.blobs(wanted, size):
                batch.append(item)
                if len(batch) == size:
                    yield self._decode(batch)
                    batch = []
            if batch:
                yield self._decode(batch)

    def _decode(self, items: list[tuple[Any, ...]]) -> PixelBatch:
        rows, stamps, controls = [], [], []
        batch = PixelBatch(*_nothing(len(self.bands), self.image_shape))
        # decompression, most of the work, runs beside the interpreter
        decoded = self._pool.map(self._decode_pair, items, chunksize=max(len(items) // 8, 1))
        for (row, *_), pair in zip(items, decoded, strict=True):
            if isinstance(pair, BlobError):
                batch.problems.append((row, str(pair)))
                continue
            stamp, control, dtypes = pair
            batch.dtypes.add(dtypes)
            rows.append(row)
            stamps.append(stamp)
            controls.append(control)
        if rows:
            batch.rows = np.array(rows, dtype=np.int64)
            batch.stamps, batch.controls = np.stack(stamps), np.stack(controls)
        return batch

    def _decode_pair(self, item: tuple[Any, ...]) -> tuple[Images, Images, tuple[str, str]] | BlobError:
        """Images and stored dtypes of one row, or why there are none."""
        try:
            pair = [decode_cutout(blob, self._blob_bytes) for blob in item[1:]]
            images = [stack_bands(member, self.bands) for member in pair]
            for name, image in zip(self.pixel_columns, images, strict=True):
                if image.shape[1:] != self.image_shape:
                    raise BlobError(
                        f"{name} is {image.shape[1:]} pixels where the set has {self.image_shape}"
                    )
        except BlobError as error:
            return error
        dtypes = [member[self.bands[0]].dtype.name for member in pair]
        # an unpaired image stands for both
        return images[0], images[-1], (dtypes[0], dtypes[-1])


def _nothing(n_bands: int, shape: tuple[int, int]) -> tuple[Integers, Images, Images]:
    empty = np.zeros((0, n_bands, *shape), dtype=np.float32)
    return np.zeros(0, dtype=np.int64), empty, empty.copy()


def _renamed(table: pa.Table, theirs: Mapping[str, str]) -> pa.Table:
    """Give mapped columns our names; a column that has such a name by itself gives way."""
    ours = {name: our for our, name in theirs.items() if name in table.column_names}
    table = table.drop_columns([n for n in table.column_names if n in ours.values() and n not in ours])
    return table.rename_columns([ours.get(name, name) for name in table.column_names])


def _column_names(path: str) -> list[str]:
    """Columns of a parquet set, folder keys included; none where it cannot be read."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow import fs

    try:
        filesystem, inner = fs.FileSystem.from_uri(path) if "://" in path else (fs.LocalFileSystem(), path)
        return list(
            ds.dataset(inner, filesystem=filesystem, format="parquet", partitioning="hive").schema.names
        )
    except (pa.ArrowException, OSError):
        return []


def _one_pixscale(path: str, table: pa.Table) -> float | None:
    if "pixscale_arcsec" not in table.column_names:
        return None
    values = np.unique(numbers_of(table, "pixscale_arcsec", path))
    if len(values) != 1 or not values[0] > 0:
        raise AuditInputError(
            f"{path}: pixscale_arcsec holds {values[:4].tolist()}; audit one pixel scale at a time"
        )
    return float(values[0])
