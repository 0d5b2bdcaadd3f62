"""Negatives: marked by kind, as bright as the arcs they stand for, rendered again from their own record."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from arcforge.engine.config import Config, parse_config
from arcforge.engine.errors import ConfigError
from arcforge.engine.inject import inject
from arcforge.engine.verify import verify


@pytest.fixture(scope="module")
def config() -> Config:
    return parse_config(
        "synthetic_host_count = 12\nstamp_size = 48\ncontrol_fraction = 0.1\n[negatives]\nunlensed = 0.3\n"
        "[cuts]\nmagnification_min = 4.0"
    )


def test_unlensed_sources_have_their_arcs_flux_and_no_arc(tmp_path: Any, config: Config) -> None:
    store = inject(tmp_path / "S.zarr", config=config, n=200, seed=3)
    assert verify(store.path, level="deep").sound
    catalog = {name: store.catalog.column(name).to_numpy(False) for name in store.catalog.column_names}
    kind = catalog["kind"]
    assert set(kind) == {"arc", "control", "unlensed"}
    assert np.mean(kind == "unlensed") == pytest.approx(0.3 * 0.9, abs=0.09)
    plain = inject(tmp_path / "P.zarr", config=replace(config, negatives=MappingProxyType({})), n=200, seed=3)
    lensed = {name: plain.catalog.column(name).to_numpy(False) for name in plain.catalog.column_names}
    negative = kind == "unlensed"
    for name in ("src_x_arcsec", "src_reff_arcsec", "host_index", "theta_e_arcsec", "src_flux_nmgy_r"):
        np.testing.assert_array_equal(catalog[name][kind == "arc"], lensed[name][kind == "arc"])
    for name in ("src_x_arcsec", "src_y_arcsec", "src_reff_arcsec", "host_index", "psf_fwhm_arcsec_r"):
        np.testing.assert_array_equal(catalog[name][negative], lensed[name][negative])
    np.testing.assert_allclose(catalog["magnification"][negative], 1.0, rtol=2e-3)
    assert catalog["negative_flux_factor"][negative].min() >= 4.0
    for band in "grz":  # the same light in total, where both are on the stamp
        ratio = catalog[f"arc_flux_nmgy_{band}"][negative] / lensed[f"arc_flux_nmgy_{band}"][negative]
        np.testing.assert_allclose(ratio, 1.0, atol=0.01)
    # one blob at the source's place
    row = int(np.flatnonzero(negative)[0])
    image = store.arcs([row])[0, 1].astype(np.float64)
    y, x = np.mgrid[:48, :48] - 23.5
    for axis, grid in (("x", x), ("y", y)):
        centre = (image * grid).sum() / image.sum() * store.pixscale_arcsec
        expected = catalog[f"lens_{axis}_arcsec"][row] + catalog[f"src_{axis}_arcsec"][row]
        assert centre == pytest.approx(expected, abs=0.02)


def test_shares_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"line 2: unlensed = 1\.5, allowed: a number between 0 and 1"):
        parse_config("[negatives]\nunlensed = 1.5")
    with pytest.raises(ConfigError, match='line 2: "rings" is unknown here'):
        parse_config("[negatives]\nrings = 0.5")
    config = parse_config("[negatives]\nunlensed = 0.25")
    assert parse_config(config.to_toml()) == config
