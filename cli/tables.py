"""What several commands' tables share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arcforge.cli import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from arcforge.engine.plan import Plan


def plain_table(title: str, *columns: str) -> Table:
    """Return a table without lines, its first column left-aligned and the others right."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def stamps_text(plan: Plan) -> str:
    """Return size and bands of a store's stamps in words."""
    return f"{plan.stamp_size} x {plan.stamp_size} pix, bands {plan.bands}"


def counted(n: int, noun: str) -> str:
    """Return "1 host" or "46 hosts"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def size_text(n_bytes: int) -> str:
    """Return a number of bytes as people read it."""
    value, unit = float(n_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def duration_text(seconds: float) -> str:
    """Return a time as people read it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def say_machine(machine: dict[str, Any]) -> None:
    """Print processor, cores and load, with a remark where the load spoils wall times."""
    load = machine["load_average"][0]
    terminal.say(f"{machine['cpu']}, {machine['cores_usable']} of {machine['cores']} cores, load {load:g}")
    if load > 0.5 * machine["cores"]:
        terminal.note(f"the machine is busy (load {load:g}): wall times and speed-ups of threads are too low")
