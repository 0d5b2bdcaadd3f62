"""What banks of source images can be wrong in: refused in one line that names bank or source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from arcforge.engine.errors import SourceError
from arcforge.engine.source_audit import audit_bank
from arcforge.engine.source_bank import SourceBank, Template
from arcforge.engine.source_files import read_templates

Y, X = np.indices((45, 45)) - 22
IMAGE = np.exp(-0.5 * (X**2 + Y**2) / 4.0**2).astype(np.float32)
SCALE = {"PIXSCALE": 0.03}
Make = Callable[[Path], Path]


def npz(**arrays: Any) -> Make:
    def make(folder: Path) -> Path:
        np.savez(folder / "bank.npz", **arrays)
        return folder / "bank.npz"

    return make


def fits_file(data: np.ndarray, header: dict[str, Any], *, in_folder: bool) -> Make:
    def make(folder: Path) -> Path:
        fits.PrimaryHDU(data, fits.Header(header)).writeto(folder / "a.fits")
        return folder if in_folder else folder / "a.fits"

    return make


def galsim(images: str) -> Make:
    """A catalogue in GalSim's layout of one galaxy; its images may be absent."""

    def make(folder: Path) -> Path:
        row = {"IDENT": 7, "GAL_FILENAME": images, "GAL_HDU": 0, "PIXEL_SCALE": 0.03, "NOISE_VARIANCE": 1e-6}
        Table([row]).write(folder / "catalog.fits")
        fits.PrimaryHDU(IMAGE).writeto(folder / "images.fits")
        return folder

    return make


def empty(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent.npz", "absent.npz: no such file or folder: check the path"),
        (empty, "the folder holds no FITS file: check the path"),
        (npz(images=IMAGE[None]), r"needs the keys images \(n, ny, nx\) and pixscale_arcsec"),
        (npz(images=IMAGE, pixscale_arcsec=0.03), r"needs the keys images \(n, ny, nx\)"),
        (
            npz(images=np.zeros((1, 4, 5000)), pixscale_arcsec=0.03),
            r"source 0: its image has shape \(4, 5000\)",
        ),
        (
            npz(images=IMAGE[None], pixscale_arcsec=0.03, psf=np.ones(3)),
            r"source 0: its PSF has shape \(1,\)",
        ),
        (npz(images=IMAGE[None], pixscale_arcsec=np.ones(3)), "bank.npz: damaged or of another form"),
        (fits_file(IMAGE, SCALE, in_folder=False), r"no FITS cube \(n, ny, nx\), and no catalogue of GalSim"),
        (fits_file(IMAGE[None], {}, in_folder=False), "does not state its pixel scale: add PIXSCALE"),
        (
            fits_file(IMAGE[None], SCALE, in_folder=True),
            "a.fits: holds no 2-D image: take it out of the bank",
        ),
        (galsim("elsewhere.fits"), "its file elsewhere.fits is not beside it: fetch it"),
    ],
)
def test_banks(tmp_path: Path, make: Make, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        list(read_templates(make(tmp_path)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_catalogue_of_galsims_layout_gives_its_images(tmp_path: Path) -> None:
    (template,) = read_templates(galsim("images.fits")(tmp_path))
    assert (template.source_id, template.pixscale_arcsec, template.noise_variance) == ("7", 0.03, 1e-6)
    np.testing.assert_array_equal(template.pixels, IMAGE)


@pytest.mark.parametrize(("image", "in_folder"), [(IMAGE[None], False), (IMAGE, True)])
def test_compressed_banks_are_read(tmp_path: Path, image: np.ndarray, in_folder: bool) -> None:
    path = tmp_path / "bank.fits.gz"
    fits.PrimaryHDU(image, fits.Header(SCALE)).writeto(path)
    (template,) = read_templates(tmp_path if in_folder else path)
    np.testing.assert_array_equal(template.pixels, IMAGE)


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ([Template("a", IMAGE, 0.03), Template("a", IMAGE, 0.03)], "source a is there twice: number"),
        ([Template("a", IMAGE, 0.0)], "source a has a pixel scale of 0 arcsec: correct it"),
        ([Template("a", IMAGE, float("inf"))], "source a has a pixel scale of inf arcsec: correct it"),
    ],
)
def test_templates(templates: list[Template], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        SourceBank(templates)


def test_images_without_noise_are_judged_too() -> None:
    bright = np.where(np.hypot(X, Y) < 15, IMAGE, 0.0).astype(np.float32)
    kept, report = audit_bank([Template("a", bright, 0.03), Template("b", bright + np.float32(0.5), 0.03)])
    assert [each.source_id for each in kept] == ["a"]
    assert report.templates[0].snr == np.inf
    assert "pedestal" in report.templates[1].fault
    assert audit_bank(kept)[1].summary() == "1 templates, none refused"
