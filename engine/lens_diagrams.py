"""Pictures of lensing itself: critical curves over an arc, caustics over its source, the conventions in one.

Curves are contours of the Jacobian's determinant on a fine grid, its derivatives by central differences of
the deflections that ``profiles`` gives; they are for the eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import RenderColumns, render_columns
from arcforge.engine.components import components
from arcforge.engine.profiles import (
    deflection_epl,
    deflection_nfw,
    deflection_shear,
    deflection_sie,
    deflection_sis,
)
from arcforge.kernels.codes import CONTROL, EPL, NFW, SIE, SIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

# Okabe and Ito's palette; over dark maps the curves are told apart by their dashes too
CRITICAL, CAUSTIC, SOURCE = "#D55E00", "#56B4E9", "#E69F00"
_GRID = 501
_STEP_ARCSEC = 1e-4
_INCH = 2.3


@dataclass(frozen=True)
class Curves:
    """Critical curves, and the same points in the source plane; arcsec from the lens, x to the right, y up.

    Attributes
    ----------
    critical, caustics : list of (k, 2) float64
        One entry a curve, in the same order.
    cut : (k, 2) float64
        Source positions that an isothermal lens's centre is the image of: beyond it there is one image less.
        Empty for other lenses.
    """

    critical: list[Floats]
    caustics: list[Floats]
    cut: Floats

    @property
    def enclosed_arcsec2(self) -> float:
        """Area inside the largest critical curve: pi theta_E^2 for an SIE without shear."""
        return max((_area(curve) for curve in self.critical), default=0.0)


def deflection_of(columns: RenderColumns, row: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the deflection of a row's lens and shear at (x, y) from the lens [arcsec]."""
    lens: tuple[float, float, float] = (
        float(columns.theta_e_arcsec[row]), float(columns.lens_e[row]), float(columns.lens_phi_rad[row])
    )  # fmt: skip
    model = columns.lens_model[row]
    if model == CONTROL:
        ax, ay = np.zeros_like(x), np.zeros_like(y)
    elif model == SIS:
        ax, ay = deflection_sis(x, y, lens[0])
    elif model == EPL:
        ax, ay = deflection_epl(x, y, *lens, float(columns.lens_gamma[row]))
    elif model == NFW:
        ax, ay = deflection_nfw(x, y, *lens, float(columns.nfw_rs_arcsec[row]))
    else:
        ax, ay = deflection_sie(x, y, *lens)
    sx, sy = deflection_shear(x, y, float(columns.shear[row]), float(columns.shear_phi_rad[row]))
    return ax + sx, ay + sy


def critical_curves(columns: RenderColumns, row: int, *, reach_arcsec: float | None = None) -> Curves:
    """Find where the magnification of a row's lens is infinite.

    Parameters
    ----------
    columns : RenderColumns
    row : int
    reach_arcsec : float, optional
        Half the side of the square that is looked at; three Einstein radii if not given.

    Returns
    -------
    Curves
        None of a CONTROL row.
    """
    from contourpy import contour_generator

    reach = reach_arcsec or 3.0 * float(columns.theta_e_arcsec[row])
    if columns.lens_model[row] == CONTROL or not reach > 0.0:
        return Curves([], [], np.zeros((0, 2)))
    axis = np.linspace(-reach, reach, _GRID)
    x, y = np.meshgrid(axis, axis)
    h = _STEP_ARCSEC

    def alpha(dx: float, dy: float) -> tuple[Floats, Floats]:
        return deflection_of(columns, row, x + dx, y + dy)

    (right, right_y), (left, left_y), (up_x, up), (down_x, down) = (
        alpha(h, 0),
        alpha(-h, 0),
        alpha(0, h),
        alpha(0, -h),
    )
    xx, yy = 1.0 - (right - left) / (2 * h), 1.0 - (up - down) / (2 * h)
    xy, yx = (up_x - down_x) / (2 * h), (right_y - left_y) / (2 * h)
    determinant = np.clip(xx * yy - xy * yx, -50.0, 50.0)
    near = np.hypot(x, y) < 0.02 * float(columns.theta_e_arcsec[row])  # the singular centre is no curve
    lines = contour_generator(axis, axis, np.ma.masked_where(near, determinant)).lines(0.0)
    critical = [np.asarray(line, dtype=np.float64) for line in lines if len(line) > 8]
    isothermal = columns.lens_model[row] in (SIS, SIE)
    cut = _to_source(columns, row, ellipse(1e-9, 1.0, 0.0)) if isothermal else np.zeros((0, 2))
    return Curves(critical, [_to_source(columns, row, line) for line in critical], cut)


def _to_source(columns: RenderColumns, row: int, line: Floats) -> Floats:
    ax, ay = deflection_of(columns, row, line[:, 0], line[:, 1])
    return np.column_stack([line[:, 0] - ax, line[:, 1] - ay])


def _area(curve: Floats) -> float:
    x, y = curve[:, 0], curve[:, 1]
    return float(0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def lens_figure(store: Any, rows: Sequence[int]) -> Figure:
    """Draw rows of a store: the arc with its critical curves, and the source plane with caustics and source.

    Parameters
    ----------
    store
        An open store.
    rows
        Row numbers, a line of two panels each, two lines side by side.

    Returns
    -------
    A figure of its own: nothing of pyplot's state is touched.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = render_columns(store.catalog.take(list(rows)), store.bands)
    arcs = store.arcs(np.asarray(rows, dtype=np.int64))[:, len(store.bands) // 2]
    blocks = 1 if len(rows) < 3 else 2
    lines = -(-len(rows) // blocks)
    size = (2 * blocks * _INCH + 0.6, lines * _INCH + 0.75)
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    panels = figure.subplots(lines, 2 * blocks, squeeze=False)
    for panel in panels.ravel()[2 * len(rows) :]:
        panel.set_axis_off()
    half = 0.5 * arcs.shape[-1] * store.pixscale_arcsec
    for k, row in enumerate(rows):
        image, source = panels.ravel()[2 * k : 2 * k + 2]
        curves = critical_curves(columns, k)
        centre = float(columns.lens_x_arcsec[k]), float(columns.lens_y_arcsec[k])
        image.imshow(arcs[k], origin="lower", extent=(-half, half, -half, half), cmap="gray")
        for line in curves.critical:
            image.plot(line[:, 0] + centre[0], line[:, 1] + centre[1], color=CRITICAL, lw=0.9)
        name = _name_of(store, row)
        theta = float(columns.theta_e_arcsec[k])
        image.set_title(f'{name}: $\\theta_\\mathrm{{E}}$ = {theta:.2f}"', fontsize=7, pad=2)
        near = min(half, 3.0 * theta + 1.0 + max(map(abs, centre))) if curves.critical else half
        image.set(xlim=(-near, near), ylim=(-near, near))
        _draw_source(source, columns, k, curves)
    for axes in panels.ravel()[: 2 * len(rows)]:
        axes.tick_params(labelsize=5.5, length=2)
        axes.set_aspect("equal")
    figure.supxlabel("x [arcsec]", fontsize=8)
    figure.supylabel("y [arcsec]", fontsize=8)
    legend = [
        Line2D([], [], color=CRITICAL, lw=1, label="critical curve, over the arc"),
        Line2D([], [], color=CAUSTIC, lw=1, ls="--", label="caustic, from the lens"),
        Line2D([], [], color="0.65", lw=1, ls=":", label="cut: one image less outside"),
        Line2D([], [], color=SOURCE, lw=1, label="source at its half-light radius"),
    ]
    figure.legend(handles=legend, loc="outside upper center", ncols=4, fontsize=6.5, frameon=False)
    return figure


def _draw_source(axes: Axes, columns: RenderColumns, row: int, curves: Curves) -> None:
    for line in curves.caustics:
        axes.plot(line[:, 0], line[:, 1], color=CAUSTIC, lw=0.9, ls="--")
    axes.plot(curves.cut[:, 0], curves.cut[:, 1], color="0.65", lw=0.8, ls=":")
    ends: list[Any] = []
    for part in components(columns.take([row])):
        if ends and part.lens_model[0] == CONTROL:  # a component that this row does not have
            continue
        x, y = float(part.src_x_arcsec[0]), float(part.src_y_arcsec[0])
        reff, e = float(part.src_reff_arcsec[0]), float(part.src_e[0])
        outline = ellipse(reff, (1 - e) / (1 + e), float(part.src_phi_rad[0]))
        axes.plot(x + outline[:, 0], y + outline[:, 1], color=SOURCE, lw=0.5 if ends else 0.9)
        if not ends:
            axes.plot(x, y, "+", color=SOURCE, ms=4)
        ends += [[x - reff, y - reff], [x + reff, y + reff]]
    points = np.concatenate([ends, *curves.caustics, curves.cut])
    reach = 1.15 * float(np.abs(points).max())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), facecolor="#202020")
    axes.set_title("source plane", fontsize=7, pad=2)


def ellipse(major: float, q: float, phi_rad: float, n: int = 181) -> Floats:
    """Return (n, 2) points of an ellipse about 0: semi-axes ``major`` (at ``phi_rad``), ``q major``."""
    t = np.linspace(0.0, 2.0 * np.pi, n)
    z = major * (np.cos(t) + 1j * q * np.sin(t)) * np.exp(1j * phi_rad)
    return np.column_stack([z.real, z.imag])


def _name_of(store: Any, row: int) -> str:
    names = store.catalog.column_names
    key = next((name for name in ("row_id", "task_id") if name in names), None)
    identity = store.catalog.column(key)[row].as_py() if key else row
    return identity if isinstance(identity, str) else f"row {identity}"
