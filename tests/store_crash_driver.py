"""Kill a writer at every step of the write protocol, resume it, and report the final store of each.

Run as ``python store_crash_driver.py FOLDER``: writes one JSON line a kill to stdout. Children are forked
from a process that has imported everything and used nothing, so that a kill is cheap. fsync is left out: a
SIGKILL loses no page that was written (a power cut does, which no test here can make).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import conftest
import pyarrow.parquet  # noqa: F401 (loaded once, before the forks)
import zarr.codecs  # noqa: F401

from arcforge.bench.kills import tree_hash
from arcforge.engine import durable, store_status, writer
from arcforge.engine.commits import HOSTS, is_done, shard_name

os.fsync = lambda handle: None

# The four steps of placing a file come once a file: every 13th is killed, which meets each of the four.
_PLACING = ("opened", "written", "synced", "renamed")


def generate(root: Path) -> conftest.GeneratedStore:
    return conftest.generate(root, n_rows=300, size=4, n_hosts=2)


def run(root: Path) -> None:
    """Write the store from whatever is there, as a resumed run does."""
    made = generate(root)
    if not root.exists():
        made.begin()
    with durable.write_lock(root):
        if store_status.read_group_attributes(root)["status"] == store_status.COMPLETE:
            return
        assert is_done(root, made.plan, HOSTS)
        made.write([k for k in range(made.plan.n_shards) if not is_done(root, made.plan, shard_name(k))])
        writer.complete(root, made.plan)


def in_child(root: Path, kill_at: int | None, points: Path) -> int:
    """Run in a forked child that is killed at its ``kill_at``-th step; return its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen: list[str] = []
    counting = threading.Lock()

    def reached(point: str) -> None:
        with counting:  # encoding and placing have threads of their own: no step may be counted unseen
            seen.append(point)
            points.write_text("\n".join(seen))
            if len(seen) - 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    durable.reached = writer.reached = reached
    sys.modules["arcforge.engine.commits"].reached = reached
    try:
        run(root)
    except BaseException as error:
        say({"error": repr(error), "kill_at": kill_at})
        os._exit(1)
    os._exit(0)


def say(found: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main(folder: Path) -> None:
    points, root = folder / "points", folder / "S.zarr"
    generate(root)  # imports and compiles, once for all children; writes nothing
    assert in_child(root, None, points) == 0
    steps, undisturbed = points.read_text().splitlines(), tree_hash(root)
    last = len(steps) - 4
    chosen = {k for k, point in enumerate(steps) if point not in _PLACING or k % 13 == 0 or k >= last}
    for kill_at, point in enumerate(steps):
        if kill_at not in chosen:
            continue
        shutil.rmtree(root)
        status = in_child(root, kill_at, points)
        half = root.exists() and '"complete"' in (root / "zarr.json").read_text()
        again = in_child(root, None, points)
        left = sorted(path.name for path in folder.iterdir() if path != points)
        found = {
            "step": kill_at,
            "point": point,
            "killed": status == -signal.SIGKILL,
            "complete_when_killed": half,
            "resumed": again == 0,
            "same_bytes": tree_hash(root) == undisturbed,
            "left": left,
        }
        say(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
