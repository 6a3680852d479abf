"""Addresses: how they are written, and which may be used.

Rule: what is said is not encrypted, credentials included, so nothing is said but over loopback.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from grampus.errors import ServerUnreachable, UsageError


class CannotResolve(ServerUnreachable):
    """The name of a host has no address."""


def address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def loopback(host: str) -> list[str]:
    """The IP addresses of `host`, IPv4 first. UsageError when another machine can reach one."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CannotResolve(f"the host {host!r} has no address: {error}") from error
    numbers = list(dict.fromkeys(str(info[4][0]) for info in sorted(found, key=lambda i: i[0])))
    for number in numbers:
        if not ipaddress.ip_address(number.partition("%")[0]).is_loopback:
            raise UsageError(
                f"{host!r} is {number}, which other machines can reach, and connections between"
                " nodes are not encrypted: use 127.0.0.1"
            )
    return numbers
