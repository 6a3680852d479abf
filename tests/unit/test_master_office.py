"""The master's office on a replica that loses the lead in the middle of everything."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from grampus.consensus.port import Stopped
from grampus.errors import NoQuorum
from grampus.master import asking, driver, office
from grampus.master.core.events import WorkerConnected
from grampus.master.rounds import Rounds
from grampus.model.workflow import Shell, Task
from grampus.runs.commands import (
    OpenSession,
    StartAttempts,
    TakeOffice,
    encode_command,
)
from tests.unit.office_ground import RUN, Checked, Stage, play, until, wide


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BUSY", 0)
    monkeypatch.setattr(driver, "Scheduler", Checked)
    monkeypatch.setattr(asking, "SETTLE_AGAIN", 0)
    monkeypatch.setattr(office, "AGAIN", 0)


def test_nobody_is_in_office_where_the_replica_does_not_lead(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await asyncio.sleep(0)
        assert not await stage.office.opens()
        assert stage.office.scheduler is None
        assert stage.replica.ledger.applied_index == 0

    play(tmp_path, scenario)


def test_office_is_taken_although_the_log_takes_nothing_at_first(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        moods = iter(["busy", "no-quorum", "elsewhere", "lost", "late"])
        stage.replica.mood = lambda: next(moods, "taken")
        stage.replica.lead()
        await stage.office.held.wait()
        assert stage.office.epoch == stage.replica.applied_index == 1

    play(tmp_path, scenario)


def test_a_deposed_office_forgets_and_dismisses_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.prepare(*wide(4))
        stage.crew.idle = True
        stage.replica.lead()
        await stage.connect()
        await stage.office.held.wait()
        first, (clerk,) = stage.office.epoch, stage.clerks
        await until(lambda: len(stage.crew.assigned) == 2)
        stage.replica.depose()
        await until(lambda: stage.crew.dismissed)
        assert (stage.office.epoch, stage.office.scheduler) == (0, None)
        assert not stage.office.is_open
        assert clerk.epoch == first
        assert clerk.over
        assert stage.crew.dismissed == ["this server leads no more"]
        # Meanwhile another server leads: an attempt ends there.
        stage.crew.finish(stage.crew.assigned[0][1])
        heard = len(clerk.heard)

        stage.crew.idle = False
        stage.replica.lead()
        await stage.connect()
        for _, n in list(stage.crew.assigned)[1:]:
            stage.crew.finish(n)
        await stage.until_done()
        assert stage.office.epoch > first
        assert len(clerk.heard) == heard, "it hears of the next office"
        assert len(set(stage.crew.assigned)) == 4

    play(tmp_path, scenario)


def test_a_server_is_confirmed_only_if_it_led_all_the_time_that_the_barrier_took(
    tmp_path: Path,
) -> None:
    """Somebody else may have passed the barrier on."""

    async def scenario(stage: Stage) -> None:
        office, replica = stage.office, stage.replica
        barriers: list[asyncio.Future[None]] = []

        async def barrier() -> None:
            barriers.append(asyncio.get_running_loop().create_future())
            await barriers[-1]

        office._rounds = Rounds(barrier)
        assert not await office.confirmed()
        replica.lead()
        await office.held.wait()
        asked = asyncio.create_task(office.confirmed())
        await until(lambda: len(barriers) == 1)
        barriers[0].set_result(None)
        assert await asked
        # Deposed meanwhile; deposed and elected again meanwhile; no majority.
        for count, happens in enumerate((["depose"], ["depose", "lead"], []), 2):
            asked = asyncio.create_task(office.confirmed())
            await until(lambda count=count: len(barriers) == count)  # type: ignore[misc]
            for what in happens:
                getattr(replica, what)()
            if happens:
                barriers[-1].set_result(None)
            else:
                barriers[-1].set_exception(NoQuorum("no majority"))
            assert not await asked
            replica.lead()
            await office.held.wait()

    play(tmp_path, scenario)


def test_a_master_that_finds_another_in_office_takes_it_again_while_it_leads(
    tmp_path: Path,
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.replica.lead()
        await stage.office.held.wait()
        epoch = stage.office.epoch
        # Of this very term: nothing but a start tells.
        stage.replica.apply([encode_command(TakeOffice(1, "n2", stage.replica.term))])
        stage.prepare(*wide(1))
        await stage.connect()
        await stage.until_held(but=epoch)
        await stage.connect()
        await stage.until_done()

    play(tmp_path, scenario)


def test_an_office_that_was_asked_for_in_an_earlier_term_is_refused(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.replica.lead()
        await stage.office.held.wait()
        late = TakeOffice(1, "n2", stage.replica.term - 1)
        (refusal,) = stage.replica.apply([encode_command(late)])
        assert "term" in str(refusal)
        assert stage.office.held.is_set()

    play(tmp_path, scenario)


@pytest.mark.parametrize("mood", ["busy", "no-quorum", "elsewhere", "lost", "late"])
def test_starts_without_an_answer_are_neither_lost_nor_doubled(tmp_path: Path, mood: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.prepare(*wide(5))
        stage.replica.lead()
        await stage.office.held.wait()
        moods = iter([mood] * 2)
        stage.replica.mood = lambda: next(moods, "taken")
        await stage.connect()
        await stage.until_done()
        assert len(stage.crew.assigned) == 5
        assert next(moods, None) is None

    play(tmp_path, scenario)


def test_a_start_that_is_answered_by_nobody_may_come_true_after_the_next_was_asked_for(
    tmp_path: Path,
) -> None:
    """Another worker was chosen for the second: nothing stays reserved at either."""

    async def scenario(stage: Stage) -> None:
        stage.prepare(*wide(1))
        (other,) = stage.replica.apply(
            [encode_command(OpenSession(1, "w2", "i", "m", "b", True, "default", 2))]
        )
        stage.replica.lead()
        await stage.office.held.wait()
        epoch, now = stage.office.epoch, 1_000
        late = StartAttempts(now, epoch, other, RUN, [(0, 1)])  # type: ignore[arg-type]
        begun = False

        def mood() -> str:
            nonlocal begun
            if not begun:
                begun = True
                stage.replica.apply([encode_command(late)])
            return "taken"

        stage.replica.mood = mood
        await stage.connect()
        await until(lambda: stage.crew.assigned)
        assert [session for session, _ in stage.crew.assigned] == [other]
        await until(
            lambda: stage.office.scheduler is not None and not stage.office.scheduler.proposed
        )

    play(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_log_does_every_task_runs_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def scenario(stage: Stage) -> None:
        first = wide(3)
        behind = tuple(Task(f"u{i}", Shell("true"), after=("t0", "t1", "t2")) for i in range(6))
        stage.prepare(*first, *behind)
        tries = 60

        def mood() -> str:
            nonlocal tries
            tries -= 1
            if tries < 0:
                return "taken"
            if chance.random() < 0.15:
                stage.replica.depose()
            return chance.choice(
                ["taken", "taken", "busy", "no-quorum", "elsewhere", "lost", "late"]
            )

        stage.replica.mood = mood

        async def staff() -> None:
            epoch = 0
            while True:
                if not stage.replica.leader and chance.random() < 0.3:
                    stage.replica.lead()
                if stage.office.is_open and stage.office.epoch != epoch:
                    epoch = stage.office.epoch
                    stage.happened(WorkerConnected(stage.crew.session))
                await asyncio.sleep(0)

        staffing = asyncio.create_task(staff())
        try:
            await stage.until_done()
        finally:
            staffing.cancel()
        # What was committed, and whose Assign got lost with its office, was told by a Sync.
        assert len(set(stage.crew.assigned)) == len(stage.crew.assigned) == 9
        starts = stage.readers.query("SELECT count(*), count(DISTINCT task) FROM attempt")
        assert list(starts) == [(9, 9)]

    play(tmp_path, scenario)


def test_a_replica_that_has_failed_ends_the_office_with_its_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = Stage(tmp_path)
        running = asyncio.create_task(stage.office.run())
        stage.replica.lead()
        await stage.office.held.wait()
        stage.replica.fail()
        with pytest.raises(Stopped, match="the log has stopped"):
            await running
        stage.close()

    asyncio.run(scenario())


def test_stopping_holds_in_the_next_office_too(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.prepare(*wide(2))
        stage.replica.lead()
        await stage.office.held.wait()
        stage.office.stop()
        stage.replica.depose()
        await until(lambda: not stage.office.held.is_set())
        stage.replica.lead()
        await stage.connect()
        await stage.office.held.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        assert stage.office.scheduler is not None
        assert stage.office.scheduler.stopping
        assert all(clerk.stopped for clerk in stage.clerks)
        assert stage.crew.assigned == []

    play(tmp_path, scenario)
