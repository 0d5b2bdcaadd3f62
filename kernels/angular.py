"""Deflections as polynomials of the angle.

The deflection of a scale-free ellipsoid is a power of the radius times a function of the angle. With the
angle chi of (sqrt(q) x, y), half-way between the polar angle and the ellipse's own, that function is

    (cos chi P(z), sin chi Q(z)),  z = cos 2 chi,

and P and Q are analytic up to z = +-(1 + q) / (1 - q), so that their Chebyshev series fall off by
(1 + sqrt(q)) / (1 - sqrt(q)) a term: 4.8 at e = 0.4, 3.7 at 0.5. (In either of the usual angles the
singularities lie nearer and it takes twice the terms.) A ray then needs one inverse square root and two
polynomials in place of an atan and a log1p with three divisions and two roots: half the time.
"""

from functools import lru_cache

import numpy as np

from arcforge.kernels._jit import inline

F = np.float32
NODES = 24  # of the interpolation: what aliases into degree 16 is of degree 32


def nodes():
    """Return z, cos chi and sin chi at the interpolation's nodes, float64 (NODES,)."""
    angle = np.pi * (np.arange(NODES) + 0.5) / NODES
    return np.cos(angle), np.cos(0.5 * angle), np.sin(0.5 * angle)


def coefficients(values, degree):
    """Return the coefficients, float64 (n, degree + 1) by rising power, of rows of values at the nodes.

    Truncated Chebyshev series: nearly the smallest largest error. The sum is written out: a product of
    matrices may round differently for another number of rows.
    """
    matrix = _to_powers(degree)
    out = np.zeros((len(values), degree + 1))
    for k in range(NODES):
        out += values[:, k, None] * matrix[k]
    return out


@lru_cache(maxsize=2)
def _to_powers(degree):
    """Return the matrix, float64 (NODES, degree + 1), from values at the nodes to coefficients."""
    series = np.polynomial.chebyshev.chebvander(nodes()[0], degree)
    to_series = series.T * np.where(np.arange(degree + 1) == 0, 1.0, 2.0)[:, None] / NODES
    to_powers = np.zeros((degree + 1, degree + 1))
    for k in range(degree + 1):
        powers = np.polynomial.chebyshev.cheb2poly(np.eye(degree + 1)[k])
        to_powers[: powers.size, k] = powers
    return (to_powers @ to_series).T


def rising_bound(values):
    """Return (a, b), float64 (n,) each, such that a + b z is no less than rows of values at the nodes.

    The chord through the end nodes, lifted to the highest value above it.
    """
    z = nodes()[0]
    slope = (values[:, 0] - values[:, -1]) / (z[0] - z[-1])
    return (values - slope[:, None] * z).max(axis=1), slope


@inline
def eleven(fields, first):
    """Return eleven fields from ``first`` on as a tuple."""
    return (
        fields[first], fields[first + 1], fields[first + 2], fields[first + 3], fields[first + 4],
        fields[first + 5], fields[first + 6], fields[first + 7], fields[first + 8], fields[first + 9],
        fields[first + 10],
    )  # fmt: skip


@inline
def polynomial(c, z, w):
    """Return the polynomial of degree 10 with coefficients ``c`` at z; ``w`` = z^2.

    Even and odd powers apart and in pairs: short chains of dependent operations, which the CPU overlaps.
    """
    w2 = w * w
    even = (c[0] + c[2] * w) + w2 * ((c[4] + c[6] * w) + w2 * (c[8] + c[10] * w))
    odd = (c[1] + c[3] * w) + w2 * ((c[5] + c[7] * w) + w2 * c[9])
    return even + z * odd


@inline
def seventeen(fields, first):
    """Return seventeen fields from ``first`` on as a tuple."""
    return (
        fields[first], fields[first + 1], fields[first + 2], fields[first + 3], fields[first + 4],
        fields[first + 5], fields[first + 6], fields[first + 7], fields[first + 8], fields[first + 9],
        fields[first + 10], fields[first + 11], fields[first + 12], fields[first + 13], fields[first + 14],
        fields[first + 15], fields[first + 16],
    )  # fmt: skip


@inline
def polynomial_16(c, z, w):
    """Return the polynomial of degree 16 with coefficients ``c`` at z; ``w`` = z^2."""
    w2 = w * w
    w4 = w2 * w2
    even = (c[0] + c[2] * w) + w2 * (c[4] + c[6] * w) + w4 * ((c[8] + c[10] * w) + w2 * (c[12] + c[14] * w))
    odd = (c[1] + c[3] * w) + w2 * (c[5] + c[7] * w) + w4 * ((c[9] + c[11] * w) + w2 * (c[13] + c[15] * w))
    return (even + w4 * (w4 * c[16])) + z * odd
