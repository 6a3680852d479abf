"""Between servers: Raft's own messages, what a follower passes on to the leader, and snapshots."""

from __future__ import annotations

from msgspec import Struct

from grampus.protocol.greeting import Stamp


class RaftMessages(Struct, frozen=True, array_like=True, tag="raft"):
    """Messages of the sender's Raft node, in order, as Raft encodes them. May be lost."""

    messages: list[bytes]
    #: Somebody on the sender waits for what is committed next: it is told at once.
    keen: bool = False
    #: How the sender's disk is, in ms: 0 when all is well, from 2000 on for so long a sync hangs,
    #: else a sync takes so long, time and again. None says nothing of it.
    disk: int | None = None


class Stamped(Struct, frozen=True, array_like=True, tag="stamped"):
    """A server's folder has a new stamp, or the one that it told in its Hello, and knows the one
    that it was welcomed with."""

    stamp: Stamp


class Propose(Struct, frozen=True, array_like=True, tag="propose"):
    """A follower passes commands on to the leader; answered by Proposed."""

    commands: list[bytes]


class Proposed(Struct, frozen=True, array_like=True, tag="proposed"):
    #: `done`, `not-leader` or `overloaded` (nothing happened), `unknown` (it may have).
    outcome: str
    #: What `apply` answered, one per command, encoded together.
    results: bytes = b""
    reason: str = ""
    #: Whoever has applied this sees what was done.
    index: int = 0


class ReadIndex(Struct, frozen=True, array_like=True, tag="read-index"):
    """The leader is asked which index a linearizable read has to wait for."""


class ReadIndexed(Struct, frozen=True, array_like=True, tag="read-indexed"):
    #: 0 when the one asked does not lead.
    index: int


class PutSnapshot(Struct, frozen=True, array_like=True, tag="put-snapshot"):
    """One piece of a ledger, in order; a piece at offset 0 begins anew. Answered by TookSnapshot.

    With the last piece comes Raft's own message, which takes the whole into use."""

    manifest: bytes
    offset: int
    data: bytes
    last: bool
    message: bytes = b""


class TookSnapshot(Struct, frozen=True, array_like=True, tag="took-snapshot"):
    #: False when the whole does not have the hash and size that its manifest names.
    ok: bool
