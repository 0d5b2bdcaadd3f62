"""Lensed images against lenstronomy, an independent program, with the same samples and then with its PSF."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arcforge.engine.rays import central_brightness, sersic_bn
from arcforge.engine.render import render_batch

pytestmark = pytest.mark.compiled  # holds pixels of the kernels to others'

SIZE, SCALE = 48, 0.2
SAMPLES = 4

# theta_E, lens e, lens phi, shear, its phi, source x, y, R_e, n, source e, source phi, lens x, y
SCENES = {
    "quad": (1.4, 0.25, 0.7, 0.05, 0.3, 0.05, -0.08, 0.35, 1.0, 0.3, 1.9, 0.0, 0.0),
    "arc of n 2.5": (1.1, 0.4, 2.2, 0.08, 2.6, 0.3, 0.2, 0.5, 2.5, 0.1, 0.4, 0.07, -0.11),
    "de Vaucouleurs": (1.6, 0.1, 0.2, 0.0, 0.0, -0.2, 0.35, 0.6, 4.0, 0.4, 2.8, -0.13, 0.06),
    "flat source, n 0.5": (1.2, 0.0, 0.0, 0.1, 1.0, 0.1, 0.1, 0.4, 0.5, 0.2, 0.9, 0.0, 0.0),
}


def _components(e: float, phi: float) -> tuple[float, float]:
    return e * np.cos(2.0 * phi), e * np.sin(2.0 * phi)


def _rows(lens_rows: Any, scene: str, **columns: Any) -> dict[str, np.ndarray]:
    names = (
        "theta_e_arcsec", "lens_e", "lens_phi_rad", "shear", "shear_phi_rad", "src_x_arcsec", "src_y_arcsec",
        "src_reff_arcsec", "src_n", "src_e", "src_phi_rad", "lens_x_arcsec", "lens_y_arcsec",
    )  # fmt: skip
    return lens_rows(**dict(zip(names, SCENES[scene], strict=True)), src_flux_nmgy_r=5.0, **columns)


def _sersic(
    flux: float, x: float, y: float, reff: float, n: float, src_e: float, src_phi: float
) -> dict[str, float]:
    """Return lenstronomy's parameters of our profile.

    Its elliptical radius is sqrt(q x^2 + y^2 / q), so its R_sersic is sqrt(q) times the major-axis one; and
    its b_n is the straight line 1.9992 n - 0.3271 (3 % off at n = 0.5). Radius and amplitude are scaled so
    that its profile is ours exactly: b' (R / R')^(1/n) = b_n (R / R_e)^(1/n).
    """
    from lenstronomy.LightModel.Profiles.sersic import SersicElliptic

    q = (1.0 - src_e) / (1.0 + src_e)
    exact, theirs = float(sersic_bn(np.float64(n))), float(SersicElliptic().b_n(n))
    src_e1, src_e2 = _components(src_e, src_phi)
    central = central_brightness(*(np.float64(value) for value in (n, exact, q, reff)))
    return {
        "amp": flux * float(central) * np.exp(-theirs), "n_sersic": n,
        "R_sersic": np.sqrt(q) * reff * (theirs / exact) ** n,
        "e1": src_e1, "e2": src_e2, "center_x": x, "center_y": y,
    }  # fmt: skip


def _lenstronomy(
    scene: str, psf: dict[str, Any], numerics: dict[str, Any], more: tuple[tuple[float, ...], ...] = ()
) -> np.ndarray:
    """Return lenstronomy's image of the scene, flux 5.

    ``more`` are further components: share of the flux, place from the first one, R_e, n, e, phi.
    """
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    theta_e, e, phi, shear, shear_phi, x, y, reff, n, src_e, src_phi, lens_x, lens_y = SCENES[scene]
    first = -0.5 * (SIZE - 1) * SCALE
    data = ImageData(
        image_data=np.zeros((SIZE, SIZE)), ra_at_xy_0=first, dec_at_xy_0=first,
        transform_pix2angle=SCALE * np.eye(2), background_rms=1.0, exposure_time=1.0,
    )  # fmt: skip
    e1, e2 = _components(e, phi)
    gamma1, gamma2 = _components(shear, shear_phi)
    lens = [
        {"theta_E": theta_e, "e1": e1, "e2": e2, "center_x": lens_x, "center_y": lens_y},
        {"gamma1": gamma1, "gamma2": gamma2, "ra_0": lens_x, "dec_0": lens_y},
    ]
    x, y = lens_x + x, lens_y + y
    rest = 5.0 * (1.0 - sum(each[0] for each in more))
    source = [_sersic(rest, x, y, reff, n, src_e, src_phi)]
    source += [_sersic(5.0 * share, x + dx, y + dy, *shape) for share, dx, dy, *shape in more]
    light = LightModel(["SERSIC_ELLIPSE"] * len(source))
    model = ImageModel(
        data, PSF(**psf), LensModel(["SIE", "SHEAR"]), source_model_class=light, kwargs_numerics=numerics
    )
    return np.asarray(model.image(lens, source))


@pytest.mark.parametrize("scene", SCENES)
def test_same_samples_give_the_same_image(scene: str, lens_rows: Any) -> None:
    """4 x 4 midpoint samples a pixel, no PSF: the two programs do the same sums."""
    theirs = _lenstronomy(scene, {"psf_type": "NONE"}, {"supersampling_factor": SAMPLES})
    rows = _rows(lens_rows, scene, psf_model="none")
    ours = render_batch(rows, bands="r", stamp_size=SIZE, pixscale_arcsec=SCALE, variant="uniform4")[0, 0]
    assert ours.shape == theirs.shape
    assert theirs.max() > 0.01
    assert np.abs(ours - theirs).max() < 2e-5 * theirs.max()  # rounding; 1e-3 would do
    assert ours.sum(dtype=np.float64) == pytest.approx(theirs.sum(), rel=1e-4)


def test_its_supersampled_gaussian_psf_is_our_box_response(lens_rows: Any) -> None:
    """Convolved on a grid 5 times finer, then averaged over the pixel: a PSF that lacks the pixel."""
    fwhm = 0.9
    theirs = _lenstronomy(
        "quad", {"psf_type": "GAUSSIAN", "fwhm": fwhm, "pixel_size": SCALE, "truncation": 6},
        {"supersampling_factor": 5, "supersampling_convolution": True},
    )  # fmt: skip
    rows = _rows(lens_rows, "quad", psf_fwhm_arcsec_r=fwhm)
    options: dict[str, Any] = {"bands": "r", "stamp_size": SIZE, "pixscale_arcsec": SCALE}
    boxed = render_batch(rows, pixel_response="box", **options)[0, 0]
    inner = (slice(8, -8), slice(8, -8))  # it knows no light from beyond the stamp
    assert np.abs(boxed - theirs)[inner].max() < 1e-3 * theirs.max()
    sharp = render_batch(rows, **options)[0, 0]
    assert np.abs(sharp - theirs)[inner].max() > 5e-3 * theirs.max()


def test_components_add_up_as_source_models_do(lens_rows: Any) -> None:
    """A disk with a bulge and a clump beside it, as three source models of one scene."""
    more = ((0.3, 0.0, 0.0, 0.12, 3.0, 0.15, 1.9), (0.1, 0.25, -0.1, 0.05, 1.0, 0.0, 0.0))
    theirs = _lenstronomy("quad", {"psf_type": "NONE"}, {"supersampling_factor": SAMPLES}, more)
    rows = _rows(lens_rows, "quad", psf_model="none")
    names = ("fraction", "x_arcsec", "y_arcsec", "reff_arcsec", "n", "e", "phi_rad")
    for number, values in enumerate(more, start=2):
        rows |= {f"src{number}_{name}": np.array([value]) for name, value in zip(names, values, strict=True)}
    ours = render_batch(rows, bands="r", stamp_size=SIZE, pixscale_arcsec=SCALE, variant="uniform4")[0, 0]
    assert np.abs(ours - theirs).max() < 2e-5 * theirs.max()
    single = _lenstronomy("quad", {"psf_type": "NONE"}, {"supersampling_factor": SAMPLES})
    assert np.abs(single - theirs).max() > 0.1 * theirs.max()
