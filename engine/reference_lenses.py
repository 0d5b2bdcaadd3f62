"""Deflections of the arbiter, float64: each lens by another formula than the fast kernels take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcforge.kernels.codes import EPL, NFW

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


def nfw_mean(x: ArrayLike) -> Floats:
    """Return the mean convergence within x = r / r_s of an NFW halo, but for a factor (Bartelmann 1996)."""
    x = np.maximum(np.asarray(x, dtype=np.float64), 1e-12)
    inside, outside = np.minimum(x, 1.0 - 1e-9), np.maximum(x, 1.0 + 1e-9)
    f = np.where(
        x < 1.0,
        np.arccosh(1.0 / inside) / np.sqrt(1.0 - inside**2),
        np.arccos(1.0 / outside) / np.sqrt(outside**2 - 1.0),
    )
    # the difference of two logarithms loses its digits where x is small: its series instead
    log = np.log(2.0 / x)
    series = 0.5 * (log - 0.5) + x**2 * (0.375 * log - 0.21875)
    return np.where(x < 1e-3, series, (np.log(0.5 * x) + f) / x**2)


@dataclass(frozen=True)
class Mass:
    """One lens; lengths in pixels.

    Attributes
    ----------
    model : int
        Code of ``arcforge.kernels.codes``.
    theta_e, e : float
        Einstein radius, ellipticity.
    gamma, rs : float
        Slope of a power law, scale radius of an NFW halo.
    """

    model: int
    theta_e: float
    e: float
    gamma: float
    rs: float

    @property
    def q(self) -> float:
        """Axis ratio."""
        return (1.0 - self.e) / (1.0 + self.e)

    def deflection(self, r: Floats, angle: Floats) -> Complexes:
        """Return the deflection at polar coordinates of the principal frame, as complex numbers there."""
        if self.model == EPL:
            return self._power_law(r, angle)
        if self.model == NFW:
            return self._nfw(r, angle)
        return self._isothermal(angle)

    def largest_gradient(self, nearest: Floats) -> Floats:
        """Return a bound on |d alpha| at distances from ``nearest`` on."""
        if self.model == EPL:
            t, b = self.gamma - 1.0, self.theta_e * np.sqrt(self.q)
            return np.asarray((2.0 - t + 2.0 * abs(1.0 - t) / self.q) * (b / (self.q * nearest)) ** t)
        if self.model == NFW:
            inner = nfw_mean(np.sqrt(self.q) * nearest / self.rs)
            return np.asarray(2.0 / self.q * inner / nfw_mean(self.theta_e / self.rs))
        # |d alpha| of an SIE is at most its convergence's double, theta_E sqrt(q) / (q r)
        return np.asarray(self.theta_e / np.sqrt(self.q) / nearest)

    def reach(self, beta: float, shear: float) -> float:
        """Return how far from the lens images of points within ``beta`` of it can lie."""
        radii = np.geomspace(1e-3, 1e6, 2000)
        largest = np.abs(self.deflection(radii[:, None], np.linspace(0.0, np.pi, 65)[None, :])).max(axis=1)
        within = radii * (1.0 - abs(shear)) <= beta + largest
        return float(1.02 * radii[within].max(initial=radii[0]))  # a step of the radii, and of the angles

    def _isothermal(self, angle: Floats) -> Complexes:
        """Return the deflection of an SIE, as complex in the principal frame."""
        f2 = 1.0 - self.q**2
        if f2 < 1e-14:
            along, across = self.theta_e * np.cos(angle), self.theta_e * np.sin(angle)
        else:
            f = np.sqrt(f2)
            strength = self.theta_e * np.sqrt(self.q) / f
            along = strength * np.arcsin(f * np.cos(angle))
            across = strength * np.arcsinh(f / self.q * np.sin(angle))
        return np.asarray(along + 1j * across)

    def _power_law(self, r: Floats, angle: Floats) -> Complexes:
        """Return the deflection of a power law by its hypergeometric function (Tessore & Metcalf 2015)."""
        from scipy.special import hyp2f1

        t, b = self.gamma - 1.0, self.theta_e * np.sqrt(self.q)
        ellipse = np.maximum(r, 1e-12) * (self.q * np.cos(angle) + 1j * np.sin(angle))
        turn = ellipse / np.abs(ellipse)
        series = hyp2f1(1.0, 0.5 * t, 2.0 - 0.5 * t, -self.e * turn**2)
        return np.asarray(2.0 * b / (1.0 + self.q) * (b / np.abs(ellipse)) ** (t - 1.0) * turn * series)

    def _nfw(self, r: Floats, angle: Floats) -> Complexes:
        """Return the deflection of an NFW halo with an elliptical potential."""
        x, y = np.sqrt(self.q) * r * np.cos(angle), r * np.sin(angle) / np.sqrt(self.q)
        ratio = nfw_mean(np.hypot(x, y) / self.rs) / nfw_mean(self.theta_e / self.rs)
        return np.asarray(ratio * (np.sqrt(self.q) * x + 1j * y / np.sqrt(self.q)))
