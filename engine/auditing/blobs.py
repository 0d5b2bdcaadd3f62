"""Cutouts stored as compressed ``.npz`` blobs in a table cell, decoded without trusting them.

A blob comes from someone else's disk: nothing in it is unpickled, and sizes are read from the archive's
directory and the array headers before any memory is given to them.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
from numpy.typing import NDArray

_MAX_MEMBERS = 16
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
    if blob is None:
        raise BlobError("the blob is null")
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = archive.infolist()
            if not 0 < len(members) <= _MAX_MEMBERS:
                raise BlobError(f"the archive holds {len(members)} arrays")
            size = sum(member.file_size for member in members)
            if size > max_bytes:
                raise BlobError(f"the archive unpacks to {size} bytes, more than {max_bytes}")
            images = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name.startswith(_PREFIX) and len(name) == len(_PREFIX) + 1:
                    images[name[-1]] = _read_image(archive.read(member), name)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise BlobError(f"not a readable npz archive ({error})") from error
    if not images:
        raise BlobError(f"no array {_PREFIX}<band> in the archive")
    return images


def _read_image(data: bytes, name: str) -> NDArray[np.floating]:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(stream)
    except (ValueError, KeyError, SyntaxError) as error:
        raise BlobError(f"{name} has no readable array header ({error})") from error
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise BlobError(f"{name} has dtype {dtype}; images are floats")
    if len(shape) != 2 or min(shape) < 1:
        raise BlobError(f"{name} has shape {shape}; images are 2-D")
    payload = data[stream.tell() :]
    if len(payload) != shape[0] * shape[1] * dtype.itemsize:
        raise BlobError(f"{name} holds {len(payload)} bytes for shape {shape} of {dtype}")
    image = np.frombuffer(payload, dtype=dtype).reshape(shape, order="F" if fortran_order else "C")
    return image.astype(dtype.newbyteorder("="), copy=False)


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
