"""What a replica asks of the connections to its peers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from grampus.consensus.members import Members
from grampus.model.member import Member


class Transport(Protocol):
    #: Why this server is no member any more, once a peer has said so.
    void: asyncio.Future[str]

    def know(self, members: Members) -> None:
        """These are the peers from now on."""
        ...

    def meet(self, member: Member) -> None:
        """It has said Hello, and may not be among those who are known: it can be answered."""
        ...

    def send(self, to: int, messages: Sequence[bytes], keen: bool = False) -> bool:
        """Raft messages, in order. Drops them, and says False, rather than wait. `keen`: somebody
        here waits for what is committed next."""
        ...

    def say(self, disk: int, keen: bool) -> None:
        """Tells all peers how this server's disk is: see `Strain.told`."""
        ...

    async def propose(
        self, to: int, commands: Sequence[bytes], within: float
    ) -> tuple[list[object], int]:
        """As `Replica.propose` on the leader; and the index at which it is applied. Raises
        NotLeader or Overloaded (nothing happened), or OutcomeUnknown."""
        ...

    async def read_index(self, to: int, within: float) -> int:
        """As `RaftReplica.confirm` on the leader. Raises NotLeader."""
        ...

    async def deliver(self, to: int, manifest: bytes, path: Path, message: bytes) -> None:
        """A snapshot's file, then Raft's message. Raises GrampusError."""
        ...
