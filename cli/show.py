"""``arcforge show``: pictures of a store's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcforge.cli import terminal
from arcforge.cli.options import StorePath, parse_rows

_SHOWN, _MOST = 12, 240


def show(
    store: StorePath,
    out: Annotated[Path, typer.Option(metavar="PNG", dir_okay=False, help="The picture to write.")],
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
    chosen = lensed_rows(opened, _SHOWN) if rows is None else parse_rows(rows, len(opened), _MOST)
    written = stamp_grid(opened, chosen, out)
    terminal.say(f"{written}: {len(chosen)} of {len(opened)} rows of {store}")
