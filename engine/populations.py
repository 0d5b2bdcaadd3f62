"""Joint populations: rows of a table, drawn as a whole, so that what belongs together stays together.

With a spread the draw is a smoothed bootstrap (Silverman & Young 1987, Biometrika 74, 469): a row of the
table, shrunk towards the mean, plus a normal number with the table's own covariance, so that means and
covariances are those of the table and no two draws are equal. What falls beyond the table's lowest or highest
value is reflected there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog_files import read_catalog
from arcforge.engine.config_schema import NAMES, check_prior
from arcforge.engine.errors import CatalogError, ConfigError
from arcforge.engine.priors import Prior

if TYPE_CHECKING:
    from arcforge.engine.config import Config

Floats = NDArray[np.float64]
_WEIGHT = "weight"


@dataclass(frozen=True)
class Population:
    """Columns that are drawn together, by the names of the priors in whose place they stand."""

    columns: Mapping[str, NDArray[Any]]  #: (n,) float64, or text
    weight: Floats  #: (n,), sum 1
    spread: float  #: of the normal number, in standard deviations of the columns

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self.columns)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that draws follow from."""
        digest = hashlib.sha256(repr(self.spread).encode())
        for name, values in {**self.columns, _WEIGHT: self.weight}.items():
            data = values.tobytes() if values.dtype.kind == "f" else "\n".join(values.tolist()).encode()
            digest.update(name.encode() + b"\n" + data)
        return digest.hexdigest()

    def rows(self, u: Floats) -> NDArray[np.int64]:
        """The table's row for each number in (0, 1)."""
        edges = np.cumsum(self.weight)
        last = int(np.flatnonzero(self.weight)[-1])
        return np.minimum(np.searchsorted(edges, u, side="right"), last)

    def values(self, name: str, rows: NDArray[np.int64], normal: Callable[[str], Floats]) -> NDArray[Any]:
        """Values of a column in those rows of the table; ``normal(purpose)`` gives numbers for the spread."""
        column = self.columns[name]
        drawn = column[rows]
        if self.spread == 0.0 or name not in self._numeric:
            return np.asarray(drawn)
        at = self._numeric.index(name)
        shift = sum(
            self._factor[at, k] * normal(f"population_{other}")
            for k, other in enumerate(self._numeric[: at + 1])
        )
        mean = float(self.weight @ column)
        smooth = mean + (drawn - mean + self.spread * shift) / np.sqrt(1.0 + self.spread**2)
        return reflected(smooth, float(column.min()), float(column.max()))

    @cached_property
    def _numeric(self) -> tuple[str, ...]:
        """Columns that vary."""
        return tuple(name for name, v in self.columns.items() if v.dtype.kind == "f" and v.min() < v.max())

    @cached_property
    def _factor(self) -> Floats:
        """Cholesky factor of the columns' covariance; a trace of the variance keeps multiples apart."""
        values = np.stack([self.columns[name] for name in self._numeric])
        covariance = np.atleast_2d(np.cov(values, aweights=self.weight, ddof=0))
        return np.linalg.cholesky(covariance + np.diag(1e-9 * np.diag(covariance)))


def reflected(values: Floats, low: float, high: float) -> Floats:
    """Values beyond an end, mirrored at it as often as needed; clipped they would pile up there."""
    span = max(high - low, 1e-300)
    folded = np.mod(values - low, 2.0 * span)
    return np.clip(low + np.where(folded > span, 2.0 * span - folded, folded), low, high)


def read_population(config: Config) -> Population:
    """Read the table that a configuration names.

    Columns with the names of priors are drawn; ``weight`` says how often a row is; others are left.

    Raises
    ------
    CatalogError
        The file is unreadable, or a value is missing or out of range; names row and column.
    ConfigError
        No column is a prior's, or one can have no effect.
    """
    path = config.population
    table = read_catalog(path)
    # what belongs to a host is not drawn for a row
    drawable = [name for name in config.priors if not name.startswith(("psf_", "moffat_"))]
    names = [name for name in table.column_names if name in drawable]
    if not names:
        raise ConfigError(
            f"population {path}: none of its columns ({', '.join(table.column_names[:8])}) is a prior that "
            f"is drawn for a row ({', '.join(drawable)}): rename them"
        )
    unused = "src_dmag" if config.src_mag_from == "prior" else "src_mag"
    if unused in names:
        other = "host" if config.src_mag_from == "prior" else "prior"
        raise ConfigError(f'population {path}: {unused} is used with src_mag_from = "{other}" only: set it')
    columns = {name: _column(path, name, table.column(name)) for name in names}
    weight = np.ones(table.num_rows)
    if _WEIGHT in table.column_names:
        weight = _column(path, _WEIGHT, table.column(_WEIGHT))
        if weight.min() < 0.0 or not weight.sum() > 0.0:
            raise CatalogError(f"population {path}: weights must not be negative, and not all 0")
    return Population(columns, weight / weight.sum(), config.population_spread)


def _column(path: str, name: str, column: Any) -> NDArray[Any]:
    values = column.to_pylist()
    is_name = name in NAMES
    good = [isinstance(v, str) if is_name else _is_finite(v) for v in values]
    if not all(good):
        row = good.index(False)
        raise CatalogError(
            f"population {path} row {row}: {name} is {values[row]!r}; give a "
            f"{'name' if is_name else 'finite number'} or drop the row"
        )
    out = np.array(values) if is_name else np.array(values, dtype=np.float64)
    if name != _WEIGHT:
        for each in dict.fromkeys(values) if is_name else (out.min(), out.max()):
            try:
                check_prior(name, Prior.of("constant", value=each if is_name else float(each)))
            except ConfigError as error:
                row = values.index(each)
                raise CatalogError(f"population {path} row {row}: {error}") from error
    return out


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
