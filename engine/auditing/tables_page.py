"""Published tables as a picture and as a page: verdict first, then published against predicted numbers."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arcforge.engine.auditing.page import picture, whole_page
from arcforge.engine.auditing.plots import NEUTRAL, OBSERVED, make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart with any kind of colour vision; lines also differ by their dashes
_LINES = (("#0072B2", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#E69F00", (0, (5, 1, 1, 1, 1, 1))))
_SHOWN = 3


def draw_tables(report: dict[str, Any]) -> Figure:
    """Tests 3 and 4 as published, as the stated inputs predict them, and as fitting explanations do."""
    evidence = report["evidence"]
    figure, axes = make_figure(10.0, 3.9, 2)
    edges = evidence["theta_e_edges_arcsec"]
    labels = [f"{low:g}-{high:g}" for low, high in pairwise(edges)]
    _draw_numbers(axes[0], evidence, "core_share", np.arange(len(labels)), 100.0)
    axes[0].set_xticks(np.arange(len(labels)), labels)
    axes[0].set_xlabel("Einstein radius [arcsec]", fontsize=9)
    axes[0].set_ylabel("added light in the core [%]", fontsize=9)
    axes[0].set_ylim(bottom=0)
    _draw_numbers(axes[1], evidence, "profile", np.array(evidence["radius_pix"]) + 0.5, 1.0)
    axes[1].set_xlabel("distance from the stamp's centre [px]", fontsize=9)
    axes[1].set_ylabel("mean added light [of its peak]", fontsize=9)
    axes[1].set_ylim(0, 1.08)
    handles, words = axes[1].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def _draw_numbers(axis: Axes, evidence: dict[str, Any], key: str, x: Any, factor: float) -> None:
    axis.plot(
        x,
        factor * np.array(evidence["stated"][key]),
        color=NEUTRAL,
        lw=2.2,
        label="predicted from the stated inputs",
    )
    for (colour, dashes), entry in zip(_LINES, evidence["explanations"][:_SHOWN], strict=False):
        axis.plot(x, factor * np.array(entry[key]), color=colour, ls=dashes, lw=1.8, label=entry["words"])
    published = factor * np.array(evidence["published"][key])
    axis.plot(x, published, "o", ms=6, color=OBSERVED, zorder=4, label="published")


def write_tables_page(report: dict[str, Any], path: Path) -> Path:
    """Write the page; the file is there as a whole or not at all.

    Raises
    ------
    StoreError
        The path cannot be written.
    """
    from arcforge.engine.durable import place

    provenance = report["provenance"]
    reason = f" {report['reason']}" if report["reason"] else ""
    rows = "".join(
        f"<tr><td>{escape(e['name'])}</td><td>{escape(e['words'])}</td><td>{e['rms_departure']:.2f}</td>"
        f"<td>{e['status']}</td></tr>"
        for e in report["explanations"]
    )
    checks = "".join(
        f"<tr><td>{c['id']}</td><td>{escape(c['title'])}</td>"
        f'<td class="{c["status"].lower()}">{c["status"]}</td>'
        f"<td>{escape(c['message'])}</td></tr>"
        for c in report["checks"]
    )
    apart = "".join(
        f"<li><b>{escape(t['name'])}</b>: {escape(t['words'])}</li>" for t in report["tell_apart"]
    )
    text = whole_page(
        f"{report['verdict']}: {provenance['title']}",
        [
            f'<header class="{"nogo" if report["verdict"] == "NO-GO" else "open"}">',
            f'<p class="set">arcforge audit of published tables: {escape(provenance["title"])}</p>',
            f"<h1>{report['verdict']}{reason}</h1>",
            f'<div class="columns"><section><h2>Why</h2><p>{escape(report["because"])}</p></section>',
            f"<section><h2>Next step</h2><p>{escape(report['next_step'])}</p></section></div></header>",
            picture(
                draw_tables(report),
                "Published and predicted",
                f"{provenance['scope']}. Departures are in units of the error that sampling, the stated "
                f"ranges and a slack of {provenance['slack']:g} leave open.",
            ),
            "<h2>Explanations</h2><table><thead><tr><th>cause</th><th>what</th><th>departure (rms)</th>"
            f"<th>status</th></tr></thead><tbody>{rows}</tbody></table>",
            f"<h2>What pixels would show</h2><ul>{apart}</ul>" if apart else "",
            "<h2>The tests</h2><table><thead><tr><th>id</th><th>test</th><th>status</th><th>finding</th></tr>"
            f"</thead><tbody>{checks}</tbody></table>",
        ],
    )
    place(path, text.encode("utf-8"))
    return path
