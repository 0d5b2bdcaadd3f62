"""``arcforge bench peers``: other programs on the same rows, side by side in one run, each with its own
error.

The work: stamps of 64 x 64 pixels in three bands, SIE and shear, a Sersic source, a Gaussian PSF of each
band's own width. Everything runs on one core and is timed by processor time, interleaved. A peer that is
not installed is listed as absent. Samples are averaged over the pixel, so the truth is the converged image
of the pixel-integrated brightness (``pixel_response="box"``); one sample a pixel is compared with the image
of the brightness at pixel centres.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.bench.cases import CATALOGUES, PIXSCALE_ARCSEC, columns_of, source_named
from arcforge.bench.machine import describe_machine
from arcforge.bench.runner import Timing, errors_over_peak, ratio, time_calls
from arcforge.engine.catalog import RenderColumns
from arcforge.engine.render import render_rows

SCHEMA = "arcforge.bench.peers/1"
SIZE_PIX = 64
RTOL = 1e-3

_SMOOTH_ROWS, _COMPARED_ROWS = 2, 8
# arcforge is given the rows over and over, as many as a run hands over at a time. Peers take a row after the
# other (JAX too, see there) or are quickest at few; per stamp, more rows change nothing for them.
OUR_ROWS = 256

Progress = Callable[[int, int], None]
Images = NDArray[np.float32]
Call = Callable[[], Images]
Maker = Callable[[RenderColumns], Call]


@dataclass(frozen=True)
class Peer:
    """One way to render the rows.

    Attributes
    ----------
    name : str
    library : str or None
        The distribution that must be installed; None for none.
    module : str
        Module of this folder whose ``prepare`` returns the call that is timed.
    traces : int
        Ray-traces for the three bands.
    largest_error : float
        Of a smooth source (n = 1, R_e >= 0.3 arcsec), over its peak: more, and the peer did not do this work.
    what : str
    settings : dict
        Further arguments of ``prepare``.
    pixel_response : str
        What its samples converge to.
    """

    name: str
    library: str | None
    module: str
    traces: int
    largest_error: float
    what: str
    settings: dict[str, Any] = field(default_factory=dict)
    pixel_response: str = "box"


_LENSTRONOMY, _CAUSTICS = ("lenstronomy", "peer_lenstronomy"), ("caustics", "peer_caustics")
_4 = {"samples": 4}

PEERS = (
    Peer("NumPy 1", None, "peer_numpy", 3, 0.2, "float64, one sample a pixel", {"samples": 1}, "in_psf"),
    Peer("NumPy 4x4", None, "peer_numpy", 3, 0.02, "float64, midpoints", _4),
    Peer("lenstronomy 4x4", *_LENSTRONOMY, 3, 0.02, "one ImageModel a band", _4),
    Peer("lenstronomy 4x4, one trace", *_LENSTRONOMY, 1, 0.02, "bands by hand", _4 | {"one_trace": True}),
    Peer("lenstronomy 9x9", *_LENSTRONOMY, 3, 0.01, "fine convolution", {"samples": 9, "fine_psf": True}),
    Peer("JAX 4x4", "jax", "peer_jax", 1, 0.02, "by hand: float32, jitted, mapped over rows", _4),
    Peer("caustics 4x4", *_CAUSTICS, 3, 0.02, "LensSource, batched, Gauss-Legendre", _4),
    Peer("caustics 4x4, one trace", *_CAUSTICS, 1, 0.02, "batched, bands by hand", _4 | {"one_trace": True}),
)

OURS = ("uniform1", "uniform4", "auto")

# (ours, peer, times as fast at least): what the kernels are built for
TARGETS = (
    ("uniform4", "lenstronomy 4x4", 60.0),
    ("uniform4", "JAX 4x4", 8.0),
    ("uniform4", "caustics 4x4", 25.0),
    ("auto", "lenstronomy 9x9", 600.0),
    ("auto", "NumPy 4x4", 50.0),
)


def installed(peer: Peer) -> str | None:
    """Return the version of a peer's library ("" where it needs none), or None where it is not installed."""
    if peer.library is None:
        return ""
    try:
        return version(peer.library)
    except PackageNotFoundError:
        return None


def prepare(peer: Peer, columns: RenderColumns, size_pix: int = SIZE_PIX) -> Call:
    """Return a call that renders the rows with an installed peer: float32 (n, bands, size_pix, size_pix)."""
    module = importlib.import_module(f"arcforge.bench.{peer.module}")
    call: Call = module.prepare(columns, size_pix, PIXSCALE_ARCSEC, **peer.settings)
    return call


@contextmanager
def one_core() -> Iterator[bool]:
    """Keep this process, and the thread pools that libraries start in it, on one core; yields whether that
    holds.

    Where the system cannot pin a process (macOS), only the libraries are asked.
    """
    wanted = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        if cores is not None:
            os.sched_setaffinity(0, {min(cores)})
        yield cores is not None
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def bench_peers(
    *, catalogue: str = "S", source: str = "sersic", repeats: int = 9, progress: Progress | None = None
) -> dict[str, Any]:
    """Compare with the reference, time and return the report as a dict that JSON can hold.

    Parameters
    ----------
    catalogue : {"S", "M", "L"}
        Rows: 16, 64, 512.
    source : str
        Population of rows; see ``arcforge.bench.cases.SOURCES``.
    repeats : int
        Paired: each holds every peer once.
    progress : callable, optional
        ``progress(done, total)``.
    """
    columns = columns_of(source_named(source), CATALOGUES[catalogue])
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "settings": {
            "size_pix": SIZE_PIX,
            "bands": columns.src_flux_nmgy.shape[1],
            "rows": len(columns),
            "source": source,
            "rtol": RTOL,
            "repeats": repeats,
            "clock": "processor time of the process",
        },
    }
    report["machine"] = describe_machine()
    with one_core() as pinned:
        report["machine"]["pinned_to_one_core"] = pinned
        entries, calls = _validated(columns)
        timings = time_calls(calls, repeats, progress=progress)
    for entry in entries:
        if entry["name"] in timings:
            per = max(len(columns), OUR_ROWS) if entry["ours"] else len(columns)
            entry |= timings[entry["name"]].summary(per=per) | {"rows_a_call": per}
    report["entries"] = entries
    report["ratios"] = _ratios(timings, len(columns))
    report["targets"] = _targets(report["ratios"])
    return report


class _Judge:
    """Compares renderers with the converged reference, on smooth rows and on some of those that are timed."""

    def __init__(self, columns: RenderColumns) -> None:
        self._smooth = columns_of(source_named("smooth"), _SMOOTH_ROWS)
        self._compared = columns.take(np.arange(min(_COMPARED_ROWS, len(columns))))
        self._truths = {
            response: [
                render_rows(rows, variant="reference", pixel_response=response)
                for rows in (self._smooth, self._compared)
            ]
            for response in ("box", "in_psf")
        }

    def compare(self, make: Maker, pixel_response: str, largest_error: float) -> dict[str, Any]:
        """Return a renderer's errors; validated: smooth ones within ``largest_error`` of their peak."""
        smooth_truth, truth = self._truths[pixel_response]
        smooth_error = float(errors_over_peak(make(self._smooth)(), smooth_truth).max())
        errors = errors_over_peak(make(self._compared)(), truth)
        return {
            "error_smooth": smooth_error,
            "validated": smooth_error <= largest_error,
            "error_over_peak": {"max": float(errors.max()), "median": float(np.median(errors))},
            "rows_compared": int(errors.size),
        }


def _validated(columns: RenderColumns) -> tuple[list[dict[str, Any]], dict[str, Call]]:
    """Return an entry for every renderer, with its errors, and the calls of those that are right."""
    judge = _Judge(columns)
    entries: list[dict[str, Any]] = []
    calls: dict[str, Call] = {}
    for variant in OURS:
        auto = variant == "auto"
        what = f"{f'rtol {RTOL:g}' if auto else 'midpoints'}, one trace"
        entry = {"name": variant, "installed": True, "ours": True, "traces": 1, "what": what}
        make = partial(_ours, variant)
        entry |= {"pixel_response": "box"} | judge.compare(make, "box", RTOL if auto else 0.1)
        if entry["validated"]:
            rows = np.resize(np.arange(len(columns)), max(len(columns), OUR_ROWS))
            calls[variant] = make(columns.take(rows))
        entries.append(entry)
    for peer in PEERS:
        found = installed(peer)
        entry = {"name": peer.name, "installed": found is not None, "ours": False, "traces": peer.traces}
        entry |= {"what": peer.what, "library": peer.library, "version": found}
        entry |= {"pixel_response": peer.pixel_response}
        if found is not None:
            make = partial(prepare, peer)
            entry |= judge.compare(make, peer.pixel_response, peer.largest_error)
            if entry["validated"]:
                calls[peer.name] = make(columns)
        entries.append(entry)
    return entries, calls


def _ours(variant: str, columns: RenderColumns) -> Call:
    out = np.empty((len(columns), columns.src_flux_nmgy.shape[1], SIZE_PIX, SIZE_PIX), dtype=np.float32)
    return partial(
        render_rows,
        columns,
        stamp_size=SIZE_PIX,
        variant=variant,
        rtol=RTOL,
        threads=1,
        pixel_response="box",
        out=out,
    )


def _ratios(timings: dict[str, Timing], rows: int) -> list[dict[str, Any]]:
    """Return how many times faster a stamp, uniform4 and auto are than every peer that was timed."""
    our_rows = max(rows, OUR_ROWS)
    return [
        {
            "ours": ours,
            "peer": peer.name,
            **ratio(timings[peer.name], timings[ours], per_slow=rows, per_fast=our_rows),
        }
        for ours in ("uniform4", "auto")
        for peer in PEERS
        if ours in timings and peer.name in timings
    ]


def _targets(ratios: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every target with what was measured, ``met`` None where one of the two was not timed."""
    timed = {(found["ours"], found["peer"]): found["median"] for found in ratios}
    found = []
    for ours, peer, times in TARGETS:
        measured = timed.get((ours, peer))
        met = None if measured is None else measured >= times
        found.append({"ours": ours, "peer": peer, "at_least": times, "measured": measured, "met": met})
    return found
