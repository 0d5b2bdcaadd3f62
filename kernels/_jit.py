"""The one place that holds compiler options and the compiled-code cache.

Numba's on-disk cache checks only the file that a function stands in: after an edit of a helper in another
file the old machine code is loaded in silence (numba issues 1833, 8396). The cache folder is therefore named
by a hash of every kernel source and of the compiler's version, so an edit anywhere starts a new one.

``nogil``: kernels run in plain Python threads, each on its own rows; there is no ``prange`` and so no second
level of parallelism, no threading layer to choose and nothing that is unsafe after a fork.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import config as _numba_config

F = TypeVar("F", bound=Callable[..., Any])

# LLVM may fuse multiply and add and drop the sign of zero. It may NOT reassociate (reassoc undoes the two-
# part range reductions of math32: exp was off by a factor of two) and may NOT assume that NaN and infinity
# never occur (nnan, ninf), since those flags let it delete the very tests that guard the singular points.
FASTMATH = frozenset({"contract", "nsz", "arcp", "afn"})


def _source_hash() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of compiled kernels, created on first use.

    ``ARCFORGE_CACHE_DIR`` overrides the user's cache folder; where neither can be written, a folder of this
    user's in the temporary directory serves.
    """
    home = os.environ.get("ARCFORGE_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    base = Path(home).expanduser() if home else Path("~/.cache").expanduser()
    name = f"kernels-{_source_hash()}"
    for parent in (base / "arcforge", Path(tempfile.gettempdir()) / f"arcforge-{os.getuid()}"):
        folder = parent / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="arcforge-"))


_CACHE = str(cache_folder())
config: Any = _numba_config  # its settings are made at import, unseen by type checkers


def _compiled(function: F, **options: Any) -> F:
    """Compile with what all kernels share: no GIL, and arithmetic that gives infinity, not an exception."""
    if config.DISABLE_JIT:  # NUMBA_DISABLE_JIT=1: every line can be stepped through, and counted by a test
        return np.errstate(all="ignore")(function)
    compiler: Any = numba.njit  # its hints know nothing of the wrapper options
    return cast(F, compiler(nogil=True, error_model="numpy", no_cfunc_wrapper=True, **options)(function))


def _cached(function: F, **options: Any) -> F:
    """Compile with the code kept on disk, in this project's own folder."""
    before = config.CACHE_DIR
    config.CACHE_DIR = _CACHE  # read when caching is enabled, i.e. now; other users of numba keep theirs
    try:
        return _compiled(function, cache=True, **options)
    finally:
        config.CACHE_DIR = before


def jit(function: F) -> F:
    """Compile a driver: cached on disk, float arithmetic as in ``FASTMATH``."""
    return _cached(function, fastmath=set(FASTMATH))


def inline(function: F) -> F:
    """Compile a point function for use inside a driver; LLVM inlines it, so it has no cache of its own.

    It cannot be called from Python: its wrapper would be compiled for nothing, and they were a third of the
    time to the first stamp.
    """
    return _compiled(function, fastmath=set(FASTMATH), forceinline=True, no_cpython_wrapper=True)


def jit_exact(function: F) -> F:
    """Compile a driver of integer or bit-exact work: no fast arithmetic at all."""
    return _cached(function, fastmath=False)


def inline_sum(function: F) -> F:
    """Compile a sum for use inside a driver of exact work: its terms are exact, their order is free.

    One after the other, each addition waits for the last. The order is the processor's vector width, so that
    float64 sums may differ in their last bit from one kind of processor to another, as rendered pixels do.
    """
    return _compiled(function, fastmath={"reassoc", "nsz"}, forceinline=True, no_cpython_wrapper=True)
