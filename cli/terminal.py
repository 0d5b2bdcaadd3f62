"""What the commands say and where: results on stdout, remarks, progress and errors on stderr.

Colours and progress bars appear on a terminal only; ``NO_COLOR`` is respected. ``--quiet`` silences remarks
and progress, never results or errors, so that output can be piped and logged as it is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Work shorter than this finishes before a reader would look for a bar.
_PROGRESS_AFTER_S = 1.0


@dataclass
class Settings:
    """The options that every command has."""

    debug: bool = False
    quiet: bool = False
    json_on_stdout: bool = False  #: by --json -; what is read by people goes to stderr then
    interrupted: bool = False  #: Ctrl-C came, whoever caught it


settings = Settings()


def reset() -> None:
    """Forget the settings of an earlier call in the same process."""
    settings.debug = settings.quiet = settings.json_on_stdout = settings.interrupted = False


@contextmanager
def noting_interrupts() -> Iterator[None]:
    """Note every Ctrl-C: a library that is being imported may catch it, and the run would go on."""

    def interrupt(number: int, frame: object) -> None:
        settings.interrupted = True
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def heed_interrupt() -> None:
    """Stop here where a Ctrl-C came that something else caught."""
    if settings.interrupted:
        raise KeyboardInterrupt


def console(*, stderr: bool = False) -> Console:
    """Return a console for tables and coloured text, bound to the present stdout (or stderr).

    Beside JSON on stdout, what it prints is a remark, as that of ``say``.

    On a pipe it is 100 columns wide: the 80 that rich assumes there cuts tables that are read later.
    """
    from rich.console import Console

    beside_json = settings.json_on_stdout and not stderr
    stream = sys.stderr if stderr or beside_json else sys.stdout
    width = None if stream.isatty() else 100
    silent = beside_json and settings.quiet
    return Console(stderr=stream is sys.stderr, highlight=False, width=width, quiet=silent)


def show_table(table: Table) -> None:
    """Print a table of numbers as wide as it is: narrow terminals break lines, rich would cut numbers."""
    from rich.measure import Measurement

    out = console()
    unbounded = out.options.update(max_width=1000)
    out.width = max(out.width, Measurement.get(out, unbounded, table).maximum)
    out.print(table)


def one_line(message: object) -> str:
    """Return a message as one line: whatever a library put into it."""
    return " ".join(str(message).split())


def say(message: str) -> None:
    """Print one line of the result on stdout; beside JSON there, it is a remark."""
    if settings.json_on_stdout:
        note(message)
    else:
        typer.echo(message)


def note(message: str) -> None:
    """Print a remark on stderr, unless ``--quiet``."""
    if not settings.quiet:
        typer.echo(message, err=True)


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON, to stdout where the path is "-"; a file is there as a whole or not at all."""
    import json

    from arcforge.engine.durable import place

    text = json.dumps(result, indent=1, allow_nan=False)
    if settings.json_on_stdout:
        typer.echo(text)
    else:
        place(path, (text + "\n").encode())


def complain(message: object) -> None:
    """Print an error or a warning on stderr, as one line that starts with the program's name."""
    typer.secho(f"arcforge: {one_line(message)}", err=True, fg="red" if wants_colour(sys.stderr) else None)


def wants_colour(stream: object) -> bool:
    """Return whether a stream is a terminal whose user did not ask for plain text by ``NO_COLOR``."""
    return not os.environ.get("NO_COLOR") and bool(getattr(stream, "isatty", bool)())


@contextmanager
def progress(label: str, unit: str = "rows") -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr while the body runs; yields ``report(done, total)`` for the engine to call.

    Silent under ``--quiet`` and where stderr is not a terminal; appears only after a second of work.

    Parameters
    ----------
    label
        What is being done, e.g. ``"rendering"``.
    unit
        What is counted, e.g. ``"rows"``.
    """
    if settings.quiet or not sys.stderr.isatty():
        yield lambda done, total: heed_interrupt()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
    )
    task = bar.add_task(label, total=None)
    began = time.monotonic()

    def report(done: int, total: int) -> None:
        heed_interrupt()
        bar.update(task, completed=done, total=total)
        if not bar.live.is_started and time.monotonic() - began > _PROGRESS_AFTER_S:
            bar.start()

    try:
        yield report
    finally:
        bar.stop()


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show that work goes on whose parts cannot be counted; silent as ``progress`` is."""
    if settings.quiet or not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(f"{label} ..."):
        yield
