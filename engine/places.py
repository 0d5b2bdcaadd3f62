"""Reading part of a file, wherever it lies."""

from __future__ import annotations

import os
from pathlib import Path


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Return ``length`` bytes from ``offset`` on; a negative offset counts from the end.

    Raises
    ------
    OSError
        Where the file cannot be read, or ends too early.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        if offset < 0:
            offset += os.fstat(handle).st_size
        data = os.pread(handle, length, max(0, offset))
        while len(data) < length:  # one call reads 2 GB at most
            more = os.pread(handle, length - len(data), offset + len(data))
            if not more:
                raise OSError(f"ends after {offset + len(data)} bytes, where {offset + length} are needed")
            data += more
        return data
    finally:
        os.close(handle)
