"""Who is told of a commit, and when: `telling` under a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from grampus.consensus.telling import PAUSE, Telling


class Timer:
    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self.seconds = seconds
        self.ring = ring
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Ground:
    """Peers 2 and 3; what they were told, and the timers that were set."""

    def __init__(self) -> None:
        self.told: list[list[int]] = []
        self.timers: list[Timer] = []
        self.telling = Telling(lambda: [2, 3], self.told.append, cast(Callable, self._later))

    def _later(self, seconds: float, ring: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, ring))
        return self.timers[-1]

    def pause(self) -> None:
        """The only timer that runs rings."""
        (timer,) = [timer for timer in self.timers if not timer.cancelled]
        self.timers.remove(timer)
        assert timer.seconds == PAUSE
        timer.ring()


@pytest.fixture
def ground() -> Ground:
    return Ground()


def test_nobody_is_told_before_a_pause(ground: Ground) -> None:
    ground.telling.committed()
    assert ground.told == []
    ground.pause()
    assert ground.told == [[2, 3]]
    assert ground.timers == []


def test_commits_within_a_pause_are_told_once(ground: Ground) -> None:
    ground.telling.committed()
    ground.telling.committed()
    ground.pause()
    assert ground.told == [[2, 3]]


def test_while_entries_go_out_nothing_is_told(ground: Ground) -> None:
    ground.telling.committed()
    for _ in range(3):
        ground.telling.entries()
        ground.telling.committed()
        ground.pause()
    assert ground.told == []
    ground.pause()
    assert ground.told == [[2, 3]], "the last commit is"


def test_entries_from_before_the_commit_do_not_tell_of_it(ground: Ground) -> None:
    ground.telling.entries()
    ground.telling.committed()
    ground.pause()
    assert ground.told == [[2, 3]]


def test_where_somebody_waits_it_is_told_at_once(ground: Ground) -> None:
    ground.telling.heard(3, True)
    assert ground.telling.committed()
    assert ground.told == [[3]]
    ground.pause()
    assert ground.told == [[3], [2, 3]]


def test_where_nobody_waits_any_more_it_is_not(ground: Ground) -> None:
    ground.telling.heard(3, True)
    ground.telling.heard(3, False)
    assert not ground.telling.committed()
    assert ground.told == []


def test_who_begins_to_wait_is_told_what_was_not_told_yet(ground: Ground) -> None:
    ground.telling.heard(2, True)
    assert ground.told == [], "there is nothing to tell"
    ground.telling.committed()
    ground.telling.heard(3, True)
    ground.telling.heard(3, True)
    assert ground.told == [[2], [3]]


def test_who_leads_no_longer_tells_nobody(ground: Ground) -> None:
    ground.telling.heard(2, True)
    ground.telling.committed()
    ground.telling.stop()
    assert [timer.cancelled for timer in ground.timers] == [True]
    ground.telling.stop()
