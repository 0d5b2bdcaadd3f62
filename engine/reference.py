"""The arbiter: the whole render in float64, converged, in NumPy, sharing no code with the fast kernels.

Everything that could hide a common mistake is done differently here. Deflections use the polar form (arcsin,
arcsinh); the brightness is integrated by 4 x 4 Gauss-Legendre cells that are quartered until their parts
agree with the whole; and the PSF is applied to the sample positions themselves, as an explicit Fourier sum at
the pixel centres, without any grid, FFT or interpolation. It takes 0.2 to 2 s a row, where the fast path
takes 0.2 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.reference_lenses import Mass
from arcforge.kernels.codes import CONTROL, PSF_GAUSSIAN, PSF_IMAGE, PSF_NONE, SIS

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.psf_images import PsfImages
    from arcforge.engine.reference_images import ImageLight
    from arcforge.engine.source_rows import SourceRows

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

# Tolerance of one cell, as a fraction of the convolved image's peak. Errors of cells are far below the bound
# and of both signs: at this value stamps are within 1e-7 of peak of those at a hundredth of it (n 0.4 to 6).
CELL_TOLERANCE = 5e-4
DEEPEST = 22  # levels of quartering; a cell is then 2e-7 pixels wide
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)
_NODES, _WEIGHTS = 0.5 * _NODES, 0.5 * _WEIGHTS  # on a cell of unit width


@dataclass(frozen=True)
class _Scene:
    """One row, lengths in pixels from the stamp's centre."""

    lens: tuple[float, float]
    mass: Mass
    phi: float
    shear: float
    shear_phi: float
    source: tuple[float, float]
    reff: float
    n: float
    source_e: float
    source_phi: float
    image: ImageLight | None = None  #: in place of the profile

    @property
    def source_q(self) -> float:
        return (1.0 - self.source_e) / (1.0 + self.source_e)

    def deflection(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the deflection of lens and shear at (x, y) from the lens, by polar angle."""
        angle = np.arctan2(y, x) - self.phi
        centre = (x == 0.0) & (y == 0.0)
        alpha = np.where(centre, 0.0, self.mass.deflection(np.hypot(x, y), angle)) * np.exp(1j * self.phi)
        alpha = alpha + self.shear * np.exp(2j * self.shear_phi) * (x - 1j * y)
        return alpha.real, alpha.imag

    def source_position(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the position from the source's centre at image position (x, y)."""
        dx, dy = x - self.lens[0], y - self.lens[1]
        alpha_x, alpha_y = self.deflection(dx, dy)
        return dx - alpha_x - self.source[0], dy - alpha_y - self.source[1]

    def radius(self, x: Floats, y: Floats) -> Floats:
        """Return R / R_e in the source plane at image position (x, y)."""
        beta_x, beta_y = self.source_position(x, y)
        beta = (beta_x + 1j * beta_y) * np.exp(-1j * self.source_phi)
        return np.asarray(np.hypot(beta.real, beta.imag / self.source_q) / self.reff)

    @property
    def extent(self) -> float:
        """Distance from the source's centre beyond which its light does not count [pix]."""
        return 20.0 * self.reff if self.image is None else self.image.radius

    def light(
        self, nx: Floats, ny: Floats, x: Floats, y: Floats, width: Floats
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return the brightness at the nodes (cells, 16) of cells at (x, y); and of each cell, the brightest
        light that may hide in it, and whether its nodes may miss that.
        """
        change = self.stretch(x, y, width) * width
        if self.image is not None:
            reach = 0.71 * change * self.source_q * self.reff
            brightest, wide = self.image.hidden(*self.source_position(x, y), reach)
            return self.image.brightness(*self.source_position(nx, ny)), brightest, wide
        radius = self.radius(nx, ny)
        nearest = np.maximum(radius.min(axis=1) - 0.6 * change, 0.0)
        return self.brightness(radius), self.brightness(nearest), change > 3.0 * nearest

    def brightness(self, radius: Floats) -> Floats:
        """Return the surface brightness for unit flux [1 / pix^2] at R / R_e."""
        from scipy.special import gamma
        from scipy.stats import gamma as gamma_law

        b_n = float(gamma_law.median(2.0 * self.n))
        total = (
            2.0 * np.pi * self.source_q * self.n * self.reff**2 * b_n ** (-2.0 * self.n) * gamma(2.0 * self.n)
        )
        return np.asarray(np.exp(-b_n * radius ** (1.0 / self.n)) / total)

    def stretch(self, x: Floats, y: Floats, width: Floats) -> Floats:
        """Return a bound on |d(R / R_e)| / |d position| within a cell of that width around (x, y)."""
        r = np.hypot(x - self.lens[0], y - self.lens[1])
        nearest = np.maximum(r - 0.71 * width, 1e-12)
        bound = 1.0 + abs(self.shear) + self.mass.largest_gradient(nearest)
        return np.asarray(bound / (self.source_q * self.reff))


@dataclass
class _Samples:
    """Quadrature nodes: positions and flux, of a dense first level and of scattered deeper cells."""

    x: Floats
    y: Floats
    flux: Floats


def _scene(
    columns: RenderColumns, row: int, pixscale_arcsec: float, sources: SourceRows | None = None
) -> _Scene:
    sis = columns.lens_model[row] == SIS
    return _Scene(
        lens=(columns.lens_x_arcsec[row] / pixscale_arcsec, columns.lens_y_arcsec[row] / pixscale_arcsec),
        mass=Mass(
            model=int(columns.lens_model[row]),
            theta_e=columns.theta_e_arcsec[row] / pixscale_arcsec,
            e=0.0 if sis else columns.lens_e[row],
            gamma=columns.lens_gamma[row],
            rs=columns.nfw_rs_arcsec[row] / pixscale_arcsec,
        ),
        phi=columns.lens_phi_rad[row],
        shear=columns.shear[row],
        shear_phi=columns.shear_phi_rad[row],
        source=(columns.src_x_arcsec[row] / pixscale_arcsec, columns.src_y_arcsec[row] / pixscale_arcsec),
        reff=columns.src_reff_arcsec[row] / pixscale_arcsec,
        n=columns.src_n[row],
        source_e=columns.src_e[row],
        source_phi=columns.src_phi_rad[row],
        image=None if sources is None else sources.light(row, columns.src_phi_rad[row]),
    )


def _cell_nodes(x: Floats, y: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return the nodes (cells, 16) of cells centred at (x, y)."""
    nx = x[:, None, None] + width[:, None, None] * _NODES[None, None, :]
    ny = y[:, None, None] + width[:, None, None] * _NODES[None, :, None]
    shape = (x.size, 4, 4)
    return np.broadcast_to(nx, shape).reshape(-1, 16), np.broadcast_to(ny, shape).reshape(-1, 16)


_CELL_WEIGHTS = np.outer(_WEIGHTS, _WEIGHTS).ravel()


def _integrate(
    scene: _Scene, x: Floats, y: Floats, width: Floats
) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.bool_]]:
    """Return nodes, their fluxes (cells, 16), and per cell the flux that may hide there and if it may."""
    nx, ny = _cell_nodes(x, y, width)
    brightness, brightest, may_hide = scene.light(nx, ny, x, y, width)
    return nx, ny, brightness * _CELL_WEIGHTS * (width**2)[:, None], brightest * width**2, may_hide


def _quadrature(scene: _Scene, half_domain: float, parity: float, peak: float) -> _Samples:
    """Return samples of all light within ``half_domain`` of the stamp's centre, good to CELL_TOLERANCE of
    ``peak``.

    A cell is accepted when its flux equals that of its four parts within CELL_TOLERANCE * peak * width, and
    when nothing bright enough can hide between its nodes (the source radius does not change by more than 3
    times itself across it): two rules, since the first alone is blind to an arc that falls between the nodes.
    """
    half = np.ceil(half_domain)
    axis = np.arange(-half, half + 1.0) + parity
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    width = np.ones_like(x)
    nx, ny, flux, brightest, may_hide = _integrate(scene, x, y, width)
    kept: list[tuple[Floats, Floats, Floats]] = []
    for _ in range(DEEPEST):
        steep = may_hide & (brightest > 0.1 * CELL_TOLERANCE * peak)
        # only cells with light worth the check are quartered to see whether the parts agree
        worth = steep | (np.abs(flux).sum(axis=1) > 0.1 * CELL_TOLERANCE * peak * width)
        kept.append((nx[~worth].ravel(), ny[~worth].ravel(), flux[~worth].ravel()))
        if not worth.any():
            break
        quarter = 0.25 * width[worth]
        offsets = np.array([-1.0, 1.0])
        cx = (
            x[worth][:, None, None]
            + quarter[:, None, None] * offsets[None, None, :]
            + 0.0 * offsets[None, :, None]
        )
        cy = (
            y[worth][:, None, None]
            + quarter[:, None, None] * offsets[None, :, None]
            + 0.0 * offsets[None, None, :]
        )
        small = np.repeat(0.5 * width[worth], 4)
        parts = _integrate(scene, cx.ravel(), cy.ravel(), small)
        whole, sum_of_parts = flux[worth].sum(axis=1), parts[2].sum(axis=1).reshape(-1, 4).sum(axis=1)
        good = (np.abs(whole - sum_of_parts) < CELL_TOLERANCE * peak * width[worth]) & ~steep[worth]
        done = np.repeat(good, 4)
        kept.append((parts[0][done].ravel(), parts[1][done].ravel(), parts[2][done].ravel()))
        x, y, width = cx.ravel()[~done], cy.ravel()[~done], small[~done]
        nx, ny, flux, brightest, may_hide = (part[~done] for part in parts)
        if x.size == 0:
            break
    else:
        kept.append((nx.ravel(), ny.ravel(), flux.ravel()))
    return _Samples(*(np.concatenate(arrays) for arrays in zip(*kept, strict=True)))


def _transfer(kx: Floats, ky: Floats, gaussian: bool, fwhm: float, beta: float) -> Floats:
    """Return the PSF's transform on the outer grid of frequencies [cycles / pix]."""
    from scipy.special import gamma, kv

    k2 = kx[None, :] ** 2 + ky[:, None] ** 2
    if gaussian:
        return np.asarray(np.exp(-((np.pi * fwhm) ** 2) * k2 / (4.0 * np.log(2.0))))
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    unique, inverse = np.unique(np.round(k2, 12), return_inverse=True)
    z = 2.0 * np.pi * alpha * np.sqrt(unique)
    with np.errstate(invalid="ignore"):
        values = 2.0 ** (2.0 - beta) / gamma(beta - 1.0) * z ** (beta - 1.0) * kv(beta - 1.0, z)
    values[z == 0.0] = 1.0
    return np.asarray(values[inverse].reshape(k2.shape))


def _highest_frequency(gaussian: bool, fwhm: float, beta: float) -> float:
    """Return the frequency beyond which the PSF's transform is below 1e-8 [cycles / pix]."""
    k = np.linspace(0.0, 12.0 / fwhm, 4001)
    values = _transfer(k, np.zeros(1), gaussian, fwhm, beta)[0]
    return float(k[int(np.argmax(values < 1e-8))]) if (values < 1e-8).any() else float(k[-1])


def _reach(gaussian: bool, fwhm: float, beta: float) -> float:
    """Return the radius where the PSF is below 3e-8 of its peak [pix], at most 400."""
    if gaussian:
        return float(fwhm * np.sqrt(np.log(1.0 / 3e-8) / (4.0 * np.log(2.0))))
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    return float(min(400.0, alpha * np.sqrt(3e-8 ** (-1.0 / beta) - 1.0)))


def _fourier_sum(samples: _Samples, kx: Floats, ky: Floats) -> Complexes:
    """Return sum of flux exp(-2 pi i (kx x + ky y)) over the samples, on the outer grid (ky, kx)."""
    total = np.zeros((ky.size, kx.size), dtype=np.complex128)
    for start in range(0, samples.x.size, 20000):
        part = slice(start, start + 20000)
        unique_x, at_x = np.unique(samples.x[part], return_inverse=True)
        unique_y, at_y = np.unique(samples.y[part], return_inverse=True)
        wave_x = np.exp(-2j * np.pi * unique_x[:, None] * kx)
        wave_y = np.exp(-2j * np.pi * unique_y[:, None] * ky)
        if unique_x.size * unique_y.size <= 8 * at_x.size:  # a dense patch: two small products
            dense = np.zeros((unique_y.size, unique_x.size))
            np.add.at(dense, (at_y, at_x), samples.flux[part])
            total += wave_y.T @ (dense @ wave_x)
        else:
            total += wave_y[at_y].T @ (samples.flux[part, None] * wave_x[at_x])
    return total


def _image_transfer(kx: Floats, ky: Floats, pixels: Floats) -> Complexes:
    """Return the transform of a PSF image whose middle pixel is its centre, by explicit sums."""
    axis = np.arange(pixels.shape[0]) - pixels.shape[0] // 2
    to_x = np.exp(-2j * np.pi * axis[:, None] * kx)
    return np.asarray(np.exp(-2j * np.pi * ky[:, None] * axis) @ pixels @ to_x)


@dataclass(frozen=True)
class _Psf:
    """The PSF of one row: what is needed to convolve with it."""

    transfers: Sequence[Callable[[Floats, Floats], Complexes | Floats]]  #: one of each band
    highest: float  #: frequency beyond which it is nothing [cycles / pix]
    reach: float  #: [pix]
    widest: float  #: FWHM [pix]


def _psf(columns: RenderColumns, row: int, pixscale_arcsec: float, images: PsfImages | None) -> _Psf | None:
    """Return the row's PSF, or none."""
    model = columns.psf_model[row]
    if model == PSF_NONE:
        return None
    if model == PSF_IMAGE:
        assert images is not None
        pixels = images.pixels[int(columns.psf_id[row])]
        by_band = [partial(_image_transfer, pixels=plane) for plane in pixels]
        return _Psf(by_band, 0.5, float(pixels.shape[1] // 2), pixels.max() ** -0.5)
    gaussian, beta = bool(model == PSF_GAUSSIAN), float(columns.moffat_beta[row])
    fwhms = [float(fwhm) for fwhm in columns.psf_fwhm_arcsec[row] / pixscale_arcsec]
    return _Psf(
        [partial(_transfer, gaussian=gaussian, fwhm=fwhm, beta=beta) for fwhm in fwhms],
        max(_highest_frequency(gaussian, fwhm, beta) for fwhm in fwhms),
        max(_reach(gaussian, fwhm, beta) for fwhm in fwhms),
        max(fwhms),
    )


def _convolved(samples: _Samples, size: int, period: float, psf: _Psf, boxed: bool) -> list[Floats]:
    """Return the image (size, size) of every band at pixel centres, for unit flux."""
    count = int(np.ceil(psf.highest * period))
    if psf.highest * period == count:  # the last frequency and its mirror are one
        count -= 1
    kx, ky = np.arange(count + 1) / period, np.arange(-count, count + 1) / period
    spectrum = _fourier_sum(samples, kx, ky)
    if boxed:
        spectrum = spectrum * np.sinc(kx)[None, :] * np.sinc(ky)[:, None]
    pixels = np.arange(size) - 0.5 * (size - 1)
    twice = np.where(kx == 0.0, 1.0, 2.0) / period**2  # the half plane kx < 0 is the conjugate
    to_y = np.exp(2j * np.pi * pixels[:, None] * ky)
    to_x = twice[:, None] * np.exp(2j * np.pi * kx[:, None] * pixels)
    return [np.real(to_y @ (spectrum * transfer(kx, ky)) @ to_x) for transfer in psf.transfers]


def _pixel_sums(samples: _Samples, size: int) -> Floats:
    """Return the flux in every pixel, without a PSF."""
    image = np.zeros((size, size))
    i = np.floor(samples.x + 0.5 * size).astype(np.int64)
    j = np.floor(samples.y + 0.5 * size).astype(np.int64)
    inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
    np.add.at(image, (j[inside], i[inside]), samples.flux[inside])
    return image


def _row_bands(
    columns: RenderColumns,
    row: int,
    size: int,
    pixscale_arcsec: float,
    boxed: bool,
    images: PsfImages | None,
    sources: SourceRows | None,
) -> list[Floats]:
    """Return the image of each band for unit flux."""
    scene = _scene(columns if sources is None else sources.folded, row, pixscale_arcsec, sources)
    psf = _psf(columns, row, pixscale_arcsec, images)
    parity = 0.5 * ((size + 1) % 2)
    centre = abs(scene.lens[0]) + abs(scene.lens[1])
    centre += scene.mass.reach(float(np.hypot(*scene.source)), scene.shear)
    domain = 0.5 * size + 1.0
    if psf is not None:
        domain = max(0.5 * size + min(60.0, psf.reach), centre + scene.extent)

    # the tolerance is relative to a peak that is known only afterwards: start high, repeat until it holds
    peak = 1.0 / max(1.0, 1.0 if psf is None else psf.widest) ** 2
    while True:
        samples = _quadrature(scene, domain, parity, peak)
        if psf is None:
            bands = [_pixel_sums(samples, size)] * columns.src_flux_nmgy.shape[1]
        else:
            bands = _convolved(samples, size, 0.5 * size + domain + psf.reach, psf, boxed)
        found = min(float(image.max()) for image in bands)
        if found > 0.3 * peak or peak < 1e-12:
            return bands
        peak = max(found, 1e-12)


def reference_stamps(
    columns: RenderColumns,
    stamp_size: int,
    pixscale_arcsec: float,
    boxed: bool,
    out: NDArray[np.float32],
    images: PsfImages | None = None,
    sources: SourceRows | None = None,
) -> None:
    """Write the converged image of every row to ``out`` (n, bands, stamp_size, stamp_size)."""
    for row in range(len(columns)):
        if columns.lens_model[row] == CONTROL:
            out[row] = 0.0
            continue
        bands = _row_bands(columns, row, stamp_size, pixscale_arcsec, boxed, images, sources)
        for band, image in enumerate(bands):
            out[row, band] = columns.src_flux_nmgy[row, band] * image
