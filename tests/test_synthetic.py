"""Synthetic hosts: the same from any set, and alike real coadds in noise, colour and place."""

from __future__ import annotations

import numpy as np
import pytest

from arcforge.engine.catalog import render_columns
from arcforge.engine.config import default_config, parse_config
from arcforge.engine.draws import draw_catalog
from arcforge.engine.errors import HostError
from arcforge.engine.host_measure import measure
from arcforge.engine.hosts import HostSet
from arcforge.engine.synthetic import synthetic_hosts


@pytest.fixture(scope="module")
def hosts() -> HostSet:
    return synthetic_hosts(48, 7)


@pytest.fixture(scope="module")
def pixels(hosts: HostSet) -> np.ndarray:
    return hosts.pixels(np.arange(48))


def test_a_host_is_the_same_in_every_set_and_company(hosts: HostSet, pixels: np.ndarray) -> None:
    few = synthetic_hosts(5, 7)
    np.testing.assert_array_equal(few[3].pixels, pixels[3])
    assert few[3].sha256 == hosts[3].sha256
    assert few[3].mag == hosts[3].mag
    other = synthetic_hosts(5, 8)
    assert (other[3].pixels != pixels[3]).mean() > 0.99
    assert other[3].sha256 != hosts[3].sha256
    assert synthetic_hosts(5, 7, pixscale_arcsec=0.3)[3].sha256 != hosts[3].sha256


def test_what_the_table_says_is_in_the_pixels(hosts: HostSet, pixels: np.ndarray) -> None:
    assert pixels.shape == (48, 3, 64, 64)
    assert pixels.dtype == np.float32
    assert np.isfinite(pixels).all()
    found = [measure(stamp, hosts.pixscale_arcsec) for stamp in pixels]
    dx = np.array([m.x_pix for m in found]) - hosts.table.x_pix
    dy = np.array([m.y_pix for m in found]) - hosts.table.y_pix
    assert np.sqrt(np.mean(dx**2 + dy**2)) < 0.1
    assert abs(np.mean(dx)) < 0.03
    assert abs(np.mean(dy)) < 0.03
    missed = np.array([m.mag for m in found]) - hosts.table.mag  # light of n = 3-5 outside the aperture
    assert (np.median(missed, axis=0) > 0.1).all()
    assert (np.median(missed, axis=0) < 0.7).all()
    ratio = np.array([m.sky_sigma_nmgy for m in found]) / hosts.table.sky_sigma_nmgy
    assert (np.abs(np.median(ratio, axis=0) - 1) < 0.15).all()


def test_galaxies_are_red_and_near_the_central_pixel(hosts: HostSet) -> None:
    table = hosts.table
    assert (np.abs(table.x_pix - 32) <= 0.5).all()
    assert (np.abs(table.y_pix - 32) <= 0.5).all()
    assert table.x_pix.std() > 0.2
    g, r, z = table.mag.T
    assert ((g - r > 1.3) & (g - r < 2.2)).all()
    assert ((r - z > 0.7) & (r - z < 1.6)).all()
    assert ((r > 17.9) & (r < 21.3)).all()


def test_sky_noise_is_correlated_like_a_resampled_coadd(hosts: HostSet, pixels: np.ndarray) -> None:
    edge = pixels[:, :, :, :10].astype(np.float64)
    edge = edge - np.median(edge, axis=(2, 3), keepdims=True)
    sigma = hosts.table.sky_sigma_nmgy[:, :, None, None]
    quiet = np.abs(edge).max(axis=(2, 3)) < 5 * sigma[..., 0, 0]  # no neighbour there
    noise = (edge / sigma)[quiet]
    assert len(noise) > 40
    for axis in (1, 2):
        ahead, behind = np.moveaxis(noise, axis, 0)[1:], np.moveaxis(noise, axis, 0)[:-1]
        assert 0.16 < np.mean(ahead * behind) / np.mean(noise**2) < 0.32
    assert abs(np.mean(noise**2) - 1) < 0.1


def test_bands_sizes_and_odd_stamps() -> None:
    hosts = synthetic_hosts(2, 3, bands="zir", stamp_size=41)
    assert hosts[0].pixels.shape == (3, 41, 41)
    assert abs(hosts[1].x_pix - 20) <= 0.5
    peak = hosts[0].pixels[0][18:23, 18:23].max()
    assert peak == hosts[0].pixels[0].max()
    reordered = synthetic_hosts(2, 3, bands="riz", stamp_size=41)
    np.testing.assert_allclose(reordered.table.mag[:, ::-1], hosts.table.mag)


def test_the_psf_is_that_of_the_configuration_and_goes_into_the_rows() -> None:
    config = parse_config("""[priors]
        psf_model = "gaussian"
        psf_fwhm_arcsec_g = 1.9
        psf_fwhm_arcsec_r = {dist = "uniform", low = 0.8, high = 0.9}
        """)
    hosts = synthetic_hosts(6, 3, psf_priors=config.priors)
    table = draw_catalog(config, hosts, 99, np.arange(60))
    host = table["host_index"].to_numpy()
    for number, band in enumerate("grz"):
        np.testing.assert_array_equal(
            table[f"psf_fwhm_arcsec_{band}"].to_numpy(), hosts.table.psf_fwhm_arcsec[host, number]
        )
    assert set(table["psf_fwhm_arcsec_g"].to_pylist()) == {1.9}
    assert set(table["psf_model"].to_pylist()) == {"gaussian"}
    assert not any(table["psf_drawn"].to_pylist())
    # a host's own model stands even where the rows' configuration says otherwise
    assert set(draw_catalog(default_config(), hosts, 99, [0])["psf_model"].to_pylist()) == {"gaussian"}
    assert len(render_columns(table, "grz")) == 60


def test_wider_seeing_makes_blunter_galaxies() -> None:
    def peak(fwhm: float) -> float:
        text = "[priors]\n" + "".join(f"psf_fwhm_arcsec_{band} = {fwhm}\n" for band in "grz")
        return float(synthetic_hosts(1, 3, psf_priors=parse_config(text).priors)[0].pixels[1].max())

    assert peak(0.8) > 1.3 * peak(1.6)


def test_without_a_psf_none_is_known() -> None:
    config = parse_config('[priors]\npsf_model = "none"\n')
    hosts = synthetic_hosts(2, 3, psf_priors=config.priors)
    assert hosts[0].psf_fwhm_arcsec is None
    assert (render_columns(draw_catalog(config, hosts, 1, np.arange(4)), "grz").psf_model == 0).all()


@pytest.mark.parametrize(
    ("n", "bands", "words"), [(3, "gry", "no recipe for bands 'gry'"), (0, "grz", "at least 1")]
)
def test_what_cannot_be_made_is_refused(n: int, bands: str, words: str) -> None:
    with pytest.raises(HostError, match=words):
        synthetic_hosts(n, 1, bands=bands)
