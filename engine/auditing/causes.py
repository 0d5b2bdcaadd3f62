"""What a named fault is: its name, its size, and what to mend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arcforge.engine.auditing.resampling import Estimate

_UNITS = {
    "kernel_offset": "px",
    "control_shift": "px",
    "pedestal": "nMgy/px",
    "noise": "sky sigma",
    "orientation": "",
    "band_order": "",
    "provenance": "",
}
NEXT_STEP = {
    "kernel_offset": "centre the PSF kernel and the pixel grid of the renderer",
    "psf_width": "compare the PSF width that is applied with the one that is recorded, and its unit",
    "theta_e_scale": "use one convention of the Einstein radius in renderer and catalogue",
    "source_size": "compare the source size that is rendered with the one that is recorded",
    "flux_scale": "compare zero points, units and normalisation of the added light",
    "pedestal": "take stamp and control from one image, and the sky off source templates",
    "control_shift": "cut stamp and control at the same pixel, without resampling",
    "orientation": "use one axis order and direction for arc, stamp and control",
    "band_order": "read the band order from the metadata, for stamp and control alike",
    "wraparound": "pad the convolution: light that leaves one edge returns at the other",
    "noise": "add noise to the added light only, or record the noise that was added",
    "provenance": "find the code and the inputs that made these pixels: the recorded parameters did not",
}


@dataclass(frozen=True)
class Cause:
    """A named fault with its size."""

    name: str
    estimate: float | None
    ci95: tuple[float, float] | None
    nominal: float | None
    unit: str
    message: str

    @property
    def certainty(self) -> float:
        """Distance from the nominal value in widths of the interval."""
        if self.estimate is None or self.ci95 is None or self.nominal is None:
            return np.inf
        return abs(self.estimate - self.nominal) / max(self.ci95[1] - self.ci95[0], 1e-12)


def make_cause(name: str, estimate: Estimate | None, nominal: float | None, text: str) -> Cause:
    """Return a cause in its own unit, ``text`` followed by what to mend."""
    return Cause(
        name,
        None if estimate is None else estimate.value,
        None if estimate is None else estimate.ci95,
        nominal,
        _UNITS.get(name, "ratio"),
        f"{text}; {NEXT_STEP[name]}",
    )
