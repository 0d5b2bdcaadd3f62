"""The configuration of a run: what is drawn, for which bands, and how it is rendered.

One TOML file of settings, priors and splits. Priors bear the names of the catalogue columns that they fill.
What a file does not say keeps its default; ``Config.to_toml`` writes the whole.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from arcforge.engine.config_schema import (
    PRIORS,
    SCHEMA,
    SETTINGS,
    SPLITS,
    check_prior,
    meaning,
    prior_names,
)
from arcforge.engine.cuts import CUTS
from arcforge.engine.errors import ConfigError
from arcforge.engine.negatives import NEGATIVES
from arcforge.engine.noise_models import SKY_MAG_ARCSEC2
from arcforge.engine.priors import Prior, distribution_names

_TABLES = ("priors", "splits", "cuts", "negatives", "psfex")


@dataclass(frozen=True)
class Config:
    """A resolved, valid configuration, made by ``default_config``, ``load_config`` or ``parse_config``."""

    bands: str
    reference_band: str
    stamp_size: int
    rtol: float
    variant: str
    pixel_response: str
    theta_e_convention: str
    control_fraction: float
    synthetic_host_count: int
    synthetic_pixscale_arcsec: float
    host_pixscale_arcsec: float
    bad_hosts: str
    host_min_coverage: float
    host_bad_maskbits: tuple[int, ...]
    host_saturated_radius_arcsec: float
    host_mag_brightest: float
    host_mag_faintest: float
    host_sigma_v_min_km_s: float
    psf_table: str
    psf_table_lookup: str
    theta_e_from: str
    theta_e_scatter: float
    lens_shape_from: str
    lens_e_scatter: float
    lens_phi_scatter_rad: float
    src_mag_from: str
    population: str
    population_spread: float
    host_max_rows: int
    split_by: str
    split_cell_deg: float
    split_guard_arcmin: float
    exclude_catalogs: tuple[str, ...]
    exclude_radius_arcsec: float
    source_bank: str
    source_image_fraction: float
    source_clean: bool
    source_size: str
    source_colours: str
    noise: str
    noise_lag1_correlation: float
    update_invvar: bool
    check_gain: bool
    psf_jitter: float
    priors: Mapping[str, Prior]  #: by catalogue column, only those that the bands need
    splits: Mapping[str, float]  #: share of the hosts by name, sum 1
    gain_e_per_nmgy: Mapping[str, float]  #: by band; a band that is not there has sky x invvar
    sky_mag_arcsec2: Mapping[str, float]  #: by band
    cuts: Mapping[str, float]  #: by name of ``cuts.CUTS``
    negatives: Mapping[str, float]  #: share of the rows by kind
    psfex: Mapping[str, str]  #: file of a PsfEx model by band

    def to_toml(self) -> str:
        """The whole configuration as annotated TOML; ``parse_config`` turns it into an equal one."""
        lines = [f"schema = {_toml(SCHEMA)}"]
        lines += [f"{name} = {_toml(getattr(self, name))}  # {SETTINGS[name].meaning}" for name in SETTINGS]
        lines += ["", f"# distributions: {', '.join(distribution_names())}", "[priors]"]
        for name, prior in self.priors.items():
            pairs = (("dist", prior.dist), *prior.parameters)
            body = ", ".join(f"{key} = {_toml(value)}" for key, value in pairs)
            lines.append(f"{name} = {{ {body} }}  # {meaning(name)}")
        for table, meant in _BAND_TABLES.items():
            lines += ["", f"[{table}]  # {meant}"]
            lines += [f"{band} = {_toml(value)}  # {table}" for band, value in getattr(self, table).items()]
        lines += ["", f"[psfex]  # {_PSFEX}"]
        lines += [f"{band} = {_toml(path)}" for band, path in self.psfex.items()]
        lines += ["", "[cuts]  # rows that fail one are drawn again, and counted"]
        lines += [f"{name} = {_toml(value)}  # {CUTS[name]}" for name, value in self.cuts.items()]
        lines += ["", "[negatives]  # shares of the rows, marked in the column kind"]
        lines += [f"{name} = {_toml(value)}  # {NEGATIVES[name]}" for name, value in self.negatives.items()]
        lines += ["", "# shares of the hosts; all rows of a host are in one split", "[splits]"]
        lines += [f"{json.dumps(name)} = {_toml(share)}" for name, share in self.splits.items()]
        return "\n".join(lines) + "\n"

    def digest(self) -> str:
        """SHA-256 (hex) of every value, whatever file, order or comments it came with."""
        tree = {
            "schema": SCHEMA,
            "settings": {name: getattr(self, name) for name in SETTINGS},
            "priors": {name: [prior.dist, dict(prior.parameters)] for name, prior in self.priors.items()},
            "splits": list(self.splits.items()),
            "cuts": sorted(self.cuts.items()),
            "negatives": sorted(self.negatives.items()),
            "psfex": sorted(self.psfex.items()),
            **{table: sorted(getattr(self, table).items()) for table in _BAND_TABLES},
        }
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return parse_config, (self.to_toml(),)  # read-only mappings do not pickle


def default_config() -> Config:
    """The configuration of a run that is given none: the ranges of DR10-like g, r, z injections."""
    return parse_config("")


def load_config(path: str | os.PathLike[str]) -> Config:
    """Read a TOML file; ConfigError names file, line and the allowed values."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"configuration {file} cannot be read ({reason}): check the path") from error
    return parse_config(text, name=str(file))


def parse_config(text: str, *, name: str = "configuration") -> Config:
    """Resolve TOML text against the defaults.

    Parameters
    ----------
    text : str
        TOML; the empty text gives the defaults.
    name : str
        What error messages call the text, e.g. its path.

    Raises
    ------
    ConfigError
        One line: ``<name> line <n>: <key and value>, allowed: <...>``.
    """
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of 5,000 digits, a thousand brackets
        raise ConfigError(f"{name} is not TOML: {error}") from error
    source = _Source(name, _line_numbers(text))
    _check_names(
        tree,
        (*SETTINGS, "schema", "priors", "splits", "cuts", "negatives", "psfex", *_BAND_TABLES),
        "",
        source,
    )
    if tree.get("schema", SCHEMA) != SCHEMA:
        source.refuse(
            "schema", f"schema = {tree['schema']!r}, allowed: {SCHEMA!r}; this version reads no other"
        )
    settings = {key: _setting(key, tree, source) for key in SETTINGS}
    if settings["reference_band"] not in settings["bands"]:
        key = "reference_band" if "reference_band" in tree else "bands"
        allowed = ", ".join(settings["bands"])
        source.refuse(key, f"reference_band = {settings['reference_band']!r}, allowed: {allowed}")
    negatives = _numbers("negatives", NEGATIVES, tree, 1.0, source)
    if math.fsum(negatives.values()) > 1.0:
        source.refuse(
            "negatives", f"the shares add up to {math.fsum(negatives.values()):g}, allowed: up to 1"
        )
    if settings["update_invvar"] and settings["noise"] == "off":
        source.refuse("update_invvar", 'update_invvar = true, and noise is off: set noise = "poisson"')
    return Config(
        **settings,
        priors=MappingProxyType(_priors(tree.get("priors", {}), settings, source)),
        splits=MappingProxyType(_splits(tree.get("splits", dict(SPLITS)), source)),
        gain_e_per_nmgy=_band_table("gain_e_per_nmgy", tree, settings["bands"], source),
        cuts=_numbers("cuts", CUTS, tree, math.inf, source),
        negatives=negatives,
        psfex=_band_paths("psfex", tree, settings["bands"], source),
        sky_mag_arcsec2=_band_table("sky_mag_arcsec2", tree, settings["bands"], source),
    )


@dataclass(frozen=True)
class _Source:
    """Where a value stands, for messages."""

    name: str
    lines: Mapping[str, int]

    def refuse(self, key: str, message: str) -> NoReturn:
        line = self.lines.get(key)
        raise ConfigError(f"{self.name}{f' line {line}' if line else ''}: {message}")


_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"({_KEY}(?:\s*\.\s*{_KEY})*)"


def _line_numbers(text: str) -> dict[str, int]:
    """The line of every key and table header, by dotted name; tomllib keeps none."""
    numbers: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(rf"\s*\[\s*{_DOTTED}\s*\]", line)
        entry = re.match(rf"\s*{_DOTTED}\s*=", line)
        found = header or entry
        if found is None:
            continue
        dotted = ".".join(part.strip("\"'") for part in re.findall(_KEY, found.group(1)))
        if header:
            table = dotted + "."
        numbers.setdefault(dotted if header else table + dotted, number)
    return numbers


_LISTED = 12  # more names than this are no answer on one line
_HOW_TO_LIST = "all settings are listed by 'arcforge config show'"


def _check_names(given: Iterable[str], known: Iterable[str], prefix: str, source: _Source) -> None:
    known = list(known)
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            allowed = f"allowed: {', '.join(known)}" if len(known) <= _LISTED else _HOW_TO_LIST
            hint = f'did you mean "{close[0]}"?' if close else allowed
            source.refuse(prefix + key, f'"{key}" is unknown here; {hint}')


def _setting(key: str, tree: Mapping[str, Any], source: _Source) -> Any:
    setting = SETTINGS[key]
    value = tree.get(key, setting.default)
    if not setting.is_allowed(value):
        source.refuse(key, f"{key} = {value!r}, allowed: {setting.allowed}")
    if isinstance(setting.default, tuple):
        return tuple(value)
    return float(value) if isinstance(setting.default, float) else value


def _priors(given: Any, settings: Mapping[str, Any], source: _Source) -> dict[str, Prior]:
    if not isinstance(given, Mapping):
        source.refuse("priors", "priors must be a table: write [priors]")
    priors = {name: prior for name, (prior, _) in PRIORS.items()}
    for name, value in given.items():
        try:
            priors[name] = _prior(value)
        except ConfigError as error:
            source.refuse(f"priors.{name}", f"{name}: {error}")
    has_psf = set(priors["psf_model"].support) != {"none"}
    try:
        needed = prior_names(settings["bands"], settings["reference_band"], set(priors), has_psf)
    except ConfigError as error:
        source.refuse("bands", str(error))
    for name in given:
        if name in PRIORS and name not in needed:
            source.refuse(
                f"priors.{name}", f'{name} is not used with bands = "{settings["bands"]}": remove it'
            )
    _check_names(given, needed, "priors.", source)
    for name in needed:
        try:
            check_prior(name, priors[name])
        except ConfigError as error:
            source.refuse(f"priors.{name}", str(error))
    return {name: priors[name] for name in needed}


def _prior(value: Any) -> Prior:
    """A prior from its TOML form; a bare number or name is a constant."""
    if not isinstance(value, Mapping):
        return Prior.of("constant", value=value)
    if not isinstance(value.get("dist"), str):
        raise ConfigError(f'needs dist = "...", one of {", ".join(distribution_names())}')
    return Prior.of(value["dist"], **{key: entry for key, entry in value.items() if key != "dist"})


def _numbers(
    table: str, known: Mapping[str, str], tree: Mapping[str, Any], below: float, source: _Source
) -> Mapping[str, float]:
    """A table of positive numbers by known names."""
    given = tree.get(table, {})
    if not isinstance(given, Mapping):
        source.refuse(table, f"{table} must be a table: write [{table}]")
    _check_names(given, known, f"{table}.", source)
    allowed = "a positive number" if below == math.inf else f"a number between 0 and {below:g}"
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < below:
            source.refuse(f"{table}.{name}", f"{name} = {value!r}, allowed: {allowed}")
    return MappingProxyType({name: float(given[name]) for name in known if name in given})


# tables of one number a band, and what they mean
_BAND_TABLES = {
    "gain_e_per_nmgy": "electrons per nanomaggy of the coadd, by band; else sky x invvar of each host",
    "sky_mag_arcsec2": "sky brightness by band, from which the gain follows where none is given",
}


def _band_table(table: str, tree: Mapping[str, Any], bands: str, source: _Source) -> Mapping[str, float]:
    """A table of one number a band; those of other bands are refused."""
    default = {b: m for b, m in SKY_MAG_ARCSEC2.items() if b in bands} if table == "sky_mag_arcsec2" else {}
    given = tree.get(table, {})
    if not isinstance(given, Mapping):
        source.refuse(table, f"{table} must be a table: write [{table}]")
    _check_names(given, bands, f"{table}.", source)
    for band, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
            source.refuse(f"{table}.{band}", f"{table} {band} = {value!r}, allowed: a positive number")
    return MappingProxyType(default | {band: float(value) for band, value in given.items()})


_PSFEX = (
    "PsfEx models (FILE, or FILE#CCDNAME) by band, for hosts without a PSF image, evaluated where they lie"
)


def _band_paths(table: str, tree: Mapping[str, Any], bands: str, source: _Source) -> Mapping[str, str]:
    """A table of one file a band: none, or every band's."""
    given = tree.get(table, {})
    if not isinstance(given, Mapping):
        source.refuse(table, f"{table} must be a table: write [{table}]")
    _check_names(given, bands, f"{table}.", source)
    for band, path in given.items():
        if not isinstance(path, str) or not path:
            source.refuse(f"{table}.{band}", f"{table} {band} = {path!r}, allowed: a file's path")
    if given and len(given) < len(bands):
        absent = next(band for band in bands if band not in given)
        source.refuse(table, f"{table} has no file for band {absent}: give every band one, or none")
    return MappingProxyType({band: given[band] for band in bands if band in given})


def _splits(given: Any, source: _Source) -> dict[str, float]:
    if not isinstance(given, Mapping) or not given:
        source.refuse("splits", "splits must be a table of shares, e.g. train = 0.8")
    for name, share in given.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            source.refuse(f"splits.{name}", f"{name} = {share!r}, allowed: a share from 0 to 1")
    total = math.fsum(given.values())
    if abs(total - 1.0) > 1e-9:
        source.refuse("splits", f"the shares add up to {total:g}, allowed: 1")
    return {name: float(share) for name, share in given.items()}


def _toml(value: Any) -> str:
    """A value in TOML; float texts are the shortest that read back to the same bits."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(entry) for entry in value)}]"
    return repr(value)
