"""Gaussians in two passes: weights against the closed form, sums against NumPy, images against the FFT's."""

from __future__ import annotations

import numpy as np
import pytest

from arcforge.engine.catalog import render_columns
from arcforge.engine.certificate import hard_rows
from arcforge.engine.render import render_batch, render_rows
from arcforge.kernels.separable import convolve_gaussians, gaussian_weights


def _cosines(size: int) -> np.ndarray:
    return np.cos(2.0 * np.pi * np.arange(size) / size)


@pytest.mark.parametrize("size", [64, 72, 81])
@pytest.mark.parametrize("nodes", [1, 2])
def test_weights_are_the_gaussian_at_the_nodes(size, nodes):
    sigma_nodes, radius = 2.5, 14
    weights = np.full(radius + 2, np.nan)
    gaussian_weights(sigma_nodes / nodes, np.ones(size), nodes, _cosines(size), radius, weights)
    exact = np.exp(-0.5 * (np.arange(radius + 1) / sigma_nodes) ** 2) / (np.sqrt(2.0 * np.pi) * sigma_nodes)
    assert np.abs(weights[:-1] - exact).max() < 1e-12
    assert np.isnan(weights[-1])


@pytest.mark.parametrize(
    ("size", "nodes", "stamp", "lit"),
    [
        (48, 1, 32, (5, 41, 3, 46)),  # more than a line of 32
        (48, 1, 32, (5, 41, 20, 33)),  # some eights
        (48, 1, 32, (9, 12, 30, 33)),  # fewer than eight nodes
        (48, 1, 32, (40, 44, 1, 5)),  # at the grid's edge, mostly outside the stamp
        (48, 1, 5, (2, 46, 2, 46)),  # a stamp narrower than a line of eight
        (72, 2, 32, (10, 70, 6, 71)),
        (80, 4, 9, (3, 77, 30, 50)),
    ],
)
def test_two_passes_are_the_sum_over_all_nodes(size, nodes, stamp, lit):
    rng = np.random.default_rng(size + stamp)
    grid = np.zeros((size, size), dtype=np.float32)
    box = np.s_[lit[0] : lit[1], lit[2] : lit[3]]
    grid[box] = rng.exponential(1.0, grid[box].shape)
    first = (size - stamp * nodes) // 2
    sigmas, radii, scales = np.array([1.7, 2.4]) / nodes, np.array([9, 13]), np.array([2.0, 0.3])
    response = 1.0 + 0.2 * np.cos(2.0 * np.pi * np.fft.fftfreq(size))
    out = np.full((2, stamp, stamp), np.nan, dtype=np.float32)
    lines = [np.full(n, np.nan, dtype=np.float32) for n in (27, size + stamp * nodes + 43, stamp * nodes + 8)]
    total = convolve_gaussians(
        grid, np.array(lit), first, nodes, sigmas, radii, response, _cosines(size), scales, np.empty(14),
        *lines, out,
    )  # fmt: skip
    assert total == pytest.approx(grid.sum(dtype=float), rel=1e-6)
    for band in range(2):
        half = np.empty(radii[band] + 1)
        gaussian_weights(sigmas[band], response, nodes, _cosines(size), radii[band], half)
        distance = np.abs(first + nodes * np.arange(stamp)[:, None] - np.arange(size)[None, :])
        matrix = np.where(distance <= radii[band], half[np.minimum(distance, radii[band])], 0.0)
        expected = scales[band] * matrix @ grid @ matrix.T
        assert np.abs(out[band] - expected).max() < 1e-6 * scales[band] * grid.max()


@pytest.mark.compiled
@pytest.mark.parametrize("pixel_response", ["in_psf", "box"])
def test_images_are_those_of_the_transforms(pixel_response):
    n = 40
    rows = hard_rows(n, 20_261_123) | {"psf_model": np.full(n, "gaussian")}
    rows["psf_fwhm_arcsec_g"] = 1.3 * rows["psf_fwhm_arcsec_r"]
    rows["src_flux_nmgy_g"] = 2.0 * rows["src_flux_nmgy_r"]
    columns = render_columns(rows, "gr")
    found, again = {}, {}
    for variant in ("auto", "low_rank"):
        again[variant] = np.empty(n)
        found[variant] = render_rows(
            columns, variant=variant, pixel_response=pixel_response, magnification=again[variant]
        )
    differs = np.abs(found["low_rank"] - found["auto"]).max(axis=(2, 3))
    differs /= found["auto"].max(axis=(2, 3))
    assert differs.max() < 1e-5
    assert (differs.max(axis=1) > 0.0).sum() > n // 3  # both ways were taken
    assert again["low_rank"] == pytest.approx(again["auto"], rel=2e-6)


@pytest.mark.compiled
def test_a_profile_that_ends_like_a_wall_costs_no_more_than_others():
    """The bound on a cell's error once overflowed far outside sources of n < 0.4, and all was divided."""
    n = 30
    rows = hard_rows(n, 3)
    rng = np.random.default_rng(3)
    turn, far = rng.uniform(0.0, 2.0 * np.pi, n), rng.uniform(2.0, 9.0, n)
    rows |= {
        "src_n": rng.uniform(0.3, 0.4, n),
        "src_reff_arcsec": rng.uniform(0.03, 0.12, n),
        "src_x_arcsec": far * np.cos(turn),
        "src_y_arcsec": far * np.sin(turn),
    }
    effort = np.empty((n, 3))
    images = render_rows(render_columns(rows, "r"), effort=effort)
    assert effort[:, 0].max() < 3e5
    fine = render_batch(rows, bands="r", rtol=1e-5)
    assert (np.abs(images - fine).max(axis=(1, 2, 3)) < 1e-3 * fine.max(axis=(1, 2, 3))).all()
