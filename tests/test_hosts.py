"""Host sets: what is read from real and written files, where the stamp lies, and what is refused."""

from __future__ import annotations

import gzip
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from arcforge.engine.errors import HostError
from arcforge.engine.hosts import Host, open_hosts

SIDE = 71


def cube(seed: int = 0, side: int = SIDE, dx: float = 0.0, dy: float = 0.0) -> NDArray[np.float32]:
    """A round galaxy near the central pixel in g, r, z on sky noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    r2 = (x - side // 2 - dx) ** 2 + (y - side // 2 - dy) ** 2
    light = (1 + r2 / 9.0) ** -2.5
    fluxes = np.array([0.5, 2.0, 4.0])[:, None, None]
    return (0.05 * fluxes * light + rng.normal(0, 0.002, (3, side, side))).astype(np.float32)


def header(**cards: Any) -> fits.Header:
    return fits.Header({"BANDS": "grz", "PIXSCALE": 0.262, **cards})


def write_fits(path: Path, data: NDArray[Any] | None = None, **cards: Any) -> Path:
    fits.PrimaryHDU(cube() if data is None else data, header(**cards)).writeto(path)
    return path


def write_npz(path: Path, **entries: Any) -> Path:
    full: dict[str, Any] = {"meta_bands_requested": "grz", "meta_pixel_scale": 0.262, **entries}
    np.savez_compressed(path, **{key: value for key, value in full.items() if value is not None})
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(HostError) as caught:
        open_hosts(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_real_fits_cubes_are_cropped_about_their_central_pixel_and_measured(survey_data: Path) -> None:
    folder = survey_data / "hosts" / "des46"
    hosts = open_hosts(folder)
    assert len(hosts) == 46
    assert hosts.pixscale_arcsec == 0.263
    assert hosts.refused == []
    assert list(hosts.table.host_id) == [f"des46_{i:02d}" for i in range(46)]
    offset = np.hypot(hosts.table.x_pix - 32, hosts.table.y_pix - 32)
    assert offset.max() < 0.8  # these cutouts are centred to the pixel
    assert hosts.table.mag[:, 1].min() > 18.0
    assert hosts.table.mag[:, 1].max() < 21.3
    assert np.isnan(hosts.table.psf_fwhm_arcsec).all()
    for host in hosts[::9]:
        data = fits.getdata(host.path)
        np.testing.assert_array_equal(host.pixels, data[:, 13:77, 13:77])
        head = fits.getheader(host.path)
        np.testing.assert_allclose(host.sky_sigma_nmgy, [head[f"SKYSIG_{band}"] for band in "GRZ"], rtol=0.08)


def test_real_npz_cutouts_read_alike_in_both_axis_orders(tmp_path: Path, survey_data: Path) -> None:
    folder = survey_data / "lenses" / "ls_dr10_tierB"
    hosts = open_hosts(folder)
    assert len(hosts) == 6
    assert hosts.pixscale_arcsec == 0.262
    for host in hosts:
        with np.load(host.path) as archive:
            cutout = archive["cutout"]
        np.testing.assert_array_equal(host.pixels, np.moveaxis(cutout, 2, 0)[:, 18:82, 18:82])
        write_npz(tmp_path / Path(host.path).name, cutout=np.moveaxis(cutout, 2, 0))
    turned = open_hosts(tmp_path)
    np.testing.assert_array_equal(turned.pixels(np.arange(6)), hosts.pixels(np.arange(6)))
    np.testing.assert_array_equal(turned.table.x_pix, hosts.table.x_pix)


def test_the_galaxy_near_the_centre_of_a_real_field_is_found(survey_data: Path) -> None:
    hosts = open_hosts(
        survey_data / "hosts" / "ls_dr9_59.1067_-30.4848.fits"
    )  # with INVVAR and PSF extensions
    host = hosts[0]
    y, x = np.unravel_index(int(host.pixels[1].argmax()), (64, 64))
    assert np.hypot(host.x_pix - x, host.y_pix - y) < 2.0
    assert (
        np.hypot(host.x_pix - 32, host.y_pix - 32) > 2.0
    )  # it is not on the central pixel, and that is seen
    with fits.open(host.path) as units:
        np.testing.assert_array_equal(host.pixels, units[0].data[:, 96:160, 96:160])


@pytest.mark.parametrize(("side", "stamp"), [(71, 64), (71, 63), (80, 64), (80, 63), (64, 64), (71, 71)])
def test_the_central_pixel_goes_to_half_the_stamp(tmp_path: Path, side: int, stamp: int) -> None:
    data = cube(side=side, dx=0.3, dy=-0.4)
    data[1, side // 2, side // 2] = 7.0
    host = open_hosts(write_fits(tmp_path / "a.fits", data), stamp_size=stamp)[0]
    assert host.pixels.shape == (3, stamp, stamp)
    assert host.pixels.flags.c_contiguous
    assert host.pixels.dtype == np.float32
    assert host.pixels[1, stamp // 2, stamp // 2] == 7.0


def test_centroids_are_in_the_stamp_and_sub_pixel(tmp_path: Path) -> None:
    for i, (dx, dy) in enumerate([(0.0, 0.0), (0.4, -0.3), (-1.2, 0.9), (2.0, 1.5)]):
        write_fits(tmp_path / f"{i}.fits", cube(i, dx=dx, dy=dy))
    table = open_hosts(tmp_path).table
    np.testing.assert_allclose(table.x_pix - 32, [0.0, 0.4, -1.2, 2.0], atol=0.03)
    np.testing.assert_allclose(table.y_pix - 32, [0.0, -0.3, 0.9, 1.5], atol=0.03)


def test_a_host_carries_what_is_known_of_it(tmp_path: Path) -> None:
    path = write_fits(tmp_path / "a.fits", PSFFWHMR=1.3)
    host: Host = open_hosts(path)[0]
    assert host.host_id == "a"
    assert host.path == str(path)
    assert len(host.sha256) == 64
    assert host.psf_fwhm_arcsec is not None
    np.testing.assert_array_equal(host.psf_fwhm_arcsec, [np.nan, 1.3, np.nan])
    assert host.invvar is None
    assert host.mask is None
    npz = write_npz(
        tmp_path / "b.npz", cutout=cube(), meta_psfsize_g=1.5, psf_fwhm_arcsec_r=1.4, meta_psfsize_z=1.2
    )
    assert open_hosts(npz)[0].psf_fwhm_arcsec == (1.5, 1.4, 1.2)
    assert open_hosts(write_npz(tmp_path / "c.npz", cutout=cube()))[0].psf_fwhm_arcsec is None


def test_every_form_of_a_cube_gives_the_same_pixels(tmp_path: Path) -> None:
    data = cube()
    folder = tmp_path / "hosts"
    folder.mkdir()
    write_fits(folder / "a_plain.fits", data)
    stream = io.BytesIO()
    fits.PrimaryHDU(data, header()).writeto(stream)
    (folder / "b_gzip.fits.gz").write_bytes(gzip.compress(stream.getvalue()))
    extension = fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(np.ones((5, 5))), fits.ImageHDU(data, header())]
    )
    extension.writeto(folder / "c_extension.fits")
    write_fits(folder / "d_double.fits", data.astype(np.float64))
    singles = {"BANDS": None, "BAND0": "g", "BAND1": "r", "BAND2": "z"}
    head = header(CD1_1=-0.262 / 3600, CD2_2=0.262 / 3600, CTYPE1="RA---TAN", **singles)
    del head["PIXSCALE"], head["BANDS"]
    fits.PrimaryHDU(data, head).writeto(folder / "e_wcs.fits")
    write_npz(folder / "f_byx.npz", cutout=data)
    write_npz(folder / "g_yxb.npz", cutout=np.moveaxis(data, 0, 2))
    planes = {f"image_{band}": data[i] for i, band in enumerate("grz")}
    write_npz(folder / "h_planes.npz", meta_bands_requested=None, **planes)
    wide = np.concatenate([data, data[:1] * 3])
    write_fits(folder / "i_more_bands.fits", wide, BANDS="grzi")
    hosts = open_hosts(folder)
    assert len(hosts) == 9
    for host in hosts:
        np.testing.assert_array_equal(host.pixels, data[:, 3:67, 3:67], err_msg=host.host_id)
    assert hosts.pixscale_arcsec == 0.262


def test_scaled_integers_and_lossless_compression_are_undone(tmp_path: Path) -> None:
    data = cube()
    unit = fits.PrimaryHDU(data.astype(np.float64), header())
    unit.scale("int16", bscale=1e-5, bzero=0.25)
    unit.writeto(tmp_path / "a.fits")
    assert fits.getheader(tmp_path / "a.fits")["BITPIX"] == 16
    got = open_hosts(tmp_path / "a.fits")[0].pixels
    np.testing.assert_allclose(got, data[:, 3:67, 3:67], atol=0.51e-5)
    unit.header["BLANK"] = int(np.round((float(data[1, 5, 9]) - 0.25) / 1e-5))
    unit.writeto(tmp_path / "a.fits", overwrite=True)
    assert "are NaN" in refusal(tmp_path / "a.fits")
    tiles = fits.CompImageHDU(data, header(), compression_type="GZIP_2", quantize_level=0.0)
    fits.HDUList([fits.PrimaryHDU(), tiles]).writeto(tmp_path / "b.fits.fz")
    np.testing.assert_array_equal(open_hosts(tmp_path / "b.fits.fz")[0].pixels, data[:, 3:67, 3:67])


def test_bands_come_in_the_order_asked(tmp_path: Path) -> None:
    hosts = open_hosts(write_fits(tmp_path / "a.fits"), bands="zg")
    np.testing.assert_array_equal(hosts[0].pixels, cube()[[2, 0], 3:67, 3:67])
    assert hosts.table.mag.shape == (1, 2)


def test_an_ambiguous_axis_order_is_settled_by_a_key_only(tmp_path: Path) -> None:
    square = np.zeros((3, 3, 3), dtype=np.float32)
    path = write_npz(tmp_path / "a.npz", cutout=square)
    assert "both ends have the 3 bands named: add a key 'axes'" in refusal(path)
    data = np.moveaxis(cube(side=71), 0, 2)
    path = write_npz(tmp_path / "b.npz", cutout=data, axes="yxb")
    assert open_hosts(path)[0].pixels[1, 5, 9] == data[5 + 3, 9 + 3, 1]
    assert "axes = 'zyx' is unknown" in refusal(write_npz(tmp_path / "c.npz", cutout=data, axes="zyx"))
    assert "71 planes where 3 bands" in refusal(write_npz(tmp_path / "d.npz", cutout=data, axes="byx"))
    assert "neither end has" in refusal(write_npz(tmp_path / "e.npz", cutout=np.zeros((8, 8, 8))))


def nan_pixel() -> NDArray[np.float32]:
    data = cube()
    data[1, 2, 5] = np.nan
    return data


def flat_band() -> NDArray[np.float32]:
    data = cube()
    data[2] = 0.0
    return data


@pytest.mark.parametrize(
    ("data", "cards", "words"),
    [
        (nan_pixel(), {}, "1 pixels of band r are NaN or infinite, the first at x = 5, y = 2"),
        (flat_band(), {}, "band z is 0 everywhere (no coverage)"),
        (
            cube(side=40),
            {},
            "40 x 40 pixels do not hold a stamp of 64: give larger cutouts",
        ),
        (cube(), {"BANDS": "gri"}, "holds bands 'gri' where 'grz' is asked for"),
        (cube(), {"BANDS": "gr"}, "names bands 'gr' where the cube has 3 planes"),
        (cube(), {"BANDS": "ggr"}, "holds bands 'ggr'"),
        (cube(), {"BUNIT": "adu"}, "BUNIT is 'adu': convert the pixels to nanomaggies"),
        (cube(), {"PIXSCALE": -1.0}, "pixel scale is -1"),
        (cube(), {"PSFFWHMG": 0.0}, "PSF FWHM in g is 0 arcsec"),
        (cube()[0], {}, "no FITS image with three axes"),
        (np.random.default_rng(0).normal(0, 1, (3, 71, 71)), {}, "no galaxy at its centre"),
    ],
)
def test_a_bad_cube_is_refused_by_name(
    tmp_path: Path, data: NDArray[Any], cards: dict[str, Any], words: str
) -> None:
    path = write_fits(tmp_path / "a.fits", data, **cards)
    message = refusal(path)
    assert message.startswith(f"host {path}: ")
    assert words in message


def test_headers_must_name_bands_and_scale(tmp_path: Path) -> None:
    fits.PrimaryHDU(cube(), fits.Header({"PIXSCALE": 0.262})).writeto(tmp_path / "a.fits")
    assert "does not name its bands: add BANDS" in refusal(tmp_path / "a.fits")
    fits.PrimaryHDU(cube(), fits.Header({"BANDS": "grz"})).writeto(tmp_path / "b.fits")
    assert "does not state its pixel scale" in refusal(tmp_path / "b.fits")
    assert open_hosts(tmp_path / "b.fits", pixscale_arcsec=0.2).pixscale_arcsec == 0.2
    write_fits(tmp_path / "c.fits")
    assert "0.262 arcsec where the pixscale_arcsec given has 0.2" in refusal(
        tmp_path / "c.fits", pixscale_arcsec=0.2
    )


@pytest.mark.parametrize("keep", [10, 700, 2880, 3000, 40_000])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, keep: int) -> None:
    path = write_fits(tmp_path / "a.fits")
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    message = refusal(path)
    assert message.startswith(f"host {path}: ")
    assert ("header promises" if keep >= 2880 else "truncated in its header") in message
    packed = tmp_path / "b.fits.gz"
    packed.write_bytes(gzip.compress(content)[:keep])
    assert refusal(packed).startswith(f"host {packed}: damaged, truncated")


@pytest.mark.parametrize("keep", [1, 100, 20_000])
def test_a_truncated_npz_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_npz(tmp_path / "a.npz", cutout=cube())
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(path)
    assert message.startswith(f"host {path}: ")
    assert "truncated" in message or "not an npz" in message


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"cutout": cube(), "meta_bands_requested": None}, "does not name its bands: add a key 'bands'"),
        ({"cutout": cube(), "meta_bands_requested": "gri"}, "holds bands 'gri' where 'grz'"),
        ({"cutout": cube()[0]}, "give three axes"),
        ({"image_g": cube()[0], "image_r": cube()[1]}, "neither a key 'cutout' nor image_<band>"),
        ({"image_g": cube()[0], "image_r": cube()[1], "image_z": cube()[2, 1:]}, "not 2-D of one shape"),
        ({"cutout": cube().astype(str)}, "of type <U"),
        ({"cutout": np.array([{}, {}], dtype=object)}, "numbers or text, nothing pickled"),
        ({"cutout": cube(), "meta_pixel_scale": None}, "does not state its pixel scale"),
    ],
)
def test_a_bad_npz_is_refused_by_name(tmp_path: Path, entries: dict[str, Any], words: str) -> None:
    path = write_npz(tmp_path / "a.npz", **entries)
    message = refusal(path)
    assert message.startswith(f"host {path}: ")
    assert words in message


def test_folders_without_hosts_and_odd_paths(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(empty).startswith(f"hosts {empty}: the folder holds no .fits")
    (empty / "notes.txt").write_text("x")
    assert "unknown kind of file" in refusal(empty / "notes.txt")
    write_fits(empty / "a.fits")
    write_npz(empty / "a.npz", cutout=cube())
    assert "the same host_id as a.fits" in refusal(empty)


def test_one_bad_file_among_good_ones_is_fatal_or_listed(tmp_path: Path) -> None:
    for name in "abd":
        write_fits(tmp_path / f"{name}.fits")
    bad = write_fits(tmp_path / "c.fits", nan_pixel())
    (tmp_path / "README").write_text("x")
    assert refusal(tmp_path).startswith(f"host {bad}: ")
    hosts = open_hosts(tmp_path, skip_bad=True)
    assert [host.host_id for host in hosts] == ["a", "b", "d"]
    reasons = {refusal.path: refusal.message for refusal in hosts.refused}
    assert hosts.refused_by_reason == {"NaN": 1, "not a cutout": 1}
    assert set(reasons) == {str(bad), str(tmp_path / "README")}
    assert reasons[str(bad)].startswith("1 pixels of band r are NaN")
    for name in "abd":
        (tmp_path / f"{name}.fits").unlink()
    assert "none of its 1 files is usable" in refusal(tmp_path, skip_bad=True)


def test_hosts_of_different_scales_do_not_mix(tmp_path: Path) -> None:
    write_fits(tmp_path / "a.fits")
    write_fits(tmp_path / "b.fits", PIXSCALE=0.263)
    message = refusal(tmp_path)
    assert "b.fits" in message
    assert "0.263 arcsec where a.fits has 0.262" in message


def test_checking_reads_each_file_once_and_reports_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        write_fits(tmp_path / f"{i}.fits", cube(i))
    reads: list[str] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self.name) or original(self))
    seen: list[tuple[int, int]] = []
    hosts = open_hosts(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert reads == [f"{i}.fits" for i in range(5)]
    assert seen == [(i, 5) for i in range(1, 6)]
    hosts._cached_hosts = 2
    for i in (0, 0, 1, 0, 2, 0, 1):
        np.testing.assert_array_equal(hosts[i].pixels, cube(i)[:, 3:67, 3:67])
    # least recently used of two kept: 0 and 1 are read, 2 pushes 1 out, 1 is read again
    assert reads[5:] == ["0.fits", "1.fits", "2.fits", "1.fits"]
    assert len(hosts._cache) == 2


def test_many_hosts_at_once_repeat_and_reorder(tmp_path: Path) -> None:
    for i in range(40):
        write_fits(tmp_path / f"{i:02d}.fits", cube(i))
    hosts = open_hosts(tmp_path)
    numbers = np.array([39, 3, 3, 0, 39, 12])
    got = hosts.pixels(numbers)
    for k, number in enumerate(numbers):
        np.testing.assert_array_equal(got[k], cube(int(number))[:, 3:67, 3:67])
    assert [host.host_id for host in hosts] == [f"{i:02d}" for i in range(40)]
    assert hosts[-1].host_id == "39"
    for bad in ([40], [-1]):
        with pytest.raises(IndexError):
            hosts.pixels(bad)
    with pytest.raises(IndexError):
        hosts[40]
    with pytest.raises(ValueError, match="read-only"):
        hosts[0].pixels[:] = 0


def test_threads_read_the_same(tmp_path: Path) -> None:
    for i in range(12):
        write_fits(tmp_path / f"{i:02d}.fits", cube(i))
    hosts = open_hosts(tmp_path)
    hosts._cached_hosts = 3
    numbers = np.random.default_rng(0).integers(12, size=200)
    with ThreadPoolExecutor(4) as pool:
        pixels = list(pool.map(lambda i: hosts[int(i)].pixels, numbers))
    for number, got in zip(numbers, pixels, strict=True):
        np.testing.assert_array_equal(got, cube(int(number))[:, 3:67, 3:67])


def test_a_file_that_changed_or_vanished_since_its_check_is_refused(tmp_path: Path) -> None:
    path = write_fits(tmp_path / "a.fits")
    hosts = open_hosts(path)
    path.unlink()
    with pytest.raises(HostError, match="cannot be read any more"):
        hosts.pixels([0])
    write_fits(path, cube(1))
    with pytest.raises(HostError, match="changed since it was checked"):
        hosts.pixels([0])
