"""The audit of a catalogue's splits as one self-contained HTML page: verdict and next step first."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from arcforge.engine.auditing.page import list_checks


def write_splits_page(report: dict[str, Any], path: Path) -> Path:
    """Write the page; the file is there as a whole or not at all.

    Raises
    ------
    StoreError
        The path cannot be written.
    """
    from arcforge.engine.durable import place

    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    provenance = report["provenance"]
    columns = "".join(
        f"<tr><td>{escape(ours)}</td><td>{escape(theirs)}</td></tr>"
        for ours, theirs in provenance["columns"].items()
    )
    facts = (("rows", provenance["n_rows"]), ("objects", report["gate"]["n_groups"]))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    text = "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{report['verdict']} - splits of {escape(provenance['path'])}</title>",
            f"<style>{style}</style></head><body><main>",
            f'<header class="{"nogo" if report["verdict"] == "NO-GO" else "open"}">',
            f'<p class="set">arcforge audit of the splits of {escape(provenance["path"])}</p>',
            f"<h1>{report['verdict']} {report['reason']}</h1>",
            f'<div class="columns"><section><h2>Why</h2><p>{escape(report["because"])}</p></section>',
            f"<section><h2>Next step</h2><p>{escape(report['next_step'])}</p></section></div>",
            f"<dl>{cells}</dl></header>",
            list_checks(report),
            f"<h2>What was audited</h2><p>{escape(provenance['scope'])}.</p>",
            f"<table><thead><tr><th>read as</th><th>column</th></tr></thead><tbody>{columns}</tbody></table>",
            "</main></body></html>",
        ]
    )
    place(path, text.encode("utf-8"))
    return path
