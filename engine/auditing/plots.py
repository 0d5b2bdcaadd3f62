"""The report's pictures, each drawn from the numbers of the JSON; matplotlib without any global state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from arcforge.engine.auditing.state import AuditState

# Colours that remain apart for colour-blind readers (Okabe & Ito): observed, predicted, neutral
OBSERVED, PREDICTED, NEUTRAL, ALARM = "#D55E00", "#0072B2", "#666666", "#B00020"
_PARTS = {"geometry": "#009E73", "psf": "#0072B2", "extent": "#CC79A7", "unexplained": "#D55E00"}
_WORDS = {
    "geometry": "geometry (images inside the core)",
    "psf": "PSF",
    "extent": "source extent",
    "unexplained": "unexplained",
}
_SHORT = {"geometry": "geometry", "psf": "PSF", "extent": "extent", "unexplained": "un-\nexplained"}
_TRIPLETS = 5


def make_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, side by side; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    return figure, list(axes)


def draw_profiles(report: dict[str, Any]) -> Figure | None:
    """Radial profile of the added light, observed and predicted, of all pairs and of the resolved ones."""
    tables = {
        name: table
        for name, table in report["evidence"].get("P4", {}).items()
        if "predicted" in table and None not in (*table["predicted"], *table["observed"])
    }
    if not tables:
        return None
    titles = {"all": "all pairs", "resolved": 'theta_E >= 2"'}
    pixscale = report["provenance"]["pixscale_arcsec"]
    figure, axes = make_figure(5.0 * len(tables), 3.5, len(tables))
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        r = np.array(table["radius_pix"])
        observed, predicted = np.array(table["observed"]), np.array(table["predicted"])
        half = np.array(table["predicted_half_width"], dtype=float)
        axis.fill_between(
            r,
            predicted - half,
            predicted + half,
            color=PREDICTED,
            alpha=0.18,
            lw=0,
            label="95 % band over hosts",
        )
        axis.plot(r, predicted, color=PREDICTED, lw=2, label="predicted from the record")
        error = np.array(table["difference_half_width"], dtype=float)
        axis.errorbar(r, observed, yerr=error, fmt="o", ms=4, color=OBSERVED, lw=1, label="observed")
        axis.axhline(0, color=NEUTRAL, lw=0.6)
        axis.axvspan(0, 5, color="#999999", alpha=0.12, lw=0)
        axis.text(2.5, axis.get_ylim()[1], "core", ha="center", va="top", fontsize=8, color=NEUTRAL)
        axis.set_xlim(0, r[-1] + 0.5)
        axis.set_xlabel("distance from the stamp's centre [px]", fontsize=9)
        axis.set_title(f"{titles[name]} (n = {table['n_pairs']})", fontsize=10)
        top = axis.secondary_xaxis("top", functions=(lambda p: p * pixscale, lambda a: a / pixscale))
        top.tick_params(labelsize=8)
        top.set_xlabel("[arcsec]", fontsize=8)
    axes[0].set_ylabel("added light per pixel\n[of the predicted profile's peak]", fontsize=9)
    axes[-1].legend(fontsize=8, frameon=False)
    return figure


def draw_core_share(report: dict[str, Any]) -> Figure | None:
    """Share of the arc's light inside r < 5 px by theta_E bin, observed and predicted."""
    table = report["evidence"].get("P3")
    if not table:
        return None
    figure, (axis,) = make_figure(5.0, 3.3)
    place = np.arange(len(table))
    for name, shift, colour, marker in (
        ("predicted", -0.1, PREDICTED, "s"),
        ("observed", 0.1, OBSERVED, "o"),
    ):
        if name not in table[0]:
            continue
        share = np.array([row[name]["share"] for row in table], dtype=float)
        ci = np.array([row[name]["ci95"] for row in table], dtype=float)
        error = np.maximum(np.stack([share - ci[:, 0], ci[:, 1] - share]), 0)
        axis.errorbar(
            place + shift,
            100 * share,
            yerr=100 * error,
            fmt=marker,
            ms=6,
            color=colour,
            capsize=3,
            label=name,
        )
    axis.set_xticks(place, [f"{row['theta_e_arcsec']}\nn = {row['n_pairs']}" for row in table])
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axis.set_xlim(-0.6, len(table) - 0.4)
    axis.set_xlabel("Einstein radius", fontsize=9)
    axis.set_ylabel("arc light inside r < 5 px [%]", fontsize=9)
    axis.legend(fontsize=9, frameon=False)
    return figure


def draw_mask_sweep(report: dict[str, Any]) -> Figure | None:
    """AUC of the gate with the core masked, by mask radius; and the core gate."""
    table = report["evidence"].get("G3")
    if not table:
        return None
    figure, (axis,) = make_figure(5.0, 3.3)
    radius = np.array([row["radius_pix"] for row in table], dtype=float)
    auc = np.array([row["auc"] for row in table], dtype=float)
    ci = np.array([row["ci95"] for row in table], dtype=float)
    axis.fill_between(radius, ci[:, 0], ci[:, 1], color=PREDICTED, alpha=0.2, lw=0)
    axis.plot(radius, auc, "o-", color=PREDICTED, ms=4, label="40 x 40 px window, r < mask left out")
    gate = report["gate"]
    if gate["auc"] is not None:
        error = [[gate["auc"] - gate["ci95"][0]], [gate["ci95"][1] - gate["auc"]]]
        axis.errorbar(
            [0], [gate["auc"]], yerr=error, fmt="D", color=OBSERVED, capsize=3, label="core gate, 10 x 10 px"
        )
    axis.axhline(0.5, color=NEUTRAL, lw=0.8, ls=":")
    axis.axhline(gate["threshold"], color=ALARM, lw=0.8, ls="--")
    axis.text(
        radius[-1],
        gate["threshold"] + 0.01,
        f"limit of the core gate {gate['threshold']:g}",
        ha="right",
        fontsize=8,
        color=ALARM,
    )
    axis.set_ylim(0.4, 1.02)
    axis.set_xlabel("mask radius [px]", fontsize=9)
    axis.set_ylabel("AUC, host-grouped folds", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="center", bbox_to_anchor=(0.5, 0.45))
    return figure


def draw_nuisance(report: dict[str, Any], tolerances: dict[str, float]) -> Figure | None:
    """Fitted parameters as departures from the record in units of their tolerance, with values beside."""
    from matplotlib.ticker import FuncFormatter

    nuisance = {
        name: n
        for name, n in report["nuisance"].items()
        if tolerances.get(name, 0.0) > 0 and None not in (n["estimate"], *n["ci95"])
    }
    if not nuisance:
        return None
    figure, (axis,) = make_figure(7.4, 0.31 * len(nuisance) + 1.0)
    names = list(nuisance)[::-1]
    for place, name in enumerate(names):
        entry, tolerance = nuisance[name], tolerances[name]
        departure = [(v - entry["nominal"]) / tolerance for v in (entry["estimate"], *entry["ci95"])]
        inside = departure[1] >= -1 and departure[2] <= 1
        colour = PREDICTED if inside else ALARM
        axis.plot(departure[1:], [place, place], color=colour, lw=2)
        axis.plot(departure[0], place, "o" if inside else "D", color=colour, ms=5)
        text = f"{entry['estimate']:.4g}  ({entry['ci95'][0]:.4g} to {entry['ci95'][1]:.4g})"
        axis.text(
            1.02, place, text, transform=axis.get_yaxis_transform(), va="center", fontsize=8, color=colour
        )
    axis.axvspan(-1, 1, color="#009E73", alpha=0.12, lw=0)
    axis.axvline(0, color=NEUTRAL, lw=0.6)
    axis.set_xscale("symlog", linthresh=1.0)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    reach = max(2.0, *(abs(v) for v in axis.get_xlim()))
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("departure from the record [tolerances]; green: within", fontsize=9)
    axis.set_title("value (95 % interval)", fontsize=8, loc="right", x=1.3, color=NEUTRAL)
    return figure


def draw_attribution(report: dict[str, Any]) -> Figure | None:
    """Shares of the core's added light, overall and by theta_E bin."""
    shares = report["attribution"]
    if "by_theta_e" not in shares:
        return None
    rows = [("all", shares), *((row["theta_e_arcsec"], row) for row in shares["by_theta_e"])]
    figure, (axis,) = make_figure(5.0, 3.3)
    for k, (part, colour) in enumerate(_PARTS.items()):
        place = np.arange(len(rows)) + (k - 1.5) * 0.15
        share = np.array([row[part]["share"] for _, row in rows], dtype=float)
        ci = np.array([row[part]["ci95"] for _, row in rows], dtype=float)
        error = np.maximum(np.stack([share - ci[:, 0], ci[:, 1] - share]), 0)
        axis.errorbar(
            place,
            100 * share,
            yerr=100 * error,
            fmt="o",
            ms=5,
            color=colour,
            capsize=2,
            lw=1,
            label=_WORDS[part],
        )
    axis.axhline(0, color=NEUTRAL, lw=0.6)
    axis.axvline(0.5, color=NEUTRAL, lw=0.6, ls=":")
    axis.set_xticks(range(len(rows)), [name for name, _ in rows])
    axis.set_xlabel("Einstein radius", fontsize=9)
    axis.set_ylabel("share of the core's added light [%]", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    return figure


def draw_budget(report: dict[str, Any]) -> Figure | None:
    """What each part adds to the core gate's AUC, from 0.5 to that of the observed stamps."""
    budget = report["attribution"].get("auc")
    if not budget or any(part["auc"] is None for part in budget["parts"].values()):
        return None
    figure, (axis,) = make_figure(5.0, 3.3)
    start = 0.5
    for place, (part, colour) in enumerate(_PARTS.items()):
        entry = budget["parts"][part]
        step, end = entry["auc"], start + entry["auc"]
        low, high = (start + value for value in entry["ci95"])
        axis.bar(place, step, bottom=start, width=0.55, color=colour, alpha=0.75)
        error = [[max(end - low, 0.0)], [max(high - end, 0.0)]]
        axis.errorbar(place, end, yerr=error, color="black", capsize=3, lw=1)
        axis.text(place, max(start, end, high) + 0.01, f"{step:+.3f}", ha="center", fontsize=9)
        axis.plot([place - 0.28, place + 1.28], [end, end], color=NEUTRAL, lw=0.8)
        start = end
    axis.bar(len(_PARTS), start - 0.5, bottom=0.5, width=0.55, color=NEUTRAL, alpha=0.6)
    axis.text(len(_PARTS), max(start, 0.5) + 0.01, f"{start:.3f}", ha="center", fontsize=9)
    limit = report["gate"]["threshold"]
    axis.axhline(0.5, color=NEUTRAL, lw=0.8, ls=":")
    axis.axhline(limit, color=ALARM, lw=0.8, ls="--")
    axis.text(2.5, limit + 0.005, f"limit {limit:g}", ha="center", fontsize=8, color=ALARM)
    axis.set_xticks(range(len(_PARTS) + 1), [*(_SHORT[part] for part in _PARTS), "core gate"])
    axis.set_ylabel("AUC of the core gate", fontsize=9)
    axis.margins(y=0.12)
    return figure


def draw_triplets(state: AuditState) -> Figure | None:
    """Control, stamp, difference and residual of a few pairs from small to large theta_E; None unpaired."""
    if state.pairs.source.kind == "unpaired":
        return None
    from arcforge.engine.pictures import Triplet, triplet_figure

    rows = _spread_rows(state)
    has_model = state.finished("model") is not None
    triplets = []
    for row in rows:
        label = f"row {state.pairs.rows[row]}"
        if np.isfinite(state.theta_e_arcsec[row]):
            label += f'\ntheta_E {state.theta_e_arcsec[row]:.2f}"'
        residual = state.added[row] - state.model[row] if has_model else None
        triplets.append(
            Triplet(state.pairs.controls[row], state.pairs.stamps[row], state.added[row], label, residual)
        )
    return triplet_figure(
        triplets,
        bands=state.pairs.bands,
        pixscale_arcsec=state.pairs.pixscale_arcsec,
        third_title="difference",
    )


def _spread_rows(state: AuditState) -> NDArray[np.int64]:
    order = np.argsort(np.nan_to_num(state.theta_e_arcsec), kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, min(_TRIPLETS, len(order))).astype(np.int64))]
