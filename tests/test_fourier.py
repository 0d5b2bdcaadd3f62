"""Transforms of grids and their convolution with PSFs, against NumPy's in float64."""

from __future__ import annotations

import numpy as np
import pytest

from arcforge.engine.fftw import GRID_SIZES
from arcforge.engine.fourier import Buffers, n_blocks, spectra_of, steps, without_highest
from arcforge.kernels.butterflies import ELEMENT
from arcforge.kernels.fourier import convolve_rows, forward, inverse, transform_lines
from arcforge.kernels.lanes import LANES

# inverses of PSF images are as large as the grid in pixels
SIZES = sorted({size // nodes for size in GRID_SIZES for nodes in (1, 2, 4) if 24 <= size // nodes <= 400})
EMPTY = np.empty((1, 0), dtype=np.float32)


def _grid(size: int, columns: tuple[int, int], seed: int = 0) -> np.ndarray:
    grid = np.zeros((size, size), dtype=np.float32)
    rng = np.random.default_rng(seed)
    grid[:, columns[0] : columns[1]] = rng.normal(size=(size, columns[1] - columns[0]))
    return grid


def _unset(size: int) -> Buffers:
    held = Buffers(size)
    for buffer in (held.a, held.b, held.z, held.pair, held.turned, held.spectrum, held.quarter(size)):
        buffer[:] = np.nan
    return held


def _spectrum(grid: np.ndarray, lit: tuple[int, int]) -> tuple[np.ndarray, Buffers]:
    """Return the transform as the kernels order it, and the buffers it stands in."""
    held, size = _unset(grid.shape[0]), grid.shape[0]
    forward(grid, np.array(lit), held.a, held.b, held.z, held.pair, held.turned, held.spectrum, *steps(size))
    return held.spectrum, held


def _expected(spectra: np.ndarray) -> np.ndarray:
    """Order NumPy's rfft2 as the kernels do, by the definition."""
    size = spectra.shape[0]
    whole = np.zeros((n_blocks(size) * LANES, size), dtype=complex)  # frequencies along y, along x
    for y in range(size // 2 + 1):
        for x in range(size):
            other = spectra[-y, size - x].conj() if 2 * x > size else spectra[y, x]
            whole[y, x] = other
    elements = whole.reshape(n_blocks(size), LANES, size).transpose(0, 2, 1)
    return np.stack([elements.real, elements.imag], axis=2).ravel()


def _psf(transforms: np.ndarray) -> np.ndarray:
    return np.array([_expected(each) for each in transforms], dtype=np.float32)


@pytest.mark.parametrize("size", [8, 10, 12, 18, 27, 32, 50, 75, 100, 120, 128, 360, 2048])
def test_lines_are_transformed_as_by_numpy(size: int) -> None:
    rng = np.random.default_rng(size)
    lines = rng.normal(size=(size, 2, LANES)).astype(np.float32)
    x, out = (
        np.full(3 + 2 * ELEMENT * size, np.nan, dtype=np.float32),
        np.full(5 + ELEMENT * size, np.nan, dtype=np.float32),
    )
    apart = x[3:].reshape(size, 2 * ELEMENT)  # every second element, from an odd place on
    apart[:, :ELEMENT] = lines.reshape(size, ELEMENT)
    a, b = np.full((2, ELEMENT * size), np.nan, dtype=np.float32)
    transform_lines(x, 3, 2 * ELEMENT, out, 5, a, b, size, *steps(size))
    found = out[5:].reshape(size, 2, LANES)
    expected = np.fft.fft(lines[:, 0].astype(float) + 1j * lines[:, 1], axis=0)
    assert np.abs(found[:, 0] + 1j * found[:, 1] - expected).max() < 4e-7 * np.abs(expected).max()
    assert np.isnan(out[:5]).all()


@pytest.mark.parametrize("size", [7, 22, 4, 5])
def test_sizes_without_steps_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"no transforms of size {size}"):
        steps(size)


@pytest.mark.parametrize("size", SIZES)
def test_grids_are_transformed_as_by_numpy(size: int) -> None:
    for lit in ((0, size), (size // 3, size // 3 + 3), (3, size - 2), (size - 1, size), (5, 5)):
        grid = _grid(size, lit)
        found, _ = _spectrum(grid, lit)
        expected = 2.0 * _expected(np.fft.rfft2(grid.astype(float)))
        used = expected != 0.0  # the rest fills up a block
        assert np.abs(found - expected)[used].max(initial=0.0) <= 5e-7 * np.abs(expected).max()


@pytest.mark.parametrize("size", SIZES)
def test_stamps_come_back_as_by_numpy(size: int) -> None:
    """Any even PSF, every place of the stamp that a layout may ask for."""
    half = size // 2 + 1
    factors = np.random.default_rng(size).normal(size=(half, half))
    k = np.abs(np.fft.fftfreq(size, 1.0 / size)).astype(int)
    for side, nodes, first in ((16, 1, (size - 16) // 2), (19, 1, 0), (size, 1, 0), (17, size // 20, 2)):
        spectrum, held = _spectrum(_grid(size, (0, size)), (0, size))
        held.quarter(size)[:, :half] = factors
        out = np.full((side, side), np.nan, dtype=np.float32)
        inverse(
            spectrum, size, size, held.quarter(size), EMPTY[0], EMPTY[0], np.float32(1.0), first, nodes,
            held.a, held.b, held.z, held.pair, held.turned, *steps(size), out,
        )  # fmt: skip
        whole = 2.0 * np.fft.fft2(_grid(size, (0, size)).astype(float)) * factors[np.ix_(k, k)].T
        wanted = slice(first, first + nodes * side, nodes)
        expected = np.fft.ifft2(whole).real[wanted, wanted] * size**2
        assert np.abs(out - expected).max() < 1e-6 * np.abs(np.fft.ifft2(whole)).max() * size**2


@pytest.mark.parametrize(("size", "nodes"), [(48, 1), (80, 2), (128, 4)])
def test_psf_images_of_any_shape_are_convolved_with(size: int, nodes: int) -> None:
    """Through an image that is not even in any axis, the lower frequencies alone."""
    rng = np.random.default_rng(size)
    period = size // nodes
    transforms = np.fft.rfft2(rng.normal(size=(2, period, period)))
    if nodes > 1:
        transforms[:, period // 2] = transforms[:, :, period // 2] = 0.0
    k = np.fft.fftfreq(size, 1.0 / size).astype(int)
    response = (1.0 + 0.3 * np.cos(2.0 * np.pi * k / size)).astype(np.float32)
    rows, side, first = np.array([2, 0]), 17, 1
    grids, out = (
        np.stack([_grid(size, (5, 20), 1), _grid(size, (0, size), 2)]),
        np.full((3, 2, side, side), np.nan, dtype=np.float32),
    )
    scales, sums, held = rng.uniform(1.0, 2.0, size=(2, 2)), np.empty(2), _unset(size)
    convolve_rows(
        grids, np.array([[5, 20], [0, size]]), _psf(transforms), False, np.zeros((2, 2)), EMPTY[0], 1,
        response, nodes, scales, first, 1, *steps(size), period, *steps(period), held.quarter(period), held.a,
        held.b, held.z, held.pair, held.turned, held.spectrum, sums, rows, out,
    )  # fmt: skip
    low = np.abs(k) < period / 2 if nodes > 1 else np.ones(size, dtype=bool)
    for row, grid, scale in zip(rows, grids, scales, strict=True):
        whole = np.fft.fft2(grid.astype(float)) * np.outer(low * response, low * response)
        for band in range(2):
            psf = np.fft.fft2(np.fft.irfft2(transforms[band], s=(period, period)))
            image = np.fft.ifft2(whole * psf[np.ix_(k % period, k % period)]).real[::nodes, ::nodes]
            image = image[first : first + side, first : first + side] * size**2 * scale[band]
            assert np.abs(out[row, band] - image).max() < 2e-6 * np.abs(image).max()
    np.testing.assert_allclose(sums, grids.sum(axis=(1, 2), dtype=float), atol=1e-4)
    assert np.isnan(out[1]).all()


def test_spectra_of_grids_are_numpys_in_that_order() -> None:
    grids = np.random.default_rng(0).normal(size=(2, 20, 20)).astype(np.float32)
    transforms = np.fft.rfft2(grids.astype(float))
    used = _psf(transforms) != 0.0
    found = spectra_of(grids)
    assert np.abs(found - _psf(transforms))[used].max() < 4e-7 * np.abs(transforms).max()
    transforms[:, 10] = transforms[:, :, 10] = 0.0
    assert np.abs(without_highest(found, 20) - _psf(transforms))[used].max() < 4e-7 * np.abs(transforms).max()
