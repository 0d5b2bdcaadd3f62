"""The benchmark's own arithmetic: timing, ratios, errors, counted operations, cases as data."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from arcforge.bench import flops, machine, runner
from arcforge.bench.cases import CATALOGUES, SOURCES, STAMPS, columns_of, draw_rows, source_named, stamp_of
from arcforge.bench.runner import Timing, errors_over_peak, ratio, time_calls


def test_calls_are_interleaved_and_each_repeat_holds_every_call(monkeypatch):
    monkeypatch.setattr(runner, "LEAST_S", 0.0)
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    told: list[tuple[int, int]] = []
    timings = time_calls(calls, 3, progress=lambda done, total: told.append((done, total)))
    warm = len(order) - 9
    assert order[warm:] == list("abcbcacab")
    assert {name: timing.cpu_s.size for name, timing in timings.items()} == {"a": 3, "b": 3, "c": 3}
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_short_calls_are_looped_and_counted_one_by_one(monkeypatch):
    """By a clock that only the calls move: a busy machine stretches real ones."""
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    clock = SimpleNamespace(perf_counter=lambda: 1e-4 * count, process_time=lambda: 1e-4 * count)
    monkeypatch.setattr(runner, "time", clock)
    timing = time_calls({"short": call}, 1)["short"]
    assert count == pytest.approx(200, abs=3)
    assert timing.wall_s[0] == pytest.approx(1e-4)


def test_waiting_counts_on_the_wall_clock_only():
    timing = time_calls({"sleep": lambda: time.sleep(0.03)}, 1)["sleep"]
    assert timing.wall_s[0] >= 0.03
    assert timing.cpu_s[0] < 0.02


def test_ratio_is_the_median_of_paired_repeats():
    """Medians of each side would tell 2.5 here: the clock drifted, and nothing else."""
    slow = Timing(np.array([10.0, 20.0, 90.0]), np.ones(3))
    fast = Timing(np.array([1.0, 8.0, 9.0]), np.ones(3))
    found = ratio(slow, fast)
    assert found == {"median": 10.0, "q25": 6.25, "q75": 10.0}
    assert ratio(slow, fast, clock="wall_s", per_fast=2.0)["median"] == 2.0


def test_summary_is_per_stamp():
    timing = Timing(np.array([1e-3, 2e-3, 3e-3]), np.array([2e-3, 4e-3, 6e-3]))
    found = timing.summary(per=10)
    assert found["cpu_us"]["median"] == pytest.approx(200.0)
    assert found["cpu_us"]["best"] == pytest.approx(100.0)
    assert found["wall_us"]["median"] == pytest.approx(400.0)


def test_errors_take_the_worst_band_over_that_bands_own_peak():
    reference = np.zeros((2, 2, 4, 4))
    reference[:, 0, 1, 1], reference[:, 1, 1, 1] = 10.0, 1.0
    images = reference.copy()
    images[0, 0, 2, 2] += 0.1  # a hundredth of its band's peak
    images[1, 1, 3, 3] -= 0.1  # a tenth
    assert errors_over_peak(images, reference) == pytest.approx([0.01, 0.1])


def test_a_nan_is_an_infinite_error():
    reference = np.ones((2, 1, 3, 3))
    images = reference.copy()
    images[1, 0, 0, 0] = np.nan
    assert list(errors_over_peak(images, reference)) == [0.0, np.inf]


F = np.float32


def _inner(x):
    return np.sqrt(x) + F(1.0) / x


def _outer(x, y, straight):
    ready = x * y
    for _ in range(3):
        a = x * y + F(2.0) / F(3.0)
        a += y
        b = min(a, F(0.5)) if x > y else -a
        bits = np.int32(F(a).view(np.int32) << np.int32(3))
        if straight:
            c = _inner(b)
        else:
            c = _inner(b) * _inner(a)
    return ready, bits, c


def test_operations_are_counted_from_the_source():
    straight, bent = (flops._Walker() for _ in range(2))
    straight.function(_outer, {"straight": True}, loop_only=True)
    bent.function(_outer, {"straight": False}, loop_only=True)
    # a: *, + (the quotient of constants is folded); +=; _inner: sqrt, +, /
    assert straight.counts | {"other": 0, "integer": 0} == {
        "add": 3, "multiply": 1, "divide": 1, "square_root": 1, "other": 0, "integer": 0,
    }  # fmt: skip
    # min, the select, its comparison, the sign
    assert straight.counts["other"] == 4
    # view, shift, conversion
    assert straight.counts["integer"] == 3
    assert bent.counts["multiply"] == straight.counts["multiply"] + 1
    assert bent.counts["square_root"] == 2


def test_unknown_code_is_refused_and_not_counted_as_free():
    def strange(x):
        while x:
            x = x - 1

    with pytest.raises(TypeError, match="no rule to count While"):
        flops._Walker().function(strange, {})


def test_costs_of_rays_are_ordered_as_the_kernels_are():
    plain, general = (flops.ray_cost(False, exponential) for exponential in (True, False))
    bounded = flops.ray_cost(True, True)
    assert 60 < plain.flop < general.flop < 300
    assert plain.flop < bounded.flop < 300
    # a general Sersic index costs one log and one exp, and saves a square root
    assert general.counts["square_root"] == plain.counts["square_root"] - 1


def test_peak_is_that_of_vector_multiply_adds(request):
    out, values = np.empty(256, dtype=np.float32), np.linspace(0.0, 0.5, 256, dtype=np.float32)
    machine.multiply_add_chains(values, 1, out)
    x = values.astype(np.float64)
    chains = [x, x + 0.5, x - 0.5, x + 0.25]
    for constant in (0.5, 0.25) * 4:
        chains = [chain * x + constant for chain in chains]
    assert out == pytest.approx(sum(chains), rel=1e-6)
    assert machine.CHAIN_FLOP == 4 * 8 * 2
    assert machine.fma_peak_gflops(repeats=1) > 0.0


def test_machine_names_what_a_reader_needs():
    found = machine.describe_machine()
    assert found["cores_usable"] >= 1
    assert found["versions"]["numba"][0].isdigit()
    assert set(found) >= {"cpu", "cores", "load_average", "python", "versions", "code_sha256", "threading"}


def test_small_catalogues_are_the_first_rows_of_large_ones():
    for source in SOURCES:
        few, many = draw_rows(source, CATALOGUES["S"]), draw_rows(source, CATALOGUES["M"])
        for name, values in few.items():
            assert (values == many[name][: len(values)]).all(), name


def test_rows_lie_in_the_ranges_and_grow_with_the_stamp():
    source = source_named("stated")
    small, large = draw_rows(source, 200, 64), draw_rows(source, 200, 256)
    for name, (low, high) in {"src_n": source.n, "theta_e_arcsec": source.theta_e_arcsec}.items():
        assert low <= small[name].min() < small[name].max() <= high
    assert large["theta_e_arcsec"] == pytest.approx(4.0 * small["theta_e_arcsec"])
    assert large["src_reff_arcsec"] == pytest.approx(4.0 * small["src_reff_arcsec"])
    assert (large["psf_fwhm_arcsec_r"] == small["psf_fwhm_arcsec_r"]).all()
    assert (draw_rows(source, 5, 32)["theta_e_arcsec"] == small["theta_e_arcsec"][:5]).all()
    assert len(columns_of(source, 7)) == 7


def test_stamps_and_sources_are_found_by_what_names_them():
    assert stamp_of(64) in STAMPS
    assert stamp_of(100).reference_rows == stamp_of(128).reference_rows
    assert stamp_of(512).reference_rows >= 1
    with pytest.raises(KeyError, match="use one of sersic"):
        source_named("nosuch")
