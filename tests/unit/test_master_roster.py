"""Workers that are connected and say nothing, or what is not for them to say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from grampus.errors import NoQuorum, ProtocolError, Refused
from grampus.master import roster as module
from grampus.master.core.events import Happening, WorkerConnected, WorkerGone
from grampus.master.roster import MUTE, Roster
from grampus.model.run import AttemptState
from grampus.protocol import (
    AskPresence,
    ClusterAsk,
    Goodbye,
    Hello,
    Load,
    Message,
    Ping,
    Pong,
    Propose,
    PutSnapshot,
    RaftMessages,
    ReadIndex,
    ReadLog,
    Register,
    Registered,
    Report,
    Reports,
    Stamp,
    Stamped,
)


class Clock:
    def __init__(self) -> None:
        self.at = 0

    def now(self) -> int:
        return self.at

    def ticks(self) -> int:
        return self.at


class Line:
    """A control connection."""

    def __init__(self, name: str) -> None:
        self.greeting = Hello(1, "control", "worker", name, "", "")
        self.reason = ""

    def close(self, reason: str) -> None:
        self.reason = reason


class Office:
    is_open = True

    def __init__(self) -> None:
        self.events: list[Happening] = []
        #: What a majority says.
        self.sure = True

    async def opens(self) -> bool:
        return True

    async def confirmed(self) -> bool:
        await asyncio.sleep(0)
        return self.sure

    def happened(self, events: Iterable[Happening]) -> None:
        self.events.extend(events)


class Proposer:
    async def propose(self, *commands: Any) -> list[object]:
        return [7 if command.name == "w1" else 8 for command in commands]


def a_roster(clock: Clock) -> tuple[Roster, Office, list[Any]]:
    proposer: Any = Proposer()
    nobody: Any = None
    roster = Roster("n1", "c", lambda hello: True, proposer, nobody, nobody, clock)
    office = roster.office = Office()
    return roster, office, [Line("w1"), Line("w2")]


async def register(roster: Roster, line: Any, leased: bool = False) -> None:
    name = line.greeting.node
    answer = await roster.request(
        line, Register(name, "i", "m", "b", "default", 1, 1, "cgroup", True, leased=leased)
    )
    assert isinstance(answer, Registered)


async def look(clock: Clock, ms: int) -> None:
    """So much time passes, in steps that no server is blamed for."""
    for _ in range(ms // 500):
        clock.at += 500
        for _ in range(5):
            await asyncio.sleep(0)


def test_a_worker_that_says_nothing_is_taken_for_gone_and_one_that_does_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOK", 0)

    async def scenario() -> None:
        clock = Clock()
        roster, office, (mute, alive) = a_roster(clock)
        await register(roster, mute)
        await register(roster, alive)
        watching = asyncio.create_task(roster.watch())
        await asyncio.sleep(0)
        await look(clock, MUTE - 1000)
        assert await roster.request(alive, Ping(8)) == Pong()
        await look(clock, 2000)
        assert "nothing was heard" in mute.reason
        gone = WorkerGone(7, clock.at - 500)
        assert office.events == [WorkerConnected(7), WorkerConnected(8), gone]
        roster.messages(alive, [Load(8, 1, 1)])
        await look(clock, MUTE - 1000)
        assert alive.reason == ""
        # Its connection ends for good a moment later: that is told once.
        roster.closed(mute, "closed by the other side")
        assert office.events.count(gone) == 1
        watching.cancel()

    asyncio.run(scenario())


def test_a_server_that_stood_still_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0)

    async def scenario() -> None:
        clock = Clock()
        roster, _, (line, _) = a_roster(clock)
        await register(roster, line)
        watching = asyncio.create_task(roster.watch())
        await asyncio.sleep(0)
        clock.at += 60_000
        for _ in range(5):
            await asyncio.sleep(0)
        assert line.reason == ""
        await look(clock, MUTE + 1000)
        assert "nothing was heard" in line.reason
        watching.cancel()

    asyncio.run(scenario())


def test_of_a_worker_with_leases_only_a_confirmed_keep_alive_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOK", 0)

    async def scenario() -> None:
        clock = Clock()
        roster, office, (line, _) = a_roster(clock)
        await register(roster, line, leased=True)
        watching = asyncio.create_task(roster.watch())
        await asyncio.sleep(0)
        await look(clock, 2000)
        assert await roster.request(line, Ping(7)) == Pong()
        heard = clock.at
        office.sure = False
        while not line.reason:
            await look(clock, 500)
            # Neither of these says that this server may count on the worker.
            roster.messages(line, [Load(7, 1, 1)])
            if not line.reason:
                with pytest.raises(NoQuorum):
                    await roster.request(line, Ping(7))
        assert clock.at - heard == MUTE + 500
        assert office.events[-1] == WorkerGone(7, heard)
        watching.cancel()

    asyncio.run(scenario())


def test_a_worker_that_was_given_up_while_its_keep_alive_was_confirmed_is_not_told_so() -> None:
    async def scenario() -> None:
        clock = Clock()
        roster, office, (line, _) = a_roster(clock)
        await register(roster, line, leased=True)
        clock.at = 5000
        asking = asyncio.create_task(roster.request(line, Ping(7)))
        await asyncio.sleep(0)
        roster.closed(line, "lost")
        with pytest.raises(Refused, match="register first"):
            await asking
        assert office.events[-1] == WorkerGone(7, 0)

    asyncio.run(scenario())


def test_only_who_has_registered_is_kept() -> None:
    async def scenario() -> None:
        roster, _, (line, _) = a_roster(Clock())
        with pytest.raises(Refused):
            await roster.request(line, Ping(7))

    asyncio.run(scenario())


def test_nothing_is_kept_of_who_has_left() -> None:
    async def scenario() -> None:
        roster, _, lines = a_roster(Clock())
        for line in lines:
            await register(roster, line)
        roster.closed(lines[0], "it has left")
        assert list(roster._names.values()) == ["w2"]
        roster._control.clear()  # those lines cannot be spoken to
        roster.dismiss("this server leads no more")
        kept = (roster._names, roster._sessions, roster._heard, roster._loads, roster._containments)
        assert not any(kept)

    asyncio.run(scenario())


def test_a_worker_reports_the_attempts_of_its_own_session_only() -> None:
    async def scenario() -> None:
        roster, _, (one, other) = a_roster(Clock())
        taken: list[tuple[Report, int]] = []
        roster._intake = Intake(taken)  # type: ignore[assignment]
        await register(roster, one)
        await register(roster, other)
        mine, foreign = (Report(session, 1, AttemptState.SUCCEEDED, 5) for session in (8, 7))
        roster.messages(other, [Reports([mine])])
        with pytest.raises(ProtocolError, match="another session"):
            roster.messages(other, [Reports([mine, foreign])])
        with pytest.raises(ProtocolError, match="another session"):
            roster.messages(Line("w3"), [mine])  # type: ignore[arg-type]
        assert taken == [(mine, 0)]

    asyncio.run(scenario())


BETWEEN_SERVERS: list[Message] = [
    Propose([b"command"]), ReadIndex(), PutSnapshot(b"", 0, b"", True, b""),
    ClusterAsk("remove", "s1"), ReadLog(7, 1, "r", "t", 1, "stdout", 0, 1), AskPresence(),
]  # fmt: skip


@pytest.mark.parametrize("asked", BETWEEN_SERVERS, ids=lambda asked: type(asked).__name__)
def test_a_worker_asks_for_nothing_that_servers_ask_of_each_other(asked: Message) -> None:
    async def scenario() -> None:
        roster, office, (one, _) = a_roster(Clock())
        await register(roster, one)
        with pytest.raises(ProtocolError, match="is no request to a server"):
            await roster.request(one, asked)
        for said in (RaftMessages([b"vote"]), Stamped(Stamp(1, 1)), Goodbye("removed")):
            with pytest.raises(ProtocolError, match="is not for a server"):
                roster.messages(one, [said])
        assert office.events == [WorkerConnected(7)]

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["w2", "s1", ""])
def test_a_worker_registers_under_the_name_of_its_hello_only(name: str) -> None:
    async def scenario() -> None:
        roster, office, (one, _) = a_roster(Clock())
        with pytest.raises(Refused, match="under the name of its Hello"):
            await roster.request(
                one, Register(name, "i", "m", "b", "default", 1, 1, "cgroup", True)
            )
        assert not office.events

    asyncio.run(scenario())


class Intake:
    def __init__(self, taken: list[tuple[Report, int]]) -> None:
        self._taken = taken

    def put(self, connection: object, reports: list[tuple[Report, int]]) -> None:
        self._taken.extend(reports)
