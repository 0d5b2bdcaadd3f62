"""Reading a store: paired stamps, controls and arcs by row, the catalogue, the hosts.

A store is a zarr v3 group in a folder:

=====================  =====================================================================================
``zarr.json``          attributes: schema, status, units, conventions, config, seed, software
``arcs``               float32 (row, band, y, x), nMgy per pixel: the light added to each row's host
``hosts/pixels``       float32 (host, band, y, x): each host once; ``hosts/<column>`` what is known of it
``hosts/<layer>``      where hosts came with them: ``invvar``, ``mask`` (host, ...), ``psf`` (by ``psf_id``)
``catalog/``           one parquet file a shard, together the table of every row's parameters
``columns/<column>``   the same table as 1-D arrays, for readers that know zarr only
``plan.json``          what the bytes follow from; ``commits/``, ``manifest.json``: sizes and hashes
=====================  =====================================================================================

``control = hosts/pixels[host_index]``, ``stamp = control + arc`` in float32 (:mod:`arcforge.engine.pairing`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.arrays import METADATA_FILE, Pixels, read_attributes, read_column, shard_key
from arcforge.engine.commits import (
    HOSTS,
    MANIFEST_FILE,
    Files,
    corrupt_message,
    files_of,
    hash_fault,
    read_commit,
    read_committed,
    read_manifest,
    shard_name,
    size_fault,
)
from arcforge.engine.errors import StoreCorruptError, StoreError
from arcforge.engine.image_reader import ImageReader
from arcforge.engine.noise_models import updates_invvar
from arcforge.engine.notebook import store_html
from arcforge.engine.places import as_place
from arcforge.engine.plan import Plan, read_plan
from arcforge.engine.store_status import (
    COMPLETE,
    LAYERS,
    catalog_key,
    committed_shards,
    corrections_key,
    read_group_attributes,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.source_bank import SourceBank

# Host pixels up to this size are kept after the first read of a control.
_KEPT_HOST_BYTES = 256 << 20

Rows = slice | int | NDArray[np.integer[Any]] | list[int]


def open_store(path: str | Path, *, allow_partial: bool = False) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    path
        The store's folder, ``NAME.zarr``.
    allow_partial
        Open a store that is not complete too; it then holds the rows that are committed so far.

    Raises
    ------
    StoreError
        Where there is no store, it is of another format, or incomplete and ``allow_partial`` is False.
    StoreCorruptError
        Where its metadata is not what was written.
    """
    root = as_place(path)
    attrs = read_group_attributes(root)
    if attrs["status"] == COMPLETE:
        plan, manifest = _open_complete(root)
        return Store(root, attrs, plan, manifest, np.arange(plan.n_rows, dtype=np.int64))
    plan = read_plan(root)
    done = committed_shards(root, plan)
    if not allow_partial:
        raise StoreError(
            f"{root}: is incomplete, {len(done)} of {plan.n_shards} shards are committed; repeat the command "
            "that made it with --resume (partitions: each, then 'arcforge finalise'), or open it with "
            "allow_partial=True"
        )
    files: Files = {}
    for name in [HOSTS, *map(shard_name, done)]:
        files |= files_of(read_commit(root, plan.sha256, name))
    rows = [np.arange(*plan.rows_of(shard), dtype=np.int64) for shard in done]
    return Store(root, attrs, plan, files, np.concatenate([np.empty(0, np.int64), *rows]))


def _open_complete(root: Path) -> tuple[Plan, Files]:
    """Read plan and manifest of a complete store; every metadata file must be as it was written."""
    files = read_manifest(root)
    for key, record in files.items():
        if key.endswith(".json") and not key.startswith("commits/"):
            fault = hash_fault(root, key, record)
            if fault:
                raise StoreCorruptError(corrupt_message(root, key, fault))
    return read_plan(root), files


class Store:
    """Rows of paired stamps. Open one with :func:`open_store`.

    Attributes
    ----------
    path : Path
    attrs : dict
        Attributes of the zarr group.
    plan : Plan
    files : dict
        Size and SHA-256 of every committed file.
    rows : (n,) int64
        Row numbers of the whole run that this store holds: all, unless it was opened with ``allow_partial``.
    """

    def __init__(
        self, path: Path, attrs: dict[str, Any], plan: Plan, files: Files, rows: NDArray[np.int64]
    ) -> None:
        self.path = path
        self.attrs = attrs
        self.plan = plan
        self.files = files
        self.rows = rows
        self._arcs = ImageReader(path, "arcs")
        self._pixels = ImageReader(path, "hosts/pixels")
        self._kept_hosts: Pixels | None = None
        self._seen: set[str] = set()

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Store {self.path}: {len(self)} rows, bands {self.bands}, {self.stamp_size} pix>"

    _repr_html_ = store_html  # what notebooks show

    @property
    def bands(self) -> str:
        """Names of the bands in the order of axis 1, one letter each."""
        return self.plan.bands

    @property
    def pixscale_arcsec(self) -> float:
        """Pixel scale in arcsec."""
        return self.plan.pixscale_arcsec

    @property
    def stamp_size(self) -> int:
        """Pixels along y and along x."""
        return self.plan.stamp_size

    @cached_property
    def catalog(self) -> pa.Table:
        """The parameters of every row, in row order (pyarrow Table)."""
        return self._read_catalog(None)

    def parts(self) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Yield positions of consecutive rows and their part of the catalogue, a shard at a time."""
        shards = self.rows // self.plan.shard_rows
        for shard in np.unique(shards):
            yield np.flatnonzero(shards == shard), self._read_parquet(catalog_key(int(shard)))

    @cached_property
    def hosts(self) -> pa.Table:
        """What is known of each host, in the order of ``host_index`` (pyarrow Table)."""
        import pyarrow as pa

        columns = {}
        for key in sorted(self.files):
            folder, _, leaf = key.removeprefix("hosts/").partition("/")
            if key.startswith("hosts/") and folder not in ("pixels", *LAYERS) and leaf.startswith("c/"):
                read_committed(self.path, key, self.files[key])  # checks it
                columns[folder] = pa.array(read_column(self.path, f"hosts/{folder}").tolist())
        return pa.table(columns)

    def arcs(self, rows: Rows) -> Pixels:
        """Return the light that was added.

        Parameters
        ----------
        rows
            A slice, one row number, an array of them (negative, unsorted, repeated as in numpy) or a mask.

        Returns
        -------
        (k, bands, ny, nx) float32
            In nMgy per pixel.

        Raises
        ------
        IndexError
            Where a row number is out of range.
        StoreCorruptError
            Where the bytes are not what was committed.
        """
        wanted = self.rows[self._resolve(rows)]
        shards = np.unique(wanted // self.plan.shard_rows)
        self._check_sizes("arcs", shards)
        return self._gather(self._arcs, wanted)

    def noise(self, rows: Rows) -> Pixels:
        """Return the noise of the added light, which is part of :meth:`arcs`: zeros where there is none.

        It is made again from the seed; the light without it is ``arcs(rows) - noise(rows)``. As :meth:`arcs`.
        """
        from arcforge.engine.replay import replay

        positions = self._resolve(rows)
        if "noise" not in self.catalog.column_names:
            return np.zeros((len(positions), *self.plan.row_shape), dtype=np.float32)
        made = replay(self, positions)
        return made.arcs - made.light

    def ctrls(self, rows: Rows) -> Pixels:
        """Return the hosts of those rows as they were before: the paired controls. As :meth:`arcs`."""
        return self.host_pixels(self._host_index[self._resolve(rows)])

    def stamps(self, rows: Rows) -> Pixels:
        """Return the hosts of those rows with the arcs in them. As :meth:`arcs`."""
        stamps = self.ctrls(rows) + self.arcs(rows)
        if self.is_imported:
            self._correct(stamps, self.rows[self._resolve(rows)])
        return stamps

    @property
    def is_imported(self) -> bool:
        """The pixels come from elsewhere: rendering the catalogue again need not give them."""
        return self.plan.is_imported

    def _correct(self, stamps: Pixels, wanted: NDArray[np.int64]) -> None:
        """Set the pixels that control + arc misses by a rounding to what was imported, in place."""
        flat = stamps.reshape(len(stamps), -1)
        for shard in np.unique(wanted // self.plan.shard_rows):
            key = corrections_key(int(shard))
            if key not in self.files:
                continue
            listed = self._read_parquet(key)
            listed_rows = listed.column("row").to_numpy()
            pixels, values = listed.column("pixel").to_numpy(), listed.column("stamp").to_numpy()
            for place in np.flatnonzero(wanted // self.plan.shard_rows == shard):
                some = slice(*np.searchsorted(listed_rows, [wanted[place], wanted[place] + 1]))
                flat[place, pixels[some]] = values[some]

    def invvar(self, rows: Rows) -> Pixels | None:
        """Return the inverse variance of the rows' hosts, (k, bands, ny, nx) float32, 1 / nMgy^2.

        NaN where a host came without; None where all did. With ``update_invvar`` it is the stamps': the added
        light is rendered again, and its photon noise is in it.
        """
        positions = self._resolve(rows)
        layer = self._host_layer("invvar", self._host_index[positions])
        if layer is None or not updates_invvar(self.plan):
            return layer
        from arcforge.engine.replay import with_photon_noise

        return with_photon_noise(self, positions, layer)

    def masks(self, rows: Rows) -> NDArray[np.int32] | None:
        """Return the survey's mask bits of the rows' hosts, (k, ny, nx) int32.

        -1 where a host came without; None where all did.
        """
        values = self._host_layer("mask", self._host_index[self._resolve(rows)])
        return None if values is None else np.nan_to_num(values[:, 0], nan=-1.0).astype(np.int32)

    @cached_property
    def psf_images(self) -> dict[int, Pixels] | None:
        """PSF images (bands, side, side) by ``psf_id``, as the renderer takes them; None without."""
        count = len({key for key in self.files if key.startswith("hosts/psf/c/")})
        if not count:
            return None
        n_psf = 1 + max(self.hosts.column("psf_id").to_pylist())
        images = self._host_layer("psf", np.arange(n_psf, dtype=np.int64))
        assert images is not None
        return dict(enumerate(images))

    @cached_property
    def sources(self) -> SourceBank | None:
        """The source images that rows name by ``source_id``, as the renderer takes them; None without."""
        from arcforge.engine.source_bank import SourceBank, Template

        known = (read_attributes((self.path / "hosts" / METADATA_FILE).read_bytes()) or {}).get("sources")
        if not known:
            return None
        images = self._host_layer("sources", np.arange(len(known["source_id"]), dtype=np.int64))
        assert images is not None
        return SourceBank(
            [
                Template(source_id, image[0, : shape[0], : shape[1]], scale)
                for source_id, image, shape, scale in zip(
                    known["source_id"], images, known["shape"], known["pixscale_arcsec"], strict=True
                )
            ]
        )

    @property
    def hosts_refused(self) -> dict[str, Any]:
        """What could not be a host when the store was made: ``counts`` by reason, the ``first`` by name."""
        attributes = read_attributes((self.path / "hosts" / METADATA_FILE).read_bytes()) or {}
        return dict(attributes.get("refused", {"counts": {}, "first": []}))

    def _host_layer(self, name: str, wanted: NDArray[np.int64]) -> Pixels | None:
        if shard_key(f"hosts/{name}", 0) not in self.files:
            return None
        self._check_sizes(f"hosts/{name}", np.unique(wanted // self.plan.host_shard_rows))
        reader = ImageReader(self.path, f"hosts/{name}")
        return self._gather(reader, wanted)

    def _resolve(self, rows: Rows) -> NDArray[np.int64]:
        """Turn a slice, mask, number or index array into positions 0..len-1."""
        if isinstance(rows, slice):
            return np.arange(len(self), dtype=np.int64)[rows]
        index = np.atleast_1d(np.asarray(rows))
        if index.size == 0:
            index = index.astype(np.int64)
        if index.ndim != 1 or index.dtype.kind not in "iub":
            raise IndexError(f"rows must be a slice or 1-D integers, not {index.ndim}-D {index.dtype}")
        if index.dtype.kind == "b" and len(index) != len(self):
            raise IndexError(f"a mask of {len(index)} entries for {len(self)} rows")
        try:
            positions: NDArray[np.int64] = np.arange(len(self), dtype=np.int64)[index]
            return positions
        except IndexError:
            bad = index[(index < -len(self)) | (index >= len(self))][0]
            raise IndexError(f"row {bad} is out of range: {self.path} holds {len(self)} rows") from None

    @cached_property
    def _host_index(self) -> NDArray[np.int64]:
        index = self._read_catalog(["host_index"]).column("host_index").to_numpy()
        return np.asarray(index, dtype=np.int64)

    def host_pixels(self, hosts: NDArray[np.int64]) -> Pixels:
        """Return the pixels of hosts by number, (k, bands, ny, nx) float32."""
        n_hosts, shard_rows = self.plan.n_hosts, self.plan.host_shard_rows
        if self._kept_hosts is None and n_hosts * math.prod(self.plan.row_shape) * 4 <= _KEPT_HOST_BYTES:
            self._check_sizes("hosts/pixels", range(-(-n_hosts // shard_rows)))
            self._kept_hosts = self._gather(self._pixels, np.arange(n_hosts, dtype=np.int64))
        if self._kept_hosts is not None:
            return self._kept_hosts[hosts]
        self._check_sizes("hosts/pixels", np.unique(hosts // shard_rows))
        return self._gather(self._pixels, hosts)

    def _read_catalog(self, columns: list[str] | None) -> pa.Table:
        import pyarrow as pa

        shards = np.unique(self.rows // self.plan.shard_rows)
        parts = [self._read_parquet(catalog_key(int(shard)), columns) for shard in shards]
        if not parts:
            raise StoreError(f"{self.path}: no shard is committed yet; go on with --resume")
        return pa.concat_tables(parts)

    def _read_parquet(self, key: str, columns: list[str] | None = None) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        data = read_committed(self.path, key, self._record(key))
        return pq.read_table(pa.BufferReader(data), columns=columns)

    def _record(self, key: str) -> Any:
        if key not in self.files:
            fault = f"is in neither {MANIFEST_FILE} nor a commit record"
            raise StoreCorruptError(corrupt_message(self.path, key, fault))
        return self.files[key]

    def _check_sizes(self, array: str, shards: Any) -> None:
        """Refuse to read a shard whose file is not there as a whole, naming it; looked at once each."""
        for key in sorted({shard_key(array, int(shard)) for shard in shards} - self._seen):
            fault = size_fault(self.path, key, self._record(key))
            if fault:
                raise StoreCorruptError(corrupt_message(self.path, key, fault))
            self._seen.add(key)

    def _gather(self, reader: ImageReader, wanted: NDArray[np.int64]) -> Pixels:
        """Read rows in any order: neighbouring chunks together, each once, at most a shard at a time."""
        out = np.empty((len(wanted), *reader.row_shape), dtype=np.float32)
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        chunk, span = ascending // reader.chunk_rows, ascending // self.plan.shard_rows
        cuts = np.flatnonzero((np.diff(chunk) > 1) | (np.diff(span) > 0)) + 1
        for part in np.split(np.arange(len(wanted)), cuts) if len(wanted) else []:
            first = int(ascending[part[0]])
            block = reader.read(first, int(ascending[part[-1]]) + 1)
            out[order[part]] = block[ascending[part] - first]
        return out
