"""What may differ between pixels and record: the fit's parameters, a point in them, the data to explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.forward import NOMINAL, Change, Edge

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Integers = NDArray[np.int64]

# Parameters that need re-rendering, with the half-step of their finite difference: large against the
# rendering error, small against the PSF. Offsets in pixels; scales by the logarithm.
RENDERED_STEPS = {
    "offset_x_pix": 0.2,
    "offset_y_pix": 0.2,
    "psf_width": 0.03,
    "theta_e_scale": 0.015,
    "source_size": 0.06,
    "kernel_edge_pix": 0.5,
    "kernel_edge_fwhm": 0.1,
}
EDGES = ("kernel_edge_pix", "kernel_edge_fwhm")
# The width in one band multiplies that of all: psf_width_g
_WIDTH_OF_BAND = "psf_width_"
_LARGEST_STEP = 20.0
# Weight of what is left out: nothing divides by zero then
_HARDLY = 1e-12
_SCALES = ("psf_width", "theta_e_scale", "source_size")


def is_scale(name: str) -> bool:
    """Whether a parameter multiplies (nominal 1) rather than adds (nominal 0)."""
    return name in _SCALES or name.startswith(("flux_scale_", _WIDTH_OF_BAND))


def is_width_of_band(name: str) -> bool:
    """Whether a parameter is the PSF width in one band."""
    return name.startswith(_WIDTH_OF_BAND)


def nominal_value(name: str) -> float:
    """Return the value of a parameter where pixels and record agree."""
    if name in EDGES:
        return np.inf
    return 1.0 if is_scale(name) else 0.0


def parameter_names(bands: str, *, width_by_band: bool = False) -> tuple[str, ...]:
    """Return the names of the full fit, in the order of the report.

    The edge of a finite PSF kernel is not among them: no set records it, and the record has none.
    """
    rendered = (name for name in RENDERED_STEPS if name not in EDGES)
    widths = _width_names(bands, width_by_band)
    return (
        *(part for name in rendered for part in (widths if name == "psf_width" else (name,))),
        *(f"flux_scale_{band}" for band in bands),
        *(f"pedestal_nmgy_{band}" for band in bands),
        "control_gain",
    )


def parameters_of(bands: str, *, width_by_band: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the parameters of every cause that the fit can move."""
    return {
        "kernel_offset": ("offset_x_pix", "offset_y_pix"),
        "psf_width": _width_names(bands, width_by_band),
        "theta_e_scale": ("theta_e_scale",),
        "source_size": ("source_size",),
        "flux_scale": tuple(f"flux_scale_{band}" for band in bands),
        "pedestal": tuple(f"pedestal_nmgy_{band}" for band in bands),
        "wraparound": ("wraparound",),
    }


def _width_names(bands: str, by_band: bool) -> tuple[str, ...]:
    return tuple(_WIDTH_OF_BAND + band for band in bands) if by_band else ("psf_width",)


def after_step(name: str, value: float, step: Any) -> Any:
    """Return values after steps: rendered scales by the logarithm, fluxes by the share, others added."""
    if name.startswith("flux_scale_"):
        return value * (1.0 + step)
    # a row that knows nothing of a scale may ask for any step
    return value * np.exp(np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)) if is_scale(name) else value + step


@dataclass(frozen=True)
class Point:
    """Values shared by all rows; parameters that are not named are nominal.

    ``reading`` names one of ``READINGS`` by which the record is read.
    """

    values: dict[str, float] = field(default_factory=dict)
    reading: str = ""

    def __getitem__(self, name: str) -> float:
        return self.values.get(name, nominal_value(name))

    def at(self, **values: float) -> Point:
        """Return the point with some values set."""
        return replace(self, values=self.values | values)

    def moved(self, names: Sequence[str], steps: Floats) -> Point:
        """Return the point after steps, each as :func:`after_step` takes it."""
        moved = {name: float(after_step(name, self[name], s)) for name, s in zip(names, steps, strict=True)}
        return replace(self, values=self.values | moved)

    @property
    def edge(self) -> Edge | None:
        """Where the PSF kernel ends; None where it does not."""
        return next(((name, self[name]) for name in EDGES if np.isfinite(self[name])), None)

    def whole(self) -> Point:
        """Return the point with a kernel that does not end."""
        return self.at(**dict.fromkeys(EDGES, float("inf")))

    @property
    def change(self) -> Change:
        """The part of the point that the renderer knows."""
        rendered = {name: self[name] for name in RENDERED_STEPS}
        widths = tuple(
            (name.removeprefix(_WIDTH_OF_BAND), value)
            for name, value in self.values.items()
            if is_width_of_band(name)
        )
        return replace(NOMINAL, reading=self.reading, psf_width_of_bands=widths, **rendered)

    @property
    def width_by_band(self) -> bool:
        """Whether bands have PSF widths of their own."""
        return any(is_width_of_band(name) for name in self.values)


@dataclass(frozen=True)
class FitData:
    """Pixels to explain, n rows.

    Attributes
    ----------
    bands : str
        Order of the band axis.
    rows : int64 (n,)
        Rows of the forward model.
    added, controls, recorded : float32 (n, band, y, x)
        Light to explain (stamp - control), the controls, and the model of the record.
    weights : float64 (n, band)
        1 / variance of a pixel.
    peak, sky_sigma : float64 (n, band)
        Of the predicted arc, and of the control's sky.
    arc : bool (n, band, y, x)
        Pixels that count as arc.
    seen : bool (y, x)
        Pixels that count at all: a control that was moved back has no rim.
    templates : dict
        Further linear terms by parameter name: float32 (n, band, y, x).
    """

    bands: str
    rows: Integers
    added: Images
    controls: Images
    recorded: Images
    weights: Floats
    peak: Floats
    sky_sigma: Floats
    arc: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    templates: dict[str, Images] = field(default_factory=dict)

    @property
    def beside(self) -> NDArray[np.bool_]:
        """Pixels that count and hold no arc: bool (n, band, y, x)."""
        return ~self.arc & self.seen

    def take(self, index: Integers) -> FitData:
        """Return some of the rows."""
        arrays = {
            name: getattr(self, name)[index]
            for name in ("rows", "added", "controls", "recorded", "weights", "peak", "sky_sigma", "arc")
        }
        templates = {name: image[index] for name, image in self.templates.items()}
        return FitData(bands=self.bands, seen=self.seen, templates=templates, **arrays)

    def of_band(self, k: int) -> FitData:
        """Return the data with the weight of one band alone."""
        alone = np.where(np.arange(len(self.bands)) == k, 1.0, _HARDLY)
        return replace(self, weights=self.weights * alone)

    def linear_term(self, name: str, unit: Images) -> Images:
        """Return the image that a linear parameter multiplies; ``unit`` is the model at flux scales 1."""
        kind, _, band = name.rpartition("_")
        if kind in ("flux_scale", "pedestal_nmgy"):
            term = np.zeros_like(unit)
            term[:, self.bands.index(band)] = unit[:, self.bands.index(band)] if kind == "flux_scale" else 1.0
            return term
        return self.controls if name == "control_gain" else self.templates[name]
