"""From a point in the image plane to the surface brightness there: one lens, one source, float32.

Design. A row of the catalogue is folded once, in float64, into an array of float32 ``fields``
(``engine.rays.fold``): lengths in pixels, the source's rotation, axis ratio and size multiplied into the lens
equation. The first ``N_FIELDS`` of them are the ``Model`` below, the rest belong to the lens (``lenses.py``).
All light is for a source of unit flux: bands differ by flux and PSF only, so one ray-trace serves them all.

Source: I0 exp(-b_n (R / R_e)^(1/n)), taken as a power of two.
"""

from typing import NamedTuple

import numpy as np

from arcforge.kernels import math32
from arcforge.kernels._jit import inline, jit
from arcforge.kernels.lenses import deflect, lens_of

F = np.float32
TINY = F(1e-30)
DARKEST = F(
    80.0
)  # the brightness ends at 2^-80 of the centre's: smaller products would be denormal, and slow


class Model(NamedTuple):
    """What every row has, folded. Lengths in pixels from the stamp's centre; float32 scalars."""

    lens_x: np.float32  # lens centre
    lens_y: np.float32
    # to the lens's principal frame, its axes scaled as the lens asks for
    along_x: np.float32
    along_y: np.float32
    across_x: np.float32
    across_y: np.float32
    # (u, v): position in the source's principal frame in units of R_e, the minor axis stretched to a circle;
    # linear in the position in the lens's frame and in the two components of the deflection
    u_x: np.float32
    u_y: np.float32
    u_gx: np.float32
    u_gy: np.float32
    u_0: np.float32
    v_x: np.float32
    v_y: np.float32
    v_gx: np.float32
    v_gy: np.float32
    v_0: np.float32
    steepness: np.float32  # b_n / ln 2
    half_inverse_n: np.float32  # 1 / (2 n)
    central: np.float32  # I0: central surface brightness for unit flux, per pixel area
    # for error bounds only: |d(R / R_e)| <= stretch * (shear + the lens's own) per pixel
    shear: np.float32
    stretch: np.float32  # 1 / (q_source R_e)


N_FIELDS = len(Model._fields)


@inline
def model_of(fields):
    """Return the first of a row's ``fields`` as a ``Model``."""
    return Model(
        fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6], fields[7], fields[8],
        fields[9], fields[10], fields[11], fields[12], fields[13], fields[14], fields[15], fields[16],
        fields[17], fields[18], fields[19], fields[20],
    )  # fmt: skip


@inline
def lens_frame(m, x, y):
    """Return the position from the lens in its own frame, for (x, y) from the stamp's centre [pix]."""
    dx = x - m.lens_x
    dy = y - m.lens_y
    return m.along_x * dx + m.along_y * dy, m.across_x * dx + m.across_y * dy


@inline
def source_coordinates(m, kind, lens, x, y):
    """Return (u, v), whose squares add up to (R / R_e)^2, at a position in the lens's frame, and a bound on
    the lens's |I - d alpha| there.
    """
    gx, gy, magnified = deflect(kind, lens, x, y)
    u = (m.u_x * x + m.u_y * y) + ((m.u_gx * gx + m.u_gy * gy) + m.u_0)
    v = (m.v_x * x + m.v_y * y) + ((m.v_gx * gx + m.v_gy * gy) + m.v_0)
    return u, v, magnified


@inline
def exponent_of(m, rho2, exponential):
    """Return b_n (R / R_e)^(1/n) / ln 2; ``exponential`` (n = 1) is a compile-time constant, and saves a
    logarithm and a power.
    """
    if exponential:
        return m.steepness * np.sqrt(rho2)
    return m.steepness * math32.exp2(m.half_inverse_n * math32.log2(rho2))


@inline
def brightness_of(m, exponent):
    """Return the brightness at that exponent."""
    return m.central * math32.exp2(-min(exponent, DARKEST))


@inline
def is_exponential(m):
    """Return whether n = 1."""
    return m.half_inverse_n == F(0.5)


@inline
def _line(m, kind, lens, x_first, step, y, count, exponential, out):
    x_0, y_0 = lens_frame(m, x_first, y)
    x_step = m.along_x * step
    y_step = m.across_x * step
    # Several loops, through ``out``: one would be a chain of operations so long that the processor could not
    # begin a ray before the last is nearly done; it takes a third more time.
    for i in range(count):
        steps = F(np.int32(i))  # of 64 bits it would be converted lane by lane
        u, v, _ = source_coordinates(m, kind, lens, x_0 + x_step * steps, y_0 + y_step * steps)
        out[i] = u * u + v * v + TINY
    if exponential:
        for i in range(count):
            out[i] = brightness_of(m, exponent_of(m, out[i], exponential))
    else:
        for i in range(count):
            out[i] = exponent_of(m, out[i], exponential)
        for i in range(count):
            out[i] = brightness_of(m, out[i])


@jit
def brightness_line(kind, fields, x_first, step, y, count, out):
    """Fill ``out[:count]`` with the brightness along one line of constant y [pix from the stamp's centre]."""
    m, lens = model_of(fields), lens_of(kind, fields[N_FIELDS:])
    if is_exponential(m):
        _line(m, kind, lens, x_first, step, y, count, True, out)
    else:
        _line(m, kind, lens, x_first, step, y, count, False, out)


@jit
def source_points(kind, fields, xs, ys, us, vs):
    """Write where image positions ``xs, ys`` [pix from the stamp's centre] lie in the source: the two
    coordinates whose squares add up to (R / R_e)^2. For certificates and tests.
    """
    m, lens = model_of(fields), lens_of(kind, fields[N_FIELDS:])
    for k in range(xs.size):
        x, y = lens_frame(m, xs[k], ys[k])
        us[k], vs[k], _ = source_coordinates(m, kind, lens, x, y)
