"""Questions for the next change: answered once, by whole revisions, and never with a gap."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from grampus.cluster import feed as feed_module
from grampus.cluster.feed import Feed, Question
from grampus.cluster.queries import Piece
from grampus.cluster.reads import KeyReads
from grampus.cluster.values import KeyChange, KeysChanged
from grampus.consensus.port import Stopped
from grampus.errors import GrampusError, Overloaded
from tests.looped import looped


class Ledger:
    """What a feed asks of the reads: the newest revision."""

    def __init__(self, revision: int) -> None:
        self.newest = revision

    def revision(self) -> int:
        return self.newest


class Ground:
    def __init__(self, revision: int = 10) -> None:
        self.ledger = Ledger(revision)
        self.feed = Feed(cast(KeyReads, self.ledger))
        self.feed.start()
        self.told: list[Piece | GrampusError] = []

    def ask(self, prefix: str, after: int = 10, seconds: float = 60.0) -> Question | None:
        start = prefix.encode()
        return self.feed.ask(start, start + b"\xff", after, seconds, self.told.append)

    def change(self, revision: int, *keys: str) -> KeysChanged:
        changes = tuple(KeyChange(key.encode(), b"v", revision, 1, 0) for key in keys)
        fact = KeysChanged(revision, 0, changes)
        self.ledger.newest = revision
        self.feed.committed(revision, [fact])
        return fact


@looped
async def test_who_asks_is_told_the_next_change_once_and_together() -> None:
    ground = Ground()
    for _ in range(3):
        ground.ask("/a")
    ground.change(11, "/b")
    assert ground.told == []
    fact = ground.change(12, "/a/1")
    assert ground.told == [Piece(12, (fact,))] * 3
    assert all(told is ground.told[0] for told in ground.told), "one answer, to be encoded once"
    ground.change(13, "/a/1")
    assert len(ground.told) == 3
    assert not ground.feed.watchers


@looped
async def test_only_what_is_in_the_range_is_told() -> None:
    ground = Ground()
    ground.ask("/a")
    fact = ground.change(11, "/a", "/b")
    assert ground.told == [Piece(11, (KeysChanged(11, 0, fact.changes[:1]),))]


@looped
async def test_what_has_come_meanwhile_is_told_at_once() -> None:
    ground = Ground()
    facts = ground.change(11, "/a"), ground.change(12, "/a")
    ground.change(13, "/b")
    question = ground.ask("/a", 10)
    assert question is not None
    assert question.timer is None
    assert ground.told == [Piece(13, facts)]


@looped
async def test_what_is_not_in_memory_is_not_taken() -> None:
    ground = Ground()
    assert ground.ask("/a", 9) is None, "older than what is kept"
    assert ground.ask("/a", 11) is None, "not there yet"
    ground.feed.close()
    assert ground.ask("/a", 10) is None
    assert ground.told == []


@looped
async def test_silence_says_how_far_everything_is_told() -> None:
    ground = Ground()
    ground.ask("/a", seconds=0)
    ground.change(11, "/b")
    while not ground.told:  # noqa: ASYNC110, a timer of no length
        await asyncio.sleep(0)
    assert ground.told == [Piece(11, ())]
    assert not ground.feed.watchers


@looped
async def test_a_question_that_is_taken_back_is_not_answered() -> None:
    ground = Ground()
    question = ground.ask("/a")
    assert question is not None
    assert ground.feed.waited
    ground.feed.forget(question)
    ground.feed.forget(question)
    ground.change(11, "/a")
    assert ground.told == []
    assert not ground.feed.waited


@looped
async def test_what_is_dropped_before_it_is_told_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "RECENT_BYTES", 10)
    ground = Ground()
    ground.ask("/a")
    ground.change(11, "/a")
    assert ground.told == [Piece(10, ())], "the asker goes on behind it, by the history"


@looped
async def test_a_replaced_ledger_sends_askers_on_from_where_they_were() -> None:
    ground = Ground()
    ground.ask("/a")
    ground.ledger.newest = 20
    ground.feed.start()
    assert ground.told == [Piece(10, ())]
    assert ground.feed.revision == 20


@looped
async def test_the_end_is_told_and_more_than_most_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "MOST_WATCHERS", 1)
    ground = Ground()
    ground.ask("/a")
    ground.ask("/b")
    assert [type(told) for told in ground.told] == [Overloaded]
    ground.feed.close()
    assert [type(told) for told in ground.told] == [Overloaded, Stopped]
