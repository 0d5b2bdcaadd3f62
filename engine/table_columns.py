"""The catalogue as parquet parts, and as 1-D zarr arrays for readers that know zarr only.

The arrays are made from the committed parts, a quarter of a million rows at a time, so that memory does not
grow with the store.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.arrays import (
    COLUMN_CHUNK_ROWS,
    Encoded,
    encode_column,
    encode_group,
)
from arcforge.engine.commits import Files, read_committed
from arcforge.engine.plan import Plan
from arcforge.engine.store_status import catalog_key

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# What serves as a folder's name on every system.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


def encode_table(table: pa.Table) -> bytes:
    """Return a table as parquet; equal tables give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue().to_pybytes())


def column_files(root: Path, plan: Plan, files: Files) -> Iterator[Encoded]:
    """Yield the files of the group ``columns``, the same chunk of every column at a time.

    A column that no zarr array can hold exactly (nulls that are not floating point, dates, lists, a name that
    is no folder name) stays in parquet only; the group's attribute ``parquet_only`` names it.

    Raises
    ------
    StoreCorruptError
        Where a committed part of the catalogue has changed.
    """
    dtypes, parquet_only = _choose(_buffers(root, range(plan.n_shards), files))
    yield encode_group("columns", {"parquet_only": parquet_only})
    shards_a_chunk = COLUMN_CHUNK_ROWS // plan.shard_rows
    for chunk, first in enumerate(range(0, plan.n_shards, shards_a_chunk)):
        shards = range(first, min(first + shards_a_chunk, plan.n_shards))
        table = _concat(_buffers(root, shards, files))
        encoded: Encoded = {}
        for name, dtype in dtypes.items():
            values = _to_numpy(table.column(name), dtype)
            encoded |= encode_column(f"columns/{name}", plan.n_rows, chunk * COLUMN_CHUNK_ROWS, values)
        yield encoded


def _buffers(root: Path, shards: range, files: Files) -> Iterator[pa.BufferReader]:
    """Yield the parquet parts of shards, checked against their hashes."""
    import pyarrow as pa

    for shard in shards:
        key = catalog_key(shard)
        yield pa.BufferReader(read_committed(root, key, files[key]))


def _concat(parts: Iterable[pa.BufferReader]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.concat_tables(pq.read_table(part) for part in parts)


def _choose(parts: Iterable[pa.BufferReader]) -> tuple[dict[str, Any], list[str]]:
    """Return the dtype of every column that becomes an array, and the names of those that do not."""
    import pyarrow.parquet as pq

    nulls: Counter[str] = Counter()
    schema: pa.Schema = None
    for part in parts:
        file = pq.ParquetFile(part)
        schema = file.schema_arrow
        nulls.update(_count_nulls(file.metadata))
    folded = Counter(name.lower() for name in schema.names)
    dtypes, parquet_only = {}, []
    for field in schema:
        dtype = _dtype(field.type, has_nulls=nulls[field.name] > 0)
        plain = _PLAIN_NAME.match(field.name) and folded[field.name.lower()] == 1
        if dtype is None or not plain:
            parquet_only.append(field.name)
        else:
            dtypes[field.name] = dtype
    return dtypes, parquet_only


def _count_nulls(metadata: pq.FileMetaData) -> Counter[str]:
    """Count the nulls of every column from the file's own statistics; without them, assume one."""
    nulls: Counter[str] = Counter()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            known = column.statistics
            nulls[column.path_in_schema] += known.null_count if known and known.has_null_count else 1
    return nulls


def _dtype(kind: pa.DataType, *, has_nulls: bool) -> Any:
    """Return the numpy dtype that holds an arrow type exactly, None where there is none."""
    import pyarrow.types as is_a

    if is_a.is_floating(kind):
        return _numpy_dtype(kind)  # null becomes NaN
    if has_nulls:
        return None
    if is_a.is_boolean(kind) or is_a.is_integer(kind):
        return _numpy_dtype(kind)
    text = kind.value_type if is_a.is_dictionary(kind) else kind
    return np.dtypes.StringDType() if is_a.is_string(text) or is_a.is_large_string(text) else None


def _numpy_dtype(kind: pa.DataType) -> np.dtype[Any]:
    """The numpy dtype of numbers; arrow's own ``to_pandas_dtype`` wants pandas in some versions."""
    names = {"halffloat": "float16", "float": "float32", "double": "float64"}
    return np.dtype(names.get(str(kind), str(kind)))


def _to_numpy(column: pa.ChunkedArray, dtype: Any) -> NDArray[Any]:
    if isinstance(dtype, np.dtypes.StringDType):
        return np.array(column.to_pylist(), dtype=dtype)
    return np.asarray(column.to_numpy(), dtype=dtype)
