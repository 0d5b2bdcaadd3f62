"""The memory that a thread renders in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.fourier import Buffers, aligned
from arcforge.kernels.adaptive import CHUNK, DEEPEST
from arcforge.kernels.butterflies import ELEMENT
from arcforge.kernels.lanes import LANES
from arcforge.kernels.polar_source import MOST_BANDS, RAYS, SECTORS

Images = NDArray[np.float32]

# Weights of a Gaussian on each side of a pixel, where they are used in place of transforms.
MOST_RADIUS_NODES = 32


class Rays:
    """Scratch of image sources (``kernels.polar_source``): rays, and what rings are looked at with."""

    def __init__(self) -> None:
        self.lines = aligned(5, RAYS + -RAYS % ELEMENT)
        self.lit = np.empty((MOST_BANDS, SECTORS), dtype=np.uint8)
        self.stretch, self.middles = aligned(2, MOST_BANDS), aligned(2, SECTORS)


class Scratch:
    """A thread's scratch, grown as rows ask for more."""

    def __init__(self) -> None:
        self.line = aligned(0)
        self.first = aligned(0)
        self.stack_place = np.empty((0, 2), dtype=np.float32)
        self.stack_node = np.empty((0, 3), dtype=np.int32)
        self.lines = aligned(4, 0)
        self.samples = aligned(4, 16 * CHUNK)
        self.cells = aligned(2, CHUNK)
        self.nodes = np.empty((5, CHUNK), dtype=np.int32)
        self.weights = aligned(64)
        self.psf_half = np.empty(MOST_RADIUS_NODES + 1)
        self.psf_weights = np.empty(2 * MOST_RADIUS_NODES + 1, dtype=np.float32)
        self.grids = {"grid": aligned(0), "part": aligned(0)}
        self.buffers: Buffers | None = None
        self.rays: Rays | None = None

    def hold(self, cells: int, across: int) -> None:
        """Make room for so many first cells of a row, and for a line of ``across`` nodes of them."""
        if self.first.size < 7 * cells:
            self.first = aligned(7 * cells)
            # each of DEEPEST generations adds at most three waiting cells for each of a chunk
            capacity = cells + 3 * CHUNK * DEEPEST
            self.stack_place = np.empty((capacity, 2), dtype=np.float32)
            self.stack_node = np.empty((capacity, 3), dtype=np.int32)
        if self.lines.shape[1] < across + 12:
            self.lines = aligned(4, across + 12)
        if self.samples.shape[1] < 2 * across + 4 * LANES:
            self.samples = aligned(4, 2 * across + 4 * LANES)

    def hold_grid(self, size: int, name: str = "grid", count: int = 1) -> Images:
        """Return ``count`` scratch grids of ``size`` nodes a side: "grid", or "part" of another's light."""
        if self.grids[name].size < count * size * size:
            self.grids[name] = aligned(count * size * size)
        return self.grids[name][: count * size * size].reshape(count, size, size)

    def hold_buffers(self, size: int) -> Buffers:
        """Return scratch for the transforms of grids of that size; those of one size are kept."""
        if self.buffers is None or self.buffers.size != size:
            self.buffers = Buffers(size)
        return self.buffers

    def hold_rays(self) -> Rays:
        """Return scratch for image sources, made for the first of them."""
        if self.rays is None:
            self.rays = Rays()
        return self.rays

    def hold_line(self, count: int) -> Images:
        """Return a scratch line of ``count`` samples."""
        if self.line.size < count:
            self.line = aligned(count)
        return self.line[:count]
