"""Many who ask whether this server still leads, and one read barrier for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from grampus.errors import NoQuorum
from grampus.master.rounds import Rounds


class Majority:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[None]] = []

    async def barrier(self) -> None:
        self.asked.append(asyncio.get_running_loop().create_future())
        await self.asked[-1]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def play(scenario: Callable[[Majority, Rounds], Coroutine[Any, Any, None]]) -> None:
    majority = Majority()
    asyncio.run(scenario(majority, Rounds(majority.barrier)))


def test_one_round_serves_all_who_asked_before_it_began_and_nobody_else() -> None:
    async def scenario(majority: Majority, rounds: Rounds) -> None:
        first = asyncio.create_task(rounds.confirm())
        await settle()
        later = [asyncio.create_task(rounds.confirm()) for _ in range(100)]
        await settle()
        assert len(majority.asked) == 1
        majority.asked[0].set_result(None)
        await settle()
        assert first.done()
        assert not any(each.done() for each in later)
        assert len(majority.asked) == 2
        majority.asked[1].set_result(None)
        await asyncio.gather(*later)
        assert len(majority.asked) == 2

    play(scenario)


def test_a_round_that_fails_has_failed_for_all_whom_it_would_have_served() -> None:
    async def scenario(majority: Majority, rounds: Rounds) -> None:
        first = asyncio.create_task(rounds.confirm())
        await settle()
        later = [asyncio.create_task(rounds.confirm()) for _ in range(3)]
        await settle()
        majority.asked[0].set_exception(NoQuorum("no majority"))
        await settle()
        majority.asked[1].set_exception(NoQuorum("no majority"))
        for each in (first, *later):
            with pytest.raises(NoQuorum):
                await each
        # The next one is a new one.
        after = asyncio.create_task(rounds.confirm())
        await settle()
        majority.asked[2].set_result(None)
        await after

    play(scenario)


def test_a_round_whose_asker_went_away_counts_for_nobody() -> None:
    async def scenario(majority: Majority, rounds: Rounds) -> None:
        first = asyncio.create_task(rounds.confirm())
        await settle()
        second = asyncio.create_task(rounds.confirm())
        first.cancel()
        await settle()
        assert not second.done()
        majority.asked[1].set_result(None)
        await second

    play(scenario)
