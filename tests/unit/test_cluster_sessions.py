"""The driver of the session keeper, on a server that ceases to lead without knowing it yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from grampus.clock import SystemClock
from grampus.cluster.sessions import SessionDriver
from grampus.cluster.values import SessionInfo
from grampus.errors import NotLeader
from tests.looped import looped


class Replica:
    """Leads in term 5; `in_barrier` happens while a barrier is under way."""

    def __init__(self) -> None:
        self.leader, self.term = True, 5
        self.in_barrier: Callable[[], None] = lambda: None

    async def read_barrier(self) -> None:
        self.in_barrier()
        await asyncio.sleep(0)


class Reads:
    async def sessions(self) -> tuple[int, list[SessionInfo]]:
        return 1, [SessionInfo(1, "s", 10_000, 0)]


@asynccontextmanager
async def driving(replica: Replica) -> AsyncIterator[SessionDriver]:
    fakes: list[Any] = [replica, Reads()]
    driver = SessionDriver(fakes[0], fakes[1], SystemClock())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(driver.run())
        await driver.keep_alive(1)
        yield driver
        task.cancel()


@looped
async def test_a_keep_alive_that_another_leader_has_let_pass_is_not_confirmed() -> None:
    replica = Replica()

    def deposed() -> None:
        replica.leader, replica.term = False, 6

    async with driving(replica) as driver:
        replica.in_barrier = deposed  # the barrier passes all the same: the new leader was asked
        with pytest.raises(NotLeader):
            await driver.keep_alive(1)


@looped
async def test_nor_one_that_comes_between_two_times_in_the_lead() -> None:
    replica = Replica()

    def leads_again() -> None:
        replica.term = 7
        replica.in_barrier = lambda: None

    async with driving(replica) as driver:
        replica.in_barrier = leads_again
        with pytest.raises(NotLeader):
            await driver.keep_alive(1)
        await driver.keep_alive(1)
