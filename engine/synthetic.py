"""Synthetic hosts: luminous red galaxies with DR10-like colours, seeing, sky noise and neighbours.

Stand-ins where no cutouts are at hand. Every host follows from (seed, number) alone; pixels are made on
demand.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.config_schema import PRIORS
from arcforge.engine.draws import uniform
from arcforge.engine.errors import ConfigError, HostError
from arcforge.engine.host_set import HostSet
from arcforge.engine.host_table import HostTable
from arcforge.engine.priors import Prior

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

RECIPE = "arcforge.synthetic/1"  # changes whenever the same seed would give other pixels
_BANDS = "griz"
# Sky noise of a DR9/DR10 coadd pixel of 0.262 arcsec at median depth, nanomaggies.
_SKY_SIGMA_NMGY = {"g": 0.0019, "r": 0.0024, "i": 0.0050, "z": 0.0080}
_SKY_PIXSCALE_ARCSEC = 0.262
_SKY_SCATTER = Prior.of("normal", mean=1.0, sigma=0.15, low=0.7, high=1.5)
# Unresolved galaxies leave the sky's median 0.1-0.4 sigma above zero in such coadds.
_PEDESTAL_SIGMA = Prior.of("uniform", low=0.1, high=0.4)
# Resampling correlates neighbouring pixels: measured lag-1 correlation 0.16-0.32.
_LAG1_CORRELATION = 0.25
_GAIN_E_PER_NMGY = 4e4

_MAG_R = Prior.of("normal", mean=19.9, sigma=0.7, low=18.0, high=21.2)
_GR = Prior.of("normal", mean=1.75, sigma=0.13, low=1.4, high=2.1)
_RI = Prior.of("normal", mean=0.75, sigma=0.10, low=0.5, high=1.0)
_RZ = Prior.of("normal", mean=1.10, sigma=0.13, low=0.8, high=1.5)
# size at r = 20 and its slope: brighter galaxies are larger, log10 R_e falls by 0.13 a magnitude
_LOG_REFF = Prior.of("normal", mean=-0.02, sigma=0.12, low=-0.4, high=0.4)
_LOG_REFF_PER_MAG = -0.13
_N = Prior.of("uniform", low=3.0, high=5.0)
_E = Prior.of("rayleigh", sigma=0.09, high=0.3)
_PHI = Prior.of("uniform", low=0.0, high=math.pi)
_OFFSET_PIX = Prior.of("uniform", low=-0.5, high=0.5)

# neighbours: up to three small blue galaxies outside the radius where arcs lie
_NEIGHBOURS = 3
_NEIGHBOUR_SHARE = 0.5  # chance of each of them
_NEIGHBOUR_MAG_R = Prior.of("normal", mean=23.0, sigma=0.8, low=20.5, high=24.5)
_NEIGHBOUR_COLOUR = Prior.of("normal", mean=0.7, sigma=0.3, low=0.0, high=1.5)
_NEIGHBOUR_REFF = Prior.of("uniform", low=0.2, high=0.7)
_NEIGHBOUR_RADIUS_ARCSEC = 4.0


def synthetic_hosts(
    n: int,
    seed: int,
    *,
    bands: str = "grz",
    stamp_size: int = 64,
    pixscale_arcsec: float = 0.262,
    psf_priors: Mapping[str, Prior] | None = None,
) -> HostSet:
    """Make a set of synthetic hosts.

    Parameters
    ----------
    n : int
        Number of hosts.
    seed : int
        Root seed; host i of a seed is the same in sets of every size.
    bands : str
        Letters out of g, r, i, z; r is not required.
    stamp_size : int
        Pixels along a side; the galaxy lies within half a pixel of index ``stamp_size // 2``.
    pixscale_arcsec : float
        Pixel scale; sky noise scales with the pixel's side.
    psf_priors : mapping of str to Prior, optional
        ``psf_model``, ``moffat_beta`` and ``psf_fwhm_arcsec_<band>``, e.g. ``Config.priors``; default: those
        of the default configuration (and of z for i).

    Returns
    -------
    HostSet
        ``mag`` is the galaxy's true total magnitude, the centroid its true position; PSF known for each host.

    Raises
    ------
    HostError
        A band that has no recipe, or no host at all.
    """
    strange = [band for band in bands if band not in _BANDS]
    if strange or not bands:
        raise HostError(f"synthetic hosts have no recipe for bands '{bands}': use letters of '{_BANDS}'")
    if n < 1:
        raise HostError(f"{n} synthetic hosts asked for: give at least 1")
    recipe = _Recipe(seed, bands, stamp_size, pixscale_arcsec, _psf_priors(bands, psf_priors))
    return HostSet(bands, pixscale_arcsec, stamp_size, recipe.table(n), recipe.pixels)


def _psf_priors(bands: str, given: Mapping[str, Prior] | None) -> dict[str, Prior]:
    priors = {name: prior for name, (prior, _) in PRIORS.items()}
    priors["psf_fwhm_arcsec_i"] = priors["psf_fwhm_arcsec_z"]
    if given is not None:
        priors.update(given)
    names = ["psf_model", "moffat_beta", *(f"psf_fwhm_arcsec_{band}" for band in bands)]
    missing = [name for name in names if name not in priors]
    if missing:
        raise ConfigError(f"synthetic hosts need the prior {missing[0]}: add it to [priors]")
    return {name: priors[name] for name in names}


@dataclass(frozen=True)
class _Recipe:
    """The whole population as functions of host numbers."""

    seed: int
    bands: str
    stamp_size: int
    pixscale_arcsec: float
    psf_priors: Mapping[str, Prior]

    def _draw(self, prior: Prior, hosts: Rows, purpose: str, index: int = 0) -> NDArray[Any]:
        return prior.quantile(uniform(self.seed, hosts, f"synthetic.{purpose}", index))

    def table(self, n: int) -> HostTable:
        hosts = np.arange(n, dtype=np.int64)
        centre = self.stamp_size // 2
        text = "\n".join(f"{name} {prior.dist} {prior.parameters}" for name, prior in self.psf_priors.items())
        stem = f"{RECIPE} {self.seed} {self.bands} {self.stamp_size} {self.pixscale_arcsec!r}\n{text}\n"
        psf = [
            self._draw(self.psf_priors[f"psf_fwhm_arcsec_{b}"], hosts, f"psf_fwhm_{b}") for b in self.bands
        ]
        model, beta = self._psf_model(hosts)
        names = np.array([f"synthetic-{self.seed}-{i:06d}" for i in range(n)])
        return HostTable(
            host_id=names,
            path=names,
            sha256=np.array([hashlib.sha256(f"{stem}{i}".encode()).hexdigest() for i in range(n)]),
            x_pix=centre + self._draw(_OFFSET_PIX, hosts, "x"),
            y_pix=centre + self._draw(_OFFSET_PIX, hosts, "y"),
            mag=self._mags(hosts, self._draw(_MAG_R, hosts, "mag_r")),
            sky_sigma_nmgy=self._sky_sigma(hosts),
            psf_fwhm_arcsec=np.where((model == "none")[:, None], np.nan, np.stack(psf, axis=1)),
            psf_model=model,
            moffat_beta=beta,
            light_e=self._draw(_E, hosts, "e"),
            light_phi_rad=self._draw(_PHI, hosts, "phi"),
        )

    def pixels(self, hosts: Rows) -> NDArray[np.float32]:
        """Pixels of those hosts, float32 (k, bands, stamp_size, stamp_size)."""
        light = self._light(hosts)
        sigma = self._sky_sigma(hosts)[:, :, None, None]
        pedestal = self._draw(_PEDESTAL_SIGMA, hosts, "pedestal")[:, None, None, None] * sigma
        noise = np.sqrt(sigma**2 + np.maximum(light, 0.0) / _GAIN_E_PER_NMGY) * self._white_to_sky(hosts)
        return (light + pedestal + noise).astype(np.float32)

    def _mags(self, hosts: Rows, mag_r: Floats) -> Floats:
        colours = {
            "g": self._draw(_GR, hosts, "gr"),
            "r": np.zeros(hosts.size),
            "i": -self._draw(_RI, hosts, "ri"),
            "z": -self._draw(_RZ, hosts, "rz"),
        }
        return np.stack([mag_r + colours[band] for band in self.bands], axis=1)

    def _sky_sigma(self, hosts: Rows) -> Floats:
        side = self.pixscale_arcsec / _SKY_PIXSCALE_ARCSEC
        scatter = [self._draw(_SKY_SCATTER, hosts, "sky", _BANDS.index(band)) for band in self.bands]
        return np.stack(
            [_SKY_SIGMA_NMGY[b] * side * s for b, s in zip(self.bands, scatter, strict=True)], axis=1
        )

    def _psf_model(self, hosts: Rows) -> tuple[NDArray[Any], Floats]:
        model = self._draw(self.psf_priors["psf_model"], hosts, "psf_model")
        return model, self._draw(self.psf_priors["moffat_beta"], hosts, "moffat_beta")

    def _light(self, hosts: Rows) -> Floats:
        """Galaxy and neighbours before noise, float64 (k, bands, ny, nx), PSF applied."""
        from arcforge.engine.render import render_unlensed

        place = np.arange(hosts.size)
        places, parts = [place], [self._galaxies(hosts)]
        for i in range(_NEIGHBOURS):
            present = uniform(self.seed, hosts, "synthetic.neighbour", i) < _NEIGHBOUR_SHARE
            places.append(place[present])
            parts.append(self._neighbours(hosts[present], i))
        catalog = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        # 4x4 samples: the innermost pixel of a cuspy galaxy is off by about a per cent, far below its scatter
        images = render_unlensed(
            catalog,
            bands=self.bands,
            stamp_size=self.stamp_size,
            pixscale_arcsec=self.pixscale_arcsec,
            variant="uniform4",
        )
        light = np.zeros((hosts.size, *images.shape[1:]))
        start = 0
        for place in places:
            light[place] += images[start : start + place.size]
            start += place.size
        return light

    def _galaxies(self, hosts: Rows) -> dict[str, NDArray[Any]]:
        mag_r = self._draw(_MAG_R, hosts, "mag_r")
        log_reff = self._draw(_LOG_REFF, hosts, "log_reff") + _LOG_REFF_PER_MAG * (mag_r - 20.0)
        offset = self.stamp_size // 2 - (self.stamp_size - 1) / 2.0
        shape = {
            "src_x_arcsec": (self._draw(_OFFSET_PIX, hosts, "x") + offset) * self.pixscale_arcsec,
            "src_y_arcsec": (self._draw(_OFFSET_PIX, hosts, "y") + offset) * self.pixscale_arcsec,
            "src_reff_arcsec": 10.0**log_reff,
            "src_n": self._draw(_N, hosts, "n"),
            "src_e": self._draw(_E, hosts, "e"),
        }
        return self._catalog(hosts, shape, "phi", self._mags(hosts, mag_r))

    def _neighbours(self, hosts: Rows, index: int) -> dict[str, NDArray[Any]]:
        half = 0.5 * self.stamp_size * self.pixscale_arcsec
        inner = min(_NEIGHBOUR_RADIUS_ARCSEC, half)
        u = uniform(self.seed, hosts, "synthetic.neighbour.radius", index)
        radius = np.sqrt(inner**2 + u * (2.0 * half**2 - inner**2))  # even over the area, out to the corners
        angle = 2.0 * self._draw(_PHI, hosts, "neighbour.angle", index)
        mag_r = self._draw(_NEIGHBOUR_MAG_R, hosts, "neighbour.mag_r", index)
        colour = self._draw(_NEIGHBOUR_COLOUR, hosts, "neighbour.colour", index)
        steps = {"g": 1.0, "r": 0.0, "i": -0.4, "z": -0.7}
        mags = np.stack([mag_r + steps[band] * colour for band in self.bands], axis=1)
        shape = {
            "src_x_arcsec": radius * np.cos(angle),
            "src_y_arcsec": radius * np.sin(angle),
            "src_reff_arcsec": self._draw(_NEIGHBOUR_REFF, hosts, "neighbour.reff", index),
            "src_n": np.ones(hosts.size),
            "src_e": self._draw(_E, hosts, "neighbour.e", index),
        }
        return self._catalog(hosts, shape, f"neighbour.phi{index}", mags)

    def _catalog(
        self, hosts: Rows, shape: dict[str, Floats], phi: str, mags: Floats
    ) -> dict[str, NDArray[Any]]:
        """Catalogue columns of unlensed galaxies of that shape."""
        model, beta = self._psf_model(hosts)
        columns: dict[str, NDArray[Any]] = dict(shape)
        columns |= {
            "lens_model": np.full(hosts.size, "SIS"),
            "theta_e_arcsec": np.ones(hosts.size),  # required of a row, not used without a lens
            "src_phi_rad": self._draw(_PHI, hosts, phi),
            "psf_model": model,
            "moffat_beta": beta,
        }
        for number, band in enumerate(self.bands):
            columns[f"src_flux_nmgy_{band}"] = 10.0 ** (0.4 * (22.5 - mags[:, number]))
            fwhm = self.psf_priors[f"psf_fwhm_arcsec_{band}"]
            columns[f"psf_fwhm_arcsec_{band}"] = self._draw(fwhm, hosts, f"psf_fwhm_{band}")
        return columns

    def _white_to_sky(self, hosts: Rows) -> Floats:
        """Unit-variance Gaussian noise with the lag-1 correlation of resampled coadds, (k, bands, ny, nx)."""
        from scipy.special import ndtri

        side = self.stamp_size + 2
        per_host = len(self.bands) * side * side
        rows = np.repeat(hosts, per_host)
        index = np.tile(np.arange(per_host, dtype=np.int64), hosts.size)
        white = ndtri(uniform(self.seed, rows, "synthetic.noise", index))
        white = white.reshape((hosts.size, len(self.bands), side, side))
        # weights (a, 1, a) along each axis: correlation 2a / (1 + 2a^2) at lag 1, solved for a
        rho = _LAG1_CORRELATION
        a = (1.0 - math.sqrt(1.0 - 2.0 * rho**2)) / (2.0 * rho)
        along_x = white[..., 1:-1] + a * (white[..., :-2] + white[..., 2:])
        both = along_x[..., 1:-1, :] + a * (along_x[..., :-2, :] + along_x[..., 2:, :])
        return np.asarray(both / (1.0 + 2.0 * a**2))
