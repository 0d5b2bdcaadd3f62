"""Cutout blobs come from elsewhere: what is not an image of floats of a sane size is refused, never run."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest

from arcforge.engine.blobs import BlobError, decode_cutout, stack_bands

LIMIT = 1 << 20


def packed(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def test_round_trip_keeps_values_bands_and_type():
    images = {
        f"image_{b}": np.random.default_rng(k).normal(size=(5, 7)).astype(np.float32)
        for k, b in enumerate("grz")
    }
    decoded = decode_cutout(packed(**images), LIMIT)
    stacked = stack_bands(decoded, "zrg")
    assert stacked.shape == (3, 5, 7)
    assert stacked.dtype == np.float32
    np.testing.assert_array_equal(stacked[0], images["image_z"])
    assert decode_cutout(packed(image_r=np.zeros((4, 4))), LIMIT)["r"].dtype == np.float64


def test_fortran_order_and_big_endian_are_understood():
    image = np.arange(12.0).reshape(3, 4)
    for stored in (np.asfortranarray(image), image.astype(">f4")):
        np.testing.assert_array_equal(decode_cutout(packed(image_r=stored), LIMIT)["r"], image)


def test_a_pickle_is_never_opened():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the blob was unpickled",))

    objects = np.empty((2, 2), dtype=object)
    objects[0, 0] = Bomb()
    buffer = io.BytesIO()
    np.save(buffer, objects, allow_pickle=True)
    for blob in (zipped("image_r.npy", buffer.getvalue()), pickle.dumps(Bomb())):
        with pytest.raises(BlobError):
            decode_cutout(blob, LIMIT)


def test_a_bomb_is_refused_before_it_is_unpacked():
    blob = packed(image_r=np.zeros((2000, 2000), dtype=np.float32))
    assert len(blob) < 100_000
    with pytest.raises(BlobError, match="unpacks to 16000"):
        decode_cutout(blob, LIMIT)


def test_a_header_that_lies_about_the_shape_is_refused():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 4), dtype=np.float32))
    lie = buffer.getvalue().replace(b"(4, 4)", b"(9, 9)")
    with pytest.raises(BlobError, match=r"64 bytes for shape \(9, 9\)"):
        decode_cutout(zipped("image_r.npy", lie), LIMIT)


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (None, "null"),
        (b"", "not a readable npz"),
        (packed(image_r=np.zeros((4, 4), dtype=np.float32))[:-30], "not a readable npz"),
        (packed(other=np.zeros((4, 4))), "no array image_"),
        (packed(image_r=np.zeros((4, 4), dtype=np.int16)), "dtype int16"),
        (packed(image_r=np.zeros((2, 4, 4))), "2-D"),
    ],
)
def test_what_is_no_cutout_is_named(blob, said):
    with pytest.raises(BlobError, match=said):
        decode_cutout(blob, LIMIT)


def test_a_flipped_byte_is_found_by_the_archive_checksum():
    blob = bytearray(packed(image_r=np.random.default_rng(1).normal(size=(32, 32)).astype(np.float32)))
    blob[len(blob) // 2] ^= 0xFF
    with pytest.raises(BlobError):
        decode_cutout(bytes(blob), LIMIT)


def test_a_missing_band_and_unequal_shapes_are_named():
    with pytest.raises(BlobError, match="bands g where the set has gr"):
        stack_bands({"g": np.zeros((2, 2))}, "gr")
    with pytest.raises(BlobError, match="different shapes"):
        stack_bands({"g": np.zeros((2, 2)), "r": np.zeros((3, 2))}, "gr")
