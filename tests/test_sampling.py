"""Rays of a row's sampling, counted by hand for uniform variants and by the kernel for adaptive ones."""

from __future__ import annotations

import pytest

from arcforge.engine.catalog import render_columns
from arcforge.engine.sampling import Sampler
from arcforge.engine.stamps import Options
from arcforge.engine.variants import variant_named

SIZE = 8


def sampler(rows, variant: str) -> Sampler:
    return Sampler(render_columns(rows, "r"), Options(SIZE, 0.4, 1e-2, variant_named(variant), False))


@pytest.fixture(scope="module")
def rows(lens_rows):
    return lens_rows(
        3, lens_model=["SIE", "CONTROL", "SIE"], src_x_arcsec=[0.1, 0.0, 0.2], psf_fwhm_arcsec_r=0.8,
        theta_e_arcsec=0.8, src_reff_arcsec=0.1,
    )  # fmt: skip


def test_uniform_variants_take_as_many_rays_as_they_say(rows):
    coarse, fine = (sampler(rows, name).rays() for name in ("uniform1", "uniform2"))
    assert coarse[1] == fine[1] == 0
    assert (coarse[[0, 2]] >= SIZE**2).all()
    assert (coarse[[0, 2]] < fine[[0, 2]]).all()
    assert (fine[[0, 2]] <= 4 * coarse[[0, 2]]).all()


def test_rays_of_a_row_do_not_depend_on_the_others(rows):
    together = sampler(rows, "auto")
    counts = together.rays()
    together.fill()
    alone = sampler({name: values[2:] for name, values in rows.items()}, "auto").rays()
    assert counts[1] == 0
    assert counts[2] == alone[0] > 0
    assert together.grid_size[2] >= SIZE
