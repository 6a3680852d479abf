"""One timer for many waits of the same length; and how quick a disk is."""

from __future__ import annotations

import asyncio

import pytest

from grampus.consensus.pace import MEMORY, Pace
from grampus.patience import Patience, hear_cancel
from tests.looped import looped


async def never() -> None:
    await asyncio.get_running_loop().create_future()


@looped
async def test_what_comes_in_time_is_the_answer() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 7

    assert await Patience(10).wait_for(answer()) == 7


@looped
async def test_whoever_waits_too_long_is_told_each_in_his_turn() -> None:
    patience = Patience(0.01)
    late = await asyncio.gather(*[patience.wait_for(never()) for _ in range(3)],
                                return_exceptions=True)  # fmt: skip
    assert [type(error) for error in late] == [TimeoutError] * 3
    with pytest.raises(TimeoutError):
        await patience.wait_for(never())


@looped
async def test_who_has_heard_a_cancel_may_wait_with_a_timeout() -> None:
    told: list[str] = []

    async def end() -> None:
        try:
            await never()
        finally:
            hear_cancel()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await never()
            told.append("in order")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(end())
        await asyncio.sleep(0)
        task.cancel()
    assert told == ["in order"]
    assert task.cancelled()


@looped
async def test_who_is_cancelled_by_others_is_cancelled() -> None:
    patience = Patience(10)
    task = asyncio.ensure_future(patience.wait_for(never()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@looped
async def test_who_is_cancelled_when_his_time_is_over_is_cancelled_all_the_same() -> None:
    patience = Patience(0.0)
    task = asyncio.ensure_future(patience.wait_for(never()))
    await asyncio.sleep(0)
    task.cancel()
    patience._look()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_disk_is_quick_when_it_was_for_a_while_and_one_slow_sync_ends_that() -> None:
    pace = Pace(0.0003)
    assert not pace.quick
    for _ in range(4 * MEMORY):
        pace.took(0.00002)
    assert pace.quick
    pace.took(0.05)
    assert not pace.quick


def test_with_no_limit_the_thread_is_always_taken() -> None:
    pace = Pace(0.0)
    for _ in range(1000):
        pace.took(0.0)
    assert not pace.quick
