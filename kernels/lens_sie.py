"""Singular isothermal ellipsoid (and, at q = 1, sphere) of ellipticity up to ``LARGEST_E``.

Kormann, Schneider & Bartelmann (1994, A&A 284, 285, eq. 27) in the intermediate-axis normalisation: in the
principal frame, with f = sqrt(1 - q^2), psi = sqrt(q^2 x^2 + y^2), alpha = theta_E sqrt(q) / f * (atan(f x /
psi), atanh(f y / psi)), as polynomials of the angle.
"""

from typing import Any, NamedTuple

import numpy as np

from arcforge.kernels import angular
from arcforge.kernels._jit import inline

F = np.float32
TINY = F(1e-30)
DEGREE = 10
# The first coefficient left out is below 5e-8 of theta_E up to here.
LARGEST_E = 0.5


class Sie(NamedTuple):
    """The kind."""

    kind: int = 0


class Lens(NamedTuple):
    """Parameters of one row; float32."""

    px: Any  # tuples of the coefficients of P and Q [pix]
    qy: Any
    rise_0: np.float32  # twice the convergence is at most (rise_0 + rise_z z) / r
    rise_z: np.float32


N_PARAMETERS = 2 * (DEGREE + 1) + 2


def fold(theta_e_pix, e):
    """Return the parameters, float64 (n, N_PARAMETERS), and the frame's scales of x and y, (n, 2)."""
    _, cos, sin = angular.nodes()
    q = ((1.0 - e) / (1.0 + e))[:, None]
    # atan(f u) / f tends to u smoothly; below this f the difference is under 1e-12 of theta_E
    f = np.maximum(2.0 * np.sqrt(e) / (1.0 + e), 1e-6)[:, None]
    inverse_psi = 1.0 / np.sqrt(q * cos**2 + sin**2)  # at sqrt(q) x = cos, y = sin
    strength = theta_e_pix[:, None] * np.sqrt(q)
    px = strength * np.arctan(f / np.sqrt(q) * cos * inverse_psi) / (f * cos)
    qy = strength * np.arcsinh(f / np.sqrt(q) * sin / np.sqrt(cos**2 + q * sin**2)) / (f * sin)
    bound = angular.rising_bound(strength * inverse_psi)
    values = np.column_stack([angular.coefficients(px, DEGREE), angular.coefficients(qy, DEGREE), *bound])
    return values, np.column_stack([np.sqrt(q[:, 0]), np.ones(len(e))])


@inline
def lens_of(fields):
    """Return the parameters as scalars."""
    n = DEGREE + 1
    return Lens(angular.eleven(fields, 0), angular.eleven(fields, n), fields[2 * n], fields[2 * n + 1])


@inline
def deflect(lens, x, y):
    """Return the deflection and a bound on |I - d alpha|: its eigenvalues are 1 and 1 - 2 kappa."""
    inverse_r = F(1.0) / np.sqrt(x * x + y * y + TINY)
    cos, sin = x * inverse_r, y * inverse_r
    z = cos * cos - sin * sin
    w = z * z
    magnified = max(F(1.0), inverse_r * (lens.rise_0 + lens.rise_z * z) - F(1.0))
    return cos * angular.polynomial(lens.px, z, w), sin * angular.polynomial(lens.qy, z, w), magnified
