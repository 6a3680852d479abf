"""What of a process's load is told to the cluster, and how often."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from grampus.cluster.monitor import ANYWAY, About, ClusterMonitor, is_news

TOLD = About("a", "h", 1, 0, heartbeat=1_000, cpu=20, memory=1_000_000, lacks=0)


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({"heartbeat": 1_000 + ANYWAY - 1}, False),
        ({"heartbeat": 1_000 + ANYWAY}, True),
        ({"heartbeat": 999}, True),  # its clock was set back
        ({"cpu": 24}, False),
        ({"cpu": 25}, True),
        ({"cpu": 15}, True),
        ({"memory": 950_001}, False),
        ({"memory": 950_000}, True),
        ({"memory": 1_050_000}, True),
        ({"lacks": 1}, True),
        ({"leads": 7}, True),
    ],
)
def test_what_has_changed_little_is_told_rarely(change: dict[str, int], news: bool) -> None:
    assert is_news(TOLD, replace(TOLD, **change)) is news


class Kept:
    """Registrations, as far as they are told."""

    def __init__(self) -> None:
        self.told: list[About] = []

    def set(self, key: bytes, value: bytes) -> None:
        self.told.append(msgspec.json.decode(value, type=About))


class Load:
    def __init__(self) -> None:
        self.now = 10, 1_000_000

    def capacity(self) -> tuple[float, int]:
        return 2.0, 2_000_000

    def average(self) -> tuple[int, int]:
        return self.now


class Clock:
    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time


def test_it_is_compared_with_what_was_told_last_not_with_the_last_look() -> None:
    kept, load, clock = Kept(), Load(), Clock()
    fakes: list[Any] = [kept, clock, load]
    about = {"name": "a", "host": "h", "pid": 1}
    monitor = ClusterMonitor(fakes[0], b"/servers/a", about, fakes[1], fakes[2])
    for cpu in (10, 12, 14, 16, 18, 18, 18, 18):
        load.now = cpu, 1_000_000
        monitor.look()
        clock.time += 5_000
    assert [(each.heartbeat, each.cpu) for each in kept.told] == [
        (0, 10),
        (15_000, 16),
        (30_000, 18),
    ]
