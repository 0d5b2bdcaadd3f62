"""Injection: arcs into hosts, from a configuration or a catalogue to a complete store.

Everything is checked before the output exists. Then :mod:`arcforge.engine.pipeline` draws, renders and writes
the shards that are not committed yet, and the store is completed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine import provenance
from arcforge.engine.catalog import RenderColumns, misspelt_columns, read_catalog
from arcforge.engine.commits import is_done, shard_name
from arcforge.engine.components import components
from arcforge.engine.config import Config, default_config, load_config
from arcforge.engine.draws import assign_splits
from arcforge.engine.durable import write_lock
from arcforge.engine.errors import CatalogError, ConfigError, RenderError
from arcforge.engine.host_choice import choose_hosts
from arcforge.engine.host_source import StoredHosts
from arcforge.engine.hosts import SURVEY_FAULTS, HostRules, HostSet, open_hosts
from arcforge.engine.layout import layout
from arcforge.engine.lookalikes import as_profiles
from arcforge.engine.pipeline import write_shards
from arcforge.engine.places import as_place
from arcforge.engine.plan import Partition, Plan, read_plan, shard_shape
from arcforge.engine.psf_images import PsfImages
from arcforge.engine.psf_tables import PsfTable
from arcforge.engine.render import render_rows
from arcforge.engine.run_output import begin_store, check_output, is_whole, make_ready
from arcforge.engine.run_rows import (
    BLOCK_ROWS,
    DrawnRows,
    GivenRows,
    RunRows,
    used_rows,
    with_gain,
)
from arcforge.engine.sky_cells import select_hosts
from arcforge.engine.source_bank import SourceBank
from arcforge.engine.source_files import open_bank
from arcforge.engine.source_rows import source_rows
from arcforge.engine.store import Store, open_store
from arcforge.engine.synthetic import synthetic_hosts
from arcforge.engine.variants import variant_named
from arcforge.engine.writer import complete
from arcforge.kernels.codes import PSF_IMAGE

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.arrays import Pixels

DEFAULT_ROWS = 1000
MAX_ROWS = 10**9  # some 40 TB of stamps: more is a slip of the finger

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Run:
    """A checked run: what to write, and where its rows and hosts come from."""

    plan: Plan
    rows: RunRows
    hosts: HostSet
    config: Config
    bank: SourceBank | None = None  #: source images that rows may name

    @cached_property
    def psf_images(self) -> PsfImages | None:
        """The hosts' PSFs that are images."""
        images = self.hosts.psf_images
        return PsfImages(images, len(self.plan.bands)) if images else None

    def used(self, first: int, stop: int) -> tuple[pa.Table, RenderColumns]:
        """Return rows as the store records them, with the renderer's columns."""
        table, columns = used_rows(self.rows, first, stop, self.plan.bands, self.config.theta_e_convention)
        return with_gain(table, self.config, self.hosts), columns

    def render(
        self,
        columns: RenderColumns,
        threads: int | None,
        out: Pixels | None = None,
        magnification: NDArray[np.float64] | None = None,
        sources: SourceBank | None = None,
    ) -> Pixels:
        """Render rows by the plan's options, into ``out`` if given; ``sources`` in place of its bank."""
        plan = self.plan
        return render_rows(
            columns,
            stamp_size=plan.stamp_size,
            pixscale_arcsec=plan.pixscale_arcsec,
            threads=threads,
            out=out,
            psf_images=self.psf_images,
            sources=self.bank if sources is None else sources,
            magnification=magnification,
            **plan.render,
        )


def inject(
    out: str | os.PathLike[str],
    *,
    config: Config | str | os.PathLike[str] | None = None,
    hosts: HostSet | str | os.PathLike[str] | None = None,
    positions: Any = None,
    catalog: Any = None,
    n: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    partition: Partition | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Store:
    """Inject arcs into hosts and write the paired stamps to a store.

    Parameters
    ----------
    out
        The store's folder, ``NAME.zarr``; it must not exist unless ``overwrite`` or ``resume`` is set.
    config
        A configuration or its TOML file; the default one where None.
    hosts
        A host set, or the folder or file that holds it; synthetic galaxies where None. Survey data
        that cannot serve (NaN, no coverage, masked, no galaxy) are an error or, with ``bad_hosts = "skip"``
        and for positions, left out, counted by reason and listed in :attr:`Store.hosts_refused`.
    positions
        A table or catalogue file of places to cut hosts out of ``hosts`` (coadd bricks or one large cube).
    catalog
        A table, a mapping of columns or a catalogue file, one row an injection; rows are drawn from the
        configuration's priors where None. Its columns are carried into the store; ``host_id`` names the host.
    n
        Rows to draw (1000 where None); with a catalogue, its first ``n`` (all where None).
    seed
        Root of all draws, 0 to 2**64 - 1.
    threads
        Threads that render; every core where None. The bytes do not depend on it.
    overwrite
        Replace an existing store, after everything has been checked.
    resume
        Go on with a store that an equal run began (or begin it): what is committed stays.
    partition
        ``(i, n)``: write only every n-th shard, beginning with the i-th. Several processes may do so at once,
        on one machine or many; the first one creates the store, :func:`arcforge.engine.writer.finalise`
        completes it.
    dask
        Write the shards by the workers of a Dask cluster: a scheduler's address or file, or ``"local"``. Each
        worker renders with one thread; paths must mean the same to all.
    progress
        Called with (rows done, rows in all) of this call's part.

    Returns
    -------
    Store
        The complete store; for a partition, what is committed so far.

    Raises
    ------
    ConfigError, CatalogError, HostError, RenderError
        For a bad input; nothing is written then.
    StoreError
        Where the output is in the way, was begun by another run, is being written, or cannot be written.
    """
    root = as_place(out)
    check_output(root, overwrite=overwrite, resume=resume, partition=partition)
    if dask is not None and partition is not None:
        raise ConfigError("--dask and --partition exclude each other: give one of them")
    inputs = {
        "config": config,
        "hosts": hosts,
        "positions": positions,
        "catalog": catalog,
        "n": n,
        "seed": seed,
    }
    run = prepare(**inputs)
    if overwrite or not root.exists():
        check_rows(run)
        begin_store(
            root, run.plan, StoredHosts(run.hosts, run.bank), may_exist=resume or partition is not None
        )
    run.plan.refuse_other(read_plan(root), root)
    with write_lock(root, partition):
        if not is_whole(root, run.plan):
            make_ready(root, run.plan, StoredHosts(run.hosts, run.bank), alone=partition is None)
            _write(root, run, inputs, run.plan.shards_of(partition), threads, dask, progress)
            if partition is None:
                complete(root, run.plan)
    return open_store(root, allow_partial=partition is not None)


def prepare(*, config: Any, hosts: Any, catalog: Any, n: int | None, seed: int, positions: Any = None) -> Run:
    """Open and check the inputs of a run and make its plan; arguments as those of :func:`inject`."""
    if not isinstance(config, Config):
        config = default_config() if config is None else load_config(config)
    if n is not None and n < 1:
        raise ConfigError(f"n = {n}: give at least one row")
    if n is not None and n > MAX_ROWS:
        raise ConfigError(f"n = {n}: a store holds up to {MAX_ROWS} rows; write several, of different seeds")
    variant_named(config.variant)
    if not isinstance(hosts, HostSet):
        hosts = _hosts(config, hosts, positions, seed)
    hosts = choose_hosts(hosts, config)
    if config.exclude_catalogs or config.split_guard_arcmin > 0.0:
        hosts = select_hosts(hosts, config, assign_splits(config, seed, hosts.table))
    if config.update_invvar and "invvar" not in hosts.layers:
        raise ConfigError("update_invvar = true, and no host came with an inverse variance: leave it out")
    if catalog is None and config.psf_jitter > 0.0 and (hosts.table.psf_model == "image").all():
        raise ConfigError(
            f"psf_jitter = {config.psf_jitter:g}, and the PSF of every host is an image, of fixed width: "
            "set it to 0"
        )
    bank = open_bank(config.source_bank, clean=config.source_clean) if config.source_bank else None
    rows: RunRows
    if catalog is None:
        rows = DrawnRows(config, hosts, seed, DEFAULT_ROWS if n is None else n, bank)
    else:
        table = _table(catalog)
        for name, meant in misspelt_columns(table.column_names).items():
            warnings.warn(
                f'catalogue column "{name}" is carried along, not used: rename it if it means "{meant}"',
                stacklevel=2,
            )
        rows = GivenRows(table, hosts, seed, n, config.theta_e_convention)
    row_bytes = 4 * len(hosts.bands) * hosts.stamp_size**2
    chunk_rows, shard_rows = shard_shape(rows.n_rows, row_bytes)
    plan = Plan(
        n_rows=rows.n_rows,
        bands=hosts.bands,
        stamp_size=hosts.stamp_size,
        pixscale_arcsec=float(hosts.pixscale_arcsec),
        chunk_rows=chunk_rows,
        shard_rows=shard_rows,
        seed=int(seed),
        config=config.to_toml(),
        config_sha256=config.digest(),
        catalog=rows.source,
        hosts=f"sha256:{StoredHosts(hosts, bank).sha256}",
        n_hosts=len(hosts),
        render={"rtol": config.rtol, "variant": config.variant, "pixel_response": config.pixel_response},
        code_sha256=provenance.code_sha256(),
        software=provenance.software(),
    )
    return Run(plan, rows, hosts, config, bank)


def _hosts(config: Config, path: Any, positions: Any, seed: int) -> HostSet:
    if path is None:
        return synthetic_hosts(
            config.synthetic_host_count,
            seed,
            bands=config.bands,
            stamp_size=config.stamp_size,
            pixscale_arcsec=config.synthetic_pixscale_arcsec,
        )
    skip = config.bad_hosts == "skip" or (config.bad_hosts == "auto" and positions is not None)
    return open_hosts(
        path,
        bands=config.bands,
        stamp_size=config.stamp_size,
        pixscale_arcsec=config.host_pixscale_arcsec or None,
        skip_bad=SURVEY_FAULTS if skip else False,
        positions=positions,
        psf_table=_psf_table(config),
        psfex=config.psfex,
        rules=HostRules(
            min_coverage=config.host_min_coverage,
            bad_maskbits=config.host_bad_maskbits,
            saturated_radius_arcsec=config.host_saturated_radius_arcsec,
        ),
    )


def _psf_table(config: Config) -> PsfTable | None:
    if not config.psf_table:
        return None
    return PsfTable.read(config.psf_table, config.bands, between=config.psf_table_lookup == "bilinear")


def _table(catalog: Any) -> pa.Table:
    import pyarrow as pa

    if isinstance(catalog, (str, os.PathLike)):
        return read_catalog(catalog)
    if isinstance(catalog, pa.Table):
        return catalog
    try:
        return pa.table({str(name): np.asarray(values) for name, values in dict(catalog).items()})
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CatalogError(f"the catalogue is no table ({reason}): give 1-D columns of one length") from error


def check_rows(run: Run) -> None:
    """Look at every row of a run as the renderer would, without rendering.

    Raises
    ------
    CatalogError, RenderError
        Naming the first row that cannot be rendered.
    """
    # A given catalogue is looked at as a whole, so that the row named is the catalogue's.
    block = BLOCK_ROWS if isinstance(run.rows, DrawnRows) else run.plan.n_rows
    for first in range(0, run.plan.n_rows, block):
        table, columns = run.used(first, min(first + block, run.plan.n_rows))
        try:
            _check_renderable(as_profiles(table, columns), run)
        except RenderError as error:
            raise RenderError(f"rows from {first} on: {error}" if first else str(error)) from error


def _check_renderable(columns: RenderColumns, run: Run) -> None:
    plan, images = run.plan, run.psf_images
    lost = columns.psf_model == PSF_IMAGE
    if images is not None:
        lost &= images.missing(columns.psf_id)
    if lost.any():
        row = int(np.argmax(lost))
        raise CatalogError(
            f"catalogue row {row}: psf_model is 'image', and its host came without PSF image "
            f"{columns.psf_id[row]}; give hosts with PSFs, or gaussian, moffat or none"
        )
    variant = variant_named(plan.render["variant"])
    for part in components(columns):
        sources = source_rows(part, run.bank, plan.pixscale_arcsec)
        if variant.name == "reference":  # which needs no grid
            continue
        layout(
            part if sources is None else sources.bounded,
            stamp_size=plan.stamp_size,
            pixscale_arcsec=plan.pixscale_arcsec,
            rtol=plan.render["rtol"],
            uniform=variant.samples > 0,
            images=images,
        )


def _write(
    root: Path,
    run: Run,
    inputs: dict[str, Any],
    shards: list[int],
    threads: int | None,
    dask: str | None,
    progress: Progress | None,
) -> None:
    """Render and write those of the shards that are not committed."""
    plan = run.plan
    todo = [shard for shard in shards if not is_done(root, plan, shard_name(shard))]
    if not todo:
        return
    total = sum(_size(plan, shard) for shard in shards)
    done = total - sum(_size(plan, shard) for shard in todo)

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    if dask is None:
        write_shards(root, run, todo, threads, count)
        return
    from arcforge.engine.cluster import write_shards_on_cluster

    write_shards_on_cluster(root, run, inputs, todo, dask, count)


def _size(plan: Plan, shard: int) -> int:
    first, stop = plan.rows_of(shard)
    return stop - first
