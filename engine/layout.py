"""Where the light of each row can be, and the grid that its stamp is made on.

The grid is periodic (it is transformed by an FFT), so it must be wide enough that light which leaves on one
side has faded before it reaches the stamp from the other; and everything that the PSF brings into the stamp
from outside must have been evaluated. Both depend on the row alone, never on the batch, so a row has the same
bits in every batch.

Nodes lie at pixel centres and, where the PSF is narrow, 2, 4 or 8 to the pixel between them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import RenderError
from arcforge.engine.fftw import GRID_SIZES
from arcforge.engine.psf import moffat_alpha, reach
from arcforge.kernels import lens_epl, lens_nfw
from arcforge.kernels.codes import CONTROL, EPL, NFW, PSF_GAUSSIAN, PSF_IMAGE, PSF_NONE, SIS
from arcforge.kernels.spread import BASE

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.psf_images import PsfImages

# Looser tolerances would let the total flux drift by more than 5e-4.
COARSEST = 1e-3
# Light below this fraction of a source's flux, in its outermost wing, is left out (times rtol / 1e-3).
WING_FRACTION = 1e-6
# A wrapped image is fainter than the PSF's peak by this.
WRAP_LEVEL = 1e-6
# What lies beyond the radius of all but a hundredth of a source's light is a hundredth of it at most, and may
# come round nearer to the stamp; a ten-thousandth nearer still. A Moffat's far wing sets the grid's size, and
# with it half of a render's time.
WRAP_SHARES = (1e-2, 1e-4)
# Where the only image lies off the stamp, what is seen is the far wing of its PSF. A wrapped image has to be
# fainter than that, and the PSF's transform has to end lower: rows of this kind get a larger and finer grid,
# up to so many nodes a side: the second number, as if this were the tolerance, where such a grid holds it.
BEYOND_SIZES, BEYOND_RTOL = (1024, 2048), 3e-5
# Images are looked for no farther from the lens than this: no grid is as wide.
FARTHEST_ARCSEC = 1e5
# Nodes that the gridding kernel needs around every evaluated node.
HALO = 4

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """The grid of every row: arrays of length n, lengths in pixels or nodes as named."""

    size: Ints  #: nodes a side
    nodes_per_pixel: Ints
    first: Ints  #: node of the stamp's first pixel, on both axes
    bounds: Ints  #: (n, 4) nodes that can hold light: first and end in y, first and end in x
    outside: NDArray[np.bool_]  #: an image of the source may lie off the stamp: needs float64 transforms
    beyond: NDArray[np.bool_]  #: the only image may
    peak_floor: NDArray[np.float32]  #: a lower bound on the convolved image's peak for unit flux [1 / pix]
    window: Ints  #: width of the broadest PSF in first cells, over which the image's peak is estimated


def _reach(columns: RenderColumns, beta: Floats) -> Floats:
    """Return how far from the lens images of points within ``beta`` of it can lie [arcsec].

    An SIE's deflection is the same at all radii: its bound has both components at their extremes. For the
    others it is the largest root of r (1 - |shear|) = beta + bound of the deflection at r, by bisection.
    """
    e = np.where(columns.lens_model == SIS, 0.0, columns.lens_e)
    f = np.maximum(2.0 * np.sqrt(e) / (1.0 + e), 1e-6)
    q = (1.0 - e) / (1.0 + e)
    bound = columns.theta_e_arcsec * np.sqrt(q) / f * np.hypot(np.arctan(f / q), np.arctanh(f))
    shrunk = 1.0 - np.abs(columns.shear)
    radius = np.asarray((beta + bound) / shrunk)
    bounds = (
        (EPL, lens_epl.largest_deflection, columns.lens_gamma),
        (NFW, lens_nfw.largest_deflection, columns.nfw_rs_arcsec),
    )
    for model, largest, shape in bounds:
        rows = np.flatnonzero(columns.lens_model == model)
        if rows.size == 0:
            continue
        alpha_at = largest(columns.theta_e_arcsec[rows], e[rows], shape[rows])
        low, high = beta[rows] / shrunk[rows], np.full(rows.size, FARTHEST_ARCSEC)
        for _ in range(60):
            middle = np.sqrt(low * high) + 1e-9
            inside = middle * shrunk[rows] < beta[rows] + alpha_at(middle)
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        radius[rows] = high
    return radius


def _wing_radius(columns: RenderColumns, fraction: float) -> Floats:
    """Return the radius outside which a Sersic profile holds ``fraction`` of its flux [arcsec]."""
    from scipy.special import gammainccinv, gammaincinv

    n, inverse = np.unique(columns.src_n, return_inverse=True)
    ratio = (gammainccinv(2.0 * n, fraction) / gammaincinv(2.0 * n, 0.5)) ** n
    return np.asarray(columns.src_reff_arcsec * ratio[inverse])


def _nodes_per_pixel(columns: RenderColumns, fwhm_pix: Floats, samples_driven: bool, rtol: float) -> Ints:
    """Return 1, 2, 4 or 8: enough nodes that neither the PSF nor the gridding aliases."""
    has_psf = (columns.psf_model != PSF_NONE) & (columns.lens_model != CONTROL)
    nodes = np.ones(len(columns), dtype=np.int64)
    if samples_driven:
        return nodes
    # Measured on point sources at random positions: below 3e-4 of peak with the first set, 1e-4 with the
    # second. A Moffat's transform falls off slower, the more so the smaller beta.
    gaussian, moffat = (3.0, 3.5) if rtol >= 5e-4 else (3.6, 4.5)
    slow = np.maximum(1.0, 2.5 / columns.moffat_beta)
    wanted = np.where(columns.psf_model == PSF_GAUSSIAN, gaussian, moffat * slow)
    # an image may hold power up to its pixels' highest frequency, whatever its width
    wanted = np.where(columns.psf_model == PSF_IMAGE, moffat + 1.5, wanted)
    for _ in range(3):
        nodes = np.where(has_psf & (nodes * fwhm_pix < wanted), 2 * nodes, nodes)
    narrow = has_psf & (nodes * fwhm_pix < wanted)
    if narrow.any():
        row = int(np.argmax(narrow))
        raise RenderError(
            f"row {row}: a PSF of FWHM {fwhm_pix[row]:.3g} pix is narrower than {wanted[row] / 8:.2g} pix, "
            'too narrow to be told from none; check the unit (arcsec), or set psf_model to "none"'
        )
    return nodes


def layout(
    columns: RenderColumns,
    *,
    stamp_size: int,
    pixscale_arcsec: float,
    rtol: float,
    uniform: bool,
    images: PsfImages | None = None,
) -> Layout:
    """Return the grid of every row.

    Raises
    ------
    RenderError
        Where a PSF is too narrow for any grid, or an image lies too far from the stamp; names the row.
    """
    options = stamp_size, pixscale_arcsec, uniform, images
    rtol = min(rtol, COARSEST)
    found = _layout(columns, rtol, BEYOND_SIZES[0], *options)
    for row in [] if uniform else np.flatnonzero(found.beyond):
        this = slice(row, row + 1)
        try:
            finer = _layout(columns.take(this), min(rtol, BEYOND_RTOL), BEYOND_SIZES[1], *options)
        except RenderError:  # there is no grid as fine or large: the first serves
            continue
        for each in fields(Layout):
            getattr(found, each.name)[this] = getattr(finer, each.name)
    return found


def _layout(
    columns: RenderColumns,
    rtol: float,
    most: int,
    stamp_size: int,
    pixscale_arcsec: float,
    uniform: bool,
    images: PsfImages | None,
) -> Layout:
    """As ``layout``, with the nodes a side at most of rows whose only image may lie off the stamp."""
    half = 0.5 * stamp_size
    has_psf = columns.psf_model != PSF_NONE
    fwhm = columns.psf_fwhm_arcsec / pixscale_arcsec
    offset = np.hypot(columns.src_x_arcsec, columns.src_y_arcsec)
    lens_offset = np.maximum(np.abs(columns.lens_x_arcsec), np.abs(columns.lens_y_arcsec)) / pixscale_arcsec
    reach_of_centre = _reach(columns, offset) / pixscale_arcsec
    outside = has_psf & (lens_offset + reach_of_centre > half)
    # a source well within theta_E has a second image, near the lens and as bright
    beyond = outside & (offset > 0.5 * columns.theta_e_arcsec)

    # margin: what is left out beyond it reaches the stamp's edge weakened by this fraction
    lost = min(5e-3, 5.0 * rtol)
    margin = _margin(columns, fwhm.max(axis=1), lost)
    level = WRAP_LEVEL * min(1.0, rtol / 1e-3)
    fade = reach(columns.psf_model, fwhm.max(axis=1), columns.moffat_beta, level)
    off = np.where(beyond, lens_offset + reach_of_centre - half, 0.0)
    far_fade = reach(columns.psf_model, fwhm.max(axis=1), columns.moffat_beta, 0.1 * rtol, off)
    by_image = columns.psf_model == PSF_IMAGE
    if images is not None and by_image.any():
        fwhm[by_image], margin[by_image], fade[by_image] = images.widths(columns.psf_id[by_image], lost)
    widest, narrowest = fwhm.max(axis=1), fwhm.min(axis=1)

    wing = _wing_radius(columns, WING_FRACTION * min(1.0, rtol / 1e-3))
    extent = _reach(columns, offset + wing) / pixscale_arcsec
    core = _reach(columns, offset + np.minimum(wing, 3.0 * columns.src_reff_arcsec)) / pixscale_arcsec
    domain = np.where(has_psf, np.maximum(half + margin, lens_offset + core), half)
    light = np.minimum(domain, lens_offset + extent)
    fade = np.where(beyond, np.maximum(fade, np.minimum(far_fade, most - 1 - half - light)), fade)
    way = light + fade
    graded = ~beyond & ~by_image & (columns.source_id == "")
    if graded.any():
        nearer = _graded_way(columns, offset, lens_offset, light, level, pixscale_arcsec)
        way = np.where(graded, nearer, way)
    nodes = _nodes_per_pixel(columns, narrowest, uniform, rtol)
    if not uniform:
        span = np.maximum(half + light + fade, 2.0 * (light + HALO))
        coarse = nodes * narrowest < np.where(columns.psf_model == PSF_GAUSSIAN, 5.0, 8.0)
        nodes = np.where(beyond & coarse & (nodes < 8) & (2 * nodes * span < most), 2 * nodes, nodes)
    # bounds are whole cells: a node more
    needed = np.maximum(half + way, 2.0 * (light + HALO / nodes)) * nodes + 1
    needed = np.maximum(needed, stamp_size * nodes)
    sizes = np.asarray(GRID_SIZES)
    place = np.searchsorted(sizes, needed)
    # a PSF image is transformed on its own pixels: an even number of them
    while (odd := by_image & (sizes[np.minimum(place, sizes.size - 1)] % (2 * nodes) != 0)).any():
        place += odd
    live = columns.lens_model != CONTROL
    if (live & has_psf & (place == sizes.size)).any():
        row = int(np.argmax(live & has_psf & (place == sizes.size)))
        raise RenderError(
            f"row {row}: light {light[row]:.0f} pix from the stamp's centre would need a grid of "
            f"{needed[row]:.0f} nodes (largest {sizes[-1]}); bring the source nearer or drop the row"
        )
    size = np.where(has_psf, sizes[np.minimum(place, sizes.size - 1)], stamp_size + stamp_size % BASE)
    pad = np.where(has_psf, (size // nodes - stamp_size) // 2, 0)
    return Layout(
        size=size,
        nodes_per_pixel=nodes,
        first=pad * nodes,
        bounds=_bounds(columns, pixscale_arcsec, extent, domain, size, nodes, pad, stamp_size),
        outside=outside,
        beyond=beyond,
        peak_floor=_peak_floor(columns.src_reff_arcsec / pixscale_arcsec, widest, outside),
        window=np.maximum(1, np.rint(widest * nodes / BASE)).astype(np.int64),
    )


def _graded_way(
    columns: RenderColumns, offset: Floats, lens_offset: Floats, light: Floats, level: float, pixscale: float
) -> Floats:
    """Return how far from the stamp's centre light may be felt, the fainter the nearer [pix]."""
    fwhm = columns.psf_fwhm_arcsec.max(axis=1) / pixscale
    way = np.zeros(len(columns))
    share = 1.0
    for rest in WRAP_SHARES:
        held = lens_offset + _reach(columns, offset + _wing_radius(columns, rest)) / pixscale
        fade = reach(columns.psf_model, fwhm, columns.moffat_beta, level / share)
        way = np.maximum(way, np.minimum(light, held) + fade)
        share = rest
    return np.maximum(way, light + reach(columns.psf_model, fwhm, columns.moffat_beta, level / share))


def _peak_floor(reff_pix: Floats, widest_pix: Floats, outside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a lower bound on the peak of the convolved image of a unit-flux source [1 / pix].

    One image (the minimum of the arrival time) is stretched in every direction, so its convolved peak is no
    lower than the unlensed source's; half of that flux lies within R_e. Where the image may lie off the stamp
    only a tiny fraction of it is sure to be seen.
    """
    unlensed = 0.25 / (1.2 * np.maximum(widest_pix, 1.0) ** 2 + np.pi * reff_pix**2)
    return np.asarray(np.where(outside, 1e-6, 1.0) * unlensed, dtype=np.float32)


def _margin(columns: RenderColumns, widest_pix: Floats, lost: float) -> Floats:
    """Return the radius that holds all but ``lost`` of the PSF's light [pix]."""
    sigma_radius = widest_pix / 2.3548 * np.sqrt(-2.0 * np.log(lost))
    beta = np.maximum(columns.moffat_beta, 1.0 + 1e-3)
    alpha_radius = moffat_alpha(widest_pix, beta) * np.sqrt(lost ** (-1.0 / (beta - 1.0)) - 1.0)
    return np.where(columns.psf_model == PSF_GAUSSIAN, sigma_radius, alpha_radius)


def _bounds(
    columns: RenderColumns,
    pixscale_arcsec: float,
    extent: Floats,
    domain: Floats,
    size: Ints,
    nodes: Ints,
    pad: Ints,
    stamp_size: int,
) -> Ints:
    """Return the nodes (n, 4) that lie in the domain and within the light's extent of the lens."""
    out = np.empty((len(columns), 4), dtype=np.int64)
    halo = np.where(columns.psf_model == PSF_NONE, 0, HALO)
    origin = -0.5 * (stamp_size - 1) - pad
    for axis, centre in enumerate((columns.lens_y_arcsec, columns.lens_x_arcsec)):
        middle = centre / pixscale_arcsec
        low = np.maximum(middle - extent, -domain)
        high = np.minimum(middle + extent, domain)
        first = np.clip(np.floor((low - origin) * nodes), halo, size - halo)
        end = np.clip(np.ceil((high - origin) * nodes) + 1, first, size - halo)
        # cells are BASE nodes wide: one node more where the number is odd (the halo has room, and so has the
        # grid)
        end = end + (end - first) % BASE
        out[:, 2 * axis], out[:, 2 * axis + 1] = first, end
    return out
