"""Distributions of rows beside what was asked for: the same where they are, told apart where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app
from arcforge.engine import open_store
from arcforge.engine.config import parse_config
from arcforge.engine.distributions import distributions
from arcforge.engine.inject import inject

CONFIG = """
synthetic_host_count = 40
stamp_size = 24
variant = "uniform1"
lens_shape_from = "host"
control_fraction = 0.1
[priors]
theta_e_arcsec = {dist = "uniform", low = 0.5, high = 0.9}
src_n = {dist = "normal", mean = 1.5, sigma = 0.4, low = 0.7, high = 3.0}
[negatives]
unlensed = 0.1
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("distributions") / "S.zarr"
    return inject(path, config=parse_config(CONFIG), n=1500, seed=6)


def test_rows_are_what_was_asked_for(store: Any) -> None:
    found = {each.name: each for each in distributions(store)}
    assert {"theta_e_arcsec", "lens_e", "src_gr", "src_mag_r", "arc_snr_r", "visibility"} <= set(found)
    kinds = store.catalog.column("kind").to_pylist()
    for each in found.values():
        assert each.rows.size == kinds.count("arc")  # neither controls nor negatives
        assert not each.differs, each.name
    # of priors the asked-for sample is the prior's own, of what hosts decide it is drawn anew
    assert found["theta_e_arcsec"].asked is not None
    assert np.median(found["theta_e_arcsec"].asked) == pytest.approx(0.7, abs=1e-4)
    assert found["lens_e"].asked is not None
    assert found["arc_snr_r"].asked is None


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["theta_e_arcsec", "lens_e", "src_rz", "src_mag_g"])
def test_rows_that_are_not_are_told(store: Any, name: str) -> None:
    planted = open_store(store.path)
    catalog = planted.catalog
    values = catalog.column(name).to_numpy()
    wrong = values * 1.15 if name != "src_mag_g" else values + 0.4
    planted.catalog = catalog.set_column(catalog.column_names.index(name), name, [wrong])
    assert [each.name for each in distributions(planted) if each.differs] == [name]


@pytest.mark.compiled
def test_rows_that_passed_cuts_are_shown_with_them_and_not_tested(tmp_path: Path) -> None:
    config = parse_config(CONFIG + "[cuts]\nmagnification_min = 4.0\nvisibility_min = 0.2\n")
    found = {each.name: each for each in distributions(inject(tmp_path / "C.zarr", config=config, n=100))}
    assert found["magnification"].limits == (4.0,)
    assert found["visibility"].limits == (0.2,)
    assert all(np.isnan(each.p_value) for each in found.values())


def test_the_command_writes_a_picture_and_a_table(store: Any, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["show", str(store.path), "--kind", "distributions", "--out", str(tmp_path / "d.png")]
    )
    assert result.exit_code == 0, result.output
    assert "theta_e_arcsec" in result.output
    assert (tmp_path / "d.png").read_bytes()[:4] == b"\x89PNG"
