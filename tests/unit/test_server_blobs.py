"""Blobs of a server among others: what it lacks it fetches, what is offered to it it spreads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grampus.blobs import Blobs
from grampus.errors import InvalidInput, NoQuorum, Refused
from grampus.ids import content_hash
from grampus.master.blob_desk import BlobDesk
from grampus.master.uploads import MOST, STALE
from grampus.protocol import BlobPiece, GetBlob, HasBlob, PutBlob
from grampus.server import blob_gather
from grampus.server.blob_gather import BlobGather
from tests.looped import looped


class Elsewhere:
    """The other servers, and what they have."""

    def __init__(self, here: Blobs, contents: list[bytes]) -> None:
        self.here = here
        self.has = {content_hash(data): data for data in contents}
        self.fetched: list[str] = []
        self.spread_to: list[str] = []
        self.quorum = True

    async def fetch(self, hash: str) -> bool:
        self.fetched.append(hash)
        if hash in self.has:
            self.here.put(self.has[hash])
        return hash in self.has

    async def spread(self, hash: str) -> None:
        if not self.quorum:
            raise NoQuorum("only 1 of 3 servers can store it")
        self.spread_to.append(hash)


class Named:
    """A ledger that names these."""

    def __init__(self, hashes: list[str]) -> None:
        self.hashes = sorted(hashes)

    async def named_blobs(self, after: str, limit: int) -> list[str]:
        return [hash for hash in self.hashes if hash > after][:limit]


def gather(here: Blobs, named: list[str], elsewhere: Elsewhere) -> BlobGather:
    reads: Any = Named(named)
    spread: Any = elsewhere
    return BlobGather(here, reads, spread)


CONTENTS = [b"blob %d" % number for number in range(7)]


@looped
async def test_what_is_named_and_lacking_is_fetched_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_gather, "PAGE", 2)
    here = Blobs(tmp_path)
    there = Elsewhere(here, CONTENTS)
    mine = {here.put(data) for data in CONTENTS[:3]}
    named = list(there.has)[1:]
    one = gather(here, named, there)
    await one.once()
    assert one.lacks == 0
    assert sorted(there.fetched) == sorted(set(named) - mine)
    assert all(here.size(hash) > 0 for hash in named)
    await one.once()
    assert len(there.fetched) == len(set(named) - mine)  # each once


@looped
async def test_what_nobody_has_is_counted_and_asked_for_again(tmp_path: Path) -> None:
    here = Blobs(tmp_path)
    there = Elsewhere(here, CONTENTS[:2])
    gone = content_hash(b"nobody has it")
    one = gather(here, [*there.has, gone], there)
    await one.once()
    assert one.lacks == 1
    there.has[gone] = b"nobody has it"
    await one.once()
    assert one.lacks == 0
    assert there.fetched.count(gone) == 2


@looped
async def test_a_worker_is_told_that_a_blob_is_there_when_a_majority_has_it(tmp_path: Path) -> None:
    here = Blobs(tmp_path)
    there = Elsewhere(here, [])
    desk, data = BlobDesk(here, there), b"a result"
    hash = content_hash(data)
    assert await desk.answer(HasBlob(hash)) == BlobPiece(-1)
    await desk.answer(PutBlob(hash, 0, data[:3], last=False))
    assert there.spread_to == []
    there.quorum = False
    with pytest.raises(NoQuorum):
        await desk.answer(PutBlob(hash, 3, data[3:], last=True))
    with pytest.raises(NoQuorum):  # it is here, but that is not enough
        await desk.answer(HasBlob(hash))
    there.quorum = True
    assert await desk.answer(HasBlob(hash)) == BlobPiece(len(data))
    assert there.spread_to == [hash]


@looped
async def test_a_worker_gets_what_only_another_server_has(tmp_path: Path) -> None:
    here = Blobs(tmp_path)
    there = Elsewhere(here, [b"a bundle"])
    (hash,) = there.has
    desk = BlobDesk(here, there)
    assert await desk.answer(GetBlob(hash, 2)) == BlobPiece(8, b"bundle")
    assert await desk.answer(GetBlob(content_hash(b"none"), 0)) == BlobPiece(-1)
    # A server is not asked by another one to ask a third.
    assert await BlobDesk(Blobs(tmp_path / "other")).answer(GetBlob(hash, 0)) == BlobPiece(-1)
    assert there.fetched == [hash, content_hash(b"none")]


def piece(hash: str, data: bytes, offset: int = 0, last: bool = False) -> PutBlob:
    return PutBlob(hash, offset, data, last)


@looped
async def test_a_worker_has_few_uploads_at_a_time_and_disturbs_no_other(tmp_path: Path) -> None:
    desk = BlobDesk(Blobs(tmp_path))
    incoming = tmp_path / "incoming"
    hashes = [content_hash(b"%d" % n) for n in range(MOST + 1)]
    for hash in hashes[:MOST]:
        await desk.answer(piece(hash, b"a"), "w1", 0)
    with pytest.raises(Refused, match="worker w1 has 8 uploads under way already"):
        await desk.answer(piece(hashes[MOST], b"a"), "w1", 0)
    await desk.answer(piece(hashes[0], b"b", 1), "w1", 0)  # those it has go on
    # Another one sends the same blob, in an upload of its own.
    data = b"0"
    assert await desk.answer(piece(hashes[0], data, last=True), "w2", 0) == BlobPiece(1)
    assert len(list(incoming.iterdir())) == MOST
    # What gets no piece any more is given up, and does not stay on the disk.
    await desk.answer(piece(hashes[1], b"b", 1), "w1", STALE)
    await desk.answer(piece(hashes[MOST], b"a"), "w1", STALE + 1)
    assert len(list(incoming.iterdir())) == 2
    with pytest.raises(InvalidInput, match="out of order"):
        await desk.answer(piece(hashes[2], b"b", 1), "w1", STALE + 1)


@looped
async def test_an_upload_that_has_ended_makes_room(tmp_path: Path) -> None:
    desk = BlobDesk(Blobs(tmp_path))
    for number in range(3 * MOST):
        data = b"%d" % number
        await desk.answer(piece(content_hash(data), data, last=True), "w1", 0)
    assert list((tmp_path / "incoming").iterdir()) == []
