"""What judges the simulations can fail itself."""

from __future__ import annotations

from collections import Counter

import pytest

from grampus.testing.seeds import Outcome
from tests.simulation.play import Seeds
from tests.simulation.teeth import Patch, Teeth


def outcome(seed: int, error: str = "") -> Outcome:
    return Outcome(seed, error, ["it begins", "it ends"], Counter({"ended": 1}), 1.0)


def test_a_bug_that_no_seed_notices_is_told_by_its_name(monkeypatch: Patch) -> None:
    played: list[int] = []

    def blind(seed: int) -> Outcome:
        played.append(seed)
        return outcome(seed)

    teeth = Teeth(blind, seeds=3)

    @teeth.bug(9)
    def hides_well(patch: Patch) -> None: ...

    assert teeth.names() == ["hides_well"]
    with pytest.raises(AssertionError, match="no seed notices that it hides well"):
        teeth.bite("hides_well", monkeypatch)
    assert played == [9, 1, 2, 3]


def test_a_seed_that_fails_tells_the_command_that_repeats_it() -> None:
    seeds = Seeds(lambda seed: outcome(seed, "two of one" if seed == 5 else ""), "a.module")
    assert seeds.end_well(range(1, 5)) == {"ended": 4}
    with pytest.raises(AssertionError, match=r"seed 5: two of one\n.*-m a.module --seed 5"):
        seeds.end_well(range(1, 9))
