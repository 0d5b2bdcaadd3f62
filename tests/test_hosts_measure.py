"""Sky, centroid and magnitudes against images whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from arcforge.engine.errors import HostError
from arcforge.engine.host_measure import centroid, clipped_sky, measure


def moffat(side: int, x: float, y: float, fwhm_pix: float = 5.0) -> NDArray[np.float64]:
    rows, columns = np.mgrid[:side, :side]
    core2 = (fwhm_pix / 2) ** 2 / (2 ** (1 / 3.5) - 1)
    return (1 + ((columns - x) ** 2 + (rows - y) ** 2) / core2) ** -3.5


@pytest.mark.parametrize("fwhm_pix", [2.5, 5.0, 12.0])
@pytest.mark.parametrize("side", [63, 64])
def test_centroids_are_exact_without_noise(side: int, fwhm_pix: float) -> None:
    rng = np.random.default_rng(side)
    for dx, dy in rng.uniform(-2.0, 2.0, (20, 2)):
        x, y = centroid(moffat(side, side // 2 + dx, side // 2 + dy, fwhm_pix), 0.0)
        assert abs(x - side // 2 - dx) < 5e-3
        assert abs(y - side // 2 - dy) < 5e-3


def test_the_centroid_of_a_single_pixel_converges() -> None:
    image = np.zeros((64, 64))
    image[31, 34] = 1.0
    x, y = centroid(image, 0.0)
    assert abs(x - 34) < 1e-3
    assert abs(y - 31) < 1e-3


def test_a_brighter_neighbour_does_not_take_the_centroid() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle = rng.uniform(0, 2 * np.pi)
        image = moffat(64, 32.2, 31.7) + 3 * moffat(64, 32.2 + 12 * np.cos(angle), 31.7 + 12 * np.sin(angle))
        x, y = centroid(image, 0.0)
        assert np.hypot(x - 32.2, y - 31.7) < 0.35
        rows, columns = np.mgrid[:64, :64]
        assert (
            np.hypot((image * columns).sum() / image.sum() - 32.2, (image * rows).sum() / image.sum() - 31.7)
            > 4
        )


def test_noise_moves_a_centroid_by_no_more_than_it_must() -> None:
    rng = np.random.default_rng(1)
    sigma = 0.02  # peak over sigma of 50
    errors = []
    for _ in range(100):
        dx, dy = rng.uniform(-0.5, 0.5, 2)
        x, y = centroid(moffat(64, 32 + dx, 32 + dy) + rng.normal(0, sigma, (64, 64)), sigma)
        errors += [x - 32 - dx, y - 32 - dy]
    assert np.std(errors) < 0.05
    assert abs(np.mean(errors)) < 0.01


@pytest.mark.parametrize(("x", "y"), [(41.0, 32.0), (32.0, 26.0)])
def test_a_galaxy_off_the_centre_is_refused(x: float, y: float) -> None:
    rng = np.random.default_rng(2)
    image = 0.2 * moffat(64, x, y, 3.0) + rng.normal(0, 0.02, (64, 64))
    with pytest.raises(HostError, match="galaxy"):
        centroid(image, 0.02)


def test_noise_alone_is_no_galaxy() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        with pytest.raises(HostError, match="no galaxy at its centre"):
            centroid(rng.normal(0, 1, (64, 64)), 1.0)


def test_a_slope_without_a_galaxy_is_refused() -> None:
    columns = np.arange(64.0) * np.ones((64, 1))
    with pytest.raises(HostError, match="no distinct galaxy"):
        centroid(np.exp(0.3 * (columns - 32.0)), 1e-6)


def test_sky_is_that_of_the_noise_and_not_of_the_galaxy() -> None:
    rng = np.random.default_rng(3)
    plane = (0.01 + rng.normal(0, 0.002, (91, 91)) + moffat(91, 45, 45, 8.0)).astype(np.float32)
    level, sigma = clipped_sky(plane)
    assert abs(level - 0.01) < 5e-4
    assert abs(sigma / 0.002 - 1) < 0.1
    assert clipped_sky(np.full((64, 64), 0.5, dtype=np.float32)) == (0.5, 0.0)


def test_magnitudes_are_aperture_sums_above_the_sky() -> None:
    rng = np.random.default_rng(4)
    # FWHM 3 px: all but 1e-3 of the light is within 2.5 arcsec = 9.5 px
    shape = moffat(91, 45.3, 44.8, 3.0)
    shape /= shape.sum()
    fluxes = np.array([1.0, 10.0, 40.0])
    pixels = fluxes[:, None, None] * shape + 0.01 + rng.normal(0, 2e-4, (3, 91, 91))
    result = measure(pixels.astype(np.float32), 0.262)
    np.testing.assert_allclose(result.mag, 22.5 - 2.5 * np.log10(fluxes), atol=0.02)
    assert abs(result.x_pix - 45.3) < 0.02
    assert abs(result.y_pix - 44.8) < 0.02


def test_a_band_without_light_has_no_magnitude() -> None:
    rng = np.random.default_rng(5)
    pixels = rng.normal(0, 0.002, (2, 64, 64))
    pixels[1] += moffat(64, 32, 32)
    pixels[0] -= 0.1 * moffat(64, 32, 32)
    result = measure(pixels.astype(np.float32), 0.262)
    assert np.isnan(result.mag[0])
    assert np.isfinite(result.mag[1])
