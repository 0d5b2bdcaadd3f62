"""What single pairs can be wrong in is told with their rows: pixels cut off or filled, light too bright."""

from __future__ import annotations

import numpy as np
import pytest

from arcforge.bench.planted import FAULTS, make_set
from arcforge.engine.auditing.run import CHECKS, run_audit
from arcforge.engine.synthetic import synthetic_hosts

N = 40


@pytest.fixture
def made():
    """A clean set, whose pixels a test may change."""
    hosts = synthetic_hosts(20, 4).pixels(np.arange(20))
    return make_set(FAULTS[0], hosts, N, 21)


def finding(made, folder, check):
    path = made.write(folder / "set.parquet")
    (found,) = run_audit(path, checks=[c for c in CHECKS if c.id == check]).report["checks"]
    return found


@pytest.mark.parametrize("filled", ["lowest", "highest", "zero block"])
def test_pixels_that_were_cut_off_or_filled_are_told_with_their_row(made, tmp_path, filled):
    image = made.stamps[5, 1]
    if filled == "zero block":
        image[:8, :8] = 0.0
    else:
        level = np.quantile(image, 0.05 if filled == "lowest" else 0.95)
        np.clip(image, *((level, None) if filled == "lowest" else (None, level)), out=image)
    found = finding(made, tmp_path, "D0")
    assert found["status"] == "WARN"
    assert found["message"].startswith(f"1 of {N} pairs have a band of which many pixels are one value")
    assert "(row 5)" in found["message"]


def test_a_few_pairs_that_are_not_as_recorded_are_told_by_their_rows(made, tmp_path):
    """One in forty: too few for the residual's quantile, and still wrong."""
    made.stamps[7] += 0.2 * (made.stamps[7] - made.controls[7])
    found = finding(made, tmp_path, "R1")
    assert found["status"] == "WARN"
    assert f"1 of {N} leave more than 0.01 of it (row 7)" in found["message"]
