"""The scheduler and the wall clock."""

from __future__ import annotations

from grampus.master.core.events import Declined, Loaded, Seat, WorkerConnected
from grampus.master.core.leases import AGAIN, SILENT_AFTER
from grampus.master.core.scheduler import SYNC_EVERY, Scheduler
from grampus.protocol import Sync
from grampus.runs.commands import Refusal, SilenceSession

HOUR = 3_600_000


def test_a_clock_that_is_set_back_does_not_put_off_the_next_sync() -> None:
    scheduler = Scheduler(epoch=1)
    seat = Seat(1, "w1", "default", 4, 1)
    loaded = Loaded(revision=1, seats=(seat,), ready=(), live=(), cancelling=())
    (first,) = scheduler.step(HOUR, [loaded, WorkerConnected(1)]).messages
    assert isinstance(first, Sync)
    assert scheduler.step(HOUR + SYNC_EVERY - 1, []).messages == ()
    assert scheduler.step(0, []).messages == (first,)
    turn = scheduler.step(1, [])
    assert (turn.messages, turn.wake_at) == ((), SYNC_EVERY)


def test_a_worker_that_is_gone_is_called_silent_once_and_again_if_nobody_answered() -> None:
    scheduler = Scheduler(epoch=1)
    seat = Seat(1, "w1", "default", 4, 1, registered=7)
    turn = scheduler.step(HOUR, [Loaded(1, (seat,), (), (), ())])
    assert (turn.commands, turn.wake_at) == ((), HOUR + SILENT_AFTER)
    at = HOUR + SILENT_AFTER
    (command,) = scheduler.step(at, []).commands
    assert command == SilenceSession(at, 1, 1, 7)
    assert scheduler.step(at + 1, []).commands == ()
    unanswered = Declined(command, Refusal("no-quorum", "no majority"))
    assert scheduler.step(at + 2, [unanswered]).commands == ()
    (again,) = scheduler.step(at + 2 + AGAIN, []).commands
    assert again == SilenceSession(at + 2 + AGAIN, 1, 1, 7)


def test_nobody_is_called_silent_because_the_clock_was_set() -> None:
    scheduler = Scheduler(epoch=1)
    seat = Seat(1, "w1", "default", 4, 1)
    scheduler.step(HOUR, [Loaded(1, (seat,), (), (), ())], ticks=100)
    assert scheduler.step(2 * HOUR, [], ticks=200).commands == ()
    assert scheduler.step(5, [], ticks=SILENT_AFTER).commands == ()
    assert len(scheduler.step(105, [], ticks=SILENT_AFTER + 100).commands) == 1
