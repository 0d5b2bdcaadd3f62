"""Audit of a catalogue alone: do its splits share objects, sky or sources, and is every object one label?

Positions, labels and splits say whether a training set leaks into its test set, whatever the pixels hold. For
millions of rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.checks import Finding
from arcforge.engine.auditing.groups import (
    in_two,
    join_groups,
    near_other_split,
    number_known,
    number_sources,
    same_sky,
)
from arcforge.engine.auditing.thresholds import Thresholds
from arcforge.engine.errors import AuditInputError

if TYPE_CHECKING:
    import pyarrow as pa

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Names under which surveys and teams keep the same thing, tried in this order, whatever their case
_ALIASES = {
    "ra": ("ra", "ra_deg", "target_ra", "raj2000"),
    "dec": ("dec", "dec_deg", "target_dec", "dej2000"),
    "split": ("split", "region_split", "fold", "set"),
    "label": ("label", "is_lens", "target"),
    "host_id": ("host_id", "host_index", "targetid", "objid"),
    "source_id": ("source_id", "cosmos_index"),
}


@dataclass(frozen=True)
class Catalogue:
    """Columns of a catalogue that splits are judged by; None where it has none."""

    n_rows: int
    columns: dict[str, str]  #: our name to the catalogue's
    ra_deg: Floats | None
    dec_deg: Floats | None
    split: Integers | None
    split_names: list[str]
    label: Integers | None
    host: Integers | None
    source: Integers | None


def read_split_columns(table: pa.Table, mapping: Mapping[str, str] | None = None) -> Catalogue:
    """Find positions, splits, labels and ids among a table's columns.

    Parameters
    ----------
    table : pyarrow.Table
    mapping : mapping of str to str, optional
        Our name (ra, dec, split, label, host_id, source_id) to the table's.

    Raises
    ------
    AuditInputError
        Nothing tells objects apart, or a mapped column is absent.
    """
    found = _find(table, mapping or {})
    if not {"host_id", "ra"} & set(found) or ("ra" in found) != ("dec" in found):
        raise AuditInputError(
            "the catalogue has neither positions (ra and dec) nor host_id: name them with --map"
        )

    from arcforge.engine.catalog_files import numbers_of

    def of(name: str) -> Any:
        return table.column(found[name]).to_numpy(zero_copy_only=False) if name in found else None

    split, names = None, []
    if "split" in found:
        codes = table.column(found["split"]).combine_chunks().dictionary_encode()
        names = [str(v) for v in codes.dictionary.to_pylist()]
        split = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    label = table.column(found["label"]).combine_chunks().dictionary_encode() if "label" in found else None
    return Catalogue(
        n_rows=table.num_rows,
        columns=found,
        ra_deg=None if "ra" not in found else numbers_of(table, found["ra"], "the catalogue"),
        dec_deg=None if "ra" not in found else numbers_of(table, found["dec"], "the catalogue"),
        split=split,
        split_names=names,
        label=None if label is None else label.indices.fill_null(-1).to_numpy(zero_copy_only=False),
        host=number_known(of("host_id")) if "host_id" in found else None,
        source=number_sources(of("source_id")) if "source_id" in found else None,
    )


def _find(table: pa.Table, mapping: Mapping[str, str]) -> dict[str, str]:
    lower = {name.lower(): name for name in reversed(table.column_names)}
    found = {}
    for name, aliases in _ALIASES.items():
        if name in mapping:
            if mapping[name] not in table.column_names:
                raise AuditInputError(f"column {mapping[name]!r}, mapped to {name}, is not in the catalogue")
            found[name] = mapping[name]
            continue
        hit = next((lower[alias] for alias in aliases if alias in lower), None)
        if hit is not None:
            found[name] = hit
    return found


def audit_catalogue(
    path: Path | str,
    *,
    mapping: Mapping[str, str] | None = None,
    thresholds: Path | str | None = None,
) -> dict[str, Any]:
    """Audit splits and labels of a catalogue without pixels.

    Parameters
    ----------
    path : path
        Parquet, CSV, ECSV or FITS table with positions (``ra``, ``dec`` in degrees) or ``host_id``;
        ``split``, ``label`` and ``source_id`` where it has them.
    mapping : mapping of str to str, optional
        Our name to the catalogue's.
    thresholds : path, optional
        TOML file that replaces default thresholds.

    Returns
    -------
    dict
        A report of the schema of :func:`arcforge.engine.audit`. NO-GO DATA where splits share an object or an
        object has two labels; else INCONCLUSIVE NO_METADATA, as nothing is known of the pixels.
    """
    from arcforge.engine.catalog_files import read_catalog

    start = time.perf_counter()
    limits = Thresholds(thresholds)
    catalogue = read_split_columns(read_catalog(path), mapping)
    groups = group_objects(catalogue, limits["data.same_object_arcsec"])
    checks = [
        _check_positions(catalogue),
        _check_splits(catalogue, groups, limits["data.same_sky_arcsec"]),
        _check_labels(catalogue, groups),
    ]
    failed = [c for c in checks if c["status"] == "FAIL"]
    if failed:
        verdict, reason = "NO-GO", "DATA"
        because = "; ".join(c["message"] for c in failed)
        step = "move every object, and all that share its sky or source, to one split; give it one label"
    else:
        verdict, reason = "INCONCLUSIVE", "NO_METADATA"
        named = zip(("splits", "labels"), checks[1:], strict=True)
        clean = [name for name, check in named if check["status"] == "PASS"]
        said = (
            f"{' and '.join(clean)} are clean" if clean else "the catalogue names neither splits nor labels"
        )
        because = f"{said}; without pixels nothing else can be told"
        step = "audit the pixels: arcforge audit STORE_OR_PARQUET"
    empty = dict.fromkeys(("auc", "ci95", "within_pair_auc", "p_permutation", "mde", "threshold"))
    return {
        "schema": "arcforge.audit/1",
        "verdict": verdict,
        "reason": reason,
        "because": because,
        "next_step": step,
        "causes": [],
        "gate": empty | {"n_pairs": 0, "n_groups": int(groups.max()) + 1},
        "attribution": {},
        "checks": checks,
        "remedies": [],
        "nuisance": {},
        "provenance": {
            "path": Path(path).name,
            "kind": "catalogue",
            "columns": catalogue.columns,
            "n_rows": catalogue.n_rows,
            "seconds": round(time.perf_counter() - start, 2),
            "scope": "splits and labels only: no pixel was seen",
        },
        "evidence": {},
    }


def is_catalogue(path_or_store: Any, mapping: Mapping[str, str] | None = None) -> bool:
    """Whether a path is a table that holds no pixels but tells objects apart."""
    if not isinstance(path_or_store, str | Path) or "://" in str(path_or_store):
        return False
    path = Path(path_or_store)
    name = path.name.lower().removesuffix(".gz")
    if not path.is_file():
        return False
    if name.endswith((".csv", ".ecsv", ".fits", ".fit")):
        return True
    if not name.endswith((".parquet", ".pq")):
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    if any(pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type) for f in schema):
        return False
    known = {alias for name in ("ra", "host_id", "split") for alias in _ALIASES[name]}
    return bool({f.name.lower() for f in schema} & known) or bool(mapping)


def group_objects(catalogue: Catalogue, radius_arcsec: float) -> Integers:
    """Object number of every row: same host id, or closer on the sky than a radius."""
    keys = [] if catalogue.host is None else [catalogue.host]
    if catalogue.ra_deg is not None and catalogue.dec_deg is not None:
        keys.append(same_sky(catalogue.ra_deg, catalogue.dec_deg, radius_arcsec))
    return join_groups(catalogue.n_rows, keys)


def _check_positions(c: Catalogue) -> dict[str, Any]:
    title = "Integrity: positions on the sky"
    if c.ra_deg is None or c.dec_deg is None:
        return _entry("D0", title, "PASS", "no positions: objects are told by host_id", 0.0, c.n_rows)
    bad = ~((np.abs(c.ra_deg) <= 360.0) & (np.abs(c.dec_deg) <= 90.0))
    if bad.any():
        row = int(np.argmax(bad))
        text = (
            f"{int(bad.sum())} rows have no position on the sky "
            f"(row {row}: ra {c.ra_deg[row]:g}, dec {c.dec_deg[row]:g})"
        )
        return _entry("D0", title, "FAIL", text, float(bad.sum()), c.n_rows)
    return _entry("D0", title, "PASS", f"{c.n_rows} positions", 0.0, c.n_rows)


def _check_splits(c: Catalogue, groups: Integers, radius_arcsec: float) -> dict[str, Any]:
    title = "Splits share no object and no source"
    if c.split is None:
        return _entry("D2", title, "SKIPPED", "the catalogue names no splits", None, c.n_rows)
    parts, failed = [], False
    sources = [("sources", c.source)] if c.source is not None else []
    for what, number_of_row in (("objects", groups), *sources):
        shared, example = in_two(number_of_row, c.split)
        failed |= shared > 0
        where = ""
        if example is not None:
            rows = np.flatnonzero(number_of_row == example)
            _, first = np.unique(c.split[rows], return_index=True)
            where = " ({})".format(", ".join(f"row {r} in {_name(c, r)}" for r in rows[np.sort(first)][:3]))
        parts.append(f"{shared} {what} occur in two splits{where}")
    if c.ra_deg is not None and c.dec_deg is not None:
        near = near_other_split(c.ra_deg, c.dec_deg, c.split, radius_arcsec)
        parts.append(f'{near} rows lie within {radius_arcsec:g}" of another split: cutouts share sky')
    status = "FAIL" if failed else "PASS"
    return _entry("D2", title, status, "; ".join(parts), float(failed), c.n_rows, int(groups.max()) + 1)


def _check_labels(c: Catalogue, groups: Integers) -> dict[str, Any]:
    title = "Every object has one label"
    if c.label is None:
        return _entry("D2b", title, "SKIPPED", "the catalogue names no labels", None, c.n_rows)
    shared, example = in_two(groups, np.asarray(c.label, dtype=np.int64))
    if example is None:
        return _entry("D2b", title, "PASS", "no object has two labels", 0.0, c.n_rows)
    rows = np.flatnonzero(groups == example)[:3]
    text = f"{shared} objects have two labels (rows {', '.join(map(str, rows))} are one object)"
    return _entry("D2b", title, "FAIL", text, float(shared), c.n_rows)


def _name(c: Catalogue, row: int) -> str:
    code = c.split[row] if c.split is not None else -1
    return c.split_names[code] if code >= 0 else "none"


def _entry(
    id_: str,
    title: str,
    status: str,
    message: str,
    effect: float | None,
    n_rows: int,
    n_groups: int | None = None,
) -> dict[str, Any]:
    finding = Finding(status, message, effect, threshold=0.0, n_groups=n_groups)
    return finding.entry(id_, title, required=True, n_pairs=n_rows, n_groups=n_rows)
