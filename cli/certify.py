"""``arcforge certify``: the renderer's numbers, checked on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from arcforge.cli import terminal
from arcforge.cli.options import JsonFile


def certify(
    json_file: JsonFile = None,
    rows: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Random hard rows to compare with the float64 reference, ~1 s each."
        ),
    ] = 12,
) -> None:
    """Check the renderer against formulae, exact PSFs and the float64 reference; exit code 1 where a bound
    fails.

    Examples
    --------
    arcforge certify
    arcforge certify --rows 100 --json certificate.json
    """
    from rich.table import Table

    from arcforge.engine.certificate import certify as run

    with terminal.progress("certify") as progress:
        result = run(n_rows=rows, progress=progress)
    table = Table("check", "against", "measured", "bound", "unit", "")
    for check in result["checks"]:
        mark = "pass" if check["passed"] else "FAIL"
        table.add_row(
            check["title"],
            check["against"],
            f"{check['measured']:.2g}",
            f"{check['bound']:.0e}",
            check["unit"],
            mark,
        )
    terminal.show_table(table)
    if json_file is not None:
        terminal.write_json(result, json_file)
    if not result["passed"]:
        raise typer.Exit(1)
