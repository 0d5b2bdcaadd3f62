"""From validated columns to stamps: rays on a grid, the PSF by FFT, the stamp cut out; one row after the
other.

Threads are plain Python threads, each with its own FFTW plans and scratch, on its own rows: kernels and
transforms release the GIL. A row's pixels depend on that row and the options alone, so every thread count,
batch size and order gives the same bits.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine import fftw
from arcforge.engine.errors import RenderError
from arcforge.engine.gridding import grid_response, gridding_table, node_type
from arcforge.engine.layout import COARSEST, Layout, layout
from arcforge.engine.low_rank import Terms, cheap_terms
from arcforge.engine.psf import MOFFAT_NODES_PER_UNIT, gaussian_sigma, moffat_alpha, moffat_table
from arcforge.engine.rays import KINDS, Folded, fold
from arcforge.engine.scratch import MOST_RADIUS_NODES, Scratch
from arcforge.engine.threads import for_each, usable_threads
from arcforge.engine.variants import Variant
from arcforge.kernels.adaptive import adaptive_grid
from arcforge.kernels.codes import CONTROL, PSF_GAUSSIAN, PSF_IMAGE, PSF_NONE
from arcforge.kernels.lanes import LANES
from arcforge.kernels.low_rank import convolve_low_rank
from arcforge.kernels.separable import convolve_gaussians
from arcforge.kernels.transfer import apply_gaussians, apply_images, apply_radials
from arcforge.kernels.uniform import uniform_grid

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.psf_images import PsfImages
    from arcforge.engine.source_rows import SourceRows

Images = NDArray[np.float32]
Floating = NDArray[np.floating]
ROWS_A_TASK = 16
_OWN = threading.local()  # a thread's Scratch
# Stamps transformed by one call. Every call gives up the GIL and has to get it back, which costs threads more
# than the cache misses of four stamps' spectra; those of a large grid fill the cache by themselves.
_STAMPS_AT_ONCE, _LARGE_GRID = 4, 160
_NO_GRID = (0, 0, False, False)
# Gaussians are convolved in two passes where their weights are few: narrower ones have power at the grid's
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
    radii = _separable_radii(widths_pix * where.nodes_per_pixel[:, None], options.rtol)
    radii[(columns.psf_model != PSF_GAUSSIAN) | (columns.lens_model == CONTROL) | where.outside] = 0
    by_terms = images is not None and options.variant.low_rank
    terms = cheap_terms(columns, options, where, images, where.bounds + _REACHED) if by_terms else {}
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


def _fill_grid(work: Scratch, batch: _Batch, row: int, grid: Images) -> None:
    """Evaluate the row's light for unit flux on its grid."""
    where, options = batch.where, batch.options
    nodes, bounds = int(where.nodes_per_pixel[row]), where.bounds[row]
    origin = -0.5 * (options.stamp_size - 1) - where.first[row] / nodes
    kind, fields = KINDS[batch.rays.kinds[row]], batch.rays.fields[row]
    samples = options.variant.samples
    if batch.sources is not None and batch.sources.is_image(row):
        model = batch.columns.psf_model[row]
        passed = 1 if model == PSF_IMAGE else nodes
        boxed = bool(model == PSF_NONE)
        batch.sources.fill(row, kind, fields, origin, nodes, bounds, options.rtol, boxed, grid, passed)
        return
    if samples:
        line = work.hold_line(samples * grid.shape[0] + LANES)
        stamp = where.first[row] + np.array([0, options.stamp_size])
        beside = options.variant.samples_beside
        uniform_grid(kind, fields, samples, beside, origin, bounds, stamp, line, grid)
        return
    first = work.hold(int(bounds[1] - bounds[0]), int(bounds[3] - bounds[2]))
    table, stencil = gridding_table()
    boxed = bool(batch.columns.psf_model[row] == PSF_NONE)
    eta = cell_tolerance(options.rtol) * (_OFF_STAMP if where.beyond[row] else 1.0)
    adaptive_grid(
        kind, fields, np.float32(eta), where.peak_floor[row],
        int(where.window[row]), boxed, batch.effort is not None, np.float32(origin), np.float32(nodes),
        bounds, table, stencil, first, work.stack_place, work.stack_node, work.lines, work.samples,
        work.cells, work.nodes, work.weights, work.hold_grid(grid.shape[0], "part"), grid, work.report,
    )  # fmt: skip
    if batch.effort is not None:
        batch.effort[row] = work.report


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
    _fill_grid(work, batch, row, grid)
    if batch.magnification is not None:
        batch.magnification[row] = grid.sum(dtype=np.float64)
    flux = columns.src_flux_nmgy[row].astype(np.float32)
    np.multiply(grid[:stamp_size, :stamp_size], flux[:, None, None], out=out)


def _render_alike(work: Scratch, batch: _Batch, rows: list[int], out: Images) -> None:
    """Render a few rows with PSFs, of one grid, into their places in ``out``."""
    where, options = batch.where, batch.options
    n_bands, stamp_size = out.shape[1:3]
    size, nodes = int(where.size[rows[0]]), int(where.nodes_per_pixel[rows[0]])
    first, double = int(where.first[rows[0]]), bool(where.outside[rows[0]])
    wanted = slice(first, first + stamp_size * nodes, nodes)
    by_image = bool(batch.columns.psf_model[rows[0]] == PSF_IMAGE)
    # A PSF image passes nothing that its own pixels cannot hold: all that it leaves lies in the spectrum of a
    # grid of one node a pixel, whose inverse takes a fraction of the time.
    is_cropped = by_image and nodes > 1
    plans = fftw.transforms(size, 1 if is_cropped else n_bands, len(rows), wanted, double=double)
    back = plans
    if is_cropped:
        wanted = slice(first // nodes, first // nodes + stamp_size)
        back = fftw.transforms(size // nodes, n_bands, len(rows), wanted, double=double)
    for k, row in enumerate(rows):
        if double:
            grid = np.empty((size, size), dtype=np.float32)
            _fill_grid(work, batch, row, grid)
            plans.grid[k] = grid
        else:
            _fill_grid(work, batch, row, plans.grid[k])
    plans.forward()
    samples = options.variant.samples
    response = grid_response(size, nodes, options.boxed, samples, double)
    # the sum of all nodes, for a source of unit flux, less what gridding and pixel response make of it
    unspread = float(grid_response(size, nodes, False, samples, double)[0]) ** 2
    for k, row in enumerate(rows):
        if batch.magnification is not None:
            batch.magnification[row] = float(plans.spectrum[k, 0, 0]) * unspread
        if by_image:
            _apply_image(batch, row, plans.spectrum[k], response, nodes, back.band_spectra[k])
        else:
            _apply_psf(batch, row, plans, k, response, nodes)
    back.inverse()
    out[rows] = back.images[..., wanted]


def _render_separable(work: Scratch, batch: _Batch, row: int, out: Images) -> None:
    """Render a row with Gaussian PSFs, or images in terms, into ``out`` (bands, ny, nx): no transforms."""
    where, options = batch.where, batch.options
    size, nodes, first = int(where.size[row]), int(where.nodes_per_pixel[row]), int(where.first[row])
    grid = work.hold_grid(size)
    _fill_grid(work, batch, row, grid)
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


def _apply_psf(
    batch: _Batch, row: int, plans: fftw.Transforms, k: int, response: Floating, nodes: int
) -> None:
    """Multiply the spectrum of a row, the ``k``-th of the plans', by every band's PSF."""
    columns = batch.columns
    spectrum, spectra = plans.spectrum[k], plans.band_spectra[k]
    widths, scales = batch.widths_pix[row], batch.scales[row]
    if columns.psf_model[row] == PSF_GAUSSIAN:
        apply_gaussians(spectrum, widths, response, nodes, scales, plans.line, spectra)
    else:
        table = _table(float(columns.moffat_beta[row]), spectrum.dtype == np.float64)
        apply_radials(
            spectrum, widths, table, MOFFAT_NODES_PER_UNIT, response, nodes, scales, plans.quarter,
            plans.line, spectra,
        )  # fmt: skip


def _apply_image(
    batch: _Batch, row: int, spectrum: Floating, response: Floating, nodes: int, spectra: Floating
) -> None:
    """Multiply the spectrum of a row by the transforms of its PSF images."""
    assert batch.images is not None
    double = spectrum.dtype == np.float64
    period, psf_id = spectra.shape[1], int(batch.columns.psf_id[row])
    transforms = batch.images.transform(psf_id, period, nodes == 1, double)
    apply_images(spectrum, transforms.view(spectrum.dtype), response, batch.scales[row], spectra)


@lru_cache(maxsize=64)
def _table(beta: float, double: bool) -> Floating:
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
    order, grids = _in_order(batch)
    used = usable_threads(threads)
    size = min(ROWS_A_TASK, max(_STAMPS_AT_ONCE, len(order) // (2 * used)))
    # large grids come last in the order; begun first, they leave no thread waiting for another at the end
    tasks = [order[i : i + size] for i in range(0, len(order), size)][::-1]

    def run(rows: NDArray[np.int64]) -> None:
        if not hasattr(_OWN, "work"):
            _OWN.work = Scratch()
        work = _OWN.work
        for grid, alike in groupby(rows.tolist(), grids.__getitem__):
            members = list(alike)
            if grid == _NO_GRID:
                for row in members:
                    in_passes = batch.radii[row].any() or row in batch.terms
                    alone = _render_separable if in_passes else _render_unconvolved
                    alone(work, batch, row, out[row])
                continue
            step = _STAMPS_AT_ONCE if grid[0] <= _LARGE_GRID else 1
            for i in range(0, len(members), step):
                _render_alike(work, batch, members[i : i + step], out)

    for_each(run, tasks, used)


def _in_order(batch: _Batch) -> tuple[NDArray[np.int64], list[tuple[int, int, bool, bool]]]:
    """Return the rows in the order to render them, and the grid of every row.

    Neighbours share a grid: they are transformed together, and their buffers stay in a thread's cache. Then
    a PSF image, so that its transform is at hand.
    """
    columns, where = batch.columns, batch.where
    plain = (columns.psf_model == PSF_NONE) | (columns.lens_model == CONTROL) | batch.radii.any(axis=1)
    plain[list(batch.terms)] = True
    keys = where.size, where.nodes_per_pixel, where.outside, columns.psf_model == PSF_IMAGE
    order = np.lexsort((columns.psf_id, *keys[::-1], plain))
    grids = zip(*(key.tolist() for key in keys), strict=True)
    return order, [_NO_GRID if p else grid for p, grid in zip(plain.tolist(), grids, strict=True)]


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
