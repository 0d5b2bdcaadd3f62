"""Splits by sky cell with a guard, known lenses left out, hosts used evenly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from arcforge.engine.config import Config, default_config, parse_config
from arcforge.engine.draws import assign_hosts, assign_splits
from arcforge.engine.errors import ConfigError
from arcforge.engine.host_set import HostSet
from arcforge.engine.host_table import HostTable
from arcforge.engine.inject import inject
from arcforge.engine.sky_cells import select_hosts, sky_cell


def hosts_on_the_sky(ra: Any, dec: Any) -> HostSet:
    n = len(ra)
    table = HostTable(
        host_id=np.array([f"h{i}" for i in range(n)]),
        path=np.array([f"h{i}.fits" for i in range(n)]),
        sha256=np.array([f"{i:064x}" for i in range(n)]),
        x_pix=np.full(n, 4.0),
        y_pix=np.full(n, 4.0),
        mag=np.full((n, 3), 19.0),
        sky_sigma_nmgy=np.full((n, 3), 0.01),
        psf_fwhm_arcsec=np.full((n, 3), 1.3),
        psf_model=np.full(n, "moffat"),
        moffat_beta=np.full(n, 3.5),
        ra_deg=np.asarray(ra, dtype=np.float64),
        dec_deg=np.asarray(dec, dtype=np.float64),
    )
    images = np.arange(n, dtype=np.float32)[:, None, None, None] * np.ones((n, 3, 8, 8), np.float32)
    return HostSet("grz", 0.262, 8, table, lambda numbers: images[numbers])


@pytest.fixture(scope="module")
def field() -> HostSet:
    rng = np.random.default_rng(3)
    return hosts_on_the_sky(rng.uniform(355, 365, 4000) % 360, rng.uniform(-5, 5, 4000))


def by_sky(**changes: Any) -> Config:
    return replace(default_config(), split_by="sky", split_cell_deg=0.5, **changes)


def test_cells_are_about_square_and_equal_everywhere() -> None:
    rng = np.random.default_rng(0)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 200_000)))
    cells, counts = np.unique(sky_cell(rng.uniform(0, 360, dec.size), dec, 10.0), return_counts=True)
    assert 400 < len(cells) < 430  # 41253 square degrees
    assert counts.std() / counts.mean() < 0.15
    assert sky_cell(np.array([359.9999, 0.0]), np.zeros(2), 10.0).tolist() == [9000035, 9000000]


def test_a_cell_is_in_one_split_as_a_whole(field: HostSet) -> None:
    config = by_sky()
    splits = assign_splits(config, 1, field.table)
    cells = sky_cell(field.table.ra_deg, field.table.dec_deg, 0.5)
    for cell in np.unique(cells):
        assert len(set(splits[cells == cell])) == 1
    shares = {name: float(np.mean(splits == name)) for name in config.splits}
    assert shares["train"] == pytest.approx(0.8, abs=0.1)
    assert set(splits) == {"train", "validation", "test"}
    part = field.keep(np.arange(0, 4000, 7), [])  # a smaller set keeps every host's split
    np.testing.assert_array_equal(assign_splits(config, 1, part.table), splits[::7])


def test_the_guard_keeps_splits_apart_and_counts_what_it_costs(field: HostSet) -> None:
    config = by_sky(split_guard_arcmin=6.0)
    splits = assign_splits(config, 1, field.table)
    kept = select_hosts(field, config, splits)
    assert kept.refused_by_reason == {"guard between splits": len(field) - len(kept)}
    assert len(kept) > 0.6 * len(field)
    left = assign_splits(config, 1, kept.table)
    ra, dec = (kept.table.ra_deg + 180) % 360, kept.table.dec_deg
    for name in ("validation", "test"):
        np.testing.assert_array_equal(
            np.sum(left == name) > 0.5 * np.sum(splits == name), True
        )  # the small splits are not eaten up
    apart = np.hypot((ra[:, None] - ra[None]) * np.cos(np.radians(dec))[:, None], dec[:, None] - dec[None])
    other = left[:, None] != left[None]
    assert apart[other].min() * 60 > 6.0 * 0.999
    before = np.hypot(
        ((field.table.ra_deg + 180) % 360)[:, None] - ((field.table.ra_deg + 180) % 360)[None],
        field.table.dec_deg[:, None] - field.table.dec_deg[None],
    )
    assert before[splits[:, None] != splits[None]].min() * 60 < 3.0  # without it they are near


def test_known_lenses_are_left_out(tmp_path: Path, field: HostSet, survey_data: Path) -> None:
    known = tmp_path / "known.csv"
    ra, dec = field.table.ra_deg[:3], field.table.dec_deg[:3]
    known.write_text(
        "name,ra,dec\n" + "".join(f"x,{a},{d + 3 / 3600}\n" for a, d in zip(ra, dec, strict=True))
    )
    config = replace(default_config(), exclude_catalogs=(str(known),), exclude_radius_arcsec=5.0)
    kept = select_hosts(field, config, np.full(4000, "train"))
    assert len(kept) == 3997
    assert kept.refused_by_reason == {"known lens": 3}
    assert "known.csv" in kept.refused[0].message
    np.testing.assert_array_equal(kept.pixels([0, 5]), field.pixels([3, 8]))
    near = replace(config, exclude_radius_arcsec=2.0)
    assert select_hosts(field, near, np.full(4000, "train")) is field
    # the real catalogue, and a real lens that is in it
    real = survey_data / "catalogs" / "lenscat_catalog.csv.gz"
    config = replace(config, exclude_catalogs=(str(real),))
    kept = select_hosts(hosts_on_the_sky([2.83435, 200.123], [-8.7643, 80.0]), config, np.full(2, "train"))
    assert kept.table.host_id.tolist() == ["h1"]


def test_hosts_without_positions_are_named(field: HostSet) -> None:
    nowhere = hosts_on_the_sky([1.0, np.nan], [2.0, np.nan])
    with pytest.raises(ConfigError, match="host h1 has none"):
        assign_splits(by_sky(), 1, nowhere.table)


def test_hosts_are_used_evenly_up_to_the_cap(tmp_path: Path, small_config: Config) -> None:
    rows = np.arange(50)
    index = assign_hosts(3, rows, 12, evenly=True)
    assert np.bincount(index, minlength=12).max() == 5
    assert np.bincount(index[:48]).tolist() == [4] * 12
    np.testing.assert_array_equal(assign_hosts(3, rows[20:30], 12, evenly=True), index[20:30])
    assert (index[:12] != index[12:24]).any()
    config = replace(small_config, host_max_rows=3)
    store = inject(tmp_path / "S.zarr", config=config, n=30, seed=1)
    assert max(store.catalog.column("host_rows").to_pylist()) == 3
    with pytest.raises(ConfigError, match="37 rows use each of 12 hosts 4 times, allowed: host_max_rows = 3"):
        inject(tmp_path / "T.zarr", config=config, n=37, seed=1)


def test_the_settings_come_back_from_toml() -> None:
    config = by_sky(exclude_catalogs=("a.csv", "b c.fits"), splits=MappingProxyType({"train": 1.0}))
    assert parse_config(config.to_toml()) == config
    with pytest.raises(ConfigError, match="line 1: exclude_catalogs"):
        parse_config("exclude_catalogs = 'a.csv'")
