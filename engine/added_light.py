"""What is added to the hosts: rendered arcs, paired with their hosts and measured against their noise."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from arcforge.engine.cuts import visibility
from arcforge.engine.host_source import HostPixels
from arcforge.engine.noise import add_noise, is_noisy, side_weight
from arcforge.engine.pairing import pair_exactly
from arcforge.engine.run_rows import put_column, with_measures

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from arcforge.engine.arrays import Pixels
    from arcforge.engine.config import Config
    from arcforge.engine.hosts import HostSet
    from arcforge.engine.plan import Plan


class AddedLight:
    """Pairs arcs with the hosts of a run. A context manager: it holds the hosts' pixels."""

    def __init__(self, root: Path, plan: Plan, hosts: HostSet, config: Config) -> None:
        self._plan = plan
        self._side_weight = side_weight(config.noise_lag1_correlation)
        self._reference = config.bands.index(config.reference_band)
        self._typical_invvar = hosts.table.typical_invvar[:, self._reference]
        self._sky_sigma = hosts.table.sky_sigma_nmgy
        self._pixels = HostPixels(root, plan, root.parent)
        has_invvar = "invvar" in hosts.layers
        self._invvar = HostPixels(root, plan, root.parent, "invvar") if has_invvar else None

    def __enter__(self) -> AddedLight:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pixels.__exit__()
        if self._invvar is not None:
            self._invvar.__exit__()

    def finish(self, arcs: Pixels, table: pa.Table, first: int) -> pa.Table:
        """Pair the arcs of rows from ``first`` on with their hosts, in place, measure them, add their noise.

        What is measured is the light without its noise.

        Parameters
        ----------
        arcs
            (k, bands, ny, nx) float32 as rendered; changed in place to what the stamps will show.
        table
            The rows, with ``host_index``.
        first
            Number of the first row.

        Returns
        -------
        pyarrow.Table
            The rows with ``arc_flux_nmgy_<band>``, ``arc_snr_<band>``, ``arc_snr_max_<band>`` and, in the
            reference band, ``visibility``.

        Raises
        ------
        RenderError
            Where a stamp is not finite.
        """
        hosts = table.column("host_index").to_numpy()
        pixels, places = self._pixels.of(hosts)
        measures = pair_exactly(arcs, pixels, places, first_row=first)
        table = with_measures(table, measures, self._plan.bands, self._sky_sigma[hosts])
        band, invvar = self._reference, self._typical_invvar[hosts]
        seen = visibility(arcs[:, band], pixels[:, band], places, invvar)
        table = put_column(table, "visibility", seen)
        if self._invvar is not None:
            table = with_signal_to_noise(table, arcs, *self._invvar.of(hosts), self._plan.bands)
        if is_noisy(table):
            add_noise(arcs, table, self._plan.bands, self._side_weight)
            pair_exactly(arcs, pixels, places, first_row=first)
        return table


def with_signal_to_noise(
    table: pa.Table,
    arcs: Pixels,
    invvar: Pixels,
    places: np.ndarray[tuple[int], np.dtype[np.int64]],
    bands: str,
) -> pa.Table:
    """Replace the signal to noise of rows whose hosts have an inverse variance by that against it.

    ``arc_snr`` = sqrt(sum arc^2 invvar) and ``arc_snr_max`` = max arc sqrt(invvar), over pixels with invvar
    above 0; NaN where there is none.
    """
    n, n_bands = arcs.shape[:2]
    power, peak = np.zeros((n, n_bands)), np.full((n, n_bands), np.nan)
    known = ~np.isnan(invvar[:, 0, 0, 0])[places]
    for row in np.flatnonzero(known):  # a row at a time: the squares of a shard would double its memory
        weight = invvar[places[row]]
        good = weight > 0.0
        power[row] = np.einsum("byx,byx,byx->b", arcs[row], arcs[row], weight, dtype=np.float64)
        best = np.where(good, arcs[row] * np.sqrt(weight), -np.inf).max(axis=(1, 2))
        peak[row] = np.where(good.any(axis=(1, 2)), best, np.nan)
    power = np.where(np.isnan(peak), np.nan, power)
    for b, band in enumerate(bands):
        for name, values in (("arc_snr", np.sqrt(power)), ("arc_snr_max", peak)):
            column = f"{name}_{band}"
            table = put_column(table, column, np.where(known, values[:, b], table.column(column).to_numpy()))
    return table
