"""Which departures from the stated inputs would give the published numbers, and which look alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from arcforge.engine.auditing.tables import Tables
from arcforge.engine.auditing.tables_model import Departure, Prediction, TablesModel

Floats = NDArray[np.float64]

FITS, EXCLUDED = "fits", "excluded"
# Root mean square departure, in units of what the stated ranges leave open, up to which an explanation fits
_FITS_WITHIN = 2.0
_EVALUATIONS_OF_ONE, _EVALUATIONS_OF_TWO = 12, 36


@dataclass(frozen=True)
class Idea:
    """One way in which the set may differ from what is stated.

    Attributes
    ----------
    name : str
        The cause as the audit of pixels would name it.
    words : str
        In words, with the fitted values by name in braces.
    apply : callable
        Fitted values to a departure.
    start, bounds
        Of each fitted value.
    """

    name: str
    words: str
    apply: Callable[..., Departure]
    bounds: tuple[tuple[float, float], ...] = ()


IDEAS = (
    Idea("as_stated", "the stated inputs", Departure),
    Idea(
        "psf_width",
        "a PSF {0:.2f} times as wide as stated",
        lambda width: Departure(psf_width=width),
        ((0.5, 4.0),),
    ),
    Idea(
        "psf_width",
        "a Gaussian PSF {0:.2f} times as wide as stated",
        lambda width: Departure(psf_width=width, psf_model="gaussian"),
        ((0.5, 4.0),),
    ),
    Idea(
        "source_size",
        "sources {0:.2f} times as large as stated",
        lambda size: Departure(source_size=size),
        ((0.3, 8.0),),
    ),
    Idea(
        "source_size",
        "sources {0:.2f} times as large as stated, out to {1:.2f} theta_E (another render path)",
        lambda size, reach: Departure(source_size=size, offset_of_theta_e=reach),
        ((0.5, 6.0), (0.1, 1.2)),
    ),
    Idea(
        "source_offset",
        "source offsets {0:.2f} times as large as stated",
        lambda factor: Departure(source_offset=factor),
        ((0.3, 6.0),),
    ),
    Idea(
        "theta_e_scale",
        "Einstein radii {0:.2f} times as stated",
        lambda scale: Departure(theta_e_scale=scale),
        ((0.5, 1.8),),
    ),
    Idea(
        "kernel_offset",
        "arcs {0:.1f} px from their place",
        lambda offset: Departure(arc_offset_pix=offset),
        ((0.0, 8.0),),
    ),
    Idea(
        "pedestal",
        "a constant of {0:.3f} of the profile's peak in every pixel",
        lambda level: Departure(pedestal=level),
        ((0.0, 0.5),),
    ),
)


@dataclass(frozen=True)
class Explanation:
    """An idea at its best values, and what it predicts."""

    idea: Idea
    values: tuple[float, ...]
    prediction: Prediction
    departures: Floats  #: of each published number, in units of its error

    @property
    def rms(self) -> float:
        """Root mean square of the departures."""
        return float(np.sqrt(np.mean(self.departures**2)))

    @property
    def status(self) -> str:
        """Whether it accounts for the published numbers."""
        return FITS if self.rms <= _FITS_WITHIN else EXCLUDED

    @property
    def words(self) -> str:
        """The idea with its values."""
        return self.idea.words.format(*self.values)


class Comparison:
    """Published numbers against predictions, each in units of its error.

    The error of a number joins its sampling error, the tables' slack, and what the stated ranges leave open:
    the scatter of the prediction over their corners (narrow and wide PSF, Gaussian and Moffat, small and
    large sources).
    """

    def __init__(self, tables: Tables, model: TablesModel) -> None:
        self.tables = tables
        self.model = model
        self.published = np.concatenate([tables.core_share, tables.profile])
        corners = np.array([_numbers(model.predict(d)) for d in _corners(tables)])
        self.open_range = np.std(corners, axis=0)
        self.outer = tables.outer_over_core

    def departures(self, prediction: Prediction) -> Floats:
        """Predicted minus published numbers, in units of their errors."""
        sampling = np.concatenate([prediction.core_share_se, prediction.profile_se])
        error = np.sqrt(sampling**2 + self.tables.slack**2 + self.open_range**2)
        departures = (_numbers(prediction) - self.published) / error
        if self.outer is None:
            return np.asarray(departures)
        # wings of arcs make some per mille of the core: only a constant is told by Test 1
        return np.append(departures, (prediction.outer_over_core - self.outer) / self.tables.slack)

    def fit(self, idea: Idea) -> Explanation:
        """Return the idea at the values that suit the published numbers best."""
        if not idea.bounds:
            prediction = self.model.predict(idea.apply())
            return Explanation(idea, (), prediction, self.departures(prediction))

        def misfit(values: Any) -> float:
            clipped = [float(np.clip(v, *b)) for v, b in zip(np.atleast_1d(values), idea.bounds, strict=True)]
            return float(np.sum(self.departures(self.model.predict(idea.apply(*clipped))) ** 2))

        if len(idea.bounds) == 1:
            found = optimize.minimize_scalar(
                misfit,
                bounds=idea.bounds[0],
                method="bounded",
                options={"maxiter": _EVALUATIONS_OF_ONE, "xatol": 1e-3},
            )
        else:
            start = np.array([np.sqrt(low * high) for low, high in idea.bounds])
            options = {"maxfev": _EVALUATIONS_OF_TWO, "initial_simplex": _simplex(start)}
            found = optimize.minimize(misfit, start, method="Nelder-Mead", options=options)
        best = np.atleast_1d(found.x)
        values = tuple(float(np.clip(v, *b)) for v, b in zip(best, idea.bounds, strict=True))
        prediction = self.model.predict(idea.apply(*values))
        return Explanation(idea, values, prediction, self.departures(prediction))


def _numbers(prediction: Prediction) -> Floats:
    return np.concatenate([prediction.core_share, prediction.profile])


def _simplex(start: Floats) -> Floats:
    return np.array([start, start * [1.6, 1.0], start * [1.0, 1.6]])


def _corners(tables: Tables) -> list[Departure]:
    """Departures that take the stated ranges to their ends."""

    def ends(name: str) -> Sequence[float]:
        values = np.atleast_1d(np.asarray(tables.inputs[name], dtype=np.float64))
        return values.min() / values.mean(), values.max() / values.mean()

    base = Departure()
    return [
        replace(base, psf_width=width, source_size=size, psf_model=model)
        for width in ends("psf_fwhm_arcsec")
        for size in ends("src_reff_arcsec")
        for model in ("gaussian", "moffat")
    ]


def explain(
    tables: Tables, model: TablesModel, progress: Callable[[int, int], None] | None = None
) -> list[Explanation]:
    """Fit every idea: the stated inputs first, then from the best to the worst."""
    comparison = Comparison(tables, model)
    found = []
    for number, idea in enumerate(IDEAS):
        found.append(comparison.fit(idea))
        if progress:
            progress(number + 1, len(IDEAS))
    return [found[0], *sorted(found[1:], key=lambda e: e.rms)]
