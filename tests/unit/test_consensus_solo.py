"""The log of one voter with a real log: order, answers, replay, bounds, failure."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from grampus.consensus.disk import Disk
from grampus.consensus.log import DurableLog
from grampus.consensus.port import Replica, Stopped
from grampus.consensus.record import LogCorrupt
from grampus.consensus.solo import SoloLog
from grampus.consensus.writer import Limits
from grampus.database import StorageFailed
from grampus.errors import OutcomeUnknown, Overloaded


class Register:
    """Remembers what was applied. `gate` holds apply up; `fail_at` makes it raise."""

    def __init__(self) -> None:
        self.applied_index = 0
        self.entries: list[tuple[int, int, list[bytes]]] = []
        self.checkpoints: list[int] = []
        self.part: Callable[[], None] | None = None
        self.durable = True
        self.fail_at = b""
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    @property
    def commands(self) -> list[bytes]:
        return [command for _, _, commands in self.entries for command in commands]

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        self.entered.set()
        assert self.gate.wait(10)
        if self.fail_at in commands:
            raise KeyError("no such row")
        assert index == self.applied_index + 1
        self.entries.append((index, term, list(commands)))
        self.applied_index = index
        return [b"did " + c for c in commands], [(index, c) for c in commands]

    def checkpoint_part(self) -> Callable[[], None] | None:
        return self.part

    def checkpoint(self) -> int | None:
        self.checkpoints.append(self.applied_index)
        return self.applied_index if self.durable else None


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.mkdir()
    return path


async def reach(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


def test_each_command_has_its_own_result_in_order(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()
        solo = await SoloLog.open(folder, machine)
        replica: Replica = solo
        assert await replica.propose([]) == []
        assert await replica.propose([b"a", b"b"]) == [b"did a", b"did b"]
        assert (replica.leader, replica.term, replica.applied_index) == (True, 1, 1)
        await replica.read_barrier()
        assert replica.in_flight == 0
        await solo.close()
        assert machine.commands == [b"a", b"b"]

    run(scenario)


def test_what_waits_becomes_one_entry_and_keeps_its_order(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()
        solo = await SoloLog.open(folder, machine)
        machine.gate.clear()
        first = asyncio.ensure_future(solo.propose([b"first"]))
        await reach(machine.entered)
        rest = [asyncio.ensure_future(solo.propose([b"%d" % i, b"x"])) for i in range(50)]
        await asyncio.sleep(0)
        assert solo.in_flight == 101
        machine.gate.set()
        assert await first == [b"did first"]
        for i, future in enumerate(rest):
            assert await future == [b"did %d" % i, b"did x"]
        assert [len(commands) for _, _, commands in machine.entries] == [1, 100]
        assert solo.in_flight == 0
        await solo.close()

    run(scenario)


def test_an_entry_is_bounded_and_a_long_proposal_is_answered_whole(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()
        limits = Limits(entry_commands=10, entry_bytes=100)
        solo = await SoloLog.open(folder, machine, limits=limits)
        many = [b"%d" % i for i in range(37)]
        big = [b"%02d" % i + b"." * 48 for i in range(5)]
        answers = await asyncio.gather(solo.propose(many), solo.propose(big), solo.propose([b"z"]))
        assert answers == [[b"did " + c for c in part] for part in (many, big, [b"z"])]
        assert machine.commands == [*many, *big, b"z"]
        for _, _, commands in machine.entries:
            assert len(commands) <= 10
            assert sum(map(len, commands)) <= 100
        with pytest.raises(ValueError, match="101"):
            await solo.propose([b"." * 101])
        await solo.close()

    run(scenario)


def test_listeners_hear_every_entry_in_log_order_before_the_proposer_goes_on(folder: Path) -> None:
    async def scenario() -> None:
        solo = await SoloLog.open(folder, Register())
        heard: list[tuple[int, list[object]]] = []
        solo.subscribe(lambda index, events: heard.append((index, list(events))))

        async def proposer(name: bytes) -> None:
            for i in range(30):
                await solo.propose([b"%s%d" % (name, i)])
                assert (solo.applied_index, b"%s%d" % (name, i)) in heard[-1][1]

        await asyncio.gather(*(proposer(name) for name in (b"a", b"b", b"c", b"d")))
        assert [index for index, _ in heard] == list(range(1, len(heard) + 1))
        assert sum(len(events) for _, events in heard) == 120
        for name in (b"a", b"b", b"c", b"d"):
            mine = [c for _, events in heard for _, c in events if c.startswith(name)]  # type: ignore[misc]
            assert mine == [b"%s%d" % (name, i) for i in range(30)]
        await solo.close()

    run(scenario)


def test_a_cancelled_caller_cancels_nothing(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()
        solo = await SoloLog.open(folder, machine)
        machine.gate.clear()
        caller = asyncio.ensure_future(solo.propose([b"mine"]))
        await reach(machine.entered)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        machine.gate.set()
        assert await solo.propose([b"next"]) == [b"did next"]
        assert machine.commands == [b"mine", b"next"]
        assert solo.in_flight == 0
        await solo.close()

    run(scenario)


def test_too_much_in_flight_is_refused_and_leaves_no_trace(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()
        limits = Limits(in_flight_commands=3, in_flight_bytes=100)
        solo = await SoloLog.open(folder, machine, limits=limits)
        machine.gate.clear()
        taken = [asyncio.ensure_future(solo.propose([b"a", b"b"]))]
        await reach(machine.entered)
        with pytest.raises(Overloaded, match="2 commands"):
            await solo.propose([b"c", b"d"])
        with pytest.raises(Overloaded):
            await solo.propose([b"." * 99])
        taken.append(asyncio.ensure_future(solo.propose([b"c"])))
        await asyncio.sleep(0)
        machine.gate.set()
        await asyncio.gather(*taken)
        assert machine.commands == [b"a", b"b", b"c"]
        assert await solo.propose([b"." * 100]) == [b"did " + b"." * 100]
        with pytest.raises(ValueError, match="at most 3 commands"):
            await solo.propose([b"x"] * 4)
        await solo.close()

    run(scenario)


def test_every_start_raises_the_term_and_applies_only_what_the_machine_lacks(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()
        for term in (1, 2, 3):
            solo = await SoloLog.open(folder, machine)
            assert solo.term == term
            await solo.propose([b"t%d" % term])
            await solo.close()
        assert [(i, t) for i, t, _ in machine.entries] == [(1, 1), (2, 2), (3, 3)]
        behind = Register()
        behind.apply(1, 1, [b"t1"])
        solo = await SoloLog.open(folder, behind)
        assert solo.applied_index == 3
        assert behind.entries == machine.entries
        await solo.close()

    run(scenario)


def test_an_entry_that_was_synced_but_not_applied_is_applied_by_the_next_start(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        machine = Register()
        machine.fail_at = b"bad"
        solo = await SoloLog.open(folder, machine)
        await solo.propose([b"good"])
        with pytest.raises(OutcomeUnknown):
            await solo.propose([b"bad"])
        with pytest.raises(Stopped):
            await solo.wait_failed()
        with pytest.raises(KeyError):
            await SoloLog.open(folder, machine)
        machine.fail_at = b""
        solo = await SoloLog.open(folder, machine)
        assert machine.entries == [(1, 1, [b"good"]), (2, 1, [b"bad"])]
        assert await solo.propose([b"more"]) == [b"did more"]
        assert machine.entries[-1] == (3, 2, [b"more"])
        await solo.close()

    with caplog.at_level(logging.CRITICAL):
        run(scenario)


def test_a_machine_that_raises_ends_the_replica_and_tells_who_knows_what(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        machine = Register()
        machine.fail_at = b"bad"
        solo = await SoloLog.open(folder, machine)
        machine.gate.clear()
        working = asyncio.ensure_future(solo.propose([b"bad"]))
        await reach(machine.entered)
        waiting = asyncio.ensure_future(solo.propose([b"behind"]))
        await asyncio.sleep(0)
        machine.gate.set()
        with pytest.raises(OutcomeUnknown, match="no such row"):
            await working
        with pytest.raises(Stopped) as nothing_happened:
            await waiting
        assert type(nothing_happened.value) is Stopped
        with pytest.raises(Stopped, match="KeyError"):
            await solo.propose([b"later"])
        with pytest.raises(Stopped):
            await solo.read_barrier()
        with pytest.raises(Stopped) as reason:
            await solo.wait_failed()
        assert isinstance(reason.value.__cause__, KeyError)
        assert not solo.leader
        await solo.close()

    run(scenario)
    assert "has stopped" in caplog.text


def test_a_machine_that_answers_wrongly_is_a_failure(folder: Path) -> None:
    class Short(Register):
        def apply(
            self, index: int, term: int, commands: Sequence[bytes]
        ) -> tuple[list[object], list[object]]:
            results, events = super().apply(index, term, commands)
            return results[1:], events

    async def scenario() -> None:
        solo = await SoloLog.open(folder, Short())
        with pytest.raises(OutcomeUnknown, match="1 commands with 0 results"):
            await solo.propose([b"a"])
        await solo.close()

    run(scenario)


def test_a_listener_that_raises_ends_the_replica(folder: Path) -> None:
    async def scenario() -> None:
        solo = await SoloLog.open(folder, Register())

        def listener(index: int, events: Sequence[object]) -> None:
            raise RuntimeError("deaf")

        solo.subscribe(listener)
        assert await solo.propose([b"a"]) == [b"did a"]
        with pytest.raises(Stopped, match="deaf"):
            await solo.wait_failed()
        with pytest.raises(Stopped, match="deaf"):
            await solo.propose([b"b"])
        await solo.close()

    run(scenario)


def test_a_disk_that_fails_ends_the_replica(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        machine = Register()
        solo = await SoloLog.open(folder, machine)
        await solo.propose([b"a"])

        def sync(self: Disk, fd: int) -> None:
            raise StorageFailed("cannot sync the log: input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(Disk, "sync", sync)
            with pytest.raises(OutcomeUnknown, match="input/output"):
                await solo.propose([b"b"])
        assert machine.commands == [b"a"], "what is not durable is not applied"
        with pytest.raises(Stopped, match="input/output"):
            await solo.wait_failed()

    run(scenario)


def test_close_finishes_what_was_accepted_and_refuses_what_comes_later(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()
        solo = await SoloLog.open(folder, machine)
        machine.gate.clear()
        accepted = [asyncio.ensure_future(solo.propose([b"%d" % i])) for i in range(20)]
        await reach(machine.entered)
        closing = asyncio.ensure_future(solo.close())
        await asyncio.sleep(0)
        with pytest.raises(Stopped, match="is closed"):
            await solo.propose([b"late"])
        machine.gate.set()
        assert await asyncio.gather(*accepted) == [[b"did %d" % i] for i in range(20)]
        await closing
        await solo.close()
        await solo.wait_failed()
        assert machine.checkpoints == [machine.applied_index]
        assert len(machine.commands) == 20

    run(scenario)


def test_a_close_that_takes_too_long_says_so(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()
        solo = await SoloLog.open(folder, machine, limits=Limits(close=0.05))
        machine.gate.clear()
        accepted = asyncio.ensure_future(solo.propose([b"a"]))
        await reach(machine.entered)
        with pytest.raises(OutcomeUnknown, match="does not answer"):
            await solo.close()
        machine.gate.set()
        assert await accepted == [b"did a"]
        await solo.wait_failed()

    run(scenario)


def test_the_log_is_compacted_only_below_what_a_checkpoint_made_durable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compacted: list[int] = []
    real = DurableLog.compact

    def compact(self: DurableLog, below: int) -> int:
        compacted.append(below)
        return real(self, below)

    monkeypatch.setattr(DurableLog, "compact", compact)

    async def scenario() -> None:
        machine = Register()
        machine.durable = False
        limits = Limits(checkpoint_entries=5, checkpoint_idle=60)
        solo = await SoloLog.open(folder, machine, limits=limits)
        for i in range(12):
            await solo.propose([b"%d" % i])
        assert machine.checkpoints == [5, 10]
        assert compacted == []
        machine.durable = True
        await solo.close()
        assert compacted == [13]

    run(scenario)


def test_most_of_a_checkpoint_goes_on_while_entries_are_written(folder: Path) -> None:
    async def scenario() -> None:
        machine, begun, go_on = Register(), threading.Event(), threading.Event()

        def part() -> None:
            begun.set()
            assert go_on.wait(10)

        machine.part = part
        limits = Limits(checkpoint_entries=5, checkpoint_idle=60)
        solo = await SoloLog.open(folder, machine, limits=limits)
        for i in range(12):
            await solo.propose([b"%d" % i])
        assert await asyncio.to_thread(begun.wait, 10)
        assert machine.checkpoints == []
        go_on.set()
        while not machine.checkpoints:
            await solo.propose([b"more"])
        assert machine.checkpoints[0] >= 12
        await solo.close()

    run(scenario)


def test_what_the_first_part_of_a_checkpoint_raises_stops_the_log(folder: Path) -> None:
    async def scenario() -> None:
        machine = Register()

        def part() -> None:
            raise StorageFailed("the disk is full")

        machine.part = part
        limits = Limits(checkpoint_entries=1, checkpoint_idle=0.01)
        solo = await SoloLog.open(folder, machine, limits=limits)
        await solo.propose([b"a"])
        with pytest.raises(Stopped, match="the disk is full"):
            await solo.wait_failed()

    run(scenario)


def test_a_pause_is_used_for_a_checkpoint_and_repeated_while_readers_are_in_the_way(
    folder: Path,
) -> None:
    async def scenario() -> None:
        machine = Register()
        machine.durable = False
        tried = threading.Semaphore(0)
        real = machine.checkpoint

        def checkpoint() -> int | None:
            tried.release()
            return real()

        machine.checkpoint = checkpoint  # type: ignore[method-assign]
        solo = await SoloLog.open(folder, machine, limits=Limits(checkpoint_idle=0.01))
        await solo.propose([b"a"])
        for _ in range(2):
            assert await asyncio.to_thread(tried.acquire, True, 10)
        machine.durable = True
        assert await solo.propose([b"b"]) == [b"did b"]
        await solo.close()
        assert set(machine.checkpoints) <= {1, 2}

    run(scenario)


def test_a_log_behind_its_ledger_and_a_gap_before_it_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        machine = Register()
        solo = await SoloLog.open(folder, machine)
        for _ in range(3):
            await solo.propose([b"x" * 1000])
        await solo.close()
        (tmp_path / "empty").mkdir()
        with pytest.raises(LogCorrupt, match=r"entry 3, but the log in .* ends with 0"):
            await SoloLog.open(tmp_path / "empty", machine)

    run(scenario)
    log = DurableLog.open(folder, segment_size=1000)
    for entry in list(log.entries(1)):
        log.append([type(entry)(log.last + 1, 2, entry.payload)])
    assert log.compact(log.last) > 0
    first = log.first
    log.close()

    async def gap() -> None:
        with pytest.raises(LogCorrupt, match=f"applied entry 0, but .* begins with {first}"):
            await SoloLog.open(folder, Register())

    run(gap)
