"""Every command and every Python block of the README runs, in its order, on real survey data.

Only numbers of rows are made smaller; what the help pages show is parsed, not run.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from arcforge.cli.app import COMMANDS, app
from arcforge.engine.notebook import Report

pytestmark = pytest.mark.compiled  # whole audits at full size

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROWS = 60  # as few as let the audit of 46 hosts decide
AUDITED = {0, 10, 20, 30}


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands_of(text: str) -> list[str]:
    return [line.strip() for line in re.findall(r"(?:^\s*|bin/)(arcforge [^#\n&]*)", text, re.MULTILINE)]


def help_examples() -> list[str]:
    pages = [CliRunner().invoke(app, [name, "--help"]).stdout for name in COMMANDS]
    return [line for page in pages for line in commands_of(page.partition("Examples:")[2])]


README_COMMANDS = [line for block in code_blocks("sh") for line in commands_of(block)]


def test_the_readme_was_read():
    assert len(README_COMMANDS) >= 15
    assert {shlex.split(line)[1] for line in README_COMMANDS} <= set(COMMANDS)
    steps = ("inject", "audit", "import", "export", "finalise", "verify", "replay", "certify", "show")
    assert set(steps) <= {shlex.split(line)[1] for line in README_COMMANDS}


@pytest.mark.parametrize("line", sorted({*README_COMMANDS, *help_examples()}))
def test_examples_are_understood(line):
    # parsed by the command's own parser, not run
    name, *args = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    parent = group.make_context("arcforge", [name])
    context = group.get_command(parent, name).make_context(name, args, parent=parent)
    assert context.command.name == name


@pytest.fixture(scope="module")
def folder(tmp_path_factory, survey_data):
    """What the README's reader has: cutouts, and pairs of their own."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "cutouts").symlink_to(survey_data / "hosts" / "des46")
    pairs = pq.read_table(survey_data / "pairs" / "pairs_clean.parquet")
    pq.write_table(pairs.slice(0, ROWS), folder / "pairs.parquet")
    return folder


@pytest.fixture(scope="module")
def followed(folder):
    """The folder after every command was run as printed; output by command."""
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in README_COMMANDS:
            if line == "arcforge demo":  # has tests of its own
                continue
            args = shlex.split(re.sub(r"--n \d+", f"--n {ROWS}", line.replace("--rows 2", "--rows 1")))[1:]
            result = CliRunner().invoke(app, args)
            allowed = AUDITED if args[0] == "audit" else {0}
            assert result.exit_code in allowed, f"{line}: exit code {result.exit_code}, {result.output}"
            assert "internal error" not in result.stderr
            said[line] = result.stdout
    return said


def test_every_command_runs_and_writes_what_it_names(followed, folder):
    for line in followed:
        for option in ("--out", "--html", "--json"):
            args = shlex.split(line)
            if option in args and "--dry-run" not in args:
                assert (folder / args[args.index(option) + 1]).exists(), line
    for page in ("audit.html", "pairs.html"):
        assert (folder / page).read_text().count("data:image/png") >= 6
    verdicts = [said for line, said in followed.items() if " audit " in line]
    assert "the pixels are what their record says" in verdicts[0]
    assert "the pixels are what their record says" in verdicts[1]


def test_the_python_blocks_run(followed, folder, monkeypatch):
    monkeypatch.chdir(folder)
    training, reading = code_blocks("python")
    names: dict[str, object] = {}
    exec(reading, names)
    report, store = names["report"], names["store"]
    assert report["schema"] == "arcforge.audit/1"
    # the store rounds an arc so that stamp - control gives it back exactly
    stored = store.arcs(slice(None))
    assert abs(names["images"] - stored).max() < 1e-6 * stored.max() + 1e-6
    shown = store._repr_html_()
    assert "60 of 60" in shown
    assert "data:image/png;base64," in shown
    assert isinstance(report, Report)
    assert report["verdict"] in report._repr_html_()
    pytest.importorskip("torch")
    exec(training, names)
    assert names["loss"].item() > 0


def test_linked_files_and_pictures_are_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
