"""Hosts in a parquet table: one npz archive a row, PSF widths and positions in columns beside it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcforge.engine.catalog_files import sound_table
from arcforge.engine.errors import HostError
from arcforge.engine.host_files import Cutout, checked_psf, decode

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_BLOB_COLUMNS = ("cutout_npz", "ctrl_stamp_npz")  # a stamp with an arc in it is no host
_ID_COLUMNS = ("host_id", "galaxy_id")
_WIDTH_STEMS = ("psf_fwhm_arcsec", "psf_fwhm_used", "psfsize")


@dataclass(frozen=True)
class Blob:
    """One distinct cutout of a table."""

    path: Path
    column: str
    row: int  #: the first that holds it
    row_group: int
    row_in_group: int
    host_id: str
    bands: str
    beside: dict[str, Any]  #: scalars of its row

    def read(self) -> tuple[Cutout, str]:
        """Decode it; returns the cutout and the SHA-256 of the archive."""
        import pyarrow.parquet as pq

        table = pq.ParquetFile(self.path).read_row_group(self.row_group, columns=[self.column])
        content = table.column(self.column)[self.row_in_group].as_py()
        if content is None:
            raise HostError("its cutout is null: drop the row", reason="unreadable")
        cutout = decode("row.npz", content, self.bands)
        widths = [self._width(band) for band in self.bands]
        if not all(math.isnan(width) for width in widths):
            cutout = replace(cutout, psf_fwhm_arcsec=checked_psf(widths, self.bands))
        place = {name: self.beside.get(name) for name in ("ra", "dec", "pixscale_arcsec", "brickname")}
        return replace(
            cutout,
            ra_deg=cutout.ra_deg if place["ra"] is None else self._number("ra"),
            dec_deg=cutout.dec_deg if place["dec"] is None else self._number("dec"),
            pixscale_arcsec=(
                cutout.pixscale_arcsec
                if place["pixscale_arcsec"] is None
                else self._number("pixscale_arcsec")
            ),
            brickname=str(place["brickname"] or cutout.brickname),
        ), hashlib.sha256(content).hexdigest()

    def _width(self, band: str) -> float:
        for stem in _WIDTH_STEMS:
            if self.beside.get(f"{stem}_{band}") is not None:
                return self._number(f"{stem}_{band}")
        return math.nan

    def _number(self, name: str) -> float:
        value = self.beside[name]
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise HostError(f"{name} is {str(value)[:40]!r}, which is no number: correct it") from error


def blob_cutouts(path: Path, bands: str) -> list[Blob]:
    """Find the distinct cutouts of a parquet file: a host that is there in several rows counts once.

    The column is ``cutout_npz``, or ``ctrl_stamp_npz`` of paired sets. Rows with ``cutout_ok = 0`` are left
    out, as their own record asks.

    Raises
    ------
    HostError
        Unreadable, without such a column, or without rows.
    """
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        column = next((name for name in _BLOB_COLUMNS if name in names), None)
        if column is None:
            raise HostError(f"hosts {path}: has none of the columns {', '.join(_BLOB_COLUMNS)}: name it so")
        found = list(_distinct(path, file, column, bands))
    except HostError:
        raise
    except Exception as error:  # arrow raises what its readers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HostError(f"hosts {path}: not a readable parquet file ({reason})", "unreadable") from error
    if not found:
        raise HostError(f"hosts {path}: has no rows with a cutout: check it")
    return found


def _distinct(path: Path, file: pq.ParquetFile, column: str, bands: str) -> Iterator[Blob]:
    names = file.schema_arrow.names
    wanted = [*_ID_COLUMNS, "ra", "dec", "pixscale_arcsec", "brickname", "cutout_ok"]
    wanted += [f"{stem}_{band}" for stem in _WIDTH_STEMS for band in bands]
    wanted = [name for name in wanted if name in names]
    seen: set[bytes] = set()
    ids: set[str] = set()
    row = 0
    for group in range(file.num_row_groups):
        table = sound_table(file.read_row_group(group, columns=[column, *wanted]))
        blobs = table.column(column)
        scalars = table.select(wanted).to_pylist() if wanted else [{}] * table.num_rows
        for k in range(table.num_rows):
            content = blobs[k].as_py() or b""
            digest = hashlib.sha256(content).digest()
            beside = scalars[k]
            if digest not in seen and beside.get("cutout_ok", 1) != 0:
                seen.add(digest)
                name = next((str(beside[key]) for key in _ID_COLUMNS if beside.get(key) is not None), "")
                name = name if name and name not in ids else f"row-{row:06d}"
                ids.add(name)
                yield Blob(path, column, row, group, k, name, bands, beside)
            row += 1
