"""Answers what workers ask of blobs over the bulk lane."""

from __future__ import annotations

import asyncio

from grampus.blobs import Blobs
from grampus.protocol import BlobPiece, GetBlob, HasBlob, PutBlob

#: Bytes in one piece.
PIECE = 4 * 1024 * 1024


class BlobDesk:
    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def answer(self, message: HasBlob | GetBlob | PutBlob) -> BlobPiece:
        """Size -1: there is no such blob. Raises InvalidInput for pieces that do not fit."""
        return await asyncio.to_thread(self._answer, message)

    def _answer(self, message: HasBlob | GetBlob | PutBlob) -> BlobPiece:
        match message:
            case HasBlob():
                return BlobPiece(self._blobs.renew(message.hash))
            case GetBlob():
                size = self._blobs.size(message.hash)
                if size < 0:
                    return BlobPiece(-1)
                return BlobPiece(size, self._blobs.read(message.hash, message.offset, PIECE))
            case PutBlob():
                self._blobs.append(message.hash, message.offset, message.data, message.last)
                return BlobPiece(self._blobs.size(message.hash))
