"""Two processes on copies of one folder: the second stays outside while the first answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from grampus.consensus import pins as module
from grampus.consensus.pins import TWICE, Pins
from grampus.errors import GrampusError
from grampus.protocol import PROTOCOL_VERSION, Hello, Message
from grampus.rpc.calls import ConnectionLost, RequestTimedOut
from grampus.rpc.failures import RemoteError
from tests.looped import looped

AGAIN = "is asked whether it still runs"


def hello(instance: int, id: int = 2) -> Hello:
    return Hello(PROTOCOL_VERSION, "control", "server", "b", "c1", "", "h1", id, instance=instance)


class Line:
    """A connection to a process that answers as `answer` says."""

    def __init__(self, answer: GrampusError) -> None:
        self.answer = answer
        self.asked = 0
        self.reason = ""

    @property
    def closed(self) -> bool:
        return bool(self.reason)

    async def request(self, message: Message, timeout: float) -> Message:  # noqa: ASYNC109
        self.asked += 1
        await asyncio.sleep(0)
        raise self.answer

    def close(self, reason: str) -> None:
        self.reason = reason


LIVES = RemoteError("a server asks over connections of its own only")
SILENT = [RequestTimedOut("no answer"), ConnectionLost("it is over")]


@asynccontextmanager
async def watching(*lines: Line, instance: int = 1) -> AsyncIterator[Pins]:
    async with asyncio.TaskGroup() as tasks:
        pins = Pins(tasks)
        for line in lines:
            opened: Any = line
            pins.opened(opened, hello(instance))
        yield pins


async def answered(pins: Pins) -> None:
    while pins._asked:  # noqa: ASYNC110
        await asyncio.sleep(0)


@looped
async def test_the_second_one_stays_outside_while_the_first_answers() -> None:
    line = Line(LIVES)
    async with watching(line) as pins:
        assert AGAIN in pins.refuses(hello(2))
        assert AGAIN in pins.refuses(hello(2))
        await answered(pins)
        assert line.asked == 1
        assert [pins.refuses(hello(2)) for _ in range(3)] == [TWICE] * 3
        assert pins.refuses(hello(1)) == ""  # another lane of the first one
        assert pins.refuses(hello(9, id=3)) == ""
    assert not line.closed


@looped
async def test_what_was_known_of_the_first_one_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SURE", 0.0)
    line = Line(LIVES)
    async with watching(line) as pins:
        assert AGAIN in pins.refuses(hello(2))
        await answered(pins)
        line.answer = SILENT[0]
        assert AGAIN in pins.refuses(hello(2))
        await answered(pins)
        assert line.asked == 2
        assert pins.refuses(hello(2)) == ""


@pytest.mark.parametrize("silence", SILENT, ids=["says nothing", "is gone"])
@looped
async def test_a_connection_that_outlasted_its_process_makes_room(silence: GrampusError) -> None:
    """After a power loss it stands for half a minute."""
    lines = [Line(silence), Line(silence)]
    async with watching(*lines) as pins:
        assert AGAIN in pins.refuses(hello(2))
        await answered(pins)
        assert [line.closed for line in lines] == [True, True]
        assert pins.refuses(hello(2)) == ""


@looped
async def test_one_lane_that_answers_is_enough() -> None:
    lines = [Line(SILENT[0]), Line(LIVES)]
    async with watching(*lines) as pins:
        pins.refuses(hello(2))
        await answered(pins)
        assert pins.refuses(hello(2)) == TWICE


@looped
async def test_who_has_left_is_in_nobodys_way_and_forgotten() -> None:
    line: Any = Line(LIVES)
    async with watching(line) as pins:
        pins.refuses(hello(2))
        await answered(pins)
        pins.closed(line, hello(1))
        assert pins.refuses(hello(2)) == ""
        assert not pins._open
        assert not pins._lives


@looped
async def test_who_does_not_say_which_process_it_is_is_let_in() -> None:
    async with watching(Line(LIVES)) as pins:
        assert pins.refuses(hello(0)) == ""
    async with watching(Line(LIVES), instance=0) as pins:
        assert pins.refuses(hello(2)) == ""


@looped
async def test_a_server_that_ends_asks_nobody() -> None:
    line = Line(LIVES)
    async with watching(line) as pins:
        pass
    assert AGAIN in pins.refuses(hello(2))
    assert line.asked == 0
