"""What ``arcforge bench`` reports: wrong pixels are not timed, absent peers are listed, the pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from arcforge.bench import kernels, peers, plot
from arcforge.bench.cases import CATALOGUES
from arcforge.cli import app as app_module
from arcforge.engine.render import render_rows

pytestmark = pytest.mark.compiled  # times kernels


@pytest.fixture(scope="module", autouse=True)
def few_rows():
    """Let the smallest catalogue hold two rows, and the largest, which threads share, four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOGUES, "S", 2)
        patch.setitem(CATALOGUES, "L", 4)
        patch.setattr(kernels, "fma_speedup", lambda threads: 1.5)
        patch.setattr(kernels, "_SMOOTH_ROWS", 1)
        patch.setattr(peers, "_SMOOTH_ROWS", 1)
        yield


def render_quickly(columns: Any, *, variant: str, **options: Any) -> Any:
    """Render, with error control at its tightest for the reference, which takes a second a row."""
    if variant == "reference":
        variant, options["rtol"] = "auto", 1e-5
    return render_rows(columns, variant=variant, **options)


@pytest.fixture(scope="module")
def kernel_report(few_rows) -> dict[str, Any]:
    return kernels.bench_kernels([32], repeats=2, compile_time=False)


@pytest.fixture(scope="module")
def peer_report(few_rows) -> dict[str, Any]:
    def absent(peer: peers.Peer) -> str | None:
        return None if peer.library else ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "installed", absent)
        patch.setattr(peers, "render_rows", render_quickly)
        return peers.bench_peers(repeats=2)


def test_every_variant_is_validated_and_timed(kernel_report):
    found = {entry["variant"]: entry for entry in kernel_report["variants"]}
    assert list(found) == [v.name for v in kernels.TIMED_VARIANTS] + ["reference"]
    for name, entry in found.items():
        assert entry["validated"], name
        assert entry["cpu_us"]["median"] > 0.0
        if name != "reference":
            assert entry["ns_per_ray"] > 0.0
            assert 0.0 < entry["fma_peak_share"] < 1.0
            assert entry["error_over_peak"]["median"] <= entry["error_over_peak"]["max"]
    assert found["auto"]["error_over_peak"]["max"] <= kernels.RTOL
    # 16 times the rays of one sample a pixel on the stamp, 4 times beside it
    few, many = (found[name]["rays"]["max"] for name in ("uniform1", "uniform4"))
    stamp = 32**2
    assert many == 16 * stamp + 4 * (few - stamp)
    assert {entry["threads"] for entry in kernel_report["threads"]} >= {1}
    assert kernel_report["threads"][0]["speedup"] == 1.0


def test_reports_survive_json(kernel_report, peer_report):
    for report in (kernel_report, peer_report):
        assert json.loads(json.dumps(report)) == report
    assert kernel_report["schema"] == "arcforge.bench.kernels/1"
    assert peer_report["schema"] == "arcforge.bench.peers/1"


def test_a_variant_with_wrong_pixels_is_not_timed(monkeypatch):
    def shifted(columns: Any, *, variant: str, **options: Any) -> Any:
        image = render_quickly(columns, variant=variant, **options)
        if variant == "uniform4":
            image = np.roll(image, 1, axis=-1)
        if options.get("out") is not None:
            assert variant != "uniform4", "timed in spite of wrong pixels"
        return image

    monkeypatch.setattr(kernels, "render_rows", shifted)
    report = kernels.bench_kernels([32], repeats=1, compile_time=False)
    found = {entry["variant"]: entry for entry in report["variants"]}
    assert not found["uniform4"]["validated"]
    assert "cpu_us" not in found["uniform4"]
    assert found["auto"]["validated"]


def test_absent_peers_are_listed_and_never_timed(peer_report):
    found = {entry["name"]: entry for entry in peer_report["entries"]}
    assert set(found) == {*peers.OURS, *(peer.name for peer in peers.PEERS)}
    assert found["JAX 4x4"] | {"what": ""} == {
        "name": "JAX 4x4", "installed": False, "ours": False, "traces": 1, "what": "", "library": "jax",
        "version": None, "pixel_response": "box",
    }  # fmt: skip
    assert found["NumPy 4x4"]["cpu_us"]["median"] > 0.0
    assert {entry["peer"] for entry in peer_report["ratios"]} == {"NumPy 1", "NumPy 4x4"}
    met = {(target["ours"], target["peer"]): target["met"] for target in peer_report["targets"]}
    assert met["uniform4", "JAX 4x4"] is None
    assert met["auto", "NumPy 4x4"] in (True, False)


def test_peers_and_ours_sample_alike(peer_report):
    """The same midpoints give the same error: nobody is let off some of the work."""
    errors = {entry["name"]: entry.get("error_over_peak") for entry in peer_report["entries"]}
    assert errors["uniform4"]["max"] == pytest.approx(errors["NumPy 4x4"]["max"], rel=0.1)
    assert errors["uniform1"]["max"] == pytest.approx(errors["NumPy 1"]["max"], rel=0.1)


def test_a_peer_with_wrong_pixels_is_not_timed(monkeypatch):
    real = peers.prepare

    def wrong(peer: peers.Peer, columns: Any, *rest: Any) -> Any:
        call = real(peer, columns, *rest)
        return lambda: 1.1 * call() if peer.name == "NumPy 4x4" else call()

    monkeypatch.setattr(peers, "prepare", wrong)
    monkeypatch.setattr(peers, "render_rows", render_quickly)
    monkeypatch.setattr(peers, "PEERS", [peer for peer in peers.PEERS if peer.library is None])
    report = peers.bench_peers(repeats=1)
    found = {entry["name"]: entry for entry in report["entries"]}
    assert found["NumPy 4x4"]["validated"] is False
    assert "cpu_us" not in found["NumPy 4x4"]
    assert found["NumPy 1"]["validated"] is True
    assert [t["met"] for t in report["targets"] if t["peer"] == "NumPy 4x4"] == [None]


def test_one_core_is_given_back():
    import os

    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no affinity on this system")
    before, flags = os.sched_getaffinity(0), os.environ.get("XLA_FLAGS")
    with peers.one_core() as pinned:
        assert pinned
        assert len(os.sched_getaffinity(0)) == 1
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.sched_getaffinity(0) == before
    assert os.environ.get("XLA_FLAGS") == flags


def test_pareto_front_holds_what_nothing_beats_in_both():
    def point(label: str, error: float, time_us: float) -> plot.Point:
        return plot.Point(label, error, time_us, time_us, time_us, "")

    points = [
        point("slow, close", 1e-4, 9.0),
        point("beaten", 1e-2, 5.0),
        point("fast, far", 1e-1, 1.0),
        point("middle", 1e-3, 2.0),
        point("as fast as middle", 2e-3, 2.0),
    ]
    assert [p.label for p in plot.pareto_front(points)] == ["fast, far", "middle", "slow, close"]


def test_picture_shows_what_was_timed(peer_report, kernel_report, tmp_path):
    from PIL import Image

    assert {point.label for point in plot.points_of(peer_report)} == {*peers.OURS, "NumPy 1", "NumPy 4x4"}
    assert "reference" not in {point.label for point in plot.points_of(kernel_report, 32)}
    for report, size in ((peer_report, 64), (kernel_report, 32)):
        path = plot.draw(report, tmp_path / f"{size}.png", size_pix=size)
        with Image.open(path) as image:
            assert min(image.size) > 600
    with pytest.raises(ValueError, match="nothing that was timed on 48-pixel"):
        plot.draw(kernel_report, tmp_path / "none.png", size_pix=48)


def test_first_stamp_of_a_new_process_is_measured():
    command = [sys.executable, "-c", kernels._FIRST_CALL, "uniform1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported_wall, imported_cpu, wall, cpu = json.loads(done.stdout)
    assert 0.0 < imported_wall < wall
    assert 0.0 < imported_cpu < cpu


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app_module.app, ["bench", *arguments])


def test_kernels_command_passes_options_on_and_prints_tables(kernel_report, monkeypatch, tmp_path):
    asked: dict[str, Any] = {}

    def fake(sizes: Any, **options: Any) -> dict[str, Any]:
        asked.update(sizes=list(sizes), **options)
        return kernel_report

    monkeypatch.setattr(kernels, "bench_kernels", fake)
    json_file, png_file = tmp_path / "k.json", tmp_path / "k.png"
    result = run(
        "kernels", "--size", "32", "--catalogue", "M", "--source", "exponential", "--repeats", "3",
        "--no-start", "--json", str(json_file), "--png", str(png_file),
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    asked.pop("progress")
    assert asked == {
        "sizes": [32], "catalogue": "M", "source": "exponential", "repeats": 3,
        "compile_time": False,
    }  # fmt: skip
    for variant in kernels.TIMED_VARIANTS:
        assert f"\n{variant.name} " in result.stdout
    assert json.loads(json_file.read_text()) == kernel_report
    assert png_file.read_bytes()[:4] == b"\x89PNG"


def test_kernels_command_fails_where_a_variant_is_wrong(kernel_report, monkeypatch):
    wrong = [with_uniform2_wrong(entry) for entry in kernel_report["variants"]]
    monkeypatch.setattr(kernels, "bench_kernels", lambda *a, **k: kernel_report | {"variants": wrong})
    result = run("kernels", "--size", "32")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "arcforge: outside their tolerance, so not timed: uniform2 at 32 pix"
    )


def with_uniform2_wrong(entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"validated": False} if entry["variant"] == "uniform2" else entry


def test_peers_command_lists_absent_programs(peer_report, monkeypatch):
    monkeypatch.setattr(peers, "bench_peers", lambda **options: peer_report)
    result = run("peers")
    assert result.exit_code == 0, result.stderr
    absent = [line.split()[-6] for line in result.stdout.splitlines() if line.startswith("caustics 4x4")]
    assert absent == ["absent", "absent"]
    assert "\nauto      NumPy 4x4" in result.stdout


def test_bench_names_its_commands_and_refuses_others():
    assert run().exit_code == 2
    assert "Missing command" in run().stderr
    assert run("nosuch").exit_code == 2
    listed = run("--help").stdout
    assert "kernels" in listed
    assert "peers" in listed
    assert "\n  arcforge bench peers" in run("peers", "--help").stdout
    assert "--debug" in run("kernels", "--help").stdout


def test_a_fixed_list_of_targets_names_known_renderers():
    names = {peer.name for peer in peers.PEERS}
    assert {peer for _, peer, _ in peers.TARGETS} <= names
    assert len(names) == len(peers.PEERS)
