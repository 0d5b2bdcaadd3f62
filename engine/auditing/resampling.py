"""Intervals by resampling hosts: rows of one host share its pixels, so a row is not the unit of evidence."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t as student_t

from arcforge.engine.auditing.checks import Interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval over hosts and its standard error."""

    value: float
    ci95: Interval
    se: float

    @property
    def least_size(self) -> float:
        """Least distance from zero within the interval."""
        low, high = self.ci95
        return 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))

    def widened(self, floor: float) -> Estimate:
        """Return the estimate with an interval of at least ``floor`` to each side, for shared errors."""
        low = min(self.ci95[0], self.value - floor)
        high = max(self.ci95[1], self.value + floor)
        return Estimate(self.value, (low, high), max(self.se, floor / 1.96))


def spread_rows(n: int, limit: int) -> NDArray[np.int64]:
    """Return at most ``limit`` of n rows, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(limit, n)).astype(np.int64))


class HostBootstrap:
    """Host resamples that all statistics of one audit share.

    Parameters
    ----------
    groups : int64 (n,)
        Host number of each row, 0 to n_groups - 1.
    n_resamples : int
        Number of resamples.
    rng : numpy Generator
        Where the draws come from.

    Notes
    -----
    Intervals are estimate +- t(0.975, hosts - 1) times the bootstrap standard error, corrected by
    hosts/(hosts - 1). Percentile intervals cover too little below some 50 hosts, and sets of 20 are common.
    """

    def __init__(self, groups: Integers, n_resamples: int, rng: np.random.Generator) -> None:
        self.groups = np.asarray(groups, dtype=np.int64)
        self.n_groups = int(self.groups.max()) + 1
        self.counts: Floats = rng.multinomial(
            self.n_groups, np.full(self.n_groups, 1.0 / self.n_groups), size=n_resamples
        ).astype(np.float64)
        self._inflation = np.sqrt(self.n_groups / max(self.n_groups - 1, 1))
        self._t = float(student_t.ppf(0.975, max(self.n_groups - 1, 1)))

    def of_rows(self, index: Integers) -> HostBootstrap:
        """Return the same resamples for some of the rows."""
        part = copy(self)
        part.groups = self.groups[index]
        return part

    def interval(self, value: float, resampled: Floats, extra_variance: float = 0.0) -> Estimate:
        """Return ``value`` with its interval, from the same statistic of every resample (resamples,)."""
        kept = resampled[np.isfinite(resampled)]
        spread = float(np.std(kept, ddof=1)) * self._inflation if kept.size > 1 else float("nan")
        se = float(np.sqrt(spread**2 + extra_variance))
        return Estimate(float(value), (float(value - self._t * se), float(value + self._t * se)), se)

    def share(self, value: float, resampled: Floats, extra_variance: float = 0.0) -> Estimate:
        """Return a share or an AUC with its interval, which is symmetric in log(value / (1 - value)).

        Near 1 the error falls with the distance from 1, and estimates above the truth would seem the surer
        ones. A value of exactly 0 or 1 gets what as many hosts, each won or lost as a whole, leave open.
        """
        estimate = self.interval(value, resampled, extra_variance)
        if not 0.0 < value < 1.0:
            open_share = 1.0 - 0.025 ** (1.0 / self.n_groups)
            low, high = max(value - open_share, 0.0), min(value + open_share, 1.0)
            return Estimate(estimate.value, (low, high), estimate.se) if value == value else estimate
        half = self._t * estimate.se / (value * (1.0 - value))
        low, high = (float(expit(logit(value) + side * half)) for side in (-1.0, 1.0))
        return Estimate(estimate.value, (low, high), estimate.se)

    def sums(self, values: Floats) -> tuple[Floats, Floats]:
        """Sum rows by host. Returns the total over hosts (...) and of each resample (resamples, ...)."""
        by_host = np.zeros((self.n_groups, *values.shape[1:]))
        np.add.at(by_host, self.groups, values)
        return by_host.sum(0), np.tensordot(self.counts, by_host, axes=1)

    def mean(self, values: Floats, weights: Floats | None = None) -> Estimate:
        """Weighted mean over rows (n,); weights default to 1. Rows with weight 0 may hold anything."""
        weight = np.ones(len(values)) if weights is None else weights
        return self.ratio(np.where(weight > 0, values * weight, 0.0), weight)

    def ratio(self, numerator: Floats, denominator: Floats) -> Estimate:
        """Ratio of two sums over rows."""
        top, tops = self.sums(numerator)
        bottom, bottoms = self.sums(denominator)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.interval(float(top / bottom), tops / bottoms)

    def median(self, values: Floats, information: Floats | None = None) -> Estimate:
        """Median over rows, every host counting alike.

        Parameters
        ----------
        values : float64 (n,)
            NaN rows are left out.
        information : float64 (n,), optional
            What each row knows of the value; rows count by it, none for more than a tenth of all.
        """
        known = np.isfinite(values)
        weight = known.astype(np.float64)
        if information is not None:
            weight = np.where(known, information, 0.0)
            weight = np.minimum(weight, 0.1 * weight.sum())
        else:
            rows_of_host = np.bincount(self.groups, weights=weight, minlength=self.n_groups)
            weight = weight / np.maximum(rows_of_host[self.groups], 1.0)
        order = np.argsort(np.where(known, values, np.inf), kind="stable")
        ranked = values[order]
        # the first row of counts is the sample itself, every host once
        counts = np.vstack([np.ones(self.n_groups), self.counts])
        cumulative = np.cumsum((counts[:, self.groups] * weight)[:, order], axis=1)
        half = cumulative[:, -1:] / 2
        lower = np.argmax(cumulative >= half * (1 - 1e-12), axis=1)
        upper = np.argmax(cumulative > half * (1 + 1e-12), axis=1)
        medians = 0.5 * (ranked[lower] + ranked[upper])
        return self.interval(float(medians[0]), medians[1:])

    def quantile(self, values: Floats, level: float) -> Estimate:
        """Quantile over rows (n,): the smallest value with at least that share of the rows at or below it."""
        order = np.argsort(values, kind="stable")
        weights = self.counts[:, self.groups[order]]
        cumulative = np.cumsum(weights, axis=1)
        picked = np.argmax(cumulative >= level * cumulative[:, -1:], axis=1)
        own = values[order][min(int(np.ceil(level * len(values))) - 1, len(values) - 1)]
        return self.interval(float(own), values[order][picked])


def simultaneous_half_width(bootstrap: HostBootstrap, value: Floats, resampled: Floats) -> Floats:
    """Half-widths (k,) of a 95 % band for all values at once, by the largest |t| of each resample.

    ``value`` is (k,), ``resampled`` (resamples, k).
    """
    spread = np.std(resampled, axis=0, ddof=1) * np.sqrt(bootstrap.n_groups / max(bootstrap.n_groups - 1, 1))
    safe = np.where(spread > 0, spread, 1.0)
    largest = np.max(np.abs(resampled - value) / safe, axis=1)
    return np.asarray(np.quantile(largest, 0.95) * spread)
