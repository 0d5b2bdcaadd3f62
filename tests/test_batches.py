"""The order in which training sees rows, and pairs made on the fly, without a training library."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arcforge.engine.batches import LANES, EpochOrder, RenderedRows, WindowReader, turned
from arcforge.engine.errors import ConfigError
from arcforge.engine.inject import inject

N = 700


@pytest.fixture(scope="module")
def store(tmp_path_factory, small_config):
    return inject(tmp_path_factory.mktemp("batches") / "S.zarr", config=small_config, n=N, seed=6)


@pytest.mark.parametrize("n", [1, 15, 16, 1000, 5003])
def test_an_epoch_is_a_permutation(n):
    rows = np.arange(3 * n, dtype=np.int64)[::3]
    epochs = [EpochOrder(rows, 16, 24, seed=1, epoch=epoch) for epoch in (0, 1)]
    seen = [np.concatenate([order.rows(k) for k in range(len(order))]) for order in epochs]
    for each in seen:
        np.testing.assert_array_equal(np.sort(each), rows)
    if n > 100:
        assert (seen[0] != seen[1]).mean() > 0.9
        assert (np.abs(np.diff(seen[0])) == 3).mean() < 0.2  # neighbours are parted


def test_workers_that_divide_the_lanes_share_no_window():
    order = EpochOrder(np.arange(20_000, dtype=np.int64), 16, 64, seed=1, epoch=0)
    windows = [order.batch(k)[0] for k in range(len(order))]
    whole = len(order.windows) // LANES * LANES
    for workers in (2, 4, 8):
        of_worker = [{w for w in windows[k::workers] if w < whole} for k in range(workers)]
        assert sum(map(len, of_worker)) == whole


def test_a_window_is_read_once_and_gives_the_pairs_of_the_store(store, monkeypatch):
    order = EpochOrder(np.arange(N), 16, 32, seed=2, epoch=1)
    reads = []
    real = type(store).stamps
    monkeypatch.setattr(
        type(store), "stamps", lambda self, rows: (reads.append(len(rows)), real(self, rows))[1]
    )
    reader = WindowReader(store, order)
    taken = [reader.read(number) for number in range(len(order))]
    assert sum(reads) == N
    assert len(reads) == len(order.windows)
    monkeypatch.undo()
    for rows, stamps, controls in taken[::7]:
        np.testing.assert_array_equal(stamps, store.stamps(rows))
        np.testing.assert_array_equal(controls, store.ctrls(rows))


def test_windows_of_earlier_turns_are_let_go(store):
    order = EpochOrder(np.tile(np.arange(600), 8), 2, 16, seed=2, epoch=1)
    assert len(order.windows) > 2 * LANES
    reader = WindowReader(store, order)
    for number in range(len(order)):
        reader.read(number)
        assert len(reader._held) <= LANES


def test_batches_without_rows_are_refused():
    with pytest.raises(ConfigError, match="batch_size = 0: give at least one row"):
        EpochOrder(np.arange(3), 16, 0, seed=0, epoch=0)
    assert len(EpochOrder(np.arange(0), 16, 4, seed=0, epoch=0)) == 0


def test_pairs_are_turned_alike_and_in_all_eight_ways(store):
    straight = {row: store.arcs([row])[0] for row in range(64)}
    rows = np.arange(64)
    stamps, controls = turned([store.stamps(rows), store.ctrls(rows)], 0, 0, rows)
    seen = set()
    for row, arc in straight.items():
        ways = [np.rot90(arc, k, axes=(1, 2)) for k in range(4)]
        ways += [way[..., ::-1] for way in ways]
        found = stamps[row] - controls[row]
        seen |= {k for k, way in enumerate(ways) if np.array_equal(way, found)}
    assert seen == set(range(8))


def test_noise_of_the_added_light_is_that_of_a_run(tmp_path, small_config):
    config = replace(small_config, noise="gaussian")
    made = inject(tmp_path / "S.zarr", config=config, n=20, seed=1)
    stamps, _, _ = RenderedRows(config=config, hosts=None, seed=1).make(5, 15, 1)
    np.testing.assert_array_equal(stamps, made.stamps(slice(5, 15)))
    assert (made.noise(slice(5, 15)) != 0).any()
