"""Hosts as a store needs them: columns and blocks to write once, pixels by number while rows are injected."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.arrays import Encoded, Pixels
from arcforge.engine.image_reader import ImageReader
from arcforge.engine.places import is_object
from arcforge.engine.plan import Plan

if TYPE_CHECKING:
    from arcforge.engine.hosts import HostSet
    from arcforge.engine.source_bank import SourceBank

_REFUSED_LISTED = 100

# Pixels up to this size stay in memory during a run; more go to a scratch file, whatever the size of the set.
_IN_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class HostLayer:
    """Images of the hosts beside their pixels, in the form in which a store keeps them: float32."""

    name: str
    shape: tuple[int, int, int, int]
    blocks: Callable[[int], Iterator[Pixels]]  #: consecutive entries, that many at a time


class StoredHosts:
    """A host set in the form in which a store keeps it."""

    def __init__(self, hosts: HostSet, bank: SourceBank | None = None) -> None:
        self._hosts = hosts
        self._bank = bank

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """What is known of each host, (n_hosts,) arrays; magnitudes, sky and PSF widths one column a band."""
        table = self._hosts.table
        text = np.dtypes.StringDType()
        # The file's name only: where a folder is mounted must not change a byte of the store.
        columns: dict[str, NDArray[Any]] = {
            "host_id": np.asarray(table.host_id).astype(text),
            "file": np.array([Path(str(path)).name for path in table.path], dtype=text),
            "sha256": np.asarray(table.sha256).astype(text),
            "x_pix": np.asarray(table.x_pix, dtype=np.float64),
            "y_pix": np.asarray(table.y_pix, dtype=np.float64),
            "ra_deg": np.asarray(table.ra_deg, dtype=np.float64),
            "dec_deg": np.asarray(table.dec_deg, dtype=np.float64),
            "psf_id": np.asarray(table.psf_id, dtype=np.int64),
            "sigma_v_km_s": np.asarray(table.sigma_v_km_s, dtype=np.float64),
            "light_e": np.asarray(table.light_e, dtype=np.float64),
            "light_phi_rad": np.asarray(table.light_phi_rad, dtype=np.float64),
        }
        for name in ("mag", "sky_sigma_nmgy", "psf_fwhm_arcsec"):
            for i, band in enumerate(self._hosts.bands):
                columns[f"{name}_{band}"] = np.ascontiguousarray(getattr(table, name)[:, i], dtype=np.float64)
        return columns

    @property
    def sha256(self) -> str:
        """Hash of everything that the hosts' pixels and columns follow from."""
        digest = hashlib.sha256()
        hosts = self._hosts
        digest.update(f"{hosts.bands} {hosts.stamp_size} {hosts.pixscale_arcsec!r} {len(hosts)}\n".encode())
        if self._bank is not None:
            digest.update(f"{self._bank.sha256}\n".encode())
        for number, image in sorted(hosts.psf_images.items()):
            digest.update(f"{number} {image.shape}\n".encode() + np.ascontiguousarray(image).tobytes())
        for values in self.columns.values():
            digest.update("\n".join(map(str, values.tolist())).encode() + b"\n")
        return digest.hexdigest()

    @property
    def refused(self) -> dict[str, Any]:
        """What was refused: counts by reason, and the first hundred by name."""
        first = self._hosts.refused[:_REFUSED_LISTED]
        listed = [[Path(each.path).name, each.reason, each.message] for each in first]
        return {"counts": self._hosts.refused_by_reason, "first": listed}

    @property
    def notes(self) -> Encoded:
        """Nothing beside the columns."""
        return {}

    def blocks(self, n: int) -> Iterator[Pixels]:
        """Yield the pixels of consecutive hosts, (k <= n, bands, ny, nx) float32 at a time."""
        for first in range(0, len(self._hosts), n):
            yield self._hosts.pixels(np.arange(first, min(first + n, len(self._hosts))))

    @property
    def layers(self) -> list[HostLayer]:
        """Inverse variance (NaN: not known), mask bits (NaN: not known), PSF images (by ``psf_id``)."""
        hosts = self._hosts
        size, n_bands = hosts.stamp_size, len(hosts.bands)
        planes = {"invvar": n_bands, "mask": 1}
        found = [
            HostLayer(name, (len(hosts), planes[name], size, size), self._blocks_of(name))
            for name in hosts.layers
        ]
        if hosts.psf_images:
            psfs = psf_array(hosts.psf_images)
            found.append(HostLayer("psf", psfs.shape, lambda n: _pieces(psfs, n)))
        if self._bank is not None:
            images = source_array(self._bank)
            found.append(HostLayer("sources", images.shape, lambda n: _pieces(images, n)))
        return found

    @property
    def sources(self) -> dict[str, Any]:
        """What is known of the source images, by list; empty without."""
        if self._bank is None:
            return {}
        return {
            "source_id": self._bank.ids,
            "pixscale_arcsec": self._bank.pixscale_arcsec.tolist(),
            "shape": [list(template.pixels.shape) for template in self._bank.templates],
        }

    def _blocks_of(self, name: str) -> Callable[[int], Iterator[Pixels]]:
        hosts, read = self._hosts, self._hosts.layers[name]

        def blocks(n: int) -> Iterator[Pixels]:
            for first in range(0, len(hosts), n):
                values = read(np.arange(first, min(first + n, len(hosts)), dtype=np.int64))
                if name == "mask":  # whole numbers below 2^24 are exact in float32
                    values = np.where(values < 0, np.nan, values)[:, None]
                yield np.ascontiguousarray(values, dtype=np.float32)

        return blocks


def _pieces(images: Pixels, n: int) -> Iterator[Pixels]:
    return iter(np.split(images, range(n, len(images), n)))


def source_array(bank: SourceBank) -> Pixels:
    """Source images as one array (n, 1, ny, nx), each in the lower left corner of its plane."""
    shapes = np.array([template.pixels.shape for template in bank.templates])
    out = np.zeros((len(bank), 1, *shapes.max(axis=0)), dtype=np.float32)
    for number, template in enumerate(bank.templates):
        ny, nx = template.pixels.shape
        out[number, 0, :ny, :nx] = template.pixels
    return out


def psf_array(images: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float32]:
    """PSF images 0 to n - 1 as one array (n, bands, side, side), smaller ones padded with zeros."""
    side = max(image.shape[-1] for image in images.values())
    first = images[min(images)]
    out = np.zeros((len(images), first.shape[0], side, side), dtype=np.float32)
    for number, image in images.items():
        edge = (side - image.shape[-1]) // 2
        out[number, :, edge : edge + image.shape[-1], edge : edge + image.shape[-1]] = image
    return out


class HostPixels:
    """Pixels (or a layer) of any hosts of a store, read once: kept in memory, or in a scratch file.

    The scratch file is for random access: a store decodes a chunk of hosts to give one. A context manager;
    leaving it removes the file.

    Parameters
    ----------
    root
        A store whose hosts are committed.
    plan
        Its plan.
    scratch_folder
        Where the scratch file goes.
    layer
        ``"pixels"`` or ``"invvar"``.
    """

    def __init__(self, root: Path, plan: Plan, scratch_folder: Path, layer: str = "pixels") -> None:
        self._shape = plan.row_shape
        self._bytes = math.prod(self._shape) * 4
        n, step = plan.n_hosts, plan.host_shard_rows
        stored = ImageReader(root, f"hosts/{layer}")
        blocks = (stored.read(first, min(first + step, n)) for first in range(0, n, step))
        self._kept: Pixels | None = None
        if n * self._bytes <= _IN_MEMORY_BYTES:
            self._kept = np.concatenate(list(blocks))
            return
        # Read by pread, not by a memory map: mapped pages would count as the process's memory.
        self._scratch = tempfile.TemporaryFile(dir=None if is_object(scratch_folder) else scratch_folder)  # noqa: SIM115 (lives as long as this)
        for pixels in blocks:
            self._scratch.write(np.ascontiguousarray(pixels).data)
        self._scratch.flush()

    def __enter__(self) -> HostPixels:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._kept is None:
            self._scratch.close()

    def of(self, numbers: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int64]]:
        """Return pixels (k, bands, ny, nx) and, for every number asked for, its place among them."""
        if self._kept is not None:
            return self._kept, numbers
        distinct, places = np.unique(numbers, return_inverse=True)
        pixels = np.empty((len(distinct), *self._shape), dtype=np.float32)
        for i, number in enumerate(distinct):
            data = os.pread(self._scratch.fileno(), self._bytes, int(number) * self._bytes)
            pixels[i] = np.frombuffer(data, dtype=np.float32).reshape(self._shape)
        return pixels, np.asarray(places, dtype=np.int64)
