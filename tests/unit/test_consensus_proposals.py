"""What a leader's proposals are answered, whatever becomes of their entries."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from grampus.consensus.piece import Piece, Proposal
from grampus.consensus.port import Stopped
from grampus.consensus.proposals import Proposals
from grampus.consensus.writer import Limits
from grampus.errors import NotLeader, OutcomeUnknown, Overloaded
from tests.looped import looped

DEPOSED = NotLeader("another leads")


def put_in_log(proposals: Proposals, index: int, term: int) -> list[bytes]:
    """As the leader does; the payloads."""
    entries = proposals.entries()
    proposals.proposed(index, term, [pieces for _, pieces in entries])
    return [payload for payload, _ in entries]


def outcome(proposal: Proposal) -> object:
    """Its results, its error's class, or None."""
    if not proposal.future.done():
        return None
    error = proposal.future.exception()
    return proposal.future.result() if error is None else type(error)


def admitted(proposals: Proposals, *calls: Sequence[bytes]) -> list[Proposal]:
    return [proposals.admit(call) for call in calls]


@looped
async def test_what_waits_shares_an_entry_and_each_gets_its_own_answers() -> None:
    proposals = Proposals(Limits())
    one, two = admitted(proposals, [b"a", b"b"], [b"c"])
    assert len(put_in_log(proposals, 5, 1)) == 1
    assert proposals.in_flight == 3
    proposals.applied(5, 1, ["A", "B", "C"])
    assert (outcome(one), outcome(two)) == (["A", "B"], ["C"])
    assert proposals.in_flight == 0


@looped
async def test_a_long_call_takes_several_entries_and_is_answered_as_one() -> None:
    proposals = Proposals(Limits(entry_commands=2))
    (long,) = admitted(proposals, [b"1", b"2", b"3", b"4", b"5"])
    assert len(put_in_log(proposals, 7, 1)) == 3
    proposals.applied(7, 1, [1, 2])
    proposals.applied(8, 1, [3, 4])
    assert outcome(long) is None
    proposals.applied(9, 1, [5])
    assert outcome(long) == [1, 2, 3, 4, 5]


@looped
async def test_more_than_the_bounds_is_refused_and_leaves_no_trace() -> None:
    proposals = Proposals(Limits(in_flight_commands=3, in_flight_bytes=10, entry_bytes=8))
    admitted(proposals, [b"a", b"b"])
    with pytest.raises(Overloaded):
        proposals.admit([b"c", b"d"])
    with pytest.raises(Overloaded):
        proposals.admit([b"12345678"] * 1 + [b"1"] * 1)
    with pytest.raises(ValueError, match="at most"):
        proposals.admit([b"123456789"])
    assert proposals.in_flight == 2


@looped
async def test_an_entry_of_another_term_in_its_place_means_that_it_did_not_happen() -> None:
    proposals = Proposals(Limits())
    (mine,) = admitted(proposals, [b"a"])
    put_in_log(proposals, 5, 1)
    proposals.deposed(DEPOSED)
    assert outcome(mine) is None, "the next leader may commit it yet"
    proposals.applied(5, 2, ["another's"])
    assert outcome(mine) is NotLeader
    assert proposals.in_flight == 0


@looped
async def test_what_the_next_leader_commits_is_answered() -> None:
    proposals = Proposals(Limits())
    (mine,) = admitted(proposals, [b"a"])
    put_in_log(proposals, 5, 1)
    proposals.deposed(DEPOSED)
    proposals.applied(5, 1, ["A"])
    assert outcome(mine) == ["A"]


@pytest.mark.parametrize(
    ("committed", "first", "second"), [(1, ["A"], NotLeader), (3, NotLeader, ["A"])]
)
@looped
async def test_who_led_twice_may_have_two_entries_at_one_index(
    committed: int, first: object, second: object
) -> None:
    proposals = Proposals(Limits())
    (early,) = admitted(proposals, [b"a"])
    put_in_log(proposals, 5, 1)
    proposals.deposed(DEPOSED)
    (late,) = admitted(proposals, [b"b"])
    put_in_log(proposals, 5, 3)
    proposals.applied(5, committed, ["A"])
    assert (outcome(early), outcome(late)) == (first, second)
    assert proposals.in_flight == 0


@looped
async def test_what_waits_when_leadership_is_lost_did_not_happen() -> None:
    proposals = Proposals(Limits())
    (begun,) = admitted(proposals, [b"a"])
    put_in_log(proposals, 5, 1)
    (waits,) = admitted(proposals, [b"b"])
    proposals.deposed(DEPOSED)
    assert (outcome(begun), outcome(waits)) == (None, NotLeader)
    assert proposals.entries() == []
    assert proposals.in_flight == 1


@looped
async def test_a_call_of_which_a_part_is_in_the_log_is_unknown() -> None:
    proposals = Proposals(Limits(entry_commands=1))
    (call,) = admitted(proposals, [b"a", b"b"])
    first, second = (pieces for _, pieces in proposals.entries())
    proposals.proposed(5, 1, [first])
    proposals.applied(5, 1, ["A"])
    proposals.dropped([second], DEPOSED)
    assert outcome(call) is OutcomeUnknown


@looped
async def test_at_the_end_only_what_is_in_the_log_is_unknown() -> None:
    proposals = Proposals(Limits())
    (begun,) = admitted(proposals, [b"a"])
    put_in_log(proposals, 5, 1)
    (waits,) = admitted(proposals, [b"b"])
    proposals.give_up(Stopped("it has stopped"), OutcomeUnknown("it has stopped"))
    assert (outcome(begun), outcome(waits)) == (OutcomeUnknown, Stopped)
    assert proposals.in_flight == 0


@looped
async def test_who_waits_no_longer_is_still_counted_until_its_entry_is_known() -> None:
    proposals = Proposals(Limits())
    slow = proposals.admit([b"a"], deadline=10.5)
    put_in_log(proposals, 5, 1)
    proposals.expire(10.0)
    assert outcome(slow) is None
    proposals.expire(10.5)
    assert proposals.in_flight == 1
    proposals.applied(5, 1, ["A"])
    assert outcome(slow) is OutcomeUnknown
    assert proposals.in_flight == 0


@looped
async def test_a_change_of_members_is_known_by_its_term_too() -> None:
    proposals = Proposals(Limits())
    pieces: list[Piece] = [proposals.admit_change(), proposals.admit_change()]
    proposals.proposed(5, 1, [[pieces[0]]])
    proposals.proposed(6, 1, [[pieces[1]]])
    proposals.applied(5, 1, [])
    proposals.applied(6, 2, [])
    assert [outcome(piece.proposal) for piece in pieces] == [[], NotLeader]


@looped
async def test_who_came_late_after_tries_elsewhere_does_not_wait_for_those_before() -> None:
    proposals = Proposals(Limits())
    patient = proposals.admit([b"a"], 20.0)
    hurried = proposals.admit([b"b"], 10.0)
    proposals.expire(10.0)
    assert (outcome(patient), outcome(hurried)) == (None, OutcomeUnknown)
