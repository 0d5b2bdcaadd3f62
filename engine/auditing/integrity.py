"""Checks D0 and D2: are the data what they claim to be, before any physics is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import FAIL, PASS, WARN, Finding, row_words
from arcforge.engine.auditing.groups import in_two, near_other_split, number_known
from arcforge.engine.auditing.parameters import column
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
        faults.append(
            f"{len(scan.not_finite)} pairs with NaN or infinite pixels ({row_words(scan.not_finite)})"
        )
    if scan.blank:
        faults.append(f"{len(scan.blank)} pairs with a band of one constant value ({row_words(scan.blank)})")
    if any(stamp != control for stamp, control in scan.dtypes):
        kinds = ", ".join(f"{stamp}/{control}" for stamp, control in sorted(scan.dtypes))
        faults.append(f"stamp and control are stored in different types ({kinds}), which labels them")
    if scan.repeated_stamps:
        row, first = scan.repeated_stamps[0]
        faults.append(f"{len(scan.repeated_stamps)} stamps occur twice (row {row} repeats row {first})")
    if scan.unequal_controls:
        faults.append(
            f"{len(scan.unequal_controls)} rows are recorded as controls, yet stamp and control differ "
            f"({row_words(scan.unequal_controls)})"
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
    if scan.clipped:
        text = (
            f"{len(scan.clipped)} of {scan.n_scanned} pairs have a band of which many pixels are one value, "
            f"its lowest, its highest or zero ({row_words(scan.clipped)}): cut off, or filled"
        )
        return Finding(WARN, text, float(len(scan.clipped)), None, 0.0, scan.n_scanned)
    return Finding(
        PASS,
        f"{scan.n_scanned} pairs read: finite, one shape, one type, no repeats",
        0.0,
        None,
        0.0,
        scan.n_scanned,
    )


def check_splits(state: AuditState) -> Finding:
    """D2: no host and no source occurs in two splits; shared sky is told."""
    pairs = state.pairs
    n_rows = len(pairs.objects)
    name = next((n for n in _SPLIT_COLUMNS if n in pairs.full_table.column_names), None)
    if name is None:
        return Finding(PASS, "the set names no splits: nothing to share", 0.0, None, 0.0, n_rows)
    split = np.asarray(pairs.full_table.column(name).to_numpy(zero_copy_only=False), dtype=object)
    codes = number_known(split)
    n_splits = int(codes.max()) + 1
    if n_splits < 2:
        return Finding(PASS, f"all rows are in one split of {name}", 0.0, None, 0.0, n_rows)
    hosts, example = in_two(pairs.objects, codes)
    sources, same = in_two(pairs.sources, codes)
    n_sources = len(np.unique(pairs.sources[pairs.sources >= 0]))
    # a small bank that every split draws from is a choice, a source or two in both is a slip
    common = sources > n_sources / 2
    parts = [
        f"{hosts} hosts occur in two splits of {name}{_where(pairs.objects, example, split)}"
        if hosts
        else f"no host in two of the {n_splits} splits of {name}"
    ]
    if n_sources:
        text = f"{sources} of {n_sources} sources occur in two splits{_where(pairs.sources, same, split)}"
        advice = ": every split draws from one bank, so a test set cannot tell whether sources were learnt"
        parts.append(text + advice * common)
    parts += _shared_sky(state, codes)
    status = FAIL if hosts or (sources and not common) else WARN if sources else PASS
    n_groups = len(np.unique(pairs.objects))
    return Finding(status, "; ".join(parts), float(hosts + sources), None, 0.0, n_rows, n_groups)


def _where(groups: NDArray[np.int64], example: int | None, split: NDArray[Any]) -> str:
    """Name a row of each split that one group occurs in."""
    if example is None:
        return ""
    rows = np.flatnonzero((groups == example) & (split != None))  # noqa: E711  (of each element)
    first = np.sort(np.unique(split[rows].astype(str), return_index=True)[1])
    return " ({})".format(", ".join(f"row {r} in {split[r]}" for r in rows[first][:3]))


def _shared_sky(state: AuditState, codes: NDArray[np.int64]) -> list[str]:
    """Tell how many rows lie within one stamp of another split, where positions are recorded."""
    table = state.pairs.full_table
    if not {"ra", "dec"} <= set(table.column_names):
        return []
    width = state.pairs.stamps.shape[-1] * state.pairs.pixscale_arcsec
    near = near_other_split(column(table, "ra"), column(table, "dec"), codes, width)
    return [f'{near} rows lie within a stamp ({width:.1f}") of another split: they share sky'] if near else []
