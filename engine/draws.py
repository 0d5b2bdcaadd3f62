"""Draws that depend on (seed, row, purpose) only, and the catalogue that is made of them.

Any set of rows, in any order, on any machine count, gets the values that the whole catalogue has for them.
"""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcforge.engine.config_schema import colour_prior
from arcforge.engine.errors import ConfigError, HostError
from arcforge.engine.lookalikes import SHAPES
from arcforge.engine.negatives import kinds_of, shape_columns
from arcforge.engine.priors import Prior

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.config import Config
    from arcforge.engine.host_table import HostTable
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
    draw = _Draw(config, seed, numbers, tries)
    columns |= _lens_columns(draw, hosts, host)
    images = None if bank is None else _drawn_images(draw, bank)
    if bank is not None and images is not None:
        columns["source_id"] = np.where(images >= 0, np.array(bank.ids)[images], "")
    columns |= _source_columns(draw, table, host, bank, images)
    columns |= _psf_columns(config, table, seed, numbers, host)
    is_control = uniform(seed, numbers, "control") < config.control_fraction
    columns["kind"] = kinds_of(uniform(seed, numbers, "kind"), config.negatives, is_control)
    if set(config.negatives) & set(SHAPES):
        columns |= shape_columns(draw, columns["kind"], columns["theta_e_arcsec"])
    if config.control_fraction > 0.0:
        _blank_controls(columns, is_control)
    return pa.table(columns)


def _drawn(config: Config, name: str, seed: int, rows: Rows) -> NDArray[Any]:
    return config.priors[name].quantile(uniform(seed, rows, name))


@dataclass(frozen=True)
class _Draw:
    """Draws of lens and source for some rows, each at its own try."""

    config: Config
    seed: int
    rows: Rows
    tries: ArrayLike

    def uniform(self, purpose: str) -> Floats:
        return uniform(self.seed, self.rows, purpose, self.tries)

    def prior(self, name: str) -> NDArray[Any]:
        return self.config.priors[name].quantile(self.uniform(name))


def _lens_columns(draw: _Draw, hosts: HostsLike, host: Rows) -> dict[str, Any]:
    names = ("lens_model", "theta_e_arcsec", "lens_e", "lens_phi_rad", "shear", "shear_phi_rad")
    columns = {name: draw.prior(name) for name in names}
    if draw.config.theta_e_from == "host":
        columns |= _host_radius(draw, hosts.table, host)
    if draw.config.lens_shape_from == "host":
        columns |= _host_shape(draw, hosts.table, host)
    columns["lens_e"] = np.where(columns["lens_model"] == "SIS", 0.0, columns["lens_e"])
    centre_pix = (hosts.stamp_size - 1) / 2.0
    columns["lens_x_arcsec"] = (hosts.table.x_pix[host] - centre_pix) * hosts.pixscale_arcsec
    columns["lens_y_arcsec"] = (hosts.table.y_pix[host] - centre_pix) * hosts.pixscale_arcsec
    columns["theta_e_convention"] = np.full(draw.rows.shape, draw.config.theta_e_convention)
    return columns


def _host_radius(draw: _Draw, table: HostTable, host: Rows) -> dict[str, Any]:
    """Einstein radius from the host's velocity dispersion and drawn redshifts."""
    from arcforge.engine.host_lens import einstein_radius_arcsec

    _need(
        table.sigma_v_km_s[host] > 0.0, table, host, 'theta_e_from = "host"', "velocity dispersion (SIGMA_V)"
    )
    lens_z, src_z = draw.prior("lens_z"), draw.prior("src_z")
    theta_e = einstein_radius_arcsec(table.sigma_v_km_s[host], lens_z, src_z)
    if np.isnan(theta_e).any():
        row = int(np.argmax(np.isnan(theta_e)))
        raise ConfigError(
            f"a source at src_z = {src_z[row]:.2f} is not behind its lens at lens_z = {lens_z[row]:.2f}: "
            "set the priors apart"
        )
    theta_e = theta_e * np.exp(
        draw.config.theta_e_scatter * _standard_normal(draw.uniform("theta_e_scatter"))
    )
    return {"theta_e_arcsec": theta_e, "lens_z": lens_z, "src_z": src_z}


def _host_shape(draw: _Draw, table: HostTable, host: Rows) -> dict[str, Any]:
    """Ellipticity and angle of the host's light, with scatter; e stays within the prior's range."""
    _need(np.isfinite(table.light_e[host]), table, host, 'lens_shape_from = "host"', "measured shape")
    low, high = min(draw.config.priors["lens_e"].support), max(draw.config.priors["lens_e"].support)
    e = table.light_e[host] + draw.config.lens_e_scatter * _standard_normal(draw.uniform("lens_e_scatter"))
    turn = draw.config.lens_phi_scatter_rad * _standard_normal(draw.uniform("lens_phi_scatter"))
    return {
        "lens_e": np.clip(e, low, high),
        "lens_phi_rad": np.mod(table.light_phi_rad[host] + turn, np.pi),
    }


def _need(known: NDArray[np.bool_], table: HostTable, host: Rows, what: str, name: str) -> None:
    if not known.all():
        bad = table.host_id[host[int(np.argmin(known))]]
        raise ConfigError(f"{what}: host {bad} has no {name}: leave it out, or draw from the prior")


def _drawn_images(draw: _Draw, bank: SourceBank) -> Rows:
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
    draw: _Draw, table: HostTable, host: Rows, bank: SourceBank | None, images: Rows | None
) -> dict[str, Any]:
    config = draw.config
    names = ("src_x_arcsec", "src_y_arcsec", "src_reff_arcsec", "src_n", "src_e", "src_phi_rad", "src_dmag")
    columns: dict[str, Any] = {name: draw.prior(name) for name in names}
    if bank is not None and images is not None:
        for name in ("src_n", "src_e"):
            columns[name] = np.where(images >= 0, np.nan, columns[name])
        if config.source_size == "native":
            native = bank.reff_arcsec[images]
            columns["src_reff_arcsec"] = np.where(images >= 0, native, columns["src_reff_arcsec"])
    reference = config.reference_band
    host_mag = table.mag[host, config.bands.index(reference)]
    if np.isnan(host_mag).any():
        bad = host[int(np.argmax(np.isnan(host_mag)))]
        raise HostError(
            f"host {table.path[bad]}: no positive {reference} flux in its aperture for src_dmag to refer to: "
            "remove the host or choose another reference_band"
        )
    reference_mag = host_mag + columns["src_dmag"]
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
        elif name.startswith("src_"):
            columns[name] = np.where(is_control, np.nan, columns[name])
