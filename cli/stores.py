"""``arcforge finalise``, ``verify``, ``info``: complete a store, check it, sum it up."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arcforge.cli import terminal
from arcforge.cli.options import JsonFile, StorePath, Threads
from arcforge.cli.tables import plain_table, size_text, stamps_text

if TYPE_CHECKING:
    from arcforge.engine.store import Store

EXIT_INCOMPLETE = 1
EXIT_CORRUPT = 20

_ORIGINS = {"drawn": "drawn from priors", "sha256": "given", "imported": "imported, pixels and all"}


class Level(StrEnum):
    """How closely ``verify`` looks."""

    quick = "quick"
    full = "full"
    deep = "deep"


def finalise(store: StorePath) -> None:
    """Complete a store whose partitions have all been written.

    It can be repeated, also after it was killed. A store is read only when it is complete.

    Examples
    --------
    arcforge finalise lenses.zarr
    """
    from arcforge.engine.store import open_store
    from arcforge.engine.writer import finalise as complete_store

    with terminal.waiting("completing"):
        complete_store(store)
    terminal.say(f"{store}: complete, {len(open_store(store)):,} rows")


def verify(
    store: StorePath,
    level: Annotated[
        Level, typer.Option(help="quick: sizes; full: SHA-256 too; deep: decode and render rows again too.")
    ] = Level.quick,
    threads: Threads = None,
    json_file: JsonFile = None,
) -> None:
    """Check a store against what was committed: exit code 0 if sound, 20 if corrupt, 1 if incomplete.

    Examples
    --------
    arcforge verify lenses.zarr
    arcforge verify lenses.zarr --level deep
    arcforge verify lenses.zarr --level full --json -
    """
    from dataclasses import asdict

    from arcforge.engine.verify import verify as compare

    with terminal.progress("verifying", "bytes") as report:
        found = compare(store, level=level.value, threads=threads, progress=report)
    for remark in found.notes:
        terminal.note(remark)
    for fault in found.faults:
        terminal.complain(fault)
    looked = f"{found.n_rows:,} rows, {found.n_files:,} files, {size_text(found.n_bytes)}"
    if found.n_rendered:
        looked += f", {found.n_rendered} rows rendered again"
    state = "corrupt" if found.faults else "sound" if found.complete else "sound so far, but incomplete"
    terminal.say(f"{store}: {state} ({level.value}: {looked})")
    if json_file is not None:
        terminal.write_json({"store": str(store), "sound": found.sound, **asdict(found)}, json_file)
    if found.faults:
        raise typer.Exit(EXIT_CORRUPT)
    if not found.complete:
        raise typer.Exit(EXIT_INCOMPLETE)


def info(store: StorePath, json_file: JsonFile = None) -> None:
    """Sum up a store: rows, hosts, conventions, origin, and the range of its parameters.

    Examples
    --------
    arcforge info lenses.zarr
    arcforge info lenses.zarr --json -
    """
    from arcforge.engine.store import open_store

    opened = open_store(store, allow_partial=True)
    plan, attrs = opened.plan, opened.attrs
    size = sum(record.size for record in opened.files.values())
    version = plan.software.get("arcforge", "(version not recorded)")
    lines = {
        "rows": f"{len(opened):,} of {plan.n_rows:,} ({attrs['status']})",
        "stamps": f"{stamps_text(plan)}, {plan.pixscale_arcsec:g} arcsec/pix",
        "hosts": f"{plan.n_hosts:,}" + _refused_text(opened),
        "shards": f"{plan.n_shards} of {plan.shard_rows} rows",
        "disk": size_text(size),
        "catalogue": _ORIGINS.get(plan.catalog.split()[0].split(":")[0], plan.catalog),
        "seed": str(plan.seed),
        "render": "elsewhere" if plan.is_imported else ", ".join(f"{k} {v}" for k, v in plan.render.items()),
        "config": f"sha256:{plan.config_sha256[:12]}",
        "code": f"arcforge {version}, sources sha256:{plan.code_sha256[:12]}",
        "processor": ", ".join(attrs.get("processors", [])) or "not recorded yet",
    }
    for name, value in lines.items():
        terminal.say(f"{name:<11}{value}")
    with terminal.waiting("reading the catalogue"):
        ranges = _ranges(opened) if len(opened) else {}
    if ranges:
        table = plain_table("", "column", "lowest", "median", "highest", "not a number")
        for name, entry in ranges.items():
            marks = ["-" if value is None else f"{value:.6g}" for value in list(entry.values())[:3]]
            table.add_row(name, *marks, str(entry["not_a_number"]))
        terminal.show_table(table)
    if json_file is not None:
        numbers = {"n_rows": len(opened), "n_rows_planned": plan.n_rows, "status": attrs["status"]}
        numbers |= {"n_hosts": plan.n_hosts, "hosts_refused": opened.hosts_refused["counts"]}
        numbers |= {"stamp_size": plan.stamp_size, "bands": plan.bands, "disk_bytes": size}
        numbers |= {"pixscale_arcsec": plan.pixscale_arcsec, "seed": plan.seed, "render": plan.render}
        texts = {name: lines[name] for name in ("catalogue", "config", "code", "processor")}
        terminal.write_json({"store": str(store), **numbers, **texts, "columns": ranges}, json_file)


def _ranges(store: Store) -> dict[str, dict[str, Any]]:
    """Lowest, median and highest value of every numeric column."""
    import numpy as np
    import pyarrow.types as is_a

    ranges = {}
    for field in store.catalog.schema:
        if not (is_a.is_floating(field.type) or is_a.is_integer(field.type)):
            continue
        values = store.catalog.column(field.name).to_numpy().astype(np.float64)
        finite = values[np.isfinite(values)]
        marks = np.percentile(finite, [0, 50, 100]).tolist() if finite.size else [None] * 3
        entry = dict(zip(("lowest", "median", "highest"), marks, strict=True))
        ranges[field.name] = entry | {"not_a_number": len(values) - finite.size}
    return ranges


def _refused_text(store: Store) -> str:
    counts = store.hosts_refused["counts"]
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f" ({sum(counts.values())} refused: {listed})" if counts else ""
