"""A node that can no longer be trusted says so, with the reason, from then on and to every call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from grampus_raft import EntriesLost, RaftError, RaftFatal, RaftNode

from tests.raft.group import Disk, Group, Member, message, voters
from tests.raft.test_raft_refusals import CALLS, HEARTBEAT

ALL_CALLS: dict[str, Callable[[RaftNode], Any]] = CALLS | {
    "apply_conf_change": lambda n: n.apply_conf_change(2, b""),
    "has_ready": lambda n: n.has_ready(),
    "advance": lambda n: n.advance(),
    "advance_apply": lambda n: n.advance_apply(1),
    "term": lambda n: n.term(1),
    "status": lambda n: n.status(),
}


REASON = "the log up to 99, but it ends at 2: durable entries are lost"


def forged(g: Group) -> bytes:
    """A commit index that node 2 cannot know: raft-rs would panic on it."""
    return message(type=HEARTBEAT, to=2, sender=1, term=g[1].status()["term"], commit=99)


def broken() -> RaftNode:
    g = Group()
    g.elect(1)
    with pytest.raises(EntriesLost, match=REASON):
        g[2].step([forged(g)])
    return g[2]


def test_nothing_is_printed_and_other_nodes_are_as_before(
    capfd: pytest.CaptureFixture[str],
) -> None:
    g = Group()
    g.elect(1)
    with pytest.raises(RaftFatal, match=REASON):
        g[2].step([forged(g)])
    assert capfd.readouterr() == ("", "")
    g[1].propose([b"x"])
    assert g[1].has_ready()


def test_every_call_is_listed() -> None:
    assert set(ALL_CALLS) == {n for n in dir(RaftNode) if not n.startswith("_")}


@pytest.mark.parametrize("name", ALL_CALLS)
def test_from_then_on_every_call_is_refused_for_the_same_reason(name: str) -> None:
    node = broken()
    with pytest.raises(RaftFatal, match=REASON):
        ALL_CALLS[name](node)


def test_from_any_thread() -> None:
    node = broken()
    seen: list[BaseException] = []

    def call() -> None:
        try:
            node.tick()
        except RaftFatal as error:
            seen.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    assert REASON in str(seen)


def test_it_is_an_ordinary_exception() -> None:
    """Not PyO3's own, which `except Exception` lets through."""
    assert issubclass(RaftFatal, RaftError)
    assert issubclass(EntriesLost, RaftFatal)
    assert issubclass(RaftError, RuntimeError)


def test_a_node_that_lost_what_it_had_confirmed_stops() -> None:
    g = Group()
    g.elect(1).propose([b"a"] * 5)
    g.tick(3)
    g.members[3] = Member(3, Disk.founder(voters(1, 2, 3)))
    with pytest.raises(RaftFatal, match="the log up to 7, but it ends at 1: durable entries are"):
        g.tick(5)


def test_an_old_leader_s_heartbeat_is_no_proof_of_loss() -> None:
    g = Group()
    g.elect(1)
    term = g[2].status()["term"]
    g[2].step([message(type=HEARTBEAT, to=2, sender=3, term=term - 1, commit=99)])
    assert g[2].status()["commit"] == 2
