"""Which files of a folder are hosts, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

from arcforge.engine.errors import HostError
from arcforge.engine.fields import brick_files
from arcforge.engine.host_files import SUFFIXES, is_host_file
from arcforge.engine.host_set import Refusal


def list_host_files(path: Path) -> tuple[list[Path], list[Refusal]]:
    """Host files by name, and files of the folder that are none with the reason."""
    if path.is_file():
        if not is_host_file(path.name):
            raise HostError(f"host {path}: unknown kind of file: give {', '.join(SUFFIXES)}, .parquet")
        return [path], []
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise HostError(f"hosts {path}: the folder cannot be read ({error.strerror})") from error
    names = [entry.name for entry in entries if entry.is_file()]
    folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if brick_files(path):
        raise HostError(f"hosts {path}: coadd bricks need positions to cut out: give --positions")
    files = [path / name for name in names if is_host_file(name)]
    if not files:
        raise HostError(f"hosts {path}: the folder holds no {', '.join(SUFFIXES)} file: check the path")
    stems: dict[str, Path] = {}
    for file in files:
        other = stems.setdefault(host_id_of(file), file)
        if other != file:
            raise HostError(f"host {file}: has the same host_id as {other.name}: rename one of them")
    others = [name for name in names if not is_host_file(name) and not name.startswith(".")]
    left = [Refusal(str(path / name), "not a FITS or npz file", "not a cutout") for name in others]
    way_out = "a folder inside; its files are not read: give it by --hosts in a run of its own"
    return files, left + [Refusal(str(path / name), way_out, "folder inside") for name in folders]


def host_id_of(file: Path) -> str:
    """The file's name without its ending."""
    name = file.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
