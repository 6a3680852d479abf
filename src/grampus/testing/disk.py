"""A disk that can lose what was not synced: real files, and beside them how to undo each change.

A power cut keeps, per file and per folder, a prefix of the changes that no sync made durable, the
last write of it torn at a sector. Whoever dies without a power cut loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from grampus.consensus.disk import Disk
from grampus.database import StorageFailed
from grampus.testing.world import PowerCut

SECTOR = 512


class _Write(Struct):
    offset: int
    data: bytes
    #: What was there before, and how long the file was.
    before: bytes
    size: int


class _Name(Struct):
    """A name that was made or removed: what was behind it before, None for nothing."""

    path: Path
    before: bytes | None


class SimDisk(Disk):
    """Of one machine."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._paths: dict[int, Path] = {}
        self._writes: dict[Path, list[_Write]] = {}
        self._names: dict[Path, list[_Name]] = {}
        #: Writes left until one fails as if the disk were full; None: none will.
        self.room: int | None = None
        #: A write has failed for want of room.
        self.was_full = False
        #: Changes left until the power is cut in the middle of one; None: it is not.
        self.fuse: int | None = None
        #: Told when the fuse has blown, before `PowerCut` is raised.
        self.blown: Callable[[], None] = lambda: None
        #: Syncs that are forgotten, to prove that a test notices.
        self.lies = False
        self.syncs = 0

    def need_room(self) -> None:
        """For one write. Raises StorageFailed."""
        if self.room is not None:
            self.room -= 1
            if self.room < 0:
                self.was_full = True
                raise StorageFailed("the disk is full; free some space, then start again")

    def _step(self) -> None:
        """One more change begins."""
        if self.fuse is None:
            return
        self.fuse -= 1
        if self.fuse < 0:
            self.fuse = None
            self.blown()
            raise PowerCut

    def open(self, path: Path, *, create: bool = False) -> int:
        if create:
            self._step()
        before = path.read_bytes() if create and path.exists() else None
        fd = super().open(path, create=create)
        self._paths[fd] = path
        if create:
            self._names.setdefault(path.parent, []).append(_Name(path, before))
            self._writes[path] = []
        return fd

    def close(self, fd: int) -> None:
        if self._paths.pop(fd, None) is not None:
            super().close(fd)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._step()
        self.need_room()
        size = os.fstat(fd).st_size
        before = os.pread(fd, len(data), offset)
        pending = self._writes.setdefault(self._paths[fd], [])
        pending.append(_Write(offset, bytes(data), before, size))
        super().write(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        self._step()
        old = os.fstat(fd).st_size
        before = os.pread(fd, max(0, old - size), size)
        self._writes.setdefault(self._paths[fd], []).append(_Write(size, b"", before, old))
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._step()
        self.syncs += 1
        if not self.lies:
            self._writes.pop(self._paths[fd], None)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        before = new.read_bytes() if new.exists() else None
        moved = old.read_bytes()
        super().rename(old, new)
        self._names.setdefault(old.parent, []).append(_Name(old, moved))
        self._names.setdefault(new.parent, []).append(_Name(new, before))
        self._writes[new] = self._writes.pop(old, [])
        for fd, path in self._paths.items():
            if path == old:
                self._paths[fd] = new

    def remove(self, path: Path) -> None:
        self._step()
        before = path.read_bytes()
        super().remove(path)
        self._names.setdefault(path.parent, []).append(_Name(path, before))
        self._writes.pop(path, None)

    def sync_folder(self, path: Path) -> None:
        self._step()
        if not self.lies:
            self._names.pop(path, None)

    def cut_power(self) -> int:
        """What was not durable is gone, at least in part; how many changes were undone."""
        undone = 0
        for path, writes in self._writes.items():
            undone += self._undo_writes(path, writes)
        for names in self._names.values():
            for name in reversed(names[self._rng.randint(0, len(names)) :]):
                undone += 1
                if name.before is None:
                    name.path.unlink(missing_ok=True)
                elif name.path.parent.is_dir():
                    name.path.write_bytes(name.before)
        self.forget()
        return undone

    def forget(self) -> None:
        """The process is gone and its files are as they are: all of it is durable from now on."""
        for fd in self._paths:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._writes.clear()
        self._names.clear()
        self._paths.clear()

    def _undo_writes(self, path: Path, writes: list[_Write]) -> int:
        if not path.exists():
            return 0
        kept = self._rng.randint(0, len(writes))
        with path.open("r+b") as file:
            for write in reversed(writes[kept:]):
                os.ftruncate(file.fileno(), write.size)
                os.pwrite(file.fileno(), write.before, write.offset)
            if kept < len(writes) and writes[kept].data and self._rng.random() < 0.5:
                torn = writes[kept]
                sectors = (len(torn.data) + SECTOR - 1) // SECTOR
                part = torn.data[: self._rng.randrange(sectors) * SECTOR]
                os.pwrite(file.fileno(), part, torn.offset)
        return len(writes) - kept
