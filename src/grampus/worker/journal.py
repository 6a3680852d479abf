"""DIR/worker/journal.db: what `core.memory` adds up, one record behind the other.

    record = length of the payload, crc of the payload, payload (one entry, msgpack)

It is written, not synced: it survives the death of the process, and the death of the machine makes
it worthless anyway, because the warden that it speaks of is then gone too. So nothing here waits
for a disk. A record is whole or it does not count; what is behind a torn one is cut off. When the
file has grown, it is written anew with what still counts.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from grampus.database import StorageFailed
from grampus.worker.core.memory import Entry, Memory

#: Grown by so many bytes since it was last written anew, it is written anew.
GROWTH = 4 << 20
_HEAD = struct.Struct("<II")


class Journal:
    """Made by `open`. Raises StorageFailed when the disk does not take what is written."""

    def __init__(self, path: Path, fd: int, size: int, memory: Memory) -> None:
        self._path = path
        self._fd = fd
        self._size = size
        #: Of what still counted when it was last written anew.
        self._floor = 0
        #: What an earlier process has left.
        self.memory = memory
        self._encode = msgspec.msgpack.Encoder().encode

    @classmethod
    def open(cls, path: Path) -> Journal:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                with open(fd, "rb", closefd=False) as file:
                    data = file.read()
                memory, size = _read(data)
                os.ftruncate(fd, size)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise _failed(path, error) from error
        return cls(path, fd, size, memory)

    def write(self, entries: Iterable[Entry]) -> None:
        """All of them, in one write."""
        data = b"".join(map(self._record, entries))
        try:
            _write(self._fd, data, self._size)
        except OSError as error:
            raise _failed(self._path, error) from error
        self._size += len(data)

    @property
    def grown(self) -> bool:
        """It is time for `renew`."""
        return self._size - self._floor > GROWTH

    def renew(self, memory: Memory) -> None:
        """The file becomes this and nothing else, at one stroke."""
        data = b"".join(map(self._record, memory.entries()))
        aside = self._path.with_suffix(".new")
        try:
            fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write(fd, data, 0)
                os.rename(aside, self._path)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise _failed(self._path, error) from error
        os.close(self._fd)
        self._fd, self._size, self._floor = fd, len(data), len(data)

    def close(self) -> None:
        """Safe to call again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _record(self, entry: Entry) -> bytes:
        payload = self._encode(entry)
        return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _read(data: bytes) -> tuple[Memory, int]:
    """What it adds up to, and where its last whole record ends."""
    memory, size = Memory(), 0
    decode = msgspec.msgpack.Decoder(Entry).decode
    for payload in _payloads(data):
        try:
            memory.add([decode(payload)])
        except msgspec.DecodeError:
            # Of another version of Grampus. Half a memory is worse than none.
            return Memory(), 0
        size += _HEAD.size + len(payload)
    return memory, size


def _payloads(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        payload = data[at : at + length]
        if len(payload) < length or not length or zlib.crc32(payload) != crc:
            return
        at += length
        yield payload


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def _failed(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"the worker's journal {path}: {error.strerror or error}")
