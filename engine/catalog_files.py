"""Reading catalogue files: parquet, CSV, ECSV and FITS tables become one kind of table."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

# Names stay text even where every one of them looks like a number ("0017" is not 17).
_TEXT_COLUMNS = (
    "task_id",
    "host_id",
    "source_id",
    "lens_model",
    "psf_model",
    "theta_e_convention",
    "split",
    "brickname",
)


def read_catalog(path: str | os.PathLike[str]) -> pa.Table:
    """Read a catalogue file.

    Parameters
    ----------
    path : path
        ``.parquet`` (a file or a hive-partitioned folder), ``.csv``, ``.ecsv``, or a FITS table
        (``.fits``, ``.fit``, also gzipped): the first table extension.

    Returns
    -------
    pyarrow.Table
        All columns but binary ones: pixel blobs that some parquet layouts carry are no parameters.

    Raises
    ------
    CatalogError
        The file is absent, of another kind, unreadable or without rows.
    """
    file = Path(path)
    if not file.exists():
        raise CatalogError(f"catalogue {file} does not exist: check the path")
    name = file.name.lower().removesuffix(".gz")
    if file.is_dir() or name.endswith((".parquet", ".pq")):
        read = _read_parquet
    elif name.endswith(".csv"):
        read = _read_csv
    elif name.endswith((".ecsv", ".fits", ".fit")):
        read = _read_astropy
    else:
        raise CatalogError(f"catalogue {file} is of an unknown kind: use .parquet, .csv, .ecsv or .fits")
    try:
        table = sound_table(read(file))
    except CatalogError:
        raise
    except Exception as error:  # every reader has its own exceptions; each means that the file is bad
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CatalogError(f"catalogue {file} is unreadable ({reason}): check that it is whole") from error
    if table.num_rows == 0:
        raise CatalogError(f"catalogue {file} has no rows: give at least one")
    return table


def sound_table(table: pa.Table) -> pa.Table:
    """Return a table after a look at what arrow takes on trust: texts, offsets and names of columns.

    Raises
    ------
    ValueError, pyarrow.ArrowException
        Damaged, or with two columns of one name.
    """
    names = table.column_names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns are called {twice!r}")
    table.validate(full=True)
    return table


def numbers_of(table: pa.Table, name: str, where: str) -> NDArray[np.float64]:
    """Return a column as float64, NaN where it is null.

    Parameters
    ----------
    table : pyarrow.Table
    name : str
        Of one of its columns.
    where : str
        What the table is, for the message.

    Raises
    ------
    CatalogError
        It holds something that is no number; names the first.
    """
    import pyarrow as pa

    column = table.column(name)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):  # millions, at once
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    values = column.to_pylist()
    out = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            out[row] = np.nan if value is None else float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise CatalogError(
                f"{where} row {row}: {name} is {str(value)[:40]!r}, which is no number: correct it"
            ) from error
    return out


def _read_parquet(file: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import dataset

    source = dataset.dataset(file, format="parquet", partitioning="hive" if file.is_dir() else None)
    blobs = (pa.types.is_binary, pa.types.is_large_binary)
    names = [field.name for field in source.schema if not any(is_blob(field.type) for is_blob in blobs)]
    return source.to_table(columns=names)


def _read_csv(file: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    options = csv.ConvertOptions(
        column_types={name: pa.string() for name in _TEXT_COLUMNS}, strings_can_be_null=True
    )
    return csv.read_csv(file, convert_options=options)


def _read_astropy(file: Path) -> pa.Table:
    import pyarrow as pa
    from astropy.table import Table

    from arcforge.engine.fits_images import check_fits
    from arcforge.engine.host_files import unpacked

    if ".ecsv" in file.name.lower():
        table = Table.read(file, format="ascii.ecsv")
    else:
        content = unpacked(file.name, file.read_bytes())
        check_fits(content)
        table = Table.read(io.BytesIO(content), format="fits")
    return pa.table({name: _arrow_array(name, table[name], file) for name in table.colnames})


def _arrow_array(name: str, column: Any, file: Path) -> pa.Array:
    """One astropy column as an arrow array: native byte order, masked entries null, FITS strings as text."""
    import pyarrow as pa

    values = np.ma.asarray(column)
    if values.ndim != 1:
        raise CatalogError(f"catalogue {file}: column {name} has shape {values.shape}: give scalar columns")
    data, mask = np.asarray(values.data), np.ma.getmaskarray(values)
    if data.dtype.kind == "S":
        data = np.char.decode(data, "utf-8")
    if data.dtype.kind == "U":
        data = data.astype(object)
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    return pa.array(data, mask=mask)
