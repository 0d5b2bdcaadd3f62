"""Eight lanes at once: generated vector code against NumPy, which stands in for it in a debugger.

The code is generated here also where kernels are plain Python, since nothing else looks at it there.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest

from arcforge.kernels import lanes

# Sums of at most 40 terms of order one, in another order and with fused multiply-adds.
ROUNDING = 2e-6

SHAPE = (24, 40)  # of the array that is written, lines 40 apart
RNG = np.random.default_rng(8)
TABLE = RNG.normal(size=80).astype(np.float32)
VALUES = RNG.normal(size=SHAPE).astype(np.float32)
HALF, THIRD = np.float32(0.5), np.float32(1 / 3)

# name: (generated, in NumPy, arguments behind ``out``, places of it that may change)
WRITERS = {
    "spread": (
        lanes._spread,
        lanes._spread_plain,
        (43, 40, TABLE, 8, HALF, 40, THIRD, np.float32(2.0)),
        np.s_[1:7, 3:11],
    ),
    "lerp": (lanes._lerp, lanes._lerp_plain, (85, TABLE, 16, THIRD), np.s_[2:3, 5:13]),
    "add_outer": (
        lanes._add_outer,
        lanes._add_outer_plain,
        (85, 40, TABLE, 3, 4, TABLE, 40, TABLE[::-1].copy(), 8),
        np.s_[2:10, 5:13],
    ),
    "weigh_8": (
        lanes._weigh(1),
        lanes._weigh_plain(1),
        (85, VALUES, 44, 40, TABLE, 7, 20),
        np.s_[2:3, 5:13],
    ),
    "weigh_32": (
        lanes._weigh(4),
        lanes._weigh_plain(4),
        (82, VALUES, 44, 40, TABLE, 7, 20),
        np.s_[2:3, 2:34],
    ),
    "weigh_32 of no lines": (
        lanes._weigh(4),
        lanes._weigh_plain(4),
        (82, VALUES, 44, 40, TABLE, 7, 0),
        np.s_[2:3, 2:34],
    ),
}


@pytest.fixture
def compiled(monkeypatch):
    """Return a function that compiles a call of an operation."""
    monkeypatch.setattr(lanes.config, "DISABLE_JIT", 0)

    def compile_call(operation):
        @numba.njit
        def call(*args):
            return operation(*args)

        return call

    return compile_call


@pytest.mark.parametrize("name", WRITERS)
def test_generated_code_writes_what_numpy_does_and_nowhere_else(compiled, name):
    generated, plain, args, box = WRITERS[name]
    start = RNG.normal(size=SHAPE).astype(np.float32)
    found, expected = start.copy(), start.copy()
    compiled(generated)(found, *args)
    plain(expected, *args)
    assert np.abs(found - expected).max() < ROUNDING * np.abs(expected).max()
    changed = np.zeros(SHAPE, dtype=bool)
    changed[box] = True
    assert np.array_equal(found != start, changed)


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.25, 0.75), (1.0, 0.5)])
def test_the_cubic_spline_at_a_point(compiled, a, b):
    args = (VALUES, 47, 40, np.float32(a), np.float32(b))
    found = compiled(lanes._cubic)(*args)
    assert found == pytest.approx(lanes._cubic_plain(*args), abs=ROUNDING)
    # the weights of a cubic B-spline at a node are 1/6, 2/3, 1/6
    if a == b == 0.0:
        line = np.array([1.0, 4.0, 1.0, 0.0]) / 6.0
        assert found == pytest.approx(line @ VALUES[1:5, 7:11] @ line, abs=ROUNDING)
