"""Deflections and light profiles at given points, float64: the field's formulae with its names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcforge.engine.errors import RenderError
from arcforge.engine.rays import sersic_bn
from arcforge.kernels.deflection import shear_deflections, sie_deflections, sis_deflections
from arcforge.kernels.lens_epl import unit_deflection
from arcforge.kernels.lens_nfw import mean_convergence

Floats = NDArray[np.float64]


def _deflect(
    driver: Callable[..., None], x: ArrayLike, y: ArrayLike, *parameters: float
) -> tuple[Floats, Floats]:
    """Run a driver over broadcast arrays; scalars come back as scalars."""
    across, up = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    shape = across.shape
    flat_x, flat_y = np.ascontiguousarray(across).ravel(), np.ascontiguousarray(up).ravel()
    if not (np.isfinite(flat_x).all() and np.isfinite(flat_y).all()):
        raise RenderError("positions hold NaN or infinity; drop those points")
    alpha_x, alpha_y = np.empty_like(flat_x), np.empty_like(flat_y)
    driver(flat_x, flat_y, *(float(p) for p in parameters), alpha_x, alpha_y)
    return alpha_x.reshape(shape)[()], alpha_y.reshape(shape)[()]


def _check(name: str, value: float, low: float, high: float) -> float:
    if not low <= value < high:
        raise RenderError(f"{name} is {value!r}; allowed: {low:g} <= value < {high:g}")
    return float(value)


def deflection_sis(x: ArrayLike, y: ArrayLike, theta_e_arcsec: float) -> tuple[Floats, Floats]:
    """Return the deflection of a singular isothermal sphere.

    Parameters
    ----------
    x, y : array_like
        Image positions from the lens [arcsec], broadcast together.
    theta_e_arcsec : float
        Einstein radius.

    Returns
    -------
    (alpha_x, alpha_y) : float64, the broadcast shape [arcsec]
        theta_E (x, y) / r; 0 at the lens's centre.
    """
    return _deflect(sis_deflections, x, y, _check("theta_e_arcsec", theta_e_arcsec, 0.0, np.inf))


def deflection_sie(
    x: ArrayLike,
    y: ArrayLike,
    theta_e_arcsec: float,
    lens_e: float,
    lens_phi_rad: float,
    *,
    theta_e_convention: str = "intermediate",
) -> tuple[Floats, Floats]:
    """Return the deflection of a singular isothermal ellipsoid (Kormann et al. 1994, A&A 284, 285, eq. 27).

    Parameters
    ----------
    x, y : array_like
        Image positions from the lens [arcsec], broadcast together.
    theta_e_arcsec : float
        Einstein radius; in the "intermediate" convention the critical curve encloses pi theta_E^2 for every q
        (as in lenstronomy, COOLEST), in the "major" one it is the bare prefactor, larger by 1 / sqrt(q).
    lens_e, lens_phi_rad : float
        Ellipticity (1 - q) / (1 + q) and the major axis's angle, counter-clockwise from +x.
    theta_e_convention : {"intermediate", "major"}

    Returns
    -------
    (alpha_x, alpha_y) : float64, the broadcast shape [arcsec]

    Raises
    ------
    RenderError
        For an ellipticity outside [0, 1), a negative radius or an unknown convention.
    """
    e = _check("lens_e", lens_e, 0.0, 1.0)
    theta_e = _check("theta_e_arcsec", theta_e_arcsec, 0.0, np.inf)
    if theta_e_convention == "major":
        theta_e /= np.sqrt((1.0 - e) / (1.0 + e))
    elif theta_e_convention != "intermediate":
        raise RenderError(
            f'theta_e_convention {theta_e_convention!r} is unknown: use "intermediate" or "major"'
        )
    return _deflect(sie_deflections, x, y, theta_e, e, lens_phi_rad)


def deflection_epl(
    x: ArrayLike,
    y: ArrayLike,
    theta_e_arcsec: float,
    lens_e: float,
    lens_phi_rad: float,
    lens_gamma: float,
) -> tuple[Floats, Floats]:
    """Return the deflection of an elliptical power law (Tessore & Metcalf 2015, A&A 580, A79, eqs. 11, 13).

    Parameters
    ----------
    x, y : array_like
        Image positions from the lens [arcsec], broadcast together.
    theta_e_arcsec : float
        Einstein radius in the intermediate-axis convention: kappa = (3 - gamma) / 2 (theta_E / sqrt(q x^2 +
        y^2 / q))^(gamma - 1).
    lens_e, lens_phi_rad : float
        Ellipticity (1 - q) / (1 + q) and the major axis's angle, counter-clockwise from +x.
    lens_gamma : float
        Slope of the density in three dimensions, 1 < gamma < 3; 2 is isothermal.

    Returns
    -------
    (alpha_x, alpha_y) : float64, the broadcast shape [arcsec]; 0 at the lens's centre.
    """
    e = _check("lens_e", lens_e, 0.0, 1.0)
    t = _check("lens_gamma", lens_gamma, 1.0 + 1e-6, 3.0) - 1.0
    q = (1.0 - e) / (1.0 + e)
    b = _check("theta_e_arcsec", theta_e_arcsec, 0.0, np.inf) * np.sqrt(q)
    position = _in_frame(x, y, lens_phi_rad)
    ellipse = q * position.real + 1j * position.imag
    radius = np.maximum(np.abs(ellipse), 1e-300)
    alpha = unit_deflection(q, t, np.angle(ellipse)) * b * (b / radius) ** (t - 1.0)
    alpha = np.where(position == 0.0, 0.0, alpha) * np.exp(1j * lens_phi_rad)
    return alpha.real[()], alpha.imag[()]


def deflection_nfw(
    x: ArrayLike,
    y: ArrayLike,
    theta_e_arcsec: float,
    lens_e: float,
    lens_phi_rad: float,
    nfw_rs_arcsec: float,
) -> tuple[Floats, Floats]:
    """Return the deflection of an NFW halo (Bartelmann 1996, A&A 313, 697).

    Parameters
    ----------
    x, y : array_like
        Image positions from the lens [arcsec], broadcast together.
    theta_e_arcsec : float
        Radius within which the mean convergence of the round halo is 1.
    lens_e, lens_phi_rad : float
        Ellipticity (1 - q) / (1 + q) of the POTENTIAL, constant on q x^2 + y^2 / q, and its major axis's
        angle (after Golse & Kneib 2002, A&A 390, 821).
    nfw_rs_arcsec : float
        Scale radius.

    Returns
    -------
    (alpha_x, alpha_y) : float64, the broadcast shape [arcsec]; 0 at the lens's centre.
    """
    e = _check("lens_e", lens_e, 0.0, 1.0)
    q = (1.0 - e) / (1.0 + e)
    theta_e = _check("theta_e_arcsec", theta_e_arcsec, 1e-300, np.inf)
    rs = _check("nfw_rs_arcsec", nfw_rs_arcsec, 1e-300, np.inf)
    position = _in_frame(x, y, lens_phi_rad)
    radius = np.hypot(np.sqrt(q) * position.real, position.imag / np.sqrt(q))
    ratio = mean_convergence(np.maximum(radius / rs, 1e-30)) / mean_convergence(theta_e / rs)
    alpha = ratio * (q * position.real + 1j * position.imag / q) * np.exp(1j * lens_phi_rad)
    return alpha.real[()], alpha.imag[()]


def _in_frame(x: ArrayLike, y: ArrayLike, phi_rad: float) -> NDArray[np.complex128]:
    """Return positions as complex numbers in a lens's principal frame."""
    across, up = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    if not (np.isfinite(across).all() and np.isfinite(up).all()):
        raise RenderError("positions hold NaN or infinity; drop those points")
    return np.asarray((across + 1j * up) * np.exp(-1j * phi_rad))


def deflection_shear(x: ArrayLike, y: ArrayLike, shear: float, shear_phi_rad: float) -> tuple[Floats, Floats]:
    """Return the deflection of an external shear of strength ``shear`` at angle ``shear_phi_rad``.

    alpha = (g1 x + g2 y, g2 x - g1 y) with g1 = shear cos 2 phi, g2 = shear sin 2 phi; x, y and the result in
    arcsec from the lens, broadcast together.
    """
    return _deflect(
        shear_deflections, x, y, shear * np.cos(2.0 * shear_phi_rad), shear * np.sin(2.0 * shear_phi_rad)
    )


def sersic_profile_Ie1(
    beta_x: ArrayLike, beta_y: ArrayLike, reff_arcsec: float, q: float, phi_rad: float, n: float = 1.0
) -> Floats:
    """Return a Sersic profile with unit brightness at the half-light radius.

    exp(-b_n ((R / R_e)^(1/n) - 1)) with R = sqrt(x'^2 + (y' / q)^2): R_e is the MAJOR-axis half-light radius
    (Tractor, GALFIT). b_n solves Gamma(2n) = 2 gamma(2n, b_n) exactly.

    Parameters
    ----------
    beta_x, beta_y : array_like
        Positions from the source's centre [arcsec].
    reff_arcsec, q, phi_rad, n : float
        Half-light radius, axis ratio (0 < q <= 1), angle of the major axis, Sersic index (0.3 to 8).

    Returns
    -------
    float64, the broadcast shape; multiply by flux / ``sersic_unit_total_flux`` for flux per square arcsec.
    """
    _check_sersic(reff_arcsec, q, n)
    x, y = np.asarray(beta_x, dtype=np.float64), np.asarray(beta_y, dtype=np.float64)
    along = np.cos(phi_rad) * x + np.sin(phi_rad) * y
    across = np.cos(phi_rad) * y - np.sin(phi_rad) * x
    ratio = np.hypot(along, across / q) / reff_arcsec
    return np.asarray(np.exp(-sersic_bn(n) * (ratio ** (1.0 / n) - 1.0)))[()]


def sersic_unit_total_flux(reff_arcsec: float, q: float, n: float = 1.0) -> float:
    """Return the total flux of ``sersic_profile_Ie1``, in its brightness times square arcsec.

    2 pi q n R_e^2 e^(b_n) b_n^(-2n) Gamma(2n) (Graham & Driver 2005, PASA 22, 118, eq. 4, times q).
    """
    from scipy.special import gammaln

    _check_sersic(reff_arcsec, q, n)
    b_n = float(sersic_bn(n))
    shape = np.exp(b_n - 2.0 * n * np.log(b_n) + gammaln(2.0 * n))
    return float(2.0 * np.pi * q * n * reff_arcsec**2 * shape)


def _check_sersic(reff_arcsec: float, q: float, n: float) -> None:
    if not reff_arcsec > 0.0:
        raise RenderError(f"reff_arcsec is {reff_arcsec!r}; allowed: value > 0")
    if not 0.0 < q <= 1.0:
        raise RenderError(f"q is {q!r}; allowed: 0 < value <= 1")
    if not 0.3 <= n <= 8.0:
        raise RenderError(f"n is {n!r}; allowed: 0.3 <= value <= 8")
