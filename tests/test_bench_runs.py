"""``arcforge bench pipeline`` and ``bench store``: nothing is shown before it was checked; the arithmetic."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from arcforge.bench import image_sources, pipeline, store
from arcforge.bench.runner import Timing
from arcforge.cli import app as app_module
from arcforge.engine.hosts import open_hosts
from arcforge.engine.render import render_rows
from arcforge.engine.shards import DEFAULT_COMPRESSION, Compression

pytestmark = pytest.mark.compiled  # times kernels

N = 256


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "HOSTS", 6)
        patch.setattr(pipeline, "NUMPY_ROWS", 1)
        memory = {"rows": [1, 2], "peak_bytes": [10, 20], "million_rows_bytes": 30}
        patch.setattr(pipeline, "_memory", lambda *arguments: memory)
        return pipeline.bench_pipeline(N, threads=1, folder=tmp_path_factory.mktemp("bench"), repeats=1)


def run(*arguments: str):
    return CliRunner().invoke(app_module.app, ["bench", *arguments])


def test_a_whole_run_is_verified_and_timed_beside_its_parts(report):
    assert report["validated"]
    assert report["faults"] == []
    assert report["parts"].keys() == {"inject", "render", "write", "numpy"}
    assert 0.0 < report["of_render_only"]["median"] <= 1.2
    assert report["times_numpy"]["median"] > 1.0
    assert report["scaling"] == []  # one thread
    json.dumps(report, allow_nan=False)


def test_rates_and_ratios_are_those_of_the_timings():
    def timing(*seconds: float) -> Timing:
        return Timing(np.array(seconds), np.array(seconds) / 2)

    timings = {"inject": timing(4, 4, 8), "render": timing(3, 2, 4), "numpy": timing(1, 2, 2)}
    found = pipeline.summarise(timings, 100)
    assert found["parts"]["inject"]["stamps_per_s"] == 50.0
    assert found["of_render_only"]["median"] == 0.5
    times = np.array([1 / 4, 2 / 4, 2 / 8]) * 100 / pipeline.NUMPY_ROWS
    assert found["times_numpy"]["median"] == pytest.approx(np.median(times))
    assert found["times_numpy_cpu"]["median"] == pytest.approx(np.median(times))


def test_memory_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "HOSTS", 2)
    hosts = pipeline.write_hosts(tmp_path / "hosts")
    ballast = np.ones(600_000_000, dtype=np.uint8)  # what this process holds must not show
    found = pipeline._memory(tmp_path, hosts, (16, 32), 1)
    assert ballast.sum() == 600_000_000
    assert 50e6 < min(found["peak_bytes"]) <= max(found["peak_bytes"]) < 600e6
    assert found["million_rows_bytes"] >= found["peak_bytes"][1]


def test_hosts_of_the_benchmark_are_read_from_files(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "HOSTS", 2)
    hosts = open_hosts(pipeline.write_hosts(tmp_path / "hosts"), bands="grz", stamp_size=64)
    assert len(hosts) == 2
    assert hosts.pixscale_arcsec == 0.262
    assert np.isfinite(hosts.table.psf_fwhm_arcsec).all()


def test_the_command_shows_ratios_and_memory(report, monkeypatch, tmp_path):
    monkeypatch.setattr("arcforge.bench.pipeline.bench_pipeline", lambda n, **options: report)
    shown = run("pipeline", "--json", str(tmp_path / "p.json"))
    assert shown.exit_code == 0, shown.output
    assert "of the rate of rendering alone" in shown.output
    assert json.loads((tmp_path / "p.json").read_text())["schema"] == pipeline.SCHEMA


def test_an_unsound_store_is_not_shown(report, monkeypatch):
    wrong = report | {"validated": False, "faults": ["shard 3 is wrong"]}
    monkeypatch.setattr("arcforge.bench.pipeline.bench_pipeline", lambda n, **options: wrong)
    shown = run("pipeline")
    assert shown.exit_code == 1
    assert "shard 3 is wrong" in shown.output
    assert "stamps/s" not in shown.output


@pytest.fixture(scope="module")
def store_report():
    compressions = (None, DEFAULT_COMPRESSION, Compression("zstd", 3, "bitshuffle"))
    return store.bench_store(64, compressions=compressions, chunk_rows=(4, 16), repeats=1)


def test_every_codec_gives_back_what_was_written(store_report):
    entries = store_report["entries"]
    assert [entry["validated"] for entry in entries] == [True] * 4
    assert [entry["is_default"] for entry in entries] == [False, True, False, False]
    assert [entry["chunk_rows"] for entry in entries] == [16, 16, 16, 4]
    raw, own, zstd = (entry["arc_bytes"] for entry in entries[:3])
    assert raw > 1.0 > own > zstd


def test_a_codec_that_loses_bits_is_not_timed(monkeypatch):
    monkeypatch.setattr(store.ImageReader, "read", lambda self, first, stop: np.zeros((stop - first, 1)))
    entry = store.bench_store(64, compressions=(None,), chunk_rows=(), repeats=1)["entries"][0]
    assert not entry["validated"]
    assert "read" not in entry


def test_the_command_lists_the_stores_own_codec(store_report, monkeypatch):
    monkeypatch.setattr("arcforge.bench.store.bench_store", lambda n, **options: store_report)
    shown = run("store")
    assert shown.exit_code == 0, shown.output
    assert "lz4 5 (the store's)" in shown.output
    assert run("store", "--n", "100").exit_code == 2


def test_what_images_cost_is_told_of_rows_that_show_the_same(capsys):
    """The PSF images are the Moffats, and every kind has the sources' light."""
    bank = image_sources.made_bank(np.random.default_rng(0))
    kinds, psfs = image_sources.kinds_of_rows(20, bank)
    images = {kind: render_rows(rows, psf_images=psfs, sources=bank) for kind, rows in kinds.items()}
    moffat, by_image = images["Sersic, Moffat"], images["Sersic, image"]
    peak = moffat.max((2, 3), keepdims=True)
    assert (
        np.abs(by_image - moffat) / peak
    ).max() < 0.01  # the images end, and hold no waves below two pixels
    assert (images["image, image"].max((1, 2, 3)) > 0.0).all()
    assert image_sources.main(["--rows", "4", "--repeats", "1"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].startswith("Sersic, Moffat")
    assert "1.00" in table[1]
    assert len(table) == 5
