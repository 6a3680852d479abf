"""Light batches are applied on the event loop, all others on the writer's thread, in one order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from grampus.consensus.port import Stopped
from grampus.consensus.solo import SoloLog
from grampus.consensus.writer import Limits
from grampus.errors import OutcomeUnknown


class Register:
    """Remembers what was applied and on which thread; raises at `fail`."""

    def __init__(self) -> None:
        self.applied_index = 0
        self.commands: list[bytes] = []
        self.on_loop: list[bool] = []
        self.checkpoints: list[int] = []
        #: Which were the first after a checkpoint, which takes a sync.
        self.synced: list[bool] = []
        self._fresh = True
        self._loop_thread = threading.get_ident()

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        if b"fail" in commands:
            raise KeyError("no such row")
        assert index == self.applied_index + 1
        self.applied_index = index
        self.commands += commands
        self.synced += [self._fresh] * len(commands)
        self._fresh = False
        self.on_loop += [threading.get_ident() == self._loop_thread] * len(commands)
        return list(commands), list(commands)

    def checkpoint_part(self) -> None:
        return None

    def checkpoint(self) -> int | None:
        self.checkpoints.append(self.applied_index)
        self._fresh = True
        return self.applied_index


def light(commands: Sequence[bytes]) -> bool:
    return not any(command.startswith(b"heavy") for command in commands)


def play(
    folder: Path, scenario: Callable[[SoloLog, Register], Awaitable[None]], limits: Limits
) -> Register:
    async def bounded() -> Register:
        machine = Register()
        async with asyncio.timeout(20):
            solo = await SoloLog.open(folder, machine, limits=limits, light=light)
            await scenario(solo, machine)
            await solo.close()
        return machine

    return asyncio.run(bounded())


def test_light_and_heavy_keep_their_order_and_each_runs_where_it_should(tmp_path: Path) -> None:
    names = [b"heavy%d" % i if i % 7 == 3 else b"%d" % i for i in range(300)]

    async def scenario(solo: SoloLog, machine: Register) -> None:
        told: list[object] = []
        solo.subscribe(lambda index, events: told.extend(events))
        answers = await asyncio.gather(*(solo.propose([name]) for name in names))
        assert [answer for (answer,) in answers] == names
        assert told == names

    # One command an entry: none of them shares its batch with another.
    machine = play(tmp_path, scenario, Limits(entry_commands=1, checkpoint_entries=10))
    assert machine.commands == names
    assert machine.on_loop == [
        not (synced or name.startswith(b"heavy"))
        for synced, name in zip(machine.synced, names, strict=True)
    ]
    assert sum(machine.synced) >= 30
    assert len(machine.checkpoints) >= 30
    assert machine.checkpoints[-1] == len(names)


def test_what_was_given_to_the_loop_is_applied_before_the_log_closes(tmp_path: Path) -> None:
    async def scenario(solo: SoloLog, machine: Register) -> None:
        waiting = [asyncio.ensure_future(solo.propose([b"%d" % i])) for i in range(50)]
        await asyncio.sleep(0)
        await solo.close()
        assert [await each for each in waiting] == [[b"%d" % i] for i in range(50)]

    assert play(tmp_path, scenario, Limits(entry_commands=1)).applied_index == 50


def test_a_failure_on_the_loop_stops_the_log_and_nothing_is_applied_after_it(
    tmp_path: Path,
) -> None:
    async def scenario(solo: SoloLog, machine: Register) -> None:
        names = (b"a", b"fail", b"b", b"heavy")
        waiting = [asyncio.ensure_future(solo.propose([name])) for name in names]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert found[0] == [b"a"]
        assert isinstance(found[1], OutcomeUnknown)
        assert all(isinstance(each, Stopped | OutcomeUnknown) for each in found[2:])
        assert machine.commands == [b"a"]
        with pytest.raises(Stopped, match="no such row"):
            await solo.wait_failed()

    machine = play(tmp_path, scenario, Limits(entry_commands=1))
    assert machine.commands == [b"a"]


def test_what_is_in_the_log_when_the_loop_fails_is_not_said_to_have_not_happened(
    tmp_path: Path,
) -> None:
    """`b` is durable, and its turn on the loop comes after the writer's thread has given up."""
    gate = threading.Event()

    def slow(commands: Sequence[bytes]) -> bool:
        return commands != [b"b"] or gate.wait(10)

    class Failing(Register):
        def apply(
            self, index: int, term: int, commands: Sequence[bytes]
        ) -> tuple[list[object], list[object]]:
            if b"fail" in commands:
                asyncio.get_running_loop().call_soon(see_the_writer_end)
            return super().apply(index, term, commands)

    def see_the_writer_end() -> None:
        gate.set()
        for thread in threading.enumerate():
            if thread.name == "grampus-log":
                thread.join(10)

    async def scenario() -> list[BaseException | list[object]]:
        async with asyncio.timeout(20):
            solo = await SoloLog.open(
                tmp_path, Failing(), limits=Limits(entry_commands=1), light=slow
            )
            await solo.propose([b"a"])
            waiting = [solo.propose([name]) for name in (b"fail", b"b", b"c")]
            found = await asyncio.gather(*waiting, return_exceptions=True)
            await solo.close()
        return found

    found = asyncio.run(scenario())
    assert isinstance(found[0], OutcomeUnknown)
    assert isinstance(found[1], OutcomeUnknown)
    assert isinstance(found[2], Stopped | OutcomeUnknown)
