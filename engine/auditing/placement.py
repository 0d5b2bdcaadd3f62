"""E4: do arcs lie about their host's light, or about another place?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import INCONCLUSIVE, PASS, WARN, Finding

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

# Width of the window that a centre is weighed in: the core of a galaxy under survey seeing, not its
# neighbours
_WINDOW_SIGMA_PIX = 2.5
_STEPS = 12
# A centre that runs further from the stamp's is a neighbour's
_FARTHEST_PIX = 4.0
_HALF_PIXEL, _NEAR = 0.5, 0.1


def find_centres(images: Images, sky_sigma: Floats) -> Floats:
    """Centre (x, y) of the light in the middle of each image, in pixels from the stamp's centre: (n, 2).

    By a Gaussian window that follows the light; bands weigh by their sky noise. NaN where the light has no
    centre near the middle.

    Parameters
    ----------
    images : float32 (n, band, y, x)
    sky_sigma : float64 (n, band)
    """
    ny, nx = images.shape[2:]
    y, x = np.arange(ny) - (ny - 1) / 2.0, np.arange(nx) - (nx - 1) / 2.0
    light = images - np.median(images, axis=(2, 3), keepdims=True)
    # images without noise count as they are
    light = np.sum(light / np.where(sky_sigma > 0, sky_sigma, 1.0)[:, :, None, None], axis=1)
    centres = np.zeros((len(images), 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(_STEPS):
            dx, dy = x - centres[:, :1], y - centres[:, 1:]
            along_x, along_y = (np.exp(-0.5 * (d / _WINDOW_SIGMA_PIX) ** 2) for d in (dx, dy))
            total = np.einsum("nyx,ny,nx->n", light, along_y, along_x)
            mean_x = np.einsum("nyx,ny,nx->n", light, along_y, along_x * dx) / total
            mean_y = np.einsum("nyx,ny,nx->n", light, along_y * dy, along_x) / total
            # a window as wide as the light halves the way that is left: twice the step
            centres = centres + 2.0 * np.stack([mean_x, mean_y], axis=1)
            lost = ~(np.hypot(*centres.T) <= _FARTHEST_PIX) | ~(total > 0)
            centres[lost] = np.nan
    return centres


def check_centre(state: AuditState) -> Finding:
    """E4: lenses lie where their host's light does, in the median over hosts."""
    columns = state.parameters
    centres = find_centres(state.pairs.controls, state.sky_sigma)
    lens = np.stack([columns.lens_x_arcsec, columns.lens_y_arcsec], axis=1) / state.pairs.pixscale_arcsec
    away = lens - centres
    if np.isfinite(away).all(1).sum() < 2:
        return Finding(INCONCLUSIVE, "no host has a centre of light near the middle of its stamp")
    x, y = (state.bootstrap.median(away[:, axis]) for axis in (0, 1))
    limit = state.thresholds["realism.centre_pix"]
    scatter = float(np.nanmedian(np.hypot(away[:, 0] - x.value, away[:, 1] - y.value)))
    text = (
        f"lenses lie ({x.value:+.2f}, {y.value:+.2f}) px from the centre of their host's light (median), "
        f"single ones {scatter:.2f} px about that"
    )
    beyond = [e for e in (x, y) if e.ci95[0] > limit or e.ci95[1] < -limit]
    if any(abs(abs(e.value) - _HALF_PIXEL) < _NEAR for e in beyond):
        text += "; half a pixel: one of them counts from n/2, the other from (n - 1)/2"
    worst = max((x, y), key=lambda e: abs(e.value))
    state.evidence["E4"] = {"x_pix": x.value, "y_pix": y.value, "scatter_pix": scatter}
    return Finding(WARN if beyond else PASS, text, worst.value, worst.ci95, limit)
