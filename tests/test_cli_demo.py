"""``arcforge demo``: from nothing to a report, on fewer rows than a user gets."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from arcforge.cli import demo
from arcforge.cli.app import app

pytestmark = pytest.mark.compiled  # whole audits at full size


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "_ROWS", 40)
    monkeypatch.setattr(demo, "_HOSTS", 25)
    monkeypatch.setattr(demo, "_PICTURED", 2)


def test_the_demo_writes_what_it_says(small, tmp_path, tree_hashes):
    out = tmp_path / "first-look"
    result = CliRunner().invoke(app, ["demo", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    report = json.loads((out / "report.json").read_text())
    assert report["schema"] == "arcforge.audit/1"
    assert report["verdict"] in result.stdout
    assert report["gate"]["n_pairs"] == 40
    assert (out / "report.html").read_text().count("data:image/png;base64,") >= 3
    assert (out / "grid.png").stat().st_size > 10_000
    assert {path.name for path in out.iterdir()} == {"lenses.zarr", "grid.png", "report.html", "report.json"}
    for path in out.iterdir():
        assert str(path) in result.stdout

    from arcforge.engine import open_store

    store = open_store(out / "lenses.zarr")
    assert (store.stamps([3]) - store.ctrls([3]) - store.arcs([3]) == 0).all()

    before = tree_hashes(out)
    again = CliRunner().invoke(app, ["demo", "--out", str(out)])
    assert again.exit_code == 1
    assert again.stderr.count("\n") == 1
    assert "--overwrite" in again.stderr
    assert tree_hashes(out) == before
