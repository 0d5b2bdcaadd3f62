"""Pictures of a store as a whole: a gallery of stamps, radial profiles of the arcs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from arcforge.engine.errors import StoreError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, and a marker or dash for each, so that no colour carries a meaning alone
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1)), (0, (5, 2)))
_BINS_ARCSEC = (0.0, 0.75, 1.0, 1.5, 2.0, np.inf)


def gallery_figure(store: Any, rows: Sequence[int]) -> Figure:
    """Draw stamps of rows in colour, side by side, with the Einstein radius of each.

    Parameters
    ----------
    store
        An open store.
    rows
        Row numbers.
    """
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    from arcforge.engine.pictures import colour_stamp

    columns = min(len(rows), max(4, round((1.6 * len(rows)) ** 0.5)))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(1.05 * columns, 1.05 * lines), dpi=200)
    stamps = store.stamps(np.asarray(rows, dtype=np.int64))
    table = store.catalog.take(list(rows))
    thetas, models = table["theta_e_arcsec"].to_pylist(), table["lens_model"].to_pylist()
    outline = [withStroke(linewidth=1.2, foreground="black")]
    n = store.stamp_size
    for k, (stamp, theta, model) in enumerate(zip(stamps, thetas, models, strict=True)):
        line, column = divmod(k, columns)
        box = (column / columns, 1 - (line + 1) / lines, 0.985 / columns, 0.985 / lines)
        panel = figure.add_axes(box)
        panel.imshow(colour_stamp(stamp, store.bands), origin="lower", interpolation="nearest")
        panel.set_axis_off()
        text = "control" if model == "CONTROL" else f'{theta:.2f}"'
        panel.text(0.04 * n, 0.9 * n, text, fontsize=5.5, color="white", path_effects=outline)
        if k == 0:
            length = 2.0 / store.pixscale_arcsec
            panel.plot([0.06 * n, 0.06 * n + length], [0.07 * n] * 2, color="white", lw=1.2)
            panel.text(0.06 * n, 0.11 * n, '2"', fontsize=5.5, color="white", path_effects=outline)
    return figure


def profile_figure(store: Any, rows: Sequence[int]) -> Figure:
    """Draw the mean radial profile of the arcs about the stamp's centre, by Einstein radius, a panel a band.

    Parameters
    ----------
    store
        An open store.
    rows
        Row numbers; rows without an arc are left out.
    """
    from matplotlib.figure import Figure

    table = store.catalog
    thetas = np.array(table["theta_e_arcsec"].to_pylist(), dtype=np.float64)
    models = np.asarray(table["lens_model"].to_pylist())
    chosen = np.array([row for row in rows if models[row] != "CONTROL"], dtype=np.int64)
    if not len(chosen):
        raise StoreError(f"{store.path}: none of these rows has an arc; choose others with --rows")
    arcs = store.arcs(chosen).astype(np.float64)
    n = arcs.shape[-1]
    y, x = np.indices((n, n)) - (n - 1) / 2
    ring = np.round(np.hypot(x, y)).astype(np.int64).ravel()
    counts = np.bincount(ring)
    figure = Figure(figsize=(3.2 * len(store.bands) + 0.4, 3.4), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(store.bands), squeeze=False, sharey=True)[0]
    r = np.arange(len(counts)) * store.pixscale_arcsec
    # the centre of an even stamp lies between pixels: its innermost ring is empty, and has no mean to draw
    inside = (r <= 0.5 * n * store.pixscale_arcsec) & (counts > 0)
    for band, axes in enumerate(panels):
        for k, (low, high) in enumerate(pairwise(_BINS_ARCSEC)):
            some = (thetas[chosen] >= low) & (thetas[chosen] < high)
            if some.any():
                mean = np.bincount(ring, arcs[some, band].mean(axis=0).ravel()) / np.maximum(counts, 1)
                label = f'{low:g} to {high:g}"' if np.isfinite(high) else f'from {low:g}"'
                label += f", n = {some.sum()}"
                axes.plot(r[inside], mean[inside], ls=_DASHES[k], color=_COLOURS[k], lw=1.4, label=label)
        axes.set_title(f"band {store.bands[band]}", fontsize=9)
        axes.set_xlabel("distance from the stamp's centre [arcsec]", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.axhline(0.0, color="0.6", lw=0.6)
    panels[0].set_ylabel("mean added light [nMgy/pix]", fontsize=8)
    panels[-1].legend(title=r"$\theta_\mathrm{E}$", fontsize=6.5, title_fontsize=7, frameon=False)
    return figure
