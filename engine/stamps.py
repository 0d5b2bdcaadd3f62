"""From validated columns to stamps: rays on a grid, the PSF by FFT, the stamp cut out; rows alike together.

Threads are plain Python threads, each with its own plans and scratch, on its own rows: kernels and
transforms release the GIL. A row's pixels depend on that row and the options alone, so every thread count,
batch size and order gives the same bits.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine import fftw
from arcforge.engine.errors import RenderError
from arcforge.engine.fourier import LEAST_SIDE, steps
from arcforge.engine.gridding import grid_response, gridding_table, node_type
from arcforge.engine.layout import COARSEST, Layout, layout
from arcforge.engine.low_rank import Terms, split_terms
from arcforge.engine.psf import MOFFAT_NODES_PER_UNIT, gaussian_sigma, moffat_alpha, moffat_table
from arcforge.engine.rays import KINDS, Folded, fold
from arcforge.engine.scratch import MOST_RADIUS_NODES, Scratch
from arcforge.engine.threads import for_each, usable_threads
from arcforge.engine.variants import Variant
from arcforge.kernels.adaptive import adaptive_grids
from arcforge.kernels.codes import CONTROL, PSF_GAUSSIAN, PSF_IMAGE, PSF_MOFFAT, PSF_NONE
from arcforge.kernels.fourier import convolve_rows
from arcforge.kernels.lanes import LANES
from arcforge.kernels.low_rank import convolve_low_rank
from arcforge.kernels.separable import convolve_gaussians
from arcforge.kernels.spread import BASE
from arcforge.kernels.transfer import apply_even, apply_images
from arcforge.kernels.uniform import uniform_grid

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.psf_images import PsfImages
    from arcforge.engine.source_rows import SourceRows

Images = NDArray[np.float32]
Floating = NDArray[np.floating]
ROWS_A_TASK = 16
_OWN = threading.local()  # a thread's Scratch
_LEAST_A_TASK = 4
# Nodes of the grids that one call fills and the next convolves. Every call gives up the GIL and has to get it
# back, which costs threads more than grids that leave the level-2 cache for the third.
_NODES_AT_ONCE = 160_000
_TOGETHER = 3
_NO_IMAGE: Images = np.empty((1, 0), dtype=np.float32)
# Gaussians can be convolved in two passes where their weights are few: narrower ones have power at the grid's
# highest frequency, which makes weights that do not end. Weights below this level are left out (times
# rtol / 1e-3).
LEAST_SIGMA_NODES = 1.6
_WEIGHT_LEVEL = 1e-6
# Of light off the stamp, which is far brighter, the stamp sees the faint side: a share of the tolerance.
_OFF_STAMP = 0.3


def cell_tolerance(rtol: float) -> float:
    """Return the tolerance of one cell that keeps the image within ``rtol``.

    Three times rtol, a third of it from 1e-4 on: with the whole of it, two of 12,000 random rows of the
    stated ranges were off by 1.1e-4 and 1.2e-4.
    """
    rtol = min(rtol, COARSEST)
    return float(rtol * max(0.35, 3.0 * min(1.0, (rtol / 1e-3) ** 0.93)))


@dataclass(frozen=True)
class Options:
    """What applies to every row of a batch."""

    stamp_size: int
    pixscale_arcsec: float
    rtol: float
    variant: Variant
    boxed: bool  #: the PSF lacks the pixel's response, which is applied too


# Nodes that samples within the bounds are spread to: the last cell begins BASE before their end.
_REACHED = np.array([-3, 3, -3, 3])


@dataclass(frozen=True)
class _Batch:
    """Rows ready to be rendered, one after the other."""

    columns: RenderColumns
    options: Options
    rays: Folded
    where: Layout
    images: PsfImages | None
    scales: NDArray[np.float64]  #: (n, bands), flux times what the transforms' size asks for
    widths_pix: NDArray[np.float64]  #: (n, bands), sigma of a Gaussian, alpha of a Moffat
    radii: NDArray[np.int64]  #: (n, bands) nodes that a Gaussian's weights reach; 0 where the FFT serves
    terms: dict[int, Terms]  #: of the rows whose PSF images are applied as such
    sources: SourceRows | None = None
    magnification: Floating | None = None  #: (n,) to be filled: lensed over unlensed flux
    effort: Floating | None = None  #: (n, 3) to be filled: samples, divided cells, bound on the error


def make_batch(
    columns: RenderColumns,
    options: Options,
    images: PsfImages | None,
    sources: SourceRows | None = None,
    magnification: Floating | None = None,
    effort: Floating | None = None,
) -> _Batch:
    """Lay out and fold every row."""
    where = layout(
        columns if sources is None else sources.bounded,
        stamp_size=options.stamp_size,
        pixscale_arcsec=options.pixscale_arcsec,
        rtol=options.rtol,
        uniform=options.variant.samples > 0,
        images=images,
    )
    rays = fold(columns if sources is None else sources.folded, options.pixscale_arcsec)
    fwhm_pix = columns.psf_fwhm_arcsec / options.pixscale_arcsec
    gaussian = (columns.psf_model == PSF_GAUSSIAN)[:, None]
    alpha_pix = moffat_alpha(fwhm_pix, columns.moffat_beta[:, None])
    widths_pix = np.where(gaussian, gaussian_sigma(fwhm_pix), alpha_pix)
    scales = columns.src_flux_nmgy * ((where.nodes_per_pixel / where.size) ** 2)[:, None]
    radii, terms = np.zeros(widths_pix.shape, dtype=np.int64), {}
    if options.variant.low_rank:
        radii = _separable_radii(widths_pix * where.nodes_per_pixel[:, None], options.rtol)
        radii[(columns.psf_model != PSF_GAUSSIAN) | (columns.lens_model == CONTROL) | where.outside] = 0
        terms = split_terms(columns, options, where, images)
    return _Batch(
        columns, options, rays, where, images, scales, widths_pix, radii, terms, sources, magnification,
        effort,
    )  # fmt: skip


def _separable_radii(sigma_nodes: Floating, rtol: float) -> NDArray[np.int64]:
    """Return how far the weights of Gaussians (n, bands) reach; 0 where a band of the row has too many."""
    level = _WEIGHT_LEVEL * min(1.0, rtol / 1e-3)
    radii = np.ceil(sigma_nodes * np.sqrt(-2.0 * np.log(level)))
    fits = (sigma_nodes >= LEAST_SIGMA_NODES).all(axis=1) & (radii <= MOST_RADIUS_NODES).all(axis=1)
    return np.where(fits[:, None], radii, 0.0).astype(np.int64)


def _fill_grids(work: Scratch, batch: _Batch, rows: list[int], grids: Images, report: Floating) -> None:
    """Evaluate the light of rows for unit flux on their grids (k, size, size), all alike.

    ``report`` (k, 3) is filled as ``adaptive_grids`` does, by that one only.
    """
    where, options = batch.where, batch.options
    first = rows[0]
    nodes, size = int(where.nodes_per_pixel[first]), grids.shape[1]
    origin = -0.5 * (options.stamp_size - 1) - where.first[first] / nodes
    kind, fields = KINDS[batch.rays.kinds[first]], batch.rays.fields
    model, samples = batch.columns.psf_model[first], options.variant.samples
    if batch.sources is not None and batch.sources.is_image(first):
        passed = 1 if model == PSF_IMAGE else nodes
        for grid, row in zip(grids, rows, strict=True):
            batch.sources.fill(
                work, row, kind, fields[row], origin, nodes, where.bounds[row], options.rtol,
                bool(model == PSF_NONE), grid, passed,
            )  # fmt: skip
        return
    if samples:
        lines = work.hold_line(2 * (samples * size + LANES)).reshape(2, -1)
        stamp = where.first[first] + np.array([0, options.stamp_size])
        beside = options.variant.samples_beside
        for grid, row in zip(grids, rows, strict=True):
            uniform_grid(kind, fields[row], samples, beside, origin, where.bounds[row], stamp, lines, grid)
        return
    bounds = where.bounds[rows]
    up, across = (bounds[:, 1] - bounds[:, 0]) // BASE, (bounds[:, 3] - bounds[:, 2]) // BASE
    work.hold(int((up * across).max()), int(BASE * across.max()))
    table, stencil = gridding_table()
    eta = cell_tolerance(options.rtol) * np.where(where.beyond[rows], _OFF_STAMP, 1.0)
    adaptive_grids(
        kind, fields[rows], eta.astype(np.float32), where.peak_floor[rows], where.window[rows],
        bool(model == PSF_NONE), batch.effort is not None, np.float32(origin), np.float32(nodes),
        bounds, table, stencil, work.first, work.stack_place, work.stack_node, work.lines, work.samples,
        work.cells, work.nodes, work.weights, work.hold_grid(size, "part")[0], grids, report,
    )  # fmt: skip
    if batch.effort is not None:
        batch.effort[rows] = report


def _fill_one(work: Scratch, batch: _Batch, row: int, grid: Images) -> Floating:
    """Evaluate the light of one row, and return its report."""
    report: Floating = np.zeros((1, 3))
    _fill_grids(work, batch, [row], grid[None], report)
    return np.asarray(report[0])


def _render_unconvolved(work: Scratch, batch: _Batch, row: int, out: Images) -> None:
    """Render a row without a PSF, or without a lens, into ``out`` (bands, ny, nx)."""
    columns, where = batch.columns, batch.where
    if columns.lens_model[row] == CONTROL:
        out[:] = 0.0
        if batch.magnification is not None:
            batch.magnification[row] = np.nan
        return
    stamp_size, size = out.shape[-1], int(where.size[row])
    grid = np.empty((size, size), dtype=np.float32)
    _fill_one(work, batch, row, grid)
    if batch.magnification is not None:
        batch.magnification[row] = grid.sum(dtype=np.float64)
    flux = columns.src_flux_nmgy[row].astype(np.float32)
    np.multiply(grid[:stamp_size, :stamp_size], flux[:, None, None], out=out)


def _render_alike(work: Scratch, batch: _Batch, rows: list[int], out: Images) -> None:
    """Render rows that share grid, lens, PSF model and beta or image, into their places in ``out``."""
    where, options, columns = batch.where, batch.options, batch.columns
    one = rows[0]
    size, nodes, first = int(where.size[one]), int(where.nodes_per_pixel[one]), int(where.first[one])
    grids = work.hold_grid(size, count=len(rows))
    _fill_grids(work, batch, rows, grids, np.empty((len(rows), 3)))
    # A PSF image passes nothing that its own pixels cannot hold: all that it leaves lies in the spectrum of a
    # grid of one node a pixel, whose inverse takes a fraction of the time.
    model, period, apart, psf = columns.psf_model[one], size, nodes, _NO_IMAGE
    if model == PSF_IMAGE:
        assert batch.images is not None
        period, apart = size // nodes, 1
        psf = batch.images.spectra(int(columns.psf_id[one]), period, nodes == 1)
    response = grid_response(size, nodes, options.boxed, options.variant.samples, False)
    held, sums = work.hold_buffers(size), np.empty(len(rows))
    convolve_rows(
        grids, where.bounds[rows][:, 2:] + _REACHED[2:], psf, bool(model == PSF_GAUSSIAN),
        batch.widths_pix[rows], _table(columns, one, False), MOFFAT_NODES_PER_UNIT, response, nodes,
        batch.scales[rows], first // nodes * apart, apart, *steps(size), period, *steps(period),
        held.quarter(period), held.a, held.b, held.z, held.pair, held.turned, held.spectrum, sums,
        np.array(rows), out,
    )  # fmt: skip
    if batch.magnification is not None:
        unspread = float(grid_response(size, nodes, False, options.variant.samples, False)[0]) ** 2
        batch.magnification[rows] = sums * unspread


def _render_double(work: Scratch, batch: _Batch, row: int, out: Images) -> None:
    """Render a row with float64 transforms into ``out`` (bands, ny, nx): its light may lie off the stamp."""
    where, options, columns = batch.where, batch.options, batch.columns
    n_bands, stamp_size = out.shape[:2]
    size, nodes, first = int(where.size[row]), int(where.nodes_per_pixel[row]), int(where.first[row])
    wanted = slice(first, first + stamp_size * nodes, nodes)
    is_cropped = bool(columns.psf_model[row] == PSF_IMAGE and nodes > 1)
    plans = fftw.transforms(size, 1 if is_cropped else n_bands, wanted)
    back = plans
    if is_cropped:
        wanted = slice(first // nodes, first // nodes + stamp_size)
        back = fftw.transforms(size // nodes, n_bands, wanted)
    grid = work.hold_grid(size)[0]
    _fill_one(work, batch, row, grid)
    plans.grid[:] = grid
    plans.forward()
    samples = options.variant.samples
    response = grid_response(size, nodes, options.boxed, samples, True)
    if batch.magnification is not None:
        # the sum of all nodes, for a source of unit flux, less what gridding makes of it
        unspread = float(grid_response(size, nodes, False, samples, True)[0]) ** 2
        batch.magnification[row] = float(plans.spectrum[0, 0]) * unspread
    if columns.psf_model[row] == PSF_IMAGE:
        assert batch.images is not None
        transforms = batch.images.transform(int(columns.psf_id[row]), back.spectrum.shape[0], nodes == 1)
        apply_images(
            plans.spectrum, transforms.view(np.float64), response, batch.scales[row], back.band_spectra
        )
    else:
        gaussian = bool(columns.psf_model[row] == PSF_GAUSSIAN)
        apply_even(
            plans.spectrum, gaussian, batch.widths_pix[row], _table(columns, row, True),
            MOFFAT_NODES_PER_UNIT, response, nodes, batch.scales[row], plans.quarter, plans.line,
            plans.band_spectra,
        )  # fmt: skip
    back.inverse()
    out[:] = back.images[..., wanted]


def _render_separable(work: Scratch, batch: _Batch, row: int, out: Images) -> None:
    """Render a row with Gaussian PSFs, or images in terms, into ``out`` (bands, ny, nx), by passes."""
    where, options = batch.where, batch.options
    size, nodes, first = int(where.size[row]), int(where.nodes_per_pixel[row]), int(where.first[row])
    grid = work.hold_grid(size)[0]
    _fill_one(work, batch, row, grid)
    samples, lit, scales = options.variant.samples, where.bounds[row] + _REACHED, batch.scales[row] * size**2
    nodes_across = max(out.shape[-1] * nodes, LANES)
    line = work.hold_line(nodes_across + max(size, nodes_across + 2 * (MOST_RADIUS_NODES + LANES)))
    sums, line = line[:nodes_across], line[nodes_across:]
    terms = batch.terms.get(row)
    if terms is not None:
        total = convolve_low_rank(
            grid, lit, first, nodes, terms.ranks, terms.radii, terms.up, terms.across, scales, line, sums, out
        )
    else:
        total = convolve_gaussians(
            grid, lit, first, nodes, batch.widths_pix[row], batch.radii[row],
            grid_response(size, nodes, options.boxed, samples, True), _cosines(size), scales, work.psf_half,
            work.psf_weights, line, sums, out,
        )  # fmt: skip
    if batch.magnification is not None:
        batch.magnification[row] = total * float(grid_response(size, nodes, False, samples, True)[0]) ** 2


@lru_cache(maxsize=64)
def _cosines(size: int) -> NDArray[np.float64]:
    return np.cos(2.0 * np.pi * np.arange(size) / size)


def _table(columns: RenderColumns, row: int, double: bool) -> Floating:
    """Return the transform of a row's Moffat; of another PSF, which has no use for it, zeros."""
    if columns.psf_model[row] == PSF_MOFFAT:
        return _moffat_table(float(columns.moffat_beta[row]), double)
    return np.zeros(2, dtype=node_type(double))


@lru_cache(maxsize=64)
def _moffat_table(beta: float, double: bool) -> Floating:
    return np.ascontiguousarray(moffat_table(beta).astype(node_type(double)))


def render(
    columns: RenderColumns,
    options: Options,
    threads: int | None,
    out: Images,
    images: PsfImages | None = None,
    sources: SourceRows | None = None,
    magnification: Floating | None = None,
    effort: Floating | None = None,
) -> None:
    """Render every row into ``out`` (n, bands, ny, nx), in parallel over rows."""
    _check_images(columns, images)
    if effort is not None:
        effort[:] = np.nan
    batch = make_batch(columns, options, images, sources, magnification, effort)
    order, alike = _in_order(batch)
    used = usable_threads(threads)
    size = min(ROWS_A_TASK, max(_LEAST_A_TASK, len(order) // (2 * used)))
    # large grids come last in the order; begun first, they leave no thread waiting for another at the end
    tasks = [order[i : i + size] for i in range(0, len(order), size)][::-1]

    def run(rows: NDArray[np.int64]) -> None:
        if not hasattr(_OWN, "work"):
            _OWN.work = Scratch()
        for (way, nodes, *_), group in groupby(rows.tolist(), alike.__getitem__):
            members = list(group)
            if way == _TOGETHER:
                step = max(1, _NODES_AT_ONCE // nodes**2)
                for i in range(0, len(members), step):
                    _render_alike(_OWN.work, batch, members[i : i + step], out)
            else:
                for row in members:
                    _ALONE[way](_OWN.work, batch, row, out[row])

    for_each(run, tasks, used)


_ALONE = (_render_unconvolved, _render_separable, _render_double)


def _in_order(batch: _Batch) -> tuple[NDArray[np.int64], list[tuple[Any, ...]]]:
    """Return the rows in the order to render them, and of every row what those rendered with it share.

    The way (a place in ``_ALONE``, or ``_TOGETHER``), nodes a side and a pixel; lens, PSF and kind of source.
    """
    columns, where = batch.columns, batch.where
    passes: NDArray[np.bool_] = np.asarray(batch.radii.any(axis=1))
    passes[list(batch.terms)] = True
    plain = (columns.psf_model == PSF_NONE) | (columns.lens_model == CONTROL)
    double = where.outside | (batch.options.stamp_size < LEAST_SIDE)
    way = np.select([plain, passes, double], [0, 1, 2], _TOGETHER)
    image = batch.sources.number >= 0 if batch.sources is not None else np.zeros(len(way))
    beta = np.where(columns.psf_model == PSF_MOFFAT, columns.moffat_beta, 0.0)
    psf_id = np.where(columns.psf_model == PSF_IMAGE, columns.psf_id, 0)
    keys = way, where.size, where.nodes_per_pixel, batch.rays.kinds, columns.psf_model, image, beta, psf_id
    order = np.lexsort(keys[::-1])
    return order, list(zip(*(key.tolist() for key in keys), strict=True))


def _check_images(columns: RenderColumns, images: PsfImages | None) -> None:
    """Refuse rows that name a PSF image which was not given."""
    rows = columns.psf_model == PSF_IMAGE
    lost = rows if images is None else rows & images.missing(columns.psf_id)
    if lost.any():
        row = int(np.argmax(lost))
        raise RenderError(
            f"row {row}: PSF image {columns.psf_id[row]} was not given; "
            "add it to psf_images, or use another psf_model"
        )
