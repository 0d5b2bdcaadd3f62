"""The picture of a benchmark: time against error, and the front that nothing else beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Okabe and Ito's palette: told apart with any kind of colour vision. Groups also differ by their marker.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


@dataclass(frozen=True)
class Point:
    """One renderer: where it stands and how it is drawn."""

    label: str
    error: float  #: largest pixel error over the peak
    time_us: float  #: processor time a stamp of three bands
    low_us: float  #: quartiles of the repeats
    high_us: float
    group: str


_STYLES = {
    "arcforge, driven by the error": {"color": _ORANGE, "marker": "*", "markersize": 15},
    "arcforge, uniform samples": {"color": _BLUE, "marker": "o", "markersize": 8},
    "other programs": {"color": _GREEN, "marker": "s", "markersize": 7},
}


def points_of(report: dict[str, Any], size_pix: int = 64) -> list[Point]:
    """Return the timed renderers of a report of ``bench kernels`` (at one size) or ``bench peers``."""
    entries = report.get("entries") or [e for e in report["variants"] if e["size_pix"] == size_pix]
    found = []
    for entry in entries:
        name = entry.get("name") or entry["variant"]
        if "cpu_us" not in entry or "error_over_peak" not in entry:
            continue
        ours = entry.get("ours", True)
        group = "other programs" if not ours else "arcforge, uniform samples"
        if name == "auto":
            group = "arcforge, driven by the error"
        cpu = entry["cpu_us"]
        error = max(entry["error_over_peak"]["max"], 1e-9)
        found.append(Point(name, error, cpu["median"], cpu["q25"], cpu["q75"], group))
    return found


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both time and error, by rising time."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.time_us, p.error)):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


def draw(report: dict[str, Any], path: Path, *, size_pix: int = 64) -> Path:
    """Write the picture as PNG and return its path.

    Raises
    ------
    ValueError
        Where the report holds no timed renderer of that size.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = points_of(report, size_pix)
    if not points:
        raise ValueError(f"the report holds nothing that was timed on {size_pix}-pixel stamps")
    figure = Figure(figsize=(8.5, 6.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    front = pareto_front(points)
    axes.step(
        [p.error for p in front], [p.time_us for p in front], "--", where="pre", color=_GREY, lw=1.2,
        zorder=1, label="Pareto front: nothing is both faster and closer",
    )  # fmt: skip
    for group, style in _STYLES.items():
        members = [p for p in points if p.group == group]
        if members:
            _draw_group(axes, members, group, style)
    _label_points(axes, points)
    rtol = report["settings"]["rtol"]
    axes.axvline(rtol, color=_GREY, lw=0.8, ls=":")
    axes.annotate(
        f"rtol {rtol:g}", (rtol, 1.0), (3, -4), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="left", va="top", fontsize=8, color=_GREY,
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", title=_title(report, size_pix))
    axes.set_xlabel(
        "largest pixel error / peak, against the converged reference (worst of the rows compared)"
    )
    axes.set_ylabel("processor time of one core for one stamp of three bands [µs]")
    axes.margins(x=0.12, y=0.1)
    axes.grid(which="major", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, format="png")
    return path


def _draw_group(axes: Any, members: Sequence[Point], group: str, style: dict[str, Any]) -> None:
    spread = [[p.time_us - p.low_us for p in members], [p.high_us - p.time_us for p in members]]
    axes.errorbar(
        [p.error for p in members], [p.time_us for p in members], yerr=spread, ls="none", capsize=2, lw=1,
        markeredgecolor="white", markeredgewidth=0.6, zorder=3, label=group, **style,
    )  # fmt: skip


def _label_points(axes: Any, points: Sequence[Point]) -> None:
    """Write each point's name beside it, on the side where no other point is in the way; above is none."""
    for point in points:
        others = [p for p in points if p is not point and 0.6 < p.time_us / point.time_us < 1.7]
        left = any(1.05 <= p.error / point.error < 5.0 for p in others)
        if left and any(0.2 < p.error / point.error < 0.95 for p in others):
            left = False
        axes.annotate(
            point.label, (point.error, point.time_us), (-9 if left else 9, 3), textcoords="offset points",
            ha="right" if left else "left", va="bottom", fontsize=8,
        )  # fmt: skip


def _title(report: dict[str, Any], size_pix: int) -> str:
    settings, cpu = report["settings"], report["machine"]["cpu"]
    return (
        f"{size_pix} x {size_pix} pix, {settings['bands']} bands, {settings['rows']} rows of "
        f'"{settings["source"]}" sources\n{cpu}'
    )
