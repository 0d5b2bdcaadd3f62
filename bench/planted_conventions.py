"""Sets whose renderer read the catalogue by another convention, or that differ in one band: no common factor,
and still one cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.bench.planted import Fault, Recipe
from arcforge.engine.catalog import RenderColumns

Images = NDArray[np.float32]
Floats = NDArray[np.float64]


def _read_as(change: Callable[[RenderColumns], RenderColumns]) -> Callable[[Recipe], tuple[Images, Images]]:
    return lambda recipe: (recipe.controls + recipe.render(change(recipe.columns)), recipe.controls)


def _angles(change: Callable[[Floats], Floats], *names: str) -> Callable[[Recipe], tuple[Images, Images]]:
    def angles(c: RenderColumns) -> RenderColumns:
        changes: dict[str, Any] = {f"{n}_phi_rad": change(getattr(c, f"{n}_phi_rad")) for n in names}
        return replace(c, **changes)

    return _read_as(angles)


def _ratio(ellipticity: Floats) -> Floats:
    return np.asarray((1 - ellipticity) / (1 + ellipticity))


def _from_ratio(ratio: Floats) -> Floats:
    return np.asarray((1 - ratio) / (1 + ratio))


def _psf_widths(change: Callable[[Floats], Floats]) -> Callable[[Recipe], tuple[Images, Images]]:
    return _read_as(lambda c: replace(c, psf_fwhm_arcsec=np.ascontiguousarray(change(c.psf_fwhm_arcsec))))


def _in_band(width: Floats, k: int, factor: float) -> Floats:
    changed = width.copy()
    changed[:, k] *= factor
    return changed


def _gain(factor: float, *, of_stamps: bool) -> Callable[[Recipe], tuple[Images, Images]]:
    """Stamps, arcs and all, or controls on another scale."""

    def make(recipe: Recipe) -> tuple[Images, Images]:
        stamps = recipe.controls + recipe.render(recipe.columns)
        scale = np.float32(factor)
        return (scale * stamps, recipe.controls) if of_stamps else (stamps, scale * recipe.controls)

    return make


def _of_pixels(pixscale_arcsec: float) -> Callable[[Recipe], tuple[Images, Images]]:
    """Every length, the PSF's too, rendered for pixels of another size."""
    names = ("theta_e", "lens_x", "lens_y", "src_x", "src_y", "src_reff", "psf_fwhm")

    def make(recipe: Recipe) -> tuple[Images, Images]:
        scale = recipe.pixscale_arcsec / pixscale_arcsec
        lengths = {f"{name}_arcsec": scale * getattr(recipe.columns, f"{name}_arcsec") for name in names}
        return recipe.controls + recipe.render(replace(recipe.columns, **lengths)), recipe.controls

    return make


def _clipped(recipe: Recipe) -> tuple[Images, Images]:
    stamps = recipe.controls + recipe.render(recipe.columns)
    return np.maximum(stamps, 0.0), np.maximum(recipe.controls, 0.0)


#: Each with the cause that the audit must give
CONVENTIONS = (
    Fault("psf_width 1.1 in the first band", "psf_width", 1.1, _psf_widths(lambda w: _in_band(w, 0, 1.1))),
    Fault(
        "psf_width 2.355 in the last band", "psf_width", 2.355, _psf_widths(lambda w: _in_band(w, -1, 2.355))
    ),
    Fault(
        "psf_width of the first band",
        "psf_width",
        None,
        _psf_widths(lambda w: np.repeat(w[:, :1], w.shape[1], axis=1)),
    ),
    Fault(
        "psf_width the same in all rows",
        "psf_width",
        None,
        _psf_widths(lambda w: np.broadcast_to(np.median(w, axis=0), w.shape)),
    ),
    Fault("stamps 1.05 times as bright", "flux_scale", 1.05, _gain(1.05, of_stamps=True)),
    Fault("controls 2.512 times as bright", "flux_scale", 1 / 2.512, _gain(2.512, of_stamps=False)),
    Fault("pixels of 0.2 arcsec", "provenance", None, _of_pixels(0.2)),
    Fault("pixels below zero cut off", "provenance", None, _clipped),
    Fault(
        "angles clockwise from the y axis",
        "orientation",
        None,
        _angles(lambda phi: np.pi / 2 - phi, "lens", "shear", "src"),
    ),
    Fault("angle of the lens in degrees", "orientation", None, _angles(np.deg2rad, "lens")),
    Fault(
        "angle of the shear turned by 90", "orientation", None, _angles(lambda phi: phi + np.pi / 2, "shear")
    ),
    Fault("angle of the source mirrored", "orientation", None, _angles(lambda phi: -phi, "src")),
    Fault(
        "source's x and y exchanged",
        "orientation",
        None,
        _read_as(lambda c: replace(c, src_x_arcsec=c.src_y_arcsec, src_y_arcsec=c.src_x_arcsec)),
    ),
    Fault(
        "theta_e with sqrt(q) twice",
        "theta_e_scale",
        None,
        _read_as(lambda c: replace(c, theta_e_arcsec=c.theta_e_arcsec * np.sqrt(_ratio(c.lens_e)))),
    ),
    Fault(
        "source radius circularised",
        "source_size",
        None,
        _read_as(lambda c: replace(c, src_reff_arcsec=c.src_reff_arcsec / np.sqrt(_ratio(c.src_e)))),
    ),
    Fault(
        "lens ellipticity as 1 - q",
        "provenance",
        None,
        _read_as(lambda c: replace(c, lens_e=_from_ratio(1 - c.lens_e))),
    ),
    Fault(
        "angle of the lens turned, psf_width 1.2",
        "psf_width",
        1.2,
        _read_as(
            lambda c: replace(
                c, lens_phi_rad=c.lens_phi_rad + np.pi / 2, psf_fwhm_arcsec=1.2 * c.psf_fwhm_arcsec
            )
        ),
        also=("orientation",),
    ),
)
