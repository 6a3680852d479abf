"""The bulk lane between a worker and its server: pieces of logs and blobs, each asked for.

They go over a connection of their own, so that none is in the way of what is short.
"""

from __future__ import annotations

from msgspec import Struct


class ReadLog(Struct, frozen=True, array_like=True, tag="read-log"):
    """Bytes of one stream of one attempt, from `offset`; answered by LogChunk. Bulk lane."""

    session: int
    n: int
    run: str
    task: str
    attempt: int
    #: `stdout` or `stderr`.
    stream: str
    offset: int
    limit: int


class LogChunk(Struct, frozen=True, array_like=True, tag="log-chunk"):
    """`data` starts at `offset` (moved up when the middle was cut); `end` when no more will
    come."""

    offset: int
    data: bytes
    end: bool
    #: Bytes left out before `data` because the stream passed its cap.
    skipped: int = 0
    #: Bytes written to the stream so far.
    size: int = 0


class HasBlob(Struct, frozen=True, array_like=True, tag="has-blob"):
    hash: str


class GetBlob(Struct, frozen=True, array_like=True, tag="get-blob"):
    hash: str
    offset: int


class PutBlob(Struct, frozen=True, array_like=True, tag="put-blob"):
    """One piece, in order; the one with `last` makes the blob durable under its hash."""

    hash: str
    offset: int
    data: bytes
    last: bool


class BlobPiece(Struct, frozen=True, array_like=True, tag="blob-piece"):
    """Answer to the three above: `size` is -1 when the server does not have the blob."""

    size: int
    data: bytes = b""
