"""Which of the opened hosts a run uses, by what was measured on them: magnitude and velocity dispersion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arcforge.engine.errors import ConfigError
from arcforge.engine.host_set import HostSet, Refusal

if TYPE_CHECKING:
    from arcforge.engine.config import Config


def choose_hosts(hosts: HostSet, config: Config) -> HostSet:
    """Leave out hosts too faint, too bright or of too little mass, each with its reason.

    Parameters
    ----------
    hosts
        Opened hosts.
    config
        ``host_mag_brightest`` and ``host_mag_faintest`` (reference band, within 2.5 arcsec; 0: no limit),
        ``host_sigma_v_min_km_s`` (0: no limit). A host of which a limited value is not known is left out too.

    Raises
    ------
    ConfigError
        None is left.
    """
    faintest, brightest = config.host_mag_faintest, config.host_mag_brightest
    least = config.host_sigma_v_min_km_s
    if not (faintest or brightest or least):
        return hosts
    band = config.reference_band
    if band not in hosts.bands:
        raise ConfigError(f"reference_band is {band!r}, hosts have bands {hosts.bands}: set one of them")
    mag, sigma_v = hosts.table.mag[:, hosts.bands.index(band)], hosts.table.sigma_v_km_s
    refused: list[tuple[str, str]] = [("", "")] * len(hosts)
    for i in range(len(hosts)):
        if faintest and not mag[i] <= faintest:
            known = "has no positive flux" if np.isnan(mag[i]) else f"has {band} = {mag[i]:.2f}"
            refused[i] = ("too faint", f"{known}, allowed: up to {faintest:g} (host_mag_faintest)")
        elif brightest and mag[i] < brightest:
            text = f"has {band} = {mag[i]:.2f}, allowed: from {brightest:g} on (host_mag_brightest)"
            refused[i] = ("too bright", text)
        elif least and not sigma_v[i] >= least:
            known = (
                "no velocity dispersion"
                if np.isnan(sigma_v[i])
                else f"a velocity dispersion of {sigma_v[i]:g}"
            )
            text = f"has {known}, allowed: from {least:g} km/s on (host_sigma_v_min_km_s)"
            refused[i] = ("low velocity dispersion", text)
    left = np.array([not reason for reason, _ in refused])
    if not left.any():
        raise ConfigError(
            f"none of {len(hosts)} hosts is left by host_mag_brightest, host_mag_faintest and "
            f"host_sigma_v_min_km_s; the first {refused[0][1]}: loosen them, or give other hosts"
        )
    paths = hosts.table.path
    return hosts.keep(
        np.flatnonzero(left),
        [Refusal(str(paths[i]), refused[i][1], refused[i][0]) for i in np.flatnonzero(~left)],
    )
