"""Transforms: right against NumPy, and a stamp's bits do not depend on its company."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from arcforge.engine import fftw
from arcforge.engine.fftw import GRID_SIZES, Transforms


def _transformed(plans: Transforms, grid: np.ndarray, spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill every place with the same stamp; return all spectra and images."""
    plans.grid[:] = grid
    plans.forward()
    plans.band_spectra[:] = spectra
    plans.inverse()
    return plans.spectrum.copy(), plans.images.copy()


@pytest.mark.parametrize("double", [False, True])
def test_transforms_are_those_of_numpy(double):
    size, wanted = 48, slice(8, 40, 2)
    rng = np.random.default_rng(0)
    plans = Transforms(size, 2, 3, wanted, double=double)
    grids = rng.normal(size=(3, size, size))
    spectra = np.fft.rfft2(rng.normal(size=(3, 2, size, size)))
    plans.grid[:] = grids
    plans.forward()
    kind = np.complex128 if double else np.complex64
    found = plans.spectrum.view(kind)
    plans.band_spectra.view(kind)[:] = spectra
    plans.inverse()
    limit = 1e-13 if double else 1e-6
    expected = np.fft.rfft2(grids)
    assert np.abs(found - expected).max() < limit * np.abs(expected).max()
    expected = np.fft.irfft2(spectra, s=(size, size))[:, :, wanted] * size**2
    assert np.abs(plans.images - expected).max() < limit * np.abs(expected).max()


# inverses of PSF images are as large as the grid in pixels
SIZES = sorted({size // nodes for size in GRID_SIZES for nodes in (1, 2) if 32 <= size // nodes <= 256})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_bands", [1, 3])
def test_a_stamp_has_the_same_bits_however_many_are_transformed_together(size, n_bands):
    rng = np.random.default_rng(size)
    first = size // 4
    grid = rng.normal(size=(size, size)).astype(np.float32)
    spectra = rng.normal(size=(n_bands, size, 2 * (size // 2 + 1))).astype(np.float32)
    for step in (1, 2):
        wanted = slice(first, first + size // 2, step)
        plans = [Transforms(size, n_bands, n, wanted, double=False) for n in (1, 2, 3, 4)]
        (alone, *_), (image, *_) = _transformed(plans[0], grid, spectra)
        for several in plans[1:]:
            found, images = _transformed(several, grid, spectra)
            assert (found == alone).all()
            assert (images == image).all()


def test_buffers_used_last_are_kept_within_their_limit(monkeypatch):
    monkeypatch.setattr(fftw, "_LOCAL", threading.local())

    def asked(size):
        return fftw.transforms(size, 1, 1, slice(0, size))

    one, two = asked(32), asked(40)
    assert asked(32) is one
    monkeypatch.setattr(fftw, "KEPT_BYTES", one.n_bytes + two.n_bytes)
    asked(36)  # 40 was asked for before 32 was again
    assert asked(32) is one
    assert asked(40) is not two
    monkeypatch.setattr(fftw, "KEPT_BYTES", 1)
    large = asked(64)
    assert asked(64) is large  # what is in use is kept, however large
