"""Writes of one turn travel together, and each has its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from grampus.clock import SystemClock
from grampus.cluster.commands import Written
from grampus.cluster.refusal import Refusal
from grampus.cluster.writes import MOST, MOST_BYTES, Writes
from grampus.consensus.port import Stopped
from grampus.errors import GrampusError, NoQuorum, OutcomeUnknown, Refused, SessionUnknown
from tests.looped import looped


class Log:
    """Answers what it is told to; counts what comes together."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.answers: dict[bytes, object] = {}
        self.error: GrampusError | None = None
        self.hangs = False

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        self.calls.append(list(commands))
        if self.error is not None:
            raise self.error
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        return [self.answers.get(command, Written(len(self.calls))) for command in commands]


@asynccontextmanager
async def running(log: Log) -> AsyncIterator[tuple[Writes, list[object]]]:
    writes = Writes(log, SystemClock())  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writes.run())
        await asyncio.sleep(0)
        yield writes, []
        task.cancel()


async def some_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@looped
async def test_what_comes_in_one_turn_is_proposed_at_once_and_answered_apart() -> None:
    log = Log()
    log.answers = {b"b": Refusal("no-session", "over"), b"c": Refusal("no-space", "full")}
    async with running(log) as (writes, told):
        for command in (b"a", b"b", b"c"):
            writes.soon(command, told.append)
        await some_turns()
        assert log.calls == [[b"a", b"b", b"c"]]
        assert told[0] == Written(1)
        assert [type(each) for each in told[1:]] == [SessionUnknown, Refused]
        with pytest.raises(SessionUnknown):
            await writes.propose(b"b")


@looped
async def test_those_of_the_next_turn_do_not_wait_for_the_first() -> None:
    log = Log()
    async with running(log) as (writes, told):
        log.hangs = True
        writes.soon(b"a", told.append)
        await some_turns()
        log.hangs = False
        writes.soon(b"b", told.append)
        await some_turns()
        assert told == [Written(2)]


@looped
async def test_an_error_is_that_of_all_who_travelled() -> None:
    log = Log()
    log.error = NoQuorum("nobody")
    async with running(log) as (writes, told):
        writes.soon(b"a", told.append)
        writes.soon(b"b", told.append)
        await some_turns()
        assert told == [log.error, log.error]


@looped
async def test_too_many_or_too_large_ones_take_several_journeys() -> None:
    log = Log()
    async with running(log) as (writes, told):
        for _ in range(MOST + 1):
            writes.soon(b"a", told.append)
        await some_turns()
        assert [len(call) for call in log.calls] == [MOST, 1]
        large = b"x" * (MOST_BYTES // 2)
        for _ in range(3):
            writes.soon(large, told.append)
        await some_turns()
        assert [len(call) for call in log.calls[2:]] == [2, 1]
        assert len(told) == MOST + 4


@looped
async def test_who_waits_when_the_server_ends_is_told_what_is_known() -> None:
    log = Log()
    log.hangs = True
    async with running(log) as (writes, told):
        writes.soon(b"a", told.append)
        await some_turns()
    writes.soon(b"b", told.append)
    assert [type(each) for each in told] == [OutcomeUnknown, Stopped]
