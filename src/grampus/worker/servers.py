"""Which server a worker tries next, and when it pauses. Pure.

Rule: whoever was named as the leader comes first, then the others in turn, at once. Only when all
have failed since the last connection that held is there a pause, which grows from round to round.
Where a server answers that it does not lead, the next leader is being elected: the pause stays
short.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Host and node port.
Address = tuple[str, int]

#: Between two rounds, in seconds: it doubles.
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
#: Between two rounds in which a server has answered.
ELECTION_PAUSE = 0.2
#: Addresses that are remembered because a server named them.
MOST_NAMED = 16


class Servers:
    def __init__(self, known: Sequence[Address]) -> None:
        self._known = list(dict.fromkeys(known))
        self._given = len(self._known)
        self._leader: Address | None = None
        #: Where the last connection was: tried after the others.
        self._last: Address | None = None
        self._failed: dict[Address, None] = {}
        self._answered = False
        self._pause = FIRST_PAUSE

    @property
    def several(self) -> bool:
        """Whether there is anywhere else to go."""
        return len(self._known) > 1

    def next(self) -> Address:
        if self._leader is not None and self._leader not in self._failed:
            return self._leader
        at = 0 if self._last is None else self._known.index(self._last) + 1
        for address in (*self._known[at:], *self._known[:at]):
            if address not in self._failed:
                return address
        raise AssertionError("all have failed, and nobody asked for the pause")

    def named(self, leader: Address) -> None:
        """Somebody says that it leads."""
        self.know([leader])
        self._leader = leader

    def know(self, servers: Sequence[Address]) -> None:
        """Others to try too. Those that were given at first are never forgotten."""
        for server in servers:
            if server in self._known:
                continue
            if len(self._known) >= self._given + MOST_NAMED:
                oldest = self._known.pop(self._given)
                if oldest == self._last:
                    self._last = None
                self._failed.pop(oldest, None)
            self._known.append(server)

    def failed(self, address: Address, *, answered: bool = False) -> None:
        """Nobody registers there now; `answered`: a server said so itself."""
        self._failed[address] = None
        self._answered = self._answered or answered

    def held(self, address: Address) -> None:
        """A connection to it lasted, and is lost now."""
        self._failed, self._answered, self._pause = {}, False, FIRST_PAUSE
        self._leader, self._last = None, address

    def pause(self) -> float:
        """Seconds to wait before `next`: 0 while there is one who has not failed."""
        if any(address not in self._failed for address in self._known):
            return 0.0
        pause = min(self._pause, ELECTION_PAUSE) if self._answered else self._pause
        self._pause = min(2 * self._pause, LAST_PAUSE)
        self._failed, self._answered = {}, False
        return pause
