"""The plan of a store: everything that its bytes follow from, fixed before the first of them is rendered."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from arcforge.engine import sealed
from arcforge.engine.durable import place_first
from arcforge.engine.errors import ConfigError, StoreCorruptError, StoreError

PLAN_FILE = "plan.json"
FORMAT_VERSION = 1
IMPORTED = "imported "

# An inner chunk is what a reader decodes at the least: 16 stamps of 64x64 in three bands, or fewer larger
# ones. (Chunks of a single such stamp write six times slower.)
_CHUNK_ROWS, _CHUNK_BYTES = 16, 1 << 20
# A shard is what a kill can cost, what one writer holds in memory, and one file: 1024 such stamps. Small runs
# take smaller shards, so that they too are split among partitions and show progress.
_SHARD_ROWS, _SHARD_BYTES = 1024, 64 << 20
_SMALL_RUN_ROWS, _SMALL_SHARD_ROWS = 16 * _SHARD_ROWS, 256

Partition = tuple[int, int]


def shard_shape(n_rows: int, row_bytes: int) -> tuple[int, int]:
    """Return the rows of a chunk and of a shard, powers of two.

    They depend on the run and nothing else (not on memory, threads or partitions), for the bytes' sake.
    """
    chunk_rows = _power_of_two(min(_CHUNK_ROWS, _CHUNK_BYTES // row_bytes))
    most = _SMALL_SHARD_ROWS if n_rows <= _SMALL_RUN_ROWS else _SHARD_ROWS
    return chunk_rows, max(chunk_rows, _power_of_two(min(most, _SHARD_BYTES // row_bytes)))


def _power_of_two(n: int) -> int:
    """Return the largest power of two up to ``n``, at least 1."""
    return 1 << max(0, n.bit_length() - 1)


@dataclass(frozen=True)
class Plan:
    """What a store's bytes follow from. Two runs with equal plans write equal bytes.

    Neither paths nor times nor thread counts are part of it.
    """

    n_rows: int
    bands: str
    stamp_size: int  # pixels along y and x
    pixscale_arcsec: float
    chunk_rows: int
    shard_rows: int
    seed: int
    config: str  # TOML
    config_sha256: str
    #: "drawn" (and from which population), "sha256:..." of the table that was given, or "imported sha256:..."
    #: of all pairs
    catalog: str
    hosts: str  # "sha256:..." of all host pixels and host columns
    n_hosts: int
    render: dict[str, Any]  # the options of render_batch
    code_sha256: str
    software: dict[str, str]
    format_version: int = FORMAT_VERSION

    @property
    def sha256(self) -> str:
        """The plan's hash, which every commit record repeats."""
        return sealed.digest(asdict(self))

    @property
    def is_imported(self) -> bool:
        """The pixels come from elsewhere: rendering the rows again need not give them."""
        return self.catalog.startswith(IMPORTED)

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """Bands and pixels of a stamp."""
        return len(self.bands), self.stamp_size, self.stamp_size

    @property
    def host_shard_rows(self) -> int:
        """Hosts of one shard of the host pixels."""
        return min(self.shard_rows, _SMALL_SHARD_ROWS)

    @property
    def n_shards(self) -> int:
        """Shards of the whole run."""
        return -(-self.n_rows // self.shard_rows)

    def rows_of(self, shard: int) -> tuple[int, int]:
        """First row and the row after the last of a shard."""
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.n_rows)

    def shards_of(self, partition: Partition | None) -> list[int]:
        """Return the shards of partition ``(i, n)``: every n-th one; all of them where it is None."""
        i, n = partition or (0, 1)
        return list(range(i % n, self.n_shards, n))

    def write(self, root: Path) -> None:
        """Place the plan in a store's folder.

        Raises
        ------
        FileExistsError
            Where another process has begun a store there in the meantime, by another plan.
        """
        path = root / PLAN_FILE
        if not place_first(path, sealed.seal(asdict(self))):
            raise FileExistsError(errno.EEXIST, "another run has begun a store there", str(path))

    def refuse_other(self, stored: Plan, root: Path) -> None:
        """Refuse to go on with a store that was begun by another plan.

        Raises
        ------
        StoreError
            Naming the first thing that differs, with both values.
        """
        for field in fields(self):
            old, new = getattr(stored, field.name), getattr(self, field.name)
            if old != new:
                raise StoreError(
                    f"{root}: was begun with {_difference(field.name, old, new)}; go on with the options, "
                    "inputs and software that began it, or start anew with --overwrite"
                )


def _difference(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k))
        return _difference(f"{name} {key}", old.get(key), new.get(key))
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        lines = zip([*old.splitlines(), ""], [*new.splitlines(), ""], strict=False)
        old, new = next(((a, b) for a, b in lines if a != b), ("another length", "this one"))
    return f"{name} = {old!r}, not {new!r}"


def read_plan(root: Path) -> Plan:
    """Read and check a store's plan.

    Raises
    ------
    StoreError
        Where the folder holds no plan, or one of a newer format.
    StoreCorruptError
        Where the plan is not what was written.
    """
    path = root / PLAN_FILE
    record = sealed.read_sealed(path, "restore it from a copy, or make the store anew with --overwrite")
    check_format(path, record.get("format_version"))
    try:
        return Plan(**record)
    except TypeError as error:
        raise StoreCorruptError(f"{path}: is not a plan of format {FORMAT_VERSION} ({error})") from error


def check_format(path: Path, found: object) -> None:
    """Refuse a format that this version does not read."""
    if found != FORMAT_VERSION:
        raise StoreError(
            f"{path}: has store format {found}, this version reads {FORMAT_VERSION}; "
            "read it with the arcforge version that wrote it"
        )


def parse_partition(text: str) -> Partition:
    """Read ``"I/N"``: I counts 0..N-1 or 1..N, as the scheduler does (partition N of N is partition 0).

    Raises
    ------
    ConfigError
        Where it is not two integers with 0 <= I <= N, N >= 1.
    """
    first, slash, second = text.partition("/")
    if not (slash and first.strip().isdecimal() and second.strip().isdecimal()):
        raise ConfigError(f"partition {text!r}: not of the form I/N; give e.g. 0/4 to 3/4 (or 1/4 to 4/4)")
    i, n = int(first), int(second)
    if n < 1 or i > n:
        raise ConfigError(f"partition {text!r}: I must be within 0..N and N at least 1; give e.g. 0/4 to 3/4")
    return i % n, n
