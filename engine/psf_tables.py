"""PSF widths from a table of bricks: ``psfsize_<band>`` (FWHM in arcsec), by name or position."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import HostError
from arcforge.engine.host_files import Cutout, checked_psf

_MAX_DISTANCE_DEG = 0.25  # a brick's side; beyond it another brick's seeing is no measurement


@dataclass(frozen=True)
class PsfTable:
    """One row a brick."""

    path: str
    bands: str
    names: dict[str, int]  #: row of a brick's name
    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    fwhm_arcsec: NDArray[np.float64]  #: (n, bands)

    @classmethod
    def read(cls, path: str | os.PathLike[str], bands: str) -> PsfTable:
        """Read ``psfsize_<band>`` (or ``psf_fwhm_arcsec_<band>``) with ``brickname`` or ``ra`` and ``dec``.

        Raises
        ------
        HostError
            A column is absent.
        """
        from arcforge.engine.catalog_files import read_catalog

        table = read_catalog(Path(path))
        held = table.column_names
        columns = []
        for band in bands:
            name = next((n for n in (f"psf_fwhm_arcsec_{band}", f"psfsize_{band}") if n in held), None)
            if name is None:
                raise HostError(f"PSF table {path}: has no column psfsize_{band}: add it")
            columns.append(np.asarray(table.column(name).to_numpy(), dtype=np.float64))
        place = [
            np.asarray(table.column(n).to_numpy(), dtype=np.float64)
            if n in held
            else np.full(len(table), np.nan)
            for n in ("ra", "dec")
        ]
        names = table.column("brickname").to_pylist() if "brickname" in held else []
        if not names and "ra" not in held:
            raise HostError(f"PSF table {path}: has neither brickname nor ra and dec: add them")
        rows = {str(name): row for row, name in enumerate(names)}
        return cls(str(path), bands, rows, place[0], place[1], np.stack(columns, axis=1))

    def fwhm_of(self, cutout: Cutout) -> tuple[float, ...]:
        """The widths at a cutout: its brick's by name, else those of the nearest brick within 0.25 degrees.

        Raises
        ------
        HostError
            No brick is there, or its width is 0: no coverage.
        """
        row = self.names.get(cutout.brickname, -1)
        if row < 0 and not math.isnan(cutout.ra_deg):
            cosine = math.cos(math.radians(cutout.dec_deg))
            dra = (self.ra_deg - cutout.ra_deg + 180.0) % 360.0 - 180.0
            distance = np.hypot(dra * cosine, self.dec_deg - cutout.dec_deg)
            nearest = int(np.argmin(np.where(np.isnan(distance), np.inf, distance)))
            row = nearest if distance[nearest] <= _MAX_DISTANCE_DEG else -1
        if row < 0:
            raise HostError(
                f"brick {cutout.brickname or '(not named)'} at ra {cutout.ra_deg:.4f}, "
                f"dec {cutout.dec_deg:.4f} is not in the PSF table {self.path}: add it, or use none",
                reason="not in the PSF table",
            )
        return checked_psf([float(value) for value in self.fwhm_arcsec[row]], self.bands)
