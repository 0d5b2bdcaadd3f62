"""Sets with two faults at once: every one of them must be named, in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.bench.planted import Fault, Recipe, shifted_control
from arcforge.engine.catalog import RenderColumns

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One of the faults of a set; each field is how it enters, and None where it does not enter there.

    Attributes
    ----------
    cause : str
    truth : float or None
    columns, arc, stamp, pair : callable, optional
        Change what is rendered; the rendered arc; the finished stamp; or, of a recipe, the controls.
    """

    cause: str
    truth: float | None
    columns: Callable[[RenderColumns, Recipe], RenderColumns] | None = None
    arc: Callable[[Images, Recipe], Images] | None = None
    stamp: Callable[[Images, Recipe], Images] | None = None
    pair: Callable[[Recipe], Images] | None = None


def _scaled(cause: str, column: str, factor: float) -> Part:
    return Part(cause, factor, lambda c, r: replace(c, **{column: getattr(c, column) * factor}))


def _moved(length_pix: float) -> Part:
    def move(c: RenderColumns, recipe: Recipe) -> RenderColumns:
        step = length_pix * recipe.pixscale_arcsec
        return replace(
            c, lens_x_arcsec=c.lens_x_arcsec + 0.6 * step, lens_y_arcsec=c.lens_y_arcsec - 0.8 * step
        )

    return Part("kernel_offset", length_pix, move)


def _without_sqrt_q(c: RenderColumns, recipe: Recipe) -> RenderColumns:
    return replace(c, theta_e_arcsec=c.theta_e_arcsec * np.sqrt((1 + c.lens_e) / (1 - c.lens_e)))


def _constant(sigmas: float) -> Part:
    return Part("pedestal", None, arc=lambda a, r: a + np.float32(sigmas * r.sky_sigma_nmgy.mean()))


def _noise(sigmas: float) -> Part:
    def add(stamps: Images, recipe: Recipe) -> Images:
        sky = sigmas * recipe.sky_sigma_nmgy[:, None, None]
        return np.asarray(stamps + (recipe.rng.normal(size=stamps.shape) * sky).astype(np.float32))

    return Part("noise", sigmas, stamp=add)


_PARTS = {
    "psf_width 1.2": _scaled("psf_width", "psf_fwhm_arcsec", 1.2),
    "psf_width 1.05": _scaled("psf_width", "psf_fwhm_arcsec", 1.05),
    "psf_width 2.355": _scaled("psf_width", "psf_fwhm_arcsec", 2.355),
    "flux 1.05": _scaled("flux_scale", "src_flux_nmgy", 1.05),
    "flux 0.8": _scaled("flux_scale", "src_flux_nmgy", 0.8),
    "theta_e 1.03": _scaled("theta_e_scale", "theta_e_arcsec", 1.03),
    "theta_e without sqrt(q)": Part("theta_e_scale", None, _without_sqrt_q),
    "source_size 1.3": _scaled("source_size", "src_reff_arcsec", 1.3),
    "offset 0.25 px": _moved(0.25),
    "offset 0.5 px": _moved(0.5),
    "pedestal 0.2 sigma": _constant(0.2),
    "noise 0.3 sigma": _noise(0.3),
    "arc mirrored in y": Part("orientation", None, arc=lambda a, r: a[..., ::-1, :]),
    "bands reversed": Part("band_order", None, arc=lambda a, r: a[:, ::-1]),
    "stamp mirrored in x": Part("orientation", None, stamp=lambda s, r: s[..., ::-1]),
    "control 0.25 px": Part("control_shift", 0.25, pair=lambda r: shifted_control(r, 0.25, 3)),
}

# Every kind beside every other that a pipeline may well have together
_TOGETHER = (
    ("psf_width 1.2", "flux 1.05"),
    ("psf_width 1.05", "flux 0.8"),
    ("psf_width 2.355", "pedestal 0.2 sigma"),
    ("psf_width 2.355", "offset 0.5 px"),
    ("psf_width 1.2", "theta_e 1.03"),
    ("psf_width 1.2", "theta_e without sqrt(q)"),
    ("psf_width 1.2", "source_size 1.3"),
    ("psf_width 1.2", "noise 0.3 sigma"),
    ("psf_width 1.2", "control 0.25 px"),
    ("psf_width 2.355", "arc mirrored in y"),
    ("psf_width 1.2", "bands reversed"),
    ("psf_width 1.2", "stamp mirrored in x"),
    ("offset 0.25 px", "flux 1.05"),
    ("offset 0.25 px", "pedestal 0.2 sigma"),
    ("offset 0.5 px", "theta_e 1.03"),
    ("offset 0.25 px", "noise 0.3 sigma"),
    ("offset 0.25 px", "control 0.25 px"),
    ("offset 0.5 px", "arc mirrored in y"),
    ("theta_e 1.03", "flux 0.8"),
    ("theta_e without sqrt(q)", "flux 1.05"),
    ("theta_e without sqrt(q)", "offset 0.5 px"),
    ("source_size 1.3", "flux 1.05"),
    ("flux 1.05", "pedestal 0.2 sigma"),
    ("flux 1.05", "noise 0.3 sigma"),
    ("flux 1.05", "control 0.25 px"),
    ("flux 0.8", "bands reversed"),
    ("flux 1.05", "stamp mirrored in x"),
    ("pedestal 0.2 sigma", "noise 0.3 sigma"),
    ("control 0.25 px", "noise 0.3 sigma"),
)


def _make(parts: tuple[Part, ...]) -> Callable[[Recipe], tuple[Images, Images]]:
    def make(recipe: Recipe) -> tuple[Images, Images]:
        columns = recipe.columns
        for part in parts:
            columns = part.columns(columns, recipe) if part.columns else columns
        image: Any = recipe.render(columns)
        for part in parts:
            image = part.arc(image, recipe) if part.arc else image
        image = recipe.controls + image
        for part in parts:
            image = part.stamp(image, recipe) if part.stamp else image
        controls = recipe.controls
        for part in parts:
            controls = part.pair(recipe) if part.pair else controls
        return image, controls

    return make


def _fault(first: str, second: str) -> Fault:
    one, two = _PARTS[first], _PARTS[second]
    return Fault(f"{first} and {second}", one.cause, one.truth, _make((one, two)), also=(two.cause,))


#: Sets with two faults; ``also`` holds the second's cause
TWO_FAULTS = tuple(_fault(*names) for names in _TOGETHER)
