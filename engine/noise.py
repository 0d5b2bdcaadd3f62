"""Photon noise of the added light, and the gain that it follows from.

Only light that was added gets noise: its variance is light / gain, and where nothing was added the stamp
stays the control, bit for bit. The host's own noise is never touched. A row's noise follows from the root
seed and its row number, so it can be made again alone and taken off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.draws import purpose_key
from arcforge.engine.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.config import Config
    from arcforge.engine.host_table import HostTable

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

# A gain that asks for a sky brighter or darker than the nominal one by more than this is in other units.
_CREDIBLE = 30.0


def gain_columns(
    config: Config, table: HostTable, pixscale_arcsec: float, host: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the columns ``noise`` and ``gain_e_per_nmgy_<band>`` of rows in those hosts, none without noise.

    The gain is the given one, or sky x invvar: a coadd whose noise is the sky's has var = sky / gain. The sky
    is the given brightness, invvar the median of the host's, or 1 / sigma^2 of its sky where it came without.

    Raises
    ------
    ConfigError
        A band has neither gain nor sky, or the given gain and the host's noise ask for an incredible sky.
    """
    if config.noise == "off":
        return {}
    columns: dict[str, Any] = {"noise": np.full(host.shape, config.noise)}
    for number, band in enumerate(config.bands):
        invvar = table.typical_invvar[:, number]
        sky = _sky_nmgy(config.sky_mag_arcsec2, band, pixscale_arcsec)
        given = config.gain_e_per_nmgy.get(band)
        if given is None and sky is None:
            raise ConfigError(
                f"noise in {band} needs a gain: give {band} in [gain_e_per_nmgy] or in [sky_mag_arcsec2]"
            )
        if given is None:
            assert sky is not None
            gain = sky * invvar
        else:
            gain = np.full(invvar.shape, given)
            if config.check_gain and sky is not None:
                _check(band, given, sky, invvar, pixscale_arcsec, table)
        unknown = ~(gain[host] > 0.0) | ~np.isfinite(gain[host])
        if unknown.any():
            name = table.host_id[host[int(np.argmax(unknown))]]
            raise ConfigError(
                f"host {name} has no measurable noise in {band}, which the gain follows from: give {band} in "
                "[gain_e_per_nmgy]"
            )
        columns[f"gain_e_per_nmgy_{band}"] = gain[host]
    return columns


def _sky_nmgy(sky_mag: Mapping[str, float], band: str, pixscale_arcsec: float) -> float | None:
    """Sky in nanomaggies per pixel."""
    mag = sky_mag.get(band)
    return None if mag is None else 10.0 ** (0.4 * (22.5 - mag)) * pixscale_arcsec**2


def _check(
    band: str, gain: float, sky: float, invvar: Floats, pixscale_arcsec: float, table: HostTable
) -> None:
    """Refuse a gain that does not belong to the hosts' noise: factors of 100 come from other units."""
    known = np.isfinite(invvar) & (invvar > 0.0)
    if not known.any():
        return
    implied = gain / invvar[known]
    ratio = float(np.median(implied)) / sky
    if not 1.0 / _CREDIBLE <= ratio <= _CREDIBLE:
        mag = 22.5 - 2.5 * math.log10(float(np.median(implied)) / pixscale_arcsec**2)
        expected = float(np.median(sky * invvar[known]))
        raise ConfigError(
            f"gain_e_per_nmgy {band} = {gain:g} and the hosts' noise ask for a sky of {mag:.1f} "
            f"mag/arcsec^2, {max(ratio, 1 / ratio):.0f} times off that of {band}: the hosts call for about "
            f"{expected:.2g} electrons per nanomaggy (check_gain = false to go on)"
        )


def is_noisy(table: pa.Table) -> bool:
    """Tell whether rows of a catalogue carry noise."""
    return "noise" in table.column_names


def add_noise(arcs: Pixels, table: pa.Table, bands: str, side_weight: float) -> None:
    """Give arcs the noise that their rows record, in place.

    Parameters
    ----------
    arcs
        (k, bands, ny, nx) float32, C-contiguous, paired with their hosts: pixels at 0 stay 0.
    table
        Their rows, with ``noise``, ``gain_e_per_nmgy_<band>``, ``rng_seed`` and ``rng_row``.
    bands
        Names of the bands.
    side_weight
        See :func:`side_weight`; of the Gaussian noise.
    """
    from arcforge.kernels.noise import add_gaussian, add_poisson

    kinds = set(table.column("noise").to_pylist())
    rows = np.asarray(table.column("rng_row").to_numpy(), dtype=np.int64).view(np.uint64)
    seed = np.uint64(table.column("rng_seed")[0].as_py())
    gain = np.stack([table.column(f"gain_e_per_nmgy_{band}").to_numpy() for band in bands], axis=1)
    n, n_bands, height, width = arcs.shape
    flat = arcs.reshape(n, n_bands, height * width)
    purpose = np.uint64(purpose_key("noise"))
    if kinds == {"poisson"}:
        add_poisson(flat, gain, rows, seed, purpose)
    elif kinds == {"gaussian"}:
        add_gaussian(flat, gain, rows, seed, purpose, float(side_weight), width)


def side_weight(lag1_correlation: float) -> float:
    """The weight a of (a, 1, a) that gives noise this correlation of neighbours: 2 a / (1 + 2 a^2)."""
    rho = lag1_correlation
    return 0.0 if rho == 0.0 else (1.0 - math.sqrt(1.0 - 2.0 * rho**2)) / (2.0 * rho)
