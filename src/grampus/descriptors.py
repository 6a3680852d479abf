"""How many files this process may have open, and how many of them may be connections of strangers.

Rule: whoever only connects must not use up what the log and the ledger need to go on. So a listener
takes a part of what the process may have, and a server asks for as much as it may get.
"""

from __future__ import annotations

import resource

#: One listener takes one part of so many.
_PART = 4
#: More than a server ever needs.
_ENOUGH = 65_536


def share(most: int) -> int:
    """`most` connections of one listener, or fewer where the process may have few files."""
    return min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _PART)


def take_all() -> None:
    """Raises the soft limit as far as the hard one goes. Not where tasks are started: they would
    inherit it, and some programs take their time for every number up to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
