"""Which rows show the same galaxy: the unit of folds, of resampling and of splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def join_groups(n: int, keys: Sequence[Integers]) -> Integers:
    """Number the groups of rows that are linked by any key.

    Parameters
    ----------
    n : int
        Rows.
    keys : sequence of int64 (n,)
        Rows with an equal, non-negative value of one key are linked; negative means "unknown".

    Returns
    -------
    int64 (n,)
        Group numbers from 0, in the order in which groups first occur.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, nodes, offset = [], [], n
    for key in keys:
        known = np.flatnonzero(key >= 0)
        rows.append(known)
        nodes.append(key[known] + offset)
        offset += int(key.max(initial=-1)) + 1
    row = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    node = np.concatenate(nodes) if nodes else np.zeros(0, dtype=np.int64)
    graph = coo_array((np.ones(len(row), dtype=np.int8), (row, node)), shape=(offset, offset))
    _, labels = connected_components(graph, directed=False)
    return number(labels[:n])


def number(values: Any) -> Integers:
    """Number the distinct values of an array from 0, in the order in which they first occur."""
    _, first, inverse = np.unique(np.asarray(values), return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(rank[inverse.ravel()], dtype=np.int64)


def number_known(values: Any) -> Integers:
    """Number the distinct values of a column; null, NaN and "" become -1."""
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return number(array)
    array = array.astype(object)
    text = np.array(["" if v is None or v != v else str(v) for v in array], dtype=str)
    numbers = number(text)
    numbers[text == ""] = -1
    return numbers


def number_sources(values: Any) -> Integers:
    """Number the sources of a column; null, NaN, "" and negative numbers, which stand for none, become -1."""
    array = np.asarray(values)
    numbers = number_known(array)
    if array.dtype.kind in "if":
        numbers[array < 0] = -1
    return numbers


def same_sky(ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64], radius_arcsec: float) -> Integers:
    """Number objects on the sky: rows closer than a radius (chained) are one; NaN positions give -1."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    known = np.flatnonzero(np.isfinite(ra_deg) & np.isfinite(dec_deg))
    numbers = np.full(len(ra_deg), -1, dtype=np.int64)
    if known.size == 0:
        return numbers
    # a host that is used many times is one point
    place, inverse = np.unique(ra_deg[known] + 1j * dec_deg[known], return_inverse=True)
    unique = _on_sphere(place.real, place.imag)
    pairs = cKDTree(unique).query_pairs(_chord(radius_arcsec), output_type="ndarray")
    graph = coo_array(
        (np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(unique),) * 2
    )
    _, labels = connected_components(graph, directed=False)
    numbers[known] = number(labels[inverse.ravel()])
    return numbers


def near_other_split(
    ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64], split: Integers, radius_arcsec: float
) -> int:
    """Count rows that lie closer than a radius to a row of another split; split < 0 means none."""
    from scipy.spatial import cKDTree

    known = np.isfinite(ra_deg) & np.isfinite(dec_deg) & (split >= 0)
    place = _on_sphere(ra_deg[known], dec_deg[known])
    kinds = split[known]
    near = np.zeros(len(place), dtype=bool)
    for kind in np.unique(kinds):
        tree, others = cKDTree(place[kinds == kind]), np.flatnonzero(kinds != kind)
        distance, _ = tree.query(place[others], distance_upper_bound=_chord(radius_arcsec), workers=-1)
        near[others[np.isfinite(distance)]] = True
    return int(near.sum())


def _on_sphere(ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    ra, dec = np.deg2rad(ra_deg), np.deg2rad(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _chord(radius_arcsec: float) -> float:
    return float(2.0 * np.sin(np.deg2rad(radius_arcsec / 3600.0) / 2.0))


def in_two(groups: Integers, kind: Integers) -> tuple[int, int | None]:
    """Count groups with more than one kind; negative means unknown. Also returns one such group."""
    known = (groups >= 0) & (kind >= 0)
    if not known.any():
        return 0, None
    pairs = np.unique(groups[known] * np.int64(kind.max() + 1) + kind[known])
    owners, counts = np.unique(pairs // (kind.max() + 1), return_counts=True)
    several = owners[counts > 1]
    return len(several), int(several[0]) if len(several) else None


def deal_folds(groups: Integers, n_folds: int, rng: np.random.Generator) -> Integers:
    """Deal whole groups to folds at random, each to the fold with the fewest rows so far.

    Parameters
    ----------
    groups : int64 (n,)
        Group number of each row.
    n_folds : int
        Folds; at most the number of groups.
    rng : numpy Generator
        Decides the order in which groups are dealt.

    Returns
    -------
    int64 (n,)
        Fold of each row.
    """
    sizes = np.bincount(groups)
    if len(sizes) < n_folds:
        raise ValueError(f"{len(sizes)} hosts cannot fill {n_folds} folds")
    fold_of_group = np.empty(len(sizes), dtype=np.int64)
    filled = np.zeros(n_folds, dtype=np.int64)
    tie_break = rng.permutation(n_folds)
    for group in rng.permutation(len(sizes)):
        fold = tie_break[np.argmin(filled[tie_break])]
        fold_of_group[group] = fold
        filled[fold] += sizes[group]
    return np.asarray(fold_of_group[groups])
