"""Options that several commands share, so that a name means one thing everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from arcforge.cli import terminal

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A store that 'arcforge inject' wrote.")]

Seed = Annotated[int, typer.Option(min=0, metavar="S", help="Root seed: the same seed gives the same bytes.")]

Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="K", help="Threads; all cores if not given. The bytes do not depend on it."),
]

Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]


def _json_to(path: Path | None) -> Path | None:
    terminal.settings.json_on_stdout |= str(path) == "-"
    return path


JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        dir_okay=False,
        callback=_json_to,
        help="Write the result as JSON; - for stdout, in place of the text.",
    ),
]


def parse_rows(text: str, n_rows: int, most: int) -> list[int]:
    """Turn "0,7,20:26" into row numbers; refuse what the store has not, and more than ``most``."""
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
        if len(rows) + end - first > most:
            raise _bad_rows(f"{text!r} names more than {most} rows")
        rows.extend(range(first, end))
    return rows


def _bad_rows(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="--rows")
