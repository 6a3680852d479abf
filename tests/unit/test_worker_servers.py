"""Which server a worker tries next, and when it waits."""

from __future__ import annotations

from grampus.worker.servers import ELECTION_PAUSE, FIRST_PAUSE, LAST_PAUSE, MOST_NAMED, Servers

A, B, C, D = (("a", 1), ("b", 1), ("c", 1), ("d", 1))


def test_a_lost_connection_makes_it_try_the_others_at_once() -> None:
    servers = Servers([A, B, C])
    assert servers.next() == A
    servers.held(A)
    assert servers.pause() == 0
    assert servers.next() == B
    servers.failed(B)
    assert servers.pause() == 0
    assert servers.next() == C
    servers.failed(C)
    assert servers.pause() == 0
    assert servers.next() == A


def test_the_only_server_is_tried_again_at_once_and_then_ever_more_rarely() -> None:
    servers = Servers([A])
    servers.held(A)
    assert servers.pause() == 0
    pauses = []
    for _ in range(8):
        servers.failed(servers.next())
        pauses.append(servers.pause())
    assert pauses == sorted(pauses)
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LAST_PAUSE
    servers.held(A)
    servers.failed(A)
    assert servers.pause() == FIRST_PAUSE


def test_whoever_is_named_as_leader_comes_first_even_if_nobody_knew_it() -> None:
    servers = Servers([A, B])
    servers.failed(A, answered=True)
    servers.named(D)
    assert servers.pause() == 0
    assert servers.next() == D
    servers.held(D)
    assert [servers.next(), servers.pause()] == [A, 0]


def test_a_leader_that_is_named_but_fails_is_not_asked_twice_in_a_round() -> None:
    servers = Servers([A, B])
    servers.named(B)
    servers.failed(B)
    servers.named(B)
    assert servers.next() == A
    servers.failed(A, answered=True)
    assert servers.pause() > 0
    assert servers.next() == B


def test_while_servers_answer_the_pauses_stay_short() -> None:
    servers = Servers([A, B])
    for _ in range(10):
        servers.failed(servers.next(), answered=True)
        assert servers.pause() == 0
        servers.failed(servers.next())
        assert 0 < servers.pause() <= ELECTION_PAUSE


def test_names_are_bounded_and_those_that_were_given_stay() -> None:
    servers = Servers([A, B])
    for number in range(100):
        servers.named(("x", number))
    tried = []
    while not servers.pause():
        tried.append(servers.next())
        servers.failed(tried[-1])
    assert len(tried) == len(set(tried)) == 2 + MOST_NAMED
    assert {A, B, ("x", 99)} <= set(tried)
