"""What several commands' tables share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arcforge.cli import terminal

if TYPE_CHECKING:
    from rich.table import Table


def plain_table(title: str, *columns: str) -> Table:
    """Return a table without lines, its first column left-aligned and the others right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def say_machine(machine: dict[str, Any]) -> None:
    """Print processor, cores and load, with a remark where the load spoils wall times."""
    load = machine["load_average"][0]
    terminal.say(f"{machine['cpu']}, {machine['cores_usable']} of {machine['cores']} cores, load {load:g}")
    if load > 0.5 * machine["cores"]:
        terminal.note(f"the machine is busy (load {load:g}): wall times and speed-ups of threads are too low")
