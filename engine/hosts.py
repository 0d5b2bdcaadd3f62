"""Sets of host cutouts: checked once, read again when needed, held in bounded memory."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcforge.engine.errors import HostError
from arcforge.engine.host_files import SUFFIXES, Cutout, decode, is_host_file
from arcforge.engine.host_measure import Measurement, measure
from arcforge.engine.host_table import HostTable

Pixels = NDArray[np.float32]
CACHED_HOSTS = 256
_BLOCK = 32  # hosts made at once where many are asked for
_SCALE_TOLERANCE = 1e-3  # scales that differ by less are one: a TAN projection varies by that over a degree


@dataclass(frozen=True)
class Host:
    """One host on its stamp."""

    host_id: str
    pixels: Pixels  #: (bands, stamp_size, stamp_size), nanomaggies
    x_pix: float  #: galaxy's sub-pixel centroid in the stamp, 0-based
    y_pix: float
    mag: tuple[float, ...]  #: AB per band, aperture of radius 2.5 arcsec; NaN without positive flux
    sky_sigma_nmgy: tuple[float, ...]  #: per band
    psf_fwhm_arcsec: tuple[float, ...] | None  #: per band, NaN for a band without; None for none at all
    path: str
    sha256: str
    invvar: Pixels | None = None
    mask: NDArray[np.uint8] | None = None


class HostSet(Sequence[Host]):
    """Hosts by number. Their table is in memory; pixels are made on demand, the last few kept.

    Safe to read from several threads.
    """

    def __init__(
        self,
        bands: str,
        pixscale_arcsec: float,
        stamp_size: int,
        table: HostTable,
        load: Callable[[NDArray[np.int64]], Pixels],
        refused: Sequence[tuple[str, str]] = (),
        cached_hosts: int = CACHED_HOSTS,
    ) -> None:
        self.bands = bands
        self.pixscale_arcsec = pixscale_arcsec
        self.stamp_size = stamp_size
        self.table = table
        self.refused = list(refused)  #: (path, reason) of files that are not in the set
        self._load = load
        self._cached_hosts = cached_hosts
        self._cache: OrderedDict[int, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"host {index} of {len(self)}")
        table = self.table
        psf = tuple(float(v) for v in table.psf_fwhm_arcsec[number])
        return Host(
            host_id=str(table.host_id[number]),
            pixels=self._fetch(np.array([number]))[0],
            x_pix=float(table.x_pix[number]),
            y_pix=float(table.y_pix[number]),
            mag=tuple(float(v) for v in table.mag[number]),
            sky_sigma_nmgy=tuple(float(v) for v in table.sky_sigma_nmgy[number]),
            psf_fwhm_arcsec=None if all(v != v for v in psf) else psf,
            path=str(table.path[number]),
            sha256=str(table.sha256[number]),
        )

    def __iter__(self) -> Iterator[Host]:
        for start in range(0, len(self), _BLOCK):
            block = range(start, min(start + _BLOCK, len(self)))
            self._fetch(np.array(block, dtype=np.int64))
            yield from (self[i] for i in block)

    def pixels(self, indices: ArrayLike) -> Pixels:
        """Pixels of several hosts, float32 (k, bands, stamp_size, stamp_size); each is made once."""
        numbers = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise IndexError(f"hosts {numbers.min()} to {numbers.max()} of {len(self)}")
        out = np.empty((numbers.size, len(self.bands), self.stamp_size, self.stamp_size), dtype=np.float32)
        distinct, inverse = np.unique(numbers, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        starts = np.searchsorted(inverse[order], np.arange(distinct.size + 1))
        for start in range(0, distinct.size, _BLOCK):
            held = self._fetch(distinct[start : start + _BLOCK])
            for k, pixels in enumerate(held, start=start):
                out[order[starts[k] : starts[k + 1]]] = pixels
        return out

    def _fetch(self, numbers: NDArray[np.int64]) -> list[Pixels]:
        """Pixels of distinct hosts, from the cache or made now, all at once."""
        with self._lock:
            held = {int(i): self._cache[int(i)] for i in numbers if int(i) in self._cache}
        absent = np.array([i for i in numbers if int(i) not in held], dtype=np.int64)
        if absent.size:
            for number, pixels in zip(absent, self._load(absent), strict=True):
                held[int(number)] = own = pixels.copy()  # a view would keep its whole block in memory
                own.flags.writeable = False  # shared by all who ask for this host
        with self._lock:
            for number in numbers:
                self._cache[int(number)] = held[int(number)]
                self._cache.move_to_end(int(number))
            while len(self._cache) > self._cached_hosts:
                self._cache.popitem(last=False)
        return [held[int(number)] for number in numbers]


def open_hosts(
    path: str | os.PathLike[str],
    *,
    bands: str = "grz",
    stamp_size: int = 64,
    pixscale_arcsec: float | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> HostSet:
    """Open a folder of host cutouts, or one file. Every file is read and checked once, one at a time.

    Parameters
    ----------
    path : path
        A folder of ``.fits``, ``.fits.gz``, ``.fits.fz`` cubes (header BANDS or BAND0.., PIXSCALE or a WCS)
        and ``.npz`` cutouts (key ``cutout`` with ``meta_bands_requested`` or ``bands``, or ``image_<band>``).
        Hosts are ordered by file name; the name without its ending is the ``host_id``.
    bands : str
        Bands of the stamps, in order; a file may hold more.
    stamp_size : int
        Pixels along a side. A file's central pixel (n // 2) goes to index ``stamp_size // 2``.
    pixscale_arcsec : float, optional
        For files that do not state it; where they do, it must agree.
    skip_bad : bool
        List bad files in ``HostSet.refused`` instead of raising for the first one.
    progress : callable, optional
        Called with (files done, files in all).

    Returns
    -------
    HostSet

    Raises
    ------
    HostError
        One line naming the file: unreadable, truncated, wrong bands, NaN, too small, no coverage, no galaxy
        at its centre, pixel scales that differ; or a folder without host files.
    """
    files, refused = _list_files(Path(path))
    reader = _Reader(bands, stamp_size, pixscale_arcsec)
    entries: list[tuple[Path, str, Measurement, tuple[float, ...]]] = []
    for number, file in enumerate(files):
        try:
            entries.append(reader.check(file))
        except HostError as error:
            if not skip_bad:
                raise
            refused.append((str(file), str(error).removeprefix(f"host {file}: ")))
        if progress is not None:
            progress(number + 1, len(files))
    if not entries:
        reason = f": {refused[0][1]}" if refused else ""
        raise HostError(f"hosts {path}: none of its {len(files)} files is usable{reason}")
    assert reader.pixscale_arcsec is not None  # every checked file has settled it
    table = _table(entries)
    return HostSet(bands, reader.pixscale_arcsec, stamp_size, table, reader.loader(table), refused)


def _list_files(path: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """Host files by name, and files of the folder that are none with the reason."""
    if not path.exists():
        raise HostError(f"hosts {path}: no such file or folder: check the path")
    if path.is_file():
        if not is_host_file(path.name):
            raise HostError(f"host {path}: unknown kind of file: give {', '.join(SUFFIXES)}")
        return [path], []
    try:
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
    except OSError as error:
        raise HostError(f"hosts {path}: the folder cannot be read ({error.strerror})") from error
    files = [path / name for name in names if is_host_file(name)]
    if not files:
        raise HostError(f"hosts {path}: the folder holds no {', '.join(SUFFIXES)} file: check the path")
    stems: dict[str, Path] = {}
    for file in files:
        other = stems.setdefault(_host_id(file), file)
        if other != file:
            raise HostError(f"host {file}: has the same host_id as {other.name}: rename one of them")
    others = [name for name in names if not is_host_file(name) and not name.startswith(".")]
    return files, [(str(path / name), "not a FITS or npz file") for name in others]


def _host_id(file: Path) -> str:
    name = file.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


class _Reader:
    """Reads files of one set; the first file settles the pixel scale where the caller gave none."""

    def __init__(self, bands: str, stamp_size: int, pixscale_arcsec: float | None) -> None:
        self.bands = bands
        self.stamp_size = stamp_size
        self.pixscale_arcsec = pixscale_arcsec
        self._settled_by = "the pixscale_arcsec given"

    def check(self, file: Path) -> tuple[Path, str, Measurement, tuple[float, ...]]:
        """Read, validate and measure one file; errors name it."""
        try:
            content = file.read_bytes()
            cutout = decode(file.name, content, self.bands)
            self._check_pixels(cutout.pixels)
            scale = self._check_scale(cutout, file)
            measured = measure(cutout.pixels, scale)
        except HostError as error:
            raise HostError(f"host {file}: {error}") from error
        except OSError as error:
            raise HostError(f"host {file}: cannot be read ({error.strerror}): check its rights") from error
        x0, y0 = self._corner(cutout.pixels)
        placed = Measurement(measured.x_pix - x0, measured.y_pix - y0, measured.mag, measured.sky_sigma_nmgy)
        return file, hashlib.sha256(content).hexdigest(), placed, cutout.psf_fwhm_arcsec

    def loader(self, table: HostTable) -> Callable[[NDArray[np.int64]], Pixels]:
        """The function that reads checked hosts again and makes sure that they are the same."""

        def load(numbers: NDArray[np.int64]) -> Pixels:
            return np.stack([load_one(int(number)) for number in numbers])

        def load_one(number: int) -> Pixels:
            file = Path(table.path[number])
            try:
                content = file.read_bytes()
            except OSError as error:
                raise HostError(
                    f"host {file}: cannot be read any more ({error.strerror}): restore it"
                ) from error
            if hashlib.sha256(content).hexdigest() != table.sha256[number]:
                raise HostError(f"host {file}: changed since it was checked: start again")
            pixels = decode(file.name, content, self.bands).pixels
            x0, y0 = self._corner(pixels)
            return pixels[:, y0 : y0 + self.stamp_size, x0 : x0 + self.stamp_size]

        return load

    def _corner(self, pixels: Pixels) -> tuple[int, int]:
        """Column and row of the file that become 0 in the stamp."""
        ny, nx = pixels.shape[1:]
        return nx // 2 - self.stamp_size // 2, ny // 2 - self.stamp_size // 2

    def _check_pixels(self, pixels: Pixels) -> None:
        ny, nx = pixels.shape[1:]
        x0, y0 = self._corner(pixels)
        if min(x0, y0) < 0 or x0 + self.stamp_size > nx or y0 + self.stamp_size > ny:
            raise HostError(
                f"its {ny} x {nx} pixels do not hold a stamp of {self.stamp_size}: give larger cutouts or a "
                f"stamp_size up to {min(ny, nx)}"
            )
        for band, plane in zip(self.bands, pixels, strict=True):
            bad = ~np.isfinite(plane)
            if bad.any():
                y, x = np.argwhere(bad)[0]
                raise HostError(
                    f"{int(bad.sum())} pixels of band {band} are NaN or infinite, the first at x = {x}, "
                    f"y = {y}: remove the file or repair its pixels"
                )
            if plane.min() == plane.max():
                raise HostError(f"band {band} is {plane.flat[0]:g} everywhere (no coverage): remove the file")

    def _check_scale(self, cutout: Cutout, file: Path) -> float:
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
            self.pixscale_arcsec, self._settled_by = scale, file.name
        if abs(scale / self.pixscale_arcsec - 1.0) > _SCALE_TOLERANCE:
            raise HostError(
                f"its pixel scale is {scale:g} arcsec where {self._settled_by} has {self.pixscale_arcsec:g}: "
                "keep hosts of different scales in different folders"
            )
        return scale


def _table(entries: list[tuple[Path, str, Measurement, tuple[float, ...]]]) -> HostTable:
    return HostTable(
        host_id=np.array([_host_id(file) for file, *_ in entries]),
        path=np.array([str(file) for file, *_ in entries]),
        sha256=np.array([digest for _, digest, *_ in entries]),
        x_pix=np.array([measured.x_pix for _, _, measured, _ in entries]),
        y_pix=np.array([measured.y_pix for _, _, measured, _ in entries]),
        mag=np.array([measured.mag for _, _, measured, _ in entries]),
        sky_sigma_nmgy=np.array([measured.sky_sigma_nmgy for _, _, measured, _ in entries]),
        psf_fwhm_arcsec=np.array([psf for *_, psf in entries]),
        psf_model=np.full(len(entries), ""),
        moffat_beta=np.full(len(entries), np.nan),
    )
