"""Deflection angles in float64: the point functions, and the drivers over arrays.

Positions and deflections in arcsec, in the sky frame, from the lens's centre.
"""

import math

from arcforge.kernels._jit import inline, jit


@inline
def sis_deflection(x, y, theta_e):
    """Return the deflection of a singular isothermal sphere: theta_E along the radius, 0 at its centre."""
    r = math.hypot(x, y)
    if r == 0.0:
        return 0.0, 0.0
    return theta_e * x / r, theta_e * y / r


@inline
def sie_deflection(x, y, theta_e, e, cos_phi, sin_phi):
    """Return the deflection of a singular isothermal ellipsoid of intermediate-axis Einstein radius
    ``theta_e``.

    Kormann, Schneider & Bartelmann (1994), eq. 27, in the frame of the major axis; e = (1 - q) / (1 + q). The
    circular limit needs no branch but its own point: f comes from e without cancellation, and atan(f z) / f
    tends to z smoothly.
    """
    f = 2.0 * math.sqrt(e) / (1.0 + e)
    if f < 1e-100:
        return sis_deflection(x, y, theta_e)
    q = (1.0 - e) / (1.0 + e)
    along = cos_phi * x + sin_phi * y
    across = cos_phi * y - sin_phi * x
    psi = math.hypot(q * along, across)
    r = math.hypot(along, across)
    if psi == 0.0:
        return 0.0, 0.0
    strength = theta_e * math.sqrt(q) / f
    alpha = strength * math.atan(f * along / psi)
    # atanh(f y / psi), in the form that keeps its digits where q is small and f y / psi near 1
    beta = strength * math.asinh(f * across / (q * r))
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
    """Write the deflections at flat arrays ``x``, ``y`` to ``alpha_x``, ``alpha_y``."""
    cos_phi, sin_phi = math.cos(phi), math.sin(phi)
    for i in range(x.size):
        alpha_x[i], alpha_y[i] = sie_deflection(x[i], y[i], theta_e, e, cos_phi, sin_phi)


@jit
def shear_deflections(x, y, gamma1, gamma2, alpha_x, alpha_y):
    """Write the deflections at flat arrays ``x``, ``y`` to ``alpha_x``, ``alpha_y``."""
    for i in range(x.size):
        alpha_x[i], alpha_y[i] = shear_deflection(x[i], y[i], gamma1, gamma2)
