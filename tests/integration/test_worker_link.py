"""A worker's connections and three servers of which one leads, over loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from grampus.blobs import Blobs
from grampus.clock import SystemClock
from grampus.errors import ServerUnreachable
from grampus.master.blob_desk import BlobDesk
from grampus.master.core.events import Happening, WorkerConnected, WorkerGone
from grampus.master.intake import Intake
from grampus.master.roster import Alone, Roster
from grampus.protocol import HELLO_FRAME, HasBlob, Message, Register
from grampus.rpc.codec import Codec
from grampus.rpc.server import Server
from grampus.worker.link import ANSWERS, HELD, PING_EVERY, Link

SESSION = 7


class Clock:
    def now(self) -> int:
        return 1

    def ticks(self) -> int:
        return 1


class Proposer:
    async def propose(self, *commands: Any) -> list[object]:
        return [SESSION for _ in commands]


class Door:
    """The office of one of the servers. All of them know who leads."""

    def __init__(self, town: Town, number: int) -> None:
        self._town = town
        self._number = number
        self.events: list[Happening] = []

    @property
    def is_open(self) -> bool:
        return self._town.leader == self._number

    async def opens(self) -> bool:
        return self.is_open

    async def confirmed(self) -> bool:
        return self.is_open and self._town.majority

    def happened(self, events: Any) -> None:
        self.events.extend(events)


class Map:
    """What all servers know of each other."""

    def __init__(self, town: Town) -> None:
        self._town = town

    def leader(self) -> str:
        town = self._town
        if town.nonsense or town.leader is None or not town.hints:
            return town.nonsense
        return f"127.0.0.1:{town.ports[town.leader]}"

    def servers(self) -> tuple[str, ...]:
        return tuple(f"127.0.0.1:{port}" for port in self._town.ports)


class Town:
    """Three servers, and one worker's link to some of them."""

    def __init__(self, blobs: Blobs, tasks: asyncio.TaskGroup) -> None:
        self.blobs = blobs
        self.tasks = tasks
        self.leader: int | None = None
        self.hints = True
        self.ports: list[int] = []
        self.doors: list[Door] = []
        self.rosters: list[Roster] = []
        self.servers: list[Server[Message]] = []
        self.registered = asyncio.Event()
        #: Of what was confirmed, in ticks.
        self.sent: list[int] = []
        self.loops: list[asyncio.Task[None]] = []
        #: Whether there is one to confirm who leads.
        self.majority = True
        #: What the servers say in the place of the leader's address.
        self.nonsense = ""

    async def build(self) -> None:
        for number in range(3):
            proposer: Any = Proposer()
            roster = Roster(
                f"s{number}", "town", lambda hello: hello.credential == "secret", proposer,
                Intake(proposer, Clock()), BlobDesk(self.blobs), Clock(), Map(self),
            )  # fmt: skip
            door = roster.office = Door(self, number)
            self.doors.append(door)
            self.rosters.append(roster)
            self.servers.append(self._server(roster))
            await self.servers[-1].start("127.0.0.1", 0)
            self.ports.append(self.servers[-1].port)

    def _server(self, roster: Roster) -> Server[Message]:
        return Server(
            Codec(Message), roster, roster.greet, self.tasks,
            opened=roster.opened, hello_limit=HELLO_FRAME,
        )  # fmt: skip

    def link(self, *servers: int, leased: bool = False) -> Link:
        addresses = [("127.0.0.1", self.ports[number]) for number in servers]
        link = Link(
            addresses, "w1", "", "secret", self._register, self, self.tasks,
            ticks=SystemClock().ticks, leased=leased,
        )  # fmt: skip
        self.loops += [
            self.tasks.create_task(link.keep_control()),
            self.tasks.create_task(link.keep_bulk()),
        ]
        return link

    def _register(self) -> Register:
        return Register("w1", "i", "m", "b", "default", 1, 1, "group", True)

    def elect(self, leader: int | None) -> None:
        before, self.leader = self.leader, leader
        if before is not None:
            self.registered.clear()
            self.rosters[before].dismiss("this server leads no more")

    async def settled(self, leader: int) -> float:
        """Seconds until the worker is registered there, and its bulk lane has followed."""
        begun = time.monotonic()
        async with asyncio.timeout(10):
            await self.registered.wait()
            taken = time.monotonic() - begun
            assert WorkerConnected(SESSION) in self.doors[leader].events
        for _ in range(500):
            if "w1" in self.rosters[leader]._bulk:
                return taken
            await asyncio.sleep(0.01)
        raise AssertionError("the bulk lane has not followed")

    # What the link tells.

    def confirmed(self, sent: int) -> None:
        self.sent.append(sent)

    def registered_as(self, session: int) -> None:
        assert session == SESSION
        self.registered.set()

    def heard(self, batch: list[Message]) -> None:
        return

    async def asked(self, message: Message) -> Message:
        raise AssertionError(message)

    def disconnected(self) -> None:
        self.registered.clear()


def play(blobs: Blobs, scenario: Callable[[Town], Coroutine[Any, Any, None]]) -> None:
    """Ends the link's loops when the scenario is over."""

    async def all_of_it() -> None:
        async with asyncio.TaskGroup() as tasks:
            town = Town(blobs, tasks)
            await town.build()
            try:
                await scenario(town)
            finally:
                for loop in town.loops:
                    loop.cancel()
                for server in town.servers:
                    await server.close()

    asyncio.run(all_of_it())


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def test_it_finds_the_leader_by_the_word_of_another(blobs: Blobs) -> None:
    async def scenario(town: Town) -> None:
        town.elect(2)
        link = town.link(0)
        assert await town.settled(2) < 1
        # The bulk lane answers there too.
        await link.ask(HasBlob("0" * 64), 5)

    play(blobs, scenario)


@pytest.mark.parametrize("hints", [True, False])
def test_it_is_with_the_next_leader_within_a_few_hundred_ms(blobs: Blobs, hints: bool) -> None:
    async def scenario(town: Town) -> None:
        town.hints = hints
        town.elect(0)
        town.link(0, 1, 2)
        await town.settled(0)
        await asyncio.sleep(HELD)
        town.elect(None)
        await asyncio.sleep(0.7)
        town.elect(1)
        assert await town.settled(1) < 0.5
        assert town.doors[0].events == [WorkerConnected(SESSION)]

    play(blobs, scenario)


def test_it_learns_of_servers_that_nobody_told_it_at_the_start(blobs: Blobs) -> None:
    async def scenario(town: Town) -> None:
        town.elect(0)
        town.link(0)
        await town.settled(0)
        await asyncio.sleep(HELD)
        town.leader = 2
        await town.servers[0].close()
        town.registered.clear()
        assert await town.settled(2) < 0.5

    play(blobs, scenario)


def test_it_leaves_a_leader_that_is_gone_at_once(blobs: Blobs) -> None:
    async def scenario(town: Town) -> None:
        town.hints = False
        town.elect(0)
        town.link(0, 1, 2)
        await town.settled(0)
        await asyncio.sleep(HELD)
        town.leader = 2
        await town.servers[0].close()
        town.registered.clear()
        assert await town.settled(2) < 0.5
        assert WorkerGone(SESSION, 1) in town.doors[0].events

    play(blobs, scenario)


def test_it_leaves_a_leader_that_stands_still(blobs: Blobs) -> None:
    async def scenario(town: Town) -> None:
        town.elect(0)
        town.link(0, 1)
        await town.settled(0)

        async def never(connection: Any, message: Message) -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        town.rosters[0].request = never  # type: ignore[method-assign]
        town.leader = 1
        town.registered.clear()
        assert await town.settled(1) < PING_EVERY + ANSWERS + 1

    play(blobs, scenario)


def test_a_keep_alive_counts_from_when_it_was_sent_and_only_if_it_is_answered(blobs: Blobs) -> None:
    async def scenario(town: Town) -> None:
        begun = SystemClock().ticks()
        town.elect(0)
        # Also where there is no other server to go to.
        town.link(0, leased=True)
        town.rosters[0]._directory = Alone()
        await town.settled(0)
        for _ in range(1000):
            if len(town.sent) >= 3:
                break
            await asyncio.sleep(0.01)
        assert begun <= town.sent[0] < town.sent[1] < town.sent[2] <= SystemClock().ticks()
        town.majority = False
        count = len(town.sent)
        town.registered.clear()
        # Nobody confirms it: that connection is given up. To register anew is to be confirmed.
        async with asyncio.timeout(10):
            await town.registered.wait()
        assert len(town.sent) == count + 1

    play(blobs, scenario)


def test_a_hint_that_is_no_address_harms_nobody(blobs: Blobs) -> None:
    async def scenario(town: Town) -> None:
        town.nonsense = "nowhere"
        town.elect(1)
        town.link(0, 1)
        assert await town.settled(1) < 1

    play(blobs, scenario)


def test_without_a_leader_nobody_is_registered_and_questions_have_an_end(blobs: Blobs) -> None:
    async def scenario(town: Town) -> None:
        link = town.link(0, 1, 2)
        with pytest.raises(ServerUnreachable, match="no server is connected"):
            await link.ask(HasBlob("0" * 64), 0.5)
        assert not town.registered.is_set()
        assert [door.events for door in town.doors] == [[], [], []]

    play(blobs, scenario)
