"""One node under faults, from seeds: a failing one prints the command that repeats it.

`make soak` plays others, for as many minutes as it was given.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from grampus.testing.seeds import tell
from grampus.testing.simulation import FAULT_KINDS, MODULE, run_seed

BATCH = 10


@pytest.mark.parametrize("first", range(41, 121, BATCH))
def test_everything_ends_well_whatever_fails(first: int) -> None:
    for seed in range(first, first + BATCH):
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)


def test_a_seed_is_one_history() -> None:
    one, other = run_seed(7), run_seed(7)
    assert one.trace == other.trace
    assert one.seen == other.seen
    assert len(one.trace) > 20


def test_the_seeds_reach_what_they_are_for() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1, 41):
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)
        seen += outcome.seen
    wanted = [f"fault {kind}" for kind in FAULT_KINDS]
    wanted += ["LOST", "CANCELLED", "FAILED", "TIMED_OUT", "SUCCEEDED", "outlived its worker"]
    wanted += ["tick run", "tick missed", "tick paused", "tick skipped"]
    wanted += ["RunCancelling", "RunDeleted", "RunRetried", "RunPaused", "SessionEnded"]
    assert [what for what in wanted if not seen[what]] == []


@pytest.mark.skipif("SOAK" not in os.environ, reason="make soak plays it")
def test_many_other_seeds() -> None:
    until = time.monotonic() + 60 * int(os.environ["SOAK"])
    seed = time.time_ns() // 1_000_000_000 * 1_000
    while time.monotonic() < until:
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)
        seed += 1
