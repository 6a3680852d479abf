"""A server of a cluster, as the others know it."""

from __future__ import annotations

from msgspec import Struct


class Member(Struct, frozen=True, array_like=True):
    #: Its Raft id: random, made with its data folder, never used again.
    id: int
    name: str
    host: str
    #: Of its API; its node port may be any other.
    port: int
    node_port: int
    #: Hash of the key of its certificate, made with its data folder too; "" without TLS.
    key: str = ""

    @property
    def address(self) -> str:
        """Of its API, as users write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
