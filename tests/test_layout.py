"""Grids: they hold the stamp and the light, nothing wraps, and a row's grid is its own."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from arcforge.engine import deflection_shear, deflection_sie, sersic_profile_Ie1, sersic_unit_total_flux
from arcforge.engine.catalog import RenderColumns, render_columns
from arcforge.engine.certificate import hard_rows
from arcforge.engine.errors import RenderError
from arcforge.engine.fftw import GRID_SIZES
from arcforge.engine.layout import COARSEST, WRAP_LEVEL, Layout, layout
from arcforge.engine.psf import gaussian_sigma, moffat_alpha
from arcforge.engine.render import render_batch
from arcforge.kernels.codes import PSF_GAUSSIAN, PSF_NONE
from arcforge.kernels.spread import BASE, REACH

SCALE = 0.262
Rows = dict[str, np.ndarray]


def _layout(rows: Rows | RenderColumns, size: int, rtol: float = 1e-3, uniform: bool = False) -> Layout:
    columns = rows if isinstance(rows, RenderColumns) else render_columns(rows, "r")
    return layout(columns, stamp_size=size, pixscale_arcsec=SCALE, rtol=rtol, uniform=uniform)


def _hard(n: int, seed: int) -> Rows:
    rows = hard_rows(n, seed)
    rows["psf_model"] = np.where(np.arange(n) % 7 == 0, "none", rows["psf_model"])
    return rows


def _positions(where: Layout, row: int, size: int, node: Any) -> Any:
    """Position of a node [pix from the stamp's centre]."""
    return (node - where.first[row]) / where.nodes_per_pixel[row] - 0.5 * (size - 1)


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("rtol", [1e-2, 1e-4])
@pytest.mark.parametrize("uniform", [False, True])
def test_grids_hold_the_stamp_and_the_halo_of_their_light(size: int, rtol: float, uniform: bool) -> None:
    columns = render_columns(_hard(400, 1), "r")
    where = _layout(columns, size, rtol, uniform)
    has_psf = columns.psf_model != PSF_NONE
    assert np.isin(where.size[has_psf], GRID_SIZES).all()
    assert np.isin(where.nodes_per_pixel, [1, 2, 4, 8]).all()
    assert not (uniform and (where.nodes_per_pixel != 1).any())
    last = where.first + (size - 1) * where.nodes_per_pixel
    assert (where.first >= 0).all()
    assert (last < where.size).all()
    first, end = where.bounds[:, [0, 2]], where.bounds[:, [1, 3]]
    assert (first >= 0).all()
    assert (end >= first).all()
    # samples of the last cell, whose lower node is end - BASE, reach REACH - 4 nodes beyond that one
    assert (first[has_psf] - 3 >= 0).all()
    assert (end[has_psf] - BASE + REACH - 4 < where.size[has_psf][:, None]).all()
    # without PSF a cell of two nodes may reach over the stamp's edge
    assert (end[~has_psf] <= where.size[~has_psf][:, None] + 1).all()
    assert ((end - first) % BASE == 0).all()
    assert (where.window >= 1).all()


def test_rows_without_psf_have_the_stamp_for_a_grid(lens_rows: Any) -> None:
    for size in (16, 17):
        where = _layout(lens_rows(psf_model="none"), size)
        assert (where.size[0], where.nodes_per_pixel[0], where.first[0]) == (size + size % 2, 1, 0)
        assert not where.outside[0]


def _brightness(rows: Rows, row: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    value = {name: column[row] for name, column in rows.items()}
    e = 0.0 if value["lens_model"] == "SIS" else value["lens_e"]
    x, y = SCALE * x - value["lens_x_arcsec"], SCALE * y - value["lens_y_arcsec"]
    lens = deflection_sie(x, y, value["theta_e_arcsec"], e, value["lens_phi_rad"])
    shear = deflection_shear(x, y, value["shear"], value["shear_phi_rad"])
    q = (1.0 - value["src_e"]) / (1.0 + value["src_e"])
    beta = [a - b - c for a, b, c in zip((x, y), lens, shear, strict=True)]
    profile = sersic_profile_Ie1(
        beta[0] - value["src_x_arcsec"], beta[1] - value["src_y_arcsec"], value["src_reff_arcsec"], q,
        value["src_phi_rad"], value["src_n"],
    )  # fmt: skip
    return profile * SCALE**2 / sersic_unit_total_flux(value["src_reff_arcsec"], q, value["src_n"])


def _psf(columns: RenderColumns, row: int, distance_pix: np.ndarray) -> np.ndarray:
    fwhm, beta = columns.psf_fwhm_arcsec[row, 0] / SCALE, columns.moffat_beta[row]
    if columns.psf_model[row] == PSF_GAUSSIAN:
        return np.exp(-0.5 * (distance_pix / gaussian_sigma(fwhm)) ** 2)
    return (1.0 + (distance_pix / moffat_alpha(fwhm, beta)) ** 2) ** -beta


def _convolved(light: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.fft.irfft2(np.fft.rfft2(light) * np.fft.rfft2(kernel), s=light.shape)


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-4])
def test_light_that_wraps_does_not_show_on_the_stamp(rtol: float) -> None:
    """The row's light, by the formulae, through its PSF from the period's next copies alone."""
    size, worst = 32, []
    rows = _hard(150, 2)
    columns = render_columns(rows, "r")
    where = _layout(columns, size, rtol)
    for row in np.flatnonzero((columns.psf_model != PSF_NONE) & (where.size <= 200)):
        n, nodes, bounds = int(where.size[row]), int(where.nodes_per_pixel[row]), where.bounds[row]
        axis = _positions(where, row, size, np.arange(n))
        light = np.zeros((n, n))
        lit = np.s_[bounds[0] : min(bounds[1], n), bounds[2] : min(bounds[3], n)]
        light[lit] = _brightness(rows, row, axis[None, lit[1]], axis[lit[0], None])
        # node offsets on a frame of two periods: what is beyond half of it is negative
        offset = (np.arange(2 * n) + n) % (2 * n) - n
        frame = np.zeros((2 * n, 2 * n))
        frame[:n, :n] = light
        direct = _convolved(frame, _psf(columns, row, np.hypot(offset / nodes, offset[:, None] / nodes)))
        copies = np.zeros((2 * n, 2 * n))
        for up in (-n, 0, n):
            for across in (-n, 0, n):
                if up or across:
                    far = np.hypot((offset + across) / nodes, (offset[:, None] + up) / nodes)
                    copies += _psf(columns, row, far)
        first, end = where.first[row], where.first[row] + (size - 1) * nodes + 1
        seen = np.s_[first:end, first:end]
        wrapped = _convolved(frame, copies)[seen]
        worst.append(wrapped.max() / direct[seen].max())
    assert len(worst) > 60
    assert max(worst) < 2.0 * WRAP_LEVEL * min(1.0, rtol / 1e-3)


@pytest.mark.compiled
@pytest.mark.parametrize("rtol", [1e-3, 1e-4])
def test_light_left_out_would_not_show(rtol: float) -> None:
    """Sum the light beyond the bounds by hand, with the PSF from there to the nearest pixel of the stamp."""
    size, n = 32, 60
    rows = hard_rows(n, 3)
    rows["src_reff_arcsec"] = np.maximum(rows["src_reff_arcsec"], 0.1)  # the sum below is on whole pixels
    rows["psf_fwhm_arcsec_r"] = np.maximum(rows["psf_fwhm_arcsec_r"], 3.0 * SCALE)
    columns, peak = (
        render_columns(rows, "r"),
        render_batch(rows, bands="r", stamp_size=size).max(axis=(1, 2, 3)),
    )
    where = _layout(columns, size, rtol)
    axis = np.arange(-80.0, 81.0) + 0.5
    x, y = np.meshgrid(axis, axis)
    way = np.hypot(*(np.maximum(np.abs(g) - 0.5 * (size - 1), 0.0) for g in (x, y)))
    fwhm = columns.psf_fwhm_arcsec[:, 0] / SCALE
    checked = 0
    for row in range(n):
        low, high = (_positions(where, row, size, where.bounds[row][side::2]) for side in (0, 1))
        outside = (y < low[0] - 0.5) | (y > high[0] + 0.5) | (x < low[1] - 0.5) | (x > high[1] + 0.5)
        if columns.psf_model[row] == PSF_GAUSSIAN:
            sigma = gaussian_sigma(fwhm[row])
            psf = np.exp(-0.5 * (way / sigma) ** 2) / (2.0 * np.pi * sigma**2)
        else:
            beta, alpha = columns.moffat_beta[row], moffat_alpha(fwhm[row], columns.moffat_beta[row])
            psf = (beta - 1.0) / (np.pi * alpha**2) * (1.0 + (way / alpha) ** 2) ** -beta
        lost = np.sum(_brightness(rows, row, x, y) * psf * outside)
        assert lost < rtol * peak[row], f"row {row}"
        checked += int(outside.any())
    assert checked > n // 2


@pytest.mark.compiled
def test_peak_floor_is_below_every_peak() -> None:
    """Were it above, a row's tolerance would be of a peak that it does not have."""
    rows = hard_rows(150, 4)
    for size in (16, 48):
        where = _layout(rows, size)
        peak = render_batch(rows, bands="r", stamp_size=size).max(axis=(1, 2, 3))
        inside = ~where.outside
        assert inside.sum() > 5
        assert (where.peak_floor[inside] <= peak[inside]).all()


def test_a_row_has_its_grid_in_every_batch() -> None:
    columns = render_columns(_hard(120, 5), "r")
    whole = _layout(columns, 24)
    some = np.array([77, 3, 3, 118, 40])
    part = _layout(columns.take(some), 24)
    for field in fields(Layout):
        assert np.array_equal(getattr(part, field.name), getattr(whole, field.name)[some]), field.name


def test_narrower_psfs_get_more_nodes_and_smaller_tolerances_no_fewer(lens_rows: Any) -> None:
    fwhm = np.array([0.6, 1.0, 2.0, 4.6, 8.0])
    for model in ("gaussian", "moffat"):
        rows = lens_rows(5, psf_fwhm_arcsec_r=fwhm * SCALE, psf_model=model)
        nodes = {rtol: _layout(rows, 32, rtol).nodes_per_pixel for rtol in (1e-3, 1e-4)}
        assert (np.diff(nodes[1e-3]) <= 0).all()
        assert nodes[1e-3][0] == 8
        assert nodes[1e-3][-1] == 1
        assert (nodes[1e-4] >= nodes[1e-3]).all()


def test_the_narrowest_band_sets_the_nodes_and_the_widest_the_margin(lens_rows: Any) -> None:
    rows = lens_rows(psf_fwhm_arcsec_r=1.0) | {
        "psf_fwhm_arcsec_g": np.array([0.3]), "psf_fwhm_arcsec_z": np.array([2.0]),
        "src_flux_nmgy_g": np.ones(1), "src_flux_nmgy_z": np.ones(1),
    }  # fmt: skip
    alone = {band: _layout(render_columns(rows, band), 32) for band in "grz"}
    together = _layout(render_columns(rows, "grz"), 32)
    assert together.nodes_per_pixel[0] == alone["g"].nodes_per_pixel[0] > alone["z"].nodes_per_pixel[0]
    # grids come in few sizes: the wider margin shows as more than the narrow band asks for
    assert together.size[0] / together.nodes_per_pixel[0] > alone["g"].size[0] / alone["g"].nodes_per_pixel[0]


def test_rows_whose_image_may_be_off_the_stamp_are_marked(lens_rows: Any) -> None:
    x = np.array([0.0, 2.0, 4.0, 30.0])
    where = _layout(lens_rows(4, src_x_arcsec=x, theta_e_arcsec=0.5), 32)  # half a stamp is 4.2 arcsec
    assert where.outside.tolist() == [False, False, True, True]
    shifted = _layout(lens_rows(lens_x_arcsec=4.0, theta_e_arcsec=0.5), 32)
    assert shifted.outside[0]


def test_only_wings_of_images_off_the_stamp_get_a_finer_grid(lens_rows: Any) -> None:
    x = np.array([0.1, 6.0])
    rows = lens_rows(2, src_x_arcsec=x, psf_model="moffat", psf_fwhm_arcsec_r=4.0 * SCALE)
    assert _layout(rows, 32).nodes_per_pixel.tolist() == [1, 2]
    # an Einstein ring that reaches over the edge is bright on the stamp
    ring = lens_rows(theta_e_arcsec=5.0, psf_model="moffat", psf_fwhm_arcsec_r=4.0 * SCALE)
    where = _layout(ring, 32)
    assert where.outside[0]
    assert where.nodes_per_pixel[0] == 1
    # and it is never so fine that the row would be refused for it
    far = lens_rows(src_x_arcsec=60.0, psf_model="moffat", psf_fwhm_arcsec_r=4.0 * SCALE, moffat_beta=2.0)
    assert _layout(far, 256).size[0] <= GRID_SIZES[-1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"psf_fwhm_arcsec_r": np.array([1.0, 0.02, 0.01])},
            r"row 1: a PSF of FWHM 0\.0763 pix is narrower than",
        ),
        (
            {"src_x_arcsec": np.array([0.0, 0.0, 900.0])},
            r"row 2: light \d+ pix from the stamp's centre would need",
        ),
    ],
)
def test_rows_that_no_grid_can_hold_are_refused(
    lens_rows: Any, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(RenderError, match=message):
        _layout(lens_rows(3, **columns), 32)


def test_control_rows_are_not_looked_at(lens_rows: Any) -> None:
    rows = lens_rows(4, lens_model="CONTROL", psf_fwhm_arcsec_r=np.array([1e-4, 0.0, np.nan, 1.0]))
    rows["src_x_arcsec"] = np.array([0.0, np.nan, 1e9, 1e9])
    assert _layout(rows, 32).size.size == 4
    assert not render_batch(rows, bands="r", stamp_size=32).any()


def test_no_tolerance_is_laid_out_more_coarsely_than_the_coarsest(lens_rows: Any) -> None:
    """A run's rows are checked with their own tolerance, and rendered: both must find the same grids."""
    rows = lens_rows(2, src_x_arcsec=np.array([0.1, 4.0]), psf_model="moffat", psf_fwhm_arcsec_r=4.0 * SCALE)
    loose, coarsest = (_layout(rows, 64, rtol) for rtol in (0.1, COARSEST))
    for each in fields(Layout):
        np.testing.assert_array_equal(getattr(loose, each.name), getattr(coarsest, each.name))
