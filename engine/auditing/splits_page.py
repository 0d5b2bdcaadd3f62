"""The audit of a catalogue's splits as one self-contained HTML page: verdict and next step first."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from arcforge.engine.auditing.page import list_checks, whole_page


def write_splits_page(report: dict[str, Any], path: Path) -> Path:
    """Write the page; the file is there as a whole or not at all.

    Raises
    ------
    StoreError
        The path cannot be written.
    """
    from arcforge.engine.durable import place

    provenance = report["provenance"]
    columns = "".join(
        f"<tr><td>{escape(ours)}</td><td>{escape(theirs)}</td></tr>"
        for ours, theirs in provenance["columns"].items()
    )
    facts = (("rows", provenance["n_rows"]), ("objects", report["gate"]["n_groups"]))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    text = whole_page(
        f"{report['verdict']} - splits of {provenance['path']}",
        [
            f'<header class="{"nogo" if report["verdict"] == "NO-GO" else "open"}">',
            f'<p class="set">arcforge audit of the splits of {escape(provenance["path"])}</p>',
            f"<h1>{report['verdict']} {report['reason']}</h1>",
            f'<div class="columns"><section><h2>Why</h2><p>{escape(report["because"])}</p></section>',
            f"<section><h2>Next step</h2><p>{escape(report['next_step'])}</p></section></div>",
            f"<dl>{cells}</dl></header>",
            list_checks(report),
            f"<h2>What was audited</h2><p>{escape(provenance['scope'])}.</p>",
            f"<table><thead><tr><th>read as</th><th>column</th></tr></thead><tbody>{columns}</tbody></table>",
        ],
    )
    place(path, text.encode("utf-8"))
    return path
