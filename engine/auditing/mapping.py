"""The file that maps our names of columns to a set's own."""

from __future__ import annotations

import tomllib
from pathlib import Path

from arcforge.engine.auditing.row_groups import CONTROL_COLUMN, STAMP_COLUMN
from arcforge.engine.errors import ConfigError


def read_mapping(path: Path | str) -> dict[str, str]:
    """Read ``[columns]`` (our name = "theirs"), ``stamp_column`` and ``control_column``, as an import does.

    Raises
    ------
    ConfigError
        The file is unreadable, has no such section, or maps to something that is no name.
    """
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: TOML, UTF-8, digits
        raise ConfigError(f"{path}: cannot read the map: {error}") from error
    columns = given.pop("columns", {})
    for key, ours in (("stamp_column", STAMP_COLUMN), ("control_column", CONTROL_COLUMN)):
        if key in given:
            columns[ours] = given.pop(key)
    if not isinstance(columns, dict) or given:
        raise ConfigError(
            f"{path}: a map holds stamp_column, control_column and [columns] with lines like "
            f'theta_e_arcsec = "einstein_radius"; not {", ".join(given) or "this"}'
        )
    for ours, theirs in columns.items():
        if not isinstance(theirs, str) or not theirs:
            raise ConfigError(f"{path}: columns.{ours} is {theirs!r}; give the name of a column")
    return columns
