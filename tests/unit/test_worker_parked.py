"""Who waits for too long, whatever the clock does."""

from __future__ import annotations

from grampus.worker.core.parked import AHEAD_PATIENCE, Parked


def parked(*numbers: int) -> Parked:
    """They came one ms after the other, from 0 on."""
    made = Parked()
    for at, n in enumerate(numbers):
        made.park(n, at)
    return made


def test_those_that_have_waited_for_too_long_are_taken_in_their_order() -> None:
    waiting = parked(7, 3, 5)
    assert waiting.next_due() == AHEAD_PATIENCE
    assert waiting.take_impatient(AHEAD_PATIENCE - 1) == []
    assert waiting.take_impatient(AHEAD_PATIENCE + 1) == [7, 3]
    assert list(waiting) == [5]
    assert waiting.take_impatient(AHEAD_PATIENCE + 2) == [5]
    assert len(waiting) == 0


def test_who_is_parked_again_waits_behind_the_others() -> None:
    waiting = parked(1, 2)
    (first,) = waiting.take_impatient(AHEAD_PATIENCE)
    waiting.park(first, AHEAD_PATIENCE)
    assert list(waiting) == [2, 1]
    assert waiting.take_impatient(AHEAD_PATIENCE + 1) == [2]


def test_a_clock_that_is_set_back_begins_the_wait_anew() -> None:
    waiting = Parked()
    waiting.park(1, 1_000_000)
    assert waiting.take_impatient(5_000) == []
    assert waiting.take_impatient(5_000 + AHEAD_PATIENCE) == [1]


def test_the_wait_of_all_can_begin_now() -> None:
    waiting = parked(1, 2)
    waiting.restart(600)
    waiting.leave(1)
    waiting.leave(9)
    assert waiting.take_impatient(AHEAD_PATIENCE + 599) == []
    assert waiting.take_impatient(AHEAD_PATIENCE + 600) == [2]
