"""The ray and sampling kernels on their own, small enough to run with the compiler switched off.

``NUMBA_DISABLE_JIT=1`` runs the same source as plain Python on NumPy scalars: its indices are checked then,
its overflows warn, and coverage sees its lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import gamma

from arcforge.engine import deflection_shear, deflection_sie, sersic_profile_Ie1, sersic_unit_total_flux
from arcforge.engine.catalog import render_columns
from arcforge.engine.gridding import gridding_kernel, gridding_table, gridding_transform
from arcforge.engine.layout import Layout, layout
from arcforge.engine.rays import KINDS, fold, sersic_bn
from arcforge.engine.render import render_batch, render_rows
from arcforge.kernels import spread
from arcforge.kernels.adaptive import CHUNK, DEEPEST, adaptive_grids
from arcforge.kernels.lanes import LANES
from arcforge.kernels.lens_sie import N_PARAMETERS
from arcforge.kernels.ray import N_FIELDS, source_points
from arcforge.kernels.spread import BASE, GAUSS, REACH
from arcforge.kernels.uniform import uniform_grid

F = np.float32
SCALE = 0.262
SIZE = 9


def _scene(lens_rows: Any, **columns: Any) -> dict[str, np.ndarray]:
    base: dict[str, Any] = {
        "theta_e_arcsec": 0.6, "lens_e": 0.2, "lens_phi_rad": 0.3, "shear": 0.05, "shear_phi_rad": 1.2,
        "src_x_arcsec": 0.05, "src_y_arcsec": 0.1, "src_reff_arcsec": 0.2, "src_e": 0.2, "src_phi_rad": 1.0,
        "lens_x_arcsec": 0.07, "lens_y_arcsec": -0.04, "psf_fwhm_arcsec_r": 2.5 * SCALE,
    }  # fmt: skip
    return lens_rows(**(base | columns))


def _brightness(rows: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Surface brightness [1 / pix] at (x, y) [pix from the stamp's centre], in float64, by the formulae."""
    value = {name: column[0] for name, column in rows.items()}
    x, y = SCALE * x - value["lens_x_arcsec"], SCALE * y - value["lens_y_arcsec"]
    lens = deflection_sie(x, y, value["theta_e_arcsec"], value["lens_e"], value["lens_phi_rad"])
    shear = deflection_shear(x, y, value["shear"], value["shear_phi_rad"])
    q, n = (1.0 - value["src_e"]) / (1.0 + value["src_e"]), value.get("src_n", 1.0)
    reff = value["src_reff_arcsec"]
    beta_x = x - lens[0] - shear[0] - value["src_x_arcsec"]
    beta_y = y - lens[1] - shear[1] - value["src_y_arcsec"]
    profile = sersic_profile_Ie1(beta_x, beta_y, reff, q, value["src_phi_rad"], n)
    return profile / sersic_unit_total_flux(reff, q, n) * SCALE**2


# -- rays and uniform samples --


def _midpoint_means(rows: dict[str, np.ndarray], samples: int) -> np.ndarray:
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    axis = (np.arange(SIZE) - 0.5 * (SIZE - 1))[:, None] + offsets
    x, y = np.meshgrid(axis.ravel(), axis.ravel())
    return _brightness(rows, x, y).reshape(SIZE, samples, SIZE, samples).mean(axis=(1, 3))


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_uniform_grid_is_the_mean_of_midpoint_samples(lens_rows: Any, n: float, samples: int) -> None:
    rows = _scene(lens_rows, src_n=n)
    rays = fold(render_columns(rows, "r"), SCALE)
    grid = np.full((SIZE, SIZE), np.nan, dtype=np.float32)
    bounds = np.array([1, SIZE, 0, SIZE - 2])
    stamp = np.array([2, SIZE - 1])
    lines = np.empty((2, samples * SIZE + LANES), dtype=np.float32)
    origin = -0.5 * (SIZE - 1)
    uniform_grid(
        KINDS[rays.kinds[0]],
        rays.fields[0],
        samples,
        max(1, samples // 2),
        origin,
        bounds,
        stamp,
        lines,
        grid,
    )

    expected = _midpoint_means(rows, max(1, samples // 2))  # beside the stamp
    fine = np.s_[stamp[0] : stamp[1], stamp[0] : stamp[1]]
    expected[fine] = _midpoint_means(rows, samples)[fine]
    inside = np.s_[bounds[0] : bounds[1], bounds[2] : bounds[3]]
    assert grid[inside] == pytest.approx(expected[inside], rel=3e-5, abs=1e-6 * expected.max())
    grid[inside] = 0.0
    assert not grid.any()  # outside the bounds it is set to zero, whatever was there


def test_no_ray_fails_at_the_lens_nor_at_the_source(lens_rows: Any) -> None:
    """On the lens's centre psi is 0, on the source's the radius is: both are held off by a tiny number."""
    for n in (0.3, 1.0, 6.0):
        rows = _scene(
            lens_rows, src_n=n, lens_x_arcsec=0.0, lens_y_arcsec=0.0, src_x_arcsec=0.0, src_y_arcsec=0.0
        )
        fields = fold(render_columns(rows, "r"), SCALE).fields[0]
        zero = np.zeros(1, dtype=np.float32)
        u, v = np.full(1, np.nan, dtype=np.float32), np.full(1, np.nan, dtype=np.float32)
        source_points(KINDS[0], fields, zero, zero, u, v)
        assert (u[0], v[0]) == (0.0, 0.0)
        grid = np.empty((1, 1), dtype=np.float32)
        one = np.array([0, 1, 0, 1])
        uniform_grid(KINDS[0], fields, 1, 1, 0.0, one, one[:2], np.empty((2, 1 + LANES), dtype=F), grid)
        assert grid[0, 0] == pytest.approx(fields[18], rel=1e-3 if n < 5 else 0.3)  # n = 6: cusp, and TINY


# -- the adaptive kernel's parts --


def test_peak_is_the_largest_mean_over_a_window() -> None:
    rng = np.random.default_rng(3)
    flux = rng.random((7, 9)).astype(np.float32)
    for window in (1, 2, 3, 5):
        sums, line, best = np.empty_like(flux), np.empty(9, dtype=np.float32), np.empty(9, dtype=np.float32)
        found = spread.largest_mean(flux, window, sums, line, best)
        before = window // 2  # of the window's cells lie before the one that it is counted for
        padded = np.pad(flux.astype(np.float64), ((before, window), (before, window)))
        means = [padded[j : j + window, i : i + window].mean() for j in range(7) for i in range(9)]
        assert found == pytest.approx(max(means), rel=1e-6)


def _spread_directly(size: int, xs: np.ndarray, ys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Every sample on every node through the gridding kernel, in float64; positions in nodes."""
    nodes = np.arange(size)
    across = gridding_kernel(nodes[None, :] - xs[:, None])
    up = gridding_kernel(nodes[None, :] - ys[:, None])
    return np.einsum("s,sj,si->ji", values, up, across)


def test_first_cells_spread_as_the_kernel_says() -> None:
    rng = np.random.default_rng(4)
    n_y, n_x, size = 3, 4, 18
    bounds = np.array([4, 4 + BASE * n_y, 6, 6 + BASE * n_x])
    values = rng.random((4, n_y, n_x)).astype(np.float32)
    grid = np.zeros((size, size), dtype=np.float32)
    stencil = gridding_table()[1]
    spread.spread_first(values, stencil, bounds[0], bounds[2], np.empty((4, 64), dtype=np.float32), grid)
    xs, ys, flat = [], [], []
    for a in range(4):
        for j in range(n_y):
            for i in range(n_x):
                xs.append(bounds[2] + BASE * i + 0.5 * (BASE - 1) + BASE * (GAUSS if a % 2 else -GAUSS))
                ys.append(bounds[0] + BASE * j + 0.5 * (BASE - 1) + BASE * (GAUSS if a > 1 else -GAUSS))
                flat.append(values[a, j, i])
    expected = _spread_directly(size, np.array(xs), np.array(ys), np.array(flat))
    assert grid == pytest.approx(expected, abs=1e-6 * expected.max())


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_divided_cells_spread_as_the_kernel_says(level: int) -> None:
    """16 samples a cell, from the table of weights by position."""
    rng = np.random.default_rng(5)
    count, size, per_pixel, origin = 5, 20, 2.0, -4.0
    width = BASE / 2.0**level  # nodes
    nodes = np.zeros((5, count), dtype=np.int32)
    nodes[:2] = rng.integers(4, 12, (2, count))
    place = rng.integers(0, 2**level, (2, count))
    centre = -0.5 + width * (place + 0.5)
    places = (nodes[:2] + centre) / per_pixel + origin
    values = rng.random((16, CHUNK)).astype(np.float32)
    grid = np.zeros((size, size), dtype=np.float32)
    table = gridding_table()[0]
    ys, xs = places.astype(np.float32)
    weights = np.empty(8 * REACH, dtype=np.float32)
    spread.spread_cells(
        values.ravel(), CHUNK, count, nodes, xs, ys, F(origin), F(per_pixel), F(width), table, weights, grid
    )
    lattice = np.array([-0.25 - 0.5 * GAUSS, -0.25 + 0.5 * GAUSS, 0.25 - 0.5 * GAUSS, 0.25 + 0.5 * GAUSS])
    at_x, at_y, flat = [], [], []
    for k in range(count):
        for s in range(16):
            at_x.append(nodes[1, k] + centre[1, k] + width * lattice[s % 4])
            at_y.append(nodes[0, k] + centre[0, k] + width * lattice[s // 4])
            flat.append(values[s, k])
    expected = _spread_directly(size, np.array(at_x), np.array(at_y), np.array(flat))
    assert grid == pytest.approx(expected, abs=2e-5 * expected.max())  # the table's interpolation


def test_gridding_transform_is_that_of_the_kernel() -> None:
    """The samples' own sum at frequency k, from the nodes, over the transform: 1, but for what aliases."""
    position, nodes = 0.37, np.arange(-20, 21)
    weights = gridding_kernel(nodes - position)
    for k in (0.0, 0.1, 0.2):
        found = (
            np.sum(weights * np.exp(-2j * np.pi * k * (nodes - position)))
            / gridding_transform(np.array([k]))[0]
        )
        assert abs(found - 1.0) < 1e-4
    assert not gridding_kernel(np.array([-3.0, 3.0, 5.0])).any()


# -- the adaptive kernel --


def _adaptive(
    rows: dict[str, np.ndarray], rtol: float, boxed: bool = False
) -> tuple[np.ndarray, np.ndarray, Layout]:
    """Run the kernel on one row, asking for its own estimate; return grid, report and layout."""
    columns = render_columns(rows, "r")
    where = layout(columns, stamp_size=SIZE, pixscale_arcsec=SCALE, rtol=rtol, uniform=False)
    rays = fold(columns, SCALE)
    size, bounds = int(where.size[0]), where.bounds[0]
    up, across = int(bounds[1] - bounds[0]), int(bounds[3] - bounds[2])
    cells = -(-up // BASE) * -(-across // BASE)
    table, stencil = gridding_table()
    grids, reports = np.full((1, size, size), np.nan, dtype=np.float32), np.full((1, 3), np.nan)
    origin = -0.5 * (SIZE - 1) - where.first[0] / where.nodes_per_pixel[0]
    room = cells + 3 * CHUNK * DEEPEST
    adaptive_grids(
        KINDS[rays.kinds[0]], rays.fields, np.array([2.0 * rtol], dtype=F), where.peak_floor, where.window,
        boxed, True, F(origin), F(where.nodes_per_pixel[0]), where.bounds, table, stencil,
        np.empty(7 * cells, dtype=F), np.empty((room, 2), dtype=F), np.empty((room, 3), dtype=np.int32),
        np.empty((4, across + 12), dtype=F), np.empty((4, max(16 * CHUNK, 2 * across + 4 * LANES)), dtype=F),
        np.empty((2, CHUNK), dtype=F), np.empty((5, CHUNK), dtype=np.int32),
        np.empty(12 * REACH, dtype=F), np.empty_like(grids[0]), grids, reports,
    )  # fmt: skip
    grid, report = grids[0], reports[0]
    return grid, report, where


SCENES: dict[str, dict[str, Any]] = {
    "exponential": {},
    "cusp": {"src_n": 4.0, "src_reff_arcsec": 0.1},
    "flat": {"src_n": 0.4},
    "box": {"psf_fwhm_arcsec_r": 3.5 * SCALE},
    "ring": {"lens_e": 0.01, "src_x_arcsec": 0.01, "src_y_arcsec": 0.0, "src_reff_arcsec": 0.1},
    "Moffat": {"psf_model": "moffat", "psf_fwhm_arcsec_r": 4.6 * SCALE},
    "no PSF": {"psf_model": "none", "src_n": 2.0},
    "image off the stamp": {"src_x_arcsec": 1.4, "psf_fwhm_arcsec_r": 4.0 * SCALE},
}


@pytest.mark.parametrize("scene", SCENES)
def test_tiny_stamps_agree_with_the_reference(lens_rows: Any, scene: str) -> None:
    rows = _scene(lens_rows, **SCENES[scene])
    response = "box" if scene == "box" else "in_psf"
    options: dict[str, Any] = {"bands": "r", "stamp_size": SIZE, "pixel_response": response, "threads": 1}
    image = render_batch(rows, **options)[0, 0]
    exact = render_batch(rows, variant="reference", **options)[0, 0]
    assert np.abs(image - exact).max() < 1e-3 * exact.max()


def test_samples_add_up_to_the_light_that_the_grid_can_hold(lens_rows: Any) -> None:
    """A compact scene: the grid's sum is the flux times the gridding kernel's integral, once an axis."""
    rows = _scene(lens_rows, theta_e_arcsec=1e-6, shear=0.0, src_n=0.5, src_reff_arcsec=0.15)
    grid, report, where = _adaptive(rows, 1e-3)
    per_node = gridding_transform(np.zeros(1))[0] ** 2
    assert grid.sum(dtype=np.float64) / per_node == pytest.approx(1.0, rel=1e-3)
    assert report[0] >= (where.bounds[0, 1] - where.bounds[0, 0]) * (where.bounds[0, 3] - where.bounds[0, 2])


def test_a_smaller_tolerance_takes_more_samples_and_states_a_smaller_error(lens_rows: Any) -> None:
    rows = _scene(lens_rows, src_n=2.0)
    loose, tight = (_adaptive(rows, rtol)[1] for rtol in (1e-2, 1e-3))
    assert tight[0] > loose[0] > 0
    assert tight[1] > loose[1]
    assert 0.0 < tight[2] < loose[2] < 1.0


def test_own_estimate_bounds_the_error(lens_rows: Any) -> None:
    """The bound is for what the cells leave out: it must be no smaller than the image's error, nor absurd."""
    rows = _scene(lens_rows, src_n=1.5)
    options: dict[str, Any] = {"bands": "r", "stamp_size": SIZE}
    exact = render_batch(rows, variant="reference", **options)[0, 0]
    image = render_batch(rows, rtol=1e-3, **options)[0, 0]
    bound = _adaptive(rows, 1e-3)[1][2]
    assert np.abs(image - exact).max() / exact.max() < bound < 0.1


def test_a_render_tells_what_it_took_and_how_sure_it_is(lens_rows: Any) -> None:
    rows = lens_rows(3, src_n=np.array([0.7, 1.0, 1.5]), theta_e_arcsec=0.4)
    rows["lens_model"] = np.array(["SIE", "CONTROL", "SIE"])
    columns = render_columns(rows, "r")
    effort = {rtol: np.full((3, 3), -1.0) for rtol in (1e-2, 2e-4)}
    for rtol, out in effort.items():
        with np.errstate(over="ignore"):  # bounds far from the light overflow to infinity, as they may
            image = render_rows(columns, stamp_size=6, rtol=rtol, effort=out, threads=1)
            assert np.array_equal(image, render_rows(columns, stamp_size=6, rtol=rtol, threads=1))
        assert np.isnan(out[1]).all()
    loose, tight = (effort[rtol][[0, 2]] for rtol in (1e-2, 2e-4))
    assert (tight[:, 0] > loose[:, 0]).all()
    assert (loose[:, 0] >= 16 * loose[:, 1]).all()
    assert (tight[:, 2] < loose[:, 2]).all()
    assert (tight[:, 2] > 0.0).all()


def test_without_psf_samples_go_to_their_own_pixel(lens_rows: Any) -> None:
    rows = _scene(lens_rows, psf_model="none")
    grid, report, _ = _adaptive(rows, 1e-3, boxed=True)
    exact = render_batch(rows, bands="r", stamp_size=SIZE, variant="reference")[0, 0]
    assert np.abs(grid[:SIZE, :SIZE] - exact).max() < 1e-3 * exact.max()
    assert report[1] > 0  # every first cell is divided


def test_empty_bounds_give_an_empty_grid(lens_rows: Any) -> None:
    """A source so far away that its light stays off the grid."""
    fields = np.zeros((1, N_FIELDS + N_PARAMETERS), dtype=np.float32)
    grid, report = np.full((1, 8, 8), np.nan, dtype=np.float32), np.full((1, 3), np.nan)
    scratch, places = np.empty((16, 64), dtype=np.float32), np.empty((8, 3), dtype=np.int32)
    table, stencil = gridding_table()
    adaptive_grids(
        KINDS[0], fields, np.array([1e-3], dtype=F), np.ones(1, dtype=F), np.ones(1, dtype=np.int64), False,
        False, F(-4.0), F(1.0), np.array([[4, 4, 4, 6]]), table, stencil, np.empty(0, dtype=F),
        np.empty((8, 2), dtype=F), places, scratch[:4], scratch[:4], scratch,
        np.empty((2, 64), dtype=np.int32), np.empty(64, dtype=F), grid[0].copy(), grid, report,
    )  # fmt: skip
    assert not grid.any()
    assert not report.any()


def test_division_ends_at_the_deepest_level(lens_rows: Any) -> None:
    """A point-like cusp and a tolerance that nothing meets: the stack has room and the work an end."""
    rows = _scene(lens_rows, src_n=6.0, src_reff_arcsec=0.02, theta_e_arcsec=1e-3, shear=0.0)
    grid, report, _ = _adaptive(rows, 1e-4)
    assert np.isfinite(grid).all()
    assert report[1] < 4000


@pytest.mark.compiled
def test_a_ring_of_a_million_cells_keeps_its_light(lens_rows: Any) -> None:
    """A small source right behind a round lens is magnified by 2 theta_E <1 / beta>, in closed form.

    Where every cell was added to the whole light, float32 lost 2.5e-4 of it.
    """
    n, reff_arcsec = 1.0, 0.02
    rows = lens_rows(1, lens_model=np.array(["SIS"]), lens_e=0.0, shear=0.0, theta_e_arcsec=2.0, src_e=0.0)
    rows |= {"src_x_arcsec": np.zeros(1), "src_y_arcsec": np.zeros(1), "src_n": np.array([n])}
    rows |= {"src_reff_arcsec": np.array([reff_arcsec])}
    columns, found = render_columns(rows, "r"), np.empty(1)
    effort = np.empty((1, 3))
    render_rows(columns, rtol=1e-5, magnification=found, effort=effort, threads=1)
    steepness = float(sersic_bn(np.array([n]))[0])
    inverse = steepness**n * gamma(n) / gamma(2.0 * n) / reff_arcsec
    assert effort[0, 1] > 1e6
    assert found[0] == pytest.approx(2.0 * 2.0 * inverse, rel=1e-5)
