"""PSF images as separable terms: an independent way to the stamps that transforms give.

It is no quicker (``python -m arcforge.bench.psf_paths``): in the time that a row takes less its sampling, two
terms, of an image that is all but a round Gaussian, take 1.7 to 4 times as long as the transforms, the five
to seven of a Moffat 3 to 10 times; DECam's PSF images would need 36 to 58 terms for their noise. So only
``low_rank`` goes this way, and one path stands witness for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.gridding import grid_response
from arcforge.engine.scratch import MOST_RADIUS_NODES
from arcforge.kernels.codes import CONTROL, PSF_IMAGE

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.layout import Layout
    from arcforge.engine.psf_images import PsfImages
    from arcforge.engine.stamps import Options

Floats = NDArray[np.float64]

# Norm of what is left out of a kernel that adds up to 1 (times rtol / 1e-3). A pixel is then off by 30 times
# as much of the peak at the very most: an arc of a thousand pixels through a PSF of 5, what is left out of
# one sign all along it.
LOST_NORM = 1e-6
MOST_TERMS = 16


@dataclass(frozen=True)
class Terms:
    """The terms of every band: a sum of products of a line of weights in y and one in x.

    Weights count nodes of the grid from ``-radius`` on, as seen from the output pixel.
    """

    ranks: NDArray[np.int64]  #: (bands,)
    radii: NDArray[np.int64]  #: (bands,) nodes
    up: NDArray[np.float32]  #: (bands, most terms, 2 largest radii + 1)
    across: NDArray[np.float32]


def split_terms(
    columns: RenderColumns, options: Options, where: Layout, images: PsfImages | None
) -> dict[int, Terms]:
    """Return the terms of the PSF images of rows that have few, by row.

    A grid of several nodes a pixel has frequencies that an image does not: what cuts them off has no end, and
    is left to the transforms.
    """
    found: dict[int, Terms] = {}
    rows = (columns.psf_model == PSF_IMAGE) & (columns.lens_model != CONTROL) & (where.nodes_per_pixel == 1)
    lost = LOST_NORM * min(1.0, options.rtol / 1e-3)
    if images is None:
        return found
    for row in np.flatnonzero(rows & ~where.outside).tolist():
        response = grid_response(int(where.size[row]), 1, options.boxed, options.variant.samples, True)
        terms = images.terms(int(columns.psf_id[row]), response, lost)
        if terms is not None:
            found[row] = terms
    return found


def separable_terms(
    transforms: NDArray[np.complexfloating], response: NDArray[np.floating], lost: float
) -> Terms | None:
    """Split PSFs, times what the grid's samples call for, into terms; None where a band takes too many.

    By crosses: the row and the column of the largest element left, until the rest has a norm of ``lost``
    (Bebendorf 2000, Numer. Math. 86, 565). One or two terms more than by singular values, in a tenth of the
    time, and the same bits however many threads the linear algebra uses.

    Parameters
    ----------
    transforms : complex128 (bands, size, size // 2 + 1)
    response : float64 (size,)
        Factor per frequency and axis.
    lost : float
        Norm (root of the sum of squares) that truncation and rank may lose each.
    """
    size = response.size
    found = []
    for transform in transforms:
        factor = response[:, None] * response[None, : size // 2 + 1]
        kernel = np.fft.fftshift(np.fft.irfft2(transform * factor, s=(size, size)))
        split = _crosses(kernel, lost)
        if split is None:
            return None
        found.append(split)
    ranks = np.array([len(up) for up, _ in found])
    radii = np.array([up.shape[1] // 2 for up, _ in found])
    shape = len(found), int(ranks.max()), 2 * int(radii.max()) + 1
    lines = np.zeros((2, *shape), dtype=np.float32)
    for band, split in enumerate(found):
        for axis in range(2):
            # a pixel sees the node at -d through what the PSF has at d
            lines[axis, band, : ranks[band], : 2 * radii[band] + 1] = split[axis][:, ::-1]
    return Terms(ranks, radii, *lines)


def _crosses(kernel: Floats, lost: float) -> tuple[Floats, Floats] | None:
    """Return lines in y and x (terms, 2 radius + 1) whose products add up to the kernel about its middle."""
    middle = kernel.shape[0] // 2
    most = min(MOST_RADIUS_NODES, (kernel.shape[0] - 1) // 2)
    distance = np.abs(np.arange(kernel.shape[0]) - middle)
    within = np.maximum(distance[:, None], distance[None, :])
    beyond = np.bincount(within.ravel(), weights=(kernel**2).ravel())[::-1].cumsum()[::-1]
    radius = int(np.argmax(np.append(beyond, 0.0)[1:] <= lost**2))
    if radius > most:
        return None
    rest = kernel[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1].copy()
    up: list[Floats] = []
    across: list[Floats] = []
    while float((rest * rest).sum()) > lost**2:
        if len(up) == MOST_TERMS:
            return None
        j, i = divmod(int(np.argmax(np.abs(rest))), rest.shape[1])
        # the element's root to each side: weights of one size
        root = np.sqrt(abs(rest[j, i]))
        up.append(rest[:, i] / root)
        across.append(rest[j] / (root * np.sign(rest[j, i])))
        rest -= up[-1][:, None] * across[-1][None, :]
    return np.array(up), np.array(across)
