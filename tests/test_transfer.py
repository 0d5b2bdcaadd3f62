"""PSFs as transfer functions: against their formulae at every frequency, and the tables of a Moffat."""

from __future__ import annotations

import mpmath
import numba
import numpy as np
import pytest
from scipy import integrate

from arcforge.engine.psf import (
    MOFFAT_NODES_PER_UNIT,
    MOFFAT_Z_END,
    gaussian_sigma,
    moffat_alpha,
    moffat_table,
    reach,
)
from arcforge.kernels.codes import PSF_GAUSSIAN, PSF_MOFFAT, PSF_NONE
from arcforge.kernels.transfer import apply_even, apply_images, frequency

SIZES = [8, 9, 12]  # even, odd, and one whose half is even


@numba.njit
def _frequency(j, size, nodes):
    return frequency(j, size, nodes)


def _scene(size: int, real: type, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a spectrum as an FFT gives it, a response that is not symmetric in kind, and frequencies."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
    k = np.fft.fftfreq(size)
    response = (1.0 + 0.3 * np.cos(2.0 * np.pi * k)).astype(real)
    return spectrum.astype(np.complex64 if real is np.float32 else np.complex128), response, k


def _unset(spectrum: np.ndarray, n_bands: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a band's output each, and the scratch: a quarter and a line."""
    half, real = spectrum.shape[1], spectrum.real.dtype
    out = np.full((n_bands, *spectrum.shape), np.nan, spectrum.dtype)
    return out, np.full((half, half), np.nan, real), np.full(2 * half, np.nan, real)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_frequencies_are_those_of_the_fft(size: int, nodes: int) -> None:
    found = [_frequency(j, size, nodes) for j in range(size)]
    expected = np.fft.fftfreq(size, d=1.0 / nodes)
    if size % 2 == 0:
        expected[size // 2] *= -1.0  # the one bin whose sign is a matter of taste
    assert found == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_gaussian_is_multiplied_in_at_every_frequency(size: int, real: type) -> None:
    spectrum, response, k = _scene(size, real)
    sigmas, nodes, scales = np.array([0.7, 1.1]), 2, np.array([1.5, 0.2])
    out, quarter, line = _unset(spectrum, 2)
    apply_even(
        spectrum.view(real), True, sigmas, np.zeros(2, real), 1, response, nodes, scales, quarter, line,
        out.view(real),
    )  # fmt: skip
    k2 = k[:, None] ** 2 + k[None, : size // 2 + 1] ** 2
    transform = np.exp(-2.0 * (np.pi * sigmas[:, None, None] * nodes) ** 2 * k2)
    expected = spectrum * scales[:, None, None] * transform
    expected = expected * response[:, None] * response[None, : size // 2 + 1]
    limit = 3e-6 if real is np.float32 else 1e-14
    assert np.abs(out - expected).max() < limit * np.abs(spectrum).max()
    assert out.dtype == spectrum.dtype


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_radial_transform_is_multiplied_in_at_every_frequency(size: int, real: type) -> None:
    spectrum, response, k = _scene(size, real)
    radii, nodes, scales, per_unit = np.array([1.3, 2.1]), 2, np.array([0.5, 3.0]), 64
    # any function of z will do
    table = np.exp(-0.5 * (np.arange(40 * per_unit) / per_unit) ** 2).astype(real)
    out, quarter, line = _unset(spectrum, 2)
    apply_even(
        spectrum.view(real), False, radii, table, per_unit, response, nodes, scales, quarter, line,
        out.view(real),
    )  # fmt: skip
    half = np.abs(np.fft.fftfreq(size)[: size // 2 + 1])
    z = 2.0 * np.pi * radii[:, None, None] * nodes * np.hypot(k[:, None], half[None, :])
    expected = spectrum * scales[:, None, None] * np.exp(-0.5 * z**2)
    expected = expected * response[:, None] * response[None, : size // 2 + 1]
    # 1 / (8 * 64^2), the interpolation
    assert np.abs(out - expected).max() < 4e-5 * scales.max() * np.abs(spectrum).max()


def test_radial_transform_ends_with_its_table() -> None:
    spectrum, _, _ = _scene(8, np.float64)
    (out,), quarter, line = _unset(spectrum, 1)
    table = np.linspace(1.0, 0.0, 11)  # reaches z = 1; the grid's highest z is far beyond
    apply_even(
        spectrum.view(float), False, np.array([50.0]), table, 10.0, np.ones(8), 1.0, np.ones(1), quarter,
        line, out[None].view(float),
    )  # fmt: skip
    assert out[0, 0] == spectrum[0, 0]
    out[0, 0] = 0.0
    assert not out.any()


def test_images_transforms_are_multiplied_in() -> None:
    spectrum, response, _ = _scene(9, np.float64)
    transforms = np.fft.rfft2(np.random.default_rng(1).normal(size=(2, 9, 9)))
    out, scales = np.empty_like(transforms), np.array([2.0, 0.7])
    apply_images(spectrum.view(float), transforms.view(float), response, scales, out.view(float))
    expected = scales[:, None, None] * spectrum * transforms * response[:, None] * response[None, :5]
    assert np.abs(out - expected).max() < 1e-12


def test_images_leave_out_what_their_pixels_cannot_hold() -> None:
    """Through a PSF image, a grid of three nodes a pixel gives what its first frequencies give."""
    rng = np.random.default_rng(2)
    size, period = 24, 8
    grid, psf, response = rng.normal(size=(size, size)), rng.normal(size=(1, period, period)), np.ones(size)
    spectrum, transforms = np.fft.rfft2(grid), np.fft.rfft2(psf)
    transforms[:, period // 2] = transforms[:, :, period // 2] = 0.0
    out = np.empty_like(transforms)
    apply_images(spectrum.view(float), transforms.view(float), response, np.ones(1), out.view(float))
    k = np.fft.fftfreq(size, 1.0 / size).astype(int)
    low = np.abs(k) < period // 2
    whole = np.fft.fft2(grid) * low[:, None] * low[None, :]
    whole *= np.fft.fft2(psf[0])[np.ix_(k % period, k % period)]
    expected = np.fft.ifft2(whole).real[:: size // period, :: size // period] * size**2
    np.testing.assert_allclose(np.fft.irfft2(out[0]) * period**2, expected, atol=1e-9)


# -- widths and tables --


def test_widths_are_full_widths_at_half_maximum() -> None:
    fwhm = np.array([1.3, 4.0])
    assert np.exp(-0.5 * (fwhm / 2.0 / gaussian_sigma(fwhm)) ** 2) == pytest.approx(0.5)
    for beta in (1.5, 2.5, 4.765):
        half = (1.0 + (fwhm / 2.0 / moffat_alpha(fwhm, np.array([beta, beta]))) ** 2) ** -beta
        assert half == pytest.approx(0.5)


@pytest.mark.parametrize("beta", [1.5, 2.0, 2.5, 3.5, 4.765])
def test_moffat_table_is_the_hankel_transform(beta: float) -> None:
    """Against the definition: 2 pi int I(r) J0(k r) r dr for a unit-flux profile with alpha = 1."""
    table = moffat_table(beta)
    assert table[0] == 1.0
    assert table.size == MOFFAT_Z_END * MOFFAT_NODES_PER_UNIT + 1
    with mpmath.workdps(30):
        for z in (0.25, 1.0, 3.0, 10.0):
            exact = (
                mpmath.mpf(2) ** (2 - beta) / mpmath.gamma(beta - 1) * mpmath.mpf(z) ** (beta - 1)
                * mpmath.besselk(beta - 1, z)
            )  # fmt: skip
            assert table[int(z * MOFFAT_NODES_PER_UNIT)] == pytest.approx(float(exact), rel=1e-11)
    if beta > 2.0:  # by quadrature along one axis: the profile's projection is a power law too

        def projected(x: float) -> float:
            return float((1.0 + x * x) ** (0.5 - beta))

        norm = 2.0 * integrate.quad(projected, 0.0, np.inf)[0]
        for z in (0.5, 2.0):
            found = 2.0 * integrate.quad(projected, 0.0, np.inf, weight="cos", wvar=z)[0] / norm
            assert table[int(z * MOFFAT_NODES_PER_UNIT)] == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize(
    ("beta", "error", "end"), [(2.0, 1.1e-5, 1e-12), (3.5, 1e-6, 1e-12), (20.0, 1e-6, 2e-6)]
)
def test_moffat_table_is_fine_and_long_enough(beta: float, error: float, end: float) -> None:
    table = moffat_table(beta)
    between = 0.5 * (table[:-2:2] + table[2::2])  # on a grid twice as coarse: four times the error
    assert np.abs(between - table[1:-1:2]).max() < 4.0 * error
    assert abs(table[-1]) < end


def test_moffat_table_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        moffat_table(3.5)[0] = 2.0


@pytest.mark.parametrize("level", [1e-3, 1e-8])
def test_reach_is_where_the_psf_has_fallen_to_the_level(level: float) -> None:
    model = np.array([PSF_GAUSSIAN, PSF_MOFFAT, PSF_NONE], dtype=np.int8)
    fwhm, beta = np.array([3.0, 3.0, 0.0]), np.full(3, 2.5)
    for distance in (0.0, 5.0):
        radius = reach(model, fwhm, beta, level, distance)
        gaussian = np.exp(-0.5 * (radius[0] ** 2 - distance**2) / gaussian_sigma(fwhm[0]) ** 2)
        assert gaussian == pytest.approx(level, rel=1e-9)
        alpha = moffat_alpha(fwhm[1], beta[1])
        moffat = ((1.0 + (radius[1] / alpha) ** 2) / (1.0 + (distance / alpha) ** 2)) ** -2.5
        assert moffat == pytest.approx(level, rel=1e-9)
        assert radius[2] == 0.0
