"""Sets whose renderer read the catalogue by another convention: no common factor, and still one cause."""

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


#: Each with the cause that the audit must give
CONVENTIONS = (
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
