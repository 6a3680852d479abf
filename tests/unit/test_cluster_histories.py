"""Who has seen the newer history never goes back to the older one."""

from __future__ import annotations

import pytest

from grampus.cluster.core.histories import MOST_LEFT, SKIP, Histories, Remembered
from grampus.errors import FolderError


def test_it_goes_on_to_a_newer_one_and_never_back() -> None:
    seen = Histories()
    assert seen.goes_with("h1", 17)
    assert seen.goes_with("h2", SKIP + 1)
    assert not seen.goes_with("h1", 2**40)
    assert seen.goes_with("h2", SKIP + 5)
    assert seen.counts("h2")
    assert not seen.counts("h1")


def test_who_has_met_the_newer_one_first_does_not_take_the_older_one_for_news() -> None:
    seen = Histories()
    assert seen.goes_with("h2", SKIP)
    assert not seen.goes_with("h1", SKIP - 1)
    assert seen.goes_with("h3", 2 * SKIP)
    assert not seen.goes_with("h2", SKIP)


def test_of_two_of_one_age_the_one_that_comes_later_counts_and_stays() -> None:
    seen = Histories()
    assert seen.goes_with("h2", SKIP + 9)
    assert seen.goes_with("h2b", SKIP + 1)
    assert not seen.goes_with("h2", SKIP + 9)


def test_who_tells_none_may_be_asked() -> None:
    seen = Histories()
    assert seen.goes_with("h2", SKIP)
    assert seen.goes_with("", 0)
    assert seen.counts("h2")


def test_what_was_left_is_remembered_within_bounds() -> None:
    kept: list[Remembered] = []
    seen = Histories(keep=kept.append)
    for number in range(3 * MOST_LEFT):
        assert seen.goes_with(f"h{number}", number * SKIP)
    assert len(kept[-1].left) == MOST_LEFT


def test_what_is_remembered_holds_for_the_next_one() -> None:
    kept: list[Remembered] = []
    seen = Histories(keep=kept.append)
    seen.goes_with("h1", 17)
    seen.goes_with("h2", SKIP + 1)
    seen.goes_with("h2", SKIP + 2)
    assert kept == [Remembered("h1", 0), Remembered("h2", 1, ("h1",))]
    again = Histories(kept[-1])
    assert not again.goes_with("h1", 2**40)
    assert not again.goes_with("h0", 17)
    assert again.goes_with("h2", SKIP)


def test_what_cannot_be_kept_does_not_count() -> None:
    def keep(remembered: Remembered) -> None:
        raise FolderError("full")

    seen = Histories(Remembered("h1", 0), keep)
    with pytest.raises(FolderError, match="full"):
        seen.goes_with("h2", SKIP)
    assert seen.counts("h1")
