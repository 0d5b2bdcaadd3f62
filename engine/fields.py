"""Fields of sky larger than a stamp: coadd bricks and big cutouts, from which positions are cut out.

A stamp is cut at whole pixels: pixels of a survey are never resampled, since that would change the noise of
host and control. Where the position lies within its pixel is kept as the host's sub-pixel centroid.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog_files import numbers_of
from arcforge.engine.errors import HostError
from arcforge.engine.fits_images import FitsImage, fits_images, wcs_pixscale_arcsec
from arcforge.engine.host_files import UNITS, Cutout, checked_psf, decode, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

_BRICK_FILE = re.compile(
    r"legacysurvey-(?P<brick>[0-9]{4}[pm][0-9]{3})-(?P<kind>image|invvar|maskbits|psfsize)"
    r"(-(?P<band>[a-zA-Z]))?\.fits(\.fz|\.gz)?\Z"
)


class Field:
    """A piece of sky in several bands, with what the survey gives beside the image."""

    def __init__(self, name: str, load: Callable[[], Cutout], first: FitsImage) -> None:
        self.name = name
        self._load = load
        self._held: Cutout | None = None
        self._header = first.header
        self.height, self.width = first.shape[-2:]

    @cached_property
    def _wcs(self) -> Any:
        from astropy.wcs import WCS

        if "CTYPE1" not in self._header:
            raise HostError(f"{self.name} has no WCS: give positions as x_pix and y_pix")
        return WCS(self._header, naxis=2)

    def to_pix(self, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions (n, 2) as column and row, 0-based; NaN on the far side of the sky."""
        centre_ra, centre_dec = (math.radians(v) for v in self._wcs.wcs.crval)
        ra, dec = np.radians(ra_deg), np.radians(dec_deg)
        cosine = np.sin(dec) * math.sin(centre_dec)
        cosine += np.cos(dec) * math.cos(centre_dec) * np.cos(ra - centre_ra)
        near = cosine > 0.9  # a tangent plane mirrors what lies behind it
        out = np.full((ra.size, 2), np.nan)
        if near.any():
            out[near] = self._wcs.all_world2pix(np.column_stack([ra_deg, dec_deg])[near], 0)
        return out

    def margin_pix(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance (n,) of places from the nearest edge, negative outside or where not a number."""
        x, y = places.T
        inside = np.minimum(np.minimum(x, self.width - 1 - x), np.minimum(y, self.height - 1 - y))
        return np.where(np.isnan(inside), -np.inf, inside)

    def cut(self, x_pix: float, y_pix: float, size: int) -> Cutout:
        """The stamp whose pixel ``size // 2`` is the one nearest to the place."""
        if self._held is None:
            self._held = self._load()
        x0, y0 = round(x_pix) - size // 2, round(y_pix) - size // 2
        if min(x0, y0) < 0 or x0 + size > self.width or y0 + size > self.height:
            raise HostError(
                f"a stamp of {size} pixels at x = {x_pix:.1f}, y = {y_pix:.1f} reaches beyond the field's "
                f"{self.width} x {self.height} pixels: drop it, or make stamp_size smaller",
                reason="edge of the field",
            )
        return self._held.part(x0, y0, size)

    def release(self) -> None:
        """Drop the pixels; the next cut reads them again."""
        self._held = None


@dataclass(frozen=True)
class Place:
    """Where to cut a host out."""

    host_id: str
    field: int  #: number of its field, -1 where no field holds it
    x_pix: float
    y_pix: float
    ra_deg: float
    dec_deg: float


class FieldSet:
    """Fields of which one at a time is in memory."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = list(fields)
        self._last = -1

    def cut(self, place: Place, size: int) -> tuple[Cutout, str]:
        """Return the stamp at a place and the SHA-256 of all its layers."""
        if place.field < 0:
            raise HostError("it lies in none of the fields given: drop it", reason="outside the fields")
        if place.field != self._last and self._last >= 0:
            self.fields[self._last].release()
        self._last = place.field
        cutout = self.fields[place.field].cut(place.x_pix, place.y_pix, size)
        return cutout, content_digest(cutout)


def content_digest(cutout: Cutout) -> str:
    """SHA-256 of pixels and layers."""
    digest = hashlib.sha256()
    for layer in (cutout.pixels, cutout.invvar, cutout.mask, cutout.psf):
        digest.update(b"-" if layer is None else np.ascontiguousarray(layer).tobytes())
    digest.update(repr(cutout.psf_fwhm_arcsec).encode())
    return digest.hexdigest()


def brick_files(folder: Path) -> dict[str, dict[tuple[str, str], Path]]:
    """Coadd files below a folder: brick -> (kind, band) -> path."""
    bricks: dict[str, dict[tuple[str, str], Path]] = {}
    for path in sorted(folder.rglob("legacysurvey-*.fits*")):
        found = _BRICK_FILE.match(path.name)
        if found:
            key = (found["kind"], found["band"] or "")
            bricks.setdefault(found["brick"], {})[key] = path
    return {brick: files for brick, files in bricks.items() if any(kind == "image" for kind, _ in files)}


def open_fields(path: Path, bands: str) -> FieldSet:
    """Open the bricks of a folder, or one FITS cube, as fields."""
    if path.is_file():
        try:
            first = next((i for i in fits_images(path.read_bytes()) if len(i.shape) == 3), None)
        except HostError as error:
            raise HostError(f"host {path}: {error}", reason="unreadable") from error
        if first is None:
            raise HostError(f"host {path}: no FITS image with three axes (x, y, band): give a cube")
        return FieldSet([Field(str(path), lambda: decode(path.name, path.read_bytes(), bands), first)])
    bricks = brick_files(path)
    if not bricks:
        raise HostError(f"hosts {path}: the folder holds no legacysurvey-<brick>-image-<band>.fits file")
    return FieldSet([_brick(name, files, bands) for name, files in bricks.items()])


def _brick(name: str, files: dict[tuple[str, str], Path], bands: str) -> Field:
    absent = [band for band in bands if ("image", band) not in files]
    if absent:
        held = "".join(band for kind, band in files if kind == "image")
        raise HostError(f"brick {name} has bands '{held}' where '{bands}' is asked for: set bands")

    def load() -> Cutout:
        return _read_brick(name, files, bands)

    return Field(f"brick {name}", load, _image_of(files["image", bands[0]]))


def _image_of(path: Path) -> FitsImage:
    content = path.read_bytes()
    try:
        for image in fits_images(unpacked(path.name, content)):
            if len(image.shape) == 2:
                return image
    except HostError as error:
        raise HostError(f"{path}: {error}", reason="unreadable") from error
    raise HostError(f"{path}: holds no 2-D image: fetch it again", reason="unreadable")


def _read_brick(name: str, files: dict[tuple[str, str], Path], bands: str) -> Cutout:
    first = _image_of(files["image", bands[0]])
    unit = str(first.header.get("BUNIT", "")).strip().lower()
    if unit and unit not in UNITS:
        raise HostError(f"brick {name}: BUNIT is '{first.header['BUNIT']}': convert it to nanomaggies")
    layers = {
        kind: np.stack([_plane(files[kind, band], first.shape) for band in bands])
        for kind in ("image", "invvar", "psfsize")
        if all((kind, band) in files for band in bands)
    }
    mask = files.get(("maskbits", ""))
    return BrickPixels(
        layers["image"].astype(np.float32, copy=False),
        wcs_pixscale_arcsec(first.header),
        (math.nan,) * len(bands),
        invvar=layers.get("invvar"),
        mask=None if mask is None else _plane(mask, first.shape).astype(np.int32),
        brickname=name,
        psfsize=layers.get("psfsize"),
        bands=bands,
    )


def _plane(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    image = _image_of(path)
    if image.shape != shape:
        raise HostError(f"{path}: has {image.shape} pixels where the brick has {shape}: fetch it again")
    values = image.read()
    return np.asarray(values, dtype=np.float32) if values.dtype.kind == "f" else np.asarray(values)


@dataclass(frozen=True)
class BrickPixels(Cutout):
    """A brick's pixels; its PSF's width is a map, looked up at the central pixel of each part."""

    psfsize: NDArray[np.float32] | None = None  #: (bands, ny, nx), arcsec
    bands: str = ""

    def part(self, x0: int, y0: int, size: int) -> Cutout:
        """The stamp's pixels, with the PSF's width at its central pixel."""
        box = (..., slice(y0, y0 + size), slice(x0, x0 + size))
        fwhm = self.psf_fwhm_arcsec
        if self.psfsize is not None:
            at = self.psfsize[:, y0 + size // 2, x0 + size // 2]
            fwhm = checked_psf([float(value) for value in at], self.bands)
        return Cutout(
            self.pixels[box],
            self.pixscale_arcsec,
            fwhm,
            invvar=None if self.invvar is None else self.invvar[box],
            mask=None if self.mask is None else self.mask[box],
            brickname=self.brickname,
        )


_RA_NAMES, _DEC_NAMES = ("ra", "RA", "RA [deg]"), ("dec", "DEC", "DEC [deg]")


def places_of(table: pa.Table, fields: FieldSet) -> list[Place]:
    """Give every row of a table of positions its field and its place there.

    Of several fields that hold a position, the one in which it lies furthest from the edge is taken. Columns:
    ``ra`` and ``dec`` in degrees, or ``x_pix`` and ``y_pix`` (0-based, of the only field); ``host_id`` or
    ``objid`` where there is one.
    """
    n = table.num_rows
    ids = next((table.column(name).to_pylist() for name in ("host_id",) if name in table.column_names), None)
    names = [f"position-{i:06d}" for i in range(n)] if ids is None else [str(each) for each in ids]
    if len(set(names)) != n:
        raise HostError("the positions' host_id is not unique: number the rows, or drop the column")
    ra, dec = _column(table, _RA_NAMES), _column(table, _DEC_NAMES)
    best = np.full(n, -1)
    margin = np.zeros(n)
    places = np.full((n, 2), np.nan)
    if ra is not None and dec is not None:
        for number, field in enumerate(fields.fields):
            there = field.to_pix(ra, dec)
            inside = field.margin_pix(there)
            better = (inside >= 0.0) & ((best < 0) | (inside > margin))
            best[better], margin[better], places[better] = number, inside[better], there[better]
    else:
        x, y = _column(table, ("x_pix",)), _column(table, ("y_pix",))
        if x is None or y is None or len(fields.fields) != 1:
            raise HostError(
                "positions need the columns ra and dec (degrees), or, in one field, x_pix and y_pix"
            )
        places = np.column_stack([x, y])
        best = np.where(fields.fields[0].margin_pix(places) >= 0.0, 0, -1)
        ra = dec = np.full(n, np.nan)
    return [
        Place(names[i], int(best[i]), float(places[i, 0]), float(places[i, 1]), float(ra[i]), float(dec[i]))
        for i in range(n)
    ]


def _column(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.float64] | None:
    for name in names:
        if name in table.column_names:
            return numbers_of(table, name, "positions")
    return None
