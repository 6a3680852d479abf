"""Deliberate bugs, each a line or two of the product: some seed must catch each of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from grampus.errors import GrampusError
from grampus.master import driver
from grampus.master.core.scheduler import Scheduler
from grampus.master.core.steadiness import HOLD, Steadiness
from grampus.master.firing import ScheduleDriver
from grampus.master.intake import Intake
from grampus.master.roster import Roster
from grampus.master.timekeeper import Timekeeper
from grampus.model.run import FINAL_ATTEMPT, AttemptState, RunState
from grampus.protocol import Ack
from grampus.runs import (
    apply_attempts,
    apply_control,
    apply_schedules,
    apply_sessions,
    apply_workflows,
)
from grampus.runs.apply import APPLY
from grampus.runs.commands import CancelRun
from grampus.testing.simulation import run_seed
from grampus.versions import FIRST
from grampus.worker.core.attempt import WITH_WARDEN
from grampus.worker.core.custody import Custody
from grampus.worker.core.memory import Memory
from grampus.worker.core.outbox import Outbox
from grampus.worker.core.reconcile import Reconciler
from grampus.worker.core.seen import Seen
from grampus.worker.journal import Journal
from tests.simulation.teeth import Patch, Teeth

TEETH = Teeth(run_seed, seeds=80)
bug = TEETH.bug


# -- master -------------------------------------------------------------------------------------


@bug(1)
def acknowledges_before_the_commit(patch: Patch) -> None:
    put = Intake.put

    def early(self: Intake, connection: Any, reports: list[Any]) -> None:
        for report in reports:
            if report.state in FINAL_ATTEMPT:
                connection.send(Ack(report.session, [report.n], []))
        put(self, connection, reports)

    patch.setattr(Intake, "put", early)


@bug(12)
def takes_no_answer_for_a_yes(patch: Patch) -> None:
    async def ask(proposer: Any, commands: Any, pause: float) -> list[Any]:
        try:
            return list(await proposer.propose(*commands))
        except GrampusError:
            return [None for _ in commands]

    patch.setattr(driver, "ask", ask)


@bug(6)
def keeps_the_workers_of_an_office_that_is_over(patch: Patch) -> None:
    patch.setattr(Roster, "dismiss", lambda self, reason: None)


@bug(1)
def never_syncs(patch: Patch) -> None:
    patch.setattr(Scheduler, "_sync", lambda self, now, session: None)


@bug(1)
def does_not_assign_again_what_is_missing(patch: Patch) -> None:
    patch.setattr(Scheduler, "_assign_again", lambda self, event: None)


@bug(99)
def forgets_a_run_whose_start_was_refused(patch: Patch) -> None:
    def declined(self: Scheduler, event: Any) -> None:
        for index, attempt in event.command.tasks:
            session, slots = self.proposed.pop((event.command.run, index, attempt))
            if place := self.places.get(session):
                place.busy -= slots

    patch.setattr(Scheduler, "_declined", declined)


@bug(9)
def loads_no_live_attempts_at_taking_office(patch: Patch) -> None:
    load = Scheduler._load
    patch.setattr(
        Scheduler, "_load", lambda self, now, loaded: load(self, now, _replace(loaded, live=()))
    )


@bug(1)
def loads_nothing_that_is_ready_at_taking_office(patch: Patch) -> None:
    load = Scheduler._load
    patch.setattr(
        Scheduler, "_load", lambda self, now, loaded: load(self, now, _replace(loaded, ready=()))
    )


# -- time ---------------------------------------------------------------------------------------


@bug(3)
def fires_by_a_clock_in_doubt(patch: Patch) -> None:
    believes = Timekeeper.believes
    patch.setattr(
        Timekeeper, "believes",
        lambda self, patience=HOLD: believes(self, patience) or patience == HOLD,
    )  # fmt: skip


@bug(3)
def deletes_by_a_clock_in_doubt(patch: Patch) -> None:
    believes = Timekeeper.believes
    patch.setattr(
        Timekeeper, "believes",
        lambda self, patience=HOLD: believes(self, patience) or patience != HOLD,
    )  # fmt: skip


@bug(44)
def believes_any_clock_at_the_start(patch: Patch) -> None:
    patch.setattr(Steadiness, "compare", lambda self, newest: None)


@bug(3)
def forgets_the_time_with_its_process(patch: Patch) -> None:
    patch.setattr(Timekeeper, "_save", lambda self: None)


@bug(1)
def fires_whatever_is_asked_for(patch: Patch) -> None:
    """Without compare-and-set; and what is proposed may be proposed again, as by two masters."""
    patch.setattr(apply_schedules, "_not_next", lambda *args: "")
    patch.setattr(apply_schedules, "_is_done", lambda *args: False)
    _twice(patch)


@bug(36)
def plans_behind_what_is_told(patch: Patch) -> None:
    renew = apply_schedules.renew_schedule

    def careless(change: Any, at: int, workflow: str, version: int) -> None:
        renew(change, at, workflow, version)
        change.db.execute(
            "UPDATE schedule SET since = min(since, ?) WHERE workflow = ?", (at, workflow)
        )

    patch.setattr(apply_workflows, "renew_schedule", careless)


@bug(1)
def leaves_missed_ticks_without_a_word(patch: Patch) -> None:
    patch.setattr(apply_schedules, "_record", lambda *args: None)


# -- ledger -------------------------------------------------------------------------------------


@bug(10)
def pauses_in_name_only(patch: Patch) -> None:
    def pause(change: Any, command: Any) -> Any:
        answer = apply_control.pause_run(change, command)
        change.db.execute(
            "UPDATE run SET state = 'RUNNING' WHERE id = ? AND state = 'PAUSED'", (command.run,)
        )
        return answer

    _handler(patch, "pause_run", pause)


@bug(1)
def accepts_a_repeated_final_report_again(patch: Patch) -> None:
    ranks = {state: -1 for state in AttemptState}

    class Ranks:
        def __getitem__(self, state: AttemptState) -> int:
            ranks[state] += 1
            return ranks[state]

    patch.setattr(apply_attempts, "ATTEMPT_RANK", Ranks())


@bug(1)
def lets_the_attempts_of_an_ended_session_live(patch: Patch) -> None:
    patch.setattr(apply_sessions, "report_attempt", lambda change, report: "done")


@bug(1)
def gives_a_new_warden_the_session_of_the_old_one(patch: Patch) -> None:
    original = apply_sessions.open_session

    def same(change: Any, command: Any) -> Any:
        old = change.db.one(
            "SELECT id FROM session WHERE name = ? AND ended IS NULL", (command.name,)
        )
        return original(change, command) if old is None else old[0]

    _handler(patch, "open_session", same)


@bug(2)
def throws_dice_in_apply(patch: Patch) -> None:
    delay = apply_attempts.retry_delay
    dice = random.Random(1)
    patch.setattr(apply_attempts, "retry_delay", lambda *args: delay(*args) + dice.randrange(100))


@bug(1)
def cancels_only_what_runs(patch: Patch) -> None:
    """A cancel is answered, and what had not started goes on."""
    handlers = dict(APPLY[FIRST])
    handlers[CancelRun] = lambda change, command: RunState.CANCELLING
    patch.setitem(APPLY, FIRST, handlers)


@bug(1)
def runs_a_cancelled_run_again(patch: Patch) -> None:
    patch.setattr(apply_control, "_may_run_again", lambda *args: None)


@bug(1)
def frees_the_slots_of_nobody(patch: Patch) -> None:
    finish = apply_attempts._finish

    def twice(change: Any, command: Any, *rest: Any) -> None:
        finish(change, command, *rest)
        change.db.execute("UPDATE session SET busy = busy - 1 WHERE id = ?", (command.session,))

    patch.setattr(apply_attempts, "_finish", twice)


# -- worker -------------------------------------------------------------------------------------


@bug(1)
def forgets_the_numbers_that_it_has_seen(patch: Patch) -> None:
    patch.setattr(Seen, "__contains__", lambda self, n: False)


@bug(6)
def does_not_mark_a_number_killed_before_it_came(patch: Patch) -> None:
    kill = Reconciler._kill

    def careless(self: Reconciler, n: int, reason: str) -> None:
        if n in self._attempts.live:
            kill(self, n, reason)

    patch.setattr(Reconciler, "_kill", careless)


@bug(10)
def ignores_next_n_of_a_sync(patch: Patch) -> None:
    patch.setattr(Reconciler, "_close", lambda self, next_n, live: None)


@bug(2)
def says_it_is_over_when_it_is_told_to_end_it(patch: Patch) -> None:
    kill = Reconciler._kill

    def hasty(self: Reconciler, n: int, reason: str) -> None:
        attempt = self._attempts.live.get(n)
        kill(self, n, reason)
        if attempt is not None and n in self._attempts.live and attempt.stage in WITH_WARDEN:
            self._attempts.over(attempt, AttemptState.CANCELLED, reason)

    patch.setattr(Reconciler, "_kill", hasty)


@bug(12)
def says_lost_before_the_processes_are_gone(patch: Patch) -> None:
    lost = Custody.lost

    def hasty(self: Custody) -> None:
        lost(self)
        for attempt in self._attempts:
            self._attempts.over(attempt, AttemptState.LOST, "the warden died")

    patch.setattr(Custody, "lost", hasty)


@bug(1)
def forgets_a_report_once_it_is_sent(patch: Patch) -> None:
    take = Outbox.take_due

    def once(self: Outbox, now: int) -> list[Any]:
        due = take(self, now)
        for report in due:
            self.forget(report.n)
        return due

    patch.setattr(Outbox, "take_due", once)


@bug(1)
def repeats_no_report(patch: Patch) -> None:
    patch.setattr(Outbox, "hurry", lambda self, now: None)
    patch.setattr(Outbox, "next_due", lambda self, now: now + 10**9)
    take = Outbox.take_due

    def once(self: Outbox, now: int) -> list[Any]:
        due = take(self, now)
        for n in self._due:
            self._due[n] = 2**60
        return due

    patch.setattr(Outbox, "take_due", once)


@bug(37)
def loses_its_reports_with_its_process(patch: Patch) -> None:
    _journal(patch, lambda memory: memory.outbox.clear())


@bug(3)
def loses_its_attempts_with_its_process(patch: Patch) -> None:
    _journal(patch, lambda memory: memory.launched.clear())


@bug(3)
def loses_the_numbers_seen_with_its_process(patch: Patch) -> None:
    def forget(memory: Memory) -> None:
        memory.seen = Seen()

    _journal(patch, forget)


@bug(9)
def launches_before_it_is_written_down(patch: Patch) -> None:
    patch.setattr(Journal, "write", lambda self, entries: None)


# -- how it is tested ---------------------------------------------------------------------------


def _journal(patch: Patch, lose: Callable[[Memory], None]) -> None:
    opened = Journal.open

    def forgetful(path: Any) -> Journal:
        journal = opened(path)
        lose(journal.memory)
        return journal

    patch.setattr(Journal, "open", staticmethod(forgetful))


def _twice(patch: Patch) -> None:
    """The driver of schedules proposes everything twice."""
    carry_out = ScheduleDriver._carry_out

    async def again(self: ScheduleDriver, turn: Any) -> None:
        doubled = [command for command in turn.commands for _ in range(2)]
        await carry_out(self, _replace(turn, commands=tuple(doubled)))

    patch.setattr(ScheduleDriver, "_carry_out", again)


def _handler(patch: Patch, name: str, handler: Callable[[Any, Any], Any]) -> None:
    handlers = {
        kind: handler if known.__name__ == name else known for kind, known in APPLY[FIRST].items()
    }
    patch.setitem(APPLY, FIRST, handlers)


def _replace(loaded: Any, **fields: Any) -> Any:
    return type(loaded)(**{n: getattr(loaded, n) for n in loaded.__struct_fields__} | fields)


@pytest.mark.parametrize("name", TEETH.names())
def test_some_seed_catches(name: str, monkeypatch: Patch) -> None:
    TEETH.bite(name, monkeypatch)
