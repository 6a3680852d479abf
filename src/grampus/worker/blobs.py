"""Blobs between the worker's own store and a server's, in pieces, over the bulk connection.

Where both are one folder (`grampus up`) nothing is moved: what is there is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from grampus.blobs import Blobs
from grampus.errors import NotFound, ProtocolError
from grampus.model.run import BLOB_LIMIT
from grampus.protocol import BlobPiece, GetBlob, HasBlob, Message, PutBlob

PIECE = 4 * 1024 * 1024
#: Blobs that are offered at a time: a server takes no more than a few.
OFFERS = 4
#: For the answer to one piece, in seconds.
TIMEOUT = 60.0

#: Asks a server and waits for the answer at most so many seconds. Raises GrampusError.
Ask = Callable[[Message, float], Awaitable[Message]]


class Exchange:
    """Fetches and offers blobs; several that want the same one wait for one transfer."""

    def __init__(self, blobs: Blobs, ask: Ask) -> None:
        self._blobs = blobs
        self._ask = ask
        self._locks: dict[str, asyncio.Lock] = {}
        self._offers = asyncio.Semaphore(OFFERS)

    def has(self, hash: str) -> bool:
        """Whether it is in the worker's store."""
        return self._blobs.size(hash) >= 0

    def path(self, hash: str) -> str:
        """Its file in the worker's store, where it counts as new from now on."""
        self._blobs.renew(hash)
        return str(self._blobs.path(hash))

    async def fetch(self, hash: str) -> None:
        """Afterwards the worker's store has it, checked. NotFound: the server does not have it."""
        async with self._locks.setdefault(hash, asyncio.Lock()):
            if not self.has(hash):
                await self._fetch(hash)
        self._locks.pop(hash, None)

    async def _fetch(self, hash: str) -> None:
        offset, size = 0, -1
        while size < 0 or offset < size:
            piece = await self._piece(GetBlob(hash, offset))
            if piece.size < 0:
                raise NotFound(f"the server does not have the blob {hash}")
            if piece.size > BLOB_LIMIT or (size >= 0 and piece.size != size):
                raise ProtocolError(f"the blob {hash} has changed its size")
            size = piece.size
            if not piece.data and offset < size:
                raise ProtocolError(f"the blob {hash} ends before its size")
            last = offset + len(piece.data) >= size
            await asyncio.to_thread(self._blobs.append, hash, offset, piece.data, last)
            offset += len(piece.data)

    async def offer(self, hash: str) -> None:
        """Afterwards the server has it, durably. Raises GrampusError: try again."""
        async with self._offers:
            await self._offer(hash)

    async def _offer(self, hash: str) -> None:
        found = await self._piece(HasBlob(hash))
        if found.size >= 0:
            return
        size, offset = self._blobs.size(hash), 0
        while offset < size or offset == 0:
            data = await asyncio.to_thread(self._blobs.read, hash, offset, PIECE)
            last = offset + len(data) >= size
            await self._piece(PutBlob(hash, offset, data, last))
            offset += len(data)
            if last:
                break

    async def _piece(self, question: HasBlob | GetBlob | PutBlob) -> BlobPiece:
        answer = await self._ask(question, TIMEOUT)
        if not isinstance(answer, BlobPiece):
            raise ProtocolError(f"{type(question).__name__} was answered by {answer!r:.100}")
        return answer
