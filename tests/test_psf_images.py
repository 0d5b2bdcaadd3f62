"""PSF images: checked before use, centred, and the same as the analytic PSF where they hold one."""

import numpy as np
import pytest

from arcforge.engine import render_batch
from arcforge.engine.certificate import hard_rows
from arcforge.engine.errors import PsfError, RenderError
from arcforge.engine.psf_images import PsfImages


def gaussian_image(fwhm_pix, side=41, x=0.0, y=0.0):
    axis = np.arange(side) - side // 2
    squared = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
    image = np.exp(-4.0 * np.log(2.0) * squared / fwhm_pix**2)
    return image / image.sum()


def rows(n, seed, model="image", fwhm_pix=0.0):
    catalog = hard_rows(n, seed)
    catalog["psf_model"] = np.full(n, model)
    catalog["psf_id"] = np.arange(n)
    catalog["psf_fwhm_arcsec_r"] = np.full(n, fwhm_pix * 0.262)
    return catalog


@pytest.mark.parametrize("response", ["in_psf", "box"])
@pytest.mark.parametrize("fwhm_pix", [3.2, 4.5, 6.5])
def test_image_of_a_gaussian_is_the_gaussian(fwhm_pix, response):
    images = {number: gaussian_image(fwhm_pix)[None] for number in range(4)}
    ours = render_batch(rows(4, 5), bands="r", psf_images=images, pixel_response=response)
    analytic = render_batch(rows(4, 5, "gaussian", fwhm_pix), bands="r", pixel_response=response)
    peak = analytic.max(axis=(1, 2, 3))
    assert (np.abs(ours - analytic).max(axis=(1, 2, 3)) < 1e-3 * peak).all()


@pytest.mark.compiled
def test_survey_psfs_agree_with_the_reference(survey_data):
    psfs = np.load(survey_data / "psf" / "psf_decam_legacypipe.npz")["psf"][:, None]
    catalog = rows(3, 6)
    reference = render_batch(catalog, bands="r", psf_images=psfs, variant="reference")
    for rtol in (1e-3, 1e-4):
        image = render_batch(catalog, bands="r", psf_images=psfs, rtol=rtol)
        assert (np.abs(image - reference).max(axis=(1, 2, 3)) < rtol * reference.max(axis=(1, 2, 3))).all()


def test_an_off_centre_image_moves_the_light_by_as_much():
    """The image's own offset, within the tolerance, is part of the PSF; nothing recentres it in silence."""
    catalog = {name: values[:1] for name, values in rows(1, 5).items()}
    centred = render_batch(catalog, bands="r", psf_images={0: gaussian_image(4.0)[None]})[0, 0]
    moved = render_batch(catalog, bands="r", psf_images={0: gaussian_image(4.0, x=0.4, y=-0.2)[None]})[0, 0]
    axis = np.arange(64)
    for along, expected in ((0, 0.4), (1, -0.2)):
        shift = (moved.sum(axis=along) @ axis) / moved.sum() - (
            centred.sum(axis=along) @ axis
        ) / centred.sum()
        assert shift == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (gaussian_image(4.0)[:-1, :-1], "40 pixels a side"),
        (1.1 * gaussian_image(4.0), "add up to 1.1"),
        (gaussian_image(4.0, x=1.0), "centroid at \\(1.00"),
        (gaussian_image(4.0)[:, :-2], "shape"),
        (np.where(gaussian_image(4.0) > 0.03, np.nan, gaussian_image(4.0)), "NaN"),
    ],
)
def test_a_bad_image_is_refused_by_its_number(image, words):
    with pytest.raises(PsfError, match=f"PSF 7.*{words}"):
        PsfImages({7: image[None]}, 1)


def test_a_row_without_its_image_is_named():
    with pytest.raises(RenderError, match="row 1: PSF image 1"):
        render_batch(rows(2, 5), bands="r", psf_images={0: gaussian_image(4.0)[None]})
    with pytest.raises(RenderError, match="row 0"):
        render_batch(rows(2, 5), bands="r")
