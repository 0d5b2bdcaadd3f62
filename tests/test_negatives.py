"""Negatives: marked by kind, as bright as the arcs they stand for, rendered again from their own record."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from arcforge.engine import lookalikes, render_batch
from arcforge.engine.config import Config, parse_config
from arcforge.engine.errors import CatalogError, ConfigError
from arcforge.engine.inject import inject
from arcforge.engine.profiles import deflection_shear, deflection_sie, sersic_profile_Ie1
from arcforge.engine.psf import gaussian_sigma
from arcforge.engine.verify import verify

# of the peak: rtol of the renderer, 1e-3, and what the brute-force average below is off by
AVERAGE_TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def config() -> Config:
    return parse_config(
        "synthetic_host_count = 12\nstamp_size = 48\ncontrol_fraction = 0.1\n[negatives]\nunlensed = 0.3\n"
        "[cuts]\nmagnification_min = 4.0"
    )


@pytest.mark.compiled
def test_unlensed_sources_have_their_arcs_flux_and_no_arc(tmp_path: Any, config: Config) -> None:
    store = inject(tmp_path / "S.zarr", config=config, n=200, seed=3)
    assert verify(store.path, level="deep").sound
    catalog = {name: store.catalog.column(name).to_numpy(False) for name in store.catalog.column_names}
    kind = catalog["kind"]
    assert set(kind) == {"arc", "control", "unlensed"}
    assert np.mean(kind == "unlensed") == pytest.approx(0.3 * 0.9, abs=0.09)
    plain = inject(tmp_path / "P.zarr", config=replace(config, negatives=MappingProxyType({})), n=200, seed=3)
    lensed = {name: plain.catalog.column(name).to_numpy(False) for name in plain.catalog.column_names}
    negative = kind == "unlensed"
    for name in ("src_x_arcsec", "src_reff_arcsec", "host_index", "theta_e_arcsec", "src_flux_nmgy_r"):
        np.testing.assert_array_equal(catalog[name][kind == "arc"], lensed[name][kind == "arc"])
    for name in ("src_x_arcsec", "src_y_arcsec", "src_reff_arcsec", "host_index", "psf_fwhm_arcsec_r"):
        np.testing.assert_array_equal(catalog[name][negative], lensed[name][negative])
    np.testing.assert_allclose(catalog["magnification"][negative], 1.0, rtol=2e-3)
    assert catalog["negative_flux_factor"][negative].min() >= 4.0
    for band in "grz":  # the same light in total, where both are on the stamp
        ratio = catalog[f"arc_flux_nmgy_{band}"][negative] / lensed[f"arc_flux_nmgy_{band}"][negative]
        np.testing.assert_allclose(ratio, 1.0, atol=0.01)
    # one blob at the source's place
    row = int(np.flatnonzero(negative)[0])
    image = store.arcs([row])[0, 1].astype(np.float64)
    y, x = np.mgrid[:48, :48] - 23.5
    for axis, grid in (("x", x), ("y", y)):
        centre = (image * grid).sum() / image.sum() * store.pixscale_arcsec
        expected = catalog[f"lens_{axis}_arcsec"][row] + catalog[f"src_{axis}_arcsec"][row]
        assert centre == pytest.approx(expected, abs=0.02)


def test_shares_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"line 2: unlensed = 1\.5, allowed: a number between 0 and 1"):
        parse_config("[negatives]\nunlensed = 1.5")
    with pytest.raises(ConfigError, match='line 2: "rings" is unknown here; did you mean "ring"'):
        parse_config("[negatives]\nrings = 0.5")
    with pytest.raises(ConfigError, match=r"line 1: the shares add up to 1\.2, allowed: up to 1"):
        parse_config("[negatives]\nring = 0.5\nspiral = 0.7")
    config = parse_config("[negatives]\nunlensed = 0.25")
    assert parse_config(config.to_toml()) == config


ROW: dict[str, Any] = {
    "lens_model": "SIE", "theta_e_arcsec": 1.6, "lens_e": 0.25, "lens_phi_rad": 0.6, "shear": 0.06,
    "shear_phi_rad": 2.0, "lens_x_arcsec": 0.11, "lens_y_arcsec": -0.07, "src_x_arcsec": 0.25,
    "src_y_arcsec": 0.1, "src_reff_arcsec": 0.3, "src_n": 1.0, "src_e": 0.3, "src_phi_rad": 1.0,
    "src_flux_nmgy_r": 5.0, "psf_fwhm_arcsec_r": 1.3, "psf_model": "gaussian",
}  # fmt: skip
SHAPE = {
    "shape_radius_arcsec": 1.8, "shape_e": 0.2, "shape_width": 0.15, "shape_contrast": 0.0,
    "shape_turn_rad": 1.0, "shape_pitch_rad": -0.3, "shape_arms": 2.0,
}  # fmt: skip


def drawn(kind: str, **changes: Any) -> np.ndarray:
    """One row of that kind, (48, 48) float64."""
    row = ROW | SHAPE | {"kind": kind} | changes
    catalog = {name: np.array([value]) for name, value in row.items()}
    return render_batch(catalog, stamp_size=48, bands="r", threads=1)[0, 0].astype(np.float64)


def brute_force_average() -> np.ndarray:
    """The unconvolved arc's mean on circles about the lens, summed up with the PSF: float64, no renderer."""
    reach, scale, fine = 40, 0.262, 5
    radius = (np.arange(700) + 0.5) * 0.01
    angle = 2 * np.pi * (np.arange(720) + 0.5) / 720
    x, y = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
    ax, ay = deflection_sie(x, y, ROW["theta_e_arcsec"], ROW["lens_e"], ROW["lens_phi_rad"])
    bx, by = deflection_shear(x, y, ROW["shear"], ROW["shear_phi_rad"])
    q = (1 - ROW["src_e"]) / (1 + ROW["src_e"])
    source = (x - ax - bx - ROW["src_x_arcsec"], y - ay - by - ROW["src_y_arcsec"])
    arc = sersic_profile_Ie1(*source, ROW["src_reff_arcsec"], q, ROW["src_phi_rad"])
    profile = arc.mean(axis=1)
    grid = (np.arange(2 * reach * fine + 1) / fine - reach) * scale
    rho = np.hypot(grid[None, :] - ROW["lens_x_arcsec"], grid[:, None] - ROW["lens_y_arcsec"])
    light = np.interp(rho, radius, profile, right=0.0)
    pixel = (np.arange(48) - 23.5) * scale
    sigma = float(gaussian_sigma(ROW["psf_fwhm_arcsec_r"]))
    weight = np.exp(-0.5 * ((pixel[:, None] - grid[None, :]) / sigma) ** 2)
    image = weight @ light @ weight.T
    return image / image.sum()


def test_an_average_is_that_of_the_unconvolved_arc_about_its_lens() -> None:
    average, arc = drawn("averaged"), drawn("arc")
    expected = brute_force_average() * average.sum()
    assert np.abs(average - expected).max() < AVERAGE_TOLERANCE * average.max()
    assert average.sum() == pytest.approx(arc.sum(), rel=2e-3)  # no light is lost, all of it is on the stamp
    assert np.abs(average - arc).max() > 0.3 * average.max()  # and it is no arc


@pytest.mark.compiled
@pytest.mark.parametrize("changes", [{}, {"psf_model": "moffat"}, {"theta_e_arcsec": 2.6}, {"src_n": 3.0}])
def test_more_steps_change_no_average(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    average = drawn("averaged", **changes)
    monkeypatch.setattr(lookalikes, "_STEPS", 11.0)
    assert np.abs(drawn("averaged", **changes) - average).max() < 5e-4 * average.max()


def test_an_average_is_taken_before_the_psf() -> None:
    """Through a PSF that is no circle the average is none either: it has the PSF's own moments."""
    x, y = np.meshgrid(np.arange(25) - 12.0, np.arange(25) - 12.0)
    psf = np.exp(-0.5 * ((x / 2.6) ** 2 + (y / 1.4) ** 2))
    catalog = {name: np.array([value]) for name, value in (ROW | {"kind": "averaged"}).items()}
    catalog |= {"psf_model": np.array(["image"]), "psf_id": np.array([0])}
    psfs = {0: (psf / psf.sum())[None]}
    image = render_batch(catalog, stamp_size=48, bands="r", psf_images=psfs, threads=1)[0, 0].astype(float)
    x, y = np.meshgrid(np.arange(48) - 23.5, np.arange(48) - 23.5)
    x, y = x - ROW["lens_x_arcsec"] / 0.262, y - ROW["lens_y_arcsec"] / 0.262
    elongation = ((x**2 - y**2) * image).sum() / image.sum()
    assert elongation == pytest.approx(2.6**2 - 1.4**2, abs=0.05)


def test_rings_and_spirals_lie_about_the_lens_with_their_flux_and_turn() -> None:
    x, y = np.meshgrid(np.arange(48) - 23.5, np.arange(48) - 23.5)
    plain = {"lens_model": "SIS", "theta_e_arcsec": 1e-6, "shear": 0.0, "src_x_arcsec": 0.0}
    plain |= {"src_y_arcsec": 0.0, "src_reff_arcsec": np.nan, "src_n": np.nan, "src_phi_rad": 0.4}
    for kind in ("ring", "spiral"):
        image = drawn(kind, source_id="any", **plain)
        assert image.sum() == pytest.approx(5.0, rel=2e-3)
        centre = [(grid * image).sum() / image.sum() * 0.262 for grid in (x, y)]
        np.testing.assert_allclose(centre, [0.11, -0.07], atol=0.01)
        dx, dy = x - 0.11 / 0.262, y + 0.07 / 0.262
        long, cross = (((dx**2 - dy**2) * image).sum(), (2 * dx * dy * image).sum())
        angle = 0.5 * np.arctan2(cross, long)
        assert angle == pytest.approx(0.4, abs=0.02 if kind == "ring" else 0.4)
    lopsided = drawn("ring", source_id="any", shape_contrast=0.9, shape_e=0.0, **plain)
    peak = np.unravel_index(np.argmax(lopsided), lopsided.shape)
    azimuth = np.arctan2(y[peak] + 0.07 / 0.262, x[peak] - 0.11 / 0.262)
    assert azimuth == pytest.approx(1.4, abs=0.2)  # shape_turn_rad in a plane turned by src_phi_rad
    plain |= {"shape_contrast": 1.0, "source_id": "any"}
    left, right = (drawn("spiral", shape_pitch_rad=pitch, **plain) for pitch in (-0.3, 0.3))
    assert np.abs(left - right).max() > 0.1 * left.max()


def test_a_run_with_every_negative_is_made_again_bit_for_bit(tmp_path: Any) -> None:
    kinds = ("unlensed", "averaged", "ring", "spiral")
    shares = "".join(f"{kind} = 0.15\n" for kind in kinds)
    config = parse_config(
        "synthetic_host_count = 12\nstamp_size = 48\nnoise = 'poisson'\ncontrol_fraction = 0.1\n"
        f"[cuts]\nmagnification_min = 3.0\n[negatives]\n{shares}"
    )
    store = inject(tmp_path / "S.zarr", config=config, n=60, seed=5)
    found = verify(store.path, level="deep")
    assert found.sound
    assert found.n_rendered == 60
    catalog = {name: store.catalog.column(name).to_numpy(False) for name in store.catalog.column_names}
    assert set(catalog["kind"]) == {"arc", "control", *kinds}
    np.testing.assert_array_equal(catalog["is_arc"], catalog["kind"] == "arc")
    plain = inject(tmp_path / "P.zarr", config=replace(config, negatives=MappingProxyType({})), n=60, seed=5)
    for name in ("averaged", "ring"):  # nearly all of their light is on the stamp: the arc's, in every band
        rows = np.flatnonzero(catalog["kind"] == name)
        for band in "grz":
            lensed = plain.catalog.column(f"arc_flux_nmgy_{band}").to_numpy()[rows]
            np.testing.assert_allclose(catalog[f"arc_flux_nmgy_{band}"][rows], lensed, rtol=0.03)
    shaped = np.isin(catalog["kind"], ("ring", "spiral"))
    assert np.isfinite(catalog["shape_radius_arcsec"][shaped]).all()
    assert np.isnan(catalog["shape_radius_arcsec"][~shaped]).all()
    # the stored table as a catalogue gives the same light, in runs of its own
    again = inject(tmp_path / "C.zarr", config=replace(config, negatives=MappingProxyType({})),
                   catalog=store.catalog, seed=5)  # fmt: skip
    np.testing.assert_array_equal(again.arcs(slice(None)), store.arcs(slice(None)))


def test_rows_of_a_kind_without_its_columns_are_refused() -> None:
    catalog = pa.table({name: [value] for name, value in (ROW | {"kind": "ring"}).items()})
    with pytest.raises(CatalogError, match="need the column shape_radius_arcsec"):
        render_batch(catalog, stamp_size=48, bands="r")
    with pytest.raises(CatalogError, match=r"row 0: shape_width is 0, allowed: 0\.02 to 1"):
        drawn("ring", shape_width=0.0)
