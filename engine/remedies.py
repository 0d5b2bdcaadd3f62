"""Remedies that an audit recommends, applied to pairs that train: a hidden core, pairs without a visible arc.

What was measured is what is done: the audit's own radius and limits are read from its report. The hidden core
of stamp and control is filled with the SAME noise, of the sky's level and scatter in the control, drawn by
counter from (seed, row), so that it tells nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import ConfigError

if TYPE_CHECKING:
    import os

    import pyarrow as pa

    from arcforge.engine.store import Store

Images = NDArray[np.float32]
Rows = NDArray[np.int64]

MASK, MASK_VISIBLE = "core_mask", "core_mask_visible_only"
MAD_TO_SIGMA = 1.4826  # of a median absolute deviation, for Gaussian noise
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class Remedy:
    """A core mask as an audit measured it.

    Attributes
    ----------
    name : {"core_mask", "core_mask_visible_only"}
    radius_pix : float
        Pixels nearer to the stamp's centre are hidden.
    outer_pix : float
        Pixels from this distance on give the sky's level and scatter.
    min_arc_snr : float
        Signal to noise that an arc needs outside the mask to be kept, in its best band.
    """

    name: str
    radius_pix: float
    outer_pix: float = 20.0
    min_arc_snr: float = 5.0

    def apply(self, stamps: Images, controls: Images, rows: Rows, *, seed: int = 0) -> tuple[Images, Images]:
        """Hide the core of pairs.

        Parameters
        ----------
        stamps, controls : float32 (k, bands, ny, nx)
            Nanomaggies per pixel; not changed.
        rows : (k,) int64
            Row numbers, from which the fill follows.
        seed : int

        Returns
        -------
        float32 (k, bands, ny, nx), twice
            Stamps and controls, alike inside the mask.
        """
        distance = distance_pix(controls.shape[2:])
        hidden, outer = distance < self.radius_pix, distance >= self.outer_pix
        level, sigma = sky_noise(controls, outer)
        stamps, controls = stamps.copy(), controls.copy()
        for k, row in enumerate(rows):
            generator = np.random.Generator(np.random.Philox(key=[seed, int(row)]))
            noise = generator.standard_normal((controls.shape[1], int(hidden.sum())))
            fill = (level[k, :, None] + sigma[k, :, None] * noise).astype(np.float32)
            stamps[k][:, hidden] = fill
            controls[k][:, hidden] = fill
        return stamps, controls

    def kept(self, store: Store) -> Rows:
        """Return the positions of a store's rows that the remedy keeps: (k,) int64.

        Reads the arcs of the whole store where only visible ones are kept.
        """
        if self.name == MASK:
            return np.arange(len(store), dtype=np.int64)
        distance = distance_pix((store.stamp_size, store.stamp_size))
        outside, outer = distance >= self.radius_pix, distance >= self.outer_pix
        kept = [np.zeros(0, dtype=np.int64)]
        for first in range(0, len(store), _BLOCK_ROWS):
            rows = np.arange(first, min(first + _BLOCK_ROWS, len(store)), dtype=np.int64)
            sigma = sky_noise(store.ctrls(rows), outer)[1]
            power = np.sum((store.arcs(rows) * outside).astype(np.float64) ** 2, axis=(2, 3))
            snr = (np.sqrt(power) / np.maximum(sigma, np.finfo(np.float64).tiny)).max(axis=1)
            kept.append(rows[(snr >= self.min_arc_snr) & _resolved(store, rows)])
        return np.concatenate(kept)


def read_remedy(report: Mapping[str, Any] | str | os.PathLike[str], name: str | None = None) -> Remedy:
    """Read the remedy that an audit's report recommends.

    Parameters
    ----------
    report : dict or path
        What ``audit`` returns, or the JSON file that ``arcforge audit --json`` writes.
    name : str, optional
        Another of its remedies.

    Raises
    ------
    ConfigError
        The report is unreadable, recommends none, has none of that name, or the one is no mask.
    """
    source = "the report"
    if not isinstance(report, Mapping):
        source, path = str(report), Path(report)
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{source}: cannot be read ({error}); give what 'audit --json' wrote"
            ) from error
    if not isinstance(report, Mapping) or not isinstance(report.get("remedies"), list):
        raise ConfigError(f"{source}: is no audit's report; give what 'arcforge audit --json' wrote")
    entries = {entry["name"]: entry for entry in report["remedies"]}
    masks = [key for key in entries if key in (MASK, MASK_VISIBLE)]
    if name is None:
        name = next((key for key, entry in entries.items() if entry["recommended"]), None)
        if name is None:
            raise ConfigError(
                f"{source}: {report.get('verdict')}, no remedy is recommended; one can be named: "
                f"{' or '.join(masks) or 'none was measured'}"
            )
    if name not in masks:
        raise ConfigError(
            f"{source}: {name!r} is no mask that it measured; there is {', '.join(masks) or 'none'}"
        )
    limits = report["provenance"]["thresholds"]
    return Remedy(
        name,
        float(entries[name]["radius_pix"]),
        outer_pix=float(limits["core.outer_pix"]["value"]),
        min_arc_snr=float(limits["visibility.min_arc_snr"]["value"]),
    )


class RemediedStore:
    """A store as a remedy leaves it: for an export. Rows keep their numbers; those not kept are absent.

    Parameters
    ----------
    store
        An open store.
    remedy
        What is applied to it.
    seed
        Of the fill.
    """

    def __init__(self, store: Store, remedy: Remedy, *, seed: int = 0) -> None:
        self._store, self._remedy, self._seed = store, remedy, seed
        self._kept = remedy.kept(store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def rows(self) -> Rows:
        """Row numbers of the whole run, of the rows that are kept."""
        return self._store.rows[self._kept]

    @property
    def catalog(self) -> pa.Table:
        """The catalogue of the rows that are kept."""
        return self._store.catalog.take(self._kept)

    def parts(self) -> Iterator[tuple[Rows, pa.Table]]:
        """Yield positions among the kept rows and their part of the catalogue, a shard at a time."""
        first = 0
        for positions, table in self._store.parts():
            some = np.isin(positions, self._kept)
            n = int(some.sum())
            if n:
                yield np.arange(first, first + n, dtype=np.int64), table.filter(some)
            first += n

    def stamps(self, rows: Any) -> Images:
        """Return stamps with the core hidden."""
        return self._pairs(rows)[0]

    def ctrls(self, rows: Any) -> Images:
        """Return controls with the core hidden."""
        return self._pairs(rows)[1]

    def _pairs(self, rows: Any) -> tuple[Images, Images]:
        positions = self._kept[rows]
        numbers = self._store.rows[positions]
        stamps, controls = self._store.stamps(positions), self._store.ctrls(positions)
        return self._remedy.apply(stamps, controls, numbers, seed=self._seed)


def distance_pix(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the distance of each pixel from the stamp's centre: float64 (ny, nx)."""
    y, x = np.indices(shape, dtype=np.float64)
    return np.asarray(np.hypot(y - (shape[0] - 1) / 2.0, x - (shape[1] - 1) / 2.0))


def sky_noise(controls: Images, outer: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return level and scatter of the sky, (k, bands) each: median and median deviation of outer pixels."""
    if not outer.any():
        raise ConfigError("the stamps hold no pixels far enough from the centre to be sky: give larger ones")
    pixels = controls[:, :, outer].astype(np.float64)
    level = np.median(pixels, axis=2)
    return level, MAD_TO_SIGMA * np.median(np.abs(pixels - level[:, :, None]), axis=2)


def _resolved(store: Store, rows: Rows) -> NDArray[np.bool_]:
    """Whether theta_E is at least half the PSF's width in the sharpest band; controls are not."""
    from arcforge.engine.catalog import render_columns
    from arcforge.kernels.codes import CONTROL, PSF_NONE

    columns = render_columns(store.catalog.take(rows), store.bands)
    width = np.where(columns.psf_model == PSF_NONE, 0.0, columns.psf_fwhm_arcsec.min(axis=1))
    lensed = columns.lens_model != CONTROL
    return np.asarray(lensed & (columns.theta_e_arcsec >= 0.5 * width))
