"""The rules that every command keeps: one-line errors, exit codes, lazy loading, help with examples."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from arcforge.cli import app as app_module
from arcforge.cli import terminal
from arcforge.engine.errors import StoreError

HEAVY = ("numba", "zarr", "astropy", "pyarrow", "scipy", "sklearn", "matplotlib", "pyfftw", "numpy")


def arcforge(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, in a process of its own."""
    return subprocess.run(
        [Path(sys.executable).with_name("arcforge"), *args],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


@pytest.fixture
def probe(monkeypatch):
    """Register a command that raises what the test asks for."""
    module = types.ModuleType("arcforge.cli.probe")
    raised: list[BaseException] = []

    def probe(rows: int = 3) -> None:
        """Probe the rules.

        Some more text.

        Examples
        --------
        arcforge probe --rows 3   # [brackets] and  spaces stay
        arcforge probe
        """
        typer.echo(f"rows {rows} quiet {terminal.settings.quiet}")
        if raised:
            raise raised[0]

    module.probe = probe
    monkeypatch.setitem(sys.modules, "arcforge.cli.probe", module)
    monkeypatch.setitem(app_module.COMMANDS, "probe", ("probe", "Probe the rules."))

    def run(*args: str, error: BaseException | None = None):
        raised[:] = [] if error is None else [error]
        return CliRunner().invoke(app_module.app, args)

    return run


def test_success_exits_0_and_common_options_work_on_both_sides(probe):
    assert probe("probe").exit_code == 0
    assert "rows 3 quiet False" in probe("probe").stdout
    assert "quiet True" in probe("--quiet", "probe").stdout
    assert "quiet True" in probe("probe", "-q").stdout
    assert "quiet False" in probe("probe").stdout, "a setting must not outlive its call"


def test_own_error_is_one_line_and_exit_1(probe):
    result = probe("probe", error=StoreError("x.zarr: bad\nsecond line;  give --overwrite"))
    assert result.exit_code == 1
    assert result.stderr == "arcforge: x.zarr: bad second line; give --overwrite\n"


def test_unexpected_error_is_one_line_too(probe):
    result = probe("probe", error=ZeroDivisionError("by zero"))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "internal error, ZeroDivisionError: by zero" in result.stderr
    assert "--debug" in result.stderr


def test_operating_system_error_names_the_file(probe):
    result = probe("probe", error=PermissionError(13, "Permission denied", "out.json"))
    assert result.exit_code == 1
    assert result.stderr.startswith("arcforge: out.json: Permission denied; check the path")


@pytest.mark.parametrize("args", [("--debug", "probe"), ("probe", "--debug")])
def test_debug_adds_the_traceback(probe, args):
    result = probe(*args, error=StoreError("bad"))
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("arcforge: bad\n")


def test_exit_codes_of_commands_pass_through(probe):
    assert probe("probe", error=typer.Exit(20)).exit_code == 20
    interrupted = probe("probe", error=KeyboardInterrupt())
    assert interrupted.exit_code == 130
    assert interrupted.stderr == "arcforge: interrupted\n"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("nosuch",), "No such command 'nosuch'. See 'arcforge --help'."),
        (("prob",), "No such command 'prob'. Did you mean 'probe'? See 'arcforge --help'."),
        (("probe", "--rows", "many"), "'--rows'"),
        (("probe", "--nosuch"), "See 'arcforge probe --help'."),
        (("probe", "spare"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(probe, args, line):
    result = probe(*args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("arcforge: ")
    assert line in result.stderr


def test_help_ends_with_the_examples_as_written(probe):
    result = probe("probe", "--help")
    assert result.exit_code == 0
    assert result.stdout.rstrip().endswith(
        "Examples:\n  arcforge probe --rows 3   # [brackets] and  spaces stay\n  arcforge probe"
    )
    assert "--debug" in result.stdout
    assert "--quiet" in result.stdout


def test_library_warnings_are_one_line(monkeypatch, probe):
    module = sys.modules["arcforge.cli.probe"]

    def probe_that_warns() -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("two\nlines", UserWarning, stacklevel=1)

    monkeypatch.setattr(module, "probe", probe_that_warns)
    assert probe("probe").stderr == "arcforge: warning: two lines\n"


def test_every_command_loads_and_has_an_example():
    for name in app_module.COMMANDS:
        result = CliRunner().invoke(app_module.app, [name, "--help"])
        assert result.exit_code == 0, result.stderr
        assert f"\n  arcforge {name}" in result.stdout.partition("Examples:")[2], name


def test_summaries_fit_a_terminal_of_80_columns():
    result = CliRunner().invoke(app_module.app, [])
    assert result.exit_code == 0
    for _, summary in app_module.COMMANDS.values():
        assert summary in result.stdout


def test_help_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from arcforge.cli.app import app\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"print('LOADED', [m for m in {HEAVY} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.rstrip().endswith("LOADED []")
    seconds = []
    for _ in range(3):  # processor time, and the best of three: other work on the machine only ever adds
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert arcforge("--help").returncode == 0
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
    assert min(seconds) < 0.5


def test_command_modules_import_nothing_heavy():
    code = (
        "import importlib, sys\n"
        "from arcforge.cli.app import COMMANDS\n"
        "for module, _ in COMMANDS.values():\n    importlib.import_module(f'arcforge.cli.{module}')\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


def test_no_colours_on_a_pipe_and_none_under_no_color(monkeypatch):
    assert "\x1b" not in arcforge("nosuch").stderr

    class FakeTerminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.wants_colour(FakeTerminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.wants_colour(FakeTerminal())


def test_shell_completion_offers_commands_and_options():
    def complete(words: str) -> str:
        count = str(len(words.split(" ")) - 1)
        return arcforge(_ARCFORGE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=count).stdout

    assert set(app_module.COMMANDS) <= set(complete("arcforge ").split())
    assert "--rows" in complete("arcforge show --r").split()


def test_version_is_the_installed_one():
    from importlib.metadata import version

    assert arcforge("--version").stdout == f"arcforge {version('arcforge')}\n"


def test_progress_is_silent_off_a_terminal(capsys):
    with terminal.progress("rendering") as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")


def test_commands_are_functions_of_their_own_name():
    for name, (module, _) in app_module.COMMANDS.items():
        assert callable(getattr(importlib.import_module(f"arcforge.cli.{module}"), name))


def test_an_interrupt_that_a_library_caught_is_heeded(monkeypatch, probe):
    def probe_that_catches() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with terminal.progress("working") as report:
            report(1, 2)
        typer.echo("went on unheeding")

    monkeypatch.setattr(sys.modules["arcforge.cli.probe"], "probe", probe_that_catches)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
    try:
        result = probe("probe")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.strip() == "arcforge: interrupted"


def test_a_narrow_terminal_cuts_no_number(monkeypatch, capsys):
    from rich.console import Console
    from rich.table import Table

    monkeypatch.setattr(terminal, "console", lambda: Console(width=30))
    table = Table("a column of a long name", "a number", "another one")
    table.add_row("theta_e_arcsec", "0.123456789", "9.87654321")
    terminal.show_table(table)
    printed = capsys.readouterr().out
    for cell in ("a column of a long name", "theta_e_arcsec", "0.123456789", "9.87654321"):
        assert cell in printed
