"""The report as one self-contained HTML page: verdict, cause and next step first, then the pictures, then the
rest.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcforge.engine.auditing import plots
from arcforge.engine.auditing.causes import NEXT_STEP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from arcforge.engine.auditing.run import AuditResult

_TONE = {"GO": "go", "GO-WITH-REMEDY": "remedy", "NO-GO": "nogo", "INCONCLUSIVE": "open"}
_REASONS = {
    "DATA": "the data set itself is faulty",
    "BUG": "a named fault",
    "UNMODELLED": "the pixels do not follow from the record",
    "SHORTCUT": "a physical cue without a remedy",
    "AUDIT": "the audit is incomplete",
    "POWER": "too few pairs or hosts to decide",
    "NO_METADATA": "parameters are not recorded",
}


def write_page(result: AuditResult, path: Path) -> Path:
    """Write the page; the file is there as a whole or not at all.

    Raises
    ------
    StoreError
        The path cannot be written.
    """
    from arcforge.engine.durable import place

    place(path, render_page(result).encode("utf-8"))
    return path


def render_page(result: AuditResult) -> str:
    """Return the page as HTML without any outside reference."""
    report = result.report
    diagnosis = result.state.finished("diagnosis")
    tolerances = {name: n.tolerance for name, n in diagnosis.nuisance.items()} if diagnosis else {}
    sections = [
        picture(
            plots.draw_profiles(report),
            "Radial profile of the added light (Test 4)",
            "Where the observed points leave the predicted line, the pixels were not made from the record.",
        ),
        picture(
            plots.draw_triplets(result.state),
            "Examples from small to large Einstein radius",
            "Difference is stamp minus control; residual is what the recorded parameters leave of it. Its "
            "colours span at least 1 % of the arc's peak: what shows there is a disagreement.",
            narrow=True,
        ),
        '<div class="pair">',
        picture(
            plots.draw_core_share(report),
            "Arc light in the core (Test 3)",
            "Bars: 95 % over hosts.",
        ),
        picture(
            plots.draw_mask_sweep(report),
            "AUC by mask radius",
            "What a classifier can still tell when the core is hidden from it, alike in stamp and control.",
        ),
        "</div>",
        picture(
            plots.draw_nuisance(report, tolerances),
            "Fitted parameters",
            "Each is 1 (scales) or 0 (the others) where pixels and record agree.",
        ),
        '<div class="pair">',
        picture(
            plots.draw_attribution(report),
            "Where the core's light comes from",
            "A negative share takes light out of the core: the PSF does so where the arc lies inside it.",
        ),
        picture(
            plots.draw_budget(report),
            "What makes the core gate's AUC",
            "Light and AUC are not proportional: a little light in a quiet core tells much.",
        ),
        "</div>",
    ]
    title = f"{report['verdict']} - audit of {report['provenance']['path']}"
    parts = [_head(report), *sections, list_checks(report), _remedies(report), _provenance(report)]
    return whole_page(title, parts)


def whole_page(title: str, parts: Sequence[str]) -> str:
    """Return a self-contained page of these parts."""
    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body><main>",
            *parts,
            "</main></body></html>",
        ]
    )


def _head(report: dict[str, Any]) -> str:
    provenance, gate = report["provenance"], report["gate"]
    reason = f" {report['reason']}" if report["reason"] else ""
    words = f'<span class="words">{_REASONS[report["reason"]]}</span>' if report["reason"] else ""
    causes = "".join(
        f"<li><b>{escape(c['name'])}</b>{_size(c)}: {escape(_without_step(c))}</li>" for c in report["causes"]
    )
    cause = f"<ul>{causes}</ul>" if causes else f"<p>{escape(report['because'])}</p>"
    facts = [
        ("core AUC", _interval(gate["auc"], gate["ci95"], 3)),
        ("within pairs", _number(gate["within_pair_auc"], 3)),
        ("unexplained core light", _percent(report["attribution"]["unexplained"])),
        ("pairs, hosts", f"{gate['n_pairs']}, {gate['n_groups']}"),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    heading = "Cause" if report["causes"] else "Why"
    return (
        f'<header class="{_TONE[report["verdict"]]}">'
        f'<p class="set">arcforge audit of {escape(provenance["path"])}</p>'
        f"<h1>{report['verdict']}{reason} {words}</h1>"
        f'<div class="columns"><section><h2>{heading}</h2>{cause}</section>'
        f"<section><h2>Next step</h2><p>{escape(report['next_step'])}</p></section></div>"
        f"<dl>{cells}</dl></header>"
    )


def _without_step(cause: dict[str, Any]) -> str:
    return str(cause["message"].split(f"; {NEXT_STEP[cause['name']]}")[0])


def _size(cause: dict[str, Any]) -> str:
    if cause["estimate"] is None:
        return ""
    low, high = cause["ci95"]
    return (
        f" = {cause['estimate']:.4g}{_unit(cause['unit'])} (95 %: {low:.4g} to {high:.4g}; "
        f"should be {cause['nominal']:g})"
    )


def _unit(unit: str) -> str:
    return "" if unit == "ratio" else f" {escape(unit)}"


def _number(value: float | None, digits: int) -> str:
    return "no result" if value is None else f"{value:.{digits}f}"


def _interval(value: float | None, ci95: list[float] | None, digits: int) -> str:
    if value is None or ci95 is None:
        return "no result"
    return f"{value:.{digits}f} <small>({ci95[0]:.{digits}f} to {ci95[1]:.{digits}f})</small>"


def _percent(part: dict[str, Any]) -> str:
    if part["share"] is None:
        return "no result"
    low, high = part["ci95"]
    return f"{100 * part['share']:.2f} % <small>({100 * low:.2f} to {100 * high:.2f})</small>"


def picture(figure: Figure | None, title: str, caption: str, narrow: bool = False) -> str:
    """Return a figure as HTML, its PNG inside."""
    if figure is None:
        return f"<figure><h2>{escape(title)}</h2><p>not measured: see the checks below</p></figure>"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    kind = ' class="narrow"' if narrow else ""
    return (
        f"<figure{kind}><h2>{escape(title)}</h2>"
        f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def list_checks(report: dict[str, Any]) -> str:
    """Return every check with its finding as an HTML table."""
    rows = "".join(
        f"<tr><td>{c['id']}</td>"
        f"<td>{escape(c['title'])}{'' if c['required'] else ' <i>(informative)</i>'}</td>"
        f'<td class="{c["status"].lower()}">{c["status"]}</td><td>{escape(c["message"])}</td></tr>'
        for c in report["checks"]
    )
    return (
        "<h2>Checks</h2><table><thead><tr><th>id</th><th>check</th><th>status</th><th>finding</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _remedies(report: dict[str, Any]) -> str:
    if not report["remedies"]:
        return ""
    rows = "".join(
        f"<tr><td>{escape(r['name'])}{' (recommended)' if r['recommended'] else ''}</td>"
        f"<td>{_interval(r['auc_core'], r['ci95'], 3)}</td>"
        f"<td>{_interval(r['auc_ring'], r['ring_ci95'], 3)}</td>"
        f"<td>{_kept(r['retained_by_theta_e'])}</td></tr>"
        for r in report["remedies"]
    )
    return (
        "<h2>Remedies, on hosts they were not tuned on</h2><table><thead><tr><th>remedy</th><th>core AUC</th>"
        f"<th>AUC outside the core</th><th>pairs kept by theta_E</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _kept(shares: dict[str, float]) -> str:
    return ", ".join(f"{escape(label)} {100 * share:.0f} %" for label, share in shares.items())


def _provenance(report: dict[str, Any]) -> str:
    provenance = report["provenance"]
    notes = "".join(f"<li>{escape(note)}</li>" for note in provenance["notes"])
    limits = "".join(
        f"<tr><td>{escape(name)}</td><td>{entry['value']:g}</td><td>{escape(entry['why'])}</td></tr>"
        for name, entry in provenance["thresholds"].items()
    )
    software = ", ".join(f"{k} {v}" for k, v in provenance["software"].items())
    return (
        f"<h2>What was audited</h2><p>{escape(provenance['scope'])}</p><p>{provenance['n_rows']} rows, "
        f"{provenance['n_scanned']} read, {provenance['n_pairs']} pairs of {provenance['n_hosts']} hosts, "
        f"bands {escape(provenance['bands'])}, {provenance['pixscale_arcsec']:g} arcsec a pixel, seed "
        f"{provenance['seed']}; {escape(software)}.</p><ul>{notes}</ul>"
        "<details><summary>Thresholds and their reasons</summary>"
        f"<table><tbody>{limits}</tbody></table></details>"
    )
