"""The one module that knows zarr: arrays encoded to bytes in memory, and read back from a store's folder.

Nothing here writes a file. Shards and metadata are encoded into a dictionary; the caller places the bytes
(:mod:`arcforge.engine.durable`). Every inner chunk carries its CRC-32C, so that a flipped byte is an error on
read and never a pixel. Fill is NaN: a shard that is not there cannot pass for an empty sky.
"""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.core.buffer
import zarr.storage
from numpy.typing import NDArray

from arcforge.engine.errors import StoreCorruptError
from arcforge.engine.places import is_object
from arcforge.engine.shards import DEFAULT_COMPRESSION, Compression, encode_shard, room_for

Pixels = NDArray[np.float32]
Encoded = dict[str, bytes | memoryview]  # by path relative to the store

# A column's chunk: what finalise holds of the catalogue at a time (100 MB of a usual one).
COLUMN_CHUNK_ROWS = 1 << 18
METADATA_FILE = "zarr.json"
_DIMENSIONS = ("row", "band", "y", "x")


def encode_group(path: str, attributes: dict[str, Any]) -> Encoded:
    """Return the metadata file of a group below the root."""
    return {f"{path}/{METADATA_FILE}": _group(attributes)}


def encode_root(attributes: dict[str, Any], members: dict[str, bytes] | None = None) -> Encoded:
    """Return the metadata file of the root group.

    Parameters
    ----------
    attributes
        As JSON.
    members
        Metadata files of everything below, by path: they are repeated in the root ("consolidated"), so that a
        reader which lists the group is not led to the folders beside the arrays that are none.
    """
    if members is None:
        return {METADATA_FILE: _group(attributes)}
    nodes = {key.removesuffix(f"/{METADATA_FILE}"): json.loads(text) for key, text in sorted(members.items())}
    root = json.loads(_group(attributes))
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
    return {METADATA_FILE: json.dumps(root, indent=2).encode()}


def _group(attributes: dict[str, Any]) -> bytes:
    files: dict[str, Any] = {}
    zarr.create_group(zarr.storage.MemoryStore(files), attributes=attributes)
    return bytes(files[METADATA_FILE].to_bytes())


class ImageArray:
    """Encodes a (row, band, y, x) float32 array shard by shard, each shard one file."""

    def __init__(
        self,
        path: str,
        shape: tuple[int, int, int, int],
        chunk_rows: int,
        shard_rows: int,
        compression: Compression | None = DEFAULT_COMPRESSION,
    ) -> None:
        self.path = path
        self._chunk_rows, self._shard_rows, self._compression = chunk_rows, shard_rows, compression
        self._row_bytes = 4 * math.prod(shape[1:])
        self._files: dict[str, Any] = {}
        self._own = threading.local()
        codecs: list[Any] = [zarr.codecs.Crc32cCodec()]
        if compression is not None:
            cname, level, shuffle = compression
            codecs.insert(
                0,
                zarr.codecs.BloscCodec(cname=cname, clevel=level, shuffle=shuffle, typesize=4),  # type: ignore[arg-type]
            )
        zarr.create_array(
            zarr.storage.MemoryStore(self._files),
            name=path,
            shape=shape,
            chunks=(chunk_rows, *shape[1:]),
            shards=(shard_rows, *shape[1:]),
            dtype="float32",
            compressors=codecs,
            fill_value=np.nan,
            dimension_names=_DIMENSIONS if path == "arcs" else ("host", *_DIMENSIONS[1:]),
            attributes={"units": "nanomaggies per pixel"},
            # Without it, a chunk of NaN alone would not be written; fill must never stand for data.
            config={"write_empty_chunks": True},
        )

    def metadata(self) -> Encoded:
        """Return the array's metadata file."""
        key = f"{self.path}/{METADATA_FILE}"
        return {key: self._files[key].to_bytes()}

    def encode(self, shard: int, pixels: Pixels) -> Encoded:
        """Return the file of one shard; ``pixels`` are all its rows.

        It lies in memory that belongs to the thread: the thread's next shard overwrites it.
        """
        if not hasattr(self._own, "file"):
            self._own.file = room_for(self._shard_rows, self._chunk_rows, self._row_bytes)
        data = encode_shard(pixels, self._chunk_rows, self._shard_rows, self._compression, self._own.file)
        return {shard_key(self.path, shard): data}


def shard_key(path: str, shard: int) -> str:
    """Path of a shard's file, relative to the store."""
    return f"{path}/c/{shard}/0/0/0"


def encode_column(path: str, n_rows: int, first: int, values: NDArray[Any]) -> Encoded:
    """Return the files of a 1-D array of ``n_rows`` that hold ``values``, which stand from ``first`` on.

    ``first`` is a multiple of ``COLUMN_CHUNK_ROWS``; where it is 0, the metadata is among the files.
    """
    files: dict[str, Any] = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(files),
        name=path,
        shape=(n_rows,),
        chunks=(min(n_rows, COLUMN_CHUNK_ROWS),),
        dtype=values.dtype,
        compressors=[zarr.codecs.ZstdCodec(level=3, checksum=True)],
        fill_value=np.nan if values.dtype.kind == "f" else None,
        dimension_names=("row",),
        config={"write_empty_chunks": True},
    )
    array[first : first + len(values)] = values
    if first:
        del files[f"{path}/{METADATA_FILE}"]
    return {key: data.to_bytes() for key, data in files.items() if key.startswith(f"{path}/")}


def read_attributes(group_json: bytes) -> dict[str, Any] | None:
    """Return a group's attributes from its metadata file, None where it is no zarr v3 group."""
    try:
        metadata = json.loads(group_json)
    except ValueError:
        return None
    if not isinstance(metadata, dict):
        return None
    if (metadata.get("zarr_format"), metadata.get("node_type")) != (3, "group"):
        return None
    attributes = metadata.get("attributes", {})
    return attributes if isinstance(attributes, dict) else None


def read_column(root: Path, path: str) -> NDArray[Any]:
    """Read a 1-D array of a store."""
    try:
        if is_object(root):
            return _read_objects(root, path)
        return np.asarray(zarr.open_array(str(root / path), mode="r")[:])
    except Exception as error:
        raise StoreCorruptError(f"{root / path}: is not a readable column ({error})") from error


def _read_objects(root: Path, path: str) -> NDArray[Any]:
    """Read a 1-D array whose files are objects, each as a whole."""
    metadata = (root / path / METADATA_FILE).read_bytes()
    layout = json.loads(metadata)
    (n_rows,), (step,) = layout["shape"], layout["chunk_grid"]["configuration"]["chunk_shape"]
    buffer = zarr.core.buffer.default_buffer_prototype().buffer
    files = {METADATA_FILE: buffer.from_bytes(metadata)}
    for chunk in range(-(-n_rows // step)):
        files[f"c/{chunk}"] = buffer.from_bytes((root / path / f"c/{chunk}").read_bytes())
    return np.asarray(zarr.open_array(zarr.storage.MemoryStore(files), mode="r")[:])
