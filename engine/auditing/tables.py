"""Published summary numbers of a paired set, read from TOML: what was measured, and what is said to have
made it.

Without pixels nothing can be certified. What can be done: predict the same numbers from the stated inputs,
and see which departures from them would give the published ones.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import AuditInputError

Floats = NDArray[np.float64]

# Inputs that may be stated: as a number, a [low, high] range, a list of three or more values that are drawn
# alike, or text. None: there is no default.
_INPUTS: dict[str, Any] = {
    "theta_e_arcsec": None,
    "lens_e": [0.0, 0.4],
    "shear": [0.0, 0.05],
    "src_x_arcsec": None,
    "src_y_arcsec": None,
    "src_reff_arcsec": None,
    "src_n": 1.0,
    "src_e": [0.0, 0.5],
    "psf_fwhm_arcsec": None,
    "moffat_beta": 3.5,
    "psf_model": "moffat",
    "lens_model": "SIE",
}
_FRAME = {"pixscale_arcsec": None, "stamp_pix": 64.0, "core_radius_pix": 5.0, "outer_radius_pix": 20.0}
_TESTS = {
    "test1": ("outer_mean_nmgy", "core_mean_nmgy"),
    "test2": ("slope_theta_e", "slope_flux", "slope_snr", "r2_theta_e", "r2_flux", "r2_snr"),
    "test3": ("theta_e_edges_arcsec", "core_share"),
    "test4": ("theta_e_min_arcsec", "n_pairs", "radius_pix", "mean_nmgy"),
}
# What a share or a profile (of its peak) may be off by for reasons that the tables do not state
_DEFAULT_SLACK = 0.03


@dataclass(frozen=True)
class Tables:
    """Published numbers and stated inputs.

    Attributes
    ----------
    title, source : str
    frame : dict
        ``pixscale_arcsec``, ``stamp_pix``, ``core_radius_pix``, ``outer_radius_pix``.
    inputs : dict
        Stated priors by catalogue column.
    tests : dict
        ``test1`` to ``test4`` as given; ``test3`` and ``test4`` are always there.
    slack : float
        Error of a share, and of a profile over its peak, that sampling does not account for.
    """

    title: str
    source: str
    frame: dict[str, float]
    inputs: dict[str, Any]
    tests: dict[str, dict[str, Any]]
    slack: float

    @property
    def edges_arcsec(self) -> Floats:
        """Edges of Test 3's Einstein-radius bins."""
        return np.asarray(self.tests["test3"]["theta_e_edges_arcsec"], dtype=np.float64)

    @property
    def core_share(self) -> Floats:
        """Test 3: share of the added light in the core, by bin."""
        return np.asarray(self.tests["test3"]["core_share"], dtype=np.float64)

    @property
    def outer_over_core(self) -> float | None:
        """Test 1: mean added light of the outer annulus over that of the core; None where it is not given."""
        test = self.tests.get("test1", {})
        outer, core = test.get("outer_mean_nmgy"), test.get("core_mean_nmgy")
        return float(outer / core) if outer is not None and core else None

    @property
    def radius_pix(self) -> Floats:
        """Test 4: inner radius of each ring of one pixel."""
        return np.asarray(self.tests["test4"]["radius_pix"], dtype=np.float64)

    @property
    def profile(self) -> Floats:
        """Test 4: mean added light over its largest value."""
        mean = np.asarray(self.tests["test4"]["mean_nmgy"], dtype=np.float64)
        return np.asarray(mean / mean.max())


def read_tables(path: Path | str) -> Tables:
    """Read published numbers.

    Raises
    ------
    AuditInputError
        The file is unreadable, lacks a number, holds an unknown name or a value of the wrong kind.
    """
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: TOML, UTF-8, digits
        raise AuditInputError(f"{path}: cannot read tables: {error}") from error
    known = {"title", "source", "slack", "frame", "inputs", *_TESTS}
    for name in given:
        if name not in known:
            raise AuditInputError(f"{path}: unknown entry {name!r}; known: {', '.join(sorted(known))}")
    frame = _filled(path, "frame", given.get("frame", {}), _FRAME)
    inputs = _filled(path, "inputs", given.get("inputs", {}), _INPUTS)
    for name, value in frame.items():
        if not _is_number(value) or value <= 0:
            raise AuditInputError(f"{path}: frame.{name} is {value!r}; give a number above 0")
    for name, value in inputs.items():
        _check_prior(path, name, value)
    tests = {name: dict(given[name]) for name in _TESTS if name in given}
    _check_tests(path, tests)
    slack = given.get("slack", _DEFAULT_SLACK)
    if not _is_number(slack) or slack <= 0:
        raise AuditInputError(f"{path}: slack is {slack!r}; give a number above 0")
    return Tables(
        str(given.get("title", Path(path).stem)), str(given.get("source", "")), frame, inputs, tests, slack
    )


def _filled(path: Any, section: str, given: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise AuditInputError(f"{path}: {section!r} is a section: write [{section}]")
    for name in given:
        if name not in known:
            raise AuditInputError(f"{path}: unknown {section}.{name}; known: {', '.join(known)}")
    for name, default in known.items():
        if default is None and name not in given:
            raise AuditInputError(f"{path}: {section}.{name} is missing; it has no default")
    return {name: given.get(name, default) for name, default in known.items()}


def _check_prior(path: Any, name: str, value: Any) -> None:
    texts = {"psf_model": ("gaussian", "moffat"), "lens_model": ("SIE", "SIS")}
    if name in texts:
        if value not in texts[name]:
            raise AuditInputError(
                f"{path}: inputs.{name} is {value!r}; it is one of {', '.join(texts[name])}"
            )
        return
    values = value if isinstance(value, list) else [value]
    if not values or not all(_is_number(v) for v in values):
        raise AuditInputError(f"{path}: inputs.{name} is {value!r}; give a number, [low, high] or a list")
    if len(values) == 2 and values[0] > values[1]:
        raise AuditInputError(f"{path}: inputs.{name} is {value!r}; the range runs from low to high")


def _check_tests(path: Any, tests: Mapping[str, dict[str, Any]]) -> None:
    for name, entries in tests.items():
        for key, value in entries.items():
            if key not in _TESTS[name]:
                raise AuditInputError(f"{path}: unknown {name}.{key}; known: {', '.join(_TESTS[name])}")
            values = value if isinstance(value, list) else [value]
            if not values or not all(_is_number(v) for v in values):
                raise AuditInputError(f"{path}: {name}.{key} is {value!r}; give finite numbers")
    lengths = {"test3": (1, "theta_e_edges_arcsec", "core_share"), "test4": (0, "radius_pix", "mean_nmgy")}
    for name, (more, first, second) in lengths.items():
        entries = tests.get(name, {})
        for key in (first, second):
            if not isinstance(entries.get(key), list):
                raise AuditInputError(f"{path}: {name}.{key} is missing; it is a list")
        if len(entries[first]) != len(entries[second]) + more or np.any(np.diff(entries[first]) <= 0):
            raise AuditInputError(
                f"{path}: {name}.{first} has {len(entries[first])} values and {second} "
                f"{len(entries[second])}; {first} rises and has {more} more"
            )
    if (
        not isinstance(tests["test4"].get("theta_e_min_arcsec"), int | float)
        or max(tests["test4"]["mean_nmgy"]) <= 0
    ):
        raise AuditInputError(f"{path}: test4 needs theta_e_min_arcsec, and a profile with light in it")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
