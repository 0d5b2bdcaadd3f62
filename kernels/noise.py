"""Photon noise of added light, pixel by pixel, from a counter: a row's noise needs neither order nor state.

Each pixel draws from Philox with the counter (row, purpose, pixel) and the key (seed), so any row can be made
again alone. Exact arithmetic throughout: the bits are stored.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels._jit import inline, jit_exact
from arcforge.kernels.philox import philox

_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_DROPPED = np.uint64(12)
_UNIT = 2.0**-32
_FEW = 10.0  # electrons up to which counts are drawn by summing probabilities


@inline
def _words(seed, row, purpose, index):
    return philox(row & _LOW, row >> _WORD, purpose, index, seed & _LOW, seed >> _WORD)


@inline
def _uniform(word):
    """Return a word as a number in the open interval (0, 1)."""
    return (np.float64(word) + 0.5) * _UNIT


@inline
def _normal(seed, row, purpose, index):
    """Return a standard normal number (Box & Muller 1958); 32 bits reach 6.6 sigma."""
    w0, w1, _w2, _w3 = _words(seed, row, purpose, index)
    return math.sqrt(-2.0 * math.log(_uniform(w0))) * math.cos(2.0 * math.pi * _uniform(w1))


@inline
def _few(mean, u):
    """Return a Poisson count of a small mean, by inversion."""
    probability = math.exp(-mean)
    total, count = probability, 0
    while u > total and count < 200:
        count += 1
        probability *= mean / count
        total += probability
    return float(count)


@inline
def _many(mean, seed, row, purpose, index, stride):
    """Return a Poisson count of a mean above 10: transformed rejection, PTRS of Hoermann (1993, Insurance:
    Mathematics and Economics 12, 39).
    """
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2.0)
    log_mean = math.log(mean)
    for _ in range(100):  # each is kept in 9 of 10 cases
        w0, w1, _w2, _w3 = _words(seed, row, purpose, index)
        index += stride
        u, v = _uniform(w0) - 0.5, _uniform(w1)
        us = 0.5 - abs(u)
        k = math.floor((2.0 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= v_r:
            return k
        if k < 0.0 or (us < 0.013 and v > us):
            continue
        tried = math.log(v * inverse_alpha / (a / (us * us) + b))
        if tried <= k * log_mean - mean - math.lgamma(k + 1.0):
            return k
    return mean


@jit_exact
def add_poisson(
    arcs: NDArray[np.float32],
    gain: NDArray[np.float64],
    rows: NDArray[np.uint64],
    seed: np.uint64,
    purpose: np.uint64,
) -> None:
    """Replace each pixel above 0 of ``arcs`` (n, bands, pixels) by counted electrons over the gain.

    ``gain`` (n, bands) in electrons per unit of the pixels; ``rows`` (n,) are the rows' numbers.
    """
    n, n_bands, n_pixels = arcs.shape
    stride = np.uint64(n_bands * n_pixels)
    for i in range(n):
        for b in range(n_bands):
            arc = arcs[i, b]
            for k in range(n_pixels):
                if arc[k] <= np.float32(0.0):
                    continue
                mean = np.float64(arc[k]) * gain[i, b]
                index = np.uint64(b * n_pixels + k)
                if mean < _FEW:
                    w0, w1, _w2, _w3 = _words(seed, rows[i], purpose, index)
                    count = _few(mean, (np.float64(((w0 << _WORD) | w1) >> _DROPPED) + 0.5) * 2.0**-52)
                else:
                    count = _many(mean, seed, rows[i], purpose, index, stride)
                arc[k] = np.float32(count / gain[i, b])


@jit_exact
def add_gaussian(
    arcs: NDArray[np.float32],
    gain: NDArray[np.float64],
    rows: NDArray[np.uint64],
    seed: np.uint64,
    purpose: np.uint64,
    side_weight: float,
    width: int,
) -> None:
    """Add Gaussian noise of variance pixel / gain to each pixel above 0 of ``arcs`` (n, bands, pixels).

    ``side_weight`` a makes it correlated: unit noise is smoothed by (a, 1, a) along both axes of a stamp
    ``width`` pixels wide and scaled back to unit variance; 0 leaves it white.
    """
    n, n_bands, n_pixels = arcs.shape
    height = n_pixels // width
    framed = np.empty((height + 2, width + 2))
    across = np.empty((height + 2, width))
    scale = 1.0 / (1.0 + 2.0 * side_weight * side_weight)
    area = (height + 2) * (width + 2)
    for i in range(n):
        for b in range(n_bands):
            arc = arcs[i, b]
            if side_weight == 0.0:
                for k in range(n_pixels):
                    if arc[k] > np.float32(0.0):
                        value = np.float64(arc[k])
                        unit = _normal(seed, rows[i], purpose, np.uint64(b * n_pixels + k))
                        arc[k] = np.float32(value + math.sqrt(value / gain[i, b]) * unit)
                continue
            for y in range(height + 2):
                for x in range(width + 2):
                    index = np.uint64(b * area + y * (width + 2) + x)
                    framed[y, x] = _normal(seed, rows[i], purpose, index)
                for x in range(width):
                    across[y, x] = framed[y, x + 1] + side_weight * (framed[y, x] + framed[y, x + 2])
            for y in range(height):
                for x in range(width):
                    k = y * width + x
                    if arc[k] > np.float32(0.0):
                        value = np.float64(arc[k])
                        unit = across[y + 1, x] + side_weight * (across[y, x] + across[y + 2, x])
                        arc[k] = np.float32(value + math.sqrt(value / gain[i, b]) * unit * scale)
