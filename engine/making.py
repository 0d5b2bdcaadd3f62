"""From drawn rows to rendered ones: arcs, magnifications, and new draws for rows that fail the cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.catalog import render_columns
from arcforge.engine.cuts import failing, visibility
from arcforge.engine.errors import ConfigError
from arcforge.engine.lookalikes import SHAPES, lookalike_kinds, render_lookalikes
from arcforge.engine.negatives import as_negatives
from arcforge.engine.run_rows import DrawnRows, put_column, used_rows, with_gain

if TYPE_CHECKING:
    import pyarrow as pa

    from arcforge.engine.arrays import Pixels
    from arcforge.engine.catalog import RenderColumns
    from arcforge.engine.inject import Run
    from arcforge.engine.source_bank import SourceBank

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
    if not isinstance(run.rows, DrawnRows):
        return _rendered(run, table, columns, threads, out)
    arcs, table = _rendered_arcs(run, table, columns, threads, out)
    if run.config.cuts:
        table = _pass_cuts(run, table, arcs, threads)
    if run.config.negatives:
        table = _make_negatives(run, table, arcs, threads)
    return arcs, table


def _make_negatives(run: Run, table: pa.Table, arcs: Pixels, threads: int | None) -> pa.Table:
    """Turn arcs into negatives where the row's kind asks for one, in place."""
    n, shares = table.num_rows, run.config.negatives
    table = put_column(table, "negative_flux_factor", np.ones(n))
    if "source_id" not in table.column_names and set(shares) & set(SHAPES):
        table = put_column(table, "source_id", np.full(n, ""))
    kinds = np.array(table.column("kind").to_pylist())
    parts, places = [table], [np.arange(n)]
    for kind in shares:
        rows = np.flatnonzero(kinds == kind)
        if not rows.size:
            continue
        part = as_negatives(table.take(rows), kind, run.plan.bands)
        arcs[rows], part = _rendered(run, part, render_columns(part, run.plan.bands), threads, None)
        parts.append(part)
        places.append(rows)
    return _latest(parts, places, n)


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
        arcs[looked_at], last = _rendered_arcs(run, redrawn, drawn_columns, threads, None)
        parts.append(last)
        places.append(looked_at)
    table = _latest(parts, places, len(rows))
    table = put_column(table, "draw_tries", tries)
    for name, count in rejected.items():
        table = put_column(table, f"rejected_{name}", count)
    return table


def _rendered_arcs(
    run: Run, table: pa.Table, columns: RenderColumns, threads: int | None, out: Pixels | None
) -> tuple[Pixels, pa.Table]:
    """Render every row's arc, whatever it is to become."""
    magnification = np.empty(len(columns))
    arcs = run.render(columns, threads, out, magnification)
    return arcs, put_column(table, "magnification", magnification)


def _rendered(
    run: Run, table: pa.Table, columns: RenderColumns, threads: int | None, out: Pixels | None
) -> tuple[Pixels, pa.Table]:
    """Render rows by their kind; of an average the magnification is its arc's, of a shape it is 1."""
    kinds = lookalike_kinds(table, len(columns))
    if kinds is None:
        return _rendered_arcs(run, table, columns, threads, out)
    if out is None:
        out = np.empty((len(columns), *run.plan.row_shape), dtype=np.float32)
    # an average has its arc's magnification, and shapes have none
    magnification = np.ones(len(columns))
    for rows in (np.flatnonzero(kinds == "averaged"), np.flatnonzero(kinds == "")):
        if rows.size:
            out[rows], known = _rendered_arcs(run, table.take(rows), columns.take(rows), threads, None)
            magnification[rows] = known.column("magnification").to_numpy()

    def render(columns: RenderColumns, sources: SourceBank | None) -> Pixels:
        return run.render(columns, threads, sources=sources)

    render_lookalikes(table, kinds, columns, run.plan.pixscale_arcsec, run.bank, render, out)
    return out, put_column(table, "magnification", magnification)


def _failed(run: Run, table: pa.Table, arcs: Pixels) -> dict[str, NDArray[np.bool_]]:
    band = run.config.bands.index(run.config.reference_band)
    power = np.einsum("nyx,nyx->n", arcs[:, band], arcs[:, band], dtype=np.float64)
    host = table.column("host_index").to_numpy()
    invvar = run.hosts.table.typical_invvar[host, band]
    seen = np.full(len(arcs), np.nan)
    if "visibility_min" in run.config.cuts:
        distinct, places = np.unique(host, return_inverse=True)
        seen = visibility(arcs[:, band], run.hosts.pixels(distinct)[:, band], places, invvar)
    return failing(run.config.cuts, table, power, invvar, run.config.reference_band, seen)


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
