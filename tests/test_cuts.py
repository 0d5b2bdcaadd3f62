"""Magnifications, and cuts on what is drawn: obeyed, counted, independent of shards and order."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from arcforge.engine.catalog import render_columns
from arcforge.engine.config import Config, parse_config
from arcforge.engine.cuts import visibility
from arcforge.engine.errors import ConfigError
from arcforge.engine.inject import inject
from arcforge.engine.render import render_rows
from arcforge.engine.verify import verify

CUTS = {"arc_snr_min": 40.0, "magnification_min": 6.0, "magnification_max": 25.0, "theta_e_fwhm_min": 0.7}


@pytest.fixture(scope="module")
def cut_config() -> Config:
    text = "synthetic_host_count = 12\nstamp_size = 40\nbands = 'gr'\ncontrol_fraction = 0.1\n[cuts]\n"
    return parse_config(text + "\n".join(f"{name} = {value}" for name, value in CUTS.items()))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: Any, cut_config: Config) -> Any:
    return inject(tmp_path_factory.mktemp("cuts") / "S.zarr", config=cut_config, n=300, seed=4)


def column(store: Any, name: str) -> Any:
    return store.catalog.column(name).to_numpy()


def test_every_row_passes_every_cut(cut: Any) -> None:
    lens = column(cut, "theta_e_arcsec") > 0
    assert 0.8 < lens.mean() < 0.97
    snr = column(cut, "arc_snr_r")[lens]
    assert snr.min() >= 40.0 * 0.99  # the cut goes by the sky's typical noise, as measured
    magnification = column(cut, "magnification")[lens]
    assert magnification.min() >= 6.0
    assert magnification.max() <= 25.0
    assert (column(cut, "theta_e_arcsec") / column(cut, "psf_fwhm_arcsec_r"))[lens].min() >= 0.7
    assert np.isnan(column(cut, "magnification")[~lens]).all()
    assert verify(cut.path, level="deep").sound


def test_rejections_are_counted_by_cut(cut: Any, cut_config: Config, tmp_path: Any) -> None:
    tries = column(cut, "draw_tries")
    rejected = {name: column(cut, f"rejected_{name}") for name in CUTS}
    np.testing.assert_array_equal(tries, 1 + sum(rejected.values()))
    assert (tries > 1).any()
    free = inject(tmp_path / "F.zarr", config=replace(cut_config, cuts=MappingProxyType({})), n=300, seed=4)
    first = tries == 1  # what passed at once is what is drawn without cuts; hosts and splits never change
    for name in ("theta_e_arcsec", "src_x_arcsec", "src_flux_nmgy_r"):
        np.testing.assert_array_equal(column(cut, name)[first], column(free, name)[first])
        assert (column(cut, name)[~first] != column(free, name)[~first]).all()
    np.testing.assert_array_equal(column(cut, "host_index"), column(free, "host_index"))
    lens = column(free, "theta_e_arcsec") > 0
    bad = lens & (column(free, "theta_e_arcsec") / column(free, "psf_fwhm_arcsec_r") < 0.7)
    assert (tries[bad] > 1).all()


def test_partitions_and_threads_give_the_same_rows(
    cut: Any, cut_config: Config, tmp_path: Any, tree_hashes: Any
) -> None:
    from arcforge.engine.writer import finalise

    out = tmp_path / "P.zarr"
    for part in (1, 0):
        inject(out, config=cut_config, n=300, seed=4, partition=(part, 2), threads=1)
    finalise(out)
    assert tree_hashes(out) == tree_hashes(cut.path)


def test_cuts_that_nothing_passes_name_the_row_and_the_cut(cut_config: Config, tmp_path: Any) -> None:
    config = replace(cut_config, cuts=MappingProxyType({"theta_e_fwhm_min": 50.0}))
    with pytest.raises(ConfigError, match=r"row 0: none of 200 draws .* \(200 by theta_e_fwhm_min\)"):
        inject(tmp_path / "S.zarr", config=config, n=5, seed=1)
    with pytest.raises(ConfigError, match='line 2: "snr" is unknown here'):
        parse_config("[cuts]\nsnr = 3")
    with pytest.raises(ConfigError, match="line 2: arc_snr_min = -3"):
        parse_config("[cuts]\narc_snr_min = -3")
    assert parse_config(cut_config.to_toml()) == cut_config


@pytest.mark.compiled
def test_magnification_is_lensed_over_unlensed_flux(cut: Any) -> None:
    """Against the sum of a large stamp, and a point-like source's closed form."""
    rows = np.flatnonzero(column(cut, "theta_e_arcsec") > 0)[:20]
    wide = render_rows(render_columns(cut.catalog.take(rows), "gr"), stamp_size=160, pixscale_arcsec=0.262)
    flux = column(cut, "src_flux_nmgy_r")[rows]
    np.testing.assert_allclose(
        column(cut, "magnification")[rows], wide[:, 1].sum((1, 2), dtype=np.float64) / flux, rtol=2e-3
    )
    arcs = cut.arcs(rows)[:, 0].sum((1, 2), dtype=np.float64)
    np.testing.assert_allclose(
        column(cut, "magnification_stamp")[rows], arcs / column(cut, "src_flux_nmgy_g")[rows], rtol=1e-4
    )
    theta_e, beta = 1.5, 0.3
    catalog = {
        "lens_model": ["SIS"], "theta_e_arcsec": [theta_e], "lens_e": [0.0], "lens_phi_rad": [0.0],
        "src_x_arcsec": [beta], "src_y_arcsec": [0.0], "src_reff_arcsec": [0.01], "src_e": [0.0],
        "src_phi_rad": [0.0], "src_flux_nmgy_r": [1.0], "psf_fwhm_arcsec_r": [1.0],
    }  # fmt: skip
    found = np.zeros(1)
    render_rows(render_columns(catalog, "r"), magnification=found)
    assert found[0] == pytest.approx(2 * theta_e / beta, rel=2e-3)


def test_visibility_is_the_arcs_mean_share_in_the_brightness() -> None:
    rng = np.random.default_rng(3)
    arcs = rng.uniform(-0.1, 1.0, (150, 6, 6)).astype(np.float32)
    arcs[7] = -1.0  # no light
    hosts = rng.normal(0.2, 0.3, (4, 6, 6)).astype(np.float32)
    places, invvar = rng.integers(0, 4, 150), rng.uniform(4.0, 100.0, 150)
    found = visibility(arcs, hosts, places, invvar)
    assert np.isnan(found[7])
    for row in (0, 80, 149):
        a, h, s = np.maximum(arcs[row], 0), np.maximum(hosts[places[row]], 0), invvar[row] ** -0.5
        expected = sum(x * x / (x + y + s) for x, y in zip(a.flat, h.flat, strict=True)) / a.sum()
        assert found[row] == pytest.approx(expected, rel=1e-5)
    nothing_else = visibility(arcs[:1], np.zeros((1, 6, 6), np.float32), np.zeros(1, int), np.full(1, np.inf))
    assert nothing_else == pytest.approx(1.0)


def test_rows_that_are_hard_to_see_are_drawn_again(tmp_path: Any, cut_config: Config) -> None:
    config = replace(cut_config, cuts=MappingProxyType({"visibility_min": 0.4}))
    store = inject(tmp_path / "V.zarr", config=config, n=120, seed=4)
    lens = column(store, "theta_e_arcsec") > 0
    seen = column(store, "visibility")
    assert seen[lens].min() > 0.4 - 1e-5
    assert np.isnan(seen[~lens]).all()
    rejected = column(store, "rejected_visibility_min")
    assert rejected.sum() > 0
    np.testing.assert_array_equal(column(store, "draw_tries"), 1 + rejected)
    rows = np.flatnonzero(lens)[:20]
    band = store.bands.index("r")
    host = column(store, "host_index")[rows]
    sigma = store.hosts.column("sky_sigma_nmgy_r").to_numpy()[host]
    again = visibility(store.arcs(rows)[:, band], store.ctrls(rows)[:, band], np.arange(20), sigma**-2.0)
    np.testing.assert_allclose(seen[rows], again, rtol=1e-5)
    assert verify(store.path, level="deep").sound
