"""Elliptical power law of slope gamma (density r^-gamma in three dimensions; 2 is the SIE), of ellipticity up
to ``LARGEST_E``.

Tessore & Metcalf (2015, A&A 580, A79, eqs. 11 and 13): with t = gamma - 1, R e^(i phi) = q x + i y and the
scale b = theta_E sqrt(q), kappa = (2 - t) / 2 (b / R)^t and alpha = 2 b / (1 + q) (b / R)^(t-1) e^(i phi)
2F1(1, t/2; 2 - t/2; -(1-q)/(1+q) e^(2 i phi)). Its angular part is taken as polynomials of the angle.
"""

from typing import Any, NamedTuple

import numpy as np

from arcforge.kernels import angular, math32
from arcforge.kernels._jit import inline

F = np.float32
TINY = F(1e-30)
DEGREE = 16
# The first coefficient left out is below 1e-7 of theta_E up to here.
LARGEST_E = 0.65


class Epl(NamedTuple):
    """The kind."""

    kind: int = 0


class Lens(NamedTuple):
    """Parameters of one row; float32."""

    px: Any  # tuples of the coefficients of P and Q
    qy: Any
    falloff: np.float32  # -t / 2: alpha goes as position times (r^2)^(-t/2)
    rise_0: np.float32  # kappa + |gamma| is at most (rise_0 + rise_z z) r^-t
    rise_z: np.float32
    fall: np.float32  # |gamma| - kappa is at most fall r^-t


N_PARAMETERS = 2 * (DEGREE + 1) + 4


def unit_deflection(q, t, phi):
    """Return alpha / (b (b / R)^(t-1)) at elliptical angle ``phi`` as complex; the series of 2F1 (eq. 29)."""
    f = (1.0 - q) / (1.0 + q)
    turn = -f * np.exp(2j * phi)
    term = 2.0 / (1.0 + q) * np.exp(1j * phi)
    total = term
    for n in range(1, 400):
        term = term * turn * (2.0 * n - (2.0 - t)) / (2.0 * n + (2.0 - t))
        total = total + term
        if np.abs(term).max() < 1e-17:
            break
    return total


def fold(theta_e_pix, e, gamma):
    """Return the parameters, float64 (n, N_PARAMETERS), and the frame's scales of x and y, (n, 2)."""
    _, cos, sin = angular.nodes()
    q = ((1.0 - e) / (1.0 + e))[:, None]
    t = (gamma - 1.0)[:, None]
    b = theta_e_pix[:, None] * np.sqrt(q)
    # at scaled radius 1: sqrt(q) x = cos, y = sin
    radius = np.sqrt(q * cos**2 + sin**2)  # R
    alpha = unit_deflection(q, t, np.arctan2(sin, np.sqrt(q) * cos)) * b * (b / radius) ** (t - 1.0)
    position = cos / np.sqrt(q) + 1j * sin
    kappa = 0.5 * (2.0 - t) * (b / radius) ** t
    # eq. 17: the shear follows from the deflection and kappa
    shear = np.abs((1.0 - t) * alpha / np.conj(position) - kappa * position / np.conj(position))
    fall = np.maximum(shear - kappa, 0.0).max(axis=1)
    values = np.column_stack(
        [
            angular.coefficients(alpha.real / cos, DEGREE),
            angular.coefficients(alpha.imag / sin, DEGREE),
            -0.5 * t[:, 0],
            *angular.rising_bound(kappa + shear),
            fall,
        ]
    )
    return values, np.column_stack([np.sqrt(q[:, 0]), np.ones(len(e))])


def largest_deflection(theta_e, e, gamma):
    """Return a bound on |alpha| by distance from the lens, whatever the direction: a function; one unit."""
    _, cos, sin = angular.nodes()
    q, t = ((1.0 - e) / (1.0 + e))[:, None], (gamma - 1.0)[:, None]
    b = theta_e[:, None] * np.sqrt(q)
    turned = np.abs(unit_deflection(q, t, np.arctan2(sin, np.sqrt(q) * cos)))
    # R over distance, at the nodes' directions
    flattening = np.sqrt(q * cos**2 + sin**2) / np.sqrt(cos**2 / q + sin**2)
    at_unit = 1.01 * (turned * b * (b / flattening) ** (t - 1.0)).max(axis=1)  # nodes may miss the largest
    return lambda radius: at_unit * radius ** (2.0 - gamma)


@inline
def lens_of(fields):
    """Return the parameters as scalars."""
    n = DEGREE + 1
    return Lens(
        angular.seventeen(fields, 0), angular.seventeen(fields, n),
        fields[2 * n], fields[2 * n + 1], fields[2 * n + 2], fields[2 * n + 3],
    )  # fmt: skip


@inline
def deflect(lens, x, y):
    """Return the deflection and a bound on |I - d alpha|, by the eigenvalues kappa +- |gamma| of d alpha."""
    r2 = x * x + y * y + TINY
    inverse_r2 = F(1.0) / r2
    z = (x * x - y * y) * inverse_r2
    w = z * z
    power = math32.exp2(lens.falloff * math32.log2(r2))  # r^-t
    magnified = max(F(1.0), power * (lens.rise_0 + lens.rise_z * z) - F(1.0)) + power * lens.fall
    gx = x * power * angular.polynomial_16(lens.px, z, w)
    gy = y * power * angular.polynomial_16(lens.qy, z, w)
    return gx, gy, magnified
