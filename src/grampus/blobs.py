"""Content-addressed files: bundles and values that are too large for the ledger.

A blob is named by the SHA-256 of its bytes and never changes. It appears under its name only when
it is whole, checked and synced; so a name that is there can be trusted after any crash. Files are
0600.

A blob is there before anything names it. So whoever is about to name one that is there already
renews it, and who cleans up leaves alone what is new.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from grampus.errors import InvalidInput, NotFound, Problem
from grampus.ids import content_hash
from grampus.model.run import BLOB_LIMIT

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_PIECE = 1024 * 1024


class Blobs:
    """Every method blocks; any thread may call. `DIR/blobs/<first two digits>/<hash>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._counter = 0
        self._lock = threading.Lock()
        for left in self._incoming.iterdir():
            left.unlink()

    def path(self, hash: str) -> Path:
        """Where that blob is, or would be. Raises InvalidInput for what is no hash."""
        if not _HASH.match(hash):
            raise InvalidInput([Problem("no content hash", found=repr(hash[:80]))])
        return self._folder / hash[:2] / hash

    def size(self, hash: str) -> int:
        """In bytes; -1 when there is no such blob."""
        try:
            return self.path(hash).stat().st_size
        except FileNotFoundError:
            return -1

    def renew(self, hash: str) -> int:
        """As `size`; and the blob counts as new."""
        with self._lock:
            try:
                os.utime(self.path(hash))
            except FileNotFoundError:
                return -1
        return self.size(hash)

    def read(self, hash: str, offset: int, limit: int) -> bytes:
        """Raises NotFound."""
        try:
            with self.path(hash).open("rb") as file:
                file.seek(offset)
                return file.read(limit)
        except FileNotFoundError:
            raise NotFound(f"there is no blob {hash}") from None

    def pieces(self, hash: str) -> Iterator[bytes]:
        """The bytes in order. Raises NotFound at the first."""
        offset = 0
        while piece := self.read(hash, offset, _PIECE):
            yield piece
            offset += len(piece)

    def put(self, data: bytes) -> str:
        """Durable when this returns; the hash."""
        hash = content_hash(data)
        if self.renew(hash) < 0:
            self.put_pieces(hash, [data])
        return hash

    def put_pieces(self, hash: str, pieces: Iterable[bytes], limit: int = BLOB_LIMIT) -> None:
        """Raises InvalidInput when the bytes are not those of `hash`, or more than `limit`."""
        final = self.path(hash)
        with self._lock:
            self._counter += 1
            aside = self._incoming / f"{os.getpid()}.{self._counter}"
        digest, size = hashlib.sha256(), 0
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                for piece in pieces:
                    size += len(piece)
                    if size > limit:
                        raise InvalidInput([_too_large(size, limit)])
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                if digest.hexdigest() != hash:
                    raise InvalidInput(
                        [Problem("the bytes are not those of the hash", found=digest.hexdigest(),
                                 allowed=hash)]
                    )  # fmt: skip
                os.fsync(file.fileno())
            self._publish(aside, final)
        finally:
            aside.unlink(missing_ok=True)

    def append(self, hash: str, offset: int, data: bytes, last: bool, by: str = "") -> None:
        """One piece of an upload, in order from offset 0; the one with `last` publishes it.

        Each that sends it, `by` name, has an upload of his own."""
        if self.renew(hash) >= 0:
            return
        aside = self._upload(hash, by)
        with self._lock:
            flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if offset == 0 else 0)
            with open(os.open(aside, flags, 0o600), "r+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size != offset:
                    raise InvalidInput(
                        [Problem("a piece out of order", found=str(offset), allowed=str(size))]
                    )
                if size + len(data) > BLOB_LIMIT:
                    raise InvalidInput([_too_large(size + len(data), BLOB_LIMIT)])
                file.write(data)
        if last:
            try:
                with aside.open("rb") as file:
                    self.put_pieces(hash, iter(lambda: file.read(_PIECE), b""))
            finally:
                aside.unlink(missing_ok=True)

    def give_up(self, hash: str, by: str = "") -> None:
        """What has come of an upload goes."""
        self._upload(hash, by).unlink(missing_ok=True)

    def _upload(self, hash: str, by: str) -> Path:
        self.path(hash)
        return self._incoming / f"{hash}.{content_hash(by.encode())[:16]}"

    def remove(self, hash: str, before: float) -> None:
        """Unless it was made or renewed since `before`, in seconds."""
        path = self.path(hash)
        with self._lock, contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()

    def hashes(self) -> Iterator[tuple[str, float]]:
        """Every blob with the time when it was made or renewed, in seconds."""
        for folder in sorted(self._folder.iterdir()):
            if len(folder.name) == 2:
                for file in sorted(folder.iterdir()):
                    yield file.name, file.stat().st_mtime

    def _publish(self, aside: Path, final: Path) -> None:
        if not final.parent.is_dir():
            final.parent.mkdir(mode=0o700, exist_ok=True)
            _sync(self._folder)
        aside.rename(final)
        _sync(final.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _too_large(size: int, limit: int) -> Problem:
    return Problem("the blob is too large", found=f"{size} bytes", allowed=f"{limit} bytes")
