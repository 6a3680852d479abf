"""When the followers hear of what is committed.

Rule: with the next entries. A message for a commit alone goes at once only to a server on which
somebody waits for it (`keen`: each says so beside its Raft messages), to all others when nothing
else has gone out for PAUSE seconds. Raft needs none of them: heartbeats carry the commit, too. So
a lone write takes four messages between servers in place of eight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds.
PAUSE = 0.002


class Telling:
    """On the leader, on the event loop. `tell` sends the commit to those peers that lack it."""

    def __init__(
        self,
        peers: Callable[[], list[int]],
        tell: Callable[[list[int]], None],
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        self._peers = peers
        self._tell = tell
        self._later = later
        self._keen: dict[int, None] = {}
        #: Entries have gone out since the timer was set.
        self._said = False
        self._timer: asyncio.TimerHandle | None = None

    def heard(self, peer: int, keen: bool) -> None:
        """What a peer says of itself."""
        if not keen:
            self._keen.pop(peer, None)
        elif peer not in self._keen:
            self._keen[peer] = None
            if self._timer is not None:
                self._tell([peer])

    def entries(self) -> None:
        """They go out to all, and with them what is committed by now."""
        self._said = True

    def committed(self) -> bool:
        """More is. Whether somebody is told at once."""
        if self._keen:
            self._tell(list(self._keen))
        if self._timer is None:
            self._set_timer()
        return bool(self._keen)

    def stop(self) -> None:
        """This server leads no longer."""
        self._keen.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self._said = False
        self._timer = self._later(PAUSE, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._said:
            self._set_timer()
        else:
            self._tell(self._peers())
