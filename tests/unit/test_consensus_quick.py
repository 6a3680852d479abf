"""Where the disk is quick, light batches are written and synced on the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from grampus.consensus.log import DurableLog
from grampus.consensus.port import Stopped
from grampus.consensus.solo import SoloLog
from grampus.consensus.writer import FEW, Limits
from grampus.errors import OutcomeUnknown

#: Every disk is quick, once so many syncs have been seen.
QUICK, SEEN = 10.0, 100


class Register:
    """Remembers what was applied and on which thread; raises at `fail`."""

    def __init__(self) -> None:
        self.applied_index = 0
        self.commands: list[bytes] = []
        self.on_loop: list[bool] = []
        self.checkpoints: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._loop_thread = threading.get_ident()

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        if b"fail" in commands:
            raise KeyError("no such row")
        assert index == self.applied_index + 1
        self.applied_index = index
        self.commands += commands
        self.on_loop += [threading.get_ident() == self._loop_thread] * len(commands)
        return list(commands), list(commands)

    def checkpoint_part(self) -> None:
        return None

    def checkpoint(self) -> int | None:
        self.checkpoints.put(self.applied_index)
        return self.applied_index


def light(commands: Sequence[bytes]) -> bool:
    return not any(command.startswith(b"heavy") for command in commands)


def play(
    folder: Path,
    scenario: Callable[[SoloLog, Register], Awaitable[None]],
    limits: Limits,
    ends_well: bool = True,
) -> Register:
    async def bounded() -> Register:
        machine = Register()
        async with asyncio.timeout(20):
            solo = await SoloLog.open(folder, machine, limits=limits, light=light)
            for number in range(SEEN):
                await solo.propose([b"before%d" % number])
            del machine.commands[:], machine.on_loop[:]
            await scenario(solo, machine)
            if ends_well:
                await solo.close()
        return machine

    return asyncio.run(bounded())


def written(folder: Path) -> list[bytes]:
    """The commands of the log, after those that came before the scenario."""
    log = DurableLog.open(folder)
    entries = [msgspec.msgpack.decode(e.payload, type=list[bytes]) for e in log.entries(log.first)]
    log.abandon()
    return [command for entry in entries for command in entry][SEEN:]


def test_one_after_the_other_all_are_durable_before_they_are_answered(tmp_path: Path) -> None:
    async def scenario(solo: SoloLog, machine: Register) -> None:
        for number in range(50):
            assert await solo.propose([b"%d" % number]) == [b"%d" % number]
            # Not by the log's thread, which has seen nothing of it.
            assert machine.on_loop[-1]
        assert written(tmp_path) == machine.commands

    assert len(play(tmp_path, scenario, Limits(quick=QUICK, checkpoint_idle=60)).commands) == 50


def test_nobody_overtakes_what_the_thread_has_yet_to_write(tmp_path: Path) -> None:
    names = [b"heavy%d" % i if i % 7 == 3 else b"%d" % i for i in range(300)]

    async def scenario(solo: SoloLog, machine: Register) -> None:
        told: list[object] = []
        solo.subscribe(lambda index, events: told.extend(events))
        waiting: list[asyncio.Future[list[object]]] = []
        for number, name in enumerate(names):
            waiting.append(asyncio.ensure_future(solo.propose([name])))
            if number % 5 == 0:
                await asyncio.sleep(0)  # others come in the next turn of the loop
            if number % 50 == 0:
                await asyncio.gather(*waiting)
        await asyncio.gather(*waiting)
        assert told == names == machine.commands == written(tmp_path)
        on_loop = {name for name, on in zip(names, machine.on_loop, strict=True) if on}
        assert on_loop
        assert light(sorted(on_loop))

    play(tmp_path, scenario, Limits(quick=QUICK, entry_commands=4, checkpoint_idle=60))


def test_what_came_in_one_turn_of_the_loop_is_one_entry(tmp_path: Path) -> None:
    async def scenario(solo: SoloLog, machine: Register) -> None:
        before = machine.applied_index
        await asyncio.gather(*(solo.propose([b"%d" % i]) for i in range(FEW)))
        assert machine.applied_index == before + 1
        assert all(machine.on_loop)
        # More than a few, or than one entry may hold, are for the thread, in their order.
        names = [b"%d" % i for i in range(130)]
        await asyncio.gather(*(solo.propose([name]) for name in names))
        assert machine.commands[FEW:] == names

    play(tmp_path, scenario, Limits(quick=QUICK, entry_commands=64, checkpoint_idle=60))


def test_under_a_load_the_thread_writes_so_that_the_loop_goes_on(tmp_path: Path) -> None:
    def written_here(solo: SoloLog) -> bool:
        return not solo._writer._away

    async def scenario(solo: SoloLog, machine: Register) -> None:
        for _ in range(20):
            await asyncio.gather(*(solo.propose([b"%d" % i]) for i in range(FEW + 2)))
        lone = asyncio.ensure_future(solo.propose([b"lone"]))
        await asyncio.sleep(0)
        assert not written_here(solo)
        await lone
        for _ in range(60):
            await solo.propose([b"lone"])
        lone = asyncio.ensure_future(solo.propose([b"lone"]))
        await asyncio.sleep(0)
        assert written_here(solo)
        await lone

    play(tmp_path, scenario, Limits(quick=QUICK, checkpoint_idle=60))


def test_what_the_loop_wrote_is_checkpointed_in_the_next_pause_and_when_it_is_much(
    tmp_path: Path,
) -> None:
    async def scenario(solo: SoloLog, machine: Register) -> None:
        for number in range(25):
            await solo.propose([b"%d" % number])
        assert machine.checkpoints.qsize() >= 2
        while await asyncio.to_thread(machine.checkpoints.get, True, 10) < machine.applied_index:
            pass

    play(tmp_path, scenario, Limits(quick=QUICK, checkpoint_entries=10, checkpoint_idle=0.05))


def test_what_waits_for_its_turn_is_written_before_the_log_closes(tmp_path: Path) -> None:
    async def scenario(solo: SoloLog, machine: Register) -> None:
        waiting = [asyncio.ensure_future(solo.propose([b"%d" % i])) for i in range(5)]
        await asyncio.sleep(0)
        await solo.close()
        assert [await each for each in waiting] == [[b"%d" % i] for i in range(5)]

    machine = play(tmp_path, scenario, Limits(quick=QUICK, checkpoint_idle=60))
    assert written(tmp_path) == machine.commands == [b"%d" % i for i in range(5)]


def test_when_apply_fails_the_log_stops_and_nothing_is_written_after_it(tmp_path: Path) -> None:
    async def scenario(solo: SoloLog, machine: Register) -> None:
        await solo.propose([b"a"])
        failing = asyncio.ensure_future(solo.propose([b"fail"]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later = asyncio.ensure_future(solo.propose([b"b"]))
        found = await asyncio.gather(failing, later, return_exceptions=True)
        assert isinstance(found[0], OutcomeUnknown)
        assert isinstance(found[1], Stopped)
        with pytest.raises(Stopped, match="no such row"):
            await solo.wait_failed()
        assert written(tmp_path) == [b"a", b"fail"]

    machine = play(tmp_path, scenario, Limits(quick=QUICK, checkpoint_idle=60), ends_well=False)
    assert machine.commands == [b"a"]


def test_when_the_disk_fails_the_log_stops(tmp_path: Path) -> None:
    async def scenario(solo: SoloLog, machine: Register) -> None:
        await solo.propose([b"a"])
        durable = solo._writer._durable
        assert durable is not None
        durable.abandon()
        with pytest.raises(OutcomeUnknown, match="is closed"):
            await solo.propose([b"b"])
        with pytest.raises(Stopped, match="is closed"):
            await solo.wait_failed()

    machine = play(tmp_path, scenario, Limits(quick=QUICK, checkpoint_idle=60), ends_well=False)
    assert machine.commands == [b"a"]
