"""The surveys whose foreign sets the audit is calibrated on: hosts, frames, PSFs, sources, catalogues."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcforge.bench.foreign import ForeignRenderer

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]

_DATA = Path(__file__).parents[1] / "../shared/data"
# Light and noise of a plain host by band, nMgy per pixel of 0.262 arcsec
_BAND_LIGHT = {"g": 0.25, "r": 1.0, "i": 1.5, "z": 1.9, "y": 2.2}
_BAND_NOISE = {"g": 0.003, "r": 0.004, "i": 0.007, "z": 0.012, "y": 0.02}
# Of the sources against r, where a survey's bands are not those of the default draw
_BAND_COLOUR = {"g": 0.75, "r": 1.0, "i": 1.1, "z": 1.2, "y": 1.3}
_BAND_SEEING = {"g": 1.08, "r": 1.0, "i": 0.96, "z": 0.93, "y": 0.9}
# The isolated galaxies of the DES hosts
_ISOLATED = (0, 4, 5, 6, 11, 12, 13, 14, 16, 17, 21, 23, 28, 30, 36, 37, 38, 44, 45)


@dataclass(frozen=True)
class Survey:
    """What a foreign set is made of.

    Attributes
    ----------
    name : str
    n_hosts : int
        Hosts, in turn.
    hosts : {"real", "plain", "crowded", "field", "lenses"}
        Isolated real galaxies; smooth galaxies in noise; every real galaxy of the DES hosts, bright
        neighbours too; cutouts of a real Legacy Surveys field, wherever they fall; real lens candidates.
        Plain ones where the data (``../shared/data``) are absent.
    bands : str
        Real hosts have g, r and z.
    stamp_pix, pixscale_arcsec
        Frame.
    psf_model : {"moffat", "gaussian"}
    moffat_beta : float or (float, float)
        Of every row, or the range that rows are drawn from.
    flux_factor : float
        Of the sources, against those of the default draw.
    src_n : (float, float)
        Range of the Sersic index.
    continuous : bool
        Einstein radii are continuous, not on a grid.
    shear : float
        Largest shear.
    seeing_scatter : float
        Standard deviation of the logarithm of PSF widths, by row and band.
    models : tuple of (str, float)
        Lens models and their shares; CONTROL rows have no arc.
    decimals : int, optional
        The catalogue is rounded to so many decimals after the pixels were made.
    single : bool
        The catalogue is written in float32 after the pixels were made.
    renderer : dict
        Options of :class:`ForeignRenderer`.
    """

    name: str
    n_hosts: int = 19
    hosts: str = "real"
    bands: str = "grz"
    stamp_pix: int = 64
    pixscale_arcsec: float = 0.262
    psf_model: str = "moffat"
    moffat_beta: float | tuple[float, float] = 3.5
    flux_factor: float = 1.0
    src_n: tuple[float, float] = (1.0, 1.0)
    continuous: bool = False
    shear: float = 0.06
    seeing_scatter: float = 0.0
    models: tuple[tuple[str, float], ...] = (("SIE", 1.0),)
    decimals: int | None = None
    single: bool = False
    renderer: tuple[tuple[str, Any], ...] = ()

    def render(self, **options: Any) -> ForeignRenderer:
        """Return the survey's renderer, with some options changed."""
        return ForeignRenderer(self.pixscale_arcsec, **(dict(self.renderer) | options))

    def adapt(self, columns: Columns, rng: np.random.Generator) -> None:
        """Change drawn parameters (in place) to those of this survey."""
        n = len(columns["theta_e_arcsec"])
        columns["pixscale_arcsec"] = np.full(n, self.pixscale_arcsec)
        columns["psf_model"] = np.full(n, self.psf_model)
        columns["src_n"] = rng.uniform(*self.src_n, n)
        if self.bands != "grz":
            self._exchange_bands(columns, rng)
        for band in self.bands:
            columns[f"src_flux_nmgy_{band}"] = columns[f"src_flux_nmgy_{band}"] * self.flux_factor
        if self.continuous:
            factor = rng.uniform(0.9, 1.1, n)
            for name in ("theta_e_arcsec", "src_x_arcsec", "src_y_arcsec"):
                columns[name] = columns[name] * factor
        columns["shear"] = columns["shear"] * (self.shear / 0.06)
        low, high = (self.moffat_beta,) * 2 if isinstance(self.moffat_beta, float) else self.moffat_beta
        columns["moffat_beta"] = np.full(n, low) if low == high else rng.uniform(low, high, n)
        if self.seeing_scatter:
            for band in self.bands:
                scatter = np.exp(rng.normal(0.0, self.seeing_scatter, n))
                columns[f"psf_fwhm_used_{band}"] = columns[f"psf_fwhm_used_{band}"] * scatter
        if len(self.models) > 1:
            names, shares = zip(*self.models, strict=True)
            columns["lens_model"] = rng.choice(np.array(names), n, p=shares)
            columns["is_control"] = (columns["lens_model"] == "CONTROL").astype(np.int64)

    def _exchange_bands(self, columns: Columns, rng: np.random.Generator) -> None:
        flux, seeing = columns["src_flux_nmgy_r"], columns["psf_fwhm_used_r"]
        for band in "grz":
            del columns[f"src_flux_nmgy_{band}"], columns[f"psf_fwhm_used_{band}"]
        for band in self.bands:
            columns[f"src_flux_nmgy_{band}"] = flux * _BAND_COLOUR[band] * rng.uniform(0.85, 1.15, len(flux))
            columns[f"psf_fwhm_used_{band}"] = seeing * _BAND_SEEING[band]

    def record(self, columns: Columns) -> Columns:
        """Return the catalogue as it is written: rounded or in single precision, if the survey does so."""
        written = dict(columns)
        for name, values in columns.items():
            if values.dtype != np.float64 or name == "pixscale_arcsec":
                continue
            if self.decimals is not None:
                written[name] = np.round(values, self.decimals)
            if self.single:
                written[name] = written[name].astype(np.float32)
        return written

    def host_pixels(self, seed: int) -> Images:
        """Return the hosts: float32 (n_hosts, band, y, x)."""
        rng = np.random.default_rng([seed, 3])
        if self.hosts == "plain" or not _DATA.exists() or self.bands != "grz":
            return plain_hosts(self.n_hosts, self.stamp_pix, self.pixscale_arcsec, seed, self.bands)
        images = _REAL[self.hosts](self.stamp_pix, self.n_hosts, rng)
        return images[rng.permutation(len(images))[: self.n_hosts]]


def _middle(image: Images, side: int) -> Images:
    """Cut the middle ``side`` pixels of (..., y, x)."""
    cut = (image.shape[-1] - side) // 2
    return image[..., cut : cut + side, cut : cut + side]


def _des_hosts(side: int, numbers: tuple[int, ...]) -> Images:
    from astropy.io import fits

    files = [_DATA / f"hosts/des46/des46_{k:02d}.fits" for k in numbers]
    return np.stack([_middle(fits.getdata(file).astype(np.float32), side) for file in files])


def _field_hosts(side: int, n: int, rng: np.random.Generator) -> Images:
    """Cutouts of a Legacy Surveys field: edges and neighbours of galaxies at the centre, or nothing there."""
    from astropy.io import fits

    field = fits.getdata(next((_DATA / "hosts").glob("ls_dr9_*.fits"))).astype(np.float32)
    corners = rng.integers(0, field.shape[-1] - side + 1, size=(n, 2))
    return np.stack([field[:, y : y + side, x : x + side] for y, x in corners])


def _lens_hosts(side: int, n: int, rng: np.random.Generator) -> Images:
    """Cutouts of real lens candidates with arcs of their own, turned and mirrored to make ``n``."""
    files = sorted((_DATA / "lenses/ls_dr10_tierB").glob("*.npz"))
    images = [_middle(np.load(f)["cutout"].transpose(2, 0, 1).astype(np.float32), side) for f in files]
    every = [np.rot90(i[..., ::flip], turn, (1, 2)) for i in images for flip in (1, -1) for turn in range(4)]
    return np.stack([every[k] for k in rng.permutation(len(every))[:n]])


_REAL = {
    "real": lambda side, n, rng: _des_hosts(side, _ISOLATED),
    "crowded": lambda side, n, rng: _des_hosts(side, tuple(range(46))),
    "field": _field_hosts,
    "lenses": _lens_hosts,
}

SURVEYS = (
    Survey("as the shared sets", renderer=(("kernel_fwhm", 5.0),)),
    Survey("whole Gaussian", psf_model="gaussian", continuous=True, n_hosts=80, hosts="plain"),
    Survey("stamp's own light, kernel of 4 FWHM", renderer=(("kernel_fwhm", 4.0), ("outside_light", False))),
    Survey(
        "bright, fine pixels",
        hosts="plain",
        n_hosts=120,
        stamp_pix=80,
        pixscale_arcsec=0.2,
        flux_factor=3.0,
        src_n=(0.6, 2.0),
        moffat_beta=2.8,
    ),
    Survey("faint, short Moffat", flux_factor=0.3, moffat_beta=4.765, renderer=(("kernel_fwhm", 3.0),)),
    Survey("small stamps", stamp_pix=48, psf_model="gaussian", renderer=(("kernel_fwhm", 4.0),)),
)

# Sets as others may bring them, each unlike the first ones in several respects
OTHER_SURVEYS = (
    Survey("crowded hosts, seeing by band", hosts="crowded", n_hosts=46, seeing_scatter=0.1),
    Survey("lens candidates, 101 px", hosts="lenses", n_hosts=24, stamp_pix=101, continuous=True),
    Survey("field cutouts, 41 px", hosts="field", n_hosts=60, stamp_pix=41, psf_model="gaussian"),
    Survey(
        "two bands, 51 px",
        hosts="plain",
        n_hosts=40,
        bands="gr",
        stamp_pix=51,
        renderer=(("kernel_fwhm", 6.0),),
    ),
    Survey(
        "five bands of 0.168 arcsec",
        hosts="plain",
        n_hosts=60,
        bands="grizy",
        stamp_pix=64,
        pixscale_arcsec=0.168,
        moffat_beta=3.0,
        seeing_scatter=0.05,
    ),
    Survey("bright", flux_factor=30.0, continuous=True, renderer=(("kernel_fwhm", 5.0),)),
    Survey("very faint", flux_factor=0.05, n_hosts=12),
    Survey(
        "SIS, SIE and CONTROL",
        models=(("SIE", 0.5), ("SIS", 0.3), ("CONTROL", 0.2)),
        continuous=True,
        shear=0.1,
    ),
    Survey("cuspy sources", src_n=(0.5, 4.0), hosts="crowded", n_hosts=30, shear=0.1),
    Survey("betas by row", moffat_beta=(2.5, 5.0), seeing_scatter=0.15, continuous=True),
    Survey("four decimals", decimals=4, continuous=True),
    Survey("single precision", single=True, continuous=True, psf_model="gaussian"),
)


def plain_hosts(n: int, stamp_pix: int, pixscale_arcsec: float, seed: int, bands: str = "grz") -> Images:
    """Make elliptical galaxies in slightly correlated noise: float32 (n, band, y, x)."""
    rng = np.random.default_rng([seed, 5])
    y, x = np.indices((stamp_pix, stamp_pix)) - (stamp_pix - 1) / 2.0
    images = np.empty((n, len(bands), stamp_pix, stamp_pix), dtype=np.float32)
    for host in range(n):
        dx, dy = rng.uniform(-0.5, 0.5, 2)
        radius = np.hypot(x - dx, (y - dy) / rng.uniform(0.6, 1.0)) * pixscale_arcsec
        shape = np.exp(-3.0 * ((radius / rng.uniform(0.7, 1.6) + 0.3) ** 0.5))
        red = rng.uniform(0.8, 1.3)
        for number, band in enumerate(bands):
            white = rng.normal(size=(stamp_pix, stamp_pix))
            correlated = white + 0.25 * ndimage.uniform_filter(white, 3, mode="wrap")
            scale = pixscale_arcsec / 0.262
            light = _BAND_LIGHT[band] * red * scale**2 * shape
            images[host, number] = light + _BAND_NOISE[band] * scale * correlated
    return images
