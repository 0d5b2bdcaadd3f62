"""Transforms of float64 grids by FFTW through pyfftw: one pair of plans for each thread and grid.

Rows whose light may lie off their stamp are transformed by these; what the stamp sees of them is far fainter
than what the grid holds. All others: ``kernels.fourier``, in float32.

Plans are made under a lock (FFTW's planner is not thread-safe, its execution is) and belong to one thread
with their own aligned buffers; pyfftw's interface cache, which threads share and corrupt (pyFFTW issue 343),
is not used.

The planning effort is FFTW_ESTIMATE on purpose. MEASURE chooses an algorithm by timing, so that two runs of
one machine may round differently; ESTIMATE chooses by rule, and the same row has the same bits in every run,
thread, batch and partition. It costs 0 to 25 % of the transform at the sizes used here.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyfftw
from numpy.typing import NDArray

_PLANNER = threading.Lock()
_LOCAL = threading.local()
KEPT_BYTES = 1 << 27  # of one thread
Floats = NDArray[np.float64]

# Sizes of grids, whoever transforms them: under FFTW's plans each is quicker than any larger one in the list
# (120 takes less than 108 or 112), and ``kernels.fourier`` takes factors of 2, 3 and 5.
GRID_SIZES = (
    32, 40, 48, 64, 72, 80, 100, 120, 128, 144, 160, 200, 256, 288, 320, 384, 512, 640, 768, 1024, 1536, 2048,
)  # fmt: skip


class Transforms:
    """The real forward transform of a stamp's grid and the inverse of one per band, with their buffers.

    The inverse goes by columns, then by those rows alone that the stamp is made of: a quarter less work.
    Every pass goes from one buffer to another: within one, columns take up to twice as long under these
    plans.

    Parameters
    ----------
    size, n_bands : int
    rows : slice
        Rows of the grid that are wanted back.

    Attributes
    ----------
    grid : float64 (size, size)
        Input of ``forward``.
    spectrum : float64 (size, size + 2)
        Output of ``forward``: size // 2 + 1 complex numbers a line, real and imaginary parts in turn.
    line : float64 (size + 2,), quarter : float64 (size // 2 + 1, size // 2 + 1)
        Scratch.
    band_spectra : float64 (n_bands, size, size + 2)
        Input of ``inverse``; as ``spectrum``. No transform overwrites its input.
    images : float64 (n_bands, wanted rows, size)
        Output of ``inverse``, NOT divided by size squared.
    n_bytes : int
        Of all buffers.
    """

    def __init__(self, size: int, n_bands: int, rows: slice) -> None:
        half = size // 2 + 1
        self.grid: Floats = pyfftw.zeros_aligned((size, size), "float64")
        self.line: Floats = np.empty(2 * half)
        self.quarter: Floats = np.empty((half, half))
        spectrum = pyfftw.zeros_aligned((size, half), "complex128")
        band_spectra = pyfftw.zeros_aligned((n_bands, size, half), "complex128")
        self.spectrum: Floats = spectrum.view("float64")
        self.band_spectra: Floats = band_spectra.view("float64")
        between = pyfftw.zeros_aligned(band_spectra.shape, "complex128")
        wanted = between[:, rows]
        self.images: Floats = pyfftw.zeros_aligned((*wanted.shape[:2], size), "float64")
        held = (self.grid, spectrum, band_spectra, between, self.images)
        self.n_bytes = sum(buffer.nbytes for buffer in held)
        with _PLANNER:
            self._forward = (_plan(self.grid, between[0], axis=1), _plan(between[0], spectrum, axis=0))
            self._inverse = (
                _plan(band_spectra, between, axis=1, direction="FFTW_BACKWARD"),
                _plan(wanted, self.images, axis=2, direction="FFTW_BACKWARD", also=("FFTW_DESTROY_INPUT",)),
            )

    def forward(self) -> None:
        """Fill ``spectrum`` from ``grid``."""
        for plan in self._forward:
            plan.execute()

    def inverse(self) -> None:
        """Fill ``images`` from ``band_spectra``."""
        for plan in self._inverse:
            plan.execute()


def _plan(
    source: NDArray[Any],
    target: NDArray[Any],
    axis: int,
    direction: str = "FFTW_FORWARD",
    also: tuple[str, ...] = (),
) -> Any:
    """Plan a transform along one axis."""
    flags = ("FFTW_ESTIMATE", *also)
    return pyfftw.FFTW(source, target, axes=(axis,), direction=direction, flags=flags, threads=1)


def transforms(size: int, n_bands: int, rows: slice) -> Transforms:
    """Return this thread's transforms for a grid of ``size``, planned on first use.

    Those asked for longest ago go where a thread's buffers grow beyond ``KEPT_BYTES``: threads stay.
    """
    known: dict[tuple[int, ...], Transforms] = _LOCAL.__dict__.setdefault("known", {})
    key = (size, n_bands, rows.start, rows.stop, rows.step)
    found = known.pop(key, None)
    if found is not None:
        known[key] = found
        return found
    known[key] = Transforms(size, n_bands, rows)
    while len(known) > 1 and sum(each.n_bytes for each in known.values()) > KEPT_BYTES:
        del known[next(iter(known))]
    return known[key]
