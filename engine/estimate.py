"""What a run will take, from a sample of its own rows rendered and encoded in memory; nothing is written."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcforge.engine.arrays import ImageArray, Pixels
from arcforge.engine.inject import Run
from arcforge.engine.making import make_rows
from arcforge.engine.pairing import pair_exactly
from arcforge.engine.pipeline import shards_held
from arcforge.engine.plan import Partition, Plan
from arcforge.engine.run_rows import with_keys, with_measures
from arcforge.engine.table_columns import encode_table
from arcforge.engine.threads import usable_threads

_BLOCKS, _BLOCK_ROWS = 4, 256
_SAMPLED_HOSTS = 32


@dataclass(frozen=True)
class Estimate:
    """What a run (or its partition) will take."""

    n_rows: int
    n_shards: int
    n_hosts: int
    disk_bytes: int
    free_bytes: int  #: on the disk that the output goes to
    memory_bytes: int
    seconds: float
    sampled_rows: int


def estimate(
    run: Run, out: Path, *, threads: int | None = None, partition: Partition | None = None
) -> Estimate:
    """Time a sample of a run's rows, spread over it, and measure their encoded size.

    Raises
    ------
    CatalogError, RenderError
        Where a sampled row cannot be rendered.
    """
    plan = run.plan
    shards = plan.shards_of(partition)
    n_rows = sum(stop - first for first, stop in map(plan.rows_of, shards))
    pixels = run.hosts.pixels(np.arange(min(_SAMPLED_HOSTS, plan.n_hosts)))
    sampled, making, beside, arc_bytes, table_bytes = 0, 0.0, 0.0, 0, 0
    size = min(_BLOCK_ROWS, plan.shard_rows, plan.n_rows)
    firsts = np.unique(np.linspace(0, plan.n_rows - size, _BLOCKS).astype(np.int64)).tolist()
    for number, first in enumerate((0, *firsts)):
        began = time.perf_counter()
        table, columns = run.used(first, first + size)
        table = with_keys(table, first, plan.seed, np.ones(plan.n_hosts, dtype=np.int64))
        drawn = time.perf_counter()
        arcs, table = make_rows(run, table, columns, threads)
        made = time.perf_counter()
        if number == 0:  # first calls compile and plan
            continue
        measures = pair_exactly(arcs, pixels, np.arange(size) % len(pixels), first)
        table = with_measures(table, measures, plan.bands, np.ones((size, len(plan.bands))))
        arc_bytes += _encoded_bytes(plan, arcs)
        table_bytes += len(encode_table(table))
        making += made - drawn
        beside += drawn - began + time.perf_counter() - made
        sampled += size
    host_bytes = _encoded_bytes(plan, pixels) / len(pixels) * plan.n_hosts
    row_bytes = arcs[0].nbytes
    return Estimate(
        n_rows=n_rows,
        n_shards=len(shards),
        n_hosts=plan.n_hosts,
        # The catalogue is there twice, as parquet and as arrays.
        disk_bytes=round((arc_bytes + 2 * table_bytes) / sampled * n_rows + host_bytes),
        free_bytes=shutil.disk_usage(_existing(out)).free,
        memory_bytes=peak_bytes() + shards_held(threads) * min(plan.shard_rows, n_rows) * row_bytes,
        # every thread renders; the rest is done beside them
        seconds=(making + beside / usable_threads(threads)) / sampled * n_rows,
        sampled_rows=sampled,
    )


def _encoded_bytes(plan: Plan, pixels: Pixels) -> int:
    rows = -(-len(pixels) // plan.chunk_rows) * plan.chunk_rows
    array = ImageArray("arcs", pixels.shape, plan.chunk_rows, rows)
    return sum(len(data) for data in array.encode(0, pixels).values())


def _existing(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def peak_bytes() -> int:
    """Return the peak resident memory of this process so far: interpreter, libraries, inputs."""
    try:  # ru_maxrss would count what the parent held when it started this process
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
