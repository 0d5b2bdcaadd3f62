"""Arcs against the set's own negatives (G5): rows that ``kind`` marks as light which is no arc.

A control lacks the arc's light, so whatever sees light tells the two apart. Against negatives of the same
light, colour and place only the shape tells. Each negative is set against an arc in the same host, so that no
gate learns hosts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import PASS, SKIPPED, Finding
from arcforge.engine.auditing.gate import cell_features, core_features, run_gate
from arcforge.engine.auditing.groups import number
from arcforge.engine.auditing.parameters import is_negative_row
from arcforge.engine.auditing.resampling import HostBootstrap

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Integers = NDArray[np.int64]
Images = NDArray[np.float32]

_MOST_PAIRS = 1000  # a kind
_FEWEST_PAIRS, _FEWEST_HOSTS = 50, 10
# Fold assignments: fewer do not tell how fits vary, which the intervals count
_REPEATS = 3


def check_own_negatives(state: AuditState) -> Finding:
    """G5: how well arcs are told from each kind of negative, by the core and by the whole window."""
    table = state.pairs.full_table
    negative = is_negative_row(table)
    if not negative.any():
        return Finding(SKIPPED, "the set marks no rows as negatives (column kind)")
    kinds = np.asarray(table.column("kind").to_numpy(zero_copy_only=False), dtype=object)
    found, few = [], []
    for kind in sorted(set(kinds[negative])):
        measured = _against(state, str(kind), np.flatnonzero(negative & (kinds == kind)))
        if measured is None:
            few.append(str(kind))
        else:
            found.append(measured)
    state.evidence["G5"] = found
    texts = [
        f"{each['kind']} {each['core']['auc']:.3f} by the core, {each['window']['auc']:.3f} by the window"
        for each in found
    ]
    if few:
        texts.append(f"too few of {', '.join(few)} in hosts that have arcs too")
    if not found:
        return Finding(SKIPPED, "; ".join(texts))
    hardest = min(found, key=lambda each: each["core"]["auc"])
    low, high = hardest["core"]["ci95"]
    return Finding(PASS, f"AUC of arcs against {'; '.join(texts)}", hardest["core"]["auc"], (low, high), None)


def _against(state: AuditState, kind: str, rows: Integers) -> dict[str, Any] | None:
    """Gates between negatives of one kind and arcs in the same hosts; None where too few are there."""
    rng = state.rng(f"negatives {kind}")
    hosts, arc_hosts = state.pairs.all_groups[rows], state.pairs.all_groups[state.pairs.rows]
    rows = rows[np.isin(hosts, arc_hosts)]
    if len(rows) > _MOST_PAIRS:
        rows = np.sort(rng.choice(rows, _MOST_PAIRS, replace=False))
    hosts = state.pairs.all_groups[rows]
    if len(rows) < _FEWEST_PAIRS or len(np.unique(hosts)) < _FEWEST_HOSTS:
        return None
    limits = state.thresholds
    batches = state.pairs.source.batches(rows, limits.count("sample.batch_pairs"))
    read = [(batch.rows, batch.stamps) for batch in batches]
    if sum(len(some) for some, _ in read) < len(rows):
        return None  # some could not be decoded
    negatives = np.concatenate([stamps for _, stamps in read])
    order = np.argsort(arc_hosts, kind="stable")
    first, last = (np.searchsorted(arc_hosts[order], hosts, side=side) for side in ("left", "right"))
    arcs = state.pairs.stamps[order[first + (rng.random(len(rows)) * (last - first)).astype(np.int64)]]
    bootstrap = HostBootstrap(number(hosts), limits.count("gate.bootstraps"), rng)
    out: dict[str, Any] = {"kind": kind, "n_pairs": len(rows), "n_hosts": bootstrap.n_groups}
    for name in ("core", "window"):
        features = [_features(state, images, name) for images in (arcs, negatives)]
        gate = run_gate(features[0], features[1], bootstrap, limits, rng, repeats=_REPEATS)
        out[name] = {"auc": gate.auc.value, "ci95": list(gate.auc.ci95)}
    return out


def _features(state: AuditState, images: Images, which: str) -> NDArray[np.float64]:
    limits = state.thresholds
    if which == "core":
        return core_features(images, limits.count("gate.box_pix"))
    everywhere = np.ones(images.shape[2:], dtype=np.bool_)
    return cell_features(images, everywhere, limits.count("gate.window_pix"), limits.count("gate.cell_pix"))
