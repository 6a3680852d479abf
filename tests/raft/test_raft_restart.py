"""What a node must remember. Random faults do not find a forgotten vote; these tests do."""

from __future__ import annotations

import pytest

from tests.raft.group import CANDIDATE, LEADER, Disk, Group, Member, voters

VOTE_REQUEST, VOTE = 5, 6


def candidates() -> Group:
    """Nodes 1 and 2 stand for election in the same term; 3 has voted for 1 and written it down."""
    g = Group(pre_vote=False)
    for id in (1, 2):
        g[id].campaign()
    ask(g, 1)
    return g


def ask(g: Group, candidate: int) -> None:
    """The candidate's request goes to 3, and 3's answer comes back."""
    for to, kind, encoded in g.members[candidate].turn():
        if (to, kind) == (3, VOTE_REQUEST):
            g[3].step([encoded])
    for to, _, encoded in g.members[3].turn():
        g[to].step([encoded])


def test_a_vote_is_written_before_it_is_sent() -> None:
    g = Group(pre_vote=False)
    g[1].campaign()
    request = next(encoded for to, _, encoded in g.members[1].turn() if to == 3)
    g[3].step([request])
    rd = g[3].ready()
    assert rd is not None
    assert rd[:2] == (True, (2, 1, 1)), "must_sync; term, vote, commit"
    assert rd[4] == []
    assert [(to, kind) for to, kind, _ in rd[5]] == [(1, VOTE)]


def test_a_vote_is_honoured_after_a_restart() -> None:
    g = candidates()
    assert g.members[1].role == LEADER
    g.members[3].start()
    assert (g[3].status()["term"], g[3].status()["vote"]) == (2, 1)
    ask(g, 2)
    assert g.members[2].role == CANDIDATE
    assert g[2].status()["term"] == g[1].status()["term"]


def test_without_the_vote_there_would_be_two_leaders() -> None:
    """The teeth of the test above: a driver that does not write the vote is caught by it."""
    g = candidates()
    term, _, commit = g.members[3].disk.hard_state
    g.members[3].disk.hard_state = (term, 0, commit)
    g.members[3].start()
    ask(g, 2)
    assert [g.members[i].role for i in (1, 2)] == [LEADER, LEADER]
    assert g[2].status()["term"] == g[1].status()["term"]


def test_a_node_goes_on_with_its_log_and_members() -> None:
    g = Group()
    g.elect(1).propose([b"a"])
    g.tick(3)
    for m in g.members.values():
        m.start()
    g.tick(25)
    g[g.leader].propose([b"b"])
    g.tick(3)
    assert [m.data for m in g.members.values()] == [[b"a", b"b"]] * 3


def test_committed_entries_that_were_not_applied_are_handed_out_again() -> None:
    g = Group()
    index, _ = g.elect(1).propose([b"a", b"b"])
    g.tick(3)
    disk = g.members[2].disk
    disk.applied = [e for e in disk.applied if e[0] <= index]
    g.members[2].start()
    assert g[2].status()["applied"] == index
    g.members[2].turn()
    assert g.members[2].data == [b"a", b"b"]


def test_an_uncommitted_tail_is_replaced_by_the_new_leader_s() -> None:
    g = Group()
    g.elect(1)
    g.cut = {1}
    g[1].propose([b"lost"] * 3)
    g.settle()
    g.tick(40)
    g[g.leader].propose([b"kept"])
    g.settle()
    g.members[1].start()
    assert g[1].status()["last"] == 5
    g.cut = set()
    g.tick(5)
    assert [e[3] for e in g.members[1].disk.entries if e[3]] == [b"kept"]


def test_members_are_those_as_of_applied() -> None:
    g = Group()
    g.elect(1).propose_conf_change([(2, 4)], 0, b"")
    g.tick(3)
    assert g.members[2].disk.members[1] == [4]
    g.members[2].start()
    g[2].campaign()
    disk = Disk.founder(voters(1, 2, 3))
    disk.hard_state, disk.entries = g.members[2].disk.hard_state, g.members[2].disk.entries
    replayed = Member(2, disk)
    replayed.turn()
    assert disk.members == g.members[2].disk.members


@pytest.mark.parametrize("keep", range(5))
def test_a_torn_write_of_entries_is_repaired_by_the_leader(keep: int) -> None:
    g = Group()
    g.elect(1)
    g[1].propose([b"%d" % n for n in range(5)])
    rd = g[1].ready()
    assert rd is not None
    to, _, encoded = rd[4][0]
    g[to].step([encoded])
    torn = g[to].ready()
    assert torn is not None
    g.members[to].disk.write(torn[2][:keep], None, None)
    g.members[to].start()
    g[1].advance()
    g.tick(25)
    assert g.members[to].data in ([], [b"%d" % n for n in range(5)])
    g.tick(25)
    assert g.leader
