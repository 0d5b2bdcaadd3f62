"""What notebooks show of a store and of an audit's report: HTML that needs nothing from outside."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arcforge.engine.store import Store

_SHOWN = 6
_TONES = {"GO": "#00695c", "GO-WITH-REMEDY": "#8a6100", "NO-GO": "#b00020", "INCONCLUSIVE": "#555"}
_STATUS = {"PASS": "#00695c", "FAIL": "#b00020", "WARN": "#8a6100"}


class Report(dict[str, Any]):
    """An audit's report: a plain dict, which notebooks show as verdict, causes, next step and checks."""

    def _repr_html_(self) -> str:
        return report_html(self)


def store_html(store: Store) -> str:
    """Return a summary of a store with a few of its stamps; no pixels of a store without rows."""
    plan = store.plan
    size = f"{store.stamp_size} x {store.stamp_size} pix of {store.pixscale_arcsec:g} arcsec"
    facts = {
        "rows": f"{len(store):,} of {plan.n_rows:,}",
        "hosts": f"{plan.n_hosts:,}",
        "stamps": f"{size}, bands {store.bands}",
        "columns": ", ".join(store.catalog.column_names) if len(store) else "",
    }
    cells = "".join(_row(name, escape(value)) for name, value in facts.items())
    return f"<b>{escape(str(store.path))}</b><table>{cells}</table>{_gallery(store)}"


def _gallery(store: Store) -> str:
    from arcforge.engine.pictures import lensed_rows
    from arcforge.engine.store_figures import gallery_figure

    if not len(store):
        return ""
    stream = io.BytesIO()
    gallery_figure(store, lensed_rows(store, _SHOWN)).savefig(stream, format="png", dpi=110)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img alt="stamps of {_SHOWN} rows" src="data:image/png;base64,{data}">'


def report_html(report: dict[str, Any]) -> str:
    """Return an audit's verdict, why, what next, and its checks."""
    tone = _TONES.get(report["verdict"], "#555")
    reason = f" {report['reason']}" if report.get("reason") else ""
    parts = [f'<b style="color:{tone};font-size:120%">{escape(report["verdict"] + reason)}</b>']
    parts += [f"<p>{escape(report['because'])}</p>"]
    for cause in report["causes"]:
        parts.append(f"<p>cause: <b>{escape(cause['name'])}</b>: {escape(cause['message'])}</p>")
    parts.append(f"<p>next: {escape(report['next_step'])}</p>")
    rows = "".join(
        f'<tr><td>{escape(check["id"])}</td><td style="color:{_STATUS.get(check["status"], "#555")}">'
        f'<b>{escape(check["status"])}</b></td><td style="text-align:left">{escape(check["title"])}: '
        f"{escape(check['message'])}</td></tr>"
        for check in report["checks"]
    )
    return (
        "".join(parts)
        + f"<details><summary>{len(report['checks'])} checks</summary><table>{rows}</table></details>"
    )


def _row(name: str, value: str) -> str:
    return f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{value}</td></tr>'
