"""Make rows of a store again from its catalogue, hosts and seed alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.config import parse_config
from arcforge.engine.noise import add_noise, is_noisy, side_weight
from arcforge.engine.render import render_batch

if TYPE_CHECKING:
    from arcforge.engine.store import Store

Pixels = NDArray[np.float32]


class Replay(NamedTuple):
    """Rows made again, (k, bands, ny, nx) float32 each."""

    arcs: Pixels  #: as the store holds them
    light: Pixels  #: without the noise of the added light


class Difference(NamedTuple):
    """Rows that came out otherwise than they are stored."""

    n_rows: int
    first: int  #: number of the first of them
    worst: float  #: largest difference over the brightest stored pixel


def difference(store: Store, rows: NDArray[np.int64], fresh: Pixels, stored: Pixels) -> Difference | None:
    """Compare arcs of the rows at positions ``rows`` bit for bit; None where all are the same."""
    differs = (fresh.view(np.uint32) != stored.view(np.uint32)).any(axis=(1, 2, 3))
    if not differs.any():
        return None
    worst = float(np.abs(fresh - stored).max() / np.abs(stored).max())
    return Difference(int(differs.sum()), int(store.rows[rows[differs][0]]), worst)


def replay(store: Store, rows: NDArray[np.int64], threads: int | None = None) -> Replay:
    """Render rows again, pair them with their hosts and give them their noise.

    Parameters
    ----------
    store
        An open store.
    rows
        (k,) positions in it.
    threads
        Threads that render.
    """
    table = store.catalog.take(rows)
    controls = store.ctrls(rows)
    light = render_batch(
        table,
        stamp_size=store.stamp_size,
        pixscale_arcsec=store.pixscale_arcsec,
        bands=store.bands,
        threads=threads,
        psf_images=store.psf_images,
        sources=store.sources,
        **store.plan.render,
    )
    light = (controls + light) - controls
    if not is_noisy(table):
        return Replay(light, light)
    arcs = light.copy()
    correlation = parse_config(store.plan.config).noise_lag1_correlation
    add_noise(arcs, table, store.bands, side_weight(correlation))
    return Replay((controls + arcs) - controls, light)


def with_photon_noise(store: Store, rows: NDArray[np.int64], invvar: Pixels) -> Pixels:
    """The inverse variance of stamps: that of their hosts, (k, bands, ny, nx), with the added light's noise.

    1 / (1 / invvar + light / gain), of the light as rendered, without its noise: a weight that followed the
    noise would favour what scattered low. Where the host has no weight the stamp has none.
    """
    light = replay(store, rows).light
    table = store.catalog.take(rows)
    gain = np.stack([table.column(f"gain_e_per_nmgy_{band}").to_numpy() for band in store.bands], axis=1)
    photons = np.maximum(light, 0.0) / gain[:, :, None, None]
    return np.asarray(invvar / (1.0 + invvar * photons), dtype=np.float32)
