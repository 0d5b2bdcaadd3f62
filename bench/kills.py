"""Kill a run at random moments, resume it each time, and compare the final store with an undisturbed one.

``python -m arcforge.bench.kills FOLDER [KILLS]``: whole runs of ``inject`` in forked processes, each killed
(SIGKILL) after a random time and resumed by the next, until a run ends undisturbed; then a new store is
begun, until the wanted number of kills has fallen. Writes one JSON line a store, and a last one; exit code 0
if all are byte-identical. The tests kill every step of the write protocol once; this hits what lies between.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from arcforge.engine import provenance
from arcforge.engine.config import default_config
from arcforge.engine.inject import inject

ROWS, STAMP_PIX = 3000, 24
SEED = 20_260_705


def write(root: Path) -> None:
    """Begin or resume the run."""
    config = replace(default_config(), stamp_size=STAMP_PIX, variant="uniform1", synthetic_host_count=24)
    inject(root, config=config, n=ROWS, seed=SEED, threads=2, resume=True)


def write_in_child(root: Path, kill_after_s: float | None) -> bool:
    """Run in a forked process; return whether it was killed before it had ended."""
    child = os.fork()
    if child == 0:
        try:
            write(root)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status > 0:
        raise RuntimeError(f"a run failed with exit code {status}")
    return status == -signal.SIGKILL


def tree_hash(root: Path) -> str:
    """Return the hash of every file's name and content below a folder."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main(folder: Path, kills: int) -> int:
    """Kill runs until ``kills`` of them have fallen; return the exit code."""
    draw = random.Random(SEED)
    undisturbed, root = folder / "undisturbed.zarr", folder / "killed.zarr"
    folder.mkdir(parents=True, exist_ok=True)
    provenance.code_sha256()  # once, for all that are forked: an edit meanwhile is another run
    write_in_child(undisturbed, None)
    began = time.perf_counter()
    shutil.rmtree(undisturbed)
    write_in_child(undisturbed, None)  # compiled and cached by now
    lasts_s = time.perf_counter() - began
    expected, fallen, same = tree_hash(undisturbed), 0, True
    while fallen < kills:
        shutil.rmtree(root, ignore_errors=True)
        hits: list[float] = []
        while write_in_child(root, kill_after := draw.uniform(0.0, lasts_s)):
            hits.append(round(kill_after, 3))
            fallen += 1
        equal = tree_hash(root) == expected
        left = sorted(path.name for path in folder.iterdir() if path not in (root, undisturbed))
        same &= equal and not left
        _say({"kills_after_s": hits, "same_bytes": equal, "left": left})
    _say({"kills": fallen, "run_s": round(lasts_s, 2), "all_same": same})
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50))
