"""Arcs that pair exactly: (stamp - control) - arc is +0 in float32 for every finite pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arcforge.engine.errors import RenderError
from arcforge.engine.pairing import pair_exactly

LARGEST = float(np.finfo(np.float32).max)
finite = st.floats(-LARGEST / 4, LARGEST / 4, width=32)


def paired(host: np.ndarray, arc: np.ndarray) -> np.ndarray:
    arcs = arc.reshape(1, 1, 1, -1).copy()
    pair_exactly(arcs, host.reshape(1, 1, 1, -1), np.array([0]))
    return arcs.ravel()


def assert_pairs(host: np.ndarray, arc: np.ndarray) -> None:
    stored = paired(host, arc)
    stamp = host + stored
    rest = (stamp - host) - stored
    assert not rest.view(np.uint32).any()  # +0, not even -0
    ulps = np.spacing(np.abs(host + arc)).astype(float) + np.spacing(np.abs(stored)).astype(float)
    assert (np.abs(stored.astype(float) - arc) <= ulps / 2).all()
    # a second pass changes nothing, so stored arcs can be paired again
    np.testing.assert_array_equal(paired(host, stored), stored)


@settings(max_examples=400, deadline=None)
@given(pixels=st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
@example(pixels=[(-0.3, 1.2)])  # the difference has a coarser last place than the stamp
@example(pixels=[(1e-3, 1.0), (1.0, 1e-9), (-1e-3, 1e-3), (0.0, 1e-45), (-0.0, -0.0), (1e-45, -1e-45)])
@example(pixels=[(LARGEST / 4, LARGEST / 4)])
def test_any_finite_pixel_pairs_exactly(pixels):
    host, arc = np.array(pixels, dtype=np.float32).T
    assert_pairs(host, arc)


@settings(max_examples=200, deadline=None)
@given(
    bits=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=50)
)
def test_any_bit_pattern_pairs_exactly(bits):
    host, arc = np.array(bits, dtype=np.uint32).T.copy().view(np.float32)
    sane = np.isfinite(host) & np.isfinite(arc) & (np.abs(host) < LARGEST / 4) & (np.abs(arc) < LARGEST / 4)
    if sane.any():
        assert_pairs(host[sane], arc[sane])


def test_many_random_pixels_pair_exactly():
    rng = np.random.default_rng(1)
    for exponents in (3, 30, 140):
        scale = 2.0 ** rng.integers(-exponents, min(exponents, 100), (2, 200_000))
        host, arc = (rng.standard_normal((2, 200_000)) * scale).astype(np.float32)
        assert_pairs(host, arc)
        assert_pairs(host, (host * rng.uniform(-3, 3, host.size)).astype(np.float32))  # near cancellation


def test_rendered_arcs_alone_would_not_pair():
    """The check above can fail: without the pairing most pixels leave a rest."""
    rng = np.random.default_rng(2)
    host, arc = rng.normal(0, 0.01, 1000).astype(np.float32), rng.exponential(0.01, 1000).astype(np.float32)
    assert (((host + arc) - host) - arc != 0).mean() > 0.3


def test_arcs_change_by_a_unit_in_the_stamps_last_place_at_most():
    rng = np.random.default_rng(3)
    host, arc = (
        rng.exponential(0.1, 10_000).astype(np.float32),
        rng.exponential(0.1, 10_000).astype(np.float32),
    )
    stored = paired(host, arc)
    assert (np.abs(stored - arc) <= np.spacing(host + arc)).all()
    assert np.abs(stored - arc).max() > 0


def test_the_measures_are_those_of_the_stored_pixels():
    rng = np.random.default_rng(5)
    hosts = rng.normal(0, 0.01, (3, 2, 5, 7)).astype(np.float32)
    arcs = rng.exponential(0.01, (6, 2, 5, 7)).astype(np.float32)
    measures = pair_exactly(arcs, hosts, np.array([0, 1, 2, 2, 1, 0]))
    stored = arcs.astype(np.float64)
    np.testing.assert_allclose(measures.flux_nmgy, stored.sum(axis=(2, 3)), rtol=1e-14)
    np.testing.assert_allclose(measures.power, (stored**2).sum(axis=(2, 3)), rtol=1e-14)
    np.testing.assert_array_equal(measures.peak, arcs.max(axis=(2, 3)))


def test_each_row_meets_its_own_host():
    hosts = np.array([0.1, 100.0], dtype=np.float32).reshape(2, 1, 1, 1)
    arcs = np.full((3, 1, 1, 1), 1e-3, dtype=np.float32)
    pair_exactly(arcs, hosts, np.array([1, 0, 1]))
    assert arcs[0] == arcs[2] != arcs[1]


@pytest.mark.parametrize("value", [np.inf, np.nan, LARGEST])
def test_a_stamp_that_is_not_finite_names_its_row(value):
    arcs = np.zeros((3, 1, 2, 2), dtype=np.float32)
    arcs[1, 0, 0, 1] = value
    with pytest.raises(RenderError, match=r"^row 41: .*host 0.*not finite"):
        pair_exactly(arcs, np.full((1, 1, 2, 2), LARGEST, dtype=np.float32), np.zeros(3, int), first_row=40)
