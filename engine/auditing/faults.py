"""The fault dictionary: every named way in which pixels can depart from their record, fitted to the same
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from arcforge.engine.auditing.bank import HALF_SIZES_ARCSEC, BankPedestal
from arcforge.engine.auditing.nuisance import FitData, Point, parameter_names, parameters_of
from arcforge.engine.auditing.readings import NAMED, ONE_WIDTH, READINGS
from arcforge.engine.auditing.resampling import spread_rows
from arcforge.engine.auditing.solve import Evaluation, best_kernel_edge, evaluate, fit
from arcforge.engine.auditing.transforms import list_transforms
from arcforge.engine.errors import ArcforgeError

if TYPE_CHECKING:
    from arcforge.engine.auditing.diagnosis import Judge
    from arcforge.engine.auditing.forward import Edge, Forward

Floats = NDArray[np.float64]

# Starting values of the scales: the linear model alone does not reach from 1 to a sigma taken for a FWHM
_STARTS = {
    "psf_width": (0.2, 0.3, 0.45, 0.65, 0.85, 1.0, 1.2, 1.5, 2.0, 2.6, 3.6, 5.5, 8.5),
    "theta_e_scale": (0.6, 0.75, 0.9, 1.0, 1.1, 1.25, 1.45, 1.75),
    "source_size": (0.1, 0.3, 0.6, 1.0, 1.5, 2.2, 3.5, 6.0),
}
# Edges of a finite PSF kernel that are tried before the fit
_KERNEL_EDGES = (
    *(("kernel_edge_pix", h) for h in (5.5, 7.5, 9.5, 12.5, 15.5, 18.5, 21.5, 24.5, 28.5, 33.5, 40.5)),
    *(("kernel_edge_fwhm", h) for h in (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)),
)
# A finite kernel is taken into the model where it removes at least this share of the misfit
_KERNEL_GAIN = 0.2
_SCAN_ROWS, _SEARCH_ROWS = 12, 48
_FINALISTS = 3
# The fit of everything at once shows what several faults may do; where none explains, it need not converge
_JOINT_ITERATIONS = 6
_FAULTS_OF_THE_IMAGE = ("orientation", "band_order")
# A turned or exchanged image, or another reading of the record, is the base for further faults only where
# undoing it removes this share of the misfit
_TRANSFORM_GAIN = 0.5
# It is tried as well where it leaves so many times the misfit of the best at most
_NEAR_THE_BEST = 3.0


def _as_it_is(data: FitData) -> FitData:
    return data


@dataclass(frozen=True)
class Hypothesis:
    """One explanation, fitted.

    Attributes
    ----------
    causes : tuple of str
        Names of the faults that it consists of; empty for the record itself.
    detail : str
        What exactly, in words.
    point : Point
        Best values.
    free : tuple of str
        Fitted parameters.
    chi2 : (n,)
        Misfit of each searched row at the shared point.
    explains : bool
        The residual passes.
    apply : callable
        Brings data into the form in which the model applies (undoes a transform, adds a template).
    """

    causes: tuple[str, ...]
    detail: str
    point: Point
    free: tuple[str, ...]
    chi2: Floats
    explains: bool
    apply: Callable[[FitData], FitData] = field(default=_as_it_is, repr=False)

    @property
    def misfit(self) -> float:
        """Sum of squares over the searched rows."""
        return float(self.chi2.sum())


def search_rows(n: int) -> NDArray[np.int64]:
    """Return the rows that hypotheses are compared on."""
    return spread_rows(n, _SEARCH_ROWS)


def search(forward: Forward, data: FitData, judge: Judge) -> list[Hypothesis]:
    """Fit every explanation; those that explain come first (fewest faults first), then by misfit."""
    finder = _Finder(forward, data.take(search_rows(len(data.rows))), judge)
    record = finder.with_finite_kernel(finder.record())
    if record.explains:
        return [record]
    found = [record, *finder.without_parameters()]
    found += finder.singles(min((h.misfit for h in found if h.explains), default=np.inf))
    found.sort(key=_rank)
    if not found[0].explains:
        most = found[0].misfit
        found += [finder.source_bank(), *(finder.widths_by_band(most, name) for name in ("", ONE_WIDTH))]
        found.sort(key=_rank)
    found[0] = finder.with_finite_kernel(found[0])
    if not found[0].explains:
        found += finder.several(found)
        found.sort(key=_rank)
    return found


def _rank(hypothesis: Hypothesis) -> tuple[bool, int, float]:
    n_causes = len(hypothesis.causes) if hypothesis.explains else 0
    return (not hypothesis.explains, n_causes, hypothesis.misfit)


def _of_reading(name: str) -> tuple[tuple[str, ...], str]:
    """Return causes and words of a reading of the record."""
    return (READINGS[name].cause,), READINGS[name].words


def near_the_best(found: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Return explanations that no step leads to, near the best that steps lead to.

    Beside another fault, fluxes or a source bank may stand in for exchanged bands or turned angles.
    """
    record = next(h for h in found if not h.causes)
    most = min(_TRANSFORM_GAIN * record.misfit, _NEAR_THE_BEST * found[0].misfit)
    leaps: dict[str, Hypothesis] = {}
    for h in sorted(found, key=lambda h: h.misfit):
        is_leap = h.point.reading or h.point.width_by_band or set(h.causes) & set(_FAULTS_OF_THE_IMAGE)
        if is_leap and h.misfit <= most:
            leaps.setdefault(h.causes[0], h)
    return list(leaps.values())


@dataclass(frozen=True)
class _Look:
    """A first look at a cause; ``promise`` is the misfit a row that a fit from here may reach."""

    cause: str
    free: tuple[str, ...]
    point: Point
    apply: Callable[[FitData], FitData]
    promise: float


def find_kernel_edge(forward: Forward, data: FitData) -> Edge | None:
    """Return where the PSF kernel of pixels that the record explains ends; None where that gains little."""
    few = data.take(spread_rows(len(data.rows), _SCAN_ROWS))
    edge, share = best_kernel_edge(forward, few, Point(), (), _KERNEL_EDGES)
    return edge if share <= 1.0 - _KERNEL_GAIN else None


class _Finder:
    """Fits hypotheses to one set of rows; a coarse look at few rows decides which are worth the whole set."""

    def __init__(self, forward: Forward, data: FitData, judge: Judge) -> None:
        self.forward = forward
        self.data = data
        self.few_rows = spread_rows(len(data.rows), _SCAN_ROWS)
        self.judge = judge
        self.record_misfit: float | None = None

    def record(self) -> Hypothesis:
        record = self._evaluate((), "as recorded", Point(), ())
        self.record_misfit = record.misfit
        return record

    def without_parameters(self) -> list[Hypothesis]:
        """Flips, turns and exchanged bands, and the best of the other readings of the record."""
        # those of stamp or control show in the noise, and are taken back before any fit
        transforms = [t for t in list_transforms(self.data.bands) if t.part == "arc"]
        found = [self._evaluate((t.cause,), t.detail, Point(), (), t.undo) for t in transforms]
        few = self.data.take(self.few_rows)
        reading = min(NAMED, key=lambda name: self._misfit(few, Point(reading=name)))
        found.append(self._evaluate(*_of_reading(reading), Point(reading=reading), ()))
        return found

    def singles(self, least_misfit: float) -> list[Hypothesis]:
        """Every cause with parameters on its own.

        A coarse look at few rows ranks the causes; they are fitted in that order until one explains and none
        of the rest promises as much. ``least_misfit`` is that of an explanation found before.
        """
        coarse = sorted(
            (self._look(cause, names) for cause, names in parameters_of(self.data.bands).items()),
            key=lambda look: look.promise,
        )
        found: list[Hypothesis] = []
        for place, look in enumerate(coarse):
            if place >= _FINALISTS or look.promise * len(self.data.rows) > least_misfit:
                found.append(self._evaluate((look.cause,), "constant", look.point, look.free, look.apply))
            else:
                fitted = fit(self.forward, look.apply(self.data), look.point, look.free)
                found.append(self._hypothesis((look.cause,), "constant", fitted, look.apply))
                least_misfit = min(least_misfit, found[-1].misfit if found[-1].explains else np.inf)
        return found

    def _look(self, cause: str, names: tuple[str, ...]) -> _Look:
        """The best of a coarse scan on few rows (the record, for parameters that are nearly linear)."""
        apply = self._with_wraparound if cause == "wraparound" else _as_it_is
        few = apply(self.data.take(self.few_rows))
        points = (
            [Point({names[0]: value}) for value in _STARTS[names[0]]] if names[0] in _STARTS else [Point()]
        )
        misfits = [self._misfit(few, point) for point in points]
        start = points[int(np.argmin(misfits))]
        there = evaluate(self.forward, few, start, names)
        return _Look(cause, names, start, apply, float(there.left.mean()))

    def source_bank(self) -> Hypothesis:
        """A pedestal behind every source: the template's size by scan, its share of the flux by fit."""
        few_rows = self.data.rows[self.few_rows]
        bank = BankPedestal(self.forward, few_rows)
        few = self.data.take(self.few_rows)
        free = ("source_bank", *parameters_of(self.data.bands)["flux_scale"])

        def left(half_arcsec: float, square: bool) -> float:
            held = replace(few, templates={"source_bank": bank.template(half_arcsec, square)})
            return float(evaluate(self.forward, held, Point(), free).left.sum())

        # a disc between two of the tried sizes may fit better than a square there, and the other way round
        best = {}
        for square in (True, False):
            start = min(HALF_SIZES_ARCSEC, key=lambda half: left(half, square))
            best[square] = optimize.minimize_scalar(
                lambda h: left(float(h), square),  # noqa: B023  (used at once)
                bounds=(start / 1.35, start * 1.35),
                method="bounded",
                options={"maxiter": 14, "xatol": 1e-3},
            )
        square = best[True].fun <= best[False].fun
        half = best[square].x

        def apply(data: FitData) -> FitData:
            template = BankPedestal(self.forward, data.rows).template(float(half), square)
            return replace(data, templates={"source_bank": template})

        fitted = fit(self.forward, apply(self.data), Point(), free)
        shape = f"a square of {2 * half:.2f} arcsec" if square else f"a disc of {half:.2f} arcsec radius"
        return self._hypothesis(("pedestal",), f"behind every source, over {shape}", fitted, apply)

    def widths_by_band(self, most_misfit: float, reading: str = "") -> Hypothesis:
        """A PSF width of its own in each band: bands are apart, so that each is scanned alone.

        Fitted where a first look promises less than ``most_misfit``.
        """
        few = self.data.take(self.few_rows)
        start: dict[str, float] = {}
        names = parameters_of(self.data.bands, width_by_band=True)["psf_width"]
        for k, name in enumerate(names):
            only = few.of_band(k)
            start[name] = min(
                _STARTS["psf_width"],
                key=lambda width: self._misfit(only, Point({"psf_width": width}, reading)),
            )
        point, words = Point(start, reading), READINGS[reading].words if reading else "by band"
        promise = float(evaluate(self.forward, few, point, names).left.mean())
        if promise * len(self.data.rows) > most_misfit:
            return self._evaluate(("psf_width",), words, point, names)
        fitted = fit(self.forward, self.data, point, names)
        return self._hypothesis(("psf_width",), words, fitted)

    def with_finite_kernel(self, best: Hypothesis) -> Hypothesis:
        """Try whether the PSF kernel was cut to a square; the rest of the point is fitted again."""
        if best.point.edge:
            return best
        few = best.apply(self.data).take(self.few_rows)
        edge, share = best_kernel_edge(self.forward, few, best.point, best.free, _KERNEL_EDGES)
        if share > 1.0 - _KERNEL_GAIN:
            return best
        start = best.point.at(**dict([edge]))
        data = best.apply(self.data)
        found = fit(self.forward, data, start, (*best.free, edge[0]))
        if found.chi2.sum() >= (1.0 - _KERNEL_GAIN) * best.misfit:
            return best
        return self._evaluate(best.causes, best.detail, found.point, best.free, best.apply)

    def several(self, found: Sequence[Hypothesis]) -> list[Hypothesis]:
        """Several faults at once, from the best start; from others where that explains nothing."""
        result: list[Hypothesis] = []
        first = self._base(found)
        for base in (first, *(h for h in near_the_best(found) if h is not first)):
            tried = self._several_from(base)
            if tried[-1].explains:
                return tried
            result = result or tried
        return result

    def _several_from(self, base: Hypothesis) -> list[Hypothesis]:
        """All parameters at once, then only those that depart."""
        data = base.apply(self.data)
        parameters = parameters_of(data.bands, width_by_band=base.point.width_by_band)
        names = (*parameter_names(data.bands, width_by_band=base.point.width_by_band), *data.templates)
        fixed = tuple(c for c in base.causes if c in _FAULTS_OF_THE_IMAGE)
        if base.point.reading:
            cause = READINGS[base.point.reading].cause
            fixed = tuple(dict.fromkeys((*fixed, cause)))
            names = tuple(n for n in names if n not in parameters.get(cause, ()))
        # an edge that was taken up for want of another fault would stay where it is
        start = base.point.whole()
        every = fit(self.forward, data, start, names, max_iterations=_JOINT_ITERATIONS)
        causes = fixed + self._departing(every, data)
        result = [self._hypothesis(("provenance",), "all parameters at once", every, base.apply)]
        if len(fixed) < len(causes) <= self.judge.limits.count("faults.max_causes"):
            names = tuple(n for c in causes[len(fixed) :] for n in parameters[c])
            held = set(base.point.values) - set(every.free)
            values = {n: v for n, v in every.point.values.items() if n in names or n in held}
            start = replace(every.point, values=values)
            best = fit(self.forward, data, start, names)
            result.append(self.with_finite_kernel(self._hypothesis(causes, base.detail, best, base.apply)))
        return result

    def _base(self, found: Sequence[Hypothesis]) -> Hypothesis:
        """Return where to look for several faults from: the best, or the best with what no step leads to.

        Turned arcs, exchanged bands and other readings may gain little beside a large other fault.
        """
        record = next(h for h in found if not h.causes)
        base = found[0]
        if set(base.causes) & set(_FAULTS_OF_THE_IMAGE) and base.misfit > _TRANSFORM_GAIN * record.misfit:
            base = next(h for h in found if not set(h.causes) & set(_FAULTS_OF_THE_IMAGE))
        if set(base.causes) & set(_FAULTS_OF_THE_IMAGE) or base.point.reading:
            return base
        # whatever sources the bank of templates may have had, they stand in for another fault as well
        plain = next(h for h in found if h.apply is _as_it_is and not h.point.reading)
        few = self.data.take(self.few_rows)
        fluxes = parameters_of(few.bands)["flux_scale"]

        def left(apply: Callable[[FitData], FitData], point: Point) -> float:
            return float(evaluate(self.forward, apply(few), point, fluxes).left.sum())

        leaps = [
            (t.cause, t.detail, plain.point, t.undo) for t in list_transforms(few.bands) if t.part == "arc"
        ]
        for name in NAMED:
            (named,), detail = _of_reading(name)
            own = parameters_of(few.bands, width_by_band=plain.point.width_by_band).get(named, ())
            held = {n: value for n, value in plain.point.values.items() if n not in own}
            leaps.append((named, detail, Point(held, reading=name), _as_it_is))
        reached = [left(undo, point) for _, _, point, undo in leaps]
        cause, detail, point, undo = leaps[int(np.argmin(reached))]
        if min(reached) > _TRANSFORM_GAIN * min(left(h.apply, h.point) for h in (base, plain)):
            return base
        return self._evaluate((cause,), detail, point, plain.free, undo)

    def _departing(self, evaluation: Evaluation, data: FitData) -> tuple[str, ...]:
        """Causes whose parameters lie outside their tolerance, the one of the largest departure first."""
        from arcforge.engine.auditing.diagnosis import summarise

        bootstrap = self.judge.bootstrap.of_rows(search_rows(len(self.judge.bootstrap.groups)))
        nuisance = summarise(evaluation, data, bootstrap, self.judge.limits)
        parameters = parameters_of(data.bands, width_by_band=evaluation.point.width_by_band)
        size = {
            cause: max(nuisance[n].departure for n in names if n in nuisance)
            for cause, names in parameters.items()
            if any(n in nuisance and nuisance[n].outside for n in names)
        }
        return tuple(sorted(size, key=lambda cause: -size[cause]))

    def _misfit(self, data: FitData, point: Point) -> float:
        try:
            return float(evaluate(self.forward, data, point, ()).chi2.sum())
        except ArcforgeError:  # a width that no grid can hold
            return np.inf

    def _with_wraparound(self, data: FitData) -> FitData:
        return replace(data, templates={"wraparound": self.forward.wraparound(data.rows)})

    def _evaluate(
        self,
        causes: tuple[str, ...],
        detail: str,
        point: Point,
        free: Sequence[str],
        apply: Callable[[FitData], FitData] = _as_it_is,
    ) -> Hypothesis:
        evaluation = evaluate(self.forward, apply(self.data), point, free)
        return self._hypothesis(causes, detail, evaluation, apply)

    def _hypothesis(
        self,
        causes: tuple[str, ...],
        detail: str,
        evaluation: Evaluation,
        apply: Callable[[FitData], FitData] = _as_it_is,
    ) -> Hypothesis:
        # the record explains only with a finite kernel: that it does not as it is has been found before
        eligible = causes != ("provenance",) and (bool(causes) or evaluation.point.edge is not None)
        record_misfit = float(evaluation.chi2.sum()) if self.record_misfit is None else self.record_misfit
        explains = eligible and self.judge.explains(evaluation, self.data, record_misfit, among_few=True)
        return Hypothesis(causes, detail, evaluation.point, evaluation.free, evaluation.chi2, explains, apply)
