"""Peer: caustics (PyTorch, float32), its ``LensSource`` simulator batched over rows by ``vmap``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import RenderColumns
from arcforge.engine.psf import gaussian_sigma
from arcforge.engine.rays import central_brightness, sersic_bn

_SIGMAS = 5.0  # half-width of a PSF image


def prepare(
    columns: RenderColumns, size_pix: int, pixscale_arcsec: float, *, samples: int, one_trace: bool = False
) -> Callable[[], NDArray[np.float32]]:
    """Return a call that renders every row in every band: float32 (n, bands, size_pix, size_pix).

    Parameters
    ----------
    samples : int
        Samples a pixel and axis: a Gauss-Legendre rule (``quad_level``); with ``one_trace`` midpoints.
    one_trace : bool
        Trace rays once, and convolve for each band by hand, as two matrix products; else one call a band, the
        simulator convolving with an image of the PSF.
    """
    import torch

    if one_trace:
        simulate = _simulator(size_pix, pixscale_arcsec, {"upsample_factor": samples})
        rows = torch.as_tensor(_parameters(columns), dtype=torch.float32)
        kernels = torch.as_tensor(_matrices(columns, size_pix, pixscale_arcsec), dtype=torch.float32)

        def render() -> NDArray[np.float32]:
            with torch.no_grad():
                means = simulate(rows)[:, None]
                return (kernels @ means @ kernels.transpose(2, 3)).numpy()  # type: ignore[no-any-return]

        return render

    radius = int(np.ceil(_SIGMAS * float(gaussian_sigma(columns.psf_fwhm_arcsec.max())) / pixscale_arcsec))
    side = 2 * radius + 1
    simulate = _simulator(
        size_pix, pixscale_arcsec, {"quad_level": samples, "psf": None, "psf_shape": (side, side)}
    )
    scale = pixscale_arcsec**2 * columns.src_flux_nmgy
    bands = []
    for band in range(scale.shape[1]):
        sigma = gaussian_sigma(columns.psf_fwhm_arcsec[:, band]) / pixscale_arcsec
        offset = np.arange(side) - radius
        profile = np.exp(-0.5 * (offset[None, :] / sigma[:, None]) ** 2)
        psf = (profile[:, :, None] * profile[:, None, :]).reshape(len(columns), -1)
        values = np.concatenate([psf, _parameters(columns)], axis=1)
        values[:, -1] *= scale[:, band]
        bands.append(torch.as_tensor(values, dtype=torch.float32))

    def render_bands() -> NDArray[np.float32]:
        with torch.no_grad():
            return torch.stack([simulate(rows) for rows in bands], dim=1).numpy()  # type: ignore[no-any-return]

    return render_bands


def _simulator(size_pix: int, pixscale_arcsec: float, how: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a batched simulator of (n, parameters); the PSF's pixels come first where it takes a PSF."""
    import caustics
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        # of its own calls of NumPy, and that the plane's redshifts replace those of its lenses
        warnings.simplefilter("ignore")
        cosmology = caustics.FlatLambdaCDM()
        lenses = [caustics.SIE(cosmology=cosmology), caustics.ExternalShear(cosmology=cosmology)]
        plane = caustics.SinglePlane(lenses=lenses, cosmology=cosmology, z_l=0.5, z_s=1.0)
    simulator = caustics.LensSource(
        lens=plane, source=caustics.Sersic(), pixelscale=pixscale_arcsec, pixels_x=size_pix, **how
    )
    simulator.to(dtype=torch.float32)
    batched: Callable[[Any], Any] = torch.func.vmap(simulator)
    return batched


def _parameters(columns: RenderColumns) -> NDArray[np.float64]:
    """Return (n, 16): SIE, shear and Sersic parameters in the simulator's order, brightness for unit flux
    last.

    Their b_n is a series, so the radius is rescaled to make the profile ours exactly.
    """
    c = columns
    x, y = c.lens_x_arcsec, c.lens_y_arcsec
    q, q_src = ((1.0 - e) / (1.0 + e) for e in (c.lens_e, c.src_e))
    twist = 2.0 * c.shear_phi_rad
    inverse = 1.0 / c.src_n
    series = 4 / 405 + inverse * (46 / 25515 + inverse * (131 / 1148175 - inverse * (2194697 / 30690717750)))
    theirs = 2.0 * c.src_n - 1.0 / 3.0 + inverse * series
    b_n = sersic_bn(c.src_n)
    central = central_brightness(c.src_n, b_n, q_src, c.src_reff_arcsec)
    lens = (x, y, q, c.lens_phi_rad, c.theta_e_arcsec)
    shear = (x, y, c.shear * np.cos(twist), c.shear * np.sin(twist))
    place = (x + c.src_x_arcsec, y + c.src_y_arcsec)
    shape = (q_src, c.src_phi_rad, c.src_n, c.src_reff_arcsec * (theirs / b_n) ** c.src_n)
    return np.stack([*lens, *shear, *place, *shape, central * np.exp(-theirs)], axis=1)


def _matrices(columns: RenderColumns, size_pix: int, pixscale_arcsec: float) -> NDArray[np.float64]:
    """Return (n, bands, size_pix, size_pix): a Gaussian's convolution along one axis, sqrt(flux per pixel)
    in each.
    """
    pixels = np.arange(size_pix)
    distance2 = (pixels[:, None] - pixels[None, :]) ** 2
    sigma = (gaussian_sigma(columns.psf_fwhm_arcsec) / pixscale_arcsec)[:, :, None, None]
    scale = np.sqrt(columns.src_flux_nmgy * pixscale_arcsec**2)[:, :, None, None]
    return np.asarray(scale * np.exp(-0.5 * distance2 / sigma**2) / (np.sqrt(2.0 * np.pi) * sigma))
