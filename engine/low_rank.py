"""PSF images as separable terms: for rows whose stamps they give in less time than transforms do.

``python -m arcforge.bench.psf_paths`` measures when, in the time that a row takes less its sampling. Two
terms, of an image that is all but a round Gaussian, take as long as the transforms on stamps of 32 and 64
pixels (0.8 to 1.1 times) and 0.5 to 0.85 times as long on 128; the five to seven of a Moffat 1.1 to 5 times
as long, the more the larger the stamp; those of an elliptical one that is off its pixel 2 to 10 times; and
DECam's PSF images would need 36 to 58 for their noise. So Moffats stay with their closed transforms, and
terms are for a variant of their own: splitting takes 2 ms, which only an image that a hundred rows share
gives back, and no row may be rendered otherwise for the rows beside it.
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
# More never pay (``python -m arcforge.bench.psf_paths``).
MOST_TERMS = 16
# A step of eight pixels in the passes takes as long as one of the size^2 log2(size) of a transform, 0.4 ns.
# What makes no difference is left to the transforms.
LARGEST_COST = 0.8


@dataclass(frozen=True)
class Terms:
    """The terms of every band: a sum of products of a line of weights in y and one in x.

    Weights count nodes of the grid from ``-radius`` on, as seen from the output pixel.
    """

    ranks: NDArray[np.int64]  #: (bands,)
    radii: NDArray[np.int64]  #: (bands,) nodes
    up: NDArray[np.float32]  #: (bands, most terms, 2 largest radii + 1)
    across: NDArray[np.float32]

    def cost(self, stamp_size: int, lit: NDArray[np.int64]) -> Floats:
        """Steps of eight pixels (n,) that the passes take over nodes ``lit`` (n, 4)."""
        high, wide, taps = (
            lit[:, 1, None] - lit[:, 0, None],
            lit[:, 3, None] - lit[:, 2, None],
            2 * self.radii + 1,
        )
        down = np.minimum(high, taps) * np.minimum(wide, stamp_size + taps)
        along = np.minimum(wide, taps) * stamp_size
        return np.asarray((down + along) @ self.ranks * stamp_size / 8.0)


def cheap_terms(
    columns: RenderColumns,
    options: Options,
    where: Layout,
    images: PsfImages | None,
    lit: NDArray[np.int64],
) -> dict[int, Terms]:
    """Return the terms of the PSF images of rows where they take less time than transforms, by row.

    ``lit`` (n, 4) are the nodes that are not zero. A grid of several nodes a pixel has frequencies that an
    image does not: what cuts them off has no end, and is left to the transforms.
    """
    found: dict[int, Terms] = {}
    rows = (columns.psf_model == PSF_IMAGE) & (columns.lens_model != CONTROL) & (where.nodes_per_pixel == 1)
    places = np.flatnonzero(rows & ~where.outside)
    if images is None or places.size == 0:
        return found
    lost = LOST_NORM * min(1.0, options.rtol / 1e-3)
    groups, group = np.unique(
        np.stack([columns.psf_id[places], where.size[places]]), axis=1, return_inverse=True
    )
    for k, (psf_id, size) in enumerate(groups.T.tolist()):
        response = grid_response(size, 1, options.boxed, options.variant.samples, True)
        terms = images.terms(psf_id, response, lost)
        if terms is not None:
            alike = places[group.ravel() == k]
            cost = terms.cost(options.stamp_size, lit[alike])
            cheap = alike[cost < LARGEST_COST * transforms_cost(size, len(terms.ranks))]
            found |= dict.fromkeys(cheap.tolist(), terms)
    return found


def transforms_cost(size: int, n_bands: int) -> float:
    """Steps of the transforms of a grid, forth once and back for every band."""
    return float((1 + n_bands) * size**2 * np.log2(size))


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
