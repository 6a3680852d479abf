"""Which worker gets what: least loaded first, and ahead of its slots only while attempts are
short."""

from __future__ import annotations

from grampus.master.core.events import ReadyTask
from grampus.master.core.placement import BRIEF, MANY, OLD, SHORT, Place, place_group
from grampus.master.core.queue import ReadyQueue
from grampus.runs.apply_attempts import AHEAD


def place(session: int = 1, slots: int = 2) -> Place:
    made = Place(session, f"w{session}", "default", slots, 1)
    made.connected = True
    return made


def after_short_ones(made: Place, count: int = 40, took: int = BRIEF + 5) -> Place:
    for n in range(count):
        made.born(n, 10 * n)
        made.ended(n, 10 * n + took)
    return made


def placed(places: list[Place], tasks: int, now: int, slots: int = 1) -> list[int]:
    queue = ReadyQueue()
    for index in range(tasks):
        queue.put(now, ReadyTask("r1", index, 1, now, "default", slots, 0))
    return [where.session for where, _ in place_group(queue, "default", places, 100, now)]


def test_a_worker_of_which_nothing_is_known_gets_what_it_has_slots_for() -> None:
    assert placed([place()], 9, now=1_000) == [1, 1]


def test_short_attempts_are_assigned_ahead_as_many_again_as_there_are_slots() -> None:
    assert placed([after_short_ones(place())], 9, now=1_000) == [1, 1, 1, 1]


def test_the_shortest_are_assigned_ahead_many_times_over() -> None:
    made = after_short_ones(place(), took=5)
    assert len(placed([made], 99, now=1_000)) == 2 * (1 + MANY)


def test_waiting_does_not_make_an_attempt_long() -> None:
    made = place()
    for n in range(100, 108):
        made.born(n, 1_000)
    for n in range(108, 200):  # Two at a time take 10 ms, and eight are there.
        now = 1_000 + 5 * (n - 108)
        made.ended(n - 8, now)
        made.born(n, now)
    made.busy = 2
    assert len(placed([made], 99, now=1_000 + 5 * 92)) == 2 * MANY


def test_the_ledger_lets_as_many_be_given_as_are_placed() -> None:
    assert 1 + MANY <= AHEAD


def test_long_attempts_end_it() -> None:
    made = after_short_ones(place())
    for n in range(100, 104):
        made.born(n, 1_000)
        made.ended(n, 1_000 + 10 * SHORT)
    assert placed([made], 9, now=3_000) == [1, 1]


def test_one_attempt_that_is_already_long_ends_it_at_once() -> None:
    made = after_short_ones(place())
    made.born(50, 1_000)
    made.busy = 1
    assert placed([made], 9, now=1_000 + OLD) == [1]
    made.ended(50, 1_000 + OLD)
    made.busy = 0
    assert len(placed([made], 9, now=2_000)) == 4


def test_free_slots_elsewhere_come_before_waiting_here() -> None:
    both = [after_short_ones(place(1)), after_short_ones(place(2))]
    both[0].busy = 2
    assert placed(both, 2, now=1_000) == [2, 2]


def test_what_no_worker_can_hold_is_not_assigned_ahead_either() -> None:
    assert placed([after_short_ones(place())], 1, now=1_000, slots=3) == []
