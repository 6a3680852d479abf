"""Waits for the end of a run by asking again and again: often at first, then less and less.

Rule: the answer is never late by more than a tenth of the time that it took. A server that goes
away is waited for, for a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from grampus.clock import Clock
from grampus.errors import ServerUnreachable
from grampus.sdk.answers import Run
from grampus.sdk.follow import RECONNECT_MS

#: Between two questions, in ms: at least, and at most.
SHORTEST, LONGEST = 50, 1000


def wait_for_end(look: Callable[[str], Run], run: str, timeout: float | None, clock: Clock) -> Run:
    """The run once it is final. Raises TimeoutError after `timeout` seconds."""
    begun = asked = clock.ticks()
    end = None if timeout is None else begun + round(timeout * 1000)
    view = look(run)
    while not view.final:
        now = clock.ticks()
        if end is not None and now >= end:
            raise TimeoutError(f"run {view.id} is still {view.state} after {timeout:g} s")
        pause = min(max((now - begun) / 10, SHORTEST), LONGEST)
        time.sleep((min(pause, end - now) if end is not None else pause) / 1000)
        try:
            view = look(view.id)
            asked = clock.ticks()
        except ServerUnreachable:
            if clock.ticks() - asked > RECONNECT_MS:
                raise
    return view
