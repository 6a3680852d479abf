"""One node under faults, from seeds: a failing one prints the command that repeats it.

`make soak` plays others, for as many minutes as it was given.
"""

from __future__ import annotations

import pytest

from grampus.testing.simulation import FAULT_KINDS, MODULE, run_seed
from tests.simulation.play import Seeds, soaks

SEEDS = Seeds(run_seed, MODULE)
BATCH = 10


@pytest.mark.parametrize("first", range(41, 121, BATCH))
def test_everything_ends_well_whatever_fails(first: int) -> None:
    SEEDS.end_well(range(first, first + BATCH))


def test_a_seed_is_one_history() -> None:
    SEEDS.is_one_history(7)


def test_the_seeds_reach_what_they_are_for() -> None:
    seen = SEEDS.end_well(range(1, 41))
    wanted = [f"fault {kind}" for kind in FAULT_KINDS]
    wanted += ["LOST", "CANCELLED", "FAILED", "TIMED_OUT", "SUCCEEDED", "outlived its worker"]
    wanted += ["tick run", "tick missed", "tick paused", "tick skipped"]
    wanted += ["RunCancelling", "RunDeleted", "RunRetried", "RunPaused", "SessionEnded"]
    assert [what for what in wanted if not seen[what]] == []


@soaks
def test_many_other_seeds() -> None:
    SEEDS.soak()
