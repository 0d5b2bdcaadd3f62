"""``arcforge bench``: kernel variants, other programs, whole runs and stored bytes, timed side by side after
they were shown to be right.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arcforge.cli import terminal
from arcforge.cli.bench_runs import loaders, pipeline, store
from arcforge.cli.options import JsonFile
from arcforge.cli.tables import plain_table, say_machine

if TYPE_CHECKING:
    from rich.table import Table

bench = typer.Typer(
    help="""Time kernels, other programs, whole runs and the store, side by side.

    Nothing is timed before its pixels were compared with the converged float64 reference. Times of one
    thread are processor time, which other work on the machine does not lengthen; threads are compared by
    wall time.

    Examples
    --------
    arcforge bench kernels --size 64
    arcforge bench peers --json peers.json --png peers.png
    arcforge bench pipeline --n 32768 --json pipeline.json
    arcforge bench store
    """
)


class Catalogue(StrEnum):
    """How many rows are timed: 16, 64, 512."""

    S = "S"
    M = "M"
    L = "L"


class Population(StrEnum):
    """What the rows are like; see ``arcforge.bench.cases.SOURCES``."""

    sersic = "sersic"
    exponential = "exponential"
    stated = "stated"
    smooth = "smooth"


_PngFile = Annotated[
    Path | None, typer.Option("--png", metavar="FILE", dir_okay=False, help="Draw time against error.")
]
_Repeats = Annotated[int, typer.Option(min=1, metavar="N", help="Interleaved repeats; medians are shown.")]
_Catalogue = Annotated[Catalogue, typer.Option(help="Rows: S 16, M 64, L 512.")]
_Source = Annotated[
    Population,
    typer.Option(help="Rows: sersic n 0.5-4; exponential n 1; stated the widest ranges; smooth large, n 1."),
]


@bench.command()
def kernels(
    size: Annotated[
        list[int] | None,
        typer.Option(min=4, max=1024, metavar="PIX", help="Stamp size, can be repeated; else 32 to 256."),
    ] = None,
    catalogue: _Catalogue = Catalogue.S,
    source: _Source = Population.sersic,
    repeats: _Repeats = 7,
    no_start: Annotated[
        bool, typer.Option("--no-start", help="Leave out the time to a new process's first stamp.")
    ] = False,
    json_file: JsonFile = None,
    png_file: _PngFile = None,
) -> None:
    """Compare every kernel variant with the reference, and time it.

    Shown are processor time and wall time a stamp, the rays it takes, time and FLOP a ray, and the share of
    the processor's peak that the tracing loop reaches; what threads gain; what a new process takes to its
    first stamp. FLOP are counted from the kernel's source, the peak is that of a loop of multiply-adds on
    this machine. Exit code 1 where a variant misses its tolerance: it is not timed then.

    Examples
    --------
    arcforge bench kernels
    arcforge bench kernels --size 64 --size 128 --catalogue M --json kernels.json --png kernels.png
    arcforge bench kernels --size 64 --source exponential --no-start
    """
    from arcforge.bench.cases import SIZES_PIX
    from arcforge.bench.kernels import bench_kernels

    sizes = size or list(SIZES_PIX)
    with terminal.progress("timing", "steps") as progress:
        report = bench_kernels(
            sizes,
            catalogue=catalogue.value,
            source=source.value,
            repeats=repeats,
            compile_time=not no_start,
            progress=progress,
        )
    say_machine(report["machine"])
    console = terminal.console()
    for one in sizes:
        console.print(_variant_table(report, one))
    console.print(_thread_table(report))
    if report["start"]:
        console.print(_start_table(report))
    _write(report, json_file, png_file, 64 if 64 in sizes else sizes[0])
    wrong = [entry for entry in report["variants"] if not entry["validated"]]
    if wrong:
        names = ", ".join(f"{entry['variant']} at {entry['size_pix']} pix" for entry in wrong)
        terminal.complain(f"outside their tolerance, so not timed: {names}")
        raise typer.Exit(1)


@bench.command()
def peers(
    catalogue: _Catalogue = Catalogue.S,
    source: _Source = Population.sersic,
    repeats: _Repeats = 9,
    json_file: JsonFile = None,
    png_file: _PngFile = None,
) -> None:
    """Time other programs on the same rows, on one core.

    Stamps of 64 x 64 pix in three bands, SIE with shear, Sersic source, a Gaussian PSF for each band; each
    program with its own error. The programs come with the extra 'peers' (pip install '.[peers]'); one that
    is not installed is listed as absent.

    Examples
    --------
    arcforge bench peers --json peers.json --png peers.png
    arcforge bench peers --source exponential --repeats 21
    """
    from arcforge.bench.peers import bench_peers

    with terminal.progress("timing", "repeats") as progress:
        report = bench_peers(
            catalogue=catalogue.value, source=source.value, repeats=repeats, progress=progress
        )
    say_machine(report["machine"])
    console = terminal.console()
    console.print(_peer_table(report))
    console.print(_target_table(report))
    _write(report, json_file, png_file, report["settings"]["size_pix"])


bench.command()(pipeline)
bench.command()(store)
bench.command()(loaders)


def _work(settings: dict[str, Any], size_pix: int) -> str:
    bands, rows, source = settings["bands"], settings["rows"], settings["source"]
    return f"{size_pix} x {size_pix} pix, {bands} bands, {rows} rows ({source})"


def _variant_table(report: dict[str, Any], size_pix: int) -> Table:
    settings = report["settings"]
    peak = report["fma_peak_gflops_per_core"]
    table = plain_table(
        f"\n{_work(settings, size_pix)}; one thread, peak {peak:.0f} GFLOP/s",
        *("variant", "us/stamp", "wall", "rays/stamp", "ns/ray", "FLOP/ray", "of peak"),
        *("median error", "worst error"),
    )
    for entry in report["variants"]:
        if entry["size_pix"] != size_pix:
            continue
        errors = entry.get("error_over_peak")
        shown = [f"{errors[name]:.1e}" for name in ("median", "max")] if errors else ["-", "-"]
        if not entry["validated"]:
            table.add_row(entry["variant"], *["-"] * 6, *shown)
            continue
        times = [f"{entry[clock]['median']:,.0f}" for clock in ("cpu_us", "wall_us")]
        rays = ["-"] * 4
        if "rays" in entry:
            rays = [
                f"{entry['rays']['median']:,.0f}",
                f"{entry['ns_per_ray']:.2f}",
                f"{entry['flop_per_ray']:.0f}",
                f"{100 * entry['fma_peak_share']:.0f} %",
            ]
        table.add_row(entry["variant"], *times, *rays, *shown)
    return table


def _thread_table(report: dict[str, Any]) -> Table:
    table = plain_table(
        "\nThreads on 64 x 64 pix, wall time",
        *("variant", "threads", "us/stamp", "speed-up", "best", "multiply-adds alone", "processor time"),
    )
    for entry in report["threads"]:
        table.add_row(
            entry["variant"],
            str(entry["threads"]),
            f"{entry['wall_us']['median']:,.0f}",
            f"{entry['speedup']:.2f} x",
            f"{entry['speedup_best']:.2f} x",
            f"{entry['fma_speedup']:.2f} x",
            f"{entry['cpu_ratio']:.2f} x",
        )
    return table


def _start_table(report: dict[str, Any]) -> Table:
    table = plain_table(
        "\nNew process to its first stamp [s], wall (processor)",
        *("variant", "imports", "cold cache", "warm cache", "compiling"),
    )
    for entry in report["start"]:
        pairs = [
            f"{entry[name + '_wall_s']:.1f} ({entry[name + '_cpu_s']:.1f})"
            for name in ("import", "first_stamp_cold", "first_stamp_warm")
        ]
        table.add_row(entry["variant"], *pairs, f"({entry['compile_cpu_s']:.1f})")
    return table


def _peer_table(report: dict[str, Any]) -> Table:
    settings = report["settings"]
    table = plain_table(
        f"\n{_work(settings, settings['size_pix'])}; one core, processor time",
        *("renderer", "version", "us/stamp", "quartiles", "traces", "median error", "worst error"),
    )
    for entry in report["entries"]:
        name = f"arcforge {entry['name']}" if entry["ours"] else entry["name"]
        if not entry["installed"]:
            table.add_row(name, "absent", *["-"] * 5)
            continue
        errors = [f"{entry['error_over_peak'][which]:.1e}" for which in ("median", "max")]
        if not entry["validated"]:
            table.add_row(name, entry.get("version") or "", "wrong", "-", str(entry["traces"]), *errors)
            continue
        cpu = entry["cpu_us"]
        table.add_row(
            name,
            entry.get("version") or "",
            f"{cpu['median']:,.0f}",
            f"{cpu['q25']:,.0f}-{cpu['q75']:,.0f}",
            str(entry["traces"]),
            *errors,
        )
    return table


def _target_table(report: dict[str, Any]) -> Table:
    table = plain_table(
        "\nTimes as fast (quartiles of the paired repeats)",
        *("arcforge", "than", "measured", "quartiles", "target"),
    )
    targets = {(target["ours"], target["peer"]): target for target in report["targets"]}
    for entry in report["ratios"]:
        target = targets.get((entry["ours"], entry["peer"]))
        goal = ""
        if target is not None:
            goal = f">= {target['at_least']:.0f}: {'met' if target['met'] else 'missed'}"
        table.add_row(
            entry["ours"],
            entry["peer"],
            f"{entry['median']:.1f} x",
            f"{entry['q25']:.1f}-{entry['q75']:.1f}",
            goal,
        )
    return table


def _write(report: dict[str, Any], json_file: Path | None, png_file: Path | None, size_pix: int) -> None:
    if json_file is not None:
        terminal.write_json(report, json_file)
        terminal.note(f"\n{json_file}: the numbers")
    if png_file is not None:
        from arcforge.bench.plot import draw

        terminal.say(f"{draw(report, png_file, size_pix=size_pix)}: time against error")
