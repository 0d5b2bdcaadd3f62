"""``arcforge bench pipeline``, ``bench store`` and ``bench loaders``: whole runs, stored bytes, reading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcforge.cli import terminal
from arcforge.cli.options import JsonFile, StorePath, Threads
from arcforge.cli.tables import plain_table, say_machine

_Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Disk to write to; the system's temporary folder if not given."),
]
_Repeats = Annotated[int, typer.Option(min=1, metavar="N", help="Interleaved repeats; medians are shown.")]


def pipeline(
    n: Annotated[int, typer.Option(min=256, help="Rows of a run.")] = 20_480,
    threads: Threads = None,
    folder: _Folder = None,
    repeats: _Repeats = 3,
    json_file: JsonFile = None,
) -> None:
    """Time whole runs of 'arcforge inject' against rendering alone, writing alone, and NumPy writing npz.

    The runs read their hosts from files and write complete stores to the disk; the parts are interleaved, so
    that ratios hold on a machine whose speed varies. Memory is that of runs in processes of their own. Exit
    code 1 where the store that is checked first is not sound: nothing is shown then.

    Examples
    --------
    arcforge bench pipeline
    arcforge bench pipeline --n 32768 --folder /data/scratch --json pipeline.json
    """
    from arcforge.bench.pipeline import bench_pipeline

    with terminal.progress("timing", "steps") as progress:
        report = bench_pipeline(n, threads=threads, folder=folder, repeats=repeats, progress=progress)
    if json_file is not None:
        terminal.write_json(report, json_file)
    if not report["validated"]:
        terminal.complain(f"the store is not sound, so nothing is shown: {report['faults'][0]}")
        raise typer.Exit(1)
    say_machine(report["machine"])
    settings = report["settings"]
    table = plain_table(
        f"\n{settings['stamp_size']} pix, bands {settings['bands']}, rtol {settings['rtol']:g}, "
        f"{settings['rows']:,} rows, {settings['threads']} threads",
        *("part", "stamps/s", "wall us/stamp", "processor us/stamp"),
    )
    for name, part in report["parts"].items():
        clocks = [f"{part[clock]['median']:,.0f}" for clock in ("wall_us", "cpu_us")]
        table.add_row(_PARTS[name], f"{part['stamps_per_s']:,.0f}", *clocks)
    terminal.show_table(table)
    _say_ratios(report)


_PARTS = {
    "inject": "arcforge inject, everything",
    "render": "rendering alone",
    "write": "writing alone",
    "numpy": "NumPy, npz files (one thread)",
}


def _say_ratios(report: dict[str, Any]) -> None:
    share, memory = report["of_render_only"], report["memory"]
    terminal.say(
        f"\na whole run reaches {share['median']:.0%} of the rate of rendering alone "
        f"(quartiles {share['q25']:.0%} to {share['q75']:.0%})"
    )
    for key, what in (("times_numpy", "the rate of NumPy"), ("times_numpy_cpu", "that by processor time")):
        times = report[key]
        terminal.say(f"{times['median']:.0f} x {what} (quartiles {times['q25']:.0f} to {times['q75']:.0f})")
    for entry in report["scaling"]:
        terminal.say(f"{entry['threads']} threads: {entry['speedup']:.2f} x the rate of one")
    held = ", ".join(
        f"{peak / 1e6:,.0f} MB at {rows:,} rows"
        for rows, peak in zip(memory["rows"], memory["peak_bytes"], strict=True)
    )
    terminal.say(f"memory {held}; {memory['million_rows_bytes'] / 1e6:,.0f} MB at 1,000,000 (extrapolated)")


def store(
    n: Annotated[int, typer.Option(min=64, help="Rows of the shard, a power of two.")] = 1024,
    folder: _Folder = None,
    repeats: _Repeats = 5,
    json_file: JsonFile = None,
) -> None:
    """Time codecs and chunk sizes of the store, on rendered arcs; each is read back and compared first.

    Examples
    --------
    arcforge bench store
    arcforge bench store --folder /data/scratch --json store.json
    """
    from arcforge.bench.store import bench_store

    if n & (n - 1):
        raise typer.BadParameter(f"{n} is no power of two", param_hint="--n")
    with terminal.progress("timing", "cases") as progress:
        report = bench_store(n, folder=folder, repeats=repeats, progress=progress)
    if json_file is not None:
        terminal.write_json(report, json_file)
    say_machine(report["machine"])
    table = plain_table(
        f"\n{n} stamps of {report['settings']['stamp_bytes'] / 1e3:.0f} kB in one shard; us a stamp",
        *("codec", "shuffle", "rows a chunk", "arcs", "hosts", "encode", "write", "read", "random row"),
    )
    for entry in report["entries"]:
        sizes = [f"{entry['arc_bytes']:.2f}", f"{entry['host_bytes']:.2f}"]
        times = ["wrong"] * 4
        if entry["validated"]:
            clocks = {"encode": "cpu_us", "write": "wall_us", "read": "wall_us", "random": "wall_us"}
            times = [f"{entry[name][clock]['median']:,.0f}" for name, clock in clocks.items()]
        name = entry["codec"] + (" (the store's)" if entry["is_default"] else "")
        table.add_row(name, entry["shuffle"], str(entry["chunk_rows"]), *sizes, *times)
    terminal.show_table(table)
    if not all(entry["validated"] for entry in report["entries"]):
        terminal.complain("a combination did not give back what was written")
        raise typer.Exit(1)


def loaders(
    store: StorePath,
    steps: Annotated[int, typer.Option(min=10, help="Training steps of the example.")] = 200,
    json_file: JsonFile = None,
) -> None:
    """Time how fast a network can be fed from a store and by rendering, and train a small one.

    The network tells stamps from controls; it is an example of how pairs are used (see
    arcforge.bench.loaders.train). torch comes with the extra 'torch' (pip install '.[torch]').

    Examples
    --------
    arcforge bench loaders lenses.zarr
    arcforge bench loaders lenses.zarr --steps 1000 --json loaders.json
    """
    from arcforge.bench.loaders import bench_loaders

    with terminal.waiting("timing and training"):
        report = bench_loaders(store, steps=steps)
    if json_file is not None:
        terminal.write_json(report, json_file)
    say_machine(report["machine"])
    for name, rate in report["pairs_per_s"].items():
        terminal.say(f"{_LOADERS[name]:<34}{rate:>10,.0f} pairs/s")
    trained = report["train"]
    terminal.say(
        f"{trained['steps']} steps in {trained['seconds']:.1f} s: loss {trained['first_loss']:.3f} to "
        f"{trained['last_loss']:.3f}"
    )


_LOADERS = {
    "stream": "stored, block-shuffled",
    "by_index": "stored, by index in random order",
    "rendered": "rendered on the fly, one thread",
}
