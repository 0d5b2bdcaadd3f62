"""Places of hosts on the sky: cells of equal size that splits go by, guards between splits, known lenses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import ConfigError
from arcforge.engine.host_set import HostSet, Refusal

if TYPE_CHECKING:
    from arcforge.engine.config import Config
    from arcforge.engine.host_table import HostTable

Floats = NDArray[np.float64]
_RA, _DEC = ("ra", "RA", "RA [deg]", "ra_deg"), ("dec", "DEC", "DEC [deg]", "dec_deg")


def sky_cell(ra_deg: Floats, dec_deg: Floats, side_deg: float) -> NDArray[np.int64]:
    """Number of the cell of each place: rings of equal height, each cut into cells about as wide."""
    ring = np.floor((dec_deg + 90.0) / side_deg).astype(np.int64)
    middle = np.radians(np.clip((ring + 0.5) * side_deg - 90.0, -90.0, 90.0))
    across = np.maximum(1, np.round(360.0 * np.cos(middle) / side_deg)).astype(np.int64)
    return np.asarray(ring * 1_000_000 + (np.mod(ra_deg, 360.0) / 360.0 * across).astype(np.int64))


def select_hosts(hosts: HostSet, config: Config, splits: NDArray[Any]) -> HostSet:
    """Leave out known lenses, and hosts too near to those of another split.

    Parameters
    ----------
    hosts
        Opened hosts.
    config
        ``exclude_catalogs``, ``exclude_radius_arcsec``, ``split_guard_arcmin``.
    splits
        (n,) split of each host.

    Raises
    ------
    ConfigError
        A host has no position, or none is left.
    """
    table, refused = hosts.table, np.full(len(hosts), "", dtype=object)
    if config.exclude_catalogs:
        _need_positions(table, "exclude_catalogs")
        for path in config.exclude_catalogs:
            near = _within(_vectors(table), _read_vectors(path), config.exclude_radius_arcsec / 3600.0)
            refused[near & (refused == "")] = (
                f"known lens|within {config.exclude_radius_arcsec:g} arcsec of an entry of {Path(path).name}"
            )
    if config.split_guard_arcmin > 0.0:
        _need_positions(table, "split_guard_arcmin")
        here = _vectors(table)
        # one side of a border is enough: the smaller of two splits stays whole
        largest_first = sorted(config.splits, key=lambda split: -config.splits[split])
        for place, name in enumerate(largest_first):
            smaller = np.isin(splits, largest_first[place + 1 :])
            near = _within(here, here[smaller], config.split_guard_arcmin / 60.0) & (splits == name)
            refused[near & (refused == "")] = (
                f"guard between splits|within {config.split_guard_arcmin:g} arcmin of another split"
            )
    keep = refused == ""
    if keep.all():
        return hosts
    if not keep.any():
        reasons = Counter(reason.split("|")[0] for reason in refused).most_common()
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
        first = refused[0].split("|")[1]
        raise ConfigError(
            f"all {len(hosts)} hosts are left out ({counts}; the first lies {first}): give other hosts, or "
            "smaller exclude_radius_arcsec and split_guard_arcmin"
        )
    return hosts.keep(
        np.flatnonzero(keep),
        [
            Refusal(str(table.path[i]), refused[i].split("|")[1], refused[i].split("|")[0])
            for i in np.flatnonzero(~keep)
        ],
    )


def host_cells(table: HostTable, side_deg: float) -> NDArray[np.int64]:
    """Sky cell of each host; ConfigError where one has no position."""
    _need_positions(table, 'split_by = "sky"')
    return sky_cell(table.ra_deg, table.dec_deg, side_deg)


def _need_positions(table: HostTable, what: str) -> None:
    absent = np.isnan(table.ra_deg) | np.isnan(table.dec_deg)
    if absent.any():
        raise ConfigError(
            f"{what} needs positions, and host {table.host_id[int(np.argmax(absent))]} has none: give hosts "
            "with ra and dec (FITS header, npz key or --positions)"
        )


def _vectors(table: HostTable) -> Floats:
    return _unit(table.ra_deg, table.dec_deg)


def _unit(ra_deg: Floats, dec_deg: Floats) -> Floats:
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def _within(here: Floats, there: Floats, radius_deg: float) -> NDArray[np.bool_]:
    """Tell which unit vectors lie within a radius of any of the others."""
    from scipy.spatial import cKDTree

    if not len(there):
        return np.zeros(len(here), dtype=np.bool_)
    distance, _ = cKDTree(there).query(here)
    return np.asarray(distance <= 2.0 * np.sin(0.5 * np.radians(radius_deg)), dtype=np.bool_)


def _read_vectors(path: str) -> Floats:
    from arcforge.engine.catalog_files import numbers_of, read_catalog

    table = read_catalog(path)
    places = []
    for names in (_RA, _DEC):
        name = next((each for each in names if each in table.column_names), None)
        if name is None:
            raise ConfigError(f"exclude_catalogs: {path} has none of the columns {', '.join(names)}")
        places.append(numbers_of(table, name, f"exclude_catalogs: {path}"))
    known = np.isfinite(places[0]) & np.isfinite(places[1])
    return _unit(places[0][known], places[1][known])
