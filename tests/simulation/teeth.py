"""Deliberate bugs: a simulation has teeth when some seed of it catches each of them.

A bug is a function that patches a line or two of the product, with a seed that is likely to catch
it. Its name says what the product does then.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grampus.testing.seeds import Outcome

#: What a patch raises that does not fit what it patches any more.
_BROKEN = ("TypeError", "AttributeError", "NameError", "ImportError")
Patch = pytest.MonkeyPatch
Bug = Callable[[Patch], None]


class Teeth:
    """The bugs of one simulation, by name; each has to hide from `seeds` seeds."""

    def __init__(self, play: Callable[[int], Outcome], seeds: int) -> None:
        self._play = play
        self._seeds = range(1, seeds + 1)
        self._bugs: dict[str, tuple[Bug, int]] = {}

    def bug(self, likely: int) -> Callable[[Bug], None]:
        def add(make: Bug) -> None:
            self._bugs[make.__name__] = make, likely

        return add

    def names(self) -> list[str]:
        return list(self._bugs)

    def bite(self, name: str, patch: Patch) -> None:
        make, likely = self._bugs[name]
        make(patch)
        for seed in (likely, *self._seeds):
            error = self._play(seed).error
            if error.startswith(_BROKEN):
                raise AssertionError(f"the bug itself is broken: {error}")
            if error:
                return
        raise AssertionError(f"no seed notices that it {name.replace('_', ' ')}")
