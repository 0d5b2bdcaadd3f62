"""``inject``, ``finalise``, ``verify`` and ``info`` as a user runs them."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app
from arcforge.engine import open_store
from arcforge.engine.inject import inject

CONFIG = 'stamp_size = 24\nvariant = "uniform1"\nsynthetic_host_count = 12\n'
COLUMNS = (
    "lens_model,theta_e_arcsec,lens_e,lens_phi_rad,src_x_arcsec,src_y_arcsec,src_reff_arcsec,src_e,src_phi_rad,"
    "src_flux_nmgy_g,src_flux_nmgy_r,src_flux_nmgy_z,psf_fwhm_arcsec_g,psf_fwhm_arcsec_r,psf_fwhm_arcsec_z"
)
GOOD = "SIE,1.2,0.2,0.3,0.1,0.1,0.3,0.1,1.0,1.0,2.0,3.0,1.4,1.3,1.2"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in a folder of its own, with a quick configuration at hand."""
    monkeypatch.chdir(tmp_path)
    Path("quick.toml").write_text(CONFIG)

    def call(*args: str):
        return CliRunner().invoke(app, list(map(str, args)))

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_config):
    return inject(tmp_path_factory.mktemp("cli") / "S.zarr", config=small_config, n=300, seed=7).path


@pytest.fixture
def store(made, tmp_path):
    """A complete store in the present folder, to be damaged at will."""
    shutil.copytree(made, tmp_path / "S.zarr")
    return tmp_path / "S.zarr"


def assert_refused(result, *words: str, exit_code: int = 1) -> None:
    """One line that holds the words in their order, and nothing new in the folder."""
    lines = [line for line in result.stderr.splitlines() if line]
    assert result.exit_code == exit_code, result.output
    assert len(lines) == 1, lines
    assert re.search(".*".join(map(re.escape, words)), lines[0]), lines[0]


def test_the_whole_way(run, tmp_path):
    result = run("inject", "--config", "quick.toml", "--n", 300, "--seed", 7, "--out", "S.zarr")
    assert result.exit_code == 0, result.output
    assert "300 rows in 12 hosts, 24 x 24 pix, bands grz" in result.stdout
    for level in ("quick", "full", "deep"):
        result = run("verify", "S.zarr", "--level", level)
        assert result.exit_code == 0
        assert "S.zarr: sound" in result.stdout
    result = run("info", "S.zarr")
    assert result.exit_code == 0
    for word in ("300 of 300 (complete)", "24 x 24 pix", "seed       7", "theta_e_arcsec", "rtol 0.001"):
        assert word in result.stdout
    assert_refused(run("inject", "--n", 3, "--out", "S.zarr"), "S.zarr: exists", "--resume", "--overwrite")
    assert run("inject", "--config", "quick.toml", "--n", 5, "--out", "S.zarr", "--overwrite").exit_code == 0
    assert len(open_store("S.zarr")) == 5


def test_partitions_and_finalise(run):
    base = ("inject", "--config", "quick.toml", "--n", 300, "--seed", 7, "--out", "S.zarr")
    result = run(*base, "--partition", "0/2")
    assert "256 of 300 rows are committed; when all partitions are: arcforge finalise S.zarr" in result.stdout
    assert_refused(run("finalise", "S.zarr"), "1 of 2 shards are not committed (1)", "--resume")
    assert run("verify", "S.zarr").exit_code == 1
    assert "256 of 300 (writing)" in run("info", "S.zarr").stdout
    assert run(*base, "--partition", "1/2").exit_code == 0
    assert "complete, 300 rows" in run("finalise", "S.zarr").stdout
    assert run("verify", "S.zarr", "--level", "full").exit_code == 0


@pytest.mark.parametrize("text", ["2", "3/2", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_bad_partition_is_refused(run, text):
    result = run("inject", "--config", "quick.toml", "--n", 3, "--out", "S.zarr", f"--partition={text}")
    assert_refused(result, f"partition '{text}'", "0/4", exit_code=2)
    assert not Path("S.zarr").exists()


@pytest.mark.compiled
def test_a_dry_run_says_what_it_takes_and_writes_nothing(run, tmp_path):
    result = run("inject", "--config", "quick.toml", "--n", 100_000, "--out", "S.zarr", "--dry-run")
    assert result.exit_code == 0
    for pattern in (
        r"rows +100,000 in 98 shards",
        r"disk +[\d.]+ [MG]B",
        r"memory +[\d.]+ [MG]B",
        r"time +[\d.]+ (s|min)",
    ):
        assert re.search(pattern, result.stdout), result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["quick.toml"]


def test_a_row_that_no_grid_can_hold_is_named_before_anything_is_written(run, tmp_path):
    """The values are in range each; only the renderer's grid shows that the row cannot be rendered."""
    far = GOOD.replace("0.1,0.1,0.3", "900,0.1,0.3")
    Path("rows.csv").write_text("\n".join([COLUMNS, GOOD, GOOD, far]))
    result = run("inject", "--config", "quick.toml", "--catalog", "rows.csv", "--out", "S.zarr")
    assert_refused(result, "row 2", "drop the row")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick.toml", "rows.csv"]


@pytest.mark.parametrize("out", ["/proc/S.zarr", "quick.toml/S.zarr"])
def test_an_unwritable_path_is_refused(run, out):
    result = run("inject", "--config", "quick.toml", "--n", 20, "--out", out)
    assert_refused(result, out, "choose a folder")


def test_overwrite_and_resume_exclude_each_other(run):
    base = ("inject", "--config", "quick.toml", "--n", 20, "--out", "S.zarr", "--overwrite")
    assert_refused(run(*base, "--resume"), "--overwrite", "--resume", exit_code=2)
    assert_refused(run(*base, "--partition", "0/2"), "--overwrite", "--partition", exit_code=2)


def test_verify_names_damage_with_exit_code_20(run, store):
    shard = store / "arcs/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    result = run("verify", "S.zarr")
    assert result.exit_code == 20
    assert "S.zarr/arcs/c/0/0/0/0 has" in result.stderr
    assert "S.zarr: corrupt" in result.stdout
    assert run("verify", "S.zarr", "--level", "deep").exit_code == 20


def test_deep_finds_pixels_that_are_not_what_the_catalogue_says(run, store, made, small_config):
    """Every hash holds, every pixel is finite; only rendering the rows again tells."""
    from arcforge.engine.plan import read_plan
    from arcforge.engine.verify import verify
    from arcforge.engine.writer import arcs_array, complete, write_shard

    plan, opened = read_plan(store), open_store(store)
    arcs, table = opened.arcs(slice(0, 256)), opened.catalog.slice(0, 256)
    write_shard(store, plan, arcs_array(plan), 0, np.ascontiguousarray(arcs[::-1]), table)
    complete(store, plan)
    assert verify(store, level="full").sound
    faults = verify(store, level="deep").faults
    assert len(faults) == 1
    assert "stamp - control - arc of row" in faults[0] or "rendered again differ" in faults[0]
    write_shard(store, plan, arcs_array(plan), 0, np.zeros_like(arcs), table)  # pairs exactly
    complete(store, plan)
    assert re.search(r"rendered again differ, the first is row 0", verify(store, level="deep").faults[0])


@pytest.mark.compiled
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_keeps_what_is_committed_and_says_how_to_go_on(tmp_path, number):
    (tmp_path / "slow.toml").write_text('stamp_size = 64\nvariant = "uniform8"\nsynthetic_host_count = 3\n')
    command = [Path(sys.executable).with_name("arcforge"), "inject", "--config", "slow.toml", "--n", "100000",
               "--out", "S.zarr"]  # fmt: skip
    # Tests that run in a shell's background inherit an ignored SIGINT; a user's terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        while child.poll() is None and not list(tmp_path.glob("S.zarr/commits/shard-*.json")):
            time.sleep(0.05)
        child.send_signal(number)
        _, stderr = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 130
    assert re.search(r"S\.zarr: stopped, [\d,]+ rows are committed and stay; .*--resume", stderr)
    assert "Traceback" not in stderr
    assert len(open_store(tmp_path / "S.zarr", allow_partial=True)) >= 1024
