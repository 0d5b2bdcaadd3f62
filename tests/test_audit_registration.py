"""Shifts of control against stamp, and noise that one of them has alone, against other computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from arcforge.engine.auditing.added_noise import added_noise
from arcforge.engine.auditing.registration import (
    SHIFT_OPERATORS,
    inner_pixels,
    move,
    register,
    share_of_sky,
)
from arcforge.engine.auditing.resampling import HostBootstrap
from arcforge.engine.auditing.sky import pairing_correlation


@pytest.mark.parametrize(
    ("operator", "order"), [("linear", 1), ("quadratic", 2), ("cubic", 3), ("quartic", 4), ("quintic", 5)]
)
def test_moving_is_spline_interpolation(operator, order):
    image = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
    # more than two pixels: taps of a linear spline then lie off the centre
    moved = move(image[None, None], np.array([0.3, -2.4]), operator)[0, 0]
    expected = ndimage.shift(image, (0.3, -2.4), order=order, mode="mirror")
    np.testing.assert_allclose(moved[16:-16, 16:-16], expected[16:-16, 16:-16], atol=1e-4)


@pytest.mark.parametrize("order", [1, 3])
def test_registration_finds_the_shift_its_operator_and_its_direction(order):
    rng = np.random.default_rng(3)
    sky = ndimage.gaussian_filter(rng.normal(size=(8, 3, 64, 64)), (0, 0, 0.6, 0.6)).astype(np.float32)
    moved = ndimage.shift(sky, (0, 0, 0.2, -0.3), order=order, mode="mirror").astype(np.float32)
    free = np.ones(sky.shape, dtype=bool)
    bootstrap = HostBootstrap(np.arange(8), 50, rng)
    for stamps, controls, sign, what in ((sky, moved, 1, "control"), (moved, sky, -1, "stamp")):
        found = register(stamps, controls, free, bootstrap, 0.02)
        assert found.x.value == pytest.approx(-0.3 * sign, abs=1e-3)
        assert found.y.value == pytest.approx(0.2 * sign, abs=1e-3)
        assert found.explained > 0.99
        assert what in found.operator
    still = register(sky, sky, free, bootstrap, 0.02)
    assert abs(still.x.value) < 1e-6
    assert still.explained == 0
    assert still.own is None


def test_moving_by_waves_is_what_a_real_image_keeps_of_it():
    image = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
    expected = np.fft.ifftn(ndimage.fourier_shift(np.fft.fftn(image), (0.3, 0.4))).real
    found = move(image[None, None], np.array([0.3, 0.4]), "fourier")[0, 0]
    # the one wave that alternates along both axes has no common convention
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_whole_pixels_are_moved_by_every_operator():
    image = np.random.default_rng(2).normal(size=(1, 1, 64, 64)).astype(np.float32)
    for operator in SHIFT_OPERATORS:
        found = move(image, np.array([3.0, -2.0]), operator)
        np.testing.assert_allclose(found, np.roll(image, (3, -2), (2, 3)), atol=1e-5)


def test_noise_of_the_stamp_does_not_lengthen_a_shift():
    rng = np.random.default_rng(3)
    y, x = np.indices((48, 48)) - 23.5
    galaxy = 30 * np.exp(-0.5 * np.hypot(x, y) / 3)
    hosts = galaxy + ndimage.gaussian_filter(rng.normal(size=(20, 2, 48, 48)), (0, 0, 0.5, 0.5)) / 0.4
    controls = ndimage.shift(hosts, (0, 0, 0.15, 0.2), order=3, mode="mirror").astype(np.float32)
    stamps = (hosts + rng.normal(0, 0.5, hosts.shape)).astype(np.float32)
    bootstrap = HostBootstrap(np.arange(20), 50, rng)
    found = register(stamps, controls, np.ones(hosts.shape, dtype=bool), bootstrap, 0.02)
    assert found.own is None
    assert found.length_pix == pytest.approx(0.25, abs=0.01)
    # linear interpolation would damp the noise, and leaves less of it
    assert found.operator == "cubic interpolation of the control"


def test_light_beside_its_place_on_identical_sky_is_no_shift():
    """As of arcs that are turned: the record leaves them out, and most pixels are the same to the bit."""
    rng = np.random.default_rng(3)
    y, x = np.indices((48, 48)) - 23.5
    galaxy = 30 * np.exp(-0.5 * np.hypot(x, y) / 3)
    sky = (galaxy + rng.normal(size=(20, 2, 48, 48))).astype(np.float32)
    arcs = np.where(np.hypot(x - 6, y) < 7, 40 * np.exp(-0.5 * np.hypot(x - 4, y)), 0.0).astype(np.float32)
    found = register(
        sky + arcs, sky, np.ones(sky.shape, dtype=bool), HostBootstrap(np.arange(20), 50, rng), 0.02
    )
    assert found.length_pix > 0.02  # the light asks for one
    assert found.explained == 0.0
    np.testing.assert_array_equal(found.difference[:, :, 3:-3, 40:-3], 0.0)


def test_shifts_of_each_row_are_found_and_moved_back():
    rng = np.random.default_rng(3)
    sky = ndimage.gaussian_filter(rng.normal(size=(10, 2, 48, 48)), (0, 0, 0.6, 0.6)).astype(np.float32)
    shifts = rng.normal(0, 0.2, (10, 2))
    moved = [[ndimage.shift(b, s, mode="mirror") for b in i] for i, s in zip(sky, shifts, strict=True)]
    bootstrap = HostBootstrap(np.arange(10), 50, rng)
    controls = np.array(moved, dtype=np.float32)
    found = register(sky, controls, np.ones(sky.shape, dtype=bool), bootstrap, 0.02)
    assert found.own.value == pytest.approx(np.median(np.hypot(*shifts.T)), abs=2e-3)
    assert found.explained > 0.99
    assert np.abs(found.difference[..., 12:-12, 12:-12]).max() < 1e-3


def test_white_noise_is_measured_under_smooth_light():
    rng = np.random.default_rng(4)
    y, x = np.indices((64, 64)) - 31.5
    smooth = np.exp(-(x**2 + y**2) / 200).astype(np.float32)
    noise = rng.normal(scale=0.01, size=(3, 2, 64, 64)).astype(np.float32)
    free = np.ones(noise.shape, dtype=bool)
    found = added_noise(smooth + noise, free)
    np.testing.assert_allclose(found.sigma, 0.01, rtol=0.06)
    assert found.blur_pix == 0
    assert added_noise(np.broadcast_to(smooth, noise.shape).copy(), free).sigma.max() < 1e-4


@pytest.mark.parametrize("blur_pix", [0.5, 1.0, 2.0])
def test_blurred_noise_is_measured_with_its_blur(blur_pix):
    white = np.random.default_rng(4).normal(size=(6, 3, 64, 64))
    noise = ndimage.gaussian_filter(white, (0, 0, blur_pix, blur_pix), mode="wrap")
    noise = (noise / noise.std()).astype(np.float32)
    y, x = np.indices((64, 64)) - 31.5
    free = np.broadcast_to(np.hypot(x, y) > 14, noise.shape)
    found = added_noise(noise, free)
    assert np.median(found.sigma) == pytest.approx(1, abs=0.05)
    assert found.blur_pix == pytest.approx(blur_pix, rel=0.2)
    # the same in every band is light, of which differences of neighbouring pixels see next to nothing
    light = added_noise(np.repeat(noise[:, :1], 3, axis=1), free)
    assert light.blur_pix == 0
    assert np.median(light.sigma) < 0.8 * np.median(found.sigma)


def test_what_a_wrong_interpolation_leaves_is_the_skys_and_noise_is_not():
    rng = np.random.default_rng(6)
    sky = rng.normal(size=(4, 2, 48, 48)).astype(np.float32)
    shift = np.array([0.2, -0.3])
    left = move(sky, shift, "linear") - move(sky, shift, "cubic")
    where = np.broadcast_to(inner_pixels((48, 48)), sky.shape)
    assert share_of_sky(left, sky, where) > 0.95
    assert abs(share_of_sky(rng.normal(size=sky.shape).astype(np.float32), sky, where)) < 0.02


def test_pairing_correlation_tells_a_twin_from_a_stranger():
    rng = np.random.default_rng(5)
    sky = rng.normal(size=(2, 3, 64, 64)).astype(np.float32)
    free = np.ones(sky.shape, dtype=bool)
    np.testing.assert_allclose(pairing_correlation(sky, sky, free), 1, atol=1e-6)
    assert np.abs(pairing_correlation(sky, rng.normal(size=sky.shape).astype(np.float32), free)).max() < 0.05
