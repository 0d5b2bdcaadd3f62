"""Fitting the nuisance parameters: linearised by finite differences of re-renders, each row solved on its
own.

The rows share one point, at which the model is rendered; around it every row is solved by weighted least
squares, and the point moves until all rows together want no further step (Gauss-Newton). Rows then vote
through their hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.forward import NOMINAL, Edge, Forward
from arcforge.engine.auditing.nuisance import (
    EDGES,
    RENDERED_STEPS,
    FitData,
    Point,
    after_step,
    is_scale,
    is_width_of_band,
)
from arcforge.engine.errors import ArcforgeError
from arcforge.engine.threads import for_each, usable_threads

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Integers = NDArray[np.int64]

# How exactly the edge of a kernel needs to be known
_EDGE_UNITS = {"kernel_edge_pix": 10.0, "kernel_edge_fwhm": 2.0}
_LARGEST_LOG_STEP, _LARGEST_OFFSET_STEP_PIX = 0.35, 1.0
# Rows whose design matrices are held at once (12 parameters x 12288 pixels x 4 bytes each)
_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """A point, how each of n rows departs from it, and what remains.

    Attributes
    ----------
    point : Point
    free : tuple of str
        Parameters that rows were solved for.
    chi2 : (n,)
        Weighted sum of squares at the shared point.
    steps : (n, len(free))
        Each row's own departure (logarithm for scales).
    information : (n, len(free))
        1 / variance of that departure, in units of the weights: what the row knows of it.
    total_step : (len(free),)
        The departure that suits all rows together.
    left : (n,)
        What of ``chi2`` remains after the row's own steps.
    rms_of_peak, rms_of_sky : (n,)
        Root mean square over the arc's pixels that remains after the row's own steps, of the arc's peak and
        of the sky sigma; the larger over bands.
    structured : (n,)
        The part of the mean square (of the peak) that a pixel shares with its neighbours, beyond what it
        shares beside the arc: noise adds nothing.
    """

    point: Point
    free: tuple[str, ...]
    chi2: Floats
    steps: Floats
    information: Floats
    total_step: Floats
    left: Floats
    rms_of_peak: Floats
    rms_of_sky: Floats
    structured: Floats

    def known(self, name: str) -> Floats:
        """Return what each row knows of a free parameter, as weights: (n,)."""
        return self.information[:, self.free.index(name)]

    def values(self, name: str) -> Floats:
        """Return each row's own value of a free parameter: (n,)."""
        return np.asarray(after_step(name, self.point[name], self.steps[:, self.free.index(name)]))


def evaluate(forward: Forward, data: FitData, point: Point, free: Sequence[str]) -> Evaluation:
    """Render at a point, solve each row for its own departure, and measure what remains."""
    names = tuple(free)
    n = len(data.rows)
    joined = in_batches(n, lambda rows: _evaluate_batch(forward, data.take(rows), point, names))
    normal, gradient = joined.pop("normal").sum(0), joined.pop("gradient").sum(0)
    total = np.linalg.lstsq(normal, gradient, rcond=1e-12)[0] if names else np.zeros(0)
    return Evaluation(point=point, free=names, total_step=total, **joined)


def in_batches(n: int, measure: Callable[[Integers], dict[str, Floats]]) -> dict[str, Floats]:
    """Measure rows in batches, on every core, and join the results row by row."""
    batches = [np.arange(begin, min(begin + _BATCH, n)) for begin in range(0, n, _BATCH)]
    parts: list[dict[str, Floats]] = [{}] * len(batches)

    def run(k: int) -> None:
        parts[k] = measure(batches[k])

    for_each(run, range(len(batches)), usable_threads(None))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def fit(
    forward: Forward,
    data: FitData,
    start: Point,
    free: Sequence[str],
    tolerance: float = 5e-4,
    max_iterations: int = 12,
) -> Evaluation:
    """Move the shared point until the step that suits all rows is small; harmful steps are cut.

    Parameters
    ----------
    forward : Forward
    data : FitData
    start : Point
        Where to begin.
    free : sequence of str
        Parameters to move.
    tolerance : float
        In pixels, relative (scales, gain), or sky sigmas (pedestals).
    max_iterations : int
        Steps at most.

    Returns
    -------
    Evaluation
        At the best point found.
    """
    names = tuple(free)
    sky = float(np.median(data.sky_sigma))
    unit = np.array([sky if n.startswith("pedestal") else _EDGE_UNITS.get(n, 1.0) for n in names])
    best = evaluate(forward, data, start, names)
    step = _limited(names, best.total_step)
    for _ in range(max_iterations):
        if np.max(np.abs(step / unit), initial=0.0) < tolerance:
            break
        trial = _try(forward, data, best.point.moved(names, step), names)
        if trial is not None and trial.chi2.sum() < best.chi2.sum():
            best, step = trial, _limited(names, trial.total_step)
        else:
            step = step / 3.0
    return best


def _try(forward: Forward, data: FitData, point: Point, names: tuple[str, ...]) -> Evaluation | None:
    try:
        return evaluate(forward, data, point, names)
    except ArcforgeError:  # the step left what can be rendered, e.g. a PSF that no grid can hold
        return None


def _limited(names: tuple[str, ...], steps: Floats) -> Floats:
    """Shorten a step that leaves the range in which the linear model can be trusted."""
    ratio = 1.0
    for name, step in zip(names, steps, strict=True):
        if name in RENDERED_STEPS or is_width_of_band(name):
            largest = _LARGEST_LOG_STEP if is_scale(name) else _LARGEST_OFFSET_STEP_PIX
            ratio = min(ratio, largest / max(abs(float(step)), largest))
    return np.asarray(steps * ratio)


def _evaluate_batch(
    forward: Forward, data: FitData, point: Point, names: tuple[str, ...]
) -> dict[str, Floats]:
    n = len(data.rows)
    unit = data.recorded if point.change == NOMINAL else forward.render(data.rows, point.change)
    residual = _residual(data, point, unit)
    root = _root_weights(data)
    design = _design(forward, data, point, names, unit)
    weighted = (root * residual).reshape(n, -1)
    normal = np.matmul(design, design.transpose(0, 2, 1)).astype(np.float64)
    gradient = np.matmul(design, weighted[:, :, None])[:, :, 0].astype(np.float64)
    # a unit prior about the shared point keeps what a row cannot tell at what the others say
    covariance = np.linalg.inv(normal + np.eye(len(names))) if names else normal
    steps = np.einsum("npq,nq->np", covariance, gradient)
    left = weighted - np.matmul(steps[:, None, :].astype(np.float32), design)[:, 0]
    return {
        "normal": normal,
        "gradient": gradient,
        "steps": steps,
        "information": 1.0 / np.einsum("npp->np", covariance),
        "chi2": np.einsum("ij,ij->i", weighted, weighted, dtype=np.float64),
        "left": np.einsum("ij,ij->i", left, left, dtype=np.float64),
        **measure_residual(
            left.reshape(residual.shape) / _root_of_bands(data),
            data.arc,
            data.beside,
            data.peak,
            data.sky_sigma,
        ),
    }


def best_kernel_edge(
    forward: Forward, data: FitData, point: Point, free: Sequence[str], edges: Sequence[Edge]
) -> tuple[Edge, float]:
    """Find the edge of a finite PSF kernel that leaves the least misfit, the rest let go.

    Judged with the others held, an edge would be held where they already are.

    Returns
    -------
    edge : Edge
    share : float
        Its misfit, as a share of that without an edge.
    """
    names = tuple(free)

    def measure(rows: Integers) -> dict[str, Floats]:
        part = data.take(rows)
        whole = forward.render(part.rows, point.change)
        design = _design(forward, part, point, names, whole)
        units = (whole, *forward.cut(part.rows, point.change, edges))
        left = [(_root_weights(part) * _residual(part, point, unit)).reshape(len(rows), -1) for unit in units]
        return {
            "normal": np.einsum("npx,nqx->npq", design, design, dtype=np.float64),
            "gradients": np.stack([np.einsum("npx,nx->np", design, w, dtype=np.float64) for w in left], 1),
            "squares": np.stack([np.einsum("nx,nx->n", w, w, dtype=np.float64) for w in left], 1),
        }

    total = {key: of_rows.sum(0) for key, of_rows in in_batches(len(data.rows), measure).items()}
    gains = [
        float(g @ np.linalg.lstsq(total["normal"], g, rcond=1e-12)[0]) if names else 0.0
        for g in total["gradients"]
    ]
    misfits = total["squares"] - np.array(gains)
    best = int(np.argmin(misfits[1:]))
    return edges[best], float(misfits[1 + best]) / max(float(misfits[0]), 1e-300)


def _root_weights(data: FitData) -> Images:
    return np.asarray(_root_of_bands(data) * data.seen)


def _root_of_bands(data: FitData) -> Images:
    return np.asarray(np.sqrt(data.weights).astype(np.float32)[:, :, None, None])


def _flux_scales(data: FitData, point: Point) -> Images:
    return np.array([point[f"flux_scale_{band}"] for band in data.bands], dtype=np.float32)[:, None, None]


def _residual(data: FitData, point: Point, unit: Images) -> Images:
    """What the model leaves of the data; ``unit`` is the model with all flux scales 1."""
    residual = data.added - unit * _flux_scales(data, point)
    for name, value in point.values.items():
        if not is_scale(name) and name not in RENDERED_STEPS:
            residual = residual - np.float32(value) * data.linear_term(name, unit)
    return residual


def _design(forward: Forward, data: FitData, point: Point, names: tuple[str, ...], unit: Images) -> Images:
    """Weighted derivatives of the model: (n, parameter, pixel of all bands)."""
    n = len(data.rows)
    root, scales = _root_weights(data), _flux_scales(data, point)
    design = np.empty((n, len(names), unit[0].size), dtype=np.float32)
    of_width: Images | None = None
    for k, name in enumerate(names):
        if not is_width_of_band(name):
            design[:, k] = (root * _derivative(forward, data, point, name, unit, scales)).reshape(n, -1)
            continue
        if of_width is None:  # a band's width moves that band only, so that one derivative holds them all
            of_width = root * _derivative(forward, data, point, "psf_width", unit, scales)
        band = data.bands.index(name[-1])
        design[:, k] = 0.0
        design[:, k].reshape(of_width.shape)[:, band] = of_width[:, band]
    return design


def _derivative(
    forward: Forward, data: FitData, point: Point, name: str, unit: Images, scales: Images
) -> Images:
    if name not in RENDERED_STEPS:
        return data.linear_term(name, unit) * np.float32(point[name] if is_scale(name) else 1.0)
    half = RENDERED_STEPS[name]
    # the cut of a finite kernel moves other derivatives by per mille and costs as much again: left out of
    # them
    smooth = point if name in EDGES else point.whole()
    ahead, behind = (
        forward.render(data.rows, smooth.moved([name], np.array([sign * half])).change)
        for sign in (1.0, -1.0)
    )
    return (ahead - behind) * scales / np.float32(2.0 * half)


def measure_residual(
    residual: Images,
    arc: NDArray[np.bool_],
    beside: NDArray[np.bool_],
    peak: Floats,
    sky_sigma: Floats,
) -> dict[str, Floats]:
    """Measure what a model leaves, over the arc's pixels.

    Parameters
    ----------
    residual : float32 (n, band, y, x)
    arc, beside : bool (n, band, y, x)
        Pixels that count as arc, and those without arc that tell what noise leaves.
    peak, sky_sigma : float64 (n, band)
        Of the predicted arc and of the control's sky; a band without light is left out.

    Returns
    -------
    dict
        ``rms_of_peak``, ``rms_of_sky``, ``structured``, each (n,), as :class:`Evaluation` describes.
    """
    lit = peak > 0
    safe_peak = np.where(lit, peak, 1.0)
    n_arc = np.maximum(arc.sum((2, 3)), 1)
    square = np.einsum("nbyx,nbyx,nbyx->nb", residual, residual, arc, dtype=np.float64) / n_arc
    rms = np.sqrt(square)
    shared = _shared_by_neighbours(residual, arc) - _shared_by_neighbours(residual, beside)
    return {
        "rms_of_peak": np.where(lit, rms / safe_peak, 0.0).max(1),
        "rms_of_sky": np.where(lit, rms / sky_sigma, 0.0).max(1),
        "structured": np.where(lit, shared / safe_peak**2, 0.0).mean(1),
    }


def _shared_by_neighbours(residual: Images, where: NDArray[np.bool_]) -> Floats:
    """Mean product of neighbouring pixels that both count: (n, band), 0 where there are none."""
    found = np.zeros(residual.shape[:2])
    for one, other in _NEIGHBOURS:
        both = where[one] & where[other]
        products = np.einsum("nbyx,nbyx,nbyx->nb", residual[one], residual[other], both, dtype=np.float64)
        found += 0.5 * products / np.maximum(both.sum((2, 3)), 1)
    return found


# Each pixel with the next one in y and in x
_NEIGHBOURS = (
    ((slice(None), slice(None), slice(None, -1)), (slice(None), slice(None), slice(1, None))),
    (
        (slice(None), slice(None), slice(None), slice(None, -1)),
        (slice(None), slice(None), slice(None), slice(1, None)),
    ),
)
