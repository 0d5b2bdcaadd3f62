"""Shards of zarr v3 encoded directly: the bytes that zarr writes, at less than half of its processor time.

A shard is its inner chunks one after the other, then an index: offset and length of every chunk (uint64,
little endian) and the CRC-32C of that table; zarr v3, codec "sharding_indexed", index at the end.
zarr-python copies every chunk several times on the way and hands each to a pool of threads; here a chunk is
compressed from where it lies. The tests compare the bytes with zarr's.
"""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

CHECKSUM_BYTES = 4
ABSENT = 2**64 - 1  # offset and length of a chunk that lies beyond the array


class Compression(NamedTuple):
    """A setting of blosc; the chunks' bytes are float32."""

    cname: str
    level: int
    shuffle: str


# LZ4 after a byte shuffle: 0.72 of an arc's bytes at 50 us a three-band stamp, beside the rendering. A bit
# shuffle takes a fifth longer and leaves as much; zstd leaves 0.65 at four times the cost ("arcforge bench
# store").
DEFAULT_COMPRESSION = Compression("lz4", 5, "shuffle")
_SHUFFLES = {"noshuffle": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}


def room_for(shard_rows: int, chunk_rows: int, row_bytes: int) -> mmap.mmap:
    """Return memory that holds the file of any shard, whole pages: pages not written to take no memory."""
    per_chunk = chunk_rows * row_bytes + blosc.MAX_OVERHEAD + CHECKSUM_BYTES + 2 * np.dtype("<u8").itemsize
    return mmap.mmap(-1, shard_rows // chunk_rows * per_chunk + CHECKSUM_BYTES)


def encode_shard(
    pixels: NDArray[np.float32],
    chunk_rows: int,
    shard_rows: int,
    compression: Compression | None,
    into: mmap.mmap | None = None,
) -> memoryview:
    """Return the file of one shard.

    Parameters
    ----------
    pixels
        (k <= shard_rows, bands, ny, nx). Rows that are lacking at the array's end are NaN.
    chunk_rows, shard_rows
        Rows of an inner chunk, a divisor of the rows of a shard.
    compression
        None: chunks are stored as they are. Either way each has its CRC-32C.
    into
        Where the file goes, from ``room_for``; what is returned is a view of it. Fresh memory costs as much
        as a copy.
    """
    into = room_for(shard_rows, chunk_rows, pixels[0].nbytes) if into is None else into
    # In the main thread, blosc starts threads of its own, which leave their blocks in the order they finish.
    with ThreadPoolExecutor(1, thread_name_prefix="arcforge-encoder") as pool:
        size = pool.submit(_encode_shard, pixels, chunk_rows, shard_rows, compression, into).result()
    return memoryview(into)[:size]


def _encode_shard(
    pixels: NDArray[np.float32],
    chunk_rows: int,
    shard_rows: int,
    compression: Compression | None,
    into: mmap.mmap,
) -> int:
    """Write the shard to the start of ``into`` and return its length."""
    index = np.full((shard_rows // chunk_rows, 2), ABSENT, dtype="<u8")
    size = 0
    for chunk, first in enumerate(range(0, len(pixels), chunk_rows)):
        rows = pixels[first : first + chunk_rows]
        if len(rows) < chunk_rows:
            rows = np.full((chunk_rows, *pixels.shape[1:]), np.nan, dtype=np.float32)
            rows[: len(pixels) - first] = pixels[first:]
        encoded = _compress(rows, compression)
        index[chunk] = size, len(encoded) + CHECKSUM_BYTES
        size = _append(into, size, encoded)
    return _append(into, size, index.tobytes())


def _append(into: mmap.mmap, size: int, data: bytes) -> int:
    """Put data and their checksum behind the first ``size`` bytes; return the bytes there are then."""
    end = size + len(data)
    into[size:end] = data
    into[end : end + CHECKSUM_BYTES] = _checksum(data)
    return end + CHECKSUM_BYTES


def _compress(rows: NDArray[np.float32], compression: Compression | None) -> bytes:
    rows = np.ascontiguousarray(rows, dtype="<f4")
    if compression is None:
        return rows.tobytes()
    encoded: bytes = blosc.compress(
        rows, compression.cname.encode(), compression.level, _SHUFFLES[compression.shuffle], typesize=4
    )
    return encoded


def _checksum(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")
