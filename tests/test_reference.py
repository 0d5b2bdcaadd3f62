"""The arbiter itself, against sums that leave nothing to judgement: brute force, single integrals, GalSim."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate
from scipy.special import erf, i0e

from arcforge.engine import (
    deflection_shear,
    deflection_sie,
    reference,
    reference_images,
    reference_lenses,
    sersic_profile_Ie1,
    sersic_unit_total_flux,
)
from arcforge.engine.render import render_batch, render_unlensed

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
BETA = 3.5
FINE = 49  # samples a pixel and axis: converges as their square, to 1e-6 of peak through a PSF, 3e-5 without
SIZE, MARGIN = 16, 14
OPTIONS: dict[str, Any] = {"bands": "r", "stamp_size": SIZE, "pixscale_arcsec": 1.0}


@pytest.fixture(scope="module")
def scene(lens_rows: Any) -> dict[str, np.ndarray]:
    """A smooth lensed source; one pixel is one arcsec."""
    return lens_rows(
        theta_e_arcsec=3.1, lens_e=0.15, lens_phi_rad=0.4, lens_x_arcsec=0.3, lens_y_arcsec=-0.2, shear=0.05,
        shear_phi_rad=1.2, src_x_arcsec=0.4, src_y_arcsec=0.3, src_reff_arcsec=2.0, src_n=0.8, src_e=0.2,
        src_phi_rad=0.9, psf_fwhm_arcsec_r=3.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def light(scene: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return sample positions along an axis and the flux of each sample, (y, x), with a margin."""
    value = {name: column[0] for name, column in scene.items()}
    n_fine = (SIZE + 2 * MARGIN) * FINE
    axis = (np.arange(n_fine) + 0.5) / FINE - 0.5 * SIZE - MARGIN
    x, y = np.meshgrid(axis - value["lens_x_arcsec"], axis - value["lens_y_arcsec"])
    lens = deflection_sie(x, y, value["theta_e_arcsec"], value["lens_e"], value["lens_phi_rad"])
    shear = deflection_shear(x, y, value["shear"], value["shear_phi_rad"])
    q = (1.0 - value["src_e"]) / (1.0 + value["src_e"])
    profile = sersic_profile_Ie1(
        x - lens[0] - shear[0] - value["src_x_arcsec"], y - lens[1] - shear[1] - value["src_y_arcsec"],
        value["src_reff_arcsec"], q, value["src_phi_rad"], value["src_n"],
    )  # fmt: skip
    total = sersic_unit_total_flux(value["src_reff_arcsec"], q, value["src_n"])
    return axis, profile / total / FINE**2


def _pixels(size: int = SIZE) -> np.ndarray:
    return np.arange(size) - 0.5 * (size - 1)


def test_shares_no_code_with_the_fast_path() -> None:
    ours = set()
    for module in (reference, reference_images, reference_lenses):
        tree = ast.parse(Path(module.__file__).read_text())
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        ours |= {name for name in modules if name and name.startswith("arcforge")}
    allowed = {"arcforge.kernels.codes", "arcforge.engine.catalog", "arcforge.engine.psf_images"}  # data only
    allowed |= {"arcforge.engine.source_rows"}
    assert ours <= allowed | {"arcforge.engine.reference_images", "arcforge.engine.reference_lenses"}


@pytest.mark.parametrize("boxed", [False, True])
def test_gaussian_psf_by_brute_force(scene: Any, light: Any, boxed: bool) -> None:
    """Every sample times the PSF from there to every pixel (or its integral over the pixel), and no more."""
    axis, flux = light
    sigma = 3.0 / FWHM_PER_SIGMA
    way = _pixels()[:, None] - axis[None, :]
    if boxed:
        high, low = (way + 0.5) / (sigma * np.sqrt(2.0)), (way - 0.5) / (sigma * np.sqrt(2.0))
        line = 0.5 * (erf(high) - erf(low))
    else:
        line = np.exp(-0.5 * (way / sigma) ** 2) / (np.sqrt(2.0 * np.pi) * sigma)
    exact = line @ flux @ line.T
    response = "box" if boxed else "in_psf"
    image = render_batch(scene, variant="reference", pixel_response=response, **OPTIONS)[0, 0]
    assert np.abs(image - exact).max() < 3e-6 * exact.max()


def test_moffat_psf_by_brute_force(scene: Any, light: Any) -> None:
    axis, flux = light
    alpha2 = 9.0 / (4.0 * (2.0 ** (1.0 / BETA) - 1.0))
    rows = scene | {"psf_model": np.array(["moffat"]), "moffat_beta": np.array([BETA])}
    image = render_batch(rows, variant="reference", **OPTIONS)[0, 0]
    for j, i in ((0, 0), (7, 8), (11, 3), (15, 9)):
        r2 = (axis[None, :] - _pixels()[i]) ** 2 + (axis[:, None] - _pixels()[j]) ** 2
        exact = np.sum(flux * (BETA - 1.0) / (np.pi * alpha2) * (1.0 + r2 / alpha2) ** -BETA)
        assert image[j, i] == pytest.approx(
            exact, abs=3e-5 * float(image.max())
        )  # light beyond the sum's margin


def test_no_psf_by_brute_force(scene: Any, light: Any) -> None:
    _, flux = light
    inner = flux[MARGIN * FINE : -MARGIN * FINE, MARGIN * FINE : -MARGIN * FINE]
    exact = inner.reshape(SIZE, FINE, SIZE, FINE).sum(axis=(1, 3))
    image = render_batch(scene | {"psf_model": np.array(["none"])}, variant="reference", **OPTIONS)[0, 0]
    assert np.abs(image - exact).max() < 5e-5 * exact.max()


@pytest.mark.parametrize("n", [0.4, 1.0, 4.0, 6.0])
def test_cusps_by_a_radial_integral(lens_rows: Any, n: float) -> None:
    """A round unlensed source through a Gaussian: at distance d a single integral, without samples."""
    reff, fwhm, size = 1.1, 2.4, 11
    sigma = fwhm / FWHM_PER_SIGMA
    total = sersic_unit_total_flux(reff, 1.0, n)

    def at(distance: float) -> float:
        def integrand(s: float) -> float:  # r = s^n: the cusp becomes smooth
            r = s**n
            kernel = np.exp(-0.5 * ((r - distance) / sigma) ** 2) * i0e(r * distance / sigma**2) / sigma**2
            return float(sersic_profile_Ie1(r, 0.0, reff, 1.0, 0.0, n) * kernel * r * n * s ** (n - 1.0))

        end = (distance + 12.0 * sigma) ** (1.0 / n)
        parts = np.linspace(0.0, end, 9)
        pieces = (integrate.quad(integrand, a, b, epsrel=1e-11, limit=200)[0] for a, b in pairwise(parts))
        return sum(pieces) / total

    rows = lens_rows(
        src_n=n, src_reff_arcsec=reff, src_x_arcsec=0.21, src_y_arcsec=-0.13, psf_fwhm_arcsec_r=fwhm
    )
    options: dict[str, Any] = {"bands": "r", "stamp_size": size, "pixscale_arcsec": 1.0}
    exact_image = render_unlensed(rows, variant="reference", **options)[0, 0]
    fast_image = render_unlensed(rows, rtol=1e-4, **options)[0, 0]
    peak = float(exact_image.max())
    for j, i in ((5, 5), (4, 5), (5, 7), (2, 3), (9, 1)):
        exact = at(float(np.hypot(_pixels(size)[i] - 0.21, _pixels(size)[j] + 0.13)))
        assert exact_image[j, i] == pytest.approx(exact, abs=2e-6 * peak)
        assert fast_image[j, i] == pytest.approx(exact, abs=1e-4 * peak)


def test_result_does_not_depend_on_its_own_tolerance(lens_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = lens_rows(
        lens_e=0.3, src_n=4.0, src_x_arcsec=0.2, src_e=0.3, src_phi_rad=0.5, psf_fwhm_arcsec_r=1.1
    )
    options: dict[str, Any] = {"bands": "r", "stamp_size": 13, "variant": "reference"}
    usual = render_batch(rows, **options)[0, 0]
    monkeypatch.setattr(reference, "CELL_TOLERANCE", reference.CELL_TOLERANCE / 8.0)
    finer = render_batch(rows, **options)[0, 0]
    assert np.abs(usual - finer).max() < 1e-6 * finer.max()


@pytest.mark.parametrize("variant", ["reference", "auto"])
def test_negative_shear_is_shear_across(lens_rows: Any, variant: str) -> None:
    common: dict[str, Any] = {"theta_e_arcsec": 0.8, "src_x_arcsec": 0.2}
    options: dict[str, Any] = {"bands": "r", "stamp_size": 13, "variant": variant}
    negative = render_batch(lens_rows(shear=-0.3, shear_phi_rad=0.4, **common), **options)
    across = render_batch(lens_rows(shear=0.3, shear_phi_rad=0.4 + np.pi / 2.0, **common), **options)
    assert np.abs(negative - across).max() < 1e-6 * across.max()


def test_faint_wing_of_an_image_off_the_stamp(lens_rows: Any) -> None:
    """The tolerance is relative to the peak, here 1e-4 of what the source would have on the stamp."""
    sigma = np.hypot(0.4, 3.0 / FWHM_PER_SIGMA)
    rows = lens_rows(
        src_n=0.5, src_reff_arcsec=0.4 * np.sqrt(2.0 * np.log(2.0)), src_x_arcsec=13.0, psf_fwhm_arcsec_r=3.0
    )
    image = render_unlensed(rows, variant="reference", **OPTIONS)[0, 0]
    r2 = (_pixels()[None, :] - 13.0) ** 2 + _pixels()[:, None] ** 2
    exact = np.exp(-0.5 * r2 / sigma**2) / (2.0 * np.pi * sigma**2)
    assert exact.max() < 1e-3 / (2.0 * np.pi * sigma**2)
    assert np.abs(image - exact).max() < 1e-5 * exact.max()


@pytest.mark.parametrize(("n", "rotated"), [(1.0, 0.7), (2.5, 1.9)])
def test_agrees_with_galsim(lens_rows: Any, n: float, rotated: float) -> None:
    """Another program, where it is installed; its half-light radius is that of the circle of equal area."""
    galsim = pytest.importorskip("galsim")
    q, reff, fwhm, size = 0.6, 0.6, 1.1, 33
    accurate = galsim.GSParams(
        folding_threshold=1e-4, maxk_threshold=1e-5, kvalue_accuracy=1e-7, xvalue_accuracy=1e-7,
        stepk_minimum_hlr=12,
    )  # fmt: skip
    source = galsim.Sersic(n, half_light_radius=reff * np.sqrt(q), flux=3.0, gsparams=accurate)
    source = source.shear(q=q, beta=rotated * galsim.radians).shift(0.3, -0.2)
    convolved = galsim.Convolve(source, galsim.Moffat(BETA, fwhm=fwhm, gsparams=accurate), gsparams=accurate)
    e = (1.0 - q) / (1.0 + q)
    rows = lens_rows(
        src_n=n, src_reff_arcsec=reff, src_e=e, src_phi_rad=rotated, src_x_arcsec=0.3, src_y_arcsec=-0.2,
        src_flux_nmgy_r=3.0, psf_model="moffat", moffat_beta=BETA, psf_fwhm_arcsec_r=fwhm,
    )  # fmt: skip
    options: dict[str, Any] = {
        "bands": "r",
        "stamp_size": size,
        "pixscale_arcsec": 0.262,
        "variant": "reference",
    }
    for response, method in (("in_psf", "no_pixel"), ("box", "fft")):
        theirs = convolved.drawImage(nx=size, ny=size, scale=0.262, method=method, dtype=float).array
        ours = render_unlensed(rows, pixel_response=response, **options)[0, 0]
        assert np.abs(ours - theirs).max() < 2e-4 * theirs.max()
