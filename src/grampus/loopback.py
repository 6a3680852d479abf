"""Which hosts are this machine and no other: what is said to them stays here, and needs no TLS."""

from __future__ import annotations

import ipaddress


def is_loopback(number: str) -> bool:
    """Whether an IP address is of this machine alone. Raises ValueError for what is none."""
    return ipaddress.ip_address(number.partition("%")[0]).is_loopback


def is_own(host: str) -> bool:
    """Whether `host`, as somebody has written it, can be reached from this machine only."""
    host = host.strip("[]").lower()
    try:
        return is_loopback(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
