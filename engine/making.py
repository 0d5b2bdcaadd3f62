"""From drawn rows to rendered ones: arcs, magnifications, and new draws for rows that fail the cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import render_columns
from arcforge.engine.cuts import failing
from arcforge.engine.errors import ConfigError
from arcforge.engine.negatives import without_lens
from arcforge.engine.run_rows import DrawnRows, put_column, used_rows, with_gain

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.arrays import Pixels
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.inject import Run

MOST_TRIES = 200
_KEYS = ("rng_seed", "rng_row", "host_rows")


def make_rows(
    run: Run, table: pa.Table, columns: RenderColumns, threads: int | None, out: Pixels | None = None
) -> tuple[Pixels, pa.Table]:
    """Render rows, and draw those again that fail the configuration's cuts, until none does.

    A row keeps its host and its place; what is drawn anew is its lens and source, from the same seed, by the
    number of the try. So a row depends on its number alone, as without cuts.

    Parameters
    ----------
    run
        The run.
    table, columns
        First draws of some rows, with their keys (``run_rows.with_keys``).
    threads
        Threads that render.
    out
        Where the arcs go.

    Returns
    -------
    (k, bands, ny, nx) float32
        Arcs, not yet paired.
    pyarrow.Table
        The rows with ``magnification`` (lensed over unlensed flux, on the whole frame that is rendered) and,
        with cuts, ``draw_tries`` and ``rejected_<cut>``: draws that the row took, and what they failed.

    Raises
    ------
    ConfigError
        Where a row's host allows no draw that passes.
    """
    arcs, table = _rendered(run, table, columns, threads, out)
    if isinstance(run.rows, DrawnRows):
        if run.config.cuts:
            table = _pass_cuts(run, table, arcs, threads)
        if run.config.negatives:
            table = _take_lenses_off(run, table, arcs, threads)
    return arcs, table


def _take_lenses_off(run: Run, table: pa.Table, arcs: Pixels, threads: int | None) -> pa.Table:
    """Render the rows that are to be unlensed without their lenses, in place."""
    table = put_column(table, "negative_flux_factor", np.ones(table.num_rows))
    places = np.flatnonzero(np.array(table.column("kind").to_pylist()) == "unlensed")
    if not places.size:
        return table
    part = without_lens(table.take(places), run.plan.bands)
    arcs[places], part = _rendered(run, part, render_columns(part, run.plan.bands), threads, None)
    return _latest([table, part], [np.arange(table.num_rows), places], table.num_rows)


def _pass_cuts(run: Run, table: pa.Table, arcs: Pixels, threads: int | None) -> pa.Table:
    """Draw rows that fail a cut again until none does; changes the arcs in place."""
    rows = np.asarray(table.column("rng_row").to_numpy(), dtype=np.int64)
    tries = np.ones(len(rows), dtype=np.int64)
    rejected = {name: np.zeros(len(rows), dtype=np.int64) for name in run.config.cuts}
    parts, places = [table], [np.arange(len(rows))]
    looked_at, last = np.arange(len(rows)), table
    while True:
        failed = _failed(run, last, arcs[looked_at])
        again = np.zeros(len(looked_at), dtype=np.bool_)
        for name, fails in failed.items():
            rejected[name][looked_at] += fails
            again |= fails
        looked_at = looked_at[again]
        if not looked_at.size:
            break
        tries[looked_at] += 1
        if tries.max() > MOST_TRIES:
            _give_up(run, table, int(looked_at[0]), rejected)
        redrawn, drawn_columns = _redraw(run, rows[looked_at], tries[looked_at] - 1)
        for name in _KEYS:
            redrawn = put_column(redrawn, name, table.column(name).take(looked_at))
        arcs[looked_at], last = _rendered(run, redrawn, drawn_columns, threads, None)
        parts.append(last)
        places.append(looked_at)
    table = _latest(parts, places, len(rows))
    table = put_column(table, "draw_tries", tries)
    for name, count in rejected.items():
        table = put_column(table, f"rejected_{name}", count)
    return table


def _rendered(
    run: Run, table: pa.Table, columns: RenderColumns, threads: int | None, out: Pixels | None
) -> tuple[Pixels, pa.Table]:
    magnification = np.empty(len(columns))
    arcs = run.render(columns, threads, out, magnification)
    return arcs, put_column(table, "magnification", magnification)


def _failed(run: Run, table: pa.Table, arcs: Pixels) -> dict[str, NDArray[np.bool_]]:
    band = run.config.bands.index(run.config.reference_band)
    power = np.einsum("nyx,nyx->n", arcs[:, band], arcs[:, band], dtype=np.float64)
    host = table.column("host_index").to_numpy()
    invvar = run.hosts.table.typical_invvar[host, band]
    return failing(run.config.cuts, table, power, invvar, run.config.reference_band)


@dataclass(frozen=True)
class _Redrawn:
    """Rows drawn anew, as ``used_rows`` takes them."""

    table: Any
    has_major: bool

    def raw(self, first: int, stop: int) -> Any:
        return self.table.slice(first, stop - first)


def _redraw(run: Run, rows: NDArray[np.int64], tries: NDArray[np.int64]) -> tuple[pa.Table, RenderColumns]:
    assert isinstance(run.rows, DrawnRows)
    raw: Any = _Redrawn(run.rows.draw(rows, tries), run.rows.has_major)
    table, columns = used_rows(raw, 0, len(rows), run.plan.bands, run.config.theta_e_convention)
    return with_gain(table, run.config, run.hosts), columns


def _latest(parts: list[pa.Table], places: list[NDArray[np.int64]], n: int) -> pa.Table:
    """The last draw of every place, in order."""
    import pyarrow as pa

    whole = pa.concat_tables(part.select(parts[0].column_names) for part in parts)
    row_of_place = np.empty(n, dtype=np.int64)
    row_of_place[np.concatenate(places)] = np.arange(whole.num_rows)  # later ones win
    return whole.take(row_of_place).combine_chunks()


def _give_up(run: Run, table: pa.Table, place: int, rejected: dict[str, NDArray[np.int64]]) -> None:
    counts = ", ".join(f"{count[place]} by {name}" for name, count in rejected.items() if count[place])
    host = table.column("host_id")[place].as_py()
    row = table.column("rng_row")[place].as_py()
    raise ConfigError(
        f"row {row}: none of {MOST_TRIES} draws into host {host} passes the "
        f"cuts ({counts}): loosen them, change the priors, or leave the host out"
    )
