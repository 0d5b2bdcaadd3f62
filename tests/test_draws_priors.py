"""Priors against scipy's distributions, and the faults of their parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from arcforge.engine.errors import ConfigError
from arcforge.engine.priors import Prior, distribution_names

U = (np.arange(2000) + 0.5) / 2000

CASES: list[tuple[Prior, Any]] = [
    (Prior.of("uniform", low=0.5, high=2.5), stats.uniform(0.5, 2.0)),
    (Prior.of("loguniform", low=0.03, high=3.0), stats.loguniform(0.03, 3.0)),
    (Prior.of("normal", mean=0.3, sigma=0.2), stats.norm(0.3, 0.2)),
    (
        Prior.of("normal", mean=0.14, sigma=0.09, low=0.0, high=0.45),
        stats.truncnorm(-14 / 9, 31 / 9, 0.14, 0.09),
    ),
    (Prior.of("normal", mean=0.0, sigma=1.0, low=5.0, high=6.0), stats.truncnorm(5, 6)),
    (Prior.of("normal", mean=0.0, sigma=1.0, low=-6.0, high=-5.0), stats.truncnorm(-6, -5)),
    (Prior.of("rayleigh", sigma=0.04), stats.rayleigh(scale=0.04)),
    (Prior.of("beta", a=2, b=5, low=0.1, high=0.9), stats.beta(2, 5, 0.1, 0.8)),
]


@pytest.mark.parametrize(("prior", "expected"), CASES, ids=lambda case: getattr(case, "dist", None))
def test_quantiles_are_those_of_the_distribution(prior: Prior, expected: Any) -> None:
    np.testing.assert_allclose(prior.quantile(U), expected.ppf(U), rtol=1e-9, atol=1e-12)


def test_a_cut_rayleigh_keeps_its_shape_below_the_cut() -> None:
    prior = Prior.of("rayleigh", sigma=0.2, high=0.3)
    values = prior.quantile(U)
    whole = stats.rayleigh(scale=0.2)
    np.testing.assert_allclose(whole.cdf(values), U * whole.cdf(0.3), rtol=1e-12)


def test_choices_come_in_proportion_and_weight_zero_never() -> None:
    prior = Prior.of("choice", values=["SIE", "SIS", "CONTROL"], weights=[3, 1, 0])
    names, counts = np.unique(prior.quantile(U), return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"SIE": 1500, "SIS": 500}
    equal = Prior.of("choice", values=[0.5, 1.0, 4.0, 2.0]).quantile(U)
    assert [(equal == v).sum() for v in (0.5, 1.0, 4.0, 2.0)] == [500] * 4
    # ten times 0.1 adds up to less than 1 one by one, and to 1 in pairs
    rounding = Prior.of("choice", values=list(range(11)), weights=[0.1] * 10 + [0.0])
    edge = np.array([2.0**-53, 1 - 2.0**-53])
    np.testing.assert_array_equal(rounding.quantile(edge), [0.0, 9.0])


def test_a_constant_is_constant() -> None:
    assert (Prior.of("constant", value=3.5).quantile(U) == 3.5).all()
    assert (Prior.of("constant", value="SIE").quantile(U) == "SIE").all()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from(["uniform", "loguniform", "normal", "beta", "rayleigh"]),
    st.floats(1e-3, 10.0),
    st.floats(1e-3, 10.0),
    st.floats(0.05, 20.0),
)
def test_values_rise_with_u_and_stay_in_the_support(
    dist: str, low: float, width: float, shape: float
) -> None:
    interval = {"low": low, "high": low + width}
    parameters: dict[str, Any] = {
        "uniform": interval,
        "loguniform": interval,
        "normal": {"mean": low + width * 0.3, "sigma": shape, **interval},
        "beta": {"a": shape, "b": 2.0, **interval},
        "rayleigh": {"sigma": shape, "high": low},
    }[dist]
    prior = Prior.of(dist, **parameters)
    u = np.concatenate([[2.0**-53], U, [1 - 2.0**-53]])
    values = prior.quantile(u)
    assert np.isfinite(values).all()
    assert (np.diff(values) >= 0).all()
    assert values.min() >= prior.support[0]
    assert values.max() <= prior.support[1]


@pytest.mark.parametrize(
    ("dist", "parameters", "words"),
    [
        ("uniform", {"low": 1.0, "high": 1.0}, "must be below"),
        ("uniform", {"low": 0.0, "high": math.inf}, "must be below"),
        ("uniform", {"low": True, "high": 2.0}, "must be a number"),
        ("loguniform", {"low": 0.0, "high": 1.0}, "must be positive"),
        ("normal", {"mean": 0.0, "sigma": 0.0}, "must be positive"),
        ("normal", {"mean": 0.0, "sigma": 0.1, "low": 1.0, "high": 2.0}, "more than 8 sigma"),
        ("normal", {"mean": math.nan, "sigma": 0.1}, "must be a number"),
        ("rayleigh", {"sigma": -1.0}, "must be positive"),
        ("beta", {"a": 0.0, "b": 1.0}, "must be positive"),
        ("choice", {"values": []}, "at least one"),
        ("choice", {"values": ["a", 1.0]}, "list of numbers or a list of names"),
        ("choice", {"values": [1.0, 2.0], "weights": [1.0]}, "1 weights for 2 values"),
        ("choice", {"values": [1.0], "weights": [0.0]}, "positive sum"),
        ("choice", {"values": 3.0}, "must be a list"),
        ("gauss", {"mean": 0.0}, "unknown"),
    ],
)
def test_bad_parameters_are_refused(dist: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Prior.of(dist, **parameters)


def test_all_distributions_are_named() -> None:
    assert distribution_names() == (
        "constant",
        "uniform",
        "loguniform",
        "normal",
        "rayleigh",
        "counts",
        "beta",
        "choice",
    )
