"""The ``arcforge`` command: a table of commands, loaded one at a time, and the rules that all of them keep.

A command is a plain function with typer annotations in a module of this folder, named in ``COMMANDS``. The
module is imported when its command runs or shows its own help, so ``arcforge --help`` pays for none of them.
It imports typer at the top, and rich and the engine inside the function. Its docstring is its help; what
stands under a numpydoc ``Examples`` heading is printed last, line by line as it is. A command with commands
of its own is a ``typer.Typer`` of such functions, with its help given to it.

Rules, kept here and nowhere else: an error is one line on stderr and exit code 1; wrong usage is one line and
exit code 2; ``--debug`` and ``--quiet`` work before and after the command's name. A command that has another
answer than "done" raises ``typer.Exit(code)``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from arcforge.cli import terminal
from arcforge.engine.errors import ArcforgeError

# name -> (module of this folder, what it does). The function has the command's name.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "The whole in a minute: inject, audit, a report with pictures."),
    "config": ("config", "Print the whole configuration of a run."),
    "inject": ("inject", "Inject lensed arcs into galaxy cutouts: paired stamps."),
    "import": ("transfer", "Take in existing pairs: parquet, npz, FITS, npy."),
    "export": ("transfer", "Write a store's pairs as parquet, npz, FITS or npy."),
    "finalise": ("stores", "Complete a store that was written in partitions."),
    "audit": ("audit", "Decide whether paired stamps leak their label."),
    "verify": ("stores", "Check a store against what was committed."),
    "info": ("stores", "Summarise a store."),
    "show": ("show", "Draw rows of a store: control, stamp and arc."),
    "replay": ("replay", "Render rows of a store again, and compare bits."),
    "certify": ("certify", "Check the renderer's numbers on this machine."),
    "bench": ("bench", "Time kernels, other programs, whole runs and the store."),
}

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def _set_debug(value: bool) -> None:
    terminal.settings.debug |= value


def _set_quiet(value: bool) -> None:
    terminal.settings.quiet |= value


_Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", callback=_set_debug,
                 is_eager=True, expose_value=False),
]  # fmt: skip
_Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress, no remarks.", callback=_set_quiet,
                 is_eager=True, expose_value=False),
]  # fmt: skip


def _common(debug: _Debug = False, quiet: _Quiet = False) -> None:
    """Hold the options that every command has."""


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        terminal.say(f"arcforge {version('arcforge')}")
        raise typer.Exit


class _Command(TyperCommand):
    """A command whose examples stand in its help as they were written."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(self.epilog, formatter)


class _LazyCommand(TyperCommand):
    """A command known by its name and one line of help; the rest is loaded when it is used."""

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, help=summary, rich_markup_mode=None)
        self._module = module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        # The context belongs to the real command; the call and shell completion both go on from there.
        assert self.name is not None
        module = importlib.import_module(f"arcforge.cli.{self._module}")
        command = _build(getattr(module, self.name), self.name)
        return command.make_context(info_name, args, parent=parent, **extra)


class _CommandLine(TyperGroup):
    """The group of all commands; turns whatever a command raises into one line and an exit code."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        for name, (module, summary) in COMMANDS.items():
            self.add_command(_LazyCommand(name, module, summary))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(self.epilog, formatter)

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.pop("standalone_mode", True):
            extra["standalone_mode"] = False
            return super().main(*args, **extra)
        terminal.reset()
        with warnings.catch_warnings(), terminal.noting_interrupts():
            warnings.showwarning = _show_warning
            sys.exit(self._exit_code(*args, **extra))

    def _exit_code(self, *args: Any, **extra: Any) -> int:
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except Exception as error:
            if terminal.settings.debug:
                traceback.print_exception(error)
            message, code = _explain(error)
            terminal.complain(message)
        if code == EXIT_INTERRUPTED:
            terminal.complain("interrupted")
        return code if isinstance(code, int) else 0


def _write_examples(examples: str | None, formatter: Any) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class _Group(TyperGroup):
    """A command that has commands of its own."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(self.epilog, formatter)


def _build(made: Callable[..., Any] | typer.Typer, name: str) -> TyperCommand | TyperGroup:
    """Turn an annotated function into a command, or a ``typer.Typer`` of such functions into a group of them.

    The examples of a function's docstring, or of a Typer's help, become the epilog.
    """
    if isinstance(made, typer.Typer):
        callbacks = [info.callback for info in made.registered_commands if info.callback is not None]
        parts: dict[str, Any] = {part.__name__: _build(part, part.__name__) for part in callbacks}
        text, examples = _split_examples(made.info.help)
        return _Group(name=name, commands=parts, help=text, epilog=examples, rich_markup_mode=None)
    command = _build_one(made, name)
    command.params.extend(_build_one(_common, "common").params)
    return command


def _build_one(function: Callable[..., Any], name: str) -> TyperCommand:
    text, examples = _split_examples(function.__doc__)
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(name=name, cls=_Command, help=text, epilog=examples)(function)
    command = typer.main.get_command(one)
    assert isinstance(command, TyperCommand)
    return command


def _split_examples(text: str | None) -> tuple[str, str]:
    help_text, _, examples = inspect.cleandoc(text or "").partition("\nExamples\n--------\n")
    return help_text, examples


def _explain(error: Exception) -> tuple[str, int]:
    """Return the line and the exit code for an exception that a command raised."""
    if isinstance(error, ArcforgeError):
        return str(error), EXIT_FAILURE
    if hasattr(error, "format_message"):  # wrong usage; where its base class lives depends on typer's version
        ctx = getattr(error, "ctx", None)
        hint = f" See '{ctx.command_path} --help'." if ctx is not None else ""
        message = error.format_message()
        return f"{message if message.endswith(('.', '?')) else message + '.'}{hint}", EXIT_USAGE
    if isinstance(error, typer.Abort):
        return "stopped: nothing more to read", EXIT_FAILURE
    if isinstance(error, OSError):
        return _explain_system(error), EXIT_FAILURE
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"internal error, {type(error).__name__}: {error} (in {where.name}); "
        "repeat the command with --debug and report the traceback",
        EXIT_FAILURE,
    )


def _explain_system(error: OSError) -> str:
    """Say what the operating system refused, and where; numbers of errors tell nobody anything."""
    if error.filename is None or error.strerror is None:
        return error.strerror or str(error)
    return f"{error.filename}: {error.strerror}; check the path, its permissions and the space on its disk"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    terminal.complain(f"warning: {message}")


app = typer.Typer(
    name="arcforge",
    cls=_CommandLine,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\n".join(
        [
            "arcforge demo",
            "arcforge inject --hosts cutouts/ --n 2000 --seed 7 --out lenses.zarr",
            "arcforge audit lenses.zarr --html audit.html",
        ]
    ),
)


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
    debug: _Debug = False,
    quiet: _Quiet = False,
) -> None:
    """Inject simulated gravitational-lens arcs into real galaxy stamps, and audit such data for shortcuts."""
    if ctx.invoked_subcommand is None:
        terminal.say(ctx.get_help())


def main() -> NoReturn:
    """Run the command line (the console script)."""
    app()
    raise AssertionError("the command line always exits")


if __name__ == "__main__":
    main()
