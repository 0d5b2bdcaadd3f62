"""What callers rely on: the same bits in every batch, options obeyed or refused, conventions, errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arcforge.engine import render_batch, render_lensed_source
from arcforge.engine.certificate import hard_rows
from arcforge.engine.errors import CatalogError, PsfError, RenderError
from arcforge.engine.render import render_unlensed

Catalogue = dict[str, np.ndarray]


def _mixed(n: int, seed: int) -> Catalogue:
    """Rows of every kind, so of every grid: both PSFs and none, float64 transforms, CONTROL; two bands."""
    rows = hard_rows(n, seed)
    rng = np.random.default_rng(seed)
    rows["src_flux_nmgy_g"] = rng.uniform(0.5, 2.0, n)
    rows["psf_fwhm_arcsec_g"] = rows["psf_fwhm_arcsec_r"] * rng.uniform(0.9, 1.2, n)
    kind = rng.random(n)
    rows["psf_model"] = np.where(kind < 0.15, "none", rows["psf_model"])
    rows["lens_model"] = np.where(kind > 0.9, "CONTROL", rows["lens_model"])
    return rows


def _take(rows: Catalogue, which: Any) -> Catalogue:
    return {name: values[which] for name, values in rows.items()}


def _bits(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images).view(np.uint32)


OPTIONS: dict[str, Any] = {"bands": "gr", "stamp_size": 24}


@pytest.fixture(scope="module")
def rows() -> Catalogue:
    return _mixed(70, 41)


@pytest.fixture(scope="module")
def images(rows: Catalogue) -> np.ndarray:
    return render_batch(rows, threads=1, **OPTIONS)


# -- the same bits --


@pytest.mark.parametrize("threads", [2, 3, None])
def test_thread_count_does_not_change_a_bit(rows: Catalogue, images: np.ndarray, threads: int | None) -> None:
    assert np.array_equal(_bits(render_batch(rows, threads=threads, **OPTIONS)), _bits(images))


def test_order_does_not_change_a_bit(rows: Catalogue, images: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(70)
    assert np.array_equal(_bits(render_batch(_take(rows, order), threads=2, **OPTIONS)), _bits(images[order]))


@pytest.mark.parametrize("size", [1, 7, 16, 33])
def test_batch_size_does_not_change_a_bit(rows: Catalogue, images: np.ndarray, size: int) -> None:
    parts = [render_batch(_take(rows, slice(i, i + size)), threads=1, **OPTIONS) for i in range(0, 70, size)]
    assert np.array_equal(_bits(np.concatenate(parts)), _bits(images))


@pytest.mark.parametrize("variant", ["uniform1", "uniform4"])
def test_uniform_variants_have_one_result_too(rows: Catalogue, variant: str) -> None:
    whole = render_batch(rows, threads=1, variant=variant, **OPTIONS)
    back = render_batch(_take(rows, slice(None, None, -1)), threads=2, variant=variant, **OPTIONS)
    assert np.array_equal(_bits(whole), _bits(back[::-1]))


def test_bands_are_in_the_order_asked_for_and_independent(rows: Catalogue, images: np.ndarray) -> None:
    """The grid is that of the narrowest and widest band together, so one band alone may round differently."""
    swapped = render_batch(rows, bands="rg", stamp_size=24)
    assert np.array_equal(swapped[:, ::-1], images)
    alone = render_batch(rows, bands="g", stamp_size=24)
    peak = np.maximum(images[:, :1].max(axis=(2, 3), keepdims=True), 1e-30)
    assert (np.abs(alone - images[:, :1]) / peak).max() < 1e-3


# -- what comes back --


def test_shape_type_and_sign(images: np.ndarray) -> None:
    assert images.shape == (70, 2, 24, 24)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert np.isfinite(images).all()
    assert images.min() > -1e-4 * images.max()


def test_control_rows_are_zero_to_the_bit(rows: Catalogue, images: np.ndarray) -> None:
    control = rows["lens_model"] == "CONTROL"
    assert 2 <= control.sum() < 35
    assert not _bits(images[control]).any()
    assert (images[~control].max(axis=(1, 2, 3)) > 0.0).all()
    assert not render_batch(_take(rows, control), variant="reference", **OPTIONS).any()


def test_out_is_written_and_returned(rows: Catalogue, images: np.ndarray) -> None:
    out = np.full((70, 2, 24, 24), np.nan, dtype=np.float32)
    assert render_batch(rows, out=out, **OPTIONS) is out
    assert np.array_equal(_bits(out), _bits(images))


def test_an_empty_catalogue_gives_an_empty_array(rows: Catalogue) -> None:
    assert render_batch(_take(rows, slice(0, 0)), **OPTIONS).shape == (0, 2, 24, 24)


def test_table_and_mapping_agree(rows: Catalogue, images: np.ndarray) -> None:
    import pyarrow as pa

    assert np.array_equal(render_batch(pa.table(rows), **OPTIONS), images)


def test_light_is_linear_in_flux_and_zero_flux_gives_zero(rows: Catalogue, images: np.ndarray) -> None:
    brighter = render_batch(rows | {"src_flux_nmgy_g": 8.0 * rows["src_flux_nmgy_g"]}, **OPTIONS)
    assert np.array_equal(brighter[:, 0], 8.0 * images[:, 0])  # a power of two: exact
    assert np.array_equal(brighter[:, 1], images[:, 1])
    dark = render_batch(rows | {"src_flux_nmgy_g": np.zeros(70)}, **OPTIONS)
    assert not dark[:, 0].any()


# -- conventions --


def test_major_convention_is_the_prefactor_without_the_root(lens_rows: Any) -> None:
    e = 0.3
    q = (1.0 - e) / (1.0 + e)
    common: dict[str, Any] = {"lens_e": e, "lens_phi_rad": 0.5, "src_x_arcsec": 0.1}
    major = render_batch(lens_rows(theta_e_arcsec=1.2, **common), bands="r", theta_e_convention="major")
    same = render_batch(lens_rows(theta_e_arcsec=1.2 / np.sqrt(q), **common), bands="r")
    other = render_batch(lens_rows(theta_e_arcsec=1.2, **common), bands="r")
    assert np.array_equal(major, same)
    assert np.abs(major - other).max() > 0.05 * same.max()


def test_sphere_is_the_round_ellipsoid(lens_rows: Any) -> None:
    common: dict[str, Any] = {"src_x_arcsec": 0.2, "shear": 0.05}
    sphere = render_batch(lens_rows(lens_model="SIS", lens_e=0.3, **common), bands="r")
    ellipsoid = render_batch(lens_rows(lens_model="SIE", lens_e=0.0, **common), bands="r")
    assert np.array_equal(sphere, ellipsoid)  # an SIS row's ellipticity has no meaning


def test_image_turns_with_the_scene(lens_rows: Any) -> None:
    """Everything turned by a right angle: the image too, array axes included."""
    angle = {"lens_phi_rad": 0.3, "shear_phi_rad": 1.0, "src_phi_rad": 2.0}
    fixed: dict[str, Any] = {"lens_e": 0.3, "shear": 0.06, "src_e": 0.4, "theta_e_arcsec": 1.2}
    options: dict[str, Any] = {"bands": "r", "stamp_size": 32, "rtol": 1e-4}
    straight = render_batch(lens_rows(src_x_arcsec=0.3, src_y_arcsec=0.1, **angle, **fixed), **options)[0, 0]
    by_90 = {name: value + np.pi / 2.0 for name, value in angle.items()}
    turned = render_batch(lens_rows(src_x_arcsec=-0.1, src_y_arcsec=0.3, **by_90, **fixed), **options)[0, 0]
    # (x, y) -> (-y, x): column i becomes row i, row j becomes column -j
    assert np.abs(turned - straight.T[:, ::-1]).max() < 2e-4 * straight.max()


def test_unlensed_ignores_the_lens_but_not_its_place(lens_rows: Any) -> None:
    place = {"lens_x_arcsec": 0.5, "src_x_arcsec": 0.2}
    lensed = render_unlensed(lens_rows(theta_e_arcsec=2.0, lens_e=0.4, shear=0.1, **place), bands="r")
    plain = render_unlensed(lens_rows(theta_e_arcsec=0.1, **place), bands="r")
    assert np.array_equal(lensed, plain)
    x = (np.arange(64) - 31.5) * 0.262
    image = plain[0, 0].astype(np.float64)
    assert image.sum(axis=0) @ x / image.sum() == pytest.approx(0.7, abs=1e-3)


# -- the user's own call --


def test_positional_call_equals_the_batch(lens_rows: Any) -> None:
    single = render_lensed_source(
        64, 0.262, "SIE", 1.3, 0.2, 0.4, 0.05, 1.1, 2.0, 0.4, 0.3, 0.9, 0.1, -0.2, 4.5, "moffat", 3.0
    )
    rows = lens_rows(
        theta_e_arcsec=1.3, lens_e=0.2, lens_phi_rad=0.4, shear=0.05, shear_phi_rad=1.1, src_flux_nmgy_r=2.0,
        src_reff_arcsec=0.4, src_e=0.3, src_phi_rad=0.9, src_x_arcsec=0.1, src_y_arcsec=-0.2,
        psf_fwhm_arcsec_r=4.5 * 0.262, psf_model="moffat", moffat_beta=3.0,
    )  # fmt: skip
    assert single.shape == (64, 64)
    assert single.dtype == np.float32
    assert np.array_equal(single, render_batch(rows, bands="r")[0, 0])


def test_no_psf_in_each_of_its_spellings() -> None:
    first = (32, 0.262, "SIE", 1.3, 0.2, 0.4, 0.05, 1.1, 2.0, 0.4, 0.3, 0.9, 0.1, -0.2)
    without = render_lensed_source(*first, 0.0)
    assert np.array_equal(render_lensed_source(*first, 4.0, psf_apply=False), without)
    assert np.abs(render_lensed_source(*first, 4.0) - without).max() > 0.05 * without.max()


def test_control_and_no_einstein_radius_give_zeros() -> None:
    rest = (0.2, 0.4, 0.05, 1.1, 2.0, 0.4, 0.3, 0.9, 0.1, -0.2, 4.5)
    assert not render_lensed_source(32, 0.262, "CONTROL", 1.0, *rest).any()
    assert not render_lensed_source(32, 0.262, "SIE", 0.0, *rest).any()


# -- refusals --


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stamp_size": 3}, RenderError, "stamp_size is 3; allowed: 4 to 1024"),
        ({"stamp_size": 2000}, RenderError, "stamp_size is 2000"),
        ({"pixscale_arcsec": 0.0}, RenderError, r"pixscale_arcsec is 0\.0; allowed: value > 0"),
        ({"pixscale_arcsec": np.nan}, RenderError, "pixscale_arcsec is nan"),
        ({"rtol": 0.0}, RenderError, r"rtol is 0\.0; allowed: 1e-05 to 0\.1"),
        ({"rtol": 0.5}, RenderError, r"rtol is 0\.5"),
        ({"rtol": np.nan}, RenderError, "rtol is nan"),
        ({"variant": "fast"}, RenderError, "unknown variant 'fast'; use one of auto, uniform1"),
        ({"pixel_response": "pixel"}, RenderError, "pixel_response is 'pixel'; use"),
        ({"theta_e_convention": "minor"}, CatalogError, "minor"),
        ({"threads": 0}, RenderError, "threads is 0"),
        ({"threads": -2}, RenderError, "threads is -2"),
        ({"bands": "gz"}, CatalogError, "src_flux_nmgy_z"),
    ],
)
def test_bad_options_are_refused_by_name(
    rows: Catalogue, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        render_batch(rows, **(OPTIONS | options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((70, 2, 24, 25), dtype=np.float32),
        np.empty((70, 2, 24, 24), dtype=np.float64),
        np.empty((70, 2, 24, 48), dtype=np.float32)[..., ::2],
        np.empty((69, 2, 24, 24), dtype=np.float32),
    ],
)
def test_out_of_another_form_is_refused(rows: Catalogue, out: np.ndarray) -> None:
    with pytest.raises(
        RenderError, match=r"out must be a C-contiguous float32 array of shape \(70, 2, 24, 24\)"
    ):
        render_batch(rows, out=out, **OPTIONS)


def test_a_moffat_that_is_a_gaussian_is_refused(lens_rows: Any) -> None:
    """The table of transforms does not reach so far: at beta = 60 the image would be off by a tenth."""
    with pytest.raises(CatalogError, match=r'moffat_beta is 60\.0.*set psf_model to "gaussian"'):
        render_batch(lens_rows(psf_model="moffat", moffat_beta=60.0), bands="r")


def test_psf_image_rows_without_images_are_refused(lens_rows: Any) -> None:
    with pytest.raises((RenderError, PsfError), match="psf_images"):
        render_batch(lens_rows(psf_model="image", psf_id=0), bands="r")


def test_a_bad_value_is_refused_before_anything_is_written(lens_rows: Any) -> None:
    rows = lens_rows(3, theta_e_arcsec=np.array([1.0, -1.0, 1.0]))
    out = np.full((3, 1, 16, 16), 7.0, dtype=np.float32)
    with pytest.raises(CatalogError, match=r"row 1.*theta_e_arcsec"):
        render_batch(rows, bands="r", stamp_size=16, out=out)
    assert (out == 7.0).all()


def test_threads_are_every_core_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    from arcforge.engine.threads import usable_threads

    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 3, 5})
        assert usable_threads(None) == 3
    assert usable_threads(2) == 2


@pytest.mark.parametrize("make", [lambda size: size, lambda size: size + 1])
def test_every_stamp_size_renders(lens_rows: Any, make: Callable[[int], int]) -> None:
    """Small, odd, even: no size may hit an empty or misfitting grid, with and without PSF."""
    for size in (4, 8, 16, 30, 64):
        rows = lens_rows(3, theta_e_arcsec=0.4, psf_model=np.array(["gaussian", "moffat", "none"]))
        image = render_batch(rows, bands="r", stamp_size=make(size))
        assert image.shape == (3, 1, make(size), make(size))
        assert np.isfinite(image).all()
        assert (image.max(axis=(1, 2, 3)) > 0.0).all()


@pytest.mark.parametrize(
    ("argument", "value"),
    [("src_total_flux_nmgy", -3.0), ("psf_fwhm_pix", -1.0), ("pixscale_arcsec", 0.0), ("stamp_size", 64.5)],
)
def test_the_single_call_names_its_own_arguments(argument, value):
    given = {"stamp_size": 64, "pixscale_arcsec": 0.262, "lens_model": "SIE", "theta_e_arcsec": 1.5}
    given |= {"lens_e": 0.2, "lens_phi_rad": 0.3, "shear": 0.0, "shear_phi_rad": 0.0, "src_e": 0.2}
    given |= {"src_total_flux_nmgy": 2.0, "src_reff_arcsec": 0.4, "src_phi_rad": 0.5, "psf_fwhm_pix": 5.0}
    given |= {"src_x_arcsec": 0.1, "src_y_arcsec": 0.2, argument: value}
    with pytest.raises(ValueError, match=f"^{argument} is {value}"):
        render_lensed_source(**given)
