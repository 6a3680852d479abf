"""Compaction, and snapshots for peers that need what is gone."""

from __future__ import annotations

import pytest

from tests.raft.group import NOBODY, PRE_CANDIDATE, SNAPSHOT, Disk, Group, Member, voters

SNAPSHOT_STATE = 2


def lagging(count: int = 30) -> Group:
    """Node 1 leads and has compacted its log; node 3 is cut off and needs what is gone."""
    g = Group()
    leader = g.elect(1)
    g.cut = {3}
    for n in range(count):
        leader.propose([b"%d" % n])
        g.settle()
    g.members[1].snapshot()
    leader.compact(leader.status()["applied"])
    return g


def test_a_peer_that_lags_gets_the_snapshot_and_then_entries() -> None:
    g = lagging()
    g.cut = set()
    g.tick(5)
    leader = g[1].status()
    assert g.members[3].disk.snapshot == g.members[1].disk.snapshot
    assert g[3].status()["applied"] == leader["applied"]
    g[1].propose([b"later"])
    g.settle()
    assert g.members[3].data == [b"later"]
    assert leader["peers"][3][2] != SNAPSHOT_STATE


def test_a_lost_snapshot_leaves_the_peer_waiting_until_it_is_reported() -> None:
    g = lagging()
    g.lose = {SNAPSHOT}
    g.cut = set()
    g.tick(5)
    g.lose = set()
    g.tick(100)
    assert sum(kind == SNAPSHOT for _, _, kind, _ in g.sent) == 1
    assert g[1].status()["peers"][3][2] == SNAPSHOT_STATE, "it waits for a report"
    g[1].report_snapshot(3, False)
    g.tick(5)
    assert g[3].status()["applied"] == g[1].status()["applied"]


def test_without_a_fresh_snapshot_the_peer_that_wants_one_is_named() -> None:
    g = lagging()
    g[1].propose([b"x"])
    g.settle()
    g[1].compact(g[1].status()["applied"])
    assert g[1].status()["snapshot_wanted_by"] == 0
    g.cut = set()
    g.tick(5)
    assert g[1].status()["snapshot_wanted_by"] == 3
    assert not any(kind == SNAPSHOT for _, _, kind, _ in g.sent)
    g.members[1].snapshot()
    assert g[1].status()["snapshot_wanted_by"] == 0
    g.tick(5)
    assert g[3].status()["applied"] == g[1].status()["applied"]


def test_a_snapshot_without_the_receiver_is_refused_by_it() -> None:
    """Hence a fresh one after every change of members."""
    g = Group()
    g.elect(1)
    g.members[1].snapshot = lambda: None  # type: ignore[method-assign]
    g[1].compact(g[1].status()["applied"])
    g[1].set_snapshot(g[1].status()["applied"], voters(1, 2, 3), b"without 4")
    g[1].propose_conf_change([(2, 4)], 0, b"")
    g.add(4)
    g.tick(10)
    assert g[4].status()["applied"] == 0
    g[1].set_snapshot(g[1].status()["applied"], g.members[1].disk.members, b"with 4")
    g.tick(5)
    assert g.members[4].disk.snapshot is not None
    assert g[4].status()["applied"] == g[1].status()["applied"]


def test_compact_needs_no_snapshot_but_stops_at_applied() -> None:
    g = Group(1)
    leader = g.elect(1)
    leader.propose([b"x" * 1000] * 10)
    g.settle()
    before = leader.status()
    leader.compact(before["applied"] - 3)
    leader.compact(1)
    after = leader.status()
    assert (after["first"], after["last"]) == (before["applied"] - 2, before["last"])
    assert after["log_bytes"] < before["log_bytes"] / 3
    leader.propose([b"y"])
    with pytest.raises(ValueError, match="past applied"):
        leader.compact(before["last"] + 1)
    assert leader.term(before["applied"] - 3) == before["term"]
    assert leader.term(before["applied"] - 4) == 0
    assert leader.term(10_000) == 0


@pytest.mark.parametrize(
    ("index", "members", "reason"),
    [
        (0, voters(1), "not in"),
        (1, voters(1), "not in"),
        (99, voters(1), "not in"),
        (8, NOBODY, "needs voters"),
        (8, voters(1, 1), "twice"),
        (8, ([1], [1], [], [], False), "learner that is a voter"),
    ],
)
def test_impossible_snapshots_are_refused(
    index: int, members: tuple[list[int], list[int], list[int], list[int], bool], reason: str
) -> None:
    g = Group(1)
    leader = g.elect(1)
    leader.propose([b"x"] * 10)
    g.settle()
    leader.compact(5)
    with pytest.raises(ValueError, match=reason):
        leader.set_snapshot(index, members, b"")


def test_a_received_snapshot_is_applied_once_it_is_durable() -> None:
    g = lagging()
    g.cut = set()
    g.tick(2)
    sent = [m for m in g.sent if m[2] == SNAPSHOT]
    fresh = Member(3, Disk.founder(voters(1, 2, 3)))
    fresh.node.step([sent[0][3]])
    rd = fresh.node.ready()
    assert rd is not None
    assert rd[0], "to be synced"
    assert rd[3] is not None
    index, _, members, data = rd[3]
    assert (members, data) == (voters(1, 2, 3), b"state at %d" % index)
    with pytest.raises(ValueError, match="not in"):
        fresh.node.advance_apply(index)
    fresh.node.advance()
    fresh.node.advance_apply(index)
    status = fresh.node.status()
    assert (status["first"], status["applied"]) == (index + 1, index)


def test_an_election_may_begin_while_a_durable_snapshot_is_being_applied() -> None:
    """raft-rs would look for the entries that the snapshot replaced, and panic."""
    g = lagging()
    g.cut = set()
    lagged = g.members[3]
    while not (rd := lagged.node.ready()) or not rd[3]:
        if rd:
            for to, _, encoded in rd[4] + rd[5] + lagged.node.advance()[1]:
                g[to].step([encoded])
        g[1].tick()
        lagged.node.step([encoded for to, _, encoded in g.members[1].turn() if to == 3])
    lagged.node.advance()
    for _ in range(40):
        lagged.node.tick()
    status = lagged.node.status()
    assert (status["role"], status["applied"]) == (PRE_CANDIDATE, 2)
    lagged.node.advance_apply(2)
    lagged.node.advance_apply(rd[3][0])
    assert lagged.node.status()["applied"] == rd[3][0]
