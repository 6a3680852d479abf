"""The file of `grampus cluster snapshot`: a tar archive of a ledger and the blobs that it names.

Rules: both ways it is a stream, a piece at a time. A blob is named by its hash, which is checked
when it is taken out. Blobs that no server had are told in a last member, `missing`.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from msgspec import Struct

from grampus.blobs import Blobs
from grampus.errors import NotFound, Refused

#: Names in the archive.
LEDGER, BLOB, MISSING = "ledger.db", "blobs/", "missing"
_BLOCK, _PIECE = 512, 1024 * 1024
_END = bytes(2 * _BLOCK)


class Contents(Struct, frozen=True):
    """Of a backup, beside its ledger."""

    #: By hash: how many bytes.
    blobs: dict[str, int]
    missing: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(self.blobs.values())


def packed_size(ledger: int, contents: Contents) -> int:
    """Of the archive, in bytes; `ledger` is the size of the ledger's file."""
    sizes = [ledger, *contents.blobs.values()]
    if contents.missing:
        sizes.append(len(_told(contents.missing)))
    return sum(_BLOCK + _padded(size) for size in sizes) + len(_END)


def pack(ledger: IO[bytes], size: int, blobs: Blobs, contents: Contents) -> Iterator[bytes]:
    """The archive, in pieces. Raises NotFound when a blob has gone meanwhile."""
    yield _head(LEDGER, size)
    while piece := ledger.read(_PIECE):
        yield piece
    yield _fill(size)
    for hash, length in contents.blobs.items():
        if blobs.size(hash) != length:
            raise NotFound(f"blob {hash} was removed while the snapshot was read: ask again")
        yield _head(BLOB + hash, length)
        yield from blobs.pieces(hash)
        yield _fill(length)
    if contents.missing:
        told = _told(contents.missing)
        yield _head(MISSING, len(told)) + told + _fill(len(told))
    yield _END


def look(file: Path) -> Contents:
    """What it holds, from the heads of its members. Raises Refused."""
    return _read(file, None, None)


def unpack(file: Path, ledger: Path, blobs: Blobs) -> Contents:
    """Puts the ledger at that path, and the blobs, checked, where they belong.

    Raises Refused when it is no such archive, or damaged; InvalidInput when a blob is."""
    found = _read(file, ledger, blobs)
    if not ledger.exists():
        raise Refused(f"{file} holds no {LEDGER}: it is no snapshot of a cluster")
    return found


def _read(file: Path, ledger: Path | None, blobs: Blobs | None) -> Contents:
    held: dict[str, int] = {}
    missing: tuple[str, ...] = ()
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                data = archive.extractfile(member)
                if data is None:
                    continue
                if member.name == LEDGER and ledger is not None:
                    with ledger.open("wb") as out:
                        shutil.copyfileobj(data, out, _PIECE)
                elif member.name.startswith(BLOB):
                    hash = member.name.removeprefix(BLOB)
                    held[hash] = member.size
                    if blobs is not None and blobs.size(hash) < 0:
                        blobs.put_pieces(hash, _pieces(data))
                elif member.name == MISSING:
                    missing = tuple(data.read().decode("ascii").split())
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise Refused(f"{file} is no snapshot of a cluster, or damaged: {error}") from error
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror or error}") from error
    return Contents(held, missing)


def _pieces(data: IO[bytes]) -> Iterator[bytes]:
    while piece := data.read(_PIECE):
        yield piece


def _head(name: str, size: int) -> bytes:
    about = tarfile.TarInfo(name)
    about.size, about.mode = size, 0o600
    return about.tobuf(tarfile.GNU_FORMAT)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _fill(size: int) -> bytes:
    return bytes(_padded(size) - size)


def _told(missing: tuple[str, ...]) -> bytes:
    return "".join(f"{hash}\n" for hash in missing).encode()
