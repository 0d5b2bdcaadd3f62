"""The casting border between catalogue columns and kernels: fold every row into the kernels' float32
``Model``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcforge.kernels.codes import CONTROL, SIS
from arcforge.kernels.ray import N_FIELDS

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns

Floats = NDArray[np.float64]

# Below this f = sqrt(1 - q^2) the lens is handed to the kernels as f = F_MIN with q = 1: atan(f z) / f is
# then z (1 - f^2 z^2 / 3), 3e-8 from the circular limit, and float32 never divides 0 by 0.
F_MIN = 3e-4


def sersic_bn(n: ArrayLike) -> Floats:
    """Return b_n, the exact root of Gamma(2n) = 2 gamma(2n, b_n) (Ciotti 1991, A&A 249, 99, eq. 4)."""
    from scipy.special import gammaincinv

    return np.asarray(gammaincinv(2.0 * np.asarray(n, dtype=np.float64), 0.5))


def central_brightness(
    n: float | Floats, b_n: float | Floats, q: float | Floats, reff: float | Floats
) -> Floats:
    """Return I0 of a unit-flux Sersic source, per unit area: b_n^(2n) / (2 pi q n R_e^2 Gamma(2n))."""
    from scipy.special import gammaln

    return np.asarray(np.exp(2.0 * n * np.log(b_n) - gammaln(2.0 * n)) / (2.0 * np.pi * q * n * reff**2))


def fold(columns: RenderColumns, pixscale_arcsec: float) -> NDArray[np.float32]:
    """Return the folded rows, float32 (n, 22), as ``arcforge.kernels.ray.Model`` names them.

    CONTROL rows are folded to zero central brightness; their geometry is never looked at.
    """
    n_rows = len(columns)
    control = columns.lens_model == CONTROL

    def column(values: Floats, otherwise: float) -> Floats:
        return np.where(control, otherwise, values)

    e_lens = np.where(columns.lens_model == SIS, 0.0, column(columns.lens_e, 0.0))
    phi = column(columns.lens_phi_rad, 0.0)
    theta_e = column(columns.theta_e_arcsec, 1.0) / pixscale_arcsec
    f = 2.0 * np.sqrt(e_lens) / (1.0 + e_lens)
    q = np.where(f < F_MIN, 1.0, (1.0 - e_lens) / (1.0 + e_lens))
    f = np.maximum(f, F_MIN)
    strength = theta_e * np.sqrt(q) / f

    # shear and source, turned into the lens's principal frame
    angle = 2.0 * (column(columns.shear_phi_rad, 0.0) - phi)
    g1, g2 = (column(columns.shear, 0.0) * turn(angle) for turn in (np.cos, np.sin))
    sx, sy = (column(s, 0.0) / pixscale_arcsec for s in (columns.src_x_arcsec, columns.src_y_arcsec))
    cos_lens, sin_lens = np.cos(phi), np.sin(phi)
    sx, sy = cos_lens * sx + sin_lens * sy, cos_lens * sy - sin_lens * sx
    reff = column(columns.src_reff_arcsec, 1.0) / pixscale_arcsec
    e_src = column(columns.src_e, 0.0)
    q_src = (1.0 - e_src) / (1.0 + e_src)
    turned = column(columns.src_phi_rad, 0.0) - phi
    n = column(columns.src_n, 1.0)
    b_n = sersic_bn(n)

    out = np.empty((n_rows, N_FIELDS), dtype=np.float32)
    out[:, 0] = column(columns.lens_x_arcsec, 0.0) / pixscale_arcsec
    out[:, 1] = column(columns.lens_y_arcsec, 0.0) / pixscale_arcsec
    out[:, 2], out[:, 3], out[:, 4], out[:, 5] = cos_lens, sin_lens, q * q, f
    axes = (
        (6, np.cos(turned) / reff, np.sin(turned) / reff),
        (11, -np.sin(turned) / (q_src * reff), np.cos(turned) / (q_src * reff)),
    )
    for first, along_x, along_y in axes:
        out[:, first] = along_x * (1.0 - g1) - along_y * g2
        out[:, first + 1] = along_y * (1.0 + g1) - along_x * g2
        out[:, first + 2] = -along_x * strength
        out[:, first + 3] = -along_y * strength
        out[:, first + 4] = -along_x * sx - along_y * sy
    out[:, 16], out[:, 17] = b_n, 0.5 / n
    out[:, 18] = np.where(control, 0.0, central_brightness(n, b_n, q_src, reff))
    out[:, 19] = theta_e * np.sqrt(q)
    out[:, 20] = np.abs(column(columns.shear, 0.0))
    out[:, 21] = 1.0 / (q_src * reff)
    return out
