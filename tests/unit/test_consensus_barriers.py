"""Who is told that a read is safe, and by which round."""

from __future__ import annotations

import asyncio

import pytest

from grampus.consensus.barriers import ROUNDS, Barriers
from grampus.consensus.port import Stopped
from grampus.errors import NotLeader
from tests.looped import looped


class Raft:
    """Notes the rounds that are begun."""

    def __init__(self) -> None:
        self.rounds: list[bytes] = []
        self.ready = True

    def read_index(self, context: bytes) -> bool:
        if self.ready:
            self.rounds.append(context)
        return self.ready


@looped
async def test_a_round_answers_those_who_asked_before_it_began() -> None:
    barriers, raft = Barriers(), Raft()
    early = [barriers.ask(), barriers.ask()]
    barriers.begin(raft.read_index)
    late = barriers.ask()
    barriers.begin(raft.read_index)
    assert len(set(raft.rounds)) == 2
    barriers.confirmed(7, raft.rounds[0])
    assert [future.result() for future in early] == [7, 7]
    assert not late.done()
    barriers.confirmed(9, raft.rounds[1])
    assert late.result() == 9


@looped
async def test_nobody_is_answered_before_a_round_can_begin() -> None:
    barriers, raft = Barriers(), Raft()
    raft.ready = False
    future = barriers.ask()
    barriers.begin(raft.read_index)
    assert not future.done()
    raft.ready = True
    barriers.begin(raft.read_index)
    barriers.confirmed(1, raft.rounds[0])
    assert future.result() == 1


@looped
async def test_an_answer_to_no_round_is_nobodys() -> None:
    barriers, raft = Barriers(), Raft()
    future = barriers.ask()
    barriers.begin(raft.read_index)
    barriers.confirmed(5, b"of an earlier life")
    assert not future.done()


@looped
async def test_rounds_are_bounded_and_lost_ones_make_room() -> None:
    barriers, raft = Barriers(), Raft()
    asked = []
    for _ in range(ROUNDS + 1):
        asked.append(barriers.ask())
        barriers.begin(raft.read_index)
    assert len(raft.rounds) == ROUNDS
    asked[0].cancel()  # it asks again elsewhere
    barriers.lost()
    barriers.begin(raft.read_index)
    assert len(raft.rounds) == ROUNDS + 1


@looped
async def test_a_deposed_leader_confirms_nothing() -> None:
    barriers, raft = Barriers(), Raft()
    under_way = barriers.ask()
    barriers.begin(raft.read_index)
    waiting = barriers.ask()
    barriers.give_up(NotLeader("another leads"))
    barriers.confirmed(5, raft.rounds[0])
    for future in (under_way, waiting):
        assert isinstance(future.exception(), NotLeader)


@looped
async def test_until_waits_for_what_is_applied() -> None:
    barriers = Barriers()
    barriers.applied(3)
    await barriers.until(3)
    waiting = [asyncio.get_running_loop().create_task(barriers.until(index)) for index in (5, 4)]
    await asyncio.sleep(0)
    barriers.applied(4)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [False, True]
    barriers.applied(5)
    await waiting[0]


@looped
async def test_who_waits_no_longer_leaves_nothing_behind() -> None:
    barriers = Barriers()
    task = asyncio.get_running_loop().create_task(barriers.until(5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert barriers._until == []


@looped
async def test_the_end_is_told_to_all() -> None:
    barriers, raft = Barriers(), Raft()
    future = barriers.ask()
    barriers.begin(raft.read_index)
    task = asyncio.get_running_loop().create_task(barriers.until(5))
    await asyncio.sleep(0)
    barriers.stop(Stopped("it stops"))
    assert isinstance(future.exception(), Stopped)
    with pytest.raises(Stopped):
        await task
