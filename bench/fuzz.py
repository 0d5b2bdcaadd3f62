"""Damage every kind of file that arcforge reads, by seed, and see that each is read or refused in one line.

``python -m arcforge.bench.fuzz FOLDER [MINUTES] [SEED]``: valid files of every kind are made in FOLDER, then
one after the other is damaged (``mutations``) and read as the commands read it, in a process of its own with
bounded memory. A case passes if the reader gives a result or an ``ArcforgeError``. Anything else is a
finding: another exception, a dead process, more than two minutes of its processor time (or twenty by the
clock), a file that was run as a program, or pixels of a store that are not those committed. A finding is
printed with its number; ``case(folder, number)`` repeats it. Prints one JSON line a finding, and a last one;
exit code 0 if there are none.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from arcforge.bench.fuzz_targets import PARTS, TARGETS, Target
from arcforge.bench.mutations import SENTINEL_ENV, mutate
from arcforge.engine.errors import ArcforgeError

_ADDRESS_BYTES = 3 << 29  # beyond what the process holds when it begins
_SLOWEST_CPU_S, _SLOWEST_S = 120, 1200  # a busy machine is no finding, a case that waits for ever is one
_BATCH = 40


def prepare_folder(folder: Path) -> None:
    """Write a valid file of every kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in TARGETS.items():
        target.make(folder / f"{name}{target.suffix}")


def read_whole(folder: Path) -> None:
    """See that the files are read as they are."""
    for name, target in TARGETS.items():
        target.read(folder / f"{name}{target.suffix}")


def case(folder: Path, number: int) -> str:
    """Damage and read one file; returns what was done and what came of it.

    Raises
    ------
    Exception
        Whatever escaped the reader and is no ``ArcforgeError``; that is a finding.
    """
    draw = random.Random(number)
    name = draw.choice(list(TARGETS))
    target = TARGETS[name]
    whole = folder / f"{name}{target.suffix}"
    damaged = folder / f"damaged-{os.getpid()}"
    damaged.mkdir(exist_ok=True)
    for other in ("host_npz.npz", "host_fits.fits", "pairs.parquet", "committed.npz"):
        shutil.copy(folder / other, damaged / other)
    path = damaged / whole.name
    try:
        if target.form == PARTS:
            shutil.copytree(whole, path)
            part = draw.choice(sorted(p for p in path.rglob("*") if p.is_file()))
            done, content = mutate(part.read_bytes(), "text" if part.suffix == ".json" else "bytes", draw)
            part.write_bytes(content)
            done = f"{part.relative_to(path)} {done}"
        else:
            done, content = mutate(whole.read_bytes(), target.form, draw)
            path.write_bytes(content)
        label = f"{name}: {done}"
        return f"{label}: {_outcome(target, path)}"
    finally:
        shutil.rmtree(damaged, ignore_errors=True)


def _outcome(target: Target, path: Path) -> str:
    try:
        target.read(path)
    except ArcforgeError as error:
        text = str(error)
        if "\n" in text.strip() or not text:
            raise AssertionError(f"the message is not one line: {text!r}") from error
        return f"refused: {text}"
    return "read"


def _run_batch(folder: Path, numbers: range, pipe: int) -> None:
    """Run cases in this process, and write a line before and after each."""
    resource.setrlimit(resource.RLIMIT_AS, (_used_bytes() + _ADDRESS_BYTES,) * 2)
    sentinel = folder / "was-run"
    os.environ[SENTINEL_ENV] = str(sentinel)
    with os.fdopen(pipe, "w") as stream:
        for number in numbers:
            stream.write(f"{number}\n")
            stream.flush()
            signal.setitimer(signal.ITIMER_PROF, _SLOWEST_CPU_S)
            signal.alarm(_SLOWEST_S)
            try:
                said = case(folder, number)
                if sentinel.exists():
                    sentinel.unlink()
                    raise AssertionError("the file's code was run")
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)
                ours = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "fuzz.py" not in f.filename]
                said = f"FINDING {type(error).__name__}: {error} at {' '.join(ours[-5:])}"
            stream.write(said.replace("\n", " ") + "\n")
            stream.flush()
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)


def _used_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Run cases from ``seed`` on for a time; returns counts and findings."""
    prepare_folder(folder)
    read_whole(folder)
    counts: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    number, until = seed, time.monotonic() + seconds
    while time.monotonic() < until:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            try:
                _run_batch(folder, range(number, number + _BATCH), write_end)
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as stream:
            lines = stream.read().splitlines()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        last = len(lines) // 2 * 2
        for at in range(0, last, 2):
            kind = "finding" if lines[at + 1].startswith("FINDING") else lines[at + 1].split(": ")[2]
            counts[kind] += 1
            if kind == "finding":
                findings.append({"case": int(lines[at]), "what": lines[at + 1]})
                sys.stdout.write(json.dumps(findings[-1]) + "\n")
                sys.stdout.flush()
        if last < len(lines):  # it died in the middle of a case
            findings.append({"case": int(lines[last]), "what": f"FINDING process ended with {status}"})
            sys.stdout.write(json.dumps(findings[-1]) + "\n")
            sys.stdout.flush()
            counts["finding"] += 1
            number = int(lines[last]) + 1
        else:
            number += _BATCH
    return {"first": seed, "next": number, "counts": dict(counts), "findings": len(findings)}


if __name__ == "__main__":
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    result = run(Path(sys.argv[1]), 60.0 * minutes, int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(0 if result["findings"] == 0 else 1)
