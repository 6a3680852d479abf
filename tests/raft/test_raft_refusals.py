"""What raft-rs would answer with a panic, or drop or replace in silence, is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from grampus_raft import RaftError, RaftNode

from tests.raft.group import APPEND, FOLLOWER, SNAPSHOT, Group, message, varint, voters

APPEND_RESPONSE, REQUEST_VOTE, HEARTBEAT, HEARTBEAT_RESPONSE = 4, 5, 8, 9
#: Field 30.
UNKNOWN = b"\xf0\x01\x01"
#: hup, beat, propose, unreachable, snapshot status, check quorum, read index and its response
NOT_BETWEEN_PEERS = [0, 1, 2, 10, 11, 12, 15, 16]


def settled() -> Group:
    g = Group()
    g.elect(1).propose([b"a"])
    g.tick(3)
    return g


def entry(index: int, term: int, kind: int = 0) -> bytes:
    body = b"\x08" + varint(kind) + b"\x10" + varint(term) + b"\x18" + varint(index)
    return b"\x3a" + varint(len(body)) + body


def inside(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def snapshot(*, outside: bytes = b"", meta: bytes = b"", members: bytes = b"") -> bytes:
    """A message with one of index 50 and term 2, and these fields beside those it should have."""
    about = inside(1, b"\x08\x01\x08\x02\x08\x03" + members) + b"\x10\x32\x18\x02" + meta
    return message(type=SNAPSHOT, **GOOD) + inside(9, inside(2, about) + outside)


GOOD = {"to": 2, "sender": 1, "term": 2}
BAD_MESSAGES = {
    "garbage": b"\xff\xff\xff",
    "nothing": b"",
    "for another node": message(type=HEARTBEAT, **GOOD | {"to": 3}),
    "from nobody": message(type=HEARTBEAT, **GOOD | {"sender": 0}),
    "from itself": message(type=HEARTBEAT, **GOOD | {"sender": 2}),
    "without a term": message(type=HEARTBEAT, **GOOD | {"term": 0}),
    "a vote without a term": message(type=REQUEST_VOTE, **GOOD | {"term": 0}),
    "a term out of this world": message(type=HEARTBEAT, **GOOD | {"term": 2**63}),
    "an index out of this world": message(type=APPEND, index=2**64 - 1, **GOOD),
    "an unknown type": message(type=77, **GOOD),
    "an unknown field": message(type=HEARTBEAT, **GOOD) + UNKNOWN,
    "a snapshot without content": message(type=SNAPSHOT, **GOOD),
    "an unknown field of a snapshot": snapshot(outside=UNKNOWN),
    "an unknown field of a snapshot's metadata": snapshot(meta=UNKNOWN),
    "an unknown field of a snapshot's members": snapshot(members=UNKNOWN),
    "entries with a gap": message(type=APPEND, index=1, **GOOD) + entry(3, 1),
    "entries from the future": message(type=APPEND, index=1, **GOOD) + entry(2, 3),
    "entries out of order": message(type=APPEND, index=1, **GOOD) + entry(2, 2) + entry(3, 1),
    "an unknown kind of entry": message(type=APPEND, index=1, **GOOD) + entry(2, 2, 9),
    "a request for a snapshot": message(type=APPEND_RESPONSE, **GOOD) + b"\x68\x01",
    **{f"type {t}": message(type=t, **GOOD) for t in NOT_BETWEEN_PEERS},
}


@pytest.mark.parametrize("what", BAD_MESSAGES)
def test_a_bad_message_is_refused_and_nothing_of_its_batch_is_handled(what: str) -> None:
    g = settled()
    good = message(type=HEARTBEAT, **GOOD)
    with pytest.raises(ValueError, match="bad message"):
        g[2].step([good, BAD_MESSAGES[what]])
    assert not g[2].has_ready()
    assert g[2].step([good]) == 0
    assert g[2].has_ready(), "it answers the good one"


def test_a_snapshot_like_the_bad_ones_is_taken_without_its_fault() -> None:
    g = settled()
    assert g[2].step([snapshot()]) == 0
    assert g[2].has_ready()


def test_every_cut_of_a_real_message_is_refused_or_harmless() -> None:
    g = Group()
    g.elect(1)
    g.sent.clear()
    g[1].propose([b"payload"])
    g.settle()
    encoded = next(m[3] for m in g.sent if m[1:3] == (2, APPEND))
    for length in range(len(encoded)):
        try:
            g[2].step([encoded[:length]])
        except ValueError:
            continue
        g.settle()
    g.tick(5)
    assert [m.data for m in g.members.values()] == [[b"payload"]] * 3


def test_answers_of_strangers_are_counted_not_handled() -> None:
    g = settled()
    stranger = message(type=APPEND_RESPONSE, to=1, sender=9, term=2, index=2)
    honest = message(type=HEARTBEAT_RESPONSE, to=1, sender=2, term=2)
    assert g[1].step([stranger, honest, stranger]) == 2


def test_raft_s_own_refusals_leave_the_node_as_it_was() -> None:
    g = settled()
    with pytest.raises(RaftError, match="non-joint"):
        g[1].apply_conf_change(2, b"")
    g[1].propose([b"b"])
    g.tick(3)
    assert g.members[2].data == [b"a", b"b"]


def test_a_peer_that_claims_more_than_its_leader_has_is_not_believed() -> None:
    """raft-rs would never send it anything again."""
    g = settled()
    claim = message(type=APPEND_RESPONSE, to=1, sender=2, term=2, index=1_000_000)
    assert g[1].step([claim]) == 1
    g[1].propose([b"b"])
    g.tick(3)
    assert g.members[2].data == [b"a", b"b"]


def test_a_message_of_an_older_term_changes_nothing() -> None:
    g = settled()
    before = g[2].status()
    g[2].step([message(type=HEARTBEAT, to=2, sender=3, term=1, commit=99)])
    assert {**g[2].status()} == before


def test_a_forged_second_leader_of_the_same_term_is_ignored_by_the_first() -> None:
    g = settled()
    term = g[1].status()["term"]
    forged = message(type=APPEND, to=1, sender=2, term=term, log_term=term, index=2)
    g[1].step([forged])
    assert g.leader == 1


CALLS: dict[str, Callable[[RaftNode], Any]] = {
    "tick": lambda n: n.tick(),
    "campaign": lambda n: n.campaign(),
    "step": lambda n: n.step([]),
    "propose": lambda n: n.propose([b"x"]),
    "propose_conf_change": lambda n: n.propose_conf_change([(2, 4)], 0, b""),
    "read_index": lambda n: n.read_index(b"r"),
    "tell_commit": lambda n: n.tell_commit([2]),
    "transfer_leader": lambda n: n.transfer_leader(1),
    "report_unreachable": lambda n: n.report_unreachable(2),
    "report_snapshot": lambda n: n.report_snapshot(2, True),
    "ready": lambda n: n.ready(),
    "set_snapshot": lambda n: n.set_snapshot(2, voters(1, 2, 3), b""),
    "compact": lambda n: n.compact(1),
}


@pytest.mark.parametrize("name", CALLS)
def test_between_ready_and_advance_the_node_must_not_change(name: str) -> None:
    g = settled()
    g[1].propose([b"b"])
    rd = g[1].ready()
    assert rd is not None
    with pytest.raises(ValueError, match=r"call advance\(\) first"):
        CALLS[name](g[1])
    assert not g[1].has_ready()
    assert g[1].status()["last"] == g[1].status()["persisted"] + 1
    assert g[1].term(rd[2][0][0]) == 2
    g[1].advance()
    CALLS[name](g[1])


def test_advance_needs_a_ready() -> None:
    g = settled()
    with pytest.raises(ValueError, match=r"without a ready"):
        g[1].advance()


def test_only_what_was_handed_out_and_is_durable_can_be_applied() -> None:
    g = Group(1)
    leader = g.elect(1)
    applied = leader.status()["applied"]
    index, _ = leader.propose([b"a", b"b"])
    with pytest.raises(ValueError, match="not in"):
        leader.advance_apply(index)
    leader.ready()
    with pytest.raises(ValueError, match="not in"):
        leader.advance_apply(index)
    leader.advance()
    leader.advance_apply(index)
    for wrong in (applied, index + 2):
        with pytest.raises(ValueError, match="not in"):
            leader.advance_apply(wrong)
    leader.advance_apply(index + 1)


def test_what_is_committed_but_not_handed_out_cannot_be_applied() -> None:
    g = Group(1, max_committed_size_per_ready=300)
    leader = g.elect(1)
    first, _ = leader.propose([b"x" * 100] * 10)
    leader.ready()
    commit, _, committed = leader.advance()
    assert commit == first + 9
    assert len(committed) < 10
    with pytest.raises(ValueError, match="not in"):
        leader.advance_apply(commit)
    g.members[1].apply(committed)
    g.settle()
    assert g.members[1].data == [b"x" * 100] * 10


def test_a_leader_applies_no_further_than_it_has_written() -> None:
    """With its peers' votes a leader may commit what it has not written itself."""
    g = Group()
    leader = g.elect(1)
    index, _ = leader.propose([b"a"])
    rd = leader.ready()
    assert rd is not None
    for to, _, encoded in rd[4]:
        g[to].step([encoded])
    answers = [m for i in (2, 3) for m in g.members[i].turn()]
    with pytest.raises(ValueError, match="not in"):
        leader.advance_apply(index)
    leader.advance()
    leader.step([encoded for _, _, encoded in answers])
    assert leader.status()["commit"] == index


ARGUMENTS: dict[str, Any] = {
    "id": 1,
    "hard_state": (2, 0, 2),
    "conf_state": voters(1),
    "base": (1, 1),
    "entries": [(2, 2, 0, b"a", b"")],
    "applied": 1,
}
WRONG_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"id": 0}, "invalid node id"),
    "a gap after base": ({"entries": [(3, 2, 0, b"", b"")]}, "right after base"),
    "a gap": ({"entries": [(2, 2, 0, b"", b""), (4, 2, 0, b"", b"")]}, "belongs"),
    "falling terms": ({"entries": [(2, 2, 0, b"", b""), (3, 1, 0, b"", b"")]}, "belongs"),
    "an unknown kind": ({"entries": [(2, 2, 9, b"", b"")]}, "no entry kind 9"),
    "commit past the end": ({"hard_state": (2, 0, 3)}, "commit 3 <= last index 2"),
    "applied past commit": ({"hard_state": (2, 0, 1), "applied": 2}, "applied 2 <= commit 1"),
    "applied before base": ({"applied": 0}, "base 1 <= applied 0"),
    "no voter": ({"conf_state": ([], [1], [], [], False)}, "no voter"),
    "an id twice": ({"conf_state": voters(1, 1)}, "twice"),
    "auto_leave, not joint": ({"conf_state": ([1], [], [], [], True)}, "is not joint"),
    "no heartbeat": ({"heartbeat_tick": 0}, "heartbeat tick"),
    "a heartbeat as long as an election": ({"heartbeat_tick": 10}, "election tick"),
    "no range of timeouts": ({"max_election_tick": 10}, "max election tick"),
    "no messages in flight": ({"max_inflight_msgs": 0}, "max inflight"),
    "too many messages in flight": ({"max_inflight_msgs": 2**60}, "max inflight"),
    "no size": ({"max_size_per_msg": 0}, "greater than 0"),
    "no room for one message": ({"max_uncommitted_size": 1000}, "max uncommitted size"),
    "leases without a quorum": ({"lease_read": True, "check_quorum": False}, "check_quorum"),
}


def test_the_arguments_below_are_otherwise_right() -> None:
    assert RaftNode(**ARGUMENTS).status()["role"] == FOLLOWER


@pytest.mark.parametrize("what", WRONG_ARGUMENTS)
def test_a_node_does_not_start_from_what_cannot_be(what: str) -> None:
    change, reason = WRONG_ARGUMENTS[what]
    with pytest.raises(ValueError, match=reason):
        RaftNode(**ARGUMENTS | change)


def test_wrong_types_are_python_s_own_errors() -> None:
    node: Any = RaftNode(**ARGUMENTS)
    with pytest.raises(TypeError):
        node.propose(["text"])
    with pytest.raises(TypeError):
        node.step(b"bytes")
    with pytest.raises(OverflowError):
        node.term(-1)
    with pytest.raises(TypeError):
        node.read_index()
