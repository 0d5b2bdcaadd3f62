"""Rows whose source is an image: their grids, filled by ray-tracing templates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import RenderError
from arcforge.engine.gridding import gridding_table
from arcforge.engine.source_bank import FINER
from arcforge.kernels.image_source import MOST, image_pixels, plan_cells
from arcforge.kernels.polar_source import MOST_BANDS, SECTORS, polar_grid

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.reference_images import ImageLight
    from arcforge.engine.scratch import Scratch
    from arcforge.engine.source_bank import SourceBank

Floats = NDArray[np.float64]

# Distance of rays in the source plane [pixels of the image], by the tolerance. No wave in a template is
# shorter than two pixels, so that rays 1.8 apart would tell them all from those that the PSF passes; what is
# left are the spline's own short waves. Measured on 81 COSMOS galaxies with their noise, sharpened, four
# times each, against rays 0.2 apart: largest errors of 9e-4 of the peak at 1.4, of 8e-5 at 0.4.
_APART_PIX = ((1e-3, 1.4), (1e-4, 0.4), (0.0, 0.2))
# Freed of noise those galaxies hold waves of less than 3.3 pixels of 0.22 of their flux at the most, with it
# up to 0.98. Over 1,296 rows of the former, rays 1.8 apart were off by 7e-4 at the most.
_SMOOTH, _APART_SMOOTH_PIX = 0.25, 1.8
# Rows without a PSF are sampled cell by cell instead, whose edges the rays have to find too.
_APART_IN_CELLS_PIX = 0.75
# Rays lie at most this many nodes apart in the image: what is integrated is the light times a gridding
# kernel, and that has a width too.
_MOST_APART_NODES = 0.7
# How closely rings are looked at before rays are sent: bands of them a pixel of the stamp.
_BANDS_A_PIX = 3.0


@dataclass(frozen=True)
class SourceRows:
    """Which rows are images, and how each template lies in the source plane."""

    bank: SourceBank
    number: NDArray[np.int64]  #: (n,) template of each row, -1 for a Sersic source
    template_pix: Floats  #: (n,) side of a spline's pixel in the stamp's pixels
    folded: RenderColumns  #: columns to fold: a round source as large as one of them
    bounded: RenderColumns  #: columns to lay grids out by: a Sersic source that ends where the template does

    def is_image(self, row: int) -> bool:
        """Tell whether a row's source is an image."""
        return bool(self.number[row] >= 0)

    def light(self, row: int, phi_rad: float) -> ImageLight | None:
        """The row's source as the arbiter takes it, None where it is no image."""
        from arcforge.engine.reference_images import ImageLight

        if not self.is_image(row):
            return None
        coefficients = self.bank.coefficients(int(self.number[row])).astype(np.float64)
        return ImageLight(coefficients, float(self.template_pix[row]), phi_rad)

    def fill(
        self,
        work: Scratch,
        row: int,
        kind: Any,
        fields: NDArray[np.float32],
        origin: float,
        nodes: int,
        bounds: NDArray[np.int64],
        rtol: float,
        boxed: bool,
        grid: NDArray[np.float32],
        passed: int,
    ) -> None:
        """Put the row's light for unit flux on its grid; arguments as the adaptive kernel's.

        ``passed`` are the nodes a pixel that hold all frequencies which the PSF passes.
        """
        if boxed:
            self._fill_cells(row, kind, fields, origin, nodes, bounds, rtol, grid)
            return
        coefficients = self.bank.coefficients(int(self.number[row]))
        amplitude = float(self.template_pix[row]) ** -2
        lens_x, lens_y = float(fields[0]), float(fields[1])
        y_first, y_end, x_first, x_end = (origin + (node - 0.5) / nodes for node in bounds.tolist())
        radius = math.hypot(
            max(abs(x_first - lens_x), abs(x_end - lens_x)), max(abs(y_first - lens_y), abs(y_end - lens_y))
        )
        bands = min(max(math.ceil(_BANDS_A_PIX * radius), 24), MOST_BANDS)
        held = work.hold_rays()
        lit, stretch, (xs, ys, us, vs, weights) = held.lit[:bands], held.stretch[:, :bands], held.lines
        apart, least = FINER * self._apart_pix(row, rtol), passed / _MOST_APART_NODES
        polar_grid(
            kind, fields, coefficients, np.float32(amplitude), np.float32(radius),
            np.float32(apart), np.float32(least), np.float32(origin), np.float32(nodes), bounds,
            gridding_table()[0], _directions(), held.middles, lit, stretch[0], stretch[1], xs, ys, us, vs,
            weights, grid,
        )  # fmt: skip

    def _apart_pix(self, row: int, rtol: float) -> float:
        """Distance of rays in the source plane [pixels of the image]."""
        if rtol >= _APART_PIX[0][0] and self.bank.short_waves(int(self.number[row])) < _SMOOTH:
            return _APART_SMOOTH_PIX
        return next(apart for least, apart in _APART_PIX if rtol >= least)

    def _fill_cells(
        self,
        row: int,
        kind: Any,
        fields: NDArray[np.float32],
        origin: float,
        nodes: int,
        bounds: NDArray[np.int64],
        rtol: float,
        grid: NDArray[np.float32],
    ) -> None:
        """The same for a row without a PSF."""
        grid[:] = 0.0
        n_y, n_x = int(bounds[1] - bounds[0]), int(bounds[3] - bounds[2])
        if n_y <= 0 or n_x <= 0:
            return
        coefficients = self.bank.coefficients(int(self.number[row]))
        step = np.float32(1.0 / nodes)
        x_first = np.float32(origin + bounds[2] / nodes)
        y_first = np.float32(origin + bounds[0] / nodes)
        xs, ys = np.empty((2, n_x + 1), dtype=np.float32)
        us, vs = np.empty((2, 2, n_x + 1), dtype=np.float32)
        samples = np.empty((2, n_y, n_x), dtype=np.uint8)
        half_v, half_u = (np.float32(0.5 * side) for side in coefficients.shape)
        apart = np.float32(FINER * _APART_IN_CELLS_PIX * min(1.0, (rtol / 1e-3) ** 0.5))
        plan_cells(kind, fields, half_u, half_v, x_first, y_first, step, apart, xs, ys, us, vs, samples)
        xs, ys, us, vs = np.empty((4, MOST * MOST), dtype=np.float32)
        image_pixels(
            kind, fields, coefficients, np.float32(float(self.template_pix[row]) ** -2), x_first, y_first,
            step, bounds, samples, xs, ys, us, vs, grid,
        )  # fmt: skip


def source_rows(columns: RenderColumns, bank: SourceBank | None, pixscale_arcsec: float) -> SourceRows | None:
    """Match rows with their templates; None where no row names one.

    Raises
    ------
    RenderError
        Where a row names a source that is not in the bank.
    """
    named = columns.source_id != ""
    if not named.any():
        return None
    number = np.full(len(columns), -1, dtype=np.int64)
    if bank is not None:
        number[named] = bank.numbers(columns.source_id[named])
    lost = named & (number < 0)
    if lost.any():
        row = int(np.argmax(lost))
        raise RenderError(
            f"row {row}: source image {columns.source_id[row]} was not given; add it to sources, or leave "
            "source_id empty"
        )
    assert bank is not None
    image = number >= 0
    at = np.where(image, number, 0)
    native = bank.reff_arcsec[at]
    scale = np.where(image & (columns.src_reff_arcsec > 0.0), columns.src_reff_arcsec / native, 1.0)
    side = bank.pixscale_arcsec[at] * scale
    # a Gaussian source (n = 1/2) holds all but 1e-6 of its light within 3.16 R_e: as far as the template goes
    reff = bank.half_diagonal_pix[at] * side / 3.0
    round_source = {
        "src_e": np.where(image, 0.0, columns.src_e),
        "src_n": np.where(image, 0.5, columns.src_n),
    }
    return SourceRows(
        bank,
        number,
        side / FINER / pixscale_arcsec,
        replace(
            columns, src_reff_arcsec=np.where(image, side / FINER, columns.src_reff_arcsec), **round_source
        ),
        replace(columns, src_reff_arcsec=np.where(image, reff, columns.src_reff_arcsec), **round_source),
    )


@lru_cache(maxsize=1)
def _directions() -> NDArray[np.float32]:
    """Cosine and sine of the sectors' edges, and of their middles: (4, SECTORS)."""
    edges = 2.0 * np.pi * np.arange(SECTORS) / SECTORS
    middles = edges + np.pi / SECTORS
    return np.stack([f(angles) for angles in (edges, middles) for f in (np.cos, np.sin)]).astype(np.float32)
