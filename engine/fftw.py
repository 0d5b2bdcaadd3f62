"""FFTW through pyfftw: one pair of plans for each thread and grid, and nothing else.

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
KEPT_BYTES = 1 << 27  # of one thread; rows of the default priors need 6 MB for all their grids

# Sizes that are quicker, under these plans, than any larger one in the list (120 takes less than 108 or 112).
GRID_SIZES = (
    32, 40, 48, 64, 72, 80, 100, 120, 128, 144, 160, 200, 256, 288, 320, 384, 512, 640, 768, 1024, 1536, 2048,
)  # fmt: skip


class Transforms:
    """Real forward transforms of a few stamps' grids and the inverse of one per band, with their buffers.

    The inverse goes by columns, then by those rows alone that the stamp is made of: a quarter less work.
    Every pass goes from one buffer to another: within one, columns take up to twice as long under these
    plans. A stamp's bits do not depend on how many are transformed together; the tests look at every size.

    Parameters
    ----------
    size, n_bands : int
    n_stamps : int
        Transformed at once.
    rows : slice
        Rows of the grid that are wanted back.
    double : bool

    Attributes
    ----------
    grid : float32 or float64 (n_stamps, size, size)
        Input of ``forward``.
    spectrum : float (n_stamps, size, size + 2)
        Output of ``forward``: size // 2 + 1 complex numbers a line, real and imaginary parts in turn.
    line : float (size + 2,), quarter : float (size // 2 + 1, size // 2 + 1)
        Scratch.
    band_spectra : float (n_stamps, n_bands, size, size + 2)
        Input of ``inverse``; as ``spectrum``. No transform overwrites its input.
    images : float (n_stamps, n_bands, wanted rows, size)
        Output of ``inverse``, NOT divided by size squared.
    n_bytes : int
        Of all buffers.
    """

    def __init__(self, size: int, n_bands: int, n_stamps: int, rows: slice, *, double: bool) -> None:
        real, complex_ = ("float64", "complex128") if double else ("float32", "complex64")
        half = size // 2 + 1
        self.grid: NDArray[np.floating] = pyfftw.zeros_aligned((n_stamps, size, size), real)
        self.line: NDArray[np.floating] = np.empty(2 * half, dtype=real)
        self.quarter: NDArray[np.floating] = np.empty((half, half), dtype=real)
        spectrum = pyfftw.zeros_aligned((n_stamps, size, half), complex_)
        band_spectra = pyfftw.zeros_aligned((n_stamps, n_bands, size, half), complex_)
        self.spectrum: NDArray[np.floating] = spectrum.view(real)
        self.band_spectra: NDArray[np.floating] = band_spectra.view(real)
        between = pyfftw.zeros_aligned(band_spectra.shape, complex_)
        wanted = between[:, :, rows]
        self.images: NDArray[np.floating] = pyfftw.zeros_aligned((*wanted.shape[:3], size), real)
        held = (self.grid, spectrum, band_spectra, between, self.images)
        self.n_bytes = sum(buffer.nbytes for buffer in held)
        with _PLANNER:
            self._forward = (
                _plan(self.grid, between[:, 0], axis=2),
                _plan(between[:, 0], spectrum, axis=1),
            )
            self._inverse = (
                _plan(band_spectra, between, axis=2, direction="FFTW_BACKWARD"),
                _plan(wanted, self.images, axis=3, direction="FFTW_BACKWARD", also=("FFTW_DESTROY_INPUT",)),
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


def transforms(size: int, n_bands: int, n_stamps: int, rows: slice, *, double: bool = False) -> Transforms:
    """Return this thread's transforms for a grid of ``size``, planned on first use.

    Those asked for longest ago go where a thread's buffers grow beyond ``KEPT_BYTES``: threads stay.
    """
    known: dict[tuple[int | bool, ...], Transforms] = _LOCAL.__dict__.setdefault("known", {})
    key = (size, n_bands, n_stamps, rows.start, rows.stop, rows.step, double)
    found = known.pop(key, None)
    if found is not None:
        known[key] = found
        return found
    known[key] = Transforms(size, n_bands, n_stamps, rows, double=double)
    while len(known) > 1 and sum(each.n_bytes for each in known.values()) > KEPT_BYTES:
        del known[next(iter(known))]
    return known[key]
