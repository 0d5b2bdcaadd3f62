"""Draws of lenses: from priors, or from the mass and the light of their hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import ConfigError
from arcforge.engine.host_lens import einstein_radius_arcsec
from arcforge.engine.populations import reflected

if TYPE_CHECKING:
    from arcforge.engine.draws import Draw, HostsLike
    from arcforge.engine.host_table import HostTable

Rows = NDArray[np.int64]


def lens_columns(draw: Draw, hosts: HostsLike, host: Rows) -> dict[str, Any]:
    """Columns of the lens and its place, for rows in those hosts."""
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


def _host_radius(draw: Draw, table: HostTable, host: Rows) -> dict[str, Any]:
    """Einstein radius from the host's velocity dispersion and drawn redshifts."""
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
    theta_e = theta_e * np.exp(draw.config.theta_e_scatter * draw.normal("theta_e_scatter"))
    return {"theta_e_arcsec": theta_e, "lens_z": lens_z, "src_z": src_z}


def _host_shape(draw: Draw, table: HostTable, host: Rows) -> dict[str, Any]:
    """Ellipticity and angle of the host's light, with scatter; e is mirrored at the prior's ends."""
    _need(np.isfinite(table.light_e[host]), table, host, 'lens_shape_from = "host"', "measured shape")
    low, high = min(draw.config.priors["lens_e"].support), max(draw.config.priors["lens_e"].support)
    e = table.light_e[host] + draw.config.lens_e_scatter * draw.normal("lens_e_scatter")
    turn = draw.config.lens_phi_scatter_rad * draw.normal("lens_phi_scatter")
    return {
        "lens_e": reflected(e, low, high),
        "lens_phi_rad": np.mod(table.light_phi_rad[host] + turn, np.pi),
    }


def _need(known: NDArray[np.bool_], table: HostTable, host: Rows, what: str, name: str) -> None:
    if not known.all():
        bad = table.host_id[host[int(np.argmin(known))]]
        raise ConfigError(f"{what}: host {bad} has no {name}: leave it out, or draw from the prior")
