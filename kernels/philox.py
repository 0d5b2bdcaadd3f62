"""Philox4x32-10: random words as a function of a counter, with no state to carry.

Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (SC11), section 3. A draw
depends on its counter and key alone, so rows can be drawn in any order, number and place alike.
Words are held in uint64 so that a 32x32-bit product needs no second type; numba turns a mix of signed and
unsigned 64-bit integers into floats, hence the constants' explicit type.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels._jit import inline, jit_exact

ROUNDS = 10
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_DROPPED = np.uint64(12)


@inline
def philox(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return the four output words of counter (c0..c3) and key (k0, k1); every word below 2**32."""
    for _ in range(ROUNDS):
        product_0 = _MULTIPLIER_0 * c0
        product_1 = _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (product_1 >> _WORD) ^ c1 ^ k0,
            product_1 & _LOW,
            (product_0 >> _WORD) ^ c3 ^ k1,
            product_0 & _LOW,
        )
        k0 = (k0 + _WEYL_0) & _LOW
        k1 = (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


@jit_exact
def philox_words(counters: NDArray[np.uint64], keys: NDArray[np.uint64], out: NDArray[np.uint64]) -> None:
    """Fill ``out`` (n, 4) from ``counters`` (n, 4) and ``keys`` (n, 2)."""
    for i in range(counters.shape[0]):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = philox(
            counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3], keys[i, 0], keys[i, 1]
        )


@jit_exact
def philox_uniforms(
    seed: np.uint64,
    rows: NDArray[np.uint64],
    purpose: np.uint64,
    indices: NDArray[np.uint64],
    out: NDArray[np.float64],
) -> None:
    """Fill ``out`` (n,) with uniforms in the open interval (0, 1).

    Key: the two halves of ``seed``. Counter: the two halves of the row, purpose, index (32 bits each).
    52 random bits k give (k + 1/2) / 2**52: exactly representable, never 0 and never 1, so that an inverse
    distribution function is finite everywhere.
    """
    k0, k1 = seed & _LOW, seed >> _WORD
    for i in range(rows.shape[0]):
        w0, w1, _w2, _w3 = philox(rows[i] & _LOW, rows[i] >> _WORD, purpose, indices[i], k0, k1)
        bits = ((w1 << _WORD) | w0) >> _DROPPED
        out[i] = (np.float64(bits) + 0.5) * 2.0**-52
