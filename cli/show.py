"""``arcforge show``: pictures of a store's rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arcforge.cli import terminal
from arcforge.cli.options import StorePath, parse_rows

if TYPE_CHECKING:
    from arcforge.engine.store import Store

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
    distributions: Annotated[
        bool,
        typer.Option("--distributions", help="Draw what the arcs are like, beside what was asked for."),
    ] = False,
) -> None:
    """Draw rows of a store: control, stamp and arc side by side.

    Control and stamp are colour composites with one fixed stretch, so that they differ by the arc only; the
    arc is a map of the middle band with its scale in nanomaggies per pixel. The label gives the row's id, the
    Einstein radius and the magnitude of the arc on the stamp.

    With --distributions: Einstein radii, shapes, sizes, colours, magnitudes and signal to noise of all arcs,
    over those that priors, tables and hosts ask for, and how far apart they are (Kolmogorov-Smirnov). Rows
    that had to pass cuts differ from what was asked for; they are shown, not tested.

    Examples
    --------
    arcforge show lenses.zarr --out grid.png
    arcforge show lenses.zarr --rows 3,10:14 --out rows.png
    arcforge show lenses.zarr --distributions --out distributions.png
    """
    from arcforge.engine import open_store
    from arcforge.engine.pictures import lensed_rows, stamp_grid

    opened = open_store(store)
    if distributions:
        if rows is not None:
            raise typer.BadParameter("distributions are of all rows: leave --rows or --distributions out")
        _show_distributions(opened, out)
        return
    chosen = lensed_rows(opened, _SHOWN) if rows is None else parse_rows(rows, len(opened), _MOST)
    written = stamp_grid(opened, chosen, out)
    terminal.say(f"{written}: {len(chosen)} of {len(opened)} rows of {store}")


def _show_distributions(opened: Store, out: Path) -> None:
    from statistics import median

    from arcforge.cli.tables import plain_table
    from arcforge.engine.distributions import distributions, draw_distributions

    found = distributions(opened)
    table = plain_table("", "column", "median", "asked for", "distance", "p")
    for each in found:
        asked = "-" if each.asked is None else f"{median(each.asked):.4g}"
        distance = "-" if each.asked is None else f"{each.distance:.4f}"
        p_value = "-" if each.p_value != each.p_value else f"{each.p_value:.2g}"
        table.add_row(each.name, f"{median(each.rows):.4g}", asked, distance, p_value)
    terminal.console().print(table)
    written = draw_distributions(found, out, f"{opened.path.name}: {found[0].rows.size:,} arcs")
    terminal.say(f"{written}: {len(found)} columns of {opened.path}")
    off = [each.name for each in found if each.differs]
    if off:
        terminal.note(f"not what was asked for: {', '.join(off)}")
