"""Where a store lies: in a folder, or under a key of an object store (``s3://bucket/key``, extra ``[s3]``).

:class:`ObjectPath` has as much of :class:`pathlib.Path` as a store's reader and writer use, so that they need
not know. An object is there as a whole or not at all, and what is put is checked by the server against its
SHA-256; there are no renames, no folders to sync, and no locks: two writers of one store do the same work
twice, and place the same bytes under the same keys.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from arcforge.engine.errors import ConfigError, StoreError

T = TypeVar("T")
_SCHEMES = ("s3",)
# Beyond the retries of the library, which gives up on a body that was cut off: 0.2 + 0.4 + ... s.
_ATTEMPTS, _PAUSE_S = 6, 0.2
# The library's, within one attempt; a body that is cut off it fetches from there on.
_RETRIES: Any = {
    "max_retries": 3,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
}
_stores: dict[str, Any] = {}


def as_place(where: str | os.PathLike[str]) -> Path:
    """Return a path, or what stands for it where ``where`` is the address of an object store."""
    if isinstance(where, ObjectPath):
        return cast(Path, where)
    text = os.fspath(where)
    scheme, colon, rest = text.partition(":/")
    if colon and scheme in _SCHEMES:  # a command line's Path has lost one of the slashes
        bucket, _, key = rest.lstrip("/").partition("/")
        if not bucket or not key.strip("/"):
            raise ConfigError(f"{text}: names no object; give s3://bucket/NAME.zarr")
        return cast(Path, ObjectPath(f"{scheme}://{bucket}", key.strip("/")))
    return Path(where)


def is_object(path: object) -> bool:
    """Tell whether a path is that of an object."""
    return isinstance(path, ObjectPath)


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Return ``length`` bytes from ``offset`` on; a negative offset counts from the end.

    Raises
    ------
    OSError
        Where the file cannot be read, or ends too early.
    """
    if isinstance(path, ObjectPath):
        return path.read_range(offset, length)
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


class ObjectPath:
    """A key below a bucket, as a path."""

    def __init__(self, bucket: str, key: str) -> None:
        self._bucket, self._key = bucket, key

    def __str__(self) -> str:
        return f"{self._bucket}/{self._key}"

    __repr__ = __str__

    def __fspath__(self) -> str:
        return str(self)

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self._bucket, str(PurePosixPath(self._key) / name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: ObjectPath) -> bool:
        return str(self) < str(other)

    @property
    def name(self) -> str:
        """The key's last part."""
        return PurePosixPath(self._key).name

    @property
    def parent(self) -> ObjectPath:
        """The key without its last part."""
        return ObjectPath(self._bucket, str(PurePosixPath(self._key).parent))

    def absolute(self) -> ObjectPath:
        """Return the path itself."""
        return self

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """Return the key below another one."""
        return PurePosixPath(self._key).relative_to(other._key)

    @cached_property
    def _store(self) -> Any:
        if self._bucket not in _stores:
            try:
                from obstore.store import from_url
            except ImportError as error:
                raise ConfigError(f"{self}: needs obstore: pip install 'arcforge[s3]'") from error
            settings: dict[str, Any] = {
                "config": {"aws_checksum_algorithm": "sha256"},
                "retry_config": _RETRIES,
            }
            _stores[self._bucket] = from_url(self._bucket, **settings)
        return _stores[self._bucket]

    def __getstate__(self) -> dict[str, Any]:
        """Connect anew in another process."""
        return {"_bucket": self._bucket, "_key": self._key}

    def _try(self, call: Callable[[], T]) -> T:
        """Call until it works, some times over; what is not there is an answer, not a failure."""
        for attempt in range(_ATTEMPTS):
            try:
                return call()
            except FileNotFoundError:
                raise
            except Exception as error:  # the library's own classes, one a way to fail
                if attempt + 1 == _ATTEMPTS:
                    reason = " ".join(str(error).split())[:300]
                    raise StoreError(f"{self}: the object store fails time after time ({reason})") from error
                time.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError("the loop returns or raises")

    def read_bytes(self) -> bytes:
        """Return the whole object."""

        def get() -> bytes:
            import obstore

            found = obstore.get(self._store, self._key)
            data = bytes(found.bytes())
            if len(data) != found.meta["size"]:
                raise OSError(f"{len(data)} bytes came of {found.meta['size']}")
            return data

        return self._try(get)

    def read_range(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on; a negative offset counts from the end."""
        if offset < 0:
            offset = max(0, self.stat().st_size + offset)

        def get() -> bytes:
            import obstore

            data = bytes(obstore.get_range(self._store, self._key, start=offset, length=length))
            if len(data) != length:
                raise OSError(f"{len(data)} bytes came of {length}")
            return data

        return self._try(get)

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """Place an object."""
        import obstore

        content = bytes(data)
        self._try(lambda: obstore.put(self._store, self._key, content, use_multipart=False))

    def create(self, data: bytes | bytearray | memoryview) -> bool:
        """Place an object where there is none; return False where there is one with another content.

        The server decides which of several writers is the first (a conditional PUT, ``If-None-Match: *``). A
        request that is repeated because its answer was lost meets its own object, which has the same content.
        Servers without such requests are told by ``AWS_CONDITIONAL_PUT=disabled``: the last writer then wins.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        content = bytes(data)

        def put() -> bool:
            try:
                obstore.put(self._store, self._key, content, use_multipart=False, mode="create")
            except AlreadyExistsError:
                return False
            except (NotSupportedError, NotImplementedError):
                self.put(content)
            return True

        return self._try(put) or self.read_bytes() == content

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object."""
        import obstore

        self._try(lambda: obstore.delete(self._store, self._key))

    def stat(self) -> Any:
        """Return an object with ``st_size``."""
        import obstore

        return SimpleNamespace(st_size=int(self._try(lambda: obstore.head(self._store, self._key))["size"]))

    def is_file(self) -> bool:
        """Tell whether there is an object of this key."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Tell whether there are objects below this key."""
        return next(self.iterdir(), None) is not None

    def exists(self) -> bool:
        """Tell whether there is anything here."""
        return self.is_dir() or self.is_file()

    def iterdir(self) -> Iterator[ObjectPath]:
        """Yield all objects below this key."""
        return self.rglob("*")

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield all objects below this key whose names fit."""
        import obstore

        def listed() -> list[str]:
            pages = obstore.list(self._store, prefix=f"{self._key}/")
            return [entry["path"] for page in pages for entry in page]

        for key in sorted(self._try(listed)):
            if PurePosixPath(key).match(pattern):
                yield ObjectPath(self._bucket, key)
