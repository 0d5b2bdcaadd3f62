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
_MOST_AXES = 999  # of the standard, for axes and for columns
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
        Truncated, damaged, or not FITS.
    """
    try:
        units = _units(content)
        if any(header.get("ZIMAGE", False) for header, _, _ in units):
            yield from _compressed(content)
            return
        for header, axes, start in units:
            if axes and 0 not in axes and str(header.get("XTENSION", "IMAGE")).strip() == "IMAGE":
                yield FitsImage(header, tuple(axes[::-1]), _reader(content, header, axes, start))
    except HostError:
        raise
    except Exception as error:  # cards that are absent or hold another kind of value
        raise _damaged(error) from error


def check_fits(content: bytes) -> None:
    """See that headers keep to the standard and to the file's length, before astropy believes them.

    Raises
    ------
    HostError
        Truncated, damaged, or not FITS.
    """
    try:
        _units(content)
    except HostError:
        raise
    except Exception as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> HostError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return HostError(f"its FITS header is damaged ({reason}): fetch it again")


def _units(content: bytes) -> list[tuple[Header, list[int], int]]:
    """Header, axes and the first byte of the data of every unit."""
    units: list[tuple[Header, list[int], int]] = []
    offset = 0
    while offset < len(content):
        if offset and content[offset : offset + 8] != b"XTENSION" and not content[offset:].strip(b"\0 "):
            break  # padding
        end = _header_end(content, offset)
        header = _header(content[offset:end])
        if offset == 0 and "SIMPLE" not in header:
            raise HostError("not a FITS file")
        for name in ("NAXIS", "ZNAXIS", "TFIELDS"):
            if not 0 <= int(header.get(name, 0)) <= _MOST_AXES:
                raise HostError(f"its FITS header gives {name} = {header[name]}: fetch it again")
        axes = [int(header[f"NAXIS{i}"]) for i in range(1, int(header.get("NAXIS", 0)) + 1)]
        itemsize = abs(int(header["BITPIX"])) // 8
        count = math.prod(axes) if axes else 0
        size = itemsize * int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + count)
        if min(axes, default=0) < 0 or size < 0:
            raise HostError(f"its FITS header gives axes {axes}: fetch it again")
        if end + size > len(content):
            raise HostError(
                f"truncated: {len(content)} bytes where the header promises {end + size}: fetch it again"
            )
        units.append((header, axes, end))
        offset = end + -(-size // _BLOCK) * _BLOCK
    return units


def _header(text: bytes) -> Header:
    from astropy.io.fits import Header

    return Header.fromstring(text.decode("ascii", errors="replace"))


def _reader(content: bytes, header: Header, axes: list[int], start: int) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        values = np.frombuffer(content, _FITS_TYPES[header["BITPIX"]], math.prod(axes), start)
        return _scaled(header, values, axes)

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
