"""A published case, answered: is a core that gives the label away a bug, the PSF, or the size of the sources?

    python -m arcforge.bench.core_leakage --out core_leakage

Takes the case's four tests as tables (``core_leakage.toml``), predicts them from the inputs that were stated
with them, fits what may differ, and answers its four questions from the numbers found. Writes the report, the
answers and a picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcforge.engine.auditing.tables_page import draw_tables
from arcforge.engine.auditing.tables_report import audit_tables

CASE = Path(__file__).with_name("core_leakage.toml")


def answer(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the case's questions, each with its answer in the report's numbers."""
    evidence = report["evidence"]
    published, stated, fitting = (evidence[k] for k in ("published", "stated", "explanations"))
    wings = [e["outer_over_core"] for e in fitting]
    excluded = [e["words"] for e in report["explanations"] if e["status"] == "excluded"]
    fits = " or ".join(f"{e['words']} ({e['name']})" for e in report["degenerate"])
    edges = evidence["theta_e_edges_arcsec"]
    small, large = stated["light_outside_core"][0], stated["light_outside_core"][-1]
    return [
        (
            "Does the near-zero annulus rule out a mismatch, and the flat profile show an extended source?",
            f"No. The annulus excludes a constant only: every explanation that fits leaves "
            f"{min(wings):.1e} to {max(wings):.1e} of the core's light there. The flat profile is not what "
            f"the stated sources give: {stated['profile'][0]:.2f} of the peak in the centre, where "
            f"{published['profile'][0]:.2f} was measured, and {stated['profile'][-1]:.2f} at "
            f"{evidence['radius_pix'][-1]:g} px, where {published['profile'][-1]:.2f} was. "
            f"What fits: {fits}. Excluded: {'; '.join(excluded)}.",
        ),
        (
            "Is the injection's physics correct, and the source too extended?",
            "The formula is (but for the Einstein radius of an ellipse, which lacks sqrt(q)); the pixels "
            "were not made from the stated inputs, or not by the code that was shown. Whether the PSF or the "
            "source is too wide, summary tables cannot tell; the residual of a few hundred rows can. "
            + " ".join(f"{t['name']}: {t['words']}." for t in report["tell_apart"]),
        ),
        (
            "Proceed with a three-channel input?",
            "Not with these pixels, whatever the input. Later: never the control as a channel, as no control "
            "exists on the sky and the difference is the label; as a paired hard negative, yes.",
        ),
        (
            "Point sources, a core mask, or more morphologies?",
            f"First the cause. Then, of what the stated inputs give, a mask of r < 5 px leaves "
            f"{100 * small:.0f} % of the light below {edges[1]:g} arcsec and {100 * large:.0f} % above "
            f"{edges[-2]:g}: it suits resolved lenses only, and needs a cut on the light that is left. "
            "Diverse sources and the PSF of each cutout are worth having in any case; point sources are not "
            "what the sky holds.",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tables", type=Path, default=CASE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    report = audit_tables(options.tables, seed=options.seed)
    (options.out / "report.json").write_text(json.dumps(report, indent=1))
    draw_tables(report).savefig(options.out / "core_leakage.png", dpi=110)
    lines = [f"{report['verdict']} {report['reason']}: {report['because']}.", ""]
    lines += [
        f"- {e['status']}, departs by {e['rms_departure']:.2f}: {e['words']}" for e in report["explanations"]
    ]
    for question, text in answer(report):
        lines += ["", f"**{question}** {text}"]
    (options.out / "answers.md").write_text("\n".join(lines) + "\n")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
