"""Options that several commands share, so that a name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A store that 'arcforge inject' wrote.")]

Seed = Annotated[int, typer.Option(min=0, metavar="S", help="Root seed: the same seed gives the same bytes.")]

Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="K", help="Threads; all cores if not given. The bytes do not depend on it."),
]

Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]
