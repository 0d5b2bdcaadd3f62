"""Where imported pairs come from: parquet of npz blobs, folders of npz or FITS files, folders of npy arrays.

All give the same: batches of consecutive rows, each with its parameters as a table and its pixels, or the
reason why a row has none. A source can be gone through more than once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.blobs import BAND_ORDER, BlobError, decode_cutout, stack_bands
from arcforge.engine.catalog_files import sound_table
from arcforge.engine.errors import ImportSourceError

if TYPE_CHECKING:
    import pyarrow as pa

Images = NDArray[np.float32]
Pair = tuple[Images, Images]  # stamp and control, (bands, ny, nx)

STAMP_COLUMN, CONTROL_COLUMN = "stamp_npz", "ctrl_stamp_npz"
BATCH_ROWS = 64
_MAX_BLOB_BYTES = 64 << 20  # what one archive may unpack to
_READ_BYTES = 1 << 20
_DECODING_THREADS = 2  # inflating releases the interpreter, the rest does not


@dataclass
class Batch:
    """Consecutive rows of a source."""

    first: int  #: row number of the first
    table: pa.Table  #: their parameters
    pairs: list[Pair | str]  #: pixels, or why there are none


class Source(Protocol):
    """A paired data set outside a store."""

    layout: str  #: "parquet", "npz", "fits" or "npy"
    bands: str
    pixscale_arcsec: float | None  #: None where the source does not say

    def batches(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[Batch]:
        """Yield all rows in order; the pixels of rows that are not ``wanted`` need not be decoded."""
        ...


@dataclass(frozen=True)
class Mapping:
    """How a source's names and values are read."""

    columns: dict[str, str] = field(default_factory=dict)  #: new name to the source's name
    values: dict[str, Any] = field(default_factory=dict)  #: columns that are the same in every row
    pixscale_arcsec: float | None = None
    bands: str | None = None
    stamp_column: str = STAMP_COLUMN
    control_column: str = CONTROL_COLUMN

    def apply(self, table: pa.Table) -> pa.Table:
        """Rename columns and add constant ones."""
        import pyarrow as pa

        names = {old: new for new, old in self.columns.items()}
        table = table.rename_columns([names.get(name, name) for name in table.column_names])
        for name, value in self.values.items():
            column = pa.array([value] * table.num_rows)
            if name in table.column_names:
                table = table.drop_columns([name])
            table = table.append_column(name, column)
        return table


_NO_PAIR = "skipped"


def decode_all(decoders: Sequence[Callable[[], Pair] | None]) -> list[Pair | str]:
    """Run decoders in a few threads; a row without one was not asked for."""

    def run(decode: Callable[[], Pair] | None) -> Pair | str:
        if decode is None:
            return _NO_PAIR
        try:
            return decode()
        except BlobError as error:
            return str(error)

    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
        return list(pool.map(run, decoders))


def is_asked_for(wanted: NDArray[np.bool_] | None, row: int) -> bool:
    """Tell whether a row's pixels are wanted."""
    return wanted is None or bool(wanted[row])


def exact_float32(images: NDArray[Any], what: str) -> Images:
    """Return images as float32, refusing values that would change.

    Raises
    ------
    BlobError
        Where a float64 value has more digits than float32 holds, or a pixel is not finite.
    """
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(images, dtype=np.float32)
    bad = ~np.isfinite(single)
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        raise BlobError(f"{what} has {int(bad.sum())} pixels that are not finite, the first at {where}")
    if images.dtype != np.float32 and not np.array_equal(single, images):
        raise BlobError(f"{what} is {images.dtype} with more digits than float32 holds; convert it first")
    return single


class ParquetSource:
    """Parquet of npz blobs: one row a pair. A file, or a folder whose sub-folders name columns (hive)."""

    layout = "parquet"

    def __init__(self, path: Path, mapping: Mapping) -> None:
        import pyarrow as pa
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        self._mapping = mapping
        blobs = {mapping.stamp_column, mapping.control_column}
        try:
            dataset = ds.dataset(path, format="parquet", partitioning="hive")
            fragments = sorted(dataset.get_fragments(), key=lambda fragment: fragment.path)
            self._files = [(f.path, ds.get_partition_keys(f.partition_expression)) for f in fragments]
            schemas = []
            for file, keys in self._files:
                schema = pq.read_schema(file)
                absent = blobs - set(schema.names)
                if absent:
                    raise ImportSourceError(
                        f"{file}: has no column {', '.join(sorted(absent))}; name the columns of npz blobs "
                        "in --map (stamp_column, control_column)"
                    )
                for name, value in keys.items():
                    if name not in schema.names:
                        schema = schema.append(pa.field(name, pa.scalar(value).type))
                schemas.append(schema.remove_metadata())
            whole = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise ImportSourceError(f"{path}: is no readable parquet set ({reason})") from error
        if not self._files:
            raise ImportSourceError(f"{path}: holds no parquet files; give a file or a folder of them")
        self._schema = pa.schema([f for f in whole if f.name not in blobs])
        self.bands, self.pixscale_arcsec = self._look(path)

    def _look(self, path: Path) -> tuple[str, float | None]:
        """Return the bands of the first stamp that can be read, and the pixel scale if a column has it."""
        scale = self._mapping.pixscale_arcsec
        reason = "it has no rows"
        for batch in self._rows():
            if scale is None and "pixscale_arcsec" in batch.column_names and batch.num_rows:
                scale = batch.column("pixscale_arcsec")[0].as_py()
            for blob in batch.column(self._mapping.stamp_column):
                try:
                    images = decode_cutout(blob.as_py(), _MAX_BLOB_BYTES)
                except BlobError as error:
                    reason = str(error)
                    continue
                found = "".join(sorted(images, key=lambda band: (BAND_ORDER.find(band) % 99, band)))
                if self._mapping.bands in (None, found) or set(found) == set(self._mapping.bands or ""):
                    return self._mapping.bands or found, scale
                reason = f"the first stamps have bands {found}, not {self._mapping.bands}"
        raise ImportSourceError(f"{path}: no stamp can be read ({reason})")

    def _rows(self) -> Iterator[pa.Table]:
        """Yield tables of at most ``BATCH_ROWS`` rows, blobs and folder keys included."""
        for file, keys in self._files:
            try:
                yield from self._rows_of(file, keys)
            except ImportSourceError:
                raise
            except Exception as error:  # arrow raises what its decoders raise
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ImportSourceError(f"{file}: is damaged ({reason}): fetch it again") from error

    def _rows_of(self, file: str, keys: dict[str, Any]) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        # pre_buffer holds a row group, and a read without a buffer a column of it: gigabytes of blobs
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=_READ_BYTES) as parquet:
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                table = sound_table(pa.Table.from_batches([batch]).replace_schema_metadata(None))
                for name, value in keys.items():
                    if name not in table.column_names:
                        table = table.append_column(name, pa.array([value] * table.num_rows))
                yield table

    def batches(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[Batch]:
        """Yield all rows in order."""
        first = 0
        names = self._mapping.stamp_column, self._mapping.control_column
        for table in self._rows():
            blobs = [table.column(name) for name in names]
            decoders: list[Callable[[], Pair] | None] = []
            for row in range(table.num_rows):
                pair = [blob[row].as_py() for blob in blobs] if is_asked_for(wanted, first + row) else None
                decoders.append(None if pair is None else partial(self._decode, *pair))
            parameters = table.select([f.name for f in self._schema if f.name in table.column_names])
            yield Batch(
                first, self._mapping.apply(_completed(parameters, self._schema)), decode_all(decoders)
            )
            first += table.num_rows

    def _decode(self, stamp: Any, control: Any) -> Pair:
        found = []
        for name, blob in ((self._mapping.stamp_column, stamp), (self._mapping.control_column, control)):
            try:
                images = decode_cutout(blob, _MAX_BLOB_BYTES)
                # decided by type here, before bands are stacked to one
                found.append(exact_float32(np.stack(_in_order(images, self.bands)), "it"))
            except BlobError as error:
                raise BlobError(f"{name}: {error}") from error
        return found[0], found[1]


def _in_order(images: dict[str, NDArray[np.floating]], bands: str) -> list[NDArray[np.floating]]:
    stack_bands(images, bands)  # refuses other bands, and bands of different shapes
    return [images[band] for band in bands]


def _completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a file's columns to the whole set's types; a column that it lacks is null."""
    import pyarrow as pa

    columns = [
        table.column(f.name).cast(f.type)
        if f.name in table.column_names
        else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.table(columns, schema=schema)


def natural_order(path: Path) -> list[Any]:
    """Sort key by which row-9 comes before row-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.as_posix())]
