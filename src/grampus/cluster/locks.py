"""Locks: first come, first served. A place in the queue is an ephemeral key, `/locks/NAME/SESSION`.

Who has the lowest create revision holds the lock, and that revision is the fencing token: it grows
with every holder, so that whoever is written to can refuse a holder of before. A place is given up
by `unlock`, or with its session; each waits for the one before it only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from grampus.cluster.commands import (
    Compare,
    Deleted,
    DeleteOp,
    GetDone,
    GetOp,
    Op,
    PutOp,
    TxnDone,
)
from grampus.cluster.limits import check_name
from grampus.cluster.queries import Page, Piece
from grampus.cluster.values import KeyValue
from grampus.errors import LockLost, Refused

PREFIX = b"/locks/"


def queue(name: str) -> bytes:
    """The prefix of all places of a lock."""
    return PREFIX + name.encode() + b"/"


def place(name: str, session: int) -> bytes:
    return queue(name) + b"%016x" % session


class Holding(Protocol):
    """The keys, as one session sees them: what is read is not older than what it wrote."""

    @property
    def session(self) -> int: ...

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op] = ()
    ) -> TxnDone: ...

    async def delete(self, key: bytes) -> Deleted: ...

    async def range(self, prefix: bytes, limit: int = 100, after: bytes = b"") -> Page: ...

    async def changes(self, prefix: bytes, first: int) -> Piece:
        """What changed from revision `first` on, once something did, or after a while."""
        ...


async def take(keys: Holding, name: str, patience: float) -> int:
    """Waits for the lock for `patience` seconds; the fencing token. Again: the same token.

    Raises Refused when it is held for longer, and leaves the line; LockLost when the place was lost
    meanwhile. A caller that is cancelled keeps its place, until `give_up`."""
    check_name(name, "lock")
    key = place(name, keys.session)
    token = _token_of(
        await keys.txn((Compare(key, "version", "=", 0),), (PutOp(key, b"", True),), (GetOp(key),))
    )
    ahead: KeyValue | None = None
    try:
        async with asyncio.timeout(patience):
            while True:
                revision, found = await _places(keys, name)
                if not any(each.created == token for each in found):
                    raise LockLost(f"the place in line for lock {name} is lost, its session over")
                ahead = _ahead(found, token)
                if ahead is None:
                    return token
                await _left(keys, queue(name), (ahead.key, key), revision + 1)
    except TimeoutError:
        await keys.txn((Compare(key, "created", "=", token),), (DeleteOp(key),))
        holder = "another session" if ahead is None else f"session {ahead.session}"
        raise Refused(
            f"lock {name} was not free within {patience:g} s: {holder} is before you"
        ) from None


async def give_up(keys: Holding, name: str) -> None:
    """Raises LockLost when it was not held any more."""
    check_name(name, "lock")
    if not (await keys.delete(place(name, keys.session))).count:
        raise LockLost(f"session {keys.session} does not hold lock {name} any more")


async def _places(keys: Holding, name: str) -> tuple[int, list[KeyValue]]:
    """All of them, and a revision from which on their changes have to be watched."""
    found, after, revision = list[KeyValue](), b"", None
    while True:
        page = await keys.range(queue(name), 1000, after)
        revision = page.revision if revision is None else revision
        found += page.items
        if not page.more:
            return revision, found
        after = page.items[-1].key


async def _left(keys: Holding, prefix: bytes, places: tuple[bytes, ...], first: int) -> None:
    """Waits until one of these places is given up."""
    while True:
        piece = await keys.changes(prefix, first)
        changes = [change for fact in piece.facts for change in fact.changes]
        if any(change.value is None and change.key in places for change in changes):
            return
        first = piece.until + 1


def _token_of(done: TxnDone) -> int:
    """The create revision of the place."""
    if done.succeeded:
        return done.revision
    (got,) = done.results
    assert isinstance(got, GetDone)
    return got.items[0].created


def _ahead(places: Sequence[KeyValue], token: int) -> KeyValue | None:
    """The place right before that of `token`; None when it is the first."""
    before = [place for place in places if place.created < token]
    return max(before, key=lambda place: place.created, default=None)
