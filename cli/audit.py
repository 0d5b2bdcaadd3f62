"""``arcforge audit``: decide whether paired stamps leak their label, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcforge.cli import terminal
from arcforge.cli.options import JsonFile, Seed

# Exit codes by verdict; GO is 0
EXIT_CODES = {"GO": 0, "GO-WITH-REMEDY": 10, "NO-GO": 20, "INCONCLUSIVE": 30}
# What --fail-on takes
_FAIL_ON = {"remedy": "GO-WITH-REMEDY", "nogo": "NO-GO", "inconclusive": "INCONCLUSIVE"}
_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red", "INCONCLUSIVE": "yellow", "SKIPPED": "dim"}


def audit(
    pairs: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE_OR_PARQUET", help="A store, or parquet with paired cutouts (s3:// too)."
        ),
    ] = None,
    json_file: JsonFile = None,
    html_file: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", dir_okay=False, help="Also write a page with pictures."),
    ] = None,
    seed: Seed = 0,
    n_pairs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pairs to draw; 2000 if not given.")
    ] = None,
    junit_file: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", dir_okay=False, help="Also write JUnit XML, a test a check."),
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help='Names of columns (TOML): [columns], our name = "yours".'),
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file that replaces default thresholds.")
    ] = None,
    psf_table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The survey's psfsize_<band> by brick, for the PSF check."),
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Published summary numbers (TOML) in place of pixels."),
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Verdicts that fail, of: remedy, nogo, inconclusive; others exit with 0."
        ),
    ] = "remedy,nogo,inconclusive",
) -> None:
    """Decide whether paired stamps leak their label: bug, PSF or physics; GO or NO-GO.

    Stamp minus control is held against arcs rendered anew from the recorded parameters. Of images with a
    label but no controls, what needs no pair is audited; of a catalogue, its splits and labels.
    Exit code: 0 GO, 10 GO-WITH-REMEDY, 20 NO-GO, 30 INCONCLUSIVE.

    Examples
    --------
    arcforge audit lenses.zarr --html audit.html
    arcforge audit train.parquet --json audit.json --n-pairs 5000
    arcforge audit train.parquet --fail-on nogo,inconclusive
    arcforge audit train.parquet --map names.toml --junit audit.xml
    arcforge audit train.parquet --psf-table bricks.csv
    arcforge audit catalogue.fits --json splits.json
    arcforge audit --tables published.toml --html tables.html
    """
    failing = _parse_fail_on(fail_on)
    if (pairs is None) == (tables is None):
        raise typer.BadParameter("give a store or parquet, or --tables: one of them", param_hint="audit")
    if tables is not None:
        report = audit_published(tables, seed, json_file, html_file)
        raise typer.Exit(EXIT_CODES[report["verdict"]] if report["verdict"] in failing else 0)
    from arcforge.engine.auditing.junit import write_junit
    from arcforge.engine.auditing.mapping import read_mapping
    from arcforge.engine.auditing.run import audit as run
    from arcforge.engine.durable import check_place

    for path in (json_file, junit_file):
        if path is not None and str(path) != "-":
            check_place(path)

    with terminal.progress("auditing", "steps") as progress:
        report = run(
            pairs,
            seed=seed,
            n_pairs=n_pairs,
            thresholds=thresholds,
            columns=None if map_file is None else read_mapping(map_file),
            psf_table=psf_table,
            html=html_file,
            progress=progress,
        )
    if json_file is not None:
        terminal.write_json(report, json_file)
    if junit_file is not None:
        write_junit(report, junit_file, passing=report["verdict"] not in failing)
    print_checks(report)
    print_verdict(report)
    for path in (json_file, html_file, junit_file):
        if path is not None and str(path) != "-":
            terminal.note(f"wrote {path}")
    verdict = report["verdict"]
    raise typer.Exit(EXIT_CODES[verdict] if verdict in failing else 0)


def audit_published(
    tables: Path, seed: int, json_file: Path | None, html_file: Path | None
) -> dict[str, Any]:
    """Audit published summary numbers, print and write what came of it."""
    from arcforge.engine.auditing.tables_page import write_tables_page
    from arcforge.engine.auditing.tables_report import audit_tables

    with terminal.progress("fitting explanations", "explanations") as progress:
        report = audit_tables(tables, seed=seed, progress=progress)
    if json_file is not None:
        terminal.write_json(report, json_file)
    if html_file is not None:
        write_tables_page(report, html_file)
    print_checks(report)
    terminal.say("")
    for entry in report["explanations"]:
        terminal.say(f"{entry['status']:8s}  departs by {entry['rms_departure']:5.2f}  {entry['words']}")
    print_verdict(report)
    for entry in report["tell_apart"]:
        terminal.say(f"pixels would show {entry['name']}: {entry['words']}")
    return report


def _parse_fail_on(text: str) -> set[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in _FAIL_ON]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not among {', '.join(_FAIL_ON)}", param_hint="--fail-on")
    return {_FAIL_ON[word] for word in words}


def print_checks(report: dict[str, Any]) -> None:
    """Print every check with its finding."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), show_edge=False, show_header=False)
    for overflow in ("ignore", "ignore", "fold"):
        table.add_column(no_wrap=overflow == "ignore", overflow=overflow)
    for check in report["checks"]:
        colour = _COLOURS[check["status"]]
        title = escape(check["title"].split(":")[0])
        table.add_row(
            check["id"], f"[{colour}]{check['status']}[/]", f"[bold]{title}[/]: {escape(check['message'])}"
        )
    terminal.console().print(table)


def print_verdict(report: dict[str, Any]) -> None:
    """Print what matters most: the last lines of an audit are the ones that stay on the screen."""
    from rich.markup import escape

    console = terminal.console()
    reason = f" {report['reason']}" if report["reason"] else ""
    colour = (
        "green" if report["verdict"] == "GO" else "yellow" if report["verdict"] == "GO-WITH-REMEDY" else "red"
    )
    console.print(f"\n[bold {colour}]{report['verdict']}{reason}[/]")
    console.print(escape(report["because"]), soft_wrap=True)
    for cause in report["causes"]:
        if cause["estimate"] is not None:
            low, high = cause["ci95"]
            unit = "" if cause["unit"] == "ratio" else f" {cause['unit']}"
            interval = f"(95 %: {low:.4g} to {high:.4g}; should be {cause['nominal']:g})"
            size = f"{cause['estimate']:.4g}{unit} {interval}"
            console.print(f"cause: [bold]{cause['name']}[/] {size}")
        else:
            console.print(f"cause: [bold]{cause['name']}[/]")
    console.print(f"next: {escape(report['next_step'])}", soft_wrap=True)
