"""Intervals over hosts: they cover, they widen with correlated rows, and weights mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from arcforge.engine.auditing.checks import FAIL, INCONCLUSIVE, PASS, judge_equivalence
from arcforge.engine.auditing.resampling import Estimate, HostBootstrap, simultaneous_half_width


def test_interval_of_a_mean_covers_when_rows_of_a_host_agree():
    covered = []
    for trial in range(200):
        rng = np.random.default_rng([1, trial])
        hosts = np.repeat(np.arange(19), 6)
        values = rng.normal(size=19)[hosts] + 0.1 * rng.normal(size=114)
        low, high = HostBootstrap(hosts, 300, rng).mean(values).ci95
        covered.append(low <= 0 <= high)
    assert 0.91 <= np.mean(covered) <= 0.99


def test_median_ignores_nan_and_one_wild_host_and_weighs_hosts_alike():
    hosts = np.array([0] * 50 + [1, 2, 3, 4])
    values = np.array([9.0] * 50 + [1.0, 1.0, 1.1, np.nan])
    estimate = HostBootstrap(hosts, 200, np.random.default_rng(0)).median(values)
    assert estimate.value == pytest.approx(1.05, abs=0.06)


def test_median_follows_the_rows_that_know():
    hosts = np.arange(20)
    values = np.where(hosts < 8, 2.0, 1.0)
    information = np.where(hosts < 8, 1e6, 1.0)
    bootstrap = HostBootstrap(hosts, 200, np.random.default_rng(0))
    assert bootstrap.median(values).value == 1.0
    assert bootstrap.median(values, information).value == 2.0


def test_no_row_outweighs_a_tenth_of_all():
    hosts = np.arange(30)
    values = np.where(hosts == 0, 5.0, 1.0)
    information = np.where(hosts == 0, 100.0, 1.0)
    assert HostBootstrap(hosts, 50, np.random.default_rng(0)).median(values, information).value == 1.0


def test_ratio_and_quantile_are_those_of_the_sample():
    rng = np.random.default_rng(2)
    hosts, top, bottom = np.repeat(np.arange(10), 4), rng.random(40), rng.random(40) + 1
    bootstrap = HostBootstrap(hosts, 100, rng)
    assert bootstrap.ratio(top, bottom).value == pytest.approx(top.sum() / bottom.sum())
    assert bootstrap.quantile(top, 0.95).value == np.sort(top)[37]


def test_subset_keeps_the_resamples():
    hosts = np.repeat(np.arange(5), 2)
    bootstrap = HostBootstrap(hosts, 20, np.random.default_rng(3))
    part = bootstrap.of_rows(np.array([0, 2, 4, 6, 8]))
    np.testing.assert_array_equal(part.groups, np.arange(5))
    np.testing.assert_array_equal(part.counts, bootstrap.counts)


def test_simultaneous_band_holds_all_radii_at_once():
    inside = []
    for trial in range(120):
        rng = np.random.default_rng([4, trial])
        hosts = np.arange(40)
        rows = rng.normal(size=(40, 12))
        bootstrap = HostBootstrap(hosts, 300, rng)
        total, totals = bootstrap.sums(rows)
        half = simultaneous_half_width(bootstrap, total / 40, totals / 40)
        inside.append(bool(np.all(np.abs(total / 40) <= half)))
    assert 0.87 <= np.mean(inside) <= 0.995


def test_equivalence_is_an_argument_not_a_lack_of_significance():
    assert judge_equivalence((-0.5, 0.5), -1, 1) == PASS
    assert judge_equivalence((-5.0, 5.0), -1, 1) == INCONCLUSIVE
    assert judge_equivalence((1.5, 5.0), -1, 1) == FAIL


def test_a_floor_widens_and_never_narrows():
    narrow, wide = Estimate(1.0, (0.999, 1.001), 5e-4), Estimate(1.0, (0.5, 1.5), 0.25)
    assert narrow.widened(0.01).ci95 == (0.99, 1.01)
    assert wide.widened(0.01).ci95 == (0.5, 1.5)


def test_the_interval_of_a_share_stays_inside_and_leaves_room_at_its_ends():
    bootstrap = HostBootstrap(np.arange(20), 50, np.random.default_rng(5))
    resampled = 0.9 + 0.05 * np.random.default_rng(6).normal(size=50)
    low, high = bootstrap.share(0.9, resampled).ci95
    assert 0 < low < 0.9 < high < 1
    assert 0.9 - low > high - 0.9
    low, high = bootstrap.share(1.0, np.ones(50)).ci95
    assert high == 1
    assert 0.8 < low < 0.85  # 20 hosts all won: 0.025 ** (1 / 20)
    assert bootstrap.share(0.5, np.full(50, 0.5)).ci95 == (0.5, 0.5)
