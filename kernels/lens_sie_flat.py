"""Singular isothermal ellipsoid of any ellipticity, by its closed form: for those too flat for polynomials of
the angle.

Kormann, Schneider & Bartelmann (1994, A&A 284, 285, eq. 27), intermediate-axis normalisation.
"""

from typing import NamedTuple

import numpy as np

from arcforge.kernels import math32
from arcforge.kernels._jit import inline

F = np.float32
TINY = F(1e-30)


class FlatSie(NamedTuple):
    """The kind."""

    kind: int = 0


class Lens(NamedTuple):
    """Parameters of one row; float32."""

    q2: np.float32
    f: np.float32  # sqrt(1 - q^2)
    strength: np.float32  # theta_E sqrt(q) / f [pix]
    einstein: np.float32  # theta_E sqrt(q)


N_PARAMETERS = 4


def fold(theta_e_pix, e):
    """Return the parameters, float64 (n, N_PARAMETERS), and the frame's scales of x and y, (n, 2)."""
    q = (1.0 - e) / (1.0 + e)
    f = 2.0 * np.sqrt(e) / (1.0 + e)
    einstein = theta_e_pix * np.sqrt(q)
    return np.column_stack([q * q, f, einstein / f, einstein]), np.ones((len(e), 2))


@inline
def lens_of(fields):
    """Return the parameters as scalars."""
    return Lens(fields[0], fields[1], fields[2], fields[3])


@inline
def deflect(lens, x, y):
    """Return the deflection and a bound on |I - d alpha|: its eigenvalues are 1 and 1 - 2 kappa."""
    psi2 = lens.q2 * x * x + y * y
    inverse_psi = F(1.0) / np.sqrt(psi2 + TINY)
    at = math32.atan(lens.f * x * inverse_psi)
    # atanh(f y / psi) as log1p of a ratio without a difference: 1 - f |y| / psi would lose the digits that a
    # flat lens needs (2.7e-6 arcsec at theta_E = 3, q = 1/3; this form is good to 1.2e-6 for every q)
    g = lens.f * abs(y)
    psi = psi2 * inverse_psi
    ah = F(0.5) * math32.log1p(F(2.0) * g * (psi + g) / (lens.q2 * (x * x + y * y) + TINY))
    ah = -ah if y < F(0.0) else ah
    magnified = max(F(1.0), lens.einstein * inverse_psi - F(1.0))
    return lens.strength * at, lens.strength * ah, magnified
