"""Lens parameters that follow from the host: mass to Einstein radius, light to shape, with scatter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcforge.engine.config import Config, default_config
from arcforge.engine.errors import ConfigError
from arcforge.engine.host_choice import choose_hosts
from arcforge.engine.host_lens import comoving, einstein_radius_arcsec, light_shape
from arcforge.engine.hosts import open_hosts
from arcforge.engine.inject import inject
from arcforge.engine.synthetic import synthetic_hosts


def test_einstein_radii_are_astropys() -> None:
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    z_l, z_s = np.array([0.2, 0.5, 0.7]), np.array([0.9, 2.0, 3.0])
    distance = [cosmology.comoving_distance(z).value for z in (z_l, z_s)]  # flat: D_ls / D_s of these alone
    ratio = 1.0 - distance[0] / distance[1]
    expected = 4 * np.pi * (250 / 299792.458) ** 2 * ratio * 206264.806
    np.testing.assert_allclose(einstein_radius_arcsec(np.full(3, 250.0), z_l, z_s), expected, rtol=1e-4)
    assert np.isnan(einstein_radius_arcsec(np.array([250.0]), np.array([1.0]), np.array([0.5])))[0]
    np.testing.assert_allclose(comoving(np.array([1.0])), 0.7715, rtol=1e-3)


@pytest.mark.parametrize(("e", "phi"), [(0.1, 0.3), (0.25, 1.2), (0.2, 2.8)])
def test_the_shape_of_a_galaxy_is_found(e: float, phi: float) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:61, :61] - 30.3
    q = (1 - e) / (1 + e)
    along, across = np.cos(phi) * x + np.sin(phi) * y, np.cos(phi) * y - np.sin(phi) * x
    image = np.exp(-0.5 * (along**2 + (across / q) ** 2) / 3.5**2) + rng.normal(0, 0.003, x.shape)
    found_e, found_phi = light_shape(image[None].astype(np.float32), 30.3, 30.3)
    assert found_e == pytest.approx(e, abs=0.02)
    assert np.cos(2 * (found_phi - phi)) > 0.99


def test_lenses_of_real_hosts_follow_them(tmp_path: Path, survey_data: Path) -> None:
    config = replace(default_config(), theta_e_from="host", lens_shape_from="host", stamp_size=48)
    store = inject(tmp_path / "S.zarr", config=config, hosts=survey_data / "hosts" / "des46", n=200, seed=2)
    catalog = {name: store.catalog.column(name).to_numpy() for name in store.catalog.column_names}
    hosts = {name: store.hosts.column(name).to_numpy() for name in store.hosts.column_names}
    index = catalog["host_index"]
    sigma = hosts["sigma_v_km_s"][index]
    assert 100 < sigma.min() < sigma.max() < 450
    theta = einstein_radius_arcsec(sigma, catalog["lens_z"], catalog["src_z"])
    np.testing.assert_allclose(catalog["theta_e_arcsec"], theta)
    off = catalog["lens_e"] - hosts["light_e"][index]
    inside = (catalog["lens_e"] > 0) & (catalog["lens_e"] < 0.45)
    assert off[inside].std() == pytest.approx(0.05, rel=0.25)
    turn = (catalog["lens_phi_rad"] - hosts["light_phi_rad"][index] + np.pi / 2) % np.pi - np.pi / 2
    assert turn.std() == pytest.approx(0.2, rel=0.2)


def test_hosts_without_a_mass_are_named(tmp_path: Path, small_config: Config, survey_data: Path) -> None:
    with pytest.raises(ConfigError, match="has no velocity dispersion"):
        inject(tmp_path / "S.zarr", config=replace(small_config, theta_e_from="host"), n=5, seed=1)
    shaped: Any = inject(
        tmp_path / "T.zarr", config=replace(small_config, lens_shape_from="host"), n=5, seed=1
    )
    assert len(shaped) == 5
    hosts = open_hosts(survey_data / "lenses" / "ls_dr10_tierB")
    assert np.isfinite(hosts.table.light_e).all()


def test_hosts_too_faint_bright_or_light_are_left_out_and_counted(tmp_path: Path, survey_data: Path) -> None:
    config = replace(default_config(), theta_e_from="host", stamp_size=48)
    folder = survey_data / "hosts" / "des46"
    every = open_hosts(folder, stamp_size=48)
    r, sigma = every.table.mag[:, 1], every.table.sigma_v_km_s
    limits = {"host_mag_brightest": 18.8, "host_mag_faintest": 20.2, "host_sigma_v_min_km_s": 250.0}
    store = inject(tmp_path / "S.zarr", config=replace(config, **limits), hosts=folder, n=40, seed=2)
    wanted = (r >= 18.8) & (r <= 20.2) & (sigma >= 250.0)
    assert 3 < wanted.sum() < 40
    assert store.hosts.column("host_id").to_pylist() == every.table.host_id[wanted].tolist()
    assert store.hosts.column("sigma_v_km_s").to_numpy().min() >= 250.0
    chosen = choose_hosts(every, replace(config, **limits))
    assert chosen.refused_by_reason == {
        "too faint": (r > 20.2).sum(),
        "too bright": (r < 18.8).sum(),
        "low velocity dispersion": ((r >= 18.8) & (r <= 20.2) & (sigma < 250.0)).sum(),
    }
    assert choose_hosts(every, config) is every
    with pytest.raises(ConfigError, match=r"none of 46 hosts is left by .* first has r = .*host_mag_fai"):
        choose_hosts(every, replace(config, host_mag_faintest=12.0))


def test_hosts_of_unknown_mass_are_left_out_where_one_is_asked_for(small_config: Config) -> None:
    """Synthetic galaxies state no velocity dispersion."""
    hosts = synthetic_hosts(5, 0, bands=small_config.bands, stamp_size=24)
    with pytest.raises(ConfigError, match="first has no velocity dispersion, allowed: from 200 km/s on"):
        choose_hosts(hosts, replace(small_config, host_sigma_v_min_km_s=200.0))
