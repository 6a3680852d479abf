"""Processes that have fallen to the warden, their subreaper, because the shim above them died."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable

from grampus.worker.process_tree import children, descendants


def end_strays(shims: Collection[int | None]) -> list[int]:
    """KILL to all that descends from the warden beside the shims. Returns whom it found.

    Only a look that finds nobody says that nobody is left: who is killed in one may have handed
    over to a child just before. Nobody is missed: a child leaves the list by `waitpid` alone,
    and hands its own children over before it can be waited for."""
    found = [child for child in children(os.getpid()) if child not in shims]
    _kill(found)
    below = [pid for child in found for pid in descendants(child)]
    _kill(below)
    for child in found:
        os.waitpid(child, os.WNOHANG)
    return found + below


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # Gone meanwhile, or of another user: then it is found again.
