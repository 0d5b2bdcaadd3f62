"""``arcforge config``: what a run is made with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcforge.cli import terminal

config = typer.Typer(
    help="""Configurations of runs.

    Examples
    --------
    arcforge config show
    arcforge config show priors.toml
    """
)


@config.callback()
def _group() -> None:
    """Keep ``show`` a command of its own, though it is the only one."""


@config.command()
def show(
    file: Annotated[
        Path | None, typer.Argument(metavar="TOML", help="A configuration; the defaults if not given.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="TOML", help="The same.")] = None,
) -> None:
    """Print the whole configuration, defaults filled in, as TOML that can be edited and given back.

    Examples
    --------
    arcforge config show
    arcforge config show priors.toml
    arcforge config show > priors.toml
    """
    from arcforge.engine.config import default_config, load_config

    chosen = file or config
    resolved = default_config() if chosen is None else load_config(chosen)
    terminal.say(resolved.to_toml().rstrip("\n"))
