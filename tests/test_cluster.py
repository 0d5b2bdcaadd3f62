"""A store written by a Dask cluster has the bytes of one written here, also where workers are killed."""

from __future__ import annotations

import os
import signal

import pytest

from arcforge.engine import cluster
from arcforge.engine.errors import ConfigError, HostError, StoreError
from arcforge.engine.inject import inject

distributed = pytest.importorskip("distributed")

# warnings: distributed's own, at the death of workers
pytestmark = [pytest.mark.compiled, pytest.mark.filterwarnings("ignore")]
N = 1500  # six shards


@pytest.fixture(scope="module")
def client():
    workers = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    )
    with workers, distributed.Client(workers, set_as_default=False) as made:
        yield made


@pytest.fixture(scope="module")
def alone(tmp_path_factory, small_config):
    return inject(tmp_path_factory.mktemp("alone") / "S.zarr", config=small_config, n=N, seed=3)


def test_a_cluster_with_a_killed_worker_writes_the_same_bytes(
    client, alone, small_config, tmp_path, tree_hashes
):
    killed: list[int] = []
    told: list[tuple[int, int]] = []

    def kill_one(done: int, total: int) -> None:
        told.append((done, total))
        if not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    made = inject(
        tmp_path / "S.zarr",
        config=small_config,
        n=N,
        seed=3,
        dask=client.scheduler.address,
        progress=kill_one,
    )
    assert killed
    assert told[-1] == (N, N)
    assert sorted(done for done, _ in told) == [done for done, _ in told]
    assert tree_hashes(made.path) == tree_hashes(alone.path)


def test_a_committed_shard_is_not_made_again(client, alone, small_config, monkeypatch):
    inputs = {"config": small_config, "hosts": None, "catalog": None, "n": N, "seed": 3}
    made = []
    monkeypatch.setattr(cluster._ShardMaker, "make", lambda self, shard: made.append(shard))
    assert cluster.make_shard(str(alone.path), alone.plan.sha256, inputs, 5) == N - 5 * 256
    assert made == []


def test_an_error_in_a_worker_comes_out_as_it_is(client, small_config, tmp_path, monkeypatch):
    hosts = tmp_path / "gone"
    inputs = {"config": small_config, "hosts": hosts, "catalog": None, "n": N, "seed": 3}
    future = client.submit(cluster.make_shard, str(tmp_path), "0", inputs, 0)
    with pytest.raises(HostError, match="gone"):
        future.result()


def test_wrong_ways_are_refused(small_config, tmp_path):
    with pytest.raises(ConfigError, match="exclude each other"):
        inject(tmp_path / "S.zarr", config=small_config, n=20, dask="local", partition=(0, 2))
    settings = pytest.importorskip("dask").config
    with (
        settings.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(StoreError, match="no Dask scheduler answers"),
    ):
        inject(tmp_path / "S.zarr", config=small_config, n=20, dask="tcp://127.0.0.1:9")
