"""Blobs of a cluster: stored by a majority before they are named, fetched where they are missing.

Rule: a command that names a hash is proposed only when a majority of the voters has it on disk, so
that it is there as long as the cluster is. A server that lacks one gets it from a peer when it is
asked for it; what it lacks and nobody asks for is the affair of `blob_gather`.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator

from grampus.api.blob_files import BlobFiles
from grampus.blobs import Blobs
from grampus.consensus.peers import Peers
from grampus.consensus.replica import RaftReplica
from grampus.errors import GrampusError, NoQuorum, NotFound
from grampus.protocol import BlobPiece, GetBlob, HasBlob, PutBlob

log = logging.getLogger("grampus.blobs")

#: Bytes sent at once, and seconds for one piece.
PIECE, PIECE_TIMEOUT = 2 * 1024 * 1024, 30.0
#: Seconds that the slowest servers have once a majority has a blob.
MOMENT = 0.5


class BlobSpread:
    """The blob store of the API on a server of several."""

    def __init__(self, blobs: Blobs, replica: RaftReplica, peers: Peers) -> None:
        self._blobs = blobs
        self._files = BlobFiles(blobs)
        self._replica = replica
        self._peers = peers
        #: Of hashes that are fetched right now: several may want the same one.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def has(self, hash: str) -> bool:
        """Here, by now: fetched from a peer if need be."""
        return await self._files.has(hash) or await self.fetch(hash)

    async def put(self, hash: str, pieces: AsyncIterator[bytes]) -> None:
        """As `BlobFiles.put`; NoQuorum when too few servers have it then."""
        await self._files.put(hash, pieces)
        await self.spread(hash)

    async def open(self, hash: str) -> AsyncIterator[bytes]:
        if not await self.has(hash):
            raise NotFound(f"there is no blob {hash}")
        async for piece in self._files.open(hash):
            yield piece

    async def spread(self, hash: str) -> None:
        """Returns when a majority of the voters has it. Raises NoQuorum."""
        voters = self._replica.members.conf[0]
        have, needed = int(self._replica.id in voters), len(voters) // 2 + 1
        async with asyncio.TaskGroup() as group:
            others = [id for id in voters if id != self._replica.id]
            giving = {group.create_task(self._give(id, hash)) for id in others}
            while giving:
                # Who has not got it a moment after the majority has fetches it later by himself.
                moment = None if have < needed else MOMENT
                done, giving = await asyncio.wait(
                    giving, timeout=moment, return_when=asyncio.FIRST_COMPLETED
                )
                have += sum(each.result() for each in done)
                if not done:
                    for each in giving:
                        each.cancel()
                    break
        if have < needed:
            raise NoQuorum(
                f"only {have} of {len(voters)} servers can store blob {hash[:12]}: try again when"
                " more of them are back"
            )

    async def _give(self, to: int, hash: str) -> bool:
        try:
            found = await self._peers.ask(to, HasBlob(hash), PIECE_TIMEOUT, bulk=True)
            if isinstance(found, BlobPiece) and found.size >= 0:
                return True
            size = await asyncio.to_thread(self._blobs.size, hash)
            offset, last = 0, False
            while not last:
                data = await asyncio.to_thread(self._blobs.read, hash, offset, PIECE)
                last = offset + len(data) >= size
                piece = PutBlob(hash, offset, data, last)
                await self._peers.ask(to, piece, PIECE_TIMEOUT, bulk=True)
                offset += len(data)
            return True
        except (GrampusError, TimeoutError) as error:
            log.info("blob %s did not reach server %d: %s", hash[:12], to, error)
            return False

    async def fetch(self, hash: str) -> bool:
        """From the first peer that has it; False when none does."""
        if (lock := self._locks.get(hash)) is None:
            self._locks[hash] = lock = asyncio.Lock()
        async with lock:
            return await self._files.has(hash) or await self._fetch(hash)

    async def _fetch(self, hash: str) -> bool:
        for member in self._replica.members.known:
            if member.id == self._replica.id or not self._peers.connected(member.id):
                continue
            try:
                if await self._take(member.id, hash):
                    return True
            except (GrampusError, TimeoutError) as error:
                log.info("blob %s is not had from server %s: %s", hash[:12], member.name, error)
        return False

    async def _take(self, source: int, hash: str) -> bool:
        offset = 0
        while True:
            got = await self._peers.ask(source, GetBlob(hash, offset), PIECE_TIMEOUT, bulk=True)
            if not isinstance(got, BlobPiece) or got.size < 0:
                return False
            last = offset + len(got.data) >= got.size
            await asyncio.to_thread(self._blobs.append, hash, offset, got.data, last)
            offset += len(got.data)
            if last:
                return True
