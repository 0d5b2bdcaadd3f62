"""Rows of a sharded image array, read without zarr: only the chunks that are asked for, each checked.

zarr-python takes milliseconds to find its way to one chunk, however small; a loader asks for thousands. This
reads the two or three codecs that :mod:`arcforge.engine.shards` writes and refuses any other. What is not
there is an error here, never fill.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from arcforge.engine.errors import StoreCorruptError
from arcforge.engine.places import read_range
from arcforge.engine.shards import ABSENT, CHECKSUM_BYTES

Pixels = NDArray[np.float32]
_INDEX_ITEM = 16  # bytes: offset and length


class _Layout(NamedTuple):
    shape: tuple[int, ...]
    chunk_rows: int
    shard_rows: int
    is_compressed: bool


class ImageReader:
    """Reads rows of a (row, band, y, x) array of a store; opens it on first use.

    It holds no open file, and may be used by several threads and sent to other processes.
    """

    def __init__(self, root: Path, path: str) -> None:
        self._where = root / path
        self._indexes: dict[int, NDArray[np.uint64]] = {}

    @cached_property
    def _layout(self) -> _Layout:
        try:
            metadata = json.loads((self._where / "zarr.json").read_bytes())
            (outer,) = metadata["codecs"]
            inner = outer["configuration"]
            names = [codec["name"] for codec in inner["codecs"]]
            known = (["bytes", "crc32c"], ["bytes", "blosc", "crc32c"])
            if (
                metadata["data_type"] != "float32"
                or outer["name"] != "sharding_indexed"
                or names not in known
            ):
                raise ValueError(f"codecs {names} of {metadata['data_type']} are not those of a store")
            return _Layout(
                tuple(metadata["shape"]),
                int(inner["chunk_shape"][0]),
                int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0]),
                "blosc" in names,
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise StoreCorruptError(f"{self._where}: is not a readable array ({error})") from error

    @property
    def chunk_rows(self) -> int:
        """Rows of an inner chunk, the least that is decoded."""
        return self._layout.chunk_rows

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self._layout.shape[1:]

    def read(self, first: int, stop: int) -> Pixels:
        """Return the rows ``first`` to ``stop - 1``.

        Raises
        ------
        StoreCorruptError
            Where a chunk is not there, does not hold its checksum or cannot be decoded.
        """
        layout = self._layout
        if not 0 <= first <= stop <= layout.shape[0]:
            raise IndexError(f"rows {first} to {stop - 1} of {layout.shape[0]}")
        out = np.empty((stop - first, *layout.shape[1:]), dtype="<f4")
        try:
            for shard in range(first // layout.shard_rows, -(-stop // layout.shard_rows)):
                begin = shard * layout.shard_rows
                low, high = max(first, begin), min(stop, begin + layout.shard_rows)
                self._read_shard(shard, low - begin, high - begin, out[low - first : high - first])
        except StoreCorruptError:
            raise
        except Exception as error:  # a codec raises whatever it likes at damaged bytes
            raise StoreCorruptError(
                f"{self._where}: rows {first} to {stop - 1} cannot be decoded ({error}); "
                "run 'arcforge verify --level full' to find the damaged file"
            ) from error
        return out.astype(np.float32, copy=False)

    def _read_shard(self, shard: int, low: int, high: int, out: NDArray[Any]) -> None:
        """Read rows ``low`` to ``high - 1`` of one shard: its neighbouring chunks in one go."""
        step = self._layout.chunk_rows
        chunks = range(low // step, -(-high // step))
        if not len(chunks):
            return
        index = self._index(shard)[chunks.start : chunks.stop]
        if (index == ABSENT).any():
            raise ValueError(f"a chunk of shard {shard} is not there")
        start, end = int(index[:, 0].min()), int(index.sum(axis=1).max())
        data = memoryview(read_range(self._file(shard), start, end - start))
        for chunk, (offset, length) in zip(chunks, index.tolist(), strict=True):
            encoded = data[offset - start : offset - start + length]
            self._decode(encoded, chunk * step, low, high, out)

    def _decode(self, encoded: memoryview, begin: int, low: int, high: int, out: NDArray[Any]) -> None:
        """Decode a chunk whose first row is ``begin`` and put the rows that are wanted in their place."""
        step = self._layout.chunk_rows
        payload = _checked(encoded)
        whole = begin >= low and begin + step <= high
        if whole:
            target = out[begin - low : begin - low + step]
        else:
            target = np.empty((step, *self._layout.shape[1:]), dtype="<f4")
        if self._layout.is_compressed:
            blosc.decompress(payload, target)
        else:
            target[...] = np.frombuffer(payload, dtype="<f4").reshape(target.shape)
        if not whole:
            first, stop = max(begin, low), min(begin + step, high)
            out[first - low : stop - low] = target[first - begin : stop - begin]

    def _file(self, shard: int) -> Path:
        return self._where / f"c/{shard}/0/0/0"

    def _index(self, shard: int) -> NDArray[np.uint64]:
        """Return (chunks, 2): offset and length of every chunk; kept, 1 kB a shard."""
        if shard not in self._indexes:
            n_chunks = self._layout.shard_rows // self._layout.chunk_rows
            size = n_chunks * _INDEX_ITEM + CHECKSUM_BYTES
            table = _checked(memoryview(read_range(self._file(shard), -size, size)))
            self._indexes[shard] = np.frombuffer(table, dtype="<u8").reshape(n_chunks, 2)
        return self._indexes[shard]


def _checked(data: memoryview) -> bytes:
    """Return data without the CRC-32C at its end, which must hold."""
    payload = bytes(data[:-CHECKSUM_BYTES])
    stored = int.from_bytes(data[-CHECKSUM_BYTES:], "little")
    if len(data) < CHECKSUM_BYTES or google_crc32c.value(payload) != stored:
        raise ValueError("a checksum (CRC-32C) does not hold")
    return payload
