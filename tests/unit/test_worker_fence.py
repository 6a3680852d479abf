"""Who may not go on, because nobody has confirmed for too long that the worker is heard."""

from __future__ import annotations

from grampus.worker.fence import Ending, Fence


def test_an_attempt_is_asked_to_end_at_60_percent_and_killed_at_80() -> None:
    fence = Fence()
    fence.confirm(1_000)
    fence.begin(1, 10_000)
    fence.begin(2, 30_000)
    fence.begin(3, None)
    assert fence.look(6_999) == []
    assert fence.look(7_000) == [Ending(1, 2_000)]
    assert fence.look(8_999) == []
    assert fence.look(9_000) == [Ending(1, 0)]
    assert fence.look(18_999) == []
    assert fence.look(19_000) == [Ending(2, 6_000)]
    assert fence.look(10**9) == [Ending(2, 0)]
    assert fence.look(10**9) == []
    assert (fence.end(1), fence.end(2), fence.end(3)) == (True, True, False)
    assert not fence.watches


def test_a_confirmation_moves_it_on_and_one_that_was_sent_earlier_does_not_move_it_back() -> None:
    fence = Fence()
    fence.confirm(0)
    fence.begin(1, 10_000)
    fence.confirm(5_000)
    fence.confirm(4_000)
    assert fence.look(10_999) == []
    assert fence.look(11_000) == [Ending(1, 2_000)]


def test_what_has_passed_is_passed() -> None:
    fence = Fence()
    fence.confirm(0)
    fence.begin(1, 10_000)
    assert fence.look(6_000) == [Ending(1, 2_000)]
    fence.confirm(6_000)
    assert fence.look(8_000) == [Ending(1, 0)]


def test_who_wakes_up_after_all_of_it_kills_at_once() -> None:
    fence = Fence()
    fence.confirm(0)
    fence.begin(1, 10_000)
    assert fence.look(3_600_000) == [Ending(1, 0)]
    assert fence.end(1)


def test_nothing_begins_before_a_server_has_confirmed_nor_too_late() -> None:
    fence = Fence()
    assert fence.bars(10_000, 0)
    assert not fence.bars(None, 0)
    fence.confirm(0)
    assert not fence.bars(10_000, 5_999)
    assert fence.bars(10_000, 6_000)
    assert not fence.bars(30_000, 6_000)
    assert not fence.bars(None, 10**9)


def test_there_is_nothing_to_look_at_before_the_shortest_lease_is_in_danger() -> None:
    fence = Fence()
    assert fence.rests(10**9)
    fence.confirm(0)
    assert fence.rests(5_999)
    assert not fence.rests(6_000)


def test_it_says_why() -> None:
    fence = Fence()
    assert fence.why(30_000, 9) == ("fenced: no server confirmed its worker, and its lease is 30s")
    fence.confirm(1_000)
    assert fence.why(30_000, 19_020) == (
        "fenced: no server confirmed its worker for 18s, and its lease is 30s"
    )
