"""The ray-tracing part of a render alone: what each row's sampling takes, and a way to repeat it without
the PSF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.scratch import Scratch
from arcforge.engine.stamps import Options, _fill_one, make_batch
from arcforge.kernels.codes import CONTROL

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.psf_images import PsfImages


class Sampler:
    """Evaluates the light of rows on their grids, exactly as a render does before it applies the PSFs.

    Parameters
    ----------
    columns : RenderColumns
    options : Options
        Its variant is any but "reference".
    images : PsfImages, optional
        Those that rows name.

    Attributes
    ----------
    grid_size : int64 (n,)
        Nodes a side of every row's grid.
    """

    def __init__(self, columns: RenderColumns, options: Options, images: PsfImages | None = None) -> None:
        self._batch = make_batch(columns, options, images)
        where = self._batch.where
        self._work = Scratch()
        self._rows = [int(row) for row in np.flatnonzero(columns.lens_model != CONTROL)]
        self._grids = {
            int(size): np.empty((int(size), int(size)), dtype=np.float32) for size in set(where.size)
        }
        self.grid_size = where.size

    def fill(self) -> None:
        """Evaluate every row once; CONTROL rows hold no light and are passed over."""
        for row in self._rows:
            self._fill(row)

    def _fill(self, row: int) -> float:
        """Evaluate a row and return the samples that "auto" took."""
        grid = self._grids[int(self.grid_size[row])]
        return float(_fill_one(self._work, self._batch, row, grid)[0])

    def rays(self) -> NDArray[np.int64]:
        """Return the number of rays that each row takes, int64 (n,); 0 for CONTROL rows."""
        counts = np.zeros(len(self.grid_size), dtype=np.int64)
        samples = self._batch.options.variant.samples
        for row in self._rows:
            if samples:
                counts[row] = self._uniform_rays(row, samples)
            else:
                counts[row] = int(self._fill(row))
        return counts

    def _uniform_rays(self, row: int, samples: int) -> int:
        """Return the rays of a uniform variant: fewer a pixel beside the stamp."""
        where = self._batch.where
        first, end = where.first[row], where.first[row] + self._batch.options.stamp_size
        y_first, y_end, x_first, x_end = where.bounds[row]
        within = max(0, min(y_end, end) - max(y_first, first)) * max(0, min(x_end, end) - max(x_first, first))
        beside = (y_end - y_first) * (x_end - x_first) - within
        return int(within * samples**2 + beside * self._batch.options.variant.samples_beside**2)
