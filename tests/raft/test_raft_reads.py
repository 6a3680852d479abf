"""Linearizable reads: confirmed by a majority, refused where they would be dropped in silence."""

from __future__ import annotations

import pytest

from tests.raft.group import Group


def test_a_read_is_confirmed_at_the_commit_index() -> None:
    g = Group()
    leader = g.elect(1)
    leader.propose([b"a"])
    g.settle()
    assert leader.read_index(b"r1")
    g.settle()
    assert g.members[1].reads == [(leader.status()["commit"], b"r1")]


def test_a_single_voter_confirms_at_once() -> None:
    g = Group(1)
    assert g.elect(1).read_index(b"r1")
    g.settle()
    assert g.members[1].reads == [(2, b"r1")]


def test_reads_under_way_are_confirmed_together_in_order() -> None:
    g = Group()
    leader = g.elect(1)
    for n in range(5):
        assert leader.read_index(b"r%d" % n)
    assert leader.status()["pending_reads"] == 5
    g.settle()
    assert [context for _, context in g.members[1].reads] == [b"r%d" % n for n in range(5)]
    assert leader.status()["pending_reads"] == 0


def test_who_does_not_lead_refuses() -> None:
    g = Group()
    assert not g[1].read_index(b"r")
    g.elect(1)
    assert not g[2].read_index(b"r")
    assert not g[2].has_ready(), "nothing was forwarded"


def test_a_new_leader_refuses_until_it_has_committed_in_its_term() -> None:
    g = Group()
    g.elect(1).propose([b"a"])
    g.settle()
    g[1].transfer_leader(2)
    # One delivery at a time, until it leads: its first entry is not committed then.
    inbox = [(m.id, *out) for m in g.members.values() for out in m.turn()]
    while g.members[2].role != 2:
        sender, to, kind, encoded = inbox.pop(0)
        g.deliver(sender, to, kind, encoded)
        inbox += [(to, *out) for out in g.members[to].turn()]
    assert not g[2].read_index(b"r")
    for sender, to, kind, encoded in inbox:
        g.deliver(sender, to, kind, encoded)
    g.settle()
    assert g[2].read_index(b"r")


def test_a_leader_without_a_majority_never_confirms() -> None:
    g = Group()
    leader = g.elect(1)
    g.cut = {1}
    assert leader.read_index(b"stale")
    g.tick(50)
    g.cut = set()
    g.tick(10)
    assert g.members[1].reads == []
    assert leader.status()["pending_reads"] == 0, "dropped with the leadership"


def test_a_read_without_a_context_is_refused() -> None:
    """Peers answer a heartbeat without a context as any other: the read would wait for ever."""
    g = Group()
    with pytest.raises(ValueError, match="needs a context"):
        g.elect(1).read_index(b"")


def test_a_context_under_way_is_refused_and_may_be_used_again_later() -> None:
    g = Group()
    leader = g.elect(1)
    assert leader.read_index(b"same")
    with pytest.raises(ValueError, match="under way"):
        leader.read_index(b"same")
    g.settle()
    assert leader.read_index(b"same")
    g.settle()
    assert len(g.members[1].reads) == 2
