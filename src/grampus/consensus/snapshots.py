"""Whole ledgers on their way between servers.

On the leader: a copy is made when a member needs entries that are gone, and sent piece by piece. On
the other side: the pieces become a file, which is checked, and laid down as the next generation of
ledger and log. Rules: one copy is made at a time, and there is one delivery to each member, side by
side: who hangs holds nobody else up. A copy names the members as of its index, and goes to nobody
who is not among them; every delivery ends with a report to Raft, or Raft would wait for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from grampus.consensus.disk import Disk
from grampus.consensus.generation import Generation
from grampus.consensus.log import DurableLog
from grampus.consensus.members import Conf, Members
from grampus.consensus.record import HardState
from grampus.database.failure import storage_failed
from grampus.errors import GrampusError, ProtocolError, Refused

log = logging.getLogger(__name__)

#: Name of the ledger's file in its generation.
LEDGER = "ledger.db"
#: Bytes sent at once, and read at once for a hash.
PIECE = 1024 * 1024
#: Seconds after which a peer that waits for a snapshot is given up, if none is on its way.
STUCK = 10.0
#: Seconds until a copy that could not be made is tried again.
AGAIN = 10.0
#: A copy that nobody needs any more is kept so long, in seconds.
KEEP = 20.0
#: Raft's state of a peer that waits for a snapshot.
_WAITS = 2
_ENCODER = msgspec.msgpack.Encoder()


class Installed(GrampusError):
    """A snapshot is laid down, or was taken up by Raft and is not here any more: in either case
    the server opens ledger and log anew, and goes on from what is durable."""


class Manifest(Struct, frozen=True, array_like=True):
    """What Raft carries in place of the ledger itself."""

    index: int
    size: int
    sha256: bytes


_MANIFEST = msgspec.msgpack.Decoder(Manifest)


class Copy(Struct, frozen=True):
    """A ledger as of `index`, in a file."""

    path: Path
    index: int
    term: int
    conf: Conf
    manifest: bytes


class Copied(Protocol):
    def snapshot(self, path: Path) -> tuple[int, int, bytes]:
        """Writes a whole copy of one state to a new file: its (index, term, members)."""
        ...


class Courier(Protocol):
    async def deliver(self, to: int, manifest: bytes, path: Path, message: bytes) -> None:
        """All of the file, then Raft's message. Raises GrampusError."""
        ...


def digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class SnapshotDesk:
    """The leader's side. `run` does the work; everything else is called on the event loop."""

    def __init__(
        self,
        folder: Path,
        machine: Copied,
        courier: Courier,
        delivered: Callable[[int, bool], None],
    ) -> None:
        self._folder = folder
        self._machine = machine
        self._courier = courier
        self._delivered = delivered
        self._jobs: asyncio.Queue[tuple[int, bytes, Copy | None] | None] = asyncio.Queue()
        self._copy: Copy | None = None
        #: The one whose manifest Raft sends. Its file is gone when it is not `_copy`.
        self._given: Copy | None = None
        #: While a copy is made: it will be of this index or a later one.
        self._making: int | None = None
        #: Raft has a snapshot that cannot be delivered any more.
        self._stale = False
        #: When the copy that failed may be tried again; `look` sets it.
        self._failed = False
        self._not_before = 0.0
        #: Peers whose delivery is queued or under way, and what they get.
        self._under_way: dict[int, Copy | None] = {}
        self._waiting_since: dict[int, float] = {}
        self._unused_since = 0.0

    @property
    def index(self) -> int | None:
        """Entries after it must be kept: somebody is on the way there."""
        copies = [copy.index for copy in (self._copy, *self._under_way.values()) if copy]
        return min([*copies, *([] if self._making is None else [self._making])], default=None)

    def fresh(self) -> Copy | None:
        """A copy that Raft does not know yet, once."""
        if self._given is self._copy:
            return None
        self._given = self._copy
        return self._copy

    def look(
        self,
        wanted: bool,
        peers: Mapping[int, tuple[int, int, int, bool, bool, int]],
        applied: int,
        now: float,
    ) -> list[int]:
        """Makes a copy if one is wanted; the peers whose snapshot must be taken for lost."""
        if self._failed:
            self._failed, self._not_before = False, now + AGAIN
        wanted = wanted or self._stale
        if wanted and self._making is None and now >= self._not_before:
            self._making, self._stale = applied, False
            self._jobs.put_nowait(None)
        waiting = [id for id, peer in peers.items() if peer[2] == _WAITS]
        self._waiting_since = {id: self._waiting_since.get(id, now) for id in waiting}
        if waiting or wanted or self._making is not None:
            self._unused_since = now
        elif self._copy is not None and now - self._unused_since > KEEP:
            self._drop()
        stuck = [
            id
            for id, since in self._waiting_since.items()
            if id not in self._under_way and now - since > STUCK
        ]
        for id in stuck:
            del self._waiting_since[id]
        return stuck

    def send(self, to: int, message: bytes) -> None:
        """Raft wants this snapshot message to be delivered."""
        if to not in self._under_way:
            self._under_way[to] = self._given
            self._jobs.put_nowait((to, message, self._given))

    async def run(self) -> None:
        """Until cancelled."""
        shutil.rmtree(self._folder, ignore_errors=True)
        async with asyncio.TaskGroup() as deliveries:
            while True:
                job = await self._jobs.get()
                if job is None:
                    await self._make()
                else:
                    deliveries.create_task(self._deliver(*job))

    async def _make(self) -> None:
        try:
            copy = await asyncio.to_thread(self._make_copy)
        except GrampusError as error:
            log.error("no snapshot could be made for a server that is behind: %s", error)
            self._failed = True
        else:
            log.info("a snapshot of index %d is made", copy.index)
            self._drop(keep=copy)
            self._copy = copy
        finally:
            self._making = None

    def _make_copy(self) -> Copy:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / "making.db"
            path.unlink(missing_ok=True)
            index, term, members = self._machine.snapshot(path)
            final = self._folder / f"{index}.db"
            os.replace(path, final)
            manifest = Manifest(index, final.stat().st_size, digest(final))
        except OSError as error:
            raise storage_failed("copy the ledger to", self._folder, error) from error
        conf = Members.decode(members).conf
        return Copy(final, index, term, conf, _ENCODER.encode(manifest))

    def _drop(self, keep: Copy | None = None) -> None:
        old, self._copy = self._copy, None
        if old is not None and (keep is None or old.path != keep.path):
            old.path.unlink(missing_ok=True)

    async def _deliver(self, to: int, message: bytes, copy: Copy | None) -> None:
        ok = False
        try:
            if copy is None or copy is not self._copy:
                # Another has taken its place; Raft learns of it by the next look, if it is there.
                self._stale = self._copy is None
            elif any(to in ids for ids in copy.conf[:4]):
                await self._courier.deliver(to, copy.manifest, copy.path, message)
                ok = True
            else:
                # It names the members of before this one came.
                self._stale = True
        except (GrampusError, OSError) as error:
            log.warning("a snapshot did not reach server %d: %s", to, error)
        finally:
            self._under_way.pop(to, None)
            self._delivered(to, ok)


class Incoming:
    """The other side: pieces become a file, the file the next generation.

    A whole file stays until it is laid down, or until another one is whole."""

    def __init__(self, folder: Path, generation: Generation, disk: Disk) -> None:
        self.folder = folder
        self._generation = generation
        self._disk = disk
        self._coming, self._size = b"", 0
        #: Manifest of the file that is whole.
        self._whole = b""
        #: Pieces come one after the other; the threads that write and lay down, too.
        self._turn = asyncio.Lock()
        self._files = threading.Lock()

    def clear(self) -> None:
        """What an earlier process left there is of no use."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def take(self, manifest: bytes, offset: int, data: bytes, last: bool) -> bool:
        """One piece. True once the whole is there and is what the manifest says."""
        async with self._turn:
            return await asyncio.to_thread(self._take, manifest, offset, data, last)

    def _take(self, manifest: bytes, offset: int, data: bytes, last: bool) -> bool:
        told = _decode(manifest)
        path = self.folder / "coming.db"
        with self._files:
            if offset == 0:
                self._coming, self._size = manifest, 0
            elif manifest != self._coming or offset != self._size:
                raise Refused("this piece of a snapshot does not follow the one before")
            if self._size + len(data) > told.size:
                raise ProtocolError("a snapshot is longer than its manifest says")
            try:
                self._write(path, offset, data)
                if not last:
                    return True
                self._coming = b""
                if self._size != told.size or digest(path) != told.sha256:
                    return False
                os.replace(path, self.folder / "whole.db")
            except OSError as error:
                self._coming = b""
                raise storage_failed("write", path, error) from error
            self._whole = manifest
            return True

    def _write(self, path: Path, offset: int, data: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(path, "wb" if offset == 0 else "ab") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
        self._size += len(data)

    def lay_down(self, index: int, term: int, manifest: bytes, hard: HardState) -> None:
        """Ledger and log of a new generation, which counts from now on. Raises Installed when
        another snapshot has come since."""
        with self._files:
            if manifest != self._whole or _decode(manifest).index != index:
                raise Installed(f"the snapshot of index {index} is not here any more")
            self._whole = b""
            whole = self.folder / "whole.db"
            lay_down(self._generation.following, whole, (index, term), hard, self._disk)
            self.clear()


def lay_down(
    generation: Generation, ledger: Path, base: tuple[int, int], hard: HardState, disk: Disk
) -> None:
    """Moves the file of a ledger as of `base` into the generation, and makes that current."""
    generation.prepare()
    fd = disk.open(ledger)
    try:
        disk.sync(fd)
    finally:
        disk.close(fd)
    disk.rename(ledger, generation.ledger / LEDGER)
    DurableLog.begin(generation.log, base, hard, disk=disk)
    generation.make_current(disk)


def _decode(manifest: bytes) -> Manifest:
    try:
        return _MANIFEST.decode(manifest)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the manifest of a snapshot cannot be read: {error}") from None
