"""The first pass of an import: refuse what cannot be read, find equal controls, fix what the plan needs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import ImportSourceError
from arcforge.engine.import_sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.arrays import Encoded, Pixels
    from arcforge.engine.host_source import HostLayer

REFUSED_FILE = "refused.json"


@dataclass(frozen=True)
class Refused:
    """A row that is not in the store."""

    row: int  #: of the source, counted from 0
    reason: str


@dataclass
class Scan:
    """What the first pass found."""

    schema: pa.Schema
    is_good: NDArray[np.bool_]  #: (rows of the source,)
    host: NDArray[np.int64]  #: (good rows,)
    host_sha256: list[str]
    host_id: list[str]
    host_place: NDArray[np.int64]  #: (hosts,) of each host's pixels in the scratch file
    refused: list[Refused] = field(default_factory=list)
    size: int = 0
    sha256: str = ""

    @property
    def n_hosts(self) -> int:
        """Hosts of different pixels."""
        return len(self.host_sha256)


class _Hosts:
    """Finds equal controls while rows go by, and keeps one copy of each in a scratch file."""

    def __init__(self, scratch: IO[bytes]) -> None:
        self._scratch = scratch
        self._known: dict[bytes, int] = {}
        self.names: list[str] = []

    def number(self, control: Pixels, name: str | None) -> int:
        """Return the number of a control, a new one where its pixels were not seen before."""
        key = hashlib.sha256(control.tobytes()).digest()
        number = self._known.setdefault(key, len(self._known))
        if number == len(self.names):
            self._scratch.write(control.tobytes())
            self.names.append(f"host-{number:07d}" if name is None else name)
        return number

    @property
    def sha256(self) -> list[str]:
        return [key.hex() for key in self._known]


def scan_source(path: Any, source: Source, scratch: IO[bytes]) -> Scan:
    """Go through the source once."""
    import pyarrow as pa

    hosts, refused, good, numbers, given = _Hosts(scratch), [], [], [], []
    schema = pa.schema([])
    whole = hashlib.sha256()
    shape: tuple[int, ...] | None = None
    for batch in source.batches():
        schema = pa.unify_schemas([schema, batch.table.schema], promote_options="permissive")
        names, indexes = (_column(batch.table, name) for name in ("host_id", "host_index"))
        for k, pair in enumerate(batch.pairs):
            reason = pair if isinstance(pair, str) else _misfit(pair, shape)
            good.append(reason is None)
            if reason is not None:
                refused.append(Refused(batch.first + k, reason))
                continue
            assert not isinstance(pair, str)
            stamp, control = pair
            shape = stamp.shape
            name = None if names is None else names[k].as_py()
            numbers.append(hosts.number(control, None if name is None else str(name)))
            given.append(None if indexes is None else indexes[k].as_py())
            whole.update(hashlib.sha256(stamp.tobytes()).digest())
    if shape is None:
        first = f"the first: row {refused[0].row}: {refused[0].reason}" if refused else "it is empty"
        raise ImportSourceError(f"{path}: no row can be imported ({first})")
    scratch.flush()
    numbered = np.array(numbers, dtype=np.int64)
    place = _order(numbered, given, len(hosts.names))
    host = np.argsort(place)[numbered]
    found = hosts.sha256
    sha256 = [found[k] for k in place]
    whole.update(host.tobytes() + "".join(sha256).encode())
    names = [hosts.names[k] for k in place]
    return Scan(schema, np.array(good), host, sha256, names, place, refused, shape[-1], whole.hexdigest())


def _order(numbered: NDArray[np.int64], given: list[Any], n_hosts: int) -> NDArray[np.int64]:
    """Return the order of the hosts: that of ``host_index`` where the source has one, else as they came.

    A store that was exported and comes back then has its hosts where they were.
    """
    place = np.arange(n_hosts, dtype=np.int64)
    if not all(isinstance(value, int) for value in given):
        return place
    index = np.array(given, dtype=np.int64)
    of_host = np.zeros(n_hosts, dtype=np.int64)
    of_host[numbered] = index
    if not np.array_equal(of_host[numbered], index) or len(np.unique(of_host)) != n_hosts:
        return place
    return np.argsort(of_host, kind="stable")


def _misfit(pair: tuple[Pixels, Pixels], shape: tuple[int, ...] | None) -> str | None:
    """Return why a pair does not belong to the set, or None."""
    stamp, control = pair
    if stamp.shape != control.shape:
        return f"its stamp is {stamp.shape[1:]} pixels and its control {control.shape[1:]}"
    if shape is None and (stamp.shape[1] != stamp.shape[2] or stamp.shape[1] < 4):
        return f"it is {stamp.shape[1:]} pixels; stamps are square, of 4 pixels or more"
    if shape is not None and stamp.shape != shape:
        return f"it is {stamp.shape[1:]} pixels where the set has {shape[1:]}"
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(stamp - control).all():
            return "stamp less control is not finite"
    return None


def _column(table: pa.Table, name: str) -> Any:
    return table.column(name) if name in table.column_names else None


class ImportedHosts:
    """The hosts of an import as a store takes them."""

    def __init__(self, scan: Scan, scratch: IO[bytes], n_bands: int) -> None:
        self._scan, self._scratch = scan, scratch
        self._shape = (n_bands, scan.size, scan.size)

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Name and hash of each."""
        text = np.dtypes.StringDType()
        return {
            "host_id": np.array(self._scan.host_id, dtype=text),
            "sha256": np.array(self._scan.host_sha256, dtype=text),
        }

    @property
    def layers(self) -> Sequence[HostLayer]:
        """Nothing beside the pixels."""
        return ()

    @property
    def refused(self) -> dict[str, Any]:
        """No host is refused, only rows (:attr:`notes`)."""
        return {"counts": {}, "first": []}

    @property
    def sources(self) -> dict[str, Any]:
        """No source images."""
        return {}

    @property
    def notes(self) -> Encoded:
        """The list of refused rows."""
        rows = [{"row": entry.row, "reason": entry.reason} for entry in self._scan.refused]
        return {REFUSED_FILE: json.dumps(rows, indent=1).encode()}

    def blocks(self, n: int) -> Iterator[Pixels]:
        """Yield the pixels of consecutive hosts, (k <= n, bands, ny, nx) at a time."""
        host_bytes = int(np.prod(self._shape)) * 4
        for first in range(0, self._scan.n_hosts, n):
            count = min(n, self._scan.n_hosts - first)
            pixels = np.empty((count, *self._shape), dtype=np.float32)
            for k, place in enumerate(self._scan.host_place[first : first + count].tolist()):
                data = os.pread(self._scratch.fileno(), host_bytes, place * host_bytes)
                pixels[k] = np.frombuffer(data, dtype=np.float32).reshape(self._shape)
            yield pixels
