"""The request's four tests, each as observed AND as the recorded parameters predict it.

Alone, none of them can tell a bug from physics: every rendering bug scales with the arc. Against the
prediction they can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.bins import bin_label, can_be_judged, theta_e_bins
from arcforge.engine.auditing.checks import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    SKIPPED,
    Finding,
    judge_equivalence,
)
from arcforge.engine.auditing.resampling import Estimate, HostBootstrap, simultaneous_half_width

if TYPE_CHECKING:
    from arcforge.engine.auditing.state import AuditState

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

_SLOPE_PAIRS = 4000
_SLOPE_RESAMPLES = 300
# The request's Test 4 looks at well-resolved lenses only
_RESOLVED_THETA_E_ARCSEC = 2.0


def _not_predicted(state: AuditState, hint: str) -> Finding | None:
    """Without parameters a test is a hint and decides nothing."""
    if state.has_parameters:
        return None
    return Finding(SKIPPED, f"{hint}; without recorded parameters there is no prediction to hold it against")


def _mean_light(state: AuditState, images: Images, pixels: NDArray[np.bool_]) -> Floats:
    """Mean over pixels (y, x) or (n, band, y, x), in sky sigmas, averaged over bands: (n,)."""
    chosen = np.broadcast_to(pixels, images.shape)
    count = chosen.sum((2, 3))
    mean = np.sum(images, axis=(2, 3), where=chosen, dtype=np.float64) / np.maximum(count, 1)
    return np.asarray(np.mean(mean / state.sky_sigma, axis=1))


def check_outer_annulus(state: AuditState) -> Finding:
    """P1: nothing is added far from the arc beyond the arc's own wings."""
    outer = state.distance >= state.thresholds["core.outer_pix"]
    observed = state.bootstrap.mean(_mean_light(state, state.added, outer))
    core = state.bootstrap.mean(_mean_light(state, state.added, state.core))
    hint = f"outer annulus {observed.value:+.2e} sky sigma, core {core.value:+.3g}"
    missing = _not_predicted(state, hint)
    if missing:
        return missing
    limit = state.thresholds["tests.pedestal_sigma"]
    places = {"outer annulus": outer, "arc-free pixels": state.arc_free}

    share = state.thresholds["tests.pedestal_wings"]

    def judge(model: Images) -> Finding:
        excess = state.added - model
        found = []
        for name, place in places.items():
            measured = state.bootstrap.mean(_mean_light(state, excess, place))
            predicted = float(np.mean(_mean_light(state, model, place)))
            found.append((name, measured, predicted, limit + share * abs(predicted)))
        _, worst, _, allowed = max(found, key=lambda f: max(abs(c) for c in f[1].ci95) / f[3])
        outside = found[0][2]
        state.evidence["P1"] = {
            "outer_observed_sigma": observed.value,
            "outer_predicted_sigma": outside,
            "core_observed_sigma": core.value,
            "excess_sigma": {name: e.value for name, e, _, _ in found},
        }
        text = (
            f"outer annulus {observed.value:+.2e} sky sigma observed, {outside:+.2e} predicted; "
            f"largest excess {worst.value:+.2e}"
        )
        return Finding(
            judge_equivalence(worst.ci95, -allowed, allowed), text, worst.value, worst.ci95, allowed
        )

    return state.with_cut_kernel(judge)


def check_regression(state: AuditState) -> Finding:
    """P2: core light follows theta_E, arc flux outside the core and S/N as predicted."""
    observed = _regressors(state, state.added)
    missing = _not_predicted(
        state, "core light correlates with arc flux, as it would under every rendering bug"
    )
    if missing:
        return missing
    predicted = _regressors(state, state.model)
    rng = state.rng("slopes")
    n = len(state.pairs)
    first, second = rng.integers(n, size=(2, _SLOPE_PAIRS))
    slopes: dict[str, Any] = {}
    for name in ("theta_e_arcsec", "flux_outside_nmgy", "arc_snr"):
        of_data = _theil_sen(observed[name], observed["core_nmgy"], first, second, state.bootstrap)
        of_model = _theil_sen(predicted[name], predicted["core_nmgy"], first, second, state.bootstrap)
        slopes[name] = {"observed": of_data, "predicted": of_model}
    ratio = _slope_ratio(observed, predicted, state.bootstrap)
    state.evidence["P2"] = slopes
    limit = state.thresholds["tests.slope_ratio"]
    shown = ", ".join(
        f"{name} {_short(of['observed']['slope'])} / {_short(of['predicted']['slope'])}"
        for name, of in slopes.items()
    )
    text = (
        f"slope of core light on arc flux outside the core: {ratio.value:.4f} times the predicted one "
        f"(robust slopes, observed / predicted: {shown})"
    )
    return Finding(judge_equivalence(ratio.ci95, 1 - limit, 1 + limit), text, ratio.value, ratio.ci95, limit)


def _regressors(state: AuditState, images: Images) -> dict[str, Floats]:
    core = np.sum(images, axis=(1, 2, 3), where=state.core, dtype=np.float64)
    total = images.sum((1, 2, 3), dtype=np.float64)
    snr = np.sqrt(np.mean(np.sum(images.astype(np.float64) ** 2, axis=(2, 3)) / state.sky_sigma**2, axis=1))
    return {
        "core_nmgy": core,
        "flux_outside_nmgy": total - core,
        "theta_e_arcsec": state.theta_e_arcsec,
        "arc_snr": snr,
    }


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _theil_sen(
    x: Floats, y: Floats, first: NDArray[np.int64], second: NDArray[np.int64], bootstrap: HostBootstrap
) -> dict[str, Any]:
    """Median slope over random pairs of rows, with its interval (a pair weighs by both hosts)."""
    dx = x[second] - x[first]
    used = dx != 0
    if not used.any():
        return {"slope": None, "ci95": None}
    slope = (y[second] - y[first])[used] / dx[used]
    order = np.argsort(slope, kind="stable")
    counts, groups = bootstrap.counts[:_SLOPE_RESAMPLES], bootstrap.groups
    weight = counts[:, groups[first[used]]] * counts[:, groups[second[used]]]
    cumulative = np.cumsum(weight[:, order], axis=1)
    middle = np.argmax(cumulative >= 0.5 * cumulative[:, -1:], axis=1)
    estimate = bootstrap.interval(float(np.median(slope)), slope[order][middle])
    return {"slope": estimate.value, "ci95": list(estimate.ci95)}


def _slope_ratio(
    observed: dict[str, Floats], predicted: dict[str, Floats], bootstrap: HostBootstrap
) -> Estimate:
    """Observed over predicted least-squares slope of core light on flux outside the core, with its interval.

    Medians of slopes jump from one pair of rows to the next, and a resample's predicted slope may pass
    through zero; so slopes are by least squares, and their difference in each resample is divided by one
    predicted slope (or its standard error where the slope is not known to differ from zero).
    """
    slopes = []
    for measured in (observed, predicted):
        x, y = measured["flux_outside_nmgy"], measured["core_nmgy"]
        sums, resampled = bootstrap.sums(np.stack([np.ones_like(x), x, y, x * x, x * y], axis=1))
        n, sx, sy, sxx, sxy = np.vstack([sums, resampled]).T
        with np.errstate(invalid="ignore", divide="ignore"):
            slopes.append((n * sxy - sx * sy) / (n * sxx - sx * sx))
    known = slopes[1][1:][np.isfinite(slopes[1][1:])]  # a resample of one host has no slope
    scale = max(abs(slopes[1][0]), float(known.std()) if len(known) else 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = 1.0 + (slopes[0] - slopes[1]) / scale
    return bootstrap.interval(float(ratio[0]), ratio[1:])


def check_core_share(state: AuditState) -> Finding:
    """P3: the share of the arc's light in the core, by theta_E, is the predicted one."""
    flux = state.model.sum((1, 2, 3), dtype=np.float64) if state.has_parameters else np.ones(len(state.pairs))
    scale = np.where(flux > 0, flux, np.inf)
    parts = {"observed": state.added, **({"predicted": state.model} if state.has_parameters else {})}
    core = {
        k: np.sum(i, axis=(1, 2, 3), where=state.core, dtype=np.float64) / scale for k, i in parts.items()
    }
    total = {k: i.sum((1, 2, 3), dtype=np.float64) / scale for k, i in parts.items()}
    table, statuses, worst = [], [], None
    limit = state.thresholds["tests.core_share"]
    for low, high, rows in theta_e_bins(state.theta_e_arcsec):
        entry: dict[str, Any] = {"theta_e_arcsec": bin_label(low, high), "n_pairs": int(rows.sum())}
        shares = {k: _share(state.bootstrap, core[k], total[k], rows) for k in parts}
        entry |= {k: {"share": e.value, "ci95": list(e.ci95)} for k, (e, _) in shares.items()}
        if state.has_parameters:
            difference = state.bootstrap.interval(
                shares["observed"][0].value - shares["predicted"][0].value,
                shares["observed"][1] - shares["predicted"][1],
            )
            entry["difference"] = {"share": difference.value, "ci95": list(difference.ci95)}
            if can_be_judged(rows, state.pairs.groups):
                statuses.append(judge_equivalence(difference.ci95, -limit, limit))
                if worst is None or abs(difference.value) > abs(worst.value):
                    worst = difference
        table.append(entry)
    state.evidence["P3"] = table
    shown = ", ".join(f"{b['theta_e_arcsec']} {100 * b['observed']['share']:.0f} %" for b in table)
    missing = _not_predicted(state, f"core share {shown}")
    if missing:
        return missing
    if worst is None:
        return Finding(INCONCLUSIVE, "no theta_E bin holds enough pairs of enough hosts", threshold=limit)
    status = FAIL if FAIL in statuses else INCONCLUSIVE if INCONCLUSIVE in statuses else PASS
    text = f"core share {shown}; largest departure from the prediction {100 * worst.value:+.2f} % absolute"
    return Finding(status, text, worst.value, worst.ci95, limit)


def _share(
    bootstrap: HostBootstrap, core: Floats, total: Floats, rows: NDArray[np.bool_]
) -> tuple[Estimate, Floats]:
    """Share of summed light in the core over some rows, and of host resamples."""
    top, tops = bootstrap.sums(np.where(rows, core, 0.0))
    bottom, bottoms = bootstrap.sums(np.where(rows, total, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = tops / bottoms
        return bootstrap.interval(float(top / bottom), resampled), resampled


def check_profile(state: AuditState) -> Finding:
    """P4: the radial profile of the added light is the predicted one, at all radii at once."""
    rings = state.thresholds.count("core.profile_pix")
    which = np.minimum(state.distance.astype(np.int64), rings)
    observed = _profiles(state.added, which, rings)
    if not state.has_parameters:
        state.evidence["P4"] = {"all": {"observed": observed.mean(0).tolist()}}
        return Finding(
            SKIPPED, "without recorded parameters there is no profile to hold the observed one against"
        )
    predicted = _profiles(state.model, which, rings)
    # of either sign: noise in an image of a galaxy, magnified, may leave a row without a bright ring
    peak = np.maximum(np.abs(predicted).max(1), 1e-30)[:, None]
    limit = state.thresholds["tests.profile_share"]
    groups = {
        "all": np.ones(len(peak), dtype=bool),
        "resolved": state.theta_e_arcsec >= _RESOLVED_THETA_E_ARCSEC,
    }
    results = {
        name: _compare(state.bootstrap, observed / peak, predicted / peak, rows)
        for name, rows in groups.items()
        if name == "all" or can_be_judged(rows, state.pairs.groups)
    }
    state.evidence["P4"] = {name: result for name, (result, _, _) in results.items()}
    _, difference, half_width = results["all"]
    ring = int(np.argmax(np.abs(difference)))
    inside = np.abs(difference) + half_width <= limit
    outside = np.abs(difference) - half_width > limit
    status = PASS if inside.all() else FAIL if outside.any() else INCONCLUSIVE
    value, half = float(difference[ring]), float(half_width[ring])
    text = f"largest departure {100 * value:+.2f} % of the profile's peak, at r = {ring}-{ring + 1} px"
    return Finding(status, text, value, (value - half, value + half), limit)


def _profiles(images: Images, which: NDArray[np.int64], rings: int) -> Floats:
    """Mean over each 1-px ring, summed over bands: (n, rings)."""
    n = len(images)
    summed = images.sum(1, dtype=np.float64).reshape(n, -1)
    ring = np.zeros((summed.shape[1], rings + 1))
    ring[np.arange(summed.shape[1]), which.ravel()] = 1.0
    return np.asarray((summed @ ring / ring.sum(0))[:, :rings])


def _compare(
    bootstrap: HostBootstrap, observed: Floats, predicted: Floats, rows: NDArray[np.bool_]
) -> tuple[dict[str, Any], Floats, Floats]:
    """Mean profiles relative to the predicted peak, their difference, its simultaneous half-width."""
    weight = rows.astype(np.float64)[:, None]
    count, counts = bootstrap.sums(weight)
    means, resampled = {}, {}
    for name, profiles in (("observed", observed), ("predicted", predicted)):
        total, totals = bootstrap.sums(profiles * weight)
        means[name] = total / count
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled[name] = totals / counts
    top = means["predicted"].max()
    difference = (means["observed"] - means["predicted"]) / top
    valid = np.isfinite(resampled["observed"]).all(1)
    of_resamples = (resampled["observed"] - resampled["predicted"])[valid] / top
    half_width = simultaneous_half_width(bootstrap, difference, of_resamples)
    scatter = simultaneous_half_width(
        bootstrap, means["predicted"] / top, resampled["predicted"][valid] / top
    )
    table = {
        "n_pairs": int(rows.sum()),
        "radius_pix": (np.arange(len(difference)) + 0.5).tolist(),
        "observed": (means["observed"] / top).tolist(),
        "predicted": (means["predicted"] / top).tolist(),
        "predicted_half_width": scatter.tolist(),
        "difference_half_width": half_width.tolist(),
    }
    return table, difference, half_width
