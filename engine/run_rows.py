"""The rows of a run: drawn from priors or given as a catalogue, with the values that the renderer uses.

The stored catalogue records what was used: defaults filled in, Einstein radii in the intermediate convention,
the host and its position. Rendering the stored table again gives the stored arcs.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import RenderColumns, render_columns
from arcforge.engine.components import column_names
from arcforge.engine.draws import assign_hosts, draw_catalog
from arcforge.engine.errors import CatalogError, ConfigError
from arcforge.engine.noise import gain_columns
from arcforge.engine.populations import read_population
from arcforge.engine.table_columns import encode_table
from arcforge.kernels.codes import CONTROL, PSF_IMAGE, PSF_MODELS

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.config import Config
    from arcforge.engine.hosts import HostSet
    from arcforge.engine.pairing import ArcMeasures
    from arcforge.engine.source_bank import SourceBank

_USED = (
    "theta_e_arcsec",
    "lens_e",
    "lens_phi_rad",
    "lens_x_arcsec",
    "lens_y_arcsec",
    "shear",
    "shear_phi_rad",
    "src_x_arcsec",
    "src_y_arcsec",
    "src_reff_arcsec",
    "src_n",
    "src_e",
    "src_phi_rad",
    "moffat_beta",
)
# Rows looked at together where only their hosts or their validity matter.
BLOCK_ROWS = 1 << 16


class RunRows(Protocol):
    """Where the rows of a run come from."""

    n_rows: int
    source: str  # "drawn" (from which population), or the hash of the given table; part of the plan
    has_major: bool  # some Einstein radii are in the "major" convention and are converted

    def raw(self, first: int, stop: int) -> pa.Table:
        """Return the rows as drawn or given, with ``host_index``, ``host_id`` and the lens position."""

    def host_index(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return the host of each row."""


class DrawnRows:
    """Rows drawn from the priors of a configuration."""

    def __init__(
        self, config: Config, hosts: HostSet, seed: int, n_rows: int, bank: SourceBank | None = None
    ) -> None:
        self._config, self._hosts, self._seed, self._bank = config, hosts, seed, bank
        self._population = read_population(config) if config.population else None
        self.source = "drawn"
        if self._population is not None:
            self.source += f" population sha256:{self._population.sha256}"
        self.n_rows = n_rows
        self.has_major = config.theta_e_convention == "major"
        turns = -(-n_rows // len(hosts))
        if 0 < config.host_max_rows < turns:
            raise ConfigError(
                f"{n_rows} rows use each of {len(hosts)} hosts {turns} times, allowed: host_max_rows = "
                f"{config.host_max_rows}; give more hosts or fewer rows"
            )

    def raw(self, first: int, stop: int) -> pa.Table:
        """Draw the rows."""
        rows = np.arange(first, stop, dtype=np.int64)
        return self.draw(rows, np.zeros(len(rows), dtype=np.int64))

    def draw(self, rows: NDArray[np.int64], tries: NDArray[np.int64]) -> pa.Table:
        """Draw rows, each for its n-th time (0: the first)."""
        return draw_catalog(self._config, self._hosts, self._seed, rows, self._bank, tries, self._population)

    def host_index(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return the host of each row, drawn by row number."""
        rows = np.arange(first, stop, dtype=np.int64)
        evenly = self._config.host_max_rows > 0
        return assign_hosts(self._seed, rows, len(self._hosts), evenly=evenly)


class GivenRows:
    """Rows of a catalogue. Its ``host_id`` names each row's host; without that column, hosts are drawn.

    Without lens positions, every lens sits on its host's centroid; without any column of a PSF, every row has
    its host's. Columns that only an injection can know
    (``host_index``, ``host_rows``, ``rng_*``, ``arc_*``), as a stored catalogue has them, are made anew.

    Raises
    ------
    CatalogError
        Where a row names a host that is not there, or fewer rows are there than asked for.
    """

    def __init__(
        self, table: pa.Table, hosts: HostSet, seed: int, n_rows: int | None, theta_e_convention: str
    ) -> None:
        if table.num_rows == 0:
            raise CatalogError("the catalogue has no rows: give at least one")
        if n_rows is not None and n_rows > table.num_rows:
            raise CatalogError(
                f"the catalogue has {table.num_rows} rows, {n_rows} were asked for: give more rows or less n"
            )
        self.n_rows = table.num_rows if n_rows is None else n_rows
        table = table.slice(0, self.n_rows).combine_chunks()
        self.source = f"sha256:{hashlib.sha256(encode_table(table)).hexdigest()}"
        self.has_major = theta_e_convention == "major"
        if "theta_e_convention" in table.column_names:
            self.has_major |= "major" in table.column("theta_e_convention").to_pylist()
        self._host_index = _named_hosts(table, hosts)
        if self._host_index is None:
            self._host_index = assign_hosts(seed, np.arange(self.n_rows, dtype=np.int64), len(hosts))
        table = put_column(table, "host_index", self._host_index)
        table = put_column(table, "host_id", hosts.table.host_id[self._host_index])
        if not {"lens_x_arcsec", "lens_y_arcsec"} & set(table.column_names):
            centre_pix = (hosts.stamp_size - 1) / 2.0
            for axis, pix in (("x", hosts.table.x_pix), ("y", hosts.table.y_pix)):
                offset = (pix[self._host_index] - centre_pix) * hosts.pixscale_arcsec
                table = put_column(table, f"lens_{axis}_arcsec", offset)
        table = _with_host_psf(table, hosts, self._host_index)
        if "row_id" not in table.column_names:
            given = table.column("task_id") if "task_id" in table.column_names else np.arange(self.n_rows)
            table = put_column(table, "row_id", given)
        self._table = table

    def raw(self, first: int, stop: int) -> pa.Table:
        """Return the rows as given."""
        return self._table.slice(first, stop - first)

    def host_index(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return the host of each row."""
        assert self._host_index is not None
        return self._host_index[first:stop]


def count_host_rows(rows: RunRows, n_hosts: int) -> NDArray[np.int64]:
    """Return how many rows of the run each host has."""
    count = np.zeros(n_hosts, dtype=np.int64)
    for first in range(0, rows.n_rows, BLOCK_ROWS):
        index = rows.host_index(first, min(first + BLOCK_ROWS, rows.n_rows))
        count += np.bincount(index, minlength=n_hosts)
    return count


def used_rows(
    rows: RunRows, first: int, stop: int, bands: str, theta_e_convention: str
) -> tuple[pa.Table, RenderColumns]:
    """Return rows as the store records them, and the renderer's columns that they stand for.

    Raises
    ------
    CatalogError
        For a missing column or a value out of range; names row and column.
    """
    raw = rows.raw(first, stop)
    columns = render_columns(raw, bands, theta_e_convention=theta_e_convention)
    table = raw
    is_lens = columns.lens_model != CONTROL
    if rows.has_major:  # what was given stays on record
        table = put_column(table, "theta_e_arcsec_given", _floats(raw, "theta_e_arcsec"))
    is_profile = is_lens & (columns.source_id == "")
    for name in _USED:
        # an image has neither a Sersic index nor an ellipticity of its own
        used = is_profile if name in ("src_n", "src_e") else is_lens
        table = put_column(table, name, _recorded(raw, name, getattr(columns, name), used))
    for i, band in enumerate(bands):
        for name, values in (
            ("src_flux_nmgy", columns.src_flux_nmgy),
            ("psf_fwhm_arcsec", columns.psf_fwhm_arcsec.copy()),
        ):
            if name == "psf_fwhm_arcsec" and f"{name}_{band}" in raw.column_names:
                # the renderer takes no width of a PSF that is an image; its equivalent one stays on record
                by_image = columns.psf_model == PSF_IMAGE
                values[by_image, i] = _floats(raw, f"{name}_{band}")[by_image]
            table = put_column(
                table, f"{name}_{band}", _recorded(raw, f"{name}_{band}", values[:, i], is_lens)
            )
    table = _with_components(table, columns, bands, is_profile)
    names = np.array(sorted(PSF_MODELS, key=lambda name: PSF_MODELS[name]))
    table = put_column(table, "psf_model", names[columns.psf_model])
    return put_column(table, "theta_e_convention", np.full(len(columns), "intermediate")), columns


def _with_components(
    table: pa.Table, columns: RenderColumns, bands: str, is_profile: NDArray[np.bool_]
) -> pa.Table:
    """Record the components that were used: shares 0 and shapes null where a row has no such component."""
    for k in range(columns.more_fraction.shape[1]):
        fraction, shape = columns.more_fraction[:, k], columns.more_shape[:, k]
        there = is_profile & (fraction > 0.0).any(axis=1)
        shares, shapes = column_names(k + 2, bands)
        for b, name in enumerate(shares):
            table = put_column(table, name, np.where(there, fraction[:, b], 0.0))
        for c, name in enumerate(shapes):
            table = put_column(table, name, np.where(there, shape[:, c], np.nan))
    return table


def with_gain(table: pa.Table, config: Config, hosts: HostSet) -> pa.Table:
    """Add what the noise of the added light follows from; a catalogue's own gains come first."""
    host = table.column("host_index").to_numpy()
    for name, values in gain_columns(config, hosts.table, hosts.pixscale_arcsec, host).items():
        if name == "noise" or name not in table.column_names:
            table = put_column(table, name, values)
    return table


def with_keys(table: pa.Table, first: int, seed: int, host_rows: NDArray[np.int64]) -> pa.Table:
    """Add what a row's draws are keyed by, and how many rows share its host."""
    rows = np.arange(first, first + table.num_rows, dtype=np.int64)
    table = put_column(table, "rng_seed", np.full(len(rows), seed, dtype=np.uint64))
    table = put_column(table, "rng_row", rows)
    return put_column(table, "host_rows", host_rows[table.column("host_index").to_numpy()])


def with_measures(
    table: pa.Table, measures: ArcMeasures, bands: str, sky_sigma_nmgy: NDArray[np.float64]
) -> pa.Table:
    """Add each arc's flux on the stamp and its signal to noise against the host's sky.

    ``arc_flux_nmgy_<band>`` is the sum over the stamp, ``arc_snr_<band>`` the matched-filter value
    ``sqrt(sum arc^2) / sigma``, ``arc_snr_max_<band>`` the brightest pixel's; NaN where the sky's sigma is 0
    or not known. ``magnification_stamp`` is what of the lensed flux lies on the stamp, over the unlensed.

    Parameters
    ----------
    table
        k rows.
    measures
        Of the k arcs, in every band.
    bands
        Names of the bands, one letter each.
    sky_sigma_nmgy
        (k, bands) standard deviation of a sky pixel of the row's host.
    """
    sigma = np.where(sky_sigma_nmgy > 0.0, sky_sigma_nmgy, np.nan)
    for b, band in enumerate(bands):
        table = put_column(table, f"arc_flux_nmgy_{band}", measures.flux_nmgy[:, b])
        if b == 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                on_stamp = measures.flux_nmgy[:, b] / _floats(table, f"src_flux_nmgy_{band}")
            table = put_column(
                table, "magnification_stamp", np.where(np.isfinite(on_stamp), on_stamp, np.nan)
            )
        table = put_column(table, f"arc_snr_{band}", np.sqrt(measures.power[:, b]) / sigma[:, b])
        table = put_column(table, f"arc_snr_max_{band}", measures.peak[:, b] / sigma[:, b])
    return table


def _with_host_psf(table: pa.Table, hosts: HostSet, host: NDArray[np.int64]) -> pa.Table:
    """Give rows that say nothing of a PSF their hosts'; an unknown width stays an error of the catalogue."""
    known = hosts.table
    if any(name.startswith("psf_") for name in table.column_names):
        return table
    if np.isnan(known.psf_fwhm_arcsec[host]).any():
        return table
    for i, band in enumerate(hosts.bands):
        table = put_column(table, f"psf_fwhm_arcsec_{band}", known.psf_fwhm_arcsec[host, i])
    named = known.psf_model[host] != ""
    table = put_column(table, "psf_model", np.where(named, known.psf_model[host], "gaussian"))
    if (known.psf_id >= 0).any():
        table = put_column(table, "psf_id", known.psf_id[host])
    beta = known.moffat_beta[host]
    return table if np.isnan(beta).any() else put_column(table, "moffat_beta", beta)


def _named_hosts(table: pa.Table, hosts: HostSet) -> NDArray[np.int64] | None:
    """Return the host numbers that the column ``host_id`` names, None where there is no such column."""
    if "host_id" not in table.column_names:
        return None
    numbers = {str(host_id): i for i, host_id in enumerate(hosts.table.host_id)}
    index = np.empty(table.num_rows, dtype=np.int64)
    for row, name in enumerate(table.column("host_id").to_pylist()):
        if str(name) not in numbers:
            raise CatalogError(
                f"catalogue row {row}: host_id is {name!r}, which is none of the {len(hosts)} hosts (the "
                f"first is {next(iter(numbers))!r}); name one of them, or drop the column to have hosts drawn"
            )
        index[row] = numbers[str(name)]
    return index


def _recorded(raw: pa.Table, name: str, used: NDArray[Any], is_lens: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the used values; a row without a lens used none, and keeps what it was given."""
    if name not in raw.column_names or is_lens.all():
        return used
    return np.where(is_lens, used, _floats(raw, name))


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    column = table.column(name)
    if column.null_count == len(column):
        return np.full(len(column), np.nan)
    return np.asarray(column.to_numpy(), dtype=np.float64)


def put_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return the table with a column set, in its place where the table has it, else at the end."""
    import pyarrow as pa

    column = values if isinstance(values, pa.ChunkedArray) else pa.array(values)
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)
