"""PSF widths from a table of bricks: ``psfsize_<band>`` (FWHM in arcsec), by name or position."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import HostError
from arcforge.engine.host_files import Cutout, checked_psf

_SIDE_DEG = 0.25  # of a brick; beyond it another brick's seeing is no measurement


@dataclass(frozen=True)
class PsfTable:
    """One row a brick."""

    path: str
    bands: str
    names: dict[str, int]  #: row of a brick's name
    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    fwhm_arcsec: NDArray[np.float64]  #: (n, bands)
    between: bool = False  #: widths are interpolated between bricks, where a host's place is known

    @classmethod
    def read(cls, path: str | os.PathLike[str], bands: str, *, between: bool = False) -> PsfTable:
        """Read ``psfsize_<band>`` (or ``psf_fwhm_arcsec_<band>``) with ``brickname`` or ``ra`` and ``dec``.

        Raises
        ------
        HostError
            A column is absent.
        """
        from arcforge.engine.catalog_files import numbers_of, read_catalog

        table = read_catalog(Path(path))
        held = table.column_names
        columns = []
        for band in bands:
            name = next((n for n in (f"psf_fwhm_arcsec_{band}", f"psfsize_{band}") if n in held), None)
            if name is None:
                raise HostError(f"PSF table {path}: has no column psfsize_{band}: add it")
            columns.append(numbers_of(table, name, f"PSF table {path}"))
        place = [
            numbers_of(table, n, f"PSF table {path}") if n in held else np.full(len(table), np.nan)
            for n in ("ra", "dec")
        ]
        names = table.column("brickname").to_pylist() if "brickname" in held else []
        if not names and "ra" not in held:
            raise HostError(f"PSF table {path}: has neither brickname nor ra and dec: add them")
        rows = {str(name): row for row, name in enumerate(names)}
        return cls(str(path), bands, rows, place[0], place[1], np.stack(columns, axis=1), between)

    def fwhm_of(self, cutout: Cutout) -> tuple[float, ...]:
        """The widths at a cutout: its brick's by name, else those of the nearest brick within 0.25 degrees.

        With ``between``, those between the bricks around its place, where it has one.

        Raises
        ------
        HostError
            No brick is there, or its width is 0: no coverage.
        """
        row = self.names.get(cutout.brickname, -1)
        if self.between and not math.isnan(cutout.ra_deg):
            row = -1
        if row < 0 and not math.isnan(cutout.ra_deg):
            dra = (self.ra_deg - cutout.ra_deg + 180.0) % 360.0 - 180.0
            # bricks of one row of declination are a side apart on the sky, not in right ascension
            east, north = dra * math.cos(math.radians(cutout.dec_deg)), self.dec_deg - cutout.dec_deg
            if self.between and (widths := self._between(east, north)) is not None:
                return checked_psf(widths, self.bands)
            distance = np.hypot(east, north)
            nearest = int(np.argmin(np.where(np.isnan(distance), np.inf, distance)))
            row = nearest if distance[nearest] <= _SIDE_DEG else -1
        if row < 0:
            raise HostError(
                f"brick {cutout.brickname or '(not named)'} at ra {cutout.ra_deg:.4f}, "
                f"dec {cutout.dec_deg:.4f} is not in the PSF table {self.path}: add it, or use none",
                reason="not in the PSF table",
            )
        return checked_psf([float(value) for value in self.fwhm_arcsec[row]], self.bands)

    def widths_at(
        self, names: NDArray[Any], ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Widths of the bricks of n objects, by name, else of the nearest brick within 0.25 degrees.

        Parameters
        ----------
        names : (n,)
            Brick names; None or "" where they are not known.
        ra_deg, dec_deg : float64 (n,)
            NaN where they are not known.

        Returns
        -------
        float64 (n, bands)
            Arcsec; NaN where no brick is there, or none of its exposures in a band (width 0).
        """
        rows = np.array([self.names.get(str(name), -1) for name in names], dtype=np.int64)
        placed = np.flatnonzero(np.isfinite(self.ra_deg) & np.isfinite(self.dec_deg))
        for k in (
            np.flatnonzero((rows < 0) & np.isfinite(ra_deg) & np.isfinite(dec_deg)) if len(placed) else ()
        ):
            dra = (self.ra_deg[placed] - ra_deg[k] + 180.0) % 360.0 - 180.0
            distance = np.hypot(dra * math.cos(math.radians(dec_deg[k])), self.dec_deg[placed] - dec_deg[k])
            nearest = int(np.argmin(distance))
            rows[k] = placed[nearest] if distance[nearest] <= _SIDE_DEG else -1
        widths = np.where((rows >= 0)[:, None], self.fwhm_arcsec[rows], np.nan)
        return np.asarray(np.where(widths > 0.0, widths, np.nan))

    def _between(self, east_deg: NDArray[np.float64], north_deg: NDArray[np.float64]) -> list[float] | None:
        """Widths bilinear in place between the centres of the bricks that are there; None where none is.

        A brick counts by the product of (1 - distance / side) along both axes; bricks that are absent, or
        whose width is 0 for want of exposures, leave their part to the others.
        """
        weight = np.clip(1.0 - np.abs(east_deg) / _SIDE_DEG, 0.0, 1.0)
        weight = weight * np.clip(1.0 - np.abs(north_deg) / _SIDE_DEG, 0.0, 1.0)
        near = np.flatnonzero(weight > 0.0)  # NaN places are none
        covered = self.fwhm_arcsec[near] > 0.0
        share = np.where(covered, weight[near, None], 0.0)
        if not (share.sum(axis=0) > 0.0).all():
            return None
        widths = (share * np.where(covered, self.fwhm_arcsec[near], 0.0)).sum(axis=0) / share.sum(axis=0)
        return [float(width) for width in widths]
