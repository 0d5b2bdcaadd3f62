"""``arcforge bench store``: codecs and chunk sizes, written and read back, on rendered arcs and their hosts.

Every combination is read back and compared before it is timed. The store's own is marked: what it costs
against the others is the reason for it, or against it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.bench.machine import describe_machine
from arcforge.bench.runner import time_calls
from arcforge.engine.arrays import ImageArray
from arcforge.engine.commits import place_files
from arcforge.engine.image_reader import ImageReader
from arcforge.engine.inject import prepare
from arcforge.engine.pairing import pair_exactly
from arcforge.engine.plan import shard_shape
from arcforge.engine.shards import DEFAULT_COMPRESSION, Compression

SCHEMA = "arcforge.bench.store/1"
SEED = 20_260_703
COMPRESSIONS: tuple[Compression | None, ...] = (
    None,
    DEFAULT_COMPRESSION,
    Compression("lz4", 1, "shuffle"),
    Compression("lz4", 5, "bitshuffle"),
    Compression("zstd", 1, "shuffle"),
    Compression("zstd", 3, "bitshuffle"),
)
CHUNK_ROWS = (1, 4, 16, 64)
RANDOM_ROWS = 32

NOTES: dict[str, str] = {
    "encode": "Processor time a stamp to compress a shard and give every chunk its checksum.",
    "write": "Wall time a stamp to encode and place the shard: hash, temporary file, fsync, rename, fsync.",
    "read": "Wall time a stamp to read the whole shard from the page cache, checksums checked.",
    "random": f"Wall time a stamp to read {RANDOM_ROWS} single rows at random places, one call each.",
    "bytes": "Bytes on the disk over bytes of float32.",
}

Progress = Callable[[int, int], None]


def bench_store(
    n_rows: int = 1024,
    *,
    compressions: Sequence[Compression | None] = COMPRESSIONS,
    chunk_rows: Sequence[int] = CHUNK_ROWS,
    folder: Path | None = None,
    repeats: int = 5,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time every codec at the store's chunk size, and every chunk size with the store's codec.

    Parameters
    ----------
    n_rows : int
        Rows of the one shard that is written; a power of two.
    compressions, chunk_rows
        What is compared, besides the store's own.
    folder : Path, optional
        Where files are written; the system's temporary folder where None.
    repeats : int
    progress : callable, optional
        ``progress(done, total)``.
    """
    arcs, hosts = rendered_arcs(n_rows)
    own, _ = shard_shape(n_rows, arcs[0].nbytes)
    cases = [(compression, own) for compression in compressions]
    cases += [(DEFAULT_COMPRESSION, rows) for rows in chunk_rows if rows != own]
    entries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="arcforge-bench-", dir=folder) as name:
        for k, (compression, rows) in enumerate(cases):
            entry = {
                "codec": "none" if compression is None else f"{compression.cname} {compression.level}",
                "shuffle": "" if compression is None else compression.shuffle,
                "chunk_rows": rows,
                "is_default": compression == DEFAULT_COMPRESSION and rows == own,
            }
            entries.append(entry | _time_case(Path(name) / str(k), arcs, hosts, compression, rows, repeats))
            if progress is not None:
                progress(k + 1, len(cases))
    return {
        "schema": SCHEMA,
        "notes": NOTES,
        "machine": describe_machine(),
        "settings": {"rows": n_rows, "stamp_bytes": arcs[0].nbytes, "repeats": repeats},
        "entries": entries,
    }


def rendered_arcs(n_rows: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return arcs as a store holds them, moved to pair with their hosts, and the pixels of the hosts."""
    run = prepare(config=None, hosts=None, catalog=None, n=n_rows, seed=SEED)
    table, columns = run.used(0, n_rows)
    arcs = run.render(columns, None)
    hosts = run.hosts.pixels(np.arange(run.plan.n_hosts))
    pair_exactly(arcs, hosts, table.column("host_index").to_numpy())
    return arcs, hosts


def _time_case(
    root: Path,
    arcs: NDArray[np.float32],
    hosts: NDArray[np.float32],
    compression: Compression | None,
    chunk_rows: int,
    repeats: int,
) -> dict[str, Any]:
    n = len(arcs)
    array = ImageArray("arcs", arcs.shape, chunk_rows, n, compression)
    place_files(root, array.metadata() | array.encode(0, arcs))
    reader = ImageReader(root, "arcs")
    picked = np.random.default_rng(SEED).permutation(n)[:RANDOM_ROWS]
    same = np.array_equal(reader.read(0, n), arcs) and all(
        np.array_equal(reader.read(row, row + 1)[0], arcs[row]) for row in picked
    )
    encoded_hosts = ImageArray("hosts", hosts.shape, chunk_rows, n, compression).encode(0, hosts[:n])
    shares = {
        "arc_bytes": sum(map(len, array.encode(0, arcs).values())) / arcs.nbytes,
        "host_bytes": sum(map(len, encoded_hosts.values())) / hosts[:n].nbytes,
    }
    if not same:
        return {"validated": False, **shares}
    timings = time_calls(
        {
            "encode": lambda: array.encode(0, arcs),
            "write": lambda: place_files(root, array.encode(0, arcs)),
            "read": lambda: reader.read(0, n),
            "random": lambda: [reader.read(row, row + 1) for row in picked],
        },
        repeats,
    )
    per = {"encode": n, "write": n, "read": n, "random": len(picked)}
    return {"validated": True, **shares} | {
        name: timing.summary(per=per[name]) for name, timing in timings.items()
    }
