"""JSON records that carry their own hash: plan, commits, manifest. A record is believed only if it holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from arcforge.engine.errors import StoreCorruptError, StoreError

_SEAL = "sha256"


def digest(record: dict[str, Any]) -> str:
    """Return the SHA-256 of a record's canonical JSON (sorted keys, no spaces, NaN refused)."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(record: dict[str, Any]) -> bytes:
    """Return a record as readable JSON with its digest as the last key."""
    return (json.dumps(record | {_SEAL: digest(record)}, indent=1, allow_nan=False) + "\n").encode()


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Read a sealed record and check it; ``remedy`` ends the message where it does not hold.

    Raises
    ------
    StoreError
        Where the file cannot be read.
    StoreCorruptError
        Where it is missing or not what was sealed.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise StoreCorruptError(f"{path}: is missing; {remedy}") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        record = json.loads(text)
        claimed = record.pop(_SEAL)
        intact = claimed == digest(record)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise StoreCorruptError(f"{path}: has changed (its own hash does not hold); {remedy}")
    assert isinstance(record, dict)
    return record
