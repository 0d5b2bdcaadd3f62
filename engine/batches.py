"""The order in which training sees rows: block-shuffled, a permutation an epoch, the same for any workers.

Rows are taken in blocks, neighbours on the disk, because reading one row costs as much as reading its block.
The blocks of an epoch are shuffled, sixteen or more of them make a window, and rows are shuffled within it.
Windows stand side by side in lanes, and batches come from the lanes in turn: where the number of
workers divides the number of lanes, each window is read by one worker only, and the order of batches is the
same however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.draws import uniform
from arcforge.engine.errors import ConfigError

if TYPE_CHECKING:
    from arcforge.engine.store import Store

Rows = NDArray[np.int64]
Images = NDArray[np.float32]

LANES = 8
_BLOCKS_A_WINDOW = 16


@dataclass(frozen=True)
class State:
    """Where training stands: everything that the rest of it follows from."""

    seed: int
    epoch: int
    position: int  #: batches of the epoch that were used


class EpochOrder:
    """The batches of one epoch.

    Parameters
    ----------
    rows
        (n,) row numbers to be used, ascending.
    block_rows
        Rows that are read together.
    batch_rows
        Rows of a batch; the last one of an epoch can be smaller, and so can one at the end of a window.
    seed, epoch
        What the order follows from, with the rows.
    """

    def __init__(self, rows: Rows, block_rows: int, batch_rows: int, seed: int, epoch: int) -> None:
        if batch_rows < 1:
            raise ConfigError(f"batch_size = {batch_rows}: give at least one row")
        generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        cuts = np.flatnonzero(np.diff(rows // block_rows)) + 1
        blocks = np.split(rows, cuts)
        # a multiple of the batch, so that whole batches fill a window
        per_window = max(_BLOCKS_A_WINDOW, -(-batch_rows // block_rows))
        shuffled = [blocks[k] for k in generator.permutation(len(blocks))]
        order = np.concatenate(shuffled) if blocks else rows
        size = -(-per_window * block_rows // batch_rows) * batch_rows
        self.windows = [generator.permutation(order[k : k + size]) for k in range(0, len(order), size)]
        self._batches = list(self._in_turn(batch_rows))

    def _in_turn(self, batch_rows: int) -> Iterator[tuple[int, int, int]]:
        """Yield (window, first, stop) of every batch, a batch of each lane in turn."""
        for lane in range(0, len(self.windows), LANES):
            side_by_side = range(lane, min(lane + LANES, len(self.windows)))
            longest = max(len(self.windows[k]) for k in side_by_side)
            for first in range(0, longest, batch_rows):
                for window in side_by_side:
                    if first < len(self.windows[window]):
                        yield window, first, min(first + batch_rows, len(self.windows[window]))

    def __len__(self) -> int:
        return len(self._batches)

    def batch(self, number: int) -> tuple[int, slice]:
        """Return a batch's window, and its place in it."""
        window, first, stop = self._batches[number]
        return window, slice(first, stop)

    def rows(self, number: int) -> Rows:
        """Return a batch's rows."""
        window, some = self.batch(number)
        return self.windows[window][some]


class WindowReader:
    """Reads windows of pairs from a store, each once, and keeps those whose batches are still to come."""

    def __init__(self, store: Store, order: EpochOrder) -> None:
        self._store, self._order = store, order
        self._held: dict[int, tuple[Images, Images]] = {}

    def read(self, number: int) -> tuple[Rows, Images, Images]:
        """Return rows, stamps and controls of a batch."""
        window, some = self._order.batch(number)
        rows = self._order.windows[window]
        if window not in self._held:
            while len(self._held) >= LANES:  # those of earlier turns
                self._held.pop(next(iter(self._held)))
            self._held[window] = self._store.stamps(rows), self._store.ctrls(rows)
        stamps, controls = self._held[window]
        return rows[some], stamps[some], controls[some]


def turned(images: list[Images], seed: int, epoch: int, rows: Rows) -> list[Images]:
    """Turn and mirror each row's images alike, by one of the eight symmetries of a square, drawn by row.

    Parameters
    ----------
    images
        (k, bands, n, n) each.
    """
    chosen = (8.0 * uniform(seed, rows, f"dihedral {epoch}")).astype(np.int64)
    out = [np.empty_like(each) for each in images]
    for symmetry in np.unique(chosen):
        some = chosen == symmetry
        for source, target in zip(images, out, strict=True):
            part = np.rot90(source[some], int(symmetry) % 4, axes=(2, 3))
            target[some] = part[..., ::-1] if symmetry >= 4 else part
    return out


class RenderedRows:
    """Pairs made on the fly from a configuration and hosts: any row of a run with the same seed."""

    def __init__(self, *, config: Any, hosts: Any, seed: int) -> None:
        from arcforge.engine.inject import prepare

        self._run = prepare(config=config, hosts=hosts, catalog=None, n=None, seed=seed)
        self._pixels: Images | None = None

    @property
    def bands(self) -> str:
        """Bands of the pairs."""
        return self._run.plan.bands

    def make(self, first: int, stop: int, threads: int | None) -> tuple[Images, Images, Any]:
        """Return stamps, controls and the catalogue of rows ``first`` to ``stop - 1``."""
        from arcforge.engine.making import make_rows
        from arcforge.engine.noise import add_noise, is_noisy, side_weight
        from arcforge.engine.run_rows import with_keys

        run = self._run
        if self._pixels is None:
            self._pixels = run.hosts.pixels(np.arange(run.plan.n_hosts))
        table, columns = run.used(first, stop)
        table = with_keys(table, first, run.plan.seed, np.ones(run.plan.n_hosts, dtype=np.int64))
        controls = self._pixels[table.column("host_index").to_numpy()]
        arcs, table = make_rows(run, table, columns, threads)
        arcs = (controls + arcs) - controls
        if is_noisy(table):
            add_noise(arcs, table, self.bands, side_weight(run.config.noise_lag1_correlation))
        return controls + arcs, controls, table
