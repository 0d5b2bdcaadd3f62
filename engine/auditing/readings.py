"""Other readings of the record: conventions by which the same columns give other arcs.

A renderer and a catalogue that mean different things by an angle, an Einstein radius or a size disagree row
by row, by no common factor. Each reading is tried as it is, without parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.kernels.codes import PSF_GAUSSIAN, PSF_MOFFAT, PSF_NONE

if TYPE_CHECKING:
    from arcforge.engine.catalog import RenderColumns

Floats = NDArray[np.float64]

MISSING_SQRT_Q = "missing sqrt(q)"
# Widths of the fit are in arcsec then
ONE_WIDTH = "one PSF width"


@dataclass(frozen=True)
class Reading:
    """One convention.

    Attributes
    ----------
    cause : str
        The fault that it is; ``provenance`` where no named one is meant, and it is told in words only.
    words : str
        What was done in place of what is recorded.
    apply : callable
        Takes the recorded columns to those that were rendered.
    """

    cause: str
    words: str
    apply: Callable[[RenderColumns], RenderColumns]


def _axis_ratio(ellipticity: Floats) -> Floats:
    return np.asarray((1.0 - ellipticity) / (1.0 + ellipticity))


def _by_sqrt_q(cause: str, words: str, column: str, ellipticity: str, power: float) -> Reading:
    """Reading by which a column is multiplied by a power of the root of an axis ratio."""

    def apply(c: RenderColumns) -> RenderColumns:
        factor = np.sqrt(_axis_ratio(getattr(c, ellipticity))) ** power
        return _with(c, {column: getattr(c, column) * factor})

    return Reading(cause, words, apply)


_ANGLES = {"lens": "lens_phi_rad", "shear": "shear_phi_rad", "source": "src_phi_rad"}
_TOGETHER = (("lens", "shear", "source"), ("lens", "shear"), ("lens", "source"), *((n,) for n in _ANGLES))
_MEASURED: dict[str, Callable[[Floats], Floats]] = {
    "from the y axis": lambda phi: phi + np.pi / 2,
    "clockwise": lambda phi: -phi,
    "from the y axis, clockwise": lambda phi: np.pi / 2 - phi,
    "in degrees": np.deg2rad,
}


def _with(columns: RenderColumns, changes: dict[str, Any]) -> RenderColumns:
    return replace(columns, **changes)


def _angles() -> Iterator[Reading]:
    for names in _TOGETHER:
        for way, change in _MEASURED.items():

            def apply(
                c: RenderColumns,
                names: tuple[str, ...] = names,
                change: Callable[[Floats], Floats] = change,
            ) -> RenderColumns:
                return _with(c, {_ANGLES[n]: change(getattr(c, _ANGLES[n])) for n in names})

            yield Reading("orientation", f"the angle of {' and '.join(names)} is measured {way}", apply)


def _positions() -> Iterator[Reading]:
    x, y = "src_x_arcsec", "src_y_arcsec"
    for words, sources, signs in (
        ("x and y of the source are exchanged", (y, x), (1, 1)),
        ("x of the source has the other sign", (x, y), (-1, 1)),
        ("y of the source has the other sign", (x, y), (1, -1)),
        ("x and y of the source have the other sign", (x, y), (-1, -1)),
    ):

        def apply(
            c: RenderColumns, sources: tuple[str, str] = sources, signs: tuple[int, int] = signs
        ) -> RenderColumns:
            return _with(c, {x: signs[0] * getattr(c, sources[0]), y: signs[1] * getattr(c, sources[1])})

        yield Reading("orientation", words, apply)


def _ellipticities() -> Iterator[Reading]:
    """Other ellipticities than (1 - q) / (1 + q), and what they make of the recorded number."""
    ways: dict[str, Callable[[Floats], Floats]] = {
        "1 - q": lambda e: e / (2.0 - e),
        "(1 - q^2) / (1 + q^2)": lambda e: np.tanh(np.arctanh(e) / 2.0),
    }
    for name, column in (("lens", "lens_e"), ("source", "src_e")):
        for way, change in ways.items():

            def apply(
                c: RenderColumns, column: str = column, change: Callable[[Floats], Floats] = change
            ) -> RenderColumns:
                return _with(c, {column: change(getattr(c, column))})

            yield Reading("provenance", f"the ellipticity of the {name} taken for {way}", apply)


def _everywhere(k: int, widths: Floats) -> Floats:
    """Return the width of band k (the last where there are fewer) in every band."""
    return np.repeat(widths[:, [min(k, widths.shape[1] - 1)]], widths.shape[1], axis=1)


def _psf_widths() -> Iterator[Reading]:
    """PSF widths of other bands than recorded."""
    orders: dict[str, Callable[[Floats], Floats]] = {
        "PSF widths are in the reverse order of bands": lambda w: w[:, ::-1]
    }
    for k, place in enumerate(("first", "second", "third", "fourth", "fifth")):
        orders[f"every band has the PSF width of the {place} one"] = partial(_everywhere, k)
    for words, order in orders.items():
        yield Reading("psf_width", words, _of_bands("psf_fwhm_arcsec", order))


def _of_bands(column: str, order: Callable[[Floats], Floats]) -> Callable[[RenderColumns], RenderColumns]:
    return lambda c: _with(c, {column: np.ascontiguousarray(order(getattr(c, column)))})


def _with_index(n: float) -> Callable[[RenderColumns], RenderColumns]:
    return lambda c: replace(c, src_n=np.full(len(c), n))


def _with_moffat(beta: float) -> Callable[[RenderColumns], RenderColumns]:
    return lambda c: replace(
        c,
        psf_model=np.where(c.psf_model == PSF_GAUSSIAN, PSF_MOFFAT, c.psf_model),
        moffat_beta=np.full(len(c), beta),
    )


def _profiles() -> Iterator[Reading]:
    """Profiles and PSFs of another kind than recorded."""
    for n in (0.5, 1.0, 4.0):
        yield Reading("provenance", f"sources of Sersic index {n:g}", _with_index(n))
    yield Reading(
        "provenance",
        "a Gaussian PSF of the same FWHM",
        lambda c: replace(c, psf_model=np.where(c.psf_model == PSF_MOFFAT, PSF_GAUSSIAN, c.psf_model)),
    )
    for beta in (2.5, 3.0, 3.5, 4.765):
        yield Reading("provenance", f"a Moffat PSF with beta = {beta:g}", _with_moffat(beta))
    yield Reading("provenance", "no shear", lambda c: replace(c, shear=np.zeros(len(c))))
    yield Reading(
        "provenance", "fluxes in the reverse order of bands", _of_bands("src_flux_nmgy", lambda f: f[:, ::-1])
    )


READINGS: dict[str, Reading] = {
    MISSING_SQRT_Q: _by_sqrt_q(
        "theta_e_scale",
        "Einstein radii are larger by 1/sqrt(q): the SIE lacks its factor sqrt(q)",
        "theta_e_arcsec",
        "lens_e",
        -1.0,
    ),
    "sqrt(q) twice": _by_sqrt_q(
        "theta_e_scale",
        "Einstein radii are smaller by sqrt(q): the SIE has its factor sqrt(q) twice",
        "theta_e_arcsec",
        "lens_e",
        1.0,
    ),
    "major axis from circular": _by_sqrt_q(
        "source_size",
        "sources are larger by 1/sqrt(q): a circularised radius was taken for the recorded one",
        "src_reff_arcsec",
        "src_e",
        -1.0,
    ),
    "circular from major axis": _by_sqrt_q(
        "source_size",
        "sources are smaller by sqrt(q): the recorded radius was taken for a circularised one",
        "src_reff_arcsec",
        "src_e",
        1.0,
    ),
    "no PSF": Reading(
        "psf_width",
        "the arcs are not convolved with any PSF",
        lambda c: replace(
            c,
            psf_model=np.full_like(c.psf_model, PSF_NONE),
            psf_fwhm_arcsec=np.zeros_like(c.psf_fwhm_arcsec),
        ),
    ),
    ONE_WIDTH: Reading(
        "psf_width",
        "every row has the same PSF width, whatever is recorded",
        lambda c: replace(c, psf_fwhm_arcsec=np.ones_like(c.psf_fwhm_arcsec)),
    ),
    **{
        r.words: r for group in (_angles, _positions, _psf_widths, _ellipticities, _profiles) for r in group()
    },
}
#: Readings that are faults by name and have no parameters; the others are told in words
NAMED = tuple(name for name, r in READINGS.items() if r.cause != "provenance" and name != ONE_WIDTH)
