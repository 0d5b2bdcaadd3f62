"""Shards encoded directly are the bytes that zarr writes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import zarr
import zarr.codecs
import zarr.storage

from arcforge.engine.arrays import encode_column, read_column
from arcforge.engine.shards import DEFAULT_COMPRESSION, Compression, encode_shard, room_for

CHUNK_ROWS, SHARD_ROWS = 4, 16
COMPRESSIONS = {
    "default": DEFAULT_COMPRESSION,
    "zstd": Compression("zstd", 3, "shuffle"),
    "unshuffled": Compression("lz4", 1, "noshuffle"),
    "none": None,
}


def pixels(n: int, size: int = 8) -> np.ndarray:
    """Numbers with zero bits at their ends, as paired arcs have them."""
    values = np.random.default_rng(5).exponential(0.1, (n, 2, size, size))
    return (np.round(values * 2**14) / 2**14).astype(np.float32)


def by_zarr(rows: np.ndarray, compression: Compression | None) -> bytes:
    files: dict = {}
    codecs: list = [zarr.codecs.Crc32cCodec()]
    if compression is not None:
        blosc = zarr.codecs.BloscCodec(
            cname=compression.cname, clevel=compression.level, shuffle=compression.shuffle, typesize=4
        )
        codecs.insert(0, blosc)
    array = zarr.create_array(
        zarr.storage.MemoryStore(files),
        name="a",
        shape=rows.shape,
        chunks=(CHUNK_ROWS, *rows.shape[1:]),
        shards=(SHARD_ROWS, *rows.shape[1:]),
        dtype="float32",
        compressors=codecs,
        fill_value=np.nan,
        config={"write_empty_chunks": True},
    )
    array[:] = rows
    return bytes(files["a/c/0/0/0/0"].to_bytes())


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
@pytest.mark.parametrize("n", [SHARD_ROWS, SHARD_ROWS - 1, CHUNK_ROWS, 1])
def test_a_shard_is_what_zarr_writes(n, compression):
    rows = pixels(n)
    assert bytes(encode_shard(rows, CHUNK_ROWS, SHARD_ROWS, compression)) == by_zarr(rows, compression)


def test_a_shard_goes_over_an_earlier_one():
    into = room_for(SHARD_ROWS, CHUNK_ROWS, pixels(1).nbytes)
    longer = len(encode_shard(pixels(SHARD_ROWS), CHUNK_ROWS, SHARD_ROWS, None, into))
    for n in (1, SHARD_ROWS):
        rows = pixels(n)
        found = encode_shard(rows, CHUNK_ROWS, SHARD_ROWS, DEFAULT_COMPRESSION, into)
        assert bytes(found) == by_zarr(rows, DEFAULT_COMPRESSION)
        assert len(found) < longer <= len(into)


def test_bytes_do_not_depend_on_the_thread_that_asks():
    """blosc uses threads of its own in the main thread, for chunks of several blocks like these."""
    rows = pixels(64, size=64)
    here = [encode_shard(rows, 64, 64, DEFAULT_COMPRESSION) for _ in range(3)]
    there: list = []
    thread = threading.Thread(target=lambda: there.append(encode_shard(rows, 64, 64, DEFAULT_COMPRESSION)))
    thread.start()
    thread.join()
    assert here == [there[0]] * 3


def test_rows_that_are_not_contiguous_are_encoded_as_they_read():
    rows = pixels(2 * SHARD_ROWS)[::2]
    direct = encode_shard(rows, CHUNK_ROWS, SHARD_ROWS, DEFAULT_COMPRESSION)
    assert direct == encode_shard(rows.copy(), CHUNK_ROWS, SHARD_ROWS, DEFAULT_COMPRESSION)


def test_a_column_of_many_chunks_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("arcforge.engine.arrays.COLUMN_CHUNK_ROWS", 4)
    values = np.arange(11.0)
    for key, data in encode_column("columns/x", 11, 0, values).items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    np.testing.assert_array_equal(read_column(tmp_path, "columns/x"), values)
