"""``arcforge bench pipeline``: whole runs, against rendering alone, writing alone, and NumPy writing npz.

One run measures all of it, interleaved, on the same rows and hosts. The hosts are read from files, the output
goes to a disk. Nothing is timed before a store was verified, its rows rendered again bit for bit.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.bench.machine import describe_machine
from arcforge.bench.peer_numpy import prepare as prepare_numpy
from arcforge.bench.runner import Timing, ratio, time_calls
from arcforge.engine.host_source import StoredHosts
from arcforge.engine.inject import Run, inject, prepare
from arcforge.engine.pairing import pair_exactly
from arcforge.engine.plan import Plan
from arcforge.engine.run_rows import count_host_rows, with_keys, with_measures
from arcforge.engine.store import Store
from arcforge.engine.synthetic import synthetic_hosts
from arcforge.engine.threads import usable_threads
from arcforge.engine.verify import verify
from arcforge.engine.writer import ShardWriter, begin, complete

SCHEMA = "arcforge.bench.pipeline/1"
SEED = 20_260_702
HOSTS = 128
NUMPY_ROWS, NUMPY_SAMPLES = 8, 4
MILLION = 1_000_000
TARGETS = {"of_render_only": 0.7, "times_numpy": 100.0, "stamps_per_s": 4000.0, "memory_gb": 1.5}

NOTES: dict[str, str] = {
    "inject": "arcforge inject from nothing to a complete store: hosts read from npz files, rows drawn and "
    "checked, rendered, paired, compressed, hashed, written with fsync, committed; catalogue and manifest.",
    "render": "The same rows rendered shard by shard with the same threads; nothing else.",
    "write": "The same number of shards paired, compressed, hashed, written and committed; the arcs of one "
    "shard, rendered before, stand for each.",
    "numpy": f"float64 NumPy as injection scripts have it, {NUMPY_SAMPLES} x {NUMPY_SAMPLES} samples a "
    "pixel, one trace a band; stamp and control written by np.savez_compressed, one file each.",
    "times_numpy": "By processor time a stamp, so that the number of cores does not count.",
    "memory": "Peak resident memory of a process of its own, interpreter and libraries included. The figure "
    "for a million rows is a straight line through the two runs, and an extrapolation.",
}

Progress = Callable[[int, int], None]


def bench_pipeline(
    n_rows: int = 20_480,
    *,
    threads: int | None = None,
    folder: Path | None = None,
    repeats: int = 3,
    memory_rows: tuple[int, int] = (20_480, 61_440),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time whole runs and their parts, and return the report as a dict that JSON can hold.

    Parameters
    ----------
    n_rows : int
        Rows of a run.
    threads : int, optional
        Threads that render; every core where None.
    folder : Path, optional
        Where hosts and stores are written (a folder in it is made and removed); the system's temporary
        folder where None.
    repeats : int
    memory_rows : (int, int)
        Rows of the two runs whose memory is measured.
    progress : callable, optional
        ``progress(done, total)`` in steps.
    """
    used = usable_threads(threads)
    steps = itertools.count(1)
    total = 5

    def tell() -> None:
        if progress is not None:
            progress(next(steps), total)

    with tempfile.TemporaryDirectory(prefix="arcforge-bench-", dir=folder) as name:
        work = Path(name)
        hosts = write_hosts(work / "hosts")
        tell()
        run = prepare(config=None, hosts=hosts, catalog=None, n=n_rows, seed=SEED)
        store = inject(work / "checked.zarr", hosts=hosts, n=n_rows, seed=SEED, threads=threads)
        found = verify(store.path, level="deep", threads=threads)
        tell()
        calls = {
            "numpy": _numpy_call(run, store, work / "numpy"),
            "inject": _inject_call(work, hosts, n_rows, threads),
            "render": _render_call(run, threads),
            "write": _write_call(run, work),
        }
        timings = time_calls(calls, repeats, after=partial(_remove_stores, work))
        tell()
        scaling = _scaling(work, hosts, n_rows, used, repeats)
        tell()
        memory = _memory(work, hosts, memory_rows, threads)
        tell()
    return {
        "schema": SCHEMA,
        "notes": NOTES,
        "machine": describe_machine(),
        "settings": {
            "rows": n_rows,
            "threads": used,
            "hosts": HOSTS,
            "stamp_size": run.plan.stamp_size,
            "bands": run.plan.bands,
            "rtol": run.config.rtol,
            "repeats": repeats,
        },
        "validated": found.sound and found.complete,
        "faults": found.faults,
        **summarise(timings, n_rows),
        "scaling": scaling,
        "memory": memory,
        "targets": TARGETS,
    }


def summarise(timings: dict[str, Timing], n_rows: int) -> dict[str, Any]:
    """Return rates and ratios: medians, with the quartiles of the ratios of each repeat."""
    rows = dict.fromkeys(timings, n_rows) | {"numpy": NUMPY_ROWS}
    parts = {
        name: timing.summary(per=rows[name])
        | {"stamps_per_s": rows[name] / float(np.median(timing.wall_s)), "rows": rows[name]}
        for name, timing in timings.items()
    }
    render, inject, numpy = (timings[name] for name in ("render", "inject", "numpy"))
    compare = partial(ratio, numpy, inject, per_slow=NUMPY_ROWS, per_fast=n_rows)
    return {
        "parts": parts,
        "of_render_only": ratio(render, inject, clock="wall_s"),
        "times_numpy": compare(clock="wall_s"),
        "times_numpy_cpu": compare(),
    }


def write_hosts(folder: Path) -> Path:
    """Write synthetic galaxies as npz cutouts, one file each, and return the folder."""
    folder.mkdir()
    hosts = synthetic_hosts(HOSTS, SEED)
    for host in hosts:
        arrays: dict[str, Any] = {"pixscale_arcsec": hosts.pixscale_arcsec}
        for k, band in enumerate(hosts.bands):
            arrays[f"image_{band}"] = host.pixels[k]
            if host.psf_fwhm_arcsec is not None:
                arrays[f"psf_fwhm_arcsec_{band}"] = host.psf_fwhm_arcsec[k]
        np.savez(folder / f"{host.host_id}.npz", **arrays)
    return folder


def _remove_stores(work: Path) -> None:
    for name in ("timed.zarr", "written.zarr"):
        shutil.rmtree(work / name, ignore_errors=True)


def _inject_call(work: Path, hosts: Path, n_rows: int, threads: int | None) -> Callable[[], None]:
    def call() -> None:
        inject(work / "timed.zarr", hosts=hosts, n=n_rows, seed=SEED, threads=threads)

    return call


def _render_call(run: Run, threads: int | None) -> Callable[[], None]:
    plan = run.plan
    shards = [run.used(*plan.rows_of(shard))[1] for shard in range(plan.n_shards)]
    out = np.empty((min(plan.shard_rows, plan.n_rows), *plan.row_shape), dtype=np.float32)

    def call() -> None:
        for columns in shards:
            run.render(columns, threads, out=out[: len(columns)])

    return call


def _write_call(run: Run, work: Path) -> Callable[[], None]:
    plan = run.plan
    tables, rendered = [], run.render(run.used(*plan.rows_of(0))[1], None)
    counts = count_host_rows(run.rows, plan.n_hosts)
    for shard in range(plan.n_shards):
        first, stop = plan.rows_of(shard)
        tables.append(with_keys(run.used(first, stop)[0], first, plan.seed, counts))
    pixels = run.hosts.pixels(np.arange(plan.n_hosts))
    sigma = run.hosts.table.sky_sigma_nmgy

    def paired(shard: int, arcs: NDArray[np.float32], table: Any) -> Any:
        index = table.column("host_index").to_numpy()
        measures = pair_exactly(arcs, pixels, index)
        return with_measures(table, measures, plan.bands, sigma[index])

    def call() -> None:
        out = work / "written.zarr"
        begin(out, plan, StoredHosts(run.hosts))
        with ShardWriter(out, plan, before=paired) as writer:
            for shard, table in enumerate(tables):
                writer.put(shard, rendered[: table.num_rows], table)
        complete(out, plan)

    return call


def _numpy_call(run: Run, store: Store, folder: Path) -> Callable[[], None]:
    """Render and write the first rows as scripts do: stamp and control each into a compressed npz."""
    folder.mkdir()
    plan: Plan = run.plan
    columns = run.used(0, NUMPY_ROWS)[1]
    render = prepare_numpy(columns, plan.stamp_size, plan.pixscale_arcsec, samples=NUMPY_SAMPLES)
    controls = store.ctrls(slice(0, NUMPY_ROWS))

    def call() -> None:
        for row, (control, arc) in enumerate(zip(controls, render(), strict=True)):
            for what, images in (("stamp", control + arc), ("ctrl", control)):
                bands = {f"image_{band}": image for band, image in zip(plan.bands, images, strict=True)}
                np.savez_compressed(folder / f"{what}-{row}.npz", **bands)

    return call


def _scaling(work: Path, hosts: Path, n_rows: int, used: int, repeats: int) -> list[dict[str, Any]]:
    counts = sorted({1, used, *(2**k for k in range(1, 12) if 2**k < used)})
    if len(counts) == 1:
        return []
    calls = {str(k): _inject_call(work, hosts, n_rows, k) for k in counts}
    timings = time_calls(calls, repeats, after=partial(_remove_stores, work))
    one = timings["1"].wall_s
    return [
        {
            "threads": k,
            **timings[str(k)].summary(per=n_rows),
            "speedup": float(np.median(one / timings[str(k)].wall_s)),
        }
        for k in counts
    ]


_PEAK = """
import json, sys
from arcforge.engine.estimate import peak_bytes
from arcforge.engine.inject import inject
out, hosts, n, seed, threads = json.loads(sys.argv[1])
inject(out, hosts=hosts, n=n, seed=seed, threads=threads)
print(peak_bytes())
"""


def _memory(work: Path, hosts: Path, rows: tuple[int, int], threads: int | None) -> dict[str, Any]:
    """Return the peak memory of two runs, and what a straight line through them gives for a million rows."""
    peaks = []
    for n in rows:
        out = work / "memory.zarr"
        arguments = json.dumps([str(out), str(hosts), n, SEED, threads])
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, arguments], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
        shutil.rmtree(out)
    slope = max(0.0, (peaks[1] - peaks[0]) / (rows[1] - rows[0]))
    return {
        "rows": list(rows),
        "peak_bytes": peaks,
        "million_rows_bytes": round(peaks[1] + slope * max(0, MILLION - rows[1])),
    }
