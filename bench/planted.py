"""Paired sets with a planted fault: what the audit is held to.

A set is made as a user's would be: hosts, recorded parameters, arcs rendered from them, stamp = host + arc.
The fault enters where it would in a pipeline. The table ``FAULTS`` names each with the cause that the audit
must give.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcforge.bench.foreign import ForeignRenderer
from arcforge.bench.surveys import Survey
from arcforge.engine.catalog import RenderColumns, render_columns
from arcforge.engine.render import render_rows

Images = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]

PIXSCALE_ARCSEC = 0.262
BANDS = "grz"
_THETA_E_GRID_ARCSEC = (0.75, 1.0, 1.25, 1.5, 2.0, 2.5)
_MOFFAT_BETA = 3.5


@dataclass
class PairedSet:
    """Recorded parameters and pixels (n, band, y, x) of a set; sky sigma by band; its fault's size."""

    columns: Columns
    stamps: Images
    controls: Images
    sky_sigma_nmgy: NDArray[np.float64]
    truth: float | None = None
    bands: str = BANDS

    def write(self, path: Path) -> Path:
        """Write the set as parquet, one row a pair, pixels as ``.npz`` blobs."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = dict(self.columns)
        for name, images in (("stamp_npz", self.stamps), ("ctrl_stamp_npz", self.controls)):
            columns[name] = [to_blob(image, self.bands) for image in images]
        pq.write_table(pa.table(columns), path, row_group_size=64)
        return path


def to_blob(image: Images, bands: str = BANDS) -> bytes:
    """Pack one (band, y, x) cutout as the ``.npz`` archive that paired sets hold."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"image_{band}": image[k] for k, band in enumerate(bands)})
    return buffer.getvalue()


@dataclass(frozen=True)
class Fault:
    """A way to make a wrong set.

    Attributes
    ----------
    name : str
    cause : str or None
        What the audit must name; None for a clean set.
    truth : float, callable or None
        The size that its interval must hold, where the cause has one; of a recipe, if it depends on it.
    make : callable
        Makes (stamps, controls) from a recipe.
    theta_e_factor : float
        Makes the recorded lenses larger, so that light reaches the stamp's edge.
    also : tuple of str
        Further causes of a set with several faults; which of them comes first is open.
    """

    name: str
    cause: str | None
    truth: float | Callable[[Recipe], float] | None
    make: Callable[[Recipe], tuple[Images, Images]]
    theta_e_factor: float = 1.0
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What a fault is made from; ``render`` takes columns."""

    columns: RenderColumns
    controls: Images
    sky_sigma_nmgy: NDArray[np.float64]
    rng: np.random.Generator
    render: Callable[[RenderColumns], Images]
    pixscale_arcsec: float


def draw_columns(n: int, n_hosts: int, rng: np.random.Generator) -> Columns:
    """Draw parameters in the user's column names: theta_E on a grid, Moffat seeing."""
    theta_e = rng.choice(_THETA_E_GRID_ARCSEC, n)
    offset = 0.7 * theta_e * np.sqrt(rng.random(n))
    angle = rng.uniform(0, 2 * np.pi, n)
    seeing = rng.uniform(1.0, 1.6, n)
    flux_r = 10 ** rng.uniform(-0.5, 0.3, n)
    columns: Columns = {
        "task_id": np.array([f"row{k:06d}" for k in range(n)]),
        "host_id": np.array([f"host{k % n_hosts:05d}" for k in range(n)]),
        "lens_model": np.full(n, "SIE"),
        "theta_e_arcsec": theta_e,
        "lens_e": rng.uniform(0.03, 0.4, n),
        "lens_phi_rad": rng.uniform(0, np.pi, n),
        "lens_x_arcsec": np.zeros(n),
        "lens_y_arcsec": np.zeros(n),
        "shear": rng.uniform(0, 0.06, n),
        "shear_phi_rad": rng.uniform(0, np.pi, n),
        "src_x_arcsec": offset * np.cos(angle),
        "src_y_arcsec": offset * np.sin(angle),
        "src_reff_arcsec": rng.uniform(0.15, 0.45, n),
        "src_n": np.ones(n),
        "src_e": rng.uniform(0, 0.45, n),
        "src_phi_rad": rng.uniform(0, np.pi, n),
        "psf_model": np.full(n, "moffat"),
        "moffat_beta": np.full(n, _MOFFAT_BETA),
        "pixscale_arcsec": np.full(n, PIXSCALE_ARCSEC),
        "is_control": np.zeros(n, dtype=np.int64),
    }
    for band, colour, width in (("g", 0.75, 1.08), ("r", 1.0, 1.0), ("z", 1.2, 0.93)):
        columns[f"src_flux_nmgy_{band}"] = flux_r * colour * rng.uniform(0.85, 1.15, n)
        columns[f"psf_fwhm_used_{band}"] = seeing * width
    return columns


def make_set(
    fault: Fault,
    hosts: Images,
    n: int,
    seed: int,
    *,
    survey: Survey | None = None,
    arcs: Images | None = None,
    variant: str = "auto",
    rtol: float = 2e-5,
) -> PairedSet:
    """Make a set with a fault.

    Parameters
    ----------
    fault : Fault
        One of ``FAULTS``.
    hosts : float32 (n_hosts, band, y, x)
        Host pixels, nMgy per pixel.
    n : int
        Pairs; hosts are used in turn.
    seed : int
        Parameters and the fault's own draws follow from it.
    survey : Survey, optional
        Frame, PSF and sources of a foreign set, rendered without the engine.
    arcs : float32 (n, band, y, x), optional
        What the recorded parameters give, if it is known from another set of the same seed and survey.
    variant, rtol
        The engine's renderer, without ``survey``.
    """
    rng = np.random.default_rng([seed, 77])
    columns = draw_columns(n, len(hosts), rng)
    if survey is not None:
        survey.adapt(columns, rng)
    for name in ("theta_e_arcsec", "src_x_arcsec", "src_y_arcsec"):
        columns[name] = columns[name] * fault.theta_e_factor
    controls = hosts[np.arange(n) % len(hosts)]
    outer = np.hypot(*(np.indices(hosts.shape[2:]) - (hosts.shape[2] - 1) / 2.0)) >= 20
    sky = hosts[:, :, outer]
    sigma = 1.4826 * np.median(np.abs(sky - np.median(sky, axis=2, keepdims=True)), axis=(0, 2))
    pixscale_arcsec = float(columns["pixscale_arcsec"][0])

    bands = survey.bands if survey else BANDS
    recorded = render_columns(columns, bands)

    def render(changed: RenderColumns) -> Images:
        if arcs is not None and changed is recorded and fault.theta_e_factor == 1.0:
            return arcs.copy()
        if survey is not None:
            return survey.render()(changed, hosts.shape[2])
        return render_rows(
            changed,
            stamp_size=hosts.shape[2],
            pixscale_arcsec=pixscale_arcsec,
            variant=variant,
            rtol=rtol,
        )

    recipe = Recipe(recorded, controls, sigma, rng, render, pixscale_arcsec)
    stamps, controls = fault.make(recipe)
    return PairedSet(
        survey.record(columns) if survey else columns,
        stamps.astype(np.float32),
        controls.astype(np.float32),
        sigma,
        fault.truth(recipe) if callable(fault.truth) else fault.truth,
        bands,
    )


def _changed(**scales: float) -> Callable[[Recipe], tuple[Images, Images]]:
    """Render with columns multiplied."""

    def make(recipe: Recipe) -> tuple[Images, Images]:
        changed = {k: getattr(recipe.columns, k) * s for k, s in scales.items()}
        columns = replace(recipe.columns, **changed) if changed else recipe.columns
        return recipe.controls + recipe.render(columns), recipe.controls

    return make


def _offset(length_pix: float) -> Callable[[Recipe], tuple[Images, Images]]:
    def make(recipe: Recipe) -> tuple[Images, Images]:
        angle = recipe.rng.uniform(0, 2 * np.pi)
        step = length_pix * recipe.pixscale_arcsec
        moved = replace(
            recipe.columns,
            lens_x_arcsec=recipe.columns.lens_x_arcsec + step * np.cos(angle),
            lens_y_arcsec=recipe.columns.lens_y_arcsec + step * np.sin(angle),
        )
        return recipe.controls + recipe.render(moved), recipe.controls

    return make


def _missing_sqrt_q(recipe: Recipe) -> tuple[Images, Images]:
    c = recipe.columns
    wider = replace(c, theta_e_arcsec=c.theta_e_arcsec * np.sqrt((1 + c.lens_e) / (1 - c.lens_e)))
    return recipe.controls + recipe.render(wider), recipe.controls


def _on_arc(change: Callable[[Images, Recipe], Images]) -> Callable[[Recipe], tuple[Images, Images]]:
    """Change the rendered arc before it is added."""
    return lambda recipe: (recipe.controls + change(recipe.render(recipe.columns), recipe), recipe.controls)


def _renormalised(arcs: Images, recipe: Recipe) -> Images:
    lensed = np.maximum(arcs.sum((2, 3), keepdims=True), 1e-12)
    return np.asarray(arcs / lensed * recipe.columns.src_flux_nmgy[:, :, None, None])


def _raised(sigmas: float) -> Callable[[Recipe], tuple[Images, Images]]:
    return _on_arc(lambda arcs, recipe: arcs + np.float32(sigmas * recipe.sky_sigma_nmgy.mean()))


def shifted_control(recipe: Recipe, length_pix: float, order: int) -> Images:
    """Return controls from another cutout of the same host: resampled, so shifted by a sub-pixel."""
    angle = recipe.rng.uniform(0, 2 * np.pi)
    shift = (length_pix * np.sin(angle), length_pix * np.cos(angle))
    # a control and its stamp's host are cut from the same sky: the rim is not invented
    moved = [
        [ndimage.shift(band, shift, order=order, mode="mirror") for band in image]
        for image in recipe.controls
    ]
    return np.array(moved, dtype=np.float32)


def _shifted_control(length_pix: float, order: int) -> Callable[[Recipe], tuple[Images, Images]]:
    def make(recipe: Recipe) -> tuple[Images, Images]:
        moved = shifted_control(recipe, length_pix, order)
        return recipe.controls + recipe.render(recipe.columns), moved

    return make


def _unpadded(recipe: Recipe) -> tuple[Images, Images]:
    """Convolve on the stamp's own frame: light that leaves at one edge returns at the other."""
    renderer = ForeignRenderer(recipe.pixscale_arcsec, padded=False)
    return recipe.controls + renderer(recipe.columns, recipe.controls.shape[-1]), recipe.controls


def _source_bank(share: float) -> Callable[[Recipe], tuple[Images, Images]]:
    """Source templates with a constant behind them, which the lens maps with the source."""

    def make(recipe: Recipe) -> tuple[Images, Images]:
        renderer = ForeignRenderer(recipe.pixscale_arcsec, bank_pedestal=share)
        return recipe.controls + renderer(recipe.columns, recipe.controls.shape[-1]), recipe.controls

    return make


def _noisy(sigmas: float, blur_pix: float = 0.0) -> Callable[[Recipe], tuple[Images, Images]]:
    """Add noise of the sky's sigma times ``sigmas``, blurred as by a coadd or the PSF, to every pixel."""

    def make(recipe: Recipe) -> tuple[Images, Images]:
        white = recipe.rng.normal(size=recipe.controls.shape)
        blurred = ndimage.gaussian_filter(white, (0, 0, blur_pix, blur_pix), mode="wrap")
        noise = blurred / blurred.std() * (sigmas * recipe.sky_sigma_nmgy)[:, None, None]
        return recipe.controls + recipe.render(recipe.columns) + noise.astype(np.float32), recipe.controls

    return make


def _other_sources(recipe: Recipe) -> tuple[Images, Images]:
    """The renderer used other sources than those recorded: cuspy, larger, with a floor of light."""
    c = recipe.columns
    other = replace(
        c,
        src_n=np.full(len(c), 2.5),
        src_reff_arcsec=c.src_reff_arcsec * recipe.rng.uniform(1.0, 4.0, len(c)),
        src_x_arcsec=c.src_x_arcsec + recipe.rng.normal(0, 0.2, len(c)),
    )
    return recipe.controls + recipe.render(other), recipe.controls


def _of_stamp(change: Callable[[Images], Images]) -> Callable[[Recipe], tuple[Images, Images]]:
    """Change the finished stamp."""
    return lambda recipe: (change(recipe.controls + recipe.render(recipe.columns)), recipe.controls)


def _one_band(recipe: Recipe) -> tuple[Images, Images]:
    arcs = recipe.render(recipe.columns)
    arcs[:, 0] *= np.float32(1.1)
    return recipe.controls + arcs, recipe.controls


def _shot_noise(recipe: Recipe) -> tuple[Images, Images]:
    """Photon noise of the arc at a gain of 300 photons a nanomaggy."""
    arcs = recipe.render(recipe.columns)
    noisy = recipe.rng.poisson(np.maximum(arcs, 0) * 300.0).astype(np.float32) / np.float32(300.0)
    return recipe.controls + noisy, recipe.controls


def _exchanged_rows(recipe: Recipe) -> tuple[Images, Images]:
    """Each pair carries the arc of the next row."""
    arcs = recipe.render(recipe.columns)
    return recipe.controls + np.roll(arcs, 1, axis=0), recipe.controls


def _raised_by(sigmas: float) -> Callable[[Recipe], float]:
    return lambda recipe: float(sigmas * recipe.sky_sigma_nmgy.mean())


def _list_faults() -> tuple[Fault, ...]:
    found = [Fault("clean", None, None, _changed())]
    for s in (0.1, 0.25, 0.5, 1.0):
        found.append(Fault(f"offset {s:g} px", "kernel_offset", s, _offset(s)))
    for s in (0.5, 0.9, 1.05, 1.2, 1.6, 2.0, 2.355, 2.4):
        found.append(Fault(f"psf_width {s:g}", "psf_width", s, _changed(psf_fwhm_arcsec=s)))
    for s in (0.9, 1.03, 1.2):
        found.append(Fault(f"theta_e {s:g}", "theta_e_scale", s, _changed(theta_e_arcsec=s)))
    found.append(Fault("theta_e without sqrt(q)", "theta_e_scale", None, _missing_sqrt_q))
    for s in (0.5, 1.2, 3.0):
        found.append(Fault(f"source_size {s:g}", "source_size", s, _changed(src_reff_arcsec=s)))
    for s in (0.95, 1.05, 2.512):
        found.append(Fault(f"flux {s:g}", "flux_scale", s, _changed(src_flux_nmgy=s)))
    found.append(Fault("flux 1.1 in g", "flux_scale", 1.1, _one_band))
    found.append(Fault("flux 1/mu", "flux_scale", None, _on_arc(_renormalised)))
    for s in (0.05, 0.2):
        found.append(Fault(f"pedestal {s:g} sigma", "pedestal", _raised_by(s), _raised(s)))
    for s, order in ((0.1, 3), (0.25, 1), (0.25, 3), (0.5, 5), (1.0, 1)):
        found.append(
            Fault(f"control {s:g} px, order {order}", "control_shift", s, _shifted_control(s, order))
        )
    found.append(Fault("arc mirrored in y", "orientation", None, _on_arc(lambda a, r: a[..., ::-1, :])))
    found.append(Fault("arc turned by 90", "orientation", None, _on_arc(lambda a, r: np.rot90(a, 1, (2, 3)))))
    found.append(Fault("arc transposed", "orientation", None, _on_arc(lambda a, r: a.swapaxes(2, 3))))
    found.append(Fault("stamp mirrored in x", "orientation", None, _of_stamp(lambda s: s[..., ::-1])))
    found.append(Fault("stamp turned by 180", "orientation", None, _of_stamp(lambda s: s[..., ::-1, ::-1])))
    found.append(Fault("bands zrg", "band_order", None, _on_arc(lambda a, r: a[:, ::-1])))
    found.append(Fault("bands rgz", "band_order", None, _on_arc(lambda a, r: a[:, [1, 0, 2]])))
    found.append(Fault("stamp bands zrg", "band_order", None, _of_stamp(lambda s: s[:, ::-1])))
    found.append(Fault("unpadded convolution", "wraparound", 1.0, _unpadded, theta_e_factor=2.5))
    for s in (0.1, 0.4):
        found.append(Fault(f"source bank, pedestal {s:g}", "pedestal", s, _source_bank(s)))
    for s in (0.05, 0.3):
        found.append(Fault(f"noise {s:g} sigma", "noise", s, _noisy(s)))
    for s, blur in ((0.1, 0.7), (0.2, 1.5)):
        found.append(Fault(f"noise {s:g} sigma, blurred by {blur:g} px", "noise", s, _noisy(s, blur)))
    found.append(Fault("noise of the arc's photons", "noise", None, _shot_noise))
    found.append(Fault("other sources", "provenance", None, _other_sources))
    found.append(Fault("rows exchanged", "provenance", None, _exchanged_rows))
    return tuple(found)


FAULTS = _list_faults()
