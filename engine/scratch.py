"""The memory that a thread renders in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels.adaptive import CHUNK, DEEPEST
from arcforge.kernels.lanes import LANES
from arcforge.kernels.spread import BASE

Images = NDArray[np.float32]

# Weights of a Gaussian on each side of a pixel, where they are used in place of transforms.
MOST_RADIUS_NODES = 32


class Scratch:
    """A thread's scratch, grown as rows ask for more."""

    def __init__(self) -> None:
        self.line = np.empty(0, dtype=np.float32)
        self.first = np.empty(0, dtype=np.float32)
        self.stack_place = np.empty((0, 2), dtype=np.float32)
        self.stack_node = np.empty((0, 3), dtype=np.int32)
        self.lines = np.empty((4, 0), dtype=np.float32)
        self.samples = np.empty((4, 16 * CHUNK), dtype=np.float32)
        self.cells = np.empty((2, CHUNK), dtype=np.float32)
        self.nodes = np.empty((5, CHUNK), dtype=np.int32)
        self.weights = np.empty(64, dtype=np.float32)
        self.psf_half = np.empty(MOST_RADIUS_NODES + 1)
        self.psf_weights = np.empty(2 * MOST_RADIUS_NODES + 1, dtype=np.float32)
        self.grids = {"grid": np.empty(0, dtype=np.float32), "part": np.empty(0, dtype=np.float32)}
        self.report = np.zeros(3)

    def hold(self, up: int, across: int) -> Images:
        """Make room for the first cells of ``up`` x ``across`` nodes; return theirs."""
        n_y, n_x = up // BASE, across // BASE
        cells = n_y * n_x
        if self.first.size < 7 * cells:
            self.first = np.empty(7 * cells, dtype=np.float32)
            # each of DEEPEST generations adds at most three waiting cells for each of a chunk
            capacity = cells + 3 * CHUNK * DEEPEST
            self.stack_place = np.empty((capacity, 2), dtype=np.float32)
            self.stack_node = np.empty((capacity, 3), dtype=np.int32)
        if self.lines.shape[1] < across + 12:
            self.lines = np.empty((4, across + 12), dtype=np.float32)
        if self.samples.shape[1] < 2 * across + 4 * LANES:
            self.samples = np.empty((4, 2 * across + 4 * LANES), dtype=np.float32)
        return self.first[: 7 * cells].reshape(7, n_y, n_x)

    def hold_grid(self, size: int, name: str = "grid") -> Images:
        """Return a scratch grid of ``size`` x ``size`` nodes: "grid", or "part" of the light of another."""
        if self.grids[name].size < size * size:
            self.grids[name] = np.empty(size * size, dtype=np.float32)
        return self.grids[name][: size * size].reshape(size, size)

    def hold_line(self, count: int) -> Images:
        """Return a scratch line of at least ``count`` samples."""
        if self.line.size < count:
            self.line = np.empty(count, dtype=np.float32)
        return self.line
