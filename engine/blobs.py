"""Cutouts stored as compressed ``.npz`` blobs in a table cell, decoded without trusting them.

A blob comes from someone else's disk: nothing in it is unpickled, and sizes are read from the archive's
directory and the array headers before any memory is given to them.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_MEMBERS = 16
# As numpy's own limit
_MAX_HEADER_BYTES = 10_000
_PREFIX = "image_"
# Bands of the surveys in use, by wavelength: the order in which named images are stacked.
BAND_ORDER = "ugrizyYJHK"


class BlobError(ValueError):
    """A blob that does not hold what it should; the message says what, the caller adds the row."""


def decode_cutout(blob: bytes | None, max_bytes: int) -> dict[str, NDArray[np.floating]]:
    """Decode one blob to its images by band.

    Parameters
    ----------
    blob : bytes or None
        A ``.npz`` archive with one 2-D float array ``image_<band>`` a band.
    max_bytes : int
        Largest sum of decompressed sizes that is accepted.

    Returns
    -------
    dict
        Band letter to image (ny, nx), float32 or float64 as stored.

    Raises
    ------
    BlobError
        The blob is null, no archive, too large, or holds anything else than such images.
    """
    images = {}
    for name, image in read_arrays(blob, max_bytes, _is_image).items():
        if image.dtype.kind != "f":
            raise BlobError(f"{name} has dtype {image.dtype}; images are floats")
        if image.ndim != 2 or min(image.shape) < 1:
            raise BlobError(f"{name} has shape {image.shape}; images are 2-D")
        images[name[-1]] = image
    if not images:
        raise BlobError(f"no array {_PREFIX}<band> in the archive")
    return images


def _is_image(name: str) -> bool:
    return name.startswith(_PREFIX) and len(name) == len(_PREFIX) + 1


def read_arrays(
    blob: bytes | None, max_bytes: int, is_wanted: Callable[[str], bool], max_members: int = _MAX_MEMBERS
) -> dict[str, NDArray[Any]]:
    """Read arrays of numbers or text from a ``.npz`` archive, without trusting it.

    Parameters
    ----------
    blob : bytes or None
    max_bytes : int
        Largest sum of decompressed sizes that is accepted.
    is_wanted : callable
        Tells by its name (without ``.npy``) whether an array is read.
    max_members : int
        Largest number of arrays that is accepted.

    Raises
    ------
    BlobError
        The blob is null, no archive, too large, damaged, or holds pickled objects under a wanted name.
    """
    if blob is None:
        raise BlobError("the blob is null")
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = archive.infolist()
            if not 0 < len(members) <= max_members:
                raise BlobError(f"the archive holds {len(members)} arrays")
            size = sum(member.file_size for member in members)
            if size > max_bytes:
                raise BlobError(f"the archive unpacks to {size} bytes, more than {max_bytes}")
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if is_wanted(name):
                    arrays[name] = _read_array(archive.read(member), name)
            return arrays
    except BlobError:
        raise
    except Exception as error:  # damaged bytes fail in many ways: zip directory, deflate, encodings
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BlobError(f"not a readable npz archive ({reason})") from error


@lru_cache(maxsize=64)
def _read_header(beginning: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, Fortran order, dtype and the header's length; a set repeats few headers many times."""
    stream = io.BytesIO(beginning)
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    return (*read_header(stream), stream.tell())


def _read_array(data: bytes, name: str) -> NDArray[Any]:
    try:
        # magic and version, then the header's length in two or four bytes
        wide = data[6:7] == b"\x02"
        length = int.from_bytes(data[8:12] if wide else data[8:10], "little") + (12 if wide else 10)
        shape, fortran_order, dtype, begin = _read_header(data[: min(length, _MAX_HEADER_BYTES)])
    except (ValueError, KeyError, SyntaxError) as error:
        raise BlobError(f"{name} has no readable array header ({error})") from error
    if dtype.kind not in "fiubUS" or dtype.itemsize == 0:
        raise BlobError(f"{name} has dtype {dtype}; arrays hold numbers or text, nothing pickled")
    payload = memoryview(data)[begin:]
    if len(payload) != math.prod(shape) * dtype.itemsize:
        raise BlobError(f"{name} holds {len(payload)} bytes for shape {shape} of {dtype}")
    array = np.frombuffer(payload, dtype=dtype).reshape(shape, order="F" if fortran_order else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def stack_bands(images: dict[str, NDArray[np.floating]], bands: str) -> NDArray[np.float32]:
    """Stack images to (band, y, x) float32 in the order of ``bands``.

    Raises
    ------
    BlobError
        A band is missing, one too many is there, or shapes differ.
    """
    if set(images) != set(bands):
        raise BlobError(f"bands {''.join(sorted(images))} where the set has {bands}")
    shapes = {image.shape for image in images.values()}
    if len(shapes) != 1:
        raise BlobError(f"bands of different shapes {sorted(shapes)}")
    return np.stack([images[band] for band in bands]).astype(np.float32)
