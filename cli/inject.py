"""``arcforge inject``: make a store of paired stamps."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arcforge.cli import terminal
from arcforge.cli.options import JsonFile, Overwrite, Resume, Seed, Threads
from arcforge.cli.tables import counted, duration_text, size_text, stamps_text

if TYPE_CHECKING:
    from arcforge.engine.estimate import Estimate
    from arcforge.engine.store import Store

EXIT_INTERRUPTED = 130


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
    json_file: JsonFile = None,
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
    from arcforge.engine.errors import ConfigError
    from arcforge.engine.inject import inject as run_injection
    from arcforge.engine.inject import prepare
    from arcforge.engine.plan import parse_partition

    if positions is not None and hosts is None:
        raise typer.BadParameter("give the bricks or the cube to cut from: --hosts", param_hint="--positions")
    for other, given in (("--resume", resume), ("--partition", partition is not None)):
        if overwrite and given:
            raise typer.BadParameter(f"{other} goes on with a run, it starts anew", param_hint="--overwrite")
    if dask is not None and partition is not None:
        raise typer.BadParameter("a cluster divides the run itself, without --partition", param_hint="--dask")
    try:
        part = None if partition is None else parse_partition(partition)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--partition") from None
    inputs: dict[str, Any] = {
        "config": _config(config, skip_bad_hosts),
        "hosts": hosts,
        "positions": positions,
        "catalog": catalog,
        "n": n,
        "seed": seed,
    }
    if dry_run:
        from dataclasses import asdict

        from arcforge.engine.estimate import estimate
        from arcforge.engine.inject import check_rows

        run = prepare(**inputs)
        check_rows(run)
        found = estimate(run, out, threads=threads, partition=part)
        _say_estimate(found, out)
        if json_file is not None:
            terminal.write_json(asdict(found), json_file)
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
    seconds = time.monotonic() - began
    _say_written(store, partition, seconds)
    if json_file is not None:
        written: dict[str, Any] = {
            "store": str(out),
            "n_rows": len(store),
            "n_rows_planned": store.plan.n_rows,
        }
        written |= {"n_hosts": store.plan.n_hosts, "hosts_refused": store.hosts_refused["counts"]}
        terminal.write_json(written | {"seconds": seconds}, json_file)


def _config(path: Path | None, skip_bad_hosts: bool) -> Any:
    """The configuration, with what options change of it."""
    from dataclasses import replace

    from arcforge.engine.config import default_config, load_config

    config = default_config() if path is None else load_config(path)
    return replace(config, bad_hosts="skip") if skip_bad_hosts else config


def _say_estimate(found: Estimate, out: Path) -> None:
    short = "" if found.disk_bytes < found.free_bytes else "; NOT ENOUGH"
    terminal.say(f"rows      {found.n_rows:,} in {found.n_shards} shards, {found.n_hosts:,} hosts")
    terminal.say(f"disk      {size_text(found.disk_bytes)} ({size_text(found.free_bytes)} free{short})")
    terminal.say(f"memory    {size_text(found.memory_bytes)}")
    terminal.say(f"time      {duration_text(found.seconds)} (from {found.sampled_rows} rows rendered here)")
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
        f"{store.path}: {counted(len(store), 'row')} in {counted(plan.n_hosts, 'host')}, "
        f"{stamps_text(plan)}, {size_text(size)}, {duration_text(seconds)}"
    )


def _note_refused(store: Store) -> None:
    """Say how many cutouts could not be hosts, why, and which was the first."""
    refused = store.hosts_refused
    if refused["counts"]:
        counts = ", ".join(f"{count} {reason}" for reason, count in refused["counts"].items())
        name, _, message = refused["first"][0]
        total = sum(refused["counts"].values())
        terminal.note(f"{counted(total, 'host')} refused: {counts}; the first is {name}: {message}")


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
