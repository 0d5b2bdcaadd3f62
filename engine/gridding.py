"""The gridding kernel: how a sample between nodes is put on the grid, and its transform, which is divided out
again.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels.spread import BASE, FEW, GAUSS, REACH, TABLE_STEPS, WIDTH

Floats = NDArray[np.float64]

# Sharpness of exp(SHARPNESS (sqrt(1 - (2x/WIDTH)^2) - 1)). Measured on point sources through Gaussian and
# Moffat PSFs of 2.5 to 8 nodes FWHM: errors below 1e-4 of peak at 2.5, 3e-5 from 3.5 on; 1.8 and 2.5 times
# WIDTH do worse at one end.
SHARPNESS = 2.1 * WIDTH


def gridding_kernel(x: Floats) -> Floats:
    """Return the kernel at distances ``x`` in nodes; 0 from WIDTH / 2 on."""
    inside = np.clip(1.0 - (2.0 * x / WIDTH) ** 2, 0.0, None)
    return np.where(np.abs(x) < 0.5 * WIDTH, np.exp(SHARPNESS * (np.sqrt(inside) - 1.0)), 0.0)


def gridding_transform(k: Floats) -> Floats:
    """Return the kernel's Fourier transform at frequencies ``k`` in cycles per node."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    x = 0.5 * WIDTH * nodes
    return np.asarray((0.5 * WIDTH * weights * gridding_kernel(x)) @ np.cos(2.0 * np.pi * np.outer(x, k)))


@lru_cache(maxsize=1)
def gridding_table() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weights of a first cell's eight nodes: by position, and for the samples of cells divided up
    to twice, float32 (541 * 8,); and of its own two samples, (2, 8).

    Positions and nodes count from the cell's lower node; the cell reaches from -0.5 to 1.5.
    """
    nodes = np.arange(REACH) - 3.0
    positions = [np.arange(BASE * TABLE_STEPS + 1) / TABLE_STEPS - 0.5]
    offsets = np.array([-0.25 - 0.5 * GAUSS, -0.25 + 0.5 * GAUSS, 0.25 - 0.5 * GAUSS, 0.25 + 0.5 * GAUSS])
    places = 1
    while places <= FEW:
        width = BASE / places
        centres = -0.5 + width * (np.arange(places) + 0.5)
        positions.append((centres[:, None] + width * offsets).ravel())
        places *= 2
    table = gridding_kernel(nodes[None, :] - np.concatenate(positions)[:, None])
    centre = 0.5 * (BASE - 1)
    samples = centre + BASE * np.array([-float(GAUSS), float(GAUSS)])
    stencil = gridding_kernel(nodes[None, :] - samples[:, None]).astype(np.float32)
    return np.ascontiguousarray(table, dtype=np.float32).ravel(), np.ascontiguousarray(stencil)


def node_type(double: bool) -> type[np.floating]:
    """Return the type of a grid's nodes, and so of every factor that they meet."""
    return np.float64 if double else np.float32


@lru_cache(maxsize=256)
def grid_response(
    size: int, nodes_per_pixel: int, boxed: bool, samples: int, double: bool
) -> NDArray[np.floating]:
    """Return the factor of every frequency bin that turns grid nodes into what the PSF acts on.

    Uniform samples leave on each node the mean of ``samples`` points across its pixel, which is divided out
    again (not the pixel's own box: of one point there is nothing to divide out); adaptive ones leave the
    gridding kernel's response. The box is multiplied in where it is asked for, and only there: a PSF with the
    pixel in it must not be integrated over the pixel twice.
    """
    k = np.fft.fftfreq(size, d=1.0 / nodes_per_pixel)
    left = np.sinc(k) / np.sinc(k / samples) if samples else gridding_transform(k / nodes_per_pixel)
    values: NDArray[np.floating] = ((np.sinc(k) if boxed else 1.0) / left).astype(node_type(double))
    values.setflags(write=False)
    return values
