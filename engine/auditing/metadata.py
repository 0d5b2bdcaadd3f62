"""What tells the labels of a set apart without its pixels: the order of its rows, absent values, its columns.

A network does not read them, but splits by position in the file, samplers and later joins do; and a column
that tells the label (a PSF width, a magnitude) says that the two classes were not drawn alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Columns that describe the arc, which only one label has, or the label itself
_OF_THE_ARC = (
    *("theta_e", "lens_", "src", "shear", "arc_", "magnification", "visibility", "einstein", "source_"),
    *("label", "is_", "kind", "nfw_", "cut_"),
)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Telling:
    """How well one thing tells the labels apart."""

    what: str
    auc: float  #: of positives against negatives, turned to 0.5 or more
    low: float  #: lower and upper bound that hold for all of them at once (Bonferroni)
    high: float


def find_telling(table: Any, positive: Bools) -> list[Telling]:
    """Return what the rows' order and each column tell of the label, most first.

    Parameters
    ----------
    table : pyarrow.Table
        The set's columns, without its pixels; those that describe arcs are left out.
    positive : bool (rows,)

    Returns
    -------
    list of Telling
        Intervals from Hanley & McNeil (1982, Radiology 143, 29, eq. 2).
    """
    n = len(positive)
    values: dict[str, Floats] = {"position in the file": np.arange(n, dtype=np.float64)}
    values["odd and even rows"] = (np.arange(n) % 2).astype(np.float64)
    for name in table.column_names:
        if not name.lower().startswith(_OF_THE_ARC):
            values |= _features(name, table.column(name))
    z = _two_sided_z((1.0 - _CONFIDENCE) / len(values))
    found = []
    for what, value in values.items():
        auc = _auc(value, positive)
        auc = max(auc, 1.0 - auc)
        half = z * _standard_error(auc, int(positive.sum()), int((~positive).sum()))
        found.append(Telling(what, auc, max(0.5, auc - half), min(1.0, auc + half)))
    return sorted(found, key=lambda each: -each.auc)


def _features(name: str, column: Any) -> dict[str, Floats]:
    import pyarrow as pa

    kind = column.type
    found: dict[str, Floats] = {}
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        number = np.array([math.nan if v is None else float(v) for v in column.to_pylist()])
        absent = ~np.isfinite(number)
        if not absent.all():
            found[f"column {name}"] = np.where(absent, np.median(number[~absent]), number)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = column.to_pylist()
        absent = np.array([v is None for v in texts])
        found[f"length of {name}"] = np.array([0.0 if v is None else len(v) for v in texts])
    else:
        return found
    if absent.any() and not absent.all():
        found[f"absent values of {name}"] = absent.astype(np.float64)
    return found


def _auc(value: Floats, positive: Bools) -> float:
    from scipy.stats import rankdata

    ranks = rankdata(value)
    n_positive = int(positive.sum())
    n_negative = len(value) - n_positive
    above = float(ranks[positive].sum()) - 0.5 * n_positive * (n_positive + 1)
    return above / (n_positive * n_negative)


def _standard_error(auc: float, n_positive: int, n_negative: int) -> float:
    two_positives, two_negatives = auc / (2.0 - auc), 2.0 * auc**2 / (1.0 + auc)
    variance = (
        auc * (1.0 - auc)
        + (n_positive - 1) * (two_positives - auc**2)
        + (n_negative - 1) * (two_negatives - auc**2)
    )
    return math.sqrt(max(variance, 0.0) / (n_positive * n_negative))


def _two_sided_z(level: float) -> float:
    from scipy.special import ndtri

    return float(-ndtri(0.5 * level))
