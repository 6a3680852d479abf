"""What a server says to one of another history, and which of the two has to go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grampus.consensus.members import LEFT_BEHIND, Members, NoMember
from grampus.consensus.peer_desk import PeerDesk
from grampus.protocol import PROTOCOL_VERSION, Goodbye, Hello


def hello(id: int, history: str, age: int = -1) -> Hello:
    return Hello(PROTOCOL_VERSION, "control", "server", "x", "c1", "", history, id, age=age)


def say(me: Hello, them: Hello) -> tuple[str, list[str]]:
    """What the other is told; why this one has to go."""
    replica: Any = SimpleNamespace(members=Members())
    left: list[NoMember] = []
    answer, welcome, _ = PeerDesk(replica, lambda _: b"", me, left=left.append).greet(them)
    assert isinstance(answer, Goodbye)
    assert not welcome
    return answer.reason, [str(error) for error in left]


def test_who_is_of_an_older_history_is_told_so_for_good() -> None:
    assert say(hello(1, "h1", 1), hello(2, "h0", 0)) == (LEFT_BEHIND, [])


def test_who_meets_a_newer_history_goes_by_itself() -> None:
    told, left = say(hello(1, "h0", 0), hello(2, "h1", 1))
    assert (told != LEFT_BEHIND, left) == (True, [LEFT_BEHIND])


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [(1, 1), (1, -1), (-1, 1), (-1, -1)],
    ids=["both were recovered", "an older program", "this one has no ledger yet", "neither says"],
)
def test_where_neither_is_known_to_be_the_newer_both_stay(mine: int, theirs: int) -> None:
    told, left = say(hello(1, "h1", mine), hello(2, "h2", theirs))
    assert "history of its own" in told
    assert (told != LEFT_BEHIND, left) == (True, [])


def test_the_age_does_not_matter_in_one_history() -> None:
    told, left = say(hello(1, "h1", 2), hello(1, "h1", 0))
    assert (told, left) == ("this server has the same id: one folder runs twice", [])
