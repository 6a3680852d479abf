"""SQLite on a disk that knows what a power cut may leave: a VFS that passes every call on, keeps
the model of `consensus_crashes` beside the files, and fails when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
from consensus_crashes import File, RecordingDisk, play

NAME = "recording"


class LedgerDisk(RecordingDisk):
    def __init__(self) -> None:
        super().__init__()
        #: Changes until one fails with `failure`, and all after it; None: none does.
        self.left: int | None = None
        self.failure: Exception = apsw.FullError("disk is full")

    def change(self, name: str, kind: str, at: int, data: bytes) -> None:
        self.file(name).pending.append((kind, at, data))
        self.boundary()

    def may(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise self.failure
            self.left -= 1

    def file(self, name: str) -> File:
        if name not in self.names:
            self.names[name] = File()
            self.pending_names.append(("set", name, self.names[name]))
        return self.names[name]

    def synced(self, name: str) -> None:
        file = self.file(name)
        file.durable, file.pending = play(file.durable, file.pending), []
        # SQLite syncs the folder with the first sync of a WAL.
        if name.endswith("-wal"):
            self.durable_names, self.pending_names = self._named(len(self.pending_names)), []
        self.boundary()


class _Recorded(apsw.VFSFile):
    def __init__(self, disk: LedgerDisk, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._name = Path(name if isinstance(name, str) else name.filename()).name
        disk.file(self._name)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.may()
        super().xWrite(data, offset)
        self._disk.change(self._name, "write", offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        self._disk.may()
        super().xTruncate(size)
        self._disk.change(self._name, "cut", size, b"")

    def xSync(self, flags: int) -> None:
        self._disk.may()
        super().xSync(flags)
        self._disk.synced(self._name)


class _Vfs(apsw.VFS):
    def __init__(self, disk: LedgerDisk) -> None:
        self._disk = disk
        super().__init__(NAME, "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _Recorded(self._disk, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:
        super().xDelete(name, syncdir)
        self._disk.names.pop(Path(name).name, None)
        self._disk.pending_names.append(("remove", Path(name).name, None))


@contextmanager
def recorded(disk: LedgerDisk) -> Iterator[None]:
    """Every database that is opened meanwhile is on `disk`."""
    vfs = _Vfs(disk)
    try:
        yield
    finally:
        vfs.unregister()
