"""Peer: lenstronomy's ``ImageModel``, with its separable Gaussian convolution (the quickest that it has)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import RenderColumns
from arcforge.engine.rays import central_brightness, sersic_bn

Call = Callable[[], NDArray[np.float32]]


def prepare(
    columns: RenderColumns,
    size_pix: int,
    pixscale_arcsec: float,
    *,
    samples: int,
    fine_psf: bool = False,
    one_trace: bool = False,
) -> Call:
    """Return a call that renders every row in every band: float32 (n, bands, size_pix, size_pix).

    Parameters
    ----------
    samples : int
        Supersampling factor.
    fine_psf : bool
        Convolve on the supersampled grid.
    one_trace : bool
        Trace rays once and convolve the pixel means for each band, by hand; else one ``ImageModel`` a band.
    """
    from lenstronomy.Data.pixel_grid import PixelGrid
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    corner = -0.5 * (size_pix - 1) * pixscale_arcsec
    grid = PixelGrid(
        size_pix,
        size_pix,
        transform_pix2angle=np.eye(2) * pixscale_arcsec,
        ra_at_xy_0=corner,
        dec_at_xy_0=corner,
    )
    lens, source = LensModel(["SIE", "SHEAR"]), LightModel(["SERSIC_ELLIPSE"])
    numerics = {"supersampling_factor": samples, "supersampling_convolution": fine_psf}
    n_rows, n_bands = columns.src_flux_nmgy.shape
    models = [_keywords(columns, row) for row in range(n_rows)]
    out = np.empty((n_rows, n_bands, size_pix, size_pix), dtype=np.float32)

    def model(row: int, band: int) -> Any:
        psf = PSF("GAUSSIAN", fwhm=columns.psf_fwhm_arcsec[row, band], pixel_size=pixscale_arcsec)
        return ImageModel(grid, psf, lens, source, kwargs_numerics=numerics)

    def render() -> NDArray[np.float32]:
        for row, (lens_keywords, source_keywords) in enumerate(models):
            means = None
            for band in range(n_bands):
                image_model = model(row, band)
                if not one_trace:
                    image = image_model.source_surface_brightness(source_keywords, lens_keywords)
                else:
                    if means is None:
                        means = image_model.source_surface_brightness(
                            source_keywords, lens_keywords, unconvolved=True
                        )
                    image = image_model.ImageNumerics.convolution_class.convolution2d(means)
                out[row, band] = columns.src_flux_nmgy[row, band] * image
        return out

    return render


def _keywords(columns: RenderColumns, row: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return lens and source keywords for unit flux.

    Their half-light radius is that of the circularised profile, and their b_n an approximation; the radius is
    rescaled so that the profile is ours exactly, and only the rendering is compared.
    """
    x, y = columns.lens_x_arcsec[row], columns.lens_y_arcsec[row]
    e1, e2 = _components(columns.lens_e[row], columns.lens_phi_rad[row])
    g1, g2 = _components(columns.shear[row], columns.shear_phi_rad[row])
    s1, s2 = _components(columns.src_e[row], columns.src_phi_rad[row])
    n, reff = columns.src_n[row], columns.src_reff_arcsec[row]
    q = (1.0 - columns.src_e[row]) / (1.0 + columns.src_e[row])
    b_n, theirs = float(sersic_bn(n)), 1.9992 * n - 0.3271
    amplitude = float(central_brightness(n, np.float64(b_n), np.float64(q), reff)) * np.exp(-theirs)
    lens = [
        {"theta_E": columns.theta_e_arcsec[row], "e1": e1, "e2": e2, "center_x": x, "center_y": y},
        {"gamma1": g1, "gamma2": g2, "ra_0": x, "dec_0": y},
    ]
    source = {
        "amp": amplitude,
        "R_sersic": reff * np.sqrt(q) * (theirs / b_n) ** n,
        "n_sersic": n,
        "e1": s1,
        "e2": s2,
        "center_x": x + columns.src_x_arcsec[row],
        "center_y": y + columns.src_y_arcsec[row],
    }
    return lens, [source]


def _components(size: float, phi_rad: float) -> tuple[float, float]:
    return size * np.cos(2.0 * phi_rad), size * np.sin(2.0 * phi_rad)
