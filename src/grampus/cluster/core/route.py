"""Which server a client asks. Pure: time and chance come in.

Rule: one that failed rests, for longer each time; while all rest, the one that rests for the
shortest time is waited for. Who leads is asked for what only it decides: others would have to ask
it. Addresses that were given stay; those that the cluster told last are tried too.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Host and node port.
Address = tuple[str, int]

#: Milliseconds of rest after the first failure; it doubles.
FIRST_REST, LAST_REST = 100, 5_000
#: Servers that are remembered because the cluster told them.
MOST_TOLD = 32


class Route:
    def __init__(self, given: Sequence[Address]) -> None:
        self._given = tuple(dict.fromkeys(given))
        self._known: tuple[Address, ...] = self._given
        #: Who failed: rests until then, and for how long the next time.
        self._rest: dict[Address, tuple[int, int]] = {}
        self._at = 0
        #: Who leads, by the newest word of a server.
        self.leader: Address | None = None

    @property
    def known(self) -> tuple[Address, ...]:
        return self._known

    def told(self, servers: Sequence[Address]) -> None:
        """By a server: the cluster has these now."""
        here = self.home
        self._known = tuple(dict.fromkeys([*self._given, *servers[:MOST_TOLD]]))
        self._rest = {each: rest for each, rest in self._rest.items() if each in self._known}
        self._at = self._known.index(here) if here in self._known else 0

    def best(self, now: int, *, for_leader: bool) -> Address:
        if for_leader and self.leader is not None and not self.wait(now, self.leader):
            return self.leader
        return self.home

    @property
    def home(self) -> Address:
        """Whom to ask, rest or not."""
        return self._known[self._at]

    def wait(self, now: int, address: Address) -> int:
        """For how many ms it rests still."""
        return max(0, self._rest.get(address, (0, 0))[0] - now)

    def failed(self, now: int, address: Address, chance: float) -> None:
        """From a rest a random part, up to half, is taken off by `chance`, 0 to 1."""
        if self.leader == address:
            self.leader = None
        if address not in self._known:
            return
        length = self._rest.get(address, (0, FIRST_REST))[1]
        self._rest[address] = (now + int(length * (1 - chance / 2)), min(2 * length, LAST_REST))
        if address == self.home:
            turn = len(self._known)
            others = [(self._at + step) % turn for step in range(1, turn + 1)]
            self._at = min(others, key=lambda place: self.wait(now, self._known[place]))

    def worked(self, address: Address) -> None:
        self._rest.pop(address, None)

    def leads(self, address: Address | None) -> None:
        """A server says so; None: or does not know."""
        self.leader = address

    def passes_on(self, address: Address) -> None:
        """It works, but cannot do it now: another one is asked next."""
        if address == self.leader:
            self.leader = None
        if address == self.home:
            self._at = (self._at + 1) % len(self._known)
