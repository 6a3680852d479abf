"""What the warden ends when no server confirms its worker: with the worker, and without."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from warden_ground import KINDS, Ground, play, until

from grampus.clock import SystemClock
from grampus.worker.orders import Confirmed, Ended, Started

each = pytest.mark.parametrize("kind", KINDS)
LEASE, TERM, KILL = 10_000, 6_000, 8_000


def confirm(ground: Ground, ago: int) -> None:
    """A keep-alive was sent so many ms ago, and has been answered."""
    ground.client.send(Confirmed(SystemClock().ticks() - ago))


@each
def test_a_lease_is_fenced_at_60_and_80_percent_whatever_the_grace(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        confirm(ground, TERM - 1_500)
        begun = time.monotonic()
        ground.sh(1, "sleep 600", grace=600_000, lease=LEASE)
        ground.sh(2, "trap '' TERM; while :; do sleep 0.1; done", grace=600_000, lease=LEASE)
        ground.sh(3, "sleep 600", lease=None)
        soft = await ground.ended(1)
        assert time.monotonic() - begun > 1.4
        hard = await ground.ended(2)
        assert time.monotonic() - begun > (KILL - TERM + 1_400) / 1000
        for ended in (soft, hard):
            assert ended.cause == "fenced"
            assert ended.error.startswith("fenced: no server confirmed its worker for")
        assert ground.count(Ended, 3) == 0

    play(story, tmp_path, kind, slots=3)


@each
def test_it_needs_no_worker_and_the_next_one_is_told(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        confirm(ground, TERM - 1_000)
        ground.sh(1, "sleep 600", lease=LEASE)
        await ground.wait(Started, 1)
        ground.client.leave()
        beats = ground.live(0)
        await until(lambda: beats.exists(), "the files of its slot")
        await asyncio.sleep(1.6)
        await ground.attach()
        # It is over already: a new worker's first word comes too late for it.
        confirm(ground, 0)
        assert (await ground.ended(1)).cause == "fenced"

    play(story, tmp_path, kind, slots=1)


def test_a_confirmation_keeps_it_alive_and_what_was_fenced_is_not_brought_back(
    tmp_path: Path,
) -> None:
    async def story(ground: Ground) -> None:
        confirm(ground, TERM - 700)
        ground.sh(1, "sleep 1.5; exit 3", lease=LEASE)
        ground.sh(2, "trap '' TERM; while :; do sleep 0.1; done", lease=LEASE)
        confirm(ground, TERM - 3_000)
        ended = await ground.ended(1)
        assert (ended.cause, ended.exit) == ("exit", 3)
        await asyncio.sleep(2.0)
        assert ground.count(Ended, 2) == 0
        confirm(ground, 0)
        assert (await ground.ended(2)).cause == "fenced"

    play(story, tmp_path, "subreaper", slots=2)


def test_what_waits_too_long_never_begins(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        # Nobody has confirmed anything.
        ground.sh(1, "true", lease=LEASE)
        assert (await ground.ended(1)).cause == "unable"
        confirm(ground, TERM - 700)
        ground.sh(2, "sleep 1.5")
        ground.sh(3, "true", lease=LEASE)
        waited = await ground.ended(3)
        assert waited.cause == "unable"
        assert waited.error.startswith("fenced:")
        assert ground.count(Ended, 2) == 0
        # Confirmed again: the next one begins.
        confirm(ground, 0)
        ground.sh(4, "true", lease=LEASE)
        assert (await ground.ended(4)).exit == 0

    play(story, tmp_path, "subreaper", slots=1)
