"""Rendered images against closed forms: Gaussian sources, points, magnification, the pixel's response."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import gammaincinv, i0e

from arcforge.engine.errors import RenderError
from arcforge.engine.render import render_batch, render_unlensed

pytestmark = pytest.mark.compiled  # holds pixels of the kernels to others'

SCALE = 0.262
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
BETA = 3.5
# A Sersic profile of n = 0.5 is a Gaussian of this width.
REFF_PER_SIGMA = np.sqrt(2.0 * np.log(2.0))


def _centred(size: int) -> np.ndarray:
    return np.arange(size) - 0.5 * (size - 1)


def _moffat(r2: np.ndarray, fwhm: float) -> np.ndarray:
    alpha2 = fwhm**2 / (4.0 * (2.0 ** (1.0 / BETA) - 1.0))
    return (BETA - 1.0) / (np.pi * alpha2) * (1.0 + r2 / alpha2) ** -BETA


def _small_source(
    model: str, fwhm: float, sigma: float, size: int, x: float, y: float, boxed: bool
) -> np.ndarray:
    """A round Gaussian of ``sigma`` at (x, y) through the PSF, summed directly; all in pixels."""
    if model == "gaussian":
        sigma, fwhm = np.hypot(sigma, fwhm / FWHM_PER_SIGMA), 0.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    weights = weights / weights.sum()
    box_nodes, box_weights = np.polynomial.legendre.leggauss(5) if boxed else (np.zeros(1), np.array([2.0]))
    image = np.zeros((size, size))
    grid = _centred(size)
    for bx, wx in zip(box_nodes / 2.0, box_weights / 2.0, strict=True):
        for by, wy in zip(box_nodes / 2.0, box_weights / 2.0, strict=True):
            dx, dy = (grid - x + bx)[None, :], (grid - y + by)[:, None]
            if fwhm == 0.0:
                image += wx * wy * np.exp(-0.5 * (dx**2 + dy**2) / sigma**2) / (2.0 * np.pi * sigma**2)
                continue
            for hx, vx in zip(nodes, weights, strict=True):
                for hy, vy in zip(nodes, weights, strict=True):
                    image += (
                        wx * wy * vx * vy * _moffat((dx - sigma * hx) ** 2 + (dy - sigma * hy) ** 2, fwhm)
                    )
    return image


def _offset_of(image: np.ndarray, model: np.ndarray) -> tuple[float, float]:
    """Return the shift (x, y) [pix] and so the centroid's error by least squares, blind to a stamp's edge."""
    along_y, along_x = np.gradient(model)
    basis = np.stack([-along_x.ravel(), -along_y.ravel(), model.ravel()], axis=1)
    shift = np.linalg.lstsq(basis, (image - model).ravel(), rcond=None)[0]
    return float(shift[0]), float(shift[1])


# every grid: 8, 4, 2 and 1 nodes to the pixel, by FWHM [pix]
WIDTHS = [0.7, 1.2, 2.2, 5.0]


@pytest.mark.parametrize("size", [24, 25])
@pytest.mark.parametrize("fwhm", WIDTHS)
@pytest.mark.parametrize("model", ["gaussian", "moffat"])
def test_impulse_lands_where_it_should_in_every_grid(
    lens_rows: Any, size: int, fwhm: float, model: str
) -> None:
    rng = np.random.default_rng([size, int(10 * fwhm)])
    x, y = rng.uniform(-1.5, 1.5, 2)
    sigma = 0.05
    rows = lens_rows(
        src_n=0.5, src_reff_arcsec=sigma * REFF_PER_SIGMA, src_x_arcsec=x, src_y_arcsec=y, psf_model=model,
        psf_fwhm_arcsec_r=fwhm,
    )  # fmt: skip
    for boxed in (False, True):
        image = render_unlensed(
            rows, bands="r", stamp_size=size, pixscale_arcsec=1.0, pixel_response="box" if boxed else "in_psf"
        )[0, 0]
        exact = _small_source(model, fwhm, sigma, size, x, y, boxed)
        assert np.abs(image - exact).max() < 1e-3 * exact.max()
        assert np.abs(_offset_of(image, exact)).max() < 1e-3


@pytest.mark.parametrize("size", [24, 25])
@pytest.mark.parametrize("fwhm", [3.0, 4.5])
@pytest.mark.parametrize("lens_x", [0.0, 10.0])
def test_impulse_through_a_psf_image(lens_rows: Any, size: int, fwhm: float, lens_x: float) -> None:
    """The image is a sampled Gaussian, so the closed form holds for it too; at 10 pix float64 is used."""
    rng = np.random.default_rng([size, int(10 * fwhm)])
    x, y = rng.uniform(-1.5, 1.5, 2)
    sigma = 0.05
    psf = _small_source("gaussian", fwhm, 0.0, 31, 0.0, 0.0, boxed=False)[None]
    rows = lens_rows(
        src_n=0.5, src_reff_arcsec=sigma * REFF_PER_SIGMA, src_x_arcsec=x, src_y_arcsec=y, psf_model="image",
        psf_id=7, lens_x_arcsec=lens_x,
    )  # fmt: skip
    for boxed in (False, True):
        image = render_unlensed(
            rows, bands="r", stamp_size=size, pixscale_arcsec=1.0, psf_images={7: psf},
            pixel_response="box" if boxed else "in_psf",
        )[0, 0]  # fmt: skip
        exact = _small_source("gaussian", fwhm, sigma, size, lens_x + x, y, boxed)
        assert np.abs(image - exact).max() < 1e-3 * exact.max()
        assert np.abs(_offset_of(image, exact)).max() < 1e-3


@pytest.mark.parametrize("size", [24, 25])
@pytest.mark.parametrize("model", ["gaussian", "moffat"])
@pytest.mark.parametrize("variant", ["uniform4", "auto"])
def test_impulse_in_single_and_double_precision_and_by_uniform_samples(
    lens_rows: Any, size: int, model: str, variant: str
) -> None:
    """A row whose image may lie off the stamp takes float64 transforms; here the lens is near the edge."""
    fwhm, sigma = 4.0, 0.8
    for lens_x in (0.0, 0.5 * size - 2.0):
        rows = lens_rows(
            src_n=0.5, src_reff_arcsec=sigma * REFF_PER_SIGMA, src_x_arcsec=-2.3, src_y_arcsec=0.37,
            lens_x_arcsec=lens_x, psf_model=model, psf_fwhm_arcsec_r=fwhm,
        )  # fmt: skip
        image = render_unlensed(rows, bands="r", stamp_size=size, pixscale_arcsec=1.0, variant=variant)[0, 0]
        exact = _small_source(model, fwhm, sigma, size, lens_x - 2.3, 0.37, boxed=False)
        assert np.abs(image - exact).max() < 3e-4 * exact.max()
        assert np.abs(_offset_of(image, exact)).max() < 1e-3


@pytest.mark.parametrize("model", ["gaussian", "moffat"])
@pytest.mark.parametrize("variant", ["uniform4", "auto"])
def test_no_light_on_the_opposite_edge(lens_rows: Any, model: str, variant: str) -> None:
    """Sources at each edge and beyond a corner: what is far from them is what the PSF puts there, no more."""
    size, sigma, fwhm = 32, 0.6, 4.0
    places = np.array([(-15.3, 4.2), (15.3, -3.0), (2.0, -15.4), (0.3, 15.2), (14.8, 14.9), (17.5, -17.5)])
    rows = lens_rows(
        len(places), src_n=0.5, src_reff_arcsec=sigma * REFF_PER_SIGMA, lens_x_arcsec=places[:, 0],
        lens_y_arcsec=places[:, 1], psf_model=model, psf_fwhm_arcsec_r=fwhm,
    )  # fmt: skip
    images = render_unlensed(rows, bands="r", stamp_size=size, pixscale_arcsec=1.0, variant=variant)[:, 0]
    grid = _centred(size)
    peak = _small_source(model, fwhm, sigma, 1, 0.0, 0.0, boxed=False).max()
    for image, (x, y) in zip(images, places, strict=True):
        exact = _small_source(model, fwhm, sigma, size, x, y, boxed=False)
        far = (grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2 > 20.0**2
        assert far.any()
        assert np.abs(image - exact)[far].max() < 1e-6 * peak


@pytest.mark.parametrize("fwhm", [2.0, 3.1, 3.6, 5.0, 8.0])
@pytest.mark.parametrize("model", ["gaussian", "moffat"])
def test_wing_of_an_image_off_the_stamp(lens_rows: Any, model: str, fwhm: float) -> None:
    """What a PSF brings in from an image 1 to 12 pixels beyond the edge, as a fraction of what is seen."""
    size, sigma = 28, 0.1
    rng = np.random.default_rng(12)
    distance = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0])
    x, y = 0.5 * size + distance + rng.uniform(-0.5, 0.5, 7), rng.uniform(-13.0, 13.0, 7)
    rows = lens_rows(
        7, src_n=0.5, src_reff_arcsec=sigma * REFF_PER_SIGMA, src_x_arcsec=x, src_y_arcsec=y, psf_model=model,
        psf_fwhm_arcsec_r=fwhm,
    )  # fmt: skip
    images = render_unlensed(rows, bands="r", stamp_size=size, pixscale_arcsec=1.0)[:, 0]
    peak = _small_source(model, fwhm, sigma, 1, 0.0, 0.0, boxed=False).max()
    seen = 0
    for image, x_0, y_0 in zip(images, x, y, strict=True):
        exact = _small_source(model, fwhm, sigma, size, x_0, y_0, boxed=False)
        if exact.max() > 5e-6 * peak:
            seen += 1
            assert np.abs(image - exact).max() < 1e-3 * exact.max()
    assert seen >= 2


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("size", [40, 41])
@pytest.mark.parametrize("variant", ["auto", "uniform1", "uniform2", "uniform4", "uniform8"])
def test_elliptical_gaussian_source_through_gaussian_psf_is_a_gaussian(
    lens_rows: Any, size: int, boxed: bool, variant: str
) -> None:
    """Every pixel in closed form: orientation, axis ratio, normalisation, major-axis radius.

    The source is smooth enough for one sample a pixel: what remains is what a variant does with its samples.
    """
    phi, e, sigma, fwhm = 0.6, 0.3, 2.5, 3.2
    q = (1.0 - e) / (1.0 + e)
    rows = lens_rows(
        src_n=0.5, src_reff_arcsec=sigma * REFF_PER_SIGMA, src_e=e, src_phi_rad=phi, src_x_arcsec=1.3,
        src_y_arcsec=-0.8, src_flux_nmgy_r=7.0, psf_fwhm_arcsec_r=fwhm,
    )  # fmt: skip
    image = render_unlensed(
        rows, bands="r", stamp_size=size, pixscale_arcsec=1.0, rtol=1e-4, variant=variant,
        pixel_response="box" if boxed else "in_psf",
    )[0, 0]  # fmt: skip
    turn = np.array([[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]])
    covariance = turn @ np.diag([sigma**2, (q * sigma) ** 2]) @ turn.T + (
        fwhm / FWHM_PER_SIGMA
    ) ** 2 * np.eye(2)
    inverse = np.linalg.inv(covariance)
    nodes, weights = np.polynomial.legendre.leggauss(6) if boxed else (np.zeros(1), np.array([2.0]))
    exact = np.zeros((size, size))
    for bx, wx in zip(nodes / 2.0, weights / 2.0, strict=True):
        for by, wy in zip(nodes / 2.0, weights / 2.0, strict=True):
            dx, dy = (_centred(size) - 1.3 + bx)[None, :], (_centred(size) + 0.8 + by)[:, None]
            chi2 = inverse[0, 0] * dx**2 + 2.0 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
            exact += wx * wy * np.exp(-0.5 * chi2)
    exact *= 7.0 / (2.0 * np.pi * np.sqrt(np.linalg.det(covariance)))
    assert np.abs(image - exact).max() < 1e-4 * exact.max()


@pytest.mark.parametrize(
    ("n", "reff"), [(0.3, 0.8), (0.5, 0.6), (1.0, 0.4), (2.5, 0.15), (4.0, 0.05), (6.0, 0.03)]
)
@pytest.mark.parametrize("model", ["gaussian", "moffat", "none"])
def test_unlensed_flux_is_the_catalogues(lens_rows: Any, n: float, reff: float, model: str) -> None:
    rows = lens_rows(
        src_n=n, src_reff_arcsec=reff, src_e=0.2, src_phi_rad=0.4, src_flux_nmgy_r=3.0, psf_model=model
    )
    total = render_unlensed(rows, bands="r", stamp_size=120)[0, 0].astype(np.float64).sum()
    assert total == pytest.approx(3.0, rel=5e-4)


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-4])
def test_sis_magnifies_by_twice_theta_e_over_beta(lens_rows: Any, rtol: float) -> None:
    """Both images have mu = 2 theta_E / beta together; 1 / beta averaged over a Gaussian source is Rice's."""
    theta_e, reff = 1.3, 0.12
    beta = np.array([0.35, 0.5, 0.8])
    rows = lens_rows(
        3, lens_model="SIS", theta_e_arcsec=theta_e, src_n=0.5, src_reff_arcsec=reff,
        src_x_arcsec=beta * np.cos(0.7), src_y_arcsec=beta * np.sin(0.7), psf_fwhm_arcsec_r=0.9,
    )  # fmt: skip
    total = render_batch(rows, bands="r", stamp_size=48, rtol=rtol).astype(np.float64).sum(axis=(1, 2, 3))
    sigma = reff / REFF_PER_SIGMA
    mean_inverse = np.sqrt(np.pi / 2.0) / sigma * i0e(beta**2 / (4.0 * sigma**2))
    assert total == pytest.approx(2.0 * theta_e * mean_inverse, rel=5e-4)
    assert total == pytest.approx(2.0 * theta_e / beta, rel=0.06)  # a point source's, for scale


def test_source_outside_the_einstein_radius_has_one_image(lens_rows: Any) -> None:
    theta_e, beta, reff = 0.7, 1.6, 0.1
    rows = lens_rows(
        lens_model="SIS", theta_e_arcsec=theta_e, src_n=0.5, src_reff_arcsec=reff, src_y_arcsec=beta
    )
    total = float(render_batch(rows, bands="r", stamp_size=48).astype(np.float64).sum())
    sigma = reff / REFF_PER_SIGMA
    mean_inverse = np.sqrt(np.pi / 2.0) / sigma * i0e(beta**2 / (4.0 * sigma**2))
    assert total == pytest.approx(1.0 + theta_e * mean_inverse, rel=5e-4)


def test_einstein_ring_has_its_radius(lens_rows: Any) -> None:
    """The light of a source behind the centre lies at theta_E."""
    rows = lens_rows(lens_model="SIS", theta_e_arcsec=2.0, src_reff_arcsec=0.03, psf_fwhm_arcsec_r=0.6)
    image = render_batch(rows, bands="r", stamp_size=48, pixscale_arcsec=0.131)[0, 0].astype(np.float64)
    x, y = np.meshgrid(_centred(48), _centred(48))
    radius = np.hypot(x, y) * 0.131
    assert np.sum(image * radius) / image.sum() == pytest.approx(2.0, rel=0.01)


def test_box_response_is_the_convolution_with_one_pixel(lens_rows: Any) -> None:
    """The "box" image is the "in_psf" one averaged over the pixel (3 x 3 Gauss nodes, by moving the lens)."""
    nodes, weights = np.polynomial.legendre.leggauss(3)
    for model in ("gaussian", "moffat"):
        rows = lens_rows(
            theta_e_arcsec=1.1, lens_e=0.2, src_x_arcsec=0.1, src_y_arcsec=0.15, src_e=0.2, psf_model=model
        )
        options: dict[str, Any] = {"bands": "r", "stamp_size": 32, "rtol": 1e-4}
        mean = np.zeros((32, 32))
        for shift_x, wx in zip(nodes, weights, strict=True):
            for shift_y, wy in zip(nodes, weights, strict=True):
                moved = rows | {
                    "lens_x_arcsec": np.array([0.5 * shift_x * SCALE]),
                    "lens_y_arcsec": np.array([0.5 * shift_y * SCALE]),
                }
                mean += 0.25 * wx * wy * render_batch(moved, **options)[0, 0]
        boxed = render_batch(rows, pixel_response="box", **options)[0, 0]
        sharp = render_batch(rows, **options)[0, 0]
        assert np.abs(boxed - mean).max() < 2e-4 * mean.max()
        assert np.abs(sharp - mean).max() > 5e-3 * mean.max()  # the two responses do differ


def test_lens_offset_of_whole_pixels_moves_the_image(lens_rows: Any) -> None:
    options: dict[str, Any] = {"bands": "r", "stamp_size": 40, "rtol": 1e-4}
    rows = lens_rows(
        theta_e_arcsec=0.9, lens_e=0.2, lens_phi_rad=0.3, src_x_arcsec=0.1, psf_fwhm_arcsec_r=1.0
    )
    centred = render_batch(rows, **options)[0, 0]
    offset = {"lens_x_arcsec": np.array([3 * SCALE]), "lens_y_arcsec": np.array([-2 * SCALE])}
    moved = render_batch(rows | offset, **options)[0, 0]
    error = np.abs(moved[:-2, 3:] - centred[2:, :-3])
    assert error.max() < 1e-4 * centred.max()


def test_source_offset_is_along_x_then_y(lens_rows: Any) -> None:
    """An axis order or sign that is wrong in both places would pass a symmetric test."""
    rows = lens_rows(src_x_arcsec=2.0, src_y_arcsec=-1.0, src_reff_arcsec=0.1)
    image = render_unlensed(rows, bands="r", stamp_size=32)[0, 0]
    j, i = np.unravel_index(np.argmax(image), image.shape)
    assert (i - 15.5) * SCALE == pytest.approx(2.0, abs=0.6 * SCALE)
    assert (j - 15.5) * SCALE == pytest.approx(-1.0, abs=0.6 * SCALE)


def test_shear_alone_stretches_as_stated(lens_rows: Any) -> None:
    """Without a lens to speak of, a round Gaussian source under shear is an ellipse with known axes."""
    gamma, phi, sigma = 0.2, 0.5, 2.5
    rows = lens_rows(
        theta_e_arcsec=1e-6, shear=gamma, shear_phi_rad=phi, src_n=0.5,
        src_reff_arcsec=sigma * REFF_PER_SIGMA, psf_fwhm_arcsec_r=2.5,
    )  # fmt: skip
    image = render_batch(rows, bands="r", stamp_size=48, pixscale_arcsec=1.0)[0, 0].astype(np.float64)
    x, y = np.meshgrid(_centred(48), _centred(48))
    along, across = np.cos(phi) * x + np.sin(phi) * y, np.cos(phi) * y - np.sin(phi) * x
    psf = (2.5 / FWHM_PER_SIGMA) ** 2
    # beta = (1 - gamma) x along phi: the image is longer along phi
    assert np.sum(image * along**2) / image.sum() == pytest.approx((sigma / (1 - gamma)) ** 2 + psf, rel=2e-3)
    assert np.sum(image * across**2) / image.sum() == pytest.approx(
        (sigma / (1 + gamma)) ** 2 + psf, rel=2e-3
    )
    assert image.sum() == pytest.approx(1.0 / (1.0 - gamma**2), rel=5e-4)


def test_too_narrow_a_psf_is_refused_with_the_way_out(lens_rows: Any) -> None:
    rows = lens_rows(3, psf_fwhm_arcsec_r=np.array([1.0, 0.01, 1.0]))
    with pytest.raises(RenderError, match=r'row 1: a PSF of FWHM 0\.0382 pix .* set psf_model to "none"'):
        render_batch(rows, bands="r")


def test_half_light_radius_holds_half_of_the_rendered_light(lens_rows: Any) -> None:
    """Without PSF and round, half of the flux lies within R_e, on a fine pixel scale."""
    rows = lens_rows(src_n=2.0, src_reff_arcsec=1.0, psf_model="none")
    image = render_unlensed(rows, bands="r", stamp_size=401, pixscale_arcsec=0.02)[0, 0].astype(np.float64)
    x, y = np.meshgrid(_centred(401), _centred(401))
    inside = image[np.hypot(x, y) * 0.02 < 1.0].sum()
    assert inside == pytest.approx(0.5, abs=2e-3)
    assert float(gammaincinv(4.0, 0.5)) == pytest.approx(3.6720607, rel=1e-6)
