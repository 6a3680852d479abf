"""Addresses: how they are written, and which may be used.

Rule: without TLS what is said is not encrypted, credentials included, so that nothing is said but
over loopback. With TLS any address will do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket

import psutil

from grampus.errors import ServerUnreachable, UsageError
from grampus.loopback import is_loopback

#: What may stand in a certificate.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*\Z")
_MOST_NAMES = 24


class CannotResolve(ServerUnreachable):
    """The name of a host has no address."""


def address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_and_port(text: str) -> tuple[str, int]:
    """The reverse of `address`. Raises UsageError."""
    host, _, port = text.rpartition(":")
    digits = port.isascii() and port.isdigit() and len(port) < 6
    if not host or not digits or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r:.100} is no address: HOST:PORT such as 127.0.0.1:8470")
    return host.strip("[]"), int(port)


async def resolve(host: str, *, encrypted: bool) -> list[str]:
    """The IP addresses of `host`, IPv4 first.

    UsageError when another machine can reach one and what is said there is not encrypted."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CannotResolve(f"the host {host!r} has no address: {error}") from error
    numbers = list(dict.fromkeys(str(info[4][0]) for info in sorted(found, key=lambda i: i[0])))
    for number in numbers:
        if not encrypted and not is_loopback(number):
            raise UsageError(
                f"{host!r} is {number}, which other machines can reach, and without TLS what is"
                " said between nodes is not encrypted: use 127.0.0.1, or found the cluster with"
                " TLS"
            )
    return numbers


def is_everywhere(host: str) -> bool:
    """Whether who listens there is reached at every address of its machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def names_of(host: str) -> list[str]:
    """By what a server that listens at `host` may be called: for its certificate."""
    if not is_everywhere(host):
        return [host]
    numbers = [
        info.address.partition("%")[0]
        for infos in psutil.net_if_addrs().values()
        for info in infos
        if info.family in (socket.AF_INET, socket.AF_INET6)
    ]
    names = [name for name in (socket.gethostname(),) if _NAME.match(name)]
    return list(dict.fromkeys([*names, *numbers]))[:_MOST_NAMES]
