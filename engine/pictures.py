"""Pictures of stamps: colour composites, and rows of control, stamp and arc beside each other.

Every composite uses one fixed stretch in nanomaggies, never one that adapts to an image: a control and its
stamp must differ in a picture by the arc and by nothing else, and two rows can be compared.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.negatives import NEGATIVES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Red, green and blue gains (z, r, g), softening and black point of the Legacy Surveys' own pictures: a user
# who knows those reads ours at once. Tried on DES and DR10 cutouts against other softenings: a stronger one
# greys the cores of luminous galaxies, a weaker one burns them out.
_GAINS = {"u": 8.0, "g": 6.0, "r": 3.4, "i": 2.7, "z": 2.2, "y": 2.0, "Y": 2.0}
_SOFTENING = 20.0
_BLACK_NMGY = -0.03
_WAVELENGTH_ORDER = "ugrizyY"

# Sizes in inches; a panel is a whole number of dots a pixel for the usual 64-pixel stamp at 200 dpi.
_PANEL, _GAP, _BAR, _TICKS, _TITLE, _MARGIN = 1.28, 0.05, 0.07, 0.42, 0.28, 0.08
_DPI = 200
_SEEN_DARK = 0.01  # of the peak
PICTURE_KINDS = ("png", "pdf", "svg")


class PairedStamps(Protocol):
    """What a store offers to a picture."""

    @property
    def bands(self) -> str: ...  # noqa: D102
    @property
    def pixscale_arcsec(self) -> float: ...  # noqa: D102
    @property
    def catalog(self) -> Any: ...  # noqa: D102
    def stamps(self, rows: Any) -> NDArray[np.float32]: ...  # noqa: D102
    def ctrls(self, rows: Any) -> NDArray[np.float32]: ...  # noqa: D102
    def arcs(self, rows: Any) -> NDArray[np.float32]: ...  # noqa: D102


@dataclass(frozen=True)
class Triplet:
    """One line of a picture; images float32 (bands, ny, nx) in nMgy per pixel."""

    control: NDArray[np.float32]
    stamp: NDArray[np.float32]
    arc: NDArray[np.float32]
    label: str
    residual: NDArray[np.float32] | None = None


def colour_stamp(images: NDArray[np.float32], bands: str = "grz") -> NDArray[np.uint8]:
    """Compose three bands to a colour picture.

    The intensity is compressed by asinh and the ratios of the bands are kept (Lupton et al. 2004, PASP 116,
    133), with the gains of the Legacy Surveys' pictures. A channel that runs over is clipped, as there;
    dividing all three by the largest keeps the hue but draws a dark eye into the core of a bright galaxy.

    Parameters
    ----------
    images
        float (bands, ny, nx), nanomaggies per pixel.
    bands
        The bands of the first axis. Of more than three, the bluest, the middle and the reddest are shown; of
        fewer, all three colours come from the middle one.

    Returns
    -------
    uint8 (ny, nx, 3), rows as in the images: show it with ``origin="lower"``. Pixels that are not finite are
    black.
    """
    rgb = np.empty((*images.shape[1:], 3))
    for channel, index in enumerate(_red_green_blue(bands)):
        rgb[..., channel] = images[index] * _GAINS.get(bands[index], 3.4) - _BLACK_NMGY
    rgb[~np.isfinite(rgb).all(axis=-1)] = 0.0
    intensity = np.maximum(rgb, 0.0).mean(axis=-1)
    compressed = np.arcsinh(_SOFTENING * intensity) / np.sqrt(_SOFTENING)
    rgb *= np.divide(compressed, intensity, out=np.zeros_like(intensity), where=intensity > 0)[..., None]
    return np.asarray(np.rint(255.0 * np.clip(rgb, 0.0, 1.0)), dtype=np.uint8)


def _red_green_blue(bands: str) -> tuple[int, int, int]:
    order = sorted(range(len(bands)), key=lambda i: _WAVELENGTH_ORDER.find(bands[i]))
    middle = order[len(order) // 2]
    return (order[-1], middle, order[0]) if len(order) >= 3 else (middle, middle, middle)


@dataclass(frozen=True)
class _Layout:
    """Where the panels of a figure stand; lengths in inches from the upper left corner."""

    lines: int
    blocks: int
    maps: int

    @property
    def block_width(self) -> float:
        return (2 + self.maps) * (_PANEL + _GAP) + self.maps * (_BAR + _TICKS)

    @property
    def size(self) -> tuple[float, float]:
        height = _TITLE + self.lines * (_PANEL + _GAP) + _MARGIN
        return _MARGIN + self.blocks * self.block_width, height

    def add_axes(self, figure: Figure, k: int, left: float, panel_width: float = _PANEL) -> Axes:
        """Add axes to line ``k``, counted down the first block, then down the second."""
        block, line = divmod(k, self.lines)
        width, height = self.size
        x = _MARGIN + block * self.block_width + left
        y = height - _TITLE - line * (_PANEL + _GAP) - _PANEL
        return figure.add_axes((x / width, y / height, panel_width / width, _PANEL / height))


def triplet_figure(
    triplets: Sequence[Triplet],
    *,
    bands: str,
    pixscale_arcsec: float,
    third_title: str = "arc",
    blocks: int = 1,
) -> Figure:
    """Draw triplets, one a line: control and stamp in colour, then the arc in one band with its scale.

    Parameters
    ----------
    triplets
        What to draw. A column of residuals follows where every triplet has one.
    bands, pixscale_arcsec
        Of all images.
    third_title
        What the third column is, e.g. "arc" or "difference".
    blocks
        The lines are laid out in this many columns side by side.

    Returns
    -------
    A figure of its own: nothing of pyplot's state is touched.
    """
    from matplotlib.figure import Figure

    band = _red_green_blue(bands)[1]
    maps = 2 if all(triplet.residual is not None for triplet in triplets) else 1
    layout = _Layout(lines=-(-len(triplets) // blocks), blocks=blocks, maps=maps)
    figure = Figure(figsize=layout.size, dpi=_DPI)
    titles = ["control", "stamp", *(f"{t}, {bands[band]} [nMgy/pix]" for t in (third_title, "residual"))]
    for k, triplet in enumerate(triplets):
        panels = [layout.add_axes(figure, k, column * (_PANEL + _GAP)) for column in range(2)]
        for panel, images in zip(panels, (triplet.control, triplet.stamp), strict=True):
            _show(panel, colour_stamp(images, bands))
        _write(panels[0], triplet.label)
        if k == 0:
            _scale_bar(panels[1], triplet.stamp.shape[-1], pixscale_arcsec)
        left = 2 * (_PANEL + _GAP)
        # agreement must look like agreement: a residual's colours span a hundredth of the arc's peak at least
        least_residual = 0.01 * _peak(triplet.arc[band])
        columns = ((triplet.arc, "viridis", 0.0), (triplet.residual, "PuOr_r", least_residual))
        for mapped, cmap, least_peak in columns[:maps]:
            assert mapped is not None
            panels.append(layout.add_axes(figure, k, left))
            bar = layout.add_axes(figure, k, left + _PANEL + _GAP, _BAR)
            _show_map(panels[-1], bar, mapped[band], cmap, least_peak)
            left += _PANEL + _GAP + _BAR + _TICKS
        if k % layout.lines == 0:
            for panel, title in zip(panels, titles, strict=False):
                panel.set_title(title, fontsize=7, pad=3)
    return figure


def _show(panel: Axes, picture: NDArray[Any], **style: Any) -> Any:
    panel.set_axis_off()
    return panel.imshow(picture, origin="lower", interpolation="nearest", **style)


def _peak(image: NDArray[np.float32]) -> float:
    return float(np.max(np.abs(image), initial=0.0, where=np.isfinite(image)))


def _show_map(panel: Axes, bar_axes: Axes, image: NDArray[np.float32], cmap: str, least_peak: float) -> None:
    """Draw one band with its colour bar: from 0 for light, symmetric about 0 for a diverging map.

    Light that is somewhere darker than 0 is drawn diverging too: it would hide that otherwise.
    """
    peak = max(_peak(image), least_peak) or 1.0
    if np.min(image, initial=0.0, where=np.isfinite(image)) < -_SEEN_DARK * peak:
        cmap = "PuOr_r"
    low = 0.0 if cmap == "viridis" else -peak
    shown = _show(panel, image, cmap=cmap, vmin=low, vmax=peak)
    bar = panel.figure.colorbar(shown, cax=bar_axes)
    ticks = sorted({low, 0.0, peak})
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.tick_params(labelsize=5, length=1.5, width=0.4, pad=1)
    bar.outline.set_linewidth(0.4)
    labels = bar.ax.get_yticklabels()
    labels[0].set_verticalalignment("bottom")
    labels[-1].set_verticalalignment("top")


def _write(panel: Axes, text: str) -> None:
    from matplotlib.patheffects import withStroke

    panel.text(
        0.03, 0.97, text, transform=panel.transAxes, va="top", fontsize=5.5, color="white", linespacing=1.25,
        path_effects=[withStroke(linewidth=1.2, foreground="black")],
    )  # fmt: skip


def _scale_bar(panel: Axes, nx: int, pixscale_arcsec: float) -> None:
    arcsec = 2.0
    start, y = 0.06 * nx, 0.07 * nx
    panel.plot([start, start + arcsec / pixscale_arcsec], [y, y], color="white", linewidth=1.2)
    panel.text(start, y + 0.03 * nx, f'{arcsec:.0f}"', color="white", fontsize=5.5)


def lensed_rows(store: PairedStamps, n: int) -> list[int]:
    """Return up to ``n`` lensed rows at even distances through the store; of all rows if none is lensed."""
    models = np.asarray(store.catalog["lens_model"].to_pylist())
    lensed = np.flatnonzero(models != "CONTROL")
    candidates = lensed if len(lensed) else np.arange(len(models))
    spread = np.linspace(0, len(candidates) - 1, min(n, len(candidates))).round().astype(np.int64)
    return [int(row) for row in candidates[spread]]


def stamp_grid(store: PairedStamps, rows: Iterable[int], out_png: str | Path) -> Path:
    """Draw rows of a store and write them to a PNG file: control, stamp and arc of each, beside each other.

    Parameters
    ----------
    store
        An open store.
    rows
        Row numbers, drawn in this order, down the columns; more than four are laid out in several columns.
    out_png
        The file; it is there as a whole or not at all.

    Raises
    ------
    StoreError
        Where the file cannot be written.
    IndexError
        Where a row is beyond the store.
    """
    chosen = np.asarray(list(rows), dtype=np.int64)
    controls, stamps, arcs = store.ctrls(chosen), store.stamps(chosen), store.arcs(chosen)
    bands = store.bands
    labels = _labels(store, chosen, arcs[:, _red_green_blue(bands)[1]].sum(axis=(1, 2), dtype=np.float64))
    figure = triplet_figure(
        [Triplet(*images) for images in zip(controls, stamps, arcs, labels, strict=True)],
        bands=bands,
        pixscale_arcsec=store.pixscale_arcsec,
        blocks=1 if len(chosen) <= 4 else min(4, max(2, -(-len(chosen) // 6))),
    )
    return write_png(figure, out_png)


def write_png(figure: Figure, out_png: str | Path) -> Path:
    """Write a figure as PNG, PDF or SVG by its name, as a whole or not at all; returns the path.

    Raises
    ------
    ConfigError
        Another ending.
    StoreError
        The path cannot be written.
    """
    from arcforge.engine.durable import place
    from arcforge.engine.errors import ConfigError

    path = Path(out_png)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in PICTURE_KINDS:
        raise ConfigError(f"{path}: pictures are written as {', '.join(PICTURE_KINDS)}: change the ending")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=_DPI)
    place(path, buffer.getbuffer())
    return path


def _labels(store: PairedStamps, rows: NDArray[np.int64], fluxes_nmgy: NDArray[np.float64]) -> list[str]:
    table = store.catalog.take(rows)
    key = next((name for name in ("row_id", "task_id") if name in table.column_names), None)
    identities = table[key].to_pylist() if key else rows.tolist()
    models = table["lens_model"].to_pylist()
    thetas = table["theta_e_arcsec"].to_pylist()
    band = store.bands[_red_green_blue(store.bands)[1]]
    kinds = table["kind"].to_pylist() if "kind" in table.column_names else ["arc"] * len(models)
    labels = []
    for identity, model, kind, theta, flux in zip(
        identities, models, kinds, thetas, fluxes_nmgy, strict=True
    ):
        lens = f'$\\theta_\\mathrm{{E}}$ = {theta:.2f}"' if model != "CONTROL" else "control"
        lens = kind if kind in NEGATIVES else lens
        light = f"arc {band} = {22.5 - 2.5 * np.log10(flux):.1f}" if flux > 0 else "no arc"
        name = identity if isinstance(identity, str) else f"row {identity}"
        labels.append(f"{name}\n{lens}\n{light}")
    return labels
