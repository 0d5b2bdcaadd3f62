"""Tasks of a cluster as they run in a worker, and what the process that asked makes of their ends."""

from __future__ import annotations

import shutil
import sys
from types import ModuleType, SimpleNamespace

import pytest

from arcforge.engine import cluster
from arcforge.engine.commits import commit_file, is_done, shard_name
from arcforge.engine.errors import ConfigError, HostError, StoreError
from arcforge.engine.inject import inject

N = 600  # three shards


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_config):
    return inject(tmp_path_factory.mktemp("tasks") / "S.zarr", config=small_config, n=N, seed=3)


@pytest.fixture
def broken(whole, tmp_path):
    """A copy without its middle shard."""
    root = tmp_path / "S.zarr"
    shutil.copytree(whole.path, root)
    (root / commit_file(shard_name(1))).unlink()
    (root / "arcs/c/1/0/0/0").unlink()
    return root


@pytest.fixture
def inputs(small_config):
    return {"config": small_config, "hosts": None, "catalog": None, "n": N, "seed": 3}


def test_a_task_makes_its_shard_and_no_other(whole, broken, inputs, tree_hashes):
    assert not is_done(broken, whole.plan, shard_name(1))
    assert cluster.make_shard(str(broken), whole.plan.sha256, inputs, 1) == 256
    assert tree_hashes(broken) == tree_hashes(whole.path)
    before = (broken / "arcs/c/1/0/0/0").stat().st_mtime_ns
    assert cluster.make_shard(str(broken), whole.plan.sha256, inputs, 1) == 256
    assert cluster.make_shard(str(broken), whole.plan.sha256, inputs, 2) == N - 512
    assert (broken / "arcs/c/1/0/0/0").stat().st_mtime_ns == before


def test_a_worker_with_other_inputs_is_refused(broken, inputs, small_config):
    with pytest.raises(StoreError, match="was begun with"):
        cluster.make_shard(str(broken), "0" * 64, inputs | {"seed": 4}, 1)


def test_without_dask_the_way_to_it_is_told(tmp_path, small_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'arcforge\[dask\]'"):
        inject(tmp_path / "S.zarr", config=small_config, n=20, dask="local")
    with pytest.raises(ConfigError, match="--dask and --partition exclude each other"):
        inject(tmp_path / "T.zarr", config=small_config, n=20, dask="local", partition=(0, 2))


class KilledWorkerError(Exception):
    pass


class Future:
    """A task that runs when its result is asked for; its worker dies some times before."""

    def __init__(self, client, call, key):
        self.client, self.call, self.key = client, call, key

    def result(self):
        if self.client.deaths > 0:
            self.client.deaths -= 1
            raise KilledWorkerError(self.key)
        return self.call()

    def retry(self):
        self.client.retried.append(self.key)


class Queue(list):
    """Futures as they are finished, also those that are added meanwhile."""

    def __init__(self, futures, loop):
        super().__init__(futures)

    add = list.append


@pytest.fixture
def dask(monkeypatch):
    """A cluster of this process: what it was asked, and how often workers die."""
    client = SimpleNamespace(deaths=0, retried=[], cancelled=[], how=None, closed=[], refuses=False)

    class Client:
        loop = None

        def __init__(self, **how):
            if client.refuses:
                raise OSError("timed out")
            client.how = how

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            client.closed.append("client")

        def submit(self, function, *args, key):
            return Future(client, lambda: function(*args), key)

        def cancel(self, futures):
            client.cancelled = list(futures)

    module = ModuleType("distributed")
    module.Client, module.KilledWorker, module.as_completed = Client, KilledWorkerError, Queue
    module.LocalCluster = lambda **how: SimpleNamespace(close=lambda: client.closed.append("cluster"))
    monkeypatch.setitem(sys.modules, "distributed", module)
    return client


@pytest.mark.parametrize("scheduler", ["local", "tcp://there:8786", "file"])
def test_shards_of_a_cluster_are_those_of_this_process(
    dask, whole, small_config, tmp_path, scheduler, tree_hashes
):
    dask.deaths = 3
    if scheduler == "file":
        scheduler = str(tmp_path / "scheduler.json")
        (tmp_path / "scheduler.json").write_text("{}")
    told = []
    made = inject(
        tmp_path / "S.zarr", config=small_config, n=N, seed=3, dask=scheduler,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert tree_hashes(made.path) == tree_hashes(whole.path)
    assert told[-1] == (N, N)
    assert len(told) == 3
    assert len(dask.retried) == 3
    assert dask.closed == (["client", "cluster"] if scheduler == "local" else ["client"])
    key = "scheduler_file" if scheduler.endswith(".json") else "address"
    assert key in dask.how


def test_a_task_whose_workers_die_again_and_again_is_named(dask, small_config, tmp_path):
    dask.deaths = 99
    with pytest.raises(StoreError, match=r"-0 died 5 times .*more memory, and go on with --resume"):
        inject(tmp_path / "S.zarr", config=small_config, n=20, seed=3, dask="tcp://there:8786")
    assert len(dask.retried) == 4


def test_an_error_of_a_task_comes_out_and_the_others_are_cancelled(dask, small_config, tmp_path, monkeypatch):
    def fail(*arguments):
        raise HostError("hosts have gone")

    monkeypatch.setattr(cluster, "make_shard", fail)
    with pytest.raises(HostError, match="hosts have gone"):
        inject(tmp_path / "S.zarr", config=small_config, n=N, seed=3, dask="tcp://there:8786")
    assert len(dask.cancelled) == 3


def test_a_scheduler_that_does_not_answer_is_named(dask, small_config, tmp_path):
    dask.refuses = True
    with pytest.raises(StoreError, match=r"tcp://there:8786: no Dask scheduler answers \(timed out\)"):
        inject(tmp_path / "S.zarr", config=small_config, n=20, seed=3, dask="tcp://there:8786")
