"""Which peers a leader has heard of lately. Pure.

Raft's own word for it, `recently active`, is taken back at every check of the quorum, and for a
moment every peer seems silent then. Here a peer is silent when it was not once active for a while.
"""

from __future__ import annotations

#: Per peer, as Raft says it: matched, next, state, paused, recently active, pending snapshot.
Standing = tuple[int, int, int, bool, bool, int]
#: Seconds, longer than any election time-out.
LATELY = 1.5


class Hearing:
    """Of one time in the lead: made anew for each."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}

    def look(self, now: float, peers: dict[int, Standing]) -> dict[int, Standing]:
        """The same, but active is who was so within the last `LATELY` seconds. `now` in s."""
        self._heard = {id: at for id, at in self._heard.items() if id in peers}
        for id, peer in peers.items():
            if peer[4]:
                self._heard[id] = now
        return {
            id: (*peer[:4], now - self._heard.get(id, -LATELY) < LATELY, peer[5])
            for id, peer in peers.items()
        }
