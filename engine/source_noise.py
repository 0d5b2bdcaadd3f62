"""Free the templates of a bank of their noise and of the sky around them, which lensing would magnify.

Kept is what stands out of the noise on some scale of the starlet transform, an undecimated wavelet transform
with the cubic B-spline (Starck, Fadili & Murtagh 2007, IEEE Transactions on Image Processing 16, 297), and is
positive: the multiresolution support of Starck & Murtagh (1994, A&A 288, 343) with a positive residual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.remedies import MAD_TO_SIGMA
from arcforge.engine.source_bank import Template

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SPLINE = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
# How far a coefficient has to stand out of the noise, by scale. Among the many pixels of the finest one a
# galaxy has little that its telescope's PSF did not blur, and dividing that PSF out would raise what is left.
_STANDS_OUT = (5.0, 4.0, 3.0)
_MEASURED = 3  # scales whose noise is measured; on coarser ones a stamp has too few waves to tell
_LEAST_SKY = 200  # pixels to measure it on
_ROUNDS = 10
_AROUND_PIX = 5  # kept about what is brighter than the noise
_FADE_PIX = 3
_RIM_PIX = 5  # of an image that was cleaned: faded out, no sky to measure
_DARK_SHARE = 1e-3  # of the peak: what is fainter is not worth its place about a template


def denoised(template: Template) -> Template:
    """The galaxy of a template, nowhere negative, without its noise and without the sky around it.

    Parameters
    ----------
    template
        Less its border's level.

    Returns
    -------
    Template
        Of the same shape. An image without noise is left as it is, up to what is negative.
    """
    pixels = template.pixels.astype(np.float64)
    noise, kept, fade = _patch(pixels)
    if noise == 0.0:
        return replace(template, pixels=np.maximum(template.pixels, np.float32(0.0)))
    scales = max(2, int(math.log2(min(pixels.shape))) - 2)
    layers, _ = starlet(pixels, scales)
    sky = _inner(pixels.shape) & (fade == 0.0)
    if sky.sum() < _LEAST_SKY:
        sky = _inner(pixels.shape)
    noises = [_spread(layer[sky]) for layer in layers[:_MEASURED]]
    of_white = _white_noise(scales)
    noises += [noises[-1] * each / of_white[len(noises) - 1] for each in of_white[_MEASURED:]]
    limits = [_STANDS_OUT[min(j, len(_STANDS_OUT) - 1)] * noises[j] for j in range(scales)]
    support = [kept & (np.abs(layer) > limit) for layer, limit in zip(layers, limits, strict=True)]
    found = np.zeros_like(pixels)
    for _ in range(_ROUNDS):
        layers, rest = starlet(pixels - found, scales)
        found += np.where(kept, rest, 0.0) + sum(
            np.where(m, w, 0.0) for m, w in zip(support, layers, strict=True)
        )
        found = np.maximum(found, 0.0) * fade
    return replace(template, pixels=found.astype(np.float32))


def cut_out(template: Template) -> Template:
    """The template cut out to where it holds light, about the same centre."""
    bright = np.abs(template.pixels) > _DARK_SHARE * template.pixels.max()
    window = []
    for axis, n in enumerate(bright.shape):
        at = np.flatnonzero(bright.any(axis=1 - axis))
        half = max(abs(at[0] - (n - 1) / 2), abs(at[-1] - (n - 1) / 2), 1.5)
        window.append(slice(round((n - 1) / 2 - half), round((n - 1) / 2 + half) + 1))
    return replace(template, pixels=np.ascontiguousarray(template.pixels[window[0], window[1]]))


def starlet(pixels: Floats, scales: int) -> tuple[list[Floats], Floats]:
    """Take an image apart by scale: it is the sum of the layers and the rest.

    Parameters
    ----------
    pixels : (ny, nx)
        Mirrored beyond its edges.
    scales : int
        How many layers; the j-th, from 0 on, holds structure of about ``2**j`` pixels.

    Returns
    -------
    list of (ny, nx), (ny, nx)
        Layers from the finest on, and what is smoother than all of them.
    """
    from scipy.ndimage import convolve1d

    layers, rest = [], pixels
    for j in range(scales):
        kernel = np.zeros(4 * 2**j + 1)
        kernel[:: 2**j] = _SPLINE
        smooth = convolve1d(convolve1d(rest, kernel, axis=0), kernel, axis=1)
        layers.append(rest - smooth)
        rest = smooth
    return layers, rest


@cache
def _white_noise(scales: int) -> Sequence[float]:
    """Standard deviation of each layer of white noise of unit variance."""
    side = 2 ** (scales + 3) + 1
    point = np.zeros((side, side))
    point[side // 2, side // 2] = 1.0
    return [float(np.sqrt((layer**2).sum())) for layer in starlet(point, scales)[0]]


def _patch(pixels: Floats) -> tuple[float, Mask, Floats]:
    """Find the galaxy: about its brightest spot, the patch where the image smoothed by two pixels is above
    twice its noise.

    Returns the noise of the smoothed image; the patch, five pixels wider; and weights that fall to 0 across
    the outermost three of them.
    """
    from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label

    smooth = gaussian_filter(pixels, 2.0)
    # light is positive: noise alone is as often below its level as above
    below = smooth[_inner(pixels.shape) & (smooth < 0.0)]
    noise = _spread(below) if below.size else 0.0
    patches, _ = label(smooth > 2.0 * noise)
    own = patches == patches[np.unravel_index(int(np.argmax(smooth)), smooth.shape)]
    kept = binary_dilation(own, iterations=_AROUND_PIX)
    fade = np.clip(distance_transform_edt(np.pad(kept, 1))[1:-1, 1:-1] / _FADE_PIX, 0.0, 1.0)
    return noise, kept, fade


def _inner(shape: tuple[int, ...]) -> Mask:
    rim = min(_RIM_PIX, min(shape) // 8)
    inner = np.zeros(shape, dtype=np.bool_)
    inner[rim : shape[0] - rim, rim : shape[1] - rim] = True
    return inner


def _spread(values: Floats) -> float:
    """Standard deviation of noise about 0, from its median size."""
    return MAD_TO_SIGMA * float(np.median(np.abs(values)))
