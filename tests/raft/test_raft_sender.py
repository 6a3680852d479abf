"""Who a message is from is read off its first bytes: of every message that a group sends."""

from __future__ import annotations

import pytest
from grampus_raft import RaftNode

from grampus.consensus.sender import is_between

#: As long as an id can be, and as short.
IDS = (2**63 - 1, 1, 300)


def node(id: int) -> RaftNode:
    conf = (sorted(IDS), [], [], [], False)
    return RaftNode(id, (1, 0, 1), conf, (1, 1), [], 1, seed=id % 1000)


def test_every_message_says_whose_it_is_and_for_whom() -> None:
    nodes = {id: node(id) for id in IDS}
    first = nodes[IDS[0]]
    first.campaign()
    seen: set[tuple[int, int]] = set()
    kinds: set[int] = set()
    for turn in range(40):
        for id, each in nodes.items():
            if id == IDS[0] and turn % 10 == 0:
                each.tick()
            if each.status()["role"] == 2 and turn == 20:
                each.propose([b"x" * 300])
            while (ready := each.ready()) is not None:
                _, messages, committed = each.advance()
                for to, kind, message in [*ready[4], *ready[5], *messages]:
                    kinds.add(kind)
                    seen.add((id, to))
                    for sender in IDS:
                        for receiver in IDS:
                            right = (sender, receiver) == (id, to)
                            assert is_between(message, sender, receiver) == right
                    nodes[to].step([message])
                if applied := [*ready[6], *committed]:
                    each.advance_apply(applied[-1][0])
    assert len(kinds) >= 6
    assert len(seen) >= 4


@pytest.mark.parametrize("bytes_", [b"", b"\x08", b"\x08\x03", b"\x10\x01\x18\x02" * 3])
def test_what_is_no_message_is_from_nobody(bytes_: bytes) -> None:
    assert not is_between(bytes_, 2, 1)
