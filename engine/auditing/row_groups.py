"""Parquet sets of pairs, read a row group at a time: the columns of pixels row by row, the others whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog_files import sound_table
from arcforge.engine.errors import AuditInputError

if TYPE_CHECKING:
    import pyarrow as pa

Integers = NDArray[np.int64]

STAMP_COLUMN, CONTROL_COLUMN = "stamp_npz", "ctrl_stamp_npz"


@dataclass(frozen=True)
class RowGroup:
    """One row group of one parquet file."""

    file: str
    filesystem: Any
    index: int
    first_row: int
    n_rows: int
    partition: dict[str, Any]  #: hive keys of the file's folder
    columns: tuple[str, ...]  #: that hold pixels

    def blobs(self, wanted: Integers | None, size: int) -> Iterator[tuple[Any, ...]]:
        """Yield (row, blob of each pixel column) of the wanted rows, reading ``size`` rows at a time.

        Raises
        ------
        AuditInputError
            The row group is damaged.
        """
        try:
            yield from self._blobs(wanted, size)
        except Exception as error:  # arrow raises what its decoders raise
            raise AuditInputError(
                f"{self.file}: rows from {self.first_row} on are damaged ({one_line(error)}); fetch it again"
            ) from error

    def _blobs(self, wanted: Integers | None, size: int) -> Iterator[tuple[Any, ...]]:
        import pyarrow.parquet as pq

        # pre_buffer would hold the whole row group's blobs in memory
        with pq.ParquetFile(self.file, filesystem=self.filesystem, pre_buffer=False) as parquet:
            row = self.first_row
            for batch in parquet.iter_batches(
                batch_size=size, row_groups=[self.index], columns=list(self.columns)
            ):
                blobs = [batch.column(name) for name in self.columns]
                for k in range(len(batch)):
                    if wanted is None or _holds(wanted, row + k):
                        yield (row + k, *(column[k].as_py() for column in blobs))
                row += len(batch)


def _holds(ascending: Integers, value: int) -> bool:
    place = int(np.searchsorted(ascending, value))
    return place < len(ascending) and int(ascending[place]) == value


def list_row_groups(path: str, columns: tuple[str, ...]) -> list[RowGroup]:
    """List the row groups of a file or folder, in the order of the files' names.

    Raises
    ------
    AuditInputError
        Absent, no parquet, without rows, or without one of the columns.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq
    from pyarrow import fs

    pieces: list[RowGroup] = []
    first_row = 0
    try:
        filesystem, inner = fs.FileSystem.from_uri(path) if "://" in path else (fs.LocalFileSystem(), path)
        dataset = ds.dataset(inner, filesystem=filesystem, format="parquet", partitioning="hive")
        for fragment in sorted(dataset.get_fragments(), key=lambda f: f.path):
            with pq.ParquetFile(fragment.path, filesystem=filesystem) as parquet:
                absent = set(columns) - set(parquet.schema_arrow.names)
                if absent:
                    raise AuditInputError(
                        f"{fragment.path}: no column {', '.join(sorted(absent))}; paired sets hold "
                        f"{STAMP_COLUMN} and {CONTROL_COLUMN}, or name theirs with --map"
                    )
                for index in range(parquet.metadata.num_row_groups):
                    n_rows = parquet.metadata.row_group(index).num_rows
                    keys = ds.get_partition_keys(fragment.partition_expression)
                    pieces.append(
                        RowGroup(fragment.path, filesystem, index, first_row, n_rows, keys, columns)
                    )
                    first_row += n_rows
    except (pa.ArrowException, OSError) as error:
        known = path.endswith((".parquet", ".pq"))
        way_out = "fetch it again" if known else "other forms are taken in by 'arcforge import' first"
        raise AuditInputError(
            f"{path}: not a readable store or parquet set ({one_line(error)}); {way_out}"
        ) from error
    if first_row == 0:
        raise AuditInputError(f"{path}: no rows")
    return pieces


def read_scalars(path: str, pieces: list[RowGroup]) -> pa.Table:
    """Everything but the pixels, row groups in order, folder keys as columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for file, filesystem, keys in {p.file: (p.file, p.filesystem, p.partition) for p in pieces}.values():
        try:
            with pq.ParquetFile(file, filesystem=filesystem, pre_buffer=False) as parquet:
                names = [f.name for f in parquet.schema_arrow if not _is_blob(f.type)]
                table = sound_table(parquet.read(columns=names))
        except Exception as error:  # arrow raises what its decoders raise
            raise AuditInputError(f"{file}: is damaged ({one_line(error)}); fetch it again") from error
        for key, value in keys.items():
            if key not in names:
                table = table.append_column(key, pa.array([value] * table.num_rows))
        tables.append(table)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise AuditInputError(
            f"{path}: its files have columns of different types ({one_line(error)})"
        ) from error


def _is_blob(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def one_line(error: Exception) -> str:
    """Return the beginning of another library's message as one line."""
    return " ".join(str(error).split())[:200]
