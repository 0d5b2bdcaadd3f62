"""A store is plain zarr v3: other implementations read the same pixels; each skips where it is absent."""

from __future__ import annotations

import numpy as np
import pytest

from arcforge.engine import durable
from arcforge.engine.arrays import ImageArray
from arcforge.engine.errors import StoreCorruptError
from arcforge.engine.image_reader import ImageReader
from arcforge.engine.shards import ABSENT


def test_tensorstore_reads_the_same_pixels(written):
    tensorstore = pytest.importorskip("tensorstore")

    def read(path: str) -> np.ndarray:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(written.root / path)}}
        return np.asarray(tensorstore.open(spec, read=True).result()[...].read().result())

    np.testing.assert_array_equal(read("arcs"), written.arcs)
    np.testing.assert_array_equal(read("hosts/pixels"), written.hosts.pixels)
    np.testing.assert_array_equal(read("columns/host_index"), written.host_index)


def test_zarrs_reads_the_same_pixels(written):
    pytest.importorskip("zarrs")
    zarr = pytest.importorskip("zarr")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(str(written.root / "arcs"), mode="r")
        np.testing.assert_array_equal(array[:], written.arcs)
        np.testing.assert_array_equal(array[130:143], written.arcs[130:143])


def test_any_range_is_what_zarr_gives(written):
    zarr = pytest.importorskip("zarr")
    array = zarr.open_array(str(written.root / "arcs"), mode="r")
    reader = ImageReader(written.root, "arcs")
    assert (reader.chunk_rows, reader.row_shape) == (16, (2, 8, 8))
    for first, stop in [(0, 600), (0, 1), (15, 17), (250, 530), (599, 600), (512, 512), (511, 513), (3, 3)]:
        found = reader.read(first, stop)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, array[first:stop])
    for first, stop in [(-1, 3), (5, 601), (7, 6)]:
        with pytest.raises(IndexError):
            reader.read(first, stop)


def test_every_flipped_byte_is_noticed_or_harmless(written):
    """Any byte of a shard: its chunk and its index have checksums, so no wrong pixel is read in silence."""
    path = written.root / "arcs" / "c" / "1" / "0" / "0" / "0"
    good = path.read_bytes()
    noticed = 0
    for place in np.random.default_rng(3).integers(0, len(good), 60):
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            found = ImageReader(written.root, "arcs").read(256, 512)
        except StoreCorruptError as error:
            assert "cannot be decoded" in str(error)  # noqa: PT017
            noticed += 1
        else:
            np.testing.assert_array_equal(found, written.arcs[256:512])
    assert noticed == 60


def test_codecs_of_another_writer_are_refused(written):
    path = written.root / "arcs" / "zarr.json"
    path.write_text(path.read_text().replace('"blosc"', '"gzip"'))
    with pytest.raises(StoreCorruptError, match="gzip"):
        ImageReader(written.root, "arcs").read(0, 1)


def test_no_rows_are_no_read_and_an_absent_chunk_is_told(written, monkeypatch):
    reader = ImageReader(written.root, "arcs")
    assert reader.read(512, 512).shape == (0, 2, 8, 8)
    real = ImageReader._index

    def without_the_second(self, shard):
        index = real(self, shard).copy()
        index[1] = ABSENT
        return index

    monkeypatch.setattr(ImageReader, "_index", without_the_second)
    np.testing.assert_array_equal(reader.read(0, 16), written.arcs[:16])
    with pytest.raises(StoreCorruptError, match="a chunk of shard 0 is not there"):
        reader.read(0, 32)


def test_pixels_that_are_not_compressed_are_read(tmp_path):
    pixels = np.random.default_rng(3).normal(size=(40, 1, 4, 4)).astype(np.float32)
    array = ImageArray("arcs", pixels.shape, 8, 32, compression=None)
    files = dict(array.metadata())
    for shard, first in ((0, 0), (1, 32)):
        files |= {key: bytes(data) for key, data in array.encode(shard, pixels[first : first + 32]).items()}
    for key, data in files.items():
        durable.place(tmp_path / key, data)
    reader = ImageReader(tmp_path, "arcs")
    for first, stop in ((0, 40), (3, 35)):
        np.testing.assert_array_equal(reader.read(first, stop), pixels[first:stop])
