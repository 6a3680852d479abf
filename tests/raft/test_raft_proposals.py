"""Proposals: what is appended, how it is recognised once committed, and what is refused."""

from __future__ import annotations

import pytest
from grampus_raft import ProposalDropped

from tests.raft.group import APPEND, Group


def test_proposals_are_committed_everywhere_in_order() -> None:
    g = Group()
    leader = g.elect(1)
    for n in range(20):
        leader.propose([b"%d" % n])
    g.tick(2)
    expected = [b"%d" % n for n in range(20)]
    assert [m.data for m in g.members.values()] == [expected] * 3


def test_a_proposal_is_recognised_by_index_and_term() -> None:
    g = Group()
    leader = g.elect(1)
    first, term = leader.propose([b"a", b"b", b"c"])
    g.settle()
    mine = [e for e in g.members[1].disk.applied if first <= e[0] < first + 3]
    assert mine == [
        (first, term, 0, b"a", b""),
        (first + 1, term, 0, b"b", b""),
        (first + 2, term, 0, b"c", b""),
    ]


def test_a_lost_proposal_is_recognised_by_the_other_term_at_its_index() -> None:
    g = Group()
    index, term = 0, 0
    leader = g.elect(1)
    g.cut = {1}
    index, term = leader.propose([b"lost"])
    g.tick(40)
    g[g.leader].propose([b"kept"])
    g.settle()
    g.cut = set()
    g.tick(5)
    at_index = next(e for e in g.members[1].disk.applied if e[0] == index)
    assert at_index[1] != term
    assert g.members[1].data == [b"kept"]


def test_many_items_are_one_write() -> None:
    g = Group(1)
    leader = g.elect(1)
    leader.propose([b"x" * 100] * 64)
    rd = leader.ready()
    assert rd is not None
    entries = rd[2]
    assert len(entries) == 64
    assert rd == (True, None, entries, None, [], [], [], [], None)
    assert leader.advance() == (entries[-1][0], [], entries)


def test_a_leader_sends_before_it_has_written_and_a_follower_answers_after() -> None:
    g = Group()
    g.elect(1).propose([b"x"])
    rd = g[1].ready()
    assert rd is not None
    assert [(to, kind) for to, kind, _ in rd[4]] == [(2, APPEND), (3, APPEND)]
    assert rd[5] == []
    g[2].step([rd[4][0][2]])
    answer = g[2].ready()
    assert answer is not None
    assert answer[4] == []
    assert [to for to, _, _ in answer[5]] == [1]


@pytest.mark.parametrize("items", [[], [b""], [b"a", b""]])
def test_nothing_and_empty_items_are_refused(items: list[bytes]) -> None:
    g = Group(1)
    leader = g.elect(1)
    last = leader.status()["last"]
    with pytest.raises(ValueError, match="propos"):
        leader.propose(items)
    assert leader.status()["last"] == last, "all or none"


def test_who_does_not_lead_refuses() -> None:
    g = Group()
    g.elect(1)
    for refused in (
        lambda: g[2].propose([b"x"]),
        lambda: g[2].propose_conf_change([(2, 4)], 0, b""),
    ):
        with pytest.raises(ProposalDropped, match="not the leader"):
            refused()
    assert not g[2].has_ready(), "nothing was forwarded"


def test_a_candidate_refuses() -> None:
    g = Group()
    g[1].campaign()
    with pytest.raises(ProposalDropped, match="not the leader"):
        g[1].propose([b"x"])


def test_uncommitted_bytes_are_bounded() -> None:
    g = Group(max_uncommitted_size=1 << 20, max_size_per_msg=1 << 16)
    leader = g.elect(1)
    g.cut = {2, 3}
    for _ in range(16):
        leader.propose([b"z" * (1 << 16)])
        g.settle()
    with pytest.raises(ProposalDropped, match="1048576 bytes of proposals wait"):
        leader.propose([b"z"])
    last = leader.status()["last"]
    with pytest.raises(ProposalDropped):
        leader.propose([b"a", b"z" * (1 << 16)])
    assert leader.status()["last"] == last, "all or none"
    g.cut = set()
    g.tick(5)
    assert leader.status()["uncommitted"] == 0
    leader.propose([b"again"])


def test_messages_obey_their_size_and_their_window() -> None:
    g = Group(max_size_per_msg=1024, max_inflight_msgs=4)
    leader = g.elect(1)
    g.sent.clear()
    leader.propose([b"x" * 256] * 100)
    g.settle()
    appends = [m for m in g.sent if m[1:3] == (2, APPEND) and len(m[3]) > 256]
    assert len(appends) > 25
    assert max(len(m[3]) for m in appends) < 2048
    g.cut = {3}
    g.sent.clear()
    for _ in range(50):
        leader.propose([b"x" * 256])
        g.settle()
    assert sum(m[1:3] == (3, APPEND) and len(m[3]) > 256 for m in g.sent) == 4
    peer = leader.status()["peers"][3]
    assert peer[3], "paused"
