"""``arcforge show``: pictures of a store's rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from arcforge.cli import terminal
from arcforge.cli.options import StorePath

_SHOWN, _MOST = 12, 240


def show(
    store: StorePath,
    out: Annotated[Path, typer.Option(metavar="PNG", help="The picture to write.")],
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Row numbers and ranges, e.g. 0,7,20:26 (26 excluded). "
            f"Default: {_SHOWN} lensed rows at even distances through the store, not picked by their looks.",
        ),
    ] = None,
) -> None:
    """Draw rows of a store: control, stamp and arc side by side.

    Control and stamp are colour composites with one fixed stretch, so that they differ by the arc only; the
    arc is a map of the middle band with its scale in nanomaggies per pixel. The label gives the row's id, the
    Einstein radius and the magnitude of the arc on the stamp.

    Examples
    --------
    arcforge show lenses.zarr --out grid.png
    arcforge show lenses.zarr --rows 3,10:14 --out rows.png
    """
    from arcforge.engine import open_store
    from arcforge.engine.pictures import lensed_rows, stamp_grid

    opened = open_store(store)
    chosen = lensed_rows(opened, _SHOWN) if rows is None else _parse_rows(rows, len(opened))
    written = stamp_grid(opened, chosen, out)
    terminal.say(f"{written}: {len(chosen)} of {len(opened)} rows of {store}")


def _parse_rows(text: str, n_rows: int) -> list[int]:
    """Turn "0,7,20:26" into row numbers; refuse what the store does not have and what no picture can hold."""
    rows: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?::(\d+))?\s*", part)
        if match is None:
            raise _bad_rows(f"{part!r} is no row number and no range such as 20:26")
        first = int(match[1])
        end = int(match[2]) if match[2] else first + 1
        if first >= end:
            raise _bad_rows(f"{part!r} names no row")
        if end > n_rows:
            raise _bad_rows(
                f"row {max(first, n_rows)} is not in a store of {n_rows} rows (0 to {n_rows - 1})"
            )
        if len(rows) + end - first > _MOST:
            raise _bad_rows(f"{text!r} names more than the {_MOST} rows that a picture holds")
        rows.extend(range(first, end))
    return rows


def _bad_rows(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="--rows")
