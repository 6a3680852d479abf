"""One file of the log. Knows offsets and durability; what the records mean is `log`'s.

Space is filled with zeros ahead of the records, a step at a time: overwriting needs no change of
the file's size or extents, so a sync is one write to the device.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from grampus.consensus.disk import Disk
from grampus.consensus.record import (
    HEAD,
    START,
    Entry,
    Header,
    Kind,
    LogCorrupt,
    Record,
    decode_record,
    encode_record,
    payload_length,
    scan,
    witness,
)
from grampus.database.failure import storage_failed

#: In the header's padding, once another segment follows: it holds what was durable.
FOLLOWED = b"next"
_FOLLOWED_AT = START - len(FOLLOWED)
#: Zeros written ahead at once, in bytes: under a millisecond of work on a local disk.
STEP = 256 * 1024


class Segment:
    """Made by `create` or `load`. Entries `first` .. `next` - 1 are in it, at `offsets`."""

    def __init__(
        self, disk: Disk, path: Path, fd: int, header: Header, end: int, size: int
    ) -> None:
        self.path = path
        self.header = header
        self.first = header.first
        #: Whether it says that another segment was made after it.
        self.followed = False
        self.offsets = array("I")
        #: Where the next record goes; everything before is durable.
        self.end = end
        self._size = size
        self._disk = disk
        self._fd = fd

    @classmethod
    def create(cls, disk: Disk, path: Path, header: Header) -> Segment:
        """Whole or not at all: written aside, synced, renamed, and the name synced."""
        aside = path.with_suffix(".new")
        fd = disk.open(aside, create=True)
        try:
            disk.write(fd, header.encode().ljust(STEP, b"\0"), 0)
            disk.sync(fd)
            disk.rename(aside, path)
            disk.sync_folder(path.parent)
        except BaseException:
            disk.close(fd)
            raise
        return cls(disk, path, fd, header, START, STEP)

    @staticmethod
    def header_of(path: Path) -> Header:
        try:
            with path.open("rb") as file:
                return Header.decode(file.read(START))
        except LogCorrupt as error:
            raise LogCorrupt(f"log segment {path} cannot be used: {error}") from error
        except OSError as error:
            raise storage_failed("read", path, error) from error

    @classmethod
    def load(cls, disk: Disk, path: Path, until: int | None) -> tuple[Segment, list[Record]]:
        """Reads and checks all of it. `until`: its end by the next segment; None for the newest.

        Raises LogCorrupt when bytes that were durable are bad."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise storage_failed("read", path, error) from error
        try:
            header = Header.decode(data)
            records = list(scan(data, header.number))
        except (LogCorrupt, ValueError) as error:
            raise LogCorrupt(f"log segment {path} cannot be used: {error}") from error
        end = records[-1].offset + HEAD + len(records[-1].payload) if records else START
        if until is None:
            seen = witness(data, header.number, end)
        else:
            seen = None if end == until else until
        if seen is not None:
            raise LogCorrupt(
                f"log segment {path} is damaged at byte {end}, in data that was durable"
                f" (byte {seen} proves it): nothing was changed; restore this node from a snapshot"
                " or a backup"
            )
        segment = cls(disk, path, disk.open(path), header, end, len(data))
        segment.followed = data[_FOLLOWED_AT:START] == FOLLOWED
        if until is None:
            segment._mend(data, max((r.synced for r in records), default=START))
        return segment, records

    def _mend(self, data: bytes, watermark: int) -> None:
        """Cuts a torn tail, and makes durable what was read, before anything is appended.

        A torn record may have whole ones behind it, which would come to life behind a new one of
        its size. What lies above the watermark is written again: after a failed sync of an earlier
        process the kernel may hold it for clean although the disk never got it."""
        try:
            if data.count(0, self.end) != len(data) - self.end:
                self._disk.truncate(self._fd, self.end)
                self._size = self.end
            if watermark < self.end:
                self._disk.write(self._fd, data[watermark : self.end], watermark)
            self._disk.sync(self._fd)
        except BaseException:
            self.close()
            raise

    @property
    def next(self) -> int:
        """Index after its last entry."""
        return self.first + len(self.offsets)

    def append(self, records: list[tuple[Kind, int, int, bytes]]) -> list[int]:
        """Writes (kind, index, term, payload) records and syncs once; their offsets.

        After an exception the file may hold a part of them: only `load` may go on from there."""
        out, offsets, end = [], [], self.end
        for kind, index, term, payload in records:
            data = encode_record(self.header.number, end, self.end, kind, index, term, payload)
            out.append(data)
            offsets.append(end)
            end += len(data)
        if end > self._size:
            out.append(bytes(STEP))
            self._size = end + STEP
        self._disk.write(self._fd, b"".join(out), self.end)
        self._disk.sync(self._fd)
        self.end = end
        return offsets

    def say_followed(self) -> None:
        """Durably, so that the loss of the next segment's file is noticed."""
        if not self.followed:
            self._disk.write(self._fd, FOLLOWED, _FOLLOWED_AT)
            self._disk.sync(self._fd)
            self.followed = True

    def cut(self, index: int) -> None:
        """Forgets the entries from `index` on; they stay in the file, void."""
        if index < self.first:
            self.first = index
        del self.offsets[index - self.first :]

    def read(self, index: int) -> Entry:
        """The entry, checked again."""
        offset = self.offsets[index - self.first]
        try:
            head = os.pread(self._fd, HEAD, offset)
            length = payload_length(head) if len(head) == HEAD else 0
            data = head + os.pread(self._fd, length, offset + HEAD)
        except OSError as error:
            raise storage_failed("read", self.path, error) from error
        record = decode_record(data, 0, self.header.number, offset)
        if record is None or record.index != index:
            raise LogCorrupt(f"log segment {self.path} is damaged at byte {offset}, entry {index}")
        return Entry.of(record.kind, index, record.term, record.payload)

    def close(self) -> None:
        """Safe to call again."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._disk.close(fd)
