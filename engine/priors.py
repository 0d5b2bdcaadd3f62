"""Named distributions, each drawn through its quantile function from one uniform number.

One uniform a value keeps draws counter-based: no rejection, so no count of tries that a row would depend on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import ConfigError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """A distribution and its parameters, e.g. ``Prior.of("uniform", low=0.5, high=2.5)``.

    Written in TOML as ``{dist = "uniform", low = 0.5, high = 2.5}``. The distributions:

    ========== =========================== =====================================================
    dist       parameters                  density
    ========== =========================== =====================================================
    constant   value                       all at ``value`` (a number or a name)
    uniform    low, high                   flat
    loguniform low, high                   flat in the logarithm, low > 0
    normal     mean, sigma, low, high      Gaussian cut at low and high (default: not cut)
    rayleigh   sigma, high                 (x / sigma**2) exp(-x**2 / (2 sigma**2)) cut at high
    counts     slope, low, high            10**(slope x): number counts of galaxies by magnitude
    beta       a, b, low, high             beta distribution stretched over [low, high] (default [0, 1])
    choice     values, weights             one of the values, in proportion to weights (default: equal)
    ========== =========================== =====================================================
    """

    dist: str
    parameters: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, dist: str, **parameters: Any) -> Prior:
        """Build and check a prior; ConfigError says what is wrong with it."""
        kind = _KINDS.get(dist)
        if kind is None:
            raise ConfigError(f'distribution "{dist}" is unknown: use one of {", ".join(_KINDS)}')
        unknown = [name for name in parameters if name not in kind.parameters]
        missing = [
            name for name, default in kind.parameters.items() if default is None and name not in parameters
        ]
        if unknown or missing:
            fault = f'has no parameter "{unknown[0]}"' if unknown else f'needs the parameter "{missing[0]}"'
            raise ConfigError(f"{dist} {fault}: its parameters are {', '.join(kind.parameters)}")
        full = {name: parameters.get(name, default) for name, default in kind.parameters.items()}
        if dist == "choice":
            full["values"] = tuple(_value(v) for v in _sequence(full["values"], "values"))
            weights = _sequence(full["weights"], "weights") or (1.0,) * len(full["values"])
            full["weights"] = tuple(_number(w, "weights") for w in weights)
        elif dist == "constant":
            full["value"] = _value(full["value"])
        else:
            full = {name: _number(value, name) for name, value in full.items()}
        fault = kind.fault(full)
        if fault:
            raise ConfigError(f"{dist}: {fault}")
        return cls(dist, tuple(full.items()))

    def __getitem__(self, name: str) -> Any:
        return dict(self.parameters)[name]

    @property
    def is_name(self) -> bool:
        """True where the values are names, not numbers."""
        return any(isinstance(value, str) for value in self.support)

    @property
    def support(self) -> tuple[Any, ...]:
        """The values of a choice or constant, else the lowest and the highest possible value."""
        p = dict(self.parameters)
        if self.dist == "choice":
            return tuple(p["values"])
        if self.dist == "constant":
            return (p["value"],)
        return (p.get("low", 0.0), p["high"])

    def quantile(self, u: Floats) -> NDArray[Any]:
        """Values at the probabilities ``u`` (n,) in (0, 1): float64, or text for a choice of names."""
        return _KINDS[self.dist].quantile(dict(self.parameters), np.asarray(u, dtype=np.float64))


@dataclass(frozen=True)
class _Kind:
    parameters: dict[str, Any]  # default by name; None: must be given
    fault: Callable[[Mapping[str, Any]], str]  # what is wrong with the parameters, "" where nothing is
    quantile: Callable[[Mapping[str, Any], Floats], NDArray[Any]]


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise ConfigError(f"{name} = {value!r} must be a number")
    return float(value)


def _value(value: Any) -> float | str:
    return value if isinstance(value, str) else _number(value, "value")


def _sequence(value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{name} = {value!r} must be a list")
    return tuple(value)


def _fault_interval(p: Mapping[str, Any]) -> str:
    finite = math.isfinite(p["low"]) and math.isfinite(p["high"])
    return "" if finite and p["low"] < p["high"] else f"low = {p['low']:g} must be below high = {p['high']:g}"


def _fault_loguniform(p: Mapping[str, Any]) -> str:
    return _fault_interval(p) or ("" if p["low"] > 0 else f"low = {p['low']:g} must be positive")


def _fault_normal(p: Mapping[str, Any]) -> str:
    if not (p["sigma"] > 0 and math.isfinite(p["sigma"]) and math.isfinite(p["mean"])):
        return f"sigma = {p['sigma']:g} must be positive and mean = {p['mean']:g} finite"
    if not p["low"] < p["high"]:
        return f"low = {p['low']:g} must be below high = {p['high']:g}"
    reach = max(p["low"] - p["mean"], p["mean"] - p["high"]) / p["sigma"]
    # beyond 8 sigma the tail holds < 1e-15: the quantile function has no digits left there
    return "" if reach < 8 else "the interval from low to high lies more than 8 sigma from the mean"


def _fault_rayleigh(p: Mapping[str, Any]) -> str:
    good = 0 < p["sigma"] < math.inf and p["high"] > 0
    return "" if good else f"sigma = {p['sigma']:g} and high = {p['high']:g} must be positive"


def _fault_beta(p: Mapping[str, Any]) -> str:
    good = 0 < p["a"] < math.inf and 0 < p["b"] < math.inf
    return _fault_interval(p) or ("" if good else f"a = {p['a']:g} and b = {p['b']:g} must be positive")


def _fault_choice(p: Mapping[str, Any]) -> str:
    values, weights = p["values"], p["weights"]
    if not values or len({type(v) for v in values}) > 1:
        return "values must be a list of numbers or a list of names, with at least one entry"
    if len(weights) != len(values):
        return f"{len(weights)} weights for {len(values)} values: give one a value"
    good = all(0 <= w < math.inf for w in weights) and sum(weights) > 0
    return "" if good else "weights must not be negative and must have a positive sum"


def _constant(p: Mapping[str, Any], u: Floats) -> NDArray[Any]:
    return np.full(u.shape, p["value"])


def _uniform(p: Mapping[str, Any], u: Floats) -> Floats:
    return np.asarray(p["low"] + (p["high"] - p["low"]) * u)


def _loguniform(p: Mapping[str, Any], u: Floats) -> Floats:
    return np.asarray(np.clip(p["low"] * (p["high"] / p["low"]) ** u, p["low"], p["high"]))


def _normal(p: Mapping[str, Any], u: Floats) -> Floats:
    from scipy.special import ndtr, ndtri

    low, high = (p["low"] - p["mean"]) / p["sigma"], (p["high"] - p["mean"]) / p["sigma"]
    # in the upper tail ndtr is 1 to the last digit: work with the mirrored interval there
    sign = -1.0 if low > 0 else 1.0
    below, above = (ndtr(-low), ndtr(-high)) if low > 0 else (ndtr(low), ndtr(high))
    z = sign * ndtri(below + (above - below) * u)
    return np.asarray(np.clip(p["mean"] + p["sigma"] * z, p["low"], p["high"]))  # rounding only


def _rayleigh(p: Mapping[str, Any], u: Floats) -> Floats:
    inside = -math.expm1(-0.5 * (p["high"] / p["sigma"]) ** 2)
    return np.asarray(np.minimum(p["sigma"] * np.sqrt(-2.0 * np.log1p(-u * inside)), p["high"]))


def _fault_counts(p: Mapping[str, Any]) -> str:
    steep = abs(p["slope"]) * (p["high"] - p["low"])
    good = 0 < steep < 300  # beyond, all are at one end
    return _fault_interval(p) or ("" if good else f"slope = {p['slope']:g} must not be 0, nor near infinite")


def _counts(p: Mapping[str, Any], u: Floats) -> Floats:
    rate = p["slope"] * math.log(10.0)
    # from the end where they are most, so that nothing overflows
    low, high, u = (p["low"], p["high"], u) if rate < 0 else (p["high"], p["low"], 1.0 - u)
    values = low + np.log1p(u * math.expm1(rate * (high - low))) / rate
    return np.asarray(np.clip(values, p["low"], p["high"]))


def _beta(p: Mapping[str, Any], u: Floats) -> Floats:
    from scipy.special import betaincinv

    return np.asarray(p["low"] + (p["high"] - p["low"]) * betaincinv(p["a"], p["b"], u))


def _choice(p: Mapping[str, Any], u: Floats) -> NDArray[Any]:
    edges = np.cumsum(p["weights"]) / np.sum(p["weights"])
    edges[np.flatnonzero(p["weights"])[-1] :] = 1.0  # rounding must not select a value of weight zero
    return np.asarray(p["values"])[np.searchsorted(edges, u, side="right")]


_KINDS: dict[str, _Kind] = {
    "constant": _Kind({"value": None}, lambda p: "", _constant),
    "uniform": _Kind({"low": None, "high": None}, _fault_interval, _uniform),
    "loguniform": _Kind({"low": None, "high": None}, _fault_loguniform, _loguniform),
    "normal": _Kind(
        {"mean": None, "sigma": None, "low": -math.inf, "high": math.inf}, _fault_normal, _normal
    ),
    "rayleigh": _Kind({"sigma": None, "high": math.inf}, _fault_rayleigh, _rayleigh),
    "counts": _Kind({"slope": None, "low": None, "high": None}, _fault_counts, _counts),
    "beta": _Kind({"a": None, "b": None, "low": 0.0, "high": 1.0}, _fault_beta, _beta),
    "choice": _Kind({"values": None, "weights": ()}, _fault_choice, _choice),
}


def distribution_names() -> tuple[str, ...]:
    """Return the names that ``dist`` may take."""
    return tuple(_KINDS)
