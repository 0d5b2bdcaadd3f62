"""Datasets for torch: an epoch is a permutation, the same for any workers, and resumes in its middle."""

from __future__ import annotations

import pickle
from itertools import chain, zip_longest
from types import SimpleNamespace

import numpy as np
import pytest

from arcforge.engine.errors import ConfigError
from arcforge.engine.inject import inject

torch = pytest.importorskip("torch")

from torch.utils.data import BatchSampler, DataLoader, RandomSampler  # noqa: E402

from arcforge.engine.torch_data import PairDataset, PairStream, RenderedPairs  # noqa: E402

N = 700


@pytest.fixture(scope="module")
def store(tmp_path_factory, small_config):
    return inject(tmp_path_factory.mktemp("torch") / "S.zarr", config=small_config, n=N, seed=6)


def rows_of(batches) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


def loaded(dataset, workers: int) -> list:
    """Load an epoch as a DataLoader does, which asks its workers in turn; here they are one process."""
    parts = []
    for worker in range(workers):
        info = SimpleNamespace(id=worker, num_workers=workers)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("arcforge.engine.torch_data.get_worker_info", lambda info=info: info)
            parts.append(list(pickle.loads(pickle.dumps(dataset))))
    return [batch for turn in zip_longest(*parts) for batch in turn if batch is not None]


def test_pairs_are_those_of_the_store(store):
    for batch in PairStream(store.path, 50, turn=False, columns=["theta_e_arcsec"]):
        rows = batch["row"].numpy()
        np.testing.assert_array_equal(batch["stamp"].numpy(), store.stamps(rows))
        np.testing.assert_array_equal(batch["ctrl"].numpy(), store.ctrls(rows))
        expected = store.catalog.column("theta_e_arcsec").to_numpy()[rows]
        np.testing.assert_array_equal(batch["theta_e_arcsec"].numpy(), expected)


def test_the_order_is_the_same_for_any_number_of_workers(store):
    dataset = PairStream(store.path, 32, seed=3)
    alone = list(DataLoader(dataset, batch_size=None))
    shared = list(DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn"))
    assert rows_of(alone) == rows_of(shared)
    assert rows_of(alone) == rows_of(loaded(dataset, 3))
    assert sorted(chain(*rows_of(alone))) == list(range(N))
    assert len(alone) == len(dataset)
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["stamp"], other["stamp"])


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_training_goes_on_in_the_middle_of_an_epoch(store, workers):
    dataset = PairStream(store.path, 32, seed=3)
    dataset.set_epoch(2)
    whole = list(dataset)
    state = dataset.state_dict(after=whole[6])
    assert state == {"seed": 3, "epoch": 2, "position": 7}
    again = PairStream(store.path, 32)
    again.load_state_dict(state)
    rest = loaded(again, workers)
    assert rows_of(rest) == rows_of(whole[7:])
    assert torch.equal(rest[0]["stamp"], whole[7]["stamp"])


def test_a_split_holds_its_rows_only(store):
    split = np.array(store.catalog.column("split").to_pylist())
    name = split[0]
    rows = chain(*rows_of(PairStream(store.path, 32, split=name)))
    assert sorted(rows) == np.flatnonzero(split == name).tolist()


def test_pairs_by_index_are_read_a_batch_at_a_time(store, monkeypatch):
    dataset = PairDataset(store.path, columns=["theta_e_arcsec"])
    assert len(dataset) == N
    np.testing.assert_array_equal(dataset[5]["stamp"].numpy(), store.stamps([5])[0])
    calls = []
    real = type(store).stamps
    monkeypatch.setattr(
        type(store), "stamps", lambda self, rows: (calls.append(len(rows)), real(self, rows))[1]
    )
    sampler = BatchSampler(RandomSampler(dataset, generator=torch.Generator().manual_seed(1)), 100, False)
    seen = [batch["row"] for batch in DataLoader(dataset, batch_sampler=sampler)]
    assert calls == [100] * 7
    assert sorted(torch.cat(seen).tolist()) == list(range(N))


def test_pairs_made_on_the_fly_are_those_of_a_run(store, small_config):
    stream = RenderedPairs(config=small_config, seed=6, batch_size=40, epoch_rows=100, turn=False)
    batches = list(stream)
    assert [len(batch["row"]) for batch in batches] == [40, 40, 20]
    for batch in batches:
        rows = batch["row"].numpy()
        np.testing.assert_array_equal(batch["stamp"].numpy(), store.stamps(rows))
        np.testing.assert_array_equal(batch["ctrl"].numpy(), store.ctrls(rows))
    stream.set_epoch(1)
    assert rows_of(stream)[0][:2] == [100, 101]  # never the same arc twice


def test_pairs_made_on_the_fly_are_the_same_for_any_workers_and_resume(small_config):
    stream = RenderedPairs(config=small_config, seed=6, batch_size=16, epoch_rows=100)
    alone, shared = loaded(stream, 1), loaded(stream, 3)
    assert rows_of(alone) == rows_of(shared)
    assert all(torch.equal(a["stamp"], b["stamp"]) for a, b in zip(alone, shared, strict=True))
    stream.load_state_dict(stream.state_dict(after=alone[2]))
    assert rows_of(stream) == rows_of(alone[3:])


def test_what_a_batch_cannot_hold_is_refused(store):
    with pytest.raises(ConfigError, match="no column 'theta'"):
        next(iter(PairStream(store.path, columns=["theta"])))
    with pytest.raises(ConfigError, match="lens_model"):
        next(iter(PairStream(store.path, columns=["lens_model"])))
    with pytest.raises(ConfigError, match="batch_size = 0"):
        next(iter(PairStream(store.path, 0)))
    with pytest.raises(ConfigError, match="epoch_rows = 0"):
        RenderedPairs(epoch_rows=0)


def test_the_example_learns(store):
    from arcforge.bench.loaders import train

    found = train(store.path, 20)
    assert found["last_loss"] < 0.95 * found["first_loss"]
