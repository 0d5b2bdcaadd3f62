"""What a configuration may hold: every setting and prior with its default, its range and its meaning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from arcforge.engine.catalog import THETA_E_CONVENTIONS
from arcforge.engine.columns import COLUMNS, PSF_FWHM, Column
from arcforge.engine.errors import ConfigError
from arcforge.engine.maskbits import BAD_MASKBITS
from arcforge.engine.noise_models import NOISES
from arcforge.engine.priors import Prior
from arcforge.engine.variants import VARIANTS

SCHEMA = "arcforge.config/1"
PIXEL_RESPONSES = ("in_psf", "box")
NAMES = {
    "lens_model": ("SIE", "SIS"),
    "psf_model": ("gaussian", "moffat", "none"),
    "src_structure": ("sersic", "bulge_disk", "clumpy"),
}
_VARIANTS = tuple(variant.name for variant in VARIANTS)
_ANGLE = Prior.of("uniform", low=0.0, high=math.pi)


@dataclass(frozen=True)
class Setting:
    """A value that is not drawn."""

    default: Any
    is_allowed: Callable[[Any], bool]
    allowed: str
    meaning: str


def _is_int(low: int, high: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def _is_float(low: float, high: float) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high


def _one_of(names: tuple[str, ...]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, str) and v in names


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "\n" not in value


def _is_paths(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_path(path) and path for path in value)


def _is_bits(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_int(0, 30)(bit) for bit in value)


def _is_bands(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) == len(set(value)) and value.isalnum()


SETTINGS: dict[str, Setting] = {
    "bands": Setting(
        "grz", _is_bands, 'band letters, each once, e.g. "grz"', "bands, in the order of the images"
    ),
    "reference_band": Setting(
        "r", lambda v: isinstance(v, str) and len(v) == 1, "one of the bands", "band that src_dmag refers to"
    ),
    "stamp_size": Setting(64, _is_int(8, 1024), "a whole number from 8 to 1024", "pixels along a side"),
    "rtol": Setting(
        1e-3, _is_float(1e-5, 0.1), "a number from 1e-5 to 0.1", "largest pixel error of an arc over its peak"
    ),
    "variant": Setting("auto", _one_of(_VARIANTS), ", ".join(_VARIANTS), "kernel variant"),
    "pixel_response": Setting(
        "in_psf",
        _one_of(PIXEL_RESPONSES),
        '"in_psf" or "box"',
        'where the pixel is accounted for: in the (survey) PSF, or "box": also integrated over',
    ),
    "theta_e_convention": Setting(
        "intermediate", _one_of(THETA_E_CONVENTIONS), '"intermediate" or "major"', "of theta_e_arcsec"
    ),
    "control_fraction": Setting(
        0.0, _is_float(0, 1), "a number from 0 to 1", "share of rows without a lens; all have a control"
    ),
    "synthetic_host_count": Setting(
        500,
        _is_int(1, 10**7),
        "a whole number from 1 to 10000000",
        "hosts to synthesise where no host is given",
    ),
    "synthetic_pixscale_arcsec": Setting(
        0.262, _is_float(0.01, 10), "a number from 0.01 to 10", "their pixel scale, arcsec"
    ),
    "host_pixscale_arcsec": Setting(
        0.0, _is_float(0, 10), "a number from 0 to 10", "pixel scale of hosts that state none; 0: each must"
    ),
    "bad_hosts": Setting(
        "auto",
        _one_of(("auto", "stop", "skip")),
        '"auto", "stop" or "skip"',
        "hosts with NaN, no coverage, masks: an error, or left out and counted; auto: skip positions only",
    ),
    "host_min_coverage": Setting(
        0.9, _is_float(0, 1), "a number from 0 to 1", "share of a host's stamp with coverage, in every band"
    ),
    "host_bad_maskbits": Setting(
        BAD_MASKBITS, _is_bits, "a list of bit numbers", "mask bits that a host may not have at its centre"
    ),
    "host_saturated_radius_arcsec": Setting(
        0.0,
        _is_float(0, 1000),
        "a number from 0 to 1000",
        "hosts with a saturated pixel within it are refused; 0: none is",
    ),
    "host_mag_brightest": Setting(
        0.0, _is_float(0, 40), "a magnitude, or 0", "hosts brighter in reference_band are left out; 0: none"
    ),
    "host_mag_faintest": Setting(
        0.0, _is_float(0, 40), "a magnitude, or 0", "hosts fainter in it are left out; 0: none"
    ),
    "host_sigma_v_min_km_s": Setting(
        0.0, _is_float(0, 2000), "a number from 0 to 2000", "hosts of lower velocity dispersion are left out"
    ),
    "psf_table": Setting(
        "", _is_path, "a path", "table of psfsize_<band> by brick, for hosts without a PSF; empty: none"
    ),
    "psf_table_lookup": Setting(
        "brick",
        _one_of(("brick", "bilinear")),
        '"brick" or "bilinear"',
        "widths of a host's own brick, or bilinear in its place between the bricks around it",
    ),
    "theta_e_from": Setting(
        "prior",
        _one_of(("prior", "host")),
        '"prior" or "host"',
        "Einstein radius: drawn, or from the host's velocity dispersion and the priors lens_z and src_z",
    ),
    "theta_e_scatter": Setting(
        0.0, _is_float(0, 1), "a number from 0 to 1", "sigma of its logarithm about the host's value"
    ),
    "lens_shape_from": Setting(
        "prior",
        _one_of(("prior", "host")),
        '"prior" or "host"',
        "ellipticity and angle of the lens: drawn, or those of the host's light with scatter",
    ),
    "lens_e_scatter": Setting(0.05, _is_float(0, 1), "a number from 0 to 1", "sigma of e about the light's"),
    "lens_phi_scatter_rad": Setting(
        0.2, _is_float(0, 3.2), "a number from 0 to 3.2", "sigma of the angle about the light's"
    ),
    "src_mag_from": Setting(
        "host",
        _one_of(("host", "prior")),
        '"host" or "prior"',
        "unlensed magnitude of sources: src_dmag fainter than the host, or drawn from src_mag",
    ),
    "population": Setting(
        "",
        _is_path,
        "a path",
        "table whose rows are drawn as a whole: its columns that bear names of priors come before these",
    ),
    "population_spread": Setting(
        0.0,
        _is_float(0, 2),
        "a number from 0 to 2",
        "smoothing of its numbers, in standard deviations; means and covariances stay",
    ),
    "host_max_rows": Setting(
        0,
        _is_int(0, 10**9),
        "a whole number from 0 on",
        "rows that a host may have; hosts are then used evenly, in random order; 0: drawn freely",
    ),
    "split_by": Setting(
        "host",
        _one_of(("host", "sky")),
        '"host" or "sky"',
        "what is in one split as a whole: a host, or a cell of the sky with all its hosts",
    ),
    "split_cell_deg": Setting(
        1.0, _is_float(0.01, 60), "a number from 0.01 to 60", "side of a cell of the sky"
    ),
    "split_guard_arcmin": Setting(
        0.0,
        _is_float(0, 600),
        "a number from 0 to 600",
        "hosts of the larger split within it of another split's are left out, and counted",
    ),
    "exclude_catalogs": Setting(
        (),
        _is_paths,
        "a list of paths",
        "catalogues of known lenses (ra, dec); hosts there are left out, counted",
    ),
    "exclude_radius_arcsec": Setting(
        10.0, _is_float(0, 3600), "a number from 0 to 3600", "how near to a known lens a host is left out"
    ),
    "source_bank": Setting(
        "", _is_path, "a path", "bank of source images (GalSim's layout, npz, FITS); empty: Sersic profiles"
    ),
    "source_image_fraction": Setting(
        1.0, _is_float(0, 1), "a number from 0 to 1", "share of rows whose source is of the bank"
    ),
    "source_clean": Setting(
        True,
        _is_bool,
        "true or false",
        "free the bank's images of their border's level, their noise and the sky about them",
    ),
    "source_size": Setting(
        "native",
        _one_of(("native", "prior")),
        '"native" or "prior"',
        "size of source images: their own, or scaled to the half-light radius of the prior src_reff_arcsec",
    ),
    "source_colours": Setting(
        "prior",
        _one_of(("prior", "bank")),
        '"prior" or "bank"',
        "colours of source images: of the priors, or of their own magnitudes in the bank",
    ),
    "noise": Setting(
        "off",
        _one_of(NOISES),
        ", ".join(NOISES),
        "photon noise of the added light; the host's own stays as it is",
    ),
    "noise_lag1_correlation": Setting(
        0.0,
        _is_float(0, 0.5),
        "a number from 0 to 0.5",
        "correlation of neighbouring pixels' gaussian noise, as coadds have it (0.16 to 0.32)",
    ),
    "update_invvar": Setting(
        False,
        _is_bool,
        "true or false",
        "the stamps' inverse variance holds the photon noise of the added light: Store.invvar",
    ),
    "check_gain": Setting(True, _is_bool, "true or false", "refuse a gain that the hosts' noise belies"),
    "psf_jitter": Setting(
        0.0,
        _is_float(0, 0.5),
        "a number from 0 to 0.5",
        "scatter (sigma of the logarithm) of each row's PSF width about its host's; PSF images have none",
    ),
}

# name of the catalogue column (or of the magnitude it comes from): default prior and its meaning
PRIORS: dict[str, tuple[Prior, str]] = {
    "lens_model": (Prior.of("constant", value="SIE"), "SIE or SIS"),
    "theta_e_arcsec": (Prior.of("uniform", low=0.5, high=2.5), "Einstein radius"),
    "lens_e": (Prior.of("normal", mean=0.14, sigma=0.09, low=0.0, high=0.45), "e = (1-q)/(1+q)"),
    "lens_phi_rad": (_ANGLE, "position angle, counter-clockwise from +x"),
    "shear": (Prior.of("rayleigh", sigma=0.04, high=0.2), "external shear, mean 0.05"),
    "shear_phi_rad": (_ANGLE, "its position angle"),
    "src_x_arcsec": (Prior.of("uniform", low=-0.4, high=0.4), "source position relative to the lens"),
    "src_y_arcsec": (Prior.of("uniform", low=-0.4, high=0.4), "the same along y"),
    "src_reff_arcsec": (Prior.of("uniform", low=0.2, high=0.5), "half-light radius, major axis"),
    "src_n": (Prior.of("constant", value=1.0), "Sersic index"),
    "src_e": (Prior.of("rayleigh", sigma=0.2, high=0.6), "e = (1-q)/(1+q)"),
    "src_phi_rad": (_ANGLE, "position angle"),
    "src_structure": (
        Prior.of("constant", value="sersic"),
        "sersic, bulge_disk (src_n is the disk's) or clumpy (a disk with star-forming clumps)",
    ),
    "bulge_fraction": (Prior.of("uniform", low=0.1, high=0.6), "bulge over total, reference band"),
    "bulge_reff_ratio": (Prior.of("uniform", low=0.1, high=0.4), "half-light radius over the disk's"),
    "bulge_n": (Prior.of("uniform", low=2.0, high=4.0), "its Sersic index"),
    "bulge_redder_mag": (
        Prior.of("uniform", low=0.0, high=0.3),
        "how much redder than the disk, from each of u, g, r, i, z, y to the next",
    ),
    "clump_count": (Prior.of("choice", values=(2, 3, 4, 5)), "clumps on a disk"),
    "clump_fraction": (Prior.of("uniform", low=0.1, high=0.4), "all clumps over total, reference band"),
    "clump_reff_ratio": (Prior.of("uniform", low=0.05, high=0.15), "half-light radius over the disk's"),
    "clump_bluer_mag": (Prior.of("uniform", low=0.0, high=0.2), "how much bluer than the disk, likewise"),
    "src_dmag": (
        Prior.of("uniform", low=1.5, high=3.5),
        "unlensed source minus host, magnitudes in the reference band",
    ),
    "src_mag": (
        Prior.of("counts", slope=0.3, low=20.5, high=25.5),
        'unlensed source, magnitudes in the reference band, with src_mag_from = "prior"',
    ),
    "src_gr": (Prior.of("normal", mean=0.35, sigma=0.25, low=-0.3, high=1.3), "source colour g - r"),
    "src_rz": (Prior.of("normal", mean=0.35, sigma=0.25, low=-0.3, high=1.3), "source colour r - z"),
    "lens_z": (Prior.of("uniform", low=0.3, high=0.7), 'redshift of the lens, with theta_e_from = "host"'),
    "src_z": (Prior.of("uniform", low=1.0, high=3.0), 'redshift of the source, with theta_e_from = "host"'),
    "shape_radius_theta_e": (
        Prior.of("uniform", low=0.8, high=1.3),
        "radius of rings and spirals (negatives), in Einstein radii",
    ),
    "shape_e": (Prior.of("uniform", low=0.0, high=0.4), "their ellipticity"),
    "shape_width": (Prior.of("uniform", low=0.1, high=0.25), "their width over the radius"),
    "shape_contrast": (Prior.of("uniform", low=0.3, high=1.0), "of their brightness in azimuth"),
    "shape_turn_rad": (Prior.of("uniform", low=0.0, high=2.0 * math.pi), "azimuth of their brightest place"),
    "shape_pitch_rad": (Prior.of("uniform", low=0.25, high=0.6), "pitch of spiral arms, wound either way"),
    "shape_arms": (Prior.of("choice", values=(1, 2, 3), weights=(1, 4, 1)), "number of spiral arms"),
    "psf_model": (Prior.of("constant", value="moffat"), "gaussian, moffat or none"),
    "moffat_beta": (Prior.of("constant", value=3.5), "of Moffat PSFs"),
    "psf_fwhm_arcsec_g": (
        Prior.of("normal", mean=1.53, sigma=0.17, low=1.1, high=2.2),
        "PSF full width at half maximum, drawn once a host, where hosts have none",
    ),
    "psf_fwhm_arcsec_r": (Prior.of("normal", mean=1.36, sigma=0.12, low=1.0, high=2.0), "the same in r"),
    "psf_fwhm_arcsec_z": (Prior.of("normal", mean=1.32, sigma=0.15, low=0.9, high=2.0), "the same in z"),
}

# Ranges of priors that are no columns of the catalogue.
RANGES: dict[str, Column] = {
    column.name: column
    for column in (
        Column("bulge_fraction", 0.0, 1.0),
        Column("bulge_reff_ratio", 0.0, low_open=True),
        Column("bulge_n", 0.3, 8.0),
        Column("clump_count", 1.0, 20.0),
        Column("clump_fraction", 0.0, 1.0),
        Column("clump_reff_ratio", 0.0, low_open=True),
    )
}

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def colour_prior(band: str, reference: str, known: set[str]) -> str:
    """The name of the prior that gives the colour of ``band`` against the reference band.

    Either order is allowed: ``src_gr`` is g - r, ``src_rz`` is r - z.
    """
    names = (f"src_{band}{reference}", f"src_{reference}{band}")
    for name in names:
        if name in known:
            return name
    raise ConfigError(f"band {band} has no colour: add the prior {names[0]} or {names[1]} to [priors]")


def prior_names(bands: str, reference: str, known: set[str], has_psf: bool) -> list[str]:
    """The priors that a run over ``bands`` needs, in the order in which they are written."""
    names = [name for name in PRIORS if not name.startswith("psf_fwhm_") and name not in ("src_gr", "src_rz")]
    at = names.index("src_dmag") + 1
    names[at:at] = [colour_prior(band, reference, known) for band in bands if band != reference]
    if has_psf:
        names += [f"{PSF_FWHM.name}_{band}" for band in bands]
    for name in names:
        if name not in known:
            raise ConfigError(f"{name} has no default: add it to [priors]")
    return names


def meaning(name: str) -> str:
    """One line on what a prior is."""
    if name in PRIORS:
        return PRIORS[name][1]
    if name.startswith(PSF_FWHM.name):
        return "full width at half maximum"
    return f"source colour {name[-2]} - {name[-1]}"


def check_prior(name: str, prior: Prior) -> None:
    """Raise ConfigError where a prior could give a value that the renderer refuses."""
    support = prior.support
    if name in NAMES:
        strangers = [value for value in support if value not in NAMES[name]]
        if strangers:
            raise ConfigError(f"{name} may be {strangers[0]!r}, allowed: {', '.join(NAMES[name])}")
        return
    if prior.is_name:
        raise ConfigError(f"{name} may be {support[0]!r}, allowed: numbers")
    known = COLUMNS | RANGES
    column = PSF_FWHM if name.startswith(PSF_FWHM.name) else known.get(name, Column(name))
    low, high = min(support), max(support)
    # a Rayleigh variate is never 0: the uniform number that it is made from is not
    low_open = column.low_open and prior.dist != "rayleigh"
    if low < column.low or high > column.high or (low_open and low == column.low):
        raise ConfigError(_outside(name, low, high, column))
    if column.high_open and high == column.high:
        raise ConfigError(_outside(name, low, high, column))


def _outside(name: str, low: float, high: float, column: Column) -> str:
    return f"{name} reaches from {low:g} to {high:g}, allowed: {column.allowed()}; set low and high inside"
