"""The blobs of the node as the API uses them: uploads come in slowly, files are written in threads.

Rule: bytes that are still coming lie in a file without a name; the store sees them when they are
complete, checks and syncs them. So a client that stops half-way leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator

from grampus.blobs import Blobs

PIECE = 1024 * 1024


class BlobFiles:
    """Implements `ports.BlobStore`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def has(self, hash: str) -> bool:
        return await asyncio.to_thread(self._blobs.renew, hash) >= 0

    async def put(self, hash: str, pieces: AsyncIterator[bytes]) -> None:
        with tempfile.TemporaryFile() as aside:
            gathered = bytearray()
            async for piece in pieces:
                gathered += piece
                if len(gathered) >= PIECE:
                    await asyncio.to_thread(aside.write, bytes(gathered))
                    gathered.clear()
            aside.write(gathered)
            aside.seek(0)
            read = iter(lambda: aside.read(PIECE), b"")
            await asyncio.to_thread(self._blobs.put_pieces, hash, read)

    async def open(self, hash: str) -> AsyncIterator[bytes]:
        offset = 0
        while piece := await asyncio.to_thread(self._blobs.read, hash, offset, PIECE):
            yield piece
            offset += len(piece)
