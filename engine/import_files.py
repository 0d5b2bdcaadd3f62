"""Imported pairs in files: a folder of npz or FITS files, one a row, or arrays in npy files.

``catalog.parquet`` in the folder, with a column ``file``, gives the parameters where it is there, as
``arcforge export`` writes it; else they are what the files say of themselves. A file without a control is its
own control: a row without an arc.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.blobs import BlobError, read_arrays
from arcforge.engine.errors import HostError, ImportSourceError
from arcforge.engine.host_files import SUFFIXES, decode
from arcforge.engine.import_sources import (
    BATCH_ROWS,
    Batch,
    Mapping,
    Pair,
    decode_all,
    exact_float32,
    is_asked_for,
    natural_order,
)

if TYPE_CHECKING:
    import pyarrow as pa

CATALOG_FILE = "catalog.parquet"
STAMPS_FILE, CONTROLS_FILE = "stamps.npy", "ctrls.npy"
_MAX_MEMBERS = 1024
_MAX_FILE_BYTES = 256 << 20
_BAND_NAMES = ("bands", "bands_requested")
_SCALE_NAMES = ("pixscale_arcsec", "pixel_scale", "pixscale")

# What a file holds: stamp and control cubes, their bands, and scalars by name.
Contents = tuple[NDArray[Any], NDArray[Any] | None, str, dict[str, Any]]


class FolderSource:
    """A folder (with sub-folders) of npz or FITS files, or one such file; one row a file."""

    def __init__(self, path: Path, mapping: Mapping) -> None:
        self._mapping = mapping
        self._root = path if path.is_dir() else path.parent
        self._catalog: pa.Table | None = None
        if path.is_dir() and (path / CATALOG_FILE).is_file():
            self._catalog = _read_catalog(path / CATALOG_FILE)
            if "file" not in self._catalog.column_names:
                raise ImportSourceError(
                    f"{path / CATALOG_FILE}: has no column file, which names each row's: add it, or put the "
                    "catalogue elsewhere"
                )
            self._files = [path / str(name) for name in self._catalog.column("file").to_pylist()]
        else:
            found = path.rglob("*") if path.is_dir() else [path]
            self._files = sorted((f for f in found if f.name.lower().endswith(SUFFIXES)), key=natural_order)
        if not self._files:
            raise ImportSourceError(f"{path}: holds no npz or FITS files; give a folder of cutouts")
        self.layout = "npz" if self._files[0].suffix == ".npz" else "fits"
        self.bands, self.pixscale_arcsec = self._look(path)

    def _look(self, path: Path) -> tuple[str, Any]:
        reason = "none"
        for file in self._files:
            try:
                _, _, bands, scalars = self._read(file)
            except BlobError as error:
                reason = f"{file.name}: {error}"
                continue
            scale = self._mapping.pixscale_arcsec
            for name in _SCALE_NAMES:
                if scale is None and name in scalars:
                    scale = scalars[name]
            return bands, scale
        raise ImportSourceError(f"{path}: no file can be read ({reason})")

    def batches(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[Batch]:
        """Yield all files in order; parameters that a file lacks are null."""
        import pyarrow as pa

        for first in range(0, len(self._files), BATCH_ROWS):
            files = self._files[first : first + BATCH_ROWS]
            scalars: list[dict[str, Any]] = [{} for _ in files]
            # A file's own parameters come with its pixels; those of a row already written are not needed.
            decoders = [
                partial(self._pair, file, scalars[k]) if is_asked_for(wanted, first + k) else None
                for k, file in enumerate(files)
            ]
            pairs = decode_all(decoders)
            if self._catalog is not None:
                table = self._catalog.slice(first, len(files))
            else:
                names = list(dict.fromkeys(name for entry in scalars for name in entry))
                table = pa.table({name: [entry.get(name) for entry in scalars] for name in names})
                table = _appended(table, "file", [f.relative_to(self._root).as_posix() for f in files])
            yield Batch(first, self._mapping.apply(table), pairs)

    def _pair(self, file: Path, into: dict[str, Any]) -> Pair:
        stamp, control, bands, scalars = self._read(file)
        if sorted(bands) != sorted(self.bands):
            raise BlobError(f"{file.name}: bands {bands} where the set has {self.bands}")
        order = [bands.index(band) for band in self.bands]
        images = exact_float32(stamp[order], f"{file.name}: the stamp")
        into.update({"host_id": file.stem} | scalars)
        if control is None:
            into.setdefault("lens_model", "CONTROL")
            return images, images
        return images, exact_float32(control[order], f"{file.name}: the control")

    def _read(self, file: Path) -> Contents:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BlobError(f"{file.name}: cannot be read ({error.strerror})") from error
        try:
            if file.suffix == ".npz":
                return _read_npz(content, self._mapping.bands)
            return _read_fits(file.name, content, self._mapping.bands)
        except BlobError as error:
            raise BlobError(f"{file.name}: {error}") from error


def _read_npz(content: bytes, bands: str | None) -> Contents:
    arrays = read_arrays(content, _MAX_FILE_BYTES, lambda name: True, _MAX_MEMBERS)
    scalars = {name.removeprefix("meta_"): value.item() for name, value in arrays.items() if value.ndim == 0}
    for name in _BAND_NAMES:
        bands = bands or "".join(str(scalars.get(name, "")).replace(",", "").split())
    if not bands:
        bands = "".join(sorted(name[-1] for name in arrays if name.startswith("image_")))
    if not bands:
        raise BlobError("it does not name its bands; add a key 'bands', or give them in --map")
    stamp = _cube(arrays, "", bands)
    if stamp is None:
        raise BlobError("it has neither a key 'cutout' nor image_<band> for each band")
    return stamp, _cube(arrays, "ctrl_", bands), bands, scalars


def _cube(arrays: dict[str, NDArray[Any]], prefix: str, bands: str) -> NDArray[Any] | None:
    """Return the (band, y, x) cube under a prefix, None where there is none."""
    names = [f"{prefix}image_{band}" for band in bands]
    if all(name in arrays for name in names):
        images = [arrays[name] for name in names]
        if len({image.shape for image in images}) != 1 or images[0].ndim != 2:
            raise BlobError(f"{prefix}image_<band> are not 2-D of one shape")
        return np.stack(images)
    cutout = arrays.get(f"{prefix}cutout")
    if cutout is None:
        return None
    if cutout.dtype.kind not in "fiu" or cutout.ndim != 3:
        raise BlobError(f"{prefix}cutout is {cutout.dtype} of shape {cutout.shape}; images have three axes")
    ends = [cutout.shape[axis] == len(bands) for axis in (0, 2)]
    if ends[0] == ends[1]:
        raise BlobError(
            f"{prefix}cutout of shape {cutout.shape} does not tell its axis of {len(bands)} bands"
        )
    return cutout if ends[0] else np.moveaxis(cutout, 2, 0)


def _read_fits(name: str, content: bytes, bands: str | None) -> Contents:
    from astropy.io import fits

    from arcforge.engine.fits_images import check_fits
    from arcforge.engine.host_files import unpacked

    try:
        content = unpacked(name, content)
        name = name.removesuffix(".gz")
        check_fits(content)
        with fits.open(io.BytesIO(content), memmap=False) as units:
            header = units[0].header
            names = {unit.name for unit in units}
            if "STAMP" in names:
                held = "".join(str(header.get("BANDS", bands or "")).replace(",", "").split())
                if not held:
                    raise BlobError("its header does not name its bands; add BANDS")
                scalars = {"pixscale_arcsec": header["PIXSCALE"]} if "PIXSCALE" in header else {}
                control = np.asarray(units["CTRL"].data) if "CTRL" in names else None
                return np.asarray(units["STAMP"].data), control, held, scalars
    except BlobError:
        raise
    except Exception as error:  # damaged headers and data fail in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BlobError(f"not a readable FITS file ({reason})") from error
    try:
        cutout = decode(name, content, bands or "grz")
    except HostError as error:
        raise BlobError(str(error)) from error
    scalars = {} if cutout.pixscale_arcsec is None else {"pixscale_arcsec": cutout.pixscale_arcsec}
    for band, fwhm in zip(bands or "grz", cutout.psf_fwhm_arcsec, strict=True):
        if not math.isnan(fwhm):
            scalars[f"psf_fwhm_arcsec_{band}"] = fwhm
    return cutout.pixels, None, bands or "grz", scalars


class NpySource:
    """A folder of ``stamps.npy`` and ``ctrls.npy``, (row, band, y, x) each, with ``catalog.parquet``."""

    layout = "npy"

    def __init__(self, path: Path, mapping: Mapping) -> None:
        self._mapping = mapping
        try:
            self._stamps = np.load(path / STAMPS_FILE, mmap_mode="r", allow_pickle=False)
            self._controls = np.load(path / CONTROLS_FILE, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ImportSourceError(f"{path}: {STAMPS_FILE} or {CONTROLS_FILE}: {error}") from error
        self._catalog = _read_catalog(path / CATALOG_FILE)
        shape = self._stamps.shape
        if len(shape) != 4 or self._controls.shape != shape or shape[0] != self._catalog.num_rows:
            raise ImportSourceError(
                f"{path}: stamps {shape}, controls {self._controls.shape} and {self._catalog.num_rows} "
                "catalogue rows do not belong together; give (row, band, y, x) arrays and their catalogue"
            )
        first = self._catalog.slice(0, 1).to_pylist()
        known = first[0] if first else {}
        self.bands = mapping.bands or str(known.get("bands", ""))
        if len(self.bands) != shape[1]:
            raise ImportSourceError(
                f"{path}: {shape[1]} bands in {STAMPS_FILE}, and the column 'bands' of {CATALOG_FILE} says "
                f"'{self.bands}'; name them there or in --map"
            )
        self.pixscale_arcsec = mapping.pixscale_arcsec or known.get("pixscale_arcsec")

    def batches(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[Batch]:
        """Yield all rows in order."""
        for first in range(0, self._catalog.num_rows, BATCH_ROWS):
            table = self._catalog.slice(first, BATCH_ROWS)
            decoders = [
                partial(self._pair, row) if is_asked_for(wanted, row) else None
                for row in range(first, first + table.num_rows)
            ]
            yield Batch(first, self._mapping.apply(table), decode_all(decoders))

    def _pair(self, row: int) -> Pair:
        stamp = exact_float32(np.asarray(self._stamps[row]), "the stamp")
        return stamp, exact_float32(np.asarray(self._controls[row]), "the control")


def _read_catalog(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise ImportSourceError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error


def _appended(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    import pyarrow as pa

    if name in table.column_names:
        return table
    if not table.column_names:
        return pa.table({name: values})
    return table.append_column(name, pa.array(values))
