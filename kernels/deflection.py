"""Deflection angles in float64: the point functions, and the drivers over arrays.

Positions and deflections in arcsec, in the sky frame, from the lens's centre.
"""

import math

import numpy as np

from arcforge.kernels import math64
from arcforge.kernels._jit import inline, jit

_U = np.uint64
_EXPONENT, _TWICE_BIAS = _U(0x7FF0_0000_0000_0000), _U(0x7FE0_0000_0000_0000)
_SMALL = 1e-300


@inline
def sis_deflection(x, y, theta_e):
    """Return the deflection of a singular isothermal sphere: theta_E along the radius, 0 at its centre."""
    r = math.hypot(x, y)
    if r == 0.0:
        return 0.0, 0.0
    return theta_e * x / r, theta_e * y / r


@inline
def _near_unit_scale(x, y):
    """Return the power of two that brings the larger of two numbers to [1, 2): squares cannot overflow."""
    largest = min(max(abs(x), abs(y)), 2.0**1022)
    exponent = _U(np.float64(largest).view(np.uint64) & _EXPONENT)
    return _U(_TWICE_BIAS - exponent).view(np.float64)


@inline
def sie_deflection(x, y, strength, f, q, cos_phi, sin_phi):
    """Return the deflection of a singular isothermal ellipsoid with f = sqrt(1 - q^2) > 0 and ``strength`` =
    theta_E sqrt(q) / f, theta_E its intermediate-axis Einstein radius.

    Kormann, Schneider & Bartelmann (1994), eq. 27, in the frame of the major axis. No branches: the loop over
    positions runs in vector lanes. 0 at the centre.
    """
    scale = _near_unit_scale(x, y)  # the deflection depends on the direction alone
    along = (cos_phi * x + sin_phi * y) * scale
    across = (cos_phi * y - sin_phi * x) * scale
    psi = math.sqrt(q * along * (q * along) + across * across)
    alpha = strength * math64.atan(f * along / max(psi, _SMALL))
    # atanh(f y / psi) for y > 0, in the form that keeps its digits where q is small and f y / psi near 1
    g, qr2 = f * abs(across), q * along * (q * along) + q * across * (q * across)
    beta = 0.5 * strength * math64.log1p(2.0 * g * (psi + g) / max(qr2, _SMALL))
    beta = -beta if across < 0.0 else beta
    return cos_phi * alpha - sin_phi * beta, sin_phi * alpha + cos_phi * beta


@inline
def shear_deflection(x, y, gamma1, gamma2):
    """Return the deflection of an external shear, the gradient of (g1 (x^2 - y^2) + 2 g2 x y) / 2."""
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


@jit
def sis_deflections(x, y, theta_e, alpha_x, alpha_y):
    """Write the deflections at flat arrays ``x``, ``y`` to ``alpha_x``, ``alpha_y``."""
    for i in range(x.size):
        alpha_x[i], alpha_y[i] = sis_deflection(x[i], y[i], theta_e)


@jit
def sie_deflections(x, y, theta_e, e, phi, alpha_x, alpha_y):
    """Write the deflections at flat arrays ``x``, ``y`` to ``alpha_x``, ``alpha_y``; e = (1 - q) / (1 + q).

    The circular limit needs no branch but its own point: f comes from e without cancellation, and
    atan(f z) / f tends to z smoothly.
    """
    f, q = 2.0 * math.sqrt(e) / (1.0 + e), (1.0 - e) / (1.0 + e)
    if f < 1e-100:
        sis_deflections(x, y, theta_e, alpha_x, alpha_y)
        return
    cos_phi, sin_phi, strength = math.cos(phi), math.sin(phi), theta_e * math.sqrt(q) / f
    for i in range(x.size):
        alpha_x[i], alpha_y[i] = sie_deflection(x[i], y[i], strength, f, q, cos_phi, sin_phi)


@jit
def shear_deflections(x, y, gamma1, gamma2, alpha_x, alpha_y):
    """Write the deflections at flat arrays ``x``, ``y`` to ``alpha_x``, ``alpha_y``."""
    for i in range(x.size):
        alpha_x[i], alpha_y[i] = shear_deflection(x[i], y[i], gamma1, gamma2)
