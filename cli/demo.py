"""``arcforge demo``: the main job on built-in defaults, from nothing to a report with pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from arcforge.cli import terminal
from arcforge.cli.options import Overwrite, Seed

# Enough hosts for the audit to decide, few enough for a minute on two cores.
_HOSTS, _ROWS, _PICTURED = 150, 300, 12


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path("arcforge-demo"),
    seed: Seed = 7,
    overwrite: Overwrite = False,
) -> None:
    """Inject arcs into synthetic galaxies, audit the pairs and write a report with pictures.

    Nothing is needed and nothing is fetched: the hosts are synthetic luminous red galaxies under DR10-like
    seeing and noise, the arcs follow the built-in priors. Under a minute on two cores.

    Examples
    --------
    arcforge demo
    arcforge demo --out first-look --seed 1
    """
    from arcforge.cli.audit import print_verdict
    from arcforge.engine.auditing.page import write_page
    from arcforge.engine.auditing.run import run_audit
    from arcforge.engine.errors import StoreExistsError
    from arcforge.engine.inject import inject
    from arcforge.engine.pictures import lensed_rows, stamp_grid
    from arcforge.engine.synthetic import synthetic_hosts

    stamps = out / "lenses.zarr"
    if stamps.exists() and not overwrite:
        raise StoreExistsError(
            f"{out}: holds a demo already; replace it by --overwrite, or give another --out"
        )
    began = time.monotonic()
    terminal.say(f"1  injecting {_ROWS} arcs into {_HOSTS} synthetic galaxies, seed {seed}")
    with terminal.progress("injecting") as report:
        store = inject(
            stamps,
            hosts=synthetic_hosts(_HOSTS, seed),
            n=_ROWS,
            seed=seed,
            overwrite=overwrite,
            progress=report,
        )
    grid = stamp_grid(store, lensed_rows(store, _PICTURED), out / "grid.png")

    terminal.say("2  auditing the pairs as if they were anyone's")
    with terminal.progress("auditing", "steps") as report:
        result = run_audit(store, seed=seed, progress=report)
    written = {
        write_page(result, out / "report.html"): "the audit with its pictures: open it in a browser",
        grid: f"control, stamp and arc of {_PICTURED} rows",
        out / "report.json": "the audit for programs",
        stamps: "the stamps, for 'arcforge info', 'show' and 'verify'",
    }
    terminal.write_json(result.report, out / "report.json")
    print_verdict(result.report)

    terminal.say(f"\n3  written, {time.monotonic() - began:.0f} s in all")
    width = max(len(str(path)) for path in written)
    for path, what in written.items():
        terminal.say(f"   {path!s:<{width}}  {what}")
