"""Deflections and light profiles: against lenstronomy, fifty digits, and what the formulae must satisfy."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import integrate
from scipy.special import gammainc

from arcforge.engine import (
    deflection_shear,
    deflection_sie,
    deflection_sis,
    sersic_profile_Ie1,
    sersic_unit_total_flux,
)
from arcforge.engine.catalog import render_columns
from arcforge.engine.errors import RenderError
from arcforge.engine.rays import KINDS, fold, sersic_bn
from arcforge.kernels.ray import source_points

RATIOS = [0.3, 0.5, 0.7, 0.9, 0.99, 1.0 - 1e-6, 1.0]


def _ellipticity(q: float) -> float:
    return (1.0 - q) / (1.0 + q)


def _points(seed: int, n: int = 400, reach: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.random.default_rng(seed).uniform(-reach, reach, (2, n))
    return x, y


def _largest(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> float:
    return float(max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)))


# -- lenstronomy --


@pytest.mark.parametrize("q", RATIOS)
def test_sie_agrees_with_lenstronomy(q: float) -> None:
    """Lenstronomy's "SIE" has two forms.

    ``NIE=False`` is the elliptical power law at slope 2, singular as ours is. The default is the isothermal
    ellipsoid with a core of 1e-10 arcsec: a softened lens, and so the same as ours to 1e-9 and no better.
    """
    from lenstronomy.LensModel.Profiles.sie import SIE

    x, y = _points(1)
    e, phi, theta_e = _ellipticity(q), 0.7, 1.6
    e1, e2 = e * np.cos(2.0 * phi), e * np.sin(2.0 * phi)
    ours = deflection_sie(x, y, theta_e, e, phi)
    assert _largest(ours, SIE(NIE=False).derivatives(x, y, theta_e, e1, e2)) < 1e-10
    # its formula divides by sqrt(1 - q^2), so it holds q a little below 1
    assert _largest(ours, SIE().derivatives(x, y, theta_e, e1, e2)) < (1e-9 if q < 1.0 else 2e-8)


def test_shear_agrees_with_lenstronomy() -> None:
    from lenstronomy.LensModel.Profiles.shear import Shear

    x, y = _points(2)
    for strength, phi in ((0.0, 0.3), (0.05, -1.2), (0.3, 2.9)):
        expected = Shear().derivatives(x, y, strength * np.cos(2.0 * phi), strength * np.sin(2.0 * phi))
        assert _largest(deflection_shear(x, y, strength, phi), expected) < 1e-13


def test_sis_agrees_with_lenstronomy() -> None:
    from lenstronomy.LensModel.Profiles.sis import SIS

    x, y = _points(3)
    assert _largest(deflection_sis(x, y, 1.3), SIS().derivatives(x, y, 1.3)) < 1e-13


# -- fifty digits --


def _exact_sie(x: float, y: float, theta_e: float, e: float, phi: float) -> tuple[float, float]:
    lost = 0 if e == 0.0 else int(-2.0 * np.log10(e))  # digits that 1 - q^2 cancels, and its root after it
    with mpmath.workdps(50 + lost):
        mx, my, mt, me, mp = (mpmath.mpf(float(value)) for value in (x, y, theta_e, e, phi))
        c, s = mpmath.cos(mp), mpmath.sin(mp)
        along, across = c * mx + s * my, c * my - s * mx
        if me == 0:
            r = mpmath.sqrt(along**2 + across**2)
            a, b = mt * along / r, mt * across / r
        else:
            q = (1 - me) / (1 + me)
            f = mpmath.sqrt(1 - q**2)
            psi = mpmath.sqrt(q**2 * along**2 + across**2)
            a = mt * mpmath.sqrt(q) / f * mpmath.atan(f * along / psi)
            b = mt * mpmath.sqrt(q) / f * mpmath.atanh(f * across / psi)
        return float(c * a - s * b), float(s * a + c * b)


HARD_RATIOS = [0.0, 1e-300, 1e-30, 1e-17, 1e-12, 1e-9, 1e-6, 1e-3, 0.2, 0.54, 0.9, 0.9999, 1.0 - 1e-9]
HARD_POINTS = [(1.0, 0.0), (0.0, 1.0), (-2.0, 0.0), (0.0, -3.0), (1e-12, 1.0), (1.0, 1e-12), (1e-9, -1e-9),
               (1e-160, 2e-160), (3.0, 3.0), (-0.3, 1e3)]  # fmt: skip


@pytest.mark.parametrize("e", HARD_RATIOS)
@pytest.mark.parametrize("phi", [0.0, 0.4])
def test_sie_to_fifty_digits_at_hard_points(e: float, phi: float) -> None:
    for x, y in HARD_POINTS:
        found = deflection_sie(x, y, 1.7, e, phi)
        assert found == pytest.approx(_exact_sie(x, y, 1.7, e, phi), abs=3e-15), (x, y)


def test_circular_limit_is_continuous() -> None:
    x, y = _points(4)
    circle = deflection_sis(x, y, 2.0)
    assert _largest(deflection_sie(x, y, 2.0, 0.0, 0.3), circle) < 1e-15
    for e in (1e-14, 1e-11, 1e-10):
        assert _largest(deflection_sie(x, y, 2.0, e, 0.3), circle) < 10.0 * e + 2e-15


def test_no_deflection_at_the_centre() -> None:
    assert deflection_sis(0.0, 0.0, 1.0) == (0.0, 0.0)
    assert deflection_sie(0.0, 0.0, 1.0, 0.3, 0.2) == (0.0, 0.0)
    assert deflection_sie(0.0, 0.0, 1.0, 0.0, 0.2) == (0.0, 0.0)


# -- what must hold --


@pytest.mark.parametrize("q", [0.3, 0.6, 1.0])
def test_critical_curve_encloses_pi_theta_e_squared(q: float) -> None:
    """The normalisation itself: det(1 - d alpha / d x) = 0 found along rays, by central differences."""
    theta_e, phi, step = 1.4, 0.5, 1e-5
    angle = (np.arange(720) + 0.5) * np.pi / 360.0
    low, high = np.full(720, 0.2), np.full(720, 5.0)

    def determinant(r: np.ndarray) -> np.ndarray:
        x, y = r * np.cos(angle), r * np.sin(angle)
        right, left = (deflection_sie(x + d, y, theta_e, _ellipticity(q), phi) for d in (step, -step))
        upper, lower = (deflection_sie(x, y + d, theta_e, _ellipticity(q), phi) for d in (step, -step))
        xx, yx = ((a - b) / (2.0 * step) for a, b in zip(right, left, strict=True))
        xy, yy = ((a - b) / (2.0 * step) for a, b in zip(upper, lower, strict=True))
        return (1.0 - xx) * (1.0 - yy) - xy * yx

    for _ in range(40):
        middle = 0.5 * (low + high)
        inside = determinant(middle) < 0.0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    area = 0.5 * np.sum(low**2) * np.pi / 360.0
    assert area == pytest.approx(np.pi * theta_e**2, rel=2e-5)


def test_major_convention_is_the_bare_prefactor() -> None:
    x, y = _points(5)
    q = 0.6
    major = deflection_sie(x, y, 1.2, _ellipticity(q), 0.3, theta_e_convention="major")
    assert _largest(major, deflection_sie(x, y, 1.2 / np.sqrt(q), _ellipticity(q), 0.3)) < 1e-15


def test_lens_turns_with_its_angle() -> None:
    x, y = _points(6)
    turned = np.exp(0.8j) * (x + 1j * y)
    straight = np.array(deflection_sie(x, y, 1.0, 0.3, 0.1))
    found = np.array(deflection_sie(turned.real, turned.imag, 1.0, 0.3, 0.9))
    assert np.abs(found[0] + 1j * found[1] - np.exp(0.8j) * (straight[0] + 1j * straight[1])).max() < 1e-14


def test_shapes_and_scalars() -> None:
    alpha_x, alpha_y = deflection_sie(np.zeros((3, 1)) + 1.0, np.arange(4.0), 1.0, 0.2, 0.0)
    assert alpha_x.shape == alpha_y.shape == (3, 4)
    assert alpha_x.dtype == np.float64
    assert isinstance(deflection_sis(1.0, 0.0, 2.0)[0], float)
    assert deflection_sis(1.0, 0.0, 2.0) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: deflection_sie(1.0, 1.0, -1.0, 0.1, 0.0), "theta_e_arcsec is -1.0"),
        (lambda: deflection_sie(1.0, 1.0, 1.0, 1.0, 0.0), "lens_e is 1.0; allowed: 0 <= value < 1"),
        (lambda: deflection_sie(1.0, 1.0, 1.0, np.nan, 0.0), "lens_e is nan"),
        (lambda: deflection_sie(1.0, np.nan, 1.0, 0.1, 0.0), "NaN or infinity"),
        (lambda: deflection_sie(1.0, 1.0, 1.0, 0.1, 0.0, theta_e_convention="minor"), "'minor' is unknown"),
        (lambda: sersic_profile_Ie1(0.0, 0.0, 0.0, 1.0, 0.0), "reff_arcsec is 0.0"),
        (lambda: sersic_profile_Ie1(0.0, 0.0, 1.0, 1.2, 0.0), "q is 1.2"),
        (lambda: sersic_unit_total_flux(1.0, 1.0, 0.1), "n is 0.1; allowed: 0.3"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(RenderError, match=message):
        call()


# -- the fast path --


def test_float32_path_deflects_within_two_microarcsec() -> None:
    """Ask the kernels themselves where pixels of a stamp land in the source plane."""
    rng = np.random.default_rng(7)
    n, scale = 60, 0.262
    e = np.where(rng.random(n) < 0.3, 10.0 ** rng.uniform(-12.0, -2.0, n), rng.uniform(0.0, 0.55, n))
    e[:2] = 0.0
    rows = {
        "lens_model": np.array(["SIE"] * n),
        "theta_e_arcsec": rng.uniform(0.3, 3.0, n),
        "lens_e": e,
        "lens_phi_rad": rng.uniform(0.0, np.pi, n),
        "shear": rng.uniform(0.0, 0.1, n),
        "shear_phi_rad": rng.uniform(0.0, np.pi, n),
        "src_x_arcsec": np.zeros(n),
        "src_y_arcsec": np.zeros(n),
        "src_reff_arcsec": np.full(n, scale),
        "src_e": np.zeros(n),
        "src_phi_rad": np.zeros(n),
        "src_flux_nmgy_r": np.ones(n),
        "psf_fwhm_arcsec_r": np.ones(n),
    }
    rays = fold(render_columns(rows, "r"), scale)
    axis = np.arange(32, dtype=np.float32) - np.float32(15.5)
    xs, ys = (grid.ravel() for grid in np.meshgrid(axis, axis))
    u, v = np.empty_like(xs), np.empty_like(ys)
    worst = 0.0
    for row in range(n):
        source_points(KINDS[rays.kinds[row]], rays.fields[row], xs, ys, u, v)
        x, y = scale * xs.astype(np.float64), scale * ys.astype(np.float64)
        lens = deflection_sie(x, y, rows["theta_e_arcsec"][row], e[row], rows["lens_phi_rad"][row])
        shear = deflection_shear(x, y, rows["shear"][row], rows["shear_phi_rad"][row])
        expected = (x - lens[0] - shear[0], y - lens[1] - shear[1])
        worst = max(worst, _largest((scale * u.astype(np.float64), scale * v.astype(np.float64)), expected))
    assert worst < 2e-6


# -- Sersic --


@pytest.mark.parametrize("n", [0.3, 0.5, 1.0, 2.5, 4.0, 6.0, 8.0])
def test_bn_is_the_exact_root(n: float) -> None:
    with mpmath.workdps(40):
        exact = mpmath.findroot(
            lambda b: mpmath.gammainc(2 * n, 0, b, regularized=True) - mpmath.mpf(1) / 2, 2 * n - 1 / 3
        )
    assert float(sersic_bn(np.float64(n))) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("n", [0.3, 1.0, 4.0])
def test_profile_integrates_to_its_flux_and_halves_at_the_major_axis_radius(n: float) -> None:
    reff, q, phi = 0.7, 0.6, 0.4
    b_n = float(sersic_bn(np.float64(n)))
    end = reff * (60.0 / b_n) ** n

    def along(r: float) -> float:
        """Brightness on the major axis, times the circumference element of ellipses of that axis ratio."""
        return float(
            2.0 * np.pi * q * r * sersic_profile_Ie1(r * np.cos(phi), r * np.sin(phi), reff, q, phi, n)
        )

    total = sersic_unit_total_flux(reff, q, n)
    half = integrate.quad(along, 0.0, reff, epsrel=1e-10, limit=200)[0]
    rest = integrate.quad(along, reff, end, epsrel=1e-10, limit=400)[0]
    assert half == pytest.approx(0.5 * total, rel=1e-8)
    assert half + rest == pytest.approx(total, rel=1e-8)
    assert gammainc(2.0 * n, b_n) == pytest.approx(0.5, rel=1e-12)


def test_profile_is_one_on_the_half_light_ellipse_and_turned_as_stated() -> None:
    phi, q, reff = 0.6, 0.5, 0.8
    c, s = np.cos(phi), np.sin(phi)
    x = np.array([reff * c, -reff * s * q])  # ends of the major and of the minor axis
    y = np.array([reff * s, reff * c * q])
    assert sersic_profile_Ie1(x, y, reff, q, phi, 4.0) == pytest.approx(1.0, abs=1e-13)
    assert sersic_profile_Ie1(0.0, 0.0, reff, q, phi, 1.0) == pytest.approx(
        np.exp(1.6783469900166605), rel=1e-13
    )
