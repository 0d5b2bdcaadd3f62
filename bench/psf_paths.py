"""PSF images by transforms and as separable terms, side by side: would passes of weights take less time?

    python -m arcforge.bench.psf_paths

Rows of exponential sources, sampled as ``auto`` does; the time is what a row takes in all, less its sampling
(processor time of one thread, medians of interleaved repeats, images transformed and split beforehand).
"split" is how many of the rows have few enough terms; "differ" the largest difference of the two over the
peak.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.bench.cases import PIXSCALE_ARCSEC, draw_rows, source_named
from arcforge.bench.runner import time_calls
from arcforge.engine.catalog import RenderColumns, render_columns
from arcforge.engine.psf import moffat_alpha
from arcforge.engine.psf_images import PsfImages
from arcforge.engine.render import render_rows
from arcforge.engine.sampling import Sampler
from arcforge.engine.stamps import Options, make_batch
from arcforge.engine.variants import variant_named

_RTOL = 1e-3


@dataclass(frozen=True)
class Shape:
    """A PSF given as an image: a Moffat (``beta`` of 100: all but a Gaussian), its centre ``offset_pix`` off
    the middle pixel in x.
    """

    name: str
    side: int
    fwhm_pix: float
    beta: float
    e: float
    offset_pix: float

    def image(self, n_bands: int) -> NDArray[np.float64]:
        """Return the image (1, bands, side, side); bands differ by 4 % in width."""
        axis = np.arange(self.side) - self.side // 2
        x, y = axis[None, :] - self.offset_pix, axis[:, None]
        along, across = 0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x
        q = (1.0 - self.e) / (1.0 + self.e)
        wider = 1.0 + 0.04 * np.arange(n_bands, dtype=np.float64)
        alpha = moffat_alpha(np.asarray(self.fwhm_pix * wider, dtype=np.float64), self.beta)
        r2 = q * along**2 + across**2 / q
        images = (1.0 + r2 / alpha[:, None, None] ** 2) ** -self.beta
        return np.asarray(images / images.sum(axis=(1, 2), keepdims=True))[None]


SHAPES = (
    Shape("Gaussian", 31, 5.2, 100.0, 0.0, 0.0),
    Shape("Gaussian, e 0.1, off", 31, 5.2, 100.0, 0.1, 0.3),
    Shape("Moffat 4.7", 51, 5.2, 4.7, 0.0, 0.0),
    Shape("Moffat 3.5", 63, 5.2, 3.5, 0.0, 0.0),
    Shape("Moffat 3.5, e 0.1, off", 63, 5.2, 3.5, 0.1, 0.3),
)
STAMPS = (32, 64, 128)


def rows_through(n_rows: int, stamp_size: int, n_bands: int) -> RenderColumns:
    """Draw rows that all have PSF image 0."""
    rows = draw_rows(source_named("exponential"), n_rows, stamp_size)
    rows["psf_model"], rows["psf_id"] = np.full(n_rows, "image"), np.zeros(n_rows, dtype=np.int64)
    return render_columns(rows, "rgz"[:n_bands])


def compare(shape: Shape, stamp_size: int, n_bands: int, n_rows: int, repeats: int) -> dict[str, Any]:
    """Return what a row takes by transforms and as terms [us], and how far they differ."""
    columns = rows_through(n_rows, stamp_size, n_bands)
    images = PsfImages(shape.image(n_bands), n_bands)
    options = Options(stamp_size, PIXSCALE_ARCSEC, _RTOL, variant_named("low_rank"), False)
    terms = make_batch(columns, options, images).terms
    render = partial(
        render_rows, columns, stamp_size=stamp_size, pixscale_arcsec=PIXSCALE_ARCSEC, psf_images=images,
        threads=1,
    )  # fmt: skip
    stamps = render(), render(variant="low_rank")
    calls: dict[str, Callable[[], object]] = {
        "transforms": render,
        "terms": partial(render, variant="low_rank"),
        "sampling": Sampler(columns, options, images).fill,
    }
    cpu_us = {name: timing.cpu_s * 1e6 / n_rows for name, timing in time_calls(calls, repeats).items()}
    peaks = stamps[0].max(axis=(2, 3), keepdims=True)
    return {
        "ranks": sorted({tuple(each.ranks.tolist()) for each in terms.values()}),
        "radius": max((int(each.radii.max()) for each in terms.values()), default=0),
        "split": len(terms),
        "transforms_us": float(np.median(cpu_us["transforms"] - cpu_us["sampling"])),
        "terms_us": float(np.median(cpu_us["terms"] - cpu_us["sampling"])),
        "differ": float((np.abs(stamps[1] - stamps[0]) / peaks).max()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--stamps", type=int, nargs="+", default=list(STAMPS))
    given = parser.parse_args(arguments)
    sys.stdout.write(
        "PSF                     stamp  bands  most terms  radius  transforms us  terms us    split  differ\n"
    )
    for shape in SHAPES:
        for stamp_size in given.stamps:
            for n_bands in (1, 3):
                found = compare(shape, stamp_size, n_bands, given.rows, given.repeats)
                most = max((max(each) for each in found["ranks"]), default=0)
                sys.stdout.write(
                    f"{shape.name:23s} {stamp_size:5d}  {n_bands:5d}  {most:10d}  {found['radius']:6d}  "
                    f"{found['transforms_us']:13.0f}  {found['terms_us']:8.0f}  "
                    f"{found['split']:3d}/{given.rows:<3d}  {found['differ']:.0e}\n"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
