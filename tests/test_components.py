"""Sources of several components: their light, what a catalogue may say of them, and what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app
from arcforge.engine import render_batch
from arcforge.engine.catalog import read_catalog, render_columns
from arcforge.engine.components import turned
from arcforge.engine.config import parse_config
from arcforge.engine.errors import CatalogError, ConfigError
from arcforge.engine.inject import inject
from arcforge.engine.render import render_rows
from arcforge.engine.verify import verify

RTOL = 1e-3
OPTIONS: dict[str, Any] = {"bands": "gr", "stamp_size": 32}

MORE = {
    "src2_fraction_g": 0.2, "src2_fraction_r": 0.4, "src2_reff_arcsec": 0.1, "src2_n": 3.0, "src2_e": 0.1,
    "src2_phi_rad": 0.4, "src3_fraction": 0.1, "src3_x_arcsec": 0.2, "src3_y_arcsec": -0.15,
    "src3_reff_arcsec": 0.05,
}  # fmt: skip


def scene(lens_rows: Any, **changes: Any) -> dict[str, np.ndarray]:
    lens = {"theta_e_arcsec": 1.1, "lens_e": 0.2, "lens_phi_rad": 0.5, "shear": 0.04, "shear_phi_rad": 1.0}
    light = {"src_x_arcsec": 0.15, "src_y_arcsec": 0.05, "src_reff_arcsec": 0.3, "src_e": 0.3}
    fluxes = {"src_flux_nmgy_g": 2.0, "src_flux_nmgy_r": 5.0}
    widths = {"psf_fwhm_arcsec_g": 1.2, "psf_fwhm_arcsec_r": 1.0}
    rows: dict[str, np.ndarray] = lens_rows(**lens, **light, **fluxes, **widths, src_phi_rad=2.0, **changes)
    return rows


def test_the_light_is_the_sum_of_its_components(lens_rows: Any) -> None:
    found = render_batch(scene(lens_rows, **MORE), **OPTIONS)
    parts = [
        (0.7, 0.5, {}),
        (0.2, 0.4, {"src_reff_arcsec": 0.1, "src_n": 3.0, "src_e": 0.1, "src_phi_rad": 0.4}),
        (0.1, 0.1, {"src_x_arcsec": 0.35, "src_y_arcsec": -0.1, "src_reff_arcsec": 0.05, "src_e": 0.0}),
    ]
    total = np.zeros_like(found)
    for share_g, share_r, shape in parts:
        rows = scene(lens_rows) | {name: np.array([value]) for name, value in shape.items()}
        rows |= {"src_flux_nmgy_g": np.array([2.0 * share_g]), "src_flux_nmgy_r": np.array([5.0 * share_r])}
        total += render_batch(rows, **OPTIONS)
    np.testing.assert_allclose(found, total, rtol=1e-5, atol=1e-6 * total.max())
    assert np.abs(found - render_batch(scene(lens_rows), **OPTIONS)).max() > 0.05 * found.max()


@pytest.mark.compiled
def test_rtol_bounds_the_error_of_the_sum(lens_rows: Any) -> None:
    rows = scene(lens_rows, **{name: value for name, value in MORE.items() if name.startswith("src2")})
    options = OPTIONS | {"stamp_size": 20}
    exact = render_batch(rows, variant="reference", **options)
    for rtol in (RTOL, 1e-4):
        error = np.abs(render_batch(rows, rtol=rtol, **options) - exact).max((2, 3)) / exact.max((2, 3))
        assert error.max() < rtol


def test_a_turned_scene_is_a_turned_image(lens_rows: Any) -> None:
    columns = render_columns(scene(lens_rows, **MORE), "gr")
    quarter = np.array([0.5 * np.pi])
    angles = {
        name: getattr(columns, name) + quarter for name in ("lens_phi_rad", "shear_phi_rad", "src_phi_rad")
    }
    place = {"src_x_arcsec": -columns.src_y_arcsec, "src_y_arcsec": columns.src_x_arcsec}
    images = [
        render_rows(each, stamp_size=32)
        for each in (columns, replace(columns, more_shape=turned(columns, quarter), **angles, **place))
    ]
    error = np.abs(np.rot90(images[0], -1, axes=(2, 3)) - images[1]).max()
    assert error < 2 * RTOL * images[0].max()


def test_rows_of_every_kind_stand_side_by_side(lens_rows: Any) -> None:
    """A row with components does not change its neighbours, whose columns may hold nothing."""
    rows = scene(lens_rows, n=3, **MORE)
    rows["lens_model"] = np.array(["SIE", "SIE", "CONTROL"])
    rows["src2_fraction_g"] = np.array([0.2, np.nan, np.nan])
    rows["src2_fraction_r"] = np.array([0.4, np.nan, np.nan])
    rows["src3_fraction"] = np.array([0.1, 0.0, np.nan])
    for name in ("src2_reff_arcsec", "src2_n", "src3_reff_arcsec"):
        rows[name] = np.array([rows[name][0], np.nan, np.nan])
    columns = render_columns(rows, "gr")
    magnification, effort = np.zeros(3), np.zeros((3, 3))
    images = render_rows(columns, stamp_size=32, magnification=magnification, effort=effort)
    np.testing.assert_array_equal(images[:1], render_batch(scene(lens_rows, **MORE), **OPTIONS))
    np.testing.assert_array_equal(images[1:2], render_batch(scene(lens_rows), **OPTIONS))
    assert not images[2].any()
    assert (magnification[:2] > 1.0).all()
    assert np.isnan(magnification[2])
    assert np.isnan(effort[2]).all()
    assert effort[0, 0] > effort[1, 0]
    assert effort[0, 2] > effort[1, 2] > 0.0


def test_a_source_image_has_no_components(lens_rows: Any) -> None:
    """Its own structure is the image's; rows beside it keep theirs."""
    y, x = np.mgrid[:21, :21] - 10.0
    bank = {"blob": (np.exp(-0.1 * (x**2 + y**2)), 0.1)}
    rows = scene(lens_rows, n=2, **MORE) | {"source_id": np.array(["blob", ""])}
    images = render_batch(rows, sources=bank, **OPTIONS)
    plain = scene(lens_rows, n=2) | {"source_id": np.array(["blob", ""])}
    np.testing.assert_array_equal(images[0], render_batch(plain, sources=bank, **OPTIONS)[0])
    np.testing.assert_array_equal(images[1], render_batch(scene(lens_rows, **MORE), **OPTIONS)[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"src2_fraction_g": 0.95}, "src2_fraction_g is 1.05.*add up to at most 1"),
        ({"src2_fraction_r": -0.1}, "src2_fraction_r is -0.1"),
        ({"src2_reff_arcsec": 0.0}, "src2_reff_arcsec is 0.0"),
        ({"src3_reff_arcsec": None}, "no column src3_reff_arcsec"),
        ({"src2_fraction_g": None}, "no column src2_fraction_g"),
        ({"src2_fraction_g": np.nan}, "src2_fraction_g is missing"),
        ({"src9_fraction": 0.1}, "src9_fraction but no src4_fraction"),
    ],
)
def test_what_makes_no_sense_is_refused(lens_rows: Any, change: dict[str, Any], words: str) -> None:
    rows = scene(lens_rows, **(MORE | {name: 0.0 if v is None else v for name, v in change.items()}))
    for name, value in change.items():
        if value is None:
            del rows[name]
    with pytest.raises(CatalogError, match=words) as caught:
        render_batch(rows, **OPTIONS)
    assert "\n" not in str(caught.value)


def test_a_run_draws_bulges_and_clumps_and_records_them(tmp_path: Path, small_config: Any) -> None:
    text = """
    [priors]
    src_structure = {dist = "choice", values = ["sersic", "bulge_disk", "clumpy"]}
    clump_count = {dist = "choice", values = [2, 3]}
    bulge_redder_mag = {dist = "constant", value = 0.3}
    clump_bluer_mag = {dist = "constant", value = 0.2}
    [negatives]
    averaged = 0.1
    ring = 0.1
    unlensed = 0.1
    """
    given = parse_config(text)
    assert parse_config(given.to_toml()) == given
    changes = {"priors": dict(given.priors), "negatives": given.negatives}
    config = replace(small_config, variant="auto", control_fraction=0.2, **changes)
    store = inject(tmp_path / "S.zarr", config=config, n=90, seed=2)
    assert verify(store.path, level="deep").sound
    done = CliRunner().invoke(app, ["replay", str(store.path), "--rows", "3,70"])
    assert done.exit_code == 0, done.output
    table = {name: store.catalog.column(name).to_numpy() for name in store.catalog.column_names}
    lens = (table["lens_model"] != "CONTROL") & (table["kind"] != "ring")
    bulge, clumpy = table["src_structure"] == "bulge_disk", table["src_structure"] == "clumpy"
    single = lens & ~bulge & ~clumpy
    assert min(bulge.sum(), clumpy.sum(), single.sum()) > 10
    share = [table[f"src2_fraction_{band}"][bulge] for band in "gr"]
    ratio = [each / (1.0 - each) for each in share]
    np.testing.assert_allclose(-2.5 * np.log10(ratio[0] / ratio[1]), 0.3)
    assert (table["src2_reff_arcsec"][bulge] < 0.41 * table["src_reff_arcsec"][bulge]).all()
    clumps = sum((table[f"src{k}_fraction_r"] > 0.0).astype(int) for k in (2, 3, 4))
    found = [set(clumps[rows]) for rows in (clumpy, bulge, ~bulge & ~clumpy)]
    assert found == [{2, 3}, {1}, {0}]
    assert np.isnan(table["src2_reff_arcsec"][~bulge & ~clumpy]).all()
    far = np.hypot(table["src2_x_arcsec"], table["src2_y_arcsec"])[clumpy]
    assert (far > 0.0).all()
    assert (far < 1.51 * table["src_reff_arcsec"][clumpy]).all()
    assert not (table["src_structure"][~lens] != "").any()
    pq.write_table(store.catalog, tmp_path / "rows.parquet")
    again = read_catalog(tmp_path / "rows.parquet")
    images = render_batch(again, stamp_size=24, pixscale_arcsec=store.pixscale_arcsec)
    controls = store.ctrls(slice(None))
    np.testing.assert_array_equal((controls + images) - controls, store.arcs(slice(None)))


def test_priors_of_structure_are_checked() -> None:
    with pytest.raises(ConfigError, match="bulge_fraction reaches from 0 to 2"):
        parse_config('[priors]\nbulge_fraction = {dist = "uniform", low = 0.0, high = 2.0}')
    with pytest.raises(ConfigError, match="src_structure may be 'spiral', allowed: sersic, bulge_disk"):
        parse_config('[priors]\nsrc_structure = {dist = "constant", value = "spiral"}')
