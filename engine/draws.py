"""Draws that depend on (seed, row, purpose) only, and the catalogue that is made of them.

Any set of rows, in any order, on any machine count, gets the values that the whole catalogue has for them.
"""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcforge.engine.components import is_share
from arcforge.engine.config_schema import colour_prior
from arcforge.engine.errors import ConfigError, HostError
from arcforge.engine.lens_draws import lens_columns
from arcforge.engine.lookalikes import SHAPES
from arcforge.engine.negatives import kinds_of, shape_columns
from arcforge.engine.priors import Prior
from arcforge.engine.source_structure import structure_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.config import Config
    from arcforge.engine.host_table import HostTable
    from arcforge.engine.populations import Population
    from arcforge.engine.source_bank import SourceBank

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class HostsLike(Protocol):
    """What the draws need to know of a host set; no pixels."""

    @property
    def bands(self) -> str:
        """Band letters in order."""

    @property
    def stamp_size(self) -> int:
        """Pixels along a side."""

    @property
    def pixscale_arcsec(self) -> float:
        """Pixel scale, arcsec."""

    @property
    def table(self) -> HostTable:
        """Measured properties of every host."""


@lru_cache(maxsize=1024)
def purpose_key(purpose: str) -> int:
    """The 32-bit counter word of a purpose: the first four bytes of its BLAKE2s hash, little-endian."""
    return int.from_bytes(hashlib.blake2s(purpose.encode(), digest_size=4).digest(), "little")


def uniform(seed: int, rows: ArrayLike, purpose: str, index: ArrayLike = 0) -> Floats:
    """Random numbers in the open interval (0, 1).

    Parameters
    ----------
    seed : int
        From 0 to 2**64 - 1.
    rows : array_like of int64, (n,)
        Global row numbers from 0 on (or host numbers, where a host is what is drawn for).
    purpose : str
        What the number is for; each purpose is an independent stream.
    index : int or array_like of int64, (n,)
        Which of several numbers for one row and purpose, from 0 to 2**32 - 1.

    Returns
    -------
    float64 (n,)
        52 random bits each, never 0 or 1.

    Raises
    ------
    ConfigError
        A seed outside its range.
    """
    from arcforge.kernels.philox import philox_uniforms

    numbers = np.ascontiguousarray(np.atleast_1d(rows), dtype=np.int64)
    indices = np.ascontiguousarray(np.broadcast_to(np.asarray(index, dtype=np.int64), numbers.shape))
    if numbers.size and (numbers.min() < 0 or indices.min() < 0 or indices.max() >= 2**32):
        raise ValueError("rows must not be negative and indices must be from 0 to 2**32 - 1")
    out = np.empty(numbers.shape)
    philox_uniforms(
        np.uint64(_checked_seed(seed)),
        numbers.view(np.uint64),
        np.uint64(purpose_key(purpose)),
        indices.view(np.uint64),
        out,
    )
    return out


def _checked_seed(seed: int) -> int:
    try:
        value = operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < 2**64:
        raise ConfigError(f"seed = {seed!r}, allowed: a whole number from 0 to 2**64 - 1")
    return value


def assign_hosts(seed: int, rows: ArrayLike, n_hosts: int, *, evenly: bool = False) -> Rows:
    """The host number (int64) of each row: uniform over the hosts, with replacement.

    ``evenly``: every host once, in random order, then every host again in another, and so on.
    """
    if evenly:
        numbers = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        out = np.empty(numbers.shape, dtype=np.int64)
        for turn in np.unique(numbers // n_hosts):
            order = np.argsort(uniform(seed, np.arange(n_hosts), "host_order", turn), kind="stable")
            here = numbers // n_hosts == turn
            out[here] = order[numbers[here] % n_hosts]
        return out
    return np.minimum((uniform(seed, rows, "host_index") * n_hosts).astype(np.int64), n_hosts - 1)


def assign_splits(config: Config, seed: int, table: HostTable) -> NDArray[Any]:
    """The split (text) of each host, which stays when the host set grows or shrinks.

    By the host's content, or by the cell of the sky that it lies in.
    """
    shares = Prior.of("choice", values=tuple(config.splits), weights=tuple(config.splits.values()))
    if config.split_by == "sky":
        from arcforge.engine.sky_cells import host_cells

        return shares.quantile(uniform(seed, host_cells(table, config.split_cell_deg), "split_cell"))
    return shares.quantile(uniform(seed, table.key, "split"))


def draw_catalog(
    config: Config,
    hosts: HostsLike,
    seed: int,
    rows: ArrayLike,
    bank: SourceBank | None = None,
    tries: ArrayLike = 0,
    population: Population | None = None,
) -> pa.Table:
    """Draw the catalogue of the given rows.

    Parameters
    ----------
    config : Config
        The priors.
    hosts : HostSet
        Hosts to inject into; only their measured properties are used.
    seed : int
        Root seed.
    rows : array_like of int64, (n,)
        Global row numbers; any subset of rows gives the values that these rows have in the whole.
    bank : SourceBank, optional
        Source images to draw from.
    tries : int or array_like of int64, (n,)
        How often lens and source of the row were drawn before.
    population : Population, optional
        Joint table to draw from; its columns come before the priors.

    Returns
    -------
    pyarrow.Table
        n rows in the given order: ``row_id``, ``host_index``, ``host_id``, ``split``, every column that the
        renderer reads, and what the fluxes came from (``src_dmag``, ``src_mag_<band>``). ``psf_drawn`` tells
        rows whose PSF is a draw because the host came without one.

    Raises
    ------
    ConfigError
        Bands, stamp size or seed do not fit.
    HostError
        A host has no measurable flux in the reference band, which source fluxes refer to.
    """
    import pyarrow as pa

    numbers = np.ascontiguousarray(np.atleast_1d(rows), dtype=np.int64)
    if hosts.bands != config.bands or hosts.stamp_size != config.stamp_size:
        raise ConfigError(
            f"hosts have bands {hosts.bands} at {hosts.stamp_size} px where the configuration has "
            f"{config.bands} at {config.stamp_size} px: open them with its bands and stamp_size"
        )
    table = hosts.table
    host = assign_hosts(seed, numbers, len(table.host_id), evenly=config.host_max_rows > 0)
    columns: dict[str, Any] = {
        "row_id": numbers,
        "host_index": host,
        "host_id": table.host_id[host],
        "split": assign_splits(config, seed, table)[host],
    }
    draw = Draw(config, seed, numbers, tries, population)
    columns |= lens_columns(draw, hosts, host)
    images = None if bank is None else _drawn_images(draw, bank)
    if bank is not None and images is not None:
        columns["source_id"] = np.where(images >= 0, np.array(bank.ids)[images], "")
    columns |= _source_columns(draw, table, host, bank, images)
    is_image = np.zeros(numbers.size, dtype=np.bool_) if images is None else images >= 0
    columns |= structure_columns(draw, columns, is_image)
    columns |= _psf_columns(config, table, seed, numbers, host)
    if population is not None:
        columns["population_row"] = draw.population_row
        kept = [name for name in population.names if name not in columns and name != "src_mag"]
        columns |= {name: draw.prior(name) for name in kept}
    is_control = uniform(seed, numbers, "control") < config.control_fraction
    columns["kind"] = kinds_of(uniform(seed, numbers, "kind"), config.negatives, is_control)
    columns["is_arc"] = columns["kind"] == "arc"  # the label, as a number for those who train
    if set(config.negatives) & set(SHAPES):
        columns |= shape_columns(draw, columns["kind"], columns["theta_e_arcsec"])
    if config.control_fraction > 0.0:
        _blank_controls(columns, is_control)
    return pa.table(columns)


def _drawn(config: Config, name: str, seed: int, rows: Rows) -> NDArray[Any]:
    return config.priors[name].quantile(uniform(seed, rows, name))


@dataclass(frozen=True)
class Draw:
    """Draws of lens and source for some rows, each at its own try."""

    config: Config
    seed: int
    rows: Rows
    tries: ArrayLike
    population: Population | None = None

    def uniform(self, purpose: str) -> Floats:
        """A number in (0, 1) for each row."""
        return uniform(self.seed, self.rows, purpose, self.tries)

    def normal(self, purpose: str) -> Floats:
        """A standard normal number for each row."""
        return _standard_normal(self.uniform(purpose))

    def prior(self, name: str) -> NDArray[Any]:
        """A value for each row: of the joint table where it has that column, else of the prior."""
        if self.population is not None and name in self.population.names:
            return self.population.values(name, self.population_row, self.normal)
        return self.config.priors[name].quantile(self.uniform(name))

    @cached_property
    def population_row(self) -> Rows:
        """The row of the joint table that each row has."""
        assert self.population is not None
        return self.population.rows(self.uniform("population_row"))


def _drawn_images(draw: Draw, bank: SourceBank) -> Rows:
    """The template of each row, -1 for a Sersic source."""
    number = np.minimum((draw.uniform("source_id") * len(bank)).astype(np.int64), len(bank) - 1)
    return np.where(draw.uniform("source_image") < draw.config.source_image_fraction, number, -1)


def _bank_colours(bank: SourceBank, band: str, reference: str) -> Floats:
    """Magnitude in a band less that in the reference band, of every template."""
    known = [t.mag.get(band, np.nan) - t.mag.get(reference, np.nan) for t in bank.templates]
    colours = np.array(known, dtype=np.float64)
    bad = ~np.isfinite(colours) | (np.abs(colours) > 10.0)
    if bad.any():
        raise ConfigError(
            f"source_colours = 'bank': source {bank.ids[int(np.argmax(bad))]} has no magnitude in {band} and "
            f"{reference}: set it to 'prior'"
        )
    return colours


def _source_columns(
    draw: Draw, table: HostTable, host: Rows, bank: SourceBank | None, images: Rows | None
) -> dict[str, Any]:
    config = draw.config
    names = ("src_x_arcsec", "src_y_arcsec", "src_reff_arcsec", "src_n", "src_e", "src_phi_rad")
    columns: dict[str, Any] = {name: draw.prior(name) for name in names}
    if bank is not None and images is not None:
        for name in ("src_n", "src_e"):
            columns[name] = np.where(images >= 0, np.nan, columns[name])
        if config.source_size == "native":
            native = bank.reff_arcsec[images]
            columns["src_reff_arcsec"] = np.where(images >= 0, native, columns["src_reff_arcsec"])
    reference = config.reference_band
    reference_mag = _reference_mag(draw, table, host, columns)
    for band in config.bands:
        mag = reference_mag
        if band != reference:
            name = colour_prior(band, reference, set(config.priors))
            colour = draw.prior(name)
            if bank is not None and images is not None and config.source_colours == "bank":
                sign = 1.0 if name == f"src_{band}{reference}" else -1.0
                own = sign * _bank_colours(bank, band, reference)[images]
                colour = np.where(images >= 0, own, colour)
            columns[name] = colour
            mag = reference_mag + colour if name == f"src_{band}{reference}" else reference_mag - colour
        columns[f"src_mag_{band}"] = mag
        columns[f"src_flux_nmgy_{band}"] = 10.0 ** (0.4 * (22.5 - mag))
    return columns


def _reference_mag(draw: Draw, table: HostTable, host: Rows, columns: dict[str, Any]) -> Floats:
    """Unlensed magnitudes in the reference band, drawn or ``src_dmag`` below the host; sets the latter."""
    reference = draw.config.reference_band
    host_mag = table.mag[host, draw.config.bands.index(reference)]
    if draw.config.src_mag_from == "prior":
        mag = np.asarray(draw.prior("src_mag"), dtype=np.float64)
        columns["src_dmag"] = mag - host_mag
        return mag
    if np.isnan(host_mag).any():
        bad = host[int(np.argmax(np.isnan(host_mag)))]
        raise HostError(
            f"host {table.path[bad]}: no positive {reference} flux in its aperture for src_dmag to refer to: "
            "remove the host, choose another reference_band, or set src_mag_from"
        )
    columns["src_dmag"] = draw.prior("src_dmag")
    return np.asarray(host_mag + columns["src_dmag"])


def _psf_columns(config: Config, table: HostTable, seed: int, rows: Rows, host: Rows) -> dict[str, Any]:
    """The host's PSF where it has one; else one draw a host, since all rows of a host share its sky."""
    key = table.key[host]
    model = _drawn(config, "psf_model", seed, key)
    own = (table.psf_model[host] != "") & ~((table.psf_model[host] == "image") & (model == "none"))
    model = np.where(own, table.psf_model[host], model)
    beta, known = _drawn(config, "moffat_beta", seed, key), table.moffat_beta[host]
    columns: dict[str, Any] = {"psf_model": model, "moffat_beta": np.where(np.isnan(known), beta, known)}
    if (table.psf_id >= 0).any():
        columns["psf_id"] = np.where(model == "image", table.psf_id[host], -1)
    jitter = np.ones(rows.shape)
    if config.psf_jitter > 0.0:
        jitter = np.exp(config.psf_jitter * _standard_normal(uniform(seed, rows, "psf_jitter")))
        jitter = np.where(model == "image", 1.0, jitter)
    drawn = np.zeros(rows.shape, dtype=np.bool_)
    for number, band in enumerate(config.bands):
        name = f"psf_fwhm_arcsec_{band}"
        measured = table.psf_fwhm_arcsec[host, number]
        if name not in config.priors:  # psf_model is "none" in every row
            columns[name] = np.zeros(rows.shape)
            continue
        absent = np.isnan(measured)
        fwhm = np.where(absent, _drawn(config, name, seed, key), measured) * jitter
        columns[name] = np.where(model == "none", 0.0, fwhm)
        drawn |= absent & (model != "none")
    columns["psf_drawn"] = drawn
    return columns


def _standard_normal(u: Floats) -> Floats:
    from scipy.special import ndtri

    return np.asarray(ndtri(u))


# What a row without a lens does not have. Its PSF and host stay.
_ARC_COLUMNS = ("theta_e_arcsec", "lens_e", "lens_phi_rad", "shear", "shear_phi_rad")


def _blank_controls(columns: dict[str, Any], is_control: NDArray[np.bool_]) -> None:
    """Turn rows into CONTROL rows: no lens, no source, in place."""
    columns["lens_model"] = np.where(is_control, "CONTROL", columns["lens_model"])
    for name in columns:
        if name in _ARC_COLUMNS or name.startswith("src_flux_nmgy_"):
            columns[name] = np.where(is_control, 0.0, columns[name])
        elif name == "src_structure":
            columns[name] = np.where(is_control, "", columns[name])
        elif is_share(name):
            columns[name] = np.where(is_control, 0.0, columns[name])
        elif name.startswith("src"):
            columns[name] = np.where(is_control, np.nan, columns[name])
