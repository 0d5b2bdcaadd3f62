"""Tables and memory for the transforms of ``kernels.fourier``."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyfftw
from numpy.typing import NDArray

from arcforge.kernels.butterflies import ELEMENT, LANES, RADICES

Floats = NDArray[np.float32]

LEAST_SIDE = ELEMENT  # of a stamp: pixels are written an element at a time


@lru_cache(maxsize=64)
def steps(size: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the radices of a transform's steps and, for all steps but the last, the factors between them.

    exp(-2 pi i k p / n), for p from 0 to n / radix - 1 and k from 1 to radix - 1; n is what earlier steps
    left of the size. Real and imaginary part in turn.

    Raises
    ------
    ValueError
        For a size that has other prime factors than 2, 3 and 5, or no two radices.
    """
    radices, rest = [], size
    while rest % 4 == 0:
        radices.append(4)
        rest //= 4
    for radix in RADICES:
        while rest % radix == 0:
            radices.append(radix)
            rest //= radix
    if rest != 1 or len(radices) < 2:
        raise ValueError(f"no transforms of size {size}")
    radices.sort()
    factors, rest = [], size
    for radix in radices[:-1]:
        turns = np.outer(np.arange(rest // radix), np.arange(1, radix)) / rest
        factors.append(np.exp(-2j * np.pi * turns).ravel())
        rest //= radix
    return np.array(radices), np.concatenate(factors).astype(np.complex64).view(np.float32)


def in_order(transforms: NDArray[np.complexfloating]) -> Floats:
    """Return spectra (bands, size along y, size // 2 + 1 along x), as FFTs have them, in the kernels' order.

    float32 (bands, n). Frequencies that fill up the last block are 0.
    """
    n_bands, size, half = transforms.shape
    x = np.fft.fftfreq(size, 1.0 / size).astype(np.int64)
    y = np.arange(half)
    # what lies at negative frequencies along x is the conjugate of what lies opposite
    whole = np.where(
        (x >= 0)[:, None],
        transforms[:, y[None, :], np.abs(x)[:, None]],
        transforms[:, -y[None, :], np.abs(x)[:, None]].conj(),
    )
    blocks = n_blocks(size)
    ordered = np.zeros((n_bands, size, 2, blocks * LANES), dtype=np.float32)
    ordered[:, :, 0, :half], ordered[:, :, 1, :half] = whole.real, whole.imag
    by_block = ordered.reshape(n_bands, size, 2, blocks, LANES).transpose(0, 3, 1, 2, 4)
    return np.ascontiguousarray(by_block).reshape(n_bands, -1)


def n_blocks(size: int) -> int:
    """Blocks of eight frequencies that a real signal has."""
    return (size // 2 + LANES) // LANES


class Buffers:
    """A thread's scratch for grids of one size, on cache lines of their own."""

    def __init__(self, size: int) -> None:
        self.size, blocks = size, n_blocks(size)
        self.a, self.b, self.z = (aligned(ELEMENT * (size + 1)) for _ in range(3))
        self.pair = aligned(2 * LANES * ELEMENT)
        self.turned, self.spectrum = (aligned(ELEMENT * size * blocks) for _ in range(2))
        self._quarter = aligned((size // 2 + 1) * blocks * LANES)

    def quarter(self, period: int) -> Floats:
        """Return room for a quarter's factors of a grid of ``period``, at most the size."""
        up, across = period // 2 + 1, n_blocks(period) * LANES
        return self._quarter[: up * across].reshape(up, across)


def aligned(*shape: int) -> Floats:
    """Return float32 memory that begins with a cache line: vectors that lie across two take twice as long."""
    found: Floats = pyfftw.zeros_aligned(shape, dtype="float32", n=4 * ELEMENT)
    return found
