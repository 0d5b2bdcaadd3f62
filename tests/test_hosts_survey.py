"""Hosts as surveys give them: layers beside the image, bricks and positions, refusals counted by reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from arcforge.engine import open_store
from arcforge.engine.config import default_config, parse_config
from arcforge.engine.errors import ConfigError, HostError
from arcforge.engine.host_rules import HostRules
from arcforge.engine.hosts import open_hosts
from arcforge.engine.inject import inject
from arcforge.engine.verify import verify

SIDE, SIZE = 45, 32
SIGMA = 0.002


def cube(seed: int = 0, side: int = SIDE, at: tuple[float, float] | None = None) -> NDArray[np.float32]:
    """A round galaxy in g, r, z, on its central pixel or at (x, y), on sky noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    x0, y0 = at or (side // 2, side // 2)
    light = (1 + ((x - x0) ** 2 + (y - y0) ** 2) / 9.0) ** -2.5
    fluxes = np.array([0.5, 2.0, 4.0])[:, None, None]
    return (0.05 * fluxes * light + rng.normal(0, SIGMA, (3, side, side))).astype(np.float32)


def psf_cube(side: int = 21, width: float = 2.0, dx: float = 0.0) -> NDArray[np.float32]:
    y, x = np.mgrid[:side, :side] - side // 2
    sigma = width * np.array([1.2, 1.0, 0.9])[:, None, None]
    image = np.exp(-0.5 * ((x - dx) ** 2 + y**2) / sigma**2)
    return (image / image.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def write_cutout(path: Path, seed: int = 0, **layers: Any) -> Path:
    units: list[Any] = [fits.PrimaryHDU(cube(seed), fits.Header({"BANDS": "grz", "PIXSCALE": 0.262}))]
    units += [fits.ImageHDU(data, name=name) for name, data in layers.items()]
    fits.HDUList(units).writeto(path)
    return path


def invvar_of(share_uncovered: float = 0.0) -> NDArray[np.float32]:
    invvar = np.full((3, SIDE, SIDE), SIGMA**-2, np.float32)
    invvar[1, : int(share_uncovered * SIDE)] = 0.0
    return invvar


def mask_of(x: int, y: int, bit: int) -> NDArray[np.int16]:
    mask = np.zeros((SIDE, SIDE), np.int16)
    mask[y, x] = 1 << bit
    return mask


CONFIG = parse_config(
    f"stamp_size = {SIZE}\n[priors]\ntheta_e_arcsec = {{dist = 'uniform', low = 0.8, high = 1.2}}"
)


def test_layers_of_a_fits_cutout_reach_the_store_and_the_renderer(tmp_path: Path) -> None:
    folder = tmp_path / "hosts"
    folder.mkdir()
    for i in range(3):
        write_cutout(
            folder / f"{i}.fits",
            i,
            INVVAR=invvar_of(),
            MASKBITS=mask_of(3 + i, 40, 8),
            PSF=psf_cube(width=2.0 + (i == 2)),
        )
    hosts = open_hosts(folder, stamp_size=SIZE)
    assert hosts.table.psf_id.tolist() == [0, 0, 1]  # equal images are kept once
    store = inject(tmp_path / "S.zarr", config=CONFIG, hosts=folder, n=40, seed=1)
    catalog = store.catalog
    assert set(catalog.column("psf_model").to_pylist()) == {"image"}
    index = catalog.column("host_index").to_numpy()
    np.testing.assert_array_equal(catalog.column("psf_id").to_numpy(), np.array([0, 0, 1])[index])
    np.testing.assert_array_equal(store.psf_images[1], psf_cube(width=3.0))
    corner = SIDE // 2 - SIZE // 2
    masks = store.masks(slice(None))
    for row in range(5):
        expected = mask_of(3 + index[row], 40, 8)[corner : corner + SIZE, corner : corner + SIZE]
        np.testing.assert_array_equal(masks[row], expected)
    np.testing.assert_array_equal(store.invvar([0])[0], np.full((3, SIZE, SIZE), SIGMA**-2, np.float32))
    # the arcs are those of the images: a wider PSF gives lower peaks than its own rendering with the other
    assert verify(store.path, level="deep").sound
    arcs = store.arcs(slice(None)).astype(np.float64)
    snr = np.sqrt((arcs[:, 1] ** 2).sum((1, 2)) * SIGMA**-2)
    np.testing.assert_allclose(catalog.column("arc_snr_r").to_numpy(), snr, rtol=1e-5)


def test_the_psf_image_of_the_host_is_what_is_applied(tmp_path: Path) -> None:
    """An unresolved source through the host's image has the image's own shape."""
    psf = psf_cube(width=2.5)
    path = write_cutout(tmp_path / "a.fits", PSF=psf)
    config = parse_config(
        f"stamp_size = {SIZE}\n[priors]\ntheta_e_arcsec = 0.01\nlens_e = 0.0\nshear = 0.0\nsrc_e = 0.0\n"
        "src_x_arcsec = 0.5\nsrc_y_arcsec = 0.0\nsrc_reff_arcsec = 0.02\nlens_model = 'SIS'\nsrc_dmag = -3.0"
    )
    store = inject(tmp_path / "S.zarr", config=config, hosts=path, n=1, seed=1)
    arc = store.arcs([0])[0].astype(np.float64)
    y = np.mgrid[:SIZE, :SIZE][0] - (SIZE - 1) / 2
    for band in range(3):
        weight = arc[band] / arc[band].sum()
        width = np.sqrt((weight * (y - (weight * y).sum()) ** 2).sum())
        kernel = psf[band].astype(np.float64)
        v = np.mgrid[:21, :21][0] - 10
        assert width == pytest.approx(np.sqrt((kernel * v**2).sum()), rel=0.01)


def test_refusals_are_counted_by_reason_and_kept_with_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "hosts"
    folder.mkdir()
    nan = cube()
    nan[0, 3, 4] = np.nan
    write_cutout(folder / "good.fits", INVVAR=invvar_of(), MASKBITS=mask_of(30, 22, 2))
    write_cutout(folder / "edge.fits", INVVAR=invvar_of(0.5))
    write_cutout(folder / "masked.fits", MASKBITS=mask_of(22, 23, 1))
    fits.PrimaryHDU(nan, fits.Header({"BANDS": "grz", "PIXSCALE": 0.262})).writeto(folder / "nan.fits")
    zero = fits.Header({"BANDS": "grz", "PIXSCALE": 0.262, "PSFSIZER": 0.0})
    fits.PrimaryHDU(cube(), zero).writeto(folder / "psf0.fits")
    rng = np.random.default_rng(3)
    fits.PrimaryHDU(
        rng.normal(0, SIGMA, (3, SIDE, SIDE)).astype(np.float32),
        fits.Header({"BANDS": "grz", "PIXSCALE": 0.262}),
    ).writeto(folder / "empty.fits")
    expected = {
        "no coverage": 1, "masked centre": 1, "NaN": 1, "psfsize 0": 1, "no galaxy": 1,
    }  # fmt: skip
    hosts = open_hosts(folder, stamp_size=SIZE, skip_bad=True)
    assert hosts.refused_by_reason == expected
    assert [host.host_id for host in hosts] == ["good"]
    with pytest.raises(HostError, match="skip-bad-hosts"):
        inject(tmp_path / "S.zarr", config=CONFIG, hosts=folder, n=4, seed=1)
    skipping = replace(CONFIG, bad_hosts="skip")
    store = inject(tmp_path / "S.zarr", config=skipping, hosts=folder, n=4, seed=1)
    even = write_cutout(tmp_path / "even.fits", PSF=psf_cube()[:, :20, :20])
    with pytest.raises(HostError, match="even side"):
        open_hosts(even, stamp_size=SIZE)
    assert open_store(store.path).hosts_refused["counts"] == expected
    rules = HostRules(saturated_radius_arcsec=3.0)  # the good one has a saturated pixel 2.1 arcsec away
    with pytest.raises(HostError, match="none of its 6 files is usable"):
        open_hosts(folder, stamp_size=SIZE, skip_bad=True, rules=rules)


def test_npz_and_parquet_hosts_carry_their_layers(tmp_path: Path) -> None:
    blobs = []
    for i in range(2):
        path = tmp_path / f"{i}.npz"
        planes = dict(zip(("image_g", "image_r", "image_z"), cube(i), strict=True))
        np.savez_compressed(
            path, invvar=invvar_of(), psf=psf_cube(), pixscale_arcsec=0.262, bands="grz", **planes
        )
        blobs.append(path.read_bytes())
    table = pa.table(
        {
            "ctrl_stamp_npz": [blobs[0], blobs[1], blobs[0], blobs[0]],
            "task_id": ["a", "b", "c", "d"],
            "psfsize_g": [1.5, 1.6, 1.5, 1.5],
            "psfsize_r": [1.4, 1.5, 1.4, 1.4],
            "psfsize_z": [1.3, 1.4, 1.3, 1.3],
            "ra": [10.0, 20.0, 10.0, 10.0],
            "dec": [1.0, 2.0, 1.0, 1.0],
        }
    )
    pq.write_table(table, tmp_path / "pairs.parquet")
    hosts = open_hosts(tmp_path / "pairs.parquet", stamp_size=SIZE)
    assert len(hosts) == 2  # three rows show one host
    assert hosts.table.ra_deg.tolist() == [10.0, 20.0]
    np.testing.assert_array_equal(hosts[1].pixels, cube(1)[:, 6:38, 6:38])
    assert hosts[0].invvar is not None
    assert hosts[0].psf is not None


def test_widths_come_from_a_table_of_bricks(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", cutout=cube(), bands="grz", pixel_scale=0.262, meta_ra=10.05, meta_dec=0.02)
    (tmp_path / "bricks.csv").write_text(
        "brickname,ra,dec,psfsize_g,psfsize_r,psfsize_z\n0100p000,10.0,0.0,1.5,1.4,1.3\n0102p000,10.25,0.0,2,2,0\n"
    )
    hosts = open_hosts(tmp_path / "a.npz", stamp_size=SIZE, psf_table=tmp_path / "bricks.csv")
    assert hosts[0].psf_fwhm_arcsec == (1.5, 1.4, 1.3)
    np.savez(tmp_path / "a.npz", cutout=cube(), bands="grz", pixel_scale=0.262, meta_ra=10.2, meta_dec=0.02)
    with pytest.raises(HostError, match="marks no coverage"):
        open_hosts(tmp_path / "a.npz", stamp_size=SIZE, psf_table=tmp_path / "bricks.csv")
    np.savez(tmp_path / "a.npz", cutout=cube(), bands="grz", pixel_scale=0.262, meta_ra=50.2, meta_dec=0.02)
    with pytest.raises(HostError, match="not in the PSF table"):
        open_hosts(tmp_path / "a.npz", stamp_size=SIZE, psf_table=tmp_path / "bricks.csv")


def brick_folder(tmp_path: Path) -> tuple[Path, NDArray[np.float32], fits.Header]:
    """A brick of 200 pixels in r: galaxies at known sub-pixel places, covered up to column 120."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, SIGMA, (200, 200))
    y, x = np.mgrid[:200, :200]
    for gx, gy in PLACES:
        image += 0.1 * (1 + ((x - gx) ** 2 + (y - gy) ** 2) / 9.0) ** -2.5
    invvar = np.full((200, 200), SIGMA**-2, np.float32)
    invvar[:, 121:] = 0.0
    image[:, 121:] = 0.0
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 95.95, "CRVAL2": 80.5, "CRPIX1": 100.5,
            "CRPIX2": 100.5, "CD1_1": -0.262 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.262 / 3600,
            "BUNIT": "nanomaggy",
        }
    )  # fmt: skip
    folder = tmp_path / "coadd" / "095"
    folder.mkdir(parents=True)
    psfsize = np.full((200, 200), 1.4, np.float32)
    psfsize[:50] = 0.0
    for kind, data in (("image", image.astype(np.float32)), ("invvar", invvar), ("psfsize", psfsize)):
        unit = fits.CompImageHDU(data, header, compression_type="GZIP_2", quantize_level=0)
        fits.HDUList([fits.PrimaryHDU(), unit]).writeto(folder / f"legacysurvey-0959p805-{kind}-r.fits.fz")
    return tmp_path / "coadd", image.astype(np.float32), header


PLACES = [(40.3, 80.8), (60.0, 150.25), (100.7, 100.2), (118.0, 60.0), (30.2, 30.4)]


def test_positions_are_cut_out_of_bricks_at_whole_pixels_with_sub_pixel_centroids(tmp_path: Path) -> None:
    from astropy.wcs import WCS

    folder, image, header = brick_folder(tmp_path)
    with pytest.raises(HostError, match="give --positions"):
        open_hosts(folder, bands="r")
    x, y = np.array([*PLACES, (170.0, 100.0), (5.0, 100.0), (2000.0, 100.0)]).T
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    positions = pa.table({"ra": ra, "dec": dec, "host_id": [f"p{i}" for i in range(len(x))]})
    hosts = open_hosts(folder, bands="r", stamp_size=SIZE, positions=positions, skip_bad=True)
    assert [host.host_id for host in hosts] == ["p0", "p1", "p2"]
    assert hosts.refused_by_reason == {
        "no coverage": 2, "edge of the field": 1, "outside the fields": 1, "psfsize 0": 1,
    }  # fmt: skip
    for host, (gx, gy) in zip(hosts, PLACES, strict=False):
        x0, y0 = round(gx) - SIZE // 2, round(gy) - SIZE // 2
        np.testing.assert_array_equal(host.pixels[0], image[y0 : y0 + SIZE, x0 : x0 + SIZE])
        assert host.x_pix + x0 == pytest.approx(gx, abs=0.05)
        assert host.y_pix + y0 == pytest.approx(gy, abs=0.05)
        assert host.psf_fwhm_arcsec == pytest.approx((1.4,))
    np.testing.assert_allclose(hosts.table.ra_deg, ra[:3])


def test_real_fields_bricks_and_cutouts_are_injected(tmp_path: Path, survey_data: Path) -> None:
    """The four kinds of real hosts, each to a store that verifies deeply."""
    field = survey_data / "hosts" / "ls_dr9_59.1067_-30.4848.fits"
    store = inject(tmp_path / "field.zarr", hosts=field, n=6, seed=1)
    assert set(store.catalog.column("psf_model").to_pylist()) == {"image"}
    assert verify(store.path, level="deep").sound
    with fits.open(field) as units:
        np.testing.assert_array_equal(store.psf_images[0], units["PSF"].data)
        corner = 256 // 2 - 32
        inside = units["INVVAR"].data[:, corner : corner + 64, corner : corner + 64]
        np.testing.assert_array_equal(store.invvar([0])[0], inside)
    with pytest.raises(ConfigError, match=r"psf_jitter = 0.05, and the PSF of every host is an image"):
        inject(tmp_path / "J.zarr", config=replace(default_config(), psf_jitter=0.05), hosts=field, n=6)
    for name, folder in (("des46", "hosts/des46"), ("lenses", "lenses/ls_dr10_tierB")):
        store = inject(tmp_path / f"{name}.zarr", hosts=survey_data / folder, n=12, seed=1)
        assert verify(store.path, level="deep").sound
        assert np.isfinite(store.stamps(slice(None))).all()


def test_an_early_type_off_centre_in_a_real_field_is_cut_out_by_position(survey_data: Path) -> None:
    field = survey_data / "hosts" / "ls_dr9_59.1067_-30.4848.fits"
    positions = pa.table({"x_pix": [239.0, 250.0], "y_pix": [178.0, 178.0]})
    hosts = open_hosts(field, stamp_size=32, positions=positions, skip_bad=True)
    assert len(hosts) == 1
    assert hosts.refused_by_reason == {"edge of the field": 1}
    assert hosts.table.x_pix[0] == pytest.approx(16, abs=1.0)


def test_the_inverse_variance_of_stamps_holds_their_photon_noise(tmp_path: Path) -> None:
    folder = tmp_path / "hosts"
    folder.mkdir()
    for i in range(2):
        write_cutout(folder / f"{i}.fits", i, INVVAR=invvar_of(0.1 * i))
    plain = replace(CONFIG, noise="poisson", control_fraction=0.2)
    config = replace(plain, update_invvar=True)
    host = inject(tmp_path / "H.zarr", config=plain, hosts=folder, n=30, seed=2).invvar(slice(None))
    store = inject(tmp_path / "S.zarr", config=config, hosts=folder, n=30, seed=2)
    stamp = store.invvar(slice(None))
    light = (store.arcs(slice(None)) - store.noise(slice(None))).astype(np.float64)
    gain = np.stack([store.catalog.column(f"gain_e_per_nmgy_{b}").to_numpy() for b in "grz"], axis=1)
    covered = host > 0
    assert (stamp[~covered] == 0).all()
    expected = 1.0 / (1.0 / host[covered] + (np.maximum(light, 0) / gain[:, :, None, None])[covered])
    np.testing.assert_allclose(stamp[covered], expected, rtol=1e-5)
    assert (stamp < 0.97 * host).mean() > 0.01
    dark = light == 0
    np.testing.assert_array_equal(stamp[dark], host[dark])
    np.testing.assert_array_equal(store.invvar([4, 1]), stamp[[4, 1]])
    assert verify(store.path, level="deep").sound
    with pytest.raises(ConfigError, match="no host came with an inverse variance"):
        inject(tmp_path / "N.zarr", config=replace(config, synthetic_host_count=3), n=3)
    with pytest.raises(ConfigError, match="line 1: update_invvar = true, and noise is off: set noise"):
        parse_config("update_invvar = true")
