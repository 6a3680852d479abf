"""Who goes where there is no room."""

from __future__ import annotations

import pytest

from grampus.rpc.crowd import Crowd, network_of


def crowd(*hosts: str) -> Crowd[int]:
    """They are numbered from 0 on, in the order in which they come."""
    made: Crowd[int] = Crowd()
    for number, host in enumerate(hosts):
        made.come(number, host, float(number))
    return made


def goes(made: Crowd[int]) -> int:
    who = made.who_goes()
    made.gone(who)
    return who


def test_of_the_network_that_most_come_from_the_first_goes() -> None:
    made = crowd("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.1")
    assert [goes(made) for _ in range(5)] == [1, 0, 2, 3, 4]
    assert len(made) == 0


def test_who_floods_displaces_his_own_and_nobody_else() -> None:
    made = crowd("10.0.0.1", *["10.0.0.9"] * 60, "10.0.0.2")
    for number in range(100, 400):
        made.come(number, "10.0.0.9", float(number))
        assert goes(made) not in (0, 61)
    assert made.of("10.0.0.1") == made.of("10.0.0.2") == 1


def test_it_is_known_how_many_come_from_somewhere_and_since_when() -> None:
    made = crowd("10.0.0.1", "10.0.0.2", "10.0.0.1")
    assert (made.of("10.0.0.1"), made.since("10.0.0.1")) == (2, 0.0)
    made.gone(0)
    made.gone(0)
    assert (made.of("10.0.0.1"), made.since("10.0.0.1")) == (1, 2.0)
    assert (made.of("10.0.0.3"), made.since("10.0.0.3")) == (0, None)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("?", "?"),
    ],
)
def test_of_ipv6_a_customer_has_many_addresses(host: str, network: str) -> None:
    assert network_of(host) == network
