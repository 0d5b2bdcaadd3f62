"""``arcforge bench kernels``: every variant at every size, validated, then timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.bench.cases import (
    CATALOGUES,
    PIXSCALE_ARCSEC,
    SIZES_PIX,
    Source,
    Stamp,
    columns_of,
    source_named,
    stamp_of,
)
from arcforge.bench.flops import ray_cost
from arcforge.bench.machine import describe_machine, fma_peak_gflops, fma_speedup
from arcforge.bench.runner import Timing, errors_over_peak, time_calls
from arcforge.engine.catalog import RenderColumns
from arcforge.engine.render import render_rows
from arcforge.engine.sampling import Sampler
from arcforge.engine.stamps import Options
from arcforge.engine.threads import usable_threads
from arcforge.engine.variants import VARIANTS, Variant

SCHEMA = "arcforge.bench.kernels/1"
RTOL = 1e-3
_SMOOTH_ROWS = 2
# "low_rank" differs in PSF images alone: arcforge.bench.psf_paths
TIMED_VARIANTS = tuple(
    variant for variant in VARIANTS if variant.name != "reference" and not variant.low_rank
)

# What the numbers of a report mean, kept with them.
NOTES: dict[str, str] = {
    "clocks": "cpu_us: processor time of the process; wall_us: wall time. Medians of interleaved repeats.",
    "flop": "Counted from the source of the kernel that traces a ray: +, -, *, / and square roots of floats, "
    "one each; minima, selects, roundings and integer operations are not (see arcforge.bench.flops).",
    "peak": "float32 multiply-adds of one core, counted as two, in a loop of independent chains compiled as "
    "the kernels are; best of the repeats, processor time.",
    "roofline": "A ray reads nothing and writes 4 bytes to a line that stays in the level-1 cache, some 40 "
    "FLOP a byte: arithmetic bounds it, not memory. Half of the peak is lost wherever an addition or a "
    "multiplication stands alone, all of it in selects, roundings and bit operations.",
    "adaptive": "The share of 'auto' counts rays only, not refinement and gridding, and is a lower bound.",
}

Progress = Callable[[int, int], None]
Images = NDArray[np.float32]


def bench_kernels(
    sizes: Sequence[int] = SIZES_PIX,
    *,
    catalogue: str = "S",
    source: str = "sersic",
    repeats: int = 7,
    compile_time: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Validate and time every variant, and return the report as a dict that JSON can hold.

    Parameters
    ----------
    sizes : sequence of int
        Stamp sizes [pix].
    catalogue : {"S", "M", "L"}
        How many rows are timed: 16, 64, 512.
    source : str
        Population of rows; see ``arcforge.bench.cases.SOURCES``.
    repeats : int
    compile_time : bool
        Also measure the first call of fresh processes, with empty and with warm caches (half a minute).
    progress : callable, optional
        ``progress(done, total)``.
    """
    population = source_named(source)
    steps = len(sizes) + 1 + compile_time
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "notes": NOTES,
        "machine": describe_machine(),
        "settings": {
            "sizes": list(sizes),
            "catalogue": catalogue,
            "rows": CATALOGUES[catalogue],
            "source": population.name,
            "bands": 3,
            "rtol": RTOL,
            "repeats": repeats,
        },
    }
    peak = fma_peak_gflops()
    report["fma_peak_gflops_per_core"] = peak
    report["variants"] = []
    for k, size in enumerate(sizes):
        report["variants"] += bench_size(stamp_of(size), CATALOGUES[catalogue], population, repeats, peak)
        _tell(progress, k + 1, steps)
    wrong = {entry["variant"] for entry in report["variants"] if not entry["validated"]}
    threaded = [name for name in ("uniform4", "auto") if name not in wrong]
    report["threads"] = bench_threads(threaded, columns_of(population, CATALOGUES["L"]), repeats)
    _tell(progress, len(sizes) + 1, steps)
    report["start"] = [first_call(name) for name in ("uniform4", "auto")] if compile_time else []
    _tell(progress, steps, steps)
    return report


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def bench_size(
    stamp: Stamp, n_rows: int, source: Source, repeats: int, peak_gflops: float
) -> list[dict[str, Any]]:
    """Return one entry for every variant at one stamp size, the reference included."""
    smooth = columns_of(source_named("smooth"), _SMOOTH_ROWS, stamp.size_pix)
    smooth_truth = render_rows(smooth, stamp_size=stamp.size_pix, variant="reference")
    columns = columns_of(source, n_rows, stamp.size_pix)
    compared = columns.take(np.arange(min(stamp.reference_rows, n_rows)))
    truth, reference = _timed_reference(compared, stamp)
    entries: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], object]] = {}
    samplers: dict[str, Sampler] = {}
    for variant in TIMED_VARIANTS:
        found = _rendered(smooth, stamp, variant)
        entry = _validation(variant, float(errors_over_peak(found, smooth_truth).max()))
        errors = errors_over_peak(_rendered(compared, stamp, variant), truth)
        entry |= _error_summary(errors) | {"size_pix": stamp.size_pix, "rows": n_rows}
        if variant.name == "auto":
            entry["validated"] &= bool(errors.max() <= RTOL)
        if entry["validated"]:
            calls[variant.name] = _render_call(columns, stamp, variant)
            sampler = samplers[variant.name] = Sampler(columns, _options(stamp, variant))
            calls[variant.name + " rays"] = sampler.fill
        entries.append(entry)
    timings = time_calls(calls, repeats)
    for entry in entries:
        if entry["validated"]:
            name = entry["variant"]
            rays = samplers[name].rays()
            entry |= _speed(timings[name], timings[name + " rays"], rays, columns.src_n, name, peak_gflops)
    return [*entries, {"size_pix": stamp.size_pix, "rows": len(compared), **reference}]


def _options(stamp: Stamp, variant: Variant) -> Options:
    return Options(stamp.size_pix, PIXSCALE_ARCSEC, RTOL, variant, False)


def _rendered(columns: RenderColumns, stamp: Stamp, variant: Variant) -> Images:
    return render_rows(columns, stamp_size=stamp.size_pix, variant=variant.name, rtol=RTOL, threads=1)


def _render_call(columns: RenderColumns, stamp: Stamp, variant: Variant) -> Callable[[], object]:
    out = np.empty((len(columns), 3, stamp.size_pix, stamp.size_pix), dtype=np.float32)
    return partial(
        render_rows, columns, stamp_size=stamp.size_pix, variant=variant.name, rtol=RTOL, threads=1, out=out
    )


def _timed_reference(columns: RenderColumns, stamp: Stamp) -> tuple[Images, dict[str, Any]]:
    cpu, wall = time.process_time(), time.perf_counter()
    truth = render_rows(columns, stamp_size=stamp.size_pix, variant="reference")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    timing = Timing(np.array([cpu]), np.array([wall])).summary(per=len(columns))
    return truth, {"variant": "reference", "validated": True, **timing}


def _validation(variant: Variant, error: float) -> dict[str, Any]:
    return {
        "variant": variant.name,
        "why": variant.why,
        "tolerance_smooth": variant.tolerance,
        "error_smooth": error,
        "validated": error <= variant.tolerance,
    }


def _error_summary(errors: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "error_over_peak": {"max": float(errors.max()), "median": float(np.median(errors))},
        "rows_compared": int(errors.size),
    }


def _speed(
    whole: Timing,
    tracing: Timing,
    rays: NDArray[np.int64],
    n: NDArray[np.float64],
    name: str,
    peak_gflops: float,
) -> dict[str, Any]:
    """Return the timed part of an entry.

    The share of the peak is that of the loop that traces rays (grid filled, no PSF): operations of all rays
    over its median processor time. For the adaptive kernel that time holds refinement and gridding as well,
    whose operations are not counted, so its share is a lower bound.
    """
    costs = [ray_cost(name == "auto", bool(exponential)).flop for exponential in n == 1.0]
    flop = float(np.dot(rays, costs))
    seconds = float(np.median(tracing.cpu_s))
    total = float(rays.sum())
    return whole.summary(per=len(rays)) | {
        "rays": {"median": float(np.median(rays)), "max": int(rays.max())},
        "tracing_us": seconds * 1e6 / len(rays),
        "tracing_share": seconds / float(np.median(whole.cpu_s)),
        "ns_per_ray": seconds * 1e9 / total,
        "flop_per_ray": flop / total,
        "gflops": flop / seconds / 1e9,
        "fma_peak_share": flop / seconds / 1e9 / peak_gflops,
    }


def bench_threads(variants: Sequence[str], columns: RenderColumns, repeats: int) -> list[dict[str, Any]]:
    """Return wall time and speed-up of 1, 2, 4, ... threads, up to every core, on 64-pixel stamps."""
    n_rows = len(columns)
    most = usable_threads(None)
    counts = sorted({1, most, *(2**k for k in range(1, 12) if 2**k < most)})
    entries = []
    ceilings = {threads: fma_speedup(threads) for threads in counts}
    for variant in variants:
        out = np.empty((n_rows, 3, 64, 64), dtype=np.float32)
        calls = {str(k): partial(render_rows, columns, variant=variant, threads=k, out=out) for k in counts}
        timings = time_calls(calls, repeats)
        one = timings["1"]
        for threads in counts:
            found = timings[str(threads)]
            entries.append(
                {
                    "variant": variant,
                    "threads": threads,
                    "rows": n_rows,
                    **found.summary(per=n_rows),
                    "speedup": float(np.median(one.wall_s) / np.median(found.wall_s)),
                    "speedup_best": float(one.wall_s.min() / found.wall_s.min()),
                    "fma_speedup": ceilings[threads],
                    # how much more processor time the same work took: caches and memory shared, not waiting
                    "cpu_ratio": float(np.median(found.cpu_s) / np.median(one.cpu_s)),
                }
            )
    return entries


_FIRST_CALL = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
from arcforge.bench.cases import draw_rows, source_named
from arcforge.engine import render_batch
rows = draw_rows(source_named("smooth"), 1)
imported = time.perf_counter() - wall, time.process_time() - cpu
render_batch(rows, variant=sys.argv[1], threads=1)
print(json.dumps([*imported, time.perf_counter() - wall, time.process_time() - cpu]))
"""


def first_call(variant: str) -> dict[str, Any]:
    """Return what a new process takes from its start to the first stamp, with nothing compiled and with all
    compiled.
    """
    with tempfile.TemporaryDirectory(prefix="arcforge-bench-") as folder:
        environment = os.environ | {"ARCFORGE_CACHE_DIR": folder}
        command = [sys.executable, "-c", _FIRST_CALL, variant]
        found = []
        for _ in range(2):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout))
    cold, warm = found
    return {
        "variant": variant,
        "import_wall_s": warm[0],
        "import_cpu_s": warm[1],
        "first_stamp_cold_wall_s": cold[2],
        "first_stamp_cold_cpu_s": cold[3],
        "first_stamp_warm_wall_s": warm[2],
        "first_stamp_warm_cpu_s": warm[3],
        "compile_cpu_s": cold[3] - warm[3],
    }
