"""How a cluster grows and heals by itself, and what it tells a person."""

from __future__ import annotations

import pytest

from grampus.consensus.hearing import LATELY, Hearing
from grampus.consensus.members import GIVEN_UP, Conf, MemberChange, Members
from grampus.consensus.membership import (
    LEARNER,
    REMOVE,
    VOTER,
    Step,
    can_lose,
    next_step,
    survives,
)
from grampus.consensus.roll import advice, lines, spare
from grampus.model.member import Member

NAMES = {1: "a", 2: "b", 3: "c", 4: "d", 5: "e", 6: "f", 12: "b"}


def members(
    voters: list[int], learners: list[int] | None = None, lost: tuple[int, ...] = ()
) -> Members:
    ids = [*voters, *(learners or [])]
    known = tuple(Member(id, NAMES[id], "127.0.0.1", 8000 + id, 9000 + id) for id in ids)
    return Members((voters, learners or [], [], [], False), known, lost)


def close(
    *ids: int, behind: tuple[int, ...] = (), silent: tuple[int, ...] = ()
) -> dict[int, tuple[int, int, int, bool, bool, int]]:
    progress = {id: (1000, 1001, 1, False, True, 0) for id in ids}
    progress |= {id: (10, 11, 1, False, True, 0) for id in behind}
    return progress | {id: (1000, 1001, 1, False, False, 0) for id in silent}


def changes(step: Step | None) -> list[tuple[int, int]]:
    return [] if step is None else list(step.changes)


@pytest.mark.parametrize(
    ("there", "progress", "wanted"),
    [
        pytest.param(members([1]), close(1), [], id="alone"),
        pytest.param(members([1], [2]), close(1, 2), [], id="two-voters-are-no-better-than-one"),
        pytest.param(
            members([1], [2, 3]), close(1, 2, 3), [(VOTER, 2), (VOTER, 3)], id="two-at-once"
        ),
        pytest.param(members([1], [2, 3]), close(1, 2, behind=(3,)), [], id="one-is-behind"),
        pytest.param(members([1], [2, 3]), close(1, 2, silent=(3,)), [], id="one-is-silent"),
        pytest.param(members([1, 2], [3]), close(1, 2, 3), [(VOTER, 3)], id="two-become-three"),
        pytest.param(members([1, 2, 3], [4]), close(1, 2, 3, 4), [], id="four-stay-three"),
        pytest.param(
            members([1, 2, 3, 4, 5], [6]), close(1, 2, 3, 4, 5, 6), [], id="five-are-enough"
        ),
        pytest.param(
            members([1, 2, 3], [12], (2,)), close(1, 3, 12), [(VOTER, 12), (REMOVE, 2)],
            id="a-successor-takes-the-place",
        ),
        pytest.param(
            members([1, 2, 3], [12], (2,)), close(1, 3, behind=(12,)), [], id="too-early"
        ),
        pytest.param(members([1, 2, 3], [], (2,)), close(1, 3), [], id="no-successor-yet"),
        pytest.param(
            members([1, 3], [2], (2,)), close(1, 3), [(REMOVE, 2)], id="a-lost-learner-just-goes"
        ),
    ],
)  # fmt: skip
def test_the_next_step(
    there: Members,
    progress: dict[int, tuple[int, int, int, bool, bool, int]],
    wanted: list[tuple[int, int]],
) -> None:
    assert changes(next_step(there, progress, 1050)) == wanted


def test_in_a_young_cluster_a_newcomer_without_anything_has_not_caught_up() -> None:
    probed = {
        1: (9, 10, 1, False, True, 0),
        2: (0, 1, 0, False, True, 0),
        3: (0, 1, 2, True, True, 7),
    }
    assert next_step(members([1], [2, 3]), probed, 9) is None


def test_nothing_is_asked_for_in_a_joint_configuration() -> None:
    joint = Members(([1, 2, 3], [4, 5], [1], [], True), members([1, 2, 3], [4, 5]).known)
    assert next_step(joint, close(1, 2, 3, 4, 5), 1000) is None


def test_who_is_in_no_list_any_more_is_removed_for_good() -> None:
    three = members([1, 2, 3])
    conf: Conf = ([1, 3], [], [], [], False)
    after = three.after(conf, MemberChange())
    assert [member.name for member in after.known] == ["a", "c"]
    assert after.removed == (2,)
    assert Members.decode(after.encode()) == after


def test_a_lost_server_stays_until_its_successor_is_there() -> None:
    conf: Conf = ([1, 2, 3], [], [], [], False)
    marked = members([1, 2, 3]).after(conf, MemberChange(lost=(2,)))
    assert marked.lost == (2,)
    new = Member(12, "b", "127.0.0.1", 1, 2)
    joined = marked.after(([1, 2, 3], [12], [], [], False), MemberChange((new,)))
    assert [m.id for m in joined.named("b")] == [2, 12]
    swapped = joined.after(([1, 3, 12], [], [], [], False), MemberChange())
    assert (swapped.lost, swapped.removed) == ((), (2,))
    assert [m.id for m in swapped.named("b")] == [12]


@pytest.mark.parametrize(
    ("voters", "answering", "left"), [(1, 1, 0), (3, 3, 1), (3, 2, 0), (3, 1, -1), (5, 5, 2)]
)
def test_how_many_may_still_be_lost(voters: int, answering: int, left: int) -> None:
    all_of_them = members(list(range(1, voters + 1)))
    assert can_lose(all_of_them, range(1, answering + 1)) == left


def test_while_the_members_change_the_weaker_side_counts() -> None:
    known = members([1, 2, 3, 4, 5]).known
    growing = Members(([1, 2, 3, 4, 5], [], [1, 2, 3], [], True), known)
    assert can_lose(growing, {1, 2, 3, 4, 5}) == 1, "two of the three that voted before"
    assert can_lose(growing, {3, 4, 5}) == -1, "three of five, and one of three"
    rows = lines(growing, 0, {}, 1000, {}, 3)
    assert [row.role for row in rows] == ["voter", "voter", "voter", "learner", "learner"]
    told = advice(rows, 5, None, -1, ["a", "b", "c"])[0]
    assert "until 3 of 5 voters, and 2 of a, b, c can reach each other" in told


def test_a_silent_server_is_named_with_what_to_type() -> None:
    three = members([1, 2, 3])
    progress = close(1, 2, silent=(3,))
    rows = lines(three, 1, progress, 1000, {3: "connection refused"})
    assert [(row.name, row.state, row.behind) for row in rows] == [
        ("a", "leads", 0), ("b", "follows", 0), ("c", "silent", 0),
    ]  # fmt: skip
    left = spare(three, 1, progress)
    assert left == 0
    assert advice(rows, 3, "a", left) == [
        "c does not answer at 127.0.0.1:8003: connection refused. Start it again; if its folder is"
        " lost: grampus cluster replace c",
        "One more silent voter, and no write is taken any more.",
    ]


def test_two_voters_and_one_who_waits_are_told_to_become_three() -> None:
    rows = lines(members([1], [2]), 1, close(1, 2), 1000, {})
    assert advice(rows, 1, "a", 0)[-1].startswith("b has everything, and votes once a third")
    rows = lines(members([1, 2]), 1, close(1, 2), 1000, {})
    assert "Let a third server join" in advice(rows, 2, "a", 0)[-1]


def test_a_lost_server_is_replaced_not_started_again() -> None:
    marked = members([1, 2, 3]).after(([1, 2, 3], [], [], [], False), MemberChange(lost=(3,)))
    rows = lines(marked, 1, close(1, 2, silent=(3,)), 1000, {})
    assert advice(rows, 3, "a", 0)[0].startswith("c is being replaced: start its successor")
    assert (marked.void(3), marked.void(1)) == (GIVEN_UP, "")


def test_a_peer_is_silent_only_when_it_was_not_active_for_a_while() -> None:
    hearing = Hearing()
    active, quiet = {2: (9, 10, 1, False, True, 0)}, {2: (9, 10, 1, False, False, 0)}
    assert not hearing.look(10.0, quiet)[2][4]
    assert hearing.look(10.2, active)[2][4]
    assert hearing.look(10.4, quiet)[2] == active[2]
    assert hearing.look(10.2 + LATELY, quiet) == quiet
    assert hearing.look(20.0, {}) == {}


def test_without_a_leader_the_way_out_comes_first() -> None:
    rows = lines(members([1, 2, 3]), 0, {}, 1000, {3: "connection refused"}, 1)
    assert [row.state for row in rows] == ["waits", "unknown", "silent"]
    first, second = advice(rows, 3, None, -1)
    assert first.startswith("No server leads: writes are refused until 2 of 3 voters")
    assert "grampus cluster recover" in first
    assert second.endswith(
        "c does not answer at 127.0.0.1:8003: connection refused. Start it again."
    )


def test_learner_is_a_role_of_its_own() -> None:
    rows = lines(members([1], [2]), 1, close(1, behind=(2,)), 5000, {})
    assert (rows[1].role, rows[1].state, rows[1].behind) == ("learner", "behind", 4990)
    assert LEARNER == 2


@pytest.mark.parametrize(
    ("without", "answer", "fine"),
    [(3, (1, 2), True), (2, (1, 2, 3), True), (2, (1, 2), False), (3, (1,), False)],
)
def test_nobody_is_removed_whose_vote_is_needed(
    without: int, answer: tuple[int, ...], fine: bool
) -> None:
    assert survives(members([1, 2, 3]), without, answer) is fine


def test_what_a_new_leader_has_not_heard_of_a_silent_server_is_not_called_a_lack() -> None:
    known = members([1, 2, 3])
    progress = {2: (106, 107, 1, False, True, 0), 3: (0, 107, 0, False, False, 0)}
    rows = lines(known, 1, progress, 106, {3: "connection refused"})
    assert [(row.state, row.behind) for row in rows] == [
        ("leads", 0),
        ("follows", 0),
        ("silent", None),
    ]
    # What it has said once stays known; who answers and has nothing lacks everything.
    progress = {2: (0, 1, 0, False, True, 0), 3: (100, 101, 0, False, False, 0)}
    rows = lines(known, 1, progress, 106, {3: "connection refused"})
    assert [row.behind for row in rows] == [0, 106, 6]
