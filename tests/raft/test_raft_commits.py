"""Commit indexes: told in messages of their own, or by whoever drives a node without them."""

from __future__ import annotations

from tests.raft.group import APPEND, Group


def commits(g: Group) -> list[int]:
    return [g[id].status()["commit"] for id in (1, 2, 3)]


def sent(g: Group) -> int:
    """Messages since the last look."""
    count = len(g.sent)
    g.sent.clear()
    return count


def quiet() -> Group:
    """Led by 1, and everybody knows what is committed."""
    g = Group(tell_commits=False)
    g.elect(1)
    g.tick(2)
    assert len(set(commits(g))) == 1
    g.sent.clear()
    return g


def test_a_commit_is_told_at_once_by_default() -> None:
    g = Group()
    g.elect(1).propose([b"a"])
    g.settle()
    assert commits(g) == [commits(g)[0]] * 3


def test_a_commit_travels_with_the_next_entries() -> None:
    g = quiet()
    index, _ = g[1].propose([b"a"])
    g.settle()
    assert commits(g) == [index, index - 1, index - 1]
    assert sent(g) == 4, "two appends and their answers"
    g[1].propose([b"b"])
    g.settle()
    assert commits(g) == [index + 1, index, index]


def test_a_commit_travels_with_a_heartbeat() -> None:
    g = quiet()
    index, _ = g[1].propose([b"a"])
    g.settle()
    g.tick(2)
    assert commits(g) == [index] * 3


def test_a_read_takes_the_commit_with_it() -> None:
    g = quiet()
    index, _ = g[1].propose([b"a"])
    g.settle()
    assert g[1].read_index(b"r")
    g.settle()
    assert commits(g) == [index] * 3


def test_only_who_lacks_a_commit_is_told_when_asked() -> None:
    g = quiet()
    index, _ = g[1].propose([b"a"])
    g.settle()
    g.sent.clear()
    g[1].tell_commit([2])
    g.settle()
    assert commits(g) == [index, index, index - 1]
    assert sent(g) == 2, "an append without entries and its answer"
    g[1].tell_commit([1, 2, 3, 9])
    g.settle()
    assert commits(g) == [index] * 3
    assert [(to, kind) for sender, to, kind, _ in g.sent if sender == 1] == [(3, APPEND)]
    g.sent.clear()
    g[1].tell_commit([2, 3])
    g.settle()
    assert sent(g) == 0


def test_who_does_not_lead_tells_nobody() -> None:
    g = quiet()
    g[2].tell_commit([1, 3])
    assert not g[2].has_ready()


def test_a_change_of_members_is_told_at_once() -> None:
    g = quiet()
    index, _ = g[1].propose_conf_change([(1, 3)], 0, b"")
    g.settle()
    assert commits(g)[:2] == [index] * 2
