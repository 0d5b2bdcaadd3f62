"""What the README and the help pages tell users to type is what the commands take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from arcforge.cli.app import COMMANDS, app

README = (Path(__file__).parents[1] / "README.md").read_text()


def code_blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL))


def commands_of(text: str) -> list[str]:
    return re.findall(r"(?:^\s*|bin/)(arcforge [^#\n&]*)", text, re.MULTILINE)


def help_examples() -> list[str]:
    pages = [CliRunner().invoke(app, [name, "--help"]).stdout for name in COMMANDS]
    return [line for page in pages for line in commands_of(page.partition("Examples:")[2])]


README_COMMANDS = commands_of(code_blocks("sh"))


def test_the_readme_was_read():
    assert len(README_COMMANDS) >= 5
    assert {shlex.split(line)[1] for line in README_COMMANDS} <= set(COMMANDS)


@pytest.mark.parametrize("line", sorted({*README_COMMANDS, *help_examples()}))
def test_examples_are_understood(line):
    # parsed by the command's own parser, not run
    name, *args = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    parent = group.make_context("arcforge", [name])
    context = group.get_command(parent, name).make_context(name, args, parent=parent)
    assert context.command.name == name


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["inject", "--n", "30", "--seed", "7", "--out", "lenses.zarr"])
    assert made.exit_code == 0, made.stderr
    names: dict[str, object] = {}
    exec(code_blocks("python"), names)
    assert names["report"]["schema"] == "arcforge.audit/1"
    # the store rounds an arc so that stamp - control gives it back exactly
    stored = names["store"].arcs(slice(None))
    assert abs(names["images"] - stored).max() < 1e-6 * stored.max() + 1e-6
