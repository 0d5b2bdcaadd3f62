"""The numeric catalogue columns that the renderer knows: range, default, and the way out of a bad value."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Column:
    """One numeric column."""

    name: str
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    default: float | None = None  #: stands for an absent column; None: the column must be there
    neutral: float = 0.0  #: stands in rows that do not use the column (CONTROL)
    remedy: str = "give a finite number or drop the row"

    def in_range(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which values are finite and allowed."""
        above = values > self.low if self.low_open else values >= self.low
        below = values < self.high if self.high_open else values <= self.high
        return np.asarray(np.isfinite(values) & above & below, dtype=np.bool_)

    def allowed(self) -> str:
        """The range in words, e.g. ``0 <= value < 1``."""
        low = f"{self.low:g} {'<' if self.low_open else '<='} " if math.isfinite(self.low) else ""
        high = f" {'<' if self.high_open else '<='} {self.high:g}" if math.isfinite(self.high) else ""
        return f"{low}value{high}" if low or high else "a finite number"

    def of_band(self, band: str) -> Column:
        """The column of one band, where there is one a band."""
        return replace(self, name=f"{self.name}_{band}")


_ELLIPTICITY = "e = (1-q)/(1+q), with q the axis ratio"

COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("theta_e_arcsec", 0.0, low_open=True, remedy='a row without a lens has lens_model "CONTROL"'),
        Column("lens_e", 0.0, 1.0, high_open=True, remedy=_ELLIPTICITY),
        Column("lens_phi_rad"),
        Column("lens_gamma", 1.2, 2.8, neutral=2.0, remedy='slope of lens_model "EPL"; 2 is isothermal'),
        Column("nfw_rs_arcsec", 0.0, low_open=True, neutral=1.0, remedy='scale radius of lens_model "NFW"'),
        Column("lens_x_arcsec", default=0.0),
        Column("lens_y_arcsec", default=0.0),
        Column("shear", -1.0, 1.0, low_open=True, high_open=True, default=0.0, remedy="|shear| is below 1"),
        Column("shear_phi_rad", default=0.0),
        Column("src_x_arcsec"),
        Column("src_y_arcsec"),
        Column("src_reff_arcsec", 0.0, low_open=True, neutral=1.0, remedy="half-light radius in arcsec"),
        Column("src_n", 0.3, 8.0, default=1.0, neutral=1.0, remedy="give another Sersic index"),
        Column("src_e", 0.0, 1.0, high_open=True, remedy=_ELLIPTICITY),
        Column("src_phi_rad"),
        Column(
            "moffat_beta",
            1.0,
            20.0,  # the table of transforms ends at 2 pi k alpha = 36: 1e-6 of the peak there, more beyond
            low_open=True,
            default=3.5,
            neutral=3.5,
            remedy='flux is finite for beta > 1; above 20 it is a Gaussian: set psf_model to "gaussian"',
        ),
        Column("psf_id", -1.0, 2.0**53, neutral=-1.0, remedy='psf_model "image" needs a number from 0 on'),
    )
}

FLUX = Column("src_flux_nmgy", 0.0, remedy="unlensed total in nanomaggies, 10**((22.5 - mag) / 2.5)")
PSF_FWHM = Column(
    "psf_fwhm_arcsec",
    0.0,
    low_open=True,
    remedy='a survey writes 0 where a band has no coverage: drop the row, or set psf_model to "none"',
)
