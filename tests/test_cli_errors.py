"""Bad input to ``arcforge inject``: one line that names file or row and the way out, and nothing written."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app

SIZE = 64


def galaxy(seed: int) -> np.ndarray:
    """Return a red blob on noise, (band, y, x) float32 nanomaggies: all that a host has to be."""
    yy, xx = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    blob = np.exp(-(xx**2 + yy**2) / 18.0) / (18.0 * np.pi)
    noise = np.random.default_rng(seed).normal(0.0, 0.003, (3, SIZE, SIZE))
    return (noise + np.array([3.0, 12.0, 25.0])[:, None, None] * blob).astype(np.float32)


def write_host(path: Path, cube: np.ndarray, bands: str = "grz") -> None:
    from astropy.io import fits

    header = fits.Header({"BANDS": bands, "BUNIT": "nanomaggy", "PIXSCALE": 0.262})
    fits.PrimaryHDU(cube, header=header).writeto(path)


@pytest.fixture
def hosts(tmp_path) -> Path:
    folder = tmp_path / "hosts"
    folder.mkdir()
    for number in range(3):
        write_host(folder / f"galaxy{number}.fits", galaxy(number))
    return folder


GOOD_ROW = {
    "row_id": 10,
    "lens_model": "SIE",
    "theta_e_arcsec": 1.2,
    "lens_e": 0.1,
    "lens_phi_rad": 0.3,
    "src_x_arcsec": 0.1,
    "src_y_arcsec": 0.0,
    "src_reff_arcsec": 0.3,
    "src_e": 0.2,
    "src_phi_rad": 1.0,
    **{f"src_flux_nmgy_{band}": 1.5 for band in "grz"},
    **{f"psf_fwhm_arcsec_{band}": 1.4 for band in "grz"},
}


def catalog(path: Path, **changes: object) -> Path:
    """Write a catalogue of three rows, all good but for the ``changes`` in row 1."""
    rows = [GOOD_ROW, {**GOOD_ROW, "row_id": 11, **changes}, {**GOOD_ROW, "row_id": 12}]
    pa.csv.write_csv(pa.Table.from_pylist(rows), path)
    return path


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def refused(tmp_path: Path, *args: object, code: int = 1) -> str:
    """Run ``arcforge inject``, which must fail by one line and leave the folder as it was."""
    before = tree(tmp_path)
    result = CliRunner().invoke(app, ["inject", *map(str, args)])
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("arcforge: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "internal error" not in result.stderr
    assert tree(tmp_path) == before
    return result.stderr


def test_the_good_case_works(tmp_path, hosts):
    out = tmp_path / "s.zarr"
    result = CliRunner().invoke(
        app,
        ["inject", "--hosts", str(hosts), "--catalog", str(catalog(tmp_path / "c.csv")), "--out", str(out)],
    )
    assert result.exit_code == 0, result.stderr
    from arcforge.engine import open_store

    assert len(open_store(out)) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"theta_e_arcsec": 0.0}, ("theta_e_arcsec", "0")),
        ({"theta_e_arcsec": -1.5}, ("theta_e_arcsec", "-1.5")),
        ({"lens_e": 1.0}, ("lens_e", "1")),
        ({"lens_e": -0.25}, ("lens_e", "-0.25")),
        ({"src_e": 1.5}, ("src_e", "1.5")),
        ({"src_flux_nmgy_r": -2.5}, ("src_flux_nmgy_r", "-2.5")),
        ({"lens_model": "KING"}, ("lens_model", "KING")),
        ({"psf_fwhm_arcsec_z": 0.0}, ("psf_fwhm_arcsec_z", "0")),
        ({"src_x_arcsec": float("nan")}, ("src_x_arcsec", "NaN")),
    ],
)
def test_bad_catalogue_row_is_named(tmp_path, hosts, change, words):
    rows = catalog(tmp_path / "c.csv", **change)
    line = refused(tmp_path, "--hosts", hosts, "--catalog", rows, "--out", tmp_path / "s.zarr")
    assert "row 1" in line
    assert "11" in line
    for word in words:
        assert word in line


def test_hosts_that_cannot_be_used_are_named(tmp_path, hosts):
    def line(path: Path = hosts) -> str:
        return refused(tmp_path, "--hosts", path, "--n", 4, "--out", tmp_path / "s.zarr")

    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in line(empty)
    assert str(tmp_path / "nowhere") in line(tmp_path / "nowhere")

    whole = (hosts / "galaxy1.fits").read_bytes()
    (hosts / "galaxy1.fits").write_bytes(whole[: len(whole) // 2])
    assert "galaxy1.fits" in line()
    assert "truncated" in line()

    (hosts / "galaxy1.fits").write_bytes(b"not a FITS file")
    assert "galaxy1.fits" in line()

    holed = galaxy(1)
    holed[1, 20, 30] = np.nan
    (hosts / "galaxy1.fits").unlink()
    write_host(hosts / "galaxy1.fits", holed)
    assert "galaxy1.fits" in line()
    assert "nan" in line().lower() or "finite" in line()

    (hosts / "galaxy1.fits").unlink()
    write_host(hosts / "galaxy1.fits", galaxy(1), bands="gri")
    assert "galaxy1.fits" in line()
    assert "gri" in line()


def test_output_in_the_way_and_out_of_reach(tmp_path, hosts):
    out = tmp_path / "s.zarr"
    args = ["inject", "--hosts", str(hosts), "--n", "2", "--seed", "1", "--out", str(out)]
    assert CliRunner().invoke(app, args).exit_code == 0
    contents = {
        name: (tmp_path / name).read_bytes() for name in tree(tmp_path) if (tmp_path / name).is_file()
    }
    assert "--overwrite" in refused(tmp_path, *args[1:])
    assert all((tmp_path / name).read_bytes() == data for name, data in contents.items())

    (tmp_path / "file").touch()
    line = refused(tmp_path, "--hosts", hosts, "--n", 2, "--out", tmp_path / "file" / "s.zarr")
    assert str(tmp_path / "file") in line


def test_overwrite_spares_what_is_no_store(tmp_path, hosts):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.txt").write_text("all of it")
    refused(tmp_path, "--hosts", hosts, "--n", 2, "--out", precious, "--overwrite")
    assert (precious / "chapter1.txt").read_text() == "all of it"


def test_bad_configuration_is_named_with_its_line(tmp_path, hosts):
    config = tmp_path / "run.toml"
    config.write_text('bands = "grz"\nrtol = 7\n')
    line = refused(tmp_path, "--config", config, "--hosts", hosts, "--n", 2, "--out", tmp_path / "s.zarr")
    assert str(config) in line
    assert "line 2" in line


@pytest.mark.parametrize("args", [("--n", "0"), ("--n", "many"), ("--seed", "-1"), ("--threads", "0")])
def test_wrong_options_exit_2(tmp_path, hosts, args):
    line = refused(tmp_path, "--hosts", hosts, "--out", tmp_path / "s.zarr", *args, code=2)
    assert args[0] in line


def test_a_real_process_behaves_alike(tmp_path, hosts):
    (hosts / "galaxy2.fits").write_bytes(b"SIMPLE  =")
    before = tree(tmp_path)
    command = [Path(sys.executable).with_name("arcforge"), "inject", "--n", "4", "--out", "s.zarr"]
    done = subprocess.run(
        [*command, "--hosts", hosts], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("arcforge: ")
    assert done.stderr.count("\n") == 1
    assert "galaxy2.fits" in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(tmp_path) == before


def test_options_that_exclude_each_other_are_wrong_usage(tmp_path, hosts):
    common = ("--hosts", hosts, "--n", 2, "--out", tmp_path / "s.zarr")
    assert "--overwrite" in refused(tmp_path, *common, "--overwrite", "--resume", code=2)
    assert "--dask" in refused(tmp_path, *common, "--dask", "local", "--partition", "1/2", code=2)
    assert "--partition" in refused(tmp_path, *common, "--partition", "3/2", code=2)
    assert "rows" in refused(tmp_path, "--n", 10**13, "--out", tmp_path / "s.zarr")


def test_what_is_no_store_is_not_offered_for_overwriting(tmp_path, hosts):
    (tmp_path / "notes.txt").write_text("all of it")
    line = refused(tmp_path, "--hosts", hosts, "--n", 2, "--out", tmp_path / "notes.txt")
    assert "no arcforge store" in line
    assert "--overwrite" not in line


def test_an_unknown_setting_is_answered_in_few_words(tmp_path, hosts):
    config = tmp_path / "run.toml"
    config.write_text("[xyzzy]\na = 1\n")
    line = refused(tmp_path, "--config", config, "--hosts", hosts, "--n", 2, "--out", tmp_path / "s.zarr")
    assert "arcforge config show" in line
    assert len(line) < 300


def test_an_empty_file_is_called_empty(tmp_path, hosts):
    (hosts / "galaxy2.fits").write_bytes(b"")
    assert "empty" in refused(tmp_path, "--hosts", hosts, "--n", 2, "--out", tmp_path / "s.zarr")


def test_a_misspelt_column_with_a_default_is_told(tmp_path, hosts):
    table = tmp_path / "rows.csv"
    row = {**GOOD_ROW, "shaer": 0.05, "src_N": 4.0, "note": "mine"}
    pa.csv.write_csv(pa.Table.from_pylist([row]), table)
    args = ["inject", "--hosts", str(hosts), "--catalog", str(table), "--out", str(tmp_path / "s.zarr")]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if "warning" in line]
    assert len(told) == 2
    assert '"shaer"' in told[0]
    assert '"shear"' in told[0]
    assert '"src_n"' in told[1]


def test_an_audit_that_cannot_write_its_page_says_so_before_it_begins(tmp_path):
    (tmp_path / "file").touch()
    for option in ("--html", "--json", "--junit"):
        args = ["audit", str(tmp_path / "no.zarr"), option, str(tmp_path / "file" / "page")]
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 1
        assert "cannot be written" in result.stderr, option
        assert result.stderr.count("\n") == 1


def test_an_interrupt_while_modules_are_imported_leaves_one_line(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from arcforge.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "arcforge: interrupted\n"
