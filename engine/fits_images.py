"""Images of a FITS file held in memory: every image unit with its header, physical values, nothing guessed.

Read directly: a file that ends too early is found here, where astropy only warns; and in half the time. Tile
compression is left to astropy.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import HostError

if TYPE_CHECKING:
    from astropy.io.fits import Header

_BLOCK, _CARD = 2880, 80  # bytes of a FITS record and of a header card
_END = b"END".ljust(_CARD)
_FITS_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True)
class FitsImage:
    """One image unit."""

    header: Header
    shape: tuple[int, ...]  #: in numpy's order, (band, y, x) or (y, x)
    read: Callable[[], NDArray[Any]]  #: its physical values

    @property
    def name(self) -> str:
        """EXTNAME in capitals, "" where there is none."""
        return str(self.header.get("EXTNAME", "")).strip().upper()


def fits_images(content: bytes) -> Iterator[FitsImage]:
    """Yield the images of a file, in order; empty units and tables are passed over.

    Raises
    ------
    HostError
        Truncated, or not FITS.
    """
    offset = 0
    while offset < len(content):
        end = _header_end(content, offset)
        header = _header(content[offset:end])
        if header.get("ZIMAGE", False):
            yield from _compressed(content)
            return
        if offset == 0 and "SIMPLE" not in header:
            raise HostError("not a FITS file")
        axes = [int(header[f"NAXIS{i}"]) for i in range(1, int(header.get("NAXIS", 0)) + 1)]
        count = math.prod(axes) if axes else 0
        itemsize = abs(int(header["BITPIX"])) // 8
        size = itemsize * int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + count)
        if end + size > len(content):
            raise HostError(
                f"truncated: {len(content)} bytes where the header promises {end + size}: fetch it again"
            )
        if count and str(header.get("XTENSION", "IMAGE")).strip() == "IMAGE":
            yield FitsImage(header, tuple(axes[::-1]), _reader(content, header, axes, count, end))
        offset = end + -(-size // _BLOCK) * _BLOCK


def _header(text: bytes) -> Header:
    from astropy.io.fits import Header

    return Header.fromstring(text.decode("ascii", errors="replace"))


def _reader(
    content: bytes, header: Header, axes: list[int], count: int, start: int
) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        return _scaled(header, np.frombuffer(content, _FITS_TYPES[header["BITPIX"]], count, start), axes)

    return read


def _header_end(content: bytes, offset: int) -> int:
    """The byte after the header's last record."""
    found = content.find(_END, offset)
    while found >= 0:
        if (found - offset) % _CARD == 0:
            return offset + -(-(found + _CARD - offset) // _BLOCK) * _BLOCK
        found = content.find(_END, found + 1)
    kind = "truncated in its header: fetch it again" if content[:6] == b"SIMPLE" else "not a FITS file"
    raise HostError(kind)


def _scaled(header: Header, values: NDArray[Any], axes: list[int]) -> NDArray[Any]:
    """Physical values (FITS standard 4.0, section 4.4.2.5), axes reversed to (band, y, x)."""
    image = values.reshape(axes[::-1])
    scale, zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
    if header["BITPIX"] > 0:
        physical = image * scale + zero
        if "BLANK" in header:
            physical[image == int(header["BLANK"])] = np.nan
        return np.asarray(physical)
    return image if (scale, zero) == (1.0, 0.0) else np.asarray(image * scale + zero)


def _compressed(content: bytes) -> Iterator[FitsImage]:
    from astropy.io import fits

    try:
        with fits.open(io.BytesIO(content)) as units:
            for unit in units:
                if unit.is_image and unit.header.get("NAXIS", 0):
                    data = np.asarray(unit.data)
                    yield FitsImage(unit.header, data.shape, lambda data=data: data)  # type: ignore[misc]
    except Exception as error:  # decompression fails in many ways; each means that the file is bad
        raise HostError(f"its compressed image is unreadable ({error}): fetch it again") from error


def wcs_pixscale_arcsec(header: Header) -> float | None:
    """The pixel's side from a WCS in degrees, as the square root of its area; None without one."""
    if "CD1_1" in header:
        a, b, c, d = (float(header.get(f"CD{i}_{j}", 0.0)) for i in (1, 2) for j in (1, 2))
        return 3600.0 * math.sqrt(abs(a * d - b * c))
    if "CDELT1" in header and "CTYPE1" in header:
        return 3600.0 * math.sqrt(abs(float(header["CDELT1"]) * float(header["CDELT2"])))
    return None
