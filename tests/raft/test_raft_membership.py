"""Changes of members: learners, voters, joint configurations, and a leader that removes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from grampus_raft import ProposalDropped, RaftNode

from tests.raft.group import ADD, FOLLOWER, LEADER, LEARNER, REMOVE, Group, voters

if TYPE_CHECKING:
    from grampus_raft import Entry


def change(g: Group, changes: list[tuple[int, int]], transition: int = 0, ticks: int = 3) -> None:
    g[g.leader].propose_conf_change(changes, transition, b"")  # type: ignore[arg-type]
    g.tick(ticks)


def test_a_joiner_becomes_learner_then_voter_then_leader() -> None:
    g = Group()
    g.elect(1).propose([b"a"])
    g.settle()
    g.add(4)
    change(g, [(LEARNER, 4)], ticks=5)
    assert g.members[4].disk.members == ([1, 2, 3], [4], [], [], False)
    assert g[1].status()["peers"][4][0] == g[1].status()["last"], "it has caught up"
    change(g, [(ADD, 4)])
    assert sorted(g.members[4].disk.members[0]) == [1, 2, 3, 4]
    g[1].transfer_leader(4)
    g.settle()
    assert g.leader == 4


def test_the_entry_carries_index_term_and_context() -> None:
    g = Group()
    index, term = g.elect(1).propose_conf_change([(LEARNER, 4)], 0, b"join 4")
    g.settle()
    entry = next(e for e in g.members[2].disk.applied if e[0] == index)
    assert (entry[1], entry[2], entry[4]) == (term, 2, b"join 4")


def test_a_joint_change_is_left_by_itself() -> None:
    g = Group()
    g.elect(1)
    g.add(4)
    change(g, [(LEARNER, 4)], ticks=5)
    change(g, [(ADD, 4), (REMOVE, 2)], 1)
    for id in (1, 3, 4):
        now, learners, outgoing, _, _ = g.members[id].disk.members
        assert (sorted(now), learners, outgoing) == ([1, 3, 4], [], [])


def test_an_explicit_joint_change_stays_until_it_is_left() -> None:
    g = Group()
    leader = g.elect(1)
    change(g, [(REMOVE, 3)], 2)
    joint = g.members[1].disk.members
    assert (sorted(joint[0]), sorted(joint[2]), joint[4]) == ([1, 2], [1, 2, 3], False)
    with pytest.raises(ValueError, match="joint"):
        leader.propose_conf_change([(ADD, 3)], 0, b"")
    change(g, [], 2)
    assert (sorted(g.members[1].disk.members[0]), g.members[1].disk.members[2]) == ([1, 2], [])


def test_a_demoted_voter_is_a_next_learner_while_the_change_is_joint() -> None:
    g = Group()
    g.elect(1)
    change(g, [(LEARNER, 3)], 2)
    assert g.members[2].disk.members[3] == [3]
    change(g, [])
    assert g.members[2].disk.members[1] == [3]


def test_a_joint_configuration_needs_both_majorities() -> None:
    g = Group()
    leader = g.elect(1)
    change(g, [(REMOVE, 3)], 2)
    g.cut = {2}
    leader.propose([b"x"])
    g.tick(3)
    assert b"x" not in g.members[1].data, "1 and 3 are a majority of the old voters only"
    g.cut = set()
    g.tick(5)
    assert b"x" in g.members[1].data


def test_a_second_change_waits_for_the_first() -> None:
    g = Group()
    leader = g.elect(1)
    leader.propose_conf_change([(LEARNER, 4)], 0, b"")
    with pytest.raises(ProposalDropped, match="not applied yet"):
        leader.propose_conf_change([(LEARNER, 5)], 0, b"")
    g.settle()
    leader.propose_conf_change([(LEARNER, 5)], 0, b"")


@pytest.mark.parametrize(
    ("changes", "transition", "reason"),
    [
        ([], 0, "non-joint"),
        ([(3, 4)], 0, "no change 3"),
        ([(-1, 4)], 0, "no change -1"),
        ([(ADD, 0)], 0, "id 0"),
        ([(ADD, 4)], 3, "no transition 3"),
        ([(REMOVE, 1), (REMOVE, 2), (REMOVE, 3)], 1, "removed all voters"),
    ],
)
def test_impossible_changes_are_refused_before_they_are_appended(
    changes: list[tuple[int, int]], transition: int, reason: str
) -> None:
    g = Group()
    leader = g.elect(1)
    with pytest.raises(ValueError, match=reason):
        leader.propose_conf_change(changes, transition, b"")  # type: ignore[arg-type]
    assert not leader.has_ready()


def test_the_only_voter_cannot_be_removed() -> None:
    g = Group(1)
    with pytest.raises(ValueError, match="removed all voters"):
        g.elect(1).propose_conf_change([(REMOVE, 1)], 0, b"")


def test_a_leader_that_removes_itself_becomes_a_follower_and_the_rest_go_on() -> None:
    g = Group()
    leader = g.elect(1)
    change(g, [(REMOVE, 1)])
    assert g.members[1].role == FOLLOWER
    with pytest.raises(ProposalDropped):
        leader.propose([b"x"])
    g.tick(40)
    assert g.leader in (2, 3)
    g[g.leader].propose([b"y"])
    g.settle()
    assert g.members[2].data == g.members[3].data == [b"y"]


def test_a_leader_that_makes_itself_a_learner_becomes_a_follower() -> None:
    g = Group()
    g.elect(1)
    change(g, [(LEARNER, 1)])
    assert g.members[1].role == FOLLOWER
    g.tick(40)
    assert g.leader in (2, 3)


def test_a_removed_node_does_not_disturb_the_others() -> None:
    g = Group()
    leader = g.elect(1)
    change(g, [(REMOVE, 3)])
    term = leader.status()["term"]
    g.tick(80)
    assert (g.leader, leader.status()["term"]) == (1, term)


def test_promoting_a_member_that_is_not_there_keeps_the_old_majority_working() -> None:
    g = Group()
    leader = g.elect(1)
    change(g, [(ADD, 4)])
    leader.propose([b"x"])
    g.tick(3)
    assert b"x" in g.members[1].data, "three of four suffice"


#: No change of members, no entry of that kind, an unknown change, bytes, an unknown field inside.
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (0, b""),
        (3, b""),
        (1, b"\x10\x09\x18\x01"),
        (2, b"\xff"),
        (2, b"\x12\x05\x10\x04\xf0\x01\x01"),
    ],
)
def test_only_changes_of_members_can_be_applied(kind: int, data: bytes) -> None:
    g = Group()
    with pytest.raises(ValueError, match=r"kind|change of members"):
        g.elect(1).apply_conf_change(kind, data)


def open_turn(leader: RaftNode, item: bytes = b"x") -> None:
    leader.propose([item])
    assert leader.ready() is not None


def test_a_change_may_be_applied_while_a_turn_is_open() -> None:
    g = Group(1)
    leader = g.elect(1)
    index, _ = leader.propose_conf_change([(LEARNER, 2)], 0, b"")
    assert leader.ready() is not None
    _, _, committed = leader.advance()
    open_turn(leader)
    assert leader.apply_conf_change(*committed[-1][2:4]) == ([1], [2], [], [], False)
    leader.advance_apply(index)
    _, _, more = leader.advance()
    assert [e[3] for e in more] == [b"x"]
    assert leader.status()["applied"] == index


def test_a_joint_change_applied_while_a_turn_is_open_is_still_left_by_itself() -> None:
    """Leaving appends an entry, which the open turn must not contain: raft-rs would panic."""
    g = Group(1)
    leader = g.elect(1)
    index, _ = leader.propose_conf_change([(LEARNER, 2)], 1, b"")
    leader.ready()
    _, _, committed = leader.advance()
    open_turn(leader)
    assert leader.apply_conf_change(*committed[-1][2:4])[4], "joint, to be left by itself"
    leader.advance_apply(index)
    assert leader.status()["applied"] == index
    leader.advance()
    rd = leader.ready()
    assert rd is not None
    assert [e[2:4] for e in rd[2]] == [(2, b"")]


def committed_changes(g: Group, id: int) -> list[Entry]:
    """Drives a leader until changes of members are committed, and applies nothing."""
    for _ in range(20):
        rd = g[id].ready()
        if rd is None:
            continue
        g.members[id].disk.write(rd[2], rd[1], rd[3])
        _, messages, committed = g[id].advance()
        for to, _, encoded in rd[4] + rd[5] + messages:
            g[to].step([encoded])
            for back, _, answer in g.members[to].turn():
                g[back].step([answer])
        if changes := [e for e in rd[6] + committed if e[2]]:
            return changes
    raise AssertionError("no change was committed")


def test_a_leader_may_apply_its_own_removal_while_a_turn_is_open() -> None:
    """It would panic when the open turn turns out to be durable."""
    g = Group()
    leader = g.elect(1)
    index, _ = leader.propose_conf_change([(REMOVE, 1)], 0, b"")
    (removal,) = committed_changes(g, 1)
    open_turn(leader)
    leader.apply_conf_change(*removal[2:4])
    leader.advance_apply(index)
    leader.advance()
    assert leader.status()["role"] == FOLLOWER
    assert [m.role for m in g.members.values()].count(LEADER) == 0


def encoded_change(change: int, id: int) -> bytes:
    leader = Group(1).elect(1)
    leader.propose_conf_change([(change, id)], 0, b"")
    rd = leader.ready()
    assert rd is not None
    return rd[2][-1][3]


def test_even_if_an_earlier_change_gave_it_something_to_send() -> None:
    """Two changes of a former leader are committed together; the first greets a new learner."""
    g = Group()
    changes = [encoded_change(LEARNER, 4), encoded_change(LEARNER, 2)]
    for m in g.members.values():
        m.disk.entries = [(2, 2, 2, changes[0], b""), (3, 2, 2, changes[1], b"")]
        m.disk.hard_state = (2, 0, 1)
        m.start()
    g.add(4)
    g[2].campaign()
    first, second = committed_changes(g, 2)
    open_turn(g[2])
    g[2].apply_conf_change(*first[2:4])
    g[2].apply_conf_change(*second[2:4])
    g[2].advance_apply(3)
    assert g[2].advance()[1] == []
    assert g.members[2].role == FOLLOWER


def test_members_of_a_new_group_are_the_founders() -> None:
    g = Group()
    assert g.members[2].disk.members == voters(1, 2, 3)
    assert set(g.elect(1).status()["peers"]) == {1, 2, 3}
