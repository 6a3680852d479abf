"""The master's loop around its scheduler."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from grampus.errors import Overloaded
from grampus.master import driver
from grampus.master.core.events import Loaded
from grampus.master.driver import Master
from grampus.runs.commands import Command, TakeOffice


class BusyLog:
    """Takes nothing the first few times."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.taken: list[Command] = []

    async def propose(self, *commands: Command) -> list[object]:
        if self.refusals:
            self.refusals -= 1
            raise Overloaded("4096 commands wait for the log")
        self.taken += commands
        return [7 for _ in commands]


class Still:
    def now(self) -> int:
        return 1_000

    def ticks(self) -> int:
        return 0


class Empty:
    def everything(self) -> Loaded:
        return Loaded(0, (), (), (), ())


def test_office_is_taken_although_the_log_is_full_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "BUSY", 0)
    log: Any = BusyLog(refusals=3)
    nobody: Any = None
    nobody_is_there: Any = object()
    loading: Any = Empty()
    master = Master("n1", log, loading, nobody, Still())
    master.roster = nobody_is_there

    async def scenario() -> None:
        in_office = asyncio.Event()
        running = asyncio.create_task(master.run(in_office))
        async with asyncio.timeout(10):
            await in_office.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
    assert master.epoch == 7
    assert log.taken == [TakeOffice(1_000, "n1")]
