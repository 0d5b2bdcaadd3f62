"""What is known of every host of a set without its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _absent() -> NDArray[Any]:
    return np.empty(0)


@dataclass(frozen=True)
class HostTable:
    """One entry a host; small enough (some 0.5 kB a host) to keep for a million hosts."""

    host_id: NDArray[Any]  #: (n,) text
    path: NDArray[Any]  #: (n,) text
    sha256: NDArray[Any]  #: (n,) text, of the file or, for synthetic hosts, of their recipe
    x_pix: NDArray[np.float64]  #: (n,) centroid in the stamp's frame, 0-based
    y_pix: NDArray[np.float64]
    mag: NDArray[np.float64]  #: (n, bands) AB; NaN where there is no positive flux
    sky_sigma_nmgy: NDArray[np.float64]  #: (n, bands)
    psf_fwhm_arcsec: NDArray[np.float64]  #: (n, bands); NaN where not known
    psf_model: NDArray[Any]  #: (n,) text; "" where not known
    moffat_beta: NDArray[np.float64]  #: (n,); NaN where not known
    psf_id: NDArray[np.int64] = field(default_factory=_absent)  #: (n,) number of the PSF image, -1 without
    ra_deg: NDArray[np.float64] = field(default_factory=_absent)  #: (n,); NaN where not known
    dec_deg: NDArray[np.float64] = field(default_factory=_absent)
    invvar_median: NDArray[np.float64] = field(default_factory=_absent)  #: (n, bands) NaN where not known

    sigma_v_km_s: NDArray[np.float64] = field(default_factory=_absent)  #: (n,) NaN where not known
    light_e: NDArray[np.float64] = field(default_factory=_absent)  #: (n,) of the galaxy's light, (1-q)/(1+q)
    light_phi_rad: NDArray[np.float64] = field(default_factory=_absent)

    def __post_init__(self) -> None:
        n = len(self)
        unknowns = dict.fromkeys(("ra_deg", "dec_deg", "sigma_v_km_s", "light_e", "light_phi_rad"), np.nan)
        for name, unknown in ({"psf_id": np.int64(-1)} | unknowns).items():
            if getattr(self, name).shape != (n,):
                object.__setattr__(self, name, np.full(n, unknown))
        if self.invvar_median.shape != self.mag.shape:
            object.__setattr__(self, "invvar_median", np.full(self.mag.shape, np.nan))

    @property
    def typical_invvar(self) -> NDArray[np.float64]:
        """(n, bands) the survey's median, else that of the sky as measured; infinite or NaN without noise."""
        with np.errstate(divide="ignore"):
            measured = self.sky_sigma_nmgy**-2.0
        return np.where(np.isnan(self.invvar_median), measured, self.invvar_median)

    def __len__(self) -> int:
        return int(self.host_id.shape[0])

    def take(self, numbers: NDArray[np.int64]) -> HostTable:
        """Those hosts, in that order."""
        return HostTable(**{f.name: getattr(self, f.name)[numbers] for f in fields(self)})

    @cached_property
    def key(self) -> NDArray[np.int64]:
        """(n,) a number made from each host's content, for draws that belong to the host.

        Two copies of one file have one key, so they share their split.
        """
        return np.array([int(digest[:16], 16) >> 1 for digest in self.sha256], dtype=np.int64)
