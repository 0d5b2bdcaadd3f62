"""Decode one host cutout file into a (band, y, x) cube and what the file says about it.

Nothing is guessed: bands, axis order, pixel scale and unit come from the file, and a file that does not name
its bands is refused with the way out.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.blobs import BlobError, read_arrays
from arcforge.engine.errors import HostError
from arcforge.engine.fits_images import FitsImage, fits_images, wcs_pixscale_arcsec

if TYPE_CHECKING:
    from astropy.io.fits import Header

SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz", ".npz")
UNITS = {"nanomaggy", "nanomaggies", "nmgy", "nmaggy"}
_MAX_BYTES = 1 << 30  # what one file may unpack to
_MAX_MEMBERS = 1024
_LAYER_NAMES = ("INVVAR", "IVAR", "MASKBITS", "MASK", "PSF")
_AXES = {"byx": "byx", "band,y,x": "byx", "yxb": "yxb", "y,x,band": "yxb"}


@dataclass(frozen=True)
class Cutout:
    """What a file holds, before any check of the pixels."""

    pixels: NDArray[np.float32]  #: (bands, ny, nx) in the asked band order, nanomaggies
    pixscale_arcsec: float | None
    psf_fwhm_arcsec: tuple[float, ...]  #: one a band, NaN where the file does not say
    invvar: NDArray[np.float32] | None = None  #: (bands, ny, nx), 1 / nanomaggies^2; 0 without coverage
    mask: NDArray[np.int32] | None = None  #: (ny, nx), the survey's mask bits
    psf: NDArray[np.float32] | None = None  #: (bands, side, side) PSF images at the image's pixel scale
    ra_deg: float = math.nan
    dec_deg: float = math.nan
    brickname: str = ""
    sigma_v_km_s: float = math.nan  #: velocity dispersion of its galaxy
    x_image: float = math.nan  #: place of its central pixel on the detector, counted from 1 (FITS)
    y_image: float = math.nan

    def part(self, x0: int, y0: int, size: int) -> Cutout:
        """The ``size`` x ``size`` pixels from column ``x0`` and row ``y0`` on, with all layers."""
        box = (..., slice(y0, y0 + size), slice(x0, x0 + size))
        return replace(
            self,
            pixels=self.pixels[box],
            invvar=None if self.invvar is None else self.invvar[box],
            mask=None if self.mask is None else self.mask[box],
        )


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
    try:
        if name.lower().endswith(".npz"):
            return decode_npz(content, bands)
        return _decode_fits(unpacked(name, content), bands)
    except HostError:
        raise
    except Exception as error:  # damaged bytes fail in many ways inside zip, gzip, numpy and header parsing
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HostError(
            f"damaged, truncated or not a cutout ({reason}): fetch it again", reason="unreadable"
        ) from error


def unpacked(name: str, content: bytes) -> bytes:
    """Return a file's content, inflated where its name ends in .gz."""
    return inflated(content) if name.lower().endswith(".gz") else content


def inflated(content: bytes) -> bytes:
    """Unpack gzip, but not a bomb; HostError where it is damaged."""
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            whole = stream.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        message = f"damaged, truncated or not a gzip file ({error}): fetch it again"
        raise HostError(message, reason="unreadable") from error
    if len(whole) > _MAX_BYTES:
        raise HostError(f"it unpacks to more than {_MAX_BYTES} bytes: cut it smaller", reason="unreadable")
    return whole


def _decode_fits(content: bytes, bands: str) -> Cutout:
    if not content:
        raise HostError("the file is empty: fetch it again", reason="unreadable")
    images = list(fits_images(content))
    image = next((i for i in images if len(i.shape) == 3 and i.name not in _LAYER_NAMES), None)
    if image is None:
        raise HostError("no FITS image with three axes (x, y, band): give a cube")
    header, values = image.header, image.read()
    unit = str(header.get("BUNIT", "")).strip().lower()
    if unit and unit not in UNITS:
        raise HostError(f"BUNIT is '{header['BUNIT']}': convert the pixels to nanomaggies (AB 22.5)")
    held = _fits_bands(header)
    if len(held) != values.shape[0]:
        raise HostError(
            f"the header names bands '{held}' where the cube has {values.shape[0]} planes: correct BANDS"
        )
    scale = header.get("PIXSCALE")
    psf = [_fits_psf(header, band) for band in bands]
    layers = {i.name: i for i in images if i.name in _LAYER_NAMES}
    return Cutout(
        _select_bands(values, held, bands),
        float(scale) if scale is not None else wcs_pixscale_arcsec(header),
        checked_psf(psf, bands),
        invvar=_layer(layers, ("INVVAR", "IVAR"), held, bands, values.shape),
        mask=_as_mask(_plane(layers, ("MASKBITS", "MASK"))),
        psf=_fits_psf_image(layers, held, bands),
        ra_deg=_number(header, "RA"),
        dec_deg=_number(header, "DEC"),
        brickname=str(header.get("BRICKNAM", header.get("BRICK", ""))).strip(),
        sigma_v_km_s=_number(header, "SIGMA_V"),
        x_image=_number(header, "X_IMAGE"),
        y_image=_number(header, "Y_IMAGE"),
    )


def _number(header: Header, key: str) -> float:
    """A number of the header, NaN where there is none."""
    value = header.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _plane(layers: Mapping[str, FitsImage], names: tuple[str, ...]) -> NDArray[Any] | None:
    return next((layers[name].read() for name in names if name in layers), None)


def _layer(
    layers: Mapping[str, FitsImage], names: tuple[str, ...], held: str, bands: str, shape: tuple[int, ...]
) -> NDArray[np.float32] | None:
    """A layer that has the image's own planes, in the asked band order."""
    values = _plane(layers, names)
    if values is None:
        return None
    if values.shape != shape:
        raise HostError(
            f"its {names[0]} has shape {values.shape} where the image has {shape}: cut both alike"
        )
    return _select_bands(values, held, bands)


def _fits_psf_image(layers: Mapping[str, FitsImage], held: str, bands: str) -> NDArray[np.float32] | None:
    values = _plane(layers, ("PSF",))
    if values is None:
        return None
    if values.ndim != 3 or values.shape[0] != len(held):
        raise HostError(f"its PSF has shape {values.shape}: give one image a band, ({len(held)}, side, side)")
    return _select_bands(values, held, bands)


def _as_mask(values: NDArray[Any] | None) -> NDArray[np.int32] | None:
    """Mask bits of one plane, or of all planes together."""
    if values is None:
        return None
    if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
        raise HostError("its mask holds fractions: give the survey's whole-number bits")
    whole = values.astype(np.int32)
    return np.bitwise_or.reduce(whole, axis=0) if whole.ndim == 3 else whole


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


_BAND_KEYS = ("bands_requested", "bands")
_NUMBER_KEYS = ("ra", "dec", "sigma_v", "x_image", "y_image")
_PLACE_KEYS = (*_NUMBER_KEYS, "brickname")
_SCALE_KEYS = ("pixel_scale", "pixscale_arcsec", "pixscale")


def _psf_keys(bands: str) -> list[str]:
    return [f"{stem}_{band}" for band in bands for stem in ("psf_fwhm_arcsec", "psfsize")]


def decode_npz(content: bytes, bands: str) -> Cutout:
    """Decode an npz archive; see ``decode``."""
    if content[:2] != b"PK":
        raise HostError("not an npz archive: write it with numpy.savez_compressed")
    wanted = ["cutout", "invvar", "mask", "maskbits", "psf"]
    wanted += [f"{stem}_{band}" for stem in ("image", "invvar", "psf") for band in bands]
    for name in (*_BAND_KEYS, *_SCALE_KEYS, *_PLACE_KEYS, "axes", *_psf_keys(bands)):
        wanted += [name, f"meta_{name}"]
    try:
        entries = read_arrays(content, _MAX_BYTES, set(wanted).__contains__, _MAX_MEMBERS)
    except BlobError as error:
        raise HostError(
            f"{error}: fetch it again, or write it with numpy.savez_compressed", "unreadable"
        ) from error
    scale = _meta(entries, *_SCALE_KEYS)
    psf = [_meta(entries, *_psf_keys(band)) for band in bands]
    place = {name: _meta(entries, name) for name in _PLACE_KEYS}
    numbers = {name: math.nan if place[name] is None else float(place[name]) for name in _NUMBER_KEYS}
    return Cutout(
        _npz_pixels(entries, bands, "cutout", "image"),
        float(scale) if scale is not None else None,
        checked_psf([math.nan if value is None else float(value) for value in psf], bands),
        invvar=_npz_layer(entries, bands, "invvar"),
        mask=_as_mask(entries.get("maskbits", entries.get("mask"))),
        psf=_npz_layer(entries, bands, "psf"),
        ra_deg=numbers["ra"],
        dec_deg=numbers["dec"],
        brickname=str(place["brickname"] or ""),
        sigma_v_km_s=numbers["sigma_v"],
        x_image=numbers["x_image"],
        y_image=numbers["y_image"],
    )


def _npz_layer(entries: Mapping[str, NDArray[Any]], bands: str, name: str) -> NDArray[np.float32] | None:
    present = name in entries and entries[name].ndim > 0
    if not present and not any(f"{name}_{band}" in entries for band in bands):
        return None
    if name == "psf":  # the key "axes" tells of the cutout
        entries = {key: value for key, value in entries.items() if not key.endswith("axes")}
    return _npz_pixels(entries, bands, name, name)


def _npz_pixels(
    entries: Mapping[str, NDArray[Any]], bands: str, whole: str, stem: str
) -> NDArray[np.float32]:
    """The cube under the key ``whole``, or the planes ``stem``_<band>, in the asked band order."""
    if whole not in entries:
        planes = [entries[f"{stem}_{band}"] for band in bands if f"{stem}_{band}" in entries]
        if len(planes) != len(bands):
            raise HostError(
                f"it has neither a key '{whole}' nor {stem}_<band> for each of '{bands}': add them"
            )
        if len({plane.shape for plane in planes}) != 1 or planes[0].ndim != 2:
            raise HostError(f"its {stem}_<band> arrays are not 2-D of one shape: cut all bands alike")
        return _as_float32(np.stack(planes))
    cutout = entries[whole]
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


def checked_psf(fwhm_arcsec: list[float], bands: str) -> tuple[float, ...]:
    """The widths, refused where one is 0, infinite or negative."""
    for band, value in zip(bands, fwhm_arcsec, strict=True):
        if not (math.isnan(value) or 0.0 < value < math.inf):
            raise HostError(
                f"its PSF FWHM in {band} is {value:g} arcsec, which marks no coverage: drop the file",
                reason="psfsize 0",
            )
    return tuple(fwhm_arcsec)
