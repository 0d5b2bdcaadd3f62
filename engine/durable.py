"""Files that are there as a whole or not at all, whatever kills the process; and who may write them.

zarr's own folder store does not fsync and leaves torn files behind a kill, so a store's bytes are placed
here: a temporary file beside its destination, fsync, rename, fsync of the folder. A rename within one folder
is atomic on every file system that matters here; the two fsyncs put it in order after a power cut too.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

from arcforge.engine.errors import StoreError
from arcforge.engine.places import ObjectPath

TEMPORARY_SUFFIX = ".tmp"
LOCK_FOLDER = "locks"

# From this size on, what is written goes past the system's page cache: a run would fill it with shards that
# nobody is about to read, and copying them there takes six times the processor time of the write itself.
_LARGE_BYTES = 1 << 20
# What such writes are aligned to, in memory and in the file.
BLOCK_BYTES = 4096

_count = itertools.count()


def reached(point: str) -> None:
    """Mark a point of the write protocol. It does nothing: crash tests put a kill in its place."""


def place(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write ``data`` to ``path`` so that the file is either absent (or as before) or whole and on the disk.

    Raises
    ------
    StoreError
        Where the file cannot be written; a full disk is named as such.
    """
    if isinstance(path, ObjectPath):
        path.put(data)
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{next(_count)}{TEMPORARY_SUFFIX}")
    try:
        make_folder(path.parent)
        with open(temporary, "xb", buffering=0) as file:
            reached("opened")
            _write(file.fileno(), memoryview(data))
            reached("written")
            _sync(file.fileno())
            if len(data) >= _LARGE_BYTES:
                _forget(file.fileno())
        reached("synced")
        os.replace(temporary, path)
        reached("renamed")
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # a parent that is a file fails here too; the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise _cannot_write(path, len(data), error) from error


def place_first(path: Path, data: bytes | bytearray | memoryview) -> bool:
    """Write ``data`` to ``path`` as the first to do so; return False where another content is there.

    Objects only, which know no locks; a file is placed as ever, its writer holds the store's lock.
    """
    if isinstance(path, ObjectPath):
        return path.create(data)
    place(path, data)
    return True


def check_place(path: Path) -> None:
    """Refuse a place where nothing can be written, before the work whose result is to stand there.

    Raises
    ------
    StoreError
        Where ``path`` is a folder, or nothing can be created beside it.
    """
    if isinstance(path, ObjectPath):
        return
    if path.is_dir():
        raise StoreError(f"{path}: is a folder; give the name of a file")
    check_folder_of(path, "written")


def check_folder_of(path: Path, done: str) -> None:
    """Refuse a local path, StoreError, where nothing can be created in the nearest folder that there is."""
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise StoreError(f"{path}: cannot be {done} in {folder}; choose a folder that you may write")


@contextmanager
def place_large(path: Path) -> Iterator[Path]:
    """Give a temporary path to write a large file to; when the body ends, the file takes its place, durably.

    Raises
    ------
    StoreError
        Where the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{next(_count)}{TEMPORARY_SUFFIX}")
    try:
        make_folder(path.absolute().parent)
        yield temporary
        sync_file(temporary)
        os.replace(temporary, path)
        sync_folder(path.absolute().parent)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise _cannot_write(path, None, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Put a file's content on the disk."""
    with open(path, "rb") as file:
        _sync(file.fileno())


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each entry on the disk before the next."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries (names, renames) on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(handle: int, data: memoryview) -> None:
    """Write all of ``data``: whole blocks of what is large past the page cache, where the system can."""
    if len(data) >= _LARGE_BYTES:
        data = data[_write_directly(handle, data[: len(data) // BLOCK_BYTES * BLOCK_BYTES]) :]
    while data:
        data = data[os.write(handle, data) :]


def _write_directly(handle: int, data: memoryview) -> int:
    """Write whole blocks without the page cache; return how many bytes were: 0 where that is not possible."""
    direct, done = getattr(os, "O_DIRECT", 0), 0
    if not direct:  # macOS
        return 0
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags | direct)
        while done < len(data):
            done += os.write(handle, data[done:])
    except OSError as error:
        # memory that is not aligned to blocks, or a file system that knows no such writes; also after a write
        # that a full disk cut short, whose error comes again
        if error.errno != errno.EINVAL:
            raise
    finally:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags)
    return done


def _sync(handle: int) -> None:
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
    if full_sync is None:
        os.fsync(handle)
    else:
        fcntl.fcntl(handle, full_sync)


def _forget(handle: int) -> None:
    """Tell the system that a file's content, which is on the disk, need not be kept in memory."""
    advise = getattr(os, "posix_fadvise", None)  # not on macOS
    if advise is not None:
        with suppress(OSError):  # advice only
            advise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _cannot_write(path: Path, n_bytes: int | None, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        size = "" if n_bytes is None else f" for {n_bytes:,} bytes"
        return StoreError(
            f"{path}: no space left{size}; what is committed stays: free space and go on with --resume"
        )
    return StoreError(
        f"{path}: cannot be written ({error.strerror or error}); choose a folder that you may write"
    )


def place_folder(destination: Path, fill: Callable[[Path], None], *, replace: bool = False) -> None:
    """Create a folder with its content in one step: filled under a temporary name beside it, then renamed.

    Parameters
    ----------
    destination
        The folder; its parent is created where it is missing.
    fill
        Called with the temporary folder; writes everything through :func:`place`.
    replace
        Take an existing folder's place (it is removed after the new one stands).

    Raises
    ------
    StoreError
        Where the parent cannot be written.
    FileExistsError
        Where the destination came into being meanwhile and ``replace`` is False.
    """
    if isinstance(destination, ObjectPath):
        _fill_objects(destination, fill, replace=replace)
        return
    mark = f".{destination.name}.{socket.gethostname()}.{os.getpid()}"
    temporary = destination.parent / f"{mark}.new{TEMPORARY_SUFFIX}"
    retired = destination.parent / f"{mark}.old{TEMPORARY_SUFFIX}"
    try:
        make_folder(destination.parent)
        _remove_dead_siblings(destination)
        temporary.mkdir()
    except OSError as error:
        raise StoreError(
            f"{destination}: cannot be created ({error.strerror or error}); choose a folder that you may "
            "write"
        ) from error
    try:
        fill(temporary)
        reached("filled")
        if replace and destination.exists():
            os.rename(destination, retired)
            reached("retired")
        elif destination.exists():  # a rename would take the place of an empty folder, or of a file
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
        os.rename(temporary, destination)
        sync_folder(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def _fill_objects(destination: ObjectPath, fill: Callable[[Path], None], *, replace: bool) -> None:
    """Fill a key's place. What is written last makes it count; nothing is renamed in an object store."""
    if replace:
        for each in destination.iterdir():
            each.unlink()
    elif destination.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    fill(cast(Path, destination))


def _remove_dead_siblings(destination: Path) -> None:
    """Remove what killed processes of this machine left of the same folder."""
    for folder in destination.parent.glob(f".{destination.name}.{socket.gethostname()}.*{TEMPORARY_SUFFIX}"):
        pid = folder.name.removesuffix(TEMPORARY_SUFFIX).split(".")[-2]
        if pid.isdecimal() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def temporaries(folder: Path) -> list[Path]:
    """List the temporary files below a folder: what a killed writer left."""
    if isinstance(folder, ObjectPath):
        return []
    return sorted(path for path in folder.rglob(f"*{TEMPORARY_SUFFIX}") if path.is_file())


@contextmanager
def write_lock(root: Path, partition: tuple[int, int] | None = None) -> Iterator[None]:
    """Hold the right to write a store, or one partition ``(i, n)`` of it, while the body runs.

    A whole-store writer excludes everybody. Writers of different partitions of the same division run side by
    side. The locks belong to the process and go with it, so that none outlives a kill.

    Raises
    ------
    StoreError
        Where another process holds it.
    """
    if isinstance(root, ObjectPath):  # which knows no locks
        yield
        return
    folder = root / LOCK_FOLDER
    make_folder(folder)
    with ExitStack() as held:
        handle = held.enter_context(_lock(folder / "store", root, shared=partition is not None))
        if partition is None:
            held.callback(_remove_own_locks, root, handle)
        else:
            i, n = partition
            for other in folder.glob("*-of-*"):
                if not other.name.endswith(f"-of-{n}"):
                    with _lock(other, root):  # held: somebody writes by another division
                        other.unlink()
            held.enter_context(_lock(folder / f"{i}-of-{n}", root))
        yield


def remove_locks(root: Path) -> None:
    """Remove the lock files, so that a finished store holds data only. Call it under the whole-store lock."""
    if not isinstance(root, ObjectPath):
        shutil.rmtree(root / LOCK_FOLDER, ignore_errors=True)


def _remove_own_locks(root: Path, handle: int) -> None:
    """Remove the lock files unless they are those of a store that has taken this one's place since."""
    if _same_file(handle, root / LOCK_FOLDER / "store"):
        remove_locks(root)


@contextmanager
def _lock(path: Path, root: Path, *, shared: bool = False) -> Iterator[int]:
    while True:
        make_folder(path.parent)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the folder went with its last holder, just now
            continue
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise StoreError(
                f"{root}: another process is writing {_what(path)}; wait until it has ended, "
                "then go on with --resume"
            ) from None
        except OSError as error:
            # Some cluster file systems have no locks. Two writers then do the same work twice, and place the
            # same bytes under the same names: waste, not damage.
            warnings.warn(
                f"{root}: this file system has no locks ({error.strerror}): start each writer once",
                RuntimeWarning,
                stacklevel=2,
            )
        if _same_file(handle, path):  # not one that its last holder removed in the meantime
            break
        os.close(handle)
    try:
        yield handle
    finally:
        os.close(handle)


def _what(path: Path) -> str:
    return "it" if path.name == "store" else f"partition {path.name.replace('-of-', '/')}"


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
