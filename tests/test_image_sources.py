"""Source images: light and flux against closed forms, lenstronomy and GalSim; banks read and judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from arcforge.engine import render_batch
from arcforge.engine.config import parse_config
from arcforge.engine.errors import RenderError, SourceError
from arcforge.engine.inject import inject
from arcforge.engine.render import render_unlensed
from arcforge.engine.source_audit import audit_bank, cleaned
from arcforge.engine.source_bank import FINER, SourceBank, Template, sharpen
from arcforge.engine.source_files import audit_bank_file, open_bank, read_templates
from arcforge.engine.verify import verify

PIXSCALE = 0.262
FLUX = 1e-3  # of the issue: flux against an unlensed drawing and against lenstronomy
OF_PEAK = 1e-2  # of the issue: an unlensed drawing against GalSim's
RTOL = 1e-3  # what rows are rendered to


def gaussian(side: int = 61, fwhm: float = 12.0, dx: float = 0.0, e: float = 0.0) -> NDArray[np.float32]:
    v, u = np.mgrid[:side, :side] - (side - 1) / 2.0
    sigma = fwhm / 2.3548
    return np.exp(-0.5 * (((u - dx) / sigma) ** 2 + (v / (sigma * (1 - e))) ** 2)).astype(np.float32)


def rows(n: int, seed: int = 0, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    catalog: dict[str, Any] = {
        "lens_model": np.full(n, "SIE"),
        "theta_e_arcsec": rng.uniform(0.5, 2.5, n),
        "lens_e": rng.uniform(0, 0.4, n),
        "lens_phi_rad": rng.uniform(0, 3, n),
        "shear": rng.uniform(0, 0.1, n),
        "shear_phi_rad": rng.uniform(0, 3, n),
        "src_x_arcsec": rng.uniform(-0.4, 0.4, n),
        "src_y_arcsec": rng.uniform(-0.4, 0.4, n),
        "src_phi_rad": rng.uniform(0, 3, n),
        "source_id": np.full(n, "a"),
        "psf_model": np.full(n, "moffat"),
        "src_flux_nmgy_r": np.ones(n),
        "psf_fwhm_arcsec_r": np.full(n, 1.3),
    }
    return catalog | changes


def off_peak(image: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.abs(image - other).max((1, 2, 3)) / other.max((1, 2, 3)), dtype=np.float64)


def test_a_gaussian_image_is_a_gaussian_source() -> None:
    """A Sersic of n = 1/2 is a Gaussian: both paths give the same pixels, for any lens and size."""
    n, scale, fwhm = 30, 0.05, 12.0
    bank = SourceBank([Template("a", gaussian(fwhm=fwhm), scale)])
    catalog = rows(n)
    images = render_batch(catalog, bands="r", sources=bank)
    profile = {name: values for name, values in catalog.items() if name != "source_id"}
    profile |= {
        "src_reff_arcsec": np.full(n, 0.5 * fwhm * scale),
        "src_n": np.full(n, 0.5),
        "src_e": np.zeros(n),
    }
    assert off_peak(images, render_batch(profile, bands="r")).max() < 2 * RTOL
    np.testing.assert_allclose(bank.reff_arcsec, 0.5 * fwhm * scale, rtol=0.01)
    half = rows(n, src_reff_arcsec=bank.reff_arcsec[0] * np.full(n, 0.5))
    profile["src_reff_arcsec"] = np.full(n, 0.25 * fwhm * scale)
    assert (
        off_peak(render_batch(half, bands="r", sources=bank), render_batch(profile, bands="r")).max()
        < 2 * RTOL
    )


def test_an_image_turns_with_its_angle_and_sits_at_its_centre() -> None:
    bank = SourceBank([Template("a", gaussian(e=0.4), 0.05), Template("b", gaussian(side=60, e=0.4), 0.05)])
    n = 4
    angles = np.array([0.0, 0.7, 1.5, 2.9])
    for name in "ab":  # odd and even sides
        unlensed = rows(n, src_phi_rad=angles, psf_fwhm_arcsec_r=np.full(n, 0.6), source_id=np.full(n, name))
        images = render_unlensed(unlensed, bands="r", sources=bank)[:, 0].astype(np.float64)
        y, x = np.mgrid[:64, :64] - 31.5
        for k in range(n):
            total = images[k].sum()
            mx, my = (images[k] * x).sum() / total, (images[k] * y).sum() / total
            assert mx * PIXSCALE == pytest.approx(unlensed["src_x_arcsec"][k], abs=1e-3)
            assert my * PIXSCALE == pytest.approx(unlensed["src_y_arcsec"][k], abs=1e-3)
            q = images[k] * ((x - mx) ** 2 - (y - my) ** 2), images[k] * 2 * (x - mx) * (y - my)
            phi = 0.5 * np.arctan2(q[1].sum(), q[0].sum())
            assert np.cos(2 * (phi - angles[k])) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.compiled
def test_rtol_bounds_the_error_of_images(cosmos_bank: SourceBank) -> None:
    """The sharpest of the COSMOS galaxies against the float64 reference of its spline."""
    bank = cosmos_bank
    catalog = rows(1, seed=5, source_id=np.array(bank.ids[73:74]), theta_e_arcsec=np.array([0.7]))
    options: dict[str, Any] = {"bands": "r", "stamp_size": 20, "sources": bank}
    exact = render_batch(catalog, variant="reference", **options)
    for rtol in (RTOL, 1e-4):
        assert off_peak(render_batch(catalog, rtol=rtol, **options), exact).max() < rtol, rtol


@pytest.mark.parametrize("lens", ["SIE", "NFW"])
def test_many_rows_are_within_rtol(cosmos_bank: SourceBank, lens: str) -> None:
    """Every template that the audit passes, against rays seven times as close."""
    bank = cosmos_bank
    n = len(bank)
    catalog = rows(n, source_id=np.array(bank.ids), lens_model=np.full(n, lens), nfw_rs_arcsec=np.full(n, 3))
    images = render_batch(catalog, bands="r", sources=bank)
    error = off_peak(images, render_batch(catalog, bands="r", sources=bank, rtol=1e-5))
    assert np.median(error) < 0.2 * RTOL
    assert error.max() < RTOL


@pytest.mark.compiled
def test_an_image_without_a_psf_is_summed_up_in_its_pixels() -> None:
    bank = SourceBank([Template("a", gaussian(fwhm=12.0), 0.05)])
    catalog = rows(1, psf_model=np.array(["none"]))
    options: dict[str, Any] = {"bands": "r", "stamp_size": 20, "sources": bank}
    exact = render_batch(catalog, variant="reference", **options)
    assert off_peak(render_batch(catalog, **options), exact).max() < 2 * RTOL


def cosmos_as_given(survey_data: Path) -> tuple[list[Any], list[Any]]:
    folder = survey_data / "sources" / "cosmos_btk100"
    names = ("real_galaxy_images_extension.fits", "real_galaxy_PSF_images_extension.fits")
    found = []
    for name in names:
        with fits.open(folder / name, memmap=False) as units:
            found.append([unit.data.astype(np.float32) for unit in units])
    return found[0], found[1]


@pytest.mark.compiled
def test_flux_is_conserved_and_lensed_as_lenstronomy_lenses_it(survey_data: Path) -> None:
    """All 100 templates, cleaned: unlensed flux, and lensed flux on a large frame at matched settings."""
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel
    from scipy.ndimage import map_coordinates

    folder = survey_data / "sources" / "cosmos_btk100"
    templates = [cleaned(template) for template in read_templates(folder)]
    bank = SourceBank([t for t in templates if t.pixels.sum() > 0.0])
    n = len(bank)
    assert n >= 98
    catalog = rows(
        n, source_id=np.array(bank.ids), psf_fwhm_arcsec_r=np.full(n, 0.7), psf_model=np.full(n, "gaussian")
    )
    images = render_batch(catalog, bands="r", stamp_size=96, sources=bank, rtol=2e-4)
    ours = images[:, 0].sum((1, 2), dtype=np.float64)
    unlensed = render_unlensed(catalog, bands="r", stamp_size=96, sources=bank)
    np.testing.assert_allclose(unlensed.sum((1, 2, 3), dtype=np.float64), 1.0, rtol=FLUX)
    lens, finer = LensModel(["SIE", "SHEAR"]), 4  # it interpolates linearly: a finer image of our spline
    half, step = 4.5, 0.007
    axis = np.arange(-half + step / 2, half, step)
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    for k in range(0, n, 15):
        c = {name: values[k] for name, values in catalog.items()}
        angle, shear = 2 * c["lens_phi_rad"], 2 * c["shear_phi_rad"]
        models = [
            {
                "theta_E": c["theta_e_arcsec"],
                "e1": c["lens_e"] * np.cos(angle),
                "e2": c["lens_e"] * np.sin(angle),
            },
            {"gamma1": c["shear"] * np.cos(shear), "gamma2": c["shear"] * np.sin(shear)},
        ]
        spline = bank.coefficients(k).astype(np.float64)
        places = [np.arange(0, side - 1 + 0.5 / finer, 1 / finer) for side in spline.shape]
        fine = map_coordinates(spline, np.meshgrid(*places, indexing="ij"), order=3, prefilter=False)
        pixel = 0.03 / FINER
        source = {
            "image": fine / pixel**2, "amp": 1.0, "scale": pixel / finer, "phi_G": c["src_phi_rad"],
            "center_x": c["src_x_arcsec"], "center_y": c["src_y_arcsec"],
        }  # fmt: skip
        light = LightModel(["INTERPOL"])  # anew: it keeps the first image that it is given
        theirs = light.surface_brightness(*lens.ray_shooting(x, y, models), [source]).sum() * step**2
        assert ours[k] == pytest.approx(theirs, rel=FLUX), k


@pytest.mark.compiled
def test_an_unlensed_drawing_is_galsims(survey_data: Path) -> None:
    galsim = pytest.importorskip("galsim", reason="GalSim is not installed: no comparison with it")
    images, psfs = cosmos_as_given(survey_data)
    seeing = 0.7
    target = galsim.Moffat(beta=3.5, fwhm=seeing)
    for k in (2, 4, 12, 30, 55, 57, 91):  # the last two are the smallest
        pixels, left = sharpen(images[k], psfs[k])
        assert left * 0.03 < 0.07
        bank = SourceBank([Template("a", pixels, 0.03)])
        catalog = rows(
            1,
            src_x_arcsec=[0.1],
            src_y_arcsec=[-0.2],
            src_phi_rad=[0.0],
            psf_fwhm_arcsec_r=np.array([seeing]),
        )
        ours = render_unlensed(catalog, bands="r", sources=bank)[0, 0]
        galaxy = galsim.InterpolatedImage(galsim.Image(images[k].astype(float), scale=0.03), flux=1.0)
        telescope = galsim.InterpolatedImage(galsim.Image(psfs[k].astype(float), scale=0.03), flux=1.0)
        true = galsim.Convolve(galaxy, galsim.Deconvolve(telescope), target).shift(0.1, -0.2)
        theirs = true.drawImage(nx=64, ny=64, scale=PIXSCALE, method="no_pixel").array
        assert np.abs(ours - theirs).max() < OF_PEAK * theirs.max(), k


def noisy(rng: np.random.Generator, level: float = 0.0) -> NDArray[np.float64]:
    return gaussian(45, 9.0) + rng.normal(level, 0.01, (45, 45))


def test_a_bank_is_judged_template_by_template() -> None:
    rng = np.random.default_rng(0)
    hole = noisy(rng)
    hole[5:12, 30:36] -= 0.5
    y, x = np.indices((45, 45)) - 22
    ring = np.hypot(x, y)
    images = {
        "good": noisy(rng),
        "pedestal": noisy(rng, 0.2),
        "edge": gaussian(45, 60.0) + rng.normal(0, 0.01, (45, 45)),
        "faint": 0.005 * gaussian(45, 9.0) + rng.normal(0, 0.01, (45, 45)),
        "star": gaussian(45, 0.8) + rng.normal(0, 1e-4, (45, 45)),
        "clipped": np.maximum(noisy(rng), 0.0),
        "hole": hole,
    }
    images["dark"] = noisy(rng) - 0.07 * ((ring > 10.0) & (ring < 20.0))
    images["copy"] = np.rot90(images["good"]) * 3.0
    templates = [Template(name, image.astype(np.float32), 0.03) for name, image in images.items()]
    kept, report = audit_bank(templates)
    faults = {each.source_id: each.fault for each in report.templates}
    assert [template.source_id for template in kept] == ["good"]
    for name, words in {
        "pedestal": "pedestal (a constant", "edge": "e", "faint": "too faint", "star": "unresolved",
        "clipped": "clipped at zero", "hole": "hole", "dark": "dark surroundings",
        "copy": "duplicate (the same pixels as source good",
    }.items():  # fmt: skip
        assert faults[name].startswith(words) or words in faults[name], faults[name]
        assert faults[name]
    kept, _ = audit_bank(templates, clean=True)  # one-sided noise cannot be mended, a pedestal can
    assert {"good", "pedestal"} <= {template.source_id for template in kept}
    assert "clipped" not in {template.source_id for template in kept}
    mended = cleaned(templates[1]).pixels
    assert mended.sum() == pytest.approx(images["good"].sum(), rel=0.1)
    assert mended[0].max() == pytest.approx(0.0, abs=0.01)


def test_a_bank_with_clipped_noise_is_refused_with_the_reason(tmp_path: Path, survey_data: Path) -> None:
    images, _ = cosmos_as_given(survey_data)
    for i, image in enumerate(images[:10]):
        header = fits.Header({"PIXSCALE": 0.03})
        fits.PrimaryHDU(np.maximum(image, 0.0), header).writeto(tmp_path / f"{i}.fits")
    with pytest.raises(SourceError, match=r"of 10 templates refused: .*pedestal.*clipped at zero") as caught:
        open_bank(tmp_path, clean=True)
    assert "\n" not in str(caught.value)
    report = audit_bank_file(survey_data / "sources" / "cosmos_btk100", clean=True)
    assert len(report.refused) <= 25


@pytest.mark.parametrize("kind", ["npz", "cube", "folder", "mapping"])
def test_banks_of_every_form_give_the_same_light(tmp_path: Path, kind: str) -> None:
    images = np.stack([gaussian(41, 10.0), gaussian(41, 7.0, e=0.3)])
    header = fits.Header({"PIXSCALE": 0.04})
    path: Any = tmp_path / "bank"
    if kind == "npz":
        path = tmp_path / "bank.npz"
        np.savez(path, images=images, pixscale_arcsec=0.04)
    elif kind == "cube":
        path = tmp_path / "bank.fits"
        fits.PrimaryHDU(images, header).writeto(path)
    elif kind == "folder":
        path.mkdir()
        for i, image in enumerate(images):
            fits.PrimaryHDU(image, header).writeto(path / f"{i}.fits")
    else:
        path = {str(i): (image, 0.04) for i, image in enumerate(images)}
    catalog = rows(4, source_id=np.array(["0", "1", "1", "0"]))
    got = render_batch(catalog, bands="r", sources=path)
    bank = SourceBank([Template(str(i), image, 0.04) for i, image in enumerate(images)])
    np.testing.assert_array_equal(got, render_batch(catalog, bands="r", sources=bank))


def test_rows_that_cannot_be_drawn_are_named() -> None:
    bank = SourceBank([Template("a", gaussian(), 0.05)])
    catalog = rows(3, source_id=np.array(["a", "b", ""]), src_reff_arcsec=[0.1, 0.1, 0.2], src_e=[0.0] * 3)
    with pytest.raises(RenderError, match="row 1: source image b was not given"):
        render_batch(catalog, bands="r", sources=bank)
    with pytest.raises(RenderError, match='by "auto" or "reference"'):
        render_batch(rows(2), bands="r", sources=bank, variant="uniform4")
    mixed = rows(
        3, source_id=["a", None, "a"], src_reff_arcsec=[np.nan, 0.2, 0.3], src_e=[np.nan, 0.1, np.nan]
    )
    images = render_batch(mixed, bands="r", sources=bank)
    assert (images.max((1, 2, 3)) > 0).all()
    for text, bad in {
        "2-D": np.ones(5),
        "NaN": np.full((9, 9), np.nan),
        "positive flux": np.zeros((9, 9)),
    }.items():
        with pytest.raises(SourceError, match=text):
            SourceBank([Template("x", bad.astype(np.float32), 0.1)])


def test_a_store_of_image_sources_holds_its_bank(tmp_path: Path, small_config: Any, tree_hashes: Any) -> None:
    rng = np.random.default_rng(4)
    path = tmp_path / "bank.npz"
    images = np.stack([noisy(rng), np.roll(noisy(rng), 5, axis=0), noisy(rng)]).astype(np.float32)
    mags = {"mag_g": [24.0, 25.0, 23.0], "mag_r": [23.0, 24.5, 22.0], "mag_z": [22.5, 24.4, 21.0]}
    np.savez(path, images=images, pixscale_arcsec=0.05, ids=["x", "y", "z"], **mags)
    config = replace(
        small_config, variant="auto", source_bank=str(path), source_colours="bank", source_image_fraction=0.7
    )
    store = inject(tmp_path / "S.zarr", config=config, n=60, seed=2)
    assert verify(store.path, level="deep").sound
    ids = np.array(store.catalog.column("source_id").to_pylist())
    assert set(ids) == {"x", "y", "z", ""}
    colour = store.catalog.column("src_mag_g").to_numpy() - store.catalog.column("src_mag_r").to_numpy()
    np.testing.assert_allclose(colour[ids == "y"], 0.5, atol=1e-9)
    assert np.isnan(store.catalog.column("src_n").to_numpy()[ids != ""]).all()
    again = render_batch(
        store.catalog, stamp_size=24, sources=store.sources, pixscale_arcsec=store.pixscale_arcsec, rtol=1e-3
    )
    controls = store.ctrls(slice(None))
    np.testing.assert_array_equal((controls + again) - controls, store.arcs(slice(None)))
    other = inject(tmp_path / "T.zarr", config=config, n=60, seed=2, threads=1)
    assert tree_hashes(other.path) == tree_hashes(store.path)
    assert parse_config(config.to_toml()) == config
