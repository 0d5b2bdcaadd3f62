"""Tables and memory for the transforms of ``kernels.fourier``."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels.butterflies import ELEMENT, RADICES
from arcforge.kernels.fourier import forward
from arcforge.kernels.lanes import LANES

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


def spectra_of(grids: Floats) -> Floats:
    """Return the transforms of grids (k, size, size) in the kernels' order, float32 (k, n)."""
    size = grids.shape[1]
    held, lit = Buffers(size), np.array([0, size])
    out = np.empty((len(grids), held.spectrum.size), dtype=np.float32)
    for grid, found in zip(grids, out, strict=True):
        forward(grid, lit, held.a, held.b, held.z, held.pair, held.turned, held.spectrum, *steps(size))
        np.multiply(held.spectrum, 0.5, out=found)  # the kernel's are twice the transforms
    return out


def without_highest(spectra: Floats, size: int) -> Floats:
    """Set spectra in the kernels' order to 0 at the highest frequency of both axes, in place."""
    ordered, highest = spectra.reshape(len(spectra), n_blocks(size), size, 2, LANES), size // 2
    ordered[:, :, highest] = 0.0
    ordered[:, highest // LANES, :, :, highest % LANES] = 0.0
    return spectra


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
    count = math.prod(shape)
    held = np.zeros(count + ELEMENT, dtype=np.float32)
    first = -held.ctypes.data % held[:ELEMENT].nbytes // held.itemsize
    return held[first : first + count].reshape(shape)
