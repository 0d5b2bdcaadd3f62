"""Power-law and NFW lenses, and the polynomials of the angle: deflections, error bounds, images."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from arcforge.engine import deflection_epl, deflection_nfw, deflection_sie, render_batch
from arcforge.engine.catalog import render_columns
from arcforge.engine.errors import CatalogError, RenderError
from arcforge.engine.rays import KINDS, fold
from arcforge.kernels import angular
from arcforge.kernels.lenses import deflect, lens_of
from arcforge.kernels.ray import N_FIELDS, source_points

F = np.float32
THETA_E = 1.3
SLOPES = [1.3, 1.7, 2.0, 2.3, 2.7]
NFW_RADII = [0.3, 1.3, 5.0, 40.0]


@numba.njit
def _bound(kind, parameters, x, y):
    return deflect(kind, lens_of(kind, parameters), x, y)[2]


@numba.njit
def _polynomials(c, z):
    return angular.polynomial(c, z, z * z)


@numba.njit
def _polynomials_16(c, z):
    return angular.polynomial_16(c, z, z * z)


def _points(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Float32 positions in all directions, from 0.01 to 6 arcsec, the axes included."""
    rng = np.random.default_rng(12)
    r, angle = 10.0 ** rng.uniform(-2.0, 0.8, n), rng.uniform(0.0, 2.0 * np.pi, n)
    angle[:8] = np.arange(8) * np.pi / 4.0 + 0.4
    return (r * np.cos(angle)).astype(np.float32), (r * np.sin(angle)).astype(np.float32)


def _deflection(model: str, x: np.ndarray, y: np.ndarray, e: float, shape: float) -> Any:
    if model == "EPL":
        return deflection_epl(x, y, THETA_E, e, 0.4, shape)
    if model == "NFW":
        return deflection_nfw(x, y, THETA_E, e, 0.4, shape)
    return deflection_sie(x, y, THETA_E, e, 0.4)


def _rows(lens_rows: Any, model: str, e: float, shape: float, **columns: Any) -> dict[str, np.ndarray]:
    own = {"EPL": {"lens_gamma": shape}, "NFW": {"nfw_rs_arcsec": shape}}.get(model, {})
    return lens_rows(
        lens_model=model, theta_e_arcsec=THETA_E, lens_e=e, lens_phi_rad=0.4, shear=0.0, **own, **columns
    )


CASES = [
    *(("SIE", e, 0.0) for e in (0.0, 1e-9, 1e-3, 0.2, 0.5, 0.501, 0.8)),
    *(("EPL", e, gamma) for e in (0.0, 0.2, 0.65) for gamma in SLOPES),
    *(("NFW", e, rs) for e in (0.0, 0.2) for rs in NFW_RADII),
]


@pytest.mark.parametrize(("model", "e", "shape"), CASES)
def test_fast_deflections_are_those_of_the_formulae(
    lens_rows: Any, model: str, e: float, shape: float
) -> None:
    rows = _rows(lens_rows, model, e, shape, src_reff_arcsec=1.0, src_e=0.0, src_phi_rad=0.0)
    rows |= {name: np.zeros(1) for name in ("src_x_arcsec", "src_y_arcsec", "lens_x_arcsec", "lens_y_arcsec")}
    folded = fold(render_columns(rows, "r"), 1.0)
    x, y = _points()
    u, v = np.empty_like(x), np.empty_like(y)
    source_points(KINDS[folded.kinds[0]], folded.fields[0], x, y, u, v)
    exact_x, exact_y = _deflection(model, x.astype(np.float64), y.astype(np.float64), e, shape)
    # near a steep lens deflections are tens of arcsec, of which float32 keeps six digits
    limit = np.maximum(2e-6, 1e-6 * np.hypot(exact_x, exact_y))
    assert (np.hypot(x - exact_x - u, y - exact_y - v) < limit).all()


@pytest.mark.parametrize(("model", "e", "shape"), CASES)
def test_error_bound_is_no_smaller_than_the_stretch(
    lens_rows: Any, model: str, e: float, shape: float
) -> None:
    """|I - d alpha| by differences of the float64 deflection, against what the kernel hands to its errors."""
    rows = _rows(lens_rows, model, e, shape)
    folded = fold(render_columns(rows, "r"), 1.0)
    kind, parameters = KINDS[folded.kinds[0]], folded.fields[0, N_FIELDS:]
    x, y = (points[:60].astype(np.float64) for points in _points())
    step = 1e-6

    def beta(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        alpha = _deflection(model, x, y, e, shape)
        return np.stack([x - alpha[0], y - alpha[1]])

    jacobian = np.stack(
        [
            (beta(x + step, y) - beta(x - step, y)) / (2.0 * step),
            (beta(x, y + step) - beta(x, y - step)) / (2.0 * step),
        ]
    )
    stretch = np.linalg.norm(jacobian.transpose(2, 1, 0), ord=2, axis=(1, 2))
    fields = folded.fields[0].astype(np.float64)
    for k in range(x.size):
        along, across = fields[2] * x[k] + fields[3] * y[k], fields[4] * x[k] + fields[5] * y[k]
        bound = _bound(kind, parameters, F(along), F(across))
        assert stretch[k] <= 1.01 * bound
        assert bound <= 4.0 * stretch[k] + 3.0  # and not absurdly larger: cells would be divided for nothing


def test_polynomials_are_the_functions_at_the_nodes_between() -> None:
    """Of an analytic function, to the size of the first term left out; off the nodes."""
    z = angular.nodes()[0]
    coefficients = angular.coefficients(np.stack([1.0 / (3.0 - z), np.exp(z)]), 10).astype(np.float32)
    for at in np.linspace(-1.0, 1.0, 9):
        found = [_polynomials(tuple(row), F(at)) for row in coefficients]
        assert found == pytest.approx([1.0 / (3.0 - at), np.exp(at)], rel=1e-6)
    wide = angular.coefficients(np.stack([1.0 / (2.0 - z)]), 16).astype(np.float32)[0]
    for at in np.linspace(-1.0, 1.0, 9):
        assert _polynomials_16(tuple(wide), F(at)) == pytest.approx(1.0 / (2.0 - at), 1e-6)
    a, b = angular.rising_bound(np.stack([np.cos(5.0 * z), z**2]))
    for values, low, slope in zip((np.cos(5.0 * z), z**2), a, b, strict=True):
        assert (low + slope * z >= values - 1e-12).all()


@pytest.mark.parametrize("gamma", SLOPES)
def test_power_law_agrees_with_lenstronomy(gamma: float) -> None:
    profile = pytest.importorskip("lenstronomy.LensModel.Profiles.epl").EPL()
    x, y = (points.astype(np.float64) for points in _points())
    for e in (0.0, 0.05, 0.4, 0.65):
        ours = deflection_epl(x, y, THETA_E, e, 0.4, gamma)
        theirs = profile.derivatives(x, y, THETA_E, gamma, e * np.cos(0.8), e * np.sin(0.8))
        for one, other in zip(ours, theirs, strict=True):
            assert one == pytest.approx(other, abs=1e-10)


@pytest.mark.parametrize("rs", NFW_RADII)
def test_nfw_agrees_with_lenstronomy(rs: float) -> None:
    """Its ellipse is (1 - k) x^2 + (1 + k) y^2, k = (1 - q^2) / (1 + q^2): larger, hence another r_s."""
    profiles = pytest.importorskip("lenstronomy.LensModel.Profiles.nfw_ellipse_potential")
    nfw = pytest.importorskip("lenstronomy.LensModel.Profiles.nfw").NFW()
    x, y = (points.astype(np.float64) for points in _points())
    alpha_rs = THETA_E / nfw.derivatives(THETA_E, 0.0, rs, 1.0)[0]
    for e in (0.0, 0.1, 0.3):
        q = (1.0 - e) / (1.0 + e)
        k = (1.0 - q**2) / (1.0 + q**2)
        grown = np.sqrt((1.0 - k) / q)
        theirs = profiles.NFWEllipsePotential().derivatives(
            x, y, rs * grown, alpha_rs / grown, e * np.cos(0.8), e * np.sin(0.8)
        )
        ours = deflection_nfw(x, y, THETA_E, e, 0.4, rs)
        for one, other in zip(ours, theirs, strict=True):
            assert one == pytest.approx(other, abs=1e-8)


def test_isothermal_power_law_is_the_sie() -> None:
    x, y = (points.astype(np.float64) for points in _points())
    for one, other in zip(
        deflection_epl(x, y, THETA_E, 0.3, 1.1, 2.0), deflection_sie(x, y, THETA_E, 0.3, 1.1), strict=True
    ):
        assert one == pytest.approx(other, abs=1e-12)
    assert deflection_epl(0.0, 0.0, 1.0, 0.2, 0.0, 2.5) == (0.0, 0.0)
    assert deflection_nfw(0.0, 0.0, 1.0, 0.2, 0.0, 2.5) == (0.0, 0.0)


compiled_only = pytest.mark.skipif(
    numba.config.DISABLE_JIT,
    reason="takes minutes with the compiler switched off",
)


@compiled_only
@pytest.mark.parametrize(
    ("model", "e", "shape", "source"),
    [
        ("EPL", 0.3, 1.6, {"src_n": 1.0}),
        ("EPL", 0.1, 2.4, {"src_n": 3.0, "src_reff_arcsec": 0.15}),
        ("NFW", 0.2, 8.0, {"src_n": 1.0}),
        ("NFW", 0.05, 3.0, {"src_n": 2.0, "src_x_arcsec": 0.02, "src_y_arcsec": 0.0}),
        ("SIE", 0.7, 0.0, {"src_n": 1.5}),
    ],
)
def test_images_are_within_tolerance_of_the_reference(
    lens_rows: Any, model: str, e: float, shape: float, source: dict[str, float]
) -> None:
    rows = _rows(lens_rows, model, e, shape, **source)
    options: dict[str, Any] = {"bands": "r", "stamp_size": 40, "threads": 1}
    exact = render_batch(rows, variant="reference", **options)[0, 0]
    for rtol in (1e-3, 1e-4):
        image = render_batch(rows, rtol=rtol, **options)[0, 0]
        assert np.abs(image - exact).max() < rtol * exact.max()
        assert image.sum(dtype=np.float64) == pytest.approx(exact.sum(dtype=np.float64), rel=5e-4)


@compiled_only
def test_rows_of_all_lenses_may_be_mixed_and_keep_their_bits(lens_rows: Any) -> None:
    rows = lens_rows(5, lens_gamma=2.2, nfw_rs_arcsec=4.0, lens_e=np.array([0.1, 0.2, 0.7, 0.3, 0.2]))
    rows["lens_model"] = np.array(["NFW", "SIE", "SIE", "EPL", "SIS"])
    together = render_batch(rows, bands="r", stamp_size=24)
    for row in range(5):
        alone = render_batch(
            {name: values[row : row + 1] for name, values in rows.items()}, bands="r", stamp_size=24
        )
        assert np.array_equal(alone[0], together[row])
    shuffled = render_batch({name: values[::-1] for name, values in rows.items()}, bands="r", stamp_size=24)
    assert np.array_equal(shuffled[::-1], together)


def test_a_lens_without_its_own_column_is_refused(lens_rows: Any) -> None:
    for model, column in (("EPL", "lens_gamma"), ("NFW", "nfw_rs_arcsec")):
        with pytest.raises(CatalogError, match=column):
            render_batch(lens_rows(lens_model=model), bands="r")
    with pytest.raises(CatalogError, match=r"lens_gamma is 3\.5"):
        render_batch(lens_rows(lens_model="EPL", lens_gamma=3.5), bands="r")
    with pytest.raises(RenderError, match=r"row 0: lens_e is 0.8.*EPL"):
        render_batch(lens_rows(lens_model="EPL", lens_gamma=2.1, lens_e=0.8), bands="r")
