"""Labels that can be told without pixels: from the order of rows, absent values, columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from arcforge.engine.auditing.metadata import find_telling

N = 300


def _labels(rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(np.arange(N) < N // 3)


def _table(rng: np.random.Generator, **columns: object) -> pa.Table:
    base: dict[str, object] = {
        "mag_r": rng.normal(19.0, 1.0, N),
        "ra": rng.uniform(0.0, 360.0, N),
        "brick": [f"{k:04d}p{k % 7}" for k in rng.integers(0, 5000, N)],
        "n_exposures": rng.integers(1, 5, N),
        # what only lenses have, as they should
        "theta_e_arcsec": pa.array([None] * N, pa.float64()),
    }
    return pa.table(base | columns)


def test_sets_drawn_alike_tell_nothing() -> None:
    """One family of intervals in twenty may be wrong."""
    rng = np.random.default_rng(0)
    alarms = sum(any(told.low > 0.5 for told in find_telling(_table(rng), _labels(rng))) for _ in range(200))
    assert alarms <= 20


def test_what_differs_is_named_with_its_auc() -> None:
    rng = np.random.default_rng(1)
    positive = _labels(rng)
    absent = pa.array(rng.normal(size=N), mask=~positive & (rng.random(N) < 0.5))
    names = ["lens.fits" if p else "galaxy.fits" for p in positive]
    table = _table(
        rng,
        mag_r=rng.normal(19.0, 1.0, N) + 1.5 * positive,
        z=absent,
        file=names,
        theta_e_arcsec=1.0 * positive,
    )
    told = {each.what: each for each in find_telling(table, positive)}
    assert told["length of file"].auc == 1.0
    # two normal distributions a distance d apart: the probability of d / sqrt(2)
    assert told["column mag_r"].auc == pytest.approx(0.856, abs=0.05)
    assert told["column mag_r"].low < 0.856 < told["column mag_r"].high
    assert told["absent values of z"].auc == pytest.approx(0.75, abs=0.05)
    assert {what for what, each in told.items() if each.low > 0.52} == {
        "length of file", "column mag_r", "absent values of z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("positive", "what"),
    [(np.arange(N) < N // 3, "position in the file"), (np.arange(N) % 2 == 0, "odd and even rows")],
)
def test_the_order_of_the_rows_is_looked_at(positive: np.ndarray, what: str) -> None:
    told = find_telling(_table(np.random.default_rng(2)), positive)
    assert (told[0].what, told[0].auc) == (what, 1.0)
    assert told[1].low <= 0.52


@pytest.mark.filterwarnings("error")
def test_tables_without_columns_and_constant_ones_are_no_error() -> None:
    positive = _labels(np.random.default_rng(3))
    assert len(find_telling(pa.table({"label": positive}), positive)) == 2
    constant = find_telling(pa.table({"a": np.ones(N), "b": np.full(N, np.nan)}), positive)
    assert {each.what: each.auc for each in constant}["column a"] == 0.5
