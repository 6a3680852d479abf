"""Locks: first come, first served. A place in the queue is an ephemeral key, `/locks/NAME/SESSION`.

Who has the lowest create revision holds the lock, and that revision is the fencing token: it grows
with every holder, so that whoever is written to can refuse a holder of before. A place is given up
by `unlock`, or with its session; each waits for the one before it only.
"""

from __future__ import annotations

from collections.abc import Sequence

from grampus.cluster.commands import Compare, DeleteOp, GetDone, GetOp, PutOp, TxnDone
from grampus.cluster.values import KeyValue

PREFIX = b"/locks/"


def queue(name: str) -> bytes:
    """The prefix of all places of a lock."""
    return PREFIX + name.encode() + b"/"


def place(name: str, session: int) -> bytes:
    return queue(name) + b"%016x" % session


def stand_in_line(key: bytes) -> tuple[tuple[Compare, ...], tuple[PutOp, ...], tuple[GetOp, ...]]:
    """The transaction that takes a place, or finds the one that is there."""
    return (Compare(key, "version", "=", 0),), (PutOp(key, b"", True),), (GetOp(key),)


def token_of(done: TxnDone) -> int:
    """The create revision of the place."""
    if done.succeeded:
        return done.revision
    (got,) = done.results
    assert isinstance(got, GetDone)
    return got.items[0].created


def leave(key: bytes, token: int) -> tuple[tuple[Compare, ...], tuple[DeleteOp, ...]]:
    """The transaction that gives up that place, and no other that came after it."""
    return (Compare(key, "created", "=", token),), (DeleteOp(key),)


def ahead(places: Sequence[KeyValue], token: int) -> KeyValue | None:
    """The place right before that of `token`; None when it is the first."""
    before = [place for place in places if place.created < token]
    return max(before, key=lambda place: place.created, default=None)
