"""Rows without a PSF: first cells may reach over the stamp's edge; nothing is written or kept beyond it."""

from __future__ import annotations

import numpy as np
import pytest

from arcforge.engine import render_batch
from arcforge.kernels import spread


@pytest.mark.parametrize("corner", [(0, 0), (4, 4), (0, 4), (4, 0)])
def test_samples_beyond_the_edge_are_left_out(corner, monkeypatch):
    # the plain function, since only it checks its indices; the cell is two nodes wide, one of them outside
    add = getattr(spread.add_to_pixels, "py_func", spread.add_to_pixels)
    monkeypatch.setattr(spread, "lattice", getattr(spread.lattice, "py_func", spread.lattice))
    grid = np.zeros((5, 5), dtype=np.float32)
    centre_y, centre_x = (np.float32(node + (0.5 if node else -0.5)) for node in corner)
    nodes = np.array([[corner[0] - (corner[0] == 0)], [corner[1] - (corner[1] == 0)]], dtype=np.int32)
    values = np.ones(16, dtype=np.float32)
    add(values, 1, 1, nodes, [centre_x], [centre_y], np.float32(0), np.float32(1), np.float32(2), grid)
    assert grid[corner] == 4.0  # of 16 samples, those of the one pixel inside
    assert grid.sum() == 4.0


def test_light_over_the_edge_agrees_with_the_reference():
    n = 2
    angle = np.linspace(0.1, 3.0, n)
    columns = {
        "lens_model": ["SIE"] * n,
        "theta_e_arcsec": np.linspace(1.6, 2.4, n),
        "lens_e": np.full(n, 0.1),
        "lens_phi_rad": angle,
        "lens_x_arcsec": np.linspace(-1.0, 1.0, n),
        "lens_y_arcsec": np.linspace(1.5, -1.4, n),
        "src_x_arcsec": np.full(n, 0.05),
        "src_y_arcsec": np.linspace(-0.1, 0.1, n),
        "src_reff_arcsec": np.full(n, 0.4),
        "src_e": np.full(n, 0.2),
        "src_phi_rad": angle,
        "src_flux_nmgy_r": np.full(n, 2.0),
        "psf_model": ["none"] * n,
    }
    options = {"bands": "r", "stamp_size": 17, "pixscale_arcsec": 0.262}
    fast = render_batch(columns, **options)
    exact = render_batch(columns, variant="reference", **options)
    assert exact[:, 0, [0, -1]].max() > 0.05 * exact.max(), "no light at the edge: the test tests nothing"
    error = np.abs(fast - exact).max(axis=(1, 2, 3)) / exact.max(axis=(1, 2, 3))
    assert error.max() < 1e-3
