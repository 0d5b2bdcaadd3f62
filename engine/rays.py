"""The casting border between catalogue columns and kernels: fold every row into float32 fields, and choose
the kind of lens that its kernels are compiled for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcforge.engine.errors import RenderError
from arcforge.kernels import lens_epl, lens_nfw, lens_sie, lens_sie_flat
from arcforge.kernels.codes import CONTROL, EPL, NFW, SIE, SIS
from arcforge.kernels.ray import N_FIELDS

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns

Floats = NDArray[np.float64]

# The kinds of lens; a row's ``kind`` is a place in this list.
_SIE, _FLAT_SIE, _EPL, _NFW = range(4)
KINDS: tuple[Any, ...] = (lens_sie.Sie(), lens_sie_flat.FlatSie(), lens_epl.Epl(), lens_nfw.Nfw())
_MODULES = (lens_sie, lens_sie_flat, lens_epl, lens_nfw)


@dataclass(frozen=True)
class Folded:
    """Rows as kernels take them.

    Attributes
    ----------
    kinds : int8 (n,)
        Place in ``KINDS``.
    fields : float32 (n, m)
        ``arcforge.kernels.ray.Model``, then the parameters of the lens.
    """

    kinds: NDArray[np.int8]
    fields: NDArray[np.float32]


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


def fold(columns: RenderColumns, pixscale_arcsec: float) -> Folded:
    """Return the folded rows.

    CONTROL rows are folded to zero central brightness; their geometry is never looked at.

    Raises
    ------
    RenderError
        For a power-law lens flatter than its kernel reaches; names the row.
    """
    kinds = _kinds(columns)
    fields = np.zeros((len(columns), N_FIELDS + max(module.N_PARAMETERS for module in _MODULES)), np.float32)
    scales = np.ones((len(columns), 2))
    theta_e = np.where(columns.lens_model == CONTROL, 1.0, columns.theta_e_arcsec) / pixscale_arcsec
    e = np.where(columns.lens_model == SIS, 0.0, columns.lens_e)
    extra: dict[int, tuple[Floats, ...]] = {
        _EPL: (columns.lens_gamma,),
        _NFW: (columns.nfw_rs_arcsec / pixscale_arcsec,),
    }
    widest = 0
    for kind, module in enumerate(_MODULES):
        rows = np.flatnonzero((kinds == kind) & (columns.lens_model != CONTROL))
        if rows.size:
            more = (values[rows] for values in extra.get(kind, ()))
            values, scales[rows] = module.fold(theta_e[rows], e[rows], *more)
            fields[rows, N_FIELDS : N_FIELDS + module.N_PARAMETERS] = values
            widest = max(widest, module.N_PARAMETERS)
    _fold_common(columns, pixscale_arcsec, scales, fields)
    return Folded(kinds, np.ascontiguousarray(fields[:, : N_FIELDS + widest]))


def _kinds(columns: RenderColumns) -> NDArray[np.int8]:
    """Return each row's place in ``KINDS``."""
    kinds = np.full(len(columns), _SIE, dtype=np.int8)
    kinds[(columns.lens_model == SIE) & (columns.lens_e > lens_sie.LARGEST_E)] = _FLAT_SIE
    kinds[columns.lens_model == EPL] = _EPL
    kinds[columns.lens_model == NFW] = _NFW
    flat = (columns.lens_model == EPL) & (columns.lens_e > lens_epl.LARGEST_E)
    if flat.any():
        row = int(np.argmax(flat))
        raise RenderError(
            f"row {row}: lens_e is {columns.lens_e[row]:.3g}, and a power-law lens (EPL) is accurate up to "
            f'{lens_epl.LARGEST_E}; make it rounder, or take lens_model "SIE"'
        )
    return kinds


def _fold_common(
    columns: RenderColumns, pixscale_arcsec: float, scales: Floats, out: NDArray[np.float32]
) -> None:
    """Write what every kind of lens has, the first N_FIELDS columns of ``out``."""
    control = columns.lens_model == CONTROL

    def column(values: Floats, otherwise: float) -> Floats:
        return np.where(control, otherwise, values)

    phi = column(columns.lens_phi_rad, 0.0)
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

    out[:, 0] = column(columns.lens_x_arcsec, 0.0) / pixscale_arcsec
    out[:, 1] = column(columns.lens_y_arcsec, 0.0) / pixscale_arcsec
    out[:, 2], out[:, 3] = cos_lens * scales[:, 0], sin_lens * scales[:, 0]
    out[:, 4], out[:, 5] = -sin_lens * scales[:, 1], cos_lens * scales[:, 1]
    axes = (
        (6, np.cos(turned) / reff, np.sin(turned) / reff),
        (11, -np.sin(turned) / (q_src * reff), np.cos(turned) / (q_src * reff)),
    )
    for first, along_x, along_y in axes:
        out[:, first] = (along_x * (1.0 - g1) - along_y * g2) / scales[:, 0]
        out[:, first + 1] = (along_y * (1.0 + g1) - along_x * g2) / scales[:, 1]
        out[:, first + 2] = -along_x
        out[:, first + 3] = -along_y
        out[:, first + 4] = -along_x * sx - along_y * sy
    out[:, 16], out[:, 17] = b_n / np.log(2.0), 0.5 / n
    out[:, 18] = np.where(control, 0.0, central_brightness(n, b_n, q_src, reff))
    out[:, 19] = np.abs(column(columns.shear, 0.0))
    out[:, 20] = 1.0 / (q_src * reff)
