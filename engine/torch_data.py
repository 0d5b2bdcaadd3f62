"""Datasets for torch (extra ``[torch]``): stored pairs, block-shuffled or by index; pairs made on the fly.

Both members of a pair are in one batch, turned alike. A batch is a dict of tensors: ``stamp`` and ``ctrl``
float32 (k, bands, ny, nx) in nanomaggies, ``row`` int64 (k,) and the columns that were asked for; with the
numbers ``epoch`` and ``position``, which ``state_dict`` takes. Datasets open their store in the worker that
reads it, so that workers can be spawned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from arcforge.engine.batches import EpochOrder, RenderedRows, State, WindowReader, turned
from arcforge.engine.errors import ConfigError
from arcforge.engine.remedies import Remedy, read_remedy
from arcforge.engine.store import Store, open_store

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError as error:  # pragma: no cover
    raise ImportError("arcforge's datasets need torch: pip install 'arcforge[torch]'") from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

Batch = dict[str, Any]


def _share() -> tuple[int, int]:
    """Return this worker's number and how many there are."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def _tensors(named: dict[str, NDArray[Any]]) -> Batch:
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in named.items()}


def _columns(table: Any, names: Sequence[str], rows: Any) -> dict[str, NDArray[Any]]:
    found = {}
    for name in names:
        if name not in table.column_names:
            raise ConfigError(f"the catalogue has no column {name!r}; 'arcforge info' lists them")
        values = table.column(name).to_numpy()
        if values.dtype.kind not in "biuf":
            raise ConfigError(f"column {name!r} is {values.dtype}; tensors hold numbers")
        found[name] = values[rows]
    return found


class _OpensStore:
    """A dataset's store, opened where it is read: in each worker anew."""

    _path: str
    _opened: Store | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Open the store anew in a worker."""
        return self.__dict__ | {"_opened": None}

    @property
    def store(self) -> Store:
        """The store, opened on first use."""
        if self._opened is None:
            self._opened = open_store(self._path)
        return self._opened


class PairStream(_OpensStore, IterableDataset[Batch]):  # type: ignore[misc]
    """Batches of a store's pairs, block-shuffled; every epoch is a permutation of the rows.

    The order does not depend on the number of workers (give the DataLoader ``batch_size=None``). Reading is
    shared among 1, 2, 4 or 8 workers; with another number each reads everything.

    Parameters
    ----------
    path
        The store.
    batch_size
        Rows of a batch.
    seed
        Root of order and turns.
    split
        Only rows with this value in the column ``split``.
    columns
        Numeric columns of the catalogue to add to each batch.
    turn
        Turn and mirror pairs, each by a draw of its own.
    remedy
        A :class:`~arcforge.engine.remedies.Remedy`, or an audit's report (the dict, or its JSON file) whose
        recommended one is applied: pairs that it drops are left out, what it hides is hidden.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch_size: int = 64,
        *,
        seed: int = 0,
        split: str | None = None,
        columns: Sequence[str] = (),
        turn: bool = True,
        remedy: Any = None,
    ) -> None:
        super().__init__()
        self._path, self._batch_size, self._split = os.fspath(path), batch_size, split
        self._remedy = remedy if remedy is None or isinstance(remedy, Remedy) else read_remedy(remedy)
        self._kept: NDArray[np.int64] | None = None
        self._columns, self._turn = tuple(columns), turn
        self._state = State(seed, 0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Begin with this epoch at the next iteration."""
        self._state = State(self._state.seed, epoch, 0)

    def state_dict(self, after: Batch | None = None) -> dict[str, int]:
        """Return where training stands after a batch (at the epoch's beginning without one)."""
        if after is None:
            return {"seed": self._state.seed, "epoch": self._state.epoch, "position": self._state.position}
        return {"seed": self._state.seed, "epoch": after["epoch"], "position": after["position"]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batch that ``state`` was taken after."""
        self._state = State(**state)

    def order(self) -> EpochOrder:
        """Return the batches of the epoch."""
        if self._kept is None:
            everything = np.arange(len(self.store), dtype=np.int64)
            self._kept = everything if self._remedy is None else self._remedy.kept(self.store)
        rows = self._kept
        if self._split is not None:
            split = np.asarray(self.store.catalog.column("split").to_numpy(zero_copy_only=False))
            rows = rows[split[rows] == self._split]
        chunk = self.store.plan.chunk_rows
        return EpochOrder(rows, chunk, self._batch_size, self._state.seed, self._state.epoch)

    def __len__(self) -> int:
        return len(self.order())

    def __iter__(self) -> Iterator[Batch]:
        worker, workers = _share()
        order, state = self.order(), self._state
        reader = WindowReader(self.store, order)
        for number in range(state.position, len(order)):
            # counted from where the epoch goes on, as the DataLoader asks its workers in turn
            if (number - state.position) % workers != worker:
                continue
            rows, stamps, controls = reader.read(number)
            if self._remedy is not None:
                stamps, controls = self._remedy.apply(stamps, controls, rows, seed=state.seed)
            if self._turn:
                stamps, controls = turned([stamps, controls], state.seed, state.epoch, rows)
            named: dict[str, NDArray[Any]] = {"stamp": stamps, "ctrl": controls, "row": rows}
            named |= _columns(self.store.catalog, self._columns, rows) if self._columns else {}
            yield _tensors(named) | {"epoch": state.epoch, "position": number + 1}


class PairDataset(_OpensStore, Dataset[Batch]):  # type: ignore[misc]
    """A store's pairs by index, for samplers of one's own; a whole batch is read at once.

    Reading rows at random costs a chunk each: where the order is free, :class:`PairStream` reads many times
    as fast.
    """

    def __init__(self, path: str | os.PathLike[str], *, columns: Sequence[str] = ()) -> None:
        self._path, self._columns = os.fspath(path), tuple(columns)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        rows = np.asarray(indices, dtype=np.int64)
        named: dict[str, NDArray[Any]] = {
            "stamp": self.store.stamps(rows),
            "ctrl": self.store.ctrls(rows),
            "row": rows,
        }
        named |= _columns(self.store.catalog, self._columns, rows) if self._columns else {}
        tensors = _tensors(named)
        return [{name: values[k] for name, values in tensors.items()} for k in range(len(rows))]


class RenderedPairs(IterableDataset[Batch]):  # type: ignore[misc]
    """Batches of pairs that are made as they are needed: no disk, and no arc twice.

    Row r is row r of ``arcforge inject`` with the same seed, configuration and hosts, so that any sample can
    be made again by its number. Epochs go on counting.

    Parameters
    ----------
    config, hosts
        As those of :func:`arcforge.engine.inject.inject`.
    batch_size
        Rows of a batch.
    epoch_rows
        Rows of an epoch.
    seed
        Root of all draws.
    columns, turn
        As those of :class:`PairStream`.
    threads
        Threads that render in each worker.
    """

    def __init__(
        self,
        *,
        config: Any = None,
        hosts: Any = None,
        batch_size: int = 64,
        epoch_rows: int = 65536,
        seed: int = 0,
        columns: Sequence[str] = (),
        turn: bool = True,
        threads: int | None = 1,
    ) -> None:
        super().__init__()
        if batch_size < 1 or epoch_rows < 1:
            raise ConfigError(f"batch_size = {batch_size}, epoch_rows = {epoch_rows}: give at least one row")
        self._inputs = {"config": config, "hosts": hosts, "seed": seed}
        self._batch_size, self._epoch_rows = batch_size, epoch_rows
        self._columns, self._turn, self._threads = tuple(columns), turn, threads
        self._state = State(seed, 0, 0)
        self._source: RenderedRows | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Read the hosts anew in a worker."""
        return self.__dict__ | {"_source": None}

    set_epoch = PairStream.set_epoch
    state_dict = PairStream.state_dict
    load_state_dict = PairStream.load_state_dict

    def __len__(self) -> int:
        return -(-self._epoch_rows // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        worker, workers = _share()
        if self._source is None:
            self._source = RenderedRows(**self._inputs)
        state = self._state
        begin = state.epoch * self._epoch_rows
        for number in range(state.position + worker, len(self), workers):
            first = begin + number * self._batch_size
            stop = min(first + self._batch_size, begin + self._epoch_rows)
            stamps, controls, table = self._source.make(first, stop, self._threads)
            rows = np.arange(first, stop, dtype=np.int64)
            if self._turn:
                stamps, controls = turned([stamps, controls], state.seed, state.epoch, rows)
            named: dict[str, NDArray[Any]] = {"stamp": stamps, "ctrl": controls, "row": rows}
            named |= _columns(table, self._columns, slice(None)) if self._columns else {}
            yield _tensors(named) | {"epoch": state.epoch, "position": number + 1}
