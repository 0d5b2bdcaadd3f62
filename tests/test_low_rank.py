"""PSF images as separable terms: the split, the passes against NumPy, stamps against the transforms'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arcforge.bench import psf_paths
from arcforge.bench.psf_paths import SHAPES, Shape, rows_through
from arcforge.engine.catalog import render_columns
from arcforge.engine.low_rank import LOST_NORM
from arcforge.engine.psf_images import PsfImages
from arcforge.engine.render import render_rows
from arcforge.engine.stamps import Options, make_batch
from arcforge.engine.variants import variant_named
from arcforge.kernels.low_rank import convolve_low_rank

# Largest difference of two ways to apply one PSF, over the peak: 3e-5 were measured, rtol is 1e-3.
WAYS_DIFFER = 1e-4

SMOOTH = Shape("elliptical, off its pixel", 31, 5.2, 60.0, 0.1, 0.3)


def _kernel(pixels: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The PSF times the response on both axes, middle in the middle."""
    size, half = response.size, pixels.shape[0] // 2
    field = np.zeros((size, size))
    place = np.arange(-half, half + 1) % size
    field[np.ix_(place, place)] = pixels
    transform = np.fft.fft2(field) * response[:, None] * response[None, :]
    return np.fft.fftshift(np.fft.ifft2(transform).real)


def _response(size: int) -> np.ndarray:
    return 1.0 + 0.2 * np.cos(2.0 * np.pi * np.fft.fftfreq(size))


@pytest.mark.parametrize("size", [64, 81])
@pytest.mark.parametrize("lost", [1e-4, 1e-6])
def test_terms_add_up_to_the_psf(size, lost):
    pixels = np.concatenate([SMOOTH.image(1), SHAPES[0].image(1)], axis=1)[0]
    images, response = PsfImages(pixels[None], 2), _response(size)
    terms = images.terms(0, response, lost)
    assert terms is not None
    assert terms.ranks[1] < terms.ranks[0] <= 7
    assert images.terms(0, response, lost) is terms
    for band in range(2):
        kernel, radius = _kernel(pixels[band] / pixels[band].sum(), response), int(terms.radii[band])
        middle, taps = size // 2, 2 * radius + 1
        rank = terms.ranks[band]
        up, across = (x[band, :rank, :taps].astype(float) for x in (terms.up, terms.across))
        box = slice(middle - radius, middle + radius + 1)
        kernel[box, box] -= (up.T @ across)[::-1, ::-1]
        assert np.sqrt((kernel**2).sum()) < 1.5 * lost


def test_noise_and_wide_psfs_are_left_to_the_transforms():
    rng, response = np.random.default_rng(5), _response(128)
    noisy = SHAPES[0].image(1) + 1e-5 * rng.normal(size=(31, 31))
    wide = Shape("wide", 101, 20.0, 3.5, 0.0, 0.0).image(1)
    for pixels in (noisy, wide):
        assert PsfImages(pixels / pixels.sum(), 1).terms(0, response, LOST_NORM) is None


@pytest.mark.parametrize(
    ("size", "nodes", "stamp", "lit"),
    [
        (48, 1, 32, (5, 41, 3, 46)),  # more than a line of 32
        (80, 1, 37, (9, 70, 5, 71)),  # a stamp that is no number of eights
        (48, 1, 32, (5, 41, 20, 33)),  # some eights
        (48, 1, 32, (9, 12, 30, 33)),  # fewer than eight nodes
        (48, 1, 32, (40, 44, 1, 5)),  # at the grid's edge, mostly outside the stamp
        (48, 1, 5, (2, 46, 2, 46)),  # a stamp narrower than a line of eight
        (72, 2, 32, (10, 70, 6, 71)),
    ],
)
def test_passes_are_the_sum_over_all_nodes(size, nodes, stamp, lit):
    rng = np.random.default_rng(size + stamp)
    grid = np.zeros((size, size), dtype=np.float32)
    box = np.s_[lit[0] : lit[1], lit[2] : lit[3]]
    grid[box] = rng.exponential(1.0, grid[box].shape)
    first = (size - stamp * nodes) // 2
    ranks, radii, scales = np.array([3, 1]), np.array([9, 13]), np.array([2.0, 0.3])
    up, across = rng.normal(size=(2, 2, 3, 27)).astype(np.float32)
    out = np.full((2, stamp, stamp), np.nan, dtype=np.float32)
    lines = [np.full(n, np.nan, dtype=np.float32) for n in (size + stamp * nodes + 43, stamp * nodes + 8)]
    total = convolve_low_rank(
        grid, np.array(lit), first, nodes, ranks, radii, up, across, scales, *lines, out
    )
    assert total == pytest.approx(grid.sum(dtype=float), rel=1e-6)
    place = np.arange(size)[None, :] - first - nodes * np.arange(stamp)[:, None]
    for band in range(2):
        expected = np.zeros((stamp, stamp))
        for term in range(ranks[band]):
            within = np.abs(place) <= radii[band]
            tap = np.clip(place + radii[band], 0, 26)
            below, beside = (np.where(within, w[band, term, tap], 0.0) for w in (up, across))
            expected += scales[band] * below @ grid @ beside.T
        assert np.abs(out[band] - expected).max() < 3e-6 * np.abs(expected).max()


def _images() -> PsfImages:
    """Two PSFs of two bands: an elliptical one off its pixel, and a Moffat."""
    return PsfImages(dict(enumerate([_padded(SMOOTH), Shape("", 51, 4.9, 4.7, 0.0, 0.0).image(2)[0]])), 2)


def _padded(shape: Shape) -> np.ndarray:
    return np.pad(shape.image(2)[0], ((0, 0), (10, 10), (10, 10)))


def _rows(n: int) -> Any:
    columns = rows_through(n, 40, 2)
    columns.psf_id[:] = np.arange(n) % 2
    return columns


@pytest.mark.compiled
@pytest.mark.parametrize("pixel_response", ["in_psf", "box"])
def test_stamps_are_those_of_the_transforms(pixel_response):
    columns, images, n = _rows(30), _images(), 30
    found, lensed = {}, {}
    for variant in ("auto", "low_rank"):
        lensed[variant] = np.empty(n)
        found[variant] = render_rows(
            columns, stamp_size=40, variant=variant, psf_images=images, pixel_response=pixel_response,
            magnification=lensed[variant],
        )  # fmt: skip
    differs = np.abs(found["low_rank"] - found["auto"]) / found["auto"].max(axis=(2, 3), keepdims=True)
    assert differs.max() < WAYS_DIFFER
    assert (differs.max(axis=(1, 2, 3)) > 0.0).all()  # both ways were taken
    assert lensed["low_rank"] == pytest.approx(lensed["auto"], rel=2e-6)


@pytest.mark.compiled
def test_a_row_has_the_same_bits_in_every_batch_order_and_thread():
    columns, images = _rows(24), _images()
    options: dict[str, Any] = {"stamp_size": 40, "variant": "low_rank", "psf_images": images}
    whole = render_rows(columns, threads=1, **options)
    assert np.array_equal(whole, render_rows(columns, threads=2, **options))
    turned = np.arange(24)[::-1].copy()
    assert np.array_equal(whole[turned], render_rows(columns.take(turned), **options))
    alone = render_rows(columns.take(np.array([7])), stamp_size=40, variant="low_rank", psf_images=_images())
    assert np.array_equal(whole[7:8], alone)


@pytest.mark.compiled
def test_a_moffat_is_the_same_by_every_path():
    """By its closed transform, as an image through transforms, as terms; and by the arbiter."""
    shape = Shape("", 81, 4.9, 4.7, 0.0, 0.0)
    columns = rows_through(1, 40, 1)
    images = PsfImages(shape.image(1), 1)
    ways = [
        render_rows(columns, stamp_size=40, variant=variant, psf_images=images)
        for variant in ("reference", "auto", "low_rank")
    ]
    ways.append(render_rows(_as_moffat(1, shape), stamp_size=40))
    peak = ways[0].max(axis=(2, 3), keepdims=True)
    for way in ways[1:]:
        assert (np.abs(way - ways[0]) / peak).max() < 1e-3


def _as_moffat(n: int, shape: Shape) -> Any:
    from arcforge.bench.cases import PIXSCALE_ARCSEC, draw_rows, source_named

    rows = draw_rows(source_named("exponential"), n, 40)
    rows |= {"psf_model": np.full(n, "moffat"), "moffat_beta": np.full(n, shape.beta)}
    rows["psf_fwhm_arcsec_r"] = np.full(n, shape.fwhm_pix * PIXSCALE_ARCSEC)
    return render_columns(rows, "r")


def test_terms_are_for_their_own_variant_and_for_psfs_that_split():
    columns = rows_through(20, 64, 1)
    noisy = SHAPES[0].image(1) + 1e-5 * np.random.default_rng(5).normal(size=(31, 31))

    def split(image: np.ndarray, variant: str) -> int:
        options = Options(64, 0.262, 1e-3, variant_named(variant), False)
        return len(make_batch(columns, options, PsfImages(image / image.sum(), 1)).terms)

    assert split(SHAPES[0].image(1), "low_rank") == 20
    assert split(noisy, "low_rank") == 0
    assert split(SHAPES[0].image(1), "auto") == 0


@pytest.mark.compiled
def test_report_compares_both_paths(capsys, monkeypatch):
    monkeypatch.setattr(psf_paths, "SHAPES", SHAPES[:1])
    assert psf_paths.main(["--rows", "3", "--repeats", "1", "--stamps", "32"]) == 0
    assert capsys.readouterr().out.count("Gaussian") == 2
