"""The numbers that the audit decides by, read from one TOML file, each with the reason for its default."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from arcforge.engine.errors import ConfigError


class Thresholds(Mapping[str, float]):
    """Named numbers, ``thresholds["gate.box_pix"]``; ``why(name)`` gives the reason.

    Parameters
    ----------
    path : path, optional
        A TOML file of the same sections whose values replace the defaults; a value is a number, or a table
        with ``value`` and ``why``. Names that the defaults lack are refused.

    Raises
    ------
    ConfigError
        The file is unreadable, or holds an unknown name or a value that is not a number.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        default = tomllib.loads((files(__package__) / "thresholds.toml").read_text(encoding="utf-8"))
        self._values: dict[str, float] = {}
        self._why: dict[str, str] = {}
        for section, entries in default.items():
            for key, entry in entries.items():
                self._values[f"{section}.{key}"] = float(entry["value"])
                self._why[f"{section}.{key}"] = entry["why"]
        if path is not None:
            self._override(Path(path))

    def _override(self, path: Path) -> None:
        try:
            given: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:  # ValueError: TOML, UTF-8, digits
            raise ConfigError(f"{path}: cannot read thresholds: {error}") from error
        for section, entries in given.items():
            for key, entry in entries.items() if isinstance(entries, dict) else ():
                name = f"{section}.{key}"
                if name not in self._values:
                    raise ConfigError(f"{path}: unknown threshold {name!r}; known: {', '.join(self._values)}")
                value = entry["value"] if isinstance(entry, dict) and "value" in entry else entry
                if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                    raise ConfigError(f"{path}: threshold {name} is {value!r}; give a number")
                self._values[name] = float(value)
                self._why[name] = (
                    entry.get("why", "set by the user") if isinstance(entry, dict) else "set by the user"
                )
            if not isinstance(entries, dict):
                raise ConfigError(
                    f"{path}: {section!r} stands outside a section; write it under its [section]"
                )

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def count(self, name: str) -> int:
        """Return a threshold that counts things, as an integer."""
        return int(self._values[name])

    def why(self, name: str) -> str:
        """Return the reason for a value."""
        return self._why[name]
