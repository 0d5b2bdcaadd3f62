"""The report on published tables: predicted and published numbers, explanations, and what would tell them
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arcforge.engine.auditing.checks import FAIL, PASS, WARN, Finding
from arcforge.engine.auditing.explanations import FITS, Explanation, explain
from arcforge.engine.auditing.tables import Tables, read_tables
from arcforge.engine.auditing.tables_model import TablesModel

_ROWS = 420
_NEXT = (
    "audit the pixels (stamp, control and recorded parameters of a few hundred rows): the residual tells "
    "these explanations apart; record render path, PSF width and source of every row"
)
# What pixels would show of each cause, where the tables show the same
_SHOWS = {
    "psf_width": (
        "every structure of an arc is smoothed alike, along and across it, in each band by that band's PSF"
    ),
    "source_size": (
        "arcs grow with the source and keep the PSF's own sharpness: counter-images and edges stay narrow"
    ),
    "source_offset": "images are few and sharp, the second one close to the centre, and rings are missing",
    "theta_e_scale": "images lie farther out or in by the same factor in every band",
    "kernel_offset": "every arc is moved by the same vector",
    "pedestal": "far from the arc, stamp minus control is a constant",
}


def audit_tables(
    path: Path | str, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Say what stated inputs predict for published numbers, and which explanations fit those.

    Parameters
    ----------
    path : path
        A TOML file: ``[frame]``, ``[inputs]``, ``[test1]`` to ``[test4]``.
    seed : int
        Of the rows drawn from the stated inputs.
    progress : callable, optional
        Called with (done, total) explanations.

    Returns
    -------
    dict
        A report of the schema of :func:`arcforge.engine.audit` without gate, attribution and nuisance, and
        with ``explanations`` (best first), ``degenerate`` (those that fit), ``tell_apart`` and ``evidence``
        (published and predicted numbers). The verdict is never GO and never "physics": tables cannot certify.

    Raises
    ------
    AuditInputError
        The file is unreadable or incomplete.
    """
    tables = read_tables(path)
    stated, *others = explain(tables, TablesModel(tables, _ROWS, seed), progress)
    fitting = _distinct([e for e in others if e.status == FITS])
    checks = _checks(tables, stated, others)
    if stated.status == FITS:
        verdict, reason = "INCONCLUSIVE", "NO_METADATA"
        because = (
            "the stated inputs give these numbers, and so may others: "
            "summary tables cannot tell a bug from physics"
        )
        causes = []
    else:
        verdict, reason = "NO-GO", "UNMODELLED"
        because = _because(tables, stated, fitting)
        causes = [
            {
                "name": "provenance",
                "estimate": None,
                "ci95": None,
                "nominal": None,
                "unit": "",
                "message": because,
            }
        ]
    empty = dict.fromkeys(("auc", "ci95", "within_pair_auc", "p_permutation", "mde", "threshold"))
    return {
        "schema": "arcforge.audit/1",
        "verdict": verdict,
        "reason": reason,
        "because": because,
        "next_step": _NEXT,
        "causes": causes,
        "explanations": [_entry(e) for e in (stated, *others)],
        "degenerate": [_entry(e) for e in fitting],
        "tell_apart": _tell_apart(fitting),
        "gate": empty | {"n_pairs": 0, "n_groups": 0},
        "attribution": {},
        "checks": checks,
        "remedies": [],
        "nuisance": {},
        "provenance": _provenance(tables, path, seed),
        "evidence": _evidence(tables, stated, fitting),
    }


def _distinct(fitting: Sequence[Explanation]) -> list[Explanation]:
    """The best explanation of each cause."""
    best: dict[str, Explanation] = {}
    for explanation in fitting:
        best.setdefault(explanation.idea.name, explanation)
    return list(best.values())


def _because(tables: Tables, stated: Explanation, fitting: Sequence[Explanation]) -> str:
    ring = int(np.argmax(np.abs(stated.departures[len(tables.core_share) :][: len(tables.profile)])))
    text = (
        f"the stated inputs do not give these numbers: at r = {tables.radius_pix[ring]:g} px they put "
        f"{stated.prediction.profile[ring]:.2f} of the profile's peak, the tables {tables.profile[ring]:.2f}"
    )
    words = [e.words for e in fitting]
    if len(fitting) > 1:
        return f"{text}; any of these would, and tables cannot tell them apart: {', or '.join(words)}"
    if fitting:
        return f"{text}; {words[0]} would"
    return f"{text}; none of the departures that were tried does"


def _entry(e: Explanation) -> dict[str, Any]:
    return {
        "name": e.idea.name,
        "words": e.words,
        "values": list(e.values),
        "rms_departure": e.rms,
        "largest_departure": float(e.departures[int(np.argmax(np.abs(e.departures)))]),
        "status": e.status,
    }


def _tell_apart(fitting: Sequence[Explanation]) -> list[dict[str, Any]]:
    """What pixels would show of each fitting explanation, with a number that differs."""
    return [
        {
            "name": e.idea.name,
            "words": _SHOWS[e.idea.name],
            "brightest_pixel_of_total": e.prediction.sharpness,
            "relative_slope_theta_e": e.prediction.slopes["theta_e"],
        }
        for e in fitting
    ]


def _checks(tables: Tables, stated: Explanation, others: Sequence[Explanation]) -> list[dict[str, Any]]:
    """The four tests: published and predicted, and what each can exclude."""
    n = len(tables.core_share)
    p = stated.prediction
    share, profile = stated.departures[:n], stated.departures[n : n + len(tables.profile)]
    outer = tables.outer_over_core
    found = []
    if outer is not None:
        wings = [e.prediction.outer_over_core for e in others if e.status == FITS]
        text = (
            f"outer annulus over core {outer:.1e} published, {p.outer_over_core:.1e} from the stated inputs"
            + (f", {min(wings):.1e} to {max(wings):.1e} from explanations that fit" if wings else "")
            + ": it excludes a constant added to the stamp, nothing else: every other fault follows the arc"
        )
        found.append(_check("P1", "Test 1: outer annulus", PASS, text, outer, p.outer_over_core))
    slopes = _published_slopes(tables)
    if slopes:
        shown = ", ".join(
            f"{name} {value:+.2f} published, {p.slopes[name]:+.2f} predicted"
            for name, value in slopes.items()
        )
        text = f"slope over mean core light: {shown}: a fault of the rendering scales with the arc as well"
        found.append(_check("P2", "Test 2: regression of core light", WARN, text, None, None))
    shown = ", ".join(f"{a:.2f} / {b:.2f}" for a, b in zip(tables.core_share, p.core_share, strict=True))
    text = f"core share, published / from the stated inputs: {shown}"
    worst = float(np.max(np.abs(share)))
    found.append(_check("P3", "Test 3: core share by theta_E", FAIL if worst > 3 else PASS, text, worst, 3.0))
    text = (
        f"innermost ring over peak {tables.profile[0]:.2f} published, {p.profile[0]:.2f} from the stated "
        f"inputs; outermost {tables.profile[-1]:.2f} and {p.profile[-1]:.2f}"
    )
    worst = float(np.max(np.abs(profile)))
    found.append(_check("P4", "Test 4: radial profile", FAIL if worst > 3 else PASS, text, worst, 3.0))
    return found


def _published_slopes(tables: Tables) -> dict[str, float]:
    """Slopes of Test 2 over the mean core light of Test 1, which no unit of flux changes."""
    core = tables.tests.get("test1", {}).get("core_mean_nmgy")
    slope = tables.tests.get("test2", {}).get("slope_theta_e")
    return {"theta_e": slope / core} if core and slope is not None else {}


def _check(
    id_: str, title: str, status: str, message: str, effect: float | None, threshold: float | None
) -> dict[str, Any]:
    finding = Finding(status, message, effect, threshold=threshold)
    return finding.entry(id_, title, required=True, n_pairs=0, n_groups=0)


def _provenance(tables: Tables, path: Path | str, seed: int) -> dict[str, Any]:
    return {
        "path": Path(path).name,
        "kind": "tables",
        "title": tables.title,
        "source": tables.source,
        "inputs": tables.inputs,
        "frame": tables.frame,
        "slack": tables.slack,
        "seed": seed,
        "n_rows": _ROWS,
        "scope": "inference from summary numbers under stated priors: no pixel was seen",
    }


def _evidence(tables: Tables, stated: Explanation, fitting: Sequence[Explanation]) -> dict[str, Any]:
    def numbers(e: Explanation) -> dict[str, Any]:
        p = e.prediction
        return {
            "words": e.words,
            "core_share": p.core_share.tolist(),
            "profile": p.profile.tolist(),
            "outer_over_core": p.outer_over_core,
            "relative_slope_theta_e": p.slopes["theta_e"],
            "light_outside_core": p.visible.tolist(),
        }

    return {
        "theta_e_edges_arcsec": tables.edges_arcsec.tolist(),
        "radius_pix": tables.radius_pix.tolist(),
        "published": {"core_share": tables.core_share.tolist(), "profile": tables.profile.tolist()},
        "stated": numbers(stated),
        "explanations": [numbers(e) for e in fitting],
    }
