"""What the tests of all simulations ask of their seeds."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from grampus.testing.seeds import Outcome, tell

soaks = pytest.mark.skipif("SOAK" not in os.environ, reason="make soak plays it")


class Seeds:
    """Those of one simulation, which `module` plays on the command line."""

    def __init__(self, play: Callable[[int], Outcome], module: str) -> None:
        self._play = play
        self._module = module

    def end_well(self, seeds: Iterable[int]) -> Counter[str]:
        """What happened in them, and how often."""
        seen: Counter[str] = Counter()
        for seed in seeds:
            outcome = self._play(seed)
            assert not outcome.error, "\n" + tell(outcome, self._module)
            seen += outcome.seen
        return seen

    def is_one_history(self, seed: int) -> None:
        one, other = self._play(seed), self._play(seed)
        assert one.trace == other.trace
        assert one.seen == other.seen
        assert len(one.trace) > 20

    def soak(self) -> None:
        """Others than those, for as many minutes as SOAK says."""
        until = time.monotonic() + 60 * int(os.environ["SOAK"])
        seed = time.time_ns() // 1_000_000_000 * 1_000
        while time.monotonic() < until:
            self.end_well([seed])
            seed += 1
