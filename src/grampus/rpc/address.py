"""Addresses: how they are written, and which may be used.

Rule: without TLS what is said is not encrypted, credentials included, so that nothing is said but
over loopback. With TLS any address will do.
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


def node_address(text: str) -> tuple[str, int]:
    """Where a node is met whose API answers at `text`, HOST:PORT: nodes use the next port.

    Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65535:
        raise UsageError(f"{text!r:.100} is no address: HOST:PORT such as 127.0.0.1:8470")
    return host.strip("[]"), int(port) + 1


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


def is_loopback(number: str) -> bool:
    """Whether an IP address is of this machine alone."""
    return ipaddress.ip_address(number.partition("%")[0]).is_loopback
