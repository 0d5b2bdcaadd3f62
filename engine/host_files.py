"""Decode one host cutout file into a (band, y, x) cube and what the file says about it.

Nothing is guessed: bands, axis order, pixel scale and unit come from the file, and a file that does not name
its bands is refused with the way out.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import HostError

if TYPE_CHECKING:
    from astropy.io.fits import Header

SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz", ".npz")
_BLOCK, _CARD = 2880, 80  # bytes of a FITS record and of a header card
_END = b"END".ljust(_CARD)
_UNITS = {"nanomaggy", "nanomaggies", "nmgy", "nmaggy"}
_FITS_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_AXES = {"byx": "byx", "band,y,x": "byx", "yxb": "yxb", "y,x,band": "yxb"}


@dataclass(frozen=True)
class Cutout:
    """What a file holds, before any check of the pixels."""

    pixels: NDArray[np.float32]  #: (bands, ny, nx) in the asked band order, nanomaggies
    pixscale_arcsec: float | None
    psf_fwhm_arcsec: tuple[float, ...]  #: one a band, NaN where the file does not say


def is_host_file(name: str) -> bool:
    """Tell whether a file name is one that ``decode`` reads."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def decode(name: str, content: bytes, bands: str) -> Cutout:
    """Decode the bytes of a FITS cube or an npz cutout.

    Parameters
    ----------
    name : str
        File name; its ending tells the format.
    content : bytes
        The whole file.
    bands : str
        Bands wanted, in that order; further bands of the file are left out.

    Raises
    ------
    HostError
        What is wrong, without the file's name, which the caller adds.
    """
    lower = name.lower()
    try:
        if lower.endswith(".npz"):
            return _decode_npz(content, bands)
        if lower.endswith(".gz"):
            content = gzip.decompress(content)
        return _decode_fits(content, bands)
    except HostError:
        raise
    except Exception as error:  # damaged bytes fail in many ways inside zip, gzip, numpy and header parsing
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HostError(f"damaged, truncated or not a cutout ({reason}): fetch it again") from error


def _decode_fits(content: bytes, bands: str) -> Cutout:
    header, values = _first_cube(content)
    unit = str(header.get("BUNIT", "")).strip().lower()
    if unit and unit not in _UNITS:
        raise HostError(f"BUNIT is '{header['BUNIT']}': convert the pixels to nanomaggies (AB 22.5)")
    held = _fits_bands(header)
    if len(held) != values.shape[0]:
        raise HostError(
            f"the header names bands '{held}' where the cube has {values.shape[0]} planes: correct BANDS"
        )
    scale = header.get("PIXSCALE")
    psf = [_fits_psf(header, band) for band in bands]
    return Cutout(
        _select_bands(values, held, bands),
        float(scale) if scale is not None else _wcs_pixscale_arcsec(header),
        _checked_psf(psf, bands),
    )


def _first_cube(content: bytes) -> tuple[Header, NDArray[Any]]:
    """Header and pixels of the first image with three axes.

    Read directly: a file that ends too early is found here, where astropy only warns; and half the time.
    """
    from astropy.io.fits import Header

    offset = 0
    while offset < len(content):
        end = _header_end(content, offset)
        header = Header.fromstring(content[offset:end].decode("ascii", errors="replace"))
        if header.get("ZIMAGE", False):
            return _first_compressed_cube(content)
        if offset == 0 and "SIMPLE" not in header:
            break
        axes = [int(header[f"NAXIS{i}"]) for i in range(1, int(header.get("NAXIS", 0)) + 1)]
        itemsize = abs(int(header["BITPIX"])) // 8
        count = math.prod(axes) if axes else 0
        size = itemsize * int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + count)
        if end + size > len(content):
            raise HostError(
                f"truncated: {len(content)} bytes where the header promises {end + size}: fetch it again"
            )
        if len(axes) == 3 and count:
            return header, _scaled(
                header, np.frombuffer(content, _FITS_TYPES[header["BITPIX"]], count, end), axes
            )
        offset = end + -(-size // _BLOCK) * _BLOCK
    raise HostError("no FITS image with three axes (x, y, band): give a cube")


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
    cube = values.reshape(axes[::-1])
    scale, zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
    if header["BITPIX"] > 0:
        physical = cube * scale + zero
        if "BLANK" in header:
            physical[cube == int(header["BLANK"])] = np.nan
        return np.asarray(physical)
    return cube if (scale, zero) == (1.0, 0.0) else np.asarray(cube * scale + zero)


def _first_compressed_cube(content: bytes) -> tuple[Header, NDArray[Any]]:
    from astropy.io import fits

    try:
        with fits.open(io.BytesIO(content)) as units:
            for unit in units:
                if unit.is_image and unit.header.get("NAXIS") == 3:
                    return unit.header, np.asarray(unit.data)
    except Exception as error:  # decompression fails in many ways; each means that the file is bad
        raise HostError(f"its compressed image is unreadable ({error}): fetch it again") from error
    raise HostError("no FITS image with three axes (x, y, band): give a cube")


def _fits_bands(header: Header) -> str:
    if "BANDS" in header:
        return "".join(str(header["BANDS"]).replace(",", "").split())
    singles = [str(header[f"BAND{i}"]).strip() for i in range(10) if f"BAND{i}" in header]
    if not singles:
        raise HostError("the header does not name its bands: add BANDS, e.g. BANDS = 'grz'")
    return "".join(singles)


def _fits_psf(header: Header, band: str) -> float:
    for key in (f"PSFFWHM{band.upper()}", f"PSFSIZE{band.upper()}", f"PSFSIZE_{band.upper()}"):
        if key in header:
            return float(header[key])
    return math.nan


def _wcs_pixscale_arcsec(header: Header) -> float | None:
    """The pixel's side from a WCS in degrees, as the square root of its area."""
    if "CD1_1" in header:
        a, b, c, d = (float(header.get(f"CD{i}_{j}", 0.0)) for i in (1, 2) for j in (1, 2))
        return 3600.0 * math.sqrt(abs(a * d - b * c))
    if "CDELT1" in header and "CTYPE1" in header:
        return 3600.0 * math.sqrt(abs(float(header["CDELT1"]) * float(header["CDELT2"])))
    return None


_BAND_KEYS = ("bands_requested", "bands")
_SCALE_KEYS = ("pixel_scale", "pixscale_arcsec", "pixscale")


def _psf_keys(bands: str) -> list[str]:
    return [f"{stem}_{band}" for band in bands for stem in ("psf_fwhm_arcsec", "psfsize")]


def _decode_npz(content: bytes, bands: str) -> Cutout:
    if content[:2] != b"PK":
        raise HostError("not an npz archive: write it with numpy.savez_compressed")
    wanted = ["cutout", *(f"image_{band}" for band in bands)]
    for name in (*_BAND_KEYS, *_SCALE_KEYS, "axes", *_psf_keys(bands)):
        wanted += [name, f"meta_{name}"]
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        entries = {key: archive[key] for key in wanted if key in archive}
    scale = _meta(entries, *_SCALE_KEYS)
    psf = [_meta(entries, *_psf_keys(band)) for band in bands]
    return Cutout(
        _npz_pixels(entries, bands),
        float(scale) if scale is not None else None,
        _checked_psf([math.nan if value is None else float(value) for value in psf], bands),
    )


def _npz_pixels(entries: Mapping[str, NDArray[Any]], bands: str) -> NDArray[np.float32]:
    if "cutout" not in entries:
        planes = [entries[f"image_{band}"] for band in bands if f"image_{band}" in entries]
        if len(planes) != len(bands):
            raise HostError(f"it has neither a key 'cutout' nor image_<band> for each of '{bands}': add them")
        if len({plane.shape for plane in planes}) != 1 or planes[0].ndim != 2:
            raise HostError("its image_<band> arrays are not 2-D of one shape: cut all bands alike")
        return _as_float32(np.stack(planes))
    cutout = entries["cutout"]
    held = _meta(entries, *_BAND_KEYS)
    if held is None:
        raise HostError("it does not name its bands: add a key 'bands', e.g. bands = 'grz'")
    held = "".join(str(held).replace(",", "").split())
    return _select_bands(_band_first(cutout, len(held), _meta(entries, "axes")), held, bands)


def _band_first(cutout: NDArray[Any], n_bands: int, axes: Any) -> NDArray[Any]:
    """The cube with its band axis first; which axis that is comes from ``axes`` or from the shape alone."""
    if cutout.ndim != 3:
        raise HostError(f"cutout has shape {cutout.shape}: give three axes, (y, x, band) or (band, y, x)")
    if axes is not None:
        order = _AXES.get(str(axes).replace(" ", "").lower())
        if order is None:
            raise HostError(f"axes = '{axes}' is unknown: write 'byx' or 'yxb'")
    else:
        first, last = cutout.shape[0] == n_bands, cutout.shape[2] == n_bands
        if first == last:
            count = "both ends have" if first else "neither end has"
            raise HostError(
                f"cutout has shape {cutout.shape} and {count} the {n_bands} bands named: add a key 'axes', "
                "'byx' or 'yxb'"
            )
        order = "byx" if first else "yxb"
    cube = cutout if order == "byx" else np.moveaxis(cutout, 2, 0)
    if cube.shape[0] != n_bands:
        raise HostError(
            f"cutout has {cube.shape[0]} planes where {n_bands} bands are named: correct one of them"
        )
    return cube


def _meta(entries: Mapping[str, NDArray[Any]], *names: str) -> Any:
    """The first of these scalar entries, with or without the prefix ``meta_``."""
    for name in names:
        for key in (f"meta_{name}", name):
            if key in entries and entries[key].ndim == 0:
                return entries[key].item()
    return None


def _select_bands(cube: NDArray[Any], held: str, bands: str) -> NDArray[np.float32]:
    absent = [band for band in bands if band not in held]
    if absent or len(set(held)) != len(held):
        raise HostError(f"it holds bands '{held}' where '{bands}' is asked for: give files with these bands")
    return _as_float32(cube[[held.index(band) for band in bands]])


def _as_float32(cube: NDArray[Any]) -> NDArray[np.float32]:
    if cube.dtype.kind not in "fiu":
        raise HostError(f"its pixels are of type {cube.dtype}: give numbers")
    return np.ascontiguousarray(cube, dtype=np.float32)


def _checked_psf(fwhm_arcsec: list[float], bands: str) -> tuple[float, ...]:
    for band, value in zip(bands, fwhm_arcsec, strict=True):
        if not (math.isnan(value) or 0.0 < value < math.inf):
            raise HostError(
                f"its PSF FWHM in {band} is {value:g} arcsec, which marks no coverage: drop the file"
            )
    return tuple(fwhm_arcsec)
