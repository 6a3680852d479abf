"""Which addresses may be used in the clear, and by what a server is called."""

from __future__ import annotations

import asyncio

import pytest

from grampus.errors import UsageError
from grampus.loopback import is_own
from grampus.rpc.address import CannotResolve, names_of, resolve


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "8.8.8.8"])
def test_only_with_tls_may_others_be_reached(host: str) -> None:
    with pytest.raises(UsageError, match="not encrypted"):
        asyncio.run(resolve(host, encrypted=False))
    assert asyncio.run(resolve(host, encrypted=True)) == [host]


def test_loopback_needs_no_tls_and_no_address_is_an_error_of_its_own() -> None:
    assert asyncio.run(resolve("127.0.0.1", encrypted=False)) == ["127.0.0.1"]
    with pytest.raises(CannotResolve):
        asyncio.run(resolve("no-such-host.invalid", encrypted=True))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST", "a.localhost"]
)
def test_what_is_of_this_machine_alone(host: str) -> None:
    assert is_own(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.org", ""])
def test_what_may_not_be(host: str) -> None:
    assert not is_own(host)


def test_a_server_that_listens_everywhere_is_called_by_all_its_addresses() -> None:
    names = names_of("0.0.0.0")
    assert "127.0.0.1" in names
    assert len(names) == len(set(names))
    assert not any("%" in name for name in names)
    assert names_of("example.org") == ["example.org"]
    assert names_of("192.0.2.1") == ["192.0.2.1"]
