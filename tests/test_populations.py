"""Joint tables, source counts: what is drawn is what the table and the slope say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arcforge.engine.config import Config, parse_config
from arcforge.engine.draws import uniform
from arcforge.engine.errors import CatalogError, ConfigError
from arcforge.engine.inject import inject, prepare
from arcforge.engine.populations import Population, read_population
from arcforge.engine.priors import Prior
from arcforge.engine.verify import verify

N = 30_000
# a sample's mean scatters by sigma / sqrt(N): five of them
FIVE_SIGMA = 5 / np.sqrt(N)


def galaxies(n: int = 400) -> dict[str, Any]:
    """Colours, sizes and redshifts that hang together, and a weight."""
    rng = np.random.default_rng(4)
    z = rng.uniform(1.0, 3.0, n)
    return {
        "objid": np.arange(n),
        "src_z": z,
        "src_gr": 0.9 - 0.3 * z + rng.normal(0, 0.05, n),
        "src_rz": 0.1 + 0.2 * z + rng.normal(0, 0.05, n),
        "src_reff_arcsec": 0.6 / z * rng.lognormal(0, 0.1, n),
        "weight": rng.uniform(0.0, 2.0, n),
    }


def config_of(tmp_path: Path, table: dict[str, Any], text: str = "") -> Config:
    path = tmp_path / "galaxies.parquet"
    pq.write_table(pa.table(table), path)
    return parse_config(f"population = '{path}'\n{text}")


def drawn(population: Population, n: int = N) -> dict[str, np.ndarray]:
    rows = population.rows(uniform(1, np.arange(n), "population_row"))

    def normal(purpose: str) -> np.ndarray:
        from scipy.special import ndtri

        return ndtri(uniform(1, np.arange(n), purpose))

    return {name: population.values(name, rows, normal) for name in population.names}


def test_rows_are_drawn_as_a_whole_by_their_weights(tmp_path: Path) -> None:
    table = galaxies()
    population = read_population(config_of(tmp_path, table))
    assert population.names == ("src_z", "src_gr", "src_rz", "src_reff_arcsec")  # neither objid nor weight
    values = drawn(population)
    place = np.searchsorted(np.sort(table["src_z"]), values["src_z"])
    row = np.argsort(table["src_z"])[place]
    for name in population.names:
        np.testing.assert_array_equal(values[name], table[name][row])
    share = np.bincount(row, minlength=400) / N
    expected = table["weight"] / table["weight"].sum()
    np.testing.assert_allclose(share, expected, atol=6 * np.sqrt(expected.max() / N))


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_a_spread_keeps_means_and_covariances(tmp_path: Path, spread: float) -> None:
    table = galaxies()
    population = read_population(config_of(tmp_path, table, f"population_spread = {spread}"))
    values = drawn(population)
    names = population.names
    drawn_values = np.stack([values[name] for name in names])
    of_table = np.stack([table[name] for name in names])
    sigma = np.sqrt(np.diag(np.cov(of_table, aweights=table["weight"])))
    mean = np.average(of_table, axis=1, weights=table["weight"])
    # reflection at the ends moves little: a hundredth of a sigma at a spread of a half
    np.testing.assert_allclose((drawn_values.mean(axis=1) - mean) / sigma, 0, atol=FIVE_SIGMA + 0.05 * spread)
    found, expected = np.corrcoef(drawn_values), np.cov(of_table, aweights=table["weight"])
    np.testing.assert_allclose(found, expected / np.outer(sigma, sigma), atol=0.02 + 0.15 * spread)
    np.testing.assert_allclose(drawn_values.std(axis=1) / sigma, 1.0, atol=0.01 + 0.1 * spread)
    assert len(np.unique(drawn_values[0])) > 0.99 * N  # continuous
    for name in names:
        assert table[name].min() <= values[name].min()
        assert values[name].max() <= table[name].max()


def test_a_run_draws_from_the_table_and_from_counts(tmp_path: Path) -> None:
    table = galaxies()
    config = config_of(
        tmp_path,
        table,
        "synthetic_host_count = 10\nstamp_size = 32\nsrc_mag_from = 'prior'\ncontrol_fraction = 0.1\n"
        "[priors]\nsrc_mag = {dist = 'counts', slope = 0.4, low = 21.0, high = 24.0}\n"
        "theta_e_arcsec = {dist = 'uniform', low = 0.5, high = 1.0}",
    )
    store = inject(tmp_path / "S.zarr", config=config, n=120, seed=2)
    assert verify(store.path, level="deep").sound
    catalog = {name: store.catalog.column(name).to_numpy(False) for name in store.catalog.column_names}
    arc, row = catalog["kind"] == "arc", catalog["population_row"]
    for name in ("src_z", "src_gr", "src_rz", "src_reff_arcsec"):
        np.testing.assert_array_equal(catalog[name][arc], table[name][row[arc]])
    np.testing.assert_allclose(
        (catalog["src_mag_g"] - catalog["src_mag_r"])[arc], catalog["src_gr"][arc], atol=1e-9
    )
    magnitudes = catalog["src_mag_r"][arc]
    assert magnitudes.min() >= 21.0
    assert magnitudes.max() <= 24.0
    assert np.median(magnitudes) == pytest.approx(24.0 - np.log10(2.0) / 0.4, abs=0.3)
    # the plan knows the table: a run cannot go on with another
    inputs: dict[str, Any] = {"hosts": None, "catalog": None, "n": 5, "seed": 2}
    before = prepare(config=config, **inputs).plan
    assert before.catalog.startswith("drawn population")
    pq.write_table(pa.table(dict(table, src_z=table["src_z"] + 0.1)), tmp_path / "galaxies.parquet")
    after = prepare(config=config, **inputs).plan
    assert (before.config_sha256, before.catalog) != (after.config_sha256, after.catalog)
    assert before.config_sha256 == after.config_sha256


def test_counts_rise_by_their_slope() -> None:
    prior = Prior.of("counts", slope=0.3, low=20.0, high=25.0)
    u = (np.arange(N) + 0.5) / N
    found = prior.quantile(u)
    # cumulative counts, 10**(slope m) to the limit
    inside = (10 ** (0.3 * (found - 20.0)) - 1) / (10 ** (0.3 * 5.0) - 1)
    np.testing.assert_allclose(inside, u, atol=1e-9)
    falling = Prior.of("counts", slope=-0.3, low=20.0, high=25.0).quantile(u)
    np.testing.assert_allclose(np.sort(45.0 - falling), found, atol=1e-9)
    steep = Prior.of("counts", slope=20.0, low=20.0, high=25.0).quantile(u)
    assert np.isfinite(steep).all()
    assert steep.min() > 24.0
    with pytest.raises(ConfigError, match="slope = 0 must not be 0"):
        Prior.of("counts", slope=0.0, low=20.0, high=25.0)


def test_bad_tables_are_refused_with_row_and_column(tmp_path: Path) -> None:
    table = galaxies(20)
    with pytest.raises(ConfigError, match=r"none of its columns \(a\) is a prior"):
        read_population(config_of(tmp_path, {"a": [1.0]}))
    with pytest.raises(CatalogError, match="row 3: src_gr is nan; give a finite number"):
        read_population(config_of(tmp_path, dict(table, src_gr=np.where(np.arange(20) == 3, np.nan, 0.5))))
    sizes = dict(table, src_reff_arcsec=np.where(np.arange(20) == 4, -1.0, 0.5))
    with pytest.raises(CatalogError, match="row 4: src_reff_arcsec reaches from -1 to -1"):
        read_population(config_of(tmp_path, sizes))
    with pytest.raises(ConfigError, match='src_mag is used with src_mag_from = "prior" only'):
        read_population(config_of(tmp_path, dict(table, src_mag=np.full(20, 23.0))))
    with pytest.raises(CatalogError, match="weights must not be negative"):
        read_population(config_of(tmp_path, dict(table, weight=np.full(20, -1.0))))
