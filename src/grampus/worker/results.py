"""What an attempt left behind, read once it is over: its result, or why it failed.

Blocks. A result of at most INLINE_LIMIT travels in the report, a larger one becomes a blob.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from grampus.blobs import Blobs
from grampus.model.run import INLINE_LIMIT, Value
from grampus.tasks.output import Found, FoundError, Malformed, find
from grampus.worker.core.attempt import exit_text
from grampus.worker.core.events import ResultRead
from grampus.worker.logs import Logs
from grampus.worker.orders import Ended

#: A file of at most so many bytes is read on the event loop: a thread would take longer.
SMALL = 64 * 1024
#: Of stderr, in bytes, and of its last line, in characters.
_TAIL, _LINE = 4096, 500
_PIECE = 1024 * 1024


class Results:
    def __init__(self, attempts: Path, logs: Logs, blobs: Blobs) -> None:
        #: As text: `Path` takes several times as long as the calls that it is used for.
        self._attempts = str(attempts)
        self._logs = logs
        self._blobs = blobs

    def is_small(self, stem: str, ended: Ended) -> bool:
        if ended.small is not None:
            return True
        try:
            return os.stat(self._path(stem)).st_size <= SMALL
        except FileNotFoundError:
            return True

    def read(self, stem: str, ended: Ended, shell: bool) -> ResultRead:
        """`shell`: the output file holds what a shell command wrote, not what the runner wrote."""
        try:
            found = self._find(stem, ended, shell) if ended.output else None
            if ended.exit != 0:
                return self._failed(stem, ended, found)
            if isinstance(found, FoundError):
                return ResultRead(ended.n, None, found.error, found.exception, broken=True)
            value = self._value(stem, ended, found) if found is not None else None
        except (Malformed, OSError) as error:
            if ended.exit != 0:
                return self._failed(stem, ended, None)
            return ResultRead(ended.n, None, str(error), broken=True)
        return ResultRead(ended.n, value)

    def _path(self, stem: str) -> str:
        return f"{self._attempts}/{stem}.output"

    def _find(self, stem: str, ended: Ended, shell: bool) -> Found | FoundError | None:
        with self._open(stem, ended) as file:
            return find(file, shell)

    def _open(self, stem: str, ended: Ended) -> BinaryIO:
        if ended.small is not None:
            return io.BytesIO(ended.small)
        return open(self._path(stem), "rb")

    def _failed(self, stem: str, ended: Ended, found: object) -> ResultRead:
        if isinstance(found, FoundError):
            return ResultRead(ended.n, None, found.error, found.exception)
        error = exit_text(ended.exit)
        lines = self._logs.tail(stem, _TAIL).strip().splitlines()
        if lines:
            error = f"{error}: {lines[-1].strip()[:_LINE]}"
        return ResultRead(ended.n, None, error)

    def _value(self, stem: str, ended: Ended, found: Found) -> Value:
        if found.data is not None and found.size <= INLINE_LIMIT:
            return Value(found.encoding, found.data, None, found.size)
        if found.data is not None:
            return Value(found.encoding, None, self._blobs.put(found.data), found.size)
        with self._open(stem, ended) as file:
            file.seek(found.offset)
            if found.size <= INLINE_LIMIT:
                return Value(found.encoding, file.read(found.size), None, found.size)
            digest = hashlib.sha256()
            for piece in _pieces(file):
                digest.update(piece)
            hash = digest.hexdigest()
            if self._blobs.renew(hash) < 0:
                file.seek(found.offset)
                self._blobs.put_pieces(hash, _pieces(file))
            return Value(found.encoding, None, hash, found.size)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece
