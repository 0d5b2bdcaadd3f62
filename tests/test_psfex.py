"""PsfEx models: the documented polynomial, in both layouts of files, as PSFs of hosts."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from arcforge.engine import host_files
from arcforge.engine.config import parse_config
from arcforge.engine.errors import ConfigError, HostError
from arcforge.engine.host_files import Cutout
from arcforge.engine.hosts import open_hosts
from arcforge.engine.inject import inject
from arcforge.engine.psf_images import core_offset_pix
from arcforge.engine.psf_tables import PsfTable
from arcforge.engine.psfex import PsfExModels, read_psfex
from arcforge.engine.verify import verify

DATA = Path(__file__).parents[1] / "../shared/data/psf/psfex"
NAME = "c4d_141029_043420_ooi_r_ls9-N26-psfex.fits.gz"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the public survey data are not at ../shared/data")


def written(path: Path, masks: np.ndarray, sampling: float, degree: int, *, in_header: bool = True) -> str:
    """A model file in PsfEx's own layout (header), or the Legacy Surveys' (columns)."""
    keys: dict[str, Any] = {
        "POLNAXIS": 2, "POLGRP1": 1, "POLNAME1": "X_IMAGE", "POLZERO1": 1000.0, "POLSCAL1": 900.0,
        "POLGRP2": 1, "POLNAME2": "Y_IMAGE", "POLZERO2": 2000.0, "POLSCAL2": 1800.0, "POLNGRP": 1,
        "POLDEG1": degree, "PSF_FWHM": 4.0, "PSF_SAMP": sampling, "PSFNAXIS": 3, "PSFAXIS1": masks.shape[2],
        "PSFAXIS2": masks.shape[1], "PSFAXIS3": masks.shape[0],
    }  # fmt: skip
    size = f"({masks.shape[2]},{masks.shape[1]},{masks.shape[0]})"
    columns = [fits.Column("PSF_MASK", f"{masks.size}E", dim=size, array=masks[None].astype(np.float32))]
    if not in_header:
        for key, value in keys.items():
            form = "10A" if isinstance(value, str) else "D" if isinstance(value, float) else "K"
            columns.append(fits.Column(key.lower(), form, array=np.array([value])))
    unit = fits.BinTableHDU.from_columns(columns, name="PSF_DATA")
    if in_header:
        unit.header.update(keys)
    unit.writeto(path)
    return str(path)


def varying(side: int, width: float) -> np.ndarray:
    """Coefficients of a PSF whose width and centre of light change over the detector: 6 terms, degree 2."""
    axis = np.arange(side) - side // 2
    x, y = axis[None, :], axis[:, None]
    psf = np.exp(-0.5 * (x**2 + y**2) / width**2)
    psf /= psf.sum()
    widen = psf * ((x**2 + y**2) / width**2 - 2.0)
    return np.stack([psf, 0.1 * widen, 0.03 * widen, -0.05 * widen, 0.02 * widen, 0.04 * widen])


@pytest.mark.parametrize("in_header", [True, False])
def test_terms_are_those_that_psfex_documents(tmp_path: Path, in_header: bool) -> None:
    masks = varying(25, 2.0)
    model = read_psfex(written(tmp_path / "m.fits", masks, 1.0, 2, in_header=in_header))
    x, y = 1450.0, 1100.0
    u, v = (x - 1000.0) / 900.0, (y - 2000.0) / 1800.0
    expected = masks[0] + u * masks[1] + u**2 * masks[2] + v * masks[3] + u * v * masks[4] + v**2 * masks[5]
    np.testing.assert_allclose(model.image_at(x, y), expected / expected.sum(), atol=1e-8)
    off = read_psfex(written(tmp_path / "off.fits", np.roll(masks, 1, axis=2), 1.0, 2))  # by a pixel in x
    np.testing.assert_allclose(off.image_at(x, y), model.image_at(x, y), atol=1e-6)
    assert model.image_at(x, y).sum() == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(HostError, match=r"3\.0 times the fitted range"):
        model.image_at(3700.0, 2000.0)


@pytest.mark.parametrize("sampling", [0.5, 0.7, 1.3])
def test_other_samplings_come_out_at_the_detectors_pixels(tmp_path: Path, sampling: float) -> None:
    """A Gaussian of 2.2 detector pixels, drawn at PSF_SAMP, is one again."""
    side = 51
    axis = (np.arange(side) - side // 2) * sampling
    psf = np.exp(-0.5 * (axis[None, :] ** 2 + axis[:, None] ** 2) / 2.2**2)
    model = read_psfex(written(tmp_path / "m.fits", (psf / psf.sum())[None], sampling, 0))
    image = model.image_at(1000.0, 2000.0)
    assert len(image) % 2 == 1
    half = len(image) // 2
    pixel = np.arange(-half, half + 1.0)
    expected = np.exp(-0.5 * (pixel[None, :] ** 2 + pixel[:, None] ** 2) / 2.2**2)
    np.testing.assert_allclose(image, expected / expected.sum(), atol=5e-3 * image.max())


@needs_data
@pytest.mark.parametrize("sampling", [1.0, 0.7])
def test_a_real_model_is_what_galsim_makes_of_it(tmp_path: Path, sampling: float) -> None:
    des = pytest.importorskip("galsim.des", reason="GalSim is not installed")
    import galsim

    table = fits.open(DATA / NAME)[1].data
    masks = np.asarray(table["psf_mask"][0], dtype=np.float64)
    path = written(tmp_path / "m.psf", masks, sampling, 2)
    ours, theirs = read_psfex(path), des.DES_PSFEx(path)
    for x, y in ((400.0, 300.0), (1800.0, 3900.0)):
        image = ours.drawn_at(x, y)
        psf = theirs.getPSF(galsim.PositionD(x, y))
        drawn = psf.drawImage(nx=len(image), ny=len(image), scale=1.0, method="no_pixel").array
        assert np.abs(image / image.sum() - drawn / drawn.sum()).max() < 3e-3 * image.max()


@needs_data
def test_real_models_give_psfs_of_their_exposures() -> None:
    """Odd, centred and of unit sum all over the detector, with the width that PsfEx itself found."""
    paths = {name.name.split("_ooi_")[1][0]: str(name) for name in sorted(DATA.glob("*.gz"))}
    models = PsfExModels.read(paths, "grz")
    for x, y in ((1.0, 4094.0), (1023.0, 2047.0), (2046.0, 4094.0)):
        images = models.images_at(x, y)
        assert images.shape == (3, 63, 63)
        np.testing.assert_allclose(images.sum(axis=(1, 2)), 1.0, atol=1e-5)
        for image, model in zip(images, models.models, strict=True):
            assert np.abs(core_offset_pix(image)).max() < 0.01
            found = fits.open(model.path)[1].data["psf_fwhm"][0]
            half_maximum = 2.0 * np.sqrt((image > 0.5 * image.max()).sum() / np.pi)
            if x == 1023.0:  # PsfEx's own is of all the light, wings too
                assert 0.6 * found < half_maximum < found


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    masks = varying(25, 2.0)
    with pytest.raises(HostError, match="cannot be read"):
        read_psfex(str(tmp_path / "absent.psf"))
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(HostError, match="no table with a column PSF_MASK"):
        read_psfex(str(tmp_path / "image.fits"))
    with pytest.raises(HostError, match=r"degree 3 has 10 square images"):
        read_psfex(written(tmp_path / "few.psf", masks, 1.0, 3))
    with pytest.raises(HostError, match="a sum of 2"):
        read_psfex(written(tmp_path / "two.psf", 2.0 * masks, 1.0, 2)).image_at(1000.0, 2000.0)
    path = written(tmp_path / "m.psf", masks, 1.0, 2)
    with pytest.raises(HostError, match="no PSF model for band z"):
        PsfExModels.read({"g": path, "r": path}, "grz")
    with pytest.raises(HostError, match="X_IMAGE and Y_IMAGE"):
        PsfExModels.read({"g": path}, "g").images_at(float("nan"), 1.0)
    with pytest.raises(HostError, match="leave #S21 out"):
        read_psfex(f"{path}#S21")


def test_damaged_and_swelling_gzip_is_refused_with_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.psf.gz"
    path.write_bytes(b"no gzip")
    with pytest.raises(HostError, match=r"PSF model .*m\.psf\.gz: damaged"):
        read_psfex(str(path))
    monkeypatch.setattr(host_files, "_MAX_BYTES", 1 << 16)
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(HostError, match=r"m\.psf\.gz: it unpacks to more than"):
        read_psfex(str(path))


def test_hosts_get_the_psf_of_their_place(tmp_path: Path) -> None:
    """From a header's place and from positions in an exposure; a store's arcs are rendered through it."""
    side = 120
    rng, (y, x) = np.random.default_rng(1), np.mgrid[:side, :side]
    light = sum((1 + ((x - gx) ** 2 + (y - gy) ** 2) / 9.0) ** -2.5 for gx, gy in ((40, 45), (80, 70)))
    exposure = (0.1 * light + rng.normal(0, 2e-3, (1, side, side))).astype(np.float32)
    header = fits.Header({"BANDS": "r", "PIXSCALE": 0.262})
    fits.PrimaryHDU(exposure, header).writeto(tmp_path / "e.fits")
    path = written(tmp_path / "m.psf", varying(25, 2.0), 1.0, 2)
    config = parse_config(
        f"bands = 'r'\nstamp_size = 32\n[psfex]\nr = '{path}'\n"
        "[priors]\ntheta_e_arcsec = {dist = 'uniform', low = 0.6, high = 0.9}"
    )
    places = pa.table({"x_pix": [40.0, 80.0], "y_pix": [45.0, 70.0]})
    store = inject(tmp_path / "S.zarr", config=config, hosts=tmp_path / "e.fits", positions=places, n=6)
    assert store.psf_images is not None
    model = read_psfex(path)
    for host, (px, py) in enumerate(((40.0, 45.0), (80.0, 70.0))):
        number = store.hosts.column("psf_id")[host].as_py()
        np.testing.assert_allclose(store.psf_images[number][0], model.image_at(px + 1, py + 1), atol=1e-7)
    assert set(store.catalog.column("psf_model").to_pylist()) == {"image"}
    assert verify(store.path, level="deep").sound
    folder = tmp_path / "cutouts"
    folder.mkdir()
    placed = fits.Header({**header, "X_IMAGE": 1500.0, "Y_IMAGE": 900.0})
    fits.PrimaryHDU(exposure[:, 25:66, 20:61], placed).writeto(folder / "a.fits")
    hosts = open_hosts(folder, bands="r", stamp_size=32, psfex={"r": path})
    np.testing.assert_allclose(hosts[0].psf[0], model.image_at(1500.0, 900.0), atol=1e-7)
    fits.PrimaryHDU(exposure[:, 25:66, 20:61], header).writeto(folder / "b.fits")
    with pytest.raises(HostError, match=r"b\.fits: its place on the detector is not known"):
        open_hosts(folder, bands="r", stamp_size=32, psfex={"r": path})


def test_a_model_is_asked_for_by_band() -> None:
    config = parse_config("bands = 'gr'\n[psfex]\ng = 'a.psf'\nr = 'b.psf#N4'")
    assert config.psfex == {"g": "a.psf", "r": "b.psf#N4"}
    assert parse_config(config.to_toml()) == config
    with pytest.raises(ConfigError, match=r"line 2: psfex has no file for band r"):
        parse_config("bands = 'gr'\n[psfex]\ng = 'a.psf'")
    with pytest.raises(ConfigError, match=r"line 2: psfex g = 3, allowed: a file's path"):
        parse_config("[psfex]\ng = 3")


def at(ra_deg: float, dec_deg: float, brick: str = "") -> Cutout:
    return Cutout(
        np.zeros((1, 2, 2), np.float32), 0.262, (np.nan,), ra_deg=ra_deg, dec_deg=dec_deg, brickname=brick
    )


def test_widths_between_bricks_are_bilinear(tmp_path: Path) -> None:
    table = tmp_path / "bricks.csv"
    table.write_text(
        "brickname,ra,dec,psfsize_r\na,359.875,60.125,1.0\nb,0.375,60.125,1.4\nc,359.875,60.375,1.2\nd,0.375,60.375,0\n"
    )
    bricks, between = (PsfTable.read(table, "r", between=each) for each in (False, True))
    # half a degree of right ascension at 60 degrees: a brick's side on the sky (to 1 % at its ends)
    assert bricks.fwhm_of(at(0.1, 60.13))[0] == 1.0
    assert bricks.fwhm_of(at(0.1, 60.13, "b"))[0] == 1.4
    assert between.fwhm_of(at(359.875, 60.125))[0] == pytest.approx(1.0, abs=0.003)
    assert between.fwhm_of(at(0.0, 60.125))[0] == pytest.approx(1.1, abs=0.003)
    assert between.fwhm_of(at(0.0, 60.125, "b"))[0] == pytest.approx(1.1, abs=0.003)  # by place, not by name
    assert between.fwhm_of(at(359.875, 60.25))[0] == pytest.approx(1.1, abs=0.003)
    # in the middle of all four, the one without exposures leaves its quarter to the others
    assert between.fwhm_of(at(0.125, 60.25))[0] == pytest.approx((1.0 + 1.4 + 1.2) / 3, abs=0.003)
    assert between.fwhm_of(at(np.nan, np.nan, "c"))[0] == 1.2
    with pytest.raises(HostError, match="marks no coverage"):
        bricks.fwhm_of(at(0.375, 60.375))
    with pytest.raises(HostError, match="not in the PSF table"):
        between.fwhm_of(at(2.0, 60.0))


@needs_data
def test_real_brick_tables_are_interpolated() -> None:
    table = PsfTable.read(
        DATA.parents[1] / "catalogs/dr10_bricks_psfsize_depth_primary.csv", "grz", between=True
    )
    widths = np.array([table.fwhm_of(at(ra, 0.1)) for ra in np.linspace(232.6, 233.1, 21)])
    assert (widths > 0.9).all()
    assert np.abs(np.diff(widths, axis=0)).max() < 0.05  # no steps at the bricks' edges
