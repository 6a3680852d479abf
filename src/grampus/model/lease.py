"""The lease of an attempt: how long a worker that nobody hears keeps it.

Rule: both sides count alone, and the holder gives up first. The worker's machine counts from the
moment at which it *sent* the newest keep-alive that a server has confirmed, asks the attempt to end
at TERM_AT of its lease and kills it at KILL_AT. The leader counts from the moment at which it last
confirmed one, which is later, and lets another attempt start when the whole lease is over. So no
clock is compared with another; only their rates must agree to a fifth.
"""

from __future__ import annotations

from typing import NamedTuple

#: `keep`: a silent worker has the attempt until it is back, or until a person gives it up.
KEEP = -1
#: In ms, of a task that says nothing.
DEFAULT_LEASE = 30_000
#: A lease is not shorter than a worker may be unheard before it is called silent.
SHORTEST_LEASE = 10_000
#: Parts of the lease, in percent.
TERM_AT, KILL_AT = 60, 80


class Fence(NamedTuple):
    """Ms after the newest confirmed keep-alive: from then on the attempt is asked to end, and
    killed."""

    term: int
    kill: int


def lease_of(declared: int | None) -> int:
    """In ms, or KEEP, of what a task declares."""
    return DEFAULT_LEASE if declared is None else declared


def fence_of(lease: int) -> Fence:
    """Of a lease that is not KEEP."""
    return Fence(lease * TERM_AT // 100, lease * KILL_AT // 100)
