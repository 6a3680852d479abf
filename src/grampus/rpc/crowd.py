"""Who stands where there is little room, by the network that he comes from. Pure.

Rule: whoever floods a place is in his own way. When somebody has to go, it is he who has stood for
the longest of the network that most come from; so others keep their place, and find one. Of IPv6 a
network is what one customer is given, /64, for he can take any address of it.
"""

from __future__ import annotations

import ipaddress
from typing import Generic, TypeVar

T = TypeVar("T")


class Crowd(Generic[T]):
    """Who came first stands first. `at` is any time that does not go back."""

    def __init__(self) -> None:
        self._network: dict[T, str] = {}
        self._standing: dict[str, dict[T, float]] = {}

    def __len__(self) -> int:
        return len(self._network)

    def come(self, who: T, host: str, at: float) -> None:
        network = network_of(host)
        self._network[who] = network
        self._standing.setdefault(network, {})[who] = at

    def gone(self, who: T) -> None:
        """Safe to call again."""
        network = self._network.pop(who, None)
        if network is not None:
            del self._standing[network][who]
            if not self._standing[network]:
                del self._standing[network]

    def of(self, host: str) -> int:
        """How many stand here that come from where that host is."""
        return len(self._standing.get(network_of(host), ()))

    def since(self, host: str) -> float | None:
        """Since when the first of them stands."""
        return next(iter(self._standing.get(network_of(host), {}).values()), None)

    def who_goes(self) -> T:
        """Who has to go for somebody else. There is one."""
        numerous = max(map(len, self._standing.values()))
        first = [next(iter(w.items())) for w in self._standing.values() if len(w) == numerous]
        return min(first, key=lambda each: each[1])[0]


def network_of(host: str) -> str:
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(number, ipaddress.IPv4Address):
        return str(number)
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return str(ipaddress.ip_network((number, 64), strict=False))
