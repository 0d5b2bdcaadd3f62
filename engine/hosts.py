"""Open host cutouts: every file or position read, judged and measured once, one at a time.

Cutouts come as files (one host each), as rows of a parquet table of npz blobs, or as positions in larger
fields. What cannot be a host is refused by name and counted by reason.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import HostError
from arcforge.engine.fields import FieldSet, Place, open_fields, places_of
from arcforge.engine.host_blobs import blob_cutouts
from arcforge.engine.host_files import Cutout, decode
from arcforge.engine.host_lens import light_shape
from arcforge.engine.host_listing import host_id_of, list_host_files
from arcforge.engine.host_measure import Measurement, measure
from arcforge.engine.host_rules import HostRules, check_cube, check_stamp, checked_psf_image, is_known
from arcforge.engine.host_set import Host, HostSet, Pixels, Refusal
from arcforge.engine.host_table import HostTable
from arcforge.engine.psf_tables import PsfTable
from arcforge.engine.psfex import PsfExModels

__all__ = ["SURVEY_FAULTS", "Host", "HostRules", "HostSet", "Refusal", "open_hosts"]

Progress = Callable[[int, int], None]
_SCALE_TOLERANCE = 1e-3  # scales that differ by less are one: a TAN projection varies by that over a degree
# What a survey's data have by nature. A file that is damaged or has other bands or scales is none of it.
SURVEY_FAULTS = frozenset(
    {
        "NaN",
        "no coverage",
        "psfsize 0",
        "not in the PSF table",
        "masked centre",
        "saturated neighbour",
        "no galaxy",
        "edge of the field",
        "outside the fields",
        "not on the PSF model",
    }
)
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Entry:
    """Something that may be a host."""

    host_id: str
    label: str  #: names it in messages
    read: Callable[[], tuple[Cutout, str]]  #: its cutout, and the SHA-256 of what that was made from
    place: Place | None = None  #: where it was cut out of a field


def open_hosts(
    path: str | os.PathLike[str],
    *,
    bands: str = "grz",
    stamp_size: int = 64,
    pixscale_arcsec: float | None = None,
    skip_bad: bool | Collection[str] = False,
    positions: Any = None,
    psf_table: PsfTable | str | os.PathLike[str] | None = None,
    psfex: Mapping[str, str] | None = None,
    rules: HostRules | None = None,
    progress: Progress | None = None,
) -> HostSet:
    """Open host cutouts. Each is read and checked once, one at a time.

    Parameters
    ----------
    path : path
        A folder of ``.fits``, ``.fits.gz``, ``.fits.fz`` cubes (header BANDS or BAND0.., PIXSCALE or a WCS;
        units INVVAR, MASKBITS and PSF beside the image) and ``.npz`` cutouts (key ``cutout`` with
        ``meta_bands_requested`` or ``bands``, or ``image_<band>``; ``invvar``, ``maskbits``, ``psf``); one
        such file; a parquet file of npz blobs; or, with ``positions``, a folder of coadd bricks or one large
        cube. Files are ordered by name; the name without its ending is the ``host_id``.
    bands : str
        Bands of the stamps, in order; a file may hold more.
    stamp_size : int
        Pixels along a side. A file's central pixel (n // 2) goes to index ``stamp_size // 2``.
    pixscale_arcsec : float, optional
        For files that do not state it; where they do, it must agree.
    skip_bad : bool or collection of str
        List what cannot be a host in ``HostSet.refused`` instead of raising for the first one; given reasons
        (e.g. ``SURVEY_FAULTS``), only for those.
    positions : pyarrow.Table or catalogue file, optional
        Where to cut hosts out: ``ra``, ``dec`` in degrees or ``x_pix``, ``y_pix``; also ``host_id``. A stamp
        is cut at whole pixels (never resampled); the galaxy's sub-pixel centroid is measured on it.
    psf_table : PsfTable or path, optional
        Table of PSF widths for hosts that come without: see ``psf_tables``.
    psfex : mapping of str to str, optional
        File of a PsfEx model by band, for hosts that come without PSF images: see ``psfex``.
    rules : HostRules, optional
        Coverage and masks that are asked for.
    progress : callable, optional
        Called with (files done, files in all).

    Returns
    -------
    HostSet

    Raises
    ------
    HostError
        One line naming the file: unreadable, truncated, wrong bands, NaN, too small, no coverage, masked, no
        galaxy at its centre, pixel scales that differ; or a folder without host files.
    """
    entries, refused = _entries(Path(path), bands, stamp_size, positions)
    if psf_table is not None and not isinstance(psf_table, PsfTable):
        psf_table = PsfTable.read(psf_table, bands)
    models = PsfExModels.read(psfex, bands) if psfex else None
    reader = _Reader(bands, stamp_size, pixscale_arcsec, rules or HostRules(), psf_table, models)
    checked: list[_Checked] = []
    for number, entry in enumerate(entries):
        try:
            checked.append(reader.check(entry))
        except HostError as error:
            if skip_bad is False or (skip_bad is not True and error.reason not in skip_bad):
                hint = "; or leave such hosts out: --skip-bad-hosts" if error.reason in SURVEY_FAULTS else ""
                raise HostError(f"{error}{hint}", error.reason) from error
            refused.append(_refusal(entry, error))
        if progress is not None:
            progress(number + 1, len(entries))
    if not checked:
        reason = f": {refused[0].message}" if refused else ""
        what = "files" if positions is None else "positions"
        raise HostError(f"hosts {path}: none of its {len(entries)} {what} is usable{reason}")
    return reader.host_set(checked, refused)


def _refusal(entry: Entry, error: HostError) -> Refusal:
    return Refusal(entry.label, str(error).removeprefix(f"host {entry.label}: "), error.reason)


def _entries(path: Path, bands: str, stamp_size: int, positions: Any) -> tuple[list[Entry], list[Refusal]]:
    if not path.exists():
        raise HostError(f"hosts {path}: no such file or folder: check the path")
    if positions is not None:
        return _positions(path, bands, stamp_size, positions), []
    if path.is_file() and path.name.lower().endswith(_PARQUET):
        blobs = blob_cutouts(path, bands)
        return [Entry(blob.host_id, f"{path} row {blob.row}", blob.read) for blob in blobs], []
    files, refused = list_host_files(path)
    return [Entry(host_id_of(file), str(file), _file_reader(file, bands)) for file in files], refused


def _positions(path: Path, bands: str, stamp_size: int, positions: Any) -> list[Entry]:
    from arcforge.engine.catalog_files import read_catalog

    table = read_catalog(positions) if isinstance(positions, (str, os.PathLike)) else positions
    fields = open_fields(path, bands)
    places = places_of(table, fields)
    # one field at a time is in memory: all hosts of a field follow one another
    places.sort(key=lambda place: place.field)
    return [
        Entry(p.host_id, f"{path} position {p.host_id}", _cutter(fields, p, stamp_size), p) for p in places
    ]


def _cutter(fields: FieldSet, place: Place, stamp_size: int) -> Callable[[], tuple[Cutout, str]]:
    return lambda: fields.cut(place, stamp_size)


def _file_reader(file: Path, bands: str) -> Callable[[], tuple[Cutout, str]]:
    def read() -> tuple[Cutout, str]:
        content = file.read_bytes()
        return decode(file.name, content, bands), hashlib.sha256(content).hexdigest()

    return read


@dataclass(frozen=True)
class _Checked:
    """A host that passed, without its pixels."""

    entry: Entry
    sha256: str
    measured: Measurement
    cutout: Cutout  #: its pixels and layers are empty
    has_invvar: bool
    has_mask: bool
    psf_id: int
    invvar_median: tuple[float, ...]  #: of covered pixels, per band; NaN without
    light_shape: tuple[float, float]


class _Reader:
    """Reads the entries of one set; the first settles the pixel scale where the caller gave none."""

    def __init__(
        self,
        bands: str,
        stamp_size: int,
        pixscale_arcsec: float | None,
        rules: HostRules,
        widths: PsfTable | None,
        models: PsfExModels | None,
    ) -> None:
        self.bands = bands
        self.stamp_size = stamp_size
        self.pixscale_arcsec = pixscale_arcsec
        self._settled_by = "the pixscale_arcsec given"
        self._rules = rules
        self._widths = widths
        self._models = models
        self._psf_ids: dict[bytes, int] = {}
        self._psf_images: dict[int, NDArray[np.float32]] = {}

    def check(self, entry: Entry) -> _Checked:
        """Read, validate and measure one entry; errors name it."""
        try:
            cutout, digest = entry.read()
            check_cube(cutout.pixels, self.bands)
            stamp = self._stamp(cutout)
            scale = self._check_scale(cutout, entry)
            check_stamp(stamp, self.bands, scale, self._rules)
            measured = measure(cutout.pixels, scale)
            cutout = self._with_place(cutout, entry)
            if self._models is not None and cutout.psf is None:
                cutout = replace(cutout, psf=self._models.images_at(cutout.x_image, cutout.y_image))
            if self._widths is not None and not is_known(cutout.psf_fwhm_arcsec) and cutout.psf is None:
                cutout = replace(cutout, psf_fwhm_arcsec=self._widths.fwhm_of(cutout))
            psf_id = self._psf_id(cutout)
        except HostError as error:
            raise HostError(f"host {entry.label}: {error}", error.reason) from error
        except OSError as error:
            raise HostError(
                f"host {entry.label}: cannot be read ({error.strerror}): check its rights", "unreadable"
            ) from error
        x0, y0 = self._corner(cutout.pixels)
        placed = replace(measured, x_pix=measured.x_pix - x0, y_pix=measured.y_pix - y0)
        known = replace(cutout, pixels=np.empty((0, 0, 0), np.float32), invvar=None, mask=None, psf=None)
        shape = light_shape(cutout.pixels, measured.x_pix, measured.y_pix)
        has_invvar, has_mask = cutout.invvar is not None, cutout.mask is not None
        return _Checked(entry, digest, placed, known, has_invvar, has_mask, psf_id, _medians(stamp), shape)

    def host_set(self, checked: list[_Checked], refused: Iterable[Refusal]) -> HostSet:
        """The set of what passed."""
        assert self.pixscale_arcsec is not None  # every checked entry has settled it
        entries = [each.entry for each in checked]
        digests = [each.sha256 for each in checked]

        def load(numbers: NDArray[np.int64]) -> Pixels:
            return np.stack([self._read_again(entries[i], digests[i]).pixels for i in numbers])

        def invvar(numbers: NDArray[np.int64]) -> NDArray[Any]:
            shape = (len(self.bands), self.stamp_size, self.stamp_size)
            layers = [self._read_again(entries[i], digests[i]).invvar for i in numbers]
            return np.stack([np.full(shape, np.nan, np.float32) if x is None else x for x in layers])

        def mask(numbers: NDArray[np.int64]) -> NDArray[Any]:
            shape = (self.stamp_size, self.stamp_size)
            layers = [self._read_again(entries[i], digests[i]).mask for i in numbers]
            return np.stack([np.full(shape, -1, np.int32) if x is None else x for x in layers])

        layers = {"invvar": invvar} if any(each.has_invvar for each in checked) else {}
        layers |= {"mask": mask} if any(each.has_mask for each in checked) else {}
        return HostSet(
            self.bands,
            self.pixscale_arcsec,
            self.stamp_size,
            self._table(checked),
            load,
            list(refused),
            layers=layers,
            psf_images=self._psf_images,
        )

    def _read_again(self, entry: Entry, digest: str) -> Cutout:
        """The stamp of a checked entry, which must be the same as it was."""
        try:
            cutout, now = entry.read()
        except OSError as error:
            raise HostError(
                f"host {entry.label}: cannot be read any more ({error.strerror}): restore it"
            ) from error
        if now != digest:
            raise HostError(f"host {entry.label}: changed since it was checked: start again")
        return cutout.part(*self._corner(cutout.pixels), self.stamp_size)

    def _corner(self, pixels: Pixels) -> tuple[int, int]:
        """Column and row of the cutout that become 0 in the stamp."""
        ny, nx = pixels.shape[1:]
        return nx // 2 - self.stamp_size // 2, ny // 2 - self.stamp_size // 2

    def _stamp(self, cutout: Cutout) -> Cutout:
        ny, nx = cutout.pixels.shape[1:]
        x0, y0 = self._corner(cutout.pixels)
        if min(x0, y0) < 0 or x0 + self.stamp_size > nx or y0 + self.stamp_size > ny:
            raise HostError(
                f"its {ny} x {nx} pixels do not hold a stamp of {self.stamp_size}: give larger cutouts or a "
                f"stamp_size up to {min(ny, nx)}",
                reason="too small",
            )
        for name, layer in (("invvar", cutout.invvar), ("mask", cutout.mask)):
            if layer is not None and layer.shape[-2:] != (ny, nx):
                raise HostError(f"its {name} has {layer.shape[-2:]} pixels where the image has {(ny, nx)}")
        return cutout.part(x0, y0, self.stamp_size)

    def _with_place(self, cutout: Cutout, entry: Entry) -> Cutout:
        if entry.place is None:
            return cutout
        place = entry.place
        return replace(
            cutout,
            ra_deg=place.ra_deg,
            dec_deg=place.dec_deg,
            x_image=place.x_pix + 1.0,
            y_image=place.y_pix + 1.0,
        )

    def _psf_id(self, cutout: Cutout) -> int:
        """Number of the cutout's PSF image, -1 without; equal images have one number."""
        if cutout.psf is None:
            return -1
        psf = checked_psf_image(cutout.psf, len(self.bands))
        number = self._psf_ids.setdefault(psf.tobytes(), len(self._psf_ids))
        self._psf_images[number] = psf
        return number

    def _check_scale(self, cutout: Cutout, entry: Entry) -> float:
        scale = cutout.pixscale_arcsec
        if scale is None:
            if self.pixscale_arcsec is None:
                raise HostError(
                    "it does not state its pixel scale: add PIXSCALE (FITS) or pixscale_arcsec (npz)"
                )
            return self.pixscale_arcsec
        if not 0.0 < scale < np.inf:
            raise HostError(
                f"its pixel scale is {scale:g} arcsec: correct PIXSCALE (FITS) or pixscale_arcsec (npz)"
            )
        if self.pixscale_arcsec is None:
            self.pixscale_arcsec, self._settled_by = scale, Path(entry.label).name
        if abs(scale / self.pixscale_arcsec - 1.0) > _SCALE_TOLERANCE:
            raise HostError(
                f"its pixel scale is {scale:g} arcsec where {self._settled_by} has {self.pixscale_arcsec:g}: "
                "keep hosts of different scales in different folders",
                reason="pixel scale",
            )
        return scale

    def _table(self, checked: list[_Checked]) -> HostTable:
        fwhm = np.array([each.cutout.psf_fwhm_arcsec for each in checked])
        psf_id = np.array([each.psf_id for each in checked], dtype=np.int64)
        has_image = psf_id >= 0
        if has_image.any():
            fwhm[has_image] = self._image_widths(psf_id[has_image])
        return HostTable(
            host_id=np.array([each.entry.host_id for each in checked]),
            path=np.array([each.entry.label for each in checked]),
            sha256=np.array([each.sha256 for each in checked]),
            x_pix=np.array([each.measured.x_pix for each in checked]),
            y_pix=np.array([each.measured.y_pix for each in checked]),
            mag=np.array([each.measured.mag for each in checked]),
            sky_sigma_nmgy=np.array([each.measured.sky_sigma_nmgy for each in checked]),
            psf_fwhm_arcsec=fwhm,
            psf_model=np.where(has_image, "image", ""),
            moffat_beta=np.full(len(checked), np.nan),
            psf_id=psf_id,
            ra_deg=np.array([each.cutout.ra_deg for each in checked]),
            dec_deg=np.array([each.cutout.dec_deg for each in checked]),
            invvar_median=np.array([each.invvar_median for each in checked]),
            sigma_v_km_s=np.array([each.cutout.sigma_v_km_s for each in checked]),
            light_e=np.array([each.light_shape[0] for each in checked]),
            light_phi_rad=np.array([each.light_shape[1] for each in checked]),
        )

    def _image_widths(self, psf_id: NDArray[np.int64]) -> NDArray[np.float64]:
        """Equivalent widths of PSF images: of a Gaussian with their peak."""
        from arcforge.engine.psf_images import PsfImages

        assert self.pixscale_arcsec is not None
        images = PsfImages(self._psf_images, len(self.bands))
        return images.widths(psf_id, lost=5e-3)[0] * self.pixscale_arcsec


def _medians(stamp: Cutout) -> tuple[float, ...]:
    if stamp.invvar is None:
        return (float("nan"),) * len(stamp.pixels)
    return tuple(float(np.median(plane[plane > 0.0])) for plane in stamp.invvar)
