"""When retention does not trust the clock."""

from __future__ import annotations

from typing import Any

from grampus.master.retention import DOUBT, Retention

DAY = 86_400_000


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.wall = 100 * DAY
        self.boot = 0

    def now(self) -> int:
        return self.wall

    def ticks(self) -> int:
        return self.boot

    def go(self, ms: int, jump: int = 0) -> None:
        self.wall += ms + jump
        self.boot += ms


def retention(clock: Hands, seen: int | None = None) -> Retention:
    nobody: Any = None
    return Retention(nobody, nobody, nobody, clock, 30 * DAY, seen)


def test_a_jump_ahead_deletes_nothing_for_a_day() -> None:
    clock = Hands()
    kept = retention(clock)
    clock.go(600_000)
    assert kept.believes()
    clock.go(600_000, jump=365 * DAY)
    assert not kept.believes()
    clock.go(DOUBT - 1)
    assert not kept.believes()
    clock.go(1)
    assert kept.believes()


def test_a_ledger_that_was_silent_for_long_is_left_alone_for_a_day() -> None:
    clock = Hands()
    assert retention(clock, clock.wall - DAY).believes()
    old = retention(clock, clock.wall - 40 * DAY)
    assert not old.believes()
    clock.go(DOUBT)
    assert old.believes()
