"""``arcforge import`` and ``export``: pairs made elsewhere into a store, and the way back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from arcforge.cli import terminal
from arcforge.cli.options import JsonFile, Overwrite, Resume, StorePath
from arcforge.cli.tables import counted

_LISTED = 20


class Format(StrEnum):
    """What ``export`` writes."""

    parquet = "parquet"
    npz = "npz"
    fits = "fits"
    npy = "npy"


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Parquet (file or folder), or a folder of npz, FITS or npy.")
    ],
    out: Annotated[Path, typer.Option(metavar="STORE", help="The store to write, NAME.zarr.")],
    mapping: Annotated[
        Path | None, typer.Option("--map", metavar="TOML", help="Names of columns, bands, pixel scale.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json_file: JsonFile = None,
) -> None:
    """Take paired cutouts that were made elsewhere into a store, bit for bit.

    Parquet holds one row a pair: columns stamp_npz and ctrl_stamp_npz with npz archives of image_<band>, and
    the parameters. Folders hold a file a row: npz with cutout and ctrl_cutout (y, x, band) and meta_*, FITS
    with extensions STAMP and CTRL, or a single cutout, which becomes a row without an arc; or stamps.npy,
    ctrls.npy and catalog.parquet. Pixels are nanomaggies.

    A row whose pixels cannot be read is refused and listed with its number and the reason, also in
    refused.json of the store; the others are imported. Equal controls are stored once. The source is read
    twice, and never held in memory.

    The file of --map holds any of: pixscale_arcsec = 0.262, bands = "grz", stamp_column and control_column, a
    table [columns] with new_name = "name in the source", a table [values] with columns that are constant.

    Examples
    --------
    arcforge import pairs.parquet --out pairs.zarr
    arcforge import s3_copy/region_split_pairs/ --out pairs.zarr --map names.toml
    arcforge import cutouts/ --out cutouts.zarr
    """
    from arcforge.engine.imports import import_pairs, read_mapping

    with terminal.progress("importing") as report:
        store, refused = import_pairs(
            source,
            out,
            mapping=read_mapping(mapping),
            overwrite=overwrite,
            resume=resume,
            progress=report,
        )
    for entry in refused[:_LISTED]:
        terminal.complain(f"row {entry.row} refused: {entry.reason}")
    if len(refused) > _LISTED:
        terminal.complain(f"{len(refused) - _LISTED} more rows refused; all are in {out / 'refused.json'}")
    terminal.say(
        f"{out}: {counted(len(store), 'row')} with {counted(store.plan.n_hosts, 'host')} of "
        f"{store.stamp_size} pix, bands {store.bands}; {counted(len(refused), 'row')} refused"
    )
    if json_file is not None:
        result = {"store": str(out), "n_rows": len(store), "n_hosts": store.plan.n_hosts}
        listed = [{"row": entry.row, "reason": entry.reason} for entry in refused]
        terminal.write_json({**result, "refused": listed}, json_file)


# The command's name is Python's own, so that it cannot be defined by it.
globals()["import"] = import_


def export(
    store: StorePath,
    out: Annotated[Path, typer.Option(metavar="PATH", help="A parquet file, or a folder.")],
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.parquet,
    partition_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Parquet sub-folders named COLUMN=value.")
    ] = None,
    remedy: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON", help="An audit's report: write pairs as its recommended remedy leaves them."
        ),
    ] = None,
    remedy_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another mask of that report than the recommended one.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a store's pairs and catalogue in another form; 'arcforge import' reads each back bit for bit.

    parquet: a row a pair, npz archives in columns stamp_npz and ctrl_stamp_npz. npz: a file a row with
    cutout and ctrl_cutout (y, x, band) and meta_*. fits: a file a row, extensions STAMP and CTRL. npy:
    stamps.npy and ctrls.npy (row, band, y, x), for numpy.load(..., mmap_mode="r"). All but parquet with
    catalog.parquet.

    With --remedy, the core of stamp and control is hidden by the same noise, and pairs that the remedy drops
    are left out: a set to train on.

    Examples
    --------
    arcforge export lenses.zarr --out lenses.parquet
    arcforge export lenses.zarr --out by_split/ --partition-by split
    arcforge export lenses.zarr --format npy --out lenses_npy
    arcforge export lenses.zarr --remedy audit.json --format npy --out train_npy
    """
    from arcforge.engine.exports import export_store
    from arcforge.engine.remedies import RemediedStore, read_remedy
    from arcforge.engine.store import open_store

    if remedy_name is not None and remedy is None:
        raise typer.BadParameter(
            "give the audit's report that measured it: --remedy", param_hint="--remedy-name"
        )
    opened: Any = open_store(store)
    applied = ""
    if remedy is not None:
        chosen = read_remedy(remedy, remedy_name)
        n_rows = len(opened)
        opened = RemediedStore(opened, chosen)
        applied = f", {chosen.name} (r < {chosen.radius_pix:g} pix) of {n_rows:,}"
    with terminal.progress("exporting") as report:
        export_store(
            opened,
            out,
            format=format.value,
            partition_by=partition_by,
            overwrite=overwrite,
            progress=report,
        )
    terminal.say(f"{out}: {len(opened):,} rows as {format.value}{applied}")
