"""The machine and the software that a result was measured on."""

from __future__ import annotations

import os
import platform
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.provenance import code_sha256, cpu
from arcforge.engine.threads import usable_threads
from arcforge.kernels._jit import jit

F = np.float32
_LIBRARIES = ("arcforge", "numpy", "scipy", "numba", "llvmlite", "pyfftw")
_PEERS = ("lenstronomy", "jax", "jaxlib", "torch", "caustics")

CHAIN_FLOP = 64  # four independent chains of eight multiply-adds each, a multiply-add counted as two
_VALUES = 256  # 1 kB: stays in the level-1 cache
_ROUNDS = 20_000


@jit
def multiply_add_chains(values, rounds, out):  # type: ignore[no-untyped-def]
    """Evaluate four chains of eight multiply-adds for each of ``values``, ``rounds`` times; nothing else
    costs.

    Four chains, because a multiply-add takes four cycles and two can start in each: one chain a lane leaves
    the units idle (two thirds of the rate, measured).
    """
    c, d = F(0.5), F(0.25)
    for _ in range(rounds):
        for i in range(values.size):
            x = values[i]
            p, q, s, t = x, x + c, x - c, x + d
            p, q, s, t = p * x + c, q * x + c, s * x + c, t * x + c
            p, q, s, t = p * x + d, q * x + d, s * x + d, t * x + d
            p, q, s, t = p * x + c, q * x + c, s * x + c, t * x + c
            p, q, s, t = p * x + d, q * x + d, s * x + d, t * x + d
            p, q, s, t = p * x + c, q * x + c, s * x + c, t * x + c
            p, q, s, t = p * x + d, q * x + d, s * x + d, t * x + d
            p, q, s, t = p * x + c, q * x + c, s * x + c, t * x + c
            p, q, s, t = p * x + d, q * x + d, s * x + d, t * x + d
            out[i] = (p + q) + (s + t)


def fma_peak_gflops(repeats: int = 9) -> float:
    """Return the float32 multiply-add rate of one core [GFLOP/s], as compiled code of this package reaches
    it.

    Processor time, the best of ``repeats``: a bound is what the machine did at its best.
    """
    values = np.linspace(0.0, 0.5, _VALUES, dtype=np.float32)
    out = np.empty_like(values)
    multiply_add_chains(values, 1, out)
    best = np.inf
    for _ in range(repeats):
        began = time.thread_time()
        multiply_add_chains(values, _ROUNDS, out)
        best = min(best, time.thread_time() - began)
    return CHAIN_FLOP * _VALUES * _ROUNDS / best / 1e9


def fma_speedup(threads: int, repeats: int = 7) -> float:
    """Return how many times faster that many threads finish the same multiply-adds (each its share), by
    wall time.

    What this machine can give to code that shares nothing: below ``threads`` where cores are virtual,
    throttled or busy with other programs.
    """
    alone = min(_chains_wall_s(1, 8 * _ROUNDS) for _ in range(repeats))
    together = min(_chains_wall_s(threads, 8 * _ROUNDS) for _ in range(repeats))
    return threads * alone / together


def _chains_wall_s(threads: int, rounds: int) -> float:
    values = np.linspace(0.0, 0.5, _VALUES, dtype=np.float32)
    outs: list[NDArray[np.float32]] = [np.empty_like(values) for _ in range(threads)]
    workers = [threading.Thread(target=multiply_add_chains, args=(values, rounds, out)) for out in outs]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, load, versions and how threads are made, for a report."""
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "cores_usable": usable_threads(None),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in (*_LIBRARIES, *_PEERS)},
        "code_sha256": code_sha256(),
        "threading": "Python threads over rows, GIL released in kernels and transforms; no numba layer",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
