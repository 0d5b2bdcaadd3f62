"""A set of host cutouts: their table in memory, pixels on demand, the last few kept."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcforge.engine.host_table import HostTable

Pixels = NDArray[np.float32]
CACHED_HOSTS = 256
_BLOCK = 32  # hosts made at once where many are asked for
LAYERS = ("invvar", "mask")


class Refusal(NamedTuple):
    """A file or position that is not in a set."""

    path: str
    message: str
    reason: str  #: the kind of fault, for counting


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
    invvar: Pixels | None = None  #: (bands, stamp_size, stamp_size), 1 / nanomaggies^2
    mask: NDArray[np.int32] | None = None  #: (stamp_size, stamp_size), the survey's bits
    psf: NDArray[np.float32] | None = None  #: (bands, side, side), the PSF as an image


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
        refused: Sequence[Refusal] = (),
        cached_hosts: int = CACHED_HOSTS,
        *,
        layers: Mapping[str, Callable[[NDArray[np.int64]], NDArray[Any]]] | None = None,
        psf_images: Mapping[int, NDArray[np.float32]] | None = None,
    ) -> None:
        self.bands = bands
        self.pixscale_arcsec = pixscale_arcsec
        self.stamp_size = stamp_size
        self.table = table
        self.refused = list(refused)  #: files and positions that are not in the set, each with its reason
        #: what is known of every pixel beside its value, by name of ``LAYERS``: a function of host numbers,
        #: as ``pixels`` is
        self.layers = dict(layers or {})
        self.psf_images = dict(psf_images or {})  #: (bands, side, side) by ``table.psf_id``
        self._load = load
        self._cached_hosts = cached_hosts
        self._cache: OrderedDict[int, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def refused_by_reason(self) -> dict[str, int]:
        """How many files and positions were refused for each kind of fault, the most frequent first."""
        return dict(Counter(refusal.reason for refusal in self.refused).most_common())

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
            **{name: self._layer(name, number) for name in LAYERS},
            psf=self.psf_images.get(int(table.psf_id[number])),
        )

    def _layer(self, name: str, number: int) -> NDArray[Any] | None:
        return self.layers[name](np.array([number]))[0] if name in self.layers else None

    def __iter__(self) -> Iterator[Host]:
        for start in range(0, len(self), _BLOCK):
            block = range(start, min(start + _BLOCK, len(self)))
            self._fetch(np.array(block, dtype=np.int64))
            yield from (self[i] for i in block)

    def keep(self, numbers: NDArray[np.int64], refused: Sequence[Refusal]) -> HostSet:
        """The set of those hosts alone; ``refused`` says why the others are not in it."""

        def of_ours(
            read: Callable[[NDArray[np.int64]], NDArray[Any]],
        ) -> Callable[[NDArray[np.int64]], NDArray[Any]]:
            return lambda wanted: read(numbers[wanted])

        return HostSet(
            self.bands,
            self.pixscale_arcsec,
            self.stamp_size,
            self.table.take(numbers),
            of_ours(self._load),
            [*self.refused, *refused],
            self._cached_hosts,
            layers={name: of_ours(read) for name, read in self.layers.items()},
            psf_images=self.psf_images,
        )

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
