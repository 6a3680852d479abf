"""Who leads: elections of three nodes, repeatable from a seed, and transfers of leadership."""

from __future__ import annotations

import pytest
from grampus_raft import ProposalDropped

from tests.raft.group import FOLLOWER, LEADER, Disk, Group, Member, voters


def test_three_nodes_elect_one_leader() -> None:
    g = Group()
    g.tick(21)
    leader = g.leader
    assert leader
    assert [g[i].status()["leader"] for i in (1, 2, 3)] == [leader] * 3
    assert len({g[i].status()["term"] for i in (1, 2, 3)}) == 1


def test_the_survivors_of_a_leader_elect_another_in_a_higher_term() -> None:
    g = Group()
    g.elect(1)
    term = g[1].status()["term"]
    g.cut = {1}
    g.tick(40)
    assert g.leader in (2, 3)
    assert g[g.leader].status()["term"] > term
    assert g.members[1].role != LEADER, "a leader without a majority steps down"
    g.cut = set()
    g.tick(5)
    assert g[1].status()["leader"] == g.leader


def test_a_node_that_was_cut_off_does_not_depose_the_leader_when_it_returns() -> None:
    g = Group()
    g.elect(1)
    before = g[1].status()["term"]
    g.cut = {3}
    g.tick(80)
    assert g[3].status()["term"] == before, "pre-vote: it has not raised its term"
    g.cut = set()
    g.tick(30)
    assert (g.leader, g[1].status()["term"]) == (1, before)


def test_elections_repeat_exactly_from_their_seeds() -> None:
    def history(seed: int) -> list[tuple[int, int, int, bytes]]:
        members = {
            i: Member(i, Disk.founder(voters(1, 2, 3)), seed=10 * seed + i) for i in (1, 2, 3)
        }
        g = Group()
        g.members = members
        for cut in ({1}, {2}, set(), {3}):
            g.cut = set(cut)
            g.tick(45)
        return g.sent

    histories = [history(seed) for seed in range(8)]
    assert histories == [history(seed) for seed in range(8)]
    assert len({tuple(h) for h in histories}) > 1


def test_without_a_seed_timeouts_differ_from_node_to_node() -> None:
    timeouts = {
        Member(1, Disk.founder(voters(1)), seed=None).node.status()["timeout"] for _ in range(200)
    }
    assert timeouts == set(range(10, 20))


def test_the_election_timeout_stays_within_its_range() -> None:
    settings = {"election_tick": 5, "max_election_tick": 7, "heartbeat_tick": 1}
    timeouts = {
        Member(1, Disk.founder(voters(1)), seed=s, **settings).node.status()["timeout"]
        for s in range(50)
    }
    assert timeouts == {5, 6}


def test_leadership_moves_on_request() -> None:
    g = Group()
    g.elect(1).propose([b"a"])
    g.settle()
    g[1].transfer_leader(3)
    g.settle()
    assert g.leader == 3
    g[3].propose([b"b"])
    g.tick(3)
    assert [m.data for m in g.members.values()] == [[b"a", b"b"]] * 3


def test_a_follower_passes_a_transfer_on_to_the_leader() -> None:
    g = Group()
    g.elect(1)
    g[2].transfer_leader(3)
    g.settle()
    assert g.leader == 3


def test_a_transfer_to_a_dead_node_ends_after_an_election_timeout() -> None:
    g = Group()
    g.elect(1)
    g.cut = {3}
    g[1].transfer_leader(3)
    assert g[1].status()["transferee"] == 3
    with pytest.raises(ProposalDropped, match="transferred to 3"):
        g[1].propose([b"x"])
    with pytest.raises(ProposalDropped, match="transferred to 3"):
        g[1].propose_conf_change([(2, 4)], 0, b"")
    g.tick(10)
    assert (g.members[1].role, g[1].status()["transferee"]) == (LEADER, 0)
    g[1].propose([b"x"])


@pytest.mark.parametrize("to", [0, 4, 9])
def test_only_a_voter_can_be_asked_to_lead(to: int) -> None:
    g = Group()
    leader = g.elect(1)
    g.add(4)
    leader.propose_conf_change([(2, 4)], 0, b"")
    g.tick(5)
    with pytest.raises(ValueError, match="no voter"):
        leader.transfer_leader(to)


def test_a_learner_never_stands_for_election() -> None:
    g = Group()
    g.elect(1).propose_conf_change([(2, 4)], 0, b"")
    g.add(4)
    g.tick(5)
    assert g[4].status()["leader"] == 1
    with pytest.raises(ValueError, match="no voter"):
        g[4].campaign()
    g.cut = {1, 2, 3}
    g.tick(60)
    assert g.members[4].role == FOLLOWER


def test_a_lower_priority_does_not_win_against_a_higher_one() -> None:
    g = Group()
    g.members[1] = Member(1, Disk.founder(voters(1, 2, 3)), priority=1)
    g[2].campaign()
    g.settle()
    assert g.leader == 2, "the third node's vote suffices"
    g[3].transfer_leader(1)
    g.settle()
    assert g.leader == 1


def test_who_knows_of_no_members_does_not_stand_for_election() -> None:
    """Its majority would be nobody, and it would win."""
    joiner = Member(4, Disk())
    with pytest.raises(ValueError, match="no voter"):
        joiner.node.campaign()
    for _ in range(60):
        joiner.node.tick()
    assert joiner.role == FOLLOWER
    assert not joiner.node.has_ready()
