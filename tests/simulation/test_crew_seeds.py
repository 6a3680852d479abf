"""Workers on machines of their own, under faults, from seeds: a failing one prints the command that
repeats it."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from grampus.testing.crew import FAULT_KINDS, MODULE, run_seed
from grampus.testing.seeds import tell

BATCH = 5


@pytest.mark.parametrize("first", range(51, 71, BATCH))
def test_nothing_runs_beside_itself_whoever_falls_silent(first: int) -> None:
    for seed in range(first, first + BATCH):
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)


def test_a_seed_is_one_history() -> None:
    one, other = run_seed(3), run_seed(3)
    assert one.trace == other.trace
    assert one.seen == other.seen


def test_the_seeds_reach_what_they_are_for() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1, 31):
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)
        seen += outcome.seen
    wanted = [f"fault {kind}" for kind in FAULT_KINDS]
    wanted += ["fenced", "lease over", "lost as fenced", "overslept", "SessionSilent"]
    assert [what for what in wanted if not seen[what]] == []


@pytest.mark.skipif("SOAK" not in os.environ, reason="make soak plays it")
def test_many_other_seeds() -> None:
    until = time.monotonic() + 60 * int(os.environ["SOAK"])
    seed = time.time_ns() // 1_000_000_000 * 1_000
    while time.monotonic() < until:
        outcome = run_seed(seed)
        assert not outcome.error, "\n" + tell(outcome, MODULE)
        seed += 1
