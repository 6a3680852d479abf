"""Which clocks of the kernel are read for what."""

from __future__ import annotations

import time

import pytest

from grampus.clock import SystemClock


def test_deadlines_go_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock of the kernel stands still then: a laptop that wakes would believe that
    its sessions live, when others have them."""
    clocks = {time.CLOCK_MONOTONIC: 5_000_000_000, time.CLOCK_BOOTTIME: 65_000_000_000}
    monkeypatch.setattr(time, "clock_gettime_ns", clocks.__getitem__)
    assert SystemClock().ticks() == 65_000


def test_wall_time_is_in_milliseconds() -> None:
    before = time.time() * 1000 - 1
    assert before <= SystemClock().now() <= time.time() * 1000 + 1
