"""The figure of ``CONVENTIONS.md``: one rendered row, every length and angle drawn in.

``python -m arcforge.bench.conventions bench/pictures/conventions.png`` makes it again. What is drawn is
rendered and traced by the package itself, so that the figure cannot say otherwise than the code does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from arcforge.engine.catalog import render_columns
from arcforge.engine.lens_diagrams import CAUSTIC, CRITICAL, SOURCE, critical_curves, ellipse
from arcforge.engine.pictures import write_png
from arcforge.engine.render import render_batch

_SIZE, _SCALE = 64, 0.262
ROW: dict[str, Any] = {
    "lens_model": "SIE",
    "theta_e_arcsec": 3.2,
    "lens_e": 0.35,
    "lens_phi_rad": 0.7,
    "lens_x_arcsec": 1.2,
    "lens_y_arcsec": -0.8,
    "src_x_arcsec": 0.7,
    "src_y_arcsec": 0.4,
    "src_reff_arcsec": 0.5,
    "src_e": 0.4,
    "src_phi_rad": 2.4,
    "src_flux_nmgy_r": 1.0,
    "psf_fwhm_arcsec_r": 0.9,
}
_LENS = "white"


def draw() -> Any:
    """Return the figure."""
    from matplotlib.figure import Figure

    catalog = {name: np.array([value]) for name, value in ROW.items()}
    arc = render_batch(catalog, stamp_size=_SIZE, pixscale_arcsec=_SCALE, bands="r")[0, 0]
    columns = render_columns(catalog, "r")
    curves = critical_curves(columns, 0)
    figure = Figure(figsize=(9.4, 4.9), dpi=160, layout="constrained")
    image, source = figure.subplots(1, 2)
    half = 0.5 * _SIZE * _SCALE
    image.imshow(arc, origin="lower", extent=(-half, half, -half, half), cmap="gray")
    _draw_image(image, curves)
    _draw_source(source, curves)
    for axes in (image, source):
        axes.set_aspect("equal")
        axes.tick_params(labelsize=8)
    image.set_title("image: the stamp, rows of the array upwards", fontsize=10)
    source.set_title("source plane, relative to the lens", fontsize=10)
    image.set_xlabel("x from the stamp's centre, pixel index (nx - 1) / 2 [arcsec]", fontsize=9)
    image.set_ylabel("y from the centre, (ny - 1) / 2 [arcsec]", fontsize=9)
    source.set_xlabel("x from the lens [arcsec]", fontsize=9)
    source.set_ylabel("y from the lens [arcsec]", fontsize=9)
    return figure


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.2})


def _angle(axes: Any, centre: tuple[float, float], phi: float, radius: float, colour: str) -> None:
    """Draw an angle: a line along +x, one at ``phi``, and the arc from the one to the other."""
    t = np.linspace(0.0, phi, 60)
    axes.plot(centre[0] + radius * np.cos(t), centre[1] + radius * np.sin(t), color=colour, lw=1.0)
    for direction in (0.0, phi):
        end = centre[0] + 1.5 * radius * np.cos(direction), centre[1] + 1.5 * radius * np.sin(direction)
        axes.plot([centre[0], end[0]], [centre[1], end[1]], color=colour, lw=0.8, ls=":")


def _draw_image(axes: Any, curves: Any) -> None:
    lens = ROW["lens_x_arcsec"], ROW["lens_y_arcsec"]
    q = (1 - ROW["lens_e"]) / (1 + ROW["lens_e"])
    for line in curves.critical:
        axes.plot(line[:, 0] + lens[0], line[:, 1] + lens[1], color=CRITICAL, lw=1.4)
    axes.plot(0, 0, "+", color=CAUSTIC, ms=9)
    axes.text(-0.25, 0.2, "(0, 0)", color=CAUSTIC, fontsize=8, ha="right")
    _arrow(axes, (0, 0), lens, CAUSTIC)
    axes.plot(*lens, "x", color=_LENS, ms=6)
    axes.text(
        lens[0] - 0.1, lens[1] - 0.3, "(lens_x, lens_y)", color=_LENS, fontsize=8, ha="center", va="top"
    )
    outline = ellipse(1.5 / np.sqrt(q), q, ROW["lens_phi_rad"])
    axes.plot(lens[0] + outline[:, 0], lens[1] + outline[:, 1], color=_LENS, lw=0.8, ls="--")
    _angle(axes, lens, ROW["lens_phi_rad"], 1.5, _LENS)
    axes.text(lens[0] + 1.7, lens[1] + 0.35, "lens_phi", color=_LENS, fontsize=8)
    area = curves.enclosed_arcsec2 / np.pi
    axes.text(
        -8.1, 7.9, f"critical curve: encloses $\\pi\\,\\theta_\\mathrm{{E}}^2$\n"
        f"drawn: $\\sqrt{{area/\\pi}}$ = {area**0.5:.3f}\", theta_e = {ROW['theta_e_arcsec']:.3f}\"",
        color=CRITICAL, fontsize=8, va="top",
    )  # fmt: skip
    axes.text(
        -8.1, -7.9, "dashed: the lens's mass, axis ratio q, e = (1 - q)/(1 + q)", color=_LENS, fontsize=8
    )
    _arrow(axes, (5.6, -6.2), (7.6, -6.2), _LENS)
    _arrow(axes, (5.6, -6.2), (5.6, -4.2), _LENS)
    axes.text(7.7, -6.2, "+x", color=_LENS, fontsize=8, va="center")
    axes.text(5.6, -4.0, "+y", color=_LENS, fontsize=8, ha="center")


def _draw_source(axes: Any, curves: Any) -> None:
    place = ROW["src_x_arcsec"], ROW["src_y_arcsec"]
    q = (1 - ROW["src_e"]) / (1 + ROW["src_e"])
    reff, phi = ROW["src_reff_arcsec"], ROW["src_phi_rad"]
    axes.set_facecolor("#202020")
    for line in curves.caustics:
        axes.plot(line[:, 0], line[:, 1], color=CAUSTIC, lw=1.2, ls="--")
    axes.text(-1.0, -0.85, "caustic", color=CAUSTIC, fontsize=8)
    axes.plot(0, 0, "x", color=_LENS, ms=6)
    axes.text(-0.05, -0.12, "lens", color=_LENS, fontsize=8, ha="right", va="top")
    _arrow(axes, (0, 0), place, _LENS)
    axes.text(0.2, 0.26, "(src_x, src_y)", color=_LENS, fontsize=8, ha="right")
    outline = ellipse(reff, q, phi)
    axes.plot(place[0] + outline[:, 0], place[1] + outline[:, 1], color=SOURCE, lw=1.4)
    major = place[0] + reff * np.cos(phi), place[1] + reff * np.sin(phi)
    axes.plot([place[0], major[0]], [place[1], major[1]], color=SOURCE, lw=1.2)
    axes.text(major[0] - 0.02, major[1] + 0.06, "src_reff: MAJOR axis", color=SOURCE, fontsize=8, ha="center")
    _angle(axes, place, phi, 0.18, SOURCE)
    axes.text(place[0] + 0.16, place[1] + 0.16, "src_phi", color=SOURCE, fontsize=8)
    axes.text(
        -1.5,
        1.53,
        "half of the light lies inside the ellipse;\nflux: unlensed total",
        color=SOURCE,
        fontsize=8,
        va="top",
    )
    axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))


if __name__ == "__main__":
    sys.stdout.write(f"{write_png(draw(), Path(sys.argv[1]))}\n")
