"""What hosts can be wrong in: each is refused in one line that names the file and the way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from arcforge.engine.errors import ConfigError, HostError
from arcforge.engine.host_choice import choose_hosts
from arcforge.engine.host_lens import light_shape
from arcforge.engine.hosts import open_hosts
from arcforge.engine.psf_tables import PsfTable
from arcforge.engine.psfex import read_psfex
from arcforge.engine.synthetic import synthetic_hosts

SIDE = 32
CUBE = {"BANDS": "grz", "PIXSCALE": 0.262}
SCALED = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 10.0,
    "CRVAL2": 0.0,
    "CRPIX1": 20.0,
    "CRPIX2": 20.0,
}
Make = Callable[[Path], Path]


def galaxy(side: int = SIDE) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    light = 0.1 * (1 + (x**2 + y**2) / 9.0) ** -2.5
    return (light + np.random.default_rng(1).normal(0, 0.002, (3, side, side))).astype(np.float32)


def invvar(**changed: float) -> np.ndarray:
    layer = np.full((3, SIDE, SIDE), 2.5e5, np.float32)
    for place, value in changed.items():
        layer[0][{"middle": (SIDE // 2, SIDE // 2), "rim": (5, 5)}[place]] = value
    return layer


def cutout(header: dict[str, Any] | None = None, **layers: np.ndarray) -> Make:
    """A FITS cutout with further images beside it."""

    def make(folder: Path) -> Path:
        units: list[Any] = [fits.PrimaryHDU(galaxy(), fits.Header(header or CUBE))]
        units += [fits.ImageHDU(data, name=name) for name, data in layers.items()]
        fits.HDUList(units).writeto(folder / "host.fits")
        return folder / "host.fits"

    return make


def bricks(**planes: Any) -> Make:
    """A folder of one brick; a file is an image (and its header), or bytes."""

    def make(folder: Path) -> Path:
        for name, plane in planes.items():
            path = folder / f"legacysurvey-0100p000-{name.replace('_', '-')}.fits"
            if isinstance(plane, bytes):
                path.write_bytes(plane)
            else:
                data, header = plane
                fits.PrimaryHDU(data, fits.Header(header)).writeto(path)
        return folder

    return make


PLANE = galaxy()[1]
WHOLE = (PLANE, {})


def table_of(column: str = "cutout_npz", **columns: Any) -> Make:
    """A parquet table of one npz cutout, and columns beside it."""

    def make(folder: Path) -> Path:
        np.savez(folder / "one.npz", cutout=galaxy(), bands="grz", pixel_scale=0.262)
        content = {column: [(folder / "one.npz").read_bytes()]} | {k: [v] for k, v in columns.items()}
        pq.write_table(pa.table(content), folder / "hosts.parquet")
        return folder / "hosts.parquet"

    return make


def garbage(folder: Path) -> Path:
    (folder / "hosts.parquet").write_bytes(b"PAR1 and no more")
    return folder / "hosts.parquet"


def null_cutout(folder: Path) -> Path:
    pq.write_table(pa.table({"cutout_npz": pa.array([None], pa.binary())}), folder / "hosts.parquet")
    return folder / "hosts.parquet"


MIDDLE = pa.table({"x_pix": [16.0], "y_pix": [16.0]})
ON_SKY = pa.table({"ra": [10.0], "dec": [0.0]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cutout(PSF=np.ones((2, 5, 5), np.float32)), r"its PSF has shape \(2, 5, 5\): give one image a band"),
        (cutout(MASKBITS=np.full((SIDE, SIDE), 0.5, np.float32)), "its mask holds fractions"),
        (cutout(MASKBITS=np.zeros((9, 9), np.int16)), r"its mask has \(9, 9\) pixels where the image has"),
        (cutout(INVVAR=np.ones((3, 9, 9), np.float32)), r"its INVVAR has shape \(3, 9, 9\)"),
        (cutout(INVVAR=invvar(middle=0.0)), "band g has no coverage at its centre: remove it"),
        (cutout(INVVAR=invvar(rim=np.inf)), "its inverse variance in g is negative or not finite"),
        (cutout(INVVAR=invvar(rim=-1.0)), "its inverse variance in g is negative or not finite"),
        (table_of("pixels"), "has none of the columns cutout_npz, ctrl_stamp_npz: name it so"),
        (table_of(psfsize_g="wide"), "psfsize_g is 'wide', which is no number"),
        (table_of(ra="east"), "ra is 'east', which is no number"),
        (table_of(cutout_ok=0), "has no rows with a cutout"),
        (garbage, "hosts.parquet: not a readable parquet file"),
        (null_cutout, "its cutout is null: drop the row"),
        (lambda folder: folder / "absent", "absent"),
    ],
)
def test_cutouts(tmp_path: Path, make: Make, message: str) -> None:
    with pytest.raises(HostError, match=message) as caught:
        open_hosts(make(tmp_path), stamp_size=24)
    assert len(str(caught.value).splitlines()) == 1


def test_a_host_that_the_disk_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cutout()(tmp_path)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(HostError, match=r"host .*host.fits: cannot be read \(Permission denied\)"):
        open_hosts(path, stamp_size=24)


@pytest.mark.parametrize(
    ("make", "positions", "message"),
    [
        (bricks(image_r=WHOLE), ON_SKY, "brick 0100p000 has no WCS: give positions as x_pix and y_pix"),
        (bricks(image_g=WHOLE), MIDDLE, "brick 0100p000 has bands 'g' where 'r' is asked for"),
        (
            bricks(image_r=(PLANE, {"BUNIT": "counts"})),
            MIDDLE,
            "BUNIT is 'counts': convert it to nanomaggies",
        ),
        (
            bricks(image_r=WHOLE, invvar_r=(PLANE[:9], {})),
            MIDDLE,
            r"has \(9, 32\) pixels where the brick has",
        ),
        (bricks(image_r=(galaxy(), {})), MIDDLE, "image-r.fits: holds no 2-D image: fetch it again"),
        (bricks(image_r=b"SIMPLE"), MIDDLE, "image-r.fits: truncated in its header"),
        (bricks(image_r=WHOLE), pa.table({"x_pix": [16.0]}), "positions need the columns ra and dec"),
        (
            bricks(image_r=WHOLE),
            pa.table({"x_pix": [16.0, 17.0], "y_pix": [16.0, 16.0], "host_id": ["a", "a"]}),
            "the positions' host_id is not unique",
        ),
        (bricks(), MIDDLE, "the folder holds no legacysurvey-<brick>-image-<band>.fits file"),
    ],
)
def test_fields(tmp_path: Path, make: Make, positions: pa.Table, message: str) -> None:
    with pytest.raises(HostError, match=message) as caught:
        open_hosts(make(tmp_path), bands="r", stamp_size=24, positions=positions)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"SIMPLE", "field.fits: truncated in its header"), (None, "field.fits: no FITS image with three axes")],
)
def test_one_cube_as_a_field(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "field.fits"
    if content is None:
        fits.PrimaryHDU(PLANE).writeto(path)
    else:
        path.write_bytes(content)
    with pytest.raises(HostError, match=message):
        open_hosts(path, stamp_size=24, positions=MIDDLE)


@pytest.mark.parametrize(
    "damage", [lambda whole: b"none", lambda whole: whole[:60], lambda whole: whole[:30] * 9]
)
def test_damaged_gzip_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "legacysurvey-0100p000-image-r.fits.gz"
    fits.PrimaryHDU(PLANE).writeto(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(HostError, match=r"image-r.fits.gz: damaged, truncated or not a gzip file"):
        open_hosts(tmp_path, bands="r", stamp_size=24, positions=MIDDLE)


def test_fields_are_let_go_when_the_next_is_cut(tmp_path: Path) -> None:
    for k, brick in enumerate(("0100p000", "0200p000")):
        header = fits.Header(SCALED | {"CRVAL1": 10.0 * (k + 1), "CDELT1": -7.3e-5, "CDELT2": 7.3e-5})
        fits.PrimaryHDU(galaxy(40)[1], header).writeto(tmp_path / f"legacysurvey-{brick}-image-r.fits")
    positions = pa.table({"ra": [10.0, 20.0, 10.0], "dec": [0.0] * 3})
    hosts = open_hosts(tmp_path, bands="r", stamp_size=24, positions=positions)
    assert hosts.pixscale_arcsec == pytest.approx(7.3e-5 * 3600)
    np.testing.assert_array_equal(hosts[0].pixels, hosts[2].pixels)


def test_a_psf_table_that_does_not_say_where_its_bricks_are(tmp_path: Path) -> None:
    path = tmp_path / "bricks.csv"
    path.write_text("psfsize_r\n1.3\n")
    with pytest.raises(HostError, match="has neither brickname nor ra and dec: add them"):
        PsfTable.read(path, "r")
    path.write_text("brickname,psfsize_g\n0100p000,1.3\n")
    with pytest.raises(HostError, match="has no column psfsize_r: add it"):
        PsfTable.read(path, "r")


def model(folder: Path, detectors: tuple[str, ...] = (), value: float = 1.0, **keys: Any) -> str:
    """A PsfEx model of degree 0, of one detector or several."""
    n = max(1, len(detectors))
    masks = (
        value * np.arange(1, n + 1, dtype=np.float32)[:, None, None, None] * np.ones((n, 1, 5, 5), np.float32)
    )
    columns = [fits.Column("PSF_MASK", "25E", dim="(5,5,1)", array=masks)]
    if detectors:
        columns.append(fits.Column("CCDNAME", "4A", array=np.array(detectors)))
    unit = fits.BinTableHDU.from_columns(columns)
    unit.header.update(
        {"POLNAXIS": 2, "POLNGRP": 1, "POLDEG1": 0, "POLNAME1": "X_IMAGE", "POLNAME2": "Y_IMAGE"} | keys
    )
    unit.writeto(folder / "psf.fits")
    return str(folder / "psf.fits")


@pytest.mark.parametrize(
    ("detectors", "keys", "name", "message"),
    [
        ((), {"POLNAXIS": 3}, "", "its polynomial has 3 variables in 1 groups"),
        ((), {"POLNAME1": "MAG"}, "", "is a polynomial in MAG and Y_IMAGE, not in X_IMAGE and Y_IMAGE"),
        ((), {"value": np.nan}, "", "holds NaN or infinity: give another model"),
        ((), {"POLDEG1": 2}, "", "a polynomial of degree 2 has 6 square images"),
        ((), {}, "#N1", "its table names no detectors"),
        (("N1", "N2"), {}, "", r"holds detectors N1, N2: name one, FILE#N1"),
        (("N1", "N2"), {}, "#N3", r"holds detectors N1, N2: name one, FILE#N1"),
    ],
)
def test_psf_models(tmp_path: Path, detectors: Any, keys: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(HostError, match=message):
        read_psfex(model(tmp_path, detectors, **keys) + name)


def test_the_detector_that_is_named_is_taken(tmp_path: Path) -> None:
    path = model(tmp_path, ("N1", "N2"))
    assert [read_psfex(f"{path}#{name}").coefficients.max() for name in ("N1", "N2")] == [1.0, 2.0]


def test_shapes_of_what_has_none_and_of_what_is_broader_than_the_window() -> None:
    assert light_shape(np.zeros((1, 41, 41), np.float32), 20.0, 20.0) == (0.0, 0.0)
    point = np.zeros((1, 41, 41), np.float32)
    point[0, 20, 20] = 1.0
    assert light_shape(point, 20.0, 20.0) == (0.0, 0.0)
    y, x = np.mgrid[:41, :41] - 20.0
    broad = np.maximum(1.0 - np.hypot(x / 60.0, y / 8.0), 0.0)[None].astype(np.float32)
    e, phi = light_shape(broad, 20.0, 20.0)
    assert 0.1 < e < 1.0
    assert np.cos(2.0 * phi) > 0.99


def test_a_reference_band_that_hosts_lack_is_named(tmp_path: Path, small_config: Any) -> None:
    config = replace(small_config, reference_band="i", host_mag_faintest=20.0)
    with pytest.raises(ConfigError, match="reference_band is 'i', hosts have bands grz"):
        choose_hosts(synthetic_hosts(2, 1), config)
