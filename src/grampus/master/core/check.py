"""What must be true of a scheduler after every step. Raises AssertionError with the numbers."""

from __future__ import annotations

from grampus.master.core.placement import MANY
from grampus.master.core.scheduler import Scheduler


def check(scheduler: Scheduler) -> None:
    for session, place in scheduler.places.items():
        live = sum(a.slots for a in scheduler.live.get(session, {}).values())
        reserved = sum(slots for s, slots in scheduler.proposed.values() if s == session)
        assert place.busy == live + reserved, (session, place.busy, live, reserved)
        assert 0 <= place.busy <= (1 + MANY) * place.slots, (session, place.busy, place.slots)
        assert all(n < place.next_n for n in scheduler.live.get(session, ())), session
    attempts = {(a.run, a.index): a for by_n in scheduler.live.values() for a in by_n.values()}
    assert len(attempts) == sum(len(by_n) for by_n in scheduler.live.values()), "two live attempts"
    for task in scheduler.queue:
        assert (task.run, task.index, task.attempt) not in scheduler.proposed, task
        running = attempts.get((task.run, task.index))
        assert running is None or running.attempt < task.attempt, (task, running)
    indexed = sorted(key for keys in scheduler.by_run.values() for key in keys)
    assert indexed == sorted((s, n) for s, by_n in scheduler.live.items() for n in by_n), (
        "by_run and live differ"
    )
