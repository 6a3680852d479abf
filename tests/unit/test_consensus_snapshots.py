"""Copies of the ledger between servers: when one is made, what goes to whom, what is laid down."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from grampus.consensus import snapshots
from grampus.consensus.disk import Disk
from grampus.consensus.generation import Generation
from grampus.consensus.log import DurableLog
from grampus.consensus.members import Members
from grampus.consensus.record import HardState
from grampus.consensus.snapshots import (
    AGAIN,
    KEEP,
    LEDGER,
    STUCK,
    Copy,
    Incoming,
    Installed,
    Manifest,
    SnapshotDesk,
)
from grampus.errors import GrampusError, ProtocolError, Refused
from tests.looped import looped

PROBES, WAITS = 0, 2


class Machine:
    def __init__(self) -> None:
        self.index = 10
        self.members = [1, 2]
        self.fails = False
        self.made = 0

    def snapshot(self, path: Path) -> tuple[int, int, bytes]:
        if self.fails:
            raise GrampusError("no room")
        self.made += 1
        path.write_bytes(b"ledger %d" % self.index)
        return self.index, 3, Members(conf=(self.members, [], [], [], False)).encode()


def read(path: Path) -> bytes:
    return path.read_bytes()


class Courier:
    def __init__(self) -> None:
        self.delivered: list[tuple[int, bytes, bytes]] = []
        self.fails = False
        #: Who does not answer; and what ends that.
        self.hangs: set[int] = set()
        self.answers = asyncio.Event()

    async def deliver(self, to: int, manifest: bytes, path: Path, message: bytes) -> None:
        if to in self.hangs:
            await self.answers.wait()
        if self.fails:
            raise GrampusError("the connection is lost")
        self.delivered.append((to, read(path), message))


class Ground:
    """A desk that works, and what it was told."""

    def __init__(self, folder: Path) -> None:
        self.machine, self.courier = Machine(), Courier()
        self.reports: list[tuple[int, bool]] = []
        self.desk = SnapshotDesk(
            folder, self.machine, self.courier, lambda *report: self.reports.append(report)
        )
        self.now = 0.0

    def look(self, wanted: bool = False, applied: int = 10, **states: int) -> list[int]:
        peers = {int(name[1:]): (0, 1, state, False, True, 0) for name, state in states.items()}
        return self.desk.look(wanted, peers, applied, self.now)

    async def rest(self) -> None:
        """Until the desk has done what it was asked for."""
        desk = self.desk
        await self.until(
            lambda: desk._jobs.empty() and desk._making is None and not desk._under_way
        )

    async def until(self, done: Callable[[], bool]) -> None:
        for _ in range(5_000):
            if done():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("the desk does not come so far")

    async def copy(self) -> Copy:
        self.look(wanted=True)
        await self.rest()
        copy = self.desk.fresh()
        assert copy is not None
        return copy


@looped
async def test_a_copy_is_made_once_when_it_is_wanted_and_given_to_raft_once(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "snapshots")
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ground.desk.run())
        assert ground.look() == []
        assert ground.desk.index is None
        ground.look(wanted=True, applied=8)
        ground.look(wanted=True, applied=9)
        assert ground.desk.index == 8, "what it may need is kept while it is made"
        await ground.rest()
        copy = ground.desk.fresh()
        assert copy is not None
        assert (copy.index, copy.term, copy.conf[0]) == (10, 3, [1, 2])
        assert ground.desk.fresh() is None
        assert (ground.machine.made, ground.desk.index) == (1, 10)
        run.cancel()


@looped
async def test_a_delivery_ends_with_a_report_whatever_happens(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "snapshots")
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ground.desk.run())
        await ground.copy()
        ground.desk.send(2, b"message")
        ground.desk.send(2, b"again")
        await ground.rest()
        assert ground.courier.delivered == [(2, b"ledger 10", b"message")]
        ground.courier.fails = True
        ground.desk.send(2, b"message")
        await ground.rest()
        assert ground.reports == [(2, True), (2, False)]
        run.cancel()


@looped
async def test_a_member_that_hangs_in_its_snapshot_holds_no_other_up(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "snapshots")
    ground.machine.members = [1, 2, 3]
    ground.courier.hangs = {2}
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ground.desk.run())
        await ground.copy()
        ground.desk.send(2, b"message")
        ground.desk.send(3, b"message")
        await ground.until(lambda: ground.reports == [(3, True)])
        # A later copy for others, too; and what he gets may be continued from where it ends.
        ground.machine.index = 20
        ground.look(wanted=True, applied=20, p2=WAITS)
        await ground.until(lambda: ground.machine.made == 2 and ground.desk._making is None)
        copy = ground.desk.fresh()
        assert copy is not None
        assert (copy.index, ground.desk.index) == (20, 10)
        ground.desk.send(3, b"of index 20")
        await ground.until(lambda: len(ground.reports) == 2)
        assert ground.courier.delivered[-1] == (3, b"ledger 20", b"of index 20")
        ground.courier.fails = True
        ground.courier.answers.set()
        await ground.rest()
        assert ground.reports == [(3, True), (3, True), (2, False)]
        assert ground.desk.index == 20
        run.cancel()


@looped
async def test_a_message_never_goes_with_another_copy_than_its_own(tmp_path: Path) -> None:
    """Raft still names the old one when a new one has just been made."""
    ground = Ground(tmp_path / "snapshots")
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ground.desk.run())
        await ground.copy()
        ground.machine.index = 20
        ground.look(wanted=True, applied=20)
        await ground.rest()
        ground.desk.send(2, b"of index 10")
        await ground.rest()
        assert ground.courier.delivered == []
        assert ground.reports == [(2, False)]
        assert ground.desk.fresh() is not None
        ground.desk.send(2, b"of index 20")
        await ground.rest()
        assert ground.courier.delivered == [(2, b"ledger 20", b"of index 20")]
        run.cancel()


@looped
async def test_a_newcomer_gets_a_copy_that_names_it(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "snapshots")
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ground.desk.run())
        await ground.copy()
        ground.machine.members, ground.machine.index = [1, 2, 3], 11
        ground.desk.send(3, b"message")
        await ground.rest()
        assert ground.reports == [(3, False)]
        ground.look(applied=11)
        await ground.rest()
        copy = ground.desk.fresh()
        assert copy is not None
        assert copy.conf[0] == [1, 2, 3]
        run.cancel()


@looped
async def test_a_copy_that_cannot_be_made_is_tried_again_later(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "snapshots")
    ground.machine.fails = True
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ground.desk.run())
        ground.look(wanted=True)
        await ground.rest()
        ground.machine.fails = False
        ground.look(wanted=True)
        await ground.rest()
        assert ground.machine.made == 0
        ground.now += AGAIN
        await ground.copy()
        run.cancel()


@looped
async def test_who_waits_without_a_delivery_is_given_up_and_an_unused_copy_goes(
    tmp_path: Path,
) -> None:
    ground = Ground(tmp_path / "snapshots")
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ground.desk.run())
        copy = await ground.copy()
        assert ground.look(p2=WAITS) == []
        ground.now += STUCK + 1
        assert ground.look(p2=WAITS) == [2]
        assert ground.look(p2=PROBES) == []
        ground.now += KEEP + 1
        ground.look(p2=PROBES)
        assert not copy.path.exists()
        assert ground.desk.index is None
        # Raft does not know that, and sends it again: then a new one is made.
        ground.desk.send(2, b"of the copy that is gone")
        await ground.rest()
        assert ground.reports == [(2, False)]
        ground.look(p2=PROBES)
        await ground.rest()
        assert ground.machine.made == 2
        run.cancel()


# -- the other side -----------------------------------------------------------------------------

DATA = bytes(range(256)) * 10


def manifest(data: bytes = DATA, index: int = 10) -> bytes:

    return msgspec.msgpack.encode(Manifest(index, len(data), hashlib.sha256(data).digest()))


def incoming(folder: Path) -> Incoming:
    return Incoming(folder / "incoming", Generation(folder, 0), Disk())


@looped
async def test_pieces_become_the_next_generation(tmp_path: Path) -> None:
    desk, told = incoming(tmp_path), manifest()
    assert await desk.take(told, 0, DATA[:1000], False)
    assert await desk.take(told, 1000, DATA[1000:], True)
    desk.lay_down(10, 3, told, HardState(4, 2, 10))
    now = Generation.current(tmp_path)
    assert now.number == 1
    assert (now.ledger / LEDGER).read_bytes() == DATA
    log = DurableLog.open(now.log)
    assert (log.first, log.term(10), log.hard) == (11, 3, HardState(4, 2, 10))
    log.close()
    assert not desk.folder.exists()


@looped
async def test_another_delivery_does_not_harm_what_is_whole(tmp_path: Path) -> None:
    """Raft has the message of the first, and lays it down when its turn comes."""
    desk, told = incoming(tmp_path), manifest()
    assert await desk.take(told, 0, DATA, True)
    assert await desk.take(manifest(b"other"), 0, b"oth", False)
    desk.lay_down(10, 3, told, HardState(4, 2, 10))
    assert (Generation.current(tmp_path).ledger / LEDGER).read_bytes() == DATA


@pytest.mark.parametrize("index", [10, 11])
@looped
async def test_what_is_not_here_any_more_is_asked_for_again(tmp_path: Path, index: int) -> None:
    desk = incoming(tmp_path)
    await desk.take(manifest(), 0, DATA, True)
    told = manifest()
    if index == 10:
        told = manifest(b"another")
        await desk.take(told, 0, b"another", True)
        told = manifest()
    with pytest.raises(Installed):
        desk.lay_down(index, 3, told, HardState(4, 2, index))
    assert Generation.current(tmp_path).number == 0


@looped
async def test_damage_and_disorder_are_refused(tmp_path: Path) -> None:
    desk, told = incoming(tmp_path), manifest()
    assert await desk.take(told, 0, DATA[:1000], False)
    with pytest.raises(Refused):
        await desk.take(told, 2000, DATA[2000:], True)
    with pytest.raises(Refused):
        await desk.take(manifest(b"other"), 1000, b"x", False)
    with pytest.raises(ProtocolError, match="longer"):
        await desk.take(told, 1000, DATA, True)
    assert not await desk.take(told, 1000, DATA[1000:-1] + b"?", True)
    with pytest.raises(Refused):
        await desk.take(told, len(DATA), b"", True)
    with pytest.raises(ProtocolError, match="cannot be read"):
        await desk.take(b"nonsense", 0, b"", True)
    with pytest.raises(Installed):
        desk.lay_down(10, 3, told, HardState(4, 2, 10))


def test_the_digest_is_of_the_whole_file(tmp_path: Path) -> None:

    (tmp_path / "file").write_bytes(DATA * 1000)
    assert snapshots.digest(tmp_path / "file") == hashlib.sha256(DATA * 1000).digest()
