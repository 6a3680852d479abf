"""The few calls that change files of the log, in one place: tests record them and break them.

Rule: none of them makes anything durable but `sync` (of a file) and `sync_folder` (of its names).
Every failure is `StorageFailed`.
"""

from __future__ import annotations

import os
from pathlib import Path

from grampus.database import StorageFailed
from grampus.database.failure import storage_failed


class Disk:
    """The disk of this machine."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """A descriptor for reading and writing; `create` makes the file, or empties it."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        try:
            return os.open(path, flags, 0o600)
        except OSError as error:
            raise storage_failed("open", path, error) from error

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """All of `data`, or `StorageFailed` after a part of it."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise self._failed("write", fd, error) from error

    def truncate(self, fd: int, size: int) -> None:
        try:
            os.ftruncate(fd, size)
        except OSError as error:
            raise self._failed("cut", fd, error) from error

    def sync(self, fd: int) -> None:
        """Content and size of the file are durable."""
        try:
            os.fdatasync(fd)
        except OSError as error:
            raise self._failed("sync", fd, error) from error

    def rename(self, old: Path, new: Path) -> None:
        try:
            os.rename(old, new)
        except OSError as error:
            raise storage_failed("rename", old, error) from error

    def remove(self, path: Path) -> None:
        try:
            os.unlink(path)
        except OSError as error:
            raise storage_failed("remove", path, error) from error

    def sync_folder(self, path: Path) -> None:
        """Names made, changed and removed in the folder are durable."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise storage_failed("sync", path, error) from error

    def _failed(self, doing: str, fd: int, error: OSError) -> StorageFailed:
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            path = f"file {fd}"
        return storage_failed(doing, path, error)
