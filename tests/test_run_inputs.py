"""Inputs of a run: what a catalogue leaves to its hosts, and what is refused before anything is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from arcforge.engine import certificate
from arcforge.engine.catalog_files import numbers_of, read_catalog, sound_table
from arcforge.engine.cuts import failing
from arcforge.engine.durable import write_lock
from arcforge.engine.errors import CatalogError, ConfigError, StoreError, StoreExistsError
from arcforge.engine.host_source import StoredHosts
from arcforge.engine.inject import inject, prepare
from arcforge.engine.run_output import begin_store, check_output
from arcforge.engine.run_rows import _with_host_psf
from arcforge.engine.synthetic import synthetic_hosts


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"n": 0}, ConfigError, "n = 0: give at least one row"),
        (
            {"catalog": {"theta_e_arcsec": [1.0, 2.0], "lens_e": [0.1]}},
            CatalogError,
            "is no table .*1-D columns",
        ),
        ({"catalog": 3}, CatalogError, "the catalogue is no table"),
        ({"n": 3, "partition": (0, 2), "dask": "local"}, ConfigError, "exclude each other"),
        (
            {"n": 3, "overwrite": True, "resume": True},
            ConfigError,
            "--overwrite and --resume exclude each other",
        ),
    ],
)
def test_inputs_that_make_no_run(tmp_path, small_config, given, error, message):
    with pytest.raises(error, match=message):
        inject(tmp_path / "S.zarr", config=small_config, **given)
    assert list(tmp_path.iterdir()) == []


def test_rows_whose_psf_image_nobody_gave_are_named(tmp_path, small_config, lens_rows):
    rows = lens_rows(
        3, src_flux_nmgy_g=1.0, src_flux_nmgy_z=1.0, psf_model=["gaussian", "image", "image"], psf_id=0
    )
    del rows["psf_fwhm_arcsec_r"]
    rows |= {f"psf_fwhm_arcsec_{band}": np.full(3, 1.2) for band in "grz"}
    with pytest.raises(
        CatalogError, match="catalogue row 1: psf_model is 'image', and its host came without"
    ):
        inject(tmp_path / "S.zarr", config=small_config, catalog=rows)


def test_a_store_that_another_process_began_first_is_kept(tmp_path, small_config):
    run = prepare(config=small_config, hosts=None, catalog=None, n=20, seed=1)
    root = tmp_path / "S.zarr"
    inject(root, config=small_config, n=20, seed=1, partition=(0, 1))

    class Absent(type(root)):
        """The folder as it was before the other process came."""

        def exists(self, **options):
            return False

    begin_store(Absent(root), run.plan, StoredHosts(run.hosts, run.bank), may_exist=True)
    with pytest.raises(StoreExistsError):
        begin_store(Absent(root), run.plan, StoredHosts(run.hosts, run.bank), may_exist=False)
    assert len(inject(root, config=small_config, n=20, seed=1, resume=True)) == 20
    with pytest.raises(StoreExistsError, match="go on with it by --resume, replace it by --overwrite"):
        check_output(root, overwrite=False, resume=False, partition=None)
    with write_lock(root), pytest.raises(StoreError, match="another process"), write_lock(root):
        pass


def test_columns_of_other_kinds_are_numbers_or_named():
    table = pa.table(
        {"mixed": ["1.5", None, "3"], "bad": ["1", "2", "three"], "whole": pa.array([1, None, 3])}
    )
    np.testing.assert_array_equal(numbers_of(table, "mixed", "list"), [1.5, np.nan, 3.0])
    np.testing.assert_array_equal(numbers_of(table, "whole", "list"), [1.0, np.nan, 3.0])
    with pytest.raises(CatalogError, match="list row 2: bad is 'three', which is no number: correct it"):
        numbers_of(table, "bad", "list")


def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two columns are called 'a'"):
        sound_table(pa.table([[1], [2]], names=["a", "a"]))
    (tmp_path / "rows.csv").write_text("a,a\n1,2\n")
    with pytest.raises(CatalogError, match=r"rows\.csv is unreadable"):
        read_catalog(tmp_path / "rows.csv")


def test_a_row_is_counted_under_the_first_cut_that_it_fails():
    table = pa.table(
        {
            "lens_model": ["SIE", "SIE", "SIE", "SIE", "CONTROL"],
            "magnification": [3.0, 30.0, 10.0, 10.0, np.nan],
            "theta_e_arcsec": [1.0, 1.0, 0.5, 1.0, np.nan],
            "psf_fwhm_arcsec_r": [1.0] * 5,
        }
    )
    cuts = {"arc_snr_min": 5.0, "magnification_min": 4.0, "magnification_max": 25.0, "theta_e_fwhm_min": 0.7,
            "visibility_min": 0.2}  # fmt: skip
    power = np.array([1.0, 100.0, 100.0, 100.0, 0.0])
    found = failing(cuts, table, power, np.ones(5), "r", np.array([0.1, 0.1, 0.1, 0.1, np.nan]))
    assert {name: np.flatnonzero(rows).tolist() for name, rows in found.items()} == {
        "arc_snr_min": [0], "magnification_min": [], "magnification_max": [1], "theta_e_fwhm_min": [2],
        "visibility_min": [3],
    }  # fmt: skip
    assert list(found) == list(cuts)


@pytest.mark.parametrize(
    ("of_peak", "of_flux", "failed"),
    [
        (0.0, 0.0, []),
        (5e-4, 0.0, ["convergence_0.0001"]),
        (5e-3, 0.0, ["convergence_0.001", "convergence_0.0001"]),
        (0.0, 1e-3, ["convergence_0.0001", "lensed_flux"]),
    ],
)
def test_the_certificate_sees_errors_of_hard_rows(monkeypatch, of_peak, of_flux, failed):
    """The rows are not rendered here: errors of known size take the place of the renderer's."""
    y, x = np.indices((64, 64)) - 31.5
    light = np.exp(-0.5 * (x**2 + y**2) / 4.0**2)

    def render(rows, *, bands, variant="auto", rtol=1e-3):
        image = np.repeat(light[None, None], len(rows["theta_e_arcsec"]), axis=0)
        if variant == "reference":
            return image
        image = image * (1.0 + of_flux)
        image[-1, 0, 30, 30] += of_peak
        image[-1, 0, 2, 2] -= of_peak  # no light is lost
        return image.astype(np.float32)

    told = []
    monkeypatch.setattr(certificate, "render_batch", render)
    checks = certificate._check_convergence(3, lambda done, total: told.append((done, total)), 9, 12)
    assert [check.id for check in checks if not check.passed] == failed
    assert told == [(10, 12), (11, 12), (12, 12)]


def test_rows_of_hosts_take_their_psfs():
    """A catalogue that says nothing of PSFs gets its hosts', all of them or none."""
    hosts, rows = synthetic_hosts(4, 1), np.array([2, 0, 2])
    known = hosts.table
    table = _with_host_psf(pa.table({"row": [0, 1, 2]}), hosts, rows)
    for k, band in enumerate(hosts.bands):
        np.testing.assert_array_equal(
            table.column(f"psf_fwhm_arcsec_{band}").to_numpy(), known.psf_fwhm_arcsec[rows, k]
        )
    hosts.table = replace(
        known, psf_model=np.array(["moffat", "", "image", ""]), psf_id=np.array([-1, -1, 7, -1])
    )
    table = _with_host_psf(pa.table({"row": [0, 1, 2]}), hosts, rows)
    assert table.column("psf_model").to_pylist() == ["image", "moffat", "image"]
    assert table.column("psf_id").to_pylist() == [7, -1, 7]
    own = pa.table({"psf_model": ["none"] * 3})
    assert _with_host_psf(own, hosts, rows) is own
    hosts.table = replace(known, psf_fwhm_arcsec=np.full_like(known.psf_fwhm_arcsec, np.nan))
    assert _with_host_psf(pa.table({"row": [0, 1, 2]}), hosts, rows).column_names == ["row"]
