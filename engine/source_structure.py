"""Bulges in disks, and clumps on them: the components of sources drawn from a configuration's priors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.components import column_names

if TYPE_CHECKING:
    from arcforge.engine.config import Config
    from arcforge.engine.draws import Draw

Floats = NDArray[np.float64]

_WAVELENGTHS = "ugrizy"
_FARTHEST = 1.5  # clumps lie within so many half-light radii of the disk


def most_components(config: Config) -> int:
    """Return how many components a source of this configuration may have."""
    structures = config.priors["src_structure"].support
    clumps = max(config.priors["clump_count"].support) if "clumpy" in structures else 0
    return 1 + max(int(clumps), int("bulge_disk" in structures))


def structure_columns(draw: Draw, columns: dict[str, Any], is_image: NDArray[np.bool_]) -> dict[str, Any]:
    """Draw the components of sources whose first one was drawn.

    The first component is the disk, and ``src_flux_nmgy_<band>`` stays the flux of all.

    Parameters
    ----------
    draw
        The rows.
    columns
        Of the first components: ``src_reff_arcsec``, ``src_e``, ``src_phi_rad``.
    is_image : bool (n,)
        Rows whose source is an image, which has its own structure.

    Returns
    -------
    dict
        ``src_structure`` and the columns of every further component; empty where all sources are single.
    """
    most = most_components(draw.config)
    if most == 1:
        return {}
    structure = np.where(is_image, "", draw.prior("src_structure").astype(str))
    n, bands = len(draw.rows), draw.config.bands
    names = [column_names(number, bands) for number in range(2, most + 1)]
    found: dict[str, Any] = {"src_structure": structure}
    for shares, shapes in names:
        found |= {name: np.zeros(n) for name in shares} | {name: np.full(n, np.nan) for name in shapes}

    def put(which: tuple[list[str], list[str]], rows: NDArray[np.bool_], shares: Floats, *shape: Any) -> None:
        values = [*shares.T, *shape]
        for name, value in zip((*which[0], *which[1]), values, strict=True):
            found[name] = np.where(rows, value, found[name])

    disk, phi = columns["src_reff_arcsec"], columns["src_phi_rad"]
    rows = structure == "bulge_disk"
    if rows.any():
        share = _by_band(draw, draw.prior("bulge_fraction"), draw.prior("bulge_redder_mag"))
        reff = disk * draw.prior("bulge_reff_ratio")
        # a bulge is rounder than the disk about it
        put(names[0], rows, share, 0.0, 0.0, reff, draw.prior("bulge_n"), 0.5 * columns["src_e"], phi)
    rows = structure == "clumpy"
    if rows.any():
        _put_clumps(draw, columns, rows, names, put)
    return found


def _put_clumps(draw: Draw, columns: dict[str, Any], rows: Any, names: Any, put: Any) -> None:
    """Draw round clumps of an exponential profile, evenly over the disk, of unequal brightness."""
    disk, phi, e = (columns[name] for name in ("src_reff_arcsec", "src_phi_rad", "src_e"))
    count = np.rint(draw.prior("clump_count")).astype(np.int64)
    share = _by_band(draw, draw.prior("clump_fraction"), -draw.prior("clump_bluer_mag"))
    reff, q = disk * draw.prior("clump_reff_ratio"), (1.0 - e) / (1.0 + e)
    is_there = [rows & (k < count) for k in range(len(names))]
    light = [np.where(there, 0.2 + draw.uniform(f"clump{k}_light"), 0.0) for k, there in enumerate(is_there)]
    total = np.maximum(np.sum(light, axis=0), 0.2)
    for k, there in enumerate(is_there):
        radius = _FARTHEST * disk * np.sqrt(draw.uniform(f"clump{k}_radius"))
        angle = 2.0 * np.pi * draw.uniform(f"clump{k}_angle")
        along, across = radius * np.cos(angle), q * radius * np.sin(angle)
        x, y = along * np.cos(phi) - across * np.sin(phi), along * np.sin(phi) + across * np.cos(phi)
        put(names[k], there, share * (light[k] / total)[:, None], x, y, reff, 1.0, 0.0, 0.0)


def _by_band(draw: Draw, fraction: Floats, redder_mag: Floats) -> Floats:
    """Return a component's share in every band (n, bands), given that in the reference band and by how many
    magnitudes it is redder than the rest from one of the bands u, g, r, i, z, y to the next.
    """
    bands, reference = draw.config.bands, draw.config.reference_band
    known = _WAVELENGTHS if set(bands) <= set(_WAVELENGTHS) else bands
    steps = np.array([known.index(band) - known.index(reference) for band in bands], dtype=np.float64)
    weighed = fraction[:, None] * 10.0 ** (0.4 * redder_mag[:, None] * steps)
    return np.asarray(weighed / (weighed + 1.0 - fraction[:, None]))
