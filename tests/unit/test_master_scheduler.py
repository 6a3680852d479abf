"""The scheduler and the wall clock."""

from __future__ import annotations

from grampus.master.core.events import Loaded, Seat, WorkerConnected
from grampus.master.core.scheduler import SYNC_EVERY, Scheduler
from grampus.protocol import Sync

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
