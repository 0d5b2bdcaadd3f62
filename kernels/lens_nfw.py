"""NFW halo, for groups; its potential may be elliptical.

Bartelmann (1996, A&A 313, 697): with x = r / r_s, alpha = A r s(x), s(x) = (ln(x/2) + F(x)) / x^2 and F(x) =
artanh(sqrt(1 - x^2)) / sqrt(1 - x^2), or its continuation arctan(sqrt(x^2 - 1)) / sqrt(x^2 - 1) beyond r_s. A
is such that the mean convergence within theta_E is 1. Ellipticity e = (1 - q) / (1 + q) is the potential's,
as in Golse & Kneib (2002, A&A 390, 821), but of unchanged area: r^2 = q x^2 + y^2 / q.
"""

from typing import NamedTuple

import numpy as np

from arcforge.kernels import math32
from arcforge.kernels._jit import inline

F = np.float32
TINY = F(1e-30)
LN2 = F(0.6931471805599453)


class Nfw(NamedTuple):
    """The kind."""

    kind: int = 0


class Lens(NamedTuple):
    """Parameters of one row; float32."""

    inverse_rs: np.float32  # 1 / r_s [1 / pix]
    strength: np.float32  # A
    scale_x: np.float32  # sqrt(q), 1 / sqrt(q)
    scale_y: np.float32


N_PARAMETERS = 4


def mean_convergence(x):
    """Return s(x), the mean convergence within x for unit strength; float64, x > 0."""
    x = np.asarray(x, dtype=np.float64)
    near = np.minimum(x, 0.8)
    w = np.sqrt(1.0 - near * near)
    d = near * near / (1.0 + w)  # 1 - w
    inner = (np.log1p(-0.5 * d) / np.maximum(d, 1e-300) + np.log(2.0) - np.log(near)) / (w * (1.0 + w))
    far = np.maximum(x, 0.8)
    v = 1.0 - far * far
    a = np.sqrt(np.abs(v) + 1e-300)
    continued = np.where(v > 0.0, np.arctanh(np.minimum(a, 0.9)), np.arctan(a)) / a
    return np.where(x < 0.8, inner, (np.log(0.5 * far) + continued) / (far * far))


def fold(theta_e_pix, e, rs_pix):
    """Return the parameters, float64 (n, N_PARAMETERS), and the frame's scales of x and y, (n, 2)."""
    strength = 1.0 / mean_convergence(theta_e_pix / rs_pix)
    root_q = np.sqrt((1.0 - e) / (1.0 + e))
    scales = np.column_stack([root_q, 1.0 / root_q])
    return np.column_stack([1.0 / rs_pix, strength, scales]), scales


def largest_deflection(theta_e, e, rs):
    """Return a bound on |alpha| by distance from the lens, whatever the direction: a function; one unit."""
    strength = 1.0 / mean_convergence(theta_e / rs)
    q = (1.0 - e) / (1.0 + e)
    return lambda radius: strength / q * mean_convergence(np.sqrt(q) * radius / rs) * radius


@inline
def lens_of(fields):
    """Return the parameters as scalars."""
    return Lens(fields[0], fields[1], fields[2], fields[3])


@inline
def deflect(lens, x, y):
    """Return the deflection and a bound on |I - d alpha|.

    Of a round one the eigenvalues of d alpha are s and 2 kappa - s, both within [-s, s]; the frame's scales
    add at most a factor 1 / q.
    """
    u, v = x * lens.inverse_rs, y * lens.inverse_rs
    x2 = u * u + v * v + TINY
    near2 = min(x2, F(0.64))
    w = np.sqrt(F(1.0) - near2)
    d = near2 / (F(1.0) + w)
    # within 0.8 r_s in a form without the difference of two logarithms
    inner = math32.log1p(F(-0.5) * d) / d + LN2 - F(0.5) * math32.log(near2)
    inner = inner / (w * (F(1.0) + w))
    far2 = max(x2, F(0.64))
    gap = F(1.0) - far2
    a = np.sqrt(abs(gap) + TINY)
    continued = (math32.atanh(min(a, F(0.9))) if gap > F(0.0) else math32.atan(a)) / a
    outer = (F(0.5) * math32.log(far2) - LN2 + continued) / far2
    s = lens.strength * (inner if x2 < F(0.64) else outer)
    magnified = F(1.0) + s * lens.scale_y * lens.scale_y
    return lens.scale_x * s * x, lens.scale_y * s * y, magnified
