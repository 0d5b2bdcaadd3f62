"""``--json -`` puts JSON, and nothing else, on stdout; what cannot be written is refused at once."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app


def arcforge(*args: object):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (["info"], {"n_rows": 600, "bands": "gr", "n_hosts": 5}),
        (["verify", "--level", "full"], {"sound": True, "n_rows": 600, "faults": []}),
    ],
)
def test_json_stands_alone_on_stdout(complete_store, command, keys):
    result = arcforge(*command, complete_store, "--json", "-")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert keys.items() <= found.items()
    assert "rows" in result.stderr, "what is for people goes to stderr"
    assert arcforge("--quiet", *command, complete_store, "--json", "-").stderr == ""


def test_json_and_text_beside_a_file(complete_store, tmp_path):
    result = arcforge("info", complete_store, "--json", tmp_path / "info.json")
    assert result.stdout.startswith("rows       600 of 600")
    columns = json.loads((tmp_path / "info.json").read_text())["columns"]
    assert columns["theta_e_arcsec"]["not_a_number"] == 200
    assert columns["row_id"]["highest"] == 599


def test_a_damaged_store_is_told_in_json_too(written):
    victim = next(path for path in written.root.glob("arcs/c/**/*") if path.is_file())
    victim.write_bytes(victim.read_bytes()[:-1])
    result = arcforge("verify", written.root, "--json", "-")
    assert result.exit_code == 20
    found = json.loads(result.stdout)
    assert not found["sound"]
    assert len(found["faults"]) == 1


@pytest.mark.compiled
def test_imports_and_runs_tell_what_was_made(tmp_path, survey_data):
    pairs = survey_data / "pairs" / "pairs_clean.parquet"
    found = json.loads(arcforge("import", pairs, "--out", tmp_path / "s.zarr", "--json", "-").stdout)
    assert found["n_rows"] == 114
    assert found["refused"] == []
    dry = arcforge("inject", "--n", 3, "--out", tmp_path / "t.zarr", "--dry-run", "--json", "-")
    assert json.loads(dry.stdout)["n_rows"] == 3
    again = arcforge("inject", "--n", 3, "--out", tmp_path / "t.zarr", "--json", "-", "-q")
    assert json.loads(again.stdout)["n_rows"] == 3
    same = arcforge("replay", tmp_path / "t.zarr", "--rows", "1", "--json", "-")
    assert json.loads(same.stdout)["n_different"] == 0
    assert "1 row is the same" in same.stderr


def test_what_cannot_be_is_said_before_the_work(tmp_path, complete_store):
    refused = arcforge("certify", "--json", tmp_path)
    assert refused.exit_code == 2
    assert "is a directory" in refused.stderr
    assert "--hosts" in arcforge("inject", "--positions", "p.csv", "--out", tmp_path / "s.zarr").stderr
    (tmp_path / "pairs.parquet").touch()
    assert "arcforge import" in arcforge("info", tmp_path / "pairs.parquet").stderr
