"""``arcforge inject``, ``finalise``, ``verify``, ``info``: make a store, complete it, check it, sum it up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arcforge.cli import terminal
from arcforge.cli.options import Overwrite, Resume, Seed, StorePath, Threads

if TYPE_CHECKING:
    from arcforge.engine.estimate import Estimate
    from arcforge.engine.plan import Plan
    from arcforge.engine.store import Store

EXIT_INCOMPLETE = 1
EXIT_CORRUPT = 20
EXIT_INTERRUPTED = 130


_ORIGINS = {"drawn": "drawn from priors", "sha256": "given", "imported": "imported, pixels and all"}


class Level(StrEnum):
    """How closely ``verify`` looks."""

    quick = "quick"
    full = "full"
    deep = "deep"


def inject(
    out: Annotated[Path, typer.Option(metavar="STORE", help="The store to write, NAME.zarr.")],
    config: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Priors and settings; built-in ones if not given.")
    ] = None,
    hosts: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Folder of cutouts (FITS, npz) or bricks, or a file; else synthetic LRGs."
        ),
    ] = None,
    positions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to cut hosts out of coadd bricks or a large cube (ra, dec)."
        ),
    ] = None,
    skip_bad_hosts: Annotated[
        bool,
        typer.Option(
            "--skip-bad-hosts", help="Leave hosts with NaN, no coverage, masks.. out, and count them."
        ),
    ] = False,
    catalog: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="One row an injection (parquet, CSV, ECSV, FITS); else drawn."),
    ] = None,
    n: Annotated[
        int | None, typer.Option(min=1, help="Rows: 1000, or all of the catalogue, if not given.")
    ] = None,
    seed: Seed = 0,
    threads: Threads = None,
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Write every N-th shard from the I-th on (0/N to N-1/N, or 1/N to N/N)."
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="SCHEDULER", help="Render on a Dask cluster: its address or file, or 'local'."),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the run will take; write nothing.")
    ] = False,
) -> None:
    """Inject lensed arcs into galaxy cutouts and write paired stamps to a store.

    Every input is checked before anything is written. The run can be stopped at any moment (Ctrl-C, a kill, a
    power cut): what is committed stays, and the same command with --resume does the rest, to the same bytes.
    Jobs with --partition write one store together; 'arcforge finalise' completes it. With --dask the workers
    of a cluster write it, one shard a task; a worker that dies costs its shard in hand.

    Examples
    --------
    arcforge inject --hosts cutouts/ --n 2000 --seed 7 --out lenses.zarr
    arcforge inject --config priors.toml --n 1000000 --out lenses.zarr --dry-run
    arcforge inject --hosts cutouts/ --catalog injections.parquet --out lenses.zarr --resume
    arcforge inject --hosts cutouts/ --n 1000000 --partition 3/8 --out lenses.zarr
    arcforge inject --hosts cutouts/ --n 1000000 --dask tcp://node7:8786 --out lenses.zarr
    arcforge inject --hosts coadd/ --positions lrgs.parquet --n 5000 --out lenses.zarr
    """
    from arcforge.engine.inject import inject as run_injection
    from arcforge.engine.inject import prepare
    from arcforge.engine.plan import parse_partition

    part = None if partition is None else parse_partition(partition)
    inputs: dict[str, Any] = {
        "config": _config(config, skip_bad_hosts),
        "hosts": hosts,
        "positions": positions,
        "catalog": catalog,
        "n": n,
        "seed": seed,
    }
    if dry_run:
        from arcforge.engine.estimate import estimate
        from arcforge.engine.inject import check_rows

        run = prepare(**inputs)
        check_rows(run)
        _say_estimate(estimate(run, out, threads=threads, partition=part), out)
        return
    began = time.monotonic()
    with (
        _stopping_cleanly(out, again="" if part else " and --resume"),
        terminal.progress("injecting") as report,
    ):
        store = run_injection(
            out,
            **inputs,
            threads=threads,
            overwrite=overwrite,
            resume=resume,
            partition=part,
            dask=dask,
            progress=report,
        )
    _say_written(store, partition, time.monotonic() - began)


def _config(path: Path | None, skip_bad_hosts: bool) -> Any:
    """The configuration, with what options change of it."""
    from dataclasses import replace

    from arcforge.engine.config import default_config, load_config

    config = default_config() if path is None else load_config(path)
    return replace(config, bad_hosts="skip") if skip_bad_hosts else config


def finalise(store: StorePath) -> None:
    """Complete a store whose partitions have all been written.

    It can be repeated, also after it was killed. A store is read only when it is complete.

    Examples
    --------
    arcforge finalise lenses.zarr
    """
    from arcforge.engine.store import open_store
    from arcforge.engine.writer import finalise as complete_store

    complete_store(store)
    terminal.say(f"{store}: complete, {len(open_store(store)):,} rows")


def verify(
    store: StorePath,
    level: Annotated[
        Level, typer.Option(help="quick: sizes; full: SHA-256 too; deep: decode and render rows again too.")
    ] = Level.quick,
    threads: Threads = None,
) -> None:
    """Check a store against what was committed: exit code 0 if sound, 20 if corrupt, 1 if incomplete.

    Examples
    --------
    arcforge verify lenses.zarr
    arcforge verify lenses.zarr --level deep
    """
    from arcforge.engine.verify import verify as compare

    with terminal.progress("verifying", "bytes") as report:
        found = compare(store, level=level.value, threads=threads, progress=report)
    for remark in found.notes:
        terminal.note(remark)
    for fault in found.faults:
        terminal.complain(fault)
    looked = f"{found.n_rows:,} rows, {found.n_files:,} files, {_size(found.n_bytes)}"
    if found.n_rendered:
        looked += f", {found.n_rendered} rows rendered again"
    state = "corrupt" if found.faults else "sound" if found.complete else "sound so far, but incomplete"
    terminal.say(f"{store}: {state} ({level.value}: {looked})")
    if found.faults:
        raise typer.Exit(EXIT_CORRUPT)
    if not found.complete:
        raise typer.Exit(EXIT_INCOMPLETE)


def info(store: StorePath) -> None:
    """Sum up a store: rows, hosts, conventions, origin, and the range of its parameters.

    Examples
    --------
    arcforge info lenses.zarr
    """
    from arcforge.engine.store import open_store

    opened = open_store(store, allow_partial=True)
    plan, attrs = opened.plan, opened.attrs
    lines = {
        "rows": f"{len(opened):,} of {plan.n_rows:,} ({attrs['status']})",
        "stamps": f"{_stamps(plan)}, {plan.pixscale_arcsec:g} arcsec/pix",
        "hosts": f"{plan.n_hosts:,}" + _refused_text(opened),
        "shards": f"{plan.n_shards} of {plan.shard_rows} rows",
        "disk": _size(sum(record.size for record in opened.files.values())),
        "catalogue": _ORIGINS.get(plan.catalog.split()[0].split(":")[0], plan.catalog),
        "seed": str(plan.seed),
        "render": "elsewhere" if plan.is_imported else ", ".join(f"{k} {v}" for k, v in plan.render.items()),
        "config": f"sha256:{plan.config_sha256[:12]}",
        "code": f"arcforge {plan.software['arcforge']}, sources sha256:{plan.code_sha256[:12]}",
        "processor": ", ".join(attrs.get("processors", [])) or "not recorded yet",
    }
    for name, value in lines.items():
        terminal.say(f"{name:<11}{value}")
    if len(opened):
        _say_ranges(opened)


def _say_ranges(store: Store) -> None:
    """Print lowest, median and highest value of every numeric column."""
    import numpy as np
    import pyarrow.types as is_a
    from rich.table import Table

    table = Table("column", "lowest", "median", "highest", "not a number", box=None, pad_edge=False)
    for field in store.catalog.schema:
        if not (is_a.is_floating(field.type) or is_a.is_integer(field.type)):
            continue
        values = store.catalog.column(field.name).to_numpy().astype(np.float64)
        finite = values[np.isfinite(values)]
        marks = (
            [f"{value:.6g}" for value in np.percentile(finite, [0, 50, 100])] if finite.size else ["-"] * 3
        )
        table.add_row(field.name, *marks, str(len(values) - finite.size))
    terminal.console().print(table)


def _say_estimate(found: Estimate, out: Path) -> None:
    short = "" if found.disk_bytes < found.free_bytes else "; NOT ENOUGH"
    terminal.say(f"rows      {found.n_rows:,} in {found.n_shards} shards, {found.n_hosts:,} hosts")
    terminal.say(f"disk      {_size(found.disk_bytes)} ({_size(found.free_bytes)} free{short})")
    terminal.say(f"memory    {_size(found.memory_bytes)}")
    terminal.say(f"time      {_duration(found.seconds)} (from {found.sampled_rows} rows rendered here)")
    terminal.say(f"nothing was written to {out}")


def _say_written(store: Store, partition: str | None, seconds: float) -> None:
    plan = store.plan
    if partition is not None:
        terminal.say(
            f"{store.path}: partition {partition} is written, {len(store):,} of {plan.n_rows:,} rows are "
            f"committed; when all partitions are: arcforge finalise {store.path}"
        )
        return
    size = sum(record.size for record in store.files.values())
    _note_refused(store)
    terminal.say(
        f"{store.path}: {len(store):,} rows in {plan.n_hosts:,} hosts, {_stamps(plan)}, {_size(size)}, "
        f"{_duration(seconds)}"
    )


def _refused_text(store: Store) -> str:
    counts = store.hosts_refused["counts"]
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f" ({sum(counts.values())} refused: {listed})" if counts else ""


def _note_refused(store: Store) -> None:
    """Say how many cutouts could not be hosts, why, and which was the first."""
    refused = store.hosts_refused
    if refused["counts"]:
        counts = ", ".join(f"{count} {reason}" for reason, count in refused["counts"].items())
        name, _, message = refused["first"][0]
        total = sum(refused["counts"].values())
        terminal.note(f"{total} hosts refused: {counts}; the first is {name}: {message}")


def _stamps(plan: Plan) -> str:
    return f"{plan.stamp_size} x {plan.stamp_size} pix, bands {plan.bands}"


@contextmanager
def _stopping_cleanly(out: Path, again: str) -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, and say how to go on after either."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        from arcforge.engine.errors import StoreError
        from arcforge.engine.store import open_store

        try:
            rows = f"{len(open_store(out, allow_partial=True)):,} rows are committed and stay"
        except StoreError:
            rows = "nothing is written"
        terminal.note(f"{out}: stopped, {rows}; go on with the same command{again}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _size(n_bytes: int) -> str:
    value, unit = float(n_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
