"""``arcforge show``: pictures of a store's rows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arcforge.cli import terminal
from arcforge.cli.options import StorePath, parse_rows

if TYPE_CHECKING:
    from arcforge.engine.store import Store


class Kind(StrEnum):
    """What is drawn."""

    triplets = "triplets"
    gallery = "gallery"
    lenses = "lenses"
    profiles = "profiles"
    distributions = "distributions"


# Rows drawn where none are named, and the most that can be
_SHOWN = {"triplets": 12, "gallery": 60, "lenses": 6, "profiles": 2000}
_MOST = {"triplets": 240, "gallery": 600, "lenses": 40, "profiles": 100_000}


def show(
    store: StorePath,
    out: Annotated[
        Path, typer.Option(metavar="PNG", dir_okay=False, help="The picture to write; also .pdf or .svg.")
    ],
    kind: Annotated[Kind, typer.Option(help="What to draw; see above.")] = Kind.triplets,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Row numbers and ranges, e.g. 0,7,20:26 (26 excluded). "
            "Default: lensed rows at even distances through the store, not picked by their looks.",
        ),
    ] = None,
) -> None:
    """Draw rows of a store.

    triplets: control, stamp and arc side by side. Control and stamp are colour composites with one fixed
    stretch, so that they differ by the arc only; the arc is a map of the middle band with its scale.
    gallery: the stamps alone, many of them. lenses: each arc with its critical curves, and the source plane
    with caustics and source. profiles: mean radial profiles of the arcs by Einstein radius and band.

    distributions: Einstein radii, shapes, sizes, colours, magnitudes and signal to noise of all arcs, over
    those that priors, tables and hosts ask for, and how far apart they are (Kolmogorov-Smirnov). Rows that
    had to pass cuts differ from what was asked for; they are shown, not tested.

    Examples
    --------
    arcforge show lenses.zarr --out grid.png
    arcforge show lenses.zarr --rows 3,10:14 --out rows.png
    arcforge show lenses.zarr --kind gallery --out gallery.png
    arcforge show lenses.zarr --kind lenses --rows 0:4 --out lenses.pdf
    arcforge show lenses.zarr --kind distributions --out distributions.png
    """
    from arcforge.engine import open_store
    from arcforge.engine.lens_diagrams import lens_figure
    from arcforge.engine.pictures import lensed_rows, stamp_grid, write_png
    from arcforge.engine.store_figures import gallery_figure, profile_figure

    opened = open_store(store)
    name = kind.value
    if kind is Kind.distributions:
        if rows is not None:
            raise typer.BadParameter("distributions are of all rows: leave it out", param_hint="--rows")
        _show_distributions(opened, out)
        return
    chosen = parse_rows(rows, len(opened), _MOST[name]) if rows else lensed_rows(opened, _SHOWN[name])
    figures = {"gallery": gallery_figure, "lenses": lens_figure, "profiles": profile_figure}
    with terminal.waiting("drawing"):
        if kind is Kind.triplets:
            written = stamp_grid(opened, chosen, out)
        else:
            written = write_png(figures[name](opened, chosen), out)
    named = "" if rows else ", at even distances"
    terminal.say(f"{written}: {name}, {len(chosen):,} of {len(opened):,} rows of {store}{named}")


def _show_distributions(opened: Store, out: Path) -> None:
    from statistics import median

    from arcforge.cli.tables import plain_table
    from arcforge.engine.distributions import distributions, draw_distributions

    with terminal.waiting("drawing again what was asked for"):
        found = distributions(opened)
    table = plain_table("", "column", "median", "asked for", "distance", "p")
    for each in found:
        asked = "-" if each.asked is None else f"{median(each.asked):.4g}"
        distance = "-" if each.asked is None else f"{each.distance:.4f}"
        p_value = "-" if each.p_value != each.p_value else f"{each.p_value:.2g}"
        table.add_row(each.name, f"{median(each.rows):.4g}", asked, distance, p_value)
    terminal.show_table(table)
    written = draw_distributions(found, out, f"{opened.path.name}: {found[0].rows.size:,} arcs")
    terminal.say(f"{written}: {len(found)} columns of {opened.path}")
    off = [each.name for each in found if each.differs]
    if off:
        terminal.note(f"not what was asked for: {', '.join(off)}")
