"""The output of a run: refused where it is in the way, begun, and brought to where shards can be written."""

from __future__ import annotations

import os
from pathlib import Path

from arcforge.engine.commits import HOSTS, is_done, shard_name, size_fault
from arcforge.engine.durable import check_folder_of, temporaries, write_lock
from arcforge.engine.errors import ConfigError, StoreError, StoreExistsError
from arcforge.engine.places import is_object
from arcforge.engine.plan import Partition, Plan
from arcforge.engine.store import open_store
from arcforge.engine.store_status import WRITING, is_store, read_group_attributes
from arcforge.engine.writer import HostSource, begin, reopen, write_hosts


def check_output(root: Path, *, overwrite: bool, resume: bool, partition: Partition | None) -> None:
    """Refuse an output that is in the way or cannot be written, before any work."""
    if overwrite and (resume or partition is not None):
        other = "--resume" if resume else "--partition"
        raise ConfigError(f"--overwrite and {other} exclude each other: remove {root} first to start anew")
    if is_object(root):
        if root.exists() and not (overwrite or resume or partition is not None):
            raise StoreExistsError(f"{root}: exists; go on with it by --resume, replace it by --overwrite")
        return
    if not os.path.lexists(root):
        check_folder_of(root, "created")
        return
    is_ours = root.is_dir() and (is_store(root) or not any(root.iterdir()))
    if not is_ours:
        raise StoreExistsError(f"{root}: exists and is no arcforge store; remove it or choose another name")
    if not (overwrite or is_store(root)):
        raise StoreExistsError(f"{root}: is an empty folder; remove it or replace it by --overwrite")
    if not (overwrite or resume or partition is not None):
        raise StoreExistsError(f"{root}: exists; go on with it by --resume, replace it by --overwrite")
    if not os.access(root, os.W_OK | os.X_OK):
        raise StoreError(f"{root}: cannot be written; choose a folder that you may write")


def begin_store(root: Path, plan: Plan, hosts: HostSource, *, may_exist: bool) -> None:
    """Create the store, in an old one's place where there is one."""
    if root.exists():
        with write_lock(root):
            begin(root, plan, hosts, replace=True)
        return
    try:
        begin(root, plan, hosts)
    except StoreExistsError:
        if not may_exist:  # else: another partition was first, with the same plan or a refused one
            raise


def is_whole(root: Path, plan: Plan) -> bool:
    """Tell whether the store is complete and every file has its size."""
    try:
        store = open_store(root)
    except StoreError:
        return False
    sound = not any(size_fault(root, key, record) for key, record in store.files.items())
    return sound and all(is_done(root, plan, shard_name(shard)) for shard in range(plan.n_shards))


def make_ready(root: Path, plan: Plan, hosts: HostSource, *, alone: bool) -> None:
    """Bring a store that was begun, killed or damaged to where its missing shards can be written."""
    if alone:
        for path in temporaries(root):
            path.unlink(missing_ok=True)
    try:
        status = read_group_attributes(root)["status"]
    except StoreError:
        status = None
    if status != WRITING:  # first of all: what is being repaired must not pass for complete
        reopen(root, plan)
    if not is_done(root, plan, HOSTS):
        write_hosts(root, plan, hosts)
