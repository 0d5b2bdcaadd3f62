"""FFTW's transforms: right against NumPy, and buffers within their limit."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from arcforge.engine import fftw
from arcforge.engine.fftw import Transforms


@pytest.mark.parametrize("step", [1, 2])
def test_transforms_are_those_of_numpy(step):
    size, wanted = 48, slice(8, 40, step)
    rng = np.random.default_rng(0)
    plans = Transforms(size, 2, wanted)
    grid = rng.normal(size=(size, size))
    spectra = np.fft.rfft2(rng.normal(size=(2, size, size)))
    plans.grid[:] = grid
    plans.forward()
    plans.band_spectra.view(np.complex128)[:] = spectra
    plans.inverse()
    expected = np.fft.rfft2(grid)
    assert np.abs(plans.spectrum.view(np.complex128) - expected).max() < 1e-13 * np.abs(expected).max()
    expected = np.fft.irfft2(spectra, s=(size, size))[:, wanted] * size**2
    assert np.abs(plans.images - expected).max() < 1e-13 * np.abs(expected).max()


def test_buffers_used_last_are_kept_within_their_limit(monkeypatch):
    monkeypatch.setattr(fftw, "_LOCAL", threading.local())

    def asked(size):
        return fftw.transforms(size, 1, slice(0, size))

    one, two = asked(32), asked(40)
    assert asked(32) is one
    monkeypatch.setattr(fftw, "KEPT_BYTES", one.n_bytes + two.n_bytes)
    asked(36)  # 40 was asked for before 32 was again
    assert asked(32) is one
    assert asked(40) is not two
    monkeypatch.setattr(fftw, "KEPT_BYTES", 1)
    large = asked(64)
    assert asked(64) is large  # what is in use is kept, however large
