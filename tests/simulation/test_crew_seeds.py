"""Workers on machines of their own, under faults, from seeds: a failing one prints the command that
repeats it."""

from __future__ import annotations

import pytest

from grampus.testing.crew import FAULT_KINDS, MODULE, run_seed
from tests.simulation.play import Seeds, soaks

SEEDS = Seeds(run_seed, MODULE)
BATCH = 5


@pytest.mark.parametrize("first", range(51, 71, BATCH))
def test_nothing_runs_beside_itself_whoever_falls_silent(first: int) -> None:
    SEEDS.end_well(range(first, first + BATCH))


def test_a_seed_is_one_history() -> None:
    SEEDS.is_one_history(3)


def test_the_seeds_reach_what_they_are_for() -> None:
    seen = SEEDS.end_well(range(1, 31))
    wanted = [f"fault {kind}" for kind in FAULT_KINDS]
    wanted += ["fenced", "lease over", "lost as fenced", "overslept", "SessionSilent"]
    assert [what for what in wanted if not seen[what]] == []


@soaks
def test_many_other_seeds() -> None:
    SEEDS.soak()
