"""The stages of a run, overlapped: rows are drawn ahead, and shards paired, encoded and written behind.

Rendering has the calling thread and the threads that it is given; everything else goes on beside it, in
threads that mostly run compiled code. The queues between them hold one shard each, so that memory is the same
at any number of rows.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from arcforge.engine.added_light import AddedLight
from arcforge.engine.making import make_rows
from arcforge.engine.run_rows import count_host_rows, with_keys
from arcforge.engine.threads import usable_threads
from arcforge.engine.writer import ShardWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.arrays import Pixels
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.inject import Run

T = TypeVar("T")

# One thread pairs, encodes and writes what some four threads render; one more has work while another waits
# for the disk.
_RENDERERS_A_WRITER, _MOST_WRITERS = 4, 4


def write_shards(
    root: Path, run: Run, shards: list[int], threads: int | None, progress: Callable[[int], None]
) -> None:
    """Render and write shards of a run.

    Parameters
    ----------
    root
        A store that was begun by the run's plan, under the caller's lock.
    shards
        In ascending order.
    threads
        Threads that render; every core where None.
    progress
        Called with the number of rows of each shard that is rendered.
    """
    plan = run.plan
    n_writers = _writers(threads)
    host_rows = count_host_rows(run.rows, plan.n_hosts)
    # Pages that were touched before: fresh memory costs as much as copying it.
    free: queue.SimpleQueue[Pixels] = queue.SimpleQueue()
    for _ in range(min(n_writers + 2, len(shards))):
        free.put(np.empty((min(plan.shard_rows, plan.n_rows), *plan.row_shape), dtype=np.float32))

    def drawn() -> Iterator[tuple[int, pa.Table, RenderColumns]]:
        for shard in shards:
            first, stop = plan.rows_of(shard)
            table, columns = run.used(first, stop)
            yield shard, with_keys(table, first, plan.seed, host_rows), columns

    with AddedLight(root, plan, run.hosts, run.config) as added:

        def paired(shard: int, arcs: Pixels, table: pa.Table) -> pa.Table:
            return added.finish(arcs, table, plan.rows_of(shard)[0])

        with (
            ShardWriter(root, plan, writers=n_writers, before=paired, after=free.put) as writer,
            ahead(drawn()) as rows,
        ):
            for shard, table, columns in rows:
                arcs, table = make_rows(run, table, columns, threads, free.get()[: len(columns)])
                writer.put(shard, arcs, table)
                progress(len(columns))


def _writers(threads: int | None) -> int:
    return min(_MOST_WRITERS, 2 + usable_threads(threads) // _RENDERERS_A_WRITER)


def shards_held(threads: int | None) -> int:
    """Return how many shards are in memory at a time: one in the making, one that waits, and each that is
    written twice, as it was rendered and as it was encoded.
    """
    return 2 + 2 * _writers(threads)


@contextmanager
def ahead(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """Make the next item in another thread while the present one is used; at most one waits.

    What goes wrong there is raised here, in its turn. Leaving the body ends the thread.
    """
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=1)
    leaving = threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                made.put((item, None))
                if leaving.is_set():
                    return
        except BaseException as raised:  # handed to the thread that waits
            error = raised
        made.put((None, error))

    def use() -> Iterator[T]:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    thread = threading.Thread(target=make, name="arcforge-ahead", daemon=True)
    thread.start()
    try:
        yield use()
    finally:
        leaving.set()
        while thread.is_alive():  # it may stand at a full queue
            with suppress(queue.Empty):
                made.get(timeout=0.05)
