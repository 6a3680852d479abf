"""Answers what workers, and servers, ask of blobs over the bulk lane.

Rule: to a worker a blob is there when it is there as long as the cluster is: what it offers is
spread before it is told so, for a report names it next; what is not here is fetched for it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from grampus.blobs import Blobs
from grampus.master.uploads import Uploads
from grampus.protocol import BlobPiece, GetBlob, HasBlob, PutBlob

#: Bytes in one piece.
PIECE = 4 * 1024 * 1024


class Elsewhere(Protocol):
    """The other servers' blobs."""

    async def spread(self, hash: str) -> None:
        """Returns when enough of them have it. Raises NoQuorum."""
        ...

    async def fetch(self, hash: str) -> bool:
        """Whether it is here now."""
        ...


class BlobDesk:
    def __init__(self, blobs: Blobs, elsewhere: Elsewhere | None = None) -> None:
        """`elsewhere` is None for a desk that answers servers, or where there are no others."""
        self._blobs = blobs
        self._elsewhere = elsewhere
        self._uploads = Uploads()

    async def answer(
        self, message: HasBlob | GetBlob | PutBlob, worker: str = "", now: int = 0
    ) -> BlobPiece:
        """Size -1: there is no such blob. Raises InvalidInput for pieces that do not fit, NoQuorum
        when too few servers have what is offered, Refused when a worker uploads too much at a time.

        `worker` is who asks, "" for a server; `now` in ms, of a steady clock."""
        if worker and isinstance(message, PutBlob):
            for by, hash in self._uploads.given_up(now):
                await asyncio.to_thread(self._blobs.give_up, hash, by)
            self._uploads.take(worker, message.hash, message.last, now)
        answering = partial(self._answer, message, worker)
        found, elsewhere = await asyncio.to_thread(answering), self._elsewhere
        if elsewhere is None:
            return found
        if isinstance(message, GetBlob):
            if found.size < 0 and await elsewhere.fetch(message.hash):
                return await asyncio.to_thread(self._answer, message)
        elif found.size >= 0:
            await elsewhere.spread(message.hash)
        return found

    def _answer(self, message: HasBlob | GetBlob | PutBlob, worker: str = "") -> BlobPiece:
        match message:
            case HasBlob():
                return BlobPiece(self._blobs.renew(message.hash))
            case GetBlob():
                size = self._blobs.size(message.hash)
                if size < 0:
                    return BlobPiece(-1)
                return BlobPiece(size, self._blobs.read(message.hash, message.offset, PIECE))
            case PutBlob():
                piece = message.hash, message.offset, message.data, message.last
                self._blobs.append(*piece, by=worker)
                return BlobPiece(self._blobs.size(message.hash))
