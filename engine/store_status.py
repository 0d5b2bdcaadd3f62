"""What state a store is in: its attributes, its committed shards, the names of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arcforge.engine.arrays import METADATA_FILE, read_attributes
from arcforge.engine.commits import corrupt_message, is_done, shard_name
from arcforge.engine.errors import StoreCorruptError, StoreError
from arcforge.engine.plan import PLAN_FILE, Plan, check_format

SCHEMA = "arcforge.store"
WRITING, COMPLETE = "writing", "complete"
LAYERS = ("invvar", "mask", "psf", "sources")


def catalog_key(shard: int) -> str:
    """Path of a shard's part of the catalogue, relative to the store."""
    return f"catalog/part-{shard:05d}.parquet"


def corrections_key(shard: int) -> str:
    """Path of the list of pixels in which an imported stamp is not control + arc, relative to the store."""
    return f"corrections/part-{shard:05d}.parquet"


def read_group_attributes(root: Path) -> dict[str, Any]:
    """Read the attributes of a store, refusing what is none."""
    try:
        text = (root / METADATA_FILE).read_bytes()
    except FileNotFoundError:
        what = "holds no store (no zarr.json in it)" if root.is_dir() else "no such store"
        raise StoreError(f"{root}: {what}; give the folder NAME.zarr that 'arcforge inject' wrote") from None
    except NotADirectoryError:
        raise StoreError(
            f"{root}: is a file, a store is a folder; other forms are taken in by 'arcforge import' first"
        ) from None
    except OSError as error:
        raise StoreError(f"{root}: cannot be read ({error.strerror or error})") from error
    attrs = read_attributes(text)
    if attrs is None:
        raise StoreCorruptError(
            corrupt_message(root, METADATA_FILE, "is not the metadata of a zarr v3 group")
        )
    if attrs.get("schema") != SCHEMA or attrs.get("status") not in (WRITING, COMPLETE):
        if (root / PLAN_FILE).exists():
            raise StoreCorruptError(corrupt_message(root, METADATA_FILE, "has changed (schema or status)"))
        raise StoreError(
            f"{root}: is a zarr group, but no arcforge store; give a folder that 'arcforge inject' wrote"
        )
    check_format(root, attrs.get("format_version"))
    return attrs


def is_store(root: Path) -> bool:
    """Tell whether a folder is a store, be it damaged or incomplete."""
    if (root / PLAN_FILE).is_file():
        return True
    try:
        read_group_attributes(root)
    except StoreError:
        return False
    return True


def committed_shards(root: Path, plan: Plan) -> list[int]:
    """Return the shards that are committed and whose files have their sizes, in order."""
    return [shard for shard in range(plan.n_shards) if is_done(root, plan, shard_name(shard))]
