"""A recommended remedy is applied as it was measured: the core tells nothing, and only visible arcs stay."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app
from arcforge.engine.errors import ConfigError
from arcforge.engine.inject import inject
from arcforge.engine.remedies import Remedy, distance_pix, read_remedy

N = 40


@pytest.fixture(scope="module")
def store(tmp_path_factory, small_config):
    from dataclasses import replace

    config = replace(small_config, stamp_size=64, control_fraction=0.2)
    return inject(tmp_path_factory.mktemp("remedy") / "S.zarr", config=config, n=N, seed=6)


def report(recommended: str | None = "core_mask_visible_only") -> dict:
    names = ("core_mask", "core_mask_visible_only", "azimuthal_hard_negatives")
    entries = [{"name": n, "radius_pix": 6.0, "recommended": n == recommended} for n in names]
    limits = {"core.outer_pix": {"value": 20.0}, "visibility.min_arc_snr": {"value": 5.0}}
    return {"verdict": "GO-WITH-REMEDY", "remedies": entries, "provenance": {"thresholds": limits}}


def test_the_core_is_the_same_noise_in_both_and_nothing_else_changes(store):
    rows = np.arange(N)
    stamps, controls = store.stamps(rows), store.ctrls(rows)
    masked_stamps, masked_controls = Remedy("core_mask", 6.0).apply(stamps, controls, rows)
    core = distance_pix((64, 64)) < 6.0
    np.testing.assert_array_equal(masked_stamps[:, :, core], masked_controls[:, :, core])
    np.testing.assert_array_equal(masked_stamps[:, :, ~core], stamps[:, :, ~core])
    np.testing.assert_array_equal(masked_controls[:, :, ~core], controls[:, :, ~core])
    outer = controls[:, :, distance_pix((64, 64)) >= 20.0]
    ratio = masked_controls[:, :, core].std(axis=2) / (1.4826 * np.median(np.abs(
        outer - np.median(outer, axis=2, keepdims=True)), axis=2))  # fmt: skip
    assert abs(np.median(ratio) - 1.0) < 0.05
    assert (masked_controls[0, 0, core] != masked_controls[1, 0, core]).all()


def test_the_fill_follows_from_seed_and_row_alone(store):
    def fill(rows, seed=0):
        return Remedy("core_mask", 6.0).apply(store.stamps(rows), store.ctrls(rows), rows, seed=seed)[0]

    together = fill(np.array([3, 9]))
    np.testing.assert_array_equal(together[1], fill(np.array([9]))[0])
    assert (together[1] != fill(np.array([9]), seed=1)[0]).any()


def test_only_visible_arcs_are_kept(store):
    kept = read_remedy(report()).kept(store)
    catalog = store.catalog.to_pylist()
    assert 0 < len(kept) < N
    for row in kept:
        assert catalog[row]["lens_model"] != "CONTROL"
        assert catalog[row]["theta_e_arcsec"] >= 0.5 * min(
            catalog[row][f"psf_fwhm_arcsec_{b}"] for b in "grz"
        )
    np.testing.assert_array_equal(read_remedy(report(), "core_mask").kept(store), np.arange(N))
    assert len(Remedy("core_mask_visible_only", 6.0, min_arc_snr=1e6).kept(store)) == 0


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_an_export_holds_what_is_kept(store, tmp_path, form):
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(report()))
    out = tmp_path / ("out.parquet" if form == "parquet" else "out")
    args = ["export", str(store.path), "--remedy", str(path), "--format", form, "--out", str(out)]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    remedy = read_remedy(path)
    kept = remedy.kept(store)
    assert f"{len(kept)} rows as {form}, core_mask_visible_only (r < 6 pix) of {N}" in result.stdout
    table = pq.read_table(out if form == "parquet" else out / "catalog.parquet")
    assert table.column("row_id").to_pylist() == store.catalog.take(kept).column("row_id").to_pylist()
    if form == "npy":
        stamps, controls = remedy.apply(store.stamps(kept), store.ctrls(kept), kept)
        np.testing.assert_array_equal(np.load(out / "stamps.npy"), stamps)
        np.testing.assert_array_equal(np.load(out / "ctrls.npy"), controls)


def test_a_remedy_is_taken_by_name_where_none_is_recommended(store, tmp_path):
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(report(None)))
    args = ["export", str(store.path), "--remedy", str(path), "--format", "npy", "--out"]
    refused = CliRunner().invoke(app, [*args, str(tmp_path / "a")])
    assert refused.exit_code == 1
    assert "one can be named: core_mask or core_mask_visible_only" in refused.stderr
    named = CliRunner().invoke(app, [*args, str(tmp_path / "b"), "--remedy-name", "core_mask"])
    assert f"{N} rows as npy, core_mask (r < 6 pix)" in named.stdout
    alone = ["export", str(store.path), "--remedy-name", "core_mask", "--out", str(tmp_path / "c")]
    assert CliRunner().invoke(app, alone).exit_code == 2


def test_training_sees_the_remedied_pairs(store):
    pytest.importorskip("torch")
    from arcforge.engine.torch_data import PairStream

    remedy = read_remedy(report())
    batches = list(PairStream(store.path, 8, seed=4, turn=False, remedy=report()))
    rows = np.concatenate([batch["row"].numpy() for batch in batches])
    np.testing.assert_array_equal(np.sort(rows), remedy.kept(store))
    first = batches[0]["row"].numpy()
    stamps, _ = remedy.apply(store.stamps(first), store.ctrls(first), first, seed=4)
    np.testing.assert_array_equal(batches[0]["stamp"].numpy(), stamps)


@pytest.mark.parametrize(
    ("given", "name", "words"),
    [
        (report(None), None, "no remedy is recommended"),
        (report("azimuthal_hard_negatives"), None, "is no mask"),
        (report(), "nosuch", "there is core_mask, core_mask_visible_only"),
        ({"verdict": "GO"}, None, "no audit's report"),
        ("nowhere.json", None, "cannot be read"),
    ],
)
def test_what_cannot_be_applied_is_refused(given, name, words):
    with pytest.raises(ConfigError, match=words):
        read_remedy(given, name)
