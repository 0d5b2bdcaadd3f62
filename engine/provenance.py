"""Which code, on what software and which processor, made a store."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import arcforge.engine
import arcforge.kernels

# Whatever can change a stored byte: draws, pixels, encoded shards, tables.
_LIBRARIES = (
    "arcforge",
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "pyfftw",
    "zarr",
    "numcodecs",
    "pyarrow",
    "astropy",
)


@lru_cache(maxsize=1)
def code_sha256() -> str:
    """Return the hash of the sources that draw, render and store: ``kernels/`` and ``engine/``, by name.

    A version number cannot tell two working copies apart; this can. Sub-packages (the audit) take no part in
    making pixels and are left out, so that an edit there does not stop a resumed run.
    """
    digest = hashlib.sha256()
    for name, package in (("kernels", arcforge.kernels), ("engine", arcforge.engine)):
        for path in sorted(Path(package.__path__[0]).glob("*.py")):
            source = path.read_bytes()
            digest.update(f"{name}/{path.name} {len(source)}\n".encode())
            digest.update(source)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def software() -> dict[str, str]:
    """Return the versions of Python and of every library that can change a stored byte."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@lru_cache(maxsize=1)
def cpu() -> str:
    """Return the processor's name and architecture, e.g. for a shard's commit record."""
    return f"{_model_name()} ({platform.machine()}, {platform.system()})"


def _model_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
