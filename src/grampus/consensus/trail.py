"""The trail of a server: stamps that tell its folder from the same one put back to an earlier time.

A disk image or a backup that is laid over a server's folder looks sound, and has forgotten votes
and entries that others count on. So a server leaves a stamp, a number and a random value, in
DIR/trail at each start and once a minute, durable before it is told to anybody; and each server
writes down, in DIR/sightings, the newest stamp of each other.

Rules: in Welcome a server says which stamp of the other it has seen last, and up to which entry
the other has answered it. Whose trail or log does not hold that is older than what the cluster has
seen of it, and ends without another word, for good: it writes that down too, or it would outgrow
the truth by starting again and again. Nobody else may decide that: a Hello is of before it was
read, and more may have been told meanwhile on another lane. What a peer says counts only when it
has told its stamp after that look, and the stamp is written down.

What this cannot see: an image that is younger than the newest stamp that anybody alive has seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from grampus.consensus.disk import Disk
from grampus.consensus.members import NoMember
from grampus.database import StorageFailed
from grampus.errors import FolderError
from grampus.protocol import Hello, Stamp, Welcome

log = logging.getLogger("grampus.peers")

#: Seconds between two stamps, and before what could not be written is tried again.
EVERY, AGAIN = 60.0, 1.0
#: Own stamps that are kept: older ones are taken for remembered. And servers whose are kept.
KEPT, SERVERS = 2000, 64
#: To a server whose folder was put back.
OLDER = (
    "this server's folder is older than what the cluster has seen of it: it was put back to an"
    " earlier time, and may have forgotten what it has promised"
)
T = TypeVar("T")
_TRAIL, _SIGHTINGS, _PUT_BACK = "trail", "sightings", "put-back"


class Trail:
    """Made by `begin`, once in a process; `run` is its task. Everything else is for the loop."""

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        entropy: Callable[[], int],
        stamps: list[Stamp],
        seen: dict[int, Stamp],
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._entropy = entropy
        self._stamps = stamps
        self._seen = seen
        #: Told, and not written down yet.
        self._told: dict[int, Stamp] = {}
        self._wake = asyncio.Event()
        #: Who has said here what it remembers of this server, and who has told its stamp.
        self._looked: set[int] = set()
        self._met: set[int] = set()
        #: Servers whose folder is older than this one has seen it.
        self._older: set[int] = set()
        #: This folder is, or was left by its cluster: nothing may be said or heard any more.
        self.lost = False

    @classmethod
    def begin(cls, folder: Path, disk: Disk, entropy: Callable[[], int]) -> Trail:
        """A new start of the folder. Raises NoMember when it was given up before; FolderError,
        StorageFailed.

        `entropy` gives 63 random bits."""
        if (why := _given_up(folder)) is not None:
            raise NoMember(why)
        stamps = _read(folder / _TRAIL, list[Stamp], [])
        seen = _read(folder / _SIGHTINGS, dict[int, Stamp], {})
        trail = cls(folder, disk, entropy, stamps, seen)
        trail._advance()
        return trail

    @property
    def newest(self) -> Stamp:
        return self._stamps[-1]

    def _advance(self) -> None:
        number = self._stamps[-1].number + 1 if self._stamps else 1
        stamps = [*self._stamps, Stamp(number, self._entropy())][-KEPT:]
        self._write(_TRAIL, msgspec.msgpack.encode(stamps))
        self._stamps = stamps

    async def run(self, tell: Callable[[Stamp], None]) -> None:
        """Until cancelled: leaves stamps, which `tell` says to the peers; writes down theirs."""
        loop = asyncio.get_running_loop()
        due = loop.time() + EVERY
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                due = loop.time() + EVERY
                await self._leave(tell)
                continue
            self._wake.clear()
            try:
                await self.write_down()
            except StorageFailed as error:
                log.warning("what other servers told of their folders is not kept: %s", error)
                await asyncio.sleep(AGAIN)
                self._wake.set()

    async def _leave(self, tell: Callable[[Stamp], None]) -> None:
        """A disk that is full ends the server when its log has to be written, not before."""
        try:
            await self._on_a_thread(self._advance)
        except StorageFailed as error:
            log.warning("this folder gets no stamp now: %s", error)
        else:
            tell(self.newest)

    async def write_down(self) -> None:
        """What peers have told of themselves."""
        told = dict(self._told)
        before = [(id, stamp) for id, stamp in self._seen.items() if id not in told]
        seen = dict([*before, *told.items()][-SERVERS:])
        await self._on_a_thread(partial(self._write, _SIGHTINGS, msgspec.msgpack.encode(seen)))
        self._seen = seen
        self._met.update(told)
        self._told = {id: stamp for id, stamp in self._told.items() if told.get(id) != stamp}

    async def _on_a_thread(self, call: Callable[[], None]) -> None:
        """It has ended, also when this is cancelled: the next one writes the same files."""
        work = asyncio.get_running_loop().run_in_executor(None, call)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    # -- what others remember of this server

    def looked(self, id: int, welcome: Welcome, now: Hello) -> bool:
        """Whether this folder knows what that peer has seen of it; `now` is its Hello of now."""
        # In a later term another leader may have cut its log.
        forgot = now.term <= welcome.term and now.last < welcome.acknowledged
        if forgot or (welcome.seen is not None and not self._holds(welcome.seen)):
            self.give_up()
        else:
            self._looked.add(id)
        return not self.lost

    def give_up(self, why: str = OLDER) -> None:
        """This folder is a server's no more: nothing is said, now or after another start."""
        if not self.lost:
            self.lost = True
            try:
                self._write(_PUT_BACK, why.encode())
            except StorageFailed as error:
                log.error("that this folder is given up is not kept: %s", error)

    def _holds(self, stamp: Stamp) -> bool:
        first = self._stamps[0].number
        if stamp.number > self.newest.number:
            return False
        return stamp.number < first or self._stamps[stamp.number - first] == stamp

    # -- what this server remembers of others

    def seen(self, id: int) -> Stamp | None:
        return self._seen.get(id)

    def greeted(self, hello: Hello, acknowledged: int = 0) -> None:
        """It comes, and if by its stamp in a new process, what it says does not count until it has
        told that stamp."""
        seen, stamp = self._seen.get(hello.id), hello.stamp
        if stamp is None:
            return  # it only asks for something, or knows nothing of stamps
        if seen is None or stamp.number > seen.number:
            self._met.discard(hello.id)
        if hello.last < acknowledged or (
            seen is not None and stamp.number <= seen.number and stamp != seen
        ):
            self._older.add(hello.id)  # so it seems, for people, until it has told its stamp

    def disowned(self, id: int) -> None:
        """It has found that out by itself."""
        self._older.add(id)

    def told(self, id: int, stamp: Stamp) -> None:
        """By a peer that has looked at what it was told."""
        self._older.discard(id)
        if self._seen.get(id) == stamp:
            self._met.add(id)
        else:
            self._told[id] = stamp
            self._wake.set()

    def complaint(self, id: int) -> str:
        return "its folder is older than what was seen of it" if id in self._older else ""

    def hears(self, hello: Hello) -> bool:
        """Whether what that peer says counts."""
        if self.lost:
            return False
        return hello.stamp is None or (hello.id in self._looked and hello.id in self._met)

    def _write(self, name: str, data: bytes) -> None:
        """Durable when it returns."""
        aside = self._folder / (name + ".new")
        fd = self._disk.open(aside, create=True)
        try:
            self._disk.write(fd, data, 0)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        self._disk.rename(aside, self._folder / name)
        self._disk.sync_folder(self._folder)


def pardon(folder: Path, disk: Disk) -> None:
    """A folder that was given up begins a history of its own: what others have seen of it does not
    count there. Durable when it returns. Raises StorageFailed."""
    (folder / _PUT_BACK).unlink(missing_ok=True)
    disk.sync_folder(folder)


def _given_up(folder: Path) -> str | None:
    """Why, once it was."""
    try:
        return (folder / _PUT_BACK).read_text("utf-8", "replace") or OLDER
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FolderError(f"{folder / _PUT_BACK} cannot be read: {error}") from error


def _read(path: Path, kind: type[T], none: T) -> T:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return none
    except (OSError, msgspec.DecodeError) as error:
        raise FolderError(
            f"{path} cannot be used ({error}): restore the node's folder as a whole, or replace"
            " the node"
        ) from error
