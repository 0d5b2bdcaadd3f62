"""Source images by every lens on little stamps: quick enough for kernels that are not compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arcforge.engine import render_batch
from arcforge.engine.source_bank import SourceBank, Template

FWHM_PIX, SCALE = 8.0, 0.05  # of the image
RTOL = 1e-2

LENSES: dict[str, dict[str, Any]] = {
    "SIE": {"lens_e": 0.2, "lens_phi_rad": 0.4},
    "SIS": {"shear": 0.05, "shear_phi_rad": 1.0},
    "EPL": {"lens_e": 0.1, "lens_phi_rad": 0.4, "lens_gamma": 1.9},
    "NFW": {"nfw_rs_arcsec": 4.0},
}


def catalog(lens: str, **changes: Any) -> dict[str, Any]:
    columns = {
        "lens_model": lens, "theta_e_arcsec": 0.8, "lens_e": 0.0, "lens_phi_rad": 0.0,
        "src_phi_rad": 0.0, "src_x_arcsec": 0.15, "src_y_arcsec": -0.1,
        "psf_model": "gaussian", "src_flux_nmgy_r": 1.0, "psf_fwhm_arcsec_r": 1.0,
    }  # fmt: skip
    return {name: np.array([value]) for name, value in (columns | LENSES[lens] | changes).items()}


@pytest.mark.parametrize(("lens", "psf"), [*((lens, "gaussian") for lens in LENSES), ("SIE", "none")])
def test_a_gaussian_image_is_a_sersic_source_of_index_one_half(lens: str, psf: str) -> None:
    y, x = np.mgrid[:33, :33] - 16.0
    pixels = np.exp2(-4.0 * (x * x + y * y) / FWHM_PIX**2).astype(np.float32)
    bank = SourceBank([Template("a", pixels, SCALE)])
    options: dict[str, Any] = {"stamp_size": 16, "bands": "r", "rtol": RTOL, "threads": 1}
    image = render_batch(catalog(lens, psf_model=psf, source_id="a"), sources=bank, **options)
    shape = {"src_reff_arcsec": 0.5 * FWHM_PIX * SCALE, "src_n": 0.5, "src_e": 0.0}
    profile = render_batch(catalog(lens, psf_model=psf, **shape), **options)
    assert np.abs(image - profile).max() < 2 * RTOL * profile.max()
