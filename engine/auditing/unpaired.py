"""Sets without controls: images with a label. Stamps of one label stand against stamps of the other.

Each "pair" is a positive and a negative of different hosts, so that the gate runs; whatever needs the control
of a stamp is left out, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.groups import join_groups
from arcforge.engine.auditing.metadata import Telling, find_telling
from arcforge.engine.auditing.sources import LABEL_COLUMN, PixelBatch
from arcforge.engine.auditing.splits import group_objects, read_split_columns
from arcforge.engine.errors import AuditInputError

Integers = NDArray[np.int64]

_POSITIVE = ("1", "1.0", "true", "lens", "positive", "yes")
_NEGATIVE = ("0", "0.0", "false", "nonlens", "non-lens", "negative", "no", "control")
_SAME_OBJECT_ARCSEC = 1.0


class UnpairedPairs:
    """Positives against negatives of one labelled set, as a :class:`PairSource`."""

    kind = "unpaired"
    psf_images = None
    sources = None

    def __init__(self, images: Any) -> None:
        import pyarrow as pa

        self._images = images
        self.path = images.path
        self.bands = images.bands
        self.image_shape = images.image_shape
        self.pixscale_arcsec = images.pixscale_arcsec
        self.pixel_response = images.pixel_response
        positive = _is_positive(self.path, images.table)
        self._positive = positive
        one, other = np.flatnonzero(positive), np.flatnonzero(~positive)
        n = min(len(one), len(other))
        if n == 0:
            raise AuditInputError(f"{self.path}: column label holds one label only; a gate needs both")
        self._rows = np.stack([one[:n], other[:n]])
        columns: dict[str, Any] = {"host_id": _hosts(images.table, self._rows)}
        for name in ("split", "region_split"):
            if name in images.table.column_names:
                columns[name] = images.table.column(name).take(pa.array(self._rows[0]))
        self.table = pa.table(columns)

    def batches(self, rows: Integers, size: int) -> Iterator[PixelBatch]:
        """Yield positives as stamps and negatives as controls."""
        for begin in range(0, len(rows), size):
            some = rows[begin : begin + size]
            sides = [self._read(self._rows[side][some], size) for side in (0, 1)]
            one, other = self._rows[:, some]
            good = [p in sides[0].images and q in sides[1].images for p, q in zip(one, other, strict=True)]
            kept = some[np.array(good, dtype=bool)]
            images = [side.stack(self._rows[k][kept]) for k, side in enumerate(sides)]
            yield PixelBatch(
                kept,
                images[0],
                images[1],
                problems=[p for side in sides for p in side.problems],
                dtypes={(a, b) for a in sides[0].dtypes for b in sides[1].dtypes},
            )

    def telling(self) -> list[Telling]:
        """What tells the labels apart without the pixels, most first."""
        return find_telling(self._images.table, self._positive)

    def noise(self, rows: Integers) -> None:
        """Return None: no noise is recorded."""

    def _read(self, rows: Integers, size: int) -> _Side:
        side = _Side()
        for batch in self._images.batches(rows, size):
            side.images.update(zip(batch.rows.tolist(), batch.stamps, strict=True))
            side.problems += batch.problems
            side.dtypes |= {stamp for stamp, _ in batch.dtypes}
            side.shape = batch.stamps.shape[1:]
        return side


class _Side:
    """Images of one label by row, and what was met while they were read."""

    def __init__(self) -> None:
        self.images: dict[int, NDArray[np.float32]] = {}
        self.problems: list[tuple[int, str]] = []
        self.dtypes: set[str] = set()
        self.shape: tuple[int, ...] = (0, 0, 0)

    def stack(self, rows: Integers) -> NDArray[np.float32]:
        """Images of rows: float32 (k, band, y, x)."""
        stacked = np.array([self.images[row] for row in rows.tolist()], dtype=np.float32)
        return stacked.reshape(len(rows), *self.shape)


def _is_positive(path: str, table: Any) -> NDArray[np.bool_]:
    text = [str(v).strip().lower() for v in table.column(LABEL_COLUMN).to_pylist()]
    for row, value in enumerate(text):
        if value not in _POSITIVE and value not in _NEGATIVE:
            raise AuditInputError(f"{path}: row {row}: label is {value!r}; give 1 or 0 (or lens, nonlens)")
    return np.array([value in _POSITIVE for value in text], dtype=bool)


def _hosts(table: Any, rows: Integers) -> Integers:
    """Group of each pair: pairs that share an object, on either side, are one group."""
    names = {name.lower() for name in table.column_names}
    known = {"host_id", "ra"} & names
    objects = (
        group_objects(read_split_columns(table), _SAME_OBJECT_ARCSEC) if known else np.arange(table.num_rows)
    )
    n = rows.shape[1]
    return join_groups(2 * n, [objects[rows.ravel()], np.tile(np.arange(n), 2)])[:n]
