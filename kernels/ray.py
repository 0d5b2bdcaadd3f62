"""From a point in the image plane to the surface brightness there: one lens, one source, float32.

Design. A row of the catalogue is folded once, in float64, into the ``Model`` below (``engine.rays.fold``):
lengths in pixels, the source's rotation, axis ratio and size multiplied into the lens equation. A ray then
costs one inverse square root, one atan, one log1p, eight multiply-adds and the profile. All light is for a
source of unit flux: bands differ by flux and PSF only, so one ray-trace serves them all.

Lens (Kormann, Schneider & Bartelmann 1994, A&A 284, 285, eq. 27; Keeton 2001, astro-ph/0102341, in the
intermediate-axis normalisation): in the lens's principal frame, with f = sqrt(1 - q^2), psi = sqrt(q^2 x^2 +
y^2), alpha = theta_E sqrt(q) / f * (atan(f x / psi), atanh(f y / psi)). Source: I0 exp(-b_n (R / R_e)^(1/n)).
"""

from typing import NamedTuple

import numpy as np

from arcforge.kernels import math32
from arcforge.kernels._jit import inline, jit

F = np.float32
TINY = F(1e-30)


class Model(NamedTuple):
    """One row, folded. Lengths in pixels from the stamp's centre; float32 scalars."""

    lens_x: np.float32  # lens centre
    lens_y: np.float32
    cos_lens: np.float32  # principal frame of the lens
    sin_lens: np.float32
    q2: np.float32  # lens axis ratio squared
    f: np.float32  # sqrt(1 - q^2), kept above 3e-4 (engine.rays says why)
    # (u, v): position in the source's principal frame in units of R_e, the minor axis stretched to a circle;
    # linear in the image position and in the two arcs (at, ah) of the deflection
    u_x: np.float32
    u_y: np.float32
    u_at: np.float32
    u_ah: np.float32
    u_0: np.float32
    v_x: np.float32
    v_y: np.float32
    v_at: np.float32
    v_ah: np.float32
    v_0: np.float32
    b_n: np.float32
    half_inverse_n: np.float32  # 1 / (2 n)
    central: np.float32  # I0: central surface brightness for unit flux, per pixel area
    # for error bounds only: |d(R / R_e)| <= stretch * (shear + max(1, einstein / psi - 1)) per pixel
    einstein: np.float32  # theta_E sqrt(q)
    shear: np.float32
    stretch: np.float32  # 1 / (q_source R_e)


N_FIELDS = len(Model._fields)


@inline
def model_of(fields):
    """Return row ``fields`` (float32 (22,)) as a ``Model``."""
    return Model(
        fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6], fields[7], fields[8],
        fields[9], fields[10], fields[11], fields[12], fields[13], fields[14], fields[15], fields[16],
        fields[17], fields[18], fields[19], fields[20], fields[21],
    )  # fmt: skip


@inline
def inverse_psi_at(m, x, y):
    """Return 1 / sqrt(q^2 x^2 + y^2), finite at the lens's centre."""
    return F(1.0) / np.sqrt(m.q2 * x * x + y * y + TINY)


@inline
def source_coordinates(m, x, y, inverse_psi):
    """Return (u, v), whose squares add up to (R / R_e)^2, at image position (x, y) [pix from the lens, its
    frame].
    """
    at = math32.atan(m.f * x * inverse_psi)
    # atanh(f y / psi) as log1p of a ratio without a difference: 1 - f |y| / psi would lose the digits that a
    # flat lens needs (2.7e-6 arcsec at theta_E = 3, q = 1/3; this form is good to 1.2e-6 for every q), and in
    # the same time
    g = m.f * abs(y)
    psi = (m.q2 * x * x + y * y) * inverse_psi
    ah = F(0.5) * math32.log1p(F(2.0) * g * (psi + g) / (m.q2 * (x * x + y * y) + TINY))
    ah = -ah if y < F(0.0) else ah
    u = m.u_x * x + m.u_y * y + m.u_at * at + m.u_ah * ah + m.u_0
    v = m.v_x * x + m.v_y * y + m.v_at * at + m.v_ah * ah + m.v_0
    return u, v


@inline
def source_radius2(m, x, y, inverse_psi):
    """Return (R / R_e)^2 in the source plane at image position (x, y) [pix from the lens, its frame]."""
    u, v = source_coordinates(m, x, y, inverse_psi)
    return u * u + v * v


@inline
def exponent_of(m, rho2, exponential):
    """Return b_n (R / R_e)^(1/n); ``exponential`` (n = 1) is a compile-time constant, and saves a log and an
    exp.
    """
    if exponential:
        return m.b_n * np.sqrt(rho2)
    return m.b_n * math32.exp(m.half_inverse_n * math32.log(rho2 + TINY))


@inline
def is_exponential(m):
    """Return whether n = 1."""
    return m.half_inverse_n == F(0.5)


@inline
def lens_frame(m, x, y):
    """Return the position from the lens in its principal frame, for (x, y) from the stamp's centre [pix]."""
    dx = x - m.lens_x
    dy = y - m.lens_y
    return m.cos_lens * dx + m.sin_lens * dy, m.cos_lens * dy - m.sin_lens * dx


@inline
def _line(m, x_first, step, y, count, exponential, out):
    x_0, y_0 = lens_frame(m, x_first, y)
    x_step = m.cos_lens * step
    y_step = m.sin_lens * step
    for i in range(count):
        px = x_0 + x_step * F(i)
        py = y_0 - y_step * F(i)
        rho2 = source_radius2(m, px, py, inverse_psi_at(m, px, py))
        out[i] = m.central * math32.exp(-exponent_of(m, rho2, exponential))


@inline
def brightness_line(m, x_first, step, y, count, out):
    """Fill ``out[:count]`` with the brightness along one line of constant y [pix from the stamp's centre]."""
    if is_exponential(m):
        _line(m, x_first, step, y, count, True, out)
    else:
        _line(m, x_first, step, y, count, False, out)


@jit
def source_points(fields, xs, ys, us, vs):
    """Write where image positions ``xs, ys`` [pix from the stamp's centre] lie in the source, as
    ``source_radius2`` sees them: the two coordinates whose squares it adds. For certificates and tests.
    """
    m = model_of(fields)
    for k in range(xs.size):
        x, y = lens_frame(m, xs[k], ys[k])
        us[k], vs[k] = source_coordinates(m, x, y, inverse_psi_at(m, x, y))
