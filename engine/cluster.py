"""Shards of a run on a Dask cluster (extra ``[dask]``): a task is one shard, its result the rows committed.

What a task writes is committed before it returns, so that a task which runs again, because its worker died
with the result or before it, finds its shard done or does it anew, to the same bytes. The process that asked
holds the store's lock and completes it; inputs and store lie where every worker reads and writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcforge.engine.added_light import AddedLight
from arcforge.engine.commits import is_done, shard_name
from arcforge.engine.errors import ArcforgeError, ConfigError, StoreError
from arcforge.engine.making import make_rows
from arcforge.engine.plan import read_plan
from arcforge.engine.run_rows import count_host_rows, with_keys
from arcforge.engine.writer import arcs_array, write_shard

if TYPE_CHECKING:
    from arcforge.engine.inject import Run

LOCAL = "local"
# A worker that dies takes its task along; after so many deaths of one task, the task is to blame.
_MOST_DEATHS = 5


class _ShardMaker:
    """What a worker process keeps from one task to the next: checked inputs and the hosts' pixels."""

    def __init__(self, root: Path, run: Run) -> None:
        self._root, self._run = root, run
        self._host_rows = count_host_rows(run.rows, run.plan.n_hosts)
        self._array = arcs_array(run.plan)
        self._added = AddedLight(root, run.plan, run.hosts, run.config)

    def make(self, shard: int) -> None:
        run, plan = self._run, self._run.plan
        first, stop = plan.rows_of(shard)
        table, columns = run.used(first, stop)
        table = with_keys(table, first, plan.seed, self._host_rows)
        arcs, table = make_rows(run, table, columns, 1)
        table = self._added.finish(arcs, table, first)
        write_shard(self._root, plan, self._array, shard, arcs, table)


_makers: dict[tuple[str, str], _ShardMaker] = {}


def make_shard(root: str, plan_sha256: str, inputs: dict[str, Any], shard: int) -> int:
    """Write one shard in a worker process, unless it is committed, and return its rows."""
    from arcforge.engine.inject import prepare

    place = Path(root)
    key = root, plan_sha256
    if key not in _makers:
        run = prepare(**inputs)
        run.plan.refuse_other(read_plan(place), place)
        _makers.clear()  # one store at a time: its hosts fill the memory
        _makers[key] = _ShardMaker(place, run)
    plan = _makers[key]._run.plan
    if not is_done(place, plan, shard_name(shard)):
        _makers[key].make(shard)
    first, stop = plan.rows_of(shard)
    return stop - first


def write_shards_on_cluster(
    root: Path,
    run: Run,
    inputs: dict[str, Any],
    shards: list[int],
    scheduler: str,
    progress: Callable[[int], None],
) -> None:
    """Write shards by the workers of a cluster.

    Parameters
    ----------
    root
        A store that was begun, under the caller's lock.
    run
        The run, as the caller checked it.
    inputs
        Arguments of :func:`arcforge.engine.inject.prepare`, for the workers to check anew.
    shards
        To be written.
    scheduler
        Address (``tcp://host:8786``), a scheduler file, or ``"local"`` for a cluster of this machine's cores.
    progress
        Called with the rows of each shard that is committed.

    Raises
    ------
    ConfigError
        Where dask is not installed.
    StoreError
        Where the scheduler cannot be reached, or a shard's workers died time after time.
    """
    try:
        from distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError as error:
        raise ConfigError("--dask needs dask: pip install 'arcforge[dask]'") from error
    where = str(root.absolute())
    arguments = {name: _absolute(value) for name, value in inputs.items()}
    if scheduler == LOCAL:
        how: dict[str, Any] = {"address": LocalCluster(threads_per_worker=1, dashboard_address=None)}
    elif Path(scheduler).is_file():
        how = {"scheduler_file": scheduler}
    else:
        how = {"address": scheduler}
    try:
        client = Client(**how, set_as_default=False)
    except (OSError, ValueError) as error:
        raise StoreError(f"{scheduler}: no Dask scheduler answers ({error}); check its address") from error
    with client:
        sent = [
            client.submit(
                make_shard, where, run.plan.sha256, arguments, shard, key=f"{run.plan.sha256}-{shard}"
            )
            for shard in shards
        ]
        deaths: dict[str, int] = {}
        finished = as_completed(sent, loop=client.loop)
        for future in finished:
            try:
                progress(future.result())
            except ArcforgeError:
                client.cancel(sent)
                raise
            except KilledWorker as error:
                deaths[future.key] = deaths.get(future.key, 0) + 1
                if deaths[future.key] >= _MOST_DEATHS:
                    raise StoreError(
                        f"{root}: the workers of {future.key} died {_MOST_DEATHS} times ({error}); give them "
                        "more memory, and go on with --resume"
                    ) from error
                future.retry()
                finished.add(future)
    if scheduler == LOCAL:
        how["address"].close()


def _absolute(value: Any) -> Any:
    return value.absolute() if isinstance(value, Path) else value
