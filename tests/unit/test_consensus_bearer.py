"""Which id, name and key of a server go together, and what is said to whoever mixes them."""

from __future__ import annotations

import pytest

from grampus.consensus.bearer import refusal, void_key
from grampus.consensus.members import GIVEN_UP, REMOVED, MemberChange, Members
from grampus.model.member import Member
from grampus.protocol import PROTOCOL_VERSION, Hello


def member(id: int, name: str, key: str) -> Member:
    return Member(id, name, "192.0.2.1", 8000, 9000 + id, key)


A, B, C, GONE = (member(id, name, f"key-{name}") for id, name in enumerate("abcg", 1))
#: Four joined; g was removed, and c was given up.
FOUR = Members(conf=([1, 2, 3, 4], [], [], [], False), known=(A, B, C, GONE))
MEMBERS = FOUR.after(([1, 2, 3], [], [], [], False), MemberChange(lost=(3,)))


def hello(id: int, name: str, listens: Member | None = None) -> Hello:
    return Hello(PROTOCOL_VERSION, "control", "server", name, "c", "", "h", id, listens)


@pytest.mark.parametrize(
    ("said", "key"),
    [
        (hello(1, "a"), "key-a"),
        (hello(1, "a", A), "key-a"),
        (hello(1, "a", member(1, "a", "")), "key-a"),  # it does not say so yet
        (hello(1, "a", member(1, "a", "")), ""),  # without TLS
        (hello(9, "d", member(9, "d", "key-d")), "key-d"),  # a newcomer
        (hello(9, "c", member(9, "c", "new")), "new"),  # the successor of one that was given up
        (hello(9, "a"), "key-9"),  # its name is taken: that is for whoever admits it
    ],
)
def test_who_shows_what_belongs_together_is_let_in(said: Hello, key: str) -> None:
    assert refusal(MEMBERS, said, key) == ""


@pytest.mark.parametrize(
    ("said", "key", "why"),
    [
        (hello(4, "g"), "key-g", REMOVED),
        (hello(4, "g"), "", REMOVED),
        (hello(4, "a"), "key-a", REMOVED),
        (hello(9, "g"), "key-g", REMOVED),
        (hello(9, "new"), "key-g", REMOVED),
        (hello(1, "a"), "key-g", REMOVED),
        (hello(3, "c"), "key-c", GIVEN_UP),
        (hello(9, "c"), "key-c", GIVEN_UP),
        (hello(9, "new"), "key-c", GIVEN_UP),
        (hello(1, "b"), "key-b", "the certificate is that of server b, which has another id"),
        (hello(9, "b"), "key-b", "the certificate is that of server b, which has another id"),
        (hello(1, "b"), "", "the id is that of server a, not of b"),
        (hello(1, "x"), "key-x", "the id is that of server a, not of x"),
        (hello(1, "a"), "key-9", "server a is known by another key"),
        (hello(9, "d", member(9, "e", "key-d")), "key-d", "not what it shows"),
        (hello(9, "d", member(9, "d", "key-e")), "key-d", "not what it shows"),
        (hello(9, "d", member(9, "d", "key-e")), "", "not what it shows"),
    ],
)
def test_who_mixes_them_is_refused_with_the_reason(said: Hello, key: str, why: str) -> None:
    assert why in refusal(MEMBERS, said, key)


def test_a_key_that_counts_for_nothing_any_more_joins_nowhere() -> None:
    assert void_key(MEMBERS, "key-g") == REMOVED
    assert void_key(MEMBERS, "key-c") == GIVEN_UP
    assert void_key(MEMBERS, "key-a") == ""  # who is interrupted while joining joins again
    assert void_key(MEMBERS, "key-9") == ""
    assert void_key(MEMBERS, "") == ""


def test_keys_are_forgotten_with_nobody() -> None:
    """Whoever takes the place of one that was given up leaves his key outside."""
    new = member(9, "c", "key-9")
    both = MEMBERS.after(([1, 2, 3], [9], [], [], False), MemberChange((new,)))
    assert void_key(both, "key-c") == GIVEN_UP
    done = both.after(([1, 2, 9], [], [], [], False), MemberChange())
    assert void_key(done, "key-c") == REMOVED
    assert void_key(Members.decode(done.encode()), "key-g") == REMOVED
    assert refusal(done, hello(9, "c", new), "key-9") == ""
