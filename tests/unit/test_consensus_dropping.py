"""What is said between servers is dropped where it would have to wait, on both sides."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from grampus.consensus import turns
from grampus.consensus.members import Members, NoMember
from grampus.consensus.peers import SMALL, PeerLink, Peers
from grampus.consensus.pins import TWICE
from grampus.consensus.turns import Turns
from grampus.model.member import Member
from grampus.protocol import PROTOCOL_VERSION, Hello, RaftMessages
from tests.looped import looped

MEMBER = Member(2, "b", "127.0.0.1", 1, 1)


class Pipe:
    """A connection as far as it is looked at; `writable` is set by the test."""

    closed = False

    def __init__(self, *, writable: bool = True) -> None:
        self.writable = writable
        self.sent: list[RaftMessages] = []

    def send(self, message: RaftMessages) -> None:
        assert self.writable, "it would have to wait"
        self.sent.append(message)

    def flush(self) -> None:
        return

    def close(self, reason: str) -> None:
        self.closed = True


def hello(lane: str) -> Hello:
    return Hello(PROTOCOL_VERSION, lane, "server", "a", "c", "secret")


@looped
async def test_a_peer_that_does_not_read_is_told_nothing_and_nobody_waits_for_it() -> None:
    async with asyncio.TaskGroup() as tasks:
        link = PeerLink(MEMBER, hello, tasks, None, lambda error: None)
        full: Any = Pipe(writable=False)
        empty: Any = Pipe()
        assert not link.send([b"x"], False), "it is not connected"
        link.control, link.bulk = full, empty
        assert not link.send([b"x"], False)
        # What is large has a lane of its own, which is not in the way of the small ones.
        assert link.send([b"x" * SMALL, b"y"], True)
        assert [(m.messages, m.keen) for m in empty.sent] == [([b"x" * SMALL, b"y"], True)]
        link.control, link.bulk = empty, full
        assert link.send([b"x"], False)
        assert not link.send([b"x" * (SMALL + 1)], False)
        link.close()


@looped
async def test_who_is_no_peer_is_told_nothing() -> None:
    async with asyncio.TaskGroup() as tasks:
        peers = Peers(1, hello, lambda answers: [], tasks)
        assert not peers.send(2, [b"x"])
        peers.close()


@looped
async def test_who_was_sent_away_says_nothing_more_to_anybody() -> None:
    # Else whoever has not met the other process of its server would hear both.
    async with asyncio.TaskGroup() as tasks:
        peers = Peers(1, hello, lambda answers: [], tasks)
        peers.know(Members(known=(MEMBER,)))
        pipe: Any = Pipe()
        peers._links[MEMBER.id].control = pipe
        assert peers.send(MEMBER.id, [b"x"])
        peers.refused(NoMember(TWICE))
        assert not peers.send(MEMBER.id, [b"x"])
        assert len(pipe.sent) == 1
        peers.close()


class Inbox:
    """What `Turns.step` looks at."""

    def __init__(self) -> None:
        self._inbox: list[bytes] = []
        self._inbox_bytes = 0
        self._wake = asyncio.Event()
        self._told = self
        self.backlog = 0


def test_more_than_there_is_room_for_is_dropped_and_the_rest_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "INBOX", 10)
    monkeypatch.setattr(turns, "BACKLOG", 100)
    inbox: Any = Inbox()
    Turns.step(inbox, [b"12345", b"678"])
    Turns.step(inbox, [b"too much"])
    Turns.step(inbox, [b"90"])
    assert inbox._inbox == [b"12345", b"678", b"90"]
    late: Any = Inbox()
    late.backlog = 101  # committed, and not applied
    Turns.step(late, [b"1"])
    assert late._inbox == []
    late.backlog = 100
    Turns.step(late, [b"1"])
    assert late._inbox == [b"1"]
