"""Checks D0 and D2: are the data what they claim to be, before any physics is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arcforge.engine.auditing.checks import FAIL, PASS, WARN, Finding
from arcforge.engine.errors import CatalogError

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

_SPLIT_COLUMNS = ("split", "region_split")


def check_integrity(state: AuditState) -> Finding:
    """D0: every scanned stamp is readable, finite, of one shape and type; parameters can be rendered."""
    scan = state.pairs.scan
    faults = []
    if scan.problems:
        row, text = scan.problems[0]
        faults.append(f"{len(scan.problems)} unreadable pairs (row {row}: {text})")
    if scan.not_finite:
        faults.append(f"{len(scan.not_finite)} pairs with NaN or infinite pixels ({_rows(scan.not_finite)})")
    if scan.blank:
        faults.append(f"{len(scan.blank)} pairs with a band of one constant value ({_rows(scan.blank)})")
    if any(stamp != control for stamp, control in scan.dtypes):
        kinds = ", ".join(f"{stamp}/{control}" for stamp, control in sorted(scan.dtypes))
        faults.append(f"stamp and control are stored in different types ({kinds}), which labels them")
    if scan.repeated_stamps:
        row, first = scan.repeated_stamps[0]
        faults.append(f"{len(scan.repeated_stamps)} stamps occur twice (row {row} repeats row {first})")
    if scan.unequal_controls:
        faults.append(
            f"{len(scan.unequal_controls)} rows are recorded as controls, yet stamp and control differ "
            f"({_rows(scan.unequal_controls)})"
        )
    if state.has_parameters:
        try:
            state.parameters  # noqa: B018  (validates the recorded values)
        except CatalogError as error:
            faults.append(str(error))
    if faults:
        return Finding(
            FAIL, "; ".join(faults), effect=float(len(faults)), threshold=0.0, n_pairs=scan.n_scanned
        )
    return Finding(
        PASS,
        f"{scan.n_scanned} pairs read: finite, one shape, one type, no repeats",
        0.0,
        None,
        0.0,
        scan.n_scanned,
    )


def check_splits(state: AuditState) -> Finding:
    """D2: no host occurs in two splits."""
    pairs = state.pairs
    name = next((n for n in _SPLIT_COLUMNS if n in pairs.full_table.column_names), None)
    if name is None:
        return Finding(
            PASS, "the set names no splits: nothing to share", 0.0, None, 0.0, len(pairs.all_groups)
        )
    split = np.asarray(pairs.full_table.column(name).to_numpy(zero_copy_only=False), dtype=object)
    shared = _groups_in_two(pairs.all_groups, split)
    n_rows = len(pairs.all_groups)
    n_groups = len(np.unique(pairs.all_groups))
    if len(shared):
        rows = np.flatnonzero(pairs.all_groups == shared[0])
        where = ", ".join(
            f"row {r} in {split[r]}" for r in rows[np.unique(split[rows].astype(str), return_index=True)[1]]
        )
        return Finding(
            FAIL,
            f"{len(shared)} hosts occur in two splits of {name} ({where})",
            effect=float(len(shared)),
            threshold=0.0,
            n_pairs=n_rows,
            n_groups=n_groups,
        )
    n_splits = len(set(split.tolist()))
    status = PASS if n_splits > 1 else WARN
    text = (
        f"no host in two of the {n_splits} splits of {name}"
        if n_splits > 1
        else f"all rows are in one split of {name}"
    )
    return Finding(status if n_splits > 1 else PASS, text, 0.0, None, 0.0, n_rows, n_groups)


def _groups_in_two(groups: Any, split: Any) -> Any:
    codes = np.unique(split.astype(str), return_inverse=True)[1]
    pairs = np.unique(np.stack([groups, codes], axis=1), axis=0)
    values, counts = np.unique(pairs[:, 0], return_counts=True)
    return values[counts > 1]


def _rows(rows: list[int]) -> str:
    shown = ", ".join(str(row) for row in rows[:3])
    return f"row {shown}" + (", ..." if len(rows) > 3 else "")
