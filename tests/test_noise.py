"""Photon noise of the added light: its law, what it leaves alone, its gain, and how it is made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from arcforge.engine.config import parse_config
from arcforge.engine.errors import ConfigError
from arcforge.engine.inject import inject
from arcforge.engine.noise import side_weight
from arcforge.engine.verify import verify
from arcforge.kernels.noise import add_gaussian, add_poisson

SEED, PURPOSE = np.uint64(5), np.uint64(77)
N = 40_000
ROWS = 30 if numba.config.DISABLE_JIT else 300  # of a store
# a sample variance of N numbers scatters by sqrt(2 / N) (more where counts are few): 4 sigma of it
TOLERANCE = 4 * np.sqrt(3 / N)


def drawn(kind: str, mean_e: float, gain: float, rho: float = 0.0) -> NDArray[np.float64]:
    """N pixels of one brightness, as rows of 200 x 1 x 200 pixels, with noise."""
    arcs = np.full((200, 1, 200), mean_e / gain, dtype=np.float32)
    gains, rows = np.full((200, 1), gain), np.arange(200, dtype=np.uint64)
    if kind == "poisson":
        add_poisson(arcs, gains, rows, SEED, PURPOSE)
    else:
        add_gaussian(arcs, gains, rows, SEED, PURPOSE, side_weight(rho), 20)
    return arcs[:, 0].astype(np.float64)


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
@pytest.mark.parametrize("mean_e", [0.05, 2.0, 9.9, 10.1, 300.0, 20_000.0])
def test_mean_and_variance_are_those_of_counted_electrons(kind: str, mean_e: float) -> None:
    gain = 3e4
    electrons = drawn(kind, mean_e, gain) * gain
    few = 1.0 + (1.0 / np.sqrt(mean_e) if kind == "poisson" else 0.0)  # kurtosis of few counts
    assert electrons.mean() == pytest.approx(mean_e, abs=4 * np.sqrt(mean_e / N))
    assert electrons.var() == pytest.approx(mean_e, rel=TOLERANCE * few)
    if kind == "poisson":
        np.testing.assert_allclose(electrons, np.round(electrons), atol=2e-3 * max(1.0, mean_e / 1e4))


def test_small_and_large_counts_follow_the_poisson_law() -> None:
    from scipy.stats import poisson

    for mean in (3.0, 40.0):
        counts = np.round(drawn("poisson", mean, 1.0)).astype(int)
        values = np.arange(poisson.ppf(0.001, mean), poisson.ppf(0.999, mean) + 1)
        expected = poisson.pmf(values, mean) * N
        found = np.array([(counts == value).sum() for value in values])
        chi2 = ((found - expected) ** 2 / expected).sum()
        assert chi2 < len(values) + 4 * np.sqrt(2 * len(values)) + 6


def test_correlated_noise_has_unit_variance_and_the_lag_asked_for() -> None:
    rho = 0.25
    noise = drawn("gaussian", 1e4, 1.0, rho).reshape(200, 10, 20) - 1e4
    noise /= 100.0
    assert noise.var() == pytest.approx(1.0, rel=2 * TOLERANCE)
    for lag in ((noise[:, :, 1:], noise[:, :, :-1]), (noise[:, 1:], noise[:, :-1])):
        assert (lag[0] * lag[1]).mean() == pytest.approx(rho, abs=0.02)
    assert (drawn("gaussian", 1e4, 1.0).reshape(200, 200)[:, 1:].std()) == pytest.approx(100, rel=TOLERANCE)


def test_pixels_without_light_and_rows_apart_are_untouched() -> None:
    rng = np.random.default_rng(1)
    light = np.where(rng.random((6, 2, 64)) < 0.5, 0.0, 0.1).astype(np.float32)
    light[0, 0, :3] = -1e-6
    gain, rows = np.full((6, 2), 3e4), np.arange(6, dtype=np.uint64)
    for add in (add_poisson, lambda *a: add_gaussian(*a, 0.1, 8)):
        whole = light.copy()
        add(whole, gain, rows, SEED, PURPOSE)
        assert (whole[light <= 0] == light[light <= 0]).all()
        assert (whole[light > 0] != light[light > 0]).mean() > 0.95
        alone = light[3:5].copy()
        add(alone, gain[3:5], rows[3:5], SEED, PURPOSE)
        np.testing.assert_array_equal(alone, whole[3:5])


@pytest.fixture(scope="module", params=["gaussian", "poisson"])
def noisy(request, tmp_path_factory, small_config):
    config = replace(small_config, noise=request.param, control_fraction=0.2)
    path: Path = tmp_path_factory.mktemp("noise") / f"{request.param}.zarr"
    return inject(path, config=config, n=ROWS, seed=7)


def test_the_noise_of_a_store_is_its_models_and_can_be_made_again(noisy) -> None:
    everything = slice(None)
    arcs, noise = noisy.arcs(everything), noisy.noise(everything)
    stamps, controls = noisy.stamps(everything), noisy.ctrls(everything)
    assert not ((stamps - controls) - arcs).view(np.uint32).any()  # pairing stays exact
    light = arcs - noise
    catalog = noisy.catalog
    for b, band in enumerate(noisy.bands):
        gain = catalog.column(f"gain_e_per_nmgy_{band}").to_numpy()[:, None, None]
        lit = light[:, b] * gain > 5.0
        chi2 = (noise[:, b] ** 2 * gain / np.where(lit, light[:, b], 1.0))[lit]
        assert chi2.mean() == pytest.approx(1.0, abs=4 * np.sqrt(3 / chi2.size))
        clean = light[:, b].sum(axis=(1, 2), dtype=np.float64)
        np.testing.assert_allclose(catalog.column(f"arc_flux_nmgy_{band}").to_numpy(), clean, rtol=1e-5)
    dark = light == 0
    assert dark.any()
    np.testing.assert_array_equal(stamps[dark], controls[dark])
    np.testing.assert_array_equal(noise[dark], 0)
    found = verify(noisy.path, level="deep")
    assert found.sound
    assert found.notes == []


@pytest.mark.compiled
def test_threads_and_partitions_give_the_same_noise(noisy, tmp_path, small_config, tree_hashes) -> None:
    config = replace(small_config, noise=noisy.catalog.column("noise")[0].as_py(), control_fraction=0.2)
    other = inject(tmp_path / "o.zarr", config=config, n=ROWS, seed=7, threads=1)
    assert tree_hashes(other.path) == tree_hashes(noisy.path)


@pytest.mark.compiled
def test_noise_changes_neither_draws_nor_light(noisy, tmp_path, small_config) -> None:
    quiet = inject(tmp_path / "q.zarr", config=replace(small_config, control_fraction=0.2), n=ROWS, seed=7)
    rows = np.arange(0, ROWS, 20)
    np.testing.assert_array_equal(noisy.ctrls(rows), quiet.ctrls(rows))
    # a rounding of the sum is all that differs
    np.testing.assert_allclose(noisy.arcs(rows) - noisy.noise(rows), quiet.arcs(rows), atol=1e-8)
    np.testing.assert_array_equal(quiet.noise(rows), 0)


def test_gains_follow_from_sky_and_inverse_variance_or_are_given(tmp_path, small_config) -> None:
    config = replace(small_config, noise="poisson")
    store = inject(tmp_path / "a.zarr", config=config, n=20, seed=1)
    sigma = store.hosts.column("sky_sigma_nmgy_r").to_numpy()[store.catalog.column("host_index").to_numpy()]
    sky = 10 ** (0.4 * (22.5 - 20.91)) * store.pixscale_arcsec**2
    np.testing.assert_allclose(store.catalog.column("gain_e_per_nmgy_r").to_numpy(), sky / sigma**2)
    given = replace(config, gain_e_per_nmgy=MappingProxyType({"r": 3e4}))
    store = inject(tmp_path / "b.zarr", config=given, n=20, seed=1)
    assert set(store.catalog.column("gain_e_per_nmgy_r").to_pylist()) == {3e4}


def test_a_gain_in_other_units_is_refused_with_the_right_order(tmp_path, small_config) -> None:
    wrong = replace(small_config, noise="poisson", gain_e_per_nmgy=MappingProxyType({"r": 150.0}))
    with pytest.raises(ConfigError, match=r"ask for a sky of 2[5-9]\.\d mag.*call for about [2-9.]+e\+04"):
        inject(tmp_path / "a.zarr", config=wrong, n=4, seed=1)
    assert not (tmp_path / "a.zarr").exists()
    inject(tmp_path / "a.zarr", config=replace(wrong, check_gain=False), n=4, seed=1)


def test_tables_by_band_are_read_and_checked() -> None:
    config = parse_config("noise = 'gaussian'\n[gain_e_per_nmgy]\nr = 30000\n[sky_mag_arcsec2]\ng = 21.5\n")
    assert config.gain_e_per_nmgy == {"r": 30000.0}
    assert config.sky_mag_arcsec2["g"] == 21.5
    assert parse_config(config.to_toml()) == config
    with pytest.raises(ConfigError, match="line 2: gain_e_per_nmgy r = -1"):
        parse_config("[gain_e_per_nmgy]\nr = -1")
    with pytest.raises(ConfigError, match='line 2: "y" is unknown here'):
        parse_config("[gain_e_per_nmgy]\ny = 1")


def audited(store, ids=("N1", "R1", "D1")):
    from arcforge.engine.auditing.run import CHECKS, run_audit

    wanted = [check for check in CHECKS if check.id in ids]
    report = run_audit(store, n_pairs=120, checks=wanted).report
    return {check["id"]: check for check in report["checks"]}


@pytest.mark.compiled
def test_the_audit_measures_recorded_noise_and_catches_a_wrong_gain(tmp_path) -> None:
    """N1 passes on what was built; with another gain on record, N1 fails and says by how much."""
    from arcforge.engine import open_store

    config = replace(parse_config("synthetic_host_count = 60\nstamp_size = 48"), noise="poisson")
    store = inject(tmp_path / "S.zarr", config=config, n=120, seed=2)
    checks = audited(store)
    assert {check["status"] for check in checks.values()} == {"PASS"}, checks
    assert checks["N1"]["effect"] == pytest.approx(1.0, abs=0.02)
    planted = open_store(store.path)
    catalog = planted.catalog
    for band in "grz":
        name = f"gain_e_per_nmgy_{band}"
        wrong = 1.3 * catalog.column(name).to_numpy()
        catalog = catalog.set_column(catalog.column_names.index(name), name, [wrong])
    planted.catalog = catalog
    checks = audited(planted, ("N1",))
    assert checks["N1"]["status"] == "FAIL"
    assert checks["N1"]["effect"] == pytest.approx(1.3, abs=0.03)


@pytest.mark.compiled
def test_the_audit_catches_a_gain_in_other_units(tmp_path) -> None:
    """The noise is what the gain says, and the gain is a hundred times too small for the hosts' own noise."""
    config = parse_config(
        "synthetic_host_count = 40\nstamp_size = 48\nnoise = 'gaussian'\ncheck_gain = false\n"
        "[gain_e_per_nmgy]\ng = 300\nr = 300\nz = 300"
    )
    (check,) = audited(inject(tmp_path / "S.zarr", config=config, n=60, seed=2), ("N1",)).values()
    assert check["status"] == "FAIL"
    assert "the gain is in other units" in check["message"]
