"""``arcforge replay``: rows of a store rendered again, each alone, from what the store records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcforge.cli import terminal
from arcforge.cli.options import JsonFile, StorePath, Threads, parse_rows

_MOST = 100_000
EXIT_DIFFERENT = 20


def replay(
    store: StorePath,
    rows: Annotated[
        str, typer.Option(metavar="LIST", help="Row numbers and ranges, e.g. 0,7,20:26 (26 excluded).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="NPZ", help="Write stamps, controls and arcs, as rendered now."),
    ] = None,
    threads: Threads = None,
    json_file: JsonFile = None,
) -> None:
    """Render rows again from the parameters and hosts that a store records, and compare bits.

    No other row takes part: every draw follows from the seed, the row's number and the purpose. Exit code 0
    where every row is the same bit for bit. Where rows differ, it is 20, unless the store was made by another
    version or on another processor: that is said then, with the largest difference.

    Examples
    --------
    arcforge replay lenses.zarr --rows 17
    arcforge replay lenses.zarr --rows 3,100:120 --out rows.npz
    """
    import numpy as np

    from arcforge.engine.durable import place
    from arcforge.engine.errors import StoreError
    from arcforge.engine.exports import pack
    from arcforge.engine.replay import difference
    from arcforge.engine.replay import replay as render_again
    from arcforge.engine.store import open_store
    from arcforge.engine.verify import other_machinery

    opened = open_store(store, allow_partial=True)
    if opened.is_imported:
        raise StoreError(
            f"{store}: was imported: its pixels came from elsewhere, and nothing here can replay them"
        )
    chosen = np.array(parse_rows(rows, len(opened), _MOST), dtype=np.int64)
    with terminal.waiting("rendering"):
        fresh, stored = render_again(opened, chosen, threads).arcs, opened.arcs(chosen)
    if out is not None:
        controls = opened.ctrls(chosen)
        arrays = {"rows": opened.rows[chosen], "stamps": controls + fresh, "ctrls": controls, "arcs": fresh}
        place(out, pack(arrays))
    found = difference(opened, chosen, fresh, stored)
    other = other_machinery(opened) if found is not None else ""
    if json_file is not None:
        counted = {"n_rows": len(chosen), "n_different": 0 if found is None else found.n_rows}
        worst = 0.0 if found is None else found.worst
        terminal.write_json({**counted, "worst_over_peak": worst, "other_machinery": other}, json_file)
    if found is None:
        what = "1 row is" if len(chosen) == 1 else f"{len(chosen)} rows are"
        terminal.say(f"{store}: {what} the same, bit for bit")
        return
    what = (
        f"{store}: {found.n_rows} of {len(chosen)} rows differ, the first is row "
        f"{found.first}, by up to {found.worst:.1g} of the brightest pixel"
    )
    if other:
        terminal.say(f"{what}; it was made with {other}")
        return
    terminal.complain(f"{what}; run 'arcforge verify --level deep', and make the store again")
    raise typer.Exit(EXIT_DIFFERENT)
