"""PSFs given as pixel images: checked once, transformed once for each grid, used for every row that names
them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import PsfError
from arcforge.engine.fourier import spectra_of, without_highest
from arcforge.engine.low_rank import Terms, separable_terms

Floats = NDArray[np.float64]
T = TypeVar("T")

SUM_TOLERANCE = 0.02  # a PSF whose pixels add up to something else was cut too small or was not normalised
CENTRE_TOLERANCE_PIX = 0.5  # beyond it the centre is in another pixel, and every arc would be moved
_TRANSFORMS_KEPT = 256


class PsfImages:
    """A set of PSF images, one of each band for every ``psf_id``.

    Parameters
    ----------
    images : mapping of int to array (bands, side, side), or array (n, bands, side, side)
        Pixels at the stamp's scale, the PSF's centre in the middle pixel, so the side is odd; an array is
        numbered from 0. The pixel's response is in the image (effective PSF) or not, as ``pixel_response``
        says.
    n_bands : int

    Attributes
    ----------
    sums : dict of int to float64 (bands,)
        What each image added up to before it was scaled to 1.

    Raises
    ------
    PsfError
        For an even side, a wrong shape, NaN, a sum further from 1 than 2 %, or a centroid off the middle
        pixel; names the ``psf_id`` and band number.
    """

    def __init__(self, images: Mapping[int, Any] | NDArray[Any], n_bands: int) -> None:
        numbered = images if isinstance(images, Mapping) else dict(enumerate(np.asarray(images)))
        self.pixels: dict[int, Floats] = {}
        self.sums: dict[int, Floats] = {}
        for psf_id, image in numbered.items():
            checked = _checked(int(psf_id), image, n_bands)
            self.sums[int(psf_id)] = checked.sum(axis=(1, 2))
            self.pixels[int(psf_id)] = checked / self.sums[int(psf_id)][:, None, None]
        self._transforms: dict[tuple[int, int, bool], NDArray[np.complex128]] = {}
        self._spectra: dict[tuple[int, int, bool], NDArray[np.float32]] = {}
        self._widths: dict[tuple[int, float], tuple[Floats, float, int]] = {}
        self._terms: dict[tuple[int, float, bytes], Terms | None] = {}
        self._lock = threading.Lock()

    def missing(self, psf_id: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the ids have no image."""
        return ~np.isin(psf_id, list(self.pixels))

    def widths(self, psf_id: NDArray[np.int64], lost: float) -> tuple[Floats, Floats, Floats]:
        """Return equivalent FWHM (n, bands), radius of all but ``lost`` of the light, half side [pix]."""
        unique, inverse = np.unique(psf_id, return_inverse=True)
        found = [
            self._kept(self._widths, (each, lost), partial(self._width, each, lost))
            for each in unique.tolist()
        ]
        fwhm, margin, half = (np.array(each, dtype=np.float64)[inverse] for each in zip(*found, strict=True))
        return fwhm, margin, half

    def _width(self, psf_id: int, lost: float) -> tuple[Floats, float, int]:
        pixels = self.pixels[psf_id]
        # of a Gaussian of unit flux and that peak; header widths of survey PSFs run 16 to 40 % larger
        fwhm = np.sqrt(4.0 * np.log(2.0) / np.pi / pixels.max(axis=(1, 2)))
        return fwhm, _radius_of_light(pixels, 1.0 - lost), pixels.shape[1] // 2

    def transform(self, psf_id: int, period: int, highest: bool) -> NDArray[np.complex128]:
        """Return the transform (bands, period, period // 2 + 1) of the image on a grid of its own pixels.

        Without ``highest`` it is zero at the highest frequency, which is one number with its mirror: on a
        finer grid they are two.
        """
        make = partial(self._make_transform, psf_id, period, highest)
        return self._kept(self._transforms, (psf_id, period, highest), make)

    def spectra(self, psf_id: int, period: int, highest: bool) -> NDArray[np.float32]:
        """Return the same as kernels take it, float32 (bands, n): ``fourier.spectra_of``."""

        def make() -> NDArray[np.float32]:
            found = spectra_of(self._field(psf_id, period).astype(np.float32))
            return found if highest else without_highest(found, period)

        return self._kept(self._spectra, (psf_id, period, highest), make)

    def _kept(self, known: dict[Any, T], key: Any, make: Callable[[], T]) -> T:
        """Return what is known under that key, made if need be: outside the lock, so that others go on."""
        with self._lock:
            if key in known:
                return known[key]
        found = make()
        with self._lock:
            if len(known) >= _TRANSFORMS_KEPT:
                known.clear()
            return known.setdefault(key, found)

    def terms(self, psf_id: int, response: NDArray[np.floating], lost: float) -> Terms | None:
        """Return the image on a grid of its own pixels as separable terms; None where they are too many.

        ``response`` (size,) and ``lost`` as those of ``separable_terms``.
        """
        transforms = self.transform(psf_id, response.size, True)
        key = (psf_id, lost, response.tobytes())
        return self._kept(self._terms, key, lambda: separable_terms(transforms, response, lost))

    def _make_transform(self, psf_id: int, period: int, highest: bool) -> NDArray[np.complex128]:
        own: NDArray[np.complex128] = np.fft.rfft2(self._field(psf_id, period))
        if not highest:
            own[:, period // 2] = own[:, :, period // 2] = 0.0
        return own

    def _field(self, psf_id: int, period: int) -> Floats:
        """Return the image (bands, period, period), its middle at node 0, what is left of that at the end."""
        pixels = self.pixels[psf_id]
        half = pixels.shape[1] // 2
        field = np.zeros((pixels.shape[0], period, period))
        index = np.arange(-half, half + 1) % period
        field[:, index[:, None], index[None, :]] = pixels
        return field


def _checked(psf_id: int, image: Any, n_bands: int) -> Floats:
    """Return the image as float64 (bands, side, side), or raise the ``PsfError`` that says what is wrong."""
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim == 2 and n_bands == 1:
        pixels = pixels[None]
    if pixels.ndim != 3 or pixels.shape[0] != n_bands or pixels.shape[1] != pixels.shape[2]:
        raise PsfError(f"PSF {psf_id} has shape {np.shape(image)}; needed: ({n_bands} bands, side, side)")
    side = pixels.shape[1]
    if side % 2 == 0:
        raise PsfError(
            f"PSF {psf_id} is {side} pixels a side: an even side has no middle pixel; crop or resample it to "
            "an odd side with its centre in the middle pixel"
        )
    if not np.isfinite(pixels).all():
        raise PsfError(f"PSF {psf_id} holds NaN or infinity; replace it")
    for band, plane in enumerate(pixels):
        total = float(plane.sum())
        if abs(total - 1.0) > SUM_TOLERANCE:
            raise PsfError(
                f"PSF {psf_id}, band {band}: pixels add up to {total:.4g}, not 1; divide by the sum, or "
                "take a larger image where it was cut"
            )
        offset = core_offset_pix(plane)
        if max(map(abs, offset)) > CENTRE_TOLERANCE_PIX:
            raise PsfError(
                f"PSF {psf_id}, band {band}: centroid at ({offset[0]:.2f}, {offset[1]:.2f}) pix from "
                "the middle pixel (x, y); it would move every arc: centre the image"
            )
    return pixels


def core_offset_pix(plane: Floats) -> tuple[float, float]:
    """Where a PSF's core lies from the middle pixel, (x, y).

    The centroid under a round Gaussian window as wide as the core, moved until it stays (SExtractor's
    XWIN_IMAGE). Plain moments are those of the wings' noise: on PsfEx models they are off by half a pixel
    where the core is off by a tenth.
    """
    half = plane.shape[0] // 2
    axis = np.arange(-half, half + 1)
    # of a Gaussian with that peak
    variance = max(plane.sum() / (2.0 * np.pi * plane.max()), 0.25)
    y, x = (float(i) - half for i in np.unravel_index(int(np.argmax(plane)), plane.shape))
    for _ in range(50):
        across, up = np.exp(-0.5 * (axis - x) ** 2 / variance), np.exp(-0.5 * (axis - y) ** 2 / variance)
        weight = plane * up[:, None] * across[None, :]
        step_x = 2.0 * float(weight.sum(axis=0) @ (axis - x)) / weight.sum()
        step_y = 2.0 * float(weight.sum(axis=1) @ (axis - y)) / weight.sum()
        x, y = x + step_x, y + step_y
        if abs(step_x) + abs(step_y) < 1e-6 or not (abs(x) <= half and abs(y) <= half):
            break
    return x, y


def _radius_of_light(pixels: Floats, fraction: float) -> float:
    """Return the radius that holds ``fraction`` of the light in every band, at most half the side [pix]."""
    half = pixels.shape[1] // 2
    axis = np.arange(-half, half + 1)
    radius = np.hypot(axis[:, None], axis[None, :])
    order = np.argsort(radius, axis=None, kind="stable")
    within = np.cumsum(pixels.reshape(pixels.shape[0], -1)[:, order], axis=1)
    reached = [radius.ravel()[order][int(np.argmax(band >= fraction))] for band in within]
    return float(min(max(reached), half))
