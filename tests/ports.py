"""Ports for tests that have to know them before anybody listens there.

Rule: they come from below the range that the kernel gives out by itself, and each worker of pytest
has a part of that to itself, so that nobody takes one between the look and its use.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from contextlib import suppress
from pathlib import Path

FIRST, PARTS = 10_000, 8
_LAST = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
_SIZE = (_LAST - FIRST) // PARTS // 2
_PART = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PARTS
#: Begins anywhere: others may run the same tests on this machine.
_steps = itertools.count(random.SystemRandom().randrange(_SIZE))


def free_ports(count: int) -> list[int]:
    """Each is free, and so is the next one."""
    found: list[int] = []
    for step in itertools.islice(_steps, _SIZE):
        port = FIRST + 2 * (_PART * _SIZE + step % _SIZE)
        with socket.socket() as one, socket.socket() as two, suppress(OSError):
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 1))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("there are no free ports")


def free_port() -> int:
    (port,) = free_ports(1)
    return port
